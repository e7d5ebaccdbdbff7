"""macOS on Apple silicon and on Intel: type-checked and linked, since nothing here can run it."""

import os
import re
import struct
import sys
import tempfile
from pathlib import Path

import frame
import wheels
from frame import TOOLS, Failed, Result

# zig has the headers of the C library, and cargo-zigbuild makes it Cargo's compiler and linker.
ZIG = ("cargo-zigbuild==0.24.1", "ziglang==0.17.1")

# The crates that declare functions of Apple's frameworks.
FRAMEWORKS = {
    "CoreFoundation": "core-foundation-sys",
    "Security": "security-framework-sys",
    "SystemConfiguration": "objc2-system-configuration",
}

# Functions and constants; some constants are arguments of macros. Names that are not Apple's do
# no harm.
DECLARED = re.compile(r"\b(?:fn|static) (\w+)|\b(kSec\w+)")


def prepare():
    """Installs zig, and the tool by which rustc removes symbols. Returns the folder of programs."""
    frame.install("llvm")
    folder = TOOLS / "zig"
    stamp = folder / "versions"
    if not stamp.exists() or stamp.read_text() != " ".join(ZIG):
        frame.run([sys.executable, "-m", "venv", "--clear", folder])
        frame.run([folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *ZIG])
        stamp.write_text(" ".join(ZIG))
    objcopy = folder / "bin/rust-objcopy"
    objcopy.unlink(missing_ok=True)
    objcopy.symlink_to("/usr/bin/llvm-objcopy")
    return folder / "bin"


def frameworks(cargo, target):
    """A folder with stubs of the frameworks: the names that the crates declare, for the linker."""
    folder = TOOLS / "frameworks"
    sources = frame.crates(cargo, target)
    for framework, crate in FRAMEWORKS.items():
        names = set()
        for file in (sources[crate] / "src").rglob("*.rs"):
            for declared in DECLARED.findall(file.read_text()):
                names.update(filter(None, declared))
        stub = folder / f"{framework}.framework" / f"{framework}.tbd"
        stub.parent.mkdir(parents=True, exist_ok=True)
        symbols = ", ".join(f"_{name}" for name in sorted(names))
        stub.write_text(
            "--- !tapi-tbd\n"
            "tbd-version: 4\n"
            "targets: [ x86_64-macos, arm64-macos ]\n"
            f"install-name: /System/Library/Frameworks/{framework}.framework/{framework}\n"
            "exports:\n"
            "  - targets: [ x86_64-macos, arm64-macos ]\n"
            f"    symbols: [ {symbols} ]\n"
            "...\n"
        )
    return folder


# Load commands (mach-o/loader.h).
ID_DYLIB, LOAD_DYLIB, BUILD_VERSION = 0xD, 0xC, 0x32


def load_commands(library):
    """The number and the content of each load command."""
    content = library.read_bytes()
    count, offset = struct.unpack_from("<I", content, 16)[0], 32
    for _ in range(count):
        command, size = struct.unpack_from("<2I", content, offset)
        yield command, content[offset : offset + size]
        offset += size


def names(library, command):
    """The install names in load commands of a kind."""
    for number, content in load_commands(library):
        if number == command:
            (start,) = struct.unpack_from("<I", content, 8)
            yield content[start:].split(b"\0")[0].decode()


def run(target, name, tag, is_update):
    """Links the library for a target, and checks it."""
    result = Result()
    programs = prepare()
    cargo = frame.cross(target)
    environment = os.environ | {
        "CARGO_TARGET_DIR": str(frame.COMMON),
        "CARGO_PROFILE_DEV_DEBUG": "0",
        "CARGO_TERM_QUIET": "true",
        "MACOSX_DEPLOYMENT_TARGET": "11.0",
        "PATH": f"{cargo.parent}:{programs}:{os.environ['PATH']}",
        "CARGO": str(cargo),
        "CARGO_ZIGBUILD_ZIG_PATH": str(programs / "python-zig"),
        "RUSTFLAGS": f"-Clink-arg=-F{frameworks(cargo, target)}",
    }
    build = [programs / "cargo-zigbuild", "zigbuild", "--target", target]
    frame.step("link the library")
    frame.run([*build, "--lib", "--features", "postgres"], env=environment)
    library = frame.COMMON / target / "debug/libghl_oauth.dylib"
    (own,) = names(library, ID_DYLIB)
    if own != "@rpath/libghl_oauth.dylib":
        raise Failed(f"the install name of {library} is {own}")
    result.check("the library is linked, its install name is relative to the rpath")
    needed = sorted(names(library, LOAD_DYLIB))
    if any(not path.startswith(("/usr/lib/", "/System/Library/")) for path in needed):
        raise Failed(f"{library} needs {needed}")
    result.check("it needs libraries of the system only")
    with tempfile.TemporaryDirectory() as folder:
        wheels.build_tagged(library, Path(folder), tag)
    result.check(f"its wheel is `{tag}`, as MACOSX_DEPLOYMENT_TARGET says")
    frame.step("type-check")
    clippy = [programs / "cargo-zigbuild", "clippy", "--target", target, "--workspace"]
    frame.run([*clippy, *frame.CHECKED, "--", "-D", "warnings"], env=environment)
    result.check("clippy passes")
    return frame.report(name, "linked, never run", result, is_update)


def aarch64(is_update):
    """Apple silicon."""
    return run("aarch64-apple-darwin", "macOS aarch64", "macosx_11_0_arm64", is_update)


def x86_64(is_update):
    """Intel."""
    return run("x86_64-apple-darwin", "macOS x86_64", "macosx_11_0_x86_64", is_update)
