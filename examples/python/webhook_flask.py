"""A webhook receiver for Flask.

With your app's GHL_CLIENT_ID and GHL_CLIENT_SECRET in the environment:

    flask --app "webhook_flask:create_app()" run
"""

from __future__ import annotations

import os

import flask

import ghl_oauth


def create_app(client: ghl_oauth.Client | None = None) -> flask.Flask:
    app = flask.Flask(__name__)
    client = client or ghl_oauth.Client(
        os.environ["GHL_CLIENT_ID"], os.environ["GHL_CLIENT_SECRET"], store="tokens.db"
    )

    @app.post("/webhooks")
    def webhook() -> tuple[str, int]:
        try:
            # The raw body: a re-serialized flask.request.json would not match the signature.
            outcome = client.webhook_apply(flask.request.get_data(), flask.request.headers)
        except ghl_oauth.SignatureInvalid:
            return "not signed", 401
        except ghl_oauth.GhlError as error:
            # 429 makes the vendor repeat the delivery under each of its published rules; under one
            # of them a 5xx is final.
            return "later", 429 if error.retryable else 400
        app.logger.info("%s of %s: applied %s", outcome.type, outcome.resource_id, outcome.applied)
        return "", 200

    return app
