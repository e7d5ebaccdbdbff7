"""The web workers: gunicorn --workers 4 --threads 4 web:app

One proxy is in front of them, terminates TLS, and sets X-Forwarded-Proto and X-Forwarded-Host.
"""

from __future__ import annotations

import os

import flask
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

import ghl_oauth
import tasks
from ghl import client as shared_client

# At import, which gunicorn does in each worker, after the fork. A wrong configuration ends it.
client = shared_client()
app = flask.Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
app.config.update(SESSION_COOKIE_SECURE=True)
# Otherwise the app sees http:// URLs, and the consent's redirect does not match its redirect URI.
app.wsgi_app = ProxyFix(app.wsgi_app, x_proto=1, x_host=1)  # type: ignore[method-assign]


@app.get("/connect")
def connect() -> Response:
    link = client.authorization_url()
    flask.session["ghl_state"] = link.state
    return flask.redirect(link.url)


@app.get("/oauth/callback")
def callback() -> tuple[str, int]:
    try:
        company = client.authorization_complete(
            flask.request.url, state=flask.session.get("ghl_state")
        )
    except (ghl_oauth.ConsentDenied, ghl_oauth.StateMismatch) as error:
        return f"not connected: {error}", 400
    flask.session.pop("ghl_state")
    return f"connected {company.resource_id}", 200


@app.get("/locations/<location_id>")
def location(location_id: str) -> flask.Response:
    answer = client.request("GET", f"/locations/{location_id}", resource_id=location_id)
    return flask.jsonify(answer.raise_for_status().body)


@app.post("/webhooks")
def webhook() -> tuple[str, int]:
    try:
        # Stored, but not minted: at the API's rate, 500 INSTALLs would hold a thread for minutes.
        outcome = client.webhook_apply(flask.request.get_data(), flask.request.headers, mint=False)
    except ghl_oauth.SignatureInvalid:
        return "not signed", 401
    except ghl_oauth.GhlError as error:
        return "later", 429 if error.retryable else 400
    if outcome.type == "INSTALL" and outcome.applied and outcome.resource_id:
        tasks.mint.delay(outcome.resource_id)
    return "", 200


@app.errorhandler(ghl_oauth.GhlError)
def failed(error: ghl_oauth.GhlError) -> tuple[str, int]:
    if isinstance(error, (ghl_oauth.NotFound, ghl_oauth.ReauthorizationRequired)):
        return "not connected: begin at /connect", 409
    app.logger.warning("%s", error)
    return "try again later" if error.retryable else "failed", 503 if error.retryable else 502
