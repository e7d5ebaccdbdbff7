//! The configuration schema: its keys and their defaults.

mod backend;
mod client_secret;
mod encryption_keys;
mod no_proxy;
mod urls;
mod validation;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::error::{Error, Result, Status};
use crate::json;
use crate::secret::Secret;

pub use backend::Backend;
pub(crate) use no_proxy::matches as is_without_proxy;
pub(crate) use urls::{absolute_url, is_loopback};

/// The configuration of a client.
///
/// Only the client ID and the client secret, or a file with it, are required.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The app's client ID, `<appId>-<suffix>`.
    pub client_id: String,
    /// The app's client secret. Empty if `client_secret_file` is set.
    #[serde(default = "no_secret")]
    pub client_secret: Secret,
    /// A file with the client secret, instead of `client_secret`. Read when the client is created,
    /// without the line ends around the secret. Default: none.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// The redirect URI of consents. Default: none; each call must name it.
    #[serde(default)]
    pub redirect_uri: Option<String>,
    /// The scopes that a consent requests. Default: none; each call must name them.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The base URL of the API; may have a path prefix. Default:
    /// `https://services.leadconnectorhq.com`.
    #[serde(default = "default_base_url")]
    pub base_url: String,
    /// The consent page. Default: `https://marketplace.gohighlevel.com/v2/oauth/chooselocation`.
    /// White label: `https://marketplace.leadconnectorhq.com/v2/oauth/chooselocation`.
    #[serde(default = "default_authorize_url")]
    pub authorize_url: String,
    /// The value of the `Version` header. Default: `v3`.
    #[serde(default = "default_api_version")]
    pub api_version: String,
    /// The encoding of token requests. Default: form.
    #[serde(default)]
    pub token_request_encoding: Encoding,
    /// The token store. Default: in memory.
    #[serde(default, deserialize_with = "json::object")]
    pub store: StoreConfig,
    /// Timeouts.
    #[serde(default, deserialize_with = "json::object")]
    pub timeouts: Timeouts,
    /// Retries of requests.
    #[serde(default, deserialize_with = "json::object")]
    pub retry: Retry,
    /// The API's rate limit for each company or location.
    #[serde(default, deserialize_with = "json::object")]
    pub rate_limit: RateLimit,
    /// When tokens are refreshed.
    #[serde(default, deserialize_with = "json::object")]
    pub refresh: Refresh,
    /// Size limits.
    #[serde(default, deserialize_with = "json::object")]
    pub limits: Limits,
    /// HTTP transport.
    #[serde(default, deserialize_with = "json::object")]
    pub http: HttpConfig,
    /// Webhook verification.
    #[serde(default, deserialize_with = "json::object")]
    pub webhook: Webhook,
    /// The page that the browser shows after a consent on the loopback port.
    #[serde(default, deserialize_with = "json::object")]
    pub consent_page: ConsentPage,
}

/// The encoding of a token request's body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// `application/x-www-form-urlencoded`, as RFC 6749 requires.
    #[default]
    Form,
    /// `application/json`.
    Json,
}

/// The kind of a token store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// In memory.
    #[default]
    Memory,
    /// An SQLite database.
    Sqlite,
    /// A PostgreSQL database.
    Postgres,
    /// A custom store, implemented by the host.
    Callbacks,
    /// Not a kind: a name in a document that [`Backend`] refuses.
    #[doc(hidden)]
    Unknown,
}

impl StoreKind {
    /// The `store.kind` in a JSON configuration.
    pub const fn name(self) -> &'static str {
        match self {
            StoreKind::Memory => "memory",
            StoreKind::Sqlite => "sqlite",
            StoreKind::Postgres => "postgres",
            StoreKind::Callbacks => "callbacks",
            StoreKind::Unknown => "",
        }
    }
}

fn store_kind<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<StoreKind, D::Error> {
    use StoreKind::{Callbacks, Memory, Postgres, Sqlite, Unknown};
    let name = String::deserialize(deserializer)?;
    let kinds = [Memory, Sqlite, Postgres, Callbacks];
    Ok(kinds.into_iter().find(|kind| kind.name() == name).unwrap_or(Unknown))
}

/// The token store.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an object; omit the key for a memory store"
)]
pub struct StoreConfig {
    /// The kind of store. Default: memory.
    #[serde(deserialize_with = "store_kind")]
    pub kind: StoreKind,
    /// The database file of `sqlite`.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The database of `postgres`: `postgres://user:password@host:port/database`, percent-encoded.
    /// For failover, list several hosts separated by commas. TLS is required unless the host is
    /// loopback or the URL has `sslmode=disable`.
    #[serde(default)]
    pub url: Option<Secret>,
    /// A PEM file of root certificates to trust in addition to the platform's, for the connection
    /// to the database. Read when the client is created. Default: none.
    #[serde(default)]
    pub ca_bundle_path: Option<PathBuf>,
    /// Keys for encryption at rest, each 32 bytes in base64. The first one encrypts, all decrypt.
    /// Default: none.
    #[serde(default)]
    pub encryption_keys: Vec<Secret>,
    /// A file with one such key per line, instead of `encryption_keys`. Read when the client is
    /// created. Default: none.
    #[serde(default)]
    pub encryption_keys_path: Option<PathBuf>,
    /// Whether to reject stored tokens that are not encrypted. Default: false, so that an existing
    /// store can be encrypted.
    #[serde(default)]
    pub sealed_only: bool,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            kind: StoreKind::Memory,
            path: None,
            url: None,
            ca_bundle_path: None,
            encryption_keys: Vec::new(),
            encryption_keys_path: None,
            sealed_only: false,
        }
    }
}

/// Timeouts in milliseconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timeouts {
    /// Name resolution, connecting, also through a proxy, and the TLS handshake. Default: 10,000.
    pub connect_ms: u64,
    /// One attempt to refresh, connecting included, if enough time for another attempt remains; the
    /// same refresh is then sent again. Default: 12,000, so that two attempts fit into the server's
    /// replay window of 30 s.
    pub answer_ms: u64,
    /// A whole call, including waits and retries. Default: 30,000.
    pub total_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { connect_ms: 10_000, answer_ms: 12_000, total_ms: 30_000 }
    }
}

/// Retries of requests.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retry {
    /// The maximum number of attempts. Default: 3.
    pub max_attempts: u32,
    /// The upper bound of the random delay before the second attempt, in milliseconds; doubled for
    /// each further attempt. Default: 200.
    pub base_delay_ms: u64,
    /// The maximum delay, in milliseconds, unless the server requests a longer one. Default: 5,000.
    pub max_delay_ms: u64,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { max_attempts: 3, base_delay_ms: 200, max_delay_ms: 5_000 }
    }
}

/// The API's rate limit for each company or location.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RateLimit {
    /// Requests per window. Default: 100.
    pub requests: u32,
    /// The length of the sliding window, in milliseconds. Default: 10,000.
    pub per_ms: u64,
    /// Requests per day. Default: 200,000.
    pub per_day: u64,
}

impl Default for RateLimit {
    fn default() -> RateLimit {
        RateLimit { requests: 100, per_ms: 10_000, per_day: 200_000 }
    }
}

/// When tokens are refreshed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Refresh {
    /// The time before expiry, in seconds, from which a call refreshes the token; at most a quarter
    /// of its lifetime. Default: 300.
    pub margin_seconds: u64,
    /// The remaining share of the lifetime, in percent, below which maintenance renews a token.
    /// Default: 25.
    pub runway_percent: u8,
}

impl Default for Refresh {
    fn default() -> Refresh {
        Refresh { margin_seconds: 300, runway_percent: 25 }
    }
}

impl Refresh {
    /// The margin as a duration.
    pub fn margin(&self) -> Duration {
        Duration::from_secs(self.margin_seconds)
    }
}

/// Size limits.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// The longest accepted response, in bytes. Default: 1,048,576.
    pub response_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { response_bytes: 1 << 20 }
    }
}

/// HTTP transport.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpConfig {
    /// An HTTP proxy: `http://user:password@host:port`, percent-encoded. Default: none; environment
    /// variables are ignored.
    pub proxy: Option<Secret>,
    /// Hosts that are reached without the proxy: names, which include the names below them,
    /// suffixes such as `.example.com`, IP addresses, networks such as `10.0.0.0/8`, or `*`.
    /// Default: none.
    pub no_proxy: Vec<String>,
    /// A PEM file of root certificates to trust in addition to the platform's. Read when the client
    /// is created. Default: none.
    pub ca_bundle_path: Option<PathBuf>,
    /// Appended to the `User-Agent` header. Default: none.
    pub user_agent_suffix: Option<String>,
    /// Allows plain HTTP to hosts other than loopback. Default: false.
    pub allow_insecure_http: bool,
}

/// The vendor's Ed25519 key, as third parties quote it from the vendor's webhook guide; see
/// docs/webhooks.md.
pub const VENDOR_ED25519_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg=\n\
    -----END PUBLIC KEY-----";

/// Webhook verification.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Webhook {
    /// The public keys for `x-ghl-signature`: PEM, hex or base64 of the 32 bytes or of the
    /// SubjectPublicKeyInfo. Default: [`VENDOR_ED25519_KEY`].
    pub ed25519_public_keys: Vec<String>,
    /// The public keys for the older `x-wh-signature`: PEM, hex or base64 of the
    /// SubjectPublicKeyInfo or of PKCS#1. Default: none, so that this header is not accepted.
    pub rsa_public_keys: Vec<String>,
    /// The maximum age of a delivery, in seconds. Default: unlimited, because the vendor repeats
    /// deliveries for hours.
    pub max_age_seconds: Option<u64>,
}

impl Default for Webhook {
    fn default() -> Webhook {
        Webhook {
            ed25519_public_keys: vec![VENDOR_ED25519_KEY.into()],
            rsa_public_keys: Vec::new(),
            max_age_seconds: None,
        }
    }
}

/// A language of the consent page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum Language {
    /// `en`
    #[default]
    #[serde(rename = "en")]
    English,
    /// `es`
    #[serde(rename = "es")]
    Spanish,
}

/// The page that the browser shows after a consent on the loopback port. Texts are plain text, not
/// HTML, of at most 100 (titles) or 500 characters (messages).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConsentPage {
    /// The language of the texts that are not configured. Default: English.
    pub language: Language,
    /// The title when the app is connected. Default: `Connected`.
    pub title: Option<String>,
    /// The text when the app is connected. Default: that the window can be closed.
    pub message: Option<String>,
    /// The title when consent was denied or the app could not be connected. Default: `Not
    /// connected`.
    pub failure_title: Option<String>,
    /// The text when consent was denied or the app could not be connected. Default: which of the
    /// two happened.
    pub failure_message: Option<String>,
    /// The colour of the line above the title, `#rrggbb`. Default: grey.
    pub color: Option<String>,
}

fn no_secret() -> Secret {
    Secret::new(String::new())
}

fn default_base_url() -> String {
    "https://services.leadconnectorhq.com".into()
}

fn default_authorize_url() -> String {
    "https://marketplace.gohighlevel.com/v2/oauth/chooselocation".into()
}

fn default_api_version() -> String {
    "v3".into()
}

impl Config {
    /// A configuration with the defaults.
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<String>) -> Config {
        Config {
            client_id: client_id.into(),
            client_secret: Secret::new(client_secret.into()),
            client_secret_file: None,
            redirect_uri: None,
            scopes: Vec::new(),
            base_url: default_base_url(),
            authorize_url: default_authorize_url(),
            api_version: default_api_version(),
            token_request_encoding: Encoding::default(),
            store: StoreConfig::default(),
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            rate_limit: RateLimit::default(),
            refresh: Refresh::default(),
            limits: Limits::default(),
            http: HttpConfig::default(),
            webhook: Webhook::default(),
            consent_page: ConsentPage::default(),
        }
    }

    /// Parses and validates a configuration in JSON.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an unknown, missing or mistyped key; `CONFIG` as
    /// [`Config::validate`].
    pub fn from_json(text: &str) -> Result<Config> {
        let config: Config = json::read("config_json", text)?;
        config.refuse_missing_secret(text)?;
        config.validate()?;
        Ok(config)
    }

    /// The app's ID: the part of the client ID before its first `-`.
    pub fn app_id(&self) -> &str {
        self.client_id.split('-').next().unwrap_or(&self.client_id)
    }
}

/// The error for an invalid value.
fn refused(key: &str, why: &str) -> Error {
    Error::new(Status::Config, format!("{key} cannot be used: {why}")).with_parameter(key)
}

/// The maximum size of a file with secrets. A device such as `/dev/zero` has no end.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// Reads a file that a key names.
fn read_file(key: &str, path: &Path) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let read =
        File::open(path).and_then(|file| file.take(MAX_SECRET_FILE + 1).read_to_string(&mut text));
    if text.len() as u64 > MAX_SECRET_FILE {
        let why = format!("{} is larger than {} KiB", path.display(), MAX_SECRET_FILE / 1024);
        return Err(refused(key, &why));
    }
    read.map(|_| text).map_err(|error| {
        let message = format!("{key} cannot be used: {} cannot be read: {error}", path.display());
        let help = "check the path and the permissions of the file";
        Error::of_file(Status::Config, message, &error, help).with_parameter(key)
    })
}

/// Makes a path absolute, so that it names the same file after the working directory changes.
pub(crate) fn make_absolute(path: &mut PathBuf) {
    if let Ok(absolute) = std::path::absolute(&*path) {
        *path = absolute;
    }
}
