"""Linux with musl on x86-64: static programs, and the shared library and its wheel without glibc
and gcc's runtime."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import example
import frame
import musl_python
from frame import ROOT, TOOLS, Failed, Result, Suite

TARGET = "x86_64-unknown-linux-musl"
NAME = "Linux x86_64, musl"
LOADER = "ld-musl-x86_64.so.1"

# Debian's gcc has no unwinder for musl. The one for glibc asks glibc for the unwind tables of an
# address, and calls thread functions through weak references, which take nothing out of a static
# library.
UNWINDER = r"""
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>

struct dl_find_object {
    unsigned long long flags;
    void *start, *end;
    struct link_map *map;
    void *tables;
    unsigned long long reserved[7];
};

struct search {
    ElfW(Addr) address;
    struct dl_find_object *found;
};

static int visit(struct dl_phdr_info *object, size_t size, void *data)
{
    (void)size;
    struct search *search = data;
    int is_inside = 0;
    ElfW(Addr) tables = 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &object->dlpi_phdr[i];
        ElfW(Addr) start = object->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD && search->address - start < header->p_memsz) {
            is_inside = 1;
            search->found->start = (void *)start;
            search->found->end = (void *)(start + header->p_memsz);
        }
        if (header->p_type == PT_GNU_EH_FRAME)
            tables = start;
    }
    search->found->tables = (void *)tables;
    return is_inside && tables;
}

int _dl_find_object(void *address, struct dl_find_object *found)
{
    struct search search = {(ElfW(Addr))address, found};
    return dl_iterate_phdr(visit, &search) ? 0 : -1;
}

void *const ghl_ci_thread_functions[] = {
    (void *)pthread_once, (void *)pthread_key_create, (void *)pthread_getspecific,
    (void *)pthread_setspecific, (void *)pthread_mutex_lock, (void *)pthread_mutex_unlock,
    (void *)pthread_mutex_trylock, (void *)pthread_cond_wait, (void *)pthread_cond_broadcast,
};
"""

# Test programs that start no other program and load no shared library.
TESTS = (
    "cancel", "consent", "main_job", "one_flight", "seal", "store", "token_life", "transport",
)  # fmt: skip

LEFT_OUT = []


def unwinder():
    """Prepares Debian's unwinder for static programs. Returns the folder of the libraries."""
    folder = TOOLS / "musl"
    folder.mkdir(parents=True, exist_ok=True)
    source, compiled = folder / "unwinder.c", folder / "unwinder.o"
    source.write_text(UNWINDER)
    frame.run(["musl-gcc", "-O1", "-fPIC", "-Wall", "-Wextra", "-c", source, "-o", compiled])
    # The standard library links `unwind`, the name of LLVM's unwinder, into static programs.
    (folder / "libunwind.a").write_text(f"INPUT({compiled} -lgcc_eh -lgcc)\n")
    return folder


def needed(file):
    """The shared libraries that a file needs, and its loader."""
    done = frame.run(["readelf", "-dl", "-W", file], capture_output=True, text=True)
    return re.findall(r"\(NEEDED\).*\[(.*)\]|interpreter: (.*)\]", done.stdout)


def check_static(program):
    if needed(program):
        raise Failed(f"{program} is not static: {needed(program)}")


def compile_quickstart(into, *arguments):
    """Compiles the example with musl."""
    sources = [ROOT / "examples/c/quickstart.c", ROOT / "bindings/c/ghl_oauth_typed.c"]
    folders = [f"-I{ROOT / 'include'}", f"-I{ROOT / 'bindings/c'}"]
    frame.run(
        [
            "musl-gcc",
            "-std=c99",
            "-D_POSIX_C_SOURCE=200809L",
            *sources,
            *folders,
            "-o",
            into,
            *arguments,
        ]
    )


def main(is_update):
    result = Result()
    frame.install("musl", "musl-tools", "binutils")
    cargo = frame.cross(TARGET)
    libraries = unwinder()
    build = {
        "CARGO_TARGET_DIR": str(frame.COMMON),
        "CARGO_PROFILE_DEV_DEBUG": "0",
        "CC_x86_64_unknown_linux_musl": "musl-gcc",
        "CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER": "musl-gcc",
        "RUSTFLAGS": f"-Clink-self-contained=no -Crelocation-model=static -Lnative={libraries}",
    }
    frame.step("build static tests")
    selected = ["--lib", *(word for test in TESTS for word in ("--test", test))]
    programs = frame.build(cargo, ["--target", TARGET, *selected], build)
    for program in programs.values():
        check_static(program.executable)
    result.check("the test programs are static")
    emulator = build_emulator(cargo, build)
    check_static(emulator)
    frame.step("run the tests")
    Suite(result, environment={"GHL_OAUTH_EMULATOR": str(emulator)}).run(programs, LEFT_OUT)

    frame.step("a static C program")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "quickstart")
        archive = frame.COMMON / TARGET / "debug/deps/libghl_oauth.a"
        compile_quickstart(program, "-static", archive, libraries / "unwinder.o")
        check_static(program)
        with example.emulator([emulator]) as base:
            example.quickstart([program], base)
    result.check("a static C program with the static library runs the quickstart")

    frame.step("build the shared library")
    library = shared_library(cargo, build, libraries)
    if needed(library) != [("libc.so", "")]:
        raise Failed(f"{library} needs {needed(library)}")
    with tempfile.TemporaryDirectory() as folder:
        bare_system(Path(folder), library, emulator)
    result.check("the shared library needs only musl, and runs the quickstart without another file")
    frame.step("test the wheel")
    interpreter = musl_python.python(cargo, TARGET)
    loader = Path("/lib", LOADER)
    musl_python.test(result, interpreter, loader, library, "musllinux_1_2_x86_64", emulator)
    return frame.report(NAME, "run here", result, is_update)


def build_emulator(cargo, build):
    """Builds the emulator, a static program."""
    command = [cargo, "build", "--quiet", "--target", TARGET, "--package", "ghl-oauth-emulator"]
    frame.run(command, env=os.environ | build)
    return frame.COMMON / TARGET / "debug/ghl-oauth-emulator"


def shared_library(cargo, build, libraries):
    """Builds the shared library, which static code cannot be."""
    flags = "-Ctarget-feature=-crt-static -Clink-self-contained=no"
    dynamic = build | {
        "RUSTFLAGS": f"{flags} -Clink-arg={libraries / 'unwinder.o'}",
    }
    command = [cargo, "rustc", "--quiet", "--target", TARGET, "--lib", "--crate-type=cdylib"]
    frame.run(command, env=os.environ | dynamic)
    return frame.COMMON / TARGET / "debug/libghl_oauth.so"


def bare_system(root, library, emulator):
    """Runs the quickstart where musl's C library is the only other file."""
    (root / "lib").mkdir()
    shutil.copy(Path("/lib", LOADER).resolve(), root / "lib" / LOADER)
    shutil.copy(library, root / "lib/libghl_oauth.so")
    compile_quickstart(root / "quickstart", f"-L{root / 'lib'}", "-lghl_oauth")
    with example.emulator([emulator]) as base:
        example.quickstart(["chroot", root, "/quickstart"], base)
