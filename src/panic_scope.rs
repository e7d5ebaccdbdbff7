//! Panic scope: a thread-local flag that tells whether a panic happens inside the library; the
//! panic hook is silent then.

use std::cell::Cell;

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// Being inside, until it is dropped.
pub struct Guard {
    before: bool,
}

/// This thread is inside from now on.
pub fn enter() -> Guard {
    Guard { before: ACTIVE.replace(true) }
}

/// Whether this thread is inside.
pub fn is_active() -> bool {
    ACTIVE.get()
}

impl Drop for Guard {
    fn drop(&mut self) {
        ACTIVE.set(self.before);
    }
}
