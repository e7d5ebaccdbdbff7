//! The exported symbols of the shared library, and the declarations of the header.

use std::collections::BTreeSet;
use std::env;
use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::{ghl_abi_version, ghl_status_name, ghl_version};

/// The library that Cargo built next to this test; the parent folder may contain an older one.
fn library() -> Option<PathBuf> {
    let tests = env::current_exe().unwrap();
    let folder = tests.parent()?;
    let name = format!("{}ghl_oauth{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let found =
        [Some(folder), folder.parent()].into_iter().flatten().map(|folder| folder.join(&name));
    found
        .filter(|path| path.exists())
        .max_by_key(|path| fs::metadata(path).and_then(|file| file.modified()).ok())
}

#[test]
fn library_exports_exactly_its_public_functions() {
    let Some(library) = library() else {
        println!("skipped: Cargo built no shared library");
        return;
    };
    // Apple's linker adds an underscore to each name, and Windows has another kind of list.
    let (options, mark): (&[&str], &str) = match env::consts::OS {
        "windows" => {
            println!("skipped: the exports of {}; dumpbin lists them", library.display());
            return;
        }
        "macos" => (&["-gU"], "_"),
        _ => (&["-D", "--defined-only"], ""),
    };
    let Ok(listed) = Command::new("nm").args(options).arg(&library).output() else {
        println!(
            "skipped: the exports of {}, nm is not installed (apt-get install binutils)",
            library.display()
        );
        return;
    };
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names = listed.lines().filter_map(|line| line.split_whitespace().last());
    let exported: BTreeSet<&str> = names.filter_map(|name| name.strip_prefix(mark)).collect();
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/ghl_oauth.h");
    let header = fs::read_to_string(header).unwrap();
    assert_eq!(exported, declared_functions(&header), "{}", library.display());
}

/// The functions that the header declares; tests/promise.rs compares them with the promised ABI.
fn declared_functions(header: &str) -> BTreeSet<&str> {
    let is_separator =
        |character: char| !(character.is_ascii_alphanumeric() || "_(".contains(character));
    let words = without_comments(header).into_iter().flat_map(|code| code.split(is_separator));
    words
        .filter_map(|word| word.split_once('(').map(|(name, _)| name))
        .filter(|name| name.starts_with("ghl_"))
        .collect()
}

/// The parts of C code outside its comments.
fn without_comments(code: &str) -> Vec<&str> {
    let mut parts = code.split("/*");
    let before = parts.next().into_iter();
    before.chain(parts.filter_map(|part| part.split_once("*/").map(|(_, code)| code))).collect()
}

#[test]
fn header_has_the_library_version_and_the_names_of_all_status_codes() {
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/ghl_oauth.h");
    let header = fs::read_to_string(header).unwrap();
    let static_text = |text: *const std::ffi::c_char| {
        // SAFETY: a static text of the library.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap()
    };
    let version = static_text(ghl_version());
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert!(header.contains(&format!("#define GHL_OAUTH_VERSION \"{version}\"")));
    assert_eq!(ghl_abi_version(), 1);
    for status in Status::ALL {
        let (name, code) = (static_text(ghl_status_name(status.code())), status.code());
        assert_eq!(name, status.name());
        assert!(header.contains(&format!("    {name} = {code},")), "{name} is {code}");
    }
    assert_eq!(static_text(ghl_status_name(0)), "GHL_OK");
    assert!(header.contains("    GHL_OK = 0,"));
    let codes =
        header.lines().filter(|line| line.starts_with("    GHL_") && line.contains(" = ")).count();
    assert_eq!(codes, Status::ALL.len() + 1);
    for unknown in [Status::ALL.len() as i32 + 1, 63, -1, i32::MIN, i32::MAX] {
        assert_eq!(static_text(ghl_status_name(unknown)), "GHL_ERR_UNKNOWN");
    }
}
