//! Hosts that are reached without the proxy: `http.noProxy`.

use std::net::IpAddr;

use super::refused;
use crate::error::Result;

const KEY: &str = "http.noProxy";

/// Checks that each entry is a host name, a suffix such as `.example.com`, an IP address, a network
/// such as `10.0.0.0/8`, or `*`.
pub(super) fn check(entries: &[String]) -> Result<()> {
    match entries.iter().position(|entry| !is_valid(entry)) {
        None => Ok(()),
        // Not quoted: it may be the URL of a proxy, with its password.
        Some(index) => Err(refused(
            &format!("{KEY}[{index}]"),
            "it is not a host name, .suffix, IP address, network or \"*\"",
        )
        .with_help("give host names without scheme and port, such as \"services.example.com\"")),
    }
}

/// Whether the host is reached without the proxy. Host names match themselves and the names below
/// them.
pub(crate) fn matches(entries: &[String], host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let address: Option<IpAddr> = host.parse().ok();
    entries.iter().any(|entry| match (address, network(entry)) {
        _ if entry == "*" => true,
        (Some(address), Some((network, length))) => is_within(address, network, length),
        (None, None) => is_below(host, &entry.to_ascii_lowercase()),
        _ => false,
    })
}

fn is_below(host: &str, entry: &str) -> bool {
    let above = host.strip_suffix(entry.trim_start_matches('.'));
    above.is_some_and(|above| above.ends_with('.') || above.is_empty() && !entry.starts_with('.'))
}

fn is_valid(entry: &str) -> bool {
    let name = entry.strip_prefix('.').unwrap_or(entry);
    let is_name = !name.is_empty()
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
    entry == "*" || is_name || network(entry).is_some()
}

/// An address, which counts as a network of one, or a network with the length of its prefix.
fn network(entry: &str) -> Option<(IpAddr, u32)> {
    let (address, length) =
        entry.split_once('/').map_or((entry, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(most), |length| length.parse().ok())?;
    (length <= most).then_some((address, length))
}

fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    // Shifting by all bits would overflow; then every address is within.
    let equal = |one: u128, other: u128, bits: u32| {
        (one ^ other).checked_shr(bits - length).unwrap_or_default() == 0
    };
    match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            equal(one.to_bits().into(), other.to_bits().into(), 32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => equal(one.to_bits(), other.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_matches_names_suffixes_addresses_and_networks() {
        for (entry, host, expected) in [
            ("*", "services.example", true),
            ("example.com", "example.com", true),
            ("Example.com", "api.EXAMPLE.com.", true),
            ("example.com", "myexample.com", false),
            (".example.com", "api.example.com", true),
            (".example.com", "example.com", false),
            ("api.example.com", "example.com", false),
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "11.0.0.1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("2001:db8::/32", "[2001:db8:1::5]", true),
            ("2001:db8::/32", "[2001:db9::5]", false),
            ("::/0", "[2001:db9::5]", true),
            ("::1", "[::1]", true),
            ("::/0", "10.0.0.1", false),
            ("10.0.0.0/8", "ten.example", false),
        ] {
            check(&[entry.to_owned()]).unwrap();
            assert_eq!(matches(&[entry.to_owned()], host), expected, "{entry} {host}");
        }
        assert!(!matches(&[], "example.com"));
        assert!(matches(&["a.example".into(), "b.example".into()], "b.example"));
    }

    #[test]
    fn invalid_entry_is_refused() {
        for entry in [
            "",
            ".",
            "..a",
            "a..b",
            "http://a.example",
            "a.example:80",
            "a.example,b.example",
            "a b",
            "*.example.com",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "a.example/8",
        ] {
            let error = check(&[entry.to_owned()]).unwrap_err();
            assert_eq!(error.parameter(), Some("http.noProxy[0]"), "{entry}");
        }
    }
}
