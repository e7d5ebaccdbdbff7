//! Unsaved tokens: the save is retried until it succeeds, and a loss is reported.

mod fixture;
mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ghl_oauth::Status;
use ghl_oauth_emulator::Decision;
use serde_json::{Value, json};

use fixture::{DURABLE, Fixture, Kind, refresh_unsaved, until};
use support::{Abi, sent};

/// A connected company whose last refresh could not be saved, and the unsaved token.
fn unsaved(kind: Kind) -> (Fixture, Abi, String, String) {
    unsaved_within(kind, 30_000)
}

/// The same with this `timeouts.totalMs`.
fn unsaved_within(kind: Kind, total_ms: u64) -> (Fixture, Abi, String, String) {
    let fixture = Fixture::new(kind);
    fixture.emulator.set_reuse_window_seconds(0);
    let abi = fixture.open_with(json!({"timeouts": {"totalMs": total_ms}}));
    let company = abi.connect_company(&fixture.emulator);
    refresh_unsaved(&fixture, &abi, &company);
    let token = abi.live_token(&fixture.emulator, &company);
    assert!(!fixture.is_stored(&company, &token));
    sent(&fixture.emulator);
    (fixture, abi, company, token)
}

/// Longer than any backoff between two saves.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn unsaved_token_is_saved_by_the_next_call_for_it_when_the_store_recovers() {
    let (fixture, abi, company, token) = unsaved(Kind::Sqlite);
    fixture.pass(LONG);
    assert_eq!(abi.live_token(&fixture.emulator, &company), token);
    assert!(!fixture.is_stored(&company, &token), "the store still fails");
    fixture.accept_saves();
    fixture.pass(LONG);
    assert_eq!(abi.live_token(&fixture.emulator, &company), token);
    assert!(fixture.is_stored(&company, &token));
    assert_eq!(fixture.open().live_token(&fixture.emulator, &company), token);
    assert_eq!(sent(&fixture.emulator), [""; 0]);
}

#[test]
fn unsaved_token_is_saved_within_seconds_by_calls_that_only_read_it() {
    for kind in DURABLE {
        let (fixture, abi, company, token) = unsaved(kind);
        fixture.accept_saves();
        until("the token is saved", || {
            assert_eq!(abi.access_token(&company).text(), token);
            fixture.is_stored(&company, &token)
        });
        assert_eq!(abi.listed(&company)["state"], "ok");
    }
}

#[test]
fn unsaved_token_is_saved_by_every_call_that_uses_its_resource() {
    type Touch = fn(&Abi, &str);
    let touches: [(&str, Touch); 7] =
        [
            ("list", |abi, _| drop(abi.tokens_list(json!({})).ok())),
            ("export", |abi, _| drop(abi.tokens_export(json!({})).ok())),
            ("maintain", |abi, _| drop(abi.tokens_maintain(json!({}), |_| true).ok())),
            ("refresh", |abi, company| drop(abi.token_refresh(company).ok())),
            ("mint", |abi, company| {
                let params = json!({"companyId": company, "locationIds": ["nowhere"]});
                drop(abi.tokens_mint(params, |_| true));
            }),
            ("request", |abi, company| {
                drop(abi.request(
                    json!({"resourceId": company, "method": "GET", "path": "/locations/x"}),
                ))
            }),
            ("installed locations", |abi, company| {
                drop(abi.oauth_installed_locations(json!({"companyId": company})).ok())
            }),
        ];
    for (name, touch) in touches {
        let (fixture, abi, company, token) = unsaved(Kind::Sqlite);
        fixture.accept_saves();
        fixture.pass(LONG);
        touch(&abi, &company);
        let (_, stored) = fixture.stored(&company).unwrap();
        let token = if name == "refresh" { abi.access_token(&company).text() } else { token };
        assert!(stored.contains(&token), "{name}");
    }
}

#[test]
fn unsaved_token_is_saved_when_its_client_is_freed() {
    for kind in DURABLE {
        let (fixture, abi, company, token) = unsaved(kind);
        fixture.accept_saves();
        drop(abi);
        assert!(fixture.is_stored(&company, &token), "{kind:?}");
        let next = fixture.open();
        assert_eq!(next.live_token(&fixture.emulator, &company), token, "{kind:?}");
        next.token_refresh(&company).ok();
        assert_eq!(sent(&fixture.emulator), ["refresh 200"], "{kind:?}");
    }
}

#[test]
fn unsaved_consent_and_mint_are_saved_when_their_client_is_freed() {
    for kind in DURABLE {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        let company = abi.connect_company(&fixture.emulator);
        let (minted, consented) = (fixture.location(0), fixture.location(1));
        let redirect_url = abi.consent(&fixture.emulator, Decision::Location(consented.clone()));
        fixture.refuse_saves();
        abi.authorization_complete(json!({"redirectUrl": redirect_url, "allowMissingState": true}))
            .ok();
        let tokens = [&minted, &consented].map(|id| abi.live_token(&fixture.emulator, id));
        assert!(fixture.stored(&minted).is_none() && fixture.stored(&consented).is_none());
        fixture.accept_saves();
        drop(abi);
        let next = fixture.open();
        sent(&fixture.emulator);
        for (id, token) in [&minted, &consented].into_iter().zip(tokens) {
            assert_eq!(next.live_token(&fixture.emulator, id), token, "{kind:?}");
        }
        next.live_token(&fixture.emulator, &company);
        assert_eq!(sent(&fixture.emulator), [""; 0], "{kind:?}");
    }
}

#[test]
fn freeing_a_client_whose_store_still_fails_returns_soon() {
    for kind in DURABLE {
        let (fixture, abi, company, token) = unsaved_within(kind, 1_000);
        let began = Instant::now();
        drop(abi);
        assert!(began.elapsed() < Duration::from_secs(8), "{kind:?}: {:?}", began.elapsed());
        assert!(!fixture.is_stored(&company, &token));
    }
    // The same while another connection holds the write lock of the database.
    let (fixture, abi, ..) = unsaved_within(Kind::Sqlite, 1_000);
    fixture.accept_saves();
    let foreign = fixture.database();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    drop(abi);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    drop(foreign);
}

#[test]
fn unsaved_token_is_reported_by_maintenance_while_the_store_fails() {
    for kind in DURABLE {
        let (fixture, abi, company, token) = unsaved(kind);
        for _ in 0..2 {
            let report = abi.tokens_maintain(json!({}), |_| true).ok();
            let [failed] = &report["failed"].as_array().unwrap()[..] else {
                panic!("{kind:?}: one failed: {report}")
            };
            assert_eq!(failed["resourceId"], company.as_str(), "{kind:?}");
            assert_eq!(failed["error"]["status"], "GHL_ERR_STORE", "{kind:?}: {failed}");
            assert!(
                failed["error"]["message"].as_str().unwrap().contains("full"),
                "{kind:?}: {failed}"
            );
            assert!(!failed.to_string().contains(&token));
        }
        let report = abi.tokens_maintain(json!({"companyId": company}), |_| true).ok();
        assert_eq!(report["failed"][0]["resourceId"], company.as_str(), "{kind:?}: {report}");
        assert_eq!(abi.listed(&company)["state"], "unsaved", "{kind:?}");
        assert_eq!(abi.stats()["tokens"]["unsaved"], 1, "{kind:?}");
        fixture.accept_saves();
        let report = abi.tokens_maintain(json!({}), |_| true).ok();
        assert_eq!(report["failed"], json!([]), "{kind:?}");
        assert!(fixture.is_stored(&company, &token), "{kind:?}");
        assert_eq!(abi.listed(&company)["state"], "ok", "{kind:?}");
        assert_eq!(abi.stats()["tokens"]["unsaved"], 0, "{kind:?}");
    }
}

#[test]
fn unsaved_token_is_not_offered_to_a_failing_store_on_every_call() {
    let (fixture, abi, company, token) = unsaved(Kind::Host);
    let before = fixture.host.saves.load(Ordering::SeqCst);
    let began = Instant::now();
    for _ in 0..2_000 {
        assert_eq!(abi.access_token(&company).text(), token);
    }
    let offers = fixture.host.saves.load(Ordering::SeqCst) - before;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!(offers <= 10 * seconds, "{offers} offers in {seconds} s");
}

#[test]
fn token_refreshed_twice_while_the_store_failed_is_saved_once_with_the_latest_value() {
    for kind in DURABLE {
        let (fixture, abi, company, first) = unsaved(kind);
        // Without an intent in the store no refresh is sent, so the first token stays.
        let second = match abi.token_refresh(&company) {
            support::Outcome(0, _) => abi.live_token(&fixture.emulator, &company),
            refused => {
                refused.fails(Status::Store);
                first
            }
        };
        fixture.accept_saves();
        let _ = abi.tokens_list(json!({})).ok();
        assert!(fixture.is_stored(&company, &second), "{kind:?}");
        let report: Value = abi.tokens_maintain(json!({}), |_| true).ok();
        assert_eq!(report["failed"], json!([]), "{kind:?}");
        drop(abi);
        let next = fixture.open();
        next.token_refresh(&company).ok();
        next.live_token(&fixture.emulator, &company);
    }
}

#[test]
fn unsaved_token_of_one_client_yields_to_a_newer_token_of_another() {
    for kind in DURABLE {
        let (fixture, abi, company, _) = unsaved(kind);
        fixture.accept_saves();
        let other = fixture.open();
        other.connect_company(&fixture.emulator);
        let newer = other.live_token(&fixture.emulator, &company);
        let _ = abi.tokens_list(json!({})).ok();
        assert!(fixture.is_stored(&company, &newer), "{kind:?}: after a new consent");
        drop(abi);
        assert!(fixture.is_stored(&company, &newer), "{kind:?}: not when it is freed either");
        fixture.open().token_refresh(&company).ok();
    }
}

#[test]
fn later_of_two_unsaved_consents_wins_in_either_order_of_their_saves() {
    for kind in DURABLE {
        for later_is_saved_first in [false, true] {
            let fixture = Fixture::new(kind);
            let (earlier, later) = (fixture.open(), fixture.open());
            let company = earlier.connect_company(&fixture.emulator);
            fixture.refuse_saves();
            earlier.connect_company(&fixture.emulator);
            if kind != Kind::Host {
                fixture.pass(Duration::from_secs(60));
            }
            later.connect_company(&fixture.emulator);
            let newest = later.access_token(&company).text();
            fixture.accept_saves();
            for abi in if later_is_saved_first { [later, earlier] } else { [earlier, later] } {
                drop(abi);
            }
            let what = format!("{kind:?}, the later first: {later_is_saved_first}");
            assert!(fixture.is_stored(&company, &newest), "{what}");
        }
    }
}

#[test]
fn import_beside_an_unsaved_consent_is_compared_with_the_stored_token() {
    for kind in DURABLE {
        let fixture = Fixture::new(kind);
        fixture.emulator.set_reuse_window_seconds(0);
        let (abi, other) = (fixture.open(), fixture.open());
        let company = other.connect_company(&fixture.emulator);
        fixture.refuse_all(true);
        abi.connect_company(&fixture.emulator);
        fixture.refuse_all(false);
        other.token_refresh(&company).ok();
        let exported = other.tokens_export(json!({})).ok();
        other.token_refresh(&company).ok();
        let newest = other.access_token(&company).text();
        assert_eq!(abi.tokens_import(exported).ok()["imported"], 0, "{kind:?}: it is spent");
        assert!(fixture.is_stored(&company, &newest), "{kind:?}");
        drop(abi);
        let next = fixture.open();
        next.token_refresh(&company).ok();
        next.live_token(&fixture.emulator, &company);
    }
}

#[test]
fn unsaved_token_replaces_the_dead_connection_that_another_client_recorded() {
    for kind in DURABLE {
        for freed in [false, true] {
            let (fixture, abi, company, token) = unsaved(kind);
            fixture.accept_saves();
            // The other client knows only the older refresh token, which the server refuses as
            // spent.
            let other = fixture.open();
            assert_ne!(other.token_refresh(&company).0, 0, "{kind:?}");
            if freed {
                drop(abi);
            } else {
                let _ = abi.tokens_list(json!({})).ok();
            }
            assert!(fixture.is_stored(&company, &token), "{kind:?}, freed: {freed}");
            assert_eq!(other.listed(&company)["state"], "ok", "{kind:?}, freed: {freed}");
            other.token_refresh(&company).ok();
            other.live_token(&fixture.emulator, &company);
        }
    }
}

#[test]
fn unsaved_token_replayed_to_another_client_inside_the_window_loses_no_connection() {
    for kind in DURABLE {
        for rotated_again in [false, true] {
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            let company = abi.connect_company(&fixture.emulator);
            refresh_unsaved(&fixture, &abi, &company);
            fixture.accept_saves();
            let other = fixture.open();
            other.token_refresh(&company).ok();
            fixture.emulator.set_reuse_window_seconds(0);
            if rotated_again {
                other.token_refresh(&company).ok();
            }
            let _ = abi.tokens_list(json!({})).ok();
            for client in [&abi, &other, &fixture.open()] {
                client.token_refresh(&company).ok();
                client.live_token(&fixture.emulator, &company);
            }
            drop(abi);
            fixture.open().token_refresh(&company).ok();
        }
    }
}
