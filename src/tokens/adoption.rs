//! Client ID rotation: adopts the records of another client ID in the same database.
//!
//! Adoption moves a record: it is saved under this client ID, then deleted under the other. If the
//! process dies in between, the next adoption recognizes the copy and deletes the original. A
//! record that stayed under both IDs could let two programs spend the same refresh token.

use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Tokens;
use super::bulk::{self, failure};
use super::cooldown::Cooldowns;
use super::installation_state::{Installations, UNMINTED};
use super::published::PublishedTokens;
use super::records::{Deletion, Origin, Records, Replaced, Saved, same_token};
use super::reports::Reports;
use super::schedule::Schedule;
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::deferred_callbacks;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::store::{Query, Record, Standing};
use crate::token::valid_id;

/// Records or notes per page.
const PAGE: usize = 100;

/// Ages of an intent, in milliseconds, at which its refresh may still end. A negative age is a
/// difference between clocks.
const UNRESOLVED_MS: Range<i64> = -5 * 60 * 1000..60 * 60 * 1000;

/// Selects the tokens to adopt.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[deny(missing_docs)]
pub struct AdoptParams {
    /// The other client ID. Without it, nothing is adopted.
    pub client_id: Option<String>,
    /// Only this company or location. Default: all.
    pub resource_id: Option<String>,
    /// Only report the outcome. Default: false.
    pub dry_run: bool,
}

#[derive(Default)]
struct Report {
    adopted: u64,
    skipped: Vec<Value>,
    failed: Vec<Value>,
}

/// The records of the other client ID.
struct Source {
    records: Records,
    /// Whether its lock of a resource is taken before this client's: in the order of the client
    /// ids, so that two adoptions in opposite directions do not wait for each other.
    is_locked_first: bool,
}

/// The decision about one record.
enum Decision {
    /// Save this record; the second is the stored record that it replaces.
    Taken(Box<Record>, Option<Box<Record>>),
    /// This client ID already holds the same token or a successor.
    Copied,
    /// Leave the record, for this reason.
    Left(&'static str),
}

/// Moves the tokens of another client ID.
pub struct Adoption<'a> {
    records: &'a Records,
    installations: &'a Installations,
    published: &'a PublishedTokens,
    schedule: &'a Schedule,
    cooldowns: &'a Cooldowns,
    reports: &'a Reports,
    clock: &'a Arc<dyn Clock>,
}

impl<'a> Adoption<'a> {
    pub fn of(tokens: &'a Tokens) -> Adoption<'a> {
        Adoption {
            records: &tokens.records,
            installations: &tokens.installations,
            published: &tokens.published,
            schedule: &tokens.schedule,
            cooldowns: &tokens.cooldowns,
            reports: &tokens.reports,
            clock: &tokens.clock,
        }
    }

    /// Moves the tokens of another client ID in the same database to this one. A token that is
    /// already stored here is replaced only if its connection was lost. `deadline` limits the work
    /// on each record.
    pub fn adopt_from(
        &self,
        own_client_id: &str,
        params: &AdoptParams,
        deadline: impl Fn() -> Deadline,
    ) -> Result<Value> {
        let mut report = Report::default();
        if let Some(resource_id) = &params.resource_id {
            valid_id("resourceId", resource_id)?;
        }
        if let Some(client_id) = &params.client_id {
            valid_id("clientId", client_id)?;
            if client_id == own_client_id {
                let error = Error::invalid_argument("clientId", "clientId is this client's own id");
                return Err(error.with_help("give the app's previous client id"));
            }
            let Some(store) = self.records.store().of_client(client_id)? else {
                return Err(Error::new(
                    Status::Config,
                    "this store holds only one client id, so there is no other to adopt from",
                )
                .with_help(
                    "export with the other client id (ghl_tokens_export), and import with this \
                     one (ghl_tokens_import)",
                )
                .with_parameter("store.kind"));
            };
            let other = Source {
                records: Records::new(store, Arc::clone(self.clock)),
                is_locked_first: client_id.as_str() < own_client_id,
            };
            match &params.resource_id {
                Some(resource_id) => {
                    self.adopt_into(&mut report, &other, resource_id, params.dry_run, &deadline())?;
                }
                None => self.adopt_all(&mut report, &other, params.dry_run, &deadline)?,
            }
        }
        let clients = self.records.store().other_clients(&deadline())?;
        let Report { adopted, skipped, failed } = report;
        Ok(json!({"adopted": adopted, "skipped": skipped, "failed": failed, "clients": clients}))
    }

    fn adopt_all(
        &self,
        report: &mut Report,
        other: &Source,
        dry_run: bool,
        deadline: &impl Fn() -> Deadline,
    ) -> Result<()> {
        let whole = deadline();
        let mut query = Query { limit: PAGE, ..Query::default() };
        loop {
            let page = other.records.list(&query, &deadline())?;
            for record in &page.records {
                bulk::check(&whole)?;
                self.adopt_into(report, other, &record.resource_id, dry_run, &deadline())?;
            }
            let failures = page.unreadable.iter();
            report
                .failed
                .extend(failures.map(|row| failure("resourceId", &row.resource_id, &row.error)));
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        if dry_run { Ok(()) } else { self.adopt_installations(&other.records, deadline) }
    }

    /// Adopts one record and reports the outcome.
    fn adopt_into(
        &self,
        report: &mut Report,
        other: &Source,
        resource_id: &str,
        dry_run: bool,
        deadline: &Deadline,
    ) -> Result<()> {
        match self.adopt_one(other, resource_id, dry_run, deadline) {
            Ok(None) => report.adopted += 1,
            Ok(Some(reason)) => {
                report.skipped.push(json!({"resourceId": resource_id, "reason": reason}))
            }
            Err(error) if error.is_unreadable() => {
                report.failed.push(failure("resourceId", resource_id, &error));
            }
            Err(error) => return Err(error.with_resource(resource_id)),
        }
        Ok(())
    }

    /// Adopts one record; returns the reason if it was left.
    fn adopt_one(
        &self,
        other: &Source,
        resource_id: &str,
        dry_run: bool,
        deadline: &Deadline,
    ) -> Result<Option<&'static str>> {
        let (own, other, is_locked_first) = (self.records, &other.records, other.is_locked_first);
        let not_found = "no token is held under the other client id";
        if dry_run {
            let Some(theirs) = other.load(resource_id, deadline)? else {
                return Ok(Some(not_found));
            };
            return Ok(match self.decide(theirs, deadline)? {
                Decision::Taken(..) | Decision::Copied => None,
                Decision::Left(reason) => Some(reason),
            });
        }
        let _deferred = deferred_callbacks::defer();
        // Wait for a refresh under the other client ID, which may be spending the stored token.
        let (first, second) = if is_locked_first { (other, own) } else { (own, other) };
        let _first = first.lock(resource_id, deadline)?;
        let _second = second.lock(resource_id, deadline)?;
        let Some(theirs) = other.load(resource_id, deadline)? else {
            return Ok(Some(not_found));
        };
        let (token, installed_at) = (Arc::clone(&theirs.token), theirs.installed_at());
        match self.decide(theirs, deadline)? {
            Decision::Left(reason) => return Ok(Some(reason)),
            Decision::Copied => {}
            Decision::Taken(mut record, held) => {
                // Before the record: an import under this client id must recognize a refresh token
                // that was spent under the other.
                self.records.copy_spent(other, &mut record, deadline)?;
                let origin = Origin::Consent(held.as_deref().map(Replaced::from));
                match self.records.save(&mut record, &origin, deadline)? {
                    Saved::Ours => {}
                    Saved::Theirs => return Ok(Some("another process saved a token meanwhile")),
                    Saved::Deleted => return Ok(Some("it was deleted meanwhile")),
                }
                self.records.forget_older(&record, &origin);
                self.cooldowns.clear(resource_id);
                self.published.publish_if_cached(&record);
                self.reports.emit(&Event::Saved, resource_id, Some(record.token.expires_at));
            }
        }
        // Date the tombstone with the start of the installation, so that it does not block a later
        // adoption in the other direction.
        match other.delete(
            resource_id,
            installed_at,
            |record| same_token(&record.token, &token),
            deadline,
        )? {
            Deletion::Kept => {
                Ok(Some("the other client id got a new token meanwhile: adopt again"))
            }
            Deletion::Deleted | Deletion::NotFound => Ok(None),
        }
    }

    fn decide(&self, theirs: Record, deadline: &Deadline) -> Result<Decision> {
        let resource_id = &theirs.resource_id;
        // A living process may hold the successor of a refresh token whose refresh has an unknown
        // outcome; its save would find the record gone.
        let age_ms = |since_ms: i64| self.clock.wall_ms().saturating_sub(since_ms);
        if theirs
            .intent
            .as_ref()
            .is_some_and(|intent| UNRESOLVED_MS.contains(&age_ms(intent.since_ms)))
        {
            return Ok(Decision::Left(
                "a refresh under the other client id has an unknown outcome: stop its programs, \
                 try again in an hour",
            ));
        }
        let held = match self.records.load(resource_id, deadline) {
            Err(error) if error.is_unreadable() => {
                return Ok(Decision::Left("the record under this client id cannot be read"));
            }
            held => held?,
        };
        if let Some(held) = &held {
            let spent = theirs.token.refresh_token.as_ref();
            if same_token(&held.token, &theirs.token)
                || spent.is_some_and(|spent| held.has_spent(spent))
            {
                return Ok(Decision::Copied);
            }
            if !matches!(held.standing, Standing::ReauthorizationRequired { .. }) {
                return Ok(Decision::Left("a token is held under this client id"));
            }
        } else if self
            .records
            .last_deletion(resource_id, deadline)?
            .is_some_and(|deletion| deletion.of_kind(&theirs) > theirs.installed_at())
        {
            return Ok(Decision::Left("it was deleted under this client id"));
        } else if !theirs.own_consent
            && let Some(company_id) = &theirs.token.company_id
            && let Some(last) = self.installations.last(company_id, deadline)?
            && last.uninstalled_after(theirs.installed_at())
        {
            return Ok(Decision::Left("its company was uninstalled under this client id"));
        }
        // A refusal under the other client ID says nothing about this one: let the next refresh
        // decide.
        let mut record =
            Record { version: 0, standing: Standing::Good, last_failure: None, ..theirs };
        match &held {
            Some(held) => {
                record.version = held.version;
                record.spent = held.spent.merged(&record.spent);
            }
            None => {
                record.predecessor = self.records.last_deleted(&record.resource_id, deadline)?
            }
        }
        record.renew_at = self.schedule.renewal(&record);
        Ok(Decision::Taken(Box::new(record), held.map(Box::new)))
    }

    /// Adopts pending INSTALLs of locations that have no state under this client ID.
    fn adopt_installations(&self, other: &Records, deadline: &impl Fn() -> Deadline) -> Result<()> {
        let mut after = None;
        loop {
            let page = other.store().notes(UNMINTED, after.as_deref(), PAGE, &deadline())?;
            for mut note in page.notes {
                note.version = 0;
                match self.records.store().save_note(&note, &deadline()) {
                    Err(error) if error.status() == Status::Conflict => {}
                    saved => saved?,
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }
}
