//! The error type of the library: a status, the resource it concerns, and what to do about it.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

pub(crate) mod exhaustion;
pub(crate) mod log_fields;
mod statuses;

pub(crate) use statuses::{c_enum, statuses};

macro_rules! define_status {
    ($(
        $(#[doc = $doc:literal])+
        $status:ident = $code:literal, $name:ident, $class:ident, retryable: $retryable:literal;
    )+) => {
        /// The kind of a failure, with the number that the C ABI returns for it.
        ///
        /// A released number never changes its meaning. Success (0) is not a `Status`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum Status {
            $($(#[doc = $doc])+ $status = $code,)+
        }

        impl Status {
            /// Every status, ordered by number.
            pub const ALL: [Status; [$($code),+].len()] = [$(Status::$status),+];

            /// The name in the C header and in the error JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Status::$status => stringify!($name),)+
                }
            }

            /// Whether errors with this status are retryable by default; see [`Error::retryable`].
            pub const fn retryable(self) -> bool {
                match self {
                    $(Status::$status => $retryable,)+
                }
            }
        }
    };
}
statuses!(define_status);

impl Status {
    /// The stable number.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The status with that number, if there is one.
    pub fn from_code(code: i32) -> Option<Status> {
        let index = usize::try_from(code.checked_sub(1)?).ok()?;
        Status::ALL.get(index).copied()
    }

    /// The status with that name, if there is one.
    pub fn from_name(name: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// An error response of the API, in any of its formats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ApiFault {
    /// The machine-readable code: `error` (RFC 6749, section 5.2), or `code` of the `{"error":
    /// {…}}` envelope.
    pub code: Option<String>,
    /// The server's message; several messages are joined with `; `.
    pub message: Option<String>,
    /// The envelope's `details`, otherwise null.
    pub details: Value,
    /// The envelope's `resolution`.
    pub resolution: Option<String>,
    /// The server's ID of the request, for the vendor's support.
    pub trace_id: Option<String>,
    /// Whether the response has the form or the words of the API's errors. A page of a proxy or a
    /// firewall and the JSON of a gateway say nothing about a token.
    pub is_of_api: bool,
}

/// An error of the library. Never contains a secret.
#[derive(Clone)]
pub struct Error(Box<Details>);

#[derive(Clone)]
struct Details {
    status: Status,
    message: String,
    help: Option<String>,
    parameter: Option<String>,
    retryable: bool,
    sent: Option<bool>,
    retry_after: Option<Duration>,
    resource_id: Option<String>,
    http_status: Option<u16>,
    api: Option<ApiFault>,
    is_unreadable: bool,
    is_cut_short: bool,
    may_have_acted_before: bool,
}

/// A result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error; the message says in one sentence what happened.
    pub fn new(status: Status, message: impl Into<String>) -> Error {
        Error(Box::new(Details {
            status,
            message: message.into(),
            help: None,
            parameter: None,
            retryable: status.retryable(),
            sent: None,
            retry_after: None,
            resource_id: None,
            http_status: None,
            api: None,
            is_unreadable: false,
            is_cut_short: false,
            may_have_acted_before: false,
        }))
    }

    /// An `INVALID_ARGUMENT` error about that parameter or key.
    pub fn invalid_argument(parameter: impl Into<String>, message: impl Into<String>) -> Error {
        Error::new(Status::InvalidArgument, message).with_parameter(parameter)
    }

    /// Adds advice: what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Error {
        self.0.help = Some(help.into());
        self
    }

    /// Names the invalid parameter or key.
    #[must_use]
    pub fn with_parameter(mut self, parameter: impl Into<String>) -> Error {
        self.0.parameter = Some(parameter.into());
        self
    }

    /// Names the company or location, unless an inner call has named one already.
    #[must_use]
    pub fn with_resource(mut self, resource_id: &str) -> Error {
        self.0.resource_id.get_or_insert_with(|| resource_id.to_owned());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Option<Duration>) -> Error {
        self.0.retry_after = wait;
        self
    }

    /// Adds the server's response.
    #[must_use]
    pub fn with_api(mut self, http_status: u16, fault: ApiFault) -> Error {
        self.0.http_status = Some(http_status);
        self.0.api = Some(fault);
        self
    }

    /// Says whether the server may have acted on the request of the call.
    #[must_use]
    pub fn with_sent(mut self, sent: bool) -> Error {
        self.0.sent = Some(sent);
        self
    }

    /// Replaces the advice to try again if the server may have acted on a request that must not
    /// simply be repeated.
    #[must_use]
    pub(crate) fn without_advice_to_repeat(self) -> Error {
        let rest = self.help().and_then(|help| help.strip_prefix("try again"));
        match rest {
            Some(rest) if self.sent() == Some(true) && !self.retryable() => {
                let advice = "the server may have acted: look before you send it again";
                let help = format!("{advice}{rest}");
                self.with_help(help)
            }
            _ => self,
        }
    }

    /// Says that the request of the call was not sent. An invalid argument is an error without a
    /// request.
    #[must_use]
    pub(crate) fn before_request(mut self) -> Error {
        self.0.sent = (self.status() != Status::InvalidArgument).then_some(false);
        self
    }

    /// Says that the request of the call was sent, if the server `may_have_acted` on an earlier
    /// attempt.
    #[must_use]
    pub(crate) fn after_attempts(self, may_have_acted: bool) -> Error {
        if may_have_acted { self.with_sent(true) } else { self }
    }

    /// Says whether the same call, unchanged, may succeed later and may be repeated without harm;
    /// the default depends on the status.
    #[must_use]
    pub(crate) fn with_retryable(mut self, retryable: bool) -> Error {
        self.0.retryable = retryable;
        self
    }

    /// The status.
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// The message: one sentence that says what happened.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Advice: what to do about it.
    pub fn help(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The invalid parameter or key, for example `store.kind`.
    pub fn parameter(&self) -> Option<&str> {
        self.0.parameter.as_deref()
    }

    /// Whether the same call, unchanged, may succeed later, and repeating it does no harm.
    pub fn retryable(&self) -> bool {
        self.0.retryable
    }

    /// Whether the server may have acted on the request of the call; `Some(false)` if it certainly
    /// did not: the request never left, or was refused before it was processed. `None` without a
    /// request.
    pub fn sent(&self) -> Option<bool> {
        self.0.sent
    }

    /// How long to wait before a retry, if known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The company or location concerned.
    pub fn resource_id(&self) -> Option<&str> {
        self.0.resource_id.as_deref()
    }

    /// The HTTP status of the response, if one arrived.
    pub fn http_status(&self) -> Option<u16> {
        self.0.http_status
    }

    /// The API's error response, if one arrived.
    pub fn api(&self) -> Option<&ApiFault> {
        self.0.api.as_ref()
    }

    /// Marks the error as being about a stored record that cannot be read.
    #[must_use]
    pub(crate) fn into_unreadable(mut self) -> Error {
        self.0.is_unreadable = true;
        self.0.retryable = false;
        self
    }

    /// Whether a stored record exists but cannot be read: it is damaged, or sealed with a key that
    /// is not configured.
    pub fn is_unreadable(&self) -> bool {
        self.0.is_unreadable
    }

    /// Marks the error of a call whose own timeout left no time for another attempt.
    #[must_use]
    pub(crate) fn into_cut_short(mut self) -> Error {
        self.0.is_cut_short = true;
        self
    }

    /// Whether the call gave up only because of its own timeout: with the configured one it would
    /// have waited and tried again.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.0.is_cut_short
    }

    /// Says whether the server may have acted on an attempt before the failed one.
    #[must_use]
    pub(crate) fn with_earlier_attempts(mut self, may_have_acted: bool) -> Error {
        self.0.may_have_acted_before = may_have_acted;
        self
    }

    /// Whether the server may have acted on an attempt before the failed one.
    pub(crate) fn may_have_acted_before(&self) -> bool {
        self.0.may_have_acted_before
    }

    /// Whether the API itself refused the request, rather than a proxy or a firewall.
    pub fn is_verdict(&self) -> bool {
        self.api().is_some_and(|fault| fault.is_of_api)
            && self.http_status().is_some_and(|status| status < 500)
            // The API reports its internal timeouts with any HTTP status.
            && self.status() != Status::Server
    }

    /// The error JSON of the C ABI: `{"error": {…}}`.
    pub fn to_json(&self) -> Value {
        let details = &*self.0;
        let api = details.api.as_ref().map(|fault| {
            json!({
                "code": fault.code,
                "message": fault.message,
                "details": fault.details,
                "resolution": fault.resolution,
            })
        });
        let mut error = Map::new();
        error.insert("status".into(), details.status.name().into());
        error.insert("message".into(), details.message.clone().into());
        error.insert("help".into(), json!(details.help));
        error.insert("parameter".into(), json!(details.parameter));
        error.insert("retryable".into(), details.retryable.into());
        error.insert("sent".into(), json!(details.sent));
        error.insert(
            "retryAfterMs".into(),
            json!(details.retry_after.map(|wait| wait.as_millis() as u64)),
        );
        error.insert("resourceId".into(), json!(details.resource_id));
        error.insert("httpStatus".into(), json!(details.http_status));
        error.insert(
            "traceId".into(),
            json!(details.api.as_ref().and_then(|fault| fault.trace_id.as_deref())),
        );
        error.insert("api".into(), json!(api));
        json!({ "error": error })
    }
}

impl Error {
    /// Parses the inner object of the error JSON, as reports and events contain it.
    pub(crate) fn from_json(error: &Value) -> Error {
        let text = |object: &Value, key: &str| object[key].as_str().map(str::to_owned);
        let status =
            error["status"].as_str().and_then(Status::from_name).unwrap_or(Status::Internal);
        let mut read = Error::new(status, text(error, "message").unwrap_or_default());
        let details = &mut *read.0;
        details.help = text(error, "help");
        details.parameter = text(error, "parameter");
        details.retryable = error["retryable"].as_bool().unwrap_or(details.retryable);
        details.sent = error["sent"].as_bool();
        details.retry_after = error["retryAfterMs"].as_u64().map(Duration::from_millis);
        details.resource_id = text(error, "resourceId");
        details.http_status =
            error["httpStatus"].as_u64().and_then(|status| u16::try_from(status).ok());
        details.api = error["api"].is_object().then(|| ApiFault {
            code: text(&error["api"], "code"),
            message: text(&error["api"], "message"),
            details: error["api"]["details"].clone(),
            resolution: text(&error["api"], "resolution"),
            trace_id: text(error, "traceId"),
            is_of_api: true,
        });
        read
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.status.name(), self.0.message)?;
        if let Some(resource) = &self.0.resource_id {
            write!(f, " [resource {resource}]")?;
        }
        if let Some(help) = &self.0.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_map_back_to_the_status() {
        for status in Status::ALL {
            assert_eq!(Status::from_code(status.code()), Some(status));
            assert!(status.name().starts_with("GHL_ERR_"));
        }
        for code in [0, Status::ALL.len() as i32 + 1, -1, i32::MIN, i32::MAX] {
            assert_eq!(Status::from_code(code), None);
        }
    }

    #[test]
    fn error_json_survives_a_round_trip() {
        let fault = ApiFault {
            code: Some("invalid_grant".into()),
            message: Some("no".into()),
            details: json!({"field": "x"}),
            resolution: Some("consent".into()),
            trace_id: Some("t1".into()),
            is_of_api: true,
        };
        let full = Error::new(Status::RateLimited, "too many")
            .with_help("wait")
            .with_parameter("p")
            .with_sent(false)
            .with_retry_after(Some(Duration::from_millis(1500)))
            .with_resource("l1")
            .with_api(429, fault);
        for error in [
            full,
            Error::new(Status::Store, "disk full"),
            Error::new(Status::Network, "lost").with_sent(true).with_retryable(false),
            Error::new(Status::Store, "x").into_unreadable(),
        ] {
            let json = error.to_json();
            assert_eq!(Error::from_json(&json["error"]).to_json(), json);
        }
    }

    #[test]
    fn innermost_resource_is_kept() {
        let error = Error::new(Status::Network, "no answer")
            .with_resource("location")
            .with_resource("company");
        assert_eq!(error.resource_id(), Some("location"));
    }
}
