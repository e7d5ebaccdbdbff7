//! Runs the store suite on the built-in stores, and tests failures of a store.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ghl_oauth::internals::deadline::Deadline;
use ghl_oauth::internals::store::{MemoryStore, Record, Seal, SqliteStore, Store};
use ghl_oauth::internals::token::UserType;
use ghl_oauth::internals::{Client, Config, Status};
use ghl_oauth_emulator::{Emulator, Options};
use serde_json::{Value, json};

mod connect;
mod store_suite;

use store_suite::{assert_apps_are_separate, assert_store_contract, patience, token};

#[test]
fn memory_store_passes_the_store_suite() {
    assert_store_contract(&MemoryStore::default());
}

#[test]
fn sqlite_store_passes_the_store_suite() {
    let folder = tempfile::tempdir().unwrap();
    assert_store_contract(
        &SqliteStore::open(&folder.path().join("tokens.db"), Seal::none("app-1")).unwrap(),
    );
}

// ---- SQLite only --------------------------------------------------------------------------------

#[test]
fn apps_sharing_a_file_see_only_their_own_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let one = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
    let two = SqliteStore::open(&path, Seal::none("app-2")).unwrap();
    assert_apps_are_separate(&one, &two);
    let a_second = Deadline::after(Duration::from_secs(1), &Arc::default());
    let _held = one.lock("company", &a_second).unwrap();
    assert!(two.lock("company", &a_second).is_ok());
}

#[cfg(unix)]
#[test]
fn every_file_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("tokens.db"), Seal::none("app-1")).unwrap();
    store
        .save(
            &Record::new("company".into(), token(UserType::Company, "company", None)),
            &patience(),
        )
        .unwrap();
    let _held =
        store.lock("company", &Deadline::after(Duration::from_secs(1), &Arc::default())).unwrap();
    let mut seen = Vec::new();
    for entry in walk(folder.path()) {
        let metadata = entry.metadata().unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", entry.display());
        seen.push(entry.file_name().unwrap().to_str().unwrap().to_owned());
    }
    for name in ["tokens.db", "tokens.db-wal", "tokens.db-shm", "tokens.db.locks", "writer"] {
        assert!(seen.iter().any(|file| file == name), "{name} is not among {seen:?}");
    }
    assert_eq!(seen.len(), 6, "and the files of the two locks: {seen:?}");
}

#[cfg(unix)]
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn path_may_have_letters_of_any_language() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("Schlüssel, токены, 令牌");
    std::fs::create_dir_all(&deep).unwrap();
    let path = deep.join("Zugänge.db");
    let record = Record::new("company".into(), token(UserType::Company, "company", None));
    let open = || SqliteStore::open(&path, Seal::none("app-1")).unwrap();
    open().save(&record, &patience()).unwrap();
    for _ in 0..2 {
        let store = open();
        drop(store.lock("company", &patience()).unwrap());
        assert!(store.load("company", &patience()).unwrap().is_some());
        assert!(deep.join("Zugänge.db-wal").exists() && deep.join("Zugänge.db.locks").is_dir());
    }
}

#[cfg(windows)]
#[test]
fn two_spellings_of_a_path_are_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let upper = folder.path().join("TOKENS.db");
    let open = |path: &Path| SqliteStore::open(path, Seal::none("app-1")).unwrap();
    let first = open(&folder.path().join("Tokens.db"));
    let second = open(&upper);
    let record = Record::new("company".into(), token(UserType::Company, "company", None));
    first.save(&record, &patience()).unwrap();
    assert!(second.load("company", &patience()).unwrap().is_some());
    let _held = first.lock("company", &patience()).unwrap();
    let at_once = Deadline::after(Duration::from_millis(1), &Arc::default());
    assert_eq!(second.lock("company", &at_once).err().unwrap().status(), Status::Timeout);
    // Open files can be neither removed nor renamed, so that no process locks another file.
    let locks = folder.path().join("Tokens.db.locks");
    for file in std::fs::read_dir(&locks).unwrap() {
        let file = file.unwrap().path();
        assert!(std::fs::remove_file(&file).is_err(), "{}", file.display());
        assert!(std::fs::rename(&file, folder.path().join("other")).is_err());
    }
    assert!(std::fs::remove_file(&upper).is_err());
}

#[test]
fn foreign_file_is_refused_and_left_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.db");
    std::fs::write(&text, "this is no database, whatever its name says".repeat(100)).unwrap();
    let before = std::fs::read(&text).unwrap();
    assert_eq!(
        SqliteStore::open(&text, Seal::none("app-1")).err().unwrap().status(),
        Status::Store
    );
    assert_eq!(std::fs::read(&text).unwrap(), before);

    let newer = folder.path().join("newer.db");
    drop(SqliteStore::open(&newer, Seal::none("app-1")).unwrap());
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteStore::open(&newer, Seal::none("app-1")).err().unwrap();
    assert_eq!((error.status(), error.parameter()), (Status::Store, Some("store.path")));
    assert!(error.message().contains("newer version"), "{error}");

    let nowhere = folder.path().join("no such folder/tokens.db");
    let error = SqliteStore::open(&nowhere, Seal::none("app-1")).err().unwrap();
    assert_eq!((error.status(), error.parameter()), (Status::Store, Some("store.path")));
}

#[test]
fn database_of_an_older_version_is_migrated_with_its_tokens() {
    let second = "DROP INDEX token_by_key; DROP INDEX token_by_type; DROP INDEX token_by_renewal;
        CREATE INDEX token_by_renewal ON token (client_id, renew_at);
        ALTER TABLE token DROP COLUMN sealed_with; PRAGMA user_version = 2";
    let first = "DROP TABLE note; PRAGMA user_version = 1";
    for steps in [&[second][..], &[second, first]] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let record = Record::new("company".into(), token(UserType::Company, "company", None));
        SqliteStore::open(&path, Seal::none("app-1")).unwrap().save(&record, &patience()).unwrap();
        let database = rusqlite::Connection::open(&path).unwrap();
        steps.iter().for_each(|step| database.execute_batch(step).unwrap());
        drop(database);
        let store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
        assert!(store.note("anything", &patience()).unwrap().is_none());
        let stored = store.load("company", &patience()).unwrap().unwrap();
        assert_eq!(stored.token.access_token.expose(), "a".repeat(900));
        assert_eq!(
            store
                .due(None, &(i64::MIN..=stored.renew_at), None, 9, &patience())
                .unwrap()
                .resource_ids,
            ["company"]
        );
        assert!(
            store
                .due(None, &(i64::MIN..=stored.renew_at - 1), None, 9, &patience())
                .unwrap()
                .resource_ids
                .is_empty()
        );
        store.save(&stored, &patience()).unwrap();
    }
}

#[test]
fn replaced_token_is_overwritten_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
    let mut record = Record::new("company".into(), token(UserType::Company, "company", None));
    Arc::make_mut(&mut record.token).access_token = "the-first-of-two-tokens".repeat(30).into();
    record.version = store.save(&record, &patience()).unwrap();
    Arc::make_mut(&mut record.token).access_token = "short".to_owned().into();
    store.save(&record, &patience()).unwrap();
    drop(store);
    // After the last handle is closed, all data is in a single file.
    let bytes = std::fs::read(&path).unwrap();
    let found = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(found(b"short") && !found(b"the-first-of-two-tokens"));
}

// ---- Store failures -----------------------------------------------------------------------------

/// A connected company whose store can be made to fail.
struct Fixture {
    emulator: Emulator,
    client: Client,
    company: String,
    path: PathBuf,
    events: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let emulator = Emulator::start(Options::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let client = Client::new(&Fixture::config(&emulator, &path)).unwrap();
        connect::connect(&emulator, &client);
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        client.on_event(Some(Arc::new(move |event: &Value| {
            heard.lock().unwrap().push(event["type"].as_str().unwrap().to_owned());
        })));
        let company = emulator.company_id();
        emulator.clear_requests();
        Fixture { emulator, client, company, path, events, _folder: folder }
    }

    fn config(emulator: &Emulator, path: &Path) -> Config {
        let config = connect::config(emulator, &json!({"kind": "sqlite", "path": path}));
        Config::from_json(&config.to_string()).unwrap()
    }

    /// From now on the database refuses saves that match the condition.
    fn refuse(&self, condition: &str) {
        let trigger = format!(
            "CREATE TRIGGER refusal BEFORE UPDATE ON token WHEN {condition}
             BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        );
        rusqlite::Connection::open(&self.path).unwrap().execute_batch(&trigger).unwrap();
    }

    fn recover(&self) {
        rusqlite::Connection::open(&self.path)
            .unwrap()
            .execute_batch("DROP TRIGGER refusal")
            .unwrap();
    }

    fn state(&self) -> Value {
        self.client.tokens_list(&Default::default()).unwrap()["items"][0]["state"].clone()
    }

    fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

/// A record contains `"intent":null` unless a refresh is in progress.
const NEW_TOKEN: &str = "instr(CAST(NEW.document AS TEXT), '\"intent\":null') > 0";

#[test]
fn token_that_cannot_be_saved_is_kept_and_saved_later() {
    let fixture = Fixture::new();
    let old = fixture.client.access_token(&fixture.company).unwrap();
    fixture.refuse(NEW_TOKEN);
    fixture.client.token_refresh(&fixture.company).unwrap();
    let new = fixture.client.access_token(&fixture.company).unwrap();
    assert!(!new.matches(old.expose()) && fixture.emulator.access_token_is_live(new.expose()));
    assert_eq!(fixture.events(), ["token.unsaved"]);
    assert_eq!(fixture.state(), "unsaved");
    assert_eq!(fixture.client.stats().unwrap()["tokens"]["unsaved"], 1);

    fixture.recover();
    assert_eq!(fixture.state(), "ok", "the list retried the save");
    assert_eq!(fixture.events(), ["token.saved"]);
    // A client that opens the store now finds the new token and can refresh it.
    let other = Client::new(&Fixture::config(&fixture.emulator, &fixture.path)).unwrap();
    assert!(other.access_token(&fixture.company).unwrap().matches(new.expose()));
    other.token_refresh(&fixture.company).unwrap();
    assert_eq!(fixture.emulator.refreshes(), 2);
}

#[test]
fn unsaved_token_is_refreshed_from_memory_and_not_from_the_older_stored_token() {
    let fixture = Fixture::new();
    fixture.refuse(NEW_TOKEN);
    fixture.client.token_refresh(&fixture.company).unwrap();
    fixture.recover();
    // Outside the replay window the server refuses the stored refresh token.
    fixture.emulator.clock().advance(Duration::from_secs(60));
    fixture.client.token_refresh(&fixture.company).unwrap();
    assert_eq!(fixture.events(), ["token.unsaved", "token.saved", "token.refreshed"]);
    assert_eq!(fixture.state(), "ok");
}

#[test]
fn failing_store_prevents_every_call_that_would_spend_a_token() {
    let fixture = Fixture::new();
    fixture.refuse("1");
    let error = fixture.client.token_refresh(&fixture.company).unwrap_err();
    assert_eq!((error.status(), error.retryable()), (Status::Store, true));
    assert_eq!(error.resource_id(), Some(fixture.company.as_str()));
    assert!(error.message().contains("full"), "{error}");
    assert!(fixture.emulator.requests().is_empty(), "no refresh was sent");
    assert!(fixture.client.access_token(&fixture.company).is_ok(), "the old token stays in use");
    fixture.recover();
    fixture.client.token_refresh(&fixture.company).unwrap();
}
