//! All writes of tokens: each new token is saved, then published. A token whose save fails is
//! served from memory, and its save is retried.

use std::sync::Arc;

use super::cooldown::Cooldowns;
use super::installation_state::Installations;
use super::published::PublishedTokens;
use super::records::{
    Deletion, DeletionTime, Keeping, Origin, Records, Replaced, SaveRetry, Saved, SavedCopy,
    same_token,
};
use super::rejected_tokens::RejectedTokens;
use super::reports::Reports;
use super::schedule::Schedule;
use super::token_cache::TokenCache;
use super::{DELETION_LOCK_WAIT, LOCK_WAIT, SAVE_TIME};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::deferred_callbacks;
use crate::error::log_fields::about;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::secret::Secret;
use crate::store::{Record, SpentDigest, Standing};
use crate::token::{Token, UserType};

/// Writes tokens to the store and publishes them.
pub struct TokenWriter {
    pub(super) records: Arc<Records>,
    pub(super) installations: Arc<Installations>,
    pub(super) cache: Arc<TokenCache>,
    pub(super) published: Arc<PublishedTokens>,
    pub(super) schedule: Arc<Schedule>,
    pub(super) cooldowns: Arc<Cooldowns>,
    pub(super) rejected: Arc<RejectedTokens>,
    pub(super) reports: Arc<Reports>,
    pub(super) clock: Arc<dyn Clock>,
}

impl TokenWriter {
    /// Saves a new token, publishes it and returns the access token. If the save fails, the token
    /// is served from memory and the save is retried with backoff. If another writer's token wins
    /// but has expired, for example because the clock was set back, the caller gets the new token,
    /// which the API has just granted.
    pub fn save_and_publish(
        &self,
        record: &mut Record,
        origin: Origin,
        event: &Event,
        deadline: &Deadline,
    ) -> Result<Secret> {
        record.renew_at = self.schedule.renewal(record);
        let changes = self.cache.changes(&record.resource_id);
        let save_deadline = deadline.at_least(SAVE_TIME);
        let is_first_mint = record.version == 0 && matches!(origin, Origin::Mint);
        let granted = Arc::clone(&record.token);
        let mut saved = self.records.save(record, &origin, &save_deadline);
        if is_first_mint {
            saved = saved.and_then(|saved| self.confirm_mint(record, saved, &save_deadline));
        }
        let is_useless = matches!(saved, Ok(Saved::Theirs))
            && (record.standing != Standing::Good || self.published.left(record).is_zero());
        let published = self
            .publish_saved(record, origin, saved, event, changes)
            // The token comes from a response.
            .map_err(|error| error.with_sent(true))?;
        Ok(if is_useless { granted.access_token.clone() } else { published })
    }

    /// Publishes a new token after the attempt to save it, unless the cache has changed since
    /// `changes`.
    fn publish_saved(
        &self,
        record: &Record,
        origin: Origin,
        saved: Result<Saved>,
        event: &Event,
        changes: u64,
    ) -> Result<Secret> {
        let (resource_id, expires_at) = (&record.resource_id, Some(record.token.expires_at));
        match saved {
            Ok(Saved::Deleted) => {
                self.records.forget_older(record, &origin);
                self.cache.forget(resource_id);
                return Err(self.dropped(record, &origin));
            }
            Ok(_) => {
                self.records.forget_older(record, &origin);
                self.cooldowns.clear(resource_id);
                if !self.published.publish_since(changes, record) {
                    self.published.publish_due(record);
                }
                self.reports.emit(event, resource_id, expires_at);
            }
            Err(error) => {
                let as_of = self.records.count();
                // Keep the copy before publishing: a reader without the lock that loads the record
                // in between notices the later change of the cache.
                match self.records.keep_unsaved(record.clone(), origin) {
                    Keeping::Kept => {}
                    Keeping::Deleted => {
                        self.cache.forget(resource_id);
                        return Err(deleted_meanwhile(resource_id));
                    }
                    Keeping::Newer => {
                        log::warn!(
                            "an older token was not saved; a newer one is kept{}",
                            error.fields(resource_id)
                        );
                        return Ok(record.token.access_token.clone());
                    }
                }
                log::error!("the new token is in memory only{}", error.fields(resource_id));
                self.cooldowns.clear(resource_id);
                self.published.publish(record, as_of);
                self.reports.emit(&Event::Unsaved(error), resource_id, expires_at);
            }
        }
        Ok(record.token.access_token.clone())
    }

    /// Saves new tokens in one batch and publishes them. `dropped` gets each token that was dropped
    /// because its resource was deleted, and the error.
    pub fn save_and_publish_all(
        &self,
        mut records: Vec<Record>,
        mut dropped: impl FnMut(&str, Error),
        deadline: &Deadline,
    ) -> Result<()> {
        let save_deadline = deadline.at_least(SAVE_TIME);
        let mut changes = Vec::with_capacity(records.len());
        for record in &mut records {
            record.renew_at = self.schedule.renewal(record);
            changes.push(self.cache.changes(&record.resource_id));
        }
        let mut failed = None;
        let store = self.records.store();
        let mut outcomes = match store.compares_tombstones() {
            true => store.save_all(&records, &save_deadline),
            false => Vec::new(),
        }
        .into_iter();
        for (mut record, changes) in records.into_iter().zip(changes) {
            let saved = self.save_minted(&mut record, outcomes.next(), &save_deadline);
            if let Err(error) = &saved {
                failed = Some(error.clone());
            }
            match saved {
                Ok(Saved::Ours | Saved::Theirs) => {
                    self.records.forget_older(&record, &Origin::Mint);
                    self.cooldowns.clear(&record.resource_id);
                    self.published.publish_if_cached(&record);
                    self.reports.emit(
                        &Event::Minted,
                        &record.resource_id,
                        Some(record.token.expires_at),
                    );
                }
                // Unsaved tokens are kept in memory. Tokens of deleted resources are dropped.
                saved => {
                    let published =
                        self.publish_saved(&record, Origin::Mint, saved, &Event::Minted, changes);
                    if let Err(error) = published {
                        dropped(&record.resource_id, error.with_sent(true));
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Completes the save of a minted token after the save of its batch, with this outcome. Without
    /// one, saves it: each save looks for a deletion first if the store does not.
    fn save_minted(
        &self,
        record: &mut Record,
        outcome: Option<Result<u64>>,
        deadline: &Deadline,
    ) -> Result<Saved> {
        let is_first = record.version == 0;
        let saved = match outcome {
            None => self.records.save(record, &Origin::Mint, deadline)?,
            Some(Ok(version)) => {
                record.version = version;
                match is_first {
                    true => self.records.confirm_first(record, &Origin::Mint, deadline)?,
                    false => Saved::Ours,
                }
            }
            Some(Err(error)) if error.status() == Status::Conflict => {
                self.records.save(record, &Origin::Mint, deadline)?
            }
            Some(Err(error)) => return Err(error),
        };
        if is_first { self.confirm_mint(record, saved, deadline) } else { Ok(saved) }
    }

    /// Saves a token under the owner that it names. Without `spent` the token comes from a consent,
    /// which begins an installation. Otherwise it comes from a refresh of another resource, which
    /// consumed the refresh token of `spent`.
    pub fn save_for_owner(
        &self,
        resource_id: &str,
        token: Token,
        spent: Option<&Arc<Token>>,
        deadline: &Deadline,
    ) -> Result<Record> {
        let is_consent = spent.is_none();
        let save_deadline = deadline.at_least(SAVE_TIME);
        let begins = is_consent.then(|| self.clock.wall_ms());
        let as_of = self.records.count();
        // A consent replaces the stored token; an unsaved copy may be older than that.
        let held = match is_consent {
            true => self.records.load_for_consent(resource_id, &save_deadline),
            false => self.records.load(resource_id, &save_deadline),
        };
        let unread = || Record { as_of, ..Record::new(resource_id.to_owned(), token.clone()) };
        let (record, origin) = match held {
            // Another process has imported this token and refreshed it: it holds the successor.
            Ok(Some(held))
                if token.refresh_token.as_ref().is_some_and(|own| held.has_spent(own)) =>
            {
                self.published.invalidate(resource_id);
                return Ok(held);
            }
            Ok(Some(held)) if spent.is_some_and(|spent| is_of_later_grant(&held, spent)) => {
                return Ok(held);
            }
            Ok(Some(held)) => {
                let origin = Origin::Consent(Some(Replaced::from(&held)));
                let installed_at = begins.or(held.installed_at);
                let token = Arc::new(token.clone().labelled(resource_id));
                (
                    Record {
                        token,
                        installed_at,
                        standing: Standing::Good,
                        intent: None,
                        last_failure: None,
                        ..held
                    },
                    origin,
                )
            }
            Ok(None) => {
                match self.records.new_record(resource_id.to_owned(), token.clone(), &save_deadline)
                {
                    Ok(record) if record.predecessor > 0 && !is_consent => {
                        return Err(deleted_meanwhile(resource_id));
                    }
                    Ok(record) => (record, Origin::Consent(None)),
                    Err(_) => (unread(), Origin::ConsentUnread),
                }
            }
            Err(_) => (unread(), Origin::ConsentUnread),
        };
        let origin = match spent {
            // Without having read the row, replace it only if it holds the spent refresh token.
            Some(spent) if record.version == 0 => Origin::Refresh(Arc::clone(spent)),
            _ => origin,
        };
        let installed_at = record.installed_at.or(Some(self.clock.wall_ms()));
        let own_consent =
            record.token.kind() == UserType::Location && (is_consent || record.own_consent);
        let mut record = Record { installed_at, own_consent, ..record };
        // A response without a refresh token leaves the old one valid (RFC 6749, section 6).
        let is_used_up = record.token.refresh_token.is_some();
        if let Some(spent) =
            spent.and_then(|spent| spent.refresh_token.as_ref()).filter(|_| is_used_up)
        {
            record.spent.add(&SpentDigest::of(spent));
        }
        self.save_and_publish(&mut record, origin, &Event::Saved, deadline)?;
        Ok(record)
    }

    /// Checks after the first save of a minted token for a concurrent UNINSTALL of its company,
    /// which may have missed the record. After an error, the token counts as unsaved, so that the
    /// check is repeated.
    fn confirm_mint(&self, record: &Record, saved: Saved, deadline: &Deadline) -> Result<Saved> {
        let company_id = record.token.company_id.as_deref().filter(|_| saved == Saved::Ours);
        let Some(company_id) = company_id else { return Ok(saved) };
        let last = self.installations.last(company_id, deadline)?;
        let began = record.installed_at();
        match last.filter(|last| last.uninstalled_after(began)) {
            None => Ok(saved),
            Some(last) => {
                self.records.delete(
                    &record.resource_id,
                    DeletionTime::with_company(last.at_ms),
                    |held| held.installed_at() <= last.at_ms && !held.own_consent,
                    deadline,
                )?;
                Ok(Saved::Deleted)
            }
        }
    }

    /// The error for a token that was dropped because its resource was deleted. A wrong clock can
    /// make a consent seem older than a deletion before it; then the user must consent again, and
    /// an event notifies the host.
    fn dropped(&self, record: &Record, origin: &Origin) -> Error {
        let resource_id = &record.resource_id;
        // The mint for an INSTALL has the origin of a consent as well, but it can be repeated.
        let is_consent = record.own_consent || record.token.kind() == UserType::Company;
        if !(is_consent && origin.is_consent()) {
            return deleted_meanwhile(resource_id);
        }
        log::error!(
            "the token of a consent was dropped because a later deletion is recorded{}",
            about(resource_id)
        );
        let error = Error::new(
            Status::ReauthorizationRequired,
            format!(
                "the token of {resource_id} was dropped because a deletion is dated after its \
                 consent"
            ),
        )
        .with_help(
            "synchronize the clocks of all hosts, then let the user consent again \
             (authorization_url)",
        )
        .with_resource(resource_id);
        self.reports.emit(
            &Event::ReauthorizationRequired(error.clone(), None),
            resource_id,
            Some(record.token.expires_at),
        );
        error
    }

    /// Saves the record's standing and intent; the token is unchanged.
    pub(super) fn note_standing(&self, record: &mut Record, deadline: &Deadline) -> Result<()> {
        record.renew_at = self.schedule.renewal(record);
        self.records.note_standing(record, deadline)
    }

    /// Retries the save of a resource's unsaved copy under the resource's lock.
    pub fn retry_save(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        if !self.records.is_unsaved(resource_id) {
            return Ok(());
        }
        let _deferred = deferred_callbacks::defer();
        let _lock = self.records.lock(resource_id, &deadline.within(LOCK_WAIT))?;
        self.retry_save_locked(resource_id, deadline)
    }

    /// Retries the save of an unsaved copy if its next attempt is due.
    pub fn retry_save_when_due(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        let is_due =
            self.records.next_save_at(resource_id).is_some_and(|at| at <= self.clock.uptime());
        if is_due { self.retry_save(resource_id, deadline) } else { Ok(()) }
    }

    /// Like [`TokenWriter::retry_save`], but proceeds without the lock if it is not free: the save
    /// is a compare-and-swap, and the client is closing.
    pub fn retry_save_on_close(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        let _deferred = deferred_callbacks::defer();
        let _lock = self.records.lock(resource_id, &deadline.within(LOCK_WAIT)).ok();
        self.retry_save_locked(resource_id, deadline)
    }

    /// Like [`TokenWriter::retry_save`], for a caller that holds the lock.
    pub fn retry_save_locked(&self, resource_id: &str, deadline: &Deadline) -> Result<()> {
        let as_of = self.records.count();
        let publish = |record: &Record| self.published.publish(record, as_of);
        let confirm = |copy: &SavedCopy, saved| match copy.origin {
            Origin::Mint => self.confirm_mint(&copy.record, saved, deadline),
            _ => Ok(saved),
        };
        match self.records.retry_save(resource_id, confirm, deadline) {
            SaveRetry::Nothing => Ok(()),
            SaveRetry::Refused(error) => {
                log::error!("the token is still in memory only{}", error.fields(resource_id));
                if let Some(record) = self.records.unsaved_copy(resource_id) {
                    publish(&record);
                }
                Err(error)
            }
            SaveRetry::Done(copy, Saved::Deleted) => {
                log::warn!(
                    "the unsaved token was dropped because the resource was deleted{}",
                    about(resource_id)
                );
                self.cache.forget(resource_id);
                self.dropped(&copy.record, &copy.origin);
                Ok(())
            }
            SaveRetry::Done(copy, _) => {
                let record = &copy.record;
                publish(record);
                self.reports.emit(&Event::Saved, resource_id, Some(record.token.expires_at));
                Ok(())
            }
        }
    }

    /// Deletes a record if `should_delete` agrees; see [`Records::delete`].
    pub fn delete_if(
        &self,
        resource_id: &str,
        time: impl Into<DeletionTime>,
        should_delete: impl Fn(&Record) -> bool,
        deadline: &Deadline,
    ) -> Result<Deletion> {
        // Wait only briefly for a running refresh: it cannot restore a deleted record.
        let lock = match self.records.lock(resource_id, &deadline.within(DELETION_LOCK_WAIT)) {
            Err(error) if error.status() == Status::Timeout => None,
            lock => Some(lock?),
        };
        let deletion = self
            .records
            .delete(resource_id, time, should_delete, deadline)
            .map_err(|error| error.with_resource(resource_id))?;
        drop(lock);
        if deletion == Deletion::Kept {
            // The newest copy may have been dropped: the next caller reads the store.
            self.cache.forget(resource_id);
        }
        if deletion == Deletion::Deleted
            || (deletion == Deletion::NotFound && self.cache.contains(resource_id))
        {
            self.forget_deleted(resource_id);
        }
        Ok(deletion)
    }

    pub fn forget_deleted(&self, resource_id: &str) {
        self.rejected.forget(resource_id);
        self.cooldowns.clear(resource_id);
        self.cache.forget(resource_id);
        self.reports.emit(&Event::Deleted, resource_id, None);
    }
}

/// Whether a good token belongs to a grant that began after `spent` was issued to another resource.
fn is_of_later_grant(held: &Record, spent: &Token) -> bool {
    held.standing == Standing::Good
        && held.token.refresh_token.is_some()
        && !same_token(&held.token, spent)
        && spent.issued_at.is_none_or(|issued_at| issued_at < held.installed_at())
}

fn deleted_meanwhile(resource_id: &str) -> Error {
    Error::new(
        Status::NotFound,
        format!("{resource_id} was deleted while its token was being renewed"),
    )
    .with_help("let the user consent again (authorization_url), or import a token")
    .with_resource(resource_id)
}
