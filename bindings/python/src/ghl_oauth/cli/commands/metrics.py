"""``ghl-oauth metrics``: prints metrics for Prometheus."""

from __future__ import annotations

import argparse
import os

from .. import output, status
from ..output import Refusal, say
from ..session import Session

DESCRIPTION = (
    "Prints metrics of the stored tokens in Prometheus' text format. The counters of requests, "
    "refreshes and failures are those of this command: a program exports its own with "
    "`client.metrics()`."
)
EXAMPLES = (
    "ghl-oauth metrics",
    "ghl-oauth metrics --output /var/lib/prometheus/node-exporter/ghl-oauth.prom",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="replace this file at once, for the textfile collector of Prometheus' node exporter",
    )


def run(options: argparse.Namespace) -> int:
    """Prints metrics, also if the store cannot be read."""
    with Session.begin(options.config) as session:
        text = session.run(lambda client: client.metrics())
    if options.output is None:
        output.put(text, end="")
    else:
        _replace(options.output, text)
    if "\nghl_oauth_store_up 1\n" in text:
        return status.OK
    say("ghl-oauth: the store cannot be read; -v shows why")
    return status.LATER


def _replace(path: str, text: str) -> None:
    # The collector reads all files whose names end with .prom, so it must not see a partial one.
    partial = f"{path}.{os.getpid()}"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
        # The collector is another user. There is no secret in it.
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except OSError as error:
        raise Refusal(f"{path} cannot be written: {error.strerror}") from None
