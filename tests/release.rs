//! The script and the workflow of a release, as far as it takes no build.

use std::fs;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(Path::new(ROOT).join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

/// A tag of an action can be moved to other code, a commit cannot.
#[test]
fn workflows_pin_every_action_by_commit() {
    let mut number = 0;
    for (path, text) in files(".github/workflows") {
        for line in text.lines() {
            let Some((_, action)) = line.split_once("uses: ") else { continue };
            let commit = action.split_once('@').map_or("", |(_, commit)| commit);
            let (commit, version) = commit.split_once(" # v").unwrap_or((commit, ""));
            let is_hash = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_hash && !version.is_empty(), "{}: {action}", path.display());
            number += 1;
        }
    }
    assert!(number > 10, "{number}");
}

/// The versions in recipes are not read from Cargo.toml.
#[test]
fn recipes_have_the_version_of_the_crate() {
    for (recipe, version) in [
        ("packaging/vcpkg/ghl-oauth/vcpkg.json", format!("\"version\": \"{}\"", version())),
        ("packaging/debian/changelog", format!("ghl-oauth ({}-1) ", version())),
    ] {
        let text = fs::read_to_string(Path::new(ROOT).join(recipe)).unwrap();
        assert!(text.contains(&version), "{recipe} lacks {version}");
    }
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Packs the same files twice: created in another order, at another time, with other permissions
/// of the group. Prints whether the archives are equal, and the names in them.
#[cfg(unix)]
const PACK_TWICE: &str = r#"
import os, sys, tarfile, tempfile, zipfile
from pathlib import Path
sys.path[:0] = [".ci/release", ".ci/platforms"]
import pack
packed = []
for names, mode, time in ((["b", "a/c"], 0o755, 1), (["a/c", "b"], 0o750, 999_999_999)):
    folder, output = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    for name in names:
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(name)
        file.chmod(mode)
        os.utime(file, (time, time))
    (folder / "link").symlink_to("b")
    pack.archive(folder, output, "name", False)
    (folder / "link").unlink()
    pack.archive(folder, output, "name", True)
    packed.append([(output / "name.tar.gz").read_bytes(), (output / "name.zip").read_bytes()])
print(packed[0] == packed[1])
with tarfile.open(output / "name.tar.gz") as tar:
    for entry in tar:
        print(entry.name, f"{entry.mode:o}", entry.uid, entry.mtime, entry.linkname)
with zipfile.ZipFile(output / "name.zip") as packed:
    for entry in packed.infolist():
        print(entry.filename, f"{entry.external_attr >> 16:o}")
"#;

/// Runs a program in Python and returns its output; nothing if Python is not installed.
#[cfg(unix)]
fn python(code: &str) -> Option<String> {
    let python = std::env::var_os("GHL_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(&python);
    command.args(["-c", code]).current_dir(ROOT).env("SOURCE_DATE_EPOCH", "1700000000");
    let Ok(done) = command.output() else {
        println!("skipped: Python is not installed (apt-get install python3)");
        return None;
    };
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    Some(said.into_owned())
}

#[test]
#[cfg(unix)] // The archives have permissions and links.
fn archives_depend_on_the_content_alone() {
    let Some(said) = python(PACK_TWICE) else { return };
    let lines: Vec<_> = said.lines().filter(|line| !line.ends_with("bytes")).collect();
    let expected = [
        "True",
        "name/a/c 755 0 1700000000 ",
        "name/b 755 0 1700000000 ",
        "name/link 777 0 1700000000 b",
        "name/a/c 100755",
        "name/b 100755",
    ];
    assert_eq!(lines, expected);
}

/// Prints the third parties in each wheel, and whether the text of the licences names all of them.
#[cfg(unix)]
const SHIPPED: &str = r#"
import sys
sys.path[:0] = [".ci/release", ".ci/platforms"]
import notices
from targets import Target
for features in ("", "postgres"):
    target = Target("x86_64-unknown-linux-gnu")
    shipped = notices.shipped(target, ["ghl-oauth"], features)
    text = notices.licence_texts(target, shipped)
    names = [package["name"] for package in notices.third_parties(shipped)]
    print(all(f"{name} " in text for name in names), *names)
"#;

#[test]
#[cfg(unix)]
fn licences_of_a_wheel_are_those_of_the_crates_in_its_library() {
    let Some(said) = python(SHIPPED) else { return };
    let mut lines = said.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let (base, postgres) = (lines.next().unwrap(), lines.next().unwrap());
    for (names, has_postgres) in [(&base, false), (&postgres, true)] {
        assert_eq!(names[0], "True");
        assert!(names.contains(&"rustls") && names.contains(&"libsqlite3-sys"), "{names:?}");
        assert_eq!(names.contains(&"tokio-postgres"), has_postgres, "{names:?}");
        // A macro, a build dependency, and dependencies of the emulator and of the tests.
        for absent in ["serde_derive", "cbindgen", "rcgen", "proptest"] {
            assert!(!names.contains(&absent), "{absent}");
        }
    }
}

/// The build backend takes no licences from outside the folder of a package.
#[test]
fn python_packages_have_the_licences_of_the_repository() {
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let text = fs::read_to_string(Path::new(ROOT).join(name)).unwrap();
        for folder in ["bindings/python", "bindings/python/postgres"] {
            let copy = Path::new(ROOT).join(folder).join(name);
            assert!(fs::read_to_string(&copy).unwrap() == text, "{}", copy.display());
        }
    }
}

/// An import library as rustc has it made for a crate: the content, and the symbol of its table.
#[cfg(unix)]
fn import_library(folder: &Path, package: &str) -> Option<(Vec<u8>, String)> {
    let path = |name: &str| folder.join(name).into_os_string();
    fs::write(path("a.def"), "LIBRARY a.dll\nEXPORTS\n  f\n").unwrap();
    let library = path("a.dll_imports.lib");
    let mut dlltool = Command::new(Path::new(ROOT).join(".ci/dlltool"));
    dlltool.env("CARGO_PKG_NAME", package).env("CARGO_PKG_VERSION", "1.0.0");
    dlltool.arg("-d").arg(path("a.def")).args(["-D", "a.dll", "-l"]).arg(&library);
    dlltool.args(["-m", "i386:x86-64", "-f", "--64", "--no-leading-underscore"]);
    let status = dlltool.arg("--temp-prefix").arg(path("a.dll")).status().unwrap();
    if status.code() == Some(127) {
        println!("skipped: dlltool is not installed (apt-get install binutils-mingw-w64-x86-64)");
        return None;
    }
    assert!(status.success());
    let content = fs::read(&library).unwrap();
    let text = String::from_utf8_lossy(&content);
    let from = text.find("_head_").unwrap();
    let symbol = text[from..].split('\0').next().unwrap().to_owned();
    Some((content, symbol))
}

#[test]
#[cfg(unix)] // Cross-compilation for Windows.
fn import_library_depends_on_the_crate_and_not_on_its_folder() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(first) = import_library(one.path(), "first") else { return };
    assert_eq!(import_library(other.path(), "first").unwrap(), first);
    assert_ne!(import_library(other.path(), "second").unwrap().1, first.1);
}
