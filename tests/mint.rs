//! Minting for many locations: results, remaining work, progress reports, and the requests that the
//! server sees.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use ghl_oauth::Status;
use ghl_oauth_emulator::{
    Emulator, Endpoint, FaultKind, GrantType, Options, RateLimit, Rule, Stage,
};
use serde_json::{Value, json};

use support::{Abi, DAY, response, sent};

/// An emulator without rate limits: only tests about the rate limiter should wait for it.
fn emulator(locations: usize) -> Emulator {
    Emulator::start(Options { locations, rate_limit: None, ..Options::default() }).unwrap()
}

/// A client with these changes and an unnoticeably high rate limit.
fn client(emulator: &Emulator, mut changes: Value) -> Abi {
    changes["rateLimit"] = json!({"requests": 10_000});
    Abi::with(emulator, changes)
}

/// A connected company with this number of locations and no minted token.
fn connected(emulator: &Emulator) -> (Abi, String) {
    let abi = client(emulator, json!({}));
    let company = abi.connect_company(emulator);
    sent(emulator);
    (abi, company)
}

fn of_all(company: &str) -> Value {
    json!({"companyId": company, "installed": true})
}

/// The counts of a report.
fn counts(report: &Value) -> [u64; 4] {
    let number = |name: &str| report[name].as_u64().unwrap();
    [
        number("total"),
        number("minted"),
        number("fresh"),
        report["failed"].as_array().unwrap().len() as u64,
    ]
}

fn status(http: u16, body: &str) -> FaultKind {
    response(http, body, &[])
}

/// The number of requests with this path.
fn tally(emulator: &Emulator, name: &str) -> usize {
    emulator.requests().iter().filter(|request| request.path == name).count()
}

const MINT: &str = "/oauth/location-token";
const LIST: &str = "/oauth/installed-locations";

#[test]
fn every_installed_location_is_minted_once_and_a_second_run_mints_missing_or_due_tokens() {
    let emulator = emulator(250);
    let (abi, company) = connected(&emulator);
    assert_eq!(counts(&abi.tokens_mint(of_all(&company), |_| true).ok()), [250, 250, 0, 0]);
    assert_eq!((tally(&emulator, MINT), tally(&emulator, LIST)), (250, 3));
    assert_eq!(abi.stats()["tokens"]["inMemory"], 1, "only the company token is in memory");
    emulator.clear_requests();
    for location in emulator.location_ids() {
        abi.live_token(&emulator, &location);
    }
    assert_eq!(emulator.requests().len(), 0, "the tokens are ready for use");

    for location in &emulator.location_ids()[..7] {
        abi.token_delete(location).ok();
    }
    assert_eq!(counts(&abi.tokens_mint(of_all(&company), |_| true).ok()), [250, 7, 243, 0]);
    assert_eq!(tally(&emulator, MINT), 7);

    emulator.clock().advance(DAY);
    assert_eq!(counts(&abi.tokens_mint(of_all(&company), |_| true).ok()), [250, 250, 0, 0]);
    let forced = json!({"companyId": company, "installed": true, "force": true});
    assert_eq!(counts(&abi.tokens_mint(forced, |_| true).ok()), [250, 250, 0, 0]);
}

#[test]
fn duplicate_locations_in_a_list_are_minted_once() {
    let emulator = emulator(4);
    let (abi, company) = connected(&emulator);
    let [a, b, c, d] = <[String; 4]>::try_from(emulator.location_ids()).unwrap();
    let list = json!({"companyId": company, "locationIds": [a, b, a, c, b]});
    assert_eq!(counts(&abi.tokens_mint(list, |_| true).ok()), [3, 3, 0, 0]);
    assert_eq!((tally(&emulator, MINT), tally(&emulator, LIST)), (3, 0));
    let held = abi.tokens_list(json!({"userType": "Location"})).ok();
    let held: BTreeSet<&str> = held["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["resourceId"].as_str().unwrap())
        .collect();
    assert_eq!(held, BTreeSet::from([&*a, &b, &c]), "and not {d}");
    let nothing = json!({"companyId": company, "locationIds": []});
    assert_eq!(counts(&abi.tokens_mint(nothing, |_| true).ok()), [0, 0, 0, 0]);
}

#[test]
fn failed_location_is_reported_and_never_stops_the_others() {
    let emulator = emulator(30);
    let (abi, company) = connected(&emulator);
    let locations = emulator.location_ids();
    emulator.set_location_active(&locations[3], false);
    emulator.inject(
        Rule::on(Endpoint::LocationToken).resource(&locations[5]),
        status(500, "<html>oops</html>"),
    );
    let mut list = locations.clone();
    list.push("a-location-of-nobody".into());
    let report = abi.tokens_mint(json!({"companyId": company, "locationIds": list}), |_| true).ok();
    assert_eq!(counts(&report), [31, 28, 0, 3]);
    let failed = report["failed"].as_array().unwrap();
    let of = |location: &str| {
        let failure = failed
            .iter()
            .find(|failure| failure["locationId"] == location)
            .expect("the failure is listed");
        assert_eq!(failure["error"]["resourceId"], location);
        failure["error"]["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(of(&locations[3]), "GHL_ERR_LOCATION_INACTIVE");
    assert_eq!(of(&locations[5]), "GHL_ERR_SERVER");
    assert!(
        ["GHL_ERR_FORBIDDEN", "GHL_ERR_NOT_FOUND", "GHL_ERR_INVALID_REQUEST"]
            .contains(&&*of("a-location-of-nobody"))
    );

    emulator.clear_faults();
    emulator.set_location_active(&locations[3], true);
    assert_eq!(counts(&abi.tokens_mint(of_all(&company), |_| true).ok()), [30, 2, 28, 0]);
}

#[test]
fn progress_is_reported_on_the_thread_of_the_caller() {
    let emulator = emulator(12);
    let (abi, company) = connected(&emulator);
    let own = thread::current().id();
    let heard = abi.listen_with(move |_| assert_eq!(thread::current().id(), own));
    let mut reports = Vec::new();
    let report = abi.tokens_mint(of_all(&company), |so_far| {
        assert_eq!(thread::current().id(), own);
        reports.push(so_far);
        true
    });
    report.ok();
    let last = reports.last().expect("at the latest at the end");
    assert_eq!(
        (&last["done"], &last["failed"], &last["total"], &last["secondsLeft"]),
        (&json!(12), &json!(0), &json!(12), &json!(0))
    );
    assert!(last["perSecond"].as_f64().unwrap() > 0.0);
    let names: BTreeSet<String> = heard.names().into_iter().collect();
    let expected = emulator.location_ids().into_iter().map(|id| format!("token.minted {id}"));
    assert_eq!(names, expected.collect());
}

#[test]
fn minting_can_be_stopped_and_resumed() {
    let emulator = emulator(60);
    let (abi, company) = connected(&emulator);
    // The callback stops the minting while some requests are held.
    let mut hold =
        Some(emulator.hold(Rule::on(Endpoint::LocationToken).skip(20), Stage::AfterProcessing));
    let by_callback = abi.tokens_mint(of_all(&company), |_| {
        if let Some(hold) = hold.take() {
            hold.wait_for(1);
        }
        false
    });
    by_callback.fails(Status::Cancelled);
    let before = tally(&emulator, MINT);
    assert!((1..60).contains(&before), "{before} of 60");

    let hold = emulator.hold(Rule::on(Endpoint::LocationToken), Stage::AfterProcessing);
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        let call = scope.spawn(|| {
            let outcome = abi.tokens_mint(of_all(&company), |_| true);
            done.store(1, Ordering::SeqCst);
            outcome
        });
        hold.wait_for(1);
        abi.cancel_until(|| done.load(Ordering::SeqCst) == 1);
        call.join().unwrap().fails(Status::Cancelled);
    });
    drop(hold);
    emulator.clear_requests();
    let [total, minted, fresh, failed] = counts(&abi.tokens_mint(of_all(&company), |_| true).ok());
    assert_eq!((total, failed, minted + fresh), (60, 0, 60));
    // Except for up to eight, for whose responses the workers waited.
    assert!(fresh + 8 >= before as u64, "saved before the stop: {fresh} of {before}");
    assert_eq!(tally(&emulator, MINT) as u64, minted);
}

#[test]
fn company_failure_ends_the_work_after_one_refresh_at_most() {
    let emulator = emulator(40);
    let (abi, company) = connected(&emulator);
    let unknown = abi.tokens_mint(of_all("nobody"), |_| true).fails(Status::NotFound);
    assert_eq!(unknown["resourceId"], "nobody");
    assert_eq!(sent(&emulator), [""; 0]);

    emulator.inject(
        Rule::on(Endpoint::LocationToken),
        status(401, r#"{"statusCode": 401, "message": "Invalid JWT"}"#),
    );
    let error = abi
        .tokens_mint(json!({"companyId": company, "installed": true, "concurrency": 1}), |_| true);
    assert_eq!(error.fails(Status::Unauthorized)["httpStatus"], 401);
    assert_eq!(sent(&emulator), ["list 200", "mint 401", "refresh 200", "mint 401"]);

    emulator.clear_faults();
    emulator.clock().advance(DAY);
    let refreshes = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken);
    emulator.inject(refreshes, status(400, r#"{"error": "invalid_grant"}"#));
    let error = abi.tokens_mint(of_all(&company), |_| true).fails(Status::ReauthorizationRequired);
    assert_eq!(error["resourceId"], company.as_str());
    assert_eq!(sent(&emulator), ["refresh 400"]);
}

#[test]
fn expired_company_token_is_refreshed_once_for_all_workers() {
    let emulator = emulator(40);
    let (abi, company) = connected(&emulator);
    emulator.clock().advance(DAY);
    assert_eq!(counts(&abi.tokens_mint(of_all(&company), |_| true).ok()), [40, 40, 0, 0]);
    assert_eq!((emulator.refreshes(), tally(&emulator, MINT)), (1, 40));
}

#[test]
fn unavailable_network_ends_the_work_soon() {
    let emulator = emulator(200);
    let (abi, company) = connected(&emulator);
    emulator.inject(Rule::on(Endpoint::LocationToken), FaultKind::ReplyLost);
    let error = abi.tokens_mint(of_all(&company), |_| true).fails(Status::Network);
    assert!(error["help"].as_str().unwrap().contains("again"), "{error}");
    let tried = tally(&emulator, MINT);
    assert!(tried < 200, "{tried} requests");
    emulator.clear_faults();
    assert_eq!(counts(&abi.tokens_mint(of_all(&company), |_| true).ok()), [200, 200, 0, 0]);
}

#[test]
fn many_mints_stay_below_the_rate_limit() {
    let rate_limit = Some(RateLimit { requests: 50, per_ms: 200, per_day: 100_000 });
    let emulator =
        Emulator::start(Options { locations: 300, rate_limit, ..Options::default() }).unwrap();
    let abi = Abi::with(&emulator, json!({"rateLimit": {"requests": 50, "perMs": 200}}));
    let company = abi.connect_company(&emulator);
    sent(&emulator);
    let params = json!({"companyId": company, "installed": true, "concurrency": 16});
    assert_eq!(counts(&abi.tokens_mint(params, |_| true).ok()), [300, 300, 0, 0]);
    assert!(sent(&emulator).iter().all(|request| request.ends_with("200")));
}

#[test]
fn rate_limit_refusal_is_waited_for_and_no_location_is_skipped() {
    let emulator = emulator(20);
    let (abi, company) = connected(&emulator);
    let limited = |seconds| response(429, "", &[("Retry-After", seconds)]);
    emulator.inject(Rule::on(Endpoint::LocationToken).skip(5).times(1), limited("1"));
    // Shorter than the delay that the server asks for.
    let impatient = client(&emulator, json!({"timeouts": {"totalMs": 500}}));
    impatient.connect_company(&emulator);
    let params = json!({"companyId": company, "installed": true, "concurrency": 2});
    assert_eq!(counts(&impatient.tokens_mint(params, |_| true).ok()), [20, 20, 0, 0]);

    emulator.inject(Rule::on(Endpoint::LocationToken), limited("3600"));
    let error = abi.tokens_mint(of_all(&company), |_| true).fails(Status::RateLimited);
    assert_eq!(error["resourceId"], company.as_str());
}

/// The rate limiter would send the next request only in ten minutes. Until then, the events of the
/// tokens before it do not wait.
#[test]
fn minting_that_waits_for_the_rate_limiter_can_be_stopped() {
    for concurrency in [1, 2] {
        let emulator = emulator(5);
        let pace = json!({
            "rateLimit": {"requests": 2, "perMs": 600_000}, "timeouts": {"totalMs": 600_000},
        });
        let abi = Abi::with(&emulator, pace);
        let company = abi.connect_company(&emulator);
        let (mut told, mut minted, heard) = (Vec::new(), 0, abi.listen());
        let params = json!({
            "companyId": company, "locationIds": emulator.location_ids(),
            "concurrency": concurrency,
        });
        let outcome = abi.tokens_mint(params, |so_far| {
            told.push(so_far["done"].as_u64().unwrap());
            minted += heard.names().len();
            (told.last() != Some(&2) || minted < 2) && told.len() < 100
        });
        outcome.fails(Status::Cancelled);
        assert_eq!(minted, 2, "{told:?}");
        assert_eq!(told.last(), Some(&2), "and is not asked again: {told:?}");
        assert_eq!(
            emulator
                .requests()
                .iter()
                .filter(|request| request.path.contains("location-token"))
                .count(),
            2
        );
    }
}

#[test]
fn two_processes_that_mint_the_same_locations_share_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = emulator(300);
    let store = json!({"store": {"kind": "sqlite", "path": folder.path().join("tokens.db")}});
    let clients = [client(&emulator, store.clone()), client(&emulator, store)];
    let company = clients[0].connect_company(&emulator);
    emulator.clear_requests();
    emulator.respond_latency(std::time::Duration::from_millis(5));
    let reports = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for abi in &clients {
            scope.spawn(|| {
                let report = abi.tokens_mint(
                    json!({"companyId": company, "installed": true, "concurrency": 4}),
                    |_| true,
                );
                reports.lock().unwrap().push(counts(&report.ok()));
            });
        }
    });
    for [total, minted, fresh, failed] in reports.into_inner().unwrap() {
        assert_eq!((total, failed, minted + fresh), (300, 0, 300));
    }
    let mints = tally(&emulator, MINT);
    assert!((300..450).contains(&mints), "{mints} mints for 300 locations");
    for location in emulator.location_ids() {
        clients[0].live_token(&emulator, &location);
    }
}

#[test]
fn token_deleted_during_its_mint_stays_deleted() {
    let emulator = emulator(2);
    let (abi, company) = connected(&emulator);
    abi.tokens_mint(of_all(&company), |_| true).ok();
    let [kept, deleted] = <[String; 2]>::try_from(emulator.location_ids()).unwrap();
    let hold = emulator.hold(Rule::on(Endpoint::LocationToken), Stage::AfterProcessing);
    thread::scope(|scope| {
        let forced = json!({"companyId": company, "installed": true, "force": true});
        let call = scope.spawn(|| abi.tokens_mint(forced, |_| true));
        hold.wait_for(2);
        abi.token_delete(&deleted).ok();
        hold.release();
        call.join().unwrap().ok();
    });
    let held = abi.tokens_list(json!({"userType": "Location"})).ok();
    let held: Vec<&Value> =
        held["items"].as_array().unwrap().iter().map(|item| &item["resourceId"]).collect();
    assert_eq!(held, [kept.as_str()]);
}

#[test]
fn failing_store_ends_the_work_and_loses_no_token() {
    for concurrency in [1, 8] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let emulator = emulator(50);
        let abi = client(&emulator, json!({"store": {"kind": "sqlite", "path": path}}));
        let company = abi.connect_company(&emulator);
        let database = rusqlite::Connection::open(&path).unwrap();
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON token \
                      BEGIN SELECT RAISE(ABORT, 'no more'); END";
        database.execute_batch(refuse).unwrap();
        let heard = abi.listen();
        let held = Arc::new(AtomicUsize::new(0));
        let all = json!({"companyId": company, "installed": true, "concurrency": concurrency});
        abi.tokens_mint(all, |_| true).fails(Status::Store);
        for name in heard.names() {
            assert!(name.starts_with("token.unsaved "), "{name}");
            held.fetch_add(1, Ordering::SeqCst);
        }
        let held = held.load(Ordering::SeqCst) as u64;
        assert!((1..50).contains(&held), "{held} of 50");
        assert_eq!(abi.stats()["tokens"]["unsaved"], held);
        database.execute_batch("DROP TRIGGER refuse").unwrap();
        abi.tokens_maintain(json!({}), |_| true).ok();
        assert_eq!(abi.stats()["tokens"]["unsaved"], 0);
        let [total, minted, fresh, failed] =
            counts(&abi.tokens_mint(of_all(&company), |_| true).ok());
        assert_eq!([total, minted, fresh, failed], [50, 50 - held, held, 0]);
    }
}
