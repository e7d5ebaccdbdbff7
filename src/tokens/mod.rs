//! The token manager: a live access token for a company or location, whatever happened to the last one.
//!
//! [`Tokens::access_token`] is the promise. A token that is fresh in memory is handed out at once. Otherwise one caller
//! per resource takes the store's lock, reads the store again, renews what is still due, saves it, and only then hands it
//! out. The other callers get the old token while it is valid, and wait for the new one if it is not.

mod adoption;
mod bulk;
mod company;
mod cooldown;
mod flight;
mod id_hash;
mod inline_id;
mod installation;
mod maintain;
mod mint;
mod records;
mod refresh;
mod refresh_retry;
mod schedule;
mod spent;
mod striped_lock;
mod token_cache;
mod transfer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ring::digest::{Digest, SHA256, digest};
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
pub use installation::{DELIVERY_RETENTION_MS, WebhookOutcome};
pub use maintain::MaintainParams;
pub use mint::MintParams;
use records::{Deletion, Keeping, Origin, Records, SaveRetry, Saved};
use schedule::Schedule;
use token_cache::{CachedToken, StaleReason, TokenCache};
pub use transfer::{ImportParams, ListParams};

/// How long a caller who has a valid token waits for a lock or for a store that is busy.
const BRIEF_WAIT: Duration = Duration::from_millis(100);

/// How long an unsaved token waits for its resource's lock before it is offered at another time.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// The time that a new token has to be saved, however little of the call's own time is left: its predecessor is spent.
const SAVE_TIME: Duration = Duration::from_secs(1);

/// How often a consent tries to read what is stored.
const READS: u32 = 3;

/// How long a deletion waits for a refresh of the same token.
const DELETION_LOCK_WAIT: Duration = Duration::from_secs(5);

/// How long unsaved tokens are offered when the client is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The tokens of one app.
pub struct Tokens {
    api: Arc<Api>,
    clock: Arc<dyn Clock>,
    events: Arc<Events>,
    schedule: Schedule,
    records: Records,
    cache: TokenCache,
    flights: Flights<(String, Want), Result<Secret>>,
    companies: Companies,
    cooldowns: Cooldowns,
    /// The resources that maintenance renews now and that no caller held, with whether a caller has asked meanwhile.
    maintained: Mutex<HashMap<String, bool>>,
    /// Digests of access tokens that the API called dead although they were new.
    rejected_new_tokens: Mutex<HashMap<String, Digest>>,
    /// Advice about another client id with tokens in the same database, once that was looked for.
    other_client: OnceLock<Option<String>>,
    counters: Counters,
}

/// How often something happened since the client was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Tokens refreshed.
    pub refreshed: AtomicU64,
    /// Location tokens minted.
    pub minted: AtomicU64,
    /// Refreshes and mints that failed.
    pub failed: AtomicU64,
}

/// What a caller needs of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Want {
    /// A token that is not due yet; an old one that still lives will do if the renewal fails.
    Fresh,
    /// Another token than the one that the caller knows.
    Another,
    /// The same, and the server is asked even while the resource is left alone.
    Now,
    /// A token with more than its runway left.
    Runway,
}

impl Tokens {
    /// The tokens that `store` keeps.
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
            records: Records::new(store, Arc::clone(&clock)),
            clock,
            events,
            cache: TokenCache::new(),
            flights: Flights::new(),
            companies: Companies::default(),
            cooldowns: Cooldowns::default(),
            maintained: Mutex::default(),
            rejected_new_tokens: Mutex::default(),
            other_client: OnceLock::new(),
            counters: Counters::default(),
        }
    }

    /// A live access token. The usual way: a look into memory.
    ///
    /// # Errors
    /// `NOT_FOUND`, `REAUTHORIZATION_REQUIRED`, `LOCATION_INACTIVE`, and what the API, the network or the store say
    /// when the old token is dead, too.
    pub fn access_token(&self, resource_id: &str, deadline: impl FnOnce() -> Deadline) -> Result<Secret> {
        match self.with_fresh(resource_id, Secret::clone) {
            Some(access_token) => Ok(access_token),
            None => {
                valid_id("resource_id", resource_id)?;
                self.renewed(resource_id, Want::Fresh, None, &deadline())
                    .map_err(|error| error.with_resource(resource_id))
            }
        }
    }

    /// Gives a token that is fresh in memory to `take`; no I/O, no wait, no allocation.
    pub fn with_fresh<T>(&self, resource_id: &str, take: impl FnOnce(&Secret) -> T) -> Option<T> {
        self.cache.with_fresh(resource_id, self.clock.uptime(), take)
    }

    /// Whether this process holds a valid token of a resource in memory.
    #[cfg(test)]
    pub fn holds_valid(&self, resource_id: &str) -> bool {
        self.cache.unexpired(resource_id, self.clock.uptime()).is_some()
    }

    /// Refreshes, or mints, now, whatever the clock says.
    ///
    /// # Errors
    /// As [`Tokens::access_token`]; an old token that is still valid does not hide a failure here.
    pub fn refresh(&self, resource_id: &str, deadline: &Deadline) -> Result<Value> {
        valid_id("resource_id", resource_id)?;
        let named = |error: Error| error.with_resource(resource_id);
        let known = self.records.load(resource_id, deadline)?.map(|record| record.token.access_token.clone());
        self.renewed(resource_id, Want::Now, known.as_ref(), deadline).map_err(named)?;
        self.metadata(resource_id, &deadline.at_least(SAVE_TIME))?.ok_or_else(|| not_found(resource_id))
    }

    /// Deletes a token here; the API does not learn of it. A record that cannot be read is deleted as well.
    ///
    /// # Errors
    /// `NOT_FOUND`, `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn delete(&self, resource_id: &str, deadline: &Deadline) -> Result<Value> {
        valid_id("resource_id", resource_id)?;
        let _deferred = deferred_callbacks::defer();
        let metadata = match self.metadata(resource_id, deadline) {
            Err(error) if error.is_unreadable() => Some(unreadable(resource_id)),
            metadata => metadata?,
        };
        match self.delete_if(resource_id, self.clock.wall_ms(), |_| true, deadline)? {
            Deletion::Deleted => Ok(metadata.unwrap_or_else(|| unreadable(resource_id))),
            Deletion::NotFound | Deletion::Kept => Err(not_found(resource_id)),
        }
    }

    /// Takes over a token that a person's consent gave.
    ///
    /// # Errors
    /// `PROTOCOL` when the answer does not say whose token it is. A store that fails does not lose the token: it
    /// is held in memory, and its state is `unsaved`.
    pub fn save_consented(&self, token: Token, deadline: &Deadline) -> Result<Value> {
        let owner = token.resource_id().filter(|id| valid_id("resourceId", id).is_ok()).map(str::to_owned);
        let Some(resource_id) = owner else {
            return Err(Error::new(
                Status::Protocol,
                "the API granted a token without saying for which company or location",
            )
            .with_help("let the user consent again, and report this to the vendor with the trace id"));
        };
        let _deferred = deferred_callbacks::defer();
        // The code is spent: whatever happens to the lock, the token must be kept.
        let lock = self.records.lock(&resource_id, deadline);
        let kind = token.kind();
        let record = self.save_for_owner(&resource_id, token, None, deadline);
        drop(lock);
        let record = record?;
        if kind == UserType::Company {
            self.mint_pending(&resource_id, deadline);
        }
        Ok(self.describe(&record))
    }

    /// Keeps a token under the owner that it names: a consent gave it, which begins an installation, or another owner's
    /// refresh, which `spent` the refresh token of this one.
    ///
    /// # Errors
    /// `NOT_FOUND` if the owner was deleted: only a consent brings it back.
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
        // A consent replaces what is stored: an unsaved copy may be older than that.
        let held = match is_consent {
            true => self.load_for_consent(resource_id, &save_deadline),
            false => self.records.load(resource_id, &save_deadline),
        };
        let unread = || Record { as_of, ..Record::new(resource_id.to_owned(), token.clone()) };
        let (record, origin) = match held {
            Ok(Some(held)) => {
                let origin = Origin::Consent(Some(Arc::clone(&held.token)));
                let installed_at = begins.or(held.installed_at);
                let token = Arc::new(token.clone());
                (Record { token, installed_at, standing: Standing::Good, intent: None, ..held }, origin)
            }
            Ok(None) => {
                match self.records.new_record(resource_id.to_owned(), token.clone(), &save_deadline) {
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
            // Only the row that holds the spent refresh token is replaced unread.
            Some(spent) if record.version == 0 => Origin::Refresh(Arc::clone(spent)),
            _ => origin,
        };
        let installed_at = record.installed_at.or(Some(self.clock.wall_ms()));
        let own_consent = record.token.kind() == UserType::Location && (is_consent || record.own_consent);
        let mut record = Record { installed_at, own_consent, ..record };
        // An answer without a refresh token leaves the old one in use.
        let is_used_up = record.token.refresh_token.is_some();
        if let Some(spent) = spent.and_then(|spent| spent.refresh_token.as_ref()).filter(|_| is_used_up) {
            record.spent.add(&SpentDigest::of(spent));
        }
        self.save_and_publish(&mut record, origin, &Event::Saved, deadline)?;
        Ok(record)
    }

    /// The stored record that a consent replaces. A store that fails is asked again: without an answer the consent is
    /// compared with what is stored by the clock.
    fn load_for_consent(&self, resource_id: &str, save_deadline: &Deadline) -> Result<Option<Record>> {
        let mut reads = 1;
        loop {
            match self.records.load_stored(resource_id, save_deadline) {
                Err(error) if error.status() == Status::Store && !error.is_unreadable() && reads < READS => {
                    reads += 1;
                    save_deadline.sleep(BRIEF_WAIT)?;
                }
                stored => return stored,
            }
        }
    }

    /// Forgets the token of a resource that this process has in memory: the next caller reads the store.
    pub fn invalidate(&self, resource_id: &str) {
        if !self.records.is_unsaved(resource_id) {
            self.cache.forget(resource_id);
        }
    }

    /// Offers every unsaved token to the store again and again, for the last time.
    pub fn close(&self, deadline: &Deadline) {
        let deadline = deadline.at_least(CLOSE_TIMEOUT).within(CLOSE_TIMEOUT);
        loop {
            let refused = |id: &String| {
                self.offer_for_the_last_time(id, &deadline).err().map(|error| (id.clone(), error))
            };
            let left: Vec<(String, Error)> = self.records.unsaved_ids().iter().filter_map(refused).collect();
            if left.is_empty() {
                return;
            }
            if deadline.sleep(BRIEF_WAIT).is_err() {
                for (resource_id, error) in left {
                    log::error!(
                        "{resource_id}: its newest token was never saved, and is lost with its client: {error}"
                    );
                }
                return;
            }
        }
    }

    /// The raw mint, with the company's token from here unless one is given. Stores nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an empty id; else as [`Tokens::access_token`].
    pub fn location_token(&self, params: &LocationTokenParams, deadline: &Deadline) -> Result<Token> {
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

    /// The list of a company's locations, with the company's token from here unless one is given.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a missing company or a page size out of range; else as [`Tokens::access_token`].
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

    /// The same list, and nothing is remembered of it.
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

    /// Wakes every waiting call, to see whether it was cancelled.
    pub fn wake_all(&self) {
        self.flights.wake_all();
    }

    /// What happened since the client was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many access tokens this process holds in memory.
    pub fn cached_count(&self) -> usize {
        self.cache.len()
    }

    /// How many new tokens the store did not take yet.
    pub fn unsaved_count(&self) -> usize {
        self.records.unsaved_count()
    }

    /// Makes a call with a company's token; one that the API calls dead is refreshed, once.
    fn with_bearer<T>(
        &self,
        company_id: &str,
        given: Option<&Secret>,
        deadline: &Deadline,
        call: impl Fn(&Secret) -> Result<T, Failure>,
    ) -> Result<T> {
        match given {
            Some(bearer) => Ok(call(bearer)?),
            None => self.with_company_bearer(company_id, deadline, deadline, call),
        }
    }

    /// The same with the token that is held. The store, other callers and locks are waited for until `waits`.
    fn with_company_bearer<T>(
        &self,
        company_id: &str,
        deadline: &Deadline,
        waits: &Deadline,
        call: impl Fn(&Secret) -> Result<T, Failure>,
    ) -> Result<T> {
        // A company's token comes from a consent or an import; only a location's can be minted.
        if !self.has_company(company_id, waits)? {
            return Err(Error::new(
                Status::NotFound,
                format!("no token is held for the company {company_id}"),
            )
            .with_help("let an administrator of the company consent (authorization_url), or import its token")
            .with_resource(company_id));
        }
        let is_dead = |outcome: &Result<T, Failure>| {
            outcome.as_ref().is_err_and(|failure| says_invalid_token(&failure.error))
        };
        let outcome = self
            .with_live_token_beside(company_id, deadline, waits, &call, is_dead)
            .map_err(|error| error.with_resource(company_id))?;
        Ok(outcome?)
    }

    fn has_company(&self, company_id: &str, deadline: &Deadline) -> Result<bool> {
        // Only a company's token mints: the one in memory was one when it was put there.
        let record = self.records.load(company_id, deadline)?;
        Ok(record.is_some_and(|record| record.token.kind() == UserType::Company))
    }

    /// Makes a call with a resource's token. Where the outcome says that it is dead, it is refreshed and the call repeated,
    /// once. A token that was refused although it was new is not refreshed again: that would burn one at each call.
    pub(crate) fn with_live_token<T>(
        &self,
        resource_id: &str,
        deadline: &Deadline,
        call: impl Fn(&Secret) -> T,
        is_dead: impl Fn(&T) -> bool,
    ) -> Result<T> {
        valid_id("resource_id", resource_id)?;
        self.with_live_token_beside(resource_id, deadline, deadline, call, is_dead)
    }

    fn with_live_token_beside<T>(
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
                .renewed_beside(resource_id, Want::Fresh, None, deadline, waits)
                .map_err(|error| error.with_resource(resource_id))?,
        };
        let outcome = call(&bearer);
        if !is_dead(&outcome) || self.was_rejected_new(resource_id, &bearer) {
            return Ok(outcome);
        }
        let renewed = self.renewed(resource_id, Want::Another, Some(&bearer), deadline)?;
        let outcome = call(&renewed);
        if is_dead(&outcome) {
            self.rejected_new_tokens().insert(resource_id.to_owned(), digest_of(&renewed));
        }
        Ok(outcome)
    }

    fn was_rejected_new(&self, resource_id: &str, token: &Secret) -> bool {
        self.rejected_new_tokens()
            .get(resource_id)
            .is_some_and(|refused| refused.as_ref() == digest_of(token).as_ref())
    }

    fn rejected_new_tokens(&self) -> MutexGuard<'_, HashMap<String, Digest>> {
        self.rejected_new_tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A renewed token: a single flight for all callers who want the same. A caller with a valid token waits for no flight.
    fn renewed(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadline: &Deadline,
    ) -> Result<Secret> {
        self.renewed_beside(resource_id, want, known, deadline, deadline)
    }

    /// The same, for a caller that waits for other callers, for locks and for the store until `others` only.
    fn renewed_beside(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadline: &Deadline,
        others: &Deadline,
    ) -> Result<Secret> {
        if want != Want::Runway
            && let Some(is_asked_for) = self.maintained().get_mut(resource_id)
        {
            *is_asked_for = true;
        }
        loop {
            let _deferred = deferred_callbacks::defer();
            match self.flights.join((resource_id.to_owned(), want)) {
                Role::Leader(leader) => {
                    let result = self.renew(resource_id, want, known, deadline, others);
                    leader.complete(result.clone());
                    return result;
                }
                Role::Follower(flight) => {
                    if want == Want::Fresh
                        && let Some(valid) = self.valid(resource_id, deadline)
                    {
                        return Ok(valid);
                    }
                    match flight.wait(others)? {
                        // The leader left for reasons of its own, or brought what this caller knows already.
                        None => {}
                        Some(Err(error)) if matches!(error.status(), Status::Cancelled | Status::Timeout) => {
                        }
                        Some(Ok(token)) if known.is_some_and(|known| known.matches(token.expose())) => {}
                        Some(result) => return result,
                    }
                }
            }
            deadline.check()?;
        }
    }

    fn maintained(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.maintained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that is valid now, be it due or not: from memory, else from the store.
    fn valid(&self, resource_id: &str, deadline: &Deadline) -> Option<Secret> {
        self.cache.unexpired(resource_id, self.clock.uptime()).or_else(|| {
            let changes = self.cache.changes(resource_id);
            let record = self.records.load(resource_id, &deadline.within(BRIEF_WAIT)).ok().flatten()?;
            let is_valid = !self.schedule.left(&record, &self.cache).is_zero();
            // It stays valid in memory, also if the store fails next.
            is_valid.then(|| {
                self.serve_stale(changes, &record, StaleReason::Due);
                record.token.access_token.clone()
            })
        })
    }

    fn metadata(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Value>> {
        Ok(self.records.load(resource_id, deadline)?.map(|record| self.describe(&record)))
    }

    /// A record's metadata, with what only this process knows.
    fn describe(&self, record: &Record) -> Value {
        match self.records.unsaved_copy(&record.resource_id) {
            Some(unsaved) => {
                let mut metadata = unsaved.metadata();
                metadata["state"] = "unsaved".into();
                metadata
            }
            None => record.metadata(),
        }
    }

    /// Saves a new token, then publishes it, and answers with the access token. It is published as well if the store
    /// refuses it: then this process is all that holds it, and offers it again with backoff.
    ///
    /// # Errors
    /// `NOT_FOUND` if the resource was deleted meanwhile.
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
        let mut saved = self.records.save(record, &origin, &save_deadline);
        if is_first_mint {
            saved = saved.and_then(|saved| self.confirm_mint(record, saved, &save_deadline));
        }
        self.publish_saved(record, origin, saved, event, changes)
    }

    /// Publishes a new token after the attempt to save it, unless it was deleted since `changes` was the number.
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
                // The record first: a caller who reads it without the lock notices a token that is published after that.
                match self.records.keep_unsaved(record.clone(), origin) {
                    Keeping::Kept => {}
                    Keeping::Deleted => {
                        self.cache.forget(resource_id);
                        return Err(deleted_meanwhile(resource_id));
                    }
                    Keeping::Newer => {
                        log::warn!("{resource_id}: a token of an earlier grant was not saved: {error}");
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

    /// Offers a resource's unsaved token to the store again, under the resource's lock.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`: it is still unsaved.
    fn retry_save(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        if !self.records.is_unsaved(resource_id) {
            return Ok(());
        }
        let _deferred = deferred_callbacks::defer();
        let _lock = self.records.lock(resource_id, &deadline.within(LOCK_WAIT))?;
        self.retry_save_locked(resource_id, true, deadline)
    }

    /// The same, without the lock if that cannot be had: a save is a compare-and-swap, and the client ends.
    fn offer_for_the_last_time(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        let _deferred = deferred_callbacks::defer();
        let _lock = self.records.lock(resource_id, &deadline.within(LOCK_WAIT)).ok();
        self.retry_save_locked(resource_id, true, deadline)
    }

    /// The same, for a caller that has the lock; if not `now`, only when its time has come.
    fn retry_save_locked(&self, resource_id: &str, now: bool, deadline: &Deadline) -> Result<()> {
        let as_of = self.records.count();
        let publish = |record: &Record| self.publish(record, as_of);
        match self.records.retry_save(resource_id, now, deadline) {
            SaveRetry::Nothing => Ok(()),
            SaveRetry::Refused(error) => {
                log::error!("the token of {resource_id} is still in memory only: {error}");
                if let Some(record) = self.records.unsaved_copy(resource_id) {
                    publish(&record);
                }
                Err(error)
            }
            SaveRetry::Done(copy, Saved::Deleted) => {
                log::warn!("{resource_id}: it was deleted, and its unsaved token is dropped");
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

    /// Deletes a token, unless it is one that stays: see [`Records::delete`].
    fn delete_if(
        &self,
        resource_id: &str,
        at_ms: i64,
        should_delete: impl Fn(&Record) -> bool,
        deadline: &Deadline,
    ) -> Result<Deletion> {
        // A refresh that is under way is waited for, but not for long: it cannot bring the token back.
        let lock = match self.records.lock(resource_id, &deadline.within(DELETION_LOCK_WAIT)) {
            Err(error) if error.status() == Status::Timeout => None,
            lock => Some(lock?),
        };
        let deletion = self
            .records
            .delete(resource_id, at_ms, should_delete, deadline)
            .map_err(|error| error.with_resource(resource_id))?;
        drop(lock);
        // Another process may have deleted the record: what this one has in memory ends with it.
        if deletion == Deletion::Kept {
            // A copy that is older than the row may have been dropped: the next caller reads the row.
            self.cache.forget(resource_id);
        }
        if deletion == Deletion::Deleted
            || (deletion == Deletion::NotFound && self.cache.contains(resource_id))
        {
            self.forget_deleted(resource_id);
        }
        Ok(deletion)
    }

    /// Forgets what this process knows of a token that was deleted.
    fn forget_deleted(&self, resource_id: &str) {
        self.rejected_new_tokens().remove(resource_id);
        self.cooldowns.clear(resource_id);
        self.cache.forget(resource_id);
        self.emit(&Event::Deleted, resource_id, None);
    }

    /// Holds the token of a record in memory, unless this process deleted the resource since the count was `as_of`.
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

    /// Holds a token for as long as it is valid, but due at once: a newer one may be stored, so the next caller reads the
    /// store. What is held tells for how long the token lives, whatever the wall clock says then.
    fn publish_due(&self, record: &Record) {
        let (resource_id, company_id) = (&record.resource_id, record.token.company_id.as_deref());
        loop {
            let changes = self.cache.changes(resource_id);
            if self.records.was_deleted_since(resource_id, record.as_of) {
                return self.cache.forget(resource_id);
            }
            let (uptime, left) = (self.clock.uptime(), self.schedule.left(record, &self.cache));
            let due = CachedToken::new(record.token.access_token.clone(), company_id, uptime, uptime + left);
            if self.cache.publish(resource_id, due, Some(changes)) {
                return;
            }
        }
    }

    /// Holds the token of a record in memory, unless tokens came or went since `changes` was the number; see
    /// [`TokenCache::publish`].
    fn publish_since(&self, changes: u64, record: &Record) -> bool {
        self.cache.publish(&record.resource_id, self.cache_entry(record), Some(changes))
    }

    /// Holds the token of a record in memory if an older token is held there already. Tokens that no caller has asked for are
    /// better off in the store: the first caller finds them there.
    fn publish_if_cached(&self, record: &Record) {
        self.cache.replace(&record.resource_id, self.cache_entry(record));
    }

    /// The entry in memory of a record: its access token, until when it is fresh, and when it dies, by the uptime. A token that
    /// is not saved is fresh until it is to be offered again.
    fn cache_entry(&self, record: &Record) -> CachedToken {
        let (uptime, left) = (self.clock.uptime(), self.schedule.left(record, &self.cache));
        let mut fresh_until = uptime + left.saturating_sub(self.schedule.margin(&record.token));
        if let Some(next_save_at) = self.records.next_save_at(&record.resource_id) {
            fresh_until = fresh_until.min(next_save_at);
        }
        // A store in memory has this token as well, and the text is there once.
        let access_token = match Arc::strong_count(&record.token) {
            1 => record.token.access_token.compact(),
            _ => record.token.access_token.clone(),
        };
        let company_id = record.token.company_id.as_deref();
        CachedToken::new(access_token, company_id, fresh_until, uptime + left)
    }

    /// The error for a token that is dropped since its resource was deleted. By a wrong clock, a consent that came after the
    /// deletion seems older. Then the user must consent again, and an event tells the host.
    fn dropped(&self, record: &Record, origin: &Origin) -> Error {
        let resource_id = &record.resource_id;
        // The token of an INSTALL has the origin of a consent as well, and is minted again.
        let is_consent = record.own_consent || record.token.kind() == UserType::Company;
        if !(is_consent && origin.is_consent()) {
            return deleted_meanwhile(resource_id);
        }
        log::error!(
            "{resource_id}: its new consent is dropped, since a deletion seems to have come after it"
        );
        let error = Error::new(
            Status::ReauthorizationRequired,
            format!("a deletion of {resource_id} seems to have come after its consent"),
        )
        .with_help("set the clocks of all hosts, and let the user consent again (authorization_url)")
        .with_resource(resource_id);
        self.emit(&Event::ReauthorizationRequired(error.clone()), resource_id, Some(record.token.expires_at));
        error
    }

    fn emit(&self, event: &Event, resource_id: &str, expires_at: Option<i64>) {
        self.events.emit(event, resource_id, self.clock.wall_ms(), expires_at);
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is kept of a token that must not be kept itself.
fn digest_of(token: &Secret) -> Digest {
    digest(&SHA256, token.expose().as_bytes())
}

fn not_found(resource_id: &str) -> Error {
    Error::new(
        Status::NotFound,
        format!("no token is held for {resource_id}, and no company's token to mint one with"),
    )
    .with_help("let the user consent (authorization_url), or import a token")
    .with_resource(resource_id)
}

fn deleted_meanwhile(resource_id: &str) -> Error {
    Error::new(Status::NotFound, format!("{resource_id} was deleted while its token was renewed"))
        .with_help("let the user consent again (authorization_url), or import a token")
        .with_resource(resource_id)
}

/// The metadata of a record that cannot be read.
fn unreadable(resource_id: &str) -> Value {
    serde_json::json!({"resourceId": resource_id, "state": "unreadable"})
}
