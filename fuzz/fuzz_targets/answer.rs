//! One or more arbitrary server responses to every kind of request.
//!
//! The first byte selects the request. The responses follow in wire format, except that the status
//! line contains only the status: status, headers, an empty line, body. A byte 0x1e separates
//! responses.

#![no_main]

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::*;
use ghl_oauth::internals::fuzzing::{CannedAnswer, answer_with};
use ghl_oauth_fuzz::{
    ACCESS_TOKEN, Abi, CLIENT_SECRET, CODE, COMPANY, Outcome, REFRESH_TOKEN, watch_for,
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Some((choice, answers)) = data.split_first() else { return };
    let Some(answers) = answers.split(|byte| *byte == 0x1e).map(read).collect::<Option<Vec<_>>>()
    else {
        return;
    };
    // A secret sent with the request must not be returned from its response.
    watch_for([CLIENT_SECRET].into_iter().chain(match choice {
        b'c' | b'o' => Some(CODE),
        b'l' | b'i' | b'j' => Some(ACCESS_TOKEN),
        b'k' | b'm' => None,
        _ => Some(REFRESH_TOKEN),
    }));
    let client = Abi::with_company();
    let state = client.call(ghl_authorization_url, "{}").1["state"].take();
    answer_with(answers);
    match choice {
        b'c' => {
            let params = json!({
                "grantType": "authorization_code", "code": CODE,
                "redirectUri": "https://app.example",
            });
            is_a_token(&client.call(ghl_oauth_token, &params.to_string()), &[]);
        }
        b'r' => {
            let params = json!({"grantType": "refresh_token", "refreshToken": REFRESH_TOKEN});
            is_a_token(&client.call(ghl_oauth_token, &params.to_string()), &[]);
        }
        b'k' => {
            let outcome = client.call(ghl_oauth_token, r#"{"grantType":"client_credentials"}"#);
            is_a_token(&outcome, &[]);
            assert!(
                !outcome.is_one_of(&[Status::InvalidArgument, Status::Config]),
                "{}",
                outcome.1
            );
        }
        b'l' => {
            let params = json!({
                "companyId": COMPANY, "locationId": "location-1", "accessToken": ACCESS_TOKEN,
            });
            let outcome = client.call(ghl_oauth_location_token, &params.to_string());
            is_a_token(&outcome, &["userType", "companyId", "locationId"]);
        }
        b'i' | b'j' => {
            let params =
                json!({"companyId": COMPANY, "accessToken": ACCESS_TOKEN, "all": *choice == b'j'});
            let outcome = client.call(ghl_oauth_installed_locations, &params.to_string());
            assert!(outcome.0 != 0 || outcome.1.is_object(), "{}", outcome.1);
            assert!(
                outcome.0 != 0 || *choice == b'i' || outcome.1["items"].is_array(),
                "{}",
                outcome.1
            );
        }
        b'o' => {
            let redirect = json!({"redirectUrl": format!(
                "https://app.example/oauth/callback?code={CODE}&state={}",
                state.as_str().unwrap()
            )});
            let outcome = client.call(ghl_authorization_complete, &redirect.to_string());
            if outcome.0 == 0 {
                // The returned ID must be valid for the other functions.
                let resource_id = outcome.1["resourceId"].as_str().unwrap();
                let found = client.call(ghl_token_delete, resource_id);
                assert_eq!(found.0, 0, "{}", found.1);
            }
        }
        b'm' => {
            client.access_token("location-1");
        }
        b'n' => {
            client.maintain("{}");
        }
        _ => {
            client.access_token(COMPANY);
        }
    }
    let stats = client.stats();
    assert_eq!(stats["tokens"]["unsaved"], 0, "{stats}");
    client.round_trips_through_export();
});

/// Parses one response, or nothing without a status.
fn read(answer: &[u8]) -> Option<CannedAnswer> {
    let mut lines = answer.split(|byte| *byte == b'\n');
    let status = std::str::from_utf8(lines.next()?).ok()?.parse().ok()?;
    let mut headers = Vec::new();
    // Only a complete line ends with a line feed; the rest is the body.
    let mut at = answer.iter().position(|byte| *byte == b'\n').map_or(answer.len(), |end| end + 1);
    for line in lines {
        at = (at + line.len() + 1).min(answer.len());
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
        headers.push((line[..colon].to_vec(), line[colon + 1..].trim_ascii().to_vec()));
    }
    // RFC 9110, section 15: three digits, and 1xx are no final responses.
    (200..1000).contains(&status).then(|| CannedAnswer {
        status,
        headers,
        body: answer[at..].to_vec(),
    })
}

/// Asserts that a success is a usable token that also has these fields.
fn is_a_token(outcome: &Outcome, fields: &[&str]) {
    if outcome.0 == 0 {
        let text = |name: &str| outcome.1[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(text("accessToken"), "{}", outcome.1);
        assert!(fields.iter().all(|name| text(name)), "{}", outcome.1);
        assert!(outcome.1["expiresAt"].as_i64().is_some(), "{}", outcome.1);
        assert!(
            matches!(outcome.1.get("refreshToken"), None | Some(Value::String(_))),
            "{}",
            outcome.1
        );
    }
}
