//! Request barriers: hold requests until a test releases them, so that races are ordered without
//! sleeping.

use crate::fault::FaultId;
use crate::gate::Gate;
use crate::state::Shared;
use std::sync::Arc;

/// Holds requests until it is released or dropped.
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

    /// Waits until `count` requests have arrived, including those already released.
    ///
    /// # Panics
    ///
    /// After 30 seconds.
    pub fn wait_for(&self, count: usize) {
        self.gate.wait_until(&format!("{count} to arrive"), |counts| counts.arrived >= count);
    }

    /// Waits until no request waits: all were released, or their clients have disconnected.
    ///
    /// # Panics
    ///
    /// After 30 seconds.
    pub fn wait_until_empty(&self) {
        self.gate.wait_until("all to leave", |counts| counts.waiting == 0);
    }

    /// The number of requests that have arrived.
    pub fn arrived(&self) -> usize {
        self.gate.arrived()
    }

    /// Releases the request that has waited longest, or the next to arrive.
    pub fn release_one(&self) {
        self.gate.let_one_pass();
    }

    /// Releases all waiting requests and lets later ones pass.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.lock().faults.remove(self.id);
        // The fault may have been removed already.
        self.gate.open();
    }
}
