"""Live tokens for the HTTP library that a program already uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._bearer import Bearer as Bearer
from ._bearer import is_curable as is_curable
from .client import Client

if TYPE_CHECKING:
    from .auth_httpx import HttpxAuth
    from .auth_requests import RequestsAuth


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
