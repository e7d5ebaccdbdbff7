//! Client ID rotation: a client with a new client ID does not see the tokens of the old one,
//! reports that they exist, and can adopt them.

mod built;
mod fixture;
mod support;

use std::ffi::{CStr, c_char, c_void};
#[cfg(unix)]
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::ghl_set_log_callback;
use ghl_oauth_emulator::{Decision, Endpoint, FaultKind, Rule, Stage};
use serde_json::{Value, json};

use fixture::{Fixture, Kind};
use support::Abi;

const OLD_ID: &str = "6600aabbccddeeff00112233-oldkey";

const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// A client with the old client ID on the same database, with further configuration changes.
fn old(fixture: &Fixture, changes: Value) -> Abi {
    let mut all = json!({"clientId": OLD_ID});
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    fixture.open_with(all)
}

/// Consents and mints with the current client ID, and then moves the rows to the old one.
fn held_under_the_old_id(fixture: &Fixture, changes: &Value) -> (Abi, String, String) {
    let abi = fixture.open_with(changes.clone());
    let company = abi.connect_company(&fixture.emulator);
    let location = fixture.location(0);
    abi.live_token(&fixture.emulator, &location);
    let own_id = fixture.emulator.client_id().to_owned();
    let moved = old(fixture, changes.clone()).tokens_adopt(json!({"clientId": own_id})).ok();
    assert_eq!(moved["adopted"], 2, "{moved}");
    drop(abi);
    (fixture.open_with(changes.clone()), company, location)
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["resourceId"].as_str().unwrap())
        .collect()
}

fn secrets(abi: &Abi) -> Vec<Value> {
    let mut tokens = abi.tokens_export(json!({})).ok()["tokens"].as_array().unwrap().clone();
    for token in &mut tokens {
        token
            .as_object_mut()
            .unwrap()
            .retain(|name, _| name == "accessToken" || name == "refreshToken");
    }
    tokens
}

#[test]
fn token_requested_under_a_new_client_id_is_not_found_and_the_error_names_the_old_id() {
    let fixture = Fixture::new(Kind::Sqlite);
    let (abi, company, location) = held_under_the_old_id(&fixture, &json!({}));
    assert_eq!(abi.tokens_list(json!({})).ok()["items"], json!([]));
    for id in [&company, &location] {
        for error in [
            abi.access_token(id).fails(Status::NotFound),
            abi.token_refresh(id).fails(Status::NotFound),
            abi.request(json!({"method": "GET", "path": "/locations/x", "resourceId": id}))
                .fails(Status::NotFound),
        ] {
            let help = error["help"].as_str().unwrap();
            assert!(help.contains(OLD_ID) && help.contains("ghl_tokens_adopt"), "{help}");
        }
    }
    let clients = abi.tokens_adopt(json!({})).ok();
    assert_eq!(
        clients,
        json!({
            "adopted": 0, "skipped": [], "failed": [],
            "clients": [{"clientId": OLD_ID, "tokens": 2}],
        })
    );

    // The error gives no such advice if the store holds no tokens of another client ID.
    let lonely = Fixture::new(Kind::Sqlite);
    let error = lonely.open().access_token("unknown").fails(Status::NotFound);
    assert!(!error["help"].as_str().unwrap().contains("ghl_tokens_adopt"), "{error}");
}

#[test]
fn token_whose_refresh_has_an_unknown_outcome_is_not_adopted() {
    let fixture = Fixture::new(Kind::Sqlite);
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    fixture.emulator.inject(Rule::on(Endpoint::Token), FaultKind::ReplyLost);
    assert_ne!(abi.token_refresh(&company).0, 0);
    fixture.emulator.clear_faults();
    let own_id = fixture.emulator.client_id().to_owned();
    let report = old(&fixture, json!({})).tokens_adopt(json!({"clientId": own_id})).ok();
    assert_eq!(
        (&report["adopted"], &report["skipped"][0]["resourceId"]),
        (&json!(0), &json!(company)),
        "{report}"
    );
    assert!(
        report["skipped"][0]["reason"].as_str().unwrap().contains("unknown outcome"),
        "{report}"
    );
    abi.token_refresh(&company).ok();
    assert_eq!(
        old(&fixture, json!({})).tokens_adopt(json!({"clientId": own_id})).ok()["adopted"],
        1
    );
}

/// The warnings of this process that name other client IDs.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

unsafe extern "C" fn hear(level: i32, message: *const c_char, _: *mut c_void) {
    // SAFETY: the library passes a NUL-terminated string.
    let message = unsafe { CStr::from_ptr(message) }.to_str().unwrap().to_owned();
    if level == 2 && message.contains("ghl_tokens_adopt") {
        WARNINGS.lock().unwrap().push(message);
    }
}

#[test]
fn client_on_a_store_with_tokens_of_another_client_id_warns_once() {
    const LOUD_ID: &str = "6600aabbccddeeff00112233-loud";
    // SAFETY: the callback has the declared type.
    assert_eq!(unsafe { ghl_set_log_callback(Some(hear), std::ptr::null_mut(), 2) }, 0);
    let fixture = Fixture::new(Kind::Sqlite);
    let loud = fixture.open_with(json!({"clientId": LOUD_ID}));
    let token =
        json!({"accessToken": "a", "companyId": "c", "userType": "Company", "expiresIn": 86_399});
    loud.tokens_import(json!({"tokens": [token]})).ok();
    let heard = || {
        let warnings = WARNINGS.lock().unwrap();
        warnings.iter().filter(|warning| warning.contains(LOUD_ID)).count()
    };
    assert_eq!(heard(), 0);
    let listing = fixture.open();
    for _ in 0..3 {
        listing.tokens_list(json!({})).ok();
    }
    assert_eq!(heard(), 1);
    let asking = fixture.open();
    for _ in 0..3 {
        asking.access_token("c").fails(Status::NotFound);
    }
    assert_eq!(heard(), 2, "once for each client");
}

#[test]
fn adopted_tokens_work_unchanged_under_the_new_client_id_and_are_gone_from_the_old() {
    for changes in [json!({}), json!({"store": {"encryptionKeys": [KEY]}})] {
        let fixture = Fixture::new(Kind::Sqlite);
        let (abi, company, location) = held_under_the_old_id(&fixture, &changes);
        let old = old(&fixture, changes);
        let before = secrets(&old);
        let report = abi.tokens_adopt(json!({"clientId": OLD_ID})).ok();
        assert_eq!(report, json!({"adopted": 2, "skipped": [], "failed": [], "clients": []}));
        assert_eq!(secrets(&abi), before);
        assert_eq!(ids(&old.tokens_list(json!({})).ok()), Vec::<&str>::new());
        for id in [&company, &location] {
            abi.live_token(&fixture.emulator, id);
            abi.token_refresh(id).ok();
            abi.live_token(&fixture.emulator, id);
        }
        let again = abi.tokens_adopt(json!({"clientId": OLD_ID})).ok();
        assert_eq!(again["adopted"], 0, "{again}");
        // A client with a copy in memory does not restore it.
        old.access_token(&company).fails(Status::NotFound);
    }
}

#[test]
fn adoption_dry_run_reports_and_changes_nothing() {
    let fixture = Fixture::new(Kind::Sqlite);
    let (abi, ..) = held_under_the_old_id(&fixture, &json!({}));
    let report = abi.tokens_adopt(json!({"clientId": OLD_ID, "dryRun": true})).ok();
    assert_eq!((&report["adopted"], &report["clients"][0]["tokens"]), (&json!(2), &json!(2)));
    assert_eq!(abi.tokens_list(json!({})).ok()["items"], json!([]));
}

#[test]
fn adoption_of_one_resource_leaves_the_others_unchanged() {
    let fixture = Fixture::new(Kind::Sqlite);
    let (abi, company, location) = held_under_the_old_id(&fixture, &json!({}));
    let report = abi.tokens_adopt(json!({"clientId": OLD_ID, "resourceId": company})).ok();
    assert_eq!((&report["adopted"], &report["clients"][0]["tokens"]), (&json!(1), &json!(1)));
    assert_eq!(ids(&abi.tokens_list(json!({})).ok()), [&company]);
    assert_eq!(ids(&old(&fixture, json!({})).tokens_list(json!({})).ok()), [&location]);
    let absent = abi.tokens_adopt(json!({"clientId": OLD_ID, "resourceId": company})).ok();
    assert_eq!(absent["skipped"][0]["reason"], "no token is held under the other client id");
}

#[test]
fn token_stored_under_the_new_client_id_is_not_replaced_by_an_adoption() {
    let fixture = Fixture::new(Kind::Sqlite);
    let (abi, company, location) = held_under_the_old_id(&fixture, &json!({}));
    abi.connect(&fixture.emulator, Decision::Company(company.clone()));
    let held = abi.live_token(&fixture.emulator, &company);
    let report = abi.tokens_adopt(json!({"clientId": OLD_ID})).ok();
    assert_eq!(report["adopted"], 1, "{report}");
    assert_eq!(
        report["skipped"],
        json!([{"resourceId": company, "reason": "a token is held under this client id"}])
    );
    assert_eq!(abi.access_token(&company).text(), held);
    assert_eq!(
        ids(&old(&fixture, json!({})).tokens_list(json!({})).ok()),
        [&company],
        "it is not lost either"
    );
    abi.live_token(&fixture.emulator, &location);
}

#[test]
fn token_deleted_under_the_new_client_id_is_not_restored_by_an_adoption() {
    let fixture = Fixture::new(Kind::Sqlite);
    let (abi, company, _) = held_under_the_old_id(&fixture, &json!({}));
    fixture.pass(support::DAY / 24);
    abi.connect(&fixture.emulator, Decision::Company(company.clone()));
    abi.token_delete(&company).ok();
    let report = abi.tokens_adopt(json!({"clientId": OLD_ID})).ok();
    assert_eq!(
        report["skipped"],
        json!([{"resourceId": company, "reason": "it was deleted under this client id"}])
    );
    abi.access_token(&company).fails(Status::NotFound);
}

#[test]
fn adoption_interrupted_between_its_two_steps_is_completed_by_the_next() {
    for refreshed_meanwhile in [false, true] {
        let fixture = Fixture::new(Kind::Sqlite);
        let (abi, company, location) = held_under_the_old_id(&fixture, &json!({}));
        // The state after the first step: the row exists under both client IDs.
        let copy = "CREATE TEMP TABLE both AS SELECT * FROM token WHERE client_id = ?1";
        let database = fixture.database();
        database.execute(copy, [OLD_ID]).unwrap();
        abi.tokens_adopt(json!({"clientId": OLD_ID})).ok();
        database.execute("INSERT INTO token SELECT * FROM both", []).unwrap();
        drop(database);
        if refreshed_meanwhile {
            abi.token_refresh(&company).ok();
            abi.token_refresh(&location).ok();
        }
        let tokens = secrets(&abi);
        let report = abi.tokens_adopt(json!({"clientId": OLD_ID})).ok();
        assert_eq!((&report["skipped"], &report["clients"]), (&json!([]), &json!([])), "{report}");
        assert_eq!(secrets(&abi), tokens, "the copy replaces nothing");
        abi.token_refresh(&company).ok();
    }
}

#[test]
fn adoption_waits_for_a_refresh_under_the_old_client_id() {
    let fixture = Fixture::new(Kind::Sqlite);
    let (abi, company, _) = held_under_the_old_id(&fixture, &json!({}));
    // The emulator does not know the old client id: it refuses the refresh that it held, and the
    // token stays.
    let old = old(&fixture, json!({}));
    let hold = fixture.emulator.hold(Rule::on(Endpoint::Token), Stage::BeforeProcessing);
    std::thread::scope(|scope| {
        let refresh = scope.spawn(|| old.token_refresh(&company));
        hold.wait_for(1);
        let adoption = scope.spawn(|| abi.tokens_adopt(json!({"clientId": OLD_ID})));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!adoption.is_finished(), "the refresh has not ended");
        hold.release();
        let _ = refresh.join().unwrap();
        assert_eq!(adoption.join().unwrap().ok()["adopted"], 2);
    });
}

#[test]
fn concurrent_adoptions_in_opposite_directions_do_not_wait_for_each_other() {
    let fixture = Fixture::new(Kind::Sqlite);
    let (abi, old) = (fixture.open(), old(&fixture, json!({})));
    let own_id = fixture.emulator.client_id().to_owned();
    let tokens = |of: &str| {
        let token = |index: u32| {
            json!({"accessToken": "a", "refreshToken": format!("{of} {index}"), "expiresIn": 86_399,
                   "locationId": format!("location{index}"), "userType": "Location"})
        };
        json!({"tokens": (0..300).map(token).collect::<Vec<_>>()})
    };
    assert_eq!(abi.tokens_import(tokens("new")).ok()["imported"], 300);
    assert_eq!(old.tokens_import(tokens("old")).ok()["imported"], 300);
    // Each adoption takes both locks of every location, and skips it.
    thread::scope(|scope| {
        for (into, from) in [(&abi, OLD_ID), (&old, &own_id)] {
            scope.spawn(move || {
                let report = into.tokens_adopt(json!({"clientId": from})).ok();
                assert_eq!(report["skipped"].as_array().unwrap().len(), 300);
            });
        }
    });
}

#[test]
fn refresh_token_spent_long_before_an_adoption_is_not_imported_after_it() {
    let fixture = Fixture::new(Kind::Sqlite);
    let old = old(&fixture, json!({}));
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    let mut first = abi.tokens_export(json!({})).ok();
    first["tokens"][0]["expiresAt"] = json!(4_000_000_000_000_i64);
    // More than a record keeps.
    for _ in 0..70 {
        abi.token_refresh(&company).ok();
    }
    let own_id = fixture.emulator.client_id().to_owned();
    assert_eq!(old.tokens_adopt(json!({"clientId": own_id})).ok()["adopted"], 1);
    let report = old.tokens_import(first).ok();
    let reason = report["skipped"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("already spent"), "{report}");
}

#[test]
fn lost_connection_is_retried_after_an_adoption_and_can_be_adopted_back() {
    let fixture = Fixture::new(Kind::Sqlite);
    let (abi, company, _) = held_under_the_old_id(&fixture, &json!({}));
    let old = old(&fixture, json!({}));
    // The emulator does not know the old client ID, and refuses the refresh.
    let _ = old.token_refresh(&company);
    let report = abi.tokens_adopt(json!({"clientId": OLD_ID, "resourceId": company})).ok();
    assert_eq!(report["adopted"], 1, "{report}");
    assert_eq!(abi.listed(&company)["state"], "ok");
    let own_id = fixture.emulator.client_id();
    let back = old.tokens_adopt(json!({"clientId": own_id, "resourceId": company})).ok();
    assert_eq!(back["adopted"], 1, "{back}");
    assert_eq!(old.listed(&company)["state"], "ok");
    abi.access_token(&company).fails(Status::NotFound);
    abi.tokens_adopt(json!({"clientId": OLD_ID, "resourceId": company})).ok();
    abi.token_refresh(&company).ok();
}

#[test]
fn unreadable_row_under_the_old_client_id_fails_alone_in_an_adoption() {
    let fixture = Fixture::new(Kind::Sqlite);
    let (abi, company, location) = held_under_the_old_id(&fixture, &json!({}));
    fixture.damage(&company);
    let report = abi.tokens_adopt(json!({"clientId": OLD_ID})).ok();
    assert_eq!(
        (&report["adopted"], &report["failed"][0]["resourceId"]),
        (&json!(1), &json!(company))
    );
    assert_eq!(ids(&abi.tokens_list(json!({})).ok()), [&location]);
}

#[test]
fn install_waiting_for_its_company_token_is_adopted() {
    let fixture = Fixture::new(Kind::Sqlite);
    let (abi, ..) = held_under_the_old_id(&fixture, &json!({}));
    let location = fixture.location(1);
    let body = fixture.emulator.webhook(&ghl_oauth_emulator::Notice::Install(location.clone()));
    let headers =
        support::signed(&fixture.emulator, body.as_bytes(), ghl_oauth_emulator::Signature::Ed25519);
    let applied = abi.webhook_apply(body.as_bytes(), &headers).ok();
    assert_eq!(applied["reason"], "remembered until its company's token is available", "{applied}");
    // Move the note, as if the webhook had arrived under the old client ID.
    fixture.database().execute("UPDATE note SET client_id = ?1", [OLD_ID]).unwrap();
    abi.tokens_adopt(json!({"clientId": OLD_ID})).ok();
    abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!(abi.listed(&location)["state"], "ok");
}

#[test]
fn store_without_client_ids_refuses_an_adoption_and_suggests_an_import() {
    for kind in [Kind::Memory, Kind::Host] {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        assert_eq!(abi.tokens_adopt(json!({})).ok()["clients"], json!([]));
        let error = abi.tokens_adopt(json!({"clientId": OLD_ID})).fails(Status::Config);
        assert_eq!(
            (&error["parameter"], &error["retryable"]),
            (&json!("store.kind"), &json!(false))
        );
        assert!(error["help"].as_str().unwrap().contains("ghl_tokens_import"), "{error}");
    }
}

#[test]
fn invalid_adoption_parameters_are_named_in_the_error() {
    let fixture = Fixture::new(Kind::Sqlite);
    let abi = fixture.open();
    abi.tokens_adopt(json!({"clientId": fixture.emulator.client_id()})).refuses("clientId");
    abi.tokens_adopt(json!({"clientId": "a b\n"})).refuses("clientId");
    abi.tokens_adopt(json!({"clientId": OLD_ID, "resourceId": ""})).refuses("resourceId");
}

/// Runs `program CONFIGURATION OTHER-CLIENT-ID RESOURCE-ID`, which adopts and checks each report.
#[cfg(unix)]
fn adopts(source: &str) {
    let fixture = Fixture::new(Kind::Sqlite);
    let (abi, company, location) = held_under_the_old_id(&fixture, &json!({}));
    let config = support::config(
        &fixture.emulator,
        json!({"store": {"kind": "sqlite", "path": fixture.path()}}),
    );
    let folder = tempfile::tempdir().unwrap();
    let program = built::program(source, folder.path());
    let mut run = Command::new(program);
    run.arg(config.to_string()).args([OLD_ID, &company]).env("LD_LIBRARY_PATH", built::folder());
    assert!(run.status().unwrap().success(), "{source}");
    for id in [&company, &location] {
        abi.token_refresh(id).ok();
    }
}

#[cfg(unix)]
#[test]
fn typed_c_calls_adopt_and_read_the_whole_report() {
    adopts("tests/abi/adopt.c");
}

#[cfg(unix)]
#[test]
fn cpp_client_adopts_and_reads_the_whole_report() {
    adopts("tests/abi/cpp_adopt.cpp");
}
