"""Responses of the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..errors import (
    Forbidden,
    GhlError,
    InvalidRequest,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
    Timeout,
    Unauthorized,
)
from ._fields import MILLISECOND, body, text


@dataclass(frozen=True)
class Response:
    """The API's response to a request, with any status."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: Any = field(repr=False)
    """Parsed JSON if the response is valid JSON by its type; a string if it is UTF-8; or bytes."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    method: str | None = field(default=None, compare=False)
    """The method of the request."""
    resource_id: str | None = field(default=None, compare=False)
    """The company or location whose token was sent."""
    idempotent: bool | None = field(default=None, compare=False)
    """Whether the server may process the request more than once, if the caller has said so."""
    set_cookies: Sequence[str] = ()
    """Each ``Set-Cookie`` header by itself; ``headers`` joins them."""

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def raise_for_status(self) -> Response:
        """Returns this response if its status is 2xx, and raises otherwise.

        Each error has ``http_status``, ``api``, ``trace_id``, ``retry_after``, ``retryable`` and
        ``sent`` as if the library had raised it.

        Raises:
            Unauthorized: 401.
            Forbidden: 403.
            NotFound: 404.
            Timeout: 408.
            RateLimited: 429; ``retry_after`` says when to try again.
            InvalidRequest: Any other 4xx.
            ServerError: 5xx.
            ProtocolError: Any other status, for instance a redirect, which is not followed.
        """
        if self.ok:
            return self
        raise _error_of(self)

    @classmethod
    def from_json(
        cls,
        raw: Mapping[str, Any],
        method: str | None = None,
        resource_id: str | None = None,
        idempotent: bool | None = None,
    ) -> Response:
        """Reads the library's form."""
        return cls(
            status=raw["status"],
            headers=raw["headers"],
            body=body(raw),
            raw=raw,
            method=method,
            resource_id=resource_id,
            idempotent=idempotent,
            set_cookies=tuple(raw.get("setCookies", ())),
        )


_BY_HTTP_STATUS: Mapping[int, type[GhlError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: Timeout,
    429: RateLimited,
}


def _error_of(response: Response) -> GhlError:
    """The error for a response that is not a success."""
    status = response.status
    kind = _BY_HTTP_STATUS.get(status)
    if kind is None:
        kind = {4: InvalidRequest, 5: ServerError}.get(status // 100, ProtocolError)
    body: Mapping[str, Any] = response.body if isinstance(response.body, dict) else {}
    envelope = body.get("error")
    newer = isinstance(envelope, dict)
    fault: Mapping[str, Any] = envelope if isinstance(envelope, dict) else body
    said = fault.get("message") or body.get("error_description")
    if isinstance(said, list):
        said = "; ".join(word for word in said if isinstance(word, str))
    code = fault.get("code") if newer else fault.get("error")
    retry_after_ms = _retry_after_ms(response.headers.get("retry-after"))
    # The server has refused it before acting.
    refused = status == 429 or (status == 503 and retry_after_ms is not None)
    repeatable = response.idempotent
    if repeatable is None:
        repeatable = response.method is not None and response.method.upper() in _SAFE
    return kind(
        {
            "status": kind.status,
            "message": f"the API answered {status}" + (f": {said}" if said else ""),
            "retryable": refused or (repeatable and (status == 408 or status >= 500)),
            "retryAfterMs": retry_after_ms,
            "resourceId": response.resource_id,
            "httpStatus": status,
            "traceId": text(body.get("traceId"))
            or text(fault.get("traceId"))
            or text(response.headers.get("x-trace-id")),
            "sent": not refused,
            "api": {
                "code": text(code),
                "message": text(said),
                "details": fault.get("details") if newer else None,
                "resolution": text(fault.get("resolution")) if newer else None,
            },
        }
    )


# The methods whose requests the library repeats.


_SAFE = ("GET", "HEAD", "OPTIONS")


def _retry_after_ms(header: Any) -> int | None:
    """A ``Retry-After``, as seconds or as a date."""
    if not isinstance(header, str):
        return None
    try:
        return max(0, round(float(header) * 1000))
    except (ValueError, OverflowError):
        pass
    from email.utils import parsedate_to_datetime  # imported here because it is slow

    try:
        left = parsedate_to_datetime(header) - datetime.now(timezone.utc)
    except (TypeError, ValueError):  # TypeError: before 3.10, or for a date without a zone
        return None
    return max(0, left // MILLISECOND)
