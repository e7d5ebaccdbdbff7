"""Stores written in Python: a client keeps its tokens where a program already keeps its data."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StorePage:
    """A page of a store's records."""

    records: Sequence[str]
    """Records as :meth:`Store.save` got them, in the order of their ids' UTF-8 bytes where there are several pages."""
    next_page_token: str | None = None
    """The last record's id; None on the last page."""


class Store(abc.ABC):
    """Where a client keeps its tokens, written in Python: ``Client(..., store=MyStore())``.

    A record is a JSON object in a text, to be kept as it is and given back as it was. Its ``"version"``,
    ``"companyId"``, ``"renewAt"`` and so on are there to look records up by; ``"document"`` holds a token's secrets, in
    clear unless there are ``encryption_keys``. ``docs/stores.md`` has the four things that matter,
    ``examples/python/shelve_store.py`` a whole store.

    The methods are called from any thread, several at once: from those that are inside a call on the client, and from
    threads of the library while :meth:`Client.tokens_mint` or :meth:`Client.tokens_maintain` runs. In a forked child
    the same object goes on serving its client. They must not call that client.

    What a method raises, but for what is named here, makes the call that needed it fail with :class:`StoreError`, whose
    ``__cause__`` it is; it is logged, too, since a call that does not need the store at once, such as that of a token
    which was refreshed but could not be saved, goes on. So its words must hold no secret.

    One store serves one client, which calls :meth:`close` at its end.
    """

    encryption_keys: Sequence[str] = ()
    """What records are sealed with before they come here, each the base64 of 32 bytes: the first seals, all open."""

    @abc.abstractmethod
    def load(self, resource_id: str) -> str | None:
        """The record of an id, or None where there is none.

        Args:
            resource_id: Up to 300 bytes of UTF-8. It comes from outside: never build a path or a statement from it as
                it is.
        """

    @abc.abstractmethod
    def save(self, resource_id: str, record_json: str, expected_version: int) -> None:
        """Saves a record, if the stored one has the expected version. It must survive a crash when this returns.

        Look and save in one step that no other process can come between.

        Args:
            resource_id: The record's id.
            record_json: The record.
            expected_version: The ``"version"`` of the stored record; 0: there is none yet.

        Raises:
            Conflict: To be raised where the stored record has another version, is there though it should not be, or
                the other way round.
        """

    @abc.abstractmethod
    def remove(self, resource_id: str) -> None:
        """Removes a record; one that is not there is no error.

        Args:
            resource_id: The record's id.
        """

    @abc.abstractmethod
    def list(self, query: Mapping[str, Any]) -> StorePage:
        """A page of records. A small store may answer every query with all its records.

        Args:
            query: Where to go on (``"pageToken"``: only ids after it), how many (``"pageSize"``), and conditions, which
                are there to save work: ``"kind"``, ``"companyId"``, ``"userType"`` and ``"list"`` equal the record's;
                ``"renewBy"`` and ``"expiredBy"``: its ``"renewAt"`` or ``"expiresAt"`` is at most that;
                ``"notSealedWith"``: its ``"sealedWith"`` is another. One that is not known is to be ignored.
        """

    def lock(self, resource_id: str, timeout: float) -> None:
        """Takes the lock of an id against other processes; override it together with :meth:`unlock`.

        It must come free when its holder dies. The threads of a process are kept apart by the library. Without it,
        tokens are safe as long as one process uses them.

        Args:
            resource_id: The id.
            timeout: How long to wait, in seconds.

        Raises:
            TimeoutError: To be raised where it is not free by then.
        """
        raise NotImplementedError

    def unlock(self, resource_id: str) -> None:
        """Gives the lock back, on the thread that took it.

        Args:
            resource_id: The id.
        """
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027
        """Called once, when the client has ended or could not be made. Does nothing here."""
