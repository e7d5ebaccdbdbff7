//! `POST /oauth/token` (the vendor's `get-access-token`): the token endpoint (RFC 6749, sections
//! 4.1.3, 4.4 and 6).

use std::sync::atomic::Ordering;

use serde::Deserialize;
use ureq::http::Method;
use zeroize::Zeroizing;

use super::field_names::{Casing, Name};
use super::token_response::parse_token_response;
use super::{Api, EndpointRequest, Failure, JSON, Outcome, fault, form, required, required_id};
use crate::config::Encoding;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::http::{Bucket, Idempotency};
use crate::secret::Secret;
use crate::token::{Token, UserType};

/// The fields of a token request, in the order in which they are sent.
const FIELDS: [Name; 7] = [
    ["clientId", "client_id"],
    ["clientSecret", "client_secret"],
    ["grantType", "grant_type"],
    ["code", "code"],
    ["refreshToken", "refresh_token"],
    ["userType", "user_type"],
    ["redirectUri", "redirect_uri"],
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    /// The code of a consent.
    AuthorizationCode,
    /// A refresh token; single use.
    RefreshToken,
    ClientCredentials,
}

impl GrantType {
    const fn name(self) -> &'static str {
        match self {
            GrantType::AuthorizationCode => "authorization_code",
            GrantType::RefreshToken => "refresh_token",
            GrantType::ClientCredentials => "client_credentials",
        }
    }
}

/// The parameters of a token request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[deny(missing_docs)]
pub struct TokenParams {
    /// The grant type.
    pub grant_type: GrantType,
    /// Required for `authorization_code`.
    pub code: Option<Secret>,
    /// Required for `refresh_token`.
    pub refresh_token: Option<Secret>,
    /// The kind of token to request.
    pub user_type: Option<UserType>,
    /// The redirect URI of the consent.
    pub redirect_uri: Option<String>,
    /// Default: the configured one.
    pub client_id: Option<String>,
    /// Default: the configured one.
    pub client_secret: Option<Secret>,
}

/// How a token request is retried, and which rate-limiter bucket it uses.
#[derive(Debug, Clone, Copy)]
pub enum TokenRetry<'a> {
    /// A code or a refresh token is sent again only if the request certainly had no effect. Uses no
    /// bucket.
    SingleUse,
    /// A refresh that the caller repeats within the replay window: each attempt leaves time for
    /// another. A 429 delays other refreshes of this company or location.
    Replay {
        /// The company or location.
        resource_id: &'a str,
    },
}

impl TokenParams {
    /// A refresh. Without `user_type` the API returns a token of the same kind.
    pub fn refresh(refresh_token: Secret, user_type: Option<UserType>) -> TokenParams {
        TokenParams {
            refresh_token: Some(refresh_token),
            ..TokenParams::of(GrantType::RefreshToken, user_type)
        }
    }

    /// The exchange of an authorization code.
    pub fn code(code: Secret, redirect_uri: String, user_type: Option<UserType>) -> TokenParams {
        TokenParams {
            code: Some(code),
            redirect_uri: Some(redirect_uri),
            ..TokenParams::of(GrantType::AuthorizationCode, user_type)
        }
    }

    fn of(grant_type: GrantType, user_type: Option<UserType>) -> TokenParams {
        TokenParams {
            grant_type,
            code: None,
            refresh_token: None,
            user_type,
            redirect_uri: None,
            client_id: None,
            client_secret: None,
        }
    }
}

impl Api {
    /// Requests a token. Stores nothing.
    ///
    /// If the response to a code is lost, the code is sent a second time, regardless of `retry`.
    pub fn token(
        &self,
        params: &TokenParams,
        retry: TokenRetry,
        now_ms: i64,
        deadline: &Deadline,
    ) -> Result<Token, Failure> {
        let (single_use, bucket) = match retry {
            TokenRetry::SingleUse => (Idempotency::SingleUse, None),
            TokenRetry::Replay { resource_id } => {
                (Idempotency::Replayable, Some(Bucket::TokenEndpoint(resource_id)))
            }
        };
        if let Some(client_id) = &params.client_id {
            required_id("clientId", Some(client_id))?;
        }
        if let Some(client_secret) = &params.client_secret {
            required_id("clientSecret", Some(client_secret.expose()))?;
        }
        let (secret, idempotency) = match params.grant_type {
            GrantType::AuthorizationCode => (Some(secret("code", &params.code)?), single_use),
            GrantType::RefreshToken => {
                (Some(secret("refreshToken", &params.refresh_token)?), single_use)
            }
            GrantType::ClientCredentials => (None, Idempotency::Idempotent),
        };
        let ask = || {
            let reply = self.token_fields.send(&FIELDS, |casing| {
                let call = EndpointRequest {
                    method: Method::POST,
                    target: self.token_uri.clone(),
                    bearer: None,
                    body: Some(self.token_body(params, casing)?),
                    secrets: [secret, params.client_secret.as_ref()],
                    idempotency,
                    bucket,
                };
                self.call(call, deadline)
            })?;
            parse_token_response(&reply, now_ms)
        };
        let outcome = ask();
        if params.grant_type != GrantType::AuthorizationCode {
            return outcome.map_err(|failure| client_credentials_error(failure, params.grant_type));
        }
        match outcome {
            Err(lost) if lost.outcome == Outcome::Unknown && deadline.check().is_ok() => {
                log::warn!(
                    "the response to an authorization code was lost; sending the code again"
                );
                self.counters().repeated.fetch_add(1, Ordering::Relaxed);
                ask()
                    .map_err(spent_code_error)
                    .map_err(|failure| Failure { error: failure.error.with_sent(true), ..failure })
            }
            outcome => outcome,
        }
        .map_err(code_failure)
    }

    fn token_body(
        &self,
        params: &TokenParams,
        casing: Casing,
    ) -> Result<(&'static str, Zeroizing<Vec<u8>>)> {
        let client_secret = params.client_secret.as_ref().unwrap_or(&self.client_secret);
        let values = [
            Some(params.client_id.as_deref().unwrap_or(&self.client_id)),
            Some(client_secret.expose()),
            Some(params.grant_type.name()),
            params.code.as_ref().map(Secret::expose),
            params.refresh_token.as_ref().map(Secret::expose),
            params.user_type.map(UserType::name),
            params.redirect_uri.as_deref(),
        ];
        let fields = FIELDS.into_iter().zip(values);
        let fields = fields.filter_map(move |(name, value)| Some((casing.of(name), value?)));
        match self.encoding {
            Encoding::Form => Ok(form(fields)),
            Encoding::Json => {
                let mut body = Zeroizing::new(Vec::with_capacity(4096));
                let unwritable = |_| {
                    Error::new(Status::Internal, "the token request could not be written as JSON")
                };
                let fields: std::collections::BTreeMap<_, _> = fields.collect();
                serde_json::to_writer(&mut *body, &fields).map_err(unwritable)?;
                Ok((JSON, body))
            }
        }
    }
}

/// A code is worth another try only if the server responded that it did not process it, or failed
/// to. Without a response, it has probably used the code up.
fn code_failure(failure: Failure) -> Failure {
    let Failure { error, outcome } = failure;
    let retryable = match error.http_status() {
        None => error.retryable() && error.sent() == Some(false),
        Some(_) => error.status().retryable() && error.status() != Status::Protocol,
    };
    Failure { error: error.with_retryable(retryable), outcome }
}

/// After a lost response, any rejection of the code means that the first request used it up.
fn spent_code_error(failure: Failure) -> Failure {
    match (failure.error.http_status(), failure.error.api().cloned()) {
        (Some(status @ (400 | 401)), Some(fault)) if failure.outcome == Outcome::Refused => {
            let message =
                "the response to the authorization code was lost, and its second use was rejected";
            let error = Error::new(Status::ReauthorizationRequired, message)
                .with_help("let the user consent again; the code is used up")
                .with_api(status, fault);
            Failure { error, ..failure }
        }
        _ => failure,
    }
}

/// Without a code in the request, "Authorization code not found" can only mean the client
/// credentials.
fn client_credentials_error(failure: Failure, grant_type: GrantType) -> Failure {
    let fault = failure.error.api().cloned();
    match (failure.error.http_status(), fault) {
        (Some(401), Some(fault)) if fault::says_code_not_found(&fault) => {
            let message =
                format!("the API rejected the client credentials for {}", grant_type.name());
            let error = Error::new(Status::Unauthorized, message)
                .with_help("check clientId and clientSecret; the stored token is unchanged")
                .with_api(401, fault)
                .with_sent(true);
            Failure { error, ..failure }
        }
        _ => failure,
    }
}

fn secret<'a>(parameter: &str, value: &'a Option<Secret>) -> Result<&'a Secret> {
    required(parameter, value.as_ref().map(Secret::expose))?;
    value
        .as_ref()
        .ok_or_else(|| Error::invalid_argument(parameter, format!("{parameter} is missing")))
}
