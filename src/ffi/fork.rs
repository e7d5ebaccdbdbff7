//! The `pthread_atfork` handlers.

#[cfg(unix)]
mod handlers {
    use std::cell::RefCell;
    use std::sync::Once;

    use crate::fork_safety::{self, Quiesced};

    thread_local! {
        // `fork` runs all three handlers on the thread that calls it.
        static HELD: RefCell<Option<Quiesced>> = const { RefCell::new(None) };
    }

    extern "C" fn before() {
        let quiesced = fork_safety::prepare();
        HELD.with_borrow_mut(|held| *held = Some(quiesced));
    }

    extern "C" fn after_in_parent() {
        HELD.with_borrow_mut(|held| *held = None);
    }

    extern "C" fn after_in_child() {
        fork_safety::begin_child(|descriptor| {
            // SAFETY: the table holds open descriptors of this library only, and nothing in this process uses a
            // parent's descriptor again: guards of an older generation are forgotten, not dropped.
            unsafe { libc::close(descriptor) };
        });
        HELD.with_borrow_mut(|held| *held = None);
    }

    /// Registers the handlers, once per process. They stay: the library is never unloaded.
    pub fn watch() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the handlers are functions of the right type that live as long as the process. Should there be
            // no memory to register them, forking works as it does without them.
            unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
        });
    }
}

#[cfg(unix)]
pub use handlers::watch;

/// There is no `fork` here.
#[cfg(not(unix))]
pub fn watch() {}
