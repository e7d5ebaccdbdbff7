//! Bulk mint of location tokens with a worker pool: limited by the rate limiter, saved in batches
//! by the collecting thread, or one at a time by the only worker, resumable.
//!
//! A mint consumes no refresh token, so it needs no lock: two processes that mint for the same
//! location both get a valid token, and the store keeps one of them.

use std::collections::HashSet;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::bulk::{self, PROGRESS_INTERVAL, Progress, failure, stopped, workers};
use super::failures::LastFailures;
use super::published::PublishedTokens;
use super::records::Records;
use super::schedule::Schedule;
use super::writer::TokenWriter;
use super::{Tokens, Want};
use crate::api::{
    InstalledLocationsParams, Pages, fails_every_mint, installed_location_ids, location_ids,
};
use crate::deadline::{Cancellation, Deadline};
use crate::deferred_callbacks;
use crate::error::log_fields::about;
use crate::error::{Error, Result, Status};
use crate::random;
use crate::store::{Record, Standing};
use crate::token::valid_id;
use crate::worker_pool::{self, Received, Results};

/// Default number of concurrent mints: ten per second are allowed, and a response may take most of
/// a second.
const DEFAULT_CONCURRENCY: i64 = 8;

/// Maximum number of tokens per save.
const BATCH: usize = 256;

/// Stops the work after this many consecutive failures that are not specific to a location: the
/// network or the API is down.
const MAX_CONSECUTIVE_FAILURES: u32 = 25;

/// Fetches the next page when fewer locations than this are queued. Workers choose at random from
/// the queue, so that two processes rarely mint for the same location.
const REFILL_BELOW: usize = 900;

/// The longest wait for a rate limit before the work stops.
const MAX_RATE_LIMIT_WAIT: Duration = Duration::from_secs(900);

/// Selects the locations to mint for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[deny(missing_docs)]
pub struct MintParams {
    /// The company. Required.
    pub company_id: String,
    /// Mint for these locations.
    pub location_ids: Option<Vec<String>>,
    /// Mint for all locations with the app installed, instead of a list. Default: false.
    #[serde(default)]
    pub installed: bool,
    /// The app ID, with `installed`. Default: the part of the client ID before its first `-`.
    pub app_id: Option<String>,
    /// Mint even if the stored token is not due. Default: false.
    #[serde(default)]
    pub force: bool,
    /// Concurrent requests, 1 to 64. Default: 8.
    pub concurrency: Option<i64>,
}

enum MintOutcome {
    /// The stored token is not due.
    Fresh,
    /// A new token, not yet saved.
    Minted(Box<Record>),
    Failed(String, Error),
    /// Tokens that the only worker has saved and counted.
    Counted,
}

/// Mints the tokens of many locations.
pub struct BulkMint<'a> {
    tokens: &'a Tokens,
    records: &'a Records,
    published: &'a PublishedTokens,
    writer: &'a TokenWriter,
    failures: &'a LastFailures,
    schedule: &'a Schedule,
}

impl<'a> BulkMint<'a> {
    pub fn of(tokens: &'a Tokens) -> BulkMint<'a> {
        BulkMint {
            tokens,
            records: &tokens.records,
            published: &tokens.published,
            writer: &tokens.writer,
            failures: &tokens.failures,
            schedule: &tokens.schedule,
        }
    }

    /// Mints for every location whose token is missing or due. One failure does not stop the rest.
    ///
    /// `deadline` limits each request; the whole call has no time limit unless its caller sets one,
    /// but can be cancelled.
    pub fn run(
        &self,
        params: MintParams,
        progress: Progress,
        deadline: impl Fn() -> Deadline + Sync,
    ) -> Result<Value> {
        let workers = workers(params.concurrency, DEFAULT_CONCURRENCY)?;
        let queue = LocationQueue::new(&params)?;
        let lists_installed = params.installed;
        let job = MintJob {
            whole: deadline().ended_by(&queue.stopped),
            queue,
            earliest: self.tokens.installations.earliest_mint(&params.company_id, &deadline()),
            company_id: params.company_id,
            force: params.force,
            deadline: &deadline,
            tally: Mutex::default(),
        };
        let began = job.whole.now();
        worker_pool::run(
            workers,
            || if workers == 1 { self.mint_alone(&job) } else { self.mint_next(&job) },
            |results| self.collect_results(&job, results, (progress, began)),
        )?;
        let tally = mem::take(&mut *job.tally());
        match job.queue.end() {
            Some(error) => Err(error),
            None => {
                if lists_installed && tally.total() == 0 {
                    log::warn!(
                        "the list of installed locations is empty; it can lag some seconds behind \
                         a consent, so try again{}",
                        about(&job.company_id)
                    );
                }
                Ok(tally.report())
            }
        }
    }

    /// Mints for the next location; `None` if none is left or the work was stopped.
    fn mint_next(&self, job: &MintJob<impl Fn() -> Deadline>) -> Option<MintOutcome> {
        let list =
            |params: &InstalledLocationsParams| self.tokens.list_locations(params, &job.deadline());
        let error = match job.queue.next(list) {
            Ok(location_id) => {
                let location_id = location_id?;
                match self.mint_one(&location_id, job) {
                    Ok(outcome) => return Some(outcome),
                    // A mint that ended with the whole call says nothing about the location.
                    Err(error) if !job.is_fatal(&error) => {
                        self.failures.note_mint(&location_id, &error, &job.deadline());
                        let error = error.with_resource(&location_id);
                        return Some(MintOutcome::Failed(location_id, error));
                    }
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        // Stop the other workers before they fail in the same way.
        job.queue.stop(bulk::check(&job.whole).err().unwrap_or(error));
        None
    }

    /// The only worker saves and counts each token itself. A token that the collecting thread saves
    /// would interrupt the next request.
    fn mint_alone(&self, job: &MintJob<impl Fn() -> Deadline>) -> Option<MintOutcome> {
        let began = job.whole.now();
        // The callbacks of a worker run when it returns.
        while !deferred_callbacks::are_pending() && job.whole.now() - began < PROGRESS_INTERVAL {
            let outcome = self.mint_next(job)?;
            let mut batch = Vec::new();
            job.tally().count(outcome, &mut batch, &job.queue);
            self.save(batch, job);
        }
        Some(MintOutcome::Counted)
    }

    fn mint_one(
        &self,
        location_id: &str,
        job: &MintJob<impl Fn() -> Deadline>,
    ) -> Result<MintOutcome> {
        let deadline = job.deadline();
        let held = match self.records.load(location_id, &deadline) {
            // Replace an unreadable record with a new token.
            Err(error) if error.is_unreadable() => {
                log::warn!(
                    "a new token is minted, since the record cannot be read{}",
                    error.fields(location_id)
                );
                None
            }
            held => held?,
        };
        if let Some(held) = &held {
            if !job.force
                && held.standing == Standing::Good
                && self.schedule.has_runway(held)
                && !self.published.left(held).is_zero()
            {
                return Ok(MintOutcome::Fresh);
            }
            if matches!(held.standing, Standing::Inactive { .. })
                && let Some(error) = self.tokens.blocked_by_state(held, Want::Fresh, &deadline)
            {
                return Err(error);
            }
            // A location with its own consent is refreshed, so that it keeps its installation.
            if !job.force && held.own_consent && held.is_refreshable() {
                return self
                    .tokens
                    .renewed(location_id, Want::Runway, None, &deadline)
                    .map(|_| MintOutcome::Fresh);
            }
        }
        loop {
            let deadline = job.deadline();
            let minted = self.tokens.minted(
                location_id,
                (&job.company_id, job.earliest),
                held.as_ref(),
                &deadline,
                &deadline,
            );
            match minted {
                Err(error) if error.status() == Status::RateLimited => {
                    let rest = error.retry_after().unwrap_or(PROGRESS_INTERVAL);
                    if rest > MAX_RATE_LIMIT_WAIT {
                        return Err(error.with_resource(&job.company_id));
                    }
                    job.whole.renewed(rest + PROGRESS_INTERVAL).sleep(rest)?;
                }
                minted => return Ok(MintOutcome::Minted(Box::new(minted?))),
            }
        }
    }

    /// Saves, counts and reports the workers' results until they are done.
    fn collect_results(
        &self,
        job: &MintJob<impl Fn() -> Deadline>,
        results: &Results<MintOutcome>,
        (progress, began): (Progress, Duration),
    ) {
        let mut reported_at = began;
        let (mut over, mut should_continue) = (false, true);
        while !over {
            let mut batch = Vec::new();
            let mut timeout = PROGRESS_INTERVAL;
            while batch.len() < BATCH {
                match results.next(timeout) {
                    Received::Result(Ok(outcome)) => {
                        job.tally().count(outcome, &mut batch, &job.queue);
                    }
                    Received::Result(Err(defect)) => job.queue.stop(defect),
                    Received::Nothing => break,
                    Received::Closed => {
                        over = true;
                        break;
                    }
                }
                // Add further results only if they are ready.
                timeout = Duration::ZERO;
            }
            self.save(batch, job);
            if let Err(error) = bulk::check(&job.whole) {
                job.queue.stop(error);
            }
            if should_continue && (job.whole.now() - reported_at >= PROGRESS_INTERVAL || over) {
                reported_at = job.whole.now();
                let total = job.queue.total();
                let so_far = job.tally().progress(total, reported_at - began);
                should_continue = progress(&so_far);
                if !should_continue {
                    job.queue.stop(stopped());
                }
            }
        }
    }

    /// Saves and counts minted tokens. The work stops if the store fails.
    fn save(&self, batch: Vec<Record>, job: &MintJob<impl Fn() -> Deadline>) {
        let (minted, mut failed) = (batch.len(), Vec::new());
        let dropped = |location_id: &str, error: Error| {
            failed.push(failure("locationId", location_id, &error));
        };
        let saved = self.writer.save_and_publish_all(batch, dropped, &job.whole);
        job.tally().add(minted, failed);
        if let Err(error) = saved {
            job.queue.stop(error);
        }
    }
}

/// The state that the workers share.
struct MintJob<'a, D> {
    queue: LocationQueue,
    company_id: String,
    /// See [`super::installation_state::Installations::earliest_mint`].
    earliest: i64,
    force: bool,
    /// Used only for cancellation and the end of the whole call.
    whole: Deadline,
    deadline: &'a D,
    tally: Mutex<Tally>,
}

impl<D: Fn() -> Deadline> MintJob<'_, D> {
    fn deadline(&self) -> Deadline {
        (self.deadline)().ended_by(&self.queue.stopped)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an error would affect every location: an error of the company's token, or a refusal
    /// of all mints. Each further attempt could consume another refresh token of the company.
    fn is_fatal(&self, error: &Error) -> bool {
        error.resource_id() == Some(&self.company_id)
            || fails_every_mint(error)
            || self.whole.check_call().is_err()
    }
}

struct LocationQueue {
    state: Mutex<QueueState>,
    /// The next page of installed locations. Locked by the worker that fetches it.
    pages: Mutex<Option<Pages>>,
    /// Raised when the work stops, to end waits for the rate limiter.
    stopped: Arc<Cancellation>,
}

#[derive(Default)]
struct QueueState {
    location_ids: Vec<String>,
    total: Option<u64>,
    end: Option<Error>,
}

impl LocationQueue {
    fn new(params: &MintParams) -> Result<LocationQueue> {
        valid_id("companyId", &params.company_id)?;
        let (mut state, mut pages) = (QueueState::default(), None);
        match &params.location_ids {
            Some(_) if params.installed => {
                return Err(Error::invalid_argument(
                    "installed",
                    "both locationIds and \"installed\": true are given",
                ));
            }
            Some(_) if params.app_id.is_some() => {
                return Err(Error::invalid_argument("appId", "appId requires \"installed\": true"));
            }
            Some(location_ids) => {
                for (index, location_id) in location_ids.iter().enumerate() {
                    valid_id(&format!("locationIds[{index}]"), location_id)?;
                }
                // Each location once, in the caller's order.
                let mut seen = HashSet::new();
                let each_once = location_ids.iter().filter(|location_id| seen.insert(*location_id));
                state.location_ids = each_once.cloned().collect();
                state.total = Some(state.location_ids.len() as u64);
            }
            None if params.installed => {
                let list = InstalledLocationsParams {
                    company_id: Some(params.company_id.clone()),
                    app_id: params.app_id.clone(),
                    is_installed: Some(true),
                    ..InstalledLocationsParams::default()
                };
                list.validate()?;
                pages = Some(Pages::of(list));
            }
            None => {
                return Err(Error::invalid_argument(
                    "locationIds",
                    "neither locationIds nor \"installed\": true is given",
                ));
            }
        }
        Ok(LocationQueue {
            state: Mutex::new(state),
            pages: Mutex::new(pages),
            stopped: Arc::default(),
        })
    }

    /// Takes the next location. If few are queued, one worker fetches the next page while the
    /// others continue.
    fn next(
        &self,
        fetch: impl Fn(&InstalledLocationsParams) -> Result<Map<String, Value>>,
    ) -> Result<Option<String>> {
        loop {
            if self.state().location_ids.len() < REFILL_BELOW
                && let Ok(page_lock) = self.pages.try_lock()
            {
                self.fetch_page(page_lock, &fetch)?;
            }
            if let Some(next) = self.state().take() {
                return Ok(next);
            }
            // Wait for the worker that fetches the next page.
            let page_lock = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            if page_lock.is_none() {
                return Ok(self.state().take().flatten());
            }
        }
    }

    fn fetch_page(
        &self,
        mut page_lock: MutexGuard<'_, Option<Pages>>,
        fetch: impl Fn(&InstalledLocationsParams) -> Result<Map<String, Value>>,
    ) -> Result<()> {
        let Some(mut pages) = page_lock.take() else { return Ok(()) };
        let page = fetch(pages.params())?;
        {
            let mut state = self.state();
            let before = state.location_ids.len();
            state.location_ids.extend(installed_location_ids(&page).map(str::to_owned));
            let passed_over = location_ids(&page).count() - (state.location_ids.len() - before);
            state.total = state.total.or_else(|| total_of(&page));
            state.total = state.total.map(|total| total.saturating_sub(passed_over as u64));
        }
        if pages.advance(&page)? {
            *page_lock = Some(pages);
        }
        Ok(())
    }

    /// Stops the work and wakes waiting workers. Only the first error is kept.
    fn stop(&self, error: Error) {
        self.state().end.get_or_insert(error);
        self.stopped.raise();
    }

    /// The error that stopped the work, if any.
    fn end(&self) -> Option<Error> {
        self.state().end.clone()
    }

    /// The number of locations, if known.
    fn total(&self) -> Option<u64> {
        self.state().total
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Takes a random location, so that processes with the same work rarely choose the same one.
    /// `Some(None)` if the work was stopped; `None` if the queue is empty.
    fn take(&mut self) -> Option<Option<String>> {
        if self.end.is_some() {
            return Some(None);
        }
        let last = self.location_ids.len().checked_sub(1)?;
        let any = usize::try_from(random::up_to(last as u64)).unwrap_or(last);
        Some(Some(self.location_ids.swap_remove(any)))
    }
}

fn total_of(page: &Map<String, Value>) -> Option<u64> {
    let total = page.get("pagination")?.get("totalRecords")?;
    total.as_u64().or_else(|| total.as_str()?.parse().ok())
}

/// The results so far.
#[derive(Default)]
struct Tally {
    minted: u64,
    fresh: u64,
    failed: Vec<Value>,
    in_a_row: u32,
}

impl Tally {
    /// Counts an outcome, or adds a minted token to the batch that is counted when it is saved.
    fn count(&mut self, outcome: MintOutcome, batch: &mut Vec<Record>, queue: &LocationQueue) {
        match outcome {
            MintOutcome::Counted => {}
            MintOutcome::Fresh => self.fresh += 1,
            MintOutcome::Minted(record) => {
                self.in_a_row = 0;
                batch.push(*record);
            }
            MintOutcome::Failed(location_id, error) => {
                let general = [
                    Status::Network,
                    Status::Timeout,
                    Status::Server,
                    Status::Protocol,
                    Status::Store,
                ];
                // A proxy's error page says nothing about the location.
                let is_page = error.api().is_some_and(|fault| !fault.is_of_api);
                let counts = is_page || general.contains(&error.status());
                self.in_a_row = if counts { self.in_a_row + 1 } else { 0 };
                self.failed.push(failure("locationId", &location_id, &error));
                if self.in_a_row >= MAX_CONSECUTIVE_FAILURES {
                    queue.stop(error.with_help(
                        "call again later for the rest; the tokens minted so far are saved",
                    ));
                }
            }
        }
    }

    /// Adds the tokens of a saved batch, of which `failed` were dropped.
    fn add(&mut self, minted: usize, failed: Vec<Value>) {
        self.minted += minted.saturating_sub(failed.len()) as u64;
        self.failed.extend(failed);
    }

    fn progress(&self, total: Option<u64>, took: Duration) -> Value {
        let (done, failed) = (self.minted + self.fresh, self.failed.len() as u64);
        // Fresh tokens took no time: exclude them from the rate.
        let per_second = (self.minted + failed) as f64 / took.as_secs_f64().max(0.001);
        let left = total.map(|total| total.saturating_sub(done + failed));
        let seconds_left =
            left.filter(|left| *left == 0 || per_second > 0.0).map(|left| match left {
                0 => 0,
                left => (left as f64 / per_second).ceil() as u64,
            });
        json!({
            "done": done,
            "failed": failed,
            "total": total,
            "perSecond": (per_second * 10.0).round() / 10.0,
            "secondsLeft": seconds_left,
        })
    }

    fn total(&self) -> u64 {
        self.minted + self.fresh + self.failed.len() as u64
    }

    fn report(self) -> Value {
        json!({
            "total": self.total(), "minted": self.minted, "fresh": self.fresh,
            "failed": self.failed,
        })
    }
}
