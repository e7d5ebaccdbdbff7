"""Interruptible calls: a companion thread for each call of the main thread that may wait.

Python runs signal handlers only on the main thread, between two instructions. A call that waits in
C there would delay Ctrl-C until it returns. So the companion makes the call in C while the main
thread waits in Python. The main thread runs the callbacks of the call and the companion runs the
calls that such a callback makes, so C and Python each see one thread with the usual nesting.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from types import BuiltinFunctionType

from .errors import Cancelled

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from typing import Any, Callable, Optional, Protocol

    Cancel = Callable[[], object]
    Pending = Callable[[], Optional[BaseException]]

    class Caller(Protocol):
        """Something that runs the callbacks of a call elsewhere."""

        @property
        def abandoned(self) -> bool:
            """Whether the caller has stopped waiting, so that the callbacks must run here."""
            ...

        def serve(self, function: Callable[..., Any], arguments: Any, failed: Any) -> Any:
            """Runs a callback; ``failed`` is its result if it is interrupted."""


_PATIENCE = 0.1
"""How often the main thread looks around while it waits, in seconds. Only Linux interrupts the
wait for a lock when a signal arrives."""


def is_possible() -> bool:
    """Whether this is the main thread, and a thread of the system can be started.

    gevent and eventlet replace the function that starts threads by one that starts greenlets.
    """
    return (
        isinstance(_thread.start_new_thread, BuiltinFunctionType)
        and threading.main_thread().ident == _thread.get_ident()
    )


def run(work: Callable[[], Any], cancel: Cancel | None, pending: Pending) -> Errand:
    """Makes a call on a companion and waits for its end. Only if :func:`is_possible`.

    If a signal handler raises, the call is cancelled, and the exception is raised when the call has
    returned. The library returns at once, unless it has sent a refresh: then as soon as the new
    token is saved. A second exception is raised immediately; the call ends in the background.

    Args:
        work: Makes the call.
        cancel: Cancels it. Called repeatedly, since the call may not have begun. None: the call
            cannot be cancelled, so that already the first exception is raised immediately.
        pending: The exception that a callback left for the end of the call. An interrupt, which is
            no ``Exception``, cancels the call.

    Returns:
        The result or the error of ``work``. In a child that a callback or a signal handler forked,
        the companion does not exist, and the error is :class:`Cancelled`.
    """
    errand = Errand(work, cancel)
    post = _current
    if post is None or post.answered or post.companion.is_missing():
        Companion().run(errand, None, pending)
    else:
        post.companion.run(errand, post, pending)
    return errand


class _Once:
    """Something that only one thread may begin."""

    __slots__ = ("_unclaimed",)

    def __init__(self) -> None:
        self._unclaimed = [True]

    def take(self) -> bool:
        """Whether the caller is the first."""
        try:
            return self._unclaimed.pop()
        except IndexError:
            return False


class Errand(_Once):
    """A call that the companion makes for the main thread."""

    __slots__ = ("_work", "cancel", "error", "finished", "result")

    def __init__(self, work: Callable[[], Any], cancel: Cancel | None) -> None:
        super().__init__()
        self._work = work
        self.cancel = cancel
        self.result: Any = None
        self.error: BaseException | None = None
        self.finished = False

    def perform(self) -> None:
        """Makes the call, unless it was given up before."""
        if self.take():
            try:
                self.result = self._work()
            except BaseException as error:
                # Without this frame, which refers to the errand: no cycle keeps the client alive.
                traceback = error.__traceback__
                self.error = error.with_traceback(traceback and traceback.tb_next)
                del traceback
            # It refers to the client, which only the main thread may keep alive from now on.
            del self._work
            self.finished = True

    def lose(self) -> None:
        """Ends the call in a forked child, in which its thread does not exist."""
        if self.error is None:
            self.error = Cancelled(
                {
                    "message": "this process was forked during the call",
                    "help": "call again in the child",
                }
            )


class _Post(_Once):
    """A callback that the main thread runs for the companion."""

    __slots__ = (
        "answered",
        "arguments",
        "companion",
        "errands",
        "error",
        "function",
        "given_back",
        "go",
        "released",
        "result",
    )

    def __init__(
        self, companion: Companion, function: Callable[..., Any], arguments: Any, failed: Any
    ) -> None:
        super().__init__()
        self.companion = companion
        self.function = function
        self.arguments = arguments
        self.result = failed
        self.error: Exception | None = None
        # The calls that the callback makes, and signal handlers that interrupt it.
        self.errands: deque[Errand] = deque()
        self.given_back = False
        self.answered = False
        self.released = False
        self.go = _thread.allocate_lock()
        self.go.acquire()

    def answer(self) -> None:
        """Runs the callback, unless a signal interrupted an earlier attempt.

        An interrupted callback has the result of a failed one.
        """
        global _current
        outer = _current
        # Before the callback is claimed, so that a signal handler that calls the client in between
        # does not take it for an interrupted one.
        _current = self
        try:
            if self.take():
                self.result = self.function(*self.arguments)
        except Exception as error:
            self.error = error
        finally:
            _current = outer
        # In this order, so that an interrupted answer is repeated.
        self.answered = True
        release(self.go)
        self.released = True

    def give_back(self) -> None:
        """Lets the companion run the callback itself."""
        self.given_back = self.take()
        self.answered = True
        release(self.go)


# The callback that the main thread is running. Stale after a signal, but then it is answered.
_current: _Post | None = None


class Companion:
    """A thread that makes one call of the main thread, and calls of that call's callbacks."""

    __slots__ = ("_process", "_wake", "abandoned", "post")

    def __init__(self) -> None:
        self._process = os.getpid()
        self.abandoned = False
        # The innermost unanswered callback.
        self.post: _Post | None = None
        self._wake = _thread.allocate_lock()
        self._wake.acquire()

    def run(self, errand: Errand, below: _Post | None, pending: Pending) -> None:
        """Has an errand done. ``below``: the callback that asks for it, or None."""
        try:
            begun = self._hand_over(errand, below)
            if begun:
                self._attend(errand, below, pending, None)
        except BaseException:
            if not errand.take() and errand.cancel is not None:
                self._attend(errand, below, pending, errand.cancel)
            raise
        finally:
            if below is None and not errand.finished:
                self._abandon()
        if not begun:
            errand.perform()
        elif not errand.finished:
            errand.lose()

    def is_missing(self) -> bool:
        """Whether this is a forked child, in which the thread does not exist."""
        return os.getpid() != self._process

    def _hand_over(self, errand: Errand, below: _Post | None) -> bool:
        """False if no thread can be started: at a limit, or at the exit of the interpreter."""
        if below is not None:
            below.errands.append(errand)
            release(below.go)
            return True
        try:
            _thread.start_new_thread(self._begin, (errand,))
        except RuntimeError as error:
            # A signal handler may raise the same exception, but in a frame of its own.
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise
            return False
        return True

    def _attend(
        self, errand: Errand, below: _Post | None, pending: Pending, cancel: Cancel | None
    ) -> None:
        """Runs callbacks until the errand is done, or the thread is missing."""
        while not errand.finished and not self.is_missing():
            if cancel is not None:
                cancel()
            post = self.post
            if post is None or post is below or post.released:
                self._wake.acquire(timeout=_PATIENCE)
                continue
            post.answer()
            # Not in a variable: the exception's traceback refers to this frame.
            if not isinstance(pending(), (Exception, type(None))):
                cancel = errand.cancel

    def _abandon(self) -> None:
        self.abandoned = True
        if self.post is not None:
            self.post.give_back()

    # The companion's own side.

    def _begin(self, errand: Errand) -> None:
        companion.set(self)
        self._perform(errand)

    def _perform(self, errand: Errand) -> None:
        errand.perform()
        release(self._wake)

    def serve(self, function: Callable[..., Any], arguments: Any, failed: Any) -> Any:
        """Runs a callback on the main thread.

        ``failed``: the result if a signal interrupts the callback.
        """
        post = _Post(self, function, arguments, failed)
        outer, self.post = self.post, post
        release(self._wake)
        if self.abandoned:
            post.give_back()
        while not post.answered:
            post.go.acquire()
            while post.errands:
                self._perform(post.errands.popleft())
        self.post = outer
        if post.given_back:
            return function(*arguments)
        if post.error is not None:
            raise post.error
        return post.result


def release(lock: Any) -> None:
    """Wakes the thread that waits for a lock, which may have been woken already."""
    with suppress(RuntimeError):  # It was released already.
        lock.release()


def _after_fork() -> None:
    global _current
    _current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


companion: ContextVar[Caller | None] = ContextVar("ghl_oauth_companion", default=None)
"""The companion that runs the current code; None on every other thread."""
