//! Responses of the endpoints, and the JSON shapes of the API's error responses.

use crate::random::unpredictable_hex;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A complete response, before a fault changes how it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![(
                "content-type".to_owned(),
                "application/json; charset=utf-8".to_owned(),
            )],
            body: body.to_string().into_bytes(),
        }
    }

    /// The shape of most error responses: `{"statusCode", "message"}`.
    pub(crate) fn refusal(status: u16, message: &str) -> Self {
        Self::json(status, &json!({"statusCode": status, "message": message}))
    }

    /// A transient error: a backend cache or database of the service timed out.
    pub(crate) fn command_timed_out(as_object: bool) -> Self {
        let text =
            json!({"statusCode": 401, "message": "Command timed out", "error": "Unauthorized"});
        let body = if as_object { json!({"statusCode": 401, "message": text}) } else { text };
        Self::json(401, &body).with_headers([("x-trace-id", trace_id())])
    }

    /// The error page of a gateway whose upstream service did not respond.
    pub(crate) fn unavailable_page() -> Self {
        Self {
            status: 503,
            headers: vec![("content-type".to_owned(), "text/html; charset=utf-8".to_owned())],
            body: b"<html><head><title>503 Service Temporarily Unavailable</title></head>\
                <body><h1>503 Service Temporarily Unavailable</h1></body></html>"
                .to_vec(),
        }
    }

    pub(crate) fn missing_parameter(name: &str) -> Self {
        Self::refusal(400, &format!("Missing parameter: {name}"))
    }

    pub(crate) fn invalid_parameter(name: &str) -> Self {
        Self::refusal(400, &format!("Invalid parameter: {name}"))
    }

    /// One response to a wrong code, a wrong client ID and a wrong secret, so that a caller cannot
    /// tell them apart.
    pub(crate) fn code_not_found() -> Self {
        Self::json(
            401,
            &json!({"error": "UnAuthorized!", "error_description": "Authorization code not found"}),
        )
    }

    /// The response to a malformed request: `message` is a list.
    pub(crate) fn unprocessable(messages: &[String]) -> Self {
        Self::json(
            422,
            &json!({
                "message": messages,
                "error": "Unprocessable Entity",
                "statusCode": 422,
                "traceId": trace_id(),
            }),
        )
    }

    /// The newer shape: `error` is an object (AIP-193).
    pub(crate) fn envelope(
        status: u16,
        code: &str,
        message: &str,
        details: &Value,
        resolution: &str,
    ) -> Self {
        Self::json(
            status,
            &json!({"error": {
                "code": code,
                "message": message,
                "details": details,
                "resolution": resolution,
            }}),
        )
    }

    pub(crate) fn not_found(resource: &str, identifier: &str) -> Self {
        Self::envelope(
            404,
            "RESOURCE_NOT_FOUND",
            &format!("The requested {resource} '{identifier}' was not found."),
            &json!({"resource": resource, "identifier": identifier}),
            &format!("Verify the {resource} exists and you have permission to access it."),
        )
    }

    pub(crate) fn invalid_argument(field: &str, message: &str, resolution: &str) -> Self {
        Self::envelope(400, "INVALID_ARGUMENT", message, &json!({ "field": field }), resolution)
    }

    pub(crate) fn with_headers<N: Into<String>>(
        mut self,
        headers: impl IntoIterator<Item = (N, String)>,
    ) -> Self {
        self.headers.extend(headers.into_iter().map(|(name, value)| (name.into(), value)));
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(Body::from(self.body)).unwrap_or_else(|error| {
            // A fault rule may contain a status or header that HTTP does not allow.
            (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        })
    }
}

/// The request ID that the API puts into responses, for the vendor's support.
pub(crate) fn trace_id() -> String {
    let hex = unpredictable_hex::<16>();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
