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
use super::installation_state::UNMINTED;
use super::records::{Deletion, Origin, Records, Replaced, Saved, same_token};
use crate::deadline::Deadline;
use crate::deferred_callbacks;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::store::{OtherClient, Query, Record, Standing};
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
enum Adoption {
    /// Save this record; the second is the stored record that it replaces.
    Taken(Box<Record>, Option<Box<Record>>),
    /// This client ID already holds the same token or a successor.
    Copied,
    /// Leave the record, for this reason.
    Left(&'static str),
}

impl Tokens {
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
                records: Records::new(store, Arc::clone(&self.clock)),
                is_locked_first: client_id.as_str() < own_client_id,
            };
            match &params.resource_id {
                Some(resource_id) => {
                    self.adopt_into(&mut report, &other, resource_id, params.dry_run, &deadline())?;
                }
                None => self.adopt_all(&mut report, &other, params.dry_run, &deadline)?,
            }
        }
        let clients = self.other_clients(&deadline())?;
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

    fn other_clients(&self, deadline: &Deadline) -> Result<Vec<OtherClient>> {
        self.records.store().other_clients(deadline)
    }

    /// Adds a hint to a `NOT_FOUND` error if the database holds tokens of another client ID.
    pub fn explain_not_held(&self, error: Error, deadline: impl FnOnce() -> Deadline) -> Error {
        if error.status() != Status::NotFound || error.api().is_some() {
            return error;
        }
        match self.look_for_rotation(deadline) {
            Some(found) => {
                let help = error.help().map(|help| format!("{help}; ")).unwrap_or_default();
                error.with_help(format!("{help}{found}"))
            }
            None => error,
        }
    }

    /// Searches the database for tokens of another client ID, once; logs a warning and returns a
    /// hint if there are any.
    pub fn look_for_rotation(&self, deadline: impl FnOnce() -> Deadline) -> Option<&str> {
        if self.other_client.get().is_none() {
            let other = self.other_clients(&deadline()).ok()?.into_iter().next();
            let help = other.as_ref().map(|OtherClient { client_id, .. }| {
                format!(
                    "if the app's client id was {client_id} before, adopt its tokens \
                     (ghl_tokens_adopt)"
                )
            });
            // No lock is held here: the host's logger may call the library.
            if self.other_client.set(help).is_ok()
                && let Some(OtherClient { client_id, tokens }) = other
            {
                log::warn!(
                    "the store has no such token for this client id, but {tokens} for the client \
                     id {client_id}; if the app's client id changed, adopt them \
                     (ghl_tokens_adopt, or ghl-oauth adopt --from {client_id})"
                );
            }
        }
        self.other_client.get()?.as_deref()
    }

    /// Adopts one record; returns the reason if it was left.
    fn adopt_one(
        &self,
        other: &Source,
        resource_id: &str,
        dry_run: bool,
        deadline: &Deadline,
    ) -> Result<Option<&'static str>> {
        let (other, is_locked_first) = (&other.records, other.is_locked_first);
        let not_found = "no token is held under the other client id";
        if dry_run {
            let Some(theirs) = other.load(resource_id, deadline)? else {
                return Ok(Some(not_found));
            };
            return Ok(match self.adoption(theirs, deadline)? {
                Adoption::Taken(..) | Adoption::Copied => None,
                Adoption::Left(reason) => Some(reason),
            });
        }
        let _deferred = deferred_callbacks::defer();
        // Wait for a refresh under the other client ID, which may be spending the stored token.
        let (first, second) =
            if is_locked_first { (other, &self.records) } else { (&self.records, other) };
        let _first = first.lock(resource_id, deadline)?;
        let _second = second.lock(resource_id, deadline)?;
        let Some(theirs) = other.load(resource_id, deadline)? else {
            return Ok(Some(not_found));
        };
        let (token, installed_at) = (Arc::clone(&theirs.token), theirs.installed_at());
        match self.adoption(theirs, deadline)? {
            Adoption::Left(reason) => return Ok(Some(reason)),
            Adoption::Copied => {}
            Adoption::Taken(mut record, held) => {
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
                self.publish_if_cached(&record);
                self.emit(&Event::Saved, resource_id, Some(record.token.expires_at));
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

    fn adoption(&self, theirs: Record, deadline: &Deadline) -> Result<Adoption> {
        let resource_id = &theirs.resource_id;
        // A living process may hold the successor of a refresh token whose refresh has an unknown
        // outcome; its save would find the record gone.
        let age_ms = |since_ms: i64| self.clock.wall_ms().saturating_sub(since_ms);
        if theirs
            .intent
            .as_ref()
            .is_some_and(|intent| UNRESOLVED_MS.contains(&age_ms(intent.since_ms)))
        {
            return Ok(Adoption::Left(
                "a refresh under the other client id has an unknown outcome: stop its programs, \
                 try again in an hour",
            ));
        }
        let held = match self.records.load(resource_id, deadline) {
            Err(error) if error.is_unreadable() => {
                return Ok(Adoption::Left("the record under this client id cannot be read"));
            }
            held => held?,
        };
        if let Some(held) = &held {
            let spent = theirs.token.refresh_token.as_ref();
            if same_token(&held.token, &theirs.token)
                || spent.is_some_and(|spent| held.has_spent(spent))
            {
                return Ok(Adoption::Copied);
            }
            if !matches!(held.standing, Standing::ReauthorizationRequired { .. }) {
                return Ok(Adoption::Left("a token is held under this client id"));
            }
        } else if self
            .records
            .last_deletion(resource_id, deadline)?
            .is_some_and(|deletion| deletion.of_kind(&theirs) > theirs.installed_at())
        {
            return Ok(Adoption::Left("it was deleted under this client id"));
        } else if !theirs.own_consent
            && let Some(company_id) = &theirs.token.company_id
            && let Some(last) = self.installations.last(company_id, deadline)?
            && last.uninstalled_after(theirs.installed_at())
        {
            return Ok(Adoption::Left("its company was uninstalled under this client id"));
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
        Ok(Adoption::Taken(Box::new(record), held.map(Box::new)))
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
