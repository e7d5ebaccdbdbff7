//! Tokens in an SQLite database: the durable store for one machine, shared by any number of its processes.
//!
//! WAL with `synchronous = FULL`: a save that was answered survives a crash and a power cut, for the price of one
//! fsync, which saves of several threads share where they meet. Ids of several apps stand side by side, told apart by
//! their client id.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use zeroize::Zeroizing;

use super::file_lock::LockFolder;
use super::row::{Resealing, Row, StoredRow};
use super::{DuePage, Lock, Note, NotePage, Page, Query, Record, Resealed, Seal, Store, user_only};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::process;
use crate::random;
use crate::token::UserType;

/// How long a write waits for another process's write. Each takes milliseconds.
const BUSY: Duration = Duration::from_secs(10);

/// The longest pause before it looks again. SQLite's own handler would soon look ten times a second only, and a writer
/// among many be passed over for seconds.
const LONGEST_PAUSE: Duration = Duration::from_millis(3);

/// What brings a database from version N to N + 1, in order. Only ever added to.
const MIGRATIONS: [&str; 3] = [
    "
    CREATE TABLE token (
        client_id   TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        version     INTEGER NOT NULL,
        user_type   TEXT NOT NULL,
        company_id  TEXT,
        renew_at    INTEGER NOT NULL,
        document    BLOB NOT NULL,
        PRIMARY KEY (client_id, resource_id)
    ) STRICT;
    CREATE INDEX token_by_company ON token (client_id, company_id, resource_id);
    CREATE INDEX token_by_renewal ON token (client_id, renew_at);
",
    "
    CREATE TABLE note (
        client_id  TEXT NOT NULL,
        key        TEXT NOT NULL,
        version    INTEGER NOT NULL,
        list       TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        document   TEXT NOT NULL,
        PRIMARY KEY (client_id, key)
    ) STRICT;
    CREATE INDEX note_by_list ON note (client_id, list, key);
    CREATE INDEX note_by_expiry ON note (client_id, expires_at);
",
    "
    ALTER TABLE token ADD COLUMN sealed_with TEXT NOT NULL DEFAULT '';
    CREATE INDEX token_by_key ON token (client_id, sealed_with, resource_id);
    CREATE INDEX token_by_type ON token (client_id, user_type, resource_id);
    DROP INDEX token_by_renewal;
    CREATE INDEX token_by_renewal ON token (client_id, renew_at, resource_id);
",
];

/// How many records are sealed anew in one transaction.
const RESEALED_AT_ONCE: usize = 100;

const INSERT: &str = "
    INSERT INTO token (client_id, resource_id, version, user_type, company_id, renew_at, sealed_with, document)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";

/// The usual save: whose token it is does not change, nor the key that seals it. SQLite writes an index again when a statement names its column,
/// so naming fewer saves a page of every fsync.
const RENEW: &str = "
    UPDATE token SET version = ?3, renew_at = ?6, document = ?8
    WHERE client_id = ?1 AND resource_id = ?2 AND version = ?3 - 1
      AND user_type = ?4 AND company_id IS ?5 AND sealed_with = ?7";

const REPLACE: &str = "
    UPDATE token SET version = ?3, user_type = ?4, company_id = ?5, renew_at = ?6, sealed_with = ?7, document = ?8
    WHERE client_id = ?1 AND resource_id = ?2 AND version = ?3 - 1";

/// A store in a database file.
pub struct SqliteStore {
    database: Arc<Database>,
    locks: LockFolder,
    seal: Seal,
    /// The saves that wait for the handle, for whoever has it next to take along.
    waiting: Mutex<Vec<Arc<Saving>>>,
}

/// A row on its way into the database.
struct Saving {
    row: Row,
    /// Whether it was written, or another version stood there; once it is on the disk.
    saved: OnceLock<bool>,
}

/// The file, and the handles to it while there are any: they are closed before a fork.
struct Database {
    path: PathBuf,
    writer: Mutex<Option<Connection>>,
    /// A handle of its own, so that nobody who reads waits for another's fsync.
    reader: Mutex<Option<Connection>>,
}

impl SqliteStore {
    /// Opens the database, makes it if it is not there, and brings its schema up to date. Records are those of the app
    /// whose `seal` it is.
    ///
    /// # Errors
    /// `STORE` when it cannot be opened, or was written by a newer version of the library.
    pub fn open(path: &Path, seal: Seal) -> Result<SqliteStore> {
        own_file(path)?;
        let (writer, reader) = (Mutex::default(), Mutex::default());
        let database = Arc::new(Database { path: path.to_owned(), writer, reader });
        process::enter_database(Arc::<Database>::downgrade(&database));
        database.write(|_| Ok(()))?;

        let mut locks = path.as_os_str().to_owned();
        locks.push(".locks");
        let locks = LockFolder::new(locks.into(), seal.client_id())?;
        let store = SqliteStore { database, locks, seal, waiting: Mutex::default() };
        store.seal.fits(&store.key_ids()?)?;
        Ok(store)
    }
}

impl Database {
    fn write<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.with(&self.writer, work)
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.with(&self.reader, work)
    }

    /// Works with a handle, which is opened if need be.
    fn with<T>(
        &self,
        place: &Mutex<Option<Connection>>,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let _using = process::using_database();
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match place.take() {
            Some(connection) => connection,
            None => open(&self.path)?,
        };
        work(place.insert(connection)).map_err(|error| failed(&self.path, &error))
    }
}

impl process::Database for Database {
    fn close(&self) {
        for place in [&self.reader, &self.writer] {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        for place in [&mut self.reader, &mut self.writer] {
            // Closing uses SQLite's own locks: a fork must not come between. After `close` there is nothing to do, and
            // the fork that called it must not be waited for.
            if let Some(connection) = place.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
                let _using = process::using_database();
                drop(connection);
            }
        }
    }
}

/// A handle to a database that is up to date.
fn open(path: &Path) -> Result<Connection> {
    let failed = |error: rusqlite::Error| failed(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_handler(Some(wait_for_the_writer)).map_err(failed)?;
    // `secure_delete`: a token that was replaced is overwritten in the file.
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;")
        .map_err(failed)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

thread_local! {
    /// Since when this thread has been waiting for another process's write.
    static WAITING_SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Called by SQLite when another process writes, with how often it was called before: answers whether to try again.
fn wait_for_the_writer(tries: i32) -> bool {
    let now = Instant::now();
    if tries == 0 {
        WAITING_SINCE.set(Some(now));
    }
    let since = WAITING_SINCE.get().unwrap_or(now);
    if now - since >= BUSY {
        return false;
    }
    // Of random length, so that no two processes keep step.
    let microseconds = u64::try_from(longest_pause(tries).as_micros()).unwrap_or(u64::MAX);
    thread::sleep(Duration::from_micros(random::up_to(microseconds)));
    true
}

fn longest_pause(tries: i32) -> Duration {
    LONGEST_PAUSE.min(Duration::from_micros(100) * (1 << tries.clamp(0, 5)))
}

impl SqliteStore {
    /// Writes a row, unless the stored version is another one than it was made from.
    fn put(&self, connection: &Connection, row: &Row) -> rusqlite::Result<bool> {
        let statements: &[&str] = if row.version == 1 { &[INSERT] } else { &[RENEW, REPLACE] };
        for statement in statements {
            let changed = connection.prepare_cached(statement)?.execute(params![
                self.seal.client_id(),
                row.resource_id,
                row.version.cast_signed(),
                row.user_type.name(),
                row.company_id,
                row.renew_at,
                row.sealed_with,
                &row.document[..],
            ])?;
            if changed == 1 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a row, and with it those that other threads wait to write: one fsync for all of them.
    fn put_with_others(&self, connection: &Connection, own: &Saving) -> rusqlite::Result<bool> {
        // Whoever had the handle before may have taken this row along.
        if let Some(saved) = own.saved.get() {
            return Ok(*saved);
        }
        let all = std::mem::take(&mut *self.waiting());
        if all.len() > 1 {
            match self.put_all(connection, &all) {
                // Another process writes, and has been waited for long enough.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                    return Err(error);
                }
                // None was written: then each has an attempt of its own, so that one row fails no other.
                Err(_) => {}
                Ok(()) => {
                    if let Some(saved) = own.saved.get() {
                        return Ok(*saved);
                    }
                }
            }
        }
        self.put(connection, &own.row)
    }

    /// Writes many rows, or none where one cannot be written.
    fn put_all(&self, connection: &Connection, all: &[Arc<Saving>]) -> rusqlite::Result<()> {
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let saved = all.iter().map(|saving| self.put(connection, &saving.row));
        let saved = saved.collect::<rusqlite::Result<Vec<bool>>>()?;
        transaction.commit()?;
        for (saving, saved) in all.iter().zip(saved) {
            let _ = saving.saved.set(saved);
        }
        Ok(())
    }

    /// Takes a row back; whether it still waited.
    fn withdraw(&self, own: &Arc<Saving>) -> bool {
        let mut waiting = self.waiting();
        let before = waiting.len();
        waiting.retain(|other| !Arc::ptr_eq(other, own));
        waiting.len() < before
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<Saving>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of the keys that records are sealed with; an empty one for those in clear.
    fn key_ids(&self) -> Result<Vec<String>> {
        // From one to the next by the index, since there are few of them and many records.
        let least = "SELECT MIN(sealed_with) FROM token WHERE client_id = ?1";
        let next = "SELECT MIN(sealed_with) FROM token WHERE client_id = ?1 AND sealed_with > ?2";
        let mut key_ids: Vec<String> = Vec::new();
        self.database.read(|connection| {
            let (mut least, mut next) = (connection.prepare_cached(least)?, connection.prepare_cached(next)?);
            let client_id = self.seal.client_id();
            let mut found: Option<String> = least.query_row([client_id], |row| row.get(0))?;
            while let Some(key_id) = found {
                found = next.query_row([client_id, &key_id], |row| row.get(0))?;
                key_ids.push(key_id);
            }
            Ok(())
        })?;
        Ok(key_ids)
    }

    fn reseal_all(&self, resealed: &mut Resealed, go_on: &dyn Fn(u64) -> bool) -> Result<()> {
        let (client_id, first) = (self.seal.client_id(), self.seal.key_id());
        let others = self.key_ids()?.into_iter().filter(|key_id| *key_id != first && !first.is_empty());
        for key_id in others {
            if !self.seal.opens(&key_id) {
                let count = "SELECT COUNT(*) FROM token WHERE client_id = ?1 AND sealed_with = ?2";
                resealed.left += self.database.read(|connection| {
                    connection
                        .prepare_cached(count)?
                        .query_row(params![client_id, key_id], |row| row.get::<_, i64>(0))
                })? as u64;
                resealed.fail(self.seal.not_given(&key_id));
                continue;
            }
            let select = format!(
                "SELECT resource_id, version, document FROM token
                 WHERE client_id = ?1 AND sealed_with = ?2 AND resource_id > ?3
                 ORDER BY resource_id LIMIT {RESEALED_AT_ONCE}"
            );
            let mut after = String::new();
            while go_on(resealed.sealed) {
                let page: Vec<StoredRow> = self.database.read(|connection| {
                    let mut select = connection.prepare_cached(&select)?;
                    select.query_map(params![client_id, key_id, after], read_row)?.collect()
                })?;
                let Some(last) = page.last() else { break };
                after = last.resource_id.clone();
                self.seal.reseal(page, resealed, |rows| self.put_again(rows))?;
            }
        }
        Ok(())
    }

    /// Writes the rows that are still what they were; answers how many those are.
    fn put_again(&self, rows: &[Resealing]) -> Result<u64> {
        let update = "UPDATE token SET sealed_with = ?4, document = ?5
                      WHERE client_id = ?1 AND resource_id = ?2 AND version = ?3 AND document = ?6";
        self.database.write(|connection| {
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let mut written = 0;
            for Resealing { row, was } in rows {
                written += connection.prepare_cached(update)?.execute(params![
                    self.seal.client_id(),
                    row.resource_id,
                    row.version.cast_signed(),
                    row.sealed_with,
                    &row.document[..],
                    &was[..],
                ])? as u64;
            }
            transaction.commit()?;
            Ok(written)
        })
    }
}

impl Store for SqliteStore {
    fn load(&self, resource_id: &str) -> Result<Option<Record>> {
        let select =
            "SELECT resource_id, version, document FROM token WHERE client_id = ?1 AND resource_id = ?2";
        let found = self.database.read(|connection| {
            let mut select = connection.prepare_cached(select)?;
            select.query_row(params![self.seal.client_id(), resource_id], read_row).optional()
        });
        let found = found.map_err(|error| error.with_resource(resource_id))?;
        found.map(|stored| self.seal.record(stored)).transpose()
    }

    fn save(&self, record: &Record) -> Result<u64> {
        let own = Arc::new(Saving { row: self.seal.row(record)?, saved: OnceLock::new() });
        self.waiting().push(Arc::clone(&own));
        let mut had_its_turn = false;
        let mut saved = self.database.write(|connection| {
            had_its_turn = true;
            self.put_with_others(connection, &own)
        });
        if !had_its_turn && !self.withdraw(&own) {
            // There was no handle; somebody who got one took the row along.
            saved = self.database.write(|connection| self.put_with_others(connection, &own));
        }
        let saved = saved.map_err(|error| error.with_resource(&record.resource_id))?;
        if saved { Ok(record.version + 1) } else { Err(super::changed_meanwhile(&record.resource_id)) }
    }

    fn save_all(&self, records: &[Record]) -> Vec<Result<u64>> {
        let all_saved = || {
            let rows = records.iter().map(|record| self.seal.row(record)).collect::<Result<Vec<_>>>()?;
            self.database.write(|connection| {
                let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
                let saved = rows.iter().map(|row| self.put(connection, row));
                let saved = saved.collect::<rusqlite::Result<Vec<bool>>>()?;
                transaction.commit()?;
                Ok(saved)
            })
        };
        let named = |error: &Error, record: &Record| Err(error.clone().with_resource(&record.resource_id));
        match all_saved() {
            Ok(saved) => {
                let outcome = |(record, saved): (&Record, bool)| match saved {
                    true => Ok(record.version + 1),
                    false => Err(super::changed_meanwhile(&record.resource_id)),
                };
                records.iter().zip(saved).map(outcome).collect()
            }
            Err(error) => records.iter().map(|record| named(&error, record)).collect(),
        }
    }

    fn remove(&self, resource_id: &str) -> Result<bool> {
        let delete = "DELETE FROM token WHERE client_id = ?1 AND resource_id = ?2";
        let removed = self.database.write(|connection| {
            let removed =
                connection.prepare_cached(delete)?.execute(params![self.seal.client_id(), resource_id])?;
            empty_wal(connection);
            Ok(removed)
        });
        Ok(removed.map_err(|error| error.with_resource(resource_id))? > 0)
    }

    fn list(&self, query: &Query) -> Result<Page> {
        let mut conditions = String::new();
        let client_id = self.seal.client_id();
        let mut values: Vec<&dyn rusqlite::ToSql> = vec![&client_id];
        let user_type = query.user_type.map(UserType::name);
        let mut only = |condition: &str, value| {
            values.push(value);
            conditions += &format!(" AND {condition} ?{}", values.len());
        };
        if let Some(after) = &query.after {
            only("resource_id >", after);
        }
        if let Some(company_id) = &query.company_id {
            only("company_id =", company_id);
        }
        if let Some(user_type) = &user_type {
            // A company's records are few: its own index is the better one.
            only(if query.company_id.is_some() { "+user_type =" } else { "user_type =" }, user_type);
        }
        // One more than asked for tells whether there is a next page.
        let limit = query.limit + 1;
        let statement = format!(
            "SELECT resource_id, version, document FROM token WHERE client_id = ?1{conditions} \
             ORDER BY resource_id LIMIT {limit}"
        );
        let rows = self.database.read(|connection| {
            let mut select = connection.prepare_cached(&statement)?;
            select.query_map(&values[..], read_row)?.collect::<Result<Vec<_>, _>>()
        })?;
        let records = rows.into_iter().map(|stored| self.seal.record(stored)).collect::<Result<Vec<_>>>()?;
        Ok(Page::cut(records, query.limit))
    }

    fn due(
        &self,
        company_id: Option<&str>,
        renew_by: i64,
        after: Option<&str>,
        limit: usize,
    ) -> Result<DuePage> {
        // One statement for each question, since a condition that may not count keeps SQLite from using the index.
        let of_company = if company_id.is_some() { "AND company_id = ?6" } else { "AND ?6 IS NULL" };
        let select = format!(
            "SELECT renew_at, resource_id FROM token
             WHERE client_id = ?1 AND renew_at <= ?2 AND (renew_at, resource_id) > (?3, ?4) {of_company}
             ORDER BY renew_at, resource_id LIMIT ?5"
        );
        let (renew_at, id) = DuePage::place(after);
        let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let places = self.database.read(|connection| {
            connection
                .prepare_cached(&select)?
                .query_map(params![self.seal.client_id(), renew_by, renew_at, id, rows, company_id], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect()
        })?;
        Ok(DuePage::cut(places, limit))
    }

    fn next_renewal(&self, company_id: Option<&str>) -> Result<Option<i64>> {
        let of_company = if company_id.is_some() { "AND company_id = ?2" } else { "AND ?2 IS NULL" };
        let select = format!("SELECT MIN(renew_at) FROM token WHERE client_id = ?1 {of_company}");
        self.database.read(|connection| {
            connection
                .prepare_cached(&select)?
                .query_row(params![self.seal.client_id(), company_id], |row| row.get(0))
        })
    }

    fn reseal(&self, _: &Deadline, go_on: &dyn Fn(u64) -> bool) -> Result<Resealed> {
        let mut resealed = Resealed::default();
        let outcome = self.reseal_all(&mut resealed, go_on);
        if resealed.sealed > 0 {
            self.database.write(|connection| {
                empty_wal(connection);
                Ok(())
            })?;
        }
        outcome.map(|()| resealed)
    }

    fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>> {
        self.locks.lock(resource_id, deadline)
    }

    fn note(&self, key: &str) -> Result<Option<Note>> {
        let select =
            "SELECT key, version, list, expires_at, document FROM note WHERE client_id = ?1 AND key = ?2";
        self.database.read(|connection| {
            connection
                .prepare_cached(select)?
                .query_row(params![self.seal.client_id(), key], read_note)
                .optional()
        })
    }

    fn save_note(&self, note: &Note) -> Result<()> {
        let statement = if note.version == 0 {
            "INSERT INTO note (client_id, key, version, list, expires_at, document)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING"
        } else {
            "UPDATE note SET version = ?3, list = ?4, expires_at = ?5, document = ?6
             WHERE client_id = ?1 AND key = ?2 AND version = ?3 - 1"
        };
        let changed = self.database.write(|connection| {
            connection.prepare_cached(statement)?.execute(params![
                self.seal.client_id(),
                note.key,
                (note.version + 1).cast_signed(),
                note.list,
                note.expires_at,
                note.document.to_string(),
            ])
        })?;
        if changed == 1 { Ok(()) } else { Err(super::note_changed_meanwhile(&note.key)) }
    }

    fn notes(&self, list: &str, after: Option<&str>, limit: usize) -> Result<NotePage> {
        let select = "SELECT key, version, list, expires_at, document FROM note
                      WHERE client_id = ?1 AND list = ?2 AND key > ?3 ORDER BY key LIMIT ?4";
        // No key is empty, and one more than asked for tells whether there is a next page.
        let (after, rows) = (after.unwrap_or_default(), i64::try_from(limit + 1).unwrap_or(i64::MAX));
        let notes = self.database.read(|connection| {
            let mut select = connection.prepare_cached(select)?;
            select
                .query_map(params![self.seal.client_id(), list, after, rows], read_note)?
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok(NotePage::cut(notes, limit))
    }

    fn prune_notes(&self, now_ms: i64) -> Result<()> {
        let delete = "DELETE FROM note WHERE client_id = ?1 AND expires_at <= ?2";
        self.database.write(|connection| {
            connection.prepare_cached(delete)?.execute(params![self.seal.client_id(), now_ms])
        })?;
        Ok(())
    }
}

/// A note of which the document cannot be read says nothing, as one that was never written.
fn read_note(row: &rusqlite::Row) -> rusqlite::Result<Note> {
    let document: String = row.get(4)?;
    Ok(Note {
        key: row.get(0)?,
        version: row.get::<_, i64>(1)?.cast_unsigned(),
        list: row.get(2)?,
        expires_at: row.get(3)?,
        document: serde_json::from_str(&document).unwrap_or_default(),
    })
}

/// What was replaced or removed still stands in older pages of the WAL. Where somebody reads right now, they stay for a
/// while: until the WAL is next written back, or the last handle is closed.
fn empty_wal(connection: &Connection) {
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

fn read_row(row: &rusqlite::Row) -> rusqlite::Result<StoredRow> {
    Ok(StoredRow {
        resource_id: row.get(0)?,
        version: row.get::<_, i64>(1)?.cast_unsigned(),
        document: Zeroizing::new(row.get(2)?),
    })
}

/// Makes the file for this user only; SQLite gives its side files the same mode.
fn own_file(path: &Path) -> Result<()> {
    // A file that is there is left unopened, and nobody else uses it while it is made: closing any descriptor of a
    // file takes this process's SQLite locks on it away.
    let alone = process::alone_with_databases();
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    user_only::file(&mut options);
    let made = options.open(path).map(drop);
    drop(alone);
    match made {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            let message = format!("the database {} cannot be made: {error}", path.display());
            return Err(Error::new(Status::Store, message)
                .with_help("check store.path and the rights of its folder")
                .with_parameter("store.path"));
        }
    }
    if user_only::others_may_read(path) {
        log::warn!("others may read {}: its mode is the only protection of the tokens in it", path.display());
    }
    Ok(())
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let failed = |error: rusqlite::Error| failed(path, &error);
    let current =
        |connection: &Connection| connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let newest = MIGRATIONS.len() as i64;
    if current(connection).map_err(failed)? == newest {
        return Ok(());
    }
    // Several processes may start at once: the first brings it up to date, the others look again.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let version = current(&transaction).map_err(failed)?;
    let Some(missing) = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..)) else {
        let message =
            format!("the database {} was written by a newer version of this library", path.display());
        return Err(Error::new(Status::Store, message)
            .with_help("update the library")
            .with_parameter("store.path"));
    };
    for step in missing {
        transaction.execute_batch(step).map_err(failed)?;
    }
    transaction.pragma_update(None, "user_version", newest).map_err(failed)?;
    transaction.commit().map_err(failed)
}

fn failed(path: &Path, error: &rusqlite::Error) -> Error {
    let help = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room on the disk; new tokens are kept in memory until then",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds the database; try again"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "check the rights of the file and of its folder"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "restore the file from a backup, or consent again"
        }
        _ => "check the disk and the file, then try again",
    };
    Error::new(Status::Store, format!("the database {} failed: {error}", path.display())).with_help(help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    fn record(resource_id: &str, access_token: &str) -> Record {
        let token = Token {
            access_token: access_token.to_owned().into(),
            refresh_token: None,
            issued_at: None,
            expires_at: 1,
            user_type: Some(UserType::Company),
            company_id: Some(resource_id.into()),
            location_id: None,
            scope: None,
            fields: Default::default(),
        };
        Record::new(resource_id.into(), token)
    }

    /// How many transactions the WAL holds: the last frame of each tells the database's size.
    fn transactions(path: &Path) -> usize {
        let wal = std::fs::read(path.with_extension("db-wal")).unwrap();
        wal[32..].chunks(24 + 4096).filter(|frame| frame[4..8] != [0; 4]).count()
    }

    #[test]
    fn saves_that_wait_at_the_same_time_are_written_together_and_fail_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
        let ids: Vec<String> = (0..20).map(|number| format!("company{number}")).collect();
        // Saves all of them while somebody has the handle; answers what became of each.
        let save_at_once = |access_token: &str, version: u64| {
            thread::scope(|scope| {
                let mut saves = Vec::new();
                let hold = |_: &Connection| {
                    for id in &ids {
                        let mut record = record(id, access_token);
                        record.version = version;
                        let store = &store;
                        saves.push(scope.spawn(move || store.save(&record)));
                    }
                    while store.waiting().len() < ids.len() {
                        thread::yield_now();
                    }
                    Ok(())
                };
                store.database.write(hold).unwrap();
                saves.into_iter().map(|save| save.join().unwrap()).collect::<Vec<_>>()
            })
        };
        let before = transactions(&path);
        assert!(save_at_once("first", 0).into_iter().all(|saved| saved.unwrap() == 1));
        assert_eq!(transactions(&path) - before, 1);

        // One that somebody else changed, and one that the database refuses.
        let mut changed = record("company3", "theirs");
        changed.version = 1;
        store.save(&changed).unwrap();
        let refusal = "CREATE TRIGGER refusal BEFORE UPDATE ON token WHEN new.resource_id = 'company4'
                       BEGIN SELECT RAISE(ABORT, 'refused'); END";
        store.database.write(|connection| connection.execute_batch(refusal)).unwrap();
        for (id, saved) in ids.iter().zip(save_at_once("second", 1)) {
            let held = store.load(id).unwrap().unwrap().token.access_token.clone();
            let (outcome, token) = match id.as_str() {
                "company3" => (Err(Status::Conflict), "theirs"),
                "company4" => (Err(Status::Store), "first"),
                _ => (Ok(2), "second"),
            };
            assert_eq!((saved.map_err(|error| error.status()), held.expose()), (outcome, token), "{id}");
        }
        assert!(store.waiting().is_empty());
    }

    #[test]
    fn whoever_waits_looks_again_after_three_milliseconds_at_the_latest() {
        let longest: Vec<Duration> = (0..1000).map(longest_pause).collect();
        assert!(longest.is_sorted());
        assert_eq!((longest[0], longest[999]), (Duration::from_micros(100), Duration::from_millis(3)));
    }

    /// It counts its versions from the beginning, so only its document tells it from the one that was removed.
    #[test]
    fn a_record_that_came_back_while_it_was_sealed_anew_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let record = |access_token: &str| record("company", access_token);
        SqliteStore::open(&path, Seal::none("app-1")).unwrap().save(&record("removed")).unwrap();
        let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned().into();
        let store = SqliteStore::open(&path, Seal::new("app-1", &[key], false, "k").unwrap()).unwrap();
        let select = "SELECT resource_id, version, document FROM token";
        let page = store.database.read(|connection| connection.query_row(select, [], read_row)).unwrap();
        let mut resealed = Resealed::default();
        let put = |rows: &[Resealing]| {
            store.remove("company").unwrap();
            store.save(&record("granted anew")).unwrap();
            store.put_again(rows)
        };
        store.seal.reseal(vec![page], &mut resealed, put).unwrap();
        assert_eq!((resealed.sealed, resealed.left), (0, 1));
        assert_eq!(store.load("company").unwrap().unwrap().token.access_token.expose(), "granted anew");
    }
}
