"""The checks of the stored tokens: their states, their failures, and a request with some."""

from __future__ import annotations

import re
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from functools import partial

from ...errors import Cancelled, GhlError, LocationInactive, ReauthorizationRequired, Unauthorized
from .. import raw, status
from ..output import expiry, instant, moment, names
from ..report import TEMPORARY, last_failure
from ..task import Task
from . import Check, failed, short
from .answer import (
    LOGIN_REQUIRED,
    OTHER_SERVER_HELP,
    another_server,
    is_of_api,
    is_temporary,
    words,
)
from .network import SECRET_HELP, VERSION_HELP

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from ..._configuration import Configuration
    from ...client import Client

    StoredToken = Mapping[str, Any]

_SCOPE = (
    "not authorized for this scope|authclass|user type|iam service|not accessible from this token"
)
"""A 401 about another thing than the token: docs/errors.md."""

_WRONG_SECRET = "; client ID or secret is probably wrong"

_TRIED = 4
"""How many tokens are tried in requests."""

_MARGIN = timedelta(minutes=10)
"""A token that expires sooner is tried only if there is no other, since that could refresh it."""


def states(tokens: Sequence[StoredToken]) -> Iterator[Check]:
    """What the store says of the tokens."""
    if not tokens:
        yield Check(
            "tokens", "consent", "no token is stored", "ghl-oauth login, or ghl-oauth import"
        )
        return
    kinds = Counter(token["userType"] or "unknown" for token in tokens)
    now = datetime.now(timezone.utc)
    dead = sum(_expires_before(token, now) for token in tokens)
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
    for state, outcome, meaning, help_text, exit_status in (
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
        found = [token for token in tokens if token["state"] == state]
        if found:
            ids = names([token["resourceId"] for token in found])
            said = _last_words(found[0], now)
            yield Check("tokens", outcome, f"{meaning}: {ids}{said}", help_text, exit_status)
    yield from _failing([token for token in tokens if token["state"] == "ok"], now)


def _failing(tokens: Sequence[StoredToken], now: datetime) -> Iterator[Check]:
    """The tokens whose last refresh failed, grouped by the reason."""
    groups: dict[tuple[str, str], list[StoredToken]] = {}
    for token in tokens:
        last = last_failure(token)
        if last is not None:
            key = (str(last.get("status")), str(last.get("message")))
            groups.setdefault(key, []).append(token)
    for (code, message), found in groups.items():
        expired = [each for each in found if expiry(each) is None or _expires_before(each, now)]
        credentials = code == "GHL_ERR_UNAUTHORIZED"
        wrong = _WRONG_SECRET if credentials else ""
        help_text = "run `ghl-oauth refresh ID` to see the whole error"
        if credentials:
            help_text = SECRET_HELP
        elif code in TEMPORARY:
            help_text = "the refresh is repeated at the next use, or by `ghl-oauth maintain`"
        first = expired[0] if expired else found[0]
        ids = names([each["resourceId"] for each in found])
        yield Check(
            "tokens",
            # While the old tokens are valid, callers do not notice the failure.
            "problem" if expired or credentials else "warning",
            f"the last refresh failed: {ids}: {short(message)}{wrong}"
            f"{_last_words(first, now, with_message=False)}",
            help_text,
            status.LATER if code in TEMPORARY else status.ERROR,
        )


def _last_words(token: StoredToken, now: datetime, with_message: bool = True) -> str:
    last = last_failure(token)
    if last is None:
        return ""
    said = [f"{last['message']}"] if with_message and last.get("message") else []
    at, next_at, expires_at = last.get("at"), last.get("nextAttemptAt"), expiry(token)
    if at is not None:
        said.append(f"last attempt {moment(instant(at), now)}")
    if last.get("attempts"):
        said.append(f"{last['attempts']} failed")
    if expires_at is not None:
        verb = "expires" if expires_at > now else "expired"
        said.append(f"the old token {verb} {moment(expires_at, now)}")
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
        tokens: Sequence[StoredToken],
        until: float,
    ) -> None:
        self._version = configuration.document.get("apiVersion") or "v3"
        self._app_id = str(configuration.document["clientId"]).partition("-")[0]
        self._server = configuration.server
        now = datetime.now(timezone.utc)
        # A company's token serves its locations.
        usable = sorted(
            (token for token in tokens if token["state"] == "ok"),
            key=lambda token: token["userType"] != "Company",
        )
        live = [token for token in usable if not _expires_before(token, now + _MARGIN)]
        expired = [token for token in usable if _expires_before(token, now)]
        # Without a live token, one is refreshed, as its next use would: only a refresh shows that
        # the client secret is wrong or that the refresh token is dead.
        self.tried = live[:_TRIED] or (expired or usable)[:1]
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
                    f"{token['resourceId']}: a request with its token has no answer yet",
                    "try again later",
                )
                continue
            found: Check | None = task.result()
            if found is None:
                good.append(token["resourceId"])
            else:
                yield found
        if good:
            yield Check("tokens", "ok", f"the API accepts the token of {names(good)}")

    def _try(self, client: Client, token: StoredToken, timeout: float) -> Check | None:
        ours = token["resourceId"]
        path, query = f"/locations/{ours}", None
        if token["userType"] == "Company":
            path = "/oauth/installed-locations"
            query = {"companyId": ours, "appId": self._app_id, "pageSize": 1}
        try:
            answer = raw.get(client, path, timeout=timeout, resourceId=ours, query=query)
        except GhlError as error:
            return _not_sent(token, error)
        return self._verdict(token, answer)

    def _verdict(self, token: StoredToken, answer: raw.Answer) -> Check | None:
        """What a response says of the token. None: the API accepts it."""
        ours, said = token["resourceId"], words(answer)
        message = f"{ours}: the API answered {answer.status}: {said}"
        if is_temporary(answer):
            return Check("tokens", "problem", message, "try again later", status.LATER)
        if not is_of_api(answer) or (answer.ok and not _is_expected(token, answer.body)):
            # Without its words, since a server could repeat the token.
            return another_server("tokens", self._server, answer, with_words=False)
        if answer.ok or answer.status == 403 or re.search(_SCOPE, said, re.IGNORECASE):
            # Even if the token's scopes do not allow this request, the token is known.
            return None
        if "location is not active" in said.lower():
            return Check(
                "tokens",
                "warning",
                message,
                "the token is kept; check the location's subscription",
            )
        if "version" in said.lower():
            return Check(
                "version",
                "problem",
                f"the API refuses the Version header {self._version}: {said}",
                VERSION_HELP,
            )
        return Check("tokens", "problem", message, f"run `ghl-oauth refresh {ours}`")


def _is_expected(token: StoredToken, body: dict[str, object]) -> bool:
    """Whether a success has the contents that were asked for."""
    if token["userType"] == "Company":
        return isinstance(body.get("items", body.get("locations")), list)
    return token["resourceId"] in str(body)


def _expires_before(token: StoredToken, time: datetime) -> bool:
    at = expiry(token)
    return at is not None and at < time


def _not_sent(token: StoredToken, error: GhlError) -> Check:
    """The finding for a request without a response, often because its token was not refreshed."""
    ours = token["resourceId"]
    expired = _expires_before(token, datetime.now(timezone.utc))
    if isinstance(error, ReauthorizationRequired):
        why = "the token has expired, and the API refuses a refresh"
        if not expired:
            why = "the API refuses the token, and a refresh as well"
        return Check(
            "tokens",
            "consent",
            f"{ours}: {why}, so the user must consent again: {short(error.message)}",
            "ghl-oauth login; for a location, the consent of its company is enough",
        )
    if isinstance(error, LocationInactive):
        return Check("tokens", "warning", f"{ours}: {error.message}", error.help)
    check = failed("tokens", error)
    if error.http_status == LOGIN_REQUIRED:
        return Check("tokens", "problem", f"{ours}: {error.message}", OTHER_SERVER_HELP)
    # A response to the request itself is not raised: this is the refusal of a refresh.
    wrong = isinstance(error, Unauthorized)
    said = "no answer in time" if isinstance(error, Cancelled) else check.message
    return Check(
        "tokens",
        "problem",
        f"{ours}: {said}{_WRONG_SECRET if wrong else ''}",
        SECRET_HELP if wrong else check.help,
        status.LATER if error.status in (*TEMPORARY, Cancelled.status) else check.exit_status,
    )
