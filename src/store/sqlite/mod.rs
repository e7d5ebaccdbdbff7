//! The token store in an SQLite database, for any number of processes on one machine.
//!
//! WAL mode with `synchronous = FULL`: a successful save survives a crash and a power failure, at
//! the cost of one fsync, which concurrent saves share (group commit). An intent is not synced. A
//! database may hold the records of several apps; the client ID is part of each key.

mod database;
mod group_commit;
mod identity;
mod region_lock;
mod schema;
mod timed_mutex;
mod writer_lock;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params,
};
use zeroize::Zeroizing;

use self::database::Database;
use self::group_commit::{CommitGroup, PendingRow};
pub use self::identity::locate;
use super::file_lock::LockFolder;
use super::note::deleted_version;
use super::row::{Resealing, Row, StoredRow};
use super::{
    DuePage, Lock, MAX_CLIENTS, Note, NotePage, OtherClient, Page, Query, Record, Resealed, Seal,
    Store, TOMBSTONE,
};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::token::UserType;

/// How long [`SqliteStore::open`] waits for other programs.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of records that one transaction reseals.
const RESEAL_BATCH: usize = 100;

/// Stands for a stored version that is not a positive integer, so that the record can be found,
/// deleted and replaced.
const DAMAGED: u64 = 1;

/// A first save.
const INSERT: &str = "
    INSERT INTO token (client_id, resource_id, version, user_type, company_id, renew_at,
        sealed_with, document)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";

/// The usual save, which changes neither the owner nor the key. Setting fewer indexed columns
/// writes one page less per save.
const RENEW: &str = "
    UPDATE token SET version = ?3, renew_at = ?6, document = ?8
    WHERE client_id = ?1 AND resource_id = ?2 AND version = ?3 - 1
      AND user_type = ?4 AND company_id IS ?5 AND sealed_with = ?7";

/// Any other save. A damaged version counts as [`DAMAGED`].
const REPLACE: &str = "
    UPDATE token SET version = ?3, user_type = ?4, company_id = ?5, renew_at = ?6,
        sealed_with = ?7, document = ?8
    WHERE client_id = ?1 AND resource_id = ?2 AND (version = ?3 - 1
      OR ?3 = 2 AND (typeof(version) <> 'integer' OR version <= 0))";

/// A store in a database file.
pub struct SqliteStore {
    database: Arc<Database>,
    locks: LockFolder,
    seal: Seal,
    group: CommitGroup,
}

impl SqliteStore {
    /// Opens the database for the records of the app that `seal` belongs to. Creates the database
    /// if it does not exist, and migrates its schema.
    pub fn open(path: &Path, seal: Seal) -> Result<SqliteStore> {
        SqliteStore::open_with_deadline(
            path,
            seal,
            true,
            &Deadline::after(OPEN_TIMEOUT, &Arc::default()),
        )
    }

    /// Like [`SqliteStore::open`], with a deadline. Creates the database only if `may_create`.
    pub fn open_with_deadline(
        path: &Path,
        seal: Seal,
        may_create: bool,
        deadline: &Deadline,
    ) -> Result<SqliteStore> {
        let path = locate(path)?;
        let mut locks = path.as_os_str().to_owned();
        locks.push(".locks");
        let locks = PathBuf::from(locks);
        let database = Database::open(path, &locks, may_create, deadline)?;
        let locks = LockFolder::new(locks, seal.client_id())?;
        let store = SqliteStore { database, locks, seal, group: CommitGroup::default() };
        store.seal.check_keys(&store.key_ids(deadline)?)?;
        Ok(store)
    }
}

impl SqliteStore {
    /// Writes a row by compare-and-swap on its version, inside a write transaction. A new row must
    /// continue from the version of its tombstone. If an earlier attempt `may_be_written`, an
    /// identical stored row counts as written.
    fn put(
        &self,
        connection: &Connection,
        row: &Row,
        may_be_written: bool,
    ) -> rusqlite::Result<bool> {
        let statements: &[&str] = match row.is_new {
            true if self.deleted_version(connection, &row.resource_id)? + 1 != row.version => &[],
            true => &[INSERT],
            false => &[RENEW, REPLACE],
        };
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
        Ok(may_be_written && self.is_stored(connection, row)?)
    }

    /// The version in a resource's tombstone; 0 without a tombstone, or if it is unreadable.
    fn deleted_version(&self, connection: &Connection, resource_id: &str) -> rusqlite::Result<u64> {
        let select = "SELECT document FROM note WHERE client_id = ?1 AND key = ?2";
        let key = format!("{TOMBSTONE}{resource_id}");
        let version = connection.prepare_cached(select)?.query_row(
            params![self.seal.client_id(), key],
            |row| {
                let document = row.get_ref(0)?.as_bytes().ok();
                let document = document.and_then(|bytes| serde_json::from_slice(bytes).ok());
                Ok(document.map_or(0, |document| deleted_version(&document)))
            },
        );
        Ok(version.optional()?.unwrap_or(0))
    }

    fn is_stored(&self, connection: &Connection, row: &Row) -> rusqlite::Result<bool> {
        let select = "SELECT 1 FROM token
                      WHERE client_id = ?1 AND resource_id = ?2 AND version = ?3 AND document = ?4";
        let values = params![
            self.seal.client_id(),
            row.resource_id,
            row.version.cast_signed(),
            &row.document[..]
        ];
        connection.prepare_cached(select)?.exists(values)
    }

    /// Writes rows in one transaction: all, or none if one fails.
    fn put_all<'a>(
        &self,
        connection: &Connection,
        rows: impl Iterator<Item = &'a Row>,
        may_be_written: bool,
    ) -> rusqlite::Result<Vec<bool>> {
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let saved = rows.map(|row| self.put(connection, row, may_be_written));
        let saved = saved.collect::<rusqlite::Result<Vec<bool>>>()?;
        transaction.commit()?;
        Ok(saved)
    }

    /// Saves a record; with `is_synced`, so that it survives a power failure.
    fn save_record(&self, record: &Record, is_synced: bool, deadline: &Deadline) -> Result<u64> {
        let own = self.group.enter(self.seal.row(record)?, is_synced);
        let saved = self.save_by_group_commit(&own, deadline);
        self.group.leave(&own);
        if saved.map_err(|error| error.with_resource(&record.resource_id))? {
            Ok(record.next_version())
        } else {
            Err(super::changed_meanwhile(&record.resource_id))
        }
    }

    /// Saves a row by group commit. Returns whether it was written.
    fn save_by_group_commit(&self, own: &Arc<PendingRow>, deadline: &Deadline) -> Result<bool> {
        let is_done = || own.saved.get().is_some();
        let access = self.database.lock_for_write(deadline, &is_done);
        let Some(access) = access.or_else(|error| if is_done() { Ok(None) } else { Err(error) })?
        else {
            return Ok(own.saved.get().is_some_and(|saved| *saved));
        };
        let mut batch: Vec<Arc<PendingRow>> = Vec::new();
        let written = access.write(deadline, |connection, may_be_written| {
            self.group.join(&mut batch);
            if !batch.iter().any(|pending| Arc::ptr_eq(pending, own)) {
                batch.push(Arc::clone(own));
            }
            let is_synced = batch.iter().any(|pending| pending.is_synced);
            self.database.sync_commits(connection, is_synced)?;
            if batch.len() > 1 {
                match self.put_all(
                    connection,
                    batch.iter().map(|pending| &pending.row),
                    may_be_written,
                ) {
                    Err(error) if is_busy(&error) => {
                        // Back to the queue, so that the other threads may give up before the next
                        // attempt.
                        self.group.give_back(&mut batch);
                        return Err(error);
                    }
                    Ok(saved) => return Ok(saved),
                    // Nothing was written. Each thread then writes its own row, so that one bad row
                    // does not fail the others.
                    Err(_) => batch = vec![Arc::clone(own)],
                }
            }
            if own.row.is_new {
                // The tombstone is compared and the row written in one transaction.
                return self.put_all(connection, std::iter::once(&own.row), may_be_written);
            }
            // A single statement is its own transaction.
            Ok(vec![self.put(connection, &own.row, may_be_written)?])
        })?;
        for (pending, saved) in batch.iter().zip(written) {
            let _ = pending.saved.set(saved);
        }
        // Releasing the access wakes up the other threads.
        drop(access);
        Ok(own.saved.get().is_some_and(|saved| *saved))
    }

    /// Writes a note by compare-and-swap on its version.
    fn put_note(
        &self,
        connection: &Connection,
        note: &Note,
        may_be_written: bool,
    ) -> rusqlite::Result<bool> {
        let statement = if note.version == 0 {
            "INSERT INTO note (client_id, key, version, list, expires_at, document)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING"
        } else {
            "UPDATE note SET version = ?3, list = ?4, expires_at = ?5, document = ?6
             WHERE client_id = ?1 AND key = ?2 AND version = ?3 - 1"
        };
        let (client_id, version, document) =
            (self.seal.client_id(), (note.version + 1).cast_signed(), note.document.to_string());
        let values = params![client_id, note.key, version, note.list, note.expires_at, document];
        if connection.prepare_cached(statement)?.execute(values)? == 1 {
            return Ok(true);
        }
        let select = "SELECT 1 FROM note WHERE client_id = ?1 AND key = ?2 AND version = ?3 AND \
                      document = ?4";
        let values = params![client_id, note.key, version, document];
        Ok(may_be_written && connection.prepare_cached(select)?.exists(values)?)
    }

    /// The IDs of the keys that records are sealed with; an empty ID stands for plain records.
    fn key_ids(&self, deadline: &Deadline) -> Result<Vec<String>> {
        // A loose index scan, since there are few keys and many records.
        let least = "SELECT MIN(sealed_with) FROM token WHERE client_id = ?1";
        let next = "SELECT MIN(sealed_with) FROM token WHERE client_id = ?1 AND sealed_with > ?2";
        let mut key_ids: Vec<String> = Vec::new();
        self.database.read(deadline, |connection| {
            key_ids.clear();
            let (mut least, mut next) =
                (connection.prepare_cached(least)?, connection.prepare_cached(next)?);
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

    fn reseal_all(
        &self,
        overall: &Deadline,
        resealed: &mut Resealed,
        should_continue: &dyn Fn(u64) -> bool,
    ) -> Result<()> {
        let step = || overall.renewed(overall.total());
        let (client_id, first) = (self.seal.client_id(), self.seal.key_id());
        let others = self
            .key_ids(&step())?
            .into_iter()
            .filter(|key_id| *key_id != first && !first.is_empty());
        for key_id in others {
            if !self.seal.can_open(&key_id) {
                let count = "SELECT COUNT(*) FROM token WHERE client_id = ?1 AND sealed_with = ?2";
                resealed.left += self.database.read(&step(), |connection| {
                    connection
                        .prepare_cached(count)?
                        .query_row(params![client_id, key_id], |row| row.get::<_, i64>(0))
                })? as u64;
                resealed.fail(self.seal.missing_key(&key_id));
                continue;
            }
            let select = format!(
                "SELECT resource_id, version, document FROM token
                 WHERE client_id = ?1 AND sealed_with = ?2 AND resource_id > ?3
                 ORDER BY resource_id LIMIT {RESEAL_BATCH}"
            );
            let mut after = String::new();
            while should_continue(resealed.sealed) {
                let page: Vec<StoredRow> = self.database.read(&step(), |connection| {
                    let mut select = connection.prepare_cached(&select)?;
                    select.query_map(params![client_id, key_id, after], read_row)?.collect()
                })?;
                let Some(last) = page.last() else { break };
                after = last.resource_id.clone();
                self.seal
                    .reseal(page, resealed, |rows| self.replace_if_unchanged(rows, &step()))?;
            }
        }
        Ok(())
    }

    /// Writes the rows whose stored document is unchanged. Returns their number.
    fn replace_if_unchanged(&self, rows: &[Resealing], deadline: &Deadline) -> Result<u64> {
        let update = "UPDATE token SET sealed_with = ?4, document = ?5
                      WHERE client_id = ?1 AND resource_id = ?2 AND version = ?3 AND document = ?6";
        self.database.write(deadline, |connection, _| {
            let transaction =
                Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
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
    fn load(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Record>> {
        let select = "SELECT resource_id, version, document FROM token WHERE client_id = ?1 AND \
                      resource_id = ?2";
        let found = self.database.read(deadline, |connection| {
            let mut select = connection.prepare_cached(select)?;
            select.query_row(params![self.seal.client_id(), resource_id], read_row).optional()
        });
        let found = found.map_err(|error| error.with_resource(resource_id))?;
        found.map(|stored| self.seal.record(stored)).transpose()
    }

    fn version(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<u64>> {
        let select = "SELECT version FROM token WHERE client_id = ?1 AND resource_id = ?2";
        let found = self.database.read(deadline, |connection| {
            connection
                .prepare_cached(select)?
                .query_row(params![self.seal.client_id(), resource_id], |row| {
                    Ok(version(row.get_ref(0)?))
                })
                .optional()
        });
        found.map_err(|error| error.with_resource(resource_id))
    }

    fn save(&self, record: &Record, deadline: &Deadline) -> Result<u64> {
        self.save_record(record, true, deadline)
    }

    fn save_intent(&self, record: &Record, deadline: &Deadline) -> Result<u64> {
        self.database
            .reserve(deadline)
            .map_err(|error| error.with_resource(&record.resource_id))?;
        self.save_record(record, false, deadline)
    }

    fn compares_tombstones(&self) -> bool {
        true
    }

    fn save_all(&self, records: &[Record], deadline: &Deadline) -> Vec<Result<u64>> {
        // An empty transaction would wait for the write lock.
        if records.is_empty() {
            return Vec::new();
        }
        let all_saved = || {
            let rows =
                records.iter().map(|record| self.seal.row(record)).collect::<Result<Vec<_>>>()?;
            self.database.write(deadline, |connection, may_be_written| {
                self.put_all(connection, rows.iter(), may_be_written)
            })
        };
        let named =
            |error: &Error, record: &Record| Err(error.clone().with_resource(&record.resource_id));
        match all_saved() {
            Ok(saved) => {
                let outcome = |(record, saved): (&Record, bool)| match saved {
                    true => Ok(record.next_version()),
                    false => Err(super::changed_meanwhile(&record.resource_id)),
                };
                records.iter().zip(saved).map(outcome).collect()
            }
            Err(error) => records.iter().map(|record| named(&error, record)).collect(),
        }
    }

    fn remove_all(&self, records: &[(String, u64)], deadline: &Deadline) -> Result<Vec<bool>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        // A damaged version counts as `DAMAGED`.
        let delete = "DELETE FROM token WHERE client_id = ?1 AND resource_id = ?2
                      AND (version = ?3 OR ?3 = 1 AND (typeof(version) <> 'integer'
                          OR version <= 0))";
        let select = "SELECT 1 FROM token WHERE client_id = ?1 AND resource_id = ?2";
        let mut removed = vec![false; records.len()];
        self.database.write(deadline, |connection, _| {
            let transaction =
                Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            for ((resource_id, version), removed) in records.iter().zip(&mut removed) {
                let client_id = self.seal.client_id();
                let values = params![client_id, resource_id, version.cast_signed()];
                let is_removed = connection.prepare_cached(delete)?.execute(values)? > 0;
                // After the files were replaced, a row that an earlier run removed may exist again.
                *removed = is_removed
                    || *removed
                        && !connection
                            .prepare_cached(select)?
                            .exists(params![client_id, resource_id])?;
            }
            transaction.commit()?;
            truncate_wal(connection);
            Ok(())
        })?;
        Ok(removed)
    }

    fn list(&self, query: &Query, deadline: &Deadline) -> Result<Page> {
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
            // For a company's few records, the company index is the better one.
            only(
                if query.company_id.is_some() { "+user_type =" } else { "user_type =" },
                user_type,
            );
        }
        // One row more than the limit tells whether there is a next page.
        let limit = query.limit + 1;
        let statement = format!(
            "SELECT resource_id, version, document FROM token WHERE client_id = ?1{conditions} \
             ORDER BY resource_id LIMIT {limit}"
        );
        let rows = self.database.read(deadline, |connection| {
            let mut select = connection.prepare_cached(&statement)?;
            select.query_map(&values[..], read_row)?.collect::<Result<Vec<_>, _>>()
        })?;
        Ok(Page::open(rows, query.limit, &self.seal))
    }

    fn due(
        &self,
        company_id: Option<&str>,
        renewals: &RangeInclusive<i64>,
        after: Option<&str>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<DuePage> {
        // A separate statement for each case, because an optional condition would keep SQLite from
        // using the index.
        let of_company =
            if company_id.is_some() { "AND company_id = ?7" } else { "AND ?7 IS NULL" };
        let select = format!(
            "SELECT renew_at, resource_id FROM token
             WHERE client_id = ?1 AND renew_at BETWEEN ?2 AND ?3
                AND (renew_at, resource_id) > (?4, ?5) {of_company}
             ORDER BY renew_at, resource_id LIMIT ?6"
        );
        let (client_id, first, last) = (self.seal.client_id(), renewals.start(), renewals.end());
        let (renew_at, id) = DuePage::position(after);
        let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let positions = self.database.read(deadline, |connection| {
            connection
                .prepare_cached(&select)?
                .query_map(
                    params![client_id, first, last, renew_at, id, rows, company_id],
                    |row| Ok((integer(row.get_ref(0)?), row.get(1)?)),
                )?
                .collect()
        })?;
        Ok(DuePage::cut(positions, limit))
    }

    fn next_renewal(&self, company_id: Option<&str>, deadline: &Deadline) -> Result<Option<i64>> {
        let of_company =
            if company_id.is_some() { "AND company_id = ?2" } else { "AND ?2 IS NULL" };
        let select = format!("SELECT MIN(renew_at) FROM token WHERE client_id = ?1 {of_company}");
        self.database.read(deadline, |connection| {
            connection.prepare_cached(&select)?.query_row(
                params![self.seal.client_id(), company_id],
                |row| match row.get_ref(0)? {
                    ValueRef::Null => Ok(None),
                    renew_at => Ok(Some(integer(renew_at))),
                },
            )
        })
    }

    fn reseal(
        &self,
        overall: &Deadline,
        should_continue: &dyn Fn(u64) -> bool,
    ) -> Result<Resealed> {
        let mut resealed = Resealed::default();
        let outcome = self.reseal_all(overall, &mut resealed, should_continue);
        if resealed.sealed > 0 {
            self.database.write(&overall.renewed(overall.total()), |connection, _| {
                truncate_wal(connection);
                Ok(())
            })?;
        }
        outcome.map(|()| resealed)
    }

    fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>> {
        self.locks.lock(resource_id, deadline)
    }

    fn note(&self, key: &str, deadline: &Deadline) -> Result<Option<Note>> {
        let select = "SELECT key, version, list, expires_at, document FROM note \
                      WHERE client_id = ?1 AND key = ?2";
        self.database.read(deadline, |connection| {
            connection
                .prepare_cached(select)?
                .query_row(params![self.seal.client_id(), key], read_note)
                .optional()
        })
    }

    fn save_note(&self, note: &Note, deadline: &Deadline) -> Result<()> {
        let saved = self.database.write(deadline, |connection, may_be_written| {
            self.put_note(connection, note, may_be_written)
        })?;
        if saved { Ok(()) } else { Err(super::note_changed_meanwhile(&note.key)) }
    }

    fn save_notes(&self, notes: &[Note], deadline: &Deadline) -> Vec<Result<()>> {
        if notes.is_empty() {
            return Vec::new();
        }
        let saved = self.database.write(deadline, |connection, may_be_written| {
            let transaction =
                Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let saved = notes.iter().map(|note| self.put_note(connection, note, may_be_written));
            let saved = saved.collect::<rusqlite::Result<Vec<bool>>>()?;
            transaction.commit()?;
            Ok(saved)
        });
        match saved {
            Ok(saved) => {
                let outcome = |(note, saved): (&Note, bool)| match saved {
                    true => Ok(()),
                    false => Err(super::note_changed_meanwhile(&note.key)),
                };
                notes.iter().zip(saved).map(outcome).collect()
            }
            Err(error) => notes.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn notes(
        &self,
        list: &str,
        after: Option<&str>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<NotePage> {
        let select = "SELECT key, version, list, expires_at, document FROM note
                      WHERE client_id = ?1 AND list = ?2 AND key > ?3 ORDER BY key LIMIT ?4";
        // Keys are not empty. One row more than the limit tells whether there is a next page.
        let (after, rows) =
            (after.unwrap_or_default(), i64::try_from(limit + 1).unwrap_or(i64::MAX));
        let notes = self.database.read(deadline, |connection| {
            let mut select = connection.prepare_cached(select)?;
            select
                .query_map(params![self.seal.client_id(), list, after, rows], read_note)?
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok(NotePage::cut(notes, limit))
    }

    fn prune_notes(&self, now_ms: i64, deadline: &Deadline) -> Result<()> {
        let delete = "DELETE FROM note WHERE client_id = ?1 AND expires_at <= ?2";
        self.database.write(deadline, |connection, _| {
            connection.prepare_cached(delete)?.execute(params![self.seal.client_id(), now_ms])
        })?;
        Ok(())
    }

    fn other_clients(&self, deadline: &Deadline) -> Result<Vec<OtherClient>> {
        // A loose index scan, since there are few apps and many records.
        let select = "WITH RECURSIVE client (id) AS (
                SELECT MIN(client_id) FROM token
                UNION ALL
                SELECT (SELECT MIN(client_id) FROM token WHERE client_id > client.id)
                FROM client WHERE client.id IS NOT NULL
            )
            SELECT id, (SELECT COUNT(*) FROM token WHERE client_id = id) FROM client
            WHERE id IS NOT NULL AND id <> ?1 LIMIT ?2";
        let most = i64::try_from(MAX_CLIENTS).unwrap_or(i64::MAX);
        self.database.read(deadline, |connection| {
            connection
                .prepare_cached(select)?
                .query_map(params![self.seal.client_id(), most], |row| {
                    Ok(OtherClient {
                        client_id: row.get(0)?,
                        tokens: integer(row.get_ref(1)?).unsigned_abs(),
                    })
                })?
                .collect()
        })
    }

    fn of_client(&self, client_id: &str) -> Result<Option<Arc<dyn Store>>> {
        Ok(Some(Arc::new(SqliteStore {
            database: Arc::clone(&self.database),
            locks: self.locks.of_client(client_id),
            seal: self.seal.of_client(client_id),
            group: CommitGroup::default(),
        })))
    }
}

/// Reads a note. An unreadable document counts as empty.
fn read_note(row: &rusqlite::Row) -> rusqlite::Result<Note> {
    let document = row.get_ref(4)?.as_bytes().unwrap_or_default();
    Ok(Note {
        key: row.get(0)?,
        version: version(row.get_ref(1)?),
        list: row.get(2)?,
        expires_at: integer(row.get_ref(3)?),
        document: serde_json::from_slice(document).unwrap_or_default(),
    })
}

/// A damaged version or document results in an empty document, which cannot be opened.
fn read_row(row: &rusqlite::Row) -> rusqlite::Result<StoredRow> {
    let version = row.get_ref(1)?;
    let document = match row.get_ref(2)? {
        ValueRef::Blob(document) if integer(version) > 0 => document,
        _ => &[],
    };
    let (version, document) = (self::version(version), Zeroizing::new(document.to_vec()));
    Ok(StoredRow { resource_id: row.get(0)?, version, document })
}

fn version(value: ValueRef) -> u64 {
    u64::try_from(integer(value)).ok().filter(|version| *version > 0).unwrap_or(DAMAGED)
}

/// The value as an integer; 0 for any other type.
fn integer(value: ValueRef) -> i64 {
    match value {
        ValueRef::Integer(number) => number,
        ValueRef::Real(number) => number as i64,
        _ => 0,
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Checkpoints and truncates the WAL, whose older pages still contain replaced and removed rows.
/// Does not wait for other programs; pages that they read remain until the next checkpoint, or
/// until the last handle is closed.
fn truncate_wal(connection: &Connection) {
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::error::Status;
    use crate::token::Token;

    fn deadline() -> Deadline {
        Deadline::after(Duration::from_secs(60), &Arc::default())
    }

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

    /// Number of transactions in the WAL: the last frame of each contains the database size.
    fn transactions(path: &Path) -> usize {
        let wal = std::fs::read(path.with_extension("db-wal")).unwrap();
        wal.get(32..)
            .unwrap_or_default()
            .chunks(24 + 4096)
            .filter(|frame| frame[4..8] != [0; 4])
            .count()
    }

    #[test]
    fn concurrent_saves_are_committed_together_and_fail_separately() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
        let ids: Vec<String> = (0..20).map(|number| format!("company{number}")).collect();
        // Saves all records while another thread has write access, and returns the results.
        let save_at_once = |access_token: &str, version: u64| {
            thread::scope(|scope| {
                let mut saves = Vec::new();
                let hold = |_: &Connection, _| {
                    for id in &ids {
                        let mut record = record(id, access_token);
                        record.version = version;
                        let store = &store;
                        saves.push(scope.spawn(move || store.save(&record, &deadline())));
                    }
                    while store.group.len() < ids.len() {
                        thread::yield_now();
                    }
                    Ok(())
                };
                store.database.write(&deadline(), hold).unwrap();
                saves.into_iter().map(|save| save.join().unwrap()).collect::<Vec<_>>()
            })
        };
        let before = transactions(&path);
        assert!(save_at_once("first", 0).into_iter().all(|saved| saved.unwrap() == 1));
        assert_eq!(transactions(&path) - before, 1);

        // A conflict, and a row that the database rejects.
        let mut changed = record("company3", "theirs");
        changed.version = 1;
        store.save(&changed, &deadline()).unwrap();
        let trigger =
            "CREATE TRIGGER reject BEFORE UPDATE ON token WHEN new.resource_id = 'company4'
                       BEGIN SELECT RAISE(ABORT, 'rejected'); END";
        store
            .database
            .write(&deadline(), |connection, _| connection.execute_batch(trigger))
            .unwrap();
        for (id, saved) in ids.iter().zip(save_at_once("second", 1)) {
            let held = store.load(id, &deadline()).unwrap().unwrap().token.access_token.clone();
            let (outcome, token) = match id.as_str() {
                "company3" => (Err(Status::Conflict), "theirs"),
                "company4" => (Err(Status::Store), "first"),
                _ => (Ok(2), "second"),
            };
            assert_eq!(
                (saved.map_err(|error| error.status()), held.expose()),
                (outcome, token),
                "{id}"
            );
        }
        assert!(store.group.len() == 0);
    }

    /// The new record's version starts from 1 again, so only its document differs from the removed
    /// one.
    #[test]
    fn record_restored_during_resealing_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let record = |access_token: &str| record("company", access_token);
        SqliteStore::open(&path, Seal::none("app-1"))
            .unwrap()
            .save(&record("removed"), &deadline())
            .unwrap();
        let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned().into();
        let store =
            SqliteStore::open(&path, Seal::new("app-1", &[key], false, "k").unwrap()).unwrap();
        let select = "SELECT resource_id, version, document FROM token";
        let page = store
            .database
            .read(&deadline(), |connection| connection.query_row(select, [], read_row))
            .unwrap();
        let mut resealed = Resealed::default();
        let put = |rows: &[Resealing]| {
            store.remove_all(&[("company".into(), 1)], &deadline()).unwrap();
            store.save(&record("created again"), &deadline()).unwrap();
            store.replace_if_unchanged(rows, &deadline())
        };
        store.seal.reseal(vec![page], &mut resealed, put).unwrap();
        assert_eq!((resealed.sealed, resealed.left), (0, 1));
        assert_eq!(
            store.load("company", &deadline()).unwrap().unwrap().token.access_token.expose(),
            "created again"
        );
    }
}
