"""Authentication plug-ins for HTTP libraries."""

from __future__ import annotations

from ._bearer import Bearer as Bearer
from ._bearer import is_curable as is_curable

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from . import aio
    from .auth_httpx import HttpxAuth
    from .auth_requests import RequestsAuth
    from .client import Client


def httpx_auth(client: Client | aio.Client, resource_id: str) -> HttpxAuth:
    """An ``auth=`` for httpx, sync and async, that adds a valid token to every request.

    If a 401 says that the access token is invalid, the plug-in refreshes it and repeats the request
    once, unless the body is a stream that cannot be sent again. Use it only for requests to the
    API: every host receives the token.

    Args:
        client: Must stay open while requests are made. With httpx's ``AsyncClient``, a client for
            asyncio cancels the call for a token if the request is cancelled.
        resource_id: The company or location whose token is sent.

    Raises:
        ImportError: httpx is not installed.
    """
    from .auth_httpx import HttpxAuth

    return HttpxAuth(client, resource_id)


def requests_auth(client: Client, resource_id: str) -> RequestsAuth:
    """An ``auth=`` for requests that adds a valid token to every request.

    If a 401 says that the access token is invalid, the plug-in refreshes it and repeats the request
    once, unless the body is a stream that cannot be sent again. Use it only for requests to the
    API: every host receives the token.

    Args:
        client: Must stay open while requests are made.
        resource_id: The company or location whose token is sent.

    Raises:
        ImportError: requests is not installed.
    """
    from .auth_requests import RequestsAuth

    return RequestsAuth(client, resource_id)
