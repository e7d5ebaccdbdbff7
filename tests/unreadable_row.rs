//! A stored token that cannot be read affects only its owner. A deletion, an import, a consent or a
//! mint repairs it.

mod fixture;
mod support;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Decision, Notice, Signature};
use serde_json::{Value, json};

use fixture::{DURABLE, Fixture, Kind, saved_answer};
use support::{Abi, sent, signed};

const OLD: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const NEW: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// The damage of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Damage {
    Garbage,
    Empty,
    OtherJson,
    LostKey,
}

const DAMAGES: [(Kind, Damage); 5] = [
    (Kind::Sqlite, Damage::Garbage),
    (Kind::Sqlite, Damage::Empty),
    (Kind::Sqlite, Damage::OtherJson),
    (Kind::Sqlite, Damage::LostKey),
    (Kind::Host, Damage::Garbage),
];

/// A company with two locations, one of the three rows damaged, and a new client on that store.
fn damaged(kind: Kind, damage: Damage, which: usize) -> (Fixture, Abi, String, Vec<String>) {
    let fixture = Fixture::new(kind);
    let keys = |keys: &[&str]| match damage {
        Damage::LostKey => json!({"store": {"encryptionKeys": keys}}),
        _ => json!({}),
    };
    let mut ids = fixture.emulator.location_ids();
    ids.push(fixture.company());
    let abi = fixture.open_with(keys(&[OLD]));
    abi.connect_company(&fixture.emulator);
    for id in &ids {
        abi.live_token(&fixture.emulator, id);
    }
    let id = ids.remove(which);
    match damage {
        Damage::Garbage => fixture.damage(&id),
        Damage::LostKey => {
            let both = fixture.open_with(keys(&[NEW, OLD]));
            for other in &ids {
                both.token_refresh(other).ok();
            }
        }
        Damage::Empty | Damage::OtherJson => {
            let document = if damage == Damage::Empty { "x''" } else { "x'7b7d'" };
            let update = format!("UPDATE token SET document = {document} WHERE resource_id = ?1");
            assert_eq!(fixture.database().execute(&update, [&id]).unwrap(), 1);
        }
    }
    drop(abi);
    let abi = fixture.open_with(keys(&[NEW]));
    sent(&fixture.emulator);
    (fixture, abi, id, ids)
}

fn each(test: impl Fn(Fixture, Abi, String, Vec<String>, &str)) {
    for (kind, damage) in DAMAGES {
        for which in [0, 2] {
            let (fixture, abi, id, others) = damaged(kind, damage, which);
            let owner = if which == 2 { "the company" } else { "a location" };
            test(fixture, abi, id, others, &format!("{kind:?}, {damage:?}, {owner}"));
        }
    }
}

fn ids(page: &Value, items: &str) -> Vec<String> {
    // A page without failures has no such list.
    let mut ids: Vec<String> = page[items]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| match (&item["resourceId"], &item["locationId"]) {
            (Value::String(id), _) | (_, Value::String(id)) => id.clone(),
            _ => item["companyId"].as_str().unwrap().to_owned(),
        })
        .collect();
    ids.sort();
    ids
}

fn sorted(ids: &[String]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids
}

/// The row is readable again by this client and by a new client with the same keys.
#[track_caller]
fn is_repaired(fixture: &Fixture, abi: &Abi, id: &str, what: &str) {
    abi.live_token(&fixture.emulator, id);
    abi.token_refresh(id).ok();
    let page = abi.tokens_list(json!({})).ok();
    assert_eq!(ids(&page, "failed"), [""; 0], "{what}");
    assert!(ids(&page, "items").contains(&id.to_owned()), "{what}");
    let (_, document) = fixture.stored(id).unwrap();
    assert!(document.len() > 100, "{what}: the token was saved");
}

#[test]
fn list_and_export_report_an_unreadable_row_and_continue() {
    each(|_stand, abi, id, others, what| {
        let mut params = json!({"pageSize": 1});
        let (mut listed, mut failed) = (Vec::new(), Vec::new());
        loop {
            let page = abi.tokens_list(params.clone()).ok();
            listed.extend(ids(&page, "items"));
            failed.extend(ids(&page, "failed"));
            match &page["nextPageToken"] {
                Value::Null => break,
                next => params["pageToken"] = next.clone(),
            }
        }
        listed.sort();
        assert_eq!((listed, failed), (sorted(&others), vec![id.clone()]), "{what}: page by page");
        for (items, page) in [
            ("items", abi.tokens_list(json!({})).ok()),
            ("tokens", abi.tokens_export(json!({})).ok()),
        ] {
            assert_eq!(ids(&page, items), sorted(&others), "{what}");
            let failure = &page["failed"][0];
            assert_eq!(failure["resourceId"], id.as_str(), "{what}");
            assert_eq!(failure["error"]["status"], "GHL_ERR_STORE", "{what}: {failure}");
            let help = failure["error"]["help"].as_str().unwrap();
            assert!(
                help.contains("delete") || help.contains("import") || help.contains("key"),
                "{what}: the help names a way out: {help}"
            );
        }
    });
}

#[test]
fn unreadable_row_does_not_affect_other_resources() {
    each(|fixture, abi, id, others, what| {
        for other in &others {
            abi.live_token(&fixture.emulator, other);
            let refreshed = abi.token_refresh(other);
            assert_eq!(refreshed.0, 0, "{what}: {}", refreshed.1);
        }
        let report = abi.tokens_maintain(json!({}), |_| true).ok();
        for failed in report["failed"].as_array().unwrap() {
            // A missing key is a single failure for any number of rows.
            let of_a_key = failed["resourceId"].is_null() && what.contains("LostKey");
            assert!(of_a_key || failed["resourceId"] == id.as_str(), "{what}: {report}");
        }
        let error = abi.access_token(&id);
        if error.0 != 0 {
            let error = error.fails(Status::Store);
            assert_eq!(error["resourceId"], id.as_str(), "{what}");
        }
    });
}

#[test]
fn unreadable_row_can_be_deleted() {
    each(|fixture, abi, id, _, what| {
        let deleted = abi.token_delete(&id);
        assert_eq!(deleted.0, 0, "{what}: {}", deleted.1);
        assert!(fixture.stored(&id).is_none(), "{what}");
        assert_eq!(ids(&abi.tokens_list(json!({})).ok(), "failed"), [""; 0], "{what}");
        abi.token_delete(&id).fails(Status::NotFound);
    });
}

#[test]
fn unreadable_row_is_deleted_by_an_uninstall() {
    each(|fixture, abi, id, _, what| {
        if fixture.kind == Kind::Sqlite {
            fixture.pass(std::time::Duration::from_secs(60));
        }
        let body = fixture.emulator.webhook(&Notice::Uninstall(id.clone()));
        let headers = signed(&fixture.emulator, body.as_bytes(), Signature::Ed25519);
        assert_eq!(abi.webhook_apply(body.as_bytes(), &headers).ok()["applied"], true, "{what}");
        assert!(fixture.stored(&id).is_none(), "{what}");
    });
}

#[test]
fn unreadable_row_is_replaced_by_an_import_only_with_replace() {
    each(|fixture, abi, id, _, what| {
        let decision = if id == fixture.company() {
            Decision::Company(id.clone())
        } else {
            Decision::Location(id.clone())
        };
        let before = fixture.stored(&id).unwrap();
        let answer = saved_answer(&abi, &fixture.emulator, decision);
        let other = json!({"accessToken": "a", "locationId": "somewhere", "expiresIn": 100});
        let report = abi.tokens_import(json!({"tokens": [answer, other]})).ok();
        assert_eq!(report["imported"], 1, "{what}: the others are imported: {report}");
        let reason = report["skipped"][0]["reason"].as_str().unwrap();
        assert!(
            !reason.is_empty() && report["skipped"][0]["resourceId"] == id.as_str(),
            "{what}: {reason}"
        );
        assert_eq!(
            fixture.stored(&id).unwrap(),
            before,
            "{what}: nothing is overwritten without replace"
        );
        let report = abi.tokens_import(json!({"tokens": [answer], "replace": true})).ok();
        assert_eq!(report["imported"], 1, "{what}: {report}");
        is_repaired(&fixture, &abi, &id, what);
    });
}

#[test]
fn unreadable_row_is_replaced_by_a_new_consent() {
    each(|fixture, abi, id, _, what| {
        let decision = if id == fixture.company() {
            Decision::Company(id.clone())
        } else {
            Decision::Location(id.clone())
        };
        assert_eq!(abi.connect(&fixture.emulator, decision)["state"], "ok", "{what}");
        is_repaired(&fixture, &abi, &id, what);
    });
}

#[test]
fn unreadable_row_of_a_location_is_replaced_by_a_mint() {
    each(|fixture, abi, id, _, what| {
        let company = fixture.company();
        if id == company {
            return;
        }
        let params = json!({"companyId": company, "locationIds": [id]});
        let report = abi.tokens_mint(params, |_| true).ok();
        assert_eq!(report["minted"], 1, "{what}: {report}");
        is_repaired(&fixture, &abi, &id, what);
    });
}

#[test]
fn unreadable_row_of_a_location_is_replaced_by_an_install() {
    each(|fixture, abi, id, _, what| {
        if id == fixture.company() {
            return;
        }
        if fixture.kind == Kind::Sqlite {
            fixture.pass(std::time::Duration::from_secs(60));
        }
        let body = fixture.emulator.webhook(&Notice::Install(id.clone()));
        let headers = signed(&fixture.emulator, body.as_bytes(), Signature::Ed25519);
        assert_eq!(abi.webhook_apply(body.as_bytes(), &headers).ok()["applied"], true, "{what}");
        is_repaired(&fixture, &abi, &id, what);
    });
}

#[test]
fn several_unreadable_rows_are_all_reported_and_replaced() {
    for kind in DURABLE {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        let company = abi.connect_company(&fixture.emulator);
        for location in fixture.emulator.location_ids() {
            abi.live_token(&fixture.emulator, &location);
            fixture.damage(&location);
        }
        drop(abi);
        let abi = fixture.open();
        let page = abi.tokens_list(json!({})).ok();
        assert_eq!(ids(&page, "failed"), sorted(&fixture.emulator.location_ids()), "{kind:?}");
        assert_eq!(ids(&page, "items"), std::slice::from_ref(&company), "{kind:?}");
        let locations = fixture.emulator.location_ids();
        let report =
            abi.tokens_mint(json!({"companyId": company, "locationIds": locations}), |_| true).ok();
        assert_eq!(report["minted"], 2, "{kind:?}: {report}");
        for location in &locations {
            is_repaired(&fixture, &abi, location, "several");
        }
    }
}
