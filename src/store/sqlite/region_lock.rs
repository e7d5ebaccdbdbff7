//! Byte-range locks that survive a foreign close. SQLite's POSIX record locks belong to the process: as soon as any code in it
//! closes the file, all of them are gone, and SQLite does not notice. Open file description locks (OFD locks) belong to one
//! descriptor, and conflict with the POSIX locks of every process, this one included. While SQLite has the database open, a
//! second descriptor therefore holds two of its locks as OFD locks: the shared lock on the database, without which another
//! SQLite takes itself for the last one and removes the WAL, and the shared lock of the `-shm` file, without which another
//! SQLite empties it. A POSIX lock on a byte that no other program uses tells whether the POSIX locks are still there.
//!
//! Linux only. On other systems the check of the files' identity ([`super::identity`]) remains.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::identity::Paths;
use crate::fork_safety::databases;

/// Why the locks could not be taken.
#[cfg_attr(not(all(target_os = "linux", target_pointer_width = "64")), allow(dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another SQLite has the file for itself right now.
    Busy,
    /// The handles of this process have a different file open than the one at the path.
    Replaced,
}

/// The locks on one database in this process, shared by its handles.
#[derive(Default)]
pub struct RegionLocks(Mutex<State>);

#[derive(Default)]
struct State {
    /// How many handles are open, or being opened. Closing a descriptor drops the POSIX locks of all of them.
    handles: usize,
    held: Option<platform::Held>,
}

/// The locks of the databases in this process, by their paths.
static ALL: Mutex<Vec<(PathBuf, Weak<RegionLocks>)>> = Mutex::new(Vec::new());

/// The locks on the database at a canonical path: the same for all clients on it.
pub fn of(path: &Path) -> Arc<RegionLocks> {
    // A fork must find the list free.
    let _using = databases::shared();
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(_, locks)| locks.strong_count() > 0);
    if let Some(locks) = all.iter().find(|(at, _)| at == path).and_then(|(_, locks)| locks.upgrade()) {
        return locks;
    }
    let locks = Arc::<RegionLocks>::default();
    all.push((path.to_owned(), Arc::downgrade(&locks)));
    locks
}

/// One handle's share in the locks. It is dropped after the connection is closed.
pub struct Share(Arc<RegionLocks>);

impl RegionLocks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes the lock on the database, if it is in WAL mode, before SQLite opens it: from then on no other SQLite removes
    /// the WAL. Without WAL, SQLite itself needs the database for itself.
    ///
    /// # Errors
    /// If another SQLite has the database for itself, or it was replaced.
    pub fn before_opening(locks: &Arc<RegionLocks>, paths: &Paths) -> Result<Share, Refusal> {
        let mut state = locks.state();
        state.handles += 1;
        // Made at once, so that an error takes the handle out of the account.
        let share = Share(Arc::clone(locks));
        if state.held.is_none() {
            state.held = platform::Held::open(paths);
        }
        let taken = state.held.as_mut().map_or(Ok(()), |held| held.lock_database(paths));
        drop(state);
        taken.map(|()| share)
    }

    /// Takes the other locks, once SQLite has the `-shm` file open. Answers whether the handle is protected as well as the
    /// system allows; if not, the database came to be in WAL mode just now, and is to be opened again.
    ///
    /// # Errors
    /// If another SQLite is making the `-shm` file.
    pub fn after_opening(&self, paths: &Paths) -> Result<bool, Refusal> {
        self.0.state().held.as_mut().map_or(Ok(true), |held| held.lock_shm(paths))
    }

    /// Whether the POSIX locks of this process are still there. A foreign close has dropped them if not.
    pub fn is_intact(&self) -> bool {
        self.0.state().held.as_ref().is_none_or(platform::Held::is_intact)
    }

    /// Begins to watch the POSIX locks again. The transactions to come take their own anew, and the OFD locks stand in for the
    /// others.
    pub fn mend(&self) {
        if let Some(held) = &self.0.state().held {
            held.watch();
        }
    }

    /// Gives the locks back if this is the last handle, so that SQLite can take itself for the last one, and remove the
    /// WAL, when it closes the connection.
    pub fn before_closing(&self) {
        let mut state = self.0.state();
        if state.handles == 1
            && let Some(held) = &mut state.held
        {
            held.unlock();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.handles -= 1;
        if state.handles == 0 {
            state.held = None;
        }
    }
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod platform {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    use super::{Paths, Refusal};
    use crate::random;
    use crate::store::sqlite::identity;

    /// SHARED_FIRST of SQLite's os.h: a program that has the database open holds a shared lock here.
    const DATABASE_IN_USE: i64 = 0x4000_0002;

    /// UNIX_SHM_DMS of SQLite's os_unix.c: a program that has the `-shm` file open holds a shared lock here.
    const SHM_IN_USE: i64 = 128;

    /// Where in the database the read and write versions of its format are, and what they are in WAL mode.
    const FORMAT: (u64, [u8; 2]) = (18, [2, 2]);

    /// From here on no other program locks anything.
    const BEYOND: i64 = 1 << 60;

    /// The descriptors that hold the locks.
    pub struct Held {
        database: File,
        shm: Option<File>,
        is_database_locked: bool,
        /// Whether the system has such locks.
        is_possible: bool,
        /// The byte that only the POSIX locks of this process are on.
        canary: i64,
    }

    impl Held {
        pub fn open(paths: &Paths) -> Option<Held> {
            let canary = BEYOND + i64::from(u32::from_le_bytes(random::bytes().ok()?));
            let database = File::open(&paths.database).ok()?;
            Some(Held { database, shm: None, is_database_locked: false, is_possible: true, canary })
        }

        pub fn lock_database(&mut self, paths: &Paths) -> Result<(), Refusal> {
            if !identity::is_at(&self.database, &paths.database) {
                return Err(Refusal::Replaced);
            }
            let mut format = [0; 2];
            let is_wal = self.database.read_exact_at(&mut format, FORMAT.0).is_ok() && format == FORMAT.1;
            // A rollback journal that a crash left is undone by the next SQLite, which needs the database for itself.
            if !self.is_database_locked && is_wal && !paths.journal.exists() {
                self.is_possible = lock(&self.database, libc::F_RDLCK, DATABASE_IN_USE)?;
                self.is_database_locked = self.is_possible;
            }
            // The first one that opens the `-shm` file must make it anew, and finds out by this lock that it is the first.
            if self.is_database_locked && self.shm.is_none() {
                self.shm = File::open(&paths.shm).ok().filter(|shm| is_locked(shm, SHM_IN_USE));
                if let Some(shm) = &self.shm {
                    lock(shm, libc::F_RDLCK, SHM_IN_USE)?;
                }
            }
            Ok(())
        }

        pub fn lock_shm(&mut self, paths: &Paths) -> Result<bool, Refusal> {
            if !self.is_possible || !self.is_database_locked {
                return Ok(!self.is_possible);
            }
            // The one of before may have been removed by the last handle that was closed.
            let shm = match self.shm.take().filter(|shm| identity::is_at(shm, &paths.shm)) {
                Some(shm) => self.shm.insert(shm),
                None => self.shm.insert(File::open(&paths.shm).map_err(|_| Refusal::Replaced)?),
            };
            lock(shm, libc::F_RDLCK, SHM_IN_USE)?;
            self.watch();
            Ok(true)
        }

        /// Takes the POSIX locks that tell whether the others are there.
        pub fn watch(&self) {
            for file in [Some(&self.database), self.shm.as_ref()].into_iter().flatten() {
                let _ = fcntl(file, FcntlArg::F_SETLK(&region(libc::F_RDLCK, self.canary)));
            }
        }

        pub fn is_intact(&self) -> bool {
            let is_watched = |file| is_locked(file, self.canary);
            self.shm.as_ref().is_none_or(|shm| is_watched(shm) && is_watched(&self.database))
        }

        pub fn unlock(&mut self) {
            for (file, start) in [(Some(&self.database), DATABASE_IN_USE), (self.shm.as_ref(), SHM_IN_USE)] {
                let _ = file.map(|file| lock(file, libc::F_UNLCK, start));
            }
            self.is_database_locked = false;
        }
    }

    fn region(kind: libc::c_int, start: i64) -> libc::flock {
        let whence = libc::SEEK_SET as libc::c_short;
        libc::flock { l_type: kind as libc::c_short, l_whence: whence, l_start: start, l_len: 1, l_pid: 0 }
    }

    /// Whether another descriptor, or the POSIX locks of a process, this one included, lock a byte. Without an answer there is
    /// nothing to tell.
    fn is_locked(file: &File, start: i64) -> bool {
        let mut found = region(libc::F_WRLCK, start);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).is_err()
            || found.l_type != region(libc::F_UNLCK, 0).l_type
    }

    /// Changes an OFD lock; answers whether the system can do that.
    fn lock(file: &File, kind: libc::c_int, start: i64) -> Result<bool, Refusal> {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&region(kind, start))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Err(Refusal::Busy),
            Err(error) => {
                log::debug!("a lock that survives a foreign close cannot be taken: {error}");
                Ok(false)
            }
        }
    }
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
mod platform {
    use super::{Paths, Refusal};

    /// Nothing: this system has no such locks.
    pub struct Held;

    impl Held {
        pub fn open(_: &Paths) -> Option<Held> {
            None
        }

        pub fn lock_database(&mut self, _: &Paths) -> Result<(), Refusal> {
            Ok(())
        }

        pub fn lock_shm(&mut self, _: &Paths) -> Result<bool, Refusal> {
            Ok(true)
        }

        pub fn watch(&self) {}

        pub fn is_intact(&self) -> bool {
            true
        }

        pub fn unlock(&mut self) {}
    }
}
