"""Webhooks and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .._names import Names
from ..errors import GhlError, from_json
from ._fields import moment
from .stored import LastFailure


@dataclass(frozen=True)
class Webhook:
    """A delivery with a valid signature."""

    type: str | None
    """``"INSTALL"``, ``"ContactCreate"`` and so on."""
    webhook_id: str | None
    """The id of the delivery; repetitions have the same id."""
    timestamp: datetime | None
    """When it happened (UTC), or None."""
    scheme: str
    """``"ed25519"`` or ``"rsa-sha256"``."""
    key_index: int
    """The index of the matching key among the configured keys of its scheme."""
    payload: Mapping[str, Any] = field(repr=False)
    """The parsed body."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Webhook:
        """Reads the library's form."""
        return cls(
            type=raw["type"],
            webhook_id=raw["webhookId"],
            timestamp=moment(raw["timestampMs"]),
            scheme=raw["scheme"],
            key_index=raw["keyIndex"],
            payload=raw["payload"],
            raw=raw,
        )


@dataclass(frozen=True)
class WebhookOutcome:
    """The effect of a delivery on the tokens."""

    type: str | None
    resource_id: str | None
    """The id of the location or company, or None."""
    applied: bool
    reason: str | None
    """Why it was not applied, or what remains to be done."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> WebhookOutcome:
        """Reads the library's form."""
        return cls(
            type=raw["type"],
            resource_id=raw["resourceId"],
            applied=raw["applied"],
            reason=raw.get("reason"),
            raw=raw,
        )


@dataclass(frozen=True)
class Event:
    """A change of a token; contains ids and times, never a secret."""

    type: str
    """``"token.saved"`` (by consent or import), ``"token.refreshed"``, ``"token.minted"`` (a
    location's, from its company's), ``"token.deleted"``, ``"token.reauthorizationRequired"`` (a
    user must consent again), ``"token.refreshFailed"``, or ``"token.unsaved"`` (the store failed;
    the new token is only in memory)."""
    resource_id: str
    at: datetime | None
    """When it happened (UTC)."""
    expires_at: datetime | None
    """When the token expires (UTC), or None."""
    error: GhlError | None
    """The failure, or None."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    last_failure: LastFailure | None = None
    """For ``"token.refreshFailed"`` and ``"token.reauthorizationRequired"``: the failure as the
    list of tokens shows it."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], names: Names | None = None) -> Event:
        """Reads the library's form."""
        error = raw.get("error")
        return cls(
            type=raw["type"],
            resource_id=raw["resourceId"],
            at=moment(raw.get("at")),
            expires_at=moment(raw.get("expiresAt")),
            error=None if error is None else from_json(error, names),
            raw=raw,
            last_failure=LastFailure.or_none(raw.get("lastFailure")),
        )
