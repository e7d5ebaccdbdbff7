//! A token with its owner and its expiry, as granted by the API.

mod last_failure;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::secret::Secret;

pub use last_failure::LastFailure;

/// The lifetime that is assumed if `expires_in` is missing (RFC 6749, section 5.1, makes it
/// optional) or not positive: long enough to avoid a refresh loop, far shorter than the usual day.
pub const ASSUMED_LIFETIME: Duration = Duration::from_secs(3600);

/// The lifetime of the vendor's tokens, for a token whose own lifetime is unknown.
pub const USUAL_LIFETIME_MS: i64 = 86_400_000;

/// The expiry of a token that never expires, in milliseconds since the epoch: the end of year 9999.
pub const NEVER: i64 = 253_402_300_799_000;

/// How far `issued_at` may lie in the future, because the clocks of machines differ. Beyond that,
/// the clock was or is wrong.
pub const CLOCK_TOLERANCE_MS: i64 = 300_000;

/// The longest lifetime that is accepted.
const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The longest ID of a company or location, in bytes. The API's IDs have 20.
const MAX_ID: usize = 255;

/// The kind of resource that a token gives access to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UserType {
    /// An agency.
    Company,
    /// A sub-account.
    Location,
}

impl UserType {
    /// The API's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            UserType::Company => "Company",
            UserType::Location => "Location",
        }
    }

    /// Parses the API's name, in any case. Older responses have `Agency` and `Account`.
    pub fn from_name(name: &str) -> Option<UserType> {
        if name.eq_ignore_ascii_case("company") || name.eq_ignore_ascii_case("agency") {
            Some(UserType::Company)
        } else if name.eq_ignore_ascii_case("location") || name.eq_ignore_ascii_case("account") {
            Some(UserType::Location)
        } else {
            None
        }
    }
}

/// A token from a consent, a refresh or a mint.
#[derive(Clone)]
pub struct Token {
    /// The bearer token.
    pub access_token: Secret,
    /// Single use; `None` if the API sent none.
    pub refresh_token: Option<Secret>,
    /// The time of the grant, in milliseconds since the epoch; unknown for some imports.
    pub issued_at: Option<i64>,
    /// When the access token expires, in milliseconds since the epoch.
    pub expires_at: i64,
    /// Company or Location, as the response says.
    pub user_type: Option<UserType>,
    /// The company, if known.
    pub company_id: Option<String>,
    /// The location; only for location tokens.
    pub location_id: Option<String>,
    /// Space-separated scopes.
    pub scope: Option<String>,
    /// All other fields of the response, unchanged.
    pub fields: Map<String, Value>,
}

impl Token {
    /// The company or location that this token gives access to.
    pub fn resource_id(&self) -> Option<&str> {
        match self.user_type {
            Some(UserType::Company) => self.company_id.as_deref(),
            Some(UserType::Location) => self.location_id.as_deref(),
            None => self.location_id.as_deref().or(self.company_id.as_deref()),
        }
    }

    /// The same token, whose access token is labelled with its resource: the cache then shares the
    /// memory of the access token.
    #[must_use]
    pub(crate) fn labelled(self, resource_id: &str) -> Token {
        Token { access_token: self.access_token.labelled(resource_id), ..self }
    }

    /// Company or Location: `user_type`, or by default whether a location is named.
    pub fn kind(&self) -> UserType {
        self.user_type.unwrap_or(match self.location_id {
            Some(_) => UserType::Location,
            None => UserType::Company,
        })
    }

    /// Whether this is a private integration token: made by a person in the account's settings, not
    /// granted to the app, so the app's installation does not matter to it.
    pub fn is_private_integration(&self) -> bool {
        self.refresh_token.is_none() && self.access_token.expose().starts_with("pit-")
    }

    /// Whether the token names another owner than the requested `resource_id` of that kind. One
    /// that names no owner is taken for the requested one's.
    pub fn is_of_another(&self, resource_id: &str, kind: UserType) -> bool {
        let named = self.resource_id();
        (self.user_type.is_some() || named.is_some()) && self.kind() != kind
            || named.is_some_and(|named| named != resource_id)
    }

    /// Copies from the older token what the response to a refresh omits, such as the refresh token.
    /// The owner never changes.
    #[must_use]
    pub fn completed_from(mut self, older: &Token) -> Token {
        fn keep<T: Clone>(newer: &mut Option<T>, older: &Option<T>) {
            if newer.is_none() {
                newer.clone_from(older);
            }
        }
        keep(&mut self.refresh_token, &older.refresh_token);
        match older.kind() {
            UserType::Company => self.company_id.clone_from(&older.company_id),
            UserType::Location => {
                self.location_id.clone_from(&older.location_id);
                keep(&mut self.company_id, &older.company_id);
            }
        }
        self.user_type = Some(older.kind());
        keep(&mut self.scope, &older.scope);
        for (name, value) in &older.fields {
            if !self.fields.contains_key(name) {
                self.fields.insert(name.clone(), value.clone());
            }
        }
        self
    }

    /// The lifetime of the access token, if known.
    pub fn lifetime(&self) -> Option<Duration> {
        let lifetime = self.expires_at.checked_sub(self.issued_at?)?;
        u64::try_from(lifetime).ok().map(Duration::from_millis)
    }

    /// The time until expiry at `now_ms`; zero if expired. Never more than the lifetime, even if
    /// the clock was wrong at the grant.
    pub fn left(&self, now_ms: i64) -> Duration {
        let left = Duration::from_millis(
            u64::try_from(self.expires_at.saturating_sub(now_ms)).unwrap_or(0),
        );
        match self.lifetime() {
            Some(lifetime) => left.min(lifetime),
            None if self.refresh_token.is_some() => {
                left.min(Duration::from_millis(USUAL_LIFETIME_MS.unsigned_abs()))
            }
            None => left,
        }
    }

    /// Whether `issued_at` lies in the future of `now_ms`. The token's age is unknown then, so it
    /// is due.
    pub fn is_issued_in_future(&self, now_ms: i64) -> bool {
        self.issued_at
            .is_some_and(|issued_at| issued_at > now_ms.saturating_add(CLOCK_TOLERANCE_MS))
    }

    /// How long before its expiry the token is due: `margin`, but at most a quarter of the
    /// lifetime, so that a short-lived token is not refreshed at every call.
    pub fn margin(&self, margin: Duration) -> Duration {
        self.lifetime().map_or(margin, |lifetime| margin.min(lifetime / 4))
    }

    /// Whether callers get it at `now_ms` without a refresh.
    pub fn is_fresh(&self, now_ms: i64, margin: Duration) -> bool {
        self.left(now_ms) > self.margin(margin) && !self.is_issued_in_future(now_ms)
    }

    /// Whether it has not expired at `now_ms`.
    pub fn is_alive(&self, now_ms: i64) -> bool {
        !self.left(now_ms).is_zero()
    }

    /// The token as JSON, including secrets and `expiresAt`.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut json = self.fields.clone();
        json.insert("accessToken".into(), self.access_token.expose().into());
        if let Some(refresh_token) = &self.refresh_token {
            json.insert("refreshToken".into(), refresh_token.expose().into());
        }
        json.insert("expiresAt".into(), self.expires_at.into());
        let described = [
            ("userType", self.user_type.map(|kind| kind.name().to_owned())),
            ("companyId", self.company_id.clone()),
            ("locationId", self.location_id.clone()),
            ("scope", self.scope.clone()),
        ];
        for (name, value) in described {
            if let Some(value) = value {
                json.insert(name.into(), value.into());
            }
        }
        json
    }
}

impl fmt::Debug for Token {
    /// Omits `fields`: unknown fields may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("user_type", &self.user_type)
            .field("company_id", &self.company_id)
            .field("location_id", &self.location_id)
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Whether a string can be the ID of a company or location.
pub(crate) fn is_valid_id(id: &str) -> bool {
    valid_id("id", id).is_ok()
}

/// Checks that a string can be the ID of a company or location; the error names the parameter.
pub(crate) fn valid_id(parameter: &str, id: &str) -> Result<()> {
    let wrong = if id.trim().is_empty() {
        "is empty"
    } else if id.len() > MAX_ID {
        "is longer than 255 bytes"
    } else if id.trim() != id || id.chars().any(char::is_control) {
        "begins or ends with white space, or contains a control character"
    } else {
        return Ok(());
    };
    Err(Error::invalid_argument(parameter, format!("{parameter} {wrong}")))
}

/// The error message for a string that cannot be an access token.
pub const NO_TOKEN_TEXT: &str = "contains a character that is not allowed in a token";

/// Whether a string can be an access token (RFC 6749, appendix A.12), and so be sent in a header.
pub fn is_token_text(text: &str) -> bool {
    // No early exit, so that the compiler can vectorize the loop.
    text.bytes().fold(true, |all, byte| all & (0x20..0x7f).contains(&byte))
}

/// The error message for an invalid scope.
pub const NO_SCOPE: &str = "each scope must be one word, such as \"locations.readonly\"";

/// Whether a string can be one scope of a space-separated list (RFC 6749, section 3.3).
pub fn is_scope(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

/// The expiry of a token granted at `now_ms`, from the `expiresIn` seconds of the response.
pub fn expiry(now_ms: i64, expires_in: Option<i64>) -> i64 {
    let lifetime = match expires_in {
        Some(seconds) if seconds > 0 => {
            Duration::from_secs(seconds.unsigned_abs()).min(MAX_LIFETIME)
        }
        _ => ASSUMED_LIFETIME,
    };
    now_ms.saturating_add(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(issued_at: Option<i64>, expires_at: i64) -> Token {
        Token {
            access_token: Secret::new("access".into()),
            refresh_token: None,
            issued_at,
            expires_at,
            user_type: None,
            company_id: None,
            location_id: None,
            scope: None,
            fields: Map::new(),
        }
    }

    #[test]
    fn token_is_due_before_it_expires() {
        let token = token(Some(0), 86_400_000);
        let margin = Duration::from_secs(300);
        assert!(token.is_fresh(0, margin));
        assert!(token.is_fresh(86_099_999, margin));
        assert!(!token.is_fresh(86_100_000, margin));
        assert!(token.is_alive(86_399_999));
        assert!(!token.is_alive(86_400_000));
    }

    #[test]
    fn short_lifetime_shrinks_the_margin() {
        assert!(token(Some(0), 60_000).is_fresh(44_000, Duration::from_secs(300)));
        assert!(!token(Some(0), 60_000).is_fresh(46_000, Duration::from_secs(300)));
        assert!(!token(None, 60_000).is_fresh(0, Duration::from_secs(300)));
    }

    #[test]
    fn invalid_lifetime_is_replaced_by_a_default() {
        let assumed = ASSUMED_LIFETIME.as_millis() as i64;
        assert_eq!(expiry(1000, Some(86_399)), 86_400_000);
        for odd in [None, Some(0), Some(-5), Some(i64::MIN)] {
            assert_eq!(expiry(1000, odd), 1000 + assumed, "{odd:?}");
        }
        assert!(expiry(1000, Some(i64::MAX)) < 1_000_000_000_000);
    }

    #[test]
    fn refresh_does_not_change_the_owner() {
        let mut company = token(None, 0);
        company.company_id = Some("company".into());
        let mut location = token(None, 0);
        location.location_id = Some("location".into());
        for older in [company, location] {
            let mut newer = token(None, 1);
            (newer.company_id, newer.location_id) = (Some("else".into()), Some("where".into()));
            for user_type in [None, Some(UserType::Company), Some(UserType::Location)] {
                newer.user_type = user_type;
                let completed = newer.clone().completed_from(&older);
                assert_eq!(completed.kind(), older.kind());
                assert_eq!(completed.resource_id(), older.resource_id());
            }
        }
    }

    #[test]
    fn resource_is_determined_by_the_response() {
        let mut token = token(None, 0);
        token.company_id = Some("company".into());
        token.location_id = Some("location".into());
        assert_eq!(token.resource_id(), Some("location"));
        token.user_type = Some(UserType::Company);
        assert_eq!(token.resource_id(), Some("company"));
    }
}
