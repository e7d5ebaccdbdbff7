"""The exceptions: :class:`GhlError`, with one subclass per status of the library."""

from __future__ import annotations

import enum
from collections.abc import Mapping

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from typing import Any

    from ._names import Names


class Status(enum.IntEnum):
    """The numbers of the statuses, as in the C header; each equals its number."""

    INVALID_ARGUMENT = 1
    CONFIG = 2
    NOT_FOUND = 3
    REAUTHORIZATION_REQUIRED = 4
    LOCATION_INACTIVE = 5
    UNAUTHORIZED = 6
    FORBIDDEN = 7
    INVALID_REQUEST = 8
    RATE_LIMITED = 9
    NETWORK = 10
    TIMEOUT = 11
    SERVER = 12
    PROTOCOL = 13
    STORE = 14
    CANCELLED = 15
    STATE_MISMATCH = 16
    CONSENT_DENIED = 17
    SIGNATURE_INVALID = 18
    INTERNAL = 19
    BUFFER_TOO_SMALL = 20
    CONFLICT = 21

    def __str__(self) -> str:
        return int.__repr__(self)

    def __format__(self, format_spec: str) -> str:
        return int.__format__(self, format_spec)


class GhlError(Exception):
    """An error of the library. Never contains a secret.

    Catch a subclass to handle one failure, or this class for all of them. This class itself is
    raised only for a status of a newer library that this package does not know. Your own code may
    raise one with a text or without: ``raise Conflict("version 3 is stored")``.

    Attributes:
        code: The stable number of the status: a :class:`Status`, or an int that is not among them.
        status: The status as in the C header and the logs, for instance ``"GHL_ERR_RATE_LIMITED"``.
        message: The cause, in one sentence.
        help: What to do about it, or None.
        parameter: The offending parameter or setting as the program writes it, a setting with its
            section (``"retry.max_attempts"``), or None.
        retryable: Whether the same call, unchanged, may succeed later, and may be repeated without
            harm.
        sent: Whether the server may have acted on the call's request. False if it certainly did
            not: the request never left, or was refused before it was processed. None if no request
            is involved.
        retry_after: How long to wait before that, in seconds; None if unknown.
        resource_id: The company or location concerned, or None.
        http_status: The HTTP status of the API's response; None if there was no response.
        trace_id: The API's id of the request, to quote to the vendor's support, or None.
        api: The API's error: ``{"code", "message", "details", "resolution"}``, or None.
        raw: The library's whole error object, with the library's names.
    """

    code: int = -1
    status: str = ""

    def __init__(self, error: Mapping[str, Any] | str | None = None) -> None:
        # `args` lets pickle rebuild the exception, as multiprocessing requires.
        error = {} if error is None else error
        super().__init__(error)
        if not isinstance(error, Mapping):
            error = {"message": str(error)}
        retry_after_ms = error.get("retryAfterMs")
        self.status = error.get("status") or self.status
        self.message: str = error.get("message") or self.status
        self.help: str | None = error.get("help")
        self.parameter: str | None = error.get("parameter")
        self.retryable: bool = bool(error.get("retryable"))
        self.sent: bool | None = error.get("sent")
        self.retry_after: float | None = None if retry_after_ms is None else retry_after_ms / 1000
        self.resource_id: str | None = error.get("resourceId")
        self.http_status: int | None = error.get("httpStatus")
        self.trace_id: str | None = error.get("traceId")
        self.api: Mapping[str, Any] | None = error.get("api")
        self.raw: Mapping[str, Any] = error

    def __str__(self) -> str:
        resource = f" [resource {self.resource_id}]" if self.resource_id else ""
        advice = f" ({self.help})" if self.help else ""
        return f"{self.message}{resource}{advice}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class InvalidArgument(GhlError):
    """An argument is missing, malformed, unknown or out of range; ``parameter`` names it."""

    code = Status.INVALID_ARGUMENT
    status = "GHL_ERR_INVALID_ARGUMENT"


class ConfigError(GhlError):
    """The configuration cannot be used; ``parameter`` names the key."""

    code = Status.CONFIG
    status = "GHL_ERR_CONFIG"


class NotFound(GhlError):
    """No token is held for the resource, or the API does not know it."""

    code = Status.NOT_FOUND
    status = "GHL_ERR_NOT_FOUND"


class ReauthorizationRequired(GhlError):
    """The connection is lost: a user must consent again, see ``Client.authorization_url``."""

    code = Status.REAUTHORIZATION_REQUIRED
    status = "GHL_ERR_REAUTHORIZATION_REQUIRED"


class LocationInactive(GhlError):
    """The location is paused or its subscription ended. Its token is kept; try again later."""

    code = Status.LOCATION_INACTIVE
    status = "GHL_ERR_LOCATION_INACTIVE"


class Unauthorized(GhlError):
    """The API returned 401 although the token is fresh, or rejected the client credentials."""

    code = Status.UNAUTHORIZED
    status = "GHL_ERR_UNAUTHORIZED"


class Forbidden(GhlError):
    """The token lacks the scope, or access to the location."""

    code = Status.FORBIDDEN
    status = "GHL_ERR_FORBIDDEN"


class InvalidRequest(GhlError):
    """The API rejected the request as invalid (400, 422); ``api`` says why."""

    code = Status.INVALID_REQUEST
    status = "GHL_ERR_INVALID_REQUEST"


class RateLimited(GhlError):
    """Too many requests; ``retry_after`` says when to try again."""

    code = Status.RATE_LIMITED
    status = "GHL_ERR_RATE_LIMITED"


class NetworkError(GhlError):
    """The request could not be sent, or no response arrived."""

    code = Status.NETWORK
    status = "GHL_ERR_NETWORK"


class Timeout(GhlError, TimeoutError):
    """The deadline passed. Also a :class:`TimeoutError`."""

    code = Status.TIMEOUT
    status = "GHL_ERR_TIMEOUT"


class ServerError(GhlError):
    """The API failed (5xx)."""

    code = Status.SERVER
    status = "GHL_ERR_SERVER"


class ProtocolError(GhlError):
    """The API's response does not have the documented form."""

    code = Status.PROTOCOL
    status = "GHL_ERR_PROTOCOL"


class StoreError(GhlError):
    """The token store failed."""

    code = Status.STORE
    status = "GHL_ERR_STORE"


class Cancelled(GhlError):
    """The call was cancelled by ``Client.cancel``."""

    code = Status.CANCELLED
    status = "GHL_ERR_CANCELLED"


class StateMismatch(GhlError):
    """The ``state`` of a consent is missing, unknown, expired or already used."""

    code = Status.STATE_MISMATCH
    status = "GHL_ERR_STATE_MISMATCH"


class ConsentDenied(GhlError):
    """The user, or the marketplace, refused consent."""

    code = Status.CONSENT_DENIED
    status = "GHL_ERR_CONSENT_DENIED"


class SignatureInvalid(GhlError):
    """The signature of a webhook is invalid."""

    code = Status.SIGNATURE_INVALID
    status = "GHL_ERR_SIGNATURE_INVALID"


class InternalError(GhlError):
    """A defect of the library. The client remains usable."""

    code = Status.INTERNAL
    status = "GHL_ERR_INTERNAL"


class BufferTooSmall(GhlError):
    """A buffer is too small. The methods of ``Client`` enlarge theirs and never raise this."""

    code = Status.BUFFER_TOO_SMALL
    status = "GHL_ERR_BUFFER_TOO_SMALL"


class Conflict(GhlError):
    """The stored record has another version than expected. ``Store.save`` raises it."""

    code = Status.CONFLICT
    status = "GHL_ERR_CONFLICT"


_BY_STATUS = {error.status: error for error in GhlError.__subclasses__()}


def from_json(error: Mapping[str, Any], names: Names | None = None) -> GhlError:
    """The exception for an error object of the library, in the words of a Python program."""
    made = _BY_STATUS.get(error.get("status", ""), GhlError)(error)
    if names is not None:
        names.explain(made)
    return made
