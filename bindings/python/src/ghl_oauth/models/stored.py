"""Information about stored tokens."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .._names import Names
from ..errors import GhlError, from_json
from ._fields import moment


class TokenState(str, enum.Enum):
    """The states of a stored token; each equals its string."""

    OK = "ok"
    INACTIVE = "inactive"
    """The location is paused."""
    REAUTHORIZATION_REQUIRED = "reauthorizationRequired"
    """A user must consent again."""
    UNSAVED = "unsaved"
    """Newer than the stored token, because the store failed."""
    UNREADABLE = "unreadable"
    """A deleted record whose contents could not be read, so that only the id is known."""

    def __str__(self) -> str:
        return str.__str__(self)

    def __format__(self, format_spec: str) -> str:
        return str.__format__(self, format_spec)


_STATES: Mapping[str, TokenState] = {state.value: state for state in TokenState}


def _state(state: str | None) -> str:
    return TokenState.OK if not state else _STATES.get(state, state)


@dataclass(frozen=True)
class LastFailure:
    """The last failed renewal of a token; a success ends it."""

    first_at: datetime | None
    """The first failure since the last success (UTC)."""
    at: datetime | None
    """The newest failure (UTC)."""
    attempts: int
    """Failed attempts since the last success. A failed mint is counted about once a minute."""
    status: str
    """The name of the status, such as ``"GHL_ERR_SERVER"``."""
    message: str
    """The server's message if there is one, otherwise the error's; at most 200 bytes."""
    http_status: int | None
    trace_id: str | None
    """The server's id of the request, for the vendor's support."""
    next_attempt_at: datetime | None
    """The earliest time of the next attempt (UTC); None if only a consent or an import helps."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> LastFailure:
        """Reads the library's form."""
        return cls(
            first_at=moment(raw.get("firstAt")),
            at=moment(raw.get("at")),
            attempts=raw.get("attempts", 0),
            status=raw.get("status", ""),
            message=raw.get("message", ""),
            http_status=raw.get("httpStatus"),
            trace_id=raw.get("traceId"),
            next_attempt_at=moment(raw.get("nextAttemptAt")),
            raw=raw,
        )

    @classmethod
    def or_none(cls, raw: Mapping[str, Any] | None) -> LastFailure | None:
        """Reads the library's form, which may be null."""
        return None if raw is None else cls.from_json(raw)


@dataclass(frozen=True)
class TokenInfo:
    """The metadata of a stored token, without its secrets."""

    resource_id: str
    """The company or location that the token is for; pass it to ``Client.access_token``."""
    user_type: str | None
    """``"Company"`` or ``"Location"``."""
    company_id: str | None
    location_id: str | None
    scope: str | None
    """The scopes, separated by spaces."""
    expires_at: datetime | None
    """When the access token expires (UTC); it is renewed before."""
    refreshable: bool
    """Whether it can be renewed without a user: by refresh, or from its company's token."""
    state: str
    """A :class:`TokenState`. A later version of the library may add states; those are strings."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    last_success_at: datetime | None = None
    """When the API last granted a token (UTC); None if that is unknown, as after an import."""
    last_failure: LastFailure | None = None
    """The last failed renewal; None if the last one succeeded."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> TokenInfo:
        """Reads the library's form."""
        return cls(
            resource_id=raw["resourceId"],
            user_type=raw.get("userType"),
            company_id=raw.get("companyId"),
            location_id=raw.get("locationId"),
            scope=raw.get("scope"),
            expires_at=moment(raw.get("expiresAt")),
            refreshable=bool(raw.get("refreshable")),
            state=_state(raw.get("state")),
            raw=raw,
            last_success_at=moment(raw.get("lastSuccessAt")),
            last_failure=LastFailure.or_none(raw.get("lastFailure")),
        )


@dataclass(frozen=True)
class FailedToken:
    """A token that could not be renewed, minted, saved or read."""

    resource_id: str | None
    """None if the error concerns one of the store's keys, and so many tokens."""
    error: GhlError

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], names: Names | None = None) -> FailedToken:
        """Reads the library's form."""
        return cls(resource_id=raw.get("resourceId"), error=from_json(raw["error"], names))
