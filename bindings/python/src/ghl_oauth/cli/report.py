"""Reports that several commands share: a stored token, and tokens that failed."""

from __future__ import annotations

import argparse

from ..errors import LocationInactive
from . import output, status

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..models import FailedToken, TokenInfo


def show_token(info: TokenInfo, options: argparse.Namespace) -> None:
    """Prints a stored token."""
    if options.json:
        output.show_json(dict(info.raw))
    else:
        output.show_tokens([info.raw], as_json=False)


def show_run(
    done: str,
    failed: Sequence[FailedToken],
    options: argparse.Namespace,
    *,
    rest: str = "",
    asked_for_each: bool = False,
) -> int:
    """Prints the result of a run over many tokens, unless it is JSON. Returns the exit status.

    A paused location is no failure: only its owner can change that. Its name goes to stdout, since
    cron mails what is written to stderr.

    Args:
        done: The beginning of the line, before the number of failures.
        failed: The tokens that could not be renewed or minted.
        options: The command line.
        rest: The rest of the line.
        asked_for_each: The command line names each token, so that a paused one is a failure too.
    """
    paused: list[FailedToken] = []
    if not asked_for_each:
        paused = [each for each in failed if isinstance(each.error, LocationInactive)]
        failed = [each for each in failed if not isinstance(each.error, LocationInactive)]
    if not options.json:
        count = f", {len(paused)} paused" if paused else ""
        output.put(f"{done}, {len(failed)} failed{count}{rest}")
        if paused:
            ids = output.names([str(each.resource_id) for each in paused])
            output.put(output.plain(f"paused, token kept: {ids}"))
        output.show_failed(failed)
    return status.of_all([each.error for each in failed])


def unreadable(failed: Sequence[FailedToken], _options: argparse.Namespace) -> int:
    """Names the stored tokens that cannot be read. Returns the exit status."""
    output.show_failed(failed)
    return status.UNREADABLE if failed else status.OK


def last_failure(token: Mapping[str, Any]) -> dict[str, Any] | None:
    """A stored token's last failure, if it has not been refreshed since."""
    found = token.get("lastFailure")
    return found if isinstance(found, dict) else None


def failing(tokens: Sequence[Mapping[str, Any]]) -> int:
    """The exit status for tokens whose last refresh failed, or whose connection is lost.

    A paused location is not one of them: its token is kept.
    """
    statuses = set()
    for token in tokens:
        last = last_failure(token)
        if token["state"] == "reauthorizationRequired":
            statuses.add(status.CONSENT)
        elif token["state"] == "unsaved":
            statuses.add(status.UNSAVED)
        elif last is not None and token["state"] != "inactive":
            statuses.add(status.LATER if last.get("status") in TEMPORARY else status.ERROR)
    for each in (status.UNSAVED, status.CONSENT, status.ERROR, status.LATER):
        if each in statuses:
            return each
    return status.OK


TEMPORARY = ("GHL_ERR_NETWORK", "GHL_ERR_TIMEOUT", "GHL_ERR_SERVER", "GHL_ERR_RATE_LIMITED")
"""The statuses of failures that pass."""
