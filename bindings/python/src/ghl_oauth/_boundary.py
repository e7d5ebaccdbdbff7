"""Calls across the C boundary: documents in, documents or exceptions out.

The only place that reads or writes the library's JSON, and the only one that gives its memory back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ctypes import byref, c_void_p, string_at
from typing import Any, Callable, NoReturn

from ._callback import callback, pending, settle
from ._library import ProgressCallback, library
from .errors import from_json

OK = 0


def encode(document: Mapping[str, Any]) -> bytes:
    """A parameter document; what is None was not given."""
    given = {key: value for key, value in document.items() if value is not None}
    return json.dumps(given, allow_nan=False).encode()


def encode_id(resource_id: str) -> bytes:
    """An id as a C string, which ends at its first NUL: the rest of such an id would be lost unnoticed."""
    if not isinstance(resource_id, str):
        raise TypeError(f"resource_id must be a str, not {type(resource_id).__name__}")
    if "\0" in resource_id:
        raise ValueError("embedded null character in resource_id")
    return resource_id.encode()


def call(function: Callable[..., int], *arguments: Any) -> Any:
    """Calls a function whose last parameter is ``char **out_json``; returns the document or raises the error."""
    out = c_void_p()
    status = function(*arguments, byref(out))
    document = take(out)
    settle()
    if status != OK:
        raise_error(status, document)
    return json.loads(document) if document else None


def take(out: c_void_p) -> bytes | None:
    """Copies a string that the library handed out, and gives it back."""
    if not out:
        return None
    try:
        return string_at(out)
    finally:
        library.ghl_string_free(out)
        out.value = None


def raise_error(status: int, document: bytes | None) -> NoReturn:
    """Raises the exception for a status other than OK and the error object that came with it."""
    details = json.loads(document).get("error") if document else None
    error = from_json(details or {"status": library.ghl_status_name(status).decode()})
    error.code = status
    raise error


def progress_callback(function: Callable[[Mapping[str, Any]], object] | None) -> Any:
    """A ``ghl_progress_callback``. What the function raises ends the work, and is raised when the call returns.

    Without a function it is useful, too: it is where Ctrl-C gets through to a long call.
    """

    def tell(progress: bytes, _context: int | None) -> int:
        if function is not None:
            function(json.loads(progress))
        # A listener or the log may have been interrupted in the meantime.
        return int(pending())

    return callback(ProgressCallback, tell, failed=1)
