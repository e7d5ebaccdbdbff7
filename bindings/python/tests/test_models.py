"""Results: reprs without secrets, enums, and errors of responses."""

from __future__ import annotations

import json
import unittest
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import ghl_oauth
from ghl_oauth.errors import GhlError

from .support import EmulatorTest


class ReprTest(EmulatorTest):
    def test_repr_of_a_consent_url_hides_the_state_only(self) -> None:
        link = self.client.authorization_url()
        self.assertIn("client_id=", repr(link))
        self.assertIn("state=…", repr(link))
        self.assertNotIn(link.state, repr(link))
        other = ghl_oauth.AuthorizationUrl("https://a.example/?nostate=1&state=s%26x#f", "s&x", {})
        self.assertEqual(
            repr(other), "AuthorizationUrl(url='https://a.example/?nostate=1&state=…#f')"
        )

    def test_repr_of_tokens_shows_owner_and_expiry_but_no_secret(self) -> None:
        info = self.install()
        self.assertIn(info.resource_id, repr(info))
        (token,) = self.client.tokens_export()
        self.assertIn(self.emulator.company_id, repr(token))
        self.assertIn("expires_at=", repr(token))
        for secret in (token.access_token, token.refresh_token):
            assert secret
            self.assertNotIn(secret, repr(token))


class EnumsTest(unittest.TestCase):
    def test_every_status_is_the_number_of_its_exception(self) -> None:
        for error in GhlError.__subclasses__():
            status = ghl_oauth.Status[error.status.replace("GHL_ERR_", "")]
            self.assertIs(error.code, status)
            self.assertIsInstance(error.code, int)
        self.assertEqual(len(ghl_oauth.Status), len(GhlError.__subclasses__()))
        self.assertEqual(
            (str(ghl_oauth.Status.RATE_LIMITED), f"{ghl_oauth.Status.RATE_LIMITED}"), ("9", "9")
        )

    def test_state_is_an_enum_that_equals_its_string(self) -> None:
        def state(value: str | None) -> str:
            return ghl_oauth.TokenInfo.from_json({"resourceId": "c", "state": value}).state

        for each in ghl_oauth.TokenState:
            self.assertIs(state(each.value), each)
            self.assertEqual((each, str(each), f"{each}"), (each.value,) * 3)
            self.assertEqual(json.dumps([each]), json.dumps([each.value]))
        self.assertIs(state(None), ghl_oauth.TokenState.OK)
        self.assertEqual(state("ofTheFuture"), "ofTheFuture")


def response(
    status: int, body: Any = None, method: str | None = "GET", **headers: str
) -> ghl_oauth.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ghl_oauth.Response(status, named, body, {}, method, "location1")


class RaiseForStatusTest(unittest.TestCase):
    def test_success_is_returned(self) -> None:
        for status in (200, 201, 204):
            success = response(status)
            self.assertIs(success.raise_for_status(), success)

    def test_every_other_status_has_its_error(self) -> None:
        expected = {
            302: ghl_oauth.ProtocolError,
            400: ghl_oauth.InvalidRequest,
            401: ghl_oauth.Unauthorized,
            403: ghl_oauth.Forbidden,
            404: ghl_oauth.NotFound,
            408: ghl_oauth.Timeout,
            409: ghl_oauth.InvalidRequest,
            422: ghl_oauth.InvalidRequest,
            429: ghl_oauth.RateLimited,
            500: ghl_oauth.ServerError,
            503: ghl_oauth.ServerError,
        }
        for status, kind in expected.items():
            with self.subTest(status), self.assertRaises(kind) as raised:
                response(status).raise_for_status()
            self.assertEqual(
                (raised.exception.http_status, raised.exception.resource_id), (status, "location1")
            )

    def test_error_quotes_the_api_in_each_of_its_formats(self) -> None:
        newer = {"code": "BAD", "message": "no", "details": {"field": "x"}, "resolution": "fix"}
        for body, message, code in (
            (
                {"statusCode": 422, "message": ["a", "b"], "error": "Unprocessable"},
                "a; b",
                "Unprocessable",
            ),
            ({"error": newer, "traceId": "t1"}, "no", "BAD"),
            ("<html>", None, None),
        ):
            with self.assertRaises(ghl_oauth.InvalidRequest) as raised:
                response(422, body).raise_for_status()
            api = raised.exception.api
            assert api
            self.assertEqual((api["message"], api["code"]), (message, code))
            self.assertIn(message or "422", str(raised.exception))
        with self.assertRaises(ghl_oauth.InvalidRequest) as raised:
            response(422, {"error": newer, "traceId": "t1"}).raise_for_status()
        self.assertEqual((raised.exception.api, raised.exception.trace_id), (newer, "t1"))

    def test_retryable_only_if_a_repetition_does_no_harm(self) -> None:
        soon = format_datetime(datetime.now(timezone.utc) + timedelta(minutes=1))
        for status, method, retry_after, retryable, sent in (
            (429, "POST", "7", True, False),
            (503, "POST", "7", True, False),
            (503, "POST", soon, True, False),
            (503, "POST", None, False, True),
            (500, "POST", None, False, True),
            (500, "GET", None, True, True),
            (500, None, None, False, True),
            (404, "GET", None, False, True),
        ):
            headers = {} if retry_after is None else {"retry_after": retry_after}
            with self.subTest(f"{method} {status}"), self.assertRaises(GhlError) as raised:
                response(status, method=method, **headers).raise_for_status()
            error = raised.exception
            self.assertEqual((error.retryable, error.sent), (retryable, sent))
            if retry_after is None:
                self.assertIsNone(error.retry_after)
            else:
                assert error.retry_after is not None
                self.assertTrue(7 <= error.retry_after <= 60)


class RequestTest(EmulatorTest):
    def test_request_whose_status_is_an_error_raises_on_demand(self) -> None:
        self.install()
        answer = self.client.request("GET", "/nowhere", resource_id=self.emulator.company_id)
        with self.assertRaises(ghl_oauth.NotFound) as raised:
            answer.raise_for_status()
        self.assertEqual(raised.exception.resource_id, self.emulator.company_id)
