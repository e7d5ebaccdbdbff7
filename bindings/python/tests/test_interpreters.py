"""Interpreters other than the usual one: each is refused by a clear error."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import unittest
from unittest import mock

from ghl_oauth import _library

from .support import environment

# Runs a program in a sub-interpreter that shares the GIL.
SUB_INTERPRETER = textwrap.dedent("""
    import sys
    try:
        import _interpreters
    except ImportError:
        import _xxsubinterpreters as old
        try:
            number = old.create(isolated=False)
        except TypeError:
            number = old.create()
        old.run_string(number, sys.argv[1])
    else:
        failed = _interpreters.exec(_interpreters.create("legacy"), sys.argv[1])
        if failed is not None:
            sys.exit(failed.formatted)
""")

IMPORT = textwrap.dedent("""
    try:
        import ghl_oauth
    except ImportError as error:
        print(error, flush=True)
    else:
        print("imported", flush=True)
""")


@unittest.skipUnless(sys.implementation.name == "cpython", "only CPython has sub-interpreters")
class InterpretersTest(unittest.TestCase):
    def test_sub_interpreter_is_refused_at_import(self) -> None:
        program = subprocess.run(
            [sys.executable, "-c", SUB_INTERPRETER, IMPORT],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual((program.returncode, program.stderr), (0, ""), program.stdout)
        self.assertIn("sub-interpreter", program.stdout)

    def test_python_without_the_gil_is_refused_at_import(self) -> None:
        refused = self.assertRaisesRegex(ImportError, "PYTHON_GIL=1")
        with mock.patch.object(sys, "_is_gil_enabled", lambda: False, create=True), refused:
            _library._check_interpreter()
        with mock.patch.object(sys, "_is_gil_enabled", lambda: True, create=True):
            _library._check_interpreter()


if __name__ == "__main__":
    unittest.main()
