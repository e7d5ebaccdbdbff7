//! The rate limiter as the server sees it: requests stay below the limit of each company or
//! location, including requests of other programs, and stop while the server asks for a pause.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Decision, Emulator, Endpoint, GrantType, Options, RateLimit, Rule};
use serde_json::{Value, json};

use support::{Abi, DAY, Outcome, response, sent};

/// An emulator with short windows, so that a test covers many of them.
fn limited(requests: u32, per_ms: u64, per_day: u64) -> Emulator {
    let rate_limit = Some(RateLimit { requests, per_ms, per_day });
    Emulator::start(Options { locations: 1, companies: 2, rate_limit, ..Options::default() })
        .unwrap()
}

fn list(abi: &Abi, company_id: &str) -> Outcome {
    abi.oauth_installed_locations(json!({"companyId": company_id, "pageSize": 1}))
}

/// Refuses matching requests with these headers.
fn refuse(emulator: &Emulator, rule: Rule, headers: &[(&str, &str)]) {
    let body = r#"{"statusCode": 429, "message": "Too Many Requests"}"#;
    emulator.inject(rule, response(429, body, headers));
}

fn pace_of(abi: &Abi, resource_id: &str) -> Value {
    let stats = abi.stats();
    let busiest = stats["pace"]["busiest"].as_array().unwrap().clone();
    busiest
        .into_iter()
        .find(|shown| shown["resourceId"] == resource_id)
        .expect("the limit is shown")
}

#[test]
fn many_concurrent_calls_are_paced_without_any_refusal() {
    let emulator = limited(20, 300, 100_000);
    let abi = Abi::with(&emulator, json!({"rateLimit": {"requests": 20, "perMs": 300}}));
    let company = abi.connect_company(&emulator);
    sent(&emulator);
    let calls = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let call = calls.fetch_add(1, Ordering::SeqCst);
                    if call >= 120 {
                        break;
                    }
                    // A changing latency must not move the requests of two windows into one.
                    if call.is_multiple_of(10) {
                        emulator.respond_latency(Duration::from_millis(
                            if call.is_multiple_of(20) { 40 } else { 0 },
                        ));
                    }
                    list(&abi, &company).ok();
                }
            });
        }
    });
    assert_eq!(sent(&emulator), ["list 200"; 120]);
    assert_eq!(abi.stats()["requests"]["repeated"], 0);
}

#[test]
fn requests_of_another_process_count_against_the_limit() {
    let emulator = limited(10, 400, 100_000);
    let pace = json!({"rateLimit": {"requests": 10, "perMs": 400}});
    let clients = [Abi::with(&emulator, pace.clone()), Abi::with(&emulator, pace)];
    let company = clients.each_ref().map(|abi| abi.connect_company(&emulator))[0].clone();
    sent(&emulator);
    for _ in 0..6 {
        list(&clients[0], &company).ok();
    }
    // The first response reports the six requests of the other client. Three more fill the window,
    // and the rest have to wait.
    for _ in 0..7 {
        list(&clients[1], &company).ok();
    }
    assert_eq!(sent(&emulator), ["list 200"; 13]);
}

#[test]
fn limit_lower_than_the_configured_one_is_learned_from_the_first_response() {
    for (requests, per_ms) in [(5, 200), (10, 1_000)] {
        let emulator = limited(requests, per_ms, 100_000);
        let abi = Abi::with(&emulator, json!({"rateLimit": {"requests": 20, "perMs": 1_500}}));
        let company = abi.connect_company(&emulator);
        sent(&emulator);
        for _ in 0..22 {
            list(&abi, &company).ok();
        }
        assert_eq!(sent(&emulator), ["list 200"; 22], "{requests} in {per_ms} ms");
        assert_eq!(pace_of(&abi, &company)["today"], 22);
    }
}

#[test]
fn statistics_report_the_state_of_the_rate_limiter() {
    let emulator = limited(100, 600_000, 1_000);
    let abi = Abi::with(&emulator, json!({"rateLimit": {"perMs": 600_000}}));
    let company = abi.connect_company(&emulator);
    assert_eq!(
        abi.stats()["pace"],
        json!({"resources": 0, "waiting": 0, "held": 0, "busiest": []})
    );
    for _ in 0..3 {
        list(&abi, &company).ok();
    }
    let expected = json!({
        "resourceId": company, "inWindow": 3, "requests": 100, "perMs": 600_000, "today": 3,
        "perDay": 200_000,
        "waiting": 0, "heldForMs": null,
    });
    assert_eq!(pace_of(&abi, &company), expected);
    refuse(&emulator, Rule::default(), &[("Retry-After", "3600")]);
    list(&abi, &company).fails(Status::RateLimited);
    let held = pace_of(&abi, &company)["heldForMs"].as_u64().unwrap();
    assert!((3_500_000..=3_600_000).contains(&held), "{held}");
    assert_eq!(abi.stats()["pace"]["held"], 1);
}

#[test]
fn exhausted_daily_quota_is_not_exceeded() {
    for (by_the_server, allowed) in [(true, 3), (false, 4)] {
        let emulator = limited(100, 10_000, if by_the_server { 3 } else { 1_000 });
        let abi = Abi::with(&emulator, json!({"rateLimit": {"perDay": 4}}));
        let company = abi.connect_company(&emulator);
        sent(&emulator);
        for _ in 0..allowed {
            list(&abi, &company).ok();
        }
        let error = list(&abi, &company).fails(Status::RateLimited);
        assert_eq!((&error["httpStatus"], &error["resourceId"]), (&Value::Null, &json!(company)));
        let wait = error["retryAfterMs"].as_u64().unwrap();
        // The server does not announce its daily reset, so the client retries every five minutes.
        let longest = if by_the_server { 300_000 } else { DAY.as_millis() as u64 };
        assert!((longest - 60_000..=longest).contains(&wait), "{wait} ms");
        assert_eq!(sent(&emulator), vec!["list 200"; allowed]);
        let other = emulator.company_ids()[1].clone();
        abi.connect(&emulator, Decision::Company(other.clone()));
        list(&abi, &other).ok();
    }
}

#[test]
fn refusal_without_retry_after_pauses_all_calls_for_the_limit_interval() {
    let emulator = limited(100, 10_000, 100_000);
    let abi = Abi::with(&emulator, json!({"timeouts": {"totalMs": 5_000}}));
    let company = abi.connect_company(&emulator);
    refuse(
        &emulator,
        Rule::on(Endpoint::InstalledLocations),
        &[("X-RateLimit-Interval-Milliseconds", "10000")],
    );
    sent(&emulator);
    let error = list(&abi, &company).fails(Status::RateLimited);
    assert_eq!((&error["retryAfterMs"], &error["httpStatus"]), (&json!(10_000), &json!(429)));
    let location = &emulator.location_ids()[0];
    let held = abi.access_token(location).fails(Status::RateLimited);
    assert!((9_000..=10_000).contains(&held["retryAfterMs"].as_u64().unwrap()), "{held}");
    assert_eq!(sent(&emulator), ["list 429"], "the mint counts against the same company");
}

#[test]
fn refusal_without_any_hint_pauses_all_calls_for_the_default_time() {
    let emulator = limited(100, 10_000, 100_000);
    let abi = Abi::with(
        &emulator,
        json!({"retry": {"maxAttempts": 4, "baseDelayMs": 20, "maxDelayMs": 20}}),
    );
    let company = abi.connect_company(&emulator);
    refuse(&emulator, Rule::on(Endpoint::InstalledLocations).times(3), &[]);
    sent(&emulator);
    list(&abi, &company).ok();
    assert_eq!(sent(&emulator), ["list 429", "list 429", "list 429", "list 200"]);
}

#[test]
fn refused_refresh_is_not_repeated_early_and_delays_no_other_resource() {
    let emulator = limited(100, 10_000, 100_000);
    let abi = Abi::new(&emulator);
    let [company, other] = <[String; 2]>::try_from(emulator.company_ids()).unwrap();
    for id in [&company, &other] {
        abi.connect(&emulator, Decision::Company(id.clone()));
    }
    emulator.clock().advance(DAY);
    let refreshes =
        Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken).resource(&company);
    refuse(&emulator, refreshes.times(1), &[("Retry-After", "120")]);
    sent(&emulator);
    let first = abi.access_token(&company).fails(Status::RateLimited);
    assert_eq!((&first["retryAfterMs"], &first["httpStatus"]), (&json!(120_000), &json!(429)));
    let second = abi.access_token(&company).fails(Status::RateLimited);
    assert!(second["retryAfterMs"].as_u64().unwrap() > 100_000, "{second}");
    assert_eq!(sent(&emulator), ["refresh 429"], "the second call sent no request");
    abi.live_token(&emulator, &other);
    assert_eq!(sent(&emulator), ["refresh 200"]);
    assert_eq!(abi.listed(&company)["state"], "ok", "no token was spent");
}

#[test]
fn nonsensical_header_delays_calls_for_an_hour_at_most() {
    for absurd in ["99999999999", "18446744073709551615", "99999999999999999999999999"] {
        let emulator = limited(100, 10_000, 100_000);
        let abi = Abi::new(&emulator);
        let company = abi.connect_company(&emulator);
        refuse(
            &emulator,
            Rule::on(Endpoint::InstalledLocations).times(1),
            &[("Retry-After", absurd)],
        );
        let error = list(&abi, &company).fails(Status::RateLimited);
        assert_eq!(error["retryAfterMs"], DAY.as_millis() as u64, "{absurd}");
        let held =
            list(&abi, &company).fails(Status::RateLimited)["retryAfterMs"].as_u64().unwrap();
        assert!((3_500_000..=3_600_000).contains(&held), "{absurd}: {held}");
    }
}
