"""The checks of the stored tokens: their states, their failures, and a request with some."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial

from ..._configuration import Configuration
from ...client import Client
from ...errors import Forbidden, GhlError, LocationInactive, ReauthorizationRequired, Unauthorized
from ...models import TokenInfo
from .. import status
from ..output import instant, moment
from ..report import TEMPORARY, last_failure
from ..task import Task
from . import Check, failed, names, short
from .network import SECRET_HELP, VERSION_HELP

_WRONG_SECRET = "; client ID or secret is probably wrong"

_TRIED = 4
"""How many tokens are tried in requests."""

_MARGIN = timedelta(minutes=10)
"""A token that expires sooner is not tried, since that could refresh it."""


def states(tokens: Sequence[TokenInfo]) -> Iterator[Check]:
    """What the store says of the tokens."""
    if not tokens:
        yield Check(
            "tokens", "consent", "no token is stored", "ghl-oauth login, or ghl-oauth import"
        )
        return
    kinds = Counter(token.user_type or "unknown" for token in tokens)
    now = datetime.now(timezone.utc)
    dead = sum(1 for token in tokens if token.expires_at is not None and token.expires_at < now)
    message = ", ".join(f"{count} of type {kind}" for kind, count in sorted(kinds.items()))
    if dead:
        yield Check(
            "tokens",
            "ok",
            f"{message}; {dead} expired",
            "they are refreshed at their next use; to avoid the wait, run `ghl-oauth maintain` "
            "every few minutes",
        )
    else:
        yield Check("tokens", "ok", message)
    for state, outcome, words, help_text, exit_status in (
        (
            "reauthorizationRequired",
            "consent",
            "the user must consent again",
            "ghl-oauth login; for a location, the consent of its company is enough",
            None,
        ),
        (
            "inactive",
            "warning",
            "the location is paused",
            "the token is kept; check the location's subscription",
            None,
        ),
        (
            "unsaved",
            "problem",
            "the store did not save the newest token",
            "check the store",
            status.UNSAVED,
        ),
    ):
        found = [token for token in tokens if token.state == state]
        if found:
            ids = names([token.resource_id for token in found])
            said = _last_words(found[0], now)
            yield Check("tokens", outcome, f"{words}: {ids}{said}", help_text, exit_status)
    yield from _failing([token for token in tokens if token.state == "ok"], now)


def _failing(tokens: Sequence[TokenInfo], now: datetime) -> Iterator[Check]:
    """The tokens whose last refresh failed, grouped by the reason."""
    groups: dict[tuple[str, str], list[TokenInfo]] = {}
    for token in tokens:
        last = last_failure(token)
        if last is not None:
            key = (str(last.get("status")), str(last.get("message")))
            groups.setdefault(key, []).append(token)
    for (code, message), found in groups.items():
        expired = [each for each in found if each.expires_at is None or each.expires_at < now]
        credentials = code == "GHL_ERR_UNAUTHORIZED"
        wrong = _WRONG_SECRET if credentials else ""
        help_text = "run `ghl-oauth refresh ID` to see the whole error"
        if credentials:
            help_text = SECRET_HELP
        elif code in TEMPORARY:
            help_text = "the refresh is repeated at the next use, or by `ghl-oauth maintain`"
        first = expired[0] if expired else found[0]
        yield Check(
            "tokens",
            # While the old tokens are valid, callers do not notice the failure.
            "problem" if expired or credentials else "warning",
            f"the last refresh failed: {names([each.resource_id for each in found])}: "
            f"{short(message)}{wrong}{_last_words(first, now, with_message=False)}",
            help_text,
            status.LATER if code in TEMPORARY else status.ERROR,
        )


def _last_words(token: TokenInfo, now: datetime, with_message: bool = True) -> str:
    last = last_failure(token)
    if last is None:
        return ""
    said = [f"{last['message']}"] if with_message and last.get("message") else []
    at, next_at = last.get("at"), last.get("nextAttemptAt")
    if at is not None:
        said.append(f"last attempt {moment(instant(at), now)}")
    if last.get("attempts"):
        said.append(f"{last['attempts']} failed")
    if token.expires_at is not None:
        verb = "expires" if token.expires_at > now else "expired"
        said.append(f"the old token {verb} {moment(token.expires_at, now)}")
    if next_at is not None:
        said.append(f"next attempt {moment(instant(next_at), now)}")
    if last.get("traceId"):
        said.append(f"trace ID {last['traceId']}")
    return " (" + "; ".join(short(each) for each in said) + ")" if said else ""


class Trial:
    """Requests with some of the tokens, on threads."""

    def __init__(
        self,
        client: Client,
        configuration: Configuration,
        tokens: Sequence[TokenInfo],
        until: float,
    ) -> None:
        self._version = configuration.document.get("apiVersion") or "v3"
        soon = datetime.now(timezone.utc) + _MARGIN
        usable = [
            token
            for token in tokens
            if token.state == "ok" and (token.expires_at is None or token.expires_at > soon)
        ]
        # A company's token serves its locations.
        usable.sort(key=lambda token: token.user_type != "Company")
        self.tried = usable[:_TRIED]
        timeout = max(until - time.monotonic(), 0.5)
        self._tasks = [Task(partial(self._try, client, token, timeout)) for token in self.tried]

    def wait(self, until: float) -> bool:
        """Waits until all have ended. Returns whether they have."""
        return all(task.wait(until) for task in self._tasks)

    def checks(self) -> Iterator[Check]:
        """The findings of the requests that have ended."""
        good = []
        for token, task in zip(self.tried, self._tasks):
            if not task.wait(0):
                yield Check(
                    "tokens",
                    "warning",
                    f"{token.resource_id}: a request with its token has no answer yet",
                    "try again later",
                )
                continue
            found = task.result()
            if found is None:
                good.append(token.resource_id)
            else:
                yield found
        if good:
            yield Check("tokens", "ok", f"the API accepts the token of {names(good)}")

    def _try(self, client: Client, token: TokenInfo, timeout: float) -> Check | None:
        ours = token.resource_id
        try:
            if token.user_type == "Company":
                next(client.installed_locations(ours, page_size=1, timeout=timeout), None)
            else:
                client.request(
                    "GET", f"/locations/{ours}", resource_id=ours, timeout=timeout
                ).raise_for_status()
        except Forbidden:
            # The token is known; its scopes do not allow this request.
            return None
        except ReauthorizationRequired as error:
            return Check(
                "tokens",
                "consent",
                f"{ours}: the API refuses the token, and a refresh as well, so the user must "
                f"consent again: {short(error.message)}",
                "ghl-oauth login; for a location, the consent of its company is enough",
            )
        except LocationInactive as error:
            return Check("tokens", "warning", f"{ours}: {error.message}", error.help)
        except GhlError as error:
            said = str((error.api or {}).get("message"))
            if "version" in said.lower():
                return Check(
                    "version",
                    "problem",
                    f"the API refuses the Version header {self._version}: {said}",
                    VERSION_HELP,
                )
            check = failed("tokens", error)
            wrong = _about_credentials(error)
            return Check(
                "tokens",
                "problem",
                f"{ours}: {check.message}{_WRONG_SECRET if wrong else ''}",
                SECRET_HELP if wrong else check.help,
                check.exit_status,
            )
        return None


def _about_credentials(error: GhlError) -> bool:
    return isinstance(error, Unauthorized) and "credentials" in error.message
