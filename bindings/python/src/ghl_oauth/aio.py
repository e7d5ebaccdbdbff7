"""The client for asyncio. Imported only on demand, because asyncio is slow to import.

::

    from ghl_oauth import aio

    async with aio.Client("…", "…", store="tokens.db") as client:
        token = await client.access_token(location_id)
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, TypeVar, cast

from . import client as _client
from . import pages as _pages
from ._interrupt import Scope, current_scope
from .errors import Cancelled
from .models import Event, FailedToken
from .store import Store

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

Result = TypeVar("Result")
Item = TypeVar("Item")

__all__ = ["Client", "Pages"]

_PATIENCE = 0.05
"""How often the cancellation of a call is repeated, in seconds: it may be about to begin."""


class Pages(AsyncIterator[Item]):
    """The items of a paginated list, for ``async for``; see :class:`ghl_oauth.Pages`.

    Each page is fetched when the iteration reaches it. An error or a cancellation does not end the
    iteration, which continues with the same page. Use an iterator in one task at a time.
    """

    def __init__(
        self, client: Client, pages: _pages.Pages[Item], call_id: str | None = None
    ) -> None:
        """Takes the client that runs the calls, the list that makes them, and their id."""
        self._client = client
        self._pages = pages
        self._call_id = call_id

    @property
    def next_page_token(self) -> str | None:
        """The token of the next page, to continue there later; None after the last page."""
        return self._pages.next_page_token

    @property
    def failed(self) -> tuple[FailedToken, ...]:
        """The unreadable tokens of the pages fetched so far; empty for a list of locations."""
        return self._pages.failed

    async def __anext__(self) -> Item:
        while True:
            for item in self._pages._items:
                return item
            if not await self._client._run(self._pages._load, self._client._scope(self._call_id)):
                raise StopAsyncIteration


def _like(
    method: Callable[Concatenate[_client.Client, P], object],
) -> Callable[[Callable[..., Result]], Callable[Concatenate[Client, P], Result]]:
    """Gives a method the signature and the documentation of the sync client's method."""

    def adopt(function: Callable[..., Result]) -> Callable[Concatenate[Client, P], Result]:
        function.__doc__ = method.__doc__
        function.__wrapped__ = method  # type: ignore[attr-defined]
        return cast("Callable[Concatenate[Client, P], Result]", function)

    return adopt


def _awaited(
    method: Callable[Concatenate[_client.Client, P], Result],
) -> Callable[Concatenate[Client, P], Coroutine[Any, Any, Result]]:
    """The method for asyncio: the call waits on a thread."""

    @wraps(method)
    async def run(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        work = partial(method, self._sync(), *args, **kwargs)
        return await self._run(work, self._scope(kwargs.get("call_id")))

    return run


def _immediate(
    method: Callable[Concatenate[_client.Client, P], Result],
) -> Callable[Concatenate[Client, P], Coroutine[Any, Any, Result]]:
    """The method for asyncio, of a call that never waits."""

    @wraps(method)
    async def run(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return method(self._sync(), *args, **kwargs)

    return run


def _paged(
    method: Callable[Concatenate[_client.Client, P], _pages.Pages[Item]],
) -> Callable[Concatenate[Client, P], Pages[Item]]:
    """The method for asyncio, of a paginated list."""

    @wraps(method)
    def run(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Pages[Item]:
        call_id = cast("str | None", kwargs.get("call_id"))
        return Pages(self, method(self._sync(), *args, **kwargs), call_id)

    return run


class Client:
    """:class:`ghl_oauth.Client` for asyncio: the same parameters and the same methods, awaitable.

    A live token comes from memory without a change of threads. Calls that wait use a thread of the
    client: at most :attr:`max_threads`, each started when it is first needed. Tasks that need the
    same token share one call.

    Cancelling a task cancels its call and waits for the call's end, which comes at once, unless a
    refresh was sent: then when the new token is saved. ``token_delete`` and ``webhook_apply`` are
    not cancelled, but finished.

    Progress functions and event listeners are called in the event loop. The methods of a
    :class:`ghl_oauth.Store` are called on threads.

    One client serves any number of event loops. A forked child may keep using it in a new loop.
    Creating a client opens its store, so create it before the loop starts. Close it with
    :meth:`close`, or use it in an ``async with`` statement.
    """

    max_threads: int = 16
    """How many calls wait at the same time; further ones wait for their turn, before their
    ``timeout`` begins. Set it before the first call."""

    @_like(_client.Client.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._own(_client.Client(*args, **kwargs))

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | str | os.PathLike[str], store: Store | None = None
    ) -> Client:
        """Creates a client from the library's configuration document, or from a file with it.

        Args:
            config: As for :meth:`ghl_oauth.Client.from_config`.
            store: As for :meth:`ghl_oauth.Client.from_config`.

        Raises:
            GhlError: As for :meth:`ghl_oauth.Client.from_config`.
        """
        return cls.from_client(_client.Client.from_config(config, store))

    @classmethod
    def from_client(cls, client: _client.Client) -> Client:
        """Uses an existing client, which threads may keep using.

        Args:
            client: The client. Closing the new client closes it.
        """
        made = cls.__new__(cls)
        made._own(client)
        return made

    def _own(self, client: _client.Client) -> None:
        self._client = client
        self._closing: Future[None] | None = None
        self._closing_process = 0
        # By process, since a forked child has none of the parent's threads.
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._renewals: dict[tuple[asyncio.AbstractEventLoop, str], _Renewal] = {}
        # The calls that have not ended, in a dict because each operation on one is atomic.
        self._scopes: dict[_LoopScope, None] = {}
        _clients.add(self)

    def __repr__(self) -> str:
        return repr(self._client).replace("ghl_oauth.", "ghl_oauth.aio.", 1)

    async def __aenter__(self) -> Client:
        self._sync()._open()
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Waits for the calls in progress, then releases the client. May be called repeatedly.

        Every later call raises ``ValueError``. :meth:`cancel` ends the calls in progress at once,
        before or during this call, and so does the cancellation of a task that waits in it. The
        save of a new token that the store refused is retried for up to five seconds; if the store
        still refuses it, an error in the log names the resource.
        """
        if self._closing is None or self._closing_process != os.getpid():
            self._closing_process = os.getpid()
            pool = self._pools.pop(os.getpid(), None)
            closer = ThreadPoolExecutor(1, "ghl_oauth_close")
            self._closing = closer.submit(self._shut, pool)
            closer.shutdown(wait=False)
        closed = asyncio.wrap_future(self._closing)
        try:
            await asyncio.wait((closed,))
        except asyncio.CancelledError:
            await _finished(closed, self._stop)
            raise
        closed.result()

    def _stop(self) -> None:
        """Ends the calls in progress, even if the event loop of a call does not run any more."""
        for scope in list(self._scopes):
            scope.stop()
            scope.cancel()

    def _shut(self, pool: ThreadPoolExecutor | None) -> None:
        if pool is not None:
            pool.shutdown()
        self._client.close()

    def cancel(self, call_id: str | None = None) -> None:
        """Ends calls in progress with :class:`Cancelled`; later calls are not affected.

        A call that waits for a thread is never made. Works until the last call has ended, also
        during :meth:`close`.

        Args:
            call_id: Only calls that were given this id. Default: every call.

        A refresh whose request was sent continues until the response is saved.
        """
        self._client.cancel(call_id)
        for scope in list(self._scopes):
            if call_id is None or call_id == scope.call_id:
                scope.stop()

    def on_event(self, listener: Callable[[Event], object] | None) -> None:
        """Sets the function that receives this client's token events, or removes it if None.

        The function is called in the event loop that runs this method. Its exceptions go to the
        loop's exception handler.

        Args:
            listener: The function, or None.

        Raises:
            RuntimeError: No event loop is running.
        """
        if listener is None:
            self._sync().on_event(None)
            return
        loop = asyncio.get_running_loop()
        context = copy_context()

        def post(event: Event) -> None:
            with suppress(RuntimeError):  # The loop is closed.
                loop.call_soon_threadsafe(partial(listener, event), context=context)

        self._sync().on_event(post)

    @_like(_client.Client.access_token)
    async def access_token(self, resource_id: str, **options: Any) -> str:  # noqa: D102
        client = self._sync()
        if options.get("min_valid") is None:
            token = client._open().token_in_memory(resource_id)
            if token is not None:
                return token
        if options:
            work = partial(client.access_token, resource_id, **options)
            return await self._run(work, self._scope(options.get("call_id")))
        key = asyncio.get_running_loop(), resource_id
        renewal = self._renewals.get(key)
        if renewal is None:
            scope = self._scope(None)
            work = partial(client.access_token, resource_id)
            task = asyncio.ensure_future(self._run(work, scope))
            renewal = self._renewals[key] = _Renewal(task)
            task.add_done_callback(lambda _: self._forget(key, renewal))
            # Here as well, because a task that is cancelled first never begins.
            task.add_done_callback(lambda _: self._scopes.pop(scope, None))
        renewal.waiting += 1
        try:
            await asyncio.wait((renewal.task,))
        except asyncio.CancelledError:
            if renewal.waiting == 1:
                self._forget(key, renewal)
                renewal.task.cancel()
                await _finished(renewal.task)
            raise
        finally:
            renewal.waiting -= 1
        return renewal.task.result()

    def _forget(self, key: tuple[asyncio.AbstractEventLoop, str], renewal: _Renewal | None) -> None:
        if self._renewals.get(key) is renewal:
            del self._renewals[key]

    authorization_url = _immediate(_client.Client.authorization_url)
    authorization_complete = _awaited(_client.Client.authorization_complete)
    authorization_listen = _awaited(_client.Client.authorization_listen)
    token_refresh = _awaited(_client.Client.token_refresh)
    token_delete = _awaited(_client.Client.token_delete)
    tokens_list = _paged(_client.Client.tokens_list)
    tokens_export = _paged(_client.Client.tokens_export)
    tokens_import = _awaited(_client.Client.tokens_import)
    tokens_adopt = _awaited(_client.Client.tokens_adopt)
    tokens_maintain = _awaited(_client.Client.tokens_maintain)
    tokens_mint = _awaited(_client.Client.tokens_mint)
    mint_locations = tokens_mint
    request = _awaited(_client.Client.request)
    webhook_verify = _immediate(_client.Client.webhook_verify)
    webhook_apply = _awaited(_client.Client.webhook_apply)
    oauth_token = _awaited(_client.Client.oauth_token)
    oauth_location_token = _awaited(_client.Client.oauth_location_token)
    installed_locations = _paged(_client.Client.installed_locations)
    stats = _immediate(_client.Client.stats)
    metrics = _awaited(_client.Client.metrics)

    def _sync(self) -> _client.Client:
        if self._closing is not None:
            raise ValueError("the client is closed")
        return self._client

    def _scope(self, call_id: Any) -> _LoopScope:
        """What :meth:`cancel` needs to end a call, before the call is made."""
        scope = _LoopScope(call_id)
        self._scopes[scope] = None
        return scope

    async def _run(self, work: Callable[[], Result], scope: _LoopScope) -> Result:
        """Runs a call on a thread of this client."""
        try:
            self._sync()._open()
            context = copy_context()
            context.run(current_scope.set, scope)
            call = self._pool().submit(context.run, work)
            scope.submitted(call)
            future = asyncio.wrap_future(call)
            try:
                await asyncio.wait((future, scope.stopped), return_when=asyncio.FIRST_COMPLETED)
                if not future.done():
                    await _finished(future, scope.cancel)
            except asyncio.CancelledError:
                if not call.cancel():
                    await _finished(future, scope.cancel)
                raise
        finally:
            self._scopes.pop(scope, None)
        if scope.error is not None:
            if not future.cancelled():
                future.exception()  # Otherwise asyncio would log that it was ignored.
            raise scope.error
        if future.cancelled():
            raise Cancelled("the call was cancelled before it began")
        return future.result()

    def _pool(self) -> ThreadPoolExecutor:
        process = os.getpid()
        pool = self._pools.get(process)
        if pool is None:
            # Starts no thread yet, so it does no harm if another loop made one just now.
            made = ThreadPoolExecutor(self.max_threads, "ghl_oauth")
            pool = self._pools.setdefault(process, made)
        return pool


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _cancel_all() -> None:
    """Ends the calls of an interpreter that exits without closing its clients."""
    for client in list(_clients):
        with suppress(ValueError):  # It is closed.
            client.cancel()
        # A pool does not know a thread whose start Ctrl-C has interrupted, and would not end it.
        pool = client._pools.get(os.getpid())
        if pool is not None:
            pool.shutdown(wait=False)


# Before concurrent.futures waits for its threads, which an atexit handler is too late for. Without
# this private function, the exit waits for the deadlines of the calls.
_register = getattr(threading, "_register_atexit", None)
if _register is not None:
    _register(_cancel_all)


class _Renewal:
    """A call for a token, shared by the tasks that need it."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Future[str]) -> None:
        self.task = task
        self.waiting = 0


class _LoopScope(Scope):
    """A call that tells the event loop of its progress, and that another thread can cancel."""

    __slots__ = ("_call", "_context", "_loop", "_process", "call_id", "error", "stopped")

    def __init__(self, call_id: Any) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self._context = copy_context()
        self._call: Future[Any] | None = None
        self.call_id = call_id
        self.error: BaseException | None = None
        # Done after `stop`: the waiting task then repeats the cancellation until the call's end.
        self.stopped: asyncio.Future[None] = self._loop.create_future()

    def submitted(self, call: Future[Any]) -> None:
        """Notes that the call waits for a thread."""
        self._call = call
        if self._cancelled:
            call.cancel()

    def stop(self) -> None:
        """Cancels the call, unless it is one of the process that forked this one."""
        if self._process != os.getpid():
            return
        self._cancelled = True  # before `_call` is read, as `submitted` does the reverse
        call = self._call
        if call is None or not call.cancel():
            with suppress(RuntimeError):  # The loop is closed.
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if not self.stopped.done():
            self.stopped.set_result(None)

    def deliver(self, progress: Callable[[Any], object]) -> Callable[[Any], object]:
        """The function that the call tells of its progress; an exception ends the call."""

        def tell(so_far: Any) -> None:
            if self.error is not None:
                raise self.error
            self._loop.call_soon_threadsafe(show, so_far, context=self._context)

        def show(so_far: Any) -> None:
            if self.error is None:
                try:
                    progress(so_far)
                except BaseException as error:
                    self.error = error

        return tell


async def _finished(
    future: asyncio.Future[Any], cancel: Callable[[], object] | None = None
) -> None:
    """Waits until a future is done, even if the waiting task is cancelled, and then raises that."""
    cancelled = None
    while not future.done():
        if cancel is not None:
            cancel()
        try:
            await asyncio.wait((future,), timeout=None if cancel is None else _PATIENCE)
        except asyncio.CancelledError as error:
            cancelled = error
    if not future.cancelled():
        future.exception()  # Otherwise asyncio would log that it was ignored.
    if cancelled is not None:
        raise cancelled
