//! Database rows: a record as the durable stores see it, an opaque document with index columns.

use zeroize::Zeroizing;

use crate::token::UserType;

/// A record to be written.
pub struct Row {
    /// The company or location.
    pub resource_id: String,
    /// The version after the write.
    pub version: u64,
    /// Whether the row must not exist yet. Otherwise its version must be one less.
    pub is_new: bool,
    pub user_type: UserType,
    /// The company that it belongs to, if known.
    pub company_id: Option<String>,
    /// When maintenance should renew it, in milliseconds since the epoch.
    pub renew_at: i64,
    /// The ID of the key that sealed the document; empty for a plain document.
    pub sealed_with: String,
    /// The document, sealed or plain.
    pub document: Zeroizing<Vec<u8>>,
}

/// A resealed record and the document that it replaces. The version is not enough: a record that
/// was removed and saved again may have the same one.
pub struct Resealing {
    /// The same version of the record, sealed with the first key.
    pub row: Row,
    /// The document that must still be stored.
    pub was: Zeroizing<Vec<u8>>,
}

/// A record as it was read.
pub struct StoredRow {
    /// The company or location.
    pub resource_id: String,
    pub version: u64,
    /// The document, sealed or plain.
    pub document: Zeroizing<Vec<u8>>,
}
