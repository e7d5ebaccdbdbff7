"""Calls from greenlets of gevent, each test in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path
from typing import Any

from .support import EmulatorTest, environment

# The begin of each program: a client, and a greenlet that counts while others wait.
PROGRAM = textwrap.dedent("""
    from gevent import monkey
    monkey.patch_all()
    import json, sys, threading
    import gevent
    import ghl_oauth

    settings, store, company_id, locations = json.loads(sys.argv[1])

    class Memory(ghl_oauth.Store):
        '''A store that switches to another greenlet in each method.'''

        def __init__(self):
            self.rows = {}
            self.inside = self.most = 0

        def switch(self):
            self.inside += 1
            self.most = max(self.most, self.inside)
            gevent.sleep(0.01)
            self.inside -= 1

        def load(self, resource_id):
            self.switch()
            return self.rows.get(resource_id)

        def save(self, resource_id, record_json, expected_version):
            self.switch()
            stored = self.rows.get(resource_id)
            if (json.loads(stored)["version"] if stored else 0) != expected_version:
                raise ghl_oauth.Conflict
            self.rows[resource_id] = record_json

        def remove(self, resource_id):
            self.switch()
            self.rows.pop(resource_id, None)

        def list(self, query):
            self.switch()
            return ghl_oauth.StorePage(list(self.rows.values()))

    ticks = 0

    def tick():
        global ticks
        while True:
            gevent.sleep(0.01)
            ticks += 1

    gevent.spawn(tick)
    memory = Memory()
    client = ghl_oauth.Client(**settings, store=store or memory)

    def finish(**found):
        client.close()
        print(json.dumps({**found, "threads": threading.active_count()}))
""")


class GeventTest(EmulatorTest):
    OPTIONS = ("--locations", "12")
    maxDiff = None

    def setUp(self) -> None:
        if importlib.util.find_spec("gevent") is None:
            print(
                "skipped: greenlets, gevent is not installed (pip install gevent)", file=sys.stderr
            )
            raise unittest.SkipTest("no gevent")
        super().setUp()

    def run_program(self, body: str, store: str | None = None, begin: str = PROGRAM) -> Any:
        """Runs a program with the tokens of this test's client. Returns what it prints."""
        configuration = self.emulator.configuration
        settings = {
            "client_id": configuration["clientId"],
            "client_secret": configuration["clientSecret"],
            "base_url": configuration["baseUrl"],
        }
        company_id = self.emulator.company_id
        argument = json.dumps([settings, store, company_id, self.emulator.location_ids])
        program = subprocess.run(
            [sys.executable, "-c", begin + textwrap.dedent(body), argument],
            input=json.dumps([token.raw for token in self.client.tokens_export()]).encode(),
            cwd=Path(__file__).parents[1],
            env=environment(),
            capture_output=True,
            timeout=120,
        )
        self.assertEqual((program.returncode, program.stderr.decode()), (0, ""), program.stdout)
        return json.loads(program.stdout)

    def test_call_is_cancelled_in_a_child_that_its_callback_forked(self) -> None:
        self.install()
        with tempfile.TemporaryDirectory() as folder:
            found = self.run_program(
                """
                import os
                parent = os.getpid()
                children, inner = [], []

                def listen(event):
                    if not children:
                        children.append(os.fork())
                        if children == [0]:
                            inner.append(client.stats() and len(list(client.tokens_list())))

                client.on_event(listen)
                try:
                    client.tokens_import(json.load(sys.stdin), replace=True)
                    end = "returned"
                except ghl_oauth.GhlError as error:
                    end = error.status
                if os.getpid() != parent:
                    client.tokens_list().__next__()
                    expected = "GHL_ERR_CANCELLED", [1]
                    os._exit(0 if (end, inner) == expected else 1)
                finish(end=end, child=os.waitpid(children[0], 0)[1])
                """,
                store=str(Path(folder, "tokens.db")),
            )
        self.assertEqual((found["end"], found["child"]), ("returned", 0))

    def test_child_ends_a_call_whose_thread_was_waking_its_greenlet_at_the_fork(self) -> None:
        printed = self.run_program("""
            import os, signal
            from ghl_oauth import _greenlets

            wake = _greenlets._Wake(gevent.get_hub())
            wake._lock.acquire()  # as the thread does while it wakes the greenlet
            reader, writer = os.pipe()
            if os.fork() == 0:
                signal.alarm(60)  # ends the child if it waits forever
                wake.close()
                os.write(writer, b"closed")
                os._exit(0)
            os.close(writer)
            answer = os.read(reader, 9).decode()
            wake._lock.release()
            wake.close()
            finish(answer=answer)
        """)
        self.assertEqual(printed["answer"], "closed")

    def test_signal_handler_may_make_a_call_at_any_line_of_a_nested_call(self) -> None:
        printed = self.run_program("""
            import faulthandler
            from ctypes import CFUNCTYPE, c_int32
            from ghl_oauth import _callback, _greenlets
            from tests.each_line import CallAtLine

            def run(work):
                errand = _greenlets.run(work, None)
                if errand.error is not None:
                    raise errand.error
                return errand.result

            def calling_back(function):
                return _callback.callback(CFUNCTYPE(c_int32), function, failed=9)

            inner = calling_back(lambda: run(lambda: 3))
            outer = calling_back(lambda: 10 * run(lambda: inner() + 1))

            faulthandler.dump_traceback_later(100, exit=True)
            wrong = []
            for number in range(1, 10_000):
                results = []
                with CallAtLine(number, _greenlets, lambda: results.append(run(lambda: 5))) as line:
                    results.append(run(lambda: outer() + 2))
                if not line.reached:
                    break
                if results != [5, 42]:
                    wrong.append((number, results))
            finish(wrong=wrong, lines=number)
        """)
        self.assertEqual(printed["wrong"], [])
        self.assertGreater(printed["lines"], 40)

    def test_greenlets_share_one_refresh_while_others_run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "tokens.db"))
            self.client = self.make_client(store=path)
            self.install()
            self.expire()
            self.emulator.settings(latencyMs=500)
            found = self.run_program(
                """
                asking = [gevent.spawn(client.access_token, company_id) for _ in range(100)]
                tokens = {one.get() for one in asking}
                before = ticks
                finish(tokens=len(tokens), ticks=before)
                """,
                path,
            )
        self.assertEqual(found["tokens"], 1)
        self.assertGreater(found["ticks"], 10, "the other greenlets ran during the refresh")
        self.assertEqual(self.emulator.refreshes(), 1)

    def test_store_and_progress_that_switch_greenlets_work_during_a_mint(self) -> None:
        self.install()
        found = self.run_program(
            """
            client.tokens_import(json.load(sys.stdin))
            told, events = [], []

            def progress(so_far):
                gevent.sleep(0.05)
                told.append(so_far.done)

            def hear(event):
                gevent.sleep(0)
                events.append(event.type)

            client.on_event(hear)

            def ask():
                for _ in range(20):
                    client.access_token(company_id)
                    client.tokens_list()
                    gevent.sleep(0.005)
                client.token_refresh(company_id)

            asking = [gevent.spawn(ask) for _ in range(8)]
            minting = gevent.spawn(client.tokens_mint, company_id, progress=progress)
            gevent.joinall([minting, *asking], raise_error=True)
            minted = minting.get().minted
            for location in locations:
                client.access_token(location)
            heard = events.count("token.minted")
            finish(minted=minted, told=len(told), most=memory.most, heard=heard)
            """
        )
        self.assertEqual((found["minted"], found["heard"]), (12, 12))
        self.assertGreater(found["told"], 0)
        self.assertGreater(found["most"], 1, "several greenlets were inside the store at once")

    def test_timeout_of_gevent_ends_a_call(self) -> None:
        self.install()
        self.emulator.fault("stall", endpoint="installed-locations")
        found = self.run_program(
            """
            client.tokens_import(json.load(sys.stdin))
            outcome = None
            try:
                with gevent.Timeout(0.3):
                    list(client.installed_locations(company_id))
            except gevent.Timeout:
                outcome = "timeout"
            asking = gevent.spawn(lambda: list(client.installed_locations(company_id)))
            gevent.sleep(0.3)
            asking.kill()
            finish(outcome=outcome, dead=asking.dead, token=bool(client.access_token(company_id)))
            """
        )
        self.assertEqual((found["outcome"], found["dead"], found["token"]), ("timeout", True, True))

    def test_store_that_calls_its_own_client_is_refused(self) -> None:
        self.install()
        found = self.run_program(
            """
            client.tokens_import(json.load(sys.stdin))
            refused = []

            class Calling(Memory):
                def load(self, resource_id):
                    gevent.sleep(0.01)
                    try:
                        other.tokens_list().__next__()
                    except ghl_oauth.InvalidArgument as error:
                        refused.append(error.parameter)
                    client.access_token(company_id)  # another client
                    return super().load(resource_id)

            other = ghl_oauth.Client(**settings, store=Calling())
            try:
                other.access_token(company_id)
            except ghl_oauth.NotFound:
                pass
            other.close()
            finish(refused=refused)
            """
        )
        self.assertEqual(set(found["refused"]), {"client"})

    def test_error_and_interrupt_in_a_callback_reach_the_caller(self) -> None:
        self.install()
        found = self.run_program(
            """
            client.tokens_import(json.load(sys.stdin))

            class Stop(Exception):
                pass

            def fail(so_far):
                gevent.sleep(0)
                raise Stop

            outcome = None
            try:
                client.tokens_mint(company_id, progress=fail)
            except Stop:
                outcome = "raised"
            finish(outcome=outcome)
            """
        )
        self.assertEqual(found["outcome"], "raised")

    def test_each_greenlet_gets_the_exceptions_of_its_own_callbacks(self) -> None:
        self.install()
        body = """
            client.tokens_import(json.load(sys.stdin))
            met = []

            def fail(number):
                def tell(so_far):
                    met.append(number)
                    while len(set(met)) < 6:
                        gevent.sleep(0.01)
                    raise ValueError(number)
                return tell

            def mint(number):
                try:
                    client.tokens_mint(company_id, force=True, progress=fail(number))
                except ValueError as error:
                    return error.args[0]

            minting = [gevent.spawn(mint, number) for number in range(6)]
            finish(numbers=[one.get() for one in minting])
            """
        patch = "from gevent import monkey\nmonkey.patch_all()\n"
        self.assertIn(patch, PROGRAM)
        # As by a server that forks and patches after it has loaded the application.
        late = "import ghl_oauth\n" + PROGRAM
        for begin in (PROGRAM, late, PROGRAM.replace(patch, "")):
            found = self.run_program(body, begin=begin)
            self.assertEqual(found["numbers"], list(range(6)), begin[:40])

    def test_mint_survives_a_greenlet_that_switches_without_gevent(self) -> None:
        self.install()
        self.emulator.settings(latencyMs=100)
        begin = PROGRAM[: PROGRAM.index("gevent.spawn(tick)")]
        begin = begin.replace("from gevent import monkey\nmonkey.patch_all()\nimport", "import")
        begin = begin.replace("import gevent\n", "import greenlet, pickle, threading, time\n")
        found = self.run_program(
            """
            client = ghl_oauth.Client(**settings)
            client.tokens_import(json.load(sys.stdin))
            outcome, switches = [], 0

            nested = []
            for _ in range(300):
                nested = [nested]

            def overwrite():
                # Uses the part of the stack that the other greenlet has used.
                repr(nested), pickle.dumps(nested), json.dumps(nested)

            def main():
                global switches
                def progress(so_far):
                    greenlet.getcurrent().parent.switch()
                    return True

                mint = greenlet.greenlet(
                    lambda: outcome.append(client.tokens_mint(company_id, progress=progress))
                )
                mint.switch()
                while not mint.dead:
                    end = time.monotonic() + 0.3
                    while time.monotonic() < end:
                        overwrite()
                        time.sleep(0.001)
                    switches += 1
                    mint.switch()

            thread = threading.Thread(target=main)
            thread.start()
            thread.join()
            client.close()
            print(json.dumps({"minted": outcome[0].minted, "switches": switches}))
            """,
            begin=begin,
        )
        self.assertEqual(found["minted"], 12)
        self.assertGreater(found["switches"], 0)


if __name__ == "__main__":
    unittest.main()
