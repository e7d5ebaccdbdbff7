//! The output of `cargo xtask install`, moved to another folder and used with the commands of
//! docs/install.md: by hand, by pkg-config and by CMake, shared and static, and with each of the
//! three SQLite variants.
#![cfg(target_os = "linux")] // It reads ELF files, and expects their names.

mod built;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

const C: &str = r#"#include <stdio.h>
#include "ghl_oauth.h"

int main(void) {
    ghl_client *client;
    const char *config = "{\"clientId\": \"a-1\", \"clientSecret\": \"s\"}";
    int32_t status = ghl_client_new(config, &client, NULL);
    ghl_client_free(client);
    puts(ghl_version());
    return status;
}
"#;

const TYPED_C: &str = r#"#include <stdio.h>
#include "ghl_oauth_typed.h"

int main(void) {
    ghl_client *client;
    ghl_token_info info;
    ghl_client_new("{\"clientId\": \"a-1\", \"clientSecret\": \"s\"}", &client, NULL);
    int32_t status = ghl_typed_token_delete(client, "l-1", &info, NULL);
    ghl_client_free(client);
    puts(ghl_version());
    return status != GHL_ERR_NOT_FOUND;
}
"#;

const CPP: &str = r#"#include <iostream>
#include "ghl_oauth.hpp"

int main() {
    ghl::client client(ghl::config("a-1", "s"));
    std::cout << client.stats().version << '\n';
}
"#;

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

/// Installs below a folder.
fn install_below(folder: &Path, options: &[&str]) {
    // The builds use the same folder, in which a concurrent one would replace the libraries.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut install = Command::new(env!("CARGO"));
    let target = built::folder().parent().unwrap().parent().unwrap().join("install");
    install.args(["xtask", "install", "--debug", "--prefix", "/opt/first"]).args(options);
    install.arg("--destdir").arg(folder).arg("--target-dir").arg(target);
    install.current_dir(built::ROOT).env("CARGO_PROFILE_DEV_DEBUG", "0");
    output(install);
}

/// Installs into a new folder and moves it, so that no absolute path still works.
fn install(options: &[&str]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    install_below(folder.path(), options);
    let prefix = folder.path().join("moved");
    fs::rename(folder.path().join("opt/first"), &prefix).unwrap();
    (folder, prefix)
}

fn pkg_config(prefix: &Path, arguments: &[&str]) -> Vec<String> {
    let mut ask = Command::new("pkg-config");
    ask.args(arguments).arg("ghl_oauth").env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
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

/// The blocks of a language in docs/install.md, below this heading or below any.
fn blocks(language: &str, heading: &str) -> Vec<String> {
    let page = fs::read_to_string(Path::new(built::ROOT).join("docs/install.md")).unwrap();
    let part = page.split_once(heading).unwrap().1;
    let part = if heading.is_empty() { part } else { part.split("\n## ").next().unwrap() };
    part.split(&format!("\n```{language}\n"))
        .skip(1)
        .map(|part| part.split("\n```").next().unwrap().to_owned())
        .collect()
}

/// The commands of the shell block below a heading of docs/install.md.
fn commands(heading: &str) -> Vec<String> {
    let block = blocks("sh", heading).remove(0).replace("\\\n", " ").replace("|\n", "| ");
    block.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// Runs each command of a shell block as it is in the page, and the program that it compiles.
fn documented_commands_compile_programs(heading: &str, number: usize, prefix: &Path) {
    let commands = commands(heading);
    assert_eq!(commands.len(), number, "{commands:?}");
    for command in commands {
        let folder = tempfile::tempdir().unwrap();
        let c = if command.contains("ghl_oauth_typed.c") { TYPED_C } else { C };
        fs::write(folder.path().join("program.c"), c).unwrap();
        fs::write(folder.path().join("program.cpp"), CPP).unwrap();
        let mut compile = Command::new("sh");
        compile.args(["-euc", &command]).current_dir(folder.path());
        compile.env("PREFIX", prefix).env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        output(compile);
        let is_shared = !command.contains("libghl_oauth.a");
        let ran = run(&folder.path().join("program"), prefix);
        assert_eq!(ran, (VERSION.to_owned(), is_shared), "{command}");
    }
}

/// Configures and builds a project. The error is the output of CMake or the linker.
fn cmake(project: &str, prefix: &Path) -> Result<TempDir, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("CMakeLists.txt"), project).unwrap();
    let c = if project.contains("typed_c") { TYPED_C } else { C };
    fs::write(folder.path().join("program.c"), c).unwrap();
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
fn installation_works_by_hand_and_with_pkg_config_and_cmake() {
    let (folder, prefix) = install(&[]);

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

    // The line in the page names the libraries that rustc named.
    let private = private_libraries(&prefix);
    assert!(private.contains("-lc"), "{private:?}");
    let compiling = "\n## Compiling a program\n";
    for line in commands(compiling).iter().filter(|line| line.contains("libghl_oauth.a")) {
        let named = line.split_whitespace().filter(|word| word.starts_with("-l"));
        assert_eq!(named.map(str::to_owned).collect::<BTreeSet<_>>(), private, "{line}");
    }
    documented_commands_compile_programs(compiling, 5, &prefix);
    if is_here("pkg-config") {
        assert_eq!(pkg_config(&prefix, &["--modversion"]), [env!("CARGO_PKG_VERSION")]);
        documented_commands_compile_programs("\n## pkg-config\n", 4, &prefix);
        // As the author of a gateway would.
        let mut typed = commands("\n## pkg-config\n").into_iter();
        let typed = typed.find(|command| command.contains("typed_c_dir")).unwrap();
        let gateway = Path::new(built::ROOT).join("examples/c/gateway.c");
        fs::copy(gateway, folder.path().join("program.c")).unwrap();
        let mut compile = Command::new("sh");
        compile.args(["-euc", &format!("{typed} -lpthread")]).current_dir(folder.path());
        compile.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        output(compile);
    } else {
        println!("skipped: pkg-config is not installed (apt-get install pkg-config)");
    }
    cmake_finds_library(&prefix);
    update_replaces_files_and_finished_build_names_its_libraries(folder.path(), &prefix);
}

/// An update replaces the files, so that a program keeps the library that it has loaded. Cargo
/// builds nothing the second time, but the system libraries are still known.
fn update_replaces_files_and_finished_build_names_its_libraries(folder: &Path, prefix: &Path) {
    let description = fs::read_to_string(prefix.join("lib/pkgconfig/ghl_oauth.pc")).unwrap();
    fs::rename(prefix, folder.join("opt/first")).unwrap();
    let library = folder.join("opt/first/lib/libghl_oauth.so");
    let loaded = fs::File::open(&library).unwrap();
    fs::write(folder.join("opt/first/include/ghl_oauth.h"), "an older one").unwrap();
    install_below(folder, &["--libdir", "/opt/first/lib"]);
    let header = fs::read_to_string(folder.join("opt/first/include/ghl_oauth.h")).unwrap();
    assert_ne!(header, "an older one");
    let file = folder.join("opt/first/lib/pkgconfig/ghl_oauth.pc");
    assert_eq!(fs::read_to_string(file).unwrap(), description);
    assert_ne!(loaded.metadata().unwrap().ino(), fs::metadata(&library).unwrap().ino());
}

#[test]
fn installation_without_access_fails_before_the_build() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let mut install = Command::new(env!("CARGO"));
    install.args(["xtask", "install", "--destdir"]).arg(file.join("stage"));
    install.arg("--target-dir").arg(folder.path().join("target")).current_dir(built::ROOT);
    let refused = install.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let expected = format!("error: {}/stage/usr/local/lib: Not a directory", file.display());
    assert!(said.contains(&expected) && said.contains("choose another --prefix"), "{said}");
    assert!(!folder.path().join("target").exists(), "it built something");
}

fn cmake_finds_library(prefix: &Path) {
    if !is_here("cmake") {
        println!("skipped: CMake is not installed (apt-get install cmake)");
        return;
    }
    let blocks = blocks("cmake", "");
    assert_eq!(blocks.len(), 3);
    for (block, shared) in blocks.iter().zip([true, false, true]) {
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
    let none: &[&str] = &["--no-default-features", "--features", "wiping-allocator"];
    let (_folder, prefix) = install(none);
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
    let (_folder, prefix) = install(&[none[0], none[1], "wiping-allocator,sqlite"]);
    assert_eq!(sqlite_symbols(&prefix), (false, true));
    assert!(private_libraries(&prefix).contains("-lsqlite3"));
    if !is_here("cmake") {
        println!(
            "skipped: a program with the system's SQLite, CMake is not installed (apt-get install \
             cmake)"
        );
        return;
    }
    match cmake(&blocks("cmake", "")[1], &prefix) {
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
