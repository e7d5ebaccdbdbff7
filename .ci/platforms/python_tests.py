"""The tests of the Python package, run by the Python of a platform."""

import json
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from frame import ROOT, Failed

FOLDER = ROOT / "bindings/python/tests"

# Seconds for the tests of a module.
TIMEOUT = 1800

# Runs the tests of a module, or one test: the first argument. The second is a JSON list of tests to
# leave out. The last line is a JSON object: the names of all tests and of the failed ones, and the
# reasons for which tests were skipped.
RUNNER = r"""
import json, sys, unittest

def tests(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests(test)
        else:
            yield test

found = list(tests(unittest.defaultTestLoader.loadTestsFromName(sys.argv[1])))
left_out = json.loads(sys.argv[2])
suite = unittest.TestSuite(test for test in found if test.id() not in left_out)
result = unittest.TextTestRunner(sys.stdout, verbosity=2).run(suite)
failed = [getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors]
skipped = [reason for _, reason in result.skipped]
names = [test.id() for test in found]
print(json.dumps({"names": names, "failed": sorted(set(failed)), "skipped": skipped}))
"""


def modules():
    """The modules of tests, the longest first."""
    files = sorted(FOLDER.glob("test_*.py"), key=lambda file: -file.stat().st_size)
    return [f"tests.{file.stem}" for file in files]


def run(result, command, left_out=(), at_once=4, **options):
    """Runs all modules, some at a time. Returns how many tests passed, and how many were skipped.

    `command` starts a Python in the folder of the package. `result` notes what failed and what is
    left out: tests, or modules that cannot be imported.
    """
    names = [entry.test for entry in left_out]
    run_modules = [module for module in modules() if module not in names]

    def outcome(name, without):
        arguments = ["-W", "error::ResourceWarning", "-c", RUNNER, name, json.dumps(without)]
        pipes = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        try:
            ended = subprocess.run(
                [*command, *arguments], check=False, timeout=TIMEOUT, **pipes, **options
            )
            return json.loads(ended.stdout.splitlines()[-1]), ended.stdout + ended.stderr
        except subprocess.TimeoutExpired as expired:
            raise Failed(f"{name}: {expired}") from None
        except (IndexError, ValueError):
            output = ended.stdout + ended.stderr
            raise Failed(f"{name} ended with {ended.returncode}:\n{output}") from None

    passed, skipped, known = 0, Counter(), set(modules())
    with ThreadPoolExecutor(at_once) as pool:
        outcomes = list(pool.map(lambda module: outcome(module, names), run_modules))
    for module, (document, output) in zip(run_modules, outcomes):
        known.update(document["names"])
        run_here = set(document["names"]) - set(names)
        failed = 0
        if document["failed"]:
            print(output, flush=True)
        for name in document["failed"]:
            # Only the time may have been short.
            again, output = outcome(name if name in run_here else module, names)
            if again["failed"]:
                print(output, flush=True)
                failed += 1
                result.failed.append(f"python::{name}")
            else:
                result.repeated.append(f"python::{name}")
        skipped.update(document["skipped"])
        passed += len(run_here) - failed - len(document["skipped"])
    for entry in left_out:
        if entry.test not in known:
            raise Failed(f"left out, but no test: {entry.test}")
        if not entry.sometimes and not outcome(entry.test, [])[0]["failed"]:
            result.failed.append(f"python::{entry.test} passes, but is left out")
    result.left_out += left_out
    for reason, times in skipped.items():
        print(f"skipped {times}: {reason}")
    return passed, sum(skipped.values())
