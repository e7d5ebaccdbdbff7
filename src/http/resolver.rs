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

/// Maximum number of addresses tried per host, which is the capacity of ureq's list.
const MAX_ADDRESSES: usize = 16;

const MAX_LOOKUP_TIME: Duration = Duration::from_secs(86_400);

/// Parses a literal address, or looks up a name within the connect timeout. Cancelling the call
/// ends the lookup.
#[derive(Debug, Default)]
pub struct Resolver(());

impl Resolve for Resolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host =
            uri.host().ok_or(Error::HostNotFound)?.trim_start_matches('[').trim_end_matches(']');
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

/// Resolves nothing: ureq would look up the name even for a request on a pooled connection. The
/// connector does so only when it opens one.
#[derive(Debug)]
pub struct NoopResolver;

impl Resolve for NoopResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}
