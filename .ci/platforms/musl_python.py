"""A CPython that is linked with musl, and a bare system where it tests the wheel."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import frame
import python_tests
import wheels
from frame import ROOT, TOOLS, Failed, LeftOut

# No registry has such a Python, so it is built from Debian's sources. Its modules are linked
# statically: setup.py, which builds them otherwise, also searches the folders of glibc's headers.
SOURCES = ("python3.11", "libffi", "zlib")
BUILD = r"""
set -eu
sqlite=$1 parts=$PWD/parts
export CFLAGS="-O1 -w"
mkdir -p "$parts/include" "$parts/lib" usr/bin usr/lib
for source in python3.11 libffi zlib; do
    mkdir "$source"
    tar -xf "${source}"_*.orig.tar.* -C "$source" --strip-components=1
done

cd libffi
# Static trampolines need headers of Linux, which musl does not bring along.
./configure --quiet CC=musl-gcc --host=x86_64-linux-musl --prefix="$parts" --disable-shared \
    --disable-docs --disable-multi-os-directory --disable-exec-static-tramp
make -s -j2 install
cd ../zlib
CC=musl-gcc ./configure --static --prefix="$parts"
make -s -j2 install
cd ..
musl-gcc $CFLAGS -c "$sqlite/sqlite3.c" -o sqlite3.o
ar rcs "$parts/lib/libsqlite3.a" sqlite3.o
cp "$sqlite/sqlite3.h" "$parts/include"

cd python3.11
# musl-gcc calls the platform x86_64-linux-gnu, which configure refuses. musl's threads have 128 KiB
# of stack, which Python code exceeds.
cat >musl-cc <<'END'
#!/bin/sh
case $1 in --print-multiarch) echo x86_64-linux-musl ;; *) exec musl-gcc "$@" ;; esac
END
chmod +x musl-cc
./configure --quiet CC="$PWD/musl-cc" OPT=-DNDEBUG MODULE_BUILDTYPE=static --prefix=/usr \
    --disable-test-modules CPPFLAGS="-I$parts/include -DTHREAD_STACK_SIZE=0x100000" \
    LDFLAGS="-L$parts/lib" \
    PKG_CONFIG_LIBDIR="$parts/lib/pkgconfig"
# The list of modules that configure found, and ctypes, which it leaves to setup.py.
ctypes='-lffi -DHAVE_FFI_PREP_CIF_VAR -DHAVE_FFI_PREP_CLOSURE_LOC -DHAVE_FFI_CLOSURE_ALLOC'
sed -e '/^# Test modules/,$d' -e '/^_crypt /d' -e '/cjkcodecs/d' \
    -e "s/^#@MODULE__CTYPES_TRUE@\(.*\)/\1 $ctypes/" Modules/Setup.stdlib >Modules/Setup.local
make -s -j2 python pybuilddir.txt
strip -o ../usr/bin/python3.11 python
ln -s python3.11 ../usr/bin/python3
cp -r Lib ../usr/lib/python3.11
cp "$(cat pybuilddir.txt)"/_sysconfigdata_*.py ../usr/lib/python3.11
mkdir -p ../usr/lib/python3.11/lib-dynload
cd ../usr/lib/python3.11
rm -rf test idlelib tkinter lib2to3 turtledemo
"""

NO_SSL = "the musl Python is built without ssl"
LEFT_OUT = [
    LeftOut("python", "tests.test_proxy", NO_SSL),
    *(
        LeftOut("python", f"tests.test_windows.SimulatedWindowsTest.{test}", NO_SSL)
        for test in (
            "test_command_line_connects_and_lists_a_company",
            "test_every_module_is_imported",
        )
    ),
    *(
        LeftOut("python", f"tests.test_doctor.NetworkTest.{test}", NO_SSL)
        for test in (
            "test_certificate_that_has_expired_is_diagnosed_together_with_the_clock",
            "test_untrusted_certificate_is_diagnosed_with_its_issuer",
        )
    ),
    LeftOut(
        "python",
        "tests.test_doctor.DeadDatabaseTest."
        "test_exclusively_locked_database_is_diagnosed_with_the_process",
        "the bare system does not name the holder of a lock",
    ),
]

# Runs a command in a bare system. The mounts end with the last process in their namespace.
ENTER = r"""
mount --rbind /dev "$0/dev"
mount -t proc proc "$0/proc"
exec chroot "$0" sh -c 'cd /source/bindings/python; exec "$@"' sh "$@"
"""


def apt_sources():
    """Options of apt-get for Debian's source packages, which a machine need not have set up."""
    folder = TOOLS / "source-packages"
    (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
    form = "deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)"
    targets = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    done = frame.run([*targets, "Origin: Debian"], capture_output=True, text=True)
    # The mirrors of security updates may lack their sources.
    lines = [line for line in done.stdout.splitlines() if "-" not in line.split()[2]]
    (folder / "sources.list").write_text("\n".join(lines) + "\n")
    options = [
        f"Dir::Etc::SourceList={folder / 'sources.list'}",
        "Dir::Etc::SourceParts=/dev/null",
        f"Dir::State::Lists={folder / 'lists'}",
        "Dir::Cache::pkgcache=",
        "Dir::Cache::srcpkgcache=",
        "APT::Sandbox::User=root",
    ]
    return [word for option in options for word in ("-o", option)]


def python(cargo, target):
    """Builds the Python, unless it exists. Returns the folder that contains its `usr`."""
    folder = TOOLS / "musl/python"
    sqlite = frame.crates(cargo, target)["libsqlite3-sys"] / "sqlite3"
    stamp = folder / "recipe"
    recipe = f"{sqlite.parent.name}\n{BUILD}"
    if stamp.exists() and stamp.read_text() == recipe:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    frame.install("gcc", "make", "musl-tools")
    options = apt_sources()
    frame.run(["apt-get", "-qq", *options, "update"])
    source = ["source", "--download-only", "--only-source", *SOURCES]
    with tempfile.TemporaryDirectory() as work:
        frame.run(["apt-get", "-qq", *options, *source], cwd=work)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        frame.run(["sh", "-c", BUILD, "build", sqlite], cwd=work, **pipes)
        shutil.move(Path(work, "usr"), folder)
    shutil.rmtree(TOOLS / "source-packages")
    stamp.write_text(recipe)
    return folder


def busybox():
    """A static program with the usual commands, as on Alpine."""
    program = TOOLS / "musl/busybox"
    if not program.exists():
        with tempfile.TemporaryDirectory() as work:
            download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download"]
            frame.run([*download, "busybox-static"], cwd=work)
            (package,) = Path(work).glob("*.deb")
            frame.run(["dpkg", "-x", package, work])
            shutil.copy(Path(work, "bin/busybox"), program)
    return program


def system(root, interpreter, loader, emulator):
    """Creates a system with musl, Python, BusyBox, the emulator, and the tests in `source`."""
    shutil.copytree(interpreter / "usr", root / "usr", symlinks=True)
    for name in ("bin", "dev", "etc", "lib", "proc", "tmp", "wheel"):
        (root / name).mkdir()
    shutil.copy(loader.resolve(), root / "lib" / loader.name)
    shutil.copy(busybox(), root / "bin/busybox")
    for name in frame.run([busybox(), "--list"], capture_output=True, text=True).stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    shutil.copy(emulator, root / "usr/bin/ghl-oauth-emulator")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    certificates = Path("etc/ssl/certs/ca-certificates.crt")
    (root / certificates.parent).mkdir(parents=True)
    shutil.copy(Path("/", certificates), root / certificates)
    (root / "etc/passwd").write_text("root:x:0:0:root:/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    source = root / "source"
    package = shutil.ignore_patterns("src", "__pycache__")
    shutil.copytree(ROOT / "bindings/python", source / "bindings/python", ignore=package)
    for name in ("docs", "examples", "include", "src"):
        shutil.copytree(ROOT / name, source / name)
    shutil.copy(ROOT / "README.md", source)
    libraries = [file.name for file in root.rglob("*.so*")]
    if libraries != [loader.name]:
        raise Failed(f"the bare system has the libraries {libraries}")


def test(result, interpreter, loader, library, expected, emulator):
    """Installs the wheel with pip in a bare system, and runs the tests of the Python package."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        system(root, interpreter, loader, emulator)
        file = wheels.build_tagged(library, root / "wheel", expected)
        command = ["unshare", "--mount", "sh", "-euc", ENTER, root, "python3"]
        environment = {
            "HOME": "/tmp",
            "PATH": "/usr/bin:/bin:/usr/sbin",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "PYTHONDONTWRITEBYTECODE": "1",
            "GHL_OAUTH_EMULATOR": "/usr/bin/ghl-oauth-emulator",
        }
        options = {"env": environment, "capture_output": True, "text": True}
        version = frame.run([*command, "--version"], **options).stdout.strip()
        frame.run([*command, "-m", "ensurepip"], **options)
        pip = ["-m", "pip", "install", "--no-index", f"/wheel/{file.name}"]
        frame.run([*command, *pip], **options)
        passed, skipped = python_tests.run(result, command, LEFT_OUT, at_once=2, env=environment)
    result.check(
        f"its wheel is `{expected}`, pip installs it where musl is the only library, and there "
        f"{passed} tests of the Python package pass with {version} "
        f"({skipped} lack a package or program)"
    )
