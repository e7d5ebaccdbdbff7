"""The examples, run like a person would."""

from __future__ import annotations

import subprocess
import sys
import tempfile

from .support import REPOSITORY, EmulatorTest, environment

QUICKSTART = REPOSITORY / "examples" / "python" / "quickstart.py"


class QuickstartTest(EmulatorTest):
    def run_in(self, folder: str) -> str:
        ended = subprocess.run(
            [sys.executable, str(QUICKSTART), self.emulator.base_url],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return ended.stdout

    def test_quickstart_gets_a_token_for_every_location(self) -> None:
        paused, *active = self.emulator.location_ids
        with tempfile.TemporaryDirectory() as folder:
            self.emulator.control("POST", f"/locations/{paused}", {"active": False})
            first = self.run_in(folder)
            self.assertEqual(first.count(" token of "), len(active))
            self.assertEqual(first.count(" is paused"), 1)
            requests = len(self.emulator.requests("/oauth/token"))
            self.assertIn(self.emulator.company_id, self.run_in(folder))
            self.assertEqual(
                len(self.emulator.requests("/oauth/token")),
                requests,
                "a second run needs no consent",
            )
