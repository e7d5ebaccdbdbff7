//! The last failure of each token: kept in its record, or in memory if the store fails.
//!
//! A refresh that fails is saved anyway, with its outcome; the failure is part of that save, under
//! the resource's lock. Other failures, such as a failed mint, are saved rarely. A saved failure
//! is a compare-and-swap of the loaded record like any other: it never replaces a newer token and
//! never restores a deleted record.

use std::sync::Arc;
use std::time::Duration;

use super::schedule::INACTIVE_HOLD_MS;
use super::unsaved_failures::UNKNOWN_EXPIRY;
use super::writer::TokenWriter;
use super::{BRIEF_WAIT, LOCK_WAIT};
use crate::deadline::Deadline;
use crate::deferred_callbacks;
use crate::error::{Error, Status};
use crate::store::{Record, Standing};
use crate::token::LastFailure;

/// How often a failure is saved that needs a save of its own. Failures of another status are saved
/// at once.
const SAVE_INTERVAL_MS: i64 = 60_000;

/// Notes the failures of renewals.
pub struct LastFailures {
    pub(super) writer: Arc<TokenWriter>,
}

impl LastFailures {
    /// Adds a failed renewal to its record, which the caller saves.
    pub fn add(&self, record: &mut Record, error: &Error) {
        let earlier = self.writer.records.last_failure(record);
        let times = (self.writer.clock.wall_ms(), self.next_attempt_at(record, error));
        let expires_at = record.token.expires_at;
        record.last_failure =
            Some(Arc::new(LastFailure::new(error, times, expires_at, earlier.as_deref())));
    }

    /// Remembers the failure of a record that could not be saved.
    pub fn keep(&self, record: &Record) {
        if let Some(failure) = &record.last_failure {
            self.writer.records.failures.insert(&record.resource_id, Arc::clone(failure));
        }
    }

    /// Saves the record with the outcome of a failed renewal. If that fails, the failure is kept in
    /// memory.
    pub fn save_outcome(&self, record: &mut Record, what: &str, deadline: &Deadline) {
        match self.writer.note_standing(record, deadline) {
            Ok(()) if record.last_failure.is_some() => {
                self.writer.records.failures.remove(&record.resource_id);
            }
            Ok(()) => {}
            Err(error) => {
                self.keep(record);
                log::error!("{what} could not be saved{}", error.fields(&record.resource_id));
            }
        }
    }

    /// Notes a failure that no save of its flight has recorded, such as a failed mint. `stored` is
    /// the record after the flight, if it could be read.
    pub fn note(
        &self,
        resource_id: &str,
        stored: Option<&Record>,
        error: &Error,
        deadline: &Deadline,
    ) -> Option<Arc<LastFailure>> {
        let Some(stored) = stored else {
            let times = (self.writer.clock.wall_ms(), None);
            let failure = Arc::new(LastFailure::new(error, times, UNKNOWN_EXPIRY, None));
            self.writer.records.failures.insert(resource_id, Arc::clone(&failure));
            return Some(failure);
        };
        let mut record = stored.clone();
        self.add(&mut record, error);
        let is_repeated = stored.last_failure.as_ref().is_some_and(|last| {
            let age = self.writer.clock.wall_ms().saturating_sub(last.at);
            last.status == error.status().name() && (0..SAVE_INTERVAL_MS).contains(&age)
        });
        // An unsaved token is not saved with a failure: its own save decides conflicts.
        let is_saved = error.status() != Status::Store
            && !is_repeated
            && !self.writer.records.is_unsaved(resource_id)
            && self.save(&mut record, error, deadline);
        if is_saved {
            self.writer.records.failures.remove(resource_id);
        } else {
            self.keep(&record);
        }
        record.last_failure
    }

    /// Notes the failed mint of a location that has a token. A location without one has no record;
    /// the call reports its failure.
    pub fn note_mint(&self, resource_id: &str, error: &Error, deadline: &Deadline) {
        let _deferred = deferred_callbacks::defer();
        if let Ok(Some(record)) = self.writer.records.load(resource_id, &deadline.within(LOCK_WAIT))
            && !is_of_standing(error, &record)
        {
            self.note(resource_id, Some(&record), error, &deadline.within(LOCK_WAIT));
        }
    }

    /// Saves a failure under the resource's lock, unless another caller holds it, or the record has
    /// changed or is being deleted. Returns whether it was saved.
    fn save(&self, record: &mut Record, error: &Error, deadline: &Deadline) -> bool {
        let resource_id = &record.resource_id;
        let Ok(_lock) = self.writer.records.lock(resource_id, &deadline.within(BRIEF_WAIT)) else {
            return false;
        };
        match self.writer.records.load_stored(resource_id, deadline) {
            Ok(Some(stored))
                if stored.token.expires_at == record.token.expires_at
                    && !self.writer.records.may_be_in_deletion(&stored, deadline) =>
            {
                if stored.version != record.version {
                    *record = stored;
                    self.add(record, error);
                }
                self.writer.note_standing(record, deadline).is_ok()
            }
            _ => false,
        }
    }

    /// The earliest time at which the API is asked again after this failure; `None` if only a
    /// consent or an import helps.
    fn next_attempt_at(&self, record: &Record, error: &Error) -> Option<i64> {
        let now = self.writer.clock.wall_ms();
        let pause = match record.standing {
            Standing::ReauthorizationRequired { .. } => return None,
            Standing::Inactive { since_ms } => {
                return Some(since_ms.saturating_add(INACTIVE_HOLD_MS));
            }
            Standing::Good => {
                let left = self.writer.published.left(record);
                if left.is_zero() {
                    self.writer.cooldowns.pause_after(
                        &record.resource_id,
                        error,
                        self.writer.clock.uptime(),
                    )
                } else {
                    left.min(self.writer.cache.backoff_after_failure(&record.resource_id))
                }
            }
        };
        let pause: Duration = pause.max(error.retry_after().unwrap_or_default());
        Some(now.saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// Whether an error only repeats what the record's standing says. Its failure was saved together
/// with the standing.
pub fn is_of_standing(error: &Error, record: &Record) -> bool {
    match record.standing {
        Standing::Good => false,
        Standing::Inactive { .. } => error.status() == Status::LocationInactive,
        Standing::ReauthorizationRequired { .. } => {
            error.status() == Status::ReauthorizationRequired
        }
    }
}
