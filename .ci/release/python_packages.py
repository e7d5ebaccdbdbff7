"""The wheels and sdists."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import frame
import notices
import wheels
from frame import ROOT

PACKAGE = ROOT / "bindings/python"
POSTGRES = PACKAGE / "postgres"
SDIST = "import sys; from hatchling.build import build_sdist; print(build_sdist(sys.argv[1]))"


def sdist(package, output):
    """Builds the sources of a package. Returns the file."""
    command = [wheels.python(), "-c", SDIST, output]
    done = frame.run(command, cwd=package, stdout=subprocess.PIPE, text=True)
    return output / done.stdout.split()[-1]


def sdists(output):
    """The sources of both Python packages."""
    for folder in (PACKAGE, POSTGRES):
        file = sdist(folder, output)
        print(f"{file.name}: {file.stat().st_size:,} bytes")


def wheel(package, library, licences, output):
    """A wheel with a library that is built, made of the sdist as users do."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = sdist(package, Path(scratch))
        shutil.unpack_archive(archive, scratch)
        folder = Path(scratch, archive.name.removesuffix(".tar.gz"))
        (folder / notices.LICENCES).write_text(licences)
        file, _ = wheels.build(library, output, folder)
    print(f"{file.name}: {file.stat().st_size:,} bytes")
    return file
