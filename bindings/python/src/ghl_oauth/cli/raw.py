"""Calls whose results stay the library's documents.

The dataclasses of :mod:`ghl_oauth.models` would take a quarter of a command's time: they are slow
to create, and so is the import of :mod:`dataclasses`.
"""

from __future__ import annotations

from .._boundary import encode_id
from .._library import library
from ..client import milliseconds
from ..models._fields import body

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..client import Client
    from ..models import FailedToken


class Answer:
    """The API's response to a request, with any status."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.status: int = document["status"]
        self.headers: Mapping[str, str] = document["headers"]
        """By lower-case name."""
        self.body = body(document)
        self.ok = 200 <= self.status < 300


def get(client: Client, path: str, *, timeout: float, **params: Any) -> Answer:
    """Sends a GET request.

    ``params`` are further parameters of ``ghl_request``, with the library's names.
    """
    params |= {"method": "GET", "path": path, "timeoutMs": milliseconds(timeout)}
    return Answer(client._call_with(library.ghl_request, **params))


def stored_tokens(
    client: Client, **filters: Any
) -> tuple[list[dict[str, Any]], Sequence[FailedToken]]:
    """The stored tokens, and the failures of the unreadable ones.

    ``filters`` are parameters of ``ghl_tokens_list``, with the library's names.
    """
    params = {**filters, "pageSize": 1000}
    pages = client._token_pages(library.ghl_tokens_list, "items", dict, params, None)
    return list(pages), pages.failed


def other_clients(client: Client) -> list[dict[str, Any]]:
    """The other client ids that have tokens in the same database, each with their number."""
    clients: list[dict[str, Any]] = client._call_with(library.ghl_tokens_adopt)["clients"]
    return clients


def import_token(client: Client, token: Mapping[str, Any]) -> str | None:
    """Imports a token, which may replace a newer one. Returns why it was skipped, or None."""
    done = client._call_with(library.ghl_tokens_import, tokens=[token], replace=True)
    skipped: str | None = next((skip["reason"] for skip in done["skipped"]), None)
    return skipped


def delete_token(client: Client, resource_id: str) -> None:
    """Deletes a token.

    Raises:
        NotFound: No token is held for it.
    """
    client._open().call_without(library.ghl_token_delete, encode_id(resource_id))
