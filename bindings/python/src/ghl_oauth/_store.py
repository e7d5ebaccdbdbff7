"""Adapter from a :class:`Store` to the library's struct of C callbacks."""

from __future__ import annotations

import itertools
import json
import logging
import re
from ctypes import addressof, create_string_buffer, sizeof
from typing import Any, Callable

from ._callback import callback
from ._library import StoreCallbacks
from .errors import Conflict, GhlError, Timeout
from .store import Store

# The first number that a callback returns if its method raised: each exception has its own number,
# by which the library's error is matched to it. Smaller numbers are statuses.
_FIRST_NUMBER = 1_000
_MOST_REMEMBERED = 64

_INTERRUPTED = 999

_FIELDS: Any = StoreCallbacks._fields_
_TYPES: dict[str, Any] = dict(_FIELDS)


class Bridge:
    """Connects a store to a client. Must live until the client is freed."""

    def __init__(self, store: Store) -> None:
        locks = [
            getattr(type(store), name) is not getattr(Store, name) for name in ("lock", "unlock")
        ]
        if any(locks) and not all(locks):
            raise TypeError(f"{type(store).__name__} must have both lock and unlock, or neither")
        self._store = store
        self._numbers = itertools.count(_FIRST_NUMBER)
        self._failures: dict[int, Exception] = {}
        # Returned strings by address. Not by thread: each callback on a thread of the library has a
        # new Python thread identity.
        self._texts: dict[int, Any] = {}
        self._callbacks = {
            "load": self._fallible("load", self._load),
            "save": self._fallible("save", self._save),
            "remove": self._fallible("remove", self._remove),
            "list": self._fallible("list", self._list),
            "free_string": callback(_TYPES["free_string"], self._free_string),
            "destroy": callback(_TYPES["destroy"], self._destroy),
        }
        if all(locks):
            self._callbacks["lock"] = self._fallible("lock", self._lock)
            self._callbacks["unlock"] = callback(_TYPES["unlock"], self._unlock)
        self.struct = StoreCallbacks(size=sizeof(StoreCallbacks), **self._callbacks)

    def cause_of(self, error: GhlError) -> Exception | None:
        """The exception of a store method that made a call fail, or None."""
        found = re.search(r"it answered (\d+)", error.message)
        return self._failures.get(int(found.group(1))) if found else None

    def failures(self) -> tuple[int, ...]:
        """The numbers of the remembered exceptions."""
        return tuple(self._failures)

    def forget(self, failures: tuple[int, ...]) -> None:
        """Releases exceptions when no call is left that could need them as a cause.

        Their tracebacks reference the frames of the calls, and through them the client.
        """
        for number in failures:
            self._failures.pop(number, None)

    def _fallible(self, name: str, function: Callable[..., None]) -> Any:
        def succeed(_context: int | None, *arguments: Any) -> int:
            function(*arguments)
            return 0

        def refuse(error: Exception) -> int:
            if name == "save" and isinstance(error, Conflict):
                return Conflict.code
            if name == "lock" and isinstance(error, (TimeoutError, Timeout)):
                return Timeout.code
            logging.getLogger("ghl_oauth").error(
                "the store could not %s: %s: %s", name, type(error).__name__, error
            )
            number = next(self._numbers)
            self._failures[number] = error
            self._failures.pop(number - _MOST_REMEMBERED, None)
            return number

        # An interrupted save is repeated: the record may contain the only successor of a token that
        # the server has consumed.
        return callback(
            _TYPES[name],
            succeed,
            failed=_INTERRUPTED,
            refused=refuse,
            repeated=name == "save",
        )

    def _load(self, resource_id: bytes, out: Any) -> None:
        record = self._store.load(resource_id.decode())
        if record is not None:
            self._hand_out(record, out)

    def _save(self, resource_id: bytes, record_json: bytes, expected_version: int) -> None:
        self._store.save(resource_id.decode(), record_json.decode(), expected_version)

    def _remove(self, resource_id: bytes) -> None:
        self._store.remove(resource_id.decode())

    def _list(self, query: bytes, out: Any) -> None:
        page = self._store.list(json.loads(query))
        next_page_token = json.dumps(page.next_page_token)
        self._hand_out(
            f'{{"items": [{",".join(page.records)}], "nextPageToken": {next_page_token}}}', out
        )

    def _lock(self, resource_id: bytes, timeout_ms: int) -> None:
        self._store.lock(resource_id.decode(), timeout_ms / 1000)

    def _unlock(self, _context: int | None, resource_id: bytes) -> None:
        self._store.unlock(resource_id.decode())

    def _hand_out(self, text: str, out: Any) -> None:
        buffer = create_string_buffer(text.encode())
        self._texts[addressof(buffer)] = buffer
        out[0] = addressof(buffer)

    def _free_string(self, _context: int | None, address: int) -> None:
        buffer = self._texts.pop(address)
        buffer[:] = bytes(len(buffer))

    def _destroy(self, _context: int | None) -> None:
        self._store.close()
