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

# Started by gunicorn and uWSGI before their workers are forked. Each worker waits in its first
# request until all of them have one, so that their calls meet.
APP = textwrap.dedent("""
    import json, os, pathlib, time, ghl_oauth

    settings, company_id, workers = json.loads(os.environ["GHL_TEST_APP"])
    client = ghl_oauth.Client(**settings)
    assert [token.resource_id for token in client.tokens_list()] == [company_id]
    here = pathlib.Path(__file__).parent

    def meet():
        (here / f"worker-{os.getpid()}").touch()
        end = time.monotonic() + 60
        while len(list(here.glob("worker-*"))) < workers and time.monotonic() < end:
            time.sleep(0.01)

    def app(environ, start_response):
        meet()
        answer = f"{os.getpid()} {client.access_token(company_id)}".encode()
        start_response("200 OK", [("Content-Length", str(len(answer))), ("Connection", "close")])
        return [answer]

    application = app
""")

TASKS = textwrap.dedent("""
    import os
    from celery import Celery
    from preloaded import client, company_id, here, meet

    folder = str(here / "broker")
    app = Celery("tasks", broker="filesystem://", backend=f"file://{here}/results")
    app.conf.update(
        broker_transport_options={
            "data_folder_in": folder, "data_folder_out": folder, "control_folder": folder,
        },
        worker_prefetch_multiplier=1,
    )

    @app.task(name="token")
    def token():
        meet()
        return f"{os.getpid()} {client.access_token(company_id)}"
""")

SEND = textwrap.dedent("""
    import sys
    from celery import group
    from tasks import token

    sent = group(token.s() for _ in range(int(sys.argv[1]))).apply_async()
    print(*sent.get(timeout=100), sep="\\n")
""")


class ServerTest(EmulatorTest):
    """A server with several workers, which share a client made before they are forked."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        store = str(self.folder / "tokens.db")
        self.client = self.make_client(store=store)
        self.install()
        self.expire()
        configuration = self.emulator.configuration
        settings = {
            "client_id": configuration["clientId"],
            "client_secret": configuration["clientSecret"],
            "base_url": configuration["baseUrl"],
            "store": store,
        }
        Path(self.folder, "preloaded.py").write_text(APP)
        Path(self.folder, "tasks.py").write_text(TASKS)
        Path(self.folder, "send.py").write_text(SEND)
        self.variables = environment()
        self.variables["GHL_TEST_APP"] = json.dumps([settings, self.emulator.company_id, WORKERS])
        self.emulator.settings(latencyMs=500)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        server = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(server.communicate)
        self.addCleanup(server.kill)
        return server

    def serves(self, port: int, *command: str) -> None:
        """Starts the server, which answers each request from the single refresh, and ends."""
        server = self.start(*command)
        try:
            answers = in_threads(8 * WORKERS, lambda: ask(port, server))
        finally:
            server.terminate()
            _, errors = server.communicate(timeout=60)
        self.assertEqual({type(answer) for answer in answers}, {str}, (answers, errors))
        self.check(answers, server, errors)

    def check(self, answers: list[str], server: subprocess.Popen[bytes], errors: bytes) -> None:
        processes, tokens = zip(*(answer.split() for answer in answers))
        self.assertEqual((len(set(processes)), len(set(tokens))), (WORKERS, 1), errors)
        self.assertEqual((self.emulator.refreshes(), server.returncode), (1, 0), errors)
        self.assertEqual(self.client.access_token(self.emulator.company_id), tokens[0])
        self.client.token_refresh(self.emulator.company_id)


def needs(*modules: str) -> None:
    """Skips the test unless these modules are installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            print(
                f"skipped: forked workers, {module} is not installed (pip install {module})",
                file=sys.stderr,
            )
            raise unittest.SkipTest(f"no {module}")


class GunicornTest(ServerTest):
    def run_gunicorn(self, *options: str) -> None:
        needs("gunicorn")
        port = free_port()
        self.serves(
            port, sys.executable, "-m", "gunicorn", "preloaded:app",
            f"--workers={WORKERS}", f"--bind=127.0.0.1:{port}", "--log-level=warning", *options,
        )  # fmt: skip

    def test_preforked_workers_refresh_an_expired_token_once(self) -> None:
        self.run_gunicorn("--preload")

    def test_workers_that_load_the_app_themselves_refresh_an_expired_token_once(self) -> None:
        self.run_gunicorn()

    def test_preforked_workers_with_threads_refresh_an_expired_token_once(self) -> None:
        self.run_gunicorn(
            "--preload", "--worker-class=gthread", "--threads=4", "--worker-connections=4"
        )

    def test_preforked_workers_with_greenlets_refresh_an_expired_token_once(self) -> None:
        needs("gevent", "packaging")
        self.run_gunicorn("--preload", "--worker-class=gevent", "--worker-connections=4")


class UwsgiTest(ServerTest):
    def run_uwsgi(self, *options: str) -> None:
        program = Path(sys.prefix, "bin", "uwsgi")
        if not program.exists():
            print("skipped: uWSGI is not installed (pip install uwsgi)", file=sys.stderr)
            raise unittest.SkipTest("no uWSGI")
        port = free_port()
        self.serves(
            port, str(program), "--master", f"--processes={WORKERS}", "--need-app", "--die-on-term",
            f"--http-socket=127.0.0.1:{port}", "--wsgi-file=preloaded.py", "--disable-logging",
            f"--virtualenv={sys.prefix}", *options,
        )  # fmt: skip

    def test_forked_workers_refresh_an_expired_token_once(self) -> None:
        self.run_uwsgi()

    def test_workers_that_load_the_app_themselves_refresh_an_expired_token_once(self) -> None:
        self.run_uwsgi("--lazy-apps")

    def test_forked_workers_with_threads_refresh_an_expired_token_once(self) -> None:
        self.run_uwsgi("--enable-threads", "--threads=2")


class CeleryTest(ServerTest):
    def test_preforked_workers_refresh_an_expired_token_once(self) -> None:
        needs("celery")
        for name in ("broker", "results"):
            Path(self.folder, name).mkdir()
        server = self.start(
            sys.executable, "-m", "celery", "--quiet", "--app=tasks", "worker", "--pool=prefork",
            f"--concurrency={WORKERS}", "--loglevel=ERROR",
            "--without-gossip", "--without-mingle", "--without-heartbeat",
        )  # fmt: skip
        try:
            sent = subprocess.run(
                [sys.executable, "send.py", str(8 * WORKERS)],
                cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
        finally:
            server.terminate()
            _, errors = server.communicate(timeout=60)
        self.assertEqual(sent.returncode, 0, (sent.stderr, errors))
        self.check(sent.stdout.split("\n")[:-1], server, errors)


def ask(port: int, server: subprocess.Popen[bytes], path: str = "") -> str:
    """The response of a worker, once the server listens."""
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=60) as answer:
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
