//! Everything the emulator knows, behind one lock.

use crate::call::Call;
use crate::clock::Clock;
use crate::connections::Connections;
use crate::consent;
use crate::directory::Directory;
use crate::fault::Faults;
use crate::options::{Options, Settings};
use crate::rate_limit::RateLimiter;
use crate::request_log::RequestLog;
use crate::tokens::{Issue, Tokens};
use crate::webhook::{self, Notice, Webhooks};
use form_urlencoded::Serializer;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) base_url: String,
    /// Where the CA's certificate was written.
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
}

impl State {
    pub(crate) fn new(options: &Options, base_url: String) -> Self {
        let clock = Clock::default();
        let webhooks = Webhooks::new(options.seed, clock.clone());
        Self {
            base_url,
            ca_file: options.ca_file.clone(),
            connections: Connections::default(),
            clock,
            settings: Settings::new(options),
            directory: Directory::new(options),
            tokens: Tokens::default(),
            limiter: RateLimiter::default(),
            log: RequestLog::default(),
            faults: Faults::new(options.seed),
            webhooks,
        }
    }

    pub(crate) fn authorize_url(&self) -> String {
        format!("{}{}", self.base_url, consent::PATHS[0])
    }

    /// A link that starts a consent to every scope, as an app makes it.
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

    /// Where a request went.
    pub(crate) fn url_of(&self, call: &Call) -> String {
        let query = call.query.as_ref().map(|query| format!("?{query}"));
        format!("{}{}{}", self.base_url, call.path, query.unwrap_or_default())
    }

    /// A configuration for the library, in the words of its documentation.
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

    /// How tokens are issued now.
    pub(crate) fn issue(&self, with_refresh_token: bool) -> Issue {
        Issue {
            now_ms: self.clock.now_ms(),
            access_token_seconds: self.settings.access_token_seconds,
            with_refresh_token,
        }
    }

    /// Pauses a location's subscription, or takes it up again. False: there is no such location.
    pub(crate) fn set_location_active(&mut self, location_id: &str, active: bool) -> bool {
        let Some(location) = self.directory.location_mut(location_id) else {
            return false;
        };
        location.active = active;
        true
    }

    /// Installs the app on a location without telling. False: there is no such location.
    pub(crate) fn mark_installed(&mut self, location_id: &str) -> bool {
        let now_ms = self.clock.now_ms();
        let Some(location) = self.directory.location_mut(location_id) else {
            return false;
        };
        location.installed_at_ms.get_or_insert(now_ms);
        true
    }

    /// Installs the app on a location, as an automatic installation does. False: there is no such location.
    pub(crate) fn install_location(&mut self, location_id: &str) -> bool {
        let known = self.mark_installed(location_id);
        self.tell(&Notice::AutomaticInstall(location_id.to_owned()));
        known
    }

    /// Causes a webhook, unless there is no such place.
    pub(crate) fn tell(&mut self, notice: &Notice) {
        if let Some(body) = webhook::body(&self.directory, notice, self.clock.now_ms()) {
            self.webhooks.cause(body, self.settings.webhook_url.as_deref());
        }
    }

    /// Takes the app off a location, or off a company with its locations, and ends their tokens.
    /// False: there is no such place.
    pub(crate) fn uninstall(&mut self, resource_id: &str) -> bool {
        let known = self.take_off(resource_id);
        self.tell(&Notice::Uninstall(resource_id.to_owned()));
        known
    }

    fn take_off(&mut self, resource_id: &str) -> bool {
        if let Some(location) = self.directory.location_mut(resource_id) {
            location.installed_at_ms = None;
            self.tokens.end_grants(|grant| grant.location_id.as_deref() == Some(resource_id));
            return true;
        }
        if self.directory.company(resource_id).is_none() {
            return false;
        }
        for location in &mut self.directory.locations {
            if location.company_id == resource_id {
                location.installed_at_ms = None;
            }
        }
        self.tokens.end_grants(|grant| grant.company_id == resource_id);
        true
    }
}

/// The state, shared between the server's thread and the handle that tests hold.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Never held across an `await`. A panic elsewhere is no reason to fail here too.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
