"""Makes the files of a release in dist/: archives, wheels, sdists, checksums.

    python3 .ci/release [--quick] [--reproducible] [--output DIR] [TARGET ...]
    python3 .ci/release --finish DIR
    python3 .ci/release --licences FILE

Without a target it makes the sources and every target that a Debian machine can build. On other
systems, name the target of the machine. Each archive is then unpacked and used by C
programs, which talk to the archive's emulator. docs/releasing.md is the manual.
"""

import argparse
import hashlib
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platforms"))

import build
import consume
import frame
import notices
import nuget
import pack
import python_packages
import reproducible
from frame import ROOT
from targets import SOURCE, TARGETS, Target, host


def make(target, output, is_quick):
    """The archives and the wheels of one target."""
    name = f"ghl-oauth-{build.version()}-{target.triple}"
    built = build.build(target, is_quick)
    root = built / "tree"
    pack.copy_texts(root)
    shipped = notices.shipped(target, notices.OWN)
    licences = notices.licence_texts(target, shipped)
    (root / notices.LICENCES).write_text(licences)
    (output / f"{name}.cdx.json").write_text(notices.bill_of_materials(target, shipped))
    pack.archive(root, output, name, target.is_windows)
    if target.has_debug_archive:
        pack.archive(built / "debug", output, f"{name}-debug", target.is_windows)
    frame.step(f"{target.triple}: wheels")
    library = build.shared_library(target, root)
    wheel = python_packages.wheel(python_packages.PACKAGE, library, licences, output)
    shipped = notices.shipped(target, ["ghl-oauth"], "postgres")
    licences = notices.licence_texts(target, shipped)
    sbom = output / f"{name}-postgres.cdx.json"
    sbom.write_text(notices.bill_of_materials(target, shipped))
    library = built / "postgres" / target.library
    postgres = python_packages.wheel(python_packages.POSTGRES, library, licences, output)
    return output / pack.file_name(name, target.is_windows), wheel, postgres


def make_sources(output):
    """The archive of the repository's files, and the sdists."""
    frame.step("sources")
    pack.sources(output, f"ghl-oauth-{build.version()}-source")
    python_packages.sdists(output)


def empty(output):
    """Creates the folder, or removes the files of an earlier release from it."""
    output.mkdir(parents=True, exist_ok=True)
    files = list(output.iterdir())
    foreign = [file for file in files if not re.match(r"ghl[-_]oauth|SHA256SUMS$", file.name)]
    if foreign:
        raise frame.Failed(f"{output} contains {foreign[0].name}, which is no file of a release")
    for file in files:
        file.unlink()


def finish(output):
    """Adds the NuGet package, and SHA256SUMS, which `sha256sum --check` reads."""
    nuget.make(output)
    sums = output / "SHA256SUMS"
    sums.unlink(missing_ok=True)
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(output.iterdir())
    ]
    sums.write_text("".join(lines))


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python3 .ci/release", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="do not optimise; never publish this")
    parser.add_argument(
        "--reproducible", action="store_true", help="build again in another folder, and compare"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "dist",
        metavar="DIR",
        help="the folder of the files, which replace those of an earlier release; default: dist",
    )
    parser.add_argument(
        "--finish", type=Path, metavar="DIR", help="only make the files of all targets"
    )
    parser.add_argument(
        "--licences", type=Path, metavar="FILE", help="only write those in this machine's library"
    )
    parser.add_argument("--no-check", action="store_true", help="do not use the archives")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join([SOURCE, *TARGETS]))
    return parser.parse_args()


def main():
    given = arguments()
    if given.finish:
        finish(given.finish)
        return
    if given.licences:
        target = Target(host())
        shipped = notices.shipped(target, ["ghl-oauth"])
        given.licences.write_text(notices.licence_texts(target, shipped))
        return
    # The date that compilers, the binutils and hatchling write instead of the current one.
    os.environ["SOURCE_DATE_EPOCH"] = str(build.epoch())
    names = given.targets or [SOURCE, *TARGETS]
    output = given.output.resolve()
    empty(output)
    for name in names:
        if name == SOURCE:
            make_sources(output)
            continue
        target = Target(name)
        archive, *wheels = make(target, output, given.quick)
        if not given.no_check:
            frame.step(f"{name}: use the archive and the wheels")
            consume.check(target, archive, wheels)
    finish(output)
    if given.reproducible:
        frame.step("build again in another folder")
        reproducible.compare(names, output, given.quick)
    frame.step("done")


if __name__ == "__main__":
    try:
        main()
    except frame.Failed as failure:
        sys.exit(f"error: {failure}")
