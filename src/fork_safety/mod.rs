//! Fork safety: what the library does so that a forked child can go on using it. `ffi/fork.rs` registers the
//! `pthread_atfork` handlers that call [`prepare`] and [`begin_child`].
//!
//! A forked child gets a copy of everything and must use none of it: a lock that another thread held is never released
//! there, a database handle must not even be closed, and a file lock belongs to parent and child alike. Each process
//! therefore has a generation, and a value of an older generation is neither used nor dropped.

// Without a durable store a child can share everything, and without `fork` there is no child.
#![cfg_attr(not(all(unix, feature = "sqlite", feature = "postgres")), allow(dead_code))]

pub mod databases;
pub mod descriptors;
mod gate;
mod generation;

use std::sync::{MutexGuard, RwLockWriteGuard};

pub use gate::gate;
pub use generation::{ProcessLocal, generation};

/// The locks that a fork must find free, held while it runs.
pub struct Quiesced {
    _gate: MutexGuard<'static, ()>,
    _databases: RwLockWriteGuard<'static, ()>,
}

/// Before a fork: waits until no database is in use and the gate is free, and closes every database.
pub fn prepare() -> Quiesced {
    // The gate last: a thread that uses a database may pass the gate, and never the other way round.
    let databases = databases::close_all();
    Quiesced { _gate: gate(), _databases: databases }
}

/// In the forked child, before anything else: begins a new generation, and calls `close` with each descriptor that the
/// parent registered.
pub fn begin_child(close: impl Fn(i32)) {
    generation::begin();
    descriptors::drain(close);
}
