//! Gates that hold requests until they are opened, so that tests can order races without sleeping.

use crate::fault::FaultId;
use crate::state::Shared;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Longer than any request takes to arrive: a test that waits in vain fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where requests wait.
#[derive(Debug)]
pub(crate) struct Gate {
    counts: Mutex<Counts>,
    changed: Condvar,
    /// One permit lets one request pass; closed, it lets all pass.
    permits: Semaphore,
}

#[derive(Debug, Default)]
struct Counts {
    arrived: usize,
    waiting: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self { counts: Mutex::default(), changed: Condvar::default(), permits: Semaphore::new(0) }
    }
}

impl Gate {
    /// Waits until the gate lets this request pass. Those that came first pass first.
    pub(crate) async fn pass(&self) {
        let _place = Place::take(self);
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }

    /// Lets everybody pass from now on.
    pub(crate) fn open(&self) {
        self.permits.close();
    }

    /// How many requests wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.counts().waiting
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place at the gate; it is given up too when the client leaves.
struct Place<'a>(&'a Gate);

impl<'a> Place<'a> {
    fn take(gate: &'a Gate) -> Self {
        let mut counts = gate.counts();
        counts.arrived += 1;
        counts.waiting += 1;
        drop(counts);
        gate.changed.notify_all();
        Self(gate)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.counts().waiting -= 1;
        self.0.changed.notify_all();
    }
}

/// Requests that are held, until this is released or dropped.
#[derive(Debug)]
pub struct Hold {
    gate: Arc<Gate>,
    id: FaultId,
    shared: Shared,
}

impl Hold {
    pub(crate) fn new(gate: Arc<Gate>, id: FaultId, shared: Shared) -> Self {
        Self { gate, id, shared }
    }

    /// Waits until `count` requests have arrived here, those that were let go since included.
    ///
    /// # Panics
    ///
    /// When that takes more than half a minute.
    pub fn wait_for(&self, count: usize) {
        self.wait_until(&format!("{count} to arrive"), |counts| counts.arrived >= count);
    }

    /// Waits until nobody waits here any more: all were let go, or their clients have left.
    ///
    /// # Panics
    ///
    /// When that takes more than half a minute.
    pub fn wait_until_empty(&self) {
        self.wait_until("all to leave", |counts| counts.waiting == 0);
    }

    /// How many requests have arrived here.
    pub fn arrived(&self) -> usize {
        self.gate.counts().arrived
    }

    /// Lets one request go: the one that has waited longest, or else the next to come.
    pub fn release_one(&self) {
        self.gate.permits.add_permits(1);
    }

    /// Lets all of them go, and holds nobody any more.
    pub fn release(self) {
        drop(self);
    }

    fn wait_until(&self, what: &str, reached: impl Fn(&Counts) -> bool) {
        let (counts, timeout) = self
            .gate
            .changed
            .wait_timeout_while(self.gate.counts(), PATIENCE, |counts| !reached(counts))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "waited for {what} in vain: {counts:?}");
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.lock().faults.remove(self.id);
        // The fault may have been cleared before, by another hand.
        self.gate.open();
    }
}
