"""Links to the consent page of earlier runs, so that a later run can complete them.

Their ``state`` is kept for an hour in a file of this user. It is no secret of the app: it shows
that the consent was begun by this user on this computer.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .output import replace_file

_LIFETIME = 3600
_MOST = 20


def remember(client_id: str, state: str, redirect_uri: str | None) -> None:
    """Adds a link. Without a place for the file, only this run can complete it."""
    entry = {
        "clientId": client_id,
        "state": state,
        "redirectUri": redirect_uri,
        "at": int(time.time()),
    }
    _write([*_read(), entry][-_MOST:])


def find(client_id: str, state: str) -> dict[str, Any] | None:
    """The link with this state, if it is less than an hour old."""
    for entry in _read():
        if entry.get("clientId") == client_id and entry.get("state") == state:
            return entry
    return None


def forget(state: str) -> None:
    """Removes a link that was used."""
    entries = _read()
    kept = [entry for entry in entries if entry.get("state") != state]
    if len(kept) != len(entries):
        _write(kept)


def state_of(redirect_url: str) -> str | None:
    """The state in the address to which the browser was redirected."""
    try:
        found = parse_qs(urlsplit(redirect_url).query).get("state")
    except ValueError:
        return None
    return found[0] if found else None


def place() -> Path:
    """The file.

    Raises:
        OSError: A user without a home folder, for example the account of a service.
    """
    base = os.environ.get("XDG_STATE_HOME")
    if not base and sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    if not base:
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            raise FileNotFoundError("there is no home folder")
        base = os.path.join(home, ".local", "state")
    return Path(base, "ghl-oauth", "logins.json")


def _read() -> list[dict[str, Any]]:
    try:
        entries = json.loads(place().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(entries, list):
        return []
    now = time.time()
    return [
        entry
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(entry.get("at"), (int, float))
        and now - _LIFETIME < entry["at"] <= now + _LIFETIME
    ]


def _write(entries: list[dict[str, Any]]) -> None:
    with contextlib.suppress(OSError):
        path = place()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(str(path), json.dumps(entries), 0o600)
