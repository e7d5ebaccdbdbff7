"""From a consent link to valid tokens.

Against the emulator, which grants the consent through its control API:

    cargo run -p ghl-oauth-emulator -- --port 8080
    python3 quickstart.py http://127.0.0.1:8080

Against the real API, with GHL_CLIENT_ID, GHL_CLIENT_SECRET and GHL_REDIRECT_URI of your app in the
environment:

    python3 quickstart.py

Tokens are stored in tokens.db in the current folder, so a second run needs no consent.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from typing import Any

import ghl_oauth

SCOPES = ["oauth.readonly", "oauth.write", "locations.readonly"]


def main() -> None:
    emulator = sys.argv[1] if len(sys.argv) > 1 else None
    app = emulated_app(emulator) if emulator else real_app()

    with ghl_oauth.Client(**app, scopes=SCOPES, store="tokens.db") as client:
        company = next(client.tokens_list(user_type="Company"), None)
        if company is None or company.state == "reauthorizationRequired":
            link = client.authorization_url()
            redirect_url = consent(emulator, link.url) if emulator else ask_person(link.url)
            try:
                company = client.authorization_complete(redirect_url)
            except ghl_oauth.ConsentDenied as error:
                sys.exit(f"no consent: {error}")
        print("company", company.resource_id, "until", company.expires_at)

        for location in client.installed_locations(company.resource_id, installed=True):
            try:
                token = client.access_token(location.id)
            except ghl_oauth.LocationInactive:
                print("location", location.id, location.name, "is paused")
                continue
            print("location", location.id, location.name, f"token of {len(token)} characters")

        # A scheduler calls this every few minutes, so that no caller has to wait for a refresh.
        report = client.tokens_maintain()
        print("renewed", report.refreshed, "of", report.checked, "due; next at", report.next_due_at)


def real_app() -> dict[str, Any]:
    """The app as registered in the developer portal."""
    return {
        "client_id": os.environ["GHL_CLIENT_ID"],
        "client_secret": os.environ["GHL_CLIENT_SECRET"],
        "redirect_uri": os.environ["GHL_REDIRECT_URI"],
    }


def ask_person(url: str) -> str:
    print("Open this link and consent:", url, sep="\n")
    return input("To which URL was the browser redirected? ")


def emulated_app(emulator: str) -> dict[str, Any]:
    """The app of the emulator, and the emulator's URL."""
    app = control(emulator, "/_emulator")["configuration"]
    return {
        "client_id": app["clientId"],
        "client_secret": app["clientSecret"],
        "redirect_uri": app["redirectUri"],
        "base_url": app["baseUrl"],
        "authorize_url": app["authorizeUrl"],
    }


def consent(emulator: str, url: str) -> str:
    """Consents as a person would: selects a company and returns the redirect URL."""
    company_id = control(emulator, "/_emulator")["companies"][0]["id"]
    redirect_url: str = control(
        emulator, "/_emulator/consent", {"url": url, "companyId": company_id}
    )["redirectUrl"]
    return redirect_url


def control(emulator: str, path: str, body: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(
        emulator.rstrip("/") + path, data=json.dumps(body).encode() if body else None
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
