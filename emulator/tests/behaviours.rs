//! Configurable behaviours in which the real API differs from its description.

mod support;

use ghl_oauth_emulator::{
    Behaviour, DailyReset, Decision, Emulator, Endpoint, FaultKind, FieldNames, Options, RateLimit,
    Refusal, Rule,
};
use serde_json::Value;
use std::time::Duration;
use support::*;

fn start(behaviour: Behaviour) -> Emulator {
    Emulator::start(Options { locations: 3, behaviour, ..Options::default() }).unwrap()
}

fn list(emulator: &Emulator, access_token: &str, filter: &str) -> Value {
    let (company, app) = (emulator.company_id(), emulator.app_id());
    let target = format!("/oauth/installed-locations?companyId={company}&appId={app}{filter}");
    get(emulator, access_token, &target).expect(200)
}

fn rows(list: &Value) -> Vec<(String, bool)> {
    let rows = list["items"].as_array().unwrap().iter();
    rows.map(|row| (text(row, "_id").to_owned(), row["isInstalled"].as_bool().unwrap())).collect()
}

#[test]
fn wrong_credentials_have_their_own_error_only_if_configured() {
    for (name_wrong_credentials, words) in
        [(false, "Authorization code not found"), (true, "Invalid client credentials")]
    {
        let emulator = start(Behaviour { name_wrong_credentials, ..Behaviour::default() });
        let form = encode(&[
            ("clientId", emulator.client_id()),
            ("clientSecret", "wrong"),
            ("grantType", "client_credentials"),
        ]);
        let refused = send(&emulator, "POST", "/oauth/token", &[VERSION, FORM], &form);
        assert_eq!((refused.status, refused.message().as_str()), (401, words));
        let wrong_code =
            token(&emulator, &[("grantType", "authorization_code"), ("code", "wrong")]);
        assert_eq!(wrong_code.message(), "Authorization code not found");
    }
}

#[test]
fn inactive_location_is_refused_with_the_configured_status_and_keeps_its_token() {
    for inactive_status in [400, 401] {
        let emulator = start(Behaviour { inactive_status, ..Behaviour::default() });
        let token = connect(&emulator);
        let location = emulator.location_ids()[0].clone();
        let own = mint(&emulator, text(&token, "accessToken"), &location).expect(200);
        emulator.set_location_active(&location, false);
        for refused in [
            mint(&emulator, text(&token, "accessToken"), &location),
            refresh(&emulator, text(&own, "refreshToken")),
        ] {
            assert_eq!(
                (refused.status, refused.message().as_str()),
                (inactive_status, "Location is not active")
            );
        }
        emulator.set_location_active(&location, true);
        refresh(&emulator, text(&own, "refreshToken")).expect(200);
    }
}

#[test]
fn refusal_of_one_location_does_not_affect_the_others() {
    let emulator = start(Behaviour::default());
    let token = connect(&emulator);
    let locations = emulator.location_ids();
    for (refusal, status, words) in [
        (Refusal::LocationInaccessible, 401, "This location is not accessible from this token!"),
        (Refusal::LocationForbidden, 403, "The token does not have access to this location."),
        (Refusal::LocationInactive401, 401, "Location is not active"),
        (
            Refusal::IamUnsupported,
            401,
            "This route is not yet supported by the IAM Service. Please update your IAM config.",
        ),
    ] {
        let rule = Rule::on(Endpoint::LocationToken).resource(&locations[0]);
        let id = emulator.inject(rule, FaultKind::Refusal { refusal });
        let refused = mint(&emulator, text(&token, "accessToken"), &locations[0]);
        assert_eq!((refused.status, refused.message().as_str()), (status, words));
        mint(&emulator, text(&token, "accessToken"), &locations[1]).expect(200);
        emulator.remove_fault(id);
    }
}

#[test]
fn list_contains_rows_without_the_app_unless_filtered() {
    let emulator = start(Behaviour::default());
    let chosen = emulator.location_ids()[0].clone();
    let decision = Decision::CompanyWithLocations {
        company: emulator.company_id(),
        locations: vec![chosen.clone()],
    };
    let token = connect_with(&emulator, SCOPE, decision);
    let access_token = text(&token, "accessToken");
    let installed = |filter: &str| {
        rows(&list(&emulator, access_token, filter)).iter().filter(|row| row.1).count()
    };
    let all = |filter: &str| rows(&list(&emulator, access_token, filter)).len();
    assert_eq!((all(""), installed("")), (3, 1));
    assert_eq!(rows(&list(&emulator, access_token, "&isInstalled=true")), [(chosen, true)]);
    emulator.set_behaviour(Behaviour { ignore_installed_filter: true, ..Behaviour::default() });
    assert_eq!((all("&isInstalled=true"), installed("&isInstalled=true")), (3, 1));
}

#[test]
fn list_is_empty_for_a_while_after_an_installation() {
    let emulator = start(Behaviour { list_delay_seconds: 5, ..Behaviour::default() });
    let token = connect(&emulator);
    let access_token = text(&token, "accessToken");
    assert_eq!(list(&emulator, access_token, "")["pagination"]["totalRecords"], 0);
    emulator.clock().advance(Duration::from_secs(5));
    assert_eq!(rows(&list(&emulator, access_token, "")).len(), 3);

    let later = emulator.open_location(&emulator.company_id());
    assert_eq!(
        rows(&list(&emulator, access_token, "")).len(),
        3,
        "the new location is not listed yet"
    );
    mint(&emulator, access_token, &later).expect(200);
    emulator.clock().advance(Duration::from_secs(5));
    assert!(rows(&list(&emulator, access_token, "")).contains(&(later, true)));
}

#[test]
fn daily_reset_is_sent_in_the_configured_unit_on_every_second_response_and_every_quota_refusal() {
    const DAY_MS: i64 = 86_400_000;
    for (daily_reset, unit_ms) in [
        (DailyReset::Absent, None),
        (DailyReset::Milliseconds, Some(1)),
        (DailyReset::Seconds, Some(1_000)),
    ] {
        let emulator = start(Behaviour { daily_reset, ..Behaviour::default() });
        emulator.set_rate_limit(Some(RateLimit { per_day: 4, ..RateLimit::default() }));
        // Noon, so that the day does not end during the test.
        emulator.clock().set_ms(DAY_MS * 20_000 + DAY_MS / 2);
        let token = connect(&emulator);
        let access_token = text(&token, "accessToken");
        let target = format!("/locations/{}", emulator.location_ids()[0]);
        let answers: Vec<_> = (0..6).map(|_| get(&emulator, access_token, &target)).collect();
        let told: Vec<_> = answers
            .iter()
            .map(|answer| {
                let value: Option<i64> =
                    answer.header("x-ratelimit-daily-reset").map(|value| value.parse().unwrap());
                let Some(value) = value else { return false };
                let left_ms = value * unit_ms.expect("the header was configured");
                assert!(
                    (DAY_MS / 2 - 60_000..=DAY_MS / 2).contains(&left_ms),
                    "{daily_reset:?}: {left_ms}"
                );
                true
            })
            .collect();
        let refused: Vec<_> = answers.iter().map(|answer| answer.status == 429).collect();
        assert_eq!(refused, [false, false, false, false, true, true]);
        assert_eq!(answers[5].header("x-ratelimit-daily-remaining"), Some("0"));
        let chosen = daily_reset != DailyReset::Absent;
        assert_eq!(told, [false, true, false, true, true, true].map(|told| told && chosen));

        emulator.clock().advance(Duration::from_secs(43_200));
        assert_eq!(get(&emulator, access_token, &target).status, 200, "a new day");
    }
}

#[test]
fn another_program_consumes_the_daily_quota() {
    let emulator = start(Behaviour::default());
    let token = connect(&emulator);
    let (access_token, location) =
        (text(&token, "accessToken"), emulator.location_ids()[0].clone());
    mint(&emulator, access_token, &location).expect(200);
    let body = format!(r#"{{"resourceId": "{}"}}"#, emulator.company_id());
    control(&emulator, "POST", "/quota/spend", &body).expect(200);
    let refused = mint(&emulator, access_token, &location);
    assert_eq!((refused.status, refused.header("x-ratelimit-daily-remaining")), (429, Some("0")));
}

#[test]
fn field_names_in_both_casings_are_refused_and_nothing_is_spent() {
    for field_names in [FieldNames::CamelCase, FieldNames::SnakeCase] {
        let emulator = start(Behaviour { field_names, ..Behaviour::default() });
        let form = encode(&[
            ("clientId", emulator.client_id()),
            ("client_id", emulator.client_id()),
            ("clientSecret", emulator.client_secret()),
            ("client_secret", emulator.client_secret()),
        ]);
        let refused = send(&emulator, "POST", "/oauth/token", &[VERSION, FORM], &form);
        let stranger = if field_names == FieldNames::CamelCase { "client_id" } else { "clientId" };
        assert_eq!(refused.status, 422);
        assert_eq!(refused.message(), format!("property {stranger} should not exist"));
    }
}

#[test]
fn server_with_snake_case_names_accepts_only_those() {
    let snake = |emulator: &Emulator, refresh_token: &str| {
        let form = encode(&[
            ("client_id", emulator.client_id()),
            ("client_secret", emulator.client_secret()),
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
        ]);
        send(emulator, "POST", "/oauth/token", &[VERSION, FORM], &form)
    };
    let emulator = start(Behaviour::default());
    let token = connect(&emulator);
    let refresh_token = text(&token, "refreshToken");
    assert_eq!(snake(&emulator, refresh_token).message(), "property client_id should not exist");
    for (field_names, status, words) in [
        (FieldNames::SnakeCase, 422, "property clientId should not exist"),
        (FieldNames::SnakeCaseLenient, 400, "Missing parameter: client_id"),
    ] {
        emulator.set_behaviour(Behaviour { field_names, ..Behaviour::default() });
        let refused = refresh(&emulator, refresh_token);
        assert_eq!((refused.status, refused.message().as_str()), (status, words));
    }
    assert_eq!(emulator.refreshes(), 0, "a refused name spends nothing");
    emulator
        .set_behaviour(Behaviour { field_names: FieldNames::SnakeCase, ..Behaviour::default() });
    let rule = Rule::on(Endpoint::Token).resource(emulator.company_id()).times(1);
    let id = emulator.inject(rule, FaultKind::ReplaceStatus { status: 201 });
    let answer = snake(&emulator, refresh_token).expect(201);
    assert_eq!(emulator.strikes(id), 1, "faults read these names as well");

    let bearer = format!("Bearer {}", text(&answer, "accessToken"));
    let form = encode(&[
        ("company_id", &emulator.company_id()),
        ("location_id", &emulator.location_ids()[0]),
    ]);
    let headers = [VERSION, FORM, ("authorization", &*bearer)];
    send(&emulator, "POST", "/oauth/location-token", &headers, &form).expect(200);
}

#[test]
fn private_integration_token_never_expires_and_is_refused_by_oauth_endpoints() {
    let emulator = start(Behaviour::default());
    let (company, locations) = (emulator.company_id(), emulator.location_ids());
    let body = format!(r#"{{"resourceId": "{}"}}"#, locations[0]);
    let answer = control(&emulator, "POST", "/tokens/private", &body).expect(200);
    let of_location = text(&answer, "token");
    let of_company = emulator.private_token(&company);
    assert!(of_location.starts_with("pit-") && of_company.starts_with("pit-"));

    emulator.expire_access_tokens();
    emulator.clock().advance(Duration::from_secs(2 * 365 * 86_400));
    let target = format!("/locations/{}", locations[0]);
    get(&emulator, of_location, &target).expect(200);
    get(&emulator, &of_company, &target).expect(200);
    let elsewhere = get(&emulator, of_location, &format!("/locations/{}", locations[1]));
    assert_eq!(elsewhere.message(), "The token does not have access to this location.");
    let minted = mint(&emulator, &of_company, &locations[0]);
    assert_eq!(
        (minted.status, minted.message().as_str()),
        (401, "E-102. This AuthClass is not yet supported!")
    );
    let unknown = get(&emulator, "pit-00000000-0000-0000-0000-000000000000", &target);
    assert_eq!(
        (unknown.status, unknown.message().as_str()),
        (401, "Invalid Private Integration token")
    );
    assert!(emulator.live_refresh_tokens().is_empty());
}

#[test]
fn draft_app_is_not_found_by_a_consent_link_without_its_version() {
    let emulator =
        Emulator::start(Options { require_version_id: true, ..Options::default() }).unwrap();
    let url = format!("{}?{}", emulator.authorize_url(), consent_query(&emulator, SCOPE));
    let (_, target) = url.split_once(&emulator.base_url()).unwrap();
    let page = send(&emulator, "GET", target, &[], "");
    assert_eq!(page.status, 400);
    for words in ["noAppVersionIdFound", "No integration found with the id"] {
        assert!(page.text().contains(words), "{}", page.text());
    }
    let complete = format!("{target}&version_id={}", emulator.version_id());
    assert_eq!(send(&emulator, "GET", &complete, &[], "").status, 200);
}

#[test]
fn portal_refuses_to_register_redirect_uris_with_its_own_names() {
    for uri in ["https://app.example/ghl/callback", "https://my-highlevel-app.example/"] {
        let with = |portal_redirect_rules| Options {
            redirect_uris: vec![uri.to_owned()],
            portal_redirect_rules,
            ..Options::default()
        };
        assert!(Emulator::start(with(false)).is_ok());
        let error = Emulator::start(with(true)).err().unwrap().to_string();
        assert!(error.contains("the portal refuses the redirect URI"), "{error}");
    }
}

#[test]
fn behaviours_are_changed_and_reported_by_the_settings() {
    let emulator = start(Behaviour::default());
    let settings = control(
        &emulator,
        "POST",
        "/settings",
        r#"{"inactiveStatus": 401, "dailyReset": "seconds", "fieldNames": "snake_case"}"#,
    )
    .expect(200);
    assert_eq!(settings["inactiveStatus"], 401);
    assert_eq!(
        (text(&settings, "dailyReset"), text(&settings, "fieldNames")),
        ("seconds", "snake_case")
    );
    assert_eq!(settings["bulkInstallWebhooks"], false);
    assert_eq!(control(&emulator, "POST", "/settings", r#"{"inactiveStatus": 500}"#).status, 400);
}
