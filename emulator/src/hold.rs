//! The handle of requests that are held at a gate, so that tests can order races without sleeping.

use crate::fault::FaultId;
use crate::gate::Gate;
use crate::state::Shared;
use std::sync::Arc;

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
        self.gate.wait_until(&format!("{count} to arrive"), |counts| counts.arrived >= count);
    }

    /// Waits until nobody waits here any more: all were let go, or their clients have left.
    ///
    /// # Panics
    ///
    /// When that takes more than half a minute.
    pub fn wait_until_empty(&self) {
        self.gate.wait_until("all to leave", |counts| counts.waiting == 0);
    }

    /// How many requests have arrived here.
    pub fn arrived(&self) -> usize {
        self.gate.arrived()
    }

    /// Lets one request go: the one that has waited longest, or else the next to come.
    pub fn release_one(&self) {
        self.gate.let_one_pass();
    }

    /// Lets all of them go, and holds nobody any more.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.lock().faults.remove(self.id);
        // The fault may have been cleared before, by another hand.
        self.gate.open();
    }
}
