//! The refresh (body of a single flight): lock, read again, record the intent (write-ahead), send,
//! save, publish, unlock. In this order a single-use refresh token is spent by one process only,
//! and its successor is never handed out unsaved.

use super::cooldown::CooldownState;
use super::refresh_retry::RefreshRetry;
use super::schedule::INACTIVE_HOLD_MS;
use super::{BRIEF_WAIT, LOCK_WAIT, Origin, SAVE_TIME, StaleReason, Tokens, Want};
use crate::api::{Failure, Outcome, TokenParams, TokenRetry, says_wrong_token_kind};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::secret::Secret;
use crate::store::{Intent, Record, Standing};
use crate::token::{CLOCK_TOLERANCE_MS, Token, UserType};
use std::sync::Arc;
use std::time::Duration;

/// How long before the end of a valid token its holder stops waiting for a new one.
const EXPIRY_RESERVE: Duration = Duration::from_secs(1);

/// Whether an error is that of an attempt: the host is told of those.
#[derive(Clone, Copy, PartialEq)]
enum Attempt {
    Failed,
    /// Another caller or process is at it, or the store is busy.
    Busy,
    NotMade,
}

/// What a look at the record without its lock shows.
enum Precheck {
    /// A token that another caller or process renewed.
    Taken(Secret),
    /// Nothing can be tried now, for that reason.
    NotNow(Error),
    /// It is to be renewed.
    Due,
}

/// Why no token came of a renewal.
struct RenewalError {
    error: Error,
    attempt: Attempt,
}

impl From<Error> for RenewalError {
    fn from(error: Error) -> RenewalError {
        RenewalError { error, attempt: Attempt::Failed }
    }
}

/// How long one flight may wait, and for what.
struct Deadlines {
    /// For the server: the call's own deadline, or the end of the valid token that the caller has, if that comes first.
    call: Deadline,
    /// For locks and for the store before anything is sent: brief, if the caller has a valid token.
    store: Deadline,
    /// Whether the caller has a valid token.
    has_valid: bool,
}

impl Deadlines {
    /// That of a caller who has no valid token, as far as is known.
    fn of(deadline: &Deadline, others: &Deadline) -> Deadlines {
        Deadlines { call: deadline.clone(), store: others.clone(), has_valid: false }
    }

    /// For other callers, and for the store once the lock is held: brief, if the caller has a valid token.
    fn waits(&self) -> &Deadline {
        if self.has_valid { &self.store } else { &self.call }
    }

    /// The caller has a valid token for so long: it does not wait for others, and leads a refresh while the token lasts.
    fn shorten(&mut self, left: Duration) {
        if !self.has_valid {
            self.has_valid = true;
            self.store = self.call.within(BRIEF_WAIT);
            if left > 2 * EXPIRY_RESERVE {
                self.call = self.call.within(left - EXPIRY_RESERVE);
            }
        }
    }
}

impl Tokens {
    /// A token that fulfils `want`: another caller's, or a new one. Runs once at a time per resource, across all
    /// who share the store.
    pub(super) fn renew(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadline: &Deadline,
        others: &Deadline,
    ) -> Result<Secret> {
        if want == Want::Fresh
            && let Some(token) = self.with_fresh(resource_id, Secret::clone)
        {
            return Ok(token); // The flight before this one landed between the caller's look and its seat.
        }
        let mut deadlines = Deadlines::of(deadline, others);
        if want == Want::Fresh
            && let Some(left) = self.cache.unexpired_for(resource_id, self.clock.uptime())
        {
            deadlines.shorten(left);
        }
        let (error, attempt) = match self.precheck(resource_id, want, known, &mut deadlines) {
            Ok(Precheck::Taken(token)) => return Ok(token),
            Ok(Precheck::NotNow(error)) => (error, Attempt::NotMade),
            Err(error) if deadlines.has_valid && error.status() == Status::Timeout => (error, Attempt::Busy),
            Err(error) => (error, Attempt::Failed),
            Ok(Precheck::Due) => match self.with_lock(resource_id, want, known, &deadlines) {
                Ok(token) => return Ok(token),
                Err(RenewalError { error, attempt }) => (error, attempt),
            },
        };
        if attempt == Attempt::Failed {
            Tokens::count(&self.counters.failed);
        }
        self.fall_back(error, resource_id, want, attempt, &deadlines)
    }

    /// The part without the lock of this resource. A token that another process renewed is used. If a location is to be
    /// minted, its company's token is renewed first: a caller that waits for that must hold nothing that the company's
    /// refresh needs, and a lock can be a place in a pool of connections.
    fn precheck(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadlines: &mut Deadlines,
    ) -> Result<Precheck> {
        if self.records.is_unsaved(resource_id) {
            // A token that the store still refuses stays in memory, and was logged.
            let _ = self.retry_save_when_due(resource_id, &deadlines.store.within(BRIEF_WAIT));
        }
        let changes = self.cache.changes(resource_id);
        let record = self.records.load(resource_id, &deadlines.store)?;
        if record.is_none() {
            // Another process deleted it: what this process has in memory ends with it.
            self.cache.forget(resource_id);
        }
        if let Some(record) = &record {
            if self.satisfies(record, want, known) {
                if self.publish_since(changes, record) {
                    self.cooldowns.clear(resource_id);
                    return Ok(Precheck::Taken(record.token.access_token.clone()));
                }
                // Another token came or went meanwhile, perhaps this one: the record is read again under the lock.
                if want == Want::Fresh {
                    deadlines.shorten(self.schedule.left(record, &self.cache));
                }
                return Ok(Precheck::Due);
            }
            if let Some(error) = self.blocked_by_state(record, want, &deadlines.store) {
                return Ok(Precheck::NotNow(error));
            }
            let left = self.schedule.left(record, &self.cache);
            if want == Want::Fresh && !left.is_zero() {
                // The other callers get it meanwhile.
                deadlines.shorten(left);
                self.serve_stale(changes, record, StaleReason::Due);
            }
        }
        // A caller with a valid token comes as seldom as the backoff of that token lets it.
        if want == Want::Fresh && !deadlines.has_valid {
            match self.cooldowns.check(resource_id, deadlines.call.now()) {
                CooldownState::Over => {}
                CooldownState::Short(left) => deadlines.call.sleep(left)?,
                CooldownState::Long(error) => return Ok(Precheck::NotNow(error)),
            }
        }
        if record.as_ref().is_some_and(|record| {
            record.token.kind() == UserType::Company || record.token.refresh_token.is_some()
        }) {
            return Ok(Precheck::Due);
        }
        let waits = deadlines.waits();
        let company_id = match self.company_of(resource_id, record.as_ref(), waits) {
            Err(error) if error.status() == Status::NotFound => return Ok(Precheck::NotNow(error)),
            company_id => company_id?,
        };
        if self.with_fresh(&company_id, |_| ()).is_none() && self.has_company(&company_id, waits)? {
            // A caller with a valid token leads the company's refresh, but does not wait if another caller leads it.
            self.renewed_beside(&company_id, Want::Fresh, None, &deadlines.call, waits)
                .map_err(|error| error.with_resource(&company_id))?;
        }
        Ok(Precheck::Due)
    }

    /// Offers an unsaved token again if its time has come and its lock is free.
    fn retry_save_when_due(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        let is_due = self.records.next_save_at(resource_id).is_some_and(|at| at <= self.clock.uptime());
        if is_due { self.retry_save(resource_id, deadline) } else { Ok(()) }
    }

    /// Renews under the resource's lock.
    fn with_lock(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadlines: &Deadlines,
    ) -> Result<Secret, RenewalError> {
        let _lock = self.records.lock(resource_id, &deadlines.store).map_err(before_sending)?;
        // A token that the store still refuses stays in memory, and was logged.
        let _ = self.retry_save_locked(resource_id, true, &deadlines.store);
        let mut tries = 0;
        loop {
            tries += 1;
            match self.renew_locked(resource_id, want, known, deadlines) {
                // Another writer does not keep to the lock: what it wrote is looked at first.
                Err(RenewalError { error, .. }) if error.status() == Status::Conflict && tries < 3 => {}
                outcome => return outcome,
            }
        }
    }

    /// What is done under the lock, with the record as it is now.
    fn renew_locked(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadlines: &Deadlines,
    ) -> Result<Secret, RenewalError> {
        match self.records.load(resource_id, &deadlines.store).map_err(before_sending)? {
            None => {
                self.cache.forget(resource_id);
                Ok(self.mint(resource_id, None, &deadlines.call, deadlines.waits())?)
            }
            Some(record) if self.satisfies(&record, want, known) => {
                self.cooldowns.clear(resource_id);
                self.publish(&record, record.as_of);
                Ok(record.token.access_token.clone())
            }
            Some(record) => match self.blocked_by_state(&record, want, &deadlines.store) {
                Some(error) => Err(error.into()),
                None if record.token.refresh_token.is_some() => self.refresh_locked(record, want, deadlines),
                None => Ok(self.mint(resource_id, Some(&record), &deadlines.call, deadlines.waits())?),
            },
        }
    }

    /// Whether a record already is what the caller wants.
    fn satisfies(&self, record: &Record, want: Want, known: Option<&Secret>) -> bool {
        match want {
            Want::Fresh => self.schedule.is_fresh(record, &self.cache),
            // The time of an inactive location's next attempt says nothing about its token.
            Want::Runway => record.standing == Standing::Good && self.schedule.has_runway(record),
            // Another caller or process renewed it after this caller looked.
            Want::Another | Want::Now => {
                known.is_some_and(|known| !known.matches(record.token.access_token.expose()))
                    && !self.schedule.left(record, &self.cache).is_zero()
            }
        }
    }

    /// A failed refresh is hidden from callers while the old access token is still valid, unless they asked for a new one.
    /// If the store fails as well, the token in memory serves.
    fn fall_back(
        &self,
        error: Error,
        resource_id: &str,
        want: Want,
        attempt: Attempt,
        deadlines: &Deadlines,
    ) -> Result<Secret> {
        let changes = self.cache.changes(resource_id);
        // Cancelled or not, this look is brief and needs a moment.
        let record = self.records.load(resource_id, &deadlines.store.at_least(BRIEF_WAIT).within(LOCK_WAIT));
        // A token that no store knows any more was deleted; memory stands in for a store that fails.
        let in_memory = match record {
            Ok(None) => None,
            // By the uptime after the load, which may have taken a while.
            _ => self.cache.unexpired(resource_id, self.clock.uptime()),
        };
        let stored = record.ok().flatten();
        // That consent is needed stands in the record, if there is one: then the server is not asked anyway.
        let is_remembered = error.status() == Status::ReauthorizationRequired && stored.is_some();
        if attempt == Attempt::Failed && !is_remembered {
            self.cooldowns.failed(resource_id, &error, deadlines.call.now());
        }
        if attempt == Attempt::Failed
            && (stored.is_some() || in_memory.is_some())
            && !matches!(error.status(), Status::ReauthorizationRequired | Status::Cancelled)
        {
            let expires_at = stored.as_ref().map(|record| record.token.expires_at);
            self.emit(&Event::RefreshFailed(error.clone()), resource_id, expires_at);
        }
        let stale_reason = if attempt == Attempt::Busy { StaleReason::Busy } else { StaleReason::Failed };
        match (stored, in_memory) {
            _ if want != Want::Fresh => Err(error),
            (Some(record), _) if !self.schedule.left(&record, &self.cache).is_zero() => {
                self.serve_stale(changes, &record, stale_reason);
                Ok(record.token.access_token.clone())
            }
            (_, Some(in_memory)) => Ok(in_memory),
            _ => Err(error),
        }
    }

    /// Keeps an old token in memory for the callers that come meanwhile.
    pub(super) fn serve_stale(&self, changes: u64, record: &Record, stale_reason: StaleReason) {
        let left = self.schedule.left(record, &self.cache);
        let token = (record.token.access_token.clone(), record.token.company_id.as_deref());
        self.cache.serve_stale(changes, &record.resource_id, token, self.clock.uptime(), left, stale_reason);
    }

    /// The error of a resource that must not be asked for again yet.
    pub(super) fn blocked_by_state(&self, record: &Record, want: Want, deadline: &Deadline) -> Option<Error> {
        match &record.standing {
            Standing::Good => None,
            // A person asks.
            Standing::Inactive { .. } if want == Want::Now => None,
            Standing::Inactive { since_ms } => {
                // A clock that was set back must not hold it back for longer.
                let passed = self.clock.wall_ms().saturating_sub(*since_ms);
                let left = INACTIVE_HOLD_MS - passed;
                (0..INACTIVE_HOLD_MS).contains(&passed).then(|| {
                    Error::new(Status::LocationInactive, "the location is not active; its token is kept")
                        .with_help("try again once the location is active")
                        .with_retry_after(Some(Duration::from_millis(left.unsigned_abs())))
                })
            }
            // Found by a clock that was ahead: the server is asked, and it is written down anew.
            Standing::ReauthorizationRequired { since_ms, .. }
                if *since_ms > self.clock.wall_ms().saturating_add(CLOCK_TOLERANCE_MS) =>
            {
                None
            }
            Standing::ReauthorizationRequired { reason, .. } => {
                if record.token.kind() == UserType::Location
                    && (self.has_newer_company(record, deadline)
                        || self.has_newer_installation(record, deadline))
                {
                    return None;
                }
                Some(reauthorization_required(reason))
            }
        }
    }

    /// Whether the location's company got new consent after the location's token was refused, or has a token again.
    fn has_newer_company(&self, record: &Record, deadline: &Deadline) -> bool {
        let Standing::ReauthorizationRequired { since_ms, lacks_company, .. } = record.standing else {
            return false;
        };
        let load = |id: &str| self.records.load(id, deadline).ok().flatten();
        record
            .token
            .company_id
            .as_deref()
            .and_then(load)
            .filter(|company| company.standing == Standing::Good)
            .is_some_and(|company| lacks_company || company.installed_at() > since_ms)
    }

    /// Spends the refresh token.
    fn refresh_locked(
        &self,
        mut record: Record,
        want: Want,
        deadlines: &Deadlines,
    ) -> Result<Secret, RenewalError> {
        let deadline = &deadlines.call;
        let Some(refresh_token) = record.token.refresh_token.clone() else {
            return Ok(self.mint(&record.resource_id, Some(&record), deadline, deadlines.waits())?);
        };
        // An earlier use had no answer, here or in a process that died: this one may find the token spent.
        let now = self.clock.wall_ms();
        let first_sent_ago = record.intent.map(|intent| now.saturating_sub(intent.since_ms));
        let mut retry = RefreshRetry::new(first_sent_ago, self.clock.uptime());
        record.intent.get_or_insert(Intent { since_ms: now });
        // If the intent cannot be written down, the successor could not be saved: then nothing is spent.
        self.note_standing(&mut record, &deadlines.store).map_err(before_sending)?;

        let kind = Some(record.token.kind());
        let mut params = TokenParams::refresh(refresh_token, kind);
        loop {
            let policy = TokenRetry::Replay { resource_id: &record.resource_id };
            let failure = match self.api.token(&params, policy, self.clock.wall_ms(), deadline) {
                Ok(token) => {
                    Tokens::count(&self.counters.refreshed);
                    return Ok(self.refreshed(record, token, deadline)?);
                }
                // The refresh token is a company's that was stored under a location, or the reverse. The answer says whose.
                Err(failure) if params.user_type.is_some() && says_wrong_token_kind(&failure.error) => {
                    params.user_type = None;
                    continue;
                }
                Err(failure) => failure,
            };
            // A pass of maintenance comes back by itself.
            let must_succeed = want != Want::Runway && self.schedule.left(&record, &self.cache).is_zero();
            let pause = retry.after(&failure, self.clock.uptime(), must_succeed, deadline.remaining());
            let Some(pause) = pause else {
                return Ok(self.failed(record, failure, retry.may_be_spent(), deadline)?);
            };
            if let Err(over) = deadline.sleep(pause) {
                // Called invalid once, after a lost answer, is no verdict yet: the next call continues from here.
                let no_verdict = failure.outcome == Outcome::Refused || over.status() == Status::Cancelled;
                let failure =
                    if no_verdict { Failure { error: over, outcome: Outcome::Unknown } } else { failure };
                return Ok(self.failed(record, failure, retry.may_be_spent(), deadline)?);
            }
            log::warn!("the refresh of {} is sent again: {}", record.resource_id, failure.error);
            Tokens::count(&self.api.counters().repeated);
        }
    }

    /// The answer to a refresh: filed under the owner that it names.
    fn refreshed(&self, mut record: Record, token: Token, deadline: &Deadline) -> Result<Secret> {
        let spent = Arc::clone(&record.token);
        // As long as it is not known, the beginning is taken from the first token: the next one has a later time.
        record.installed_at.get_or_insert(record.installed_at());
        // An answer without a refresh token leaves the old one in use (RFC 6749, section 6).
        let is_used_up =
            |old: &&Secret| token.refresh_token.as_ref().is_some_and(|new| !new.matches(old.expose()));
        if let Some(refresh_token) = spent.refresh_token.as_ref().filter(is_used_up) {
            let save_deadline = deadline.at_least(SAVE_TIME);
            self.records.add_spent(&mut record, refresh_token, self.clock.as_ref(), &save_deadline);
        }
        if token.is_of_another(&record.resource_id, spent.kind()) {
            return self.refreshed_another(record, token, deadline);
        }
        let mut record = replaced(record, token);
        self.save_and_publish(&mut record, Origin::Refresh(spent), &Event::Refreshed, deadline)
    }

    /// The refresh token belonged to another owner, whose new token came back: it is kept there. Only the old access token
    /// of this resource is left.
    fn refreshed_another(&self, mut record: Record, token: Token, deadline: &Deadline) -> Result<Secret> {
        let resource_id = record.resource_id.clone();
        let owner = token.resource_id().map(str::to_owned);
        log::error!(
            "{resource_id}: its refresh token was that of {}, whose token came back and is kept there",
            owner.as_deref().unwrap_or("an unknown owner")
        );
        // The owner's record knows that refresh token as spent as well.
        let spent = Arc::clone(&record.token);
        let filed = owner.as_deref().map(|owner| self.save_for_owner(owner, token, Some(&spent), deadline));
        let error = Error::new(Status::Protocol, "the refresh was answered with the token of another owner")
            .with_help("the stored refresh token belongs to another company or location; import the right one, or let the user consent again")
            .with_resource(&resource_id);
        if let Some(Err(unfiled)) = filed {
            log::error!("{resource_id}: that token could not be kept: {unfiled}");
        }
        Arc::make_mut(&mut record.token).refresh_token = None;
        record.intent = None;
        self.without_refresh_token(record, error, deadline)
    }

    /// A refresh that gave no token: what is now known is written down.
    fn failed(
        &self,
        mut record: Record,
        failure: Failure,
        in_doubt: bool,
        deadline: &Deadline,
    ) -> Result<Secret> {
        let Failure { error, outcome } = failure;
        match (outcome, error.status()) {
            (Outcome::Refused, Status::ReauthorizationRequired) => {
                return self.on_invalid_grant(record, error, deadline);
            }
            (Outcome::Refused, Status::LocationInactive) => {
                record.standing = Standing::Inactive { since_ms: self.clock.wall_ms() };
                record.intent = None;
            }
            // The token was not looked at; unless an earlier use is in doubt, it is as good as before. A page that is not the
            // API's does not tell.
            (Outcome::Refused, _) if error.http_status().is_some() && !error.is_verdict() => {}
            (Outcome::Refused | Outcome::NothingHappened, _) if !in_doubt => record.intent = None,
            _ => {}
        }
        if outcome == Outcome::NothingHappened && error.status() == Status::Timeout {
            self.cooldowns.unreachable(&record.resource_id, &error, deadline.now());
        }
        if let Err(unnoted) = self.note_standing(&mut record, &deadline.at_least(SAVE_TIME)) {
            log::error!("{}: the end of a refresh could not be written down: {unnoted}", record.resource_id);
        }
        Err(error)
    }

    /// The refresh token is spent, expired or unknown.
    fn on_invalid_grant(&self, record: Record, error: Error, deadline: &Deadline) -> Result<Secret> {
        // A host that does not share the lock may have rotated it.
        if let Some(stored) = self.records.store().load(&record.resource_id, &deadline.at_least(SAVE_TIME))? {
            let same = match (&stored.token.refresh_token, &record.token.refresh_token) {
                (Some(theirs), Some(ours)) => theirs.matches(ours.expose()),
                (theirs, ours) => theirs.is_none() == ours.is_none(),
            };
            if !same {
                let rotated = "another process replaced the refresh token meanwhile";
                return Err(Error::new(Status::Conflict, rotated).with_resource(&record.resource_id));
            }
        }
        self.without_refresh_token(record, error, deadline)
    }

    /// No refresh token is left: a location is minted from its company's token, if the API allows it. Otherwise only a
    /// person's consent helps.
    fn without_refresh_token(&self, mut record: Record, error: Error, deadline: &Deadline) -> Result<Secret> {
        let mut lacks_company = false;
        if record.token.kind() == UserType::Location {
            // A minted token may come without a refresh token, and must not keep the spent one.
            let mut stripped = record.clone();
            Arc::make_mut(&mut stripped.token).refresh_token = None;
            match self.mint(&record.resource_id, Some(&stripped), deadline, deadline) {
                // No company to mint with, or none that may: then only consent is left.
                Err(mint) if is_verdict_on_mint(&mint) => {
                    lacks_company = mint.resource_id().is_some_and(|id| id != record.resource_id);
                    log::warn!("{}: no new token from its company: {mint}", record.resource_id);
                }
                // The next call tries again: with the record as it was, or without its refresh token if that is another's.
                Err(mint) if record.token.refresh_token.is_none() => {
                    if let Err(unnoted) = self.note_standing(&mut record, &deadline.at_least(SAVE_TIME)) {
                        log::error!(
                            "{}: a lost refresh token could not be written down: {unnoted}",
                            record.resource_id
                        );
                    }
                    return Err(mint);
                }
                minted => return minted,
            }
        }
        let reason =
            error.api().and_then(|fault| fault.message.clone()).unwrap_or_else(|| error.message().to_owned());
        record.standing =
            Standing::ReauthorizationRequired { since_ms: self.clock.wall_ms(), reason, lacks_company };
        record.intent = None;
        if let Err(unnoted) = self.note_standing(&mut record, &deadline.at_least(SAVE_TIME)) {
            log::error!(
                "{}: that consent is needed could not be written down: {unnoted}",
                record.resource_id
            );
        }
        let error = error.with_resource(&record.resource_id);
        self.emit(
            &Event::ReauthorizationRequired(error.clone()),
            &record.resource_id,
            Some(record.token.expires_at),
        );
        Err(error)
    }

    /// Mints a location's token from its company's. Spends nothing. The company's token is waited for until `waits`.
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
            return Err(reauthorization_required("the company's token came without a refresh token"));
        }
        let company_id = self.company_of(location_id, record, waits)?;
        let mut record = self.minted(location_id, &company_id, record, deadline, waits)?;
        self.save_and_publish(&mut record, Origin::Mint, &Event::Minted, deadline)
    }

    /// A location's record with a token that was minted just now, and that is not saved yet.
    pub(super) fn minted(
        &self,
        location_id: &str,
        company_id: &str,
        record: Option<&Record>,
        deadline: &Deadline,
        waits: &Deadline,
    ) -> Result<Record> {
        // Before the mint: a deletion that comes from now on is noticed when the token is saved.
        let as_of = self.records.count();
        let last_deleted = match record {
            Some(_) => 0,
            None => self.records.last_deleted(location_id, deadline)?,
        };
        let began = self.clock.wall_ms();
        let minted = self.with_company_bearer(company_id, deadline, waits, |bearer| {
            let minted =
                self.api.location_token(company_id, location_id, bearer, self.clock.wall_ms(), deadline);
            minted.inspect_err(|failure| {
                if failure.outcome == Outcome::NothingHappened && failure.error.status() == Status::Timeout {
                    self.cooldowns.unreachable(location_id, &failure.error, deadline.now());
                }
            })
        });
        let token = match (minted, record) {
            (Ok(token), _) => token,
            (Err(error), Some(record)) if error.status() == Status::LocationInactive => {
                let mut record = record.clone();
                record.standing = Standing::Inactive { since_ms: self.clock.wall_ms() };
                record.intent = None;
                self.note_standing(&mut record, &deadline.at_least(SAVE_TIME))?;
                return Err(error);
            }
            (Err(error), _) => return Err(error),
        };
        Tokens::count(&self.counters.minted);
        let begins = self.installation_begin(location_id, record, began, deadline);
        let mut record = match record {
            Some(record) => replaced(record.clone(), token),
            None => Record { predecessor: last_deleted, as_of, ..Record::new(location_id.to_owned(), token) },
        };
        (record.installed_at, record.own_consent) = (Some(begins), false);
        Ok(record)
    }

    /// Writes down how a resource stands; its token stays what it is.
    fn note_standing(&self, record: &mut Record, deadline: &Deadline) -> Result<()> {
        record.renew_at = self.schedule.renewal(record);
        self.records.note_standing(record, deadline)
    }
}

/// A lock or a store that is busy, before anything was sent.
fn before_sending(error: Error) -> RenewalError {
    let attempt = if error.status() == Status::Timeout { Attempt::Busy } else { Attempt::Failed };
    RenewalError { error, attempt }
}

/// Whether a mint failed for a reason that leaves only consent: no company to mint with, or the API's own refusal.
fn is_verdict_on_mint(error: &Error) -> bool {
    match error.status() {
        Status::NotFound | Status::ReauthorizationRequired => {
            error.http_status().is_none() || error.is_verdict()
        }
        Status::Forbidden => error.is_verdict(),
        _ => false,
    }
}

/// A record with a new token in the place of the old one.
fn replaced(mut record: Record, token: Token) -> Record {
    record.token = Arc::new(token.completed_from(&record.token));
    record.standing = Standing::Good;
    record.intent = None;
    record
}

fn reauthorization_required(reason: &str) -> Error {
    Error::new(Status::ReauthorizationRequired, format!("the connection was lost: {reason}"))
        .with_help("let the user consent again (authorization_url), or import a new token")
}
