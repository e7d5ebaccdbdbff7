"""Reads the claims of an access token or refresh token of the API, which is a JWT.

The claims are the API's own statement about a token. The signature is not checked: the claims only
decide under which owner a token is filed, and the API rejects a forged token.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from typing import Any

APP_ID = re.compile(r"[0-9a-f]{24}")

_JWT = re.compile(r"[\w-]{1,4096}\.([\w-]{1,65536})\.[\w-]*", re.ASCII)


@dataclass(frozen=True)
class Claims:
    """What a token says about itself."""

    kind: str
    """``"Company"`` or ``"Location"``."""
    owner: str
    """The ID of the company or location."""
    app: str | None
    """The ID of the app, with which its client ids begin."""
    issued_at: int | None
    """When the API issued it, in milliseconds since the epoch."""


def read(token: str | None) -> Claims | None:
    """The claims of a token; None if it is no JWT, or names no company or location."""
    found = _JWT.fullmatch(token or "")
    if not found:
        return None
    encoded = found[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        return None
    if not isinstance(claims, dict):
        return None
    kind, owner = claims.get("authClass"), claims.get("authClassId")
    if kind not in ("Company", "Location") or not isinstance(owner, str) or not owner:
        return None
    return Claims(kind, owner, _app(claims), _milliseconds(claims.get("iat")))


def _app(claims: dict[str, Any]) -> str | None:
    meta = claims.get("oauthMeta")
    meta = meta if isinstance(meta, dict) else {}
    names = (meta.get("client"), meta.get("clientKey"), claims.get("sourceId"), claims.get("cid"))
    for name in names:
        app = name.partition("-")[0] if isinstance(name, str) else ""
        if APP_ID.fullmatch(app):
            return app
    return None


def _milliseconds(seconds: Any) -> int | None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return None
    return round(1000 * seconds) if math.isfinite(seconds) else None
