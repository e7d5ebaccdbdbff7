"""``ghl-oauth delete``: deletes a token after confirmation."""

from __future__ import annotations

import argparse
import sys

from ...errors import NotFound
from .. import report, status
from ..arguments import resource
from ..output import Refusal, say
from ..session import Session

DESCRIPTION = (
    "Deletes a stored token after confirmation. Only a new consent, or for a location a new mint, "
    "brings it back."
)
EXAMPLES = (
    "ghl-oauth delete ve9EPM428h8vShlRW1KT",
    "ghl-oauth delete ve9EPM428h8vShlRW1KT --yes  # in a script",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    resource(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")


def run(options: argparse.Namespace) -> int:
    """Deletes a token after confirmation."""
    with Session.begin(options.config) as session:
        if not options.yes:
            if sys.stdin is None or not sys.stdin.isatty():
                raise Refusal(
                    "stdin is not a terminal",
                    "use --yes to delete without confirmation",
                    status.USAGE,
                )
            sys.stderr.write(
                f"Delete the token of {options.resource}? Only a new consent, or for a location a "
                "new mint, brings it back. [y/N] "
            )
            sys.stderr.flush()
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                say("Nothing was deleted.")
                return status.ERROR
        try:
            deleted = session.run(lambda client: client.token_delete(options.resource))
        except NotFound:
            raise Refusal(
                f"no token is stored for {options.resource}; nothing was deleted",
                "ghl-oauth list",
                status.CONSENT,
            ) from None
        report.show_token(deleted, options)
    return status.OK
