//! The flight's body: lock, read again, say what will be done, send, save, publish, unlock. In this order a
//! single-use refresh token is spent by one process only, and what it bought is never handed out unsaved.

use super::doubt::Doubt;
use super::{Tokens, Want, hold};
use crate::api::{Failure, Outcome, TokenParams};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::secret::Secret;
use crate::store::{Intent, Record, Standing};
use crate::token::{Token, UserType};
use std::sync::Arc;
use std::time::Duration;

/// How long a location that the API calls inactive is left in peace.
pub(super) const INACTIVE_HOLD_MS: i64 = 60_000;

/// Whether an error is that of an attempt: the host is told of those.
#[derive(PartialEq)]
enum Attempt {
    Failed,
    NotMade,
}

/// What a look at the record without its lock shows.
enum Look {
    /// A token that somebody else renewed.
    Taken(Secret),
    /// Nothing can be tried now, for that reason.
    NotNow(Error),
    /// It is to be renewed.
    Due,
}

impl Tokens {
    /// A token that fulfils `want`: somebody else's, or a new one. Runs once at a time per resource, across all
    /// who share the store.
    pub(super) fn renew(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadline: &Deadline,
    ) -> Result<Secret> {
        if want == Want::Fresh
            && let Some(token) = self.with_fresh(resource_id, Secret::clone)
        {
            return Ok(token); // The flight before this one landed between the caller's look and its seat.
        }
        let renewed = match self.without_lock(resource_id, want, known, deadline) {
            Ok(Look::Taken(token)) => Ok(token),
            Ok(Look::NotNow(error)) => return self.despite(error, resource_id, want, Attempt::NotMade),
            Ok(Look::Due) => self.with_lock(resource_id, want, known, deadline),
            Err(error) => Err(error),
        };
        renewed.or_else(|error| {
            Tokens::count(&self.counters.failed);
            self.despite(error, resource_id, want, Attempt::Failed)
        })
    }

    /// What needs no lock of this resource. A token that somebody else renewed is taken as it is. Where a location will
    /// be minted, its company's token is seen to: who waits for that must hold nothing that the company's refresh needs,
    /// and a lock can be a place in a pool of connections.
    fn without_lock(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadline: &Deadline,
    ) -> Result<Look> {
        let changes = self.live.changes(resource_id);
        let record = self.record(resource_id)?;
        if let Some(record) = &record {
            if self.fulfils(record, want, known) {
                let published = self.publish_since(Some(changes), record);
                let token = &record.token.access_token;
                return Ok(if published { Look::Taken(token.clone()) } else { Look::Due });
            }
            if let Some(error) = self.held_back(record) {
                return Ok(Look::NotNow(error));
            }
            if record.token.kind() == UserType::Company || record.token.refresh_token.is_some() {
                return Ok(Look::Due);
            }
        }
        let company_id = match self.company_of(resource_id, record.as_ref()) {
            Err(error) if error.status() == Status::NotFound => return Ok(Look::NotNow(error)),
            company_id => company_id?,
        };
        if self.with_fresh(&company_id, |_| ()).is_none() && self.holds_company(&company_id)? {
            self.access_token(&company_id, || deadline.clone())?;
        }
        Ok(Look::Due)
    }

    /// Renews under the resource's lock.
    fn with_lock(
        &self,
        resource_id: &str,
        want: Want,
        known: Option<&Secret>,
        deadline: &Deadline,
    ) -> Result<Secret> {
        let _lock = self.store.lock(resource_id, deadline)?;
        // What the store still does not take stays in memory, and was logged.
        let _ = self.offer_locked(resource_id);
        let mut tries = 0;
        loop {
            tries += 1;
            match self.renew_locked(resource_id, want, known, deadline) {
                // Somebody wrote without the lock: what they wrote is looked at first.
                Err(error) if error.status() == Status::Conflict && tries < 3 => {}
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
        deadline: &Deadline,
    ) -> Result<Secret> {
        match self.record(resource_id)? {
            None => self.mint(resource_id, None, deadline),
            Some(record) if self.fulfils(&record, want, known) => {
                self.publish(&record);
                Ok(record.token.access_token.clone())
            }
            Some(record) => match self.held_back(&record) {
                Some(error) => Err(error),
                None if record.token.refresh_token.is_some() => self.spend(record, want, deadline),
                None => self.mint(resource_id, Some(&record), deadline),
            },
        }
    }

    /// Whether a record already is what the caller wants.
    fn fulfils(&self, record: &Record, want: Want, known: Option<&Secret>) -> bool {
        let now = self.clock.wall_ms();
        match want {
            // A token that this process knows to be due stays due, whatever the wall clock has come to say.
            Want::Fresh => {
                record.token.is_fresh(now, self.policy.margin())
                    && !self.live.is_due(&record.resource_id, &record.token.access_token, self.clock.uptime())
            }
            Want::Runway => self.renewal(record) > now,
            // Somebody else renewed it after the caller looked.
            Want::Another => {
                known.is_some_and(|known| !known.matches(record.token.access_token.expose()))
                    && record.token.is_alive(now)
            }
        }
    }

    /// While the old access token lives, a failed renewal fails nobody who did not ask for a new one. Where the store
    /// fails as well, the one in memory will do.
    fn despite(&self, error: Error, resource_id: &str, want: Want, attempt: Attempt) -> Result<Secret> {
        let (now, uptime) = (self.clock.wall_ms(), self.clock.uptime());
        let changes = self.live.changes(resource_id);
        let record = self.record(resource_id);
        // What no store knows any more was deleted; memory stands in for a store that fails.
        let in_memory = match record {
            Ok(None) => None,
            _ => self.live.alive(resource_id, uptime),
        };
        let stored = record.ok().flatten().map(|record| record.token);
        if attempt == Attempt::Failed
            && (stored.is_some() || in_memory.is_some())
            && !matches!(error.status(), Status::ReauthorizationRequired | Status::Cancelled)
        {
            let expires_at = stored.as_ref().map(|token| token.expires_at);
            self.emit(&Event::RefreshFailed(error.clone()), resource_id, expires_at);
        }
        match (stored.filter(|token| token.is_alive(now)), in_memory) {
            _ if want != Want::Fresh => Err(error),
            (Some(old), _) => {
                let token = old.access_token.clone();
                self.live.hold_on(changes, resource_id, token, uptime, old.left(now), hold);
                Ok(old.access_token.clone())
            }
            (None, Some(in_memory)) => Ok(in_memory),
            (None, None) => Err(error),
        }
    }

    /// The error of a resource that must not be asked for again yet.
    pub(super) fn held_back(&self, record: &Record) -> Option<Error> {
        match &record.standing {
            Standing::Good => None,
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
            Standing::ReauthorizationRequired { reason, .. } => {
                if record.token.kind() == UserType::Location
                    && (self.has_newer_company(record) || self.has_newer_installation(record))
                {
                    return None;
                }
                Some(reauthorization_required(reason))
            }
        }
    }

    /// Whether the location's company got new consent after the location's token was refused.
    fn has_newer_company(&self, record: &Record) -> bool {
        let Standing::ReauthorizationRequired { since_ms, .. } = record.standing else {
            return false;
        };
        let company = record.token.company_id.as_deref().and_then(|id| self.record(id).ok().flatten());
        company.is_some_and(|company| {
            company.standing == Standing::Good
                && company.token.issued_at.is_some_and(|issued| issued > since_ms)
        })
    }

    /// Spends the refresh token.
    fn spend(&self, mut record: Record, want: Want, deadline: &Deadline) -> Result<Secret> {
        let Some(refresh_token) = record.token.refresh_token.clone() else {
            return self.mint(&record.resource_id.clone(), Some(&record), deadline);
        };
        // An earlier use had no answer, here or in a process that died: this one may find the token spent.
        let now = self.clock.wall_ms();
        let first_sent_ago = record.intent.map(|intent| now.saturating_sub(intent.since_ms));
        let mut doubt = Doubt::new(first_sent_ago, self.clock.uptime());
        record.intent.get_or_insert(Intent { since_ms: now });
        // What cannot be written down now could not be kept later: then nothing is spent.
        self.note(&mut record)?;

        let params = TokenParams::refresh(record.resource_id.clone(), refresh_token, record.token.kind());
        loop {
            let failure = match self.api.token(&params, self.clock.wall_ms(), deadline) {
                Ok(token) => {
                    Tokens::count(&self.counters.refreshed);
                    return Ok(self.keep(replaced(record, token), &Event::Refreshed));
                }
                Err(failure) => failure,
            };
            // A pass of maintenance comes back by itself.
            let insists = want != Want::Runway && !record.token.is_alive(self.clock.wall_ms());
            let Some(pause) = doubt.after(&failure, self.clock.uptime(), insists, deadline.remaining())
            else {
                return self.failed(record, failure, doubt.may_be_spent(), deadline);
            };
            if let Err(over) = deadline.sleep(pause) {
                // Called invalid once, after a lost answer, is no verdict yet: the next call goes on from here.
                let no_verdict = failure.outcome == Outcome::Refused || over.status() == Status::Cancelled;
                let failure =
                    if no_verdict { Failure { error: over, outcome: Outcome::Unknown } } else { failure };
                return self.failed(record, failure, doubt.may_be_spent(), deadline);
            }
            log::warn!("the refresh of {} is sent again: {}", record.resource_id, failure.error);
            Tokens::count(&self.api.counters().repeated);
        }
    }

    /// A refresh that gave no token: what is now known is written down.
    fn failed(
        &self,
        mut record: Record,
        failure: Failure,
        doubtful: bool,
        deadline: &Deadline,
    ) -> Result<Secret> {
        let Failure { error, outcome } = failure;
        match (outcome, error.status()) {
            (Outcome::Refused, Status::ReauthorizationRequired) => {
                return self.spent(record, error, deadline);
            }
            (Outcome::Refused, Status::LocationInactive) => {
                record.standing = Standing::Inactive { since_ms: self.clock.wall_ms() };
                record.intent = None;
            }
            // The token was not looked at; unless an earlier use is in doubt, it is as good as before.
            (Outcome::Refused | Outcome::NothingHappened, _) if !doubtful => record.intent = None,
            _ => {}
        }
        if let Err(unnoted) = self.note(&mut record) {
            log::error!("{}: the end of a refresh could not be written down: {unnoted}", record.resource_id);
        }
        Err(error)
    }

    /// The refresh token is spent, expired or unknown.
    fn spent(&self, mut record: Record, error: Error, deadline: &Deadline) -> Result<Secret> {
        // A host that does not share the lock may have rotated it.
        if let Some(stored) = self.store.load(&record.resource_id)? {
            let same = match (&stored.token.refresh_token, &record.token.refresh_token) {
                (Some(theirs), Some(ours)) => theirs.matches(ours.expose()),
                (theirs, ours) => theirs.is_none() == ours.is_none(),
            };
            if !same && stored.token.is_alive(self.clock.wall_ms()) {
                self.publish(&stored);
                return Ok(stored.token.access_token.clone());
            }
        }
        if record.token.kind() == UserType::Location {
            match self.mint(&record.resource_id.clone(), Some(&record), deadline) {
                // No company to mint with, or none that may: then only consent is left.
                Err(mint)
                    if matches!(
                        mint.status(),
                        Status::NotFound | Status::ReauthorizationRequired | Status::Forbidden
                    ) =>
                {
                    log::warn!("{}: no new token from its company: {mint}", record.resource_id);
                }
                minted => return minted,
            }
        }
        let reason =
            error.api().and_then(|fault| fault.message.clone()).unwrap_or_else(|| error.message().to_owned());
        record.standing = Standing::ReauthorizationRequired { since_ms: self.clock.wall_ms(), reason };
        record.intent = None;
        if let Err(unnoted) = self.note(&mut record) {
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

    /// Mints a location's token from its company's. Spends nothing.
    fn mint(&self, location_id: &str, record: Option<&Record>, deadline: &Deadline) -> Result<Secret> {
        if let Some(record) = record
            && record.token.kind() == UserType::Company
        {
            return Err(reauthorization_required("the company's token came without a refresh token"));
        }
        let company_id = self.company_of(location_id, record)?;
        let record = self.minted(location_id, &company_id, record, deadline)?;
        Ok(self.keep(record, &Event::Minted))
    }

    /// A location's record with a token that was minted just now, and that nobody has saved yet.
    pub(super) fn minted(
        &self,
        location_id: &str,
        company_id: &str,
        record: Option<&Record>,
        deadline: &Deadline,
    ) -> Result<Record> {
        let minted = self.with_bearer(company_id, None, deadline, |bearer| {
            self.api.location_token(company_id, location_id, bearer, self.clock.wall_ms(), deadline)
        });
        let token = match (minted, record) {
            (Ok(token), _) => token,
            (Err(error), Some(record)) if error.status() == Status::LocationInactive => {
                let mut record = record.clone();
                record.standing = Standing::Inactive { since_ms: self.clock.wall_ms() };
                record.intent = None;
                self.note(&mut record)?;
                return Err(error);
            }
            (Err(error), _) => return Err(error),
        };
        Tokens::count(&self.counters.minted);
        Ok(match record {
            Some(record) => replaced(record.clone(), token),
            None => Record::new(location_id.to_owned(), token),
        })
    }

    /// Writes down how a resource stands; its token stays what it is.
    fn note(&self, record: &mut Record) -> Result<()> {
        record.renew_at = self.renewal(record);
        match self.store.save(record) {
            Ok(version) => {
                record.version = version;
                Ok(())
            }
            Err(error) => Err(error.with_resource(&record.resource_id)),
        }
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
