"""Which process holds a lock on a file. Only Linux tells."""

from __future__ import annotations

import contextlib
import os

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterable

# The byte of the -shm file that a writer of a database in WAL mode locks, and the byte of the
# database file from which an exclusive lock begins: https://www.sqlite.org/fileformat2.html
_WRITER_BYTE = 120
_PENDING_BYTE = 0x4000_0000


def writers(database: str) -> list[str]:
    """The processes that keep others from writing to an SQLite database, for messages."""
    return _describe(
        _holders(f"{database}-shm", _WRITER_BYTE)
        | _holders(database, _PENDING_BYTE)
        | _holders(os.path.join(f"{database}.locks", "writer"), None)
    )


def refreshing(database: str) -> list[str]:
    """The processes that are refreshing a token, for messages."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        folder = f"{database}.locks"
        for name in os.listdir(folder):
            if name != "writer":
                found |= _holders(os.path.join(folder, name), None)
    return _describe(found)


def _holders(file: str, byte: int | None) -> set[int]:
    """The processes with an exclusive lock on a byte of a file, or on the file (None).

    0 is a process that is not visible here, for instance outside this container.
    """
    try:
        status = os.stat(file)
        with open("/proc/locks", encoding="utf-8", errors="replace") as locks:
            lines = locks.readlines()
    except OSError:
        return set()
    identity = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found = set()
    for line in lines:
        words = line.split()
        # A line with an arrow is a process that waits.
        if len(words) != 8 or words[3] != "WRITE" or words[5] != identity:
            continue
        begin, end = int(words[6]), None if words[7] == "EOF" else int(words[7])
        if byte is None or (begin <= byte and (end is None or byte <= end)):
            process = int(words[4])
            # The lock of an open file description belongs to no process.
            found |= _openers(file) if process == -1 else {process}
    return found - {os.getpid()}


def _openers(file: str) -> set[int]:
    """The other processes that have a file open."""
    found = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            folder = f"/proc/{process}/fd"
            if any(os.path.samefile(f"{folder}/{link}", file) for link in os.listdir(folder)):
                found.add(int(process))
    return found or {0}


def _describe(processes: Iterable[int]) -> list[str]:
    return [_describe_one(process) for process in sorted(processes)]


def _describe_one(process: int) -> str:
    if process <= 0:
        return "a process outside this container"
    try:
        with open(f"/proc/{process}/comm", errors="replace") as file:
            name = file.read().strip()
        # Of the arguments only the program, since others may be secrets.
        with open(f"/proc/{process}/cmdline", "rb") as arguments:
            words = arguments.read().split(b"\0")
    except OSError:
        return f"process {process}"
    script = os.fsdecode(words[1]) if len(words) > 1 else ""
    if script and os.path.isfile(os.path.join(f"/proc/{process}/cwd", script)):
        name += f" {os.path.basename(script)}"
    return f"process {process} ({name})"
