//! A local server that behaves like GoHighLevel's OAuth endpoints and its consent page.
//!
//! Tests start one in their own process ([`Emulator::start`]) and programs in other languages run
//! the binary of the same name; both can move its clock, see what came in, and make it fail on
//! demand. It is strict about what it accepts, since a lenient emulator hides bugs, and it knows
//! nothing of the library that is tested against it, since a shared mistake would hide too.
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
mod ledger;
mod location;
mod location_token;
mod options;
mod origin;
mod other_owner;
mod page;
mod postman;
mod random;
mod rate_limit;
mod refusal;
mod request_log;
mod retry;
mod scenario;
mod scenario_run;
mod server;
mod socket;
mod state;
mod token;
mod tokens;
mod webhook;
mod webhook_delivery;
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

/// A running emulator. Dropping it stops it and closes every connection.
#[derive(Debug)]
pub struct Emulator {
    shared: Shared,
    identity: Identity,
    clock: Clock,
    _server: Server,
}

/// What never changes while an emulator runs, so that it can be lent out.
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
    /// When the port is taken, the CA's file cannot be written, or the options contradict themselves.
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

    /// `http://127.0.0.1:PORT`; with TLS `https`, by IPv6 `[::1]`.
    pub fn base_url(&self) -> String {
        self.identity.base_url.clone()
    }

    /// The certificate of the CA that certified the server, in PEM; `None` without TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.identity.ca_pem.as_deref()
    }

    /// The consent page. The path without `/v2` is served as well.
    pub fn authorize_url(&self) -> String {
        self.shared.lock().authorize_url()
    }

    /// The page on which a person sees what happened, and operates this emulator.
    pub fn dashboard_url(&self) -> String {
        format!("{}{}", self.identity.base_url, dashboard::PATH)
    }

    /// A link that starts a consent to every scope and leads back to [`redirect_uri`](Self::redirect_uri).
    pub fn authorization_link(&self, state: &str) -> String {
        self.shared.lock().authorization_link(self.redirect_uri(), state)
    }

    /// The app's client id.
    pub fn client_id(&self) -> &str {
        &self.identity.client_id
    }

    /// The app's client secret.
    pub fn client_secret(&self) -> &str {
        &self.identity.client_secret
    }

    /// The first of the redirect URIs that are registered for the app.
    pub fn redirect_uri(&self) -> &str {
        &self.identity.redirect_uri
    }

    /// The app's id: the client id up to its first `-`.
    pub fn app_id(&self) -> &str {
        &self.identity.app_id
    }

    /// The id of the app's version.
    pub fn version_id(&self) -> &str {
        &self.identity.version_id
    }

    /// A configuration for the library, ready to use, as JSON.
    pub fn configuration(&self) -> String {
        format!("{:#}", self.shared.lock().configuration())
    }

    /// The first company.
    pub fn company_id(&self) -> String {
        self.shared.lock().directory.companies[0].id.clone()
    }

    /// All companies.
    pub fn company_ids(&self) -> Vec<String> {
        let state = self.shared.lock();
        let companies = state.directory.companies.iter();
        companies.map(|company| company.id.clone()).collect()
    }

    /// All locations, company by company.
    pub fn location_ids(&self) -> Vec<String> {
        let state = self.shared.lock();
        let locations = state.directory.locations.iter();
        locations.map(|location| location.id.clone()).collect()
    }

    /// The keys that webhooks are signed with.
    pub fn webhook_public_keys(&self) -> WebhookPublicKeys {
        self.shared.lock().webhooks.keys.public()
    }

    /// The body of a webhook of this moment, as if that happened; nothing happens, and nothing is sent.
    ///
    /// # Panics
    ///
    /// When there is no such company or location.
    pub fn webhook(&self, notice: &Notice) -> String {
        let state = self.shared.lock();
        let body = webhook::body(&state.directory, notice, state.clock.now_ms());
        body.unwrap_or_else(|| panic!("there is no place for {notice:?}"))
    }

    /// The bodies of the webhooks that consents, installations and their ends have caused, sent or not. The oldest go
    /// after 10,000.
    pub fn webhooks(&self) -> Vec<String> {
        self.shared.lock().webhooks.caused().map(|caused| caused.body.clone()).collect()
    }

    /// The headers that sign a body, be it one of the emulator's or not.
    pub fn sign_webhook(&self, body: &[u8], signature: Signature) -> Vec<(String, String)> {
        let keys = std::sync::Arc::clone(&self.shared.lock().webhooks.keys);
        keys.sign(body, signature)
    }

    /// Sends a webhook, be it for the first time or not, and answers with the receiver's status.
    ///
    /// # Errors
    ///
    /// When the receiver cannot be reached, or does not answer.
    pub fn send_webhook(&self, url: &str, body: &[u8], signature: Signature) -> io::Result<u16> {
        let deliveries = self.shared.lock().webhooks.deliveries.clone();
        deliveries.post(url, &self.sign_webhook(body, signature), body)
    }

    /// Where webhooks are sent as soon as something causes them; `None` stops that.
    ///
    /// # Panics
    ///
    /// When the URL is not `http://HOST:PORT/…`.
    pub fn set_webhook_url(&self, url: Option<String>) {
        assert!(
            url.as_deref().is_none_or(|url| webhook_delivery::parts_of(url).is_some()),
            "{url:?} is no receiver"
        );
        self.shared.lock().settings.webhook_url = url;
    }

    /// The clock that codes, tokens and the reuse window live by.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Decides on an authorization URL, as a person on the consent page would.
    ///
    /// Returns the URL to which the browser would be sent: with `code`, or with
    /// `error=access_denied`, and with `state` when the authorization URL had one.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL or the decision, in a sentence.
    pub fn consent(&self, authorization_url: &str, decision: Decision) -> Result<String, String> {
        consent::decide_on_url(&mut self.shared.lock(), authorization_url, decision)
    }

    /// Every request so far, the control API's aside. The oldest go after 50,000.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.lock().log.entries()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.lock().log.clear();
    }

    /// How many refresh tokens were exchanged for new ones. Repeats inside the reuse window do not count.
    pub fn refreshes(&self) -> u64 {
        self.shared.lock().tokens.rotations()
    }

    /// The refresh tokens that would be accepted now, spent ones inside their window aside.
    pub fn live_refresh_tokens(&self) -> Vec<LiveToken> {
        let state = self.shared.lock();
        state.tokens.live(state.clock.now_ms())
    }

    /// Whether an access token would be accepted now.
    pub fn access_token_is_live(&self, access_token: &str) -> bool {
        let state = self.shared.lock();
        state.tokens.authenticate(access_token, state.clock.now_ms()).is_some()
    }

    /// Ends every access token; refresh tokens live on.
    pub fn expire_access_tokens(&self) {
        self.shared.lock().tokens.expire_access_tokens();
    }

    /// Ends the refresh tokens of a company or location, and says how many those were; its access tokens live on.
    pub fn revoke_refresh_token(&self, resource_id: &str) -> usize {
        self.shared.lock().tokens.revoke_refresh_tokens(resource_id)
    }

    /// Pauses a location's subscription (`Location is not active`), or takes it up again.
    ///
    /// # Panics
    ///
    /// When there is no such location.
    pub fn set_location_active(&self, location_id: &str, active: bool) {
        let known = self.shared.lock().set_location_active(location_id, active);
        assert!(known, "there is no location {location_id}");
    }

    /// Moves a location to another company: its tokens end. If that company has the app, INSTALL names it; otherwise the
    /// app is gone from the location, and UNINSTALL says so.
    ///
    /// # Panics
    ///
    /// When there is no such company or location.
    pub fn move_location(&self, location_id: &str, company_id: &str) {
        let known = self.shared.lock().move_location(location_id, company_id);
        assert!(known, "there is no location {location_id}, or no company {company_id}");
    }

    /// Takes the app off a location and installs it again after `pause`, by which the emulator's clock moves; tells both.
    ///
    /// # Panics
    ///
    /// When there is no such location.
    pub fn reinstall_location(&self, location_id: &str, pause: Duration) {
        let known = self.shared.lock().reinstall_location(location_id, pause);
        assert!(known, "there is no location {location_id}");
    }

    /// Opens a new location of a company, and answers with its id. If the company has the app, it comes to the location
    /// by itself, and INSTALL says so.
    ///
    /// # Panics
    ///
    /// When there is no such company.
    pub fn open_location(&self, company_id: &str) -> String {
        let id = self.shared.lock().open_location(company_id);
        id.unwrap_or_else(|| panic!("there is no company {company_id}"))
    }

    /// A private integration token of a company or location, `pit-…`: it has every scope, never expires, and the OAuth
    /// endpoints do not take it.
    ///
    /// # Panics
    ///
    /// When there is no such company or location.
    pub fn private_token(&self, resource_id: &str) -> String {
        let token = self.shared.lock().private_token(resource_id);
        token.unwrap_or_else(|| panic!("there is no company or location {resource_id}"))
    }

    /// Uses up the day's quota of a company or location, as another program of the same app would.
    pub fn spend_daily_quota(&self, resource_id: &str) {
        self.shared.lock().spend_daily_quota(resource_id);
    }

    /// The ledger of connections: every company and location, and whether the API would honour a connection to it now.
    pub fn installations(&self) -> Vec<Installation> {
        installations::installations(&self.shared.lock())
    }

    /// Starts a scenario. With `day`, the real time that the day takes, it begins as soon as the first company is
    /// connected, and moves the clock by itself. Without, [`step_scenario`](Self::step_scenario) plays it.
    ///
    /// # Errors
    ///
    /// Why it cannot start: a scenario is running, or the day takes no time.
    pub fn start_scenario(&self, scenario: Scenario, day: Option<Duration>) -> Result<(), String> {
        self.shared.lock().start_scenario(scenario, day)
    }

    /// Plays the next event of a scenario; `None` when it has finished. Its webhook is sent to the receiver of the settings,
    /// and is in the happening as well, for [`sign_webhook`](Self::sign_webhook).
    ///
    /// # Errors
    ///
    /// Why nothing can be played: no scenario was started, it is paced, or the first company has not consented yet.
    pub fn step_scenario(&self) -> Result<Option<Happening>, String> {
        self.shared.lock().step_scenario()
    }

    /// The progress of the scenario, its happenings, and at its end the ledger; `None` if there is no scenario.
    pub fn scenario(&self) -> Option<ScenarioReport> {
        self.shared.lock().scenario_report()
    }

    /// How the API behaves from now on where observations differ from its description.
    ///
    /// # Panics
    ///
    /// When the status of an inactive location is neither 400 nor 401.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        if let Err(complaint) = behaviour.check() {
            panic!("{complaint}");
        }
        self.shared.lock().settings.behaviour = behaviour;
    }

    /// Installs the app on a location of a company that has it, as happens for locations made later, and tells it.
    ///
    /// # Panics
    ///
    /// When there is no such location.
    pub fn install_location(&self, location_id: &str) {
        let known = self.shared.lock().install_location(location_id);
        assert!(known, "there is no location {location_id}");
    }

    /// Takes the app off a location, or off a company and all its locations, ends their tokens, and tells it.
    ///
    /// # Panics
    ///
    /// When there is no such company or location.
    pub fn uninstall(&self, resource_id: &str) {
        let known = self.shared.lock().uninstall(resource_id);
        assert!(known, "there is no company or location {resource_id}");
    }

    /// How long access tokens live from now on.
    pub fn set_access_token_seconds(&self, seconds: i64) {
        self.shared.lock().settings.access_token_seconds = seconds;
    }

    /// What token answers say in `expiresIn` from now on.
    pub fn set_expires_in(&self, expires_in: ExpiresIn) {
        self.shared.lock().settings.expires_in = expires_in;
    }

    /// How long a spent refresh token still gets the tokens that replaced it; 0 switches that off.
    pub fn set_reuse_window_seconds(&self, seconds: u64) {
        self.shared.lock().settings.reuse_window_seconds = seconds;
    }

    /// Whether minted location tokens come with refresh tokens from now on.
    pub fn set_location_refresh_tokens(&self, given: bool) {
        self.shared.lock().settings.location_refresh_tokens = given;
    }

    /// The limit on requests from now on; `None` lifts it.
    ///
    /// # Panics
    ///
    /// When the interval is zero.
    pub fn set_rate_limit(&self, limit: Option<RateLimit>) {
        assert!(
            limit.is_none_or(|limit| limit.per_ms > 0),
            "the interval of the rate limit must not be zero"
        );
        self.shared.lock().settings.rate_limit = limit;
    }

    /// Holds every answer of the API back for this long, after the request was processed.
    pub fn respond_latency(&self, latency: Duration) {
        self.shared.lock().settings.latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
    }

    /// Serves every new connection only after this long; its TLS handshake, too.
    pub fn accept_delay(&self, delay: Duration) {
        self.shared.lock().settings.accept_delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.lock().connections.accepted()
    }

    /// Ends every connection that is served, the idle ones that clients keep for later above all. When this returns,
    /// they have ended.
    ///
    /// # Panics
    ///
    /// When that takes more than half a minute.
    pub fn end_connections(&self, ending: Ending) {
        let wait = self.shared.lock().connections.end(ending);
        wait();
    }

    /// Makes requests fail: those that the rule picks, as long as the fault is there. Where several
    /// faults match, the one that was injected first strikes.
    ///
    /// # Panics
    ///
    /// When the fault asks for a status or a header that HTTP does not have.
    pub fn inject(&self, rule: Rule, kind: FaultKind) -> FaultId {
        if let Err(complaint) = fault::check(&kind) {
            panic!("{complaint}");
        }
        self.shared.lock().faults.inject(rule, kind).0
    }

    /// Holds the requests that the rule picks, before or after they are processed, until the
    /// returned value releases them or is dropped.
    pub fn hold(&self, rule: Rule, stage: Stage) -> Hold {
        let (id, gate) = self.shared.lock().faults.inject(rule, FaultKind::Stall { stage });
        Hold::new(gate, id, self.shared.clone())
    }

    /// How often a fault has struck; 0 when it was removed.
    pub fn strikes(&self, id: FaultId) -> u32 {
        self.shared.lock().faults.struck(id).unwrap_or(0)
    }

    /// Removes a fault and lets go of the requests that it holds. False when it was gone already.
    pub fn remove_fault(&self, id: FaultId) -> bool {
        self.shared.lock().faults.remove(id)
    }

    /// Removes every fault and lets go of the requests that they hold.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }
}

/// An error with what was attempted.
fn because(error: &io::Error, attempt: String) -> io::Error {
    io::Error::new(error.kind(), format!("{attempt}: {error}"))
}

/// The manual, so that its code is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/emulator.md")]
pub struct Manual;
