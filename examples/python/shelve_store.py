"""A store written in Python: tokens in a `shelve`, with `fcntl` locks. For Linux and macOS.

    with ghl_oauth.Client(…, store=ShelveStore("tokens")) as client: …

It shows the duties of a store and suits a few hundred tokens: each save closes the shelf and waits
for the disk. As a program it lists the records of a store:

    python3 shelve_store.py tokens
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shelve
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import ghl_oauth


class ShelveStore(ghl_oauth.Store):
    """Several threads and processes may use one path at the same time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(path)
        self._locks = self._path + ".locks"
        os.makedirs(self._locks, mode=0o700, exist_ok=True)
        self._held: dict[str, int] = {}
        # A forked child inherits the lock descriptors of its parent and must close them to let the
        # locks come free.
        os.register_at_fork(after_in_child=self._forget_locks)

    def load(self, resource_id: str) -> str | None:
        with self._shelf() as shelf:
            return shelf.get(resource_id)

    def save(self, resource_id: str, record_json: str, expected_version: int) -> None:
        with self._shelf() as shelf:
            stored = shelf.get(resource_id)
            version = 0 if stored is None else json.loads(stored)["version"]
            if version != expected_version:
                raise ghl_oauth.Conflict
            shelf[resource_id] = record_json
        self._wait_for_disk()

    def remove(self, resource_id: str) -> None:
        with self._shelf() as shelf:
            shelf.pop(resource_id, None)
        self._wait_for_disk()

    def list(self, query: Mapping[str, Any]) -> ghl_oauth.StorePage:
        with self._shelf() as shelf:
            return ghl_oauth.StorePage(list(shelf.values()))

    def lock(self, resource_id: str, timeout: float) -> None:
        # Ids are external input and not safe as file names. The file is never removed: another
        # process may be about to lock it.
        name = hashlib.sha256(resource_id.encode()).hexdigest()
        descriptor = os.open(os.path.join(self._locks, name), os.O_RDWR | os.O_CREAT, 0o600)
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < end:
                    time.sleep(0.01)
                    continue
                os.close(descriptor)
                raise TimeoutError from None
            self._held[resource_id] = descriptor
            return

    def unlock(self, resource_id: str) -> None:
        descriptor = self._held.pop(resource_id)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    @contextmanager
    def _shelf(self) -> Generator[shelve.Shelf[str], None, None]:
        """The shelf, exclusively for this thread."""
        descriptor = os.open(os.path.join(self._locks, "shelf"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = os.umask(0o077)  # the tokens are in plain text unless encryption_keys are set
            try:
                shelf = shelve.open(self._path)
            finally:
                os.umask(before)
            with shelf:
                yield shelf
        finally:
            os.close(descriptor)

    def _wait_for_disk(self) -> None:
        """Syncs to disk: the replaced token is used up, so a power cut must not undo the save."""
        for path in [*glob.glob(glob.escape(self._path) + "*"), os.path.dirname(self._path)]:
            if not path.endswith(".locks"):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def _forget_locks(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()


def main() -> None:
    for record in ShelveStore(sys.argv[1]).list({}).records:
        fields = json.loads(record)
        print(fields["kind"], fields["resourceId"], "version", fields["version"])


if __name__ == "__main__":
    main()
