//! The in-memory token store: for tests, and for hosts that import tokens when they start.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::process_lock::ProcessLocks;
use super::{DuePage, Lock, Note, NotePage, Page, Query, Record, Store, TOMBSTONE};
use crate::deadline::Deadline;
use crate::error::Result;

/// A store that ends with the process.
#[derive(Default)]
pub struct MemoryStore {
    records: Mutex<BTreeSet<ById>>,
    notes: Mutex<BTreeMap<String, Note>>,
    locks: Arc<ProcessLocks>,
}

/// A record, ordered by its resource ID.
struct ById(Box<Record>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.resource_id
    }
}

impl Ord for ById {
    fn cmp(&self, other: &ById) -> Ordering {
        self.0.resource_id.cmp(&other.0.resource_id)
    }
}

impl PartialOrd for ById {
    fn partial_cmp(&self, other: &ById) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &ById) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ById {}

impl MemoryStore {
    fn records(&self) -> MutexGuard<'_, BTreeSet<ById>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_notes(&self) -> MutexGuard<'_, BTreeMap<String, Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follows_tombstone(&self, record: &Record) -> bool {
        let notes = self.all_notes();
        let tombstone = notes.get(&format!("{TOMBSTONE}{}", record.resource_id));
        tombstone.map_or(0, Note::deleted_version) == record.predecessor
    }
}

impl Store for MemoryStore {
    fn load(&self, resource_id: &str, _: &Deadline) -> Result<Option<Record>> {
        Ok(self.records().get(resource_id).map(|record| Record::clone(&record.0)))
    }

    fn version(&self, resource_id: &str, _: &Deadline) -> Result<Option<u64>> {
        Ok(self.records().get(resource_id).map(|record| record.0.version))
    }

    fn save(&self, record: &Record, _: &Deadline) -> Result<u64> {
        let mut records = self.records();
        let stored = records.get(record.resource_id.as_str()).map_or(0, |stored| stored.0.version);
        if stored != record.version || (record.version == 0 && !self.follows_tombstone(record)) {
            return Err(super::changed_meanwhile(&record.resource_id));
        }
        let version = record.next_version();
        records.replace(ById(Box::new(Record { version, ..record.clone() })));
        Ok(version)
    }

    fn compares_tombstones(&self) -> bool {
        true
    }

    fn remove_all(&self, records: &[(String, u64)], _: &Deadline) -> Result<Vec<bool>> {
        let mut stored = self.records();
        let mut remove = |(resource_id, version): &(String, u64)| {
            let is_the_same =
                stored.get(resource_id.as_str()).is_some_and(|record| record.0.version == *version);
            is_the_same && stored.remove(resource_id.as_str())
        };
        Ok(records.iter().map(&mut remove).collect())
    }

    fn list(&self, query: &Query, _: &Deadline) -> Result<Page> {
        let records = self.records();
        let start = query.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let after = records.range::<str, _>((start, Bound::Unbounded)).map(|record| &*record.0);
        let matching = after.filter(|record| query.matches(record));
        Ok(Page::cut(matching.take(query.limit + 1).cloned().collect(), query.limit))
    }

    fn due(
        &self,
        company_id: Option<&str>,
        renewals: &RangeInclusive<i64>,
        after: Option<&str>,
        limit: usize,
        _: &Deadline,
    ) -> Result<DuePage> {
        let after = DuePage::position(after);
        let position = |record: &Record| (record.renew_at, record.resource_id.clone());
        let records = self.records();
        let mut due: Vec<_> = records
            .iter()
            .map(|record| &*record.0)
            .filter(|record| renewals.contains(&record.renew_at))
            .filter(|record| {
                company_id.is_none_or(|id| record.token.company_id.as_deref() == Some(id))
            })
            .map(position)
            .filter(|position| *position > after)
            .collect();
        due.sort_unstable();
        Ok(DuePage::cut(due, limit))
    }

    fn next_renewal(&self, company_id: Option<&str>, _: &Deadline) -> Result<Option<i64>> {
        let records = self.records();
        let matching = records.iter().map(|record| &*record.0).filter(|record| {
            company_id.is_none_or(|id| record.token.company_id.as_deref() == Some(id))
        });
        Ok(matching.map(|record| record.renew_at).min())
    }

    fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>> {
        self.locks.lock(resource_id, deadline).map(|lock| Box::new(lock) as Box<dyn Lock>)
    }

    fn note(&self, key: &str, _: &Deadline) -> Result<Option<Note>> {
        Ok(self.all_notes().get(key).cloned())
    }

    fn save_note(&self, note: &Note, _: &Deadline) -> Result<()> {
        let mut notes = self.all_notes();
        if notes.get(&note.key).map_or(0, |stored| stored.version) != note.version {
            return Err(super::note_changed_meanwhile(&note.key));
        }
        notes.insert(note.key.clone(), Note { version: note.version + 1, ..note.clone() });
        Ok(())
    }

    fn notes(
        &self,
        list: &str,
        after: Option<&str>,
        limit: usize,
        _: &Deadline,
    ) -> Result<NotePage> {
        let notes = self.all_notes();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let listed = notes
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(_, note)| note)
            .filter(|note| note.list == list);
        Ok(NotePage::cut(listed.take(limit + 1).cloned().collect(), limit))
    }

    fn prune_notes(&self, now_ms: i64, _: &Deadline) -> Result<()> {
        self.all_notes().retain(|_, note| note.expires_at > now_ms);
        Ok(())
    }
}
