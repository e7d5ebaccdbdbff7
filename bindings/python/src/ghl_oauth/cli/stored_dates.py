"""Reads dates and numbers as other programs store them."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d)?(?:[.,](\d{1,9}))?)?"
    r"\s*(?:Z|z|UTC|GMT|([+-]\d\d)(?::?(\d\d))?)?",
    re.ASCII,
)
_RFC_2822 = re.compile(
    r"(?:[A-Z][a-z]{2}, *)?\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d(?::\d\d)? (?:GMT|UTC|[+-]\d{4})",
    re.ASCII,
)


def number(value: Any) -> int | None:
    """The integer part of a number, which may be written as text."""
    try:
        return None if isinstance(value, bool) else int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def milliseconds(value: Any) -> int | None:
    """A time in milliseconds since the epoch.

    From a number, a date of ISO 8601, PostgreSQL or RFC 2822, or PHP's DateTime. Without a time
    zone, it is in UTC.
    """
    if isinstance(value, dict):
        if "milliseconds" in value:  # MongoDB\\BSON\\UTCDateTime
            return number(value["milliseconds"])
        return milliseconds(_php_date(value))
    if isinstance(value, str):
        found = _ISO.fullmatch(value.strip())
        if found:
            day, clock, seconds, fraction, hours, minutes = found.groups()
            zone = f"{hours or '+00'}:{minutes or '00'}"
            try:
                moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}{seconds or ':00'}{zone}")
            except ValueError:
                return None
            return round(moment.timestamp()) * 1000 + int((fraction or "0").ljust(3, "0")[:3])
        if _RFC_2822.fullmatch(value.strip()):
            try:
                moment = email.utils.parsedate_to_datetime(value)
            except (TypeError, ValueError):
                return None
            # The zone -0000 is read as none.
            return round(moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()) * 1000
    moment_ms = number(value)
    # Before 1973 in milliseconds: it is in seconds.
    is_in_seconds = moment_ms is not None and 0 < moment_ms < 100_000_000_000
    return 1000 * moment_ms if moment_ms is not None and is_in_seconds else moment_ms


def _php_date(value: Mapping[str, Any]) -> str | None:
    """The text of PHP's DateTime, if its time zone needs no database of zones."""
    date, zone = value.get("date"), value.get("timezone")
    if not isinstance(date, str) or not isinstance(zone, str):
        return None
    if zone in ("UTC", "Z", "GMT"):
        return date + "Z"
    return date + zone if zone[:1] in ("+", "-") else None
