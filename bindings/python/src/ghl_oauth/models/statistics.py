"""The statistics of a client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ._fields import MILLISECOND


@dataclass(frozen=True)
class RequestStatistics:
    """The requests of a client."""

    sent: int
    """Attempts, including repetitions."""
    repeated: int
    """Attempts that were repetitions."""
    unanswered: int
    """Attempts without a response."""
    rate_limited: int
    """Responses with status 429."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> RequestStatistics:
        """Reads the library's form."""
        return cls(
            sent=raw["sent"],
            repeated=raw["repeated"],
            unanswered=raw["unanswered"],
            rate_limited=raw["rateLimited"],
        )


@dataclass(frozen=True)
class TokenStatistics:
    """The tokens of a client."""

    in_memory: int
    """The access tokens in memory now."""
    unsaved: int
    """The new tokens that the store has not accepted yet."""
    refreshed: int
    """Successful refreshes."""
    minted: int
    """Location tokens minted."""
    failed: int
    """Failed refreshes and mints."""
    failed_by_status: Mapping[str, int]
    """The same by :attr:`GhlError.status`, without zeros."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> TokenStatistics:
        """Reads the library's form."""
        return cls(
            in_memory=raw["inMemory"],
            unsaved=raw["unsaved"],
            refreshed=raw["refreshed"],
            minted=raw["minted"],
            failed=raw["failed"],
            failed_by_status=raw["failedByStatus"],
        )


@dataclass(frozen=True)
class BusyResource:
    """The rate limiter's state for a company or location."""

    resource_id: str
    in_window: int
    """Requests in the current window."""
    requests: int
    """The number of requests allowed per window."""
    window: timedelta
    """The length of the window."""
    today: int
    per_day: int
    """The number of requests allowed per day."""
    waiting: int
    """The calls that wait."""
    held_for: timedelta | None
    """How long the last 429 still blocks requests."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> BusyResource:
        """Reads the library's form."""
        held_for = raw["heldForMs"]
        return cls(
            resource_id=raw["resourceId"],
            in_window=raw["inWindow"],
            requests=raw["requests"],
            window=raw["perMs"] * MILLISECOND,
            today=raw["today"],
            per_day=raw["perDay"],
            waiting=raw["waiting"],
            held_for=None if held_for is None else held_for * MILLISECOND,
        )


@dataclass(frozen=True)
class RateLimiterStatistics:
    """The state of a client's rate limiter."""

    resources: int
    """The companies and locations that it tracks."""
    waiting: int
    """The calls that wait for it now."""
    held: int
    """The companies and locations that a 429 blocks now."""
    busiest: tuple[BusyResource, ...]
    """At most 20 companies and locations: blocked ones first, then the busiest."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> RateLimiterStatistics:
        """Reads the library's form."""
        return cls(
            resources=raw["resources"],
            waiting=raw["waiting"],
            held=raw["held"],
            busiest=tuple(map(BusyResource.from_json, raw["busiest"])),
        )


@dataclass(frozen=True, eq=False)
class Statistics(dict[str, Any]):
    """Statistics of a client in this process, since the client was created.

    Also a dict, with the library's whole document.
    """

    version: str
    """The version of the library."""
    requests: RequestStatistics
    tokens: TokenStatistics
    pace: RateLimiterStatistics
    raw: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        """Fills the dict."""
        self.update(self.raw)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Statistics:
        """Reads the library's form."""
        return cls(
            version=raw["version"],
            requests=RequestStatistics.from_json(raw["requests"]),
            tokens=TokenStatistics.from_json(raw["tokens"]),
            pace=RateLimiterStatistics.from_json(raw["pace"]),
            raw=raw,
        )
