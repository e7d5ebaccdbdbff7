//! What the real API is known to answer when it refuses, word for word, whatever the reason was: several shapes of JSON, and
//! the page of the firewall before it.

use crate::answer::Answer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A refusal of the real API's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// The refresh token is spent, expired or unknown.
    InvalidGrant,
    /// The same in the form of RFC 6749.
    InvalidGrantCode,
    /// The location is paused, or its agency is.
    LocationInactive,
    /// A parameter has a value that is not allowed.
    InvalidParameter,
    /// A parameter is missing.
    MissingParameter,
    /// The path belongs to another version.
    RemovedEndpoint,
    /// The code, the client's id or its secret is wrong.
    CodeNotFound,
    /// The access token is dead.
    InvalidJwt,
    /// The same in other words.
    InvalidAccessToken,
    /// The `Version` header is missing.
    VersionMissing,
    /// The `Version` header names no version.
    VersionInvalid,
    /// The token lacks the scope.
    ScopeMissing,
    /// A company's token where a location's is wanted, or the reverse.
    AuthClass,
    /// The same in other words.
    UserTypeMismatch,
    /// The same in yet others.
    UserTypeUnsupported,
    /// The right class of token, and the wrong place.
    LocationForbidden,
    /// The page of the firewall before the API.
    FirewallPage,
    /// Nothing of that id, in the envelope of the newer endpoints.
    ResourceNotFound,
    /// Several messages at once.
    Unprocessable,
    /// The location is paused: the other status with which that is said.
    LocationInactive401,
    /// The token is good, but not for this location.
    LocationInaccessible,
    /// The client id or its secret is wrong, in words of their own.
    ClientCredentialsInvalid,
    /// The private integration token is unknown or was replaced.
    PrivateTokenInvalid,
    /// The class of the token does not fit the endpoint.
    AuthClassUnsupported,
    /// The same in the words of another service.
    IamUnsupported,
    /// A field has a name that this version of the endpoint does not know.
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

    /// What it says, several messages joined with `; `.
    pub fn words(self) -> &'static str {
        self.parts().1
    }

    /// The body of the answer.
    pub fn body(self) -> String {
        let (status, words) = self.parts();
        let trace_id = "3c2d55ac-60c6-46c9-8a28-96c02cd97f42";
        let body: Value = match self {
            Refusal::FirewallPage => return format!("<html><body>{words}</body></html>"),
            Refusal::InvalidGrantCode => json!({"error": "invalid_grant", "error_description": words}),
            Refusal::CodeNotFound => json!({"error": "UnAuthorized!", "error_description": words}),
            Refusal::ResourceNotFound => json!({
                "error": {"code": "RESOURCE_NOT_FOUND", "message": words, "details": {}, "resolution": "Check the id."},
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
                json!({"statusCode": status, "message": words, "error": "Unauthorized", "traceId": trace_id})
            }
            Refusal::RemovedEndpoint => {
                json!({"statusCode": status, "message": words, "error": "Bad Request", "traceId": trace_id})
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
            Refusal::AuthClass => {
                (401, "This authClass type is not allowed to access this scope. Please use another token")
            }
            Refusal::UserTypeMismatch => (401, "Token's user type mismatch!"),
            Refusal::UserTypeUnsupported => (401, "This token's user type is not yet supported!"),
            Refusal::LocationForbidden => (403, "The token does not have access to this location."),
            Refusal::FirewallPage => (403, "error code: 1010"),
            Refusal::ResourceNotFound => (404, "The requested resource was not found"),
            Refusal::Unprocessable => {
                (422, "grant_type must be a valid enum value; grant_type must be a string")
            }
            Refusal::LocationInactive401 => (401, "Location is not active"),
            Refusal::LocationInaccessible => (401, "This location is not accessible from this token!"),
            Refusal::ClientCredentialsInvalid => (401, "Invalid client credentials"),
            Refusal::PrivateTokenInvalid => (401, "Invalid Private Integration token"),
            Refusal::AuthClassUnsupported => (401, "E-102. This AuthClass is not yet supported!"),
            Refusal::IamUnsupported => {
                (401, "This route is not yet supported by the IAM Service. Please update your IAM config.")
            }
            Refusal::FieldNameUnknown => (422, "property client_id should not exist"),
        }
    }
}
