//! Installations, as webhooks report them: last-write-wins by time, in any order, more than once.
//! What was last said of each place is written down, so that an older word never undoes a newer
//! one.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Deletion, Origin, Saved, Tokens, Want};
use crate::deadline::Deadline;
use crate::deferred_callbacks;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::store::{Note, Query, Record, Standing};
use crate::token::CLOCK_TOLERANCE_MS;

/// How long an UNINSTALL and a delivery's id are remembered. The vendor repeats a delivery for two hours.
pub const DELIVERY_RETENTION_MS: i64 = 7 * 86_400_000;

/// The list of the locations whose INSTALL waits for a token.
pub(super) const UNMINTED: &str = "unminted";

const KEY: &str = "installation/";

/// INSTALLs that are no further apart tell of the same installation: a consent, and the webhooks that follow it.
const SAME_INSTALLATION_MS: i64 = 1_000;

/// How many records or notes are read at a time.
const PAGE: usize = 100;

/// How many remembered locations are minted for within the call that brings their company's token; maintenance, or the
/// first use, does the rest.
const MAX_MINTS_PER_CALL: usize = 10;

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookOutcome {
    /// Whether it was the newest word on its company or location.
    pub applied: bool,
    /// Why not, or what is still to come.
    pub reason: Option<&'static str>,
}

impl WebhookOutcome {
    /// A delivery that changes nothing.
    pub const fn ignored(reason: &'static str) -> WebhookOutcome {
        WebhookOutcome { applied: false, reason: Some(reason) }
    }

    /// That of a delivery about several locations: applied if it is for one of them, with the first reason given.
    pub fn of_all(each: Vec<WebhookOutcome>) -> WebhookOutcome {
        let applied = each.iter().any(|outcome| outcome.applied);
        WebhookOutcome { applied, reason: each.iter().find_map(|outcome| outcome.reason) }
    }
}

/// The last word on a company or location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InstallationState {
    /// When it was said, in milliseconds since the epoch.
    pub(super) at_ms: i64,
    pub(super) installed: bool,
    pub(super) company_id: Option<String>,
}

/// The record of a location, if there is one, and whether it cannot be read.
struct LoadedRecord {
    record: Option<Record>,
    is_unreadable: bool,
}

impl Tokens {
    /// The app was installed on a location: its token is minted now, if its company's token is here. Otherwise, and if the
    /// mint fails, the location is remembered. A token of an earlier installation, or of another company, is replaced: it
    /// may be dead, and minting is free.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn location_installed(
        &self,
        location_id: &str,
        company_id: Option<&str>,
        at_ms: i64,
        deadline: &Deadline,
    ) -> Result<WebhookOutcome> {
        let company_id = company_id.map(str::to_owned);
        let state = InstallationState { at_ms, installed: true, company_id };
        let last = self.update_installation_state(location_id, state, deadline)?;
        if !last.installed {
            return Ok(WebhookOutcome::ignored("a later UNINSTALL was applied"));
        }
        // Looked at after the note is written, as the company's UNINSTALL looks for notes after its own: of two that come
        // at once, one sees the other.
        if let Some(company_id) = &last.company_id
            && let Some(company) = self
                .last_installation_state(company_id, deadline)?
                .filter(|company| company.uninstalled_after(last.at_ms))
        {
            self.update_installation_state(location_id, company, deadline)?;
            return Ok(WebhookOutcome::ignored("a later UNINSTALL of its company was applied"));
        }
        Ok(WebhookOutcome { applied: true, reason: self.mint_installed(location_id, &last, deadline)? })
    }

    /// The app was removed from a location: its token is deleted, unless its installation began after that.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn location_uninstalled(
        &self,
        location_id: &str,
        at_ms: i64,
        deadline: &Deadline,
    ) -> Result<WebhookOutcome> {
        let state = InstallationState { at_ms, installed: false, company_id: None };
        let last = self.update_installation_state(location_id, state, deadline)?;
        if last.installed {
            // Installed anew: a token of the earlier time ends all the same, and a new one is due.
            self.set_list(location_id, UNMINTED, deadline)?;
        }
        let end = self.delete_if(location_id, at_ms, |record| self.ends_by(record, at_ms), deadline)?;
        let pending = if last.installed { self.mint_installed(location_id, &last, deadline)? } else { None };
        Ok(match end {
            Deletion::Deleted => WebhookOutcome { applied: true, reason: pending },
            Deletion::Kept => WebhookOutcome::ignored("the token is newer"),
            Deletion::NotFound if last.installed => WebhookOutcome::ignored("a later INSTALL was applied"),
            Deletion::NotFound => WebhookOutcome { applied: true, reason: Some("no token was held") },
        })
    }

    /// The app was removed from a company: its token and its locations' tokens are deleted, and their INSTALLs forgotten,
    /// unless their installation began after that, or is a location's own.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`: then some are deleted already, and the repetition deletes the rest.
    pub fn company_uninstalled(
        &self,
        company_id: &str,
        at_ms: i64,
        deadline: &Deadline,
    ) -> Result<WebhookOutcome> {
        let state = InstallationState { at_ms, installed: false, company_id: None };
        self.update_installation_state(company_id, state.clone(), deadline)?;
        // The company first: without its token none of its locations gets a new one meanwhile.
        let company = self.delete_if(company_id, at_ms, |record| self.ends_by(record, at_ms), deadline)?;
        let mut deleted = company == Deletion::Deleted;
        let mut query = Query { company_id: Some(company_id.to_owned()), limit: PAGE, ..Query::default() };
        let mut staying = HashSet::new();
        loop {
            let page = self.records.list(&query, deadline)?;
            let ends = |record: &Record| self.ends_by(record, at_ms) && !record.own_consent;
            let (listed, others): (Vec<Record>, Vec<Record>) = page.records.into_iter().partition(ends);
            staying.extend(others.into_iter().map(|record| record.resource_id));
            deleted |= self.delete_all_if(&listed, at_ms, deadline)?;
            for row in page.unreadable {
                deleted |= self.delete_if(&row.resource_id, at_ms, ends, deadline)? == Deletion::Deleted;
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        // Another process may have deleted some of its locations, which this one has in memory.
        self.cache.forget_company(company_id, &staying);
        // The list shows a copy that stays in place of its row, which may be of the installation that ended.
        for location_id in self.records.unsaved_ids() {
            let copy = self.records.unsaved_copy(&location_id);
            let is_its = copy.is_some_and(|copy| copy.token.company_id.as_deref() == Some(company_id));
            if is_its && location_id != company_id {
                let ends = |record: &Record| self.ends_by(record, at_ms) && !record.own_consent;
                deleted |= self.delete_if(&location_id, at_ms, ends, deadline)? == Deletion::Deleted;
            }
        }
        self.for_each_unminted(&|| deadline.clone(), |location_id, installation| {
            if installation.company_id.as_deref() == Some(company_id) {
                self.update_installation_state(location_id, state.clone(), deadline)?;
            }
            Ok(true)
        })?;
        Ok(match (deleted, company) {
            (true, _) => WebhookOutcome { applied: true, reason: None },
            (false, Deletion::Kept) => WebhookOutcome::ignored("the token is newer"),
            (false, _) => WebhookOutcome { applied: true, reason: Some("no token was held") },
        })
    }

    /// Whether an UNINSTALL of that time ends the installation of a record. A beginning in the future was read off a wrong
    /// clock, and says nothing.
    fn ends_by(&self, record: &Record, at_ms: i64) -> bool {
        let began = record.installed_at();
        began <= at_ms || began > self.clock.wall_ms().saturating_add(CLOCK_TOLERANCE_MS)
    }

    /// Deletes the tokens of a company's locations that were just listed. Locations that were installed anew since then are to
    /// get others.
    fn delete_all_if(&self, listed: &[Record], at_ms: i64, deadline: &Deadline) -> Result<bool> {
        if listed.is_empty() {
            return Ok(false);
        }
        let _deferred = deferred_callbacks::defer();
        for record in listed {
            let last = self.last_installation_state(&record.resource_id, deadline)?;
            if last.is_some_and(|last| last.installed && last.at_ms > at_ms) {
                self.set_list(&record.resource_id, UNMINTED, deadline)?;
            }
        }
        let changed = self.records.delete_listed(listed, at_ms, deadline)?;
        let mut deleted = false;
        for record in listed {
            let resource_id = &record.resource_id;
            if changed.contains(resource_id) {
                // Another writer was first: what it wrote is looked at.
                let ends = |record: &Record| self.ends_by(record, at_ms) && !record.own_consent;
                deleted |= self.delete_if(resource_id, at_ms, ends, deadline)? == Deletion::Deleted;
            } else {
                self.forget_deleted(resource_id);
                deleted = true;
            }
        }
        Ok(deleted)
    }

    /// A company's token is here: mints for a few of the locations that waited for it. What fails is left to
    /// maintenance.
    pub(super) fn mint_pending(&self, company_id: &str, deadline: &Deadline) {
        let mut minted = 0;
        let told = self.mint_remembered(Some(company_id), &|| deadline.clone(), |location_id, outcome| {
            minted += 1;
            if let Err(error) = &outcome {
                log::warn!("{location_id}: its INSTALL is remembered, and no token could be minted: {error}");
            }
            Ok(outcome.is_ok() && minted < MAX_MINTS_PER_CALL)
        });
        if let Err(error) = told {
            log::warn!("{company_id}: its remembered INSTALLs could not be looked at: {error}");
        }
    }

    /// Mints for the locations that were installed before they could be minted for, of a company or of all. `each` hears
    /// of every attempt, and answers whether to continue.
    pub(super) fn mint_remembered(
        &self,
        company_id: Option<&str>,
        deadline: &dyn Fn() -> Deadline,
        mut each: impl FnMut(&str, Result<()>) -> Result<bool>,
    ) -> Result<()> {
        self.for_each_unminted(deadline, |location_id, installation| {
            let deadline = deadline();
            let held = self.load_record(location_id, &deadline)?;
            let record = &held.record;
            if record.as_ref().is_some_and(|record| is_good(record) && !installation.requires_mint(record)) {
                self.set_list(location_id, "", &deadline)?;
                return Ok(true);
            }
            match self.minting_company(location_id, record.as_ref(), &deadline)? {
                Some(minting) if company_id.is_none_or(|company_id| company_id == minting) => each(
                    location_id,
                    self.mint_pending_location(location_id, &held, &installation, &deadline),
                ),
                _ => Ok(true),
            }
        })
    }

    /// Whether the app was installed on a location after its token was refused.
    pub(super) fn has_newer_installation(&self, record: &Record, deadline: &Deadline) -> bool {
        let Standing::ReauthorizationRequired { since_ms, .. } = record.standing else {
            return false;
        };
        let last = self.last_installation_state(&record.resource_id, deadline).ok().flatten();
        last.is_some_and(|last| last.installed && last.at_ms > since_ms)
    }

    /// Whether the installation that is held, or that an INSTALL told of, began after that time.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn began_after(&self, resource_id: &str, at_ms: i64, deadline: &Deadline) -> Result<bool> {
        let record = self.records.load(resource_id, deadline);
        let record = record.or_else(|error| if error.is_unreadable() { Ok(None) } else { Err(error) })?;
        let installed = self.last_installation_state(resource_id, deadline)?.filter(|state| state.installed);
        Ok(record.is_some_and(|record| record.installed_at() > at_ms)
            || installed.is_some_and(|state| state.at_ms > at_ms))
    }

    /// When the installation began of which a token was minted at that time: with the last INSTALL, if that is newer than the
    /// installation held.
    pub(super) fn installation_begin(
        &self,
        location_id: &str,
        held: Option<&Record>,
        minted_at: i64,
        deadline: &Deadline,
    ) -> i64 {
        let installed = self
            .last_installation_state(location_id, deadline)
            .ok()
            .flatten()
            .filter(|state| state.installed);
        match (installed, held) {
            (Some(state), Some(held)) if !state.begins_after(held) => held.installed_at(),
            (Some(state), _) => state.at_ms.min(minted_at),
            (None, Some(held)) => held.installed_at(),
            (None, None) => minted_at,
        }
    }

    /// After the first save of a minted token: its company's UNINSTALL may have looked for locations before it was there.
    pub(super) fn confirm_mint(&self, record: &Record, saved: Saved, deadline: &Deadline) -> Result<Saved> {
        let company_id = record.token.company_id.as_deref().filter(|_| saved == Saved::Ours);
        let Some(company_id) = company_id else { return Ok(saved) };
        // The token is stored: if the company's last word cannot be read now, that is what counts.
        let last = self.last_installation_state(company_id, deadline).ok().flatten();
        let began = record.installed_at();
        match last.filter(|last| last.uninstalled_after(began)) {
            None => Ok(saved),
            Some(last) => {
                self.records.delete(
                    &record.resource_id,
                    last.at_ms,
                    |held| held.installed_at() <= last.at_ms,
                    deadline,
                )?;
                Ok(Saved::Deleted)
            }
        }
    }

    /// Mints for a location that was just installed. Answers why there is no token yet, or nothing if there is one.
    fn mint_installed(
        &self,
        location_id: &str,
        installed: &InstallationState,
        deadline: &Deadline,
    ) -> Result<Option<&'static str>> {
        let LoadedRecord { record, is_unreadable } = self.load_record(location_id, deadline)?;
        if record.as_ref().is_some_and(|record| is_good(record) && !installed.requires_mint(record)) {
            self.set_list(location_id, "", deadline)?;
            return Ok(None);
        }
        if self.minting_company(location_id, record.as_ref(), deadline)?.is_none() {
            return Ok(Some("remembered until its company's token is here"));
        }
        let held = LoadedRecord { record, is_unreadable };
        match self.mint_pending_location(location_id, &held, installed, deadline) {
            Ok(()) => Ok(None),
            Err(error) => {
                log::warn!("{location_id}: installed, but no token could be minted: {error}");
                Ok(Some("remembered, since no token could be minted yet"))
            }
        }
    }

    /// Mints, and removes the location from the list of those that wait, if it was minted or the API refuses for good.
    fn mint_pending_location(
        &self,
        location_id: &str,
        held: &LoadedRecord,
        installed: &InstallationState,
        deadline: &Deadline,
    ) -> Result<()> {
        let minted = match &held.record {
            // Nothing can be read of what is held: a mint repairs it.
            None if held.is_unreadable => self.mint_new(location_id, deadline),
            // The record is of an earlier installation: only a mint helps, and no refresh of the old token.
            Some(record) if installed.requires_mint(record) => self.mint_new(location_id, deadline),
            // A token that the API refused is not asked for again, though its time is not over.
            Some(record) => {
                self.renewed(location_id, Want::Another, Some(&record.token.access_token), deadline).map(drop)
            }
            None => {
                // Another process deleted the token that this process has in memory.
                self.cache.forget(location_id);
                self.renewed(location_id, Want::Fresh, None, deadline).map(drop)
            }
        };
        let for_good = |error: &Error| {
            matches!(error.status(), Status::Forbidden | Status::InvalidRequest) && error.is_verdict()
        };
        // A token that is in memory only is lost with this process: then the next one mints again.
        if minted.as_ref().err().is_none_or(for_good) && !self.records.is_unsaved(location_id) {
            self.set_list(location_id, "", deadline)?;
        }
        minted
    }

    /// Mints under the location's lock, whatever is held.
    fn mint_new(&self, location_id: &str, deadline: &Deadline) -> Result<()> {
        let _deferred = deferred_callbacks::defer();
        let _lock = self.records.lock(location_id, deadline)?;
        let record = self.load_record(location_id, deadline)?.record;
        let company_id = self.company_of(location_id, record.as_ref(), deadline)?;
        let mut minted = self.minted(location_id, &company_id, record.as_ref(), deadline, deadline)?;
        // The mint is of the newer installation: it replaces the token held, be that good or not.
        let origin = Origin::Consent(record.map(|record| record.token));
        self.save_and_publish(&mut minted, origin, &Event::Minted, deadline).map(drop)
    }

    /// The record of a location, readable or not.
    fn load_record(&self, location_id: &str, deadline: &Deadline) -> Result<LoadedRecord> {
        match self.records.load(location_id, deadline) {
            Err(error) if error.is_unreadable() => Ok(LoadedRecord { record: None, is_unreadable: true }),
            record => Ok(LoadedRecord { record: record?, is_unreadable: false }),
        }
    }

    /// The company whose token is here and can mint for a location.
    fn minting_company(
        &self,
        location_id: &str,
        record: Option<&Record>,
        deadline: &Deadline,
    ) -> Result<Option<String>> {
        let company_id = match self.company_of(location_id, record, deadline) {
            Err(error) if error.status() == Status::NotFound => return Ok(None),
            company_id => company_id?,
        };
        Ok(self.has_company(&company_id, deadline)?.then_some(company_id))
    }

    /// Writes a word on a company or location down, unless a later one is known; answers the one that stands.
    fn update_installation_state(
        &self,
        resource_id: &str,
        mut state: InstallationState,
        deadline: &Deadline,
    ) -> Result<InstallationState> {
        self.change(resource_id, deadline, |last, note| {
            if let Some(last) = last {
                if !state.is_newer_than(&last) {
                    return Err(last);
                }
                // An automatic INSTALL may leave the company out that an earlier one named.
                state.company_id = state.company_id.take().or(last.company_id);
            }
            note.list = if state.installed { UNMINTED.into() } else { String::new() };
            note.expires_at = if state.installed {
                i64::MAX
            } else {
                self.clock.wall_ms().saturating_add(DELIVERY_RETENTION_MS)
            };
            Ok(state.clone())
        })
    }

    /// Puts an installed location on a list, or with an empty name on no list.
    fn set_list(&self, location_id: &str, list: &str, deadline: &Deadline) -> Result<()> {
        self.change(location_id, deadline, |last, note| match last {
            Some(last) if last.installed && note.list != list => {
                note.list = list.into();
                Ok(last)
            }
            // Nothing to change, and the caller does not ask what stands.
            last => Err(last.unwrap_or(InstallationState { at_ms: 0, installed: false, company_id: None })),
        })
        .map(drop)
    }

    /// Changes what is written down of a place. `change` gets the last word, and answers the new one, or with `Err` the
    /// one that stands as it is; asked again if another writer was faster.
    fn change(
        &self,
        resource_id: &str,
        deadline: &Deadline,
        mut change: impl FnMut(
            Option<InstallationState>,
            &mut Note,
        ) -> Result<InstallationState, InstallationState>,
    ) -> Result<InstallationState> {
        let store = self.records.store();
        for _ in 0..10 {
            let stored = store.note(&key(resource_id), deadline)?;
            let last = stored.as_ref().and_then(|note| self.read(note));
            let mut note = stored.unwrap_or_else(|| Note {
                key: key(resource_id),
                version: 0,
                list: String::new(),
                document: Value::Null,
                expires_at: i64::MAX,
            });
            let state = match change(last, &mut note) {
                Ok(state) => state,
                Err(last) => return Ok(last),
            };
            note.document = serde_json::to_value(&state).unwrap_or_default();
            match store.save_note(&note, deadline) {
                Err(error) if error.status() == Status::Conflict => {}
                saved => return saved.map(|()| state).map_err(|error| error.with_resource(resource_id)),
            }
        }
        Err(Error::new(Status::Store, "what is remembered of a place changes faster than it can be saved")
            .with_resource(resource_id))
    }

    /// The last word on a company or location, if it still counts.
    pub(super) fn last_installation_state(
        &self,
        resource_id: &str,
        deadline: &Deadline,
    ) -> Result<Option<InstallationState>> {
        Ok(self.records.store().note(&key(resource_id), deadline)?.and_then(|note| self.read(&note)))
    }

    /// The content of a note, until it expires.
    fn read(&self, note: &Note) -> Option<InstallationState> {
        let lasts = note.expires_at > self.clock.wall_ms();
        serde_json::from_value(note.document.clone()).ok().filter(|_| lasts)
    }

    /// Goes through the locations that wait for a token, as long as `work` wants to.
    fn for_each_unminted(
        &self,
        deadline: &dyn Fn() -> Deadline,
        mut work: impl FnMut(&str, InstallationState) -> Result<bool>,
    ) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.records.store().notes(UNMINTED, after.as_deref(), PAGE, &deadline())?;
            for note in &page.notes {
                if let (Some(location_id), Some(installation)) = (note.key.strip_prefix(KEY), self.read(note))
                    && !work(location_id, installation)?
                {
                    return Ok(());
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }
}

fn is_good(record: &Record) -> bool {
    record.standing == Standing::Good
}

impl InstallationState {
    /// Whether this UNINSTALL came after an INSTALL at that time.
    fn uninstalled_after(&self, at_ms: i64) -> bool {
        !self.installed && self.at_ms > at_ms
    }

    /// Whether this INSTALL is of a later installation than a record.
    pub(super) fn begins_after(&self, record: &Record) -> bool {
        self.at_ms > record.installed_at().saturating_add(SAME_INSTALLATION_MS)
    }

    /// Whether the token of a record may be dead by this INSTALL: it is of a later installation, or names another company.
    fn requires_mint(&self, record: &Record) -> bool {
        let held = record.token.company_id.as_ref();
        let names_another = self.company_id.as_ref().zip(held).is_some_and(|(named, held)| named != held);
        self.begins_after(record) || (names_another && self.at_ms >= record.installed_at())
    }

    /// Whether this is the later word. Of two at the same time INSTALL counts, whichever came first: what was wrongly
    /// minted is refused by the API, what was wrongly deleted is lost.
    fn is_newer_than(&self, other: &InstallationState) -> bool {
        (self.at_ms, self.installed) > (other.at_ms, other.installed)
    }
}

fn key(resource_id: &str) -> String {
    format!("{KEY}{resource_id}")
}
