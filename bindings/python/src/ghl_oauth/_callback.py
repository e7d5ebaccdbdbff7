"""Callbacks from the library into Python. No exception may propagate into C.

An exception in a callback is kept, and raised when the call that made the library call back
returns. On a worker thread of the library there is no such call: the exception is logged.
"""

from __future__ import annotations

import sys
import threading
from ctypes import c_void_p
from threading import get_ident
from typing import Any, Callable

from ._library import library


def callback(prototype: Any, function: Callable[..., Any], failed: int | None = None) -> Any:
    """A C callback. The library may call the returned object while it is referenced.

    Args:
        prototype: Its ctypes type.
        function: The implementation.
        failed: The result if the function raises. None for a callback without a result: the call
            then continues, so an ``Exception`` goes to ``sys.unraisablehook``, and only an
            interrupt (``KeyboardInterrupt``, ``SystemExit``) is kept for the end of the call.
    """

    def contained(*arguments: Any, begun: bool = False, inside_a_call: bool = True) -> Any:
        # The handlers call nothing, since Python looks for signals after each call of a function; but what a signal
        # kept from beginning is done all the same, lest a lock stay taken.
        try:
            _thread.callbacks += 1
            try:
                # A thread of the library's own comes from no Python code.
                inside_a_call = sys._getframe().f_back is not None
                begun = True
                return function(*arguments)
            finally:
                _thread.callbacks -= 1
        except Exception as error:
            if begun and failed is None:
                raise
            if not inside_a_call:
                _report(error)
            elif _thread.ident not in _raised:
                _raised[_thread.ident] = error
        except BaseException as interrupt:
            if not inside_a_call:
                _report(interrupt)  # signals come on the main thread only, so this may call something
            elif _thread.ident not in _raised:
                _raised[_thread.ident] = interrupt
        return failed if begun else contained(*arguments)

    _cover_the_entry(contained)
    return prototype(contained)


def _report(error: BaseException) -> None:
    """Logs an exception that no call will raise; an exception of the log itself must not reach C either."""
    try:
        import logging  # as late as this, since it takes long

        logging.getLogger("ghl_oauth").error(
            "a callback on a thread of the library raised %s: %s", type(error).__name__, error
        )
    except BaseException:
        pass


def _cover_the_entry(function: Any) -> None:
    """Extends the ``try`` at the beginning of a function to the function's first instruction.

    Python handles a signal that arrived during the library call at that instruction. From 3.11 on
    it is outside the ``try``: Ctrl-C would leave the callback and be printed as ignored, and the
    library would read a random result.
    """
    table: bytes = getattr(function.__code__, "co_exceptiontable", b"")  # 3.9 and 3.10 do not look before a `try`
    if table:
        # A table's entries are: start, length, target, depth; numbers of six bits a byte (64: another byte follows),
        # and 128 in an entry's first byte. The new entry ends where the first one starts, and has its target and depth.
        numbers: list[bytes] = []
        begin = 0
        for end, byte in enumerate(table, 1):
            if not byte & 64:
                numbers.append(table[begin:end])
                begin = end
                if len(numbers) == 4:
                    break
        start, _, target, depth = numbers
        length = bytes([start[0] & 127]) + start[1:]
        function.__code__ = function.__code__.replace(co_exceptiontable=b"\x80" + length + target + depth + table)


def pending() -> bool:
    """Whether the current call of this thread will raise when it returns."""
    return get_ident() in _raised


def free_client(client: c_void_p, store: object) -> None:
    """Frees a client that is no longer in use.

    The library forbids that inside a callback. If the garbage collector runs there, the client is
    freed at the end of the call; the callbacks of its store must live until then.
    """
    if _thread.callbacks:
        _unfreed.append((client, store))
    else:
        library.ghl_client_free(client)


class _Thread(threading.local):
    callbacks = 0  # how many callbacks this thread is inside of

    def __init__(self) -> None:
        self.ident = get_ident()


_thread = _Thread()

# What callbacks leave for the end of the call: exceptions by thread, and clients to be freed.
_raised: dict[int, BaseException] = {}
_unfreed: list[tuple[c_void_p, object]] = []


def settle() -> None:
    """Runs after each call: frees clients and raises exceptions that its callbacks had to postpone."""
    if not (_raised or _unfreed):
        return
    if not _thread.callbacks:
        while True:
            try:
                client, _store = _unfreed.pop()
            except IndexError:  # another thread may be doing the same
                break
            library.ghl_client_free(client)
    error = _raised.pop(get_ident(), None)
    if error is not None:
        raise error
