//! An event count: lets threads wait for a change without holding the lock under which they look for it.
//!
//! A waiter reads [`Signal::count`], looks at the state, and, if the state is not what it needs, waits for the count to
//! change. A notification between the look and the wait changes the count, so no wakeup is lost.

use std::sync::PoisonError;
use std::time::Duration;

#[cfg(ghl_loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(ghl_loom))]
use std::sync::{Condvar, Mutex, MutexGuard};

/// How often something changed, and a way to wait for the next change.
#[derive(Debug, Default)]
pub struct Signal {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    /// A signal that was never notified.
    pub fn new() -> Signal {
        Signal { count: Mutex::new(0), changed: Condvar::new() }
    }

    /// How often it was notified.
    pub fn count(&self) -> u64 {
        *self.lock()
    }

    /// Wakes every waiter. Called after the change of state.
    pub fn notify(&self) {
        *self.lock() += 1;
        self.changed.notify_all();
    }

    /// Blocks the thread until the count differs from `seen`, for at most `timeout`. May return early: callers look
    /// again. Callers use [`Clock::wait`](crate::clock::Clock::wait), so that a simulated clock can take over.
    pub fn block(&self, seen: u64, timeout: Duration) {
        let count = self.lock();
        if *count == seen {
            drop(self.changed.wait_timeout(count, timeout).unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
