"""``ghl-oauth mint``: mints tokens for a company's locations."""

from __future__ import annotations

import argparse

from .. import output, report
from ..arguments import number, text
from ..bar import Bar
from ..session import Session

DESCRIPTION = (
    "Mints a token for each location where the app is installed, or for the given ones, as "
    "fast as the rate limit allows. Tokens that are not due are skipped, so a second run "
    "resumes where the first ended."
)
EXAMPLES = (
    "ghl-oauth mint 5DP4iH6HLkQsiKESj6rh",
    "ghl-oauth mint 5DP4iH6HLkQsiKESj6rh ve9EPM428h8vShlRW1KT --force",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    parser.add_argument("company", type=text, metavar="COMPANY", help="the company's ID")
    parser.add_argument(
        "location", type=text, nargs="*", metavar="LOCATION", help="only these locations"
    )
    parser.add_argument("--force", action="store_true", help="also mint tokens that are not due")
    parser.add_argument(
        "--concurrency", type=number(1, 64), metavar="N", help="concurrent requests. Default: 8"
    )


def run(options: argparse.Namespace) -> int:
    """Mints tokens for many locations."""
    with Session.begin(options.config) as session:
        with Bar() as bar:
            minting = session.run(
                lambda client: client.tokens_mint(
                    options.company,
                    options.location or None,
                    force=options.force,
                    concurrency=options.concurrency,
                    progress=bar,
                )
            )
        if options.json:
            output.show_json(dict(minting.raw))
        return report.show_run(
            f"{minting.total} locations: {minting.minted} minted, {minting.fresh} not due",
            minting.failed,
            options,
            asked_for_each=bool(options.location),
        )
