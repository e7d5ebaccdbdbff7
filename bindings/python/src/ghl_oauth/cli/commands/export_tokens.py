"""``ghl-oauth export``: exports tokens with their secrets."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

from ...client import Client
from ...models import FailedToken
from .. import output, report
from ..arguments import filters
from ..output import Refusal, say
from ..session import Session

DESCRIPTION = (
    "Writes the tokens with their secrets, in the format that `import` reads. Refresh tokens "
    "are single-use: only one program may continue to use them."
)
EXAMPLES = (
    "ghl-oauth export --output tokens.json",
    "ghl-oauth export --company 5DP4iH6HLkQsiKESj6rh --output -",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="a new file with mode 0600; - for stdout",
    )
    filters(parser)


def run(options: argparse.Namespace) -> int:
    """Exports tokens with their secrets."""

    def fetch(client: Client) -> tuple[str, Sequence[FailedToken]]:
        tokens = client.tokens_export(
            company_id=options.company, user_type=options.type, page_size=1000
        )
        text = json.dumps({"tokens": [dict(token.raw) for token in tokens]}, indent=2) + "\n"
        return text, tokens.failed

    with Session.begin(options.config) as session:
        if options.output == "-":
            text, failed = session.run(fetch)
            output.put(text, end="")
        else:
            try:
                descriptor = os.open(options.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError as error:
                raise Refusal(
                    f"{options.output} cannot be created: {error.strerror}",
                    "use the name of a new file",
                ) from None
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    text, failed = session.run(fetch)
                    file.write(text)
            except OSError as error:
                os.unlink(options.output)
                raise Refusal(
                    f"{options.output} cannot be written: {error.strerror}", "free disk space"
                ) from None
            except BaseException:
                os.unlink(options.output)
                raise
    say("Refresh tokens are single-use: only one program may continue to use these tokens.")
    return report.unreadable(failed, options)
