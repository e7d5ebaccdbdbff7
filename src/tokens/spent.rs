//! Replay protection for imports: digests of spent refresh tokens, used to refuse an import of a
//! spent token.
//!
//! A record keeps the latest digests, so a refresh writes only one row. Older ones move to notes in
//! batches.

use serde_json::json;

use super::records::{RETENTION_MS, Records};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::error::{Result, Status};
use crate::secret::Secret;
use crate::store::{Note, Query, Record, SpentDigest, SpentDigests};
use crate::token::{Token, UserType};

/// Maximum number of digests in a record, and how many move to a note at once.
const IN_RECORD: usize = 64;
const IN_NOTE: usize = 48;

/// Notes per page.
const PAGE: usize = 16;

/// Records per page.
const LIST_PAGE: usize = 100;

impl Records {
    /// Adds a spent refresh token to `record`, which the caller saves.
    pub fn add_spent(
        &self,
        record: &mut Record,
        refresh_token: &Secret,
        clock: &dyn Clock,
        deadline: &Deadline,
    ) {
        record.spent.add(&SpentDigest::of(refresh_token));
        if record.spent.len() <= IN_RECORD {
            return;
        }
        let note = Note {
            key: format!("{}/{}", list_of(&record.resource_id), clock.wall_ms()),
            version: 0,
            list: list_of(&record.resource_id),
            document: json!(record.spent.oldest(IN_NOTE)),
            expires_at: clock.wall_ms().saturating_add(RETENTION_MS),
        };
        match self.store().save_note(&note, deadline) {
            Ok(()) => record.spent.forget_oldest(IN_NOTE),
            // An earlier attempt moved these digests, but its record was not saved.
            Err(error) if error.status() == Status::Conflict => {}
            Err(error) if record.spent.len() > 2 * IN_RECORD => {
                log::warn!(
                    "digests of spent refresh tokens are forgotten{}",
                    error.fields(&record.resource_id)
                );
                record.spent.forget_oldest(IN_NOTE);
            }
            Err(_) => {}
        }
    }

    /// Copies the digests of a resource that `other` keeps outside its record: in notes, and in the
    /// tombstone of a deleted predecessor. `record` is saved by the caller.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn copy_spent(
        &self,
        other: &Records,
        record: &mut Record,
        deadline: &Deadline,
    ) -> Result<()> {
        let resource_id = &record.resource_id;
        let deleted = other.spent_before_deletion(resource_id, deadline)?;
        let (list, mut after) = (list_of(resource_id), None);
        loop {
            let page = other.store().notes(&list, after.as_deref(), PAGE, deadline)?;
            for mut note in page.notes {
                note.version = 0;
                match self.store().save_note(&note, deadline) {
                    // An earlier adoption copied it.
                    Err(error) if error.status() == Status::Conflict => {}
                    saved => saved?,
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        record.spent = deleted.merged(&record.spent);
        Ok(())
    }

    /// Whether this store has spent a refresh token of a resource; `record` is the stored record.
    pub fn has_spent(
        &self,
        resource_id: &str,
        refresh_token: &Secret,
        record: Option<&Record>,
        deadline: &Deadline,
    ) -> Result<bool> {
        let digest = SpentDigest::of(refresh_token);
        if record.is_some_and(|record| record.spent.contains(&digest))
            || self.spent_before_deletion(resource_id, deadline)?.contains(&digest)
        {
            return Ok(true);
        }
        let (list, mut after) = (list_of(resource_id), None);
        loop {
            let page = self.store().notes(&list, after.as_deref(), PAGE, deadline)?;
            let digests = page.notes.into_iter().map(|note| serde_json::from_value(note.document));
            if digests.flatten().any(|digests: SpentDigests| digests.contains(&digest)) {
                return Ok(true);
            }
            after = page.next;
            if after.is_none() {
                return Ok(false);
            }
        }
    }

    /// Whether the company of a location's token has already spent this refresh token as its own.
    pub fn company_has_spent(
        &self,
        resource_id: &str,
        token: &Token,
        refresh_token: &Secret,
        deadline: &Deadline,
    ) -> Result<bool> {
        let Some(company_id) =
            token.company_id.as_deref().filter(|company_id| *company_id != resource_id)
        else {
            return Ok(false);
        };
        let company = self.load(company_id, deadline);
        let company =
            company.or_else(|error| if error.is_unreadable() { Ok(None) } else { Err(error) })?;
        self.has_spent(company_id, refresh_token, company.as_ref(), deadline)
    }

    /// Another owner that holds the refresh token of an import or has spent it: the company, or a
    /// location of the same company.
    pub fn other_owner_of(
        &self,
        resource_id: &str,
        token: &Token,
        deadline: &Deadline,
    ) -> Result<Option<String>> {
        let (Some(company_id), Some(refresh_token)) = (&token.company_id, &token.refresh_token)
        else {
            return Ok(None);
        };
        let holds = |record: &Record| {
            record.resource_id != resource_id
                && record
                    .token
                    .refresh_token
                    .as_ref()
                    .is_some_and(|held| held.matches(refresh_token.expose()))
        };
        if token.kind() == UserType::Location {
            let company = self.load(company_id, deadline);
            let company = company
                .or_else(|error| if error.is_unreadable() { Ok(None) } else { Err(error) })?;
            let is_theirs = |company: &Record| holds(company) || company.has_spent(refresh_token);
            return Ok(company.filter(is_theirs).map(|company| company.resource_id));
        }
        let mut query =
            Query { company_id: Some(company_id.clone()), limit: LIST_PAGE, ..Query::default() };
        loop {
            let page = self.list(&query, deadline)?;
            if let Some(other) = page.records.into_iter().find(|record| holds(record)) {
                return Ok(Some(other.resource_id));
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(None),
            }
        }
    }
}

fn list_of(resource_id: &str) -> String {
    format!("spent/{resource_id}")
}
