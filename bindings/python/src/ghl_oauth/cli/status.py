"""The exit statuses, and the mapping from errors."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError, GhlError, InvalidArgument, NotFound, ReauthorizationRequired

OK = 0
ERROR = 1
USAGE = 2
"""Wrong command line or unusable configuration."""
CONSENT = 3
"""User consent is needed."""
LATER = 4
"""The same command may succeed later."""
UNSAVED = 5
"""The store did not save a new token, which is lost when the command ends."""
UNREADABLE = 6
"""Some tokens cannot be read; the others were listed, exported or imported."""
INTERRUPTED = 130
"""128 plus the signal's number; 143 for SIGTERM."""


def of(error: GhlError) -> int:
    """The exit status for an error."""
    # The store reports a missing key as retryable, but only a key in the configuration helps.
    missing_key = error.parameter == "store.encryptionKeys"
    if isinstance(error, (InvalidArgument, ConfigError)) or missing_key:
        return USAGE
    # A NotFound without an HTTP status means that no token is stored.
    if isinstance(error, ReauthorizationRequired) or (
        isinstance(error, NotFound) and error.http_status is None
    ):
        return CONSENT
    return LATER if error.retryable else ERROR


def of_all(errors: Sequence[GhlError]) -> int:
    """The exit status of a partial failure: consent takes precedence, then permanent errors."""
    statuses = {of(error) for error in errors}
    if not statuses:
        return OK
    if CONSENT in statuses:
        return CONSENT
    return LATER if statuses == {LATER} else ERROR
