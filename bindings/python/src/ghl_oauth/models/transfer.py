"""The results of imports and adoptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._names import Names
from .tokens import FailedToken


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


@dataclass(frozen=True)
class OtherClient:
    """Another client id that has tokens in the same database."""

    client_id: str
    tokens: int
    """The number of its tokens."""


@dataclass(frozen=True)
class UnadoptedToken:
    """A token that an adoption skipped."""

    resource_id: str
    reason: str


@dataclass(frozen=True)
class Adoption:
    """The report of an adoption."""

    adopted: int
    """The number of tokens that were moved."""
    skipped: tuple[UnadoptedToken, ...]
    failed: tuple[FailedToken, ...]
    """Stored tokens that cannot be read."""
    clients: tuple[OtherClient, ...]
    """The other client ids that have tokens in the database now, 100 at most."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], names: Names | None = None) -> Adoption:
        """Reads the library's form."""
        return cls(
            adopted=raw["adopted"],
            skipped=tuple(
                UnadoptedToken(skip["resourceId"], skip["reason"]) for skip in raw["skipped"]
            ),
            failed=tuple(FailedToken.from_json(failure, names) for failure in raw["failed"]),
            clients=tuple(
                OtherClient(client["clientId"], client["tokens"]) for client in raw["clients"]
            ),
            raw=raw,
        )
