"""A client for one command, whose calls a signal ends at once."""

from __future__ import annotations

import _thread
import signal
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Callable, TypeVar

from ..client import Client
from .configuration import Configuration, read
from .output import say

Result = TypeVar("Result")


class Terminated(BaseException):
    """SIGTERM; like a KeyboardInterrupt no Exception, lest somebody handle it."""


@contextmanager
def terminable() -> Generator[None, None, None]:
    """Lets SIGTERM do what Ctrl-C does."""

    def terminate(_number: int, _frame: Any) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not on the main thread, where signals do not arrive either
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Session:
    """The configured client."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.client = Client.from_config(self.configuration.document)

    @classmethod
    def begin(cls, config_option: str | None) -> Session:
        """With what ``--config`` says, or None."""
        configuration = read(config_option)
        for warning in configuration.warnings:
            say(f"ghl-oauth: warning: {warning}")
        return cls(configuration)

    def run(self, work: Callable[[Client], Result]) -> Result:
        """Does the work on a thread of its own, since Python handles no signal while this one is inside a call.

        After a signal the client is cancelled, and what must not be broken off, such as a refresh whose request was
        sent, is waited for. A second signal ends that, too.
        """
        results: list[Result] = []
        errors: list[BaseException] = []
        finished: list[bool] = []
        # A plain lock, and a thread without `threading`: a signal in the middle of a Condition's code would end in a
        # RuntimeError, "release unlocked lock".
        awaited = _thread.allocate_lock()
        awaited.acquire()

        def work_on_it() -> None:
            try:
                results.append(work(self.client))
            except BaseException as error:
                errors.append(error)
            finally:
                finished.append(True)
                awaited.release()

        try:
            _thread.start_new_thread(work_on_it, ())
            # With a timeout, since only such a wait can be interrupted on Windows.
            while not finished:
                awaited.acquire(timeout=0.5)
        except BaseException:
            # Again and again: the work may be between two calls.
            while not finished:
                self.client.cancel()
                awaited.acquire(timeout=0.1)
            raise
        if errors:
            raise errors[0]
        return results[0]
