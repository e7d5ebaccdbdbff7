//! The client, the entry point of the library: builds the components and gives each call its
//! deadline.

mod metrics;
mod options;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use once_cell::race::OnceBox;
use serde_json::{Map, Value, json};

use crate::api::{Api, InstalledLocationsParams, LocationTokenParams, TokenParams, TokenRetry};
use crate::authorization::{Authorization, CompleteParams, ListenParams, UrlParams};
use crate::clock::{Clock, SystemClock};
use crate::config::{Backend, Config, StoreKind, make_absolute};
use crate::deadline::{Cancellation, Deadline, NamedCallGuard, NamedCalls};
use crate::error::{Error, Result, Status};
use crate::event::{Events, Listener};
use crate::fork_safety::ProcessLocal;
use crate::request::{RequestParams, Requests, ResponseDocument};
use crate::secret::Secret;
use crate::store::{self, Host, Seal, Store};
use crate::token::{Token, valid_id};
use crate::tokens::{
    AccessTokenParams, AdoptParams, Adoption, BulkMint, ImportParams, ListParams, MaintainParams,
    Maintenance, MintParams, Progress, RefreshParams, Tokens, Transfer,
};
use crate::webhook::{Headers, Verifier, WebhookParams, Webhooks};
use crate::worker_pool;

pub use metrics::MetricsParams;
use options::valid_call_id;
pub use options::{CallOptions, OPTION_KEYS};

/// A client for one app and its tokens. Share it between threads.
///
/// A forked child may keep using it: at its first call, the child opens its own store, connections
/// and locks.
pub struct Client {
    shared: Arc<Shared>,
    options: CallOptions,
}

/// The client behind all its handles.
struct Shared {
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
    named_calls: NamedCalls,
    call_timeout: Duration,
}

/// One call in progress.
struct Call<'a> {
    components: &'a Components,
    whole: Deadline,
    _named: Option<NamedCallGuard<'a>>,
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
        config.read_secret()?;
        let mut backend = config.store.backend()?;
        let events = Arc::new(Events::default());
        let seal = store::seal(&config)?;
        // The seal holds them now.
        config.store.encryption_keys.clear();
        config.http.ca_bundle_path.iter_mut().for_each(make_absolute);
        store::resolve_paths(&mut backend)?;
        let store = || store::open(&backend, true, &config.timeouts, host.as_ref(), &seal);
        let per_process = PerProcess::new(&config, store, &clock, &events)?;
        let shared = Shared { config, backend, host, seal, clock, events, per_process };
        Ok(Client { shared: Arc::new(shared), options: CallOptions::default() })
    }

    /// The same client for calls with these options.
    #[must_use]
    pub fn with(&self, options: CallOptions) -> Client {
        Client { shared: Arc::clone(&self.shared), options }
    }

    /// The options of the calls that are made with this handle.
    pub fn options(&self) -> &CallOptions {
        &self.options
    }

    /// The components of this process; a forked child builds its own.
    fn components(&self) -> Result<&Components> {
        self.shared.components()
    }

    /// Begins a call: from now on it can be cancelled, and its time runs.
    fn call(&self) -> Result<Call<'_>> {
        let components = self.components()?;
        let CallOptions { timeout, call_id } = &self.options;
        let mut whole =
            Deadline::by(&components.clock, components.call_timeout, &components.cancellation);
        if let Some(timeout) = *timeout {
            whole = whole.with_timeout(timeout);
        }
        let named = call_id.as_ref().map(|id| components.named_calls.begin(id));
        if let Some(named) = &named {
            whole = whole.cancelled_with(named);
        }
        Ok(Call { components, whole, _named: named })
    }

    /// Ends every waiting call with `CANCELLED`; later calls are not affected.
    ///
    /// A refresh whose request has been sent continues on its thread until the response is saved.
    pub fn cancel(&self) {
        // Without components no call is waiting.
        if let Some(components) = self.shared.existing_components() {
            components.cancellation.raise();
            components.tokens.wake_all();
        }
    }

    /// Ends the calls in progress that have this ID with `CANCELLED`, like [`Client::cancel`].
    pub fn cancel_call(&self, call_id: &str) -> Result<()> {
        valid_call_id("call_id", call_id)?;
        if let Some(components) = self.shared.existing_components()
            && components.named_calls.cancel(call_id)
        {
            components.cancellation.wake();
            components.tokens.wake_all();
        }
        Ok(())
    }

    /// Statistics for monitoring; contains no secret.
    pub fn stats(&self) -> Result<Value> {
        let components = self.components()?;
        let (http, tokens) = (components.api.counters(), components.tokens.counters());
        let failures = tokens.failures().filter(|(_, count)| *count > 0);
        let by_status: Map<String, Value> =
            failures.map(|(status, count)| (status.name().to_owned(), count.into())).collect();
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "requests": {
                "sent": http.sent.load(Ordering::Relaxed),
                "repeated": http.repeated.load(Ordering::Relaxed),
                "unanswered": http.unanswered.load(Ordering::Relaxed),
                "rateLimited": http.rate_limited.load(Ordering::Relaxed),
            },
            "tokens": {
                "inMemory": components.tokens.cached_count(),
                "unsaved": components.tokens.unsaved_count(),
                "refreshed": tokens.refreshed.load(Ordering::Relaxed),
                "minted": tokens.minted.load(Ordering::Relaxed),
                "failed": tokens.failures().map(|(_, count)| count).sum::<u64>(),
                "failedByStatus": by_status,
            },
            "pace": components.api.rate_limits(),
        }))
    }

    /// Metrics in Prometheus' text format: totals of the stored tokens, which are the same in every
    /// process that shares the store, and the counters of this process. Contains no secret.
    pub fn metrics(&self, _: &MetricsParams) -> Result<String> {
        let call = self.call()?;
        let summary = match call.tokens.summary(&call.deadline()) {
            Err(error) if error.status() == Status::Cancelled => return Err(error),
            summary => summary.inspect_err(|error| {
                log::warn!("the stored tokens could not be counted{}", error.fields(""));
            }),
        };
        Ok(metrics::exposition(&call, summary.ok()))
    }

    /// Sets the listener for events, or removes it with `None`.
    pub fn on_event(&self, listener: Option<Listener>) {
        self.shared.events.listen(listener);
    }

    /// A plain call of `POST /oauth/token`; stores nothing.
    pub fn oauth_token(&self, params: &TokenParams) -> Result<Token> {
        let call = self.call().map_err(Error::before_request)?;
        call.api
            .token(params, TokenRetry::SingleUse, call.clock.wall_ms(), &call.deadline())
            .map_err(Error::from)
    }

    /// A plain call of `POST /oauth/location-token`; stores nothing.
    pub fn oauth_location_token(&self, params: &LocationTokenParams) -> Result<Token> {
        let call = self.call().map_err(Error::before_request)?;
        call.tokens.location_token(params, &call.deadline())
    }

    /// `GET /oauth/installed-locations`: one page, or all items with `all`.
    pub fn oauth_installed_locations(
        &self,
        params: &InstalledLocationsParams,
    ) -> Result<Map<String, Value>> {
        let call = self.call().map_err(Error::before_request)?;
        call.tokens.installed_locations(params, &call.deadline())
    }

    pub fn authorization_url(&self, params: UrlParams) -> Result<Value> {
        self.components()?.authorization.url(params)
    }

    pub fn authorization_complete(&self, params: &CompleteParams) -> Result<Value> {
        let call = self.call().map_err(Error::before_request)?;
        call.authorization.complete(params, &call.deadline())
    }

    pub fn authorization_listen(&self, params: &ListenParams) -> Result<Value> {
        let call = self.call()?;
        call.authorization.listen(params, &call.deadline())
    }

    pub fn access_token(&self, resource_id: &str) -> Result<Secret> {
        let call = self.call()?;
        let token = call.tokens.access_token(resource_id, || call.deadline());
        token.map_err(|error| call.tokens.rotation.explain_not_held(error, || call.deadline()))
    }

    /// A valid access token with a minimum life; see [`Tokens::access_token_with`].
    pub fn access_token_with(&self, params: &AccessTokenParams) -> Result<Secret> {
        let call = self.call()?;
        let token = call.tokens.access_token_with(params, &call.deadline());
        token.map_err(|error| call.tokens.rotation.explain_not_held(error, || call.deadline()))
    }

    /// Passes the bytes of the cached token to `take` if it is fresh. In a forked child, does not
    /// build the components.
    pub fn try_fresh_token<T>(
        &self,
        resource_id: &str,
        take: impl FnOnce(&Secret) -> T,
    ) -> Option<T> {
        self.shared.existing_components()?.tokens.with_fresh(resource_id, take)
    }

    /// Passes the bytes of the cached token to `take` if it is fresh; on `None`, call
    /// [`Client::access_token`].
    pub fn with_fresh_token<T>(
        &self,
        resource_id: &str,
        take: impl FnOnce(&Secret) -> T,
    ) -> Option<T> {
        self.components().ok()?.tokens.with_fresh(resource_id, take)
    }

    pub fn token_refresh(&self, resource_id: &str) -> Result<Value> {
        let call = self.call()?;
        let metadata = call.tokens.refresh(resource_id, &call.deadline());
        metadata.map_err(|error| call.tokens.rotation.explain_not_held(error, || call.deadline()))
    }

    /// Like [`Client::token_refresh`], with parameters.
    pub fn token_refresh_with(&self, params: &RefreshParams) -> Result<Value> {
        valid_id("resourceId", &params.resource_id)?;
        self.token_refresh(&params.resource_id)
    }

    pub fn token_delete(&self, resource_id: &str) -> Result<Value> {
        let call = self.call()?;
        call.tokens.delete(resource_id, &call.deadline())
    }

    pub fn tokens_list(&self, params: &ListParams) -> Result<Value> {
        let call = self.call()?;
        let page = Transfer::of(&call.tokens).list(params, &call.deadline())?;
        if *params == ListParams::default() && page["items"].as_array().is_some_and(Vec::is_empty) {
            call.tokens.rotation.look_for_rotation(|| call.deadline());
        }
        Ok(page)
    }

    pub fn tokens_export(&self, params: &ListParams) -> Result<Value> {
        let call = self.call()?;
        Transfer::of(&call.tokens).export(params, &call.deadline())
    }

    pub fn tokens_import(&self, params: ImportParams) -> Result<Value> {
        let call = self.call()?;
        Transfer::of(&call.tokens).import(params, || call.step())
    }

    pub fn tokens_adopt(&self, params: &AdoptParams) -> Result<Value> {
        let call = self.call()?;
        Adoption::of(&call.tokens).adopt_from(&self.shared.config.client_id, params, || call.step())
    }

    pub fn request(&self, params: &RequestParams) -> Result<ResponseDocument> {
        let call = self.call().map_err(Error::before_request)?;
        let answer = call.requests.send(params, &call.deadline());
        answer.map_err(|error| call.tokens.rotation.explain_not_held(error, || call.deadline()))
    }

    pub fn tokens_mint(&self, params: MintParams, progress: Progress) -> Result<Value> {
        let client = self.with(self.options.clone());
        let mint = move |progress: Progress| {
            let call = client.call()?;
            BulkMint::of(&call.tokens).run(params, progress, || call.step())
        };
        worker_pool::relay(mint, progress)
    }

    pub fn tokens_maintain(&self, params: &MaintainParams, progress: Progress) -> Result<Value> {
        let client = self.with(self.options.clone());
        let params = params.clone();
        let uses_workers = params.concurrency.is_some_and(|workers| workers > 1);
        let maintain = move |progress: Progress| {
            let call = client.call()?;
            Maintenance::of(&call.tokens).run(&params, progress, || call.step())
        };
        if uses_workers { worker_pool::relay(maintain, progress) } else { maintain(progress) }
    }

    pub fn webhook_verify(&self, body: &[u8], headers: &Headers) -> Result<Value> {
        self.components()?.webhooks.verify(body, headers)
    }

    pub fn webhook_apply(
        &self,
        body: &[u8],
        headers: &Headers,
        params: &WebhookParams,
    ) -> Result<Value> {
        let call = self.call()?;
        call.webhooks.apply(body, headers, params, &call.deadline())
    }
}

impl Shared {
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
}

impl Drop for Components {
    /// Makes a last attempt to save unsaved tokens. A forked child never drops its parent's
    /// components.
    fn drop(&mut self) {
        self.tokens.close(&Deadline::by(&self.clock, self.call_timeout, &self.cancellation));
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
            named_calls: NamedCalls::default(),
            call_timeout: Duration::from_millis(config.timeouts.total_ms),
        };
        Ok(PerProcess { own: ProcessLocal::new(components), child: OnceBox::new() })
    }
}

impl Call<'_> {
    /// The deadline of a call that does one thing.
    fn deadline(&self) -> Deadline {
        match self.whole.has_timeout() {
            true => self.whole.clone(),
            false => self.whole.renewed(self.components.call_timeout),
        }
    }

    /// The deadline of one step of a call over many tokens.
    fn step(&self) -> Deadline {
        self.whole.renewed(self.components.call_timeout)
    }
}

impl Deref for Call<'_> {
    type Target = Components;

    fn deref(&self) -> &Components {
        self.components
    }
}
