"""Stores written in Python: the example passes the store tests; failing stores lose no token."""

from __future__ import annotations

import base64
import gc
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import ghl_oauth
from ghl_oauth import _callback

from .support import PAST, REPOSITORY, EmulatorTest, environment, in_threads

EXAMPLES = REPOSITORY / "examples" / "python"


class DictStore(ghl_oauth.Store):
    """A minimal store; ``failing`` makes a method raise."""

    def __init__(self) -> None:
        self.records: dict[str, str] = {}
        self.failing: dict[str, Callable[[], object]] = {}
        self.closed = 0
        self._mutex = threading.Lock()

    def _meet(self, name: str) -> None:
        if name in self.failing:
            self.failing[name]()

    def load(self, resource_id: str) -> str | None:
        self._meet("load")
        return self.records.get(resource_id)

    def save(self, resource_id: str, record_json: str, expected_version: int) -> None:
        self._meet("save")
        with self._mutex:
            stored = self.records.get(resource_id)
            if expected_version != (json.loads(stored)["version"] if stored else 0):
                raise ghl_oauth.Conflict("the record has another version")
            self.records[resource_id] = record_json

    def remove(self, resource_id: str) -> None:
        self._meet("remove")
        self.records.pop(resource_id, None)

    def list(self, query: Mapping[str, Any]) -> ghl_oauth.StorePage:
        self._meet("list")
        return ghl_oauth.StorePage(list(self.records.values()))

    def close(self) -> None:
        self.closed += 1


class LockedStore(DictStore):
    def lock(self, resource_id: str, timeout: float) -> None:
        self._meet("lock")

    def unlock(self, resource_id: str) -> None:
        self._meet("unlock")


def fail() -> None:
    raise OSError(28, "the disk is full")


def interrupt() -> None:
    raise KeyboardInterrupt


class PromisesTest(EmulatorTest):
    """The contract of a store, tested on a custom store."""

    OPTIONS = ("--locations", "5")

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "tokens")

    def new_store(self) -> ghl_oauth.Store:
        raise NotImplementedError

    def open(self) -> ghl_oauth.Client:
        return self.make_client(store=self.new_store())

    def test_tokens_are_saved_loaded_listed_and_removed(self) -> None:
        company, location = self.emulator.company_id, self.emulator.location_ids[0]
        client = self.open()
        self.assertEqual(self.install(client).state, "ok")
        token = client.access_token(location)
        client.token_refresh(company)
        again = self.open()
        self.assertEqual({info.resource_id for info in again.tokens_list()}, {company, location})
        self.assertEqual(
            {info.resource_id for info in again.tokens_list(user_type="Location")}, {location}
        )
        self.assertEqual(again.access_token(location), token)
        self.assertEqual(again.access_token(company), client.access_token(company))
        again.token_delete(location)
        self.assertEqual([info.resource_id for info in self.open().tokens_list()], [company])

    def test_locations_are_minted_by_library_threads(self) -> None:
        client = self.open()
        self.install(client)
        self.assertEqual(client.tokens_mint(self.emulator.company_id).minted, 5)
        self.assertEqual(len(list(self.open().tokens_list())), 6)
        self.assertEqual(client.tokens_maintain().failed, ())

    def test_threads_refresh_an_expired_token_once(self) -> None:
        client = self.open()
        self.install(client)
        client.tokens_import(
            [replace(token, expires_at=PAST) for token in client.tokens_export()], replace=True
        )
        self.emulator.settings(latencyMs=200)
        tokens = in_threads(16, lambda: client.access_token(self.emulator.company_id))
        self.assertEqual((len(set(tokens)), self.emulator.refreshes()), (1, 1))


class DictStoreTest(PromisesTest):
    def setUp(self) -> None:
        super().setUp()
        self.records: dict[str, str] = {}

    def new_store(self) -> ghl_oauth.Store:
        store = DictStore()
        store.records = self.records
        return store


@unittest.skipUnless(os.name == "posix", "fcntl is POSIX")
class ShelveStoreTest(PromisesTest):
    def new_store(self) -> ghl_oauth.Store:
        spec = importlib.util.spec_from_file_location("shelve_store", EXAMPLES / "shelve_store.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)  # pyright: ignore[reportAttributeAccessIssue]
        store: ghl_oauth.Store = module.ShelveStore(self.path)
        return store

    def test_processes_refresh_an_expired_token_once(self) -> None:
        client = self.open()
        self.install(client)
        client.tokens_import(
            [replace(token, expires_at=PAST) for token in client.tokens_export()], replace=True
        )
        self.emulator.settings(latencyMs=300)
        program = textwrap.dedent("""
            import json, sys, ghl_oauth
            from shelve_store import ShelveStore
            settings, path, company_id = json.load(sys.stdin)
            with ghl_oauth.Client(**settings, store=ShelveStore(path)) as client:
                print(client.access_token(company_id))
        """)
        configuration = self.emulator.configuration
        settings = {
            "client_id": configuration["clientId"],
            "client_secret": configuration["clientSecret"],
            "base_url": configuration["baseUrl"],
        }
        variables = environment()
        variables["PYTHONPATH"] += os.pathsep + str(EXAMPLES)
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program],
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdin
            process.stdin.write(json.dumps([settings, str(self.path), self.emulator.company_id]))
            process.stdin.close()
            process.stdin = None
        tokens = {process.communicate(timeout=60)[0].strip() for process in processes}
        self.assertEqual((len(tokens), "" in tokens, self.emulator.refreshes()), (1, False, 1))
        listed = subprocess.run(
            [sys.executable, str(EXAMPLES / "shelve_store.py"), str(self.path)],
            env=variables, capture_output=True, text=True, check=True,
        )  # fmt: skip
        self.assertIn(f"token {self.emulator.company_id} version", listed.stdout)


class FailureTest(EmulatorTest):
    def setUp(self) -> None:
        super().setUp()
        self.store = LockedStore()
        self.client = self.make_client(store=self.store)

    def test_exception_of_a_method_is_the_cause_of_the_error(self) -> None:
        company_id = self.emulator.company_id
        calls: dict[str, Callable[[], object]] = {
            "load": lambda: self.make_client(store=self.store).access_token(company_id),
            "list": lambda: list(self.client.tokens_list()),
            "lock": lambda: self.client.token_refresh(company_id),
            "remove": lambda: self.client.token_delete(company_id),
        }
        self.install()
        for name, call in calls.items():
            self.store.failing = {name: fail}
            with self.subTest(name), self.assertLogs("ghl_oauth", logging.ERROR) as logged:
                with self.assertRaises(ghl_oauth.StoreError) as raised:
                    call()
                self.assertIsInstance(raised.exception.__cause__, OSError)
                self.assertIn(f"could not {name}", str(raised.exception))
                self.assertIn("the disk is full", "".join(logged.output))
        self.store.failing = {}
        self.assertTrue(self.client.access_token(company_id))

    def test_unsaved_token_is_kept_and_saved_later(self) -> None:
        self.install()
        self.store.failing = {"save": fail}
        with (
            self.assertLogs("ghl_oauth", logging.ERROR),
            self.assertRaises(ghl_oauth.StoreError) as raised,
        ):
            self.client.token_refresh(self.emulator.company_id)
        self.assertIsInstance(raised.exception.__cause__, OSError)
        self.store.failing = {}
        self.client.token_refresh(self.emulator.company_id)
        token = self.client.access_token(self.emulator.company_id)
        self.assertEqual(
            self.make_client(store=self.copy()).access_token(self.emulator.company_id), token
        )

    def copy(self) -> DictStore:
        store = DictStore()
        store.records = dict(self.store.records)
        return store

    def test_interrupt_in_a_method_is_raised_by_the_call(self) -> None:
        self.install()
        for name in ("load", "save", "lock", "unlock"):
            self.store.failing = {name: interrupt}
            with self.subTest(name), self.assertRaises(KeyboardInterrupt):
                self.client.token_refresh(self.emulator.company_id)
        self.store.failing = {}
        self.assertTrue(self.client.token_refresh(self.emulator.company_id))

    def test_interrupt_on_a_library_thread_is_logged(self) -> None:
        self.install()
        here = threading.get_ident()
        elsewhere: list[int] = []

        def interrupt_elsewhere() -> None:
            if threading.get_ident() != here:
                elsewhere.append(threading.get_ident())
                raise SystemExit("not here")

        self.store.failing = {"load": interrupt_elsewhere}
        with (
            self.assertLogs("ghl_oauth", logging.ERROR) as logged,
            self.assertRaises(ghl_oauth.StoreError),
        ):
            self.client.tokens_mint(self.emulator.company_id)
        self.assertTrue(elsewhere)
        self.assertIn("SystemExit: not here", "".join(logged.output))
        self.assertEqual(_callback._raised, {})

    def test_unavailable_lock_is_a_timeout(self) -> None:
        def wait_in_vain() -> None:
            raise TimeoutError

        self.install()
        store = LockedStore()
        store.records = self.store.records
        client = self.make_client(store=store, timeouts={"total_ms": 500})
        store.failing = {"lock": wait_in_vain}
        with self.assertRaises(ghl_oauth.Timeout):
            client.token_refresh(self.emulator.company_id)

    def test_store_with_only_one_lock_method_is_refused(self) -> None:
        class Half(DictStore):
            def lock(self, resource_id: str, timeout: float) -> None:
                pass

        with self.assertRaisesRegex(TypeError, "both lock and unlock"):
            self.make_client(store=Half())

    def test_store_is_closed_once(self) -> None:
        self.client.close()
        self.assertEqual(self.store.closed, 1)
        unused = DictStore()
        with self.assertRaises(ghl_oauth.ConfigError):
            ghl_oauth.Client("", "", store=unused)
        self.assertEqual(unused.closed, 1)

    def test_failed_store_is_closed_with_its_client(self) -> None:
        store = LockedStore()
        client = self.make_client(store=store)
        self.install(client)
        store.failing = {"save": fail, "list": fail}

        def call_all() -> None:
            for call in (
                lambda: client.token_refresh(self.emulator.company_id),
                lambda: list(client.tokens_list()),
                client.tokens_maintain,
            ):
                causes = []
                with self.assertLogs("ghl_oauth", logging.ERROR):
                    try:
                        call()
                    except ghl_oauth.StoreError as error:
                        # Not assertRaises, which clears the frames.
                        causes.append(type(error.__cause__))
                self.assertEqual(causes, [OSError])

        # In a thread that ends: CPython 3.12 was seen to keep a frame with the client.
        self.assertEqual(in_threads(1, call_all), [None])
        client.close()
        gc.collect()
        self.assertEqual(store.closed, 1)

    def test_records_are_sealed_with_the_keys_of_the_store(self) -> None:
        store = DictStore()
        store.encryption_keys = [base64.b64encode(bytes(range(32))).decode()]
        client = self.make_client(store=store)
        self.install(client)
        token = client.access_token(self.emulator.company_id)
        self.assertNotIn(token, "".join(store.records.values()))
        other = DictStore()
        other.records, other.encryption_keys = store.records, store.encryption_keys
        self.assertEqual(
            self.make_client(store=other).access_token(self.emulator.company_id), token
        )

    def test_records_are_sealed_with_the_configured_keys(self) -> None:
        key, other_key = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name, "keys")
        path.write_text(key + "\n")
        app = {
            name: self.emulator.configuration[name]
            for name in ("clientId", "clientSecret", "baseUrl")
        }
        tokens = [{"refreshToken": "a-secret", "companyId": "c"}]
        for sealing in ({"encryptionKeys": [key]}, {"encryptionKeysPath": str(path)}):
            document: dict[str, Any] = {
                **app,
                "store": {"kind": "sqlite", "path": "unused.db", **sealing},
            }
            with self.subTest(sealing=list(sealing)):
                store, own = DictStore(), DictStore()
                own.encryption_keys = [other_key]
                sealed_with = []
                for each in (store, own):
                    with ghl_oauth.Client.from_config(document, each) as client:
                        self.assertEqual(client.tokens_import(tokens).imported, 1)
                    self.assertNotIn("a-secret", each.records["c"])
                    sealed_with.append(json.loads(each.records["c"])["sealedWith"])
                self.assertNotEqual(*sealed_with)  # a store's own keys come first

                clear = DictStore()
                with self.make_client(store=clear) as client:
                    client.tokens_import(tokens)
                self.assertIn("a-secret", clear.records["c"])
                document["store"]["sealedOnly"] = True
                with (
                    ghl_oauth.Client.from_config(document, clear) as client,
                    self.assertRaisesRegex(ghl_oauth.StoreError, "not sealed"),
                ):
                    client.access_token("c")

    def test_exit_handler_registered_before_the_import_uses_the_client(self) -> None:
        program = textwrap.dedent("""
            import atexit
            def show():  # registered first, so called last
                for call in (client.stats, lambda: list(client.tokens_list())):
                    call()
                print("used")
            atexit.register(show)
            import ghl_oauth
            from tests.test_store import DictStore
            client = ghl_oauth.Client("app-1", "secret", store=DictStore())
        """)
        ended = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[1],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual((ended.stdout, ended.stderr, ended.returncode), ("used\n", "", 0))

    def test_unsaved_token_is_saved_when_the_interpreter_exits(self) -> None:
        self.install()
        program = textwrap.dedent("""
            import atexit, json, sys
            def show():  # registered first, so called last
                print("saved" if store.records[company_id] != before else "lost")
            atexit.register(show)
            import ghl_oauth
            from tests.test_store import DictStore
            settings, records, company_id = json.load(sys.stdin)
            store = DictStore()
            store.records = records
            saves = []
            def refuse_the_second():
                saves.append(True)
                if len(saves) > 1:
                    raise OSError(28, "the disk is full")
            store.failing = {"save": refuse_the_second}
            client = ghl_oauth.Client(**settings, store=store)
            print(client.token_refresh(company_id).state)
            before = store.records[company_id]
            if "works" in sys.argv:
                store.failing = {}
        """)
        configuration = self.emulator.configuration
        settings = {
            "client_id": configuration["clientId"],
            "client_secret": configuration["clientSecret"],
            "base_url": configuration["baseUrl"],
        }
        for store, outcome in (("works", "saved"), ("fails", "lost")):
            ended = subprocess.run(
                [sys.executable, "-c", program, store],
                cwd=Path(__file__).parents[1],
                env=environment(),
                input=json.dumps([settings, self.store.records, self.emulator.company_id]),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            self.assertEqual(
                (ended.returncode, ended.stdout), (0, f"unsaved\n{outcome}\n"), ended.stderr
            )

    @unittest.skipIf(sys.platform == "win32", "no signal can be sent to one process there")
    def test_ctrl_c_during_a_refresh_does_not_prevent_the_save(self) -> None:
        self.install()
        self.emulator.fault("stall", count=1, endpoint="token", stage="beforeProcessing")
        program = textwrap.dedent("""
            import json, sys, ghl_oauth
            from tests.test_store import LockedStore
            settings, records, company_id = json.load(sys.stdin)
            before = json.loads(records[company_id])
            store = LockedStore()
            store.records = records
            unlocked = []
            store.failing = {"unlock": lambda: unlocked.append(True)}
            client = ghl_oauth.Client(**settings, store=store)
            try:
                client.token_refresh(company_id)
            except KeyboardInterrupt:
                saved = json.loads(store.records[company_id])
                print("interrupted", saved["version"] > before["version"], len(unlocked) > 0)
        """)
        configuration = self.emulator.configuration
        settings = {
            "client_id": configuration["clientId"],
            "client_secret": configuration["clientSecret"],
            "base_url": configuration["baseUrl"],
        }
        self.emulator.control("DELETE", "/requests")
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[1],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        process.stdin.write(json.dumps([settings, self.store.records, self.emulator.company_id]))
        process.stdin.close()
        process.stdin = None
        while not self.emulator.requests("/oauth/token"):
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        self.emulator.control("DELETE", "/faults")
        self.assertEqual(process.communicate(timeout=60), ("interrupted True True\n", ""))


del PromisesTest  # only its subclasses run
