"""The cost of `import ghl_oauth`, and of a client, above an empty program.

Modules are imported at their first use, so the second row of each interpreter has the import
together with a client whose token is asked for.

The figures are the minimum of 41 runs, since other programs can only add time.

    python3 benches/python_import.py [PYTHON …]

Each PYTHON must have the package; default: this interpreter. If it is not installed, set PYTHONPATH
and GHL_OAUTH_LIBRARY.
"""

from __future__ import annotations

import json
import subprocess
import sys

RUNS = 41

CLIENT = """
import ghl_oauth
client = ghl_oauth.Client("app-1", "secret")
assert client._open().token_in_memory("location") is None
"""

PROGRAM = """
import json, resource, sys, time
before = set(sys.modules)
begun = time.perf_counter()
%s
ended = time.perf_counter()
unit = 1 if sys.platform == "darwin" else 1 / 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
modules = len(set(sys.modules) - before)
print(json.dumps([1000 * (ended - begun), peak / 1e6, modules, sys.version.split()[0]]))
"""


def measure(python: str, statement: str) -> tuple[float, float, int, str]:
    """Milliseconds, peak megabytes, number of modules, and the Python version."""
    runs = [
        json.loads(
            subprocess.run(
                [python, "-c", PROGRAM % statement], stdout=subprocess.PIPE, check=True
            ).stdout
        )
        for _ in range(RUNS)
    ]
    return min(run[0] for run in runs), min(run[1] for run in runs), runs[0][2], runs[0][3]


def main() -> None:
    """Measures each given interpreter."""
    print(f"{'Python':<10} {'':<8} {'time':>10} {'memory':>10} {'modules':>10}")
    for python in sys.argv[1:] or [sys.executable]:
        _, nothing, _, _ = measure(python, "pass")
        for name, statement in (("import", "import ghl_oauth"), ("client", CLIENT)):
            milliseconds, megabytes, modules, version = measure(python, statement)
            print(
                f"{version:<10} {name:<8} {milliseconds:>7.1f} ms {megabytes - nothing:>7.1f} MB "
                f"{modules:>10}"
            )


if __name__ == "__main__":
    main()
