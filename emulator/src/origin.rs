//! Who may operate the emulator: programs of this machine, and pages of its own. Any page that a developer has open can
//! send requests to a port of the same machine; what is read and changed here must not be up to such a page.

use crate::control_reply::refuse;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

/// Lets only requests pass that [`stranger`] has nothing against, and keeps the answers from pages of other origins.
pub(crate) async fn from_this_machine(request: Request, next: Next) -> Response {
    if let Some(complaint) = stranger(request.headers()) {
        return refuse(StatusCode::FORBIDDEN, complaint);
    }
    let mut response = next.run(request).await;
    for (name, value) in [
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Why a request comes from elsewhere. Only this machine reaches the port, but a page in its browser does too: under a
/// name of the page's own choosing (DNS rebinding), which `Host` tells, or across origins, which `Origin` tells: it comes
/// with every request of a page that could change something.
pub(crate) fn stranger(headers: &HeaderMap) -> Option<&'static str> {
    if !only(headers, header::HOST).is_some_and(names_this_machine) {
        return Some("the Host header does not name this machine");
    }
    foreign(headers)
}

/// Why a request comes from a page of another origin, whatever name the emulator goes by: a tunnel may lead to it.
pub(crate) fn foreign(headers: &HeaderMap) -> Option<&'static str> {
    if !headers.contains_key(header::ORIGIN) {
        return None; // No browser, or a page that only reads.
    }
    let asking = only(headers, header::ORIGIN)
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, authority)| authority);
    let own = asking.is_some() && asking == only(headers, header::HOST);
    (!own).then_some("the Origin header names another page than the emulator's own")
}

/// The value of a header that came exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
}

fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ["127.0.0.1", "localhost", "[::1]"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn this_machines_programs_and_own_pages_pass() {
        for own in [
            &[("host", "127.0.0.1:8080")][..],
            &[("host", "LOCALHOST")],
            &[("host", "[::1]")],
            &[("host", "[::1]:8080"), ("origin", "https://[::1]:8080")],
            &[("host", "localhost:8080"), ("origin", "http://localhost:8080")],
        ] {
            assert_eq!(stranger(&headers(own)), None, "{own:?}");
        }
    }

    #[test]
    fn other_names_and_other_pages_do_not() {
        for foreign in [
            &[][..],
            &[("host", "rebound.example")],
            &[("host", "rebound.example:8080"), ("origin", "http://rebound.example:8080")],
            &[("host", "127.0.0.1.rebound.example:8080")],
            &[("host", "localhost:8080"), ("host", "localhost:8080")],
            &[("host", "localhost:8080"), ("origin", "null")],
            &[("host", "localhost:8080"), ("origin", "https://page.example")],
            &[("host", "localhost:8080"), ("origin", "http://localhost:3000")],
            &[("host", "localhost:8080"), ("origin", "http://127.0.0.1:8080")],
            &[
                ("host", "localhost:8080"),
                ("origin", "http://localhost:8080"),
                ("origin", "http://localhost:8080"),
            ],
        ] {
            assert!(stranger(&headers(foreign)).is_some(), "{foreign:?}");
        }
    }
}
