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

# `python3 SCRIPT ARGUMENT` for Windows programs: starts the Python of this machine. A program for
# Linux cannot write to a pipe of Wine, and Wine returns no handle to wait for it.
PYTHON = r"""
#include <stdio.h>
#include <windows.h>

int main(int argc, char **argv)
{
    char file[MAX_PATH], command[8192], line[8192];
    if (argc != 3 || GetTempFileNameA(".", "py", 0, file) == 0)
        return 2;
    snprintf(command, sizeof command, "Z:\\usr\\bin\\python3 \"%s\" \"%s\"", argv[1], argv[2]);
    SECURITY_ATTRIBUTES inherited = {sizeof inherited, NULL, TRUE};
    STARTUPINFOA start = {.cb = sizeof start, .dwFlags = STARTF_USESTDHANDLES};
    start.hStdOutput = CreateFileA(file, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_DELETE,
                                   &inherited, CREATE_ALWAYS, FILE_ATTRIBUTE_NORMAL, NULL);
    start.hStdError = start.hStdOutput;
    PROCESS_INFORMATION process;
    if (!CreateProcessA(NULL, command, NULL, NULL, TRUE, 0, NULL, NULL, &start, &process))
        return 3;
    for (int tries = 0; tries < 1000; tries++) {
        FILE *output = fopen(file, "r");
        char *end = output && fgets(line, sizeof line, output) ? strchr(line, '\n') : NULL;
        if (output)
            fclose(output);
        if (end) {
            fputs(line, stdout);
            CloseHandle(start.hStdOutput);
            return DeleteFileA(file) ? 0 : 4;
        }
        Sleep(20);
    }
    return 5;
}
"""

# `cc` and `c++` for the tests of the C and C++ interfaces, which run on this machine: the programs
# are for Windows, and each is a script that starts Wine.
COMPILER = """#!/usr/bin/env python3
import os, subprocess, sys

arguments = []
for word in sys.argv[1:]:
    if word == "-L{native}":
        word = "-L{foreign}"
    if not word.startswith("-Wl,-rpath"):
        arguments.append(word)
program = arguments[arguments.index("-o") + 1] if "-o" in arguments else None
if program:
    arguments[arguments.index("-o") + 1] = program + ".exe"
status = subprocess.call(["{gcc}", "-D__USE_MINGW_ANSI_STDIO=1", *arguments])
if program and status == 0:
    with open(program, "w") as script:
        script.write('#!/bin/sh\\nunset LD_LIBRARY_PATH\\nexec {wine} "$0.exe" "$@"\\n')
    os.chmod(program, 0o755)
sys.exit(status)
"""

# DLLs of every Windows since 8.1. Any other DLL would have to be shipped.
SYSTEM_DLLS = """
    advapi32 bcrypt bcryptprimitives crypt32 kernel32 msvcrt ncrypt ntdll secur32 user32 userenv ws2_32
    api-ms-win-core-synch-l1-2-0
""".split()

# The size limit of the DLL, in bytes.
LARGEST = 5_500_000

LEFT_OUT = []

NATIVE_LEFT_OUT = []


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


def native(result, target, foreign):
    """Runs the tests of the C and C++ interfaces with programs for Windows."""
    variables = {"CARGO_TARGET_DIR": str(target / "native"), "CARGO_PROFILE_DEV_DEBUG": "0"}
    names = ["c", "cpp", "agency_day"]
    programs = frame.build("cargo", [f"--test={name}" for name in names], variables)
    deps = Path(programs["c"].executable).parent
    system = PREFIX / "drive_c/windows/system32"
    gcc_folder = Path(frame.run([GCC + "gcc", "-print-file-name=libgcc_s_seh-1.dll"],
                                capture_output=True, text=True).stdout.strip()).parent
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "python3.c")
        source.write_text(PYTHON)
        frame.run([GCC + "gcc", "-std=c99", source, "-o", system / "python3.exe"])
        for name, gcc in (("cc", "gcc"), ("c++", "g++")):
            text = COMPILER.format(native=deps, foreign=foreign, gcc=GCC + gcc, wine=WINE)
            Path(folder, name).write_text(text)
            Path(folder, name).chmod(0o755)
        folders = [foreign, gcc_folder, "/usr/x86_64-w64-mingw32/lib"]
        variables = environment() | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "WINEPATH": ";".join(f"Z:{path}" for path in folders),
        }
        renamed = {}
        for name, program in programs.items():
            program.name = f"{name} (programs for Windows)"
            renamed[program.name] = program
        Suite(result, (), variables).run(renamed, NATIVE_LEFT_OUT)


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
            compiler = [GCC + language, "-O1", "-Wall", "-Werror", include, ROOT / "examples" / source]
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
    frame.step("run the tests of C and C++")
    native(result, target, built / "deps")
    frame.step("release build, and its consumers")
    consume(result, cargo, target, emulator)
    return frame.report(NAME, f"run by {wine}", result, is_update)
