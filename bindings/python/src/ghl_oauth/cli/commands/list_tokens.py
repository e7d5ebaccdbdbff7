"""``ghl-oauth list``: lists the stored tokens."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ...client import Client
from ...models import FailedToken, TokenInfo
from .. import output, report
from ..arguments import filters as arguments
from ..session import Session

DESCRIPTION = "Lists the stored tokens without their secrets."
EXAMPLES = (
    "ghl-oauth list",
    "ghl-oauth list --type Location --json | jq -r '.[].resourceId'",
)

__all__ = ["DESCRIPTION", "EXAMPLES", "arguments", "run"]


def run(options: argparse.Namespace) -> int:
    """Lists the stored tokens."""

    def fetch(client: Client) -> tuple[list[TokenInfo], Sequence[FailedToken]]:
        pages = client.tokens_list(
            company_id=options.company, user_type=options.type, page_size=1000
        )
        return list(pages), pages.failed

    with Session.begin(options.config) as session:
        tokens, failed = session.run(fetch)
        output.show_tokens(tokens, options.json)
    return report.unreadable(failed, options)
