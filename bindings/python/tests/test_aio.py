"""The client for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import ghl_oauth
from ghl_oauth import aio

from .support import EmulatorTest, environment, in_threads
from .test_store import DictStore

Result = TypeVar("Result")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "ghl_oauth" in thread.name]


async def until(condition: Any) -> None:
    """Waits until something is true, and leaves the loop to the others meanwhile."""
    while not await asyncio.to_thread(condition):
        await asyncio.sleep(0.01)


def public(kind: type) -> dict[str, Any]:
    return {name: each for name, each in vars(kind).items() if not name.startswith("_")}


class SignaturesTest(unittest.TestCase):
    def test_every_method_has_the_signature_and_the_docstring_of_the_sync_client(self) -> None:
        own = {"close", "cancel", "on_event", "from_config"}
        compared = 0
        for name, method in public(ghl_oauth.Client).items():
            with self.subTest(name):
                counterpart = inspect.getattr_static(aio.Client, name)
                if name in own:
                    method = getattr(method, "__func__", method)
                    counterpart = getattr(counterpart, "__func__", counterpart)
                    names = [
                        list(inspect.signature(each).parameters) for each in (method, counterpart)
                    ]
                    self.assertEqual(*names)
                    continue
                self.assertEqual(inspect.signature(counterpart), inspect.signature(method))
                self.assertEqual(counterpart.__doc__, method.__doc__)
                paged = "Pages" in str(inspect.signature(method).return_annotation)
                self.assertEqual(inspect.iscoroutinefunction(counterpart), not paged)
                compared += 1
        self.assertGreater(compared, 15)
        self.assertEqual(
            inspect.signature(aio.Client.__init__), inspect.signature(ghl_oauth.Client.__init__)
        )
        further = set(public(aio.Client)) - set(public(ghl_oauth.Client))
        self.assertEqual(further, {"from_client", "max_threads"})

    def test_package_is_imported_without_asyncio(self) -> None:
        program = (
            "import sys, ghl_oauth; print('asyncio' in sys.modules, 'concurrent' in sys.modules)"
        )
        answer = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(answer.stdout, "False False\n")


class AioTest(EmulatorTest):
    OPTIONS = ("--locations", "12")

    def setUp(self) -> None:
        super().setUp()
        self.aio = self.make_aio(self.client)
        self.problems: list[Any] = []

    def make_aio(self, client: ghl_oauth.Client) -> aio.Client:
        made = aio.Client.from_client(client)
        self.addCleanup(lambda: asyncio.run(made.close()))
        return made

    def run_async(self, work: Coroutine[Any, Any, Result]) -> Result:
        async def main() -> Result:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: self.problems.append(context))
            result = await asyncio.wait_for(work, 120)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            self.assertEqual(others, set(), "a task was left behind")
            return result

        result = asyncio.run(main())
        self.assertEqual(self.problems, [])
        return result

    def stalled(self) -> bool:
        requests = self.emulator.control("GET", "/requests")["requests"]
        return any(each["fault"] and each["fault"]["kind"] == "stall" for each in requests)


class CallsTest(AioTest):
    def test_consent_token_request_and_deletion(self) -> None:
        app = self.emulator.configuration

        async def main() -> None:
            async with aio.Client(
                app["clientId"], app["clientSecret"], redirect_uri=app["redirectUri"],
                scopes=app["scopes"], base_url=app["baseUrl"], authorize_url=app["authorizeUrl"],
            ) as client:  # fmt: skip
                link = await client.authorization_url()
                redirect_url = self.emulator.consent(link.url, companyId=self.emulator.company_id)
                info: ghl_oauth.TokenInfo = await client.authorization_complete(redirect_url)
                token: str = await client.access_token(info.resource_id)
                self.assertTrue(token)
                renewed = await client.token_refresh(info.resource_id)
                self.assertEqual(renewed.state, ghl_oauth.TokenState.OK)
                answer: ghl_oauth.Response = await client.request(
                    "GET", f"/locations/{self.emulator.location_ids[0]}",
                    resource_id=self.emulator.location_ids[0],
                )  # fmt: skip
                self.assertTrue(answer.raise_for_status().ok)
                self.assertGreater((await client.stats())["tokens"]["inMemory"], 0)
                await client.token_delete(info.resource_id)
                with self.assertRaises(ghl_oauth.NotFound):
                    await client.access_token(info.resource_id)
            for use in (client.access_token("c"), client.stats(), client.token_refresh("c")):
                with self.assertRaisesRegex(ValueError, "the client is closed"):
                    await use
            with self.assertRaisesRegex(ValueError, "the client is closed"):
                client.tokens_list()
            await client.close()

        self.run_async(main())
        # The closing thread's last instructions may follow its result.
        deadline = time.monotonic() + 60
        while threads() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(threads(), [])

    def test_live_token_is_returned_without_a_thread(self) -> None:
        self.install()
        with mock.patch.object(aio, "ThreadPoolExecutor", self.fail):
            token = self.run_async(self.aio.access_token(self.emulator.company_id))
        self.assertEqual(token, self.client.access_token(self.emulator.company_id))

    def test_hundred_tasks_share_one_refresh_and_one_thread(self) -> None:
        self.install()
        self.expire()
        self.emulator.fault("stall", endpoint="token", count=1)

        async def main() -> set[str]:
            calls = [
                asyncio.ensure_future(self.aio.access_token(self.emulator.company_id))
                for _ in range(100)
            ]
            await until(self.stalled)
            self.assertEqual(len(threads()), 1)
            self.emulator.end_faults()
            return set(await asyncio.gather(*calls))

        self.assertEqual(len(self.run_async(main())), 1)
        self.assertEqual(self.emulator.refreshes(), 1)

    def test_calls_use_at_most_the_configured_number_of_threads(self) -> None:
        self.install()
        self.aio.max_threads = 3

        async def main() -> list[str]:
            calls = [self.aio.access_token(location) for location in self.emulator.location_ids]
            tokens = await asyncio.gather(*calls)
            self.assertLessEqual(len(threads()), 3)
            return tokens

        self.assertEqual(len(set(self.run_async(main()))), len(self.emulator.location_ids))

    def test_error_of_a_shared_call_reaches_every_task(self) -> None:
        async def main() -> list[Any]:
            calls = (self.aio.access_token("nobody") for _ in range(5))
            return await asyncio.gather(*calls, return_exceptions=True)

        self.assertEqual({type(error) for error in self.run_async(main())}, {ghl_oauth.NotFound})

    def test_pages_are_iterated(self) -> None:
        self.install()

        async def main() -> tuple[list[str], list[str]]:
            found = self.aio.installed_locations(self.emulator.company_id, page_size=5)
            first = [location.id async for location in found]
            self.assertIsNone(found.next_page_token)
            self.assertEqual(found.failed, ())
            return first, [token.resource_id async for token in self.aio.tokens_list()]

        locations, tokens = self.run_async(main())
        self.assertEqual(locations, self.emulator.location_ids)
        self.assertEqual(tokens, [self.emulator.company_id])

    def test_webhook_is_verified_and_applied(self) -> None:
        self.install()
        body, headers = self.emulator.webhook(uninstall=self.emulator.company_id)

        async def main() -> bool:
            self.assertEqual((await self.aio.webhook_verify(body, headers)).type, "UNINSTALL")
            return (await self.aio.webhook_apply(body, headers)).applied

        self.assertTrue(self.run_async(main()))

    def test_store_in_python_serves_the_calls(self) -> None:
        self.client = self.make_client(store=DictStore())
        self.aio = self.make_aio(self.client)
        self.install()
        self.assertTrue(self.run_async(self.aio.token_refresh(self.emulator.company_id)))


class CancelTest(AioTest):
    def setUp(self) -> None:
        super().setUp()
        self.client = self.make_client(
            timeouts=dict.fromkeys(("connect_seconds", "answer_seconds", "total_seconds"), 600)
        )
        self.aio = self.make_aio(self.client)
        self.install()

    async def cancelled(self, task: asyncio.Future[Any]) -> None:
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task

    def test_cancelled_task_ends_its_call_and_frees_its_thread(self) -> None:
        self.emulator.fault("stall")
        self.aio.max_threads = 1

        async def main() -> None:
            other = asyncio.ensure_future(
                self.aio.request("GET", "/locations/x", resource_id=self.emulator.company_id)
            )
            await until(self.stalled)
            waiting = asyncio.ensure_future(self.aio.token_refresh(self.emulator.company_id))
            await asyncio.sleep(0)  # lets it queue
            await self.cancelled(waiting)
            await self.cancelled(other)
            # The only thread is free again, although the server still holds the request.
            self.assertEqual(
                [info async for info in self.aio.tokens_list()], list(self.client.tokens_list())
            )

        self.run_async(main())
        self.assertEqual(self.emulator.requests("/oauth/token")[1:], [])

    def test_time_limit_of_asyncio_ends_a_call(self) -> None:
        self.emulator.fault("stall")

        async def main() -> None:
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(
                    self.aio.request("GET", "/locations/x", resource_id=self.emulator.company_id),
                    0.1,
                )

        self.run_async(main())

    def test_cancelled_refresh_that_was_sent_is_saved_first(self) -> None:
        for call in (self.aio.access_token, self.aio.token_refresh):
            self.expire()
            before = self.client.stats()["requests"]
            self.emulator.control("DELETE", "/requests")
            self.emulator.fault("stall", endpoint="token")

            async def main(call: Any = call) -> None:
                task = asyncio.ensure_future(call(self.emulator.company_id))
                await until(self.stalled)
                task.cancel()
                await asyncio.sleep(0)
                task.cancel()  # a second time, while it waits for the refresh
                done, _ = await asyncio.wait((task,), timeout=0.2)
                self.assertEqual(done, set())
                await asyncio.to_thread(self.emulator.end_faults)
                with self.assertRaises(asyncio.CancelledError):
                    await task

            self.run_async(main())
            self.assertTrue(self.client.access_token(self.emulator.company_id))
            self.assertEqual(len(self.emulator.requests("/oauth/token")), 1)
            self.assertNotEqual(self.client.stats()["requests"], before)

    def test_task_that_shares_a_call_is_cancelled_alone(self) -> None:
        self.expire()
        self.emulator.fault("stall", endpoint="token")

        async def main() -> str:
            tasks = [
                asyncio.ensure_future(self.aio.access_token(self.emulator.company_id))
                for _ in range(2)
            ]
            await until(self.stalled)
            await self.cancelled(tasks[0])
            await asyncio.to_thread(self.emulator.end_faults)
            return await tasks[1]

        self.assertTrue(self.run_async(main()))
        self.assertEqual(self.emulator.refreshes(), 1)

    def test_cancelled_task_does_not_end_other_calls_with_its_id(self) -> None:
        self.emulator.fault("stall")

        async def main() -> list[int]:
            calls = [
                asyncio.ensure_future(
                    self.aio.request(
                        "GET",
                        f"/locations/{number}",
                        resource_id=self.emulator.company_id,
                        call_id="shared",
                    )
                )
                for number in range(3)
            ]
            await until(lambda: all(self.emulator.requests(f"/locations/{n}") for n in range(3)))
            await self.cancelled(calls[0])
            await asyncio.to_thread(self.emulator.end_faults)
            return [(await call).status for call in calls[1:]]

        self.assertEqual(len(self.run_async(main())), 2)

    def test_cancelled_page_is_fetched_again(self) -> None:
        self.emulator.fault("stall", endpoint="installed-locations")

        async def main() -> list[str]:
            pages = self.aio.installed_locations(self.emulator.company_id)
            task = asyncio.ensure_future(pages.__anext__())
            await until(self.stalled)
            await self.cancelled(task)
            await asyncio.to_thread(self.emulator.end_faults)
            return [location.id async for location in pages]

        self.assertEqual(self.run_async(main()), self.emulator.location_ids)

    def test_cancel_of_the_client_ends_its_calls(self) -> None:
        self.emulator.fault("stall")

        async def main(call_id: str | None) -> None:
            task = asyncio.ensure_future(
                self.aio.request(
                    "GET", "/locations/x", resource_id=self.emulator.company_id, call_id="mine"
                )
            )
            await until(self.stalled)
            self.aio.cancel("other")
            self.aio.cancel(call_id)
            with self.assertRaises(ghl_oauth.Cancelled):
                await task

        for call_id in (None, "mine"):
            self.emulator.control("DELETE", "/requests")
            self.run_async(main(call_id))

    def test_cancelled_call_that_waits_for_a_thread_is_never_made(self) -> None:
        self.emulator.fault("stall")
        self.aio.max_threads = 1

        def ask(path: str, call_id: str) -> asyncio.Future[Any]:
            resource_id = self.emulator.company_id
            return asyncio.ensure_future(
                self.aio.request("POST", path, resource_id=resource_id, call_id=call_id)
            )

        async def main(call_id: str | None, from_a_thread: bool) -> None:
            holder = ask("/holder", "holder")
            await until(self.stalled)
            queued = [ask("/queued", "job"), ask("/other", "other")]
            pages = self.aio.installed_locations(self.emulator.company_id, call_id="job")
            queued.append(asyncio.ensure_future(pages.__anext__()))
            await asyncio.sleep(0)  # lets them queue
            if from_a_thread:
                await asyncio.to_thread(self.aio.cancel, call_id)
            else:
                self.aio.cancel(call_id)
            for task in (queued[0], queued[2]):
                with self.assertRaises(ghl_oauth.Cancelled):
                    await task
            if call_id is not None:
                self.assertFalse(queued[1].done() or holder.done())
            self.aio.cancel()
            for task in (holder, queued[1]):
                with self.assertRaises(ghl_oauth.Cancelled):
                    await task

        for call_id in (None, "job"):
            for from_a_thread in (False, True):
                self.emulator.control("DELETE", "/requests")
                self.run_async(main(call_id, from_a_thread))
                for path in ("/queued", "/other"):
                    self.assertEqual(self.emulator.requests(path), [])
        self.assertEqual(self.aio._scopes, {})

    def test_cancel_ends_a_shared_token_call_that_has_no_task_yet(self) -> None:
        self.expire()

        async def main() -> None:
            tasks = [
                asyncio.ensure_future(self.aio.access_token(self.emulator.company_id))
                for _ in range(2)
            ]
            await asyncio.sleep(0)  # The tasks now wait for a third one, which has not begun.
            self.aio.cancel()
            for task in tasks:
                with self.assertRaises(ghl_oauth.Cancelled):
                    await task

        self.run_async(main())
        self.assertEqual(self.emulator.refreshes(), 0)
        self.assertEqual(self.aio._scopes, {})

    def test_cancel_ends_a_call_that_is_about_to_begin(self) -> None:
        at_the_call, go_on = threading.Event(), threading.Event()
        request = ghl_oauth.Client.request

        def wait_and_ask(*args: Any, **kwargs: Any) -> Any:
            at_the_call.set()
            go_on.wait()
            return request(*args, **kwargs)

        async def main() -> None:
            work = partial(
                wait_and_ask, self.client, "POST", "/x", resource_id=self.emulator.company_id
            )
            task = asyncio.ensure_future(self.aio._run(work, self.aio._scope("mine")))
            await until(at_the_call.is_set)
            self.aio.cancel("mine")
            go_on.set()
            with self.assertRaises(ghl_oauth.Cancelled):
                await task

        self.run_async(main())
        self.assertEqual(self.emulator.requests("/x"), [])


class CallbacksTest(AioTest):
    def test_progress_and_events_arrive_in_the_loop_before_the_result(self) -> None:
        self.install()
        heard: list[Any] = []

        async def main() -> ghl_oauth.Minting:
            loop = asyncio.get_running_loop()

            def note(what: Any) -> None:
                self.assertIs(asyncio.get_running_loop(), loop)
                heard.append(what)

            self.aio.on_event(note)
            return await self.aio.tokens_mint(self.emulator.company_id, progress=note)

        minting = self.run_async(main())
        events = [each for each in heard if isinstance(each, ghl_oauth.Event)]
        self.assertEqual(len(events), len(self.emulator.location_ids))
        last = [each for each in heard if isinstance(each, ghl_oauth.MintProgress)][-1]
        self.assertEqual((last.done, minting.minted), (12, 12))
        # The loop is closed: events of other threads are dropped.
        self.client.token_refresh(self.emulator.company_id)
        self.assertEqual(self.problems, [])

    def test_exception_in_progress_ends_the_work_and_is_raised(self) -> None:
        self.install()

        async def main() -> None:
            def stop(_so_far: Any) -> None:
                raise ZeroDivisionError

            for work in (
                self.aio.tokens_mint(self.emulator.company_id, progress=stop, force=True),
                self.aio.tokens_maintain(progress=stop),
            ):
                self.expire()
                with self.assertRaises(ZeroDivisionError):
                    await work

        self.run_async(main())

    def test_exception_of_a_listener_goes_to_the_handler_of_the_loop(self) -> None:
        self.install()

        async def main() -> None:
            def fail(_event: ghl_oauth.Event) -> None:
                raise ZeroDivisionError

            self.aio.on_event(fail)
            await self.aio.token_refresh(self.emulator.company_id)
            self.aio.on_event(None)
            await self.aio.token_refresh(self.emulator.company_id)
            (problem,) = self.problems
            self.assertIsInstance(problem["exception"], ZeroDivisionError)
            self.problems.clear()

        self.run_async(main())


class LifeTest(AioTest):
    def test_close_waits_for_the_calls_in_progress(self) -> None:
        self.install()
        self.emulator.fault("stall", endpoint="token")

        async def main() -> ghl_oauth.TokenInfo:
            call = asyncio.ensure_future(self.aio.token_refresh(self.emulator.company_id))
            await until(self.stalled)
            closing = [asyncio.ensure_future(self.aio.close()) for _ in range(2)]
            await asyncio.wait(closing, timeout=0.2)
            self.assertFalse(closing[0].done() or closing[1].done())
            with self.assertRaisesRegex(ValueError, "the client is closed"):
                await self.aio.access_token(self.emulator.company_id)
            await asyncio.to_thread(self.emulator.end_faults)
            await asyncio.gather(*closing)
            return await call

        self.assertEqual(self.run_async(main()).resource_id, self.emulator.company_id)
        self.assertIn("closed", repr(self.client))

    def test_cancel_and_a_time_limit_end_a_close_that_waits_for_a_call(self) -> None:
        self.install()
        options: dict[str, Any] = {"resource_id": self.emulator.company_id, "timeout": 600}

        async def call(made: aio.Client) -> asyncio.Future[Any]:
            self.emulator.control("DELETE", "/requests")
            task = asyncio.ensure_future(made.request("GET", "/locations/x", **options))
            await until(self.stalled)
            return task

        def copy() -> aio.Client:
            client = self.make_client()
            client.tokens_import(self.client.tokens_export())
            self.emulator.fault("stall")
            return self.make_aio(client)

        async def cancel(made: aio.Client) -> None:
            task = await call(made)
            closing = asyncio.ensure_future(made.close())
            await asyncio.sleep(0.1)
            made.cancel()
            await closing
            with self.assertRaises(ghl_oauth.Cancelled):
                await task
            with self.assertRaisesRegex(ValueError, "the client is closed"):
                made.cancel()

        async def limit(made: aio.Client) -> None:
            task = await call(made)
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(made.close(), 0.1)
            with self.assertRaises(ghl_oauth.Cancelled):
                await task

        self.run_async(cancel(copy()))
        self.run_async(limit(copy()))

    def test_cancelled_close_waits_for_a_refresh_that_was_sent(self) -> None:
        self.install()
        store = DictStore()
        client = self.make_client(store=store)
        client.tokens_import(self.client.tokens_export())
        before = store.records[self.emulator.company_id]
        made = self.make_aio(client)
        self.emulator.fault("stall", endpoint="token")

        async def main() -> None:
            task = asyncio.ensure_future(made.token_refresh(self.emulator.company_id))
            await until(self.stalled)
            closing = asyncio.ensure_future(made.close())
            await asyncio.sleep(0.1)
            closing.cancel()
            await asyncio.wait((closing,), timeout=0.2)
            self.assertFalse(closing.done())
            await asyncio.to_thread(self.emulator.end_faults)
            with self.assertRaises(asyncio.CancelledError):
                await closing
            await asyncio.wait((task,))
            with suppress(ghl_oauth.Cancelled):
                task.result()

        self.run_async(main())
        self.assertNotEqual(store.records[self.emulator.company_id], before)

    def test_several_loops_in_several_threads_share_a_client(self) -> None:
        self.install()
        self.expire()
        self.emulator.settings(latencyMs=100)

        async def ask() -> str:
            return await self.aio.access_token(self.emulator.company_id)

        tokens = in_threads(4, lambda: asyncio.run(ask()))
        self.assertEqual((len(tokens), len(set(tokens))), (4, 1))
        self.assertEqual((asyncio.run(ask()), self.emulator.refreshes()), (tokens[0], 1))

    def test_interpreter_exits_without_the_deadline_of_a_call_that_was_abandoned(self) -> None:
        code = """
import asyncio, socket, sys
from ghl_oauth import aio
silent = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{silent.getsockname()[1]}"
client = aio.Client("app-1", "secret", base_url=url, timeouts={"total_seconds": 600})
loop = asyncio.new_event_loop()
call = loop.create_task(client.request("GET", "/x"))
loop.run_until_complete(asyncio.to_thread(silent.accept))
sys.exit(7)
"""
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(ended.returncode, 7, ended.stderr)

    @unittest.skipUnless(hasattr(os, "fork"), "no fork on this system")
    def test_forked_child_uses_the_client_in_a_loop_of_its_own(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.client = self.make_client(store=Path(folder, "tokens.db"))
            self.aio = self.make_aio(self.client)
            self.install()

            async def refresh() -> str:
                await self.aio.token_refresh(self.emulator.company_id)
                return await self.aio.access_token(self.emulator.company_id)

            asyncio.run(refresh())
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    if asyncio.run(refresh()):
                        status = 0
                finally:
                    os._exit(status)
            deadline = time.monotonic() + 60
            finished, status = 0, 0
            while not finished and time.monotonic() < deadline:
                finished, status = os.waitpid(child, os.WNOHANG)
                time.sleep(0.01)
            if not finished:
                os.kill(child, 9)
                os.waitpid(child, 0)
            self.assertEqual((finished, status), (child, 0))
            self.assertEqual(self.emulator.refreshes(), 2)

    def test_client_is_made_from_the_configuration_document(self) -> None:
        app = self.emulator.configuration
        client = aio.Client.from_config({"clientId": app["clientId"], "clientSecret": "s"})
        self.assertIn("ghl_oauth.aio.Client", repr(client))
        self.run_async(client.close())
        self.assertIn("closed", repr(client))
