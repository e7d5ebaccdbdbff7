//! The invariants. Some are checked at each call; at the end of a run, the store is compared with
//! the grants that the API issued.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;

use super::network::UNANSWERED;
use super::server::{COMPANY, INVALID, LIFE, LOCATIONS, RESOURCES};
use super::world::{ProcessState, State, wall_ms};
use crate::error::{Error, Status};
use crate::secret::Secret;
use crate::store::Record;

/// How long a call may run past its deadline: a save that must be tried has a second of its own,
/// and waits for locks poll in steps.
const GRACE: Duration = Duration::from_millis(3_500);

/// How long a call may take if the process holds a valid token and the call makes no attempt
/// itself: short lock and store reads, and one pause.
const BRIEFLY: Duration = Duration::from_millis(1_500);

/// How long a process may take a token for valid after its expiry at the API: a replayed response
/// is up to half a minute old, and a response may arrive late.
const TOLERANCE: Duration = Duration::from_secs(90);

/// The remaining lifetime from which a token must be served without error.
const CERTAIN: Duration = Duration::from_secs(60);

/// The longest `timeouts.totalMs` of a process.
const LONGEST_CALL: Duration = Duration::from_secs(30);

/// Longer than a call.
const RECENTLY: Duration = Duration::from_secs(180);

#[derive(Default)]
pub struct Ledger {
    pub violations: Vec<String>,
    /// Resources whose lock was lost at least once.
    pub lost_locks: HashSet<String>,
    /// HTTP attempts by task.
    pub attempts: HashMap<usize, u32>,
    pub under_way: Vec<UnderWay>,
    pub deletions: Vec<Deletion>,
    pub owed: Vec<Owed>,
    /// Access tokens that were imported without their age or under another owner: no process can
    /// detect the mistake.
    pub mistold: HashSet<String>,
    /// Locations as whose the company's token was imported, and the company.
    pub misfiled: HashSet<String>,
    /// Resources of which a token was imported after a clock had been wrong.
    pub imported_skewed: HashSet<String>,
    /// The number of imports and bulk mints in progress.
    pub batches: u64,
    /// When hosts minted with "force", which replaces the consents of locations.
    pub forced: Vec<[Duration; 2]>,
    /// Whether any clock has been wrong.
    pub is_skewed: bool,
    /// Whether a process could know the age of a token that it returned.
    known_age: HashMap<(usize, String), bool>,
    /// The last token that each process returned for a resource, and when.
    handed_out: HashMap<(usize, String), (String, Duration)>,
    /// Locations that have been uninstalled at least once.
    pub was_uninstalled: HashSet<String>,
    /// When the stored token of a resource last changed.
    pub token_changed: HashMap<String, Duration>,
    /// When an INSTALL was last applied.
    pub was_told_installed: HashMap<String, Duration>,
}

impl Ledger {
    /// Called when a token is imported: a process that has read it may read it again with a
    /// different clock.
    pub fn forget_age(&mut self, access_token: &str) {
        self.known_age.retain(|(_, known), _| known != access_token);
    }

    /// Called when a process completes a consent or applies a webhook: its cache forgets the older
    /// tokens, and may read them again if they stay.
    pub fn forget_ages_in(&mut self, process: usize) {
        self.known_age.retain(|(knows, _), _| *knows != process);
    }
}

/// A refresh in progress.
pub struct UnderWay {
    pub task: usize,
    pub resource_id: String,
    pub process: usize,
    pub refresh_token: String,
}

/// A call that deletes tokens.
#[derive(Debug)]
pub struct Deletion {
    pub resource_id: String,
    pub by: By,
    pub process: usize,
    pub begin: Duration,
    pub end: Duration,
    /// Whether the call reported success.
    pub done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum By {
    User,
    /// An UNINSTALL of a resource, and whether it carried a timestamp.
    Webhook {
        of: &'static str,
        dated: bool,
    },
}

/// A grant that a process accepted by consent or import: the store must keep it.
pub struct Owed {
    pub resource_id: String,
    pub chain: usize,
    pub since: Duration,
    /// Whether the store knows if a location consented separately. An import does not say so,
    /// unless it is from an export.
    pub has_origin: bool,
    /// Whether the store knows the age of the grant. A saved response does not tell it.
    pub is_dated: bool,
}

/// The timing of one call.
pub struct Measured {
    pub task: usize,
    pub process: usize,
    pub begin: Duration,
    /// The duration, without the time for which the process was suspended.
    pub took: Duration,
}

impl State {
    pub fn refresh_begins(
        &mut self,
        task: usize,
        process: usize,
        resource_id: String,
        refresh_token: &str,
    ) {
        let other = self.ledger.under_way.iter().find(|other| {
            other.refresh_token == refresh_token
                && other.resource_id == resource_id
                && other.task != task
                && !self.processes[other.process].crashed
        });
        if let Some(other) = other
            && !self.ledger.lost_locks.contains(&resource_id)
        {
            let what = format!(
                "two refreshes of {resource_id} at once: processes {process} and {}",
                other.process
            );
            self.violation(what);
        }
        self.ledger.under_way.push(UnderWay {
            task,
            resource_id,
            process,
            refresh_token: refresh_token.to_owned(),
        });
    }

    /// Checks that a call ended by its deadline.
    pub fn check_time(&mut self, what: &str, measured: &Measured, extra: Duration) {
        let most = self.profile.total + GRACE + extra;
        if measured.took > most {
            self.violation(format!(
                "{what} took {:?}, and its deadline was {:?}",
                measured.took, self.profile.total
            ));
        }
    }

    /// Checks that a call that had `total` ended with TIMEOUT only after that time, or because a
    /// request was not answered.
    pub fn check_timeout<T>(
        &mut self,
        what: &str,
        measured: &Measured,
        total: Duration,
        answer: &Result<T, Error>,
    ) {
        let took = self.now - measured.begin;
        if let Err(error) = answer
            && error.status() == Status::Timeout
            && error.message() != UNANSWERED
            && took < total
        {
            self.violation(format!("{what} timed out after {took:?} of {total:?}: {error}"));
        }
    }

    /// The valid access token in the store.
    pub fn stored_valid(&self, resource_id: &str) -> Option<String> {
        let record = self.disk.records.get(resource_id)?;
        let token = record.token.access_token.expose();
        let access = self.server.access.get(token)?;
        let later = self.now + CERTAIN;
        // A process that was suspended during the request knows an earlier expiry.
        let is_valid = access.owner == resource_id
            && later < access.dies
            && wall_ms(later) < record.token.expires_at
            && self.server.is_alive(access.chain);
        is_valid.then(|| token.to_owned())
    }

    /// Whether no fault has affected a store call of a process since `begin`.
    pub fn store_works_since(&self, process: usize, begin: Duration) -> bool {
        let process = &self.processes[process];
        process.store_faults == 0 && process.store_worked_from < begin
    }

    /// The access token in the store, if the API accepts it.
    pub fn stored_live(&self, resource_id: &str) -> Option<String> {
        let record = self.disk.records.get(resource_id)?;
        let token = record.token.access_token.expose();
        self.server.accepts(token, self.now + CERTAIN).then(|| token.to_owned())
    }

    /// Checks the response to a request. `stored` was in the store, and accepted by the API, when
    /// the call began.
    pub fn check_response(
        &mut self,
        resource_id: &str,
        stored: Option<&str>,
        answer: &Result<Value, Error>,
    ) {
        let Ok(response) = answer else { return };
        if let Some(owner) = response["body"]["owner"].as_str()
            && owner != resource_id
            && !self.ledger.misfiled.contains(resource_id)
        {
            let what = format!("a request for {resource_id} had the token of {owner}");
            self.violation(what);
        }
        // Another 401 says nothing about the token. A clock that is ahead makes it an expired one.
        if response["body"]["message"] == INVALID
            && !self.ledger.is_skewed
            && let Some(stored) = stored
            && self.stored_live(resource_id).as_deref() == Some(stored)
        {
            let what = format!("a request for {resource_id} was refused, but {stored} is live");
            self.violation(what);
        }
    }

    /// Checks the result of an `access_token` call. `is_held`: the process held a valid token in
    /// memory when the call began; `stored` was valid and in the store.
    pub fn check_answer(
        &mut self,
        resource_id: &str,
        measured: &Measured,
        (is_held, stored): (bool, Option<&str>),
        answer: &Result<Secret, Error>,
    ) {
        let Measured { process, begin, took, .. } = *measured;
        let now = self.now;
        let attempts = self.ledger.attempts.remove(&measured.task).unwrap_or(0);
        let place = (process, resource_id.to_owned());
        let is_cancelled = matches!(answer, Err(error) if error.status() == Status::Cancelled);
        let handed_out = self.ledger.handed_out.get(&place);
        let in_memory = handed_out.filter(|(_, since)| is_held && *since <= begin);
        let in_memory = in_memory.map(|(token, _)| token.as_str());
        // The store worked during the whole call, and still has a valid token.
        let was_suspended = now - begin > took;
        let is_readable = !was_suspended
            && self.store_works_since(process, begin)
            && self.stored_valid(resource_id).is_some();
        let in_store = stored.filter(|_| is_readable);
        let mut found = None;
        for (place, token) in [("memory", in_memory), ("the store", in_store)] {
            let Some((token, access)) =
                token.and_then(|token| Some((token, self.server.access.get(token)?)))
            else {
                continue;
            };
            // Includes deletions by other processes, which this process may not have noticed yet,
            // and deletions during the call that minted the token.
            let granted = self.server.chains[access.chain].created;
            let asked = granted.saturating_sub(LONGEST_CALL);
            let was_deleted = self
                .ledger
                .deletions
                .iter()
                .any(|deletion| deletion.resource_id == resource_id && deletion.end >= asked);
            let is_certain = now + CERTAIN < access.dies
                && !was_deleted
                && self.server.is_alive(access.chain)
                && !self.ledger.is_skewed
                && !self.ledger.mistold.contains(token)
                && !is_cancelled;
            // An import that replaces the stored token ends the old one.
            let has_changed =
                self.ledger.token_changed.get(resource_id).is_some_and(|at| *at >= begin);
            let outcome = match answer {
                _ if !is_certain => None,
                Err(_) if has_changed => None,
                // The token is of no use while its location is paused.
                Err(error) if error.status() == Status::LocationInactive => None,
                Err(error) => Some(format!("failed: {error}")),
                Ok(_) => (attempts == 0 && took > BRIEFLY).then(|| format!("waited {took:?}")),
            };
            found = found.or(outcome.map(|outcome| {
                format!("a caller with a valid token of {resource_id} in {place} {outcome}")
            }));
        }
        if let Some(found) = found {
            self.violation(found);
        }
        match answer {
            Ok(token) => self.check_token(resource_id, process, begin, token.expose()),
            Err(error) if error.status() == Status::Internal => {
                self.violation(format!("access_token of {resource_id}: {error}"));
            }
            Err(_) => {}
        }
    }

    /// Checks a token that was to be valid for some seconds, unless it was just granted.
    pub fn check_validity(
        &mut self,
        resource_id: &str,
        process: usize,
        begin: Duration,
        token: &str,
        seconds: u64,
    ) {
        self.check_token(resource_id, process, begin, token);
        let Some(access) = self.server.access.get(token) else { return };
        let granted = access.dies.saturating_sub(LIFE);
        let is_short = access.dies.saturating_sub(begin) + TOLERANCE < Duration::from_secs(seconds);
        let is_known = !self.ledger.is_skewed && !self.ledger.mistold.contains(token);
        // A process that was suspended meanwhile knows an earlier expiry and a later grant.
        let is_new = granted + Duration::from_secs(60) + 2 * LONGEST_CALL > begin;
        if is_short && is_known && !is_new && self.processes[process].paused.is_zero() {
            let what = format!("{token} was returned, which expires within {seconds} s");
            self.violation(what);
        }
    }

    /// Checks a token that was returned by a call that began at `begin`.
    fn check_token(&mut self, resource_id: &str, process: usize, begin: Duration, token: &str) {
        let Some(access) = self.server.access.get(token) else {
            return self.violation(format!("{token} was returned, but never issued"));
        };
        let (chain, dies) = (access.chain, access.dies);
        let is_mistold = self.ledger.mistold.contains(token);
        if access.owner != resource_id && !is_mistold {
            let what = format!("a token of {} was returned for {resource_id}", access.owner);
            return self.violation(what);
        }
        let age_is_known = self.processes[process].lowest_ms >= access.granter_offset_ms;
        let known =
            *self.ledger.known_age.entry((process, token.to_owned())).or_insert(age_is_known);
        if known && !is_mistold && dies + TOLERANCE < begin {
            let what = format!("{token} was returned {:?} after its expiry", begin - dies);
            return self.violation(what);
        }
        let after = self.ledger.deletions.iter().rev().find(|deletion| {
            deletion.done
                && deletion.process == process
                && deletion.resource_id == resource_id
                && deletion.end <= begin
        });
        if let Some(deletion) = after
            && self.must_end(deletion, chain)
            && !self.server.chains[chain].began_after(deletion.begin)
        {
            let what = format!("{token} was returned after its deletion: {deletion:?}");
            return self.violation(what);
        }
        let place = (process, resource_id.to_owned());
        self.ledger.handed_out.insert(place, (token.to_owned(), self.now));
    }

    /// Whether a deletion must end a grant. An UNINSTALL is compared with the start of the
    /// installation, and clocks may be ahead.
    fn must_end(&self, deletion: &Deletion, chain: usize) -> bool {
        let chain = &self.server.chains[chain];
        let ahead = |process: &ProcessState| process.farthest_ms.max(0).unsigned_abs();
        let behind = |process: &ProcessState| process.lowest_ms.min(0).unsigned_abs();
        match deletion.by {
            // A consent that is not known to be stored is compared with a deletion by the clocks of
            // the two processes.
            By::User => {
                let both = [deletion.process, chain.granted_to].map(|index| &self.processes[index]);
                let most = |offset: &dyn Fn(&ProcessState) -> u64| {
                    both.iter().map(|process| offset(process)).max().unwrap_or(0)
                };
                let apart = Duration::from_millis(most(&ahead) + most(&behind));
                !chain.is_consented
                    || apart.is_zero()
                    || chain.stored_at.is_some_and(|at| at < deletion.begin)
                    || chain.created + apart < deletion.begin
            }
            By::Webhook { dated, .. } => {
                let most = self.processes.iter().map(ahead).max().unwrap_or(0);
                // An undated UNINSTALL is dated by the clock of its receiver.
                let late = if dated { 0 } else { behind(&self.processes[deletion.process]) };
                // A consent that is hardly older may belong to a later INSTALL.
                let tolerated = if chain.is_consented { 300_000 } else { 0 };
                let most = Duration::from_millis(most + late + tolerated);
                chain.created + most < deletion.begin
            }
        }
    }

    /// Whether the resource had a later consent, or a mint of a later installation: once that
    /// token is lost, an unsaved token of the ended installation may replace it.
    fn is_survived(&self, deletion: &Deletion, chain: usize) -> bool {
        let ended = &self.server.chains[chain];
        deletion.by != By::User
            && self.server.chains.iter().any(|other| {
                other.owner == deletion.resource_id
                    && (other.is_consented || other.began_after(deletion.begin))
                    && other.created > ended.created
            })
    }

    /// Checks the event of a failed renewal: the failure is in the stored record, or the process
    /// knows it; unless the token was replaced or deleted meanwhile.
    pub fn check_event(
        &mut self,
        process: usize,
        event: &Value,
        is_known: impl FnOnce(&Record) -> bool,
    ) {
        let is_failure = event["type"] == "token.refreshFailed"
            || event["type"] == "token.reauthorizationRequired";
        let resource_id = event["resourceId"].as_str().unwrap_or_default();
        // A token that was never stored has no record with a failure.
        let Some(record) = self.disk.records.get(resource_id).filter(|_| is_failure) else {
            return;
        };
        let is_of_token = event["expiresAt"] == record.token.expires_at;
        // Another process may have saved a new token while the refresh failed, which ended the
        // failure.
        let changed = self.ledger.token_changed.get(resource_id);
        let has_ended = changed.is_some_and(|at| *at + RECENTLY > self.now);
        // If the store fails, the record of a failure may be unreadable. The failure is then
        // attributed to a token by time, which a wrong clock prevents.
        let is_older = event["at"].as_i64() < record.token.issued_at;
        let is_undatable =
            self.profile.skew && (event["error"]["status"] == "GHL_ERR_STORE" || is_older);
        let is_exempt = has_ended || is_undatable || self.processes[process].crashed;
        if is_of_token && !is_exempt && !is_known(record) {
            let what = format!("the failure of {resource_id} is not listed after {event}");
            self.violation(what);
        }
    }

    /// Checks the store when no call is in progress.
    pub fn check_store(&mut self) {
        let mut found = Vec::new();
        for record in self.disk.records.values() {
            let id = &record.resource_id;
            let access_token = record.token.access_token.expose();
            let Some(access) = self.server.access.get(access_token) else {
                found.push(format!("the store holds an unknown token of {id}"));
                continue;
            };
            if access.owner != *id && !self.ledger.mistold.contains(access_token) {
                found.push(format!("the store holds a token of {} under {id}", access.owner));
            }
            let deletion = self.ledger.deletions.iter().filter(|deletion| {
                deletion.done
                    && deletion.resource_id == *id
                    && self.must_end(deletion, access.chain)
            });
            if let Some(deletion) = deletion.max_by_key(|deletion| deletion.begin)
                && !self.server.chains[access.chain].began_after(deletion.begin)
                && !self.is_survived(deletion, access.chain)
            {
                found.push(format!("{id} exists again after {deletion:?}"));
            }
        }
        for what in found {
            self.violation(what);
        }
    }

    /// Checks what a new process got for each resource, one day after all other processes were
    /// closed.
    pub fn check_connections(&mut self, answers: &[(&'static str, Result<Secret, Error>)]) {
        let is_live = |token: &Secret| {
            let access = self.server.access.get(token.expose());
            access
                .is_some_and(|access| self.now < access.dies && self.server.is_alive(access.chain))
        };
        let mut connected = answers.iter().filter(|(_, answer)| answer.as_ref().is_ok_and(is_live));
        let company = connected.any(|(id, _)| *id == COMPANY);
        for (id, answer) in answers {
            let Err(error) = answer else { continue };
            if !self.server.resources[id].installed {
                continue;
            }
            let mut found = None;
            // A later grant replaces an earlier one.
            let last = self
                .ledger
                .owed
                .iter()
                .filter(|owed| owed.resource_id == *id)
                .max_by_key(|owed| owed.since);
            if let Some(owed) = last
                && let Some(why) = self.is_still_owed(owed)
            {
                found = Some(format!("the connection of {id} was lost ({error}): {why}"));
            }
            let is_owed = self
                .ledger
                .owed
                .iter()
                .any(|owed| owed.resource_id == *id && self.server.is_alive(owed.chain));
            let was_deleted =
                self.ledger.deletions.iter().any(|deletion| deletion.resource_id == *id);
            // A token that was never stored leaves no record that could ask for consent.
            let was_never_stored = last
                .and_then(|owed| self.server.chains[owed.chain].tip.as_ref())
                .is_some_and(|tip| !self.disk.stored.contains(tip));
            // The error for a minted location names the company if the company was deleted.
            let company_was_deleted =
                self.ledger.deletions.iter().any(|deletion| deletion.resource_id == COMPANY);
            let is_said = error.status() == Status::ReauthorizationRequired
                || (error.status() == Status::NotFound
                    && (was_never_stored
                        || (error.resource_id() == Some(COMPANY) && company_was_deleted)));
            if found.is_none() && is_owed && !was_deleted && !is_said {
                found = Some(format!(
                    "the connection of {id} was lost, and the error does not ask for consent: \
                     {error}"
                ));
            }
            // The API refused a mint while the app was not installed on the location, and no
            // process was told of the installation.
            let told = self.ledger.was_told_installed.get(*id);
            let is_unknown = error.status() == Status::ReauthorizationRequired
                && self.server.refused.get(*id).is_some_and(|at| told.is_none_or(|told| told < at));
            if LOCATIONS.contains(id)
                && company
                && found.is_none()
                && !is_unknown
                && !self.ledger.was_uninstalled.contains(*id)
                && !self.ledger.is_skewed
            {
                found =
                    Some(format!("{id} was not minted although its company is connected: {error}"));
            }
            if let Some(what) = found {
                self.violation(what);
            }
        }
        debug_assert!(RESOURCES.len() == 3);
    }

    /// Why the grant should still exist, or `None` if its loss was unavoidable.
    fn is_still_owed(&self, owed: &Owed) -> Option<String> {
        let chain = &self.server.chains[owed.chain];
        // If two consents overlap, either may win.
        let is_ambiguous = |other: &Owed| {
            other.resource_id == owed.resource_id
                && other.chain != owed.chain
                && other.since + Duration::from_secs(60) > owed.since
        };
        // A later consent replaced it, although that call failed.
        let is_replaced = self.server.chains.iter().any(|other| {
            other.owner == owed.resource_id && other.is_consented && other.created > owed.since
        });
        // A mint by force or for a newer INSTALL replaces the location's own consent, and ends with
        // the company's grant. An imported grant of a mint, or of unknown origin, is replaced by
        // any later mint.
        let is_replaceable = self.ledger.was_uninstalled.contains(&owed.resource_id)
            || !chain.is_consented
            || !owed.has_origin;
        let was_forced =
            |at| self.ledger.forced.iter().any(|[begin, end]| (begin..=end).contains(&at));
        let is_minted_anew = self.server.chains.iter().any(|other| {
            other.owner == owed.resource_id
                && !other.is_consented
                && other.created > owed.since
                && (is_replaceable || was_forced(&other.created))
        });
        let is_last = self.ledger.owed.iter().all(|other| {
            other.chain == owed.chain
                || other.resource_id != owed.resource_id
                || other.since < owed.since
        });
        // A misfiled import replaces the location's grant, and its refresh replaces the company's.
        // With a wrong clock, an older import looks newer.
        let is_exchanged = self.ledger.misfiled.contains(&owed.resource_id)
            || self.ledger.imported_skewed.contains(&owed.resource_id);
        if is_exchanged
            || (is_replaced && is_last)
            || is_minted_anew
            || self.ledger.owed.iter().any(is_ambiguous)
        {
            return None;
        }
        let is_excused = |deletion: &&Deletion| {
            deletion.resource_id == owed.resource_id
                && deletion.end >= owed.since
                && match deletion.by {
                    By::User => true,
                    // A location whose origin is unknown ends with its company.
                    By::Webhook { of, .. } if of != owed.resource_id && !owed.has_origin => true,
                    // A token of unknown age may be older than an UNINSTALL that arrives late.
                    By::Webhook { dated, .. } => !dated || !owed.is_dated || self.ledger.is_skewed,
                }
        };
        let tip = chain.tip.as_ref()?;
        if chain.ended.is_some() || self.ledger.deletions.iter().any(|one| is_excused(&one)) {
            return None;
        }
        // A consent that could not be saved is compared with another process's consent by
        // the clock, which was wrong.
        let is_wrong = |process: usize| {
            let process = &self.processes[process];
            process.farthest_ms > 0 || process.lowest_ms < 0
        };
        let is_misjudged = self.server.chains.iter().enumerate().any(|(index, other)| {
            index != owed.chain
                && other.owner == owed.resource_id
                && other.is_consented
                && other.stored_at.is_none_or(|at| at > owed.since)
                && (is_wrong(other.granted_to) || is_wrong(chain.granted_to))
        });
        if is_misjudged {
            return None;
        }
        if self.disk.stored.contains(tip) {
            return Some(format!("{tip} was stored, but not used"));
        }
        // A consent that could not be saved is compared with a deletion or another consent by the
        // clock, which was wrong.
        let consents = self
            .server
            .chains
            .iter()
            .filter(|other| other.owner == owed.resource_id && other.is_consented);
        let is_compared = consents.count() > 1
            || self
                .ledger
                .deletions
                .iter()
                .any(|deletion| deletion.resource_id == owed.resource_id);
        if self.ledger.is_skewed && is_compared {
            return None;
        }
        let holder = chain.delivered.iter().find(|process| {
            let process = &self.processes[**process];
            !process.crashed && !process.closed_in_trouble
        });
        holder.map(|process| format!("{tip} reached process {process}, but was never stored"))
    }
}
