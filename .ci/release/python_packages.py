"""The wheels and sdists."""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import frame
import notices
from frame import ROOT, TOOLS

PACKAGE = ROOT / "bindings/python"
POSTGRES = PACKAGE / "postgres"
REQUIREMENTS = ["hatchling==1.33.0", "pyelftools==0.32"]
SDIST = "import sys; from hatchling.build import build_sdist; print(build_sdist(sys.argv[1]))"
WHEEL = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


def python():
    """A Python with the build backend."""
    for candidate in filter(None, [os.environ.get("GHL_PYTHON"), sys.executable]):
        command = [candidate, "-c", "import hatchling, elftools"]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return candidate
    folder = TOOLS / "release-python"
    program = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not program.exists():
        frame.run([sys.executable, "-m", "venv", folder])
    frame.run([program, "-m", "pip", "install", "--quiet", *REQUIREMENTS])
    return program


def run(code, folder, output, **variables):
    """Runs the build backend in a folder. Returns the file that it has made."""
    environment = os.environ | variables
    done = frame.run(
        [python(), "-c", code, output],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    return output / done.stdout.split()[-1]


def sdists(output):
    """The sources of both Python packages."""
    for folder in (PACKAGE, POSTGRES):
        file = run(SDIST, folder, output)
        print(f"{file.name}: {file.stat().st_size:,} bytes")


def wheel(package, library, licences, output):
    """A wheel with a library that is built, made of the sdist as users do."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = run(SDIST, package, Path(scratch))
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
        folder = Path(scratch, archive.name.removesuffix(".tar.gz"))
        (folder / notices.LICENCES).write_text(licences)
        file = run(WHEEL, folder, output, GHL_OAUTH_LIBRARY=str(library))
    print(f"{file.name}: {file.stat().st_size:,} bytes")
    return file
