//! Pass-through requests to any endpoint: a path below the base URL, and the unchanged response.

use ureq::http::{HeaderName, Uri, header};

use super::{Api, uri};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::http::{Answer, Request, TransportError};

impl Api {
    /// The target for a path, or for a URL below the base URL.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for any other URL: a token must be sent only to the API.
    pub fn target(&self, path: &str, query: &[(String, String)]) -> Result<Uri> {
        let refused = |why: &str| Err(Error::invalid_argument("path", format!("path {why}")));
        let below = path.strip_prefix(&self.base_url).unwrap_or(path);
        if !below.starts_with('/') {
            let why = "must be a path that begins with /, or a URL below baseUrl";
            return refused(why);
        }
        if !below.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refused("contains a blank or a non-ASCII character; percent-encode it");
        }
        if below.contains(['#', '\\']) {
            return refused("contains a # or a backslash");
        }
        let (bare, own_query) =
            below.split_once('?').map_or((below, None), |(bare, query)| (bare, Some(query)));
        if has_dot_segment(bare) {
            return refused("contains a segment . or .., percent-encoded or not");
        }
        let mut pairs = form_urlencoded::Serializer::new(own_query.unwrap_or_default().to_owned());
        pairs.extend_pairs(query);
        let pairs = pairs.finish();
        let target = uri(&self.base_url, bare, (!pairs.is_empty()).then_some(&*pairs));
        target.or_else(|_| {
            refused(
                "and query are not a valid URL: too long, or a \" < > ^ ` | is not percent-encoded",
            )
        })
    }

    /// Sends a request, by default with the configured `Version` header. Returns responses of any
    /// status.
    ///
    /// # Errors
    /// Errors of the network; `RATE_LIMITED` if the rate limiter gives no permit before the
    /// deadline.
    pub fn send<'a>(
        &'a self,
        mut request: Request<'a>,
        deadline: &Deadline,
    ) -> Result<Answer, TransportError> {
        let version = HeaderName::from_static("version");
        if request.headers.iter().all(|(name, _)| *name != version) {
            request.headers.push((version, &self.version));
        }
        self.http.exchange(&request, deadline)
    }
}

/// Whether a path has a segment that a server resolves (RFC 3986, section 5.2.4), which would leave
/// the base URL. A server may decode `%2e`, `%2f` and `%5c` first.
fn has_dot_segment(path: &str) -> bool {
    let decoded = path.to_ascii_lowercase().replace("%2e", ".");
    let decoded = decoded.replace("%2f", "/").replace("%5c", "/");
    decoded.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Whether a caller may set this header. The library controls `Host`, `User-Agent`, and the headers
/// about the connection, message framing and compression itself.
pub fn is_caller_settable(name: &HeaderName) -> bool {
    let ours = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        header::ACCEPT_ENCODING,
        header::USER_AGENT,
    ];
    !ours.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::Config;

    #[test]
    fn path_cannot_leave_the_base_url() {
        let mut config = Config::new("app-1", "s");
        config.base_url = "https://services.example/v3/".into();
        let clock: std::sync::Arc<dyn crate::clock::Clock> =
            std::sync::Arc::new(SystemClock::new());
        let api = Api::new(&config, &clock).unwrap();
        let query = [("a b".to_owned(), "c&d".to_owned())];
        for (path, query, expected) in [
            ("/contacts/", &[][..], "https://services.example/v3/contacts/"),
            ("/contacts/?limit=1", &[], "https://services.example/v3/contacts/?limit=1"),
            ("/contacts", &query, "https://services.example/v3/contacts?a+b=c%26d"),
            ("/contacts?limit=1", &query, "https://services.example/v3/contacts?limit=1&a+b=c%26d"),
            (
                "https://services.example/v3/contacts?x=1",
                &[],
                "https://services.example/v3/contacts?x=1",
            ),
            ("//evil.example/", &[], "https://services.example/v3//evil.example/"),
            ("/a/.../b", &[], "https://services.example/v3/a/.../b"),
            ("/a%2Fb%2e%2E%2ec", &[], "https://services.example/v3/a%2Fb%2e%2E%2ec"),
            ("/a?b=%2e%2e/..", &[], "https://services.example/v3/a?b=%2e%2e/.."),
        ] {
            assert_eq!(api.target(path, query).unwrap().to_string(), expected);
        }
        for path in [
            "",
            "contacts",
            "@evil.example/",
            ".evil.example/",
            "https://evil.example/v3/contacts",
            "https://services.example.evil/v3/contacts",
            "https://services.example/v3evil/contacts",
            "https://services.example/v3",
            "http://services.example/v3/contacts",
            "https://u@services.example/v3/contacts",
            "/a b",
            "/a\r\nX: y",
            "/ä",
            "/a#b",
            "/..\\b",
            "/a/../../b",
            "/./b",
            "/..",
            "/%2e%2e/b",
            "/a/%2E%2e",
            "/a/.%2e/b",
            "/a/%2e./b",
            "/%2e/b",
            "/a/..%2fb",
            "/a%2F%2e%2e%5Cb",
            "/a<b",
            "/a?b=|>",
            &"/long".repeat(20_000),
        ] {
            let error = api.target(path, &[]).unwrap_err();
            assert_eq!(error.parameter(), Some("path"), "{path}");
        }
    }
}
