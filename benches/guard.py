#!/usr/bin/env python3
"""Compares counts of important calls with benches/guard.json: instructions, and for a refresh with
SQLite also system calls and syncs.

    benches/guard.py [--update] [--library FILE] [--emulator FILE]

A count more than 5 % above the file fails. A count more than 5 % below it is reported, because the
file would hide the next increase. ``--update`` rewrites the file. Without ``--library`` and
``--emulator`` both are built. benches/README.md explains the counts.

Needs gcc, valgrind and strace.
"""

import argparse
import json
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

from counting import compile_c, instructions, system_calls
from request import ROOT, TARGET, Emulator, build_ours

FILE = ROOT / "benches" / "guard.json"
BUILT = ROOT / "target" / "guard"
ROOM = 0.05

# The calls, and the two numbers of repetitions.
CALLS = {
    "ghl_access_token_into": ("into", 100, 2100),
    "ghl_access_token with ghl_string_free": ("owned", 100, 2100),
    "ghl_token_refresh": ("refresh", 50, 250),
    "ghl_token_refresh with SQLite": ("durable", 50, 250),
}
SYNCS = ("fsync", "fdatasync")

WORDS = {"instructions": "instructions", "systemCalls": "system calls", "syncs": "syncs"}

# glibc selects copy routines by processor; these switches leave only the ones that every x86-64
# processor has. valgrind emulates the same processor on every machine except for AVX2, which memchr
# and ring detect. The counts therefore depend on the compiler, on libc, and on AVX2: the file
# records all three.
PLAIN = {
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2,-AVX2_Usable,-ERMS,"
    "-AVX512F,-AVX512VL,-BMI2"
}


def count(library, emulator, folder):
    """The counts per call, by their kind and the name of the call. Databases are in the folder."""
    program = BUILT / "calls"
    compile_c(
        ROOT / "benches" / "guard" / "calls.c",
        program,
        ROOT / "include",
        library.parent,
        "-lghl_oauth",
    )
    live = {"accessToken": "t" * 900, "locationId": "location000000000001", "expiresIn": 86_399}

    def command(kind, calls):
        if kind in ("refresh", "durable"):
            # A new token each time: the refresh spends it.
            config, token = emulator.config, emulator.grant(emulator.location_ids[0])[0]
        else:
            config, token = {"clientId": "app-1", "clientSecret": "secret"}, live
        if kind == "durable":
            path = pathlib.Path(tempfile.mkdtemp(dir=folder)) / "tokens.db"
            config = {**config, "store": {"kind": "sqlite", "path": str(path)}}
        return [
            program,
            "refresh" if kind == "durable" else kind,
            str(calls),
            json.dumps(config),
            token["locationId"],
            json.dumps(token),
        ]

    executed = {
        name: round(
            instructions(lambda calls: command(kind, calls), few, many, BUILT / kind, PLAIN)
        )
        for name, (kind, few, many) in CALLS.items()
    }
    durable, (kind, few, many) = list(CALLS.items())[-1]
    calls = system_calls(lambda calls: command(kind, calls), few, many)
    return {
        "instructions": executed,
        "systemCalls": {durable: round(sum(calls.values()), 1)},
        "syncs": {durable: round(sum(calls.get(name, 0) for name in SYNCS), 2)},
    }


def counted_with():
    """The environment that influences the counts."""
    compiler = subprocess.run(
        ["rustc", "--version"], capture_output=True, text=True, check=True
    ).stdout
    cpu = pathlib.Path("/proc/cpuinfo")
    return {
        "machine": platform.machine()
        + (" with AVX2" if cpu.exists() and "avx2" in cpu.read_text() else ""),
        "rustc": re.search(r"\d+\.\d+\.\d+", compiler)[0],
        "libc": " ".join(platform.libc_ver()),
    }


def judge(counts, file, here):
    """Prints the counts. Returns whether all are within the limit."""
    there = file["countedWith"]
    others = [
        f"{key}: {there[key]} in the file, {value} here"
        for key, value in here.items()
        if there[key] != value
    ]
    # Another processor has other instructions; a difference in compiler or libc needs a look.
    comparable = there["machine"] == here["machine"]
    good = True
    for what, of_calls in counts.items():
        for name, now in of_calls.items():
            then = file[what][name]
            change = now / then - 1
            print(f"{name:40} {now:9,} {WORDS[what]}, {change:+6.1%} to {then:,}")
            if comparable and change > ROOM:
                good = False
                kind, _, many = CALLS[name]
                where = f"callgrind_annotate target/guard/{kind}.{many}"
                if what != "instructions":
                    where = "strace -f target/guard/calls refresh …"
                print(
                    f"  {now - then:,.6g} {WORDS[what]} more than benches/guard.json says; "
                    f"{ROOM:.0%} are let through.\n"
                    f"  Find them: {where}\n"
                    "  If the change is worth them, accept them: python3 benches/guard.py "
                    "--update, and commit the file."
                )
            elif comparable and change < -ROOM:
                print("  note: fewer than in the file: python3 benches/guard.py --update")
    if others:
        print(f"  note: counted in another environment ({'; '.join(others)}).")
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--update", action="store_true", help="rewrite the file")
    parser.add_argument("--library", type=pathlib.Path, help="libghl_oauth.so of a release build")
    parser.add_argument("--emulator", type=pathlib.Path, help="the emulator's program")
    options = parser.parse_args()
    if options.library is None or options.emulator is None:
        build_ours()
    library = options.library or TARGET / "libghl_oauth.so"
    emulator = Emulator(*([options.emulator] if options.emulator else []))
    BUILT.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=BUILT) as folder:
            counts = count(library.resolve(), emulator, folder)
    finally:
        emulator.process.terminate()
    here = counted_with()
    if options.update:
        document = {"countedWith": here, **counts}
        FILE.write_text(json.dumps(document, indent=2) + "\n")
    if not judge(counts, json.loads(FILE.read_text()), here):
        sys.exit(1)


if __name__ == "__main__":
    main()
