"""Windows on x86-64 with the GNU ABI, run by Wine."""

import os
import shutil
import tempfile
from pathlib import Path

import frame
from frame import ROOT, TOOLS, LeftOut, Result, Suite

TARGET = "x86_64-pc-windows-gnu"
NAME = "Windows x86_64 (GNU ABI)"
WINE = "/usr/lib/wine/wine64"
PREFIX = TOOLS / "wine"

# The Rust standard library asks this DLL for random bytes. Wine 8 does not have it.
RANDOM = """
#include <stdlib.h>
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)
{
    while (length > 0) {
        ULONG part = length > 0x10000000 ? 0x10000000 : (ULONG)length;
        if (!RtlGenRandom(data, part))
            abort();
        data += part;
        length -= part;
    }
    return TRUE;
}
"""

LEFT_OUT = []


def environment():
    """The environment of programs under Wine."""
    return {
        "WINEPREFIX": str(PREFIX),
        "WINEARCH": "win64",
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree,mshtml=;winemenubuilder.exe=d;bcryptprimitives=n",
    }


def prepare():
    """Installs Wine, and creates its prefix unless it exists."""
    frame.install("wine64", "g++-mingw-w64-x86-64-posix")
    os.environ.pop("DISPLAY", None)
    os.environ.pop("LD_LIBRARY_PATH", None)
    version = frame.run([WINE, "--version"], capture_output=True, text=True).stdout.strip()
    stamp = PREFIX / "version"
    if not stamp.exists() or stamp.read_text() != version:
        shutil.rmtree(PREFIX, ignore_errors=True)
        PREFIX.parent.mkdir(parents=True, exist_ok=True)
        wine = os.environ | environment()
        frame.run([WINE, "wineboot", "--init"], env=wine, capture_output=True, text=True)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "bcryptprimitives.c")
            source.write_text(RANDOM)
            system = PREFIX / "drive_c/windows/system32"
            compiler = ["x86_64-w64-mingw32-gcc", "-O1", "-shared", source, "-ladvapi32"]
            frame.run([*compiler, "-o", system / "bcryptprimitives.dll"])
        stamp.write_text(version)
    return version


def main(is_update):
    result = Result()
    wine = prepare()
    cargo = frame.cross(TARGET)
    frame.step("build the tests")
    target = frame.TARGETS / "windows"
    programs = frame.build(
        cargo,
        ["--workspace", "--target", TARGET],
        {"CARGO_TARGET_DIR": str(target), "CARGO_PROFILE_DEV_DEBUG": "0"},
    )
    frame.step("run the tests")
    emulator = target / TARGET / "debug/ghl-oauth-emulator.exe"
    suite = Suite(result, [WINE], environment() | {"GHL_OAUTH_EMULATOR": f"Z:{emulator}"})
    suite.run(programs, LEFT_OUT)
    return frame.report(NAME, f"run by {wine}", result, is_update)
