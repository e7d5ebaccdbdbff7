//! Answers that are valid HTTP and valid JSON, and still nonsense: each was found by a fuzzer.

mod support;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Emulator, Endpoint, FaultKind, Rule, Stage};
use serde_json::{Value, json};
use support::*;

/// Answers the requests of one kind with a body and headers of the test's own.
fn answers(emulator: &Emulator, endpoint: Endpoint, status: u16, headers: &[(&str, &str)], body: &Value) {
    emulator.inject(
        Rule::on(endpoint),
        FaultKind::Status {
            status,
            body: body.to_string(),
            content_type: None,
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            stage: Stage::BeforeProcessing,
        },
    );
}

#[test]
fn a_wait_beyond_all_time_is_a_day() {
    let emulator = emulator(1);
    let client = Abi::new(&emulator);
    let company = client.connect_company(&emulator);
    let location = emulator.location_ids().remove(0);
    let for_ever = [("Retry-After", "18446744073709551615")];
    answers(&emulator, Endpoint::LocationToken, 429, &for_ever, &json!({}));
    let params = || json!({"companyId": company, "locationId": location});
    let error = client.oauth_location_token(params()).fails(Status::RateLimited);
    assert_eq!(error["retryAfterMs"], 86_400_000);
    // Everyone is held back for as long, and nobody for longer.
    let error = client.oauth_installed_locations(json!({"companyId": company})).fails(Status::RateLimited);
    assert!((1..=86_400_000).contains(&error["retryAfterMs"].as_u64().unwrap()), "{error}");
}

#[test]
fn a_bearer_that_no_header_can_carry_is_refused_by_name() {
    let emulator = emulator(1);
    let client = Abi::new(&emulator);
    let bearer = "hunter2-token\r\nX-Other: 1";
    for outcome in [
        client.oauth_location_token(json!({"companyId": "c", "locationId": "l", "accessToken": bearer})),
        client.oauth_installed_locations(json!({"companyId": "c", "accessToken": bearer})),
    ] {
        let error = outcome.refuses("accessToken");
        shows_none_of(&error.to_string(), &["hunter2-token"]);
    }
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn a_granted_token_that_no_header_can_carry_is_none() {
    let emulator = emulator(1);
    let client = Abi::new(&emulator);
    answers(
        &emulator,
        Endpoint::Token,
        200,
        &[],
        &json!({"accessToken": "two\nlines", "companyId": "c", "userType": "Company"}),
    );
    client.oauth_token(json!({"grantType": "client_credentials"})).fails(Status::Protocol);
}

#[test]
fn a_consent_for_an_owner_whom_no_call_could_name_is_no_success() {
    let emulator = emulator(1);
    let client = Abi::new(&emulator);
    let redirect_url =
        client.consent(&emulator, ghl_oauth_emulator::Decision::Company(emulator.company_id()));
    answers(
        &emulator,
        Endpoint::Token,
        200,
        &[],
        &json!({"accessToken": "a", "userType": "Company", "companyId": "two\nlines"}),
    );
    client.authorization_complete(json!({"redirectUrl": redirect_url})).fails(Status::Protocol);
    assert_eq!(client.tokens_list(json!({})).ok()["items"], json!([]));
}

#[test]
fn refresh_answered_with_another_owners_token_is_handed_out_to_no_caller() {
    let emulator = emulator(1);
    let client = Abi::new(&emulator);
    let company = client.connect_company(&emulator);
    answers(
        &emulator,
        Endpoint::Token,
        200,
        &[],
        &json!({"accessToken": "a", "refreshToken": "r", "expiresIn": "soon", "userType": "Location", "companyId": "d"}),
    );
    let old = client.access_token(&company).text();
    client.token_refresh(&company).fails(Status::Protocol);
    let metadata = client.listed(&company);
    assert_eq!(
        (&metadata["userType"], &metadata["state"]),
        (&json!("Company"), &json!("reauthorizationRequired"))
    );
    assert_eq!(client.access_token(&company).text(), old, "the old access token serves while it is valid");
    // What is held can be exported, and imported elsewhere.
    let exported = client.tokens_export(json!({})).ok();
    let other = Abi::new(&emulator);
    assert_eq!(other.tokens_import(exported).ok(), json!({"imported": 1, "skipped": []}));
    assert_eq!(other.access_token(&company).text(), old);
}

#[test]
fn a_minted_token_for_another_location_is_handed_to_nobody() {
    let emulator = emulator(2);
    let client = Abi::new(&emulator);
    client.connect_company(&emulator);
    let locations = emulator.location_ids();
    answers(
        &emulator,
        Endpoint::LocationToken,
        201,
        &[],
        &json!({"accessToken": "a", "locationId": locations[1]}),
    );
    client.access_token(&locations[0]).fails(Status::Protocol);
    assert_eq!(client.tokens_list(json!({"userType": "Location"})).ok()["items"], json!([]));
}

#[test]
fn what_is_listed_without_an_id_is_handed_on_and_minted_by_nobody() {
    let emulator = emulator(1);
    let client = Abi::new(&emulator);
    let company = client.connect_company(&emulator);
    list_odd_locations(&emulator);
    for all in [false, true] {
        let list = client.oauth_installed_locations(json!({"companyId": company, "all": all})).ok();
        assert_eq!(list["items"], odd_locations());
    }
    let report = client.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
    let failed = report["failed"].as_array().unwrap();
    let tried: Vec<&str> = failed.iter().map(|failure| failure["locationId"].as_str().unwrap()).collect();
    assert_eq!(tried, ["l1"], "it is unknown to the emulator, and l2 is a row without the app");
}
