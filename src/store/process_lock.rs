//! A keyed mutex: the refresh lock between the threads of one process.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Lock;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::fork_safety;
use crate::signal::Signal;

/// Interval at which a wait checks for cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Default)]
pub struct ProcessLocks {
    state: Mutex<State>,
    freed: Signal,
}

#[derive(Default)]
struct State {
    held: HashSet<String>,
    /// Number of waiting threads. If it is 0, the release makes no system call.
    waiting: usize,
}

/// A held lock; dropping it releases it.
pub struct ProcessLock {
    locks: Arc<ProcessLocks>,
    resource_id: String,
    generation: u32,
}

impl ProcessLocks {
    pub fn lock(self: &Arc<Self>, resource_id: &str, deadline: &Deadline) -> Result<ProcessLock> {
        let mut state = self.state();
        while state.held.contains(resource_id) {
            let seen = self.freed.count();
            state.waiting += 1;
            drop(state);
            let checked = deadline.check();
            if checked.is_ok() {
                deadline.within(POLL_INTERVAL).wait(&self.freed, seen);
            }
            state = self.state();
            state.waiting -= 1;
            checked?;
        }
        state.held.insert(resource_id.to_owned());
        let (locks, generation) = (Arc::clone(self), fork_safety::generation());
        Ok(ProcessLock { locks, resource_id: resource_id.to_owned(), generation })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lock for ProcessLock {}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        // A forked child must not use its copy of the state, which another thread may have been
        // changing during the fork.
        if self.generation != fork_safety::generation() {
            return;
        }
        let mut state = self.locks.state();
        state.held.remove(&self.resource_id);
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.locks.freed.notify();
        }
    }
}
