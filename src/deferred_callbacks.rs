//! Deferred callbacks (re-entrancy): the host's functions run once this thread holds no lock of the
//! library.

use std::cell::RefCell;
use std::collections::VecDeque;

/// Something that the host is to be told.
pub type DeferredCall = Box<dyn FnOnce() + Send>;

/// Messages, in their order.
pub type DeferredCalls = VecDeque<DeferredCall>;

thread_local! {
    static STATE: RefCell<State> = const { RefCell::new(State { depth: 0, queue: VecDeque::new() }) };
}

struct State {
    depth: usize,
    queue: DeferredCalls,
}

/// Keeps messages back while it lives; the last one lets them out. Made before a lock is taken, so that it is dropped
/// after the lock.
pub struct DeferGuard(());

/// Keeps this thread's messages back.
pub fn defer() -> DeferGuard {
    STATE.with_borrow_mut(|state| state.depth += 1);
    DeferGuard(())
}

/// Runs `work`, and hands back what it wanted to tell instead of telling it, for another thread to post.
pub fn capture<T>(work: impl FnOnce() -> T) -> (T, DeferredCalls) {
    STATE.with_borrow_mut(|state| state.depth += 1);
    let result = work();
    let messages = STATE.with_borrow_mut(|state| {
        state.depth -= 1;
        std::mem::take(&mut state.queue)
    });
    (result, messages)
}

/// Lets a message out, now or when the last lock is given back; in their order.
pub fn run_or_defer(message: DeferredCall) {
    let at_once = STATE.with_borrow(|state| state.depth == 0);
    if at_once {
        message();
    } else {
        STATE.with_borrow_mut(|state| state.queue.push_back(message));
    }
}

impl Drop for DeferGuard {
    fn drop(&mut self) {
        let last = STATE.with_borrow_mut(|state| {
            state.depth -= 1;
            state.depth == 0
        });
        // A message may post others, and hold anew; none of them runs under the borrow.
        while last && let Some(message) = STATE.with_borrow_mut(|state| state.queue.pop_front()) {
            message();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn messages_wait_for_the_last_lock_and_keep_their_order() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let say = |word: &'static str| {
            let heard = Arc::clone(&heard);
            run_or_defer(Box::new(move || heard.lock().unwrap().push(word)));
        };
        say("one");
        let outer = defer();
        say("two");
        drop(defer());
        say("three");
        assert_eq!(*heard.lock().unwrap(), ["one"]);
        drop(outer);
        assert_eq!(*heard.lock().unwrap(), ["one", "two", "three"]);
    }

    #[test]
    fn collected_messages_are_delivered_by_the_thread_that_posts_them() {
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
