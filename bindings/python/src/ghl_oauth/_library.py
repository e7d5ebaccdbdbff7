"""The shared library: its location, the required version, and its C signatures.

No other module of this package knows the file or the C types.
"""

from __future__ import annotations

import os
import sys
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    PyDLL,
    Structure,
    c_char_p,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
    pythonapi,
)

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from typing import Any

ABI_VERSION = 1
"""The oldest ``ghl_abi_version()`` that these bindings can use."""

# `ghl_log_callback`. The message is valid until the callback returns; ctypes copies it into bytes.
LogCallback = CFUNCTYPE(None, c_int32, c_char_p, c_void_p)

# `ghl_event_callback`, likewise.
EventCallback = CFUNCTYPE(None, c_char_p, c_void_p)

# `ghl_progress_callback`: returns 0 to continue, anything else to stop.
ProgressCallback = CFUNCTYPE(c_int32, c_char_p, c_void_p)


class StoreCallbacks(Structure):
    """``ghl_store_callbacks``."""

    _fields_ = (
        ("size", c_size_t),
        ("context", c_void_p),
        ("load", CFUNCTYPE(c_int32, c_void_p, c_char_p, POINTER(c_void_p))),
        ("save", CFUNCTYPE(c_int32, c_void_p, c_char_p, c_char_p, c_uint64)),
        ("remove", CFUNCTYPE(c_int32, c_void_p, c_char_p)),
        ("list", CFUNCTYPE(c_int32, c_void_p, c_char_p, POINTER(c_void_p))),
        ("lock", CFUNCTYPE(c_int32, c_void_p, c_char_p, c_uint64)),
        ("unlock", CFUNCTYPE(None, c_void_p, c_char_p)),
        ("free_string", CFUNCTYPE(None, c_void_p, c_void_p)),
        ("destroy", CFUNCTYPE(None, c_void_p)),
    )


_Client = c_void_p
# The caller must return a string to the library to free it. With c_char_p, ctypes would convert it
# to bytes and drop the pointer, so owned strings are plain addresses.
_OwnedString = c_void_p
_Out = POINTER(c_void_p)

# Result and parameter types of every function used, as in include/ghl_oauth.h (a test compares
# them).
SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ghl_abi_version": (c_uint32, ()),
    "ghl_version": (c_char_p, ()),
    "ghl_library_info": (c_int32, (_Out,)),
    "ghl_status_name": (c_char_p, (c_int32,)),
    "ghl_string_free": (None, (_OwnedString,)),
    "ghl_client_new": (c_int32, (c_char_p, _Out, _Out)),
    "ghl_client_new_with_store": (c_int32, (c_char_p, POINTER(StoreCallbacks), _Out, _Out)),
    "ghl_client_free": (None, (_Client,)),
    "ghl_client_cancel": (None, (_Client,)),
    "ghl_call_cancel": (c_int32, (_Client, c_char_p)),
    "ghl_client_stats": (c_int32, (_Client, _Out)),
    "ghl_client_metrics": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_client_on_event": (c_int32, (_Client, EventCallback, c_void_p)),
    "ghl_set_log_callback": (c_int32, (LogCallback, c_void_p, c_int32)),
    "ghl_oauth_token": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_oauth_location_token": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_oauth_installed_locations": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_authorization_url": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_authorization_complete": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_authorization_listen": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_access_token": (c_int32, (_Client, c_char_p, _Out, _Out)),
    "ghl_access_token_into": (c_int32, (_Client, c_char_p, c_void_p, POINTER(c_size_t), _Out)),
    "ghl_access_token_with": (c_int32, (_Client, c_char_p, _Out, _Out)),
    "ghl_access_token_try_into": (c_int32, (_Client, c_char_p, c_void_p, POINTER(c_size_t))),
    "ghl_token_refresh": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_token_refresh_with": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_token_delete": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_tokens_list": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_tokens_import": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_tokens_adopt": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_tokens_export": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_tokens_maintain": (c_int32, (_Client, c_char_p, ProgressCallback, c_void_p, _Out)),
    "ghl_request": (c_int32, (_Client, c_char_p, _Out)),
    "ghl_tokens_mint": (c_int32, (_Client, c_char_p, ProgressCallback, c_void_p, _Out)),
    "ghl_webhook_verify": (c_int32, (_Client, c_char_p, c_size_t, c_char_p, _Out)),
    "ghl_webhook_apply": (c_int32, (_Client, c_char_p, c_size_t, c_char_p, _Out)),
    "ghl_webhook_apply_with": (c_int32, (_Client, c_char_p, c_size_t, c_char_p, c_char_p, _Out)),
}


def _file_name() -> str:
    if sys.platform == "win32":
        return "ghl_oauth.dll"
    if sys.platform == "darwin":
        return "libghl_oauth.dylib"
    return "libghl_oauth.so"


def _path() -> str:
    """The library in a wheel, otherwise the file that ``GHL_OAUTH_LIBRARY`` names.

    The wheel ghl-oauth-postgres takes precedence. System folders are not searched, because they
    could contain another version.
    """
    package = os.path.dirname(os.path.abspath(__file__))
    packaged = os.path.join(package, _file_name())
    with_postgres = os.path.join(os.path.dirname(package), "ghl_oauth_postgres", _file_name())
    for path in (with_postgres, packaged):
        if os.path.isfile(path):
            return path
    named = os.environ.get("GHL_OAUTH_LIBRARY")
    if named:
        return os.path.abspath(named)
    raise ImportError(
        f"the ghl_oauth library was not found: there is no {packaged}, and the environment "
        "variable GHL_OAUTH_LIBRARY, which can name the file, is not set"
    )


def _load(path: str) -> CDLL:
    try:
        # CDLL rather than PyDLL: the GIL is released during a call.
        library = CDLL(path)
    except OSError as error:
        raise ImportError(f"the ghl_oauth library {path} cannot be loaded: {error}") from error
    try:
        library.ghl_abi_version.restype = c_uint32
        abi_version = library.ghl_abi_version()
    except AttributeError as error:
        raise ImportError(
            f"{path} is not the ghl_oauth library: it has no ghl_abi_version"
        ) from error
    if abi_version < ABI_VERSION:
        raise ImportError(
            f"the ghl_oauth library {path} has ABI version {abi_version}, but this package needs "
            f"{ABI_VERSION} or newer"
        )
    for name, (result, parameters) in SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise ImportError(
                f"the ghl_oauth library {path} does not have {name}, which this package needs"
            ) from error
        function.restype = result
        function.argtypes = parameters
    return library


def _check_interpreter() -> None:
    """Refuses interpreters in which the callbacks of ctypes do not work, or are untested."""
    try:
        pythonapi.PyInterpreterState_Get.restype = c_void_p
        pythonapi.PyInterpreterState_GetID.argtypes = [c_void_p]
        pythonapi.PyInterpreterState_GetID.restype = c_int64
        number = pythonapi.PyInterpreterState_GetID(pythonapi.PyInterpreterState_Get())
    except AttributeError:  # not CPython
        number = 0
    if number != 0:
        raise ImportError(
            "ghl_oauth does not work in a sub-interpreter, since ctypes runs callbacks in the main "
            "interpreter: use one process per application (mod_wsgi: WSGIApplicationGroup "
            "%{GLOBAL}; uWSGI: --single-interpreter)"
        )
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise ImportError(
            "ghl_oauth has not been tested on Python without the GIL: set PYTHON_GIL=1"
        )


_check_interpreter()
library = _load(_path())
# The same library for functions that never wait and never call back: the GIL is kept, because
# releasing it takes as long as such a function, and hands it to another thread.
with_gil = PyDLL(library._name, handle=library._handle)


def library_version() -> str:
    """The version of the native library, for instance ``"0.1.0"``."""
    version: bytes = library.ghl_version()
    return version.decode()


def abi_version() -> int:
    """The version of the native library's C interface; it is raised when something is added."""
    version: int = library.ghl_abi_version()
    return version
