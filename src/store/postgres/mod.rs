//! The token store in a PostgreSQL database (12 or newer), for several machines.
//!
//! Every statement is its own transaction and leaves no session state, so that it works through a
//! pooler in transaction mode. A statement that gets no response within five seconds is repeated
//! once, on a new connection to the first server in the URL that accepts writes. A write
//! whose response was lost is recognized when it is repeated. The call's deadline and cancellation
//! end every wait: for the pool, name resolution, a connection, or a response.
//!
//! A successful save is on the server's disk, even if `synchronous_commit` is off for the role or
//! the server; an intent need not be. Replaced and removed rows disappear at the next vacuum, and
//! later from the WAL and backups; sealing protects them until then.

mod address;
mod connection;
mod lock;
mod pg_error;
mod pool;
mod schema;
mod socket;
mod tls;

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row as Found};
use zeroize::Zeroizing;

use self::address::Address;
use self::pool::{Pool, Priority};
use self::tls::Trust;
use super::process_lock::ProcessLocks;
use super::row::{Resealing, Row, StoredRow};
use super::{
    DuePage, Lock, MAX_CLIENTS, Note, NotePage, OtherClient, Page, Query, Record, Resealed, Seal,
    Store,
};
use crate::config::Timeouts;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::random;
use crate::secret::Secret;
use crate::token::UserType;

/// Upper limit of `timeouts.connectMs` for a connection attempt.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long the server keeps a refresh lock beyond `timeouts.totalMs`, before it ends the holder's
/// transaction.
const LOCK_GRACE: Duration = Duration::from_secs(30);

/// Maximum number of rows per statement.
const ROWS_AT_ONCE: usize = 500;

/// Number of records that one statement reseals.
const RESEAL_BATCH: usize = 100;

/// The deadline for reading and writing one such batch.
const RESEAL_STEP: Duration = Duration::from_secs(30);

/// Upper limit of the random number that is added to the version of an intent: large enough that no
/// other writer uses the same version, and small enough for a billion refreshes.
const INTENT_STEP: u64 = u32::MAX as u64;

/// Evaluated for each written row: makes its transaction durable if `synchronous_commit` is off. As
/// a part of the statement, it costs no round trip.
macro_rules! durably {
    () => {
        "CASE current_setting('synchronous_commit') WHEN 'off' \
         THEN set_config('synchronous_commit', 'on', true) END"
    };
}

/// The version of a row. A non-positive one, which only a manual change can cause, is replaced by
/// one higher than any real version, so that the row can be replaced and deleted.
macro_rules! version {
    ($table:literal) => {
        concat!(
            "CASE WHEN ",
            $table,
            ".version > 0 THEN ",
            $table,
            ".version ELSE 4611686018427387904 END"
        )
    };
}

/// A query of records, up to the condition on the client ID.
macro_rules! select_stored {
    () => {
        concat!(
            "SELECT t.resource_id, ",
            version!("t"),
            ", t.document FROM ghl_oauth_token AS t WHERE client_id = $1"
        )
    };
}

/// The version in a resource's tombstone; 0 without a tombstone, or if it is unreadable.
macro_rules! deleted_version {
    ($resource_id:literal) => {
        concat!(
            "coalesce((SELECT substring(encode(n.document, 'escape')
                from '\"version\":([0-9]{1,19})')::numeric
                       FROM ghl_oauth_note AS n WHERE n.client_id = $1 AND n.key = 'deleted/' || ",
            $resource_id,
            "), 0)"
        )
    };
}

/// A first save; it continues from the tombstone's version. A tombstone written by a concurrent
/// statement is not seen, so [`Store::compares_tombstones`] is false.
const INSERT: &str = concat!(
    "INSERT INTO ghl_oauth_token
         (client_id, resource_id, version, user_type, company_id, renew_at, sealed_with, document)
     SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE ",
    deleted_version!("$2"),
    " = $3 - 1 ON CONFLICT DO NOTHING RETURNING ",
    durably!()
);

/// A save of a row that has the version `$9`.
macro_rules! update {
    () => {
        concat!(
            "UPDATE ghl_oauth_token AS t
             SET version = $3, user_type = $4, company_id = $5, renew_at = $6,
                 sealed_with = $7, document = $8
             WHERE client_id = $1 AND resource_id = $2 AND ",
            version!("t"),
            " = $9 RETURNING "
        )
    };
}

const UPDATE: &str = concat!(update!(), durably!());

/// The save of an intent: its transaction does not wait for the disk.
const UPDATE_INTENT: &str = concat!(update!(), "set_config('synchronous_commit', 'off', true)");

/// Rows as columns, `$2` to `$8`.
macro_rules! rows {
    () => {
        "unnest($2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::text[],
         $8::bytea[])
         AS r (resource_id, version, user_type, company_id, renew_at, sealed_with, document)"
    };
}

const INSERT_ALL: &str = concat!(
    "INSERT INTO ghl_oauth_token AS t
         (client_id, resource_id, version, user_type, company_id, renew_at, sealed_with, document)
     SELECT $1, r.* FROM ",
    rows!(),
    " WHERE ",
    deleted_version!("r.resource_id"),
    " = r.version - 1 ON CONFLICT DO NOTHING RETURNING t.resource_id, ",
    durably!()
);

const UPDATE_ALL: &str = concat!(
    "UPDATE ghl_oauth_token AS t
     SET version = r.version, user_type = r.user_type, company_id = r.company_id,
         renew_at = r.renew_at,
         sealed_with = r.sealed_with, document = r.document
     FROM ",
    rows!(),
    " WHERE t.client_id = $1 AND t.resource_id = r.resource_id AND ",
    version!("t"),
    " = r.version - 1 RETURNING t.resource_id, ",
    durably!()
);

const OWN_ROWS: &str = concat!(
    "SELECT t.resource_id FROM ghl_oauth_token AS t, ",
    rows!(),
    " WHERE t.client_id = $1 AND t.resource_id = r.resource_id AND t.version = r.version AND \
     t.document = r.document"
);

const RESEAL_ALL: &str = concat!(
    "UPDATE ghl_oauth_token AS t SET sealed_with = r.sealed_with, document = r.document
     FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bytea[], $6::bytea[])
         AS r (resource_id, version, sealed_with, document, was)
     WHERE t.client_id = $1 AND t.resource_id = r.resource_id AND t.document = r.was AND ",
    version!("t"),
    " = r.version RETURNING t.resource_id, ",
    durably!()
);

const DELETE_ALL: &str = concat!(
    "DELETE FROM ghl_oauth_token AS t USING unnest($2::text[], $3::bigint[]) AS r
         (resource_id, version)
     WHERE t.client_id = $1 AND t.resource_id = r.resource_id AND ",
    version!("t"),
    " = r.version RETURNING t.resource_id, ",
    durably!()
);

/// Notes as columns, `$2` to `$6`.
macro_rules! notes {
    () => {
        "unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bytea[])
         AS r (key, version, list, expires_at, document)"
    };
}

const INSERT_NOTES: &str = concat!(
    "INSERT INTO ghl_oauth_note AS t (client_id, key, version, list, expires_at, document)
     SELECT $1, r.* FROM ",
    notes!(),
    " ON CONFLICT DO NOTHING RETURNING t.key, ",
    durably!()
);

const UPDATE_NOTES: &str = concat!(
    "UPDATE ghl_oauth_note AS t
     SET version = r.version, list = r.list, expires_at = r.expires_at, document = r.document
     FROM ",
    notes!(),
    " WHERE t.client_id = $1 AND t.key = r.key AND t.version = r.version - 1 RETURNING t.key, ",
    durably!()
);

const OWN_NOTES: &str = concat!(
    "SELECT t.key FROM ghl_oauth_note AS t, ",
    notes!(),
    " WHERE t.client_id = $1 AND t.key = r.key AND t.version = r.version AND t.list = r.list
       AND t.expires_at = r.expires_at AND t.document = r.document"
);

/// A store for the records of one app; the client ID is part of each key.
pub struct PostgresStore {
    pool: Arc<Pool>,
    locks: Arc<ProcessLocks>,
    seal: Seal,
    /// How long the transaction of a refresh lock may be idle.
    idle_limit: Duration,
}

type Param<'a> = (&'a (dyn ToSql + Sync), Type);

impl PostgresStore {
    /// Connects, and creates or migrates the tables. Trusts the certificates in the PEM file
    /// `ca_bundle` in addition to the platform's. `seal` determines the app whose records the store
    /// holds.
    pub fn open(
        url: &Secret,
        ca_bundle: Option<&Path>,
        timeouts: &Timeouts,
        seal: Seal,
    ) -> Result<PostgresStore> {
        let connect_ms = timeouts.connect_ms.min(timeouts.total_ms);
        let connect_limit = Duration::from_millis(connect_ms).min(CONNECT_LIMIT);
        let pool = Pool::new(Address::read(url)?, Trust::new(ca_bundle)?, connect_limit);
        schema::bring_up_to_date(&pool).map_err(|error| match error.parameter() {
            Some(_) => error,
            None => error.with_parameter("store.url"),
        })?;
        let idle_limit = Duration::from_millis(timeouts.total_ms) + LOCK_GRACE;
        let store = PostgresStore { pool: Arc::new(pool), locks: Arc::default(), seal, idle_limit };
        let deadline = Deadline::after(schema::LIMIT, &Arc::default());
        store.seal.check_keys(&store.key_ids(&deadline)?)?;
        Ok(store)
    }

    /// Runs a query and converts its rows with `row`. An unexpected column type is a `STORE` error.
    fn read<T>(
        &self,
        statement: &str,
        params: &[Param<'_>],
        deadline: &Deadline,
        row: impl Fn(&Found) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>> {
        let query = async |client: &Client, _| client.query_typed(statement, params).await;
        let found = self.pool.run(Priority::Normal, deadline, query)?;
        let rows: Result<Vec<T>, tokio_postgres::Error> = found.iter().map(row).collect();
        rows.map_err(|error| self.pool.error(error.into()))
    }

    /// Writes a row by compare-and-swap, with one of the statements above: the stored version must
    /// be `replaced`. If an earlier attempt lost its response, an identical stored row counts as
    /// written.
    fn put(&self, statement: &str, row: &Row, replaced: u64, deadline: &Deadline) -> Result<bool> {
        let (client_id, version, document) =
            (self.seal.client_id(), row.version.cast_signed(), &row.document[..]);
        let replaced = replaced.cast_signed();
        let user_type = row.user_type.name();
        let params: [Param<'_>; 9] = [
            (&client_id, Type::TEXT),
            (&row.resource_id, Type::TEXT),
            (&version, Type::INT8),
            (&user_type, Type::TEXT),
            (&row.company_id, Type::TEXT),
            (&row.renew_at, Type::INT8),
            (&row.sealed_with, Type::TEXT),
            (&document, Type::BYTEA),
            (&replaced, Type::INT8),
        ];
        let own: [Param<'_>; 4] =
            [params[0].clone(), params[1].clone(), params[2].clone(), params[7].clone()];
        let params = if row.is_new { &params[..8] } else { &params };
        self.pool.run(Priority::Critical, deadline, async |client, again| {
            let written = client.query_typed(statement, params).await?;
            if !written.is_empty() || !again {
                return Ok(!written.is_empty());
            }
            let select = "SELECT 1 FROM ghl_oauth_token
                          WHERE client_id = $1 AND resource_id = $2 AND version = $3
                              AND document = $4";
            Ok(!client.query_typed(select, &own).await?.is_empty())
        })
    }

    fn save_row(
        &self,
        statement: &str,
        row: &Row,
        record: &Record,
        deadline: &Deadline,
    ) -> Result<u64> {
        let saved = self.put(statement, row, record.version, deadline);
        match saved.map_err(|error| error.with_resource(&record.resource_id))? {
            true => Ok(row.version),
            false => Err(super::changed_meanwhile(&record.resource_id)),
        }
    }

    /// Writes rows of different resources, with one statement for new rows and one for others.
    /// Returns the IDs of the written rows.
    fn put_all(&self, rows: &[Row], deadline: &Deadline) -> Result<HashSet<String>> {
        let (new, old): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.is_new);
        let columns = [new, old].map(|rows| Columns::of(self.seal.client_id(), &rows));
        let [new, old] = columns.each_ref().map(|columns| (columns.params(), columns.len()));
        self.write_all([(INSERT_ALL, new), (UPDATE_ALL, old)], OWN_ROWS, deadline)
    }

    /// Like `put_all`, for notes with different keys.
    fn put_notes(&self, notes: &[&Note], deadline: &Deadline) -> Result<HashSet<String>> {
        let (new, old): (Vec<&Note>, Vec<&Note>) = notes.iter().partition(|note| note.version == 0);
        let columns = [new, old].map(|notes| NoteColumns::of(self.seal.client_id(), &notes));
        let [new, old] = columns.each_ref().map(|columns| (columns.params(), columns.key.len()));
        self.write_all([(INSERT_NOTES, new), (UPDATE_NOTES, old)], OWN_NOTES, deadline)
    }

    /// Runs each statement that has rows. Returns the IDs of the written rows. `own` selects rows
    /// that are already stored as they should be written.
    fn write_all(
        &self,
        parts: [(&str, (Vec<Param<'_>>, usize)); 2],
        own: &str,
        deadline: &Deadline,
    ) -> Result<HashSet<String>> {
        self.pool.run(Priority::Critical, deadline, async |client, again| {
            let mut written = HashSet::new();
            for (statement, (params, rows)) in parts.iter().filter(|(_, (_, rows))| *rows > 0) {
                let now = ids(client, statement, params).await?;
                // The others may have been written by an earlier attempt that lost its response.
                if again && now.len() < *rows {
                    written.extend(ids(client, own, params).await?);
                }
                written.extend(now);
            }
            Ok(written)
        })
    }

    /// The IDs of the keys that records are sealed with; an empty ID stands for plain records.
    fn key_ids(&self, deadline: &Deadline) -> Result<Vec<String>> {
        // A loose index scan, since there are few keys and many records.
        let select = "WITH RECURSIVE k AS (
                SELECT min(sealed_with) AS id FROM ghl_oauth_token WHERE client_id = $1
                UNION ALL
                SELECT (SELECT min(sealed_with) FROM ghl_oauth_token WHERE client_id = $1
                        AND sealed_with > k.id)
                FROM k WHERE k.id IS NOT NULL
            ) SELECT id FROM k WHERE id IS NOT NULL";
        let params: [Param<'_>; 1] = [(&self.seal.client_id(), Type::TEXT)];
        self.read(select, &params, deadline, |found| found.try_get(0))
    }

    /// Writes the rows whose stored document is unchanged. Returns their number.
    fn replace_if_unchanged(&self, rows: &[Resealing], deadline: &Deadline) -> Result<u64> {
        let client_id = self.seal.client_id();
        let resource_ids: Vec<&str> = rows.iter().map(|one| one.row.resource_id.as_str()).collect();
        let versions: Vec<i64> = rows.iter().map(|one| one.row.version.cast_signed()).collect();
        let keys: Vec<&str> = rows.iter().map(|one| one.row.sealed_with.as_str()).collect();
        let documents: Vec<&[u8]> = rows.iter().map(|one| &one.row.document[..]).collect();
        let before: Vec<&[u8]> = rows.iter().map(|one| &one.was[..]).collect();
        let params: [Param<'_>; 6] = [
            (&client_id, Type::TEXT),
            (&resource_ids, Type::TEXT_ARRAY),
            (&versions, Type::INT8_ARRAY),
            (&keys, Type::TEXT_ARRAY),
            (&documents, Type::BYTEA_ARRAY),
            (&before, Type::BYTEA_ARRAY),
        ];
        self.pool.run(Priority::Critical, deadline, async |client, _| {
            Ok(client.query_typed(RESEAL_ALL, &params).await?.len() as u64)
        })
    }
}

async fn ids(
    client: &Client,
    statement: &str,
    params: &[Param<'_>],
) -> Result<Vec<String>, tokio_postgres::Error> {
    client.query_typed(statement, params).await?.iter().map(|row| row.try_get(0)).collect()
}

/// Rows as columns, the parameters of `unnest`.
struct Columns<'a> {
    client_id: &'a str,
    resource_id: Vec<&'a str>,
    version: Vec<i64>,
    user_type: Vec<&'static str>,
    company_id: Vec<Option<&'a str>>,
    renew_at: Vec<i64>,
    sealed_with: Vec<&'a str>,
    document: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of(client_id: &'a str, rows: &[&'a Row]) -> Columns<'a> {
        Columns {
            client_id,
            resource_id: rows.iter().map(|row| row.resource_id.as_str()).collect(),
            version: rows.iter().map(|row| row.version.cast_signed()).collect(),
            user_type: rows.iter().map(|row| row.user_type.name()).collect(),
            company_id: rows.iter().map(|row| row.company_id.as_deref()).collect(),
            renew_at: rows.iter().map(|row| row.renew_at).collect(),
            sealed_with: rows.iter().map(|row| row.sealed_with.as_str()).collect(),
            document: rows.iter().map(|row| &row.document[..]).collect(),
        }
    }

    fn len(&self) -> usize {
        self.resource_id.len()
    }

    fn params(&self) -> Vec<Param<'_>> {
        vec![
            (&self.client_id, Type::TEXT),
            (&self.resource_id, Type::TEXT_ARRAY),
            (&self.version, Type::INT8_ARRAY),
            (&self.user_type, Type::TEXT_ARRAY),
            (&self.company_id, Type::TEXT_ARRAY),
            (&self.renew_at, Type::INT8_ARRAY),
            (&self.sealed_with, Type::TEXT_ARRAY),
            (&self.document, Type::BYTEA_ARRAY),
        ]
    }
}

struct NoteColumns<'a> {
    client_id: &'a str,
    key: Vec<&'a str>,
    version: Vec<i64>,
    list: Vec<&'a str>,
    expires_at: Vec<i64>,
    document: Vec<Vec<u8>>,
}

impl<'a> NoteColumns<'a> {
    fn of(client_id: &'a str, notes: &[&'a Note]) -> NoteColumns<'a> {
        NoteColumns {
            client_id,
            key: notes.iter().map(|note| note.key.as_str()).collect(),
            version: notes.iter().map(|note| (note.version + 1).cast_signed()).collect(),
            list: notes.iter().map(|note| note.list.as_str()).collect(),
            expires_at: notes.iter().map(|note| note.expires_at).collect(),
            document: notes.iter().map(|note| note.document.to_string().into_bytes()).collect(),
        }
    }

    fn params(&self) -> Vec<Param<'_>> {
        vec![
            (&self.client_id, Type::TEXT),
            (&self.key, Type::TEXT_ARRAY),
            (&self.version, Type::INT8_ARRAY),
            (&self.list, Type::TEXT_ARRAY),
            (&self.expires_at, Type::INT8_ARRAY),
            (&self.document, Type::BYTEA_ARRAY),
        ]
    }
}

impl Store for PostgresStore {
    fn load(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Record>> {
        let select = concat!(select_stored!(), " AND resource_id = $2");
        let params: [Param<'_>; 2] =
            [(&self.seal.client_id(), Type::TEXT), (&resource_id, Type::TEXT)];
        let found = self
            .read(select, &params, deadline, stored_row)
            .map_err(|error| error.with_resource(resource_id))?;
        found.into_iter().next().map(|stored| self.seal.record(stored)).transpose()
    }

    fn version(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<u64>> {
        let select = concat!(
            "SELECT ",
            version!("t"),
            " FROM ghl_oauth_token AS t WHERE client_id = $1 AND resource_id = $2"
        );
        let params: [Param<'_>; 2] =
            [(&self.seal.client_id(), Type::TEXT), (&resource_id, Type::TEXT)];
        let found = self.read(select, &params, deadline, |found| found.try_get::<_, i64>(0));
        let found = found.map_err(|error| error.with_resource(resource_id))?;
        Ok(found.into_iter().next().map(i64::cast_unsigned))
    }

    fn save(&self, record: &Record, deadline: &Deadline) -> Result<u64> {
        let row = self.seal.row(record)?;
        let statement = if row.is_new { INSERT } else { UPDATE };
        self.save_row(statement, &row, record, deadline)
    }

    fn save_intent(&self, record: &Record, deadline: &Deadline) -> Result<u64> {
        if record.version == 0 {
            return self.save(record, deadline);
        }
        // A crash of the server may undo this save while its clients go on. If another writer's
        // next save had the same version, this client could overwrite it.
        let version = record.next_version() + 1 + random::up_to(INTENT_STEP);
        let row = self.seal.row_of_version(record, version)?;
        self.save_row(UPDATE_INTENT, &row, record, deadline)
    }

    fn save_all(&self, records: &[Record], deadline: &Deadline) -> Vec<Result<u64>> {
        let mut seen = HashSet::new();
        if !records.iter().all(|record| seen.insert(&record.resource_id)) {
            // A single statement would write any one of two rows of the same resource.
            return records.iter().map(|record| self.save(record, deadline)).collect();
        }
        records
            .chunks(ROWS_AT_ONCE)
            .flat_map(|records| self.save_chunk(records, deadline))
            .collect()
    }

    fn remove_all(&self, records: &[(String, u64)], deadline: &Deadline) -> Result<Vec<bool>> {
        let mut removed = Vec::with_capacity(records.len());
        for records in records.chunks(ROWS_AT_ONCE) {
            removed.extend(self.remove_chunk(records, deadline)?);
        }
        Ok(removed)
    }

    fn list(&self, query: &Query, deadline: &Deadline) -> Result<Page> {
        let client_id = self.seal.client_id();
        let user_type = query.user_type.map(UserType::name);
        let mut params: Vec<Param<'_>> = vec![(&client_id, Type::TEXT)];
        let mut conditions = String::new();
        let mut only = |condition: &str, value| {
            params.push((value, Type::TEXT));
            conditions += &format!(" AND {condition} ${}", params.len());
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
        // One row more than the limit tells whether there is a next page.
        let select = format!(
            "{}{conditions} ORDER BY resource_id LIMIT {}",
            select_stored!(),
            query.limit + 1
        );
        let found = self.read(&select, &params, deadline, stored_row)?;
        Ok(Page::open(found, query.limit, &self.seal))
    }

    fn due(
        &self,
        company_id: Option<&str>,
        renewals: &RangeInclusive<i64>,
        after: Option<&str>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<DuePage> {
        let client_id = self.seal.client_id();
        let (renew_at, id) = DuePage::position(after);
        let mut params: Vec<Param<'_>> = vec![
            (&client_id, Type::TEXT),
            (renewals.start(), Type::INT8),
            (renewals.end(), Type::INT8),
            (&renew_at, Type::INT8),
            (&id, Type::TEXT),
        ];
        let mut of_company = "";
        if let Some(company_id) = &company_id {
            params.push((company_id, Type::TEXT));
            of_company = "AND company_id = $6";
        }
        let select = format!(
            "SELECT renew_at, resource_id FROM ghl_oauth_token
             WHERE client_id = $1 AND renew_at BETWEEN $2 AND $3 AND
                (renew_at, resource_id) > ($4, $5) {of_company}
             ORDER BY renew_at, resource_id LIMIT {}",
            limit + 1
        );
        let positions = self
            .read(&select, &params, deadline, |found| Ok((found.try_get(0)?, found.try_get(1)?)))?;
        Ok(DuePage::cut(positions, limit))
    }

    fn next_renewal(&self, company_id: Option<&str>, deadline: &Deadline) -> Result<Option<i64>> {
        let client_id = self.seal.client_id();
        let mut params: Vec<Param<'_>> = vec![(&client_id, Type::TEXT)];
        let mut of_company = "";
        if let Some(company_id) = &company_id {
            params.push((company_id, Type::TEXT));
            of_company = "AND company_id = $2";
        }
        // `+ 0` keeps the planner from scanning the renewal index across all companies.
        let first = if company_id.is_some() { "renew_at + 0" } else { "renew_at" };
        let select =
            format!("SELECT min({first}) FROM ghl_oauth_token WHERE client_id = $1 {of_company}");
        let found: Vec<Option<i64>> =
            self.read(&select, &params, deadline, |found| found.try_get(0))?;
        Ok(found.into_iter().next().flatten())
    }

    fn reseal(
        &self,
        overall: &Deadline,
        should_continue: &dyn Fn(u64) -> bool,
    ) -> Result<Resealed> {
        let mut resealed = Resealed::default();
        let (client_id, first) = (self.seal.client_id(), self.seal.key_id());
        let others = self
            .key_ids(&overall.renewed(RESEAL_STEP))?
            .into_iter()
            .filter(|key_id| *key_id != first && !first.is_empty());
        for key_id in others {
            if !self.seal.can_open(&key_id) {
                let count = "SELECT count(*) FROM ghl_oauth_token WHERE client_id = $1 AND \
                             sealed_with = $2";
                let params: [Param<'_>; 2] = [(&client_id, Type::TEXT), (&key_id, Type::TEXT)];
                let found: Vec<i64> =
                    self.read(count, &params, &overall.renewed(RESEAL_STEP), |found| {
                        found.try_get(0)
                    })?;
                resealed.left += found.first().copied().unwrap_or_default().cast_unsigned();
                resealed.fail(self.seal.missing_key(&key_id));
                continue;
            }
            let select = format!(
                "{} AND sealed_with = $2 AND resource_id > $3 ORDER BY resource_id LIMIT \
                 {RESEAL_BATCH}",
                select_stored!()
            );
            let mut after = String::new();
            while should_continue(resealed.sealed) {
                let params: [Param<'_>; 3] =
                    [(&client_id, Type::TEXT), (&key_id, Type::TEXT), (&after, Type::TEXT)];
                let step = overall.renewed(RESEAL_STEP);
                let page = self.read(&select, &params, &step, stored_row)?;
                let Some(last) = page.last() else { break };
                after = last.resource_id.clone();
                self.seal
                    .reseal(page, &mut resealed, |rows| self.replace_if_unchanged(rows, &step))?;
            }
        }
        Ok(resealed)
    }

    fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>> {
        // The process lock first, so that each process has at most one waiter per resource on the
        // server.
        let process_lock = self.locks.lock(resource_id, deadline)?;
        let key = lock::key(self.seal.client_id(), resource_id);
        lock::lock(&self.pool, key, self.idle_limit, process_lock, deadline)
    }

    fn note(&self, key: &str, deadline: &Deadline) -> Result<Option<Note>> {
        let select = "SELECT key, version, list, expires_at, document FROM ghl_oauth_note
                      WHERE client_id = $1 AND key = $2";
        let params: [Param<'_>; 2] = [(&self.seal.client_id(), Type::TEXT), (&key, Type::TEXT)];
        Ok(self.read(select, &params, deadline, read_note)?.into_iter().next())
    }

    fn save_note(&self, note: &Note, deadline: &Deadline) -> Result<()> {
        self.save_note_chunk(&[note], deadline).pop().unwrap_or(Ok(()))
    }

    fn save_notes(&self, notes: &[Note], deadline: &Deadline) -> Vec<Result<()>> {
        let mut seen = HashSet::new();
        if !notes.iter().all(|note| seen.insert(&note.key)) {
            // A single statement would write any one of two notes with the same key.
            return notes.iter().map(|note| self.save_note(note, deadline)).collect();
        }
        let all: Vec<&Note> = notes.iter().collect();
        all.chunks(ROWS_AT_ONCE).flat_map(|notes| self.save_note_chunk(notes, deadline)).collect()
    }

    fn notes(
        &self,
        list: &str,
        after: Option<&str>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<NotePage> {
        // Keys are not empty. One row more than the limit tells whether there is a next page.
        let select = format!(
            "SELECT key, version, list, expires_at, document FROM ghl_oauth_note
             WHERE client_id = $1 AND list = $2 AND key > $3 ORDER BY key LIMIT {}",
            limit + 1
        );
        let (client_id, after) = (self.seal.client_id(), after.unwrap_or_default());
        let params: [Param<'_>; 3] =
            [(&client_id, Type::TEXT), (&list, Type::TEXT), (&after, Type::TEXT)];
        Ok(NotePage::cut(self.read(&select, &params, deadline, read_note)?, limit))
    }

    fn prune_notes(&self, now_ms: i64, deadline: &Deadline) -> Result<()> {
        let delete = "DELETE FROM ghl_oauth_note WHERE client_id = $1 AND expires_at <= $2";
        let params: [Param<'_>; 2] = [(&self.seal.client_id(), Type::TEXT), (&now_ms, Type::INT8)];
        self.read(delete, &params, deadline, |_| Ok(())).map(drop)
    }

    fn other_clients(&self, deadline: &Deadline) -> Result<Vec<OtherClient>> {
        // A loose index scan, since there are few apps and many records.
        let select = "WITH RECURSIVE c AS (
                SELECT min(client_id) AS id FROM ghl_oauth_token
                UNION ALL
                SELECT (SELECT min(client_id) FROM ghl_oauth_token WHERE client_id > c.id)
                FROM c WHERE c.id IS NOT NULL
            )
            SELECT id, (SELECT count(*) FROM ghl_oauth_token AS t WHERE t.client_id = c.id) FROM c
            WHERE id IS NOT NULL AND id <> $1 LIMIT $2";
        let most = i64::try_from(MAX_CLIENTS).unwrap_or(i64::MAX);
        let params: [Param<'_>; 2] = [(&self.seal.client_id(), Type::TEXT), (&most, Type::INT8)];
        self.read(select, &params, deadline, |found| {
            let tokens: i64 = found.try_get(1)?;
            Ok(OtherClient { client_id: found.try_get(0)?, tokens: tokens.unsigned_abs() })
        })
    }

    fn of_client(&self, client_id: &str) -> Result<Option<Arc<dyn Store>>> {
        Ok(Some(Arc::new(PostgresStore {
            pool: Arc::clone(&self.pool),
            locks: Arc::default(),
            seal: self.seal.of_client(client_id),
            idle_limit: self.idle_limit,
        })))
    }
}

impl PostgresStore {
    fn remove_chunk(&self, records: &[(String, u64)], deadline: &Deadline) -> Result<Vec<bool>> {
        let left = "SELECT resource_id FROM ghl_oauth_token WHERE client_id = $1 \
                    AND resource_id = ANY($2)";
        let client_id = self.seal.client_id();
        let resource_ids: Vec<&str> =
            records.iter().map(|(resource_id, _)| resource_id.as_str()).collect();
        let versions: Vec<i64> = records.iter().map(|(_, version)| version.cast_signed()).collect();
        let params: [Param<'_>; 3] = [
            (&client_id, Type::TEXT),
            (&resource_ids, Type::TEXT_ARRAY),
            (&versions, Type::INT8_ARRAY),
        ];
        let removed = self.pool.run(Priority::Critical, deadline, async |client, again| {
            let mut removed: HashSet<String> =
                ids(client, DELETE_ALL, &params).await?.into_iter().collect();
            if again && removed.len() < records.len() {
                // The missing rows may have been removed by an earlier attempt that lost its
                // response.
                let left: HashSet<String> =
                    ids(client, left, &params[..2]).await?.into_iter().collect();
                let gone = resource_ids.iter().filter(|id| !left.contains(**id));
                removed.extend(gone.map(|id| (*id).to_owned()));
            }
            Ok(removed)
        })?;
        Ok(resource_ids.iter().map(|id| removed.contains(*id)).collect())
    }

    fn save_note_chunk(&self, notes: &[&Note], deadline: &Deadline) -> Vec<Result<()>> {
        let mut sorted = notes.to_vec();
        sorted.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        let outcome = |written: &HashSet<String>, note: &Note| match written.contains(&note.key) {
            true => Ok(()),
            false => Err(super::note_changed_meanwhile(&note.key)),
        };
        match self.put_notes(&sorted, deadline) {
            Ok(written) => notes.iter().map(|note| outcome(&written, note)).collect(),
            Err(error) => notes.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn save_chunk(&self, records: &[Record], deadline: &Deadline) -> Vec<Result<u64>> {
        let rows = records.iter().map(|record| self.seal.row(record)).collect::<Result<Vec<_>>>();
        let mut rows = match rows {
            Ok(rows) => rows,
            Err(error) => return records.iter().map(|record| Err(named(&error, record))).collect(),
        };
        // All writers use the same order, to avoid deadlocks.
        rows.sort_unstable_by(|one, other| one.resource_id.cmp(&other.resource_id));
        match self.put_all(&rows, deadline) {
            Ok(written) => {
                let outcome = |record: &Record| match written.contains(&record.resource_id) {
                    true => Ok(record.next_version()),
                    false => Err(super::changed_meanwhile(&record.resource_id)),
                };
                records.iter().map(outcome).collect()
            }
            Err(error) => records.iter().map(|record| Err(named(&error, record))).collect(),
        }
    }
}

fn named(error: &Error, record: &Record) -> Error {
    error.clone().with_resource(&record.resource_id)
}

/// Converts a row. A NULL document makes the record unreadable; a wrong column type is an error.
fn stored_row(found: &Found) -> Result<StoredRow, tokio_postgres::Error> {
    Ok(StoredRow {
        resource_id: found.try_get(0)?,
        version: found.try_get::<_, i64>(1)?.cast_unsigned(),
        document: Zeroizing::new(found.try_get::<_, Option<_>>(2)?.unwrap_or_default()),
    })
}

/// Reads a note. An unreadable document counts as empty.
fn read_note(found: &Found) -> Result<Note, tokio_postgres::Error> {
    let document: Option<&[u8]> = found.try_get(4)?;
    Ok(Note {
        key: found.try_get(0)?,
        version: found.try_get::<_, i64>(1)?.cast_unsigned(),
        list: found.try_get::<_, Option<_>>(2)?.unwrap_or_default(),
        expires_at: found.try_get::<_, Option<_>>(3)?.unwrap_or_default(),
        document: document.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default(),
    })
}
