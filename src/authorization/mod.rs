//! The authorization code flow (RFC 6749, section 4.1), from the consent URL to the stored token.

mod page;
mod pending;
mod receiver;
mod redirect;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Uri;

use crate::api::{Api, NO_VERSION, Outcome, TokenParams, TokenRetry, without_secrets};
use crate::clock::Clock;
use crate::config::{Config, ConsentPage, StoreKind, absolute_url};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status, exhaustion};
use crate::random;
use crate::secret::Secret;
use crate::token::{NO_SCOPE, UserType, is_scope};
use crate::tokens::Tokens;

use pending::{ConsumedState, Pending, mismatch};
use receiver::Receiver;
use redirect::Redirect;

/// The range of `timeoutMs`. The maximum is the lifetime of a consent URL.
const WAIT_MS: RangeInclusive<u64> = 1..=3_600_000;

/// The parameters of a consent URL.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[deny(missing_docs)]
pub struct UrlParams {
    /// Default: the configured ones.
    pub scopes: Option<Vec<String>>,
    /// Default: the configured one.
    pub redirect_uri: Option<String>,
    /// The app's version; may be required for a private app.
    pub version_id: Option<String>,
    /// Whether the login opens in the same browser tab. Default: false.
    pub login_in_same_tab: bool,
    /// A `state` chosen by the host. Default: 256 random bits.
    pub state: Option<Secret>,
}

/// The redirect from the consent page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[deny(missing_docs)]
pub struct CompleteParams {
    /// The full URL to which the browser was redirected, with its query.
    pub redirect_url: Secret,
    /// The `state` from the browser's session. Required if another process built the URL. Default:
    /// the state of any URL that this client built.
    pub state: Option<Secret>,
    /// Accept a redirect without a `state`, as after an installation that was started inside the
    /// marketplace. Default: false.
    #[serde(default)]
    pub allow_missing_state: bool,
    /// The redirect URI of the consent. Required if it is not the configured one and another
    /// process built the URL.
    pub redirect_uri: Option<String>,
    /// The kind of token to request. Default: the kind of the installation.
    pub user_type: Option<UserType>,
}

/// How to wait for the redirect from the consent page.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[deny(missing_docs)]
pub struct ListenParams {
    /// The port on 127.0.0.1, 1 to 65,535. Default: the port of the redirect URI, if that is `http`
    /// on `localhost` or `127.0.0.1`. Required behind a tunnel.
    pub port: Option<u64>,
    /// The longest wait for the browser, in milliseconds, 1 to 3,600,000. Default: 300,000.
    pub timeout_ms: u64,
    /// As in [`CompleteParams::state`].
    pub state: Option<Secret>,
    /// As in [`CompleteParams::allow_missing_state`]. During the wait, any page in the user's
    /// browser can then end the wait and inject its own code.
    pub allow_missing_state: bool,
    /// The redirect URI of the consent. Default: the configured one.
    pub redirect_uri: Option<String>,
    /// The kind of token to request. Default: the kind of the installation.
    pub user_type: Option<UserType>,
}

impl Default for ListenParams {
    fn default() -> ListenParams {
        ListenParams {
            port: None,
            timeout_ms: 300_000,
            state: None,
            allow_missing_state: false,
            redirect_uri: None,
            user_type: None,
        }
    }
}

/// Runs the consents of one client.
pub struct Authorization {
    api: Arc<Api>,
    tokens: Arc<Tokens>,
    clock: Arc<dyn Clock>,
    authorize_url: String,
    client_id: String,
    redirect_uri: Option<String>,
    scopes: Vec<String>,
    page: ConsentPage,
    pending: Pending,
    /// Whether a consent will be the first one in a store that is lost with the client.
    warns_of_memory: AtomicBool,
}

/// The caller's requirements for a redirect.
struct Expected<'a> {
    state: Option<&'a Secret>,
    allow_missing_state: bool,
    redirect_uri: Option<&'a str>,
}

/// The content of a verified redirect.
struct Consented {
    /// The authorization code, or the user's refusal.
    answer: Result<Secret>,
    /// The redirect URI of the consent, which the exchange must repeat (RFC 6749, section 4.1.3).
    redirect_uri: String,
    /// The state, unless it was missing.
    state: Option<ConsumedState>,
}

impl Authorization {
    /// Consents for the configured app.
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
            page: config.consent_page.clone(),
            pending: Pending::new()?,
            warns_of_memory: AtomicBool::new(config.store.kind == StoreKind::Memory),
        })
    }

    /// Builds the URL of the consent page: `{"url", "state"}`.
    pub fn url(&self, params: UrlParams) -> Result<Value> {
        let scopes = params.scopes.unwrap_or_else(|| self.scopes.clone());
        if scopes.is_empty() {
            return Err(Error::invalid_argument(
                "scopes",
                "scopes are neither given nor configured",
            ));
        }
        if !scopes.iter().all(|scope| is_scope(scope)) {
            return Err(Error::invalid_argument("scopes", NO_SCOPE));
        }
        let redirect_uri = self.redirect_uri(params.redirect_uri.as_deref())?;
        not_blank(params.state.as_ref())?;
        let state = params.state.map_or_else(|| random::token().map(Secret::new), Ok)?;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", state.expose());
        if let Some(version_id) = &params.version_id {
            query.append_pair("version_id", version_id);
        }
        if params.login_in_same_tab {
            query.append_pair("loginWindowOpenMode", "self");
        }
        let separator = if self.authorize_url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}{}", self.authorize_url, query.finish());
        self.pending.begin(state.expose(), redirect_uri, self.clock.uptime());
        Ok(json!({"url": url, "state": state.expose()}))
    }

    /// Verifies the redirect, exchanges its code and stores the token. Returns the token's
    /// metadata.
    pub fn complete(&self, params: &CompleteParams, deadline: &Deadline) -> Result<Value> {
        let redirect = Redirect::read(params.redirect_url.expose())?;
        not_blank(params.state.as_ref())?;
        let expected = Expected {
            state: params.state.as_ref(),
            allow_missing_state: params.allow_missing_state,
            redirect_uri: params.redirect_uri.as_deref(),
        };
        let consented = self.verify_redirect(&redirect, &expected)?;
        self.exchange(consented, params.user_type, deadline)
    }

    /// Waits on a loopback port for the redirect, completes the consent like
    /// [`Authorization::complete`], and shows the result in the browser. Refuses all other requests
    /// without ending the wait.
    ///
    /// The wait for the browser takes at most `timeout_ms`; the exchange then has the full duration
    /// of `deadline`.
    pub fn listen(&self, params: &ListenParams, deadline: &Deadline) -> Result<Value> {
        let redirect_uri = self.redirect_uri(params.redirect_uri.as_deref())?;
        let redirect_target = absolute_url(&redirect_uri).ok_or_else(not_absolute)?;
        not_blank(params.state.as_ref())?;
        let port = params.port(&redirect_target)?;
        let wait = deadline.renewed(params.wait_timeout()?);
        // Not `NETWORK`: that status is retryable and about the API, and the same port would still
        // be in use.
        let receiver = Receiver::bind(port, &redirect_target).map_err(|error| {
            let message = format!("cannot listen on port {port} of 127.0.0.1: {error}");
            if let Some(help) = exhaustion::help(&error) {
                return Error::new(Status::Network, message).with_help(help);
            }
            Error::invalid_argument("port", message).with_help(
                "stop the program that uses the port, or point the tunnel to another port",
            )
        })?;
        log::info!("waiting for a consent on 127.0.0.1:{port}");
        let expected = Expected {
            state: params.state.as_ref(),
            allow_missing_state: params.allow_missing_state,
            redirect_uri: Some(&redirect_uri),
        };
        let take = |query: &str| {
            let redirect = Redirect::new(redirect_target.clone(), query);
            let claimed = redirect.and_then(|redirect| self.verify_redirect(&redirect, &expected));
            claimed.map_err(|error| {
                log::warn!("a redirect was refused{}", error.fields(""));
                page::about(page::Outcome::NotExpected, &self.page)
            })
        };
        let (consented, browser) = receiver.receive(&wait, take).map_err(|error| {
            match error.status() {
            Status::Timeout => Error::new(
                Status::Timeout,
                format!("no redirect from the consent page within {} ms", params.timeout_ms),
            )
            .with_help(
                "listen again, with a new link if the last one is more than an hour old, or raise \
                 timeoutMs",
            ),
            _ => error,
        }
        })?;
        let outcome = self.exchange(consented, params.user_type, &wait.renewed(deadline.total()));
        let shown = match outcome.as_ref().map_err(Error::status) {
            Ok(_) => page::Outcome::Connected,
            Err(Status::ConsentDenied) => page::Outcome::Denied,
            Err(_) => page::Outcome::Failed,
        };
        browser.show(&page::about(shown, &self.page));
        outcome
    }

    /// Checks that a redirect belongs to a consent of this client, and uses up its `state` if so.
    fn verify_redirect(&self, redirect: &Redirect, expected: &Expected) -> Result<Consented> {
        let named = || self.redirect_uri(expected.redirect_uri);
        let Some(state) = redirect.parameter("state").filter(|state| !state.is_empty()) else {
            if expected.allow_missing_state && expected.state.is_none() {
                return consented(redirect, named()?);
            }
            return Err(mismatch("it has no state"));
        };
        if let Some(expected) = expected.state
            && !expected.matches(state)
        {
            return Err(mismatch("its state differs from the state of the session"));
        }
        let (consented, used) =
            self.pending.consume(state, self.clock.uptime(), |link| match link {
                Some(redirect_uri) => consented(redirect, redirect_uri.to_owned()),
                // The host has checked the state: another process may have built the URL.
                None if expected.state.is_some() => consented(redirect, named()?),
                None => Err(mismatch("its state is unknown")),
            })?;
        Ok(Consented { state: Some(used), ..consented })
    }

    /// Exchanges the code and stores the token.
    fn exchange(
        &self,
        consented: Consented,
        user_type: Option<UserType>,
        deadline: &Deadline,
    ) -> Result<Value> {
        let exchange = TokenParams::code(consented.answer?, consented.redirect_uri, user_type);
        let token =
            self.api.token(&exchange, TokenRetry::SingleUse, self.clock.wall_ms(), deadline);
        // Unless the API has rejected the code, the same redirect may be tried again.
        let may_be_valid = token.as_ref().is_err_and(|failure| {
            failure.outcome != Outcome::Refused
                || failure.error.status() != Status::ReauthorizationRequired
        });
        if let Some(state) = consented.state.filter(|_| may_be_valid) {
            self.pending.restore(state);
        }
        // From here on the code is used up.
        let saved = self
            .tokens
            .save_consented(token?, deadline)
            .map_err(|error| error.with_sent(true).with_retryable(false))?;
        if self.warns_of_memory.swap(false, Ordering::Relaxed) {
            log::warn!(
                "a consent was stored in the memory store: its token is lost when the client ends, \
                 and the user must consent again; set store to keep it"
            );
        }
        Ok(saved)
    }

    /// The redirect URI: the given one, or by default the configured one.
    fn redirect_uri(&self, given: Option<&str>) -> Result<String> {
        let uri = given.or(self.redirect_uri.as_deref()).ok_or_else(|| {
            Error::invalid_argument("redirectUri", "redirectUri is neither given nor configured")
        })?;
        absolute_url(uri).map(|_| uri.to_owned()).ok_or_else(not_absolute)
    }
}

impl ListenParams {
    fn port(&self, redirect_uri: &Uri) -> Result<u16> {
        let Some(given) = self.port else {
            // Any other redirect URI needs a tunnel or a proxy, whose local port is unknown.
            let here = matches!(redirect_uri.host(), Some("127.0.0.1" | "localhost"));
            return redirect::port(redirect_uri)
                .filter(|_| here && redirect_uri.scheme_str() == Some("http"))
                .ok_or_else(|| {
                    Error::invalid_argument(
                        "port",
                        "port is missing, and the redirect URI is not http on localhost or \
                         127.0.0.1",
                    )
                    .with_help("pass the local port of your HTTPS tunnel")
                });
        };
        u16::try_from(given)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| Error::invalid_argument("port", "port must be from 1 to 65535"))
    }

    fn wait_timeout(&self) -> Result<Duration> {
        if !WAIT_MS.contains(&self.timeout_ms) {
            let message =
                format!("timeoutMs must be from {} to {}", WAIT_MS.start(), WAIT_MS.end());
            return Err(Error::invalid_argument("timeoutMs", message));
        }
        Ok(Duration::from_millis(self.timeout_ms))
    }
}

fn not_absolute() -> Error {
    Error::invalid_argument("redirectUri", "redirectUri is not an absolute URL")
}

/// Rejects an empty state; a missing one is allowed.
fn not_blank(state: Option<&Secret>) -> Result<()> {
    if state.is_some_and(|state| state.expose().trim().is_empty()) {
        return Err(Error::invalid_argument("state", "state is empty"));
    }
    Ok(())
}

/// The content of a redirect, if its target is `redirect_uri`.
fn consented(redirect: &Redirect, redirect_uri: String) -> Result<Consented> {
    if !redirect.is_to(&redirect_uri) {
        let message = format!(
            "redirectUrl does not match the redirect URI of this app: it is {}, not {redirect_uri}",
            redirect.shown_target()
        );
        return Err(match redirect.slight_difference(&redirect_uri) {
            None => Error::invalid_argument("redirectUrl", message)
                .with_help("pass the full URL to which the browser was redirected"),
            Some(difference) => Error::invalid_argument(
                "redirectUrl",
                format!("{message}; they differ in {difference}"),
            )
            .with_help(
                "pass the URL that the browser shows: behind a proxy, the server sees another \
                 scheme, host or port; and configure redirectUri exactly as in the developer \
                 portal",
            ),
        });
    }
    let answer = if let Some(code) = redirect.parameter("error") {
        let words = redirect.parameter("error_description").unwrap_or_default();
        let message = format!("consent was not given: {code} {words}");
        let secrets = ["code", "state"].map(|name| redirect.parameter(name).unwrap_or_default());
        let said = message.to_ascii_lowercase();
        let help = if said.contains("noappversionidfound") || said.contains("no integration found")
        {
            NO_VERSION
        } else {
            "let the user try again, and check that the app has every requested scope"
        };
        Err(Error::new(Status::ConsentDenied, without_secrets(message.trim_end(), &secrets))
            .with_help(help))
    } else if let Some(code) = redirect.parameter("code").filter(|code| !code.is_empty()) {
        Ok(Secret::new(code.to_owned()))
    } else {
        return Err(Error::invalid_argument(
            "redirectUrl",
            "redirectUrl has neither a code nor an error",
        ));
    };
    Ok(Consented { answer, redirect_uri, state: None })
}
