//! Observed responses of the real API that contradict its description: transient 401s, refusals
//! that concern one location, rows without the app, truncated lists, field names in the other
//! casing, and an exhausted daily quota. Also checks the advice for each.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth::internals::clock::Clock;
use ghl_oauth_emulator::{
    Behaviour, DailyReset, Decision, Emulator, Endpoint, FaultKind, FieldNames, GrantType, Options,
    Refusal, Rule, Stage,
};
use serde_json::{Value, json};
use support::*;

/// An emulator without rate limits.
fn unlimited(locations: usize, behaviour: Behaviour) -> Emulator {
    Emulator::start(Options { locations, rate_limit: None, behaviour, ..Options::default() })
        .unwrap()
}

fn timed_out(as_object: bool) -> FaultKind {
    FaultKind::CommandTimedOut { stage: Stage::BeforeProcessing, as_object }
}

fn refusal(refusal: Refusal) -> FaultKind {
    FaultKind::Refusal { refusal }
}

fn mint_all(abi: &Abi, company: &str) -> Outcome {
    abi.tokens_mint(json!({"companyId": company, "installed": true}), |_| true)
}

/// The counts of a report: minted, fresh, failed.
fn counts(report: &Value) -> (u64, u64, usize) {
    let number = |name: &str| report[name].as_u64().unwrap();
    (number("minted"), number("fresh"), report["failed"].as_array().unwrap().len())
}

/// Asserts a retryable server error that does not mention credentials.
#[track_caller]
fn is_passing(error: &Value) {
    assert_eq!(
        (&error["status"], &error["retryable"]),
        (&json!("GHL_ERR_SERVER"), &json!(true)),
        "{error}"
    );
    let help = error["help"].as_str().unwrap();
    assert!(help.contains("try again") && !help.contains("clientId"), "{help}");
}

#[test]
fn mint_of_40_locations_survives_an_upstream_timeout() {
    for as_object in [false, true] {
        let emulator = unlimited(40, Behaviour::default());
        let abi = Abi::new(&emulator);
        let company = abi.connect_company(&emulator);
        let once = Rule::on(Endpoint::LocationToken).skip(17).times(1);
        let fault = emulator.inject(once, timed_out(as_object));
        assert_eq!(counts(&mint_all(&abi, &company).ok()), (40, 0, 0));
        assert_eq!((emulator.strikes(fault), emulator.refreshes()), (1, 0));
    }
}

#[test]
fn location_whose_mint_always_times_out_is_reported_and_the_others_are_minted() {
    let emulator = unlimited(40, Behaviour::default());
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    let unlucky = emulator.location_ids()[17].clone();
    let fault =
        emulator.inject(Rule::on(Endpoint::LocationToken).resource(&unlucky), timed_out(false));
    let report = mint_all(&abi, &company).ok();
    assert_eq!(counts(&report), (39, 0, 1));
    assert_eq!(report["failed"][0]["locationId"], unlucky.as_str());
    is_passing(&report["failed"][0]["error"]);
    assert_eq!(emulator.strikes(fault), 3, "a mint is retryable");
}

#[test]
fn list_of_all_locations_survives_an_upstream_timeout() {
    let emulator = unlimited(250, Behaviour::default());
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    emulator.inject(Rule::on(Endpoint::InstalledLocations).skip(1).times(1), timed_out(false));
    let list = abi.oauth_installed_locations(json!({"companyId": company, "all": true})).ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 250);
    emulator.clear_faults();
    emulator.inject(Rule::on(Endpoint::InstalledLocations), timed_out(true));
    let error = abi
        .oauth_installed_locations(json!({"companyId": company, "all": true}))
        .fails(Status::Server);
    is_passing(&error);
}

#[test]
fn consent_whose_exchange_timed_out_is_completed_by_the_same_redirect() {
    let emulator = unlimited(1, Behaviour::default());
    let abi = Abi::new(&emulator);
    let company = emulator.company_id();
    let redirect = abi.consent(&emulator, Decision::Company(company.clone()));
    let codes = Rule::on(Endpoint::Token).grant_type(GrantType::AuthorizationCode);
    emulator.inject(codes, timed_out(false));
    let complete = || abi.authorization_complete(json!({"redirectUrl": redirect}));
    for _ in 0..2 {
        is_passing(&complete().fails(Status::Server));
    }
    emulator.clear_faults();
    assert_eq!(complete().ok()["resourceId"], company.as_str());
    abi.live_token(&emulator, &company);
    complete().fails(Status::StateMismatch);
}

#[test]
fn refresh_that_timed_out_is_retried_and_loses_no_connection() {
    for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
        let emulator = unlimited(1, Behaviour::default());
        let abi = Abi::new(&emulator);
        let company = abi.connect_company(&emulator);
        emulator.clock().advance(DAY);
        let refreshes = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken).times(2);
        emulator.inject(refreshes, FaultKind::CommandTimedOut { stage, as_object: false });
        abi.live_token(&emulator, &company);
        assert_eq!(abi.listed(&company)["state"], "ok");
    }
}

#[test]
fn read_request_is_retried_after_an_upstream_timeout_and_a_write_request_is_not() {
    let emulator = unlimited(1, Behaviour::default());
    let abi = Abi::new(&emulator);
    abi.connect_company(&emulator);
    let location = emulator.location_ids().remove(0);
    abi.live_token(&emulator, &location);
    let request = |method: &str, endpoint: Endpoint, path: &str| {
        emulator.clear_faults();
        let fault = emulator.inject(Rule::on(endpoint).times(1), timed_out(false));
        let answer =
            abi.request(json!({"resourceId": location, "method": method, "path": path})).ok();
        assert_eq!(emulator.strikes(fault), 1);
        answer["status"].as_u64().unwrap()
    };
    assert_eq!(request("GET", Endpoint::Location, &format!("/locations/{location}")), 200);
    let post = request("POST", Endpoint::LocationToken, "/oauth/location-token");
    assert_eq!(post, 401, "the caller decides");
    assert_eq!(emulator.refreshes(), 0, "no refresh could cure it");
}

#[test]
fn refused_location_is_reported_and_the_others_are_minted() {
    for (refused, status) in [
        (Refusal::LocationInaccessible, "GHL_ERR_FORBIDDEN"),
        (Refusal::LocationForbidden, "GHL_ERR_FORBIDDEN"),
        (Refusal::LocationInactive, "GHL_ERR_LOCATION_INACTIVE"),
        (Refusal::LocationInactive401, "GHL_ERR_LOCATION_INACTIVE"),
        (Refusal::AuthClassUnsupported, "GHL_ERR_FORBIDDEN"),
        (Refusal::FirewallPage, "GHL_ERR_FORBIDDEN"),
        (Refusal::ResourceNotFound, "GHL_ERR_NOT_FOUND"),
    ] {
        let emulator = unlimited(12, Behaviour::default());
        let abi = Abi::new(&emulator);
        let company = abi.connect_company(&emulator);
        let location = emulator.location_ids()[5].clone();
        emulator.inject(Rule::on(Endpoint::LocationToken).resource(&location), refusal(refused));
        let report = mint_all(&abi, &company).ok();
        assert_eq!(counts(&report), (11, 0, 1), "{refused:?}");
        let failed = &report["failed"][0];
        assert_eq!(failed["locationId"], location.as_str(), "{refused:?}");
        assert_eq!(
            (&failed["error"]["status"], &failed["error"]["resourceId"]),
            (&json!(status), &json!(location)),
            "{refused:?}"
        );
        assert_eq!(emulator.refreshes(), 0, "{refused:?}");
    }
}

#[test]
fn refusal_that_applies_to_every_mint_ends_the_work_at_the_first_location() {
    for (refused, status) in [
        (Refusal::ScopeMissing, Status::Forbidden),
        (Refusal::VersionInvalid, Status::InvalidRequest),
        (Refusal::InvalidJwt, Status::Unauthorized),
    ] {
        let emulator = unlimited(12, Behaviour::default());
        let abi = Abi::new(&emulator);
        let company = abi.connect_company(&emulator);
        emulator.inject(Rule::on(Endpoint::LocationToken), refusal(refused));
        emulator.clear_requests();
        let params = json!({"companyId": company, "installed": true, "concurrency": 1});
        abi.tokens_mint(params, |_| true).fails(status);
        let mints = sent(&emulator).iter().filter(|request| request.starts_with("mint")).count();
        assert!(mints <= 2, "{refused:?}: {mints} mints");
        assert!(emulator.refreshes() <= 1, "{refused:?}");
    }
}

#[test]
fn rows_without_the_app_are_not_minted_when_the_server_ignores_the_filter() {
    let behaviour = Behaviour { ignore_installed_filter: true, ..Behaviour::default() };
    let emulator = unlimited(8, behaviour);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    let locations = emulator.location_ids();
    emulator.uninstall(&locations[2]);
    emulator.uninstall(&locations[6]);
    let list =
        abi.oauth_installed_locations(json!({"companyId": company, "isInstalled": true})).ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 8, "the list is as the server sent it");
    let mut last = Value::Null;
    let params = json!({"companyId": company, "installed": true});
    let report = abi.tokens_mint(params, |so_far| {
        last = so_far;
        true
    });
    assert_eq!(counts(&report.ok()), (6, 0, 0));
    assert_eq!((&last["total"], &last["secondsLeft"]), (&json!(6), &json!(0)));
}

#[test]
fn response_without_a_list_or_its_next_page_is_an_error() {
    let emulator = unlimited(3, Behaviour::default());
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    for body in [
        json!({}),
        json!({"message": "ok"}),
        json!({"items": null}),
        json!({"items": {"_id": "l1"}}),
        json!({"items": [{"_id": "l1"}], "pagination": {"hasNextPage": true}}),
        json!({
            "items": [{"_id": "l1"}], "pagination": {"hasNextPage": "true", "nextPageToken": ""},
        }),
        json!({
            "items": [{"_id": "l1"}], "pagination": {"hasNextPage": true, "nextPageToken": null},
        }),
    ] {
        let kind = response(200, &body, &[]);
        emulator.inject(Rule::on(Endpoint::InstalledLocations), kind);
        for all in [false, true] {
            let params = json!({"companyId": company, "all": all});
            let error = abi.oauth_installed_locations(params).fails(Status::Protocol);
            assert_eq!(error["resourceId"], company.as_str(), "{body}");
        }
        mint_all(&abi, &company).fails(Status::Protocol);
        emulator.clear_faults();
    }
}

#[test]
fn empty_list_right_after_a_consent_is_no_error_and_the_next_mint_finds_the_locations() {
    let behaviour = Behaviour { list_delay_seconds: 20, ..Behaviour::default() };
    let emulator = unlimited(5, behaviour);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    assert_eq!(counts(&mint_all(&abi, &company).ok()), (0, 0, 0));
    emulator.clock().advance(Duration::from_secs(30));
    assert_eq!(counts(&mint_all(&abi, &company).ok()), (5, 0, 0));
}

/// The field names of requests to the token endpoints, with the response statuses.
fn field_names(emulator: &Emulator) -> Vec<(u16, BTreeSet<String>)> {
    let requests = emulator.requests();
    emulator.clear_requests();
    let posts = requests.iter().filter(|request| request.method == "POST");
    posts.map(|request| (request.status, fields(request).into_keys().collect())).collect()
}

#[test]
fn refused_field_names_are_sent_once_in_the_other_casing_and_never_in_both() {
    for (names, encoding) in [
        (FieldNames::SnakeCase, "form"),
        (FieldNames::SnakeCase, "json"),
        (FieldNames::SnakeCaseLenient, "form"),
    ] {
        let emulator = unlimited(2, Behaviour { field_names: names, ..Behaviour::default() });
        let abi = Abi::with(&emulator, json!({"tokenRequestEncoding": encoding}));
        emulator.clear_requests();
        let company = abi.connect_company(&emulator);
        abi.token_refresh(&company).ok();
        for location in emulator.location_ids() {
            abi.live_token(&emulator, &location);
        }
        let requests = field_names(&emulator);
        let refused =
            requests.iter().filter(|(status, _)| *status != 200 && *status != 201).count();
        assert_eq!(
            (requests.len(), refused),
            (6, 2),
            "one refusal for each endpoint: {requests:?}"
        );
        for (_, names) in &requests {
            let is_snake = names.iter().any(|name| name.contains('_'));
            let is_camel = names.iter().any(|name| name.contains(char::is_uppercase));
            assert!(is_snake != is_camel, "{names:?}");
        }
    }
}

#[test]
fn refused_field_name_spends_neither_code_nor_refresh_token() {
    let emulator = unlimited(1, Behaviour::default());
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    emulator
        .set_behaviour(Behaviour { field_names: FieldNames::SnakeCase, ..Behaviour::default() });
    emulator.clock().advance(DAY);
    abi.live_token(&emulator, &company);
    emulator.set_behaviour(Behaviour::default());
    emulator.clock().advance(DAY);
    abi.live_token(&emulator, &company);
    assert_eq!((emulator.refreshes(), &abi.listed(&company)["state"]), (2, &json!("ok")));
}

#[test]
fn each_kind_of_refusal_has_its_own_advice() {
    let emulator = unlimited(1, Behaviour::default());
    let abi = Abi::new(&emulator);
    let advice = |kind: FaultKind| {
        emulator.clear_faults();
        emulator.inject(Rule::on(Endpoint::Token), kind);
        let outcome = abi.oauth_token(json!({"grantType": "client_credentials"}));
        outcome.1["error"]["help"].as_str().unwrap().to_owned()
    };
    let said = |message: &str| response(400, json!({"statusCode": 400, "message": message}), &[]);
    for (kind, word) in [
        (refusal(Refusal::ClientCredentialsInvalid), "client key"),
        (refusal(Refusal::PrivateTokenInvalid), "private integration token"),
        (refusal(Refusal::AuthClassUnsupported), "other kind of token"),
        (refusal(Refusal::IamUnsupported), "other kind of token"),
        (said("No integration found with the id: 65f0"), "versionId"),
        (said("noAppVersionIdFound"), "versionId"),
    ] {
        let help = advice(kind);
        assert!(help.contains(word), "{help} does not mention {word}");
    }
}

#[test]
fn redirect_that_nearly_matches_the_configured_uri_reports_the_difference() {
    let emulator = unlimited(1, Behaviour::default());
    let abi = Abi::new(&emulator);
    let redirect = abi.consent(&emulator, Decision::Company(emulator.company_id()));
    for (nearly, difference) in [
        (redirect.replacen("https://", "http://", 1), "http and https"),
        (redirect.replacen('?', "/?", 1), "slash"),
    ] {
        let error =
            abi.authorization_complete(json!({"redirectUrl": nearly})).refuses("redirectUrl");
        assert!(error["message"].as_str().unwrap().contains(difference), "{error}");
    }
    let host_in_capitals = redirect.replacen("app.example", "APP.Example", 1);
    abi.authorization_complete(json!({"redirectUrl": host_in_capitals})).ok();
}

#[test]
fn consent_page_that_finds_no_app_version_reports_the_missing_version_id() {
    let emulator = unlimited(1, Behaviour::default());
    let abi = Abi::new(&emulator);
    let link = abi.authorization_url(json!({})).ok();
    let state = link["state"].as_str().unwrap();
    let url = format!("{}?error=noAppVersionIdFound&state={state}", emulator.redirect_uri());
    let error =
        abi.authorization_complete(json!({"redirectUrl": url})).fails(Status::ConsentDenied);
    assert!(error["help"].as_str().unwrap().contains("versionId"), "{error}");
}

#[test]
fn ids_and_secrets_with_surrounding_white_space_are_refused_before_any_request() {
    let emulator = unlimited(1, Behaviour::default());
    for (key, value) in
        [("clientId", "app-1 "), ("clientId", "a\tb"), ("clientSecret", "hunter2hunter2\n")]
    {
        let Err(refused) = Abi::open(&config(&emulator, json!({key: value}))) else {
            panic!("{key}")
        };
        let error = refused.fails(Status::Config);
        assert_eq!(error["parameter"], key);
        contains_none_of(&error.to_string(), &["hunter2hunter2"]);
    }
    let abi = Abi::new(&emulator);
    for (params, parameter) in [
        (json!({"grantType": "client_credentials", "clientId": "a-1\n"}), "clientId"),
        (json!({"grantType": "client_credentials", "clientSecret": " s"}), "clientSecret"),
    ] {
        abi.oauth_token(params).refuses(parameter);
    }
    abi.oauth_installed_locations(json!({"companyId": "c\u{0}", "accessToken": "a"}))
        .refuses("companyId");
    assert_eq!(sent(&emulator), [""; 0]);
}

/// Uses the emulator's clock for everything, so the rate limiter also waits for the next day.
struct WholeClock(Arc<EmulatorClock>, Arc<dyn Clock>);

impl Clock for WholeClock {
    fn wall_ms(&self) -> i64 {
        self.0.wall_ms()
    }

    fn uptime(&self) -> Duration {
        self.0.uptime()
    }

    fn monotonic(&self) -> Duration {
        self.1.monotonic().max(self.0.uptime())
    }
}

#[test]
fn exhausted_daily_quota_pauses_calls_until_its_reset_and_they_resume_at_once() {
    let behaviour = Behaviour { daily_reset: DailyReset::Milliseconds, ..Behaviour::default() };
    let emulator =
        Emulator::start(Options { locations: 1, behaviour, ..Options::default() }).unwrap();
    let clock = WholeClock(
        EmulatorClock::new(&emulator),
        Arc::new(ghl_oauth::internals::clock::SystemClock::new()),
    );
    let abi = Abi::by(&emulator, json!({}), Arc::new(clock));
    let company = abi.connect_company(&emulator);
    let list = || abi.oauth_installed_locations(json!({"companyId": company, "pageSize": 1}));
    // Noon: twelve hours are left of the server's day.
    let day = DAY.as_millis() as i64;
    emulator.clock().set_ms((emulator.clock().now_ms() / day + 1) * day + day / 2);
    // Renews the token, if it expired meanwhile.
    list().ok();
    emulator.spend_daily_quota(&company);
    emulator.clear_requests();
    for _ in 0..5 {
        let error = list().fails(Status::RateLimited);
        let wait = error["retryAfterMs"].as_u64().unwrap();
        assert!((43_100_000..=43_200_000).contains(&wait), "{wait} ms instead of twelve hours");
    }
    assert_eq!(sent(&emulator), ["list 429"], "no request is sent before the reset");
    emulator.clock().advance(Duration::from_secs(43_200));
    list().ok();
}
