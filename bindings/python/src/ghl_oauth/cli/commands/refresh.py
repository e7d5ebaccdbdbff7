"""``ghl-oauth refresh``: refreshes a token now."""

from __future__ import annotations

import argparse

from .. import report, status
from ..arguments import resource as arguments
from ..session import Session

DESCRIPTION = "Refreshes a token now, even if it is not due."
EXAMPLES = ("ghl-oauth refresh ve9EPM428h8vShlRW1KT",)

__all__ = ["DESCRIPTION", "EXAMPLES", "arguments", "run"]


def run(options: argparse.Namespace) -> int:
    """Refreshes a token now."""
    with Session.begin(options.config) as session:
        report.show_token(
            session.run(lambda client: client.token_refresh(options.resource)), options
        )
    return status.OK
