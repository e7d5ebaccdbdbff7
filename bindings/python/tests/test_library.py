"""Finding and loading the native library."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import ghl_oauth
from ghl_oauth import _library

from .support import environment


def import_with(library: str | None) -> subprocess.CompletedProcess[str]:
    variables = environment()
    variables.pop("GHL_OAUTH_LIBRARY", None)
    if library is not None:
        variables["GHL_OAUTH_LIBRARY"] = library
    return subprocess.run(
        [sys.executable, "-c", "import ghl_oauth; print(ghl_oauth.library_version())"],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


@unittest.skipIf(
    (Path(_library.__file__).parent / _library._file_name()).exists(),
    "an installed package has its own library",
)
class LibraryTest(unittest.TestCase):
    def test_environment_variable_selects_the_library(self) -> None:
        imported = import_with(os.environ["GHL_OAUTH_LIBRARY"])
        self.assertEqual(
            (imported.stdout.strip(), imported.stderr), (ghl_oauth.library_version(), "")
        )

    def test_missing_library_error_lists_the_searched_names(self) -> None:
        error = import_with(None).stderr
        for part in ("ImportError", _library._file_name(), "GHL_OAUTH_LIBRARY"):
            self.assertIn(part, error)

    def test_missing_or_broken_library_is_named(self) -> None:
        with tempfile.NamedTemporaryFile(suffix=".so") as broken:
            for path in ("/nowhere/libghl_oauth.so", broken.name):
                error = import_with(path).stderr
                self.assertIn("ImportError", error)
                self.assertIn(path, error)

    @unittest.skipUnless(ctypes.util.find_library("c"), "no other library to load")
    def test_unrelated_library_is_refused(self) -> None:
        with self.assertRaisesRegex(ImportError, "is not the ghl_oauth library"):
            _library._load(str(ctypes.util.find_library("c")))

    def test_old_library_is_refused(self) -> None:
        with (
            mock.patch.object(_library, "ABI_VERSION", 99),
            self.assertRaisesRegex(
                ImportError, f"has ABI version {ghl_oauth.abi_version()}, but this package needs 99"
            ),
        ):
            _library._load(_library._path())

    def test_library_without_a_required_function_is_refused(self) -> None:
        signatures = {**_library.SIGNATURES, "ghl_of_the_future": (None, ())}
        with (
            mock.patch.object(_library, "SIGNATURES", signatures),
            self.assertRaisesRegex(ImportError, "does not have ghl_of_the_future"),
        ):
            _library._load(_library._path())

    def test_library_of_the_extra_wheel_is_preferred_and_needs_no_variable(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder, "ghl_oauth")
            shutil.copytree(
                Path(_library.__file__).parent,
                package,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
            (package / _library._file_name()).write_text("another library")
            extra = Path(folder, "ghl_oauth_postgres")
            extra.mkdir()
            (extra / _library._file_name()).symlink_to(
                os.path.abspath(os.environ["GHL_OAUTH_LIBRARY"])
            )
            variables = {**environment(), "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
            del variables["GHL_OAUTH_LIBRARY"]
            imported = subprocess.run(
                [sys.executable, "-c", "import ghl_oauth; print(ghl_oauth.library_info())"],
                env=variables,
                capture_output=True,
                text=True,
                check=False,
            )
        self.assertEqual(imported.stderr, "")
        self.assertIn("sqlite", imported.stdout)


class ImportTest(unittest.TestCase):
    def test_package_imports_only_the_standard_library(self) -> None:
        program = "import sys, ghl_oauth; print(*{'httpx', 'requests', 'anyio'} & set(sys.modules))"
        imported = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        self.assertEqual(imported.stdout.strip(), "")

    def test_client_does_not_import_slow_modules(self) -> None:
        program = (
            "import sys, ghl_oauth; client = ghl_oauth.Client('app-1', 'secret'); "
            "client._open().token_in_memory('l1'); client.tokens_list(); print(*sys.modules)"
        )
        imported = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        slow = {"typing", "dataclasses", "inspect", "logging", "datetime", "asyncio", "urllib"}
        at_start = subprocess.run(
            [sys.executable, "-c", "import sys; print(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = set(imported.stdout.split()) - set(at_start.stdout.split())
        self.assertEqual(loaded & {*slow, "ghl_oauth.models"}, set())

    def test_every_name_is_imported_when_it_is_used(self) -> None:
        for name in ghl_oauth.__all__:
            self.assertIn(name, dir(ghl_oauth))
            self.assertIsNotNone(getattr(ghl_oauth, name))
        for module in ("auth", "client", "errors", "models", "pages", "progress", "store"):
            self.assertEqual(getattr(ghl_oauth, module).__name__, f"ghl_oauth.{module}")
        with self.assertRaisesRegex(AttributeError, "'ghl_oauth' has no attribute 'Cilent'"):
            _ = ghl_oauth.Cilent  # type: ignore[attr-defined] # pyright: ignore
