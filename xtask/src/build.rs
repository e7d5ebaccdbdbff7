//! Builds the shared and the static library.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{self, Path, PathBuf};
use std::process::{Command, Stdio};

use crate::options::Options;
use crate::platform::Platform;

/// A finished build.
pub struct Libraries {
    /// The folder of the libraries.
    pub folder: PathBuf,
    /// The linker options for the system libraries that the static library needs.
    pub system: String,
}

/// Builds both libraries at once. They get their own folder, because the shared library of an
/// ordinary build has no SONAME, and its programs find it by its plain name.
pub fn build(root: &Path, options: &Options, platform: Platform) -> Result<Libraries, String> {
    let target_dir = options.target_dir.clone().unwrap_or_else(|| {
        let common =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
        common.join("install")
    });
    // Cargo runs in another folder.
    let target_dir = path::absolute(&target_dir)
        .map_err(|error| format!("{}: {error}", target_dir.display()))?;
    let mut folder = target_dir.clone();
    folder.extend(&options.target);
    folder.push(if options.is_debug { "debug" } else { "release" });
    // Cargo restores what this build creates; a file of an earlier one must not be installed.
    for name in [platform.shared(), platform.archive()] {
        let _ = fs::remove_file(folder.join(name));
    }

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Without a Rust library, which would prevent link-time optimization.
    cargo.args(["rustc", "--locked", "--package", "ghl-oauth", "--lib"]);
    cargo.args(["--crate-type", "cdylib", "--crate-type", "staticlib", "--color", "never"]);
    cargo.args((!options.is_debug).then_some("--release"));
    cargo.args(&options.features);
    cargo.args(options.target.iter().flat_map(|target| ["--target", target]));
    cargo.arg("--target-dir").arg(&target_dir);
    cargo.args(["--", "--print=native-static-libs"]).args(platform.version_options());
    cargo.envs(platform.install_name().map(|name| ("GHL_INSTALL_NAME", name)));
    cargo.current_dir(root).stderr(Stdio::piped());

    let mut running = cargo.spawn().map_err(|error| format!("{cargo:?}: {error}"))?;
    let mut system = None;
    for line in running.stderr.take().into_iter().flat_map(|said| BufReader::new(said).lines()) {
        let line = line.map_err(|error| format!("reading Cargo's output: {error}"))?;
        match line.split_once("native-static-libs: ") {
            Some((_, named)) => system = Some(named.to_owned()),
            None => eprintln!("{line}"),
        }
    }
    let status = running.wait().map_err(|error| format!("{cargo:?}: {error}"))?;
    if !status.success() {
        return Err("the build failed".into());
    }
    let system = system.ok_or("rustc did not name the system libraries")?;
    Ok(Libraries { folder, system })
}
