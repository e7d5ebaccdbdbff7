"""Build hook: a wheel gets the native library, an sdist the crate that the library is built from.

The environment variable GHL_OAUTH_LIBRARY names a library that was built beforehand; then no Rust is needed.
"""

from __future__ import annotations

import json
import os
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
            build_data["force_include"][str(self._library())] = f"ghl_oauth/{FILE_NAME}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform_tag()}"

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
        messages = self._cargo("build", "--release", "--lib", "--locked", "--message-format=json-render-diagnostics")
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
        self._cargo("package", "--no-verify", "--allow-dirty", "--target-dir", str(self._scratch / "target"))
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


def _platform_tag() -> str:
    """The systems that this machine's builds run on. One library serves every Python there."""
    tags = list(platform_tags())
    # A bare linux_… does not say which C library is needed; manylinux_2_36_… does.
    return next((tag for tag in tags if not tag.startswith("linux_")), tags[0])
