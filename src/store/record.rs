//! A record: the stored state of one company or location, with its token, its standing and the
//! intent of a refresh.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::spent_digests::{SpentDigest, SpentDigests};
use crate::error::{Error, Result, Status};
use crate::secret::Secret;
use crate::token::{Token, USUAL_LIFETIME_MS, UserType};

/// What is kept of one company or location.
#[derive(Debug, Clone)]
pub struct Record {
    /// The company or location.
    pub resource_id: String,
    /// Raised by one at each save; 0 for a record that was never saved.
    pub version: u64,
    /// The last version of a deleted predecessor: the first save of a new record continues after it, so that versions of
    /// a resource never start again.
    pub predecessor: u64,
    /// The process's own count of unsaved copies and deletions when the record was read: what came later is newer. It is
    /// not stored.
    pub as_of: u64,
    /// The newest token; shared, for a record is copied more often than its token changes.
    pub token: Arc<Token>,
    /// Whether the API still honours it.
    pub standing: Standing,
    /// Set before a refresh is sent, cleared when its end is known.
    pub intent: Option<Intent>,
    /// When maintenance should renew it, in milliseconds since the epoch; never, if only a person can help.
    pub renew_at: i64,
    /// When the installation began that the token belongs to, in milliseconds since the epoch, if that is known: with the
    /// consent, the first mint or the INSTALL, and not with the last refresh.
    pub installed_at: Option<i64>,
    /// Whether a location consented by itself, so that its installation does not end with its company's.
    pub own_consent: bool,
    /// Digests of the refresh tokens that were spent last, the newest at the end.
    pub spent: SpentDigests,
    /// Fields of a newer version of the library: saved again as they were loaded, so that a downgrade loses none.
    pub unknown: Map<String, Value>,
}

/// Whether the API still honours a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Standing {
    /// As far as is known.
    Good,
    /// The location is paused; the refresh token stays good.
    Inactive {
        /// When the API last said so, in milliseconds since the epoch.
        since_ms: i64,
    },
    /// Only a person's consent can help.
    ReauthorizationRequired {
        /// When that was found, in milliseconds since the epoch.
        since_ms: i64,
        /// What the API said.
        reason: String,
        /// Whether a location could not be minted only for want of its company's token.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        lacks_company: bool,
    },
}

/// A refresh that was sent and whose end is not known: its refresh token may be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// When it was first sent, in milliseconds since the epoch.
    pub since_ms: i64,
}

/// A record on its way out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    access_token: &'a str,
    refresh_token: Option<&'a str>,
    issued_at: Option<i64>,
    expires_at: i64,
    user_type: Option<UserType>,
    company_id: Option<&'a str>,
    location_id: Option<&'a str>,
    scope: Option<&'a str>,
    fields: &'a Map<String, Value>,
    standing: &'a Standing,
    intent: Option<Intent>,
    renew_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    installed_at: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    own_consent: bool,
    #[serde(skip_serializing_if = "SpentDigests::is_empty")]
    spent: &'a SpentDigests,
    #[serde(flatten)]
    unknown: &'a Map<String, Value>,
}

/// The same on its way in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredDocument {
    access_token: Secret,
    refresh_token: Option<Secret>,
    issued_at: Option<i64>,
    expires_at: i64,
    user_type: Option<UserType>,
    company_id: Option<String>,
    location_id: Option<String>,
    scope: Option<String>,
    fields: Map<String, Value>,
    standing: Standing,
    intent: Option<Intent>,
    renew_at: i64,
    installed_at: Option<i64>,
    #[serde(default)]
    own_consent: bool,
    #[serde(default)]
    spent: SpentDigests,
    /// Only unknown fields pass through a buffer: the known ones, secrets among them, are read in place.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Record {
    /// A record that no store has seen yet.
    pub fn new(resource_id: String, token: Token) -> Record {
        let renew_at = token.expires_at;
        let (standing, token) = (Standing::Good, Arc::new(token));
        Record {
            resource_id,
            version: 0,
            predecessor: 0,
            as_of: 0,
            token,
            standing,
            intent: None,
            renew_at,
            installed_at: None,
            own_consent: false,
            spent: SpentDigests::default(),
            unknown: Map::new(),
        }
    }

    /// The version that the next save gives it.
    pub fn next_version(&self) -> u64 {
        if self.version == 0 { self.predecessor + 1 } else { self.version + 1 }
    }

    /// The record as a durable store keeps it, secrets included; the id and the version stand beside it.
    ///
    /// # Errors
    /// `INTERNAL`, should a field not fit into JSON.
    pub fn to_document(&self) -> Result<Zeroizing<Vec<u8>>> {
        let document = Document {
            access_token: self.token.access_token.expose(),
            refresh_token: self.token.refresh_token.as_ref().map(Secret::expose),
            issued_at: self.token.issued_at,
            expires_at: self.token.expires_at,
            user_type: self.token.user_type,
            company_id: self.token.company_id.as_deref(),
            location_id: self.token.location_id.as_deref(),
            scope: self.token.scope.as_deref(),
            fields: &self.token.fields,
            standing: &self.standing,
            intent: self.intent,
            renew_at: self.renew_at,
            installed_at: self.installed_at,
            own_consent: self.own_consent,
            spent: &self.spent,
            unknown: &self.unknown,
        };
        // Room for everything at once: a text that grows leaves pieces of itself behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        let unwritable = |_| Error::new(Status::Internal, "a record could not be written as JSON");
        serde_json::to_writer(&mut *bytes, &document).map_err(unwritable)?;
        Ok(bytes)
    }

    /// Reads what [`Record::to_document`] wrote.
    ///
    /// # Errors
    /// `STORE` for a document that is none.
    pub fn from_document(resource_id: String, version: u64, document: &[u8]) -> Result<Record> {
        let read: StoredDocument = serde_json::from_slice(document).map_err(|_| {
            Error::new(Status::Store, "a stored record cannot be read")
                .with_help(
                    "it was written by something else, or damaged; delete it and let the user consent again",
                )
                .with_resource(&resource_id)
        })?;
        Ok(Record {
            resource_id,
            version,
            predecessor: 0,
            as_of: 0,
            token: Arc::new(Token {
                access_token: read.access_token,
                refresh_token: read.refresh_token,
                issued_at: read.issued_at,
                expires_at: read.expires_at,
                user_type: read.user_type,
                company_id: read.company_id,
                location_id: read.location_id,
                scope: read.scope,
                fields: read.fields,
            }),
            standing: read.standing,
            intent: read.intent,
            renew_at: read.renew_at,
            installed_at: read.installed_at,
            own_consent: read.own_consent,
            spent: read.spent,
            unknown: read.unknown,
        })
    }

    /// Whether it can be renewed without a person.
    pub fn is_refreshable(&self) -> bool {
        let minted = self.token.kind() == UserType::Location && self.token.company_id.is_some();
        match self.standing {
            Standing::ReauthorizationRequired { .. } => false,
            _ => self.token.refresh_token.is_some() || minted,
        }
    }

    /// Whether a refresh token was spent lately.
    pub fn has_spent(&self, refresh_token: &Secret) -> bool {
        self.spent.contains(&SpentDigest::of(refresh_token))
    }

    /// When the installation began, in milliseconds since the epoch. If that is not known, when its token was granted: as
    /// far as it is known, else a usual life before its end.
    pub fn installed_at(&self) -> i64 {
        let granted_at =
            || self.token.issued_at.unwrap_or(self.token.expires_at.saturating_sub(USUAL_LIFETIME_MS));
        self.installed_at.unwrap_or_else(granted_at)
    }

    /// What may be shown: never a secret.
    pub fn metadata(&self) -> Value {
        let state = match self.standing {
            Standing::Good => "ok",
            Standing::Inactive { .. } => "inactive",
            Standing::ReauthorizationRequired { .. } => "reauthorizationRequired",
        };
        json!({
            "resourceId": self.resource_id,
            "userType": self.token.kind().name(),
            "companyId": self.token.company_id,
            "locationId": self.token.location_id,
            "scope": self.token.scope,
            "expiresAt": self.token.expires_at,
            "refreshable": self.is_refreshable(),
            "state": state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record's document with these further fields.
    fn document(further: &str) -> String {
        // Of these digits a quick reading makes one number, and of what it writes another.
        let fraction = format!("1{}.5", "2".repeat(128));
        [
            r#"{"accessToken":"a","refreshToken":null,"issuedAt":1,"expiresAt":2,"userType":"Company","companyId":"c","#,
            r#""locationId":null,"scope":null,"fields":{"n":"#,
            &fraction,
            r#"},"standing":{"state":"good"},"intent":null,"renewAt":3"#,
            further,
            "}",
        ]
        .concat()
    }

    fn kept(document: &[u8]) -> String {
        let record = Record::from_document("c".into(), 1, document).unwrap();
        String::from_utf8(record.to_document().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn document_that_is_saved_again_stays_the_same() {
        let first = kept(document("").as_bytes());
        assert_eq!(kept(first.as_bytes()), first);
    }

    #[test]
    fn fields_of_a_newer_version_stay_through_a_load_a_change_and_a_save() {
        let newer = document(r#","ownConsent":true,"newest":{"list":[1,null,"x"]},"flag":true"#);
        let mut record = Record::from_document("c".into(), 1, newer.as_bytes()).unwrap();
        record.renew_at = 4;
        let saved: Value = serde_json::from_slice(&record.to_document().unwrap()).unwrap();
        assert_eq!(saved["newest"], json!({"list": [1, null, "x"]}));
        assert_eq!(
            (&saved["flag"], &saved["renewAt"], &saved["ownConsent"]),
            (&json!(true), &json!(4), &json!(true))
        );
        assert_eq!(record.unknown.len(), 2, "a known field is not kept a second time");
    }
}
