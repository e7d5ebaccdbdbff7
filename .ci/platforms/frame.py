"""Test programs of another platform: building, running, verdicts, and the table in the docs."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("GHL_CI_TOOLS", ROOT / "target/ci")).resolve()
# The build folders, and a folder that several platforms share: build scripts and macros, which are
# programs for this machine, are then built only once.
TARGETS = Path(os.environ.get("GHL_PLATFORM_TARGETS", ROOT / "target/platforms")).resolve()
COMMON = TARGETS / "common"
PAGE = ROOT / "docs/platforms.md"
BEGIN, END = "<!-- written by .ci/platforms --update -->", "<!-- end -->"

# The programs that have passed, for --resume.
PASSED = TARGETS / "passed.json"

# How many test programs run at a time.
JOBS = int(os.environ.get("GHL_PLATFORM_JOBS", "2"))

# Targets to type-check. Benches are left out, because they read clocks of Linux.
CHECKED = ("--lib", "--bins", "--tests", "--examples")

# Seconds for one program, or one of its tests alone, and for the list of its tests.
PROGRAM_TIMEOUT, LIST_TIMEOUT = 900, 180

# The programs that take the longest start first.
LONGEST = {"memory", "python"}


class Failed(Exception):
    """A check that ends the run of a platform."""


def step(text):
    print(f"== {text} ({time.monotonic() - STARTED:.0f}s)", flush=True)


STARTED = time.monotonic()


def run(command, **options):
    """Runs a command, whose failure ends the run."""
    command = [str(word) for word in command]
    options.setdefault("cwd", ROOT)
    try:
        done = subprocess.run(command, check=False, **options)
    except subprocess.TimeoutExpired as expired:
        output = (expired.stdout or b"").decode(errors="replace")
        raise Failed(f"{expired}\n{output}") from None
    if done.returncode:
        output = "\n".join(part for part in (done.stdout, done.stderr) if isinstance(part, str))
        raise Failed(f"{' '.join(command)}: status {done.returncode}\n{output}")
    return done


def install(*packages):
    """Installs Debian packages that are missing."""
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", *packages]
    state = subprocess.run(query, check=False, capture_output=True, text=True)
    if state.returncode == 0 and state.stdout == "ii " * len(packages):
        return
    options = ["-o", "DPkg::Lock::Timeout=600", "-y", "-qq", "--no-install-recommends"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "install", *options, *packages], env=environment, stdout=subprocess.DEVNULL)


def native_emulator():
    """Builds the emulator for this machine: the tests reach it over the network."""
    command = ["cargo", "build", "--quiet", "--message-format=json", "--package"]
    done = run([*command, "ghl-oauth-emulator"], stdout=subprocess.PIPE, text=True)
    messages = map(json.loads, done.stdout.splitlines())
    return next(filter(None, (message.get("executable") for message in messages)))


def crates(cargo, target):
    """The folders of the crates that are built for a target, by name."""
    command = [cargo, "metadata", "--format-version=1", "--filter-platform", target]
    done = run(command, stdout=subprocess.PIPE, text=True)
    packages = json.loads(done.stdout)["packages"]
    return {package["name"]: Path(package["manifest_path"]).parent for package in packages}


def cross(*targets):
    """Prepares the compiler for the targets. Returns its cargo."""
    environment = os.environ | {"GHL_CI_TOOLS": str(TOOLS)}
    run([ROOT / ".ci/cross", *targets], env=environment)
    return TOOLS / "cross/bin/cargo"


@dataclass
class Program:
    """A test program that Cargo built."""

    name: str
    executable: str
    folder: str


def build(cargo, arguments, environment):
    """Builds test programs. Returns them, by name."""
    command = [str(cargo), "test", "--no-run", "--quiet", *arguments]
    command.append("--message-format=json-render-diagnostics")
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)}: status {done.returncode}")
    programs = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") != "compiler-artifact" or not message.get("executable"):
            continue
        if not message["profile"]["test"]:
            continue
        folder = Path(message["manifest_path"]).parent
        name = message["target"]["name"]
        if folder != ROOT:
            name = f"{folder.name}/{name}"
        programs[name] = Program(name, message["executable"], str(folder))
    return programs


@dataclass
class LeftOut:
    """A test that cannot pass on the platform.

    Checked by name: it must exist, and must still fail, unless it fails only sometimes.
    """

    program: str
    test: str
    reason: str
    sometimes: bool = False


@dataclass
class Result:
    """What the run of a platform has shown."""

    programs: int = 0
    passed: int = 0
    ignored: int = 0
    repeated: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    left_out: list = field(default_factory=list)
    checks: list = field(default_factory=list)

    def check(self, text):
        """Notes a check that is not a test program."""
        print(text, flush=True)
        self.checks.append(text)


class Suite:
    """Test programs that are run by `runner`, for example an emulator.

    `slowness` multiplies the time limits. `is_resumed` counts a program that passed in an earlier
    run, and has not changed since, without running it again.
    """

    is_resumed = False

    def __init__(self, result, runner=(), environment=None, threads=None, slowness=1):
        self.result = result
        self.runner = [str(word) for word in runner]
        self.environment = os.environ | (environment or {})
        self.threads = threads
        self.program_timeout = PROGRAM_TIMEOUT * slowness
        self.list_timeout = LIST_TIMEOUT * slowness

    def execute(self, program, arguments, timeout):
        """Runs a program. Returns its status, `None` after the timeout, and its output."""
        environment = self.environment | {"CARGO_MANIFEST_DIR": program.folder}
        process = subprocess.Popen(
            [*self.runner, program.executable, *arguments],
            cwd=program.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output, _ = process.communicate()
            status = None
        return status, output.decode(errors="replace").replace("\r\n", "\n")

    def names(self, program):
        """The names of the tests of a program."""
        status, output = self.execute(program, ["--list", "--format=terse"], self.list_timeout)
        if status != 0:
            raise Failed(f"{program.name} --list: status {status}\n{output}")
        return [
            line.removesuffix(": test") for line in output.splitlines() if line.endswith(": test")
        ]

    def alone(self, program, test):
        """Whether a test passes when nothing else runs, and its output."""
        status, output = self.execute(program, ["--exact", test], self.program_timeout)
        return status == 0, output

    def run(self, programs, left_out=()):
        """Runs the tests of the programs, except the ones in `left_out`."""
        unknown = {entry.program for entry in left_out} - set(programs)
        if unknown:
            raise Failed(f"left out, but no test program: {sorted(unknown)}")
        attempts = []
        for program in programs.values():
            entries = [entry for entry in left_out if entry.program == program.name]
            if not self.is_resumed or not self.count_earlier(program, entries):
                attempts.append((program, entries))
        attempts.sort(key=lambda attempt: attempt[0].name not in LONGEST)
        # Two at a time, since most tests wait. A failed test is repeated alone.
        with ThreadPoolExecutor(JOBS) as pool:
            running = {pool.submit(self.attempt, *attempt): attempt for attempt in attempts}
            for done in as_completed(running):
                self.judge(*running[done], *done.result())

    def count_earlier(self, program, left_out):
        """Counts a program that passed earlier. Returns whether it did."""
        earlier = passed_programs().get(identity(program, left_out))
        if earlier is None:
            return False
        passed, ignored = earlier
        print(f"{program.name}: {passed} passed in an earlier run", flush=True)
        self.result.programs += 1
        self.result.passed += passed
        self.result.ignored += ignored
        self.result.left_out += left_out
        return True

    def attempt(self, program, left_out):
        """The names of the tests that must pass, their verdicts, and the status and output."""
        names = self.names(program)
        missing = [entry.test for entry in left_out if entry.test not in names]
        if missing:
            raise Failed(f"left out, but no test of {program.name}: {missing}")
        expected = sorted(set(names) - {entry.test for entry in left_out})
        if not expected:
            return [], {}, 0, ""
        arguments = ["--exact"]
        for entry in left_out:
            arguments += ["--skip", entry.test]
        if self.threads:
            arguments.append(f"--test-threads={self.threads}")
        began = time.monotonic()
        status, output = self.execute(program, arguments, self.program_timeout)
        line = re.compile(r"^test (\S+)(?: - should panic)? \.\.\. (\w+)", re.MULTILINE)
        verdicts = dict(line.findall(output))
        passed = sum(verdicts.get(name) == "ok" for name in expected)
        took = time.monotonic() - began
        print(f"{program.name}: {passed} of {len(expected)} passed, {took:.0f} s", flush=True)
        return expected, verdicts, status, output

    def judge(self, program, left_out, expected, verdicts, status, output):
        """Repeats what failed, and notes the result."""
        if not expected and not left_out:
            return
        failed_before = len(self.result.failed)
        # A crash leaves the tests after it without a verdict, and a failure may be one of time.
        broken = [name for name in expected if verdicts.get(name) not in ("ok", "ignored")]
        if not broken and status != 0:
            self.result.failed.append(f"{program.name}: status {status}")
        if broken or status != 0:
            print(output, flush=True)
        failed = 0
        for name in broken:
            is_passed, alone = self.alone(program, name)
            if is_passed:
                self.result.repeated.append(f"{program.name}::{name}")
            else:
                failed += 1
                self.result.failed.append(f"{program.name}::{name}")
                print(alone, flush=True)
        ignored = sum(verdicts.get(name) == "ignored" for name in expected)
        self.result.programs += 1
        self.result.ignored += ignored
        self.result.passed += len(expected) - ignored - failed
        for entry in left_out:
            self.result.left_out.append(entry)
            if not entry.sometimes and self.alone(program, entry.test)[0]:
                self.result.failed.append(f"{program.name}::{entry.test} passes, but is left out")
        if len(self.result.failed) == failed_before:
            remember(program, left_out, [len(expected) - ignored, ignored])


def identity(program, left_out):
    """Identifies the executable of a program and the tests of it that are left out."""
    digest = hashlib.sha256(Path(program.executable).read_bytes()).hexdigest()
    return " ".join([program.name, digest, *sorted(entry.test for entry in left_out)])


def passed_programs():
    return json.loads(PASSED.read_text()) if PASSED.exists() else {}


def remember(program, left_out, counts):
    """Notes for --resume that a program passed: how many tests passed, and were ignored."""
    PASSED.parent.mkdir(parents=True, exist_ok=True)
    passed = passed_programs() | {identity(program, left_out): counts}
    PASSED.write_text(json.dumps(passed, indent=1))


def row(name, how, result):
    """The row of a platform in the table."""
    passed = str(result.passed)
    reasons = {}
    for entry in result.left_out:
        reasons.setdefault(entry.reason, []).append(f"`{entry.program}::{entry.test}`")
    left_out = "; ".join(f"{', '.join(tests)}: {reason}" for reason, tests in reasons.items())
    checks = ", ".join(result.checks)
    return f"| {name} | {how} | {result.programs} | {passed} | {left_out or 'none'} | {checks} |"


def update(name, line):
    """Writes the row of a platform between the markers of the page."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    lines = table.strip().splitlines()
    rows = [old for old in lines if not old.startswith(f"| {name} |")] + [line]
    rows = rows[:2] + sorted(rows[2:])
    PAGE.write_text(before + BEGIN + "\n\n" + "\n".join(rows) + "\n\n" + END + after)


def report(name, how, result, is_update):
    """Prints the result and writes its row. Returns whether all is well."""
    line = row(name, how, result)
    print(line)
    if result.repeated:
        print(f"passed when repeated alone: {', '.join(result.repeated)}")
    for failure in result.failed:
        print(f"FAILED: {failure}", file=sys.stderr)
    if is_update and not result.failed:
        update(name, line)
    return not result.failed
