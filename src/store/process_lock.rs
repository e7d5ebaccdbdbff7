//! The refresh lock between the threads of one process.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::Lock;
use crate::deadline::Deadline;
use crate::error::Result;

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
        Ok(ProcessLock { locks: Arc::clone(self), resource_id: resource_id.to_owned() })
    }
}

impl Lock for ProcessLock {}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        self.locks.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.resource_id);
        self.locks.freed.notify_all();
    }
}
