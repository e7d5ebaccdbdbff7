//! Responses of the control API.

use crate::complaint::Complaint;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub(crate) fn reply(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// A reply for people and for the clipboard.
pub(crate) fn plain(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// An error that concerns the request as a whole.
pub(crate) fn refuse(status: StatusCode, complaint: impl AsRef<str>) -> Response {
    (status, reply(&json!({"error": complaint.as_ref()}))).into_response()
}

/// An error that may concern one field.
pub(crate) fn refuse_for(status: StatusCode, complaint: &Complaint) -> Response {
    let error = complaint.to_string();
    match &complaint.field {
        Some(field) => (status, reply(&json!({"error": error, "field": field}))).into_response(),
        None => refuse(status, error),
    }
}
