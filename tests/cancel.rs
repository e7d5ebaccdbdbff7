//! Cancelling: whoever waits leaves at once, and what was sent and cannot be taken back goes on.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Emulator, Endpoint, FaultKind, GrantType, Rule, Stage};
use serde_json::json;

use support::{Abi, DAY, Outcome, crowd, emulator, fields, sent};

fn refreshes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken)
}

/// A client that holds the company's token, which has died since.
fn with_a_dead_token(emulator: &Emulator) -> (Abi, String) {
    let abi = Abi::new(emulator);
    let company = abi.connect_company(emulator);
    emulator.clock().advance(DAY);
    sent(emulator);
    (abi, company)
}

#[test]
fn whoever_waits_for_a_refresh_leaves_at_once_and_the_refresh_goes_on_and_is_saved() {
    let emulator = emulator(1);
    let (abi, company) = with_a_dead_token(&emulator);
    for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
        let hold = emulator.hold(refreshes(), stage);
        thread::scope(|scope| {
            let leader = scope.spawn(|| abi.access_token(&company));
            hold.wait_for(1);
            let left = AtomicUsize::new(0);
            let wait = || {
                let outcome = abi.access_token(&company);
                left.fetch_add(1, Ordering::SeqCst);
                outcome
            };
            let outcomes = crowd(16, wait, || abi.cancel_until(|| left.load(Ordering::SeqCst) == 16));
            for outcome in outcomes {
                let error = outcome.fails(Status::Cancelled);
                assert_eq!((&error["retryable"], &error["resourceId"]), (&json!(true), &json!(company)));
            }
            assert!(!leader.is_finished(), "the refresh is still under way");
            assert_eq!(hold.arrived(), 1);
            hold.release();
            // Its own caller gets what it brought.
            let token = leader.join().unwrap().text();
            assert!(emulator.access_token_is_live(&token));
            assert_eq!(abi.live_token(&emulator, &company), token);
        });
        assert_eq!(sent(&emulator), ["refresh 200"]);
        // What was saved is the server's newest refresh token.
        emulator.clock().advance(DAY);
    }
    abi.live_token(&emulator, &company);
    assert_eq!(emulator.refreshes(), 3);
}

#[test]
fn a_held_exchange_of_a_code_goes_on_until_its_token_is_stored() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = emulator.company_id();
    let hold = emulator.hold(Rule::on(Endpoint::Token), Stage::AfterProcessing);
    thread::scope(|scope| {
        let completing = scope.spawn(|| abi.connect_company(&emulator));
        hold.wait_for(1);
        for _ in 0..100 {
            abi.cancel();
        }
        assert!(!completing.is_finished());
        hold.release();
        completing.join().unwrap();
    });
    abi.live_token(&emulator, &company);
    assert_eq!(sent(&emulator), ["code 200"]);
}

/// A call that may be abandoned, and the requests that it makes.
type Abandoned = (&'static str, Endpoint, fn(&Abi, &Emulator) -> Outcome);

const ABANDONED: [Abandoned; 4] = [
    ("list", Endpoint::InstalledLocations, |abi, emulator| {
        abi.oauth_installed_locations(json!({"companyId": emulator.company_id()}))
    }),
    ("raw mint", Endpoint::LocationToken, |abi, emulator| {
        let location = &emulator.location_ids()[0];
        abi.oauth_location_token(json!({"companyId": emulator.company_id(), "locationId": location}))
    }),
    ("mint", Endpoint::LocationToken, |abi, emulator| abi.access_token(&emulator.location_ids()[0])),
    ("credentials", Endpoint::Token, |abi, _| abi.oauth_token(json!({"grantType": "client_credentials"}))),
];

#[test]
fn a_held_request_that_spends_nothing_is_abandoned_and_the_client_works_on() {
    for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
        for (name, endpoint, call) in ABANDONED {
            let emulator = emulator(1);
            let abi = Abi::new(&emulator);
            abi.connect_company(&emulator);
            sent(&emulator);
            let hold = emulator.hold(Rule::on(endpoint), stage);
            thread::scope(|scope| {
                let caller = scope.spawn(|| call(&abi, &emulator));
                hold.wait_for(1);
                abi.cancel_until(|| caller.is_finished());
                caller.join().unwrap().fails(Status::Cancelled);
            });
            // The server sees that nobody waits any more, and nothing was sent again.
            hold.wait_until_empty();
            assert_eq!(hold.arrived(), 1, "{name}");
            hold.release();
            call(&abi, &emulator).ok();
        }
    }
}

#[test]
fn a_stalled_body_is_abandoned_too() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    let silence = FaultKind::CutBody { body_bytes: 10, ending: ghl_oauth_emulator::Ending::Silence };
    let fault = emulator.inject(Rule::on(Endpoint::InstalledLocations), silence);
    thread::scope(|scope| {
        let caller = scope.spawn(|| abi.oauth_installed_locations(json!({"companyId": company})));
        while emulator.strikes(fault) == 0 {
            thread::yield_now();
        }
        abi.cancel_until(|| caller.is_finished());
        caller.join().unwrap().fails(Status::Cancelled);
    });
    assert_eq!(emulator.strikes(fault), 1);
}

#[test]
fn a_pause_between_two_attempts_ends_with_a_cancellation() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    // Inside the deadline, so that the library waits instead of answering.
    let limited = FaultKind::Status {
        status: 429,
        body: String::new(),
        content_type: None,
        headers: vec![("Retry-After".into(), "25".into())],
        stage: Stage::BeforeProcessing,
    };
    let fault = emulator.inject(Rule::default(), limited);
    let calls: [&(dyn Fn() -> Outcome + Sync); 3] = [
        &|| abi.oauth_installed_locations(json!({"companyId": company})),
        &|| abi.token_refresh(&company),
        &|| abi.oauth_token(json!({"grantType": "authorization_code", "code": "some code"})),
    ];
    for (count, call) in (1..).zip(calls) {
        thread::scope(|scope| {
            let caller = scope.spawn(call);
            while emulator.strikes(fault) < count {
                thread::yield_now();
            }
            abi.cancel_until(|| caller.is_finished());
            caller.join().unwrap().fails(Status::Cancelled);
        });
        assert_eq!(emulator.strikes(fault), count);
    }
    // The refresh that was cancelled between its attempts has spent nothing.
    assert_eq!((emulator.refreshes(), abi.listed(&company)["state"].as_str()), (0, Some("ok")));
}

#[test]
fn a_caller_who_insists_on_a_token_ends_with_a_cancellation() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    emulator.clock().advance(DAY);
    let fault = emulator.inject(Rule::default(), FaultKind::ReplyLost);
    thread::scope(|scope| {
        let caller = scope.spawn(|| abi.access_token(&company));
        while emulator.strikes(fault) < 3 {
            assert!(!caller.is_finished(), "it gave up");
            thread::yield_now();
        }
        abi.cancel_until(|| caller.is_finished());
        caller.join().unwrap().fails(Status::Cancelled);
    });
    // The next call goes on with what was in doubt.
    emulator.clear_faults();
    abi.live_token(&emulator, &company);
    assert_eq!(emulator.refreshes(), 1);
}

#[test]
fn a_wait_for_the_pace_ends_with_a_cancellation() {
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"rateLimit": {"requests": 1, "perMs": 25_000}}));
    let company = abi.connect_company(&emulator);
    let list = || abi.oauth_installed_locations(json!({"companyId": company}));
    list().ok();
    sent(&emulator);
    let done = AtomicUsize::new(0);
    let outcomes = crowd(
        1,
        || {
            let outcome = list();
            done.fetch_add(1, Ordering::SeqCst);
            outcome
        },
        || abi.cancel_until(|| done.load(Ordering::SeqCst) == 1),
    );
    for outcome in outcomes {
        outcome.fails(Status::Cancelled);
    }
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn a_wait_for_a_resource_that_is_being_refreshed_ends_with_a_cancellation() {
    let emulator = emulator(1);
    let (abi, company) = with_a_dead_token(&emulator);
    let tokens = abi.tokens_export(json!({})).ok()["tokens"].clone();
    let calls: [&(dyn Fn() -> Outcome + Sync); 4] = [
        &|| abi.token_delete(&company),
        &|| abi.token_refresh(&company),
        &|| abi.tokens_import(json!({"tokens": tokens, "replace": true})),
        &|| abi.tokens_maintain(json!({}), |_| true),
    ];
    for call in calls {
        let hold = emulator.hold(refreshes(), Stage::BeforeProcessing);
        thread::scope(|scope| {
            let refreshing = scope.spawn(|| abi.access_token(&company).text());
            hold.wait_for(1);
            let done = AtomicUsize::new(0);
            let waiting = || {
                let outcome = call();
                done.fetch_add(1, Ordering::SeqCst);
                outcome
            };
            let outcomes = crowd(1, waiting, || abi.cancel_until(|| done.load(Ordering::SeqCst) == 1));
            for Outcome(code, document) in outcomes {
                // A pass of maintenance that is cancelled at its last token has nothing left to stop.
                let listed = &document["failed"][0]["error"]["status"];
                assert!(
                    code == Status::Cancelled.code() || (code == 0 && listed == Status::Cancelled.name()),
                    "{document}"
                );
            }
            hold.release();
            assert!(emulator.access_token_is_live(&refreshing.join().unwrap()));
        });
        emulator.clock().advance(DAY);
    }
    abi.live_token(&emulator, &company);
}

#[test]
fn maintenance_ends_between_two_tokens() {
    for by_progress in [true, false] {
        let emulator = emulator(3);
        let abi = Abi::new(&emulator);
        abi.connect_company(&emulator);
        for location in emulator.location_ids() {
            abi.live_token(&emulator, &location);
        }
        emulator.clock().advance(DAY);
        sent(&emulator);
        let mut told = 0;
        let outcome = abi.tokens_maintain(json!({}), |so_far| {
            told += 1;
            assert_eq!(so_far["checked"], told);
            if !by_progress && told == 2 {
                abi.cancel();
            }
            !(by_progress && told == 2)
        });
        let error = outcome.fails(Status::Cancelled);
        assert!(error["help"].as_str().unwrap().contains("call again"), "{error}");
        assert_eq!((told, sent(&emulator)), (2, vec!["refresh 200".to_owned(); 2]));
        let rest = abi.tokens_maintain(json!({}), |_| true).ok();
        assert_eq!(rest["refreshed"], 2, "what was renewed is saved, and the rest is done now");
    }
}

#[test]
fn a_cancellation_ends_nothing_that_comes_after_it() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    abi.cancel();
    let company = abi.connect_company(&emulator);
    abi.cancel();
    abi.live_token(&emulator, &company);
    abi.token_refresh(&company).ok();
    abi.cancel();
    abi.live_token(&emulator, &emulator.location_ids()[0]);
    abi.oauth_installed_locations(json!({"companyId": company})).ok();
    let requests = emulator.requests();
    assert_eq!(fields(&requests[0])["grantType"], "authorization_code");
    assert_eq!(sent(&emulator), ["code 200", "refresh 200", "mint 200", "list 200"]);
}
