//! Requests to any endpoint of the API with a valid access token. Returns the complete response.

use std::cell::Cell;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use zeroize::Zeroizing;

use crate::api::{Api, is_caller_settable, is_invalid_token_response};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::http::{Answer, Bucket, Idempotency, Request, Response};
use crate::json;
use crate::tokens::Tokens;

/// The parameters of a request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[deny(missing_docs)]
pub struct RequestParams {
    /// GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS; required.
    pub method: String,
    /// A path that begins with `/`, or a URL below the configured base URL; required.
    pub path: String,
    /// Maps names to strings, numbers, booleans, or lists of them; null is omitted.
    #[serde(default, deserialize_with = "json::unique_map")]
    pub query: Map<String, Value>,
    /// Additional headers; they override the default ones.
    #[serde(default, deserialize_with = "json::unique_map")]
    pub headers: Map<String, Value>,
    /// A string is sent unchanged; other values as the JSON that they are, byte for byte, or as a
    /// form if the content type says so.
    pub body: Option<Box<RawValue>>,
    /// A body of arbitrary bytes, instead of `body`.
    pub body_base64: Option<String>,
    /// The company or location whose token is sent. Default: none.
    pub resource_id: Option<String>,
    /// Whether the server may process the request more than once. Default: true for GET, HEAD and
    /// OPTIONS.
    pub idempotent: Option<bool>,
    /// Whether the request is repeated after a failure or a refusal such as 429. Default: true.
    pub retry: Option<bool>,
}

/// Sends requests with stored tokens.
pub struct Requests {
    api: Arc<Api>,
    tokens: Arc<Tokens>,
}

impl Requests {
    pub fn new(api: Arc<Api>, tokens: Arc<Tokens>) -> Requests {
        Requests { api, tokens }
    }

    /// Sends a request under the rate limiter and the retry rules. After a 401 for an invalid
    /// token, refreshes the token and repeats the request once, even without `retry`. A response of
    /// any status is a success.
    pub fn send(&self, params: &RequestParams, deadline: &Deadline) -> Result<ResponseDocument> {
        let method = method(&params.method)?;
        let uri = self.api.target(&params.path, &pairs("query", &params.query)?)?;
        let mut headers = headers(params)?;
        let body = body(params, &mut headers)?;
        if body.is_some() && [Method::GET, Method::HEAD].contains(&method) {
            return Err(Error::invalid_argument("body", format!("a {method} request has no body")));
        }
        let request = Request {
            idempotency: idempotency(&method, params.idempotent),
            is_single_attempt: params.retry == Some(false),
            method,
            uri,
            headers,
            bearer: None,
            body: body.as_ref().map(|body| &body[..]),
            bucket: params.resource_id.as_deref().map(Bucket::Resource),
        };
        let response = match &params.resource_id {
            None => self.api.send(request, deadline).map_err(|failure| failure.error),
            Some(resource_id) => {
                // Whether the server may have processed an attempt before its 401.
                let may_have_acted = Cell::new(false);
                let send = |bearer: &_| {
                    let request = Request { bearer: Some(bearer), ..request.clone() };
                    let outcome = self.api.send(request, deadline);
                    if let Ok(answer) = &outcome {
                        may_have_acted.set(may_have_acted.get() || answer.may_have_acted_before);
                    }
                    outcome
                };
                let is_invalid = |outcome: &Result<Answer, _>| {
                    outcome.as_ref().is_ok_and(|answer| is_invalid_token_response(&answer.response))
                };
                self.tokens
                    .with_live_token(resource_id, deadline, send, is_invalid)
                    // The caller's request was not sent, even if the renewal of its token was.
                    .map_err(Error::before_request)
                    .and_then(|outcome| outcome.map_err(|failure| failure.error))
                    .map_err(|error| error.after_attempts(may_have_acted.get()))
                    .map_err(|error| error.with_resource(resource_id))
            }
        };
        let response = response.map_err(Error::without_advice_to_repeat)?;
        Ok(ResponseDocument::new(response.response))
    }
}

fn method(name: &str) -> Result<Method> {
    let methods = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ];
    methods.into_iter().find(|method| method.as_str() == name).ok_or_else(|| {
        Error::invalid_argument(
            "method",
            "method must be GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS",
        )
    })
}

/// Safe methods (RFC 9110, section 9.2.1) may be repeated, unless the caller says otherwise.
fn idempotency(method: &Method, given: Option<bool>) -> Idempotency {
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    match given.unwrap_or(is_safe) {
        true => Idempotency::Idempotent,
        false => Idempotency::NonIdempotent,
    }
}

fn pairs(parameter: &str, fields: &Map<String, Value>) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for (name, value) in fields {
        let values = match value {
            Value::Array(values) => values.iter().collect(),
            value => vec![value],
        };
        for value in values {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Array(_) | Value::Object(_) => {
                    let key = format!("{parameter}.{name}");
                    let message =
                        format!("{key} must be a string, number or boolean, or a list of them");
                    return Err(Error::invalid_argument(key, message));
                }
            };
            pairs.push((name.clone(), text));
        }
    }
    Ok(pairs)
}

fn headers(params: &RequestParams) -> Result<Vec<(HeaderName, &str)>> {
    let mut headers = Vec::new();
    for (name, value) in &params.headers {
        let key = format!("headers.{name}");
        let refused = |why: &str| Error::invalid_argument(key.clone(), format!("{key} {why}"));
        let known =
            HeaderName::try_from(name).map_err(|_| refused("is not a valid header name"))?;
        let Value::String(value) = value else { return Err(refused("must be a string")) };
        HeaderValue::try_from(value)
            .map_err(|_| refused("contains a character that is not allowed in a header"))?;
        if !is_caller_settable(&known) {
            return Err(refused("is set by the library"));
        }
        if known == header::AUTHORIZATION && params.resource_id.is_some() {
            return Err(refused("is set by the library, with the token of resourceId"));
        }
        if headers.iter().any(|(other, _)| *other == known) {
            return Err(refused("is given twice"));
        }
        headers.push((known, value.as_str()));
    }
    Ok(headers)
}

/// The body as bytes. Adds its content type to the headers, unless the caller has set one.
fn body(
    params: &RequestParams,
    headers: &mut Vec<(HeaderName, &str)>,
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let given = headers.iter().find(|(name, _)| *name == header::CONTENT_TYPE);
    let is_form =
        given.is_some_and(|(_, given)| media_type(given) == "application/x-www-form-urlencoded");
    let (usual, bytes) = match (&params.body, &params.body_base64) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(Error::invalid_argument("bodyBase64", "give body or bodyBase64, not both"));
        }
        (None, Some(encoded)) => {
            let not_base64 = |_| Error::invalid_argument("bodyBase64", "bodyBase64 is not base64");
            ("application/octet-stream", STANDARD.decode(encoded).map_err(not_base64)?)
        }
        (Some(value), None) if value.get().starts_with('"') => {
            let unreadable =
                |_| Error::invalid_argument("body", "body contains an invalid escape sequence");
            let text: String = serde_json::from_str(value.get()).map_err(unreadable)?;
            ("text/plain; charset=utf-8", text.into_bytes())
        }
        (Some(value), None) if is_form && value.get().starts_with('{') => {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(form_pairs(value)?);
            ("", form.finish().into_bytes())
        }
        (Some(value), None) => ("application/json", value.get().as_bytes().to_vec()),
    };
    if given.is_none() {
        headers.push((header::CONTENT_TYPE, usual));
    }
    Ok(Some(Zeroizing::new(bytes)))
}

/// The fields of a form, in the order of the JSON object. A number keeps its digits.
fn form_pairs(object: &RawValue) -> Result<Vec<(String, String)>> {
    let json::Members(members) = serde_json::from_str(object.get()).map_err(|_| {
        Error::invalid_argument("body", "a form field has a name with an invalid escape sequence")
    })?;
    let mut pairs = Vec::new();
    for (name, value) in members {
        let key = format!("body.{name}");
        let refused = || {
            let message = format!("{key} must be a string, number or boolean, or a list of them");
            Error::invalid_argument(&key, message)
        };
        let values: Vec<&RawValue> = match value.get().starts_with('[') {
            true => serde_json::from_str(value.get()).map_err(|_| refused())?,
            false => vec![value],
        };
        for value in values {
            let text = match value.get() {
                "null" => continue,
                text if text.starts_with('"') => {
                    serde_json::from_str(text).map_err(|_| refused())?
                }
                nested if nested.starts_with(['{', '[']) => return Err(refused()),
                literal => literal.to_owned(),
            };
            pairs.push((name.clone(), text));
        }
    }
    Ok(pairs)
}

/// The response for the caller: `{"status", "headers", "setCookies"?, "body", "bodyEncoding"}`.
pub struct ResponseDocument {
    pub status: u16,
    /// The headers by lower-case name. Values of a repeated header are joined.
    pub headers: Map<String, Value>,
    /// The values of `Set-Cookie`, which may contain commas and therefore cannot be joined.
    pub set_cookies: Vec<String>,
    pub body: BodyDocument,
}

/// The body of a [`ResponseDocument`].
pub enum BodyDocument {
    /// Valid JSON with a JSON content type, byte for byte.
    Json(Box<RawValue>),
    /// Other UTF-8 text.
    Text(String),
    /// Other bytes.
    Bytes(Zeroizing<Vec<u8>>),
}

impl ResponseDocument {
    fn new(mut response: Response) -> ResponseDocument {
        let headers = headers_to_json(&response.headers);
        let cookies = response.headers.get_all(header::SET_COOKIE);
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let set_cookies = cookies.iter().map(text).collect();
        let content_type =
            response.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = media_type(content_type.unwrap_or_default());
        let is_json = content_type == "application/json" || content_type.ends_with("+json");
        let body = match String::from_utf8(std::mem::take(&mut *response.body)) {
            Ok(text) => {
                let mut text = Zeroizing::new(text);
                match is_json.then(|| json::raw(&text)).flatten() {
                    Some(raw) => BodyDocument::Json(raw.to_owned()),
                    None => BodyDocument::Text(std::mem::take(&mut *text)),
                }
            }
            Err(other) => BodyDocument::Bytes(Zeroizing::new(other.into_bytes())),
        };
        ResponseDocument { status: response.status, headers, set_cookies, body }
    }
}

impl Serialize for ResponseDocument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ResponseDocument", 5)?;
        fields.serialize_field("status", &self.status)?;
        fields.serialize_field("headers", &self.headers)?;
        if !self.set_cookies.is_empty() {
            fields.serialize_field("setCookies", &self.set_cookies)?;
        }
        let encoding = match &self.body {
            BodyDocument::Json(raw) => {
                fields.serialize_field("body", raw)?;
                "json"
            }
            BodyDocument::Text(text) => {
                fields.serialize_field("body", text)?;
                "text"
            }
            BodyDocument::Bytes(bytes) => {
                fields.serialize_field("body", &STANDARD.encode(bytes))?;
                "base64"
            }
        };
        fields.serialize_field("bodyEncoding", encoding)?;
        fields.end()
    }
}

/// Headers by lower-case name. Values of a repeated header are joined (RFC 9110, section 5.3).
fn headers_to_json(headers: &HeaderMap) -> Map<String, Value> {
    let mut joined = Map::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match joined.get_mut(name.as_str()) {
            Some(Value::String(values)) => values.extend([", ", &value]),
            _ => {
                joined.insert(name.as_str().to_owned(), value.into());
            }
        }
    }
    joined
}

/// A content type without its parameters, in lower case.
fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
