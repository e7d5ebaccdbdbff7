"""The files of examples/deployment, run or checked by the programs that read them."""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .support import REPOSITORY, EmulatorTest, environment, free_port, in_threads
from .test_workers import ask, needs

FILES = REPOSITORY / "examples" / "deployment"


def leave_out(what: str, how: str) -> NoReturn:
    """Skips the test, and says how to get what it needs."""
    print(f"skipped: {what} ({how})", file=sys.stderr)
    raise unittest.SkipTest(what)


class DeploymentTest(EmulatorTest):
    """A machine in a folder: the paths in the files lead there."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.programs = self.folder / "programs"
        self.settings = self.folder / "settings"
        state = self.folder / "state"
        for made in (self.programs, self.settings, state):
            made.mkdir()
        program = self.programs / "ghl-oauth"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ghl_oauth "$@"\n')
        program.chmod(0o755)
        self.paths = {
            "/opt/acme/venv/bin": str(self.programs),
            "/etc/ghl-oauth": str(self.settings),
            "/var/lib/ghl-oauth": str(state),
        }
        configuration = self.emulator.configuration
        settings = json.loads(self.file("config.json"))
        settings["clientId"] = configuration["clientId"]
        settings["baseUrl"] = configuration["baseUrl"]
        settings["authorizeUrl"] = configuration["authorizeUrl"]
        self.write("settings/config.json", json.dumps(settings))
        self.write("settings/client-secret", configuration["clientSecret"] + "\n")
        self.store = settings["store"]["path"]
        self.client = self.make_client(store=self.store)
        self.location_id = self.emulator.location_ids[0]
        self.install_location(self.location_id)
        self.expire()
        self.configured = {"GHL_OAUTH_CONFIG": str(self.settings / "config.json")}

    def file(self, name: str) -> str:
        """The text of an example, with the paths of this machine."""
        text = (FILES / name).read_text(encoding="utf-8")
        for path, here in self.paths.items():
            text = text.replace(path, here)
        return text

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o400)
        return path

    def run_shell(
        self, command: str, variables: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command with these variables, and those by which Python finds this package."""
        found = {name: value for name, value in environment().items() if name in FINDS_PACKAGE}
        return subprocess.run(
            ["/bin/sh", "-c", command],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", **found, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def maintains(self, command: str, variables: dict[str, str]) -> str:
        """Runs a command, which refreshes the expired token. Returns its output."""
        ended = self.run_shell(command, variables)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), ended.stdout)
        self.assertEqual(self.emulator.refreshes(), 1)
        return ended.stdout

    def hold_refresh(self) -> None:
        """Makes the emulator hold the next refresh before it answers."""
        self.emulator.fault("stall", endpoint="token")


FINDS_PACKAGE = ("PYTHONPATH", "GHL_OAUTH_LIBRARY", "VIRTUAL_ENV", "LANG")


class SystemdTest(DeploymentTest):
    UNITS = ("ghl-oauth-maintain.service", "ghl-oauth-maintain.timer", "acme-web.service")

    def test_units_pass_the_check_of_systemd(self) -> None:
        if shutil.which("systemd-analyze") is None:
            leave_out("the check of the systemd units", "apt-get install systemd")
        shutil.copy(self.programs / "ghl-oauth", self.programs / "gunicorn")
        for unit in self.UNITS:
            self.write(unit, self.file(unit))
        checked = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *(self.folder / unit for unit in self.UNITS)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        about_units = [
            line for line in checked.stderr.splitlines() if "ghl-oauth" in line or "acme" in line
        ]
        self.assertEqual((checked.returncode, about_units), (0, []), checked.stderr)

    def test_command_of_the_service_refreshes_the_token(self) -> None:
        pairs = [
            line.split("=", 1) for line in self.file(self.UNITS[0]).splitlines() if "=" in line
        ]
        unit = {key: value for key, value in pairs if not key.startswith("#")}
        variables = dict([unit["Environment"].split("=", 1)])
        self.maintains(f"umask {unit['UMask']}; exec {unit['ExecStart']}", variables)


class CronTest(DeploymentTest):
    def test_line_refreshes_the_token_and_writes_nothing(self) -> None:
        lines = [line for line in self.file("ghl-oauth.cron").splitlines() if line[0] != "#"]
        *variables, line = lines
        *when, user, command = line.split(maxsplit=6)
        self.assertEqual((when, user), (["*/5", "*", "*", "*", "*"], "acme"))
        self.assertNotIn("%", command, "cron would replace it by a line break")
        values = dict(variable.split("=", 1) for variable in variables)
        self.assertEqual(self.maintains(command, values), "")

    def test_problem_is_written_to_standard_error(self) -> None:
        Path(self.settings, "client-secret").unlink()
        command = self.file("ghl-oauth.cron").splitlines()[-1].split(maxsplit=6)[-1]
        ended = self.run_shell(command, self.configured)
        self.assertEqual(ended.returncode, 2)
        self.assertIn("client-secret", ended.stderr)


class ComposeTest(DeploymentTest):
    def test_file_passes_the_check_of_compose(self) -> None:
        for compose in (["docker", "compose"], ["docker-compose"]):
            if shutil.which(compose[0]) is None:
                continue
            version = subprocess.run([*compose, "version"], capture_output=True, check=False)
            if version.returncode == 0:
                break
        else:
            leave_out("the check of the compose file", "apt-get install docker-compose")
        checked = subprocess.run(
            [*compose, "--file", str(FILES / "compose.yaml"), "config"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        self.assertEqual((checked.returncode, checked.stderr), (0, ""), checked.stdout)
        for service in ("web:", "maintain:", "database:"):
            self.assertIn(service, checked.stdout)

    def start_loop(self) -> subprocess.Popen[str]:
        variables = {**environment(), **self.configured, "INTERVAL": "0.05"}
        variables["PATH"] = f"{self.programs}:{variables['PATH']}"
        loop = subprocess.Popen(
            ["sh", str(FILES / "maintain-loop.sh")], env=variables, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.addCleanup(loop.communicate)
        self.addCleanup(loop.kill)
        return loop

    def test_loop_runs_again_until_it_is_terminated(self) -> None:
        loop = self.start_loop()
        assert loop.stdout
        first, second = (loop.stdout.readline() for _ in range(2))
        loop.terminate()
        _, errors = loop.communicate(timeout=60)
        self.assertEqual((loop.returncode, self.emulator.refreshes()), (0, 1), errors)
        self.assertNotEqual((first, second), ("", ""), errors)

    def test_terminated_loop_first_saves_a_refresh_that_was_sent(self) -> None:
        self.hold_refresh()
        loop = self.start_loop()
        self.emulator.wait_for_stall()
        loop.terminate()
        self.emulator.end_faults()
        _, errors = loop.communicate(timeout=60)
        self.assertEqual(loop.returncode, 0, errors)
        self.client.access_token(self.location_id)
        self.assertEqual(self.emulator.refreshes(), 1, errors)


class KubernetesTest(DeploymentTest):
    def test_job_conforms_to_the_schema(self) -> None:
        try:
            yaml, schema = map(importlib.import_module, ("yaml", "kubernetes_validate"))
        except ImportError:
            leave_out("the check of the CronJob", "pip install kubernetes-validate")
        job = yaml.safe_load((FILES / "cronjob.yaml").read_text())
        schema.validate(job, schema.latest_version(), strict=True)
        (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        # The check is not blind.
        container["comand"] = container.pop("command")
        with self.assertRaises(schema.ValidationError):
            schema.validate(job, schema.latest_version(), strict=True)

    def test_command_of_the_job_refreshes_the_token(self) -> None:
        (line,) = (line for line in self.file("cronjob.yaml").splitlines() if " command: [" in line)
        words = line.split("[", 1)[1].rstrip("]").replace('"', "").split(", ")
        self.assertEqual(words[0], "ghl-oauth")
        command = shlex.join([str(self.programs / words[0]), *words[1:]])
        self.maintains(command, self.configured)


class ServerFilesTest(DeploymentTest):
    """The configuration files of servers, with several workers."""

    def setUp(self) -> None:
        super().setUp()
        self.port = free_port()
        for name in (
            "app.py", "connection.py", "tasks.py", "gunicorn.conf.py", "celeryconfig.py",
        ):  # fmt: skip
            self.write(name, self.file(name))
        uwsgi = self.file("uwsgi.ini").replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        self.write("uwsgi.ini", uwsgi)

    def start(self, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        found = environment()
        found["PYTHONPATH"] += f":{self.folder}"
        server = subprocess.Popen(
            command, cwd=self.folder, env={**found, **self.configured, **variables},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.addCleanup(server.communicate)
        self.addCleanup(server.kill)
        return server

    def serves(self, server: subprocess.Popen[bytes]) -> None:
        """All workers together refresh an expired token once, and SIGTERM lets a refresh end."""
        show = f"locations/{self.location_id}"
        answers = in_threads(16, lambda: ask(self.port, server, show))
        self.assertEqual({type(answer) for answer in answers}, {str}, answers)
        self.assertEqual(self.emulator.refreshes(), 1)

        held = self.ends_a_refresh(server, lambda: ask(self.port, server, show))
        self.assertIn(self.location_id, held)

    def ends_a_refresh(self, server: subprocess.Popen[bytes], call: Callable[[], Any]) -> str:
        """Terminates the server while a call waits for a refresh. Returns the call's result."""
        before = self.emulator.refreshes()
        self.expire()
        # The workers have the old token in memory: the store changes only their next refresh.
        self.emulator.control("POST", "/clock", {"advanceSeconds": 2 * 86_400})
        self.hold_refresh()
        results: list[Any] = []
        waiting = threading.Thread(target=lambda: results.append(call()))
        waiting.start()
        self.emulator.wait_for_stall()
        server.terminate()
        self.emulator.end_faults()
        _, errors = server.communicate(timeout=100)
        waiting.join()
        self.assertEqual(server.returncode, 0, errors)
        self.client.access_token(self.location_id)
        self.assertEqual(self.emulator.refreshes(), before + 1, errors)
        return str(*results)

    def test_gunicorn_file_serves(self) -> None:
        needs("gunicorn")
        self.serves(
            self.start(
                sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "app:app",
                BIND=f"127.0.0.1:{self.port}",
            )
        )  # fmt: skip

    def test_uwsgi_file_serves(self) -> None:
        program = Path(sys.prefix, "bin", "uwsgi")
        if not program.exists():
            leave_out("the file of uWSGI", "pip install uwsgi")
        log = self.folder / "uwsgi.log"
        server = self.start(
            str(program), "--ini", "uwsgi.ini", f"--virtualenv={sys.prefix}", f"--logto={log}"
        )
        # uWSGI forgets to end a worker that is still starting.
        while not log.exists() or log.read_text().count(" ready in ") < 4:
            self.assertIsNone(server.poll(), "uWSGI ended")
            time.sleep(0.05)
        self.serves(server)

    def test_celery_files_run_tasks(self) -> None:
        needs("celery")
        folder = str(self.folder / "broker")
        Path(folder).mkdir()
        for_this_test = {
            "broker_transport_options": dict.fromkeys(
                ("data_folder_in", "data_folder_out", "control_folder"), folder
            ),
            "result_backend": f"file://{folder}",
        }
        extra = "\n".join(f"{name} = {value!r}" for name, value in for_this_test.items())
        Path(self.folder, "celeryconfig.py").chmod(0o600)
        self.write("celeryconfig.py", f"{self.file('celeryconfig.py')}\n{extra}\n")
        broker = {"CELERY_BROKER_URL": "filesystem://"}
        server = self.start(
            sys.executable, "-m", "celery", "--quiet", "--app=tasks", "worker", "--concurrency=4",
            "--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat",
            **broker,
        )  # fmt: skip

        def send(what: str) -> str:
            program = self.start(sys.executable, "-c", SEND.format(what=what), **broker)
            _, said = program.communicate(timeout=100)
            self.assertEqual(program.returncode, 0, said)
            return said.decode()

        shown = send(f"[tasks.location.s({self.location_id!r}) for _ in range(8)]")
        self.assertEqual(shown.count(self.location_id), 8, shown)
        self.assertEqual(self.emulator.refreshes(), 1)
        scheduled = "[tasks.app.tasks[tasks.app.conf.beat_schedule['maintain']['task']].s()]"
        self.ends_a_refresh(server, lambda: send(scheduled))


SEND = """
import sys, celery, tasks
print(*celery.group({what}).apply_async().get(timeout=90), file=sys.stderr)
"""


class ExposureTest(DeploymentTest):
    def test_files_of_the_store_are_accessible_to_their_user_only(self) -> None:
        self.maintains("umask 0; ghl-oauth maintain", {
            **self.configured, "PATH": f"{self.programs}:/usr/bin:/bin",
        })  # fmt: skip
        folder = Path(self.store).parent
        modes = {path.name: path.stat().st_mode & 0o077 for path in folder.iterdir()}
        self.assertTrue(modes)
        self.assertEqual(set(modes.values()), {0}, modes)
