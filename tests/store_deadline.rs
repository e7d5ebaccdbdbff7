//! Calls end by their deadline even if another program locks the database file.
#![cfg(all(unix, feature = "sqlite"))]

mod store_suite;
mod support;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::Status;
use ghl_oauth::internals::deadline::{Cancellation, Deadline};
use ghl_oauth::internals::store::{Query, Record, Seal, SqliteStore, Store};
use ghl_oauth::internals::token::UserType;
use serde_json::{Value, json};
use store_suite::{patience, token};
use support::Abi;

/// The deadline of a call, and its tolerance on a busy machine. SQLite's own busy handler has no
/// deadline: with it these calls took 10 seconds and more.
const TOTAL: Duration = Duration::from_millis(1_000);
const SLACK: Duration = Duration::from_millis(6_000);

fn record(id: &str) -> Record {
    Record::new(id.into(), token(UserType::Company, id, None))
}

fn within(total: Duration) -> Deadline {
    Deadline::after(total, &Arc::default())
}

/// Another program's connection with an open transaction.
fn other_program(path: &Path, begins: &str) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch(begins).unwrap();
    other
}

const WRITES: &str = "BEGIN IMMEDIATE";
const READS: &str = "BEGIN; SELECT COUNT(*) FROM token";

#[test]
fn eight_writers_blocked_by_a_foreign_write_lock_return_by_their_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
    store.save(&record("known"), &patience()).unwrap();
    let other = other_program(&path, WRITES);
    let began = Instant::now();
    thread::scope(|scope| {
        for index in 0..8 {
            let store = &store;
            scope.spawn(move || {
                let error = match index % 4 {
                    0 | 1 => store
                        .save(&record(&format!("company-{index}")), &within(TOTAL))
                        .unwrap_err(),
                    2 => store.save_all(&[record("a")], &within(TOTAL)).remove(0).unwrap_err(),
                    _ => store.remove_all(&[("known".into(), 1)], &within(TOTAL)).unwrap_err(),
                };
                assert_eq!(error.status(), Status::Timeout, "{error}");
                assert!(error.message().contains("write lock"), "{error}");
            });
        }
        // Readers do not need the lock.
        assert!(store.load("known", &within(TOTAL)).unwrap().is_some());
    });
    let took = began.elapsed();
    assert!(took >= TOTAL && took < TOTAL + SLACK, "{took:?}");
    // An abandoned save is not written later together with the save of another caller.
    other.execute_batch("ROLLBACK").unwrap();
    store.save(&record("last"), &patience()).unwrap();
    let page = store.list(&Query { limit: 99, ..Query::default() }, &patience()).unwrap();
    let ids: Vec<String> = page.records.into_iter().map(|record| record.resource_id).collect();
    assert_eq!(ids, ["known", "last"]);
}

#[test]
fn writers_blocked_by_a_foreign_write_lock_are_cancelled_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
    let _other = other_program(&path, WRITES);
    let cancellation = Arc::new(Cancellation::default());
    let began = Instant::now();
    thread::scope(|scope| {
        let deadlines: Vec<Deadline> =
            (0..4).map(|_| Deadline::after(Duration::from_secs(60), &cancellation)).collect();
        for (index, deadline) in deadlines.into_iter().enumerate() {
            let store = &store;
            scope.spawn(move || {
                let error =
                    store.save(&record(&format!("company-{index}")), &deadline).unwrap_err();
                assert_eq!(error.status(), Status::Cancelled, "{error}");
            });
        }
        cancellation.raise();
    });
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
}

#[test]
fn call_blocked_by_a_foreign_write_lock_ends_by_its_own_timeout_or_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let abi = Abi::open(&json!({"clientId": "app-1", "clientSecret": "s",
        "timeouts": {"totalMs": 600_000}, "store": {"kind": "sqlite", "path": path}}))
    .unwrap();
    let other = other_program(&path, WRITES);
    let import = |options: Value| {
        let mut params = json!({"tokens": [{"accessToken": "a", "refreshToken": "r",
            "userType": "Company", "companyId": "c", "expiresIn": 3600}]});
        params.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        abi.tokens_import(params)
    };
    let began = Instant::now();
    import(json!({"timeoutMs": 100})).fails(Status::Timeout);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| import(json!({"callId": "mine"})));
        while !waiting.is_finished() {
            assert_eq!(abi.cancel_call("mine"), 0);
            thread::yield_now();
        }
        waiting.join().unwrap().fails(Status::Cancelled);
    });
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(import(json!({"callId": "mine"})).ok()["imported"], 1);
}

#[test]
fn mint_that_has_nothing_to_save_ignores_a_foreign_write_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let emulator = support::emulator(3);
    let abi = Abi::with(&emulator, json!({"store": {"kind": "sqlite", "path": path}}));
    let company = abi.connect_company(&emulator);
    let mint = || {
        let locations = emulator.location_ids();
        let params = json!({"companyId": company, "locationIds": locations, "timeoutMs": 5_000});
        abi.tokens_mint(params, |_| true).ok()
    };
    assert_eq!(mint()["minted"], 3);
    let _other = other_program(&path, WRITES);
    assert_eq!(mint()["fresh"], 3);
    let store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
    let began = Instant::now();
    assert!(store.save_all(&[], &within(2 * SLACK)).is_empty());
    assert!(store.save_notes(&[], &within(2 * SLACK)).is_empty());
    assert!(store.remove_all(&[], &within(2 * SLACK)).unwrap().is_empty());
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
}

#[test]
fn writers_blocked_by_a_foreign_write_lock_resume_when_it_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
    let other = other_program(&path, WRITES);
    thread::scope(|scope| {
        for index in 0..8 {
            let store = &store;
            scope.spawn(move || {
                assert_eq!(
                    store.save(&record(&format!("company-{index}")), &patience()).unwrap(),
                    1
                );
            });
        }
        // The lock is still held: this writer reaches its deadline while the others wait.
        let error =
            store.save(&record("too late"), &within(Duration::from_millis(50))).unwrap_err();
        assert_eq!(error.status(), Status::Timeout);
        other.execute_batch("COMMIT").unwrap();
    });
}

#[test]
fn removal_of_three_thousand_records_during_a_foreign_read_uses_one_short_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
    let ids: Vec<String> = (0..3_000).map(|index| format!("location-{index:04}")).collect();
    let records: Vec<Record> = ids.iter().map(|id| record(id)).collect();
    assert!(store.save_all(&records, &patience()).into_iter().all(|saved| saved.is_ok()));
    let _other = other_program(&path, READS);
    let began = Instant::now();
    let all: Vec<(String, u64)> = ids.into_iter().map(|id| (id, 1)).collect();
    let removed = store.remove_all(&all, &within(TOTAL + SLACK)).unwrap();
    assert!(removed.into_iter().all(|removed| removed));
    let took = began.elapsed();
    assert!(took < TOTAL + SLACK, "{took:?}");
    // Writes of other processes do not wait for the reader.
    let began = Instant::now();
    other_program(&path, WRITES);
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
}

#[test]
fn calls_blocked_by_a_foreign_write_lock_return_by_total_ms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let emulator = support::emulator(1);
    let changes = json!({
        "store": {"kind": "sqlite", "path": path},
        "timeouts": {"totalMs": TOTAL.as_millis() as u64},
    });
    let client = Abi::open(&support::config(&emulator, changes)).unwrap();
    let company = client.connect_company(&emulator);
    let other = other_program(&path, WRITES);
    let began = Instant::now();
    thread::scope(|scope| {
        for index in 0..8 {
            let (client, company) = (&client, &company);
            scope.spawn(move || {
                let outcome = if index % 2 == 0 {
                    client.token_refresh(company)
                } else {
                    client.token_delete(company)
                };
                let error = outcome.fails(Status::Timeout);
                assert_eq!(error["retryable"], true, "{error}");
            });
        }
    });
    assert!(began.elapsed() < TOTAL + SLACK, "{:?}", began.elapsed());
    assert_eq!(emulator.refreshes(), 0, "a refresh whose intent cannot be saved is not sent");
    other.execute_batch("ROLLBACK").unwrap();
    client.token_refresh(&company).ok();
}

#[test]
fn client_created_under_a_foreign_lock_fails_by_total_ms_and_names_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    // The file is not in WAL mode yet. The library must switch it, which the other program's lock
    // prevents.
    let other = other_program(&path, "CREATE TABLE theirs (x); BEGIN EXCLUSIVE");
    let emulator = support::emulator(1);
    let changes = json!({
        "store": {"kind": "sqlite", "path": path},
        "timeouts": {"totalMs": TOTAL.as_millis() as u64},
    });
    let config = support::config(&emulator, changes);
    let began = Instant::now();
    let error = Abi::open(&config).err().expect("the database is locked");
    let took = began.elapsed();
    assert!(took >= TOTAL && took < TOTAL + SLACK, "{took:?}");
    let error = error.fails(Status::Timeout);
    assert_eq!(error["retryable"], true, "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("another program") && message.contains("tokens.db"), "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    assert!(Abi::open(&config).is_ok());
}
