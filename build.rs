//! Generates the C header from `src/ffi` into `OUT_DIR`. A test compares it with the copy in
//! `include/`, because a build must not write into the source tree.

use std::path::Path;
use std::{env, error::Error};

#[path = "src/error/statuses.rs"]
mod statuses;
use statuses::{c_enum, statuses};

/// The files of the ABI, in the order of the header. The status enum precedes them.
const PARTS: [&str; 9] = [
    "library",
    "log",
    "client",
    "store",
    "authorization",
    "tokens",
    "endpoints",
    "request",
    "webhook",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=cbindgen.toml");
    println!("cargo::rerun-if-changed=src/ffi");
    println!("cargo::rerun-if-changed=src/error/statuses.rs");
    let root = env::var("CARGO_MANIFEST_DIR")?;
    let version = env::var("CARGO_PKG_VERSION")?;

    let mut config = cbindgen::Config::from_file(Path::new(&root).join("cbindgen.toml"))?;
    let manual = std::fs::read_to_string(Path::new(&root).join("src/ffi/manual.h"))?;
    println!("cargo::rerun-if-changed=src/ffi/manual.h");
    config.header = Some(manual.trim_end().to_owned());
    let number = |part: &str| env::var(format!("CARGO_PKG_VERSION_{part}"));
    config.after_includes = Some(format!(
        "\n/** The version of this header; ghl_version() gives the library's. */\n\
         #define GHL_OAUTH_VERSION \"{version}\"\n\
         #define GHL_OAUTH_VERSION_MAJOR {}\n\
         #define GHL_OAUTH_VERSION_MINOR {}\n\
         #define GHL_OAUTH_VERSION_PATCH {}\n",
        number("MAJOR")?,
        number("MINOR")?,
        number("PATCH")?,
    ));
    let folder = env::var("OUT_DIR")?;
    let statuses = Path::new(&folder).join("statuses.rs");
    std::fs::write(&statuses, statuses!(c_enum stringify))?;
    let mut builder = cbindgen::Builder::new().with_config(config).with_src(statuses);
    for part in PARTS {
        builder = builder.with_src(Path::new(&root).join(format!("src/ffi/{part}.rs")));
    }
    builder.generate()?.write_to_file(Path::new(&folder).join("ghl_oauth.h"));

    // The library must not be unloaded: fork handlers cannot be unregistered.
    if env::var("CARGO_CFG_TARGET_OS")? == "linux" {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
    // The standard library links gcc's unwinder as a shared library, which a system with musl often
    // lacks, and which no musllinux wheel may need. This linker script of the same name has the
    // linker take the static one.
    if env::var("CARGO_CFG_TARGET_ENV")? == "musl" {
        std::fs::write(Path::new(&folder).join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n")?;
        println!("cargo::rustc-cdylib-link-arg=-L{folder}");
    }
    // The linker's default is the path of the build, which every program linked to the library
    // would look for. `cargo xtask install` sets the name with the ABI's version.
    println!("cargo::rerun-if-env-changed=GHL_INSTALL_NAME");
    if env::var("CARGO_CFG_TARGET_VENDOR")? == "apple" {
        let name = env::var("GHL_INSTALL_NAME").unwrap_or_else(|_| "libghl_oauth.dylib".to_owned());
        println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/{name}");
    }
    Ok(())
}
