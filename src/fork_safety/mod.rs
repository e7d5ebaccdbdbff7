//! Fork safety: a forked child can keep using the library. `ffi/fork.rs` registers the
//! `pthread_atfork` handlers that call [`prepare`] and [`begin_child`].
//!
//! A forked child must not use the copies that it inherits: a lock of another thread is never
//! released, a database handle must not even be closed, and a file lock belongs to both processes.
//! Therefore a value of an older generation is neither used nor dropped.

// Needed only by a durable store, on systems with `fork`.
#![cfg_attr(not(all(unix, feature = "sqlite", feature = "postgres")), allow(dead_code))]

pub mod databases;
pub mod descriptors;
mod gate;
mod generation;

use std::sync::{MutexGuard, RwLockWriteGuard};

pub use gate::gate;
pub use generation::{ProcessLocal, generation};

/// The locks that are held during a fork, so that no other thread holds them.
pub struct Quiesced {
    _gate: MutexGuard<'static, ()>,
    _databases: RwLockWriteGuard<'static, ()>,
}

/// Before a fork: waits until no database is in use, closes all databases, and locks the gate.
pub fn prepare() -> Quiesced {
    // Lock order: a thread that uses a database may take the gate, never the reverse.
    let databases = databases::close_all();
    Quiesced { _gate: gate(), _databases: databases }
}

/// In the forked child, first of all: increments the generation, and calls `close` with each
/// descriptor that the parent registered.
pub fn begin_child(close: impl Fn(i32)) {
    generation::begin();
    descriptors::drain(close);
}
