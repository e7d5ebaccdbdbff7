//! Re-entrancy guard: tracks the host's callbacks that are running on this thread, so that a call
//! from inside a callback that would deadlock or is forbidden can be refused.

use std::cell::RefCell;
use std::mem::ManuallyDrop;

thread_local! {
    // Without a destructor, so that it can be used until the thread has ended. An empty list owns
    // no memory.
    static RUNNING: ManuallyDrop<RefCell<Vec<Owner>>> =
        const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

/// The owner of a callback: an address, which is only compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Owner(usize);

/// A running callback; ends when dropped.
struct Run(Owner);

impl Owner {
    pub fn of<T>(owner: &T) -> Owner {
        Owner(std::ptr::from_ref(owner).addr())
    }

    /// Runs a callback of this owner.
    pub fn run<R>(self, callback: impl FnOnce() -> R) -> R {
        with_running(|running| running.push(self));
        let _run = Run(self);
        callback()
    }

    /// Whether a callback of this owner is running on this thread.
    pub fn is_running(self) -> bool {
        with_running(|running| running.contains(&self))
    }
}

/// Accesses the owners of this thread's running callbacks.
fn with_running<T>(access: impl FnOnce(&mut Vec<Owner>) -> T) -> T {
    RUNNING.with(|running| access(&mut running.borrow_mut()))
}

impl Drop for Run {
    fn drop(&mut self) {
        with_running(|running| {
            // Not always the last one: greenlets (coroutines with a stack of their own) leave their
            // callbacks in any order.
            if let Some(place) = running.iter().rposition(|owner| *owner == self.0) {
                running.swap_remove(place);
            }
            if running.is_empty() {
                *running = Vec::new();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_running_until_its_callback_returns_or_unwinds() {
        let (outer, inner) = (Owner(1), Owner(2));
        outer.run(|| {
            let unwound = std::panic::catch_unwind(|| {
                inner.run(|| -> () { std::panic::resume_unwind(Box::new(())) })
            });
            assert!(unwound.is_err());
            assert!(outer.is_running() && !inner.is_running());
            inner.run(|| assert!(outer.is_running() && inner.is_running()));
            std::thread::scope(|scope| scope.spawn(|| assert!(!outer.is_running())).join())
                .unwrap();
        });
        assert!(!outer.is_running());
    }
}
