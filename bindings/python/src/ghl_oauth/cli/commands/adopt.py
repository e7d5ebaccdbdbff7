"""``ghl-oauth adopt``: moves the tokens of another client id to this one."""

from __future__ import annotations

import argparse

from .. import output, report
from ..arguments import text
from ..output import say
from ..session import Session

DESCRIPTION = (
    "After a key rotation the app has a new client id, under which the database looks empty. "
    "This moves the tokens of the old client id to the configured one. Stop the programs that "
    "use the old one first. A token that is already stored under the new client id stays. "
    "Without --from, the client ids that have tokens are listed."
)
EXAMPLES = (
    "ghl-oauth adopt  # lists the client ids",
    "ghl-oauth adopt --from 6600aabbccddeeff00112233-oldkey --dry-run",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    parser.add_argument(
        "--from", dest="client", type=text, metavar="CLIENT_ID", help="the old client id"
    )
    parser.add_argument("--resource", type=text, metavar="ID", help="only this company or location")
    parser.add_argument("--dry-run", action="store_true", default=None, help="only report")


def run(options: argparse.Namespace) -> int:
    """Moves the tokens of another client id to this one, in the same database."""
    with Session.begin(options.config) as session:
        done = session.run(
            lambda client: client.tokens_adopt(
                options.client, resource_id=options.resource, dry_run=options.dry_run
            )
        )
        if options.json:
            output.show_json(dict(done.raw))
        elif options.client is None:
            output.show_table(
                ("CLIENT ID", "TOKENS"),
                [(each.client_id, str(each.tokens)) for each in done.clients],
            )
        else:
            verb = "would be adopted" if options.dry_run else "adopted"
            output.put(
                f"{done.adopted} {verb}, {len(done.skipped)} skipped, {len(done.failed)} unreadable"
            )
            for skip in done.skipped:
                say(output.plain(f"  skipped {skip.resource_id}: {skip.reason}"))
        return report.unreadable(done.failed, options)
