//! CSRF and DNS rebinding protection of the control API and the dashboard. Any page in a
//! developer's browser can send requests to a local port, so requests from other origins are
//! refused.

use crate::control_reply::refuse;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

/// Refuses requests that [`stranger`] objects to, and hides responses from pages of other origins.
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

/// The reason to refuse a request as foreign. The port is reachable only from this machine, but
/// also for pages in its browser: under any host name (DNS rebinding), which `Host` reveals, or
/// cross-origin, which `Origin` reveals. Browsers send `Origin` with every request that can change
/// something.
pub(crate) fn stranger(headers: &HeaderMap) -> Option<&'static str> {
    if !only(headers, header::HOST).is_some_and(names_this_machine) {
        return Some("the Host header does not name this machine");
    }
    foreign(headers)
}

/// The reason to refuse a request from a page of another origin. `Origin` is compared with `Host`
/// instead of a fixed name, since a tunnel may lead to the emulator.
pub(crate) fn foreign(headers: &HeaderMap) -> Option<&'static str> {
    if !headers.contains_key(header::ORIGIN) {
        return None; // not a browser, or a page that only reads
    }
    let asking = only(headers, header::ORIGIN)
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, authority)| authority);
    let own = asking.is_some() && asking == only(headers, header::HOST);
    (!own).then_some("the Origin header does not match the emulator")
}

/// The value of a header that occurs exactly once.
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
        let pair =
            |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn local_programs_and_own_pages_are_accepted() {
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
    fn other_host_names_and_other_pages_are_refused() {
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
