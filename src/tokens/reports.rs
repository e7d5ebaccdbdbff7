//! Reports of what happens to tokens: events for the host, and counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Clock;
use crate::error::Status;
use crate::event::{Event, Events};

/// Event counts since the client was created.
#[derive(Debug, Default)]
pub struct Counters {
    pub refreshed: AtomicU64,
    /// Location tokens minted.
    pub minted: AtomicU64,
    /// Refreshes and mints that failed, in the order of [`Status::ALL`].
    failed: [AtomicU64; Status::ALL.len()],
}

impl Counters {
    /// The number of refreshes and mints that failed with each status.
    pub fn failures(&self) -> impl Iterator<Item = (Status, u64)> {
        let counts = self.failed.iter().map(|count| count.load(Ordering::Relaxed));
        Status::ALL.into_iter().zip(counts)
    }

    pub fn count_failure(&self, status: Status) {
        if let Some(position) = Status::ALL.iter().position(|each| *each == status) {
            self.failed[position].fetch_add(1, Ordering::Relaxed);
        }
    }
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
