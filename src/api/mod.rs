//! The API's OAuth endpoints: request parameters in, typed responses out. Knows the wire and
//! nothing of storage.

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
    Bucket, Counters, Http, Idempotency, Request, Response, Transport, TransportError, UreqTransport,
    has_retry_after,
};
use crate::json;
use crate::secret::Secret;
use crate::token::{NO_TOKEN_TEXT, is_token_text};

use field_names::FieldNames;

pub(crate) use fault::{
    NO_VERSION, ends_every_mint, is_of_dead_token, says_dead_token, says_other_kind, without_secrets,
};
pub use installed_locations::{InstalledLocationsParams, Pages, installed_location_ids, location_ids};
pub use location_token::LocationTokenParams;
pub(crate) use raw_request::is_caller_settable;
pub use token::{GrantType, TokenParams, TokenRetry};

/// The longest part of an unreadable answer that an error repeats, in characters.
const EXCERPT: usize = 500;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// The API, as one app sees it.
pub struct Api {
    http: Http,
    base_url: String,
    /// Where tokens are granted, and where those of locations are minted.
    token_uri: Uri,
    location_token_uri: Uri,
    version: String,
    encoding: Encoding,
    client_id: String,
    client_secret: Secret,
    app_id: String,
    /// The casing of the fields that each of the two endpoints takes.
    token_fields: FieldNames,
    location_token_fields: FieldNames,
}

/// Why a call to the API gave no result, and what it may have done there.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: Error,
    /// What the server may have done.
    pub outcome: Outcome,
}

/// What a failed call may have done at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it was not sent, or refused before it was looked at (429, or 503 with `Retry-After`).
    NothingHappened,
    /// Nobody knows: it was sent, and no answer, or none that can be read, came back.
    Unknown,
    /// The server looked at it and said no.
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
    /// An error of our own, found before anything was sent.
    fn from(error: Error) -> Failure {
        Failure { error, outcome: Outcome::NothingHappened }
    }
}

impl Api {
    /// The API that a configuration describes.
    ///
    /// # Errors
    /// `CONFIG`, naming the key.
    pub fn new(config: &Config, clock: &Arc<dyn Clock>) -> Result<Api> {
        let transport = UreqTransport::new(&config.http, &config.timeouts, &config.limits)?;
        Api::over(config, clock, Box::new(transport))
    }

    /// The same, over a transport of one's own.
    ///
    /// # Errors
    /// `CONFIG`, naming the key.
    pub(crate) fn over(
        config: &Config,
        clock: &Arc<dyn Clock>,
        transport: Box<dyn Transport>,
    ) -> Result<Api> {
        let base_url = config.base_url.trim_end_matches('/');
        let below = |path| {
            let unusable = |_| Error::new(Status::Config, "baseUrl is too long").with_parameter("baseUrl");
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

    /// How many requests were made.
    pub fn counters(&self) -> &Counters {
        self.http.counters()
    }

    /// How the pace of the busiest companies and locations stands.
    pub fn rate_limits(&self) -> Value {
        self.http.rate_limits()
    }

    /// Sends one call and reads the object that it answers with.
    fn call<'a>(
        &'a self,
        call: EndpointRequest<'a>,
        deadline: &Deadline,
    ) -> Result<SuccessResponse<'a>, Failure> {
        if call.bearer.is_some_and(|bearer| !is_token_text(bearer.expose())) {
            return Err(Error::invalid_argument("accessToken", format!("accessToken {NO_TOKEN_TEXT}")).into());
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
            bucket: call.bucket,
        };
        let response = self.http.exchange(&request, deadline)?;
        let secrets = [Some(&self.client_secret), call.bearer].into_iter().chain(call.secrets);
        let secrets: Vec<&str> = secrets.flatten().map(Secret::expose).collect();
        if (200..300).contains(&response.status) {
            return Ok(SuccessResponse { response, secrets });
        }
        let error = fault::error(&response, &secrets);
        let outcome = match response.status {
            429 => Outcome::NothingHappened,
            503 if has_retry_after(&response) => Outcome::NothingHappened,
            // A timeout inside the API says nothing about what became of the request.
            400..=499 if error.status() != Status::Server => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        Err(Failure { error, outcome })
    }
}

fn uri(base_url: &str, path: &str, query: Option<&str>) -> Result<Uri, InvalidUri> {
    Uri::try_from(match query {
        Some(query) => format!("{base_url}{path}?{query}"),
        None => format!("{base_url}{path}"),
    })
}

/// Encoded pairs are no reason why a URL cannot be one, unless there is too much of them: the longest is to blame.
fn too_long(query: &str) -> Error {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let longest = pairs.max_by_key(|(_, value)| value.len()).map(|(name, _)| name);
    let name = longest.as_deref().unwrap_or("baseUrl");
    Error::invalid_argument(name, format!("{name} is too long for a URL"))
}

/// One call, before it is written down for the wire.
struct EndpointRequest<'a> {
    method: Method,
    target: Uri,
    bearer: Option<&'a Secret>,
    /// The content type and the body.
    body: Option<(&'a str, Zeroizing<Vec<u8>>)>,
    /// Secrets in the body, so that an answer that repeats them can be censored.
    secrets: [Option<&'a Secret>; 2],
    idempotency: Idempotency,
    bucket: Option<Bucket<'a>>,
}

/// Writes a form, whose names need no encoding; the text is wiped after use, for it may hold secrets.
fn form<'a>(
    fields: impl IntoIterator<Item = (&'a str, &'a str), IntoIter: Clone>,
) -> (&'static str, Zeroizing<Vec<u8>>) {
    let fields = fields.into_iter();
    // Room for everything at once, each byte of a value as %XX: a text that grows leaves pieces of itself behind.
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

/// Whether a value has none of the characters that a form encodes: nearly every token and id. All of it is looked at, many
/// bytes in one step.
fn is_unreserved(value: &str) -> bool {
    value
        .bytes()
        .fold(true, |all, byte| all & (byte.is_ascii_alphanumeric() | matches!(byte, b'-' | b'.' | b'_')))
}

/// A 2xx answer.
struct SuccessResponse<'a> {
    response: Response,
    /// What an error must not repeat of it.
    secrets: Vec<&'a str>,
}

impl SuccessResponse<'_> {
    /// The JSON object that it must be.
    fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.response.body).map_err(|_| {
            self.unexpected("is not a JSON object", fault::unreadable(&self.response, &self.secrets))
        })
    }

    /// Its fields, in camelCase.
    fn fields(&self) -> Result<Map<String, Value>, Failure> {
        Ok(json::in_camel_case(self.read()?))
    }

    /// The failure that it is when it is not what the contract says: whatever it stood for has happened.
    fn unexpected(&self, why: &str, fault: ApiFault) -> Failure {
        let status = self.response.status;
        let error = Error::new(Status::Protocol, format!("the API answered {status}, but the answer {why}"))
            .with_help("a proxy between here and the API may have answered; try again")
            .with_api(status, fault);
        Failure { error, outcome: Outcome::Unknown }
    }
}

/// An id decides whose data a request concerns: it must be present, without white space around it.
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

/// No id and no client secret of the API begins or ends with white space: one that does was copied badly.
fn one_word(parameter: &str, value: &str) -> Result<()> {
    if value.trim() != value || value.chars().any(char::is_control) {
        let message = format!("{parameter} begins or ends with white space, or holds a control character");
        return Err(Error::invalid_argument(parameter, message));
    }
    Ok(())
}
