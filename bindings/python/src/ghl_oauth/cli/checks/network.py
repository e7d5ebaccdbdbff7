"""The checks of the network: server, proxy, certificate, clock, API version, credentials."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

from ..._configuration import Configuration
from ...client import Client
from ...errors import (
    Forbidden,
    GhlError,
    NetworkError,
    NotFound,
    ProtocolError,
    ReauthorizationRequired,
    Timeout,
    Unauthorized,
)
from .. import raw, status
from ..output import duration
from ..report import TEMPORARY
from . import Check, Stage, certificate, failed, short
from .answer import (
    LOGIN_REQUIRED,
    OTHER_SERVER_HELP,
    another_server,
    is_of_api,
    is_temporary,
    words,
)
from .setup import VENDOR

# The local clock determines when tokens expire and how old webhooks are.
_CLOCK_WARNING = 30
_CLOCK_PROBLEM = 300

_PROBE_CODE = "ghl-oauth-doctor"
"""An authorization code that was never issued."""

_TIMEOUT = 3.5
"""The time limit of a request, in seconds."""

_CLOCK_HELP = (
    "synchronize the system clock with NTP; otherwise tokens are refreshed too early or too late"
)

VERSION_HELP = 'remove "apiVersion" from the configuration; this library is built for v3'

SECRET_HELP = (
    "copy client ID and client secret again from one client key in the developer portal: the key "
    "may have been deleted or replaced. No stored token was used up"
)


def examine(configuration: Configuration, stage: Stage, checks: list[Check]) -> None:
    """Checks everything between this machine and the API, without a token."""
    document = dict(configuration.document)
    document["store"] = {"kind": "memory"}
    document["retry"] = {"maxAttempts": 1}
    document["timeouts"] = {"connectMs": 3_000, "totalMs": 3_500}
    stage.text = "reading certificates"
    try:
        client = Client.from_config(document)
    except GhlError as error:
        checks.append(failed("network", error))
        return
    with client:
        _examine(client, configuration, stage, checks)


def _examine(
    client: Client, configuration: Configuration, stage: Stage, checks: list[Check]
) -> None:
    base_url = str(configuration.document.get("baseUrl") or VENDOR)
    server = configuration.server
    stage.text = f"waiting for an answer from {server}"
    begun = time.time()
    try:
        # Without a token: an error response also shows that the API is reachable.
        answer = raw.get(client, "/oauth/installed-locations", timeout=_TIMEOUT)
    except GhlError as error:
        checks += _unreachable(configuration, error, stage)
        return
    ended = time.time()
    clock = _clock(answer.headers.get("date"), begun, ended)
    if is_temporary(answer):
        checks += _unusable(
            Check(
                "network",
                "problem",
                f"{base_url} responds with status {answer.status}: {words(answer)}".rstrip(": "),
                "try again later; this says nothing about tokens and credentials",
                status.LATER,
            ),
            clock,
        )
        return
    if answer.ok or not is_of_api(answer):
        checks += _unusable(another_server("network", server, answer, with_words=True), clock)
        return
    stage.text = "asking whether the client credentials are accepted"
    refusal = _offer_code(client, configuration)
    if answer.status == 404 and (refusal is None or refusal.http_status in (None, 404)):
        # Any web server could say that it does not know a path.
        checks += _unusable(another_server("network", server, answer, with_words=True), clock)
        return
    checks.append(Check("network", "ok", f"{base_url} responds in {1000 * (ended - begun):.0f} ms"))
    checks.append(clock)
    checks.append(_version(configuration, answer, refusal))
    checks.append(_credentials(configuration, refusal))


def _unusable(network: Check, clock: Check) -> tuple[Check, ...]:
    skipped = (
        Check(name, "skipped", "no answer of the API") for name in ("version", "credentials")
    )
    return network, clock, *skipped


def _unreachable(configuration: Configuration, error: GhlError, stage: Stage) -> Iterator[Check]:
    server = configuration.server
    check = failed("network", error)
    message, help_text = f"{server}: {error.message}", error.help
    date = None
    begun = time.time()
    untrusted = isinstance(error, NetworkError) and error.message.startswith("the certificate of ")
    if untrusted:
        stage.text = f"looking at the certificate of {server}"
        issuer = None
        if configuration.proxy is None:
            issuer, date = certificate.look(*configuration.address, timeout=2)
        if issuer:
            message += f"; it was issued by {issuer!r}"
        help_text = (
            "if a proxy of your company inspects TLS, or the CA is private: set http.caBundlePath "
            "to a PEM file with its root certificate. Otherwise check the host name in baseUrl, "
            "this machine's clock and its CA certificates (Debian: ca-certificates)"
        )
    elif isinstance(error, Timeout):
        message = f"{server}: no answer within {_TIMEOUT:.0f} s"
        help_text = "check the network, the firewall and the proxy"
    ignored = _ignored_proxy()
    if ignored and configuration.proxy is None and not untrusted:
        help_text = (
            f"{help_text}. The environment variable {ignored} names a proxy, which the library "
            "ignores: if this machine needs it, set http.proxy"
        )
    yield Check("network", "problem", message, help_text, check.exit_status)
    if date is not None:
        yield _clock(date, begun, time.time())
    else:
        yield Check("clock", "skipped", "the API is unreachable")
    for name in ("version", "credentials"):
        yield Check(name, "skipped", "the API is unreachable")


def _ignored_proxy() -> str | None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        if os.environ.get(name):
            return name
    return None


def _clock(date: str | None, begun: float, ended: float) -> Check:
    theirs = certificate.seconds_of(date)
    if theirs is None:
        return Check("clock", "skipped", "the response has no Date header")
    # The header has a resolution of one second.
    ahead = max(begun - theirs - 1, 0) - max(theirs - ended, 0)
    if abs(ahead) < _CLOCK_WARNING:
        return Check("clock", "ok", f"within {max(1, round(abs(ahead)))} s of the server's clock")
    direction = "ahead of" if ahead > 0 else "behind"
    return Check(
        "clock",
        "problem" if abs(ahead) >= _CLOCK_PROBLEM else "warning",
        f"this machine's clock is {duration(round(abs(ahead)))} {direction} the server's",
        _CLOCK_HELP,
    )


def _version(configuration: Configuration, answer: raw.Answer, refusal: GhlError | None) -> Check:
    """Whether one of the two responses refuses the version."""
    version = configuration.document.get("apiVersion") or "v3"
    said = [text for text in (words(answer), _said(refusal)) if "version" in text.lower()]
    # An older version does not know this path.
    if said or answer.status == 404:
        return Check(
            "version",
            "problem",
            f"the API refuses the Version header {version}: {(said or [words(answer)])[0]}",
            VERSION_HELP,
        )
    return Check("version", "ok", f"the Version header {version} is not refused")


def _offer_code(client: Client, configuration: Configuration) -> GhlError | None:
    """Offers the API a code that was never issued, which uses nothing up. Returns the refusal."""
    redirect_uri = configuration.document.get("redirectUri") or "https://localhost/callback"
    try:
        client.oauth_token(
            grant_type="authorization_code",
            code=_PROBE_CODE,
            redirect_uri=redirect_uri,
            timeout=_TIMEOUT,
        )
    except GhlError as error:
        return error
    return None


def _credentials(configuration: Configuration, refusal: GhlError | None) -> Check:
    """What the refusal of the code says about the credentials.

    The API may name wrong ones; if it does not, right and wrong ones get the same answer.
    """
    if refusal is None:
        return Check("credentials", "skipped", "no verdict: the API accepted an unknown code")
    said = _said(refusal)
    if isinstance(refusal, Unauthorized) and re.search("client|credential|secret", said.lower()):
        return Check(
            "credentials",
            "problem",
            f"the API refuses client ID and client secret: {said}; the secret is from "
            f"{configuration.secret_from}",
            SECRET_HELP,
        )
    if isinstance(refusal, ReauthorizationRequired):
        return Check(
            "credentials",
            "skipped",
            "the API does not say whether client ID and secret are right",
        )
    elsewhere = isinstance(refusal, (Forbidden, NotFound, ProtocolError))
    if refusal.http_status == LOGIN_REQUIRED:
        elsewhere = True
    elif refusal.status in TEMPORARY:
        return Check(
            "credentials",
            "problem",
            f"no verdict: POST /oauth/token: {short(refusal.message)}",
            "try again later; until then no token can be refreshed",
            status.LATER,
        )
    if elsewhere:
        return Check(
            "credentials",
            "problem",
            "POST /oauth/token: something else answers in place of the API: "
            f"{short(refusal.message)}",
            OTHER_SERVER_HELP,
        )
    return Check("credentials", "skipped", f"no verdict: {short(refusal.message)}")


def _said(error: GhlError | None) -> str:
    api = (error and error.api) or {}
    return short(str(api.get("message") or api.get("code") or (error and error.message) or ""))
