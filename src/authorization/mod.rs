//! The authorization code flow (RFC 6749, section 4.1): from the consent link to a stored token.

mod page;
mod pending;
mod receiver;
mod redirect;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Uri;

use crate::api::{Api, NO_VERSION, TokenParams, TokenRetry, without_secrets};
use crate::clock::Clock;
use crate::config::{Config, absolute_url};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::random;
use crate::secret::Secret;
use crate::token::{NO_SCOPE, UserType, is_scope};
use crate::tokens::Tokens;

use pending::{ConsumedState, Pending, mismatch};
use receiver::Receiver;
use redirect::Redirect;

/// How long a person may be waited for, in milliseconds. A link is good for no longer than the longest.
const WAIT_MS: RangeInclusive<u64> = 1..=3_600_000;

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
    pub state: Option<Secret>,
}

/// What came back from the consent page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompleteParams {
    /// The whole URL that the browser was sent to, with its query.
    pub redirect_url: Secret,
    /// The `state` that belongs to this browser's session, where the host keeps it, for instance because
    /// another process made the link. Default: any link that this client made.
    pub state: Option<Secret>,
    /// Accept a redirect without a `state`, as an installation that was started inside the marketplace sends
    /// it. Default: false.
    #[serde(default)]
    pub allow_missing_state: bool,
    /// The redirect URI of the link, needed where it is not the configured one and another process made the link.
    pub redirect_uri: Option<String>,
    /// The kind of token that is wanted. Default: what the installation gives.
    pub user_type: Option<UserType>,
}

/// How to wait for a browser that comes back from the consent page.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListenParams {
    /// The port on 127.0.0.1, 1 to 65,535. Default: that of the redirect URI, where it is `http` on `localhost` or
    /// `127.0.0.1`; behind a tunnel it must be given.
    pub port: Option<u64>,
    /// How long to wait for the browser, in milliseconds, 1 to 3,600,000. Default: 300,000.
    pub timeout_ms: u64,
    /// As in [`CompleteParams::state`].
    pub state: Option<Secret>,
    /// As in [`CompleteParams::allow_missing_state`]. While this waits, any page in the person's browser can then end
    /// the wait, with a code of its own, too.
    pub allow_missing_state: bool,
    /// The redirect URI of the link. Default: the configured one.
    pub redirect_uri: Option<String>,
    /// The kind of token that is wanted. Default: what the installation gives.
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

/// The expectations of the caller about a redirect.
struct Expected<'a> {
    state: Option<&'a Secret>,
    allow_missing_state: bool,
    redirect_uri: Option<&'a str>,
}

/// What a redirect that belongs to a consent brought.
struct Consented {
    /// The code, or the refusal in its stead.
    answer: Result<Secret>,
    /// That of the link, which the exchange must repeat.
    redirect_uri: String,
    /// Its state, if it had one.
    state: Option<ConsumedState>,
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

    /// Checks what the consent page sent back, exchanges the code, and stores the token. Returns its metadata.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a URL that is not this app's redirect; `CONSENT_DENIED`; `STATE_MISMATCH` for a
    /// `state` that is missing, unknown, expired or already used; `REAUTHORIZATION_REQUIRED` when the API
    /// refuses the code; and what the network or the store say. After an error that is retryable, the same redirect may be
    /// given again.
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

    /// Waits on a loopback port for the browser, completes the consent as [`Authorization::complete`] does, and shows
    /// the person a page that says whether it worked. Whatever else comes to the port is refused and waited past.
    ///
    /// The person has the time of the parameters; the exchange that follows has that of `deadline`, from its beginning.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a parameter, which it names: a `port` that cannot be listened on, too; `TIMEOUT` when
    /// nobody came back; `CANCELLED`; else as [`Authorization::complete`].
    pub fn listen(&self, params: &ListenParams, deadline: &Deadline) -> Result<Value> {
        let redirect_uri = self.redirect_uri(params.redirect_uri.as_deref())?;
        let redirect_target = absolute_url(&redirect_uri).ok_or_else(not_absolute)?;
        not_blank(params.state.as_ref())?;
        let port = params.port(&redirect_target)?;
        let wait = deadline.renewed(params.wait_timeout()?);
        // Not `NETWORK`, though the port may be free again one day: that status speaks of the way to the API, and a
        // program that answers it by trying again would find the same port taken again.
        let receiver = Receiver::bind(port, &redirect_target).map_err(|error| {
            Error::invalid_argument(
                "port",
                format!("port {port} of 127.0.0.1 cannot be listened on: {error}"),
            )
            .with_help("end the program that has it, or take another port and let the tunnel lead there")
        })?;
        log::info!("waiting on port {port} of 127.0.0.1 for a consent");
        let expected = Expected {
            state: params.state.as_ref(),
            allow_missing_state: params.allow_missing_state,
            redirect_uri: Some(&redirect_uri),
        };
        let take = |query: &str| {
            let redirect = Redirect::new(redirect_target.clone(), query);
            let claimed = redirect.and_then(|redirect| self.verify_redirect(&redirect, &expected));
            claimed.inspect_err(|error| log::warn!("{error}")).ok()
        };
        let (consented, browser) = receiver.receive(&wait, take).map_err(|error| match error.status() {
            Status::Timeout => Error::new(
                Status::Timeout,
                format!("nobody came back from the consent page within {} ms", params.timeout_ms),
            )
            .with_help(
                "listen again, with a new link if the last one is more than an hour old, or raise timeoutMs",
            ),
            _ => error,
        })?;
        let outcome = self.exchange(consented, params.user_type, &wait.renewed(deadline.total()));
        browser.show(match outcome.as_ref().map_err(Error::status) {
            Ok(_) => &page::CONNECTED,
            Err(Status::ConsentDenied) => &page::DENIED,
            Err(_) => &page::FAILED,
        });
        outcome
    }

    /// Checks that a redirect answers a consent of this client, and uses its `state` up if it does.
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
            return Err(mismatch("it has another state than the session"));
        }
        let (consented, used) = self.pending.consume(state, self.clock.uptime(), |link| match link {
            Some(redirect_uri) => consented(redirect, redirect_uri.to_owned()),
            // The host vouches for it: the link may have been made by another process.
            None if expected.state.is_some() => consented(redirect, named()?),
            None => Err(mismatch("its state is unknown")),
        })?;
        Ok(Consented { state: Some(used), ..consented })
    }

    /// From the code to the stored token.
    fn exchange(
        &self,
        consented: Consented,
        user_type: Option<UserType>,
        deadline: &Deadline,
    ) -> Result<Value> {
        let exchange = TokenParams::code(consented.answer?, consented.redirect_uri, user_type);
        let granted = self
            .api
            .token(&exchange, TokenRetry::SingleUse, self.clock.wall_ms(), deadline)
            .map_err(Error::from);
        let saved = granted.and_then(|token| self.tokens.save_consented(token, deadline));
        // The code may still be good; whether it is, the same redirect finds out.
        if let (Err(error), Some(state)) = (&saved, consented.state)
            && error.retryable()
        {
            self.pending.restore(state);
        }
        saved
    }

    /// The redirect URI of a link: the one given, else the configured one.
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
            // A browser that is sent to another address or scheme than these needs something in between.
            let here = matches!(redirect_uri.host(), Some("127.0.0.1" | "localhost"));
            return redirect::port(redirect_uri)
                .filter(|_| here && redirect_uri.scheme_str() == Some("http"))
                .ok_or_else(|| {
                    Error::invalid_argument(
                        "port",
                        "port is not given, and the redirect URI does not lead to one here",
                    )
                    .with_help("give the local port that your HTTPS tunnel leads to")
                });
        };
        u16::try_from(given)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| Error::invalid_argument("port", "port must be from 1 to 65535"))
    }

    fn wait_timeout(&self) -> Result<Duration> {
        if !WAIT_MS.contains(&self.timeout_ms) {
            let message = format!("timeoutMs must be from {} to {}", WAIT_MS.start(), WAIT_MS.end());
            return Err(Error::invalid_argument("timeoutMs", message));
        }
        Ok(Duration::from_millis(self.timeout_ms))
    }
}

fn not_absolute() -> Error {
    Error::invalid_argument("redirectUri", "redirectUri is not an absolute URL")
}

/// A state is not needed, but none that is empty is one.
fn not_blank(state: Option<&Secret>) -> Result<()> {
    if state.is_some_and(|state| state.expose().trim().is_empty()) {
        return Err(Error::invalid_argument("state", "state is empty"));
    }
    Ok(())
}

/// What a redirect brought, if it led to that redirect URI.
fn consented(redirect: &Redirect, redirect_uri: String) -> Result<Consented> {
    if !redirect.is_to(&redirect_uri) {
        let message = "redirectUrl does not lead to this app's redirect URI";
        return Err(match redirect.slight_difference(&redirect_uri) {
            None => Error::invalid_argument("redirectUrl", message)
                .with_help("pass the whole URL that the browser was sent to"),
            Some(difference) => Error::invalid_argument(
                "redirectUrl",
                format!("{message}: they differ in {difference}"),
            )
            .with_help(
                "configure redirectUri exactly as the developer portal has it, and pass the URL as the \
                         browser has it: behind a proxy that ends TLS the server itself sees http",
            ),
        });
    }
    let answer = if let Some(code) = redirect.parameter("error") {
        let words = redirect.parameter("error_description").unwrap_or_default();
        let message = format!("consent was not given: {code} {words}");
        let secrets = ["code", "state"].map(|name| redirect.parameter(name).unwrap_or_default());
        let said = message.to_ascii_lowercase();
        let help = if said.contains("noappversionidfound") || said.contains("no integration found") {
            NO_VERSION
        } else {
            "let the user try again; a scope that the app does not have is refused, too"
        };
        Err(Error::new(Status::ConsentDenied, without_secrets(message.trim_end(), &secrets)).with_help(help))
    } else if let Some(code) = redirect.parameter("code").filter(|code| !code.is_empty()) {
        Ok(Secret::new(code.to_owned()))
    } else {
        return Err(Error::invalid_argument("redirectUrl", "redirectUrl has neither a code nor an error"));
    };
    Ok(Consented { answer, redirect_uri, state: None })
}
