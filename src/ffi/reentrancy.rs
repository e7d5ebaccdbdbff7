//! Re-entrancy guard: tracks the host's callbacks that are running on this thread, so that a call
//! from inside a callback that would deadlock or is forbidden can be refused.

use std::cell::RefCell;

thread_local! {
    /// Innermost callback last.
    static RUNNING: RefCell<Vec<Owner>> = const { RefCell::new(Vec::new()) };
}

/// The owner of a callback: an address, which is only compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Owner(usize);

/// A running callback; ends when dropped.
struct Run;

impl Owner {
    pub fn of<T>(owner: &T) -> Owner {
        Owner(std::ptr::from_ref(owner).addr())
    }

    /// Runs a callback of this owner.
    pub fn run<R>(self, callback: impl FnOnce() -> R) -> R {
        RUNNING.with_borrow_mut(|running| running.push(self));
        let _run = Run;
        callback()
    }

    /// Whether a callback of this owner is running on this thread.
    pub fn is_running(self) -> bool {
        RUNNING.with_borrow(|running| running.contains(&self))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(Vec::pop);
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
