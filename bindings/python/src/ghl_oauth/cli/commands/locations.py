"""``ghl-oauth locations``: lists a company's locations."""

from __future__ import annotations

import argparse

from .. import output, status
from ..arguments import text
from ..session import Session

DESCRIPTION = "Lists a company's locations, as the API returns them."
EXAMPLES = (
    "ghl-oauth locations 5DP4iH6HLkQsiKESj6rh --installed",
    "ghl-oauth locations 5DP4iH6HLkQsiKESj6rh --query dental",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    parser.add_argument("company", type=text, metavar="COMPANY", help="the company's ID")
    parser.add_argument("--query", type=text, metavar="TEXT", help="part of a location's name")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--installed", action="store_true", default=None, help="only locations with the app"
    )
    which.add_argument(
        "--not-installed",
        dest="installed",
        action="store_false",
        help="only locations without the app",
    )


def run(options: argparse.Namespace) -> int:
    """Lists a company's locations."""
    with Session.begin(options.config) as session:
        found = session.run(
            lambda client: list(
                client.installed_locations(
                    options.company,
                    query=options.query,
                    is_installed=options.installed,
                    page_size=100,
                )
            )
        )
        if options.json:
            output.show_json([dict(location.raw) for location in found])
        else:
            words = {True: "yes", False: "no", None: "-"}
            output.show_table(
                ("LOCATION", "NAME", "INSTALLED", "ADDRESS"),
                (
                    (
                        location.id,
                        location.name or "-",
                        words[location.is_installed],
                        location.address or "-",
                    )
                    for location in found
                ),
            )
    return status.OK
