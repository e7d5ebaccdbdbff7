"""Clients that are configured by a file."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import ghl_oauth
from ghl_oauth import aio
from ghl_oauth._configuration import Configuration

from .support import EmulatorTest
from .test_store import DictStore


class ConfigurationTest(unittest.TestCase):
    def test_address_of_the_api_is_read_from_its_url(self) -> None:
        for url, address in (
            (None, ("services.leadconnectorhq.com", 443)),
            ("https://API.example", ("api.example", 443)),
            ("HTTP://api.example/prefix:1/", ("api.example", 80)),
            ("http://127.0.0.1:8080/prefix", ("127.0.0.1", 8080)),
            ("https://[2001:db8::1]", ("2001:db8::1", 443)),
            ("http://[::1]:8080", ("::1", 8080)),
        ):
            found = Configuration("c.json", {"baseUrl": url}, "c.json", ())
            self.assertEqual(found.address, address, url)

    @unittest.skipUnless(os.name == "posix", "paths differ on Windows")
    def test_path_of_the_store_is_as_short_as_possible(self) -> None:
        for path, short in (
            ("/data//./tokens.db", "/data/tokens.db"),
            ("/data/link/../tokens.db", "/data/link/../tokens.db"),
            (None, None),
        ):
            document = {"store": {"kind": "sqlite", "path": path}}
            self.assertEqual(Configuration("c.json", document, "c.json", ()).store_path, short)


class ConfigurationFileTest(EmulatorTest):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name).resolve()
        self.path = self.folder / "config.json"
        self.document = dict(self.emulator.configuration)
        del self.document["clientSecret"]
        (self.folder / "secret.txt").write_text(self.emulator.client_secret + "\n")
        (self.folder / "secret.txt").chmod(0o600)
        self.write(clientSecretFile="secret.txt")

    def write(self, **changes: Any) -> None:
        self.path.write_text(json.dumps({**self.document, **changes}))
        self.path.chmod(0o600)

    def open(self, path: Any = None) -> ghl_oauth.Client:
        client = ghl_oauth.Client.from_config(path or self.path)
        self.addCleanup(client.close)
        return client

    def test_file_is_read_as_by_the_command_line(self) -> None:
        self.write(clientSecretFile="secret.txt", store={"kind": "sqlite", "path": "mine.db"})
        for path in (self.path, str(self.path)):
            client = self.open(path)
            self.install(client)
            self.assertTrue((self.folder / "mine.db").exists())

    def test_file_without_a_store_keeps_tokens_next_to_it(self) -> None:
        self.install(self.open())
        self.assertTrue((self.folder / "tokens.db").exists())
        self.assertEqual(len(list(self.open().tokens_list())), 1)

    def test_environment_variable_replaces_the_secret(self) -> None:
        (self.folder / "secret.txt").write_text("wrong")
        with mock.patch.dict(os.environ, {"GHL_OAUTH_CLIENT_SECRET": self.emulator.client_secret}):
            self.install(self.open())

    def test_empty_environment_variable_does_not_replace_the_secret(self) -> None:
        with mock.patch.dict(os.environ, {"GHL_OAUTH_CLIENT_SECRET": ""}):
            self.install(self.open())

    def test_files_may_begin_with_a_byte_order_mark(self) -> None:
        for path in (self.path, self.folder / "secret.txt"):
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        self.install(self.open())

    def test_special_names_of_sqlite_are_refused(self) -> None:
        for name in (":memory:", "file:tokens.db"):
            self.write(clientSecretFile="secret.txt", store={"kind": "sqlite", "path": name})
            with self.assertRaises(ghl_oauth.ConfigError) as refused:
                self.open()
            self.assertEqual(refused.exception.parameter, "store.path")

    def test_unusable_file_is_a_configuration_error(self) -> None:
        with self.assertRaises(ghl_oauth.ConfigError) as raised:
            self.open(self.folder / "none.json")
        self.assertIn("none.json does not exist", str(raised.exception))
        self.assertNotIn("--config", str(raised.exception))
        self.write()
        with self.assertRaises(ghl_oauth.ConfigError) as raised:
            self.open()
        self.assertEqual(raised.exception.parameter, "clientSecret")
        self.write(clientSecretFile="secret.txt", retry={"maxAttempts": 0})
        with self.assertRaises(ghl_oauth.ConfigError) as raised:
            self.open()
        self.assertEqual(raised.exception.parameter, "retry.maxAttempts")

    @unittest.skipUnless(os.name == "posix", "modes are POSIX")
    def test_secret_that_others_can_read_is_a_warning(self) -> None:
        (self.folder / "secret.txt").chmod(0o644)
        with self.assertLogs("ghl_oauth", "WARNING") as logged:
            self.open()
        self.assertIn("other users can read the secret", logged.output[0])

    def test_file_configures_an_asyncio_client_and_one_with_its_own_store(self) -> None:
        asyncio.run(aio.Client.from_config(self.path).close())
        with ghl_oauth.Client.from_config(self.path, DictStore()) as client:
            self.install(client)
        self.assertEqual(list(self.open().tokens_list()), [])
