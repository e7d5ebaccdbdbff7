//! Installations: webhooks with their fields, reinstallations, moves, and repeated deliveries.

mod support;

use ghl_oauth_emulator::{Behaviour, Decision, Emulator, Options, RetryRule};
use serde_json::{Value, json};
use std::time::Duration;
use support::receiver::Receiver;
use support::*;

fn start() -> Emulator {
    Emulator::start(Options { companies: 2, locations: 3, ..Options::default() }).unwrap()
}

fn webhooks(emulator: &Emulator) -> Vec<Value> {
    emulator.webhooks().iter().map(|body| serde_json::from_str(body).unwrap()).collect()
}

/// The webhooks so far in short.
fn told(emulator: &Emulator) -> Vec<(String, String)> {
    let short = |body: &Value| {
        let id = body["locationId"].as_str().or(body["companyId"].as_str()).unwrap();
        (text(body, "type").to_owned(), id.to_owned())
    };
    webhooks(emulator).iter().map(short).collect()
}

#[test]
fn company_consent_sends_one_install_with_location_ids_if_configured() {
    let behaviour = Behaviour { bulk_install_webhooks: true, ..Behaviour::default() };
    let emulator =
        Emulator::start(Options { locations: 3, behaviour, ..Options::default() }).unwrap();
    connect(&emulator);
    let webhooks = webhooks(&emulator);
    assert_eq!(webhooks.len(), 2, "one for the company and one for its locations");
    let bulk = &webhooks[1];
    assert_eq!((text(bulk, "type"), text(bulk, "companyId")), ("INSTALL", &*emulator.company_id()));
    assert_eq!(bulk["locationIds"], json!(emulator.location_ids()));
    assert!(bulk.get("locationId").is_none());

    let request = json!({"install": emulator.company_id(), "locationIds": ["a", "b"]});
    let built = control(&emulator, "POST", "/webhooks", &request.to_string()).expect(200);
    assert!(text(&built, "body").contains(r#""locationIds":["a","b"]"#), "{built}");
    let wrong = json!({"uninstall": emulator.company_id(), "locationIds": ["a"]});
    assert_eq!(control(&emulator, "POST", "/webhooks", &wrong.to_string()).status, 400);
}

#[test]
fn uninstall_contains_its_time_id_and_version() {
    let emulator = start();
    connect(&emulator);
    emulator.uninstall(&emulator.location_ids()[0]);
    let gone = webhooks(&emulator).pop().unwrap();
    assert_eq!(
        (text(&gone, "type"), text(&gone, "versionId")),
        ("UNINSTALL", emulator.version_id())
    );
    assert!(!text(&gone, "webhookId").is_empty() && text(&gone, "timestamp").ends_with('Z'));
}

#[test]
fn reinstalled_location_invalidates_its_tokens_and_can_be_minted_within_seconds() {
    let emulator = start();
    let token = connect(&emulator);
    let location = emulator.location_ids()[0].clone();
    let old = mint(&emulator, text(&token, "accessToken"), &location).expect(200);
    let before = emulator.clock().now_ms();
    emulator.reinstall_location(&location, Duration::from_secs(2));
    assert!(emulator.clock().now_ms() - before >= 2_000);

    let webhooks = webhooks(&emulator);
    let [gone, back] = &webhooks[webhooks.len() - 2..] else { panic!("two webhooks") };
    assert_eq!((text(gone, "type"), text(back, "type")), ("UNINSTALL", "INSTALL"));
    assert!(text(gone, "timestamp") < text(back, "timestamp"));
    assert_eq!(refresh(&emulator, text(&old, "refreshToken")).status, 400);
    mint(&emulator, text(&token, "accessToken"), &location).expect(200);

    let path = format!("/locations/{location}");
    let answer = control(&emulator, "POST", &path, r#"{"reinstallAfterSeconds": 1}"#).expect(200);
    assert_eq!(answer["installed"], true);
}

#[test]
fn moved_location_belongs_only_to_the_other_company() {
    let emulator = start();
    let companies = emulator.company_ids();
    let old = connect(&emulator);
    let new = connect_with(&emulator, SCOPE, Decision::Company(companies[1].clone()));
    let location = emulator.location_ids()[0].clone();
    let token = mint(&emulator, text(&old, "accessToken"), &location).expect(200);
    emulator.move_location(&location, &companies[1]);

    let install = webhooks(&emulator).pop().unwrap();
    assert_eq!((text(&install, "type"), text(&install, "locationId")), ("INSTALL", &*location));
    assert_eq!(text(&install, "companyId"), companies[1]);
    assert!(!emulator.access_token_is_live(text(&token, "accessToken")));
    assert_eq!(refresh(&emulator, text(&token, "refreshToken")).status, 400);
    assert_eq!(mint(&emulator, text(&old, "accessToken"), &location).status, 403);
    let form = encode(&[("companyId", &companies[1]), ("locationId", &location)]);
    let bearer = format!("Bearer {}", text(&new, "accessToken"));
    let headers = [VERSION, FORM, ("authorization", &*bearer)];
    send(&emulator, "POST", "/oauth/location-token", &headers, &form).expect(200);
}

#[test]
fn location_moved_to_a_company_without_the_app_loses_it() {
    let emulator = start();
    let token = connect(&emulator);
    let location = emulator.location_ids()[0].clone();
    let body = json!({"companyId": emulator.company_ids()[1]}).to_string();
    let answer = control(&emulator, "POST", &format!("/locations/{location}"), &body).expect(200);
    assert_eq!(
        (&answer["companyId"], &answer["installed"]),
        (&json!(emulator.company_ids()[1]), &json!(false))
    );
    assert_eq!(told(&emulator).pop().unwrap(), ("UNINSTALL".to_owned(), location.clone()));
    assert_eq!(mint(&emulator, text(&token, "accessToken"), &location).status, 403);
    let nowhere =
        control(&emulator, "POST", &format!("/locations/{location}"), r#"{"companyId": "x"}"#);
    assert_eq!(nowhere.status, 404);
}

#[test]
fn new_location_of_a_company_gets_the_app_automatically() {
    let emulator = start();
    let companies = emulator.company_ids();
    let token = connect(&emulator);
    let path = format!("/companies/{}/locations", companies[0]);
    let answer = control(&emulator, "POST", &path, "{}").expect(200);
    let opened = text(&answer, "id");
    assert_eq!(told(&emulator).pop().unwrap(), ("INSTALL".to_owned(), opened.to_owned()));
    assert!(emulator.location_ids().contains(&opened.to_owned()));
    mint(&emulator, text(&token, "accessToken"), opened).expect(200);

    let caused = emulator.webhooks().len();
    emulator.open_location(&companies[1]);
    assert_eq!(emulator.webhooks().len(), caused, "its company does not have the app");
}

/// Counts the deliveries to a receiver that always responds with this status, each half an hour
/// after the previous one.
fn attempts(rule: RetryRule, status: u16, expected: usize) {
    let receiver = Receiver::answering(status);
    let emulator = Emulator::start(Options {
        behaviour: Behaviour { webhook_retries: rule, ..Behaviour::default() },
        webhook_url: Some(receiver.url.clone()),
        ..Options::default()
    })
    .unwrap();
    let locations = emulator.location_ids();
    emulator.install_location(&locations[0]);
    let first = receiver.next();
    for attempt in 2..=expected {
        emulator.clock().advance(Duration::from_secs(1_800));
        assert_eq!(receiver.next(), first, "{rule:?}, {status}: attempt {attempt}");
    }
    // No retry is due any more, so the next delivery is another webhook.
    receiver.answer(200);
    emulator.clock().advance(Duration::from_secs(86_400));
    emulator.install_location(&locations[1]);
    assert_eq!(receiver.next()["locationId"], json!(locations[1]), "{rule:?}, {status}");
}

#[test]
fn delivery_is_repeated_by_each_published_rule_set() {
    use RetryRule::{Generation1, Generation2, Generation3};
    for (rule, status, expected) in [
        (RetryRule::None, 500, 1),
        (Generation1, 408, 7),
        (Generation1, 429, 7),
        (Generation1, 503, 7),
        (Generation1, 400, 1),
        (Generation2, 429, 7),
        (Generation2, 500, 1),
        (Generation2, 503, 1),
        (Generation3, 400, 13),
        (Generation3, 503, 13),
        (Generation3, 204, 1),
    ] {
        attempts(rule, status, expected);
    }
}

#[test]
fn delivery_is_repeated_after_ten_minutes_and_not_earlier() {
    let receiver = Receiver::answering(429);
    let behaviour = Behaviour { webhook_retries: RetryRule::Generation2, ..Behaviour::default() };
    let options =
        Options { behaviour, webhook_url: Some(receiver.url.clone()), ..Options::default() };
    let emulator = Emulator::start(options).unwrap();
    let locations = emulator.location_ids();
    emulator.install_location(&locations[0]);
    let first = receiver.next();
    receiver.answer(200);
    emulator.clock().advance(Duration::from_secs(9 * 60));
    emulator.install_location(&locations[1]);
    assert_eq!(receiver.next()["locationId"], json!(locations[1]));
    emulator.clock().advance(Duration::from_secs(60));
    assert_eq!(receiver.next(), first);
}

#[test]
fn circuit_breaker_delays_deliveries_after_consecutive_failures() {
    let receiver = Receiver::answering(500);
    let behaviour = Behaviour { webhook_retries: RetryRule::Generation3, ..Behaviour::default() };
    let options =
        Options { behaviour, webhook_url: Some(receiver.url.clone()), ..Options::default() };
    let emulator = Emulator::start(options).unwrap();
    let locations = emulator.location_ids();
    for location in &locations[..5] {
        emulator.install_location(location);
        receiver.next();
    }
    let deliveries = || {
        let listed = control(&emulator, "GET", "/webhooks", "").expect(200)["deliveries"].clone();
        listed
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["atMs"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    // An attempt is recorded after its response.
    while deliveries().len() < 5 {
        std::thread::yield_now();
    }
    // The circuit breaker is open: the next webhook waits for its end, like the retries.
    receiver.answer(200);
    emulator.install_location(&locations[5]);
    emulator.clock().advance(Duration::from_secs(20 * 60));
    emulator.install_location(&locations[6]);
    emulator.clock().advance(Duration::from_secs(10 * 60));
    let mut arrived: Vec<_> =
        (0..7).map(|_| text(&receiver.next(), "locationId").to_owned()).collect();
    arrived.sort();
    let mut expected = locations[..7].to_vec();
    expected.sort();
    assert_eq!(arrived, expected);
    let at_ms = deliveries();
    assert!(at_ms[5] - at_ms[4] >= 30 * 60 * 1_000 - 1_000, "{at_ms:?}");
}
