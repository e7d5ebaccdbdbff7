//! The output of `cargo cinstall`, moved to another folder and used as in docs/install.md: by
//! pkg-config and by CMake, shared and static, and with each of the three SQLite variants.
#![cfg(target_os = "linux")] // It reads ELF files, and expects their names.

mod built;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

const C: &str = "#include <stdio.h>\n#include \"ghl_oauth.h\"\n\
                 int main(void) {\n    ghl_client *client;\n    \
                 int32_t status = ghl_client_new(\"{\\\"clientId\\\": \\\"a-1\\\", \
                 \\\"clientSecret\\\": \\\"s\\\"}\", &client, NULL);\n    \
                 ghl_client_free(client);\n    puts(ghl_version());\n    return status;\n}\n";

const CPP: &str = "#include <iostream>\n#include \"ghl_oauth.hpp\"\nint main() {\n    \
                   ghl::client client(ghl::config(\"a-1\", \"s\"));\n    \
                   std::cout << client.stats().version << '\\n';\n}\n";

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\n");

fn output(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

fn is_here(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// The folder of the cargo-c programs: `GHL_CARGO_C`, or from the search path.
fn cargo_c() -> Option<PathBuf> {
    let folders = env::var_os("GHL_CARGO_C").or_else(|| env::var_os("PATH"))?;
    let found = env::split_paths(&folders).find(|folder| folder.join("cargo-cinstall").exists());
    if found.is_none() {
        println!(
            "skipped: the installation, cargo-c is not installed (cargo install --locked cargo-c)"
        );
    }
    found
}

/// Installs into a new folder and moves it, so that no absolute path still works.
fn install(cargo_c: &Path, features: &[&str]) -> (TempDir, PathBuf) {
    // cargo-c copies its output, which a concurrent build could replace.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let mut install = Command::new(env!("CARGO"));
    let path = env::join_paths(
        [cargo_c.to_owned()]
            .into_iter()
            .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    );
    install.args(["cinstall", "--debug", "--locked", "--prefix", "/opt/first", "--libdir", "lib"]);
    install.args(features).arg("--destdir").arg(folder.path()).current_dir(built::ROOT);
    // A separate folder: cargo-c contains its own Cargo, whose build files differ.
    let target = built::folder().parent().unwrap().parent().unwrap().join("cargo-c");
    install
        .arg("--target-dir")
        .arg(target)
        .env("PATH", path.unwrap())
        .env("CARGO_PROFILE_DEV_DEBUG", "0");
    output(install);
    let prefix = folder.path().join("moved");
    fs::rename(folder.path().join("opt/first"), &prefix).unwrap();
    (folder, prefix)
}

fn pkg_config(prefix: &Path, arguments: &[&str]) -> Vec<String> {
    let mut ask = Command::new("pkg-config");
    ask.arg("--define-prefix")
        .args(arguments)
        .arg("ghl_oauth")
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    output(ask).split_whitespace().map(str::to_owned).collect()
}

/// The system libraries that the static library needs, from the .pc file.
fn private_libraries(prefix: &Path) -> BTreeSet<String> {
    let file = fs::read_to_string(prefix.join("lib/pkgconfig/ghl_oauth.pc")).unwrap();
    let line = file.lines().find_map(|line| line.strip_prefix("Libs.private:"));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Runs a program with the installed library. Returns its output and whether it uses the shared
/// library.
fn run(program: &Path, prefix: &Path) -> (String, bool) {
    let mut run = Command::new(program);
    run.env("LD_LIBRARY_PATH", prefix.join("lib"));
    let said = output(run);
    let mut dynamic = Command::new("readelf");
    dynamic.arg("-d").arg(program);
    (said, output(dynamic).contains("Shared library: [libghl_oauth.so.1]"))
}

/// Whether the static library contains SQLite, and whether it refers to SQLite.
fn sqlite_symbols(prefix: &Path) -> (bool, bool) {
    let mut list = Command::new("nm");
    list.arg(prefix.join("lib/libghl_oauth.a")).stderr(Stdio::null());
    let symbols = output(list);
    let has = |kind: &str| {
        symbols.lines().any(|line| line.ends_with(&format!(" {kind} sqlite3_open_v2")))
    };
    (has("T"), has("U"))
}

/// The CMake blocks of docs/install.md.
fn cmake_blocks() -> Vec<String> {
    let page = fs::read_to_string(Path::new(built::ROOT).join("docs/install.md")).unwrap();
    page.split("\n```cmake\n")
        .skip(1)
        .map(|part| part.split("\n```").next().unwrap().to_owned())
        .collect()
}

/// Configures and builds a project. The error is the output of CMake or the linker.
fn cmake(project: &str, prefix: &Path) -> Result<TempDir, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("CMakeLists.txt"), project).unwrap();
    fs::write(folder.path().join("program.c"), C).unwrap();
    fs::write(folder.path().join("program.cpp"), CPP).unwrap();
    let mut configure = Command::new("cmake");
    configure
        .args(["-S", ".", "-B", "build"])
        .arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
    let mut build = Command::new("cmake");
    build.args(["--build", "build"]);
    for mut step in [configure, build] {
        let done = step.current_dir(folder.path()).output().unwrap();
        if !done.status.success() {
            let said = [done.stdout, done.stderr].concat();
            return Err(String::from_utf8_lossy(&said)
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "));
        }
    }
    Ok(folder)
}

#[test]
fn cargo_c_installation_works_with_pkg_config_and_cmake() {
    let Some(cargo_c) = cargo_c() else { return };
    let (_folder, prefix) = install(&cargo_c, &[]);

    let source = |name: &str| fs::read(Path::new(built::ROOT).join(name)).unwrap();
    for (installed, from) in [
        ("include/ghl_oauth.h", "include/ghl_oauth.h"),
        ("include/ghl_oauth.hpp", "bindings/cpp/ghl_oauth.hpp"),
        ("include/ghl_oauth_typed.h", "bindings/c/ghl_oauth_typed.h"),
        ("share/ghl_oauth/ghl_oauth_typed.c", "bindings/c/ghl_oauth_typed.c"),
    ] {
        assert!(
            fs::read(prefix.join(installed)).unwrap() == source(from),
            "{installed} is not {from}"
        );
    }
    let abi = ghl_oauth::internals::ffi::ghl_abi_version();
    for link in ["libghl_oauth.so", "libghl_oauth.so.1"] {
        let target = fs::read_link(prefix.join("lib").join(link)).unwrap();
        assert_eq!(target.to_str().unwrap(), format!("libghl_oauth.so.1.{abi}.0"));
    }
    let mut dynamic = Command::new("readelf");
    dynamic.arg("-d").arg(prefix.join("lib/libghl_oauth.so"));
    assert!(output(dynamic).contains("Library soname: [libghl_oauth.so.1]"));
    assert_eq!(sqlite_symbols(&prefix), (true, true));

    // The libraries that rustc lists for this crate.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("all.rs"), "pub use ghl_oauth as _;\n").unwrap();
    let mut ask = Command::new("rustc");
    ask.args([
        "--edition=2024",
        "--crate-type=staticlib",
        "--print=native-static-libs",
        "--extern",
    ]);
    ask.arg(format!("ghl_oauth={}", built::folder().join("libghl_oauth.rlib").display()));
    ask.arg("-L")
        .arg(format!("dependency={}", built::folder().display()))
        .arg("--out-dir")
        .arg(folder.path());
    let said = ask.arg(folder.path().join("all.rs")).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr);
    let named = said
        .split_once("native-static-libs: ")
        .unwrap_or_else(|| panic!("{said}"))
        .1
        .lines()
        .next()
        .unwrap();
    let named: BTreeSet<String> = named.split_whitespace().map(str::to_owned).collect();
    assert_eq!(private_libraries(&prefix), named);

    pkg_config_finds_library(&prefix, folder.path());
    cmake_finds_library(&prefix);
}

fn pkg_config_finds_library(prefix: &Path, folder: &Path) {
    if !is_here("pkg-config") {
        println!("skipped: pkg-config is not installed (apt-get install pkg-config)");
        return;
    }
    assert_eq!(pkg_config(prefix, &["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    for (name, text, compiler) in [("program.c", C, "cc"), ("program.cpp", CPP, "c++")] {
        let source = folder.join(name);
        fs::write(&source, text).unwrap();
        for shared in [true, false] {
            let mut flags = pkg_config(
                prefix,
                if shared { &["--cflags", "--libs"] } else { &["--cflags", "--static", "--libs"] },
            );
            for flag in flags.iter_mut().filter(|flag| !shared && *flag == "-lghl_oauth") {
                *flag = "-l:libghl_oauth.a".into();
            }
            let program = folder.join("program");
            let mut compile = Command::new(compiler);
            compile.arg(&source).args(flags).arg("-o").arg(&program);
            output(compile);
            assert_eq!(run(&program, prefix), (VERSION.to_owned(), shared), "{name}");
        }
    }
}

fn cmake_finds_library(prefix: &Path) {
    if !is_here("cmake") {
        println!("skipped: CMake is not installed (apt-get install cmake)");
        return;
    }
    let blocks = cmake_blocks();
    assert_eq!(blocks.len(), 2);
    for (block, shared) in blocks.iter().zip([true, false]) {
        let project = cmake(block, prefix).unwrap();
        let program = project.path().join("build/program");
        assert_eq!(run(&program, prefix), (VERSION.to_owned(), shared), "{block}");
    }
    // Twice in one project, as by two of its parts.
    let twice = format!("{}\nfind_package(ghl_oauth CONFIG REQUIRED)\n", blocks[0]);
    cmake(&twice, prefix).unwrap();

    let refused = cmake(&blocks[0].replace("ghl_oauth 0.1", "ghl_oauth 99"), prefix).unwrap_err();
    assert!(refused.contains("compatible with requested version \"99\""), "{refused}");
    fs::rename(prefix.join("lib/libghl_oauth.a"), prefix.join("lib/elsewhere.a")).unwrap();
    let refused = cmake(&blocks[1], prefix).unwrap_err();
    assert!(refused.contains("no static library below"), "{refused}");
    assert!(cmake(&blocks[0], prefix).is_ok(), "the shared one needs no static one");

    let shared: Vec<_> = fs::read_dir(prefix.join("lib"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("libghl_oauth."))
        .collect();
    assert!(!shared.is_empty());
    let elsewhere = prefix.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for library in &shared {
        fs::rename(library, elsewhere.join(library.file_name().unwrap())).unwrap();
    }
    let refused = cmake(&blocks[0], prefix).unwrap_err();
    assert!(refused.contains("no library below") && !refused.contains("target"), "{refused}");
    let optional = "cmake_minimum_required(VERSION 3.16)\nproject(optional C)\n\
                    find_package(ghl_oauth CONFIG)\n\
                    if(ghl_oauth_FOUND)\nmessage(FATAL_ERROR \"found\")\nendif()\n";
    cmake(optional, prefix).unwrap();
    for library in &shared {
        fs::rename(elsewhere.join(library.file_name().unwrap()), library).unwrap();
    }
    fs::rename(prefix.join("lib/elsewhere.a"), prefix.join("lib/libghl_oauth.a")).unwrap();
}

#[test]
fn library_builds_with_system_sqlite_and_without_sqlite() {
    let Some(cargo_c) = cargo_c() else { return };
    let none: &[&str] = &["--no-default-features", "--features", "wiping-allocator"];
    let (_folder, prefix) = install(&cargo_c, none);
    assert_eq!(sqlite_symbols(&prefix), (false, false));
    assert!(!private_libraries(&prefix).contains("-lsqlite3"));

    let system = |test: &[&str]| {
        Command::new("pkg-config")
            .args(test)
            .arg("sqlite3")
            .status()
            .is_ok_and(|status| status.success())
    };
    if !system(&["--exists"]) {
        println!(
            "skipped: the system's SQLite is not installed (apt-get install libsqlite3-dev \
             pkg-config)"
        );
        return;
    }
    let (_folder, prefix) = install(&cargo_c, &[none[0], none[1], "wiping-allocator,sqlite"]);
    assert_eq!(sqlite_symbols(&prefix), (false, true));
    assert!(private_libraries(&prefix).contains("-lsqlite3"));
    if !is_here("cmake") {
        println!(
            "skipped: a program with the system's SQLite, CMake is not installed (apt-get install \
             cmake)"
        );
        return;
    }
    match cmake(&cmake_blocks()[1], &prefix) {
        Ok(project) => {
            assert_eq!(
                run(&project.path().join("build/program"), &prefix),
                (VERSION.to_owned(), false)
            );
        }
        // The refusal that docs/install.md describes.
        Err(refused) => {
            assert!(!system(&["--atleast-version=3.44"]), "{refused}");
            assert!(
                refused.contains("undefined reference to `sqlite3_set_clientdata'"),
                "{refused}"
            );
        }
    }
}
