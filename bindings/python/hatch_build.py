"""Build hook: a wheel contains the native library, an sdist the crate's sources.

The environment variable GHL_OAUTH_LIBRARY names a prebuilt library, which makes Rust unnecessary.
Options in pyproject.toml: ``package`` is the folder of the library, and ``features`` lists Cargo
features that are added to the default ones.
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
    """Adds the native library or the crate to the package."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel or an sdist is built."""
        self._scratch = Path(tempfile.mkdtemp(prefix="ghl-oauth-build-"))
        if self.target_name == "sdist":
            build_data["force_include"][str(self._packaged_crate())] = "crate"
        elif version != "editable":  # an editable install loads GHL_OAUTH_LIBRARY at run time
            library = self._library()
            package = self.config.get("package", "ghl_oauth")
            build_data["force_include"][str(library)] = f"{package}/{FILE_NAME}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform_tag(library)}"

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
                    if file.name == FILE_NAME:
                        return file
        raise FileNotFoundError(f"cargo build did not create {FILE_NAME}")

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


# The system libraries that PEP 600 allows in a manylinux wheel and that a Rust library links to.
MANYLINUX_LIBRARIES = re.compile(
    r"(libc|libm|libdl|librt|libpthread|libgcc_s|ld-linux[-\w]*)\.so\.\d+"
)


def _platform_tag(library: Path) -> str:
    """The wheel's platform tag. The library works with every Python version."""
    tags = list(platform_tags())
    usual = next((tag for tag in tags if not tag.startswith("linux_")), tags[0])
    bare = next((tag for tag in tags if tag.startswith("linux_")), None)
    if bare is None or usual.startswith("musllinux_"):
        return usual
    # The build machine's glibc may be newer than necessary, and a prebuilt library may need an
    # older one.
    glibc = _needed_glibc(library)
    return bare if glibc is None else bare.replace("linux", f"manylinux_{glibc[0]}_{glibc[1]}", 1)


def _needed_glibc(library: Path) -> tuple[int, int] | None:
    """The oldest glibc that a library runs with; None if it does not qualify for manylinux."""
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
