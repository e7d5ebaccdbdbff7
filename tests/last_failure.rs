//! The last failure of each token: in every store, for every process, ended by a success, without a
//! secret, and without a risk for the token.

mod fixture;
mod support;

use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Endpoint, FaultKind, GrantType, Refusal, Rule, Stage};
use serde_json::{Value, json};

use fixture::{DURABLE, EVERY, Fixture, Kind, refresh_unsaved, until};
use support::{Abi, DAY, contains_none_of, response, sent};

/// Longer than any backoff between two attempts.
const RESTED: Duration = Duration::from_secs(600);

fn refreshes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken)
}

fn server_error() -> FaultKind {
    let body = json!({"statusCode": 400, "message": "the ledger is closed", "traceId": "trace-7"});
    response(400, body, &[])
}

/// The stores that follow the test's clock.
const TIMED: [Kind; 2] = [Kind::Memory, Kind::Sqlite];

/// Another client on the same store, or the same client if the store is in its memory.
fn reader(fixture: &Fixture) -> Option<Abi> {
    (fixture.kind != Kind::Memory).then(|| fixture.open())
}

/// A connected company.
fn connected(kind: Kind) -> (Fixture, Abi, String) {
    let fixture = Fixture::new(kind);
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    (fixture, abi, company)
}

/// A connected company whose token has 200 s left, so that calls refresh it.
fn due(kind: Kind) -> (Fixture, Abi, String) {
    let fixture = Fixture::new(kind);
    fixture.clock.make_waits_free();
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    fixture.pass(DAY - Duration::from_secs(200));
    sent(&fixture.emulator);
    (fixture, abi, company)
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn failed_refresh_is_listed_by_every_process_until_a_success() {
    for kind in EVERY {
        let (fixture, abi, company) = connected(kind);
        let before = abi.listed(&company);
        assert_eq!(before["lastFailure"], Value::Null, "{kind:?}");
        assert!(number(&before["lastSuccessAt"]) < number(&before["expiresAt"]), "{kind:?}");
        let heard = abi.listen();
        fixture.emulator.inject(refreshes(), server_error());
        let reader = reader(&fixture);
        let reader = reader.as_ref().unwrap_or(&abi);

        let error = abi.token_refresh(&company).fails(Status::InvalidRequest);
        let first = reader.listed(&company)["lastFailure"].clone();
        assert_eq!(first["attempts"], 1, "{kind:?}");
        assert_eq!(first["firstAt"], first["at"], "{kind:?}");
        assert_eq!(first["status"], error["status"], "{kind:?}");
        assert_eq!(first["message"], "the ledger is closed", "{kind:?}");
        assert_eq!((&first["httpStatus"], &first["traceId"]), (&json!(400), &json!("trace-7")));
        assert!(number(&first["nextAttemptAt"]) > number(&first["at"]), "{kind:?}");
        let event = heard.events().pop().unwrap();
        assert_eq!(event["type"], "token.refreshFailed", "{kind:?}");
        assert_eq!(event["lastFailure"], first, "{kind:?}");

        abi.token_refresh(&company).fails(Status::InvalidRequest);
        let second = reader.listed(&company)["lastFailure"].clone();
        assert_eq!(second["attempts"], 2, "{kind:?}");
        assert_eq!(second["firstAt"], first["firstAt"], "{kind:?}");
        assert!(number(&second["at"]) >= number(&first["at"]), "{kind:?}");

        fixture.emulator.clear_faults();
        let refreshed = abi.token_refresh(&company).ok();
        assert_eq!(refreshed["lastFailure"], Value::Null, "{kind:?}");
        let after = reader.listed(&company);
        assert_eq!(after["lastFailure"], Value::Null, "{kind:?}");
        assert!(number(&after["lastSuccessAt"]) >= number(&before["lastSuccessAt"]), "{kind:?}");
    }
}

#[test]
fn storm_of_calls_between_two_attempts_saves_nothing() {
    let (fixture, abi, company) = due(Kind::Sqlite);
    fixture.emulator.inject(refreshes(), server_error());
    let old = abi.access_token(&company).text();
    let version = |fixture: &Fixture| fixture.stored(&company).unwrap().0;
    let (first, saved) = (abi.listed(&company)["lastFailure"].clone(), version(&fixture));
    for _ in 0..50 {
        assert_eq!(abi.access_token(&company).text(), old);
    }
    assert_eq!(abi.listed(&company)["lastFailure"], first);
    assert_eq!(version(&fixture), saved);
    fixture.pass(Duration::from_secs(10));
    assert_eq!(abi.access_token(&company).text(), old);
    let second = abi.listed(&company)["lastFailure"].clone();
    assert_eq!(second["attempts"], 2);
    assert!(number(&second["at"]) >= number(&first["at"]) + 10_000);
    assert_eq!(version(&fixture), saved + 2, "the intent, and the outcome with the failure");
}

#[test]
fn every_kind_of_failed_refresh_is_recorded_with_its_status() {
    let html = "<html>error code: 1010</html>";
    for (fault, status) in [
        (FaultKind::Reset { stage: Stage::BeforeProcessing }, "NETWORK"),
        (response(500, "", &[]), "SERVER"),
        (response(401, json!({"error": "invalid_client"}), &[]), "UNAUTHORIZED"),
        (response(403, html, &[]), "FORBIDDEN"),
        (FaultKind::Refusal { refusal: Refusal::FirewallPage }, "FORBIDDEN"),
        (response(200, "{}", &[]), "PROTOCOL"),
    ] {
        let (fixture, abi, company) = due(Kind::Sqlite);
        fixture.emulator.inject(refreshes(), fault);
        abi.access_token(&company).text();
        let failure = abi.listed(&company)["lastFailure"].clone();
        assert_eq!(failure["status"], format!("GHL_ERR_{status}"), "{failure}");
        assert_eq!(failure["attempts"], 1, "retries of one call count once: {failure}");
        let maintained = abi.tokens_maintain(json!({}), |_| true).ok();
        assert_eq!(maintained["failed"].as_array().unwrap().len(), 1, "{status}");
        assert_eq!(abi.listed(&company)["lastFailure"]["attempts"], 2, "{status}");
    }
}

#[test]
fn lost_connection_is_recorded_without_a_next_attempt_although_the_old_token_is_served() {
    for kind in TIMED {
        let (fixture, abi, company) = due(kind);
        let heard = abi.listen();
        fixture.emulator.revoke_refresh_token(&company);
        abi.access_token(&company).text();
        let listed = abi.listed(&company);
        assert_eq!(listed["state"], "reauthorizationRequired", "{kind:?}");
        let failure = &listed["lastFailure"];
        assert_eq!(failure["status"], "GHL_ERR_REAUTHORIZATION_REQUIRED", "{kind:?}");
        assert_eq!(failure["nextAttemptAt"], Value::Null, "{kind:?}");
        let event = heard.events().pop().unwrap();
        assert_eq!(event["type"], "token.reauthorizationRequired", "{kind:?}");
        assert_eq!(event["lastFailure"], *failure, "{kind:?}");
        // Calls that repeat the known state are no further failures.
        fixture.pass(RESTED);
        abi.access_token(&company).fails(Status::ReauthorizationRequired);
        assert_eq!(abi.listed(&company)["lastFailure"], *failure, "{kind:?}");

        abi.connect_company(&fixture.emulator);
        assert_eq!(abi.listed(&company)["lastFailure"], Value::Null, "{kind:?}");
    }
}

#[test]
fn failed_mint_is_recorded_for_the_location_whose_old_token_lives() {
    for kind in EVERY {
        let (fixture, abi, company) = connected(kind);
        let location = fixture.location(0);
        abi.live_token(&fixture.emulator, &location);
        // Without a refresh token: only its company's token renews it.
        let mut exported = abi.tokens_export(json!({})).ok()["tokens"].take();
        exported.as_array_mut().unwrap().retain(|token| token["locationId"] == location.as_str());
        exported[0].as_object_mut().unwrap().remove("refreshToken");
        let params = json!({"tokens": exported, "replace": true});
        assert_eq!(abi.tokens_import(params).ok()["imported"], 1);

        fixture.emulator.inject(Rule::on(Endpoint::LocationToken), server_error());
        abi.token_refresh(&location).fails(Status::InvalidRequest);
        let reader = reader(&fixture);
        let reader = reader.as_ref().unwrap_or(&abi);
        let failure = reader.listed(&location)["lastFailure"].clone();
        assert_eq!(failure["message"], "the ledger is closed", "{kind:?}");
        assert_eq!(failure["attempts"], 1, "{kind:?}");
        assert_eq!(reader.listed(&company)["lastFailure"], Value::Null, "{kind:?}");

        // The next failure of the kind needs no save: this process remembers it.
        abi.token_refresh(&location).fails(Status::InvalidRequest);
        assert_eq!(abi.listed(&location)["lastFailure"]["attempts"], 2, "{kind:?}");
        let expected = if kind == Kind::Memory { 2 } else { 1 };
        assert_eq!(reader.listed(&location)["lastFailure"]["attempts"], expected, "{kind:?}");

        fixture.emulator.clear_faults();
        abi.token_refresh(&location).ok();
        for client in [&abi, reader] {
            assert_eq!(client.listed(&location)["lastFailure"], Value::Null, "{kind:?}");
        }
    }
}

#[test]
fn failed_mint_of_an_inactive_location_is_one_failure() {
    for kind in EVERY {
        let (fixture, abi, _) = connected(kind);
        let location = fixture.location(0);
        abi.live_token(&fixture.emulator, &location);
        let mut exported = abi.tokens_export(json!({})).ok()["tokens"].take();
        exported.as_array_mut().unwrap().retain(|token| token["locationId"] == location.as_str());
        exported[0].as_object_mut().unwrap().remove("refreshToken");
        abi.tokens_import(json!({"tokens": exported, "replace": true})).ok();
        fixture.emulator.set_location_active(&location, false);
        abi.token_refresh(&location).fails(Status::LocationInactive);
        let listed = abi.listed(&location);
        assert_eq!(listed["state"], "inactive", "{kind:?}");
        assert_eq!(listed["lastFailure"]["attempts"], 1, "{kind:?}");
    }
}

#[test]
fn mint_that_fails_again_later_is_counted_again() {
    let (fixture, abi, company) = connected(Kind::Sqlite);
    let location = fixture.location(0);
    abi.live_token(&fixture.emulator, &location);
    fixture.emulator.inject(Rule::on(Endpoint::LocationToken), server_error());
    let params = json!({"companyId": company, "locationIds": [location], "force": true});
    for attempts in 1..=2 {
        abi.tokens_mint(params.clone(), |_| true).ok();
        let failure = fixture.open().listed(&location)["lastFailure"].clone();
        assert_eq!(failure["attempts"], attempts);
        fixture.pass(Duration::from_secs(120));
    }
}

#[test]
fn failed_mint_of_many_is_recorded_for_the_locations_with_a_token() {
    let fixture = Fixture::new(Kind::Sqlite);
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    let (held, unknown) = (fixture.location(0), fixture.location(1));
    abi.live_token(&fixture.emulator, &held);
    fixture.emulator.inject(Rule::on(Endpoint::LocationToken), server_error());
    let params = json!({"companyId": company, "locationIds": [held, unknown], "force": true});
    let minted = abi.tokens_mint(params, |_| true).ok();
    assert_eq!(minted["failed"].as_array().unwrap().len(), 2);
    let failing = abi.tokens_list(json!({"failing": true})).ok();
    let ids: Vec<&Value> = failing["items"].as_array().unwrap().iter().collect();
    assert_eq!(ids.len(), 1, "{failing}");
    assert_eq!(ids[0]["resourceId"], held.as_str());
}

#[test]
fn failure_that_the_store_refuses_is_listed_by_its_process_and_saved_by_the_next() {
    for kind in DURABLE {
        let (fixture, abi, company) = connected(kind);
        sent(&fixture.emulator);
        fixture.refuse_saves();
        abi.token_refresh(&company).fails(Status::Store);
        let failure = abi.listed(&company)["lastFailure"].clone();
        assert_eq!(failure["status"], "GHL_ERR_STORE", "{kind:?}");
        assert_eq!(sent(&fixture.emulator), [""; 0], "{kind:?}: nothing was sent");
        let other = fixture.open();
        assert_eq!(other.listed(&company)["lastFailure"], Value::Null, "{kind:?}");

        fixture.accept_saves();
        fixture.emulator.inject(refreshes(), server_error());
        abi.token_refresh(&company).fails(Status::InvalidRequest);
        for client in [&abi, &other] {
            let failure = client.listed(&company)["lastFailure"].clone();
            assert_eq!((&failure["attempts"], &failure["httpStatus"]), (&json!(2), &json!(400)));
        }
        fixture.emulator.clear_faults();
        abi.token_refresh(&company).ok();
        for client in [&abi, &other] {
            assert_eq!(client.listed(&company)["lastFailure"], Value::Null, "{kind:?}");
        }
    }
}

#[test]
fn unsaved_token_is_neither_saved_nor_replaced_by_a_failure() {
    for kind in DURABLE {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        let company = abi.connect_company(&fixture.emulator);
        refresh_unsaved(&fixture, &abi, &company);
        let newest = abi.access_token(&company).text();
        assert_eq!(abi.token_refresh(&company).0, Status::Store.code(), "{kind:?}");
        let listed = abi.listed(&company);
        assert_eq!(listed["state"], "unsaved", "{kind:?}");
        assert_eq!(listed["lastFailure"]["status"], "GHL_ERR_STORE", "{kind:?}");
        assert!(!fixture.is_stored(&company, &newest), "{kind:?}");
        fixture.accept_saves();
        drop(abi);
        let abi = fixture.open();
        assert_eq!(abi.access_token(&company).text(), newest, "{kind:?}");
        assert_eq!(abi.listed(&company)["lastFailure"], Value::Null, "{kind:?}");
    }
}

#[test]
fn failure_of_a_deleted_token_does_not_restore_it() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        // The deletion waits 5 s for the refresh, which then still waits for its response.
        let abi = fixture.open_with(json!({"timeouts": {"totalMs": 8_000, "answerMs": 8_000}}));
        let company = abi.connect_company(&fixture.emulator);
        sent(&fixture.emulator);
        fixture.emulator.inject(refreshes(), FaultKind::Stall { stage: Stage::BeforeProcessing });
        std::thread::scope(|scope| {
            let refresh = scope.spawn(|| abi.token_refresh(&company));
            until("the request is sent", || !fixture.emulator.requests().is_empty());
            abi.token_delete(&company).ok();
            assert_ne!(refresh.join().unwrap().0, 0, "{kind:?}");
        });
        assert_eq!(abi.tokens_list(json!({})).ok()["items"], json!([]), "{kind:?}");
    }
}

#[test]
fn failure_survives_neither_an_export_nor_holds_a_secret() {
    let (fixture, abi, company) = due(Kind::Sqlite);
    let exported = abi.tokens_export(json!({})).ok();
    let secret = |key: &str| exported["tokens"][0][key].as_str().unwrap().to_owned();
    let (access, refresh) = (secret("accessToken"), secret("refreshToken"));
    let echo = format!("refused: {refresh} {access} {}", fixture.emulator.client_secret());
    let body = json!({"statusCode": 400, "message": echo, "traceId": refresh});
    fixture.emulator.inject(refreshes(), response(400, body, &[]));
    abi.access_token(&company).text();
    let listed = abi.listed(&company);
    assert_eq!(listed["lastFailure"]["httpStatus"], 400);
    contains_none_of(&listed.to_string(), &[&access, &refresh, fixture.emulator.client_secret()]);
    let exported = abi.tokens_export(json!({"failing": true})).ok();
    assert_eq!(exported["tokens"].as_array().unwrap().len(), 1);
    assert!(!exported.to_string().contains("lastFailure"));
}

#[test]
fn list_is_filtered_by_state_failure_and_expiry_page_by_page() {
    let options =
        ghl_oauth_emulator::Options { locations: 40, rate_limit: None, ..Default::default() };
    let fixture = Fixture::of(Kind::Sqlite, options);
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    abi.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
    let mut paused = fixture.emulator.location_ids();
    paused.sort_unstable();
    paused.retain(|id| paused_by_index(id));
    let ids = |params: Value| {
        let (mut params, mut ids) = (params, Vec::new());
        loop {
            let page = abi.tokens_list(params.clone()).ok();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 3);
            ids.extend(items.iter().map(|item| item["resourceId"].as_str().unwrap().to_owned()));
            params["pageToken"] = page["nextPageToken"].clone();
            if params["pageToken"].is_null() {
                return ids;
            }
        }
    };
    for id in &paused {
        fixture.emulator.set_location_active(id, false);
        assert_eq!(abi.token_refresh(id).0, Status::LocationInactive.code());
    }
    assert_eq!(ids(json!({"pageSize": 3, "state": "inactive"})), paused);
    assert_eq!(ids(json!({"pageSize": 3, "failing": true})), paused);
    assert_eq!(ids(json!({"pageSize": 3, "state": "ok"})).len(), 41 - paused.len());
    assert_eq!(ids(json!({"pageSize": 3, "state": "ok", "failing": true})), [""; 0]);
    let expiry = number(&abi.listed(&company)["expiresAt"]);
    assert_eq!(ids(json!({"pageSize": 3, "expiresBefore": expiry - 3_600_000})), [""; 0]);
    assert_eq!(ids(json!({"pageSize": 3, "expiresBefore": expiry + 3_600_000})).len(), 41);
    abi.tokens_list(json!({"state": "odd"})).refuses("state");
    abi.tokens_list(json!({"failing": "yes"})).refuses("failing");
    abi.tokens_list(json!({"expiresBefore": "soon"})).refuses("expiresBefore");
}

/// A fifth of the locations, spread over the pages.
fn paused_by_index(id: &str) -> bool {
    id.bytes().map(usize::from).sum::<usize>() % 5 == 0
}
