//! Publication of tokens into the cache that serves the callers, and a token's remaining life. A
//! deletion or a newer token that came meanwhile is never undone.

use std::sync::Arc;
use std::time::Duration;

use super::BRIEF_WAIT;
use super::records::Records;
use super::schedule::Schedule;
use super::token_cache::{CachedToken, StaleReason, TokenCache};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::secret::Secret;
use crate::store::Record;
use crate::token::Token;

/// The tokens that this process serves.
pub struct PublishedTokens {
    pub(super) cache: Arc<TokenCache>,
    pub(super) records: Arc<Records>,
    pub(super) schedule: Arc<Schedule>,
    pub(super) clock: Arc<dyn Clock>,
}

impl PublishedTokens {
    /// A token that is valid for more than `least`, due or not, from the cache or the store.
    pub fn valid(&self, resource_id: &str, least: Duration, deadline: &Deadline) -> Option<Secret> {
        self.valid_in_cache(resource_id, least).or_else(|| {
            let changes = self.cache.changes(resource_id);
            let record =
                self.records.load(resource_id, &deadline.within(BRIEF_WAIT)).ok().flatten()?;
            let is_valid = self.left(&record) > least;
            // Cached so that it can still be served if the store fails.
            is_valid.then(|| {
                self.serve_stale(changes, &record, StaleReason::Due);
                record.token.access_token.clone()
            })
        })
    }

    /// A token that is valid for more than `least`, due or not, from the cache.
    pub fn valid_in_cache(&self, resource_id: &str, least: Duration) -> Option<Secret> {
        let uptime = self.clock.uptime();
        self.cache.unexpired_for(resource_id, uptime).filter(|left| *left > least)?;
        self.cache.unexpired(resource_id, uptime)
    }

    /// A valid token of the store other than `known`: another process has renewed it since.
    pub fn newer_than(
        &self,
        known: &Secret,
        resource_id: &str,
        deadline: &Deadline,
    ) -> Option<Secret> {
        let changes = self.cache.changes(resource_id);
        let record = self.records.load(resource_id, deadline).ok().flatten()?;
        let stored = &record.token.access_token;
        if known.matches(stored.expose()) || self.left(&record).is_zero() {
            return None;
        }
        self.publish_since(changes, &record);
        Some(stored.clone())
    }

    /// The remaining lifetime of a record's token. A cached token ages by the uptime, so setting
    /// the wall clock back does not revive it. An uncached token that was issued in the future
    /// counts as expired.
    pub fn left(&self, record: &Record) -> Duration {
        let now = self.clock.wall_ms();
        let left = record.token.left(now);
        match self.cache.left(&record.resource_id, &record.token.access_token, self.clock.uptime())
        {
            Some(known) => known.min(left),
            None if record.token.is_issued_in_future(now) => Duration::ZERO,
            None => left,
        }
    }

    /// Whether the token can be served without a renewal.
    pub fn is_fresh(&self, record: &Record) -> bool {
        !record.token.is_issued_in_future(self.clock.wall_ms())
            && self.left(record) > self.schedule.margin(&record.token)
    }

    /// Caches the token of a record, unless this process deleted the resource after the count
    /// `as_of`.
    pub fn publish(&self, record: &Record, as_of: u64) {
        loop {
            let changes = self.cache.changes(&record.resource_id);
            if self.records.was_deleted_since(&record.resource_id, as_of) {
                return self.cache.forget(&record.resource_id);
            }
            if self.publish_since(changes, record) {
                return;
            }
        }
    }

    /// Caches the token of a record, unless the cache has changed since `changes`; see
    /// [`TokenCache::publish`].
    pub fn publish_since(&self, changes: u64, record: &Record) -> bool {
        self.cache.publish(&record.resource_id, self.cache_entry(record), Some(changes))
    }

    /// Caches the token of a record if the resource is cached already. Otherwise the first caller
    /// finds it in the store.
    pub fn publish_if_cached(&self, record: &Record) {
        self.cache.replace(&record.resource_id, self.cache_entry(record));
    }

    /// Caches a token as valid but due, so the next caller reads the store. The entry keeps the
    /// token's expiry by the uptime, independent of later changes of the wall clock.
    pub fn publish_due(&self, record: &Record) {
        let resource_id = &record.resource_id;
        loop {
            let changes = self.cache.changes(resource_id);
            if self.records.was_deleted_since(resource_id, record.as_of) {
                return self.cache.forget(resource_id);
            }
            let (uptime, left) = (self.clock.uptime(), self.left(record));
            let due = Self::entry_of(&record.token, uptime, uptime + left);
            if self.cache.publish(resource_id, due, Some(changes)) {
                return;
            }
        }
    }

    /// Keeps serving an old token from the cache.
    pub fn serve_stale(&self, changes: u64, record: &Record, stale_reason: StaleReason) {
        let left = self.left(record);
        let token = (record.token.access_token.clone(), record.token.company_id.as_deref());
        self.cache.serve_stale(
            changes,
            &record.resource_id,
            token,
            self.clock.uptime(),
            left,
            stale_reason,
        );
    }

    /// Removes a resource's token from the cache; the next caller reads the store.
    pub fn invalidate(&self, resource_id: &str) {
        if !self.records.is_unsaved(resource_id) {
            self.cache.forget(resource_id);
        }
    }

    /// The cache entry of a record. An unsaved token is fresh only until its next save attempt.
    fn cache_entry(&self, record: &Record) -> CachedToken {
        let (uptime, left) = (self.clock.uptime(), self.left(record));
        let mut fresh_until = uptime + left.saturating_sub(self.schedule.margin(&record.token));
        if let Some(next_save_at) = self.records.next_save_at(&record.resource_id) {
            fresh_until = fresh_until.min(next_save_at);
        }
        Self::entry_of(&record.token, fresh_until, uptime + left)
    }

    fn entry_of(token: &Arc<Token>, fresh_until: Duration, valid_until: Duration) -> CachedToken {
        let (access_token, company_id) = (token.access_token.clone(), token.company_id.as_deref());
        CachedToken::new(access_token, company_id, fresh_until, valid_until)
    }
}
