//! Panic scope: a thread-local counter of the library calls in progress. The panic hook prints
//! nothing for a panic in this scope.

use std::cell::Cell;

thread_local! {
    // Without a destructor, so that the panic hook can read it until the thread has ended.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Marks this thread as running library code until it is dropped.
pub struct Guard(());

pub fn enter() -> Guard {
    DEPTH.set(DEPTH.get() + 1);
    Guard(())
}

pub fn is_active() -> bool {
    DEPTH.get() > 0
}

impl Drop for Guard {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}
