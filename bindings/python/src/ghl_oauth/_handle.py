"""Ownership of a ``ghl_client``: calls, events, and its end."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import threading
import time
import weakref
from ctypes import byref, c_size_t, c_void_p, create_string_buffer
from functools import partial

from . import _boundary, _log
from ._boundary import encode, encode_id, parse, progress_callback
from ._callback import Gate, callback, free_client, settle
from ._companion import companion
from ._interrupt import current_scope, interruptible
from ._library import EventCallback, ProgressCallback, library, with_gil
from .errors import GhlError, InvalidArgument, StoreError

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Callable

    from ._names import Names
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

    __slots__ = (
        "__weakref__",
        "_argument",
        "_connected",
        "_given_ids",
        "_listener",
        "_pointer",
        "names",
        "number",
    )

    def __init__(self, config: bytes, names: Names) -> None:
        self.names = names
        self._create(None, _boundary.call, library.ghl_client_new, config)

    def _create(self, store: object, function: Callable[..., Any], *arguments: Any) -> None:
        """Makes the call that creates the client, which is freed if a signal interrupts this."""
        self._listener: Listener | None = None
        self._given_ids: dict[str, str] = {}
        self._connected = False
        created: list[c_void_p] = []
        # Registered before the call, because a signal may arrive at any time after it.
        finalizer = weakref.finalize(self, free_client, created, store)
        # At interpreter exit, daemon threads may still be inside a call; the process frees the
        # memory.
        finalizer.atexit = False

        def create() -> None:
            client = c_void_p()
            function(*arguments, byref(client), names=self.names)
            created.append(client)
            if not finalizer.alive:
                free_client(created, store)

        try:
            interruptible(create, None)
        except BaseException:
            finalizer()
            raise
        self._pointer = created[0]
        # ctypes converts an address to an argument faster than a pointer object.
        self._argument = c_void_p.from_param(self._pointer.value)
        self.number = next(_numbers)
        _handles[self.number] = self
        _offer_at_exit()

    def call(
        self,
        function: Callable[..., int],
        *arguments: Any,
        read: Callable[[bytes], Any] = parse,
    ) -> Any:
        """Calls :func:`_boundary.call` with this client as the first argument."""
        return _boundary.call(function, self._pointer, *arguments, read=read, names=self.names)

    def call_with(
        self,
        function: Callable[..., int],
        params: Mapping[str, Any],
        *before: Any,
        read: Callable[[bytes], Any] = parse,
    ) -> Any:
        """Calls a function with parameters. It may wait, and can be interrupted.

        ``before`` are the arguments that precede the parameters.
        """
        return self._wait(
            params, lambda document: self.call(function, *before, document, read=read)
        )

    def call_without(self, function: Callable[..., int], *arguments: Any) -> Any:
        """The same for a function without parameters, which cannot be cancelled by an id."""
        return interruptible(partial(self._noted, self.call, function, *arguments), None)

    def work(
        self,
        function: Callable[..., int],
        params: Mapping[str, Any],
        progress: Callable[[Mapping[str, Any]], object] | None,
    ) -> Any:
        """Like :meth:`call_with`, for a function with a progress callback."""
        scope = current_scope.get()
        tell = progress if scope is None or progress is None else scope.deliver(progress)

        def make(document: bytes) -> Any:
            if not _begin(self):
                return self.call(function, document, ProgressCallback(), None)
            try:
                return self.call(function, document, progress_callback(tell), None)
            finally:
                _end(self)

        return self._wait(params, make)

    def _wait(self, params: Mapping[str, Any], make: Callable[[bytes], Any]) -> Any:
        given_id = params.get("callId")
        if given_id is not None and not _is_usable(given_id):
            return make(encode(params))  # The library refuses the id.
        # An ID of its own, because several calls may share the given one.
        own_id = f"python-{next(_call_ids)}"
        document = encode({**params, "callId": own_id})
        work = partial(self._noted, make, document)
        if given_id is not None:
            work = partial(self._identified, given_id, own_id, work)
        return interruptible(work, partial(library.ghl_call_cancel, self._pointer, own_id.encode()))

    def _identified(self, given_id: str, own_id: str, work: Callable[[], Any]) -> Any:
        self._given_ids[own_id] = given_id
        try:
            return work()
        finally:
            del self._given_ids[own_id]

    def _noted(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Notes the call, because the exit of the interpreter waits for noted calls."""
        if companion.get() is None or not _begin(self):
            return function(*arguments)
        try:
            return function(*arguments)
        finally:
            _end(self)

    def leftovers(self) -> tuple[int, ...]:
        """What the calls that have ended have left behind."""
        return ()

    def rest(self, leftovers: tuple[int, ...]) -> None:
        """Called when no call noted by :func:`_begin` can need those leftovers any more."""

    def cancel(self) -> None:
        """Ends every call in progress."""
        library.ghl_client_cancel(self._pointer)
        settle()

    def cancel_call(self, call_id: str) -> None:
        """Ends the calls in progress with that id."""
        if not _is_usable(call_id):
            raise InvalidArgument(
                {
                    "message": "the id of a call is not a string of 1 to 256 bytes without NUL",
                    "parameter": "call_id",
                }
            )
        for own_id, given_id in list(self._given_ids.items()):
            if given_id == call_id:
                library.ghl_call_cancel(self._pointer, own_id.encode())

    def token_in_memory(self, resource_id: str) -> str | None:
        """The hot path: a live token; None if a call that may wait must get it.

        No allocation in the library, no callback, no JSON.
        """
        try:
            resource = _encoded_ids[resource_id]
        except (KeyError, TypeError):  # new, or not even hashable
            resource = _encode_new_id(resource_id)
        # Taken out during the call: a signal handler may ask for another token before this one is
        # read from the buffer.
        try:
            scratch = _scratches.pop()
        except IndexError:
            scratch = _scratch(_USUAL_TOKEN_SIZE)
        buffer, length, buffer_out, length_out, size = scratch
        # The length of the last token is usually enough.
        status = _access_token_try_into(self._argument, resource, buffer_out, length_out)
        if status:
            required, length.value = length.value, size
            if status != _BUFFER_TOO_SMALL or required <= size:
                _scratches.append(scratch)
            else:
                # Twice the required size, in case the token is replaced by a longer one.
                _scratches.append(_scratch(2 * required))
            return self.token_in_memory(resource_id) if status == _BUFFER_TOO_SMALL else None
        token: str = buffer[: length.value - 1].decode()
        _scratches.append(scratch)
        return token

    def access_token(self, params: Mapping[str, Any]) -> str:
        """A token that may have to be renewed first."""
        token: str = self._wait(params, self._access_token)
        return token

    def _access_token(self, params: bytes) -> str:
        function = library.ghl_access_token_with
        return _boundary.call_for_text(function, self._pointer, params, names=self.names)

    def listen(self, listener: Listener | None) -> None:
        """Sets the receiver of the client's events, or removes it if None."""
        self._listener = listener
        if listener is not None and not self._connected:
            # Without a lock: the call may wait for another thread that forks, and a signal handler
            # may make it as well. It may be made twice.
            status = library.ghl_client_on_event(self._pointer, _event_callback, self.number)
            self._connected = self._connected or status == _boundary.OK
        settle()

    def tell(self, event: bytes) -> None:
        """Passes an event to the listener."""
        listener = self._listener
        if listener is not None:
            listener(parse(event))

    def unsaved(self) -> int:
        """How many new tokens the store refused."""
        count: int = self.call(library.ghl_client_stats)["tokens"]["unsaved"]
        return count

    def offer(self) -> None:
        """Retries saving refused tokens: listing starts with that, and refreshes nothing."""
        self.call(library.ghl_tokens_list, encode({"pageSize": 1}))

    def disconnect(self) -> None:
        """Removes the library's event callback; returns when no callback runs any more."""
        if self._connected:
            library.ghl_client_on_event(self._pointer, EventCallback(), None)


class StoreHandle(Handle):
    """The same for a client whose store is written in Python.

    Any call may call back into Python. An exception of the store is the cause of the call's error.
    """

    __slots__ = ("_bridge",)

    def __init__(self, config: bytes, store: Store, names: Names) -> None:
        from ._store import Bridge

        self.names = names
        self._bridge = Bridge(store)
        new = library.ghl_client_new_with_store
        struct = byref(self._bridge.struct)
        self._create(self._bridge, self._guarded, _boundary.call, new, config, struct)

    def call(
        self,
        function: Callable[..., int],
        *arguments: Any,
        read: Callable[[bytes], Any] = parse,
    ) -> Any:
        return self._guarded(partial(super().call, function, *arguments, read=read))

    def _access_token(self, params: bytes) -> str:
        token: str = self._guarded(super()._access_token, params)
        return token

    def leftovers(self) -> tuple[int, ...]:
        return self._bridge.failures()

    def rest(self, leftovers: tuple[int, ...]) -> None:
        self._bridge.forget(leftovers)

    def _guarded(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        noted = _begin(self)
        if not noted and _is_daemon():
            # The interpreter is exiting, and the result is not needed.
            raise SystemExit
        try:
            return function(*arguments, **options)
        except StoreError as error:
            error.__cause__ = self._bridge.cause_of(error)
            raise
        finally:
            if noted:
                _end(self)


_call_ids = itertools.count(1)


def _is_usable(call_id: Any) -> bool:
    """Whether the library accepts the id of a call."""
    if not isinstance(call_id, str) or "\0" in call_id:
        return False
    try:
        return 1 <= len(call_id.encode()) <= 256
    except UnicodeEncodeError:
        return False


# No lock in this module: a forked child would find it held by a thread that does not exist, and the
# calls of a signal handler, which run on another thread, would wait for the main thread.

_numbers = itertools.count(1)
_handles: weakref.WeakValueDictionary[int, Handle] = weakref.WeakValueDictionary()
"""Every handle by its number. ``values()`` would fail if another thread added one."""


def _live_handles() -> list[Handle]:
    found = [reference() for reference in _handles.valuerefs()]
    return [handle for handle in found if handle is not None]


def _on_event(event: bytes, number: int) -> None:
    handle = _handles.get(number)
    if handle is not None:
        handle.tell(event)


# One permanent function for all clients, which looks up the listener. So a new listener need not
# wait for the old one to return, and the function is not collected while the library may call it.
_events = Gate()
_event_callback = callback(EventCallback, _on_event, gate=_events)

_offers_at_exit = False


def any_open() -> bool:
    """Whether this process has an open client."""
    return bool(_live_handles())


def _offer_at_exit() -> None:
    """Retries refused saves at the exit of the interpreter, which does not free clients."""
    global _offers_at_exit
    if not _offers_at_exit:
        # Registered after `_disconnect_all`, so called before it. Threads may register it twice,
        # which does no harm.
        atexit.register(_offer_unsaved)
        _offers_at_exit = True


def _offer_unsaved() -> None:
    for handle in _live_handles():
        # The library has already logged the store's failure.
        with contextlib.suppress(GhlError):
            if handle.unsaved():
                handle.offer()


_working: list[Handle] = []
_ending = False


def _begin(handle: Handle) -> bool:
    """Registers a call with callbacks; False if the interpreter is shutting down."""
    _working.append(handle)
    if _ending:  # read after the registration: `_disconnect_all` sets it before it reads those
        _working.remove(handle)
        return False
    return True


def _is_daemon() -> bool:
    """Whether this thread ends with the interpreter, once that is exiting.

    The main thread may still run exit handlers, and a companion works for it.
    """
    return companion.get() is None and threading.main_thread().ident != threading.get_ident()


def _end(handle: Handle) -> None:
    # Before the call ends: another thread may begin one, which leaves something behind as well.
    leftovers = handle.leftovers()
    with contextlib.suppress(ValueError):  # a forked child has forgotten it
        _working.remove(handle)
    if handle not in _working:
        handle.rest(leftovers)


# The child has none of the parent's worker threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_working.clear)


_PATIENCE_AT_EXIT = 60


@atexit.register
def _disconnect_all() -> None:
    """Prevents calls on daemon threads from entering an interpreter that is shutting down.

    Waits for the calls and the callbacks in progress in Python, so that Ctrl-C ends the wait, and
    with a limit, because a callback of the program may never return.
    """
    global _ending
    _ending = True
    deadline = time.monotonic() + _PATIENCE_AT_EXIT
    try:
        while _working and time.monotonic() < deadline:
            for handle in tuple(_working):
                handle.cancel()
            time.sleep(0.02)
        _events.shut = _log.gate.shut = True
        while _events.contexts() or _log.gate.contexts():
            if time.monotonic() >= deadline:
                break
            time.sleep(0.02)
    finally:
        _events.shut = _log.gate.shut = True
        # The library waits for the callbacks that are running, so those are left as they are.
        busy = _events.contexts()
        for handle in _live_handles():
            if handle.number not in busy:
                handle.disconnect()
        if not _log.gate.contexts():
            _log.disconnect()


def _scratch(size: int) -> tuple[Any, ...]:
    """The output buffers of ``ghl_access_token_try_into``, and the arguments that point to them."""
    buffer, length = create_string_buffer(size), c_size_t(size)
    return buffer, length, byref(buffer), byref(length), size


_scratches: list[tuple[Any, ...]] = []
"""The buffers that no call uses at the moment."""

_MOST_ENCODED_IDS = 10_000
_LONGEST_ID = 255

_encoded_ids: dict[str, bytes] = {}
"""The first ids that were asked for, as C strings: checking and encoding one takes a tenth of the
time of a lookup."""


def _encode_new_id(resource_id: str) -> bytes:
    encoded = encode_id(resource_id)
    if len(_encoded_ids) < _MOST_ENCODED_IDS and len(encoded) <= _LONGEST_ID:
        _encoded_ids[resource_id] = encoded
    return encoded


# A function without argtypes: ctypes' checks would take as long as the call itself, and the
# arguments of `token_in_memory` always have the right types. It never waits, so it keeps the GIL.
_access_token_try_into = with_gil["ghl_access_token_try_into"]
