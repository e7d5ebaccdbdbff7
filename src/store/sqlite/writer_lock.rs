//! A mutual-exclusion lock between the writers of one database, in all processes and threads of this library: `flock` on a
//! file of its own, beside SQLite's lock. A foreign close of the database drops SQLite's lock in the midst of a transaction;
//! this one it cannot drop, so no other client writes meanwhile.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::file_lock::{FileLock, make_folder};

/// The name of the file. A refresh lock has a name of 32 hexadecimal digits.
const NAME: &str = "writer";

/// The lock. Its file stays open from the first transaction to the next fork.
pub struct WriterLock {
    path: PathBuf,
    file: Mutex<Option<FileLock>>,
}

/// The held lock; dropping it releases the lock.
pub struct Writing<'a>(MutexGuard<'a, Option<FileLock>>);

impl WriterLock {
    /// The lock whose file is in the folder.
    pub fn new(folder: &Path) -> WriterLock {
        WriterLock { path: folder.join(NAME), file: Mutex::new(None) }
    }

    /// Takes the lock, unless another writer has it. If the file cannot be made, SQLite's own lock must suffice: a token is
    /// not given up for that.
    pub fn try_lock(&self) -> Option<Writing<'_>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..2 {
            if file.is_none() {
                *file = self.open();
            }
            let Some(lock) = &*file else { break };
            match lock.try_lock() {
                Ok(()) if lock.is_at(&self.path) => break,
                Err(std::fs::TryLockError::WouldBlock) => return None,
                // It was removed by another program, or cannot be locked.
                Ok(()) | Err(_) => *file = None,
            }
        }
        Some(Writing(file))
    }

    /// Closes the file. No thread holds the lock.
    pub fn close(&self) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn open(&self) -> Option<FileLock> {
        let opened = FileLock::open(&self.path).or_else(|_| {
            self.path.parent().map_or(Ok(()), make_folder).and_then(|()| FileLock::open(&self.path))
        });
        opened.inspect_err(|error| log::debug!("the lock of the writers cannot be used: {error}")).ok()
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(lock) = &*self.0 {
            lock.unlock();
        }
    }
}
