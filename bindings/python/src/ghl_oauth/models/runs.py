"""The results and the progress of mints and maintenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .._names import Names
from ..errors import from_json
from ._fields import moment
from .stored import FailedToken


@dataclass(frozen=True)
class MaintenanceProgress:
    """The progress of a maintenance pass."""

    checked: int
    """The number of due tokens processed so far."""
    refreshed: int
    failed: int
    resealed: int
    """The number of records encrypted with the first of the store's keys that were not before."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> MaintenanceProgress:
        """Reads the library's form."""
        return cls(
            checked=raw["checked"],
            refreshed=raw["refreshed"],
            failed=raw["failed"],
            resealed=raw["resealed"],
            raw=raw,
        )


@dataclass(frozen=True)
class Maintenance:
    """The result of a maintenance pass."""

    checked: int
    """The number of tokens that were due."""
    refreshed: int
    """The number of tokens that were renewed."""
    resealed: int
    """The number of records encrypted with the first of the store's keys that were not before."""
    unsealed: int
    """The number of records that could not be encrypted: unreadable, or changed meanwhile."""
    failed: tuple[FailedToken, ...]
    """Tokens that could not be renewed, and new tokens that the store still refuses."""
    next_due_at: datetime | None
    """When the next token is due (UTC); None if the store holds no renewable token."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], names: Names | None = None) -> Maintenance:
        """Reads the library's form."""
        failed = (FailedToken.from_json(failure, names) for failure in raw["failed"])
        return cls(
            checked=raw["checked"],
            refreshed=raw["refreshed"],
            resealed=raw["resealed"],
            unsealed=raw["unsealed"],
            failed=tuple(failed),
            next_due_at=moment(raw.get("nextDueAt")),
            raw=raw,
        )


@dataclass(frozen=True)
class MintProgress:
    """The progress of minting."""

    done: int
    """The number of locations that have a token now."""
    failed: int
    total: int | None
    """The number of locations; None while unknown."""
    per_second: float
    """Locations processed per second, except locations that already had a token."""
    seconds_left: int | None
    """The estimated time left; None while unknown."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> MintProgress:
        """Reads the library's form."""
        return cls(
            done=raw["done"],
            failed=raw["failed"],
            total=raw.get("total"),
            per_second=raw["perSecond"],
            seconds_left=raw.get("secondsLeft"),
            raw=raw,
        )


@dataclass(frozen=True)
class Minting:
    """The result of minting."""

    total: int
    """The number of locations processed."""
    minted: int
    """The number of new tokens."""
    fresh: int
    """The number of locations whose token was not due."""
    failed: tuple[FailedToken, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], names: Names | None = None) -> Minting:
        """Reads the library's form."""
        failed = (
            FailedToken(failure["locationId"], from_json(failure["error"], names))
            for failure in raw["failed"]
        )
        return cls(
            total=raw["total"],
            minted=raw["minted"],
            fresh=raw["fresh"],
            failed=tuple(failed),
            raw=raw,
        )
