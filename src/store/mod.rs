//! Where tokens are kept. A store knows nothing of HTTP, and nothing of when a token is due.

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
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod user_only;

use std::sync::Arc;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::token::UserType;

pub use host::{Host, HostStore};
pub use memory::MemoryStore;
pub use note::{Note, NotePage};
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use record::{Intent, Record, Standing};
pub use seal::Seal;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

/// A place that keeps one [`Record`] per company or location, and a few [`Note`]s beside them.
///
/// What `save` has answered with success survives a crash, as far as the store promises to survive one.
pub trait Store: Send + Sync {
    /// The record of a resource, if there is one.
    fn load(&self, resource_id: &str) -> Result<Option<Record>>;

    /// Saves durably, provided that the stored version is still `record.version` (0: there is no record yet).
    /// Returns the new version.
    ///
    /// # Errors
    /// `CONFLICT` when the stored version is another one; `STORE` when it could not be saved.
    fn save(&self, record: &Record) -> Result<u64>;

    /// Saves many records as [`Store::save`] does, at the price of one where the store can do that. The results come in
    /// the order of the records.
    fn save_all(&self, records: &[Record]) -> Vec<Result<u64>> {
        records.iter().map(|record| self.save(record)).collect()
    }

    /// Removes a record; answers whether there was one.
    fn remove(&self, resource_id: &str) -> Result<bool>;

    /// A page of records, in the order of their resource ids.
    fn list(&self, query: &Query) -> Result<Page>;

    /// A page of at most `limit` records, of a company and its locations or of all, that should be renewed by `renew_by`;
    /// `after` is the `next` of the page before. Those that have waited longest come first, where the store can tell.
    fn due(
        &self,
        company_id: Option<&str>,
        renew_by: i64,
        after: Option<&str>,
        limit: usize,
    ) -> Result<DuePage>;

    /// When the first of the records, of a company and its locations or of all, should be renewed, in milliseconds since the
    /// epoch.
    fn next_renewal(&self, company_id: Option<&str>) -> Result<Option<i64>>;

    /// Seals with the first key whatever another key sealed, or none, unless it is changed meanwhile. Waits for nobody longer
    /// than `whole` lets it be cancelled. Ends early when `go_on`, which is told how many were sealed so far, says so. A store
    /// that seals nothing has nothing to do.
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

    /// The note under a key, if there is one; one whose time is over may still be there.
    fn note(&self, key: &str) -> Result<Option<Note>>;

    /// Saves a note durably, provided that the stored version is still `note.version` (0: there is none yet).
    ///
    /// # Errors
    /// `CONFLICT` when the stored version is another one; `STORE` when it could not be saved.
    fn save_note(&self, note: &Note) -> Result<()>;

    /// A page of at most `limit` notes of a list, in the order of their keys, after the key `after`.
    fn notes(&self, list: &str, after: Option<&str>, limit: usize) -> Result<NotePage>;

    /// Throws away the notes whose time is over.
    fn prune_notes(&self, now_ms: i64) -> Result<()>;
}

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
type Place = (i64, String);

impl DuePage {
    /// A page of at most `limit` places in the order of renewal, out of a list that has one more where there is a next page.
    fn cut(mut places: Vec<Place>, limit: usize) -> DuePage {
        let more = places.len() > limit;
        places.truncate(limit);
        let next = places.last().filter(|_| more).map(|(renew_at, id)| format!("{renew_at} {id}"));
        DuePage { resource_ids: places.into_iter().map(|(_, id)| id).collect(), next }
    }

    /// The place that a `next` names; without one, the place before every other.
    fn place(next: Option<&str>) -> Place {
        let named = next.and_then(|next| next.split_once(' '));
        let place = named.and_then(|(renew_at, id)| Some((renew_at.parse().ok()?, id.to_owned())));
        place.unwrap_or((i64::MIN, String::new()))
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
    /// The id to go on after, when there are more.
    pub next: Option<String>,
}

impl Page {
    /// A page of at most `limit` records, out of a list that has more where there is a next page.
    pub fn cut(mut records: Vec<Record>, limit: usize) -> Page {
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|last| last.resource_id.clone());
        Page { records, next }
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

/// Opens the store that the configuration names, its records sealed by `seal`: the one of the `host`, where there is
/// one.
///
/// # Errors
/// `CONFIG` where the configuration and the host do not fit together; `STORE` when it cannot be opened.
pub fn open(config: &Config, host: Option<&Arc<dyn Host>>, seal: &Seal) -> Result<Arc<dyn Store>> {
    match (config.store.kind.as_str(), host) {
        ("callbacks", Some(host)) => return Ok(Arc::new(HostStore::new(Arc::clone(host), seal.clone()))),
        ("callbacks", None) => {
            return Err(Error::new(
                Status::Config,
                "store.kind is \"callbacks\", and no callbacks are given",
            )
            .with_help("make the client with ghl_client_new_with_store")
            .with_parameter("store.kind"));
        }
        (kind, Some(_)) => {
            return Err(Error::new(
                Status::Config,
                format!("callbacks are given, and store.kind is \"{kind}\""),
            )
            .with_help("leave \"store\" out, or let its kind be \"callbacks\"")
            .with_parameter("store.kind"));
        }
        (_, None) => {}
    }
    #[cfg(feature = "postgres")]
    if let Some(url) = &config.store.url {
        let ca_bundle = config.store.ca_bundle_path.as_deref();
        return Ok(Arc::new(PostgresStore::open(url, ca_bundle, &config.timeouts, seal.clone())?));
    }
    match &config.store.path {
        #[cfg(feature = "sqlite")]
        Some(path) => Ok(Arc::new(SqliteStore::open(path, seal.clone())?)),
        _ => Ok(Arc::new(MemoryStore::default())),
    }
}
