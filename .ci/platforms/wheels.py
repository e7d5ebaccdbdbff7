"""The wheel of a library that is built, for any platform."""

import os
import subprocess
import sys

import frame
from frame import ROOT, TOOLS, Failed

REQUIREMENTS = ["hatchling==1.33.0", "pyelftools==0.32"]
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


def python():
    """A Python with the build backend."""
    for candidate in filter(None, [os.environ.get("GHL_PYTHON"), sys.executable]):
        command = [candidate, "-c", "import hatchling, elftools"]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return candidate
    folder = TOOLS / "wheel-python"
    program = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not program.exists():
        frame.run([sys.executable, "-m", "venv", folder])
    frame.run([program, "-m", "pip", "install", "--quiet", *REQUIREMENTS])
    return program


def build(library, output, package=ROOT / "bindings/python"):
    """Builds the wheel of a library. Returns its file, and its platform tag."""
    done = frame.run(
        [python(), "-c", BUILD, output],
        cwd=package,
        env=os.environ | {"GHL_OAUTH_LIBRARY": str(library)},
        stdout=subprocess.PIPE,
        text=True,
    )
    file = output / done.stdout.split()[-1]
    return file, file.stem.rpartition("-")[2]


def build_tagged(library, output, expected):
    """Builds the wheel of a library, whose platform tag must be the expected one."""
    file, tag = build(library, output)
    if tag != expected:
        raise Failed(f"the wheel of {library} is {tag}, not {expected}")
    return file
