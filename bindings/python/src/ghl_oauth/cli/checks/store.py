"""The check of the store: its disk, its contents, and whether it can be written."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat

from ..._configuration import private
from ...client import Client
from ...errors import GhlError, NotFound, StoreError, Timeout
from .. import raw, status
from ..explain import DISK_HELP
from ..output import names, size
from . import Check, Stage, failed, locks, short

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from ..._configuration import Configuration
    from ...models import FailedToken

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

_FOREIGN = (
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


class Found:
    """The result of the check; filled in by its thread."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.client: Client | None = None
        self.tokens: list[dict[str, Any]] | None = None
        """None: the store cannot be read."""
        self.unreadable: Sequence[FailedToken] = ()
        self.others: list[dict[str, Any]] = []


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
            raw.delete_token(client, _PROBE)
        for _ in range(2):
            skipped = raw.import_token(client, token)
            if skipped is not None:
                raise StoreError({"message": skipped})
        raw.delete_token(client, _PROBE)


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
        clients = raw.other_clients(client)
        found.others = [other for other in clients if other["clientId"] != _PROBE]


def _disk(path: str) -> Iterator[Check]:
    """The folder: its room, its permissions, its file system."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
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
    if _is_read_only(path if os.path.exists(path) else folder):
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
        _write_to(folder)
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


def _write_to(folder: str) -> None:
    """Writes and syncs a file that disappears even if the disk hangs and this process is ended."""
    path = os.path.join(folder, f".ghl-oauth-probe-{os.urandom(8).hex()}")
    windows_deletes_it = getattr(os, "O_TEMPORARY", 0)  # when it is closed
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | windows_deletes_it, 0o600)
    with open(descriptor, "wb") as probe:
        if not windows_deletes_it:
            os.unlink(path)
        probe.write(bytes(_PROBE_SIZE))
        probe.flush()
        os.fsync(probe.fileno())


def _misplaced(path: str) -> Iterator[Check]:
    """What keeps the library from opening the database and the folder of its locks."""
    for place, fits, noun in (
        (path, stat.S_ISREG, "a regular file"),
        (f"{path}.locks", stat.S_ISDIR, "a folder"),
    ):
        try:
            if not fits(os.stat(place).st_mode):
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


def _owners(path: str) -> Iterator[Check]:
    """The files next to the database that another user, often root, has created."""
    folder = f"{path}.locks"
    files = [f"{path}-wal", f"{path}-shm", folder]
    with contextlib.suppress(OSError):
        files += [os.path.join(folder, name) for name in os.listdir(folder)]
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


def _room(folder: str) -> tuple[int | None, int | None]:
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


def _is_read_only(place: str) -> bool:
    try:
        return bool(os.statvfs(place).f_flag & os.ST_RDONLY)
    except (AttributeError, OSError):  # Windows has no such function
        return False


def _contents(path: str) -> Iterator[Check]:
    """The tables of the database: another program's, or damaged.

    Must end before this process opens the store: a process that closes a file loses all its locks
    on it, also the locks of another SQLite.
    """
    try:
        size_now = os.stat(path).st_size
    except OSError:
        return  # The library creates it.
    if size_now == 0:
        return
    try:
        import sqlite3  # imported here because it is slow
    except ImportError:
        return  # Some builds of Python omit it.
    uri = f"{_uri(path)}?mode=ro"
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
        import shlex  # imported here because only a large database needs it

        yield Check(
            "store",
            "skipped",
            f"{path} was not checked for damage ({size(size_now)})",
            f"sqlite3 -readonly {shlex.quote(path)} 'PRAGMA quick_check'",
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


def _uri(path: str) -> str:
    """A file as a URI: https://www.sqlite.org/uri.html."""
    if os.name == "nt":
        path = "/" + path.replace("\\", "/")
    return "file://" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _store_error(error: StoreError, path: str | None, stage: Stage) -> Check:
    # The message contains the path, which may contain any words: only its end is looked at.
    reason = error.message.rpartition(" failed: ")[2]
    if reason in ("database disk image is malformed", "file is not a database"):
        kind = "is not an SQLite database" if reason.startswith("file") else f"is damaged: {reason}"
        return Check("store", "problem", f"the database {path} {kind}", _DAMAGED_HELP)
    if re.search(_FOREIGN, reason):
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


def _held(error: GhlError, path: str | None, stage: Stage) -> Check:
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


def held(path: str | None, stage: Stage, seconds: float) -> Check:
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


def _usable(path: str, configuration: Configuration) -> Iterator[Check]:
    try:
        found = os.stat(path)
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
        room, _ = _room(os.path.dirname(path) or ".")
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


def rotation(others: Sequence[Mapping[str, Any]], holds: bool) -> Iterator[Check]:
    """Tokens of other client ids: of another app, or of this app before a key rotation."""
    if others:
        ids = names([f"{each['clientId']} ({each['tokens']})" for each in others])
        first = others[0]["clientId"]
        yield Check(
            "client id",
            "ok" if holds else "warning",
            f"the database holds tokens of other client ids: {ids}",
            f"if this app's client id was {first} before: ghl-oauth adopt --from {first}",
        )


def _file_system(path: str) -> str | None:
    """The type of the file's file system; None if unknown (only Linux reports it)."""
    try:
        with open("/proc/mounts", encoding="utf-8", errors="replace") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return None
    place = os.path.realpath(path)
    holding = [
        (len(point), system)
        for _, point, system, *_ in mounts
        if place == point or place.startswith(point.rstrip("/") + "/")
    ]
    return max(holding)[1] if holding else None
