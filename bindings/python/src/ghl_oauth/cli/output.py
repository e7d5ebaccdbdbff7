"""Output: tables, JSON, errors, progress bar. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from ..errors import GhlError
from ..models import FailedToken, MintProgress, TokenInfo
from . import status


class Refusal(Exception):
    """An error of the command line rather than of the library, with its exit status."""

    def __init__(
        self, message: str, help_text: str | None = None, exit_status: int = status.ERROR
    ) -> None:
        super().__init__(message)
        self.message = message
        self.help = help_text
        self.exit_status = exit_status


class Unsaved(Exception):
    """New tokens that the store did not save, with an error for each."""

    def __init__(self, errors: Sequence[GhlError]) -> None:
        super().__init__()
        self.errors = errors


def say(text: str) -> None:
    """Prints a message on stderr."""
    print(text, file=sys.stderr, flush=True)


def show_json(document: Any) -> None:
    """Prints a result as JSON."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def show_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a result as a table with aligned columns."""
    table = [list(titles), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def show_tokens(tokens: Iterable[TokenInfo], as_json: bool) -> None:
    """Prints tokens without their secrets."""
    if as_json:
        show_json([dict(token.raw) for token in tokens])
        return
    now = datetime.now(timezone.utc)
    show_table(
        ("RESOURCE", "TYPE", "COMPANY", "STATE", "EXPIRES", "REFRESHABLE"),
        (
            (
                token.resource_id,
                token.user_type or "-",
                token.company_id or "-",
                token.state,
                moment(token.expires_at, now),
                "yes" if token.refreshable else "no",
            )
            for token in tokens
        ),
    )


def moment(at: datetime | None, now: datetime) -> str:
    """A time, with its distance from now."""
    if at is None:
        return "-"
    seconds = int((at - now).total_seconds())
    distance = duration(abs(seconds))
    return f"{at:%Y-%m-%d %H:%M}Z " + (f"(in {distance})" if seconds >= 0 else f"({distance} ago)")


def duration(seconds: int) -> str:
    """A duration in its largest unit."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def show_error(error: GhlError | Refusal, as_json: bool) -> None:
    """Prints an error: the cause, the resource, and what to do."""
    if isinstance(error, Refusal):
        error = GhlError({"message": error.message, "help": error.help})
    if as_json:
        say(
            json.dumps(
                {"error": {**error.raw, "message": error.message, "help": error.help}},
                ensure_ascii=False,
            )
        )
        return
    say(f"ghl-oauth: {plain(error.message)}")
    if error.resource_id:
        say(f"  resource: {plain(error.resource_id)}")
    if error.parameter:
        say(f"  parameter: {plain(error.parameter)}")
    if error.help:
        say(f"  help: {plain(error.help)}")
    if error.sent:
        say("  sent: the server may have acted on the request")
    if error.retry_after is not None:
        say(f"  try again after: {duration(round(error.retry_after))}")
    if error.trace_id:
        say(f"  trace ID, for the vendor's support: {plain(error.trace_id)}")


def show_failed(failed: Iterable[FailedToken], as_json: bool) -> None:
    """Prints the errors of individual tokens, each with its resource."""
    for failure in failed:
        error = GhlError(
            {**failure.error.raw, "resourceId": failure.resource_id or failure.error.resource_id}
        )
        show_error(error, as_json)


def plain(text: str) -> str:
    """Replaces control characters, so that untrusted text cannot control the terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


class Bar:
    """A progress bar on one line of a terminal; prints nothing if stderr is not a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._width = 0

    def __call__(self, progress: MintProgress) -> None:
        """Draws the progress."""
        if not self._shown:
            return
        done = progress.done + progress.failed
        if progress.total:
            filled = 30 * done // progress.total
            line = f"[{'#' * filled}{'.' * (30 - filled)}] {done}/{progress.total}"
        else:
            line = f"{done} locations"
        line += f"  {progress.per_second:.1f}/s"
        if progress.failed:
            line += f"  {progress.failed} failed"
        if progress.seconds_left is not None:
            line += f"  {duration(progress.seconds_left)} left"
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = len(line)

    def end(self) -> None:
        """Ends the line."""
        if self._width:
            sys.stderr.write("\n")
            self._width = 0
