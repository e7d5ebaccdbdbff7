"""A webhook receiver for FastAPI.

With your app's GHL_CLIENT_ID and GHL_CLIENT_SECRET in the environment:

    uvicorn --factory webhook_fastapi:create_app
"""

from __future__ import annotations

import os

import fastapi
import fastapi.concurrency

import ghl_oauth


def create_app(client: ghl_oauth.Client | None = None) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    client = client or ghl_oauth.Client(
        os.environ["GHL_CLIENT_ID"], os.environ["GHL_CLIENT_SECRET"], store="tokens.db"
    )

    @app.post("/webhooks")
    async def webhook(request: fastapi.Request) -> fastapi.Response:
        # The raw body: a parsed and re-serialized body would not match the signature.
        body = await request.body()
        try:
            # In a worker thread, because the token of a new location may be minted with a request
            # to the API.
            await fastapi.concurrency.run_in_threadpool(client.webhook_apply, body, request.headers)
        except ghl_oauth.SignatureInvalid:
            return fastapi.Response(status_code=401)
        except ghl_oauth.GhlError as error:
            # 429 makes the vendor repeat the delivery under each of its published rules; under one
            # of them a 5xx is final.
            return fastapi.Response(status_code=429 if error.retryable else 400)
        return fastapi.Response(status_code=200)

    return app
