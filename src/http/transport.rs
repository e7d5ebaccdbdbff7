//! What only the transport can see to: whether a request left, that nobody waits any more, that the time for connecting
//! is over, and that an idle connection holds nothing of what went over it. The connection itself is `tcp`'s.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::resolver::Resolver as _;
use ureq::unversioned::transport::time::Duration as Wait;
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, RustlsConnector, Transport,
};

use super::Effect;
use super::resolver::Resolver;
use super::tcp::Tcp;
use crate::deadline::Deadline;

thread_local! {
    // A call blocks its thread from the first byte to the last, and pooled connections outlive calls:
    // so what belongs to the call stands beside the thread, not in the connection.
    static CALL: RefCell<Call> = const { RefCell::new(Call::NONE) };
}

struct Call {
    /// Until when the caller waits, and whether it still does.
    deadline: Option<Deadline>,
    /// Whether the call may be abandoned after its request has left.
    abandons: bool,
    /// While the connection is made: by when it must stand.
    connect_by: Option<Instant>,
    /// Whether any byte of the request was given to the connection.
    sent: bool,
}

impl Call {
    const NONE: Call = Call { deadline: None, abandons: false, connect_by: None, sent: false };

    fn is_abandoned(&self) -> bool {
        (self.abandons || !self.sent) && self.deadline.as_ref().is_some_and(Deadline::is_cancelled)
    }
}

/// Runs one exchange. Answers, too, whether any byte of the request was given to the connection. A wait ends when
/// the call is cancelled, unless the request has left and spends something.
pub fn watched<T>(deadline: &Deadline, effect: Effect, exchange: impl FnOnce() -> T) -> (T, bool) {
    let abandons = effect.may_be_abandoned();
    CALL.set(Call { deadline: Some(deadline.clone()), abandons, ..Call::NONE });
    let result = exchange();
    (result, CALL.replace(Call::NONE).sent)
}

/// Whether nobody waits any more for the call of this thread.
pub fn is_abandoned() -> bool {
    CALL.with_borrow(Call::is_abandoned)
}

/// By when the connection that is made on this thread must stand; `None` once it does.
pub fn connect_by() -> Option<Instant> {
    CALL.with_borrow(|call| call.connect_by)
}

/// The chain that makes connections: proxy, TCP, TLS, each with its watch on top.
pub fn connector() -> impl Connector {
    let tcp = ().chain(ConnectProxyConnector::default()).chain(Tcp);
    Reach { resolver: Resolver::default(), chain: tcp.chain(RustlsConnector::default()).chain(Note) }
}

/// Makes a connection within the time for all of it: the lookup of the name, the proxy, the handshakes.
#[derive(Debug)]
struct Reach<C> {
    resolver: Resolver,
    chain: C,
}

impl<C: Connector> Connector for Reach<C> {
    type Out = C::Out;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<C::Out>, Error> {
        // The connection to a proxy is made by a call within the call, and takes from the same time.
        let outer = connect_by();
        let by = outer.unwrap_or_else(|| Instant::now() + *details.timeout.after);
        CALL.with_borrow_mut(|call| call.connect_by = Some(by));
        let result = self.connect_by(by, details);
        CALL.with_borrow_mut(|call| call.connect_by = outer);
        // Whichever step took the time: the limit is that of the whole.
        result.map_err(|error| match error {
            Error::Timeout(_) => Error::Timeout(details.timeout.reason),
            error => error,
        })
    }
}

impl<C: Connector> Reach<C> {
    fn connect_by(&self, by: Instant, details: &ConnectionDetails) -> Result<Option<C::Out>, Error> {
        let left = || match by.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(Error::Timeout(details.timeout.reason)),
            left => Ok(NextTimeout { after: Wait::Exact(left), ..details.timeout }),
        };
        let addrs = match details.config.proxy() {
            // A proxy looks the name up itself.
            Some(_) => self.resolver.empty(),
            None => self.resolver.resolve(details.uri, details.config, left()?)?,
        };
        self.chain.connect(
            &ConnectionDetails {
                uri: details.uri,
                addrs,
                config: details.config,
                // No request brings a TLS configuration of its own. Said so, ureq builds it once, not for each
                // connection: that would read the platform's certificates again, and resume no session.
                request_level: false,
                resolver: details.resolver,
                now: (details.current_time)(),
                timeout: left()?,
                current_time: details.current_time.clone(),
                run_connector: details.run_connector.clone(),
                register_shutdown: details.register_shutdown.clone(),
            },
            None,
        )
    }
}

/// Puts [`Noted`] on a connection.
#[derive(Debug)]
struct Note;

impl<In: Transport> Connector<In> for Note {
    type Out = Noted<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Noted<In>>, Error> {
        Ok(chained.map(|inner| Noted { inner, dirty: 0 }))
    }
}

/// Notes that a request leaves, tells whether another one may, and keeps nothing of it meanwhile.
#[derive(Debug)]
struct Noted<T> {
    inner: T,
    /// How much of the input buffer, at most, was written to since it was last wiped.
    dirty: usize,
}

impl<T: Transport> Transport for Noted<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // Before the write: one that fails half way has sent something, too. What leaves while the connection is
        // made, to a proxy or through it, is no part of the request.
        CALL.with_borrow_mut(|call| call.sent |= call.connect_by.is_none());
        let outcome = self.inner.transmit_output(amount, timeout);
        if self.inner.is_tls() {
            // What leaves is a copy. Without TLS it is this very text, and wiped where it leaves.
            self.inner.buffers().output()[..amount].fill(0);
        }
        // A body is read into the free part of the input buffer first.
        self.dirty += amount;
        outcome
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let before = self.inner.buffers().input().len();
        let outcome = self.inner.await_input(timeout);
        self.dirty += self.inner.buffers().input().len().saturating_sub(before);
        outcome
    }

    /// Whether the server has closed the connection while it was idle; asked when it goes back to the pool, every
    /// answer read, and right before each use.
    ///
    /// What is left is the moment between this look and the arrival of the request. A request that is lost in it was
    /// sent, and has no answer: a repeatable one is repeated, and one that spends a token is not, here; what becomes
    /// of that token is decided by who knows its life (`tokens::refresh`).
    fn is_open(&mut self) -> bool {
        let used = std::mem::take(&mut self.dirty);
        let input = self.inner.buffers().input_append_buf();
        let used = used.min(input.len());
        input[..used].fill(0);
        // Without time, this looks at what came with the last answer, and not at the socket. A farewell of TLS may
        // be there; that the server's end of the socket is still open means nothing then.
        let idle = NextTimeout { after: Wait::Exact(Duration::ZERO), ..NextTimeout::default() };
        let is_left = matches!(self.await_input(idle), Err(Error::Timeout(_)));
        // After a request, on the way to the pool, there is no need to look at the socket: that comes before the next one.
        is_left && (CALL.with_borrow(|call| call.sent) || self.inner.is_open())
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
