"""Conversions between the library's JSON and Python's values."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MILLISECOND = timedelta(milliseconds=1)


def moment(epoch_ms: int | None) -> datetime | None:
    if epoch_ms is None:
        return None
    try:
        return EPOCH + epoch_ms * MILLISECOND
    except OverflowError:
        # An import may contain any expiry time; one out-of-range record must not make a list
        # unreadable.
        edge = datetime.max if epoch_ms > 0 else datetime.min
        return edge.replace(tzinfo=timezone.utc)


def epoch_ms(moment: datetime | None) -> int | None:
    """A time in milliseconds since the epoch. Without a time zone it is local."""
    return None if moment is None else (moment.astimezone(timezone.utc) - EPOCH) // MILLISECOND


def flag(value: bool | str | None) -> bool | None:
    """A boolean from the API, which sends some as strings."""
    return None if value is None else value in (True, "true")


def text(value: Any) -> str | None:
    """A string from the API, or None for a value of another type."""
    return value if isinstance(value, str) else None


def body(response: Mapping[str, Any]) -> Any:
    """The body of a response: parsed JSON, a string or bytes."""
    if response["bodyEncoding"] != "base64":
        return response["body"]
    import base64  # imported here because only few responses need it

    return base64.b64decode(response["body"])
