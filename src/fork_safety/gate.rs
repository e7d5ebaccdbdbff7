//! The fork gate: a mutex that delays `fork` while a thread holds it.

use std::sync::{Mutex, MutexGuard, PoisonError};

static GATE: Mutex<()> = Mutex::new(());

/// Delays `fork` while the guard lives: for a few steps that a child must not find half done, and around locks that a
/// child must find free. Held briefly; its holder waits for nothing.
pub fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}
