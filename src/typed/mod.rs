//! The public Rust API: a client with typed results.
//!
//! Each method makes the same call of the core as the C function of the same name, and parses the
//! same JSON document into a typed result.

pub mod params;
mod results;

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::api::InstalledLocationsParams;
use crate::authorization::{CompleteParams, ListenParams, UrlParams};
use crate::client::{self, CallOptions, MetricsParams};
use crate::config::Config;
use crate::error::{Error, Result, Status};
use crate::request::RequestParams;
use crate::secret::Secret;
use crate::store::Host;
use crate::tokens::{
    AccessTokenParams, AdoptParams, ImportParams, ListParams, MaintainParams, MintParams,
};
use crate::webhook::{Headers, WebhookParams};

pub use results::{
    AdoptReport, AuthorizationUrl, Body, BusyResource, ClientTokens, Event, Exported, FailedToken,
    ImportReport, Location, LocationPage, MaintainProgress, MaintainReport, MintProgress,
    MintReport, RateLimiterStatistics, RequestStatistics, Response, SkippedToken, Statistics,
    TokenInfo, TokenPage, TokenState, TokenStatistics, UnadoptedToken, Webhook, WebhookOutcome,
};

/// A client for one app and its tokens. Share it between threads by reference or in an `Arc`.
///
/// Every call ends by its deadline (`timeouts.totalMs` of the configuration, or
/// [`Client::with_timeout`]), or earlier by [`Client::cancel`]. Dropping the client makes a last
/// attempt to save tokens that could not be saved before.
///
/// A program that stores its tokens in SQLite:
///
/// ```no_run
/// use ghl_oauth::{Client, Config, config::StoreKind, params::UrlParams};
///
/// fn main() -> ghl_oauth::Result<()> {
///     let mut config = Config::new("<client id>", "<client secret>");
///     config.redirect_uri = Some("https://app.example/oauth/callback".into());
///     config.scopes = vec!["oauth.readonly".into(), "oauth.write".into()];
///     config.store.kind = StoreKind::Sqlite;
///     config.store.path = Some("tokens.db".into());
///     let client = Client::new(&config)?;
///     println!("Send your user to {}", client.authorization_url(UrlParams::default())?.url);
///     Ok(())
/// }
/// ```
pub struct Client {
    core: client::Client,
}

impl Client {
    /// Creates a client.
    ///
    /// # Errors
    /// [`Status::Config`], with the key in [`Error::parameter`]; [`Status::Store`] if the store
    /// cannot be opened.
    ///
    /// ```
    /// use ghl_oauth::{Client, Config, Status};
    ///
    /// let client = Client::new(&Config::new("app-1", "secret"))?;
    /// let error = client.access_token("a location without a token").unwrap_err();
    /// assert_eq!(error.status(), Status::NotFound);
    /// assert!(!error.retryable());
    /// # Ok::<(), ghl_oauth::Error>(())
    /// ```
    pub fn new(config: &Config) -> Result<Client> {
        Ok(Client { core: client::Client::new(config)? })
    }

    /// Creates a client with a custom store. `config.store.kind` may be left at its default.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_host(config: &Config, host: Arc<dyn Host>) -> Result<Client> {
        Ok(Client { core: client::Client::with_host(config, host)? })
    }

    /// A valid access token for a company or a location.
    ///
    /// A token that is not due is returned from memory. Otherwise it is refreshed, or minted with
    /// the token of the location's company, once for all concurrent callers, and saved before it is
    /// returned.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::ReauthorizationRequired`], [`Status::LocationInactive`];
    /// errors of the API, the network and the store.
    ///
    /// ```no_run
    /// # fn call(client: &ghl_oauth::Client) -> ghl_oauth::Result<()> {
    /// let token = client.access_token("<a company ID or location ID>")?;
    /// let header = format!("Bearer {}", token.expose());
    /// # Ok(()) }
    /// ```
    pub fn access_token(&self, resource_id: &str) -> Result<Secret> {
        self.core.access_token(resource_id)
    }

    /// Like [`Client::access_token`], but the token is valid for at least `min_valid`, for example
    /// for a long upload. A token with less time left is refreshed; if that fails, the error is
    /// returned. A token that was granted within the last minute is returned even if its whole life
    /// is shorter.
    ///
    /// # Errors
    /// As [`Client::access_token`].
    pub fn access_token_valid_for(&self, resource_id: &str, min_valid: Duration) -> Result<Secret> {
        self.core.access_token_with(&AccessTokenParams {
            resource_id: resource_id.to_owned(),
            min_valid_seconds: Some(min_valid.as_secs_f64().ceil() as u64),
        })
    }

    /// A valid access token if one is in memory and not due; for event loops. Does no I/O and does
    /// not wait. On `None`, call [`Client::access_token`] on another thread.
    pub fn access_token_in_memory(&self, resource_id: &str) -> Option<Secret> {
        self.core.try_fresh_token(resource_id, Secret::clone)
    }

    /// The URL of the consent page, with a fresh `state`.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`], with the parameter in [`Error::parameter`].
    ///
    /// ```
    /// use ghl_oauth::{Client, Config, params::UrlParams};
    ///
    /// let mut config = Config::new("app-1", "secret");
    /// config.redirect_uri = Some("https://app.example/oauth/callback".into());
    /// let client = Client::new(&config)?;
    /// let scopes = Some(vec!["oauth.readonly".to_owned()]);
    /// let link = client.authorization_url(UrlParams { scopes, ..UrlParams::default() })?;
    /// assert!(link.url.contains("scope=oauth.readonly"));
    /// # Ok::<(), ghl_oauth::Error>(())
    /// ```
    pub fn authorization_url(&self, params: UrlParams) -> Result<AuthorizationUrl> {
        typed(self.core.authorization_url(params)?)
    }

    /// Checks the redirect from the consent page, exchanges its code, and stores the token.
    ///
    /// # Errors
    /// [`Status::StateMismatch`], [`Status::ConsentDenied`], [`Status::ReauthorizationRequired`] if
    /// the API rejects the code; errors of the API, the network and the store.
    ///
    /// ```no_run
    /// # fn call(client: &ghl_oauth::Client) -> ghl_oauth::Result<()> {
    /// use ghl_oauth::params::CompleteParams;
    ///
    /// let redirect = "https://app.example/oauth/callback?code=…&state=…";
    /// let token = client.authorization_complete(&CompleteParams::new(redirect))?;
    /// println!("connected {}", token.resource_id);
    /// # Ok(()) }
    /// ```
    pub fn authorization_complete(&self, params: &CompleteParams) -> Result<TokenInfo> {
        typed(self.core.authorization_complete(params)?)
    }

    /// Waits on a port of 127.0.0.1 for the redirect from the consent page, and completes the
    /// consent.
    ///
    /// # Errors
    /// As [`Client::authorization_complete`]; [`Status::Timeout`] if no redirect arrives.
    pub fn authorization_listen(&self, params: &ListenParams) -> Result<TokenInfo> {
        typed(self.core.authorization_listen(params)?)
    }

    /// Refreshes a token now, or mints it, even if it is still valid.
    ///
    /// # Errors
    /// As [`Client::access_token`].
    pub fn token_refresh(&self, resource_id: &str) -> Result<TokenInfo> {
        typed(self.core.token_refresh(resource_id)?)
    }

    /// Deletes a token from the store, without telling the API. Returns the deleted token's
    /// metadata.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::Store`].
    pub fn token_delete(&self, resource_id: &str) -> Result<TokenInfo> {
        typed(self.core.token_delete(resource_id)?)
    }

    /// One page of the stored tokens, without their secrets.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`] for a page size out of range; [`Status::Store`].
    ///
    /// ```
    /// use ghl_oauth::{Client, Config, params::ListParams};
    ///
    /// let client = Client::new(&Config::new("app-1", "secret"))?;
    /// let mut params = ListParams::default();
    /// loop {
    ///     let page = client.tokens_list(&params)?;
    ///     for token in page.items {
    ///         println!("{} is {:?}", token.resource_id, token.state);
    ///     }
    ///     params.page_token = page.next_page_token;
    ///     if params.page_token.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), ghl_oauth::Error>(())
    /// ```
    pub fn tokens_list(&self, params: &ListParams) -> Result<TokenPage> {
        typed(self.core.tokens_list(params)?)
    }

    /// One page of the stored tokens with their secrets, in the form that [`Client::tokens_import`]
    /// accepts.
    ///
    /// # Errors
    /// As [`Client::tokens_list`].
    pub fn tokens_export(&self, params: &ListParams) -> Result<Exported> {
        typed(self.core.tokens_export(params)?)
    }

    /// Imports tokens from another program: one JSON object each, in camelCase or snake_case.
    ///
    /// Tokens that are older than a stored one, or of unknown age, are skipped and reported, unless
    /// `replace` is set.
    ///
    /// # Errors
    /// [`Status::Store`], [`Status::Timeout`], [`Status::Cancelled`]; the same import can then be
    /// repeated.
    ///
    /// ```
    /// use ghl_oauth::{Client, Config};
    ///
    /// let client = Client::new(&Config::new("app-1", "secret"))?;
    /// let saved = serde_json::json!({
    ///     "access_token": "a", "refresh_token": "r", "companyId": "c1", "userType": "Company",
    /// });
    /// let report = client.tokens_import(vec![saved.as_object().unwrap().clone()], false)?;
    /// assert_eq!(report.imported, 1);
    /// # Ok::<(), ghl_oauth::Error>(())
    /// ```
    pub fn tokens_import(
        &self,
        tokens: Vec<Map<String, Value>>,
        replace: bool,
    ) -> Result<ImportReport> {
        typed(self.core.tokens_import(ImportParams {
            tokens,
            replace,
            ..ImportParams::default()
        })?)
    }

    /// Reports what [`Client::tokens_import`] would do with these tokens, and changes nothing.
    ///
    /// # Errors
    /// As [`Client::tokens_import`].
    pub fn tokens_import_dry_run(
        &self,
        tokens: Vec<Map<String, Value>>,
        replace: bool,
    ) -> Result<ImportReport> {
        let params = ImportParams { tokens, replace, dry_run: true, ..ImportParams::default() };
        typed(self.core.tokens_import(params)?)
    }

    /// Moves the tokens of another client ID in the same database to this client, after a change of
    /// the client key. Without `client_id`, moves nothing and only lists the client IDs in
    /// `clients` of the report.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]; [`Status::Config`] for a store that has only one client ID;
    /// [`Status::Store`].
    pub fn tokens_adopt(
        &self,
        client_id: Option<&str>,
        resource_id: Option<&str>,
        dry_run: bool,
    ) -> Result<AdoptReport> {
        let (client_id, resource_id) =
            (client_id.map(str::to_owned), resource_id.map(str::to_owned));
        typed(self.core.tokens_adopt(&AdoptParams { client_id, resource_id, dry_run })?)
    }

    /// Mints tokens for many locations of a company, as fast as the rate limit allows. One failure
    /// does not stop the rest.
    ///
    /// `progress` is called a few times a second on this thread; returning `false` stops the call.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]; [`Status::Cancelled`] if `progress` stopped the call; the
    /// errors of [`Client::access_token`] for the company.
    ///
    /// ```no_run
    /// # fn call(client: &ghl_oauth::Client) -> ghl_oauth::Result<()> {
    /// use ghl_oauth::params::MintParams;
    ///
    /// let report = client.tokens_mint(MintParams::installed("<a company ID>"), |progress| {
    ///     println!("{} locations have a token", progress.done);
    ///     true
    /// })?;
    /// for failed in &report.failed {
    ///     eprintln!("{:?}: {}", failed.resource_id, failed.error);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn tokens_mint(
        &self,
        params: MintParams,
        progress: impl Fn(&MintProgress) -> bool,
    ) -> Result<MintReport> {
        typed(self.core.tokens_mint(params, &|document| reported(document, &progress))?)
    }

    /// Renews all tokens that are due, and retries saving unsaved ones. Call it every few minutes,
    /// or at [`MaintainReport::next_due_at`].
    ///
    /// `progress` is called as for [`Client::tokens_mint`].
    ///
    /// # Errors
    /// [`Status::Store`]; [`Status::Cancelled`] if `progress` stopped the call.
    ///
    /// ```
    /// use ghl_oauth::{Client, Config, params::MaintainParams};
    ///
    /// let client = Client::new(&Config::new("app-1", "secret"))?;
    /// let report = client.tokens_maintain(&MaintainParams::default(), |_| true)?;
    /// assert_eq!((report.checked, report.next_due_at), (0, None));
    /// # Ok::<(), ghl_oauth::Error>(())
    /// ```
    pub fn tokens_maintain(
        &self,
        params: &MaintainParams,
        progress: impl Fn(&MaintainProgress) -> bool,
    ) -> Result<MaintainReport> {
        typed(self.core.tokens_maintain(params, &|document| reported(document, &progress))?)
    }

    /// One page of a company's locations, or all of them with `all`.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`] for a missing company or a page size out of range; otherwise as
    /// [`Client::access_token`].
    pub fn oauth_installed_locations(
        &self,
        params: &InstalledLocationsParams,
    ) -> Result<LocationPage> {
        self.core.oauth_installed_locations(params).map(LocationPage::from)
    }

    /// Sends a request to any endpoint of the API with a valid token. A response with any HTTP
    /// status is a success.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]; otherwise as [`Client::access_token`].
    ///
    /// ```no_run
    /// # fn call(client: &ghl_oauth::Client) -> ghl_oauth::Result<()> {
    /// use ghl_oauth::params::RequestParams;
    ///
    /// let mut request = RequestParams::new("GET", "/contacts/");
    /// request.resource_id = Some("<a location ID>".into());
    /// request.query.insert("locationId".into(), "<a location ID>".into());
    /// let response = client.request(&request)?;
    /// println!("{} {:?}", response.status, response.body);
    /// # Ok(()) }
    /// ```
    pub fn request(&self, params: &RequestParams) -> Result<Response> {
        Ok(Response::new(self.core.request(params)?))
    }

    /// Verifies the signature of a webhook delivery and parses it.
    ///
    /// # Errors
    /// [`Status::SignatureInvalid`]: reject the delivery. [`Status::InvalidArgument`] for a signed
    /// body that is not a JSON object.
    pub fn webhook_verify<'a>(
        &self,
        body: &[u8],
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Webhook> {
        typed(self.core.webhook_verify(body, &read_headers(headers)?)?)
    }

    /// Verifies a delivery and applies an INSTALL or UNINSTALL of this app to the tokens.
    ///
    /// # Errors
    /// As [`Client::webhook_verify`]; [`Status::Store`], [`Status::Timeout`] and
    /// [`Status::Cancelled`]: respond with status 429, so that the vendor repeats the delivery.
    ///
    /// ```
    /// use ghl_oauth::{Client, Config, Status};
    ///
    /// let client = Client::new(&Config::new("app-1", "secret"))?;
    /// let headers = [("content-type", "application/json")];
    /// let refused = client.webhook_apply(br#"{"type": "INSTALL"}"#, headers).unwrap_err();
    /// assert_eq!(refused.status(), Status::SignatureInvalid);
    /// # Ok::<(), ghl_oauth::Error>(())
    /// ```
    pub fn webhook_apply<'a>(
        &self,
        body: &[u8],
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<WebhookOutcome> {
        self.webhook_apply_with(body, headers, &WebhookParams::default())
    }

    /// Like [`Client::webhook_apply`], with parameters. Without `mint`, no request is sent to the
    /// API: a location's token is minted at its first use or by [`Client::tokens_maintain`].
    ///
    /// # Errors
    /// As [`Client::webhook_apply`].
    ///
    /// ```
    /// use ghl_oauth::{Client, Config, Status, params::WebhookParams};
    ///
    /// let client = Client::new(&Config::new("app-1", "secret"))?;
    /// let (body, headers) = (br#"{"type": "INSTALL"}"#, [("content-type", "application/json")]);
    /// let later = WebhookParams { mint: Some(false) };
    /// let refused = client.webhook_apply_with(body, headers, &later).unwrap_err();
    /// assert_eq!(refused.status(), Status::SignatureInvalid);
    /// # Ok::<(), ghl_oauth::Error>(())
    /// ```
    pub fn webhook_apply_with<'a>(
        &self,
        body: &[u8],
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        params: &WebhookParams,
    ) -> Result<WebhookOutcome> {
        typed(self.core.webhook_apply(body, &read_headers(headers)?, params)?)
    }

    /// Ends every waiting call with [`Status::Cancelled`]; later calls are not affected.
    ///
    /// A refresh whose request has been sent continues on its thread until the response is saved.
    pub fn cancel(&self) {
        self.core.cancel();
    }

    /// The same client for calls that end after `timeout`, not `timeouts.totalMs`; a call over
    /// many tokens ends altogether. A refresh whose request has been sent continues until the
    /// response is saved.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ghl_oauth::{Client, Config, params::ListParams};
    ///
    /// let client = Client::new(&Config::new("app-1", "secret"))?;
    /// let page = client.with_timeout(Duration::from_secs(2)).tokens_list(&ListParams::default())?;
    /// assert!(page.items.is_empty());
    /// # Ok::<(), ghl_oauth::Error>(())
    /// ```
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        let options = CallOptions { timeout: Some(timeout), ..self.core.options().clone() };
        Client { core: self.core.with(options) }
    }

    /// The same client for calls that [`Client::cancel_call`] can end by this ID.
    #[must_use]
    pub fn with_call_id(&self, call_id: impl Into<String>) -> Client {
        let options = CallOptions { call_id: Some(call_id.into()), ..self.core.options().clone() };
        Client { core: self.core.with(options) }
    }

    /// Ends the calls in progress that have this ID, like [`Client::cancel`].
    ///
    /// # Errors
    /// [`Status::InvalidArgument`] if the ID is empty or longer than 256 bytes.
    pub fn cancel_call(&self, call_id: &str) -> Result<()> {
        self.core.cancel_call(call_id)
    }

    /// Sets the listener for events, replacing the previous one. It runs on a thread that is inside
    /// a call, without any lock, and may use the client.
    pub fn on_event(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.core.on_event(Some(Arc::new(move |document: &Value| match typed(document.clone()) {
            Ok(event) => listener(&event),
            Err(error) => log::error!("an event could not be parsed{}", error.fields("")),
        })));
    }

    /// Statistics of this client in this process, for monitoring.
    ///
    /// # Errors
    /// [`Status::Store`], in a forked child that cannot open its store.
    pub fn stats(&self) -> Result<Statistics> {
        typed(self.core.stats()?)
    }

    /// Metrics in Prometheus' text format (version 0.0.4), for a program's own endpoint: serve them
    /// with the content type `text/plain; version=0.0.4; charset=utf-8`.
    ///
    /// The metrics of stored tokens come from the store and are the same in every process that
    /// shares it; the others are counters of this client. If the store cannot be read in time,
    /// `ghl_oauth_store_up` is 0 and only the counters follow. Reads every record, but writes
    /// nothing.
    ///
    /// # Errors
    /// [`Status::Cancelled`]; [`Status::Store`], in a forked child that cannot open its store.
    pub fn metrics(&self) -> Result<String> {
        self.core.metrics(&MetricsParams::default())
    }
}

#[doc(hidden)]
impl From<client::Client> for Client {
    fn from(core: client::Client) -> Client {
        Client { core }
    }
}

/// Parses a document of the core.
fn typed<T: DeserializeOwned>(document: Value) -> Result<T> {
    // serde's error may quote a value of the document, so drop it.
    serde_json::from_value(document)
        .map_err(|_| Error::new(Status::Internal, "a result of the library could not be parsed"))
}

/// Passes a progress document to the caller's function. Returns whether to continue.
fn reported<T: DeserializeOwned>(document: &Value, progress: &impl Fn(&T) -> bool) -> bool {
    typed(document.clone()).map_or(true, |so_far| progress(&so_far))
}

/// Collects headers into a JSON object; each name has a list of values.
fn read_headers<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Headers> {
    let mut document = Map::new();
    for (name, value) in headers {
        if let Value::Array(values) =
            document.entry(name).or_insert_with(|| Value::Array(Vec::new()))
        {
            values.push(value.into());
        }
    }
    typed(document.into())
}

#[cfg(all(test, not(ghl_loom)))]
mod tests;
