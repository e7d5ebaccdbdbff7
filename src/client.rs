//! The one object that a user holds: builds the parts, gives each call its deadline, and decides nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::api::{Api, InstalledLocationsParams, LocationTokenParams, TokenParams};
use crate::authorization::{Authorization, CompleteParams, UrlParams};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::deadline::{Cancellation, Deadline};
use crate::error::{Error, Result};
use crate::event::{Events, Listener};
use crate::secret::Secret;
use crate::store;
use crate::token::Token;
use crate::tokens::{ImportParams, ListParams, Tokens};

/// A client: one app, its tokens, and the way to the API. Share it between threads.
pub struct Client {
    api: Arc<Api>,
    tokens: Arc<Tokens>,
    authorization: Authorization,
    clock: Arc<dyn Clock>,
    events: Arc<Events>,
    cancellation: Arc<Cancellation>,
    patience: Duration,
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
        config.validate()?;
        let api = Arc::new(Api::new(config)?);
        let events = Arc::new(Events::default());
        let tokens = Arc::new(Tokens::new(
            Arc::clone(&api),
            store::open(config)?,
            Arc::clone(&clock),
            Arc::clone(&events),
            config.refresh.clone(),
        ));
        Ok(Client {
            authorization: Authorization::new(
                config,
                Arc::clone(&api),
                Arc::clone(&tokens),
                Arc::clone(&clock),
            ),
            api,
            tokens,
            clock,
            events,
            cancellation: Arc::default(),
            patience: Duration::from_millis(config.timeouts.total_ms),
        })
    }

    /// Ends every call that is waiting with `CANCELLED`; calls made afterwards work as ever.
    ///
    /// A refresh whose request was sent runs on, on the thread that sent it, until its answer is saved.
    pub fn cancel(&self) {
        self.cancellation.raise();
        self.tokens.wake_all();
    }

    /// Figures for an operator; never a secret.
    pub fn stats(&self) -> Value {
        let http = self.api.counters();
        let tokens = self.tokens.counters();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "requests": {
                "sent": http.sent.load(Ordering::Relaxed),
                "repeated": http.repeated.load(Ordering::Relaxed),
                "unanswered": http.unanswered.load(Ordering::Relaxed),
            },
            "tokens": {
                "inMemory": self.tokens.live_count(),
                "unsaved": self.tokens.unsaved_count(),
                "refreshed": tokens.refreshed.load(Ordering::Relaxed),
                "minted": tokens.minted.load(Ordering::Relaxed),
                "failed": tokens.failed.load(Ordering::Relaxed),
            },
        })
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
        self.api.token(params, self.clock.wall_ms(), &self.deadline()).map_err(Error::from)
    }

    /// `POST /oauth/location-token` as it is; stores nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an empty id; else as [`Client::access_token`].
    pub fn oauth_location_token(&self, params: &LocationTokenParams) -> Result<Token> {
        self.tokens.location_token(params, &self.deadline())
    }

    /// `GET /oauth/installed-locations`: one page, or with `all` every item.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a missing company or a page size out of range; else as [`Client::access_token`].
    pub fn oauth_installed_locations(&self, params: &InstalledLocationsParams) -> Result<Map<String, Value>> {
        self.tokens.installed_locations(params, &self.deadline())
    }

    /// The link to send a person to; see [`Authorization::url`].
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, naming the parameter.
    pub fn authorization_url(&self, params: UrlParams) -> Result<Value> {
        self.authorization.url(params)
    }

    /// From the redirect to a stored token; see [`Authorization::complete`].
    ///
    /// # Errors
    /// As [`Authorization::complete`].
    pub fn authorization_complete(&self, params: &CompleteParams) -> Result<Value> {
        self.authorization.complete(params, &self.deadline())
    }

    /// A live access token; see [`Tokens::access_token`].
    ///
    /// # Errors
    /// As [`Tokens::access_token`].
    pub fn access_token(&self, resource_id: &str) -> Result<Secret> {
        self.tokens.access_token(resource_id, || self.deadline())
    }

    /// Gives a token that is fresh in memory to `take`; `None` where a call to [`Client::access_token`] is due.
    pub fn with_fresh_token<T>(&self, resource_id: &str, take: impl FnOnce(&Secret) -> T) -> Option<T> {
        self.tokens.with_fresh(resource_id, take)
    }

    /// Refreshes or mints now; see [`Tokens::refresh`].
    ///
    /// # Errors
    /// As [`Tokens::refresh`].
    pub fn token_refresh(&self, resource_id: &str) -> Result<Value> {
        self.tokens.refresh(resource_id, &self.deadline())
    }

    /// Deletes a token; see [`Tokens::delete`].
    ///
    /// # Errors
    /// As [`Tokens::delete`].
    pub fn token_delete(&self, resource_id: &str) -> Result<Value> {
        self.tokens.delete(resource_id, &self.deadline())
    }

    /// A page of metadata; see [`Tokens::list`].
    ///
    /// # Errors
    /// As [`Tokens::list`].
    pub fn tokens_list(&self, params: &ListParams) -> Result<Value> {
        self.tokens.list(params)
    }

    /// A page of tokens with their secrets; see [`Tokens::export`].
    ///
    /// # Errors
    /// As [`Tokens::export`].
    pub fn tokens_export(&self, params: &ListParams) -> Result<Value> {
        self.tokens.export(params)
    }

    /// Takes tokens over; see [`Tokens::import`].
    ///
    /// # Errors
    /// As [`Tokens::import`].
    pub fn tokens_import(&self, params: ImportParams) -> Result<Value> {
        self.tokens.import(params, &self.deadline())
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.patience, &self.cancellation)
    }
}
