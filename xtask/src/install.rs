//! Copies the libraries, the headers and the files for pkg-config and CMake.

use std::fs;
use std::path::{Path, PathBuf};

use crate::build;
use crate::layout::Layout;
use crate::options::Options;
use crate::pkg_config;
use crate::platform::Platform;

pub fn install(options: &Options) -> Result<(), String> {
    let layout = Layout::new(options)?;
    let platform = Platform::of(options.target.as_deref());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no repository")?;
    let to = Installer { layout: &layout };
    to.check_access()?;
    let libraries = build::build(root, options, platform)?;
    let built = |name: &str| Some(libraries.folder.join(name)).filter(|file| file.exists());

    for (header, folder) in [
        ("include/ghl_oauth.h", layout.headers()),
        ("bindings/c/ghl_oauth_typed.h", layout.headers()),
        ("bindings/cpp/ghl_oauth.hpp", layout.headers()),
        ("bindings/c/ghl_oauth_typed.c", layout.sources()),
        ("bindings/cmake/ghl_oauth-config.cmake", layout.cmake()),
        ("bindings/cmake/ghl_oauth-config-version.cmake", layout.cmake()),
    ] {
        to.copy(&root.join(header), &folder.join(file_name(header)), 0o644)?;
    }

    match built(platform.shared()) {
        Some(shared) => to.shared_library(&shared, platform, &libraries.folder, root)?,
        None => println!("no shared library: the target does not support it"),
    }
    let archive = built(platform.archive()).ok_or("Cargo built no static library")?;
    to.copy(&archive, &layout.libraries.join(platform.archive()), 0o644)?;
    let description = pkg_config::file(&layout, platform, &libraries.system);
    to.write(&layout.pkg_config().join("ghl_oauth.pc"), &description)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

struct Installer<'a> {
    layout: &'a Layout,
}

impl Installer<'_> {
    /// Fails before the long build if the files cannot be installed after it.
    fn check_access(&self) -> Result<(), String> {
        for folder in [&self.layout.libraries, &self.layout.headers(), &self.layout.cmake()] {
            let probe = self.layout.staged(folder).join("ghl_oauth.new");
            fs::create_dir_all(self.layout.staged(folder))
                .and_then(|()| fs::write(&probe, ""))
                .and_then(|()| fs::remove_file(&probe))
                .map_err(|error| {
                    let folder = self.layout.staged(folder);
                    format!("{} (choose another --prefix or --destdir)", at(&folder, &error))
                })?;
        }
        Ok(())
    }

    /// The shared library with its links; on Windows also the files to link against it.
    fn shared_library(
        &self,
        built: &Path,
        platform: Platform,
        folder: &Path,
        root: &Path,
    ) -> Result<(), String> {
        let (name, links) = platform.versioned();
        let libraries = &self.layout.libraries;
        if let Some(import) = platform.import() {
            self.copy(built, &self.layout.prefix.join("bin").join(&name), 0o755)?;
            // Cargo puts the import library next to the DLL or, for GNU, only into `deps`.
            let found = [folder.join(import), folder.join("deps").join(import)]
                .into_iter()
                .find(|file| file.exists())
                .ok_or_else(|| format!("Cargo built no {import}"))?;
            self.copy(&found, &libraries.join(import), 0o644)?;
            let header = root.join("include/ghl_oauth.h");
            let header = fs::read_to_string(&header).map_err(|error| at(&header, &error))?;
            return self.write(&libraries.join("ghl_oauth.def"), &module_definition(&header));
        }
        self.copy(built, &libraries.join(&name), 0o755)?;
        links.iter().try_for_each(|link| self.link(&name, &libraries.join(link)))
    }

    fn copy(&self, from: &Path, to: &Path, mode: u32) -> Result<(), String> {
        self.replace(to, |path| {
            fs::copy(from, path)?;
            set_mode(path, mode)
        })
    }

    fn write(&self, to: &Path, text: &str) -> Result<(), String> {
        self.replace(to, |path| {
            fs::write(path, text)?;
            set_mode(path, 0o644)
        })
    }

    fn link(&self, target: &str, link: &Path) -> Result<(), String> {
        self.replace(link, |path| symbolic_link(target, path))
    }

    /// Creates a file under another name and renames it. Writing into a library that a program uses
    /// would crash the program.
    fn replace(
        &self,
        path: &Path,
        create: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<(), String> {
        let staged = self.layout.staged(path);
        let folder = staged.parent().map(PathBuf::from).unwrap_or_default();
        let mut temporary = staged.clone().into_os_string();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let done = fs::create_dir_all(&folder)
            .and_then(|()| match fs::remove_file(&temporary) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            })
            .and_then(|()| create(&temporary))
            .and_then(|()| fs::rename(&temporary, &staged));
        done.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            at(&staged, &error)
        })?;
        println!("installed {}", staged.display());
        Ok(())
    }
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// The exports of the DLL in the form from which other toolchains make an import library.
fn module_definition(header: &str) -> String {
    let mut text = String::from("LIBRARY ghl_oauth.dll\nEXPORTS\n");
    for name in functions(header) {
        text += &format!("    {name}\n");
    }
    text
}

/// The functions that a header declares, outside comments.
fn functions(header: &str) -> Vec<&str> {
    let code = header.split("/*").enumerate().map(|(number, part)| match number {
        0 => part,
        _ => part.split_once("*/").map_or("", |(_, code)| code),
    });
    let mut names = Vec::new();
    for statement in code.flat_map(|code| code.split(';')) {
        let is_type = statement.contains("typedef") || statement.contains('{');
        let Some((declared, _)) = statement.split_once('(').filter(|_| !is_type) else { continue };
        let name = declared.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next();
        names.extend(name.filter(|name| name.starts_with("ghl_")));
    }
    names
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> std::io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn symbolic_link(target: &str, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symbolic_link(_: &str, link: &Path) -> std::io::Result<()> {
    let reason = format!("{}: the libraries of this target need symbolic links", link.display());
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// tests/exports.rs compares the same list with the functions that the library exports.
    #[test]
    fn module_definition_lists_every_promised_function() {
        let promised = include_str!("../../tests/abi/promised.txt");
        let mut expected: Vec<&str> = functions_of(promised);
        let mut listed = functions(include_str!("../../include/ghl_oauth.h"));
        expected.sort_unstable();
        listed.sort_unstable();
        assert!(expected.len() > 30, "{expected:?}");
        assert_eq!(listed, expected);
    }

    fn functions_of(promised: &str) -> Vec<&str> {
        let mut names = Vec::new();
        for line in promised.lines().filter(|line| !line.contains("typedef")) {
            if let Some((declared, _)) = line.split_once('(') {
                names.push(declared.rsplit([' ', '*']).next().unwrap());
            }
        }
        names
    }
}
