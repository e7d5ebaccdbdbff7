"""Builds the libraries and the emulator of a target, and separates their debug symbols."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import frame
import musl
from frame import ROOT
from targets import cargo_home

# The folder of Cargo's output. A second build, in a copy of the sources, uses a different folder.
WORK = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release-files"


@functools.cache
def version():
    """The version of all packages."""
    return re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]


@functools.cache
def epoch():
    """The modification time of all files: the time of the commit, or SOURCE_DATE_EPOCH."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    command = ["git", "-c", f"safe.directory={ROOT}", "log", "-1", "--format=%ct"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise frame.Failed("not a Git checkout: set SOURCE_DATE_EPOCH to the seconds of a date")
    return int(done.stdout)


def cargo(target):
    """The cargo that can build for the target."""
    return "cargo" if target.is_native else str(frame.cross(target.triple))


def renamed_folders():
    """The folders of this machine, and their names in the files that are built.

    A later one wins, so that a folder may contain another.
    """
    sources = sorted(Path(cargo_home(), "registry/src").glob("*"))
    return [
        (Path(cargo_home()), "/cargo"),
        *((folder, "/cargo/registry") for folder in sources),
        (ROOT, f"/ghl-oauth-{version()}"),
        (WORK, "/target"),
    ]


def environment(target):
    """The environment of Cargo: nothing that is built contains a path of this machine."""
    renamed = [f"{folder}={name}" for folder, name in renamed_folders()]
    c_flags = [f"-ffile-prefix-map={pair}" for pair in renamed]
    rust_flags = [f"--remap-path-prefix={pair}" for pair in renamed]
    if target.is_windows and not target.is_msvc:
        rust_flags += ["-Clink-arg=-Wl,--no-insert-timestamp", f"-Cdlltool={ROOT}/.ci/dlltool"]
        rust_flags.append(f"-Clinker={ROOT}/.ci/mingw-gcc")
    if target.is_msvc:
        # A clean Windows has no VCRUNTIME140.dll.
        rust_flags.append("-Ctarget-feature=+crt-static")
    triple = target.triple.replace("-", "_")
    # Cargo prefers this variable to that of .cargo/config.toml, which therefore is repeated.
    config = (ROOT / ".cargo/config.toml").read_text()
    own = re.search(rf'^CFLAGS_{triple} = "(.*)"', config, re.MULTILINE)
    variables = {
        "CARGO_TARGET_DIR": str(WORK / "cargo"),
        "CARGO_INCREMENTAL": "0",
        f"CARGO_TARGET_{target.variable}_RUSTFLAGS": " ".join(rust_flags),
    }
    if target.has_debug_archive:
        for profile in ("DEV", "RELEASE"):
            variables[f"CARGO_PROFILE_{profile}_DEBUG"] = "line-tables-only"
            variables[f"CARGO_PROFILE_{profile}_STRIP"] = "none"
    if not target.is_msvc:
        variables[f"CFLAGS_{triple}"] = " ".join([own[1] if own else "", *c_flags])
    inherited = {name: value for name, value in os.environ.items() if name != "RUSTFLAGS"}
    return inherited | variables


def musl_environments(target, variables):
    """The environments of the static and of the shared library, which musl needs two of."""
    name = f"CARGO_TARGET_{target.variable}_RUSTFLAGS"
    flags = variables[name]
    shared = f"{flags} -Ctarget-feature=-crt-static"
    if target.is_native:
        return variables, variables | {name: shared}
    # Debian's GCC: .ci/platforms/musl.py describes what it lacks.
    libraries = musl.unwinder()
    compiler = {
        f"CC_{target.triple.replace('-', '_')}": "musl-gcc",
        f"CARGO_TARGET_{target.variable}_LINKER": "musl-gcc",
    }
    static = f"{flags} -Clink-self-contained=no -Crelocation-model=static -Lnative={libraries}"
    shared += f" -Clink-self-contained=no -Clink-arg={libraries / 'unwinder.o'}"
    return variables | compiler | {name: static}, variables | compiler | {name: shared}


def build(target, is_quick):
    """Builds a target. Returns a folder with the `tree` of the archive and with `debug` files.

    Its folder `postgres` contains the shared library of the extra wheel.
    """
    frame.step(f"{target.triple}: build")
    program = cargo(target)
    frame.run([program, "fetch", "--quiet", "--locked", "--target", target.triple])
    variables = environment(target)
    static = shared = variables
    if target.is_musl:
        static, shared = musl_environments(target, variables)
    folder = WORK / target.triple
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "debug").mkdir(parents=True)
    tree = folder / "tree"
    install = [program, "xtask", "install", "--target", target.triple, "--prefix", "/"]
    install += ["--destdir", tree, "--target-dir", WORK / "cargo"]
    install += ["--debug"] if is_quick else []
    frame.run(install, env=shared, stdout=subprocess.DEVNULL)
    if target.is_musl:
        # Replaces the static library and its description; the shared library stays.
        frame.run(install, env=static, stdout=subprocess.DEVNULL)
    options = ["--quiet", "--locked", "--target", target.triple]
    options += [] if is_quick else ["--release"]
    # The emulator is a program for tests: link-time optimisation would only cost time.
    emulator = static | {"CARGO_PROFILE_RELEASE_LTO": "off"}
    frame.run([program, "build", *options, "--package", "ghl-oauth-emulator"], env=emulator)
    (tree / "bin").mkdir(exist_ok=True)
    built = WORK / "cargo" / target.triple / ("debug" if is_quick else "release")
    shutil.copy(built / target.emulator, tree / "bin")
    if target.is_windows and not target.is_msvc:
        import_library_for_msvc(tree)
    # Last, because it replaces the library of the same name in Cargo's folder.
    postgres = folder / "postgres" / target.library
    postgres.parent.mkdir()
    options += ["--package", "ghl-oauth", "--features", "postgres", "--lib"]
    frame.run([program, "rustc", *options, "--crate-type=cdylib"], env=shared)
    shutil.copy(built / target.library, postgres)
    if target.has_debug_archive:
        for file in (shared_library(target, tree), tree / "bin" / target.emulator):
            separate_symbols(target, file, folder / "debug")
        separate_symbols(target, postgres, folder / "debug/postgres")
        objcopy = target.tool("objcopy")
        archive = tree / "lib/libghl_oauth.a"
        frame.run([objcopy, "--strip-debug", "--enable-deterministic-archives", archive])
    return folder


def shared_library(target, tree):
    """The file that programs load."""
    return (tree / ("bin" if target.is_windows else "lib") / target.library).resolve()


def import_library_for_msvc(tree):
    """The import library in the form that Microsoft's linker reads, under the name of rustc's."""
    frame.install("llvm")
    definition, library = tree / "lib/ghl_oauth.def", tree / "lib/ghl_oauth.dll.lib"
    frame.run(["llvm-dlltool", "-m", "i386:x86-64", "-d", definition, "-l", library])


def separate_symbols(target, file, debug):
    """Moves the debug symbols of a library or program to a file of their own."""
    objcopy = target.tool("objcopy")
    debug.mkdir(exist_ok=True)
    symbols = debug / f"{file.name}.debug"
    frame.run([objcopy, "--only-keep-debug", file, symbols])
    symbols.chmod(0o644)
    # Both steps at once would compute the checksum of the file before it is stripped.
    frame.run([target.tool("strip"), "--strip-all", file])
    frame.run([objcopy, f"--add-gnu-debuglink={symbols}", file])
