"""Builds a release again, in another folder and with another folder of crates, and compares."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import frame
from frame import ROOT
from targets import cargo_home


def crates(folder):
    """A copy of Cargo's downloads, by links to the same files."""
    home = Path(cargo_home())
    folder.mkdir()
    for name in ("config", "config.toml"):
        if (home / name).exists():
            shutil.copy(home / name, folder)
    shutil.copytree(home / "registry", folder / "registry", copy_function=os.link, symlinks=True)
    return folder


def compare(names, output, is_quick):
    """Fails if a file of the second build differs."""
    parent = os.environ.get("GHL_RELEASE_SCRATCH")
    with tempfile.TemporaryDirectory(prefix="ghl-oauth-again-", dir=parent) as scratch:
        scratch = Path(scratch)
        copy = scratch / "some/other/place"
        git = ["git", "-c", f"safe.directory={ROOT}/.git", "-c", f"safe.directory={ROOT}"]
        frame.run([*git, "clone", "--quiet", "--no-hardlinks", ROOT, copy])
        again = scratch / "dist"
        command = [sys.executable, copy / ".ci/release", "--no-check", "--output", again]
        command += ["--quick"] if is_quick else []
        environment = os.environ | {
            "CARGO_HOME": str(crates(scratch / "crates")),
            "CARGO_TARGET_DIR": str(scratch / "target"),
            "GHL_CI_TOOLS": str(frame.TOOLS),
        }
        frame.run([*command, *names], env=environment, cwd=scratch)
        first = {file.name: file.read_bytes() for file in output.iterdir()}
        second = {file.name: file.read_bytes() for file in again.iterdir()}
        if first.keys() != second.keys():
            raise frame.Failed(f"other files: {sorted(first.keys() ^ second.keys())}")
        different = sorted(name for name in first if first[name] != second[name])
        if different:
            kept = os.environ.get("GHL_RELEASE_KEEP")
            if kept:
                shutil.copytree(again, kept, dirs_exist_ok=True)
            raise frame.Failed(f"not reproducible: {', '.join(different)}")
    print(f"{len(first)} files are equal byte for byte in both builds")
