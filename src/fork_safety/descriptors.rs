//! Inherited descriptors: the lock files and the sockets to PostgreSQL, of which a forked child closes its copies.
//! Otherwise an idle child would keep a lock that should be released when its parent dies.

use std::sync::atomic::{AtomicI32, Ordering};

/// The capacity of the table.
const CAPACITY: usize = 1024;

/// An empty slot.
const EMPTY: i32 = -1;

/// Atomics rather than a lock: the child's handler runs where a lock could be held by a thread that it does not have.
static TABLE: [AtomicI32; CAPACITY] = [const { AtomicI32::new(EMPTY) }; CAPACITY];

/// Registers a descriptor and returns its slot; `None` if the table is full. A forked child then keeps its copy open.
pub fn register(descriptor: i32) -> Option<usize> {
    TABLE.iter().position(|slot| {
        slot.compare_exchange(EMPTY, descriptor, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    })
}

/// Empties a slot, before its descriptor is closed.
pub fn unregister(slot: usize) {
    TABLE[slot].store(EMPTY, Ordering::Relaxed);
}

/// Calls `close` with each registered descriptor, and empties the table.
pub(super) fn drain(close: impl Fn(i32)) {
    for slot in &TABLE {
        let descriptor = slot.swap(EMPTY, Ordering::Relaxed);
        if descriptor != EMPTY {
            close(descriptor);
        }
    }
}
