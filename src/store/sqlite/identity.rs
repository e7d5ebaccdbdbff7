//! The identity of the database file: its canonical path, and the device and inode numbers of the
//! files that a handle has open.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf, Prefix};

use crate::error::{Error, Result, Status};

/// Maximum number of symbolic links to follow.
const MAX_LINKS: usize = 40;

/// The canonical path of a database file, which need not exist. All relative paths and symbolic
/// links to a file have the same canonical path; hard links do not.
pub fn locate(path: &Path) -> Result<PathBuf> {
    canonical(path).map_err(|error| {
        let message = format!("the database {} cannot be found: {error}", path.display());
        let help = "check store.path and the permissions of its folder";
        Error::of_file(Status::Store, message, &error, help).with_parameter("store.path")
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

/// Converts `\\?\C:\folder\file`, the canonical form on Windows, to `C:\folder\file`, which more
/// programs accept.
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

/// The paths of a database and its side files.
pub struct Paths {
    pub database: PathBuf,
    /// The rollback journal, used before the database is in WAL mode. Read by `region_lock.rs`,
    /// which needs the locks of 64-bit Linux.
    #[cfg_attr(not(all(target_os = "linux", target_pointer_width = "64")), allow(dead_code))]
    pub journal: PathBuf,
    /// The index of the WAL, which is shared memory.
    pub shm: PathBuf,
    pub wal: PathBuf,
}

/// The files that a handle has open. On Windows, SQLite opens files so that they can be neither
/// removed nor replaced meanwhile, so that all values are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    database: FileId,
    wal: FileId,
    shm: FileId,
}

impl Paths {
    pub fn new(database: PathBuf) -> Paths {
        let side_file = |suffix: &str| {
            let mut name = database.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        Paths {
            journal: side_file("-journal"),
            shm: side_file("-shm"),
            wal: side_file("-wal"),
            database,
        }
    }

    pub fn database_id(&self) -> io::Result<FileId> {
        file_id(&self.database)
    }

    /// The length of the WAL file, in bytes. Parts of it may be used again.
    pub fn wal_length(&self) -> u64 {
        fs::metadata(&self.wal).map_or(0, |metadata| metadata.len())
    }

    /// The IDs of the files that are at these paths now.
    pub fn files(&self) -> io::Result<Files> {
        Ok(Files {
            database: file_id(&self.database)?,
            wal: file_id(&self.wal)?,
            shm: file_id(&self.shm)?,
        })
    }
}

impl Files {
    pub fn database(&self) -> FileId {
        self.database
    }
}

/// Device and inode number. The inode number of an open file is not reused.
#[cfg(unix)]
pub type FileId = (u64, u64);
/// No identity: an open file can be neither removed nor replaced.
#[cfg(not(unix))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId;

#[cfg(unix)]
fn file_id(path: &Path) -> io::Result<FileId> {
    use std::os::unix::fs::MetadataExt;
    // Does not open the file: closing a descriptor drops all POSIX locks of this process on the
    // file.
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// No number to compare; only a missing file is an error.
#[cfg(not(unix))]
fn file_id(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).map(|_| FileId)
}

/// The mount point of the file system of a file: its highest folder on the same device,
/// whose number only Unix has.
#[cfg(unix)]
pub fn mount_point(file: &Path) -> Option<&Path> {
    let device = |path: &Path| file_id(path).map(|(device, _)| device).ok();
    let own = device(file.parent()?)?;
    file.ancestors().skip(1).take_while(|folder| device(folder) == Some(own)).last()
}

/// Unknown.
#[cfg(not(unix))]
pub fn mount_point(_: &Path) -> Option<&Path> {
    None
}

/// Whether an open file is still the one at `path`. For `region_lock.rs`.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub fn is_at(file: &fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((open, file_id(path)), (Ok(open), Ok(there)) if open == there)
}
