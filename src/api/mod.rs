//! The API's OAuth endpoints: request parameters in, typed responses out. Independent of storage.

mod fault;
mod field_names;
mod installed_locations;
mod location_token;
mod raw_request;
mod token;
mod token_response;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use ureq::http::uri::InvalidUri;
use ureq::http::{HeaderName, Method, Uri, header};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{Config, Encoding};
use crate::deadline::Deadline;
use crate::error::{ApiFault, Error, Result, Status};
use crate::http::{
    Answer, Bucket, Counters, Http, Idempotency, Request, Response, Transport, TransportError,
    UreqTransport, is_refusal_unprocessed,
};
use crate::json;
use crate::secret::Secret;
use crate::token::{NO_TOKEN_TEXT, is_token_text};

use field_names::FieldNames;

pub(crate) use fault::{
    NO_VERSION, fails_every_mint, is_invalid_token_response, says_invalid_token,
    says_wrong_token_kind, without_secrets,
};
pub use installed_locations::{
    InstalledLocationsParams, Pages, installed_location_ids, location_ids,
};
pub use location_token::LocationTokenParams;
pub(crate) use raw_request::is_caller_settable;
pub use token::{GrantType, TokenParams, TokenRetry};

/// How much of a response that is not JSON an error quotes, in characters.
const EXCERPT: usize = 500;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

pub struct Api {
    http: Http,
    base_url: String,
    token_uri: Uri,
    location_token_uri: Uri,
    version: String,
    encoding: Encoding,
    client_id: String,
    client_secret: Secret,
    app_id: String,
    // The field-name casing that each endpoint accepts.
    token_fields: FieldNames,
    location_token_fields: FieldNames,
}

/// A failed call to the API.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    /// The effect on the server.
    pub outcome: Outcome,
}

/// The effect that a failed call had on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No effect: it was not sent, or refused before it was processed (429, or 503 with
    /// `Retry-After`).
    NothingHappened,
    /// Unknown: it was sent, and no readable response arrived.
    Unknown,
    /// The server processed and rejected it.
    Refused,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        failure.error
    }
}

impl From<TransportError> for Failure {
    fn from(failure: TransportError) -> Failure {
        let outcome = if failure.sent { Outcome::Unknown } else { Outcome::NothingHappened };
        Failure { error: failure.error, outcome }
    }
}

impl From<Error> for Failure {
    /// An error that the library detected before sending anything.
    fn from(error: Error) -> Failure {
        Failure { error, outcome: Outcome::NothingHappened }
    }
}

impl Api {
    /// The endpoints of the configured API. Opens no connection yet.
    pub fn new(config: &Config, clock: &Arc<dyn Clock>) -> Result<Api> {
        let transport =
            UreqTransport::new(&config.base_url, &config.http, &config.timeouts, &config.limits)?;
        Api::over(config, clock, Box::new(transport))
    }

    /// Like [`Api::new`], with another transport.
    pub(crate) fn over(
        config: &Config,
        clock: &Arc<dyn Clock>,
        transport: Box<dyn Transport>,
    ) -> Result<Api> {
        let base_url = config.base_url.trim_end_matches('/');
        let below = |path| {
            let unusable =
                |_| Error::new(Status::Config, "baseUrl is too long").with_parameter("baseUrl");
            uri(base_url, path, None).map_err(unusable)
        };
        Ok(Api {
            http: Http::new(&config.retry, &config.rate_limit, clock, transport),
            token_uri: below("/oauth/token")?,
            location_token_uri: below("/oauth/location-token")?,
            base_url: base_url.to_owned(),
            version: config.api_version.clone(),
            encoding: config.token_request_encoding,
            client_id: config.client_id.clone(),
            client_secret: config.client_secret.clone(),
            app_id: config.app_id().to_owned(),
            token_fields: FieldNames::default(),
            location_token_fields: FieldNames::default(),
        })
    }

    pub fn counters(&self) -> &Counters {
        self.http.counters()
    }

    /// The rate limiter's state for the busiest companies and locations.
    pub fn rate_limits(&self) -> Value {
        self.http.rate_limits()
    }

    /// Sends a request and classifies its response.
    fn call<'a>(
        &'a self,
        call: EndpointRequest<'a>,
        deadline: &Deadline,
    ) -> Result<SuccessResponse<'a>, Failure> {
        if call.bearer.is_some_and(|bearer| !is_token_text(bearer.expose())) {
            return Err(Error::invalid_argument(
                "accessToken",
                format!("accessToken {NO_TOKEN_TEXT}"),
            )
            .into());
        }
        let mut headers = vec![(HeaderName::from_static("version"), self.version.as_str())];
        if let Some((content_type, _)) = &call.body {
            headers.push((header::CONTENT_TYPE, content_type));
        }
        let request = Request {
            method: call.method,
            uri: call.target,
            headers,
            bearer: call.bearer,
            body: call.body.as_ref().map(|(_, body)| &body[..]),
            idempotency: call.idempotency,
            is_single_attempt: false,
            bucket: call.bucket,
        };
        let Answer { response, may_have_acted_before, is_cut_short } =
            self.http.exchange(&request, deadline)?;
        let secrets = [Some(&self.client_secret), call.bearer].into_iter().chain(call.secrets);
        let secrets: Vec<&str> = secrets.flatten().map(Secret::expose).collect();
        if (200..300).contains(&response.status) {
            return Ok(SuccessResponse { response, secrets, idempotency: call.idempotency });
        }
        let error = fault::error(&response, &secrets);
        let error = if is_cut_short { error.into_cut_short() } else { error };
        let outcome = match response.status {
            _ if is_refusal_unprocessed(&response) => Outcome::NothingHappened,
            // A timeout inside the API leaves open whether the request had an effect.
            400..=499 if error.status() != Status::Server => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        let sent = outcome != Outcome::NothingHappened || may_have_acted_before;
        let is_repeatable =
            outcome != Outcome::Unknown || call.idempotency.may_be_repeated_by_caller();
        let retryable = error.retryable() && is_repeatable;
        let error = error
            .with_sent(sent)
            .with_retryable(retryable)
            .with_earlier_attempts(may_have_acted_before);
        Err(Failure { error, outcome })
    }
}

fn uri(base_url: &str, path: &str, query: Option<&str>) -> Result<Uri, InvalidUri> {
    Uri::try_from(match query {
        Some(query) => format!("{base_url}{path}?{query}"),
        None => format!("{base_url}{path}"),
    })
}

/// The error for a URL that is too long, the only way in which encoded pairs make it invalid. Names
/// the parameter with the longest value.
fn too_long(query: &str) -> Error {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let longest = pairs.max_by_key(|(_, value)| value.len()).map(|(name, _)| name);
    let name = longest.as_deref().unwrap_or("baseUrl");
    Error::invalid_argument(name, format!("{name} is too long for a URL"))
}

struct EndpointRequest<'a> {
    method: Method,
    target: Uri,
    bearer: Option<&'a Secret>,
    /// The content type and the body.
    body: Option<(&'a str, Zeroizing<Vec<u8>>)>,
    /// Secrets in the body, to be redacted if the response repeats them.
    secrets: [Option<&'a Secret>; 2],
    idempotency: Idempotency,
    bucket: Option<Bucket<'a>>,
}

/// Encodes a form. The names must need no encoding. The result is zeroized after use, because it
/// may contain secrets.
fn form<'a>(
    fields: impl IntoIterator<Item = (&'a str, &'a str), IntoIter: Clone>,
) -> (&'static str, Zeroizing<Vec<u8>>) {
    let fields = fields.into_iter();
    // Reserves the maximum, with each byte as %XX: a string that grows leaves copies behind.
    let room = |value: &str| if is_unreserved(value) { value.len() } else { 3 * value.len() };
    let most = fields.clone().map(|(name, value)| name.len() + room(value) + "&=".len()).sum();
    let mut form = String::with_capacity(most);
    for (name, value) in fields {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        if is_unreserved(value) {
            form.push_str(value);
        } else {
            form.extend(form_urlencoded::byte_serialize(value.as_bytes()));
        }
    }
    (FORM, Zeroizing::new(form.into_bytes()))
}

/// Whether a value needs no form encoding. No early exit, so that the compiler can vectorize the
/// loop.
fn is_unreserved(value: &str) -> bool {
    value.bytes().fold(true, |all, byte| {
        all & (byte.is_ascii_alphanumeric() | matches!(byte, b'-' | b'.' | b'_'))
    })
}

/// A 2xx response.
struct SuccessResponse<'a> {
    response: Response,
    /// Secrets that an error must not quote.
    secrets: Vec<&'a str>,
    idempotency: Idempotency,
}

impl SuccessResponse<'_> {
    /// Parses the JSON object.
    fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.response.body).map_err(|_| {
            self.unexpected(
                "is not a JSON object",
                fault::unreadable(&self.response, &self.secrets),
            )
        })
    }

    /// The fields, in camelCase.
    fn fields(&self) -> Result<Map<String, Value>, Failure> {
        Ok(json::in_camel_case(self.read()?))
    }

    /// The failure for a response that violates the API's contract. The request may have had its
    /// effect.
    fn unexpected(&self, why: &str, fault: ApiFault) -> Failure {
        let status = self.response.status;
        // HTML or XML: another server than the API responds at this URL.
        let is_page = self.response.body.trim_ascii_start().starts_with(b"<");
        let error = Error::new(
            Status::Protocol,
            format!("the API answered {status}, but the response {why}"),
        )
        .with_help("try again; a proxy may have answered instead of the API")
        .with_api(status, fault)
        .with_sent(true)
        .with_retryable(!is_page && self.idempotency.may_be_repeated_by_caller());
        Failure { error, outcome: Outcome::Unknown }
    }
}

/// Checks that an ID is present and has no white space around it.
fn required_id<'a>(parameter: &str, id: Option<&'a str>) -> Result<&'a str> {
    let id = required(parameter, id)?;
    one_word(parameter, id).map(|()| id)
}

fn required<'a>(parameter: &str, value: Option<&'a str>) -> Result<&'a str> {
    match value {
        Some(value) if !value.trim().is_empty() => Ok(value),
        Some(_) => Err(Error::invalid_argument(parameter, format!("{parameter} is empty"))),
        None => Err(Error::invalid_argument(parameter, format!("{parameter} is missing"))),
    }
}

/// Detects copy-and-paste mistakes: no ID or secret of the API has white space around it.
fn one_word(parameter: &str, value: &str) -> Result<()> {
    if value.trim() != value || value.chars().any(char::is_control) {
        let message =
            format!("{parameter} begins or ends with white space, or contains a control character");
        return Err(Error::invalid_argument(parameter, message));
    }
    Ok(())
}
