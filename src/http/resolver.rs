//! Finds the addresses of a host.

use std::net::{IpAddr, SocketAddr};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver as Resolve};
use ureq::unversioned::transport::NextTimeout;

/// Takes a literal address as it is; leaves names to ureq, which looks them up on a short-lived thread,
/// since the system's lookup knows no deadline.
#[derive(Debug, Default)]
pub struct Resolver(DefaultResolver);

impl Resolve for Resolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let literal = uri
            .host()
            .and_then(|host| host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok());
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        match literal {
            Some(address) => {
                let mut resolved = self.empty();
                resolved.push(SocketAddr::new(address, uri.port_u16().unwrap_or(default_port)));
                Ok(resolved)
            }
            None => self.0.resolve(uri, config, timeout),
        }
    }
}

/// Finds nothing: the connector looks names up itself, when it makes a connection. ureq asks before it knows that
/// it needs one; a request on a connection that stands would pay for a lookup, and fail with it.
#[derive(Debug)]
pub struct Later;

impl Resolve for Later {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}
