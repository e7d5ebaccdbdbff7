//! SQLite connections, one to write and one to read: opened when needed, and closed before a fork.
//! Every wait ends by the deadline of its call.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::identity::{Files, Paths};
use super::region_lock::{self, Refusal, RegionLocks, Share};
use super::schema::{self, Schema};
use super::timed_mutex::{TimedMutex, TimedMutexGuard};
use super::writer_lock::WriterLock;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::fork_safety::databases;
use crate::random;
use crate::store::user_only;

/// The longest pause before a call looks again whether another program still holds the lock that it needs. SQLite's own
/// busy handler would soon look ten times a second only, and one writer among many would be passed over for seconds. Nor
/// does it know a deadline, and a fork would have to wait for it.
const MAX_PAUSE: Duration = Duration::from_millis(3);

/// How often one call opens the database again because its files were replaced meanwhile.
const MAX_REPLACEMENTS: u32 = 20;

/// How often one call works again because the POSIX locks of the process were dropped meanwhile. After that it relies on the
/// locks that survive: a host that opens and closes the file without end must not keep it from saving.
const MAX_DOUBTS: u32 = 3;

/// If the disk has less room than this, new pages are written into the database with the transaction that adds them.
const SHORT_OF_ROOM: u64 = 64 << 20;

/// If the disk has less room than this, each transaction is written back, so that the WAL leaves the rest to the database.
const ALMOST_FULL: u64 = 512 << 10;

/// A database file, and the handles to it while there are any.
pub struct Database {
    paths: Arc<Paths>,
    regions: Arc<RegionLocks>,
    writer_lock: WriterLock,
    writer: HandleSlot,
    /// A handle of its own, so that no reader waits for another thread's fsync.
    reader: HandleSlot,
    /// Whether an empty file may become a database: only until the first handle was opened.
    may_be_made: AtomicBool,
}

/// One handle, and the order in which threads work with it.
#[derive(Default)]
struct HandleSlot {
    mutex: TimedMutex,
    /// Locked by the thread that has the turn, or before a fork.
    handle: Mutex<Option<Handle>>,
    /// Whether another program locked out the last attempt.
    is_locked_out: AtomicBool,
}

/// A connection, and the files that it has open. The fields are dropped in this order.
struct Handle {
    connection: Connection,
    share: Share,
    paths: Arc<Paths>,
    files: Files,
}

/// Why an attempt did not succeed.
enum AttemptError {
    /// Another program holds a lock that it needs.
    Busy,
    /// The files at the path are not the ones that the handle has open.
    Replaced,
    /// A foreign close has dropped SQLite's locks, perhaps in the midst of the transaction.
    Unlocked,
    /// The disk has no room for the WAL to grow.
    Full(Error),
    Failed(Error),
}

/// The turn to write.
pub struct WriteAccess<'a> {
    database: &'a Database,
    _guard: TimedMutexGuard<'a>,
}

impl Database {
    /// Opens the database at a canonical path; makes it only if it `may_be_made`. Its writers lock a file in the folder
    /// `locks`.
    ///
    /// # Errors
    /// `STORE` when it cannot be opened, or was written by a newer version of the library; `TIMEOUT`.
    pub fn open(
        path: PathBuf,
        locks: &Path,
        may_be_made: bool,
        deadline: &Deadline,
    ) -> Result<Arc<Database>> {
        if may_be_made {
            make_file(&path)?;
        }
        if user_only::others_may_read(&path) {
            log::warn!(
                "others may read {}: its mode is the only protection of the tokens in it",
                path.display()
            );
        }
        let database = Arc::new(Database {
            regions: region_lock::of(&path),
            writer_lock: WriterLock::new(locks),
            paths: Arc::new(Paths::new(path)),
            writer: HandleSlot::default(),
            reader: HandleSlot::default(),
            may_be_made: AtomicBool::new(may_be_made),
        });
        databases::register(Arc::<Database>::downgrade(&database));
        database.write(deadline, |_, _| Ok(()))?;
        database.may_be_made.store(false, Ordering::Relaxed);
        Ok(database)
    }

    /// Writes by one transaction. If the files turn out to have been replaced meanwhile, `work` runs again on the present
    /// files, and is told that an earlier run may have been written.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn write<T>(
        &self,
        deadline: &Deadline,
        work: impl FnMut(&Connection, bool) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let guard = self.lock_for_write(deadline, || false)?;
        guard.map_or_else(|| Err(deadline.timed_out()), |guard| guard.write(deadline, work))
    }

    /// Waits for the turn to write. `None` once `is_done` says that there is nothing left to do.
    ///
    /// # Errors
    /// `TIMEOUT`, `CANCELLED`.
    pub fn lock_for_write(
        &self,
        deadline: &Deadline,
        is_done: impl Fn() -> bool,
    ) -> Result<Option<WriteAccess<'_>>> {
        let guard = self.lock(&self.writer, deadline, is_done)?;
        Ok(guard.map(|guard| WriteAccess { database: self, _guard: guard }))
    }

    /// Reads.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn read<T>(
        &self,
        deadline: &Deadline,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let Some(_guard) = self.lock(&self.reader, deadline, || false)? else {
            return Err(deadline.timed_out());
        };
        self.work(&self.reader, deadline, false, |connection, _| work(connection))
    }

    fn lock<'a>(
        &'a self,
        slot: &'a HandleSlot,
        deadline: &Deadline,
        is_done: impl Fn() -> bool,
    ) -> Result<Option<TimedMutexGuard<'a>>> {
        slot.mutex.lock(deadline, is_done).map_err(|error| match slot.is_locked_out.load(Ordering::Relaxed) {
            true => self.locked_out(error, deadline),
            false => error,
        })
    }

    /// Works with a handle until it succeeds, by the deadline. Nothing is waited for while the handle is in use, so a fork
    /// never waits for another program.
    fn work<T>(
        &self,
        slot: &HandleSlot,
        deadline: &Deadline,
        is_write: bool,
        mut work: impl FnMut(&Connection, bool) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let (mut tries, mut replaced, mut doubts) = (0, 0, 0);
        let (mut may_be_written, mut is_checkpointed) = (false, false);
        loop {
            let mut has_begun = false;
            let is_watchful = doubts < MAX_DOUBTS;
            let outcome = self.attempt(slot, is_write, is_watchful, |connection| {
                has_begun = true;
                work(connection, may_be_written)
            });
            slot.is_locked_out.store(matches!(outcome, Err(AttemptError::Busy)), Ordering::Relaxed);
            match outcome {
                Ok(value) => return Ok(value),
                Err(AttemptError::Busy) => {
                    deadline.sleep(pause(tries)).map_err(|error| self.locked_out(error, deadline))?;
                    tries += 1;
                }
                Err(AttemptError::Replaced) if replaced < MAX_REPLACEMENTS => {
                    // SQLite shares what it knows of a file between the handles of a process, so all must go.
                    drop(databases::close_all());
                    deadline.check()?;
                    may_be_written |= has_begun;
                    replaced += 1;
                }
                Err(AttemptError::Replaced) => {
                    let message = format!(
                        "the files of the database {} are replaced again and again",
                        self.paths.database.display()
                    );
                    return Err(Error::new(Status::Store, message).with_help(
                        "find out which program opens, copies or removes them; see docs/stores.md",
                    ));
                }
                Err(AttemptError::Unlocked) => {
                    may_be_written |= has_begun;
                    doubts += 1;
                }
                Err(AttemptError::Full(_)) if is_write && !is_checkpointed => {
                    deadline.check()?;
                    is_checkpointed = true;
                    self.checkpoint(slot);
                }
                Err(AttemptError::Full(error) | AttemptError::Failed(error)) => return Err(error),
            }
        }
    }

    /// Writes the WAL back into the database, so that the next transaction writes over it from its beginning and needs no new
    /// room. The WAL keeps its length: no other program takes the room meanwhile. PASSIVE waits for nothing, and leaves what a
    /// foreign reader still needs.
    fn checkpoint(&self, slot: &HandleSlot) {
        let _using = databases::shared();
        if let Some(handle) = &*slot.handle()
            && handle.is_current()
        {
            checkpoint(&handle.connection);
        }
    }

    fn attempt<T>(
        &self,
        slot: &HandleSlot,
        is_write: bool,
        is_watchful: bool,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, AttemptError> {
        let _using = databases::shared();
        let mut current = slot.handle();
        let handle = match current.take() {
            Some(handle) => current.insert(handle),
            None => current.insert(self.open_handle()?),
        };
        if !handle.is_current() {
            return Err(AttemptError::Replaced);
        }
        let _alone =
            if is_write { Some(self.writer_lock.try_lock().ok_or(AttemptError::Busy)?) } else { None };
        let worked = work(&handle.connection);
        // Others will open the files at the path: a save that went elsewhere is not saved, and the error of a handle
        // whose files were exchanged says nothing.
        if (is_write || worked.is_err()) && !handle.is_current() {
            return Err(AttemptError::Replaced);
        }
        // Without SQLite's locks another program may have written into the midst of this transaction.
        if is_watchful && !handle.share.is_intact() {
            handle.share.mend();
            return Err(AttemptError::Unlocked);
        }
        if is_write && worked.is_ok() {
            handle.spare_room();
        }
        worked.map_err(|error| self.fault(&error))
    }

    /// A handle to a database that is up to date.
    fn open_handle(&self) -> Result<Handle, AttemptError> {
        let (handle, is_protected) = self.open_once()?;
        if is_protected {
            return Ok(handle);
        }
        // The database was not in WAL mode before, so its files could be exchanged while it was opened.
        drop(handle);
        self.open_once().map(|(handle, _)| handle)
    }

    /// A handle, and whether the locks that survive a foreign close were there before it was opened.
    fn open_once(&self) -> Result<(Handle, bool), AttemptError> {
        let failed = |error: rusqlite::Error| self.fault(&error);
        let path = &self.paths.database;
        let database = self.paths.database_id().map_err(|error| AttemptError::Failed(self.gone(&error)))?;
        let share = Share::before_opening(&self.regions, &self.paths)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(Duration::ZERO).map_err(failed)?;
        // `secure_delete`: a token that was replaced is overwritten in the file. `fullfsync`: on macOS, `fsync` leaves data
        // in the cache of the disk; elsewhere these two do nothing.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
                 PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;",
            )
            .map_err(failed)?;
        let may_be_made = self.may_be_made.load(Ordering::Relaxed);
        match schema::migrate(&mut connection, may_be_made).map_err(failed)? {
            Schema::UpToDate => {}
            Schema::Newer => {
                let message =
                    format!("the database {} was written by a newer version of this library", path.display());
                return Err(AttemptError::Failed(
                    Error::new(Status::Store, message)
                        .with_help("update the library")
                        .with_parameter("store.path"),
                ));
            }
            Schema::Empty => {
                let message = format!("the database {} was replaced by an empty file", path.display());
                return Err(AttemptError::Failed(
                    Error::new(Status::Store, message)
                        .with_help("put the database back, or make a new client to begin anew"),
                ));
            }
        }
        // Something was read, so SQLite has opened all three.
        let is_protected = share.after_opening(&self.paths);
        match self.paths.files() {
            Ok(files) if files.database() == database => {
                Ok((Handle { connection, share, paths: Arc::clone(&self.paths), files }, is_protected?))
            }
            _ => {
                leave_files_alone(&connection);
                Err(AttemptError::Replaced)
            }
        }
    }

    fn gone(&self, error: &io::Error) -> Error {
        let path = self.paths.database.display();
        if error.kind() == io::ErrorKind::NotFound {
            let message = format!("the database {path} is gone: it was removed or moved away");
            return Error::new(Status::Store, message)
                .with_help("put it back, or make a new client to begin anew");
        }
        Error::new(Status::Store, format!("the database {path} cannot be opened: {error}"))
            .with_help("check the rights of the file and of its folder")
    }

    /// The end of a wait for another program.
    fn locked_out(&self, error: Error, deadline: &Deadline) -> Error {
        if error.status() != Status::Timeout {
            return error;
        }
        let message = format!(
            "another program holds the write lock of the database {}, longer than the deadline of {} ms",
            self.paths.database.display(),
            deadline.total().as_millis()
        );
        Error::new(Status::Timeout, message).with_help("end the other program's transaction, then try again")
    }

    fn fault(&self, error: &rusqlite::Error) -> AttemptError {
        let help = match error.sqlite_error_code() {
            // `FileLockingProtocolFailed`: SQLite looked a hundred times, and another program was always at it.
            Some(ErrorCode::DatabaseBusy | ErrorCode::FileLockingProtocolFailed) => {
                return AttemptError::Busy;
            }
            _ if is_disk_full(error) => "make room on the disk; new tokens are kept in memory until then",
            Some(ErrorCode::DatabaseLocked) => "another program holds the database; try again",
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                "check the rights of the file and of its folder"
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                "restore the file from a backup, or consent again"
            }
            _ => "check the disk and the file, then try again",
        };
        let message = format!("the database {} failed: {error}", self.paths.database.display());
        let failure = Error::new(Status::Store, message).with_help(help);
        if is_disk_full(error) { AttemptError::Full(failure) } else { AttemptError::Failed(failure) }
    }
}

impl WriteAccess<'_> {
    /// As [`Database::write`].
    ///
    /// # Errors
    /// As [`Database::write`].
    pub fn write<T>(
        &self,
        deadline: &Deadline,
        work: impl FnMut(&Connection, bool) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.database.work(&self.database.writer, deadline, true, work)
    }
}

impl HandleSlot {
    fn handle(&self) -> MutexGuard<'_, Option<Handle>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Refusal> for AttemptError {
    fn from(refusal: Refusal) -> AttemptError {
        match refusal {
            Refusal::Busy => AttemptError::Busy,
            Refusal::Replaced => AttemptError::Replaced,
        }
    }
}

impl Handle {
    /// Writes the WAL back early if the disk is short of room: pages that were added, since a full disk could not take them,
    /// and then the WAL could never be written over from its beginning.
    fn spare_room(&self) {
        let room = room_beside(&self.paths.database);
        if room < ALMOST_FULL || room < SHORT_OF_ROOM && self.has_grown() {
            checkpoint(&self.connection);
        }
    }

    /// Whether the database has pages that are in the WAL only.
    fn has_grown(&self) -> bool {
        let number = |pragma| self.connection.query_row(pragma, [], |row| row.get::<_, i64>(0)).ok();
        let size = || Some(number("PRAGMA page_count")? * number("PRAGMA page_size")?);
        let in_file = fs::metadata(&self.paths.database).map_or(0, |metadata| metadata.len());
        size().is_some_and(|size| size > in_file.cast_signed())
    }

    /// Whether the files that it has open are the ones that another process would open.
    fn is_current(&self) -> bool {
        cfg!(not(unix)) || self.paths.files().is_ok_and(|files| files == self.files)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A foreign SQLite that has dropped the locks of this process may still use the files.
        if !self.is_current() || !self.share.is_intact() {
            leave_files_alone(&self.connection);
        }
        self.share.before_closing();
    }
}

/// Lets a connection be closed without a checkpoint. The last one to be closed would write its WAL, which others do not have,
/// into the database, and remove the WAL at the path, which others may be using.
fn leave_files_alone(connection: &Connection) {
    let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

impl databases::Database for Database {
    fn close(&self) {
        for slot in [&self.reader, &self.writer] {
            *slot.handle() = None;
        }
        self.writer_lock.close();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        for slot in [&mut self.reader, &mut self.writer] {
            // Closing uses SQLite's own locks: a fork must not come between. After `close` there is nothing to do, and
            // the fork that called it must not be waited for.
            if let Some(handle) = slot.handle.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
                let _using = databases::shared();
                drop(handle);
            }
        }
    }
}

/// Writes the WAL back as far as that needs no wait.
fn checkpoint(connection: &Connection) {
    let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
}

/// How much room the disk of a file has, in bytes.
#[cfg(unix)]
fn room_beside(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The disk is not asked: a write that fails tells that it is full.
#[cfg(not(unix))]
fn room_beside(_: &Path) -> u64 {
    u64::MAX
}

/// Whether a write found no room. SQLite says "full" only for ENOSPC at a write: a quota, and the memory that processes share
/// as the `-shm` file, give I/O errors.
fn is_disk_full(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE};
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || matches!(extended, Some(SQLITE_IOERR_WRITE | SQLITE_IOERR_SHMSIZE))
}

/// The pause before a call looks again. It is of random length, so that no two processes keep step.
fn pause(tries: u32) -> Duration {
    let microseconds = u64::try_from(longest_pause(tries).as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random::up_to(microseconds))
}

fn longest_pause(tries: u32) -> Duration {
    MAX_PAUSE.min(Duration::from_micros(100) * (1 << tries.min(5)))
}

/// Makes the file for this user only; SQLite gives its side files the same mode.
fn make_file(path: &Path) -> Result<()> {
    // A file that is there is left unopened, and no other thread uses it while it is made: closing any descriptor of a
    // file takes this process's SQLite locks on it away.
    let alone = databases::exclusive();
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    user_only::file(&mut options);
    let made = options.open(path).map(drop);
    drop(alone);
    match made {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => {
            let message = format!("the database {} cannot be made: {error}", path.display());
            Err(Error::new(Status::Store, message)
                .with_help("check store.path and the rights of its folder")
                .with_parameter("store.path"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_for_a_foreign_lock_grows_to_three_milliseconds() {
        let longest: Vec<Duration> = (0..1000).map(longest_pause).collect();
        assert!(longest.is_sorted());
        assert_eq!((longest[0], longest[999]), (Duration::from_micros(100), Duration::from_millis(3)));
    }
}
