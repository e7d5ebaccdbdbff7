//! Records with conflict resolution, tombstones, and unsaved copies: new tokens that the store did
//! not take yet. Conflicts between writers are resolved here, and deletions are made to last.
//!
//! - **Deletion wins.** A deletion leaves a tombstone: a note with the last version of the record. A token whose record
//!   is gone was deleted meanwhile and is dropped. A first record continues the versions after the tombstone, so that no
//!   old copy fits a new record by its version. A first save compares the tombstone in the same step, if the store can.
//! - **A later copy stays.** Copies and deletions of this process are counted, and a record carries the count of the
//!   moment at which it was read. So a refresh that ends does not drop the unsaved copy of a consent that came while it was
//!   under way, and a token that is on its way when its resource is deleted is not kept.
//! - **A conflict is decided by what the row holds,** never by comparing clocks: see [`Origin`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::secret::Secret;
use crate::store::{Lock, Note, Page, Query, Record, SpentDigests, Standing, Store, TOMBSTONE};
use crate::token::Token;

/// The list in which every tombstone stands.
pub const TOMBSTONES: &str = "deleted";

/// How long a tombstone and the digests of spent refresh tokens are kept: longer than a refresh token can live.
pub const RETENTION_MS: i64 = 400 * 86_400_000;

/// How often a save is tried against other writers.
const MAX_ATTEMPTS: u32 = 8;

/// Above this many deletions, the ones older than the longest call are forgotten.
const MANY: usize = 4096;

/// Longer than a call can be under way with a record that it has read.
const MAX_CALL: Duration = Duration::from_secs(3600);

/// The origin of a new token. It decides what happens if another writer changed the row meanwhile.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A refresh, which spent the refresh token of this one. The new token replaces it and no other.
    Refresh(Arc<Token>),
    /// A mint: spends nothing, so a good token that another writer saved stays.
    Mint,
    /// A person's consent, given while the store held this token, if any. It replaces that token and its successors. It
    /// does not replace the token of a later consent.
    Consent(Option<Arc<Token>>),
    /// The same, if the store could not be read at that time: then the later beginning of an installation counts.
    ConsentUnread,
}

/// The end of a save of a new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// It is stored.
    Ours,
    /// Another writer's token is stored, and stays. The record is now that one.
    Theirs,
    /// The resource was deleted meanwhile: the token is dropped.
    Deleted,
}

/// A new token that only this process holds.
struct Unsaved {
    record: Record,
    origin: Origin,
    /// The count at which it came.
    came: u64,
    /// How often the store refused it.
    refusals: u32,
    /// When it is offered again, by the uptime.
    next_save_at: Duration,
}

/// A deletion by this process.
struct Deleted {
    /// The count at which it ended.
    ended: u64,
    /// The time of the deletion, by the wall clock: a consent after it counts.
    at_ms: i64,
    uptime: Duration,
}

/// The unsaved copies and the recent deletions of this process.
#[derive(Default)]
struct Overlay {
    /// Counts the unsaved copies and deletions.
    count: u64,
    unsaved: HashMap<String, Unsaved>,
    deleted: HashMap<String, Deleted>,
}

/// The end of an attempt to keep a token that the store refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It is kept, and offered again.
    Kept,
    /// A newer token came meanwhile, and stays.
    Newer,
    /// This process deleted the resource meanwhile: the token is dropped.
    Deleted,
}

/// The end of an attempt to save an unsaved copy.
pub enum SaveRetry {
    /// There was none, or its next attempt is not due.
    Nothing,
    /// The record that is stored now, and how that came about.
    Done(Box<Offered>, Saved),
    /// The store still refuses it.
    Refused(Error),
}

/// An unsaved copy after its offer.
pub struct Offered {
    pub record: Record,
    pub origin: Origin,
}

/// The records of one app.
pub struct Records {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    overlay: Mutex<Overlay>,
}

impl Records {
    /// The records of `store`, and no unsaved copies.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Records {
        Records { store, clock, overlay: Mutex::default() }
    }

    /// The store beneath.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// The newest record: the unsaved copy, else the stored one.
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

    /// The stored record, whatever unsaved copy there is.
    pub fn load_stored(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Record>> {
        let as_of = self.count();
        Ok(self.store.load(resource_id, deadline)?.map(|record| Record { as_of, ..record }))
    }

    /// Whether this process deleted a resource since the count was `as_of`.
    pub fn was_deleted_since(&self, resource_id: &str, as_of: u64) -> bool {
        self.overlay().deleted.get(resource_id).is_some_and(|deleted| deleted.ended > as_of)
    }

    /// The count of unsaved copies and deletions, for a record that is about to be made.
    pub fn count(&self) -> u64 {
        self.overlay().count
    }

    /// The refresh lock of a resource.
    pub fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>> {
        self.store.lock(resource_id, deadline).map_err(|error| error.with_resource(resource_id))
    }

    /// A page of the store's records; unsaved copies replace older ones.
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
            let newer = copies.filter(|record| is_on_page(&record.resource_id) && query.matches(record));
            records.extend(newer.cloned());
            records.sort_by(|a, b| a.resource_id.cmp(&b.resource_id));
        }
        let page = Page::cut(records, query.limit);
        Ok(Page { unreadable, next: page.next.or(next), ..page })
    }

    /// A record that no store has seen, to be saved after the tombstone of its predecessor, if there is one.
    pub fn new_record(&self, resource_id: String, token: Token, deadline: &Deadline) -> Result<Record> {
        let as_of = self.count();
        let predecessor = self.last_deleted(&resource_id, deadline)?;
        let installed_at = Some(self.clock.wall_ms());
        Ok(Record { predecessor, as_of, installed_at, ..Record::new(resource_id, token) })
    }

    /// Saves a new token. `record` becomes what is stored.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`: then it is not saved as far as is known.
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
                    let is_first = record.version == 0;
                    record.version = version;
                    return if is_first {
                        self.confirm_first(record, origin, deadline)
                    } else {
                        Ok(Saved::Ours)
                    };
                }
            }
        }
        Err(Error::new(Status::Store, "the store's record changes faster than it can be saved")
            .with_resource(&record.resource_id))
    }

    /// After a conflict: what it means, or `None` if the save is to be tried again.
    pub fn resolve(
        &self,
        record: &mut Record,
        origin: &Origin,
        deadline: &Deadline,
    ) -> Result<Option<Saved>> {
        let stored = match self.store.load(&record.resource_id, deadline) {
            // Nothing can be read of it, so nothing is lost by a new token.
            Err(error) if error.is_unreadable() => {
                record.version = self.store.version(&record.resource_id, deadline)?.unwrap_or(0);
                return Ok(None);
            }
            stored => stored?,
        };
        match stored {
            None if self.outlives_deletion(record, origin, deadline)? => Ok(None),
            None => Ok(Some(Saved::Deleted)),
            Some(stored) if origin.supersedes(record, &stored, self.clock.wall_ms()) => {
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

    /// Whether a token whose record is not stored may be saved. If the record was deleted since the token was granted, it
    /// may not: unless the deletion was of an installation that ended before this token's consent.
    fn outlives_deletion(&self, record: &mut Record, origin: &Origin, deadline: &Deadline) -> Result<bool> {
        let tombstone = self.tombstone(&record.resource_id, deadline)?;
        let last_deleted = tombstone.as_ref().map_or(0, Note::deleted_version);
        if record.version == 0 && last_deleted == record.predecessor {
            return Ok(true);
        }
        let is_of_later_consent = origin.is_consent()
            && tombstone.as_ref().is_none_or(|tombstone| deleted_at(tombstone) < record.installed_at());
        if is_of_later_consent {
            (record.version, record.predecessor) = (0, last_deleted);
        }
        Ok(is_of_later_consent)
    }

    /// After the first save of a record: a deletion that came between looked for a record before it was there. A store that
    /// compares tombstones needs no second look.
    pub fn confirm_first(&self, record: &mut Record, origin: &Origin, deadline: &Deadline) -> Result<Saved> {
        if self.store.compares_tombstones() {
            return Ok(Saved::Ours);
        }
        let mut first = Record { version: 0, ..record.clone() };
        // The record is stored: if the tombstone cannot be read now, that is what counts.
        if self.outlives_deletion(&mut first, origin, deadline).unwrap_or(true) {
            return Ok(Saved::Ours);
        }
        // Another process may have found it already: an intent, or a successor, does not keep it.
        let is_ours = |held: &Record| {
            let spent = |ours: &Secret| held.has_spent(ours);
            same_token(&held.token, &record.token) || record.token.refresh_token.as_ref().is_some_and(spent)
        };
        self.delete(&record.resource_id, record.installed_at(), is_ours, deadline)?;
        Ok(Saved::Deleted)
    }

    /// Writes down how a resource stands; its token stays what it is.
    ///
    /// # Errors
    /// `CONFLICT` if another writer was first; `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn note_standing(&self, record: &mut Record, deadline: &Deadline) -> Result<()> {
        let saved = self.store.save(record, deadline);
        record.version = saved.map_err(|error| error.with_resource(&record.resource_id))?;
        // Its token was saved along.
        self.drop_unsaved(record);
        Ok(())
    }

    /// Deletes a record and leaves a tombstone of that time, whatever others write meanwhile. `should_delete` decides
    /// by the record whether it is deleted; a record that cannot be read is.
    ///
    /// The tombstone is written before the record is looked for: a first save that comes between finds it.
    pub fn delete(
        &self,
        resource_id: &str,
        at_ms: i64,
        should_delete: impl Fn(&Record) -> bool,
        deadline: &Deadline,
    ) -> Result<Deletion> {
        let mut was_there = false;
        loop {
            deadline.check()?;
            let stored = match self.store.load(resource_id, deadline) {
                Err(error) if error.is_unreadable() => {
                    self.store.version(resource_id, deadline)?.map(|v| (v, None))
                }
                stored => stored?.map(|record| (record.version, Some(record))),
            };
            // Row and copy may be of different installations: each is judged by itself.
            let (dropped, staying) = self.judge_unsaved(resource_id, &should_delete);
            was_there |= dropped.is_some();
            let stored_stays = stored
                .as_ref()
                .is_some_and(|(_, record)| record.as_ref().is_some_and(|record| !should_delete(record)));
            // The copy of a later consent does not need the row of the installation that ended; any other copy does.
            let row_is_needed =
                staying.as_ref().is_some_and(|origin| !origin.is_consent() || stored.is_none());
            if stored_stays || row_is_needed {
                return Ok(Deletion::Kept);
            }
            let version = stored.as_ref().map_or(0, |(version, _)| *version);
            let newest = dropped.as_ref().or(stored.as_ref().and_then(|(_, record)| record.as_ref()));
            let spent = newest.map(|record| record.spent.clone()).unwrap_or_default();
            self.write_tombstone(resource_id, TombstoneContents { at_ms, version, spent: &spent }, deadline)?;
            if version == 0 {
                // A first save after the tombstone was written finds it; one before it is found here.
                if self.store.version(resource_id, deadline)?.is_some() {
                    continue;
                }
                was_there |= self.deletion_ended(resource_id, at_ms, &should_delete);
                return Ok(if was_there { Deletion::Deleted } else { Deletion::NotFound });
            }
            was_there = true;
            if self.store.remove_all(&[(resource_id.to_owned(), version)], deadline)?[..] == [true] {
                self.deletion_ended(resource_id, at_ms, &should_delete);
                return Ok(if self.is_unsaved(resource_id) { Deletion::Kept } else { Deletion::Deleted });
            }
        }
    }

    /// Drops the unsaved copy if it goes, and answers it; or answers the origin of a copy that stays.
    fn judge_unsaved(
        &self,
        resource_id: &str,
        should_delete: &impl Fn(&Record) -> bool,
    ) -> (Option<Record>, Option<Origin>) {
        let mut overlay = self.overlay();
        match overlay.unsaved.get(resource_id) {
            Some(unsaved) if !should_delete(&unsaved.record) => (None, Some(unsaved.origin.clone())),
            _ => (overlay.unsaved.remove(resource_id).map(|unsaved| unsaved.record), None),
        }
    }

    /// Notes a deletion that is done, and drops a copy that came while it ran; answers whether there was one. A token that is
    /// on its way is not kept from now on.
    fn deletion_ended(
        &self,
        resource_id: &str,
        at_ms: i64,
        should_delete: &impl Fn(&Record) -> bool,
    ) -> bool {
        let mut overlay = self.overlay();
        let uptime = self.clock.uptime();
        overlay.count += 1;
        let ended = overlay.count;
        if overlay.deleted.len() >= MANY {
            overlay.deleted.retain(|_, deleted| deleted.uptime + MAX_CALL > uptime);
        }
        overlay.deleted.insert(resource_id.to_owned(), Deleted { ended, at_ms, uptime });
        let ends = |unsaved: &Unsaved| {
            should_delete(&unsaved.record)
                && !(unsaved.origin.is_consent() && at_ms < unsaved.record.installed_at())
        };
        let is_ended = overlay.unsaved.get(resource_id).is_some_and(ends);
        is_ended && overlay.unsaved.remove(resource_id).is_some()
    }

    /// Deletes many records that were just listed, by one transaction if the store can do that. Answers the resources that
    /// another writer changed meanwhile: they are to be looked at again.
    pub fn delete_listed(&self, records: &[Record], at_ms: i64, deadline: &Deadline) -> Result<Vec<String>> {
        let mut notes = Vec::with_capacity(records.len());
        for record in records {
            let tombstone = self.tombstone(&record.resource_id, deadline)?;
            let contents = TombstoneContents { at_ms, version: record.version, spent: &record.spent };
            notes.push(self.next_tombstone(&record.resource_id, tombstone, contents));
        }
        let saved = self.store.save_notes(&notes, deadline);
        let (mut again, mut versions) = (Vec::new(), Vec::new());
        for (record, saved) in records.iter().zip(saved) {
            match saved {
                Ok(()) => versions.push((record.resource_id.clone(), record.version)),
                Err(error) if error.status() == Status::Conflict => again.push(record.resource_id.clone()),
                Err(error) => return Err(error.with_resource(&record.resource_id)),
            }
        }
        let removed = self.store.remove_all(&versions, deadline)?;
        for ((resource_id, _), removed) in versions.into_iter().zip(removed) {
            if removed {
                self.deletion_ended(&resource_id, at_ms, &|_| true);
            } else {
                again.push(resource_id);
            }
        }
        for record in records {
            self.drop_unsaved(record);
        }
        Ok(again)
    }

    /// The last version of a deleted record; 0 if none was deleted.
    pub fn last_deleted(&self, resource_id: &str, deadline: &Deadline) -> Result<u64> {
        Ok(self.tombstone(resource_id, deadline)?.as_ref().map_or(0, Note::deleted_version))
    }

    /// When a record was last deleted, in milliseconds since the epoch, if one was.
    pub fn last_deletion_ms(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<i64>> {
        Ok(self.tombstone(resource_id, deadline)?.as_ref().map(deleted_at))
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
            match self.store.save_note(&self.next_tombstone(resource_id, tombstone, contents), deadline) {
                Err(error) if error.status() == Status::Conflict => {}
                saved => return saved.map_err(|error| error.with_resource(resource_id)),
            }
        }
        Err(Error::new(Status::Store, "the tombstone of a record changes faster than it can be saved")
            .with_resource(resource_id))
    }

    /// A tombstone that comes after the last one, and after the version that is deleted. It keeps the digests of spent
    /// refresh tokens.
    fn next_tombstone(&self, resource_id: &str, last: Option<Note>, contents: TombstoneContents) -> Note {
        let last_version = last.as_ref().map_or(0, Note::deleted_version);
        let older = last.as_ref().map(spent_of).unwrap_or_default();
        let at_ms = contents.at_ms.max(last.as_ref().map_or(i64::MIN, deleted_at));
        Note {
            key: key(resource_id),
            version: last.map_or(0, |last| last.version),
            list: TOMBSTONES.into(),
            document: json!({
                "version": contents.version.max(last_version + 1),
                "atMs": at_ms,
                "spent": older.merged(contents.spent),
            }),
            expires_at: self.clock.wall_ms().saturating_add(RETENTION_MS),
        }
    }

    /// The digests of spent refresh tokens that a tombstone keeps.
    pub fn spent_before_deletion(&self, resource_id: &str, deadline: &Deadline) -> Result<SpentDigests> {
        Ok(self.tombstone(resource_id, deadline)?.as_ref().map(spent_of).unwrap_or_default())
    }

    /// Keeps a new token that the store refused: it is offered again, with backoff. A deletion or a newer token that came
    /// since its record was read goes before it.
    pub fn keep_unsaved(&self, record: Record, origin: Origin) -> Keeping {
        let resource_id = record.resource_id.clone();
        let next_save_at = self.clock.uptime() + backoff(0);
        let mut overlay = self.overlay();
        let is_ended = |deleted: &Deleted| {
            deleted.ended > record.as_of && !(origin.is_consent() && deleted.at_ms < record.installed_at())
        };
        if overlay.deleted.get(&resource_id).is_some_and(is_ended) {
            return Keeping::Deleted;
        }
        if overlay.unsaved.get(&resource_id).is_some_and(|unsaved| unsaved.is_newer(&record, &origin)) {
            return Keeping::Newer;
        }
        overlay.count += 1;
        let came = overlay.count;
        overlay.unsaved.insert(resource_id, Unsaved { record, origin, came, refusals: 0, next_save_at });
        Keeping::Kept
    }

    /// Offers the unsaved copy of a resource to the store, if its time has come, or in any case if `now`.
    pub fn retry_save(&self, resource_id: &str, now: bool, deadline: &Deadline) -> SaveRetry {
        let uptime = self.clock.uptime();
        let (mut record, origin) = match self.overlay().unsaved.get(resource_id) {
            Some(unsaved) if now || unsaved.next_save_at <= uptime => {
                (unsaved.record.clone(), unsaved.origin.clone())
            }
            _ => return SaveRetry::Nothing,
        };
        let offered = Arc::clone(&record.token);
        let saved = self.save(&mut record, &origin, deadline);
        let unsaved = &mut self.overlay().unsaved;
        // A newer token may have come meanwhile: it has its own turn.
        let is_the_same = |unsaved: &Unsaved| Arc::ptr_eq(&unsaved.record.token, &offered);
        match saved {
            Ok(saved) => {
                if unsaved.get(resource_id).is_some_and(is_the_same) {
                    unsaved.remove(resource_id);
                }
                SaveRetry::Done(Box::new(Offered { record, origin }), saved)
            }
            Err(error) => {
                if let Some(unsaved) = unsaved.get_mut(resource_id).filter(|unsaved| is_the_same(unsaved)) {
                    unsaved.refusals += 1;
                    unsaved.next_save_at = uptime + backoff(unsaved.refusals);
                }
                SaveRetry::Refused(error)
            }
        }
    }

    /// When an unsaved copy is offered again, by the uptime.
    pub fn next_save_at(&self, resource_id: &str) -> Option<Duration> {
        self.overlay().unsaved.get(resource_id).map(|unsaved| unsaved.next_save_at)
    }

    /// The unsaved copy of a resource.
    pub fn unsaved_copy(&self, resource_id: &str) -> Option<Record> {
        self.overlay().unsaved.get(resource_id).map(|unsaved| unsaved.record.clone())
    }

    /// Whether there is an unsaved copy of a resource.
    pub fn is_unsaved(&self, resource_id: &str) -> bool {
        self.overlay().unsaved.contains_key(resource_id)
    }

    /// Drops the unsaved copy, since a token of that origin was saved or refused for good. A copy that came since its record
    /// was read may be newer and stays: the store decides when it is offered.
    pub fn forget_older(&self, record: &Record, origin: &Origin) {
        let mut overlay = self.overlay();
        if overlay.unsaved.get(&record.resource_id).is_some_and(|unsaved| !unsaved.is_newer(record, origin)) {
            overlay.unsaved.remove(&record.resource_id);
        }
    }

    /// Drops this unsaved copy, unless a newer one has come.
    fn drop_unsaved(&self, copy: &Record) {
        let unsaved = &mut self.overlay().unsaved;
        if unsaved.get(&copy.resource_id).is_some_and(|held| Arc::ptr_eq(&held.record.token, &copy.token)) {
            unsaved.remove(&copy.resource_id);
        }
    }

    /// The resources that have an unsaved copy.
    pub fn unsaved_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.overlay().unsaved.keys().cloned().collect();
        ids.sort_unstable();
        ids
    }

    /// How many unsaved copies there are.
    pub fn unsaved_count(&self) -> usize {
        self.overlay().unsaved.len()
    }

    fn overlay(&self) -> MutexGuard<'_, Overlay> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of a tombstone about the record that is deleted.
#[derive(Clone, Copy)]
struct TombstoneContents<'a> {
    at_ms: i64,
    version: u64,
    spent: &'a SpentDigests,
}

/// The end of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The record is gone.
    Deleted,
    /// There was no record.
    NotFound,
    /// The record is one that stays.
    Kept,
}

impl Unsaved {
    /// Whether it came after `record` was read, and a token of that origin must not replace it.
    fn is_newer(&self, record: &Record, origin: &Origin) -> bool {
        self.came > record.as_of && self.origin.rank() >= origin.rank()
    }
}

impl Origin {
    /// Whether it is a consent, which begins an installation.
    pub fn is_consent(&self) -> bool {
        matches!(self, Origin::Consent(_) | Origin::ConsentUnread)
    }

    /// The order in which tokens that were granted at the same time replace each other: a mint can be repeated, and a refresh
    /// cannot be.
    fn rank(&self) -> u8 {
        match self {
            Origin::Mint => 0,
            Origin::Refresh(_) => 1,
            Origin::Consent(_) | Origin::ConsentUnread => 2,
        }
    }

    /// Whether the new token in `ours` replaces `stored`, which another writer saved.
    fn supersedes(&self, ours: &Record, stored: &Record, now_ms: i64) -> bool {
        let is_spent =
            |refresh_token: &Option<_>| refresh_token.as_ref().is_some_and(|token| stored.has_spent(token));
        let is_lost = matches!(stored.standing, Standing::ReauthorizationRequired { .. });
        // A mint can be repeated, and ends with its company.
        let is_first_consent = matches!(self, Origin::Consent(None) | Origin::ConsentUnread);
        let is_minted = ours.own_consent && !stored.own_consent;
        let replaces_mint = is_first_consent && is_minted;
        // A mint for a newer INSTALL is of a later installation.
        let outlives_mint = is_minted && stored.installed_at() <= ours.installed_at();
        match self {
            _ if is_spent(&ours.token.refresh_token) => false,
            _ if replaces_mint => true,
            Origin::Refresh(spent) => is_lost || outlives_mint || same_token(&stored.token, spent),
            Origin::Mint => stored.standing != Standing::Good || !stored.token.is_alive(now_ms),
            Origin::Consent(Some(replaced)) => {
                is_lost || same_token(&stored.token, replaced) || is_spent(&replaced.refresh_token)
            }
            Origin::Consent(None) => is_lost,
            Origin::ConsentUnread => is_lost || ours.installed_at() >= stored.installed_at(),
        }
    }
}

/// Whether two records hold the same grant: the same refresh token, or without one the same access token.
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

/// The resource of a tombstone.
pub fn resource_of(tombstone: &Note) -> Option<&str> {
    tombstone.key.strip_prefix(TOMBSTONE)
}

fn deleted_at(tombstone: &Note) -> i64 {
    tombstone.document.get("atMs").and_then(Value::as_i64).unwrap_or(i64::MAX)
}

fn spent_of(tombstone: &Note) -> SpentDigests {
    let spent = tombstone.document.get("spent").cloned().unwrap_or_default();
    serde_json::from_value(spent).unwrap_or_default()
}

/// The pause before an unsaved copy is offered again, after so many further refusals.
fn backoff(refusals: u32) -> Duration {
    Duration::from_secs(1 << refusals.min(6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::store::{MemoryStore, SpentDigest};
    use crate::token::UserType;

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

    /// A stored record, as a refresh reads it, and what comes of the refresh.
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
        let origin = Origin::Consent(Some(Arc::clone(&stored.token)));
        (Record { token: Arc::new(token("consent")), ..stored }, origin)
    }

    fn newest(records: &Records) -> String {
        records.load(ID, &patience()).unwrap().unwrap().token.access_token.expose().to_owned()
    }

    #[test]
    fn unsaved_consent_stays_when_a_refresh_ends_that_began_before_it() {
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
            assert!(matches!(records.retry_save(ID, true, &patience()), SaveRetry::Done(_, Saved::Ours)));
            assert_eq!(newest(&records), "access consent", "saved: {saves}");
        }
    }

    #[test]
    fn consent_replaces_the_unsaved_copy_of_a_refresh_that_ended_meanwhile() {
        let records = records();
        let (refreshed, of_refresh) = refreshed(&records);
        let (consent, of_consent) = consent(&records);
        assert_eq!(records.keep_unsaved(refreshed, of_refresh), Keeping::Kept);
        assert_eq!(records.keep_unsaved(consent, of_consent), Keeping::Kept);
        assert_eq!(newest(&records), "access consent");
    }

    #[test]
    fn token_on_its_way_during_a_deletion_is_not_kept_unless_it_is_a_later_consent() {
        let records = records();
        let (refreshed, of_refresh) = refreshed(&records);
        let (consent, of_consent) = consent(&records);
        let began = consent.installed_at();
        assert_eq!(records.delete(ID, began - 1, |_| true, &patience()).unwrap(), Deletion::Deleted);
        assert_eq!(records.keep_unsaved(refreshed, of_refresh), Keeping::Deleted);
        assert_eq!(records.keep_unsaved(consent.clone(), of_consent.clone()), Keeping::Kept);
        records.delete(ID, began, |_| true, &patience()).unwrap();
        assert_eq!(records.keep_unsaved(consent, of_consent), Keeping::Deleted);
        assert!(!records.is_unsaved(ID));
    }

    #[test]
    fn deletion_of_an_earlier_installation_removes_its_row_beneath_a_later_consent() {
        let records = records();
        refreshed(&records);
        let (consent, of_consent) = consent(&records);
        let began = consent.installed_at() + 10;
        let consent = Record { installed_at: Some(began), ..consent };
        records.keep_unsaved(consent, of_consent);
        let is_earlier = |record: &Record| record.installed_at() < began;
        assert_eq!(records.delete(ID, began - 1, is_earlier, &patience()).unwrap(), Deletion::Kept);
        assert!(records.load_stored(ID, &patience()).unwrap().is_none());
        assert!(matches!(records.retry_save(ID, true, &patience()), SaveRetry::Done(_, Saved::Ours)));
        assert_eq!(newest(&records), "access consent");
    }
}
