"""Live tokens for the HTTP library that a program already uses."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .client import Client

if TYPE_CHECKING:
    from .auth_httpx import HttpxAuth
    from .auth_requests import RequestsAuth

# The only refusals that another access token cures; for any other one a refresh would be spent in vain.
_CURABLE = ("invalid jwt", "access token is invalid")


def httpx_auth(client: Client, resource_id: str) -> HttpxAuth:
    """An ``auth=`` for httpx, sync and async, that puts a live token into every request.

    A 401 which says that the access token is dead is answered with a refresh and one repeat of the request, unless its
    body is a stream that cannot be sent again. Give it only to requests that go to the API: any host gets the token.

    Args:
        client: Must stay open as long as requests are made.
        resource_id: The company or location whose token is sent.

    Raises:
        ImportError: httpx is not installed.
    """
    from .auth_httpx import HttpxAuth

    return HttpxAuth(client, resource_id)


def requests_auth(client: Client, resource_id: str) -> RequestsAuth:
    """An ``auth=`` for requests that puts a live token into every request.

    A 401 which says that the access token is dead is answered with a refresh and one repeat of the request, unless its
    body is a stream that cannot be sent again. Give it only to requests that go to the API: any host gets the token.

    Args:
        client: Must stay open as long as requests are made.
        resource_id: The company or location whose token is sent.

    Raises:
        ImportError: requests is not installed.
    """
    from .auth_requests import RequestsAuth

    return RequestsAuth(client, resource_id)


class Bearer:
    """One resource's ``Authorization`` header, and its renewal when the API calls the token dead."""

    def __init__(self, client: Client, resource_id: str) -> None:
        self._client = client
        self._resource_id = resource_id
        self._renewing = threading.Lock()
        self._in_vain: str | None = None

    def header(self) -> str:
        """The header's value, with a live token."""
        return f"Bearer {self._client.access_token(self._resource_id)}"

    def renew(self, refused: str) -> str | None:
        """The header to repeat a request with, after ``refused`` met a curable 401; None: a repeat is no use.

        Requests that were refused together cost one refresh together. And a new token that is refused as well is not
        renewed again: else every further request would spend a refresh token.
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
