//! JSON responses of the control API.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub(crate) fn reply(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

pub(crate) fn refuse(status: StatusCode, complaint: impl AsRef<str>) -> Response {
    (status, reply(&json!({"error": complaint.as_ref()}))).into_response()
}
