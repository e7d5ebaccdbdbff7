"""The licences of third parties, and the bill of materials."""

import functools
import json
import re
import subprocess
import time
import tomllib
import uuid
from pathlib import Path

import build
import frame
from frame import ROOT

LICENCES = "THIRD-PARTY-LICENSES.txt"
OWN = ["ghl-oauth", "ghl-oauth-emulator"]
TEXTS = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|UNLICENSE)", re.IGNORECASE)

SQLITE = """SQLite is in the public domain. Its authors disclaim copyright and give this blessing:
may you do good and not evil; may you find forgiveness for yourself and forgive others; may you
share freely, never taking more than you give."""

RUST = """The standard library of Rust, https://www.rust-lang.org, is licensed under the Apache
License 2.0 or the MIT license, both of which are below, as are the crates that it contains.
Copyright (c) The Rust Project Contributors."""

GCC = """The unwinder of GCC, libgcc, is linked statically. It is licensed under the GNU General
Public License 3 with the GCC Runtime Library Exception 3.1, which permits programs under any
licence to contain it."""

MUSL = """musl, https://musl.libc.org, is linked statically into programs and static libraries.
It is licensed under the MIT license, which is below. Copyright (c) 2005-2020 Rich Felker, et al."""

MINGW = """The startup code of mingw-w64, https://www.mingw-w64.org, is linked statically. It is in
the public domain or licensed under the Zope Public License 2.1."""


def shipped(target, own, features=""):
    """The packages whose code is in packages of this repository, sorted by name.

    Macros and build scripts run at build time only. Each package has a list `needs` of the IDs of
    its dependencies.
    """
    chosen = ["--locked", f"--features={features}", *(f"--package={name}" for name in own)]
    # Unlike `cargo metadata`, without the features of the development dependencies.
    tree = ["cargo", "tree", *chosen, "--target", target.triple, "--edges=normal,no-proc-macro"]
    tree += ["--prefix=none", "--format={p}"]
    lines = frame.run(tree, capture_output=True, text=True).stdout.splitlines()
    names = {tuple(line.replace(" v", " ", 1).split()[:2]) for line in lines if line}
    query = ["cargo", "metadata", "--format-version=1", "--locked"]
    query += ["--filter-platform", target.triple, f"--features={features}"]
    known = json.loads(frame.run(query, capture_output=True, text=True).stdout)
    packages = {
        package["id"]: package
        for package in known["packages"]
        if (package["name"], package["version"]) in names
    }
    for node in known["resolve"]["nodes"]:
        if node["id"] in packages:
            packages[node["id"]]["needs"] = [
                needed["pkg"]
                for needed in node["deps"]
                if needed["pkg"] in packages
                and any(kind["kind"] is None for kind in needed["dep_kinds"])
            ]
    if len(packages) != len(names):
        raise frame.Failed(f"cargo metadata knows {len(packages)} of {len(names)} packages")
    return sorted(packages.values(), key=lambda package: (package["name"], package["version"]))


def third_parties(packages):
    return [package for package in packages if package["name"] not in OWN]


def sqlite_version(packages):
    """The version of the bundled SQLite."""
    (crate,) = (package for package in packages if package["name"] == "libsqlite3-sys")
    header = Path(crate["manifest_path"]).parent / "sqlite3/sqlite3.h"
    return re.search(r'^#define SQLITE_VERSION +"(.*)"', header.read_text(), re.MULTILINE)[1]


@functools.cache
def rust_version(target):
    """The version of the compiler and of its standard library."""
    program = "rustc" if target.is_native else frame.TOOLS / "cross/root/usr/bin/rustc"
    return subprocess.run(
        [program, "--version"], check=True, capture_output=True, text=True
    ).stdout.split()[1]


def licence_texts(target, packages):
    """The licences of all code in an archive. Equal texts appear once."""
    users, missing = {}, []
    for package in third_parties(packages):
        folder = Path(package["manifest_path"]).parent
        files = sorted(
            file for file in folder.iterdir() if TEXTS.match(file.name) and file.is_file()
        )
        if not files:
            missing.append(package["name"])
        for file in files:
            text = "\n".join(
                line.rstrip() for line in file.read_text(errors="replace").splitlines()
            )
            users.setdefault(text.strip("\n"), []).append(f"{package['name']} {package['version']}")
    if missing:
        raise frame.Failed(f"no file with the licence of {', '.join(missing)}")
    parts = [SQLITE, RUST]
    if target.is_musl or (target.is_windows and not target.is_msvc):
        parts.append(GCC)
    if target.is_musl:
        parts.append(MUSL)
    if target.is_windows and not target.is_msvc:
        parts.append(MINGW)
    table = "".join(
        f"{package['name']} {package['version']}: {package['license']}\n"
        for package in third_parties(packages)
    )
    line = "=" * 80
    texts = "".join(
        f"\n{line}\n{', '.join(names)}\n{line}\n\n{text}\n" for text, names in users.items()
    )
    begin = "The libraries and programs contain code of third parties.\n\n"
    return begin + "\n\n".join(parts) + f"\n\n{table}{texts}"


def checksums():
    """The SHA-256 of each crate, from Cargo.lock."""
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return {(crate["name"], crate["version"]): crate.get("checksum") for crate in locked}


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, sums):
    """A crate as a component of CycloneDX."""
    entry = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package.get("license"):
        # An older notation, which is no SPDX expression, separates licences by a slash.
        entry["licenses"] = [{"expression": re.sub(r" */ *", " OR ", package["license"])}]
    checksum = sums.get((package["name"], package["version"]))
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("repository"):
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def bill_of_materials(target, packages):
    """A CycloneDX document, https://cyclonedx.org/docs/1.5/json/."""
    sums = checksums()
    (main,) = (package for package in packages if package["name"] == "ghl-oauth")
    sqlite = {
        "type": "library",
        "bom-ref": f"pkg:generic/sqlite@{sqlite_version(packages)}",
        "name": "sqlite",
        "version": sqlite_version(packages),
        "purl": f"pkg:generic/sqlite@{sqlite_version(packages)}",
        "licenses": [{"license": {"id": "blessing"}}],
    }
    rust = {
        "type": "library",
        "bom-ref": f"pkg:generic/rust-std@{rust_version(target)}",
        "name": "rust-std",
        "version": rust_version(target),
        "purl": f"pkg:generic/rust-std@{rust_version(target)}",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }
    by_id = {package["id"]: purl(package) for package in packages}
    dependencies = [
        {"ref": purl(package), "dependsOn": sorted(by_id[id] for id in package["needs"])}
        for package in packages
    ]
    for entry in dependencies:
        if entry["ref"].startswith("pkg:cargo/libsqlite3-sys@"):
            entry["dependsOn"].append(sqlite["bom-ref"])
        if entry["ref"] == purl(main):
            entry["dependsOn"].append(rust["bom-ref"])
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(build.epoch())),
            "component": component(main, sums),
            "properties": [{"name": "target", "value": target.triple}],
        },
        "components": [
            *(component(package, sums) for package in packages if package is not main),
            rust,
            sqlite,
        ],
        "dependencies": dependencies,
    }
    # The same document has the same number.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document))
    return json.dumps(document | {"serialNumber": f"urn:uuid:{serial}"}, indent=2) + "\n"
