//! Inherited file descriptors: a forked child closes its copies of lock files and of sockets to
//! PostgreSQL. Otherwise an idle child would hold a lock that should be released when its parent
//! dies.

use std::sync::atomic::{AtomicI32, Ordering};

const CAPACITY: usize = 1024;

/// An empty slot.
const EMPTY: i32 = -1;

/// Atomics instead of a lock: in a child, a lock could be held by a thread that does not exist
/// there.
static TABLE: [AtomicI32; CAPACITY] = [const { AtomicI32::new(EMPTY) }; CAPACITY];

/// Registers a descriptor and returns its slot. `None` if the table is full: a forked child then
/// keeps its copy open.
pub fn register(descriptor: i32) -> Option<usize> {
    TABLE.iter().position(|slot| {
        slot.compare_exchange(EMPTY, descriptor, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    })
}

/// Empties a slot. Call it before closing the descriptor.
pub fn unregister(slot: usize) {
    TABLE[slot].store(EMPTY, Ordering::Relaxed);
}

/// Empties the table and calls `close` with each descriptor.
pub(super) fn drain(close: impl Fn(i32)) {
    for slot in &TABLE {
        let descriptor = slot.swap(EMPTY, Ordering::Relaxed);
        if descriptor != EMPTY {
            close(descriptor);
        }
    }
}
