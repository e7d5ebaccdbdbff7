"""Counts instructions of C programs with valgrind's callgrind, and system calls with strace."""

import os
import re
import subprocess
import tempfile


def compile_c(source, program, include, folder, *libraries):
    """Builds a program against the library in a folder."""
    checked = ["-O2", "-Wall", "-Wextra", "-Werror"]
    paths = [f"-I{include}", f"-L{folder}", f"-Wl,-rpath,{folder}"]
    subprocess.run(["cc", *checked, source, "-o", program, *paths, *libraries], check=True)


def instructions(run, few, many, profile=None, environment=None):
    """Instructions per call; start-up and shutdown cancel out.

    ``run`` returns the command of a program that makes the given number of calls.
    """
    totals = []
    with tempfile.TemporaryDirectory() as folder:
        for calls in (few, many):
            out = f"{profile or os.path.join(folder, 'profile')}.{calls}"
            command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *run(calls)]
            done = subprocess.run(
                command, capture_output=True, text=True, env={**os.environ, **(environment or {})}
            )
            if done.returncode != 0:
                raise SystemExit(f"{' '.join(map(str, command[:4]))} …: {done.stderr}")
            totals.append(int(re.search(r"Collected : (\d+)", done.stderr)[1]))
    return (totals[1] - totals[0]) / (many - few)


def system_calls(run, few, many):
    """System calls per call, by name; start-up and shutdown cancel out."""
    totals = []
    with tempfile.TemporaryDirectory() as folder:
        for calls in (few, many):
            out = os.path.join(folder, "calls")
            command = ["strace", "-f", "-c", "-o", out, *run(calls)]
            done = subprocess.run(command, stdout=subprocess.DEVNULL)
            if done.returncode != 0:
                raise SystemExit(f"{' '.join(map(str, command[:5]))} … failed")
            with open(out) as lines:
                # % time, seconds, microseconds per call, calls, perhaps errors, name.
                rows = [line.split() for line in lines if re.match(r" *\d", line)]
            totals.append({row[-1]: int(row[3]) for row in rows if row[-1] != "total"})
    before, after = totals
    return {name: (after[name] - before.get(name, 0)) / (many - few) for name in after}
