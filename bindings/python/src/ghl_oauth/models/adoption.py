"""The result of an adoption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._names import Names
from .stored import FailedToken


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
