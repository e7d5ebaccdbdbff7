//! INSTALL and UNINSTALL of several installations of the same place, some of them lost, late, undated or repeated.

mod stand;
mod support;

use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Decision, Notice, Options, Signature};
use serde_json::{Value, json};

use stand::{Kind, Stand};
use support::{Abi, DAY, sent, signed};

const KINDS: [Kind; 2] = [Kind::Memory, Kind::Sqlite];

/// A body of that notice with these keys changed, or with null taken away.
fn body(stand: &Stand, notice: &Notice, changes: Value) -> String {
    let mut body: Value = serde_json::from_str(&stand.emulator.webhook(notice)).unwrap();
    for (name, change) in changes.as_object().unwrap() {
        match change {
            Value::Null => drop(body.as_object_mut().unwrap().remove(name)),
            change => body[name] = change.clone(),
        }
    }
    body.to_string()
}

#[track_caller]
fn apply(stand: &Stand, abi: &Abi, body: &str) -> Value {
    abi.webhook_apply(body.as_bytes(), &signed(&stand.emulator, body.as_bytes(), Signature::Ed25519)).ok()
}

#[track_caller]
fn tell(stand: &Stand, abi: &Abi, notice: &Notice) -> Value {
    apply(stand, abi, &stand.emulator.webhook(notice))
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

/// A company or location of each way in which an installation begins.
fn beginnings(stand: &Stand, abi: &Abi) -> Vec<(&'static str, String)> {
    let (minted, consented) = (stand.location(0), stand.location(1));
    let company = abi.connect_company(&stand.emulator);
    abi.live_token(&stand.emulator, &minted);
    abi.connect(&stand.emulator, Decision::Location(consented.clone()));
    vec![("minted", minted), ("consented", consented), ("the company", company)]
}

#[test]
fn uninstall_that_comes_after_a_refresh_of_later_time_ends_the_installation_it_is_about() {
    for kind in KINDS {
        for which in 0..3 {
            for refreshes in [1, 3] {
                let stand = Stand::new(kind);
                let abi = stand.open();
                let (what, id) = beginnings(&stand, &abi).swap_remove(which);
                stand.pass(MINUTE);
                let gone = stand.emulator.webhook(&uninstall(&id));
                for _ in 0..refreshes {
                    stand.pass(MINUTE);
                    abi.token_refresh(&id).ok();
                }
                stand.pass(MINUTE);
                let applied = apply(&stand, &abi, &gone);
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
fn uninstall_older_than_the_installation_ends_nothing_however_often_the_token_was_refreshed() {
    for kind in KINDS {
        for which in 0..3 {
            let stand = Stand::new(kind);
            let abi = stand.open();
            let gone = [stand.location(0), stand.location(1), stand.company()]
                .map(|id| stand.emulator.webhook(&uninstall(&id)));
            stand.pass(MINUTE);
            let (what, id) = beginnings(&stand, &abi).swap_remove(which);
            for refreshes in 0..3 {
                let applied = apply(&stand, &abi, &gone[which]);
                assert_eq!(applied["applied"], false, "{kind:?}, {what}, {refreshes}: {applied}");
                abi.live_token(&stand.emulator, &id);
                stand.pass(MINUTE);
                abi.token_refresh(&id).ok();
            }
        }
    }
}

#[test]
fn uninstall_of_a_restarted_program_is_compared_with_the_beginning_as_well() {
    let stand = Stand::new(Kind::Sqlite);
    let location = stand.location(0);
    stand.open().connect(&stand.emulator, Decision::Location(location.clone()));
    let early = stand.emulator.clock().now_ms() - 60_000;
    stand.pass(MINUTE);
    let gone = stand.emulator.webhook(&uninstall(&location));
    stand.pass(MINUTE);
    stand.open().token_refresh(&location).ok();
    let abi = stand.open();
    let before = body(&stand, &uninstall(&location), json!({"timestamp": iso8601(early)}));
    assert_eq!(apply(&stand, &abi, &before)["applied"], false);
    assert_eq!(apply(&stand, &abi, &gone)["applied"], true);
    assert!(!is_held(&stand.open(), &location));
}

/// A moment as the API writes it, by way of a webhook of the emulator.
fn iso8601(ms: i64) -> String {
    let emulator = support::emulator(1);
    emulator.clock().set_ms(ms);
    let body: Value = serde_json::from_str(&emulator.webhook(&install(&emulator.location_ids()[0]))).unwrap();
    body["timestamp"].as_str().unwrap().to_owned()
}

#[test]
fn two_uninstalls_with_ids_of_their_own_end_two_installations() {
    for kind in KINDS {
        let stand = Stand::new(kind);
        let abi = stand.open();
        let location = stand.location(0);
        abi.connect_company(&stand.emulator);
        for round in 0..3 {
            stand.emulator.install_location(&location);
            tell(&stand, &abi, &install(&location));
            abi.live_token(&stand.emulator, &location);
            stand.pass(MINUTE);
            stand.emulator.uninstall(&location);
            assert_eq!(tell(&stand, &abi, &uninstall(&location))["applied"], true, "{kind:?}, {round}");
            assert!(!is_held(&abi, &location), "{kind:?}, {round}");
            stand.pass(MINUTE);
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
                let stand = Stand::new(kind);
                let abi = stand.open();
                let location = stand.location(0);
                abi.connect_company(&stand.emulator);
                let old = abi.live_token(&stand.emulator, &location);
                let other = abi.live_token(&stand.emulator, &stand.location(1));
                stand.pass(MINUTE);
                stand.emulator.uninstall(&location);
                stand.pass(MINUTE);
                stand.emulator.install_location(&location);
                assert!(!stand.emulator.access_token_is_live(&old));
                let abi = if restarted { stand.open() } else { abi };
                sent(&stand.emulator);
                let notice =
                    if automatic { Notice::AutomaticInstall(location.clone()) } else { install(&location) };
                let installed = stand.emulator.webhook(&notice);
                assert_eq!(apply(&stand, &abi, &installed)["applied"], true);
                assert_eq!(sent(&stand.emulator), ["mint 200"], "{kind:?}, automatic: {automatic}");
                let new = abi.live_token(&stand.emulator, &location);
                assert_ne!(new, old);
                // The vendor repeats it, and the lost UNINSTALL turns up: neither costs anything.
                apply(&stand, &abi, &installed);
                stand.pass(MINUTE);
                apply(&stand, &abi, &installed);
                assert_eq!(abi.live_token(&stand.emulator, &location), new);
                assert_eq!(abi.live_token(&stand.emulator, &stand.location(1)), other);
                assert_eq!(sent(&stand.emulator), [""; 0]);
            }
        }
    }
}

#[test]
fn install_after_a_lost_uninstall_replaces_a_token_that_was_refreshed_before_the_uninstall() {
    for kind in KINDS {
        let stand = Stand::new(kind);
        let abi = stand.open();
        let location = stand.location(0);
        abi.connect_company(&stand.emulator);
        abi.live_token(&stand.emulator, &location);
        stand.pass(MINUTE);
        abi.token_refresh(&location).ok();
        stand.pass(MINUTE);
        stand.emulator.uninstall(&location);
        stand.emulator.install_location(&location);
        let installed = stand.emulator.webhook(&install(&location));
        // The delivery comes late.
        stand.pass(MINUTE);
        apply(&stand, &abi, &installed);
        abi.live_token(&stand.emulator, &location);
    }
}

#[test]
fn install_that_names_another_company_is_minted_from_that_one() {
    for kind in KINDS {
        let stand =
            Stand::of(kind, Options { companies: 2, locations: 1, rate_limit: None, ..Options::default() });
        let [old_company, new_company] = <[String; 2]>::try_from(stand.emulator.company_ids()).unwrap();
        let location = stand.location(1);
        let abi = stand.open();
        for company in [&old_company, &new_company] {
            abi.connect(&stand.emulator, Decision::Company(company.clone()));
        }
        // Until now it belonged to another agency; its token there looks good.
        let entry = json!({
            "accessToken": "token of the former agency", "refreshToken": "of the former agency",
            "locationId": location, "companyId": old_company, "userType": "Location",
            "expiresAt": stand.emulator.clock().now_ms() + 86_000_000,
        });
        assert_eq!(abi.tokens_import(json!({"tokens": [entry]})).ok()["imported"], 1);
        assert_eq!(abi.access_token(&location).text(), "token of the former agency");
        // The INSTALL is of the same moment as that token, so only the company tells them apart.
        let applied = tell(&stand, &abi, &install(&location));
        assert_eq!(applied["applied"], true, "{kind:?}: {applied}");
        abi.live_token(&stand.emulator, &location);
        assert_eq!(abi.listed(&location)["companyId"], new_company.as_str(), "{kind:?}");
        stand.pass(DAY);
        abi.live_token(&stand.emulator, &location);
        // The former company's end does not concern it any more.
        stand.pass(MINUTE);
        tell(&stand, &abi, &uninstall(&old_company));
        assert!(is_held(&abi, &location), "{kind:?}");
    }
}

#[test]
fn install_that_names_several_locations_is_minted_for_each() {
    for kind in KINDS {
        for named_once in [true, false] {
            let stand = Stand::new(kind);
            let abi = stand.open();
            abi.connect_company(&stand.emulator);
            let locations = stand.emulator.location_ids();
            let mut changes = json!({"locationIds": locations, "locationId": null});
            if !named_once {
                changes["locationId"] = json!(locations[0]);
            }
            let applied = apply(&stand, &abi, &body(&stand, &install(&locations[0]), changes));
            assert_eq!(applied["applied"], true, "{kind:?}");
            sent(&stand.emulator);
            for location in &locations {
                abi.live_token(&stand.emulator, location);
            }
            assert_eq!(sent(&stand.emulator), [""; 0], "{kind:?}: minted with the webhook");
        }
    }
}

#[test]
fn webhook_in_any_order_of_an_uninstall_and_a_reinstallation_ends_in_a_live_token() {
    for kind in KINDS {
        for late_uninstall in [false, true] {
            let stand = Stand::new(kind);
            let abi = stand.open();
            let location = stand.location(0);
            abi.connect_company(&stand.emulator);
            abi.live_token(&stand.emulator, &location);
            stand.pass(MINUTE);
            stand.emulator.uninstall(&location);
            let gone = stand.emulator.webhook(&uninstall(&location));
            stand.pass(Duration::from_secs(2));
            stand.emulator.install_location(&location);
            let installed = stand.emulator.webhook(&install(&location));
            let mut order = [&gone, &installed];
            if late_uninstall {
                order.reverse();
            }
            for body in order {
                stand.pass(Duration::from_secs(10));
                apply(&stand, &abi, body);
            }
            abi.live_token(&stand.emulator, &location);
            assert!(is_held(&abi, &location), "{kind:?}, the UNINSTALL late: {late_uninstall}");
        }
    }
}

#[test]
fn uninstall_of_a_company_ends_locations_whose_tokens_were_refreshed_since() {
    for kind in KINDS {
        let stand = Stand::new(kind);
        let abi = stand.open();
        let company = abi.connect_company(&stand.emulator);
        for location in stand.emulator.location_ids() {
            abi.live_token(&stand.emulator, &location);
        }
        stand.pass(MINUTE);
        let gone = stand.emulator.webhook(&uninstall(&company));
        stand.pass(MINUTE);
        abi.token_refresh(&company).ok();
        for location in stand.emulator.location_ids() {
            abi.token_refresh(&location).ok();
        }
        assert_eq!(apply(&stand, &abi, &gone)["applied"], true, "{kind:?}");
        assert_eq!(abi.tokens_list(json!({})).ok()["items"], json!([]), "{kind:?}");
    }
}

#[test]
fn uninstall_ends_an_installation_that_began_while_the_clock_was_a_year_ahead() {
    let year_ms = 365 * 86_400_000;
    for kind in KINDS {
        for which in 0..3 {
            let stand = Stand::new(kind);
            let abi = stand.open();
            stand.clock.set_wall_forward(year_ms);
            let (what, id) = beginnings(&stand, &abi).swap_remove(which);
            stand.clock.correct_wall();
            stand.pass(MINUTE);
            let applied = tell(&stand, &abi, &uninstall(&id));
            assert_eq!(applied["applied"], true, "{kind:?}, {what}: {applied}");
            assert!(!is_held(&abi, &id), "{kind:?}, {what}");
        }
    }
}

#[test]
fn deletion_while_the_clock_was_a_year_ahead_keeps_no_new_token_away() {
    let year_ms = 365 * 86_400_000;
    for kind in KINDS {
        let stand = Stand::new(kind);
        let abi = stand.open();
        let location = stand.location(0);
        let (_, consented) = beginnings(&stand, &abi).swap_remove(1);
        stand.clock.set_wall_forward(year_ms);
        for id in [&location, &consented] {
            abi.token_delete(id).ok();
        }
        stand.clock.correct_wall();
        stand.pass(MINUTE);
        tell(&stand, &abi, &install(&location));
        assert!(is_held(&abi, &location), "{kind:?}: minted by its INSTALL");
        abi.token_delete(&location).ok();
        abi.live_token(&stand.emulator, &location);
        assert!(is_held(&abi, &location), "{kind:?}: minted at its use");
        abi.connect(&stand.emulator, Decision::Location(consented.clone()));
        assert!(is_held(&abi, &consented), "{kind:?}: by a new consent");
        abi.token_delete(&consented).ok();
        let answer = stand::saved_answer(&abi, &stand.emulator, Decision::Location(consented.clone()));
        assert_eq!(abi.tokens_import(json!({"tokens": [answer]})).ok()["imported"], 1, "{kind:?}");
        abi.token_refresh(&consented).ok();
        assert!(is_held(&abi, &consented), "{kind:?}: by an import");
    }
}

#[test]
fn undated_uninstall_without_an_id_counts_again_after_a_reinstallation_a_day_later() {
    for kind in KINDS {
        for of_company in [false, true] {
            let stand = Stand::new(kind);
            let abi = stand.open();
            let (company, location) = (stand.company(), stand.location(0));
            let id = if of_company { &company } else { &location };
            abi.connect_company(&stand.emulator);
            let bare = body(&stand, &uninstall(id), json!({"timestamp": null, "webhookId": null}));
            for round in 0..3 {
                if of_company {
                    abi.connect_company(&stand.emulator);
                }
                abi.live_token(&stand.emulator, &location);
                stand.pass(DAY / 2);
                let applied = apply(&stand, &abi, &bare);
                assert_eq!(
                    applied["applied"], true,
                    "{kind:?}, of the company: {of_company}, {round}: {applied}"
                );
                assert!(!is_held(&abi, id), "{kind:?}, of the company: {of_company}, {round}");
                stand.pass(DAY / 2);
            }
        }
    }
}
