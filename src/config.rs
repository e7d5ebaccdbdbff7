//! The configuration object: its keys, their defaults, and what is refused.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::Uri;
use zeroize::Zeroizing;

use crate::error::{Error, Result, Status};
use crate::json;
use crate::secret::Secret;
use crate::token::{NO_SCOPE, is_scope};

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
    /// Whether the database of `sqlite` must not be made: in a forked child, whose parent had it open. No key of the
    /// JSON form.
    #[serde(skip)]
    pub must_be_there: bool,
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
            must_be_there: false,
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

    /// Checks what types alone cannot.
    ///
    /// # Errors
    /// `CONFIG`, naming the key.
    pub fn validate(&self) -> Result<()> {
        one_word("clientId", &self.client_id)?;
        one_word("clientSecret", self.client_secret.expose())?;
        if let Some(redirect_uri) = &self.redirect_uri {
            absolute("redirectUri", redirect_uri)?;
        }
        if !self.scopes.iter().all(|scope| is_scope(scope)) {
            return Err(refused("scopes", NO_SCOPE));
        }
        self.reachable("baseUrl", &self.base_url)?;
        self.reachable("authorizeUrl", &self.authorize_url)?;
        if self.base_url.contains(['?', '#']) {
            return Err(refused("baseUrl", "it may have a path, but no query and no fragment"));
        }
        header_text("apiVersion", &self.api_version)?;
        if let Some(suffix) = &self.http.user_agent_suffix {
            header_text("http.userAgentSuffix", suffix)?;
        }
        in_range("timeouts.connectMs", self.timeouts.connect_ms, 1, 600_000)?;
        in_range("timeouts.answerMs", self.timeouts.answer_ms, 1, 600_000)?;
        in_range("timeouts.totalMs", self.timeouts.total_ms, 1, 600_000)?;
        in_range("retry.maxAttempts", self.retry.max_attempts.into(), 1, 20)?;
        in_range("retry.baseDelayMs", self.retry.base_delay_ms, 0, 600_000)?;
        in_range("retry.maxDelayMs", self.retry.max_delay_ms, 0, 600_000)?;
        in_range("rateLimit.requests", self.rate_limit.requests.into(), 1, 1_000_000)?;
        in_range("rateLimit.perMs", self.rate_limit.per_ms, 1, 86_400_000)?;
        in_range("rateLimit.perDay", self.rate_limit.per_day, 1, u64::MAX)?;
        in_range("refresh.marginSeconds", self.refresh.margin_seconds, 0, 86_400)?;
        in_range("refresh.runwayPercent", self.refresh.runway_percent.into(), 0, 90)?;
        in_range("limits.responseBytes", self.limits.response_bytes, 1024, 1 << 30)?;
        if let Some(seconds) = self.webhook.max_age_seconds {
            in_range("webhook.maxAgeSeconds", seconds, 1, 31_536_000)?;
        }
        self.store.validate()
    }

    /// A URL that the library, or the person's browser, is sent to: TLS, unless it stays on this machine.
    fn reachable(&self, key: &str, url: &str) -> Result<()> {
        let uri = absolute(key, url)?;
        let host = uri.host().unwrap_or_default();
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(refused(key, "it must not carry a user name or password"));
        }
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if is_loopback(host) || self.http.allow_insecure_http => Ok(()),
            Some("http") => Err(refused(key, "plain http is accepted for loopback hosts only")
                .with_help("use https, or set http.allowInsecureHttp to true on a network you trust")),
            _ => Err(refused(key, "its scheme must be https")),
        }
    }
}

impl StoreConfig {
    /// The keys that seal tokens at rest, as texts, and the configuration's key that they come from.
    ///
    /// # Errors
    /// `CONFIG` for a file that cannot be read, and where there must be a key and is none.
    pub fn keys(&self) -> Result<(Vec<Secret>, &'static str)> {
        let (keys, named) = match &self.encryption_keys_path {
            None => (self.encryption_keys.clone(), "store.encryptionKeys"),
            Some(path) => (read_keys(path)?, "store.encryptionKeysPath"),
        };
        if keys.is_empty() && self.encryption_keys_path.is_some() {
            return Err(refused(named, "there is no key in the file"));
        }
        if keys.is_empty() && self.sealed_only {
            return Err(refused("store.sealedOnly", "there is no key to seal with"));
        }
        Ok((keys, named))
    }

    fn validate(&self) -> Result<()> {
        let path = self.path.as_ref().filter(|path| !path.as_os_str().is_empty());
        match self.kind.as_str() {
            "memory" | "postgres" | "callbacks" if self.path.is_some() => {
                return Err(refused("store.path", &format!("a {} store has no path", self.kind)));
            }
            "memory" | "sqlite" | "callbacks" if self.url.is_some() => {
                return Err(refused("store.url", &format!("a {} store has no URL", self.kind)));
            }
            "memory" | "sqlite" | "callbacks" if self.ca_bundle_path.is_some() => {
                return Err(refused("store.caBundlePath", &format!("a {} store has no server", self.kind)));
            }
            "memory" if !self.encryption_keys.is_empty() => {
                return Err(refused("store.encryptionKeys", "a memory store has nothing to seal"));
            }
            "memory" if self.encryption_keys_path.is_some() => {
                return Err(refused("store.encryptionKeysPath", "a memory store has nothing to seal"));
            }
            "sqlite" if cfg!(not(feature = "sqlite")) => {
                return Err(refused("store.kind", "this build of the library has no SQLite"));
            }
            "sqlite" if path.is_none() => {
                return Err(refused("store.path", "an SQLite store needs the path of its file"));
            }
            "sqlite" if path.is_some_and(|path| is_url(path)) => {
                // It is never quoted: it may hold a password.
                return Err(refused("store.path", "it is a URL, and must be the path of a file")
                    .with_help("for PostgreSQL, let store.kind be \"postgres\", and store.url begin with postgres:// or postgresql://"));
            }
            "sqlite" if path.is_some_and(|path| names_no_file(path)) => {
                return Err(refused("store.path", "it must be the path of a file, no name of SQLite's own")
                    .with_help("give the plain path of a file; a \"memory\" store keeps tokens in memory"));
            }
            "postgres" if cfg!(not(feature = "postgres")) => {
                return Err(refused("store.kind", "this build of the library has no PostgreSQL"));
            }
            "postgres" if self.url.as_ref().is_none_or(|url| url.expose().is_empty()) => {
                return Err(refused("store.url", "a PostgreSQL store needs the URL of its database"));
            }
            "postgres" if !self.url.as_ref().is_some_and(|url| is_postgres(url.expose())) => {
                // It is never quoted: it may hold a password.
                return Err(refused("store.url", "it must begin with postgres:// or postgresql://")
                    .with_help("leave the name of a driver out, as in postgresql+psycopg2://"));
            }
            "memory" | "sqlite" | "postgres" | "callbacks" => {}
            _ => {
                return Err(refused(
                    "store.kind",
                    "it must be \"memory\", \"sqlite\", \"postgres\" or \"callbacks\"",
                ));
            }
        }
        if !self.encryption_keys.is_empty() && self.encryption_keys_path.is_some() {
            return Err(refused("store.encryptionKeysPath", "store.encryptionKeys is given as well"));
        }
        Ok(())
    }
}

/// Whether SQLite would take it for something else than the path of a file: memory, a temporary file, or a URI with options.
fn names_no_file(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.starts_with(':') || text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
}

/// Whether a path begins with a scheme of two letters or more; one letter is a disk of Windows.
fn is_url(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
}

fn is_postgres(url: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme))
}

/// The keys of a file, one a line.
fn read_keys(path: &Path) -> Result<Vec<Secret>> {
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        refused("store.encryptionKeysPath", &format!("{} cannot be read: {error}", path.display()))
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(|line| Secret::new(line.to_owned())).collect())
}

/// Whether a host of a URL, with or without the brackets of IPv6, is this machine itself: what is said to it in clear, nobody
/// else can read.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn absolute(key: &str, url: &str) -> Result<Uri> {
    absolute_url(url).ok_or_else(|| refused(key, "it must be an absolute URL"))
}

/// A URL with a scheme, a host, and a port that is a number where there is one. A port that is none must not count as
/// absent: the default would stand in for it.
pub(crate) fn absolute_url(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.scheme().and(uri.authority())?;
    let (host, address) = (authority.host(), authority.as_str().rsplit('@').next()?);
    let has_port = address.len() > host.len();
    (!host.is_empty() && has_port == authority.port_u16().is_some()).then_some(uri)
}

/// The API's ids and secrets do not begin or end with white space: one that does was copied badly.
fn one_word(key: &str, value: &str) -> Result<()> {
    not_blank(key, value)?;
    if value.trim() != value || value.chars().any(char::is_control) {
        return Err(refused(key, "it must not begin or end with white space, or hold a control character"));
    }
    Ok(())
}

fn not_blank(key: &str, value: &str) -> Result<()> {
    if value.trim().is_empty() { Err(refused(key, "it must not be empty")) } else { Ok(()) }
}

fn header_text(key: &str, value: &str) -> Result<()> {
    not_blank(key, value)?;
    if value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        Ok(())
    } else {
        Err(refused(key, "it must be printable ASCII"))
    }
}

fn in_range(key: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(refused(key, &format!("it must be from {least} to {most}")))
    }
}

fn refused(key: &str, why: &str) -> Error {
    Error::new(Status::Config, format!("{key} cannot be used: {why}")).with_parameter(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(more: &str) -> Error {
        let text = format!("{{\"clientId\":\"app-1\",\"clientSecret\":\"s\"{more}}}");
        Config::from_json(&text).err().unwrap_or_else(|| panic!("{text} was accepted"))
    }

    #[test]
    fn the_defaults_need_two_keys_only() {
        let config = Config::from_json(r#"{"clientId":"app-1","clientSecret":"s"}"#).unwrap();
        assert_eq!(config.app_id(), "app");
        assert_eq!(config.base_url, "https://services.leadconnectorhq.com");
        assert_eq!(config.timeouts.total_ms, 30_000);
        assert_eq!(config.store.kind, "memory");
    }

    #[test]
    fn refusals_name_the_key() {
        for (more, key) in [
            (r#","baseUrl":"http://services.example""#, "baseUrl"),
            (r#","baseUrl":"services.example""#, "baseUrl"),
            (r#","baseUrl":"ftp://services.example""#, "baseUrl"),
            (r#","baseUrl":"https://services.example:44s""#, "baseUrl"),
            (r#","redirectUri":"https://app.example:65536/callback""#, "redirectUri"),
            (r#","baseUrl":"https://user:pass@services.example""#, "baseUrl"),
            (r#","baseUrl":"https://services.example/?a=b""#, "baseUrl"),
            (r#","authorizeUrl":"http://services.example""#, "authorizeUrl"),
            (r#","redirectUri":"/callback""#, "redirectUri"),
            (r#","scopes":["a b"]"#, "scopes"),
            (r#","store":{"kind":"floppy"}"#, "store.kind"),
            (r#","store":{"kind":"memory","path":"x"}"#, "store.path"),
            (r#","store":{"kind":"sqlite"}"#, "store.path"),
            (r#","store":{"kind":"sqlite","path":""}"#, "store.path"),
            (r#","store":{"kind":"sqlite","path":":memory:"}"#, "store.path"),
            (r#","store":{"kind":"sqlite","path":"sqlite:///tokens.db"}"#, "store.path"),
            (r#","store":{"kind":"sqlite","path":"file:tokens.db?mode=memory"}"#, "store.path"),
            (r#","store":{"kind":"sqlite","path":"FILE::memory:"}"#, "store.path"),
            (r#","timeouts":{"totalMs":0}"#, "timeouts.totalMs"),
            (r#","retry":{"maxAttempts":0}"#, "retry.maxAttempts"),
            (r#","rateLimit":{"requests":0}"#, "rateLimit.requests"),
            (r#","refresh":{"runwayPercent":100}"#, "refresh.runwayPercent"),
            (r#","limits":{"responseBytes":1}"#, "limits.responseBytes"),
            (r#","webhook":{"maxAgeSeconds":0}"#, "webhook.maxAgeSeconds"),
            (r#","apiVersion":"v3\r\nX: y""#, "apiVersion"),
        ] {
            let error = refusal(more);
            assert_eq!((error.status(), error.parameter()), (Status::Config, Some(key)), "{more}: {error}");
        }
        assert_eq!(refusal(r#","colour":1"#).parameter(), Some("colour"));
        assert_eq!(refusal(r#","store":{"kind":"memory","size":1}"#).parameter(), Some("store.size"));
        assert_eq!(Config::from_json(r#"{"clientId":"a"}"#).unwrap_err().parameter(), Some("clientSecret"));
        let blank = Config::from_json(r#"{"clientId":" ","clientSecret":"s"}"#).unwrap_err();
        assert_eq!((blank.status(), blank.parameter()), (Status::Config, Some("clientId")));
        for (id, secret, key) in [
            ("a-1\\n", "hunter2", "clientId"),
            (" a-1", "hunter2", "clientId"),
            ("a-1", "hunter2 ", "clientSecret"),
            ("a-1", "hun\\u0000ter2", "clientSecret"),
        ] {
            let text = format!(r#"{{"clientId":"{id}","clientSecret":"{secret}"}}"#);
            let error = Config::from_json(&text).unwrap_err();
            assert_eq!((error.status(), error.parameter()), (Status::Config, Some(key)), "{error}");
            assert!(!error.to_string().contains("hun"), "{error}");
        }
    }

    #[test]
    fn store_that_is_null_is_refused_by_name() {
        let error = refusal(r#","store":null"#);
        assert_eq!((error.status(), error.parameter()), (Status::InvalidArgument, Some("store")));
        assert!(error.message().contains("leave the key out"), "{error}");
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn store_url_of_another_scheme_is_refused_without_its_password() {
        for url in [
            "postgresql+psycopg2://user:hush-hush@host/database",
            "mysql://user:hush-hush@host/database",
            "user:hush-hush@host/database",
            " postgres://user:hush-hush@host/database",
        ] {
            let error = refusal(&format!(r#","store":{{"kind":"postgres","url":"{url}"}}"#));
            assert_eq!((error.status(), error.parameter()), (Status::Config, Some("store.url")), "{url}");
            let said = format!("{error:?} {error} {}", error.help().unwrap_or_default());
            assert!(said.contains("postgresql://") && !said.contains("hush"), "{said}");
        }
        let error = refusal(r#","store":{"kind":"sqlite","path":"postgres://user:hush-hush@host/db"}"#);
        assert_eq!((error.status(), error.parameter()), (Status::Config, Some("store.path")));
        assert!(!format!("{error:?} {error}").contains("hush"), "{error}");
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for host in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"] {
            let mut config = Config::new("app-1", "s");
            config.base_url = format!("http://{host}/v3");
            assert!(config.validate().is_ok(), "{host}");
        }
        let mut config = Config::new("app-1", "s");
        config.base_url = "http://127.0.0.1.example".into();
        assert!(config.validate().is_err());
        config.http.allow_insecure_http = true;
        assert!(config.validate().is_ok());
    }
}
