//! A deletion and an UNINSTALL persist despite refreshes and mints in progress, unsaved tokens, and
//! other clients.

mod fixture;
mod support;

use std::thread;
use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Decision, Emulator, Endpoint, Notice, Rule, Signature, Stage};
use serde_json::{Value, json};

use fixture::{DURABLE, EVERY, Fixture, Kind, refresh_unsaved, until};
use support::{Abi, call_concurrently, signed};

/// The way in which a token ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Deletion,
    Uninstall,
}

const ENDS: [End; 2] = [End::Deletion, End::Uninstall];

impl End {
    /// Ends the token. The result of the call depends on the case and is not checked.
    fn end(self, abi: &Abi, emulator: &Emulator, resource_id: &str) {
        match self {
            End::Deletion => drop(abi.token_delete(resource_id)),
            End::Uninstall => {
                let body = emulator.webhook(&Notice::Uninstall(resource_id.to_owned()));
                let headers = signed(emulator, body.as_bytes(), Signature::Ed25519);
                drop(abi.webhook_apply(body.as_bytes(), &headers));
            }
        }
    }
}

/// Later than all tokens granted so far, by all clocks.
fn a_moment_later(fixture: &Fixture) {
    if fixture.kind == Kind::Host {
        let now = fixture.emulator.clock().now_ms();
        until("the clock advances", || fixture.emulator.clock().now_ms() > now + 2);
    } else {
        fixture.pass(Duration::from_secs(1));
    }
}

fn held(abi: &Abi) -> Vec<Value> {
    let list = abi.tokens_list(json!({})).ok();
    list["items"].as_array().unwrap().iter().map(|item| item["resourceId"].clone()).collect()
}

/// Asserts that no call, maintenance pass or freed client restores the resource.
#[track_caller]
fn stays_away(fixture: &Fixture, clients: Vec<Abi>, resource_id: &str, what: &str) {
    if fixture.kind != Kind::Host {
        fixture.pass(Duration::from_secs(600));
    }
    for abi in &clients {
        assert!(!held(abi).contains(&resource_id.into()), "{what}: listed");
        // Another process than the deleting one may use a token in its memory until it is due, so
        // the store is checked first.
        let refreshed = abi.token_refresh(resource_id);
        assert_eq!(refreshed.0, Status::NotFound.code(), "{what}: {}", refreshed.1);
        assert_eq!(abi.access_token(resource_id).0, Status::NotFound.code(), "{what}: asked for");
        let _ = abi.tokens_maintain(json!({}), |_| true).ok();
        assert!(!held(abi).contains(&resource_id.into()), "{what}: listed after maintenance");
    }
    drop(clients);
    if fixture.kind != Kind::Memory {
        assert!(fixture.stored(resource_id).is_none(), "{what}: stored");
        assert!(
            !held(&fixture.open()).contains(&resource_id.into()),
            "{what}: listed at the next start"
        );
    }
}

/// A location that consented individually: without its company it cannot be minted.
fn connected(kind: Kind) -> (Fixture, Abi, String) {
    let fixture = Fixture::new(kind);
    let abi = fixture.open();
    let location = fixture.location(0);
    abi.connect(&fixture.emulator, Decision::Location(location.clone()));
    a_moment_later(&fixture);
    (fixture, abi, location)
}

#[test]
fn deletion_of_an_unsaved_token_persists_when_the_store_recovers() {
    for kind in DURABLE {
        for end in ENDS {
            let (fixture, abi, location) = connected(kind);
            refresh_unsaved(&fixture, &abi, &location);
            a_moment_later(&fixture);
            fixture.accept_saves();
            end.end(&abi, &fixture.emulator, &location);
            stays_away(&fixture, vec![abi], &location, &format!("{kind:?}, {end:?}"));
        }
    }
}

#[test]
fn deletion_while_the_store_fails_persists_or_is_reported_as_failed() {
    for kind in DURABLE {
        let (fixture, abi, location) = connected(kind);
        refresh_unsaved(&fixture, &abi, &location);
        a_moment_later(&fixture);
        let deleted = abi.token_delete(&location);
        let reported = deleted.0 == 0;
        if !reported {
            assert_eq!(deleted.fails(Status::Store)["retryable"], true, "{kind:?}");
        }
        fixture.accept_saves();
        if !reported {
            abi.token_delete(&location).ok();
        }
        stays_away(&fixture, vec![abi], &location, &format!("{kind:?}, reported: {reported}"));
    }
}

#[test]
fn deletion_of_an_unknown_token_says_that_nothing_was_deleted() {
    for kind in DURABLE {
        let (_fixture, abi, _) = connected(kind);
        let error = abi.token_delete("unknown").fails(Status::NotFound).clone();
        assert_eq!(error["message"], "no token is stored for unknown; nothing was deleted");
        assert_eq!(error["resourceId"], "unknown");
        assert!(!error["help"].as_str().unwrap().contains("consent"), "{error}");
    }
}

/// A client whose unsaved token was ended by another client, which is returned last.
fn ended_elsewhere(kind: Kind, end: End) -> (Fixture, Abi, String, Abi) {
    let (fixture, abi, location) = connected(kind);
    refresh_unsaved(&fixture, &abi, &location);
    a_moment_later(&fixture);
    fixture.accept_saves();
    let other = fixture.open();
    end.end(&other, &fixture.emulator, &location);
    (fixture, abi, location, other)
}

#[test]
fn deletion_by_another_client_discards_an_unsaved_token() {
    for kind in DURABLE {
        for end in ENDS {
            let (fixture, abi, location, other) = ended_elsewhere(kind, end);
            // The first call of its owner may still return it from memory, but no call may save it.
            let _ = abi.tokens_list(json!({})).ok();
            assert!(fixture.stored(&location).is_none(), "{kind:?}, {end:?}");
            stays_away(&fixture, vec![other, abi], &location, &format!("{kind:?}, {end:?}"));
        }
    }
}

#[test]
fn deletion_by_another_client_persists_when_the_client_with_the_unsaved_token_is_freed() {
    for kind in DURABLE {
        for end in ENDS {
            let (fixture, abi, location, other) = ended_elsewhere(kind, end);
            drop(abi);
            stays_away(&fixture, vec![other], &location, &format!("{kind:?}, {end:?}"));
        }
    }
}

#[test]
fn deletion_during_a_refresh_persists() {
    for kind in EVERY {
        for end in ENDS {
            for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
                for second in [false, true] {
                    if second && kind == Kind::Memory {
                        continue;
                    }
                    let (fixture, abi, location) = connected(kind);
                    let other = second.then(|| fixture.open());
                    let hold = fixture.emulator.hold(Rule::on(Endpoint::Token), stage);
                    thread::scope(|scope| {
                        let refresh = scope.spawn(|| abi.token_refresh(&location));
                        hold.wait_for(1);
                        let ending = other.as_ref().unwrap_or(&abi);
                        call_concurrently(
                            1,
                            || end.end(ending, &fixture.emulator, &location),
                            || hold.release(),
                        );
                        drop(refresh.join());
                    });
                    let clients = [Some(abi), other].into_iter().flatten().collect();
                    let what = format!("{kind:?}, {end:?}, {stage:?}, by another client: {second}");
                    stays_away(&fixture, clients, &location, &what);
                }
            }
        }
    }
}

#[test]
fn deletion_during_a_refresh_persists_while_every_store_call_fails() {
    for kind in DURABLE {
        for end in ENDS {
            let (fixture, abi, location) = connected(kind);
            let hold = fixture.emulator.hold(Rule::on(Endpoint::Token), Stage::AfterProcessing);
            thread::scope(|scope| {
                let refresh = scope.spawn(|| abi.token_refresh(&location));
                hold.wait_for(1);
                end.end(&abi, &fixture.emulator, &location);
                fixture.refuse_all(true);
                hold.release();
                assert_ne!(refresh.join().unwrap().0, 0, "{kind:?}, {end:?}");
            });
            assert_ne!(abi.access_token(&location).0, 0, "{kind:?}, {end:?}");
            assert_eq!(abi.stats()["tokens"]["unsaved"], 0, "{kind:?}, {end:?}");
            fixture.refuse_all(false);
            stays_away(&fixture, vec![abi], &location, &format!("{kind:?}, {end:?}"));
        }
    }
}

/// The location is not held any more, though its company could mint it.
#[track_caller]
fn is_not_held(abi: &Abi, fixture: &Fixture, location: &str, what: &str) {
    assert!(!held(abi).contains(&location.into()), "{what}");
    let _ = abi.tokens_maintain(json!({}), |_| true).ok();
    assert!(!held(abi).contains(&location.into()), "{what}: after maintenance");
    if fixture.kind != Kind::Memory {
        assert!(fixture.stored(location).is_none(), "{what}: stored");
    }
}

#[test]
fn bulk_mint_reports_a_location_that_was_deleted_meanwhile_as_failed() {
    for kind in EVERY {
        for end in ENDS {
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            let (company, location) = (abi.connect_company(&fixture.emulator), fixture.location(0));
            a_moment_later(&fixture);
            let rule = Rule::on(Endpoint::LocationToken);
            let hold = fixture.emulator.hold(rule, Stage::AfterProcessing);
            let minted = thread::scope(|scope| {
                let params = json!({"companyId": company, "locationIds": [location]});
                let mint = scope.spawn(|| abi.tokens_mint(params, |_| true));
                hold.wait_for(1);
                end.end(&abi, &fixture.emulator, &location);
                hold.release();
                mint.join().unwrap()
            });
            let report = minted.ok();
            assert_eq!((&report["total"], &report["minted"]), (&json!(1), &json!(0)), "{kind:?}");
            let failed = &report["failed"][0];
            assert_eq!(failed["locationId"], location.as_str(), "{kind:?}, {end:?}");
            assert_eq!(
                failed["error"]["status"], "GHL_ERR_NOT_FOUND",
                "{kind:?}, {end:?}: {failed}"
            );
            is_not_held(&abi, &fixture, &location, &format!("{kind:?}, {end:?}"));
        }
    }
}

#[test]
fn deletion_during_a_first_mint_persists() {
    for kind in EVERY {
        for end in ENDS {
            for many in [false, true] {
                for second in [false, true] {
                    if second && kind == Kind::Memory {
                        continue;
                    }
                    let fixture = Fixture::new(kind);
                    let abi = fixture.open();
                    let (company, location) =
                        (abi.connect_company(&fixture.emulator), fixture.location(0));
                    let other = second.then(|| fixture.open());
                    a_moment_later(&fixture);
                    let hold = fixture
                        .emulator
                        .hold(Rule::on(Endpoint::LocationToken), Stage::AfterProcessing);
                    thread::scope(|scope| {
                        let mint = scope.spawn(|| {
                            if many {
                                let params =
                                    json!({"companyId": company, "locationIds": [location]});
                                drop(abi.tokens_mint(params, |_| true));
                            } else {
                                drop(abi.access_token(&location));
                            }
                        });
                        hold.wait_for(1);
                        let ending = other.as_ref().unwrap_or(&abi);
                        call_concurrently(
                            1,
                            || end.end(ending, &fixture.emulator, &location),
                            || hold.release(),
                        );
                        mint.join().unwrap();
                    });
                    let what =
                        format!("{kind:?}, {end:?}, many: {many}, by another client: {second}");
                    is_not_held(&abi, &fixture, &location, &what);
                }
            }
        }
    }
}

#[test]
fn uninstall_of_a_company_during_mints_of_its_locations_persists() {
    for kind in EVERY {
        for second in [false, true] {
            if second && kind == Kind::Memory {
                continue;
            }
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            let (company, locations) =
                (abi.connect_company(&fixture.emulator), fixture.emulator.location_ids());
            let other = second.then(|| fixture.open());
            a_moment_later(&fixture);
            let hold =
                fixture.emulator.hold(Rule::on(Endpoint::LocationToken), Stage::AfterProcessing);
            thread::scope(|scope| {
                let params = json!({"companyId": company, "locationIds": locations});
                let mint = scope.spawn(|| drop(abi.tokens_mint(params, |_| true)));
                hold.wait_for(2);
                let ending = other.as_ref().unwrap_or(&abi);
                call_concurrently(
                    1,
                    || End::Uninstall.end(ending, &fixture.emulator, &company),
                    || hold.release(),
                );
                mint.join().unwrap();
            });
            assert_eq!(held(&abi), [""; 0], "{kind:?}, by another client: {second}");
            assert_eq!(held(other.as_ref().unwrap_or(&abi)), [""; 0], "{kind:?}");
        }
    }
}

#[test]
fn record_versions_continue_after_a_deletion() {
    for kind in DURABLE {
        for end in ENDS {
            let (fixture, abi, location) = connected(kind);
            let mut last = 0;
            for round in 0..3 {
                for _ in 0..2 {
                    abi.token_refresh(&location).ok();
                }
                let version = fixture.stored(&location).unwrap().0;
                assert!(version > last, "{kind:?}, {end:?}, {round}: {version} after {last}");
                last = version;
                a_moment_later(&fixture);
                end.end(&abi, &fixture.emulator, &location);
                assert!(fixture.stored(&location).is_none());
                a_moment_later(&fixture);
                // The next token is granted through another client, which has not seen this.
                let next = fixture.open();
                next.connect(&fixture.emulator, Decision::Location(location.clone()));
                let version = fixture.stored(&location).unwrap().0;
                assert!(version > last, "{kind:?}, {end:?}, {round}: {version} after {last}");
                last = version;
                abi.live_token(&fixture.emulator, &location);
            }
        }
    }
}

#[test]
fn versions_of_minted_and_imported_records_continue_after_a_deletion() {
    for kind in DURABLE {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        abi.connect_company(&fixture.emulator);
        let location = fixture.location(0);
        let mut last = 0;
        for round in 0..4 {
            if round % 2 == 0 {
                abi.live_token(&fixture.emulator, &location);
            } else {
                let token =
                    json!({"accessToken": "a", "locationId": location, "expiresIn": 80_000});
                assert_eq!(
                    abi.tokens_import(json!({"tokens": [token]})).ok()["imported"],
                    1,
                    "{kind:?}"
                );
            }
            let version = fixture.stored(&location).unwrap().0;
            assert!(version > last, "{kind:?}, {round}: {version} after {last}");
            last = version;
            abi.token_delete(&location).ok();
        }
    }
}

#[test]
fn unsaved_token_does_not_overwrite_the_token_of_a_new_installation() {
    for kind in DURABLE {
        for end in ENDS {
            let fixture = Fixture::new(kind);
            let (abi, location) = (fixture.open(), fixture.location(0));
            // The first save of the record is refused: it would be version 1.
            let redirect_url = abi.consent(&fixture.emulator, Decision::Location(location.clone()));
            fixture.refuse_saves();
            abi.authorization_complete(json!({"redirectUrl": redirect_url})).ok();
            fixture.accept_saves();
            a_moment_later(&fixture);
            let other = fixture.open();
            end.end(&other, &fixture.emulator, &location);
            a_moment_later(&fixture);
            other.connect(&fixture.emulator, Decision::Location(location.clone()));
            let new = other.live_token(&fixture.emulator, &location);
            let _ = abi.tokens_list(json!({})).ok();
            assert!(fixture.is_stored(&location, &new), "{kind:?}, {end:?}");
            drop(abi);
            assert!(fixture.is_stored(&location, &new), "{kind:?}, {end:?}: when it is freed");
            other.token_refresh(&location).ok();
            fixture.open().live_token(&fixture.emulator, &location);
        }
    }
}
