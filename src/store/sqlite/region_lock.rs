//! Byte-range locks that survive a foreign close.
//!
//! SQLite's POSIX record locks belong to the process: if any other code in the process closes the
//! database file (a foreign close), all of them are dropped, and SQLite does not notice. Open file
//! description (OFD) locks belong to a descriptor instead, and conflict with the POSIX locks of
//! every process, including this one.
//!
//! While SQLite has the database open, a second descriptor therefore holds two of SQLite's shared
//! locks as OFD locks: the lock on the database, without which another SQLite would consider itself
//! the last user and remove the WAL, and the lock on the `-shm` file, without which another SQLite
//! would truncate it. A POSIX lock on a byte that no other program uses, the canary, shows whether
//! the POSIX locks still exist.
//!
//! Linux only. On other systems, only the identity of the files is checked ([`super::identity`]).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::identity::Paths;
use crate::fork_safety::databases;

/// Why the locks could not be taken. Elsewhere there are no such locks.
#[cfg_attr(not(all(target_os = "linux", target_pointer_width = "64")), allow(dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another SQLite has locked the file exclusively.
    Busy,
    /// This process's handles have a different file open than the one at the path.
    Replaced,
    /// No file descriptor is free.
    NoDescriptor,
}

/// The locks of this process on one database, shared by its handles.
#[derive(Default)]
pub struct RegionLocks(Mutex<State>);

#[derive(Default)]
struct State {
    /// Number of handles that are open or being opened. Closing a descriptor drops the POSIX locks
    /// of all of them.
    handles: usize,
    held: Option<platform::Held>,
}

static ALL: Mutex<Vec<(PathBuf, Weak<RegionLocks>)>> = Mutex::new(Vec::new());

/// The locks on the database at a canonical path, shared by all clients that use it.
pub fn of(path: &Path) -> Arc<RegionLocks> {
    // Delays a fork while the list is locked.
    let _using = databases::shared();
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(_, locks)| locks.strong_count() > 0);
    if let Some(locks) =
        all.iter().find(|(at, _)| at == path).and_then(|(_, locks)| locks.upgrade())
    {
        return locks;
    }
    let locks = Arc::<RegionLocks>::default();
    all.push((path.to_owned(), Arc::downgrade(&locks)));
    locks
}

/// One handle's share of the locks. Dropped after the connection is closed.
pub struct Share(Arc<RegionLocks>);

impl RegionLocks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Before SQLite opens the database: takes the lock on the database if it is in WAL mode, so
    /// that no other SQLite removes the WAL from now on. If it is not in WAL mode, SQLite needs an
    /// exclusive lock to enable it.
    pub fn before_opening(locks: &Arc<RegionLocks>, paths: &Paths) -> Result<Share, Refusal> {
        let mut state = locks.state();
        state.handles += 1;
        // Created before anything can fail, so that its drop decrements `handles`.
        let share = Share(Arc::clone(locks));
        if state.held.is_none() {
            state.held = platform::Held::open(paths);
        }
        let taken = state.held.as_mut().map_or(Ok(()), |held| held.lock_database(paths));
        drop(state);
        taken.map(|()| share)
    }

    /// After SQLite has opened the `-shm` file: takes the remaining locks. Returns false if the
    /// database has only just entered WAL mode: it must then be opened again to be protected.
    /// Returns true if the system has no OFD locks.
    pub fn after_opening(&self, paths: &Paths) -> Result<bool, Refusal> {
        self.0.state().held.as_mut().map_or(Ok(true), |held| held.lock_shm(paths))
    }

    /// Whether the POSIX locks still exist. They do not after a foreign close.
    pub fn is_intact(&self) -> bool {
        self.0.state().held.as_ref().is_none_or(platform::Held::is_intact)
    }

    /// Sets the canary again after a foreign close. Future transactions take their own POSIX locks,
    /// and the OFD locks replace the others.
    pub fn watch(&self) {
        if let Some(held) = &self.0.state().held {
            held.watch();
        }
    }

    /// Releases the locks if this is the last handle, so that SQLite can detect that it is the last
    /// user when it closes the connection, and remove the WAL.
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
    use crate::error::exhaustion;
    use crate::fork_safety::descriptors::open_above_stdio;
    use crate::random;
    use crate::store::sqlite::identity;

    /// SHARED_FIRST in SQLite's os.h: every program that has the database open holds a shared lock
    /// on this byte.
    const DATABASE_IN_USE: i64 = 0x4000_0002;

    /// UNIX_SHM_DMS in SQLite's os_unix.c: every program that has the `-shm` file open holds a
    /// shared lock on this byte.
    const SHM_IN_USE: i64 = 128;

    /// Offset of the file format's read and write version in the database header, and their values
    /// in WAL mode.
    const FORMAT: (u64, [u8; 2]) = (18, [2, 2]);

    /// No other program locks bytes from this offset on. `off_t` has 64 bits.
    const UNUSED_OFFSETS: i64 = 1 << 60;

    /// The descriptors that hold the locks.
    pub struct Held {
        database: File,
        shm: Option<File>,
        /// A `-shm` file on which no lock was taken. Closing it would drop the POSIX locks of every
        /// SQLite in this process that has opened the file meanwhile.
        unlocked_shm: Option<File>,
        is_database_locked: bool,
        is_supported: bool,
        /// The offset of the canary, on which only this process holds a POSIX lock.
        canary: i64,
    }

    impl Held {
        pub fn open(paths: &Paths) -> Option<Held> {
            let canary = UNUSED_OFFSETS + i64::from(u32::from_le_bytes(random::bytes().ok()?));
            let database = open_above_stdio(&paths.database).ok()?;
            Some(Held {
                database,
                shm: None,
                unlocked_shm: None,
                is_database_locked: false,
                is_supported: true,
                canary,
            })
        }

        pub fn lock_database(&mut self, paths: &Paths) -> Result<(), Refusal> {
            if !identity::is_at(&self.database, &paths.database) {
                return Err(Refusal::Replaced);
            }
            let mut format = [0; 2];
            let is_wal =
                self.database.read_exact_at(&mut format, FORMAT.0).is_ok() && format == FORMAT.1;
            // To roll back a journal that a crash left behind, SQLite needs an exclusive lock.
            if !self.is_database_locked && is_wal && !paths.journal.exists() {
                self.is_supported = lock(&self.database, libc::F_RDLCK, DATABASE_IN_USE)?;
                self.is_database_locked = self.is_supported;
            }
            // The first SQLite that opens the `-shm` file must initialize it, and finds out by this
            // lock that it is the first.
            if self.is_database_locked && self.shm.is_none() {
                let probed =
                    self.unlocked_shm.take().filter(|shm| identity::is_at(shm, &paths.shm));
                match probed.or_else(|| open_above_stdio(&paths.shm).ok()) {
                    Some(shm) if is_locked(&shm, SHM_IN_USE) => {
                        lock(self.shm.insert(shm), libc::F_RDLCK, SHM_IN_USE)?;
                    }
                    probed => self.unlocked_shm = probed,
                }
            }
            Ok(())
        }

        pub fn lock_shm(&mut self, paths: &Paths) -> Result<bool, Refusal> {
            if !self.is_supported || !self.is_database_locked {
                return Ok(!self.is_supported);
            }
            // The previous file may have been removed when the last handle was closed.
            let known = self.shm.take().or_else(|| self.unlocked_shm.take());
            let shm = match known.filter(|shm| identity::is_at(shm, &paths.shm)) {
                Some(shm) => self.shm.insert(shm),
                None => self.shm.insert(open_above_stdio(&paths.shm).map_err(|error| {
                    match exhaustion::is_no_descriptor(&error) {
                        true => Refusal::NoDescriptor,
                        false => Refusal::Replaced,
                    }
                })?),
            };
            lock(shm, libc::F_RDLCK, SHM_IN_USE)?;
            self.watch();
            Ok(true)
        }

        /// Sets the canary.
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
            for (file, start) in
                [(Some(&self.database), DATABASE_IN_USE), (self.shm.as_ref(), SHM_IN_USE)]
            {
                let _ = file.map(|file| lock(file, libc::F_UNLCK, start));
            }
            self.is_database_locked = false;
        }
    }

    fn region(kind: libc::c_int, start: i64) -> libc::flock {
        let whence = libc::SEEK_SET as libc::c_short;
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: whence,
            l_start: start,
            l_len: 1,
            l_pid: 0,
        }
    }

    /// Whether another descriptor, or any process's POSIX lock, locks a byte. True if the system
    /// cannot tell.
    fn is_locked(file: &File, start: i64) -> bool {
        let mut found = region(libc::F_WRLCK, start);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).is_err()
            || found.l_type != region(libc::F_UNLCK, 0).l_type
    }

    /// Sets or removes an OFD lock. Returns false if the system does not support OFD locks.
    fn lock(file: &File, kind: libc::c_int, start: i64) -> Result<bool, Refusal> {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&region(kind, start))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Err(Refusal::Busy),
            Err(_) => Ok(false),
        }
    }

    #[cfg(test)]
    mod tests {
        use std::fs;

        use super::*;

        #[test]
        fn probe_of_an_unlocked_shm_file_keeps_the_posix_locks_of_this_process() {
            let folder = tempfile::tempdir().unwrap();
            let paths = Paths::new(folder.path().join("tokens.db"));
            let mut database = [0; 100];
            database[18..20].copy_from_slice(&FORMAT.1);
            fs::write(&paths.database, database).unwrap();
            let another = fs::OpenOptions::new()
                .create_new(true)
                .read(true)
                .write(true)
                .open(&paths.shm)
                .unwrap();
            // Another SQLite in this process has opened the file, and is about to lock the byte
            // that says so.
            let other_byte = SHM_IN_USE - 5;
            fcntl(&another, FcntlArg::F_SETLK(&region(libc::F_WRLCK, other_byte))).unwrap();
            let mut held = Held::open(&paths).unwrap();
            held.lock_database(&paths).unwrap();
            held.lock_database(&paths).unwrap();
            assert!(is_locked(held.unlocked_shm.as_ref().unwrap(), other_byte));
        }
    }
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
mod platform {
    use super::{Paths, Refusal};

    /// Other systems have no OFD locks. On 32-bit Linux, offsets are too short for the canary.
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
