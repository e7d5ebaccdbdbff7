//! The token store: the trait that every kind of store implements, with compare-and-swap by
//! version. A store knows nothing of HTTP, and nothing of when a token is due.

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

/// A place that keeps one [`Record`] per company or location, and a few [`Note`]s.
///
/// What `save` has answered with success survives a crash, as far as the store promises to survive one. Every call ends
/// by its deadline, with `TIMEOUT`, or soon after its deadline is cancelled, with `CANCELLED`. A call that fails with
/// `TIMEOUT` or `STORE` may still have been carried out.
pub trait Store: Send + Sync {
    /// The record of a resource, if there is one.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`; for a record that cannot be read, an error that [`Error::is_unreadable`].
    fn load(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Record>>;

    /// The version of a resource's record, if there is one, readable or not.
    fn version(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<u64>>;

    /// Saves durably by compare-and-swap: the stored version must still be `record.version` (0: there is no record yet).
    /// A first save also compares the tombstone with `record.predecessor`, if the store
    /// [compares tombstones](Store::compares_tombstones). Returns the new version.
    ///
    /// # Errors
    /// `CONFLICT` when the stored version or the tombstone differs; `STORE` when it could not be saved; `TIMEOUT`;
    /// `CANCELLED`.
    fn save(&self, record: &Record, deadline: &Deadline) -> Result<u64>;

    /// Whether a first save compares the tombstone of its resource in the same step. Otherwise the caller looks at the
    /// tombstone again after a first save.
    fn compares_tombstones(&self) -> bool {
        false
    }

    /// Saves many records as [`Store::save`] does, at the price of one save if the store can do that. The results come
    /// in the order of the records.
    fn save_all(&self, records: &[Record], deadline: &Deadline) -> Vec<Result<u64>> {
        records.iter().map(|record| self.save(record, deadline)).collect()
    }

    /// Removes each of these records whose stored version is still the given one; answers which were removed, in their
    /// order.
    fn remove_all(&self, records: &[(String, u64)], deadline: &Deadline) -> Result<Vec<bool>>;

    /// A page of records, in the order of their resource ids.
    fn list(&self, query: &Query, deadline: &Deadline) -> Result<Page>;

    /// A page of at most `limit` records, of a company and its locations or of all, whose time of renewal lies in
    /// `renewals`; `after` is the `next` of the page before. The earliest come first, if the store keeps an order.
    fn due(
        &self,
        company_id: Option<&str>,
        renewals: &RangeInclusive<i64>,
        after: Option<&str>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<DuePage>;

    /// When the first of the records, of a company and its locations or of all, should be renewed, in milliseconds since the
    /// epoch.
    fn next_renewal(&self, company_id: Option<&str>, deadline: &Deadline) -> Result<Option<i64>>;

    /// Seals with the first key whatever another key sealed, or none, unless it is changed meanwhile. Of `whole` only the
    /// cancellation counts: each step has a time of its own. Ends early when `should_continue`, which is told how many
    /// were sealed so far, says so. A store that seals nothing has nothing to do.
    ///
    /// # Errors
    /// `STORE` when the store cannot be read or written. What cannot be opened is no error, but named in the result.
    fn reseal(&self, _whole: &Deadline, _go_on: &dyn Fn(u64) -> bool) -> Result<Resealed> {
        Ok(Resealed::default())
    }

    /// The refresh lock of a resource, held until the guard is dropped or its holder dies. Never blocks
    /// another resource for longer than a refresh takes.
    ///
    /// # Errors
    /// `TIMEOUT`, `CANCELLED`, or `STORE`.
    fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>>;

    /// The note under a key, if there is one; one that has expired may still be there.
    fn note(&self, key: &str, deadline: &Deadline) -> Result<Option<Note>>;

    /// Saves a note durably, provided that the stored version is still `note.version` (0: there is none yet).
    ///
    /// # Errors
    /// `CONFLICT` when the stored version is another one; `STORE` when it could not be saved.
    fn save_note(&self, note: &Note, deadline: &Deadline) -> Result<()>;

    /// Saves many notes as [`Store::save_note`] does, at the price of one save if the store can do that.
    fn save_notes(&self, notes: &[Note], deadline: &Deadline) -> Vec<Result<()>> {
        notes.iter().map(|note| self.save_note(note, deadline)).collect()
    }

    /// A page of at most `limit` notes of a list, in the order of their keys, after the key `after`.
    fn notes(&self, list: &str, after: Option<&str>, limit: usize, deadline: &Deadline) -> Result<NotePage>;

    /// Removes the notes that have expired.
    fn prune_notes(&self, now_ms: i64, deadline: &Deadline) -> Result<()>;

    /// The other client ids that have records in the same database, at most [`MOST_CLIENTS`]. A store that keeps the records of
    /// one client id only has none.
    fn other_clients(&self, _deadline: &Deadline) -> Result<Vec<OtherClient>> {
        Ok(Vec::new())
    }

    /// The records of another client id in the same database, sealed with the same keys; `None` if the store keeps the records
    /// of one client id only.
    fn of_client(&self, _client_id: &str) -> Result<Option<Arc<dyn Store>>> {
        Ok(None)
    }
}

/// How many other client ids are reported.
pub const MAX_CLIENTS: usize = 100;

/// Another client id that has records in the same database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherClient {
    /// The client id.
    pub client_id: String,
    /// How many records it has.
    pub tokens: u64,
}

/// What the keys of tombstones begin with: the id of the deleted resource follows.
pub const TOMBSTONE: &str = "deleted/";

/// A held refresh lock; dropping it gives it back.
pub trait Lock {}

/// Which records are listed.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only this company and its locations.
    pub company_id: Option<String>,
    /// Only companies, or only locations.
    pub user_type: Option<UserType>,
    /// Only ids after this one.
    pub after: Option<String>,
    /// How many at most.
    pub limit: usize,
}

impl Query {
    /// Whether a record is among those that are meant, on whichever page.
    pub fn matches(&self, record: &Record) -> bool {
        self.user_type.is_none_or(|kind| record.token.kind() == kind)
            && self.company_id.as_ref().is_none_or(|id| record.token.company_id.as_ref() == Some(id))
    }
}

/// A page of what should be renewed.
#[derive(Debug, Default)]
pub struct DuePage {
    /// The companies and locations.
    pub resource_ids: Vec<String>,
    /// The place to go on after, when there are more.
    pub next: Option<String>,
}

/// A place in the order of renewal: a time, and an id where it is the same.
type DuePosition = (i64, String);

impl DuePage {
    /// A page of at most `limit` places in the order of renewal, out of a list that has one more where there is a next page.
    fn cut(mut positions: Vec<DuePosition>, limit: usize) -> DuePage {
        let more = positions.len() > limit;
        positions.truncate(limit);
        let next = positions.last().filter(|_| more).map(|(renew_at, id)| format!("{renew_at} {id}"));
        DuePage { resource_ids: positions.into_iter().map(|(_, id)| id).collect(), next }
    }

    /// The place that a `next` names; without one, the place before every other.
    fn position(next: Option<&str>) -> DuePosition {
        let named = next.and_then(|next| next.split_once(' '));
        let position = named.and_then(|(renew_at, id)| Some((renew_at.parse().ok()?, id.to_owned())));
        position.unwrap_or((i64::MIN, String::new()))
    }
}

/// What sealing anew did.
#[derive(Debug, Default)]
pub struct Resealed {
    /// How many records were sealed.
    pub sealed: u64,
    /// How many were not: they cannot be opened, or changed meanwhile.
    pub left: u64,
    /// Why those cannot be opened: the first hundred, each with its resource, and one error for each key that is not given.
    pub failures: Vec<Error>,
}

impl Resealed {
    fn fail(&mut self, error: Error) {
        if self.failures.len() < 100 {
            self.failures.push(error);
        }
    }
}

/// A page of records.
#[derive(Debug)]
pub struct Page {
    /// The records.
    pub records: Vec<Record>,
    /// The records of the page that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// The id to continue after, when there are more.
    pub next: Option<String>,
}

/// A stored record that cannot be read: damaged, or sealed with a key that is not given.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// The company or location.
    pub resource_id: String,
    /// The stored version.
    pub version: u64,
    /// Why it cannot be read; [`Error::is_unreadable`].
    pub error: Error,
}

impl Page {
    /// A page of at most `limit` records, out of a list that has more if there is a next page.
    pub fn cut(mut records: Vec<Record>, limit: usize) -> Page {
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|last| last.resource_id.clone());
        Page { records, unreadable: Vec::new(), next }
    }

    /// The same, out of stored rows.
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
    Error::new(Status::Conflict, "the stored token was changed by somebody else").with_resource(resource_id)
}

fn note_changed_meanwhile(key: &str) -> Error {
    Error::new(Status::Conflict, format!("the note {key} was changed by somebody else"))
}

/// The seal of an app's records, with the keys that the configuration gives.
///
/// # Errors
/// `CONFIG` for a key that is none, or a file of keys that cannot be read.
pub fn seal(config: &Config) -> Result<Seal> {
    let (keys, named) = config.store.keys()?;
    Seal::new(&config.client_id, &keys, config.store.sealed_only, named)
}

/// Makes the paths of a backend absolute, and the path of an SQLite database canonical, so that a later change of the
/// working directory or of a link leads to no other file.
///
/// # Errors
/// `STORE` when the path of the database leads nowhere.
pub fn resolve_paths(backend: &mut Backend) -> Result<()> {
    match backend {
        #[cfg(feature = "sqlite")]
        Backend::Sqlite { path } => *path = sqlite::locate(path)?,
        Backend::Postgres { ca_bundle_path: Some(path), .. } => make_absolute(path),
        _ => {}
    }
    Ok(())
}

/// Opens a store, its records sealed by `seal`: the one of the `host`, if there is one. The database of SQLite is made if
/// `may_be_made`: not in a forked child, whose parent had it open. It waits for other programs until `timeouts.totalMs` have
/// passed.
///
/// # Errors
/// `CONFIG` if the backend and the host do not fit together; `STORE` when it cannot be opened; `TIMEOUT` if another program
/// held it for too long.
#[cfg_attr(not(all(feature = "sqlite", feature = "postgres")), allow(unused_variables))]
pub fn open(
    backend: &Backend,
    may_be_made: bool,
    timeouts: &Timeouts,
    host: Option<&Arc<dyn Host>>,
    seal: &Seal,
) -> Result<Arc<dyn Store>> {
    match (backend, host) {
        (Backend::Callbacks, Some(host)) => Ok(Arc::new(HostStore::new(Arc::clone(host), seal.clone()))),
        (Backend::Callbacks, None) => {
            Err(Error::new(Status::Config, "store.kind is \"callbacks\", and no callbacks are given")
                .with_help("make the client with ghl_client_new_with_store")
                .with_parameter("store.kind"))
        }
        (backend, Some(_)) => Err(Error::new(
            Status::Config,
            format!("callbacks are given, and store.kind is \"{}\"", backend.kind()),
        )
        .with_help("leave \"store\" out, or let its kind be \"callbacks\"")
        .with_parameter("store.kind")),
        #[cfg(feature = "postgres")]
        (Backend::Postgres { url, ca_bundle_path }, None) => {
            Ok(Arc::new(PostgresStore::open(url, ca_bundle_path.as_deref(), timeouts, seal.clone())?))
        }
        #[cfg(feature = "sqlite")]
        (Backend::Sqlite { path }, None) => {
            let deadline = Deadline::after(Duration::from_millis(timeouts.total_ms), &Arc::default());
            Ok(Arc::new(SqliteStore::open_by(path, seal.clone(), may_be_made, &deadline)?))
        }
        _ => Ok(Arc::new(MemoryStore::default())),
    }
}
