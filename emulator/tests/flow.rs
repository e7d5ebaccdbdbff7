//! Token lifecycle: consent, code, refresh, minting, expiry and revocation.

mod support;

use ghl_oauth_emulator::{Decision, Emulator, ExpiresIn, Options, UserType};
use serde_json::json;
use std::time::Duration;
use support::*;

fn start() -> Emulator {
    Emulator::start(Options::default()).unwrap()
}

#[test]
fn consent_leads_to_a_location_token() {
    let emulator = start();
    let company = connect(&emulator);
    assert_eq!(text(&company, "userType"), "Company");
    assert_eq!(text(&company, "companyId"), emulator.company_id());
    assert_eq!(text(&company, "scope"), SCOPE);
    assert_eq!(text(&company, "tokenType"), "Bearer");
    assert_eq!(company["expiresIn"], 86_399);
    assert_eq!(company["isBulkInstallation"], true);
    assert_eq!(company["approveAllLocations"], true);
    assert!(company.get("locationId").is_none());
    for name in ["userId", "refreshTokenId", "traceId"] {
        assert!(!text(&company, name).is_empty());
    }

    let location_id = &emulator.location_ids()[7];
    let minted = mint(&emulator, text(&company, "accessToken"), location_id).expect(200);
    assert_eq!(text(&minted, "locationId"), location_id);
    assert_eq!(text(&minted, "appId"), emulator.app_id());
    assert_eq!(text(&minted, "versionId"), emulator.version_id());
    assert!(minted.get("userType").is_none() && minted.get("companyId").is_none());

    let path = format!("/locations/{location_id}");
    for token in [&minted, &company] {
        let location = get(&emulator, text(token, "accessToken"), &path).expect(200);
        assert_eq!(location["location"]["_id"], *location_id);
        assert_eq!(location["location"]["companyId"], emulator.company_id());
    }

    let refreshed = refresh(&emulator, text(&minted, "refreshToken")).expect(200);
    assert_eq!(text(&refreshed, "userType"), "Location");
    assert_eq!(text(&refreshed, "companyId"), emulator.company_id());
    assert_eq!(text(&refreshed, "locationId"), location_id);
    assert!(emulator.access_token_is_live(text(&refreshed, "accessToken")));
    assert_eq!(emulator.refreshes(), 1);

    let live = emulator.live_refresh_tokens();
    assert_eq!(live.len(), 2);
    assert!(live.iter().any(|token| token.user_type == UserType::Location
        && token.resource_id == *location_id
        && token.refresh_token == text(&refreshed, "refreshToken")));
}

#[test]
fn location_can_be_installed_individually() {
    let emulator = start();
    let location_id = emulator.location_ids()[2].clone();
    let token = connect_with(&emulator, SCOPE, Decision::Location(location_id.clone()));
    assert_eq!(text(&token, "userType"), "Location");
    assert_eq!(text(&token, "locationId"), location_id);
    assert_eq!(text(&token, "companyId"), emulator.company_id());
    assert_eq!(token["isBulkInstallation"], false);
    assert!(token.get("approveAllLocations").is_none());

    let elsewhere = format!("/locations/{}", emulator.location_ids()[3]);
    let refused = get(&emulator, text(&token, "accessToken"), &elsewhere);
    assert_eq!(refused.status, 403);
    assert_eq!(refused.message(), "The token does not have access to this location.");

    let refused = mint(&emulator, text(&token, "accessToken"), &location_id);
    assert_eq!(refused.status, 401);
    assert!(
        refused.message().starts_with("This authClass type is not allowed to access this scope.")
    );
}

#[test]
fn company_may_select_some_of_its_locations() {
    let emulator = start();
    let locations = emulator.location_ids();
    let token = connect_with(
        &emulator,
        SCOPE,
        Decision::CompanyWithLocations {
            company: emulator.company_id(),
            locations: locations[..2].to_vec(),
        },
    );
    assert_eq!(token["approvedLocations"], json!(locations[..2]));
    assert_eq!(token["approveAllLocations"], false);
    let access_token = text(&token, "accessToken");
    mint(&emulator, access_token, &locations[1]).expect(200);
    assert_eq!(mint(&emulator, access_token, &locations[2]).status, 403);
    emulator.install_location(&locations[2]);
    mint(&emulator, access_token, &locations[2]).expect(200);
}

#[test]
fn code_is_valid_once_and_for_ten_minutes() {
    let emulator = start();
    let decision = || Decision::Company(emulator.company_id());
    let redeem =
        |code: &str| token(&emulator, &[("grantType", "authorization_code"), ("code", code)]);

    let once = code(&emulator, SCOPE, decision());
    redeem(&once).expect(200);
    let again = redeem(&once);
    assert_eq!(again.status, 401);
    assert_eq!(
        again.json(),
        json!({"error": "UnAuthorized!", "error_description": "Authorization code not found"})
    );

    let late = code(&emulator, SCOPE, decision());
    emulator.clock().advance(Duration::from_secs(601));
    assert_eq!(redeem(&late).status, 401);
}

#[test]
fn redirect_uri_must_match_the_consent() {
    let emulator = start();
    let code = code(&emulator, SCOPE, Decision::Company(emulator.company_id()));
    let redeem = |uri: &str| {
        let fields =
            [("grantType", "authorization_code"), ("code", code.as_str()), ("redirectUri", uri)];
        token(&emulator, &fields)
    };
    let refused = redeem("https://app.example/other");
    assert_eq!(
        (refused.status, refused.message().as_str()),
        (400, "Invalid parameter: redirectUri")
    );
    redeem(emulator.redirect_uri()).expect(200);
}

#[test]
fn spent_refresh_token_is_accepted_only_in_the_replay_window() {
    let emulator = start();
    let first = connect(&emulator);
    let spent = text(&first, "refreshToken");
    let second = refresh(&emulator, spent).expect(200);
    assert_ne!(text(&second, "refreshToken"), spent);

    let repeated = refresh(&emulator, spent).expect(200);
    assert_eq!(repeated["refreshToken"], second["refreshToken"]);
    assert_eq!(repeated["accessToken"], second["accessToken"]);
    assert_eq!(emulator.refreshes(), 1, "a repeat rotates nothing");

    emulator.clock().advance(Duration::from_secs(31));
    let refused = refresh(&emulator, spent);
    assert_eq!(
        refused.expect(400),
        json!({"statusCode": 400, "message": "Invalid grant: refresh token is invalid"})
    );
    refresh(&emulator, text(&second, "refreshToken")).expect(200);
    assert_eq!(emulator.refreshes(), 2);
    assert!(emulator.access_token_is_live(text(&first, "accessToken")));
}

#[test]
fn spent_refresh_token_is_invalid_at_once_without_a_replay_window() {
    let emulator =
        Emulator::start(Options { reuse_window_seconds: 0, ..Options::default() }).unwrap();
    let token = connect(&emulator);
    refresh(&emulator, text(&token, "refreshToken")).expect(200);
    assert_eq!(refresh(&emulator, text(&token, "refreshToken")).status, 400);
}

#[test]
fn concurrent_refreshes_rotate_the_token_once() {
    let emulator = start();
    let token = connect(&emulator);
    let replies = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| refresh(&emulator, text(&token, "refreshToken")).expect(200)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(replies.iter().all(|reply| reply["refreshToken"] == replies[0]["refreshToken"]));
    assert_eq!(emulator.refreshes(), 1);
}

#[test]
fn tokens_expire_by_the_clock_of_the_emulator() {
    let emulator = start();
    let token = connect(&emulator);
    let path = format!("/locations/{}", emulator.location_ids()[0]);
    let access_token = text(&token, "accessToken");
    emulator.clock().advance(Duration::from_secs(86_390));
    get(&emulator, access_token, &path).expect(200);
    emulator.clock().advance(Duration::from_secs(10));
    let refused = get(&emulator, access_token, &path);
    assert_eq!(refused.expect(401), json!({"statusCode": 401, "message": "Invalid JWT"}));
    assert!(!emulator.access_token_is_live(access_token));

    emulator.clock().advance(Duration::from_secs(365 * 86_400));
    assert_eq!(refresh(&emulator, text(&token, "refreshToken")).status, 400);
}

#[test]
fn token_lifetime_and_reported_lifetime_are_separate() {
    let emulator = start();
    emulator.set_access_token_seconds(-1);
    let token = connect(&emulator);
    assert_eq!(token["expiresIn"], -1);
    assert!(!emulator.access_token_is_live(text(&token, "accessToken")));

    emulator.set_access_token_seconds(60);
    emulator.set_expires_in(ExpiresIn::Value(json!("3600")));
    let token = refresh(&emulator, text(&token, "refreshToken")).expect(200);
    assert_eq!(token["expiresIn"], "3600");
    emulator.clock().advance(Duration::from_secs(61));
    assert!(!emulator.access_token_is_live(text(&token, "accessToken")));

    emulator.set_expires_in(ExpiresIn::Absent);
    let token = refresh(&emulator, text(&token, "refreshToken")).expect(200);
    assert!(token.get("expiresIn").is_none());
}

#[test]
fn inactive_location_keeps_its_refresh_token() {
    let emulator = start();
    let company = connect(&emulator);
    let location_id = &emulator.location_ids()[0];
    let access_token = text(&company, "accessToken");
    let minted = mint(&emulator, access_token, location_id).expect(200);

    emulator.set_location_active(location_id, false);
    for refused in [
        refresh(&emulator, text(&minted, "refreshToken")),
        mint(&emulator, access_token, location_id),
    ] {
        assert_eq!(
            refused.expect(400),
            json!({"statusCode": 400, "message": "Location is not active"})
        );
    }
    emulator.set_location_active(location_id, true);
    refresh(&emulator, text(&minted, "refreshToken")).expect(200);
}

#[test]
fn uninstall_of_a_company_ends_the_tokens_of_its_locations() {
    let emulator = start();
    let company = connect(&emulator);
    let locations = emulator.location_ids();
    let access_token = text(&company, "accessToken");
    let [first, second] =
        [0, 1].map(|index| mint(&emulator, access_token, &locations[index]).expect(200));

    emulator.uninstall(&locations[0]);
    assert!(!emulator.access_token_is_live(text(&first, "accessToken")));
    assert_eq!(refresh(&emulator, text(&first, "refreshToken")).status, 400);
    assert_eq!(mint(&emulator, access_token, &locations[0]).status, 403);
    assert!(emulator.access_token_is_live(text(&second, "accessToken")));

    emulator.uninstall(&emulator.company_id());
    assert!(!emulator.access_token_is_live(access_token));
    assert!(!emulator.access_token_is_live(text(&second, "accessToken")));
    assert_eq!(emulator.live_refresh_tokens(), []);
}

#[test]
fn access_and_refresh_tokens_are_revoked_separately() {
    let emulator = start();
    let token = connect(&emulator);
    emulator.expire_access_tokens();
    assert!(!emulator.access_token_is_live(text(&token, "accessToken")));
    let token = refresh(&emulator, text(&token, "refreshToken")).expect(200);

    assert_eq!(emulator.revoke_refresh_token(&emulator.company_id()), 2);
    assert!(emulator.access_token_is_live(text(&token, "accessToken")));
    assert_eq!(refresh(&emulator, text(&token, "refreshToken")).status, 400);
}

#[test]
fn mint_can_omit_refresh_tokens_and_adds_scopes() {
    let emulator =
        Emulator::start(Options { location_refresh_tokens: false, ..Options::default() }).unwrap();
    let company = connect_with(
        &emulator,
        "contacts.readonly oauth.write",
        Decision::Company(emulator.company_id()),
    );
    let minted =
        mint(&emulator, text(&company, "accessToken"), &emulator.location_ids()[0]).expect(200);
    assert!(minted.get("refreshToken").is_none());
    assert_eq!(text(&minted, "scope"), "contacts.readonly oauth.write oauth.readonly");
}

#[test]
fn client_credentials_grant_a_company_token_without_a_refresh_token() {
    let emulator = start();
    let answer = token(&emulator, &[("grantType", "client_credentials")]).expect(200);
    assert_eq!(text(&answer, "userType"), "Company");
    assert!(answer.get("refreshToken").is_none());
    assert!(emulator.access_token_is_live(text(&answer, "accessToken")));
    let refused =
        token(&emulator, &[("grantType", "client_credentials"), ("userType", "Location")]);
    assert_eq!(refused.status, 401);
}

#[test]
fn scopes_are_enforced() {
    let emulator = start();
    let token =
        connect_with(&emulator, "contacts.readonly", Decision::Company(emulator.company_id()));
    let access_token = text(&token, "accessToken");
    let list = format!(
        "/oauth/installed-locations?companyId={}&appId={}",
        emulator.company_id(),
        emulator.app_id()
    );
    let location = format!("/locations/{}", emulator.location_ids()[0]);
    for refused in [
        mint(&emulator, access_token, &emulator.location_ids()[0]),
        get(&emulator, access_token, &list),
        get(&emulator, access_token, &location),
    ] {
        assert_eq!(refused.status, 401);
        assert_eq!(refused.message(), "The token is not authorized for this scope.");
    }
}

#[test]
fn dropped_emulator_frees_its_port() {
    let emulator = start();
    let port = emulator.base_url().rsplit_once(':').unwrap().1.parse().unwrap();
    let options = Options { port, ..Options::default() };
    assert!(Emulator::start(options.clone()).is_err(), "the port is in use");
    drop(emulator);
    let again = Emulator::start(options).unwrap();
    connect(&again);
}
