"""Adds what the command line knows to an error of the library."""

from __future__ import annotations

from .._configuration import Configuration
from ..errors import GhlError, NetworkError, StoreError, Timeout

DAMAGED_HELP = (
    "stop all programs that use it, then restore a backup, or move the file away and let the users "
    "consent again. A backup holds the refresh tokens of its time: those used since then are "
    "refused, so their companies must consent again, and deletions since then are undone"
)

DISK_HELP = (
    "free disk space, or move the store to another disk; until then a new token is kept only in "
    "the memory of the process that got it: do not restart that process"
)


def is_damaged(error: GhlError) -> bool:
    """Whether the database is damaged, or the file is not a database."""
    return isinstance(error, StoreError) and (
        "malformed" in error.message or "not a database" in error.message
    )


def explain(error: GhlError, configuration: Configuration) -> None:
    """Names the server that could not be reached, and what a restored backup can lose."""
    if is_damaged(error):
        error.help = DAMAGED_HELP
    elif (
        isinstance(error, (NetworkError, Timeout))
        and error.http_status is None
        and error.sent is not None  # None: a store or a lock
    ):
        error.raw = {**error.raw, "server": configuration.server}
