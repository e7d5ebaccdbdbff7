"""``ghl-oauth doctor``: each broken situation is found, with its cause and its cure, in one run."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock
from collections.abc import Generator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import ghl_oauth
from ghl_oauth import _configuration, _handle
from ghl_oauth.cli.checks import Stage, certificate, store

from .support import DEAD_TOKEN, damage, free_port
from .test_cli import CliTest

LIMIT = 10.0
"""The maximum duration of a run, in seconds, even if something hangs."""

SLOWNESS = 20.0
"""What a loaded machine may add to that, in seconds; the things that hang never answer."""


class DoctorCase(CliTest):
    def finds(self, name: str, outcome: str, *words: str, status: int) -> None:
        ended = self.run_cli("doctor", "--json")
        check = self.checks(ended)[name]
        self.assertEqual((check["outcome"], ended.returncode), (outcome, status), ended.stdout)
        for word in words:
            self.assertIn(word, f"{check['message']} {check['help']}")


class DoctorTest(DoctorCase):
    def test_healthy_setup_passes(self) -> None:
        self.login()
        ended = self.run_cli("doctor", "--json")
        found = self.checks(ended)
        names = ["library", "configuration", "webhooks", "store", "network", "clock", "version",
                 "credentials", "tokens"]  # fmt: skip
        self.assertEqual((ended.returncode, ended.stderr, list(found)), (0, "", names))
        outcomes = {check["outcome"] for name, check in found.items() if name != "credentials"}
        self.assertEqual((outcomes, found["credentials"]["outcome"]), ({"ok"}, "skipped"), found)
        text = self.ok("doctor")
        self.assertIn(ghl_oauth.library_version(), text)
        self.assertIn(str(self.folder / "tokens.db"), text)

    def test_missing_consent_is_reported(self) -> None:
        self.finds("tokens", "consent", "ghl-oauth login", status=3)

    def test_dead_token_is_reported(self) -> None:
        self.login()
        self.emulator.control("POST", "/tokens/revoke", {"resourceId": self.emulator.company_id})
        self.assertEqual(self.run_cli("refresh", self.emulator.company_id).returncode, 3)
        self.finds("tokens", "consent", self.emulator.company_id, "ghl-oauth login", status=3)

    def test_unreadable_token_is_reported(self) -> None:
        self.login()
        damage(self.folder / "tokens.db", self.emulator.company_id)
        self.finds("tokens", "problem", self.emulator.company_id, "cannot be read", status=6)

    def test_unusable_configuration_is_reported(self) -> None:
        self.configure(colour="red")
        self.finds("configuration", "problem", "colour", status=2)

    def test_memory_store_is_reported(self) -> None:
        self.configure(store={"kind": "memory"})
        self.finds("store", "problem", "memory", "sqlite", status=1)

    def test_store_that_cannot_be_opened_is_reported(self) -> None:
        (self.folder / "tokens.db").write_text("this is no database, however long one looks at it")
        self.finds("store", "problem", "tokens.db", "restore a backup", status=1)

    @unittest.skipUnless(os.name == "posix", "modes are POSIX")
    def test_store_readable_by_others_is_reported(self) -> None:
        self.login()
        (self.folder / "tokens.db").chmod(0o644)
        self.finds("store", "warning", "0644", "chmod 600", status=0)

    def test_unreachable_api_is_reported(self) -> None:
        self.login()
        self.configure(baseUrl=f"http://127.0.0.1:{free_port()}")
        self.finds("network", "problem", "127.0.0.1:", "check the network", status=4)

    def test_wrong_clock_is_reported(self) -> None:
        self.login()
        for seconds, outcome, words, status in (
            (3630, "problem", "60 min behind", 1),
            (-3630, "problem", "60 min ahead", 1),
            (130, "warning", "behind", 0),
        ):
            theirs = format_datetime(
                datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True
            )
            self.emulator.fault(
                "status", status=401, body=DEAD_TOKEN, headers=[["date", theirs]], count=1
            )
            self.finds("clock", outcome, words, status=status)

    def test_refused_api_version_is_reported(self) -> None:
        self.login()
        self.emulator.fault("refusal", refusal="versionInvalid", endpoint="installed-locations")
        self.finds("version", "problem", "v3", "apiVersion", status=1)

    @unittest.skipUnless(os.name == "posix", "a signal cannot be sent to one process elsewhere")
    def test_ctrl_c_ends_a_check_that_hangs(self) -> None:
        self.emulator.fault("stall")
        process = subprocess.Popen(
            self.command("doctor"),
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.emulator.wait_for_stall()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130)
        self.assertNotIn("Traceback", errors)


class WrongSecretTest(DoctorCase):
    OPTIONS = ("--locations", "3", "--name-wrong-credentials")

    def test_wrong_secret_is_diagnosed(self) -> None:
        self.login()
        (self.folder / "secret.txt").write_text("not the secret")
        (self.folder / "secret.txt").chmod(0o600)
        self.configure(clientSecret=None, clientSecretFile="secret.txt")
        self.finds(
            "credentials",
            "problem",
            "Invalid client credentials",
            str(self.folder / "secret.txt"),
            "developer portal",
            status=1,
        )


class UnnamedWrongSecretTest(DoctorCase):
    """The API does not always name wrong credentials."""

    def test_wrong_secret_is_diagnosed_by_the_last_failure_of_a_token(self) -> None:
        self.login()
        self.configure(clientSecret="not the secret")
        self.assertEqual(self.run_cli("refresh", self.emulator.company_id).returncode, 1)
        ended = self.run_cli("doctor", "--json")
        (check,) = (
            each for each in json.loads(ended.stdout)["checks"] if each["outcome"] == "problem"
        )
        self.assertEqual((check["name"], ended.returncode), ("tokens", 1))
        self.assertIn(self.emulator.company_id, check["message"])
        self.assertIn("last attempt", check["message"])
        self.assertIn("client ID or secret is probably wrong", check["message"])
        self.assertIn("developer portal", check["help"])


class FailingTokenTest(DoctorCase):
    def test_failed_refresh_is_a_warning_while_the_old_token_lives(self) -> None:
        self.login()
        self.emulator.fault("status", status=503, body="", endpoint="token")
        self.assertEqual(self.run_cli("refresh", self.emulator.company_id).returncode, 4)
        self.emulator.end_faults()
        ended = self.run_cli("doctor", "--json")
        (check,) = (
            each for each in json.loads(ended.stdout)["checks"] if each["outcome"] == "warning"
        )
        self.assertEqual((check["name"], ended.returncode), ("tokens", 0))
        for words in (self.emulator.company_id, "503", "the old token expires", "1 failed"):
            self.assertIn(words, check["message"])


class FullDiskTest(DoctorCase):
    """A store on a file system of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        mounted = (
            sys.platform == "linux"
            and not subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(self.disk)],
                capture_output=True,
                check=False,
            ).returncode
        )
        if not mounted:
            self.skipTest("a full disk needs a mount: run the tests as root on Linux")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.disk)], check=True)
        self.configure(store={"kind": "sqlite", "path": str(self.disk / "tokens.db")})

    def test_full_disk_is_diagnosed(self) -> None:
        with self.make_client(store=self.disk / "tokens.db") as client:
            self.install(client)
        with contextlib.suppress(OSError), open(self.disk / "other", "wb", buffering=0) as other:
            while True:
                other.write(bytes(1024))
        self.finds("store", "problem", str(self.disk), "No space left", "free disk space", status=1)
        os.truncate(self.disk / "other", 0)
        self.assertEqual(self.run_cli("doctor").returncode, 0, "the disk has room again")

    def test_read_only_file_system_is_diagnosed(self) -> None:
        with self.make_client(store=self.disk / "tokens.db") as client:
            self.install(client)
        subprocess.run(["mount", "-o", "remount,ro", str(self.disk)], check=True)
        self.finds("store", "problem", "mounted read-only", "store.path", status=1)
        self.configure(store={"kind": "sqlite", "path": str(self.disk / "new.db")})
        self.finds("store", "problem", "mounted read-only", "store.path", status=1)


class DeadDatabaseTest(DoctorCase):
    def postgres(self, port: int) -> None:
        if "postgres" not in ghl_oauth.library_info()["stores"]:
            self.skipTest("the library was built without PostgreSQL: --features postgres")
        url = f"postgres://app:the-password@127.0.0.1:{port}/tokens"
        self.configure(store={"kind": "postgres", "url": url})

    def test_stopped_postgresql_is_diagnosed(self) -> None:
        port = free_port()
        self.postgres(port)
        self.finds("store", "problem", f"127.0.0.1:{port}", "refused", "check the server", status=4)
        self.assertNotIn("the-password", self.run_cli("doctor").stdout)

    def test_silent_postgresql_is_diagnosed_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port: int = server.getsockname()[1]
            self.postgres(port)
            begun = time.monotonic()
            self.finds("store", "problem", f"127.0.0.1:{port}", "no answer", status=4)
            self.assertLess(time.monotonic() - begun, LIMIT + SLOWNESS)

    def test_damaged_database_is_diagnosed_and_is_no_temporary_error(self) -> None:
        self.login()
        database = self.folder / "tokens.db"
        content = bytearray(database.read_bytes())
        self.assertGreater(len(content), 8192)
        content[4096:] = b"\x55" * (len(content) - 4096)
        database.write_bytes(content)
        self.finds(
            "store",
            "problem",
            f"the database {database} is damaged",
            "restore a backup",
            "must consent again",
            status=1,
        )
        ended = self.run_cli("list")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("backup", ended.stderr)

    def test_words_in_the_path_do_not_mislead_the_diagnosis(self) -> None:
        folder = self.folder / "lock is full, malformed failed: file is not a database"
        folder.mkdir()
        database = folder / "tokens.db"
        self.configure(store={"kind": "sqlite", "path": str(database)})
        database.mkdir()
        ended = self.run_cli("doctor", "--json")
        message = self.checks(ended)["store"]["message"]
        self.assertEqual(ended.returncode, 1)
        for wrong in ("is damaged", "is not an SQLite", "is not free", "disk of"):
            self.assertNotIn(wrong, message.replace(str(folder), ""))

    @unittest.skipUnless(hasattr(os, "mkfifo"), "needs pipes and symbolic links")
    def test_path_that_is_no_file_is_diagnosed(self) -> None:
        database = self.folder / "tokens.db"

        def pipe() -> None:
            os.mkfifo(database)

        def loop() -> None:
            database.symlink_to(database)

        for make, words in ((pipe, "is not a regular file"), (loop, os.strerror(errno.ELOOP))):
            make()
            with self.subTest(words):
                self.assertIn(words, self.run_cli("doctor").stdout)
            database.unlink()
        self.configure(store={"kind": "sqlite", "path": str(self.folder / ("x" * 300))})
        self.assertIn(os.strerror(errno.ENAMETOOLONG), self.run_cli("doctor").stdout)

    def test_database_of_another_program_is_diagnosed(self) -> None:
        database = sqlite3.connect(self.folder / "tokens.db")
        with contextlib.closing(database), database:
            database.execute("CREATE TABLE customers (name TEXT)")
        self.finds("store", "problem", "another program", "customers", "store.path", status=2)

    def test_database_of_an_open_client_is_not_inspected_by_the_same_process(self) -> None:
        # SQLite's locks belong to the process: the inspection would drop the client's.
        self.login()
        configuration = _configuration.read(str(self.config))
        contents = "ghl_oauth.cli.checks.store._contents"
        patch = unittest.mock.patch(contents, return_value=())
        with patch as inspect, self.make_client(store=self.folder / "tokens.db"):
            for alone in (not _handle.any_open(), True):
                found = store.Found()
                store.examine(configuration, Stage(""), found, alone)
                assert found.client
                found.client.close()
                self.assertEqual((inspect.called, found.tokens is not None), (alone, True))
        self.assertEqual(inspect.call_count, 1)

    @contextlib.contextmanager
    def another_program(self, code: str) -> Generator[subprocess.Popen[str], None, None]:
        """A program that prints a line when its code has run, and then waits."""
        script = self.folder / "greedy.py"
        script.write_text(f"import sqlite3, sys\n{code}\nprint('ready', flush=True)\ninput()\n")
        process = subprocess.Popen(
            [sys.executable, str(script), str(self.folder / "tokens.db")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout
            self.assertEqual(process.stdout.readline(), "ready\n")
            yield process
        finally:
            process.kill()
            process.communicate()

    def test_lock_of_another_program_is_diagnosed_with_its_process(self) -> None:
        self.login()
        code = (
            "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "connection.execute('BEGIN IMMEDIATE')"
        )
        with self.another_program(code) as process:
            words = ["is not free", "end that program"]
            if sys.platform == "linux":
                words += [f"process {process.pid}", "greedy.py"]
            begun = time.monotonic()
            self.finds("store", "problem", *words, status=4)
            self.assertLess(time.monotonic() - begun, LIMIT + SLOWNESS)

    def test_exclusively_locked_database_is_diagnosed_with_the_process(self) -> None:
        self.login()
        code = (
            "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "connection.execute('PRAGMA locking_mode = EXCLUSIVE')\n"
            "connection.execute('BEGIN EXCLUSIVE')"
        )
        with self.another_program(code) as process:
            words = [f"process {process.pid}"] if sys.platform == "linux" else []
            self.finds("store", "problem", "is not free", *words, status=4)


class RevokedTokenTest(DoctorCase):
    def test_revoked_company_token_is_diagnosed(self) -> None:
        self.login()
        # The user removes the app, and the webhook about it is lost.
        self.emulator.control(
            "POST", f"/companies/{self.emulator.company_id}", {"installed": False}
        )
        self.finds(
            "tokens", "consent", self.emulator.company_id, "must consent again", "ghl-oauth login",
            status=3,
        )  # fmt: skip

    def test_revoked_location_token_is_diagnosed(self) -> None:
        location_id = self.emulator.location_ids[0]
        with self.make_client(store=self.folder / "tokens.db") as client:
            link = client.authorization_url().url
            client.authorization_complete(self.emulator.consent(link, locationId=location_id))
        self.emulator.control("POST", f"/locations/{location_id}", {"installed": False})
        self.finds("tokens", "consent", location_id, "ghl-oauth login", status=3)


class WithoutSlowModulesTest(DoctorCase):
    def test_healthy_run_imports_no_slow_module(self) -> None:
        self.login()
        program = (
            "import sys; at_start = set(sys.modules); from ghl_oauth.cli import main; "
            "main(['doctor']); print(*set(sys.modules) - at_start, file=sys.stderr)"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        loaded = set(ended.stderr.split())
        self.assertIn("ghl_oauth.cli.checks.tokens", loaded)
        slow = {"dataclasses", "email", "inspect", "ipaddress", "logging", "pathlib", "random",
                "socket", "subprocess", "tempfile", "typing", "urllib"}  # fmt: skip
        self.assertEqual(loaded & slow, set(), ended.stdout)

    def test_database_with_any_name_is_inspected(self) -> None:
        path = str(self.folder / "100 %?#.db")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE customer (id)")
        (check,) = store._contents(path)
        self.assertIn("customer", check.message)

    def test_date_header_in_every_form_is_read(self) -> None:
        usual = "Sun, 06 Nov 1994 08:49:37 GMT"
        for date in (usual, "Sun, 6 Nov 1994 09:49:37 +0100", "06 Nov 94 08:49:37 GMT",
                     "Sun Nov  6 08:49:37 1994"):  # fmt: skip
            with self.subTest(date):
                found = certificate.seconds_of(date)
                self.assertEqual(found, parsedate_to_datetime(date).timestamp())
        self.assertEqual(certificate.seconds_of(usual), 784111777)
        for wrong in (None, "", "now", "Sun, 06 Nov 1994 25:49:37 GMT", "Sun, 06 Foo 1994 08 GMT"):
            self.assertIsNone(certificate.seconds_of(wrong), wrong)


class NetworkTest(DoctorCase):
    @contextlib.contextmanager
    def tls_server(self, certificate: str) -> Generator[tuple[str, Path], None, None]:
        """An emulator over TLS: its URL, and the file of its CA."""
        with tempfile.TemporaryDirectory() as folder:
            authority = Path(folder, "ca.pem")
            process = subprocess.Popen(
                [os.environ["GHL_OAUTH_EMULATOR"], "--port", "0", "--tls", certificate,
                 "--ca-file", str(authority)],
                stdout=subprocess.PIPE,
                text=True,
            )  # fmt: skip
            try:
                assert process.stdout
                found = re.search(r"https://\S+", process.stdout.readline())
                assert found
                yield found.group(), authority
            finally:
                process.kill()
                process.communicate()

    def test_untrusted_certificate_is_diagnosed_with_its_issuer(self) -> None:
        with self.tls_server("good") as (url, authority):
            self.configure(baseUrl=url)
            self.finds(
                "network",
                "problem",
                "not trusted",
                "issued by",
                url.rpartition("/")[2],
                "http.caBundlePath",
                status=1,
            )
            self.configure(http={"caBundlePath": str(authority)})
            check = self.checks(self.run_cli("doctor", "--json"))["network"]
            self.assertEqual(check["outcome"], "ok", "the cure works")

    def test_python_without_ssl_names_no_issuer(self) -> None:
        with unittest.mock.patch.dict(sys.modules, {"ssl": None}):
            self.assertEqual(certificate.look("127.0.0.1", free_port(), 1), (None, None))

    def test_certificate_that_has_expired_is_diagnosed_together_with_the_clock(self) -> None:
        with self.tls_server("expired") as (url, _):
            self.configure(baseUrl=url)
            ended = self.run_cli("doctor", "--json")
            found = self.checks(ended)
            self.assertEqual((ended.returncode, found["network"]["outcome"]), (1, "problem"))
            self.assertIn("expired", found["network"]["message"])
            self.assertEqual(found["clock"]["outcome"], "ok", "the clock is not the cause")

    def test_network_that_hangs_is_diagnosed_in_time(self) -> None:
        self.login()
        self.emulator.fault("stall")
        begun = time.monotonic()
        ended = self.run_cli("doctor")
        self.assertLess(time.monotonic() - begun, LIMIT + SLOWNESS)
        self.assertEqual(ended.returncode, 4, ended.stdout)
        self.assertRegex(ended.stdout, r"(?m)^problem  network .*127\.0\.0\.1:\d+: no answer")
        self.assertIn("waiting for an answer from 127.0.0.1:", ended.stderr)
        self.assertEqual(self.emulator.refreshes(), 0)

    def test_proxy_of_the_environment_is_named_when_the_network_fails(self) -> None:
        self.login()
        self.configure(baseUrl=f"http://127.0.0.1:{free_port()}")
        self.variables["HTTPS_PROXY"] = "http://user:the-password@proxy.example:3128"
        self.finds("network", "problem", "HTTPS_PROXY", "http.proxy", status=4)
        self.assertNotIn("the-password", self.run_cli("doctor").stdout)

    def test_web_page_of_a_firewall_is_diagnosed(self) -> None:
        self.emulator.fault(
            "status", status=403, body="<html>Blocked by policy</html>", contentType="text/html"
        )
        self.finds("network", "problem", "Blocked by policy", "firewall", status=1)


class OwnerTest(unittest.TestCase):
    @unittest.skipUnless(os.name == "posix", "owners are POSIX")
    def test_lock_file_of_another_user_is_diagnosed(self) -> None:
        from ghl_oauth.cli.checks import store

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tokens.db")
            lock = Path(folder, "tokens.db.locks", "writer")
            lock.parent.mkdir()
            lock.touch()
            # Root may write to any file, and only root could create one of another user.
            with unittest.mock.patch("os.access", lambda file, _mode: Path(file) != lock):
                (check,) = store._owners(str(path))
        self.assertEqual(check.status, 1)
        self.assertIn(f"{lock} cannot be written: it belongs to another user", check.message)
        self.assertIn(f"chown --reference={path}", str(check.help))


class WebhookKeysTest(DoctorCase):
    def test_configuration_without_an_accepted_key_is_reported(self) -> None:
        self.login()
        self.configure(webhook={"ed25519PublicKeys": []})
        self.finds("webhooks", "warning", "every delivery is refused", status=0)

    def test_key_that_is_not_the_vendors_is_reported(self) -> None:
        from ghl_oauth._configuration import Configuration
        from ghl_oauth.cli.checks import setup

        vendors = "MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg="
        pem = f"-----BEGIN PUBLIC KEY-----\n{vendors}\n-----END PUBLIC KEY-----\n"
        for keys, outcome in (
            (None, "ok"),
            ([vendors], "ok"),
            ([pem], "ok"),
            (["00" * 32, "8b61d1d6cacbe28d7c3bc0516bb815258ec6edbba96cddc7f40c09ac708388e8"], "ok"),
            (["00" * 32], "warning"),
        ):
            document = {"store": {"kind": "memory"}, "webhook": {"ed25519PublicKeys": keys}}
            check = setup.webhooks(Configuration("c.json", document, "c.json", ()))
            self.assertEqual(check.outcome, outcome, keys)
