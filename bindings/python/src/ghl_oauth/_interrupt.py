"""Interruption of calls that may wait: by a signal, or by the cancellation of an awaited method."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial

from . import _companion, _greenlets
from ._callback import discard_pending, pending, settle
from .errors import Cancelled

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from typing import Any, Callable


class Scope:
    """An awaited method, whose calls another thread can cancel."""

    __slots__ = ("_cancel", "_cancelled")

    def __init__(self) -> None:
        self._cancelled = False
        self._cancel: _companion.Cancel | None = None

    def run(self, work: Callable[[], Any], cancel: _companion.Cancel | None) -> Any:
        """Makes one of the method's calls."""
        outer, self._cancel = self._cancel, cancel
        try:
            if self._cancelled:
                raise Cancelled("the call was cancelled before it began")
            return work()
        finally:
            self._cancel = outer

    def cancel(self) -> None:
        """Ends the current call and prevents further ones.

        To be repeated until the method has returned, since a call may just be about to begin.
        """
        self._cancelled = True
        # Read once: the thread that makes the call resets it.
        cancel = self._cancel
        if cancel is not None:
            cancel()

    def deliver(self, progress: Callable[[Any], object]) -> Callable[[Any], object]:
        """The function that the calls tell of their progress, instead of this one."""
        return progress


current_scope: ContextVar[Scope | None] = ContextVar("ghl_oauth_scope", default=None)


def interruptible(work: Callable[[], Any], cancel: _companion.Cancel | None) -> Any:
    """Makes a call that may wait.

    Args:
        work: Makes the call.
        cancel: Cancels it; None if that is not possible.
    """
    scope = current_scope.get()
    if scope is not None:
        return scope.run(work, cancel)
    if _greenlets.is_possible():
        run = partial(_greenlets.run, work, cancel)
    elif _companion.is_possible():
        run = partial(_companion.run, work, cancel, pending)
    else:
        return work()
    try:
        errand = run()
    except BaseException:
        discard_pending()
        raise
    error, errand.error = errand.error, None
    try:
        settle()
        if error is not None:
            raise error
        return errand.result
    finally:
        del error  # with its traceback it would be a cycle that keeps the client alive
