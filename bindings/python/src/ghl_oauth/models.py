"""What the calls return: frozen dataclasses, each with the library's whole document in ``raw``.

Fields that the API adds later are in ``raw`` at once, under the API's own camelCase names. No ``repr`` shows a secret.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from .errors import GhlError, from_json

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)


def _moment(epoch_ms: int | None) -> datetime | None:
    if epoch_ms is None:
        return None
    try:
        return _EPOCH + epoch_ms * _MILLISECOND
    except OverflowError:
        # An import may contain any expiry time; one out-of-range record must not make a list
        # unreadable.
        edge = datetime.max if epoch_ms > 0 else datetime.min
        return edge.replace(tzinfo=timezone.utc)


def flag(value: bool | str | None) -> bool | None:
    """A boolean of the API's, which has been seen to send some as strings."""
    return None if value is None else value in (True, "true")


def _text(value: Any) -> str | None:
    """A text of the API's, or None for whatever else it sent."""
    return value if isinstance(value, str) else None


@dataclass(frozen=True)
class Token:
    """A token with its secrets. ``repr`` leaves them and ``raw`` out."""

    access_token: str | None = field(repr=False)
    """The bearer token; None only in an export of a token whose access token was never known."""
    refresh_token: str | None = field(repr=False)
    """Single use; None where the API gave none."""
    expires_at: datetime | None
    """When the access token dies (UTC)."""
    user_type: str | None
    """``"Company"`` or ``"Location"``, by the API's answer."""
    company_id: str | None
    location_id: str | None
    scope: str | None
    """The scopes, separated by spaces."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Token:
        """Reads the library's form."""
        return cls(
            access_token=raw.get("accessToken"),
            refresh_token=raw.get("refreshToken"),
            expires_at=_moment(raw.get("expiresAt")),
            user_type=raw.get("userType"),
            company_id=raw.get("companyId"),
            location_id=raw.get("locationId"),
            scope=raw.get("scope"),
            raw=raw,
        )

    def to_json(self) -> dict[str, Any]:
        """The library's form, as ``Client.tokens_import`` takes it: ``raw``, with this object's fields over it."""
        fields = {
            "accessToken": self.access_token,
            "refreshToken": self.refresh_token,
            "expiresAt": None if self.expires_at is None else (self.expires_at - _EPOCH) // _MILLISECOND,
            "userType": self.user_type,
            "companyId": self.company_id,
            "locationId": self.location_id,
            "scope": self.scope,
        }
        document = {**self.raw, **fields}
        return {key: value for key, value in document.items() if value is not None}


@dataclass(frozen=True)
class TokenInfo:
    """What is known about a stored token, without its secrets."""

    resource_id: str
    """The company or location that the token opens; what ``Client.access_token`` takes."""
    user_type: str | None
    """``"Company"`` or ``"Location"``."""
    company_id: str | None
    location_id: str | None
    scope: str | None
    """The scopes, separated by spaces."""
    expires_at: datetime | None
    """When the access token dies (UTC); it is renewed before."""
    refreshable: bool
    """Whether it can be renewed without a person: by a refresh token, or, a location's, from its company's token."""
    state: str
    """``"ok"``; ``"inactive"``: the location is paused; ``"reauthorizationRequired"``: a person must consent again;
    ``"unsaved"``: newer than what the store holds, because the store failed; ``"unreadable"``: a deleted record whose
    contents could not be read, of which only the id is known. A later version of the library may add states."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> TokenInfo:
        """Reads the library's form."""
        return cls(
            resource_id=raw["resourceId"],
            user_type=raw.get("userType"),
            company_id=raw.get("companyId"),
            location_id=raw.get("locationId"),
            scope=raw.get("scope"),
            expires_at=_moment(raw.get("expiresAt")),
            refreshable=bool(raw.get("refreshable")),
            state=raw.get("state") or "ok",
            raw=raw,
        )


@dataclass(frozen=True)
class Location:
    """A location of a company, as the list of installed locations has it."""

    id: str
    name: str | None
    address: str | None
    is_installed: bool | None
    """Whether the app is installed there; None where the API does not say."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Location:
        """Reads the API's form."""
        return cls(
            id=raw["_id"],
            name=_text(raw.get("name")),
            address=_text(raw.get("address")),
            is_installed=flag(raw.get("isInstalled")),
            raw=raw,
        )

    @classmethod
    def all_of(cls, items: Any) -> list[Location]:
        """Reads a list of the API's. What is no object, or has no id, is no location that a call could name."""
        objects = (item for item in items if isinstance(item, dict)) if isinstance(items, list) else ()
        return [cls.from_json(item) for item in objects if _text(item.get("_id"))]


@dataclass(frozen=True)
class AuthorizationUrl:
    """Where to send a person for consent."""

    url: str = field(repr=False)
    state: str = field(repr=False)
    """What the redirect will carry; keep it with the browser's session when another process may complete it."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> AuthorizationUrl:
        """Reads the library's form."""
        return cls(url=raw["url"], state=raw["state"], raw=raw)


@dataclass(frozen=True)
class SkippedToken:
    """A token that an import left out."""

    index: int
    """Its place among the tokens given."""
    resource_id: str | None
    """Whose token it is, where it says so."""
    reason: str


@dataclass(frozen=True)
class ImportResult:
    """What became of an import."""

    imported: int
    """How many tokens were stored."""
    skipped: tuple[SkippedToken, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ImportResult:
        """Reads the library's form."""
        skipped = (
            SkippedToken(index=skip["index"], resource_id=skip.get("resourceId"), reason=skip["reason"])
            for skip in raw["skipped"]
        )
        return cls(imported=raw["imported"], skipped=tuple(skipped), raw=raw)


@dataclass(frozen=True)
class MaintenanceProgress:
    """How far a maintenance pass is."""

    checked: int
    """How many tokens were due and are done."""
    refreshed: int
    failed: int
    resealed: int
    """How many were sealed with the first of the store's keys, because another had sealed them, or none."""
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
class FailedToken:
    """A token that could not be renewed, minted, saved or read."""

    resource_id: str | None
    """None where the error concerns a key of the store, and so many tokens."""
    error: GhlError

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> FailedToken:
        """Reads the library's form."""
        return cls(resource_id=raw.get("resourceId"), error=from_json(raw["error"]))


@dataclass(frozen=True)
class Maintenance:
    """What a maintenance pass did."""

    checked: int
    """How many tokens were due."""
    refreshed: int
    """How many of them were renewed."""
    resealed: int
    """How many were sealed with the first of the store's keys, because another had sealed them, or none."""
    unsealed: int
    """How many should have been, and could not be opened, or changed meanwhile."""
    failed: tuple[FailedToken, ...]
    """Tokens that could not be renewed, and new tokens that the store still refuses."""
    next_due_at: datetime | None
    """When there will be something to do again (UTC); None where nothing is held that can be renewed."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Maintenance:
        """Reads the library's form."""
        failed = (FailedToken.from_json(failure) for failure in raw["failed"])
        return cls(
            checked=raw["checked"],
            refreshed=raw["refreshed"],
            resealed=raw["resealed"],
            unsealed=raw["unsealed"],
            failed=tuple(failed),
            next_due_at=_moment(raw.get("nextDueAt")),
            raw=raw,
        )


@dataclass(frozen=True)
class MintProgress:
    """How far the minting of many locations is."""

    done: int
    """How many locations have a token now."""
    failed: int
    total: int | None
    """How many there are; None as long as that is not known."""
    per_second: float
    """How many were worked on per second; those that had a token already do not count."""
    seconds_left: int | None
    """How long the rest will take; None as long as that cannot be said."""
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
    """What the minting of many locations came to."""

    total: int
    """How many locations were looked at."""
    minted: int
    """How many got a new token."""
    fresh: int
    """How many had a token that was not due."""
    failed: tuple[FailedToken, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Minting:
        """Reads the library's form."""
        failed = (FailedToken(failure["locationId"], from_json(failure["error"])) for failure in raw["failed"])
        return cls(total=raw["total"], minted=raw["minted"], fresh=raw["fresh"], failed=tuple(failed), raw=raw)


@dataclass(frozen=True)
class Response:
    """The API's answer to a request, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: Any = field(repr=False)
    """JSON where the answer calls itself that and is; else a text where it is UTF-8; else bytes."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether the status is that of a success."""
        return 200 <= self.status < 300

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Response:
        """Reads the library's form."""
        body = raw["body"]
        if raw["bodyEncoding"] == "base64":
            body = base64.b64decode(body)
        return cls(status=raw["status"], headers=raw["headers"], body=body, raw=raw)


@dataclass(frozen=True)
class Webhook:
    """A delivery whose signature holds."""

    type: str | None
    """``"INSTALL"``, ``"ContactCreate"`` and so on."""
    webhook_id: str | None
    """The same for every repetition of a delivery."""
    timestamp: datetime | None
    """When it happened (UTC), where it says so."""
    scheme: str
    """``"ed25519"`` or ``"rsa-sha256"``."""
    key_index: int
    """The place of the key that fits among the configured ones of its scheme."""
    payload: Mapping[str, Any] = field(repr=False)
    """The parsed body."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Webhook:
        """Reads the library's form."""
        return cls(
            type=raw["type"],
            webhook_id=raw["webhookId"],
            timestamp=_moment(raw["timestampMs"]),
            scheme=raw["scheme"],
            key_index=raw["keyIndex"],
            payload=raw["payload"],
            raw=raw,
        )


@dataclass(frozen=True)
class WebhookOutcome:
    """What a delivery did to the tokens."""

    type: str | None
    resource_id: str | None
    """The location's or the company's id, where it names one."""
    applied: bool
    reason: str | None
    """Why it was not applied, or what is still to come."""
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
    """Something that happened to a token; holds ids and times, never a secret."""

    type: str
    """``"token.saved"`` (by consent or import), ``"token.refreshed"``, ``"token.minted"`` (a location's, from its
    company's), ``"token.deleted"``, ``"token.reauthorizationRequired"`` (a person must consent again),
    ``"token.refreshFailed"``, or ``"token.unsaved"`` (the store failed, and the new token is in memory only)."""
    resource_id: str
    at: datetime | None
    """When it happened (UTC)."""
    expires_at: datetime | None
    """When the token dies (UTC); None where there is none."""
    error: GhlError | None
    """The reason, where something failed."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Event:
        """Reads the library's form."""
        error = raw.get("error")
        return cls(
            type=raw["type"],
            resource_id=raw["resourceId"],
            at=_moment(raw.get("at")),
            expires_at=_moment(raw.get("expiresAt")),
            error=None if error is None else from_json(error),
            raw=raw,
        )
