"""The library's log on stderr: as text, or as a line of JSON for each record."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import TextIO

from .output import plain


class JsonLines(logging.Formatter):
    """A JSON object per line: ``time`` (UTC), ``level``, ``logger``, ``message``, and fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = datetime.fromtimestamp(record.created, timezone.utc)
        message = record.getMessage()
        fields = getattr(record, "ghl", None) or {}
        if fields:
            # As text, the message ends with the fields.
            message = message.partition(f" {next(iter(fields))}=")[0]
        line = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        for name, value in fields.items():
            line.setdefault(name, value)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """One line of text per record, which cannot control the terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line."""
        return plain(super().formatMessage(record))


def begin(stream: TextIO | None, verbosity: int, as_json: bool) -> None:
    """Prints the log on a stream.

    Args:
        stream: Usually stderr.
        verbosity: 0: warnings and errors; 1: also changes to tokens; 2: also requests.
        as_json: Lines of JSON instead of text.
    """
    handler: logging.Handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if as_json else TextLines())
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logging.basicConfig(handlers=[handler], level=levels[min(verbosity, 2)])
