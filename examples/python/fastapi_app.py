"""A FastAPI app: consent, calls of the API and webhooks, on the asyncio client.

With your app's GHL_CLIENT_ID, GHL_CLIENT_SECRET and GHL_REDIRECT_URI (its path is /oauth/callback)
in the environment:

    uvicorn --factory fastapi_app:create_app

Behind a proxy that terminates TLS, add --proxy-headers --forwarded-allow-ips=ADDRESS_OF_THE_PROXY:
otherwise the app sees http:// URLs, and the consent's redirect does not match its redirect URI.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import fastapi
from fastapi.responses import JSONResponse, RedirectResponse

import ghl_oauth
from ghl_oauth import aio

MAINTENANCE_SECONDS = 300

log = logging.getLogger(__name__)


def create_app(client: aio.Client | None = None) -> fastapi.FastAPI:
    # Before the event loop starts, since this opens the store.
    ghl = client or aio.Client(
        os.environ["GHL_CLIENT_ID"],
        os.environ["GHL_CLIENT_SECRET"],
        redirect_uri=os.environ["GHL_REDIRECT_URI"],
        scopes=["oauth.readonly", "oauth.write", "locations.readonly"],
        store="tokens.db",
    )

    async def maintain() -> None:
        """Renews due tokens, so that no request waits for a refresh, and mints waiting ones."""
        while True:
            try:
                await ghl.tokens_maintain()
            except ghl_oauth.GhlError as error:
                log.warning("maintenance: %s", error)
            await asyncio.sleep(MAINTENANCE_SECONDS)

    @contextlib.asynccontextmanager
    async def lifespan(_app: fastapi.FastAPI) -> AsyncGenerator[None, None]:
        maintenance = asyncio.create_task(maintain())
        yield
        maintenance.cancel()
        await asyncio.wait((maintenance,))
        await ghl.close()

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.exception_handler(ghl_oauth.GhlError)
    async def failed(_request: fastapi.Request, error: Exception) -> JSONResponse:
        if isinstance(error, ghl_oauth.ReauthorizationRequired):
            return JSONResponse({"error": "not connected", "connect": "/connect"}, 409)
        log.warning("%s", error)
        retryable = isinstance(error, ghl_oauth.GhlError) and error.retryable
        return JSONResponse({"error": str(error)}, 503 if retryable else 502)

    @app.get("/connect")
    async def connect() -> RedirectResponse:
        link = await ghl.authorization_url()
        answer = RedirectResponse(link.url)
        answer.set_cookie("ghl_state", link.state, max_age=3600, httponly=True, secure=True)
        return answer

    @app.get("/oauth/callback")
    async def callback(
        request: fastapi.Request, ghl_state: Annotated[str | None, fastapi.Cookie()] = None
    ) -> fastapi.Response:
        if ghl_state is None:
            return JSONResponse({"error": "begin at /connect"}, 400)
        try:
            company = await ghl.authorization_complete(str(request.url), state=ghl_state)
        except (ghl_oauth.ConsentDenied, ghl_oauth.StateMismatch) as error:
            return JSONResponse({"error": str(error), "connect": "/connect"}, 400)
        answer = JSONResponse({"connected": company.resource_id})
        answer.delete_cookie("ghl_state")
        return answer

    @app.get("/locations/{location_id}")
    async def location(location_id: str) -> Any:
        answer = await ghl.request("GET", f"/locations/{location_id}", resource_id=location_id)
        return answer.raise_for_status().body

    async def mint(location_id: str) -> None:
        try:
            await ghl.access_token(location_id)
        except ghl_oauth.GhlError as error:
            log.warning("%s is minted later: %s", location_id, error)

    @app.post("/webhooks")
    async def webhook(request: fastapi.Request, tasks: fastapi.BackgroundTasks) -> fastapi.Response:
        # The raw body: a parsed and re-serialized body would not match the signature.
        body = await request.body()
        try:
            # Stored, but not minted yet, so that many deliveries are answered at once.
            outcome = await ghl.webhook_apply(body, request.headers, mint=False)
        except ghl_oauth.SignatureInvalid:
            return fastapi.Response(status_code=401)
        except ghl_oauth.GhlError as error:
            # 429 makes the vendor repeat the delivery under each of its published rules; under one
            # of them a 5xx is final.
            return fastapi.Response(status_code=429 if error.retryable else 400)
        if outcome.type == "INSTALL" and outcome.applied and outcome.resource_id:
            tasks.add_task(mint, outcome.resource_id)
        return fastapi.Response(status_code=200)

    return app
