"""A NuGet package with the shared libraries of all archives, for .NET programs.

NuGet's tools are not needed: the package is a ZIP archive in a fixed layout. .NET loads the library
from `runtimes/RID/native`, where RID is its name of a platform.
"""

import tarfile
import zipfile

import build
import notices
import pack
from frame import ROOT

# The platforms of .NET. Of two targets for one platform, the later one wins: the DLL of the GNU ABI
# has been run, that of MSVC has only been built.
PLATFORMS = {
    "x86_64-unknown-linux-gnu": "linux-x64",
    "aarch64-unknown-linux-gnu": "linux-arm64",
    "x86_64-unknown-linux-musl": "linux-musl-x64",
    "aarch64-unknown-linux-musl": "linux-musl-arm64",
    "x86_64-apple-darwin": "osx-x64",
    "aarch64-apple-darwin": "osx-arm64",
    "x86_64-pc-windows-msvc": "win-x64",
    "x86_64-pc-windows-gnu": "win-x64",
}

TYPES = """<?xml version="1.0" encoding="utf-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
{types}</Types>
"""

RELATIONS = """<?xml version="1.0" encoding="utf-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
  <Relationship Type="http://schemas.microsoft.com/packaging/2010/07/manifest"
    Target="/ghl_oauth.nuspec" Id="R1" />
</Relationships>
"""

MANIFEST = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://schemas.microsoft.com/packaging/2013/05/nuspec.xsd">
  <metadata>
    <id>ghl_oauth</id>
    <version>{version}</version>
    <authors>ghl-oauth</authors>
    <license type="expression">MIT OR Apache-2.0</license>
    <readme>README.md</readme>
    <description>OAuth 2.0 access to the GoHighLevel API, the native library</description>
    <tags>oauth2 gohighlevel highlevel native</tags>
    <dependencies>
      <group targetFramework=".NETStandard2.0" />
    </dependencies>
  </metadata>
</package>
"""


def members(archive):
    """The files of an archive by their path below its folder; links have no content."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            return {name.split("/", 1)[1]: packed.read(name) for name in packed.namelist()}
    with tarfile.open(archive) as packed:
        files = [entry for entry in packed if entry.isfile()]
        return {entry.name.split("/", 1)[1]: packed.extractfile(entry).read() for entry in files}


def native(files):
    """The shared library, and its name without the ABI's version."""
    for path, content in files.items():
        name = path.rsplit("/", 1)[1] if "/" in path else path
        if path == "bin/ghl_oauth.dll":
            return name, content
        if path.startswith("lib/libghl_oauth.so."):
            return "libghl_oauth.so", content
        if path.startswith("lib/libghl_oauth.") and path.endswith(".dylib"):
            return "libghl_oauth.dylib", content
    return None


def make(output):
    """Makes the package of the archives in the folder, if there are any."""
    files = {}
    for target, platform in PLATFORMS.items():
        name = f"ghl-oauth-{build.version()}-{target}"
        archive = output / pack.file_name(name, "-windows-" in target)
        if archive.exists():
            content = members(archive)
            library, code = native(content)
            files[f"runtimes/{platform}/native/{library}"] = code
            files[f"licenses/{platform}.txt"] = content[notices.LICENCES]
    if not files:
        return
    for name in ("LICENSE-MIT", "LICENSE-APACHE", "README.md"):
        files[name if "." in name else f"{name}.txt"] = (ROOT / name).read_bytes()
    files["ghl_oauth.nuspec"] = MANIFEST.format(version=build.version()).encode()
    files["_rels/.rels"] = RELATIONS.encode()
    content_types = {"rels": "application/vnd.openxmlformats-package.relationships+xml"}
    endings = sorted({name.rsplit(".", 1)[1] for name in files})
    types = "".join(
        f'  <Default Extension="{ending}"'
        f' ContentType="{content_types.get(ending, "application/octet-stream")}" />\n'
        for ending in endings
    )
    files["[Content_Types].xml"] = TYPES.format(types=types).encode()
    path = output / f"ghl_oauth.{build.version()}.nupkg"
    pack.write_zip(path, [(name, content, False) for name, content in sorted(files.items())])
    print(f"{path.name}: {path.stat().st_size:,} bytes")
