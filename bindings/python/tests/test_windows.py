"""The package without what Python lacks on Windows. Runs on Unix and only simulates Windows: the
functions and modules that Windows does not have are removed, and ``sys.platform`` is ``"win32"``.
"""

from __future__ import annotations

import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import ghl_oauth
from ghl_oauth import _library

from .support import EmulatorTest, environment

# Modules of the standard library that find out the platform when they are imported come first.
# Functions that they need to start programs on Unix, or to read /proc, remain.
PRELUDE = """
import argparse, asyncio, concurrent.futures, contextlib, csv, ctypes, ctypes.util, datetime
import getpass, http.client, http.server, importlib.metadata, inspect, logging, multiprocessing
import os, pathlib, shelve, shutil, signal, socket, sqlite3, ssl, subprocess, sys, tempfile
import threading, urllib.request, uuid, webbrowser

# On Windows it does not need `statvfs`.
usage = shutil.disk_usage('/')
shutil.disk_usage = lambda path: usage

# CPython 3.13 starts programs by `posix_spawn`, which is missing below.
subprocess._USE_POSIX_SPAWN = False

for name in '''chown chroot confstr fchdir fchmod fchown fork forkpty fpathconf fstatvfs getegid
        geteuid getgid getgroups getloadavg getpgid getpgrp getpriority getresgid getresuid getsid
        getuid initgroups killpg lchown lockf mkfifo mknod nice openpty pathconf pipe2
        posix_fadvise posix_fallocate posix_spawn pread pwrite register_at_fork sched_yield
        sendfile setegid seteuid setgid setgroups setpgid setpriority setsid setuid statvfs sync
        sysconf tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4
        O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_SYNC'''.split():
    vars(os).pop(name, None)
for name in '''SIGALRM SIGCHLD SIGCONT SIGHUP SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1
        SIGUSR2 SIGWINCH alarm pthread_sigmask setitimer siginterrupt sigtimedwait'''.split():
    vars(signal).pop(name, None)
for name in 'fcntl grp pty pwd readline resource syslog termios tty'.split():
    sys.modules[name] = None
vars(socket).pop('AF_UNIX', None)
import ntpath
os.path.expanduser = ntpath.expanduser
sys.platform = 'win32'
"""


@unittest.skipIf(sys.platform == "win32", "simulates Windows")
class SimulatedWindowsTest(EmulatorTest):
    OPTIONS: tuple[str, ...] = ("--locations", "3")

    def run_python(
        self, code: str, *arguments: str, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "-c", PRELUDE + code, *arguments],
            # On this system the package finds no DLL.
            env={**environment(), "GHL_OAUTH_LIBRARY": _library._path(), **variables},
            input=stdin,
            capture_output=True,
            encoding="cp1252",
            timeout=120,
        )

    def test_every_module_is_imported(self) -> None:
        found = pkgutil.walk_packages(ghl_oauth.__path__, "ghl_oauth.")
        # A wheel contains the library, which is no module.
        others = ("__main__", "libghl_oauth")
        names = [found.name for found in found if not found.name.endswith(others)]
        self.assertGreater(len(names), 40)
        optional = ["anyio", "gevent", "httpx", "requests"]
        code = (
            "import importlib, json\n"
            "for name in json.loads(sys.argv[1]):\n"
            "    try:\n"
            "        importlib.import_module(name)\n"
            "    except ModuleNotFoundError as error:\n"
            "        assert error.name in json.loads(sys.argv[2]), error\n"
            "from ghl_oauth import _library\n"
            "print(_library._file_name())\n"
        )
        ended = self.run_python(code, json.dumps(names), json.dumps(optional))
        self.assertEqual(ended.stdout, "ghl_oauth.dll\n", ended.stderr)

    def test_command_line_connects_and_lists_a_company(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "config.json")
            store = {"kind": "sqlite", "path": os.path.join(folder, "tokens.db")}
            config.write_text(json.dumps({**self.emulator.configuration, "store": store}))
            config.chmod(0o600)

            files = ["config.json", "tokens.db", "tokens.db.locks"]
            # The encoding of an old console.
            variables = {"GHL_OAUTH_CONFIG": str(config), "PYTHONIOENCODING": "cp1252"}
            variables["LOCALAPPDATA"] = folder

            def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
                code = f"import runpy; os.chdir({folder!r}); os.environ.pop('HOME', None);"
                code += "runpy.run_module('ghl_oauth', run_name='__main__')"
                return self.run_python(code, *arguments, stdin=stdin, **variables)

            del variables["LOCALAPPDATA"]
            stopped = command("login", "--paste")
            self.assertIn("no address was pasted", stopped.stderr)
            self.assertEqual(sorted(os.listdir(folder)), files, "nothing without a home folder")
            variables["LOCALAPPDATA"] = folder
            stopped = command("login", "--paste")
            link = re.search(r"http\S+", stopped.stderr)
            assert link, stopped.stderr
            self.assertTrue(Path(folder, "ghl-oauth", "logins.json").is_file())
            redirect = self.emulator.consent(link.group(), companyId=self.emulator.company_id)
            for arguments in (["login", "--paste"], ["status"], ["doctor"]):
                ended = command(*arguments, stdin=redirect + "\n")
                self.assertIn(self.emulator.company_id, ended.stdout, ended.stderr)
                self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
