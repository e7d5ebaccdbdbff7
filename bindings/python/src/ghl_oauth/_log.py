"""The library's log, forwarded to :mod:`logging` under ``"ghl_oauth"``."""

from __future__ import annotations

import atexit
import logging

from ._callback import callback
from ._library import LogCallback, library

_logger = logging.getLogger("ghl_oauth")
# Prints nothing in programs that do not configure logging.
_logger.addHandler(logging.NullHandler())

_TRACE = 5
_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG, _TRACE: 5}


def _forward(level: int, message: bytes | None, _context: int | None) -> None:
    _logger.log(_python_level(level), "%s", (message or b"").decode("utf-8", "replace"))


def _is_unwanted(level: int, _message: bytes | None, _context: int | None) -> bool:
    return not _logger.isEnabledFor(_python_level(level))


def _python_level(level: int) -> int:
    return _LEVELS.get(level, logging.DEBUG)


def warn(message: str) -> None:
    """Logs a warning of this package."""
    _logger.warning("%s", message)


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
