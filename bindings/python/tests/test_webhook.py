"""Webhooks: the client, and the example receivers, each tested if its framework is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import ghl_oauth
from ghl_oauth import aio

from .support import REPOSITORY, EmulatorTest


class Twice(dict[str, str]):
    """Headers that occur twice, in the format of the frameworks."""

    def items(self) -> Any:
        return [*super().items(), *super().items()]


class WebhookTest(EmulatorTest):
    def test_delivery_is_verified_and_parsed(self) -> None:
        location_id = self.emulator.location_ids[0]
        body, headers = self.emulator.webhook(install=location_id)
        webhook = self.client.webhook_verify(body, headers)
        self.assertEqual(
            (webhook.type, webhook.scheme, webhook.key_index), ("INSTALL", "ed25519", 0)
        )
        self.assertEqual(webhook.payload["locationId"], location_id)
        self.assertEqual(webhook.webhook_id, webhook.payload["webhookId"])
        assert webhook.timestamp
        self.assertAlmostEqual(
            webhook.timestamp, datetime.now(timezone.utc), delta=timedelta(minutes=5)
        )
        self.assertEqual(webhook.raw["payload"], webhook.payload)
        body, headers = self.emulator.webhook(body="{}")
        webhook = self.client.webhook_verify(body, headers)
        self.assertEqual((webhook.type, webhook.webhook_id, webhook.timestamp), (None, None, None))

    def test_installs_and_uninstalls_are_applied_once(self) -> None:
        location_id = self.emulator.location_ids[0]
        install = self.emulator.webhook(install=location_id)
        outcome = self.client.webhook_apply(*install)
        self.assertEqual(
            (outcome.type, outcome.resource_id, outcome.applied), ("INSTALL", location_id, True)
        )
        self.assertIn("remembered", outcome.reason or "")
        self.install()
        self.assertEqual(len(list(self.client.tokens_list())), 2)
        outcome = self.client.webhook_apply(*install)
        self.assertEqual((outcome.applied, outcome.reason), (False, "it was applied before"))
        self.emulator.control("POST", "/clock", {"advanceSeconds": 60})
        outcome = self.client.webhook_apply(
            *self.emulator.webhook(uninstall=self.emulator.company_id)
        )
        self.assertEqual((outcome.resource_id, outcome.applied), (self.emulator.company_id, True))
        self.assertEqual(list(self.client.tokens_list()), [])

    def test_unsigned_delivery_is_refused(self) -> None:
        body, headers = self.emulator.webhook(install=self.emulator.company_id)
        changed = body.replace(b"INSTALL", b"install")
        wrong = self.emulator.webhook(body=body.decode(), signature="wrong")[1]
        for given, by in (
            (changed, headers),
            (body, wrong),
            (body, {}),
            (b"", headers),
            (body, Twice(headers)),
        ):
            for method in (self.client.webhook_verify, self.client.webhook_apply):
                with self.assertRaises(ghl_oauth.SignatureInvalid):
                    method(given, by)

    def test_body_may_contain_any_bytes(self) -> None:
        body, headers = self.emulator.webhook(body="\0{}")
        with self.assertRaises(ghl_oauth.InvalidArgument) as raised:
            self.client.webhook_verify(body, headers)
        self.assertEqual(raised.exception.parameter, "body")
        with self.assertRaises(TypeError):
            self.client.webhook_verify("{}", headers)  # type: ignore[arg-type]

    def test_keys_are_configured(self) -> None:
        keys = self.emulator.control("GET", "/webhooks")["publicKeys"]
        legacy = self.emulator.webhook(install=self.emulator.company_id, signature="legacy")
        with self.assertRaises(ghl_oauth.SignatureInvalid):
            self.client.webhook_verify(*legacy)
        client = self.make_client(webhook={"rsa_public_keys": [keys["rsa"]]})
        self.assertEqual(client.webhook_verify(*legacy).scheme, "rsa-sha256")
        with self.assertRaises(ghl_oauth.ConfigError) as raised:
            self.make_client(webhook={"ed25519_public_keys": ["nonsense"]})
        self.assertEqual(raised.exception.parameter, "webhook.ed25519_public_keys[0]")


class AgencyTest(EmulatorTest):
    """An agency with 500 locations, whose tokens take 40 seconds to mint at the API's rate."""

    OPTIONS = ("--locations", "500")

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.client = self.make_client(store=Path(folder.name, "tokens.db"))
        self.install()
        self.deliveries = [
            self.emulator.webhook(install=location_id) for location_id in self.emulator.location_ids
        ]
        self.requests = self.count()

    def count(self) -> int:
        return len(self.emulator.control("GET", "/requests")["requests"])

    def check(self, outcomes: list[ghl_oauth.WebhookOutcome]) -> None:
        self.assertEqual(len(outcomes), 500)
        self.assertEqual({outcome.applied for outcome in outcomes}, {True})
        self.assertEqual(self.count(), self.requests, "a delivery sent a request")
        self.assertEqual(len(list(self.client.tokens_list())), 1)
        token = self.client.access_token(self.emulator.location_ids[499])
        self.assertEqual(len(self.emulator.requests("/oauth/location-token")), 1)
        self.assertEqual(self.client.access_token(self.emulator.location_ids[499]), token)

    def test_500_installs_on_16_web_threads_send_nothing_and_are_minted_later(self) -> None:
        began = time.monotonic()
        with ThreadPoolExecutor(16) as threads:
            outcomes = threads.map(
                lambda delivery: self.client.webhook_apply(*delivery, mint=False), self.deliveries
            )
            applied = list(outcomes)
        self.assertLess(time.monotonic() - began, 30)
        self.check(applied)

    def test_500_installs_in_an_event_loop_send_nothing_and_are_minted_later(self) -> None:
        shared = aio.Client.from_client(self.client)

        async def apply_all() -> list[ghl_oauth.WebhookOutcome]:
            calls = (
                shared.webhook_apply(*delivery, mint=False, timeout=60)
                for delivery in self.deliveries
            )
            return await asyncio.gather(*calls)

        self.check(asyncio.run(apply_all()))

    def test_call_that_applies_a_delivery_can_be_limited_and_cancelled(self) -> None:
        delivery = self.deliveries[0]
        with self.assertRaises(ghl_oauth.InvalidArgument) as raised:
            self.client.webhook_apply(*delivery, timeout=0)
        self.assertEqual(raised.exception.parameter, "timeout")
        self.emulator.fault("stall", endpoint="location-token")
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(self.client.webhook_apply, *delivery, timeout=60, call_id="one")
            self.emulator.wait_for_stall()
            began = time.monotonic()
            self.client.cancel("one")
            outcome = call.result()
        self.assertLess(time.monotonic() - began, 30)
        self.assertIn("remembered", outcome.reason or "")


Post = Callable[[bytes, Mapping[str, str]], int]


class ReceiverTests(EmulatorTest):
    """Tests for every receiver; the test client of its framework sends the requests."""

    NEEDED: tuple[str, ...]

    def setUp(self) -> None:
        missing = [name for name in self.NEEDED if not importlib.util.find_spec(name)]
        if missing:
            print(f"skipped: the receiver for {self.NEEDED[0]} (pip install {' '.join(missing)})")
            self.skipTest(f"{missing[0]} is not installed")
        super().setUp()

    def example(self, name: str) -> ModuleType:
        path = REPOSITORY / "examples" / "python" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)  # pyright: ignore[reportAttributeAccessIssue]
        return module

    def sender(self) -> Post:
        raise NotImplementedError

    def test_example_receiver_keeps_tokens_up_to_date(self) -> None:
        post = self.sender()
        self.install()
        location_id = self.emulator.location_ids[0]
        body, headers = self.emulator.webhook(install=location_id)
        headers = {name.title(): value for name, value in headers.items()}
        self.assertEqual(post(body, headers), 200)
        self.assertEqual(post(body, headers), 200)
        held = {token.resource_id for token in self.client.tokens_list()}
        self.assertEqual(held, {self.emulator.company_id, location_id})
        self.assertEqual(post(body + b" ", headers), 401)
        self.assertEqual(post(body, {}), 401)
        self.assertEqual(post(*self.emulator.webhook(body="[]")), 400)


class FlaskTest(ReceiverTests):
    NEEDED = ("flask",)

    def sender(self) -> Post:
        http = self.example("webhook_flask").create_app(self.client).test_client()

        def post(body: bytes, headers: Mapping[str, str]) -> int:
            answer = http.post(
                "/webhooks", data=body, headers=dict(headers), content_type="application/json"
            )
            return int(answer.status_code)

        return post


class FastApiTest(ReceiverTests):
    NEEDED = ("fastapi", "httpx")

    def sender(self) -> Post:
        import httpx

        app = self.example("webhook_fastapi").create_app(self.client)

        async def ask(body: bytes, headers: Mapping[str, str]) -> int:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app), base_url="http://app.example"
            ) as http:
                return (
                    await http.post("/webhooks", content=body, headers=dict(headers))
                ).status_code

        return lambda body, headers: asyncio.run(ask(body, headers))


# The shared tests do not run on their own.
del ReceiverTests
