//! The last failed renewal of a token: its record keeps it until the next success.

use serde_json::{Value, json};

use crate::error::Error;

/// The longest message and trace ID, in bytes.
const MAX_MESSAGE: usize = 200;
const MAX_TRACE_ID: usize = 100;

/// The last failed refresh or mint of a token. Contains no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFailure {
    /// The first failure since the last success, in milliseconds since the epoch.
    pub first_at: i64,
    /// The newest failure.
    pub at: i64,
    /// Failed flights since the last success.
    pub attempts: u64,
    /// The name of the status, as in the error JSON.
    pub status: String,
    /// The server's message, otherwise the error's.
    pub message: String,
    /// The HTTP status, if a response arrived.
    pub http_status: Option<u64>,
    /// The server's ID of the request, for the vendor's support.
    pub trace_id: Option<String>,
    /// The earliest time of the next attempt, in milliseconds since the epoch; `None` if only a
    /// consent or an import helps.
    pub next_attempt_at: Option<i64>,
    /// The expiry of the token that could not be renewed. A record with a token of another expiry
    /// was renewed since, perhaps by a version of the library that does not know this field.
    pub expires_at: i64,
}

impl LastFailure {
    /// The failure of a renewal at `at`, after an `earlier` one of the same token.
    pub fn new(
        error: &Error,
        (at, next_attempt_at): (i64, Option<i64>),
        expires_at: i64,
        earlier: Option<&LastFailure>,
    ) -> LastFailure {
        let fault = error.api();
        let message = fault.and_then(|fault| fault.message.as_deref());
        LastFailure {
            first_at: earlier.map_or(at, |earlier| earlier.first_at.min(at)),
            at,
            attempts: earlier.map_or(0, |earlier| earlier.attempts).saturating_add(1),
            status: error.status().name().to_owned(),
            message: shortened(message.unwrap_or_else(|| error.message()), MAX_MESSAGE),
            http_status: error.http_status().map(u64::from),
            trace_id: fault
                .and_then(|fault| fault.trace_id.as_deref())
                .map(|trace_id| shortened(trace_id, MAX_TRACE_ID)),
            next_attempt_at,
            expires_at,
        }
    }

    /// The public fields.
    pub fn to_json(&self) -> Value {
        json!({
            "firstAt": self.first_at,
            "at": self.at,
            "attempts": self.attempts,
            "status": self.status,
            "message": self.message,
            "httpStatus": self.http_status,
            "traceId": self.trace_id,
            "nextAttemptAt": self.next_attempt_at,
        })
    }

    /// The stored form.
    pub fn to_document(&self) -> Value {
        let mut document = self.to_json();
        document["expiresAt"] = self.expires_at.into();
        document
    }

    /// Parses the stored form. A failure in a form that this version does not know is as good as
    /// none: it must not make the record unreadable.
    pub fn from_document(document: &Value) -> Option<LastFailure> {
        let number = |key: &str| document[key].as_i64();
        let text = |key: &str| document[key].as_str().map(str::to_owned);
        Some(LastFailure {
            first_at: number("firstAt")?,
            at: number("at")?,
            attempts: document["attempts"].as_u64()?,
            status: text("status")?,
            message: text("message")?,
            http_status: document["httpStatus"].as_u64(),
            trace_id: text("traceId"),
            next_attempt_at: number("nextAttemptAt"),
            expires_at: number("expiresAt")?,
        })
    }
}

/// At most `longest` bytes of a text, on one line.
fn shortened(text: &str, longest: usize) -> String {
    let one_line = text.replace(char::is_control, " ");
    if one_line.len() <= longest {
        return one_line;
    }
    let mut end = longest - "…".len();
    while !one_line.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &one_line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ApiFault, Status};

    #[test]
    fn stored_failure_survives_a_round_trip_and_an_unknown_form_is_none() {
        let fault = ApiFault {
            message: Some(format!("first line\nsecond {}", "ü".repeat(200))),
            trace_id: Some("trace".into()),
            ..ApiFault::default()
        };
        let error = Error::new(Status::Server, "the API answered 500").with_api(500, fault);
        let first = LastFailure::new(&error, (1000, Some(2000)), 5000, None);
        assert!(first.message.len() <= MAX_MESSAGE && first.message.starts_with("first line seco"));
        let second = LastFailure::new(&error, (3000, None), 5000, Some(&first));
        assert_eq!((second.first_at, second.at, second.attempts), (1000, 3000, 2));
        for failure in [first, second] {
            assert_eq!(LastFailure::from_document(&failure.to_document()), Some(failure));
        }
        for unknown in [json!(null), json!("text"), json!({"at": 1}), json!({"at": "then"})] {
            assert_eq!(LastFailure::from_document(&unknown), None);
        }
    }
}
