"""Bearer authentication for httpx; imported only if httpx is installed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread  # a dependency of httpx
import httpx

from ._bearer import Bearer, is_curable
from .client import Client

if TYPE_CHECKING:
    from . import aio


class HttpxAuth(httpx.Auth):
    """See :func:`ghl_oauth.httpx_auth`."""

    def __init__(self, client: Client | aio.Client, resource_id: str) -> None:
        self._aio = None if isinstance(client, Client) else client
        self._resource_id = resource_id
        self._bearer = Bearer(client if isinstance(client, Client) else client._client, resource_id)

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """The authentication flow of a synchronous request."""
        header = self._bearer.header()
        request.headers["Authorization"] = header
        response = yield request
        if _carried(response, header):
            response.read()
            if is_curable(response.status_code, response.text):
                renewed = self._bearer.renew(header)
                if renewed is not None and _can_be_repeated(request):
                    request.headers["Authorization"] = renewed
                    yield request

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """The authentication flow of an asynchronous request."""
        # Refreshing a token uses the network, which must not block the event loop.
        header = self._bearer.live_header() or await self._header()
        request.headers["Authorization"] = header
        response = yield request
        if _carried(response, header):
            await response.aread()
            if is_curable(response.status_code, response.text):
                renewed = await self._renew(header)
                if renewed is not None and _can_be_repeated(request):
                    request.headers["Authorization"] = renewed
                    yield request

    async def _header(self) -> str:
        if self._aio is None:
            return await anyio.to_thread.run_sync(self._bearer.header)
        return f"Bearer {await self._aio.access_token(self._resource_id)}"

    async def _renew(self, refused: str) -> str | None:
        if self._aio is None:
            return await anyio.to_thread.run_sync(self._bearer.renew, refused)
        work = partial(self._bearer.renew, refused)
        return await self._aio._run(work, self._aio._scope(None))


def _carried(response: httpx.Response, header: str) -> bool:
    """Whether the refused request had this token; a redirect to another host drops it."""
    return response.status_code == 401 and response.request.headers.get("Authorization") == header


def _can_be_repeated(request: httpx.Request) -> bool:
    """Whether the body can be sent again, which is not possible if it comes from a generator."""
    return isinstance(request.stream, httpx.ByteStream)
