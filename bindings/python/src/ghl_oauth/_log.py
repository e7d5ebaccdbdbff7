"""The library's log, forwarded to :mod:`logging` under ``"ghl_oauth"``.

The fields at the end of a message, ``key=value`` or ``key="JSON string"``, are also the attribute
``ghl`` of the record, a dict of strings and numbers.
"""

from __future__ import annotations

import atexit
import json
import logging
import re
from typing import Any

from ._callback import callback
from ._library import LogCallback, library

_logger = logging.getLogger("ghl_oauth")
# Prints nothing in programs that do not configure logging.
_logger.addHandler(logging.NullHandler())

_TRACE = 5
_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG, _TRACE: 5}


_FIELD = re.compile(r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"=]+)')
_FIELDS = re.compile(rf"(?:{_FIELD.pattern})+$")


def fields(message: str) -> dict[str, Any]:
    """The fields at the end of a message of the library."""
    end = _FIELDS.search(message)
    found = _FIELD.findall(message, end.start()) if end else []
    return {key: _value(text) for key, text in found}


def _value(text: str) -> Any:
    if text.isdecimal():
        return int(text)
    if text in ("true", "false"):
        return text == "true"
    try:
        return json.loads(text) if text.startswith('"') else text
    except ValueError:
        return text


def _forward(level: int, message: bytes | None, _context: int | None) -> None:
    text = (message or b"").decode("utf-8", "replace")
    _logger.log(_python_level(level), "%s", text, extra={"ghl": fields(text)})


def _is_unwanted(level: int, _message: bytes | None, _context: int | None) -> bool:
    return not _logger.isEnabledFor(_python_level(level))


def _python_level(level: int) -> int:
    return _LEVELS.get(level, logging.DEBUG)


def warn(message: str) -> None:
    """Logs a warning of this package."""
    _logger.warning("%s", message, extra={"ghl": fields(message)})


# The library calls it until the process ends, so it must never be collected.
_callback = callback(LogCallback, _forward, unwanted=_is_unwanted)
_connected = False


def connect() -> None:
    """Connects the library's log to :mod:`logging`, once per process.

    All messages are forwarded and :mod:`logging` filters them, so that level changes take effect
    later.
    """
    global _connected
    if not _connected:
        _connected = True
        library.ghl_set_log_callback(_callback, None, _TRACE)
        atexit.register(_disconnect)


def _disconnect() -> None:
    """Prevents calls on daemon threads from entering an interpreter that is shutting down."""
    library.ghl_set_log_callback(LogCallback(), None, 0)
