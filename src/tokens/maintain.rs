//! Maintenance: one pass of proactive refresh over the tokens that are due, for the host's
//! scheduler.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::bulk::{PROGRESS_INTERVAL, Progress, failure, stopped, workers};
use super::schedule::MAX_RENEWAL_AHEAD_MS;
use super::{Tokens, Want};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::random;
use crate::signal::Signal;
use crate::store::{DuePage, Resealed};
use crate::token::valid_id;
use crate::worker_pool::{self, Received};

/// How many due records are looked up at a time.
const PAGE: usize = 100;

/// When a renewal whose end is unknown is tried again by a pass that is still at work then: twice within the 30 seconds
/// in which the server gives the same answer. The next pass may come too late for that.
const RETRY_AFTER: Duration = Duration::from_secs(8);
const RETRY_BEFORE: Duration = Duration::from_secs(25);

/// What is maintained.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaintainParams {
    /// Only this company and its locations. Default: all.
    pub company_id: Option<String>,
    /// How many tokens are renewed at once, 1 to 64. Default: 1, on the thread of the call.
    pub concurrency: Option<i64>,
}

/// What is due, a page at a time, for whoever has time for the next.
struct DueQueue<'a> {
    tokens: &'a Tokens,
    company_id: Option<&'a str>,
    /// The time of one look at the store.
    deadline: &'a (dyn Fn() -> Deadline + Sync),
    now_ms: i64,
    state: Mutex<QueueState>,
    /// Notified when a page came, or could not be had.
    turned: Signal,
}

/// Which renewals a page holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Range {
    /// Renewals whose time has come.
    #[default]
    Due,
    /// Those so far in the future that a wrong clock may have computed them: each is looked at.
    TooFar,
}

/// What is left of a page, and where the next one begins, if there is one.
#[derive(Default)]
struct QueueState {
    resource_ids: std::vec::IntoIter<String>,
    range: Range,
    after: Option<String>,
    /// Those at work. One that has just written down its intent is due again, and stands on a later page.
    under_way: HashSet<String>,
    /// Those whose end is unknown, in the order in which their next attempt comes.
    unresolved: VecDeque<Unresolved>,
    /// Whether a worker looks up the next page, without the lock.
    is_turning: bool,
}

/// A renewal whose end is unknown. The times are uptimes.
struct Unresolved {
    resource_id: String,
    began: Duration,
    failed: Duration,
    error: Error,
}

/// What is next.
enum NextStep {
    /// To renew, for the first time at that uptime.
    Renew(String, Duration),
    /// Nothing more: one that failed, and that the pass does not last long enough to try again.
    GiveUp(String, Error),
}

/// What a pass did so far.
struct Pass<'a> {
    checked: u64,
    refreshed: u64,
    failed: Vec<Value>,
    whole: Deadline,
    progress: Progress<'a>,
}

impl Tokens {
    /// Renews every token of which less than the runway is left, takes up refreshes whose end is unknown, offers to the
    /// store what it did not take, mints for the locations whose INSTALL came when that could not be done, and seals anew
    /// what another key than the first sealed, or none. One failure does not stop the rest.
    ///
    /// `deadline` gives each renewal its own time; the pass as a whole ends when all is done or cancelled.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, naming the parameter; `CANCELLED`, also when `progress` ends it; `STORE` when the store cannot be
    /// read. What was renewed by then is saved.
    pub fn maintain(
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
            if pass.whole.is_cancelled() {
                return Err(stopped("the call was cancelled"));
            }
            if let Err(error) = self.retry_save(&resource_id, &deadline()) {
                pass.failed.push(failure("resourceId", &resource_id, &error));
            }
        }
        let whole = pass.whole.clone();
        let due = DueQueue::new(self, company_id, &deadline)?;
        self.renew_all(&due, workers, (&whole, &deadline), |id, outcome| pass.count(id, outcome))?;
        self.mint_remembered(company_id, &deadline, |id, outcome| pass.count(id, outcome).map(|()| true))?;
        let resealed = if company_id.is_none() { self.reseal(&pass)? } else { Resealed::default() };
        for error in &resealed.failures {
            pass.failed.push(json!({"resourceId": error.resource_id(), "error": error.to_json()["error"]}));
        }
        let next_due_at =
            self.records.store().next_renewal(company_id, &deadline())?.filter(|at| *at != i64::MAX);
        Ok(json!({
            "checked": pass.checked,
            "refreshed": pass.refreshed,
            "resealed": resealed.sealed,
            "unsealed": resealed.left,
            "failed": pass.failed,
            "nextDueAt": next_due_at,
        }))
    }

    /// Renews so many tokens at a time, and shows `see` what became of each.
    fn renew_all(
        &self,
        due: &DueQueue,
        workers: usize,
        (whole, deadline): (&Deadline, &(impl Fn() -> Deadline + Sync)),
        mut see: impl FnMut(&str, Result<()>) -> Result<()>,
    ) -> Result<()> {
        let workers = workers.min(due.available());
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

    /// What became of the next one; `None` when there is none.
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
                        if self.clock.uptime().saturating_sub(began) + RETRY_AFTER < RETRY_BEFORE
                            && !whole.is_cancelled()
                            && self.has_unknown_outcome(&id, &deadline()) =>
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

    /// Whether the end of a resource's last refresh is unknown.
    fn has_unknown_outcome(&self, resource_id: &str, deadline: &Deadline) -> bool {
        self.records.load(resource_id, deadline).ok().flatten().is_some_and(|record| record.intent.is_some())
    }

    /// Seals what another key than the first sealed, or none, and tells of each hundred.
    fn reseal(&self, pass: &Pass) -> Result<Resealed> {
        let (reported, ended) = (Cell::new(0), RefCell::new(None));
        let resealed = self.records.store().reseal(&pass.whole, &|sealed| {
            if sealed >= reported.get() + 100 {
                reported.set(sealed);
                *ended.borrow_mut() = pass.report_progress(sealed).err();
            } else if pass.whole.is_cancelled() {
                *ended.borrow_mut() = Some(stopped("the call was cancelled"));
            }
            ended.borrow().is_none()
        })?;
        ended.into_inner().map_or(Ok(resealed), Err)
    }

    fn renew_due(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        let was_held = self.cache.contains(resource_id);
        if !was_held {
            self.maintained().insert(resource_id.to_owned(), false);
        }
        let renewed = self.renewed(resource_id, Want::Runway, None, deadline);
        let is_asked_for = !was_held && self.maintained().remove(resource_id).unwrap_or(true);
        // A pass over the tokens of a whole fleet must not bring them all into this process's memory.
        if !was_held && !is_asked_for && !self.records.is_unsaved(resource_id) {
            self.cache.forget(resource_id);
        }
        renewed.map(drop)
    }
}

impl<'a> DueQueue<'a> {
    /// Those that are to be renewed by now, of a company or of all; the first page of them is looked up at once.
    fn new(
        tokens: &'a Tokens,
        company_id: Option<&'a str>,
        deadline: &'a (dyn Fn() -> Deadline + Sync),
    ) -> Result<DueQueue<'a>> {
        let now_ms = tokens.clock.wall_ms();
        let due =
            DueQueue { tokens, company_id, deadline, now_ms, state: Mutex::default(), turned: Signal::new() };
        let page = due.page(Range::Due, None)?;
        due.state().take_in(page);
        Ok(due)
    }

    /// The next one. A worker that finds none left looks up the next page, while those before it are still at work: one
    /// renewal that takes long holds up no other.
    fn next(&self, whole: &Deadline) -> Result<Option<NextStep>> {
        loop {
            let seen = self.turned.count();
            let mut state = self.state();
            if let Some(step) = state.next_at_hand(self.tokens.clock.uptime()) {
                return Ok(Some(step));
            }
            if state.is_turning {
                drop(state);
                whole.renewed(PROGRESS_INTERVAL).wait(&self.turned, seen);
                continue;
            }
            if let Some((range, after)) = state.next_page() {
                state.is_turning = true;
                drop(state);
                let _turning = Turning(self);
                let page = self.page(range, after.as_deref())?;
                self.state().take_in(page);
                continue;
            }
            // While others are at work there is time to come back to what is in doubt.
            if state.unresolved.is_empty()
                || state.unresolved.len() == state.under_way.len()
                || whole.is_cancelled()
            {
                let given_up = state.unresolved.pop_front();
                return Ok(
                    given_up.map(|unresolved| NextStep::GiveUp(unresolved.resource_id, unresolved.error))
                );
            }
            drop(state);
            // A cancellation is noticed by the next look.
            let _ = whole.renewed(2 * PROGRESS_INTERVAL).sleep(PROGRESS_INTERVAL);
        }
    }

    /// One that was given out failed, and nobody knows what the server did: it comes again in a while.
    fn retry_later(&self, resource_id: String, began: Duration, error: Error) {
        let failed = self.tokens.clock.uptime();
        self.state().unresolved.push_back(Unresolved { resource_id, began, failed, error });
    }

    /// One that was given out is no longer at work.
    fn done(&self, resource_id: &str) {
        self.state().under_way.remove(resource_id);
    }

    /// How many are at hand; as many as anybody can want where there are more pages.
    fn available(&self) -> usize {
        let state = self.state();
        if state.after.is_some() { usize::MAX } else { state.resource_ids.len() }
    }

    /// A page of resources that are due.
    fn page(&self, range: Range, after: Option<&str>) -> Result<DuePage> {
        let deadline = (self.deadline)();
        let renewals = match range {
            Range::Due => i64::MIN..=self.now_ms,
            Range::TooFar => self.now_ms.saturating_add(MAX_RENEWAL_AHEAD_MS)..=i64::MAX - 1,
        };
        let store = self.tokens.records.store();
        let mut page = store.due(self.company_id, &renewals, after, PAGE, &deadline)?;
        if range == Range::TooFar {
            // Most of these have a long life. One that cannot be read cannot be renewed.
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

/// A worker's look-up of a page. However it ends, the other workers go on.
struct Turning<'a>(&'a DueQueue<'a>);

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        self.0.state().is_turning = false;
        self.0.turned.notify();
    }
}

impl QueueState {
    /// One in doubt whose time has come, or the next of the page.
    fn next_at_hand(&mut self, now: Duration) -> Option<NextStep> {
        if self.unresolved.front().is_some_and(|unresolved| now >= unresolved.failed + RETRY_AFTER)
            && let Some(again) = self.unresolved.pop_front()
        {
            return Some(NextStep::Renew(again.resource_id, again.began));
        }
        let resource_id = self.resource_ids.next()?;
        self.under_way.insert(resource_id.clone());
        Some(NextStep::Renew(resource_id, now))
    }

    /// The page to look up next. It is taken away: after a failure there is no second look.
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

    fn take_in(&mut self, page: DuePage) {
        let mut resource_ids = page.resource_ids;
        resource_ids.retain(|id| !self.under_way.contains(id));
        // Processes that work through the same page at the same time begin at different places of it, so that they meet
        // each other's work as done, and not as under way.
        let begin = random::up_to(resource_ids.len().saturating_sub(1) as u64);
        resource_ids.rotate_left(usize::try_from(begin).unwrap_or(0));
        (self.resource_ids, self.after) = (resource_ids.into_iter(), page.next);
    }
}

impl<'a> Pass<'a> {
    fn new(whole: Deadline, progress: Progress<'a>) -> Pass<'a> {
        Pass { checked: 0, refreshed: 0, failed: Vec::new(), whole, progress }
    }

    /// Counts a token, and tells of it.
    fn count(&mut self, resource_id: &str, outcome: Result<()>) -> Result<()> {
        self.checked += 1;
        match outcome {
            Ok(()) => self.refreshed += 1,
            Err(error) => {
                self.failed.push(failure("resourceId", resource_id, &error.with_resource(resource_id)))
            }
        }
        self.report_progress(0)
    }

    /// Tells how far the work is; an error when it should end.
    fn report_progress(&self, resealed: u64) -> Result<()> {
        let so_far = json!({
            "checked": self.checked,
            "refreshed": self.refreshed,
            "resealed": resealed,
            "failed": self.failed.len(),
        });
        if !(self.progress)(&so_far) {
            return Err(stopped("the progress callback ended the work"));
        }
        // It may have been the callback that cancelled.
        match self.whole.is_cancelled() {
            true => Err(stopped("the call was cancelled")),
            false => Ok(()),
        }
    }
}
