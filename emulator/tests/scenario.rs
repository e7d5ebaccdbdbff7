//! The scenario `agency-day`: deterministic for a seed, and consistent with its ledger.

mod support;

use ghl_oauth_emulator::{
    Decision, Emulator, Happened, Happening, Installation, InstallationState, Options, RateLimit,
    Scenario, ScenarioPhase, UserType,
};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};
use support::receiver::Receiver;
use support::*;

/// Noon: the daily limit of the plan depends on the time of day.
const NOON_MS: i64 = 20_000 * 86_400_000 + 43_200_000;

/// An emulator for the scenario with its first company connected, and the token of that company.
fn start(options: Options) -> (Emulator, Value) {
    let emulator = Emulator::start(options).unwrap();
    emulator.clock().set_ms(NOON_MS);
    let token = connect(&emulator);
    (emulator, token)
}

fn play(emulator: &Emulator) -> Vec<Happening> {
    emulator.start_scenario(Scenario::AgencyDay, None).unwrap();
    std::iter::from_fn(|| emulator.step_scenario().unwrap()).collect()
}

/// The ledger without fingerprints, which differ in every run.
fn standing(ledger: &[Installation]) -> Vec<(String, String, InstallationState)> {
    ledger.iter().map(|one| (one.resource_id.clone(), one.company_id.clone(), one.state)).collect()
}

fn seeded(seed: u64) -> Options {
    Options { seed, ..Scenario::AgencyDay.options() }
}

#[test]
fn agency_day_depends_only_on_its_seed() {
    let day = |seed| {
        let (emulator, _) = start(seeded(seed));
        let happenings: Vec<_> = play(&emulator)
            .into_iter()
            .map(|happening| (happening.what, happening.resource_id))
            .collect();
        (happenings, standing(&emulator.installations()))
    };
    let first = day(3);
    assert!(first == day(3), "the same seed gives the same day");
    let other = day(4);
    assert!(first.0.len() != other.0.len() || first.1 != other.1);
}

#[test]
fn agency_day_contains_every_kind_of_event() {
    let (emulator, _) = start(seeded(1));
    connect_with(&emulator, SCOPE, Decision::Company(emulator.company_ids()[1].clone()));
    let happenings = play(&emulator);
    let mut counts = BTreeMap::new();
    for happening in &happenings {
        *counts.entry(happening.what).or_insert(0) += 1;
    }
    for (what, expected) in [
        (Happened::Opened, 30),
        (Happened::Uninstalled, 25),
        (Happened::Installed, 10),
        (Happened::Reinstalled, 25),
        (Happened::Paused, 50),
        (Happened::Resumed, 40),
        (Happened::Moved, 10),
        (Happened::QuotaSpent, 1),
        (Happened::Ended, 1),
    ] {
        assert_eq!(counts[&what], expected, "{what:?}");
    }
    assert_eq!(counts[&Happened::FaultBegan], counts[&Happened::FaultEnded]);
    assert!(counts[&Happened::FaultBegan] >= 10);
    assert!(happenings.is_sorted_by_key(|happening| happening.at_ms));
    assert_eq!(happenings.last().unwrap().what, Happened::Ended);
    let took_ms = happenings.last().unwrap().at_ms - happenings[0].at_ms;
    assert!((23 * 3_600_000..29 * 3_600_000).contains(&took_ms), "{took_ms}");

    // Every webhook of the day arrives; some arrive twice or after a later one of the same
    // location.
    let delivered: Vec<Value> = happenings
        .iter()
        .filter_map(|happening| happening.webhook.as_deref())
        .map(|body| serde_json::from_str(body).unwrap())
        .collect();
    let ids: HashSet<_> = delivered.iter().map(|body| text(body, "webhookId")).collect();
    assert_eq!(ids.len(), 30 + 25 + 10 + 2 * 25 + 10);
    assert_eq!(counts[&Happened::Delivered], ids.len());
    assert!(counts[&Happened::DeliveredAgain] > 5);
    let mut latest = HashMap::new();
    let late = delivered.iter().filter(|body| {
        let moment = text(body, "timestamp");
        let before = latest.entry(text(body, "locationId")).or_insert(moment);
        let late = moment < *before;
        *before = (*before).max(moment);
        late
    });
    assert!(late.count() > 0, "no delivery arrived out of order");
}

#[test]
fn ledger_matches_the_tokens_that_the_api_accepts_at_the_end() {
    let (emulator, _) = start(seeded(1));
    let companies = emulator.company_ids();
    let second = connect_with(&emulator, SCOPE, Decision::Company(companies[1].clone()));
    let happenings = play(&emulator);
    let report = emulator.scenario().unwrap();
    assert_eq!((report.phase, report.left), (ScenarioPhase::Finished, 0));
    assert_eq!(report.played, happenings.len());
    let ledger = report.ledger.unwrap();
    assert_eq!(ledger, emulator.installations());

    // The rate limit is irrelevant here, but the daily quota is not: it was renewed after another
    // program had used it up.
    emulator.set_rate_limit(Some(RateLimit { requests: u32::MAX, ..RateLimit::default() }));
    emulator.set_access_token_seconds(10 * 86_400);
    let live = emulator.live_refresh_tokens();
    let of = |company: &String| live.iter().find(|token| token.resource_id == *company).unwrap();
    let tokens: HashMap<_, _> = companies
        .iter()
        .map(|company| {
            let token = refresh(&emulator, &of(company).refresh_token).expect(200);
            (company.clone(), text(&token, "accessToken").to_owned())
        })
        .collect();
    assert_ne!(tokens[&companies[1]], text(&second, "accessToken"));
    let mint = |one: &Installation| {
        let form = encode(&[("companyId", &one.company_id), ("locationId", &one.resource_id)]);
        let bearer = format!("Bearer {}", tokens[&one.company_id]);
        let headers = [VERSION, FORM, ("authorization", &*bearer)];
        send(&emulator, "POST", "/oauth/location-token", &headers, &form)
    };
    let mut counts = HashMap::new();
    for one in ledger.iter().filter(|one| one.user_type == UserType::Location) {
        *counts.entry(one.state).or_insert(0) += 1;
        let answer = mint(one);
        match one.state {
            InstallationState::Honoured => drop(answer.expect(200)),
            InstallationState::Paused => assert_eq!(answer.message(), "Location is not active"),
            InstallationState::NotInstalled => assert_eq!(answer.status, 403),
        }
    }
    assert_eq!(counts[&InstallationState::NotInstalled], 15, "uninstalled for good");
    assert_eq!(counts[&InstallationState::Paused], 10, "paused to the end");
    assert_eq!(counts[&InstallationState::Honoured], 500 + 500 + 30 - 15 - 10);
    let moved = ledger.iter().filter(|one| one.company_id == companies[1]).count();
    assert_eq!(moved, 1 + 500 + 10);
}

#[test]
fn location_moved_to_an_unconnected_company_is_refused() {
    let (emulator, _) = start(Options { locations: 60, ..seeded(5) });
    let happenings = play(&emulator);
    let moved: Vec<_> = happenings
        .iter()
        .filter(|one| one.what == Happened::Moved)
        .map(|one| &one.resource_id)
        .collect();
    assert_eq!(moved.len(), 1);
    let ledger = emulator.installations();
    let moved = ledger.iter().find(|one| Some(&one.resource_id) == moved[0].as_ref()).unwrap();
    assert_eq!(moved.company_id, emulator.company_ids()[1]);
    assert_eq!(moved.state, InstallationState::NotInstalled);
}

#[test]
fn installations_list_the_accepted_refresh_tokens() {
    let (emulator, token) = start(Options { locations: 3, ..seeded(1) });
    let location = emulator.location_ids()[0].clone();
    mint(&emulator, text(&token, "accessToken"), &location).expect(200);
    let ledger = control(&emulator, "GET", "/installations", "").expect(200);
    let rows = ledger["installations"].as_array().unwrap();
    let of = |id: &str| rows.iter().find(|row| row["resourceId"] == id).unwrap();
    let spelled = |row: &Value| row["refreshTokens"].as_array().unwrap().len();
    assert_eq!((of(&location)["state"].as_str(), spelled(of(&location))), (Some("honoured"), 1));
    assert_eq!(spelled(of(&emulator.location_ids()[1])), 0, "the location can be minted");
    let company = of(&emulator.company_id());
    let accounts = control(&emulator, "GET", "/tokens/ledger", "").expect(200);
    let known = accounts["tokens"].as_array().unwrap().iter().any(|account| {
        account["kind"] == "refresh" && account["fingerprint"] == company["refreshTokens"][0]
    });
    assert!(known, "{company}");
    assert_eq!(of(&emulator.company_ids()[1])["state"], "notInstalled");
}

#[test]
fn stepped_scenario_waits_for_the_first_consent_and_is_driven_by_the_control_api() {
    let options = Options { locations: 60, ..Scenario::AgencyDay.options() };
    let emulator = Emulator::start(options).unwrap();
    assert_eq!(control(&emulator, "GET", "/scenario", "").status, 404);
    let begin = r#"{"name": "agency-day"}"#;
    control(&emulator, "POST", "/scenario", begin).expect(200);
    assert_eq!(control(&emulator, "POST", "/scenario", r#"{"name": "night"}"#).status, 400);
    assert_eq!(control(&emulator, "POST", "/scenario/step", "{}").status, 409);
    assert_eq!(control(&emulator, "GET", "/scenario", "").expect(200)["phase"], "waiting");
    connect(&emulator);
    let first = control(&emulator, "POST", "/scenario/step", "{}").expect(200);
    assert_eq!(first["happenings"].as_array().unwrap().len(), 1);
    let report = control(&emulator, "GET", "/scenario", "").expect(200);
    assert_eq!((text(&report, "phase"), &report["ledger"]), ("running", &Value::Null));
    assert_eq!(control(&emulator, "POST", "/scenario", begin).status, 409, "one runs already");
    let rest = control(&emulator, "POST", "/scenario/step", r#"{"count": 100000}"#).expect(200);
    assert!(rest["happenings"].as_array().unwrap().len() > 40);
    let report = control(&emulator, "GET", "/scenario", "").expect(200);
    assert_eq!((text(&report, "phase"), &report["left"]), ("finished", &Value::from(0)));
    assert!(report["ledger"].as_array().unwrap().len() > 120);
    let page = send(&emulator, "GET", "/dashboard", &[], "").text();
    assert!(
        page.contains("<strong>agency-day</strong>") && page.contains("<progress max="),
        "{page}"
    );
}

#[test]
fn client_visible_durations_are_real_time_in_a_paced_scenario() {
    let emulator =
        Emulator::start(Options { locations: 10, ..Scenario::AgencyDay.options() }).unwrap();
    // A day of 4,000 s: the clock runs 21.6 times as fast, and no fault occurs within the first
    // hour.
    emulator.start_scenario(Scenario::AgencyDay, Some(Duration::from_secs(4_000))).unwrap();
    let token = connect(&emulator);
    let deadline = Instant::now() + Duration::from_secs(20);
    while emulator.scenario().unwrap().phase != ScenarioPhase::Running {
        assert!(Instant::now() < deadline, "the scenario does not begin");
        std::thread::yield_now();
    }
    let spent = text(&token, "refreshToken");
    let first = refresh(&emulator, spent).expect(200);
    emulator.clock().advance(Duration::from_secs(15 * 21));
    let again = refresh(&emulator, spent).expect(200);
    assert_eq!(
        text(&again, "accessToken"),
        text(&first, "accessToken"),
        "15 s of real time have passed"
    );
    emulator.clock().advance(Duration::from_secs(16 * 22));
    assert_eq!(refresh(&emulator, spent).status, 400, "the window of 30 s has passed");

    let target = format!("/locations/{}", emulator.location_ids()[0]);
    let told = (0..2).find_map(|_| {
        let answer = get(&emulator, text(&first, "accessToken"), &target);
        answer.header("x-ratelimit-daily-reset").map(|value| value.parse::<u64>().unwrap())
    });
    assert!(told.unwrap() <= 4_000_000, "{told:?}");
}

#[test]
fn paced_scenario_starts_at_the_first_connection_and_sends_its_webhooks() {
    let receiver = Receiver::answering(200);
    let webhook_url = Some(receiver.url.clone());
    let options = Options { locations: 60, webhook_url, ..Scenario::AgencyDay.options() };
    let emulator = Emulator::start(options).unwrap();
    emulator.start_scenario(Scenario::AgencyDay, Some(Duration::from_secs(1))).unwrap();
    assert!(emulator.start_scenario(Scenario::AgencyDay, Some(Duration::ZERO)).is_err());
    let began = emulator.clock().now_ms();
    connect(&emulator);
    let deadline = Instant::now() + Duration::from_secs(60);
    while emulator.scenario().unwrap().phase != ScenarioPhase::Finished {
        assert!(Instant::now() < deadline, "{:?}", emulator.scenario());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(emulator.clock().now_ms() - began > 24 * 3_600_000);
    assert!(emulator.step_scenario().is_err(), "the scenario is paced");
    let report = emulator.scenario().unwrap();
    let delivered = |happening: &&Happening| happening.webhook.is_some();
    let expected = report.happenings.iter().filter(delivered).count();
    // The webhooks of the consent came first: one of the company, and one of each location.
    let arrived: Vec<_> = (0..61 + expected).map(|_| receiver.next()).collect();
    let last = report.happenings.iter().rfind(delivered).unwrap();
    let last: Value = serde_json::from_str(last.webhook.as_deref().unwrap()).unwrap();
    assert_eq!(arrived.last(), Some(&last));
}
