//! URLs of the configuration: absolute, with TLS unless the host is loopback.

use std::net::IpAddr;
use std::path::Path;

use ureq::http::Uri;

use super::refused;
use crate::error::Result;

/// Checks a URL that the library requests or the user's browser opens: TLS, except for loopback hosts or if
/// `http.allowInsecureHttp` is set.
pub(super) fn check_endpoint(key: &str, url: &str, allow_insecure_http: bool) -> Result<()> {
    let uri = absolute(key, url)?;
    let host = uri.host().unwrap_or_default();
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refused(key, "it must not carry a user name or password"));
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_loopback(host) || allow_insecure_http => Ok(()),
        Some("http") => Err(refused(key, "plain http is accepted for loopback hosts only")
            .with_help("use https, or set http.allowInsecureHttp to true on a network you trust")),
        _ => Err(refused(key, "its scheme must be https")),
    }
}

pub(super) fn absolute(key: &str, url: &str) -> Result<Uri> {
    absolute_url(url).ok_or_else(|| refused(key, "it must be an absolute URL"))
}

/// A URL with a scheme, a host, and a port that is a number where there is one. A port that is none must not count as
/// absent: the default would stand in for it.
pub(crate) fn absolute_url(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.scheme().and(uri.authority())?;
    let (host, address) = (authority.host(), authority.as_str().rsplit('@').next()?);
    let has_port = address.len() > host.len();
    (!host.is_empty() && has_port == authority.port_u16().is_some()).then_some(uri)
}

/// Whether a host of a URL, with or without the brackets of IPv6, is this machine itself: what is said to it in clear, nobody
/// else can read.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a path begins with a scheme of two letters or more; one letter is a disk of Windows.
pub(super) fn is_url(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
}

pub(super) fn is_postgres(url: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme))
}
