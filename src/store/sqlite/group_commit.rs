//! Group commit: rows that several threads save at the same time are written in one transaction, for the price of one
//! fsync. The thread that has the writing handle also writes the rows of the threads that wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::store::row::Row;

/// The rows that wait for the handle.
#[derive(Default)]
pub struct CommitGroup(Mutex<Vec<Arc<PendingRow>>>);

/// A row on its way into the database.
pub struct PendingRow {
    /// The row.
    pub row: Row,
    /// Whether it was written, or another version stood there; set once it is on the disk.
    pub saved: OnceLock<bool>,
    /// Whether its thread no longer waits, so that no other thread should write it.
    is_given_up: AtomicBool,
}

impl CommitGroup {
    /// Enters a row.
    pub fn enter(&self, row: Row) -> Arc<PendingRow> {
        let pending =
            Arc::new(PendingRow { row, saved: OnceLock::new(), is_given_up: AtomicBool::new(false) });
        self.waiting().push(Arc::clone(&pending));
        pending
    }

    /// Adds every waiting row to a batch.
    pub fn join(&self, batch: &mut Vec<Arc<PendingRow>>) {
        let waiting = std::mem::take(&mut *self.waiting());
        batch.extend(waiting.into_iter().filter(|pending| !pending.is_given_up()));
    }

    /// The rows of a batch wait again.
    pub fn give_back(&self, batch: &mut Vec<Arc<PendingRow>>) {
        batch.retain(|pending| !pending.is_given_up());
        self.waiting().append(batch);
    }

    /// The thread of this row waits no longer. The row may be under way all the same.
    pub fn leave(&self, own: &Arc<PendingRow>) {
        own.is_given_up.store(true, Ordering::Relaxed);
        self.waiting().retain(|other| !Arc::ptr_eq(other, own));
    }

    /// How many rows wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting().len()
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<PendingRow>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingRow {
    fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }
}
