//! Faults observed under load or during migrations: the response that the client gets, and the
//! effect in the emulator.

mod support;

use ghl_oauth_emulator::{
    Decision, Emulator, Endpoint, FaultKind, GrantType, Options, Rule, Stage,
};
use serde_json::json;
use support::*;

fn start() -> Emulator {
    Emulator::start(Options { locations: 3, ..Options::default() }).unwrap()
}

#[test]
fn upstream_timeout_spends_the_refresh_token_only_after_processing() {
    for (stage, refreshes) in [(Stage::BeforeProcessing, 0), (Stage::AfterProcessing, 1)] {
        let emulator = start();
        let token = connect(&emulator);
        let kind = FaultKind::CommandTimedOut { stage, as_object: false };
        emulator.inject(Rule::on(Endpoint::Token).times(1), kind);
        let refused = refresh(&emulator, text(&token, "refreshToken"));
        assert_eq!((refused.status, refused.message().as_str()), (401, "Command timed out"));
        assert_eq!(emulator.refreshes(), refreshes, "{stage:?}");
        refresh(&emulator, text(&token, "refreshToken")).expect(200);
        assert_eq!(emulator.refreshes(), 1, "{stage:?}");
    }
}

#[test]
fn upstream_timeout_affects_any_endpoint_and_may_nest_its_text_in_an_object() {
    let emulator = start();
    let token = connect(&emulator);
    let access_token = text(&token, "accessToken");
    let location = emulator.location_ids()[0].clone();
    control(&emulator, "POST", "/faults", r#"{"kind": "commandTimedOut", "asObject": true}"#)
        .expect(200);
    let list = format!(
        "/oauth/installed-locations?companyId={}&appId={}",
        emulator.company_id(),
        emulator.app_id()
    );
    for reply in [
        refresh(&emulator, text(&token, "refreshToken")),
        mint(&emulator, access_token, &location),
        get(&emulator, access_token, &list),
        get(&emulator, access_token, &format!("/locations/{location}")),
    ] {
        assert_eq!(reply.expect(401)["message"]["message"], "Command timed out");
    }
    emulator.clear_faults();
    mint(&emulator, access_token, &location).expect(200);
}

#[test]
fn random_faults_with_the_same_seed_affect_the_same_requests() {
    let struck = |seed: u64| -> Vec<bool> {
        let emulator = Emulator::start(Options { seed, ..Options::default() }).unwrap();
        let kind = FaultKind::CommandTimedOut { stage: Stage::BeforeProcessing, as_object: false };
        emulator.inject(Rule::on(Endpoint::Token).probability(0.4), kind);
        let fields = [("grantType", "client_credentials")];
        (0..30).map(|_| token(&emulator, &fields).status == 401).collect()
    };
    let first = struck(7);
    assert_eq!(first, struck(7));
    assert_ne!(first, struck(8));
    assert!(first.contains(&true) && first.contains(&false));
}

#[test]
fn fan_out_fault_applies_only_with_enough_concurrent_requests() {
    let emulator = start();
    let token = connect(&emulator);
    let access_token = text(&token, "accessToken");
    let locations = emulator.location_ids();
    let kind = FaultKind::CommandTimedOut { stage: Stage::BeforeProcessing, as_object: false };
    emulator.inject(Rule::on(Endpoint::LocationToken).in_flight(3), kind);
    mint(&emulator, access_token, &locations[0]).expect(200);

    let hold = emulator.hold(Rule::on(Endpoint::Location), Stage::BeforeProcessing);
    let target = format!("/locations/{}", locations[0]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| get(&emulator, access_token, &target).expect(200));
        }
        hold.wait_for(2);
        assert_eq!(mint(&emulator, access_token, &locations[0]).message(), "Command timed out");
        hold.release();
    });
    mint(&emulator, access_token, &locations[0]).expect(200);
}

#[test]
fn unavailable_page_spends_the_token_and_has_no_retry_after() {
    let emulator = start();
    let token = connect(&emulator);
    let fault = json!({"kind": "unavailablePage", "endpoint": "token", "count": 1});
    control(&emulator, "POST", "/faults", &fault.to_string()).expect(200);
    let page = refresh(&emulator, text(&token, "refreshToken"));
    assert_eq!((page.status, page.header("retry-after")), (503, None));
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.text().contains("503 Service Temporarily Unavailable"), "{}", page.text());
    assert_eq!(emulator.refreshes(), 1);

    let before = FaultKind::UnavailablePage { stage: Stage::BeforeProcessing };
    emulator.inject(Rule::default().times(1), before);
    assert_eq!(
        mint(&emulator, text(&token, "accessToken"), &emulator.location_ids()[0]).status,
        503
    );
    assert_eq!(emulator.live_refresh_tokens().len(), 1, "nothing was minted");
}

#[test]
fn location_refresh_can_return_the_company_token() {
    let emulator = start();
    let location = emulator.location_ids()[0].clone();
    let token = connect_with(&emulator, SCOPE, Decision::Location(location.clone()));
    let rule = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken).times(1);
    emulator.inject(rule, FaultKind::OtherOwner { owner_id: None });
    let answer = refresh(&emulator, text(&token, "refreshToken")).expect(200);
    assert_eq!(
        (text(&answer, "userType"), text(&answer, "companyId")),
        ("Company", &*emulator.company_id())
    );
    assert!(answer.get("locationId").is_none(), "{answer}");
    let live = emulator.live_refresh_tokens();
    assert_eq!(live.len(), 1);
    assert_eq!(live[0].resource_id, emulator.company_id(), "the location's own token is spent");
}

#[test]
fn mint_can_return_the_token_of_another_location() {
    let emulator = start();
    let token = connect(&emulator);
    let locations = emulator.location_ids();
    let fault = json!({"kind": "otherOwner", "ownerId": locations[1], "resourceId": locations[0]});
    control(&emulator, "POST", "/faults", &fault.to_string()).expect(200);
    let answer = mint(&emulator, text(&token, "accessToken"), &locations[0]).expect(200);
    assert_eq!(text(&answer, "locationId"), locations[1]);
    let right = mint(&emulator, text(&token, "accessToken"), &locations[2]).expect(200);
    assert_eq!(text(&right, "locationId"), locations[2]);
}
