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
use crate::store::{Note, Record, SpentDigest, SpentDigests};

/// Maximum number of digests in a record, and how many move to a note at once.
const IN_RECORD: usize = 64;
const IN_NOTE: usize = 48;

/// Notes per page.
const PAGE: usize = 16;

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
                    "{}: digests of spent refresh tokens are forgotten: {error}",
                    record.resource_id
                );
                record.spent.forget_oldest(IN_NOTE);
            }
            Err(_) => {}
        }
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
}

fn list_of(resource_id: &str) -> String {
    format!("spent/{resource_id}")
}
