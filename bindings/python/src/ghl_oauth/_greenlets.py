"""Calls under gevent: a thread of the system for each call that may wait.

A call in C would block all greenlets of its thread. And a callback that switched to another
greenlet would move the stack of the call in C, which other threads of the library use. So a thread
of its own makes the call, while the calling greenlet waits and other greenlets run. The calling
greenlet runs the callbacks of the call, in which it may switch. The calls that such a callback
makes run on the same thread, so the library sees the usual nesting.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections import deque
from weakref import WeakKeyDictionary

from ._callback import original, take_pending
from ._companion import Errand, companion, release

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from typing import Any, Callable

    from ._companion import Cancel

_PATIENCE = 0.1
"""How often a waiting greenlet looks around, in seconds: after a fork its thread is missing."""

_MOST_THREADS = 64
"""Calls at once in one thread's greenlets. Further greenlets wait for one of them to end."""


def is_possible() -> bool:
    """Whether gevent is in use, and this greenlet may wait."""
    # Looked up rather than imported: importing gevent would be slow.
    hubs = sys.modules.get("gevent._hub_local")
    if hubs is None:
        return False
    # A thread without a hub has no greenlets that could run meanwhile. A hub must not wait.
    hub = hubs.get_hub_if_exists()
    if hub is None:
        return False
    return _module("gevent").getcurrent() is not hub


def run(work: Callable[[], Any], cancel: Cancel | None) -> Errand:
    """Makes a call on another thread and waits for its end. Only if :func:`is_possible`.

    Takes and returns the same as :func:`_companion.run`. An exception that is raised in the waiting
    greenlet, such as ``gevent.Timeout``, cancels the call like a signal handler's. An exception
    that a callback left for the end of the call is the error of the result.
    """
    gevent = _module("gevent")
    errand = Errand(work, cancel)
    post = _answering.get(gevent.getcurrent())
    while post is not None and post.done:
        # This is a signal handler, which runs before the end of `_Post.answer`.
        release(post.go)
        post = post.outer
    if post is not None and not post.visit.is_missing():
        post.visit.run(errand, post)
        return errand
    hub = gevent.get_hub()
    with _places_of(hub):
        visit = _Visit(hub)
        try:
            visit.run(errand, None)
        finally:
            visit.close()
    return errand


def _module(name: str) -> Any:
    """A module of gevent. It is no dependency, and importing it is slow."""
    return importlib.import_module(name)


def _system(name: str) -> Any:
    """The function of ``_thread`` that gevent may have replaced."""
    return _module("gevent.monkey").get_original("_thread", name)


def _places_of(hub: Any) -> Any:
    process, places = _places.get(hub, (0, None))
    if process != os.getpid():
        places = _module("gevent.lock").BoundedSemaphore(_MOST_THREADS)
        _places[hub] = (os.getpid(), places)
    return places


_places: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()


class _Wake:
    """Wakes a waiting greenlet from another thread."""

    __slots__ = ("_event", "_lock", "_process", "_watcher")

    def __init__(self, hub: Any) -> None:
        self._event = _module("gevent.event").Event()
        self._process = os.getpid()
        # Held only for a moment.
        self._lock = _system("allocate_lock")()
        self._watcher = hub.loop.async_()
        # While it is started, the hub waits for it instead of raising LoopExit.
        self._watcher.start(self._event.set)

    def wait(self) -> None:
        self._event.wait(_PATIENCE)
        self._event.clear()

    def release(self) -> None:
        with self._lock:
            if self._watcher is not None:
                self._watcher.send()

    def close(self) -> None:
        if self._process != os.getpid():
            # The thread does not exist here, and may have held the lock when the process forked.
            self._lock = _system("allocate_lock")()
        with self._lock:
            watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()


class _Post:
    """A callback that the calling greenlet runs for the thread."""

    __slots__ = (
        "arguments",
        "begun",
        "done",
        "errands",
        "error",
        "function",
        "given_back",
        "go",
        "outer",
        "result",
        "visit",
    )

    def __init__(
        self, visit: _Visit, function: Callable[..., Any], arguments: Any, failed: Any
    ) -> None:
        self.visit = visit
        self.function = function
        self.arguments = arguments
        self.result = failed
        self.error: Exception | None = None
        # The calls that the callback makes, and signal handlers that interrupt it.
        self.errands: deque[Errand] = deque()
        # The callback that this one interrupts in its greenlet.
        self.outer: _Post | None = None
        self.begun = self.done = self.given_back = False
        self.go = _system("allocate_lock")()
        self.go.acquire()

    def answer(self) -> None:
        """Runs the callback in the calling greenlet."""
        greenlet = _module("gevent").getcurrent()
        self.outer = _answering.get(greenlet)
        # Before the callback begins, so that a signal handler that calls the client in between does
        # not run it.
        _answering[greenlet] = self
        try:
            if not self.begun:
                self.begun = True
                self.result = self.function(*self.arguments)
        except Exception as error:
            self.error = error
        finally:
            self.done = True
            release(self.go)
            if self.outer is None:
                del _answering[greenlet]
            else:
                _answering[greenlet] = self.outer


# The callback that each greenlet is running.
_answering: dict[Any, _Post] = {}


class _Visit:
    """A thread that makes one call of a greenlet, and the calls of that call's callbacks."""

    __slots__ = ("_process", "_start", "_wake", "abandoned", "post")

    def __init__(self, hub: Any) -> None:
        self._process = os.getpid()
        self._start = _system("start_new_thread")
        self._wake = _Wake(hub)
        self.abandoned = False
        # The innermost callback that has not returned.
        self.post: _Post | None = None

    def close(self) -> None:
        self._wake.close()

    def run(self, errand: Errand, below: _Post | None) -> None:
        """Has an errand done. ``below``: the callback that asks for it, or None."""
        try:
            if below is None:
                self._start(self._begin, (errand,))
            else:
                below.errands.append(errand)
                release(below.go)
            self._attend(errand, below, None)
        except BaseException:
            if not errand.take() and errand.cancel is not None:
                self._attend(errand, below, errand.cancel)
            raise
        finally:
            if below is None and not errand.finished:
                self._abandon()
        if not errand.finished:
            errand.lose()

    def is_missing(self) -> bool:
        """Whether this is a forked child, in which the thread does not exist."""
        return os.getpid() != self._process

    def _attend(self, errand: Errand, below: _Post | None, cancel: Cancel | None) -> None:
        """Runs callbacks until the errand is done, or the thread is missing."""
        left: BaseException | None = None
        interrupt: BaseException | None = None
        while not errand.finished and not self.is_missing():
            if cancel is not None:
                cancel()
            post = self.post
            if post is None or post is below or post.begun:
                self._wake.wait()
                continue
            post.answer()
            # At once, since it is kept by thread, and this thread has other greenlets.
            interrupt = take_pending()
            if interrupt is not None:
                left = left or original(interrupt)
                if not isinstance(interrupt, Exception):
                    cancel = errand.cancel
        if left is not None:
            errand.error = left
        left = interrupt = None  # their tracebacks refer to this frame

    def _abandon(self) -> None:
        """The thread ends its call alone, and runs the callbacks itself."""
        self.abandoned = True
        post = self.post
        if post is not None and not post.begun:
            post.begun = post.done = post.given_back = True
            release(post.go)

    # The thread's own side.

    def _begin(self, errand: Errand) -> None:
        companion.set(self)
        self._perform(errand)

    def _perform(self, errand: Errand) -> None:
        errand.perform()
        self._wake.release()

    def serve(self, function: Callable[..., Any], arguments: Any, failed: Any) -> Any:
        """Runs a callback in the calling greenlet."""
        post = _Post(self, function, arguments, failed)
        outer, self.post = self.post, post
        self._wake.release()
        while not post.done:
            post.go.acquire()
            while post.errands:
                self._perform(post.errands.popleft())
        self.post = outer
        if post.given_back:
            return function(*arguments)
        if post.error is not None:
            raise post.error
        return post.result
