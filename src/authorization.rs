//! Consent: from a link to a stored token (RFC 6749, 4.1).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Uri;

use crate::api::{Api, TokenParams};
use crate::clock::Clock;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::random;
use crate::secret::Secret;
use crate::token::UserType;
use crate::tokens::Tokens;

/// How long a person may take to consent.
const PATIENCE: Duration = Duration::from_secs(3600);

/// How many consents may be under way; beyond that the oldest is forgotten.
const MOST_PENDING: usize = 10_000;

/// What a consent is asked for with.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UrlParams {
    /// Default: the configured ones.
    pub scopes: Option<Vec<String>>,
    /// Default: the configured one.
    pub redirect_uri: Option<String>,
    /// The app's version; a private app may need it.
    pub version_id: Option<String>,
    /// Whether the login stays in the same browser tab. Default: false.
    pub login_in_same_tab: bool,
    /// A `state` of the host's own. Default: 256 random bits.
    pub state: Option<String>,
}

/// What came back from the consent page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompleteParams {
    /// The whole URL that the browser was sent to, with its query.
    pub redirect_url: Secret,
    /// The `state` that belongs to this browser's session, where the host keeps it, for instance because
    /// another process made the link. Default: any link that this client made.
    pub state: Option<String>,
    /// Accept a redirect without a `state`, as an installation that was started inside the marketplace sends
    /// it. Default: false.
    #[serde(default)]
    pub allow_missing_state: bool,
    /// The kind of token that is wanted. Default: what the installation gives.
    pub user_type: Option<UserType>,
}

/// The consents that are under way.
pub struct Authorization {
    api: Arc<Api>,
    tokens: Arc<Tokens>,
    clock: Arc<dyn Clock>,
    authorize_url: String,
    client_id: String,
    redirect_uri: Option<String>,
    scopes: Vec<String>,
    consents: Mutex<HashMap<String, Consent>>,
}

/// One consent, by its `state`.
struct Consent {
    began: Duration,
    redirect_uri: String,
    used: bool,
}

impl Authorization {
    /// Consents for the app of that configuration.
    pub fn new(config: &Config, api: Arc<Api>, tokens: Arc<Tokens>, clock: Arc<dyn Clock>) -> Authorization {
        Authorization {
            api,
            tokens,
            clock,
            authorize_url: config.authorize_url.clone(),
            client_id: config.client_id.clone(),
            redirect_uri: config.redirect_uri.clone(),
            scopes: config.scopes.clone(),
            consents: Mutex::default(),
        }
    }

    /// The link to send a person to: `{"url", "state"}`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where the scopes or the redirect URI are neither given nor configured, or a value is
    /// malformed.
    pub fn url(&self, params: UrlParams) -> Result<Value> {
        let scopes = params.scopes.unwrap_or_else(|| self.scopes.clone());
        if scopes.is_empty() {
            return Err(Error::invalid_argument("scopes", "scopes are neither given nor configured"));
        }
        if scopes.iter().any(|scope| scope.is_empty() || scope.contains(char::is_whitespace)) {
            return Err(Error::invalid_argument(
                "scopes",
                "each scope is one word, such as \"locations.readonly\"",
            ));
        }
        let redirect_uri = self.redirect_uri(params.redirect_uri)?;
        let state = match params.state {
            Some(state) if state.trim().is_empty() => {
                return Err(Error::invalid_argument("state", "state is empty"));
            }
            Some(state) => state,
            None => random::token()?,
        };
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", &state);
        if let Some(version_id) = &params.version_id {
            query.append_pair("version_id", version_id);
        }
        if params.login_in_same_tab {
            query.append_pair("loginWindowOpenMode", "self");
        }
        let separator = if self.authorize_url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}{}", self.authorize_url, query.finish());
        self.remember(state.clone(), Consent { began: self.clock.uptime(), redirect_uri, used: false });
        Ok(json!({"url": url, "state": state}))
    }

    /// Checks what the consent page sent back, exchanges the code, and stores the token. Returns its metadata.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a URL that is not this app's redirect; `CONSENT_DENIED`; `STATE_MISMATCH` for a
    /// `state` that is missing, unknown, expired or already used; `REAUTHORIZATION_REQUIRED` when the API
    /// refuses the code; and what the network or the store say.
    pub fn complete(&self, params: &CompleteParams, deadline: &Deadline) -> Result<Value> {
        let redirect = Redirect::read(params.redirect_url.expose())?;
        let redirect_uri = self.check_state(params, &redirect)?;
        if !redirect.is_to(&redirect_uri) {
            return Err(Error::invalid_argument(
                "redirectUrl",
                "redirectUrl does not lead to this app's redirect URI",
            )
            .with_help("pass the whole URL that the browser was sent to"));
        }
        if let Some(code) = redirect.parameter("error") {
            let words = redirect.parameter("error_description").unwrap_or_default();
            return Err(Error::new(
                Status::ConsentDenied,
                format!("consent was not given: {code} {words}").trim_end(),
            )
            .with_help("let the user try again; a scope that the app does not have is refused, too"));
        }
        let Some(code) = redirect.parameter("code").filter(|code| !code.is_empty()) else {
            return Err(Error::invalid_argument(
                "redirectUrl",
                "redirectUrl has neither a code nor an error",
            ));
        };
        let exchange = TokenParams::code(Secret::new(code.to_owned()), redirect_uri, params.user_type);
        let token = self.api.token(&exchange, self.clock.wall_ms(), deadline)?;
        self.tokens.adopt(token, deadline)
    }

    /// Uses up the redirect's `state`, and answers the redirect URI that its link had.
    fn check_state(&self, params: &CompleteParams, redirect: &Redirect) -> Result<String> {
        let mismatch = |why: &str| {
            Error::new(
                Status::StateMismatch,
                format!("the redirect does not belong to a consent of this client: {why}"),
            )
            .with_help(
                "begin again with a new link; if nobody began one, somebody may be trying to slip in a code",
            )
        };
        if params.state.as_deref().is_some_and(|state| state.trim().is_empty()) {
            return Err(Error::invalid_argument("state", "state is empty"));
        }
        let Some(state) = redirect.parameter("state").filter(|state| !state.is_empty()) else {
            if params.allow_missing_state && params.state.is_none() {
                return self.redirect_uri(None);
            }
            return Err(mismatch("it has no state"));
        };
        if let Some(expected) = &params.state
            && !Secret::new(expected.clone()).matches(state)
        {
            return Err(mismatch("it has another state than the session"));
        }
        // A look-up by hash tells by its time nothing of use about the 256 bits that are stored.
        let now = self.clock.uptime();
        let mut consents = self.consents();
        match consents.get_mut(state) {
            Some(consent) if consent.used => Err(mismatch("its state was used already")),
            Some(consent) if now.saturating_sub(consent.began) > PATIENCE => {
                Err(mismatch("its link is too old"))
            }
            Some(consent) => {
                consent.used = true;
                Ok(consent.redirect_uri.clone())
            }
            // The host vouches for it: the link may have been made by another process.
            None if params.state.is_some() => {
                drop(consents);
                let redirect_uri = self.redirect_uri(None)?;
                let used = Consent { began: now, redirect_uri: redirect_uri.clone(), used: true };
                self.remember(state.to_owned(), used);
                Ok(redirect_uri)
            }
            None => Err(mismatch("its state is unknown")),
        }
    }

    fn redirect_uri(&self, given: Option<String>) -> Result<String> {
        let uri = given.or_else(|| self.redirect_uri.clone());
        let uri = uri.ok_or_else(|| {
            Error::invalid_argument("redirectUri", "redirectUri is neither given nor configured")
        })?;
        match uri.parse::<Uri>() {
            Ok(parsed) if parsed.scheme().is_some() && parsed.host().is_some() => Ok(uri),
            _ => Err(Error::invalid_argument("redirectUri", "redirectUri is not an absolute URL")),
        }
    }

    fn remember(&self, state: String, consent: Consent) {
        let mut consents = self.consents();
        if consents.len() >= MOST_PENDING {
            let now = self.clock.uptime();
            consents.retain(|_, consent| now.saturating_sub(consent.began) <= PATIENCE);
        }
        if consents.len() >= MOST_PENDING
            && let Some(oldest) =
                consents.iter().min_by_key(|(_, consent)| consent.began).map(|(state, _)| state.clone())
        {
            consents.remove(&oldest);
        }
        consents.insert(state, consent);
    }

    fn consents(&self) -> MutexGuard<'_, HashMap<String, Consent>> {
        self.consents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A URL that a browser was sent back to.
struct Redirect {
    target: Uri,
    parameters: Vec<(String, String)>,
}

impl Redirect {
    fn read(url: &str) -> Result<Redirect> {
        let wrong = || Error::invalid_argument("redirectUrl", "redirectUrl is not an absolute URL");
        let target: Uri = url.trim().parse().map_err(|_| wrong())?;
        if target.scheme().is_none() || target.host().is_none() {
            return Err(wrong());
        }
        let query = target.query().unwrap_or_default();
        let parameters = form_urlencoded::parse(query.as_bytes()).into_owned().collect::<Vec<_>>();
        for name in ["code", "state", "error"] {
            if parameters.iter().filter(|(key, _)| key == name).count() > 1 {
                let message = format!("redirectUrl has {name} more than once");
                return Err(Error::invalid_argument("redirectUrl", message));
            }
        }
        Ok(Redirect { target, parameters })
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Same origin and same path.
    fn is_to(&self, redirect_uri: &str) -> bool {
        let Ok(expected) = redirect_uri.parse::<Uri>() else {
            return false;
        };
        let port = |uri: &Uri| {
            uri.port_u16().or(match uri.scheme_str() {
                Some("https") => Some(443),
                Some("http") => Some(80),
                _ => None,
            })
        };
        let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
        self.target.scheme() == expected.scheme()
            && host(&self.target) == host(&expected)
            && port(&self.target) == port(&expected)
            && self.target.path() == expected.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_one_place_only() {
        let is_to = |url: &str| Redirect::read(url).unwrap().is_to("https://app.example/oauth/callback");
        assert!(is_to("https://app.example/oauth/callback?code=1"));
        assert!(is_to("https://APP.example:443/oauth/callback?code=1#top"));
        for other in [
            "http://app.example/oauth/callback",
            "https://app.example.evil/oauth/callback",
            "https://evil@app.example.evil/oauth/callback",
            "https://app.example:8443/oauth/callback",
            "https://app.example/oauth/callback/more",
            "https://app.example/",
        ] {
            assert!(!is_to(other), "{other}");
        }
        for malformed in ["", "callback", "/oauth/callback?code=1", "https://"] {
            assert!(Redirect::read(malformed).is_err(), "{malformed}");
        }
        assert!(Redirect::read("https://app.example/?code=1&code=2").is_err());
    }
}
