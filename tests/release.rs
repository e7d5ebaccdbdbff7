//! The script and the workflow of a release, as far as it takes no build.

use std::fs;
use std::path::{Path, PathBuf};
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

#[test]
#[cfg(unix)] // The archives have permissions and links.
fn archives_depend_on_the_content_alone() {
    let python = std::env::var_os("GHL_PYTHON").unwrap_or_else(|| "python3".into());
    let mut pack = Command::new(&python);
    pack.args(["-c", PACK_TWICE]).current_dir(ROOT).env("SOURCE_DATE_EPOCH", "1700000000");
    let Ok(done) = pack.output() else {
        println!("skipped: Python is not installed (apt-get install python3)");
        return;
    };
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
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
