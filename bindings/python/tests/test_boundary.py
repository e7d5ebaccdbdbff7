"""The C boundary: threads, memory, callbacks, and interpreter shutdown."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import unittest
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from ctypes import string_at
from typing import Any
from unittest import mock

import ghl_oauth
from ghl_oauth import _boundary, _callback
from ghl_oauth._library import library

from .support import EmulatorTest


class ThreadsTest(EmulatorTest):
    def test_other_threads_run_during_a_blocking_call(self) -> None:
        self.install()
        self.emulator.fault("stall", endpoint="token")
        refreshed: list[ghl_oauth.TokenInfo] = []
        call = threading.Thread(
            target=lambda: refreshed.append(self.client.token_refresh(self.emulator.company_id))
        )
        call.start()
        self.emulator.wait_for_stall()
        # A call that blocked other threads would have failed by now: only this thread releases its
        # request.
        self.emulator.end_faults()
        call.join()
        self.assertEqual(len(refreshed), 1)

    def test_cancel_ends_a_waiting_call(self) -> None:
        self.install()
        self.emulator.fault("stall", endpoint="installed-locations")
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                next(self.client.installed_locations(self.emulator.company_id))
            except ghl_oauth.GhlError as error:
                raised.append(error)

        call = threading.Thread(target=wait)
        call.start()
        while not self.emulator.requests("/oauth/installed-locations"):
            time.sleep(0.01)
        self.client.cancel()
        call.join()
        self.assertEqual([type(error) for error in raised], [ghl_oauth.Cancelled])
        self.assertTrue(self.client.access_token(self.emulator.company_id))


class MemoryTest(EmulatorTest):
    def test_every_string_is_freed(self) -> None:
        taken, freed = [], []
        original_take, original_free = string_at, library.ghl_string_free

        def take(out: Any) -> bytes:
            taken.append(out.value)
            return original_take(out)

        def free(out: Any) -> None:
            freed.append(out.value)
            original_free(out)

        with (
            mock.patch.object(_boundary, "string_at", take),
            mock.patch.object(library, "ghl_string_free", free),
        ):
            self.install()
            self.client.access_token(self.emulator.company_id)
            list(self.client.tokens_list())
            list(self.client.tokens_export())
            with self.assertRaises(ghl_oauth.Forbidden):
                self.client.access_token("nobody")
            with self.assertRaises(ghl_oauth.InvalidArgument):
                self.client.token_refresh("")
            with self.assertRaises(ghl_oauth.ConfigError):
                ghl_oauth.Client("", "")
        self.assertEqual(taken, freed)
        self.assertGreaterEqual(len(taken), 7)

    @unittest.skipUnless(sys.platform == "linux", "reads /proc")
    def test_long_results_do_not_accumulate_in_memory(self) -> None:
        token = {"refreshToken": "r" * 2000, "accessToken": "a" * 2000, "expiresIn": 3600}
        self.client.tokens_import([{**token, "locationId": f"l{number}"} for number in range(100)])

        def exports(times: int) -> int:
            for _ in range(times):
                list(self.client.tokens_export())
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        before = exports(20)
        self.assertLess(exports(100) - before, 20_000_000)  # a leak would be 50 MB

    def test_client_is_freed_with_its_last_reference(self) -> None:
        with mock.patch.object(library, "ghl_client_free", wraps=library.ghl_client_free) as free:
            client = self.make_client()
            handle = weakref.ref(client._handle)
            client.close()
            client.close()
            self.assertIsNone(handle())
            self.assertEqual(free.call_count, 1)

    def test_listener_that_references_its_client_does_not_keep_it_alive(self) -> None:
        def forgotten() -> weakref.ref[Any]:
            client = ghl_oauth.Client("app-1", "secret")
            client.on_event(lambda event: print(client, event))
            return weakref.ref(client._handle)

        handle = forgotten()
        gc.collect()
        self.assertIsNone(handle())

    def test_client_released_inside_a_callback_is_freed_after_the_call(self) -> None:
        freed_at: list[int] = []
        freed_early: list[int] = []

        def free(pointer: Any) -> None:
            if pointer.value == address:
                freed_at.append(_callback._thread.callbacks)
            original(pointer)

        def release(_event: ghl_oauth.Event) -> None:
            if doomed:
                doomed.clear()
                # Its end is not the end of the call that made the callback.
                self.client.token_refresh(self.emulator.company_id)
                freed_early.extend(freed_at)

        original = library.ghl_client_free
        doomed = [ghl_oauth.Client("app-1", "secret")]
        address = doomed[0]._open()._pointer.value
        self.client.on_event(release)
        with mock.patch.object(library, "ghl_client_free", free):
            self.install()
        self.assertEqual((doomed, freed_early, freed_at), ([], [], [0]))


class EventsTest(EmulatorTest):
    def test_events_report_token_changes(self) -> None:
        events: list[ghl_oauth.Event] = []
        self.client.on_event(events.append)
        self.install()
        self.client.access_token(self.emulator.location_ids[0])
        self.client.token_refresh(self.emulator.company_id)
        self.client.token_delete(self.emulator.company_id)
        self.assertEqual(
            [event.type for event in events],
            ["token.saved", "token.minted", "token.refreshed", "token.deleted"],
        )
        self.assertEqual(events[0].resource_id, self.emulator.company_id)
        assert events[0].at and events[0].expires_at
        self.assertLess(events[0].at, events[0].expires_at)

    def test_failure_event_contains_its_reason(self) -> None:
        self.install()
        self.emulator.control("POST", "/tokens/revoke", {"resourceId": self.emulator.company_id})
        events: list[ghl_oauth.Event] = []
        self.client.on_event(events.append)
        with self.assertRaises(ghl_oauth.ReauthorizationRequired):
            self.client.token_refresh(self.emulator.company_id)
        failures = [event for event in events if event.type == "token.reauthorizationRequired"]
        self.assertEqual(len(failures), 1)
        self.assertIsInstance(failures[0].error, ghl_oauth.ReauthorizationRequired)

    def test_listeners_can_be_replaced_and_removed(self) -> None:
        first: list[ghl_oauth.Event] = []
        second: list[ghl_oauth.Event] = []
        self.client.on_event(first.append)
        self.install()
        self.client.on_event(second.append)
        self.client.token_refresh(self.emulator.company_id)
        self.client.on_event(None)
        self.client.token_delete(self.emulator.company_id)
        self.assertEqual((len(first), len(second)), (1, 1))

    def test_listener_may_use_the_client(self) -> None:
        tokens: list[str] = []
        self.client.on_event(
            lambda event: tokens.append(self.client.access_token(event.resource_id))
        )
        self.install()
        self.assertEqual(tokens, [self.client.access_token(self.emulator.company_id)])

    def test_exception_in_a_listener_does_not_fail_the_call(self) -> None:
        def fail(event: ghl_oauth.Event) -> None:
            raise ZeroDivisionError

        self.client.on_event(fail)
        with unraisable_exceptions() as reported:
            self.assertEqual(self.install().state, "ok")
        self.assertEqual(reported, [ZeroDivisionError])

    def test_interrupt_in_a_listener_is_raised_by_the_call(self) -> None:
        def interrupt(event: ghl_oauth.Event) -> None:
            raise KeyboardInterrupt

        self.client.on_event(interrupt)
        with self.assertRaises(KeyboardInterrupt):
            self.install()
        self.client.on_event(None)
        self.assertTrue(self.client.access_token(self.emulator.company_id))


class LogTest(EmulatorTest):
    def test_log_contains_no_secrets(self) -> None:
        with self.assertLogs("ghl_oauth", logging.DEBUG) as captured:
            self.install()
            self.client.access_token(self.emulator.location_ids[0])
            self.client.token_refresh(self.emulator.company_id)
        log = "\n".join(captured.output)
        self.assertIn(
            "DEBUG:ghl_oauth:a response arrived method=POST path=/oauth/token http_status=200", log
        )
        self.assertIn("INFO:ghl_oauth:token.saved", log)
        for token in self.client.tokens_export():
            self.assertNotIn(str(token.access_token), log)
            self.assertNotIn(str(token.refresh_token), log)
        self.assertNotIn(self.emulator.client_secret, log)

    def test_log_records_have_the_fields_of_their_message(self) -> None:
        company = self.install().resource_id
        self.emulator.fault("status", status=500, body='{"message": "a \\"quoted\\" = word"}')
        with (
            self.assertLogs("ghl_oauth", logging.WARNING) as captured,
            self.assertRaises(ghl_oauth.ServerError) as raised,
        ):
            self.client.token_refresh(company)
        records = [record for record in captured.records if "event" in record.__dict__["ghl"]]
        fields = records[-1].__dict__["ghl"]
        self.assertEqual(records[-1].levelno, logging.WARNING)
        self.assertEqual(fields["event"], "token.refreshFailed")
        self.assertEqual((fields["resource_id"], fields["http_status"]), (company, 500))
        self.assertEqual(fields["reason"], raised.exception.message)
        self.assertGreater(fields["old_token_seconds"], fields["next_attempt_seconds"])
        self.assertTrue(
            all(isinstance(record.__dict__["ghl"], dict) for record in captured.records)
        )

    def test_log_level_changed_later_takes_effect(self) -> None:
        self.install()
        with self.assertLogs("ghl_oauth", logging.INFO) as captured:
            self.client.token_refresh(self.emulator.company_id)
        self.assertEqual({record.levelno for record in captured.records}, {logging.INFO})

    def test_exception_in_a_log_filter_does_not_fail_the_call(self) -> None:
        with log_filter(ZeroDivisionError), unraisable_exceptions() as reported:
            self.assertEqual(self.install().state, "ok")
        self.assertEqual(set(reported), {ZeroDivisionError})

    def test_interrupt_during_logging_is_raised_by_the_call(self) -> None:
        with log_filter(KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
            self.install()
        self.assertTrue(self.client.access_token(self.emulator.company_id))


class SecretsTest(EmulatorTest):
    def test_no_secret_is_shown(self) -> None:
        self.install()
        self.client.access_token(self.emulator.location_ids[0])
        self.emulator.fault("status", status=401, body='{"message": "no"}', endpoint="token")
        shown: list[Any] = [self.client, self.client.stats(), *self.client.tokens_list()]
        self.client.on_event(shown.append)
        secrets = [self.emulator.client_secret, "the-code", "the-refresh-token"]
        for failing in (
            lambda: self.client.token_refresh(self.emulator.company_id),
            lambda: self.client.oauth_token(grant_type="authorization_code", code="the-code"),
            lambda: self.client.oauth_token(
                grant_type="refresh_token", refresh_token="the-refresh-token"
            ),
        ):
            with self.assertRaises(ghl_oauth.GhlError) as raised:
                failing()
            shown += [raised.exception, raised.exception.raw, str(raised.exception)]
        link = self.client.authorization_url()
        shown.append(link)
        secrets += [link.url, link.state]
        self.emulator.fault(
            "status", status=404, body='{"apiKey": "the-api-key"}', endpoint="location"
        )
        location_id = self.emulator.location_ids[0]
        answer = self.client.request("GET", f"/locations/{location_id}", resource_id=location_id)
        self.assertEqual(answer.body, {"apiKey": "the-api-key"})
        shown.append(answer)
        secrets.append("the-api-key")
        for token in self.client.tokens_export():
            shown.append(token)
            secrets += [str(token.access_token), str(token.refresh_token)]
        text = repr(shown)
        self.assertGreaterEqual(len(secrets), 10)
        for secret in secrets:
            self.assertNotIn(secret, text)


class ExitTest(EmulatorTest):
    def test_calls_on_daemon_threads_do_not_disturb_the_exit(self) -> None:
        program = textwrap.dedent("""
            import logging, sys, threading, time, ghl_oauth
            logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
            once = {"max_attempts": 1}
            client = ghl_oauth.Client(*sys.argv[1:3], base_url=sys.argv[3], retry=once)
            client.on_event(print)
            unknown = {"refreshToken": "unknown", "companyId": "c"}
            client.tokens_import([unknown], replace=True)
            def work():
                while True:
                    client.tokens_import([unknown], replace=True)
                    try:
                        client.token_refresh("c")
                    except ghl_oauth.GhlError:
                        pass
            for _ in range(4):
                threading.Thread(target=work, daemon=True).start()
            time.sleep(0.3)
        """)
        configuration = self.emulator.configuration
        arguments = [
            configuration["clientId"],
            configuration["clientSecret"],
            configuration["baseUrl"],
        ]
        for _ in range(3):
            ended = subprocess.run(
                [sys.executable, "-c", program, *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            self.assertEqual((ended.returncode, ended.stderr), (0, ""))

    def test_long_calls_on_daemon_threads_do_not_disturb_the_exit(self) -> None:
        program = textwrap.dedent("""
            import sys, threading, time, ghl_oauth
            client = ghl_oauth.Client(*sys.argv[1:3], base_url=sys.argv[3])
            company_id, token = sys.argv[4:6]
            token = {"accessToken": token, "expiresIn": 3600, "companyId": company_id}
            client.tokens_import([token])
            begun = threading.Barrier(3)
            def mint():
                begun.wait()
                while True:
                    try:
                        ignore = lambda so_far: None
                        client.tokens_mint(company_id, force=True, concurrency=1, progress=ignore)
                    except ghl_oauth.GhlError:
                        pass
            for _ in range(2):
                threading.Thread(target=mint, daemon=True).start()
            begun.wait()
            time.sleep(0.4)
        """)
        self.install()
        self.emulator.settings(latencyMs=100)
        configuration = self.emulator.configuration
        arguments = [
            configuration["clientId"],
            configuration["clientSecret"],
            configuration["baseUrl"],
        ]
        arguments += [self.emulator.company_id, self.client.access_token(self.emulator.company_id)]
        for _ in range(3):
            ended = subprocess.run(
                [sys.executable, "-c", program, *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            self.assertEqual((ended.returncode, ended.stderr), (0, ""))


@contextmanager
def unraisable_exceptions() -> Generator[list[Any], None, None]:
    """Collects the types of unraisable exceptions."""
    reported: list[Any] = []
    with mock.patch.object(
        sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type)
    ):
        yield reported


@contextmanager
def log_filter(error: type[BaseException]) -> Generator[None, None, None]:
    """Makes the log raise at its first message."""
    logger = logging.getLogger("ghl_oauth")

    def fail(record: logging.LogRecord) -> bool:
        logger.removeFilter(fail)
        raise error

    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addFilter(fail)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeFilter(fail)
