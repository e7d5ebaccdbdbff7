"""Windows on x86-64 with the GNU ABI, run by Wine."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import example
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
# Linux cannot write to a pipe of Wine, and Wine returns no handle to wait for it. FOLDER is a
# temporary folder: a test that ends this program leaves the file behind.
PYTHON = r"""
#include <stdio.h>
#include <windows.h>

int main(int argc, char **argv)
{
    char file[MAX_PATH], command[8192], line[8192];
    if (argc != 3 || GetTempFileNameA(FOLDER, "py", 0, file) == 0)
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
SYSTEM_DLLS = [
    "advapi32",
    "bcrypt",
    "bcryptprimitives",
    "crypt32",
    "kernel32",
    "msvcrt",
    "ncrypt",
    "ntdll",
    "secur32",
    "user32",
    "userenv",
    "ws2_32",
    "api-ms-win-core-synch-l1-2-0",
]

# The size limit of the DLL, in bytes.
LARGEST = 5_500_000

UNIX = "an example for Unix: it uses signals, sockets or file locks of POSIX"
ORDER = "mingw destroys the main thread's thread_local objects after static ones, not before"
STARTS = "it starts a compiler or Python for Linux"
RESET = "Wine reports a reset of a connection as its end"

# Programs that check the sources, or a model: they are the same everywhere.
NOT_RUN = {"architecture", "docs", "emulator/docs", "header", "model", "vendor_description"}

AGENCY_DAY = "program_written_from_the_readme_holds_every_connection_after_an_agencys_day"

LEFT_OUT = [
    LeftOut("agency_day", f"c_{AGENCY_DAY}", STARTS),
    LeftOut("agency_day", f"cpp_{AGENCY_DAY}", STARTS),
    LeftOut("agency_day", f"python_{AGENCY_DAY}", STARTS),
    LeftOut("python", "python_tests_pass", STARTS),
    LeftOut("emulator/connections", "connections_are_counted_and_closed_on_request", RESET),
    LeftOut("emulator/connections", "faults_work_over_tls_as_over_tcp", RESET),
    LeftOut("emulator/faults", "truncated_body_is_shorter_than_its_content_length", RESET),
]

NATIVE_LEFT_OUT = [
    LeftOut("c", "agency_server_applies_webhooks_and_visits_every_location", UNIX),
    LeftOut("c", "folder_store_shared_by_processes_loses_no_token", UNIX),
    LeftOut("c", "gateway_serves_tenants_while_others_wait_and_ends_in_order", UNIX),
    LeftOut("c", "signal_ends_the_agency_server_during_its_calls", UNIX),
    LeftOut("cpp", "client_can_be_used_by_destructors_of_static_and_thread_local_objects", ORDER),
]


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


def end(prefix):
    """Ends all programs of a prefix, including the leftovers of a failed test."""
    for option in ("-k", "-w"):
        server = ["/usr/lib/wine/wineserver64", option]
        subprocess.run(server, env=os.environ | environment(prefix), check=False)


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


def native(result, foreign):
    """Runs the tests of the C and C++ interfaces with programs for Windows."""
    programs = frame.build("cargo", ["--test=c", "--test=cpp"], {})
    deps = Path(programs["c"].executable).parent
    system = PREFIX / "drive_c/windows/system32"
    find = [GCC + "gcc", "-print-file-name=libgcc_s_seh-1.dll"]
    found = frame.run(find, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "python3.c")
        source.write_text(PYTHON)
        output = f'-DFOLDER="Z:{folder}"'
        frame.run([GCC + "gcc", "-std=c99", output, source, "-o", system / "python3.exe"])
        for name, gcc in (("cc", "gcc"), ("c++", "g++")):
            text = COMPILER.format(native=deps, foreign=foreign, gcc=GCC + gcc, wine=WINE)
            Path(folder, name).write_text(text)
            Path(folder, name).chmod(0o755)
        folders = [foreign, Path(found).parent, "/usr/x86_64-w64-mingw32/lib"]
        variables = environment() | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "WINEPATH": ";".join(f"Z:{path}" for path in folders),
        }
        Suite(result, (), variables).run(programs, NATIVE_LEFT_OUT)


def consume(result, cargo, target, emulator):
    """Installs a release, and runs the examples from it in a prefix that has nothing else."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
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
        variables = {"env": os.environ | environment()}
        with example.emulator([WINE, emulator], **variables) as base:
            for name in sorted(names, key=lambda name: "dll" in name):
                if "dll" in name:
                    shutil.copy(tree / "bin/ghl_oauth.dll", app)
                store = {"kind": "sqlite", "path": f"C:\\app\\{name}.db"}
                variables = {"env": os.environ | environment(prefix)}
                example.quickstart([WINE, f"C:\\app\\{name}"], base, store, **variables)
                if not (app / f"{name}.db").exists():
                    raise frame.Failed(f"{name} stored nothing")
        # Its server writes to the prefix until it ends.
        end(prefix)
        result.check(f"from an installed tree in a bare prefix: {', '.join(names)}")


def main(is_update):
    wine = prepare()
    try:
        return test(is_update, wine)
    finally:
        end(PREFIX)


def test(is_update, wine):
    result = Result()
    cargo = frame.cross(TARGET)
    frame.step("build the tests")
    target = frame.COMMON
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
    run = {name: program for name, program in programs.items() if name not in NOT_RUN}
    suite.run(run, LEFT_OUT)
    frame.step("run the tests of C and C++")
    native(result, built / "deps")
    frame.step("release build, and its consumers")
    consume(result, cargo, target, emulator)
    return frame.report(NAME, f"run by {wine}", result, is_update)
