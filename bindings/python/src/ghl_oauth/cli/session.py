"""The client of one command. A signal cancels its calls."""

from __future__ import annotations

import _thread
import signal
import time
from contextlib import contextmanager

from .._configuration import read
from ..client import Client
from ..errors import Cancelled, GhlError, from_json
from .explain import explain
from .output import Refusal, Unsaved, say, show_error, warn

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from types import TracebackType
    from typing import Any, Callable, TypeVar

    from .._configuration import Configuration

    Result = TypeVar("Result")

_PATIENCE = 5.0
"""How long saving is retried for new tokens that the store refused, in seconds."""

_UNSAVED_HELP = (
    "check the store (disk space, permissions, locks of other programs), then run this command "
    "again at once: for about 30 seconds the API repeats its response; after that, the user may "
    "have to consent again"
)


class Terminated(BaseException):
    """SIGTERM. A BaseException, so that ``except Exception`` does not catch it."""


@contextmanager
def terminable() -> Generator[None, None, None]:
    """Raises :class:`Terminated` on SIGTERM, as Ctrl-C raises KeyboardInterrupt."""

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
    """The configured client. A ``with`` statement saves new tokens before it ends.

    It raises :class:`Unsaved` if the store still refuses them after some seconds.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        try:
            self.client = Client.from_config(self.configuration.document)
        except GhlError as error:
            explain(error, configuration)
            raise
        self._refused: dict[str, GhlError] = {}
        self._interrupted = False
        # Not `Client.on_event`, because its events are slow to import.
        self.client._open().listen(self._hear)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            unsaved = self.insist()
        finally:
            self.close()
        if not unsaved:
            return
        if exception is None or isinstance(exception, (GhlError, Refusal)):
            raise Unsaved(unsaved) from exception
        # A signal or a closed pipe keeps its own exit status.
        for error in unsaved:
            show_error(error)

    @classmethod
    def begin(cls, config_option: str | None) -> Session:
        """Starts a session with the value of ``--config``, or None."""
        return cls.of(read(config_option))

    @classmethod
    def of(cls, configuration: Configuration) -> Session:
        """Starts a session with a configuration, and prints its warnings."""
        for warning in configuration.warnings:
            warn(warning)
        return cls(configuration)

    def close(self) -> None:
        """Frees the client, which tries to save unsaved tokens one last time."""
        self.client.close()

    def insist(self) -> list[GhlError]:
        """Retries unsaved tokens for some seconds. Returns an error for each that stays unsaved."""
        self._interrupted = False
        if self._unsaved():
            say(f"ghl-oauth: the store did not save a new token; retrying for {_PATIENCE:.0f} s")
            self.run(self._offer)
        if not self._unsaved():
            return []
        refused = sorted(self._refused.items())
        return [_lost(resource_id, error) for resource_id, error in refused] or [
            _lost(None, GhlError())
        ]

    def _unsaved(self) -> int:
        return self.client._open().unsaved()

    def _offer(self, client: Client) -> None:
        until, pause = time.monotonic() + _PATIENCE, 0.1
        while True:
            try:
                # Listing first saves unsaved tokens. Unlike maintenance, it refreshes nothing.
                next(client.tokens_list(page_size=1), None)
            except Cancelled:
                return
            except GhlError:
                pass  # The store fails: the token stays unsaved.
            if not self._unsaved() or self._interrupted or time.monotonic() >= until:
                return
            time.sleep(pause)
            pause = min(2 * pause, 0.5)

    def _hear(self, event: Mapping[str, Any]) -> None:
        kind, resource_id = event["type"], event["resourceId"]
        if kind == "token.unsaved":
            names = self.client._open().names
            self._refused[resource_id] = from_json(event.get("error") or {}, names)
        elif kind in ("token.saved", "token.refreshed", "token.minted", "token.deleted"):
            self._refused.pop(resource_id, None)

    def run(self, work: Callable[[Client], Result]) -> Result:
        """Runs the work on another thread, since Python handles no signals during a call.

        A signal cancels the client and waits for work that must not be interrupted, such as a
        refresh whose request was sent. A second signal ends that wait.
        """
        results: list[Result] = []
        errors: list[BaseException] = []
        finished: list[bool] = []
        # A plain lock, and a thread without `threading`: a signal inside a Condition's code would
        # cause RuntimeError: "release unlocked lock".
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
            # With a timeout: on Windows, only such a wait is interruptible.
            while not finished:
                awaited.acquire(timeout=0.5)
        except BaseException:
            self._interrupted = True
            # Repeatedly, since the work may be between two calls.
            while not finished:
                self.client.cancel()
                awaited.acquire(timeout=0.1)
            raise
        for error in errors:
            if isinstance(error, GhlError):
                explain(error, self.configuration)
            raise error
        return results[0]


def _lost(resource_id: str | None, error: GhlError) -> GhlError:
    reason = f": {error.message}" if error.message else ""
    return GhlError(
        {
            **error.raw,
            "resourceId": resource_id,
            "message": f"the new token was not saved and is lost when this command ends{reason}",
            "help": _UNSAVED_HELP,
        }
    )
