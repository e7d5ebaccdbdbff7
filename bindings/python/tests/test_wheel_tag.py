"""The platform tag of a wheel, which the build hook reads from the native library."""

from __future__ import annotations

import importlib.util
import os
import struct
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

from .support import REPOSITORY

HOOK = REPOSITORY / "bindings" / "python" / "hatch_build.py"

PACKAGES = ("elftools", "hatchling")
HAS_BUILD_BACKEND = all(map(importlib.util.find_spec, PACKAGES))

ARM64, X86_64 = 0x0100000C, 0x01000007
BUILD_VERSION, VERSION_MIN_MACOSX, UUID = 0x32, 0x24, 0x1B


def version(major: int, minor: int) -> int:
    return major << 16 | minor << 8


def mach_o(machine: int, command: int, oldest: int) -> bytes:
    """The header of a macOS library, with a load command before the one for the version."""
    commands = struct.pack("<2I16x", UUID, 24)
    if command == BUILD_VERSION:
        commands += struct.pack("<6I", command, 24, 1, oldest, version(15, 0), 0)
    else:
        commands += struct.pack("<4I", command, 16, oldest, version(15, 0))
    return struct.pack("<8I", 0xFEEDFACF, machine, 0, 6, 2, len(commands), 0, 0) + commands


def portable_executable(machine: int) -> bytes:
    """The beginning of a DLL."""
    return b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", machine)


@unittest.skipUnless(
    HOOK.is_file() and HAS_BUILD_BACKEND,
    "needs the build hook's packages (pip install hatchling pyelftools)",
)
class WheelTagTest(unittest.TestCase):
    def setUp(self) -> None:
        spec = importlib.util.spec_from_file_location("hatch_build", HOOK)
        assert spec and spec.loader
        self.hook: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.hook)  # pyright: ignore[reportAttributeAccessIssue]

    def tag(self, library: bytes) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "library"
            path.write_bytes(library)
            return str(self.hook._platform_tag(path))

    def test_macos_tag_is_the_version_that_the_library_was_built_for(self) -> None:
        for machine, command, oldest, tag in (
            (ARM64, BUILD_VERSION, version(11, 0), "macosx_11_0_arm64"),
            (ARM64, BUILD_VERSION, version(14, 0), "macosx_14_0_arm64"),
            (X86_64, VERSION_MIN_MACOSX, version(10, 12), "macosx_10_12_x86_64"),
            (X86_64, BUILD_VERSION, version(10, 15), "macosx_10_15_x86_64"),
            # From macOS 11 on, pip accepts no tag with a minor version.
            (ARM64, BUILD_VERSION, version(13, 3), "macosx_14_0_arm64"),
        ):
            with self.subTest(tag):
                self.assertEqual(self.tag(mach_o(machine, command, oldest)), tag)

    def test_macos_library_without_a_version_is_refused(self) -> None:
        header = struct.pack("<8I", 0xFEEDFACF, ARM64, 0, 6, 0, 0, 0, 0)
        with self.assertRaisesRegex(ValueError, "oldest macOS"):
            self.tag(header)

    def test_windows_tag_is_the_processor_of_the_library(self) -> None:
        for machine, tag in ((0x8664, "win_amd64"), (0xAA64, "win_arm64"), (0x14C, "win32")):
            with self.subTest(tag):
                self.assertEqual(self.tag(portable_executable(machine)), tag)

    def test_unknown_file_is_refused(self) -> None:
        for content in (b"", b"#!/bin/sh\n", b"MZ"):
            with self.subTest(content), self.assertRaisesRegex(ValueError, "no shared library"):
                self.tag(content)

    @unittest.skipUnless(sys.platform == "linux", "reads an ELF file")
    def test_linux_tag_names_the_processor_and_the_c_library(self) -> None:
        library = Path(os.environ.get("GHL_OAUTH_LIBRARY", ""))
        if not library.is_file():
            self.skipTest("GHL_OAUTH_LIBRARY names no library")
        machine = os.uname().machine
        self.assertRegex(
            self.hook._platform_tag(library),
            rf"^(manylinux_2_\d+|musllinux_1_2)_{machine}$",
        )

    def test_file_in_the_wheel_has_the_name_of_its_platform(self) -> None:
        for tag, name in (
            ("win_amd64", "ghl_oauth.dll"),
            ("macosx_11_0_arm64", "libghl_oauth.dylib"),
            ("manylinux_2_17_aarch64", "libghl_oauth.so"),
            ("musllinux_1_2_x86_64", "libghl_oauth.so"),
        ):
            with self.subTest(tag):
                self.assertEqual(self.hook._file_name(tag), name)
