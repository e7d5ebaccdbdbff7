"""The web app of gunicorn and uWSGI: GET /locations/ID shows a location, GET /health nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import connection
import ghl_oauth

# At import, so that a wrong configuration ends the worker at its start.
client = connection.client()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    status, body = answer(environ["PATH_INFO"])
    text = json.dumps(body).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
    start_response(status, headers)
    return [text]


def answer(path: str) -> tuple[str, Any]:
    location_id = path.removeprefix("/locations/")
    if location_id == path or "/" in location_id:
        return ("200 OK", {}) if path == "/health" else ("404 Not Found", {})
    try:
        found = client.request("GET", f"/locations/{location_id}", resource_id=location_id)
        return "200 OK", found.raise_for_status().body
    except (ghl_oauth.NotFound, ghl_oauth.ReauthorizationRequired):
        return "409 Conflict", {"connect": client.authorization_url().url}
    except ghl_oauth.GhlError as error:
        return "503 Service Unavailable", {"error": str(error), "retryable": error.retryable}
