//! A record: the stored state of one company or location, with its token, its standing and the
//! intent of a refresh.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::spent_digests::{SpentDigest, SpentDigests};
use crate::error::{Error, Result, Status};
use crate::secret::Secret;
use crate::token::{LastFailure, Token, USUAL_LIFETIME_MS, UserType};

/// The key of the last failure in a stored record.
const LAST_FAILURE: &str = "lastFailure";

/// The stored state of one company or location.
#[derive(Debug, Clone)]
pub struct Record {
    /// The company or location.
    pub resource_id: String,
    /// Incremented by each save; 0 for a record that was never saved.
    pub version: u64,
    /// The last version of the deleted record before this one. The first save continues from it, so
    /// that the versions of a resource never repeat.
    pub predecessor: u64,
    /// This process's count of unsaved copies and deletions when the record was read. Anything with
    /// a higher count is newer. Not stored.
    pub as_of: u64,
    /// The newest token. Shared, because records are copied more often than tokens change.
    pub token: Arc<Token>,
    /// Whether the API still accepts the token.
    pub standing: Standing,
    /// Set before a refresh is sent, cleared when its outcome is known.
    pub intent: Option<Intent>,
    /// When maintenance should renew the token, in milliseconds since the epoch; `i64::MAX` for
    /// never.
    pub renew_at: i64,
    /// When the installation began, in milliseconds since the epoch, if known: the time of the
    /// consent, the first mint or the INSTALL webhook.
    pub installed_at: Option<i64>,
    /// Whether the location consented separately. Its installation then does not end with its
    /// company's.
    pub own_consent: bool,
    /// Digests of the last refresh tokens that were used, the newest at the end.
    pub spent: SpentDigests,
    /// The last failed renewal of the token. A new token has none.
    pub last_failure: Option<Arc<LastFailure>>,
    /// Fields from a newer version of the library, saved as they were loaded, so that a downgrade
    /// loses none.
    pub unknown: Map<String, Value>,
}

/// Whether the API still accepts a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Standing {
    /// Accepted, as far as is known.
    Good,
    /// The location is inactive; its refresh token remains valid.
    Inactive {
        /// When the API last reported this, in milliseconds since the epoch.
        since_ms: i64,
    },
    /// Only a new consent can help.
    ReauthorizationRequired {
        /// When this was detected, in milliseconds since the epoch.
        since_ms: i64,
        /// The API's reason.
        reason: String,
        /// Whether the only cause is that the location's company is unknown or has no usable token
        /// to mint with.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        lacks_company: bool,
    },
}

/// A refresh that was sent and whose outcome is unknown. Its refresh token may have been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// When it was first sent, in milliseconds since the epoch.
    pub since_ms: i64,
}

/// The stored form of a record, for writing.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<Value>,
    #[serde(flatten)]
    unknown: &'a Map<String, Value>,
}

/// The stored form of a record, for reading.
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
    /// Also the last failure, which few records have. Serde buffers only these fields; the others,
    /// including secrets, are deserialized directly.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Record {
    /// A record that was never saved.
    pub fn new(resource_id: String, token: Token) -> Record {
        let renew_at = token.expires_at;
        let (standing, token) = (Standing::Good, Arc::new(token.labelled(&resource_id)));
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
            last_failure: None,
            unknown: Map::new(),
        }
    }

    pub fn next_version(&self) -> u64 {
        if self.version == 0 { self.predecessor + 1 } else { self.version + 1 }
    }

    /// Serializes the record, including secrets. ID and version are stored separately.
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
            last_failure: self.last_failure.as_deref().map(LastFailure::to_document),
            unknown: &self.unknown,
        };
        // Pre-allocated: a buffer that grows leaves copies of secrets in freed memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        let unwritable = |_| Error::new(Status::Internal, "a record could not be written as JSON");
        serde_json::to_writer(&mut *bytes, &document).map_err(unwritable)?;
        Ok(bytes)
    }

    /// Parses the output of [`Record::to_document`].
    pub fn from_document(resource_id: String, version: u64, document: &[u8]) -> Result<Record> {
        let mut read: StoredDocument = serde_json::from_slice(document).map_err(|_| {
            Error::new(Status::Store, "a stored record cannot be read")
                .with_help(
                    "delete it and let the user consent again: it is damaged, or another program \
                     wrote it",
                )
                .with_resource(&resource_id)
        })?;
        // Another expiry means that a version that does not know the field renewed the token.
        let last_failure = read
            .unknown
            .remove(LAST_FAILURE)
            .as_ref()
            .and_then(LastFailure::from_document)
            .filter(|failure| failure.expires_at == read.expires_at);
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
            last_failure: last_failure.map(Arc::new),
            unknown: read.unknown,
        })
    }

    /// Whether the token can be renewed without a new consent.
    pub fn is_refreshable(&self) -> bool {
        let minted = self.token.kind() == UserType::Location && self.token.company_id.is_some();
        match self.standing {
            Standing::ReauthorizationRequired { .. } => false,
            _ if self.token.is_private_integration() => false,
            _ => self.token.refresh_token.is_some() || minted,
        }
    }

    /// Whether a refresh token is among the last ones that were used.
    pub fn has_spent(&self, refresh_token: &Secret) -> bool {
        self.spent.contains(&SpentDigest::of(refresh_token))
    }

    /// When the installation began, in milliseconds since the epoch. If unknown, the token's issue
    /// time, or its expiry less the usual lifetime.
    pub fn installed_at(&self) -> i64 {
        let granted_at = || {
            self.token.issued_at.unwrap_or(self.token.expires_at.saturating_sub(USUAL_LIFETIME_MS))
        };
        self.installed_at.unwrap_or_else(granted_at)
    }

    /// The state, as in [`Record::metadata`].
    pub fn state(&self) -> &'static str {
        match self.standing {
            Standing::Good => "ok",
            Standing::Inactive { .. } => "inactive",
            Standing::ReauthorizationRequired { .. } => "reauthorizationRequired",
        }
    }

    /// The public fields of the record, without secrets and its last failure.
    pub fn metadata(&self) -> Value {
        json!({
            "resourceId": self.resource_id,
            "userType": self.token.kind().name(),
            "companyId": self.token.company_id,
            "locationId": self.token.location_id,
            "scope": self.token.scope,
            "expiresAt": self.token.expires_at,
            "refreshable": self.is_refreshable(),
            "state": self.state(),
            "lastSuccessAt": self.token.issued_at,
            "lastFailure": null,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(further: &str) -> String {
        // A number that a lossy float parser changes when it is parsed and written again.
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

    fn saved_again(document: &[u8]) -> String {
        let record = Record::from_document("c".into(), 1, document).unwrap();
        String::from_utf8(record.to_document().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn document_is_unchanged_by_a_load_and_a_save() {
        let first = saved_again(document("").as_bytes());
        assert_eq!(saved_again(first.as_bytes()), first);
    }

    #[test]
    fn fields_of_a_newer_version_are_preserved_by_a_load_a_change_and_a_save() {
        let newer = document(r#","ownConsent":true,"newest":{"list":[1,null,"x"]},"flag":true"#);
        let mut record = Record::from_document("c".into(), 1, newer.as_bytes()).unwrap();
        record.renew_at = 4;
        let saved: Value = serde_json::from_slice(&record.to_document().unwrap()).unwrap();
        assert_eq!(saved["newest"], json!({"list": [1, null, "x"]}));
        assert_eq!(
            (&saved["flag"], &saved["renewAt"], &saved["ownConsent"]),
            (&json!(true), &json!(4), &json!(true))
        );
        assert_eq!(record.unknown.len(), 2, "a known field is not stored twice");
    }

    #[test]
    fn failure_of_an_older_token_or_of_an_unknown_form_is_ignored() {
        let failure = |expires_at: i64| {
            let failure = json!({
                "firstAt": 1, "at": 1, "attempts": 1, "status": "GHL_ERR_SERVER", "message": "m",
                "httpStatus": null, "traceId": null, "nextAttemptAt": 2, "expiresAt": expires_at,
            });
            document(&format!(r#","lastFailure":{failure}"#))
        };
        let read = |document: &str| {
            Record::from_document("c".into(), 1, document.as_bytes()).unwrap().last_failure
        };
        assert_eq!(read(&failure(2)).map(|failure| failure.attempts), Some(1));
        assert_eq!(read(&failure(3)), None, "a version without the field renewed the token");
        for odd in ["null", "5", "{}", r#"{"at":"soon"}"#] {
            assert_eq!(read(&document(&format!(r#","lastFailure":{odd}"#))), None, "{odd}");
        }
        let saved = saved_again(failure(2).as_bytes());
        assert_eq!(saved_again(saved.as_bytes()), saved);
    }
}
