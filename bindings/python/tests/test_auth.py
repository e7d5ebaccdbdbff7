"""The plug-ins for requests and httpx, each tested if its library is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
import unittest
from collections.abc import AsyncGenerator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Callable
from unittest import mock

import ghl_oauth
from ghl_oauth import aio
from ghl_oauth.auth import Bearer, is_curable

from .support import EmulatorTest, in_threads

DEAD_TOKEN = json.dumps({"statusCode": 401, "message": "Invalid JWT"})


class CurableTest(unittest.TestCase):
    def test_only_an_expired_token_causes_a_refresh(self) -> None:
        for curable, status, body in (
            (True, 401, DEAD_TOKEN),
            (True, 401, '{"statusCode":401,"message":"Invalid token: access token is invalid"}'),
            (False, 400, DEAD_TOKEN),
            (False, 401, '{"message":"version header was not found."}'),
            (False, 401, '{"message":"The token is not authorized for this scope."}'),
            (False, 401, ""),
        ):
            self.assertEqual(is_curable(status, body), curable, body)


class BearerTest(EmulatorTest):
    def setUp(self) -> None:
        super().setUp()
        self.install()
        self.bearer = Bearer(self.client, self.emulator.company_id)

    def test_concurrent_refusals_cause_one_refresh(self) -> None:
        refused = self.bearer.header()
        renewed = in_threads(8, lambda: self.bearer.renew(refused))
        self.assertEqual(set(renewed), {self.bearer.header()})
        self.assertEqual(self.emulator.refreshes(), 1)

    def test_refused_new_token_is_not_refreshed_again(self) -> None:
        renewed = self.bearer.renew(self.bearer.header())
        assert renewed
        self.assertIsNone(self.bearer.renew(renewed))
        self.assertIsNone(self.bearer.renew(renewed))
        self.assertEqual(self.emulator.refreshes(), 1)


class Thief(HTTPServer):
    """The target of a redirect to another host; records and refuses every request."""

    def __init__(self) -> None:
        self.loot: list[str | None] = []
        super().__init__(("127.0.0.1", 0), self.Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_port}/"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    class Handler(BaseHTTPRequestHandler):
        server: Thief  # pyright: ignore[reportIncompatibleVariableOverride]

        def do_GET(self) -> None:
            self.server.loot.append(self.headers.get("Authorization"))
            self.send_response(401)
            self.send_header("Content-Length", str(len(DEAD_TOKEN)))
            self.end_headers()
            self.wfile.write(DEAD_TOKEN.encode())

        def log_message(self, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            pass


class PlugInTests(EmulatorTest):
    """Tests shared by both plug-ins. ``send`` makes a request and returns its status and JSON."""

    def setUp(self) -> None:
        super().setUp()
        self.install()
        self.location_id = self.emulator.location_ids[0]
        self.client.access_token(self.location_id)
        self.send = self.sender()

    def sender(self, resource_id: str | None = None) -> Callable[..., tuple[int, Any]]:
        raise NotImplementedError

    def get(self) -> int:
        status, _ = self.send("GET", f"{self.emulator.base_url}/locations/{self.location_id}")
        return status

    def seen(self) -> list[int]:
        return [
            request["status"]
            for request in self.emulator.requests(f"/locations/{self.location_id}")
        ]

    def test_valid_token_is_sent(self) -> None:
        url = f"{self.emulator.base_url}/locations/{self.location_id}"
        self.assertEqual(self.send("GET", url)[1]["location"]["_id"], self.location_id)
        self.assertEqual(self.seen(), [200])

    def test_token_refused_early_is_refreshed_and_the_request_repeated(self) -> None:
        self.emulator.control("POST", "/tokens/expire", {})
        self.assertEqual(self.get(), 200)
        self.assertEqual(self.seen(), [401, 200])
        self.assertEqual(self.emulator.refreshes(), 1)
        self.assertEqual(self.get(), 200)
        self.assertEqual(self.emulator.refreshes(), 1)

    def test_request_is_repeated_at_most_once(self) -> None:
        self.emulator.fault("status", status=401, body=DEAD_TOKEN, endpoint="location")
        self.assertEqual(self.get(), 401)
        self.assertEqual(len(self.seen()), 2)
        self.assertEqual(self.get(), 401)
        self.assertEqual(len(self.seen()), 3)
        self.assertEqual(self.emulator.refreshes(), 1)

    def test_401_unrelated_to_the_token_is_returned_at_once(self) -> None:
        refusal = '{"statusCode":401,"message":"The token is not authorized for this scope."}'
        self.emulator.fault("status", status=401, body=refusal, endpoint="location")
        self.assertEqual(self.get(), 401)
        self.assertEqual((len(self.seen()), self.emulator.refreshes()), (1, 0))

    def test_failed_refresh_is_raised(self) -> None:
        self.emulator.control("POST", "/tokens/expire", {})
        self.emulator.fault("status", status=400, body="{}", endpoint="token")
        with self.assertRaises(ghl_oauth.InvalidRequest):
            self.get()

    def test_body_is_sent_again_completely(self) -> None:
        path = "/oauth/location-token"
        form = {"companyId": self.emulator.company_id, "locationId": self.location_id}
        self.send = self.sender(self.emulator.company_id)
        self.emulator.fault(
            "status", status=401, body=DEAD_TOKEN, endpoint="location-token", count=1
        )
        status, token = self.send("POST", self.emulator.base_url + path, data=form)
        self.assertEqual((status, token["locationId"]), (200, self.location_id))
        mints = self.emulator.requests(path)[-2:]
        self.assertEqual(mints[0]["body"], mints[1]["body"])

    def test_stream_is_not_sent_again(self) -> None:
        def body() -> Iterator[bytes]:
            yield b"once"

        path = "/oauth/location-token"
        before = len(self.emulator.requests(path))
        self.emulator.fault("status", status=401, body=DEAD_TOKEN, endpoint="location-token")
        status, _ = self.send("POST", self.emulator.base_url + path, stream=body())
        self.assertEqual(status, 401)
        self.assertEqual(len(self.emulator.requests(path)) - before, 1)
        self.assertEqual(self.emulator.refreshes(), 1)

    def test_other_host_never_gets_a_token(self) -> None:
        thief = Thief()
        self.addCleanup(thief.stop)
        self.emulator.fault("redirect", status=307, location=thief.url, endpoint="location")
        self.assertEqual(self.get(), 401)
        self.assertEqual(thief.loot, [None])
        self.assertEqual(self.emulator.refreshes(), 0)


@unittest.skipUnless(importlib.util.find_spec("requests"), "requests is not installed")
class RequestsTest(PlugInTests):
    def sender(self, resource_id: str | None = None) -> Callable[..., tuple[int, Any]]:
        import requests

        auth = ghl_oauth.requests_auth(self.client, resource_id or self.location_id)

        def send(method: str, url: str, data: Any = None, stream: Any = None) -> tuple[int, Any]:
            headers = {"Version": "v3"}
            answer = requests.request(
                method, url, data=data or stream, auth=auth, headers=headers, timeout=10
            )
            return answer.status_code, answer.json()

        return send

    def test_file_is_rewound_before_a_repetition(self) -> None:
        import tempfile

        import requests

        path = "/oauth/location-token"
        self.emulator.fault(
            "status", status=401, body=DEAD_TOKEN, endpoint="location-token", count=1
        )
        with tempfile.TemporaryFile() as file:
            file.write(b"skipped" + b"sent")
            file.seek(7)
            auth = ghl_oauth.requests_auth(self.client, self.location_id)
            requests.post(self.emulator.base_url + path, data=file, auth=auth, timeout=10)
        self.assertEqual(
            [request["body"] for request in self.emulator.requests(path)[-2:]], ["sent", "sent"]
        )


@unittest.skipUnless(importlib.util.find_spec("httpx"), "httpx is not installed")
class HttpxTest(PlugInTests):
    def sender(self, resource_id: str | None = None) -> Callable[..., tuple[int, Any]]:
        import httpx

        http = httpx.Client(
            auth=ghl_oauth.httpx_auth(self.client, resource_id or self.location_id),
            headers={"Version": "v3"},
            follow_redirects=True,
        )
        self.addCleanup(http.close)

        def send(method: str, url: str, data: Any = None, stream: Any = None) -> tuple[int, Any]:
            answer = http.request(method, url, data=data, content=stream)
            return answer.status_code, answer.json()

        return send


@unittest.skipUnless(importlib.util.find_spec("httpx"), "httpx is not installed")
class AsyncHttpxTest(PlugInTests):
    def auth_client(self) -> ghl_oauth.Client | aio.Client:
        return self.client

    def sender(self, resource_id: str | None = None) -> Callable[..., tuple[int, Any]]:
        import httpx

        auth = ghl_oauth.httpx_auth(self.auth_client(), resource_id or self.location_id)

        async def in_pieces(stream: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
            for piece in stream:
                yield piece

        async def ask(method: str, url: str, data: Any, stream: Any) -> httpx.Response:
            async with httpx.AsyncClient(
                auth=auth, headers={"Version": "v3"}, follow_redirects=True
            ) as http:
                return await http.request(
                    method, url, data=data, content=stream and in_pieces(stream)
                )

        def send(method: str, url: str, data: Any = None, stream: Any = None) -> tuple[int, Any]:
            answer = asyncio.run(ask(method, url, data, stream))
            return answer.status_code, answer.json()

        return send

    def test_event_loop_is_not_blocked_by_a_refresh(self) -> None:
        import httpx

        self.expire()
        self.emulator.fault("stall", endpoint="token")

        async def status() -> int:
            auth = ghl_oauth.httpx_auth(self.auth_client(), self.location_id)
            async with httpx.AsyncClient(auth=auth, headers={"Version": "v3"}) as http:
                request = asyncio.create_task(
                    http.get(f"{self.emulator.base_url}/locations/{self.location_id}")
                )
                await asyncio.to_thread(self.emulator.wait_for_stall)
                # A blocked loop would continue only after the refresh has failed.
                self.assertFalse(request.done())
                self.emulator.end_faults()
                return (await request).status_code

        self.assertEqual(asyncio.run(status()), 200)
        self.assertEqual(self.client.stats()["tokens"]["refreshed"], 1)

    def test_live_token_is_sent_without_a_thread(self) -> None:
        import httpx

        async def status() -> int:
            auth = ghl_oauth.httpx_auth(self.auth_client(), self.location_id)
            async with httpx.AsyncClient(auth=auth, headers={"Version": "v3"}) as http:
                with mock.patch.object(threading.Thread, "start", self.fail):
                    url = f"{self.emulator.base_url}/locations/{self.location_id}"
                    return (await http.get(url)).status_code

        self.assertEqual(asyncio.run(status()), 200)


@unittest.skipUnless(importlib.util.find_spec("httpx"), "httpx is not installed")
class AioHttpxTest(AsyncHttpxTest):
    """The same with a client for asyncio."""

    def auth_client(self) -> aio.Client:
        client = aio.Client.from_client(self.client)
        self.addCleanup(lambda: asyncio.run(client.close()))
        return client


# The shared tests do not run on their own.
del PlugInTests
