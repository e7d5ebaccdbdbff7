//! Error mapping: maps every form of the API's error responses to a [`Status`], and redacts
//! secrets.

use serde_json::{Map, Value};

use super::EXCERPT;
use crate::error::{ApiFault, Error, Status};
use crate::http::{Response, requested_delay};

/// The messages of the 401s that a new access token fixes. After any other 401 a refresh would be
/// useless.
const INVALID_TOKEN_MESSAGES: [&str; 2] = ["invalid jwt", "access token is invalid"];

/// The message for an unknown authorization code, also sent for wrong client credentials.
const CODE_NOT_FOUND: &str = "authorization code not found";

/// The help text for an app version that the API or its consent page does not find.
pub const NO_VERSION: &str = "pass versionId to ghl_authorization_url, which a draft or private \
                              app needs, and check clientId";

/// The error for a response that is not 2xx.
pub fn error(response: &Response, secrets: &[&str]) -> Error {
    let fault = read(response, secrets);
    let (status, help) = meaning(response.status, &fault);
    let message = match &fault.message {
        Some(words) => format!("the API answered {}: {words}", response.status),
        None => format!("the API answered {}", response.status),
    };
    let mut error = Error::new(status, message).with_retry_after(requested_delay(response));
    // A redirect comes from a wrong base URL.
    if (300..400).contains(&response.status) {
        error = error.with_retryable(false);
    }
    if !help.is_empty() {
        error = error.with_help(help);
    }
    error.with_api(response.status, fault)
}

pub fn says_invalid_token(error: &Error) -> bool {
    let words = error.api().map(lowercase_message).unwrap_or_default();
    error.http_status() == Some(401)
        && INVALID_TOKEN_MESSAGES.iter().any(|message| words.contains(message))
}

/// The API's message in lower case. Empty for a page of a proxy or a firewall.
fn lowercase_message(fault: &ApiFault) -> String {
    fault.message.as_deref().filter(|_| fault.is_of_api).unwrap_or_default().to_ascii_lowercase()
}

/// Whether a rejected mint means that every other mint will be rejected: the company's token is
/// invalid or lacks the scope, or the API version is wrong.
pub fn fails_every_mint(error: &Error) -> bool {
    let words = error.api().map(lowercase_message).unwrap_or_default();
    let of_all = ["not authorized for this scope", "version header"];
    says_invalid_token(error)
        || error.http_status() == Some(401) && of_all.iter().any(|part| words.contains(part))
}

/// Whether the API timed out internally, perhaps after processing the request: `Command timed out`,
/// with any HTTP status.
pub fn is_transient(fault: &ApiFault) -> bool {
    let in_code =
        fault.code.as_deref().is_some_and(|code| code.eq_ignore_ascii_case("command timed out"));
    fault.is_of_api && (in_code || lowercase_message(fault).contains("command timed out"))
}

/// Whether an error says that the token is of the other kind (company or location). A refresh token
/// in the request was not used up then.
pub fn says_wrong_token_kind(error: &Error) -> bool {
    let words = error.api().map(lowercase_message).unwrap_or_default();
    error.http_status() == Some(401) && words.contains("user type mismatch")
}

/// Whether an error says that the authorization code is unknown.
pub fn says_code_not_found(fault: &ApiFault) -> bool {
    lowercase_message(fault).contains(CODE_NOT_FOUND)
}

/// Whether a refusal is about the code or refresh token (`invalid_grant`, RFC 6749, section 5.2),
/// and not about the grant type. `words` is the message in lower case.
fn says_invalid_grant(code: &str, words: &str) -> bool {
    let is_of_type = |rest: &str| rest.trim_start_matches([' ', '_']).starts_with("type");
    code.eq_ignore_ascii_case("invalid_grant")
        || ["invalid grant", "invalid_grant"]
            .iter()
            .any(|text| words.split(text).skip(1).any(|rest| !is_of_type(rest)))
}

pub fn is_invalid_token_response(response: &Response) -> bool {
    response.status == 401 && says_invalid_token(&error(response, &[]))
}

/// The status and the help text for a response.
fn meaning(http_status: u16, fault: &ApiFault) -> (Status, &'static str) {
    known(http_status, fault).unwrap_or(match http_status {
        401 => (
            Status::Unauthorized,
            "check clientId and clientSecret, and that the app is still installed",
        ),
        403 => (
            Status::Forbidden,
            "check that the app is installed there, and that no firewall blocks the request",
        ),
        404 => (Status::NotFound, "check the ID, baseUrl and apiVersion"),
        408 => (Status::Timeout, "try again"),
        429 => (Status::RateLimited, "wait, then try again"),
        400..=499 => (Status::InvalidRequest, "correct the request as the API's message says"),
        500..=599 => (Status::Server, "try again later"),
        300..=399 => (Status::Protocol, "check baseUrl; redirects are not followed"),
        _ => (Status::Protocol, ""),
    })
}

/// The status and the help text for a message or code that only the API sends.
fn known(http_status: u16, fault: &ApiFault) -> Option<(Status, &'static str)> {
    let code = fault.code.as_deref().unwrap_or_default();
    let words = lowercase_message(fault);
    let says = |part: &str| words.contains(part);
    let names = |part: &str| words.contains(part) || code.to_ascii_lowercase().contains(part);

    if is_transient(fault) {
        return Some((
            Status::Server,
            "try again; the API timed out internally, which says nothing about the token or the \
             credentials",
        ));
    }
    if (400..500).contains(&http_status) {
        if says("location is not active") {
            return Some((
                Status::LocationInactive,
                "try again once the location is active: it is paused or its subscription ended; \
                 its token is kept",
            ));
        }
        if says_invalid_grant(code, &words) || says(CODE_NOT_FOUND) {
            return Some((
                Status::ReauthorizationRequired,
                "let the user consent again: the code or refresh token was used, has expired or \
                 belongs to another app, or the app was uninstalled; if it was new, check clientId \
                 and clientSecret",
            ));
        }
        if names("noappversionidfound") || names("no integration found") {
            return Some((Status::InvalidRequest, NO_VERSION));
        }
        if code == "RESOURCE_NOT_FOUND" {
            return Some((Status::NotFound, "check the ID, and that the app is installed there"));
        }
    }
    Some(match http_status {
        401 if says("version header") => (Status::InvalidRequest, "check apiVersion"),
        401 if says("not authorized for this scope") => {
            (Status::Forbidden, "add the scope to the app and let the user consent again")
        }
        401 if says("authclass") || says("user type") || says("iam service") => (
            Status::Forbidden,
            "use the other kind of token for this endpoint, the company's or the location's",
        ),
        401 if says("not accessible from this token") => (
            Status::Forbidden,
            "check that the app is installed in this location, and for which company",
        ),
        401 if names("invalid client credentials") => (
            Status::Unauthorized,
            "check clientId and clientSecret: both must be from the same client key, which may \
             have been deleted",
        ),
        401 if says("invalid private integration token") => (
            Status::Unauthorized,
            "import the current private integration token from the account's settings: this one \
             was rotated or deleted",
        ),
        401 if INVALID_TOKEN_MESSAGES.iter().any(|message| words.contains(message)) => (
            Status::Unauthorized,
            "check that the app is still installed; the API no longer accepts the access token",
        ),
        _ => return None,
    })
}

/// Whether an error has one of the API's forms, which a gateway's `{"message": …}` has not.
fn has_api_form(body: &Map<String, Value>) -> bool {
    let is_text = |name: &str| body.get(name).is_some_and(Value::is_string);
    body.get("statusCode").is_some_and(Value::is_number) && body.contains_key("message")
        || is_text("error") && is_text("error_description")
        || is_text("traceId")
        // A gateway's code is a number.
        || body.get("error").is_some_and(|envelope| envelope["code"].is_string())
}

fn read(response: &Response, secrets: &[&str]) -> ApiFault {
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(&response.body) else {
        return unreadable(response, secrets);
    };
    let mut fault = parsed(response, &body, secrets);
    fault.is_of_api = has_api_form(&body) || known(response.status, &fault).is_some();
    fault
}

/// Parses any of the API's error formats.
fn parsed(response: &Response, body: &Map<String, Value>, secrets: &[&str]) -> ApiFault {
    // {"error": {"code", "message", "details", "resolution"}}
    if let Some(Value::Object(envelope)) = body.get("error") {
        return ApiFault {
            code: string(envelope, "code", secrets),
            message: string(envelope, "message", secrets)
                .or_else(|| string(body, "message", secrets)),
            details: redacted(envelope.get("details").cloned().unwrap_or_default(), secrets),
            resolution: string(envelope, "resolution", secrets),
            trace_id: trace_id(response, body, secrets)
                .or_else(|| trace_id(response, envelope, secrets)),
            is_of_api: true,
        };
    }
    // {"statusCode", "message": string or list, "error"?}, or {"error", "error_description"}
    ApiFault {
        code: string(body, "error", secrets),
        message: string(body, "message", secrets)
            .or_else(|| string(body, "error_description", secrets)),
        details: Value::Null,
        resolution: None,
        trace_id: trace_id(response, body, secrets),
        is_of_api: true,
    }
}

/// A response that is not a JSON object: quotes its beginning.
pub fn unreadable(response: &Response, secrets: &[&str]) -> ApiFault {
    let words = String::from_utf8_lossy(&response.body);
    // Redact before truncating: a secret that is cut in half would not be found.
    let mut words = without_secrets(words.trim(), secrets);
    // An unreadable success may contain the new token.
    if (200..300).contains(&response.status) {
        words = format!("({} bytes, hidden because they may contain a token)", response.body.len());
    }
    let message = words.chars().take(EXCERPT).collect::<String>();
    ApiFault {
        message: (!message.is_empty()).then_some(message),
        trace_id: trace_id(response, &Map::new(), secrets),
        ..ApiFault::default()
    }
}

/// The server's ID of the request, from the body or a header.
pub fn trace_id(
    response: &Response,
    body: &Map<String, Value>,
    secrets: &[&str],
) -> Option<String> {
    let header = || response.headers.get("x-trace-id")?.to_str().ok();
    body.get("traceId")
        .and_then(Value::as_str)
        .or_else(header)
        .map(|id| without_secrets(id, secrets))
}

fn string(body: &Map<String, Value>, name: &str, secrets: &[&str]) -> Option<String> {
    let words = match body.get(name)? {
        Value::String(words) => words.clone(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
        Value::Null => return None,
        other => other.to_string(),
    };
    (!words.is_empty()).then(|| without_secrets(&words, secrets))
}

fn redacted(details: Value, secrets: &[&str]) -> Value {
    match details {
        Value::String(words) => without_secrets(&words, secrets).into(),
        Value::Array(list) => list.into_iter().map(|value| redacted(value, secrets)).collect(),
        Value::Object(map) => map
            .into_iter()
            .map(|(name, value)| (without_secrets(&name, secrets), redacted(value, secrets)))
            .collect(),
        other => other,
    }
}

/// Redacts these secrets in any encoding, and everything that looks like a JWT: a failing server
/// may quote a token that it has just issued and the library does not know yet.
pub fn without_secrets(words: &str, secrets: &[&str]) -> String {
    let mut words = words.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        // No encoding is shorter than the secret.
        if secret.len() > words.len() {
            continue;
        }
        words = redact(&words.replace(secret, "…"), |rest| escaped_length(rest, secret));
    }
    redact(&words, jwt_length)
}

/// Replaces every match of `length`, which returns the length of a match at the start of its
/// argument, in bytes.
fn redact(words: &str, length: impl Fn(&str) -> Option<usize>) -> String {
    let mut kept = String::with_capacity(words.len());
    let mut rest = words;
    while let Some(character) = rest.chars().next() {
        rest = match length(rest) {
            Some(length) => {
                kept.push('…');
                &rest[length..]
            }
            None => {
                kept.push(character);
                &rest[character.len_utf8()..]
            }
        };
    }
    kept
}

/// The length of the secret at the start of these words, with each character plain or escaped (URL,
/// form, JSON or HTML).
fn escaped_length(words: &str, secret: &str) -> Option<usize> {
    let mut rest = words.as_bytes();
    for byte in secret.bytes() {
        let length = escaped(rest).filter(|(meant, _)| *meant == byte).map(|(_, length)| length);
        rest = match length {
            Some(length) => &rest[length..],
            None => rest.strip_prefix(&[byte])?,
        };
    }
    // The match must not end inside a multi-byte character.
    let length = words.len() - rest.len();
    words.is_char_boundary(length).then_some(length)
}

/// The byte that the escape sequence at the start encodes, and the length of the sequence.
fn escaped(words: &[u8]) -> Option<(u8, usize)> {
    let number = |from: usize, to: usize, radix: u32| {
        let digits = std::str::from_utf8(words.get(from..to)?).ok()?;
        u8::from_str_radix(digits, radix).ok()
    };
    let entity = || words.iter().take(8).position(|byte| *byte == b';');
    match *words {
        [b'%', ..] => Some((number(1, 3, 16)?, 3)),
        [b'+', ..] => Some((b' ', 1)),
        [b'\\', b'u', b'0', b'0', ..] => Some((number(4, 6, 16)?, 6)),
        [b'\\', byte, ..] => Some((byte, 2)),
        [b'&', b'#', b'x' | b'X', ..] => {
            entity().and_then(|end| Some((number(3, end, 16)?, end + 1)))
        }
        [b'&', b'#', ..] => entity().and_then(|end| Some((number(2, end, 10)?, end + 1))),
        [b'&', ..] => {
            let end = entity()?;
            let named =
                [("amp", b'&'), ("lt", b'<'), ("gt", b'>'), ("quot", b'"'), ("apos", b'\'')];
            let (_, meant) = named.iter().find(|(name, _)| name.as_bytes() == &words[1..end])?;
            Some((*meant, end + 1))
        }
        _ => None,
    }
}

/// The length of the JWT at the start of these words. `eyJ` is its header's `{"` in base64; the
/// minimum length excludes words such as "keyJob".
fn jwt_length(words: &str) -> Option<usize> {
    const MIN_LENGTH: usize = 20;
    if !words.starts_with("eyJ") {
        return None;
    }
    let belongs = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let length = words.bytes().take_while(belongs).count();
    (length >= MIN_LENGTH).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderMap;
    use zeroize::Zeroizing;

    fn response(status: u16, body: &str) -> Response {
        Response {
            status,
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    #[test]
    fn vendor_responses_map_to_status_codes() {
        use Status::*;
        for (status, body, expected, is_invalid) in [
            (
                400,
                r#"{"statusCode":400,"message":"Invalid grant: refresh token is invalid"}"#,
                ReauthorizationRequired,
                false,
            ),
            (400, r#"{"error":"invalid_grant"}"#, ReauthorizationRequired, false),
            (
                400,
                r#"{"error":"invalid_grant","error_description":"gone"}"#,
                ReauthorizationRequired,
                false,
            ),
            (400, r#"{"error":{"code":"INVALID_GRANT"}}"#, ReauthorizationRequired, false),
            (400, r#"{"message":{"error":"invalid_grant"}}"#, ReauthorizationRequired, false),
            (400, r#"{"message":"Invalid grant_type","error":"x"}"#, InvalidRequest, false),
            (400, r#"{"message":"Invalid grant type: refresh"}"#, InvalidRequest, false),
            (400, r#"{"error":{},"message":"Location is not active"}"#, LocationInactive, false),
            (
                400,
                r#"{"statusCode":400,"message":"Location is not active"}"#,
                LocationInactive,
                false,
            ),
            (
                400,
                r#"{"statusCode":400,"message":"Invalid parameter: grantType"}"#,
                InvalidRequest,
                false,
            ),
            (
                400,
                r#"{"statusCode":400,"message":"Endpoint x was removed in version v3","error":"Bad Request"}"#,
                InvalidRequest,
                false,
            ),
            (
                401,
                r#"{"error":"UnAuthorized!","error_description":"Authorization code not found"}"#,
                ReauthorizationRequired,
                false,
            ),
            (401, r#"{"statusCode":401,"message":"Invalid JWT"}"#, Unauthorized, true),
            (
                401,
                r#"{"statusCode":401,"message":"Invalid token: access token is invalid"}"#,
                Unauthorized,
                true,
            ),
            (
                401,
                r#"{"statusCode":401,"message":"version header was not found."}"#,
                InvalidRequest,
                false,
            ),
            (
                401,
                r#"{"statusCode":401,"message":"The token is not authorized for this scope."}"#,
                Forbidden,
                false,
            ),
            (
                401,
                r#"{"statusCode":401,"message":"This authClass type is not allowed to access this scope. Please…"}"#,
                Forbidden,
                false,
            ),
            (
                401,
                r#"{"statusCode":401,"message":"Token's user type mismatch!"}"#,
                Forbidden,
                false,
            ),
            (
                401,
                r#"{"statusCode":401,"message":"This token's user type is not yet supported!"}"#,
                Forbidden,
                false,
            ),
            (401, r#"{"statusCode":401,"message":"Something new"}"#, Unauthorized, false),
            (401, r#"{"statusCode":401,"message":"Command timed out"}"#, Server, false),
            (401, r#"{"statusCode":401,"message":{"text":"Command timed out"}}"#, Server, false),
            (401, r#"{"error":"Command timed out"}"#, Server, false),
            (
                401,
                r#"{"statusCode":401,"message":"Location is not active"}"#,
                LocationInactive,
                false,
            ),
            (
                401,
                r#"{"message":"This location is not accessible from this token!"}"#,
                Forbidden,
                false,
            ),
            (401, r#"{"message":"E-102. This AuthClass is not yet supported!"}"#, Forbidden, false),
            (
                401,
                r#"{"message":"This route is not yet supported by the IAM Service."}"#,
                Forbidden,
                false,
            ),
            (401, r#"{"message":"Invalid client credentials"}"#, Unauthorized, false),
            (401, r#"{"message":"Invalid Private Integration token"}"#, Unauthorized, false),
            (400, r#"{"error":"noAppVersionIdFound"}"#, InvalidRequest, false),
            (400, r#"{"message":"No integration found with the id: 6"}"#, InvalidRequest, false),
            (
                403,
                r#"{"statusCode":403,"message":"The token does not have access to this location."}"#,
                Forbidden,
                false,
            ),
            (403, "<html>error code: 1010</html>", Forbidden, false),
            (
                404,
                r#"{"error":{"code":"RESOURCE_NOT_FOUND","message":"no such"}}"#,
                NotFound,
                false,
            ),
            (
                400,
                r#"{"error":{"code":"RESOURCE_NOT_FOUND","message":"no such"}}"#,
                NotFound,
                false,
            ),
            (
                422,
                r#"{"message":["a must be b","c"],"error":"Unprocessable Entity","statusCode":422}"#,
                InvalidRequest,
                false,
            ),
            (429, "", RateLimited, false),
            (500, "<html>oops</html>", Server, false),
            (503, r#"{"message":"Location is not active"}"#, Server, false),
            (302, "", Protocol, false),
        ] {
            let error = error(&response(status, body), &[]);
            assert_eq!(error.status(), expected, "{status} {body}");
            assert_eq!(says_invalid_token(&error), is_invalid, "{status} {body}");
        }
    }

    #[test]
    fn every_error_shape_is_parsed() {
        let list = error(
            &response(
                422,
                r#"{"message":["a must be b","c"],"error":"Unprocessable Entity","traceId":"t-1"}"#,
            ),
            &[],
        );
        let fault = list.api().unwrap();
        assert_eq!(fault.message.as_deref(), Some("a must be b; c"));
        assert_eq!(fault.trace_id.as_deref(), Some("t-1"));
        let aip = error(
            &response(
                404,
                r#"{"error":{"code":"X","message":"m","details":{"a":1},"resolution":"r"}}"#,
            ),
            &[],
        );
        let fault = aip.api().unwrap();
        assert_eq!((fault.code.as_deref(), fault.resolution.as_deref()), (Some("X"), Some("r")));
        assert_eq!(fault.details, serde_json::json!({"a": 1}));
        let page = error(&response(502, &"x".repeat(5000)), &[]);
        assert_eq!(page.api().unwrap().message.as_ref().map(String::len), Some(EXCERPT));
    }

    #[test]
    fn secrets_echoed_by_the_server_are_redacted() {
        for body in [
            r#"{"message":"bad secret hunter2"}"#,
            r#"{"error":{"code":"X","message":"hunter2","details":{"got":["hunter2"]},"resolution":"not hunter2"}}"#,
            r#"{"error":"hunter2","error_description":"hunter2"}"#,
            "<p>hunter2</p>",
        ] {
            let shown = error(&response(400, body), &["hunter2"]).to_json().to_string();
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let success = unreadable(&response(200, r#"{"accessToken":"fresh"#), &[]);
        assert!(!success.message.unwrap().contains("fresh"));
    }

    #[test]
    fn secret_is_found_in_every_encoding() {
        let secret = "s+ec/r%et \"7&<ü>\\'~*";
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let url = form.replace('+', "%20").replace("%7E", "~");
        let json = serde_json::to_string(secret).unwrap().trim_matches('"').to_owned();
        let unicode = secret.replace('+', "\\u002b").replace('"', "\\u0022").replace('/', "\\/");
        let named = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let html = named.replace('"', "&quot;").replace('\'', "&#39;").replace('/', "&#x2F;");
        let mixed = form.replace("%22", "\\u0022").replace("%26", "&amp;");
        for spelling in
            [secret.to_owned(), form.to_lowercase(), form, url, json, unicode, html, mixed]
        {
            let words = format!("ä{spelling} is not {spelling}. %, \\ and & stay");
            assert_eq!(
                without_secrets(&words, &[secret]),
                "ä… is not …. %, \\ and & stay",
                "{spelling}"
            );
        }
        let others = "s+ec, s%2, &#, &#999999;, %zz, \\u00, \\u, \\, %C3";
        assert_eq!(without_secrets(others, &[secret, "", "\u{fc}x"]), others);
    }

    #[test]
    fn text_that_looks_like_a_token_is_never_shown() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJnaGwifQ.c2lnbmF0dXJl-_8";
        let words = format!("granted {token}, \"access_token\":\"{token}\", t=%22{token}%22 x");
        let shown = "granted …, \"access_token\":\"…\", t=%22…%22 x";
        assert_eq!(without_secrets(&words, &[]), shown);
        assert_eq!(
            without_secrets("the keyJob of eyJ is short", &[]),
            "the keyJob of eyJ is short"
        );
    }
}
