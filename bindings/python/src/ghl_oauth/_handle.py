"""Ownership of a ``ghl_client``: calls, events, and its end."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import threading
import weakref
from collections.abc import Mapping
from ctypes import byref, c_size_t, c_void_p, create_string_buffer
from typing import TYPE_CHECKING, Any, Callable

from . import _boundary
from ._boundary import OK, encode_id, progress_callback, raise_error, take
from ._callback import callback, free_client, settle
from ._library import EventCallback, ProgressCallback, library
from .errors import GhlError, StoreError

if TYPE_CHECKING:
    from .store import Store

Listener = Callable[[Mapping[str, Any]], None]

_BUFFER_TOO_SMALL = 20

# Most access tokens have about 900 bytes.
_USUAL_TOKEN_SIZE = 2048


class Handle:
    """Owns a ``ghl_client``.

    The library must not free a client during a call. Each call keeps a reference to this object, so
    the client is freed when its owner has released it and the last call has returned.
    """

    __slots__ = ("__weakref__", "_event_callback", "_listener", "_pointer")

    def __init__(self, config: bytes) -> None:
        client = c_void_p()
        _boundary.call(library.ghl_client_new, config, byref(client))
        self._own(client, None)

    def _own(self, client: c_void_p, store: object) -> None:
        self._pointer = client
        self._listener: Listener | None = None
        self._event_callback: Any = None
        finalizer = weakref.finalize(self, free_client, client, store)
        # At interpreter exit, daemon threads may still be inside a call; the process frees the
        # memory.
        finalizer.atexit = False
        _offer_at_exit(self)

    def call(self, function: Callable[..., int], *arguments: Any) -> Any:
        """Calls :func:`_boundary.call` with this client as the first argument."""
        return _boundary.call(function, self._pointer, *arguments)

    def work(
        self,
        function: Callable[..., int],
        params: bytes,
        progress: Callable[[Mapping[str, Any]], object] | None,
    ) -> Any:
        """Like :meth:`call`, for a function with a progress callback."""
        if not _begin(self):
            return self.call(function, params, ProgressCallback(), None)
        try:
            return self.call(function, params, progress_callback(progress), None)
        finally:
            _end(self)

    def rest(self) -> None:
        """Called when the last call noted by :func:`_begin` has ended."""

    def cancel(self) -> None:
        """Ends every call in progress."""
        library.ghl_client_cancel(self._pointer)
        settle()

    def access_token(self, resource_id: str) -> str:
        """The hot path: no allocation in the library, no JSON."""
        resource = encode_id(resource_id)
        size, buffer, length, length_out, error, error_out = _this_thread.scratch
        length.value = size
        status = _access_token_into(self._pointer, resource, buffer, length_out, error_out)
        if status == OK:
            token: str = buffer[: length.value - 1].decode()
            settle()
            return token
        document = take(error)
        settle()
        if status != _BUFFER_TOO_SMALL:
            raise_error(status, document)
        # Twice the required size, in case the token is replaced by a longer one.
        _this_thread.scratch = _scratch(2 * length.value)
        return self.access_token(resource_id)

    def listen(self, listener: Listener | None) -> None:
        """Sets the receiver of the client's events, or removes it if None."""
        self._listener = listener
        with _connecting:
            if listener is None or self._event_callback is not None:
                return
            # The library gets one permanent function that looks up the listener. So a new listener
            # need not wait for the old one to return, and the function is not collected while the
            # library may call it.
            reference = weakref.ref(self)

            def on_event(event: bytes, _context: int | None) -> None:
                handle = reference()
                listener = handle._listener if handle else None
                if listener is not None:
                    listener(json.loads(event))

            self._event_callback = callback(EventCallback, on_event)
            library.ghl_client_on_event(self._pointer, self._event_callback, None)
            _listening.add(self)
        settle()

    def unsaved(self) -> int:
        """How many new tokens the store refused."""
        count: int = self.call(library.ghl_client_stats)["tokens"]["unsaved"]
        return count

    def offer(self) -> None:
        """Retries saving refused tokens: listing starts with that, and refreshes nothing."""
        self.call(library.ghl_tokens_list, _boundary.encode({"pageSize": 1}))

    def disconnect(self) -> None:
        """Removes the library's event callback; returns when no callback runs any more."""
        library.ghl_client_on_event(self._pointer, EventCallback(), None)


class StoreHandle(Handle):
    """The same for a client whose store is written in Python.

    Any call may call back into Python. An exception of the store is the cause of the call's error.
    """

    __slots__ = ("_bridge",)

    def __init__(self, config: bytes, store: Store) -> None:
        from ._store import Bridge

        client = c_void_p()
        self._bridge = Bridge(store)
        self._guarded(
            _boundary.call,
            library.ghl_client_new_with_store,
            config,
            byref(self._bridge.struct),
            byref(client),
        )
        self._own(client, self._bridge)

    def call(self, function: Callable[..., int], *arguments: Any) -> Any:
        return self._guarded(super().call, function, *arguments)

    def access_token(self, resource_id: str) -> str:
        token: str = self._guarded(super().access_token, resource_id)
        return token

    def rest(self) -> None:
        self._bridge.forget()

    def _guarded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if not _begin(self):
            # The interpreter is exiting. The result is not needed: this is a daemon thread.
            raise SystemExit
        try:
            return function(*arguments)
        except StoreError as error:
            error.__cause__ = self._bridge.cause_of(error)
            raise
        finally:
            _end(self)


_connecting = threading.Lock()
_listening: weakref.WeakSet[Handle] = weakref.WeakSet()


_open: weakref.WeakSet[Handle] = weakref.WeakSet()
_offers_at_exit = False


def _offer_at_exit(handle: Handle) -> None:
    """Retries refused saves at the exit of the interpreter, which does not free clients."""
    global _offers_at_exit
    with _connecting:
        _open.add(handle)
        if not _offers_at_exit:
            _offers_at_exit = True
            # Registered after the log's handler and `_disconnect_all`, so called before them.
            atexit.register(_offer_unsaved)


def _offer_unsaved() -> None:
    for handle in tuple(_open):
        # The library has already logged the store's failure.
        with contextlib.suppress(GhlError):
            if handle.unsaved():
                handle.offer()


_works = threading.Condition()
_working: list[Handle] = []
_ending = False


def _begin(handle: Handle) -> bool:
    """Registers a call with callbacks; False if the interpreter is shutting down."""
    with _works:
        if not _ending:
            _working.append(handle)
        return not _ending


def _end(handle: Handle) -> None:
    with _works:
        if handle in _working:
            _working.remove(handle)
        if handle not in _working:
            handle.rest()
        _works.notify_all()


def _after_fork() -> None:
    """The child has none of the parent's worker threads."""
    global _works
    _works = threading.Condition()
    _working.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _disconnect_all() -> None:
    """Prevents calls on daemon threads from entering an interpreter that is shutting down."""
    global _ending
    with _works:
        _ending = True
        # With a limit, because the progress callback itself may not return.
        patience = 600
        while _working and patience:
            for handle in tuple(_working):
                handle.cancel()
            _works.wait(0.1)
            patience -= 1
    for handle in tuple(_listening):
        handle.disconnect()


def _scratch(size: int) -> tuple[Any, ...]:
    """The output buffers of ``ghl_access_token_into``, with their pointers."""
    buffer, length, error = create_string_buffer(size), c_size_t(), c_void_p()
    return size, buffer, length, byref(length), error, byref(error)


class _ThisThread(threading.local):
    # A callback that makes the same call on the same thread is harmless: the outer call has read
    # the size, holds its own buffer, and writes to it last.
    def __init__(self) -> None:
        self.scratch = _scratch(_USUAL_TOKEN_SIZE)


_this_thread = _ThisThread()

# A function without argtypes: ctypes' checks would take as long as the call itself, and the
# arguments of `access_token` always have the right types.
_access_token_into = library["ghl_access_token_into"]
