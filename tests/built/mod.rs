//! Build outputs for tests in other languages.
#![allow(dead_code)] // Each test file uses only a part.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The build folder of the test programs and the shared library.
pub fn folder() -> PathBuf {
    let mut folder = env::current_exe().unwrap();
    folder.pop();
    folder
}

/// The shared library of this build.
pub fn library() -> PathBuf {
    let library =
        folder().join(format!("{}ghl_oauth{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX));
    assert!(library.exists(), "{} was not built", library.display());
    library
}

/// The emulator program. `cargo test --workspace` builds it; otherwise this function does, unless
/// `GHL_OAUTH_EMULATOR` names it.
pub fn emulator() -> PathBuf {
    if let Some(program) = env::var_os("GHL_OAUTH_EMULATOR") {
        return program.into();
    }
    let program =
        folder().parent().unwrap().join(format!("ghl-oauth-emulator{}", env::consts::EXE_SUFFIX));
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "ghl-oauth-emulator", "--target-dir"]);
    build.arg(folder().parent().unwrap().parent().unwrap()).current_dir(ROOT);
    assert!(build.status().unwrap().success(), "the emulator does not build");
    program
}

/// All warnings are errors.
pub const WARNINGS: [&str; 7] =
    ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-g"];

/// The oldest C standard that the header supports.
pub const C99: &str = "-std=c99";

/// A compiler that treats warnings as errors.
pub fn compiler(standard: &str) -> Command {
    let mut compiler = Command::new(if standard == C99 { "cc" } else { "c++" });
    compiler.arg(standard).args(WARNINGS).current_dir(ROOT).args([
        "-Iinclude",
        "-Ibindings/c",
        "-Ibindings/cpp",
    ]);
    compiler
}

/// Compiles and links a C or C++ program with the library; C programs also get the typed structs.
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
