//! The command line.

use std::path::PathBuf;

pub const USAGE: &str = "\
Usage: cargo xtask install [OPTIONS]

Builds the library and installs it for C and C++ (docs/install.md).

Options:
      --prefix DIR           Where the library will be used [default: /usr/local]
      --libdir DIR           Folder of the libraries, relative to the prefix [default: lib]
      --destdir DIR          Copy the files below this folder instead of /, for a package
      --features LIST        Optional features, such as postgres
      --no-default-features  Without the bundled SQLite and the allocator that wipes memory
      --target TRIPLE        Build for another platform
      --target-dir DIR       Folder of the build's files [default: target/install]
      --debug                Build without optimization
  -h, --help                 Print this help";

/// The options of `install`.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub prefix: PathBuf,
    pub libdir: PathBuf,
    pub destdir: Option<PathBuf>,
    /// The options that choose features, as Cargo takes them.
    pub features: Vec<String>,
    pub target: Option<String>,
    pub target_dir: Option<PathBuf>,
    pub is_debug: bool,
}

#[derive(Debug, PartialEq)]
pub enum Command {
    Help,
    Install(Options),
}

/// Parses the arguments. The value of an option is the next argument, or follows `=`.
pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut options = Options {
        prefix: "/usr/local".into(),
        libdir: "lib".into(),
        destdir: None,
        features: Vec::new(),
        target: None,
        target_dir: None,
        is_debug: false,
    };
    let mut command = None;
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let (name, mut given) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (argument.as_str(), None),
        };
        let mut value = || {
            given
                .take()
                .or_else(|| arguments.next())
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("{name} needs a value"))
        };
        match name {
            "-h" | "--help" => return Ok(Command::Help),
            "--prefix" => options.prefix = value()?.into(),
            "--libdir" => options.libdir = value()?.into(),
            "--destdir" => options.destdir = Some(value()?.into()),
            "--features" => options.features.extend([name.to_owned(), value()?]),
            "--target" => options.target = Some(value()?),
            "--target-dir" => options.target_dir = Some(value()?.into()),
            "--no-default-features" => options.features.push(name.to_owned()),
            "--debug" => options.is_debug = true,
            // What is the default already, and Cargo's own name for it.
            "--release" => options.is_debug = false,
            "install" if command.is_none() => command = Some(()),
            _ => return Err(format!("unexpected argument: {argument}")),
        }
        if given.is_some() {
            return Err(format!("{name} takes no value"));
        }
    }
    command.ok_or("no command")?;
    Ok(Command::Install(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_accepted_with_a_space_and_with_an_equals_sign() {
        let options = Options {
            prefix: "/opt/ghl".into(),
            libdir: "lib64".into(),
            destdir: Some("stage".into()),
            features: vec!["--no-default-features".into(), "--features".into(), "a,b".into()],
            target: None,
            target_dir: None,
            is_debug: true,
        };
        for line in [
            "install --prefix /opt/ghl --libdir lib64 --destdir stage --no-default-features \
             --features a,b --debug",
            "install --prefix=/opt/ghl --libdir=lib64 --destdir=stage --no-default-features \
             --features=a,b --debug",
        ] {
            assert_eq!(parsed(line), Ok(Command::Install(options.clone())));
        }
    }

    #[test]
    fn wrong_arguments_are_refused_by_name() {
        for (line, refusal) in [
            ("", "no command"),
            ("--prefix /opt", "no command"),
            ("install --prefix", "--prefix needs a value"),
            ("install --prefix=", "--prefix needs a value"),
            ("install --debug=yes", "--debug takes no value"),
            ("install --perfix /opt", "unexpected argument: --perfix"),
            ("install /opt", "unexpected argument: /opt"),
            ("install install", "unexpected argument: install"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), refusal);
        }
        assert_eq!(parsed("install --prefix /opt --help"), Ok(Command::Help));
    }
}
