//! Callers with a valid token never wait, and no expired token is returned under wrong clocks.

mod fixture;
mod support;

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth_emulator::{Decision, Endpoint, FaultKind, Rule, Stage};
use serde_json::{Value, json};

use fixture::{EVERY, Fixture, Kind};
use support::{Abi, DAY, response, sent};

/// A deadline that no call reaches; none of these tests measures a duration by it.
const PATIENT: u64 = 120_000;

/// "At once" on a busy machine: less than any of the waits that these tests cause.
const AT_ONCE: Duration = Duration::from_secs(60);

/// The remaining lifetime of a token in milliseconds: below the margin, and longer than any wait
/// that these tests would detect.
const NEARLY_OVER: i64 = 200_000;

/// A company whose token is inside the margin.
fn due(kind: Kind) -> (Fixture, Abi, String, String) {
    let fixture = Fixture::new(kind);
    let abi = fixture.open_with(json!({"timeouts": {"totalMs": PATIENT, "answerMs": PATIENT}}));
    let company = fixture.company();
    if kind == Kind::Host {
        // The system clock cannot be moved, so the token gets a short lifetime.
        let mut answer =
            fixture::saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
        answer["expiresAt"] = json!(fixture.emulator.clock().now_ms() + NEARLY_OVER);
        assert_eq!(abi.tokens_import(json!({"tokens": [answer]})).ok()["imported"], 1);
    } else {
        abi.connect_company(&fixture.emulator);
        fixture.pass(Duration::from_millis(86_399_000 - NEARLY_OVER.unsigned_abs()));
    }
    let old =
        abi.tokens_export(json!({})).ok()["tokens"][0]["accessToken"].as_str().unwrap().to_owned();
    sent(&fixture.emulator);
    (fixture, abi, company, old)
}

/// Eight threads request the token concurrently. All but `all_but` of them get it before
/// `meanwhile` runs, the others afterwards.
fn eight_ask(
    abi: &Abi,
    resource_id: &str,
    all_but: usize,
    meanwhile: impl FnOnce(),
) -> (Vec<String>, Vec<String>) {
    let (send, receive) = channel();
    thread::scope(|scope| {
        for _ in 0..8 {
            let send = send.clone();
            scope.spawn(move || send.send(abi.access_token(resource_id).text()).unwrap());
        }
        drop(send);
        let within = |count: usize| -> Vec<String> {
            (0..count)
                .map(|_| receive.recv_timeout(AT_ONCE).expect("a caller with a valid token waits"))
                .collect()
        };
        let at_once = within(8 - all_but);
        meanwhile();
        (at_once, within(all_but))
    })
}

#[test]
fn callers_with_a_valid_token_return_at_once_during_a_stalled_refresh() {
    for kind in EVERY {
        for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
            let (fixture, abi, company, old) = due(kind);
            let hold = fixture.emulator.hold(Rule::on(Endpoint::Token), stage);
            let (at_once, leader) = eight_ask(&abi, &company, 1, || {
                hold.wait_for(1);
                hold.release();
            });
            assert!(at_once.iter().all(|token| *token == old), "{kind:?}");
            assert_ne!(leader[0], old, "{kind:?}");
            assert_eq!(fixture.emulator.refreshes(), 1, "{kind:?}");
        }
    }
}

#[test]
fn callers_with_a_valid_location_token_return_at_once_during_its_stalled_mint() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        let fixture = Fixture::new(kind);
        fixture.emulator.set_location_refresh_tokens(false);
        let abi = fixture.open_with(json!({"timeouts": {"totalMs": PATIENT, "answerMs": PATIENT}}));
        let (company, location) = (abi.connect_company(&fixture.emulator), fixture.location(0));
        let old = abi.live_token(&fixture.emulator, &location);
        fixture.pass(Duration::from_millis(86_399_000 - NEARLY_OVER.unsigned_abs()));
        for stalled in [Endpoint::Token, Endpoint::LocationToken] {
            let hold = fixture.emulator.hold(Rule::on(stalled), Stage::BeforeProcessing);
            let (at_once, leader) = eight_ask(&abi, &location, 1, || {
                hold.wait_for(1);
                hold.release();
            });
            assert!(at_once.iter().all(|token| *token == old), "{kind:?}, {stalled:?}");
            let now = abi.live_token(&fixture.emulator, &location);
            assert_eq!(leader[0], now, "{kind:?}, {stalled:?}");
            if now != old {
                break;
            }
        }
        abi.live_token(&fixture.emulator, &company);
    }
}

#[test]
fn callers_with_a_valid_token_do_not_wait_for_the_lock_of_another_client() {
    for kind in fixture::DURABLE {
        let (fixture, abi, company, old) = due(kind);
        let other =
            fixture.open_with(json!({"timeouts": {"totalMs": PATIENT, "answerMs": PATIENT}}));
        let hold = fixture.emulator.hold(Rule::on(Endpoint::Token), Stage::BeforeProcessing);
        thread::scope(|scope| {
            let refresh = scope.spawn(|| other.token_refresh(&company));
            hold.wait_for(1);
            let (at_once, _) = eight_ask(&abi, &company, 0, || {});
            assert!(at_once.iter().all(|token| *token == old), "{kind:?}");
            assert_eq!(sent(&fixture.emulator), ["refresh 0"], "{kind:?}");
            hold.release();
            let _ = refresh.join().unwrap().ok();
        });
        assert_ne!(abi.token_refresh(&company).ok(), Value::Null);
        abi.live_token(&fixture.emulator, &company);
    }
}

#[test]
fn calls_with_a_valid_token_do_not_wait_for_the_refresh_of_another_client() {
    type Use = fn(&Abi, &str, &str) -> bool;
    let uses: [(&str, Use); 5] = [
        ("ghl_request", |abi, company, location| {
            abi.request(json!({
                "resourceId": company, "method": "GET",
                "path": format!("/locations/{location}"),
            }))
            .0 == 0
        }),
        ("ghl_oauth_installed_locations", |abi, company, _| {
            abi.oauth_installed_locations(json!({"companyId": company})).0 == 0
        }),
        ("ghl_oauth_location_token", |abi, company, location| {
            abi.oauth_location_token(json!({"companyId": company, "locationId": location})).0 == 0
        }),
        ("ghl_tokens_mint", |abi, company, location| {
            let params = json!({"companyId": company, "locationIds": [location]});
            abi.tokens_mint(params, |_| true).ok()["minted"] == 1
        }),
        ("ghl_access_token of a location", |abi, _, location| abi.access_token(location).0 == 0),
    ];
    for (name, uses) in uses {
        let (fixture, abi, company, _) = due(Kind::Sqlite);
        let location = fixture.location(0);
        let other =
            fixture.open_with(json!({"timeouts": {"totalMs": PATIENT, "answerMs": PATIENT}}));
        let hold = fixture.emulator.hold(Rule::on(Endpoint::Token), Stage::BeforeProcessing);
        thread::scope(|scope| {
            let refresh = scope.spawn(|| other.token_refresh(&company));
            hold.wait_for(1);
            let (send, receive) = channel();
            let (abi, company, location) = (&abi, &company, &location);
            scope.spawn(move || send.send(uses(abi, company, location)).unwrap());
            let done = receive.recv_timeout(AT_ONCE);
            hold.release();
            assert_eq!(done, Ok(true), "{name}");
            let _ = refresh.join().unwrap().ok();
        });
    }
}

#[test]
fn callers_with_a_valid_token_do_not_wait_for_the_write_lock_of_another_connection() {
    for warm in [true, false] {
        let (fixture, abi, company, old) = due(Kind::Sqlite);
        let abi = if warm {
            // This client has filled its cache and prepared its statements.
            abi
        } else {
            fixture.open_with(json!({"timeouts": {"totalMs": PATIENT, "answerMs": PATIENT}}))
        };
        let foreign = fixture.database();
        foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (at_once, leader) =
            eight_ask(&abi, &company, 1, || foreign.execute_batch("ROLLBACK").unwrap());
        assert!(at_once.iter().all(|token| *token == old), "warm: {warm}");
        assert!(fixture.emulator.access_token_is_live(&leader[0]), "warm: {warm}");
    }
}

#[test]
fn callers_with_a_valid_token_do_not_wait_for_a_store_that_hangs() {
    let (fixture, abi, company, old) = due(Kind::Host);
    assert_eq!(abi.oauth_installed_locations(json!({"companyId": company})).0, 0);
    let (fixture, abi, company, old) = if abi.access_token(&company).text() == old {
        (fixture, abi, company, old)
    } else {
        // That call refreshed the token. Put one into memory that is due.
        let mut answer =
            fixture::saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
        answer["expiresAt"] = json!(fixture.emulator.clock().now_ms() + NEARLY_OVER);
        let import = json!({"tokens": [answer], "replace": true});
        assert_eq!(abi.tokens_import(import).ok()["imported"], 1);
        let old = answer["accessToken"].as_str().unwrap().to_owned();
        // A failed refresh leaves the token in memory.
        fixture.emulator.inject(
            Rule::on(Endpoint::Token).times(9),
            FaultKind::Refusal { refusal: ghl_oauth_emulator::Refusal::InvalidParameter },
        );
        assert_eq!(abi.access_token(&company).text(), old);
        fixture.emulator.clear_faults();
        (fixture, abi, company, old)
    };
    fixture.host.hold_loads(true);
    let (at_once, _) = eight_ask(&abi, &company, 1, || fixture.host.hold_loads(false));
    assert!(at_once.iter().all(|token| *token == old));
}

#[test]
fn refreshing_caller_gives_up_in_time_and_uses_the_valid_token() {
    let (fixture, _, company, old) = due(Kind::Sqlite);
    let abi = fixture.open_with(json!({"timeouts": {"totalMs": 1_000}}));
    let hold = fixture.emulator.hold(Rule::on(Endpoint::Any), Stage::BeforeProcessing);
    let foreign = fixture.database();
    for locked in [false, true] {
        if locked {
            foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
        }
        let began = Instant::now();
        assert_eq!(abi.access_token(&company).text(), old);
        assert!(began.elapsed() < AT_ONCE, "{:?}, locked: {locked}", began.elapsed());
    }
    hold.release();
}

// ---- Wrong clocks -------------------------------------------------------------------------------

const YEAR_MS: i64 = 365 * 86_400_000;

/// The number of tokens that a maintenance pass renews.
#[track_caller]
fn maintained(abi: &Abi) -> u64 {
    let report = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!(report["failed"], json!([]), "{report}");
    report["refreshed"].as_u64().unwrap()
}

/// A company and a minted location, granted with a wrong wall clock, which is then corrected.
fn granted_while_off_by(kind: Kind, ms: i64) -> (Fixture, Abi) {
    let fixture = Fixture::new(kind);
    let abi = fixture.open();
    fixture.clock.set_wall_forward(ms);
    abi.connect_company(&fixture.emulator);
    abi.live_token(&fixture.emulator, &fixture.location(0));
    fixture.clock.correct_wall();
    sent(&fixture.emulator);
    (fixture, abi)
}

#[test]
fn token_granted_with_the_clock_a_year_ahead_is_always_usable() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        for restarted in [false, true] {
            if restarted && kind == Kind::Memory {
                continue;
            }
            let (fixture, abi) = granted_while_off_by(kind, YEAR_MS);
            let abi = if restarted { fixture.open() } else { abi };
            // 0, 2, 4 and 6 days later.
            for days in 0..4 {
                for resource in [fixture.location(0), fixture.company()] {
                    abi.live_token(&fixture.emulator, &resource);
                    sent(&fixture.emulator);
                    abi.live_token(&fixture.emulator, &resource);
                    assert_eq!(sent(&fixture.emulator), [""; 0], "{kind:?}, {days}: one request");
                }
                fixture.pass(2 * DAY);
            }
        }
    }
}

#[test]
fn token_granted_with_the_clock_a_year_ahead_is_refreshed_by_the_first_call_of_the_next_process() {
    let (fixture, abi) = granted_while_off_by(Kind::Sqlite, YEAR_MS);
    drop(abi);
    let abi = fixture.open();
    abi.live_token(&fixture.emulator, &fixture.company());
    assert_eq!(
        sent(&fixture.emulator),
        ["refresh 200"],
        "the token is dated in the future, so its age is unknown"
    );
    let expires_at = abi.listed(&fixture.company())["expiresAt"].as_i64().unwrap();
    let life = expires_at - fixture.emulator.clock().now_ms();
    assert!((80_000_000..=86_400_000).contains(&life), "{life}");
}

#[test]
fn token_granted_with_the_clock_a_year_ahead_is_maintained() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        for restarted in [false, true] {
            if restarted && kind == Kind::Memory {
                continue;
            }
            let (fixture, abi) = granted_while_off_by(kind, YEAR_MS);
            let abi = if restarted { fixture.open() } else { abi };
            let mut refreshed = maintained(&abi);
            for _ in 0..3 {
                fixture.pass(Duration::from_secs(20 * 3_600));
                refreshed += maintained(&abi);
                let report = abi.tokens_maintain(json!({}), |_| true).ok();
                assert_eq!(
                    report["refreshed"], 0,
                    "{kind:?}: a second pass finds no due token: {report}"
                );
                let next =
                    report["nextDueAt"].as_i64().unwrap() - fixture.emulator.clock().now_ms();
                assert!((0..=86_400_000).contains(&next), "{kind:?}: {next}");
            }
            assert!((6..=8).contains(&refreshed), "{kind:?}, restarted: {restarted}: {refreshed}");
            for resource in [fixture.location(0), fixture.company()] {
                abi.live_token(&fixture.emulator, &resource);
            }
        }
    }
}

#[test]
fn token_loaded_with_the_clock_ten_days_behind_is_refreshed() {
    for late_ms in [YEAR_MS, 10 * 86_400_000] {
        let fixture = Fixture::new(Kind::Sqlite);
        let abi = fixture.open();
        abi.connect_company(&fixture.emulator);
        abi.live_token(&fixture.emulator, &fixture.location(0));
        drop(abi);
        fixture.pass(2 * DAY);
        fixture.clock.set_wall_forward(-late_ms);
        let abi = fixture.open();
        for resource in [fixture.location(0), fixture.company()] {
            abi.live_token(&fixture.emulator, &resource);
        }
        // Maintenance does the same.
        drop(abi);
        fixture.clock.correct_wall();
        fixture.pass(2 * DAY);
        fixture.clock.set_wall_forward(-late_ms);
        let abi = fixture.open();
        assert_eq!(maintained(&abi), 2, "{late_ms}");
        for resource in [fixture.location(0), fixture.company()] {
            abi.live_token(&fixture.emulator, &resource);
        }
        // After the clock is corrected as well.
        fixture.clock.correct_wall();
        for _ in 0..3 {
            fixture.pass(DAY);
            for resource in [fixture.location(0), fixture.company()] {
                abi.live_token(&fixture.emulator, &resource);
            }
        }
    }
}

#[test]
fn token_granted_with_the_clock_ten_days_behind_causes_one_refresh_after_correction() {
    let (fixture, abi) = granted_while_off_by(Kind::Sqlite, -10 * 86_400_000);
    drop(abi);
    let abi = fixture.open();
    for _ in 0..3 {
        abi.live_token(&fixture.emulator, &fixture.company());
    }
    assert_eq!(sent(&fixture.emulator), ["refresh 200"]);
}

#[test]
fn clock_set_back_after_a_failed_refresh_does_not_revive_a_dead_token() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        for (fault, what) in [
            (FaultKind::Reset { stage: Stage::BeforeProcessing }, "network failure"),
            (response(503, "", &[("Retry-After", "1")]), "server failure"),
        ] {
            let fixture = Fixture::new(kind);
            fixture.clock.make_waits_free();
            let abi = fixture.open();
            abi.connect_company(&fixture.emulator);
            let (company, location) = (fixture.company(), fixture.location(0));
            let old = [&company, &location].map(|id| abi.live_token(&fixture.emulator, id));
            fixture.pass(DAY + Duration::from_secs(60));
            fixture.emulator.inject(Rule::on(Endpoint::Any), fault);
            for back_ms in [0, 3 * 86_400_000, YEAR_MS] {
                fixture.clock.set_wall_forward(-back_ms);
                for (id, old) in [&company, &location].into_iter().zip(&old) {
                    for _ in 0..2 {
                        let outcome = abi.access_token(id);
                        assert_ne!(
                            outcome.0,
                            0,
                            "{kind:?}, {what}, set back by {back_ms}: {:?}",
                            outcome.1 == old.as_str()
                        );
                    }
                }
            }
            fixture.emulator.clear_faults();
            fixture.clock.correct_wall();
            fixture.pass(Duration::from_secs(600));
            for id in [&company, &location] {
                abi.live_token(&fixture.emulator, id);
            }
        }
    }
}

#[test]
fn process_with_a_wrong_clock_for_days_refreshes_once_a_day() {
    for off_ms in [YEAR_MS, -YEAR_MS] {
        for restarts in [false, true] {
            let fixture = Fixture::new(Kind::Sqlite);
            fixture.clock.set_wall_forward(off_ms);
            let mut abi = fixture.open();
            let company = abi.connect_company(&fixture.emulator);
            for hours in 1..=96 {
                fixture.pass(Duration::from_secs(3_600));
                if restarts && hours % 5 == 0 {
                    abi = fixture.open();
                }
                abi.live_token(&fixture.emulator, &company);
            }
            let refreshes = fixture.emulator.refreshes();
            assert!((3..=5).contains(&refreshes), "{off_ms}, restarts: {restarts}: {refreshes}");
        }
    }
}

#[test]
fn token_that_expired_while_the_machine_slept_is_refreshed_at_once() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        let (company, location) = (abi.connect_company(&fixture.emulator), fixture.location(0));
        abi.live_token(&fixture.emulator, &location);
        for _ in 0..2 {
            // The monotonic clock stands still meanwhile.
            fixture.emulator.clock().advance(DAY);
            fixture.clock.sleep(DAY);
            for id in [&location, &company] {
                abi.live_token(&fixture.emulator, id);
            }
        }
        fixture.emulator.clock().advance(DAY);
        fixture.clock.sleep(DAY);
        assert_eq!(maintained(&abi), 2, "{kind:?}");
    }
}

#[test]
fn token_imported_with_an_expiry_years_ahead_is_refreshed_within_a_day() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        for restarted in [false, true] {
            if restarted && kind == Kind::Memory {
                continue;
            }
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            let company = fixture.company();
            let mut answer =
                fixture::saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
            answer["expiresAt"] = json!(fixture.emulator.clock().now_ms() + 3 * YEAR_MS);
            assert_eq!(abi.tokens_import(json!({"tokens": [answer]})).ok()["imported"], 1);
            let abi = if restarted { fixture.open() } else { abi };
            for _ in 0..3 {
                abi.live_token(&fixture.emulator, &company);
                fixture.pass(DAY + Duration::from_secs(1));
            }
        }
    }
}

#[test]
fn list_of_a_token_granted_in_the_future_is_the_same_in_every_store() {
    let lists = [Kind::Memory, Kind::Sqlite].map(|kind| {
        let (fixture, abi) = granted_while_off_by(kind, YEAR_MS);
        let item = abi.listed(&fixture.company());
        (item["state"].clone(), item["refreshable"].clone())
    });
    assert_eq!(lists[0], lists[1]);
    assert_eq!(lists[0].0, "ok");
}
