//! Notes: versioned key-value documents with an expiry, such as installations and seen deliveries.
//! Never a secret.

use serde_json::Value;

/// What is written down under one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What it is about.
    pub key: String,
    /// Raised by one at each save; 0 for a note that was never saved.
    pub version: u64,
    /// The list that it stands in; an empty one for none that anybody reads.
    pub list: String,
    /// Whatever its writer wants to know later.
    pub document: Value,
    /// When it may be thrown away, in milliseconds since the epoch.
    pub expires_at: i64,
}

impl Note {
    /// The last version of the deleted record that a tombstone tells.
    pub fn deleted_version(&self) -> u64 {
        self.document.get("version").and_then(Value::as_u64).unwrap_or(0)
    }
}

/// A page of notes.
#[derive(Debug)]
pub struct NotePage {
    /// The notes.
    pub notes: Vec<Note>,
    /// The key to go on after, when there are more.
    pub next: Option<String>,
}

impl NotePage {
    /// A page of at most `limit` notes, out of a list that has one more where there is a next page.
    pub(super) fn cut(mut notes: Vec<Note>, limit: usize) -> NotePage {
        let more = notes.len() > limit;
        notes.truncate(limit);
        let next = notes.last().filter(|_| more).map(|last| last.key.clone());
        NotePage { notes, next }
    }
}
