"""The command line in a shell: streams, colours, completion, first steps, typing errors."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import stat
import subprocess
import sys
import time
import unittest
from collections.abc import Sequence
from pathlib import Path

import ghl_oauth

from .support import free_port
from .test_cli import CliTest

NEEDS_TERMINAL = unittest.skipIf(sys.platform == "win32", "no terminals here")


def open_terminal() -> tuple[int, int]:
    """The two sides of a new terminal."""
    import pty

    return pty.openpty()


class TerminalCase(CliTest):
    def on_terminal(
        self, *arguments: str, answers: Sequence[tuple[str, str]] = (), plain: bool = False
    ) -> tuple[int, str]:
        """Runs a command on a terminal. Returns its exit status and what is shown.

        Args:
            arguments: The command.
            answers: What is typed, each after the text before it has appeared.
            plain: Whether colours are unwanted.
        """
        variables = {**self.variables, "TERM": "xterm", "COLUMNS": "100"}
        variables.pop("NO_COLOR", None)
        if plain:
            variables["NO_COLOR"] = "1"
        terminal, side = open_terminal()
        self.addCleanup(os.close, terminal)
        process = subprocess.Popen(
            self.command(*arguments), env=variables, stdin=side, stdout=side, stderr=side
        )
        self.addCleanup(process.kill)
        os.close(side)
        left = list(answers)
        shown, seen = "", 0
        while select.select([terminal], [], [], 60)[0]:
            try:
                part = os.read(terminal, 65_536)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            shown += part.decode("utf-8", "replace")
            if left and left[0][0] in shown[seen:]:
                seen = len(shown)
                os.write(terminal, left.pop(0)[1].encode())
        self.assertEqual(left, [], shown)
        return process.wait(timeout=60), shown


class StreamTest(CliTest):
    def test_text_that_the_encoding_lacks_is_escaped(self) -> None:
        self.variables["PYTHONIOENCODING"] = "ascii"
        self.variables["PYTHONUTF8"] = "0"
        self.assertIn(
            "->", self.run_cli("doctor", "--config", str(self.odd_configuration())).stdout
        )
        ended = self.run_cli("token", "größe")
        self.assertEqual(ended.returncode, 3)
        self.assertIn("  resource: gr\\xf6\\xdfe\n", ended.stderr)
        ended = self.run_cli("token", "größe", "--json")
        self.assertEqual(json.loads(ended.stderr)["error"]["resourceId"], "größe")

    def odd_configuration(self) -> Path:
        """A configuration that is readable by others, so that the doctor has advice."""
        odd = self.folder / "odd.json"
        odd.write_text(json.dumps({**self.document, "webhook": {"ed25519PublicKeys": []}}))
        return odd

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full here")
    def test_full_stdout_is_an_error_without_a_traceback(self) -> None:
        self.login()
        for arguments in (
            ("token", self.emulator.company_id),
            ("list",),
            ("list", "--json"),
            ("export", "--output", "-"),
            ("doctor",),
            ("status",),
            ("metrics",),
            ("completion", "bash"),
            ("--help",),
            ("--version",),
        ):
            with open("/dev/full", "wb") as full:
                ended = subprocess.run(
                    self.command(*arguments),
                    env=self.variables,
                    stdout=full,
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=60,
                    check=False,
                )
            self.assertEqual(ended.returncode, 1, arguments)
            self.assertIn("stdout cannot be written: No space left on device", ended.stderr)
            self.assertNotIn("Traceback", ended.stderr)
            self.assertNotIn("Exception ignored", ended.stderr)

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full here")
    def test_full_stderr_does_not_disturb_the_result(self) -> None:
        self.login()
        with open("/dev/full", "wb") as full:
            for arguments, status in ((("token", self.emulator.company_id), 0),
                                      (("token", "nobody"), 1)):  # fmt: skip
                ended = subprocess.run(
                    self.command(*arguments),
                    env=self.variables,
                    stdout=subprocess.PIPE,
                    stderr=full,
                    timeout=60,
                    check=False,
                )
                self.assertEqual(ended.returncode, status)

    @unittest.skipUnless(os.name == "posix", "descriptors are POSIX")
    def test_closed_stdout_is_an_error_and_no_file_takes_its_place(self) -> None:
        self.login()
        line = " ".join([*self.command("token", self.emulator.company_id), ">&-"])
        ended = subprocess.run(
            ["sh", "-c", line],
            env=self.variables,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((ended.returncode, "stdout" in ended.stderr), (1, True), ended.stderr)
        self.ok("list")

    def test_closed_pipe_ends_every_command_silently(self) -> None:
        self.login()
        for arguments in (("list",), ("doctor",), ("export", "--output", "-"), ("--help",)):
            process = subprocess.Popen(
                self.command(*arguments),
                env=self.variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout and process.stderr
            process.stdout.close()
            errors = process.stderr.read()
            process.stderr.close()
            self.assertEqual(process.wait(timeout=60), 1, arguments)
            self.assertNotIn("Traceback", errors)
            self.assertNotIn("Exception ignored", errors)


@NEEDS_TERMINAL
class ColourTest(TerminalCase):
    def test_colours_are_used_on_a_terminal_unless_the_user_objects(self) -> None:
        self.login()
        for arguments in (("list",), ("doctor",), ("token", "nobody")):
            self.assertIn("\x1b[", self.on_terminal(*arguments)[1], arguments)
            self.assertNotIn("\x1b[", self.on_terminal(*arguments, plain=True)[1], arguments)
            ended = self.run_cli(*arguments)
            self.assertNotIn("\x1b[", ended.stdout + ended.stderr)

    def test_doctor_says_what_it_waits_for(self) -> None:
        self.emulator.fault("stall")
        _, shown = self.on_terminal("doctor")
        self.assertIn("\rwaiting for an answer from 127.0.0.1:", shown)

    def test_maintain_and_mint_show_a_bar(self) -> None:
        self.login()
        status, shown = self.on_terminal("mint", self.emulator.company_id)
        self.assertEqual((status, f"[{'#' * 30}] 3/3" in shown), (0, True), shown)
        exported = json.loads(self.run_cli("export", "--output", "-").stdout)
        for token in exported["tokens"]:
            token["expiresAt"] = 1
        self.ok("import", "-", "--replace", stdin=json.dumps(exported))
        status, shown = self.on_terminal("maintain")
        self.assertEqual((status, "4 due  4 refreshed" in shown), (0, True), shown)


class MistakeTest(CliTest):
    def test_mistyped_commands_and_options_get_a_suggestion(self) -> None:
        for arguments, meant in (
            (("tokne", "l1"), "token"),
            (("refesh", "l1"), "refresh"),
            (("--config", "x.json", "maintian"), "maintain"),
            (("list", "--jsno"), "--json"),
            (("login", "--past"), None),  # an unambiguous beginning
            (("mint", "c1", "--concurency", "3"), "--concurrency"),
            (("mint", "c1", "--concurency=3"), "--concurrency"),
        ):
            if meant is None:
                continue
            ended = self.run_cli(*arguments)
            self.assertEqual((ended.returncode, ended.stdout), (2, ""), arguments)
            self.assertRegex(ended.stderr, rf"did you mean .*{meant}\b.*\?")
        self.assertIn("unknown command 'zzz'\n", self.run_cli("zzz").stderr)
        self.assertIn("unknown argument 'b'", self.run_cli("refresh", "a", "b").stderr)

    def test_errors_and_warnings_are_json_if_asked_for(self) -> None:
        for arguments, words in (
            (("tokne", "l1", "--json"), "unknown command 'tokne'; did you mean token or tokens?"),
            (("--json", "list", "--stat", "x"), "argument --state: invalid choice"),
            (("mint", "--js"), "the following arguments are required: COMPANY"),
            (("refresh", "a", "b", "--json"), "unknown argument 'b'"),
            (("--json",), "the following arguments are required: COMMAND"),
        ):
            with self.subTest(arguments):
                ended = self.run_cli(*arguments)
                self.assertEqual((ended.returncode, ended.stdout), (2, ""))
                error = json.loads(ended.stderr)["error"]
                self.assertIn(words, error["message"])
                self.assertIn("--help", error["help"])
        self.assertIn("usage: ", self.run_cli("mint").stderr)
        self.assertIn(
            "  help: ghl-oauth list --help\n", self.run_cli("list", "--", "--json").stderr
        )
        if os.name == "posix":
            self.config.chmod(0o644)
            ended = self.run_cli("list", "--json")
            warning = json.loads(ended.stderr)["warning"]
            self.assertIn("other users can read the secret", warning["message"])

    def test_every_help_has_an_example_that_is_a_valid_command_line(self) -> None:
        import shlex

        from ghl_oauth.cli import program
        from ghl_oauth.cli.commands import COMMANDS

        for command in COMMANDS:
            examples = command.load().EXAMPLES
            self.assertTrue(examples, command.name)
            parsed = 0
            for example in examples:
                line = re.sub(r"  # .*", "", example)
                found = re.search(r"(?:^|[ (])ghl-oauth ([^|>)]*)", line.replace("\\\n", " "))
                assert found, example
                options = program._parse(shlex.split(found.group(1)))
                parsed += options.command == command.load().run
            self.assertGreater(parsed, 0, command.name)

    def test_network_errors_name_host_and_port(self) -> None:
        self.login()
        port = free_port()
        self.configure(baseUrl=f"http://127.0.0.1:{port}")
        ended = self.run_cli("refresh", self.emulator.company_id)
        self.assertEqual(ended.returncode, 4)
        self.assertIn(f"  server: 127.0.0.1:{port}\n", ended.stderr)
        self.configure(http={"proxy": f"http://user:the-password@127.0.0.1:{port}"},
                       baseUrl="https://api.example")  # fmt: skip
        ended = self.run_cli("refresh", self.emulator.company_id, "--json")
        self.assertEqual(
            json.loads(ended.stderr)["error"]["server"],
            f"api.example:443 through the proxy 127.0.0.1:{port}",
        )


class LogTest(CliTest):
    def test_log_is_lines_of_json_on_request(self) -> None:
        self.login()
        ended = self.run_cli("-v", "--log-format", "json", "refresh", self.emulator.company_id)
        self.assertEqual(ended.returncode, 0)
        lines = [json.loads(line) for line in ended.stderr.splitlines()]
        self.assertTrue(lines)
        for line in lines:
            self.assertLessEqual({"time", "level", "logger", "message"}, set(line))
            self.assertRegex(line["time"], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
        self.assertEqual({line["logger"] for line in lines}, {"ghl_oauth"})

    def test_text_log_cannot_control_the_terminal(self) -> None:
        import logging

        from ghl_oauth.cli.logs import TextLines

        record = logging.LogRecord(
            "ghl_oauth", logging.INFO, "", 0, "a\x1b[2Jb\x9bc\u202ed\ne", (), None
        )
        self.assertTrue(TextLines().format(record).endswith("a\ufffd[2Jb\ufffdc\ufffdd\ufffde"))

    def test_fields_of_a_record_are_keys_of_its_line(self) -> None:
        import logging

        from ghl_oauth.cli.logs import JsonLines

        record = logging.LogRecord(
            "ghl_oauth",
            logging.WARNING,
            "",
            0,
            'it failed resource_id=l1 reason="too late"',
            (),
            None,
        )
        record.ghl = {"resource_id": "l1", "reason": "too late"}
        line = json.loads(JsonLines().format(record))
        del line["time"]
        self.assertEqual(
            line,
            {
                "level": "warning",
                "logger": "ghl_oauth",
                "message": "it failed",
                "resource_id": "l1",
                "reason": "too late",
            },
        )


class InitTest(TerminalCase):
    def setUp(self) -> None:
        super().setUp()
        self.new = self.folder / "new" / "ghl.json"

    def test_init_writes_a_private_configuration_that_works_once_filled_in(self) -> None:
        app = self.emulator.configuration
        ended = self.run_cli(
            "--config", str(self.new), "init", "--client-id", app["clientId"],
            "--redirect-uri", app["redirectUri"],
        )  # fmt: skip
        self.assertEqual((ended.returncode, str(self.new) in ended.stdout), (0, True))
        secret = self.new.parent / "client-secret.txt"
        self.assertIn(f"put the client secret into {secret}", ended.stderr)
        for file in (self.new, secret):
            if os.name == "posix":
                self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        text = self.new.read_text()
        self.assertRegex(text, r"(?m)^  // ")
        self.variables["GHL_OAUTH_CONFIG"] = str(self.new)
        empty = self.run_cli("list")
        self.assertEqual(empty.returncode, 2)
        self.assertIn(str(secret), empty.stderr)
        secret.write_text(self.emulator.client_secret + "\n")
        self.new.write_text(text.replace("{\n", f'{{\n"baseUrl": "{app["baseUrl"]}",\n', 1))
        self.assertEqual(self.run_cli("doctor").returncode, 3, "only the consent is missing")
        self.new.write_text(text.replace('"scopes"', '"scopes'))
        line = next(n for n, each in enumerate(text.split("\n"), 1) if '"scopes"' in each)
        self.assertIn(f"line {line}, ", self.run_cli("list").stderr)

    def test_init_with_json_writes_a_file_that_every_program_can_read(self) -> None:
        ended = self.run_cli("--config", str(self.new), "init", "--json", "--client-id", "id-1")
        self.assertEqual(json.loads(ended.stdout)["configuration"], str(self.new))
        written = json.loads(self.new.read_text())
        self.assertEqual(written["clientId"], "id-1")
        # `ghl_client_new` reads them from any working directory.
        for path, name in (
            (written["clientSecretFile"], "client-secret.txt"),
            (written["store"]["path"], "tokens.db"),
        ):
            self.assertEqual(path, str(self.new.parent / name))
        self.assertIn(f"ghl-oauth --config {self.new} doctor", ended.stderr)

    def test_init_never_overwrites_a_file(self) -> None:
        self.new.parent.mkdir()
        secret = self.new.parent / "client-secret.txt"
        secret.write_text("mine")
        self.ok_with_notes("--config", str(self.new), "init")
        self.assertEqual(secret.read_text(), "mine")
        before = self.new.read_text()
        ended = self.run_cli("--config", str(self.new), "init", "--client-id", "other")
        self.assertEqual((ended.returncode, self.new.read_text()), (1, before))
        self.assertIn("exists already", ended.stderr)

    @unittest.skipUnless(sys.platform == "linux" and os.geteuid() == 0, "needs a mount as root")
    def test_init_on_a_full_disk_leaves_no_partial_file(self) -> None:
        self.new.parent.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(self.new.parent)],
            capture_output=True,
            check=False,
        )
        if mounted.returncode:
            self.skipTest("nothing can be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.new.parent)], check=True)
        (self.new.parent / "other").write_bytes(bytes(8192))
        ended = self.run_cli("--config", str(self.new), "init")
        self.assertEqual((ended.returncode, self.new.exists()), (1, False))
        self.assertIn(f"{self.new} cannot be created: No space left", ended.stderr)
        (self.new.parent / "other").unlink()
        self.ok_with_notes("--config", str(self.new), "init")

    def test_placeholder_is_refused(self) -> None:
        self.ok_with_notes("--config", str(self.new), "init")
        ended = self.run_cli("--config", str(self.new), "list")
        self.assertEqual(ended.returncode, 2)
        self.assertIn("placeholder", ended.stderr)

    def ok_with_notes(self, *arguments: str) -> None:
        ended = self.run_cli(*arguments)
        self.assertEqual(ended.returncode, 0, ended.stderr)

    @NEEDS_TERMINAL
    def test_init_asks_on_a_terminal_and_does_not_show_the_secret(self) -> None:
        status, shown = self.on_terminal(
            "--config", str(self.new), "init",
            answers=[("Client ID", "my-client-id\n"),
                     ("Redirect URI", "https://my.example/callback\n"),
                     ("Scopes", "\n"),
                     ("Client secret", "the-typed-secret\n")],
        )  # fmt: skip
        self.assertEqual(status, 0, shown)
        from ghl_oauth._configuration import read

        document = read(str(self.new)).document
        self.assertEqual(
            (document["clientId"], document["redirectUri"], document["clientSecret"]),
            ("my-client-id", "https://my.example/callback", "the-typed-secret"),
        )
        self.assertEqual(
            document["scopes"], ["oauth.readonly", "oauth.write", "locations.readonly"]
        )
        self.assertNotIn("put the client secret", shown)
        self.assertNotIn("the-typed-secret", shown)


class SecondLoginTest(CliTest):
    def setUp(self) -> None:
        super().setUp()
        self.variables["XDG_STATE_HOME"] = str(self.folder / "state")

    def link(self) -> str:
        """The link of a run that ends before the consent."""
        ended = self.run_cli("login", "--paste")
        self.assertEqual(ended.returncode, 1)
        found = re.search(r"http\S+", ended.stderr)
        assert found
        return found.group()

    def test_second_run_completes_the_link_of_the_first_once(self) -> None:
        redirect_url = self.emulator.consent(self.link(), companyId=self.emulator.company_id)
        if os.name == "posix":
            file = self.folder / "state" / "ghl-oauth" / "logins.json"
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        ended = self.run_cli("login", "--paste", stdin=redirect_url + "\n")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn(self.emulator.company_id, ended.stdout)
        again = self.run_cli("login", "--paste", stdin=redirect_url + "\n")
        self.assertEqual((again.returncode, again.stdout), (1, ""))
        self.assertIn("an earlier run works for one hour, once", again.stderr)

    def test_link_of_another_client_id_or_of_yesterday_is_refused(self) -> None:
        redirect_url = self.emulator.consent(self.link(), companyId=self.emulator.company_id)
        file = self.folder / "state" / "ghl-oauth" / "logins.json"
        entries = json.loads(file.read_text())
        for changes in ({"clientId": "another"}, {"at": time.time() - 4_000}):
            file.write_text(json.dumps([{**entry, **changes} for entry in entries]))
            ended = self.run_cli("login", "--paste", stdin=redirect_url + "\n")
            self.assertEqual((ended.returncode, ended.stdout), (1, ""))
            self.assertIn("for the same user on the same computer", ended.stderr)

    def test_state_folder_that_cannot_be_written_disturbs_nothing(self) -> None:
        (self.folder / "file").write_text("")
        self.variables["XDG_STATE_HOME"] = str(self.folder / "file")
        self.link()


class CompletionTest(CliTest):
    def script(self, shell: str) -> Path:
        file = self.folder / ("_ghl-oauth" if shell == "zsh" else f"ghl-oauth.{shell}")
        file.write_text(self.ok("completion", shell))
        return file

    def shell(self, name: str) -> str:
        found = shutil.which(name)
        if not found:
            self.skipTest(f"{name} is not installed: apt-get install {name}")
        return found

    def test_bash_completes_commands_options_choices_and_files(self) -> None:
        bash = self.shell("bash")
        script = self.script("bash")
        (self.folder / "my tokens.json").write_text("")

        def complete(*words: str) -> set[str]:
            code = (
                f'source "{script}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ghl_oauth; '
                'printf "%s\\n" "${COMPREPLY[@]}"'
            )
            ended = subprocess.run(
                [bash, "--norc", "-c", code, "bash", "ghl-oauth", *words],
                capture_output=True,
                text=True,
                cwd=self.folder,
                timeout=60,
                check=True,
            )
            self.assertEqual(ended.stderr, "")
            return set(ended.stdout.splitlines()) - {""}

        self.assertEqual(complete("lo"), {"login", "locations"})
        self.assertEqual(complete("--config", "x", "doc"), {"doctor"})
        self.assertEqual(complete("--json", "list", "--ty"), {"--type"})
        self.assertEqual(complete("list", "--type", ""), {"Company", "Location"})
        self.assertEqual(complete("completion", "z"), {"zsh"})
        self.assertEqual(complete("import", "my"), {"my tokens.json"})
        self.assertEqual(complete("--config", "my"), {"my tokens.json"})
        self.assertEqual(complete("import", "--re"), {"--replace"})
        self.assertEqual(complete("--log-format", "=", "j"), {"json"})

    def test_fish_completes_commands_options_choices_and_files(self) -> None:
        fish = self.shell("fish")
        script = self.script("fish")
        (self.folder / "tokens.json").write_text("")

        def complete(line: str) -> set[str]:
            ended = subprocess.run(
                [fish, "--no-config", "-c", f"source {script}; complete -C '{line}'"],
                capture_output=True,
                text=True,
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder), "TERM": "dumb"},
                timeout=60,
                check=True,
            )
            self.assertEqual(ended.stderr, "")
            return {each.split("\t")[0] for each in ended.stdout.splitlines()}

        self.assertEqual(complete("ghl-oauth lo"), {"login", "locations"})
        self.assertEqual(complete("ghl-oauth list --type "), {"Company", "Location"})
        self.assertIn("--replace", complete("ghl-oauth import --re"))
        self.assertIn("tokens.json", complete("ghl-oauth import tok"))
        self.assertEqual(complete("ghl-oauth completion z"), {"zsh"})

    @NEEDS_TERMINAL
    def test_zsh_completes_commands_and_options(self) -> None:
        zsh = self.shell("zsh")
        self.script("zsh")

        def complete(line: str, expected: str) -> None:
            terminal, side = open_terminal()
            process = subprocess.Popen(
                [zsh, "-f", "-i"],
                stdin=side,
                stdout=side,
                stderr=side,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "TERM": "dumb",
                     "PS1": "", "COLUMNS": "200"},
                start_new_session=True,
            )  # fmt: skip
            os.close(side)
            try:
                # Ctrl-X shows the line as the completion has changed it.
                os.write(
                    terminal,
                    b"fpath=($PWD $fpath); autoload -U compinit; compinit -u -D\n"
                    b"show() { print -r -- \"<$BUFFER>\"; }; zle -N show; bindkey '^X' show\n"
                    b"bindkey '^I' complete-word; print re''ady\n",
                )
                self.read_until(terminal, r"ready")
                os.write(terminal, line.encode() + b"\t\x18")
                shown = self.read_until(terminal, r"<ghl-oauth[^>]*>")
                self.assertIn(f"<{expected}>", shown.replace(" >", ">"))
            finally:
                process.kill()
                process.wait()
                os.close(terminal)

        complete("ghl-oauth doc", "ghl-oauth doctor")
        complete("ghl-oauth import --rep", "ghl-oauth import --replace")
        complete("ghl-oauth list --type Comp", "ghl-oauth list --type Company")
        complete("ghl-oauth completion zs", "ghl-oauth completion zsh")

    def read_until(self, terminal: int, pattern: str) -> str:
        shown = ""
        until = time.monotonic() + 60
        while not re.search(pattern, shown):
            left = until - time.monotonic()
            if left <= 0 or not select.select([terminal], [], [], left)[0]:
                raise AssertionError(f"{pattern} is not in {shown!r}")
            shown += os.read(terminal, 65_536).decode("utf-8", "replace")
        return shown

    def test_scripts_know_every_command_and_option(self) -> None:
        from ghl_oauth.cli import program, shells

        parser = program.make_parser()
        (commands,) = (
            action.choices for action in parser._actions if isinstance(action.choices, dict)
        )
        for shell, make in shells.SCRIPTS.items():
            script = make(parser)
            for name, command in commands.items():
                self.assertRegex(script, rf"\b{name}\b")
                for action in command._actions:
                    for option in action.option_strings:
                        spelling = option if shell != "fish" else option.lstrip("-")
                        self.assertIn(spelling, script)


class StartTest(unittest.TestCase):
    def test_token_imports_only_its_own_command(self) -> None:
        code = (
            "import sys; from ghl_oauth.cli import program; program._parse(['token', 'l1']); "
            "print(*sys.modules)"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(ghl_oauth.__file__).parents[1])}
        loaded = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.split()
        self.assertIn("ghl_oauth.cli.commands.token", loaded)
        for name in ("ghl_oauth.cli.commands.doctor", "ghl_oauth.cli.shells", "difflib",
                     "http.client", "subprocess", "asyncio"):  # fmt: skip
            self.assertNotIn(name, loaded)
