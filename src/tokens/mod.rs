//! The token manager: returns a valid access token for a company or location, and refreshes or
//! mints one when necessary.
//!
//! A token that is fresh in the cache is returned at once. Otherwise one caller per resource
//! (single flight) renews it under the store's lock, saves it, and only then publishes it.
//! Meanwhile the other callers get the old token if it is still valid, and wait for the new one if
//! it is not.

mod adoption;
mod bearer;
mod bulk;
mod company;
mod cooldown;
mod failures;
mod flight;
mod id_hash;
mod installation;
mod installation_state;
mod maintain;
mod mint;
mod published;
mod records;
mod refresh;
mod refresh_retry;
mod rejected_tokens;
mod reports;
mod rotation_hint;
mod schedule;
mod spent;
mod striped_lock;
mod summary;
mod token_cache;
mod transfer;
mod unsaved_failures;
mod writer;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::api::Api;
use crate::clock::Clock;
use crate::config::Refresh;
use crate::deadline::Deadline;
use crate::deferred_callbacks;
use crate::error::{Error, Result, Status};
use crate::event::Events;
use crate::secret::Secret;
use crate::store::{Record, Store};
use crate::token::{Token, UserType, valid_id};

pub use adoption::{AdoptParams, Adoption};
pub use bulk::Progress;
use company::Companies;
use cooldown::Cooldowns;
use failures::LastFailures;
use flight::{Flights, Role};
pub use installation::{InstallationEvents, WebhookOutcome};
pub use installation_state::DELIVERY_RETENTION_MS;
use installation_state::Installations;
use maintain::Maintained;
pub use maintain::{MaintainParams, Maintenance};
pub use mint::{BulkMint, MintParams};
use published::PublishedTokens;
use records::{Deletion, Records};
use rejected_tokens::RejectedTokens;
pub use reports::Counters;
use reports::Reports;
use rotation_hint::RotationHint;
use schedule::Schedule;
pub use summary::Summary;
use token_cache::TokenCache;
pub use transfer::{ImportParams, ListParams, ListedState, Transfer};
use writer::TokenWriter;

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
    schedule: Arc<Schedule>,
    records: Arc<Records>,
    installations: Arc<Installations>,
    cache: Arc<TokenCache>,
    /// The tokens that the cache serves.
    pub published: Arc<PublishedTokens>,
    writer: Arc<TokenWriter>,
    failures: LastFailures,
    flights: Flights<(String, Want), Result<Secret>>,
    companies: Companies,
    cooldowns: Arc<Cooldowns>,
    maintained: Maintained,
    rejected: Arc<RejectedTokens>,
    /// A search for tokens of another client ID.
    pub rotation: RotationHint,
    reports: Arc<Reports>,
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
        let schedule = Arc::new(Schedule::new(Arc::clone(&clock), policy));
        let records = Arc::new(Records::new(Arc::clone(&store), Arc::clone(&clock)));
        let installations = Arc::new(Installations::new(store, Arc::clone(&clock)));
        let reports = Arc::new(Reports::new(events, Arc::clone(&clock)));
        let cache = Arc::new(TokenCache::new());
        let published = Arc::new(PublishedTokens {
            cache: Arc::clone(&cache),
            records: Arc::clone(&records),
            schedule: Arc::clone(&schedule),
            clock: Arc::clone(&clock),
        });
        let (cooldowns, rejected) = (Arc::default(), Arc::default());
        let writer = Arc::new(TokenWriter {
            records: Arc::clone(&records),
            installations: Arc::clone(&installations),
            cache: Arc::clone(&cache),
            published: Arc::clone(&published),
            schedule: Arc::clone(&schedule),
            cooldowns: Arc::clone(&cooldowns),
            rejected: Arc::clone(&rejected),
            reports: Arc::clone(&reports),
            clock: Arc::clone(&clock),
        });
        Tokens {
            api,
            clock,
            schedule,
            rotation: RotationHint { records: Arc::clone(&records), found: OnceLock::new() },
            records,
            installations,
            cache,
            published,
            failures: LastFailures { writer: Arc::clone(&writer) },
            writer,
            flights: Flights::new(),
            companies: Companies::default(),
            cooldowns,
            maintained: Maintained::default(),
            rejected,
            reports,
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

    /// Whether a list by this process shows a failure for a stored record, or a newer token, whose
    /// success has ended it.
    #[cfg(test)]
    pub fn knows_failure(&self, record: &crate::store::Record) -> bool {
        self.records.is_unsaved(&record.resource_id) || self.records.last_failure(record).is_some()
    }

    #[cfg(test)]
    pub fn holds_valid(&self, resource_id: &str) -> bool {
        self.cache.unexpired(resource_id, self.clock.uptime()).is_some()
    }

    /// Refreshes or mints a token now, whether it is due or not.
    pub fn refresh(&self, resource_id: &str, deadline: &Deadline) -> Result<Value> {
        valid_id("resource_id", resource_id)?;
        let named = |error: Error| error.with_resource(resource_id);
        let read = self.records.load(resource_id, deadline)?;
        let known = read.as_ref().map(|record| record.token.access_token.clone());
        let (_, saved) = self
            .renewed_with_waits(resource_id, Want::Now, known.as_ref(), read, (deadline, deadline))
            .map_err(named)?;
        if let Some(record) = saved {
            return Ok(self.records.describe(&record));
        }
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
        match self.writer.delete_if(resource_id, self.clock.wall_ms(), |_| true, deadline)? {
            Deletion::Deleted => Ok(metadata.unwrap_or_else(|| unreadable(resource_id))),
            Deletion::NotFound | Deletion::Kept => {
                let message = format!("no token is stored for {resource_id}; nothing was deleted");
                Err(Error::new(Status::NotFound, message)
                    .with_help("check the ID against the list of tokens")
                    .with_resource(resource_id))
            }
        }
    }

    /// Saves a token that was granted by a user's consent.
    pub fn save_consented(&self, token: Token, deadline: &Deadline) -> Result<Value> {
        let Some(resource_id) = token.resource_id().map(str::to_owned) else {
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
        let record = self.writer.save_for_owner(&resource_id, token, None, deadline);
        drop(lock);
        let record = record?;
        if kind == UserType::Company {
            // A consent may cure the refusals of its locations.
            self.cooldowns.clear_all();
            InstallationEvents::of(self).mint_pending(&resource_id, deadline);
        }
        Ok(self.records.describe(&record))
    }

    /// Retries the save of every unsaved copy until all are saved or the time is up.
    pub fn close(&self, deadline: &Deadline) {
        let deadline = deadline.at_least(CLOSE_TIMEOUT).within(CLOSE_TIMEOUT);
        loop {
            let refused = |id: &String| {
                self.writer
                    .retry_save_on_close(id, &deadline)
                    .err()
                    .map(|error| (id.clone(), error))
            };
            let left: Vec<(String, Error)> =
                self.records.unsaved_ids().iter().filter_map(refused).collect();
            if left.is_empty() {
                return;
            }
            if deadline.sleep(BRIEF_WAIT).is_err() {
                for (resource_id, error) in left {
                    log::error!(
                        "the newest token was never saved and is lost when the client closes{}",
                        error.fields(&resource_id)
                    );
                }
                return;
            }
        }
    }

    /// Wakes all waiting calls so that they check for cancellation.
    pub fn wake_all(&self) {
        self.flights.wake_all();
    }

    pub fn counters(&self) -> &Counters {
        &self.reports.counters
    }

    /// The number of cached access tokens.
    pub fn cached_count(&self) -> usize {
        self.cache.len()
    }

    /// The number of unsaved copies.
    pub fn unsaved_count(&self) -> usize {
        self.records.unsaved_count()
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
        let renewed = self.renewed_with_waits(resource_id, want, known, None, (deadline, deadline));
        renewed.map(|(token, _)| token)
    }

    /// Like [`Tokens::renewed`], but waits for other callers, locks and the store only until
    /// `waits`. `read` is the record if the caller has just read it. Also returns the record that a
    /// refresh by this caller has saved.
    fn renewed_with_waits(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        mut read: Option<Record>,
        (deadline, waits): (&Deadline, &Deadline),
    ) -> Result<(Secret, Option<Record>)> {
        if want != Want::Runway {
            self.maintained.ask_for(resource_id);
        }
        loop {
            let _deferred = deferred_callbacks::defer();
            match self.flights.join((resource_id.to_owned(), want)) {
                Role::Leader(leader) => {
                    let read = read.take();
                    let result = self.renew(resource_id, want, known, read, (deadline, waits));
                    leader.complete(match &result {
                        Ok((token, _)) => Ok(token.clone()),
                        Err(error) => Err(error.clone()),
                    });
                    return result;
                }
                Role::Follower(flight) => {
                    if let Some(least) = want.accepts_valid_for()
                        && let Some(valid) = self.published.valid(resource_id, least, deadline)
                    {
                        return Ok((valid, None));
                    }
                    read = None;
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
                        Some(result) => return result.map(|token| (token, None)),
                    }
                }
            }
            deadline.check()?;
        }
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

fn unreadable(resource_id: &str) -> Value {
    serde_json::json!({"resourceId": resource_id, "state": "unreadable"})
}
