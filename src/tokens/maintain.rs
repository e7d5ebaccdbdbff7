//! Maintenance: one pass of proactive refresh over the tokens that are due, run by the host's
//! scheduler.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::bulk::{self, PROGRESS_INTERVAL, Progress, failure, stopped, workers};
use super::installation::InstallationEvents;
use super::records::Records;
use super::schedule::MAX_RENEWAL_AHEAD_MS;
use super::token_cache::TokenCache;
use super::writer::TokenWriter;
use super::{Tokens, Want};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::random;
use crate::signal::Signal;
use crate::store::{DuePage, Resealed};
use crate::token::valid_id;
use crate::worker_pool::{self, Received};

/// Due records per page.
const PAGE: usize = 100;

/// A renewal with an unknown outcome is retried at this interval: twice within the 30-second replay
/// window. The next pass may come too late.
const RETRY_AFTER: Duration = Duration::from_secs(8);

/// A retry is scheduled only if it starts within this time after the first attempt.
const RETRY_BEFORE: Duration = Duration::from_secs(25);

/// Options of a maintenance pass.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[deny(missing_docs)]
pub struct MaintainParams {
    /// Only this company and its locations. Default: all.
    pub company_id: Option<String>,
    /// Concurrent renewals, 1 to 64. Default: 1, on the caller's thread.
    pub concurrency: Option<i64>,
}

/// A queue of due resources, filled one page at a time.
struct DueQueue<'a> {
    tokens: &'a Tokens,
    company_id: Option<&'a str>,
    /// Makes the deadline of one store access.
    deadline: &'a (dyn Fn() -> Deadline + Sync),
    now_ms: i64,
    state: Mutex<QueueState>,
    /// Notified after each attempt to load a page.
    page_loaded: Signal,
}

/// The range of renewal times of a page.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Range {
    /// Renewal times up to now.
    #[default]
    Due,
    /// Renewal times so far ahead that a wrong clock may have computed them: each record is
    /// checked.
    TooFar,
}

/// The rest of the current page, and the position of the next one.
#[derive(Default)]
struct QueueState {
    resource_ids: std::vec::IntoIter<String>,
    range: Range,
    after: Option<String>,
    /// Resources that are being renewed. A saved intent makes a resource due again, so it may also
    /// be on a later page.
    under_way: HashSet<String>,
    /// Renewals with an unknown outcome, in the order of their retries.
    unresolved: VecDeque<Unresolved>,
    /// Whether a worker is loading the next page. It does not hold the lock meanwhile.
    is_loading: bool,
}

/// A renewal with an unknown outcome. Times are uptimes.
struct Unresolved {
    resource_id: String,
    began: Duration,
    failed: Duration,
    error: Error,
}

enum NextStep {
    /// Renew this resource; its first attempt was at this uptime.
    Renew(String, Duration),
    /// Report this failure: the pass ends before the next retry.
    GiveUp(String, Error),
}

/// The results of a pass so far.
struct Pass<'a> {
    checked: u64,
    refreshed: u64,
    failed: Vec<Value>,
    whole: Deadline,
    progress: Progress<'a>,
}

/// The resources that maintenance is renewing and that were not cached, and whether a caller has
/// asked for them meanwhile.
#[derive(Default)]
pub struct Maintained(Mutex<HashMap<String, bool>>);

impl Maintained {
    /// Called by each caller of a resource.
    pub fn ask_for(&self, resource_id: &str) {
        if let Some(is_asked_for) = self.resources().get_mut(resource_id) {
            *is_asked_for = true;
        }
    }

    fn begin(&self, resource_id: &str) {
        self.resources().entry(resource_id.to_owned()).or_default();
    }

    /// Returns whether a caller has asked for the resource.
    fn end(&self, resource_id: &str) -> bool {
        self.resources().remove(resource_id).unwrap_or(true)
    }

    fn resources(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A maintenance pass.
pub struct Maintenance<'a> {
    tokens: &'a Tokens,
    records: &'a Records,
    cache: &'a TokenCache,
    writer: &'a TokenWriter,
    clock: &'a dyn Clock,
}

impl<'a> Maintenance<'a> {
    pub fn of(tokens: &'a Tokens) -> Maintenance<'a> {
        Maintenance {
            tokens,
            records: &tokens.records,
            cache: &tokens.cache,
            writer: &tokens.writer,
            clock: tokens.clock.as_ref(),
        }
    }

    /// Renews every token that has less than its runway left, including refreshes with an unknown
    /// outcome. Also retries the save of unsaved copies, mints for pending INSTALLs, and reseals
    /// records that are not sealed with the first key. One failure does not stop the rest.
    ///
    /// `deadline` limits each renewal; the whole pass has no time limit unless its caller sets one,
    /// but can be cancelled.
    pub fn run(
        &self,
        params: &MaintainParams,
        progress: Progress,
        deadline: impl Fn() -> Deadline + Sync,
    ) -> Result<Value> {
        let workers = workers(params.concurrency, 1)?;
        let company_id = params.company_id.as_deref();
        if let Some(company_id) = company_id {
            valid_id("companyId", company_id)?;
        }
        let mut pass = Pass::new(deadline(), progress);
        for resource_id in self.records.unsaved_ids() {
            bulk::check(&pass.whole)?;
            if let Err(error) = self.writer.retry_save(&resource_id, &deadline()) {
                pass.failed.push(failure("resourceId", &resource_id, &error));
            }
        }
        let whole = pass.whole.clone();
        let due = DueQueue::new(self.tokens, company_id, &deadline)?;
        self.renew_all(&due, workers, (&whole, &deadline), |id, outcome| pass.count(id, outcome))?;
        InstallationEvents::of(self.tokens).mint_all_pending(
            company_id,
            &deadline,
            |id, outcome| pass.count(id, outcome).map(|()| true),
        )?;
        let resealed = if company_id.is_none() { self.reseal(&pass)? } else { Resealed::default() };
        for error in &resealed.failures {
            pass.failed.push(
                json!({"resourceId": error.resource_id(), "error": error.to_json()["error"]}),
            );
        }
        let next_due_at = self
            .records
            .store()
            .next_renewal(company_id, &deadline())?
            .filter(|at| *at != i64::MAX);
        Ok(json!({
            "checked": pass.checked,
            "refreshed": pass.refreshed,
            "resealed": resealed.sealed,
            "unsealed": resealed.left,
            "failed": pass.failed,
            "nextDueAt": next_due_at,
        }))
    }

    /// Renews the queued tokens with up to `workers` workers, and passes each outcome to `see`.
    fn renew_all(
        &self,
        due: &DueQueue,
        workers: usize,
        (whole, deadline): (&Deadline, &(impl Fn() -> Deadline + Sync)),
        mut see: impl FnMut(&str, Result<()>) -> Result<()>,
    ) -> Result<()> {
        let workers = workers.min(due.queued_count());
        if workers <= 1 {
            while let Some((id, outcome)) = self.renew_next(due, whole, deadline)? {
                see(&id, outcome)?;
            }
            return Ok(());
        }
        worker_pool::run(
            workers,
            || self.renew_next(due, whole, deadline).transpose(),
            |results| {
                loop {
                    match results.next(PROGRESS_INTERVAL) {
                        Received::Result(result) => {
                            let (id, outcome) = result??;
                            see(&id, outcome)?;
                        }
                        Received::Nothing => {}
                        Received::Closed => return Ok(()),
                    }
                }
            },
        )?
    }

    /// Renews the next token and returns its outcome; `None` if none is left.
    fn renew_next(
        &self,
        due: &DueQueue,
        whole: &Deadline,
        deadline: &impl Fn() -> Deadline,
    ) -> Result<Option<(String, Result<()>)>> {
        while let Some(step) = due.next(whole)? {
            let (id, outcome) = match step {
                NextStep::GiveUp(id, error) => (id, Err(error)),
                NextStep::Renew(id, began) => match self.renew_due(&id, &deadline()) {
                    Err(error)
                        if self.clock.uptime().saturating_sub(began) + RETRY_AFTER
                            < RETRY_BEFORE
                            && whole.check_call().is_ok()
                            && self.records.has_unknown_outcome(&id, &deadline()) =>
                    {
                        due.retry_later(id, began, error);
                        continue;
                    }
                    outcome => (id, outcome),
                },
            };
            due.done(&id);
            return Ok(Some((id, outcome)));
        }
        Ok(None)
    }

    /// Reseals records that are not sealed with the first key. Reports progress after every 100.
    fn reseal(&self, pass: &Pass) -> Result<Resealed> {
        let (reported, ended) = (Cell::new(0), RefCell::new(None));
        let resealed = self.records.store().reseal(&pass.whole, &|sealed| {
            if sealed >= reported.get() + 100 {
                reported.set(sealed);
                *ended.borrow_mut() = pass.report_progress(sealed).err();
            } else {
                *ended.borrow_mut() = bulk::check(&pass.whole).err();
            }
            ended.borrow().is_none()
        })?;
        ended.into_inner().map_or(Ok(resealed), Err)
    }

    fn renew_due(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        let was_held = self.cache.contains(resource_id);
        if !was_held {
            self.tokens.maintained.begin(resource_id);
            // A caller that began before this pass has not seen the entry.
            let has_caller = [Want::Fresh, Want::Another, Want::Now]
                .iter()
                .any(|&want| self.tokens.flights.is_open(&(resource_id.to_owned(), want)));
            if has_caller {
                self.tokens.maintained.ask_for(resource_id);
            }
        }
        let renewed = self.tokens.renewed(resource_id, Want::Runway, None, deadline);
        let is_asked_for = !was_held && self.tokens.maintained.end(resource_id);
        // Maintenance must not fill the cache with tokens that no caller has asked for.
        if !was_held && !is_asked_for && !self.records.is_unsaved(resource_id) {
            self.cache.forget(resource_id);
        }
        renewed.map(drop)
    }
}

impl<'a> DueQueue<'a> {
    /// Creates the queue for one company or all, and loads the first page.
    fn new(
        tokens: &'a Tokens,
        company_id: Option<&'a str>,
        deadline: &'a (dyn Fn() -> Deadline + Sync),
    ) -> Result<DueQueue<'a>> {
        let now_ms = tokens.clock.wall_ms();
        let due = DueQueue {
            tokens,
            company_id,
            deadline,
            now_ms,
            state: Mutex::default(),
            page_loaded: Signal::new(),
        };
        let page = due.page(Range::Due, None)?;
        due.state().set_page(page);
        Ok(due)
    }

    /// The next step. When the queue is empty, a worker loads the next page while the others are
    /// still busy, so a slow renewal does not delay the rest.
    fn next(&self, whole: &Deadline) -> Result<Option<NextStep>> {
        loop {
            let seen = self.page_loaded.count();
            let mut state = self.state();
            if let Some(step) = state.next_queued(self.tokens.clock.uptime()) {
                return Ok(Some(step));
            }
            if state.is_loading {
                drop(state);
                if whole.check_call().is_err() {
                    return Ok(None);
                }
                whole.renewed(PROGRESS_INTERVAL).wait(&self.page_loaded, seen);
                continue;
            }
            if let Some((range, after)) = state.next_page() {
                state.is_loading = true;
                drop(state);
                let _load = PageLoad(self);
                let page = self.page(range, after.as_deref())?;
                self.state().set_page(page);
                continue;
            }
            // Retry unknown outcomes only while other renewals are running.
            if state.unresolved.is_empty()
                || state.unresolved.len() == state.under_way.len()
                || whole.check_call().is_err()
            {
                let given_up = state.unresolved.pop_front();
                return Ok(given_up
                    .map(|unresolved| NextStep::GiveUp(unresolved.resource_id, unresolved.error)));
            }
            drop(state);
            // The next iteration checks for cancellation.
            let _ = whole.renewed(2 * PROGRESS_INTERVAL).sleep(PROGRESS_INTERVAL);
        }
    }

    /// Schedules a retry of a renewal with an unknown outcome.
    fn retry_later(&self, resource_id: String, began: Duration, error: Error) {
        let failed = self.tokens.clock.uptime();
        self.state().unresolved.push_back(Unresolved { resource_id, began, failed, error });
    }

    /// Marks a resource as finished.
    fn done(&self, resource_id: &str) {
        self.state().under_way.remove(resource_id);
    }

    /// The number of queued resources, or `usize::MAX` if there are more pages.
    fn queued_count(&self) -> usize {
        let state = self.state();
        if state.after.is_some() { usize::MAX } else { state.resource_ids.len() }
    }

    fn page(&self, range: Range, after: Option<&str>) -> Result<DuePage> {
        let deadline = (self.deadline)();
        let renewals = match range {
            Range::Due => i64::MIN..=self.now_ms,
            Range::TooFar => self.now_ms.saturating_add(MAX_RENEWAL_AHEAD_MS)..=i64::MAX - 1,
        };
        let store = self.tokens.records.store();
        let mut page = store.due(self.company_id, &renewals, after, PAGE, &deadline)?;
        if range == Range::TooFar {
            // Most of these are long-lived tokens, which are not due. An unreadable record cannot
            // be renewed, so it is skipped.
            let is_due = |id: &String| {
                let record = self.tokens.records.load(id, &deadline).ok().flatten();
                record.is_some_and(|record| !self.tokens.schedule.has_runway(&record))
            };
            page.resource_ids.retain(is_due);
        }
        Ok(page)
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guard for loading a page. Dropping it wakes the workers that wait for the page.
struct PageLoad<'a>(&'a DueQueue<'a>);

impl Drop for PageLoad<'_> {
    fn drop(&mut self) {
        self.0.state().is_loading = false;
        self.0.page_loaded.notify();
    }
}

impl QueueState {
    /// The next retry if it is due, otherwise the next resource of the page.
    fn next_queued(&mut self, now: Duration) -> Option<NextStep> {
        if self.unresolved.front().is_some_and(|unresolved| now >= unresolved.failed + RETRY_AFTER)
            && let Some(again) = self.unresolved.pop_front()
        {
            return Some(NextStep::Renew(again.resource_id, again.began));
        }
        let resource_id = self.resource_ids.next()?;
        self.under_way.insert(resource_id.clone());
        Some(NextStep::Renew(resource_id, now))
    }

    /// The position of the next page. Taken out, so a failed load is not repeated.
    fn next_page(&mut self) -> Option<(Range, Option<String>)> {
        match (self.after.take(), self.range) {
            (Some(after), range) => Some((range, Some(after))),
            (None, Range::Due) => {
                self.range = Range::TooFar;
                Some((Range::TooFar, None))
            }
            (None, Range::TooFar) => None,
        }
    }

    fn set_page(&mut self, page: DuePage) {
        let mut resource_ids = page.resource_ids;
        resource_ids.retain(|id| !self.under_way.contains(id));
        // Start at a random position: concurrent processes then mostly find each other's renewals
        // finished, instead of waiting for them.
        let begin = random::up_to(resource_ids.len().saturating_sub(1) as u64);
        resource_ids.rotate_left(usize::try_from(begin).unwrap_or(0));
        (self.resource_ids, self.after) = (resource_ids.into_iter(), page.next);
    }
}

impl<'a> Pass<'a> {
    fn new(whole: Deadline, progress: Progress<'a>) -> Pass<'a> {
        Pass { checked: 0, refreshed: 0, failed: Vec::new(), whole, progress }
    }

    fn count(&mut self, resource_id: &str, outcome: Result<()>) -> Result<()> {
        self.checked += 1;
        match outcome {
            Ok(()) => self.refreshed += 1,
            Err(error) => self.failed.push(failure(
                "resourceId",
                resource_id,
                &error.with_resource(resource_id),
            )),
        }
        self.report_progress(0)
    }

    /// Reports progress; returns an error if the pass should stop.
    fn report_progress(&self, resealed: u64) -> Result<()> {
        let so_far = json!({
            "checked": self.checked,
            "refreshed": self.refreshed,
            "resealed": resealed,
            "failed": self.failed.len(),
        });
        if !(self.progress)(&so_far) {
            return Err(stopped());
        }
        // The callback may have cancelled the call.
        bulk::check(&self.whole)
    }
}
