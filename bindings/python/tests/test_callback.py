"""Callbacks that raise: no exception may reach C or be lost."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import textwrap
import unittest
from collections.abc import Callable, Generator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, c_int32
from typing import Any
from unittest import mock

from ghl_oauth import _callback

from .support import EmulatorTest, environment

INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit)


class ReturnCodeTest(unittest.TestCase):
    """The result that C gets from a callback."""

    def test_callback_that_raises_returns_the_failure_code(self) -> None:
        for error in (ZeroDivisionError, *INTERRUPTS):
            function = _callback.callback(CFUNCTYPE(c_int32, c_int32), raising(error), failed=77)
            self.assertEqual([function(number) for number in range(50)], [77] * 50)
            with self.assertRaises(error):
                _callback.settle()
            _callback.settle()

    def test_first_of_several_exceptions_is_raised(self) -> None:
        prototype = CFUNCTYPE(c_int32)
        first = _callback.callback(prototype, raising(ZeroDivisionError), failed=1)
        second = _callback.callback(prototype, raising(KeyboardInterrupt), failed=1)
        self.assertEqual((first(), second()), (1, 1))
        with self.assertRaises(ZeroDivisionError):
            _callback.settle()

    def test_result_is_returned_without_an_exception(self) -> None:
        function = _callback.callback(
            CFUNCTYPE(c_int32, c_int32), lambda number: number + 1, failed=77
        )
        self.assertEqual(function(41), 42)
        _callback.settle()


class ProgressTest(EmulatorTest):
    OPTIONS = ("--locations", "60")

    def test_exception_in_progress_ends_the_work_and_is_raised(self) -> None:
        self.client = self.make_client(rate_limit={"requests": 10_000})
        self.emulator.settings(rateLimit=None)
        self.install()
        works: dict[str, Callable[[Any], object]] = {
            "mint": lambda progress: self.client.tokens_mint(
                self.emulator.company_id, force=True, progress=progress
            ),
            "maintain": lambda progress: self.client.tokens_maintain(progress=progress),
        }
        for name, work in works.items():
            for error in (ZeroDivisionError, *INTERRUPTS):
                self.expire()  # otherwise no token is due
                called: list[Any] = []
                with (
                    self.subTest(name, error=error),
                    no_exception_is_ignored(self),
                    self.assertRaises(error),
                ):
                    work(raising(error, called))
                self.assertTrue(called)
        self.assertTrue(self.client.access_token(self.emulator.company_id))


class EventTest(EmulatorTest):
    OPTIONS = ("--locations", "60")

    def test_interrupt_of_any_kind_in_a_listener_is_raised_by_the_call(self) -> None:
        for error in INTERRUPTS:
            self.client.on_event(raising(error))
            with self.subTest(error=error), no_exception_is_ignored(self), self.assertRaises(error):
                self.install()
            self.client.on_event(None)
            self.assertTrue(self.client.access_token(self.emulator.company_id))

    def test_interrupt_in_a_listener_ends_a_long_call(self) -> None:
        self.install()
        self.client.on_event(raising(KeyboardInterrupt))
        self.emulator.settings(latencyMs=100)
        with self.assertRaises(KeyboardInterrupt):
            self.client.tokens_mint(self.emulator.company_id, concurrency=1)
        self.assertLess(
            len(self.emulator.requests("/oauth/location-token")), len(self.emulator.location_ids)
        )


class LogTest(EmulatorTest):
    def test_interrupt_of_any_kind_during_logging_is_raised_by_the_call(self) -> None:
        logger = logging.getLogger("ghl_oauth")
        for error in INTERRUPTS:
            handler = logging.Handler()
            with (
                self.subTest(error=error),
                mock.patch.object(handler, "emit", raising(error)),
                mock.patch.object(logger, "level", logging.DEBUG),
                no_exception_is_ignored(self),
                self.assertRaises(error),
            ):
                logger.manager._clear_cache()  # type: ignore[attr-defined]
                logger.addHandler(handler)
                try:
                    self.install()
                finally:
                    logger.removeHandler(handler)
            logger.manager._clear_cache()  # type: ignore[attr-defined]
            self.assertTrue(self.client.access_token(self.emulator.company_id))


@unittest.skipIf(sys.platform == "win32", "no signal can be sent to one process there")
class SignalTest(EmulatorTest):
    """Handles a signal at the entry of the next callback, the worst moment during a call."""

    OPTIONS = ("--locations", "60")

    def interrupted(self, work: str) -> None:
        """Runs ``work`` in a process that gets Ctrl-C while it waits for a response."""
        program = textwrap.dedent("""
            import json, logging, sys, ghl_oauth
            settings, company_id, tokens = json.load(sys.stdin)
            client = ghl_oauth.Client(**settings)
            client.tokens_import(tokens)
            called = []
            logging.getLogger("ghl_oauth").addHandler(logging.NullHandler())
            try:
                WORK
            except KeyboardInterrupt:
                print("interrupted")
        """).replace("WORK", work)
        configuration = self.emulator.configuration
        settings = {
            "client_id": configuration["clientId"],
            "client_secret": configuration["clientSecret"],
            "base_url": configuration["baseUrl"],
            "rate_limit": {"requests": 10_000},
        }
        self.emulator.settings(rateLimit=None)
        tokens = [token.to_json() for token in self.client.tokens_export()]
        self.emulator.control("DELETE", "/requests")
        self.emulator.fault("stall", count=1)
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin
        process.stdin.write(json.dumps([settings, self.emulator.company_id, tokens]).encode())
        process.stdin.close()
        process.stdin = None
        while not self.emulator.control("GET", "/requests")["requests"]:
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        self.emulator.control("DELETE", "/faults")
        output, errors = process.communicate(timeout=60)
        self.assertEqual((output, errors), (b"interrupted\n", b""))

    def test_ctrl_c_at_the_start_of_a_progress_callback_is_not_lost(self) -> None:
        self.install()
        self.interrupted("client.tokens_mint(company_id, progress=called.append)")
        self.interrupted("client.tokens_mint(company_id)")

    def test_ctrl_c_at_the_start_of_a_listener_is_not_lost(self) -> None:
        self.install()
        self.interrupted("client.on_event(called.append); client.token_refresh(company_id)")


def raising(error: type[BaseException], called: list[Any] | None = None) -> Callable[..., Any]:
    """A function that records its call and raises."""

    def fail(*arguments: Any) -> Any:
        if called is not None:
            called.append(arguments)
        raise error

    return fail


@contextmanager
def no_exception_is_ignored(test: unittest.TestCase) -> Generator[None, None, None]:
    ignored: list[Any] = []
    with mock.patch.object(
        sys, "unraisablehook", lambda unraisable: ignored.append(unraisable.exc_type)
    ):
        yield
    test.assertEqual(ignored, [])
