#!/usr/bin/env python3
"""How many runs the simulation takes to find each of these defects.

Each mutation edits the sources, runs the simulation, and puts the sources back. An edit that does not apply any more is
an error: adapt it to the sources, or drop it with its reason. The sources that are edited must be committed.

    tests/simulation_mutations.py [--runs N] [NAME ...]
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A name, and edits: a file below src, a text that it holds once, and the text that replaces it.
MUTATIONS = {
    "import of an older token replaces a newer one": [
        ("tokens/transfer.rs", "if !is_dated && !lost {", "if false && !is_dated && !lost {"),
        ("tokens/transfer.rs", "&& self.records.has_spent(", "&& false && self.records.has_spent("),
    ],
    "unsaved token is never offered again": [
        (
            "tokens/records.rs",
            "Some(unsaved) if now || unsaved.offered_again <= uptime",
            "Some(unsaved) if false && (now || unsaved.offered_again <= uptime)",
        ),
    ],
    "caller with a valid token waits for the flight": [
        (
            "tokens/mod.rs",
            "Seat::Passenger(flight) => {\n                    if want == Want::Fresh",
            "Seat::Passenger(flight) => {\n                    if false && want == Want::Fresh",
        ),
    ],
    "wait for a lock ignores the deadline": [
        (
            "tokens/records.rs",
            "self.store.lock(resource_id, deadline)",
            "self.store.lock(resource_id, &deadline.at_least(Duration::from_secs(120)))",
        ),
    ],
    "answer for another owner is relabelled": [
        ("tokens/refresh.rs", "if token.is_of_another(", "if false && token.is_of_another("),
    ],
    "deletion is undone by a refresh under way": [
        (
            "tokens/records.rs",
            "None if self.outlives_deletion(record, origin, deadline)? => Ok(None),",
            "None if {\n                record.version = 0;\n                true\n            } => Ok(None),",
        ),
        ("tokens/records.rs", "return if is_first {", "return if is_first && false {"),
    ],
    "versions of a record start again": [
        ("store/record.rs", "self.predecessor + 1", "self.predecessor * 0 + 1"),
    ],
    "UNINSTALL is compared with the last refresh": [
        (
            "store/record.rs",
            "self.installed_at.unwrap_or_else(granted_at)",
            "granted_at()",
        ),
    ],
    "page of a firewall is a verdict": [
        ("error.rs", "is_some_and(|fault| fault.is_of_api)", "is_some_and(|_| true)"),
    ],
    "conflict is decided by the wall clock": [
        (
            "tokens/records.rs",
            "Origin::Refresh(spent) => is_lost || outlives_mint || same_token(&stored.token, spent),",
            "Origin::Refresh(_) => ours.token.expires_at >= stored.token.expires_at,",
        ),
    ],
    "clock that is set back revives a dead token": [
        ("tokens/schedule.rs", "Some(known) => known.min(left),", "Some(_) => left,"),
    ],
    "refresh is sent without the lock": [
        (
            "tokens/refresh.rs",
            "let _lock = self.records.lock(resource_id, &patience.store).map_err(before_sending)?;",
            "let _ = self.records.lock(resource_id, &patience.store).map_err(before_sending)?;",
        ),
    ],
}


def test(runs):
    """What the simulation says."""
    command = ["cargo", "test", "--quiet", "--lib", "simulation::no_run", "--", "--nocapture"]
    variables = {"GHL_SIMULATION_RUNS": str(runs), "GHL_SIMULATION_SECONDS": "600"}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.stdout


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=10_000, help="the most runs for each mutation")
    arguments.add_argument("names", nargs="*", help="parts of the names of mutations; default: all")
    options = arguments.parse_args()
    missed = 0
    for name, edits in MUTATIONS.items():
        if options.names and not any(part in name for part in options.names):
            continue
        before = {}
        try:
            for file, old, new in edits:
                path = ROOT / "src" / file
                text = path.read_text()
                before.setdefault(path, text)
                if text.count(old) != 1:
                    sys.exit(f"{name}: the edit of src/{file} does not apply any more: {old!r}")
                path.write_text(text.replace(old, new))
            output = test(options.runs)
        finally:
            for path, text in before.items():
                path.write_text(text)
        made = re.search(r"^(\d+) runs in", output, re.MULTILINE)
        if made is None:
            sys.exit(f"{name}: it could not be built or run:\n{output}")
        found = re.search(r"^(.*)\nto repeat it: GHL_SIMULATION_SEED=(\d+)", output, re.MULTILINE)
        if found is None:
            missed += 1
            print(f"{name}: not found in {made[1]} runs", flush=True)
        else:
            print(f"{name}: found after {made[1]} runs, seed {found[2]}: {found[1][:100]}", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
