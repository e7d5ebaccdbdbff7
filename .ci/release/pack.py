"""Archives whose bytes depend on the content alone."""

import gzip
import io
import shutil
import subprocess
import tarfile
import time
import zipfile

import build
import frame
from frame import ROOT


def copy_texts(tree):
    """The texts that every archive contains."""
    for name in ("LICENSE-APACHE", "LICENSE-MIT", "CHANGELOG.md", "README.md"):
        shutil.copyfile(ROOT / name, tree / name)


def file_name(name, is_zip):
    return f"{name}.zip" if is_zip else f"{name}.tar.gz"


def archive(folder, output, name, is_zip):
    """Packs a folder under a name: .zip for Windows, .tar.gz for other systems."""
    files = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    path = output / file_name(name, is_zip)
    named = [(file, f"{name}/{file.relative_to(folder).as_posix()}") for file in files]
    if is_zip:
        write_zip(path, [(name, file.read_bytes(), is_program(file)) for file, name in named])
    else:
        path.write_bytes(compressed(pack_tar(named)))
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def is_program(file):
    return bool(file.lstat().st_mode & 0o100)


def write_zip(path, entries):
    """Writes entries of name, content, and whether they are programs."""
    # The format has no dates before 1980.
    date = max(time.gmtime(build.epoch())[:6], (1980, 1, 1, 0, 0, 0))
    with zipfile.ZipFile(path, "w") as packed:
        for name, content, is_executable in entries:
            entry = zipfile.ZipInfo(name, date)
            entry.create_system = 3
            entry.external_attr = (0o100755 if is_executable else 0o100644) << 16
            packed.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)


def pack_tar(named):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for file, name in named:
            entry = tarfile.TarInfo(name)
            entry.mtime = build.epoch()
            if file.is_symlink():
                entry.type = tarfile.SYMTYPE
                entry.linkname = str(file.readlink())
                entry.mode = 0o777
                tar.addfile(entry)
                continue
            content = file.read_bytes()
            entry.size = len(content)
            entry.mode = 0o755 if is_program(file) else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def compressed(content):
    """gzip without a date and a file name."""
    return gzip.compress(content, 9, mtime=0)


def sources(output, name):
    """The files of the commit. Packages for distributions and package managers are built of it."""
    command = ["git", "-c", f"safe.directory={ROOT}", "archive", f"--prefix={name}/", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    if done.returncode:
        raise frame.Failed(f"git archive: {done.stderr.decode()}")
    (output / f"{name}.tar.gz").write_bytes(compressed(done.stdout))
