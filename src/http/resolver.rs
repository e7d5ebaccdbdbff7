//! Name resolution (DNS) for HTTP connections.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver as Resolve};
use ureq::unversioned::transport::NextTimeout;

use super::exchange;
use crate::lookup;

/// How many addresses of a host are tried at most: as many as ureq's list holds.
const MAX_ADDRESSES: usize = 16;

/// No lookup takes longer.
const MAX_LOOKUP_TIME: Duration = Duration::from_secs(86_400);

/// Takes a literal address as it is, and looks a name up within the time for the connection. A lookup ends early when its
/// call is cancelled.
#[derive(Debug, Default)]
pub struct Resolver(());

impl Resolve for Resolver {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?.trim_start_matches('[').trim_end_matches(']');
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        let mut resolved = self.empty();
        if let Ok(address) = host.parse::<IpAddr>() {
            resolved.push(SocketAddr::new(address, port));
            return Ok(resolved);
        }
        let by = Instant::now() + (*timeout.after).min(MAX_LOOKUP_TIME);
        let left = || match by.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(Error::Timeout(timeout.reason)),
            _ if exchange::is_abandoned() => Err(Error::Timeout(timeout.reason)),
            left => Ok(left),
        };
        let found = lookup::addresses(host, port, left)?;
        found.into_iter().take(MAX_ADDRESSES).for_each(|address| resolved.push(address));
        if resolved.is_empty() { Err(Error::HostNotFound) } else { Ok(resolved) }
    }
}

/// Finds nothing: the connector looks names up itself, when it makes a connection. ureq asks before it knows that
/// it needs one; a request on a connection that stands would pay for a lookup, and fail with it.
#[derive(Debug)]
pub struct NoopResolver;

impl Resolve for NoopResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}
