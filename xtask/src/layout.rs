//! The folders of an installation.

use std::path::{Component, Path, PathBuf};

use crate::options::Options;

#[derive(Debug)]
pub struct Layout {
    /// The absolute prefix of the installed files.
    pub prefix: PathBuf,
    /// The folder of the libraries, absolute.
    pub libraries: PathBuf,
    destdir: Option<PathBuf>,
}

impl Layout {
    pub fn new(options: &Options) -> Result<Self, String> {
        // Not `is_absolute`: on Windows, /usr/local has a root but no drive.
        if !options.prefix.has_root() {
            return Err(format!("--prefix {} is not absolute", options.prefix.display()));
        }
        Ok(Self {
            prefix: options.prefix.clone(),
            // `join` returns an absolute libdir unchanged.
            libraries: options.prefix.join(&options.libdir),
            destdir: options.destdir.clone(),
        })
    }

    /// The path to which a file is copied.
    pub fn staged(&self, path: &Path) -> PathBuf {
        let Some(destdir) = &self.destdir else { return path.to_owned() };
        let below_root = path.components().filter(|part| matches!(part, Component::Normal(_)));
        destdir.join(below_root.collect::<PathBuf>())
    }

    pub fn headers(&self) -> PathBuf {
        self.prefix.join("include")
    }

    pub fn pkg_config(&self) -> PathBuf {
        self.libraries.join("pkgconfig")
    }

    pub fn cmake(&self) -> PathBuf {
        self.prefix.join("share/cmake/ghl_oauth")
    }

    /// The sources that users compile into their programs.
    pub fn sources(&self) -> PathBuf {
        self.prefix.join("share/ghl_oauth")
    }
}
