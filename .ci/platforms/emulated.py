"""Linux on other processors: qemu starts each program, including the children of tests."""

import contextlib
import os
import platform
import subprocess
from pathlib import Path

import frame
from frame import TOOLS, Failed

BINFMT = Path("/proc/sys/fs/binfmt_misc")

# Tests run programs under valgrind if it is installed. It cannot run programs of other processors.
VALGRIND = """#!/bin/sh
# Runs the program without valgrind.
case $1 in --version) echo valgrind-none; exit ;; esac
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""


@contextlib.contextmanager
def started_by_qemu(processor):
    """Makes the kernel start programs of the processor with qemu, as docker's images for it do."""
    frame.install("qemu-user-static")
    if not (BINFMT / "register").exists():
        mount = subprocess.run(["mount", "-t", "binfmt_misc", "none", BINFMT], check=False)
        if mount.returncode:
            raise Failed("the kernel has no binfmt_misc, or this user may not mount it")
    name = f"qemu-{processor}"
    is_new = not (BINFMT / name).exists()
    if is_new:
        rule = Path(f"/usr/lib/binfmt.d/{name}.conf").read_bytes().strip()
        (BINFMT / "register").write_bytes(rule)
    try:
        yield
    finally:
        if is_new:
            (BINFMT / name).write_text("-1")


def system(architecture, packages):
    """The files of a Debian system of another architecture. Returns their folder.

    Its packages are unpacked, not installed, so that dpkg of this machine does not need to know the
    architecture.
    """
    folder = TOOLS / "systems" / architecture
    stamp = folder / "packages"
    wanted = " ".join(packages)
    if stamp.exists() and stamp.read_text() == wanted:
        return folder / "root"
    for part in ("lists/partial", "archives", "root"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = [
        f"APT::Architecture={architecture}",
        f"APT::Architectures={architecture}",
        f"Dir::State::lists={folder / 'lists'}",
        "Dir::Cache::pkgcache=",
        "Dir::Cache::srcpkgcache=",
        "APT::Sandbox::User=root",
    ]
    command = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    frame.run([*command, "update"])
    frame.run([*command, "download", *packages], cwd=folder / "archives")
    for package in sorted((folder / "archives").glob("*.deb")):
        frame.run(["dpkg", "-x", package, folder / "root"])
        package.unlink()
    # As the script of the package does when it is installed: otherwise each start of Python would
    # compile the standard library.
    for library in (folder / "root/usr/lib").glob("python3.*"):
        frame.install(library.name)
        frame.run([f"/usr/bin/{library.name}", "-m", "compileall", "-q", library])
    stamp.write_text(wanted)
    return folder / "root"


def compilers(gcc):
    """A folder with the compilers and tools of a processor under the plain names: cc, c++, nm."""
    folder = TOOLS / "plain-names" / gcc
    folder.mkdir(parents=True, exist_ok=True)
    names = {"cc": "gcc", "c++": "g++"}
    for name in ("cc", "gcc", "c++", "g++", "nm", "readelf", "objdump", "ar", "strip"):
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"/usr/bin/{gcc}-{names.get(name, name)}")
    valgrind = folder / "valgrind"
    valgrind.write_text(VALGRIND)
    valgrind.chmod(0o755)
    return folder


def environment(gcc, root):
    """The environment of programs of another processor."""
    return {
        "PATH": f"{compilers(gcc)}:{os.environ['PATH']}",
        "QEMU_LD_PREFIX": str(root),
    }


def qemu_version(processor):
    """The version of qemu, for the table."""
    command = [f"qemu-{processor}-static", "--version"]
    said = frame.run(command, capture_output=True, text=True).stdout.split()
    return f"qemu {said[said.index('version') + 1]} on {platform.machine()}"
