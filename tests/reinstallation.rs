//! INSTALL and UNINSTALL of several installations of the same resource, some of them lost, late,
//! undated or repeated.

mod fixture;
mod support;

use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Decision, Notice, Options, Signature};
use serde_json::{Value, json};

use fixture::{Fixture, Kind};
use support::{Abi, DAY, notice_body, sent, signed};

const KINDS: [Kind; 2] = [Kind::Memory, Kind::Sqlite];

#[track_caller]
fn apply(fixture: &Fixture, abi: &Abi, body: &str) -> Value {
    abi.webhook_apply(
        body.as_bytes(),
        &signed(&fixture.emulator, body.as_bytes(), Signature::Ed25519),
    )
    .ok()
}

#[track_caller]
fn tell(fixture: &Fixture, abi: &Abi, notice: &Notice) -> Value {
    apply(fixture, abi, &fixture.emulator.webhook(notice))
}

fn install(id: &str) -> Notice {
    Notice::Install(id.to_owned())
}

fn uninstall(id: &str) -> Notice {
    Notice::Uninstall(id.to_owned())
}

fn is_held(abi: &Abi, id: &str) -> bool {
    let list = abi.tokens_list(json!({})).ok();
    list["items"].as_array().unwrap().iter().any(|item| item["resourceId"] == id)
}

const MINUTE: Duration = Duration::from_secs(60);

/// A company or location for each way in which an installation begins.
fn beginnings(fixture: &Fixture, abi: &Abi) -> Vec<(&'static str, String)> {
    let (minted, consented) = (fixture.location(0), fixture.location(1));
    let company = abi.connect_company(&fixture.emulator);
    abi.live_token(&fixture.emulator, &minted);
    abi.connect(&fixture.emulator, Decision::Location(consented.clone()));
    vec![("minted", minted), ("consented", consented), ("the company", company)]
}

#[test]
fn late_uninstall_ends_its_installation_despite_a_refresh_with_a_later_timestamp() {
    for kind in KINDS {
        for which in 0..3 {
            for refreshes in [1, 3] {
                let fixture = Fixture::new(kind);
                let abi = fixture.open();
                let (what, id) = beginnings(&fixture, &abi).swap_remove(which);
                fixture.pass(MINUTE);
                let gone = fixture.emulator.webhook(&uninstall(&id));
                for _ in 0..refreshes {
                    fixture.pass(MINUTE);
                    abi.token_refresh(&id).ok();
                }
                fixture.pass(MINUTE);
                let applied = apply(&fixture, &abi, &gone);
                assert_eq!(applied["applied"], true, "{kind:?}, {what}: {applied}");
                assert!(!is_held(&abi, &id), "{kind:?}, {what}");
                if what == "the company" {
                    abi.access_token(&id).fails(Status::NotFound);
                }
            }
        }
    }
}

#[test]
fn uninstall_older_than_the_installation_is_ignored_after_any_number_of_refreshes() {
    for kind in KINDS {
        for which in 0..3 {
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            let gone = [fixture.location(0), fixture.location(1), fixture.company()]
                .map(|id| fixture.emulator.webhook(&uninstall(&id)));
            fixture.pass(MINUTE);
            let (what, id) = beginnings(&fixture, &abi).swap_remove(which);
            for refreshes in 0..3 {
                let applied = apply(&fixture, &abi, &gone[which]);
                assert_eq!(applied["applied"], false, "{kind:?}, {what}, {refreshes}: {applied}");
                abi.live_token(&fixture.emulator, &id);
                fixture.pass(MINUTE);
                abi.token_refresh(&id).ok();
            }
        }
    }
}

#[test]
fn uninstall_after_a_restart_is_compared_with_the_start_of_the_installation() {
    let fixture = Fixture::new(Kind::Sqlite);
    let location = fixture.location(0);
    fixture.open().connect(&fixture.emulator, Decision::Location(location.clone()));
    let early = fixture.emulator.clock().now_ms() - 60_000;
    fixture.pass(MINUTE);
    let gone = fixture.emulator.webhook(&uninstall(&location));
    fixture.pass(MINUTE);
    fixture.open().token_refresh(&location).ok();
    let abi = fixture.open();
    let before =
        notice_body(&fixture.emulator, &uninstall(&location), json!({"timestamp": iso8601(early)}));
    assert_eq!(apply(&fixture, &abi, &before)["applied"], false);
    assert_eq!(apply(&fixture, &abi, &gone)["applied"], true);
    assert!(!is_held(&fixture.open(), &location));
}

/// A time in the format of the API, taken from a webhook of the emulator.
fn iso8601(ms: i64) -> String {
    let emulator = support::emulator(1);
    emulator.clock().set_ms(ms);
    let body: Value =
        serde_json::from_str(&emulator.webhook(&install(&emulator.location_ids()[0]))).unwrap();
    body["timestamp"].as_str().unwrap().to_owned()
}

#[test]
fn two_uninstalls_with_different_ids_end_two_installations() {
    for kind in KINDS {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        let location = fixture.location(0);
        abi.connect_company(&fixture.emulator);
        for round in 0..3 {
            fixture.emulator.install_location(&location);
            tell(&fixture, &abi, &install(&location));
            abi.live_token(&fixture.emulator, &location);
            fixture.pass(MINUTE);
            fixture.emulator.uninstall(&location);
            assert_eq!(
                tell(&fixture, &abi, &uninstall(&location))["applied"],
                true,
                "{kind:?}, {round}"
            );
            assert!(!is_held(&abi, &location), "{kind:?}, {round}");
            fixture.pass(MINUTE);
        }
    }
}

#[test]
fn install_after_a_lost_uninstall_replaces_the_dead_token() {
    for kind in KINDS {
        for automatic in [false, true] {
            for restarted in [false, true] {
                if restarted && kind == Kind::Memory {
                    continue;
                }
                let fixture = Fixture::new(kind);
                let abi = fixture.open();
                let location = fixture.location(0);
                abi.connect_company(&fixture.emulator);
                let old = abi.live_token(&fixture.emulator, &location);
                let other = abi.live_token(&fixture.emulator, &fixture.location(1));
                fixture.pass(MINUTE);
                fixture.emulator.uninstall(&location);
                fixture.pass(MINUTE);
                fixture.emulator.install_location(&location);
                assert!(!fixture.emulator.access_token_is_live(&old));
                let abi = if restarted { fixture.open() } else { abi };
                sent(&fixture.emulator);
                let notice = if automatic {
                    Notice::AutomaticInstall(location.clone())
                } else {
                    install(&location)
                };
                let installed = fixture.emulator.webhook(&notice);
                assert_eq!(apply(&fixture, &abi, &installed)["applied"], true);
                assert_eq!(
                    sent(&fixture.emulator),
                    ["mint 200"],
                    "{kind:?}, automatic: {automatic}"
                );
                let new = abi.live_token(&fixture.emulator, &location);
                assert_ne!(new, old);
                // The vendor repeats the INSTALL, and the lost UNINSTALL arrives: neither has an
                // effect.
                apply(&fixture, &abi, &installed);
                fixture.pass(MINUTE);
                apply(&fixture, &abi, &installed);
                assert_eq!(abi.live_token(&fixture.emulator, &location), new);
                assert_eq!(abi.live_token(&fixture.emulator, &fixture.location(1)), other);
                assert_eq!(sent(&fixture.emulator), [""; 0]);
            }
        }
    }
}

#[test]
fn install_after_a_lost_uninstall_replaces_a_token_that_was_refreshed_before_the_uninstall() {
    for kind in KINDS {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        let location = fixture.location(0);
        abi.connect_company(&fixture.emulator);
        abi.live_token(&fixture.emulator, &location);
        fixture.pass(MINUTE);
        abi.token_refresh(&location).ok();
        fixture.pass(MINUTE);
        fixture.emulator.uninstall(&location);
        fixture.emulator.install_location(&location);
        let installed = fixture.emulator.webhook(&install(&location));
        // The delivery is late.
        fixture.pass(MINUTE);
        apply(&fixture, &abi, &installed);
        abi.live_token(&fixture.emulator, &location);
    }
}

#[test]
fn install_for_another_company_is_minted_from_that_company() {
    for kind in KINDS {
        let fixture = Fixture::of(
            kind,
            Options { companies: 2, locations: 1, rate_limit: None, ..Options::default() },
        );
        let [old_company, new_company] =
            <[String; 2]>::try_from(fixture.emulator.company_ids()).unwrap();
        let location = fixture.location(1);
        let abi = fixture.open();
        for company in [&old_company, &new_company] {
            abi.connect(&fixture.emulator, Decision::Company(company.clone()));
        }
        // Until now it belonged to another agency, and its token there looks valid.
        let entry = json!({
            "accessToken": "token of the former agency", "refreshToken": "of the former agency",
            "locationId": location, "companyId": old_company, "userType": "Location",
            "expiresAt": fixture.emulator.clock().now_ms() + 86_000_000,
        });
        assert_eq!(abi.tokens_import(json!({"tokens": [entry]})).ok()["imported"], 1);
        assert_eq!(abi.access_token(&location).text(), "token of the former agency");
        // The INSTALL has the timestamp of that token, so only the company distinguishes them.
        let applied = tell(&fixture, &abi, &install(&location));
        assert_eq!(applied["applied"], true, "{kind:?}: {applied}");
        abi.live_token(&fixture.emulator, &location);
        assert_eq!(abi.listed(&location)["companyId"], new_company.as_str(), "{kind:?}");
        fixture.pass(DAY);
        abi.live_token(&fixture.emulator, &location);
        // The uninstall of the former company does not affect it any more.
        fixture.pass(MINUTE);
        tell(&fixture, &abi, &uninstall(&old_company));
        assert!(is_held(&abi, &location), "{kind:?}");
    }
}

#[test]
fn install_dated_after_the_own_consent_of_a_location_leaves_that_consent_in_force() {
    for kind in KINDS {
        for is_dead in [false, true] {
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            abi.connect_company(&fixture.emulator);
            let location = fixture.location(0);
            abi.connect(&fixture.emulator, Decision::Location(location.clone()));
            if is_dead {
                fixture.emulator.revoke_refresh_token(&location);
            }
            // The vendor's clock is three seconds ahead, or its webhook that much later.
            let timestamp = fixture.emulator.clock().now_ms() + 3_000;
            let body = notice_body(
                &fixture.emulator,
                &install(&location),
                json!({"timestamp": timestamp}),
            );
            fixture.pass(MINUTE);
            assert_eq!(apply(&fixture, &abi, &body)["applied"], true, "{kind:?}");
            abi.live_token(&fixture.emulator, &location);
            let export = abi.tokens_export(json!({})).ok();
            let tokens = export["tokens"].as_array().unwrap();
            let token = tokens.iter().find(|token| token["locationId"] == location.as_str());
            let is_own = token.unwrap()["ownConsent"] == true;
            assert_eq!(is_own, !is_dead, "{kind:?}, the refresh token is dead: {is_dead}");
        }
    }
}

#[test]
fn install_for_several_locations_mints_each_of_them() {
    for kind in KINDS {
        for named_once in [true, false] {
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            abi.connect_company(&fixture.emulator);
            let locations = fixture.emulator.location_ids();
            let mut changes = json!({"locationIds": locations, "locationId": null});
            if !named_once {
                changes["locationId"] = json!(locations[0]);
            }
            let applied = apply(
                &fixture,
                &abi,
                &notice_body(&fixture.emulator, &install(&locations[0]), changes),
            );
            assert_eq!(applied["applied"], true, "{kind:?}");
            sent(&fixture.emulator);
            for location in &locations {
                abi.live_token(&fixture.emulator, location);
            }
            assert_eq!(sent(&fixture.emulator), [""; 0], "{kind:?}: minted with the webhook");
        }
    }
}

#[test]
fn uninstall_and_reinstall_webhooks_in_any_order_end_with_a_live_token() {
    for kind in KINDS {
        for late_uninstall in [false, true] {
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            let location = fixture.location(0);
            abi.connect_company(&fixture.emulator);
            abi.live_token(&fixture.emulator, &location);
            fixture.pass(MINUTE);
            fixture.emulator.uninstall(&location);
            let gone = fixture.emulator.webhook(&uninstall(&location));
            fixture.pass(Duration::from_secs(2));
            fixture.emulator.install_location(&location);
            let installed = fixture.emulator.webhook(&install(&location));
            let mut order = [&gone, &installed];
            if late_uninstall {
                order.reverse();
            }
            for body in order {
                fixture.pass(Duration::from_secs(10));
                apply(&fixture, &abi, body);
            }
            abi.live_token(&fixture.emulator, &location);
            assert!(is_held(&abi, &location), "{kind:?}, the UNINSTALL late: {late_uninstall}");
        }
    }
}

#[test]
fn uninstall_of_a_company_ends_locations_whose_tokens_were_refreshed_later() {
    for kind in KINDS {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        let company = abi.connect_company(&fixture.emulator);
        for location in fixture.emulator.location_ids() {
            abi.live_token(&fixture.emulator, &location);
        }
        fixture.pass(MINUTE);
        let gone = fixture.emulator.webhook(&uninstall(&company));
        fixture.pass(MINUTE);
        abi.token_refresh(&company).ok();
        for location in fixture.emulator.location_ids() {
            abi.token_refresh(&location).ok();
        }
        assert_eq!(apply(&fixture, &abi, &gone)["applied"], true, "{kind:?}");
        assert_eq!(abi.tokens_list(json!({})).ok()["items"], json!([]), "{kind:?}");
    }
}

#[test]
fn location_is_minted_again_after_its_company_was_uninstalled_and_consented_again() {
    for kind in KINDS {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        let (company, location) = (abi.connect_company(&fixture.emulator), fixture.location(0));
        // The INSTALL of the location after the second consent is lost.
        tell(&fixture, &abi, &install(&location));
        assert!(is_held(&abi, &location), "{kind:?}");
        fixture.pass(MINUTE);
        let uninstall = fixture.emulator.webhook(&uninstall(&company));
        apply(&fixture, &abi, &uninstall);
        assert!(!is_held(&abi, &location), "{kind:?}");
        fixture.pass(MINUTE);
        abi.connect_company(&fixture.emulator);
        for _ in 0..2 {
            abi.live_token(&fixture.emulator, &location);
            // The delivery is repeated.
            apply(&fixture, &abi, &uninstall);
            assert!(is_held(&abi, &company) && is_held(&abi, &location), "{kind:?}");
        }
    }
}

#[test]
fn exported_own_consent_survives_an_import_and_the_uninstall_of_the_company() {
    for kind in KINDS {
        for exports in [true, false] {
            for is_first in [true, false] {
                let (fixture, what) =
                    (Fixture::new(kind), format!("{kind:?} {exports} {is_first}"));
                let (minted, consented) = (fixture.location(0), fixture.location(1));
                let source = Abi::new(&fixture.emulator);
                let company = source.connect_company(&fixture.emulator);
                source.live_token(&fixture.emulator, &minted);
                source.connect(&fixture.emulator, Decision::Location(consented.clone()));
                let mut exported = source.tokens_export(json!({})).ok();
                let abi = fixture.open();
                if !is_first {
                    // The imports conflict with older records.
                    let mut older = exported.clone();
                    for token in older["tokens"].as_array_mut().unwrap() {
                        let token = token.as_object_mut().unwrap();
                        token.insert(
                            "refreshToken".into(),
                            format!("{}", token["accessToken"]).into(),
                        );
                        token.insert("expiresAt".into(), 1.into());
                        token.remove("ownConsent");
                    }
                    assert_eq!(abi.tokens_import(older).ok()["imported"], 3, "{what}");
                }
                for token in exported["tokens"].as_array_mut().unwrap() {
                    let is_own = token["locationId"] == *consented;
                    let token = token.as_object_mut().unwrap();
                    assert_eq!(token.contains_key("ownConsent"), is_own, "{what}");
                    if !exports {
                        token.remove("ownConsent");
                    }
                }
                assert_eq!(abi.tokens_import(exported).ok()["imported"], 3, "{what}");
                fixture.pass(MINUTE);
                tell(&fixture, &abi, &uninstall(&company));
                assert!(!is_held(&abi, &company) && !is_held(&abi, &minted), "{what}");
                assert_eq!(is_held(&abi, &consented), exports, "{what}");
                if exports {
                    abi.token_refresh(&consented).ok();
                }
            }
        }
    }
}

#[test]
fn uninstall_ends_an_installation_made_while_the_clock_was_a_year_ahead() {
    let year_ms = 365 * 86_400_000;
    for kind in KINDS {
        for which in 0..3 {
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            fixture.clock.set_wall_forward(year_ms);
            let (what, id) = beginnings(&fixture, &abi).swap_remove(which);
            fixture.clock.correct_wall();
            fixture.pass(MINUTE);
            let applied = tell(&fixture, &abi, &uninstall(&id));
            assert_eq!(applied["applied"], true, "{kind:?}, {what}: {applied}");
            assert!(!is_held(&abi, &id), "{kind:?}, {what}");
        }
    }
}

#[test]
fn deletion_while_the_clock_was_a_year_ahead_does_not_block_new_tokens() {
    let year_ms = 365 * 86_400_000;
    for kind in KINDS {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        let location = fixture.location(0);
        let (_, consented) = beginnings(&fixture, &abi).swap_remove(1);
        fixture.clock.set_wall_forward(year_ms);
        for id in [&location, &consented] {
            abi.token_delete(id).ok();
        }
        fixture.clock.correct_wall();
        fixture.pass(MINUTE);
        tell(&fixture, &abi, &install(&location));
        assert!(is_held(&abi, &location), "{kind:?}: minted by its INSTALL");
        abi.token_delete(&location).ok();
        abi.live_token(&fixture.emulator, &location);
        assert!(is_held(&abi, &location), "{kind:?}: minted at its first use");
        abi.connect(&fixture.emulator, Decision::Location(consented.clone()));
        assert!(is_held(&abi, &consented), "{kind:?}: by a new consent");
        abi.token_delete(&consented).ok();
        let answer =
            fixture::saved_answer(&abi, &fixture.emulator, Decision::Location(consented.clone()));
        assert_eq!(abi.tokens_import(json!({"tokens": [answer]})).ok()["imported"], 1, "{kind:?}");
        abi.token_refresh(&consented).ok();
        assert!(is_held(&abi, &consented), "{kind:?}: by an import");
    }
}

#[test]
fn undated_uninstall_without_an_id_is_applied_again_a_day_after_a_reinstallation() {
    for kind in KINDS {
        for of_company in [false, true] {
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            let (company, location) = (fixture.company(), fixture.location(0));
            let id = if of_company { &company } else { &location };
            abi.connect_company(&fixture.emulator);
            let bare = notice_body(
                &fixture.emulator,
                &uninstall(id),
                json!({"timestamp": null, "webhookId": null}),
            );
            for round in 0..3 {
                if of_company {
                    abi.connect_company(&fixture.emulator);
                }
                abi.live_token(&fixture.emulator, &location);
                fixture.pass(DAY / 2);
                let applied = apply(&fixture, &abi, &bare);
                assert_eq!(
                    applied["applied"], true,
                    "{kind:?}, of the company: {of_company}, {round}: {applied}"
                );
                assert!(!is_held(&abi, id), "{kind:?}, of the company: {of_company}, {round}");
                fixture.pass(DAY / 2);
            }
        }
    }
}

/// A fixture with two connected companies of two locations each.
fn two_companies() -> (Fixture, Abi) {
    let options = Options { companies: 2, locations: 2, rate_limit: None, ..Options::default() };
    let fixture = Fixture::of(Kind::Sqlite, options);
    let abi = fixture.open();
    for company_id in fixture.emulator.company_ids() {
        abi.connect(&fixture.emulator, Decision::Company(company_id));
    }
    sent(&fixture.emulator);
    (fixture, abi)
}

#[test]
fn install_without_a_company_is_minted_from_the_company_that_lists_the_location() {
    let (fixture, abi) = two_companies();
    let companies = fixture.emulator.company_ids();
    for company_id in &companies {
        let location = fixture.emulator.open_location(company_id);
        let automatic = notice_body(
            &fixture.emulator,
            &install(&location),
            json!({"companyId": null, "userId": null}),
        );
        let applied = apply(&fixture, &abi, &automatic);
        assert_eq!(
            (&applied["applied"], &applied["reason"]),
            (&json!(true), &Value::Null),
            "{applied}"
        );
        assert_eq!(abi.listed(&location)["companyId"], *company_id);
        abi.live_token(&fixture.emulator, &location);
        let requests = sent(&fixture.emulator);
        let lists = requests.iter().filter(|request| request.starts_with("list")).count();
        assert!((1..=2).contains(&lists), "a request per company at most: {requests:?}");
    }
}

#[test]
fn install_that_no_company_lists_is_remembered_and_looked_up_rarely() {
    let (fixture, abi) = two_companies();
    let location = fixture.emulator.open_location(&fixture.emulator.company_ids()[1]);
    let automatic = notice_body(&fixture.emulator, &install(&location), json!({"companyId": null}));
    fixture.emulator.uninstall(&location);
    let applied = apply(&fixture, &abi, &automatic);
    assert_eq!(applied["reason"], "remembered until its company's token is available", "{applied}");
    for _ in 0..5 {
        abi.access_token(&location).fails(Status::NotFound);
        abi.tokens_maintain(json!({}), |_| true).ok();
    }
    assert_eq!(sent(&fixture.emulator), ["list 200", "list 200"], "each company was asked once");

    // The location is listed late, and found after the pause.
    fixture.emulator.install_location(&location);
    fixture.pass(MINUTE);
    abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!(abi.listed(&location)["companyId"], fixture.emulator.company_ids()[1]);
}

#[test]
fn location_without_an_install_is_not_looked_up_among_several_companies() {
    let (fixture, abi) = two_companies();
    abi.access_token("unknown").fails(Status::NotFound);
    assert_eq!(sent(&fixture.emulator), Vec::<String>::new());
}

#[test]
fn locations_are_minted_after_an_uninstall_of_their_company_that_is_dated_ahead_of_this_clock() {
    for kind in KINDS {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        let company = abi.connect_company(&fixture.emulator);
        fixture.pass(MINUTE);
        fixture.emulator.uninstall(&company);
        let timestamp = fixture.emulator.clock().now_ms() + 5_000;
        let changes = json!({"timestamp": timestamp});
        let gone = notice_body(&fixture.emulator, &uninstall(&company), changes);
        assert_eq!(apply(&fixture, &abi, &gone)["applied"], true);
        fixture.pass(Duration::from_secs(1));
        abi.connect_company(&fixture.emulator);
        let [one, other] = [0, 1].map(|index| fixture.location(index));
        abi.live_token(&fixture.emulator, &one);
        let minted =
            abi.tokens_mint(json!({"companyId": company, "locationIds": [other]}), |_| true);
        assert_eq!(minted.ok()["minted"], 1, "{kind:?}");
        for location in [one, other] {
            assert!(is_held(&abi, &location), "{kind:?}");
            abi.live_token(&fixture.emulator, &location);
        }
    }
}

#[test]
fn late_uninstall_older_than_the_install_leaves_a_consent_by_a_clock_that_is_late() {
    for kind in KINDS {
        for (skew, of_company, mints) in
            [(30, false, true), (240, false, true), (30, false, false), (30, true, true)]
        {
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            let (id, decision) = match of_company {
                true => (fixture.company(), Decision::Company(fixture.company())),
                false => (fixture.location(0), Decision::Location(fixture.location(0))),
            };
            // The vendor's clock is ahead by `skew` seconds.
            let notice = |notice: &Notice| {
                let timestamp = fixture.emulator.clock().now_ms() + skew * 1_000;
                notice_body(&fixture.emulator, notice, json!({"timestamp": timestamp}))
            };
            let apply = |body: &str| {
                let headers = signed(&fixture.emulator, body.as_bytes(), Signature::Ed25519);
                abi.webhook_apply_with(body.as_bytes(), &headers, json!({"mint": mints})).ok()
            };
            abi.connect(&fixture.emulator, decision.clone());
            fixture.pass(Duration::from_secs(5));
            fixture.emulator.uninstall(&id);
            let gone = notice(&uninstall(&id));
            fixture.pass(Duration::from_secs(5));
            abi.connect(&fixture.emulator, decision);
            apply(&notice(&install(&id)));
            let what = format!("{kind:?}, {skew} s, company: {of_company}, mints: {mints}");
            let applied = apply(&gone);
            assert_eq!(applied["applied"], false, "{what}");
            assert_eq!(applied["reason"], "a later INSTALL was applied", "{what}");
            abi.live_token(&fixture.emulator, &id);
            let export = abi.tokens_export(json!({})).ok();
            assert_eq!(export["tokens"][0]["ownConsent"] == true, !of_company, "{what}");
            fixture.pass(Duration::from_secs(5));
            assert_eq!(apply(&notice(&uninstall(&id)))["applied"], true, "{what}");
            assert!(!is_held(&abi, &id), "{what}");
        }
    }
}
