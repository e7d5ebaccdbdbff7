//! The refresh (body of a single flight): lock, read again, record the intent (write-ahead), send,
//! save, publish, unlock.

use super::cooldown::CooldownState;
use super::failures::is_of_standing;
use super::records::Origin;
use super::refresh_retry::RefreshRetry;
use super::reports::count;
use super::schedule::INACTIVE_HOLD_MS;
use super::token_cache::StaleReason;
use super::{BRIEF_WAIT, LOCK_WAIT, SAVE_TIME, Tokens, Want};
use crate::api::{Failure, Outcome, TokenParams, TokenRetry, says_wrong_token_kind};
use crate::deadline::Deadline;
use crate::error::log_fields::about;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::secret::Secret;
use crate::store::{Intent, Record, Standing};
use crate::token::{CLOCK_TOLERANCE_MS, Token, UserType};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

/// How long before its valid token expires a caller stops waiting for a new one.
const EXPIRY_RESERVE: Duration = Duration::from_secs(1);

/// How a failed renewal is reported: only `Failed` counts as a failure and emits an event.
#[derive(Clone, Copy, PartialEq)]
enum Attempt {
    Failed,
    /// Another caller or process is renewing the token, or the store is busy.
    Busy,
    NotMade,
}

/// The result of a check of the record before its lock is taken.
enum Precheck {
    /// Another caller or process has renewed the token.
    Taken(Secret),
    /// No attempt is allowed now, for this reason.
    NotNow(Error),
    /// The token must be renewed: this one of the store, unless it has to be read again.
    Due(Option<Box<Record>>),
}

/// Why a renewal returned no token.
struct RenewalError {
    error: Error,
    attempt: Attempt,
    /// Whether the record, or the memory, has the failure already.
    is_noted: bool,
}

impl RenewalError {
    fn noted(error: Error) -> RenewalError {
        RenewalError { error, attempt: Attempt::Failed, is_noted: true }
    }
}

impl From<Error> for RenewalError {
    fn from(error: Error) -> RenewalError {
        RenewalError { error, attempt: Attempt::Failed, is_noted: false }
    }
}

/// The deadlines of one flight, and the record that it saves.
struct Renewal {
    /// For the server: the call's own deadline, or shortly before the caller's valid token expires.
    call: Deadline,
    /// For locks, and for the store before the request: brief if the caller has a valid token.
    store: Deadline,
    /// Whether the caller has a valid token.
    has_valid: bool,
    /// The record with the token of the refresh.
    saved: Cell<Option<Record>>,
}

impl Renewal {
    /// The deadlines of a caller without a known valid token.
    fn of(deadline: &Deadline, waits: &Deadline) -> Renewal {
        let (call, store) = (deadline.clone(), waits.clone());
        Renewal { call, store, has_valid: false, saved: Cell::default() }
    }

    /// For other callers, and for the store while the lock is held: brief if the caller has a valid
    /// token.
    fn waits(&self) -> &Deadline {
        if self.has_valid { &self.store } else { &self.call }
    }

    /// The caller has a token that it accepts for `left`: it does not wait for others, and stops
    /// leading a refresh before that time ends. Zero if it has none.
    fn shorten(&mut self, left: Duration) {
        if !self.has_valid && !left.is_zero() {
            self.has_valid = true;
            self.store = self.call.within(BRIEF_WAIT);
            if left > 2 * EXPIRY_RESERVE {
                self.call = self.call.within(left - EXPIRY_RESERVE);
            }
        }
    }
}

/// Whether a renewal only ended because its caller cancelled the call or limited its time: no
/// failure that concerns other callers.
fn is_end_of_call(error: &Error, deadline: &Deadline) -> bool {
    error.status() == Status::Cancelled
        || error.status() == Status::Timeout && deadline.check_call().is_err()
        || is_impatience(error)
}

fn cut_short(failure: Failure) -> Failure {
    Failure { error: failure.error.into_cut_short(), ..failure }
}

/// Whether its caller had no time for another attempt after the server refused, or could not be
/// reached. A response that was lost, or that says that the server failed, is a failure.
fn is_impatience(error: &Error) -> bool {
    error.is_cut_short() && error.sent() != Some(true)
}

impl Tokens {
    /// Returns a token that satisfies `want`, renewed by this caller or another, and the record
    /// that a refresh has saved. Runs once at a time per resource among all processes that share
    /// the store. `read` is the record if the caller has just read it.
    pub(super) fn renew(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        read: Option<Record>,
        (deadline, waits): (&Deadline, &Deadline),
    ) -> Result<(Secret, Option<Record>)> {
        if want == Want::Fresh
            && let Some(token) = self.with_fresh(resource_id, Secret::clone)
        {
            // The previous flight completed after the caller had checked the cache.
            return Ok((token, None));
        }
        let mut read = read;
        loop {
            let mut renewal = Renewal::of(deadline, waits);
            match self.attempt(resource_id, want, known, read.take(), &mut renewal) {
                // It waited only briefly because of a valid token, which has expired meanwhile.
                Err(error)
                    if renewal.has_valid
                        && error.status() == Status::Timeout
                        && error.sent() != Some(true)
                        && waits.check().is_ok() => {}
                outcome => return outcome,
            }
        }
    }

    /// One attempt at a renewal, which may end with the old token while that is valid.
    fn attempt(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        read: Option<Record>,
        renewal: &mut Renewal,
    ) -> Result<(Secret, Option<Record>)> {
        if let Some(left) = self.cache.unexpired_for(resource_id, self.clock.uptime()) {
            renewal.shorten(want.accepts_for(left));
        }
        let failure = match self.precheck(resource_id, want, known, read, renewal) {
            Ok(Precheck::Taken(token)) => return Ok((token, None)),
            Ok(Precheck::NotNow(error)) => {
                RenewalError { attempt: Attempt::NotMade, ..RenewalError::from(error) }
            }
            Err(error) if renewal.has_valid && error.status() == Status::Timeout => {
                RenewalError { attempt: Attempt::Busy, ..RenewalError::from(error) }
            }
            Err(error) => RenewalError::from(error),
            Ok(Precheck::Due(read)) => {
                match self.with_lock(resource_id, want, known, read, renewal) {
                    Ok(token) => return Ok((token, renewal.saved.take())),
                    Err(failure) => failure,
                }
            }
        };
        if failure.attempt == Attempt::Failed {
            self.reports.counters.count_failure(failure.error.status());
        }
        Ok((self.fall_back(failure, resource_id, want, renewal)?, None))
    }

    /// The part of a renewal that runs without the resource's lock. Uses a token that another
    /// process has renewed. Before a mint, renews the company's token: a caller that waits for it
    /// must not hold a lock, which may occupy a pooled connection that the company's refresh needs.
    fn precheck(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        read: Option<Record>,
        renewal: &mut Renewal,
    ) -> Result<Precheck> {
        if self.records.is_unsaved(resource_id) {
            // If the save fails again, the failure is logged and the copy stays in memory.
            let _ = self.writer.retry_save_when_due(resource_id, &renewal.store.within(BRIEF_WAIT));
        }
        let changes = self.cache.changes(resource_id);
        let record = match read.filter(|record| self.records.is_newest_here(record)) {
            Some(record) => Some(record),
            None => self.records.load(resource_id, &renewal.store)?,
        };
        if record.is_none() {
            self.cache.forget(resource_id);
        }
        if let Some(record) = &record {
            if self.satisfies(record, want, known) {
                if self.published.publish_since(changes, record) {
                    self.cooldowns.clear(resource_id);
                    return Ok(Precheck::Taken(record.token.access_token.clone()));
                }
                // The cache changed meanwhile, perhaps to this token: read the record again under
                // the lock.
                renewal.shorten(want.accepts_for(self.published.left(record)));
                return Ok(Precheck::Due(None));
            }
            if let Some(error) = self.blocked_by_state(record, want, &renewal.store) {
                return Ok(Precheck::NotNow(error));
            }
            let left = self.published.left(record);
            renewal.shorten(want.accepts_for(left));
            if want == Want::Fresh && !left.is_zero() {
                // Other callers are served this token during the renewal.
                self.published.serve_stale(changes, record, StaleReason::Due);
            }
        }
        // For a caller with a valid token, the cache already applies the backoff.
        if want.accepts_valid_for().is_some() && !renewal.has_valid {
            match self.cooldowns.check(resource_id, renewal.call.now()) {
                CooldownState::Over => {}
                CooldownState::Short(left) => renewal.call.sleep(left)?,
                CooldownState::Long(error) => return Ok(Precheck::NotNow(error)),
            }
        }
        if record.as_ref().is_some_and(|record| {
            record.token.kind() == UserType::Company || record.token.refresh_token.is_some()
        }) {
            return Ok(Precheck::Due(record.map(Box::new)));
        }
        let waits = renewal.waits();
        let company_id = match self.company_of(resource_id, record.as_ref(), waits) {
            Err(error) if error.status() == Status::NotFound => return Ok(Precheck::NotNow(error)),
            company_id => company_id?,
        };
        if self.with_fresh(&company_id, |_| ()).is_none()
            && self.records.has_company(&company_id, waits)?
        {
            // A caller with a valid token may lead the company's refresh, but does not wait for
            // another leader.
            let deadlines = (&renewal.call, waits);
            self.renewed_with_waits(&company_id, Want::Fresh, None, None, deadlines)
                .map_err(|error| error.with_resource(&company_id))?;
        }
        Ok(Precheck::Due(None))
    }

    /// Renews under the resource's lock. `read` is the record that was read before.
    fn with_lock(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        read: Option<Box<Record>>,
        renewal: &Renewal,
    ) -> Result<Secret, RenewalError> {
        let _lock = self.records.lock(resource_id, &renewal.store).map_err(before_sending)?;
        // If the save fails again, the failure is logged and the copy stays in memory.
        let _ = self.writer.retry_save_locked(resource_id, &renewal.store);
        let is_usable = |record: &Record| {
            record.token.refresh_token.is_some() && self.records.is_newest_here(record)
        };
        if let Some(record) = read.filter(|record| is_usable(record)) {
            // The save of the intent compares the version: it finds a record that was changed since
            // it was read, so the record needs no second read.
            match self.refresh_locked(*record, want, renewal) {
                Err(RenewalError { error, .. }) if error.status() == Status::Conflict => {}
                outcome => return outcome,
            }
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.renew_locked(resource_id, want, known, renewal) {
                // Another writer ignored the lock: load its record and try again.
                Err(RenewalError { error, .. })
                    if error.status() == Status::Conflict && tries < 3 => {}
                outcome => return outcome,
            }
        }
    }

    /// One attempt under the lock, with the stored record.
    fn renew_locked(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        renewal: &Renewal,
    ) -> Result<Secret, RenewalError> {
        match self.records.load(resource_id, &renewal.store).map_err(before_sending)? {
            None => {
                self.cache.forget(resource_id);
                Ok(self.mint(resource_id, None, &renewal.call, renewal.waits())?)
            }
            Some(record) if self.satisfies(&record, want, known) => {
                self.cooldowns.clear(resource_id);
                self.published.publish(&record, record.as_of);
                Ok(record.token.access_token.clone())
            }
            Some(record) => match self.blocked_by_state(&record, want, &renewal.store) {
                Some(error) => Err(error.into()),
                None if record.token.refresh_token.is_some() => {
                    self.refresh_locked(record, want, renewal)
                }
                None => {
                    Ok(self.mint(resource_id, Some(&record), &renewal.call, renewal.waits())?)
                }
            },
        }
    }

    fn satisfies(&self, record: &Record, want: Want, known: Option<&Secret>) -> bool {
        match want {
            Want::Fresh => self.published.is_fresh(record),
            Want::ValidFor(least) => {
                self.published.is_fresh(record)
                    && (self.published.left(record) >= least
                        || self.schedule.is_just_granted(record))
            }
            // The renewal time of an inactive location says nothing about its token.
            Want::Runway => record.standing == Standing::Good && self.schedule.has_runway(record),
            // Another caller or process renewed the token after this caller read it.
            Want::Another | Want::Now => {
                known.is_some_and(|known| !known.matches(record.token.access_token.expose()))
                    && !self.published.left(record).is_zero()
            }
        }
    }

    /// A failed refresh is hidden from callers while the old access token is still valid, unless
    /// they asked for a new one. If the store fails as well, the cached token is served.
    fn fall_back(
        &self,
        failure: RenewalError,
        resource_id: &str,
        want: Want,
        renewal: &Renewal,
    ) -> Result<Secret> {
        let RenewalError { error, attempt, is_noted } = failure;
        let changes = self.cache.changes(resource_id);
        // Without a token in memory, a token in the store is worth a longer wait. Allow at least a
        // brief read, even if the call was cancelled.
        let is_in_memory = self.cache.unexpired_for(resource_id, self.clock.uptime()).is_some();
        let patience = if is_in_memory { &renewal.store } else { &renewal.call };
        let record =
            self.records.load(resource_id, &patience.at_least(BRIEF_WAIT).within(LOCK_WAIT));
        // Use the cache only if the store fails: a record that the store does not have was deleted.
        let in_memory = match record {
            Ok(None) => None,
            // Read the clock after the load, which may have been slow.
            _ => self.cache.unexpired(resource_id, self.clock.uptime()),
        };
        let stored = record.ok().flatten();
        let is_failure = attempt == Attempt::Failed
            && (stored.is_some() || in_memory.is_some())
            && !is_end_of_call(&error, &renewal.call);
        // Before the cooldown starts, which decides when the next attempt is due.
        let noted = if is_failure
            && !is_noted
            && !stored.as_ref().is_some_and(|record| is_of_standing(&error, record))
        {
            let wait = if renewal.has_valid { BRIEF_WAIT } else { LOCK_WAIT };
            let deadline = renewal.call.within(wait);
            self.failures.note(resource_id, stored.as_ref(), &error, &deadline)
        } else {
            stored.as_ref().and_then(|record| self.records.last_failure(record))
        };
        // The record remembers that consent is required, so no cooldown is needed.
        let is_remembered = error.status() == Status::ReauthorizationRequired && stored.is_some();
        if attempt == Attempt::Failed && !is_remembered && !is_impatience(&error) {
            self.cooldowns.failed(resource_id, &error, renewal.call.now());
        }
        if is_failure && error.status() != Status::ReauthorizationRequired {
            let expires_at = stored.as_ref().map(|record| record.token.expires_at);
            self.reports.emit(&Event::RefreshFailed(error.clone(), noted), resource_id, expires_at);
        }
        let stale_reason =
            if attempt == Attempt::Busy { StaleReason::Busy } else { StaleReason::Failed };
        let Some(least) = want.accepts_valid_for() else { return Err(error) };
        // Another caller may have got a new token since the record was read.
        if self.cache.changes(resource_id) != changes
            && let Some(newer) = self.published.valid_in_cache(resource_id, least)
        {
            return Ok(newer);
        }
        match (stored, in_memory) {
            (Some(record), _) if !want.accepts_for(self.published.left(&record)).is_zero() => {
                // Once per process and token, since its callers do not notice it.
                if attempt == Attempt::NotMade
                    && error.status() == Status::ReauthorizationRequired
                    && self.cache.is_first_failure(resource_id)
                {
                    log::error!(
                        "the old token is served until it expires; the user must consent again \
                         old_token_seconds={}{}",
                        self.published.left(&record).as_secs(),
                        error.fields(resource_id)
                    );
                }
                self.published.serve_stale(changes, &record, stale_reason);
                Ok(record.token.access_token.clone())
            }
            (_, Some(_)) => self.published.valid_in_cache(resource_id, least).ok_or(error),
            _ => Err(error),
        }
    }

    /// Returns an error if the record's state forbids a renewal.
    pub(super) fn blocked_by_state(
        &self,
        record: &Record,
        want: Want,
        deadline: &Deadline,
    ) -> Option<Error> {
        match &record.standing {
            Standing::Good if record.token.is_private_integration() => Some(private_integration()),
            Standing::Good => None,
            // An explicit refresh ignores the hold.
            Standing::Inactive { .. } if want == Want::Now => None,
            Standing::Inactive { since_ms } => {
                // A clock that was set back must not extend the hold.
                let passed = self.clock.wall_ms().saturating_sub(*since_ms);
                let left = INACTIVE_HOLD_MS - passed;
                (0..INACTIVE_HOLD_MS).contains(&passed).then(|| {
                    Error::new(
                        Status::LocationInactive,
                        "the location is not active; its token is kept",
                    )
                    .with_help("try again once the location is active")
                    .with_retry_after(Some(Duration::from_millis(left.unsigned_abs())))
                })
            }
            // The refusal is dated in the future by a wrong clock: ask the server again.
            Standing::ReauthorizationRequired { since_ms, .. }
                if *since_ms > self.clock.wall_ms().saturating_add(CLOCK_TOLERANCE_MS) =>
            {
                None
            }
            Standing::ReauthorizationRequired { reason, .. } => {
                if record.token.kind() == UserType::Location
                    && (self.has_newer_company(record, deadline)
                        || self.installations.is_after_refusal(record, deadline))
                {
                    return None;
                }
                Some(reauthorization_required(reason))
            }
        }
    }

    /// Whether a location can be minted again: its company got a new consent after the refusal, or
    /// is known and has a token after the lack of one was the reason.
    fn has_newer_company(&self, record: &Record, deadline: &Deadline) -> bool {
        let Standing::ReauthorizationRequired { since_ms, lacks_company, .. } = record.standing
        else {
            return false;
        };
        let candidates = self.candidates(&record.resource_id, Some(record), deadline);
        let [company_id] = &candidates.unwrap_or_default()[..] else { return false };
        let company = self.records.load(company_id, deadline).ok().flatten();
        company
            .filter(|company| company.standing == Standing::Good)
            .is_some_and(|company| lacks_company || company.installed_at() > since_ms)
    }

    /// Sends the refresh token and handles the response; the caller holds the lock.
    fn refresh_locked(
        &self,
        mut record: Record,
        want: Want,
        renewal: &Renewal,
    ) -> Result<Secret, RenewalError> {
        let deadline = &renewal.call;
        let Some(refresh_token) = record.token.refresh_token.clone() else {
            return Ok(self.mint(&record.resource_id, Some(&record), deadline, renewal.waits())?);
        };
        // An intent without a result: an earlier request, perhaps of a process that died, may have
        // consumed the token.
        let now = self.clock.wall_ms();
        let first_sent_ago = record.intent.map(|intent| now.saturating_sub(intent.since_ms));
        let mut retry = RefreshRetry::new(first_sent_ago, self.clock.uptime());
        record.intent.get_or_insert(Intent { since_ms: now });
        // Without a saved intent the new token could not be saved either: do not spend the old one.
        record.renew_at = self.schedule.renewal(&record);
        self.records.note_intent(&mut record, &renewal.store).map_err(before_sending)?;

        let kind = Some(record.token.kind());
        let mut params = TokenParams::refresh(refresh_token, kind);
        let mut sent = false;
        loop {
            let policy = TokenRetry::Replay { resource_id: &record.resource_id };
            let failure = match self.api.token(&params, policy, self.clock.wall_ms(), deadline) {
                Ok(token) => {
                    count(&self.reports.counters.refreshed);
                    return self.refreshed(record, token, renewal);
                }
                // A company's refresh token stored under a location, or the reverse: let the server
                // decide the kind. The response names the owner.
                Err(failure)
                    if params.user_type.is_some() && says_wrong_token_kind(&failure.error) =>
                {
                    params.user_type = None;
                    continue;
                }
                Err(failure) => failure,
            };
            sent |= failure.error.sent() == Some(true);
            let failure = Failure { error: failure.error.with_sent(sent), ..failure };
            // Maintenance retries later.
            let must_succeed = want != Want::Runway && self.published.left(&record).is_zero();
            let pause =
                retry.after(&failure, self.clock.uptime(), must_succeed, deadline.remaining());
            let Some(pause) = pause else {
                let left = deadline.remaining_to_complete();
                let is_cut_short = must_succeed
                    && deadline.has_timeout()
                    && retry.would_go_on(&failure, self.clock.uptime(), left);
                let failure = if is_cut_short { cut_short(failure) } else { failure };
                return self.failed(record, failure, retry.may_be_spent(), deadline);
            };
            let is_cut_short = deadline.cuts_short(pause);
            if let Err(over) = deadline.sleep(pause) {
                // A single refusal after a lost response is not a verdict: the next call continues
                // from here.
                let no_verdict =
                    failure.outcome == Outcome::Refused || over.status() == Status::Cancelled;
                let failure = if no_verdict {
                    Failure { error: over.with_sent(sent), outcome: Outcome::Unknown }
                } else if is_cut_short {
                    cut_short(failure)
                } else {
                    failure
                };
                return self.failed(record, failure, retry.may_be_spent(), deadline);
            }
            log::warn!("the refresh is sent again{}", failure.error.fields(&record.resource_id));
            count(&self.api.counters().repeated);
        }
    }

    /// Saves the new token under the owner that the response names.
    fn refreshed(
        &self,
        mut record: Record,
        token: Token,
        renewal: &Renewal,
    ) -> Result<Secret, RenewalError> {
        let deadline = &renewal.call;
        let spent = Arc::clone(&record.token);
        // Until the installation time is known, derive it from the first token: later tokens have
        // later times.
        record.installed_at.get_or_insert(record.installed_at());
        // A response without a refresh token leaves the old one valid (RFC 6749, section 6).
        let is_used_up = |old: &&Secret| {
            token.refresh_token.as_ref().is_some_and(|new| !new.matches(old.expose()))
        };
        if let Some(refresh_token) = spent.refresh_token.as_ref().filter(is_used_up) {
            let save_deadline = deadline.at_least(SAVE_TIME);
            self.records.add_spent(&mut record, refresh_token, self.clock.as_ref(), &save_deadline);
        }
        if token.is_of_another(&record.resource_id, spent.kind()) {
            return self.refreshed_another(record, token, deadline);
        }
        let mut record = replaced(record, token);
        let origin = Origin::Refresh(spent);
        let token =
            self.writer.save_and_publish(&mut record, origin, &Event::Refreshed, deadline)?;
        renewal.saved.set(Some(record));
        Ok(token)
    }

    /// Handles a refresh token that belonged to another owner: saves the new token for that owner,
    /// and leaves this resource without a refresh token.
    fn refreshed_another(
        &self,
        mut record: Record,
        token: Token,
        deadline: &Deadline,
    ) -> Result<Secret, RenewalError> {
        let resource_id = record.resource_id.clone();
        let owner = token.resource_id().map(str::to_owned);
        let token = Token { user_type: Some(token.kind()), ..token };
        log::error!(
            "the stored refresh token belongs to {}; the new token is saved there{}",
            owner.as_deref().unwrap_or("an unknown owner"),
            about(&resource_id)
        );
        // The owner's record lists that refresh token as spent.
        let spent = Arc::clone(&record.token);
        let saved = owner
            .as_deref()
            .map(|owner| self.writer.save_for_owner(owner, token, Some(&spent), deadline));
        let error = Error::new(Status::Protocol, "the refresh returned a token of another owner")
            .with_help(
                "import the resource's own token, or let the user consent again \
                 (authorization_url)",
            )
            .with_resource(&resource_id)
            .with_sent(true)
            .with_retryable(false);
        if let Some(Err(save_error)) = saved {
            log::error!(
                "the token of the other owner could not be saved{}",
                save_error.fields(&resource_id)
            );
        }
        Arc::make_mut(&mut record.token).refresh_token = None;
        record.intent = None;
        self.without_refresh_token(record, error, deadline)
    }

    /// Records the outcome of a refresh that returned no token.
    fn failed(
        &self,
        mut record: Record,
        failure: Failure,
        may_be_spent: bool,
        deadline: &Deadline,
    ) -> Result<Secret, RenewalError> {
        let Failure { error, outcome } = failure;
        match (outcome, error.status()) {
            (Outcome::Refused, Status::ReauthorizationRequired) => {
                return self.on_invalid_grant(record, error, deadline);
            }
            (Outcome::Refused, Status::LocationInactive) => {
                record.standing = Standing::Inactive { since_ms: self.clock.wall_ms() };
                record.intent = None;
            }
            // A response that is not the API's, such as a proxy's page, proves nothing: keep the
            // intent.
            (Outcome::Refused, _) if error.http_status().is_some() && !error.is_verdict() => {}
            (Outcome::Refused | Outcome::NothingHappened, _) if !may_be_spent => {
                record.intent = None
            }
            _ => {}
        }
        if outcome == Outcome::NothingHappened
            && error.status() == Status::Timeout
            && !is_end_of_call(&error, deadline)
        {
            self.cooldowns.unreachable(&record.resource_id, &error, deadline.now());
        }
        if !is_end_of_call(&error, deadline) {
            self.failures.add(&mut record, &error);
        }
        let save_deadline = deadline.at_least(SAVE_TIME);
        self.failures.save_outcome(&mut record, "the outcome of a refresh", &save_deadline);
        Err(RenewalError::noted(error))
    }

    /// Handles a refresh token that the server called spent, expired or unknown.
    fn on_invalid_grant(
        &self,
        record: Record,
        error: Error,
        deadline: &Deadline,
    ) -> Result<Secret, RenewalError> {
        // A writer that ignores the lock may have rotated it.
        if let Some(stored) =
            self.records.store().load(&record.resource_id, &deadline.at_least(SAVE_TIME))?
        {
            let same = match (&stored.token.refresh_token, &record.token.refresh_token) {
                (Some(theirs), Some(ours)) => theirs.matches(ours.expose()),
                (theirs, ours) => theirs.is_none() == ours.is_none(),
            };
            if !same {
                let rotated = "another process replaced the refresh token";
                let error = Error::new(Status::Conflict, rotated);
                return Err(error.with_resource(&record.resource_id).into());
            }
        }
        self.without_refresh_token(record, error, deadline)
    }

    /// Handles the loss of the refresh token: mints a location's token if the API allows it;
    /// otherwise only a new consent helps.
    fn without_refresh_token(
        &self,
        mut record: Record,
        error: Error,
        deadline: &Deadline,
    ) -> Result<Secret, RenewalError> {
        let mut lacks_company = false;
        if record.token.kind() == UserType::Location {
            // The minted token may come without a refresh token: do not carry over the spent one.
            let mut stripped = record.clone();
            Arc::make_mut(&mut stripped.token).refresh_token = None;
            match self.mint(&record.resource_id, Some(&stripped), deadline, deadline) {
                // No company can mint for this location: consent is required.
                Err(mint) if is_verdict_on_mint(&mint) => {
                    lacks_company = mint.http_status().is_none()
                        || mint.resource_id().is_some_and(|id| id != record.resource_id);
                    log::warn!(
                        "no token could be minted with the company's token{}",
                        mint.fields(&record.resource_id)
                    );
                }
                // The mint has saved the standing, without a refresh token.
                Err(mint) if mint.status() == Status::LocationInactive => {
                    return Err(RenewalError::noted(mint));
                }
                // Temporary failure: the next call retries. If the refresh token was removed, save
                // that.
                Err(mint) if record.token.refresh_token.is_none() => {
                    if !is_end_of_call(&mint, deadline) {
                        self.failures.add(&mut record, &mint);
                    }
                    let save_deadline = deadline.at_least(SAVE_TIME);
                    let what = "the removal of the refresh token";
                    self.failures.save_outcome(&mut record, what, &save_deadline);
                    return Err(RenewalError::noted(mint));
                }
                minted => return Ok(minted?),
            }
        }
        let reason = error
            .api()
            .and_then(|fault| fault.message.clone())
            .unwrap_or_else(|| error.message().to_owned());
        // As every later call reports it.
        let error = match error.status() {
            Status::ReauthorizationRequired => error,
            _ => reauthorization_required(&reason),
        };
        record.standing = Standing::ReauthorizationRequired {
            since_ms: self.clock.wall_ms(),
            reason,
            lacks_company,
        };
        record.intent = None;
        self.failures.add(&mut record, &error);
        let save_deadline = deadline.at_least(SAVE_TIME);
        self.failures.save_outcome(&mut record, "the need for a new consent", &save_deadline);
        let error = error.with_resource(&record.resource_id);
        self.reports.emit(
            &Event::ReauthorizationRequired(error.clone(), record.last_failure),
            &record.resource_id,
            Some(record.token.expires_at),
        );
        Err(RenewalError::noted(error))
    }

    /// Mints a location token with the company's token, waiting for the latter until `waits`.
    /// Consumes no refresh token. The caller gets the new token even if the store keeps the old.
    fn mint(
        &self,
        location_id: &str,
        record: Option<&Record>,
        deadline: &Deadline,
        waits: &Deadline,
    ) -> Result<Secret> {
        if let Some(record) = record
            && record.token.kind() == UserType::Company
        {
            return Err(reauthorization_required("the company's token has no refresh token"));
        }
        let company_id = self.company_of(location_id, record, waits)?;
        let company = (&*company_id, self.installations.earliest_mint(&company_id, waits));
        let mut minted = self.minted(location_id, company, record, deadline, waits)?;
        let granted = minted.token.access_token.clone();
        let stored =
            self.writer.save_and_publish(&mut minted, Origin::Mint, &Event::Minted, deadline)?;
        // The old token stays if another writer has noted something in its record meanwhile.
        let is_old = record.is_some_and(|old| old.token.access_token.matches(stored.expose()));
        Ok(if is_old { granted } else { stored })
    }

    /// Mints a token and returns the location's record with it, not yet saved. `earliest` is
    /// [`super::installation_state::Installations::earliest_mint`] from before the mint.
    pub(super) fn minted(
        &self,
        location_id: &str,
        (company_id, earliest): (&str, i64),
        record: Option<&Record>,
        deadline: &Deadline,
        waits: &Deadline,
    ) -> Result<Record> {
        // Read before the mint, so that a later deletion is noticed when the token is saved.
        let as_of = self.records.count();
        // An unsaved copy that came after the caller found no record is newer than the mint.
        let as_of = if self.records.is_unsaved(location_id) { 0 } else { as_of };
        let last_deleted = match record {
            Some(record) => self.records.unfinished_deletion(record, waits),
            None => self.records.last_deleted(location_id, deadline)?,
        };
        let began = self.clock.wall_ms();
        let mint = |bearer: &Secret| {
            let minted = self.api.location_token(
                company_id,
                location_id,
                bearer,
                self.clock.wall_ms(),
                deadline,
            );
            minted.inspect_err(|failure| {
                if failure.outcome == Outcome::NothingHappened
                    && failure.error.status() == Status::Timeout
                    && !is_end_of_call(&failure.error, deadline)
                {
                    self.cooldowns.unreachable(location_id, &failure.error, deadline.now());
                }
            })
        };
        let minted = self
            .with_company_bearer(company_id, deadline, waits, mint)
            .and_then(|minted| minted.map_err(Error::from));
        let token = match (minted, record) {
            (Ok(token), _) => token,
            (Err(error), Some(record)) if error.status() == Status::LocationInactive => {
                let mut record = record.clone();
                record.standing = Standing::Inactive { since_ms: self.clock.wall_ms() };
                record.intent = None;
                self.failures.add(&mut record, &error);
                self.writer.note_standing(&mut record, &deadline.at_least(SAVE_TIME))?;
                return Err(error);
            }
            (Err(error), _) => {
                if error.status() == Status::LocationInactive {
                    self.cooldowns.inactive(location_id, &error, deadline.now());
                }
                return Err(error);
            }
        };
        count(&self.reports.counters.minted);
        let begins = self.installations.begin_of_mint(location_id, record, began, deadline);
        let mut record = match record {
            Some(record) => Record {
                predecessor: record.predecessor.max(last_deleted),
                ..replaced(record.clone(), token)
            },
            None => Record {
                predecessor: last_deleted,
                as_of,
                ..Record::new(location_id.to_owned(), token)
            },
        };
        (record.installed_at, record.own_consent) = (Some(begins.max(earliest)), false);
        Ok(record)
    }
}

/// Classifies a failure before the request: a lock or store timeout means busy.
fn before_sending(error: Error) -> RenewalError {
    let attempt = if error.status() == Status::Timeout { Attempt::Busy } else { Attempt::Failed };
    RenewalError { error, attempt, is_noted: false }
}

/// Whether a failed mint leaves only consent: no company can mint, or the API refused.
fn is_verdict_on_mint(error: &Error) -> bool {
    match error.status() {
        Status::NotFound | Status::ReauthorizationRequired => {
            error.http_status().is_none() || error.is_verdict()
        }
        Status::Forbidden => error.is_verdict(),
        _ => false,
    }
}

fn replaced(mut record: Record, token: Token) -> Record {
    let token = token.completed_from(&record.token).labelled(&record.resource_id);
    record.token = Arc::new(token);
    record.standing = Standing::Good;
    record.intent = None;
    record.last_failure = None;
    record
}

/// Only a person can renew a private integration token: neither a refresh nor a mint replaces it.
fn private_integration() -> Error {
    Error::new(Status::InvalidRequest, "a private integration token cannot be refreshed")
        .with_help(
            "keep using it; if the API rejects it, import the current one from the account's \
             settings",
        )
        .with_retryable(false)
}

fn reauthorization_required(reason: &str) -> Error {
    Error::new(Status::ReauthorizationRequired, format!("the connection was lost: {reason}"))
        .with_help("let the user consent again (authorization_url), or import a new token")
}
