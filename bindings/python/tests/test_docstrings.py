"""The docstrings: complete, and consistent with the code."""

from __future__ import annotations

import builtins
import inspect
import re
import unittest
from collections.abc import Iterator
from typing import Any

import ghl_oauth
from ghl_oauth import aio
from ghl_oauth.cli import main

NAMES = [name for name in ghl_oauth.__all__ if name != "__version__"]


def functions() -> Iterator[tuple[str, Any]]:
    """Every public function and method, by its name."""
    for name in NAMES:
        documented = getattr(ghl_oauth, name)
        if inspect.isfunction(documented):
            yield name, documented
        elif inspect.isclass(documented):
            for method_name, method in vars(documented).items():
                method = getattr(method, "__func__", method)
                public = not method_name.startswith("_")
                if (
                    inspect.isfunction(method)
                    and public
                    and method_name not in ("from_json", "to_json")
                ):
                    yield f"{name}.{method_name}", method
    for kind in (aio.Client, aio.Pages):
        for method_name, method in vars(kind).items():
            method = getattr(method, "__func__", method)
            if inspect.isfunction(method) and not method_name.startswith("_"):
                yield f"Client.{method_name}", method
    yield "Client", ghl_oauth.Client.__init__
    yield "cli.main", main


def section(documentation: str, title: str) -> str | None:
    """The indented lines below a title such as ``Args:``."""
    found = re.search(rf"^{title}:\n((?:[ ].*\n?|\n)+)", documentation, flags=re.MULTILINE)
    return found.group(1) if found else None


class DocstringsTest(unittest.TestCase):
    def test_every_public_name_is_documented(self) -> None:
        for name in NAMES:
            documented = getattr(ghl_oauth, name)
            # A dataclass without a docstring would get its signature.
            words = (
                vars(documented).get("__doc__")
                if inspect.isclass(documented)
                else documented.__doc__
            )
            self.assertTrue(words and not words.startswith(f"{name}("), name)
        for name, function in functions():
            self.assertTrue(inspect.getdoc(function), name)

    def test_docstrings_describe_every_parameter_exactly_once(self) -> None:
        described = 0
        for name, function in functions():
            documentation = inspect.getdoc(function) or ""
            given = [
                each
                for each in inspect.signature(function).parameters
                if each not in ("self", "cls")
            ]
            lines = section(documentation, "Args")
            if lines is None:
                # A docstring that describes its parameter in prose.
                self.assertLessEqual(len(given), 1, name)
                self.assertNotIn("resource_id", given, name)
                continue
            self.assertEqual(re.findall(r"^ {4}(\w+):", lines, flags=re.MULTILINE), given, name)
            described += 1
        self.assertGreater(described, 15)

    def test_documented_exceptions_exist(self) -> None:
        named = 0
        for name, function in functions():
            lines = section(inspect.getdoc(function) or "", "Raises") or ""
            for names in re.findall(r"^ {4}([\w, ]+):", lines, flags=re.MULTILINE):
                for error in names.split(", "):
                    found = getattr(ghl_oauth, error, None) or getattr(builtins, error, None)
                    self.assertTrue(
                        inspect.isclass(found) and issubclass(found, BaseException),
                        f"{name}: {error}",
                    )
                    named += 1
        self.assertGreater(named, 30)

    def test_documented_references_resolve(self) -> None:
        for name, function in functions():
            for method in re.findall(r":meth:`(\w+)`", inspect.getdoc(function) or ""):
                owner = getattr(ghl_oauth, name.split(".")[0], None)
                self.assertTrue(hasattr(owner, method), f"{name}: {method}")
