"""``ghl-oauth metrics``: prints metrics for Prometheus."""

from __future__ import annotations

import argparse
import time

from ...errors import GhlError
from .. import output, status
from ..output import Refusal, replace_file
from ..session import Session

DESCRIPTION = (
    "Prints metrics of the stored tokens in Prometheus' text format, and ghl_oauth_store_up 0 if "
    "the configuration or the store cannot be used. The counters of requests, "
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
    """Prints metrics, also if the configuration or the store cannot be used."""
    try:
        with Session.begin(options.config) as session:
            text = session.run(lambda client: client.metrics())
    except GhlError:
        # Otherwise a file would keep the values of the last good run.
        _write(_gauge("ghl_oauth_store_up", "Whether the token store could be read.", 0), options)
        raise
    _write(text, options)
    if "\nghl_oauth_store_up 1\n" in text:
        return status.OK
    raise Refusal("the store cannot be read", "-v shows why", status.LATER)


def _gauge(name: str, meaning: str, value: int) -> str:
    return f"# HELP {name} {meaning}\n# TYPE {name} gauge\n{name} {value}\n"


def _write(text: str, options: argparse.Namespace) -> None:
    text += _gauge(
        "ghl_oauth_metrics_written_timestamp_seconds",
        "When ghl-oauth wrote these metrics, in Unix time.",
        int(time.time()),
    )
    if options.output is None:
        output.put(text, end="")
        return
    try:
        # The collector is another user. There is no secret in it.
        replace_file(options.output, text, 0o644)
    except OSError as error:
        raise Refusal(f"{options.output} cannot be written: {error.strerror}") from None
