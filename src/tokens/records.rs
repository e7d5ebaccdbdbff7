//! Records with conflict resolution, tombstones, and unsaved copies (new tokens whose save failed).
//!
//! - **Deletions are final.** A deletion leaves a tombstone: a note with the last version of the
//!   record. If a record is gone when its new token is saved, it was deleted meanwhile, and the
//!   token is dropped. A new record continues the version numbers after the tombstone, so a
//!   compare-and-swap with an old copy cannot succeed. If the store supports it, the first save
//!   checks the tombstone in the same transaction.
//! - **Newer copies win.** Each process counts its unsaved copies and deletions, and every loaded
//!   record carries the count at that time. So a refresh that finishes late does not replace the
//!   unsaved copy of a consent that came meanwhile, and a token in flight is dropped if its
//!   resource was deleted.
//! - **Conflicts are resolved by the content of the row,** not by comparing clocks: see [`Origin`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::BRIEF_WAIT;
use super::unsaved_failures::UnsavedFailures;
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::secret::Secret;
use crate::store::{
    Lock, Note, Page, Query, Record, SpentDigest, SpentDigests, Standing, Store, TOMBSTONE,
};
use crate::token::{CLOCK_TOLERANCE_MS, LastFailure, Token, UserType};

/// The list that contains all tombstones.
pub const TOMBSTONES: &str = "deleted";

/// Keys in a tombstone: the digests of spent refresh tokens, and of the tokens that were held at an
/// UNINSTALL.
const SPENT: &str = "spent";
const HELD: &str = "held";

/// Retention of tombstones and of spent digests: longer than a refresh token can live.
pub const RETENTION_MS: i64 = 400 * 86_400_000;

/// The state of a token that could not be saved.
const UNSAVED: &str = "unsaved";

/// How often a consent tries to read the stored record.
const READS: u32 = 3;

/// Tombstones per page.
const NOTES_PAGE: usize = 100;

/// Maximum number of save attempts under conflicts with other writers.
const MAX_ATTEMPTS: u32 = 8;

/// Above this many remembered deletions, those older than `MAX_CALL` are pruned.
const PRUNE_ABOVE: usize = 4096;

/// An upper bound on how long a call works with a record that it has loaded.
const MAX_CALL: Duration = Duration::from_secs(3600);

/// The origin of a new token, which decides conflicts with other writers.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A refresh that consumed the refresh token of this token. Replaces only this token.
    Refresh(Arc<Token>),
    /// A mint. It can be repeated, so a good token of another writer wins.
    Mint,
    /// A user's consent, given while the store held this token, if any. Replaces that token and its
    /// successors, but not the token of a later consent.
    Consent(Option<Replaced>),
    /// A consent given while the store could not be read: the later installation wins.
    ConsentUnread,
}

/// The token that a consent replaces, and the start of its installation.
#[derive(Debug, Clone)]
pub struct Replaced {
    token: Arc<Token>,
    installed_at: i64,
}

impl From<&Record> for Replaced {
    fn from(record: &Record) -> Replaced {
        Replaced { token: Arc::clone(&record.token), installed_at: record.installed_at() }
    }
}

/// The outcome of saving a new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// The token is stored.
    Ours,
    /// Another writer's token is stored and wins; the record was replaced by it.
    Theirs,
    /// The resource was deleted meanwhile; the token is dropped.
    Deleted,
}

/// An unsaved copy: a new token that only this process holds.
struct Unsaved {
    record: Record,
    origin: Origin,
    /// The count when the copy was added.
    added_at: u64,
    /// Failed save attempts since then.
    refusals: u32,
    next_save_at: Duration,
}

/// When a resource was deleted. A later consent survives the deletion.
#[derive(Debug, Clone, Copy)]
pub struct DeletionTime {
    pub at_ms: i64,
    /// When a location's own consent was deleted: not by its company's UNINSTALL.
    own_consent_at_ms: i64,
    /// Whether the app was uninstalled, which ends the tokens at the API as well.
    is_uninstall: bool,
}

impl From<i64> for DeletionTime {
    fn from(at_ms: i64) -> DeletionTime {
        DeletionTime { at_ms, own_consent_at_ms: at_ms, is_uninstall: false }
    }
}

impl DeletionTime {
    /// A deletion by the UNINSTALL of the resource.
    pub fn of_uninstall(at_ms: i64) -> DeletionTime {
        DeletionTime { at_ms, own_consent_at_ms: at_ms, is_uninstall: true }
    }

    /// A deletion by the UNINSTALL of the location's company.
    pub fn with_company(at_ms: i64) -> DeletionTime {
        DeletionTime { own_consent_at_ms: i64::MIN, ..DeletionTime::of_uninstall(at_ms) }
    }

    fn of(tombstone: &Note) -> DeletionTime {
        let at_ms = deleted_at(tombstone);
        let own_consent = tombstone.document.get("ownConsentAtMs").and_then(Value::as_i64);
        DeletionTime { own_consent_at_ms: own_consent.unwrap_or(at_ms), ..at_ms.into() }
    }

    /// The time of both deletions together.
    fn merged(self, other: DeletionTime) -> DeletionTime {
        DeletionTime {
            at_ms: self.at_ms.max(other.at_ms),
            own_consent_at_ms: self.own_consent_at_ms.max(other.own_consent_at_ms),
            is_uninstall: other.is_uninstall,
        }
    }

    /// When tokens of this record's kind were deleted.
    pub fn of_kind(self, record: &Record) -> i64 {
        if record.own_consent { self.own_consent_at_ms } else { self.at_ms }
    }

    /// Whether the token of a consent survives.
    fn spares(self, consent: &Record) -> bool {
        self.of_kind(consent) < consent.installed_at()
    }
}

/// A deletion by this process.
struct Deleted {
    /// The count when the deletion was complete.
    ended: u64,
    time: DeletionTime,
    uptime: Duration,
}

/// The unsaved copies and the recent deletions of this process.
#[derive(Default)]
struct Overlay {
    /// Incremented by every unsaved copy and deletion.
    count: u64,
    unsaved: HashMap<String, Unsaved>,
    deleted: HashMap<String, Deleted>,
}

/// The outcome of keeping a token whose save failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Kept; the save is retried.
    Kept,
    /// A newer unsaved copy exists and wins.
    Newer,
    /// This process deleted the resource meanwhile; the token is dropped.
    Deleted,
}

pub enum SaveRetry {
    /// No copy exists.
    Nothing,
    /// The stored record, and whose token it holds.
    Done(Box<SavedCopy>, Saved),
    /// The save failed again.
    Refused(Error),
}

pub struct SavedCopy {
    pub record: Record,
    pub origin: Origin,
}

/// A record, if it exists and is readable.
pub struct LoadedRecord {
    pub record: Option<Record>,
    pub is_unreadable: bool,
}

pub struct Records {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    overlay: Mutex<Overlay>,
    pub(super) failures: UnsavedFailures,
}

impl Records {
    /// The records in `store`, without unsaved copies.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Records {
        Records { store, clock, overlay: Mutex::default(), failures: UnsavedFailures::default() }
    }

    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// The newest record: the unsaved copy if there is one, otherwise the stored record.
    pub fn load(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Record>> {
        let as_of = {
            let overlay = self.overlay();
            if let Some(unsaved) = overlay.unsaved.get(resource_id) {
                return Ok(Some(Record { as_of: overlay.count, ..unsaved.record.clone() }));
            }
            overlay.count
        };
        Ok(self.store.load(resource_id, deadline)?.map(|record| Record { as_of, ..record }))
    }

    /// The stored record, ignoring an unsaved copy.
    pub fn load_stored(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Record>> {
        let as_of = self.count();
        Ok(self.store.load(resource_id, deadline)?.map(|record| Record { as_of, ..record }))
    }

    /// Whether this process deleted a resource after the count `as_of`.
    pub fn was_deleted_since(&self, resource_id: &str, as_of: u64) -> bool {
        self.overlay().deleted.get(resource_id).is_some_and(|deleted| deleted.ended > as_of)
    }

    /// Whether this record was read from the store, and this process has neither an unsaved copy of
    /// the resource, nor has kept or deleted anything since.
    pub fn is_newest_here(&self, record: &Record) -> bool {
        let overlay = self.overlay();
        // A copy that was never saved may have been dropped since, because of a deletion.
        let was_stored = record.version > 0;
        was_stored
            && overlay.count == record.as_of
            && !overlay.unsaved.contains_key(&record.resource_id)
    }

    /// The current count of unsaved copies and deletions, as `as_of` for a new record.
    pub fn count(&self) -> u64 {
        self.overlay().count
    }

    pub fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>> {
        self.store.lock(resource_id, deadline).map_err(|error| error.with_resource(resource_id))
    }

    /// A page of the stored records, with unsaved copies in place.
    pub fn list(&self, query: &Query, deadline: &Deadline) -> Result<Page> {
        let Page { mut records, mut unreadable, next } = self.store.list(query, deadline)?;
        let overlay = self.overlay();
        let unsaved = &overlay.unsaved;
        if !unsaved.is_empty() {
            let is_on_page = |id: &str| {
                query.after.as_deref().is_none_or(|after| id > after)
                    && next.as_deref().is_none_or(|last| id <= last)
            };
            records.retain(|record| !unsaved.contains_key(&record.resource_id));
            unreadable.retain(|row| !unsaved.contains_key(&row.resource_id));
            let copies = unsaved.values().map(|unsaved| &unsaved.record);
            let newer =
                copies.filter(|record| is_on_page(&record.resource_id) && query.matches(record));
            records.extend(newer.cloned());
            records.sort_by(|a, b| a.resource_id.cmp(&b.resource_id));
        }
        let page = Page::cut(records, query.limit);
        Ok(Page { unreadable, next: page.next.or(next), ..page })
    }

    /// A record that was never stored. Continues the versions of a deleted predecessor.
    pub fn new_record(
        &self,
        resource_id: String,
        token: Token,
        deadline: &Deadline,
    ) -> Result<Record> {
        let as_of = self.count();
        let predecessor = self.last_deleted(&resource_id, deadline)?;
        let installed_at = Some(self.clock.wall_ms());
        Ok(Record { predecessor, as_of, installed_at, ..Record::new(resource_id, token) })
    }

    /// Saves a new token and updates `record` to the stored state.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`: the token is not known to be saved.
    pub fn save(&self, record: &mut Record, origin: &Origin, deadline: &Deadline) -> Result<Saved> {
        if record.version == 0 && !self.outlives_deletion(record, origin, deadline)? {
            return Ok(Saved::Deleted);
        }
        for _ in 0..MAX_ATTEMPTS {
            match self.store.save(record, deadline) {
                Err(error) if error.status() == Status::Conflict => {
                    if let Some(end) = self.resolve(record, origin, deadline)? {
                        return Ok(end);
                    }
                }
                Err(error) => return Err(error.with_resource(&record.resource_id)),
                Ok(version) => {
                    // Including a first save whose confirmation failed.
                    let is_first = record.version == 0 || record.version == record.predecessor + 1;
                    record.version = version;
                    return if is_first {
                        self.confirm_first(record, origin, deadline)
                    } else {
                        Ok(Saved::Ours)
                    };
                }
            }
        }
        Err(Error::new(
            Status::Store,
            "the record was changed by other writers at every attempt to save it",
        )
        .with_resource(&record.resource_id))
    }

    /// Resolves a conflict; `None` if the save should be repeated.
    pub fn resolve(
        &self,
        record: &mut Record,
        origin: &Origin,
        deadline: &Deadline,
    ) -> Result<Option<Saved>> {
        let stored = match self.store.load(&record.resource_id, deadline) {
            // An unreadable record has nothing to lose.
            Err(error) if error.is_unreadable() => {
                record.version = self.store.version(&record.resource_id, deadline)?.unwrap_or(0);
                return Ok(None);
            }
            stored => stored?,
        };
        match stored {
            None if self.outlives_deletion(record, origin, deadline)? => Ok(None),
            None => Ok(Some(Saved::Deleted)),
            // An earlier save of this token was not acknowledged. Its record may tell more by now.
            Some(stored) if same_token(&stored.token, &record.token) => {
                *record = Record { as_of: record.as_of, ..stored };
                Ok(Some(Saved::Theirs))
            }
            Some(stored)
                if origin.supersedes(record, &stored, self.clock.wall_ms())
                    && !self.was_deleted_since_grant(record, origin, &stored, deadline)? =>
            {
                record.version = stored.version;
                record.spent = stored.spent.merged(&record.spent);
                Ok(None)
            }
            Some(stored) => {
                *record = Record { as_of: record.as_of, ..stored };
                Ok(Some(Saved::Theirs))
            }
        }
    }

    /// Whether the resource was deleted after the token was granted. The time of a consent is
    /// compared only if the stored token was minted after the deletion; otherwise the consent
    /// competes with the stored token alone.
    fn was_deleted_since_grant(
        &self,
        record: &Record,
        origin: &Origin,
        stored: &Record,
        deadline: &Deadline,
    ) -> Result<bool> {
        let is_consent = origin.is_consent();
        if is_consent && (stored.own_consent || stored.standing != Standing::Good) {
            return Ok(false);
        }
        // The store may have lost the version that this refresh saved before its request.
        if !is_consent && self.was_deleted_since(&record.resource_id, record.as_of) {
            return Ok(true);
        }
        let Some(tombstone) = self.tombstone(&record.resource_id, deadline)? else {
            return Ok(false);
        };
        let deleted = tombstone.deleted_version();
        let is_later = deleted > record.predecessor && deleted >= record.version;
        Ok(is_later && !(is_consent && DeletionTime::of(&tombstone).spares(record)))
    }

    /// Whether a token without a stored record may be saved: not if the record was deleted since
    /// the token was granted, unless the token's consent is later than that deletion.
    fn outlives_deletion(
        &self,
        record: &mut Record,
        origin: &Origin,
        deadline: &Deadline,
    ) -> Result<bool> {
        let tombstone = self.tombstone(&record.resource_id, deadline)?;
        let last_deleted = tombstone.as_ref().map_or(0, Note::deleted_version);
        if record.version == 0 && last_deleted == record.predecessor {
            return Ok(true);
        }
        // A consent whose refresh token was used before the deletion is not later, even if the
        // clocks say so.
        let is_later = |tombstone: &Note| {
            let refresh_token = record.token.refresh_token.as_ref();
            DeletionTime::of(tombstone).spares(record)
                && !refresh_token
                    .is_some_and(|token| spent_of(tombstone).contains(&SpentDigest::of(token)))
        };
        let is_spared = origin.is_consent() && tombstone.as_ref().is_none_or(is_later);
        if is_spared {
            (record.version, record.predecessor) = (0, last_deleted);
        }
        Ok(is_spared)
    }

    /// Checks for a deletion that ran concurrently with a record's first save and so missed the
    /// record. Not needed if the store compares tombstones.
    pub fn confirm_first(
        &self,
        record: &mut Record,
        origin: &Origin,
        deadline: &Deadline,
    ) -> Result<Saved> {
        if self.store.compares_tombstones() {
            return Ok(Saved::Ours);
        }
        let mut first = Record { version: 0, ..record.clone() };
        // The record is stored: if the tombstone cannot be read, assume no deletion.
        if self.outlives_deletion(&mut first, origin, deadline).unwrap_or(true) {
            return Ok(Saved::Ours);
        }
        // Another process may have added an intent or a successor; delete those as well.
        let is_ours = |held: &Record| {
            let spent = |ours: &Secret| held.has_spent(ours);
            same_token(&held.token, &record.token)
                || record.token.refresh_token.as_ref().is_some_and(spent)
        };
        self.delete(&record.resource_id, record.installed_at(), is_ours, deadline)?;
        Ok(Saved::Deleted)
    }

    /// Saves the record's standing and intent; the token is unchanged.
    ///
    /// # Errors
    /// `CONFLICT` if another writer saved first; `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn note_standing(&self, record: &mut Record, deadline: &Deadline) -> Result<()> {
        // The copy was never stored, and its resource may have been deleted meanwhile.
        if record.version == 0
            && !self.store.compares_tombstones()
            && self.last_deleted(&record.resource_id, deadline)? != record.predecessor
        {
            let message = "the resource was deleted by another writer";
            return Err(Error::new(Status::Conflict, message).with_resource(&record.resource_id));
        }
        let saved = self.store.save(record, deadline);
        record.version = saved.map_err(|error| error.with_resource(&record.resource_id))?;
        // The save included the token of the unsaved copy.
        self.drop_unsaved(record);
        Ok(())
    }

    /// Saves the record's intent before its refresh token is sent.
    ///
    /// # Errors
    /// As [`Records::note_standing`].
    pub fn note_intent(&self, record: &mut Record, deadline: &Deadline) -> Result<()> {
        if self.is_unsaved(&record.resource_id) {
            // The save includes the token of the unsaved copy.
            return self.note_standing(record, deadline);
        }
        let saved = self.store.save_intent(record, deadline);
        record.version = saved.map_err(|error| error.with_resource(&record.resource_id))?;
        Ok(())
    }

    /// Deletes a record and leaves a tombstone dated `at_ms`, even if others write meanwhile.
    /// `should_delete` decides on readable records; an unreadable one is always deleted.
    ///
    /// The tombstone is written before the search for the record, so a concurrent first save finds
    /// it.
    pub fn delete(
        &self,
        resource_id: &str,
        time: impl Into<DeletionTime>,
        should_delete: impl Fn(&Record) -> bool,
        deadline: &Deadline,
    ) -> Result<Deletion> {
        let time = time.into();
        let mut was_there = false;
        loop {
            deadline.check()?;
            let stored = match self.store.load(resource_id, deadline) {
                Err(error) if error.is_unreadable() => {
                    self.store.version(resource_id, deadline)?.map(|v| (v, None))
                }
                stored => stored?.map(|record| (record.version, Some(record))),
            };
            // The row and the copy may belong to different installations: judge each by itself.
            let (dropped, staying) = self.drop_unsaved_if(resource_id, &should_delete);
            was_there |= dropped.is_some();
            let stored_stays = stored.as_ref().is_some_and(|(_, record)| {
                record.as_ref().is_some_and(|record| !should_delete(record))
            });
            // The copy of a later consent does not need the row of the ended installation; any
            // other copy does.
            let row_is_needed =
                staying.as_ref().is_some_and(|origin| !origin.is_consent() || stored.is_none());
            if stored_stays || row_is_needed {
                return Ok(Deletion::Kept);
            }
            let version = stored.as_ref().map_or(0, |(version, _)| *version);
            let row = stored.as_ref().and_then(|(_, record)| record.as_ref());
            let ended: Vec<&Record> = dropped.as_ref().into_iter().chain(row).collect();
            self.write_tombstone(
                resource_id,
                TombstoneContents { time, version, ended: &ended },
                deadline,
            )?;
            if version == 0 {
                // A first save after the tombstone finds the tombstone; an earlier one is found
                // here.
                if self.store.version(resource_id, deadline)?.is_some() {
                    continue;
                }
                was_there |= self.complete_deletion(resource_id, time, &should_delete);
                return Ok(if was_there { Deletion::Deleted } else { Deletion::NotFound });
            }
            was_there = true;
            if self.store.remove_all(&[(resource_id.to_owned(), version)], deadline)?[..] == [true]
            {
                self.complete_deletion(resource_id, time, &should_delete);
                return Ok(if self.is_unsaved(resource_id) {
                    Deletion::Kept
                } else {
                    Deletion::Deleted
                });
            }
        }
    }

    /// Drops the unsaved copy and returns it if `should_delete` agrees; otherwise returns the
    /// origin of the copy.
    fn drop_unsaved_if(
        &self,
        resource_id: &str,
        should_delete: &impl Fn(&Record) -> bool,
    ) -> (Option<Record>, Option<Origin>) {
        let mut overlay = self.overlay();
        match overlay.unsaved.get(resource_id) {
            Some(unsaved) if !should_delete(&unsaved.record) => {
                (None, Some(unsaved.origin.clone()))
            }
            _ => (overlay.unsaved.remove(resource_id).map(|unsaved| unsaved.record), None),
        }
    }

    /// Remembers a completed deletion, so that tokens in flight are dropped. Drops a copy that was
    /// added during the deletion, and returns whether there was one.
    fn complete_deletion(
        &self,
        resource_id: &str,
        time: DeletionTime,
        should_delete: &impl Fn(&Record) -> bool,
    ) -> bool {
        let mut overlay = self.overlay();
        let uptime = self.clock.uptime();
        overlay.count += 1;
        let ended = overlay.count;
        if overlay.deleted.len() >= PRUNE_ABOVE {
            overlay.deleted.retain(|_, deleted| deleted.uptime + MAX_CALL > uptime);
        }
        overlay.deleted.insert(resource_id.to_owned(), Deleted { ended, time, uptime });
        let ends = |unsaved: &Unsaved| {
            should_delete(&unsaved.record)
                && !(unsaved.origin.is_consent() && time.spares(&unsaved.record))
        };
        let is_ended = overlay.unsaved.get(resource_id).is_some_and(ends);
        is_ended && overlay.unsaved.remove(resource_id).is_some()
    }

    /// Deletes many records that were just listed, in one transaction if the store supports it.
    /// Returns the resources that another writer changed meanwhile, for another look.
    pub fn delete_listed(
        &self,
        records: &[Record],
        time: DeletionTime,
        deadline: &Deadline,
    ) -> Result<Vec<String>> {
        let mut notes = Vec::with_capacity(records.len());
        for record in records {
            let tombstone = self.tombstone(&record.resource_id, deadline)?;
            let contents = TombstoneContents { time, version: record.version, ended: &[record] };
            notes.push(self.next_tombstone(&record.resource_id, tombstone, contents));
        }
        let saved = self.store.save_notes(&notes, deadline);
        let (mut again, mut versions) = (Vec::new(), Vec::new());
        for (record, saved) in records.iter().zip(saved) {
            match saved {
                Ok(()) => versions.push((record.resource_id.clone(), record.version)),
                Err(error) if error.status() == Status::Conflict => {
                    again.push(record.resource_id.clone())
                }
                Err(error) => return Err(error.with_resource(&record.resource_id)),
            }
        }
        let removed = self.store.remove_all(&versions, deadline)?;
        for ((resource_id, _), removed) in versions.into_iter().zip(removed) {
            if removed {
                self.complete_deletion(&resource_id, time, &|_| true);
            } else {
                again.push(resource_id);
            }
        }
        for record in records {
            self.drop_unsaved(record);
        }
        Ok(again)
    }

    /// Loads the stored record that a consent replaces. Retries if the store fails: without the
    /// record, only the clock tells which of the two tokens is newer.
    pub fn load_for_consent(
        &self,
        resource_id: &str,
        save_deadline: &Deadline,
    ) -> Result<Option<Record>> {
        let mut reads = 1;
        loop {
            match self.load_stored(resource_id, save_deadline) {
                Err(error)
                    if error.status() == Status::Store
                        && !error.is_unreadable()
                        && reads < READS =>
                {
                    reads += 1;
                    save_deadline.sleep(BRIEF_WAIT)?;
                }
                stored => return stored,
            }
        }
    }

    /// Whether a company's token is stored: only that can mint, and the ID may be a location's.
    pub fn has_company(&self, company_id: &str, deadline: &Deadline) -> Result<bool> {
        let record = self.load(company_id, deadline)?;
        Ok(record.is_some_and(|record| record.token.kind() == UserType::Company))
    }

    /// The metadata of a resource's newest record.
    pub fn metadata(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Value>> {
        Ok(self.load(resource_id, deadline)?.map(|record| self.describe(&record)))
    }

    /// A record's metadata, including whether it is unsaved in this process, and a failure that
    /// could not be saved.
    pub fn describe(&self, record: &Record) -> Value {
        let unsaved = self.unsaved_copy(&record.resource_id);
        let newest = unsaved.as_ref().unwrap_or(record);
        let mut metadata = newest.metadata();
        if unsaved.is_some() {
            metadata["state"] = UNSAVED.into();
        }
        if let Some(failure) = self.last_failure(newest) {
            metadata["lastFailure"] = failure.to_json();
        }
        metadata
    }

    /// The last failure of a record's token: the stored one, or a later one in memory.
    pub fn last_failure(&self, record: &Record) -> Option<Arc<LastFailure>> {
        let stored = record.last_failure.clone();
        match (stored, self.failures.get(record)) {
            (Some(stored), Some(unsaved)) if unsaved.at < stored.at => Some(stored),
            (stored, unsaved) => unsaved.or(stored),
        }
    }

    /// The state of a record, as in [`Records::describe`].
    pub fn state(&self, record: &Record) -> &'static str {
        if self.is_unsaved(&record.resource_id) { UNSAVED } else { record.state() }
    }

    /// Loads the newest record, tolerating an unreadable one.
    pub fn load_readable(&self, resource_id: &str, deadline: &Deadline) -> Result<LoadedRecord> {
        match self.load(resource_id, deadline) {
            Err(error) if error.is_unreadable() => {
                Ok(LoadedRecord { record: None, is_unreadable: true })
            }
            record => Ok(LoadedRecord { record: record?, is_unreadable: false }),
        }
    }

    /// Whether the outcome of the last refresh is unknown.
    pub fn has_unknown_outcome(&self, resource_id: &str, deadline: &Deadline) -> bool {
        self.load(resource_id, deadline)
            .ok()
            .flatten()
            .is_some_and(|record| record.intent.is_some())
    }

    /// All resources that have a tombstone; each of their imports is checked individually.
    pub fn deleted(&self, deadline: &Deadline) -> Result<HashSet<String>> {
        let (mut deleted, mut after) = (HashSet::new(), None);
        loop {
            let page = self.store().notes(TOMBSTONES, after.as_deref(), NOTES_PAGE, deadline)?;
            deleted.extend(page.notes.iter().filter_map(resource_of).map(str::to_owned));
            after = page.next;
            if after.is_none() {
                return Ok(deleted);
            }
        }
    }

    /// The last version of a deleted record, or 0.
    pub fn last_deleted(&self, resource_id: &str, deadline: &Deadline) -> Result<u64> {
        Ok(self.tombstone(resource_id, deadline)?.as_ref().map_or(0, Note::deleted_version))
    }

    /// Whether a deletion of this record may be under way: another version could outlive it.
    pub fn may_be_in_deletion(&self, record: &Record, deadline: &Deadline) -> bool {
        !self.store.compares_tombstones()
            && !self
                .last_deleted(&record.resource_id, deadline)
                .is_ok_and(|deleted| deleted < record.version)
    }

    /// The deleted version of a record that its deletion did not remove, because the store failed;
    /// otherwise 0. A mint replaces such a record.
    pub fn unfinished_deletion(&self, record: &Record, deadline: &Deadline) -> u64 {
        if self.store.compares_tombstones() {
            return 0;
        }
        let deleted = self.last_deleted(&record.resource_id, deadline).unwrap_or(0);
        if deleted < record.version { 0 } else { deleted }
    }

    /// When the record was last deleted.
    pub fn last_deletion(
        &self,
        resource_id: &str,
        deadline: &Deadline,
    ) -> Result<Option<DeletionTime>> {
        Ok(self.tombstone(resource_id, deadline)?.as_ref().map(DeletionTime::of))
    }

    fn tombstone(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Note>> {
        self.store.note(&key(resource_id), deadline)
    }

    fn write_tombstone(
        &self,
        resource_id: &str,
        contents: TombstoneContents,
        deadline: &Deadline,
    ) -> Result<()> {
        for _ in 0..MAX_ATTEMPTS {
            let tombstone = self.tombstone(resource_id, deadline)?;
            match self
                .store
                .save_note(&self.next_tombstone(resource_id, tombstone, contents), deadline)
            {
                Err(error) if error.status() == Status::Conflict => {}
                saved => return saved.map_err(|error| error.with_resource(resource_id)),
            }
        }
        Err(Error::new(
            Status::Store,
            "the tombstone was changed by other writers at every attempt to save it",
        )
        .with_resource(resource_id))
    }

    /// The tombstone that follows `last`, with a version above `last` and the deleted
    /// record. Keeps the digests of spent refresh tokens and of tokens that an UNINSTALL ended.
    fn next_tombstone(
        &self,
        resource_id: &str,
        last: Option<Note>,
        contents: TombstoneContents,
    ) -> Note {
        let last_version = last.as_ref().map_or(0, Note::deleted_version);
        let older = |name| last.as_ref().map(|last| digests(last, name)).unwrap_or_default();
        let spent = contents.ended.first().map(|newest| newest.spent.clone()).unwrap_or_default();
        let mut held = SpentDigests::default();
        let uninstalled = if contents.time.is_uninstall { contents.ended } else { &[] };
        for Record { token, .. } in uninstalled {
            let secrets = token.refresh_token.iter().chain([&token.access_token]);
            secrets.for_each(|secret| held.add(&SpentDigest::of(secret)));
        }
        let time = last.as_ref().map(DeletionTime::of);
        let time = time.map_or(contents.time, |last| last.merged(contents.time));
        let mut document = json!({
            "version": contents.version.max(last_version + 1),
            "atMs": time.at_ms,
            SPENT: older(SPENT).merged(&spent),
            HELD: older(HELD).merged(&held),
        });
        if time.own_consent_at_ms != time.at_ms {
            document["ownConsentAtMs"] = time.own_consent_at_ms.into();
        }
        Note {
            key: key(resource_id),
            version: last.map_or(0, |last| last.version),
            list: TOMBSTONES.into(),
            document,
            expires_at: self.clock.wall_ms().saturating_add(RETENTION_MS),
        }
    }

    /// The digests of spent refresh tokens in the tombstone.
    pub fn spent_before_deletion(
        &self,
        resource_id: &str,
        deadline: &Deadline,
    ) -> Result<SpentDigests> {
        Ok(self.tombstone(resource_id, deadline)?.as_ref().map(spent_of).unwrap_or_default())
    }

    /// Whether the token was held when the app was uninstalled from its owner or its company.
    pub fn was_held_at_uninstall(
        &self,
        resource_id: &str,
        token: &Token,
        deadline: &Deadline,
    ) -> Result<bool> {
        let digest = SpentDigest::of(token.refresh_token.as_ref().unwrap_or(&token.access_token));
        let company_id = token.company_id.as_deref().filter(|id| *id != resource_id);
        for id in [resource_id].into_iter().chain(company_id) {
            let tombstone = self.tombstone(id, deadline)?;
            if tombstone.is_some_and(|tombstone| digests(&tombstone, HELD).contains(&digest)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Keeps a new token whose save failed and schedules a retry with backoff. A deletion or a
    /// newer token since the record was read takes precedence.
    pub fn keep_unsaved(&self, record: Record, origin: Origin) -> Keeping {
        let resource_id = record.resource_id.clone();
        let next_save_at = self.clock.uptime() + backoff(0);
        let mut overlay = self.overlay();
        let is_ended = |deleted: &Deleted| {
            deleted.ended > record.as_of && !(origin.is_consent() && deleted.time.spares(&record))
        };
        if overlay.deleted.get(&resource_id).is_some_and(is_ended) {
            return Keeping::Deleted;
        }
        if overlay
            .unsaved
            .get(&resource_id)
            .is_some_and(|unsaved| unsaved.is_newer(&record, &origin))
        {
            return Keeping::Newer;
        }
        overlay.count += 1;
        let added_at = overlay.count;
        overlay
            .unsaved
            .insert(resource_id, Unsaved { record, origin, added_at, refusals: 0, next_save_at });
        Keeping::Kept
    }

    /// Retries the save of an unsaved copy, due or not. If `confirm` fails, the copy counts as
    /// unsaved.
    pub fn retry_save(
        &self,
        resource_id: &str,
        confirm: impl FnOnce(&SavedCopy, Saved) -> Result<Saved>,
        deadline: &Deadline,
    ) -> SaveRetry {
        let uptime = self.clock.uptime();
        let (record, origin) = match self.overlay().unsaved.get(resource_id) {
            Some(unsaved) => (unsaved.record.clone(), unsaved.origin.clone()),
            None => return SaveRetry::Nothing,
        };
        let offered = Arc::clone(&record.token);
        let mut copy = Box::new(SavedCopy { record, origin });
        let saved = self.save(&mut copy.record, &copy.origin, deadline);
        let saved = saved.and_then(|saved| confirm(&copy, saved));
        let unsaved = &mut self.overlay().unsaved;
        // A newer copy that was added meanwhile keeps its own schedule.
        let is_same = |unsaved: &Unsaved| Arc::ptr_eq(&unsaved.record.token, &offered);
        match saved {
            Ok(saved) => {
                if unsaved.get(resource_id).is_some_and(is_same) {
                    unsaved.remove(resource_id);
                }
                SaveRetry::Done(copy, saved)
            }
            Err(error) => {
                if let Some(unsaved) =
                    unsaved.get_mut(resource_id).filter(|unsaved| is_same(unsaved))
                {
                    // A later retry continues from a save whose confirmation failed.
                    unsaved.record.version = copy.record.version;
                    unsaved.record.predecessor = copy.record.predecessor;
                    unsaved.refusals += 1;
                    unsaved.next_save_at = uptime + backoff(unsaved.refusals);
                }
                SaveRetry::Refused(error)
            }
        }
    }

    /// The uptime of the next attempt to save the unsaved copy.
    pub fn next_save_at(&self, resource_id: &str) -> Option<Duration> {
        self.overlay().unsaved.get(resource_id).map(|unsaved| unsaved.next_save_at)
    }

    pub fn unsaved_copy(&self, resource_id: &str) -> Option<Record> {
        self.overlay().unsaved.get(resource_id).map(|unsaved| unsaved.record.clone())
    }

    pub fn is_unsaved(&self, resource_id: &str) -> bool {
        self.overlay().unsaved.contains_key(resource_id)
    }

    /// Drops the unsaved copy after a token of this origin was saved or rejected. A copy that was
    /// added since the record was read may be newer and stays.
    pub fn forget_older(&self, record: &Record, origin: &Origin) {
        let mut overlay = self.overlay();
        if overlay
            .unsaved
            .get(&record.resource_id)
            .is_some_and(|unsaved| !unsaved.is_newer(record, origin))
        {
            overlay.unsaved.remove(&record.resource_id);
        }
    }

    /// Drops this unsaved copy, but not a newer one.
    fn drop_unsaved(&self, copy: &Record) {
        let unsaved = &mut self.overlay().unsaved;
        if unsaved
            .get(&copy.resource_id)
            .is_some_and(|held| Arc::ptr_eq(&held.record.token, &copy.token))
        {
            unsaved.remove(&copy.resource_id);
        }
    }

    /// The resources that have an unsaved copy, sorted.
    pub fn unsaved_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.overlay().unsaved.keys().cloned().collect();
        ids.sort_unstable();
        ids
    }

    /// The number of unsaved copies.
    pub fn unsaved_count(&self) -> usize {
        self.overlay().unsaved.len()
    }

    fn overlay(&self) -> MutexGuard<'_, Overlay> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of a tombstone that comes from the deletion.
#[derive(Clone, Copy)]
struct TombstoneContents<'a> {
    time: DeletionTime,
    version: u64,
    /// The deleted record and its unsaved copy, the newer one first.
    ended: &'a [&'a Record],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    Deleted,
    NotFound,
    Kept,
}

impl Unsaved {
    /// Whether the copy was added after `record` was read and must not be replaced by this origin.
    fn is_newer(&self, record: &Record, origin: &Origin) -> bool {
        self.added_at > record.as_of && self.origin.rank() >= origin.rank()
    }
}

impl Origin {
    /// Whether it is a consent, which begins an installation.
    pub fn is_consent(&self) -> bool {
        matches!(self, Origin::Consent(_) | Origin::ConsentUnread)
    }

    /// Precedence among tokens granted at the same time: a mint can be repeated, a refresh cannot.
    fn rank(&self) -> u8 {
        match self {
            Origin::Mint => 0,
            Origin::Refresh(_) => 1,
            Origin::Consent(_) | Origin::ConsentUnread => 2,
        }
    }

    /// Whether the new token in `ours` replaces `stored`, which another writer saved.
    fn supersedes(&self, ours: &Record, stored: &Record, now_ms: i64) -> bool {
        let is_spent = |refresh_token: &Option<_>| {
            refresh_token.as_ref().is_some_and(|token| stored.has_spent(token))
        };
        let is_lost = matches!(stored.standing, Standing::ReauthorizationRequired { .. });
        // A location's own consent replaces a minted token, which can be minted again.
        let is_first_consent = matches!(self, Origin::Consent(None) | Origin::ConsentUnread);
        let is_minted = ours.own_consent && !stored.own_consent;
        let replaces_mint = is_first_consent && is_minted;
        // A token minted for a newer INSTALL belongs to a later installation and stays, unless a
        // wrong clock dated it in the future.
        let began = stored.installed_at();
        let is_misdated = began > now_ms.saturating_add(CLOCK_TOLERANCE_MS);
        let outlives_mint = is_minted && (began <= ours.installed_at() || is_misdated);
        match self {
            _ if is_spent(&ours.token.refresh_token) => false,
            _ if replaces_mint => true,
            Origin::Refresh(spent) => {
                // An older token is imported only over a lost connection; this one was not lost.
                let is_import = stored.installed_at.is_none();
                let is_older_import = is_import && stored.token.expires_at < spent.expires_at;
                is_lost || outlives_mint || is_older_import || same_token(&stored.token, spent)
            }
            // A wrong clock or an inactive location ends no consent: it can still be refreshed.
            Origin::Mint if stored.own_consent && stored.token.refresh_token.is_some() => is_lost,
            Origin::Mint => stored.standing != Standing::Good || !stored.token.is_alive(now_ms),
            Origin::Consent(Some(replaced)) => {
                // A later consent also inherits the digests, but begins another installation.
                let is_successor = is_spent(&replaced.token.refresh_token)
                    && stored.installed_at() == replaced.installed_at;
                // The stored token is of an earlier consent, and was not refreshed since ours. The
                // age of an import is not certain, and a mint can be repeated.
                let is_granted = ours.own_consent || ours.token.kind() == UserType::Company;
                let is_later = ours.installed_at.filter(|_| is_granted).is_some_and(|ours| {
                    began < ours && stored.token.issued_at.is_some_and(|issued| issued < ours)
                });
                is_lost
                    || outlives_mint
                    || same_token(&stored.token, &replaced.token)
                    || is_successor
                    || is_later
            }
            Origin::Consent(None) => is_lost,
            Origin::ConsentUnread => is_lost || ours.installed_at() >= stored.installed_at(),
        }
    }
}

/// Whether two tokens are of the same grant: they have the same refresh token, or neither has one
/// and the access tokens are equal.
pub fn same_token(one: &Token, other: &Token) -> bool {
    match (&one.refresh_token, &other.refresh_token) {
        (Some(one), Some(other)) => one.matches(other.expose()),
        (None, None) => one.access_token.matches(other.access_token.expose()),
        _ => false,
    }
}

fn key(resource_id: &str) -> String {
    format!("{TOMBSTONE}{resource_id}")
}

pub fn resource_of(tombstone: &Note) -> Option<&str> {
    tombstone.key.strip_prefix(TOMBSTONE)
}

fn deleted_at(tombstone: &Note) -> i64 {
    tombstone.document.get("atMs").and_then(Value::as_i64).unwrap_or(i64::MAX)
}

fn spent_of(tombstone: &Note) -> SpentDigests {
    digests(tombstone, SPENT)
}

fn digests(tombstone: &Note, name: &str) -> SpentDigests {
    let digests = tombstone.document.get(name).cloned().unwrap_or_default();
    serde_json::from_value(digests).unwrap_or_default()
}

/// The delay before the next save attempt, after this many failed retries.
fn backoff(refusals: u32) -> Duration {
    Duration::from_secs(1 << refusals.min(6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::store::{MemoryStore, SpentDigest};

    const ID: &str = "location";

    fn records() -> Records {
        Records::new(Arc::new(MemoryStore::default()), Arc::new(SystemClock::new()))
    }

    fn patience() -> Deadline {
        Deadline::after(Duration::from_secs(60), &Arc::default())
    }

    fn token(name: &str) -> Token {
        Token {
            access_token: format!("access {name}").into(),
            refresh_token: Some(format!("refresh {name}").into()),
            issued_at: None,
            expires_at: 1,
            user_type: Some(UserType::Location),
            company_id: None,
            location_id: Some(ID.into()),
            scope: None,
            fields: Default::default(),
        }
    }

    /// A stored record as read by a refresh, and the result of that refresh.
    fn refreshed(records: &Records) -> (Record, Origin) {
        let mut first = records.new_record(ID.into(), token("old"), &patience()).unwrap();
        records.save(&mut first, &Origin::Consent(None), &patience()).unwrap();
        let read = records.load(ID, &patience()).unwrap().unwrap();
        let origin = Origin::Refresh(Arc::clone(&read.token));
        let mut refreshed = Record { token: Arc::new(token("refreshed")), ..read };
        refreshed.spent.add(&SpentDigest::of(&"refresh old".to_owned().into()));
        (refreshed, origin)
    }

    fn consent(records: &Records) -> (Record, Origin) {
        let stored = records.load_stored(ID, &patience()).unwrap().unwrap();
        let origin = Origin::Consent(Some(Replaced::from(&stored)));
        (Record { token: Arc::new(token("consent")), ..stored }, origin)
    }

    fn newest(records: &Records) -> String {
        records.load(ID, &patience()).unwrap().unwrap().token.access_token.expose().to_owned()
    }

    #[test]
    fn unsaved_consent_survives_an_earlier_refresh_that_completes_later() {
        for saves in [false, true] {
            let records = records();
            let (mut refreshed, of_refresh) = refreshed(&records);
            let (consent, of_consent) = consent(&records);
            assert_eq!(records.keep_unsaved(consent, of_consent), Keeping::Kept);
            if saves {
                records.save(&mut refreshed, &of_refresh, &patience()).unwrap();
                records.forget_older(&refreshed, &of_refresh);
            } else {
                assert_eq!(records.keep_unsaved(refreshed, of_refresh), Keeping::Newer);
            }
            assert_eq!(newest(&records), "access consent", "saved: {saves}");
            assert!(matches!(
                records.retry_save(ID, |_, saved| Ok(saved), &patience()),
                SaveRetry::Done(_, Saved::Ours)
            ));
            assert_eq!(newest(&records), "access consent", "saved: {saves}");
        }
    }

    #[test]
    fn confirmation_of_a_saved_copy_that_fails_is_repeated_by_the_next_retry() {
        let records = records();
        let first = records.new_record(ID.into(), token("minted"), &patience()).unwrap();
        assert_eq!(records.keep_unsaved(first, Origin::Mint), Keeping::Kept);
        let mut confirmed = 0;
        for fails in [true, true, false] {
            let confirm = |_: &SavedCopy, saved: Saved| {
                assert_eq!(saved, Saved::Ours);
                confirmed += 1;
                if fails { Err(Error::new(Status::Store, "unreadable")) } else { Ok(saved) }
            };
            let retry = records.retry_save(ID, confirm, &patience());
            assert_eq!(matches!(retry, SaveRetry::Refused(_)), fails);
            assert_eq!(records.is_unsaved(ID), fails);
        }
        assert_eq!(confirmed, 3);
    }

    #[test]
    fn unsaved_consent_replaces_a_refreshed_token_but_not_that_of_a_later_consent() {
        for consents_again in [false, true] {
            let records = records();
            let (mut refreshed, of_refresh) = refreshed(&records);
            let (unsaved, of_unsaved) = consent(&records);
            assert_eq!(records.keep_unsaved(unsaved, of_unsaved), Keeping::Kept);
            // Another process refreshes the token, and saves a later consent.
            records.save(&mut refreshed, &of_refresh, &patience()).unwrap();
            if consents_again {
                let stored = records.load_stored(ID, &patience()).unwrap().unwrap();
                let origin = Origin::Consent(Some(Replaced::from(&stored)));
                let installed_at = Some(stored.installed_at() + 1);
                let token = Arc::new(token("later"));
                let mut later = Record { token, installed_at, ..stored };
                records.save(&mut later, &origin, &patience()).unwrap();
            }
            assert!(matches!(
                records.retry_save(ID, |_, saved| Ok(saved), &patience()),
                SaveRetry::Done(..)
            ));
            let expected = if consents_again { "access later" } else { "access consent" };
            assert_eq!(newest(&records), expected);
        }
    }

    #[test]
    fn copy_that_was_never_saved_is_not_the_newest_record() {
        let records = records();
        let mut record = records.new_record(ID.into(), token("first"), &patience()).unwrap();
        assert!(!records.is_newest_here(&record));
        records.save(&mut record, &Origin::Mint, &patience()).unwrap();
        let stored = records.load(ID, &patience()).unwrap().unwrap();
        assert!(records.is_newest_here(&stored));
    }

    #[test]
    fn unsaved_own_consent_replaces_a_token_that_was_minted_meanwhile() {
        // A token that a wrong clock dated a year ahead is not of a newer INSTALL.
        let year = 365 * 86_400_000;
        for (later_ms, expected) in [(0, Saved::Ours), (1, Saved::Theirs), (year, Saved::Ours)] {
            let records = records();
            let mut first = records.new_record(ID.into(), token("first"), &patience()).unwrap();
            records.save(&mut first, &Origin::Mint, &patience()).unwrap();
            let (unsaved, origin) = consent(&records);
            let unsaved = Record { own_consent: true, ..unsaved };
            let began = unsaved.installed_at();
            assert_eq!(records.keep_unsaved(unsaved, origin), Keeping::Kept);
            // Another process mints again.
            let stored = records.load_stored(ID, &patience()).unwrap().unwrap();
            let installed_at = Some(began + later_ms);
            let token = Arc::new(token("minted"));
            let mut minted = Record { token, installed_at, ..stored };
            records.save(&mut minted, &Origin::Mint, &patience()).unwrap();
            let retry = records.retry_save(ID, |_, saved| Ok(saved), &patience());
            assert!(matches!(retry, SaveRetry::Done(_, saved) if saved == expected));
        }
    }

    #[test]
    fn mint_does_not_replace_an_expired_own_consent_that_was_saved_meanwhile() {
        for is_own in [true, false] {
            let records = records();
            let mut first = records.new_record(ID.into(), token("first"), &patience()).unwrap();
            records.save(&mut first, &Origin::Mint, &patience()).unwrap();
            let mut minted = Record { token: Arc::new(token("minted")), ..first };
            let (consent, origin) = consent(&records);
            let expired = Token { expires_at: 0, ..token("consent") };
            let mut consent = Record { token: Arc::new(expired), own_consent: is_own, ..consent };
            records.save(&mut consent, &origin, &patience()).unwrap();
            let saved = records.save(&mut minted, &Origin::Mint, &patience()).unwrap();
            assert_eq!(saved, if is_own { Saved::Theirs } else { Saved::Ours });
        }
    }

    #[test]
    fn refreshed_token_replaces_an_import_that_is_older_than_the_spent_token() {
        for (imported_expires_at, expected) in [(0, Saved::Ours), (2, Saved::Theirs)] {
            let records = records();
            let (mut refreshed, of_refresh) = refreshed(&records);
            let stored = records.load_stored(ID, &patience()).unwrap().unwrap();
            let imported = Token { expires_at: imported_expires_at, ..token("imported") };
            let mut import =
                Record { token: Arc::new(imported), installed_at: None, ..stored.clone() };
            let of_import = Origin::Consent(Some(Replaced::from(&stored)));
            records.save(&mut import, &of_import, &patience()).unwrap();
            let saved = records.save(&mut refreshed, &of_refresh, &patience()).unwrap();
            assert_eq!(saved, expected);
        }
    }

    #[test]
    fn unsaved_own_consent_survives_the_uninstall_of_the_company_but_no_other_deletion() {
        // Each deletion, and whether the consent survives it together with the earlier ones.
        let company: fn(i64) -> DeletionTime = DeletionTime::with_company;
        let user: fn(i64) -> DeletionTime = DeletionTime::from;
        let histories = [
            (vec![company], true),
            (vec![company, company], true),
            (vec![user], false),
            (vec![user, company], false),
            (vec![company, user], false),
        ];
        for (deletions, survives) in histories {
            let records = records();
            let other = Records::new(Arc::clone(&records.store), Arc::clone(&records.clock));
            let mut minted = other.new_record(ID.into(), token("minted"), &patience()).unwrap();
            other.save(&mut minted, &Origin::Mint, &patience()).unwrap();
            let (unsaved, origin) = consent(&records);
            let unsaved = Record { own_consent: true, ..unsaved };
            let after = unsaved.installed_at() + 1000;
            assert_eq!(records.keep_unsaved(unsaved, origin), Keeping::Kept);
            for deletion in deletions {
                other.delete(ID, deletion(after), |_| true, &patience()).unwrap();
            }
            let retry = records.retry_save(ID, |_, saved| Ok(saved), &patience());
            let expected = if survives { Saved::Ours } else { Saved::Deleted };
            assert!(matches!(retry, SaveRetry::Done(_, saved) if saved == expected));
            assert_eq!(records.load(ID, &patience()).unwrap().is_some(), survives);
        }
    }

    #[test]
    fn unsaved_consent_whose_refresh_token_was_used_before_a_deletion_is_dropped() {
        for is_used in [false, true] {
            let records = records();
            let other = Records::new(Arc::clone(&records.store), Arc::clone(&records.clock));
            let mut first = other.new_record(ID.into(), token("first"), &patience()).unwrap();
            other.save(&mut first, &Origin::Mint, &patience()).unwrap();
            let (unsaved, origin) = consent(&records);
            let mut stored = unsaved.clone();
            assert_eq!(records.keep_unsaved(unsaved, origin.clone()), Keeping::Kept);
            // Another process got the same token by an import, and deletes it with a clock that is
            // a day behind.
            other.save(&mut stored, &origin, &patience()).unwrap();
            if is_used {
                let spent = stored.token.refresh_token.clone().unwrap();
                stored.spent.add(&SpentDigest::of(&spent));
                stored.token = Arc::new(token("refreshed"));
                other.note_standing(&mut stored, &patience()).unwrap();
            }
            let earlier = stored.installed_at() - 86_400_000;
            other.delete(ID, earlier, |_| true, &patience()).unwrap();
            let retry = records.retry_save(ID, |_, saved| Ok(saved), &patience());
            let expected = if is_used { Saved::Deleted } else { Saved::Ours };
            assert!(matches!(retry, SaveRetry::Done(_, saved) if saved == expected));
        }
    }

    #[test]
    fn unsaved_mint_from_before_a_deletion_does_not_replace_a_later_record() {
        let records = records();
        let other = Records::new(Arc::clone(&records.store), Arc::clone(&records.clock));
        let mint = |name: &str| {
            let mut record = other.new_record(ID.into(), token(name), &patience()).unwrap();
            assert_eq!(other.save(&mut record, &Origin::Mint, &patience()).unwrap(), Saved::Ours);
        };
        mint("old");
        let old = records.load(ID, &patience()).unwrap().unwrap();
        let minted = Record { token: Arc::new(token("minted")), ..old };
        let installed_at = minted.installed_at();
        assert_eq!(records.keep_unsaved(minted, Origin::Mint), Keeping::Kept);
        // Another process deletes the resource and mints again. That token expires.
        other.delete(ID, installed_at, |_| true, &patience()).unwrap();
        mint("later");
        assert!(matches!(
            records.retry_save(ID, |_, saved| Ok(saved), &patience()),
            SaveRetry::Done(_, Saved::Theirs)
        ));
        assert_eq!(newest(&records), "access later");
    }

    #[test]
    fn unsaved_consent_replaces_a_mint_after_a_deletion_only_if_it_is_later() {
        for (later_ms, saved) in [(-1, Saved::Theirs), (0, Saved::Theirs), (1, Saved::Ours)] {
            let records = records();
            let other = Records::new(Arc::clone(&records.store), Arc::clone(&records.clock));
            let mut first = records.new_record(ID.into(), token("first"), &patience()).unwrap();
            records.save(&mut first, &Origin::Mint, &patience()).unwrap();
            let (unsaved, origin) = consent(&records);
            let unsaved = Record { own_consent: true, ..unsaved };
            let deleted_at = unsaved.installed_at() - later_ms;
            assert_eq!(records.keep_unsaved(unsaved, origin), Keeping::Kept);
            // Another process deletes the resource and mints again, with a clock that is late.
            other.delete(ID, deleted_at, |_| true, &patience()).unwrap();
            let minted = other.new_record(ID.into(), token("minted"), &patience()).unwrap();
            let mut minted = Record { installed_at: Some(0), ..minted };
            other.save(&mut minted, &Origin::Mint, &patience()).unwrap();
            let retry = records.retry_save(ID, |_, saved| Ok(saved), &patience());
            assert!(matches!(retry, SaveRetry::Done(_, found) if found == saved), "{later_ms}");
        }
    }

    #[test]
    fn token_that_was_stored_without_an_acknowledgement_keeps_its_later_standing() {
        for origin in [Origin::Consent(None), Origin::ConsentUnread, Origin::Mint] {
            let records = records();
            let other = Records::new(Arc::clone(&records.store), Arc::clone(&records.clock));
            let record = records.new_record(ID.into(), token("new"), &patience()).unwrap();
            let mut stored = record.clone();
            other.save(&mut stored, &origin, &patience()).unwrap();
            assert_eq!(records.keep_unsaved(record, origin), Keeping::Kept);
            // Another process finds that the connection is lost.
            let (since_ms, reason) = (1, String::new());
            stored.standing =
                Standing::ReauthorizationRequired { since_ms, reason, lacks_company: false };
            other.note_standing(&mut stored, &patience()).unwrap();
            let retry = records.retry_save(ID, |_, saved| Ok(saved), &patience());
            assert!(matches!(retry, SaveRetry::Done(_, Saved::Theirs)));
            assert_eq!(records.load(ID, &patience()).unwrap().unwrap().standing, stored.standing);
        }
    }

    #[test]
    fn unsaved_consent_replaces_the_unsaved_copy_of_a_concurrent_refresh() {
        let records = records();
        let (refreshed, of_refresh) = refreshed(&records);
        let (consent, of_consent) = consent(&records);
        assert_eq!(records.keep_unsaved(refreshed, of_refresh), Keeping::Kept);
        assert_eq!(records.keep_unsaved(consent, of_consent), Keeping::Kept);
        assert_eq!(newest(&records), "access consent");
    }

    #[test]
    fn token_in_flight_during_a_deletion_is_dropped_unless_its_consent_is_later() {
        let records = records();
        let (refreshed, of_refresh) = refreshed(&records);
        let (consent, of_consent) = consent(&records);
        let began = consent.installed_at();
        assert_eq!(
            records.delete(ID, began - 1, |_| true, &patience()).unwrap(),
            Deletion::Deleted
        );
        assert_eq!(records.keep_unsaved(refreshed, of_refresh), Keeping::Deleted);
        assert_eq!(records.keep_unsaved(consent.clone(), of_consent.clone()), Keeping::Kept);
        records.delete(ID, began, |_| true, &patience()).unwrap();
        assert_eq!(records.keep_unsaved(consent, of_consent), Keeping::Deleted);
        assert!(!records.is_unsaved(ID));
    }

    #[test]
    fn deletion_of_an_earlier_installation_keeps_the_unsaved_copy_of_a_later_consent() {
        let records = records();
        refreshed(&records);
        let (consent, of_consent) = consent(&records);
        let began = consent.installed_at() + 10;
        let consent = Record { installed_at: Some(began), ..consent };
        records.keep_unsaved(consent, of_consent);
        let is_earlier = |record: &Record| record.installed_at() < began;
        assert_eq!(records.delete(ID, began - 1, is_earlier, &patience()).unwrap(), Deletion::Kept);
        assert!(records.load_stored(ID, &patience()).unwrap().is_none());
        assert!(matches!(
            records.retry_save(ID, |_, saved| Ok(saved), &patience()),
            SaveRetry::Done(_, Saved::Ours)
        ));
        assert_eq!(newest(&records), "access consent");
    }
}
