"""Exceptions and their attributes."""

from __future__ import annotations

import json
import pickle
import unittest
from typing import Any

import ghl_oauth
from ghl_oauth import errors

from .support import EmulatorTest


class GhlErrorTest(unittest.TestCase):
    def test_exception_fields_match_the_error_object(self) -> None:
        error = errors.from_json(
            {
                "status": "GHL_ERR_RATE_LIMITED",
                "message": "too many requests",
                "help": "wait",
                "parameter": None,
                "retryable": True,
                "sent": False,
                "retryAfterMs": 1500,
                "resourceId": "l1",
                "httpStatus": 429,
                "traceId": "t1",
                "api": {"code": None, "message": "slow down", "details": None, "resolution": None},
            }
        )
        self.assertIsInstance(error, ghl_oauth.RateLimited)
        self.assertEqual((error.code, error.status), (9, "GHL_ERR_RATE_LIMITED"))
        self.assertEqual(
            (error.message, error.help, error.parameter), ("too many requests", "wait", None)
        )
        self.assertEqual((error.retryable, error.sent, error.retry_after), (True, False, 1.5))
        self.assertEqual((error.resource_id, error.http_status, error.trace_id), ("l1", 429, "t1"))
        self.assertEqual(error.api and error.api["message"], "slow down")
        self.assertEqual(str(error), "too many requests [resource l1] (wait)")

    def test_error_can_be_pickled(self) -> None:
        error = errors.from_json(
            {"status": "GHL_ERR_STORE", "message": "disk full", "retryable": True}
        )
        copy = pickle.loads(pickle.dumps(error))
        self.assertIs(type(copy), ghl_oauth.StoreError)
        self.assertEqual((copy.message, copy.retryable, copy.raw), (error.message, True, error.raw))

    def test_unknown_status_is_still_an_error(self) -> None:
        error = errors.from_json({"status": "GHL_ERR_OF_THE_FUTURE", "message": "new"})
        self.assertIs(type(error), ghl_oauth.GhlError)
        self.assertEqual(error.status, "GHL_ERR_OF_THE_FUTURE")

    def test_own_code_can_raise_every_error_with_a_text_or_without(self) -> None:
        kinds: list[type[ghl_oauth.GhlError]] = [ghl_oauth.GhlError]
        for kind in kinds + ghl_oauth.GhlError.__subclasses__():
            with self.assertRaises(kind) as raised:
                raise kind("version 3 is stored")
            for error in (raised.exception, pickle.loads(pickle.dumps(raised.exception))):
                self.assertEqual((str(error), error.status), ("version 3 is stored", kind.status))
                self.assertEqual(repr(error), f"{kind.__name__}('version 3 is stored')")
            with self.assertRaises(kind) as raised:
                raise kind
            self.assertEqual(str(raised.exception), kind.status)

    def test_timeout_is_also_a_timeout_error(self) -> None:
        error = errors.from_json(
            {"status": "GHL_ERR_TIMEOUT", "message": "late", "retryable": True}
        )
        self.assertIsInstance(error, TimeoutError)
        self.assertIsInstance(error, ghl_oauth.Timeout)
        copy = pickle.loads(pickle.dumps(error))
        self.assertEqual((str(copy), copy.retryable, copy.code), ("late", True, 11))


class RaisedErrorsTest(EmulatorTest):
    def fault(self, status: int, body: Any, endpoint: str = "token", **fault: Any) -> None:
        self.emulator.fault(
            "status", status=status, body=json.dumps(body), endpoint=endpoint, **fault
        )

    def test_parameter_out_of_range_is_named(self) -> None:
        with self.assertRaises(ghl_oauth.InvalidArgument) as raised:
            next(self.client.installed_locations(self.emulator.company_id, page_size=101))
        self.assertEqual(raised.exception.parameter, "page_size")
        self.assertFalse(raised.exception.retryable)

    def test_configuration_is_refused_by_key(self) -> None:
        refused: tuple[tuple[dict[str, Any], type[ghl_oauth.GhlError], str], ...] = (
            ({"timeouts": {"connect": 1}}, ghl_oauth.InvalidArgument, "timeouts.connect"),
            (
                {"timeouts": {"total_seconds": "3"}},
                ghl_oauth.InvalidArgument,
                "timeouts.total_seconds",
            ),
            ({"timeouts": {"total_seconds": 601}}, ghl_oauth.ConfigError, "timeouts.total_seconds"),
            (
                {"retry": {"base_delay_seconds": []}},
                ghl_oauth.InvalidArgument,
                "retry.base_delay_seconds",
            ),
            ({"retry": {"max_attempts": "three"}}, ghl_oauth.InvalidArgument, "retry.max_attempts"),
            ({"base_url": "http://example.com"}, ghl_oauth.ConfigError, "base_url"),
            ({"store": {"kind": "floppy"}}, ghl_oauth.ConfigError, "store.kind"),
        )
        for settings, error, parameter in refused:
            with self.subTest(settings), self.assertRaises(error) as raised:
                ghl_oauth.Client("app-1", "secret", **settings)
            self.assertEqual(raised.exception.parameter, parameter)

    def test_unknown_token_is_not_found(self) -> None:
        with self.assertRaises(ghl_oauth.NotFound) as raised:
            self.client.access_token("nobody")
        self.assertEqual(raised.exception.resource_id, "nobody")
        self.assertTrue(raised.exception.help)

    def test_spent_refresh_token_needs_consent(self) -> None:
        self.install()
        self.emulator.control("POST", "/tokens/revoke", {"resourceId": self.emulator.company_id})
        self.expire()
        with self.assertRaises(ghl_oauth.ReauthorizationRequired) as raised:
            self.client.access_token(self.emulator.company_id)
        error = raised.exception
        self.assertEqual((error.http_status, error.resource_id), (400, self.emulator.company_id))
        self.assertEqual(
            error.api and error.api["message"], "Invalid grant: refresh token is invalid"
        )
        self.assertEqual(
            [info.state for info in self.client.tokens_list()], ["reauthorizationRequired"]
        )

    def test_paused_location_keeps_its_token(self) -> None:
        location_id = self.emulator.location_ids[0]
        self.install_location(location_id)
        self.emulator.control("POST", f"/locations/{location_id}", {"active": False})
        self.expire()
        with self.assertRaises(ghl_oauth.LocationInactive) as raised:
            self.client.access_token(location_id)
        self.assertTrue(raised.exception.retryable)
        self.assertEqual([info.state for info in self.client.tokens_list()], ["inactive"])

    def test_rate_limit_error_has_retry_after(self) -> None:
        client = self.make_client(timeouts={"total_ms": 500})
        self.fault(429, {"statusCode": 429, "message": "slow down"}, headers=[["Retry-After", "7"]])
        with self.assertRaises(ghl_oauth.RateLimited) as raised:
            client.oauth_token(grant_type="client_credentials")
        self.assertEqual((raised.exception.http_status, raised.exception.retry_after), (429, 7.0))
        self.assertTrue(raised.exception.retryable)

    def test_server_error_is_quoted(self) -> None:
        self.fault(500, {"statusCode": 500, "message": "out of order", "traceId": "trace-7"})
        with self.assertRaises(ghl_oauth.ServerError) as raised:
            self.client.oauth_token(grant_type="client_credentials")
        self.assertEqual(
            (raised.exception.http_status, raised.exception.trace_id), (500, "trace-7")
        )
        self.assertEqual(raised.exception.api and raised.exception.api["message"], "out of order")

    def test_newer_error_shape_is_parsed(self) -> None:
        self.install()
        envelope = {
            "code": "INVALID_ARGUMENT",
            "message": "bad field",
            "details": {"field": "x"},
            "resolution": "fix",
        }
        self.fault(400, {"error": envelope}, endpoint="installed-locations")
        with self.assertRaises(ghl_oauth.InvalidRequest) as raised:
            next(self.client.installed_locations(self.emulator.company_id))
        self.assertEqual(raised.exception.api, envelope)

    def test_unreachable_server_is_a_network_error(self) -> None:
        client = self.make_client(base_url="http://127.0.0.1:9")
        with self.assertRaises(ghl_oauth.NetworkError) as raised:
            client.oauth_token(grant_type="client_credentials")
        self.assertTrue(raised.exception.retryable)
        self.assertIsNone(raised.exception.http_status)

    def test_slow_server_causes_a_timeout(self) -> None:
        client = self.make_client(timeouts={"total_seconds": 0.2})
        self.emulator.settings(latencyMs=5000)
        with self.assertRaises(TimeoutError):
            client.oauth_token(grant_type="client_credentials")

    def test_response_without_a_token_is_a_protocol_error(self) -> None:
        self.fault(200, {"surprise": True})
        with self.assertRaises(ghl_oauth.ProtocolError):
            self.client.oauth_token(grant_type="client_credentials")
