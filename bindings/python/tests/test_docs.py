"""The Python code in the documentation: valid, well typed, and run if marked."""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib.util
import io
import logging
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import ghl_oauth
from ghl_oauth import aio

from .support import REPOSITORY, EmulatorTest, environment

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "bindings/python/README.md",
    # The blocks of other pages use the tokens that python.md's obtain.
    *sorted((REPOSITORY / "docs").glob("*.md"), key=lambda page: (page.stem != "python", page)),
]

MARK = "<!-- runs -->\n"

# Definitions that a block may use from earlier blocks.
PRELUDE = """\
from __future__ import annotations
import httpx
import requests
import ghl_oauth
client: ghl_oauth.Client
company_id: str
location_id: str
redirect_url: str
url: str
raw_body: bytes
headers: dict[str, str]
def redirected_to(url: str) -> str: ...
"""


def blocks() -> list[tuple[str, str, bool]]:
    """Each block: its location, its code, and whether it is run."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, block.start()) + 2
            place = f"{page.relative_to(REPOSITORY).as_posix()}:{line}"
            found.append((place, block.group(1), text[: block.start()].endswith(MARK)))
    return found


class BlocksTest(unittest.TestCase):
    def test_every_block_is_valid(self) -> None:
        found = blocks()
        self.assertGreater(len(found), 8)
        for place, code, _ in found:
            with self.subTest(place):
                compile(code, place, "exec", dont_inherit=True)

    def test_no_block_needs_a_newer_python_for_its_types(self) -> None:
        for place, code, _ in blocks():
            tree = ast.parse(code)
            annotations = [
                getattr(node, name, None)
                for node in ast.walk(tree)
                for name in ("annotation", "returns")
            ]
            unions = any(
                isinstance(part, ast.BinOp)
                for each in annotations
                if each is not None
                for part in ast.walk(each)
            )
            if unions:
                with self.subTest(place):
                    self.assertTrue(
                        code.startswith("from __future__ import annotations\n"),
                        "3.9 knows no `X | None`",
                    )

    def test_every_block_is_well_typed(self) -> None:
        if importlib.util.find_spec("mypy") is None:
            print(
                "skipped: the types of the documentation's Python, mypy is not installed (pip "
                "install mypy)"
            )
            raise unittest.SkipTest("no mypy")
        with tempfile.TemporaryDirectory() as folder:
            for place, code, _ in blocks():
                Path(folder, re.sub(r"\W+", "_", place) + ".py").write_text(
                    PRELUDE + code, encoding="utf-8"
                )
            checked = subprocess.run(
                [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--check-untyped-defs",
                 "--disable-error-code=empty-body", "--disable-error-code=no-redef",
                 "--cache-dir=cache", "."],
                cwd=folder,
                env={**environment(), "MYPYPATH": environment()["PYTHONPATH"]},
                capture_output=True,
                text=True,
                check=False,
            )  # fmt: skip
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)


class RunningTest(EmulatorTest):
    OPTIONS = ("--locations", "2")

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)

    def person(self, url: str) -> str:
        return self.emulator.consent(url, companyId=self.emulator.company_id)

    def run_block(self, place: str, code: str, names: dict[str, Any]) -> str:
        """Runs a block with the emulator and completes the consent for the printed link."""
        emulator, real_client = self.emulator, ghl_oauth.Client
        clients: list[ghl_oauth.Client] = []

        def make(client_id: str, client_secret: str, **settings: Any) -> ghl_oauth.Client:
            self.assertEqual((client_id, client_secret), ("<your id>", "<your secret>"))
            app = emulator.configuration
            clients.append(
                real_client(
                    app["clientId"],
                    app["clientSecret"],
                    base_url=app["baseUrl"],
                    authorize_url=app["authorizeUrl"],
                    **settings,
                )
            )
            self.addCleanup(clients[-1].close)
            return clients[-1]

        real_aio = aio.Client

        def make_aio(client_id: str, client_secret: str, **settings: Any) -> aio.Client:
            return real_aio.from_client(make(client_id, client_secret, **settings))

        output = io.StringIO()

        def paste(_prompt: str) -> str:
            (link,) = re.findall(r"http\S+", output.getvalue())
            return self.person(link)

        with (
            mock.patch.object(ghl_oauth, "Client", make),
            mock.patch.object(aio, "Client", make_aio),
            mock.patch.object(builtins, "input", paste),
            mock.patch.object(logging, "basicConfig"),
            contextlib.redirect_stdout(output),
        ):
            exec(compile(code, place, "exec", dont_inherit=True), {"ghl_oauth": ghl_oauth, **names})
        return output.getvalue()

    def test_marked_blocks_run(self) -> None:
        self.addCleanup(logging.getLogger("ghl_oauth").setLevel, logging.NOTSET)
        self.install()
        names = {
            "client": self.client,
            "company_id": self.emulator.company_id,
            "location_id": self.emulator.location_ids[0],
            "redirected_to": self.person,
        }
        marked = [(place, code) for place, code, runs in blocks() if runs]
        self.assertGreater(len(marked), 6)
        shown = ""
        for place, code in marked:
            with self.subTest(place):
                shown += self.run_block(place, code, names)
        self.assertIn(" 200\n", shown)

    def test_readme_code_gets_location_tokens(self) -> None:
        ((place, code, _),) = (block for block in blocks() if block[0].startswith("README.md"))
        shown = self.run_block(place, code, {})
        self.assertEqual(len(shown.splitlines()), 1 + len(self.emulator.location_ids))
