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
    python_level = _LEVELS.get(level, logging.DEBUG)
    if _logger.isEnabledFor(python_level):
        _logger.log(python_level, "%s", (message or b"").decode("utf-8", "replace"))


def warn(message: str) -> None:
    """A warning of this package's own."""
    _logger.warning("%s", message)


# The library calls it until the process ends, so it must never be collected.
_callback = callback(LogCallback, _forward)
_connected = False


def connect() -> None:
    """Connects the two, once per process.

    Everything is forwarded and :mod:`logging` decides, so that levels that are set later count, too.
    """
    global _connected
    if not _connected:
        _connected = True
        library.ghl_set_log_callback(_callback, None, _TRACE)
        atexit.register(_disconnect)


def _disconnect() -> None:
    """Calls that still run on daemon threads must not enter an interpreter that is going away."""
    library.ghl_set_log_callback(LogCallback(), None, 0)
