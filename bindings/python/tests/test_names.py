"""Errors name settings and parameters as a Python program writes them."""

from __future__ import annotations

import inspect
import json
import re
import unittest
from typing import Any

import ghl_oauth
from ghl_oauth import _names, errors

from .support import REPOSITORY, EmulatorTest

NAME = re.compile(r"\b[a-z]+[a-z0-9]*(?:[A-Z][a-zA-Z0-9]*)+\b")

# For each setting that a program can write: a value that the library refuses.
REFUSED: dict[str, Any] = {
    "client_id": "",
    "client_secret": 7,
    "client_secret_file": "/none",
    "redirect_uri": "/callback",
    "scopes": ["a b"],
    "base_url": "ftp://x",
    "authorize_url": "x",
    "api_version": "",
    "token_request_encoding": "xml",
    "store.kind": "floppy",
    "store.path": "",
    "store.url": 7,
    "store.ca_bundle_path": "/none",
    "store.encryption_keys": ["x"],
    "store.encryption_keys_path": "/none",
    "store.sealed_only": 7,
    "timeouts.connect_seconds": 601,
    "timeouts.answer_seconds": 601,
    "timeouts.total_seconds": 0,
    "retry.max_attempts": 0,
    "retry.base_delay_seconds": 601,
    "retry.max_delay_seconds": "long",
    "rate_limit.requests": 0,
    "rate_limit.per_seconds": 0,
    "rate_limit.per_day": "many",
    "refresh.margin_seconds": 86_401,
    "refresh.runway_percent": 91,
    "limits.response_bytes": 1,
    "http.proxy": "ftp://x",
    "http.no_proxy": "x",
    "http.ca_bundle_path": "/none",
    "http.user_agent_suffix": "a\nb",
    "http.allow_insecure_http": 7,
    "webhook.ed25519_public_keys": 7,
    "webhook.rsa_public_keys": 7,
    "webhook.max_age_seconds": 0,
    "consent_page.language": "de",
    "consent_page.title": 7,
    "consent_page.message": 7,
    "consent_page.failure_title": 7,
    "consent_page.failure_message": 7,
    "consent_page.color": "red",
}


def refused(**settings: Any) -> ghl_oauth.GhlError:
    given: dict[str, Any] = {"client_id": "app-1", "client_secret": "secret", **settings}
    try:
        ghl_oauth.Client(**given).close()
    except ghl_oauth.GhlError as error:
        return error
    raise AssertionError(f"{settings} was accepted")


class SettingsTest(unittest.TestCase):
    def test_every_setting_is_named_as_the_program_wrote_it(self) -> None:
        for name, value in REFUSED.items():
            section, _, key = name.rpartition(".")
            if section == "store" and key != "kind":
                kind = {"url": "postgres", "ca_bundle_path": "memory"}.get(key, "sqlite")
                path = {"path": "tokens.db"} if kind == "sqlite" else {}
                settings = {"store": {"kind": kind, **path, key: value}}
            elif section:
                settings = {section: {key: value}}
            else:
                settings = {key: value}
            with self.subTest(name):
                error = refused(**settings)
                self.assertEqual(error.parameter, name)
                self.assertIn(name, error.message)
                self.assertEqual(NAME.findall(str(error)), [])
                self.assertNotIn("_json", str(error))

    def test_every_setting_of_the_library_has_a_name(self) -> None:
        documented = re.findall(
            r"^\| `([a-zA-Z0-9.]+)` \|",
            (REPOSITORY / "docs" / "configuration.md").read_text(),
            re.MULTILINE,
        )
        self.assertIn("timeouts.totalMs", documented)
        self.assertEqual({_names.setting(name) for name in documented}, set(REFUSED))
        parameters = inspect.signature(ghl_oauth.Client.__init__).parameters
        self.assertEqual({name.split(".")[0] for name in REFUSED}, set(parameters) - {"self"})

    def test_limits_of_durations_are_in_the_unit_that_the_program_wrote(self) -> None:
        for key, value, limits in (
            ("total_seconds", 601, "from 0.001 to 600"),
            ("total_ms", 600_001, "from 1 to 600000"),
            ("totalMs", 600_001, "from 1 to 600000"),
        ):
            error = refused(timeouts={key: value})
            self.assertEqual(error.parameter, f"timeouts.{key}")
            self.assertIn(limits, error.message)
        self.assertIn("a number, 0 or more", refused(timeouts={"total_seconds": "x"}).message)
        self.assertIn("a whole number", refused(retry={"max_attempts": 1.5}).message)

    def test_unknown_and_mistyped_settings_are_named(self) -> None:
        error = refused(rate_limit={"per_hour": 1})
        self.assertEqual(error.parameter, "rate_limit.per_hour")
        self.assertIn("snake_case", error.help or "")
        self.assertEqual(refused(http={"noProxies": []}).parameter, "http.noProxies")
        self.assertEqual(refused(store={"tokenDB": 1}).parameter, "store.tokenDB")
        with self.assertRaisesRegex(TypeError, "timeouts must be a mapping, not int"):
            ghl_oauth.Client("app-1", "secret", timeouts=5)  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "timeouts: total_ms is given twice"):
            ghl_oauth.Client("app-1", "secret", timeouts={"total_seconds": 1, "total_ms": 1})

    def test_store_that_is_one_word_is_named_so(self) -> None:
        for store in (":memory:", "/none/tokens.db", "postgres://"):
            error = refused(store=store)
            self.assertEqual(error.parameter, "store")
            self.assertNotIn("store.", str(error))

    def test_library_without_postgresql_says_how_python_gets_it(self) -> None:
        error = errors.from_json(
            {
                "status": "GHL_ERR_CONFIG",
                "message": "store.kind cannot be used: this build does not include PostgreSQL",
                "parameter": "store.kind",
            },
            _names.Names({"store.kind": "store"}),
        )
        self.assertIn('pip install "ghl-oauth[postgres]"', str(error))
        if "postgres" not in ghl_oauth.library_info()["stores"]:
            self.assertIn("ghl-oauth[postgres]", refused(store="postgres://x@y/z").help or "")

    def test_only_names_in_camel_case_are_translated(self) -> None:
        error = errors.from_json(
            {"status": "GHL_ERR_CONFIG", "message": "store.tokenDB and store.busyTimeoutMs"},
            _names.Names({}),
        )
        self.assertEqual(error.message, "store.tokenDB and store.busy_timeout_seconds")

    def test_document_keeps_its_own_names(self) -> None:
        document = {"clientId": "app-1", "clientSecret": "s", "timeouts": {"totalMs": 0}}
        with self.assertRaises(ghl_oauth.ConfigError) as raised:
            ghl_oauth.Client.from_config(document)
        self.assertEqual(raised.exception.parameter, "timeouts.totalMs")
        self.assertIn("from 1 to 600000", raised.exception.message)

    def test_library_document_is_unchanged_in_raw(self) -> None:
        error = refused(retry={"max_attempts": 0})
        self.assertEqual(error.raw["parameter"], "retry.maxAttempts")


class CallsTest(EmulatorTest):
    def test_every_parameter_is_named_as_the_program_wrote_it(self) -> None:
        client, company = self.client, self.emulator.company_id
        calls: list[tuple[str, Any]] = [
            ("timeout", lambda: client.token_refresh(company, timeout=0)),
            ("call_id", lambda: client.token_refresh(company, call_id="")),
            ("min_valid", lambda: client.access_token(company, min_valid=-1)),
            ("page_size", lambda: next(client.tokens_list(page_size=0))),
            ("page_size", lambda: next(client.installed_locations(company, page_size=101))),
            ("user_type", lambda: next(client.tokens_list(user_type="Agency"))),
            ("company_id", lambda: client.tokens_mint("")),
            ("location_ids[0]", lambda: client.tokens_mint(company, [""])),
            ("concurrency", lambda: client.tokens_maintain(concurrency=0)),
            ("redirect_url", lambda: client.authorization_complete("callback")),
            ("redirect_uri", lambda: client.authorization_url(redirect_uri="/callback")),
            ("grant_type", lambda: client.oauth_token(grant_type="password")),
            ("port", lambda: client.authorization_listen(port=0)),
            ("resource_id", lambda: client.access_token("")),
            ("client_id", lambda: client.tokens_adopt("")),
            ("headers", lambda: client.webhook_verify(b"{}", {})),
        ]
        for name, call in calls:
            with self.subTest(name), self.assertRaises(ghl_oauth.GhlError) as raised:
                call()
            error = raised.exception
            if isinstance(error, ghl_oauth.SignatureInvalid):
                continue
            self.assertEqual(error.parameter, name)
            self.assertEqual(NAME.findall(str(error)), [])
            self.assertNotIn("_json", str(error))

    def test_limits_of_a_timeout_are_in_seconds(self) -> None:
        with self.assertRaises(ghl_oauth.InvalidArgument) as raised:
            self.client.token_refresh(self.emulator.company_id, timeout=86_401)
        self.assertEqual(raised.exception.message, "timeout must be a number from 0.001 to 86400")

    def test_words_of_the_server_are_quoted_as_they_are(self) -> None:
        self.install()
        message = "locationId: timeoutMs, http.caBundlePath and pageSize are wrong"
        self.emulator.fault(
            "status",
            status=400,
            body=json.dumps({"statusCode": 400, "message": message}),
            endpoint="installed-locations",
        )
        with self.assertRaises(ghl_oauth.InvalidRequest) as raised:
            next(self.client.installed_locations(self.emulator.company_id))
        self.assertIn(message, raised.exception.message)

    def test_advice_names_settings_as_the_program_or_its_document_writes_them(self) -> None:
        self.emulator.settings(latencyMs=60_000)
        configuration = self.emulator.configuration
        document = {
            "clientId": configuration["clientId"],
            "clientSecret": configuration["clientSecret"],
            "baseUrl": configuration["baseUrl"],
            "timeouts": {"totalMs": 200, "answerMs": 100},
            "retry": {"maxAttempts": 1},
        }
        other = ghl_oauth.Client.from_config(document)
        self.addCleanup(other.close)
        own = self.make_client(timeouts={"total_seconds": 0.2, "answer_seconds": 0.1})
        advice = []
        for client in (own, other):
            with self.assertRaises(ghl_oauth.Timeout) as raised:
                client.oauth_token(grant_type="client_credentials")
            advice.append(raised.exception.help)
        self.assertEqual(
            advice,
            [
                "try again, or raise timeouts.total_seconds",
                "try again, or raise timeouts.totalMs",
            ],
        )
