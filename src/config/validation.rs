//! Configuration validation: ranges, formats, and mutually exclusive keys.

use super::no_proxy;
use super::urls::{absolute, check_endpoint};
use super::{Config, ConsentPage, refused};
use crate::error::Result;
use crate::token::{NO_SCOPE, is_scope};

const EMPTY: &str = "it must not be empty";

impl Config {
    /// Validates the values.
    pub fn validate(&self) -> Result<()> {
        if let Some(why) = word_fault(&self.client_id) {
            return Err(refused("clientId", why));
        }
        self.validate_secret()?;
        if let Some(redirect_uri) = &self.redirect_uri {
            absolute("redirectUri", redirect_uri)?;
        }
        if !self.scopes.iter().all(|scope| is_scope(scope)) {
            return Err(refused("scopes", NO_SCOPE));
        }
        check_endpoint("baseUrl", &self.base_url, self.http.allow_insecure_http)?;
        check_endpoint("authorizeUrl", &self.authorize_url, self.http.allow_insecure_http)?;
        if self.base_url.contains(['?', '#']) {
            return Err(refused("baseUrl", "it must not have a query or a fragment"));
        }
        // The query is appended: behind a fragment no server would see it.
        if self.authorize_url.contains('#') {
            return Err(refused("authorizeUrl", "it must not have a fragment"));
        }
        header_text("apiVersion", &self.api_version)?;
        if let Some(suffix) = &self.http.user_agent_suffix {
            header_text("http.userAgentSuffix", suffix)?;
        }
        no_proxy::check(&self.http.no_proxy)?;
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
        self.consent_page.validate()?;
        self.store.backend().map(drop)
    }
}

impl ConsentPage {
    fn validate(&self) -> Result<()> {
        for (key, text, most) in [
            ("title", &self.title, 100),
            ("message", &self.message, 500),
            ("failureTitle", &self.failure_title, 100),
            ("failureMessage", &self.failure_message, 500),
        ] {
            let Some(text) = text else { continue };
            let key = &format!("consentPage.{key}");
            not_blank(key, text)?;
            if text.chars().count() > most || text.chars().any(char::is_control) {
                let why = format!(
                    "it must have at most {most} characters and no control character or line break"
                );
                return Err(refused(key, &why));
            }
        }
        let is_color = |text: &String| {
            text.strip_prefix('#').is_some_and(|digits| {
                digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        };
        match &self.color {
            Some(color) if !is_color(color) => {
                Err(refused("consentPage.color", "it must be # and six hexadecimal digits"))
            }
            _ => Ok(()),
        }
    }
}

/// Detects copy-and-paste mistakes: no ID or secret of the API has white space around it. Some
/// editors begin a file with a byte order mark.
pub(super) fn word_fault(value: &str) -> Option<&'static str> {
    if value.trim().is_empty() {
        return Some(EMPTY);
    }
    let is_foreign = |letter: char| letter.is_control() || letter == '\u{feff}';
    (value.trim() != value || value.chars().any(is_foreign))
        .then_some("it must not begin or end with white space, or contain a control character")
}

fn not_blank(key: &str, value: &str) -> Result<()> {
    if value.trim().is_empty() { Err(refused(key, EMPTY)) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreKind;
    use crate::error::{Error, Status};

    fn refusal(more: &str) -> Error {
        let text = format!("{{\"clientId\":\"app-1\",\"clientSecret\":\"s\"{more}}}");
        Config::from_json(&text).err().unwrap_or_else(|| panic!("{text} was accepted"))
    }

    #[test]
    fn minimal_configuration_has_two_keys() {
        let config = Config::from_json(r#"{"clientId":"app-1","clientSecret":"s"}"#).unwrap();
        assert_eq!(config.app_id(), "app");
        assert_eq!(config.base_url, "https://services.leadconnectorhq.com");
        assert_eq!(config.timeouts.total_ms, 30_000);
        assert_eq!(config.store.kind, StoreKind::Memory);
    }

    #[test]
    fn invalid_configuration_is_refused_by_key() {
        for (more, key) in [
            (r#","baseUrl":"http://services.example""#, "baseUrl"),
            (r#","baseUrl":"services.example""#, "baseUrl"),
            (r#","baseUrl":"ftp://services.example""#, "baseUrl"),
            (r#","baseUrl":"https://services.example:44s""#, "baseUrl"),
            (r#","redirectUri":"https://app.example:65536/callback""#, "redirectUri"),
            (r#","baseUrl":"https://user:pass@services.example""#, "baseUrl"),
            (r#","baseUrl":"https://services.example/?a=b""#, "baseUrl"),
            (r#","authorizeUrl":"http://services.example""#, "authorizeUrl"),
            (r##","authorizeUrl":"https://services.example/consent#top""##, "authorizeUrl"),
            (r##","authorizeUrl":"https://services.example/consent?a=b#""##, "authorizeUrl"),
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
            (r#","consentPage":{"title":" "}"#, "consentPage.title"),
            (r#","consentPage":{"message":"a\nb"}"#, "consentPage.message"),
            (r#","consentPage":{"failureTitle":"a\u007f"}"#, "consentPage.failureTitle"),
            (r#","consentPage":{"failureMessage":""}"#, "consentPage.failureMessage"),
            (r#","consentPage":{"color":"red"}"#, "consentPage.color"),
            (r##","consentPage":{"color":"#12345"}"##, "consentPage.color"),
            (r##","consentPage":{"color":"#12345g"}"##, "consentPage.color"),
            (r##","consentPage":{"color":"#1234é"}"##, "consentPage.color"),
            (r##","consentPage":{"color":"#123456;}"}"##, "consentPage.color"),
        ] {
            let error = refusal(more);
            assert_eq!(
                (error.status(), error.parameter()),
                (Status::Config, Some(key)),
                "{more}: {error}"
            );
        }
        assert_eq!(refusal(r#","colour":1"#).parameter(), Some("colour"));
        assert_eq!(
            refusal(r#","store":{"kind":"memory","size":1}"#).parameter(),
            Some("store.size")
        );
        assert_eq!(
            Config::from_json(r#"{"clientId":"a"}"#).unwrap_err().parameter(),
            Some("clientSecret")
        );
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
    fn null_store_is_refused_by_name() {
        let error = refusal(r#","store":null"#);
        assert_eq!((error.status(), error.parameter()), (Status::InvalidArgument, Some("store")));
        assert!(error.message().contains("omit the key"), "{error}");
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn error_for_a_store_url_of_another_scheme_hides_the_password() {
        for url in [
            "postgresql+psycopg2://user:hush-hush@host/database",
            "mysql://user:hush-hush@host/database",
            "user:hush-hush@host/database",
            " postgres://user:hush-hush@host/database",
        ] {
            let error = refusal(&format!(r#","store":{{"kind":"postgres","url":"{url}"}}"#));
            assert_eq!(
                (error.status(), error.parameter()),
                (Status::Config, Some("store.url")),
                "{url}"
            );
            let said = format!("{error:?} {error} {}", error.help().unwrap_or_default());
            assert!(said.contains("postgresql://") && !said.contains("hush"), "{said}");
        }
        let error =
            refusal(r#","store":{"kind":"sqlite","path":"postgres://user:hush-hush@host/db"}"#);
        assert_eq!((error.status(), error.parameter()), (Status::Config, Some("store.path")));
        assert!(!format!("{error:?} {error}").contains("hush"), "{error}");
    }

    #[test]
    fn plain_http_is_allowed_only_to_this_machine() {
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
