"""The client, used with the emulator."""

from __future__ import annotations

import gc
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import ghl_oauth
from ghl_oauth import _handle
from ghl_oauth._library import library

from .support import PAST, EmulatorTest, damage, environment, free_port, in_threads


class ConsentTest(EmulatorTest):
    def test_link_contains_the_configured_parameters(self) -> None:
        link = self.client.authorization_url()
        query = parse_qs(urlsplit(link.url).query)
        self.assertEqual(query["state"], [link.state])
        self.assertEqual(query["scope"], [" ".join(self.emulator.configuration["scopes"])])
        self.assertEqual(link.raw["url"], link.url)

    def test_link_contains_the_parameters_of_the_call(self) -> None:
        link = self.client.authorization_url(
            scopes="contacts.readonly contacts.write",
            redirect_uri="https://other.example/back",
            version_id="v1",
            login_in_same_tab=True,
            state="mine",
        )
        query = parse_qs(urlsplit(link.url).query)
        self.assertEqual(link.state, "mine")
        self.assertEqual(query["scope"], ["contacts.readonly contacts.write"])
        self.assertEqual(query["redirect_uri"], ["https://other.example/back"])
        self.assertEqual(query["version_id"], ["v1"])
        self.assertEqual(query["loginWindowOpenMode"], ["self"])
        listed = self.client.authorization_url(scopes=["contacts.readonly", "contacts.write"])
        self.assertEqual(parse_qs(urlsplit(listed.url).query)["scope"], query["scope"])

    def test_company_consent_stores_its_token(self) -> None:
        before = datetime.now(timezone.utc)
        info = self.install()
        self.assertEqual(
            (info.resource_id, info.company_id),
            (self.emulator.company_id, self.emulator.company_id),
        )
        self.assertEqual((info.user_type, info.location_id), ("Company", None))
        self.assertEqual((info.refreshable, info.state), (True, "ok"))
        assert info.expires_at
        self.assertAlmostEqual(
            info.expires_at - before, timedelta(days=1), delta=timedelta(minutes=5)
        )
        self.assertEqual(info.raw["resourceId"], info.resource_id)

    def test_location_consent_stores_its_token(self) -> None:
        location_id = self.emulator.location_ids[0]
        info = self.install_location(location_id)
        self.assertEqual((info.resource_id, info.user_type), (location_id, "Location"))
        self.assertTrue(self.client.access_token(location_id))

    def test_denied_consent_is_an_error(self) -> None:
        redirect_url = self.emulator.consent(self.client.authorization_url().url, deny=True)
        with self.assertRaises(ghl_oauth.ConsentDenied):
            self.client.authorization_complete(redirect_url)

    def test_redirect_is_valid_once(self) -> None:
        redirect_url = self.emulator.consent(
            self.client.authorization_url().url, companyId=self.emulator.company_id
        )
        self.client.authorization_complete(redirect_url)
        with self.assertRaises(ghl_oauth.StateMismatch):
            self.client.authorization_complete(redirect_url)

    def test_another_process_completes_with_the_state(self) -> None:
        link = self.client.authorization_url()
        redirect_url = self.emulator.consent(link.url, companyId=self.emulator.company_id)
        other = self.make_client()
        with self.assertRaises(ghl_oauth.StateMismatch):
            other.authorization_complete(redirect_url)
        info = other.authorization_complete(redirect_url, state=link.state)
        self.assertEqual(info.resource_id, self.emulator.company_id)

    def test_listen_waits_for_the_browser_on_a_port(self) -> None:
        port = free_port()
        link = self.client.authorization_url()
        redirect_url = self.emulator.consent(link.url, companyId=self.emulator.company_id)
        target = redirect_url.replace("https://app.example", f"http://127.0.0.1:{port}")

        def follow() -> bytes:
            while True:
                try:
                    with urllib.request.urlopen(target, timeout=60) as page:
                        body: bytes = page.read()
                        return body
                except urllib.error.URLError as error:
                    # Not yet listening.
                    if not isinstance(error.reason, ConnectionRefusedError):
                        raise

        def listen_or_follow() -> Any:
            if begun:
                return follow()
            begun.append(True)
            return self.client.authorization_listen(port=port, timeout=60, user_type="Company")

        begun: list[bool] = []
        results = in_threads(2, listen_or_follow)
        info = next(result for result in results if isinstance(result, ghl_oauth.TokenInfo))
        self.assertEqual(info.resource_id, self.emulator.company_id)
        page = next(result for result in results if isinstance(result, bytes))
        self.assertIn(b"You can close this window.", page)

    def test_listen_without_a_browser_times_out(self) -> None:
        with self.assertRaises(ghl_oauth.InvalidArgument) as raised:
            self.client.authorization_listen()
        self.assertEqual(raised.exception.parameter, "port")
        short: tuple[dict[str, Any], ...] = ({"timeout": 0.0005}, {"timeout_ms": 1})
        for limit in short:
            with self.assertRaises(ghl_oauth.Timeout):
                self.client.authorization_listen(
                    redirect_uri=f"http://localhost:{free_port()}/",
                    state="s",
                    allow_missing_state=True,
                    **limit,
                )
        with self.assertRaisesRegex(TypeError, "give one of them"):
            self.client.authorization_listen(port=1, timeout=1, timeout_ms=1000)


class SecondsTest(unittest.TestCase):
    def test_durations_of_the_configuration_are_in_seconds(self) -> None:
        accepted: tuple[dict[str, Any], ...] = (
            {"timeouts": {"connect_seconds": 10, "answer_seconds": 0.5, "total_seconds": 1.5}},
            {"retry": {"base_delay_seconds": 0.2, "max_delay_seconds": 5}},
            {"rate_limit": {"per_seconds": 10}},
        )
        for settings in accepted:
            ghl_oauth.Client("app-1", "secret", **settings).close()
        refused: tuple[tuple[dict[str, Any], type[Exception]], ...] = (
            ({"timeouts": {"total_seconds": 1, "total_ms": 1_000}}, TypeError),
            ({"timeouts": {"total_seconds": float("inf")}}, ValueError),
        )
        for wrong, error in refused:
            with self.assertRaises(error):
                ghl_oauth.Client("app-1", "secret", **wrong)


class StoreChoiceTest(unittest.TestCase):
    def test_store_of_none_is_refused_and_not_treated_as_memory(self) -> None:
        store: Any = os.environ.get("A_VARIABLE_THAT_IS_NOT_SET")
        document: dict[str, Any] = {"clientId": "app-1", "clientSecret": "s", "store": None}
        with self.assertRaisesRegex(ghl_oauth.InvalidArgument, "store is None") as given:
            ghl_oauth.Client("app-1", "s", store=store)
        with self.assertRaisesRegex(ghl_oauth.InvalidArgument, "store is None") as configured:
            ghl_oauth.Client.from_config(document)
        for error in (given.exception, configured.exception):
            self.assertEqual((error.parameter, error.code), ("store", 1))
            self.assertIn("memory", error.help or "")

    def test_memory_is_the_default_store(self) -> None:
        ghl_oauth.Client("app-1", "s").close()
        ghl_oauth.Client.from_config({"clientId": "app-1", "clientSecret": "s"}).close()


class MemoryTest(EmulatorTest):
    def test_consent_in_the_memory_store_is_a_warning_once_per_client(self) -> None:
        with self.assertLogs("ghl_oauth", "WARNING") as logged:
            self.install()
            self.install()
        warnings = [record for record in logged.records if "memory store" in record.getMessage()]
        self.assertEqual(len(warnings), 1)
        self.assertEqual(warnings[0].levelname, "WARNING")
        other = self.make_client()
        with self.assertLogs("ghl_oauth", "WARNING") as logged:
            self.install(other)
        self.assertIn("consent again", logged.output[0])

    def test_consent_in_a_lasting_store_causes_no_warning(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            client = self.make_client(store=Path(folder, "tokens.db"))
            with self.assertLogs("ghl_oauth", "INFO") as logged:
                self.install(client)
            self.assertEqual({record.levelname for record in logged.records}, {"INFO"})
            client.close()


class UnreadableTest(EmulatorTest):
    """Three tokens, one of them unreadable."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        database = Path(folder.name, "tokens.db")
        tokens = [
            {"accessToken": f"access-{name}", "refreshToken": f"refresh-{name}",
             "expiresAt": 4_000_000_000_000,
             "userType": "Company", "companyId": name}
            for name in ("c1", "c2", "c3")
        ]  # fmt: skip
        with self.make_client(store=database) as client:
            self.assertEqual(client.tokens_import(tokens).imported, 3)
        damage(database, "c2")
        self.client = self.make_client(store=database)

    def test_list_reports_an_unreadable_token_and_continues(self) -> None:
        for page_size in (1, 2, 3):
            with self.assertLogs("ghl_oauth", "WARNING") as logs:
                pages = self.client.tokens_list(page_size=page_size)
                self.assertEqual([info.resource_id for info in pages], ["c1", "c3"])
            (failed,) = pages.failed
            self.assertEqual((failed.resource_id, type(failed.error)), ("c2", ghl_oauth.StoreError))
            (warning,) = (line for line in logs.output if "left out" in line)
            self.assertIn(' resource_id="c2" reason="', warning)
            self.assertIn(failed.error.message, warning)

    def test_export_reports_an_unreadable_token_and_continues(self) -> None:
        with self.assertLogs("ghl_oauth", "WARNING"):
            pages = self.client.tokens_export()
            self.assertEqual([token.access_token for token in pages], ["access-c1", "access-c3"])
        self.assertEqual([each.resource_id for each in pages.failed], ["c2"])

    def test_unreadable_token_can_be_deleted(self) -> None:
        deleted = self.client.token_delete("c2")
        self.assertEqual((deleted.resource_id, deleted.state), ("c2", "unreadable"))
        pages = self.client.tokens_list()
        self.assertEqual(([info.resource_id for info in pages], pages.failed), (["c1", "c3"], ()))


class AccessTokenTest(EmulatorTest):
    def test_valid_token_comes_from_memory(self) -> None:
        self.install()
        first = self.client.access_token(self.emulator.company_id)
        requests = len(self.emulator.requests("/oauth/token"))
        self.assertEqual(
            {self.client.access_token(self.emulator.company_id) for _ in range(100)}, {first}
        )
        self.assertEqual(len(self.emulator.requests("/oauth/token")), requests)

    def test_location_gets_its_token_at_the_first_call(self) -> None:
        self.install()
        location_id = self.emulator.location_ids[3]
        self.assertNotEqual(
            self.client.access_token(location_id),
            self.client.access_token(self.emulator.company_id),
        )
        self.assertEqual(self.client.stats()["tokens"]["minted"], 1)

    def test_call_in_a_signal_handler_does_not_change_the_token_of_the_interrupted_call(
        self,
    ) -> None:
        self.client.tokens_import(
            {"accessToken": token, "locationId": token, "expiresIn": 86_399}
            for token in ("mine", "another")
        )
        for token in ("mine", "another"):
            self.assertEqual(self.client.access_token(token), token)
        heard: list[str] = []
        function = _handle._access_token_try_into

        def interrupted(*arguments: Any) -> int:
            status: int = function(*arguments)
            if not heard:
                heard.append("")
                # As a signal handler does that runs before the buffer is read.
                heard[0] = self.client.access_token("another")
            return status

        with mock.patch.object(_handle, "_access_token_try_into", interrupted):
            self.assertEqual(self.client.access_token("mine"), "mine")
        self.assertEqual(heard, ["another"])

    def test_tokens_of_any_length_come_from_memory(self) -> None:
        tokens = {f"location{length}": "t" * length for length in (1, 900, 5_000, 2, 20_000, 3)}
        self.client.tokens_import(
            {"accessToken": token, "locationId": location_id, "expiresIn": 86_399}
            for location_id, token in tokens.items()
        )
        for _ in range(2):
            for location_id, token in tokens.items():
                self.assertEqual(self.client.access_token(location_id), token)
                self.assertEqual(self.client._open().token_in_memory(location_id), token)

    def test_many_threads_share_one_refresh(self) -> None:
        self.install()
        old = self.client.access_token(self.emulator.company_id)
        self.expire()
        self.emulator.settings(latencyMs=100)
        tokens = in_threads(16, lambda: self.client.access_token(self.emulator.company_id))
        self.assertEqual(len(set(tokens)), 1)
        self.assertNotEqual(tokens[0], old)
        self.assertEqual(self.emulator.refreshes(), 1)

    def test_refresh_can_be_forced(self) -> None:
        self.install()
        old = self.client.access_token(self.emulator.company_id)
        info = self.client.token_refresh(self.emulator.company_id)
        self.assertEqual(info.resource_id, self.emulator.company_id)
        self.assertNotEqual(self.client.access_token(self.emulator.company_id), old)
        self.assertEqual(self.emulator.refreshes(), 1)

    def test_long_token_is_returned(self) -> None:
        for length in (1, 2046, 2047, 2048, 2049, 100_000):
            token = "t" * length
            self.client.tokens_import(
                [{"accessToken": token, "companyId": f"c{length}", "expiresIn": 3600}]
            )
            self.assertEqual(self.client.access_token(f"c{length}"), token)

    def test_invalid_ids_are_refused(self) -> None:
        for wrong, error in (
            (None, TypeError),
            (b"id", TypeError),
            ("a\0b", ValueError),
            ("", ghl_oauth.InvalidArgument),
        ):
            for method in (
                self.client.access_token,
                self.client.token_refresh,
                self.client.token_delete,
            ):
                with self.subTest(method=method.__name__, wrong=wrong), self.assertRaises(error):
                    method(wrong)  # type: ignore[arg-type]


class HeldTokensTest(EmulatorTest):
    def hold(self, count: int, **more: Any) -> list[str]:
        ids = [f"location{number:04}" for number in range(count)]
        tokens = [
            {
                "accessToken": f"a-{id_}",
                "refreshToken": f"r-{id_}",
                "expiresIn": 3600,
                "locationId": id_,
                **more,
            }
            for id_ in ids
        ]
        self.assertEqual(self.client.tokens_import(tokens).imported, count)
        return ids

    def test_list_reads_all_pages(self) -> None:
        ids = self.hold(25, companyId="company")
        infos = list(self.client.tokens_list(page_size=10))
        self.assertEqual(sorted(info.resource_id for info in infos), ids)
        self.assertEqual({info.user_type for info in infos}, {"Location"})
        self.assertFalse(
            any("accessToken" in info.raw or "refreshToken" in info.raw for info in infos)
        )

    def test_list_can_be_filtered_and_resumed(self) -> None:
        ids = self.hold(5, companyId="company")
        self.install()
        self.assertEqual(len(list(self.client.tokens_list(company_id="company"))), 5)
        self.assertEqual(
            [info.resource_id for info in self.client.tokens_list(user_type="Company")],
            [self.emulator.company_id],
        )
        first = self.client.tokens_list(company_id="company", page_size=3)
        beginning = [next(first).resource_id for _ in range(3)]
        rest = self.client.tokens_list(company_id="company", page_token=first.next_page_token)
        self.assertEqual(sorted(beginning + [info.resource_id for info in rest]), ids)

    def test_list_names_the_last_failure_and_is_filtered_by_it(self) -> None:
        company = self.install().resource_id
        self.hold(3)
        fine = self.client.token_refresh(company)
        self.assertIsNone(fine.last_failure)
        self.assertIsNotNone(fine.last_success_at)
        self.emulator.fault("status", status=500, body='{"message": "the ledger is closed"}')
        events: list[ghl_oauth.Event] = []
        self.client.on_event(events.append)
        with self.assertRaises(ghl_oauth.ServerError):
            self.client.token_refresh(company)
        (info,) = self.client.tokens_list(failing=True)
        failure = info.last_failure
        assert failure is not None and failure.at is not None
        self.assertEqual((info.resource_id, info.state), (company, ghl_oauth.TokenState.OK))
        self.assertEqual((failure.status, failure.attempts), ("GHL_ERR_SERVER", 1))
        self.assertEqual((failure.message, failure.http_status), ("the ledger is closed", 500))
        self.assertEqual(failure.first_at, failure.at)
        assert failure.next_attempt_at is not None
        self.assertGreater(failure.next_attempt_at, failure.at)
        self.assertEqual([event.last_failure for event in events], [failure])
        expiry = info.expires_at
        assert expiry is not None

        def ids(**filters: Any) -> set[str]:
            return {info.resource_id for info in self.client.tokens_list(**filters)}

        self.assertEqual(len(ids(expires_before=expiry)), 3)
        self.assertEqual(len(ids(state=ghl_oauth.TokenState.OK)), 4)
        self.assertEqual(ids(state="inactive"), set())
        failing = self.client.tokens_export(failing=True, expires_before=expiry + timedelta(days=1))
        self.assertEqual(len(list(failing)), 1)

    def test_export_can_be_imported(self) -> None:
        self.hold(25, companyId="company", somethingNew={"deep": [1, 2]})
        exported = list(self.client.tokens_export(page_size=10))
        self.assertEqual(len(exported), 25)
        other = self.make_client()
        self.assertEqual(other.tokens_import(exported).imported, 25)
        for token in other.tokens_export():
            self.assertEqual(token.access_token, f"a-{token.location_id}")
            self.assertEqual(token.refresh_token, f"r-{token.location_id}")
            self.assertEqual(token.raw["somethingNew"], {"deep": [1, 2]})
        self.assertEqual(sorted(map(repr, other.tokens_export())), sorted(map(repr, exported)))

    def test_vendor_sessions_can_be_imported(self) -> None:
        session = {
            "access_token": "a",
            "refresh_token": "r",
            "expire_at": 4102444800000,
            "locationId": "l1",
        }
        self.assertEqual(self.client.tokens_import([session]).imported, 1)
        (info,) = self.client.tokens_list()
        self.assertEqual((info.resource_id, info.refreshable), ("l1", True))
        self.assertEqual(info.expires_at, datetime(2100, 1, 1, tzinfo=timezone.utc))

    def test_invalid_token_in_an_import_is_named(self) -> None:
        result = self.client.tokens_import(
            [{"accessToken": "a", "locationId": "l1"}, {"locationId": "l2"}, {"accessToken": "a"}]
        )
        self.assertEqual(result.imported, 1)
        self.assertEqual([skip.index for skip in result.skipped], [1, 2])
        self.assertTrue(all(skip.reason for skip in result.skipped))

    def test_older_token_replaces_a_newer_token_only_on_request(self) -> None:
        self.hold(1)
        (held,) = self.client.tokens_export()
        older = replace(held, access_token="older", expires_at=PAST)
        self.assertEqual(self.client.tokens_import([older]).imported, 0)
        self.assertEqual(self.client.tokens_import([older], replace=True).imported, 1)
        (now_held,) = self.client.tokens_export()
        self.assertEqual((now_held.access_token, now_held.expires_at), ("older", older.expires_at))

    def test_expiry_beyond_the_calendar_is_refused(self) -> None:
        token = {"accessToken": "a", "locationId": "l1", "expiresAt": 2**60}
        (skipped,) = self.client.tokens_import([token]).skipped
        self.assertEqual(skipped.reason, "expiresAt is after the year 9999")

    def test_token_that_never_expires_is_listed(self) -> None:
        self.client.tokens_import([{"accessToken": "a", "locationId": "l1"}])
        (info,) = self.client.tokens_list()
        assert info.expires_at
        self.assertGreater(info.expires_at, datetime.now(timezone.utc))

    def test_deleted_token_is_gone(self) -> None:
        self.hold(2)
        self.assertEqual(self.client.token_delete("location0000").resource_id, "location0000")
        self.assertEqual([info.resource_id for info in self.client.tokens_list()], ["location0001"])
        with self.assertRaises(ghl_oauth.NotFound):
            self.client.token_delete("location0000")


class MaintenanceTest(EmulatorTest):
    def due(self) -> ghl_oauth.Client:
        """A company and two locations, all due."""
        self.install()
        for location_id in self.emulator.location_ids[:2]:
            self.client.access_token(location_id)
        self.expire()
        return self.client

    def test_maintenance_renews_due_tokens(self) -> None:
        client = self.due()
        seen: list[ghl_oauth.MaintenanceProgress] = []
        report = client.tokens_maintain(progress=seen.append)
        self.assertEqual((report.checked, report.refreshed, report.failed), (3, 3, ()))
        self.assertEqual(
            [(progress.checked, progress.resealed) for progress in seen], [(1, 0), (2, 0), (3, 0)]
        )
        assert report.next_due_at
        self.assertGreater(report.next_due_at, datetime.now(timezone.utc))
        self.assertEqual(client.tokens_maintain().checked, 0)

    def test_failed_renewal_does_not_stop_the_others(self) -> None:
        client = self.due()
        failing = self.emulator.location_ids[0]
        self.emulator.control("POST", f"/locations/{failing}", {"active": False})
        report = client.tokens_maintain()
        self.assertEqual((report.checked, report.refreshed), (3, 2))
        (failure,) = report.failed
        self.assertEqual(failure.resource_id, failing)
        self.assertIsInstance(failure.error, ghl_oauth.LocationInactive)

    def test_exception_in_progress_ends_maintenance_and_is_raised(self) -> None:
        client = self.due()

        class Enough(Exception):
            pass

        def stop(progress: ghl_oauth.MaintenanceProgress) -> None:
            raise Enough

        with self.assertRaises(Enough):
            client.tokens_maintain(progress=stop)
        self.assertEqual(client.tokens_maintain().checked, 2)


class Bar:
    """The used part of tqdm's interface."""

    def __init__(self) -> None:
        self.total: float | None = None
        self.n: float = 0

    def update(self, n: float = 1) -> None:
        self.n += n


class Display:
    """The used part of rich's interface."""

    def __init__(self) -> None:
        self.tasks: dict[str, tuple[float | None, float]] = {}

    def add_task(self, description: str, *, total: float | None = 100.0) -> str:
        self.tasks[description] = (total, 0)
        return description

    def update(
        self, task_id: str, *, total: float | None = None, completed: float | None = None
    ) -> None:
        former_total, former = self.tasks[task_id]
        self.tasks[task_id] = (
            former_total if total is None else total,
            former if completed is None else completed,
        )


class ProgressTest(EmulatorTest):
    OPTIONS = ("--locations", "25")

    def setUp(self) -> None:
        super().setUp()
        self.client = self.make_client(rate_limit={"requests": 10_000})
        self.emulator.settings(rateLimit=None)
        self.install()

    def test_tqdm_like_bar_is_accepted(self) -> None:
        bar = Bar()
        self.client.tokens_mint(self.emulator.company_id, progress=bar)
        self.assertEqual((bar.n, bar.total), (25, 25))
        self.expire()
        bar = Bar()
        self.client.tokens_maintain(progress=bar)
        self.assertEqual((bar.n, bar.total), (26, 26))

    def test_rich_like_display_is_accepted(self) -> None:
        display = Display()
        self.client.tokens_mint(self.emulator.company_id, progress=display)
        self.assertEqual(display.tasks, {"Minting tokens": (25, 25)})
        self.expire()
        self.client.tokens_maintain(progress=display)
        self.assertEqual(display.tasks["Renewing tokens"], (26, 26))

    @unittest.skipUnless(importlib.util.find_spec("tqdm"), "tqdm is not installed")
    def test_tqdm_is_accepted(self) -> None:
        from tqdm import tqdm

        for is_off in (False, True):
            with tqdm(file=io.StringIO(), disable=is_off) as bar:
                self.client.tokens_mint(self.emulator.company_id, force=True, progress=bar)
                self.assertEqual((bar.n, bar.total), (0 if is_off else 25, 25))
        self.expire()
        with tqdm(file=io.StringIO()) as bar:
            self.client.tokens_maintain(progress=bar)
            self.assertEqual((bar.n, bar.total), (26, 26))

    @unittest.skipUnless(importlib.util.find_spec("rich"), "rich is not installed")
    def test_rich_is_accepted(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(file=io.StringIO())) as display:
            self.client.tokens_mint(self.emulator.company_id, progress=display)
            self.expire()
            self.client.tokens_maintain(progress=display)
            self.client.tokens_maintain(progress=display)
            counts = [(task.description, task.completed, task.total) for task in display.tasks]
            self.assertTrue(display.finished)
        names = ("Minting tokens", "Renewing tokens", "Renewing tokens")
        self.assertEqual(counts, [(name, count, count) for name, count in zip(names, (25, 26, 0))])

    def test_invalid_progress_argument_is_refused_before_any_request(self) -> None:
        nothing: Any = object()
        for work in (
            self.client.tokens_maintain,
            lambda **bar: self.client.tokens_mint("c", ["l"], **bar),
        ):
            with self.assertRaisesRegex(TypeError, "progress must be a function, or a bar"):
                work(progress=nothing)
        self.assertEqual(self.emulator.requests("/oauth/location-token"), [])


class RequestTest(EmulatorTest):
    def test_location_is_read_with_its_token(self) -> None:
        self.install()
        location_id = self.emulator.location_ids[0]
        answer = self.client.request("GET", f"/locations/{location_id}", resource_id=location_id)
        self.assertTrue(answer.ok)
        self.assertEqual(answer.body["location"]["_id"], location_id)
        self.assertIn("json", answer.headers["content-type"])

    def test_refused_request_returns_its_response(self) -> None:
        self.install()
        answer = self.client.request(
            "POST", "/nowhere", resource_id=self.emulator.company_id, body={"a": 1}
        )
        self.assertEqual((answer.status, answer.ok), (404, False))

    def test_bytes_are_sent_and_returned_unchanged(self) -> None:
        self.emulator.fault("status", status=200, body="text", contentType="text/plain")
        self.assertEqual(
            self.client.request("PUT", "/file", body=b"\0\xff", query={"a": [1, 2]}).body, "text"
        )
        (request,) = self.emulator.requests("/file")
        self.assertEqual((request["method"], request["query"]), ("PUT", "a=1&a=2"))

    def test_caller_decides_whether_a_request_is_repeated(self) -> None:
        self.emulator.fault("status", status=502, body="oops", contentType="text/plain")
        cases: tuple[tuple[str, dict[str, Any], int, bool], ...] = (
            ("POST", {}, 1, False),
            ("POST", {"idempotent": True}, 3, True),
            ("GET", {"idempotent": False}, 1, False),
            ("GET", {"retry": False}, 1, True),
            ("OPTIONS", {}, 3, True),
            ("PUT", {}, 1, False),
            ("PUT", {"idempotent": True}, 3, True),
            ("DELETE", {}, 1, False),
        )
        for method, options, times, retryable in cases:
            path = f"/repeated/{method}/{times}/{retryable}"
            answer = self.client.request(method, path, **options)
            self.assertEqual(len(self.emulator.requests(path)), times, path)
            with self.assertRaises(ghl_oauth.ServerError) as raised:
                answer.raise_for_status()
            self.assertEqual(raised.exception.retryable, retryable, path)

    def test_cookies_and_long_integers_of_a_response_are_kept(self) -> None:
        cookies = ["a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2"]
        self.emulator.fault(
            "status",
            status=200,
            body='{"z": 12345678901234567890123, "a": 1.0}',
            contentType="application/json",
            headers=[["Set-Cookie", cookie] for cookie in cookies],
        )
        answer = self.client.request("POST", "/x", body={"z": 98765432109876543210987, "a": 1})
        self.assertEqual(list(answer.set_cookies), cookies)
        self.assertEqual(list(answer.body.items()), [("z", 12345678901234567890123), ("a", 1.0)])
        (request,) = self.emulator.requests("/x")
        self.assertEqual(json.loads(request["body"]), {"z": 98765432109876543210987, "a": 1})
        self.assertEqual(list(json.loads(request["body"])), ["z", "a"])

    def test_other_host_is_refused(self) -> None:
        with self.assertRaises(ghl_oauth.InvalidArgument) as refused:
            self.client.request("GET", "https://elsewhere.example/")
        self.assertEqual(refused.exception.parameter, "path")


class MintTest(EmulatorTest):
    OPTIONS = ("--locations", "25")

    def test_every_location_gets_a_token_and_a_second_run_sends_nothing(self) -> None:
        self.install()
        seen: list[ghl_oauth.MintProgress] = []
        minting = self.client.tokens_mint(self.emulator.company_id, progress=seen.append)
        self.assertEqual(
            (minting.total, minting.minted, minting.fresh, minting.failed), (25, 25, 0, ())
        )
        last = seen[-1]
        self.assertEqual((last.done, last.failed, last.total, last.seconds_left), (25, 0, 25, 0))
        again = self.client.mint_locations(
            self.emulator.company_id, iter(self.emulator.location_ids[:3])
        )
        self.assertEqual((again.total, again.minted, again.fresh), (3, 0, 3))
        forced = self.client.tokens_mint(
            self.emulator.company_id, self.emulator.location_ids[:2], force=True
        )
        self.assertEqual(forced.minted, 2)

    def test_failed_location_is_listed(self) -> None:
        self.install()
        failing = self.emulator.location_ids[0]
        self.emulator.control("POST", f"/locations/{failing}", {"active": False})
        (failure,) = self.client.tokens_mint(self.emulator.company_id).failed
        self.assertEqual(failure.resource_id, failing)
        self.assertIsInstance(failure.error, ghl_oauth.LocationInactive)

    def test_exception_in_progress_ends_minting_and_is_raised(self) -> None:
        class Enough(Exception):
            pass

        def stop(progress: ghl_oauth.MintProgress) -> None:
            raise Enough

        self.install()
        with self.assertRaises(Enough):
            self.client.tokens_mint(self.emulator.company_id, progress=stop)
        self.assertEqual(self.client.tokens_mint(self.emulator.company_id).failed, ())


class EndpointsTest(EmulatorTest):
    OPTIONS = ("--locations", "45")

    def test_raw_code_exchange_stores_nothing(self) -> None:
        redirect_url = self.emulator.consent(
            self.client.authorization_url().url, companyId=self.emulator.company_id
        )
        (code,) = parse_qs(urlsplit(redirect_url).query)["code"]
        token = self.client.oauth_token(
            grant_type="authorization_code",
            code=code,
            redirect_uri=self.emulator.configuration["redirectUri"],
        )
        self.assertEqual((token.user_type, token.company_id), ("Company", self.emulator.company_id))
        self.assertTrue(token.access_token and token.refresh_token and token.expires_at)
        self.assertEqual(token.raw["expiresIn"], 86399)
        renewed = self.client.oauth_token(
            grant_type="refresh_token", refresh_token=token.refresh_token, user_type="Company"
        )
        self.assertNotEqual(renewed.refresh_token, token.refresh_token)
        self.assertEqual(list(self.client.tokens_list()), [])

    def test_location_token_is_minted_with_the_stored_or_the_given_token(self) -> None:
        self.install()
        location_id = self.emulator.location_ids[0]
        company_token = self.client.access_token(self.emulator.company_id)
        for given in (None, company_token):
            token = self.client.oauth_location_token(
                company_id=self.emulator.company_id, location_id=location_id, access_token=given
            )
            self.assertEqual((token.user_type, token.location_id), ("Location", location_id))
            self.assertEqual(token.company_id, self.emulator.company_id)

    def test_locations_are_read_from_all_pages(self) -> None:
        self.install()
        path = "/oauth/installed-locations"
        locations = list(self.client.installed_locations(self.emulator.company_id))
        self.assertEqual(
            sorted(location.id for location in locations), sorted(self.emulator.location_ids)
        )
        self.assertEqual(len(self.emulator.requests(path)), 3)
        self.assertTrue(all(location.name and location.address for location in locations))
        self.assertTrue(all(location.is_installed for location in locations))

    def test_pages_are_fetched_on_demand(self) -> None:
        self.install()
        locations = self.client.installed_locations(self.emulator.company_id, page_size=10)
        path = "/oauth/installed-locations"
        self.assertEqual(len(self.emulator.requests(path)), 0)
        for _ in range(10):
            next(locations)
        self.assertEqual(len(self.emulator.requests(path)), 1)
        self.assertTrue(locations.next_page_token)

    def test_list_iteration_can_continue_after_an_error(self) -> None:
        self.install()
        locations = self.client.installed_locations(self.emulator.company_id, page_size=20)
        found = [next(locations).id for _ in range(20)]
        self.emulator.fault(
            "status", status=400, body="{}", endpoint="installed-locations", count=1
        )
        with self.assertRaises(ghl_oauth.InvalidRequest):
            next(locations)
        found += [location.id for location in locations]
        self.assertEqual(sorted(found), sorted(self.emulator.location_ids))

    def test_listed_location_without_an_id_is_skipped(self) -> None:
        self.install()
        one = {"_id": "l1", "name": "One", "isInstalled": "true"}
        two = {"_id": "l2", "name": ["Two"], "address": 2}
        odd = [
            "l0",
            None,
            7,
            ["l3"],
            {},
            {"name": "nobody"},
            {"_id": ""},
            {"_id": 5},
            {"_id": {"_id": "l6"}},
        ]
        for answer, expected in (
            ({"items": [one, *odd, two]}, [("l1", "One", None, True), ("l2", None, None, None)]),
            ({"items": [], "pagination": "none"}, []),
            ({"items": [one], "pagination": {"nextPageToken": 5}}, [("l1", "One", None, True)]),
        ):
            self.emulator.fault(
                "status",
                status=200,
                body=json.dumps(answer),
                endpoint="installed-locations",
                count=1,
            )
            found = self.client.installed_locations(self.emulator.company_id)
            fields = [
                (location.id, location.name, location.address, location.is_installed)
                for location in found
            ]
            self.assertEqual(fields, expected, answer)

    def test_response_without_a_list_is_an_error(self) -> None:
        self.install()
        for answer in (
            {},
            {"items": {"_id": "l1"}},
            {"items": [], "pagination": {"hasNextPage": True}},
        ):
            self.emulator.fault(
                "status",
                status=200,
                body=json.dumps(answer),
                endpoint="installed-locations",
                count=1,
            )
            with self.assertRaises(ghl_oauth.ProtocolError):
                next(self.client.installed_locations(self.emulator.company_id))

    def test_installed_filters_and_drops_rows_without_the_app(self) -> None:
        self.install()
        items = [
            {"_id": "l1", "isInstalled": True},
            {"_id": "l2", "isInstalled": False},
            {"_id": "l3"},
        ]
        body = json.dumps({"items": items})
        self.emulator.fault("status", status=200, body=body, endpoint="installed-locations")
        found = self.client.installed_locations(self.emulator.company_id, installed=True)
        self.assertEqual([location.id for location in found], ["l1", "l3"])
        (request,) = self.emulator.requests("/oauth/installed-locations")
        self.assertIn("isInstalled=true", request["query"])

    def test_search_is_passed_on(self) -> None:
        self.install()
        (location,) = self.client.installed_locations(
            self.emulator.company_id, location_id=self.emulator.location_ids[7], is_installed=True
        )
        self.assertEqual(location.id, self.emulator.location_ids[7])
        self.assertEqual(location.raw["_id"], location.id)


class SettingsTest(EmulatorTest):
    def test_settings_may_be_written_in_either_case(self) -> None:
        self.emulator.settings(latencyMs=2000)
        for settings in ({"total_ms": 100}, {"totalMs": 100}):
            client = self.make_client(timeouts=settings)
            with self.assertRaises(ghl_oauth.Timeout):
                client.oauth_token(grant_type="client_credentials")

    def test_token_request_may_be_json(self) -> None:
        self.install(self.make_client(token_request_encoding="json", api_version="v3"))
        (request,) = self.emulator.requests("/oauth/token")
        headers = dict(request["headers"])
        self.assertEqual(headers["content-type"], "application/json")
        self.assertEqual(headers["version"], "v3")

    def test_every_setting_is_accepted(self) -> None:
        client = self.make_client(
            store="memory",
            timeouts={"connect_ms": 1000, "total_ms": 2000},
            retry={"max_attempts": 1, "base_delay_ms": 1, "max_delay_ms": 1},
            rate_limit={"requests": 10, "per_ms": 1000, "per_day": 1000},
            refresh={"margin_seconds": 60, "runway_percent": 10},
            limits={"response_bytes": 65536},
            http={
                "user_agent_suffix": "test/1",
                "allow_insecure_http": True,
                "proxy": None,
                "no_proxy": ["example.com", "10.0.0.0/8"],
                "ca_bundle_path": None,
            },
            webhook={
                "ed25519_public_keys": ["07" * 32],
                "rsa_public_keys": [],
                "max_age_seconds": 86400,
            },
            consent_page={
                "language": "es",
                "title": "a",
                "message": "b",
                "failure_title": "c",
                "failure_message": "d",
                "color": "#0a7cff",
            },
        )
        self.install(client)
        (request,) = self.emulator.requests("/oauth/token")
        self.assertIn("test/1", dict(request["headers"])["user-agent"])


class StoreTest(EmulatorTest):
    def test_file_store_keeps_tokens_for_the_next_client(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tokens.db")
            with self.make_client(store=path) as client:
                self.install(client)
                token = client.access_token(self.emulator.company_id)
            for store in (str(path), {"kind": "sqlite", "path": str(path)}):
                with self.make_client(store=store) as client:
                    self.assertEqual(client.access_token(self.emulator.company_id), token)

    def test_store_url_selects_a_postgresql_database(self) -> None:
        with self.assertRaises(ghl_oauth.GhlError) as caught:
            self.make_client(store="postgres://app:hunter2@127.0.0.1:1/tokens")
        # The port is closed, or the library was built without PostgreSQL.
        self.assertEqual(caught.exception.parameter, "store")
        self.assertNotIn("hunter2", str(caught.exception))

    def test_url_of_another_driver_is_refused_without_its_password(self) -> None:
        for store in (
            "postgresql+psycopg2://app:hunter2@host/tokens",
            "mysql://app:hunter2@host/tokens",
        ):
            with self.assertRaises(ghl_oauth.ConfigError) as caught:
                self.make_client(store=store)
            self.assertEqual(caught.exception.parameter, "store")
            self.assertNotIn("hunter2", f"{caught.exception!r} {caught.exception}")

    def test_store_that_cannot_be_opened_is_an_error(self) -> None:
        with self.assertRaises(ghl_oauth.StoreError):
            self.make_client(store="/nowhere/at/all/tokens.db")

    def test_many_processes_share_one_refresh(self) -> None:
        program = textwrap.dedent("""
            import json, sys, threading, ghl_oauth
            settings, company_id = json.load(sys.stdin)
            client = ghl_oauth.Client(**settings)
            tokens = set()
            ask = lambda: tokens.add(client.access_token(company_id))
            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            print(*tokens)
        """)
        with tempfile.TemporaryDirectory() as folder:
            self.client = self.make_client(store=Path(folder, "tokens.db"))
            self.install()
            old = self.client.access_token(self.emulator.company_id)
            self.expire()
            self.emulator.settings(latencyMs=500)
            configuration = self.emulator.configuration
            settings = {
                "client_id": configuration["clientId"],
                "client_secret": configuration["clientSecret"],
                "base_url": configuration["baseUrl"],
                "store": str(Path(folder, "tokens.db")),
            }
            processes = [
                subprocess.Popen(
                    [sys.executable, "-c", program],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment(),
                    text=True,
                )
                for _ in range(4)
            ]
            # All processes have started and wait for their input, so that they begin together.
            for process in processes:
                assert process.stdin
                process.stdin.write(json.dumps([settings, self.emulator.company_id]))
                process.stdin.close()
                process.stdin = None
            tokens = {process.communicate(timeout=60)[0].strip() for process in processes}
            self.assertEqual(len(tokens), 1)
            self.assertNotIn(old, tokens)
            self.assertNotIn("", tokens)
            self.assertEqual(self.emulator.refreshes(), 1)

    @unittest.skipUnless(hasattr(os, "fork"), "no fork on this system")
    def test_forked_child_continues_with_the_client(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            client = self.make_client(store=Path(folder, "tokens.db"))
            self.install(client)
            child = os.fork()
            if child == 0:
                refreshed = client.token_refresh(self.emulator.company_id)
                os._exit(0 if refreshed.state == "ok" else 1)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
            self.assertEqual(self.emulator.refreshes(), 1)
            self.assertTrue(client.token_refresh(self.emulator.company_id))


class ClosedTest(EmulatorTest):
    def test_closed_client_refuses_every_call(self) -> None:
        client = self.client
        pages = client.tokens_list()
        with client as same:
            self.assertIs(same, client)
        client.close()
        for use in (
            lambda: client.access_token("id"),
            lambda: client.authorization_complete("https://app.example/"),
            client.authorization_listen,
            client.authorization_url,
            client.cancel,
            lambda: client.installed_locations("id"),
            lambda: client.oauth_location_token(company_id="c", location_id="l"),
            lambda: client.oauth_token(grant_type="client_credentials"),
            lambda: client.on_event(None),
            client.stats,
            lambda: client.token_delete("id"),
            lambda: client.token_refresh("id"),
            client.tokens_export,
            lambda: client.tokens_import([]),
            client.tokens_list,
            client.tokens_maintain,
            lambda: client.webhook_apply(b"{}", {}),
            lambda: client.webhook_verify(b"{}", {}),
            client.__enter__,
            lambda: next(pages),
        ):
            with self.assertRaisesRegex(ValueError, "the client is closed"):
                use()
        self.assertIn("closed", repr(client))

    def test_running_call_survives_close(self) -> None:
        self.install()
        client = self.make_client()
        client.tokens_import(self.client.tokens_export())
        self.emulator.fault("stall", endpoint="token")
        results: list[ghl_oauth.TokenInfo] = []
        call = threading.Thread(
            target=lambda: results.append(client.token_refresh(self.emulator.company_id))
        )
        call.start()
        self.emulator.wait_for_stall()
        client.close()
        self.assertEqual(results, [])
        self.emulator.end_faults()
        call.join()
        self.assertEqual([info.resource_id for info in results], [self.emulator.company_id])

    def test_cancel_ends_a_call_of_a_closed_client(self) -> None:
        self.install()
        client = self.make_client()
        client.tokens_import(self.client.tokens_export())
        self.emulator.fault("stall")
        errors: list[Exception] = []

        def ask() -> None:
            try:
                client.request("GET", "/x", resource_id=self.emulator.company_id, timeout=600)
            except ghl_oauth.GhlError as error:
                errors.append(error)

        call = threading.Thread(target=ask)
        call.start()
        self.emulator.wait_for_stall()
        client.close()
        client.cancel()
        call.join(60)
        self.assertEqual([type(error) for error in errors], [ghl_oauth.Cancelled])
        errors.clear()
        with self.assertRaisesRegex(ValueError, "the client is closed"):
            client.cancel()

    def test_close_after_an_error_frees_the_client_at_once(self) -> None:
        self.install()
        gc.disable()  # which would free it later
        self.addCleanup(gc.enable)

        def fail(_so_far: object) -> None:
            raise LookupError

        # Not with `assertRaises`, which clears the frames of an exception.
        def unknown() -> None:
            with suppress(ghl_oauth.Forbidden):
                client.token_refresh("unknown")
                self.fail()

        def unusable() -> None:
            with suppress(ghl_oauth.InvalidArgument):
                client.authorization_url(redirect_uri="no URL")
                self.fail()

        def interrupted() -> None:
            with suppress(LookupError):
                client.tokens_mint(self.emulator.company_id, progress=fail)
                self.fail()

        for use in (unknown, unusable, interrupted):
            for call in (use, partial(in_threads, 1, use)):
                client = self.make_client()
                client.tokens_import(self.client.tokens_export())
                free = mock.Mock(wraps=library.ghl_client_free)
                with self.subTest(call), mock.patch.object(library, "ghl_client_free", free):
                    self.assertIn(call(), (None, [None]))
                    client.close()
                    self.assertEqual(free.call_count, 1)
