//! A mutual-exclusion lock with a deadline: one thread at a time works with a database handle, and each of the others waits
//! until its own deadline, its cancellation, or until another thread has done its work.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::Result;
use crate::signal::Signal;

/// The longest wait without a look for a cancellation.
const SLICE: Duration = Duration::from_millis(20);

/// The lock.
#[derive(Default)]
pub struct Turns {
    state: Mutex<State>,
    freed: Signal,
}

#[derive(Default)]
struct State {
    is_taken: bool,
    /// How many threads wait. Without any, the release makes no system call.
    waiting: usize,
}

/// The held lock; dropping it releases the lock.
pub struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for the lock. `None` once `is_done` says that there is nothing left to do.
    ///
    /// # Errors
    /// `TIMEOUT`, `CANCELLED`. A lock that is free is given even if the deadline has passed.
    pub fn take(&self, deadline: &Deadline, is_done: impl Fn() -> bool) -> Result<Option<Turn<'_>>> {
        let mut state = self.state();
        loop {
            if is_done() {
                return Ok(None);
            }
            if !state.is_taken {
                state.is_taken = true;
                return Ok(Some(Turn(self)));
            }
            let seen = self.freed.count();
            state.waiting += 1;
            drop(state);
            let checked = deadline.check();
            if checked.is_ok() {
                deadline.within(SLICE).wait(&self.freed, seen);
            }
            state = self.state();
            state.waiting -= 1;
            checked?;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_taken = false;
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.0.freed.notify();
        }
    }
}
