"""``ghl-oauth metrics``: prints metrics for Prometheus."""

from __future__ import annotations

import argparse
import os

from ..._configuration import read
from ...errors import StoreError
from .. import output, status
from ..output import Refusal, say
from ..session import Session

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from ..._configuration import Configuration

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
    configuration = read(options.config)
    try:
        with Session.of(configuration) as session:
            text = _metrics(session)
    except StoreError:
        _write(_without_store(configuration), options)
        raise
    _write(text, options)
    if "\nghl_oauth_store_up 1\n" in text:
        return status.OK
    say("ghl-oauth: the store cannot be read; -v shows why")
    return status.LATER


def _metrics(session: Session) -> str:
    return session.run(lambda client: client.metrics())


def _without_store(configuration: Configuration) -> str:
    """The metric that says that the store cannot be used."""
    document = {**configuration.document, "store": {"kind": "memory"}}
    with Session(configuration.with_document(document)) as session:
        lines = _metrics(session).splitlines(keepends=True)
    up = [line for line in lines if "ghl_oauth_store_up" in line]
    return "".join(up).replace("_up 1\n", "_up 0\n")


def _write(text: str, options: argparse.Namespace) -> None:
    if options.output is None:
        output.put(text, end="")
    else:
        _replace(options.output, text)


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
