//! Bulk mint of location tokens: as fast as the rate limit allows, saved in batches, resumable.
//!
//! A mint spends nothing, so it needs no lock: two processes that mint for the same location both get a token that
//! works, and the store keeps one of them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::bulk::{PROGRESS_INTERVAL, Progress, failure, stopped, workers};
use super::{Origin, SAVE_TIME, Saved, Tokens, Want};
use crate::api::{InstalledLocationsParams, Pages, fails_every_mint, installed_location_ids, location_ids};
use crate::deadline::{Cancellation, Deadline};
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::random;
use crate::store::{Record, Standing};
use crate::token::valid_id;
use crate::worker_pool::{self, Received, Results};

/// How many mints are under way at once, unless the caller wishes otherwise: ten a second are allowed, and an answer
/// may take most of a second.
const DEFAULT_CONCURRENCY: i64 = 8;

/// The most tokens that are saved at once.
const BATCH: usize = 256;

/// So many failures in a row that are nobody's fault end the work: the network or the API is down.
const MAX_CONSECUTIVE_FAILURES: u32 = 25;

/// With fewer locations at hand than this, the next page of them is fetched: out of many, two processes seldom choose the
/// same.
const REFILL_BELOW: usize = 900;

/// The longest time that the work waits because the server wants to be left in peace.
const MAX_RATE_LIMIT_WAIT: Duration = Duration::from_secs(900);

/// Whose tokens are minted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MintParams {
    /// The company; required.
    pub company_id: String,
    /// These locations.
    pub location_ids: Option<Vec<String>>,
    /// Instead of a list: every location with the app. Default: false.
    #[serde(default)]
    pub installed: bool,
    /// The app, with `installed`. Default: the part of the client id before its first `-`.
    pub app_id: Option<String>,
    /// Mint for locations whose token is not due, too. Default: false.
    #[serde(default)]
    pub force: bool,
    /// How many requests are under way at once, 1 to 64. Default: 8.
    pub concurrency: Option<i64>,
}

/// What became of one location.
enum MintOutcome {
    /// Its token is not due.
    Fresh,
    /// A new token, not saved yet.
    Minted(Box<Record>),
    Failed(String, Error),
}

impl Tokens {
    /// Mints for every location that has no token, or one that is due. One failure does not stop the rest.
    ///
    /// `deadline` gives each request its own time; the work as a whole ends when all is done or cancelled.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, naming the parameter; `CANCELLED`, also when `progress` ends it; what is wrong with the
    /// company's token; `STORE` when the tokens cannot be saved; and what the network or the API say when they fail
    /// again and again. What was minted by then is saved.
    pub fn mint_all(
        &self,
        params: MintParams,
        progress: Progress,
        deadline: impl Fn() -> Deadline + Sync,
    ) -> Result<Value> {
        let workers = workers(params.concurrency, DEFAULT_CONCURRENCY)?;
        let queue = LocationQueue::new(&params)?;
        let of_list = params.installed;
        let job = MintJob {
            whole: deadline().ended_by(&queue.stopped),
            queue,
            company_id: params.company_id,
            force: params.force,
            deadline: &deadline,
        };
        let tally = worker_pool::run(
            workers,
            || self.mint_next(&job),
            |results| self.collect_results(&job, results, progress),
        )?;
        match job.queue.end() {
            Some(error) => Err(error),
            None => {
                if of_list && tally.total() == 0 {
                    log::warn!(
                        "{}: its list of installed locations is empty; right after a consent that can last for some \
                         seconds: ask again",
                        job.company_id
                    );
                }
                Ok(tally.report())
            }
        }
    }

    /// Mints for the next location; `None` when there is none, or nothing more can come of the work.
    fn mint_next(&self, job: &MintJob<impl Fn() -> Deadline>) -> Option<MintOutcome> {
        let list = |params: &InstalledLocationsParams| self.list_locations(params, &job.deadline());
        let error = match job.queue.next(list) {
            Ok(location_id) => {
                let location_id = location_id?;
                match self.mint_one(&location_id, job) {
                    Ok(outcome) => return Some(outcome),
                    Err(error) if !job.is_fatal(&error) => {
                        let error = error.with_resource(&location_id);
                        return Some(MintOutcome::Failed(location_id, error));
                    }
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        // At once: the other hands need not find out, too.
        job.queue.stop(error);
        None
    }

    fn mint_one(&self, location_id: &str, job: &MintJob<impl Fn() -> Deadline>) -> Result<MintOutcome> {
        let deadline = job.deadline();
        let held = match self.records.load(location_id, &deadline) {
            // Nothing can be read of it: a new token repairs it.
            Err(error) if error.is_unreadable() => {
                log::warn!("{location_id}: its record cannot be read, and is minted anew: {error}");
                None
            }
            held => held?,
        };
        if let Some(held) = &held {
            if !job.force
                && held.standing == Standing::Good
                && self.schedule.has_runway(held)
                && !self.schedule.left(held, &self.cache).is_zero()
            {
                return Ok(MintOutcome::Fresh);
            }
            // A location that consented by itself keeps an installation of its own.
            if !job.force && held.own_consent && held.standing == Standing::Good && held.is_refreshable() {
                return self.renewed(location_id, Want::Runway, None, &deadline).map(|_| MintOutcome::Fresh);
            }
            if matches!(held.standing, Standing::Inactive { .. })
                && let Some(error) = self.blocked_by_state(held, Want::Fresh, &deadline)
            {
                return Err(error);
            }
        }
        loop {
            let deadline = job.deadline();
            let minted = self.minted(location_id, &job.company_id, held.as_ref(), &deadline, &deadline);
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

    /// Takes in what the crew brings: saves it, tells of it, and counts.
    fn collect_results(
        &self,
        job: &MintJob<impl Fn() -> Deadline>,
        results: &Results<MintOutcome>,
        progress: Progress,
    ) -> Tally {
        let mut tally = Tally::new(job.whole.now());
        let mut reported_at = job.whole.now();
        let (mut over, mut should_continue) = (false, true);
        while !over {
            let mut batch = Vec::new();
            let mut timeout = PROGRESS_INTERVAL;
            while batch.len() < BATCH {
                match results.next(timeout) {
                    Received::Result(Ok(outcome)) => tally.count(outcome, &mut batch, &job.queue),
                    Received::Result(Err(defect)) => job.queue.stop(defect),
                    Received::Nothing => break,
                    Received::Closed => {
                        over = true;
                        break;
                    }
                }
                // Whatever else is there already goes along.
                timeout = Duration::ZERO;
            }
            if let Err(error) = self.save_and_publish_all(batch, &job.whole) {
                job.queue.stop(error);
            }
            if job.whole.is_cancelled() {
                job.queue.stop(stopped("the call was cancelled"));
            }
            if should_continue && (job.whole.now() - reported_at >= PROGRESS_INTERVAL || over) {
                reported_at = job.whole.now();
                should_continue = progress(&tally.progress(job.queue.total(), reported_at));
                if !should_continue {
                    job.queue.stop(stopped("the progress callback ended the work"));
                }
            }
        }
        tally
    }

    /// Saves new tokens at the price of one.
    fn save_and_publish_all(&self, mut records: Vec<Record>, deadline: &Deadline) -> Result<()> {
        let save_deadline = deadline.at_least(SAVE_TIME);
        let mut changes = Vec::with_capacity(records.len());
        for record in &mut records {
            record.renew_at = self.schedule.renewal(record);
            changes.push(self.cache.changes(&record.resource_id));
        }
        let mut failed = None;
        let saved = self.records.store().save_all(&records, &save_deadline);
        for ((mut record, saved), changes) in records.into_iter().zip(saved).zip(changes) {
            let is_first = record.version == 0;
            let saved = match saved {
                Ok(version) => {
                    record.version = version;
                    match is_first {
                        true => self
                            .records
                            .confirm_first(&mut record, &Origin::Mint, &save_deadline)
                            .and_then(|saved| self.confirm_mint(&record, saved, &save_deadline)),
                        false => Ok(Saved::Ours),
                    }
                }
                Err(error) if error.status() == Status::Conflict => {
                    self.records.save(&mut record, &Origin::Mint, &save_deadline)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = &saved {
                failed = Some(error.clone());
            }
            match saved {
                Ok(Saved::Ours | Saved::Theirs) => {
                    self.records.forget_older(&record, &Origin::Mint);
                    self.cooldowns.clear(&record.resource_id);
                    self.publish_if_cached(&record);
                    self.emit(&Event::Minted, &record.resource_id, Some(record.token.expires_at));
                }
                // In memory goes what is nowhere else. What was deleted meanwhile is dropped: it cost nothing.
                saved => drop(self.publish_saved(&record, Origin::Mint, saved, &Event::Minted, changes)),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// What all the hands work on.
struct MintJob<'a, D> {
    queue: LocationQueue,
    company_id: String,
    force: bool,
    /// Of this only the cancellation counts.
    whole: Deadline,
    deadline: &'a D,
}

impl<D: Fn() -> Deadline> MintJob<'_, D> {
    /// The patience for one request.
    fn deadline(&self) -> Deadline {
        (self.deadline)().ended_by(&self.queue.stopped)
    }

    /// Whether an error says nothing about the location, and the next one would meet it as well: one about the company's
    /// token, or a refusal of every mint. Each further try could burn another token of the company.
    fn is_fatal(&self, error: &Error) -> bool {
        error.resource_id() == Some(&self.company_id)
            || fails_every_mint(error)
            || error.status() == Status::Cancelled
    }
}

/// The locations that are still to be looked at.
struct LocationQueue {
    state: Mutex<QueueState>,
    /// Where the list of installed locations goes on. Held by whoever fetches the next page.
    pages: Mutex<Option<Pages>>,
    /// Raised with the end: whoever waits for a place in the pace must not wait on.
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
                return Err(Error::invalid_argument("installed", "give locationIds or installed, not both"));
            }
            Some(_) if params.app_id.is_some() => {
                return Err(Error::invalid_argument("appId", "appId goes with installed"));
            }
            Some(location_ids) => {
                for (index, location_id) in location_ids.iter().enumerate() {
                    valid_id(&format!("locationIds[{index}]"), location_id)?;
                }
                let each_once: HashSet<&String> = location_ids.iter().collect();
                state.total = Some(each_once.len() as u64);
                state.location_ids = each_once.into_iter().cloned().collect();
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
        Ok(LocationQueue { state: Mutex::new(state), pages: Mutex::new(pages), stopped: Arc::default() })
    }

    /// The next location. Where few are left, the next page of them is fetched first, by one while the others go on.
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
            // Somebody else is fetching: what comes of it is waited for.
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

    /// Gives out no more, and wakes whoever waits; the first reason counts.
    fn stop(&self, error: Error) {
        self.state().end.get_or_insert(error);
        self.stopped.raise();
    }

    /// Why it was stopped, if it was.
    fn end(&self) -> Option<Error> {
        self.state().end.clone()
    }

    /// How many locations there are, where that is known.
    fn total(&self) -> Option<u64> {
        self.state().total
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// The next location, `Some(None)` when the work was ended, `None` when nothing is left for now.
    ///
    /// In no order: processes that do the same work at the same time seldom meet at the same location.
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

/// What has come of the work so far.
struct Tally {
    began: Duration,
    minted: u64,
    fresh: u64,
    failed: Vec<Value>,
    in_a_row: u32,
}

impl Tally {
    fn new(now: Duration) -> Tally {
        Tally { began: now, minted: 0, fresh: 0, failed: Vec::new(), in_a_row: 0 }
    }

    fn count(&mut self, outcome: MintOutcome, batch: &mut Vec<Record>, queue: &LocationQueue) {
        match outcome {
            MintOutcome::Fresh => self.fresh += 1,
            MintOutcome::Minted(record) => {
                self.minted += 1;
                self.in_a_row = 0;
                batch.push(*record);
            }
            MintOutcome::Failed(location_id, error) => {
                let nobodys_fault =
                    [Status::Network, Status::Timeout, Status::Server, Status::Protocol, Status::Store];
                // A firewall's page says nothing about the location.
                let is_page = error.api().is_some_and(|fault| !fault.is_of_api);
                let counts = is_page || nobodys_fault.contains(&error.status());
                self.in_a_row = if counts { self.in_a_row + 1 } else { 0 };
                self.failed.push(failure("locationId", &location_id, &error));
                if self.in_a_row >= MAX_CONSECUTIVE_FAILURES {
                    queue.stop(error.with_help(
                        "it failed again and again; what was minted is saved: call again for the rest",
                    ));
                }
            }
        }
    }

    fn progress(&self, total: Option<u64>, now: Duration) -> Value {
        let (done, failed) = (self.minted + self.fresh, self.failed.len() as u64);
        // What was fresh already took no time, and says nothing about the rest.
        let per_second = (self.minted + failed) as f64 / (now - self.began).as_secs_f64().max(0.001);
        let left = total.map(|total| total.saturating_sub(done + failed));
        let seconds_left = left.filter(|left| *left == 0 || per_second > 0.0).map(|left| match left {
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
        json!({"total": self.total(), "minted": self.minted, "fresh": self.fresh, "failed": self.failed})
    }
}
