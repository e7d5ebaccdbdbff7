//! What the build made, for tests in other languages.
#![allow(dead_code)] // Each of them uses its part.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of this package.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The folder that the test programs, and the shared library, are built into.
pub fn folder() -> PathBuf {
    let mut folder = env::current_exe().unwrap();
    folder.pop();
    folder
}

/// The shared library of this very build.
pub fn library() -> PathBuf {
    let library = folder().join(format!("{}ghl_oauth{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX));
    assert!(library.exists(), "{} was not built", library.display());
    library
}

/// The emulator's program. `cargo test --workspace` has built it; a test that runs alone builds it.
pub fn emulator() -> PathBuf {
    let program = folder().parent().unwrap().join(format!("ghl-oauth-emulator{}", env::consts::EXE_SUFFIX));
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "ghl-oauth-emulator", "--target-dir"]);
    build.arg(folder().parent().unwrap().parent().unwrap()).current_dir(ROOT);
    assert!(build.status().unwrap().success(), "the emulator does not build");
    program
}

/// What no warning gets past.
pub const WARNINGS: [&str; 7] =
    ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-g"];

/// The oldest C that the header is for.
pub const C99: &str = "-std=c99";

/// A compiler that takes no warning.
pub fn compiler(standard: &str) -> Command {
    let mut compiler = Command::new(if standard == C99 { "cc" } else { "c++" });
    compiler.arg(standard).args(WARNINGS).current_dir(ROOT).args([
        "-Iinclude",
        "-Ibindings/c",
        "-Ibindings/cpp",
    ]);
    compiler
}

/// Compiles and links a program in C or C++ with the library; in C with the typed structs, too.
pub fn program(source: &str, into: &Path) -> PathBuf {
    let program = into.join(Path::new(source).file_stem().unwrap());
    let libraries = folder();
    let is_c = source.ends_with(".c");
    let mut compile = compiler(if is_c { C99 } else { "-std=c++17" });
    if is_c {
        compile.arg("bindings/c/ghl_oauth_typed.c");
    }
    compile.args(["-D_POSIX_C_SOURCE=200809L", source, "-lghl_oauth", "-lpthread", "-o"]);
    compile
        .arg(&program)
        .arg(format!("-L{}", libraries.display()))
        .arg(format!("-Wl,-rpath,{}", libraries.display()));
    library();
    assert!(compile.status().unwrap().success(), "{source} does not compile");
    program
}
