"""Unpacks an archive as a user does, builds programs with it, and runs them."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

import build
import example
import frame
import musl
import notices
import windows
from frame import ROOT, TOOLS, Failed
from targets import cargo_home

WINESERVER = Path(windows.WINE).with_name("wineserver64")
PROGRAM = ROOT / "examples/c/quickstart.c"

CMAKE = """
cmake_minimum_required(VERSION 3.16)
project(program C)
find_package(ghl_oauth {version} CONFIG REQUIRED COMPONENTS shared static typed_c)
add_executable(shared program.c)
target_link_libraries(shared PRIVATE ghl_oauth::typed_c ghl_oauth::ghl_oauth)
add_executable(static program.c)
target_link_libraries(static PRIVATE ghl_oauth::typed_c ghl_oauth::static {options})
"""

# Without Microsoft's headers and libraries, which cannot be had here.
MSVC = """
#include "ghl_oauth.h"

__declspec(dllimport) void __stdcall ExitProcess(unsigned status);

void mainCRTStartup(void)
{
    ghl_client *client;
    const char *configuration = "{\\"clientId\\": \\"a-1\\", \\"clientSecret\\": \\"s\\"}";
    int32_t status = ghl_client_new(configuration, &client, 0);
    ghl_client_free(client);
    ExitProcess(status == GHL_OK ? 17 : 1);
}
"""


def skipped(what):
    """Reports what a missing program prevents; on a CI machine nothing may be missing."""
    if os.environ.get("CI"):
        raise Failed(f"not tested: {what}")
    print(f"skipped: {what}")


def unpack(archive, folder):
    """Returns the folder of the archive."""
    shutil.unpack_archive(archive, folder)
    (tree,) = folder.iterdir()
    return tree


def check(target, archive, wheels):
    """Checks the archive and the wheels of a target."""
    check_wheels(target, *wheels)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch).resolve()
        tree = unpack(archive, scratch / "unpacked")
        check_paths(tree)
        work = scratch / "programs"
        work.mkdir()
        shutil.copy(PROGRAM, work / "program.c")
        if target.is_msvc:
            print("skipped: programs for MSVC (compile one by hand, docs/install.md)")
        elif target.is_windows:
            check_windows(target, tree, work)
        else:
            check_unix(target, tree, work)
        if target.has_debug_archive and not target.is_windows:
            check_symbols(target, tree)


def check_paths(tree):
    """No file may contain a path of this machine."""
    folders = [ROOT, build.WORK, Path(cargo_home()), TOOLS]
    for file in tree.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for folder in folders:
                # The latter is a symbol of dlltool's (.ci/dlltool).
                for path in (f"{folder}/", "_head_" + re.sub(r"\W", "_", f"{folder}/")):
                    at = content.find(path.encode())
                    if at >= 0:
                        found = content[at : at + 120].split(b"\0")[0]
                        raise Failed(f"{file.relative_to(tree)} contains {found!r}")


def check_symbols(target, tree):
    """The debug symbols that were split off name the source of a function."""
    library = build.shared_library(target, tree)
    debug = build.WORK / target.triple / "debug" / f"{library.name}.debug"
    names = frame.run([target.tool("nm"), "-D", library], capture_output=True, text=True).stdout
    address = re.search(r"^(\w+) T ghl_version$", names, re.MULTILINE)[1]
    command = [target.tool("addr2line"), "-e", debug, f"0x{address}"]
    line = frame.run(command, capture_output=True, text=True).stdout
    if not line.startswith(f"/ghl-oauth-{build.version()}/src/ffi/"):
        raise Failed(f"{debug}: ghl_version is at {line}")


def compiler(target):
    """The C compiler for the programs."""
    if target.is_musl and not target.is_native:
        return "musl-gcc"
    return "cc" if target.is_native else target.tool("gcc")


def pkg_config(tree, *options):
    command = ["pkg-config", *options, "ghl_oauth"]
    environment = os.environ | {"PKG_CONFIG_LIBDIR": str(tree / "lib/pkgconfig")}
    return frame.run(command, env=environment, capture_output=True, text=True).stdout.split()


def by_hand(target, tree, program, *options):
    """Compiles with the commands of docs/install.md."""
    source = program.parent / "program.c"
    typed = tree / "share/ghl_oauth/ghl_oauth_typed.c"
    command = [compiler(target), source, typed, f"-I{tree}/include", f"-L{tree}/lib"]
    frame.run([*command, *options, "-lghl_oauth", "-o", program])
    return program


def by_pkg_config(target, tree, program, *options):
    if not shutil.which("pkg-config"):
        skipped("a program by pkg-config (apt-get install pkg-config)")
        return None
    (typed,) = pkg_config(tree, "--variable=typed_c_dir")
    flags = pkg_config(tree, "--cflags", "--libs")
    sources = [program.parent / "program.c", f"{typed}/ghl_oauth_typed.c"]
    frame.run([compiler(target), *sources, *flags, *options, "-o", program])
    return program


def by_cmake(target, tree, work, *arguments, options=""):
    """A project with two programs, one with the shared and one with the static library."""
    if not shutil.which("cmake"):
        skipped("programs by CMake (apt-get install cmake)")
        return []
    project = CMAKE.format(version=build.version(), options=options)
    (work / "CMakeLists.txt").write_text(project)
    configure = ["cmake", "-S", work, "-B", work / "build", f"-DCMAKE_PREFIX_PATH={tree}"]
    configure += [f"-DCMAKE_C_COMPILER={compiler(target)}", *arguments]
    if not target.is_native:
        configure.append(f"-DCMAKE_SYSTEM_NAME={'Windows' if target.is_windows else 'Linux'}")
    quiet = {"capture_output": True, "text": True}
    frame.run(configure, **quiet)
    frame.run(["cmake", "--build", work / "build"], **quiet)
    suffix = ".exe" if target.is_windows else ""
    return [work / "build" / f"{name}{suffix}" for name in ("shared", "static")]


def check_unix(target, tree, work):
    """Builds the quickstart in four ways, and runs it with the emulator of the archive."""
    options, arguments = "", []
    runner = []
    if target.triple.startswith("aarch64") and not target.is_native:
        frame.install("qemu-user-static")
        runner = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"]
    if target.is_musl and not target.is_native:
        frame.install("musl-tools")
        # With the unwinder that the static library asks for.
        options = f"-L{musl.unwinder()} -static"
    programs = [
        by_hand(target, tree, work / "by_hand", f"-Wl,-rpath,{tree}/lib"),
        by_pkg_config(target, tree, work / "by_pkg_config", f"-Wl,-rpath,{tree}/lib"),
        *by_cmake(target, tree, work, *arguments, options=options),
    ]
    for program in filter(None, programs):
        with example.emulator([*runner, tree / "bin" / target.emulator]) as base:
            count = example.quickstart([*runner, program], base, cwd=work)
        print(f"{program.name}: tokens for {count} locations")


def check_windows(target, tree, work):
    """Builds the quickstart in four ways, and runs it in a Wine prefix that has nothing else."""
    windows.prepare()
    prefix = work.parent / "prefix"
    windows.create(prefix)
    app = prefix / "drive_c/app"
    app.mkdir()
    frame.install("pkg-config", "cmake")
    # GCC's own runtime is linked statically, as programs are usually shipped.
    programs = [
        by_hand(target, tree, work / "by_hand.exe", "-static-libgcc"),
        by_pkg_config(target, tree, work / "by_pkg_config.exe", "-static-libgcc"),
        *by_cmake(target, tree, work, "-DCMAKE_EXE_LINKER_FLAGS=-static-libgcc"),
    ]
    for program in programs:
        shutil.copy(program, app)
    msvc = by_lld(tree, work, app)
    environment = os.environ | windows.environment(prefix)
    wine = {"env": environment, "cwd": app}
    try:
        # The programs that created the prefix may still be ending.
        subprocess.run([WINESERVER, "--wait"], env=environment, check=False)
        emulator = [windows.WINE, tree / "bin" / target.emulator]
        with example.emulator(emulator, env=environment) as base:
            # The program with the static library runs before the DLL is there.
            for name in ("static", "shared", "by_hand", "by_pkg_config"):
                if name == "shared":
                    shutil.copy(tree / "bin/ghl_oauth.dll", app)
                count = example.quickstart([windows.WINE, app / f"{name}.exe"], base, **wine)
                print(f"{name}.exe: tokens for {count} locations")
        if msvc:
            done = subprocess.run([windows.WINE, app / msvc], check=False, **wine)
            if done.returncode != 17:
                raise Failed(f"{msvc} ended with {done.returncode}")
            print(f"{msvc}: made a client")
    finally:
        # Otherwise the server of the prefix would still write into the folder that is removed.
        subprocess.run([WINESERVER, "--kill"], env=environment, check=False)
        subprocess.run([WINESERVER, "--wait"], env=environment, check=False)


def by_lld(tree, work, app):
    """A program with Microsoft's ABI, linked like Microsoft's linker does."""
    said = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    host = re.search(r"^host: (.*)$", said, re.MULTILINE)[1]
    sysroot = subprocess.run(
        ["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True
    ).stdout.strip()
    linker = Path(sysroot, "lib/rustlib", host, "bin/rust-lld")
    if not shutil.which("clang") or not linker.exists():
        skipped("a program for MSVC (apt-get install clang, and Rust from rustup)")
        return None
    (work / "msvc.c").write_text(MSVC)
    (work / "kernel32.def").write_text("LIBRARY kernel32.dll\nEXPORTS\n    ExitProcess\n")
    dlltool = ["llvm-dlltool", "-m", "i386:x86-64", "-d", work / "kernel32.def"]
    frame.run([*dlltool, "-l", work / "kernel32.lib"])
    clang = ["clang", "--target=x86_64-pc-windows-msvc", "-ffreestanding", f"-I{tree}/include"]
    frame.run([*clang, "-c", work / "msvc.c", "-o", work / "msvc.obj"])
    link = [linker, "-flavor", "link", "/nologo", "/entry:mainCRTStartup", "/subsystem:console"]
    libraries = [tree / "lib/ghl_oauth.dll.lib", work / "kernel32.lib"]
    frame.run([*link, "/nodefaultlib", f"/out:{app / 'msvc.exe'}", work / "msvc.obj", *libraries])
    return "msvc.exe"


IMPORT = """
import ghl_oauth
print(ghl_oauth.library_version(), "postgres" in ghl_oauth.library_info()["stores"])
"""


def check_wheels(target, wheel, postgres):
    """The wheels contain the licences, and can be imported where this machine can run them."""
    for file in (wheel, postgres):
        with zipfile.ZipFile(file) as packed:
            names = packed.namelist()
        for wanted in (notices.LICENCES, "LICENSE-MIT", "LICENSE-APACHE"):
            if not any(name.endswith(f"licenses/{wanted}") for name in names):
                raise Failed(f"{file.name} has no {wanted}")
    if not target.is_native:
        return
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "Scripts/python.exe" if os.name == "nt" else "bin/python")
        environment = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
        environment.pop("GHL_OAUTH_LIBRARY", None)
        for file in (wheel, postgres):
            frame.run([python, "-m", "pip", "install", "--quiet", "--no-index", file])
            command = [python, "-c", IMPORT]
            done = frame.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if done.stdout.split() != [build.version(), str(file == postgres)]:
                raise Failed(f"{file.name}: version and PostgreSQL store are {done.stdout}")
            print(f"{file.name}: installed and imported by Python {sys.version.split()[0]}")
