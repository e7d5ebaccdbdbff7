"""Output: tables, JSON, errors, colours. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from datetime import datetime, timedelta, timezone

from ..errors import GhlError
from . import status

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, TextIO

    from ..models import FailedToken


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


messages_as_json = False
"""Whether errors and warnings are printed as JSON. Set by the program."""

_MOST_NAMED = 10

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "bold": 1}

STATES = {"ok": "green", "inactive": "yellow", "reauthorizationRequired": "red", "unsaved": "red"}
"""The colours of the states of tokens."""


def prepare() -> None:
    """Prepares the standard streams: text of any language is printed, if necessary escaped."""
    for number in range(3):
        # A closed descriptor would be the next file that is opened, for instance the database.
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def discard_stdout() -> None:
    """Lets nothing more be written to stdout, not even by the interpreter's last flush."""
    _discard(sys.stdout)


def discard_unwritten() -> None:
    """Discards the messages that stderr does not take.

    Otherwise the interpreter's last flush may fail and change the exit status.
    """
    stderr = sys.stderr
    if stderr is None:
        return
    try:
        stderr.flush()
    except (OSError, ValueError):
        _discard(stderr)


def _discard(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def put(text: str, end: str = "\n") -> None:
    """Prints a result on stdout.

    Raises:
        BrokenPipeError: The reader has closed the pipe.
        Refusal: The text cannot be written, for instance because the disk is full.
    """
    if sys.stdout is None:
        raise Refusal("stdout is closed", "redirect stdout to a file, or to /dev/null")
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Refusal(
            f"stdout cannot be written: {error.strerror}",
            "the result is lost: free disk space or use another file, then run the command again",
        ) from None


def say(text: str) -> None:
    """Prints a message on stderr. A stderr that cannot be written is ignored."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def replace_file(path: str, text: str, mode: int) -> None:
    """Replaces a file at once, so that no reader sees a partial one.

    Raises:
        OSError: It cannot be written; the old file is unchanged.
    """
    partial = f"{path}.{os.getpid()}"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(partial, mode)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def stdin() -> TextIO:
    """The standard input.

    Raises:
        Refusal: It is closed.
    """
    if sys.stdin is None:
        raise Refusal("stdin is closed", "run the command with an input", status.USAGE)
    return sys.stdin


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str | None, stream: TextIO | None = None) -> str:
    """Colours a text if its stream is a terminal and ``NO_COLOR`` is not set.

    Args:
        text: The text.
        colour: ``"red"``, ``"green"``, ``"yellow"``, ``"cyan"`` or ``"bold"``; None: no colour.
        stream: The stream on which the text will be printed. Default: stdout.
    """
    stream = sys.stdout if stream is None else stream
    if colour is None or os.environ.get("NO_COLOR") or not is_terminal(stream):
        return text
    if sys.platform == "win32" and "WT_SESSION" not in os.environ:
        return text  # the old console prints the escape codes
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def warn(text: str) -> None:
    """Prints a warning on stderr."""
    if messages_as_json:
        _say_json({"warning": {"message": text}})
        return
    say(f"ghl-oauth: {paint('warning', 'yellow', sys.stderr)}: {plain(text)}")


def show_json(document: Any) -> None:
    """Prints a result as JSON."""
    put(json.dumps(document, indent=2, ensure_ascii=not _writes_unicode(sys.stdout)))


def _writes_unicode(stream: TextIO | None) -> bool:
    return str(getattr(stream, "encoding", "")).lower().replace("_", "-") in ("utf-8", "utf8")


def show_table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], colours: dict[str, str] | None = None
) -> None:
    """Prints a result as a table with aligned columns.

    Args:
        titles: The titles of the columns.
        rows: The cells.
        colours: The colours of cells with these texts.
    """
    table = [list(titles), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    lines = []
    for number, row in enumerate(table):
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        cells[-1] = cells[-1].rstrip()
        if number == 0:
            cells = [paint(cell, "bold") for cell in cells]
        elif colours:
            cells = [
                paint(cell, colours.get(text)) if text in colours else cell
                for cell, text in zip(cells, row)
            ]
        lines.append("  ".join(cells).rstrip())
    put("\n".join(lines))


def show_tokens(tokens: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Prints tokens without their secrets.

    Args:
        tokens: The library's documents. Of an unreadable token, only the id is known.
        as_json: Whether they are printed as JSON.
    """
    if as_json:
        show_json(tokens)
        return
    now = datetime.now(timezone.utc)
    titles = ["RESOURCE", "TYPE", "COMPANY", "STATE", "EXPIRES", "REFRESHABLE"]
    rows = [
        [
            token["resourceId"],
            token.get("userType") or "-",
            token.get("companyId") or "-",
            token.get("state") or "ok",
            moment(expiry(token), now),
            "yes" if token.get("refreshable") else "no",
        ]
        for token in tokens
    ]
    failures = [token.get("lastFailure") for token in tokens]
    if any(failures):
        titles.append("LAST FAILURE")
        for row, failure in zip(rows, failures):
            row.append(_failure(failure, now) if failure else "-")
    show_table(titles, rows, STATES)


def _failure(failure: dict[str, Any], now: datetime) -> str:
    return (
        f"{moment(instant(failure['at']), now)}: {failure.get('message') or failure.get('status')}"
    )


def instant(milliseconds: int) -> datetime:
    """A time in milliseconds since 1970; the nearest one if it is out of range."""
    try:
        return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        edge = datetime.max if milliseconds > 0 else datetime.min
        return edge.replace(tzinfo=timezone.utc)


def expiry(token: Mapping[str, Any]) -> datetime | None:
    """When the access token of a stored token expires; None if unknown."""
    at = token.get("expiresAt")
    return None if at is None else instant(at)


def is_never(at: datetime) -> bool:
    """Whether a time means that a token does not expire."""
    return at.year == datetime.max.year


def moment(at: datetime | None, now: datetime) -> str:
    """A time, with its distance from now."""
    if at is None:
        return "-"
    if is_never(at):
        return "never"
    seconds = int((at - now).total_seconds())
    if seconds == 0:
        return f"{at:%Y-%m-%d %H:%M}Z (now)"
    distance = duration(abs(seconds))
    return f"{at:%Y-%m-%d %H:%M}Z " + (f"(in {distance})" if seconds >= 0 else f"({distance} ago)")


def duration(seconds: int) -> str:
    """A duration in its largest unit."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _say_json(document: Any) -> None:
    say(json.dumps(document, ensure_ascii=not _writes_unicode(sys.stderr)))


def show_error(error: GhlError | Refusal) -> None:
    """Prints an error: the cause, the resource, and what to do."""
    if isinstance(error, Refusal):
        error = GhlError({"message": error.message, "help": error.help})
    if messages_as_json:
        _say_json({"error": {**error.raw, "message": error.message, "help": error.help}})
        return
    say(f"{paint('ghl-oauth:', 'red', sys.stderr)} {plain(error.message)}")
    if error.resource_id:
        say(f"  resource: {plain(error.resource_id)}")
    if error.parameter:
        say(f"  parameter: {plain(error.parameter)}")
    server = error.raw.get("server")
    if server:
        say(f"  server: {plain(str(server))}")
    if error.help:
        say(f"  help: {plain(error.help)}")
    if error.sent and error.http_status is None:
        say("  sent: the server may have acted on the request")
    if error.retry_after is not None:
        say(f"  try again after: {duration(round(error.retry_after))}")
    if error.trace_id:
        say(f"  trace ID, for the vendor's support: {plain(error.trace_id)}")


def show_failed(failed: Iterable[FailedToken]) -> None:
    """Prints the errors of individual tokens, each with its resource."""
    for failure in failed:
        error = GhlError(
            {**failure.error.raw, "resourceId": failure.resource_id or failure.error.resource_id}
        )
        show_error(error)


def size(count: int) -> str:
    """A number of bytes in its largest unit."""
    for limit, unit in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} bytes"


def names(ids: Sequence[str]) -> str:
    """A list of ids, shortened."""
    more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
    return ", ".join(ids[:_MOST_NAMED]) + more


def arrow() -> str:
    """The sign before a cure."""
    return "→" if _writes_unicode(sys.stdout) else "->"


def plain(text: str) -> str:
    """Replaces control characters, so that untrusted text cannot control the terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
