//! A local server that emulates GoHighLevel's OAuth endpoints and consent page.
//!
//! Tests start it in their own process ([`Emulator::start`]); programs in other languages run the
//! binary of the same name. Both can move its clock, inspect the requests it received, and inject
//! faults. It validates requests strictly, since a lenient emulator hides bugs, and shares no code
//! with the library under test, since a shared mistake would stay hidden.
//!
//! ```
//! use ghl_oauth_emulator::{Decision, Emulator, Options};
//!
//! let emulator = Emulator::start(Options::default())?;
//! let url = format!(
//!     "{}?response_type=code&client_id={}&redirect_uri=https%3A%2F%2Fapp.example%2Foauth%2Fcallback&scope=oauth.write",
//!     emulator.authorize_url(),
//!     emulator.client_id(),
//! );
//! let redirect = emulator.consent(&url, Decision::Company(emulator.company_id()));
//! assert!(redirect.unwrap().starts_with("https://app.example/oauth/callback?code="));
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod answer;
mod api;
mod bearer;
mod behaviour;
mod call;
mod certificate;
mod clock;
mod complaint;
mod connections;
mod consent;
mod consent_page;
mod control;
mod control_reply;
mod dashboard;
mod delivery;
mod directory;
mod distortion;
mod fault;
mod fault_catalogue;
mod field_names;
mod fields;
mod gate;
mod grant;
mod hold;
mod installations;
mod installed_locations;
mod jwt;
mod landing_page;
mod ledger;
mod location;
mod location_token;
mod options;
mod origin;
mod other_owner;
mod page;
mod random;
mod rate_limit;
mod refusal;
mod request_log;
mod retry;
mod scenario;
mod scenario_run;
mod server;
mod snippets;
mod socket;
mod state;
mod token;
mod tokens;
mod webhook;
mod webhook_delivery;
mod webhook_sender;
mod webhook_signing;

pub use behaviour::{BEHAVIOURS, Behaviour, BehaviourInfo, DailyReset, FieldNames};
pub use certificate::Certificate;
pub use clock::Clock;
pub use consent::Decision;
pub use control::CONTROL_ENDPOINTS;
pub use fault::{Ending, Endpoint, FaultId, FaultKind, GrantType, Rule, Stage};
pub use fault_catalogue::{FAULT_KINDS, FaultKindInfo, FaultParameter, ParameterForm};
pub use grant::UserType;
pub use hold::Hold;
pub use installations::{Installation, InstallationState};
pub use options::{ExpiresIn, Options, RateLimit};
pub use refusal::Refusal;
pub use request_log::{RecordedRequest, StruckBy};
pub use retry::RetryRule;
pub use scenario::ScenarioReport;
pub use scenario_run::{Happened, Happening, Scenario, ScenarioPhase};
pub use tokens::LiveToken;
pub use webhook::Notice;
pub use webhook_signing::{Signature, WebhookPublicKeys};

use certificate::Tls;
use server::Server;
use state::{Shared, State};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

/// A running emulator. Dropping it stops the server and closes every connection.
#[derive(Debug)]
pub struct Emulator {
    shared: Shared,
    identity: Identity,
    clock: Clock,
    _server: Server,
}

/// The values that stay constant while an emulator runs; methods return references to them.
#[derive(Debug)]
struct Identity {
    base_url: String,
    ca_pem: Option<String>,
    client_id: String,
    client_secret: String,
    redirect_uri: String,
    app_id: String,
    version_id: String,
}

impl Emulator {
    /// Starts an emulator on a thread of its own.
    ///
    /// # Errors
    ///
    /// If the port is in use, the CA file cannot be written, or the options contradict each other.
    pub fn start(options: Options) -> io::Result<Self> {
        options.check()?;
        let address: IpAddr =
            if options.ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let address = SocketAddr::new(address, options.port);
        let listener = TcpListener::bind(address)
            .map_err(|error| because(&error, format!("cannot listen on {address}")))?;
        let tls = options.tls.map(Tls::new).transpose()?;
        if let (Some(file), Some(tls)) = (&options.ca_file, &tls) {
            std::fs::write(file, &tls.ca_pem)
                .map_err(|error| because(&error, format!("cannot write {}", file.display())))?;
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let base_url = format!("{scheme}://{}", listener.local_addr()?);
        let state = State::new(&options, base_url.clone());
        let app = &state.directory.app;
        let identity = Identity {
            base_url,
            ca_pem: tls.as_ref().map(|tls| tls.ca_pem.clone()),
            client_id: app.client_id.clone(),
            client_secret: app.client_secret.clone(),
            redirect_uri: app.redirect_uris[0].clone(),
            app_id: app.id.clone(),
            version_id: app.version_id.clone(),
        };
        let clock = state.clock.clone();
        let shared = Shared::new(state);
        Ok(Self { _server: Server::start(listener, tls, &shared)?, shared, identity, clock })
    }

    /// `http://127.0.0.1:PORT`; the scheme is `https` with TLS, the host `[::1]` with IPv6.
    pub fn base_url(&self) -> String {
        self.identity.base_url.clone()
    }

    /// The PEM certificate of the CA that issued the server certificate; `None` without TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.identity.ca_pem.as_deref()
    }

    /// The URL of the consent page. The path without `/v2` works as well.
    pub fn authorize_url(&self) -> String {
        self.shared.lock().authorize_url()
    }

    /// The URL of the dashboard, which shows and controls this emulator.
    pub fn dashboard_url(&self) -> String {
        format!("{}{}", self.identity.base_url, dashboard::PATH)
    }

    /// An authorization URL for all scopes that redirects to [`redirect_uri`](Self::redirect_uri).
    pub fn authorization_link(&self, state: &str) -> String {
        self.shared.lock().authorization_link(self.redirect_uri(), state)
    }

    /// The app's client ID.
    pub fn client_id(&self) -> &str {
        &self.identity.client_id
    }

    /// The app's client secret.
    pub fn client_secret(&self) -> &str {
        &self.identity.client_secret
    }

    /// The first redirect URI registered for the app.
    pub fn redirect_uri(&self) -> &str {
        &self.identity.redirect_uri
    }

    /// The app's ID: the client ID up to its first `-`.
    pub fn app_id(&self) -> &str {
        &self.identity.app_id
    }

    /// The ID of the app's version.
    pub fn version_id(&self) -> &str {
        &self.identity.version_id
    }

    /// A complete configuration for the library, as JSON.
    pub fn configuration(&self) -> String {
        format!("{:#}", self.shared.lock().configuration())
    }

    /// The configuration as code to paste: `json`, `c`, `cpp`, `python` or `environment`; `None`
    /// for another name.
    pub fn configuration_for(&self, language: &str) -> Option<String> {
        snippets::snippet(&self.shared.lock(), language)
    }

    /// The ID of the first company.
    pub fn company_id(&self) -> String {
        self.shared.lock().directory.companies[0].id.clone()
    }

    /// The IDs of all companies.
    pub fn company_ids(&self) -> Vec<String> {
        let state = self.shared.lock();
        let companies = state.directory.companies.iter();
        companies.map(|company| company.id.clone()).collect()
    }

    /// The IDs of all locations, grouped by company.
    pub fn location_ids(&self) -> Vec<String> {
        let state = self.shared.lock();
        let locations = state.directory.locations.iter();
        locations.map(|location| location.id.clone()).collect()
    }

    /// The public keys of the webhook signatures.
    pub fn webhook_public_keys(&self) -> WebhookPublicKeys {
        self.shared.lock().webhooks.keys.public()
    }

    /// The body of a webhook with the current time. Nothing changes, and nothing is sent.
    ///
    /// # Panics
    ///
    /// If the company or location does not exist.
    pub fn webhook(&self, notice: &Notice) -> String {
        let state = self.shared.lock();
        let body = webhook::body(&state.directory, notice, state.clock.now_ms());
        body.unwrap_or_else(|| panic!("there is no company or location for {notice:?}"))
    }

    /// The bodies of all webhooks that consents, installations and uninstallations triggered, sent
    /// or not; at most the latest 10,000.
    pub fn webhooks(&self) -> Vec<String> {
        self.shared.lock().webhooks.caused().map(|caused| caused.body.clone()).collect()
    }

    /// The signature headers for any body.
    pub fn sign_webhook(&self, body: &[u8], signature: Signature) -> Vec<(String, String)> {
        let keys = std::sync::Arc::clone(&self.shared.lock().webhooks.keys);
        keys.sign(body, signature)
    }

    /// Sets the URL that webhooks are sent to; `None` turns sending off.
    ///
    /// # Panics
    ///
    /// If the URL is not `http://HOST:PORT/…`.
    pub fn set_webhook_url(&self, url: Option<String>) {
        assert!(
            url.as_deref().is_none_or(|url| webhook_delivery::parts_of(url).is_some()),
            "{url:?} is not http://HOST:PORT/PATH"
        );
        self.shared.lock().settings.webhook_url = url;
    }

    /// The clock that codes, tokens and the replay window use.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Submits a decision for an authorization URL, as a user on the consent page would.
    ///
    /// Returns the redirect URL: with `code` or `error=access_denied`, and with the `state` of the
    /// authorization URL.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with the URL or the decision.
    pub fn consent(&self, authorization_url: &str, decision: Decision) -> Result<String, String> {
        let mut state = self.shared.lock();
        consent::requested(&state, authorization_url)?.decide(&mut state, decision)
    }

    /// All requests so far, except those to the control API; at most the latest 50,000.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.lock().log.entries()
    }

    /// Clears the request log.
    pub fn clear_requests(&self) {
        self.shared.lock().log.clear();
    }

    /// How many refresh tokens were exchanged for new ones. Repeats within the replay window do not
    /// count.
    pub fn refreshes(&self) -> u64 {
        self.shared.lock().tokens.rotations()
    }

    /// The refresh tokens that are valid now, except used ones within their replay window.
    pub fn live_refresh_tokens(&self) -> Vec<LiveToken> {
        let state = self.shared.lock();
        state.tokens.live(state.clock.now_ms())
    }

    /// Whether an access token is valid now.
    pub fn access_token_is_live(&self, access_token: &str) -> bool {
        let state = self.shared.lock();
        state.tokens.authenticate(access_token, state.clock.now_ms()).is_some()
    }

    /// Expires every access token; refresh tokens stay valid.
    pub fn expire_access_tokens(&self) {
        self.shared.lock().tokens.expire_access_tokens();
    }

    /// Revokes the refresh tokens of a company or location and returns their number; its access
    /// tokens stay valid.
    pub fn revoke_refresh_token(&self, resource_id: &str) -> usize {
        self.shared.lock().tokens.revoke_refresh_tokens(resource_id)
    }

    /// Pauses a location's subscription (`Location is not active`) or resumes it.
    ///
    /// # Panics
    ///
    /// If the location does not exist.
    pub fn set_location_active(&self, location_id: &str, active: bool) {
        let known = self.shared.lock().set_location_active(location_id, active);
        assert!(known, "there is no location {location_id}");
    }

    /// Moves a location to another company and revokes its tokens. If that company has the app,
    /// this triggers INSTALL; otherwise the app is uninstalled from the location, which triggers
    /// UNINSTALL. False if either does not exist.
    pub fn move_location(&self, location_id: &str, company_id: &str) {
        let known = self.shared.lock().move_location(location_id, company_id);
        assert!(known, "there is no location {location_id}, or no company {company_id}");
    }

    /// Uninstalls the app from a location and installs it again after `pause`, by which it moves
    /// the emulator's clock. Triggers both webhooks.
    ///
    /// # Panics
    ///
    /// If the location does not exist.
    pub fn reinstall_location(&self, location_id: &str, pause: Duration) {
        let known = self.shared.lock().reinstall_location(location_id, pause);
        assert!(known, "there is no location {location_id}");
    }

    /// Creates a location of a company and returns its ID. If the company has the app, it is
    /// installed on the location automatically, which triggers an INSTALL webhook.
    ///
    /// # Panics
    ///
    /// If the company does not exist.
    pub fn open_location(&self, company_id: &str) -> String {
        let id = self.shared.lock().open_location(company_id);
        id.unwrap_or_else(|| panic!("there is no company {company_id}"))
    }

    /// A private integration token of a company or location, `pit-…`. It has every scope and never
    /// expires; the OAuth endpoints do not accept it.
    ///
    /// # Panics
    ///
    /// If the company or location does not exist.
    pub fn private_token(&self, resource_id: &str) -> String {
        let token = self.shared.lock().private_token(resource_id);
        token.unwrap_or_else(|| panic!("there is no company or location {resource_id}"))
    }

    /// Uses up the daily quota of a company or location, as another program with the same app
    /// would.
    pub fn spend_daily_quota(&self, resource_id: &str) {
        self.shared.lock().spend_daily_quota(resource_id);
    }

    /// The installation status of every company and location: whether the API accepts its tokens
    /// now.
    pub fn installations(&self) -> Vec<Installation> {
        installations::installations(&self.shared.lock())
    }

    /// Starts a scenario. `day` is the real time that the simulated day takes: the scenario starts
    /// as soon as the first company is connected, and moves the clock. Without `day`, call
    /// [`step_scenario`](Self::step_scenario) for each event.
    ///
    /// # Errors
    ///
    /// If a scenario is running or `day` is zero.
    pub fn start_scenario(&self, scenario: Scenario, day: Option<Duration>) -> Result<(), String> {
        self.shared.lock().start_scenario(scenario, day)
    }

    /// Plays the next event of a scenario; `None` when it has finished. The event's webhook is sent
    /// to the configured receiver; the returned event contains it for
    /// [`sign_webhook`](Self::sign_webhook).
    ///
    /// # Errors
    ///
    /// If no scenario was started, it runs in real time, or the first company has not given
    /// consent.
    pub fn step_scenario(&self) -> Result<Option<Happening>, String> {
        self.shared.lock().step_scenario()
    }

    /// The progress of the scenario, its events, and, when it has finished, the installation
    /// status; `None` without a scenario.
    pub fn scenario(&self) -> Option<ScenarioReport> {
        self.shared.lock().scenario_report()
    }

    /// Sets the API behaviour for the cases in which observations differ from the API description.
    ///
    /// # Panics
    ///
    /// If the status of an inactive location is neither 400 nor 401.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        if let Err(complaint) = behaviour.check() {
            panic!("{complaint}");
        }
        self.shared.lock().settings.behaviour = behaviour;
    }

    /// Installs the app on a location of a company that has it, as for locations created later.
    /// Triggers the webhook.
    ///
    /// # Panics
    ///
    /// If the location does not exist.
    pub fn install_location(&self, location_id: &str) {
        let known = self.shared.lock().install_location(location_id);
        assert!(known, "there is no location {location_id}");
    }

    /// Uninstalls the app from a location, or from a company and all its locations, and revokes
    /// their tokens. Triggers the webhook.
    ///
    /// # Panics
    ///
    /// If the company or location does not exist.
    pub fn uninstall(&self, resource_id: &str) {
        let known = self.shared.lock().uninstall(resource_id);
        assert!(known, "there is no company or location {resource_id}");
    }

    /// Sets the lifetime of new access tokens.
    pub fn set_access_token_seconds(&self, seconds: i64) {
        self.shared.lock().settings.access_token_seconds = seconds;
    }

    /// Sets the `expiresIn` value of token responses.
    pub fn set_expires_in(&self, expires_in: ExpiresIn) {
        self.shared.lock().settings.expires_in = expires_in;
    }

    /// Sets the replay window: how long a used refresh token returns the tokens that replaced it; 0
    /// turns it off.
    pub fn set_reuse_window_seconds(&self, seconds: u64) {
        self.shared.lock().settings.reuse_window_seconds = seconds;
    }

    /// Sets whether minted location tokens include refresh tokens.
    pub fn set_location_refresh_tokens(&self, given: bool) {
        self.shared.lock().settings.location_refresh_tokens = given;
    }

    /// Sets the rate limit; `None` removes it.
    ///
    /// # Panics
    ///
    /// If the interval is zero.
    pub fn set_rate_limit(&self, limit: Option<RateLimit>) {
        assert!(
            limit.is_none_or(|limit| limit.per_ms > 0),
            "the interval of the rate limit must not be zero"
        );
        self.shared.lock().settings.rate_limit = limit;
    }

    /// Delays every API response by this time, after the request was processed.
    pub fn respond_latency(&self, latency: Duration) {
        self.shared.lock().settings.latency_ms =
            u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
    }

    /// Delays the handling of every new connection by this time, including its TLS handshake.
    pub fn accept_delay(&self, delay: Duration) {
        self.shared.lock().settings.accept_delay_ms =
            u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    }

    /// The number of connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.lock().connections.accepted()
    }

    /// Closes every open connection, including idle ones in clients' connection pools, and waits
    /// until they are closed.
    ///
    /// # Panics
    ///
    /// After 30 seconds.
    pub fn end_connections(&self, ending: Ending) {
        let wait = self.shared.lock().connections.end(ending);
        wait();
    }

    /// Injects a fault into the requests that the rule selects, until it is removed. If several
    /// faults match, the first one applies.
    ///
    /// # Panics
    ///
    /// If the fault contains a status or header that HTTP does not allow.
    pub fn inject(&self, rule: Rule, kind: FaultKind) -> FaultId {
        if let Err(complaint) = fault::check(&kind) {
            panic!("{complaint}");
        }
        self.shared.lock().faults.inject(rule, kind).0
    }

    /// Holds the requests that the rule selects, before or after they are processed, until the
    /// returned value releases them or is dropped.
    pub fn hold(&self, rule: Rule, stage: Stage) -> Hold {
        let (id, gate) = self.shared.lock().faults.inject(rule, FaultKind::Stall { stage });
        Hold::new(gate, id, self.shared.clone())
    }

    /// How often a fault was applied; 0 if it was removed.
    pub fn strikes(&self, id: FaultId) -> u32 {
        self.shared.lock().faults.struck(id).unwrap_or(0)
    }

    /// How many requests the rule of a fault has selected, whether or not the fault was applied; 0
    /// if it was removed. Requests to which an earlier fault was applied do not count. With a
    /// probability of 0, a fault only counts.
    pub fn selected(&self, id: FaultId) -> u32 {
        self.shared.lock().faults.matched(id).unwrap_or(0)
    }

    /// Removes a fault and releases the requests that it holds. False if it does not exist.
    pub fn remove_fault(&self, id: FaultId) -> bool {
        self.shared.lock().faults.remove(id)
    }

    /// Removes every fault and releases the requests that they hold.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }
}

/// Adds the attempted operation to an error.
fn because(error: &io::Error, attempt: String) -> io::Error {
    io::Error::new(error.kind(), format!("{attempt}: {error}"))
}

/// The manual; included so that its code is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/emulator.md")]
pub struct Manual;
