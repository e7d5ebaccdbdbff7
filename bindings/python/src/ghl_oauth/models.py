"""The results of the calls: frozen dataclasses, each with the library's whole document in ``raw``.

Fields that the API adds later appear in ``raw``, under the API's camelCase names. No ``repr`` shows
a secret.
"""

from __future__ import annotations

import base64
import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from ._names import Names
from .errors import (
    Forbidden,
    GhlError,
    InvalidRequest,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
    Timeout,
    Unauthorized,
    from_json,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)

_STATE = r"(?<![^?&])state=[^&#]*"


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


def epoch_ms(moment: datetime | None) -> int | None:
    """A time in milliseconds since the epoch. Without a time zone it is local."""
    return None if moment is None else (moment.astimezone(timezone.utc) - _EPOCH) // _MILLISECOND


def flag(value: bool | str | None) -> bool | None:
    """A boolean from the API, which sends some as strings."""
    return None if value is None else value in (True, "true")


def _state(state: str | None) -> str:
    return TokenState.OK if not state else _STATES.get(state, state)


def _text(value: Any) -> str | None:
    """A string from the API, or None for a value of another type."""
    return value if isinstance(value, str) else None


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
            expires_at=_moment(raw.get("expiresAt")),
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
            else (self.expires_at - _EPOCH) // _MILLISECOND,
            "userType": self.user_type,
            "companyId": self.company_id,
            "locationId": self.location_id,
            "scope": self.scope,
        }
        document = {**self.raw, **fields}
        return {key: value for key, value in document.items() if value is not None}


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
            first_at=_moment(raw.get("firstAt")),
            at=_moment(raw.get("at")),
            attempts=raw.get("attempts", 0),
            status=raw.get("status", ""),
            message=raw.get("message", ""),
            http_status=raw.get("httpStatus"),
            trace_id=raw.get("traceId"),
            next_attempt_at=_moment(raw.get("nextAttemptAt")),
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
            expires_at=_moment(raw.get("expiresAt")),
            refreshable=bool(raw.get("refreshable")),
            state=_state(raw.get("state")),
            raw=raw,
            last_success_at=_moment(raw.get("lastSuccessAt")),
            last_failure=LastFailure.or_none(raw.get("lastFailure")),
        )


@dataclass(frozen=True)
class Location:
    """A location of a company, from the list of installed locations."""

    id: str
    name: str | None
    address: str | None
    is_installed: bool | None
    """Whether the app is installed there; None if the API does not say."""
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
        """Reads a list from the API and skips items that are not objects or have no id."""
        objects = (
            (item for item in items if isinstance(item, dict)) if isinstance(items, list) else ()
        )
        return [cls.from_json(item) for item in objects if _text(item.get("_id"))]


METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of the text that ``Client.metrics`` returns."""


@dataclass(frozen=True)
class RequestStatistics:
    """The requests of a client."""

    sent: int
    """Attempts, including repetitions."""
    repeated: int
    """Attempts that were repetitions."""
    unanswered: int
    """Attempts without a response."""
    rate_limited: int
    """Responses with status 429."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> RequestStatistics:
        """Reads the library's form."""
        return cls(
            sent=raw["sent"],
            repeated=raw["repeated"],
            unanswered=raw["unanswered"],
            rate_limited=raw["rateLimited"],
        )


@dataclass(frozen=True)
class TokenStatistics:
    """The tokens of a client."""

    in_memory: int
    """The access tokens in memory now."""
    unsaved: int
    """The new tokens that the store has not accepted yet."""
    refreshed: int
    """Successful refreshes."""
    minted: int
    """Location tokens minted."""
    failed: int
    """Failed refreshes and mints."""
    failed_by_status: Mapping[str, int]
    """The same by :attr:`GhlError.status`, without zeros."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> TokenStatistics:
        """Reads the library's form."""
        return cls(
            in_memory=raw["inMemory"],
            unsaved=raw["unsaved"],
            refreshed=raw["refreshed"],
            minted=raw["minted"],
            failed=raw["failed"],
            failed_by_status=raw["failedByStatus"],
        )


@dataclass(frozen=True)
class BusyResource:
    """The rate limiter's state for a company or location."""

    resource_id: str
    in_window: int
    """Requests in the current window."""
    requests: int
    """The number of requests allowed per window."""
    window: timedelta
    """The length of the window."""
    today: int
    per_day: int
    """The number of requests allowed per day."""
    waiting: int
    """The calls that wait."""
    held_for: timedelta | None
    """How long the last 429 still blocks requests."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> BusyResource:
        """Reads the library's form."""
        held_for = raw["heldForMs"]
        return cls(
            resource_id=raw["resourceId"],
            in_window=raw["inWindow"],
            requests=raw["requests"],
            window=raw["perMs"] * _MILLISECOND,
            today=raw["today"],
            per_day=raw["perDay"],
            waiting=raw["waiting"],
            held_for=None if held_for is None else held_for * _MILLISECOND,
        )


@dataclass(frozen=True)
class RateLimiterStatistics:
    """The state of a client's rate limiter."""

    resources: int
    """The companies and locations that it tracks."""
    waiting: int
    """The calls that wait for it now."""
    held: int
    """The companies and locations that a 429 blocks now."""
    busiest: tuple[BusyResource, ...]
    """At most 20 companies and locations: blocked ones first, then the busiest."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> RateLimiterStatistics:
        """Reads the library's form."""
        return cls(
            resources=raw["resources"],
            waiting=raw["waiting"],
            held=raw["held"],
            busiest=tuple(map(BusyResource.from_json, raw["busiest"])),
        )


@dataclass(frozen=True, eq=False)
class Statistics(dict[str, Any]):
    """Statistics of a client in this process, since the client was created.

    Also a dict, with the library's whole document.
    """

    version: str
    """The version of the library."""
    requests: RequestStatistics
    tokens: TokenStatistics
    pace: RateLimiterStatistics
    raw: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        """Fills the dict."""
        self.update(self.raw)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Statistics:
        """Reads the library's form."""
        return cls(
            version=raw["version"],
            requests=RequestStatistics.from_json(raw["requests"]),
            tokens=TokenStatistics.from_json(raw["tokens"]),
            pace=RateLimiterStatistics.from_json(raw["pace"]),
            raw=raw,
        )


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
class FailedToken:
    """A token that could not be renewed, minted, saved or read."""

    resource_id: str | None
    """None if the error concerns one of the store's keys, and so many tokens."""
    error: GhlError

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], names: Names | None = None) -> FailedToken:
        """Reads the library's form."""
        return cls(resource_id=raw.get("resourceId"), error=from_json(raw["error"], names))


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
            next_due_at=_moment(raw.get("nextDueAt")),
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
        body = raw["body"]
        if raw["bodyEncoding"] == "base64":
            body = base64.b64decode(body)
        return cls(
            status=raw["status"],
            headers=raw["headers"],
            body=body,
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
            "traceId": _text(body.get("traceId"))
            or _text(fault.get("traceId"))
            or _text(response.headers.get("x-trace-id")),
            "sent": not refused,
            "api": {
                "code": _text(code),
                "message": _text(said),
                "details": fault.get("details") if newer else None,
                "resolution": _text(fault.get("resolution")) if newer else None,
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
    return max(0, left // _MILLISECOND)


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
            timestamp=_moment(raw["timestampMs"]),
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
            at=_moment(raw.get("at")),
            expires_at=_moment(raw.get("expiresAt")),
            error=None if error is None else from_json(error, names),
            raw=raw,
            last_failure=LastFailure.or_none(raw.get("lastFailure")),
        )
