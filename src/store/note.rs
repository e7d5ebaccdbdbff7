//! Notes: versioned key-value documents with an expiry, such as installations, tombstones and seen
//! webhook deliveries. A note contains no secret.

use serde_json::Value;

/// A versioned document under a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    pub key: String,
    /// Incremented by each save; 0 for a note that was never saved.
    pub version: u64,
    /// The list that contains the note; empty for a note that is not listed.
    pub list: String,
    /// The content.
    pub document: Value,
    /// When it may be removed, in milliseconds since the epoch.
    pub expires_at: i64,
}

impl Note {
    /// The last version of the deleted record, if the note is a tombstone; otherwise 0.
    pub fn deleted_version(&self) -> u64 {
        deleted_version(&self.document)
    }
}

/// The version in the document of a tombstone; 0 if it has no version that a record can have.
pub fn deleted_version(document: &Value) -> u64 {
    document
        .get("version")
        .and_then(Value::as_u64)
        .filter(|version| *version < i64::MAX.cast_unsigned())
        .unwrap_or(0)
}

#[derive(Debug)]
pub struct NotePage {
    pub notes: Vec<Note>,
    /// The key to continue after, if there are more.
    pub next: Option<String>,
}

impl NotePage {
    /// A page of the first `limit` notes; `next` is set if `notes` has more.
    pub(super) fn cut(mut notes: Vec<Note>, limit: usize) -> NotePage {
        let more = notes.len() > limit;
        notes.truncate(limit);
        let next = notes.last().filter(|_| more).map(|last| last.key.clone());
        NotePage { notes, next }
    }
}
