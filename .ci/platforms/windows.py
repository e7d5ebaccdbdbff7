"""Windows on x86-64 with the GNU ABI, run by Wine."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import frame
from frame import ROOT, TOOLS, LeftOut, Result, Suite

TARGET = "x86_64-pc-windows-gnu"
NAME = "Windows x86_64 (GNU ABI)"
GCC = "x86_64-w64-mingw32-"
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

# DLLs of every Windows since 8.1. Any other DLL would have to be shipped.
SYSTEM_DLLS = """
    advapi32 bcrypt bcryptprimitives crypt32 kernel32 msvcrt ntdll secur32 user32 userenv ws2_32
    api-ms-win-core-synch-l1-2-0
""".split()

# The size limit of the DLL, in bytes.
LARGEST = 5_500_000

LEFT_OUT = []


def environment(prefix=PREFIX):
    """The environment of programs under Wine."""
    return {
        "WINEPREFIX": str(prefix),
        "WINEARCH": "win64",
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree,mshtml=;winemenubuilder.exe=d;bcryptprimitives=n",
    }


def create(prefix):
    """Creates a Wine prefix."""
    shutil.rmtree(prefix, ignore_errors=True)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    wine = os.environ | environment(prefix)
    frame.run([WINE, "wineboot", "--init"], env=wine, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "bcryptprimitives.c")
        source.write_text(RANDOM)
        library = prefix / "drive_c/windows/system32/bcryptprimitives.dll"
        frame.run([GCC + "gcc", "-O1", "-shared", source, "-ladvapi32", "-o", library])


def prepare():
    """Installs Wine, and creates its prefix unless it exists. Returns Wine's version."""
    frame.install("wine64", "g++-mingw-w64-x86-64-posix")
    os.environ.pop("DISPLAY", None)
    os.environ.pop("LD_LIBRARY_PATH", None)
    version = frame.run([WINE, "--version"], capture_output=True, text=True).stdout.split()[0]
    stamp = PREFIX / "version"
    if not stamp.exists() or stamp.read_text() != version:
        create(PREFIX)
        stamp.write_text(version)
    return version


def check_library(result, library, largest=None):
    """The DLL exports the functions of the header and nothing else, and needs only Windows."""
    header = (ROOT / "include/ghl_oauth.h").read_text()
    code = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    declared = set(re.findall(r"\b(ghl_\w+)\(", code))
    objdump = [GCC + "objdump", "--private-headers", library]
    headers = frame.run(objdump, capture_output=True, text=True).stdout
    table = headers.split("[Ordinal/Name Pointer] Table")[1].split("\n\n")[0]
    exported = set(re.findall(r"\[ *\d+\](?: \+base\[ *\d+\] +\w+)? (\w+)$", table, re.MULTILINE))
    if exported != declared or len(declared) < 20:
        raise frame.Failed(f"exports of {library}: {sorted(exported ^ declared)}")
    imported = {name.lower() for name in re.findall(r"DLL Name: (.+)\.dll", headers, re.IGNORECASE)}
    foreign = imported - set(SYSTEM_DLLS)
    if foreign or not imported:
        raise frame.Failed(f"{library} imports {sorted(foreign or imported)}")
    if largest:
        size = library.stat().st_size
        if size > largest:
            raise frame.Failed(f"{library} has {size} bytes, more than {largest}")
        result.check(f"DLL of {size:,} bytes, {len(exported)} exports, system DLLs only")


def consent(base_url, link, company):
    """What a person does in the browser. Returns the redirect URL."""
    body = json.dumps({"url": link, "companyId": company}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{base_url}/_emulator/consent", body, headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["redirectUrl"]


@contextlib.contextmanager
def running_emulator(program, prefix):
    """Starts the emulator under Wine. Yields its overview."""
    emulator = subprocess.Popen(
        [WINE, program, "--port", "0", "--locations", "5"],
        env=os.environ | environment(prefix),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        base_url = emulator.stdout.readline().split(" on ")[1].strip()
        with urllib.request.urlopen(f"{base_url}/_emulator") as answer:
            yield base_url, json.load(answer)
    finally:
        os.killpg(emulator.pid, signal.SIGKILL)
        emulator.communicate()


def run_example(program, emulator, database, prefix):
    """Connects a company with a quickstart program, which visits its locations."""
    base_url, overview = emulator
    company = overview["companies"][0]["id"]
    configuration = {
        "clientId": overview["clientId"],
        "clientSecret": overview["clientSecret"],
        "redirectUri": overview["redirectUris"][0],
        "baseUrl": base_url,
        "authorizeUrl": overview["authorizeUrl"],
        "store": {"kind": "sqlite", "path": database},
    }
    example = subprocess.Popen(
        [WINE, program, json.dumps(configuration)],
        env=os.environ | environment(prefix),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    first = example.stdout.readline()
    link = first.split(": ", 1)[1].strip() if ": " in first else ""
    redirect = consent(base_url, link, company) if link.startswith("http") else ""
    output, _ = example.communicate(redirect + "\n", timeout=120)
    if example.returncode or f"connected: Company {company}" not in output:
        raise frame.Failed(f"{program}: status {example.returncode}\n{first}{output}")
    # A line for each location: ID, status, name.
    visited = re.findall(r"^(\w+) +200 ", output, re.MULTILINE)
    if len(visited) != 5:
        raise frame.Failed(f"{program} visited {len(visited)} of 5 locations:\n{output}")


def consume(result, cargo, target, emulator):
    """Installs a release, and runs the examples from it in a prefix that has nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        tree, prefix = Path(folder, "tree"), Path(folder, "prefix")
        install = ["xtask", "install", "--target", TARGET, "--target-dir", target / "install"]
        environment_of_build = os.environ | {"CARGO_TARGET_DIR": str(target)}
        frame.run([cargo, *install, "--prefix", tree], env=environment_of_build)
        check_library(result, tree / "bin/ghl_oauth.dll", LARGEST)
        create(prefix)
        app = prefix / "drive_c/app"
        app.mkdir()
        private = re.search(
            r"^Libs.private: (.*)$", (tree / "lib/pkgconfig/ghl_oauth.pc").read_text(), re.MULTILINE
        )[1].split()
        typed = tree / "share/ghl_oauth/ghl_oauth_typed.c"
        include = f"-I{tree}/include"
        for language, source in (("gcc", "c/quickstart.c"), ("g++", "cpp/quickstart.cpp")):
            compiler = [
                GCC + language,
                "-O1",
                "-Wall",
                "-Werror",
                include,
                ROOT / "examples" / source,
            ]
            compiler += [typed] if language == "gcc" else ["-std=c++17"]
            # The runtime of GCC is linked statically, as programs are usually shipped.
            for kind, libraries in (
                ("dll", [f"-L{tree}/lib", "-static", "-l:libghl_oauth.dll.a"]),
                ("static", ["-static", tree / "lib/libghl_oauth.a", *private]),
            ):
                frame.run([*compiler, *libraries, "-o", app / f"{language}-{kind}.exe"])
        names = sorted(path.name for path in app.iterdir())
        # Programs that are linked to the static library run before the DLL is there.
        with running_emulator(emulator, PREFIX) as running:
            for name in sorted(names, key=lambda name: "dll" in name):
                if "dll" in name:
                    shutil.copy(tree / "bin/ghl_oauth.dll", app)
                run_example(f"C:\\app\\{name}", running, f"C:\\app\\{name}.db", prefix)
        result.check(f"from an installed tree in a bare prefix: {', '.join(names)}")


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
    built = target / TARGET / "debug"
    check_library(result, built / "deps/ghl_oauth.dll")
    frame.step("run the tests")
    emulator = built / "ghl-oauth-emulator.exe"
    suite = Suite(result, [WINE], environment() | {"GHL_OAUTH_EMULATOR": f"Z:{emulator}"})
    suite.run(programs, LEFT_OUT)
    frame.step("release build, and its consumers")
    consume(result, cargo, target, emulator)
    return frame.report(NAME, f"run by {wine}", result, is_update)
