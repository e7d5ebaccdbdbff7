//! The simulated disk: an in-memory store that all processes share, with fault injection at each
//! call.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use super::world::{State, World};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::secret::Secret;
use crate::store::{DuePage, Lock, Note, NotePage, Page, Query, Record, Store, TOMBSTONE};
use crate::token::Token;

/// The records, notes and locks.
#[derive(Default)]
pub struct Disk {
    pub records: BTreeMap<String, Record>,
    notes: BTreeMap<String, Note>,
    locks: HashMap<String, Holder>,
    next_lock: u64,
    /// The highest version that each resource's record has had.
    highest: HashMap<String, u64>,
    /// Every refresh token that has been stored.
    pub stored: HashSet<String>,
    /// The records before unsynced intents, which a restart undoes.
    synced: HashMap<String, Record>,
}

struct Holder {
    process: usize,
    lock: u64,
    /// When the lock is lost. The holder is not told, and still relies on the lock.
    lost_at: Duration,
}

/// A fault that is injected into a call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Refused,
    Stalled,
    AnswerLost,
    Slow,
}

/// One process's handle to the shared store.
pub struct SimulatedStore {
    pub world: Arc<World>,
    pub process: usize,
}

fn gone() -> Error {
    Error::new(Status::Store, "the process has crashed")
}

fn refused() -> Error {
    Error::new(Status::Store, "the disk refuses")
}

fn conflict() -> Error {
    Error::new(Status::Conflict, "changed by another writer")
}

/// Whether the access token changed, or the refresh token came back or changed. A failure can
/// remove the refresh token.
fn has_new_token(before: &Token, now: &Token) -> bool {
    let is_other = |before: &Option<Secret>, now: &Secret| {
        before.as_ref().is_none_or(|before| !before.matches(now.expose()))
    };
    !before.access_token.matches(now.access_token.expose())
        || now.refresh_token.as_ref().is_some_and(|now| is_other(&before.refresh_token, now))
}

impl SimulatedStore {
    /// Makes one store call, with latency and faults. `writes`: the call changes the disk, so that
    /// its acknowledgement can be lost.
    fn call<T>(
        &self,
        name: &str,
        writes: bool,
        deadline: &Deadline,
        effect: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        let (fault, latency) = self.world.with(|state| self.draw(state, writes));
        if fault.is_none() {
            return self.call_with(name, (None, latency), deadline, effect);
        }
        self.world.with(|state| state.processes[self.process].store_faults += 1);
        let result = self.call_with(name, (fault, latency), deadline, effect);
        self.world.with(|state| {
            let now = state.now;
            let process = &mut state.processes[self.process];
            process.store_faults -= 1;
            process.store_worked_from = now;
        });
        result
    }

    fn call_with<T>(
        &self,
        name: &str,
        (fault, latency): (Option<Fault>, Duration),
        deadline: &Deadline,
        effect: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        if !self.world.step(self.process, latency) {
            return Err(gone());
        }
        deadline.check()?;
        match fault {
            Some(Fault::Refused) => {
                self.world.with(|state| {
                    state.say(|| format!("process {} {name}: refused", self.process))
                });
                return Err(refused());
            }
            Some(Fault::Stalled) => {
                self.world
                    .with(|state| state.say(|| format!("process {} {name}: stalls", self.process)));
                deadline.sleep(deadline.remaining())?;
                return Err(deadline.timed_out());
            }
            Some(Fault::Slow) => {
                let wait = self.world.with(|state| state.rng.millis(3_000));
                deadline.sleep(wait)?;
            }
            Some(Fault::AnswerLost) | None => {}
        }
        let result = self.world.with(|state| {
            if state.processes[self.process].crashed {
                return Err(gone());
            }
            let result = effect(state);
            state.say(|| {
                let what = result.as_ref().map(|_| "done").map_err(|error| error.status());
                format!("process {} {name}: {what:?} {fault:?}", self.process)
            });
            result
        });
        // The process may crash between the effect and its acknowledgement.
        let quick = self.world.with(|state| state.rng.chance(50));
        if !quick && !self.world.step(self.process, Duration::ZERO) {
            return Err(gone());
        }
        match fault {
            Some(Fault::AnswerLost) => Err(refused()),
            _ => result,
        }
    }

    fn draw(&self, state: &mut State, writes: bool) -> (Option<Fault>, Duration) {
        let micros = state.rng.below(1_500);
        let is_trouble = state.now < state.processes[self.process].store_trouble_until
            && state.rng.chance(state.profile.store_percent);
        let fault = match state.rng.below(4) {
            _ if !is_trouble => None,
            0 if writes && state.profile.store_lost_answers => Some(Fault::AnswerLost),
            1 => Some(Fault::Stalled),
            2 => Some(Fault::Slow),
            _ => Some(Fault::Refused),
        };
        (fault, Duration::from_micros(micros))
    }

    /// Saves a record, an intent with a version that no other writer uses.
    fn save_now(&self, state: &mut State, record: &Record, is_intent: bool) -> Result<u64> {
        let id = &record.resource_id;
        let stored = state.disk.records.get(id).map_or(0, |stored| stored.version);
        let tombstone =
            state.disk.notes.get(&format!("{TOMBSTONE}{id}")).map_or(0, Note::deleted_version);
        let is_late = record.version == 0
            && state.profile.compares_tombstones
            && tombstone != record.predecessor;
        if stored != record.version || is_late {
            return Err(conflict());
        }
        if let Some(failure) = &record.last_failure
            && failure.expires_at != record.token.expires_at
        {
            state.violation(format!("a new token of {id} is saved with the failure of an old one"));
        }
        let skipped = if is_intent { 1 + state.rng.below(1 << 32) } else { 0 };
        let version = record.next_version() + skipped;
        let highest = state.disk.highest.entry(id.clone()).or_default();
        // Without an atomic tombstone comparison, a batch for which the tombstone was read before a
        // deletion may still be saved after it.
        let is_excused = !state.profile.compares_tombstones && state.ledger.batches > 0;
        if version <= *highest && !is_excused {
            let highest = *highest;
            state.violation(format!("the versions of {id} start again: {version} after {highest}"));
        } else {
            *highest = version;
        }
        if let Some(refresh_token) = &record.token.refresh_token
            && !state.disk.stored.contains(refresh_token.expose())
        {
            state.disk.stored.insert(refresh_token.expose().to_owned());
        }
        state.say(|| {
            let refresh =
                record.token.refresh_token.as_ref().map(|token| token.expose().to_owned());
            format!(
                "stored {id} version {version} {refresh:?} {:?} intent {}",
                record.standing,
                record.intent.is_some()
            )
        });
        let saved = Record { version, ..record.clone() };
        let replaced = state.disk.records.insert(id.clone(), saved);
        match (&replaced, is_intent) {
            (Some(replaced), true) => {
                state.disk.synced.entry(id.clone()).or_insert_with(|| replaced.clone());
            }
            // Syncs the earlier writes as well.
            _ => state.disk.synced.clear(),
        }
        let has_new_token =
            replaced.as_ref().is_none_or(|replaced| has_new_token(&replaced.token, &record.token));
        if has_new_token {
            state.ledger.token_changed.insert(id.clone(), state.now);
        }
        Ok(version)
    }

    fn save_note_now(state: &mut State, note: &Note) -> Result<()> {
        if state.disk.notes.get(&note.key).map_or(0, |stored| stored.version) != note.version {
            return Err(conflict());
        }
        state.disk.synced.clear();
        state
            .disk
            .notes
            .insert(note.key.clone(), Note { version: note.version + 1, ..note.clone() });
        Ok(())
    }
}

impl State {
    /// Restarts the store: every lock is free, and intents are undone, although their processes go
    /// on.
    pub fn restart_store(&mut self) {
        self.say(|| "the store restarts".to_owned());
        for (id, record) in std::mem::take(&mut self.disk.synced) {
            self.say(|| format!("restored {id} version {}", record.version));
            self.disk.highest.insert(id.clone(), record.version);
            self.disk.records.insert(id, record);
        }
        for process in 0..self.processes.len() {
            self.lose_locks(process);
        }
    }

    /// Ends the process's store sessions: its locks are free, although it still relies on them.
    pub fn lose_locks(&mut self, process: usize) {
        let now = self.now;
        for (id, holder) in &mut self.disk.locks {
            if holder.process == process && holder.lost_at > now {
                holder.lost_at = now;
                self.ledger.lost_locks.insert(id.clone());
            }
        }
    }
}

impl Store for SimulatedStore {
    fn load(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Record>> {
        self.call("load", false, deadline, |state| Ok(state.disk.records.get(resource_id).cloned()))
    }

    fn version(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<u64>> {
        let version = |state: &mut State| {
            Ok(state.disk.records.get(resource_id).map(|record| record.version))
        };
        self.call("version", false, deadline, version)
    }

    fn save(&self, record: &Record, deadline: &Deadline) -> Result<u64> {
        let saved = self.call("save", true, deadline, |state| self.save_now(state, record, false));
        if saved.is_ok()
            && let Some(refresh_token) = &record.token.refresh_token
        {
            self.world.with(|state| state.server.stored(refresh_token.expose(), state.now));
        }
        saved
    }

    fn save_intent(&self, record: &Record, deadline: &Deadline) -> Result<u64> {
        let is_intent = record.version > 0;
        self.call("intent", true, deadline, |state| self.save_now(state, record, is_intent))
    }

    fn compares_tombstones(&self) -> bool {
        self.world.with(|state| state.profile.compares_tombstones)
    }

    fn remove_all(&self, records: &[(String, u64)], deadline: &Deadline) -> Result<Vec<bool>> {
        self.call("remove", true, deadline, |state| {
            let mut remove = |(id, version): &(String, u64)| {
                let is_same =
                    state.disk.records.get(id).is_some_and(|record| record.version == *version);
                if is_same {
                    state.disk.synced.clear();
                }
                is_same && state.disk.records.remove(id).is_some()
            };
            Ok(records.iter().map(&mut remove).collect())
        })
    }

    fn list(&self, query: &Query, deadline: &Deadline) -> Result<Page> {
        self.call("list", false, deadline, |state| {
            let start = query.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let after = state
                .disk
                .records
                .range::<str, _>((start, Bound::Unbounded))
                .map(|(_, record)| record);
            let matching = after.filter(|record| query.matches(record));
            Ok(Page::cut(matching.take(query.limit + 1).cloned().collect(), query.limit))
        })
    }

    fn due(
        &self,
        company_id: Option<&str>,
        renewals: &RangeInclusive<i64>,
        _after: Option<&str>,
        _limit: usize,
        deadline: &Deadline,
    ) -> Result<DuePage> {
        self.call("due", false, deadline, |state| {
            let is_due = |record: &&Record| {
                renewals.contains(&record.renew_at)
                    && company_id.is_none_or(|id| record.token.company_id.as_deref() == Some(id))
            };
            let mut due: Vec<&Record> = state.disk.records.values().filter(is_due).collect();
            due.sort_by_key(|record| record.renew_at);
            // A run has a handful of records: one page holds them.
            let resource_ids = due.into_iter().map(|record| record.resource_id.clone()).collect();
            Ok(DuePage { resource_ids, next: None })
        })
    }

    fn next_renewal(&self, company_id: Option<&str>, deadline: &Deadline) -> Result<Option<i64>> {
        self.call("next renewal", false, deadline, |state| {
            let is_meant = |record: &&Record| {
                company_id.is_none_or(|id| record.token.company_id.as_deref() == Some(id))
            };
            Ok(state.disk.records.values().filter(is_meant).map(|record| record.renew_at).min())
        })
    }

    fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>> {
        loop {
            let taken = self.call("lock", false, deadline, |state| {
                let State { disk, processes, now, rng, .. } = state;
                let is_held = disk.locks.get(resource_id).is_some_and(|holder| {
                    !processes[holder.process].crashed && *now < holder.lost_at
                });
                if is_held {
                    return Ok(None);
                }
                disk.next_lock += 1;
                let lost_at = match state.profile.lost_locks && rng.chance(50) {
                    true => *now + rng.millis(2_000),
                    false => Duration::MAX,
                };
                let holder = Holder { process: self.process, lock: disk.next_lock, lost_at };
                let lock = disk.next_lock;
                if lost_at != Duration::MAX {
                    state.ledger.lost_locks.insert(resource_id.to_owned());
                }
                state.disk.locks.insert(resource_id.to_owned(), holder);
                Ok(Some(lock))
            })?;
            if let Some(lock) = taken {
                let (world, resource_id) = (Arc::clone(&self.world), resource_id.to_owned());
                return Ok(Box::new(SimulatedLock { world, resource_id, lock }));
            }
            let pause = self.world.with(|state| Duration::from_millis(5) + state.rng.millis(15));
            deadline.sleep(pause)?;
        }
    }

    fn note(&self, key: &str, deadline: &Deadline) -> Result<Option<Note>> {
        self.call("note", false, deadline, |state| Ok(state.disk.notes.get(key).cloned()))
    }

    fn save_note(&self, note: &Note, deadline: &Deadline) -> Result<()> {
        self.call("save note", true, deadline, |state| {
            state.say(|| format!("note {} {}", note.key, note.document));
            SimulatedStore::save_note_now(state, note)
        })
    }

    fn notes(
        &self,
        list: &str,
        after: Option<&str>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<NotePage> {
        self.call("notes", false, deadline, |state| {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            let listed = state
                .disk
                .notes
                .range::<str, _>((start, Bound::Unbounded))
                .map(|(_, note)| note)
                .filter(|note| note.list == list);
            let mut notes: Vec<Note> = listed.take(limit + 1).cloned().collect();
            let more = notes.len() > limit;
            notes.truncate(limit);
            let next = notes.last().filter(|_| more).map(|last| last.key.clone());
            Ok(NotePage { notes, next })
        })
    }

    fn prune_notes(&self, now_ms: i64, deadline: &Deadline) -> Result<()> {
        self.call("prune", true, deadline, |state| {
            state.disk.notes.retain(|_, note| note.expires_at > now_ms);
            Ok(())
        })
    }
}

struct SimulatedLock {
    world: Arc<World>,
    resource_id: String,
    lock: u64,
}

impl Lock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.world.with(|state| {
            let is_ours = |holder: &Holder| holder.lock == self.lock;
            if state.disk.locks.get(&self.resource_id).is_some_and(is_ours) {
                state.disk.locks.remove(&self.resource_id);
            }
        });
    }
}
