"""The library's log, forwarded to :mod:`logging` under ``"ghl_oauth"``.

The fields at the end of a message, ``key=value`` or ``key="JSON string"``, are also the attribute
``ghl`` of the record, a dict of strings and numbers.
"""

from __future__ import annotations

from ._callback import Gate, callback
from ._lazy_module import LazyModule
from ._library import LogCallback, library
from ._logger import logger

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    import json
    import re
    from typing import Any
else:
    json, re = LazyModule("json"), LazyModule("re")

_TRACE = 5
# The numbers of ERROR, WARNING, INFO and DEBUG, and a lower one.
_DEBUG = 10
_LEVELS = {1: 40, 2: 30, 3: 20, 4: _DEBUG, _TRACE: 5}

_FIELD = r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"=]+)'
_FIELDS = rf"(?:{_FIELD})+$"


def fields(message: str) -> dict[str, Any]:
    """The fields at the end of a message of the library."""
    end = re.search(_FIELDS, message)
    found = re.findall(_FIELD, message[end.start() :]) if end else []
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
    _write(_python_level(level), (message or b"").decode("utf-8", "replace"))


def _write(level: int, message: str) -> None:
    found = logger()
    if found is not None and found.isEnabledFor(level):
        found.log(level, "%s", message, extra={"ghl": fields(message)})


def _is_unwanted(level: int, _message: bytes | None, _context: int | None) -> bool:
    found = logger()
    return found is None or not found.isEnabledFor(_python_level(level))


def _python_level(level: int) -> int:
    return _LEVELS.get(level, _DEBUG)


def warn(message: str) -> None:
    """Logs a warning of this package."""
    _write(_LEVELS[2], message)


# The library calls it until the process ends, so it must never be collected.
gate = Gate()
_callback = callback(LogCallback, _forward, unwanted=_is_unwanted, gate=gate)
_connected = False


def connect() -> None:
    """Connects the library's log to :mod:`logging`, once per process.

    All messages are forwarded and :mod:`logging` filters them, so that level changes take effect
    later.
    """
    global _connected
    if not _connected:
        # Noted afterwards, in case a signal or a fork interrupts it. Twice does no harm.
        library.ghl_set_log_callback(_callback, None, _TRACE)
        _connected = True


def disconnect() -> None:
    """Removes the log callback; returns when it does not run any more."""
    if _connected:
        library.ghl_set_log_callback(LogCallback(), None, 0)
