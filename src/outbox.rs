//! What the host is to be told, kept back until this thread holds no lock of the library: a callback may call the
//! library, and would otherwise wait for the very call that it runs in.

use std::cell::RefCell;
use std::collections::VecDeque;

type Message = Box<dyn FnOnce()>;

thread_local! {
    static OUTBOX: RefCell<Outbox> = const { RefCell::new(Outbox { held: 0, waiting: VecDeque::new() }) };
}

struct Outbox {
    held: usize,
    waiting: VecDeque<Message>,
}

/// Keeps messages back while it lives; the last one lets them out. Made before a lock is taken, so that it is dropped
/// after the lock.
pub struct Hold(());

/// Keeps this thread's messages back.
pub fn hold() -> Hold {
    OUTBOX.with_borrow_mut(|outbox| outbox.held += 1);
    Hold(())
}

/// Lets a message out, now or when the last lock is given back; in their order.
pub fn post(message: impl FnOnce() + 'static) {
    let at_once = OUTBOX.with_borrow(|outbox| outbox.held == 0);
    if at_once {
        message();
    } else {
        OUTBOX.with_borrow_mut(|outbox| outbox.waiting.push_back(Box::new(message)));
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
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn messages_wait_for_the_last_lock_and_keep_their_order() {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let say = |word: &'static str| {
            let heard = Rc::clone(&heard);
            post(move || heard.borrow_mut().push(word));
        };
        say("one");
        let outer = hold();
        say("two");
        drop(hold());
        say("three");
        assert_eq!(*heard.borrow(), ["one"]);
        drop(outer);
        assert_eq!(*heard.borrow(), ["one", "two", "three"]);
    }
}
