"""``ghl-oauth doctor``: checks everything that tokens depend on, and reports problems."""

from __future__ import annotations

import argparse
import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path

from ... import _library
from ...client import Client
from ...errors import GhlError, ReauthorizationRequired
from ...models import FailedToken, OtherClient, Response, TokenInfo
from .. import output, status
from ..configuration import Configuration, read
from ..session import Session

# The local clock determines when tokens expire and how old webhooks are.
_CLOCK_WARNING = 30
_CLOCK_PROBLEM = 300

_MOST_NAMED = 10

DESCRIPTION = "Checks the configuration, library, store, network, clock, API version and tokens."
EXAMPLES = ("ghl-oauth doctor", "ghl-oauth doctor --json  # for a monitoring system")


def arguments(_parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments: none."""


@dataclass(frozen=True)
class Check:
    """A result. ``outcome``: ``ok``, ``warning``, ``problem``, ``consent`` or ``skipped``."""

    name: str
    outcome: str
    message: str
    help: str | None = None


def run(options: argparse.Namespace) -> int:
    """Runs and prints all checks, and returns the exit status."""
    found = []
    for check in _checks(options.config):
        found.append(check)
        if not options.json:
            print(f"{check.outcome:<8} {check.name:<14} {output.plain(check.message)}", flush=True)
            if check.help:
                print(f"{'':<8} {'':<14} → {output.plain(check.help)}", flush=True)
    outcomes = {check.outcome for check in found}
    if options.json:
        good = not outcomes & {"problem", "consent"}
        output.show_json({"ok": good, "checks": [asdict(check) for check in found]})
    if "problem" in outcomes:
        return status.ERROR
    return status.CONSENT if "consent" in outcomes else status.OK


def _checks(config_option: str | None) -> Iterator[Check]:
    yield _library_found()
    try:
        configuration = read(config_option)
    except GhlError as error:
        yield _failed("configuration", error)
        return
    for warning in configuration.warnings:
        yield Check("configuration", "warning", warning)
    try:
        session = Session(configuration)
    except GhlError as error:
        store = error.status == "GHL_ERR_STORE"
        if store:
            yield _configured(configuration)
        yield _failed("store" if store else "configuration", error)
        return
    yield _configured(configuration)
    try:
        yield from _with_client(session, configuration)
    finally:
        session.close()


def _with_client(session: Session, configuration: Configuration) -> Iterator[Check]:
    tokens: list[TokenInfo] | None = None
    unreadable: tuple[FailedToken, ...] = ()
    try:
        tokens, unreadable = session.run(_all_tokens)
    except GhlError as error:
        yield _failed("store", error)
    else:
        yield from _store(configuration)
        yield from _unreadable(unreadable)
    yield from session.run(lambda client: list(_network(client, configuration, tokens or [])))
    if tokens is not None and (tokens or not unreadable):
        yield from _tokens(tokens)
    if tokens is not None:
        try:
            yield from _rotation(
                session.run(lambda client: client.tokens_adopt()).clients,
                bool(tokens or unreadable),
            )
        except GhlError as error:
            yield _failed("store", error)
    # The check of the API version may have refreshed a token.
    for lost in session.insist():
        yield Check("store", "problem", f"{lost.resource_id}: {lost.message}", lost.help)


def _all_tokens(client: Client) -> tuple[list[TokenInfo], tuple[FailedToken, ...]]:
    pages = client.tokens_list(page_size=1000)
    return list(pages), pages.failed


def _unreadable(failed: Sequence[FailedToken]) -> Iterator[Check]:
    if failed:
        ids = ", ".join(str(each.resource_id) for each in failed[:_MOST_NAMED])
        more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
        first = failed[0].error
        yield Check(
            "tokens", "problem", f"cannot be read: {ids}{more}: {first.message}", first.help
        )


def _rotation(clients: Sequence[OtherClient], holds: bool) -> Iterator[Check]:
    """Tokens of other client ids: of another app, or of this app before a key rotation."""
    if clients:
        ids = ", ".join(f"{each.client_id} ({each.tokens})" for each in clients[:_MOST_NAMED])
        more = f" and {len(clients) - _MOST_NAMED} more" if len(clients) > _MOST_NAMED else ""
        yield Check(
            "client id",
            "ok" if holds else "warning",
            f"the database holds tokens of other client ids: {ids}{more}",
            f"if this app's client id was {clients[0].client_id} before: ghl-oauth adopt --from "
            f"{clients[0].client_id}",
        )


def _library_found() -> Check:
    version = _library.library_version()
    message = f"version {version}, ABI {_library.abi_version()}, {_library.library._name}"
    try:
        package = metadata.version("ghl-oauth")
    except metadata.PackageNotFoundError:
        package = version
    if package != version:
        return Check(
            "library",
            "warning",
            message,
            f"the Python package has version {package}: install both from one build, or unset "
            "GHL_OAUTH_LIBRARY",
        )
    return Check("library", "ok", message)


def _configured(configuration: Configuration) -> Check:
    return Check(
        "configuration",
        "ok",
        f"{configuration.path}; client secret from {configuration.secret_from}",
    )


def _store(configuration: Configuration) -> Iterator[Check]:
    path = configuration.store_path
    if path is None:
        if configuration.store_kind == "memory":
            yield Check(
                "store",
                "problem",
                "memory: tokens are lost when the process ends",
                'configure a durable store: "store": {"kind": "sqlite", "path": "tokens.db"}',
            )
        else:
            yield Check("store", "ok", f"{configuration.store_kind}, durable")
        return
    for place in (path, path.parent):
        if not os.access(place, os.W_OK):
            yield Check(
                "store", "problem", f"{place} is not writable", "grant this user write permission"
            )
            return
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        yield Check(
            "store",
            "warning",
            f"{path}: readable by other users (mode {mode:04o})",
            f"chmod 600 {path}",
        )
    else:
        yield Check("store", "ok", f"{path}: {configuration.store_kind}, durable, mode {mode:04o}")
    system = _file_system(path)
    if system in ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"):
        yield Check(
            "store",
            "problem",
            f"{path} is on a network file system ({system}), which has no reliable file locks",
            "move it to a local disk",
        )


def _file_system(path: Path) -> str | None:
    """The type of the file's file system; None if unknown (only Linux reports it)."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    place = path.resolve()
    lines = [line.split() for line in mounts.splitlines()]
    holding = [
        (len(line[1]), line[2]) for line in lines if Path(line[1]) in (place, *place.parents)
    ]
    return max(holding)[1] if holding else None


def _network(
    client: Client, configuration: Configuration, tokens: Iterable[TokenInfo]
) -> Iterator[Check]:
    base_url = configuration.document.get("baseUrl") or "https://services.leadconnectorhq.com"
    begun = time.time()
    try:
        # Without a token: an error response also shows that the API is reachable.
        answer = client.request("GET", "/oauth/installed-locations")
    except GhlError as error:
        yield _failed("network", error)
        for name in ("clock", "version"):
            yield Check(name, "skipped", "the API is unreachable")
        return
    ended = time.time()
    if answer.status >= 500:
        yield Check(
            "network",
            "warning",
            f"{base_url} responds with status {answer.status}",
            "try again later",
        )
    else:
        yield Check("network", "ok", f"{base_url} responds in {1000 * (ended - begun):.0f} ms")
    yield _clock(answer, begun, ended)
    yield _version(client, configuration, tokens, answer)


def _clock(answer: Response, begun: float, ended: float) -> Check:
    try:
        theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (TypeError, ValueError, IndexError):
        return Check("clock", "skipped", "the response has no Date header")
    # The header has a resolution of one second.
    ahead = max(begun - theirs - 1, 0) - max(theirs - ended, 0)
    if abs(ahead) < _CLOCK_WARNING:
        return Check("clock", "ok", f"within {max(1, round(abs(ahead)))} s of the server's clock")
    direction = "ahead of" if ahead > 0 else "behind"
    return Check(
        "clock",
        "problem" if abs(ahead) >= _CLOCK_PROBLEM else "warning",
        f"is {output.duration(round(abs(ahead)))} {direction} the server's clock",
        "synchronize the system clock with NTP; otherwise tokens are refreshed too early or too "
        "late",
    )


def _version(
    client: Client, configuration: Configuration, tokens: Iterable[TokenInfo], answer: Response
) -> Check:
    version = configuration.document.get("apiVersion") or "v3"
    help_text = 'set "apiVersion" in the configuration; this library is built for v3'
    said = _words(answer.body)
    usable = [token for token in tokens if token.state == "ok" and token.user_type == "Company"]
    if "version" in said:
        return Check(
            "version", "problem", f"the API refuses the Version header {version}: {said}", help_text
        )
    if not usable:
        return Check(
            "version",
            "ok",
            f"the Version header {version} is not refused; a full check needs a company token",
        )
    try:
        next(client.installed_locations(usable[0].resource_id, page_size=1), None)
    except ReauthorizationRequired as error:
        return Check("version", "consent", error.message, "ghl-oauth login")
    except GhlError as error:
        said = str(error.api and error.api.get("message"))
        if "version" in said.lower():
            return Check(
                "version",
                "problem",
                f"the API refuses the Version header {version}: {said}",
                help_text,
            )
        return _failed("version", error)
    return Check(
        "version", "ok", f"the API accepts {version} and the token of {usable[0].resource_id}"
    )


def _words(body: object) -> str:
    message = body.get("message") if isinstance(body, dict) else body
    return str(message).lower()[:200]


def _tokens(tokens: list[TokenInfo]) -> Iterator[Check]:
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
    for state, outcome, words, help_text in (
        ("reauthorizationRequired", "consent", "the user must consent again", "ghl-oauth login"),
        (
            "inactive",
            "warning",
            "the location is paused",
            "the token is kept; check the location's subscription",
        ),
        ("unsaved", "problem", "the store did not save the newest token", "check the store"),
    ):
        ids = [token.resource_id for token in tokens if token.state == state]
        if ids:
            more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
            yield Check(
                "tokens", outcome, f"{words}: {', '.join(ids[:_MOST_NAMED])}{more}", help_text
            )


def _failed(name: str, error: GhlError) -> Check:
    outcome = "consent" if isinstance(error, ReauthorizationRequired) else "problem"
    parameter = f" ({error.parameter})" if error.parameter else ""
    return Check(name, outcome, f"{error.message}{parameter}", error.help)
