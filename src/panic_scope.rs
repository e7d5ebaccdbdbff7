//! Panic scope: a thread-local flag that is set while library code runs. The panic hook prints
//! nothing for a panic in this scope.

use std::cell::Cell;

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as running library code until it is dropped.
pub struct Guard {
    before: bool,
}

pub fn enter() -> Guard {
    Guard { before: ACTIVE.replace(true) }
}

pub fn is_active() -> bool {
    ACTIVE.get()
}

impl Drop for Guard {
    fn drop(&mut self) {
        ACTIVE.set(self.before);
    }
}
