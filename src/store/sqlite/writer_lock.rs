//! An advisory lock (`flock`) between all writers of a database that use this library. It remains
//! if other code in the process closes the database file and so drops SQLite's POSIX locks, even
//! during a transaction.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::file_lock::{FileLock, make_folder};

/// The file name. Refresh locks have names of 32 hexadecimal digits.
const NAME: &str = "writer";

/// The lock. Its file stays open from the first transaction until the next fork.
pub struct WriterLock {
    path: PathBuf,
    file: Mutex<Option<FileLock>>,
}

/// A guard; dropping it releases the lock.
pub struct WriterLockGuard<'a>(MutexGuard<'a, Option<FileLock>>);

impl WriterLock {
    /// A lock whose file is in `folder`.
    pub fn new(folder: &Path) -> WriterLock {
        WriterLock { path: folder.join(NAME), file: Mutex::new(None) }
    }

    /// Takes the lock, unless another writer holds it. If the file cannot be created, SQLite's own
    /// lock must suffice.
    pub fn try_lock(&self) -> Option<WriterLockGuard<'_>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..2 {
            if file.is_none() {
                *file = self.open();
            }
            let Some(lock) = &*file else { break };
            match lock.try_lock() {
                Ok(()) if lock.is_at(&self.path) => break,
                Err(std::fs::TryLockError::WouldBlock) => return None,
                // The file was removed by another program, or cannot be locked.
                Ok(()) | Err(_) => *file = None,
            }
        }
        Some(WriterLockGuard(file))
    }

    /// Closes the file. No thread may hold the lock.
    pub fn close(&self) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn open(&self) -> Option<FileLock> {
        let opened = FileLock::open(&self.path).or_else(|_| {
            self.path.parent().map_or(Ok(()), make_folder).and_then(|()| FileLock::open(&self.path))
        });
        opened.ok()
    }
}

impl Drop for WriterLockGuard<'_> {
    fn drop(&mut self) {
        if let Some(lock) = &*self.0 {
            lock.unlock();
        }
    }
}
