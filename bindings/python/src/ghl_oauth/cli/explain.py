"""What the command line adds to an error of the library."""

from __future__ import annotations

from ..errors import GhlError, NetworkError, Timeout

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from .._configuration import Configuration

DISK_HELP = (
    "free disk space, or move the store to another disk; until then a new token is kept only in "
    "the memory of the process that got it: do not restart that process"
)


def explain(error: GhlError, configuration: Configuration) -> None:
    """Names the server that could not be reached, commands, and the source of a wrong secret."""
    if error.help and "(authorization_url)" in error.help:
        error.help = error.help.replace("(authorization_url)", "(ghl-oauth login)")
    if error.parameter == "clientSecret":
        error.message += f"; it is from {configuration.secret_from}"
    if (
        isinstance(error, (NetworkError, Timeout))
        and error.http_status is None
        and error.sent is not None  # None: a store or a lock
    ):
        error.raw = {**error.raw, "server": configuration.server}
