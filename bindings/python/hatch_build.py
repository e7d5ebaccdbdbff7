"""Build hook: a wheel contains the native library, an sdist the crate's sources.

The environment variable GHL_OAUTH_LIBRARY names a prebuilt library, which makes Rust unnecessary,
and CARGO_BUILD_TARGET another platform: the wheel's platform tag is read from the library.
Options in pyproject.toml: ``package`` is the folder of the library, and ``features`` lists Cargo
features that are added to the default ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The names under which the package loads the library, by the beginning of the platform tag.
FILE_NAMES = {"win": "ghl_oauth.dll", "macosx": "libghl_oauth.dylib", "": "libghl_oauth.so"}


class NativeLibraryHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the native library or the crate to the package."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel or an sdist is built."""
        self._scratch = Path(tempfile.mkdtemp(prefix="ghl-oauth-build-"))
        if self.target_name == "sdist":
            build_data["force_include"][str(self._packaged_crate())] = "crate"
        elif version != "editable":  # an editable install loads GHL_OAUTH_LIBRARY at run time
            library = self._library()
            platform = _platform_tag(library)
            package = self.config.get("package", "ghl_oauth")
            build_data["force_include"][str(library)] = f"{package}/{_file_name(platform)}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called after the build."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _library(self) -> Path:
        prebuilt = os.environ.get("GHL_OAUTH_LIBRARY")
        if prebuilt:
            library = Path(prebuilt).resolve()
            if not library.is_file():
                raise FileNotFoundError(f"GHL_OAUTH_LIBRARY names {library}, which does not exist")
            return library
        # Only the shared library: with a Rust library as well, Cargo would skip link-time
        # optimization.
        features = ",".join(self.config.get("features", ()))
        messages = self._cargo(
            "rustc", "--release", "--lib", "--crate-type=cdylib", "--locked",
            f"--features={features}", "--message-format=json-render-diagnostics",
        )  # fmt: skip
        # Cargo reports the file's path, which depends on the target directory and the target.
        for line in messages.splitlines():
            message = json.loads(line)
            if (
                message["reason"] == "compiler-artifact"
                and message["target"]["name"] == "ghl_oauth"
            ):
                for file in map(Path, message["filenames"]):
                    if file.name in FILE_NAMES.values():
                        return file
        raise FileNotFoundError("cargo build did not create the shared library")

    def _packaged_crate(self) -> Path:
        """The crate in its published form: its own files, and a manifest without the workspace."""
        self._cargo(
            "package",
            "--quiet",
            "--no-verify",
            "--allow-dirty",
            "--target-dir",
            str(self._scratch / "target"),
        )
        (archive,) = (self._scratch / "target" / "package").glob("*.crate")
        with tarfile.open(archive) as crate:
            crate.extractall(self._scratch)
        return self._scratch / archive.stem

    def _cargo(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                ["cargo", *arguments],
                cwd=self._crate(),
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
        except FileNotFoundError as error:
            raise FileNotFoundError(
                "building ghl-oauth needs Rust (cargo), or a prebuilt library in GHL_OAUTH_LIBRARY"
            ) from error
        return done.stdout

    def _crate(self) -> Path:
        """The crate's folder: `crate` in an sdist, otherwise the repository's root."""
        folders = (Path(self.root) / "crate", *Path(self.root).parents)
        return next(folder for folder in folders if (folder / "Cargo.toml").is_file())


def _file_name(platform: str) -> str:
    return next(name for start, name in FILE_NAMES.items() if platform.startswith(start))


def _platform_tag(library: Path) -> str:
    """The wheel's platform tag, from the library: it may be for another machine than this one."""
    content = library.read_bytes()
    if content.startswith(b"\x7fELF"):
        return _linux_tag(library)
    if content.startswith(struct.pack("<I", MACH_O)):
        return _macos_tag(content)
    if content.startswith(b"MZ") and len(content) >= 64:
        return _windows_tag(content)
    raise ValueError(f"{library} is no shared library of Linux, macOS or Windows")


# The number at the beginning of a 64-bit library, its processors, and the load commands that name
# the oldest version of macOS (mach-o/loader.h).
MACH_O = 0xFEEDFACF
MACOS_MACHINES = {0x0100000C: "arm64", 0x01000007: "x86_64"}
BUILD_VERSION, VERSION_MIN_MACOSX = 0x32, 0x24


def _macos_tag(library: bytes) -> str:
    """The tag of the oldest version that the linker was told, by MACOSX_DEPLOYMENT_TARGET."""
    _, machine, _, _, commands = struct.unpack_from("<5I", library)
    offset = 32
    for _ in range(commands):
        command, size, platform_or_version, version = struct.unpack_from("<4I", library, offset)
        if command in (BUILD_VERSION, VERSION_MIN_MACOSX):
            oldest = version if command == BUILD_VERSION else platform_or_version
            major, minor = oldest >> 16, oldest >> 8 & 0xFF
            if major > 10 and minor:
                # No installer accepts a minor version from macOS 11 on.
                major, minor = major + 1, 0
            return f"macosx_{major}_{minor}_{MACOS_MACHINES[machine]}"
        offset += size
    raise ValueError("the library does not name the oldest macOS that it runs on")


# The processors of Windows libraries (the PE format's field Machine).
WINDOWS_MACHINES = {0x8664: "win_amd64", 0xAA64: "win_arm64", 0x14C: "win32"}


def _windows_tag(library: bytes) -> str:
    (header,) = struct.unpack_from("<I", library, 60)
    (machine,) = struct.unpack_from("<H", library, header + 4)
    return WINDOWS_MACHINES[machine]


# The names of processors in tags (the ELF format's field e_machine).
LINUX_MACHINES = {
    "EM_X86_64": "x86_64",
    "EM_AARCH64": "aarch64",
    "EM_386": "i686",
    "EM_ARM": "armv7l",
    "EM_PPC64": "ppc64le",
    "EM_S390": "s390x",
    "EM_RISCV": "riscv64",
}

# The system libraries that PEP 600 allows in a manylinux wheel and that a Rust library links to.
MANYLINUX_LIBRARIES = re.compile(
    r"(libc|libm|libdl|librt|libpthread|libgcc_s|ld-linux[-\w]*)\.so\.\d+"
)

# The C library of musl, under its own name and under Alpine's: the only one that PEP 656 allows in
# a musllinux wheel.
MUSL = re.compile(r"libc\.so|libc\.musl-\w+\.so\.1")


def _linux_tag(library: Path) -> str:
    """The tag of the oldest C library that suffices; only `linux` if others are needed as well."""
    from elftools.elf.elffile import ELFFile

    with library.open("rb") as file:
        elf = ELFFile(file)
        machine = LINUX_MACHINES[elf["e_machine"]]
        needed = [tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
        section = elf.get_section_by_name(".gnu.version_r")
        versions = {
            version.name
            for _, of_one_library in (section.iter_versions() if section else ())
            for version in of_one_library
        }
    if any(map(MUSL.fullmatch, needed)):
        return f"musllinux_1_2_{machine}" if len(needed) == 1 else f"linux_{machine}"
    glibc = _oldest_glibc(versions) if all(map(MANYLINUX_LIBRARIES.fullmatch, needed)) else None
    return f"manylinux_{glibc[0]}_{glibc[1]}_{machine}" if glibc else f"linux_{machine}"


def _oldest_glibc(versions: set[str]) -> tuple[int, int] | None:
    """The oldest glibc with these symbol versions; None if one is of another library."""
    oldest = (2, 17)  # the oldest that common pip versions support
    for name in versions:
        found = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(\.\d+)?", name)
        if found:
            oldest = max(oldest, (int(found[1]), int(found[2])))
        elif name == "GLIBC_ABI_DT_RELR":
            oldest = max(oldest, (2, 36))
        elif not name.startswith("GCC_"):
            return None
    return oldest
