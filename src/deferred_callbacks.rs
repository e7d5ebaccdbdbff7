//! Deferred callbacks: the host's functions run when this thread holds no lock of the library, so
//! they may call the library again (re-entrancy).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::rc::Rc;

/// A callback to run later.
pub type DeferredCall = Box<dyn FnOnce() + Send>;

/// Callbacks in the order in which they were deferred.
pub type DeferredCalls = VecDeque<DeferredCall>;

thread_local! {
    // Without a destructor, so that it can be used until the thread has ended: destructors of the
    // host's thread-local values may call the library. An empty queue owns no memory.
    static STATE: ManuallyDrop<RefCell<State>> =
        const { ManuallyDrop::new(RefCell::new(State::NEW)) };
}

struct State {
    depth: usize,
    queue: DeferredCalls,
    /// Takes the callbacks instead of this thread.
    other_thread: Option<Rc<dyn Fn(DeferredCall)>>,
}

impl State {
    const NEW: State = State { depth: 0, queue: VecDeque::new(), other_thread: None };

    /// Takes the first callback. Frees the memory of an empty queue.
    fn next(&mut self) -> Option<DeferredCall> {
        let message = self.queue.pop_front();
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        message
    }
}

/// Defers this thread's callbacks until the outermost guard is dropped. Create it before taking a
/// lock, so that it is dropped after the lock is released.
pub struct DeferGuard(());

pub fn defer() -> DeferGuard {
    with_state(|state| state.depth += 1);
    DeferGuard(())
}

/// Runs `work` and returns its callbacks instead of running them, so that another thread can run
/// them.
pub fn capture<T>(work: impl FnOnce() -> T) -> (T, DeferredCalls) {
    with_state(|state| state.depth += 1);
    let result = work();
    let messages = with_state(|state| {
        state.depth -= 1;
        std::mem::take(&mut state.queue)
    });
    (result, messages)
}

/// Runs the callback now, or when the last guard is dropped, in order.
pub fn run_or_defer(message: DeferredCall) {
    let at_once = with_state(|state| state.depth == 0);
    if at_once {
        run(message);
    } else {
        with_state(|state| state.queue.push_back(message));
    }
}

/// Whether callbacks of this thread wait.
pub fn are_pending() -> bool {
    with_state(|state| !state.queue.is_empty())
}

/// Passes this thread's callbacks to `other_thread` until the guard is dropped.
pub fn redirect(other_thread: impl Fn(DeferredCall) + 'static) -> RedirectGuard {
    with_state(|state| state.other_thread = Some(Rc::new(other_thread)));
    RedirectGuard(())
}

/// Redirects this thread's callbacks.
pub struct RedirectGuard(());

impl Drop for RedirectGuard {
    fn drop(&mut self) {
        drop(with_state(|state| state.other_thread.take()));
    }
}

fn run(message: DeferredCall) {
    match with_state(|state| state.other_thread.clone()) {
        Some(other_thread) => other_thread(message),
        None => message(),
    }
}

fn with_state<T>(access: impl FnOnce(&mut State) -> T) -> T {
    STATE.with(|state| access(&mut state.borrow_mut()))
}

impl Drop for DeferGuard {
    fn drop(&mut self) {
        let last = with_state(|state| {
            state.depth -= 1;
            state.depth == 0
        });
        // A callback may defer further callbacks, so the borrow must end before it runs.
        while last && let Some(message) = with_state(State::next) {
            run(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn deferred_callbacks_run_in_order_when_the_last_guard_is_dropped() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let say = |word: &'static str| {
            let heard = Arc::clone(&heard);
            run_or_defer(Box::new(move || heard.lock().unwrap().push(word)));
        };
        say("one");
        let outer = defer();
        assert!(!are_pending());
        say("two");
        drop(defer());
        assert!(are_pending());
        say("three");
        assert_eq!(*heard.lock().unwrap(), ["one"]);
        drop(outer);
        assert_eq!(*heard.lock().unwrap(), ["one", "two", "three"]);
    }

    #[test]
    fn captured_callbacks_run_on_the_thread_that_posts_them() {
        let heard = Arc::new(Mutex::new(0));
        let ((), messages) = capture(|| {
            let _lock = defer();
            let heard = Arc::clone(&heard);
            run_or_defer(Box::new(move || *heard.lock().unwrap() += 1));
        });
        assert_eq!(*heard.lock().unwrap(), 0);
        messages.into_iter().for_each(run_or_defer);
        assert_eq!(*heard.lock().unwrap(), 1);
    }
}
