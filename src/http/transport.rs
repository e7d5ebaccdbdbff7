//! What only the transport can see to: whether a request left, that nobody waits any more, and that an idle connection
//! holds nothing of what went over it.

use std::cell::RefCell;

use ureq::Error;
use ureq::unversioned::transport::time::Duration as Wait;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};

use crate::deadline::Deadline;

/// How long a wait for input goes on before it looks for a cancellation.
const SLICE: std::time::Duration = std::time::Duration::from_millis(50);

thread_local! {
    // A call blocks its thread from the first byte to the last, and pooled connections outlive calls:
    // so what belongs to the call stands beside the thread, not in the connection.
    static CALL: RefCell<Call> = const { RefCell::new(Call { sent: false, abandon: None }) };
}

struct Call {
    sent: bool,
    abandon: Option<Deadline>,
}

/// Runs one exchange. Answers, too, whether any byte of the request was given to the connection; with
/// `abandon`, a wait ends when that call is cancelled.
pub fn watched<T>(abandon: Option<&Deadline>, exchange: impl FnOnce() -> T) -> (T, bool) {
    CALL.set(Call { sent: false, abandon: abandon.cloned() });
    let result = exchange();
    (result, CALL.replace(Call { sent: false, abandon: None }).sent)
}

/// The usual chain (proxy, TCP, TLS) with the watch on top.
pub fn connector() -> impl Connector {
    DefaultConnector::new().chain(WatchConnector)
}

#[derive(Debug)]
struct WatchConnector;

impl<In: Transport> Connector<In> for WatchConnector {
    type Out = Watched<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Watched<In>>, Error> {
        Ok(chained.map(|inner| Watched { inner, dirty: 0 }))
    }
}

#[derive(Debug)]
struct Watched<T> {
    inner: T,
    /// How much of the input buffer, at most, was written to since it was last wiped.
    dirty: usize,
}

impl<T: Transport> Watched<T> {
    /// Waits in the connection's own way, and counts what came.
    fn await_inner(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let before = self.inner.buffers().input().len();
        let outcome = self.inner.await_input(timeout);
        self.dirty += self.inner.buffers().input().len().saturating_sub(before);
        outcome
    }
}

impl<T: Transport> Transport for Watched<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // Before the write: one that fails half way has sent something, too.
        CALL.with_borrow_mut(|call| call.sent = true);
        let outcome = self.inner.transmit_output(amount, timeout);
        self.inner.buffers().output()[..amount].fill(0);
        // A body is read into the free part of the input buffer first.
        self.dirty += amount;
        outcome
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let Some(deadline) = CALL.with_borrow(|call| call.abandon.clone()) else {
            return self.await_inner(timeout);
        };
        let began = std::time::Instant::now();
        loop {
            let left = timeout.after.saturating_sub(began.elapsed());
            let slice = NextTimeout { after: Wait::Exact(left.min(SLICE)), ..timeout };
            match self.await_inner(slice) {
                Err(Error::Timeout(_)) if deadline.is_cancelled() => {
                    return Err(Error::Timeout(timeout.reason));
                }
                Err(Error::Timeout(_)) if left > SLICE => {}
                outcome => return outcome,
            }
        }
    }

    /// Asked right before the connection goes back to the pool, when every answer was read.
    fn is_open(&mut self) -> bool {
        let used = std::mem::take(&mut self.dirty);
        let input = self.inner.buffers().input_append_buf();
        let used = used.min(input.len());
        input[..used].fill(0);
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
