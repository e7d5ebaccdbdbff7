//! Many locations at once: minted as fast as the company's limit allows, saved in batches, resumable.
//!
//! A mint spends nothing, so it needs no lock: two processes that mint for the same location both get a token that
//! works, and the store keeps one of them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::bulk::{Progress, TICK, failure, hands, stopped};
use super::{Origin, SAVE_TIME, Saved, Tokens, Want};
use crate::api::{InstalledLocationsParams, Pages, ends_every_mint, installed_location_ids, location_ids};
use crate::crew::{self, Next, Results};
use crate::deadline::{Cancellation, Deadline};
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::random;
use crate::store::{Record, Standing};
use crate::token::valid_id;

/// How many mints are under way at once, unless the caller wishes otherwise: ten a second are allowed, and an answer
/// may take most of a second.
const USUAL_CONCURRENCY: i64 = 8;

/// The most tokens that are saved at once.
const BATCH: usize = 256;

/// So many failures in a row that are nobody's fault end the work: the network or the API is down.
const MOST_IN_A_ROW: u32 = 25;

/// With fewer locations at hand than this, the next page of them is fetched: out of many, two processes seldom choose the
/// same.
const ENOUGH: usize = 900;

/// The longest time that the work waits because the server wants to be left in peace.
const LONGEST_REST: Duration = Duration::from_secs(900);

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
enum Outcome {
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
        let hands = hands(params.concurrency, USUAL_CONCURRENCY)?;
        let feed = Feed::new(&params)?;
        let of_list = params.installed;
        let work = Work {
            whole: deadline().ended_by(&feed.stopped),
            feed,
            company_id: params.company_id,
            force: params.force,
            deadline: &deadline,
        };
        let tally =
            crew::work(hands, || self.mint_next(&work), |results| self.gather(&work, results, progress))?;
        match work.feed.end() {
            Some(error) => Err(error),
            None => {
                if of_list && tally.total() == 0 {
                    log::warn!(
                        "{}: its list of installed locations is empty; right after a consent that can last for some \
                         seconds: ask again",
                        work.company_id
                    );
                }
                Ok(tally.report())
            }
        }
    }

    /// Mints for the next location; `None` when there is none, or nothing more can come of the work.
    fn mint_next(&self, work: &Work<impl Fn() -> Deadline>) -> Option<Outcome> {
        let list = |params: &InstalledLocationsParams| self.list_locations(params, &work.deadline());
        let error = match work.feed.next(list) {
            Ok(location_id) => {
                let location_id = location_id?;
                match self.mint_one(&location_id, work) {
                    Ok(outcome) => return Some(outcome),
                    Err(error) if !work.is_hopeless(&error) => {
                        let error = error.with_resource(&location_id);
                        return Some(Outcome::Failed(location_id, error));
                    }
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        // At once: the other hands need not find out, too.
        work.feed.stop(error);
        None
    }

    fn mint_one(&self, location_id: &str, work: &Work<impl Fn() -> Deadline>) -> Result<Outcome> {
        let deadline = work.deadline();
        let held = match self.records.load(location_id, &deadline) {
            // Nothing can be read of it: a new token repairs it.
            Err(error) if error.is_unreadable() => {
                log::warn!("{location_id}: its record cannot be read, and is minted anew: {error}");
                None
            }
            held => held?,
        };
        if let Some(held) = &held {
            if !work.force
                && held.standing == Standing::Good
                && self.schedule.has_runway(held)
                && !self.schedule.left(held, &self.live).is_zero()
            {
                return Ok(Outcome::Fresh);
            }
            // A location that consented by itself keeps an installation of its own.
            if !work.force && held.own_consent && held.standing == Standing::Good && held.is_refreshable() {
                return self.renewed(location_id, Want::Runway, None, &deadline).map(|_| Outcome::Fresh);
            }
            if matches!(held.standing, Standing::Inactive { .. })
                && let Some(error) = self.held_back(held, Want::Fresh, &deadline)
            {
                return Err(error);
            }
        }
        loop {
            let deadline = work.deadline();
            let minted = self.minted(location_id, &work.company_id, held.as_ref(), &deadline);
            match minted {
                Err(error) if error.status() == Status::RateLimited => {
                    let rest = error.retry_after().unwrap_or(TICK);
                    if rest > LONGEST_REST {
                        return Err(error.with_resource(&work.company_id));
                    }
                    work.whole.renewed(rest + TICK).sleep(rest)?;
                }
                minted => return Ok(Outcome::Minted(Box::new(minted?))),
            }
        }
    }

    /// Takes in what the crew brings: saves it, tells of it, and counts.
    fn gather(
        &self,
        work: &Work<impl Fn() -> Deadline>,
        results: &Results<Outcome>,
        progress: Progress,
    ) -> Tally {
        let mut tally = Tally::new(work.whole.now());
        let mut told = work.whole.now();
        let (mut over, mut goes_on) = (false, true);
        while !over {
            let mut batch = Vec::new();
            let mut patience = TICK;
            while batch.len() < BATCH {
                match results.next(patience) {
                    Next::Result(Ok(outcome)) => tally.count(outcome, &mut batch, &work.feed),
                    Next::Result(Err(defect)) => work.feed.stop(defect),
                    Next::Nothing => break,
                    Next::Over => {
                        over = true;
                        break;
                    }
                }
                // Whatever else is there already goes along.
                patience = Duration::ZERO;
            }
            if let Err(error) = self.keep_all(batch, &work.whole) {
                work.feed.stop(error);
            }
            if work.whole.is_cancelled() {
                work.feed.stop(stopped("the call was cancelled"));
            }
            if goes_on && (work.whole.now() - told >= TICK || over) {
                told = work.whole.now();
                goes_on = progress(&tally.progress(work.feed.total(), told));
                if !goes_on {
                    work.feed.stop(stopped("the progress callback ended the work"));
                }
            }
        }
        tally
    }

    /// Saves new tokens at the price of one.
    fn keep_all(&self, mut records: Vec<Record>, deadline: &Deadline) -> Result<()> {
        let patience = deadline.at_least(SAVE_TIME);
        let mut changes = Vec::with_capacity(records.len());
        for record in &mut records {
            record.renew_at = self.schedule.renewal(record);
            changes.push(self.live.changes(&record.resource_id));
        }
        let mut failed = None;
        let saved = self.records.store().save_all(&records, &patience);
        for ((mut record, saved), changes) in records.into_iter().zip(saved).zip(changes) {
            let is_first = record.version == 0;
            let saved = match saved {
                Ok(version) => {
                    record.version = version;
                    match is_first {
                        true => self
                            .records
                            .confirm_first(&mut record, &Origin::Mint, &patience)
                            .and_then(|saved| self.confirm_mint(&record, saved, &patience)),
                        false => Ok(Saved::Ours),
                    }
                }
                Err(error) if error.status() == Status::Conflict => {
                    self.records.save(&mut record, &Origin::Mint, &patience)
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
                    self.publish_where_held(&record);
                    self.emit(&Event::Minted, &record.resource_id, Some(record.token.expires_at));
                }
                // In memory goes what is nowhere else. What was deleted meanwhile is dropped: it cost nothing.
                saved => drop(self.kept(&record, Origin::Mint, saved, &Event::Minted, changes)),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// What all the hands work on.
struct Work<'a, D> {
    feed: Feed,
    company_id: String,
    force: bool,
    /// Of this only the cancellation counts.
    whole: Deadline,
    deadline: &'a D,
}

impl<D: Fn() -> Deadline> Work<'_, D> {
    /// The patience for one request.
    fn deadline(&self) -> Deadline {
        (self.deadline)().ended_by(&self.feed.stopped)
    }

    /// Whether an error says nothing about the location, and the next one would meet it as well: one about the company's
    /// token, or a refusal of every mint. Each further try could burn another token of the company.
    fn is_hopeless(&self, error: &Error) -> bool {
        error.resource_id() == Some(&self.company_id)
            || ends_every_mint(error)
            || error.status() == Status::Cancelled
    }
}

/// The locations that are still to be looked at.
struct Feed {
    left: Mutex<Left>,
    /// Where the list of installed locations goes on. Held by whoever fetches the next page.
    pages: Mutex<Option<Pages>>,
    /// Raised with the end: whoever waits for a place in the pace must not wait on.
    stopped: Arc<Cancellation>,
}

#[derive(Default)]
struct Left {
    location_ids: Vec<String>,
    total: Option<u64>,
    end: Option<Error>,
}

impl Feed {
    fn new(params: &MintParams) -> Result<Feed> {
        valid_id("companyId", &params.company_id)?;
        let (mut left, mut pages) = (Left::default(), None);
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
                left.total = Some(each_once.len() as u64);
                left.location_ids = each_once.into_iter().cloned().collect();
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
        Ok(Feed { left: Mutex::new(left), pages: Mutex::new(pages), stopped: Arc::default() })
    }

    /// The next location. Where few are left, the next page of them is fetched first, by one while the others go on.
    fn next(
        &self,
        fetch: impl Fn(&InstalledLocationsParams) -> Result<Map<String, Value>>,
    ) -> Result<Option<String>> {
        loop {
            if self.left().location_ids.len() < ENOUGH
                && let Ok(place) = self.pages.try_lock()
            {
                self.fetch_page(place, &fetch)?;
            }
            if let Some(next) = self.left().take() {
                return Ok(next);
            }
            // Somebody else is fetching: what comes of it is waited for.
            let place = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            if place.is_none() {
                return Ok(self.left().take().flatten());
            }
        }
    }

    fn fetch_page(
        &self,
        mut place: MutexGuard<'_, Option<Pages>>,
        fetch: impl Fn(&InstalledLocationsParams) -> Result<Map<String, Value>>,
    ) -> Result<()> {
        let Some(mut pages) = place.take() else { return Ok(()) };
        let page = fetch(pages.params())?;
        {
            let mut left = self.left();
            let before = left.location_ids.len();
            left.location_ids.extend(installed_location_ids(&page).map(str::to_owned));
            let passed_over = location_ids(&page).count() - (left.location_ids.len() - before);
            left.total = left.total.or_else(|| total_of(&page));
            left.total = left.total.map(|total| total.saturating_sub(passed_over as u64));
        }
        if pages.turn(&page)? {
            *place = Some(pages);
        }
        Ok(())
    }

    /// Gives out no more, and wakes whoever waits; the first reason counts.
    fn stop(&self, error: Error) {
        self.left().end.get_or_insert(error);
        self.stopped.raise();
    }

    /// Why it was stopped, if it was.
    fn end(&self) -> Option<Error> {
        self.left().end.clone()
    }

    /// How many locations there are, where that is known.
    fn total(&self) -> Option<u64> {
        self.left().total
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Left {
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

    fn count(&mut self, outcome: Outcome, batch: &mut Vec<Record>, feed: &Feed) {
        match outcome {
            Outcome::Fresh => self.fresh += 1,
            Outcome::Minted(record) => {
                self.minted += 1;
                self.in_a_row = 0;
                batch.push(*record);
            }
            Outcome::Failed(location_id, error) => {
                let nobodys_fault =
                    [Status::Network, Status::Timeout, Status::Server, Status::Protocol, Status::Store];
                // A firewall's page says nothing about the location.
                let is_page = error.api().is_some_and(|fault| !fault.is_of_api);
                let counts = is_page || nobodys_fault.contains(&error.status());
                self.in_a_row = if counts { self.in_a_row + 1 } else { 0 };
                self.failed.push(failure("locationId", &location_id, &error));
                if self.in_a_row >= MOST_IN_A_ROW {
                    feed.stop(error.with_help(
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
