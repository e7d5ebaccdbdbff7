//! The client, the entry point of the library: builds the components and gives each call its
//! deadline.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use once_cell::race::OnceBox;
use serde_json::{Map, Value, json};

use crate::api::{Api, InstalledLocationsParams, LocationTokenParams, TokenParams, TokenRetry};
use crate::authorization::{Authorization, CompleteParams, ListenParams, UrlParams};
use crate::clock::{Clock, SystemClock};
use crate::config::{Backend, Config, StoreKind, make_absolute};
use crate::deadline::{Cancellation, Deadline};
use crate::error::{Error, Result};
use crate::event::{Events, Listener};
use crate::fork_safety::ProcessLocal;
use crate::request::{RequestParams, Requests, ResponseDocument};
use crate::secret::Secret;
use crate::store::{self, Host, Seal, Store};
use crate::token::Token;
use crate::tokens::{
    AdoptParams, ImportParams, ListParams, MaintainParams, MintParams, Progress, Tokens,
};
use crate::webhook::{Headers, Verifier, Webhooks};

/// A client for one app and its tokens. Share it between threads.
///
/// A forked child may keep using it: at its first call, the child opens its own store, connections
/// and locks.
pub struct Client {
    config: Config,
    backend: Backend,
    host: Option<Arc<dyn Host>>,
    seal: Seal,
    clock: Arc<dyn Clock>,
    events: Arc<Events>,
    per_process: PerProcess,
}

/// The components of one process, and the components that its forked child built for itself.
struct PerProcess {
    own: ProcessLocal<Components>,
    child: OnceBox<PerProcess>,
}

/// The components that hold sockets, handles and locks.
struct Components {
    api: Arc<Api>,
    tokens: Arc<Tokens>,
    authorization: Authorization,
    requests: Requests,
    webhooks: Webhooks,
    clock: Arc<dyn Clock>,
    cancellation: Arc<Cancellation>,
    call_timeout: Duration,
}

impl Client {
    /// A client that uses the system's clock.
    pub fn new(config: &Config) -> Result<Client> {
        Client::with_clock(config, Arc::new(SystemClock::new()))
    }

    pub fn with_clock(config: &Config, clock: Arc<dyn Clock>) -> Result<Client> {
        Client::build(config.clone(), None, clock)
    }

    /// A client with a custom store, implemented by the host. `config.store.kind` may be left at
    /// its default.
    pub fn with_host(config: &Config, host: Arc<dyn Host>) -> Result<Client> {
        let mut config = config.clone();
        if config.store.kind == StoreKind::Memory {
            config.store.kind = StoreKind::Callbacks;
        }
        Client::build(config, Some(host), Arc::new(SystemClock::new()))
    }

    fn build(
        mut config: Config,
        host: Option<Arc<dyn Host>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Client> {
        config.validate()?;
        let mut backend = config.store.backend()?;
        let events = Arc::new(Events::default());
        let seal = store::seal(&config)?;
        // The seal holds them now.
        config.store.encryption_keys.clear();
        config.http.ca_bundle_path.iter_mut().for_each(make_absolute);
        store::resolve_paths(&mut backend)?;
        let store = || store::open(&backend, true, &config.timeouts, host.as_ref(), &seal);
        let per_process = PerProcess::new(&config, store, &clock, &events)?;
        Ok(Client { config, backend, host, seal, clock, events, per_process })
    }

    /// The components of this process; a forked child builds its own.
    fn components(&self) -> Result<&Components> {
        let mut current = &self.per_process;
        loop {
            match current.own.get() {
                Some(components) => return Ok(components),
                None => {
                    current = current.child.get_or_try_init(|| {
                        let (timeouts, host) = (&self.config.timeouts, self.host.as_ref());
                        // The parent had the database open: if the file is missing now, it must not
                        // be created again.
                        let store =
                            || store::open(&self.backend, false, timeouts, host, &self.seal);
                        PerProcess::new(&self.config, store, &self.clock, &self.events)
                            .map(Box::new)
                    })?;
                }
            }
        }
    }

    /// The components of this process, if they have been built.
    fn existing_components(&self) -> Option<&Components> {
        let mut current = &self.per_process;
        loop {
            match current.own.get() {
                Some(components) => return Some(components),
                None => current = current.child.get()?,
            }
        }
    }

    /// Ends every waiting call with `CANCELLED`; later calls are not affected.
    ///
    /// A refresh whose request has been sent continues on its thread until the response is saved.
    pub fn cancel(&self) {
        // Without components no call is waiting.
        if let Some(components) = self.existing_components() {
            components.cancellation.raise();
            components.tokens.wake_all();
        }
    }

    /// Statistics for monitoring; contains no secret.
    pub fn stats(&self) -> Result<Value> {
        let components = self.components()?;
        let (http, tokens) = (components.api.counters(), components.tokens.counters());
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "requests": {
                "sent": http.sent.load(Ordering::Relaxed),
                "repeated": http.repeated.load(Ordering::Relaxed),
                "unanswered": http.unanswered.load(Ordering::Relaxed),
            },
            "tokens": {
                "inMemory": components.tokens.cached_count(),
                "unsaved": components.tokens.unsaved_count(),
                "refreshed": tokens.refreshed.load(Ordering::Relaxed),
                "minted": tokens.minted.load(Ordering::Relaxed),
                "failed": tokens.failed.load(Ordering::Relaxed),
            },
            "pace": components.api.rate_limits(),
        }))
    }

    /// Sets the listener for events, or removes it with `None`.
    pub fn on_event(&self, listener: Option<Listener>) {
        self.events.listen(listener);
    }

    /// A plain call of `POST /oauth/token`; stores nothing.
    pub fn oauth_token(&self, params: &TokenParams) -> Result<Token> {
        let components = self.components().map_err(Error::before_request)?;
        components
            .api
            .token(params, TokenRetry::SingleUse, self.clock.wall_ms(), &components.deadline())
            .map_err(Error::from)
    }

    /// A plain call of `POST /oauth/location-token`; stores nothing.
    pub fn oauth_location_token(&self, params: &LocationTokenParams) -> Result<Token> {
        let components = self.components().map_err(Error::before_request)?;
        components.tokens.location_token(params, &components.deadline())
    }

    /// `GET /oauth/installed-locations`: one page, or all items with `all`.
    pub fn oauth_installed_locations(
        &self,
        params: &InstalledLocationsParams,
    ) -> Result<Map<String, Value>> {
        let components = self.components().map_err(Error::before_request)?;
        components.tokens.installed_locations(params, &components.deadline())
    }

    pub fn authorization_url(&self, params: UrlParams) -> Result<Value> {
        self.components()?.authorization.url(params)
    }

    pub fn authorization_complete(&self, params: &CompleteParams) -> Result<Value> {
        let components = self.components().map_err(Error::before_request)?;
        components.authorization.complete(params, &components.deadline())
    }

    pub fn authorization_listen(&self, params: &ListenParams) -> Result<Value> {
        let components = self.components()?;
        components.authorization.listen(params, &components.deadline())
    }

    pub fn access_token(&self, resource_id: &str) -> Result<Secret> {
        let components = self.components()?;
        let token = components.tokens.access_token(resource_id, || components.deadline());
        token.map_err(|error| components.tokens.explain_not_held(error, || components.deadline()))
    }

    /// Passes the cached token to `take` if it is fresh; on `None`, call [`Client::access_token`].
    pub fn with_fresh_token<T>(
        &self,
        resource_id: &str,
        take: impl FnOnce(&Secret) -> T,
    ) -> Option<T> {
        self.components().ok()?.tokens.with_fresh(resource_id, take)
    }

    pub fn token_refresh(&self, resource_id: &str) -> Result<Value> {
        let components = self.components()?;
        let metadata = components.tokens.refresh(resource_id, &components.deadline());
        metadata
            .map_err(|error| components.tokens.explain_not_held(error, || components.deadline()))
    }

    pub fn token_delete(&self, resource_id: &str) -> Result<Value> {
        let components = self.components()?;
        components.tokens.delete(resource_id, &components.deadline())
    }

    pub fn tokens_list(&self, params: &ListParams) -> Result<Value> {
        let components = self.components()?;
        let page = components.tokens.list(params, &components.deadline())?;
        if *params == ListParams::default() && page["items"].as_array().is_some_and(Vec::is_empty) {
            components.tokens.look_for_rotation(|| components.deadline());
        }
        Ok(page)
    }

    pub fn tokens_export(&self, params: &ListParams) -> Result<Value> {
        let components = self.components()?;
        components.tokens.export(params, &components.deadline())
    }

    pub fn tokens_import(&self, params: ImportParams) -> Result<Value> {
        let components = self.components()?;
        components.tokens.import(params, &components.deadline())
    }

    pub fn tokens_adopt(&self, params: &AdoptParams) -> Result<Value> {
        let components = self.components()?;
        components.tokens.adopt_from(&self.config.client_id, params, || components.deadline())
    }

    pub fn request(&self, params: &RequestParams) -> Result<ResponseDocument> {
        let components = self.components().map_err(Error::before_request)?;
        let answer = components.requests.send(params, &components.deadline());
        answer.map_err(|error| components.tokens.explain_not_held(error, || components.deadline()))
    }

    pub fn tokens_mint(&self, params: MintParams, progress: Progress) -> Result<Value> {
        let components = self.components()?;
        components.tokens.mint_all(params, progress, || components.deadline())
    }

    pub fn tokens_maintain(&self, params: &MaintainParams, progress: Progress) -> Result<Value> {
        let components = self.components()?;
        components.tokens.maintain(params, progress, || components.deadline())
    }

    pub fn webhook_verify(&self, body: &[u8], headers: &Headers) -> Result<Value> {
        self.components()?.webhooks.verify(body, headers)
    }

    pub fn webhook_apply(&self, body: &[u8], headers: &Headers) -> Result<Value> {
        let components = self.components()?;
        components.webhooks.apply(body, headers, &components.deadline())
    }
}

impl Drop for Components {
    /// Makes a last attempt to save unsaved tokens. A forked child never drops its parent's
    /// components.
    fn drop(&mut self) {
        self.tokens.close(&self.deadline());
    }
}

impl PerProcess {
    fn new(
        config: &Config,
        open_store: impl FnOnce() -> Result<Arc<dyn Store>>,
        clock: &Arc<dyn Clock>,
        events: &Arc<Events>,
    ) -> Result<PerProcess> {
        let api = Arc::new(Api::new(config, clock)?);
        let verifier = Verifier::new(&config.webhook)?;
        let store = open_store()?;
        let tokens = Arc::new(Tokens::new(
            Arc::clone(&api),
            Arc::clone(&store),
            Arc::clone(clock),
            Arc::clone(events),
            config.refresh.clone(),
        ));
        let components = Components {
            authorization: Authorization::new(
                config,
                Arc::clone(&api),
                Arc::clone(&tokens),
                Arc::clone(clock),
            )?,
            requests: Requests::new(Arc::clone(&api), Arc::clone(&tokens)),
            webhooks: Webhooks::new(
                config,
                verifier,
                store,
                Arc::clone(&tokens),
                Arc::clone(clock),
            ),
            api,
            tokens,
            clock: Arc::clone(clock),
            cancellation: Arc::default(),
            call_timeout: Duration::from_millis(config.timeouts.total_ms),
        };
        Ok(PerProcess { own: ProcessLocal::new(components), child: OnceBox::new() })
    }
}

impl Components {
    fn deadline(&self) -> Deadline {
        Deadline::by(&self.clock, self.call_timeout, &self.cancellation)
    }
}
