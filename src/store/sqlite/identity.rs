//! The identity of the database file: its canonical path, and the device and inode of the files
//! that a handle has open.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf, Prefix};

use crate::error::{Error, Result, Status};

/// How many symbolic links are followed.
const MAX_LINKS: usize = 40;

/// The canonical path of a database file, which need not exist yet. Every path to one file, be it relative, through a
/// linked folder or a symbolic link to the file, has the same canonical path; hard links do not.
///
/// # Errors
/// `STORE` when the path leads nowhere.
pub fn locate(path: &Path) -> Result<PathBuf> {
    canonical(path).map_err(|error| {
        Error::new(Status::Store, format!("the database {} cannot be found: {error}", path.display()))
            .with_help("check store.path and the rights of its folder")
            .with_parameter("store.path")
    })
}

fn canonical(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..MAX_LINKS {
        match fs::canonicalize(&path) {
            Ok(found) => return Ok(without_verbatim_prefix(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let folder = without_verbatim_prefix(fs::canonicalize(folder)?);
        let file = folder.join(name);
        // A symbolic link to a file that does not exist yet.
        match fs::read_link(&file) {
            Ok(target) => path = folder.join(target),
            Err(_) => return Ok(file),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// `C:\folder\file` for `\\?\C:\folder\file`, which is what Windows calls canonical and few programs can read.
fn without_verbatim_prefix(path: PathBuf) -> PathBuf {
    let mut components = path.components();
    match components.next() {
        Some(Component::Prefix(prefix)) => match prefix.kind() {
            Prefix::VerbatimDisk(disk) => {
                let rest: &Path = components.as_path();
                Path::new(&format!("{}:", char::from(disk))).join(Path::new("\\").join(rest))
            }
            _ => path,
        },
        _ => path,
    }
}

/// The paths of a database and of its two side files in WAL mode.
pub struct Paths {
    /// The database.
    pub database: PathBuf,
    /// The rollback journal that a database has before it is in WAL mode.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub journal: PathBuf,
    /// The WAL's index, which processes share as memory.
    pub shm: PathBuf,
    wal: PathBuf,
}

/// Which files a handle has open. Only Unix lets an open file be removed or replaced, so elsewhere there is nothing to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    database: FileId,
    wal: FileId,
    shm: FileId,
}

impl Paths {
    /// The paths for a database.
    pub fn new(database: PathBuf) -> Paths {
        let beside = |ending: &str| {
            let mut name = database.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        Paths { journal: beside("-journal"), shm: beside("-shm"), wal: beside("-wal"), database }
    }

    /// The file at the path of the database.
    pub fn database_id(&self) -> io::Result<FileId> {
        file_id(&self.database)
    }

    /// The files that are at these paths now.
    pub fn files(&self) -> io::Result<Files> {
        Ok(Files { database: file_id(&self.database)?, wal: file_id(&self.wal)?, shm: file_id(&self.shm)? })
    }
}

impl Files {
    /// The database among them.
    pub fn database(&self) -> FileId {
        self.database
    }
}

/// A file, whatever its name. An open file keeps its number, so no other file can have it meanwhile.
#[cfg(unix)]
pub type FileId = (u64, u64);
#[cfg(not(unix))]
pub type FileId = ();

#[cfg(unix)]
fn file_id(path: &Path) -> io::Result<FileId> {
    use std::os::unix::fs::MetadataExt;
    // Never by opening it: closing a descriptor of a file drops every POSIX lock of this process on it.
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file_id(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).map(drop)
}

/// Whether an open file is the one at a path.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub fn is_at(file: &fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((open, file_id(path)), (Ok(open), Ok(there)) if open == there)
}
