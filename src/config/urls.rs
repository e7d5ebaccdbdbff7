//! URLs of the configuration: absolute, with TLS unless the host is loopback.

use std::net::IpAddr;
use std::path::Path;

use ureq::http::Uri;

use super::refused;
use crate::error::Result;

/// Checks a URL that the library requests or the user's browser opens: TLS, except for loopback
/// hosts or if `http.allowInsecureHttp` is set.
pub(super) fn check_endpoint(key: &str, url: &str, allow_insecure_http: bool) -> Result<()> {
    let uri = absolute(key, url)?;
    let host = uri.host().unwrap_or_default();
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refused(key, "it must not contain a user name or password"));
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_loopback(host) || allow_insecure_http => Ok(()),
        Some("http") => Err(refused(key, "plain http is allowed only for loopback hosts")
            .with_help("use https, or set http.allowInsecureHttp to true in a trusted network")),
        _ => Err(refused(key, "its scheme must be https")),
    }
}

pub(super) fn absolute(key: &str, url: &str) -> Result<Uri> {
    absolute_url(url).ok_or_else(|| refused(key, "it must be an absolute URL"))
}

/// Parses a URL with a scheme and a host. An invalid port is an error: ignoring it would select the
/// default port.
pub(crate) fn absolute_url(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.scheme().and(uri.authority())?;
    let (host, address) = (authority.host(), authority.as_str().rsplit('@').next()?);
    let port = address.get(host.len()..)?;
    // Rust's integers may begin with a plus sign.
    let is_valid = port.is_empty() || authority.port_u16().is_some() && !port.contains('+');
    (!host.is_empty() && is_valid).then_some(uri)
}

/// Whether a URL's host is this machine, so that no one else can read unencrypted traffic. Accepts
/// IPv6 addresses with and without brackets.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a path looks like a URL, with a valid or malformed scheme. It may contain a password, so
/// errors must not quote it. A single letter is a Windows drive.
pub(super) fn is_url(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.len() > 1 && !scheme.contains(['/', '\\'])
}

pub(super) fn is_postgres(url: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme))
}
