//! Single flight: many concurrent callers share one refresh.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Emulator, Endpoint, GrantType, Rule, Stage};
use serde_json::json;

use support::{
    Abi, DAY, Outcome, PanickingClock, call_concurrently, emulator, response, sent, with_company,
};

fn refreshes_of(resource: &str) -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken).resource(resource)
}

/// A client with expired tokens of the company and its locations.
fn with_dead_tokens(emulator: &Emulator) -> Abi {
    let abi = Abi::new(emulator);
    abi.connect_company(emulator);
    for location in emulator.location_ids() {
        abi.live_token(emulator, &location);
    }
    emulator.clock().advance(DAY);
    sent(emulator);
    abi
}

#[test]
fn expired_token_is_refreshed_once_by_64_callers() {
    let emulator = emulator(1);
    let abi = with_dead_tokens(&emulator);
    let company = emulator.company_id();
    let hold = emulator.hold(refreshes_of(&company), Stage::BeforeProcessing);
    let tokens = call_concurrently(
        64,
        || abi.access_token(&company).text(),
        || {
            assert_eq!(hold.arrived(), 1);
            hold.release();
        },
    );
    assert_eq!(tokens.len(), 64);
    assert_eq!(BTreeSet::from_iter(&tokens).len(), 1, "all callers have the same token");
    assert!(emulator.access_token_is_live(&tokens[0]));
    assert_eq!((sent(&emulator), emulator.refreshes()), (vec!["refresh 200".to_owned()], 1));
    assert_eq!(abi.stats()["tokens"]["refreshed"], 1);
}

#[test]
fn simultaneous_forced_refreshes_send_one_request() {
    let (emulator, abi, company) = with_company(1);
    let old = abi.live_token(&emulator, &company);
    sent(&emulator);
    let hold = emulator.hold(refreshes_of(&company), Stage::AfterProcessing);
    let documents = call_concurrently(
        16,
        || abi.token_refresh(&company).ok(),
        || {
            // A caller that does not force a refresh still gets the old token.
            assert_eq!(abi.access_token(&company).text(), old);
            hold.release();
        },
    );
    assert!(documents.iter().all(|document| *document == documents[0]), "{documents:?}");
    assert_eq!(sent(&emulator), ["refresh 200"]);
    assert_ne!(abi.live_token(&emulator, &company), old);
    // A later forced refresh is a new one.
    abi.token_refresh(&company).ok();
    assert_eq!(sent(&emulator), ["refresh 200"]);
}

#[test]
fn forced_refresh_joins_the_refresh_in_progress() {
    let emulator = emulator(1);
    let abi = with_dead_tokens(&emulator);
    let company = emulator.company_id();
    let hold = emulator.hold(refreshes_of(&company), Stage::BeforeProcessing);
    thread::scope(|scope| {
        let first = scope.spawn(|| abi.access_token(&company).text());
        hold.wait_for(1);
        let calls = call_concurrently(
            4,
            || {
                abi.token_refresh(&company).ok();
                abi.tokens_maintain(json!({"companyId": company}), |_| true).ok()["failed"].clone()
            },
            || hold.release(),
        );
        assert_eq!(calls, vec![json!([]); 4]);
        assert!(emulator.access_token_is_live(&first.join().unwrap()));
    });
    // Maintenance also found the expired token of the location.
    assert_eq!(emulator.refreshes(), 2);
}

#[test]
fn simultaneous_first_calls_for_a_location_send_one_mint() {
    let (emulator, abi, _) = with_company(2);
    let location = emulator.location_ids()[1].clone();
    sent(&emulator);
    let hold = emulator.hold(Rule::on(Endpoint::LocationToken), Stage::BeforeProcessing);
    let tokens = call_concurrently(32, || abi.access_token(&location).text(), || hold.release());
    assert_eq!(BTreeSet::from_iter(&tokens).len(), 1);
    assert!(emulator.access_token_is_live(&tokens[0]));
    assert_eq!(sent(&emulator), ["mint 200"]);
}

#[test]
fn two_locations_of_an_expired_company_share_its_refresh() {
    let emulator = emulator(8);
    emulator.set_location_refresh_tokens(false);
    let abi = with_dead_tokens(&emulator);
    let company = emulator.company_id();
    let hold = emulator.hold(refreshes_of(&company), Stage::BeforeProcessing);
    let locations = emulator.location_ids();
    thread::scope(|scope| {
        let (abi, emulator) = (&abi, &emulator);
        let callers: Vec<_> = locations
            .iter()
            .map(|location| scope.spawn(move || abi.live_token(emulator, location)))
            .collect();
        hold.wait_for(1);
        hold.release();
        let tokens: BTreeSet<String> =
            callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        assert_eq!(tokens.len(), 8);
    });
    let mut requests = sent(&emulator);
    assert_eq!(requests.remove(0), "refresh 200");
    assert_eq!(requests, ["mint 200"; 8]);
}

#[test]
fn slow_refresh_of_one_resource_delays_no_other_resource() {
    let emulator = emulator(3);
    let abi = with_dead_tokens(&emulator);
    let locations = emulator.location_ids();
    let hold = emulator.hold(refreshes_of(&locations[0]), Stage::BeforeProcessing);
    thread::scope(|scope| {
        let slow = scope.spawn(|| abi.live_token(&emulator, &locations[0]));
        hold.wait_for(1);
        // These calls finish while the first refresh is still in progress.
        abi.live_token(&emulator, &locations[1]);
        abi.token_refresh(&locations[2]).ok();
        abi.live_token(&emulator, &emulator.company_id());
        abi.token_delete(&locations[2]).ok();
        abi.live_token(&emulator, &locations[2]);
        let listed = abi.tokens_list(json!({})).ok();
        assert_eq!(listed["items"].as_array().unwrap().len(), 4);
        abi.tokens_export(json!({})).ok();
        abi.authorization_url(json!({})).ok();
        assert!(!slow.is_finished());
        hold.release();
        slow.join().unwrap();
    });
}

#[test]
fn refresh_delays_no_process_whose_token_is_still_valid() {
    let emulator = emulator(1);
    let folder = tempfile::tempdir().unwrap();
    let store = json!({"store": {"kind": "sqlite", "path": folder.path().join("tokens.db")}});
    let abi = Abi::with(&emulator, store.clone());
    let company = abi.connect_company(&emulator);
    let old = abi.access_token(&company).text();
    let hold = emulator.hold(refreshes_of(&company), Stage::BeforeProcessing);
    thread::scope(|scope| {
        let slow = scope.spawn(|| abi.token_refresh(&company));
        hold.wait_for(1);
        // A client without tokens in memory, like another process.
        let other = Abi::with(&emulator, store);
        assert_eq!(other.access_token(&company).text(), old);
        assert!(!slow.is_finished());
        hold.release();
        slow.join().unwrap().ok();
    });
}

#[test]
fn slow_mint_of_one_location_delays_no_other_location() {
    let (emulator, abi, _) = with_company(2);
    let locations = emulator.location_ids();
    let hold = emulator
        .hold(Rule::on(Endpoint::LocationToken).resource(&locations[0]), Stage::BeforeProcessing);
    thread::scope(|scope| {
        let slow = scope.spawn(|| abi.live_token(&emulator, &locations[0]));
        hold.wait_for(1);
        abi.live_token(&emulator, &locations[1]);
        assert!(!slow.is_finished());
        hold.release();
        slow.join().unwrap();
    });
}

#[test]
fn refused_refresh_fails_every_waiting_caller() {
    for status in [Status::ReauthorizationRequired, Status::LocationInactive] {
        let emulator = emulator(1);
        let abi = with_dead_tokens(&emulator);
        let (company, location) = (emulator.company_id(), emulator.location_ids()[0].clone());
        let revoked = status == Status::ReauthorizationRequired;
        let resource = if revoked { &company } else { &location };
        let hold = emulator.hold(refreshes_of(resource), Stage::BeforeProcessing);
        let codes = call_concurrently(
            16,
            || abi.access_token(resource).0,
            || {
                if revoked {
                    assert_eq!(emulator.revoke_refresh_token(&company), 1);
                } else {
                    emulator.set_location_active(&location, false);
                }
                hold.release();
            },
        );
        assert_eq!(codes, [status.code(); 16]);
        assert_eq!(sent(&emulator), ["refresh 400"]);
    }
}

#[test]
fn leader_that_times_out_passes_the_refresh_to_a_caller_with_time_left() {
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"timeouts": {"totalMs": 1_500}}));
    let company = abi.connect_company(&emulator);
    emulator.clock().advance(DAY);
    sent(&emulator);
    let hold = emulator.hold(refreshes_of(&company).times(1), Stage::AfterProcessing);
    // The first request takes a second, so the deadline of the second caller is that much later.
    let limited = response(429, "", &[("Retry-After", "1")]);
    emulator.inject(
        Rule::on(Endpoint::Token).grant_type(GrantType::ClientCredentials).times(1),
        limited,
    );
    thread::scope(|scope| {
        let first = scope.spawn(|| abi.access_token(&company));
        hold.wait_for(1);
        abi.oauth_token(json!({"grantType": "client_credentials"})).ok();
        let second = abi.live_token(&emulator, &company);
        first.join().unwrap().fails(Status::Timeout);
        assert_eq!(abi.live_token(&emulator, &company), second);
    });
    assert_eq!(
        sent(&emulator),
        ["refresh 200", "credentials 429", "credentials 200", "refresh 200"]
    );
    assert_eq!(
        emulator.refreshes(),
        1,
        "the second caller repeated the refresh of the first caller"
    );
}

#[test]
fn leader_that_panics_wakes_every_waiting_caller() {
    let emulator = emulator(1);
    let panicking_clock = PanickingClock::new(&emulator);
    let abi = Abi::by(&emulator, json!({}), Arc::<PanickingClock>::clone(&panicking_clock));
    let company = abi.connect_company(&emulator);
    emulator.clock().advance(DAY);
    sent(&emulator);
    let hold = emulator.hold(refreshes_of(&company), Stage::BeforeProcessing);
    let outcomes = call_concurrently(
        16,
        || abi.access_token(&company),
        || {
            // Only the leader reads the clock next, when its response arrives.
            panicking_clock.set(1);
            hold.release();
        },
    );
    assert!(panicking_clock.disarm());
    let (good, bad): (Vec<_>, Vec<_>) =
        outcomes.into_iter().partition(|Outcome(code, _)| *code == 0);
    assert_eq!((good.len(), bad.len()), (15, 1), "{bad:?}");
    for outcome in bad {
        outcome.fails(Status::Internal);
    }
    let tokens: BTreeSet<String> = good.into_iter().map(Outcome::text).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens.first(), Some(&abi.live_token(&emulator, &company)));
    assert_eq!(sent(&emulator), ["refresh 200"], "the token of the panicked refresh was saved");
}
