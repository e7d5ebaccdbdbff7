//! The `pthread_atfork` handlers.

#[cfg(unix)]
mod handlers {
    use std::cell::RefCell;
    use std::mem::ManuallyDrop;
    use std::sync::Once;

    use crate::fork_safety::{self, Quiesced};

    thread_local! {
        // `fork` runs all three handlers on the thread that calls it. Without a destructor, so that
        // a thread may fork while it ends.
        static HELD: ManuallyDrop<RefCell<Option<Quiesced>>> =
            const { ManuallyDrop::new(RefCell::new(None)) };
    }

    fn hold(quiesced: Option<Quiesced>) {
        HELD.with(|held| *held.borrow_mut() = quiesced);
    }

    extern "C" fn before() {
        let quiesced = fork_safety::prepare();
        hold(Some(quiesced));
    }

    extern "C" fn after_in_parent() {
        hold(None);
    }

    extern "C" fn after_in_child() {
        fork_safety::begin_child(|descriptor| {
            // SAFETY: the table holds only open descriptors of this library, and nothing in this
            // process uses them again: values of an older generation are forgotten, not dropped.
            unsafe { libc::close(descriptor) };
        });
        hold(None);
    }

    /// Registers the handlers once per process. They remain valid, because the library is never
    /// unloaded.
    pub fn register_handlers() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the handlers have the right type and live as long as the process. If
            // registering fails for lack of memory, forks are not handled.
            unsafe {
                libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child))
            };
        });
    }
}

#[cfg(unix)]
pub use handlers::register_handlers;

/// Does nothing: this system has no `fork`.
#[cfg(not(unix))]
pub fn register_handlers() {}
