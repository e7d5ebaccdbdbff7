"""The result of an import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SkippedToken:
    """A token that an import skipped."""

    index: int
    """Its index in the given tokens."""
    resource_id: str | None
    """The company or location, if the token names one."""
    reason: str


@dataclass(frozen=True)
class AcceptedToken:
    """A token that an import would store."""

    index: int
    """Its index in the list that was passed."""
    resource_id: str
    replaces: bool
    """Whether a token is stored already."""


@dataclass(frozen=True)
class ImportResult:
    """The result of an import."""

    imported: int
    """How many tokens were stored, or would be."""
    skipped: tuple[SkippedToken, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    accepted: tuple[AcceptedToken, ...] = ()
    """The tokens that would be stored, if the import was a dry run."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ImportResult:
        """Reads the library's form."""
        skipped = (
            SkippedToken(
                index=skip["index"], resource_id=skip.get("resourceId"), reason=skip["reason"]
            )
            for skip in raw["skipped"]
        )
        accepted = (
            AcceptedToken(token["index"], token["resourceId"], token["replaces"])
            for token in raw.get("accepted", ())
        )
        return cls(
            imported=raw["imported"], skipped=tuple(skipped), raw=raw, accepted=tuple(accepted)
        )
