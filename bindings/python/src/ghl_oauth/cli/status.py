"""The exit statuses, and which error leads to which."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError, GhlError, InvalidArgument, NotFound, ReauthorizationRequired

OK = 0
ERROR = 1
USAGE = 2
"""A wrong command line, or a configuration that cannot be used."""
CONSENT = 3
"""Only a person's consent can help."""
LATER = 4
"""The same command may succeed later."""
UNSAVED = 5
"""The store did not take a new token, which ends with the command."""
UNREADABLE = 6
"""Some of the stored tokens cannot be read; the others were listed or exported."""
INTERRUPTED = 130
"""128 and the signal's number; 143 for SIGTERM."""


def of(error: GhlError) -> int:
    """The exit status for an error."""
    if isinstance(error, (InvalidArgument, ConfigError)):
        return USAGE
    # A NotFound that the API did not send means that no token is held.
    if isinstance(error, ReauthorizationRequired) or (isinstance(error, NotFound) and error.http_status is None):
        return CONSENT
    return LATER if error.retryable else ERROR


def of_all(errors: Sequence[GhlError]) -> int:
    """The exit status of a work of which some part failed: consent before all, then what needs looking at."""
    statuses = {of(error) for error in errors}
    if not statuses:
        return OK
    if CONSENT in statuses:
        return CONSENT
    return LATER if statuses == {LATER} else ERROR
