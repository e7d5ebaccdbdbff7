//! Failures of renewals that could not be saved, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::Record;
use crate::token::LastFailure;

/// Above this many failures in memory, the oldest are forgotten.
const PRUNE_ABOVE: usize = 4096;

/// The expiry of a token that could not be read when its renewal failed.
pub const UNKNOWN_EXPIRY: i64 = i64::MIN;

/// Failures by resource. One of a token that was renewed since is ignored.
#[derive(Default)]
pub struct UnsavedFailures(Mutex<HashMap<String, Arc<LastFailure>>>);

impl UnsavedFailures {
    pub fn get(&self, record: &Record) -> Option<Arc<LastFailure>> {
        let entries = self.entries();
        // Without a failure, no hash is computed.
        if entries.is_empty() {
            return None;
        }
        let failure = entries.get(&record.resource_id).cloned()?;
        drop(entries);
        let is_of_token = match failure.expires_at {
            UNKNOWN_EXPIRY => record.token.issued_at.is_none_or(|issued| issued <= failure.at),
            expires_at => expires_at == record.token.expires_at,
        };
        is_of_token.then_some(failure)
    }

    pub fn insert(&self, resource_id: &str, failure: Arc<LastFailure>) {
        let mut entries = self.entries();
        if entries.len() >= PRUNE_ABOVE {
            let mut times: Vec<i64> = entries.values().map(|failure| failure.at).collect();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            entries.retain(|_, failure| failure.at > middle);
        }
        entries.insert(resource_id.to_owned(), failure);
    }

    pub fn remove(&self, resource_id: &str) {
        self.entries().remove(resource_id);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Arc<LastFailure>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
