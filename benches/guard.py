#!/usr/bin/env python3
"""Compares the instruction counts of important calls with benches/guard.json.

    benches/guard.py [--update] [--library FILE] [--emulator FILE]

A count more than 5 % above the file fails. A count more than 5 % below it is reported, because the
file would hide the next increase. ``--update`` rewrites the file. Without ``--library`` and
``--emulator`` both are built. benches/README.md explains the counts.

Needs gcc and valgrind.
"""

import argparse
import json
import pathlib
import platform
import re
import subprocess
import sys

from counting import compile_c, instructions
from request import ROOT, TARGET, Emulator, build_ours

FILE = ROOT / "benches" / "guard.json"
BUILT = ROOT / "target" / "guard"
ROOM = 0.05

# The calls, and the two numbers of repetitions.
CALLS = {
    "ghl_access_token_into": ("into", 100, 2100),
    "ghl_access_token with ghl_string_free": ("owned", 100, 2100),
    "ghl_token_refresh": ("refresh", 50, 250),
}

# glibc selects copy routines by processor; these switches leave only the ones that every x86-64
# processor has. valgrind emulates the same processor on every machine except for AVX2, which memchr
# and ring detect. The counts therefore depend on the compiler, on libc, and on AVX2: the file
# records all three.
PLAIN = {
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2,-AVX2_Usable,-ERMS,"
    "-AVX512F,-AVX512VL,-BMI2"
}


def count(library, emulator):
    """Instructions per call, by the name of the call."""
    BUILT.mkdir(parents=True, exist_ok=True)
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
        if kind == "refresh":
            # A new token each time: the refresh spends it.
            config, token = emulator.config, emulator.grant(emulator.location_ids[0])[0]
        else:
            config, token = {"clientId": "app-1", "clientSecret": "secret"}, live
        return [
            program,
            kind,
            str(calls),
            json.dumps(config),
            token["locationId"],
            json.dumps(token),
        ]

    return {
        name: round(
            instructions(lambda calls: command(kind, calls), few, many, BUILT / kind, PLAIN)
        )
        for name, (kind, few, many) in CALLS.items()
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
    for name, now in counts.items():
        then = file["instructions"][name]
        change = now / then - 1
        print(f"{name:40} {now:8,} instructions, {change:+6.1%} to {then:,}")
        if comparable and change > ROOM:
            good = False
            kind, _, many = CALLS[name]
            print(
                f"  {now - then:,} instructions more than benches/guard.json says; {ROOM:.0%} are "
                "let through.\n"
                f"  Find them: callgrind_annotate target/guard/{kind}.{many}\n"
                "  If the change is worth them, accept them: python3 benches/guard.py "
                "--update, and commit the file."
            )
        elif comparable and change < -ROOM:
            print("  note: fewer than in the file. Update it: python3 benches/guard.py --update")
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
    try:
        counts = count(library.resolve(), emulator)
    finally:
        emulator.process.terminate()
    here = counted_with()
    if options.update:
        document = {"countedWith": here, "instructions": counts}
        FILE.write_text(json.dumps(document, indent=2) + "\n")
    if not judge(counts, json.loads(FILE.read_text()), here):
        sys.exit(1)


if __name__ == "__main__":
    main()
