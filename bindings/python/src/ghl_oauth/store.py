"""Custom stores: keep the tokens of a client in the program's own database."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StorePage:
    """A page of records."""

    records: Sequence[str]
    """Records as passed to :meth:`Store.save`; pages are in byte order of the UTF-8 ids."""
    next_page_token: str | None = None
    """The id of the last record; None on the last page."""


class Store(abc.ABC):
    """A token store written in Python: ``Client(..., store=MyStore())``.

    A record is a JSON object as a string, which the store must return unchanged. Its ``"version"``,
    ``"companyId"``, ``"renewAt"`` and so on serve for queries; ``"document"`` contains a token's
    secrets, in clear text unless there are ``encryption_keys``. ``docs/stores.md`` explains the
    four rules of a store, ``examples/python/shelve_store.py`` is a complete one.

    The library calls several methods at once, from any thread that is inside a call on the client,
    and from its worker threads while :meth:`Client.tokens_mint` or :meth:`Client.tokens_maintain`
    runs. A forked child keeps using the same object. The methods must not call the client that they
    serve.

    An exception other than those named below makes the call that needed the store fail with
    :class:`StoreError`, which has the exception as its ``__cause__``. The exception is also logged,
    because a call that does not depend on the store continues, for example after a refreshed token
    could not be saved. Its text must therefore contain no secret.

    One store serves one client, which calls :meth:`close` when it ends.
    """

    encryption_keys: Sequence[str] = ()
    """Keys that encrypt records before they reach this store, each the base64 of 32 bytes: the
    first encrypts, all decrypt."""

    @abc.abstractmethod
    def load(self, resource_id: str) -> str | None:
        """Returns the record of an id, or None if there is no such record.

        Args:
            resource_id: Up to 300 bytes of UTF-8. It comes from outside: never insert it into a
                path or an SQL statement without escaping.
        """

    @abc.abstractmethod
    def save(self, resource_id: str, record_json: str, expected_version: int) -> None:
        """Saves a record if the stored record has the expected version.

        Compare and save in one atomic step across processes. The saved record must survive a crash.

        Args:
            resource_id: The id of the record.
            record_json: The record.
            expected_version: The ``"version"`` of the stored record; 0: no record exists.

        Raises:
            Conflict: Raise it if the version of the stored record differs, or if a record exists
                although none is expected, or the reverse.
        """

    @abc.abstractmethod
    def remove(self, resource_id: str) -> None:
        """Removes a record; a missing record is not an error.

        Args:
            resource_id: The id of the record.
        """

    @abc.abstractmethod
    def list(self, query: Mapping[str, Any]) -> StorePage:
        """Returns a page of records. A small store may answer every query with all its records.

        Args:
            query: ``"pageToken"``: return only ids after it; ``"pageSize"``: return at most so
                many. The other keys are filters, which only save work: ``"kind"``, ``"companyId"``,
                ``"userType"`` and ``"list"`` equal the record's field; ``"renewBy"`` and
                ``"expiredBy"``: its ``"renewAt"`` or ``"expiresAt"`` is not later;
                ``"notSealedWith"``: its ``"sealedWith"`` differs. Ignore unknown filters.
        """

    def lock(self, resource_id: str, timeout: float) -> None:
        """Takes the lock of an id, across processes; override it together with :meth:`unlock`.

        The lock must be released when its holder dies. The library itself keeps the threads of a
        process apart. Without locks, tokens are safe only while one process uses them.

        Args:
            resource_id: The id.
            timeout: How long to wait, in seconds.

        Raises:
            TimeoutError: Raise it if the lock is still taken then.
        """
        raise NotImplementedError

    def unlock(self, resource_id: str) -> None:
        """Releases the lock, on the thread that took it.

        Args:
            resource_id: The id.
        """
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027
        """Called once, when the client ends or could not be created. Default: does nothing."""
