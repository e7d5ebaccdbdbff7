"""Signals during a call: real processes, real signals, and an emulator that holds the request."""

from __future__ import annotations

import _thread
import itertools
import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int32
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import ghl_oauth
from ghl_oauth import _boundary, _callback, _companion, _handle, _interrupt
from ghl_oauth._library import library
from ghl_oauth._names import Names

from .support import EmulatorTest, environment, free_port
from .test_store import DictStore

# Longer than any test may take, so that a call ends in time only if it was interrupted.
PATIENCE = 600

PROTOTYPE = CFUNCTYPE(c_int32)


class Stopped(Exception):
    """What a signal handler raises."""


PROGRAM = """
import json, os, signal, sys, threading, time
import ghl_oauth

settings, company_id, tokens = json.loads(sys.stdin.readline())
client = ghl_oauth.Client(**settings)
client.tokens_import(tokens, replace=True)

class Stopped(Exception):
    pass

def stop(number, frame):
    os.write(1, b"signal\\n")
    raise Stopped

signal.signal(signal.SIGTERM, stop)

def tell(*words):
    print(*words, flush=True)

"""


@unittest.skipIf(sys.platform == "win32", "no signal can be sent to one process there")
class SignalTest(EmulatorTest):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.database = str(Path(folder.name, "tokens.db"))
        self.install()

    def start(self, program: str, expired: bool = False) -> subprocess.Popen[str]:
        """Starts a program with a client that has the company's token."""
        if expired:
            self.expire()
        configuration = self.emulator.configuration
        settings = {
            "client_id": configuration["clientId"],
            "client_secret": configuration["clientSecret"],
            "base_url": configuration["baseUrl"],
            "redirect_uri": configuration["redirectUri"],
            "store": self.database,
            "timeouts": {f"{name}_seconds": PATIENCE for name in ("connect", "answer", "total")},
        }
        tokens = [token.to_json() for token in self.client.tokens_export()]
        self.emulator.control("DELETE", "/requests")
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + textwrap.dedent(program)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stdin
        process.stdin.write(json.dumps([settings, self.emulator.company_id, tokens]) + "\n")
        process.stdin.flush()
        return process

    def line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout
        return process.stdout.readline().rstrip("\n")

    def stored_token(self) -> str | None:
        with self.make_client(store=self.database) as client:
            (token,) = client.tokens_export()
            return token.access_token

    def test_ctrl_c_ends_a_call_that_waits_for_an_answer(self) -> None:
        self.emulator.fault("stall")
        process = self.start("""
            try:
                client.request("GET", "/locations/x", resource_id=company_id)
            except KeyboardInterrupt:
                tell("interrupted")
        """)
        self.emulator.wait_for_stall()
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.line(process), "interrupted")
        self.assertEqual(process.wait(60), 0)

    def test_handler_that_raises_ends_a_call_that_waits_for_a_browser(self) -> None:
        port = free_port()
        process = self.start(f"""
            try:
                client.authorization_listen(port={port}, state="s", timeout={PATIENCE})
            except Stopped:
                tell("stopped")
        """)
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                self.assertIsNone(process.poll())
                time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        self.assertEqual((self.line(process), self.line(process)), ("signal", "stopped"))
        self.assertEqual(process.wait(60), 0)

    def test_refresh_that_was_sent_is_saved_before_the_signal_takes_effect(self) -> None:
        for call in ("client.access_token(company_id)", "client.token_refresh(company_id)"):
            self.emulator.fault("stall", endpoint="token")
            process = self.start(
                f"""
                try:
                    {call}
                except Stopped:
                    tell(client.access_token(company_id))
                """,
                expired=True,
            )
            self.emulator.wait_for_stall()
            before = self.emulator.refreshes()
            process.send_signal(signal.SIGTERM)
            with self.subTest(call):
                self.assertEqual(self.line(process), "signal")
                self.emulator.end_faults()
                self.assertEqual(self.line(process), self.stored_token())
                self.assertEqual(process.wait(60), 0)
                self.assertLessEqual(self.emulator.refreshes(), before + 1)
                self.assertEqual(len(self.emulator.requests("/oauth/token")), 1)

    def test_second_signal_takes_effect_at_once_and_the_exit_saves_the_refresh(self) -> None:
        self.emulator.fault("stall", endpoint="token")
        process = self.start(
            """
            from ghl_oauth._library import library
            cancel, cancels = library.ghl_call_cancel, []

            def tell_and_cancel(*arguments):
                cancels.append(arguments)
                if len(cancels) == 1:
                    tell("cancelling")
                return cancel(*arguments)

            library.ghl_call_cancel = tell_and_cancel
            try:
                client.access_token(company_id)
            except Stopped:
                tell("stopped")
            """,
            expired=True,
        )
        self.emulator.wait_for_stall()
        process.send_signal(signal.SIGTERM)
        self.assertEqual((self.line(process), self.line(process)), ("signal", "cancelling"))
        process.send_signal(signal.SIGTERM)
        self.assertEqual((self.line(process), self.line(process)), ("signal", "stopped"))
        self.emulator.end_faults()
        self.assertEqual(process.wait(60), 0)
        with self.make_client(store=self.database) as client:
            self.assertTrue(client.access_token(self.emulator.company_id))
        self.assertEqual(len(self.emulator.requests("/oauth/token")), 1)

    def test_handler_that_returns_does_not_disturb_the_call(self) -> None:
        self.emulator.fault("stall")
        process = self.start("""
            heard = []
            def hear(number, frame):
                heard.append(number)
                if len(heard) == 20:
                    tell("heard")
            signal.signal(signal.SIGALRM, hear)
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            answer = client.request("GET", "/locations/x", resource_id=company_id)
            signal.setitimer(signal.ITIMER_REAL, 0)
            tell(answer.status)
        """)
        self.emulator.wait_for_stall()
        self.assertEqual(self.line(process), "heard")
        self.emulator.end_faults()
        self.assertIn(self.line(process), ("404", "401", "403", "400"))
        self.assertEqual(process.wait(60), 0)

    def test_signal_ends_only_the_call_of_the_main_thread(self) -> None:
        self.emulator.fault("stall")
        process = self.start("""
            answers = []
            def ask():
                answers.append(client.request("GET", "/locations/x", **options))
            options = {"resource_id": company_id, "call_id": "shared"}
            thread = threading.Thread(target=ask)
            thread.start()
            try:
                client.request("GET", "/locations/y", **options)
            except Stopped:
                tell("stopped", len(answers))
            thread.join()
            tell(len(answers))
        """)
        while not (
            self.emulator.requests("/locations/x") and self.emulator.requests("/locations/y")
        ):
            self.assertIsNone(process.poll())
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        self.assertEqual((self.line(process), self.line(process)), ("signal", "stopped 0"))
        self.emulator.end_faults()
        self.assertEqual(self.line(process), "1")
        self.assertEqual(process.wait(60), 0)

    def test_call_works_where_no_thread_can_be_started(self) -> None:
        process = self.start("""
            threading.stack_size(1 << 46)
            try:
                threading.Thread(target=int).start()
            except (RuntimeError, MemoryError):
                tell("no threads")
            tell(client.token_refresh(company_id).state)
        """)
        self.assertEqual((self.line(process), self.line(process)), ("no threads", "ok"))

    def test_ctrl_c_ends_an_event_loop_after_a_refresh_that_was_sent(self) -> None:
        self.emulator.fault("stall", endpoint="token")
        process = self.start(
            """
            import asyncio
            from ghl_oauth import aio

            def interrupt(number, frame):
                os.write(1, b"signal\\n")
                asyncio_handler(number, frame)

            async def main():
                # Since Python 3.11, asyncio has a handler that cancels the main task.
                global asyncio_handler
                asyncio_handler = signal.getsignal(signal.SIGINT)
                signal.signal(signal.SIGINT, interrupt)
                await aio.Client.from_client(client).access_token(company_id)

            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                tell(client.access_token(company_id))
            """,
            expired=True,
        )
        self.emulator.wait_for_stall()
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.line(process), "signal")
        self.emulator.end_faults()
        self.assertEqual(self.line(process), self.stored_token())
        self.assertEqual(process.wait(60), 0)
        self.assertEqual(len(self.emulator.requests("/oauth/token")), 1)

    def test_process_ends_although_ctrl_c_hid_a_thread_from_its_pool(self) -> None:
        process = self.start("""
            import asyncio
            from ghl_oauth import aio

            begin = threading.Thread.start

            def start(thread):
                begin(thread)
                raise KeyboardInterrupt

            asynchronous = aio.Client.from_client(client)
            threading.Thread.start = start
            try:
                asyncio.run(asynchronous.token_refresh(company_id))
            except KeyboardInterrupt:
                tell("interrupted")
            threading.Thread.start = begin
        """)
        self.assertEqual(self.line(process), "interrupted")
        self.assertEqual(process.wait(60), 0)

    def blocked_at_exit(self, where: str, patience: float) -> subprocess.Popen[str]:
        """Starts a program that exits while a daemon thread is in a callback that never returns."""
        process = self.start(f"""
            import logging
            from ghl_oauth import _handle

            entered = threading.Event()

            def block(*arguments):
                entered.set()
                threading.Event().wait()

            class Handler(logging.Handler):
                handle = block

            _handle._PATIENCE_AT_EXIT = {patience}
            if {where!r} == "listener":
                client.on_event(block)
            else:
                logging.getLogger("ghl_oauth").addHandler(Handler())
                logging.getLogger("ghl_oauth").setLevel(logging.INFO)
            work = lambda: client.token_refresh(company_id)
            threading.Thread(target=work, daemon=True).start()
            entered.wait()
            tell("exits")
        """)
        self.assertEqual(self.line(process), "exits")
        return process

    def test_exit_waits_for_a_callback_only_for_a_limited_time(self) -> None:
        for where in ("listener", "log"):
            with self.subTest(where):
                self.assertEqual(self.blocked_at_exit(where, 0.5).wait(60), 0)

    def test_ctrl_c_ends_the_wait_of_the_exit_for_a_callback(self) -> None:
        for where in ("listener", "log"):
            process = self.blocked_at_exit(where, PATIENCE)
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            with self.subTest(where):
                self.assertIsNotNone(process.poll())


class NestingTest(EmulatorTest):
    """Callbacks of a call on the main thread. The tests themselves run there."""

    OPTIONS = ("--locations", "3")

    def setUp(self) -> None:
        super().setUp()
        self.assertIs(threading.current_thread(), threading.main_thread())

    def test_callbacks_run_on_the_thread_that_makes_the_call(self) -> None:
        threads: dict[str, threading.Thread] = {}

        def note(name: str) -> Callable[..., None]:
            def called(*_arguments: object) -> None:
                threads[name] = threading.current_thread()

            return called

        store = DictStore()
        store.failing = {name: note(name) for name in ("load", "save", "list")}
        self.client = self.make_client(store=store)
        self.client.on_event(note("event"))
        with self.assertLogs("ghl_oauth", "DEBUG") as logs:
            self.install()
        list(self.client.tokens_list())
        store.failing = {}  # The next calls use it on worker threads as well.
        self.client.tokens_maintain(progress=note("progress"))
        self.client.tokens_mint(self.emulator.company_id, progress=note("progress"))
        for name in ("load", "save", "list", "event", "progress"):
            self.assertIs(threads[name], threading.main_thread(), name)
        self.assertEqual({record.threadName for record in logs.records}, {"MainThread"})

    def test_store_may_use_objects_of_its_thread(self) -> None:
        class Rows(DictStore):
            def __init__(self) -> None:
                super().__init__()
                self.connection = sqlite3.connect(":memory:")  # refuses other threads

            def load(self, resource_id: str) -> str | None:
                self.connection.execute("SELECT 1")
                return super().load(resource_id)

        store = Rows()
        self.addCleanup(store.connection.close)
        self.client = self.make_client(store=store)
        self.install()
        self.assertTrue(self.client.token_refresh(self.emulator.company_id))

    def test_listener_may_call_the_client(self) -> None:
        heard: list[Any] = []

        def listen(event: ghl_oauth.Event) -> None:
            heard.append(event.type)
            if len(heard) < 4:
                self.client.token_refresh(self.emulator.company_id)

        self.client.on_event(listen)
        self.install()
        self.assertEqual(heard, ["token.saved"] + 3 * ["token.refreshed"])
        self.assertEqual(self.emulator.refreshes(), 3)

    def test_store_that_calls_its_client_is_refused(self) -> None:
        refused: list[BaseException] = []

        class Reentrant(DictStore):
            def load(self, resource_id: str) -> str | None:
                try:
                    client.token_refresh(resource_id)
                except ghl_oauth.GhlError as error:
                    refused.append(error)
                return super().load(resource_id)

        client = self.client = self.make_client(store=Reentrant())
        self.install()
        self.assertEqual({type(error) for error in refused}, {ghl_oauth.InvalidArgument})

    @unittest.skipUnless(hasattr(os, "fork"), "no fork on this system")
    def test_child_forked_in_a_callback_uses_the_client(self) -> None:
        statuses: list[int] = []

        def fork(_event: ghl_oauth.Event) -> None:
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    if self.client.access_token(self.emulator.company_id):
                        list(self.client.tokens_list())
                        status = 0
                finally:
                    os._exit(status)
            statuses.append(os.waitpid(child, 0)[1])

        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.client = self.make_client(store=Path(folder.name, "tokens.db"))
        self.install()
        self.client.on_event(fork)
        self.client.token_refresh(self.emulator.company_id)
        self.assertEqual(statuses, [0])

    @unittest.skipUnless(hasattr(os, "fork"), "no fork on this system")
    def test_child_forked_in_a_nested_callback_uses_the_client_in_the_outer_callback(self) -> None:
        """The call that forked is cancelled in the child, and so is the call around it."""
        parent = os.getpid()
        children: list[int] = []
        ends: list[str] = []

        def refresh() -> str:
            try:
                return self.client.token_refresh(self.emulator.company_id).state
            except ghl_oauth.GhlError as error:
                return error.status

        def listen(event: ghl_oauth.Event) -> None:
            if event.type == "token.saved":
                ends.extend((refresh(), refresh()))
            elif not children:
                children.append(os.fork())

        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.client = self.make_client(store=Path(folder.name, "tokens.db"))
        self.client.on_event(listen)
        try:
            self.install()
            ends.append("ok")
        except ghl_oauth.GhlError as error:
            ends.append(error.status)
        finally:
            if os.getpid() != parent:
                expected = ["GHL_ERR_CANCELLED", "ok", "GHL_ERR_CANCELLED"]
                os._exit(0 if ends == expected else 1)
        self.assertEqual(os.waitpid(children[0], 0)[1], 0)
        self.assertEqual(ends, ["ok"] * 3)

    def test_replaced_threads_are_not_used(self) -> None:
        self.install()
        start = mock.Mock()
        with mock.patch.object(_thread, "start_new_thread", start):  # as gevent does
            self.assertFalse(_companion.is_possible())
            self.assertTrue(self.client.token_refresh(self.emulator.company_id))
        start.assert_not_called()

    def test_no_thread_is_left_behind(self) -> None:
        def threads() -> int:
            return len(list(Path("/proc/self/task").iterdir()))

        self.install()
        if not Path("/proc/self/task").exists():
            raise unittest.SkipTest("no /proc")
        before = threads()
        for _ in range(20):
            self.client.token_refresh(self.emulator.company_id)
        # The thread's last instructions may follow its result.
        deadline = time.monotonic() + 60
        while threads() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertLessEqual(threads(), before)


@unittest.skipIf(sys.platform == "win32", "no such signal there")
class HandlerTest(EmulatorTest):
    """A signal handler raises an ``Exception`` during a callback of a call on the main thread."""

    def setUp(self) -> None:
        super().setUp()

        def stop(*_arguments: object) -> None:
            raise Stopped

        before = signal.signal(signal.SIGUSR1, stop)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        self.store = DictStore()
        self.client = self.make_client(store=self.store)
        self.install()
        self.interrupts = 0

    def interrupt(self, *_arguments: object) -> None:
        self.interrupts += 1
        if self.interrupts == 1:
            signal.raise_signal(signal.SIGUSR1)

    def test_call_raises_the_exception(self) -> None:
        company_id = self.emulator.company_id

        def mint() -> object:
            return self.client.tokens_mint(company_id, progress=self.interrupt)

        def refresh() -> object:
            return self.client.token_refresh(company_id)

        def listed() -> object:
            return list(self.client.tokens_list())

        logger = logging.getLogger("ghl_oauth")
        handler = logging.Handler()
        for where, call in (
            ("progress", mint),
            ("listener", refresh),
            ("log", refresh),
            ("list", listed),
            ("load", refresh),
        ):
            self.interrupts = 0
            with (
                self.subTest(where),
                mock.patch.object(sys, "unraisablehook", self.fail),
                mock.patch.object(handler, "emit", self.interrupt),
                mock.patch.object(logger, "level", logging.DEBUG),
                mock.patch.object(logger, "handlers", [handler] if where == "log" else []),
            ):
                logger.manager._clear_cache()  # type: ignore[attr-defined]
                self.client.on_event(self.interrupt if where == "listener" else None)
                self.store.failing = {where: self.interrupt}
                with self.assertRaises(Stopped):
                    call()
                self.assertGreater(self.interrupts, 0)
            logger.manager._clear_cache()  # type: ignore[attr-defined]
        self.store.failing = {}
        self.assertTrue(refresh())

    def test_listener_is_interrupted_like_the_call(self) -> None:
        self.client.on_event(self.interrupt)
        self.emulator.settings(latencyMs=100)
        with self.assertRaises(Stopped):
            self.client.tokens_mint(self.emulator.company_id, concurrency=1)
        self.assertLess(
            len(self.emulator.requests("/oauth/location-token")), len(self.emulator.location_ids)
        )

    def test_interrupted_save_is_repeated(self) -> None:
        company_id, save = self.emulator.company_id, self.store.save

        def save_with_interrupt(*arguments: Any) -> None:
            sent = self.emulator.refreshes() > before
            if sent and when == "before":
                self.interrupt()
            save(*arguments)
            if sent and when == "after":
                self.interrupt()

        for error in (Stopped, KeyboardInterrupt):

            def stop(*_arguments: object, error: type[BaseException] = error) -> None:
                raise error

            signal.signal(signal.SIGUSR1, stop)
            for when in ("before", "after"):
                before, self.interrupts = self.emulator.refreshes(), 0
                record = self.store.records[company_id]
                with (
                    self.subTest(error=error, when=when),
                    mock.patch.object(self.store, "save", save_with_interrupt),
                ):
                    with self.assertRaises(error):
                        self.client.token_refresh(company_id)
                    self.assertGreater(self.interrupts, 0)
                    self.assertEqual(self.client.stats().raw["tokens"]["unsaved"], 0)
                    self.assertNotEqual(self.store.records[company_id], record)
                    (info,) = self.client.tokens_list()
                    self.assertEqual(info.state, "ok")

    def test_handlers_of_every_kind_are_recognized(self) -> None:
        class Handler:
            def __call__(self, *_arguments: object) -> None:
                raise Stopped

            def method(self, *_arguments: object) -> None:
                raise Stopped

        made = Handler()
        for handler in (made, made.method, partial(Handler.method, made)):
            signal.signal(signal.SIGUSR1, handler)
            self.interrupts = 0
            self.client.on_event(self.interrupt)
            with self.subTest(handler), self.assertRaises(Stopped):
                self.client.token_refresh(self.emulator.company_id)


class CompanionTest(unittest.TestCase):
    """The protocol between the two threads, without the library."""

    def run_work(
        self, work: Callable[[], Any], cancel: Callable[[], object] | None = None
    ) -> _companion.Errand:
        return _companion.run(work, cancel, _callback.pending)

    def test_result_and_error_are_returned(self) -> None:
        self.assertEqual(self.run_work(lambda: 5).result, 5)
        self.assertIsInstance(self.run_work(lambda: [][1]).error, IndexError)

    def test_interrupt_in_a_callback_cancels_the_call(self) -> None:
        cancelled = threading.Event()

        def interrupt() -> int:
            raise KeyboardInterrupt

        function = _callback.callback(PROTOTYPE, interrupt, failed=9)

        def work() -> int:
            result: int = function()
            cancelled.wait()
            return result

        self.assertEqual(self.run_work(work, cancelled.set).result, 9)
        self.assertIsInstance(_callback.pending(), KeyboardInterrupt)
        _callback.discard_pending()

    def test_abandoned_call_runs_its_callbacks_itself(self) -> None:
        go_on, done = threading.Event(), threading.Event()
        threads: list[threading.Thread] = []

        def note() -> int:
            threads.append(threading.current_thread())
            return 3

        function = _callback.callback(PROTOTYPE, note, failed=9)

        def work() -> None:
            function()
            go_on.wait()
            threads.append(function())
            done.set()

        def interrupt() -> BaseException | None:
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            _companion.run(work, None, interrupt)
        go_on.set()
        self.assertTrue(done.wait(60))
        self.assertIs(threads[0], threading.main_thread())
        self.assertIsNot(threads[1], threading.main_thread())
        self.assertEqual(threads[2], 3)

    def test_signal_handler_may_make_a_call_at_any_line_of_a_nested_call(self) -> None:
        program = """
            import faulthandler
            from ctypes import CFUNCTYPE, c_int32
            from ghl_oauth import _callback, _companion
            from tests.each_line import CallAtLine

            def run(work):
                errand = _companion.run(work, None, _callback.pending)
                if errand.error is not None:
                    raise errand.error
                return errand.result

            def calling_back(function):
                return _callback.callback(CFUNCTYPE(c_int32), function, failed=9)

            inner = calling_back(lambda: run(lambda: 3))
            outer = calling_back(lambda: 10 * run(lambda: inner() + 1))

            faulthandler.dump_traceback_later(60, exit=True)
            for number in range(1, 10_000):
                results = []
                with CallAtLine(number, _companion, lambda: results.append(run(lambda: 5))) as line:
                    results.append(run(lambda: outer() + 2))
                if not line.reached:
                    break
                if results != [5, 42]:
                    print(number, results)
            print("handled at each line" if number > 40 else "few lines")
        """
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=Path(__file__).parents[1],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual((ended.stdout, ended.stderr), ("handled at each line\n", ""))


class ScopeTest(unittest.TestCase):
    def test_call_that_ends_during_its_cancellation_does_no_harm(self) -> None:
        cancels: list[int] = []
        # The call ends as soon as its cancel function was read.
        ending = mock.PropertyMock(side_effect=[lambda: cancels.append(1), None])
        scope = _interrupt.Scope()
        with mock.patch.object(_interrupt.Scope, "_cancel", ending):
            scope.cancel()
        self.assertEqual(cancels, [1])


class CreationTest(unittest.TestCase):
    def test_interruption_at_any_line_of_a_creation_leaks_no_client(self) -> None:
        created, freed = itertools.count(1), []
        made = lines = 0

        def create(_function: object, _config: object, out: Any, names: Names) -> None:
            nonlocal made
            made = out._obj.value = next(created)

        def free(client: Any) -> None:
            freed.append(client.value)

        def interrupt(frame: Any, event: str, _argument: object) -> Any:
            nonlocal lines
            code = frame.f_code
            if code.co_filename != _handle.__file__ or code.co_name == "_offer_at_exit":
                return None
            if event == "line":
                lines -= 1
                if lines == 0:
                    raise KeyboardInterrupt
            return interrupt

        def attempt() -> bool:
            before = sys.gettrace()
            sys.settrace(interrupt)  # of this thread only
            try:
                _handle.Handle(b"{}", Names(None))
            except KeyboardInterrupt:
                return False
            finally:
                sys.settrace(before)
            return True

        with (
            mock.patch.object(library, "ghl_client_free", free),
            mock.patch.object(_boundary, "call", create),
        ):
            for line in range(1, 200):
                lines = line
                if attempt():
                    break
            else:
                self.fail("no creation was completed")
            self.assertGreater(made, 1, "no creation was interrupted after its call")
            # A call whose creation was interrupted may still be about to return.
            deadline = time.monotonic() + 60
            while len(freed) < made and time.monotonic() < deadline:
                time.sleep(0.01)
        self.assertEqual(sorted(freed), list(range(1, made + 1)))

    @unittest.skipUnless(hasattr(signal, "pthread_kill"), "no signal can be sent to a thread there")
    def test_client_whose_creation_is_interrupted_is_freed_when_it_arrives(self) -> None:
        def stop(*_arguments: object) -> None:
            raise Stopped

        go_on, freed = threading.Event(), threading.Event()

        def create(out: Any, names: Names) -> None:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            go_on.wait()
            out._obj.value = 7

        def free(client: Any) -> None:
            self.assertEqual(client.value, 7)
            freed.set()

        before = signal.signal(signal.SIGUSR1, stop)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        with mock.patch.object(library, "ghl_client_free", free):
            with self.assertRaises(Stopped):
                handle = _handle.Handle.__new__(_handle.Handle)
                handle.names = Names(None)
                handle._create(None, create)
            self.assertFalse(freed.is_set())
            go_on.set()
            self.assertTrue(freed.wait(60))


class LockTest(unittest.TestCase):
    """No lock of the package is held where a signal handler or a forked child would wait for it."""

    def test_signal_handler_may_use_clients_at_any_line_of_a_call(self) -> None:
        program = """
            import faulthandler
            import ghl_oauth
            from ghl_oauth import _handle
            from tests.each_line import CallAtLine
            from tests.test_store import DictStore

            def handle():  # as a signal handler would
                with ghl_oauth.Client("app-1", "secret") as other:
                    other.on_event(print)
                    other.stats()
                return list(client.tokens_list())

            def work():
                client.on_event(print)
                client.stats()
                ghl_oauth.Client("app-1", "secret", store=DictStore()).close()

            faulthandler.dump_traceback_later(60, exit=True)
            for number in range(1, 1000):
                client = ghl_oauth.Client("app-1", "secret", store=DictStore())
                with CallAtLine(number, _handle, handle) as line:
                    work()
                if not line.reached:
                    break
            print("handled at each line" if number > 20 else "few lines")
        """
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=Path(__file__).parents[1],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual((ended.stdout, ended.stderr), ("handled at each line\n", ""))

    @unittest.skipUnless(hasattr(os, "fork"), "no fork on this system")
    def test_forked_child_makes_a_client_although_a_thread_was_setting_a_listener(self) -> None:
        client = ghl_oauth.Client("app-1", "secret")
        self.addCleanup(client.close)
        begun, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def connect(*_arguments: object) -> int:
            begun.set()
            go_on.wait()
            return 0

        with mock.patch.object(library, "ghl_client_on_event", connect):
            thread = threading.Thread(target=client.on_event, args=(print,))
            thread.start()
            begun.wait()
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # ends the child if it waits forever
                with ghl_oauth.Client("app-1", "secret"):
                    os._exit(0)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            go_on.set()
            thread.join(60)


class FreshTest(EmulatorTest):
    def test_live_token_needs_no_thread_and_no_callback(self) -> None:
        store = DictStore()
        self.client = self.make_client(store=store)
        self.install()
        token = self.client.access_token(self.emulator.company_id)
        store.failing = dict.fromkeys(("load", "save", "list", "remove"), self.fail)
        with mock.patch.object(_companion, "run", self.fail):
            self.assertEqual(self.client.access_token(self.emulator.company_id), token)
