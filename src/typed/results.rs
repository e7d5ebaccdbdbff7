//! The typed results, parsed from the JSON documents of the core.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::error::{Error, Result, Status};
use crate::request::{BodyDocument, ResponseDocument};
use crate::secret::Secret;
use crate::token::UserType;

/// A time from milliseconds since the epoch; `None` if `SystemTime` cannot represent it.
fn moment(epoch_ms: i64) -> Option<SystemTime> {
    let distance = Duration::from_millis(epoch_ms.unsigned_abs());
    if epoch_ms < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}

fn read_moment<'de, D: Deserializer<'de>>(source: D) -> Result<Option<SystemTime>, D::Error> {
    Ok(Option::<i64>::deserialize(source)?.and_then(moment))
}

/// Defines a result that is parsed from a document. In unit tests, unknown keys are refused.
macro_rules! result {
    ($(#[$attribute:meta])* $name:ident {
        $($(#[$field_attribute:meta])* $field:ident: $type:ty,)+
    }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[cfg_attr(test, serde(deny_unknown_fields))]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_attribute])* pub $field: $type,)+
        }
    };
}

result! {
    /// The URL of the consent page and the `state` of its redirect.
    AuthorizationUrl {
        /// The URL for the user's browser.
        url: String,
        /// The `state`. Keep it in the browser's session if another process may complete the
        /// consent.
        state: Secret,
    }
}

/// The state of a stored token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum TokenState {
    /// The token is valid or can be refreshed.
    Ok,
    /// The location is paused. Its token is kept.
    Inactive,
    /// The user must consent again.
    ReauthorizationRequired,
    /// The token is newer than the stored one, because it could not be saved.
    Unsaved,
    /// The deleted record could not be read: only its ID is known.
    Unreadable,
}

result! {
    /// The metadata of a stored token, without secrets.
    TokenInfo {
        /// The company or location that the token belongs to.
        resource_id: String,
        /// The kind of the resource.
        user_type: Option<UserType>,
        /// The company.
        company_id: Option<String>,
        /// The location, if the token is a location's.
        location_id: Option<String>,
        /// The granted scopes, separated by spaces.
        scope: Option<String>,
        /// When the access token expires.
        #[serde(default, deserialize_with = "read_moment")]
        expires_at: Option<SystemTime>,
        /// Whether the token can be renewed without a new consent.
        #[serde(default)]
        refreshable: bool,
        /// Its state.
        state: TokenState,
        /// When the API last granted a token; `None` if that is unknown, as after an import.
        #[serde(default, deserialize_with = "read_moment")]
        last_success_at: Option<SystemTime>,
        /// The last failed renewal; `None` if the last one succeeded.
        last_failure: Option<LastFailure>,
    }
}

result! {
    /// The last failed renewal of a token. A success ends it.
    LastFailure {
        /// The first failure since the last success.
        #[serde(deserialize_with = "read_moment")]
        first_at: Option<SystemTime>,
        /// The newest failure.
        #[serde(deserialize_with = "read_moment")]
        at: Option<SystemTime>,
        /// Failed attempts since the last success. A failed mint is counted about once a minute.
        attempts: u64,
        /// The kind of the failure.
        #[serde(deserialize_with = "read_status")]
        status: Status,
        /// The server's message if there is one, otherwise the error's; at most 200 bytes.
        message: String,
        /// The HTTP status, if a response arrived.
        http_status: Option<u16>,
        /// The server's ID of the request, for the vendor's support.
        trace_id: Option<String>,
        /// The earliest time of the next attempt; `None` if only a consent or an import helps.
        #[serde(deserialize_with = "read_moment")]
        next_attempt_at: Option<SystemTime>,
    }
}

fn read_status<'de, D: Deserializer<'de>>(source: D) -> Result<Status, D::Error> {
    Ok(Status::from_name(&String::deserialize(source)?).unwrap_or(Status::Internal))
}

result! {
    /// A token that could not be renewed, minted, saved or read.
    FailedToken {
        /// The company or location; `None` if the error concerns an encryption key of the store,
        /// and thus many tokens.
        #[serde(alias = "locationId")]
        resource_id: Option<String>,
        /// The reason.
        #[serde(deserialize_with = "read_error")]
        error: Error,
    }
}

fn read_error<'de, D: Deserializer<'de>>(source: D) -> Result<Error, D::Error> {
    Ok(Error::from_json(&Value::deserialize(source)?))
}

result! {
    /// A page of tokens.
    TokenPage {
        /// The tokens.
        items: Vec<TokenInfo>,
        /// [`ListParams::page_token`](crate::params::ListParams::page_token) of the next page;
        /// `None` after the last page.
        next_page_token: Option<String>,
        /// Stored records that cannot be read.
        #[serde(default)]
        failed: Vec<FailedToken>,
    }
}

/// A page of tokens with their secrets, which `Debug` hides.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Exported {
    /// One object per token, in the form that
    /// [`Client::tokens_import`](crate::Client::tokens_import) accepts.
    pub tokens: Vec<Map<String, Value>>,
    /// [`ListParams::page_token`](crate::params::ListParams::page_token) of the next page; `None`
    /// after the last page.
    pub next_page_token: Option<String>,
    /// Stored records that cannot be read.
    #[serde(default)]
    pub failed: Vec<FailedToken>,
}

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exported { tokens, next_page_token, failed } = self;
        f.debug_struct("Exported")
            .field("tokens", &tokens.len())
            .field("next_page_token", next_page_token)
            .field("failed", failed)
            .finish()
    }
}

result! {
    /// A token that an import skipped.
    SkippedToken {
        /// Its index in the list that was passed.
        index: usize,
        /// The company or location, if it names one.
        resource_id: Option<String>,
        /// The reason.
        reason: String,
    }
}

result! {
    /// A token that an import would store.
    AcceptedToken {
        /// Its index in the list that was passed.
        index: usize,
        /// The company or location.
        resource_id: String,
        /// Whether a token is stored already.
        replaces: bool,
    }
}

result! {
    /// The result of an import.
    ImportReport {
        /// How many tokens were stored.
        imported: u64,
        /// The tokens that were skipped.
        skipped: Vec<SkippedToken>,
        /// The tokens that would be stored, if the import was a dry run.
        #[serde(default)]
        accepted: Vec<AcceptedToken>,
    }
}

result! {
    /// A token that an adoption skipped.
    UnadoptedToken {
        /// The company or location.
        resource_id: String,
        /// The reason.
        reason: String,
    }
}

result! {
    /// A client ID with tokens in the database.
    ClientTokens {
        /// The client ID.
        client_id: String,
        /// How many tokens it has.
        tokens: u64,
    }
}

result! {
    /// The result of an adoption.
    AdoptReport {
        /// How many tokens were moved, or would be.
        adopted: u64,
        /// The tokens that were skipped.
        skipped: Vec<UnadoptedToken>,
        /// Stored records that cannot be read.
        failed: Vec<FailedToken>,
        /// Other client IDs with tokens in the database.
        clients: Vec<ClientTokens>,
    }
}

result! {
    /// The progress of minting many locations.
    MintProgress {
        /// How many locations have a token now.
        done: u64,
        /// How many failed.
        failed: u64,
        /// The number of locations; `None` while unknown.
        total: Option<u64>,
        /// The current rate of mints per second.
        per_second: f64,
        /// The estimated remaining time in seconds; `None` while unknown.
        seconds_left: Option<u64>,
    }
}

result! {
    /// The result of minting many locations.
    MintReport {
        /// How many locations were processed.
        total: u64,
        /// How many got a new token.
        minted: u64,
        /// How many had a token that was not due.
        fresh: u64,
        /// The locations that failed.
        failed: Vec<FailedToken>,
    }
}

result! {
    /// The progress of a maintenance pass.
    MaintainProgress {
        /// How many due tokens have been processed.
        checked: u64,
        /// How many were refreshed.
        refreshed: u64,
        /// How many records were re-encrypted with the store's first key.
        resealed: u64,
        /// How many failed.
        failed: u64,
    }
}

result! {
    /// The result of a maintenance pass.
    MaintainReport {
        /// How many tokens were due.
        checked: u64,
        /// How many of them were refreshed.
        refreshed: u64,
        /// How many records were re-encrypted with the store's first key.
        resealed: u64,
        /// How many records could not be re-encrypted.
        unsealed: u64,
        /// Tokens that could not be refreshed, and new tokens that could not be saved.
        failed: Vec<FailedToken>,
        /// When the next token is due; `None` if no token can be renewed.
        #[serde(deserialize_with = "read_moment")]
        next_due_at: Option<SystemTime>,
    }
}

/// A location of a company.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Location {
    /// Its ID, for [`Client::access_token`](crate::Client::access_token).
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Whether the app is installed there, if the API says so.
    pub is_installed: Option<bool>,
    /// All fields that the API sent.
    pub fields: Map<String, Value>,
}

/// A page of a company's locations.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LocationPage {
    /// The locations. Items without an ID are omitted.
    pub items: Vec<Location>,
    /// [`page_token`](crate::params::InstalledLocationsParams::page_token)
    /// of the next page; `None` after the last page.
    pub next_page_token: Option<String>,
    /// All other fields that the API sent.
    pub fields: Map<String, Value>,
}

impl From<Map<String, Value>> for LocationPage {
    fn from(mut page: Map<String, Value>) -> LocationPage {
        let next_page_token = next_page_token(&page).filter(|_| says_more(&page).unwrap_or(true));
        let items = match page.remove("items") {
            Some(Value::Array(items)) => items.into_iter().filter_map(location).collect(),
            _ => Vec::new(),
        };
        LocationPage { items, next_page_token, fields: page }
    }
}

fn next_page_token(page: &Map<String, Value>) -> Option<String> {
    let token = page.get("pagination")?.get("nextPageToken")?.as_str()?;
    Some(token.to_owned()).filter(|token| !token.is_empty())
}

/// The API sends some of its booleans as strings.
fn flag(value: Option<&Value>) -> Option<bool> {
    value
        .filter(|value| !value.is_null())
        .map(|value| matches!(value, Value::Bool(true)) || value == "true")
}

fn says_more(page: &Map<String, Value>) -> Option<bool> {
    flag(page.get("pagination")?.get("hasNextPage"))
}

fn location(item: Value) -> Option<Location> {
    let Value::Object(fields) = item else { return None };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let is_installed = flag(fields.get("isInstalled"));
    let id = text("_id").filter(|id| !id.is_empty())?;
    Some(Location { id, name: text("name"), is_installed, fields })
}

/// The body of a response.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Body {
    /// Valid JSON with a JSON content type.
    Json(Value),
    /// Other UTF-8 text.
    Text(String),
    /// Other bytes.
    Bytes(Vec<u8>),
}

/// The response of the API to a request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The values of `Set-Cookie`, one per header.
    pub set_cookies: Vec<String>,
    /// The body.
    pub body: Body,
    /// The body as it was received, if it is JSON: every digit, and the order of the keys.
    pub json_text: Option<String>,
}

impl Response {
    pub(super) fn new(answer: ResponseDocument) -> Response {
        let ResponseDocument { status, headers, set_cookies, body } = answer;
        let text = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let headers = headers.into_iter().map(|(name, value)| (name, text(value))).collect();
        let mut json_text = None;
        let body = match body {
            BodyDocument::Json(raw) => {
                let parsed = serde_json::from_str(raw.get());
                let text = String::from(Box::<str>::from(raw));
                // A number can be beyond the range of f64.
                let body = parsed.map_or_else(|_| Body::Text(text.clone()), Body::Json);
                json_text = Some(text);
                body
            }
            BodyDocument::Text(text) => Body::Text(text),
            BodyDocument::Bytes(bytes) => Body::Bytes(bytes.to_vec()),
        };
        Response { status, headers, set_cookies, body, json_text }
    }
}

result! {
    /// A delivery with a valid signature.
    Webhook {
        /// `INSTALL`, `ContactCreate` and so on.
        #[serde(rename = "type")]
        kind: Option<String>,
        /// The delivery's ID, which its repetitions share.
        webhook_id: Option<String>,
        /// The time of the event, if the delivery has one.
        #[serde(rename = "timestampMs", deserialize_with = "read_moment")]
        timestamp: Option<SystemTime>,
        /// `ed25519` or `rsa-sha256`.
        scheme: String,
        /// The index of the key among the configured keys of its scheme.
        key_index: usize,
        /// The body.
        payload: Map<String, Value>,
    }
}

result! {
    /// The effect of a delivery on the stored tokens.
    WebhookOutcome {
        /// `INSTALL`, `ContactCreate` and so on.
        #[serde(rename = "type")]
        kind: Option<String>,
        /// The location or the company, if the delivery names one.
        resource_id: Option<String>,
        /// Whether the delivery changed something.
        applied: bool,
        /// Why it changed nothing, or what remains to be done.
        #[serde(default)]
        reason: Option<String>,
    }
}

result! {
    /// A change in the life of a token: IDs and times, never a secret.
    Event {
        /// `token.saved`, `token.refreshed`, `token.minted`, `token.deleted`,
        /// `token.reauthorizationRequired`, `token.refreshFailed` or `token.unsaved`.
        #[serde(rename = "type")]
        kind: String,
        /// The company or location.
        resource_id: String,
        /// When it happened.
        #[serde(deserialize_with = "read_moment")]
        at: Option<SystemTime>,
        /// When the access token expires.
        #[serde(deserialize_with = "read_moment")]
        expires_at: Option<SystemTime>,
        /// The reason, if something failed.
        #[serde(default, deserialize_with = "read_reason")]
        error: Option<Error>,
        /// The failure as the token's record has it, for `token.refreshFailed` and
        /// `token.reauthorizationRequired`.
        last_failure: Option<LastFailure>,
    }
}

fn read_reason<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Error>, D::Error> {
    read_error(source).map(Some)
}

result! {
    /// Statistics of a client in one process, since the client was created.
    Statistics {
        /// The version of the library.
        version: String,
        /// Requests to the API.
        requests: RequestStatistics,
        /// Tokens.
        tokens: TokenStatistics,
        /// The rate limiter.
        pace: RateLimiterStatistics,
    }
}

result! {
    /// Counts of requests to the API.
    RequestStatistics {
        /// Attempts, including repetitions.
        sent: u64,
        /// Attempts that were repetitions.
        repeated: u64,
        /// Attempts without a response.
        unanswered: u64,
        /// Responses with status 429.
        rate_limited: u64,
    }
}

result! {
    /// Counts of tokens.
    TokenStatistics {
        /// Access tokens in memory now.
        in_memory: u64,
        /// New tokens that the store has not accepted yet.
        unsaved: u64,
        /// Successful refreshes.
        refreshed: u64,
        /// Location tokens minted.
        minted: u64,
        /// Failed refreshes and mints.
        failed: u64,
        /// The same by the name of the status, without zeros.
        failed_by_status: BTreeMap<String, u64>,
    }
}

result! {
    /// The state of the rate limiter.
    RateLimiterStatistics {
        /// Companies and locations that it tracks.
        resources: u64,
        /// Calls that wait for it now.
        waiting: u64,
        /// Companies and locations that a 429 blocks now.
        held: u64,
        /// Up to 20 companies and locations: blocked ones first, then the busiest.
        busiest: Vec<BusyResource>,
    }
}

result! {
    /// The rate limiter's state for a company or location.
    BusyResource {
        /// The company or location.
        resource_id: String,
        /// Requests in the current window.
        in_window: u64,
        /// The number allowed per window.
        requests: u64,
        /// The length of the window, in milliseconds.
        per_ms: u64,
        /// Requests today.
        today: u64,
        /// The number allowed per day.
        per_day: u64,
        /// Calls that wait.
        waiting: u64,
        /// How many milliseconds the last 429 still blocks requests.
        held_for_ms: Option<u64>,
    }
}
