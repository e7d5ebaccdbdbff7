"""Callbacks from the library into Python. No exception may propagate into C.

An exception in a callback is kept, and raised when the call that made the library call back
returns. On a worker thread of the library there is no such call: the exception is logged.

An interrupt cancels the call: a ``BaseException`` other than an ``Exception``, such as
``KeyboardInterrupt``, or any exception of a signal handler that ran during the callback.
"""

from __future__ import annotations

import os
import sys
import threading
from ctypes import c_void_p
from threading import get_ident

from ._companion import companion
from ._library import library
from ._logger import logger

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from typing import Any, Callable


class Gate:
    """The running calls of a callback, and whether further ones may begin."""

    __slots__ = ("running", "shut")

    def __init__(self) -> None:
        # Each call, with its process, since a forked child has only the calls of its own thread,
        # and with the last argument of the callback, the context.
        self.running: dict[object, tuple[int, Any]] = {}
        self.shut = False

    def contexts(self) -> set[Any]:
        """The contexts of the calls that are running in this process."""
        process = os.getpid()
        return {context for owner, context in tuple(self.running.values()) if owner == process}


def callback(
    prototype: Any,
    function: Callable[..., Any],
    failed: int | None = None,
    unwanted: Callable[..., bool] | None = None,
    gate: Gate | None = None,
    refused: Callable[[Exception], int] | None = None,
    repeated: bool = False,
) -> Any:
    """A C callback. The library may call the returned object while it is referenced.

    Args:
        prototype: Its ctypes type.
        function: The implementation.
        failed: The result if the function raises. None for a callback without a result: the call
            then continues, so an ``Exception`` goes to ``sys.unraisablehook``, and only an
            interrupt is kept for the end of the call.
        unwanted: Says from the arguments that ``function`` need not be called. Default: it must.
        gate: Notes the calls of the callback. Once it is shut, they do nothing.
        refused: Gives the result if the function raises an ``Exception`` of its own.
        repeated: Whether the function is called a second time if an interrupt ends it.
    """
    gate = gate or Gate()
    running = gate.running

    def contained(*arguments: Any, begun: bool = False, inside_a_call: bool = True) -> Any:
        # The handlers call no functions, because Python checks for signals after each function
        # call. If a signal arrived before `function` started, it is still called, so that no lock
        # stays held.
        try:
            if unwanted is not None and unwanted(*arguments):
                return failed
            call, note = object(), (os.getpid(), arguments[-1] if arguments else None)
            running[call] = note
            _thread.callbacks += 1
            try:
                if gate.shut:  # read after the note: the exit shuts it before it reads the notes
                    begun = True
                    return failed
                caller = companion.get()
                if caller is not None and not caller.abandoned:
                    begun = True
                    return caller.serve(contained, arguments, failed)
                # The library's own threads have no Python caller.
                inside_a_call = sys._getframe().f_back is not None
                begun = True
                return _run(function, arguments, refused, repeated)
            finally:
                _thread.callbacks -= 1
                del running[call]
        except Exception as error:
            if begun and failed is None:
                raise
            if not inside_a_call:
                _report(error)
            elif _thread.ident not in _raised:
                _raised[_thread.ident] = error
        except BaseException as interrupt:
            if not inside_a_call:
                _report(interrupt)  # may call functions: this is the main thread
            elif _thread.ident not in _raised:
                _raised[_thread.ident] = interrupt
        return failed if begun else contained(*arguments)

    _cover_the_entry(contained)
    return prototype(contained)


def _cover_the_entry(function: Any) -> None:
    """Extends the ``try`` at the beginning of a function to the function's first instruction.

    Python handles a signal that arrived during the library call at that instruction. From 3.11 on
    it is outside the ``try``: Ctrl-C would leave the callback and be printed as ignored, and the
    library would read a random result.
    """
    table: bytes = getattr(function.__code__, "co_exceptiontable", b"")  # empty before 3.11
    if table:
        # An entry of the exception table: start, length, target, depth, as varints of six bits per
        # byte (bit 64: more bytes follow); the first byte of an entry has bit 128. The new entry
        # ends where the first one starts, and has the same target and depth.
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
        function.__code__ = function.__code__.replace(
            co_exceptiontable=b"\x80" + length + target + depth + table
        )


class _Interruption(BaseException):
    """Stands for an ``Exception`` of a signal handler until the call raises that."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def _run(
    function: Callable[..., Any],
    arguments: Any,
    refused: Callable[[Exception], int] | None,
    repeated: bool,
    begun: bool = False,
) -> Any:
    interrupt: BaseException
    try:
        begun = True
        return function(*arguments)
    except Exception as error:
        if not _is_of_signal_handler(error):
            if refused is None:
                raise
            return refused(error)
        interrupt = _Interruption(error)
    except BaseException as error:
        interrupt = error
    try:
        if begun and not repeated:
            raise interrupt
        _raised.setdefault(get_ident(), interrupt)
    finally:
        del interrupt  # its traceback refers to this frame
    return _run(function, arguments, refused, False)


_cover_the_entry(_run)


def _is_of_signal_handler(error: Exception) -> bool:
    """Whether one of the installed signal handlers raised an exception.

    Python runs a handler on the main thread between two instructions, so its frame is in the
    traceback.
    """
    if threading.main_thread().ident != get_ident():
        return False
    import signal  # slow to import; imported already by a program that has handlers

    codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code in codes:
            return True
        traceback = traceback.tb_next
    return False


def _code_of(handler: Any) -> Any:
    """The code of a handler: a function, a method, a ``partial`` of one, or a callable object."""
    handler = getattr(handler, "func", handler)
    handler = getattr(handler, "__func__", handler)
    if not hasattr(handler, "__code__"):
        handler = getattr(type(handler), "__call__", None)  # noqa: B004
    return getattr(handler, "__code__", None)


def _report(error: BaseException) -> None:
    """Logs an exception that no call will raise. The log's own exceptions must not reach C."""
    try:
        found = logger()
        if found is not None:
            found.error(
                "a callback on a thread of the library raised %s: %s", type(error).__name__, error
            )
    except BaseException:
        pass


def pending() -> BaseException | None:
    """The exception that the current call of this thread will raise when it returns."""
    return _raised.get(get_ident())


def take_pending() -> BaseException | None:
    """Takes that exception out. The caller raises what :func:`original` makes of it."""
    return _raised.pop(get_ident(), None)


def original(error: BaseException) -> BaseException:
    """The exception that a callback raised, for one that was kept."""
    return error.error if isinstance(error, _Interruption) else error


def discard_pending() -> None:
    """Forgets that exception, because the call raises another."""
    take_pending()


def free_client(created: list[c_void_p], store: object) -> None:
    """Takes out the client that no call uses any more, and frees it. The list may be empty.

    The library forbids that inside a callback. If the garbage collector runs there, the client is
    freed at the end of the call; the callbacks of its store must live until then.
    """
    try:
        client = created.pop()
    except IndexError:  # not created yet, or freed by another thread
        return
    if _thread.callbacks:
        _unfreed.append((client, store))
    else:
        library.ghl_client_free(client)


class _Thread(threading.local):
    callbacks = 0  # nesting depth of callbacks on this thread

    def __init__(self) -> None:
        self.ident = get_ident()


_thread = _Thread()

# Work that callbacks leave for the end of the call: exceptions by thread, and clients to free.
_raised: dict[int, BaseException] = {}
_unfreed: list[tuple[c_void_p, object]] = []


def settle() -> None:
    """Runs after each call: frees clients, and raises exceptions that callbacks deferred."""
    if not (_raised or _unfreed):
        return
    if not _thread.callbacks:
        while True:
            try:
                client, _store = _unfreed.pop()
            except IndexError:  # another thread may have emptied it
                break
            library.ghl_client_free(client)
    error = take_pending()
    if error is not None:
        try:
            error = original(error)
            raise error
        finally:
            del error  # with its traceback it would be a cycle that keeps the client alive
