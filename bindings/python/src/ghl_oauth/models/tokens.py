"""Tokens with their secrets, and the URL of a consent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ._fields import EPOCH, MILLISECOND, moment


@dataclass(frozen=True)
class Token:
    """A token with its secrets. ``repr`` omits them and ``raw``."""

    access_token: str | None = field(repr=False)
    """The bearer token; None only in an export of a token whose access token was never known."""
    refresh_token: str | None = field(repr=False)
    """Single use; None if the API gave none."""
    expires_at: datetime | None
    """When the access token expires (UTC)."""
    user_type: str | None
    """``"Company"`` or ``"Location"``, according to the API's response."""
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
            expires_at=moment(raw.get("expiresAt")),
            user_type=raw.get("userType"),
            company_id=raw.get("companyId"),
            location_id=raw.get("locationId"),
            scope=raw.get("scope"),
            raw=raw,
        )

    def to_json(self) -> dict[str, Any]:
        """The form that ``Client.tokens_import`` takes: ``raw`` with this object's fields."""
        fields = {
            "accessToken": self.access_token,
            "refreshToken": self.refresh_token,
            "expiresAt": None
            if self.expires_at is None
            else (self.expires_at - EPOCH) // MILLISECOND,
            "userType": self.user_type,
            "companyId": self.company_id,
            "locationId": self.location_id,
            "scope": self.scope,
        }
        document = {**self.raw, **fields}
        return {key: value for key, value in document.items() if value is not None}


_STATE = r"(?<![^?&])state=[^&#]*"


@dataclass(frozen=True)
class AuthorizationUrl:
    """The URL of the consent page. ``repr`` hides the ``state``."""

    url: str
    state: str
    """The state in the redirect. Keep it in the session if another process completes it."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    def __repr__(self) -> str:
        return f"AuthorizationUrl(url={re.sub(_STATE, 'state=…', self.url)!r})"

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> AuthorizationUrl:
        """Reads the library's form."""
        return cls(url=raw["url"], state=raw["state"], raw=raw)
