"""Windows on x86-64 with Microsoft's ABI: type-checked. There is no compiler for its C parts."""

import os

import frame
from frame import TOOLS, Result

TARGET = "x86_64-pc-windows-msvc"
NAME = "Windows x86_64 (MSVC)"

# A check links nothing, so it needs no content of the objects that the build scripts compile.
EMPTY = """#!/bin/sh
# Creates the files that a compiler, assembler or archiver would.
last=
for word; do
    case $word in
    -Fo*) : >"${word#-Fo}" ;;
    -out:* | /OUT:* | -OUT:*) : >"${word#*:}" ;;
    *) [ "$last" != -o ] || : >"$word" ;;
    esac
    last=$word
done
"""


def empty_compiler():
    program = TOOLS / "empty-compiler"
    program.write_text(EMPTY)
    program.chmod(0o755)
    return program


def main(is_update):
    result = Result()
    cargo = frame.cross(TARGET)
    compiler = str(empty_compiler())
    environment = os.environ | {
        "CARGO_TARGET_DIR": str(frame.COMMON),
        "CARGO_PROFILE_DEV_DEBUG": "0",
        "CC_x86_64_pc_windows_msvc": compiler,
        "CXX_x86_64_pc_windows_msvc": compiler,
        "AR_x86_64_pc_windows_msvc": compiler,
    }
    frame.step("type-check")
    clippy = [cargo, "clippy", "--quiet", "--workspace", *frame.CHECKED, "--target", TARGET]
    frame.run([*clippy, "--", "-D", "warnings"], env=environment)
    result.check("clippy passes")
    return frame.report(NAME, "type-checked, never run", result, is_update)
