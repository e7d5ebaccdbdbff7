//! INSTALL and UNINSTALL webhooks: mints and deletes tokens by the state of the installation.

use std::cell::Cell;
use std::collections::HashSet;

use super::installation_state::{InstallationState, Installations, UNMINTED};
use super::records::{Deletion, DeletionTime, LoadedRecord, Origin, Records, Replaced};
use super::token_cache::TokenCache;
use super::writer::TokenWriter;
use super::{Tokens, Want};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::deferred_callbacks;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::store::{Query, Record, Standing};
use crate::token::CLOCK_TOLERANCE_MS;

/// Why an UNINSTALL left a token.
const KEPT_AS_NEWER: &str = "the token is newer";
const KEPT_AS_INSTALLED: &str = "a later INSTALL was applied";
const KEPT_AS_PRIVATE: &str = "a private integration token does not end with the app";

/// Records per page.
const PAGE: usize = 100;

/// Maximum number of pending INSTALLs that are minted in the call that brings the company's token.
/// Maintenance or the first use mints for the rest.
const MAX_MINTS_PER_CALL: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookOutcome {
    /// Whether the delivery was the latest state of its company or location.
    pub applied: bool,
    /// Why it was not applied, or why no token was minted yet.
    pub reason: Option<&'static str>,
}

impl WebhookOutcome {
    /// A delivery that has no effect.
    pub const fn ignored(reason: &'static str) -> WebhookOutcome {
        WebhookOutcome { applied: false, reason: Some(reason) }
    }

    /// Combines the outcomes for several locations: applied if at least one was; the first reason
    /// is kept.
    pub fn of_all(each: Vec<WebhookOutcome>) -> WebhookOutcome {
        let applied = each.iter().any(|outcome| outcome.applied);
        WebhookOutcome { applied, reason: each.iter().find_map(|outcome| outcome.reason) }
    }
}

/// INSTALLs, UNINSTALLs and the mints that they cause.
pub struct InstallationEvents<'a> {
    tokens: &'a Tokens,
    records: &'a Records,
    installations: &'a Installations,
    cache: &'a TokenCache,
    writer: &'a TokenWriter,
    clock: &'a dyn Clock,
}

impl<'a> InstallationEvents<'a> {
    pub fn of(tokens: &'a Tokens) -> InstallationEvents<'a> {
        InstallationEvents {
            tokens,
            records: &tokens.records,
            installations: &tokens.installations,
            cache: &tokens.cache,
            writer: &tokens.writer,
            clock: tokens.clock.as_ref(),
        }
    }

    /// Handles the INSTALL of a location. If `mints`, mints its token with the company's token;
    /// without that token, or if the mint fails, the INSTALL stays pending. A mint replaces a token
    /// of an earlier installation or of another company.
    pub fn location_installed(
        &self,
        location_id: &str,
        company_id: Option<&str>,
        at_ms: i64,
        mints: bool,
        deadline: &Deadline,
    ) -> Result<WebhookOutcome> {
        let company_id = company_id.map(str::to_owned);
        let state = InstallationState { at_ms, installed: true, company_id };
        let last = self.installations.update(location_id, state, deadline)?;
        if !last.installed {
            return Ok(WebhookOutcome::ignored("a later UNINSTALL was applied"));
        }
        // Read the company's state after saving this one: the company's UNINSTALL does the reverse,
        // so of two concurrent events at least one sees the other.
        if let Some(company_id) = &last.company_id
            && let Some(company) = self
                .installations
                .last(company_id, deadline)?
                .filter(|company| company.uninstalled_after(last.at_ms))
        {
            self.installations.update(location_id, company, deadline)?;
            return Ok(WebhookOutcome::ignored("a later UNINSTALL of its company was applied"));
        }
        // Earlier mints may have failed because the app was not installed.
        self.tokens.cooldowns.clear(location_id);
        Ok(WebhookOutcome {
            applied: true,
            reason: self.mint_installed(location_id, &last, mints, deadline)?,
        })
    }

    /// Handles the UNINSTALL of a location: deletes its token, unless the token's installation is
    /// later.
    pub fn location_uninstalled(
        &self,
        location_id: &str,
        at_ms: i64,
        mints: bool,
        deadline: &Deadline,
    ) -> Result<WebhookOutcome> {
        let state = InstallationState { at_ms, installed: false, company_id: None };
        let last = self.installations.update(location_id, state, deadline)?;
        let kept = Cell::new(KEPT_AS_NEWER);
        // Installed again: an older token is deleted all the same, unless it may be the consent of
        // that INSTALL by a clock that is late.
        let is_of_install = |record: &Record| {
            let is_of_install =
                last.installed && may_be_own(record, &last) && is_hardly_older(record, at_ms);
            if is_of_install {
                kept.set(KEPT_AS_INSTALLED);
            }
            is_of_install
        };
        let ends =
            |record: &Record| self.ends_or_says_why(record, at_ms, &kept) && !is_of_install(record);
        let time = DeletionTime::of_uninstall(at_ms);
        let end = self.writer.delete_if(location_id, time, ends, deadline)?;
        let pending = if last.installed && end != Deletion::Kept {
            self.installations.set_list(location_id, UNMINTED, deadline)?;
            self.mint_installed(location_id, &last, mints, deadline)?
        } else {
            None
        };
        Ok(match end {
            Deletion::Deleted => WebhookOutcome { applied: true, reason: pending },
            Deletion::Kept => WebhookOutcome::ignored(kept.get()),
            Deletion::NotFound if last.installed => WebhookOutcome::ignored(KEPT_AS_INSTALLED),
            Deletion::NotFound => {
                WebhookOutcome { applied: true, reason: Some("no token was held") }
            }
        })
    }

    /// Remembers the INSTALL of a company, so that an earlier UNINSTALL does not delete its token.
    pub fn company_installed(
        &self,
        company_id: &str,
        at_ms: i64,
        deadline: &Deadline,
    ) -> Result<WebhookOutcome> {
        let state =
            InstallationState { at_ms, installed: true, company_id: Some(company_id.to_owned()) };
        self.installations.update(company_id, state, deadline)?;
        Ok(WebhookOutcome::ignored("a company's token requires a consent"))
    }

    /// Handles the UNINSTALL of a company: deletes its token and the tokens of its locations, and
    /// drops their pending INSTALLs. Keeps later installations and locations with their own
    /// consent, and the company's token after a later INSTALL: that may be a consent by a clock
    /// that is late.
    pub fn company_uninstalled(
        &self,
        company_id: &str,
        at_ms: i64,
        deadline: &Deadline,
    ) -> Result<WebhookOutcome> {
        let state = InstallationState { at_ms, installed: false, company_id: None };
        let last = self.installations.update(company_id, state.clone(), deadline)?;
        // The company first: without its token, no location can be minted meanwhile.
        let kept = Cell::new(if last.installed { KEPT_AS_INSTALLED } else { KEPT_AS_NEWER });
        let is_of_install = |record: &Record| last.installed && is_hardly_older(record, at_ms);
        let ends =
            |record: &Record| self.ends_or_says_why(record, at_ms, &kept) && !is_of_install(record);
        let time = DeletionTime::of_uninstall(at_ms);
        let company = self.writer.delete_if(company_id, time, ends, deadline)?;
        let mut deleted = company == Deletion::Deleted;
        let time = DeletionTime::with_company(at_ms);
        let mut query =
            Query { company_id: Some(company_id.to_owned()), limit: PAGE, ..Query::default() };
        let mut staying = HashSet::new();
        loop {
            let page = self.records.list(&query, deadline)?;
            let is_kept_company =
                |record: &Record| record.resource_id == company_id && is_of_install(record);
            let ends = |record: &Record| {
                self.ends_by(record, at_ms) && !record.own_consent && !is_kept_company(record)
            };
            let (listed, others): (Vec<Record>, Vec<Record>) =
                page.records.into_iter().partition(ends);
            staying.extend(others.into_iter().map(|record| record.resource_id));
            deleted |= self.delete_all_if(&listed, at_ms, deadline)?;
            for row in page.unreadable {
                deleted |= self.writer.delete_if(&row.resource_id, time, ends, deadline)?
                    == Deletion::Deleted;
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        // Another process may have deleted locations that are cached here.
        self.cache.forget_company(company_id, &staying);
        // The list shows an unsaved copy instead of its row; that row may belong to the ended
        // installation.
        for location_id in self.records.unsaved_ids() {
            let copy = self.records.unsaved_copy(&location_id);
            let is_of_company =
                copy.is_some_and(|copy| copy.token.company_id.as_deref() == Some(company_id));
            if is_of_company && location_id != company_id {
                let ends = |record: &Record| self.ends_by(record, at_ms) && !record.own_consent;
                deleted |=
                    self.writer.delete_if(&location_id, time, ends, deadline)? == Deletion::Deleted;
            }
        }
        self.installations.for_each_unminted(
            &|| deadline.clone(),
            |location_id, installation| {
                if installation.company_id.as_deref() == Some(company_id) {
                    self.installations.update(location_id, state.clone(), deadline)?;
                }
                Ok(true)
            },
        )?;
        Ok(match (deleted, company) {
            (true, _) => WebhookOutcome { applied: true, reason: None },
            (false, Deletion::Kept) => WebhookOutcome::ignored(kept.get()),
            (false, _) => WebhookOutcome { applied: true, reason: Some("no token was held") },
        })
    }

    /// Whether an UNINSTALL at `at_ms` ends the record's installation. An installation dated in the
    /// future comes from a wrong clock and does not count as later. A private integration token
    /// belongs to no installation.
    fn ends_by(&self, record: &Record, at_ms: i64) -> bool {
        let began = record.installed_at();
        !record.token.is_private_integration()
            && (began <= at_ms || began > self.clock.wall_ms().saturating_add(CLOCK_TOLERANCE_MS))
    }

    /// Like [`InstallationEvents::ends_by`]; sets the reason for a private integration token.
    fn ends_or_says_why(&self, record: &Record, at_ms: i64, kept: &Cell<&'static str>) -> bool {
        if record.token.is_private_integration() {
            kept.set(KEPT_AS_PRIVATE);
        }
        self.ends_by(record, at_ms)
    }

    /// Deletes the listed tokens of a company's locations. Locations that were installed again
    /// later are queued for a mint.
    fn delete_all_if(&self, listed: &[Record], at_ms: i64, deadline: &Deadline) -> Result<bool> {
        if listed.is_empty() {
            return Ok(false);
        }
        let time = DeletionTime::with_company(at_ms);
        let _deferred = deferred_callbacks::defer();
        for record in listed {
            let last = self.installations.last(&record.resource_id, deadline)?;
            if last.is_some_and(|last| last.installed && last.at_ms > at_ms) {
                self.installations.set_list(&record.resource_id, UNMINTED, deadline)?;
            }
        }
        let changed = self.records.delete_listed(listed, time, deadline)?;
        let mut deleted = false;
        for record in listed {
            let resource_id = &record.resource_id;
            if changed.contains(resource_id) {
                // Another writer changed the record: judge it again.
                let ends = |record: &Record| self.ends_by(record, at_ms) && !record.own_consent;
                deleted |=
                    self.writer.delete_if(resource_id, time, ends, deadline)? == Deletion::Deleted;
            } else {
                self.writer.forget_deleted(resource_id);
                deleted = true;
            }
        }
        Ok(deleted)
    }

    /// Mints for a few pending INSTALLs after a company's token arrived. Maintenance retries
    /// failures.
    pub fn mint_pending(&self, company_id: &str, deadline: &Deadline) {
        let mut minted = 0;
        let result = self.mint_all_pending(
            Some(company_id),
            &|| deadline.clone(),
            |location_id, outcome| {
                minted += 1;
                if let Err(error) = &outcome {
                    log::warn!(
                        "no token could be minted; the INSTALL stays pending{}",
                        error.fields(location_id)
                    );
                }
                Ok(outcome.is_ok() && minted < MAX_MINTS_PER_CALL)
            },
        );
        if let Err(error) = result {
            log::warn!("the pending INSTALLs could not be read{}", error.fields(company_id));
        }
    }

    /// Mints for the pending INSTALLs of one company or all. `each` gets every outcome and returns
    /// whether to continue.
    pub fn mint_all_pending(
        &self,
        company_id: Option<&str>,
        deadline: &dyn Fn() -> Deadline,
        mut each: impl FnMut(&str, Result<()>) -> Result<bool>,
    ) -> Result<()> {
        self.installations.for_each_unminted(deadline, |location_id, installation| {
            let deadline = deadline();
            let held = self.records.load_readable(location_id, &deadline)?;
            let record = &held.record;
            if record
                .as_ref()
                .is_some_and(|record| is_good(record) && !installation.requires_mint(record))
            {
                self.installations.set_list(location_id, "", &deadline)?;
                return Ok(true);
            }
            match self.tokens.minting_company(location_id, record.as_ref(), &deadline)? {
                Some(minting) if company_id.is_none_or(|company_id| company_id == minting) => each(
                    location_id,
                    self.mint_pending_location(location_id, &held, &installation, &deadline),
                ),
                _ => Ok(true),
            }
        })
    }

    /// Whether the installation in the record or in the last INSTALL is later than `at_ms`.
    pub fn began_after(&self, resource_id: &str, at_ms: i64, deadline: &Deadline) -> Result<bool> {
        let record = self.records.load(resource_id, deadline);
        let record =
            record.or_else(|error| if error.is_unreadable() { Ok(None) } else { Err(error) })?;
        let installed =
            self.installations.last(resource_id, deadline)?.filter(|state| state.installed);
        Ok(record.is_some_and(|record| record.installed_at() > at_ms)
            || installed.is_some_and(|state| state.at_ms > at_ms))
    }

    /// Mints for a location that was just installed, if `mints`. Returns the reason if no token is
    /// available yet.
    fn mint_installed(
        &self,
        location_id: &str,
        installed: &InstallationState,
        mints: bool,
        deadline: &Deadline,
    ) -> Result<Option<&'static str>> {
        let LoadedRecord { record, is_unreadable } =
            self.records.load_readable(location_id, deadline)?;
        if record.as_ref().is_some_and(|record| is_good(record) && !installed.requires_mint(record))
        {
            self.installations.set_list(location_id, "", deadline)?;
            return Ok(None);
        }
        if !mints {
            // Another process may have deleted a token that is cached here.
            self.cache.forget(location_id);
            let waits_for_maintenance = is_unreadable
                || record.is_some_and(|held| !self.installations.is_after_refusal(&held, deadline));
            return Ok(Some(match waits_for_maintenance {
                true => "remembered; maintenance replaces the stored token",
                false => "remembered; its first use or maintenance mints the token",
            }));
        }
        if self.tokens.minting_company(location_id, record.as_ref(), deadline)?.is_none() {
            return Ok(Some("remembered until its company's token is available"));
        }
        let held = LoadedRecord { record, is_unreadable };
        match self.mint_pending_location(location_id, &held, installed, deadline) {
            Ok(()) => Ok(None),
            Err(error) => {
                log::warn!(
                    "installed, but no token could be minted yet{}",
                    error.fields(location_id)
                );
                Ok(Some("remembered, since no token could be minted yet"))
            }
        }
    }

    /// Mints for a pending INSTALL, and removes it from the list after success or a permanent
    /// refusal.
    fn mint_pending_location(
        &self,
        location_id: &str,
        held: &LoadedRecord,
        installed: &InstallationState,
        deadline: &Deadline,
    ) -> Result<()> {
        let minted = match &held.record {
            // A mint replaces the unreadable record.
            None if held.is_unreadable => self.mint_new(location_id, deadline),
            // The record belongs to an earlier installation: its refresh token is of no use.
            Some(record) if installed.requires_mint(record) && !may_be_own(record, installed) => {
                self.mint_new(location_id, deadline)
            }
            // Request a different token: the API may have rejected the stored one before its
            // expiry.
            Some(record) => self
                .tokens
                .renewed(location_id, Want::Another, Some(&record.token.access_token), deadline)
                .map(drop),
            None => {
                // Another process may have deleted a token that is cached here.
                self.cache.forget(location_id);
                self.tokens.renewed(location_id, Want::Fresh, None, deadline).map(drop)
            }
        };
        let for_good = |error: &Error| {
            matches!(error.status(), Status::Forbidden | Status::InvalidRequest)
                && error.is_verdict()
        };
        // An unsaved token is lost if this process ends: keep the INSTALL pending.
        if minted.as_ref().err().is_none_or(for_good) && !self.records.is_unsaved(location_id) {
            self.installations.set_list(location_id, "", deadline)?;
        }
        minted
    }

    /// Mints under the location's lock, regardless of the stored record.
    fn mint_new(&self, location_id: &str, deadline: &Deadline) -> Result<()> {
        let _deferred = deferred_callbacks::defer();
        let _lock = self.records.lock(location_id, deadline)?;
        let record = self.records.load_readable(location_id, deadline)?.record;
        let company_id = self.tokens.company_of(location_id, record.as_ref(), deadline)?;
        let company = (&*company_id, self.installations.earliest_mint(&company_id, deadline));
        let mut minted =
            self.tokens.minted(location_id, company, record.as_ref(), deadline, deadline)?;
        // The mint belongs to the newer installation: like a consent, it replaces even a good
        // token.
        let origin = Origin::Consent(record.as_ref().map(Replaced::from));
        self.writer.save_and_publish(&mut minted, origin, &Event::Minted, deadline).map(drop)
    }
}

fn is_good(record: &Record) -> bool {
    record.standing == Standing::Good
}

/// Whether a clock that is late may explain that a consent is older than an UNINSTALL.
fn is_hardly_older(record: &Record, uninstalled_at: i64) -> bool {
    record.installed_at().saturating_add(CLOCK_TOLERANCE_MS) > uninstalled_at
}

/// Whether a location's own consent may belong to this INSTALL, whose sender has another clock. A
/// refresh tells: it keeps the consent, or mints if the API rejects the refresh token.
fn may_be_own(record: &Record, installed: &InstallationState) -> bool {
    record.own_consent
        && is_good(record)
        && record.token.refresh_token.is_some()
        && !installed.names_another_company(record)
}
