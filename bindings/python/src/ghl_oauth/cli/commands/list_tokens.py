"""``ghl-oauth list``: lists the stored tokens."""

from __future__ import annotations

import argparse
import time

from .. import output, raw, report
from ..arguments import duration, filters
from ..session import Session

DESCRIPTION = "Lists the stored tokens without their secrets, with the last failure of each."
EXAMPLES = (
    "ghl-oauth list --failing",
    "ghl-oauth list --type Location --json | jq -r '.[].resourceId'",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    filters(parser)
    parser.add_argument(
        "--state",
        choices=("ok", "inactive", "reauthorizationRequired", "unsaved"),
        help="only tokens in this state",
    )
    parser.add_argument(
        "--failing", action="store_true", help="only tokens whose last refresh failed"
    )
    parser.add_argument(
        "--expires-within",
        type=duration,
        metavar="TIME",
        help="only access tokens that expire within this time, for example 90m, 12h or 2d, or have "
        "expired",
    )


def run(options: argparse.Namespace) -> int:
    """Lists the stored tokens."""
    before = None
    if options.expires_within is not None:
        before = int(1000 * (time.time() + options.expires_within.total_seconds()))
    with Session.begin(options.config) as session:
        tokens, failed = session.run(
            lambda client: raw.stored_tokens(
                client,
                companyId=options.company,
                userType=options.type,
                state=options.state,
                failing=options.failing or None,
                expiresBefore=before,
            )
        )
        output.show_tokens(tokens, options.json)
        if not tokens and not options.json:
            output.say("no token matches")
    return report.unreadable(failed, options)
