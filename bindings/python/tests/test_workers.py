"""One client in typical servers: forked workers, and an event loop with threads."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from .support import EmulatorTest, environment, free_port, in_threads

WORKERS = 4

APP = textwrap.dedent("""
    import json, os, ghl_oauth

    settings, company_id = json.loads(os.environ["GHL_TEST_APP"])
    client = ghl_oauth.Client(**settings)  # by --preload before the workers are forked
    assert [token.resource_id for token in client.tokens_list()] == [company_id]

    def app(environ, start_response):
        answer = f"{os.getpid()} {client.access_token(company_id)}".encode()
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]
""")


class GunicornTest(EmulatorTest):
    def test_preforked_workers_refresh_an_expired_token_once(self) -> None:
        if importlib.util.find_spec("gunicorn") is None:
            print(
                "skipped: forked workers, gunicorn is not installed (pip install gunicorn)",
                file=sys.stderr,
            )
            raise unittest.SkipTest("no gunicorn")
        with tempfile.TemporaryDirectory() as folder:
            self.client = self.make_client(store=Path(folder, "tokens.db"))
            self.install()
            self.expire()
            configuration = self.emulator.configuration
            settings = {
                "client_id": configuration["clientId"],
                "client_secret": configuration["clientSecret"],
                "base_url": configuration["baseUrl"],
                "store": str(Path(folder, "tokens.db")),
            }
            Path(folder, "preloaded.py").write_text(APP)
            port = free_port()
            variables = environment()
            variables["GHL_TEST_APP"] = json.dumps([settings, self.emulator.company_id])
            # Long enough that each worker gets a request before the refresh completes.
            self.emulator.settings(latencyMs=500)
            server = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "preloaded:app", "--preload",
                 f"--workers={WORKERS}",
                 f"--bind=127.0.0.1:{port}", "--log-level=warning"],
                cwd=folder, env=variables, stderr=subprocess.PIPE,
            )  # fmt: skip
            try:
                answers = in_threads(8 * WORKERS, lambda: ask(port, server))
            finally:
                server.terminate()
                _, errors = server.communicate(timeout=60)
        self.assertEqual({type(answer) for answer in answers}, {str}, (answers, errors))
        processes, tokens = zip(*(answer.split() for answer in answers))
        self.assertEqual((len(set(processes)), len(set(tokens))), (WORKERS, 1))
        self.assertEqual((self.emulator.refreshes(), server.returncode, errors), (1, 0, b""))


def ask(port: int, server: subprocess.Popen[bytes]) -> str:
    """The response of a worker, once the server listens."""
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                text: str = answer.read().decode()
                return text
        except urllib.error.HTTPError:
            raise
        except OSError:
            if server.poll() is not None:
                raise
            time.sleep(0.05)


class AsyncioTest(EmulatorTest):
    def test_a_hundred_awaited_calls_refresh_an_expired_token_once(self) -> None:
        self.install()
        self.expire()
        self.emulator.settings(latencyMs=300)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        async def main() -> list[str]:
            ticking = asyncio.create_task(tick())
            calls = [
                asyncio.to_thread(self.client.access_token, self.emulator.company_id)
                for _ in range(100)
            ]
            tokens = await asyncio.gather(*calls)
            ticking.cancel()
            return tokens

        tokens = asyncio.run(main())
        self.assertEqual((len(tokens), len(set(tokens)), self.emulator.refreshes()), (100, 1, 1))
        self.assertGreater(ticks, 3, "the event loop stood still")

    def test_cancelled_client_ends_awaited_calls(self) -> None:
        self.install()
        self.emulator.fault("stall", endpoint="installed-locations")

        async def main() -> str:
            pages = self.client.installed_locations(self.emulator.company_id)
            call = asyncio.create_task(asyncio.to_thread(next, pages))
            while not self.emulator.requests("/oauth/installed-locations"):
                await asyncio.sleep(0.01)
            self.client.cancel()
            try:
                await call
            except Exception as error:
                return type(error).__name__
            return "it returned"

        self.assertEqual(asyncio.run(main()), "Cancelled")


class ThreadsTest(EmulatorTest):
    def test_concurrent_threads_refresh_an_expired_token_once(self) -> None:
        self.install()
        self.expire()
        self.emulator.settings(latencyMs=200)
        before = threading.active_count()
        tokens = in_threads(32, lambda: self.client.access_token(self.emulator.company_id))
        self.assertEqual((len(set(tokens)), self.emulator.refreshes()), (1, 1))
        self.assertLessEqual(threading.active_count(), before)
