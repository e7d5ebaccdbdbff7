"""The API emulator for the tests, and a client for it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import unittest
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import ghl_oauth

REPOSITORY = Path(__file__).resolve().parents[3]

PAST = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)

REDIRECT_URI = "https://app.example/oauth/callback"

DEAD_TOKEN = json.dumps({"statusCode": 401, "message": "Invalid JWT"})

# A shell starts background jobs with SIGINT ignored, which the programs of the tests inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Emulator:
    """The emulator program, and its control API."""

    def __init__(self, *options: str) -> None:
        program = os.environ.get("GHL_OAUTH_EMULATOR")
        if not program:
            raise RuntimeError("GHL_OAUTH_EMULATOR must name the program ghl-oauth-emulator")
        self._process = subprocess.Popen(
            [program, "--port", "0", "--redirect-uri", REDIRECT_URI, *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        greeting = self._process.stdout.readline()
        found = re.search(r"http://\S+", greeting)
        if not found:
            self.stop()
            raise RuntimeError(f"the emulator did not start: {greeting!r}")
        self.base_url = found.group()
        app = self.control("GET", "")
        self.configuration: dict[str, Any] = app["configuration"]
        self.companies: dict[str, list[str]] = {
            company["id"]: company["locationIds"] for company in app["companies"]
        }
        self.company_id = next(iter(self.companies))
        self.location_ids = self.companies[self.company_id]
        self.client_secret: str = app["clientSecret"]

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.base_url}/_emulator{path}", data=data, method=method
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def consent(self, url: str, **decision: Any) -> str:
        """Completes the consent page like a person. Returns the redirect URL."""
        redirect: str = self.control("POST", "/consent", {"url": url, **decision})["redirectUrl"]
        return redirect

    def settings(self, **settings: Any) -> None:
        self.control("POST", "/settings", settings)

    def fault(self, kind: str, **fault: Any) -> None:
        self.control("POST", "/faults", {"kind": kind, **fault})

    def wait_for_stall(self) -> None:
        """Waits for a request that a stall holds or has held."""
        for _ in range(3_000):
            requests = self.control("GET", "/requests")["requests"]
            if any(
                request["fault"] and request["fault"]["kind"] == "stall" for request in requests
            ):
                return
            time.sleep(0.01)
        raise AssertionError("nothing came that could be held")

    def end_faults(self) -> None:
        """Ends all faults and releases the requests that they hold."""
        self.control("DELETE", "/faults")

    def webhook(self, **request: Any) -> tuple[bytes, dict[str, str]]:
        """The body and the headers of a webhook, without sending it."""
        built = self.control("POST", "/webhooks", request)
        return built["body"].encode(), built["headers"]

    def requests(self, path: str) -> list[dict[str, Any]]:
        return [
            request
            for request in self.control("GET", "/requests")["requests"]
            if request["path"] == path
        ]

    def refreshes(self) -> int:
        count: int = self.control("GET", "")["refreshes"]
        return count


class EmulatorTest(unittest.TestCase):
    """A test with its own emulator and client; the app is not installed yet."""

    OPTIONS: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.emulator = Emulator(*self.OPTIONS)
        self.addCleanup(self.emulator.stop)
        self.client = self.make_client()

    def make_client(self, **settings: Any) -> ghl_oauth.Client:
        configuration = self.emulator.configuration
        usual: dict[str, Any] = {
            "redirect_uri": configuration["redirectUri"],
            "scopes": configuration["scopes"],
            "base_url": configuration["baseUrl"],
            "authorize_url": configuration["authorizeUrl"],
            "retry": {"base_delay_ms": 1},
            "webhook": configuration["webhook"],
        }
        client = ghl_oauth.Client(
            configuration["clientId"], configuration["clientSecret"], **{**usual, **settings}
        )
        self.addCleanup(client.close)
        return client

    def install(self, client: ghl_oauth.Client | None = None) -> ghl_oauth.TokenInfo:
        """Completes the consent of the company."""
        client = client or self.client
        redirect_url = self.emulator.consent(
            client.authorization_url().url, companyId=self.emulator.company_id
        )
        return client.authorization_complete(redirect_url)

    def install_location(self, location_id: str) -> ghl_oauth.TokenInfo:
        """Completes the consent of a single location."""
        redirect_url = self.emulator.consent(
            self.client.authorization_url().url, locationId=location_id
        )
        return self.client.authorization_complete(redirect_url)

    def expire(self) -> None:
        """Makes every stored access token expire."""
        expired = [replace(token, expires_at=PAST) for token in self.client.tokens_export()]
        result = self.client.tokens_import(expired, replace=True)
        self.assertEqual((result.imported, result.skipped), (len(expired), ()))


def damage(database: Path, resource_id: str) -> None:
    """Makes a stored token unreadable. No client of this process may have the database open."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        changed = connection.execute(
            "UPDATE token SET document = x'00' WHERE resource_id = ?", (resource_id,)
        )
        assert changed.rowcount == 1


def environment() -> dict[str, str]:
    """An environment in which another Python process finds this package from any folder."""
    found = {**os.environ, "PYTHONPATH": str(Path(ghl_oauth.__file__).parents[1])}
    if "GHL_OAUTH_LIBRARY" in found:
        found["GHL_OAUTH_LIBRARY"] = os.path.abspath(found["GHL_OAUTH_LIBRARY"])
    return found


def postgresql_programs() -> Path:
    """The folder of PostgreSQL's programs; skips the test without one."""
    if "postgres" not in ghl_oauth.library_info()["stores"]:
        print("skipped: PostgreSQL (the library has no such store)", file=sys.stderr)
        raise unittest.SkipTest("no PostgreSQL store")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    if initdb is None:
        print("skipped: PostgreSQL (apt-get install postgresql)", file=sys.stderr)
        raise unittest.SkipTest("no PostgreSQL")
    return Path(initdb).parent


def start_postgresql(test: unittest.TestCase, folder: Path, programs: Path) -> str:
    """Starts a server that ends with the test. Returns the URL of its database."""
    data, user = folder / "data", None
    data.mkdir()
    if os.geteuid() == 0:  # as which it refuses to run
        import pwd

        known = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in known else "nobody"
        shutil.chown(data, user)
        folder.chmod(0o755)
    made = subprocess.run(
        [programs / "initdb", "-D", data, "-U", "ghl", "-A", "trust", "--no-sync"],
        user=user, cwd="/", capture_output=True, text=True,
    )  # fmt: skip
    test.assertEqual(made.returncode, 0, made.stderr)
    port = free_port()
    server = subprocess.Popen(
        [
            programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "",
            "-c", "max_connections=100",
        ],
        user=user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    test.addCleanup(server.communicate)
    test.addCleanup(server.send_signal, signal.SIGQUIT)  # its workers end as well
    assert server.stderr
    for line in server.stderr:
        if "ready to accept connections" in line:
            return f"postgres://ghl:any@127.0.0.1:{port}/postgres"
    raise AssertionError("PostgreSQL did not start")


def free_port() -> int:
    """A free port of 127.0.0.1 outside the range of outgoing connections."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("no port is free")


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """Runs ``work`` in several threads at once. Returns their results or exceptions."""
    results: list[Any] = []
    start = threading.Barrier(count)

    def run() -> None:
        start.wait()
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
