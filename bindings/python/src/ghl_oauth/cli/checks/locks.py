"""Which process holds a lock on a file. Only Linux tells."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

# The byte of the -shm file that a writer of a database in WAL mode locks, and the byte of the
# database file from which an exclusive lock begins: https://www.sqlite.org/fileformat2.html
_WRITER_BYTE = 120
_PENDING_BYTE = 0x4000_0000


def writers(database: Path) -> list[str]:
    """The processes that keep others from writing to an SQLite database, for messages."""
    return _describe(
        _holders(Path(f"{database}-shm"), _WRITER_BYTE)
        | _holders(database, _PENDING_BYTE)
        | _holders(Path(f"{database}.locks") / "writer", None)
    )


def refreshing(database: Path) -> list[str]:
    """The processes that are refreshing a token, for messages."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for file in Path(f"{database}.locks").iterdir():
            if file.name != "writer":
                found |= _holders(file, None)
    return _describe(found)


def _holders(file: Path, byte: int | None) -> set[int]:
    """The processes with an exclusive lock on a byte of a file, or on the file (None).

    0 is a process that is not visible here, for instance outside this container.
    """
    try:
        status = file.stat()
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
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


def _openers(file: Path) -> set[int]:
    """The other processes that have a file open."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if any(os.path.samefile(link, file) for link in (process / "fd").iterdir()):
                    found.add(int(process.name))
    return found or {0}


def _describe(processes: Iterable[int]) -> list[str]:
    return [_describe_one(process) for process in sorted(processes)]


def _describe_one(process: int) -> str:
    if process <= 0:
        return "a process outside this container"
    try:
        name = Path(f"/proc/{process}/comm").read_text(errors="replace").strip()
        # Of the arguments only the program, since others may be secrets.
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return f"process {process}"
    script = os.fsdecode(words[1]) if len(words) > 1 else ""
    if script and os.path.isfile(os.path.join(f"/proc/{process}/cwd", script)):
        name += f" {os.path.basename(script)}"
    return f"process {process} ({name})"
