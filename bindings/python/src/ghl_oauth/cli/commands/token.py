"""``ghl-oauth token``: prints a valid access token."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone

from ...errors import GhlError
from .. import output, status
from ..arguments import resource as arguments
from ..session import Session

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    import argparse

    from ...client import Client
    from ...models import TokenInfo

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
        lost = session.run(lambda client: _lost(client, options.resource))
        if lost is not None:
            until = output.moment(lost.expires_at, datetime.now(timezone.utc))
            output.warn(
                f"the connection of {options.resource} is lost, and this token is its last: it "
                f"expires {until}. Let the user consent again: ghl-oauth login"
            )
    return status.OK


def _lost(client: Client, resource_id: str) -> TokenInfo | None:
    """The token, if it still serves but only a new consent can replace it."""
    # The token is printed already: a store that is slow or fails now does not matter.
    with contextlib.suppress(GhlError):
        for token in client.tokens_list(state="reauthorizationRequired", timeout=1):
            if token.resource_id == resource_id:
                return token
    return None
