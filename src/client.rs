//! The client, the entry point of the library: builds the parts and gives each call its deadline.

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

/// A client: one app, its tokens, and the way to the API. Share it between threads.
///
/// A forked child may go on using it: there it opens its own store, connections and locks at the first call. A memory
/// store begins empty in the child, since two processes that refresh the same token without a common store would
/// burn it for each other.
pub struct Client {
    config: Config,
    backend: Backend,
    host: Option<Arc<dyn Host>>,
    seal: Seal,
    clock: Arc<dyn Clock>,
    events: Arc<Events>,
    parts: Parts,
}

/// What one process works with, and what its forked child made in its place.
struct Parts {
    own: ProcessLocal<Work>,
    of_child: OnceBox<Parts>,
}

/// The parts that hold sockets, handles and locks.
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
    /// A client by the system's clock.
    ///
    /// # Errors
    /// `CONFIG`, naming the key; `STORE` when the store cannot be opened.
    pub fn new(config: &Config) -> Result<Client> {
        Client::with_clock(config, Arc::new(SystemClock::new()))
    }

    /// A client by a clock of one's own; for tests.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_clock(config: &Config, clock: Arc<dyn Clock>) -> Result<Client> {
        Client::build(config.clone(), None, clock)
    }

    /// A client whose tokens a store of the host's own keeps. `config.store` needs no kind then.
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
        // From here on the seal has them.
        config.store.encryption_keys.clear();
        config.http.ca_bundle_path.iter_mut().for_each(make_absolute);
        store::resolve_paths(&mut backend)?;
        let store = || store::open(&backend, true, &config.timeouts, host.as_ref(), &seal);
        let parts = Parts::new(&config, store, &clock, &events)?;
        Ok(Client { config, backend, host, seal, clock, events, parts })
    }

    /// The parts of this process; a forked child makes its own.
    fn work(&self) -> Result<&Work> {
        let mut parts = &self.parts;
        loop {
            match parts.own.get() {
                Some(work) => return Ok(work),
                None => {
                    parts = parts.of_child.get_or_try_init(|| {
                        let (timeouts, host) = (&self.config.timeouts, self.host.as_ref());
                        // The parent had the database open: one that is gone must not be made anew.
                        let store = || store::open(&self.backend, false, timeouts, host, &self.seal);
                        Parts::new(&self.config, store, &self.clock, &self.events).map(Box::new)
                    })?;
                }
            }
        }
    }

    /// The parts of this process, where there are any yet.
    fn work_so_far(&self) -> Option<&Work> {
        let mut parts = &self.parts;
        loop {
            match parts.own.get() {
                Some(work) => return Some(work),
                None => parts = parts.of_child.get()?,
            }
        }
    }

    /// Ends every call that is waiting with `CANCELLED`; calls made afterwards work as ever.
    ///
    /// A refresh whose request was sent runs on, on the thread that sent it, until its answer is saved.
    pub fn cancel(&self) {
        // Where there are no parts yet, nobody waits.
        if let Some(work) = self.work_so_far() {
            work.cancellation.raise();
            work.tokens.wake_all();
        }
    }

    /// Figures for an operator; never a secret.
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

    /// Sets, or with `None` takes away, the listener for events.
    pub fn on_event(&self, listener: Option<Listener>) {
        self.events.listen(listener);
    }

    /// `POST /oauth/token` as it is; stores nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a missing parameter; else what the API or the network says.
    pub fn oauth_token(&self, params: &TokenParams) -> Result<Token> {
        let work = self.work()?;
        work.api
            .token(params, TokenRetry::SingleUse, self.clock.wall_ms(), &work.deadline())
            .map_err(Error::from)
    }

    /// `POST /oauth/location-token` as it is; stores nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an empty id; else as [`Client::access_token`].
    pub fn oauth_location_token(&self, params: &LocationTokenParams) -> Result<Token> {
        let work = self.work()?;
        work.tokens.location_token(params, &work.deadline())
    }

    /// `GET /oauth/installed-locations`: one page, or with `all` every item.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a missing company or a page size out of range; else as [`Client::access_token`].
    pub fn oauth_installed_locations(&self, params: &InstalledLocationsParams) -> Result<Map<String, Value>> {
        let work = self.work()?;
        work.tokens.installed_locations(params, &work.deadline())
    }

    /// The link to send a person to; see [`Authorization::url`].
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, naming the parameter.
    pub fn authorization_url(&self, params: UrlParams) -> Result<Value> {
        self.work()?.authorization.url(params)
    }

    /// From the redirect to a stored token; see [`Authorization::complete`].
    ///
    /// # Errors
    /// As [`Authorization::complete`].
    pub fn authorization_complete(&self, params: &CompleteParams) -> Result<Value> {
        let work = self.work()?;
        work.authorization.complete(params, &work.deadline())
    }

    /// From a browser that comes back to a port of this machine to a stored token; see [`Authorization::listen`].
    ///
    /// # Errors
    /// As [`Authorization::listen`].
    pub fn authorization_listen(&self, params: &ListenParams) -> Result<Value> {
        let work = self.work()?;
        work.authorization.listen(params, &work.deadline())
    }

    /// A live access token; see [`Tokens::access_token`].
    ///
    /// # Errors
    /// As [`Tokens::access_token`].
    pub fn access_token(&self, resource_id: &str) -> Result<Secret> {
        let work = self.work()?;
        let token = work.tokens.access_token(resource_id, || work.deadline());
        token.map_err(|error| work.tokens.explain_not_held(error, || work.deadline()))
    }

    /// Gives a token that is fresh in memory to `take`; `None` where a call to [`Client::access_token`] is due.
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

    /// Takes tokens over; see [`Tokens::import`].
    ///
    /// # Errors
    /// As [`Tokens::import`].
    pub fn tokens_import(&self, params: ImportParams) -> Result<Value> {
        let work = self.work()?;
        work.tokens.import(params, &work.deadline())
    }

    /// Moves the tokens of another client id in the same database to this one; see [`Tokens::adopt_from`].
    ///
    /// # Errors
    /// As [`Tokens::adopt_from`].
    pub fn tokens_adopt(&self, params: &AdoptParams) -> Result<Value> {
        let work = self.work()?;
        work.tokens.adopt_from(&self.config.client_id, params, || work.deadline())
    }

    /// Any endpoint with a live token; see [`Requests::send`].
    ///
    /// # Errors
    /// As [`Requests::send`].
    pub fn request(&self, params: &RequestParams) -> Result<Value> {
        let work = self.work()?;
        let answer = work.requests.send(params, &work.deadline());
        answer.map_err(|error| work.tokens.explain_not_held(error, || work.deadline()))
    }

    /// Mints for many locations; see [`Tokens::mint_all`].
    ///
    /// # Errors
    /// As [`Tokens::mint_all`].
    pub fn tokens_mint(&self, params: MintParams, progress: Progress) -> Result<Value> {
        let work = self.work()?;
        work.tokens.mint_all(params, progress, || work.deadline())
    }

    /// One pass over what is due; see [`Tokens::maintain`].
    ///
    /// # Errors
    /// As [`Tokens::maintain`].
    pub fn tokens_maintain(&self, params: &MaintainParams, progress: Progress) -> Result<Value> {
        let work = self.work()?;
        work.tokens.maintain(params, progress, || work.deadline())
    }

    /// Checks a webhook's signature, and answers with what it says; see [`Webhooks::verify`].
    ///
    /// # Errors
    /// As [`Webhooks::verify`].
    pub fn webhook_verify(&self, body: &[u8], headers: &Headers) -> Result<Value> {
        self.work()?.webhooks.verify(body, headers)
    }

    /// The same, and does to the tokens what it says; see [`Webhooks::apply`].
    ///
    /// # Errors
    /// As [`Webhooks::apply`].
    pub fn webhook_apply(&self, body: &[u8], headers: &Headers) -> Result<Value> {
        let work = self.work()?;
        work.webhooks.apply(body, headers, &work.deadline())
    }
}

impl Drop for Work {
    /// Offers tokens that were never saved to the store for the last time. In a forked child it is not dropped.
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
