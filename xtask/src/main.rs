//! `cargo xtask install`: builds the library and installs it in the usual layout of its platform.
//! docs/install.md is the manual. Without dependencies, so that it compiles in a second.

mod build;
mod install;
mod layout;
mod options;
mod pkg_config;
mod platform;

use std::env;
use std::process::ExitCode;

use options::{Command, USAGE};

fn main() -> ExitCode {
    let done = match options::parse(env::args().skip(1)) {
        Ok(Command::Help) => {
            println!("{USAGE}");
            Ok(())
        }
        Ok(Command::Install(options)) => install::install(&options),
        Err(problem) => Err(format!("{problem}\n\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
