#!/usr/bin/env python3
"""The ratios of benches/floor.rs on Linux and, in turns, under Wine: python3 benches/floor.py

Installs the compiler for Windows and Wine from Debian's packages, as .ci/platforms does.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ci" / "platforms"))

import frame  # noqa: E402
import windows  # noqa: E402

RUNS = 5


def build(cargo, *target):
    """The benchmark's program."""
    arguments = ["--profile", "bench", "--bench", "floor", *target]
    return frame.build(cargo, arguments, {})["floor"].executable


def ratios(command, environment):
    """The printed ratios of one run."""
    variables = os.environ | environment
    output = subprocess.run(command, cwd=ROOT, env=variables, check=True, capture_output=True)
    lines = output.stdout.decode().splitlines()
    return {name: float(ratio) for name, ratio in (line.rsplit(": ", 1) for line in lines)}


def main():
    windows.prepare()
    cargo = frame.cross(windows.TARGET)
    programs = {
        "Linux": ([build("cargo")], {}),
        "Wine": (
            [windows.WINE, build(cargo, "--target", windows.TARGET)],
            windows.environment(),
        ),
    }
    runs = {system: [] for system in programs}
    try:
        for _ in range(RUNS):
            for system, program in programs.items():
                runs[system].append(ratios(*program))
    finally:
        windows.end(windows.PREFIX)
    print(f"{'medians (least to greatest)':40} {'Linux':>22} {'Wine':>22}")
    for name in runs["Linux"][0]:
        cells = []
        for system in programs:
            values = sorted(run[name] for run in runs[system])
            cells.append(f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})")
        print(f"{name:40} {cells[0]:>22} {cells[1]:>22}")


if __name__ == "__main__":
    main()
