//! What the host is to be told, kept back until this thread holds no lock of the library: a callback may call the
//! library, and would otherwise wait for the very call that it runs in.

use std::cell::RefCell;
use std::collections::VecDeque;

/// Something that the host is to be told.
pub type Message = Box<dyn FnOnce() + Send>;

/// Messages, in their order.
pub type Messages = VecDeque<Message>;

thread_local! {
    static OUTBOX: RefCell<Outbox> = const { RefCell::new(Outbox { held: 0, waiting: VecDeque::new() }) };
}

struct Outbox {
    held: usize,
    waiting: Messages,
}

/// Keeps messages back while it lives; the last one lets them out. Made before a lock is taken, so that it is dropped
/// after the lock.
pub struct Hold(());

/// Keeps this thread's messages back.
pub fn hold() -> Hold {
    OUTBOX.with_borrow_mut(|outbox| outbox.held += 1);
    Hold(())
}

/// Runs `work`, and hands back what it wanted to tell instead of telling it, for another thread to post.
pub fn collect<T>(work: impl FnOnce() -> T) -> (T, Messages) {
    OUTBOX.with_borrow_mut(|outbox| outbox.held += 1);
    let result = work();
    let messages = OUTBOX.with_borrow_mut(|outbox| {
        outbox.held -= 1;
        std::mem::take(&mut outbox.waiting)
    });
    (result, messages)
}

/// Lets a message out, now or when the last lock is given back; in their order.
pub fn post(message: Message) {
    let at_once = OUTBOX.with_borrow(|outbox| outbox.held == 0);
    if at_once {
        message();
    } else {
        OUTBOX.with_borrow_mut(|outbox| outbox.waiting.push_back(message));
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let last = OUTBOX.with_borrow_mut(|outbox| {
            outbox.held -= 1;
            outbox.held == 0
        });
        // A message may post others, and hold anew; none of them runs under the borrow.
        while last && let Some(message) = OUTBOX.with_borrow_mut(|outbox| outbox.waiting.pop_front()) {
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
            post(Box::new(move || heard.lock().unwrap().push(word)));
        };
        say("one");
        let outer = hold();
        say("two");
        drop(hold());
        say("three");
        assert_eq!(*heard.lock().unwrap(), ["one"]);
        drop(outer);
        assert_eq!(*heard.lock().unwrap(), ["one", "two", "three"]);
    }

    #[test]
    fn what_is_collected_is_told_by_whoever_posts_it() {
        let heard = Arc::new(Mutex::new(0));
        let ((), messages) = collect(|| {
            let _lock = hold();
            let heard = Arc::clone(&heard);
            post(Box::new(move || *heard.lock().unwrap() += 1));
        });
        assert_eq!(*heard.lock().unwrap(), 0);
        messages.into_iter().for_each(post);
        assert_eq!(*heard.lock().unwrap(), 1);
    }
}
