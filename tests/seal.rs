//! Encryption at rest: records cannot be read, swapped or rolled back by editing the files, keys
//! are rotated without downtime, and a wrong key overwrites nothing.

mod store_suite;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use ghl_oauth::Status;
use ghl_oauth::internals::store::{Record, Seal, SqliteStore, Store};
use ghl_oauth::internals::token::UserType;
use ghl_oauth_emulator::Emulator;
use rusqlite::Connection;
use serde_json::{Value, json};
use store_suite::{assert_store_contract, patience, token};
use support::{Abi, emulator};

const OLD: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const NEW: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// A company and its locations in an existing store.
struct Fixture {
    emulator: Emulator,
    folder: tempfile::TempDir,
}

impl Fixture {
    /// Connects the company and mints its locations with these keys.
    fn new(keys: &[&str]) -> Fixture {
        let fixture = Fixture { emulator: emulator(3), folder: tempfile::tempdir().unwrap() };
        let abi = fixture.open(keys);
        let company = abi.connect_company(&fixture.emulator);
        abi.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
        abi.token_refresh(&company).ok();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tokens.db")
    }

    fn open(&self, keys: &[&str]) -> Abi {
        self.with(json!({"encryptionKeys": keys}))
    }

    fn with(&self, mut store: Value) -> Abi {
        store["kind"] = "sqlite".into();
        store["path"] = json!(self.path());
        Abi::with(&self.emulator, json!({"store": store}))
    }

    fn company(&self) -> String {
        self.emulator.company_id()
    }

    fn sql(&self, statement: &str) {
        assert!(
            Connection::open(self.path()).unwrap().execute(statement, []).unwrap() > 0,
            "{statement}"
        );
    }

    fn rows(&self) -> Vec<(String, i64, Vec<u8>)> {
        let connection = Connection::open(self.path()).unwrap();
        let mut select = connection
            .prepare("SELECT resource_id, version, document FROM token ORDER BY 1")
            .unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// Whether any file of the store contains the text.
    fn is_on_disk(&self, text: &str) -> bool {
        fs::read_dir(self.folder.path()).unwrap().any(|entry| holds(&entry.unwrap().path(), text))
    }
}

fn holds(path: &Path, text: &str) -> bool {
    path.is_file()
        && fs::read(path).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn sealed_store_passes_the_store_suite() {
    let folder = tempfile::tempdir().unwrap();
    let seal = Seal::new("app-1", &[OLD.to_owned().into()], true, "store.encryptionKeys").unwrap();
    assert_store_contract(&SqliteStore::open(&folder.path().join("tokens.db"), seal).unwrap());
}

#[test]
fn sealed_files_contain_no_token_and_all_tokens_are_readable_after_a_restart() {
    let fixture = Fixture::new(&[OLD]);
    let abi = fixture.open(&[OLD]);
    let export = abi.tokens_export(json!({})).ok();
    for token in export["tokens"].as_array().unwrap() {
        for secret in ["accessToken", "refreshToken"] {
            assert!(!fixture.is_on_disk(token[secret].as_str().unwrap()), "{secret} is in a file");
        }
    }
    assert!(!fixture.is_on_disk("refreshToken") && fixture.is_on_disk(&fixture.company()));
    for location in fixture.emulator.location_ids() {
        abi.live_token(&fixture.emulator, &location);
    }
    abi.token_refresh(&fixture.company()).ok();
}

#[test]
fn row_that_was_changed_moved_or_restored_is_detected() {
    let fixture = Fixture::new(&[OLD]);
    let (company, location) = (fixture.company(), fixture.emulator.location_ids()[0].clone());
    let before = fixture.rows();
    let old = before.iter().find(|row| row.0 == company).unwrap().clone();
    fixture.open(&[OLD]).token_refresh(&company).ok();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut flipped = old.2.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let document = |document: &[u8], id: &str| {
        format!("UPDATE token SET document = x'{}' WHERE resource_id = '{id}'", hex(document))
    };
    for (what, statement) in [
        ("restored under the newer version", document(&old.2, &company)),
        ("moved to another resource", document(&old.2, &location)),
        ("changed by one bit", document(&flipped, &company)),
        ("cut", document(&old.2[..20], &company)),
        ("emptied", document(&[], &company)),
        ("another version", "UPDATE token SET version = version + 1".to_owned()),
        ("another app's", "UPDATE token SET client_id = 'app-2'".to_owned()),
    ] {
        let rows = fixture.rows();
        fixture.sql(&statement);
        let changed = fixture.rows();
        if what == "another app's" {
            let seal = Seal::new("app-2", &[OLD.to_owned().into()], false, "k").unwrap();
            let error = SqliteStore::open(&fixture.path(), seal)
                .unwrap()
                .load(&company, &patience())
                .unwrap_err();
            assert_eq!(error.status(), Status::Store, "{what}");
            continue;
        }
        let id = if what.starts_with("moved") { &location } else { &company };
        let abi = fixture.open(&[OLD]);
        let refreshes = fixture.emulator.refreshes();
        let error = abi.token_refresh(id).fails(Status::Store);
        assert_eq!(error["resourceId"], id.as_str(), "{what}: {error}");
        let listed = abi.tokens_list(json!({})).ok();
        let failed = listed["failed"].as_array().unwrap();
        assert!(
            failed.iter().any(|failed| failed["resourceId"] == id.as_str()),
            "{what}: {listed}"
        );
        assert_eq!(fixture.emulator.refreshes(), refreshes, "{what}: no token is spent");
        assert_eq!(fixture.rows(), changed, "{what}: nothing is overwritten");
        // Restores the rows for the next case.
        for (id, version, row) in rows {
            fixture.sql(&document(&row, &id));
            fixture
                .sql(&format!("UPDATE token SET version = {version} WHERE resource_id = '{id}'"));
        }
    }
}

#[test]
fn keys_are_rotated_without_downtime() {
    let fixture = Fixture::new(&[OLD]);
    let company = fixture.company();
    // Some processes know the new key only for decryption while others already encrypt with it.
    let (behind, ahead) = (fixture.open(&[OLD, NEW]), fixture.open(&[NEW, OLD]));
    for abi in [&ahead, &behind, &ahead] {
        abi.token_refresh(&company).ok();
    }
    // Every save encrypts with the first key.
    let only_new = fixture.open(&[NEW]);
    only_new.live_token(&fixture.emulator, &company);
    let location = &fixture.emulator.location_ids()[0];
    let error = only_new.token_refresh(location).fails(Status::Store);
    assert!(
        error["message"].as_str().unwrap().contains("not among store.encryptionKeys"),
        "{error}"
    );
    // Maintenance reseals all other records without a change of their versions.
    let versions = |fixture: &Fixture| {
        fixture.rows().into_iter().map(|row| (row.0, row.1)).collect::<Vec<_>>()
    };
    let before = versions(&fixture);
    let report = ahead.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!((&report["resealed"], &report["failed"]), (&json!(3), &json!([])));
    assert_eq!(versions(&fixture), before);
    assert_eq!(ahead.tokens_maintain(json!({}), |_| true).ok()["resealed"], 0);
    let restarted = fixture.open(&[NEW]);
    assert_eq!(restarted.tokens_list(json!({})).ok()["items"].as_array().unwrap().len(), 4);
    restarted.token_refresh(location).ok();
}

#[test]
fn unsealed_store_is_sealed_when_a_key_is_configured() {
    let fixture = Fixture::new(&[]);
    let secret =
        fixture.open(&[]).tokens_export(json!({})).ok()["tokens"][0]["refreshToken"].clone();
    let secret = secret.as_str().unwrap();
    assert!(fixture.is_on_disk(secret));
    let strict = json!({"encryptionKeys": [OLD], "sealedOnly": true});
    let listed = fixture.with(strict.clone()).tokens_list(json!({})).ok();
    assert_eq!(
        (&listed["items"], listed["failed"].as_array().unwrap().len()),
        (&json!([]), 4),
        "{listed}"
    );
    assert!(listed["failed"].to_string().contains("store.sealedOnly"), "{listed}");
    let abi = fixture.open(&[OLD]);
    assert_eq!(abi.tokens_maintain(json!({}), |_| true).ok()["resealed"], 4);
    drop(abi);
    assert!(!fixture.is_on_disk(secret) && !fixture.is_on_disk("refreshToken"));
    let strict = fixture.with(strict);
    strict.token_refresh(&fixture.company()).ok();
    // A forged record in plain text is not accepted.
    let forged = r#"{"accessToken":"evil","refreshToken":null,"issuedAt":1,"expiresAt":9999999999999,"userType":"Company",
        "companyId":"c","locationId":null,"scope":null,"fields":{},"standing":{"state":"good"},"intent":null,"renewAt":1}"#;
    fixture.sql(&format!("UPDATE token SET document = CAST('{forged}' AS BLOB)"));
    strict.token_refresh(&fixture.company()).fails(Status::Store);
    assert!(
        !strict.access_token(&fixture.emulator.location_ids()[0]).1.to_string().contains("evil")
    );
}

#[test]
fn maintenance_that_is_stopped_reports_it_and_resumes_later() {
    let fixture = Fixture::new(&[]);
    let plain =
        SqliteStore::open(&fixture.path(), Seal::none(fixture.emulator.client_id())).unwrap();
    let records: Vec<Record> = (0..250)
        .map(|index| {
            let mut record =
                Record::new(format!("l{index}"), token(UserType::Location, "c", Some("l")));
            record.renew_at = i64::MAX;
            record
        })
        .collect();
    assert!(plain.save_all(&records, &patience()).iter().all(Result::is_ok));
    let abi = fixture.open(&[OLD]);
    abi.tokens_maintain(json!({}), |so_far| so_far["resealed"] != 100).fails(Status::Cancelled);
    // Maintenance of one company does not reseal the rest of the store.
    assert_eq!(abi.tokens_maintain(json!({"companyId": "c"}), |_| true).ok()["resealed"], 0);
    // A record that cannot be opened is named and does not affect the others.
    fixture.sql("UPDATE token SET document = x'01' WHERE resource_id = 'l77' AND sealed_with = ''");
    let rest = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!((&rest["resealed"], &rest["unsealed"]), (&json!(153), &json!(1)));
    assert_eq!(rest["failed"][0]["resourceId"], "l77");
    let again = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!((&again["resealed"], &again["unsealed"]), (&json!(0), &json!(1)));
}

#[test]
fn wrong_key_is_reported_and_overwrites_nothing() {
    let fixture = Fixture::new(&[OLD]);
    let (company, location) = (fixture.company(), fixture.emulator.location_ids()[0].clone());
    let export = fixture.open(&[OLD]).tokens_export(json!({})).ok();
    let config = |keys: &[&str]| {
        let store = json!({"kind": "sqlite", "path": fixture.path(), "encryptionKeys": keys});
        support::config(&fixture.emulator, json!({"store": store}))
    };
    let says_so = |error: &Value| {
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("sealed with the key ") && message.contains("encryptionKeys"),
            "{message}"
        );
        assert!(!error["help"].is_null(), "{error}");
    };
    // If no record can be opened, no client is created that would save with the wrong key.
    for keys in [&[NEW][..], &[]] {
        let error = Abi::open(&config(keys)).err().unwrap().fails(Status::Store);
        assert_eq!(error["parameter"], "store.encryptionKeys");
        assert_eq!(error["retryable"], false, "{error}");
        says_so(&error);
    }
    // One record has the new key, so the client is created; the other records stay unchanged.
    let other = &fixture.emulator.location_ids()[1];
    fixture.open(&[NEW, OLD]).token_refresh(other).ok();
    let before = fixture.rows();
    let abi = fixture.open(&[NEW]);
    abi.live_token(&fixture.emulator, other);
    let refreshes = fixture.emulator.refreshes();
    for error in [
        abi.access_token(&company).fails(Status::Store),
        abi.access_token(&location).fails(Status::Store),
        abi.token_refresh(&company).fails(Status::Store),
    ] {
        says_so(&error);
        assert!(error["resourceId"].is_string(), "{error}");
    }
    let imported = abi.tokens_import(json!({"tokens": export["tokens"]})).ok();
    assert_eq!(imported["imported"], 0);
    assert!(imported["skipped"].to_string().contains("sealed with the key "), "{imported}");
    let listed = abi.tokens_list(json!({})).ok();
    assert_eq!(
        (listed["items"].as_array().unwrap().len(), listed["failed"].as_array().unwrap().len()),
        (1, 3)
    );
    let report = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!((&report["resealed"], &report["unsealed"]), (&json!(0), &json!(3)));
    says_so(&report["failed"].as_array().unwrap().last().unwrap()["error"]);
    assert_eq!(fixture.emulator.refreshes(), refreshes);
    assert_eq!(fixture.rows(), before, "nothing is overwritten");
    // A new consent or a deletion repairs the record.
    abi.connect_company(&fixture.emulator);
    abi.live_token(&fixture.emulator, &company);
    abi.token_delete(&location).ok();
    assert_eq!(abi.tokens_list(json!({})).ok()["failed"].as_array().unwrap().len(), 1);
    // Saves work once a client with both keys has resealed the rest.
    fixture.open(&[NEW, OLD]).tokens_maintain(json!({}), |_| true).ok();
    assert_eq!(abi.tokens_maintain(json!({}), |_| true).ok()["unsealed"], 0);
    assert_eq!(abi.listed(&company)["state"], "ok");
    abi.live_token(&fixture.emulator, &company);
}

#[test]
fn invalid_key_is_refused_by_position_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let emulator = emulator(1);
    let refused = |store: Value| {
        let mut config = support::config(&emulator, json!({"store": store}));
        config["store"]["path"] = if store["kind"] == "sqlite" { json!(path) } else { Value::Null };
        let error = Abi::open(&config).err().unwrap().fails(Status::Config);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        error
    };
    for key in ["hunter2", "", "aHVudGVyMg==", &OLD[..40]] {
        let error = refused(json!({"kind": "sqlite", "encryptionKeys": [OLD, key]}));
        assert_eq!(error["parameter"], "store.encryptionKeys");
        assert!(error["message"].as_str().unwrap().contains("key 2"), "{error}");
    }
    let memory = refused(json!({"kind": "memory", "encryptionKeys": [OLD]}));
    assert_eq!(memory["parameter"], "store.encryptionKeys");
    let none = refused(json!({"kind": "sqlite", "sealedOnly": true}));
    assert_eq!(none["parameter"], "store.sealedOnly");

    let file = folder.path().join("keys");
    let missing = refused(json!({"kind": "sqlite", "encryptionKeysPath": file}));
    assert_eq!(missing["parameter"], "store.encryptionKeysPath");
    fs::write(&file, "\n").unwrap();
    assert_eq!(
        refused(json!({"kind": "sqlite", "encryptionKeysPath": file}))["parameter"],
        missing["parameter"]
    );
    fs::write(&file, "hunter2\n").unwrap();
    assert_eq!(
        refused(json!({"kind": "sqlite", "encryptionKeysPath": file}))["parameter"],
        missing["parameter"]
    );
    let both =
        refused(json!({"kind": "sqlite", "encryptionKeysPath": file, "encryptionKeys": [OLD]}));
    assert_eq!(both["parameter"], "store.encryptionKeysPath");
}

#[test]
fn keys_are_read_from_a_file() {
    let fixture = Fixture::new(&[OLD]);
    let file = fixture.folder.path().join("keys");
    fs::write(&file, format!("{NEW}\n  {OLD}  \n\n")).unwrap();
    let abi = fixture.with(json!({"encryptionKeysPath": file}));
    // The file is read once and may be removed after the client is created.
    fs::remove_file(&file).unwrap();
    abi.token_refresh(&fixture.company()).ok();
    fixture.open(&[NEW]).live_token(&fixture.emulator, &fixture.company());
}
