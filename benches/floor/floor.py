#!/usr/bin/env python3
"""Ratios of the library's calls to the least that the same work takes, alternating between Linux
and Wine: python3 benches/floor/floor.py [RUNS]

Installs the compiler for Windows and Wine from Debian's packages, as .ci/platforms does.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / ".ci" / "platforms")]

import frame
import request
import windows

BUILT = ROOT / "target" / "bench-floor"
RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 5


def build():
    """Builds the library as released, for both systems, and the program. Returns its commands."""
    windows.prepare()
    cargo = frame.cross(windows.TARGET)
    request.build_ours()
    library = ["rustc", "--quiet", "--release", "-p", "ghl-oauth", "--lib", "--crate-type=cdylib"]
    frame.run([cargo, *library, "--target", windows.TARGET])
    BUILT.mkdir(exist_ok=True)
    source = Path(__file__).with_suffix(".c")
    options = ["-O2", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'include'}", source]
    native = request.TARGET
    libraries = [f"-L{native}", f"-Wl,-rpath,{native}", "-lghl_oauth", "-lpthread"]
    frame.run(["cc", *options, *libraries, "-o", BUILT / "floor"])
    library = ROOT / "target" / windows.TARGET / "release" / "ghl_oauth.dll"
    (BUILT / library.name).write_bytes(library.read_bytes())
    libraries = [BUILT / library.name, "-static", "-lws2_32", "-lpthread"]
    frame.run([windows.GCC + "gcc", *options, *libraries, "-o", BUILT / "floor.exe"])
    return {
        "Linux": ([BUILT / "floor"], {}),
        "Wine": ([windows.WINE, BUILT / "floor.exe"], windows.environment()),
    }


def ratios(emulator, command, environment):
    """The printed ratios of one run."""
    ours, by_hand = emulator.location_ids[:2]
    form = {
        "grantType": "refresh_token",
        "userType": "Location",
        "clientId": emulator.config["clientId"],
        "clientSecret": emulator.config["clientSecret"],
    }
    with tempfile.TemporaryDirectory(dir=BUILT) as folder:
        database = {"kind": "sqlite", "path": f"{folder}/tokens.db"}
        arguments = [
            json.dumps({**emulator.config, "store": {"kind": "memory"}}),
            json.dumps({**emulator.config, "store": database}),
            json.dumps({"tokens": [emulator.grant(ours)[0]]}),
            ours,
            str(urllib.parse.urlsplit(emulator.config["baseUrl"]).port),
            urllib.parse.urlencode(form),
            emulator.grant(by_hand)[0]["refreshToken"],
            f"{folder}/token",
        ]
        done = subprocess.run(
            [*command, *arguments], env=os.environ | environment, capture_output=True, text=True
        )
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr}")
    return {
        name: float(ratio)
        for name, ratio in (line.split(": ") for line in done.stdout.splitlines())
    }


def main():
    programs = build()
    emulator = request.Emulator()
    runs = {system: [] for system in programs}
    try:
        for _ in range(RUNS):
            for system, program in programs.items():
                runs[system].append(ratios(emulator, *program))
    finally:
        emulator.process.terminate()
        windows.end(windows.PREFIX)
    print(f"{'medians (least to greatest)':28} {'Linux':>22} {'Wine':>22}")
    for name in runs["Linux"][0]:
        row = f"{name:28}"
        for measured in runs.values():
            values = sorted(run[name] for run in measured)
            cell = f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"
            row += f" {cell:>22}"
        print(row)


if __name__ == "__main__":
    main()
