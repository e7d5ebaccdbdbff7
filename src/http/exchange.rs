//! The state of the HTTP exchange that runs on this thread: its deadline, its connect deadline, and
//! whether any byte of its request was sent.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::time::Instant;

use super::Idempotency;
use crate::deadline::Deadline;
use crate::deferred_callbacks;

thread_local! {
    // Thread-local, because an exchange blocks its thread until it ends, while a pooled connection
    // outlives many exchanges. Without a destructor, so that a thread can use it until it has
    // ended; between exchanges it owns no memory.
    static EXCHANGE: ManuallyDrop<RefCell<Exchange>> =
        const { ManuallyDrop::new(RefCell::new(Exchange::NONE)) };
}

struct Exchange {
    /// The caller's deadline and cancellation. A request that must not be abandoned may outlast the
    /// deadline once it was sent.
    deadline: Option<Deadline>,
    /// Whether the exchange may be abandoned after its request was sent.
    abandons: bool,
    /// The deadline of the connection attempt, during one.
    connect_by: Option<Instant>,
    /// Whether any byte of the request was written to the connection.
    sent: bool,
}

impl Exchange {
    const NONE: Exchange =
        Exchange { deadline: None, abandons: false, connect_by: None, sent: false };

    fn is_abandoned(&self) -> bool {
        (self.abandons || !self.sent)
            && self.deadline.as_ref().is_some_and(|deadline| deadline.check().is_err())
    }
}

/// Runs one exchange. Returns its result, and whether any byte of the request was written.
/// Cancelling the call, or its deadline, ends a wait, unless the request was sent and must not be
/// abandoned.
pub fn run<T>(
    deadline: &Deadline,
    idempotency: Idempotency,
    work: impl FnOnce() -> T,
) -> (T, bool) {
    // A callback must not run in between: it could run another exchange on this thread.
    let _deferred = deferred_callbacks::defer();
    let abandons = idempotency.may_be_abandoned();
    with_exchange(|exchange| {
        *exchange = Exchange { deadline: Some(deadline.clone()), abandons, ..Exchange::NONE };
    });
    let _end = End;
    let result = work();
    (result, is_sent())
}

/// Ends the exchange of this thread when dropped, also after a panic.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        with_exchange(|exchange| *exchange = Exchange::NONE);
    }
}

fn with_exchange<T>(access: impl FnOnce(&mut Exchange) -> T) -> T {
    EXCHANGE.with(|exchange| access(&mut exchange.borrow_mut()))
}

/// Whether the call must end and its exchange may be abandoned.
pub fn is_abandoned() -> bool {
    with_exchange(|exchange| exchange.is_abandoned())
}

/// The deadline of the connection attempt on this thread; `None` outside an attempt.
pub fn connect_by() -> Option<Instant> {
    with_exchange(|exchange| exchange.connect_by)
}

/// Sets or clears the deadline of the connection attempt on this thread.
pub fn set_connect_by(connect_by: Option<Instant>) {
    with_exchange(|exchange| exchange.connect_by = connect_by);
}

/// Records that bytes are about to be written. Bytes written during a connection attempt (to a
/// proxy, or a TLS handshake) are not part of the request.
pub fn record_output() {
    with_exchange(|exchange| exchange.sent |= exchange.connect_by.is_none());
}

/// Whether any byte of the request was written to the connection.
pub fn is_sent() -> bool {
    with_exchange(|exchange| exchange.sent)
}
