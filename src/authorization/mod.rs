//! Consent: from a link to a stored token (RFC 6749, 4.1).

mod pending;
mod redirect;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, TokenParams};
use crate::clock::Clock;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::random;
use crate::secret::Secret;
use crate::token::UserType;
use crate::tokens::Tokens;

use pending::{Pending, mismatch};
use redirect::Redirect;

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
    /// The redirect URI of the link, needed where it is not the configured one and another process made the link.
    pub redirect_uri: Option<String>,
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
    pending: Pending,
}

/// What a redirect that belongs to a consent brought.
struct Consented {
    /// The code, or the refusal in its stead.
    answer: Result<Secret>,
    /// That of the link, which the exchange must repeat.
    redirect_uri: String,
}

impl Authorization {
    /// Consents for the app of that configuration.
    ///
    /// # Errors
    /// `INTERNAL` where the system has no randomness.
    pub fn new(
        config: &Config,
        api: Arc<Api>,
        tokens: Arc<Tokens>,
        clock: Arc<dyn Clock>,
    ) -> Result<Authorization> {
        Ok(Authorization {
            api,
            tokens,
            clock,
            authorize_url: config.authorize_url.clone(),
            client_id: config.client_id.clone(),
            redirect_uri: config.redirect_uri.clone(),
            scopes: config.scopes.clone(),
            pending: Pending::new()?,
        })
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
        let redirect_uri = self.redirect_uri(params.redirect_uri.as_deref())?;
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
        self.pending.begin(&state, redirect_uri, self.clock.uptime());
        Ok(json!({"url": url, "state": state}))
    }

    /// Checks what the consent page sent back, exchanges the code, and stores the token. Returns its metadata.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a URL that is not this app's redirect; `CONSENT_DENIED`; `STATE_MISMATCH` for a
    /// `state` that is missing, unknown, expired or already used; `REAUTHORIZATION_REQUIRED` when the API
    /// refuses the code; and what the network or the store say.
    pub fn complete(&self, params: &CompleteParams, deadline: &Deadline) -> Result<Value> {
        let consented = self.claim(params)?;
        self.exchange(consented, params.user_type, deadline)
    }

    /// Checks that a redirect answers a consent of this client, and uses its `state` up if it does.
    fn claim(&self, params: &CompleteParams) -> Result<Consented> {
        let redirect = Redirect::read(params.redirect_url.expose())?;
        if params.state.as_deref().is_some_and(|state| state.trim().is_empty()) {
            return Err(Error::invalid_argument("state", "state is empty"));
        }
        let named = || self.redirect_uri(params.redirect_uri.as_deref());
        let Some(state) = redirect.parameter("state").filter(|state| !state.is_empty()) else {
            if params.allow_missing_state && params.state.is_none() {
                return consented(&redirect, named()?);
            }
            return Err(mismatch("it has no state"));
        };
        if let Some(expected) = &params.state
            && !Secret::new(expected.clone()).matches(state)
        {
            return Err(mismatch("it has another state than the session"));
        }
        self.pending.use_up(state, self.clock.uptime(), |link| match link {
            Some(redirect_uri) => consented(&redirect, redirect_uri.to_owned()),
            // The host vouches for it: the link may have been made by another process.
            None if params.state.is_some() => consented(&redirect, named()?),
            None => Err(mismatch("its state is unknown")),
        })
    }

    /// From the code to the stored token.
    fn exchange(
        &self,
        consented: Consented,
        user_type: Option<UserType>,
        deadline: &Deadline,
    ) -> Result<Value> {
        let exchange = TokenParams::code(consented.answer?, consented.redirect_uri, user_type);
        let token = self.api.token(&exchange, self.clock.wall_ms(), deadline)?;
        self.tokens.adopt(token, deadline)
    }

    /// The redirect URI of a link: the one given, else the configured one.
    fn redirect_uri(&self, given: Option<&str>) -> Result<String> {
        let uri = given.or(self.redirect_uri.as_deref()).ok_or_else(|| {
            Error::invalid_argument("redirectUri", "redirectUri is neither given nor configured")
        })?;
        match redirect::absolute(uri) {
            Some(_) => Ok(uri.to_owned()),
            None => Err(Error::invalid_argument("redirectUri", "redirectUri is not an absolute URL")),
        }
    }
}

/// What a redirect brought, if it led to that redirect URI.
fn consented(redirect: &Redirect, redirect_uri: String) -> Result<Consented> {
    if !redirect.is_to(&redirect_uri) {
        return Err(Error::invalid_argument(
            "redirectUrl",
            "redirectUrl does not lead to this app's redirect URI",
        )
        .with_help("pass the whole URL that the browser was sent to"));
    }
    let answer = if let Some(code) = redirect.parameter("error") {
        let words = redirect.parameter("error_description").unwrap_or_default();
        Err(Error::new(Status::ConsentDenied, format!("consent was not given: {code} {words}").trim_end())
            .with_help("let the user try again; a scope that the app does not have is refused, too"))
    } else if let Some(code) = redirect.parameter("code").filter(|code| !code.is_empty()) {
        Ok(Secret::new(code.to_owned()))
    } else {
        return Err(Error::invalid_argument("redirectUrl", "redirectUrl has neither a code nor an error"));
    };
    Ok(Consented { answer, redirect_uri })
}
