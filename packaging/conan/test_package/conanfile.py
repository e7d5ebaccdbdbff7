"""Builds a program with the package and runs it."""

import os

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout


class Consumer(ConanFile):
    """A project that uses find_package."""

    settings = "os", "arch", "compiler", "build_type"
    generators = "CMakeDeps", "VirtualRunEnv"

    def requirements(self):
        """The package that is tested."""
        self.requires(self.tested_reference_str)

    def layout(self):
        """The folders of CMake."""
        cmake_layout(self)

    def generate(self):
        """Tells the project which library to use."""
        toolchain = CMakeToolchain(self)
        shared = self.dependencies["ghl-oauth"].options.shared
        toolchain.variables["LIBRARY"] = "ghl_oauth::ghl_oauth" if shared else "ghl_oauth::static"
        toolchain.generate()

    def build(self):
        """Builds the program."""
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def test(self):
        """The program prints the library's version."""
        self.run(os.path.join(self.cpp.build.bindir, "program"), env="conanrun")
