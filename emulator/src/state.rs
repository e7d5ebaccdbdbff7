//! The emulator's whole state, behind one lock.

use crate::answer::Answer;
use crate::call::Call;
use crate::clock::{Clock, day_of};
use crate::connections::Connections;
use crate::directory::{Directory, Location};
use crate::fault::Faults;
use crate::grant::{Grant, UserType};
use crate::options::{Options, Settings};
use crate::rate_limit::RateLimiter;
use crate::request_log::RequestLog;
use crate::scenario_run::Run;
use crate::tokens::{Issue, Tokens};
use crate::webhook::{self, Notice, Webhooks};
use form_urlencoded::Serializer;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The path of the landing page, the redirect URI of an app without its own.
pub(crate) const LANDING_PATH: &str = "/landing";

/// The paths at which the consent page is served.
pub(crate) const CONSENT_PATHS: [&str; 2] = ["/v2/oauth/chooselocation", "/oauth/chooselocation"];

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) base_url: String,
    /// The path of the CA certificate.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) connections: Connections,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) directory: Directory,
    pub(crate) tokens: Tokens,
    pub(crate) limiter: RateLimiter,
    pub(crate) log: RequestLog,
    pub(crate) faults: Faults,
    pub(crate) webhooks: Webhooks,
    /// The number of API requests in flight.
    pub(crate) in_flight: Arc<AtomicUsize>,
    pub(crate) seed: u64,
    pub(crate) scenario: Option<Run>,
    /// Wakes the task that paces scenarios.
    pub(crate) scenario_started: Arc<Notify>,
}

impl State {
    pub(crate) fn new(options: &Options, base_url: String) -> Self {
        let clock = Clock::default();
        let webhooks = Webhooks::new(options.seed, clock.clone());
        let mut directory = Directory::new(options);
        if directory.app.redirect_uris.is_empty() {
            directory.app.redirect_uris.push(format!("{base_url}{LANDING_PATH}"));
        }
        Self {
            base_url,
            ca_file: options.ca_file.clone(),
            connections: Connections::default(),
            clock,
            settings: Settings::new(options),
            directory,
            tokens: Tokens::default(),
            limiter: RateLimiter::default(),
            log: RequestLog::default(),
            faults: Faults::new(options.seed),
            webhooks,
            in_flight: Arc::default(),
            seed: options.seed,
            scenario: None,
            scenario_started: Arc::default(),
        }
    }

    pub(crate) fn authorize_url(&self) -> String {
        format!("{}{}", self.base_url, CONSENT_PATHS[0])
    }

    /// An authorization URL for all scopes, as an app creates it.
    pub(crate) fn authorization_link(&self, redirect_uri: &str, state: &str) -> String {
        let app = &self.directory.app;
        let query = Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", &app.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", &app.scopes.join(" "))
            .append_pair("state", state)
            .append_pair("version_id", &app.version_id)
            .finish();
        format!("{}?{query}", self.authorize_url())
    }

    /// The URL of a request.
    pub(crate) fn url_of(&self, call: &Call) -> String {
        let query = call.query.as_ref().map(|query| format!("?{query}"));
        format!("{}{}{}", self.base_url, call.path, query.unwrap_or_default())
    }

    /// A configuration for the library, in its documented format.
    pub(crate) fn configuration(&self) -> Value {
        let app = &self.directory.app;
        let mut configuration = json!({
            "clientId": app.client_id,
            "clientSecret": app.client_secret,
            "redirectUri": app.redirect_uris[0],
            "scopes": app.scopes,
            "baseUrl": self.base_url,
            "authorizeUrl": self.authorize_url(),
            "webhook": {"ed25519PublicKeys": [self.webhooks.keys.public().ed25519]},
        });
        if let Some(ca_file) = &self.ca_file {
            configuration["http"] = json!({"caBundlePath": ca_file.to_string_lossy()});
        }
        configuration
    }

    /// The error response for a paused location, with the configured status.
    pub(crate) fn location_inactive(&self) -> Answer {
        Answer::refusal(self.settings.behaviour.inactive_status, "Location is not active")
    }

    /// The settings for new tokens.
    pub(crate) fn issue(&self, with_refresh_token: bool) -> Issue {
        Issue {
            now_ms: self.clock.now_ms(),
            access_token_seconds: self.settings.access_token_seconds,
            with_refresh_token,
        }
    }

    /// Pauses a location's subscription or resumes it. False if the location does not exist.
    pub(crate) fn set_location_active(&mut self, location_id: &str, active: bool) -> bool {
        let Some(location) = self.directory.location_mut(location_id) else {
            return false;
        };
        location.active = active;
        true
    }

    /// Installs the app on a company without a webhook.
    pub(crate) fn mark_company_installed(&mut self, company_id: &str) {
        let now_ms = self.clock.now_ms();
        if let Some(company) = self.directory.company_mut(company_id) {
            company.installed_at_ms = Some(now_ms);
        }
    }

    /// Installs the app on a location without a webhook. False if the location does not exist.
    pub(crate) fn mark_installed(&mut self, location_id: &str) -> bool {
        self.mark_installed_at(location_id, self.clock.now_ms())
    }

    /// As [`State::mark_installed`], at a time that several locations may share.
    pub(crate) fn mark_installed_at(&mut self, location_id: &str, now_ms: i64) -> bool {
        let Some(location) = self.directory.location_mut(location_id) else {
            return false;
        };
        location.installed_at_ms.get_or_insert(now_ms);
        true
    }

    /// Installs the app on a location as an automatic installation. False if the location does not
    /// exist.
    pub(crate) fn install_location(&mut self, location_id: &str) -> bool {
        let known = self.mark_installed(location_id);
        self.tell(&Notice::AutomaticInstall(location_id.to_owned()));
        known
    }

    /// Triggers a webhook, unless the company or location does not exist.
    pub(crate) fn tell(&mut self, notice: &Notice) {
        if let Some(body) = webhook::body(&self.directory, notice, self.clock.now_ms()) {
            let id = self.webhooks.cause(body);
            if let Some(url) = &self.settings.webhook_url {
                self.webhooks.send(id, url, self.settings.behaviour.webhook_retries);
            }
        }
    }

    /// Uninstalls the app from a location, or from a company with its locations, and revokes their
    /// tokens. False if it does not exist.
    pub(crate) fn uninstall(&mut self, resource_id: &str) -> bool {
        let known = self.take_off(resource_id);
        self.tell(&Notice::Uninstall(resource_id.to_owned()));
        known
    }

    /// Uninstalls the app from a location, installs it again after `pause`, and triggers both
    /// webhooks. False if the location does not exist.
    pub(crate) fn reinstall_location(&mut self, location_id: &str, pause: Duration) -> bool {
        if self.directory.location(location_id).is_none() {
            return false;
        }
        self.uninstall(location_id);
        self.clock.advance(pause);
        self.mark_installed(location_id);
        self.tell(&Notice::Install(location_id.to_owned()));
        true
    }

    /// Moves a location to another company and revokes its tokens. If that company has the app,
    /// this triggers INSTALL; otherwise the app is uninstalled from the location, which triggers
    /// UNINSTALL. False if either does not exist.
    pub(crate) fn move_location(&mut self, location_id: &str, company_id: &str) -> bool {
        let Some(company) = self.directory.company(company_id) else {
            return false;
        };
        let has_app = company.installed_at_ms.is_some();
        let now_ms = self.clock.now_ms();
        if !self.directory.move_location(location_id, company_id) {
            return false;
        }
        let Some(location) = self.directory.location_mut(location_id) else {
            return false;
        };
        let had_app = location.installed_at_ms.is_some();
        location.installed_at_ms = has_app.then_some(now_ms);
        self.tokens.end_grants(|grant| grant.location_id.as_deref() == Some(location_id));
        if has_app {
            self.tell(&Notice::Install(location_id.to_owned()));
        } else if had_app {
            self.tell(&Notice::Uninstall(location_id.to_owned()));
        }
        true
    }

    /// Creates a location of a company and returns its ID. If the company has the app, it is
    /// installed automatically. `None` if the company does not exist.
    pub(crate) fn open_location(&mut self, company_id: &str) -> Option<String> {
        let has_app = self.directory.company(company_id)?.installed_at_ms.is_some();
        let id = self.directory.add_location(company_id);
        if has_app {
            self.install_location(&id);
        }
        Some(id)
    }

    /// Uses up the daily quota of a company or location.
    pub(crate) fn spend_daily_quota(&mut self, resource_id: &str) {
        if let Some(limit) = self.settings.rate_limit {
            let day = day_of(self.clock.now_ms());
            self.limiter.spend_day(limit, resource_id, day);
        }
    }

    /// A private integration token of a company or location; `None` if it does not exist.
    pub(crate) fn private_token(&mut self, resource_id: &str) -> Option<String> {
        let grant = self.grant_of_owner(resource_id)?;
        Some(self.tokens.issue_private(Grant { private: true, ..grant }))
    }

    /// A grant of a company or location with every scope; `None` if it does not exist.
    pub(crate) fn grant_of_owner(&self, resource_id: &str) -> Option<Grant> {
        let location = self.directory.location(resource_id);
        let company_id = location.map_or(resource_id, |location: &Location| &location.company_id);
        let company = self.directory.company(company_id)?;
        Some(Grant {
            user_type: if location.is_some() { UserType::Location } else { UserType::Company },
            company_id: company.id.clone(),
            location_id: location.map(|location| location.id.clone()),
            scope: self.directory.app.scopes.join(" "),
            user_id: company.user_id.clone(),
            plan_id: location.map(|location| location.plan_id.clone()),
            approved_locations: None,
            install_to_future_locations: location.is_none() && company.install_to_future_locations,
            private: false,
        })
    }

    fn take_off(&mut self, resource_id: &str) -> bool {
        if let Some(location) = self.directory.location_mut(resource_id) {
            location.installed_at_ms = None;
            self.tokens.end_grants(|grant| grant.location_id.as_deref() == Some(resource_id));
            return true;
        }
        let Some(company) = self.directory.company_mut(resource_id) else {
            return false;
        };
        company.installed_at_ms = None;
        for location in &mut self.directory.locations {
            if location.company_id == resource_id {
                location.installed_at_ms = None;
            }
        }
        self.tokens.end_grants(|grant| grant.company_id == resource_id);
        true
    }
}

/// The state, shared by the server's thread and the handles of tests.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Never held across an `await`. Lock poisoning is ignored: a panic on another thread must not
    /// cause one here.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
