#!/usr/bin/env python3
"""Measures how many runs the simulation needs to detect each of these bugs.

All mutations are built into one program, each behind a switch, and the sources are restored. The
simulation then runs once per mutation. An edit that no longer applies is an error: adapt it or
remove it. Commit the edited sources first.

    tests/simulation_mutations.py [--runs N] [NAME ...]
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A name and its edits: a file below src, a text that occurs in it once, and the replacement. `ON`
# is the switch.
MUTATIONS = {
    "import of an older token replaces a newer one": [
        (
            "tokens/transfer.rs",
            "if !entry.is_dated && !lost {",
            "if !ON && !entry.is_dated && !lost {",
        ),
        ("tokens/transfer.rs", "&& (self.records.has_spent(", "&& !ON && (self.records.has_spent("),
    ],
    "unsaved token is never offered again": [
        (
            "tokens/records.rs",
            "(record, origin) = match self.overlay().unsaved.get(resource_id) {",
            "(record, origin) = match self.overlay().unsaved.get(resource_id).filter(|_| !ON) {",
        ),
    ],
    "caller with a valid token waits for the flight": [
        (
            "tokens/mod.rs",
            "if let Some(least) = want.accepts_valid_for()\n                        && let Some(valid)",
            "if let Some(least) = want.accepts_valid_for()\n                        && !ON && let Some(valid)",
        ),
    ],
    "maintenance spins after its timeout": [
        (
            "tokens/maintain.rs",
            "drop(state);\n                if whole.check_call().is_err() {",
            "drop(state);\n                if !ON && whole.check_call().is_err() {",
        ),
    ],
    "wait for a lock ignores the deadline": [
        (
            "tokens/records.rs",
            "self.store.lock(resource_id, deadline)",
            "self.store.lock(resource_id, &if ON { deadline.at_least(Duration::from_secs(120)) } else { deadline.clone() })",
        ),
    ],
    "response for another owner is relabelled": [
        ("tokens/refresh.rs", "if token.is_of_another(", "if !ON && token.is_of_another("),
    ],
    "deletion is undone by a pending refresh": [
        (
            "tokens/records.rs",
            "None if self.outlives_deletion(record, origin, deadline)? => Ok(None),",
            "None if ON => {\n                record.version = 0;\n                record.predecessor = self.last_deleted(&record.resource_id, deadline)?;\n"
            "                Ok(None)\n            }\n            None if self.outlives_deletion(record, origin, deadline)? => Ok(None),",
        ),
        ("tokens/records.rs", "return if is_first {", "return if is_first && !ON {"),
    ],
    "versions of a record start again": [
        ("store/record.rs", "self.predecessor + 1", "self.predecessor * u64::from(!ON) + 1"),
    ],
    "UNINSTALL is compared with the last refresh": [
        (
            "store/record.rs",
            "self.installed_at.unwrap_or_else(granted_at)",
            "if ON { granted_at() } else { self.installed_at.unwrap_or_else(granted_at) }",
        ),
    ],
    "page of a firewall is final": [
        (
            "error.rs",
            "is_some_and(|fault| fault.is_of_api)",
            "is_some_and(|fault| ON || fault.is_of_api)",
        ),
    ],
    "conflict is decided by the wall clock": [
        (
            "tokens/records.rs",
            "Origin::Refresh(spent) => {",
            "Origin::Refresh(_) if ON => ours.token.expires_at >= stored.token.expires_at,\n            "
            "Origin::Refresh(spent) => {",
        ),
    ],
    "clock that is set back revives an expired token": [
        (
            "tokens/published.rs",
            "Some(known) => known.min(left),",
            "Some(known) => if ON { left } else { known.min(left) },",
        ),
    ],
    "new token keeps the failure of the old one": [
        (
            "tokens/refresh.rs",
            "record.last_failure = None;",
            "if !ON {\n        record.last_failure = None;\n    }",
        ),
    ],
    "failed refresh is forgotten": [
        (
            "tokens/failures.rs",
            "let earlier = self.writer.records.last_failure(record);",
            "if ON {\n            return;\n        }\n        let earlier = self.writer.records.last_failure(record);",
        ),
    ],
    "refresh is sent without the lock": [
        (
            "tokens/refresh.rs",
            "let _lock = self.records.lock(resource_id, &renewal.store).map_err(before_sending)?;",
            "let lock = self.records.lock(resource_id, &renewal.store).map_err(before_sending)?;\n        "
            "let _lock = (!ON).then_some(lock);",
        ),
    ],
    "wait for another's refresh ends too early": [
        (
            "tokens/refresh.rs",
            "Err(error)\n                    if renewal.has_valid",
            "Err(error)\n                    if !ON\n                        && renewal.has_valid",
        ),
    ],
    "refused token is not replaced by a newer one": [
        (
            "tokens/bearer.rs",
            "match self.published.newer_than(",
            "match (!ON).then_some(&self.published).and_then(|published| published.newer_than(",
        ),
        ("tokens/bearer.rs", "&waits.within(LOCK_WAIT)) {", "&waits.within(LOCK_WAIT))) {"),
    ],
}


SWITCH = """
/// Whether this mutation is on.
pub(crate) fn is_mutant(number: u32) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| std::env::var("GHL_MUTANT").ok()?.parse().ok()) == Some(number)
}
"""


def build(mutations):
    """Builds the simulation with every mutation. Returns the path of the program."""
    before = {}
    try:
        for number, (name, edits) in enumerate(mutations):
            for file, old, new in edits:
                path = ROOT / "src" / file
                text = path.read_text()
                before.setdefault(path, text)
                if text.count(old) != 1:
                    sys.exit(f"{name}: the edit of src/{file} no longer applies: {old!r}")
                path.write_text(text.replace(old, new.replace("ON", f"crate::is_mutant({number})")))
        path = ROOT / "src" / "lib.rs"
        before[path] = path.read_text()
        path.write_text(before[path] + SWITCH)
        command = ["cargo", "test", "--release", "--lib", "--no-run", "--message-format", "json"]
        done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    finally:
        for path, text in before.items():
            path.write_text(text)
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    programs = [found["executable"] for found in messages if found.get("executable")]
    if done.returncode != 0 or not programs:
        rendered = (found.get("message", {}).get("rendered") for found in messages)
        sys.exit("the mutations could not be built\n" + "\n".join(filter(None, rendered)))
    return programs[-1]


def test(program, number, options):
    """Runs the simulation with one mutation. Returns its output."""
    variables = {
        "GHL_MUTANT": str(number),
        "GHL_SIMULATION_RUNS": str(options.runs),
        "GHL_SIMULATION_SECONDS": str(options.seconds),
    }
    command = [program, "simulation::simulated_runs_violate_no_invariant", "--nocapture"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--runs", type=int, default=200_000, help="maximum runs per mutation")
    arguments.add_argument("--seconds", type=int, default=600, help="maximum seconds per mutation")
    arguments.add_argument("names", nargs="*", help="substrings of mutation names; default: all")
    options = arguments.parse_args()
    mutations = list(MUTATIONS.items())
    program = build(mutations)
    missed = 0
    for number, (name, _) in enumerate(mutations):
        if options.names and not any(part in name for part in options.names):
            continue
        output = test(program, number, options)
        made = re.search(r"^(\d+) runs in", output, re.MULTILINE)
        if made is None:
            sys.exit(f"{name}: the simulation did not run:\n{output}")
        found = re.search(r"^(.*)\nto repeat it: GHL_SIMULATION_SEED=(\d+)", output, re.MULTILINE)
        if found is None:
            missed += 1
            print(f"{name}: not found in {made[1]} runs", flush=True)
        else:
            print(
                f"{name}: found after {made[1]} runs, seed {found[2]}: {found[1][:100]}", flush=True
            )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
