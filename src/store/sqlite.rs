//! Tokens in an SQLite database: the durable store for one machine, shared by any number of its processes.
//!
//! WAL with `synchronous = FULL`: a save that was answered survives a crash and a power cut, for the price of one
//! fsync. Ids of several apps stand side by side, told apart by their client id.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params,
};
use zeroize::Zeroizing;

use super::file_lock::LockFolder;
use super::{Lock, Note, NotePage, Page, Query, Record, Store};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::process;
use crate::token::UserType;

/// How long a write waits for another process's write. Each takes milliseconds.
const BUSY: Duration = Duration::from_secs(10);

/// What brings a database from version N to N + 1, in order. Only ever added to.
const MIGRATIONS: [&str; 2] = [
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
];

const INSERT: &str = "
    INSERT INTO token (client_id, resource_id, version, user_type, company_id, renew_at, document)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";

/// The usual save: whose token it is does not change. SQLite writes an index again when a statement names its column,
/// so naming fewer saves a page of every fsync.
const RENEW: &str = "
    UPDATE token SET version = ?3, renew_at = ?6, document = ?7
    WHERE client_id = ?1 AND resource_id = ?2 AND version = ?3 - 1 AND user_type = ?4 AND company_id IS ?5";

const REPLACE: &str = "
    UPDATE token SET version = ?3, user_type = ?4, company_id = ?5, renew_at = ?6, document = ?7
    WHERE client_id = ?1 AND resource_id = ?2 AND version = ?3 - 1";

/// A store in a database file.
pub struct SqliteStore {
    database: Arc<Database>,
    locks: LockFolder,
    client_id: String,
}

/// The file, and the handles to it while there are any: they are closed before a fork.
struct Database {
    path: PathBuf,
    writer: Mutex<Option<Connection>>,
    /// A handle of its own, so that nobody who reads waits for another's fsync.
    reader: Mutex<Option<Connection>>,
}

impl SqliteStore {
    /// Opens the database, makes it if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// `STORE` when it cannot be opened, or was written by a newer version of the library.
    pub fn open(path: &Path, client_id: &str) -> Result<SqliteStore> {
        own_file(path)?;
        let (writer, reader) = (Mutex::default(), Mutex::default());
        let database = Arc::new(Database { path: path.to_owned(), writer, reader });
        process::enter_database(Arc::<Database>::downgrade(&database));
        database.write(|_| Ok(()))?;

        let mut locks = path.as_os_str().to_owned();
        locks.push(".locks");
        let locks = LockFolder::new(locks.into(), client_id)?;
        Ok(SqliteStore { database, locks, client_id: client_id.to_owned() })
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
    connection.busy_timeout(BUSY).map_err(failed)?;
    // `secure_delete`: a token that was replaced is overwritten in the file.
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;")
        .map_err(failed)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

impl SqliteStore {
    /// Writes a record, unless the stored version is another one than it was made from.
    fn put(&self, connection: &Connection, record: &Record, document: &[u8]) -> rusqlite::Result<bool> {
        let statements: &[&str] = if record.version == 0 { &[INSERT] } else { &[RENEW, REPLACE] };
        for statement in statements {
            let changed = connection.prepare_cached(statement)?.execute(params![
                self.client_id,
                record.resource_id,
                (record.version + 1).cast_signed(),
                record.token.kind().name(),
                record.token.company_id,
                record.renew_at,
                document,
            ])?;
            if changed == 1 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Store for SqliteStore {
    fn load(&self, resource_id: &str) -> Result<Option<Record>> {
        let select =
            "SELECT resource_id, version, document FROM token WHERE client_id = ?1 AND resource_id = ?2";
        let found = self.database.read(|connection| {
            let mut select = connection.prepare_cached(select)?;
            select.query_row(params![self.client_id, resource_id], StoredRow::read).optional()
        });
        found.map_err(|error| error.with_resource(resource_id))?.map(StoredRow::into_record).transpose()
    }

    fn save(&self, record: &Record) -> Result<u64> {
        let document = record.to_document()?;
        let saved = self.database.write(|connection| self.put(connection, record, &document));
        let saved = saved.map_err(|error| error.with_resource(&record.resource_id))?;
        if saved { Ok(record.version + 1) } else { Err(super::changed_meanwhile(&record.resource_id)) }
    }

    fn save_all(&self, records: &[Record]) -> Vec<Result<u64>> {
        let all_saved = || {
            let documents = records.iter().map(Record::to_document).collect::<Result<Vec<_>>>()?;
            self.database.write(|connection| {
                let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
                let pairs = records.iter().zip(&documents);
                let saved = pairs.map(|(record, document)| self.put(connection, record, document));
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
            let removed = connection.prepare_cached(delete)?.execute(params![self.client_id, resource_id])?;
            // The token still stands in older pages of the WAL. Where somebody reads right now, they stay for a while:
            // until the WAL is next written back, or the last handle is closed.
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            Ok(removed)
        });
        Ok(removed.map_err(|error| error.with_resource(resource_id))? > 0)
    }

    fn list(&self, query: &Query) -> Result<Page> {
        let mut conditions = String::new();
        let mut values: Vec<&dyn rusqlite::ToSql> = vec![&self.client_id];
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
            only("user_type =", user_type);
        }
        if let Some(renew_by) = &query.renew_by {
            only("renew_at <=", renew_by);
        }
        // One more than asked for tells whether there is a next page.
        let limit = query.limit + 1;
        let statement = format!(
            "SELECT resource_id, version, document FROM token WHERE client_id = ?1{conditions} \
             ORDER BY resource_id LIMIT {limit}"
        );
        let rows = self.database.read(|connection| {
            let mut select = connection.prepare_cached(&statement)?;
            select.query_map(&values[..], StoredRow::read)?.collect::<Result<Vec<_>, _>>()
        })?;
        let records = rows.into_iter().map(StoredRow::into_record).collect::<Result<Vec<_>>>()?;
        Ok(Page::cut(records, query.limit))
    }

    fn next_renewal(&self, company_id: Option<&str>) -> Result<Option<i64>> {
        let select =
            "SELECT MIN(renew_at) FROM token WHERE client_id = ?1 AND (?2 IS NULL OR company_id = ?2)";
        self.database.read(|connection| {
            connection
                .prepare_cached(select)?
                .query_row(params![self.client_id, company_id], |row| row.get(0))
        })
    }

    fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>> {
        self.locks.lock(resource_id, deadline)
    }

    fn note(&self, key: &str) -> Result<Option<Note>> {
        let select =
            "SELECT key, version, list, expires_at, document FROM note WHERE client_id = ?1 AND key = ?2";
        self.database.read(|connection| {
            connection.prepare_cached(select)?.query_row(params![self.client_id, key], read_note).optional()
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
                self.client_id,
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
                .query_map(params![self.client_id, list, after, rows], read_note)?
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok(NotePage::cut(notes, limit))
    }

    fn prune_notes(&self, now_ms: i64) -> Result<()> {
        let delete = "DELETE FROM note WHERE client_id = ?1 AND expires_at <= ?2";
        self.database.write(|connection| {
            connection.prepare_cached(delete)?.execute(params![self.client_id, now_ms])
        })?;
        Ok(())
    }
}

/// A note of which the document cannot be read says nothing, as one that was never written.
fn read_note(row: &Row) -> rusqlite::Result<Note> {
    let document: String = row.get(4)?;
    Ok(Note {
        key: row.get(0)?,
        version: row.get::<_, i64>(1)?.cast_unsigned(),
        list: row.get(2)?,
        expires_at: row.get(3)?,
        document: serde_json::from_str(&document).unwrap_or_default(),
    })
}

/// A row as it is stored.
struct StoredRow {
    resource_id: String,
    version: i64,
    document: Zeroizing<Vec<u8>>,
}

impl StoredRow {
    fn read(row: &Row) -> rusqlite::Result<StoredRow> {
        Ok(StoredRow {
            resource_id: row.get(0)?,
            version: row.get(1)?,
            document: Zeroizing::new(row.get(2)?),
        })
    }

    fn into_record(self) -> Result<Record> {
        Record::from_document(self.resource_id, self.version.cast_unsigned(), &self.document)
    }
}

/// Makes the file for this user only; SQLite gives its side files the same mode.
fn own_file(path: &Path) -> Result<()> {
    // A file that is there is left unopened, and nobody else uses it while it is made: closing any descriptor of a
    // file takes this process's SQLite locks on it away.
    let alone = process::alone_with_databases();
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
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
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(path)
        && std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
    {
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
