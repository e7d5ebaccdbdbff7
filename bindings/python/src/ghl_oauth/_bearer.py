"""The ``Authorization`` header with a valid token, shared by the plug-ins of all HTTP libraries."""

from __future__ import annotations

import threading

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from .client import Client

# The only errors that a new access token fixes; for any other, a refresh would be wasted.
_CURABLE = ("invalid jwt", "access token is invalid")


class Bearer:
    """The ``Authorization`` header of one resource, renewed when the API rejects the token."""

    def __init__(self, client: Client, resource_id: str) -> None:
        self._client = client
        self._resource_id = resource_id
        self._renewing = threading.Lock()
        self._in_vain: str | None = None

    def live_header(self) -> str | None:
        """The value of the header from memory, without waiting; None if that is not possible."""
        token = self._client._open().token_in_memory(self._resource_id)
        return None if token is None else f"Bearer {token}"

    def header(self) -> str:
        """The value of the header, with a valid token."""
        return f"Bearer {self._client.access_token(self._resource_id)}"

    def renew(self, refused: str) -> str | None:
        """A new header after ``refused`` met a curable 401; None if a repetition is useless.

        Requests that are refused at the same time share one refresh. A new token that is refused as
        well is not renewed again; otherwise every further request would spend a refresh token.
        """
        with self._renewing:
            current = self.header()
            if current != refused:
                return current
            if refused == self._in_vain:
                return None
            self._client.token_refresh(self._resource_id)
            renewed = self.header()
            self._in_vain = renewed
            return renewed


def is_curable(status: int, body: str) -> bool:
    """Whether a refreshed token can make a refused request succeed."""
    words = body.lower()
    return status == 401 and any(phrase in words for phrase in _CURABLE)
