//! The token manager: a live access token for a company or location, whatever happened to the last one.
//!
//! [`Tokens::access_token`] is the promise. A token that is fresh in memory is handed out at once. Else one
//! caller per resource takes the store's lock, reads the store again, renews what is still due, saves it,
//! and only then hands it out; the others wait for that one.

mod bulk;
mod doubt;
mod flight;
mod held_id;
mod id_hash;
mod installation;
mod live;
mod maintain;
mod mint;
mod read_mostly;
mod refresh;
mod transfer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::digest::{Digest, SHA256, digest};
use serde_json::{Map, Value};

use crate::api::{
    Api, Failure, InstalledLocationsParams, LocationTokenParams, location_ids, says_dead_token,
};
use crate::clock::Clock;
use crate::config::Refresh;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::event::{Event, Events};
use crate::outbox;
use crate::secret::Secret;
use crate::store::{Page, Query, Record, Standing, Store};
use crate::token::{Token, UserType, valid_id};

pub use bulk::Progress;
use flight::{Flights, Seat};
pub use installation::{REMEMBERED_MS, Verdict};
use live::LiveTokens;
pub use maintain::MaintainParams;
pub use mint::MintParams;
pub use transfer::{ImportParams, ListParams};

/// How long an unsaved token waits for its resource's lock before it is offered at another time.
const MOMENT: Duration = Duration::from_secs(1);

/// The tokens of one app.
pub struct Tokens {
    api: Arc<Api>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    events: Arc<Events>,
    policy: Refresh,
    live: LiveTokens,
    flights: Flights<(String, Want), Result<Secret>>,
    /// New tokens that the store did not take; nothing else holds them.
    unsaved: Mutex<HashMap<String, Record>>,
    /// Digests of access tokens that the API called dead although they were new.
    refused_new: Mutex<HashMap<String, Digest>>,
    /// The companies of locations that were seen in lists.
    companies: Mutex<HashMap<String, String>>,
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
            store,
            clock,
            events,
            policy,
            live: LiveTokens::new(),
            flights: Flights::new(),
            unsaved: Mutex::default(),
            refused_new: Mutex::default(),
            companies: Mutex::default(),
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
        self.live.with_fresh(resource_id, self.clock.uptime(), take)
    }

    /// Refreshes, or mints, now, whatever the clock says.
    ///
    /// # Errors
    /// As [`Tokens::access_token`]; an old token that still lives does not hide a failure here.
    pub fn refresh(&self, resource_id: &str, deadline: &Deadline) -> Result<Value> {
        valid_id("resource_id", resource_id)?;
        let named = |error: Error| error.with_resource(resource_id);
        let known = self.record(resource_id)?.map(|record| record.token.access_token.clone());
        self.renewed(resource_id, Want::Another, known.as_ref(), deadline).map_err(named)?;
        self.metadata(resource_id)?.ok_or_else(|| not_held(resource_id))
    }

    /// Deletes a token here; the API does not learn of it.
    ///
    /// # Errors
    /// `NOT_FOUND`, `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn delete(&self, resource_id: &str, deadline: &Deadline) -> Result<Value> {
        valid_id("resource_id", resource_id)?;
        let _quiet = outbox::hold();
        let lock =
            self.store.lock(resource_id, deadline).map_err(|error| error.with_resource(resource_id))?;
        let metadata = self.metadata(resource_id)?.ok_or_else(|| not_held(resource_id))?;
        self.remove(resource_id, lock)?;
        Ok(metadata)
    }

    /// Takes over a token that a person's consent gave.
    ///
    /// # Errors
    /// `PROTOCOL` when the answer does not say whose token it is. A store that fails does not lose the token: it
    /// is held in memory, and its state is `unsaved`.
    pub fn adopt(&self, token: Token, deadline: &Deadline) -> Result<Value> {
        let owner = token.resource_id().filter(|id| valid_id("resourceId", id).is_ok()).map(str::to_owned);
        let Some(resource_id) = owner else {
            return Err(Error::new(
                Status::Protocol,
                "the API granted a token without saying for which company or location",
            )
            .with_help("let the user consent again, and report this to the vendor with the trace id"));
        };
        let _quiet = outbox::hold();
        // The code is spent: whatever happens to the lock, the token must be kept.
        let lock = self.store.lock(&resource_id, deadline);
        let kind = token.kind();
        let mut record = Record::new(resource_id.clone(), token);
        record.version = self.store.load(&resource_id).ok().flatten().map_or(0, |stored| stored.version);
        self.keep(record.clone(), &Event::Saved);
        drop(lock);
        if kind == UserType::Company {
            self.mint_the_waiting(&resource_id, deadline);
        }
        Ok(self.describe(&record))
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
            self.remember_locations(company_id, &page);
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
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// How many new tokens the store did not take yet.
    pub fn unsaved_count(&self) -> usize {
        self.unsaved().len()
    }

    /// Makes a call with a company's token; one that the API calls dead is refreshed, once.
    fn with_bearer<T>(
        &self,
        company_id: &str,
        given: Option<&Secret>,
        deadline: &Deadline,
        call: impl Fn(&Secret) -> Result<T, Failure>,
    ) -> Result<T> {
        if let Some(bearer) = given {
            return Ok(call(bearer)?);
        }
        // A company's token comes from a consent or an import; only a location's can be minted.
        if !self.holds_company(company_id)? {
            return Err(Error::new(
                Status::NotFound,
                format!("no token is held for the company {company_id}"),
            )
            .with_help("let an administrator of the company consent (authorization_url), or import its token")
            .with_resource(company_id));
        }
        let is_dead = |outcome: &Result<T, Failure>| {
            outcome.as_ref().is_err_and(|failure| says_dead_token(&failure.error))
        };
        let outcome = self
            .with_live_token(company_id, deadline, &call, is_dead)
            .map_err(|error| error.with_resource(company_id))?;
        Ok(outcome?)
    }

    fn holds_company(&self, company_id: &str) -> Result<bool> {
        Ok(self.record(company_id)?.is_some_and(|record| record.token.kind() == UserType::Company))
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
        let bearer = self.access_token(resource_id, || deadline.clone())?;
        let outcome = call(&bearer);
        if !is_dead(&outcome) || self.was_refused_new(resource_id, &bearer) {
            return Ok(outcome);
        }
        let renewed = self.renewed(resource_id, Want::Another, Some(&bearer), deadline)?;
        let outcome = call(&renewed);
        if is_dead(&outcome) {
            self.refused_new().insert(resource_id.to_owned(), digest_of(&renewed));
        }
        Ok(outcome)
    }

    fn was_refused_new(&self, resource_id: &str, token: &Secret) -> bool {
        self.refused_new()
            .get(resource_id)
            .is_some_and(|refused| refused.as_ref() == digest_of(token).as_ref())
    }

    fn refused_new(&self) -> std::sync::MutexGuard<'_, HashMap<String, Digest>> {
        self.refused_new.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A renewed token: one flight for all who want the same.
    fn renewed(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadline: &Deadline,
    ) -> Result<Secret> {
        loop {
            let _quiet = outbox::hold();
            match self.flights.board((resource_id.to_owned(), want)) {
                Seat::Leader(leader) => {
                    let result = self.renew(resource_id, want, known, deadline);
                    leader.land(result.clone());
                    return result;
                }
                Seat::Passenger(flight) => match flight.wait(deadline)? {
                    // The leader left for reasons of its own, or brought what this caller knows already.
                    None => {}
                    Some(Err(error)) if matches!(error.status(), Status::Cancelled | Status::Timeout) => {}
                    Some(Ok(token)) if known.is_some_and(|known| known.matches(token.expose())) => {}
                    Some(result) => return result,
                },
            }
            deadline.check()?;
        }
    }

    /// The newest record: one that the store did not take yet, else the stored one.
    fn record(&self, resource_id: &str) -> Result<Option<Record>> {
        let unsaved = self.unsaved().get(resource_id).cloned();
        unsaved.map_or_else(|| self.store.load(resource_id), |record| Ok(Some(record)))
    }

    /// A page of the store's records, with those that it did not take in the place of older ones.
    fn records(&self, query: &Query) -> Result<Page> {
        let Page { mut records, next } = self.store.list(query)?;
        let unsaved = self.unsaved();
        if !unsaved.is_empty() {
            let is_on_page = |id: &str| {
                query.after.as_deref().is_none_or(|after| id > after)
                    && next.as_deref().is_none_or(|last| id <= last)
            };
            records.retain(|record| !unsaved.contains_key(&record.resource_id));
            let newer =
                unsaved.values().filter(|record| is_on_page(&record.resource_id) && query.matches(record));
            records.extend(newer.cloned());
            records.sort_by(|a, b| a.resource_id.cmp(&b.resource_id));
        }
        let page = Page::cut(records, query.limit);
        Ok(Page { next: page.next.or(next), ..page })
    }

    fn metadata(&self, resource_id: &str) -> Result<Option<Value>> {
        Ok(self.record(resource_id)?.map(|record| self.describe(&record)))
    }

    /// A record's metadata, with what only this process knows.
    fn describe(&self, record: &Record) -> Value {
        match self.unsaved().get(&record.resource_id) {
            Some(unsaved) => {
                let mut metadata = unsaved.metadata();
                metadata["state"] = "unsaved".into();
                metadata
            }
            None => record.metadata(),
        }
    }

    /// Saves a new token, then publishes it, and answers with the access token. It is published, too, when the store
    /// does not take it: then this process is all that holds it, and offers it again at every later chance.
    fn keep(&self, mut record: Record, event: &Event) -> Secret {
        let saved = self.save_newest(&mut record);
        self.kept(record, saved, event)
    }

    /// Publishes a new token after the attempt to save it.
    fn kept(&self, record: Record, saved: Result<()>, event: &Event) -> Secret {
        let (resource_id, expires_at) = (record.resource_id.clone(), record.token.expires_at);
        let access_token = record.token.access_token.clone();
        // The record first: whoever reads it without the lock notices a token that is published after that.
        match saved {
            Ok(()) => {
                self.unsaved().remove(&resource_id);
                self.publish(&record);
                self.emit(event, &resource_id, Some(expires_at));
            }
            Err(error) => {
                log::error!("the new token of {resource_id} is in memory only: {error}");
                self.unsaved().insert(resource_id.clone(), record.clone());
                self.publish(&record);
                self.emit(&Event::Unsaved(error), &resource_id, Some(expires_at));
            }
        }
        access_token
    }

    /// Saves a record with a new token. A conflict means that somebody wrote without the lock, or while this token
    /// was in memory only: then the token that lives longer wins, and `record` becomes the one that is stored.
    fn save_newest(&self, record: &mut Record) -> Result<()> {
        record.renew_at = self.renewal(record);
        for _ in 0..3 {
            match self.store.save(record) {
                Err(error) if error.status() == Status::Conflict => {
                    match self.store.load(&record.resource_id)? {
                        Some(stored)
                            if stored.standing == Standing::Good
                                && stored.token.expires_at > record.token.expires_at =>
                        {
                            *record = stored;
                            return Ok(());
                        }
                        stored => record.version = stored.map_or(0, |stored| stored.version),
                    }
                }
                saved => {
                    record.version = saved?;
                    return Ok(());
                }
            }
        }
        Err(Error::new(Status::Store, "the store's record changes faster than it can be saved")
            .with_resource(&record.resource_id))
    }

    /// Offers a resource's unsaved token, if there is one, to the store again, under the resource's lock: nobody deletes or
    /// replaces it meanwhile.
    fn offer_again(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        if !self.unsaved().contains_key(resource_id) {
            return Ok(());
        }
        let _quiet = outbox::hold();
        let moment = MOMENT.min(deadline.remaining());
        match self.store.lock(resource_id, &deadline.renewed(moment)) {
            Ok(_lock) => self.offer_locked(resource_id),
            // Whoever has it for longer renews the token, and here that begins with an offer.
            Err(error) if error.status() == Status::Timeout => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The same, for who has the lock.
    fn offer_locked(&self, resource_id: &str) -> Result<()> {
        let Some(mut record) = self.unsaved().get(resource_id).cloned() else { return Ok(()) };
        let offered = Arc::clone(&record.token);
        if let Err(error) = self.save_newest(&mut record) {
            log::error!("the token of {resource_id} is still in memory only: {error}");
            return Err(error);
        }
        let mut unsaved = self.unsaved();
        // A mint takes no lock: a newer one may have come meanwhile.
        if unsaved.get(resource_id).is_some_and(|held| Arc::ptr_eq(&held.token, &offered)) {
            unsaved.remove(resource_id);
            drop(unsaved);
            self.publish(&record);
            self.emit(&Event::Saved, resource_id, Some(record.token.expires_at));
        }
        Ok(())
    }

    fn unsaved_ids(&self) -> Vec<String> {
        self.unsaved().keys().cloned().collect()
    }

    /// Holds the token of a record in memory.
    fn publish(&self, record: &Record) {
        self.publish_since(None, record);
    }

    /// The same, unless tokens came or went since `changes` was the number; see [`LiveTokens::publish`].
    fn publish_since(&self, changes: Option<u64>, record: &Record) -> bool {
        let (access_token, fresh_until, dies_at) = self.to_hold(record);
        self.live.publish(&record.resource_id, access_token, fresh_until, dies_at, changes)
    }

    /// Holds the token of a record in memory if another one is held there already. Tokens that nobody has asked for yet
    /// are better off in the store: there the first who asks finds his.
    fn publish_where_held(&self, record: &Record) {
        let (access_token, fresh_until, dies_at) = self.to_hold(record);
        self.live.replace(&record.resource_id, access_token, fresh_until, dies_at);
    }

    /// What is held of a record: its access token, until when it is fresh, and when it dies, by the uptime.
    fn to_hold(&self, record: &Record) -> (Secret, Duration, Duration) {
        let (uptime, left) = (self.clock.uptime(), record.token.left(self.clock.wall_ms()));
        let fresh_until = uptime + left.saturating_sub(record.token.margin(self.policy.margin()));
        // Where the store is in memory it has this token as well, and the text is there once.
        let access_token = match Arc::strong_count(&record.token) {
            1 => record.token.access_token.to_hold(),
            _ => record.token.access_token.clone(),
        };
        (access_token, fresh_until, uptime + left)
    }

    /// The company whose token can mint for a location: the one that is known, else the only one held.
    fn company_of(&self, location_id: &str, record: Option<&Record>) -> Result<String> {
        let known = record.and_then(|record| record.token.company_id.clone());
        let seen = || self.companies.lock().unwrap_or_else(PoisonError::into_inner).get(location_id).cloned();
        if let Some(company_id) = known.or_else(seen) {
            return Ok(company_id);
        }
        if let Some(company_id) = self.installed_under(location_id)? {
            return Ok(company_id);
        }
        let query = Query { user_type: Some(UserType::Company), limit: 2, ..Query::default() };
        let mut companies = self.records(&query)?.records;
        match (companies.pop(), companies.is_empty()) {
            (Some(only), true) => Ok(only.resource_id),
            (None, _) => Err(not_held(location_id)),
            (Some(_), false) => {
                let message =
                    format!("no token is held for {location_id}, and several companies could mint one");
                Err(Error::new(Status::NotFound, message)
                    .with_help("list the company's installed locations first, or import the token with its companyId")
                    .with_resource(location_id))
            }
        }
    }

    fn remember_locations(&self, company_id: &str, page: &Map<String, Value>) {
        let mut companies = self.companies.lock().unwrap_or_else(PoisonError::into_inner);
        for location_id in location_ids(page) {
            companies.insert(location_id.to_owned(), company_id.to_owned());
        }
    }

    fn emit(&self, event: &Event, resource_id: &str, expires_at: Option<i64>) {
        self.events.emit(event, resource_id, self.clock.wall_ms(), expires_at);
    }

    fn unsaved(&self) -> std::sync::MutexGuard<'_, HashMap<String, Record>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is kept of a token that must not be kept itself.
fn digest_of(token: &Secret) -> Digest {
    digest(&SHA256, token.expose().as_bytes())
}

fn not_held(resource_id: &str) -> Error {
    Error::new(
        Status::NotFound,
        format!("no token is held for {resource_id}, and no company's token to mint one with"),
    )
    .with_help("let the user consent (authorization_url), or import a token")
    .with_resource(resource_id)
}

/// How long an old token is held on to after so many failures in a row.
fn hold(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6))
}
