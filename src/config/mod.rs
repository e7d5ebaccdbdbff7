//! The configuration schema: its keys and their defaults.

mod backend;
mod encryption_keys;
mod urls;
mod validation;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result, Status};
use crate::json;
use crate::secret::Secret;

pub use backend::Backend;
pub(crate) use urls::absolute_url;
#[cfg(feature = "postgres")]
pub(crate) use urls::is_loopback;

/// How a client reaches the API and keeps its tokens.
///
/// Only the client's id and secret are required; everything else has the default that is named here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The app's client id, `<appId>-<suffix>`.
    pub client_id: String,
    /// The app's client secret.
    pub client_secret: Secret,
    /// Where the consent page sends the browser back to. Default: none; then each call names it.
    #[serde(default)]
    pub redirect_uri: Option<String>,
    /// The scopes that a consent asks for. Default: none; then each call names them.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Where the API lives; may carry a path prefix. Default: `https://services.leadconnectorhq.com`.
    #[serde(default = "default_base_url")]
    pub base_url: String,
    /// The consent page. Default: `https://marketplace.gohighlevel.com/v2/oauth/chooselocation`; the
    /// white-label one is `https://marketplace.leadconnectorhq.com/v2/oauth/chooselocation`.
    #[serde(default = "default_authorize_url")]
    pub authorize_url: String,
    /// The value of the `Version` header. Default: `v3`.
    #[serde(default = "default_api_version")]
    pub api_version: String,
    /// How the body of a token request is written. Default: form.
    #[serde(default)]
    pub token_request_encoding: Encoding,
    /// Where tokens are kept. Default: in memory.
    #[serde(default)]
    pub store: StoreConfig,
    /// How long calls may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What is tried again, and when.
    #[serde(default)]
    pub retry: Retry,
    /// The pace that the API allows each company or location.
    #[serde(default)]
    pub rate_limit: RateLimit,
    /// When tokens are renewed.
    #[serde(default)]
    pub refresh: Refresh,
    /// What is too much.
    #[serde(default)]
    pub limits: Limits,
    /// The transport.
    #[serde(default)]
    pub http: HttpConfig,
    /// Which webhooks are believed.
    #[serde(default)]
    pub webhook: Webhook,
}

/// How the body of a token request is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// `application/x-www-form-urlencoded`, as RFC 6749 has it.
    #[default]
    Form,
    /// `application/json`.
    Json,
}

/// Where tokens are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an object; leave the key out for a store in memory"
)]
pub struct StoreConfig {
    /// `memory` (the default), `sqlite`, `postgres`, or `callbacks` for a store of the host's own.
    pub kind: String,
    /// The database file of `sqlite`.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The database of `postgres`: `postgres://user:password@host:port/database`, percent-encoded; several hosts, separated by
    /// commas, where it moves between servers. TLS is required, unless the host is this machine, or `sslmode=disable` is
    /// given.
    #[serde(default)]
    pub url: Option<Secret>,
    /// A PEM file of certificates that are trusted beside the platform's own for the connection to the database; read when
    /// the client is made. Default: none.
    #[serde(default)]
    pub ca_bundle_path: Option<PathBuf>,
    /// Keys that seal tokens at rest, each the base64 of 32 bytes: the first seals, all open. Default: none.
    #[serde(default)]
    pub encryption_keys: Vec<Secret>,
    /// A file with such keys, one a line, in the place of `encryption_keys`; read once, when the client is made. Default:
    /// none.
    #[serde(default)]
    pub encryption_keys_path: Option<PathBuf>,
    /// Whether a stored token that is not sealed is refused. Default: false, so that a store can come to be sealed.
    #[serde(default)]
    pub sealed_only: bool,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            kind: "memory".into(),
            path: None,
            url: None,
            ca_bundle_path: None,
            encryption_keys: Vec::new(),
            encryption_keys_path: None,
            sealed_only: false,
        }
    }
}

/// How long calls may take, in milliseconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timeouts {
    /// Looking up the name, connecting, what a proxy takes, and the TLS handshake. Default: 10,000.
    pub connect_ms: u64,
    /// The connection and the answer of an attempt to refresh, where that leaves as much for another one; then the same
    /// refresh is sent again. Default: 12,000: two fit into the 30 seconds in which the server gives the same answer twice.
    pub answer_ms: u64,
    /// A whole call, waiting and retries included. Default: 30,000.
    pub total_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { connect_ms: 10_000, answer_ms: 12_000, total_ms: 30_000 }
    }
}

/// What is tried again, and when.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retry {
    /// How often a request is sent at most. Default: 3.
    pub max_attempts: u32,
    /// The longest wait before the second attempt, in milliseconds; doubled for each further one. Default: 200.
    pub base_delay_ms: u64,
    /// No wait is longer, unless the server asks for it. Default: 5,000.
    pub max_delay_ms: u64,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { max_attempts: 3, base_delay_ms: 200, max_delay_ms: 5_000 }
    }
}

/// The pace that the API allows each company or location.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RateLimit {
    /// Requests in any window. Default: 100.
    pub requests: u32,
    /// The window's length in milliseconds. Default: 10,000.
    pub per_ms: u64,
    /// Requests in a day. Default: 200,000.
    pub per_day: u64,
}

impl Default for RateLimit {
    fn default() -> RateLimit {
        RateLimit { requests: 100, per_ms: 10_000, per_day: 200_000 }
    }
}

/// When tokens are renewed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Refresh {
    /// How long before its death a token is renewed at the latest, in seconds; never more than a quarter
    /// of its life. Default: 300.
    pub margin_seconds: u64,
    /// The part of a token's life, in percent, below which maintenance renews it. Default: 25.
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

/// What is too much.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// The longest answer that is read, in bytes. Default: 1,048,576.
    pub response_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { response_bytes: 1 << 20 }
    }
}

/// The transport.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpConfig {
    /// An HTTP proxy, `http://user:password@host:port`, percent-encoded. Default: none; the environment is not read.
    pub proxy: Option<Secret>,
    /// A PEM file of certificates that are trusted beside the platform's own; read when the client is made.
    /// Default: none.
    pub ca_bundle_path: Option<PathBuf>,
    /// Added to the `User-Agent`. Default: none.
    pub user_agent_suffix: Option<String>,
    /// Allows plain HTTP to hosts other than loopback. Default: false.
    pub allow_insecure_http: bool,
}

/// The vendor's Ed25519 key, as third parties transcribe it from the vendor's guide to webhooks: see docs/webhooks.md.
pub const VENDOR_ED25519_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg=\n\
    -----END PUBLIC KEY-----";

/// Which webhooks are believed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Webhook {
    /// The keys that `x-ghl-signature` may be made with: PEM, hex or base64, of the 32 bytes or of the
    /// SubjectPublicKeyInfo. Default: [`VENDOR_ED25519_KEY`].
    pub ed25519_public_keys: Vec<String>,
    /// The keys that the older `x-wh-signature` may be made with: PEM, hex or base64, of the SubjectPublicKeyInfo or of
    /// PKCS#1. Default: none, so that it is not believed.
    pub rsa_public_keys: Vec<String>,
    /// How old a delivery may be, in seconds. Default: any age, since the vendor repeats deliveries for hours.
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
    /// A configuration with every default.
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<String>) -> Config {
        Config {
            client_id: client_id.into(),
            client_secret: Secret::new(client_secret.into()),
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
        }
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an unknown, missing or mistyped key, which it names; `CONFIG` as [`Config::validate`].
    pub fn from_json(text: &str) -> Result<Config> {
        let config: Config = json::read("config_json", text)?;
        config.validate()?;
        Ok(config)
    }

    /// The app's id: the part of the client id before its first `-`.
    pub fn app_id(&self) -> &str {
        self.client_id.split('-').next().unwrap_or(&self.client_id)
    }
}

/// The error of a value that cannot be used.
fn refused(key: &str, why: &str) -> Error {
    Error::new(Status::Config, format!("{key} cannot be used: {why}")).with_parameter(key)
}

/// Makes a path absolute, so that a later change of the working directory leads to no other file.
pub(crate) fn make_absolute(path: &mut PathBuf) {
    if let Ok(absolute) = std::path::absolute(&*path) {
        *path = absolute;
    }
}
