//! The refresh lock across processes: an advisory file lock (`flock`) on one file per resource. The
//! system releases it when its holder dies, even by SIGKILL, so there is no lease to wait for.
//!
//! Each resource has its own file: with shared files, a location's refresh that takes its company's
//! lock could wait for itself or for another resource.

#[cfg(unix)]
use std::fs;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest::{SHA256, digest};

use super::{Lock, user_only};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::fork_safety::descriptors::NotInherited;

/// The minimum and maximum pause between two attempts, since `flock` has no wait with a deadline.
const MIN_PAUSE: Duration = Duration::from_micros(500);
const MAX_PAUSE: Duration = Duration::from_millis(5);

/// A folder of lock files, which the library never removes. If another program removes one, waiting
/// processes lock the new file at its path; only the holder of the removed file does not notice.
#[derive(Debug)]
pub struct LockFolder {
    folder: PathBuf,
    client_id: String,
}

pub struct FileLock(NotInherited<File>);

impl LockFolder {
    /// Opens the folder, and creates it if necessary, for this user only.
    pub fn new(folder: PathBuf, client_id: &str) -> Result<LockFolder> {
        let locks = LockFolder { folder, client_id: client_id.to_owned() };
        locks.make().map_err(|error| failed(&locks.folder, &error))?;
        Ok(locks)
    }

    /// The locks of another app, in the same folder.
    pub fn of_client(&self, client_id: &str) -> LockFolder {
        LockFolder { folder: self.folder.clone(), client_id: client_id.to_owned() }
    }

    fn make(&self) -> io::Result<()> {
        make_folder(&self.folder)
    }

    pub fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>> {
        // IDs come from outside and may contain any character, so the file name is a hash.
        let name = digest(&SHA256, format!("{}\0{resource_id}", self.client_id).as_bytes());
        let name: String = name.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.folder.join(name);
        let mut lock = self.open(&path)?;
        let mut pause = MIN_PAUSE;
        loop {
            match lock.try_lock() {
                Ok(()) if lock.is_at(&path) => return Ok(Box::new(lock)),
                // The file was removed, so the next process would lock a new file.
                Ok(()) => {
                    lock = self.open(&path)?;
                    deadline.check()?;
                    continue;
                }
                Err(TryLockError::WouldBlock) => deadline.sleep(pause)?,
                Err(TryLockError::Error(error)) => return Err(failed(&path, &error)),
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Opens a lock file. Its folder is created again if it was removed.
    fn open(&self, path: &Path) -> Result<FileLock> {
        let opened = match FileLock::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make().and_then(|()| FileLock::open(path))
            }
            opened => opened,
        };
        opened.map_err(|error| failed(path, &error))
    }
}

/// Creates the folder `NAME.locks` for the owner of the database `NAME`, if it does not exist.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    user_only::create_folder(folder, &folder.with_extension(""))
}

impl FileLock {
    /// Opens a file, and creates it if it does not exist.
    pub fn open(path: &Path) -> io::Result<FileLock> {
        NotInherited::open(|| open_or_create(path)).map(FileLock)
    }

    /// Whether the open file is still the one at `path`.
    pub fn is_at(&self, path: &Path) -> bool {
        self.0.get().is_ok_and(|file| is_same(file, path))
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        self.0.get().map_err(TryLockError::Error)?.try_lock()
    }

    /// Releases the lock; the file stays open.
    pub fn unlock(&self) {
        let _ = self.0.get().map(File::unlock);
    }
}

fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    // On Windows, FILE_SHARE_READ and FILE_SHARE_WRITE without FILE_SHARE_DELETE: no process can
    // remove or rename the file while it is open.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1 | 2);
    let open = || options.open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match user_only::create_file(path) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open(),
        created => created,
    }
}

/// Whether the open file is still the one at the path: on Unix it can be replaced.
#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => id(open) == id(there),
        _ => false,
    }
}

/// The file was opened so that it cannot be removed.
#[cfg(not(unix))]
fn is_same(_: &File, _: &Path) -> bool {
    true
}

impl Lock for FileLock {}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Before closing, because a child that is being forked may still have a copy of the
        // descriptor. In a child this does nothing.
        self.unlock();
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    let message = format!("the lock {} cannot be used: {error}", path.display());
    // Windows has no `chown`.
    let help = if cfg!(unix) && error.kind() == io::ErrorKind::PermissionDenied {
        "it or its folder belongs to another user: chown both to the owner of the database"
    } else {
        "make sure that the folder is writable and on a local file system"
    };
    Error::of_file(Status::Store, message, error, help)
}
