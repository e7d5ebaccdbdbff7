//! The token store: the trait that every kind of store implements, with compare-and-swap by
//! version. A store knows neither HTTP nor when a token is due.

// Windows protects files by access lists. The tests of their text run everywhere.
#[cfg(all(feature = "sqlite", any(windows, test)))]
mod access_list;
#[cfg(feature = "sqlite")]
mod file_lock;
mod host;
mod memory;
mod note;
#[cfg(feature = "postgres")]
mod postgres;
mod process_lock;
mod record;
mod row;
mod seal;
mod spent_digests;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod user_only;

use std::ops::RangeInclusive;
use std::sync::Arc;
#[cfg(feature = "sqlite")]
use std::time::Duration;

use serde::Serialize;

use crate::config::{Backend, Config, Timeouts, make_absolute};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::token::UserType;

pub use host::{Host, HostStore};
pub use memory::MemoryStore;
pub use note::{Note, NotePage};
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use record::{Intent, Record, Standing};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use row::StoredRow;
pub use seal::Seal;
pub use spent_digests::{SpentDigest, SpentDigests};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

/// Storage for one [`Record`] per company or location, and a few [`Note`]s.
///
/// A successful save is durable, as far as the kind of store allows. Every call ends by its
/// deadline, with `TIMEOUT`, or soon after its cancellation, with `CANCELLED`. A write that fails
/// with `TIMEOUT` or `STORE` may still have been carried out.
pub trait Store: Send + Sync {
    /// Loads the record of a resource, if it exists.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`; if the record is unreadable, an error for which
    /// [`Error::is_unreadable`] is true.
    fn load(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Record>>;

    /// The version of a resource's record, if the record exists, readable or not.
    fn version(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<u64>>;

    /// Saves a record durably by compare-and-swap: the stored version must equal `record.version`
    /// (0: no record exists). If the store [compares tombstones](Store::compares_tombstones), a
    /// first save also requires that the tombstone's version equals `record.predecessor`. Returns
    /// the new version.
    ///
    /// # Errors
    /// `CONFLICT` if the stored version or the tombstone differs; `STORE`, `TIMEOUT`, `CANCELLED`.
    fn save(&self, record: &Record, deadline: &Deadline) -> Result<u64>;

    /// Saves the intent of a record whose token is already stored. Like [`Store::save`], but a
    /// power failure may undo it. If users of the store survive that, as the clients of a
    /// database server do, no other save may use the new version.
    ///
    /// # Errors
    /// As [`Store::save`].
    fn save_intent(&self, record: &Record, deadline: &Deadline) -> Result<u64> {
        self.save(record, deadline)
    }

    /// Whether a first save atomically compares the resource's tombstone. Otherwise the caller
    /// checks the tombstone again after a first save.
    fn compares_tombstones(&self) -> bool {
        false
    }

    /// Saves many records like [`Store::save`], at the cost of one save if the store can. The
    /// results are in the order of the records.
    fn save_all(&self, records: &[Record], deadline: &Deadline) -> Vec<Result<u64>> {
        records.iter().map(|record| self.save(record, deadline)).collect()
    }

    /// Removes each record whose stored version equals the given one. Returns which were removed,
    /// in the same order.
    fn remove_all(&self, records: &[(String, u64)], deadline: &Deadline) -> Result<Vec<bool>>;

    /// A page of records, ordered by resource ID.
    fn list(&self, query: &Query, deadline: &Deadline) -> Result<Page>;

    /// A page of at most `limit` resources whose renewal time is within `renewals`, optionally only
    /// of a company and its locations. `after` is the `next` of the previous page. Ordered by
    /// renewal time, if the store supports that.
    fn due(
        &self,
        company_id: Option<&str>,
        renewals: &RangeInclusive<i64>,
        after: Option<&str>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<DuePage>;

    /// The earliest renewal time, in milliseconds since the epoch: of all records, or of a company
    /// and its locations.
    fn next_renewal(&self, company_id: Option<&str>, deadline: &Deadline) -> Result<Option<i64>>;

    /// Reseals each record that is not sealed with the first key, unless it changes in the
    /// meantime. Stops early if `should_continue`, which gets the number of records resealed so
    /// far, returns false. Of `overall`, only the cancellation applies, since each step has its own
    /// deadline. Does nothing in a store that seals nothing.
    ///
    /// # Errors
    /// `STORE` if the store cannot be read or written. Records that cannot be opened are no error:
    /// the result lists them.
    fn reseal(
        &self,
        _overall: &Deadline,
        _should_continue: &dyn Fn(u64) -> bool,
    ) -> Result<Resealed> {
        Ok(Resealed::default())
    }

    /// Takes the refresh lock of a resource. It is released when the guard is dropped or its holder
    /// dies. It never blocks another resource for longer than a refresh takes.
    ///
    /// # Errors
    /// `TIMEOUT`, `CANCELLED`, or `STORE`.
    fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>>;

    /// The note with this key, if it exists. An expired note may still exist.
    fn note(&self, key: &str, deadline: &Deadline) -> Result<Option<Note>>;

    /// Saves a note durably by compare-and-swap: the stored version must equal `note.version` (0:
    /// no note exists).
    ///
    /// # Errors
    /// `CONFLICT` if the stored version differs; `STORE`, `TIMEOUT`, `CANCELLED`.
    fn save_note(&self, note: &Note, deadline: &Deadline) -> Result<()>;

    /// Saves many notes like [`Store::save_note`], at the cost of one save if the store can.
    fn save_notes(&self, notes: &[Note], deadline: &Deadline) -> Vec<Result<()>> {
        notes.iter().map(|note| self.save_note(note, deadline)).collect()
    }

    /// A page of at most `limit` notes of a list after the key `after`, ordered by key.
    fn notes(
        &self,
        list: &str,
        after: Option<&str>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<NotePage>;

    /// Removes expired notes.
    fn prune_notes(&self, now_ms: i64, deadline: &Deadline) -> Result<()>;

    /// Other client IDs with records in the same database, at most [`MAX_CLIENTS`]. Empty for a
    /// store that holds the records of one app only.
    fn other_clients(&self, _deadline: &Deadline) -> Result<Vec<OtherClient>> {
        Ok(Vec::new())
    }

    /// The store of another app's records in the same database, with the same keys; `None` if the
    /// store holds the records of one app only.
    fn of_client(&self, _client_id: &str) -> Result<Option<Arc<dyn Store>>> {
        Ok(None)
    }
}

/// Maximum number of other client IDs that are reported.
pub const MAX_CLIENTS: usize = 100;

/// Another app with records in the same database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherClient {
    pub client_id: String,
    /// Its number of records.
    pub tokens: u64,
}

/// Prefix of a tombstone's key; the ID of the deleted resource follows.
pub const TOMBSTONE: &str = "deleted/";

/// A guard for a refresh lock. Dropping it releases the lock.
pub trait Lock {}

/// Filter and page of a list request.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only this company and its locations.
    pub company_id: Option<String>,
    /// Only companies, or only locations.
    pub user_type: Option<UserType>,
    /// Only IDs greater than this one.
    pub after: Option<String>,
    /// Maximum number of records.
    pub limit: usize,
}

impl Query {
    /// Whether a record passes the filter, on any page.
    pub fn matches(&self, record: &Record) -> bool {
        self.user_type.is_none_or(|kind| record.token.kind() == kind)
            && self
                .company_id
                .as_ref()
                .is_none_or(|id| record.token.company_id.as_ref() == Some(id))
    }
}

#[derive(Debug, Default)]
pub struct DuePage {
    /// The companies and locations.
    pub resource_ids: Vec<String>,
    /// The position to continue after, if there are more.
    pub next: Option<String>,
}

/// A position in the order of renewal: renewal time, then resource ID.
type DuePosition = (i64, String);

impl DuePage {
    /// The first `limit` of the `positions`. There is a next page if there are more.
    fn cut(mut positions: Vec<DuePosition>, limit: usize) -> DuePage {
        let more = positions.len() > limit;
        positions.truncate(limit);
        let next =
            positions.last().filter(|_| more).map(|(renew_at, id)| format!("{renew_at} {id}"));
        DuePage { resource_ids: positions.into_iter().map(|(_, id)| id).collect(), next }
    }

    /// Parses a `next`; `None` is the position before all others.
    fn position(next: Option<&str>) -> DuePosition {
        let named = next.and_then(|next| next.split_once(' '));
        let position =
            named.and_then(|(renew_at, id)| Some((renew_at.parse().ok()?, id.to_owned())));
        position.unwrap_or((i64::MIN, String::new()))
    }
}

#[derive(Debug, Default)]
pub struct Resealed {
    /// Number of resealed records.
    pub sealed: u64,
    /// Number of other records: they cannot be opened, or changed in the meantime.
    pub left: u64,
    /// Why records cannot be opened, at most 100 errors: one per resource, or one per missing key.
    pub failures: Vec<Error>,
}

impl Resealed {
    fn fail(&mut self, error: Error) {
        if self.failures.len() < 100 {
            self.failures.push(error);
        }
    }
}

#[derive(Debug)]
pub struct Page {
    pub records: Vec<Record>,
    /// The records of the page that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// The ID to continue after, if there are more.
    pub next: Option<String>,
}

/// A stored record that cannot be read: damaged, or sealed with a key that is not configured.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// The company or location.
    pub resource_id: String,
    pub version: u64,
    /// Why it cannot be read; [`Error::is_unreadable`] is true.
    pub error: Error,
}

impl Page {
    /// The first `limit` of the `records`. There is a next page if there are more.
    pub fn cut(mut records: Vec<Record>, limit: usize) -> Page {
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|last| last.resource_id.clone());
        Page { records, unreadable: Vec::new(), next }
    }

    /// Like [`Page::cut`], from stored rows.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    fn open(mut rows: Vec<StoredRow>, limit: usize, seal: &Seal) -> Page {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|last| last.resource_id.clone());
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        for row in rows {
            let (resource_id, version) = (row.resource_id.clone(), row.version);
            match seal.record(row) {
                Ok(record) => records.push(record),
                Err(error) => unreadable.push(Unreadable { resource_id, version, error }),
            }
        }
        Page { records, unreadable, next }
    }
}

fn changed_meanwhile(resource_id: &str) -> Error {
    Error::new(Status::Conflict, "the stored token was changed by another writer")
        .with_resource(resource_id)
}

fn note_changed_meanwhile(key: &str) -> Error {
    Error::new(Status::Conflict, format!("the note {key} was changed by another writer"))
}

/// Creates the seal of an app's records, with the configured keys.
///
/// # Errors
/// `CONFIG` for an invalid key, or a key file that cannot be read.
pub fn seal(config: &Config) -> Result<Seal> {
    let (keys, named) = config.store.keys()?;
    Seal::new(&config.client_id, &keys, config.store.sealed_only, named)
}

/// Makes the paths of a backend absolute, and an SQLite database's path canonical, so that later
/// changes of the working directory or a symbolic link have no effect.
///
/// # Errors
/// `STORE` if the folder of the database does not exist.
pub fn resolve_paths(backend: &mut Backend) -> Result<()> {
    match backend {
        #[cfg(feature = "sqlite")]
        Backend::Sqlite { path } => *path = sqlite::locate(path)?,
        Backend::Postgres { ca_bundle_path: Some(path), .. } => make_absolute(path),
        _ => {}
    }
    Ok(())
}

/// Opens the configured store, or the `host`'s. Records are sealed by `seal`. An SQLite database is
/// created if `may_create`, which is false in a forked child, whose parent had it open. Waits for
/// other programs for up to `timeouts.totalMs`.
///
/// # Errors
/// `CONFIG` if the backend and `host` do not match; `STORE` if the store cannot be opened;
/// `TIMEOUT` if another program locked it for too long.
#[cfg_attr(not(all(feature = "sqlite", feature = "postgres")), allow(unused_variables))]
pub fn open(
    backend: &Backend,
    may_create: bool,
    timeouts: &Timeouts,
    host: Option<&Arc<dyn Host>>,
    seal: &Seal,
) -> Result<Arc<dyn Store>> {
    match (backend, host) {
        (Backend::Callbacks, Some(host)) => {
            Ok(Arc::new(HostStore::new(Arc::clone(host), seal.clone())))
        }
        (Backend::Callbacks, None) => Err(Error::new(
            Status::Config,
            "store.kind is \"callbacks\", but no callbacks are given",
        )
        .with_help("create the client with ghl_client_new_with_store")
        .with_parameter("store.kind")),
        (backend, Some(_)) => Err(Error::new(
            Status::Config,
            format!("callbacks are given, but store.kind is \"{}\"", backend.kind().name()),
        )
        .with_help("omit \"store\", or set its kind to \"callbacks\"")
        .with_parameter("store.kind")),
        #[cfg(feature = "postgres")]
        (Backend::Postgres { url, ca_bundle_path }, None) => Ok(Arc::new(PostgresStore::open(
            url,
            ca_bundle_path.as_deref(),
            timeouts,
            seal.clone(),
        )?)),
        #[cfg(feature = "sqlite")]
        (Backend::Sqlite { path }, None) => {
            let deadline =
                Deadline::after(Duration::from_millis(timeouts.total_ms), &Arc::default());
            Ok(Arc::new(SqliteStore::open_with_deadline(
                path,
                seal.clone(),
                may_create,
                &deadline,
            )?))
        }
        _ => Ok(Arc::new(MemoryStore::default())),
    }
}
