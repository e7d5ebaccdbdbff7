"""A broker: keeps the client secret and the API's tokens away from installations of a program.

To an installation it looks like the API, whose OAuth endpoints it has: the program uses the library
as usual, with the broker as `baseUrl` and `authorizeUrl` (desktop.json). After a consent the
installation gets tokens that only the broker accepts. The broker sends the installation's requests
to the API, with the API's token.

    GHL_OAUTH_CONFIG=config.json gunicorn --threads 8 "broker:from_environment()"
"""

from __future__ import annotations

import json
import logging
import os
import re
import urllib.parse
from pathlib import Path

import flask
from flask.typing import ResponseReturnValue
from installations import Grant, Installations

import ghl_oauth

# The API's endpoints that the program needs. Nothing else passes, least of all /oauth/.
ALLOWED = {"GET": ("/locations/", "/contacts/"), "POST": ("/contacts/",)}

NO_TOKEN = {"statusCode": 401, "message": "Invalid JWT"}, 401
NO_GRANT = {"statusCode": 400, "message": "Invalid grant: refresh token is invalid"}, 400

# The user must consent again; NotFound after an uninstallation.
DISCONNECTED = (ghl_oauth.ReauthorizationRequired, ghl_oauth.NotFound)

log = logging.getLogger("broker")


def from_environment() -> flask.Flask:
    """The broker with the configuration that GHL_OAUTH_CONFIG names; its database is next to it."""
    path = Path(os.environ["GHL_OAUTH_CONFIG"])
    return create_app(
        ghl_oauth.Client.from_config(path), Installations(path.with_name("broker.db"))
    )


def create_app(client: ghl_oauth.Client, installations: Installations) -> flask.Flask:
    """The broker. The client's redirect URI is the broker's: https://HOST/callback."""
    app = flask.Flask(__name__)
    link = urllib.parse.urlsplit(client.authorization_url().url)
    (redirect_uri,) = urllib.parse.parse_qs(link.query)["redirect_uri"]

    @app.get("/authorize")
    def authorize() -> ResponseReturnValue:
        """Sends the user's browser on to the consent page."""
        back, state = flask.request.args["redirect_uri"], flask.request.args["state"]
        if not is_loopback(back):
            # Anywhere else it could be another person who receives the code.
            flask.abort(400, "redirect_uri must be http on 127.0.0.1")
        link = client.authorization_url()
        installations.begin(link.state, back, state)
        answer = flask.redirect(link.url)
        # Only the browser that began may finish.
        secure = redirect_uri.startswith("https:")
        answer.set_cookie("consent", link.state, secure=secure, httponly=True, samesite="Lax")
        return answer

    @app.get("/callback")
    def callback() -> ResponseReturnValue:
        """Completes the consent, and sends the browser on to the program."""
        ours = flask.request.cookies.get("consent", "")
        begun = installations.begun(ours)
        if begun is None:
            flask.abort(400, "start again in the program")
        back, state = begun
        query = flask.request.query_string.decode()
        try:
            token = client.authorization_complete(f"{redirect_uri}?{query}", state=ours)
        except (ghl_oauth.InvalidArgument, ghl_oauth.StateMismatch):
            flask.abort(400, "start again in the program")
        except ghl_oauth.GhlError as error:
            log.warning("consent failed: %s", error)
            denied = isinstance(error, ghl_oauth.ConsentDenied)
            outcome = {"error": "access_denied" if denied else "server_error"}
        else:
            outcome = {"code": installations.issue_code(ours, token)}
        query = urllib.parse.urlencode({**outcome, "state": state})
        return flask.redirect(f"{back}?{query}")

    @app.post("/oauth/token")
    def token() -> ResponseReturnValue:
        """Exchanges the code of a consent, or a refresh token, both of this broker."""
        form = flask.request.form
        code = None
        if form.get("grantType") == "authorization_code":
            code = form.get("code", "")
            grant = installations.redeem(code, form.get("redirectUri", ""))
        else:
            grant = installations.find(form.get("refreshToken", ""))
        if grant is None:
            return NO_GRANT
        try:
            client.access_token(grant.resource_id)
        except DISCONNECTED:
            return NO_GRANT  # The user must consent again, which the program learns in this way.
        except ghl_oauth.GhlError as error:
            return later(error)  # A code stays valid: the program may send it again.
        tokens = installations.issue(grant, code)
        return NO_GRANT if tokens is None else token_response(grant, *tokens)

    @app.route("/<path:path>", methods=list(ALLOWED))
    def forward(path: str) -> ResponseReturnValue:
        """Sends a request of an installation to the API."""
        request = flask.request
        resource_id = installations.owner(
            request.headers.get("Authorization", "")[len("Bearer ") :]
        )
        if resource_id is None:
            return NO_TOKEN
        # Flask routes HEAD like GET.
        if not f"/{path}".startswith(ALLOWED.get(request.method, ())):
            return {"statusCode": 403, "message": "The program may not do this."}, 403
        try:
            answer = client.request(
                request.method,
                "/" + urllib.parse.quote(path),
                resource_id=resource_id,
                query=request.args.to_dict(flat=False),
                headers={"Content-Type": request.content_type} if request.content_type else None,
                body=request.get_data() or None,
            )
        except DISCONNECTED:
            return NO_TOKEN
        except ghl_oauth.GhlError as error:
            return later(error)
        kind = answer.headers.get("content-type", "application/json")
        body = answer.body if isinstance(answer.body, (str, bytes)) else json.dumps(answer.body)
        return flask.Response(body, answer.status, content_type=kind)

    @app.cli.command("revoke")
    def revoke() -> None:
        """Ends all installations of a company or location, whose ID is on standard input."""
        print(installations.revoke(input()), "installations revoked")

    return app


def token_response(
    grant: Grant, access_token: str, refresh_token: str, seconds: int
) -> ResponseReturnValue:
    """The token response, in the API's form."""
    return {
        "accessToken": access_token,
        "refreshToken": refresh_token,
        "expiresIn": seconds,
        "tokenType": "Bearer",
        "userType": grant.user_type,
        "companyId": grant.company_id,
        "locationId": grant.location_id,
    }


def later(error: ghl_oauth.GhlError) -> ResponseReturnValue:
    """The response if the API, or the way there, has failed."""
    log.warning("%s", error)
    if error.retryable:
        headers = {"Retry-After": str(int(error.retry_after or 1) + 1)}
        return {"statusCode": 503, "message": "Try again later"}, 503, headers
    return {"statusCode": 502, "message": "The API refused"}, 502


def is_loopback(uri: str) -> bool:
    """Whether only programs of the user's own machine can receive this redirect (RFC 8252).

    The whole URI is matched, so that no browser can read another host in it.
    """
    return re.fullmatch(r"http://127\.0\.0\.1(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?", uri) is not None
