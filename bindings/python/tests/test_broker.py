"""The broker of examples/broker, used by installations through the library."""

from __future__ import annotations

import contextlib
import importlib
import json
import sqlite3
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any
from unittest import mock

import ghl_oauth

from .support import REPOSITORY, EmulatorTest, free_port
from .test_workers import needs

PUBLIC = "https://broker.acme.example/callback"
BACK = "http://127.0.0.1:53682/callback"

# The beginning of every token of the emulator.
ANY_TOKEN = "eyJhbGciOiJ"


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Returns redirects like any other response."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any
    ) -> None:
        return None


class BrokerTest(EmulatorTest):
    """A broker for the app of the emulator, whose portal accepts only its URL."""

    OPTIONS = ("--redirect-uri", PUBLIC, "--portal-redirect-rules")

    def setUp(self) -> None:
        needs("flask")
        super().setUp()
        examples = str(REPOSITORY / "examples" / "broker")
        sys.path.insert(0, examples)
        self.addCleanup(sys.path.remove, examples)
        broker, installations = map(importlib.import_module, ("broker", "installations"))
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.database = Path(folder.name, "broker.db")
        self.client = self.make_client(redirect_uri=PUBLIC)
        self.app = broker.create_app(self.client, installations.Installations(self.database))
        self.app.logger.disabled = True
        serving = importlib.import_module("werkzeug.serving")
        quiet = type("Quiet", (serving.WSGIRequestHandler,), {"log": lambda *_: None})
        port = free_port()
        server = serving.make_server(
            "127.0.0.1", port, self.app, threaded=True, request_handler=quiet
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        self.url = f"http://127.0.0.1:{port}"
        self.desktop = self.installation()
        self.location_id = self.emulator.location_ids[0]

    def installation(self) -> ghl_oauth.Client:
        """A program with the configuration that an installer contains."""
        text = (REPOSITORY / "examples" / "broker" / "desktop.json").read_text(encoding="utf-8")
        settings = json.loads(text.replace("https://broker.acme.example", self.url))
        settings["store"] = {"kind": "memory"}
        client = ghl_oauth.Client.from_config(settings)
        self.addCleanup(client.close)
        return client

    def visit(self, url: str, cookie: str = "", **form: str) -> Any:
        """The response to a browser or a program, with any status."""
        data = urllib.parse.urlencode(form).encode() if form else None
        request = urllib.request.Request(url, data, {"Cookie": cookie} if cookie else {})
        opener = urllib.request.build_opener(NoRedirects)
        try:
            answer = opener.open(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        self.addCleanup(answer.close)
        return answer

    def consent(self, link: str, **decision: Any) -> str:
        """Consents like a person with a browser. Returns where the browser is sent at the end."""
        begun = self.visit(link)
        self.assertEqual(begun.status, 302)
        cookie = begun.headers["Set-Cookie"]
        for attribute in ("Secure", "HttpOnly", "SameSite=Lax"):
            self.assertIn(attribute, cookie)
        decision = decision or {"locationId": self.location_id}
        redirect = self.emulator.consent(begun.headers["Location"], **decision)
        self.assertTrue(redirect.startswith(PUBLIC), redirect)
        ended = self.visit(redirect.replace(PUBLIC, f"{self.url}/callback"), cookie.split(";")[0])
        self.assertEqual(ended.status, 302, ended.read())
        back: str = ended.headers["Location"]
        self.assertTrue(back.startswith(f"{BACK}?"), back)
        return back

    def connect(self, client: ghl_oauth.Client | None = None) -> None:
        client = client or self.desktop
        back = self.consent(client.authorization_url().url)
        info = client.authorization_complete(back)
        self.assertEqual((info.resource_id, info.user_type), (self.location_id, "Location"))

    def show(self, path: str = "") -> ghl_oauth.Response:
        path = path or f"/locations/{self.location_id}"
        return self.desktop.request("GET", path, resource_id=self.location_id)

    @contextlib.contextmanager
    def edited(self) -> Generator[sqlite3.Connection, None, None]:
        with contextlib.closing(sqlite3.connect(self.database)) as database, database:
            yield database

    def test_connected_installation_calls_the_api(self) -> None:
        self.connect()
        answer = self.show()
        self.assertEqual(answer.status, 200)
        self.assertIn(self.location_id, json.dumps(answer.body))
        query = {"limit": ["1", "2"], "query": "a b&c"}
        self.desktop.request("GET", "/contacts/", resource_id=self.location_id, query=query)
        (request,) = self.emulator.requests("/contacts/")
        self.assertEqual(
            urllib.parse.parse_qs(request["query"]), {"limit": ["1", "2"], "query": ["a b&c"]}
        )

    def test_installation_holds_no_secret_of_the_app_and_no_token_of_the_api(self) -> None:
        self.connect()
        self.show()
        held = repr([token.to_json() for token in self.desktop.tokens_export()])
        self.assertNotIn(self.emulator.client_secret, held)
        self.assertNotIn(ANY_TOKEN, held)
        stored = self.database.read_bytes()
        (token,) = self.desktop.tokens_export()
        for secret in (token.access_token, token.refresh_token, self.emulator.client_secret):
            self.assertNotIn(str(secret).encode(), stored)
        self.assertNotIn(ANY_TOKEN.encode(), stored)

    def test_installation_can_only_do_what_the_program_needs(self) -> None:
        self.connect()
        sent = len(self.emulator.control("GET", "/requests")["requests"])
        for path in ("/oauth/installed-locations", "/oauth/token", "/users/"):
            self.assertEqual(self.show(path).status, 403, path)
        (token,) = self.desktop.tokens_export()
        for path in (
            "/locations/..%2Foauth%2Finstalled-locations",
            "/locations/%2e%2e/oauth/token",
        ):
            request = urllib.request.Request(
                self.url + path, headers={"Authorization": f"Bearer {token.access_token}"}
            )
            with self.assertRaises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=60)
            caught.exception.close()
            self.assertIn(caught.exception.code, (403, 502), path)
        for method in ("DELETE", "PUT"):
            answer = self.desktop.request(method, "/contacts/1", resource_id=self.location_id)
            self.assertEqual(answer.status, 405)
        self.assertEqual(len(self.emulator.control("GET", "/requests")["requests"]), sent)

    def test_request_without_a_token_of_the_broker_does_not_reach_the_api(self) -> None:
        self.connect()
        (theirs,) = self.client.tokens_export()
        for token in ("", "guess", theirs.access_token):
            request = urllib.request.Request(
                f"{self.url}/locations/{self.location_id}",
                headers={"Authorization": f"Bearer {token}"},
            )
            with self.assertRaises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=60)
            caught.exception.close()
            self.assertEqual(caught.exception.code, 401)
        self.assertEqual(self.emulator.requests(f"/locations/{self.location_id}"), [])

    def test_expired_access_token_is_refreshed(self) -> None:
        self.connect()
        with self.edited() as database:
            database.execute("UPDATE installation SET expires = 0")
        self.assertEqual(self.show().status, 200)

    def test_refresh_token_can_be_sent_again_until_the_next_one_is_used(self) -> None:
        self.connect()
        first = next(self.desktop.tokens_export()).refresh_token or ""

        def refresh(token: str) -> Any:
            answer = self.visit(
                f"{self.url}/oauth/token", grantType="refresh_token", refreshToken=token
            )
            return answer.status, json.load(answer).get("refreshToken", "")

        (status, lost), (again, second) = refresh(first), refresh(first)
        self.assertEqual((status, again), (200, 200))
        self.assertEqual(refresh(lost)[0], 400)
        self.assertEqual(refresh(second)[0], 200)
        self.assertEqual(refresh(first)[0], 400)

    def test_code_is_valid_once_and_for_its_redirect_uri(self) -> None:
        back = self.consent(self.desktop.authorization_url().url)
        code = urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)["code"][0]
        form = {"grantType": "authorization_code", "code": code}
        for uri, status in ((f"{BACK}/more", 400), (BACK, 200), (BACK, 400)):
            answer = self.visit(f"{self.url}/oauth/token", redirectUri=uri, **form)
            self.assertEqual(answer.status, status, uri)

    def test_code_survives_a_temporary_failure_of_the_api(self) -> None:
        back = self.consent(self.desktop.authorization_url().url)
        code = urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)["code"][0]
        form = {"grantType": "authorization_code", "code": code, "redirectUri": BACK}
        unavailable = ghl_oauth.errors.from_json(
            {"status": "GHL_ERR_TIMEOUT", "message": "the API does not respond", "retryable": True}
        )
        with mock.patch.object(self.client, "access_token", side_effect=unavailable):
            self.assertEqual(self.visit(f"{self.url}/oauth/token", **form).status, 503)
        self.assertEqual(self.visit(f"{self.url}/oauth/token", **form).status, 200)
        self.assertEqual(self.visit(f"{self.url}/oauth/token", **form).status, 400)

    def test_code_of_a_revoked_installation_opens_no_other_one(self) -> None:
        codes = []
        for location_id in self.emulator.location_ids[:2]:
            back = self.consent(self.desktop.authorization_url().url, locationId=location_id)
            codes += urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)["code"]
            if len(codes) == 1:
                runner = self.app.test_cli_runner()
                runner.invoke(args=["revoke"], input=f"{location_id}\n")
        for code, status in zip(codes, (400, 200)):
            form = {"grantType": "authorization_code", "code": code, "redirectUri": BACK}
            self.assertEqual(self.visit(f"{self.url}/oauth/token", **form).status, status)

    def test_installation_that_never_fetched_its_tokens_is_removed(self) -> None:
        self.consent(self.desktop.authorization_url().url)
        self.connect()
        with self.edited() as database:
            database.execute("UPDATE code SET expires = 0")
        self.visit(self.desktop.authorization_url().url)
        with self.edited() as database:
            kept = database.execute("SELECT refresh IS NOT NULL FROM installation").fetchall()
        self.assertEqual(kept, [(1,)])

    def test_method_without_allowed_paths_is_refused(self) -> None:
        self.connect()
        (token,) = self.desktop.tokens_export()
        request = urllib.request.Request(
            f"{self.url}/locations/{self.location_id}",
            headers={"Authorization": f"Bearer {token.access_token}"},
            method="HEAD",
        )
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=60)
        caught.exception.close()
        self.assertEqual(caught.exception.code, 403)

    def test_revoked_installation_must_connect_again(self) -> None:
        self.connect()
        self.show()
        runner = self.app.test_cli_runner()
        said = runner.invoke(args=["revoke"], input=f"{self.location_id}\n")
        self.assertIn("1 installations revoked", said.output)
        with self.assertRaises(ghl_oauth.ReauthorizationRequired):
            self.show().raise_for_status()
        self.connect()
        self.assertEqual(self.show().status, 200)

    def test_installation_learns_that_the_consent_of_its_user_has_ended(self) -> None:
        self.connect()
        self.client.token_delete(self.location_id)
        with self.assertRaises(ghl_oauth.GhlError) as caught:
            self.show().raise_for_status()
        self.assertIsInstance(caught.exception, ghl_oauth.ReauthorizationRequired)

    def test_failing_api_is_a_temporary_error_for_the_installation(self) -> None:
        self.connect()
        self.emulator.fault("reset", endpoint="location")
        with self.assertRaises(ghl_oauth.GhlError) as caught:
            self.desktop.request(
                "GET", f"/locations/{self.location_id}", resource_id=self.location_id, timeout=2
            ).raise_for_status()
        self.assertTrue(caught.exception.retryable)

    def test_denied_consent_reaches_the_program(self) -> None:
        back = self.consent(self.desktop.authorization_url().url, deny=True)
        with self.assertRaises(ghl_oauth.ConsentDenied):
            self.desktop.authorization_complete(back)

    def test_only_the_browser_that_began_a_consent_can_finish_it(self) -> None:
        theirs, ours = (self.visit(self.desktop.authorization_url().url) for _ in range(2))
        redirect = self.emulator.consent(theirs.headers["Location"], locationId=self.location_id)
        here = redirect.replace(PUBLIC, f"{self.url}/callback")
        for cookie in ("", ours.headers["Set-Cookie"].split(";")[0]):
            self.assertEqual(self.visit(here, cookie).status, 400)
        self.assertEqual(self.emulator.requests("/oauth/token"), [], "no code was sent")
        cookie = theirs.headers["Set-Cookie"].split(";")[0]
        self.assertEqual(self.visit(here, cookie).status, 302)

    def test_browser_is_sent_to_programs_of_its_own_machine_only(self) -> None:
        for uri in (
            "https://evil.example/callback",
            "http://127.0.0.1.evil.example/",
            "http://127.0.0.1@evil.example/",
            "http://user@127.0.0.1:1/",
            "http://evil.example\\@127.0.0.1:1/",
            "http://127.0.0.1\\.evil.example/",
            "http://127.0.0.1:1/ b",
            "http://127.0.0.1:1/\n",
            "http://\t127.0.0.1:1/",
            "http://127.0.0.1:1/#f",
            "HTTP://127.0.0.1:1:2/",
            "http://[::1",
            "http://localhost:1/",
            "http://127.0.0.1:1/?a=b",
            "",
        ):
            query = urllib.parse.urlencode({"redirect_uri": uri, "state": "s"})
            self.assertEqual(self.visit(f"{self.url}/authorize?{query}").status, 400, uri)
