//! Reports of what happens to tokens: events for the host, and counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Clock;
use crate::event::{Event, Events};

/// Event counts since the client was created.
#[derive(Debug, Default)]
pub struct Counters {
    pub refreshed: AtomicU64,
    /// Location tokens minted.
    pub minted: AtomicU64,
    /// Refreshes and mints that failed.
    pub failed: AtomicU64,
}

pub struct Reports {
    events: Arc<Events>,
    clock: Arc<dyn Clock>,
    pub counters: Counters,
}

impl Reports {
    pub fn new(events: Arc<Events>, clock: Arc<dyn Clock>) -> Reports {
        Reports { events, clock, counters: Counters::default() }
    }

    pub fn emit(&self, event: &Event, resource_id: &str, expires_at: Option<i64>) {
        self.events.emit(event, resource_id, self.clock.wall_ms(), expires_at);
    }
}

pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
