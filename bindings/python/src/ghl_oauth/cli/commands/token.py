"""``ghl-oauth token``: prints a valid access token."""

from __future__ import annotations

import argparse

from .. import output, status
from ..arguments import resource as arguments
from ..session import Session

DESCRIPTION = (
    "Prints a valid access token on stdout and nothing else. The token is refreshed or minted if "
    "necessary."
)
EXAMPLES = (
    "ghl-oauth token ve9EPM428h8vShlRW1KT",
    'curl -H "Authorization: Bearer $(ghl-oauth token ve9EPM428h8vShlRW1KT)" -H "Version: v3" \\\n'
    "      https://services.leadconnectorhq.com/locations/ve9EPM428h8vShlRW1KT",
)

__all__ = ["DESCRIPTION", "EXAMPLES", "arguments", "run"]


def run(options: argparse.Namespace) -> int:
    """Prints a valid access token and nothing else."""
    with Session.begin(options.config) as session:
        output.put(session.run(lambda client: client.access_token(options.resource)))
    return status.OK
