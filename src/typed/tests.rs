//! Tests that each typed result has every key of its document: in unit tests, unknown keys are
//! refused.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ghl_oauth_emulator::{Decision, Emulator, Notice, Options, Signature};
use serde_json::json;

use super::params::{
    CompleteParams, InstalledLocationsParams, ListParams, MaintainParams, MintParams, RequestParams,
};
use super::{Body, Client, TokenState, typed};
use crate::authorization::UrlParams;
use crate::config::Config;
use crate::error::Status;
use crate::token::UserType;

fn emulated() -> (Emulator, Client) {
    let emulator = Emulator::start(Options { locations: 3, ..Options::default() }).unwrap();
    let mut config = Config::new(emulator.client_id(), emulator.client_secret());
    config.base_url = emulator.base_url();
    config.authorize_url = emulator.authorize_url();
    config.redirect_uri = Some(emulator.redirect_uri().to_owned());
    config.scopes =
        ["oauth.readonly", "oauth.write", "locations.readonly"].map(String::from).to_vec();
    config.webhook.ed25519_public_keys = vec![emulator.webhook_public_keys().ed25519];
    let client = Client::new(&config).unwrap();
    (emulator, client)
}

fn connected() -> (Emulator, Client) {
    let (emulator, client) = emulated();
    let link = client.authorization_url(UrlParams::default()).unwrap();
    assert!(link.url.contains(link.state.expose()));
    let redirect = emulator.consent(&link.url, Decision::Company(emulator.company_id())).unwrap();
    let token = client.authorization_complete(&CompleteParams::new(redirect)).unwrap();
    assert_eq!((token.user_type, token.state), (Some(UserType::Company), TokenState::Ok));
    assert_eq!(token.company_id.as_deref(), Some(emulator.company_id().as_str()));
    (emulator, client)
}

#[test]
fn tokens_of_a_company_and_its_locations_have_typed_results() {
    let (emulator, client) = connected();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    client.on_event(move |event| seen.lock().unwrap().push(event.clone()));
    let (company, locations) = (emulator.company_id(), emulator.location_ids());

    let report = client
        .tokens_mint(MintParams::installed(&company), |progress| progress.failed == 0)
        .unwrap();
    assert_eq!((report.total, report.minted, report.fresh, report.failed.len()), (3, 3, 0, 0));
    let unknown = vec!["nowhere".to_owned()];
    let report = client.tokens_mint(MintParams::locations(&company, unknown), |_| true).unwrap();
    assert_eq!(report.failed[0].resource_id.as_deref(), Some("nowhere"));
    assert!(!report.failed[0].error.message().is_empty());

    let token = client.access_token(&locations[0]).unwrap();
    assert!(emulator.access_token_is_live(token.expose()));
    let refreshed = client.token_refresh(&locations[0]).unwrap();
    assert_eq!(refreshed.location_id.as_deref(), Some(locations[0].as_str()));
    assert!(refreshed.refreshable && refreshed.expires_at > Some(SystemTime::now()));

    let page =
        client.tokens_list(&ListParams { page_size: Some(2), ..ListParams::default() }).unwrap();
    assert_eq!((page.items.len(), page.failed.len()), (2, 0));
    assert!(page.next_page_token.is_some());
    let report = client.tokens_maintain(&MaintainParams::default(), |_| true).unwrap();
    assert_eq!((report.checked, report.refreshed, report.resealed, report.unsealed), (0, 0, 0, 0));
    assert!(report.next_due_at > Some(SystemTime::now() + Duration::from_secs(3600)));

    let exported = client.tokens_export(&ListParams::default()).unwrap();
    assert_eq!(exported.tokens.len(), 4);
    assert!(!format!("{exported:?}").contains(token.expose()));
    assert_eq!(client.token_delete(&locations[1]).unwrap().resource_id, locations[1]);
    let mut tokens = exported.tokens;
    tokens.push(json!({"companyId": "c"}).as_object().unwrap().clone());
    let planned = client.tokens_import_dry_run(tokens.clone(), false).unwrap();
    let deleted: Vec<_> = planned.accepted.iter().map(|token| &token.resource_id).collect();
    assert_eq!(deleted, [&locations[1]]);
    assert!(!planned.accepted[0].replaces);
    let report = client.tokens_import(tokens, false).unwrap();
    assert_eq!(report.imported, 1);
    assert_eq!(format!("{:?}", report.skipped), format!("{:?}", planned.skipped));
    assert_eq!(report.skipped.last().map(|skipped| skipped.index), Some(4));

    let kinds: Vec<String> =
        events.lock().unwrap().iter().map(|event| event.kind.clone()).collect();
    assert!(
        kinds.contains(&"token.minted".to_owned()) && kinds.contains(&"token.deleted".to_owned())
    );
}

#[test]
fn event_of_a_failed_refresh_has_its_error() {
    let (emulator, client) = connected();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    client.on_event(move |event| seen.lock().unwrap().push(event.clone()));
    emulator.revoke_refresh_token(&emulator.company_id());
    let error = client.token_refresh(&emulator.company_id()).unwrap_err();
    assert_eq!(error.status(), Status::ReauthorizationRequired);
    let events = events.lock().unwrap();
    let reason = events.last().and_then(|event| event.error.as_ref()).unwrap();
    assert_eq!((reason.status(), reason.message()), (error.status(), error.message()));
    let failing = ListParams { failing: true, ..ListParams::default() };
    let listed = client.tokens_list(&failing).unwrap().items.remove(0);
    assert_eq!(listed.state, TokenState::ReauthorizationRequired);
    for failure in [listed.last_failure, events.last().unwrap().last_failure.clone()] {
        let failure = failure.unwrap();
        assert_eq!((failure.status, failure.attempts), (error.status(), 1));
        assert!(failure.at >= listed.last_success_at && failure.next_attempt_at.is_none());
    }
}

#[test]
fn locations_and_responses_are_typed() {
    let (emulator, client) = connected();
    let company = emulator.company_id();
    let mut params = InstalledLocationsParams {
        company_id: Some(company.clone()),
        page_size: Some(2),
        ..InstalledLocationsParams::default()
    };
    let mut found = Vec::new();
    loop {
        let page = client.oauth_installed_locations(&params).unwrap();
        found.extend(page.items.into_iter().map(|location| location.id));
        params.page_token = page.next_page_token;
        if params.page_token.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), emulator.location_ids().len());

    let mut request = RequestParams::new("GET", "/oauth/installed-locations");
    request.resource_id = Some(company);
    let response = client.request(&request).unwrap();
    assert!(!response.headers.is_empty());
    assert!(matches!(response.body, Body::Json(_)), "{response:?}");
}

#[test]
fn statistics_are_typed_and_metrics_are_text() {
    let (emulator, client) = connected();
    let company = emulator.company_id();
    let mut request = RequestParams::new("GET", "/oauth/installed-locations");
    request.resource_id = Some(company.clone());
    client.request(&request).unwrap();
    emulator.revoke_refresh_token(&company);
    client.token_refresh(&company).unwrap_err();
    let statistics = client.stats().unwrap();
    assert!(statistics.requests.sent >= 3 && statistics.requests.rate_limited == 0);
    assert_eq!((statistics.tokens.failed, statistics.tokens.unsaved), (1, 0));
    assert_eq!(
        statistics.tokens.failed_by_status.get(Status::ReauthorizationRequired.name()),
        Some(&1)
    );
    assert_eq!(statistics.pace.busiest[0].resource_id, company);
    assert_eq!(statistics.pace.busiest[0].held_for_ms, None);
    let metrics = client.metrics().unwrap();
    let lost = "ghl_oauth_tokens{state=\"reauthorizationRequired\"} 1\n";
    assert!(metrics.contains(lost), "{metrics}");
}

#[test]
fn webhooks_are_typed() {
    let (emulator, client) = connected();
    let location = &emulator.location_ids()[0];
    client.access_token(location).unwrap();
    let body = emulator.webhook(&Notice::Uninstall(location.clone()));
    let headers = emulator.sign_webhook(body.as_bytes(), Signature::Ed25519);
    let headers = || headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let delivery = client.webhook_verify(body.as_bytes(), headers()).unwrap();
    assert_eq!((delivery.kind.as_deref(), delivery.key_index), (Some("UNINSTALL"), 0));
    let outcome = client.webhook_apply(body.as_bytes(), headers()).unwrap();
    assert!(outcome.applied, "{outcome:?}");
    assert_eq!(outcome.resource_id.as_ref(), Some(location));
}

#[test]
fn error_for_a_document_of_another_shape_hides_its_values() {
    let error =
        typed::<super::AuthorizationUrl>(json!({"url": 5, "state": "hunter2"})).unwrap_err();
    assert_eq!(error.status(), Status::Internal);
    assert!(!error.to_string().contains("hunter2"));
}
