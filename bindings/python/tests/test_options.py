"""The options of a call: its timeout, its id, and the minimum life of a token."""

from __future__ import annotations

import threading
import time
import unittest
from typing import Any, Callable

import ghl_oauth
from ghl_oauth import Cancelled, GhlError, InvalidArgument, ServerError, Timeout

from .support import EmulatorTest

# Far longer than a call with a short timeout takes, and far shorter than the default timeout.
PROMPT = 15.0


class TimeoutTest(EmulatorTest):
    def test_call_ends_by_its_own_timeout_in_seconds(self) -> None:
        company = self.install().resource_id
        self.emulator.fault("stall")
        began = time.monotonic()
        calls: list[Callable[[], object]] = [
            lambda: next(self.client.installed_locations(company, timeout=0.2)),
            lambda: self.client.request("GET", "/contacts/", resource_id=company, timeout=0.2),
            lambda: self.client.oauth_location_token(
                company_id=company, location_id=self.emulator.location_ids[0], timeout=0.2
            ),
            lambda: self.client.access_token(self.emulator.location_ids[0], timeout=0.2),
            lambda: self.client.tokens_mint(company, timeout=0.2),
        ]
        for call in calls:
            with self.assertRaisesRegex(Timeout, "200 ms"):
                call()
        self.assertLess(time.monotonic() - began, PROMPT)
        self.emulator.end_faults()

    def test_timeout_that_is_no_duration_is_refused(self) -> None:
        for timeout in (0, -1, 86_401):
            with self.assertRaises(InvalidArgument) as raised:
                self.client.request("GET", "/x", timeout=timeout)
            self.assertEqual(raised.exception.parameter, "timeout")
        with self.assertRaises(InvalidArgument):
            self.client.request("GET", "/x", timeout="5")  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            self.client.request("GET", "/x", timeout=float("nan"))

    def test_every_method_that_may_wait_accepts_the_options(self) -> None:
        company = self.install().resource_id
        location = self.emulator.location_ids[0]
        options: dict[str, Any] = {"timeout": 60.5, "call_id": "größe"}
        self.client.access_token(company, **options)
        self.client.access_token(location, min_valid=1.5, **options)
        self.client.token_refresh(company, **options)
        tokens = list(self.client.tokens_export(**options))
        self.assertEqual(len(list(self.client.tokens_list(**options))), 2)
        self.client.tokens_import(tokens, **options)
        self.client.tokens_maintain(**options)
        self.client.tokens_mint(company, [location], **options)
        self.assertTrue(list(self.client.installed_locations(company, **options)))
        self.client.oauth_location_token(company_id=company, location_id=location, **options)
        self.client.request("GET", "/nowhere", **options)
        for call in (
            lambda: self.client.tokens_adopt("other", **options),
            lambda: self.client.authorization_complete("https://elsewhere.example/", **options),
            lambda: self.client.oauth_token(grant_type="refresh_token", **options),
        ):
            with self.assertRaises(GhlError) as raised:
                call()
            self.assertNotIn(raised.exception.parameter, ("timeout", "call_id"))


class CancelTest(EmulatorTest):
    def test_call_is_cancelled_by_its_id_and_the_others_continue(self) -> None:
        company = self.install().resource_id
        self.emulator.fault("stall")
        outcomes: dict[str, object] = {}

        def call(call_id: str) -> None:
            try:
                outcomes[call_id] = next(self.client.installed_locations(company, call_id=call_id))
            except GhlError as error:
                outcomes[call_id] = error

        threads = {name: threading.Thread(target=call, args=(name,)) for name in ("mine", "other")}
        for thread in threads.values():
            thread.start()
        self.emulator.wait_for_stall()
        self.client.cancel("unknown")
        while threads["mine"].is_alive():
            # Repeated, because the call may not have begun yet.
            self.client.cancel("mine")
            threads["mine"].join(0.01)
        self.assertIsInstance(outcomes["mine"], Cancelled)
        self.assertNotIn("other", outcomes)
        self.emulator.end_faults()
        threads["other"].join(PROMPT)
        self.assertIsInstance(outcomes["other"], ghl_oauth.Location)

    def test_id_that_no_call_can_have_is_refused(self) -> None:
        for call_id in ("", "x" * 257):
            with self.assertRaises(InvalidArgument):
                self.client.cancel(call_id)
            with self.assertRaises(InvalidArgument) as raised:
                self.client.request("GET", "/x", call_id=call_id)
            self.assertEqual(raised.exception.parameter, "call_id")


class MinValidTest(EmulatorTest):
    def test_token_with_less_than_the_minimum_life_is_renewed(self) -> None:
        company = self.install().resource_id
        self.emulator.settings(accessTokenSeconds=3_000)
        old = self.client.token_refresh(company)
        token = self.client.access_token(company)
        self.assertEqual(self.client.access_token(company, min_valid=2_000), token)
        # Just granted, so not renewed although it cannot be valid for so long.
        self.assertEqual(self.client.access_token(company, min_valid=5_000), token)
        self.assertTrue(old.refreshable)
        with self.assertRaises(InvalidArgument) as raised:
            self.client.access_token(company, min_valid=-1)
        self.assertEqual(raised.exception.parameter, "min_valid")

    def test_failed_renewal_is_raised_although_the_old_token_is_valid(self) -> None:
        self.import_old_token()
        self.emulator.fault("status", status=500)
        self.assertEqual(self.client.access_token("old"), "old-access-token")
        with self.assertRaises(ServerError):
            self.client.access_token("old", min_valid=80_000)
        self.emulator.end_faults()

    def import_old_token(self) -> None:
        """A token of ten hours ago, with fourteen hours left."""
        hour = 3_600_000
        now = int(time.time() * 1000)
        document = {
            "accessToken": "old-access-token",
            "refreshToken": "old-refresh-token",
            "userType": "Company",
            "companyId": "old",
            "expiresAt": now + 14 * hour,
        }
        self.assertEqual(self.client.tokens_import([document]).imported, 1)


class InfoTest(unittest.TestCase):
    def test_library_describes_itself(self) -> None:
        info = ghl_oauth.library_info()
        self.assertEqual(info["version"], ghl_oauth.library_version())
        self.assertEqual(info["abiVersion"], ghl_oauth.abi_version())
        self.assertIn("memory", info["stores"])
        self.assertEqual(info["tls"], "rustls")
