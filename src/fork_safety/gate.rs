//! The fork gate: a mutex that delays `fork` while a thread holds it.

use std::sync::{Mutex, MutexGuard, PoisonError};

static GATE: Mutex<()> = Mutex::new(());

/// Delays `fork` while the guard lives: for steps that must not be interrupted by a fork, and
/// around locks that must be free in a child. Hold it only briefly, without waiting for anything.
pub fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}
