"""The example app for FastAPI, served by uvicorn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .support import REPOSITORY, EmulatorTest, environment, free_port
from .test_workers import needs

SERVED = """
import json, os, sys
sys.path.insert(0, os.environ["GHL_TEST_EXAMPLES"])
from fastapi_app import create_app
from ghl_oauth import aio

app = create_app(aio.Client(**json.loads(os.environ["GHL_TEST_APP"])))
"""


class AppTest(EmulatorTest):
    OPTIONS = ("--allow-loopback-redirects",)

    def setUp(self) -> None:
        needs("fastapi", "uvicorn")
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        Path(folder.name, "served.py").write_text(SERVED)
        store = str(Path(folder.name, "tokens.db"))
        self.port = free_port()
        configuration = self.emulator.configuration
        settings = {
            "client_id": configuration["clientId"],
            "client_secret": configuration["clientSecret"],
            "redirect_uri": f"http://127.0.0.1:{self.port}/oauth/callback",
            "scopes": configuration["scopes"],
            "base_url": configuration["baseUrl"],
            "authorize_url": configuration["authorizeUrl"],
            "webhook": configuration["webhook"],
            "store": store,
        }
        variables = {
            **environment(),
            "GHL_TEST_APP": json.dumps(settings),
            "GHL_TEST_EXAMPLES": str(REPOSITORY / "examples" / "python"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.server = subprocess.Popen(
            [
                sys.executable, "-m", "uvicorn", "served:app", "--host=127.0.0.1",
                f"--port={self.port}", "--log-level=warning",
            ],
            cwd=folder.name,
            env=variables,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.addCleanup(self.server.communicate)
        self.addCleanup(self.server.kill)
        self.client = self.make_client(store=store)

    def ask(
        self, method: str, target: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """The response of the app, once it listens."""
        while True:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                connection.request(method, target, body, headers)
                answer = connection.getresponse()
                found = {name.lower(): value for name, value in answer.getheaders()}
                return answer.status, found, answer.read()
            except ConnectionRefusedError:
                self.assertIsNone(self.server.poll(), "the server did not start")
                time.sleep(0.05)
            finally:
                connection.close()

    def post(self, body: bytes, headers: dict[str, str]) -> int:
        return self.ask("POST", "/webhooks", body, **headers)[0]

    def wait_for(self, resource_id: str) -> None:
        for _ in range(1_200):
            if resource_id in {token.resource_id for token in self.client.tokens_list()}:
                return
            time.sleep(0.05)
        self.fail(f"{resource_id} has no token after a minute")

    def test_consent_api_calls_and_webhooks_of_the_example(self) -> None:
        location_id, other, *_ = self.emulator.location_ids
        status, headers, _ = self.ask("GET", "/connect")
        self.assertEqual(status, 307)
        cookie = headers["set-cookie"].split(";")[0]
        redirect = urlsplit(
            self.emulator.consent(headers["location"], companyId=self.emulator.company_id)
        )
        target = f"{redirect.path}?{redirect.query}"
        self.assertEqual(self.ask("GET", target)[0], 400, "no cookie")
        self.assertEqual(self.ask("GET", target, Cookie="ghl_state=another")[0], 400)
        status, _, body = self.ask("GET", target, Cookie=cookie)
        self.assertEqual((status, json.loads(body)), (200, {"connected": self.emulator.company_id}))

        status, _, body = self.ask("GET", f"/locations/{location_id}")
        self.assertEqual(status, 200)
        self.assertIn(location_id, body.decode())
        self.assertEqual(self.ask("GET", "/locations/nowhere")[0], 502)

        install: tuple[Any, Any] = self.emulator.webhook(install=other)
        self.assertEqual(self.post(*install), 200)
        self.wait_for(other)
        self.assertEqual(self.post(*install), 200, "a repetition")
        self.assertEqual(self.post(install[0], {}), 401)

        self.server.send_signal(signal.SIGTERM)
        _, errors = self.server.communicate(timeout=60)
        self.assertNotIn("Traceback", errors)
        if os.name == "posix":
            self.assertIn(self.server.returncode, (0, -signal.SIGTERM), errors)
