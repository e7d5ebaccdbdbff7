"""Calls across the C boundary: JSON in, JSON or an exception out.

The only module that reads and writes the library's JSON and frees its memory.
"""

from __future__ import annotations

from ctypes import byref, c_void_p, string_at

from ._callback import callback, pending, settle
from ._lazy_module import LazyModule
from ._library import ProgressCallback, library
from .errors import from_json

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    import json
    from collections.abc import Mapping
    from typing import Any, Callable, NoReturn

    from ._names import Names
else:
    json = LazyModule("json")

OK = 0


def parse(document: bytes) -> Any:
    """Parses a document of the library."""
    return json.loads(document)


def encode(document: Mapping[str, Any]) -> bytes:
    """Serializes a parameter document; None values are omitted."""
    given = {key: value for key, value in document.items() if value is not None}
    return json.dumps(given, allow_nan=False).encode()


def encode_id(resource_id: str) -> bytes:
    """An id as a C string. A NUL would truncate the id unnoticed, so it is refused."""
    if not isinstance(resource_id, str):
        raise TypeError(f"resource_id must be a str, not {type(resource_id).__name__}")
    if "\0" in resource_id:
        raise ValueError("embedded null character in resource_id")
    return resource_id.encode()


def call(
    function: Callable[..., int],
    *arguments: Any,
    read: Callable[[bytes], Any] = parse,
    names: Names | None = None,
) -> Any:
    """Calls a function whose last parameter receives its result, or the error as JSON.

    Returns what ``read`` makes of the result, or raises.
    """
    out = c_void_p()
    status = function(*arguments, byref(out))
    document = take(out)
    settle()
    if status != OK:
        raise_error(status, document, names)
    return read(document) if document else None


def call_for_text(function: Callable[..., int], *arguments: Any, names: Names | None = None) -> str:
    """Calls a function that ends with ``char **out_text, char **out_error``."""
    out, error = c_void_p(), c_void_p()
    status = function(*arguments, byref(out), byref(error))
    text, document = take(out), take(error)
    settle()
    if status != OK:
        raise_error(status, document, names)
    return (text or b"").decode()


def take(out: c_void_p) -> bytes | None:
    """Copies and frees a string that the library returned."""
    if not out:
        return None
    try:
        return string_at(out)
    finally:
        library.ghl_string_free(out)
        out.value = None


def raise_error(status: int, document: bytes | None, names: Names | None = None) -> NoReturn:
    """Raises the exception for a failed status and its error object."""
    details = json.loads(document).get("error") if document else None
    error = from_json(details or {"status": library.ghl_status_name(status).decode()}, names)
    if error.code != status:
        error.code = status
    try:
        raise error
    finally:
        del error  # with its traceback it would be a cycle that keeps the client alive


def progress_callback(function: Callable[[Mapping[str, Any]], object] | None) -> Any:
    """A ``ghl_progress_callback``.

    An exception of the function stops the call and is raised when it returns. Pass one even without
    a function: it lets Ctrl-C interrupt a long call.
    """

    def tell(progress: bytes, _context: int | None) -> int:
        if function is not None:
            function(json.loads(progress))
        # A listener or the log may have been interrupted in the meantime.
        return int(pending() is not None)

    return callback(ProgressCallback, tell, failed=1)


def library_info() -> dict[str, Any]:
    """Describes the native library: its version, stores, features and TLS library."""
    info: dict[str, Any] = call(library.ghl_library_info)
    return info
