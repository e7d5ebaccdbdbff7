//! Imports of a saved API response at every start, and imports that contain one refresh token
//! twice.

mod fixture;
mod support;

use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Decision, Endpoint, Notice, Rule, Signature, Stage};
use serde_json::{Value, json};

use fixture::{EVERY, Fixture, Kind, saved_answer, until};
use support::{Abi, DAY, call_concurrently, sent, signed};

/// The formats in which a program may have saved an API response.
fn forms(answer: &Value) -> Vec<(&'static str, Value)> {
    let with = |changes: Value| {
        let mut form = answer.clone();
        for (key, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(form.as_object_mut().unwrap().remove(key)),
                value => form[key] = value.clone(),
            }
        }
        form
    };
    let snake_case = json!({
        "access_token": answer["accessToken"], "refresh_token": answer["refreshToken"],
        "expires_in": answer["expiresIn"], "userType": answer["userType"],
        "companyId": answer["companyId"],
        "locationId": answer["locationId"],
    });
    vec![
        ("unchanged", with(json!({}))),
        ("without an expiry", with(json!({"expiresIn": null}))),
        (
            "with a past expiry",
            with(json!({"expiresIn": null, "expiresAt": 1_700_000_000_000_i64})),
        ),
        (
            "with an expiry computed at this start",
            with(json!({"expiresIn": null, "expiresAt": 4_000_000_000_000_i64})),
        ),
        ("the refresh token alone", with(json!({"expiresIn": null, "accessToken": null}))),
        ("in snake_case", snake_case),
    ]
}

/// Imports one token. Returns the reason for skipping it, or an empty text.
#[track_caller]
fn import(abi: &Abi, token: &Value, replace: bool) -> String {
    let report = abi.tokens_import(json!({"tokens": [token], "replace": replace})).ok();
    match report["imported"].as_u64() {
        Some(1) => String::new(),
        _ => report["skipped"][0]["reason"].as_str().unwrap().to_owned(),
    }
}

/// A client that imported the saved response of a company's consent.
fn imported(fixture: &Fixture) -> (String, Abi, Value) {
    let company = fixture.company();
    let abi = fixture.open();
    let answer = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
    import(&abi, &answer, false);
    (company, abi, answer)
}

/// Uninstalls the app of an owner.
fn uninstall(fixture: &Fixture, abi: &Abi, resource_id: &str) {
    let now = fixture.emulator.clock().now_ms();
    match fixture.kind {
        Kind::Host => until("the clock", || fixture.emulator.clock().now_ms() > now + 2),
        _ => fixture.pass(Duration::from_secs(1)),
    }
    let body = fixture.emulator.webhook(&Notice::Uninstall(resource_id.to_owned()));
    let headers = signed(&fixture.emulator, body.as_bytes(), Signature::Ed25519);
    assert_eq!(abi.webhook_apply(body.as_bytes(), &headers).ok()["applied"], true);
}

/// Asserts that the access token and the refresh token of the client are live.
#[track_caller]
fn works(fixture: &Fixture, abi: &Abi, resource_id: &str) {
    abi.live_token(&fixture.emulator, resource_id);
    abi.token_refresh(resource_id).ok();
    abi.live_token(&fixture.emulator, resource_id);
}

#[test]
fn dry_run_reports_the_outcome_of_the_import_and_changes_nothing() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        let (company, abi, answer) = imported(&fixture);
        abi.token_refresh(&company).ok();
        let location = fixture.emulator.location_ids()[0].clone();
        abi.live_token(&fixture.emulator, &location);
        abi.token_delete(&location).ok();
        let held = abi.tokens_export(json!({})).ok()["tokens"][0].clone();
        let expires_at = held["expiresAt"].as_i64().unwrap();
        let token = |name: &str, expires_at: i64| {
            json!({
                "accessToken": format!("access {name}"), "refreshToken": format!("refresh {name}"),
                "expiresAt": expires_at, "userType": "Company", "companyId": company,
            })
        };
        let of_location = |name: &str, expires_at: i64| {
            let mut token = token(name, expires_at);
            token["userType"] = "Location".into();
            token["locationId"] = "a new location".into();
            token
        };
        let mut undated = token("undated", 0);
        undated.as_object_mut().unwrap().remove("expiresAt");
        let mut unrefreshable = token("unrefreshable", expires_at + 1);
        unrefreshable.as_object_mut().unwrap().remove("refreshToken");
        let mut deleted = of_location("deleted", expires_at);
        deleted["locationId"] = location.clone().into();
        let entries = json!([
            {"accessToken": "of nobody"},
            answer,
            held,
            undated,
            token("older", expires_at - 1),
            unrefreshable,
            token("newer", expires_at + 2),
            token("older than the newer", expires_at + 1),
            of_location("newer", expires_at),
            of_location("new", expires_at),
            of_location("newer than the new", expires_at + 1),
            deleted,
        ]);
        let before = abi.tokens_export(json!({})).ok();
        sent(&fixture.emulator);
        let dry_run = || abi.tokens_import(json!({"tokens": entries, "dryRun": true})).ok();
        let planned = dry_run();
        let skipped = planned["skipped"].as_array().unwrap();
        let reasons: Vec<(u64, &str)> = skipped
            .iter()
            .map(|skip| (skip["index"].as_u64().unwrap(), skip["reason"].as_str().unwrap()))
            .collect();
        for ((index, reason), (expected, part)) in reasons.iter().zip([
            (0, "companyId is missing"),
            (1, "already spent"),
            (2, "held already"),
            (3, "no expiry"),
            (4, "newer token is stored"),
            (5, "this one has none"),
            (7, "newer token is stored"),
            (8, "two owners"),
        ]) {
            assert!(*index == expected && reason.contains(part), "{kind:?} {index}: {reason}");
        }
        assert_eq!(reasons.len(), 8, "{kind:?}: {reasons:?}");
        assert_eq!(
            planned["accepted"],
            json!([
                {"index": 6, "resourceId": company, "replaces": true},
                {"index": 9, "resourceId": "a new location", "replaces": false},
                {"index": 10, "resourceId": "a new location", "replaces": true},
                {"index": 11, "resourceId": location, "replaces": false},
            ]),
            "{kind:?}"
        );
        assert_eq!(planned["imported"], 4);
        assert_eq!(abi.tokens_export(json!({})).ok(), before, "{kind:?}");
        assert_eq!(sent(&fixture.emulator), [""; 0], "{kind:?}");
        assert_eq!(dry_run(), planned, "{kind:?}");
        let replaced =
            abi.tokens_import(json!({"tokens": entries, "dryRun": true, "replace": true})).ok();
        assert_eq!(replaced["skipped"].as_array().unwrap().len(), 3, "{kind:?}: {replaced}");

        let done = abi.tokens_import(json!({"tokens": entries, "dryRun": false})).ok();
        let (imported, skipped) = (&planned["imported"], &planned["skipped"]);
        assert_eq!(done, json!({"imported": imported, "skipped": skipped}), "{kind:?}");
        let after = abi.tokens_export(json!({})).ok();
        let names: Vec<_> =
            after["tokens"].as_array().unwrap().iter().map(|token| &token["accessToken"]).collect();
        assert_eq!(names.len(), 3, "{kind:?}: {names:?}");
        for name in ["newer", "newer than the new", "deleted"] {
            assert!(names.contains(&&json!(format!("access {name}"))), "{kind:?}: {names:?}");
        }
    }
}

#[test]
fn import_of_a_saved_response_at_every_start_never_replaces_the_rotated_token() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        fixture.emulator.set_reuse_window_seconds(0);
        let company = fixture.company();
        let mut abi = fixture.open();
        let mut answers =
            vec![saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()))];
        assert_eq!(import(&abi, &answers[0], false), "", "the first start");
        for refreshes in 1..=70_usize {
            abi.token_refresh(&company).ok();
            let exported = abi.tokens_export(json!({})).ok()["tokens"][0].clone();
            answers.push(exported);
            if ![1, 3, 70].contains(&refreshes) {
                continue;
            }
            if kind != Kind::Memory {
                abi = fixture.open();
            }
            let current = abi.live_token(&fixture.emulator, &company);
            for age in [1, 3, 47, 65, 70] {
                let Some(spent) = refreshes.checked_sub(age) else { continue };
                for (form, answer) in forms(&answers[spent]) {
                    let what = format!("{kind:?}, spent {age} refreshes ago, {form}");
                    let reason = import(&abi, &answer, false);
                    assert!(reason.contains("spent"), "{what}: {reason}");
                    assert_eq!(abi.live_token(&fixture.emulator, &company), current, "{what}");
                }
            }
        }
        works(&fixture, &abi, &company);
    }
}

#[test]
fn import_of_unknown_age_replaces_a_valid_token_only_with_replace() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        let company = fixture.company();
        let abi = fixture.open();
        abi.connect_company(&fixture.emulator);
        let held = abi.live_token(&fixture.emulator, &company);
        let other = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
        for (form, answer) in forms(&other) {
            if form == "with an expiry computed at this start" {
                continue;
            }
            let reason = import(&abi, &answer, false);
            assert!(
                reason.contains("replace"),
                "{kind:?}, {form}: the reason names a way out: {reason}"
            );
            assert_eq!(abi.live_token(&fixture.emulator, &company), held, "{kind:?}, {form}");
        }
        assert_eq!(import(&abi, &other, true), "", "{kind:?}: it was never spent");
        assert_eq!(
            abi.live_token(&fixture.emulator, &company),
            other["accessToken"].as_str().unwrap()
        );
        works(&fixture, &abi, &company);
    }
}

#[test]
fn import_without_a_refresh_token_does_not_replace_a_token_that_has_one() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        let (abi, location) = (fixture.open(), fixture.location(0));
        abi.connect(&fixture.emulator, Decision::Location(location.clone()));
        let minted = json!({
            "accessToken": "minted elsewhere", "locationId": location,
            "companyId": fixture.company(),
            "userType": "Location", "expiresAt": 4_000_000_000_000_i64,
        });
        let reason = import(&abi, &minted, false);
        assert!(reason.contains("a token with a refresh token is stored"), "{kind:?}: {reason}");
        works(&fixture, &abi, &location);
        assert_eq!(import(&abi, &minted, true), "", "{kind:?}");
    }
}

#[test]
fn import_with_replace_of_a_spent_token_does_not_end_a_working_connection() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        fixture.emulator.set_reuse_window_seconds(0);
        let (company, abi, answer) = imported(&fixture);
        abi.token_refresh(&company).ok();
        for (form, answer) in forms(&answer) {
            let reason = import(&abi, &answer, true);
            assert!(reason.contains("spent"), "{kind:?}, {form}: {reason}");
        }
        works(&fixture, &abi, &company);
    }
}

#[test]
fn import_of_a_spent_token_after_a_deletion_is_refused_and_of_a_new_token_accepted() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        let (company, abi, answer) = imported(&fixture);
        for _ in 0..3 {
            abi.token_refresh(&company).ok();
        }
        let last = abi.tokens_export(json!({})).ok()["tokens"][0].clone();
        abi.token_refresh(&company).ok();
        abi.token_delete(&company).ok();
        for spent in [&answer, &last] {
            for (form, answer) in forms(spent) {
                let reason = import(&abi, &answer, false);
                assert!(reason.contains("spent"), "{kind:?}, {form}: {reason}");
            }
        }
        abi.access_token(&company).fails(Status::NotFound);
        let new = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
        assert_eq!(import(&abi, &new, false), "", "{kind:?}: after a new consent");
        works(&fixture, &abi, &company);
        let reason = import(&abi, &answer, false);
        assert!(reason.contains("spent"), "{kind:?}, after the new consent: {reason}");
        works(&fixture, &abi, &company);
    }
}

#[test]
fn import_of_a_token_that_was_held_at_its_uninstall_needs_replace() {
    for kind in EVERY {
        for refreshes in [false, true] {
            let fixture = Fixture::new(kind);
            let (company, abi, mut answer) = imported(&fixture);
            if refreshes {
                abi.token_refresh(&company).ok();
                answer = abi.tokens_export(json!({})).ok()["tokens"][0].clone();
            }
            uninstall(&fixture, &abi, &company);
            let what = format!("{kind:?}, refreshed: {refreshes}");
            // The company's token under a location, and without its refresh token.
            let location = shared(&answer, &[(&company, Some(&fixture.location(0)))]).remove(0);
            let mut bare = answer.clone();
            bare.as_object_mut().unwrap().remove("refreshToken");
            let others = [("of a location", location), ("without a refresh token", bare)];
            for (form, answer) in forms(&answer).into_iter().chain(others) {
                let reason = import(&abi, &answer, false);
                assert!(reason.contains("was uninstalled"), "{what}, {form}: {reason}");
                let dry_run = abi.tokens_import(json!({"tokens": [answer], "dryRun": true})).ok();
                assert_eq!(dry_run["skipped"][0]["reason"], reason, "{what}, {form}");
            }
            abi.access_token(&company).fails(Status::NotFound);
            assert_eq!(import(&abi, &answer, true), "", "{what}");
            assert_eq!(import(&abi, &answer, false), "this token is held already", "{what}");
            uninstall(&fixture, &abi, &company);
            let new = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
            assert_eq!(import(&abi, &new, false), "", "{what}: after a new consent");
            let reason = import(&abi, &forms(&answer)[3].1, false);
            assert!(reason.contains("was uninstalled"), "{what}: {reason}");
            works(&fixture, &abi, &company);
        }
    }
}

#[test]
fn import_of_locations_that_were_held_when_their_company_was_uninstalled_is_skipped() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        let company = abi.connect_company(&fixture.emulator);
        for location in fixture.emulator.location_ids() {
            abi.live_token(&fixture.emulator, &location);
        }
        let exported = abi.tokens_export(json!({})).ok()["tokens"].clone();
        uninstall(&fixture, &abi, &company);
        let report = abi.tokens_import(json!({"tokens": exported})).ok();
        assert_eq!(report["imported"], 0, "{kind:?}: {report}");
        let replaced = abi.tokens_import(json!({"tokens": exported, "replace": true})).ok();
        assert_eq!(replaced["imported"], exported.as_array().unwrap().len(), "{kind:?}");
    }
}

#[test]
fn import_of_a_token_spent_many_refreshes_before_a_deletion_is_refused() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        let (company, abi, answer) = imported(&fixture);
        for _ in 0..70 {
            abi.token_refresh(&company).ok();
        }
        abi.token_delete(&company).ok();
        for replace in [false, true] {
            let reason = import(&abi, &answer, replace);
            assert!(reason.contains("spent"), "{kind:?}, replace: {replace}: {reason}");
        }
    }
}

#[test]
fn import_of_a_token_that_another_client_spent_is_refused() {
    for kind in fixture::DURABLE {
        let fixture = Fixture::new(kind);
        fixture.emulator.set_reuse_window_seconds(0);
        let company = fixture.company();
        let (abi, other) = (fixture.open(), fixture.open());
        let answer = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
        import(&abi, &answer, false);
        abi.live_token(&fixture.emulator, &company);
        other.token_refresh(&company).ok();
        for (form, answer) in forms(&answer) {
            let reason = import(&abi, &answer, false);
            assert!(reason.contains("spent"), "{kind:?}, {form}: {reason}");
        }
        works(&fixture, &abi, &company);
        works(&fixture, &other, &company);
    }
}

#[test]
fn import_during_a_refresh_of_the_same_token_does_not_undo_it() {
    for kind in EVERY {
        for second in [false, true] {
            if second && kind == Kind::Memory {
                continue;
            }
            for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
                let fixture = Fixture::new(kind);
                fixture.emulator.set_reuse_window_seconds(0);
                let company = fixture.company();
                let abi = fixture.open();
                let answer =
                    saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
                import(&abi, &answer, false);
                let other = second.then(|| fixture.open());
                let hold = fixture.emulator.hold(Rule::on(Endpoint::Token), stage);
                let reasons = std::thread::scope(|scope| {
                    let refresh = scope.spawn(|| abi.token_refresh(&company).ok());
                    hold.wait_for(1);
                    let importing = other.as_ref().unwrap_or(&abi);
                    let reasons = call_concurrently(
                        3,
                        || import(importing, &answer, false),
                        || hold.release(),
                    );
                    refresh.join().unwrap();
                    reasons
                });
                let what = format!("{kind:?}, by another client: {second}, {stage:?}");
                assert!(reasons.iter().all(|reason| !reason.is_empty()), "{what}: {reasons:?}");
                works(&fixture, &abi, &company);
                works(&fixture, other.as_ref().unwrap_or(&abi), &company);
            }
        }
    }
}

#[test]
fn import_of_a_spent_token_after_a_lost_connection_is_refused_and_of_a_new_token_accepted() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        fixture.emulator.set_reuse_window_seconds(0);
        let (company, abi, answer) = imported(&fixture);
        abi.token_refresh(&company).ok();
        fixture.emulator.revoke_refresh_token(&company);
        let dead = abi.tokens_export(json!({})).ok()["tokens"][0].clone();
        abi.token_refresh(&company).fails(Status::ReauthorizationRequired);
        for (form, answer) in forms(&answer) {
            let reason = import(&abi, &answer, false);
            assert!(reason.contains("spent"), "{kind:?}, {form}: {reason}");
        }
        assert_ne!(import(&abi, &dead, false), "", "{kind:?}: the server refused this token");
        assert_eq!(abi.listed(&company)["state"], "reauthorizationRequired", "{kind:?}");
        let new = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
        assert_eq!(import(&abi, &new, false), "", "{kind:?}: there is no working token to protect");
        works(&fixture, &abi, &company);
        let reason = import(&abi, &answer, false);
        assert!(reason.contains("spent"), "{kind:?}, after the new token: {reason}");
    }
}

#[test]
fn import_of_a_saved_location_response_does_not_undo_its_refreshes() {
    let fixture = Fixture::new(Kind::Sqlite);
    fixture.emulator.set_reuse_window_seconds(0);
    let location = fixture.location(0);
    let answer =
        saved_answer(&fixture.open(), &fixture.emulator, Decision::Location(location.clone()));
    for start in 0..4 {
        let abi = fixture.open();
        let reason = import(&abi, &answer, false);
        match start {
            0 => assert_eq!(reason, ""),
            1 => assert!(!reason.is_empty(), "the token is already stored"),
            _ => assert!(reason.contains("spent"), "{reason}"),
        }
        if start > 0 {
            works(&fixture, &abi, &location);
        }
    }
}

#[test]
fn import_of_the_predecessor_of_an_unsaved_token_is_refused() {
    for kind in fixture::DURABLE {
        let fixture = Fixture::new(kind);
        fixture.emulator.set_reuse_window_seconds(0);
        let (company, abi, answer) = imported(&fixture);
        fixture::refresh_unsaved(&fixture, &abi, &company);
        let current = abi.access_token(&company).text();
        for store_works in [false, true] {
            if store_works {
                fixture.accept_saves();
            }
            let report = abi.tokens_import(json!({"tokens": [answer]}));
            if report.0 == 0 {
                assert_eq!(report.1["imported"], 0, "{kind:?}");
            }
            assert_eq!(abi.live_token(&fixture.emulator, &company), current, "{kind:?}");
        }
        works(&fixture, &abi, &company);
    }
}

// ---- One refresh token under several owners -----------------------------------------------------

/// Entries of a migrated app with the refresh token of the company under each of these owners.
fn shared(answer: &Value, owners: &[(&str, Option<&str>)]) -> Vec<Value> {
    let entry = |(company, location): &(&str, Option<&str>)| {
        json!({
            "accessToken": format!("old token of {location:?}"),
            "refreshToken": answer["refreshToken"],
            "companyId": company, "locationId": location, "expiresAt": 1_700_000_000_000_i64,
            "userType": if location.is_some() { "Location" } else { "Company" },
        })
    };
    owners.iter().map(entry).collect()
}

/// The resources that hold this refresh token.
fn holders(abi: &Abi, refresh_token: &Value) -> Vec<String> {
    let exported = abi.tokens_export(json!({})).ok();
    let tokens = exported["tokens"].as_array().unwrap().iter();
    tokens
        .filter(|token| token["refreshToken"] == *refresh_token)
        .map(|token| match &token["locationId"] {
            Value::String(id) => id.clone(),
            _ => token["companyId"].as_str().unwrap().to_owned(),
        })
        .collect()
}

#[test]
fn refresh_token_imported_for_a_company_and_its_locations_is_assigned_to_the_company_in_any_order()
{
    for kind in EVERY {
        for order in [[0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 1, 0]] {
            let fixture = Fixture::new(kind);
            fixture.emulator.set_reuse_window_seconds(0);
            let (company, first, second) =
                (fixture.company(), fixture.location(0), fixture.location(1));
            let abi = fixture.open();
            let answer = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
            let owners = [
                (&company[..], None),
                (&company[..], Some(&first[..])),
                (&company[..], Some(&second[..])),
            ];
            let entries = shared(&answer, &order.map(|index| owners[index]));
            let report = abi.tokens_import(json!({"tokens": entries})).ok();
            let what = format!("{kind:?}, {order:?}: {report}");
            assert_eq!(report["imported"], 1, "{what}");
            let skipped = report["skipped"].as_array().unwrap();
            for skipped in skipped {
                assert!(
                    skipped["reason"].as_str().unwrap().contains(&company),
                    "{what}: owners of the refresh token"
                );
                assert_ne!(skipped["resourceId"], company.as_str(), "{what}");
            }
            assert_eq!(skipped.len(), 2, "{what}");
            assert_eq!(
                holders(&abi, &answer["refreshToken"]),
                std::slice::from_ref(&company),
                "{what}"
            );
            for resource in [&first, &company, &second] {
                abi.live_token(&fixture.emulator, resource);
            }
            assert_eq!(fixture.emulator.refreshes(), 1, "{what}");
        }
    }
}

#[test]
fn refresh_token_repeated_far_apart_in_a_long_import_is_assigned_to_the_company_in_any_order() {
    for kind in EVERY {
        for company_last in [false, true] {
            let fixture = Fixture::new(kind);
            let (company, location) = (fixture.company(), fixture.location(0));
            let abi = fixture.open();
            let answer = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
            let mut pair = shared(&answer, &[(&company, None), (&company, Some(&location))]);
            if company_last {
                pair.reverse();
            }
            let between = (0..250).map(|index| {
                json!({
                    "accessToken": "a", "refreshToken": format!("of {index}"),
                    "locationId": format!("filler{index}"), "companyId": "elsewhere",
                    "expiresIn": 80_000,
                })
            });
            let [first, last] = <[Value; 2]>::try_from(pair).unwrap();
            let entries: Vec<Value> = [first].into_iter().chain(between).chain([last]).collect();
            let report = abi.tokens_import(json!({"tokens": entries})).ok();
            assert_eq!(report["imported"], 251, "{kind:?}: {report}");
            assert_eq!(report["skipped"][0]["resourceId"], location.as_str(), "{kind:?}: {report}");
            for id in [&location, &company] {
                abi.live_token(&fixture.emulator, id);
            }
        }
    }
}

#[test]
fn import_of_a_spent_company_token_under_its_location_replaces_no_valid_token() {
    for kind in EVERY {
        for replace in [false, true] {
            let fixture = Fixture::new(kind);
            fixture.emulator.set_reuse_window_seconds(0);
            let (company, location) = (fixture.company(), fixture.location(0));
            let abi = fixture.open();
            let answer = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
            import(&abi, &answer, false);
            abi.token_refresh(&company).ok();
            abi.connect(&fixture.emulator, Decision::Location(location.clone()));
            let held = abi.live_token(&fixture.emulator, &location);
            let mut entry = shared(&answer, &[(&company, Some(&location))]).remove(0);
            entry["expiresAt"] = json!(4_000_000_000_000_i64);
            let reason = import(&abi, &entry, replace);
            assert!(reason.contains("spent"), "{kind:?}, replace: {replace}: {reason}");
            assert_eq!(abi.live_token(&fixture.emulator, &location), held, "{kind:?}");
            for id in [&location, &company] {
                works(&fixture, &abi, id);
            }
        }
    }
}

#[test]
fn refresh_token_imported_for_two_locations_is_reported_and_assigned_to_its_owner_in_any_order() {
    for kind in EVERY {
        for order in [[0, 1], [1, 0]] {
            let fixture = Fixture::new(kind);
            fixture.emulator.set_reuse_window_seconds(0);
            let (company, [owner, other]) =
                (fixture.company(), [fixture.location(0), fixture.location(1)]);
            let abi = fixture.open();
            let answer = saved_answer(&abi, &fixture.emulator, Decision::Location(owner.clone()));
            let owners = [(&company[..], Some(&owner[..])), (&company[..], Some(&other[..]))];
            let entries = shared(&answer, &order.map(|index| owners[index]));
            let report = abi.tokens_import(json!({"tokens": entries})).ok();
            let what = format!("{kind:?}, {order:?}: {report}");
            let skipped = report["skipped"].as_array().unwrap();
            assert!(!skipped.is_empty(), "{what}");
            for skipped in skipped {
                let named = if skipped["resourceId"] == owner.as_str() { &other } else { &owner };
                assert!(
                    skipped["reason"].as_str().unwrap().contains(named.as_str()),
                    "{what}: owners of the refresh token"
                );
            }
            assert!(holders(&abi, &answer["refreshToken"]).len() <= 1, "{what}");
            let _ = abi.tokens_maintain(json!({}), |_| true).ok();
            let token = abi.live_token(&fixture.emulator, &owner);
            assert_ne!(abi.access_token(&other).1, token.as_str(), "{what}");
            assert_eq!(fixture.emulator.refreshes(), 1, "{what}");
            works(&fixture, &abi, &owner);
        }
    }
}

#[test]
fn refresh_token_imported_twice_is_stored_once_and_every_owner_gets_a_token() {
    for kind in EVERY {
        for company_first in [true, false] {
            let fixture = Fixture::new(kind);
            fixture.emulator.set_reuse_window_seconds(0);
            let (company, location) = (fixture.company(), fixture.location(0));
            let abi = fixture.open();
            let answer = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
            let mut owners = [(&company[..], None), (&company[..], Some(&location[..]))];
            if !company_first {
                owners.reverse();
            }
            let what = format!("{kind:?}, the company first: {company_first}");
            assert_eq!(import(&abi, &shared(&answer, &owners[..1])[0], false), "", "{what}");
            let reason = import(&abi, &shared(&answer, &owners[1..])[0], false);
            assert_eq!(holders(&abi, &answer["refreshToken"]).len(), 1, "{what}");
            if company_first {
                assert!(reason.contains(&company), "{what}: {reason}");
            }
            for resource in [&location, &company] {
                abi.live_token(&fixture.emulator, resource);
            }
            for resource in [&company, &location] {
                works(&fixture, &abi, resource);
            }
        }
    }
}

#[test]
fn location_stored_with_the_refresh_token_of_its_company_is_minted_from_the_company() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        fixture.emulator.set_reuse_window_seconds(0);
        let (company, location) = (fixture.company(), fixture.location(0));
        let abi = fixture.open();
        let answer = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
        import(&abi, &shared(&answer, &[(&company, Some(&location))])[0], false);
        let token = abi.live_token(&fixture.emulator, &location);
        // A server that checks the class of the refresh token may refuse it first, which spends
        // nothing.
        let mut requests = sent(&fixture.emulator);
        requests.retain(|request| request != "refresh 401");
        assert_eq!(requests, ["code 200", "refresh 200", "mint 200"], "{kind:?}");
        assert_ne!(
            abi.live_token(&fixture.emulator, &company),
            token,
            "{kind:?}: each has its own"
        );
        assert_eq!(abi.listed(&company)["userType"], "Company", "{kind:?}");
        for resource in [&company, &location] {
            works(&fixture, &abi, resource);
        }
    }
}

#[test]
fn older_company_token_of_a_location_does_not_replace_a_later_consent_of_the_company() {
    for kind in EVERY.into_iter().filter(|kind| *kind != Kind::Host) {
        let fixture = Fixture::new(kind);
        let (company, location) = (fixture.company(), fixture.location(0));
        let abi = fixture.open();
        let answer = saved_answer(&abi, &fixture.emulator, Decision::Company(company.clone()));
        import(&abi, &shared(&answer, &[(&company, Some(&location))])[0], false);
        fixture.pass(Duration::from_secs(60));
        abi.connect_company(&fixture.emulator);
        let consented = abi.live_token(&fixture.emulator, &company);
        abi.live_token(&fixture.emulator, &location);
        assert!(sent(&fixture.emulator).contains(&"refresh 200".to_owned()), "{kind:?}");
        assert_eq!(abi.live_token(&fixture.emulator, &company), consented, "{kind:?}");
        works(&fixture, &abi, &company);
    }
}

/// Two stored records share one refresh token, as imported by an older version of the library.
#[test]
fn stored_tokens_with_the_same_refresh_token_are_assigned_to_their_owners() {
    for company_first in [false, true] {
        let fixture = Fixture::new(Kind::Sqlite);
        fixture.emulator.set_reuse_window_seconds(0);
        let abi = fixture.open();
        let company = abi.connect_company(&fixture.emulator);
        for location in fixture.emulator.location_ids() {
            abi.live_token(&fixture.emulator, &location);
        }
        let exported = abi.tokens_export(json!({})).ok()["tokens"].clone();
        drop(abi);
        let tokens = exported.as_array().unwrap();
        let of_company = tokens.iter().find(|token| token["userType"] == "Company").unwrap();
        for token in tokens.iter().filter(|token| token["userType"] == "Location") {
            let changed = fixture.database().execute(
                "UPDATE token SET document = CAST(replace(CAST(document AS TEXT), ?2, ?3) AS \
                 BLOB) WHERE resource_id = ?1",
                [&token["locationId"], &token["refreshToken"], &of_company["refreshToken"]]
                    .map(|text| text.as_str().unwrap()),
            );
            assert_eq!(changed.unwrap(), 1);
            fixture.emulator.revoke_refresh_token(token["locationId"].as_str().unwrap());
        }
        fixture.pass(DAY);
        let abi = fixture.open();
        let mut ids = fixture.emulator.location_ids();
        ids.insert(if company_first { 0 } else { 1 }, company);
        for id in &ids {
            abi.live_token(&fixture.emulator, id);
        }
        for id in &ids {
            works(&fixture, &abi, id);
            assert_eq!(abi.listed(id)["state"], "ok");
        }
    }
}

#[test]
fn private_integration_token_of_a_location_of_a_connected_company_is_kept() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        for changes in [
            json!({}),
            json!({"refreshToken": null, "expiresAt": null}),
            json!({"refreshToken": ""}),
        ] {
            let fixture = Fixture::new(kind);
            let abi = fixture.open();
            let (company, location) = (abi.connect_company(&fixture.emulator), fixture.location(0));
            let token = fixture.emulator.private_token(&location);
            let mut entry = json!({
                "accessToken": token, "locationId": location, "companyId": company,
                "userType": "Location",
            });
            entry.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            assert_eq!(import(&abi, &entry, false), "", "{kind:?}, {changes}");
            for _ in 0..3 {
                fixture.pass(100 * DAY);
                let _ = abi.tokens_maintain(json!({}), |_| true).ok();
                assert_eq!(abi.access_token(&location).text(), token, "{kind:?}, {changes}");
                abi.live_token(&fixture.emulator, &company);
            }
        }
    }
}

#[test]
fn private_integration_token_is_returned_for_years() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        for (field, owner) in [("locationId", "location1"), ("companyId", "company1")] {
            let fixture = Fixture::new(kind);
            let mut abi = fixture.open();
            let entry = json!({"accessToken": "pit-0123456789", field: owner});
            assert_eq!(import(&abi, &entry, false), "");
            for years in 1..=3 {
                for again in [false, true] {
                    if again && kind == Kind::Sqlite {
                        abi = fixture.open();
                    }
                    assert_eq!(
                        abi.access_token(owner).text(),
                        "pit-0123456789",
                        "{kind:?}, {years}"
                    );
                    let report = abi.tokens_maintain(json!({}), |_| true).ok();
                    assert_eq!(report["failed"], json!([]), "{kind:?}, {years}: {report}");
                }
                fixture.pass(365 * DAY + Duration::from_secs(1));
            }
            assert_eq!(abi.listed(owner)["state"], "ok");
            assert_eq!(abi.listed(owner)["refreshable"], false);
            assert_eq!(sent(&fixture.emulator), [""; 0], "{kind:?}: no request is due");
        }
    }
}
