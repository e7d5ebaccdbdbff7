//! The authorization response (RFC 6749, section 4.1.2): the URL to which the browser was
//! redirected, and its query.

use ureq::http::Uri;
use zeroize::Zeroizing;

use crate::config::absolute_url;
use crate::error::{Error, Result};

/// A redirect: its target and its parameters, which are zeroized on drop because the code is a
/// secret.
pub struct Redirect {
    target: Uri,
    parameters: Vec<(String, Zeroizing<String>)>,
}

impl Redirect {
    pub fn read(url: &str) -> Result<Redirect> {
        let url = url.trim();
        let url = url.split_once('#').map_or(url, |(url, _)| url);
        // Without the query: a `Uri` would keep a copy of the code.
        let (target, query) = url.split_once('?').unwrap_or((url, ""));
        let target = absolute_url(target).ok_or_else(|| {
            Error::invalid_argument("redirectUrl", "redirectUrl is not an absolute URL")
        })?;
        Redirect::new(target, query)
    }

    /// A redirect to `target` with that query.
    pub fn new(target: Uri, query: &str) -> Result<Redirect> {
        let parameters: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| (name.into_owned(), Zeroizing::new(value.into_owned())))
            .collect();
        for name in ["code", "state", "error"] {
            if parameters.iter().filter(|(key, _)| key == name).count() > 1 {
                let message = format!("redirectUrl has {name} more than once");
                return Err(Error::invalid_argument("redirectUrl", message));
            }
        }
        Ok(Redirect { target, parameters })
    }

    /// A parameter of the query, decoded.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the target is that redirect URI: same origin and path.
    pub fn is_to(&self, redirect_uri: &str) -> bool {
        let Some(expected) = absolute_url(redirect_uri) else {
            return false;
        };
        self.target.scheme() == expected.scheme()
            && host(&self.target) == host(&expected)
            && port(&self.target) == port(&expected)
            && self.target.path() == expected.path()
    }

    /// The target without a user name or password, for messages.
    pub fn shown_target(&self) -> String {
        let authority = self.target.authority().map_or("", |authority| authority.as_str());
        let address = authority.rsplit('@').next().unwrap_or_default();
        format!(
            "{}://{address}{}",
            self.target.scheme_str().unwrap_or_default(),
            self.target.path()
        )
    }

    /// The only difference from that redirect URI, if it is one that a proxy or a typing error
    /// causes.
    pub fn slight_difference(&self, redirect_uri: &str) -> Option<&'static str> {
        let expected = absolute_url(redirect_uri)?;
        let bare = |uri: &Uri| uri.path().trim_end_matches('/').to_owned();
        let scheme = self.target.scheme() != expected.scheme();
        let host = host(&self.target) != host(&expected);
        if self.target.path() == expected.path() {
            let port = self.target.port_u16() != expected.port_u16();
            return Some(if host || port { "scheme, host or port" } else { "http and https" });
        }
        let same_origin = !scheme && !host && port(&self.target) == port(&expected);
        (same_origin && bare(&self.target) == bare(&expected))
            .then_some("a trailing slash in the path")
    }
}

fn host(url: &Uri) -> Option<String> {
    url.host().map(str::to_ascii_lowercase)
}

/// The port of a URL, or the default port of its scheme.
pub fn port(url: &Uri) -> Option<u16> {
    url.port_u16().or(match url.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_must_match_the_configured_uri() {
        let is_to =
            |url: &str| Redirect::read(url).unwrap().is_to("https://app.example/oauth/callback");
        assert!(is_to("https://app.example/oauth/callback?code=1"));
        assert!(is_to("https://APP.example:443/oauth/callback?code=1#top"));
        for other in [
            "http://app.example/oauth/callback",
            "https://app.example.evil/oauth/callback",
            "https://evil@app.example.evil/oauth/callback",
            "https://app.example:8443/oauth/callback",
            "https://app.example/oauth/callback/more",
            "https://app.example/",
            "https://evil.example/?https://app.example/oauth/callback",
        ] {
            assert!(!is_to(other), "{other}");
        }
        for malformed in [
            "",
            "callback",
            "/oauth/callback?code=1",
            "https://",
            "?https://app.example/",
            "#",
            "https://app.example:44s/oauth/callback?code=1",
            "https://app.example:/oauth/callback?code=1",
            "https://app.example:65536/oauth/callback?code=1",
        ] {
            assert!(Redirect::read(malformed).is_err(), "{malformed}");
        }
        assert!(Redirect::read("https://app.example/?code=1&code=2").is_err());
    }

    #[test]
    fn redirect_that_nearly_matches_reports_the_difference() {
        let differs = |url: &str| {
            let redirect = Redirect::read(url).unwrap();
            assert!(!redirect.is_to("https://app.example/oauth/callback"));
            redirect.slight_difference("https://app.example/oauth/callback")
        };
        assert_eq!(differs("http://App.example/oauth/callback?code=1"), Some("http and https"));
        assert_eq!(
            differs("https://app.example/oauth/callback/?code=1"),
            Some("a trailing slash in the path")
        );
        for internal in [
            "http://internal/oauth/callback",
            "http://127.0.0.1:8000/oauth/callback?code=1",
            "https://app.example:8443/oauth/callback",
        ] {
            assert_eq!(differs(internal), Some("scheme, host or port"), "{internal}");
        }
        for other in [
            "http://app.example/oauth/callback/",
            "https://app.example/oauth/callback/more",
            "https://other.example/oauth/callback/",
        ] {
            assert_eq!(differs(other), None, "{other}");
        }
    }

    #[test]
    fn parameters_are_decoded_from_the_query() {
        let redirect =
            Redirect::read(" https://app.example/?code=a%20b+c&state=%C3%A9&x#?error=1&code=2 ")
                .unwrap();
        assert_eq!(redirect.parameter("code"), Some("a b c"));
        assert_eq!(redirect.parameter("state"), Some("é"));
        assert_eq!(redirect.parameter("error"), None);
        let fragment = Redirect::read("https://app.example/#?code=1").unwrap();
        assert_eq!(fragment.parameter("code"), None);
    }
}
