"""A 32-bit and a big-endian Linux: the unit tests of the library, and one connection's life."""

import emulated
import frame
from frame import Result, Suite

TESTS = ("--lib", "--test", "main_job", "--test", "store", "--test", "webhook")


def run(target, environment, runner=()):
    """Builds and runs the tests."""
    result = Result()
    cargo = frame.cross(target)
    frame.step("build the tests")
    build = {"CARGO_TARGET_DIR": str(frame.COMMON), "CARGO_PROFILE_DEV_DEBUG": "0"}
    programs = frame.build(cargo, ["--target", target, *TESTS], build)
    frame.step("run the tests")
    environment = environment | {"GHL_SIMULATION_RUNS": "20"}
    Suite(result, runner, environment).run(programs)
    return result


def i686(is_update):
    """32 bits, run by the processor of this machine."""
    frame.install("gcc-i686-linux-gnu")
    libraries = "/usr/i686-linux-gnu/lib"
    loader = [f"{libraries}/ld-linux.so.2", "--library-path", libraries]
    result = run("i686-unknown-linux-gnu", {}, loader)
    return frame.report("Linux i686, glibc (32-bit)", "run here", result, is_update)


def s390x(is_update):
    """Big-endian, run by qemu."""
    frame.install("gcc-s390x-linux-gnu")
    with emulated.started_by_qemu("s390x"):
        result = run("s390x-unknown-linux-gnu", {"QEMU_LD_PREFIX": "/usr/s390x-linux-gnu"})
    how = f"run by {emulated.qemu_version('s390x')}"
    return frame.report("Linux s390x, glibc (big-endian)", how, result, is_update)
