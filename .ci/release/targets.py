"""The targets of a release, and the tools for each."""

import os
import subprocess

SOURCE = "source"

# The targets that a Debian machine can build, with the prefix of GCC's programs.
TARGETS = {
    "x86_64-unknown-linux-gnu": "x86_64-linux-gnu-",
    "aarch64-unknown-linux-gnu": "aarch64-linux-gnu-",
    "x86_64-unknown-linux-musl": "x86_64-linux-gnu-",
    "x86_64-pc-windows-gnu": "x86_64-w64-mingw32-",
}


def host():
    """The triple of this machine."""
    said = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line[6:] for line in said.splitlines() if line.startswith("host: "))


class Target:
    """A platform of a release."""

    def __init__(self, triple):
        self.triple = triple
        self.is_native = triple == host()
        self.is_windows = "-windows-" in triple
        self.is_musl = triple.endswith("-musl")
        self.is_apple = "-apple-" in triple
        self.is_msvc = triple.endswith("-msvc")
        # The binutils separate the symbols of ELF files and of GCC's programs for Windows.
        self.has_debug_archive = not self.is_msvc and not self.is_apple
        self.prefix = "" if self.is_native else TARGETS.get(triple, "")

    def tool(self, name):
        """A program of GCC or of the binutils."""
        return f"{self.prefix}{name}"

    @property
    def variable(self):
        """The triple in the names of environment variables."""
        return self.triple.upper().replace("-", "_")

    @property
    def library(self):
        """The file name of the shared library."""
        if self.is_windows:
            return "ghl_oauth.dll"
        return "libghl_oauth.dylib" if self.is_apple else "libghl_oauth.so"

    @property
    def emulator(self):
        """The file name of the emulator."""
        return "ghl-oauth-emulator.exe" if self.is_windows else "ghl-oauth-emulator"


def cargo_home():
    """The folder of Cargo's downloads."""
    return os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
