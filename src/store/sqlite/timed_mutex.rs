//! A mutex with a deadline (timed mutex), for a database handle.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::Result;
use crate::signal::Signal;

/// Interval at which a wait checks for cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Default)]
pub struct TimedMutex {
    state: Mutex<State>,
    freed: Signal,
}

#[derive(Default)]
struct State {
    is_taken: bool,
    /// Number of waiting threads. If it is 0, the release makes no system call.
    waiting: usize,
}

/// A guard; dropping it releases the mutex.
pub struct TimedMutexGuard<'a>(&'a TimedMutex);

impl TimedMutex {
    /// Waits for the mutex. Returns `None` as soon as `is_done` returns true.
    pub fn lock(
        &self,
        deadline: &Deadline,
        is_done: &dyn Fn() -> bool,
    ) -> Result<Option<TimedMutexGuard<'_>>> {
        let mut state = self.state();
        loop {
            if is_done() {
                return Ok(None);
            }
            if !state.is_taken {
                state.is_taken = true;
                return Ok(Some(TimedMutexGuard(self)));
            }
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
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TimedMutexGuard<'_> {
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
