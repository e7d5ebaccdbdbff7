//! Token lifecycle: lost responses, refusals by the server, and their effect on callers.

mod support;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth_emulator::{
    Decision, Emulator, Ending, Endpoint, FaultKind, GrantType, Options, Rule, Stage,
};
use serde_json::{Value, json};

use support::{
    Abi, DAY, EventRecorder, Outcome, contains_none_of, emulator, fields, sent, with_client,
    with_company,
};

const MINUTE: Duration = Duration::from_secs(60);

/// A client whose calls have a short deadline: a call that always fails has failed three times by
/// then.
fn with_short_deadline(emulator: &Emulator) -> Abi {
    Abi::with(emulator, json!({"timeouts": {"totalMs": 2_000}}))
}

fn refreshes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken)
}

fn answer(status: u16, body: impl ToString, stage: Stage) -> FaultKind {
    FaultKind::Status {
        status,
        body: body.to_string(),
        content_type: None,
        headers: Vec::new(),
        stage,
    }
}

fn refresh_tokens_sent(emulator: &Emulator) -> Vec<String> {
    let requests = emulator.requests();
    requests.iter().filter_map(|request| fields(request).get("refreshToken").cloned()).collect()
}

/// The refresh tokens of a resource that the server accepts now.
fn live_refresh_tokens(emulator: &Emulator, resource: &str) -> Vec<String> {
    let live = emulator.live_refresh_tokens();
    live.into_iter()
        .filter(|token| token.resource_id == resource)
        .map(|token| token.refresh_token)
        .collect()
}

/// All secrets of an emulator.
fn secrets(emulator: &Emulator, tokens: &[String]) -> Vec<String> {
    let mut secrets: Vec<String> =
        emulator.live_refresh_tokens().into_iter().map(|token| token.refresh_token).collect();
    secrets.extend(tokens.iter().cloned());
    secrets.push(emulator.client_secret().to_owned());
    secrets
}

#[test]
fn connection_survives_every_fault_of_a_refresh_response() {
    let processed = Stage::AfterProcessing;
    let ways = [
        FaultKind::ReplyLost,
        FaultKind::Reset { stage: processed },
        FaultKind::Reset { stage: Stage::BeforeProcessing },
        FaultKind::CutBody { body_bytes: 0, ending: Ending::Close },
        FaultKind::CutBody { body_bytes: 40, ending: Ending::Reset },
        FaultKind::EmptyBody,
        FaultKind::TruncatedJson,
        FaultKind::NotJson,
        FaultKind::Gzip { marked: true },
        FaultKind::HugeBody { bytes: 3_000_000, chunked: false },
        FaultKind::HugeHead { bytes: 1 << 20, lines: 1 },
        FaultKind::Raw { text: "nonsense\r\n\r\n".into(), ending: Ending::Close },
        FaultKind::Redirect { status: 307, location: None },
        answer(200, "{}", processed),
        answer(500, "", processed),
        answer(502, "<html>bad gateway</html>", processed),
        answer(503, "", processed),
        answer(504, r#"{"message":"upstream timed out"}"#, Stage::BeforeProcessing),
    ];
    thread::scope(|scope| {
        for kind in ways {
            scope.spawn(move || survives(&kind));
        }
    });
}

#[test]
fn connection_survives_refresh_response_with_wrong_types() {
    survives(&FaultKind::WrongTypes);
}

/// Disturbs the response to one refresh and asserts that the connection survives.
fn survives(kind: &FaultKind) {
    let (emulator, abi, company) = with_company(1);
    emulator.clock().advance(DAY);
    emulator.clear_requests();
    let fault = emulator.inject(refreshes().times(1), kind.clone());
    let token = abi.access_token(&company).text();
    assert!(emulator.access_token_is_live(&token), "{kind:?}");
    assert_eq!(emulator.strikes(fault), 1, "{kind:?}");
    let tokens = refresh_tokens_sent(&emulator);
    assert_eq!(tokens.len(), 2, "{kind:?}");
    assert_eq!(tokens[0], tokens[1], "{kind:?}: the same refresh token was sent again");
    assert_eq!(emulator.refreshes(), 1, "{kind:?}");
    // The connection continues with the refresh token that the server expects.
    for _ in 0..2 {
        emulator.clock().advance(DAY);
        abi.live_token(&emulator, &company);
    }
    assert_eq!(emulator.refreshes(), 3, "{kind:?}");
    assert_eq!(live_refresh_tokens(&emulator, &company).len(), 1, "{kind:?}");
}

#[test]
fn connection_whose_refresh_responses_are_all_lost_is_recovered_by_the_next_call() {
    for (pause, survives) in
        [(Duration::ZERO, true), (Duration::from_secs(25), true), (MINUTE, false)]
    {
        let emulator = emulator(1);
        let abi = with_short_deadline(&emulator);
        let company = abi.connect_company(&emulator);
        emulator.clock().advance(DAY);
        emulator.clear_requests();
        let fault = emulator.inject(refreshes(), FaultKind::ReplyLost);
        let error = abi.access_token(&company).fails(Status::Network);
        assert_eq!((&error["retryable"], &error["resourceId"]), (&json!(true), &json!(company)));
        assert_eq!((emulator.strikes(fault), emulator.refreshes()), (3, 1));
        let requests = &abi.stats()["requests"];
        assert_eq!((&requests["repeated"], &requests["unanswered"]), (&json!(2), &json!(3)));
        emulator.remove_fault(fault);
        emulator.clock().advance(pause);
        if survives {
            abi.live_token(&emulator, &company);
            emulator.clock().advance(DAY);
            abi.live_token(&emulator, &company);
        } else {
            // The replay window has ended, and the connection with it.
            abi.access_token(&company).fails(Status::ReauthorizationRequired);
        }
        let tokens = refresh_tokens_sent(&emulator);
        assert!(
            tokens[..4].iter().all(|token| *token == tokens[0]),
            "always the same refresh token"
        );
    }
}

#[test]
fn caller_without_a_valid_token_retries_while_the_refresh_outcome_is_unknown() {
    let before = Stage::BeforeProcessing;
    let ways: [&[_]; 2] = [
        // More often than a refresh is retried for a caller with a valid token.
        &[(3, FaultKind::ReplyLost)],
        // Without an unknown outcome this would be an error at once.
        &[(1, FaultKind::ReplyLost), (1, answer(503, "", before))],
    ];
    thread::scope(|scope| {
        for faults in ways {
            scope.spawn(move || {
                let emulator = emulator(1);
                let abi = Abi::with(&emulator, json!({"retry": {"maxAttempts": 1}}));
                let company = abi.connect_company(&emulator);
                emulator.clock().advance(DAY);
                emulator.clear_requests();
                let mut sendings = 1;
                for (times, kind) in faults {
                    emulator.inject(refreshes().times(*times), kind.clone());
                    sendings += *times as usize;
                }
                abi.live_token(&emulator, &company);
                let tokens = refresh_tokens_sent(&emulator);
                assert_eq!(tokens.len(), sendings, "{faults:?}");
                assert!(tokens.iter().all(|token| *token == tokens[0]), "{faults:?}");
                assert_eq!(emulator.refreshes(), 1, "{faults:?}");
            });
        }
    });
}

/// A server that has processed a refresh and then stays silent repeats its response only inside the
/// replay window.
#[test]
fn silent_server_is_retried_before_the_replay_window_ends() {
    for stage in [Stage::AfterProcessing, Stage::BeforeProcessing] {
        let emulator = emulator(1);
        let abi = Abi::with(&emulator, json!({"timeouts": {"answerMs": 300}}));
        let company = abi.connect_company(&emulator);
        emulator.clock().advance(DAY);
        emulator.clear_requests();
        emulator.inject(refreshes().times(1), FaultKind::Stall { stage });
        abi.live_token(&emulator, &company);
        let tokens = refresh_tokens_sent(&emulator);
        // More than two only on a slow machine.
        assert!(
            tokens.len() >= 2 && tokens.iter().all(|token| *token == tokens[0]),
            "{stage:?}: {tokens:?}"
        );
        emulator.clear_faults();
        emulator.clock().advance(DAY);
        abi.live_token(&emulator, &company);
    }
}

#[test]
fn missing_response_is_an_error_that_states_the_waiting_time() {
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"timeouts": {"answerMs": 300, "totalMs": 3_900}}));
    let company = abi.connect_company(&emulator);
    emulator.clock().advance(DAY);
    let fault = emulator.inject(refreshes(), FaultKind::Stall { stage: Stage::AfterProcessing });
    let error = abi.access_token(&company).fails(Status::Timeout);
    assert_eq!(error["message"], "no answer from 127.0.0.1 within 300 ms");
    assert!(error["help"].as_str().unwrap().contains("timeouts.answerMs"), "{error}");
    assert_eq!((&error["retryable"], emulator.strikes(fault)), (&json!(true), 3));
    emulator.clear_faults();
    abi.live_token(&emulator, &company);
}

#[test]
fn last_attempt_waits_until_the_call_deadline() {
    let emulator = emulator(1);
    // Twice as long exceeds the deadline of the whole call.
    let abi = Abi::with(&emulator, json!({"timeouts": {"answerMs": 2_000, "totalMs": 3_900}}));
    let company = abi.connect_company(&emulator);
    emulator.clock().advance(DAY);
    emulator.clear_requests();
    emulator.respond_latency(Duration::from_millis(2_050));
    abi.live_token(&emulator, &company);
    assert_eq!(emulator.requests().len(), 1);
}

#[test]
fn slow_response_causes_a_retry_only_for_a_refresh() {
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"timeouts": {"answerMs": 100}}));
    emulator.respond_latency(Duration::from_millis(300));
    let company = abi.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    abi.oauth_token(json!({"grantType": "client_credentials"})).ok();
    abi.live_token(&emulator, &location);
    abi.oauth_installed_locations(json!({"companyId": company})).ok();
    abi.request(json!({"method": "POST", "path": "/x", "resourceId": location})).ok();
    // A host that stores tokens itself decides about retries of its raw calls.
    let code = support::query(&abi.consent(&emulator, Decision::Company(company)))["code"].clone();
    let raw = abi.oauth_token(json!({"grantType": "authorization_code", "code": code})).ok();
    abi.oauth_token(json!({"grantType": "refresh_token", "refreshToken": raw["refreshToken"]}))
        .ok();
    assert_eq!(emulator.requests().len(), 7);
}

#[test]
fn lost_response_without_a_replay_window_costs_a_company_its_consent_and_a_location_nothing() {
    let emulator = emulator(1);
    emulator.set_reuse_window_seconds(0);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    abi.live_token(&emulator, &location);
    emulator.clock().advance(DAY);
    abi.live_token(&emulator, &company);
    sent(&emulator);

    emulator.inject(refreshes().resource(&location).times(1), FaultKind::ReplyLost);
    abi.live_token(&emulator, &location);
    // A token is given up after two refusals: the server may not know its own newest token yet.
    assert_eq!(sent(&emulator), ["refresh 200", "refresh 400", "refresh 400", "mint 200"]);

    emulator.inject(refreshes().resource(&company).times(1), FaultKind::ReplyLost);
    let error = abi.token_refresh(&company).fails(Status::ReauthorizationRequired);
    assert_eq!((&error["resourceId"], &error["retryable"]), (&json!(company), &json!(false)));
    assert_eq!(sent(&emulator), ["refresh 200", "refresh 400", "refresh 400"]);
    emulator.clock().advance(DAY);
    abi.access_token(&company).fails(Status::ReauthorizationRequired);
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn dead_grant_is_remembered_and_not_sent_again() {
    let (emulator, abi, company) = with_company(1);
    let heard = abi.listen();
    emulator.revoke_refresh_token(&company);
    emulator.clock().advance(DAY);
    sent(&emulator);

    let first = abi.access_token(&company).fails(Status::ReauthorizationRequired);
    assert_eq!(sent(&emulator), ["refresh 400"], "a clear refusal is final");
    assert_eq!(first["api"]["message"], "Invalid grant: refresh token is invalid");
    assert_eq!((&first["resourceId"], &first["httpStatus"]), (&json!(company), &json!(400)));
    for _ in 0..3 {
        emulator.clock().advance(DAY);
        let again = abi.access_token(&company).fails(Status::ReauthorizationRequired);
        assert!(again["message"].as_str().unwrap().contains("refresh token is invalid"), "{again}");
        assert!(again["help"].as_str().unwrap().contains("consent"), "{again}");
        abi.token_refresh(&company).fails(Status::ReauthorizationRequired);
        abi.oauth_installed_locations(json!({"companyId": company}))
            .fails(Status::ReauthorizationRequired);
        let maintained = abi.tokens_maintain(json!({}), |_| true).ok();
        assert_eq!((&maintained["checked"], &maintained["nextDueAt"]), (&json!(0), &Value::Null));
    }
    assert_eq!(sent(&emulator), [""; 0]);
    let listed = abi.listed(&company);
    assert_eq!(
        (&listed["state"], &listed["refreshable"]),
        (&json!("reauthorizationRequired"), &json!(false))
    );
    assert_eq!(
        heard.names(),
        [format!("token.reauthorizationRequired {company}")],
        "reported once"
    );
}

#[test]
fn new_consent_or_import_restores_a_dead_connection() {
    for by_import in [false, true] {
        let (emulator, abi, company) = with_company(1);
        emulator.revoke_refresh_token(&company);
        emulator.clock().advance(DAY);
        abi.access_token(&company).fails(Status::ReauthorizationRequired);
        if by_import {
            let other = Abi::new(&emulator);
            other.connect_company(&emulator);
            let tokens = other.tokens_export(json!({})).ok()["tokens"].clone();
            assert_eq!(abi.tokens_import(json!({"tokens": tokens})).ok()["imported"], 1);
        } else {
            abi.connect_company(&emulator);
        }
        abi.live_token(&emulator, &company);
        let listed = abi.listed(&company);
        assert_eq!((&listed["state"], &listed["refreshable"]), (&json!("ok"), &json!(true)));
        emulator.clock().advance(DAY);
        abi.live_token(&emulator, &company);
    }
}

#[test]
fn import_replaces_a_dead_connection_even_if_its_token_expires_sooner() {
    let emulator = emulator(1);
    let (abi, other) = (Abi::new(&emulator), Abi::new(&emulator));
    let company = abi.connect_company(&emulator);
    emulator.revoke_refresh_token(&company);
    abi.token_refresh(&company).fails(Status::ReauthorizationRequired);
    other.connect_company(&emulator);
    let mut token = other.tokens_export(json!({})).ok()["tokens"][0].clone();
    token["expiresAt"] = json!(token["expiresAt"].as_i64().unwrap() - 3_600_000);
    let imported = abi.tokens_import(json!({"tokens": [token]})).ok();
    assert_eq!(imported, json!({"imported": 1, "skipped": []}));
    assert_eq!(abi.live_token(&emulator, &company), token["accessToken"].as_str().unwrap());
    assert_eq!(abi.listed(&company)["state"], "ok");
}

#[test]
fn location_with_a_spent_refresh_token_is_minted_from_its_company() {
    let (emulator, abi, _) = with_company(2);
    let heard = abi.listen();
    let location = emulator.location_ids()[1].clone();
    abi.live_token(&emulator, &location);
    emulator.revoke_refresh_token(&location);
    emulator.clock().advance(DAY);
    sent(&emulator);
    heard.events();

    abi.live_token(&emulator, &location);
    assert_eq!(sent(&emulator), ["refresh 400", "refresh 200", "mint 200"]);
    let company = emulator.company_id();
    assert_eq!(
        heard.names(),
        [format!("token.refreshed {company}"), format!("token.minted {location}")],
        "no failure is reported"
    );
    assert_eq!(abi.listed(&location)["state"], "ok");
    // The new token has a working refresh token.
    emulator.clock().advance(DAY);
    abi.live_token(&emulator, &location);
    assert_eq!(sent(&emulator), ["refresh 200"]);
}

#[test]
fn location_without_a_refresh_token_is_minted_again() {
    let emulator = emulator(1);
    emulator.set_location_refresh_tokens(false);
    let abi = Abi::new(&emulator);
    abi.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    let first = abi.live_token(&emulator, &location);
    assert_eq!(abi.listed(&location)["refreshable"], true);
    emulator.clock().advance(DAY);
    sent(&emulator);
    assert_ne!(abi.live_token(&emulator, &location), first);
    assert_eq!(sent(&emulator), ["refresh 200", "mint 200"]);
    abi.token_refresh(&location).ok();
    assert_eq!(sent(&emulator), ["mint 200"]);
}

#[test]
fn explicit_refresh_of_a_private_integration_token_leaves_it() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    let private = emulator.private_token(&location);
    let entry = json!({"accessToken": private, "locationId": location, "companyId": company});
    assert_eq!(abi.tokens_import(json!({"tokens": [entry]})).ok()["imported"], 1);
    sent(&emulator);
    abi.token_refresh(&location).fails(Status::InvalidRequest);
    assert_eq!(sent(&emulator), [""; 0]);
    assert_eq!(abi.access_token(&location).text(), private);
    let listed = abi.listed(&location);
    assert_eq!(
        (&listed["state"], &listed["lastFailure"], &listed["refreshable"]),
        (&json!("ok"), &Value::Null, &json!(false))
    );
}

#[test]
fn location_without_refresh_token_and_company_needs_consent_until_its_company_is_connected() {
    let (emulator, abi) = with_client(1);
    let location = emulator.location_ids()[0].clone();
    abi.connect(&emulator, Decision::Location(location.clone()));
    emulator.revoke_refresh_token(&location);
    emulator.clock().advance(DAY);
    abi.access_token(&location).fails(Status::ReauthorizationRequired);
    assert_eq!(abi.listed(&location)["state"], "reauthorizationRequired");
    sent(&emulator);
    abi.access_token(&location).fails(Status::ReauthorizationRequired);
    assert_eq!(sent(&emulator), [""; 0]);

    emulator.clock().advance(MINUTE);
    abi.connect_company(&emulator);
    sent(&emulator);
    abi.live_token(&emulator, &location);
    assert!(sent(&emulator).contains(&"mint 200".to_owned()));
    assert_eq!(abi.listed(&location)["state"], "ok");
}

#[test]
fn paused_location_keeps_its_refresh_token_and_works_again_when_it_is_active() {
    let (emulator, abi, _) = with_company(1);
    let location = emulator.location_ids()[0].clone();
    abi.live_token(&emulator, &location);
    let kept = live_refresh_tokens(&emulator, &location);
    emulator.set_location_active(&location, false);
    emulator.clock().advance(DAY);
    sent(&emulator);
    let heard = abi.listen();

    let error = abi.access_token(&location).fails(Status::LocationInactive);
    assert_eq!((&error["retryable"], &error["resourceId"]), (&json!(true), &json!(location)));
    assert_eq!(sent(&emulator), ["refresh 400"]);
    for _ in 0..3 {
        let held_back = abi.access_token(&location).fails(Status::LocationInactive);
        let left = held_back["retryAfterMs"].as_u64().unwrap();
        assert!((1..=60_000).contains(&left), "{held_back}");
    }
    assert_eq!(sent(&emulator), [""; 0], "the server gets no request");
    assert_eq!(
        heard.names(),
        [format!("token.refreshFailed {location}")],
        "only actual attempts are reported"
    );
    assert_eq!(abi.stats()["tokens"]["failed"], 1);
    let listed = abi.listed(&location);
    assert_eq!((&listed["state"], &listed["refreshable"]), (&json!("inactive"), &json!(true)));

    emulator.clock().advance(MINUTE);
    abi.access_token(&location).fails(Status::LocationInactive);
    assert_eq!(sent(&emulator), ["refresh 400"], "one request per minute");

    emulator.set_location_active(&location, true);
    abi.access_token(&location).fails(Status::LocationInactive);
    emulator.clock().advance(MINUTE);
    assert_eq!(live_refresh_tokens(&emulator, &location), kept);
    abi.live_token(&emulator, &location);
    assert_eq!(refresh_tokens_sent(&emulator), kept, "the refresh token was kept");
    assert_eq!(sent(&emulator), ["refresh 200"]);
    assert_eq!(abi.listed(&location)["state"], "ok");
}

#[test]
fn paused_location_without_a_refresh_token_is_not_minted_repeatedly() {
    let emulator = emulator(1);
    emulator.set_location_refresh_tokens(false);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    abi.live_token(&emulator, &location);
    emulator.set_location_active(&location, false);
    emulator.clock().advance(DAY);
    abi.live_token(&emulator, &company);
    sent(&emulator);
    for _ in 0..3 {
        abi.access_token(&location).fails(Status::LocationInactive);
    }
    assert_eq!(sent(&emulator), ["mint 400"]);
    emulator.set_location_active(&location, true);
    emulator.clock().advance(MINUTE);
    abi.live_token(&emulator, &location);
}

/// Failed refreshes that leave the refresh token usable, and the status of a forced refresh for
/// each.
fn failures() -> [(&'static str, FaultKind, Status); 6] {
    let before = Stage::BeforeProcessing;
    [
        ("500", answer(500, "", before), Status::Server),
        ("503", answer(503, "", before), Status::Server),
        ("reset", FaultKind::Reset { stage: before }, Status::Network),
        ("429", answer(429, "", before), Status::RateLimited),
        (
            "html",
            answer(200, "<html>log in to the hotel's network</html>", before),
            Status::Protocol,
        ),
        ("403", answer(403, "<html>error code: 1010</html>", before), Status::Forbidden),
    ]
}

#[test]
fn failed_refresh_is_hidden_from_callers_while_the_old_token_is_valid() {
    thread::scope(|scope| {
        for (name, kind, status) in failures() {
            scope.spawn(move || {
                let emulator = emulator(1);
                let abi = with_short_deadline(&emulator);
                let heard = abi.listen();
                let company = abi.connect_company(&emulator);
                let old = abi.live_token(&emulator, &company);
                emulator.clock().advance(DAY - Duration::from_secs(200));
                heard.events();
                sent(&emulator);
                let fault = emulator.inject(refreshes(), kind);

                assert_eq!(abi.live_token(&emulator, &company), old, "{name}");
                let attempts = emulator.strikes(fault);
                assert!(attempts > 0, "{name}: refreshed inside the margin");
                let events = heard.events();
                assert_eq!(events.len(), 1, "{name}: {events:?}");
                assert_eq!(events[0]["type"], "token.refreshFailed", "{name}");
                assert_eq!(events[0]["error"]["status"], status.name(), "{name}");

                // Not every caller retries.
                for _ in 0..5 {
                    assert_eq!(abi.live_token(&emulator, &company), old, "{name}");
                }
                assert_eq!(emulator.strikes(fault), attempts, "{name}");
                emulator.clock().advance(Duration::from_secs(3));
                assert_eq!(abi.live_token(&emulator, &company), old, "{name}");
                assert!(emulator.strikes(fault) > attempts, "{name}: retried later");
                assert_eq!(heard.names(), [format!("token.refreshFailed {company}")], "{name}");

                // The failure is visible once the old token has expired.
                emulator.clock().advance(Duration::from_secs(250));
                let error = abi.access_token(&company).fails(status);
                assert_eq!(error["resourceId"], company.as_str(), "{name}");
                emulator.clear_faults();
                assert_ne!(abi.live_token(&emulator, &company), old, "{name}");
                assert_eq!(
                    heard.names().last(),
                    Some(&format!("token.refreshed {company}")),
                    "{name}"
                );
            });
        }
    });
}

#[test]
fn token_outside_the_refresh_margin_is_not_refreshed() {
    let (emulator, abi, company) = with_company(1);
    sent(&emulator);
    emulator.clock().advance(DAY - Duration::from_secs(310));
    let old = abi.live_token(&emulator, &company);
    assert_eq!(sent(&emulator), [""; 0]);
    emulator.clock().advance(Duration::from_secs(20));
    assert!(emulator.access_token_is_live(&old));
    assert_ne!(abi.live_token(&emulator, &company), old);
    assert_eq!(sent(&emulator), ["refresh 200"]);

    let late = Abi::with(&emulator, json!({"refresh": {"marginSeconds": 0}}));
    late.connect_company(&emulator);
    let old = late.live_token(&emulator, &company);
    emulator.clock().advance(DAY - Duration::from_secs(5));
    assert_eq!(late.live_token(&emulator, &company), old);
}

#[test]
fn short_lived_token_is_not_refreshed_on_every_call() {
    let emulator = emulator(1);
    emulator.set_access_token_seconds(60);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    sent(&emulator);
    for _ in 0..5 {
        abi.live_token(&emulator, &company);
    }
    emulator.clock().advance(Duration::from_secs(40));
    abi.live_token(&emulator, &company);
    assert_eq!(sent(&emulator), [""; 0]);
    emulator.clock().advance(Duration::from_secs(10));
    abi.live_token(&emulator, &company);
    assert_eq!(sent(&emulator), ["refresh 200"]);
}

#[test]
fn failed_forced_refresh_returns_an_error_and_the_old_token_stays_in_use() {
    thread::scope(|scope| {
        for (name, kind, status) in failures() {
            scope.spawn(move || {
                let emulator = emulator(1);
                let abi = with_short_deadline(&emulator);
                let company = abi.connect_company(&emulator);
                let old = abi.live_token(&emulator, &company);
                let fault = emulator.inject(refreshes(), kind);
                abi.token_refresh(&company).fails(status);
                let strikes = emulator.strikes(fault);
                assert_eq!(abi.live_token(&emulator, &company), old, "{name}");
                assert_eq!(
                    emulator.strikes(fault),
                    strikes,
                    "{name}: a live token needs no request"
                );
                emulator.clear_faults();
                abi.token_refresh(&company).ok();
                assert_ne!(abi.live_token(&emulator, &company), old, "{name}");
            });
        }
    });
}

#[test]
fn dead_grant_leaves_the_old_token_usable_while_it_is_valid() {
    let (emulator, abi, company) = with_company(1);
    let heard = abi.listen();
    let old = abi.live_token(&emulator, &company);
    emulator.revoke_refresh_token(&company);
    emulator.clock().advance(DAY - Duration::from_secs(200));
    sent(&emulator);
    assert_eq!(abi.live_token(&emulator, &company), old);
    assert_eq!(sent(&emulator), ["refresh 400"]);
    assert_eq!(heard.names(), [format!("token.reauthorizationRequired {company}")]);
    for _ in 0..3 {
        emulator.clock().advance(Duration::from_secs(50));
        assert_eq!(abi.live_token(&emulator, &company), old);
    }
    emulator.clock().advance(Duration::from_secs(60));
    abi.access_token(&company).fails(Status::ReauthorizationRequired);
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn events_report_the_life_of_a_token_in_order_and_contain_no_secret() {
    let (emulator, abi) = with_client(1);
    let heard = abi.listen();
    let (company, location) = (emulator.company_id(), emulator.location_ids()[0].clone());
    let mut tokens = Vec::new();
    let began = emulator.clock().now_ms();
    abi.connect_company(&emulator);
    tokens.push(abi.live_token(&emulator, &company));
    tokens.push(abi.live_token(&emulator, &location));
    abi.token_refresh(&location).ok();
    tokens.push(abi.live_token(&emulator, &location));
    let exported = abi.tokens_export(json!({})).ok()["tokens"].clone();
    let replacing = json!({"tokens": exported, "replace": true});
    abi.tokens_import(replacing).ok();
    let all_secrets = secrets(&emulator, &tokens);
    let failing = json!({"statusCode": 400, "message": format!("what of {}?", all_secrets[0])});
    let fault = emulator.inject(refreshes(), answer(400, failing, Stage::BeforeProcessing));
    abi.token_refresh(&company).fails(Status::InvalidRequest);
    emulator.remove_fault(fault);
    emulator.revoke_refresh_token(&company);
    abi.token_refresh(&company).fails(Status::ReauthorizationRequired);
    abi.token_delete(&location).ok();
    let ended = emulator.clock().now_ms();

    let events = heard.events();
    let mut at = began;
    for event in &events {
        let failed = ["token.refreshFailed", "token.reauthorizationRequired"].map(Value::from);
        let expected: &[&str] = if failed.contains(&event["type"]) {
            &["at", "error", "expiresAt", "lastFailure", "resourceId", "type"]
        } else {
            &["at", "expiresAt", "resourceId", "type"]
        };
        let keys: Vec<&String> = event.as_object().unwrap().keys().collect();
        assert_eq!(keys, expected, "{event}");
        let now = event["at"].as_i64().unwrap();
        assert!((at..=ended).contains(&now), "{event}");
        at = now;
        if event["type"] == "token.deleted" {
            assert!(event["expiresAt"].is_null());
        } else {
            let left = event["expiresAt"].as_i64().unwrap() - now;
            assert!((86_300_000..=86_399_000).contains(&left), "{event}");
        }
    }
    let names: Vec<String> = events
        .iter()
        .map(|event| {
            format!("{} {}", event["type"].as_str().unwrap(), event["resourceId"].as_str().unwrap())
        })
        .collect();
    let mut imported: Vec<String> =
        vec![format!("token.saved {company}"), format!("token.saved {location}")];
    imported.sort();
    assert_eq!(
        names,
        [
            format!("token.saved {company}"),
            format!("token.minted {location}"),
            format!("token.refreshed {location}"),
            imported[0].clone(),
            imported[1].clone(),
            format!("token.refreshFailed {company}"),
            format!("token.reauthorizationRequired {company}"),
            format!("token.deleted {location}"),
        ]
    );
    let shown = format!("{events:?}");
    for secret in all_secrets {
        contains_none_of(&shown, &[&secret]);
    }
}

#[test]
fn event_listener_may_call_the_library_about_the_reported_token() {
    let emulator = emulator(1);
    // A callback that deadlocks on its own call would end at this deadline.
    let abi: Arc<Abi> = Arc::new(Abi::with(&emulator, json!({"timeouts": {"totalMs": 2_000}})));
    let seen: Arc<Mutex<Vec<(Value, Value)>>> = Arc::default();
    let (calling, noted) = (Arc::downgrade(&abi), Arc::clone(&seen));
    let heard: Arc<EventRecorder> = abi.listen_with(move |event| {
        let abi = calling.upgrade().unwrap();
        let resource = event["resourceId"].as_str().unwrap();
        let outcome = match event["type"].as_str().unwrap() {
            "token.saved" => abi.token_refresh(resource),
            "token.minted" => abi.token_delete(resource),
            _ => abi.tokens_list(json!({})),
        };
        noted.lock().unwrap().push((event["type"].clone(), json!(outcome.0)));
    });
    let company = abi.connect_company(&emulator);
    assert_eq!(emulator.refreshes(), 1);
    let location = emulator.location_ids()[0].clone();
    let minted = abi.live_token(&emulator, &location);
    abi.stop_listening();
    let told = seen.lock().unwrap().clone();
    let fine = |name: &str| (json!(name), json!(0));
    assert_eq!(
        told,
        [fine("token.refreshed"), fine("token.saved"), fine("token.deleted"), fine("token.minted")]
    );
    abi.live_token(&emulator, &company);
    assert_ne!(abi.live_token(&emulator, &location), minted, "the deletion had an effect");
    drop(heard);
}

#[test]
fn event_listener_sees_the_reported_state_and_gets_no_event_after_removal() {
    let emulator = emulator(1);
    let abi: Arc<Abi> = Arc::new(Abi::new(&emulator));
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let (calling, noted) = (Arc::downgrade(&abi), Arc::clone(&seen));
    let heard: Arc<EventRecorder> = abi.listen_with(move |event| {
        let abi = calling.upgrade().unwrap();
        let deleted = event["type"] == "token.deleted";
        let resource = event["resourceId"].as_str().unwrap();
        let listed = if deleted { Value::Null } else { abi.listed(resource)["expiresAt"].clone() };
        // The callback cannot replace itself.
        // SAFETY: a living client.
        let code = unsafe {
            ghl_oauth::internals::ffi::ghl_client_on_event(abi.handle(), None, std::ptr::null_mut())
        };
        noted.lock().unwrap().push(json!([listed, code]));
    });
    let company = abi.connect_company(&emulator);
    let saved = abi.listed(&company)["expiresAt"].clone();
    let refreshed = abi.token_refresh(&company).ok()["expiresAt"].clone();
    abi.token_delete(&company).ok();
    let refused = Status::InvalidArgument.code();
    assert_eq!(
        *seen.lock().unwrap(),
        [json!([saved, refused]), json!([refreshed, refused]), json!([null, refused])]
    );
    assert_eq!(heard.events().len(), 3);

    abi.stop_listening();
    abi.connect_company(&emulator);
    assert_eq!(heard.events(), [json!(null); 0]);
    let others = abi.listen();
    abi.token_refresh(&company).ok();
    assert_eq!(
        (heard.events().len(), others.names()),
        (0, vec![format!("token.refreshed {company}")])
    );
}

#[test]
fn unknown_location_is_minted_from_the_only_company() {
    let (emulator, abi, _) = with_company(2);
    let location = emulator.location_ids()[1].clone();
    sent(&emulator);
    abi.live_token(&emulator, &location);
    assert_eq!(sent(&emulator), ["mint 200"]);
    let listed = abi.listed(&location);
    assert_eq!(
        (&listed["userType"], &listed["companyId"]),
        (&json!("Location"), &json!(emulator.company_id()))
    );
    let error = abi.access_token("notALocationOfTheirs").fails(Status::Forbidden);
    assert_eq!(error["resourceId"], "notALocationOfTheirs");
    assert_eq!(abi.tokens_list(json!({})).ok()["items"].as_array().unwrap().len(), 2);
}

#[test]
fn unknown_location_without_any_company_is_not_found() {
    let (emulator, abi) = with_client(2);
    let [own, other] = <[String; 2]>::try_from(emulator.location_ids()).unwrap();
    abi.connect(&emulator, Decision::Location(own));
    sent(&emulator);
    for (call, help) in [
        (Abi::access_token as fn(&Abi, &str) -> Outcome, "import"),
        (Abi::token_refresh, "import"),
        (Abi::token_delete, "list of tokens"),
    ] {
        let error = call(&abi, &other).fails(Status::NotFound);
        assert_eq!((&error["resourceId"], &error["retryable"]), (&json!(other), &json!(false)));
        assert!(error["message"].as_str().unwrap().contains(&other), "{error}");
        assert!(error["help"].as_str().unwrap().contains(help), "{error}");
    }
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn unknown_location_among_several_companies_is_found_by_their_lists() {
    let options = Options { companies: 2, locations: 3, ..Options::default() };
    let emulator = Emulator::start(options).unwrap();
    let abi = Abi::new(&emulator);
    for company in emulator.company_ids() {
        abi.connect(&emulator, Decision::Company(company));
    }
    let of_second = emulator.location_ids()[4].clone();
    sent(&emulator);
    let error = abi.access_token(&of_second).fails(Status::NotFound);
    assert!(error["message"].as_str().unwrap().contains("several companies"), "{error}");
    assert!(error["help"].as_str().unwrap().contains("installed locations"), "{error}");
    assert_eq!(sent(&emulator), [""; 0]);

    for company in emulator.company_ids() {
        abi.oauth_installed_locations(json!({"companyId": company})).ok();
    }
    sent(&emulator);
    for (location, company) in [
        (&of_second, &emulator.company_ids()[1]),
        (&emulator.location_ids()[0], &emulator.company_ids()[0]),
    ] {
        abi.live_token(&emulator, location);
        assert_eq!(sent(&emulator), ["mint 200"]);
        assert_eq!(abi.listed(location)["companyId"], company.as_str());
    }
}

#[test]
fn response_without_a_refresh_token_keeps_the_old_refresh_token() {
    let (emulator, abi, company) = with_company(1);
    let kept = live_refresh_tokens(&emulator, &company);
    let body = json!({"accessToken": "an access token alone", "expiresIn": 86399});
    emulator.inject(refreshes().times(1), answer(200, body, Stage::BeforeProcessing));
    let metadata = abi.token_refresh(&company).ok();
    assert_eq!(abi.access_token(&company).text(), "an access token alone");
    // The owner is kept as well.
    assert_eq!(
        (&metadata["userType"], &metadata["companyId"], &metadata["refreshable"]),
        (&json!("Company"), &json!(company), &json!(true))
    );
    assert_ne!(metadata["scope"], Value::Null);
    emulator.clear_requests();
    emulator.clock().advance(DAY);
    abi.live_token(&emulator, &company);
    assert_eq!(refresh_tokens_sent(&emulator), kept);
}

#[test]
fn company_without_a_refresh_token_needs_consent_after_its_access_token_expires() {
    let (emulator, abi) = with_client(1);
    let company = emulator.company_id();
    let token = abi.oauth_token(json!({"grantType": "client_credentials"})).ok();
    assert!(token["refreshToken"].is_null());
    abi.tokens_import(json!({"tokens": [token]})).ok();
    abi.live_token(&emulator, &company);
    assert_eq!(abi.listed(&company)["refreshable"], false);
    emulator.clock().advance(DAY);
    sent(&emulator);
    abi.access_token(&company).fails(Status::ReauthorizationRequired);
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn refused_app_credentials_discard_no_token() {
    let (emulator, abi, company) = with_company(1);
    emulator.clock().advance(DAY);
    let body =
        json!({"error": "UnAuthorized!", "error_description": "Authorization code not found"});
    emulator.inject(refreshes().times(1), answer(401, body, Stage::BeforeProcessing));
    let error = abi.access_token(&company).fails(Status::Unauthorized);
    assert!(error["help"].as_str().unwrap().contains("clientSecret"), "{error}");
    assert_eq!(abi.listed(&company)["state"], "ok");
    abi.live_token(&emulator, &company);
}

#[test]
fn maintenance_renews_tokens_with_less_than_the_runway_left() {
    let (emulator, abi, company) = with_company(3);
    let locations = emulator.location_ids();
    abi.live_token(&emulator, &locations[0]);
    emulator.clock().advance(DAY / 2);
    abi.live_token(&emulator, &locations[1]);
    sent(&emulator);

    let idle = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!(
        (&idle["checked"], &idle["refreshed"], &idle["failed"]),
        (&json!(0), &json!(0), &json!([]))
    );
    assert_eq!(sent(&emulator), [""; 0]);
    // A quarter of the lifetime before the first token expires.
    let due = idle["nextDueAt"].as_i64().unwrap() - emulator.clock().now_ms();
    assert!((21_500_000..21_700_000).contains(&due), "{due}");

    emulator.clock().advance(DAY / 4 + MINUTE);
    let mut told = Vec::new();
    let pass = abi
        .tokens_maintain(json!({}), |so_far| {
            told.push(so_far);
            true
        })
        .ok();
    assert_eq!(
        (&pass["checked"], &pass["refreshed"], &pass["failed"]),
        (&json!(2), &json!(2), &json!([]))
    );
    assert_eq!(
        told,
        [
            json!({"checked": 1, "refreshed": 1, "resealed": 0, "failed": 0}),
            json!({"checked": 2, "refreshed": 2, "resealed": 0, "failed": 0})
        ]
    );
    assert_eq!(sent(&emulator), ["refresh 200"; 2], "of the company and the older location");
    for resource in [&company, &locations[0], &locations[1]] {
        abi.live_token(&emulator, resource);
    }
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn maintenance_renews_several_tokens_concurrently_on_request() {
    let (emulator, abi, company) = with_company(9);
    abi.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
    emulator.clock().advance(DAY);
    sent(&emulator);
    let here = thread::current().id();
    let heard = abi.listen_with(move |_| assert_eq!(thread::current().id(), here));
    let hold = emulator.hold(Rule::on(Endpoint::Token), Stage::BeforeProcessing);
    thread::scope(|scope| {
        scope.spawn(|| {
            hold.wait_for(4);
            hold.release();
        });
        let mut told = Vec::new();
        let pass = abi
            .tokens_maintain(json!({"concurrency": 4}), |so_far| {
                assert_eq!(thread::current().id(), here);
                told.push(so_far["checked"].as_u64().unwrap());
                true
            })
            .ok();
        assert_eq!(
            (&pass["checked"], &pass["refreshed"], &pass["failed"]),
            (&json!(10), &json!(10), &json!([]))
        );
        assert_eq!(told, (1..=10).collect::<Vec<_>>());
    });
    assert_eq!(sent(&emulator).len(), 10);
    assert_eq!(heard.names().len(), 10);

    emulator.clock().advance(DAY);
    // Slow enough that the callback is called before the workers have finished.
    emulator.respond_latency(Duration::from_millis(200));
    let ended = abi.tokens_maintain(json!({"concurrency": 4}), |so_far| so_far["checked"] != 2);
    ended.fails(Status::Cancelled);
    emulator.respond_latency(Duration::ZERO);
    let rest = abi.tokens_maintain(json!({"concurrency": 64}), |_| true).ok();
    let checked = rest["checked"].as_u64().unwrap();
    assert!((1..=8).contains(&checked), "renewals in progress were saved as well: {rest}");
    assert_eq!(rest["refreshed"], checked);
}

/// The number of due tokens does not matter: the other workers never wait for the slow one.
#[test]
fn slow_renewal_delays_no_other_renewal() {
    const LOCATIONS: usize = 250;
    let emulator = emulator(LOCATIONS);
    emulator.set_rate_limit(None);
    let abi = Abi::with(&emulator, json!({"rateLimit": {"requests": 1_000_000}}));
    let company = abi.connect_company(&emulator);
    abi.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
    emulator.clock().advance(DAY);
    let mut hold = Some(emulator.hold(Rule::on(Endpoint::Token).times(1), Stage::BeforeProcessing));
    let mut told = 0;
    let pass = abi.tokens_maintain(json!({"concurrency": 4}), |so_far| {
        told = so_far["checked"].as_u64().unwrap();
        if told == LOCATIONS as u64 {
            hold.take().unwrap().release();
        }
        true
    });
    assert_eq!(pass.ok()["refreshed"], LOCATIONS + 1);
    assert_eq!(told, LOCATIONS as u64 + 1);
}

#[test]
fn maintenance_continues_after_a_failure_and_retries_it_in_the_next_pass() {
    let (emulator, abi, company) = with_company(2);
    let [paused, fine] = <[String; 2]>::try_from(emulator.location_ids()).unwrap();
    for location in [&paused, &fine] {
        abi.live_token(&emulator, location);
    }
    emulator.set_location_active(&paused, false);
    emulator.clock().advance(DAY);
    let pass = abi.tokens_maintain(json!({"companyId": company}), |_| true).ok();
    assert_eq!((&pass["checked"], &pass["refreshed"]), (&json!(3), &json!(2)));
    assert_eq!(pass["failed"][0]["resourceId"], paused.as_str());
    assert_eq!(pass["failed"][0]["error"]["status"], "GHL_ERR_LOCATION_INACTIVE");
    let due = pass["nextDueAt"].as_i64().unwrap() - emulator.clock().now_ms();
    assert!((50_000..=60_000).contains(&due), "{due}");

    emulator.set_location_active(&paused, true);
    emulator.clock().advance(MINUTE);
    let pass = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!((&pass["refreshed"], &pass["failed"]), (&json!(1), &json!([])));
    abi.live_token(&emulator, &paused);
}

#[test]
fn maintenance_retries_a_refresh_of_unknown_outcome() {
    let emulator = emulator(1);
    let abi = with_short_deadline(&emulator);
    let company = abi.connect_company(&emulator);
    let fault = emulator.inject(refreshes(), FaultKind::ReplyLost);
    abi.token_refresh(&company).fails(Status::Network);
    emulator.remove_fault(fault);
    let pass = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!((&pass["checked"], &pass["refreshed"]), (&json!(1), &json!(1)));
    assert_eq!(emulator.refreshes(), 1);
    emulator.clock().advance(DAY);
    abi.live_token(&emulator, &company);
}

/// The next pass might start after the replay window has ended.
#[test]
fn long_maintenance_pass_retries_its_own_refreshes_of_unknown_outcome() {
    const LOCATIONS: usize = 40;
    let emulator = emulator(LOCATIONS);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    abi.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
    emulator.clock().advance(DAY);
    // As often as a pass retries in one attempt, for the first token of the pass.
    emulator.inject(refreshes().times(3), FaultKind::ReplyLost);
    emulator.clear_requests();
    let pass = abi.tokens_maintain(json!({}), |_| {
        emulator.clock().advance(Duration::from_secs(1));
        true
    });
    let pass = pass.ok();
    assert_eq!((&pass["checked"], &pass["failed"]), (&json!(LOCATIONS + 1), &json!([])));
    assert_eq!(emulator.refreshes(), LOCATIONS as u64 + 1);
    // It is retried after eight seconds, during which at most eight others are renewed.
    let tokens = refresh_tokens_sent(&emulator);
    let places: Vec<_> = (0..tokens.len()).filter(|place| tokens[*place] == tokens[0]).collect();
    assert_eq!((places.len(), &places[..3]), (4, &[0, 1, 2][..]));
    assert!((4..=11).contains(&places[3]), "{places:?}");
}

#[test]
fn short_maintenance_pass_reports_its_refreshes_of_unknown_outcome() {
    let (emulator, abi, company) = with_company(3);
    abi.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
    emulator.clock().advance(DAY);
    let fault = emulator.inject(refreshes().resource(&company), FaultKind::ReplyLost);
    let pass = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!((&pass["checked"], &pass["refreshed"]), (&json!(4), &json!(3)));
    assert_eq!(pass["failed"][0]["resourceId"], company.as_str());
    assert_eq!(emulator.strikes(fault), 3);
    emulator.clear_faults();
    let pass = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!((&pass["checked"], &pass["refreshed"]), (&json!(1), &json!(1)));
}

#[test]
fn maintenance_of_one_company_renews_only_its_tokens() {
    let options = Options { companies: 2, locations: 1, ..Options::default() };
    let emulator = Emulator::start(options).unwrap();
    let abi = Abi::new(&emulator);
    let companies = emulator.company_ids();
    for company in &companies {
        abi.connect(&emulator, Decision::Company(company.clone()));
        abi.oauth_installed_locations(json!({"companyId": company})).ok();
    }
    for location in emulator.location_ids() {
        abi.live_token(&emulator, &location);
    }
    emulator.clock().advance(DAY);
    let pass = abi.tokens_maintain(json!({"companyId": companies[1]}), |_| true).ok();
    assert_eq!(pass["refreshed"], 2);
    let rest = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!(rest["refreshed"], 2);
    let none = abi.tokens_maintain(json!({"companyId": "unknown"}), |_| true).ok();
    assert_eq!((&none["checked"], &none["nextDueAt"]), (&json!(0), &Value::Null));
}

#[test]
fn expired_token_is_not_handed_out_after_a_failed_refresh_and_the_caller_learns_when_consent_is_gone()
 {
    let emulator = emulator(1);
    let abi = with_short_deadline(&emulator);
    let company = abi.connect_company(&emulator);
    emulator.clock().advance(DAY);
    emulator.inject(refreshes(), FaultKind::Reset { stage: Stage::BeforeProcessing });
    for _ in 0..3 {
        assert_ne!(abi.access_token(&company).0, 0, "a dead token is no token");
    }
    emulator.clear_faults();
    abi.live_token(&emulator, &company);

    let heard = abi.listen();
    emulator.revoke_refresh_token(&company);
    emulator.clock().advance(DAY);
    for _ in 0..3 {
        abi.access_token(&company).fails(Status::ReauthorizationRequired);
    }
    assert_eq!(heard.names(), [format!("token.reauthorizationRequired {company}")]);
    assert_eq!(abi.listed(&company)["state"], "reauthorizationRequired");
}

#[test]
fn minted_token_is_stored_with_its_company_so_that_a_later_process_can_mint_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = json!({"store": {"kind": "sqlite", "path": folder.path().join("tokens.db")}});
    let options = Options {
        companies: 2,
        locations: 1,
        location_refresh_tokens: false,
        ..Options::default()
    };
    let emulator = Emulator::start(options).unwrap();
    let abi = Abi::with(&emulator, store.clone());
    let company = abi.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    // The answer to a mint names neither the company nor the class of the token.
    abi.live_token(&emulator, &location);
    abi.connect(&emulator, Decision::Company(emulator.company_ids()[1].clone()));
    drop(abi);
    let later = Abi::with(&emulator, store);
    let listed = later.listed(&location);
    assert_eq!((&listed["companyId"], &listed["userType"]), (&json!(company), &json!("Location")));
    emulator.clock().advance(DAY);
    later.live_token(&emulator, &location);
}
