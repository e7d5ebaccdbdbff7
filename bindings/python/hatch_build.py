"""Build hook: a wheel gets the native library, an sdist the crate that the library is built from.

The environment variable GHL_OAUTH_LIBRARY names a library that was built beforehand; then no Rust is needed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

FILE_NAMES = {"win32": "ghl_oauth.dll", "darwin": "libghl_oauth.dylib"}
FILE_NAME = FILE_NAMES.get(sys.platform, "libghl_oauth.so")


class NativeLibraryHook(BuildHookInterface):  # type: ignore[type-arg]
    """See the module."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel or an sdist is put together."""
        self._scratch = Path(tempfile.mkdtemp(prefix="ghl-oauth-build-"))
        if self.target_name == "sdist":
            build_data["force_include"][str(self._packaged_crate())] = "crate"
        elif version != "editable":  # an editable install uses the library that GHL_OAUTH_LIBRARY names at run time
            library = self._library()
            build_data["force_include"][str(library)] = f"ghl_oauth/{FILE_NAME}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform_tag(library)}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when it is done."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _library(self) -> Path:
        prebuilt = os.environ.get("GHL_OAUTH_LIBRARY")
        if prebuilt:
            library = Path(prebuilt).resolve()
            if not library.is_file():
                raise FileNotFoundError(f"GHL_OAUTH_LIBRARY names {library}, which does not exist")
            return library
        # The shared library alone: beside a Rust library, Cargo would not optimise it at link time.
        messages = self._cargo(
            "rustc", "--release", "--lib", "--crate-type=cdylib", "--locked",
            "--message-format=json-render-diagnostics",
        )  # fmt: skip
        # Cargo says where it put the file, whatever the target directory and the target are.
        for line in messages.splitlines():
            message = json.loads(line)
            if message["reason"] == "compiler-artifact" and message["target"]["name"] == "ghl_oauth":
                for file in map(Path, message["filenames"]):
                    if file.name == FILE_NAME:
                        return file
        raise FileNotFoundError(f"cargo build made no {FILE_NAME}")

    def _packaged_crate(self) -> Path:
        """The crate as it would be published: its own files, and a manifest without the workspace."""
        self._cargo("package", "--quiet", "--no-verify", "--allow-dirty", "--target-dir", str(self._scratch / "target"))
        (archive,) = (self._scratch / "target" / "package").glob("*.crate")
        with tarfile.open(archive) as crate:
            crate.extractall(self._scratch)
        return self._scratch / archive.stem

    def _cargo(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                ["cargo", *arguments], cwd=self._crate(), check=True, stdout=subprocess.PIPE, text=True
            )
        except FileNotFoundError as error:
            raise FileNotFoundError(
                "building ghl-oauth needs Rust (cargo), or GHL_OAUTH_LIBRARY naming a library that was built before"
            ) from error
        return done.stdout

    def _crate(self) -> Path:
        """In the repository two folders up, in an sdist inside of it."""
        bundled = Path(self.root) / "crate"
        return bundled if bundled.is_dir() else Path(self.root).parent.parent


# What PEP 600 lets a manylinux wheel take from the system, of that which a Rust library links to.
MANYLINUX_LIBRARIES = re.compile(r"(libc|libm|libdl|librt|libpthread|libgcc_s|ld-linux[-\w]*)\.so\.\d+")


def _platform_tag(library: Path) -> str:
    """The systems that a library runs on. One serves every Python there."""
    tags = list(platform_tags())
    usual = next((tag for tag in tags if not tag.startswith("linux_")), tags[0])
    bare = next((tag for tag in tags if tag.startswith("linux_")), None)
    if bare is None or usual.startswith("musllinux_"):
        return usual
    # The build machine's own C library may be newer than need be, and a library that was built before may be older.
    glibc = _needed_glibc(library)
    return bare if glibc is None else bare.replace("linux", f"manylinux_{glibc[0]}_{glibc[1]}", 1)


def _needed_glibc(library: Path) -> tuple[int, int] | None:
    """The oldest glibc that a library runs with; None where it needs what a manylinux wheel may not."""
    from elftools.elf.elffile import ELFFile

    with library.open("rb") as file:
        elf = ELFFile(file)
        needed = [tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
        versions = {
            version.name
            for _, of_one_library in elf.get_section_by_name(".gnu.version_r").iter_versions()
            for version in of_one_library
        }
    if not all(MANYLINUX_LIBRARIES.fullmatch(name) for name in needed):
        return None
    oldest = (2, 17)  # the first that pip knows on most machines; older ones are not built for any more
    for name in versions:
        found = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(\.\d+)?", name)
        if found:
            oldest = max(oldest, (int(found[1]), int(found[2])))
        elif name == "GLIBC_ABI_DT_RELR":
            oldest = max(oldest, (2, 36))
        elif not name.startswith("GCC_"):
            return None
    return oldest
