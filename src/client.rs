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
use crate::config::{Backend, Config, StoreConfig, make_absolute};
use crate::deadline::{Cancellation, Deadline};
use crate::error::{Error, Result};
use crate::event::{Events, Listener};
use crate::fork_safety::ProcessLocal;
use crate::request::{RequestParams, Requests};
use crate::secret::Secret;
use crate::store::{self, Host, Seal, Store};
use crate::token::Token;
use crate::tokens::{AdoptParams, ImportParams, ListParams, MaintainParams, MintParams, Progress, Tokens};
use crate::webhook::{Headers, Verifier, Webhooks};

/// A client for one app and its tokens. Share it between threads.
///
/// A forked child may keep using it: at its first call, the child opens its own store, connections
/// and locks. A memory store starts empty in the child, because two processes that refresh the same
/// token without a shared store would invalidate it for each other.
pub struct Client {
    config: Config,
    backend: Backend,
    host: Option<Arc<dyn Host>>,
    seal: Seal,
    clock: Arc<dyn Clock>,
    events: Arc<Events>,
    parts: Parts,
}

/// The components of one process, and the components that its forked child built for itself.
struct Parts {
    own: ProcessLocal<Work>,
    of_child: OnceBox<Parts>,
}

/// The components that hold sockets, handles and locks.
struct Work {
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
    ///
    /// # Errors
    /// `CONFIG`, naming the key; `STORE` if the store cannot be opened.
    pub fn new(config: &Config) -> Result<Client> {
        Client::with_clock(config, Arc::new(SystemClock::new()))
    }

    /// A client with another clock; for tests.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_clock(config: &Config, clock: Arc<dyn Clock>) -> Result<Client> {
        Client::build(config.clone(), None, clock)
    }

    /// A client with a custom store, implemented by the host. `config.store.kind` may be left at
    /// its default.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_host(config: &Config, host: Arc<dyn Host>) -> Result<Client> {
        let mut config = config.clone();
        if config.store.kind == StoreConfig::default().kind {
            config.store.kind = "callbacks".into();
        }
        Client::build(config, Some(host), Arc::new(SystemClock::new()))
    }

    fn build(mut config: Config, host: Option<Arc<dyn Host>>, clock: Arc<dyn Clock>) -> Result<Client> {
        config.validate()?;
        let mut backend = config.store.backend()?;
        let events = Arc::new(Events::default());
        let seal = store::seal(&config)?;
        // The seal holds them now.
        config.store.encryption_keys.clear();
        config.http.ca_bundle_path.iter_mut().for_each(make_absolute);
        store::resolve_paths(&mut backend)?;
        let store = || store::open(&backend, true, &config.timeouts, host.as_ref(), &seal);
        let parts = Parts::new(&config, store, &clock, &events)?;
        Ok(Client { config, backend, host, seal, clock, events, parts })
    }

    /// The components of this process; a forked child builds its own.
    fn work(&self) -> Result<&Work> {
        let mut parts = &self.parts;
        loop {
            match parts.own.get() {
                Some(work) => return Ok(work),
                None => {
                    parts = parts.of_child.get_or_try_init(|| {
                        let (timeouts, host) = (&self.config.timeouts, self.host.as_ref());
                        // The parent had the database open: if the file is missing now, it must not
                        // be created again.
                        let store = || store::open(&self.backend, false, timeouts, host, &self.seal);
                        Parts::new(&self.config, store, &self.clock, &self.events).map(Box::new)
                    })?;
                }
            }
        }
    }

    /// The components of this process, if they have been built.
    fn work_so_far(&self) -> Option<&Work> {
        let mut parts = &self.parts;
        loop {
            match parts.own.get() {
                Some(work) => return Some(work),
                None => parts = parts.of_child.get()?,
            }
        }
    }

    /// Ends every waiting call with `CANCELLED`; later calls are not affected.
    ///
    /// A refresh whose request has been sent continues on its thread until the response is saved.
    pub fn cancel(&self) {
        // Without components no call is waiting.
        if let Some(work) = self.work_so_far() {
            work.cancellation.raise();
            work.tokens.wake_all();
        }
    }

    /// Statistics for monitoring; contains no secret.
    ///
    /// # Errors
    /// `STORE`, in a forked child that cannot open its store.
    pub fn stats(&self) -> Result<Value> {
        let work = self.work()?;
        let (http, tokens) = (work.api.counters(), work.tokens.counters());
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "requests": {
                "sent": http.sent.load(Ordering::Relaxed),
                "repeated": http.repeated.load(Ordering::Relaxed),
                "unanswered": http.unanswered.load(Ordering::Relaxed),
            },
            "tokens": {
                "inMemory": work.tokens.cached_count(),
                "unsaved": work.tokens.unsaved_count(),
                "refreshed": tokens.refreshed.load(Ordering::Relaxed),
                "minted": tokens.minted.load(Ordering::Relaxed),
                "failed": tokens.failed.load(Ordering::Relaxed),
            },
            "pace": work.api.rate_limits(),
        }))
    }

    /// Sets the listener for events, or removes it with `None`.
    pub fn on_event(&self, listener: Option<Listener>) {
        self.events.listen(listener);
    }

    /// A plain call of `POST /oauth/token`; stores nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a missing parameter; errors of the API and the network.
    pub fn oauth_token(&self, params: &TokenParams) -> Result<Token> {
        let work = self.work()?;
        work.api
            .token(params, TokenRetry::SingleUse, self.clock.wall_ms(), &work.deadline())
            .map_err(Error::from)
    }

    /// A plain call of `POST /oauth/location-token`; stores nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an empty ID; otherwise as [`Client::access_token`].
    pub fn oauth_location_token(&self, params: &LocationTokenParams) -> Result<Token> {
        let work = self.work()?;
        work.tokens.location_token(params, &work.deadline())
    }

    /// `GET /oauth/installed-locations`: one page, or all items with `all`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a missing company or a page size out of range; otherwise as
    /// [`Client::access_token`].
    pub fn oauth_installed_locations(&self, params: &InstalledLocationsParams) -> Result<Map<String, Value>> {
        let work = self.work()?;
        work.tokens.installed_locations(params, &work.deadline())
    }

    /// The URL of the consent page; see [`Authorization::url`].
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, naming the parameter.
    pub fn authorization_url(&self, params: UrlParams) -> Result<Value> {
        self.work()?.authorization.url(params)
    }

    /// Exchanges the code of a redirect and stores the token; see [`Authorization::complete`].
    ///
    /// # Errors
    /// As [`Authorization::complete`].
    pub fn authorization_complete(&self, params: &CompleteParams) -> Result<Value> {
        let work = self.work()?;
        work.authorization.complete(params, &work.deadline())
    }

    /// Waits for the redirect on a loopback port and stores the token; see
    /// [`Authorization::listen`].
    ///
    /// # Errors
    /// As [`Authorization::listen`].
    pub fn authorization_listen(&self, params: &ListenParams) -> Result<Value> {
        let work = self.work()?;
        work.authorization.listen(params, &work.deadline())
    }

    /// A valid access token; see [`Tokens::access_token`].
    ///
    /// # Errors
    /// As [`Tokens::access_token`].
    pub fn access_token(&self, resource_id: &str) -> Result<Secret> {
        let work = self.work()?;
        let token = work.tokens.access_token(resource_id, || work.deadline());
        token.map_err(|error| work.tokens.explain_not_held(error, || work.deadline()))
    }

    /// Passes the cached token to `take` if it is fresh; on `None`, call [`Client::access_token`].
    pub fn with_fresh_token<T>(&self, resource_id: &str, take: impl FnOnce(&Secret) -> T) -> Option<T> {
        self.work().ok()?.tokens.with_fresh(resource_id, take)
    }

    /// Refreshes or mints now; see [`Tokens::refresh`].
    ///
    /// # Errors
    /// As [`Tokens::refresh`].
    pub fn token_refresh(&self, resource_id: &str) -> Result<Value> {
        let work = self.work()?;
        let metadata = work.tokens.refresh(resource_id, &work.deadline());
        metadata.map_err(|error| work.tokens.explain_not_held(error, || work.deadline()))
    }

    /// Deletes a token; see [`Tokens::delete`].
    ///
    /// # Errors
    /// As [`Tokens::delete`].
    pub fn token_delete(&self, resource_id: &str) -> Result<Value> {
        let work = self.work()?;
        work.tokens.delete(resource_id, &work.deadline())
    }

    /// A page of metadata; see [`Tokens::list`].
    ///
    /// # Errors
    /// As [`Tokens::list`].
    pub fn tokens_list(&self, params: &ListParams) -> Result<Value> {
        let work = self.work()?;
        let page = work.tokens.list(params, &work.deadline())?;
        if *params == ListParams::default() && page["items"].as_array().is_some_and(Vec::is_empty) {
            work.tokens.look_for_rotation(|| work.deadline());
        }
        Ok(page)
    }

    /// A page of tokens with their secrets; see [`Tokens::export`].
    ///
    /// # Errors
    /// As [`Tokens::export`].
    pub fn tokens_export(&self, params: &ListParams) -> Result<Value> {
        let work = self.work()?;
        work.tokens.export(params, &work.deadline())
    }

    /// Imports tokens; see [`Tokens::import`].
    ///
    /// # Errors
    /// As [`Tokens::import`].
    pub fn tokens_import(&self, params: ImportParams) -> Result<Value> {
        let work = self.work()?;
        work.tokens.import(params, &work.deadline())
    }

    /// Moves the tokens of another client ID in the same database to this client; see
    /// [`Tokens::adopt_from`].
    ///
    /// # Errors
    /// As [`Tokens::adopt_from`].
    pub fn tokens_adopt(&self, params: &AdoptParams) -> Result<Value> {
        let work = self.work()?;
        work.tokens.adopt_from(&self.config.client_id, params, || work.deadline())
    }

    /// Sends a request to any endpoint with a valid token; see [`Requests::send`].
    ///
    /// # Errors
    /// As [`Requests::send`].
    pub fn request(&self, params: &RequestParams) -> Result<Value> {
        let work = self.work()?;
        let answer = work.requests.send(params, &work.deadline());
        answer.map_err(|error| work.tokens.explain_not_held(error, || work.deadline()))
    }

    /// Mints tokens for many locations; see [`Tokens::mint_all`].
    ///
    /// # Errors
    /// As [`Tokens::mint_all`].
    pub fn tokens_mint(&self, params: MintParams, progress: Progress) -> Result<Value> {
        let work = self.work()?;
        work.tokens.mint_all(params, progress, || work.deadline())
    }

    /// Renews all tokens that are due; see [`Tokens::maintain`].
    ///
    /// # Errors
    /// As [`Tokens::maintain`].
    pub fn tokens_maintain(&self, params: &MaintainParams, progress: Progress) -> Result<Value> {
        let work = self.work()?;
        work.tokens.maintain(params, progress, || work.deadline())
    }

    /// Verifies a webhook's signature and parses it; see [`Webhooks::verify`].
    ///
    /// # Errors
    /// As [`Webhooks::verify`].
    pub fn webhook_verify(&self, body: &[u8], headers: &Headers) -> Result<Value> {
        self.work()?.webhooks.verify(body, headers)
    }

    /// Verifies a webhook and applies it to the tokens; see [`Webhooks::apply`].
    ///
    /// # Errors
    /// As [`Webhooks::apply`].
    pub fn webhook_apply(&self, body: &[u8], headers: &Headers) -> Result<Value> {
        let work = self.work()?;
        work.webhooks.apply(body, headers, &work.deadline())
    }
}

impl Drop for Work {
    /// Makes a last attempt to save unsaved tokens. A forked child never drops its parent's
    /// components.
    fn drop(&mut self) {
        self.tokens.close(&self.deadline());
    }
}

impl Parts {
    fn new(
        config: &Config,
        open_store: impl FnOnce() -> Result<Arc<dyn Store>>,
        clock: &Arc<dyn Clock>,
        events: &Arc<Events>,
    ) -> Result<Parts> {
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
        let work = Work {
            authorization: Authorization::new(
                config,
                Arc::clone(&api),
                Arc::clone(&tokens),
                Arc::clone(clock),
            )?,
            requests: Requests::new(Arc::clone(&api), Arc::clone(&tokens)),
            webhooks: Webhooks::new(config, verifier, store, Arc::clone(&tokens), Arc::clone(clock)),
            api,
            tokens,
            clock: Arc::clone(clock),
            cancellation: Arc::default(),
            call_timeout: Duration::from_millis(config.timeouts.total_ms),
        };
        Ok(Parts { own: ProcessLocal::new(work), of_child: OnceBox::new() })
    }
}

impl Work {
    fn deadline(&self) -> Deadline {
        Deadline::by(&self.clock, self.call_timeout, &self.cancellation)
    }
}
