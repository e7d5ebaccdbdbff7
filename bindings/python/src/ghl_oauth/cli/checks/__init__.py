"""The checks of ``ghl-oauth doctor``. Each module checks one thing that tokens depend on."""

from __future__ import annotations

from ...errors import GhlError, ReauthorizationRequired
from .. import status


class Check:
    """A finding.

    ``outcome`` is ``ok``, ``skipped``, ``warning``, ``consent`` or ``problem``.
    """

    # No dataclass: that module is slow to import.
    def __init__(
        self,
        name: str,
        outcome: str,
        message: str,
        help: str | None = None,  # noqa: A002
        exit_status: int | None = None,
    ) -> None:
        self.name = name
        self.outcome = outcome
        self.message = message
        self.help = help
        self.exit_status = exit_status
        """The exit status that it deserves. None: the usual one of its outcome."""

    @property
    def status(self) -> int:
        """The exit status of a run in which nothing worse was found."""
        if self.outcome == "consent":
            return status.CONSENT
        if self.outcome != "problem":
            return status.OK
        return status.ERROR if self.exit_status is None else self.exit_status


class Stage:
    """What a thread is doing, for the messages of the thread that waits for it."""

    def __init__(self, text: str) -> None:
        self.text = text


def failed(name: str, error: GhlError) -> Check:
    """The finding for an error of the library."""
    outcome = "consent" if isinstance(error, ReauthorizationRequired) else "problem"
    help_text = error.help and error.help.replace("(authorization_url)", "(ghl-oauth login)")
    parameter = f" ({error.parameter})" if error.parameter else ""
    return Check(name, outcome, f"{error.message}{parameter}", help_text, status.of(error))


def short(text: str, limit: int = 200) -> str:
    """The first line of a text, shortened."""
    line = text.strip().split("\n", 1)[0].rstrip()
    return line if len(line) <= limit else line[: limit - 1] + "…"
