//! Where tokens are kept. A store knows nothing of HTTP, and nothing of when a token is due.

#[cfg(feature = "sqlite")]
mod file_lock;
mod memory;
mod note;
mod record;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::sync::Arc;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::token::UserType;

pub use memory::MemoryStore;
pub use note::{Note, NotePage};
pub use record::{Intent, Record, Standing};
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

    /// When the first of the records, of a company and its locations or of all, should be renewed, in milliseconds since the
    /// epoch.
    fn next_renewal(&self, company_id: Option<&str>) -> Result<Option<i64>>;

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
    /// Only those that should be renewed by then, in milliseconds since the epoch.
    pub renew_by: Option<i64>,
    /// Only ids after this one.
    pub after: Option<String>,
    /// How many at most.
    pub limit: usize,
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
    /// A page of at most `limit` records, out of a list that has one more where there is a next page.
    fn cut(mut records: Vec<Record>, limit: usize) -> Page {
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

/// Opens the store that the configuration names.
///
/// # Errors
/// `STORE` when it cannot be opened.
pub fn open(config: &Config) -> Result<Arc<dyn Store>> {
    match &config.store.path {
        #[cfg(feature = "sqlite")]
        Some(path) => Ok(Arc::new(SqliteStore::open(path, &config.client_id)?)),
        _ => Ok(Arc::new(MemoryStore::default())),
    }
}
