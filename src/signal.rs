//! An event count: threads wait for a change of some state without holding the lock of that state.
//!
//! A waiter reads [`Signal::count`], checks the state, and waits for the count to change if the
//! state is not as needed. A notification between the check and the wait changes the count, so no
//! wakeup is lost.

use std::sync::PoisonError;
use std::time::Duration;

#[cfg(ghl_loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(ghl_loom))]
use std::sync::{Condvar, Mutex, MutexGuard};

/// A counter of notifications on which threads can wait.
#[derive(Debug, Default)]
pub struct Signal {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    /// A signal without notifications.
    pub fn new() -> Signal {
        Signal { count: Mutex::new(0), changed: Condvar::new() }
    }

    /// The number of notifications.
    pub fn count(&self) -> u64 {
        *self.lock()
    }

    /// Wakes every waiter. Call it after changing the state.
    pub fn notify(&self) {
        *self.lock() += 1;
        self.changed.notify_all();
    }

    /// Blocks the thread until the count differs from `seen`, for at most `timeout`; may return
    /// early. Use [`Clock::wait`](crate::clock::Clock::wait), which a simulated clock can replace.
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
