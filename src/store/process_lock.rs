//! The refresh lock between the threads of one process.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::Lock;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::process;

/// How long a wait goes on before it looks for a cancellation.
const SLICE: Duration = Duration::from_millis(20);

/// The resources that are locked.
#[derive(Default)]
pub struct ProcessLocks {
    held: Mutex<HashSet<String>>,
    freed: Condvar,
}

/// A held lock.
pub struct ProcessLock {
    locks: Arc<ProcessLocks>,
    resource_id: String,
    generation: u32,
}

impl ProcessLocks {
    /// Waits for a resource's lock.
    pub fn lock(self: &Arc<Self>, resource_id: &str, deadline: &Deadline) -> Result<ProcessLock> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while held.contains(resource_id) {
            deadline.check()?;
            let slice = deadline.remaining().min(SLICE);
            held = self.freed.wait_timeout(held, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        held.insert(resource_id.to_owned());
        let (locks, generation) = (Arc::clone(self), process::generation());
        Ok(ProcessLock { locks, resource_id: resource_id.to_owned(), generation })
    }
}

impl Lock for ProcessLock {}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        // A child that was forked meanwhile has a copy that another thread may have been at.
        if self.generation != process::generation() {
            return;
        }
        self.locks.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.resource_id);
        self.locks.freed.notify_all();
    }
}
