//! JWTs that look like the real tokens: true claims, and noise as the signature.
//!
//! The emulator never trusts a claim: a token is valid only if it is on record.

use crate::directory::App;
use crate::grant::Grant;
use crate::random::{unpredictable, unpredictable_hex};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Creates an access token, about 900 bytes with a few scopes.
pub(crate) fn access_token(
    app: &App,
    grant: &Grant,
    issued_at_ms: i64,
    expires_at_ms: i64,
) -> String {
    let claims = json!({
        "authClass": grant.user_type.as_str(),
        "authClassId": grant.resource_id(),
        "source": "INTEGRATION",
        "sourceId": app.client_id,
        "channel": "OAUTH",
        "primaryAuthClassId": grant.resource_id(),
        "oauthMeta": {
            "scopes": grant.scope.split(' ').collect::<Vec<_>>(),
            "client": app.id,
            "versionId": app.version_id,
            "clientKey": app.client_id,
        },
        "iat": issued_at_ms.div_euclid(1_000),
        "exp": expires_at_ms.div_euclid(1_000),
    });
    jwt(&claims, &unpredictable::<256>())
}

/// Creates a refresh token, about 400 bytes.
pub(crate) fn refresh_token(
    app: &App,
    grant: &Grant,
    issued_at_ms: i64,
    expires_at_ms: i64,
) -> String {
    let claims = json!({
        "authClass": grant.user_type.as_str(),
        "authClassId": grant.resource_id(),
        "cid": app.client_id,
        "iat": issued_at_ms.div_euclid(1_000),
        "exp": expires_at_ms.div_euclid(1_000),
        "uniqueId": unpredictable_hex::<16>(),
    });
    jwt(&claims, &unpredictable::<112>())
}

fn jwt(claims: &Value, signature: &[u8]) -> String {
    let header = json!({"alg": "RS256", "typ": "JWT"}).to_string();
    let claims = claims.to_string();
    let parts = [header.as_bytes(), claims.as_bytes(), signature];
    parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}
