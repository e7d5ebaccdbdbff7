"""``ghl-oauth doctor`` and the answers of the API, or of another server."""

from __future__ import annotations

import json
from typing import Any

from .test_doctor import DoctorCase


class ExpiredTokenTest(DoctorCase):
    OPTIONS = ("--locations", "1")

    def login(self) -> None:
        with self.make_client(store=self.folder / "tokens.db") as self.client:
            self.install()
            self.expire()

    def test_expired_token_is_refreshed_once(self) -> None:
        self.login()
        for _ in range(2):
            ended = self.run_cli("doctor")
            self.assertEqual(ended.returncode, 0, ended.stdout)
            accepted = f"the API accepts the token of {self.emulator.company_id}"
            self.assertIn(accepted, ended.stdout)
            self.assertEqual(self.emulator.refreshes(), 1, "the token is live now")

    def test_wrong_secret_is_diagnosed_by_the_refresh_of_an_expired_token(self) -> None:
        self.login()
        self.configure(clientSecret="not the secret")
        self.finds(
            "tokens",
            "problem",
            self.emulator.company_id,
            "client ID or secret is probably wrong",
            "developer portal",
            status=1,
        )

    def test_dead_refresh_token_of_an_expired_token_is_diagnosed(self) -> None:
        self.login()
        self.emulator.control("POST", "/tokens/revoke", {"resourceId": self.emulator.company_id})
        self.finds(
            "tokens",
            "consent",
            self.emulator.company_id,
            "has expired, and the API refuses a refresh",
            "must consent again",
            status=3,
        )

    def test_refresh_without_an_answer_of_the_api_is_temporary(self) -> None:
        self.login()
        self.emulator.fault("status", status=503, body="", grantType="refresh_token")
        self.finds("tokens", "problem", self.emulator.company_id, "503", status=4)


class OtherServerTest(DoctorCase):
    """A proxy, a firewall, the login page of a network, or a wrong server."""

    ANSWERS: tuple[tuple[str, dict[str, Any], str], ...] = (
        (
            "status",
            {"status": 403, "body": "error code: 1010", "contentType": "text/plain"},
            "1010",
        ),
        ("status", {"status": 403, "body": '{"message":"blocked by policy"}'}, "blocked by policy"),
        ("status", {"status": 200, "body": "Welcome to the hotel WiFi"}, "hotel WiFi"),
        ("status", {"status": 200, "body": '{"ok":true}'}, "status 200"),
        ("status", {"status": 404, "body": '{"error":"no such page"}'}, "no such page"),
        (
            "status",
            {"status": 404, "body": '{"statusCode":404,"message":"Cannot GET"}'},
            "Cannot GET",
        ),
        ("status", {"status": 401, "body": "<html>Sign in</html>", "contentType": ""}, "Sign in"),
        ("redirect", {"status": 302, "location": "http://portal.example/"}, "status 302"),
        ("notJson", {}, "status 401"),
    )

    def test_answer_that_is_not_of_the_api_is_diagnosed(self) -> None:
        for logged_in in (False, True):
            if logged_in:
                self.login()
            for kind, fault, words in self.ANSWERS:
                with self.subTest(logged_in=logged_in, kind=kind, fault=fault):
                    self.emulator.fault(kind, **fault)
                    ended = self.run_cli("doctor", "--json")
                    self.emulator.end_faults()
                    checks = self.checks(ended)
                    network = checks["network"]
                    self.assertEqual(network["outcome"], "problem", ended.stdout)
                    self.assertEqual(ended.returncode, 1, ended.stdout)
                    self.assertIn("in place of the API", network["message"])
                    self.assertIn(words, network["message"])
                    self.assertIn("firewall", network["help"])
                    self.assertEqual(checks["credentials"]["outcome"], "skipped", ended.stdout)
                    self.assertNotIn("accepts the token", ended.stdout)

    def test_firewall_in_front_of_one_endpoint_is_diagnosed(self) -> None:
        self.login()
        for status, body in (
            (403, "error code: 1010"),
            (403, '{"message":"blocked by policy"}'),
            (403, '{"error":"blocked by policy"}'),
            (200, '{"ok":true}'),
        ):
            with self.subTest(body):
                self.emulator.fault(
                    "status", status=status, body=body, resourceId=self.emulator.company_id
                )
                self.finds("tokens", "problem", "in place of the API", "firewall", status=1)
                self.emulator.end_faults()
        self.emulator.fault("status", status=403, body="error code: 1010", endpoint="token")
        self.finds("credentials", "problem", "in place of the API", "firewall", status=1)

    def test_text_in_place_of_a_refusal_says_nothing_about_the_credentials(self) -> None:
        self.login()
        self.emulator.fault("notJson", endpoint="token")
        self.finds("credentials", "skipped", "no verdict", status=0)

    def test_refusal_that_depends_on_the_request_shows_that_the_token_is_known(self) -> None:
        self.login()
        for refusal in ("scopeMissing", "authClass", "locationForbidden", "locationInaccessible"):
            with self.subTest(refusal):
                self.emulator.fault("refusal", refusal=refusal, resourceId=self.emulator.company_id)
                self.finds("tokens", "ok", status=0)
                self.emulator.end_faults()


class TemporaryTest(DoctorCase):
    def test_api_that_fails_is_temporary(self) -> None:
        self.login()
        for kind, fault, words in (
            ("status", {"status": 500, "body": "oops"}, "500"),
            ("status", {"status": 503, "body": ""}, "503"),
            ("status", {"status": 429, "body": "slow down"}, "429"),
            ("commandTimedOut", {}, "Command timed out"),
            ("commandTimedOut", {"asObject": True}, "Command timed out"),
        ):
            with self.subTest(kind=kind, fault=fault):
                self.emulator.fault(kind, **fault)
                self.finds("network", "problem", words, "try again", status=4)
                self.emulator.end_faults()
                self.emulator.fault(kind, endpoint="token", **fault)
                self.finds("credentials", "problem", words, "try again", status=4)
                self.emulator.end_faults()

    def test_login_page_of_a_network_is_named_and_is_not_temporary(self) -> None:
        self.login()
        fault = {"status": 511, "body": "<html>log in</html>"}
        self.emulator.fault("status", **fault)
        self.finds("network", "problem", "the network requires a login", "sign in", status=1)
        self.emulator.end_faults()
        self.emulator.fault("status", endpoint="token", **fault)
        self.finds("credentials", "problem", "511", "sign in to the network", status=1)
        self.emulator.end_faults()
        self.emulator.fault("status", resourceId=self.emulator.company_id, **fault)
        self.finds("tokens", "problem", "the network requires a login", "sign in", status=1)

    def test_command_timed_out_says_nothing_about_a_token(self) -> None:
        location_id = self.emulator.location_ids[0]
        with self.make_client(store=self.folder / "tokens.db") as self.client:
            self.install()
            self.client.access_token(location_id)
        for resource_id in (self.emulator.company_id, location_id):
            with self.subTest(resource_id):
                self.emulator.fault("commandTimedOut", resourceId=resource_id)
                self.finds("tokens", "problem", resource_id, "try again", status=4)
                self.emulator.end_faults()

    def test_request_that_hangs_is_not_called_a_refresh(self) -> None:
        self.login()
        self.emulator.fault("stall", resourceId=self.emulator.company_id)
        ended = self.run_cli("doctor", "--json")
        self.assertEqual(ended.returncode, 4, ended.stdout)
        self.assertNotIn("refresh", ended.stderr)
        (check,) = (
            each for each in json.loads(ended.stdout)["checks"] if each["outcome"] == "problem"
        )
        self.assertEqual(check["name"], "tokens")


class OldVersionTest(DoctorCase):
    def test_old_api_version_is_diagnosed_without_a_token(self) -> None:
        self.configure(apiVersion="2021-07-28")
        ended = self.run_cli("doctor", "--json")
        version = self.checks(ended)["version"]
        self.assertEqual((ended.returncode, version["outcome"]), (1, "problem"), ended.stdout)
        self.assertIn("2021-07-28", version["message"])
        self.assertIn("version header is invalid", version["message"])
        self.assertEqual(self.checks(ended)["network"]["outcome"], "ok")
