"""Work on another thread, for which the main thread waits as long as it wants."""

from __future__ import annotations

import _thread
import time

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from typing import Any, Callable


class Task:
    """Work that runs on a thread of its own, from now on.

    The interpreter does not wait for the thread when it exits.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._results: list[Any] = []
        self._errors: list[BaseException] = []
        # A plain lock: a signal inside a Condition's code would leave it in a wrong state.
        self._running = _thread.allocate_lock()
        self._running.acquire()

        def run() -> None:
            try:
                self._results.append(work())
            except BaseException as error:
                self._errors.append(error)
            finally:
                self._running.release()

        _thread.start_new_thread(run, ())

    def wait(self, until: float) -> bool:
        """Waits for the end, at most until the monotonic clock shows ``until``.

        Returns whether the work has ended. A signal can interrupt the wait.
        """
        left = max(until - time.monotonic(), 0)
        ended = self._running.acquire(timeout=left)
        if ended:
            self._running.release()
        return ended

    def result(self) -> Any:
        """The result of ended work; raises its exception."""
        if self._errors:
            raise self._errors[0]
        return self._results[0]
