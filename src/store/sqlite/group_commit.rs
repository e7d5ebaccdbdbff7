//! Group commit: rows that several threads save at the same time are written in one transaction, at
//! the cost of one fsync. The thread that has write access also writes the rows of the threads that
//! wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::store::row::Row;

/// The rows that wait to be written.
#[derive(Default)]
pub struct CommitGroup(Mutex<Vec<Arc<PendingRow>>>);

pub struct PendingRow {
    pub row: Row,
    /// Whether its commit must survive a power failure.
    pub is_synced: bool,
    /// Whether the row was written, or lost the compare-and-swap. Set after the commit.
    pub saved: OnceLock<bool>,
    /// Whether its thread has stopped waiting, so that no other thread should write it.
    is_abandoned: AtomicBool,
}

impl CommitGroup {
    /// Adds a row to the queue.
    pub fn enter(&self, row: Row, is_synced: bool) -> Arc<PendingRow> {
        let pending = Arc::new(PendingRow {
            row,
            is_synced,
            saved: OnceLock::new(),
            is_abandoned: AtomicBool::new(false),
        });
        self.waiting().push(Arc::clone(&pending));
        pending
    }

    /// Moves the waiting rows to a batch.
    pub fn join(&self, batch: &mut Vec<Arc<PendingRow>>) {
        let waiting = std::mem::take(&mut *self.waiting());
        batch.extend(waiting.into_iter().filter(|pending| !pending.is_abandoned()));
    }

    /// Returns the rows of a batch to the queue.
    pub fn give_back(&self, batch: &mut Vec<Arc<PendingRow>>) {
        batch.retain(|pending| !pending.is_abandoned());
        self.waiting().append(batch);
    }

    /// Removes a row from the queue, because its thread stops waiting. Another thread may be
    /// writing the row at this moment.
    pub fn leave(&self, own: &Arc<PendingRow>) {
        own.is_abandoned.store(true, Ordering::Relaxed);
        self.waiting().retain(|other| !Arc::ptr_eq(other, own));
    }

    /// Number of waiting rows.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting().len()
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<PendingRow>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingRow {
    fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }
}
