"""Recipe for Conan 2: conan create packaging/conan, in the folder of the sources."""

import os
import re
import sys
from pathlib import Path

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import cross_building
from conan.tools.files import copy, load

THIRD_PARTIES = "THIRD-PARTY-LICENSES.txt"


class GhlOauth(ConanFile):
    """Builds with Cargo, by `cargo xtask install`."""

    name = "ghl-oauth"
    description = "OAuth 2.0 access to the GoHighLevel API"
    license = "MIT OR Apache-2.0"
    topics = ("oauth2", "gohighlevel", "highlevel")
    settings = "os", "arch", "compiler", "build_type"
    options = {"shared": [True, False]}
    default_options = {"shared": True}
    package_type = "library"

    def set_version(self):
        """The version of the crate."""
        manifest = load(self, os.path.join(self.recipe_folder, "../../Cargo.toml"))
        self.version = re.search(r'^version = "(.*)"', manifest, re.MULTILINE)[1]

    def export_sources(self):
        """The crate, and the files that it installs."""
        root = Path(self.recipe_folder).parents[1]
        for pattern in (
            ".cargo/*", "src/*", "include/*", "bindings/c/*", "bindings/cpp/*", "bindings/cmake/*",
            "emulator/*", "xtask/*", "benches/*.rs", "build.rs", "cbindgen.toml", "Cargo.*",
            "README.md", "CHANGELOG.md", "LICENSE-*", ".ci/release/*", ".ci/platforms/*",
        ):  # fmt: skip
            copy(self, pattern, root, self.export_sources_folder, excludes="target/*")

    def validate(self):
        """Cargo builds for the machine that it runs on."""
        if cross_building(self):
            raise ConanInvalidConfiguration("cross builds are not supported")

    def package_id(self):
        """C programs of any compiler can use the library; debug programs use the release too."""
        del self.info.settings.compiler
        del self.info.settings.build_type

    def build(self):
        """Builds and installs both libraries into a folder of the build."""
        self.run(
            f'cargo xtask install --prefix / --destdir "{self.build_folder}/stage" '
            f'--target-dir "{self.build_folder}/target"'
        )
        # The libraries contain crates, whose licences require their texts.
        self.run(f'"{sys.executable}" .ci/release --licences "{self.build_folder}/{THIRD_PARTIES}"')

    def package(self):
        """Only the chosen library, so that no program links the other one by accident."""
        stage = os.path.join(self.build_folder, "stage")
        unwanted = (
            ["*.a", "ghl_oauth.lib"] if self.options.shared else ["*.so*", "*.dylib", "*.dll*"]
        )
        if self.settings.os == "Windows":
            unwanted = [name for name in unwanted if name != "*.a"]
        copy(self, "*", stage, self.package_folder, excludes=unwanted)
        licences = os.path.join(self.package_folder, "licenses")
        copy(self, "LICENSE-*", self.source_folder, licences)
        copy(self, THIRD_PARTIES, self.build_folder, licences)

    def package_info(self):
        """CMake uses the package's own files, which know the system libraries."""
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.set_property("pkg_config_name", "ghl_oauth")
        self.cpp_info.builddirs = ["share/cmake/ghl_oauth"]
        is_import = self.options.shared and self.settings.get_safe("compiler") == "msvc"
        self.cpp_info.libs = ["ghl_oauth.dll" if is_import else "ghl_oauth"]
        if not self.options.shared:
            description = load(
                self, os.path.join(self.package_folder, "lib/pkgconfig/ghl_oauth.pc")
            )
            private = re.search(r"^Libs.private: (.*)$", description, re.MULTILINE)[1]
            self.cpp_info.system_libs = re.findall(r"-l(\S+)", private)
