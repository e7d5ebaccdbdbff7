"""The command line, run like a person or a script."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import unittest
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import ghl_oauth
from ghl_oauth import _configuration

from .support import REPOSITORY, EmulatorTest, damage, environment, free_port

Ended = subprocess.CompletedProcess[str]


class CliTest(EmulatorTest):
    OPTIONS: tuple[str, ...] = ("--locations", "3")

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.config = self.folder / "config.json"
        self.document: dict[str, Any] = dict(self.emulator.configuration)
        self.document["retry"] = {"maxAttempts": 1}
        self.configure()
        self.variables = environment()
        self.variables.pop("GHL_OAUTH_CLIENT_SECRET", None)
        self.variables["GHL_OAUTH_CONFIG"] = str(self.config)

    def configure(self, **changes: Any) -> None:
        self.document.update(changes)
        self.document = {key: value for key, value in self.document.items() if value is not None}
        self.config.write_text(json.dumps(self.document))
        self.config.chmod(0o600)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "error::ResourceWarning", "-m", "ghl_oauth", *arguments]

    def run_cli(self, *arguments: str, stdin: str = "", cwd: str = "/") -> Ended:
        ended = subprocess.run(
            self.command(*arguments),
            input=stdin,
            env=self.variables,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertNotIn("Traceback", ended.stderr)
        self.assertNotIn(self.emulator.client_secret, ended.stdout + ended.stderr)
        return ended

    def ok(self, *arguments: str, stdin: str = "") -> str:
        ended = self.run_cli(*arguments, stdin=stdin)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return ended.stdout

    def login(self) -> None:
        """Completes a consent in this process, using the store of the commands."""
        with self.make_client(store=self.folder / "tokens.db") as client:
            self.install(client)

    def checks(self, ended: Ended) -> dict[str, dict[str, str]]:
        """The doctor's checks by name; the worst result per name."""
        found: dict[str, dict[str, str]] = {}
        order = ("skipped", "ok", "warning", "consent", "problem")
        for check in json.loads(ended.stdout)["checks"]:
            before = found.get(check["name"])
            if before is None or order.index(check["outcome"]) > order.index(before["outcome"]):
                found[check["name"]] = check
        return found


class LoginTest(CliTest):
    def begin(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """Starts a login. Returns the process and the printed link."""
        process = subprocess.Popen(
            self.command("login", *arguments),
            env=self.variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr
        for line in process.stderr:
            link = re.search(r"http\S+", line)
            if link:
                return process, link.group()
        raise AssertionError("there is no link")

    def test_login_receives_the_browser_on_a_port(self) -> None:
        port = free_port()
        process, link = self.begin("--port", str(port))
        redirect_url = self.emulator.consent(link, companyId=self.emulator.company_id)
        target = redirect_url.replace("https://app.example", f"http://127.0.0.1:{port}")
        assert process.stderr
        for line in process.stderr:
            if "Waiting" in line:
                break
        while True:
            try:
                urllib.request.urlopen(target, timeout=60).close()
                break
            except ConnectionRefusedError:
                raise
            except OSError:
                self.assertIsNone(process.poll())
        output, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, errors)
        self.assertIn(self.emulator.company_id, output)
        self.assertTrue(self.ok("token", self.emulator.location_ids[0]).strip())

    def test_login_accepts_a_pasted_address(self) -> None:
        process, link = self.begin("--paste", "--json")
        redirect_url = self.emulator.consent(link, companyId=self.emulator.company_id)
        output, errors = process.communicate(redirect_url + "\n", timeout=60)
        self.assertEqual(process.returncode, 0, errors)
        self.assertEqual(json.loads(output)["resourceId"], self.emulator.company_id)

    def test_login_reports_a_denied_consent(self) -> None:
        process, link = self.begin("--paste")
        output, errors = process.communicate(
            self.emulator.consent(link, deny=True) + "\n", timeout=60
        )
        self.assertEqual((process.returncode, output), (1, ""))
        self.assertIn("ghl-oauth: ", errors)

    def test_login_without_a_port_names_the_options(self) -> None:
        ended = self.run_cli("login")
        self.assertEqual(ended.returncode, 2)
        self.assertIn("--port", ended.stderr)
        self.assertIn("--paste", ended.stderr)

    @unittest.skipIf(sys.platform == "win32", "no signal can be sent to one process there")
    def test_login_ends_silently_on_a_signal(self) -> None:
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process, _ = self.begin("--port", str(free_port()))
            assert process.stderr
            while "Waiting" not in process.stderr.readline():
                pass
            process.send_signal(number)
            output, errors = process.communicate(timeout=30)
            self.assertEqual((process.returncode, output, errors), (status, "", ""))


class TokenTest(CliTest):
    def setUp(self) -> None:
        super().setUp()
        self.login()

    def test_token_prints_only_the_token(self) -> None:
        token = self.ok("token", self.emulator.location_ids[0])
        self.assertRegex(token, r"\A\S+\n\Z")
        self.assertEqual(self.ok("token", self.emulator.location_ids[0]), token)

    def test_token_warns_if_only_a_new_consent_can_replace_it(self) -> None:
        company_id = self.emulator.company_id
        self.emulator.control("POST", "/tokens/revoke", {"resourceId": company_id})
        self.assertEqual(self.run_cli("refresh", company_id).returncode, 3)
        ended = self.run_cli("token", company_id)
        self.assertEqual(ended.returncode, 0)
        self.assertRegex(ended.stdout, r"\A\S+\n\Z")
        self.assertRegex(
            ended.stderr,
            rf"\Aghl-oauth: warning: the connection of {company_id} is lost.*login\n\Z",
        )

    def test_failures_are_listed_with_their_reason(self) -> None:
        company_id = self.emulator.company_id
        self.emulator.fault("status", status=503, body="", endpoint="token")
        ended = self.run_cli("refresh", company_id)
        self.assertEqual((ended.returncode, "sent:" in ended.stderr), (4, False), "it answered")
        table = self.ok("list", "--failing")
        self.assertIn("LAST FAILURE", table)
        self.assertIn("503", table)
        self.assertEqual(json.loads(self.ok("list", "--state", "inactive", "--json")), [])
        self.assertEqual(json.loads(self.ok("list", "--expires-within", "90m", "--json")), [])
        soon = json.loads(self.ok("list", "--expires-within", "2d", "--json"))
        self.assertEqual([token["resourceId"] for token in soon], [company_id])
        for wrong in ("soon", "12", "-1h", "1y", "99999999d"):
            self.assertEqual(self.run_cli("list", f"--expires-within={wrong}").returncode, 2)
        ended = self.run_cli("status")
        self.assertEqual(ended.returncode, 4, ended.stdout)
        self.assertIn("503", ended.stdout)
        failing = json.loads(self.run_cli("status", "--json").stdout)["failing"]
        self.assertEqual([each["resourceId"] for each in failing], [company_id])
        self.assertEqual(failing[0]["lastFailure"]["attempts"], 1)

    def test_tokens_are_listed_as_a_table_and_as_json(self) -> None:
        self.ok("token", self.emulator.location_ids[0])
        table = self.ok("list").splitlines()
        self.assertEqual(
            table[0].split(), ["RESOURCE", "TYPE", "COMPANY", "STATE", "EXPIRES", "REFRESHABLE"]
        )
        self.assertEqual(len(table), 3)
        listed = json.loads(self.ok("tokens", "--json", "--type", "Location"))
        self.assertEqual([token["resourceId"] for token in listed], [self.emulator.location_ids[0]])
        self.assertEqual(json.loads(self.ok("--json", "list", "--type", "Location")), listed)

    def test_locations_are_listed(self) -> None:
        table = self.ok("locations", self.emulator.company_id)
        for location_id in self.emulator.location_ids:
            self.assertIn(location_id, table)
        listed = json.loads(self.ok("locations", self.emulator.company_id, "--installed", "--json"))
        self.assertEqual({location["_id"] for location in listed}, set(self.emulator.location_ids))

    def test_control_characters_in_a_name_are_not_printed(self) -> None:
        from ghl_oauth.cli.output import plain

        self.assertEqual(plain("a\x1b[2Jb\nc"), "a\ufffd[2Jb\ufffdc")

    def test_locations_are_minted_and_failures_are_named(self) -> None:
        paused = self.emulator.location_ids[0]
        self.emulator.control("POST", f"/locations/{paused}", {"active": False})
        ended = self.run_cli("mint", self.emulator.company_id)
        self.assertIn("2 minted, 0 not due, 0 failed, 1 paused", ended.stdout)
        self.assertIn(paused, ended.stdout)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        ended = self.run_cli("mint", self.emulator.company_id, paused)
        self.assertIn("0 minted, 0 not due, 1 failed", ended.stdout)
        self.assertIn(paused, ended.stderr)
        self.assertEqual(ended.returncode, 4)
        again = self.run_cli(
            "mint", self.emulator.company_id, self.emulator.location_ids[1], "--json"
        )
        self.assertEqual((again.returncode, json.loads(again.stdout)["fresh"]), (0, 1))

    def test_progress_bar_is_shown_only_on_a_terminal(self) -> None:
        try:
            import pty
        except ImportError:
            raise unittest.SkipTest("no terminals here") from None
        terminal, side = pty.openpty()
        self.addCleanup(os.close, terminal)
        ended = subprocess.run(
            self.command("mint", self.emulator.company_id),
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=side,
            timeout=60,
            check=False,
        )
        os.close(side)
        self.assertEqual(ended.returncode, 0)
        shown = os.read(terminal, 10_000).decode()
        self.assertIn(f"[{'#' * 30}] 3/3", shown)

    def test_refresh_renews_at_once(self) -> None:
        self.assertIn(self.emulator.company_id, self.ok("refresh", self.emulator.company_id))
        self.assertEqual(self.emulator.refreshes(), 1)

    def test_maintain_renews_due_tokens(self) -> None:
        idle = self.ok("maintain", "--concurrency", "4")
        self.assertIn("0 due", idle)
        self.assertNotIn("sealed", idle)
        self.assertEqual(self.run_cli("maintain", "--concurrency", "65").returncode, 2)
        self.emulator.control("POST", "/tokens/revoke", {"resourceId": self.emulator.company_id})
        exported = json.loads(self.run_cli("export", "--output", "-").stdout)
        exported["tokens"][0]["expiresAt"] = 1
        self.ok("import", "-", "--replace", stdin=json.dumps(exported))
        ended = self.run_cli("maintain", "--json")
        self.assertEqual(ended.returncode, 3)
        self.assertEqual(
            json.loads(ended.stdout)["failed"][0]["resourceId"], self.emulator.company_id
        )

    def test_paused_location_is_mentioned_and_is_no_failure_of_maintenance(self) -> None:
        paused = self.emulator.location_ids[0]
        self.ok("token", paused)
        self.emulator.control("POST", f"/locations/{paused}", {"active": False})
        exported = json.loads(self.run_cli("export", "--output", "-").stdout)
        for token in exported["tokens"]:
            token["expiresAt"] = 1
        self.ok("import", "-", "--replace", stdin=json.dumps(exported))
        ended = self.run_cli("maintain")
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        self.assertIn("2 due: 1 refreshed, 0 failed, 1 paused; next due", ended.stdout)
        self.assertIn(paused, ended.stdout)
        self.assertIn("states       1 ok, 1 paused\n", self.ok("status"))
        found = json.loads(self.ok("status", "--json"))
        self.assertEqual((found["failing"], found["tokens"]["failing"]), ([], 0))
        self.assertEqual(found["tokens"]["inactive"], 1)
        self.assertIn("reason       Location is not active", self.ok("status", paused))
        self.assertEqual(self.run_cli("refresh", paused).returncode, 4)

    def test_maintain_reports_resealed_tokens(self) -> None:
        old, new = "A" * 43 + "=", "B" * 42 + "A="

        def maintain(*keys: str) -> str:
            self.configure(store={"kind": "sqlite", "path": "tokens.db", "encryptionKeys": keys})
            return self.run_cli("maintain").stdout

        self.assertIn("; 1 resealed, 0 not resealed; next due ", maintain(old))
        self.configure(store={"kind": "sqlite", "path": "tokens.db", "encryptionKeys": [new, old]})
        self.ok("token", self.emulator.location_ids[0])
        self.assertIn("; 0 resealed, 1 not resealed; next due ", maintain(new))
        self.assertIn("; 1 resealed, 0 not resealed; next due ", maintain(new, old))

    def test_delete_asks_for_confirmation(self) -> None:
        refused = self.run_cli("delete", self.emulator.company_id, stdin="y\n")
        self.assertEqual(
            (refused.returncode, refused.stdout), (2, ""), "nobody at a terminal was asked"
        )
        self.assertIn("--yes", refused.stderr)
        self.ok("token", self.emulator.company_id)
        self.ok("delete", "--yes", self.emulator.company_id)
        gone = self.run_cli("token", self.emulator.company_id)
        self.assertEqual((gone.returncode, gone.stdout), (3, ""))

    def test_export_file_is_private_and_can_be_imported(self) -> None:
        file = self.folder / "export.json"
        ended = self.run_cli("export", "--output", str(file))
        self.assertEqual((ended.returncode, ended.stdout), (0, ""))
        if os.name == "posix":
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        token = self.ok("token", self.emulator.company_id)
        self.assertIn(token.strip(), file.read_text())
        again = self.run_cli("export", "--output", str(file))
        self.assertEqual(again.returncode, 1, "a file was overwritten")
        self.ok("delete", "--yes", self.emulator.company_id)
        self.assertIn("1 imported", self.ok("import", str(file)))
        self.assertEqual(self.ok("token", self.emulator.company_id), token)

    def test_import_that_skips_every_token_fails_with_the_reason(self) -> None:
        exported = self.run_cli("export", "--output", "-").stdout
        ended = self.run_cli("import", "-", stdin=exported)
        self.assertEqual((ended.returncode, ended.stdout), (1, "0 imported, 1 skipped\n"))
        self.assertRegex(
            ended.stderr, rf"(?m)^  skipped {self.emulator.company_id}: .*held already"
        )
        self.assertIn("no token was imported", ended.stderr)
        ended = self.run_cli("import", "-", "--json", stdin=exported)
        self.assertEqual((ended.returncode, json.loads(ended.stdout)["imported"]), (1, 0))
        self.assertIn("no token was imported", json.loads(ended.stderr)["error"]["message"])
        document = json.loads(exported)
        document["tokens"].append(
            {"accessToken": "a", "companyId": "c9", "expiresAt": 4_000_000_000_000}
        )
        ended = self.run_cli("import", "-", stdin=json.dumps(document))
        self.assertEqual((ended.returncode, ended.stdout), (0, "1 imported, 1 skipped\n"))
        self.ok("import", "-", stdin='{"tokens": []}')

    def test_list_and_export_report_an_unreadable_token_and_continue(self) -> None:
        location_id = self.emulator.location_ids[0]
        token = self.ok("token", location_id).strip()
        damage(self.folder / "tokens.db", self.emulator.company_id)
        ended = self.run_cli("list")
        self.assertEqual((ended.returncode, len(ended.stdout.splitlines())), (6, 2))
        self.assertIn(location_id, ended.stdout)
        self.assertIn(f"  resource: {self.emulator.company_id}\n", ended.stderr)
        ended = self.run_cli("list", "--json")
        self.assertEqual(
            (ended.returncode, [each["resourceId"] for each in json.loads(ended.stdout)]),
            (6, [location_id]),
        )
        self.assertEqual(json.loads(ended.stderr)["error"]["resourceId"], self.emulator.company_id)
        file = self.folder / "export.json"
        ended = self.run_cli("export", "--output", str(file))
        self.assertEqual(ended.returncode, 6)
        self.assertIn(f"  resource: {self.emulator.company_id}\n", ended.stderr)
        self.assertEqual(
            [each["accessToken"] for each in json.loads(file.read_text())["tokens"]], [token]
        )
        ended = self.run_cli("export", "--output", "-")
        self.assertEqual(
            (ended.returncode, json.loads(ended.stdout)), (6, json.loads(file.read_text()))
        )
        self.assertIn("unreadable", self.ok("delete", "--yes", self.emulator.company_id))
        self.ok("list")
        ended = self.run_cli("delete", "--yes", self.emulator.company_id)
        self.assertEqual((ended.returncode, ended.stdout), (3, ""))
        self.assertIn(
            f"no token is stored for {self.emulator.company_id}; nothing was deleted", ended.stderr
        )
        self.assertEqual(self.run_cli("list", "--type", "Company").stderr, "no token matches\n")

    def test_invalid_import_is_refused_without_quoting_it(self) -> None:
        bad = self.folder / "bad.json"
        for text in ('{"accessToken": "the-secret', '["the-secret"]', '"the-secret"'):
            bad.write_text(text)
            ended = self.run_cli("import", str(bad))
            self.assertEqual((ended.returncode, ended.stdout), (1, ""))
            self.assertIn(str(bad), ended.stderr)
            self.assertNotIn("the-secret", ended.stderr)
        self.assertEqual(self.run_cli("import", "/nowhere").returncode, 1)

    def test_ctrl_c_ends_a_long_call(self) -> None:
        self.emulator.fault("stall", endpoint="installed-locations")
        process = subprocess.Popen(
            self.command("locations", self.emulator.company_id),
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        while not self.emulator.requests("/oauth/installed-locations"):
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=25)
        self.assertEqual((process.returncode, output, errors), (130, b"", b""))

    def test_closed_output_pipe_causes_no_traceback(self) -> None:
        process = subprocess.Popen(
            self.command("list"), env=self.variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout and process.stderr
        process.stdout.close()
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()
        self.assertEqual(process.wait(timeout=60), 1)


class StatusCommandTest(CliTest):
    def test_status_sums_up_the_tokens(self) -> None:
        self.login()
        self.ok("token", self.emulator.location_ids[0])
        found = json.loads(self.ok("status", "--json"))
        self.assertEqual(
            found["tokens"],
            {
                "total": 2,
                "company": 1,
                "location": 1,
                "ok": 2,
                "inactive": 0,
                "reauthorizationRequired": 0,
                "unsaved": 0,
                "expired": 0,
                "failing": 0,
                "unreadable": 0,
            },
        )
        self.assertEqual(found["store"], {"kind": "sqlite", "path": str(self.folder / "tokens.db")})
        self.assertGreater(found["nextExpiry"]["at"], found["at"])
        self.assertEqual((found["failing"], found["unreadable"]), ([], []))
        text = self.ok("status")
        self.assertIn("2: 1 of companies, 1 of locations", text)
        self.assertIn("next expiry", text)

    def test_status_names_lost_and_unreadable_tokens_in_text_and_exit_status(self) -> None:
        self.login()
        company_id = self.emulator.company_id
        self.emulator.control("POST", "/tokens/revoke", {"resourceId": company_id})
        self.assertEqual(self.run_cli("refresh", company_id).returncode, 3)
        ended = self.run_cli("status", "--json")
        (failing,) = json.loads(ended.stdout)["failing"]
        self.assertEqual(
            (ended.returncode, failing["resourceId"], failing["state"]),
            (3, company_id, "reauthorizationRequired"),
        )
        self.assertIn("states       0 ok, 1 need consent\n", self.run_cli("status").stdout)
        damage(self.folder / "tokens.db", company_id)
        ended = self.run_cli("status")
        self.assertEqual(ended.returncode, 6)
        self.assertIn(f"cannot be read: {company_id}", ended.stdout)

    def test_status_of_one_connection_shows_its_failure(self) -> None:
        self.login()
        company_id = self.emulator.company_id
        self.assertIn("last success", self.ok("status", company_id))
        self.emulator.fault("status", status=503, body="", endpoint="token")
        self.assertEqual(self.run_cli("refresh", company_id).returncode, 4)
        self.assertIn("states       1 ok (1 failing)\n", self.run_cli("status").stdout)
        ended = self.run_cli("status", company_id)
        self.assertEqual(ended.returncode, 4)
        for words in ("state        ok", "reason       the API answered 503", "next attempt 2",
                      "failed       1 since 2"):  # fmt: skip
            self.assertIn(words, ended.stdout)
        found = json.loads(self.run_cli("status", company_id, "--json").stdout)
        self.assertEqual((found["resourceId"], found["lastFailure"]["attempts"]), (company_id, 1))
        ended = self.run_cli("status", "nobody")
        self.assertEqual((ended.returncode, ended.stdout), (3, ""))
        self.assertIn("no token is stored for nobody", ended.stderr)

    @unittest.skipUnless(os.name == "posix", "modes are POSIX")
    def test_metrics_file_can_be_read_by_the_collector_despite_the_umask(self) -> None:
        file = self.folder / "ghl.prom"
        line = " ".join(["umask 077;", *self.command("metrics", "--output", str(file))])
        subprocess.run(["sh", "-c", line], env=self.variables, timeout=60, check=True)
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o644)

    def test_metrics_of_a_store_that_cannot_be_opened_say_so(self) -> None:
        file = self.folder / "ghl.prom"
        self.ok("metrics", "--output", str(file))
        self.assertIn("\nghl_oauth_store_up 1\n", file.read_text())
        (self.folder / "tokens.db").write_bytes(b"no database " * 1000)
        for arguments in (("metrics", "--output", str(file)), ("metrics",)):
            ended = self.run_cli(*arguments)
            self.assertNotEqual(ended.returncode, 0)
            self.assertIn("tokens.db", ended.stderr)
            text = ended.stdout or file.read_text()
            self.assertRegex(
                text, r"^# HELP ghl_oauth_store_up .*\n# TYPE .*\nghl_oauth_store_up 0\n# HELP"
            )

    def test_closed_stdin_is_an_error(self) -> None:
        for arguments in (("import", "-"), ("login", "--paste"), ("delete", "c1")):
            line = " ".join([*self.command(*arguments), "<&-"])
            ended = subprocess.run(
                ["sh", "-c", line],
                env=self.variables,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            self.assertEqual(ended.returncode, 2, ended.stderr)
            self.assertIn("stdin", ended.stderr)
            self.assertNotIn("Traceback", ended.stderr)

    def test_import_of_no_tokens_is_an_error(self) -> None:
        for nothing in ("[]", ""):
            ended = self.run_cli("import", "-", stdin=nothing)
            self.assertEqual((ended.returncode, ended.stdout), (1, ""))
            self.assertIn("no tokens", ended.stderr)

    def test_absurd_and_endless_lives_are_shown_and_are_not_the_next_expiry(self) -> None:
        tokens = [
            {"accessToken": "a", "companyId": "c1", "expiresAt": 9_223_372_036_854_775_000},
            {"accessToken": "pit-a", "locationId": "l1", "userType": "Location"},
        ]
        self.run_cli("import", "-", stdin=json.dumps(tokens))
        found = json.loads(self.ok("status", "--json"))
        self.assertIsNone(found["nextExpiry"])
        self.ok("status")
        self.ok("list")
        self.assertNotIn("Traceback", self.run_cli("doctor").stderr)
        from ghl_oauth.cli import output

        for milliseconds in (10**18, -(10**18), 10**30):
            self.assertTrue(output.moment(output.instant(milliseconds), output.instant(0)))

    def test_documentation_describes_every_key_of_the_summary(self) -> None:
        page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
        found = json.loads(self.ok("status", "--json"))
        for key in (*found, *found["tokens"], *found["store"]):
            self.assertTrue(f"`{key}`" in page, key)


class AdoptTest(CliTest):
    OLD_ID = "6600aabbccddeeff00112233-oldkey"

    def setUp(self) -> None:
        super().setUp()
        self.login()
        self.ok("token", self.emulator.location_ids[0])
        # As if the tokens had been granted to another key of the app.
        database = sqlite3.connect(self.folder / "tokens.db")
        with contextlib.closing(database), database:
            database.execute("UPDATE token SET client_id = ?", (self.OLD_ID,))

    def test_doctor_names_the_old_client_id_and_the_command(self) -> None:
        check = self.checks(self.run_cli("doctor", "--json"))["client id"]
        self.assertEqual(check["outcome"], "warning")
        self.assertIn(f"{self.OLD_ID} (2)", check["message"])
        self.assertIn(f"ghl-oauth adopt --from {self.OLD_ID}", check["help"])
        self.ok("adopt", "--from", self.OLD_ID)
        self.assertNotIn("client id", self.checks(self.run_cli("doctor", "--json")))

    def test_tokens_of_the_old_client_id_are_listed_tried_and_adopted(self) -> None:
        self.assertIn(f"{self.OLD_ID}  2", self.ok("adopt"))
        company = self.emulator.company_id
        tried = self.ok("adopt", "--from", self.OLD_ID, "--dry-run")
        self.assertEqual(tried, "2 would be adopted, 0 skipped, 0 unreadable\n")
        self.assertIn(self.OLD_ID, self.run_cli("token", company).stderr)
        one = json.loads(self.ok("adopt", "--from", self.OLD_ID, "--resource", company, "--json"))
        self.assertEqual(
            (one["adopted"], one["clients"]), (1, [{"clientId": self.OLD_ID, "tokens": 1}])
        )
        self.ok("refresh", company)
        self.assertEqual(
            self.ok("adopt", "--from", self.OLD_ID), "1 adopted, 0 skipped, 0 unreadable\n"
        )
        self.assertTrue(self.ok("token", self.emulator.location_ids[0]).strip())

    def test_token_that_is_skipped_is_named_with_the_reason(self) -> None:
        self.login()
        ended = self.run_cli("adopt", "--from", self.OLD_ID)
        self.assertEqual(
            (ended.returncode, ended.stdout), (0, "1 adopted, 1 skipped, 0 unreadable\n")
        )
        self.assertIn(
            f"skipped {self.emulator.company_id}: a token is held under this client id",
            ended.stderr,
        )

    def test_memory_store_has_no_other_client_ids(self) -> None:
        self.configure(store={"kind": "memory"})
        ended = self.run_cli("adopt", "--from", self.OLD_ID)
        self.assertEqual(ended.returncode, 2)
        self.assertIn("ghl_tokens_import", ended.stderr)

    def test_client_adopts_and_reports(self) -> None:
        with self.make_client(store=self.folder / "tokens.db") as client:
            other = ghl_oauth.OtherClient(self.OLD_ID, 2)
            self.assertEqual(client.tokens_adopt().clients, (other,))
            done = client.tokens_adopt(self.OLD_ID)
            self.assertEqual(
                (done.adopted, done.skipped, done.failed, done.clients), (2, (), (), ())
            )


class UnsavedTest(CliTest):
    """Another program locks the database while the response to a refresh is on its way."""

    # A slow machine must stay inside the replay window.
    OPTIONS = ("--locations", "3", "--reuse-window-seconds", "600")

    def setUp(self) -> None:
        super().setUp()
        self.login()
        self.configure(timeouts={"totalMs": 3_000})

    @contextlib.contextmanager
    def refresh_that_is_not_saved(
        self, *arguments: str
    ) -> Generator[tuple[subprocess.Popen[str], sqlite3.Connection], None, None]:
        """A command whose refresh ends while the store is locked, and the locking connection."""
        self.emulator.control("DELETE", "/requests")
        self.emulator.fault("stall", count=1, endpoint="token", stage="beforeProcessing")
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.kill)
        self.emulator.wait_for_stall()
        with contextlib.closing(
            sqlite3.connect(self.folder / "tokens.db", isolation_level=None)
        ) as locking:
            locking.execute("BEGIN IMMEDIATE")
            self.emulator.end_faults()
            yield process, locking

    def test_unsaved_token_is_named_and_the_command_fails(self) -> None:
        with self.refresh_that_is_not_saved("refresh", self.emulator.company_id) as (process, _):
            output, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 5, errors)
        self.assertIn(self.emulator.company_id, output)
        self.assertRegex(
            errors, r"(?m)^ghl-oauth: the new token was not saved.*(locked|write lock)"
        )
        self.assertIn(f"  resource: {self.emulator.company_id}\n", errors)
        self.assertIn("  help: check the store", errors)
        self.assertNotIn("  server:", errors, "the API is not the cause")
        # The next command repeats the request within the API's window, and gets the same answer.
        self.ok("refresh", self.emulator.company_id)

    def test_unsaved_token_is_saved_when_the_store_recovers(self) -> None:
        with self.refresh_that_is_not_saved("refresh", self.emulator.company_id) as (
            process,
            locking,
        ):
            assert process.stderr and process.stdout
            self.assertIn("retrying", process.stderr.readline())
            locking.execute("ROLLBACK")
            output, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, errors), (0, ""))
        self.assertIn(self.emulator.company_id, output)
        refreshes = self.emulator.refreshes()
        self.ok("token", self.emulator.company_id)
        self.assertEqual(self.emulator.refreshes(), refreshes, "the saved token serves")

    def test_maintain_reports_an_unsaved_token_with_its_own_exit_status(self) -> None:
        exported = json.loads(self.run_cli("export", "--output", "-").stdout)
        exported["tokens"][0]["expiresAt"] = 1
        self.ok("import", "-", "--replace", stdin=json.dumps(exported))
        with self.refresh_that_is_not_saved("maintain", "--json") as (process, _):
            output, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 5, errors)
        self.assertEqual(json.loads(output)["checked"], 1)
        error = json.loads(errors.splitlines()[-1])["error"]
        self.assertEqual(
            (error["status"], error["resourceId"]), ("GHL_ERR_TIMEOUT", self.emulator.company_id)
        )
        self.assertIn("not saved", error["message"])


class ErrorTest(CliTest):
    def test_errors_are_printed_as_text_or_json(self) -> None:
        ended = self.run_cli("token", "l1")
        self.assertEqual((ended.returncode, ended.stdout), (3, ""))
        self.assertRegex(
            ended.stderr, r"\Aghl-oauth: .+\n  resource: l1\n  help: .+ghl-oauth login.+\n\Z"
        )
        ended = self.run_cli("token", "l1", "--json")
        error = json.loads(ended.stderr)["error"]
        self.assertEqual((error["status"], error["resourceId"]), ("GHL_ERR_NOT_FOUND", "l1"))

    def test_retryable_failure_has_its_own_exit_status(self) -> None:
        self.login()
        self.emulator.fault("status", status=503, body="", endpoint="installed-locations")
        self.assertEqual(self.run_cli("locations", self.emulator.company_id).returncode, 4)

    def test_wrong_command_line_has_exit_status_2(self) -> None:
        for arguments in ((), ("dance",), ("token",), ("login", "--port", "x"),
                          ("login", "--port", "65536"), ("mint", "c", "--concurrency", "0"),
                          ("export",)):  # fmt: skip
            ended = self.run_cli(*arguments)
            self.assertEqual((ended.returncode, ended.stdout), (2, ""), arguments)
        self.assertIn("exit status", self.ok("--help"))
        self.assertIn(ghl_oauth.library_version(), self.ok("--version"))
        for name in ("login", "token", "list", "locations", "mint", "refresh", "delete", "maintain",
                     "import", "export", "metrics", "doctor"):  # fmt: skip
            self.assertIn("usage:", self.ok(name, "--help"))


class StatusTest(unittest.TestCase):
    def test_partial_failure_exit_status_depends_on_the_required_action(self) -> None:
        from ghl_oauth.cli import status

        consent = ghl_oauth.ReauthorizationRequired({"message": "m"})
        later = ghl_oauth.NetworkError({"message": "m", "retryable": True})
        wrong = ghl_oauth.InvalidArgument({"message": "m"})
        for errors, expected in (
            ([], status.OK),
            ([later, later], status.LATER),
            ([later, wrong], status.ERROR),
            ([wrong], status.ERROR),
            ([wrong, later, consent], status.CONSENT),
        ):
            self.assertEqual(status.of_all(errors), expected)


class DocumentationTest(unittest.TestCase):
    def test_documentation_lists_every_command_and_exit_status(self) -> None:
        from ghl_oauth.cli import program, status

        page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
        page = page[page.index("## Command line") : page.index("### Doctor")]
        documented = re.findall(r"^\| `([a-z]+)[ `]", page, flags=re.MULTILINE)
        documented += re.findall(r"^\| `import FILE` / `(export) ", page, flags=re.MULTILINE)
        usage = program.make_parser().format_help()
        commands = re.findall(r"^    ([a-z]+) (?!FILE)", usage, flags=re.MULTILINE)
        self.assertEqual(sorted(documented), sorted(commands))
        for number in (status.OK, status.ERROR, status.USAGE, status.CONSENT, status.LATER,
                       status.UNSAVED, status.UNREADABLE):  # fmt: skip
            self.assertRegex(page, rf"(?m)^\| {number} \|")
            self.assertRegex(usage, rf"(?m)^  {number}  ")

    def test_man_page_lists_every_command_and_option(self) -> None:
        from ghl_oauth.cli import program

        page = (
            (REPOSITORY / "docs" / "man" / "ghl-oauth.1")
            .read_text(encoding="utf-8")
            .replace("\\-", "-")
        )
        parser = program.make_parser()
        (commands,) = (
            action.choices for action in parser._actions if isinstance(action.choices, dict)
        )
        for name, command in commands.items():
            self.assertRegex(page, rf"(\\fB|\.B ){name}\b")
            for action in command._actions:
                for option in action.option_strings:
                    self.assertRegex(page, rf"(\\fB|\.B ){option}\b", name)


class ConfigurationTest(CliTest):
    def test_relative_paths_start_at_the_configuration_file(self) -> None:
        (self.folder / "secret.txt").write_text(self.document["clientSecret"] + "\n")
        (self.folder / "secret.txt").chmod(0o600)
        self.configure(
            clientSecret=None,
            clientSecretFile="secret.txt",
            store={"kind": "sqlite", "path": "mine.db"},
        )
        self.assertEqual(json.loads(self.ok("list", "--json")), [])
        self.assertTrue((self.folder / "mine.db").exists())
        (self.folder / "keys").write_text("A" * 43 + "=\n")
        self.configure(store={"kind": "sqlite", "path": "mine.db", "encryptionKeysPath": "keys"})
        self.ok("list", "--json")
        (self.folder / "keys").unlink()
        self.assertIn(f"{self.folder.resolve() / 'keys'} cannot be read", self.refused())
        self.configure(
            store={"kind": "postgres", "url": "postgres://localhost/x", "caBundlePath": "roots.pem"}
        )
        read = _configuration.read(str(self.config)).document
        self.assertEqual(read["store"]["caBundlePath"], str(self.folder.resolve() / "roots.pem"))

    def test_configuration_file_is_found_in_the_usual_places(self) -> None:
        home = self.folder / "home"
        usual = home / ".config" / "ghl-oauth" / "config.json"
        usual.parent.mkdir(parents=True)
        usual.write_text(self.config.read_text())
        usual.chmod(0o600)
        del self.variables["GHL_OAUTH_CONFIG"]
        self.variables.pop("XDG_CONFIG_HOME", None)
        self.variables["HOME"] = self.variables["USERPROFILE"] = str(home)
        self.ok("list", "--json")
        self.assertTrue((usual.parent / "tokens.db").exists())
        self.ok("--config", str(self.config), "list", "--json")
        self.assertTrue((self.folder / "tokens.db").exists())

    @unittest.skipUnless(os.name == "posix", "the list of users is POSIX")
    def test_user_without_a_home_folder_is_told_to_name_the_configuration(self) -> None:
        work = self.folder / "work"
        work.mkdir()
        for name in ("HOME", "XDG_CONFIG_HOME", "GHL_OAUTH_CONFIG"):
            self.variables.pop(name, None)
        # A container's user that is not in /etc/passwd.
        code = (
            "import pwd, sys\n"
            "def unknown(number): raise KeyError(number)\n"
            "pwd.getpwuid = unknown\n"
            "from ghl_oauth.cli import main\n"
            "sys.exit(main())"
        )

        def run(*arguments: str) -> Ended:
            return subprocess.run(
                [sys.executable, "-c", code, *arguments],
                env=self.variables,
                cwd=work,
                capture_output=True,
                text=True,
                check=False,
            )

        for command in ("init", "list", "doctor"):
            ended = run(command)
            self.assertEqual(ended.returncode, 2, ended.stderr)
            self.assertIn("no home folder", ended.stdout + ended.stderr)
            self.assertIn("set --config or GHL_OAUTH_CONFIG", ended.stdout + ended.stderr)
        self.configure(store={"kind": "sqlite", "path": "~/tokens.db"})
        ended = run("--config", str(self.config), "list")
        self.assertEqual(ended.returncode, 2, ended.stderr)
        self.assertIn("store.path begins with ~", ended.stderr)
        self.assertEqual(list(work.iterdir()), [])

    def test_path_that_cannot_exist_is_named(self) -> None:
        for name in ("a\0b", "a\ud800b"):
            for changes, parameter in (
                ({"store": {"kind": "sqlite", "path": name}}, "store.path"),
                ({"clientSecretFile": name, "store": None}, "clientSecretFile"),
            ):
                with self.subTest(name=name.encode("unicode-escape"), parameter=parameter):
                    self.configure(**changes)
                    self.assertIn(f"{parameter} is not a path", self.refused())
                    ended = self.run_cli("doctor")
                    self.assertEqual((ended.returncode, ended.stderr), (2, ""))
                    self.assertIn(parameter, ended.stdout)

    def test_repeated_key_is_named(self) -> None:
        text = self.config.read_text()
        for repeated, key in (
            (text[:-1] + ', "clientId": "other"}', "clientId"),
            (text[:-1] + ', "http": {"proxy": null, "proxy": null}}', "proxy"),
        ):
            self.config.write_text(repeated)
            self.assertIn(f'has the key "{key}" twice', self.refused())

    def test_secret_in_the_environment_may_end_with_a_line_break(self) -> None:
        self.variables["GHL_OAUTH_CLIENT_SECRET"] = self.document["clientSecret"] + "\r\n"
        self.configure(clientSecret=None)
        self.login()
        self.ok("refresh", self.emulator.company_id)
        self.variables["GHL_OAUTH_CLIENT_SECRET"] = "\n"
        self.assertIn("the client secret is missing", self.refused())
        self.variables["GHL_OAUTH_CLIENT_SECRET"] = "hunter2\nhunter3"
        words = "it is from the environment variable GHL_OAUTH_CLIENT_SECRET"
        self.assertIn(words, self.refused())
        self.assertNotIn("hunter", self.refused())
        self.assertIn(words, self.run_cli("doctor").stdout)

    def test_environment_provides_the_secret(self) -> None:
        secret = self.document["clientSecret"]
        self.configure(clientSecret="another one")
        self.variables["GHL_OAUTH_CLIENT_SECRET"] = secret
        self.config.chmod(0o600)
        self.login()
        self.ok("refresh", self.emulator.company_id)

    @unittest.skipUnless(os.name == "posix", "modes are POSIX")
    def test_secret_readable_by_others_causes_a_warning(self) -> None:
        self.config.chmod(0o644)
        ended = self.run_cli("list")
        self.assertEqual(ended.returncode, 0)
        self.assertIn("warning: other users can read the secret", ended.stderr)
        self.assertIn("chmod 600", ended.stderr)
        self.variables["GHL_OAUTH_CLIENT_SECRET"] = self.document["clientSecret"]
        self.configure(clientSecret=None)
        self.config.chmod(0o644)
        self.assertEqual(self.run_cli("list", "--json").stderr, "", "there is no secret in it")
        self.configure(
            store={
                "kind": "sqlite",
                "path": "tokens.db",
                "encryptionKeys": ["c2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXMgaGVyZSEhISE="],
            }
        )
        self.config.chmod(0o644)
        self.assertIn("warning: other users can read the secret", self.run_cli("list").stderr)

    @unittest.skipUnless(
        os.name == "posix" and os.geteuid() == 0, "only root gives files to others"
    )
    def test_advice_for_a_readable_secret_keeps_this_user_able_to_read_it(self) -> None:
        self.config.chmod(0o640)
        warning = self.run_cli("list").stderr
        self.assertIn("the group root can read the secret", warning)
        self.assertNotIn("chmod", warning)
        os.chown(self.config, 65534, 0)
        self.config.chmod(0o644)
        self.assertIn(f"chown root {self.config} && chmod 600", self.run_cli("list").stderr)

    def test_unusable_configuration_is_named(self) -> None:
        self.configure(colour="red")
        self.assertIn("colour", self.refused())
        self.configure(colour=None, clientSecret=None)
        self.assertIn("GHL_OAUTH_CLIENT_SECRET", self.refused())
        self.configure(clientSecretFile="nowhere.txt")
        self.assertIn("nowhere.txt", self.refused())
        self.config.write_text('{"clientSecret": "the-secret"')
        self.assertNotIn("the-secret", self.refused())
        self.config.write_text("[]")
        self.assertIn("not a JSON object", self.refused())
        self.configure(clientSecretFile="a\0b")
        self.assertIn("clientSecretFile is not a path", self.refused())
        for text in ('{"clientId": NaN}', "[" * 100_000):
            self.config.write_text(text)
            self.assertIn("is not JSON", self.refused())
        self.config.unlink()
        self.assertIn("GHL_OAUTH_CONFIG", self.refused())

    def refused(self) -> str:
        ended = self.run_cli("list")
        self.assertEqual((ended.returncode, ended.stdout), (2, ""))
        return ended.stderr
