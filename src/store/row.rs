//! Database rows: a record as the durable stores see it, an opaque document with its index columns.

use zeroize::Zeroizing;

use crate::token::UserType;

/// A record on its way into a store.
pub struct Row {
    /// The company or location.
    pub resource_id: String,
    /// The version that it has once it is stored.
    pub version: u64,
    /// Whether no row of the resource must be there yet; else the version before this one must be.
    pub is_new: bool,
    /// Whether it is a company's or a location's.
    pub user_type: UserType,
    /// The company that it belongs to, where that is known.
    pub company_id: Option<String>,
    /// When maintenance should renew it, in milliseconds since the epoch.
    pub renew_at: i64,
    /// The id of the key that sealed the document; empty for one that is not sealed.
    pub sealed_with: String,
    /// The document, sealed or plain.
    pub document: Zeroizing<Vec<u8>>,
}

/// A record that is sealed anew: the row as it should be, and the document that it takes the place of. A version alone does
/// not tell: a record that was removed and came back counts from the beginning.
pub struct Resealing {
    /// The same version of the same record, sealed by the first key.
    pub row: Row,
    /// The document that must still be there.
    pub was: Zeroizing<Vec<u8>>,
}

/// A record on its way out.
pub struct StoredRow {
    /// The company or location.
    pub resource_id: String,
    /// The stored version.
    pub version: u64,
    /// The document, sealed or plain.
    pub document: Zeroizing<Vec<u8>>,
}
