//! Whether a thread is inside the library: a panic there is the library's own, and not for the host's hook to print.

use std::cell::Cell;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Being inside, until it is dropped.
pub struct Stay {
    before: bool,
}

/// This thread is inside from now on.
pub fn enter() -> Stay {
    Stay { before: INSIDE.replace(true) }
}

/// Whether this thread is inside.
pub fn is_inside() -> bool {
    INSIDE.get()
}

impl Drop for Stay {
    fn drop(&mut self) {
        INSIDE.set(self.before);
    }
}
