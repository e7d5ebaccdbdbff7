//! Transport middleware for ureq: connect timeout, cancellation, tracking of sent bytes, and wiping
//! of the buffers of idle connections. `tcp` implements the TCP connection.

use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::resolver::Resolver as _;
use ureq::unversioned::transport::time::Duration as UreqDuration;
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, RustlsConnector,
    Transport,
};

use super::exchange;
use super::resolver::Resolver;
use super::tcp::TcpConnector;

/// The connector chain: proxy, TCP, TLS, and tracking on top.
pub fn connector() -> impl Connector {
    let tcp = ().chain(ConnectProxyConnector::default()).chain(TcpConnector);
    TimedConnector {
        resolver: Resolver::default(),
        chain: tcp.chain(RustlsConnector::default()).chain(TrackingConnector),
    }
}

/// A connector with one timeout for all steps: name lookup, proxy and handshakes.
#[derive(Debug)]
struct TimedConnector<C> {
    resolver: Resolver,
    chain: C,
}

impl<C: Connector> Connector for TimedConnector<C> {
    type Out = C::Out;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<C::Out>, Error> {
        // ureq connects to a proxy by a nested call, which shares the outer call's deadline.
        let outer = exchange::connect_by();
        let by = outer.unwrap_or_else(|| Instant::now() + *details.timeout.after);
        exchange::set_connect_by(Some(by));
        let result = self.connect_by(by, details);
        exchange::set_connect_by(outer);
        // A timeout of any step is an error that names the connect timeout.
        result.map_err(|error| match error {
            Error::Timeout(_) => Error::Timeout(details.timeout.reason),
            error => error,
        })
    }
}

impl<C: Connector> TimedConnector<C> {
    fn connect_by(
        &self,
        by: Instant,
        details: &ConnectionDetails,
    ) -> Result<Option<C::Out>, Error> {
        let left = || match by.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(Error::Timeout(details.timeout.reason)),
            left => Ok(NextTimeout { after: UreqDuration::Exact(left), ..details.timeout }),
        };
        let addrs = match details.config.proxy() {
            // The proxy resolves the name.
            Some(_) => self.resolver.empty(),
            None => self.resolver.resolve(details.uri, details.config, left()?)?,
        };
        self.chain.connect(
            &ConnectionDetails {
                uri: details.uri,
                addrs,
                config: details.config,
                // With `false`, ureq builds the TLS configuration once instead of for each
                // connection, which would load the platform's certificates again and resume no
                // session.
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

/// Wraps a connection in a [`TrackedTransport`].
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

/// Records that a request is sent, and wipes the buffers that held its data.
#[derive(Debug)]
struct TrackedTransport<T> {
    inner: T,
    /// Upper bound of the bytes in the input buffer that were written since it was last wiped.
    dirty: usize,
}

impl<T: Transport> Transport for TrackedTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // Recorded before the write, since a write that fails may have sent a part.
        exchange::record_output();
        let outcome = self.inner.transmit_output(amount, timeout);
        if self.inner.is_tls() {
            // With TLS, the socket sends an encrypted copy, so the plaintext is wiped here. Without
            // TLS, this is the buffer to be sent, and `tcp` wipes it.
            self.inner.buffers().output()[..amount].fill(0);
        }
        // ureq copies a body into the free part of the input buffer first.
        self.dirty += amount;
        outcome
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let before = self.inner.buffers().input().len();
        let outcome = self.inner.await_input(timeout);
        self.dirty += self.inner.buffers().input().len().saturating_sub(before);
        outcome
    }

    /// Whether an idle connection is still open. ureq asks when the connection returns to the pool,
    /// and again before each use.
    ///
    /// A race remains: the server may close the connection before the request arrives. Such a
    /// request has no response; the retry policy or `tokens::refresh` decides.
    fn is_open(&mut self) -> bool {
        let dirty = std::mem::take(&mut self.dirty);
        let input = self.inner.buffers().input_append_buf();
        let dirty = dirty.min(input.len());
        input[..dirty].fill(0);
        // A timeout of zero checks only data that was already read, such as a TLS `close_notify`,
        // which closes the connection even if the socket is open.
        let immediate =
            NextTimeout { after: UreqDuration::Exact(Duration::ZERO), ..NextTimeout::default() };
        let is_silent = matches!(self.await_input(immediate), Err(Error::Timeout(_)));
        // When the connection returns to the pool, the socket need not be checked: that happens
        // before the next use.
        is_silent && (exchange::is_sent() || self.inner.is_open())
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
