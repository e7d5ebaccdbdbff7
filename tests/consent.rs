//! Consent: validation of redirects, and the exchange of their codes.

mod support;

use std::thread;
use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth_emulator::{
    Decision, Emulator, Endpoint, FaultKind, GrantType, Options, Refusal, Rule, Stage,
};
use serde_json::{Value, json};

use support::{Abi, emulator, fields, query, response, sent, with_client, with_company};

const MINUTE: Duration = Duration::from_secs(60);

fn codes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::AuthorizationCode)
}

/// A company's consent to a link of this client. Returns the redirect URL.
fn consented(abi: &Abi, emulator: &Emulator) -> String {
    abi.consent(emulator, Decision::Company(emulator.company_id()))
}

/// The URL with one query parameter changed or removed.
fn with_parameter(url: &str, name: &str, value: Option<&str>) -> String {
    let mut parameters = query(url);
    match value {
        Some(value) => parameters.insert(name.to_owned(), value.to_owned()),
        None => parameters.remove(name),
    };
    let (target, _) = url.split_once('?').unwrap();
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("{target}?{query}")
}

#[test]
fn redirect_to_another_address_is_refused_with_both_addresses_and_the_cause() {
    let (emulator, abi) = with_client(1);
    let redirect = consented(&abi, &emulator);
    let (expected, query) = redirect.split_once('?').unwrap();
    let path = expected.splitn(4, '/').nth(3).unwrap();
    for (given, shown, cause) in [
        (
            format!("http://internal:8000/{path}"),
            format!("http://internal:8000/{path}"),
            "behind a proxy",
        ),
        (
            format!("https://user:hidden@internal/{path}"),
            format!("https://internal/{path}"),
            "behind a proxy",
        ),
        (format!("{expected}/"), format!("{expected}/"), "developer portal"),
        (format!("{expected}/other"), format!("{expected}/other"), "full URL"),
    ] {
        let refused =
            abi.authorization_complete(json!({"redirectUrl": format!("{given}?{query}")}));
        let error = refused.refuses("redirectUrl");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("it is {shown}, not {expected}")), "{message}");
        assert!(error["help"].as_str().unwrap().contains(cause), "{error}");
        for secret in ["code=", "state=", "hidden"] {
            assert!(!error.to_string().contains(secret), "{error}");
        }
    }
    abi.authorization_complete(json!({"redirectUrl": redirect})).ok();
}

#[test]
fn redirect_without_the_right_state_is_refused_and_its_code_not_sent() {
    let (emulator, abi) = with_client(1);
    let (one, two) = (consented(&abi, &emulator), consented(&abi, &emulator));
    let state = query(&one)["state"].clone();
    for (name, params) in [
        ("no state", json!({"redirectUrl": with_parameter(&one, "state", None)})),
        ("an empty state", json!({"redirectUrl": with_parameter(&one, "state", Some(""))})),
        (
            "an unknown state",
            json!({"redirectUrl": with_parameter(&one, "state", Some("unknown"))}),
        ),
        (
            "part of a state",
            json!({"redirectUrl": with_parameter(&one, "state", Some(&state[1..]))}),
        ),
        ("another session's", json!({"redirectUrl": two, "state": state})),
        ("no session's", json!({"redirectUrl": two, "state": "unknown"})),
        (
            "a session, but no state",
            json!({"redirectUrl": with_parameter(&one, "state", None), "state": state}),
        ),
        (
            "a session, and the marketplace's",
            json!({
                "redirectUrl": with_parameter(&one, "state", None), "state": state,
                "allowMissingState": true,
            }),
        ),
        (
            "an unknown one from the marketplace",
            json!({
                "redirectUrl": with_parameter(&one, "state", Some("unknown")),
                "allowMissingState": true,
            }),
        ),
    ] {
        let error = abi.authorization_complete(params).fails(Status::StateMismatch);
        assert_eq!(error["retryable"], false, "{name}");
        assert!(error["help"].as_str().unwrap().contains("new link"), "{name}: {error}");
    }
    let twice = json!({"redirectUrl": format!("{one}&state={state}")});
    abi.authorization_complete(twice).refuses("redirectUrl");
    assert_eq!(sent(&emulator), [""; 0]);
    assert_eq!(abi.tokens_list(json!({})).ok()["items"], json!([]));
    for redirect_url in [one, two] {
        abi.authorization_complete(json!({"redirectUrl": redirect_url})).ok();
    }
}

#[test]
fn state_is_valid_once() {
    let (emulator, abi) = with_client(1);
    let redirect_url = consented(&abi, &emulator);
    let state = query(&redirect_url)["state"].clone();
    abi.authorization_complete(json!({"redirectUrl": redirect_url})).ok();
    assert_eq!(sent(&emulator), ["code 200"]);
    for params in [
        json!({"redirectUrl": redirect_url}),
        json!({"redirectUrl": redirect_url, "state": state}),
        json!({"redirectUrl": redirect_url, "allowMissingState": true}),
    ] {
        abi.authorization_complete(params).fails(Status::StateMismatch);
    }
    assert_eq!(sent(&emulator), [""; 0]);
    abi.live_token(&emulator, &emulator.company_id());
}

/// Completes the same consent on eight threads.
#[track_caller]
fn one_of_eight_succeeds(abi: &Abi, emulator: &Emulator, params: &Value) {
    let hold = emulator.hold(codes(), Stage::BeforeProcessing);
    let mut results = support::call_concurrently(
        8,
        || abi.authorization_complete(params.clone()).0,
        || hold.release(),
    );
    results.sort_unstable();
    let mut expected = [Status::StateMismatch.code(); 8];
    expected[0] = 0;
    assert_eq!(results, expected);
    assert_eq!(sent(emulator), ["code 200"]);
}

#[test]
fn same_redirect_completed_twice_concurrently_succeeds_once() {
    let (emulator, abi) = with_client(1);
    let redirect_url = consented(&abi, &emulator);
    one_of_eight_succeeds(&abi, &emulator, &json!({"redirectUrl": redirect_url}));
}

#[test]
fn consent_link_is_valid_for_an_hour() {
    for (age, accepted) in [(59 * MINUTE, true), (61 * MINUTE, false)] {
        let (emulator, abi) = with_client(1);
        let link = abi.authorization_url(json!({})).ok();
        emulator.clock().advance(age);
        // The code itself is valid.
        let decision = Decision::Company(emulator.company_id());
        let redirect_url = emulator.consent(link["url"].as_str().unwrap(), decision).unwrap();
        let outcome = abi.authorization_complete(json!({"redirectUrl": redirect_url}));
        if accepted {
            outcome.ok();
        } else {
            outcome.fails(Status::StateMismatch);
            assert_eq!(sent(&emulator), [""; 0]);
        }
    }
}

#[test]
fn marketplace_installation_without_a_state_is_accepted_only_on_request() {
    let (emulator, abi) = with_client(1);
    let link = abi.authorization_url(json!({})).ok();
    let stateless = with_parameter(link["url"].as_str().unwrap(), "state", None);
    let decision = Decision::Company(emulator.company_id());
    let redirect_url = emulator.consent(&stateless, decision).unwrap();
    assert!(!redirect_url.contains("state"), "{redirect_url}");
    for params in [
        json!({"redirectUrl": redirect_url}),
        json!({"redirectUrl": redirect_url, "allowMissingState": false}),
    ] {
        abi.authorization_complete(params).fails(Status::StateMismatch);
    }
    abi.authorization_complete(json!({"redirectUrl": redirect_url, "allowMissingState": true}))
        .ok();
    abi.live_token(&emulator, &emulator.company_id());
}

#[test]
fn state_kept_by_the_host_is_valid_once_in_another_process() {
    let emulator = emulator(1);
    let (here, there) = (Abi::new(&emulator), Abi::new(&emulator));
    let redirect_url = consented(&here, &emulator);
    let state = query(&redirect_url)["state"].clone();
    there.authorization_complete(json!({"redirectUrl": redirect_url})).fails(Status::StateMismatch);
    assert_eq!(sent(&emulator), [""; 0]);
    there.authorization_complete(json!({"redirectUrl": redirect_url, "state": state})).ok();
    there.live_token(&emulator, &emulator.company_id());
    sent(&emulator);
    let again = json!({"redirectUrl": redirect_url, "state": state});
    there.authorization_complete(again).fails(Status::StateMismatch);
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn state_chosen_by_the_host_is_returned_to_it() {
    let (emulator, abi) = with_client(1);
    let link = abi.authorization_url(json!({"state": "user 7 & browser é"})).ok();
    assert_eq!(link["state"], "user 7 & browser é");
    let decision = Decision::Company(emulator.company_id());
    let redirect_url = emulator.consent(link["url"].as_str().unwrap(), decision).unwrap();
    abi.authorization_complete(json!({"redirectUrl": redirect_url, "state": "user 7 & browser é"}))
        .ok();
}

#[test]
fn denied_consent_has_its_own_error() {
    let (emulator, abi) = with_client(1);
    let denied = abi.consent(&emulator, Decision::Deny);
    assert_eq!(query(&denied)["error"], "access_denied");
    let described = format!("{denied}&error_description=The+app+was+not+wanted");
    let error =
        abi.authorization_complete(json!({"redirectUrl": described})).fails(Status::ConsentDenied);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("access_denied The app was not wanted"), "{message}");
    assert_eq!(error["retryable"], false);
    // A denied consent is an answer to its link: the state is consumed.
    abi.authorization_complete(json!({"redirectUrl": denied})).fails(Status::StateMismatch);
    assert_eq!(sent(&emulator), [""; 0]);
    // A forged denial without a valid state is refused as well.
    let forged = with_parameter(&abi.consent(&emulator, Decision::Deny), "state", Some("forged"));
    abi.authorization_complete(json!({"redirectUrl": forged})).fails(Status::StateMismatch);
}

#[test]
fn url_that_does_not_match_the_redirect_uri_is_refused() {
    let (emulator, abi) = with_client(1);
    for target in [
        "http://app.example/oauth/callback",
        "https://app.example.evil/oauth/callback",
        "https://app.example:8443/oauth/callback",
        "https://app.example/oauth/callback/",
        "https://app.example/",
        "https://app.example@evil.example/oauth/callback",
    ] {
        let redirect_url = consented(&abi, &emulator);
        let (_, query) = redirect_url.split_once('?').unwrap();
        let outcome =
            abi.authorization_complete(json!({"redirectUrl": format!("{target}?{query}")}));
        let error = outcome.refuses("redirectUrl");
        assert!(!error.to_string().contains(&support::query(&redirect_url)["code"]), "{error}");
    }
    for rest in ["", "?", "?code=", "?nothing=else"] {
        let state = query(&consented(&abi, &emulator))["state"].clone();
        let joint = if rest.is_empty() { "?" } else { "&" };
        let redirect_url = format!("{}{rest}{joint}state={state}", emulator.redirect_uri());
        abi.authorization_complete(json!({"redirectUrl": redirect_url})).refuses("redirectUrl");
    }
    for nonsense in ["", " ", "callback", "/oauth/callback?code=1&state=2", "https://", "code"] {
        abi.authorization_complete(json!({"redirectUrl": nonsense})).refuses("redirectUrl");
    }
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn each_link_is_completed_with_its_own_redirect_uri() {
    let uris = ["https://app.example/oauth/callback", "https://other.example/back?tenant=7"];
    let options = Options { redirect_uris: uris.map(str::to_owned).to_vec(), ..Options::default() };
    let emulator = Emulator::start(options).unwrap();
    let abi = Abi::new(&emulator);
    for uri in uris {
        let link = abi.authorization_url(json!({"redirectUri": uri})).ok();
        let decision = Decision::Company(emulator.company_id());
        let redirect_url = emulator.consent(link["url"].as_str().unwrap(), decision).unwrap();
        assert!(redirect_url.starts_with(uri), "{redirect_url}");
        abi.authorization_complete(json!({"redirectUrl": redirect_url})).ok();
        let request = emulator.requests().pop().unwrap();
        assert_eq!(fields(&request)["redirectUri"], uri);
    }
}

#[test]
fn link_of_another_process_is_completed_with_the_redirect_uri_from_the_host() {
    let uri = "https://other.example/back";
    let options = Options { redirect_uris: vec![uri.to_owned()], ..Options::default() };
    let emulator = Emulator::start(options).unwrap();
    let nowhere = json!({"redirectUri": null});
    let (here, there) = (Abi::with(&emulator, nowhere.clone()), Abi::with(&emulator, nowhere));
    let link = here.authorization_url(json!({"redirectUri": uri})).ok();
    let decision = Decision::Company(emulator.company_id());
    let redirect_url = emulator.consent(link["url"].as_str().unwrap(), decision).unwrap();
    let mut params = json!({"redirectUrl": redirect_url, "state": link["state"]});
    there.authorization_complete(params.clone()).refuses("redirectUri");
    params["redirectUri"] = "https://app.example/".into();
    there.authorization_complete(params.clone()).refuses("redirectUrl");
    assert_eq!(sent(&emulator), [""; 0]);
    params["redirectUri"] = uri.into();
    there.authorization_complete(params).ok();
    there.live_token(&emulator, &emulator.company_id());
}

#[test]
fn refused_url_does_not_consume_the_state() {
    let (emulator, abi) = with_client(1);
    let redirect_url = consented(&abi, &emulator);
    let (_, query) = redirect_url.split_once('?').unwrap();
    for wrong in
        [format!("https://evil.example/?{query}"), with_parameter(&redirect_url, "code", None)]
    {
        abi.authorization_complete(json!({"redirectUrl": wrong})).refuses("redirectUrl");
    }
    abi.authorization_complete(json!({"redirectUrl": redirect_url})).ok();
}

#[test]
fn same_host_state_completed_twice_concurrently_succeeds_once() {
    let emulator = emulator(1);
    let (here, there) = (Abi::new(&emulator), Abi::new(&emulator));
    let redirect_url = consented(&here, &emulator);
    let params = json!({"redirectUrl": redirect_url, "state": query(&redirect_url)["state"]});
    one_of_eight_succeeds(&there, &emulator, &params);
}

#[test]
fn concurrent_consents_do_not_interfere() {
    let emulator = Emulator::start(Options { companies: 2, ..Options::default() }).unwrap();
    let abi = Abi::new(&emulator);
    let companies = emulator.company_ids();
    let links: Vec<Value> =
        companies.iter().map(|_| abi.authorization_url(json!({})).ok()).collect();
    let redirects: Vec<String> = links
        .iter()
        .zip(&companies)
        .rev()
        .map(|(link, company)| {
            emulator
                .consent(link["url"].as_str().unwrap(), Decision::Company(company.clone()))
                .unwrap()
        })
        .collect();
    let hold = emulator.hold(codes(), Stage::BeforeProcessing);
    thread::scope(|scope| {
        let abi = &abi;
        let completing: Vec<_> = redirects
            .iter()
            .map(|redirect| {
                scope.spawn(move || {
                    abi.authorization_complete(json!({"redirectUrl": redirect})).ok()
                })
            })
            .collect();
        hold.wait_for(2);
        hold.release();
        for (thread, company) in completing.into_iter().zip(companies.iter().rev()) {
            assert_eq!(thread.join().unwrap()["resourceId"], company.as_str());
        }
    });
    for company in &companies {
        abi.live_token(&emulator, company);
    }
}

#[test]
fn code_with_a_lost_response_is_sent_once_more_and_no_further() {
    let (emulator, abi) = with_client(1);
    let redirect_url = consented(&abi, &emulator);
    emulator.inject(codes().times(1), FaultKind::ReplyLost);
    let complete = json!({"redirectUrl": redirect_url});
    let error = abi.authorization_complete(complete).fails(Status::ReauthorizationRequired);
    assert!(error["help"].as_str().unwrap().contains("user consent again"), "{error}");
    assert_eq!((&error["httpStatus"], &error["retryable"]), (&json!(401), &json!(false)));
    let requests = emulator.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(fields(&requests[0]), fields(&requests[1]), "the same code");
    assert_eq!(abi.stats()["requests"]["repeated"], 1);
    assert_eq!(sent(&emulator), ["code 200", "code 401"]);
    assert_eq!(abi.tokens_list(json!({})).ok()["items"], json!([]));
    // A new consent works.
    abi.connect_company(&emulator);
    abi.live_token(&emulator, &emulator.company_id());

    let redirect_url = consented(&abi, &emulator);
    let fault = emulator.inject(codes(), FaultKind::ReplyLost);
    let complete = json!({"redirectUrl": redirect_url});
    abi.authorization_complete(complete.clone()).fails(Status::Network);
    assert_eq!(emulator.strikes(fault), 2);
    // Only the server knows whether the code is spent. Its refusal is final.
    emulator.clear_faults();
    abi.authorization_complete(complete.clone()).fails(Status::ReauthorizationRequired);
    abi.authorization_complete(complete).fails(Status::StateMismatch);
}

#[test]
fn consent_can_be_completed_again_unless_the_code_was_rejected() {
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"retry": {"maxAttempts": 1}}));
    let other = Abi::with(&emulator, json!({}));
    let busy = response(503, "", &[]);
    let lost = FaultKind::Reset { stage: Stage::BeforeProcessing };
    let slow = response(408, "", &[]);
    let refused = |refusal| FaultKind::Refusal { refusal };
    // A code without a response may be used up. The refusals are not about the code.
    for (kind, status, retryable) in [
        (lost, Status::Network, false),
        (busy, Status::Server, true),
        (slow, Status::Timeout, true),
        (refused(Refusal::LocationInactive), Status::LocationInactive, true),
        (refused(Refusal::FirewallPage), Status::Forbidden, false),
        (refused(Refusal::ClientCredentialsInvalid), Status::Unauthorized, false),
        (refused(Refusal::Unprocessable), Status::InvalidRequest, false),
    ] {
        let redirect_url = consented(&abi, &emulator);
        let state = query(&redirect_url)["state"].clone();
        // By the client that made the link, and by one that gets the state from the host.
        for complete in [
            json!({"redirectUrl": redirect_url}),
            json!({"redirectUrl": redirect_url, "state": state}),
        ] {
            let client = if complete.get("state").is_some() { &other } else { &abi };
            emulator.inject(codes(), kind.clone());
            let error = client.authorization_complete(complete).fails(status);
            assert_eq!(error["retryable"], retryable, "{error}");
            emulator.clear_faults();
        }
        abi.authorization_complete(json!({"redirectUrl": redirect_url})).ok();
        abi.authorization_complete(json!({"redirectUrl": redirect_url}))
            .fails(Status::StateMismatch);
        other
            .authorization_complete(json!({"redirectUrl": redirect_url, "state": state}))
            .fails(Status::ReauthorizationRequired);
        abi.live_token(&emulator, &emulator.company_id());
    }
}

#[test]
fn code_that_never_reached_the_server_is_exchanged_by_the_second_attempt() {
    for kind in [
        FaultKind::Reset { stage: Stage::BeforeProcessing },
        response(502, "<html>bad gateway</html>", &[]),
        response(429, "", &[("Retry-After", "0")]),
    ] {
        let (emulator, abi) = with_client(1);
        let redirect_url = consented(&abi, &emulator);
        let fault = emulator.inject(codes().times(1), kind);
        abi.authorization_complete(json!({"redirectUrl": redirect_url})).ok();
        abi.live_token(&emulator, &emulator.company_id());
        assert_eq!((emulator.strikes(fault), sent(&emulator).len()), (1, 2));
    }
}

#[test]
fn refused_code_is_not_retried() {
    let (emulator, abi) = with_client(1);
    let wrong = with_parameter(&consented(&abi, &emulator), "code", Some("wrong"));
    let error = abi.authorization_complete(json!({"redirectUrl": wrong}));
    let error = error.fails(Status::ReauthorizationRequired);
    assert!(error["help"].as_str().unwrap().contains("clientSecret"), "{error}");
    assert_eq!(sent(&emulator), ["code 401"]);
}

#[test]
fn token_response_determines_the_owner() {
    let emulator = emulator(3);
    let (company, location) = (emulator.company_id(), emulator.location_ids()[1].clone());
    let some = Decision::CompanyWithLocations {
        company: company.clone(),
        locations: vec![location.clone()],
    };
    for (decision, resource, user_type, location_id) in [
        (Decision::Company(company.clone()), &company, "Company", Value::Null),
        (some, &company, "Company", Value::Null),
        (Decision::Location(location.clone()), &location, "Location", json!(location)),
    ] {
        for wished in [None, Some("Company"), Some("Location")] {
            let abi = Abi::new(&emulator);
            let redirect_url = abi.consent(&emulator, decision.clone());
            let mut params = json!({"redirectUrl": redirect_url});
            if let Some(wished) = wished {
                params["userType"] = wished.into();
            }
            sent(&emulator);
            let stored = abi.authorization_complete(params).ok();
            assert_eq!(
                (
                    &stored["resourceId"],
                    &stored["userType"],
                    &stored["companyId"],
                    &stored["locationId"]
                ),
                (&json!(resource), &json!(user_type), &json!(company), &location_id)
            );
            let request = emulator.requests().pop().unwrap();
            assert_eq!(fields(&request).get("userType").map(String::as_str), wished);
            abi.live_token(&emulator, resource);
            assert_eq!(abi.tokens_list(json!({})).ok()["items"], json!([stored]));
        }
    }
}

#[test]
fn token_without_an_owner_is_not_stored() {
    let (emulator, abi) = with_client(1);
    let body = json!({"accessToken": "some access token", "refreshToken": "r", "expiresIn": 86399});
    let kind = response(200, body, &[]);
    emulator.inject(codes(), kind);
    let redirect_url = consented(&abi, &emulator);
    let error =
        abi.authorization_complete(json!({"redirectUrl": redirect_url})).fails(Status::Protocol);
    support::contains_none_of(&error.to_string(), &["some access token"]);
    assert_eq!(abi.tokens_list(json!({})).ok()["items"], json!([]));
}

#[test]
fn new_consent_replaces_the_old_token() {
    let (emulator, abi, company) = with_company(1);
    let first = abi.live_token(&emulator, &company);
    abi.connect_company(&emulator);
    let second = abi.live_token(&emulator, &company);
    assert_ne!(first, second);
    assert_eq!(abi.tokens_list(json!({})).ok()["items"].as_array().unwrap().len(), 1);
    // The refresh token is also the new one; the first one is unchanged on the server.
    let live = |emulator: &Emulator| -> Vec<String> {
        emulator.live_refresh_tokens().into_iter().map(|token| token.refresh_token).collect()
    };
    let before = live(&emulator);
    abi.token_refresh(&company).ok();
    assert_eq!(fields(&emulator.requests().pop().unwrap())["refreshToken"], before[1]);
    assert_eq!(live(&emulator)[0], before[0]);
}
