"""``ghl-oauth list``: lists the stored tokens."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime, timezone

from ...client import Client
from ...models import FailedToken, TokenInfo
from .. import output, report
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
    before = options.expires_within and datetime.now(timezone.utc) + options.expires_within

    def fetch(client: Client) -> tuple[list[TokenInfo], Sequence[FailedToken]]:
        pages = client.tokens_list(
            company_id=options.company,
            user_type=options.type,
            state=options.state,
            failing=options.failing or None,
            expires_before=before,
            page_size=1000,
        )
        return list(pages), pages.failed

    with Session.begin(options.config) as session:
        tokens, failed = session.run(fetch)
        output.show_tokens(tokens, options.json)
        if not tokens and not options.json:
            output.say("no token matches")
    return report.unreadable(failed, options)
