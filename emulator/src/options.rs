//! Start options, and the settings that can change at run time.

use crate::behaviour::{Behaviour, DailyReset, FieldNames};
use crate::certificate::Certificate;
use crate::complaint::Complaint;
use crate::retry::RetryRule;
use crate::webhook_delivery::parts_of;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The start options of an emulator.
#[derive(Debug, Clone)]
pub struct Options {
    /// The port on 127.0.0.1 or ::1; 0 selects a free one.
    pub port: u16,
    /// Whether to listen on ::1 instead of 127.0.0.1.
    pub ipv6: bool,
    /// The TLS certificate; `None` serves plain HTTP.
    pub tls: Option<Certificate>,
    /// The file for the CA certificate of `tls`. The generated configuration names this file.
    pub ca_file: Option<PathBuf>,
    /// The number of companies (agencies), at least one.
    pub companies: usize,
    /// The number of locations per company.
    pub locations: usize,
    /// The lifetime of access tokens. With zero or less, tokens are issued expired.
    pub access_token_seconds: i64,
    /// The replay window: how long a used refresh token returns the tokens that replaced it; 0
    /// turns it off.
    pub reuse_window_seconds: u64,
    /// Whether a minted location token includes a refresh token.
    pub location_refresh_tokens: bool,
    /// The rate limit per company or location; `None` removes it.
    pub rate_limit: Option<RateLimit>,
    /// The redirect URIs registered for the app. The first is
    /// [`Emulator::redirect_uri`](crate::Emulator::redirect_uri). An empty list selects the
    /// emulator's landing page, which shows the URL for the app.
    pub redirect_uris: Vec<String>,
    /// Whether loopback `http://` redirect URIs are accepted without registration. The real portal
    /// refuses them.
    pub allow_loopback_redirects: bool,
    /// Whether the portal's rule applies: a redirect URI must not contain `ghl` or `highlevel`.
    pub portal_redirect_rules: bool,
    /// Whether the app is a draft: the consent page then requires `version_id`, as for draft and
    /// private apps.
    pub require_version_id: bool,
    /// The scopes registered for the app. Consent may request only these.
    pub scopes: Vec<String>,
    /// The webhook receiver, `http://HOST:PORT/…`; `None` sends no webhooks.
    pub webhook_url: Option<String>,
    /// Observed API behaviours that differ from the API description.
    pub behaviour: Behaviour,
    /// Seed of the IDs, the client secret and the webhooks' Ed25519 key: the same seed gives the
    /// same values.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            ipv6: false,
            tls: None,
            ca_file: None,
            companies: 1,
            locations: 25,
            access_token_seconds: 86_399,
            reuse_window_seconds: 30,
            location_refresh_tokens: true,
            rate_limit: Some(RateLimit::default()),
            redirect_uris: vec!["https://app.example/oauth/callback".to_owned()],
            allow_loopback_redirects: false,
            portal_redirect_rules: false,
            require_version_id: false,
            scopes: [
                "oauth.readonly",
                "oauth.write",
                "locations.readonly",
                "contacts.readonly",
                "contacts.write",
                "calendars.readonly",
                "calendars.write",
                "conversations.readonly",
                "conversations.write",
                "conversations/message.readonly",
                "conversations/message.write",
                "opportunities.readonly",
                "opportunities.write",
                "users.readonly",
                "workflows.readonly",
            ]
            .map(str::to_owned)
            .to_vec(),
            webhook_url: None,
            behaviour: Behaviour::default(),
            seed: 1,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> io::Result<()> {
        let complaint = if self.companies == 0 {
            "there must be at least one company"
        } else if self.ca_file.is_some() && self.tls.is_none() {
            "without TLS there is no CA to write to a file"
        } else if self.scopes.is_empty() {
            "there must be at least one scope"
        } else if self.rate_limit.is_some_and(|limit| limit.per_ms == 0) {
            "the interval of the rate limit must not be zero"
        } else if !is_receiver(self.webhook_url.as_deref()) {
            "the webhook URL must be http://HOST:PORT/PATH"
        } else if let Err(complaint) = self.behaviour.check() {
            complaint
        } else if let Some((uri, word)) = self.forbidden_redirect() {
            let complaint =
                format!("the portal refuses the redirect URI {uri}: it contains {word}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, complaint));
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, complaint))
    }

    /// A redirect URI that the portal's rule forbids, and the forbidden word.
    fn forbidden_redirect(&self) -> Option<(&str, &'static str)> {
        if !self.portal_redirect_rules {
            return None;
        }
        self.redirect_uris.iter().find_map(|uri| {
            let lower = uri.to_ascii_lowercase();
            let word = ["highlevel", "ghl"].into_iter().find(|word| lower.contains(word));
            word.map(|word| (uri.as_str(), word))
        })
    }
}

fn is_receiver(url: Option<&str>) -> bool {
    url.is_none_or(|url| parts_of(url).is_some())
}

/// The rate limit of a company or location.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RateLimit {
    /// Requests per window of `per_ms`.
    pub requests: u32,
    /// The window, in milliseconds.
    pub per_ms: u64,
    /// Requests per day (UTC, on the emulator's clock).
    pub per_day: u64,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { requests: 100, per_ms: 10_000, per_day: 200_000 }
    }
}

/// The `expiresIn` value of token responses. It does not change the lifetime of a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExpiresIn {
    /// The remaining lifetime in seconds.
    #[default]
    Truth,
    /// The field is omitted.
    Absent,
    /// Any JSON value: a string, a negative number, null.
    Value(Value),
}

/// The settings that can change at run time.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    pub(crate) access_token_seconds: i64,
    pub(crate) expires_in: ExpiresIn,
    pub(crate) reuse_window_seconds: u64,
    pub(crate) location_refresh_tokens: bool,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) latency_ms: u64,
    pub(crate) accept_delay_ms: u64,
    pub(crate) webhook_url: Option<String>,
    #[serde(flatten)]
    pub(crate) behaviour: Behaviour,
}

impl Settings {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            access_token_seconds: options.access_token_seconds,
            expires_in: ExpiresIn::Truth,
            reuse_window_seconds: options.reuse_window_seconds,
            location_refresh_tokens: options.location_refresh_tokens,
            rate_limit: options.rate_limit,
            latency_ms: 0,
            accept_delay_ms: 0,
            webhook_url: options.webhook_url.clone(),
            behaviour: options.behaviour.clone(),
        }
    }

    pub(crate) fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }

    pub(crate) fn accept_delay(&self) -> Duration {
        Duration::from_millis(self.accept_delay_ms)
    }

    pub(crate) fn apply(&mut self, change: SettingsChange) -> Result<(), Complaint> {
        if change.rate_limit.flatten().is_some_and(|limit| limit.per_ms == 0) {
            return Err(Complaint::field("rateLimit.perMs", "it must not be zero"));
        }
        if !is_receiver(change.webhook_url.as_ref().and_then(Option::as_deref)) {
            return Err(Complaint::field("webhookUrl", "it must be http://HOST:PORT/PATH"));
        }
        let SettingsChange {
            access_token_seconds,
            expires_in,
            reuse_window_seconds,
            location_refresh_tokens,
            rate_limit,
            latency_ms,
            accept_delay_ms,
            webhook_url,
            name_wrong_credentials,
            inactive_status,
            ignore_installed_filter,
            list_delay_seconds,
            bulk_install_webhooks,
            webhook_retries,
            daily_reset,
            field_names,
        } = change;
        let mut behaviour = self.behaviour.clone();
        replace(&mut behaviour.name_wrong_credentials, name_wrong_credentials);
        replace(&mut behaviour.inactive_status, inactive_status);
        replace(&mut behaviour.ignore_installed_filter, ignore_installed_filter);
        replace(&mut behaviour.list_delay_seconds, list_delay_seconds);
        replace(&mut behaviour.bulk_install_webhooks, bulk_install_webhooks);
        replace(&mut behaviour.webhook_retries, webhook_retries);
        replace(&mut behaviour.daily_reset, daily_reset);
        replace(&mut behaviour.field_names, field_names);
        behaviour.check().map_err(|what| Complaint::field("inactiveStatus", what))?;
        self.behaviour = behaviour;
        replace(&mut self.access_token_seconds, access_token_seconds);
        replace(&mut self.expires_in, expires_in);
        replace(&mut self.reuse_window_seconds, reuse_window_seconds);
        replace(&mut self.location_refresh_tokens, location_refresh_tokens);
        replace(&mut self.rate_limit, rate_limit);
        replace(&mut self.latency_ms, latency_ms);
        replace(&mut self.accept_delay_ms, accept_delay_ms);
        replace(&mut self.webhook_url, webhook_url);
        Ok(())
    }
}

fn replace<T>(setting: &mut T, change: Option<T>) {
    if let Some(value) = change {
        *setting = value;
    }
}

/// A partial update: settings that the request does not name stay unchanged.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct SettingsChange {
    access_token_seconds: Option<i64>,
    expires_in: Option<ExpiresIn>,
    reuse_window_seconds: Option<u64>,
    location_refresh_tokens: Option<bool>,
    /// `null` removes the limit; omitting the key keeps it.
    #[serde(deserialize_with = "present")]
    rate_limit: Option<Option<RateLimit>>,
    latency_ms: Option<u64>,
    accept_delay_ms: Option<u64>,
    /// `null` turns sending off.
    #[serde(deserialize_with = "present")]
    webhook_url: Option<Option<String>>,
    name_wrong_credentials: Option<bool>,
    inactive_status: Option<u16>,
    ignore_installed_filter: Option<bool>,
    list_delay_seconds: Option<u64>,
    bulk_install_webhooks: Option<bool>,
    webhook_retries: Option<RetryRule>,
    daily_reset: Option<DailyReset>,
    field_names: Option<FieldNames>,
}

fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complaint;
    use serde_json::json;

    fn change(value: Value) -> Result<Settings, String> {
        let mut settings = Settings::new(&Options::default());
        let change = complaint::deserialize(value).map_err(|error| error.to_string())?;
        settings.apply(change).map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn null_limit_means_no_limit_and_a_missing_limit_no_change() {
        assert_eq!(change(json!({})).unwrap().rate_limit, Some(RateLimit::default()));
        assert_eq!(change(json!({"rateLimit": null})).unwrap().rate_limit, None);
        let limit = change(json!({"rateLimit": {"requests": 3}})).unwrap().rate_limit;
        assert_eq!(limit.unwrap().requests, 3);
        assert_eq!(limit.unwrap().per_ms, 10_000);
    }

    #[test]
    fn expires_in_accepts_any_value() {
        let expires_in = |value| change(json!({ "expiresIn": value })).unwrap().expires_in;
        assert_eq!(expires_in(json!("absent")), ExpiresIn::Absent);
        assert_eq!(expires_in(json!("truth")), ExpiresIn::Truth);
        assert_eq!(expires_in(json!({"value": "soon"})), ExpiresIn::Value(json!("soon")));
        assert_eq!(expires_in(json!({"value": null})), ExpiresIn::Value(Value::Null));
    }

    #[test]
    fn every_behaviour_of_the_catalogue_is_a_setting() {
        for info in crate::behaviour::BEHAVIOURS {
            let values = if info.values.is_empty() { &[info.default][..] } else { info.values };
            for value in values {
                let json: Value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
                let settings = json!(change(json!({info.name: json})).unwrap());
                assert_eq!(settings[info.name], json, "{}", info.name);
            }
        }
        assert!(change(json!({"inactiveStatus": 403})).is_err());
    }

    #[test]
    fn portal_refuses_redirect_uris_with_its_own_names() {
        let check = |uri: &str, portal_redirect_rules| {
            let redirect_uris = vec!["https://app.example/".to_owned(), uri.to_owned()];
            Options { redirect_uris, portal_redirect_rules, ..Options::default() }.check()
        };
        for uri in ["https://app.example/ghl/callback", "https://HighLevel.app.example/"] {
            assert!(check(uri, false).is_ok());
            let error = check(uri, true).unwrap_err().to_string();
            assert!(error.contains("the portal refuses"), "{error}");
        }
        assert!(check("https://app.example/callback", true).is_ok());
    }

    #[test]
    fn unknown_settings_are_refused() {
        let error = change(json!({"accessTokenSecond": 1})).unwrap_err();
        assert!(error.contains("accessTokenSecond"), "{error}");
    }
}
