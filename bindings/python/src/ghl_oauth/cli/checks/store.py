"""The check of the store: its disk, its contents, and whether it can be written."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..._configuration import Configuration, private
from ...client import Client
from ...errors import GhlError, NotFound, StoreError, Timeout
from ...models import FailedToken, OtherClient
from .. import raw, status
from ..explain import DISK_HELP
from ..output import names, size
from . import Check, Stage, failed, locks, short

_PROBE = "ghl-oauth-doctor"
"""The client id and the resource of the write probe, a token that no other program lists.

Its deletion leaves a note.
"""

# With less room, saving a token may fail; the first is the size of a few transactions.
_FULL = 512 * 1024
_SCARCE = 64 * 1024 * 1024

_PROBE_SIZE = 64 * 1024

_TABLES = frozenset(("token", "note"))

_POSTGRES_HELP = (
    "check the server and the network. The holder of a lock: SELECT pid, application_name, state, "
    "query FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_locks WHERE relation IN "
    "('ghl_oauth_token'::regclass, 'ghl_oauth_note'::regclass)); pg_terminate_backend(pid) ends it"
)

_RIGHTS_HELP = (
    "the role needs SELECT, INSERT, UPDATE and DELETE on ghl_oauth_token and ghl_oauth_note, and "
    "SELECT on ghl_oauth_schema"
)

_FOREIGN = re.compile(
    r"^(?:table|index) \w+ already exists|^no such (?:table|column): "
    r"|^table \w+ has no column named "
    # PostgreSQL: an undefined table or column, a duplicate table, a column of another type.
    r"| \((?:42P01|42703|42P07|42804)\)$"
)
"""The messages about tables that are not as the library created them."""

_DAMAGED_HELP = (
    "stop all processes, copy the file with its -wal and -shm, and run `ghl-oauth export --output "
    "rescue.json`, which often still works. Only then remove the three files, restore a backup if "
    "there is one, and run `ghl-oauth import rescue.json`. Companies whose tokens are then missing "
    "or rejected must consent again"
)

_RESTORE = (
    "stop all processes, copy the file with its -wal and -shm, remove the three, and restore a "
    "backup"
)

_SECTION = "*** in database main ***\n"
"""The heading of SQLite's list of damages."""

_INSPECTED = 32 * 1024 * 1024
"""The largest database that is inspected for damage, in bytes."""


@dataclass
class Found:
    """What the check found; filled in by its thread."""

    checks: list[Check] = field(default_factory=list)
    client: Client | None = None
    tokens: list[dict[str, Any]] | None = None
    """None: the store cannot be read."""
    unreadable: Sequence[FailedToken] = ()
    others: tuple[OtherClient, ...] = ()


def examine(configuration: Configuration, stage: Stage, found: Found, alone: bool) -> None:
    """Checks the store, as far as it can be reached.

    ``alone`` means that no client of this process can have it open.
    """
    path = configuration.store_path
    stage.text = "looking at the store's disk"
    if path is not None:
        found.checks += _disk(path)
        if alone and not _has_problem(found):
            stage.text = "inspecting the database"
            found.checks += _contents(path)
        if any(check.status == status.USAGE for check in found.checks):
            return  # The library would create its tables there.
        if _has_problem(found):
            # The reason is known; the errors of the library would only repeat it.
            with contextlib.suppress(GhlError):
                found.client = Client.from_config(_hasty(configuration))
                _list(found.client, found)
            return
    stage.text = "opening the store"
    try:
        found.client = Client.from_config(_hasty(configuration))
        stage.text = "reading the store"
        _list(found.client, found)
        stage.text = "writing to the store"
        _probe(configuration)
    except StoreError as error:
        found.checks.append(_store_error(error, path, stage))
        return
    except GhlError as error:
        found.checks.append(_held(error, path, stage))
        return
    if path is None:
        found.checks.append(_without_file(configuration))
    else:
        found.checks += _usable(path, configuration)
    if found.unreadable:
        first = found.unreadable[0].error
        ids = names([str(each.resource_id) for each in found.unreadable])
        found.checks.append(
            Check(
                "tokens",
                "problem",
                f"cannot be read: {ids}: {first.message}",
                first.help,
                status.UNREADABLE,
            )
        )


def _has_problem(found: Found) -> bool:
    return any(check.outcome == "problem" for check in found.checks)


def _probe(configuration: Configuration) -> None:
    """Saves, replaces and deletes a token, so that all rights and columns are tested."""
    token = {"accessToken": "none", "companyId": _PROBE, "userType": "Company"}
    with Client.from_config({**_hasty(configuration), "clientId": _PROBE}) as client:
        with contextlib.suppress(NotFound):
            client.token_delete(_PROBE)
        for _ in range(2):
            for skipped in client.tokens_import([token], replace=True).skipped:
                raise StoreError({"message": skipped.reason})
        client.token_delete(_PROBE)


def _hasty(configuration: Configuration) -> dict[str, object]:
    """The configuration with time limits that leave time for the other steps."""
    timeouts = configuration.document.get("timeouts")
    timeouts = dict(timeouts) if isinstance(timeouts, dict) else {}
    for key, limit in (("totalMs", 3_000), ("connectMs", 3_000)):
        given = timeouts.get(key)
        timeouts[key] = min(given, limit) if isinstance(given, int) else limit
    return {**configuration.document, "timeouts": timeouts}


def _list(client: Client, found: Found) -> None:
    found.tokens, found.unreadable = raw.stored_tokens(client)
    with contextlib.suppress(GhlError):
        clients = client.tokens_adopt().clients
        found.others = tuple(other for other in clients if other.client_id != _PROBE)


def _disk(path: Path) -> Iterator[Check]:
    """The folder: its room, its permissions, its file system."""
    folder = path.parent
    if not folder.is_dir():
        yield Check("store", "problem", f"the folder {folder} does not exist", f"mkdir -p {folder}")
        return
    system = _file_system(path)
    if system in ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"):
        yield Check(
            "store",
            "problem",
            f"{path} is on a network file system ({system}), which has no reliable file locks",
            "move it to a local disk",
        )
    misplaced = [*_misplaced(path)]
    if misplaced:
        yield from misplaced
        return
    if _is_read_only(path if path.exists() else folder):
        yield Check(
            "store",
            "problem",
            f"the file system of {folder} is mounted read-only",
            "set store.path to a file on a writable disk (in a container: on a volume), or mount "
            "this one with write access; Linux also makes a disk with errors read-only (dmesg)",
        )
        return
    for place in (path, folder):
        if os.path.exists(place) and not os.access(place, os.W_OK):
            yield Check(
                "store", "problem", f"{place} is not writable", "grant this user write permission"
            )
            return
    yield from _owners(path)
    room, entries = _room(folder)
    try:
        with tempfile.TemporaryFile(prefix=".ghl-oauth-probe-", dir=folder) as probe:
            probe.write(bytes(_PROBE_SIZE))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or (room or _FULL) < _FULL
        yield Check(
            "store",
            "problem",
            f"{folder} cannot be written: {error.strerror}"
            + (f" ({size(room)} free)" if full and room is not None else ""),
            DISK_HELP if full else "check the disk and the permissions of the folder",
        )
        return
    if room is not None and room < _SCARCE:
        yield Check(
            "store",
            "problem" if room < _FULL else "warning",
            f"the disk of {folder} is {'full' if room < _FULL else 'nearly full'}: "
            f"{size(room)} free",
            DISK_HELP,
        )
    elif entries == 0:
        yield Check(
            "store", "problem", f"the file system of {folder} has no free inodes", DISK_HELP
        )


def _misplaced(path: Path) -> Iterator[Check]:
    """What keeps the library from opening the database and the folder of its locks."""
    for place, fits, noun in (
        (path, stat.S_ISREG, "a regular file"),
        (Path(f"{path}.locks"), stat.S_ISDIR, "a folder"),
    ):
        try:
            if not fits(place.stat().st_mode):
                yield Check(
                    "store",
                    "problem",
                    f"{place} is not {noun}",
                    "move it away, or set store.path to another file",
                )
        except FileNotFoundError:
            pass  # The library creates it.
        except OSError as error:
            yield Check(
                "store",
                "problem",
                f"{place} cannot be opened: {error.strerror}",
                "move it away, or set store.path to another file",
            )
            return


def _owners(path: Path) -> Iterator[Check]:
    """The files next to the database that another user, often root, has created."""
    locks_folder = Path(f"{path}.locks")
    files = [Path(f"{path}-wal"), Path(f"{path}-shm"), locks_folder]
    with contextlib.suppress(OSError):
        files += locks_folder.iterdir()
    denied = [
        file for file in files if os.path.exists(file) and not os.access(file, os.R_OK | os.W_OK)
    ]
    if denied:
        more = f" and {len(denied) - 1} more" if len(denied) > 1 else ""
        yield Check(
            "store",
            "problem",
            f"{denied[0]}{more} cannot be written: it belongs to another user",
            f"chown --reference={path} -R {denied[0]}, and run all programs as the owner of the "
            "database",
        )


def _room(folder: Path) -> tuple[int | None, int | None]:
    """The free bytes and inodes for this user; None if unknown."""
    statistics = getattr(os, "statvfs", None)
    if statistics is None:
        import shutil

        return shutil.disk_usage(folder).free, None
    try:
        found = statistics(folder)
    except OSError:
        return None, None
    return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None


def _is_read_only(place: Path) -> bool:
    try:
        return bool(os.statvfs(place).f_flag & os.ST_RDONLY)
    except (AttributeError, OSError):  # Windows has no such function
        return False


def _contents(path: Path) -> Iterator[Check]:
    """The tables of the database: another program's, or damaged.

    Must end before this process opens the store: a process that closes a file loses all its locks
    on it, also the locks of another SQLite.
    """
    try:
        size_now = path.stat().st_size
    except OSError:
        return  # The library creates it.
    if size_now == 0:
        return
    try:
        import sqlite3  # imported here because it is slow
    except ImportError:
        return  # Some builds of Python omit it.
    uri = f"{path.absolute().as_uri()}?mode=ro"
    is_small = size_now <= _INSPECTED
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=1)) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = [str(name) for (name,) in found]
            damage = "ok"
            if is_small:
                damage = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error:
        return  # The library reports what is wrong.
    if damage != "ok":
        yield Check(
            "store",
            "problem",
            f"the database {path} is damaged: {short(damage.split(_SECTION)[-1])}",
            _DAMAGED_HELP,
        )
        return
    if not is_small:
        yield Check(
            "store",
            "skipped",
            f"{path} was not checked for damage ({size(size_now)})",
            f"sqlite3 -readonly {shlex.quote(str(path))} 'PRAGMA quick_check'",
        )
    foreign = sorted(table for table in set(tables) - _TABLES if not table.startswith("sqlite_"))
    if foreign:
        yield Check(
            "store",
            "warning" if _TABLES.issubset(tables) else "problem",
            f"the database {path} belongs to another program: it has the tables {names(foreign)}",
            "set store.path to a file of its own; if it holds tokens, first "
            "`ghl-oauth export` and then `ghl-oauth import` them",
            None if _TABLES.issubset(tables) else status.USAGE,
        )


def _store_error(error: StoreError, path: Path | None, stage: Stage) -> Check:
    # The message contains the path, which may contain any words: only its end is looked at.
    reason = error.message.rpartition(" failed: ")[2]
    if reason in ("database disk image is malformed", "file is not a database"):
        kind = "is not an SQLite database" if reason.startswith("file") else f"is damaged: {reason}"
        return Check("store", "problem", f"the database {path} {kind}", _DAMAGED_HELP)
    if _FOREIGN.search(reason):
        return Check(
            "store",
            "problem",
            f"{error.message.rpartition(' failed: ')[0]} belongs to another program, or its tables "
            f"were changed: {short(reason)}",
            f"set store.{'url' if path is None else 'path'} to a database of its own; if a table "
            f"or column of the library was removed, {_RESTORE if path else 'restore a backup'}",
            status.USAGE,
        )
    if reason.endswith(" (42501)"):
        # Only the failures of the write probe have no help of the library.
        return Check("store", "problem", error.message, error.help or _RIGHTS_HELP)
    if error.message.startswith("the disk of the database ") and reason.endswith(" is full"):
        return Check("store", "problem", error.message, f"{error.help}. {DISK_HELP}")
    return _held(error, path, stage)


def _held(error: GhlError, path: Path | None, stage: Stage) -> Check:
    """The finding for an error that another program's lock may have caused."""
    check = failed("store", error)
    holders = locks.writers(path) if path is not None else []
    if path is not None and (isinstance(error, Timeout) or error.message.endswith(" is locked")):
        who = f": it is held by {', '.join(holders)}" if holders else ""
        return Check(
            "store",
            "problem",
            f"the write lock of {path} is not free{who}; {error.message}",
            "end that program, or the transaction that it left open; until then no new token is "
            "saved",
            status.LATER,
        )
    if isinstance(error, Timeout):
        return Check(
            "store",
            "problem",
            f"{error.message}, while {stage.text}: another transaction may hold a lock",
            _POSTGRES_HELP,
            status.LATER,
        )
    return check


def held(path: Path | None, stage: Stage, seconds: float) -> Check:
    """The finding for a store that did not answer in time."""
    holders = locks.writers(path) if path is not None else []
    who = f"; its lock is held by {', '.join(holders)}" if holders else ""
    return Check(
        "store",
        "problem",
        f"no answer within {seconds:.0f} s while {stage.text}{who}",
        "check the disk" if path is not None else _POSTGRES_HELP,
        status.LATER,
    )


def _without_file(configuration: Configuration) -> Check:
    if configuration.store_kind == "memory":
        return Check(
            "store",
            "problem",
            "memory: tokens are lost when the process ends",
            'configure a durable store: "store": {"kind": "sqlite", "path": "tokens.db"}',
        )
    return Check("store", "ok", f"{configuration.store_kind}, durable; a write probe was saved")


def _usable(path: Path, configuration: Configuration) -> Iterator[Check]:
    try:
        found = path.stat()
    except OSError as error:
        yield Check("store", "problem", f"{path}: {error.strerror}", None)
        return
    mode = stat.S_IMODE(found.st_mode)
    if os.name == "posix" and mode & 0o077:
        yield Check(
            "store",
            "warning",
            f"{path}: readable by other users (mode {mode:04o})",
            private(path, found),
        )
    else:
        room, _ = _room(path.parent)
        free = "" if room is None else f", {size(room)} free"
        yield Check(
            "store",
            "ok",
            f"{path}: {configuration.store_kind}, durable, mode {mode:04o}{free}; a write probe "
            "was saved",
        )
    busy = locks.refreshing(path)
    if busy:
        yield Check("store", "ok", f"a token is being refreshed by {', '.join(busy)}")


def rotation(others: tuple[OtherClient, ...], holds: bool) -> Iterator[Check]:
    """Tokens of other client ids: of another app, or of this app before a key rotation."""
    if others:
        ids = names([f"{each.client_id} ({each.tokens})" for each in others])
        yield Check(
            "client id",
            "ok" if holds else "warning",
            f"the database holds tokens of other client ids: {ids}",
            f"if this app's client id was {others[0].client_id} before: ghl-oauth adopt --from "
            f"{others[0].client_id}",
        )


def _file_system(path: Path) -> str | None:
    """The type of the file's file system; None if unknown (only Linux reports it)."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    place = Path(os.path.realpath(path))
    lines = [line.split() for line in mounts.splitlines()]
    holding = [
        (len(line[1]), line[2]) for line in lines if Path(line[1]) in (place, *place.parents)
    ]
    return max(holding)[1] if holding else None
