//! A gate that holds requests until it is opened: a semaphore that counts its waiters.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Longer than any request takes to arrive: a test that waits in vain fails instead of hanging.
const WAIT_LIMIT: Duration = Duration::from_secs(30);

/// A gate at which requests wait.
#[derive(Debug)]
pub(crate) struct Gate {
    counts: Mutex<Counts>,
    changed: Condvar,
    /// One permit lets one request pass; a closed semaphore lets all pass.
    permits: Semaphore,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) arrived: usize,
    pub(crate) waiting: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self { counts: Mutex::default(), changed: Condvar::default(), permits: Semaphore::new(0) }
    }
}

impl Gate {
    /// Waits until the gate lets this request pass, in order of arrival.
    pub(crate) async fn pass(&self) {
        let _waiter = Waiter::take(self);
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }

    /// Lets all requests pass from now on.
    pub(crate) fn open(&self) {
        self.permits.close();
    }

    /// The number of waiting requests.
    pub(crate) fn waiting(&self) -> usize {
        self.counts().waiting
    }

    /// The number of requests that have arrived.
    pub(crate) fn arrived(&self) -> usize {
        self.counts().arrived
    }

    /// Lets one request pass: the first in the queue, or the next to arrive.
    pub(crate) fn let_one_pass(&self) {
        self.permits.add_permits(1);
    }

    /// Waits until the counts satisfy the condition. Panics after 30 seconds; `what` describes the
    /// condition in the message.
    pub(crate) fn wait_until(&self, what: &str, reached: impl Fn(&Counts) -> bool) {
        let (counts, timeout) = self
            .changed
            .wait_timeout_while(self.counts(), WAIT_LIMIT, |counts| !reached(counts))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "waited for {what} in vain: {counts:?}");
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a waiting request; dropped when the request passes or the client disconnects.
struct Waiter<'a>(&'a Gate);

impl<'a> Waiter<'a> {
    fn take(gate: &'a Gate) -> Self {
        let mut counts = gate.counts();
        counts.arrived += 1;
        counts.waiting += 1;
        drop(counts);
        gate.changed.notify_all();
        Self(gate)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.counts().waiting -= 1;
        self.0.changed.notify_all();
    }
}
