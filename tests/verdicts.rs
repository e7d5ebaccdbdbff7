//! Final refusals of a token, the owner in a response, and the backoff after a refusal.

mod fixture;
mod support;

use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth_emulator::{
    Behaviour, Decision, Emulator, Endpoint, FaultKind, GrantType, Notice, Options, Refusal, Rule,
    Signature, Stage,
};
use serde_json::{Value, json};

use fixture::{EVERY, Fixture, Kind};
use support::{Abi, DAY, response, sent, signed};

/// A response with this status and body.
fn answer(status: u16, body: &str) -> FaultKind {
    response(status, body, &[])
}

/// Error pages of proxies, firewalls and gateways, which do not come from the API.
fn pages() -> Vec<(String, FaultKind)> {
    let html =
        "<html><head><title>Attention Required!</title></head><body>error code: 1010</body></html>";
    let mut pages: Vec<_> = [400, 401, 403, 404, 422, 451]
        .into_iter()
        .map(|status| (format!("an HTML page with {status}"), answer(status, html)))
        .collect();
    for body in
        ["", "Forbidden", "<p>invalid_grant</p>", "<p>Invalid grant: refresh token is invalid</p>"]
    {
        pages.push((format!("403 with {body:?}"), answer(403, body)));
        pages.push((format!("400 with {body:?}"), answer(400, body)));
    }
    for body in [
        json!({}),
        json!({"message": "Forbidden"}),
        json!({"message": "no Route matched with those values"}),
        json!({"title": "Error 1010: Access denied", "status": 403, "cloudflare_error": true}),
        json!({"error": {"code": 403, "message": "Blocked", "status": "PERMISSION_DENIED"}}),
        json!({"error": "Not Found", "message": "", "path": "/", "status": 404, "timestamp": 1}),
    ] {
        for status in [400, 403, 404] {
            pages.push((format!("{status} with {body}"), answer(status, &body.to_string())));
        }
    }
    pages.push((
        "the firewall's page".into(),
        FaultKind::Refusal { refusal: Refusal::FirewallPage },
    ));
    pages
}

/// Longer than any backoff.
const RESTED: Duration = Duration::from_secs(3_600);

/// A minted location with an expired access token and a spent refresh token; its company works.
fn location_with_spent_refresh_token(kind: Kind) -> (Fixture, Abi, String) {
    let fixture = Fixture::new(kind);
    fixture.clock.make_waits_free();
    let abi = fixture.open();
    let (company, location) = (abi.connect_company(&fixture.emulator), fixture.location(0));
    abi.live_token(&fixture.emulator, &location);
    fixture.emulator.revoke_refresh_token(&location);
    fixture.pass(DAY);
    abi.live_token(&fixture.emulator, &company);
    sent(&fixture.emulator);
    (fixture, abi, location)
}

#[test]
fn firewall_page_at_a_mint_ends_no_location_with_a_spent_refresh_token() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        for (what, page) in pages() {
            let (fixture, abi, location) = location_with_spent_refresh_token(kind);
            let heard = abi.listen();
            fixture.emulator.inject(Rule::on(Endpoint::LocationToken), page);
            let error = abi.access_token(&location);
            assert_ne!(error.0, Status::ReauthorizationRequired.code(), "{kind:?}, {what}");
            assert_ne!(error.0, 0, "{kind:?}, {what}");
            let maintained = abi.tokens_maintain(json!({}), |_| true).ok();
            assert!(
                !maintained.to_string().contains("REAUTHORIZATION"),
                "{kind:?}, {what}: {maintained}"
            );
            assert_eq!(abi.listed(&location)["state"], "ok", "{kind:?}, {what}");
            let names = heard.names();
            assert!(
                !names.iter().any(|name| name.contains("reauthorization")),
                "{what}: {names:?}"
            );
            fixture.emulator.clear_faults();
            fixture.pass(RESTED);
            abi.live_token(&fixture.emulator, &location);
            assert_eq!(abi.listed(&location)["state"], "ok", "{kind:?}, {what}");
        }
    }
}

#[test]
fn firewall_page_at_a_refresh_ends_no_connection() {
    for (what, page) in pages() {
        let fixture = Fixture::new(Kind::Sqlite);
        fixture.clock.make_waits_free();
        let abi = fixture.open();
        let company = abi.connect_company(&fixture.emulator);
        fixture.pass(DAY);
        fixture.emulator.inject(Rule::on(Endpoint::Token), page);
        for _ in 0..2 {
            let error = abi.access_token(&company);
            assert_ne!(error.0, Status::ReauthorizationRequired.code(), "{what}");
            fixture.pass(Duration::from_secs(30));
        }
        assert_eq!(abi.listed(&company)["state"], "ok", "{what}");
        fixture.emulator.clear_faults();
        fixture.pass(RESTED);
        abi.live_token(&fixture.emulator, &company);
    }
}

#[test]
fn api_refusal_at_a_mint_ends_a_location_with_a_spent_refresh_token() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        let (fixture, abi, location) = location_with_spent_refresh_token(kind);
        fixture.emulator.inject(
            Rule::on(Endpoint::LocationToken),
            FaultKind::Refusal { refusal: Refusal::LocationForbidden },
        );
        abi.access_token(&location).fails(Status::ReauthorizationRequired);
        assert_eq!(abi.listed(&location)["state"], "reauthorizationRequired", "{kind:?}");
        // Its company and the other location keep working.
        fixture.emulator.clear_faults();
        for id in [fixture.company(), fixture.location(1)] {
            abi.live_token(&fixture.emulator, &id);
        }
    }
}

/// The company of a location is unknown; it becomes known later.
#[test]
fn location_without_a_company_is_minted_once_a_company_that_lists_it_is_known() {
    for (by, renewal) in RENEWALS {
        for companies in [1, 2] {
            let options = Options { companies, locations: 1, ..Options::default() };
            let fixture = Fixture::of(Kind::Sqlite, options);
            fixture.clock.make_waits_free();
            let abi = fixture.open();
            let location = fixture.location(0);
            let decision = Decision::Location(location.clone());
            let mut own = fixture::saved_answer(&abi, &fixture.emulator, decision);
            own.as_object_mut().unwrap().remove("companyId");
            fixture.pass(DAY);
            if companies == 2 {
                for company in fixture.emulator.company_ids() {
                    abi.connect(&fixture.emulator, Decision::Company(company));
                }
            }
            own["expiresIn"] = 1.into();
            abi.tokens_import(json!({"tokens": [own]})).ok();
            fixture.pass(Duration::from_secs(2));
            fixture.emulator.revoke_refresh_token(&location);
            let what = format!("{by}, {companies} companies");
            for _ in 0..2 {
                abi.access_token(&location).fails(Status::ReauthorizationRequired);
                fixture.pass(RESTED);
            }
            if companies == 2 {
                let company = fixture.company();
                abi.oauth_installed_locations(json!({"companyId": company})).ok();
            } else {
                abi.connect_company(&fixture.emulator);
            }
            let token = renewal(&abi, &location).expect(&what);
            assert!(fixture.emulator.access_token_is_live(&token), "{what}");
            assert_eq!(abi.listed(&location)["companyId"], fixture.company(), "{what}");
        }
    }
}

fn tell(abi: &Abi, emulator: &Emulator, notice: &Notice) -> Value {
    let body = emulator.webhook(notice);
    abi.webhook_apply(body.as_bytes(), &signed(emulator, body.as_bytes(), Signature::Ed25519)).ok()
}

#[test]
fn firewall_page_at_the_mint_of_an_install_is_not_final() {
    for (what, page) in pages() {
        let fixture = Fixture::new(Kind::Sqlite);
        let abi = fixture.open();
        abi.connect_company(&fixture.emulator);
        let location = fixture.location(0);
        fixture.emulator.inject(Rule::on(Endpoint::LocationToken), page);
        let applied = tell(&abi, &fixture.emulator, &Notice::Install(location.clone()));
        assert_eq!(applied["applied"], true, "{what}");
        let _ = abi.tokens_maintain(json!({}), |_| true).ok();
        fixture.emulator.clear_faults();
        fixture.pass(RESTED);
        sent(&fixture.emulator);
        let _ = abi.tokens_maintain(json!({}), |_| true).ok();
        assert_eq!(sent(&fixture.emulator), ["mint 200"], "{what}: the install was remembered");
        abi.live_token(&fixture.emulator, &location);
    }
}

#[test]
fn refresh_response_that_leaves_the_outcome_unknown_keeps_the_connection() {
    for (what, fault) in [
        (
            "401 Command timed out",
            FaultKind::CommandTimedOut { stage: Stage::AfterProcessing, as_object: false },
        ),
        (
            "the same in an object",
            FaultKind::CommandTimedOut { stage: Stage::AfterProcessing, as_object: true },
        ),
        ("503 of a gateway", FaultKind::UnavailablePage { stage: Stage::AfterProcessing }),
        ("the firewall's page", page_after_processing(403)),
        ("a page with 404", page_after_processing(404)),
        ("a page with 200", page_after_processing(200)),
    ] {
        for times in [1, 2] {
            let fixture = Fixture::new(Kind::Sqlite);
            fixture.clock.make_waits_free();
            let abi = fixture.open();
            let company = abi.connect_company(&fixture.emulator);
            fixture.pass(DAY);
            fixture.emulator.inject(Rule::on(Endpoint::Token).times(times), fault.clone());
            // Some of these end a call. The next call after the backoff repeats the same refresh.
            for _ in 0..times {
                if abi.access_token(&company).0 != 0 {
                    fixture.clock.pass(Duration::from_secs(9));
                }
            }
            abi.live_token(&fixture.emulator, &company);
            fixture.emulator.set_reuse_window_seconds(0);
            let refreshed = abi.token_refresh(&company);
            assert_eq!(refreshed.0, 0, "{what}, {times} times: {}", refreshed.1);
        }
    }
}

fn page_after_processing(status: u16) -> FaultKind {
    FaultKind::Status {
        status,
        body: "<html><body>blocked</body></html>".to_owned(),
        content_type: None,
        headers: Vec::new(),
        stage: Stage::AfterProcessing,
    }
}

#[test]
fn paused_location_is_queried_only_by_an_explicit_refresh() {
    for inactive_status in [400, 401] {
        for minted in [false, true] {
            let fixture = Fixture::new(Kind::Sqlite);
            fixture.emulator.set_behaviour(Behaviour { inactive_status, ..Behaviour::default() });
            let abi = fixture.open();
            let location = fixture.location(0);
            if minted {
                abi.connect_company(&fixture.emulator);
                abi.live_token(&fixture.emulator, &location);
            } else {
                abi.connect(&fixture.emulator, Decision::Location(location.clone()));
            }
            fixture.pass(DAY);
            fixture.emulator.set_location_active(&location, false);
            abi.access_token(&location).fails(Status::LocationInactive);
            sent(&fixture.emulator);
            for _ in 0..20 {
                abi.access_token(&location).fails(Status::LocationInactive);
            }
            assert_eq!(sent(&fixture.emulator), [""; 0], "{inactive_status}");
            abi.token_refresh(&location).fails(Status::LocationInactive);
            assert!(!sent(&fixture.emulator).is_empty(), "{inactive_status}: a request was sent");
            fixture.emulator.set_location_active(&location, true);
            abi.token_refresh(&location).ok();
            abi.live_token(&fixture.emulator, &location);
            assert_eq!(abi.listed(&location)["state"], "ok");
        }
    }
}

#[test]
fn paused_location_without_a_token_is_queried_once_a_minute_unless_it_is_installed() {
    let fixture = Fixture::new(Kind::Sqlite);
    let abi = fixture.open();
    abi.connect_company(&fixture.emulator);
    let location = fixture.location(0);
    fixture.emulator.set_location_active(&location, false);
    sent(&fixture.emulator);
    for _ in 0..2 {
        for _ in 0..20 {
            let error = abi.access_token(&location).fails(Status::LocationInactive);
            assert_eq!(error["resourceId"], location.as_str());
        }
        assert_eq!(sent(&fixture.emulator), ["mint 400"]);
        fixture.pass(Duration::from_secs(61));
    }
    abi.live_token(&fixture.emulator, &fixture.location(1));
    abi.access_token(&location).fails(Status::LocationInactive);
    fixture.emulator.set_location_active(&location, true);
    let body = fixture.emulator.webhook(&Notice::Install(location.clone()));
    let headers = signed(&fixture.emulator, body.as_bytes(), Signature::Ed25519);
    let applied = abi.webhook_apply(body.as_bytes(), &headers).ok();
    assert_eq!(applied["reason"], Value::Null);
    abi.live_token(&fixture.emulator, &location);
}

#[test]
fn bulk_mint_refreshes_the_own_consent_of_a_location_that_is_active_again() {
    let fixture = Fixture::new(Kind::Sqlite);
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    let location = fixture.location(0);
    abi.connect(&fixture.emulator, Decision::Location(location.clone()));
    fixture.pass(DAY);
    fixture.emulator.set_location_active(&location, false);
    abi.access_token(&location).fails(Status::LocationInactive);
    fixture.pass(DAY);
    fixture.emulator.set_location_active(&location, true);
    let report =
        abi.tokens_mint(json!({"companyId": company, "locationIds": [location]}), |_| true).ok();
    assert_eq!(report["fresh"], 1, "{report}");
    assert_eq!(abi.listed(&location)["state"], "ok");
    let exported = abi.tokens_export(json!({})).ok();
    let exported = exported["tokens"].as_array().unwrap();
    let own: Vec<&Value> = exported.iter().filter(|token| token["ownConsent"] == true).collect();
    assert_eq!(own.len(), 1, "the location keeps its own consent");
    abi.live_token(&fixture.emulator, &location);
}

// ---- Owner of a token ---------------------------------------------------------------------------

/// Replaces the response to the next refresh of a resource after the refresh token was spent.
fn answer_refresh(emulator: &Emulator, resource_id: &str, document: &Value) {
    emulator.inject(
        Rule::on(Endpoint::Token)
            .grant_type(GrantType::RefreshToken)
            .resource(resource_id)
            .times(1),
        FaultKind::Status {
            status: 200,
            body: document.to_string(),
            content_type: None,
            headers: Vec::new(),
            stage: Stage::AfterProcessing,
        },
    );
}

/// Calls that renew a token; each returns the token that its caller got, if any.
type Renewal = fn(&Abi, &str) -> Option<String>;

const RENEWALS: [(&str, Renewal); 4] = [
    ("access_token", |abi, id| text_of(abi.access_token(id))),
    ("token_refresh", |abi, id| {
        let refreshed = abi.token_refresh(id);
        if refreshed.0 == 0 { text_of(abi.access_token(id)) } else { None }
    }),
    ("tokens_maintain", |abi, id| {
        let _ = abi.tokens_maintain(json!({}), |_| true).ok();
        text_of(abi.access_token(id))
    }),
    ("request", |abi, id| {
        drop(abi.request(
            json!({"resourceId": id, "method": "GET", "path": format!("/locations/{id}")}),
        ));
        text_of(abi.access_token(id))
    }),
];

fn text_of(outcome: support::Outcome) -> Option<String> {
    (outcome.0 == 0).then(|| outcome.1.as_str().unwrap().to_owned())
}

/// The class and the owner of a token of the emulator.
fn owner_of(access_token: &str) -> String {
    use base64::Engine;
    let payload = access_token.split('.').nth(1).expect("a JWT");
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    payload["authClassId"].as_str().unwrap().to_owned()
}

/// Expires the token of the case by less than a day, so that the other tokens stay valid.
fn expire(fixture: &Fixture) {
    fixture.pass(DAY);
}

#[test]
fn location_refresh_that_returns_the_company_token_gives_the_location_its_own_token() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        for (by, renewal) in RENEWALS {
            let fixture = Fixture::new(kind);
            fixture.emulator.set_reuse_window_seconds(0);
            let abi = fixture.open();
            let (company, location) = (abi.connect_company(&fixture.emulator), fixture.location(0));
            abi.live_token(&fixture.emulator, &location);
            expire(&fixture);
            fixture.emulator.inject(
                Rule::on(Endpoint::Token).resource(&location).times(1),
                FaultKind::OtherOwner { owner_id: None },
            );
            let token = renewal(&abi, &location);
            if let Some(token) = &token {
                assert_eq!(owner_of(token), location, "{kind:?}, {by}");
                assert!(fixture.emulator.access_token_is_live(token), "{kind:?}, {by}");
            }
            fixture.pass(RESTED / 4);
            assert_eq!(
                owner_of(&abi.live_token(&fixture.emulator, &location)),
                location,
                "{kind:?}, {by}"
            );
            assert_eq!(
                owner_of(&abi.live_token(&fixture.emulator, &company)),
                company,
                "{kind:?}, {by}"
            );
            for id in [&company, &location] {
                abi.token_refresh(id).ok();
                assert_eq!(owner_of(&abi.live_token(&fixture.emulator, id)), *id, "{kind:?}, {by}");
            }
            assert_eq!(abi.listed(&location)["userType"], "Location", "{kind:?}, {by}");
        }
    }
}

#[test]
fn refresh_that_returns_the_token_of_another_location_is_stored_for_that_location() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        for (by, renewal) in RENEWALS {
            for with_company in [false, true] {
                let fixture = Fixture::new(kind);
                fixture.emulator.set_reuse_window_seconds(0);
                let abi = fixture.open();
                let (location, other) = (fixture.location(0), fixture.location(1));
                if with_company {
                    abi.connect_company(&fixture.emulator);
                }
                abi.connect(&fixture.emulator, Decision::Location(location.clone()));
                expire(&fixture);
                let foreign = fixture::saved_answer(
                    &abi,
                    &fixture.emulator,
                    Decision::Location(other.clone()),
                );
                answer_refresh(&fixture.emulator, &location, &foreign);
                let what = format!("{kind:?}, {by}, with the company: {with_company}");
                if let Some(token) = renewal(&abi, &location) {
                    assert!(with_company, "{what}: it cannot be minted");
                    assert_eq!(owner_of(&token), location, "{what}");
                }
                assert_eq!(owner_of(&abi.live_token(&fixture.emulator, &other)), other, "{what}");
                assert_eq!(
                    abi.access_token(&other).text(),
                    foreign["accessToken"].as_str().unwrap(),
                    "{what}"
                );
                fixture.pass(RESTED / 4);
                if with_company {
                    assert_eq!(
                        owner_of(&abi.live_token(&fixture.emulator, &location)),
                        location,
                        "{what}"
                    );
                } else {
                    assert_ne!(abi.access_token(&location).0, 0, "{what}");
                }
            }
        }
    }
}

#[test]
fn company_refresh_that_returns_a_location_token_gives_it_to_no_other_caller() {
    for missing in [&[][..], &["userType"], &["userType", "companyId"]] {
        for (by, renewal) in RENEWALS {
            let fixture = Fixture::new(Kind::Sqlite);
            fixture.emulator.set_reuse_window_seconds(0);
            let abi = fixture.open();
            let (company, location) = (abi.connect_company(&fixture.emulator), fixture.location(0));
            expire(&fixture);
            let decision = Decision::Location(location.clone());
            let mut foreign = fixture::saved_answer(&abi, &fixture.emulator, decision);
            foreign.as_object_mut().unwrap().retain(|name, _| !missing.contains(&name.as_str()));
            answer_refresh(&fixture.emulator, &company, &foreign);
            let what = format!("without {missing:?}, {by}");
            assert_eq!(
                renewal(&abi, &company),
                None,
                "{what}: the company's refresh token is spent"
            );
            assert_eq!(
                abi.access_token(&location).text(),
                foreign["accessToken"].as_str().unwrap(),
                "{what}: the token is stored for its owner"
            );
            assert_eq!(abi.listed(&location)["userType"], "Location", "{what}");
            fixture.pass(Duration::from_secs(60));
            assert_ne!(abi.access_token(&company).0, 0, "{what}");
            abi.connect_company(&fixture.emulator);
            assert_eq!(owner_of(&abi.live_token(&fixture.emulator, &company)), company, "{what}");
        }
    }
}

#[test]
fn refresh_response_without_an_owner_keeps_the_connection() {
    for kind in EVERY {
        for decision in ["company", "location"] {
            let fixture = Fixture::new(kind);
            fixture.emulator.set_reuse_window_seconds(0);
            let abi = fixture.open();
            let (id, decision) = match decision {
                "company" => (fixture.company(), Decision::Company(fixture.company())),
                _ => (fixture.location(0), Decision::Location(fixture.location(0))),
            };
            abi.connect(&fixture.emulator, decision.clone());
            let mut own = fixture::saved_answer(&abi, &fixture.emulator, decision);
            for field in ["userType", "companyId", "locationId"] {
                own.as_object_mut().unwrap().remove(field);
            }
            answer_refresh(&fixture.emulator, &id, &own);
            abi.token_refresh(&id).ok();
            assert_eq!(
                abi.live_token(&fixture.emulator, &id),
                own["accessToken"].as_str().unwrap()
            );
            abi.token_refresh(&id).ok();
            assert_eq!(owner_of(&abi.live_token(&fixture.emulator, &id)), id, "{kind:?}");
        }
    }
}

#[test]
fn owner_that_cannot_be_an_id_counts_as_not_named() {
    for owner in ["", " ", " l", "l ", "two\nlines", "del\u{7f}ete", &"x".repeat(256)] {
        for company in [true, false] {
            let fixture = Fixture::new(Kind::Sqlite);
            fixture.emulator.set_reuse_window_seconds(0);
            let abi = fixture.open();
            let company_id = abi.connect_company(&fixture.emulator);
            let (id, decision) = match company {
                true => (company_id.clone(), Decision::Company(company_id)),
                false => (fixture.location(0), Decision::Location(fixture.location(0))),
            };
            let saved = || {
                let mut answer = fixture::saved_answer(&abi, &fixture.emulator, decision.clone());
                for field in ["companyId", "locationId"] {
                    if answer.get(field).is_some() {
                        answer[field] = owner.into();
                    }
                }
                answer
            };
            if !company {
                let minted = answer(201, &saved().to_string());
                fixture.emulator.inject(Rule::on(Endpoint::LocationToken).times(1), minted);
                assert_eq!(owner_of(&abi.live_token(&fixture.emulator, &id)), id, "{owner:?}");
            }
            let own = saved();
            answer_refresh(&fixture.emulator, &id, &own);
            abi.token_refresh(&id).ok();
            assert_eq!(
                abi.live_token(&fixture.emulator, &id),
                own["accessToken"].as_str().unwrap(),
                "{owner:?}"
            );
            assert_eq!(abi.listed(&id)["companyId"], fixture.company(), "{owner:?}");
            let stored = abi.tokens_list(json!({})).ok()["items"].as_array().unwrap().len();
            assert_eq!(stored, if company { 1 } else { 2 }, "{owner:?}: nothing else is stored");
        }
    }
}

#[test]
fn location_refresh_that_returns_a_token_of_class_company_is_not_returned_to_callers() {
    // Without one of the two fields, the other one names the owner.
    let fields = [("companyId", Value::Null), ("userType", Value::Null), ("userType", json!("x"))];
    for ((by, renewal), (field, value)) in
        RENEWALS.into_iter().flat_map(|by| fields.clone().map(|field| (by, field)))
    {
        let fixture = Fixture::new(Kind::Sqlite);
        fixture.emulator.set_reuse_window_seconds(0);
        let abi = fixture.open();
        let location = fixture.location(0);
        abi.connect(&fixture.emulator, Decision::Location(location.clone()));
        expire(&fixture);
        let mut foreign =
            fixture::saved_answer(&abi, &fixture.emulator, Decision::Company(fixture.company()));
        foreign[field] = value;
        answer_refresh(&fixture.emulator, &location, &foreign);
        if let Some(token) = renewal(&abi, &location) {
            assert_eq!(owner_of(&token), location, "{by}");
        }
        if let Some(token) = text_of(abi.access_token(&location)) {
            assert_eq!(owner_of(&token), location, "{by}");
        }
    }
}

#[test]
fn minted_token_of_another_owner_is_not_returned_to_callers() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        for many in [false, true] {
            for user_type in [None, Some(json!("Company")), Some(Value::Null)] {
                let fixture = Fixture::new(kind);
                let abi = fixture.open();
                let company = abi.connect_company(&fixture.emulator);
                let (location, other) = (fixture.location(0), fixture.location(1));
                let what = format!("{kind:?}, many: {many}, the company's: {user_type:?}");
                let fault = if let Some(user_type) = user_type {
                    let decision = Decision::Company(company.clone());
                    let mut foreign = fixture::saved_answer(&abi, &fixture.emulator, decision);
                    assert_eq!(foreign["userType"], "Company");
                    foreign["userType"] = user_type;
                    answer(200, &foreign.to_string())
                } else {
                    FaultKind::OtherOwner { owner_id: Some(other.clone()) }
                };
                fixture.emulator.inject(Rule::on(Endpoint::LocationToken).times(1), fault);
                if many {
                    let params = json!({"companyId": company, "locationIds": [location]});
                    drop(abi.tokens_mint(params, |_| true));
                } else if let Some(token) = text_of(abi.access_token(&location)) {
                    assert_eq!(owner_of(&token), location, "{what}");
                }
                fixture.pass(RESTED / 4);
                for id in [&location, &other, &company] {
                    assert_eq!(owner_of(&abi.live_token(&fixture.emulator, id)), *id, "{what}");
                }
            }
        }
    }
}

// ---- Backoff ------------------------------------------------------------------------------------

/// The duration of the calls by the clocks of the library.
const SECONDS: usize = 30;

/// The number of requests caused by 20 calls per second.
fn requests_of(seconds: usize, fixture: &Fixture, abi: &Abi, resource_id: &str) -> usize {
    sent(&fixture.emulator);
    for _ in 0..20 * seconds {
        assert_ne!(abi.access_token(resource_id).0, 0);
        fixture.pass(Duration::from_millis(50));
    }
    sent(&fixture.emulator).len()
}

/// The seconds until the resource works after the cause is removed.
fn seconds_to_recover(fixture: &Fixture, abi: &Abi, resource_id: &str) -> u32 {
    for second in 0..1_000 {
        if abi.access_token(resource_id).0 == 0 {
            abi.live_token(&fixture.emulator, resource_id);
            return second;
        }
        fixture.pass(Duration::from_secs(1));
    }
    panic!("the resource does not recover");
}

/// The maximum number of requests in that time: after a refusal that needs a consent or a
/// configuration change, and after a transient failure.
const MAX_LASTING: usize = 8;
const MAX_PASSING: usize = 60;

/// Persistent failures, and the maximum number of requests for each.
fn lasting() -> Vec<(&'static str, FaultKind, usize)> {
    let refusal = |refusal| FaultKind::Refusal { refusal };
    vec![
        ("403 of the API", refusal(Refusal::LocationForbidden), MAX_LASTING),
        ("a wrong secret", refusal(Refusal::CodeNotFound), MAX_LASTING),
        (
            "a wrong secret in its newer words",
            answer(401, r#"{"statusCode":401,"message":"Invalid client credentials"}"#),
            MAX_LASTING,
        ),
        ("a parameter", refusal(Refusal::InvalidParameter), MAX_LASTING),
        ("a path", refusal(Refusal::ResourceNotFound), MAX_LASTING),
        ("422", refusal(Refusal::Unprocessable), MAX_LASTING),
        ("the firewall", refusal(Refusal::FirewallPage), MAX_PASSING),
        ("503", answer(503, ""), MAX_PASSING),
        ("500", answer(500, ""), MAX_PASSING),
        (
            "401 of an overloaded server",
            answer(401, r#"{"statusCode":401,"message":"Command timed out"}"#),
            MAX_PASSING,
        ),
    ]
}

/// Asserts that a refused resource causes some requests and at most `most`, while the others have
/// valid tokens, and that it recovers after the fault.
#[track_caller]
fn backs_off(fixture: &Fixture, abi: &Abi, id: &str, others: &[&String], most: usize, what: &str) {
    let requests = requests_of(SECONDS, fixture, abi, id);
    assert!(requests > 0, "{what}");
    assert!(requests <= most, "{what}: {requests} requests");
    for other in others {
        abi.live_token(&fixture.emulator, other);
    }
    fixture.emulator.clear_faults();
    let seconds = seconds_to_recover(fixture, abi, id);
    assert!(seconds <= 300, "{what}: {seconds} s");
}

#[test]
fn expired_token_is_retried_with_backoff_while_its_refresh_is_refused() {
    for (what, fault, most) in lasting() {
        let fixture = Fixture::of(
            Kind::Sqlite,
            Options { companies: 2, locations: 1, rate_limit: None, ..Options::default() },
        );
        fixture.clock.make_waits_free();
        let abi = fixture.open();
        for company in fixture.emulator.company_ids() {
            abi.connect(&fixture.emulator, Decision::Company(company));
        }
        let [company, other] = <[String; 2]>::try_from(fixture.emulator.company_ids()).unwrap();
        fixture.pass(DAY);
        fixture.emulator.inject(Rule::on(Endpoint::Token).resource(&company), fault);
        backs_off(&fixture, &abi, &company, &[&other], most, what);
    }
}

#[test]
fn location_is_retried_with_backoff_while_its_mint_is_refused() {
    for (what, fault, most) in lasting() {
        let fixture = Fixture::new(Kind::Sqlite);
        fixture.clock.make_waits_free();
        let abi = fixture.open();
        let company = abi.connect_company(&fixture.emulator);
        let (location, other) = (fixture.location(0), fixture.location(1));
        fixture.emulator.inject(Rule::on(Endpoint::LocationToken).resource(&location), fault);
        backs_off(&fixture, &abi, &location, &[&company, &other], most, what);
    }
}

#[test]
fn refused_company_is_retried_with_backoff_by_calls_for_its_locations() {
    for (what, fault, most) in lasting() {
        let fixture = Fixture::new(Kind::Sqlite);
        fixture.clock.make_waits_free();
        let abi = fixture.open();
        abi.connect_company(&fixture.emulator);
        fixture.pass(DAY);
        fixture.emulator.inject(Rule::on(Endpoint::Token), fault);
        sent(&fixture.emulator);
        for _ in 0..5 * SECONDS {
            for location in fixture.emulator.location_ids() {
                assert_ne!(abi.access_token(&location).0, 0, "{what}");
            }
            fixture.pass(Duration::from_millis(200));
        }
        let requests = sent(&fixture.emulator).len();
        assert!(requests > 0 && requests <= most, "{what}: {requests} requests");
    }
}

#[test]
fn refused_connection_works_at_once_after_a_new_consent_or_an_explicit_refresh() {
    for (what, fault, _) in lasting() {
        for consent in [true, false] {
            let fixture = Fixture::new(Kind::Sqlite);
            fixture.clock.make_waits_free();
            let abi = fixture.open();
            let company = abi.connect_company(&fixture.emulator);
            fixture.pass(DAY);
            fixture.emulator.inject(Rule::on(Endpoint::Token), fault.clone());
            requests_of(5, &fixture, &abi, &company);
            fixture.emulator.clear_faults();
            if consent {
                abi.connect_company(&fixture.emulator);
            } else {
                let outcome = abi.token_refresh(&company);
                assert_eq!(outcome.0, 0, "{what}: {}", outcome.1);
            }
            abi.live_token(&fixture.emulator, &company);
        }
    }
}

#[test]
fn dead_grant_is_never_sent_again_and_is_replaced_by_a_new_consent() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        let fixture = Fixture::new(kind);
        fixture.clock.make_waits_free();
        let abi = fixture.open();
        let company = abi.connect_company(&fixture.emulator);
        fixture.emulator.revoke_refresh_token(&company);
        fixture.pass(DAY);
        let requests = requests_of(SECONDS, &fixture, &abi, &company);
        assert!((1..=3).contains(&requests), "{kind:?}: {requests}");
        assert_eq!(requests_of(SECONDS, &fixture, &abi, &company), 0, "{kind:?}");
        abi.connect_company(&fixture.emulator);
        abi.live_token(&fixture.emulator, &company);
    }
}

#[test]
fn refusal_of_the_refresh_token_in_any_form_lets_a_location_be_minted() {
    for (status, body) in [
        (401, json!({"error": "UnAuthorized!", "message": "Invalid grant: refresh token invalid"})),
        (400, json!({"error": {"code": "INVALID_GRANT", "message": "refresh token is invalid"}})),
        (400, json!({"statusCode": 400, "message": {"error": "invalid_grant"}})),
    ] {
        let (fixture, abi, location) = location_with_spent_refresh_token(Kind::Memory);
        let rule = Rule::on(Endpoint::Token).resource(location.clone());
        fixture.emulator.inject(rule, answer(status, &body.to_string()));
        abi.live_token(&fixture.emulator, &location);
    }
}

#[test]
fn refusal_of_the_grant_type_ends_no_connection() {
    let fixture = Fixture::new(Kind::Memory);
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    let body = json!({"statusCode": 400, "message": "Invalid grant_type"}).to_string();
    fixture.emulator.inject(Rule::on(Endpoint::Token).times(1), answer(400, &body));
    abi.token_refresh(&company).fails(Status::InvalidRequest);
    abi.token_refresh(&company).ok();
}

#[test]
fn simultaneous_callers_share_a_refusal_and_its_backoff() {
    for endpoint in [Endpoint::Token, Endpoint::LocationToken] {
        let fixture = Fixture::new(Kind::Sqlite);
        let abi = fixture.open();
        let company = abi.connect_company(&fixture.emulator);
        let id = if endpoint == Endpoint::Token { company } else { fixture.location(0) };
        if endpoint == Endpoint::Token {
            fixture.pass(DAY);
        }
        fixture
            .emulator
            .inject(Rule::on(endpoint), FaultKind::Refusal { refusal: Refusal::LocationForbidden });
        sent(&fixture.emulator);
        let call = || (0..5).map(|_| abi.access_token(&id).0).collect::<Vec<_>>();
        let codes: Vec<i32> = support::call_concurrently(16, call, || {}).concat();
        assert!(
            codes.iter().all(|code| *code == Status::Forbidden.code()),
            "{endpoint:?}: {codes:?}"
        );
        let requests = sent(&fixture.emulator).len();
        // The first backoffs are one and four seconds.
        assert!((1..=4).contains(&requests), "{endpoint:?}: {requests} requests of 80 calls");
    }
}
