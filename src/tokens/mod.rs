//! The token manager: returns a valid access token for a company or location, and refreshes or
//! mints one when necessary.
//!
//! A token that is fresh in the cache is returned at once. Otherwise one caller per resource
//! (single flight) renews it under the store's lock, saves it, and only then publishes it.
//! Meanwhile the other callers get the old token if it is still valid, and wait for the new one if
//! it is not.

mod adoption;
mod bulk;
mod company;
mod cooldown;
mod failures;
mod flight;
mod id_hash;
mod inline_id;
mod installation;
mod installation_state;
mod maintain;
mod mint;
mod records;
mod refresh;
mod refresh_retry;
mod rejected_tokens;
mod schedule;
mod spent;
mod striped_lock;
mod summary;
mod token_cache;
mod transfer;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::{Api, Failure, InstalledLocationsParams, LocationTokenParams, says_invalid_token};
use crate::clock::Clock;
use crate::config::Refresh;
use crate::deadline::Deadline;
use crate::deferred_callbacks;
use crate::error::{Error, Result, Status};
use crate::event::{Event, Events};
use crate::secret::Secret;
use crate::store::{Record, SpentDigest, Standing, Store};
use crate::token::{Token, UserType, valid_id};

pub use adoption::AdoptParams;
pub use bulk::Progress;
use company::Companies;
use cooldown::Cooldowns;
use flight::{Flights, Role};
pub use installation::WebhookOutcome;
pub use installation_state::DELIVERY_RETENTION_MS;
use installation_state::Installations;
pub use maintain::MaintainParams;
use maintain::Maintained;
pub use mint::MintParams;
use records::{
    Deletion, DeletionTime, Keeping, Origin, Records, Replaced, SaveRetry, Saved, SavedCopy,
};
use rejected_tokens::RejectedTokens;
use schedule::Schedule;
pub use summary::Summary;
use token_cache::{CachedToken, StaleReason, TokenCache};
pub use transfer::{ImportParams, ListParams, ListedState};

/// How long a caller with a valid token waits for a lock or a busy store.
const BRIEF_WAIT: Duration = Duration::from_millis(100);

/// How long the save of an unsaved copy waits for the lock before it is postponed.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Minimum time to save a new token, even if the call's deadline is closer: the old refresh token
/// is already spent.
const SAVE_TIME: Duration = Duration::from_secs(1);

/// How long a deletion waits for a refresh of the same token.
const DELETION_LOCK_WAIT: Duration = Duration::from_secs(5);

/// How long `close` retries the save of unsaved copies.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Tokens {
    api: Arc<Api>,
    clock: Arc<dyn Clock>,
    events: Arc<Events>,
    schedule: Schedule,
    records: Records,
    installations: Installations,
    cache: TokenCache,
    flights: Flights<(String, Want), Result<Secret>>,
    companies: Companies,
    cooldowns: Cooldowns,
    maintained: Maintained,
    /// Digests of access tokens that the API rejected although they were just granted.
    rejected_new_tokens: RejectedTokens,
    /// Set after the first search for another client ID with tokens in the same database: the
    /// advice to the user, if one was found.
    other_client: OnceLock<Option<String>>,
    counters: Counters,
}

/// Event counts since the client was created.
#[derive(Debug, Default)]
pub struct Counters {
    pub refreshed: AtomicU64,
    /// Location tokens minted.
    pub minted: AtomicU64,
    /// Refreshes and mints that failed, in the order of [`Status::ALL`].
    failed: [AtomicU64; Status::ALL.len()],
}

impl Counters {
    /// The number of refreshes and mints that failed with each status.
    pub fn failures(&self) -> impl Iterator<Item = (Status, u64)> {
        let counts = self.failed.iter().map(|count| count.load(Ordering::Relaxed));
        Status::ALL.into_iter().zip(counts)
    }

    fn count_failure(&self, status: Status) {
        if let Some(position) = Status::ALL.iter().position(|each| *each == status) {
            self.failed[position].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The result that a caller needs from a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Want {
    /// A token that is not due; a valid old token is accepted if the renewal fails.
    Fresh,
    /// Like `Fresh`, but valid for at least this time, or just granted. A valid old token that
    /// expires earlier is not accepted.
    ValidFor(Duration),
    /// A token other than the caller's.
    Another,
    /// Like `Another`, but requested explicitly: the hold of an inactive location is ignored.
    Now,
    /// A token with more than its runway left.
    Runway,
}

impl Want {
    /// How long an old token must be valid to be accepted if the renewal fails; `None` if no old
    /// token is.
    fn accepts_valid_for(self) -> Option<Duration> {
        match self {
            Want::Fresh => Some(Duration::ZERO),
            Want::ValidFor(least) => Some(least),
            Want::Another | Want::Now | Want::Runway => None,
        }
    }

    /// How long an old token that is valid for `left` is accepted; zero if it is not.
    fn accepts_for(self, left: Duration) -> Duration {
        self.accepts_valid_for().map_or(Duration::ZERO, |least| left.saturating_sub(least))
    }
}

/// Selects an access token.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessTokenParams {
    /// The company or location. Required.
    pub resource_id: String,
    /// How long the token must be valid at least. Default: only until the next renewal.
    pub min_valid_seconds: Option<u64>,
}

/// Selects a token to refresh.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RefreshParams {
    /// The company or location. Required.
    pub resource_id: String,
}

impl Tokens {
    /// A token manager for the records in `store`.
    pub fn new(
        api: Arc<Api>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        events: Arc<Events>,
        policy: Refresh,
    ) -> Tokens {
        Tokens {
            api,
            schedule: Schedule::new(Arc::clone(&clock), policy),
            records: Records::new(Arc::clone(&store), Arc::clone(&clock)),
            installations: Installations::new(store, Arc::clone(&clock)),
            clock,
            events,
            cache: TokenCache::new(),
            flights: Flights::new(),
            companies: Companies::default(),
            cooldowns: Cooldowns::default(),
            maintained: Maintained::default(),
            rejected_new_tokens: RejectedTokens::default(),
            other_client: OnceLock::new(),
            counters: Counters::default(),
        }
    }

    /// Returns a valid access token, usually from the cache.
    pub fn access_token(
        &self,
        resource_id: &str,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<Secret> {
        match self.with_fresh(resource_id, Secret::clone) {
            Some(access_token) => Ok(access_token),
            None => {
                valid_id("resource_id", resource_id)?;
                self.renewed(resource_id, Want::Fresh, None, &deadline())
                    .map_err(|error| error.with_resource(resource_id))
            }
        }
    }

    /// Returns a valid access token, like [`Tokens::access_token`], that is valid for at least
    /// `min_valid_seconds`. A token that was granted within the last minute is returned even if its
    /// whole life is shorter, because a renewal would not help. An old token that expires earlier
    /// does not hide a failure.
    pub fn access_token_with(
        &self,
        params: &AccessTokenParams,
        deadline: &Deadline,
    ) -> Result<Secret> {
        let resource_id = &params.resource_id;
        valid_id("resourceId", resource_id)?;
        let Some(seconds) = params.min_valid_seconds else {
            return self.access_token(resource_id, || deadline.clone());
        };
        let least = Duration::from_secs(seconds);
        let uptime = self.clock.uptime();
        if self.cache.unexpired_for(resource_id, uptime).is_some_and(|left| left >= least)
            && let Some(access_token) = self.cache.with_fresh(resource_id, uptime, Secret::clone)
        {
            return Ok(access_token);
        }
        self.renewed(resource_id, Want::ValidFor(least), None, deadline)
            .map_err(|error| error.with_resource(resource_id))
    }

    /// Passes a token that is fresh in the cache to `take`, without I/O, waiting or allocation.
    pub fn with_fresh<T>(&self, resource_id: &str, take: impl FnOnce(&Secret) -> T) -> Option<T> {
        self.cache.with_fresh(resource_id, self.clock.uptime(), take)
    }

    #[cfg(test)]
    pub fn holds_valid(&self, resource_id: &str) -> bool {
        self.cache.unexpired(resource_id, self.clock.uptime()).is_some()
    }

    /// Refreshes or mints a token now, whether it is due or not.
    pub fn refresh(&self, resource_id: &str, deadline: &Deadline) -> Result<Value> {
        valid_id("resource_id", resource_id)?;
        let named = |error: Error| error.with_resource(resource_id);
        let known = self
            .records
            .load(resource_id, deadline)?
            .map(|record| record.token.access_token.clone());
        self.renewed(resource_id, Want::Now, known.as_ref(), deadline).map_err(named)?;
        self.records
            .metadata(resource_id, &deadline.at_least(SAVE_TIME))?
            .ok_or_else(|| not_found(resource_id))
    }

    /// Deletes a record, even an unreadable one. The API is not notified.
    pub fn delete(&self, resource_id: &str, deadline: &Deadline) -> Result<Value> {
        valid_id("resource_id", resource_id)?;
        let _deferred = deferred_callbacks::defer();
        let metadata = match self.records.metadata(resource_id, deadline) {
            Err(error) if error.is_unreadable() => Some(unreadable(resource_id)),
            metadata => metadata?,
        };
        match self.delete_if(resource_id, self.clock.wall_ms(), |_| true, deadline)? {
            Deletion::Deleted => Ok(metadata.unwrap_or_else(|| unreadable(resource_id))),
            Deletion::NotFound | Deletion::Kept => Err(not_found(resource_id)),
        }
    }

    /// Saves a token that was granted by a user's consent.
    pub fn save_consented(&self, token: Token, deadline: &Deadline) -> Result<Value> {
        let owner =
            token.resource_id().filter(|id| valid_id("resourceId", id).is_ok()).map(str::to_owned);
        let Some(resource_id) = owner else {
            return Err(Error::new(
                Status::Protocol,
                "the API granted a token without naming its company or location",
            )
            .with_help("let the user consent again, and report the trace id to the vendor")
            .with_sent(true)
            .with_retryable(false));
        };
        let _deferred = deferred_callbacks::defer();
        // The authorization code is spent: the token is saved even without the lock.
        let lock = self.records.lock(&resource_id, deadline);
        let kind = token.kind();
        let record = self.save_for_owner(&resource_id, token, None, deadline);
        drop(lock);
        let record = record?;
        if kind == UserType::Company {
            self.mint_pending(&resource_id, deadline);
        }
        Ok(self.records.describe(&record))
    }

    /// Saves a token under the owner that it names. Without `spent` the token comes from a consent,
    /// which begins an installation. Otherwise it comes from a refresh of another resource, which
    /// consumed the refresh token of `spent`.
    fn save_for_owner(
        &self,
        resource_id: &str,
        token: Token,
        spent: Option<&Arc<Token>>,
        deadline: &Deadline,
    ) -> Result<Record> {
        let is_consent = spent.is_none();
        let save_deadline = deadline.at_least(SAVE_TIME);
        let begins = is_consent.then(|| self.clock.wall_ms());
        let as_of = self.records.count();
        // A consent replaces the stored token; an unsaved copy may be older than that.
        let held = match is_consent {
            true => self.records.load_for_consent(resource_id, &save_deadline),
            false => self.records.load(resource_id, &save_deadline),
        };
        let unread = || Record { as_of, ..Record::new(resource_id.to_owned(), token.clone()) };
        let (record, origin) = match held {
            // Another process has imported this token and refreshed it: it holds the successor.
            Ok(Some(held))
                if token.refresh_token.as_ref().is_some_and(|own| held.has_spent(own)) =>
            {
                self.invalidate(resource_id);
                return Ok(held);
            }
            Ok(Some(held)) if spent.is_some_and(|spent| is_of_later_grant(&held, spent)) => {
                return Ok(held);
            }
            Ok(Some(held)) => {
                let origin = Origin::Consent(Some(Replaced::from(&held)));
                let installed_at = begins.or(held.installed_at);
                let token = Arc::new(token.clone());
                (
                    Record {
                        token,
                        installed_at,
                        standing: Standing::Good,
                        intent: None,
                        last_failure: None,
                        ..held
                    },
                    origin,
                )
            }
            Ok(None) => {
                match self.records.new_record(resource_id.to_owned(), token.clone(), &save_deadline)
                {
                    Ok(record) if record.predecessor > 0 && !is_consent => {
                        return Err(deleted_meanwhile(resource_id));
                    }
                    Ok(record) => (record, Origin::Consent(None)),
                    Err(_) => (unread(), Origin::ConsentUnread),
                }
            }
            Err(_) => (unread(), Origin::ConsentUnread),
        };
        let origin = match spent {
            // Without having read the row, replace it only if it holds the spent refresh token.
            Some(spent) if record.version == 0 => Origin::Refresh(Arc::clone(spent)),
            _ => origin,
        };
        let installed_at = record.installed_at.or(Some(self.clock.wall_ms()));
        let own_consent =
            record.token.kind() == UserType::Location && (is_consent || record.own_consent);
        let mut record = Record { installed_at, own_consent, ..record };
        // A response without a refresh token leaves the old one valid (RFC 6749, section 6).
        let is_used_up = record.token.refresh_token.is_some();
        if let Some(spent) =
            spent.and_then(|spent| spent.refresh_token.as_ref()).filter(|_| is_used_up)
        {
            record.spent.add(&SpentDigest::of(spent));
        }
        self.save_and_publish(&mut record, origin, &Event::Saved, deadline)?;
        Ok(record)
    }

    /// Removes a resource's token from the cache; the next caller reads the store.
    pub fn invalidate(&self, resource_id: &str) {
        if !self.records.is_unsaved(resource_id) {
            self.cache.forget(resource_id);
        }
    }

    /// Retries the save of every unsaved copy until all are saved or the time is up.
    pub fn close(&self, deadline: &Deadline) {
        let deadline = deadline.at_least(CLOSE_TIMEOUT).within(CLOSE_TIMEOUT);
        loop {
            let refused = |id: &String| {
                self.retry_save_on_close(id, &deadline).err().map(|error| (id.clone(), error))
            };
            let left: Vec<(String, Error)> =
                self.records.unsaved_ids().iter().filter_map(refused).collect();
            if left.is_empty() {
                return;
            }
            if deadline.sleep(BRIEF_WAIT).is_err() {
                for (resource_id, error) in left {
                    log::error!(
                        "{resource_id}: the newest token was never saved and is lost when the \
                         client closes: {error}"
                    );
                }
                return;
            }
        }
    }

    /// Mints a location token without saving it. Uses the company's stored token unless
    /// `params.access_token` is set.
    pub fn location_token(
        &self,
        params: &LocationTokenParams,
        deadline: &Deadline,
    ) -> Result<Token> {
        valid_id("companyId", &params.company_id)?;
        valid_id("locationId", &params.location_id)?;
        self.with_bearer(&params.company_id, params.access_token.as_ref(), deadline, |bearer| {
            self.api.location_token(
                &params.company_id,
                &params.location_id,
                bearer,
                self.clock.wall_ms(),
                deadline,
            )
        })
        .map_err(|error| error.with_resource(&params.location_id))
    }

    /// Lists a company's locations. Uses the company's stored token unless `params.access_token` is
    /// set.
    pub fn installed_locations(
        &self,
        params: &InstalledLocationsParams,
        deadline: &Deadline,
    ) -> Result<Map<String, Value>> {
        let page = self.list_locations(params, deadline)?;
        if let Some(company_id) = &params.company_id {
            self.companies.remember(company_id, &page);
        }
        Ok(page)
    }

    /// Like [`Tokens::installed_locations`], but does not remember the locations.
    fn list_locations(
        &self,
        params: &InstalledLocationsParams,
        deadline: &Deadline,
    ) -> Result<Map<String, Value>> {
        let company_id = params.validate()?;
        valid_id("companyId", company_id)?;
        self.with_bearer(company_id, params.access_token.as_ref(), deadline, |bearer| {
            self.api.installed_locations(params, bearer, deadline)
        })
        .map_err(|error| error.with_resource(company_id))
    }

    /// Wakes all waiting calls so that they check for cancellation.
    pub fn wake_all(&self) {
        self.flights.wake_all();
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The number of cached access tokens.
    pub fn cached_count(&self) -> usize {
        self.cache.len()
    }

    /// The number of unsaved copies.
    pub fn unsaved_count(&self) -> usize {
        self.records.unsaved_count()
    }

    /// Calls the API with a company's token; if the API rejects a stored token, refreshes it and
    /// repeats the call once.
    fn with_bearer<T>(
        &self,
        company_id: &str,
        given: Option<&Secret>,
        deadline: &Deadline,
        call: impl Fn(&Secret) -> Result<T, Failure>,
    ) -> Result<T> {
        match given {
            Some(bearer) => Ok(call(bearer)?),
            None => {
                // Whether the server may have processed an attempt before it rejected the token.
                let may_have_acted = Cell::new(false);
                let call = |bearer: &Secret| {
                    call(bearer).inspect_err(|failure| {
                        if failure.error.may_have_acted_before() {
                            may_have_acted.set(true);
                        }
                    })
                };
                self.with_company_bearer(company_id, deadline, deadline, call)
                    .map_err(Error::before_request)
                    .and_then(|outcome| Ok(outcome?))
                    .map_err(|error| error.after_attempts(may_have_acted.get()))
            }
        }
    }

    /// Calls the API with the company's stored token and returns its outcome. Waits for the store,
    /// locks and other callers no longer than `waits`.
    ///
    /// # Errors
    /// There is no valid token to make the call with.
    fn with_company_bearer<T>(
        &self,
        company_id: &str,
        deadline: &Deadline,
        waits: &Deadline,
        call: impl Fn(&Secret) -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>> {
        // A company's token comes from a consent or an import; only location tokens can be minted.
        if !self.records.has_company(company_id, waits)? {
            return Err(Error::new(
                Status::NotFound,
                format!("no token is held for the company {company_id}"),
            )
            .with_help(
                "let an administrator of the company consent (authorization_url), or import its \
                 token",
            )
            .with_resource(company_id));
        }
        let is_dead = |outcome: &Result<T, Failure>| {
            outcome.as_ref().is_err_and(|failure| says_invalid_token(&failure.error))
        };
        self.with_live_token_and_waits(company_id, deadline, waits, &call, is_dead)
            .map_err(|error| error.with_resource(company_id))
    }

    /// Makes a call with a resource's token. If `is_dead` says that the token was rejected,
    /// refreshes it and repeats the call once. A new token is not refreshed again: otherwise every
    /// call would use up a refresh token.
    pub(crate) fn with_live_token<T>(
        &self,
        resource_id: &str,
        deadline: &Deadline,
        call: impl Fn(&Secret) -> T,
        is_dead: impl Fn(&T) -> bool,
    ) -> Result<T> {
        valid_id("resource_id", resource_id)?;
        self.with_live_token_and_waits(resource_id, deadline, deadline, call, is_dead)
    }

    fn with_live_token_and_waits<T>(
        &self,
        resource_id: &str,
        deadline: &Deadline,
        waits: &Deadline,
        call: impl Fn(&Secret) -> T,
        is_dead: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let bearer = match self.with_fresh(resource_id, Secret::clone) {
            Some(bearer) => bearer,
            None => self
                .renewed_with_waits(resource_id, Want::Fresh, None, deadline, waits)
                .map_err(|error| error.with_resource(resource_id))?,
        };
        let outcome = call(&bearer);
        if !is_dead(&outcome) || self.rejected_new_tokens.contains(resource_id, &bearer) {
            return Ok(outcome);
        }
        let renewed = self.renewed(resource_id, Want::Another, Some(&bearer), deadline)?;
        let outcome = call(&renewed);
        if is_dead(&outcome) {
            self.rejected_new_tokens.insert(resource_id, &renewed);
        }
        Ok(outcome)
    }

    /// Renews a token in a single flight per resource and `want`. Followers with a valid token do
    /// not wait for it.
    fn renewed(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadline: &Deadline,
    ) -> Result<Secret> {
        self.renewed_with_waits(resource_id, want, known, deadline, deadline)
    }

    /// Like [`Tokens::renewed`], but waits for other callers, locks and the store only until
    /// `waits`.
    fn renewed_with_waits(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadline: &Deadline,
        waits: &Deadline,
    ) -> Result<Secret> {
        if want != Want::Runway {
            self.maintained.ask_for(resource_id);
        }
        loop {
            let _deferred = deferred_callbacks::defer();
            match self.flights.join((resource_id.to_owned(), want)) {
                Role::Leader(leader) => {
                    let result = self.renew(resource_id, want, known, deadline, waits);
                    leader.complete(result.clone());
                    return result;
                }
                Role::Follower(flight) => {
                    if let Some(least) = want.accepts_valid_for()
                        && let Some(valid) = self.valid(resource_id, least, deadline)
                    {
                        return Ok(valid);
                    }
                    match flight.wait(waits)? {
                        // The leader panicked, was cancelled or timed out, had too little time for
                        // another attempt, or returned the token that this caller already knows:
                        // try again.
                        None => {}
                        Some(Err(error))
                            if matches!(error.status(), Status::Cancelled | Status::Timeout)
                                || error.is_cut_short() => {}
                        Some(Ok(token))
                            if known.is_some_and(|known| known.matches(token.expose())) => {}
                        Some(result) => return result,
                    }
                }
            }
            deadline.check()?;
        }
    }

    /// A token that is valid for more than `least`, due or not, from the cache or the store.
    fn valid(&self, resource_id: &str, least: Duration, deadline: &Deadline) -> Option<Secret> {
        self.valid_in_cache(resource_id, least).or_else(|| {
            let changes = self.cache.changes(resource_id);
            let record =
                self.records.load(resource_id, &deadline.within(BRIEF_WAIT)).ok().flatten()?;
            let is_valid = self.schedule.left(&record, &self.cache) > least;
            // Cached so that it can still be served if the store fails.
            is_valid.then(|| {
                self.serve_stale(changes, &record, StaleReason::Due);
                record.token.access_token.clone()
            })
        })
    }

    /// A token that is valid for more than `least`, due or not, from the cache.
    fn valid_in_cache(&self, resource_id: &str, least: Duration) -> Option<Secret> {
        let uptime = self.clock.uptime();
        self.cache.unexpired_for(resource_id, uptime).filter(|left| *left > least)?;
        self.cache.unexpired(resource_id, uptime)
    }

    /// Saves a new token, publishes it and returns the access token. If the save fails, the token
    /// is served from memory and the save is retried with backoff. If another writer's token wins
    /// but has expired, for example because the clock was set back, the caller gets the new token,
    /// which the API has just granted.
    fn save_and_publish(
        &self,
        record: &mut Record,
        origin: Origin,
        event: &Event,
        deadline: &Deadline,
    ) -> Result<Secret> {
        record.renew_at = self.schedule.renewal(record);
        let changes = self.cache.changes(&record.resource_id);
        let save_deadline = deadline.at_least(SAVE_TIME);
        let is_first_mint = record.version == 0 && matches!(origin, Origin::Mint);
        let granted = Arc::clone(&record.token);
        let mut saved = self.records.save(record, &origin, &save_deadline);
        if is_first_mint {
            saved = saved.and_then(|saved| self.confirm_mint(record, saved, &save_deadline));
        }
        let is_useless = matches!(saved, Ok(Saved::Theirs))
            && (record.standing != Standing::Good
                || self.schedule.left(record, &self.cache).is_zero());
        let published = self
            .publish_saved(record, origin, saved, event, changes)
            // The token comes from a response.
            .map_err(|error| error.with_sent(true))?;
        Ok(if is_useless { granted.access_token.clone() } else { published })
    }

    /// Publishes a new token after the attempt to save it, unless the cache has changed since
    /// `changes`.
    fn publish_saved(
        &self,
        record: &Record,
        origin: Origin,
        saved: Result<Saved>,
        event: &Event,
        changes: u64,
    ) -> Result<Secret> {
        let (resource_id, expires_at) = (&record.resource_id, Some(record.token.expires_at));
        match saved {
            Ok(Saved::Deleted) => {
                self.records.forget_older(record, &origin);
                self.cache.forget(resource_id);
                return Err(self.dropped(record, &origin));
            }
            Ok(_) => {
                self.records.forget_older(record, &origin);
                self.cooldowns.clear(resource_id);
                if !self.publish_since(changes, record) {
                    self.publish_due(record);
                }
                self.emit(event, resource_id, expires_at);
            }
            Err(error) => {
                let as_of = self.records.count();
                // Keep the copy before publishing: a reader without the lock that loads the record
                // in between notices the later change of the cache.
                match self.records.keep_unsaved(record.clone(), origin) {
                    Keeping::Kept => {}
                    Keeping::Deleted => {
                        self.cache.forget(resource_id);
                        return Err(deleted_meanwhile(resource_id));
                    }
                    Keeping::Newer => {
                        log::warn!(
                            "{resource_id}: an older token was not saved; a newer one is kept: \
                             {error}"
                        );
                        return Ok(record.token.access_token.clone());
                    }
                }
                log::error!("the new token of {resource_id} is in memory only: {error}");
                self.cooldowns.clear(resource_id);
                self.publish(record, as_of);
                self.emit(&Event::Unsaved(error), resource_id, expires_at);
            }
        }
        Ok(record.token.access_token.clone())
    }

    /// Retries the save of a resource's unsaved copy under the resource's lock.
    fn retry_save(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        if !self.records.is_unsaved(resource_id) {
            return Ok(());
        }
        let _deferred = deferred_callbacks::defer();
        let _lock = self.records.lock(resource_id, &deadline.within(LOCK_WAIT))?;
        self.retry_save_locked(resource_id, true, deadline)
    }

    /// Like [`Tokens::retry_save`], but proceeds without the lock if it is not free: the save is a
    /// compare-and-swap, and the client is closing.
    fn retry_save_on_close(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        let _deferred = deferred_callbacks::defer();
        let _lock = self.records.lock(resource_id, &deadline.within(LOCK_WAIT)).ok();
        self.retry_save_locked(resource_id, true, deadline)
    }

    /// Like [`Tokens::retry_save`], for a caller that holds the lock. Unless `now`, only if the
    /// next attempt is due.
    fn retry_save_locked(&self, resource_id: &str, now: bool, deadline: &Deadline) -> Result<()> {
        let as_of = self.records.count();
        let publish = |record: &Record| self.publish(record, as_of);
        let confirm = |copy: &SavedCopy, saved| match copy.origin {
            Origin::Mint => self.confirm_mint(&copy.record, saved, deadline),
            _ => Ok(saved),
        };
        match self.records.retry_save(resource_id, now, confirm, deadline) {
            SaveRetry::Nothing => Ok(()),
            SaveRetry::Refused(error) => {
                log::error!("the token of {resource_id} is still in memory only: {error}");
                if let Some(record) = self.records.unsaved_copy(resource_id) {
                    publish(&record);
                }
                Err(error)
            }
            SaveRetry::Done(copy, Saved::Deleted) => {
                log::warn!(
                    "{resource_id}: the unsaved token was dropped because the resource was deleted"
                );
                self.cache.forget(resource_id);
                self.dropped(&copy.record, &copy.origin);
                Ok(())
            }
            SaveRetry::Done(copy, _) => {
                let record = &copy.record;
                publish(record);
                self.emit(&Event::Saved, resource_id, Some(record.token.expires_at));
                Ok(())
            }
        }
    }

    /// Deletes a record if `should_delete` agrees; see [`Records::delete`].
    fn delete_if(
        &self,
        resource_id: &str,
        time: impl Into<DeletionTime>,
        should_delete: impl Fn(&Record) -> bool,
        deadline: &Deadline,
    ) -> Result<Deletion> {
        // Wait only briefly for a running refresh: it cannot restore a deleted record.
        let lock = match self.records.lock(resource_id, &deadline.within(DELETION_LOCK_WAIT)) {
            Err(error) if error.status() == Status::Timeout => None,
            lock => Some(lock?),
        };
        let deletion = self
            .records
            .delete(resource_id, time, should_delete, deadline)
            .map_err(|error| error.with_resource(resource_id))?;
        drop(lock);
        if deletion == Deletion::Kept {
            // The newest copy may have been dropped: the next caller reads the store.
            self.cache.forget(resource_id);
        }
        if deletion == Deletion::Deleted
            || (deletion == Deletion::NotFound && self.cache.contains(resource_id))
        {
            self.forget_deleted(resource_id);
        }
        Ok(deletion)
    }

    fn forget_deleted(&self, resource_id: &str) {
        self.rejected_new_tokens.forget(resource_id);
        self.cooldowns.clear(resource_id);
        self.cache.forget(resource_id);
        self.emit(&Event::Deleted, resource_id, None);
    }

    /// Caches the token of a record, unless this process deleted the resource after the count
    /// `as_of`.
    fn publish(&self, record: &Record, as_of: u64) {
        loop {
            let changes = self.cache.changes(&record.resource_id);
            if self.records.was_deleted_since(&record.resource_id, as_of) {
                return self.cache.forget(&record.resource_id);
            }
            if self.publish_since(changes, record) {
                return;
            }
        }
    }

    /// Caches a token as valid but due, so the next caller reads the store. The entry keeps the
    /// token's expiry by the uptime, independent of later changes of the wall clock.
    fn publish_due(&self, record: &Record) {
        let (resource_id, company_id) = (&record.resource_id, record.token.company_id.as_deref());
        loop {
            let changes = self.cache.changes(resource_id);
            if self.records.was_deleted_since(resource_id, record.as_of) {
                return self.cache.forget(resource_id);
            }
            let (uptime, left) = (self.clock.uptime(), self.schedule.left(record, &self.cache));
            let due = CachedToken::new(
                record.token.access_token.clone(),
                company_id,
                uptime,
                uptime + left,
            );
            if self.cache.publish(resource_id, due, Some(changes)) {
                return;
            }
        }
    }

    /// Caches the token of a record, unless the cache has changed since `changes`; see
    /// [`TokenCache::publish`].
    fn publish_since(&self, changes: u64, record: &Record) -> bool {
        self.cache.publish(&record.resource_id, self.cache_entry(record), Some(changes))
    }

    /// Caches the token of a record if the resource is cached already. Otherwise the first caller
    /// finds it in the store.
    fn publish_if_cached(&self, record: &Record) {
        self.cache.replace(&record.resource_id, self.cache_entry(record));
    }

    /// The cache entry of a record. An unsaved token is fresh only until its next save attempt.
    fn cache_entry(&self, record: &Record) -> CachedToken {
        let (uptime, left) = (self.clock.uptime(), self.schedule.left(record, &self.cache));
        let mut fresh_until = uptime + left.saturating_sub(self.schedule.margin(&record.token));
        if let Some(next_save_at) = self.records.next_save_at(&record.resource_id) {
            fresh_until = fresh_until.min(next_save_at);
        }
        // The memory store shares this token: cloning it allocates no second string.
        let access_token = match Arc::strong_count(&record.token) {
            1 => record.token.access_token.compact(),
            _ => record.token.access_token.clone(),
        };
        let company_id = record.token.company_id.as_deref();
        CachedToken::new(access_token, company_id, fresh_until, uptime + left)
    }

    /// The error for a token that was dropped because its resource was deleted. A wrong clock can
    /// make a consent seem older than a deletion before it; then the user must consent again, and
    /// an event notifies the host.
    fn dropped(&self, record: &Record, origin: &Origin) -> Error {
        let resource_id = &record.resource_id;
        // The mint for an INSTALL has the origin of a consent as well, but it can be repeated.
        let is_consent = record.own_consent || record.token.kind() == UserType::Company;
        if !(is_consent && origin.is_consent()) {
            return deleted_meanwhile(resource_id);
        }
        log::error!(
            "{resource_id}: the token of a consent was dropped because a later deletion is recorded"
        );
        let error = Error::new(
            Status::ReauthorizationRequired,
            format!(
                "the token of {resource_id} was dropped because a deletion is dated after its \
                 consent"
            ),
        )
        .with_help(
            "synchronize the clocks of all hosts, then let the user consent again \
             (authorization_url)",
        )
        .with_resource(resource_id);
        self.emit(
            &Event::ReauthorizationRequired(error.clone(), None),
            resource_id,
            Some(record.token.expires_at),
        );
        error
    }

    fn emit(&self, event: &Event, resource_id: &str, expires_at: Option<i64>) {
        self.events.emit(event, resource_id, self.clock.wall_ms(), expires_at);
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn not_found(resource_id: &str) -> Error {
    Error::new(
        Status::NotFound,
        format!(
            "no token is held for {resource_id}, and no company token is available to mint one"
        ),
    )
    .with_help("let the user consent (authorization_url), or import a token")
    .with_resource(resource_id)
}

/// Whether a good token belongs to a grant that began after `spent` was issued to another resource.
fn is_of_later_grant(held: &Record, spent: &Token) -> bool {
    held.standing == Standing::Good
        && held.token.refresh_token.is_some()
        && !records::same_token(&held.token, spent)
        && spent.issued_at.is_none_or(|issued_at| issued_at < held.installed_at())
}

fn deleted_meanwhile(resource_id: &str) -> Error {
    Error::new(
        Status::NotFound,
        format!("{resource_id} was deleted while its token was being renewed"),
    )
    .with_help("let the user consent again (authorization_url), or import a token")
    .with_resource(resource_id)
}

fn unreadable(resource_id: &str) -> Value {
    serde_json::json!({"resourceId": resource_id, "state": "unreadable"})
}
