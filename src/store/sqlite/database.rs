//! SQLite connections: one writer and one reader, opened on demand and closed before a fork. Every
//! wait ends by the call's deadline.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::identity::{self, Files, Paths};
use super::region_lock::{self, Refusal, RegionLocks, Share};
use super::schema::{self, Schema};
use super::timed_mutex::{TimedMutex, TimedMutexGuard};
use super::writer_lock::WriterLock;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status, exhaustion};
use crate::fork_safety::databases;
#[cfg(target_os = "linux")]
use crate::fork_safety::descriptors::above_stdio;
use crate::random;
use crate::store::user_only;

/// Maximum pause between two attempts to get a lock that another program holds. SQLite's own busy
/// handler would soon retry only ten times a second, knows no deadline, and would make a fork wait.
const MAX_PAUSE: Duration = Duration::from_millis(3);

/// Maximum number of times that one call reopens the database because its files were replaced.
const MAX_REPLACEMENTS: u32 = 20;

/// Maximum number of times that one call repeats its work because the process's POSIX locks were
/// dropped. After that it relies on the OFD locks, so that a host that closes the file in a loop
/// cannot prevent a save.
const MAX_LOST_LOCKS: u32 = 3;

/// With less free disk space than this, in bytes, a transaction that adds pages is checkpointed at
/// once.
const LOW_DISK_SPACE: u64 = 64 << 20;

/// With less free disk space than this, in bytes, every transaction is checkpointed at once, so
/// that the WAL does not grow.
const VERY_LOW_DISK_SPACE: u64 = 512 << 10;

/// The length of a page in the WAL with its header, in bytes.
const WAL_FRAME: u64 = 4096 + 24;

/// Room in the WAL for a refresh, in bytes: its intent and its new token are some 20 kB.
const REFRESH_ROOM: u64 = 64 << 10;

/// What to do about a database that is missing or empty.
const GONE_HELP: &str = "move it back; before a backup takes its place, remove -wal and -shm; or \
                         create a new client to start with an empty one";

/// A database file and its handles.
pub struct Database {
    paths: Arc<Paths>,
    regions: Arc<RegionLocks>,
    slots: Arc<Slots>,
    /// Whether the database may be created: only until the first handle is open.
    may_create: AtomicBool,
    /// Whether the last transaction of the writer was an intent.
    is_intent: AtomicBool,
}

/// The handles to be closed before a fork. The registry shares the ownership.
struct Slots {
    writer_lock: WriterLock,
    writer: HandleSlot,
    /// Separate, so that no reader waits for another thread's fsync.
    reader: HandleSlot,
}

/// A handle and the queue of the threads that use it.
#[derive(Default)]
struct HandleSlot {
    mutex: TimedMutex,
    /// Locked by the thread that holds `mutex`, and before a fork.
    handle: Mutex<Option<Handle>>,
    /// Whether another program's lock ended the last attempt.
    is_locked_out: AtomicBool,
}

/// A connection and the identity of its files. The fields are dropped in this order.
struct Handle {
    connection: Connection,
    share: Share,
    paths: Arc<Paths>,
    files: Files,
}

/// Why an attempt failed.
enum AttemptError {
    /// Another program holds a required lock.
    Busy,
    /// The files at the paths are no longer the open ones.
    Replaced,
    /// A foreign close dropped SQLite's locks, maybe during the transaction.
    Unlocked,
    /// The disk is full, so the WAL cannot grow.
    Full(Error),
    /// No file descriptor is free.
    NoDescriptor,
    Failed(Error),
}

/// Work on a connection. The argument is whether an earlier attempt may have been written.
type Work<'a> = dyn FnMut(&Connection, bool) -> rusqlite::Result<()> + 'a;

pub struct WriteAccess<'a> {
    database: &'a Database,
    _guard: TimedMutexGuard<'a>,
}

impl Database {
    /// Opens the database at a canonical path, and creates it only if `may_create`. The writer lock
    /// is a file in the folder `locks`.
    pub fn open(
        path: PathBuf,
        locks: &Path,
        may_create: bool,
        deadline: &Deadline,
    ) -> Result<Arc<Database>> {
        if may_create {
            create_file(&path)?;
        }
        // SQLite would wait for ever for a pipe.
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            let message = format!("the database {} is not a regular file", path.display());
            return Err(Error::new(Status::Store, message)
                .with_help("set store.path to a file")
                .with_parameter("store.path")
                .with_retryable(false));
        }
        if user_only::others_may_read(&path) {
            log::warn!(
                "other users may read {}: only its file permissions protect the tokens in it",
                path.display()
            );
        }
        let database = Arc::new(Database {
            regions: region_lock::of(&path),
            paths: Arc::new(Paths::new(path)),
            slots: Arc::new(Slots {
                writer_lock: WriterLock::new(locks),
                writer: HandleSlot::default(),
                reader: HandleSlot::default(),
            }),
            may_create: AtomicBool::new(may_create),
            is_intent: AtomicBool::new(false),
        });
        databases::register(database.handles());
        database.write(deadline, |_, _| Ok(()))?;
        database.may_create.store(false, Ordering::Relaxed);
        Ok(database)
    }

    /// Runs a write transaction. If the files were replaced in the meantime, `work` runs again on
    /// the new files, and its second argument is true: an earlier run may have been written.
    pub fn write<T>(
        &self,
        deadline: &Deadline,
        mut work: impl FnMut(&Connection, bool) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let Some(guard) = self.lock_for_write(deadline, &|| false)? else {
            return Err(deadline.timed_out());
        };
        guard.write(deadline, |connection, may_be_written| {
            self.sync_commits(connection, true)?;
            work(connection, may_be_written)
        })
    }

    /// Waits for write access. Returns `None` as soon as `is_done` returns true.
    pub fn lock_for_write(
        &self,
        deadline: &Deadline,
        is_done: &dyn Fn() -> bool,
    ) -> Result<Option<WriteAccess<'_>>> {
        let guard = self.lock(&self.slots.writer, deadline, is_done)?;
        Ok(guard.map(|guard| WriteAccess { database: self, _guard: guard }))
    }

    /// Reserves the space for a refresh on a disk that is almost full: a token that could not be
    /// saved must not be requested.
    pub fn reserve(&self, deadline: &Deadline) -> Result<()> {
        if free_space(&self.paths.database) >= VERY_LOW_DISK_SPACE {
            return Ok(());
        }
        let Some(_guard) = self.lock(&self.slots.writer, deadline, &|| false)? else {
            return Err(deadline.timed_out());
        };
        // The WAL is used again from its beginning if all of it is in the database.
        let checkpoint = |connection: &Connection, _| Ok(checkpoint(connection));
        let used = self.work(&self.slots.writer, deadline, false, checkpoint)?;
        if self.paths.wal_length().saturating_sub(used) < REFRESH_ROOM
            && !has_room(&self.paths, REFRESH_ROOM)
        {
            return Err(self.disk_full());
        }
        Ok(())
    }

    /// Sets whether the next transaction of the writer is synced when it is committed, so that it
    /// survives a power failure; an intent is not. An unsynced transaction becomes durable with the
    /// next synced one.
    pub fn sync_commits(&self, connection: &Connection, is_synced: bool) -> rusqlite::Result<()> {
        self.is_intent.store(!is_synced, Ordering::Relaxed);
        // Both statements take effect when they are prepared, so they cannot be cached.
        connection.execute_batch(match is_synced {
            true => "PRAGMA synchronous = FULL",
            false => "PRAGMA synchronous = NORMAL",
        })
    }

    /// The error for a transaction that does not fit on the disk.
    fn disk_full(&self) -> Error {
        let path = &self.paths.database;
        let message = format!("the disk of the database {} is full", path.display());
        let help = match identity::mount_point(path) {
            Some(disk) => format!("{} (the file system at {})", exhaustion::DISK, disk.display()),
            None => exhaustion::DISK.to_owned(),
        };
        Error::new(Status::Store, message).with_help(help)
    }

    /// Runs a query on the reader.
    pub fn read<T>(
        &self,
        deadline: &Deadline,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let Some(_guard) = self.lock(&self.slots.reader, deadline, &|| false)? else {
            return Err(deadline.timed_out());
        };
        self.work(&self.slots.reader, deadline, false, |connection, _| work(connection))
    }

    fn lock<'a>(
        &'a self,
        slot: &'a HandleSlot,
        deadline: &Deadline,
        is_done: &dyn Fn() -> bool,
    ) -> Result<Option<TimedMutexGuard<'a>>> {
        slot.mutex.lock(deadline, is_done).map_err(|error| {
            match slot.is_locked_out.load(Ordering::Relaxed) {
                true => self.locked_out(error, deadline),
                false => error,
            }
        })
    }

    /// Runs `work` on a handle until it succeeds, at most until the deadline. The handle is free
    /// during pauses, so a fork never waits for another program.
    fn work<T>(
        &self,
        slot: &HandleSlot,
        deadline: &Deadline,
        is_write: bool,
        mut work: impl FnMut(&Connection, bool) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut result = None;
        let mut keep_result = |connection: &Connection, may_be_written: bool| {
            result = Some(work(connection, may_be_written)?);
            Ok(())
        };
        self.repeat(slot, deadline, is_write, &mut keep_result)?;
        // There is a result, because `repeat` succeeds only after `work`.
        result.ok_or_else(|| deadline.timed_out())
    }

    /// Like [`Database::work`], compiled once for all kinds of work.
    fn repeat(
        &self,
        slot: &HandleSlot,
        deadline: &Deadline,
        is_write: bool,
        work: &mut Work<'_>,
    ) -> Result<()> {
        let (mut tries, mut replaced, mut lost_locks) = (0, 0, 0);
        let (mut may_be_written, mut is_checkpointed) = (false, false);
        loop {
            let mut has_begun = false;
            let checks_locks = lost_locks < MAX_LOST_LOCKS;
            let outcome = self.attempt(slot, is_write, checks_locks, &mut |connection| {
                has_begun = true;
                work(connection, may_be_written)
            });
            slot.is_locked_out.store(matches!(outcome, Err(AttemptError::Busy)), Ordering::Relaxed);
            match outcome {
                Ok(()) => return Ok(()),
                Err(AttemptError::Busy) => {
                    deadline
                        .sleep(pause(tries))
                        .map_err(|error| self.locked_out(error, deadline))?;
                    tries += 1;
                }
                Err(AttemptError::NoDescriptor) => {
                    return Err(self.no_descriptor(exhaustion::DESCRIPTORS));
                }
                Err(AttemptError::Replaced) if replaced < MAX_REPLACEMENTS => {
                    // A file that cannot be opened looks like one that was replaced.
                    if let Some(help) = exhaustion::no_descriptor() {
                        return Err(self.no_descriptor(help));
                    }
                    // SQLite shares a file's state among the handles of a process, so all of them
                    // must be closed.
                    drop(databases::close_all());
                    deadline.check()?;
                    may_be_written |= has_begun;
                    replaced += 1;
                }
                Err(AttemptError::Replaced) => {
                    let message = format!(
                        "the files of the database {} are replaced repeatedly",
                        self.paths.database.display()
                    );
                    return Err(Error::new(Status::Store, message).with_help(
                        "find out which program opens, copies or removes them; see docs/stores.md",
                    ));
                }
                Err(AttemptError::Unlocked) => {
                    may_be_written |= has_begun;
                    lost_locks += 1;
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

    /// Writes the WAL back to the database, so that the next transaction needs no additional space.
    /// The WAL keeps its size, so that no other program takes the space. A PASSIVE checkpoint does
    /// not wait, and leaves the pages that other readers need.
    fn checkpoint(&self, slot: &HandleSlot) {
        let _using = databases::shared();
        if let Some(handle) = &*slot.handle()
            && handle.is_current()
        {
            checkpoint(&handle.connection);
        }
    }

    fn attempt(
        &self,
        slot: &HandleSlot,
        is_write: bool,
        checks_locks: bool,
        work: &mut dyn FnMut(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), AttemptError> {
        let _using = databases::shared();
        let mut current = slot.handle();
        let handle = match current.take() {
            Some(handle) => current.insert(handle),
            None => current.insert(self.open_handle()?),
        };
        if !handle.is_current() {
            return Err(AttemptError::Replaced);
        }
        let _writer_lock = if is_write {
            Some(self.slots.writer_lock.try_lock().ok_or(AttemptError::Busy)?)
        } else {
            None
        };
        let outcome = work(&handle.connection);
        // A write to files that are no longer at the paths is lost, and an error from such files is
        // meaningless.
        if (is_write || outcome.is_err()) && !handle.is_current() {
            return Err(AttemptError::Replaced);
        }
        // Without SQLite's locks, another program may have written during this transaction.
        if checks_locks && !handle.share.is_intact() {
            handle.share.watch();
            return Err(AttemptError::Unlocked);
        }
        // The space was checked before the intent.
        if is_write && outcome.is_ok() && !self.is_intent.load(Ordering::Relaxed) {
            handle.checkpoint_if_disk_is_low();
        }
        outcome.map_err(|error| self.failure(&error))
    }

    fn open_handle(&self) -> Result<Handle, AttemptError> {
        let (handle, is_protected) = self.open_once()?;
        if is_protected {
            return Ok(handle);
        }
        // The database was not in WAL mode, so its files were not protected while it was opened.
        drop(handle);
        self.open_once().map(|(handle, _)| handle)
    }

    /// Returns a handle, and whether the OFD locks were held before it was opened.
    fn open_once(&self) -> Result<(Handle, bool), AttemptError> {
        let failed = |error: rusqlite::Error| self.failure(&error);
        let path = &self.paths.database;
        let database = self
            .paths
            .database_id()
            .map_err(|error| AttemptError::Failed(self.open_error(&error)))?;
        let share = Share::before_opening(&self.regions, &self.paths)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        self.protect_side_files();
        let mut connection = connect(path, flags).map_err(failed)?;
        connection.busy_timeout(Duration::ZERO).map_err(failed)?;
        // `secure_delete` overwrites replaced tokens in the file. `fullfsync`: on macOS, `fsync`
        // leaves data in the disk's cache; on other systems it has no effect.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
                 PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;",
            )
            .map_err(failed)?;
        let may_create = self.may_create.load(Ordering::Relaxed);
        match schema::migrate(&mut connection, may_create).map_err(failed)? {
            Schema::UpToDate => {}
            Schema::Newer => {
                let message = format!(
                    "the database {} was written by a newer version of this library",
                    path.display()
                );
                return Err(AttemptError::Failed(
                    Error::new(Status::Store, message)
                        .with_help("update the library")
                        .with_parameter("store.path")
                        .with_retryable(false),
                ));
            }
            Schema::Empty => {
                let message =
                    format!("the database {} was replaced by an empty file", path.display());
                let error = Error::new(Status::Store, message).with_help(GONE_HELP);
                return Err(AttemptError::Failed(error.with_retryable(false)));
            }
        }
        // The migration has read from the database, so SQLite has opened all files. It may have
        // created some of them anew.
        self.protect_side_files();
        let is_protected = share.after_opening(&self.paths);
        match self.paths.files() {
            Ok(files) if files.database() == database => Ok((
                Handle { connection, share, paths: Arc::clone(&self.paths), files },
                is_protected?,
            )),
            _ => {
                leave_files_alone(&connection);
                Err(AttemptError::Replaced)
            }
        }
    }

    /// Gives the WAL and its index the access control list of the database. On Unix, SQLite gives
    /// them its mode.
    fn protect_side_files(&self) {
        #[cfg(windows)]
        for path in [&self.paths.wal, &self.paths.shm] {
            if let Err(error) = user_only::protect_side_file(path, &self.paths.database) {
                log::warn!("the access to {} cannot be restricted: {error}", path.display());
            }
        }
    }

    fn handles(&self) -> Arc<dyn databases::Handles> {
        Arc::<Slots>::clone(&self.slots)
    }

    fn open_error(&self, error: &io::Error) -> Error {
        let path = self.paths.database.display();
        if error.kind() == io::ErrorKind::NotFound {
            let message = format!("the database {path} is gone: it was removed or moved away");
            return Error::of_file(Status::Store, message, error, GONE_HELP);
        }
        let message = format!("the database {path} cannot be opened: {error}");
        let help = "check the permissions of the file and its folder";
        Error::of_file(Status::Store, message, error, help)
    }

    /// The error if the database or one of its side files could not be opened for lack of a file
    /// descriptor.
    fn no_descriptor(&self, help: &str) -> Error {
        let path = self.paths.database.display();
        let message = format!("the database {path} cannot be opened: no file descriptor is free");
        Error::new(Status::Store, message).with_help(help)
    }

    fn locked_out(&self, error: Error, deadline: &Deadline) -> Error {
        if error.status() != Status::Timeout {
            return error;
        }
        let message = format!(
            "another program holds the write lock of the database {} for longer than the deadline \
             of {} ms",
            self.paths.database.display(),
            deadline.total().as_millis()
        );
        Error::new(Status::Timeout, message)
            .with_help("end the other program's transaction, then try again")
    }

    fn failure(&self, error: &rusqlite::Error) -> AttemptError {
        if matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure)
        ) && let Some(help) = exhaustion::no_descriptor()
        {
            return AttemptError::Failed(self.no_descriptor(help));
        }
        let mut retryable = true;
        let help = match error.sqlite_error_code() {
            // `FileLockingProtocolFailed`: SQLite gave up after 100 attempts to get a lock.
            Some(ErrorCode::DatabaseBusy | ErrorCode::FileLockingProtocolFailed) => {
                return AttemptError::Busy;
            }
            _ if is_disk_full(error) => return AttemptError::Full(self.disk_full()),
            // SQLite does not say why it could not create a file.
            Some(ErrorCode::CannotOpen) if free_space(&self.paths.database) == 0 => {
                return AttemptError::Failed(self.disk_full());
            }
            Some(ErrorCode::OutOfMemory) => exhaustion::MEMORY,
            Some(ErrorCode::DatabaseLocked) => "another program holds the database; try again",
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                retryable = false;
                "check the permissions of the file and its folder"
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                retryable = false;
                "stop all processes, copy the file with its -wal and -shm, and export the tokens \
                 (`ghl-oauth export`, ghl_tokens_export), which often still works. Only then \
                 remove the three files, restore a backup if there is one, and import the export. \
                 Companies whose tokens are then missing or rejected must consent again"
            }
            // The statements are constant, so another program made the tables.
            _ if is_sql_error(error) => {
                retryable = false;
                "set store.path to a file of its own: another program uses this database"
            }
            _ => "check the disk and the file, then try again",
        };
        let path = self.paths.database.display();
        let message = match error {
            // Without the text of the statement.
            rusqlite::Error::SqlInputError { msg, .. } => {
                format!("the database {path} failed: {msg}")
            }
            error => format!("the database {path} failed: {error}"),
        };
        AttemptError::Failed(
            Error::new(Status::Store, message).with_help(help).with_retryable(retryable),
        )
    }
}

impl WriteAccess<'_> {
    /// Like [`Database::write`], with access already taken. `work` calls
    /// [`Database::sync_commits`] first.
    pub fn write<T>(
        &self,
        deadline: &Deadline,
        work: impl FnMut(&Connection, bool) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.database.work(&self.database.slots.writer, deadline, true, work)
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
            Refusal::NoDescriptor => AttemptError::NoDescriptor,
        }
    }
}

impl Handle {
    /// Checkpoints early if the disk is almost full. If the database has grown, its new pages must
    /// be written while there is space: otherwise a checkpoint would fail, and the WAL could never
    /// be reset.
    fn checkpoint_if_disk_is_low(&self) {
        let free = free_space(&self.paths.database);
        if free < VERY_LOW_DISK_SPACE || free < LOW_DISK_SPACE && self.has_grown() {
            checkpoint(&self.connection);
        }
    }

    /// Whether the database has pages that exist only in the WAL.
    fn has_grown(&self) -> bool {
        let number =
            |pragma| self.connection.query_row(pragma, [], |row| row.get::<_, i64>(0)).ok();
        let size = || Some(number("PRAGMA page_count")? * number("PRAGMA page_size")?);
        let in_file = fs::metadata(&self.paths.database).map_or(0, |metadata| metadata.len());
        size().is_some_and(|size| size > in_file.cast_signed())
    }

    /// Whether the open files are still the files at the paths.
    fn is_current(&self) -> bool {
        // Other systems do not let a program remove or replace an open file.
        cfg!(not(unix)) || self.paths.files().is_ok_and(|files| files == self.files)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Another SQLite may still use the files after this process's locks were dropped.
        if !self.is_current() || !self.share.is_intact() {
            leave_files_alone(&self.connection);
        }
        self.share.before_closing();
    }
}

#[cfg(not(windows))]
fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, flags)
}

/// Paths may be longer than 260 characters, for which SQLite needs another form of the path and
/// another VFS.
#[cfg(windows)]
fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let path = crate::windows::verbatim(path);
    Connection::open_with_flags_and_vfs(path, flags, "win32-longpath")
}

/// Prevents the checkpoint when a connection is closed: the last connection would write its WAL,
/// which may not be the one at the path, to the database, and remove the WAL that others may be
/// using.
fn leave_files_alone(connection: &Connection) {
    let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

impl databases::Handles for Slots {
    fn close(&self) {
        for slot in [&self.reader, &self.writer] {
            *slot.handle() = None;
        }
        self.writer_lock.close();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        databases::unregister(&self.handles());
    }
}

/// Runs a PASSIVE checkpoint, which does not wait. Returns where the next transaction begins in the
/// WAL, in bytes: at 0 if all of it was written to the database.
fn checkpoint(connection: &Connection) -> u64 {
    let end = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (frames, written): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(if frames == written { 0 } else { frames.unsigned_abs() * WAL_FRAME })
    });
    end.unwrap_or(u64::MAX)
}

/// Reserves `bytes` after the end of the WAL, without changing its length. Returns whether the disk
/// has them. Linux only: elsewhere, rustix would lengthen the file or has no such function.
#[cfg(target_os = "linux")]
fn has_room(paths: &Paths, bytes: u64) -> bool {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    // SQLite has no POSIX locks on the WAL that closing the file could drop.
    let wal = fs::OpenOptions::new().write(true).open(&paths.wal).and_then(above_stdio);
    let Ok(wal) = wal else { return false };
    let reserved = fallocate(wal, FallocateFlags::KEEP_SIZE, paths.wal_length(), bytes);
    !matches!(reserved, Err(Errno::NOSPC | Errno::DQUOT | Errno::IO))
}

/// Cannot be reserved: the save itself shows whether the disk has them.
#[cfg(not(target_os = "linux"))]
fn has_room(_: &Paths, _: u64) -> bool {
    true
}

/// Free space on the disk of a file, in bytes.
#[cfg(unix)]
fn free_space(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Unknown; a failed write shows that the disk is full.
#[cfg(not(unix))]
fn free_space(_: &Path) -> u64 {
    u64::MAX
}

/// Whether a write failed for lack of space. SQLite reports `DiskFull` only for ENOSPC on a write;
/// an exceeded quota, and a failure to extend the `-shm` file, are I/O errors.
fn is_disk_full(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE};
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || matches!(extended, Some(SQLITE_IOERR_WRITE | SQLITE_IOERR_SHMSIZE))
}

/// The pause before the next attempt: exponential backoff with jitter.
fn pause(tries: u32) -> Duration {
    let microseconds = u64::try_from(longest_pause(tries).as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random::up_to(microseconds))
}

fn longest_pause(tries: u32) -> Duration {
    MAX_PAUSE.min(Duration::from_micros(100) * (1 << tries.min(5)))
}

/// `SQLITE_ERROR`: a statement that does not fit the tables.
fn is_sql_error(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => {
            error.extended_code & 0xff == 1
        }
        _ => false,
    }
}

/// Creates the file for one user only. SQLite creates its side files with the same mode and owner.
fn create_file(path: &Path) -> Result<()> {
    // Closing any descriptor of a file drops this process's SQLite locks on it. An existing file is
    // therefore not opened, and no other thread uses the database meanwhile.
    let exclusive = databases::exclusive();
    let created = user_only::create_file(path).map(drop);
    drop(exclusive);
    match created {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => {
            let message = format!("the database {} cannot be created: {error}", path.display());
            let help = "check store.path and the permissions of its folder";
            Err(Error::of_file(Status::Store, message, &error, help).with_parameter("store.path"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit of Windows for paths in their usual form. Not through `locate`, which Wine limits
    /// as well.
    #[test]
    fn path_of_more_than_260_characters_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("Schlüssel, токены, 令牌/".repeat(12));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("tokens.db");
        // SQLite's own limit on Unix is 512 bytes.
        assert!(path.to_str().unwrap().chars().count() > 270 && path.as_os_str().len() < 500);
        let locks = deep.join("tokens.db.locks");
        let deadline = Deadline::after(Duration::from_secs(60), &Arc::default());
        for may_create in [true, false] {
            let database = Database::open(path.clone(), &locks, may_create, &deadline).unwrap();
            let version = |connection: &Connection| {
                connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
            };
            assert!(database.read(&deadline, version).unwrap() > 0);
            assert!(deep.join("tokens.db-wal").exists() && locks.join("writer").exists());
        }
    }

    #[test]
    fn backoff_for_a_foreign_lock_grows_to_three_milliseconds() {
        let longest: Vec<Duration> = (0..1000).map(longest_pause).collect();
        assert!(longest.is_sorted());
        assert_eq!(
            (longest[0], longest[999]),
            (Duration::from_micros(100), Duration::from_millis(3))
        );
    }

    /// On macOS, `fsync` leaves data in the disk's cache, and SQLite's default is not to flush it.
    /// The setting can be read on every system.
    #[test]
    fn commits_and_checkpoints_sync_the_disk_cache_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("tokens.db");
        let deadline = Deadline::after(Duration::from_secs(60), &Arc::default());
        let database = Database::open(path, &folder.path().join("locks"), true, &deadline).unwrap();
        for pragma in ["fullfsync", "checkpoint_fullfsync"] {
            let query = format!("PRAGMA {pragma}");
            let set = |connection: &Connection| {
                connection.query_row(&query, [], |row| row.get::<_, bool>(0))
            };
            assert!(database.read(&deadline, set).unwrap(), "{pragma} of the reader");
            let write = database.write(&deadline, |connection, _| set(connection));
            assert!(write.unwrap(), "{pragma} of the writer");
        }
    }
}
