#!/usr/bin/env python3
"""The size of the released library, and the share of each crate; see benches/README.md.

    python3 benches/size.py [--crates 12] [--check BYTES FILE]

With --check nothing is built: it fails if the library, or the one in a wheel, is larger than BYTES.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILDS = {
    "with SQLite, the default": [],
    "without SQLite": ["--no-default-features", "--features=wiping-allocator"],
    "with SQLite and PostgreSQL": ["--features=postgres"],
}
# Crates with functions in C or assembly, by the prefixes of their symbols.
NAMES_OF_C = {
    "ring": (
        "ring_core",
        "x25519",
        "k25519",
        "fe_",
        "ge_",
        "sc_",
        "p256",
        "p384",
        "ecp_",
        "fiat",
        "gcm_",
        "aes",
    )
}


def build(features: list[str]) -> Path:
    """The shared library as in an installation and in the wheel, but with symbols."""
    command = [
        "cargo",
        "rustc",
        "--quiet",
        "--locked",
        "--release",
        "--lib",
        "--crate-type=cdylib",
        *features,
    ]
    command += ["--target-dir=target/size", "--message-format=json"]
    environment = {**os.environ, "CARGO_PROFILE_RELEASE_STRIP": "none"}
    done = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == "ghl_oauth":
            return Path(message["filenames"][0])
    raise FileNotFoundError("cargo rustc built no library")


def stripped(library: Path) -> int:
    """Its size without symbols."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / library.name
        shutil.copy(library, copy)
        subprocess.run(["strip", copy], check=True)
        return copy.stat().st_size


def size_of(file: Path) -> int:
    """The size of a library, or of the one in a wheel."""
    if file.suffix != ".whl":
        return file.stat().st_size
    with zipfile.ZipFile(file) as wheel:
        return max(entry.file_size for entry in wheel.infolist())


def crate_of(symbol: str) -> str:
    """The crate of a symbol; for a generic function, the crate that defines it."""
    if "<" not in symbol and "::" not in symbol:
        if symbol.startswith(("_Z", "_R")):
            return "?"
        return next(
            (crate for crate, names in NAMES_OF_C.items() if symbol.startswith(names)),
            "other C: SQLite",
        )
    words = re.findall(r"[A-Za-z_]\w*(?=::)", symbol)
    return words[0] if words else "?"


def crates(library: Path) -> collections.Counter[str]:
    """Bytes of code per crate, without tables, unwinding data and relocations."""
    command = ["nm", "--demangle", "--print-size", "--defined-only", library]
    symbols = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    sizes: collections.Counter[str] = collections.Counter()
    seen = set()
    for line in symbols.splitlines():
        parts = line.split(None, 3)
        if len(parts) == 4 and parts[2] in "tTwW" and parts[0] not in seen:
            seen.add(parts[0])
            sizes[crate_of(parts[3])] += int(parts[1], 16)
    return sizes


def main() -> None:
    """Builds and prints the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--crates", type=int, default=12)
    arguments.add_argument("--check", nargs=2, metavar=("BYTES", "FILE"))
    chosen = arguments.parse_args()
    if chosen.check:
        most, size = int(chosen.check[0]), size_of(Path(chosen.check[1]))
        print(f"{size:,} bytes, at most {most:,}")
        sys.exit(size > most)
    for name, features in BUILDS.items():
        library = build(features)
        print(f"{name}: {stripped(library):,} bytes", flush=True)
        if not features:
            sizes = crates(library)
            for crate, size in sizes.most_common(chosen.crates):
                print(f"    {size:>9,}  {crate}")
            print(f"    {sizes.total():>9,}  all code", flush=True)


if __name__ == "__main__":
    main()
