"""Reports that several commands share: a stored token, and tokens that failed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..errors import GhlError
from ..models import FailedToken, TokenInfo
from . import output, status


def show_token(info: TokenInfo, options: argparse.Namespace) -> None:
    """Prints a stored token."""
    if options.json:
        output.show_json(dict(info.raw))
    else:
        output.show_tokens([info], as_json=False)


def failures(failed: Sequence[FailedToken], options: argparse.Namespace) -> int:
    """Names the tokens that could not be renewed or minted. Returns the exit status."""
    errors: list[GhlError] = [failure.error for failure in failed]
    if not options.json:
        output.show_failed(failed, as_json=False)
    return status.of_all(errors)


def unreadable(failed: Sequence[FailedToken], options: argparse.Namespace) -> int:
    """Names the stored tokens that cannot be read. Returns the exit status."""
    output.show_failed(failed, options.json)
    return status.UNREADABLE if failed else status.OK


def last_failure(token: TokenInfo) -> dict[str, Any] | None:
    """A token's last failure, if it has not been refreshed since."""
    found = token.raw.get("lastFailure")
    return found if isinstance(found, dict) else None


def failing(tokens: Sequence[TokenInfo]) -> int:
    """The exit status for tokens whose last refresh failed, or whose connection is lost."""
    statuses = set()
    for token in tokens:
        last = last_failure(token)
        if token.state == "reauthorizationRequired":
            statuses.add(status.CONSENT)
        elif token.state == "unsaved":
            statuses.add(status.UNSAVED)
        elif last is not None:
            statuses.add(status.LATER if last.get("status") in TEMPORARY else status.ERROR)
    for each in (status.UNSAVED, status.CONSENT, status.ERROR, status.LATER):
        if each in statuses:
            return each
    return status.OK


TEMPORARY = ("GHL_ERR_NETWORK", "GHL_ERR_TIMEOUT", "GHL_ERR_SERVER", "GHL_ERR_RATE_LIMITED")
"""The statuses of failures that pass."""
