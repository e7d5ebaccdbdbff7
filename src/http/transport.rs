//! Transport middleware: connect timeout, cancellation, whether a request left, and wiping of an
//! idle connection's buffers. The connection itself is `tcp`'s.

use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::resolver::Resolver as _;
use ureq::unversioned::transport::time::Duration as UreqDuration;
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, RustlsConnector, Transport,
};

use super::exchange;
use super::resolver::Resolver;
use super::tcp::TcpConnector;

/// The chain that makes connections: proxy, TCP, TLS, each with its watch on top.
pub fn connector() -> impl Connector {
    let tcp = ().chain(ConnectProxyConnector::default()).chain(TcpConnector);
    TimedConnector {
        resolver: Resolver::default(),
        chain: tcp.chain(RustlsConnector::default()).chain(TrackingConnector),
    }
}

/// Makes a connection within the time for all of it: the lookup of the name, the proxy, the handshakes.
#[derive(Debug)]
struct TimedConnector<C> {
    resolver: Resolver,
    chain: C,
}

impl<C: Connector> Connector for TimedConnector<C> {
    type Out = C::Out;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<C::Out>, Error> {
        // The connection to a proxy is made by a call within the call, and takes from the same time.
        let outer = exchange::connect_by();
        let by = outer.unwrap_or_else(|| Instant::now() + *details.timeout.after);
        exchange::set_connect_by(Some(by));
        let result = self.connect_by(by, details);
        exchange::set_connect_by(outer);
        // Whichever step took the time: the limit is that of the whole.
        result.map_err(|error| match error {
            Error::Timeout(_) => Error::Timeout(details.timeout.reason),
            error => error,
        })
    }
}

impl<C: Connector> TimedConnector<C> {
    fn connect_by(&self, by: Instant, details: &ConnectionDetails) -> Result<Option<C::Out>, Error> {
        let left = || match by.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(Error::Timeout(details.timeout.reason)),
            left => Ok(NextTimeout { after: UreqDuration::Exact(left), ..details.timeout }),
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

/// Puts [`TrackedTransport`] on a connection.
#[derive(Debug)]
struct TrackingConnector;

impl<In: Transport> Connector<In> for TrackingConnector {
    type Out = TrackedTransport<In>;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<TrackedTransport<In>>, Error> {
        Ok(chained.map(|inner| TrackedTransport { inner, dirty: 0 }))
    }
}

/// Notes that a request leaves, tells whether another one may, and keeps nothing of it meanwhile.
#[derive(Debug)]
struct TrackedTransport<T> {
    inner: T,
    /// How much of the input buffer, at most, was written to since it was last wiped.
    dirty: usize,
}

impl<T: Transport> Transport for TrackedTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // Before the write: one that fails half way has sent something as well.
        exchange::record_output();
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
        let idle = NextTimeout { after: UreqDuration::Exact(Duration::ZERO), ..NextTimeout::default() };
        let is_left = matches!(self.await_input(idle), Err(Error::Timeout(_)));
        // After a request, on the way to the pool, there is no need to look at the socket: that comes before the next one.
        is_left && (exchange::is_sent() || self.inner.is_open())
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
