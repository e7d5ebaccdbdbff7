"""``ghl-oauth maintain``: refreshes the tokens that are due."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

from .. import output, report
from ..arguments import number, text
from ..bar import Bar
from ..session import Session

DESCRIPTION = (
    "Refreshes the tokens that are due. Run it every few minutes from cron or a systemd timer."
)
EXAMPLES = (
    "ghl-oauth maintain --concurrency 4",
    "*/5 * * * * ghl-oauth --config /etc/ghl-oauth.json maintain  # a line of a crontab",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    parser.add_argument(
        "--company", type=text, metavar="ID", help="only this company and its locations"
    )
    parser.add_argument(
        "--concurrency", type=number(1, 64), metavar="N", help="concurrent refreshes. Default: 1"
    )


def run(options: argparse.Namespace) -> int:
    """Refreshes the tokens that are due."""
    with Session.begin(options.config) as session:
        with Bar() as bar:
            done = session.run(
                lambda client: client.tokens_maintain(
                    company_id=options.company, concurrency=options.concurrency, progress=bar
                )
            )
        if options.json:
            output.show_json(dict(done.raw))
        due = output.moment(done.next_due_at, datetime.now(timezone.utc))
        sealing = ""
        if done.resealed or done.unsealed:
            sealing = f"; {done.resealed} resealed, {done.unsealed} not resealed"
        return report.show_run(
            f"{done.checked} due: {done.refreshed} refreshed",
            done.failed,
            options,
            rest=f"{sealing}; next due {due}",
        )
