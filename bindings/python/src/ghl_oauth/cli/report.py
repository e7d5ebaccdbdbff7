"""Reports that several commands share: a stored token, and tokens that failed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

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
