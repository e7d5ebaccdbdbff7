//! Nonsensical responses that are valid HTTP and valid JSON. Each was found by fuzzing.

mod support;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Emulator, Endpoint, Rule};
use serde_json::{Value, json};
use support::*;

/// Answers the requests to an endpoint with this body and these headers.
fn answers(
    emulator: &Emulator,
    endpoint: Endpoint,
    status: u16,
    headers: &[(&str, &str)],
    body: &Value,
) {
    emulator.inject(Rule::on(endpoint), response(status, body, headers));
}

#[test]
fn excessive_retry_after_is_capped_at_a_day() {
    let (emulator, client, company) = with_company(1);
    let location = emulator.location_ids().remove(0);
    let for_ever = [("Retry-After", "18446744073709551615")];
    answers(&emulator, Endpoint::LocationToken, 429, &for_ever, &json!({}));
    let params = || json!({"companyId": company, "locationId": location});
    let error = client.oauth_location_token(params()).fails(Status::RateLimited);
    assert_eq!(error["retryAfterMs"], 86_400_000);
    // All calls are paused for a day and no longer.
    let error =
        client.oauth_installed_locations(json!({"companyId": company})).fails(Status::RateLimited);
    assert!((1..=86_400_000).contains(&error["retryAfterMs"].as_u64().unwrap()), "{error}");
}

#[test]
fn bearer_not_allowed_in_a_header_is_refused_by_name() {
    let (emulator, client) = with_client(1);
    let bearer = "hunter2-token\r\nX-Other: 1";
    for outcome in [
        client.oauth_location_token(
            json!({"companyId": "c", "locationId": "l", "accessToken": bearer}),
        ),
        client.oauth_installed_locations(json!({"companyId": "c", "accessToken": bearer})),
    ] {
        let error = outcome.refuses("accessToken");
        contains_none_of(&error.to_string(), &["hunter2-token"]);
    }
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn granted_token_not_allowed_in_a_header_is_a_protocol_error() {
    let (emulator, client) = with_client(1);
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
fn consent_whose_owner_id_is_invalid_fails() {
    let (emulator, client) = with_client(1);
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
fn refreshed_token_of_another_owner_is_not_returned_to_callers() {
    let (emulator, client, company) = with_company(1);
    answers(
        &emulator,
        Endpoint::Token,
        200,
        &[],
        &json!({
            "accessToken": "a", "refreshToken": "r", "expiresIn": "soon", "userType": "Location",
            "companyId": "d",
        }),
    );
    let old = client.access_token(&company).text();
    client.token_refresh(&company).fails(Status::ReauthorizationRequired);
    let metadata = client.listed(&company);
    assert_eq!(
        (&metadata["userType"], &metadata["state"]),
        (&json!("Company"), &json!("reauthorizationRequired"))
    );
    assert_eq!(
        client.access_token(&company).text(),
        old,
        "the old access token is used while it is valid"
    );
    // The stored token can be exported, and imported elsewhere.
    let exported = client.tokens_export(json!({})).ok();
    let other = Abi::new(&emulator);
    assert_eq!(other.tokens_import(exported).ok(), json!({"imported": 1, "skipped": []}));
    assert_eq!(other.access_token(&company).text(), old);
}

#[test]
fn minted_token_of_another_location_is_not_returned_to_callers() {
    let (emulator, client, _) = with_company(2);
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
fn listed_location_without_an_id_is_neither_returned_nor_minted() {
    let (emulator, client, company) = with_company(1);
    list_odd_locations(&emulator);
    for all in [false, true] {
        let list = client.oauth_installed_locations(json!({"companyId": company, "all": all})).ok();
        assert_eq!(list["items"], odd_locations());
    }
    let report =
        client.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
    let failed = report["failed"].as_array().unwrap();
    let tried: Vec<&str> =
        failed.iter().map(|failure| failure["locationId"].as_str().unwrap()).collect();
    assert_eq!(tried, ["l1"], "l1 is unknown to the emulator, and l2 is a row without the app");
}
