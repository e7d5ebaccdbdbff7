"""Linux on aarch64 with glibc, run by qemu."""

import os
import re
import tempfile
import zipfile
from pathlib import Path

import emulated
import example
import frame
import python_tests
import wheels
from frame import ROOT, Failed, LeftOut, Result, Suite

TARGET = "aarch64-unknown-linux-gnu"
NAME = "Linux aarch64, glibc"

# The runtimes of C, C++ and the sanitizers, and a Python that loads the library.
PACKAGES = (
    "libc6", "libgcc-s1", "libstdc++6", "libasan8", "libubsan1", "zlib1g", "libexpat1", "libffi8",
    "libssl3", "libsqlite3-0", "libuuid1", "libbz2-1.0", "liblzma5", "libcrypt1",
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib",
)  # fmt: skip

# Programs that are neither built nor run: they check the sources, or programs for this machine.
NOT_RUN = {
    "agency_day", "architecture", "code_blocks", "docs", "header", "install", "languages", "model",
    "promise", "statuses", "vendor_description",
    # Run with the wheel.
    "python",
    # Browsers and other servers.
    "consent_page", "desktop",
}  # fmt: skip

LEFT_OUT = [
    LeftOut(
        "host_process",
        "process_that_may_not_start_threads_gets_errors_where_one_is_needed",
        "qemu has no seccomp filters",
    ),
    LeftOut(
        "lookup",
        "process_that_cannot_start_threads_returns_the_valid_token_or_a_network_error",
        "qemu has no seccomp filters",
    ),
    LeftOut(
        "bounded_memory",
        "response_of_any_size_uses_bounded_memory",
        "code that qemu translates counts as memory of the process",
        sometimes=True,
    ),
    LeftOut(
        "cancel",
        "cancellation_and_deadline_end_the_writing_of_a_body_that_the_server_does_not_read",
        "its limit of 20 s is short for bodies of 16 MB under qemu",
        sometimes=True,
    ),
    LeftOut(
        "faults",
        "every_fault_has_its_documented_outcome_for_every_caller",
        "its deadlines of seconds are short for bodies of 200 MB under qemu",
        sometimes=True,
    ),
]


CLEARED = "it clears the environment, by which qemu finds the libraries"

PYTHON_LEFT_OUT = [
    LeftOut(
        "python",
        "tests.test_interrupt.SignalTest.test_call_works_where_no_thread_can_be_started",
        "qemu grants a stack of 64 TiB, and needs 17 GB of memory for it",
        # Not run again to see whether it still fails.
        sometimes=True,
    ),
    LeftOut(
        "python",
        "tests.test_boundary.MemoryTest.test_long_results_do_not_accumulate_in_memory",
        "code that qemu translates counts as memory of the process",
        sometimes=True,
    ),
    LeftOut(
        "python",
        "tests.test_doctor.DeadDatabaseTest."
        "test_lock_of_another_program_is_diagnosed_with_its_process",
        "qemu is the program of the process",
    ),
    LeftOut(
        "python",
        "tests.test_doctor.DoctorTest.test_healthy_setup_passes",
        "a step that takes longer than a second is reported",
        sometimes=True,
    ),
    LeftOut(
        "python",
        "tests.test_cli.StatusCommandTest.test_closed_stdin_is_an_error",
        "the program that qemu starts becomes its descriptor 0",
    ),
    *(
        LeftOut("python", f"tests.test_deployment.{test}", CLEARED)
        for test in (
            "CronTest.test_line_refreshes_the_token_and_writes_nothing",
            "CronTest.test_problem_is_written_to_standard_error",
            "ExposureTest.test_files_of_the_store_are_accessible_to_their_user_only",
            "KubernetesTest.test_command_of_the_job_refreshes_the_token",
            "SystemdTest.test_command_of_the_service_refreshes_the_token",
        )
    ),
]


def test_wheel(result, environment):
    """A Python of the platform runs its tests, and the quickstart, with the files of the wheel."""
    library = frame.COMMON / TARGET / "debug/deps/libghl_oauth.so"
    python = environment["GHL_PYTHON"]
    with tempfile.TemporaryDirectory() as folder:
        file, tag = wheels.build(library, Path(folder))
        if not re.fullmatch(r"manylinux_2_\d+_aarch64", tag):
            raise Failed(f"the wheel of {library} is {tag}")
        with zipfile.ZipFile(file) as packed:
            packed.extractall(Path(folder, "unpacked"))
        variables = os.environ | environment | {"PYTHONPATH": f"{folder}/unpacked"}
        variables.pop("GHL_OAUTH_LIBRARY", None)
        with example.emulator([environment["GHL_OAUTH_EMULATOR"]]) as base:
            command = [python, ROOT / "examples/python/quickstart.py", base]
            frame.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        passed, skipped = python_tests.run(
            result, [python], PYTHON_LEFT_OUT, cwd=ROOT / "bindings/python", env=variables
        )
    result.check(
        f"its wheel is `{tag}`: it runs the quickstart of Python, and {passed} tests of the Python "
        f"package pass ({skipped} lack a package or program)"
    )


def main(is_update):
    result = Result()
    frame.install("g++-aarch64-linux-gnu")
    with emulated.started_by_qemu("aarch64"):
        root = emulated.system("arm64", PACKAGES)
        cargo = frame.cross(TARGET)
        build = {"CARGO_TARGET_DIR": str(frame.COMMON), "CARGO_PROFILE_DEV_DEBUG": "0"}
        frame.step("build the tests")
        tests = sorted({file.stem for file in (ROOT / "tests").glob("*.rs")} - NOT_RUN)
        selected = ["--lib", *(word for test in tests for word in ("--test", test))]
        programs = frame.build(cargo, ["--target", TARGET, *selected], build)
        frame.step("run the tests")
        environment = emulated.environment("aarch64-linux-gnu", root) | {
            "GHL_OAUTH_EMULATOR": frame.native_emulator(),
            # The sanitizer looks for leaks with ptrace, which qemu does not have.
            "ASAN_OPTIONS": "detect_leaks=0",
            # Simulated processes do not depend on the processor.
            "GHL_SIMULATION_RUNS": "20",
            "GHL_PYTHON": str(root / "usr/bin/python3.11"),
        }
        Suite(result, environment=environment, slowness=3).run(programs, LEFT_OUT)
        frame.step("test the wheel")
        test_wheel(result, environment)
    how = f"run by {emulated.qemu_version('aarch64')}"
    return frame.report(NAME, how, result, is_update)
