"""``ghl-oauth import``: imports tokens from a file."""

from __future__ import annotations

import argparse
import json
import sys

from .. import output, status
from ..output import Refusal, say
from ..session import Session

DESCRIPTION = (
    "Imports tokens from a file that `export` wrote, or from JSON in the format of the API or the "
    "vendor's SDKs."
)
EXAMPLES = (
    "ghl-oauth import tokens.json",
    "ssh old-host ghl-oauth export --output - | ghl-oauth import -",
)

_IMPORT_HELP = "use a file that `ghl-oauth export` wrote, or a JSON list"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    parser.add_argument("file", metavar="FILE", help="the file; - for stdin")
    parser.add_argument(
        "--replace", action="store_true", help="allow an older token to replace a newer one"
    )


def run(options: argparse.Namespace) -> int:
    """Imports tokens from a file."""
    try:
        if options.file == "-":
            text = sys.stdin.read()
        else:
            with open(options.file, encoding="utf-8") as file:
                text = file.read()
        document = json.loads(text)
    except OSError as error:
        raise Refusal(f"{options.file} cannot be read: {error.strerror}") from None
    except ValueError:
        # Without the decoder's message, which may quote a token.
        raise Refusal(f"{options.file} is not JSON", _IMPORT_HELP) from None
    if isinstance(document, dict):
        document = document.get("tokens", [document])
    if not isinstance(document, list) or not all(isinstance(each, dict) for each in document):
        raise Refusal(f"{options.file} does not contain a list of tokens", _IMPORT_HELP)
    with Session.begin(options.config) as session:
        done = session.run(lambda client: client.tokens_import(document, replace=options.replace))
        if options.json:
            output.show_json(dict(done.raw))
        else:
            print(f"{done.imported} imported, {len(done.skipped)} skipped")
            for skip in done.skipped:
                say(
                    output.plain(
                        f"  skipped {skip.resource_id or f'token {skip.index}'}: {skip.reason}"
                    )
                )
        if done.skipped and not done.imported:
            raise Refusal(
                "no token was imported: all were skipped", "see the reason listed with each token"
            )
    return status.OK
