"""The example of a SaaS: Flask under gunicorn, Celery, and a PostgreSQL store."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ghl_oauth

from .support import (
    REPOSITORY,
    EmulatorTest,
    environment,
    free_port,
    postgresql_programs,
    start_postgresql,
)
from .test_workers import WORKERS, needs

EXAMPLE = REPOSITORY / "examples" / "python" / "saas"

# As set by a proxy that terminates TLS.
FORWARDED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.example"}


class SaasTest(EmulatorTest):
    # Without its rate limit, since 500 mints would take 40 seconds.
    OPTIONS = ("--locations", "500", "--rate-limit", "off")

    def setUp(self) -> None:
        needs("gunicorn", "celery", "flask")
        programs = postgresql_programs()
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        store = {"kind": "postgres", "url": start_postgresql(self, self.folder, programs)}
        (self.folder / "secret.txt").write_text(self.emulator.client_secret)
        (self.folder / "secret.txt").chmod(0o600)
        configuration = {
            **self.emulator.configuration,
            "clientSecretFile": "secret.txt",
            "rateLimit": {"requests": 100_000},
            "store": store,
        }
        del configuration["clientSecret"]
        path = self.folder / "config.json"
        path.write_text(json.dumps(configuration))
        path.chmod(0o600)
        broker = self.folder / "broker"
        broker.mkdir()
        options = ("data_folder_in", "data_folder_out", "control_folder")
        self.variables = {
            **environment(),
            "GHL_OAUTH_CONFIG": str(path),
            "BROKER_URL": "filesystem://",
            "BROKER_OPTIONS": json.dumps(dict.fromkeys(options, str(broker))),
            "SECRET_KEY": "of the test",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.store = ghl_oauth.Client.from_config(path)
        self.addCleanup(self.store.close)

    def start(self, log: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("wb") as output:
            server = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=EXAMPLE, env=self.variables, stdout=output, stderr=output,
            )  # fmt: skip
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        return server

    def stop(self, server: subprocess.Popen[bytes], log: str) -> str:
        server.terminate()
        code = server.wait(timeout=60)
        text = (self.folder / log).read_text()
        self.assertEqual((code, "Traceback" in text), (0, False), text)
        return text

    def ask(
        self, method: str, target: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """The response of the app, once it listens."""
        while True:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                connection.request(method, target, body, {**FORWARDED, **headers})
                answer = connection.getresponse()
                found = {name.lower(): value for name, value in answer.getheaders()}
                return answer.status, found, answer.read().decode()
            except ConnectionRefusedError:
                self.assertIsNone(self.web.poll(), (self.folder / "web.log").read_text())
                time.sleep(0.05)
            finally:
                connection.close()

    def connect(self) -> None:
        """Consents like a person with a browser."""
        status, headers, _ = self.ask("GET", "/connect")
        self.assertEqual(status, 302)
        redirect = urlsplit(
            self.emulator.consent(headers["location"], companyId=self.emulator.company_id)
        )
        cookie = headers["set-cookie"].split(";")[0]
        answer = self.ask("GET", f"{redirect.path}?{redirect.query}", Cookie=cookie)
        self.assertEqual((answer[0], answer[2]), (200, f"connected {self.emulator.company_id}"))

    def test_company_with_500_locations_is_connected_minted_and_refreshed(self) -> None:
        self.port = free_port()
        self.web = self.start(
            "web.log", "gunicorn", "web:app", f"--workers={WORKERS}", "--threads=4",
            f"--bind=127.0.0.1:{self.port}", "--access-logfile=-", "--access-logformat=by %(p)s",
        )  # fmt: skip
        self.connect()

        # 500 INSTALLs are accepted while no worker of the queue runs, so nothing can be minted yet.
        deliveries: list[tuple[Any, Any]] = [
            self.emulator.webhook(install=location_id) for location_id in self.emulator.location_ids
        ]

        def deliver(delivery: tuple[Any, Any]) -> int:
            return int(self.ask("POST", "/webhooks", delivery[0], **delivery[1])[0])

        # Alone: kombu's broker in files writes its table at the first message, and a second one at
        # that moment would find it empty.
        self.assertEqual(deliver(deliveries[0]), 200)
        with ThreadPoolExecutor(16) as threads:
            self.assertEqual(set(threads.map(deliver, deliveries[1:])), {200})
        self.assertEqual(self.emulator.requests("/oauth/location-token"), [])

        # The queue mints each token once.
        queue = self.start(
            "queue.log", "celery", "--quiet", "--app=tasks", "worker", "--pool=prefork",
            f"--concurrency={WORKERS}", "--loglevel=WARNING",
            "--without-gossip", "--without-mingle", "--without-heartbeat",
        )  # fmt: skip
        end = time.monotonic() + 240
        while len(self.emulator.requests("/oauth/location-token")) < 500:
            self.assertLess(time.monotonic(), end, "the queue did not mint all tokens")
            self.assertIsNone(queue.poll(), (self.folder / "queue.log").read_text())
            time.sleep(0.5)
        self.stop(queue, "queue.log")
        tokens = list(self.store.tokens_list())
        self.assertEqual((len(tokens), {token.state for token in tokens}), (501, {"ok"}))
        self.assertEqual(len(self.emulator.requests("/oauth/location-token")), 500)

        # Each expired token is refreshed once, by the first worker that uses it.
        self.client = self.store
        self.expire()
        self.emulator.settings(latencyMs=300)
        before = self.emulator.refreshes()
        used = self.emulator.location_ids[:5]
        with ThreadPoolExecutor(16) as threads:
            answers = list(
                threads.map(lambda each: self.ask("GET", f"/locations/{each}"), 8 * used)
            )
        self.assertEqual({status for status, _, _ in answers}, {200}, answers)
        self.assertEqual(self.emulator.refreshes() - before, len(used))
        log = self.stop(self.web, "web.log")
        self.assertGreater(len({line for line in log.splitlines() if line.startswith("by ")}), 1)
