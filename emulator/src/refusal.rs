//! Known error responses of the real API, byte for byte: several JSON shapes, and the page of the
//! firewall in front of it.

use crate::answer::Answer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An error response of the real API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// The refresh token is used, expired or unknown.
    InvalidGrant,
    /// The same error in the format of RFC 6749.
    InvalidGrantCode,
    /// The location or its agency is paused.
    LocationInactive,
    /// A parameter has an invalid value.
    InvalidParameter,
    /// A parameter is missing.
    MissingParameter,
    /// The path belongs to another API version.
    RemovedEndpoint,
    /// The code, the client ID or the client secret is wrong.
    CodeNotFound,
    /// The access token is invalid.
    InvalidJwt,
    /// The same error with another message.
    InvalidAccessToken,
    /// The `Version` header is missing.
    VersionMissing,
    /// The `Version` header is invalid.
    VersionInvalid,
    /// The token lacks the scope.
    ScopeMissing,
    /// A company token for a location endpoint, or the reverse.
    AuthClass,
    /// The same error with another message.
    UserTypeMismatch,
    /// The same error with a third message.
    UserTypeUnsupported,
    /// A token of the right class, but for another location.
    LocationForbidden,
    /// The page of the firewall in front of the API.
    FirewallPage,
    /// An unknown ID, in the error format of the newer endpoints.
    ResourceNotFound,
    /// Several messages at once.
    Unprocessable,
    /// The location is paused, with status 401.
    LocationInactive401,
    /// The token is valid, but not for this location.
    LocationInaccessible,
    /// The client ID or secret is wrong, with a message of its own.
    ClientCredentialsInvalid,
    /// The private integration token is unknown or was replaced.
    PrivateTokenInvalid,
    /// The endpoint does not support this class of token.
    AuthClassUnsupported,
    /// The same error with the message of another service.
    IamUnsupported,
    /// The endpoint does not accept this field name in this version.
    FieldNameUnknown,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Refusal; 26] = [
        Refusal::InvalidGrant,
        Refusal::InvalidGrantCode,
        Refusal::LocationInactive,
        Refusal::InvalidParameter,
        Refusal::MissingParameter,
        Refusal::RemovedEndpoint,
        Refusal::CodeNotFound,
        Refusal::InvalidJwt,
        Refusal::InvalidAccessToken,
        Refusal::VersionMissing,
        Refusal::VersionInvalid,
        Refusal::ScopeMissing,
        Refusal::AuthClass,
        Refusal::UserTypeMismatch,
        Refusal::UserTypeUnsupported,
        Refusal::LocationForbidden,
        Refusal::FirewallPage,
        Refusal::ResourceNotFound,
        Refusal::Unprocessable,
        Refusal::LocationInactive401,
        Refusal::LocationInaccessible,
        Refusal::ClientCredentialsInvalid,
        Refusal::PrivateTokenInvalid,
        Refusal::AuthClassUnsupported,
        Refusal::IamUnsupported,
        Refusal::FieldNameUnknown,
    ];

    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.parts().0
    }

    /// Its error message; several messages are joined with `; `.
    pub fn words(self) -> &'static str {
        self.parts().1
    }

    /// The body of the response.
    pub fn body(self) -> String {
        let (status, words) = self.parts();
        let trace_id = "3c2d55ac-60c6-46c9-8a28-96c02cd97f42";
        let body: Value = match self {
            Refusal::FirewallPage => return format!("<html><body>{words}</body></html>"),
            Refusal::InvalidGrantCode => {
                json!({"error": "invalid_grant", "error_description": words})
            }
            Refusal::CodeNotFound => json!({"error": "UnAuthorized!", "error_description": words}),
            Refusal::ResourceNotFound => json!({
                "error": {
                    "code": "RESOURCE_NOT_FOUND", "message": words, "details": {},
                    "resolution": "Check the id.",
                },
                "traceId": trace_id,
            }),
            Refusal::Unprocessable | Refusal::FieldNameUnknown => json!({
                "message": words.split("; ").collect::<Vec<_>>(),
                "error": "Unprocessable Entity",
                "statusCode": status,
                "traceId": trace_id,
            }),
            Refusal::ClientCredentialsInvalid
            | Refusal::PrivateTokenInvalid
            | Refusal::AuthClassUnsupported
            | Refusal::IamUnsupported => {
                json!({
                    "statusCode": status, "message": words, "error": "Unauthorized",
                    "traceId": trace_id,
                })
            }
            Refusal::RemovedEndpoint => {
                json!({
                    "statusCode": status, "message": words, "error": "Bad Request",
                    "traceId": trace_id,
                })
            }
            _ => json!({"statusCode": status, "message": words, "traceId": trace_id}),
        };
        body.to_string()
    }

    pub(crate) fn answer(self) -> Answer {
        let content_type = match self {
            Refusal::FirewallPage => "text/html; charset=utf-8",
            _ => "application/json; charset=utf-8",
        };
        Answer {
            status: self.status(),
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: self.body().into_bytes(),
        }
    }

    const fn parts(self) -> (u16, &'static str) {
        match self {
            Refusal::InvalidGrant => (400, "Invalid grant: refresh token is invalid"),
            Refusal::InvalidGrantCode => (400, "The refresh token is invalid"),
            Refusal::LocationInactive => (400, "Location is not active"),
            Refusal::InvalidParameter => (400, "Invalid parameter: grantType"),
            Refusal::MissingParameter => (400, "Missing parameter: clientId"),
            Refusal::RemovedEndpoint => {
                (400, "Endpoint GET /oauth/installedLocations was removed in version v3")
            }
            Refusal::CodeNotFound => (401, "Authorization code not found"),
            Refusal::InvalidJwt => (401, "Invalid JWT"),
            Refusal::InvalidAccessToken => (401, "Invalid token: access token is invalid"),
            Refusal::VersionMissing => (401, "version header was not found."),
            Refusal::VersionInvalid => (401, "version header is invalid"),
            Refusal::ScopeMissing => (401, "The token is not authorized for this scope."),
            Refusal::AuthClass => (
                401,
                "This authClass type is not allowed to access this scope. Please use another token",
            ),
            Refusal::UserTypeMismatch => (401, "Token's user type mismatch!"),
            Refusal::UserTypeUnsupported => (401, "This token's user type is not yet supported!"),
            Refusal::LocationForbidden => (403, "The token does not have access to this location."),
            Refusal::FirewallPage => (403, "error code: 1010"),
            Refusal::ResourceNotFound => (404, "The requested resource was not found"),
            Refusal::Unprocessable => {
                (422, "grant_type must be a valid enum value; grant_type must be a string")
            }
            Refusal::LocationInactive401 => (401, "Location is not active"),
            Refusal::LocationInaccessible => {
                (401, "This location is not accessible from this token!")
            }
            Refusal::ClientCredentialsInvalid => (401, "Invalid client credentials"),
            Refusal::PrivateTokenInvalid => (401, "Invalid Private Integration token"),
            Refusal::AuthClassUnsupported => (401, "E-102. This AuthClass is not yet supported!"),
            Refusal::IamUnsupported => (
                401,
                "This route is not yet supported by the IAM Service. Please update your IAM \
                 config.",
            ),
            Refusal::FieldNameUnknown => (422, "property client_id should not exist"),
        }
    }
}
