//! The exchange in progress on this thread: its deadline and cancellation, the time limit of its connection attempt,
//! and whether its request was sent.

use std::cell::RefCell;
use std::time::Instant;

use super::Idempotency;
use crate::deadline::Deadline;

thread_local! {
    // An exchange blocks its thread from the first byte to the last, and pooled connections outlive exchanges: so its
    // state is kept per thread, and not in the connection.
    static EXCHANGE: RefCell<Exchange> = const { RefCell::new(Exchange::NONE) };
}

struct Exchange {
    /// The caller's deadline and cancellation.
    deadline: Option<Deadline>,
    /// Whether the exchange may be abandoned after its request has left.
    abandons: bool,
    /// The time limit of the connection attempt, while there is one.
    connect_by: Option<Instant>,
    /// Whether any byte of the request was given to the connection.
    sent: bool,
}

impl Exchange {
    const NONE: Exchange = Exchange { deadline: None, abandons: false, connect_by: None, sent: false };

    fn is_abandoned(&self) -> bool {
        (self.abandons || !self.sent) && self.deadline.as_ref().is_some_and(Deadline::is_cancelled)
    }
}

/// Runs one exchange, and returns in addition whether any byte of the request was given to the connection. A wait ends
/// when the call is cancelled, unless the request has left and must not be abandoned.
pub fn run<T>(deadline: &Deadline, idempotency: Idempotency, work: impl FnOnce() -> T) -> (T, bool) {
    let abandons = idempotency.may_be_abandoned();
    EXCHANGE.set(Exchange { deadline: Some(deadline.clone()), abandons, ..Exchange::NONE });
    let result = work();
    (result, EXCHANGE.replace(Exchange::NONE).sent)
}

/// Whether the caller of this thread's exchange has cancelled it.
pub fn is_abandoned() -> bool {
    EXCHANGE.with_borrow(Exchange::is_abandoned)
}

/// The time limit of the connection attempt on this thread; `None` when the connection is established.
pub fn connect_by() -> Option<Instant> {
    EXCHANGE.with_borrow(|exchange| exchange.connect_by)
}

/// Sets the time limit of the connection attempt on this thread.
pub fn set_connect_by(connect_by: Option<Instant>) {
    EXCHANGE.with_borrow_mut(|exchange| exchange.connect_by = connect_by);
}

/// Records that bytes are sent. Bytes that are sent while the connection is made, to a proxy or through it, do not
/// belong to the request.
pub fn record_output() {
    EXCHANGE.with_borrow_mut(|exchange| exchange.sent |= exchange.connect_by.is_none());
}

/// Whether any byte of the request was given to the connection.
pub fn is_sent() -> bool {
    EXCHANGE.with_borrow(|exchange| exchange.sent)
}
