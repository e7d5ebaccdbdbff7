//! What every store promises, held by one suite; and what happens when one fails.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ghl_oauth::authorization::CompleteParams;
use ghl_oauth::deadline::{Cancellation, Deadline};
use ghl_oauth::store::{Intent, MemoryStore, Note, Query, Record, SqliteStore, Standing, Store};
use ghl_oauth::token::{Token, UserType};
use ghl_oauth::{Client, Config, Status};
use ghl_oauth_emulator::{Decision, Emulator, Options};
use serde_json::{Map, Value, json};

// ---- The suite ------------------------------------------------------------------------------------------------------

/// Every promise of [`Store`], on a store that is empty.
fn keeps_its_promises(store: &(impl Store + ?Sized)) {
    a_record_comes_back_as_it_was_saved(store);
    a_save_needs_the_version_that_is_stored(store);
    lists_are_paged_filtered_and_in_order(store);
    a_lock_excludes_and_is_given_back(store);
    notes_are_kept_apart_from_tokens_until_their_time_is_over(store);
}

fn token(user_type: UserType, company_id: &str, location_id: Option<&str>) -> Token {
    Token {
        access_token: "a".repeat(900).into(),
        refresh_token: Some("r".repeat(400).into()),
        issued_at: Some(1_700_000_000_000),
        expires_at: 1_700_086_400_000,
        user_type: Some(user_type),
        company_id: Some(company_id.to_owned()),
        location_id: location_id.map(str::to_owned),
        scope: Some("contacts.readonly".into()),
        fields: Map::from_iter([("refreshTokenId".to_owned(), json!({"odd": ["\u{0}", "ü", 1.5, null]}))]),
    }
}

fn a_record_comes_back_as_it_was_saved(store: &(impl Store + ?Sized)) {
    for (id, standing, intent) in [
        ("plain", Standing::Good, None),
        ("ünï'\"; DROP TABLE token; --", Standing::Inactive { since_ms: -5 }, Some(Intent { since_ms: 7 })),
        (
            "x\u{1F600}",
            Standing::ReauthorizationRequired { since_ms: i64::MAX, reason: "because \"so\"".into() },
            None,
        ),
    ] {
        let mut record = Record::new(id.to_owned(), token(UserType::Location, "company", Some(id)));
        (record.standing, record.intent, record.renew_at) = (standing, intent, 42);
        assert!(store.load(id).unwrap().is_none());
        record.version = store.save(&record).unwrap();
        let loaded = store.load(id).unwrap().unwrap();
        assert_eq!(loaded.resource_id, id);
        assert_eq!(loaded.version, record.version);
        assert_eq!(*loaded.to_document().unwrap(), *record.to_document().unwrap());
        assert!(store.remove(id).unwrap());
        assert!(!store.remove(id).unwrap());
        assert!(store.load(id).unwrap().is_none());
    }
}

fn a_save_needs_the_version_that_is_stored(store: &(impl Store + ?Sized)) {
    let mut record = Record::new("versioned".into(), token(UserType::Company, "versioned", None));
    let first = store.save(&record).unwrap();
    assert_eq!(store.save(&record).unwrap_err().status(), Status::Conflict, "version 0 means: not there yet");
    record.version = first;
    // Whose token it is may change, too.
    record.token.company_id = Some("another".into());
    record.token.access_token = "second".to_owned().into();
    let second = store.save(&record).unwrap();
    assert!(second > first);
    assert_eq!(
        store.save(&record).unwrap_err().status(),
        Status::Conflict,
        "an old version does not overwrite"
    );
    assert_eq!(store.load("versioned").unwrap().unwrap().token.access_token.expose(), "second");
    let query = Query { company_id: Some("another".into()), limit: 9, ..Query::default() };
    assert_eq!(store.list(&query).unwrap().records.len(), 1);
    store.remove("versioned").unwrap();
    record.version = second;
    assert_eq!(
        store.save(&record).unwrap_err().status(),
        Status::Conflict,
        "what was removed does not come back"
    );
}

fn lists_are_paged_filtered_and_in_order(store: &(impl Store + ?Sized)) {
    for company in ["a", "b"] {
        store.save(&Record::new(company.into(), token(UserType::Company, company, None))).unwrap();
        for index in 0..5 {
            let id = format!("{company}-location-{index}");
            let mut record = Record::new(id.clone(), token(UserType::Location, company, Some(&id)));
            record.renew_at = 100 * index;
            store.save(&record).unwrap();
        }
    }
    let ids = |mut query: Query| {
        let mut ids = Vec::new();
        loop {
            let page = store.list(&query).unwrap();
            assert!(page.records.len() <= query.limit);
            ids.extend(page.records.into_iter().map(|record| record.resource_id));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return ids,
            }
        }
    };
    for limit in [1, 2, 5, 6, 7, 100] {
        let all = ids(Query { limit, ..Query::default() });
        assert_eq!(all.len(), 12, "limit {limit}");
        assert!(all.is_sorted());
    }
    let of = |company: &str| Query { company_id: Some(company.into()), limit: 2, ..Query::default() };
    assert_eq!(ids(of("a")).len(), 6);
    assert_eq!(ids(Query { user_type: Some(UserType::Company), ..of("b") }), ["b"]);
    let due = Query { renew_by: Some(200), user_type: Some(UserType::Location), ..of("b") };
    assert_eq!(ids(due), ["b-location-0", "b-location-1", "b-location-2"]);
    assert!(ids(of("c")).is_empty());
    assert_eq!(store.next_renewal(Some("a")).unwrap(), Some(0));
    assert_eq!(store.next_renewal(None).unwrap(), Some(0));
    assert_eq!(store.next_renewal(Some("c")).unwrap(), None);
}

fn a_lock_excludes_and_is_given_back(store: &(impl Store + ?Sized)) {
    let cancellation = Arc::new(Cancellation::default());
    let patience = |ms| Deadline::after(Duration::from_millis(ms), &cancellation);
    let held = store.lock("one", &patience(1000)).unwrap();
    let other = store.lock("two", &patience(1000)).unwrap();
    assert_eq!(store.lock("one", &patience(1)).err().unwrap().status(), Status::Timeout);
    let waits = patience(60_000);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| store.lock("one", &waits).err().map(|error| error.status()));
        cancellation.raise();
        assert_eq!(waiter.join().unwrap(), Some(Status::Cancelled));
        let waits = patience(60_000);
        let waiter = scope.spawn(move || store.lock("one", &waits).is_ok());
        drop(held);
        assert!(waiter.join().unwrap());
    });
    drop(other);
    assert!(store.lock("one", &patience(1000)).is_ok());
}

fn notes_are_kept_apart_from_tokens_until_their_time_is_over(store: &(impl Store + ?Sized)) {
    let note = |key: &str, version, list: &str, expires_at| Note {
        key: key.into(),
        version,
        list: list.into(),
        document: json!({"odd": ["\u{0}", "ü", 1.5, null], "at": i64::MAX}),
        expires_at,
    };
    let tokens = store.list(&Query { limit: 1000, ..Query::default() }).unwrap().records.len();
    assert!(store.note("n1").unwrap().is_none());
    store.save_note(&note("n1", 0, "due", 100)).unwrap();
    assert_eq!(store.note("n1").unwrap(), Some(note("n1", 1, "due", 100)));
    for version in [0, 2] {
        let error = store.save_note(&note("n1", version, "due", 7)).unwrap_err();
        assert_eq!(error.status(), Status::Conflict, "version {version}");
    }
    store.save_note(&note("n1", 1, "", 200)).unwrap();
    assert_eq!(store.note("n1").unwrap(), Some(note("n1", 2, "", 200)));

    for index in 0..5 {
        store.save_note(&note(&format!("d{index}"), 0, "due", i64::MAX)).unwrap();
    }
    for limit in [1, 2, 4, 5, 6] {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = store.notes("due", after.as_deref(), limit).unwrap();
            assert!(page.notes.len() <= limit);
            keys.extend(page.notes.into_iter().map(|note| note.key));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(keys, ["d0", "d1", "d2", "d3", "d4"], "limit {limit}");
    }
    store.prune_notes(199).unwrap();
    assert!(store.note("n1").unwrap().is_some());
    store.prune_notes(200).unwrap();
    assert!(store.note("n1").unwrap().is_none());
    assert_eq!(store.notes("due", None, 9).unwrap().notes.len(), 5);
    store.save_note(&note("n1", 0, "due", 300)).unwrap();
    assert_eq!(store.list(&Query { limit: 1000, ..Query::default() }).unwrap().records.len(), tokens);
}

#[test]
fn memory_keeps_its_promises() {
    keeps_its_promises(&MemoryStore::default());
}

#[test]
fn sqlite_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    keeps_its_promises(&SqliteStore::open(&folder.path().join("tokens.db"), "app-1").unwrap());
}

// ---- SQLite's own promises ------------------------------------------------------------------------------------------

#[test]
fn apps_share_a_file_without_seeing_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let one = SqliteStore::open(&path, "app-1").unwrap();
    let two = SqliteStore::open(&path, "app-2").unwrap();
    let record = Record::new("company".into(), token(UserType::Company, "company", None));
    one.save(&record).unwrap();
    assert!(two.load("company").unwrap().is_none());
    two.save(&record).unwrap();
    assert!(two.remove("company").unwrap());
    assert!(one.load("company").unwrap().is_some());
    let note = Note { key: "n".into(), version: 0, list: "due".into(), document: Value::Null, expires_at: 1 };
    one.save_note(&note).unwrap();
    two.prune_notes(2).unwrap();
    assert!(two.note("n").unwrap().is_none() && two.notes("due", None, 9).unwrap().notes.is_empty());
    assert!(one.note("n").unwrap().is_some());
    let patience = Deadline::after(Duration::from_secs(1), &Arc::default());
    let _held = one.lock("company", &patience).unwrap();
    assert!(two.lock("company", &patience).is_ok());
}

#[cfg(unix)]
#[test]
fn every_file_is_for_its_user_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("tokens.db"), "app-1").unwrap();
    store.save(&Record::new("company".into(), token(UserType::Company, "company", None))).unwrap();
    let _held = store.lock("company", &Deadline::after(Duration::from_secs(1), &Arc::default())).unwrap();
    let mut seen = Vec::new();
    for entry in walk(folder.path()) {
        let metadata = entry.metadata().unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", entry.display());
        seen.push(entry.file_name().unwrap().to_str().unwrap().to_owned());
    }
    for name in ["tokens.db", "tokens.db-wal", "tokens.db-shm", "tokens.db.locks"] {
        assert!(seen.iter().any(|file| file == name), "{name} is not among {seen:?}");
    }
    assert_eq!(seen.len(), 5, "and the lock's file: {seen:?}");
}

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
fn what_is_no_database_of_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.db");
    std::fs::write(&text, "this is no database, whatever its name says".repeat(100)).unwrap();
    let before = std::fs::read(&text).unwrap();
    assert_eq!(SqliteStore::open(&text, "app-1").err().unwrap().status(), Status::Store);
    assert_eq!(std::fs::read(&text).unwrap(), before);

    let newer = folder.path().join("newer.db");
    drop(SqliteStore::open(&newer, "app-1").unwrap());
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteStore::open(&newer, "app-1").err().unwrap();
    assert_eq!((error.status(), error.parameter()), (Status::Store, Some("store.path")));
    assert!(error.message().contains("newer version"), "{error}");

    let nowhere = folder.path().join("no such folder/tokens.db");
    let error = SqliteStore::open(&nowhere, "app-1").err().unwrap();
    assert_eq!((error.status(), error.parameter()), (Status::Store, Some("store.path")));
}

#[test]
fn a_database_of_the_first_version_is_brought_up_to_date_with_its_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let record = Record::new("company".into(), token(UserType::Company, "company", None));
    SqliteStore::open(&path, "app-1").unwrap().save(&record).unwrap();
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute_batch("DROP TABLE note; PRAGMA user_version = 1").unwrap();
    drop(database);
    let store = SqliteStore::open(&path, "app-1").unwrap();
    assert!(store.note("anything").unwrap().is_none());
    assert_eq!(store.load("company").unwrap().unwrap().token.access_token.expose(), "a".repeat(900));
}

#[test]
fn a_replaced_token_is_overwritten_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = SqliteStore::open(&path, "app-1").unwrap();
    let mut record = Record::new("company".into(), token(UserType::Company, "company", None));
    record.token.access_token = "the-first-of-two-tokens".repeat(30).into();
    record.version = store.save(&record).unwrap();
    record.token.access_token = "short".to_owned().into();
    store.save(&record).unwrap();
    drop(store);
    // Once the last handle is closed, everything is in the one file.
    let bytes = std::fs::read(&path).unwrap();
    let found = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(found(b"short") && !found(b"the-first-of-two-tokens"));
}

// ---- A store that fails ---------------------------------------------------------------------------------------------

/// A connected company whose store can be made to fail.
struct Stand {
    emulator: Emulator,
    client: Client,
    company: String,
    path: PathBuf,
    events: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Stand {
    fn new() -> Stand {
        let emulator = Emulator::start(Options::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let client = Client::new(&Stand::config(&emulator, &path)).unwrap();
        let link = client.authorization_url(Default::default()).unwrap();
        let decision = Decision::Company(emulator.company_id());
        let redirect_url = emulator.consent(link["url"].as_str().unwrap(), decision).unwrap();
        let params: CompleteParams = serde_json::from_value(json!({"redirectUrl": redirect_url})).unwrap();
        client.authorization_complete(&params).unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        client.on_event(Some(Arc::new(move |event: &Value| {
            heard.lock().unwrap().push(event["type"].as_str().unwrap().to_owned());
        })));
        let company = emulator.company_id();
        emulator.clear_requests();
        Stand { emulator, client, company, path, events, _folder: folder }
    }

    fn config(emulator: &Emulator, path: &Path) -> Config {
        let mut config = Config::new(emulator.client_id(), emulator.client_secret());
        config.base_url = emulator.base_url();
        config.authorize_url = emulator.authorize_url();
        config.redirect_uri = Some(emulator.redirect_uri().to_owned());
        config.scopes = vec!["oauth.readonly".into(), "oauth.write".into()];
        config.store.kind = "sqlite".into();
        config.store.path = Some(path.to_owned());
        config
    }

    /// From now on the database refuses every save for which the condition holds.
    fn refuse(&self, condition: &str) {
        let trigger = format!(
            "CREATE TRIGGER refusal BEFORE UPDATE ON token WHEN {condition}
             BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        );
        rusqlite::Connection::open(&self.path).unwrap().execute_batch(&trigger).unwrap();
    }

    fn recover(&self) {
        rusqlite::Connection::open(&self.path).unwrap().execute_batch("DROP TRIGGER refusal").unwrap();
    }

    fn state(&self) -> Value {
        self.client.tokens_list(&Default::default()).unwrap()["items"][0]["state"].clone()
    }

    fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

/// A document says `"intent":null` unless a refresh is under way.
const NEW_TOKEN: &str = "instr(CAST(NEW.document AS TEXT), '\"intent\":null') > 0";

#[test]
fn a_token_that_cannot_be_saved_is_kept_and_saved_later() {
    let stand = Stand::new();
    let old = stand.client.access_token(&stand.company).unwrap();
    stand.refuse(NEW_TOKEN);
    stand.client.token_refresh(&stand.company).unwrap();
    let new = stand.client.access_token(&stand.company).unwrap();
    assert!(!new.matches(old.expose()) && stand.emulator.access_token_is_live(new.expose()));
    assert_eq!(stand.events(), ["token.unsaved"]);
    assert_eq!(stand.state(), "unsaved");
    assert_eq!(stand.client.stats().unwrap()["tokens"]["unsaved"], 1);

    stand.recover();
    assert_eq!(stand.state(), "ok", "the list offered it to the store again");
    assert_eq!(stand.events(), ["token.saved"]);
    // Whoever opens the store now finds the new token, and it can be refreshed.
    let other = Client::new(&Stand::config(&stand.emulator, &stand.path)).unwrap();
    assert!(other.access_token(&stand.company).unwrap().matches(new.expose()));
    other.token_refresh(&stand.company).unwrap();
    assert_eq!(stand.emulator.refreshes(), 2);
}

#[test]
fn an_unsaved_token_is_refreshed_from_memory_and_never_from_the_older_one_in_the_store() {
    let stand = Stand::new();
    stand.refuse(NEW_TOKEN);
    stand.client.token_refresh(&stand.company).unwrap();
    stand.recover();
    // Past the vendor's window, the stored refresh token would be refused.
    stand.emulator.clock().advance(Duration::from_secs(60));
    stand.client.token_refresh(&stand.company).unwrap();
    assert_eq!(stand.events(), ["token.unsaved", "token.saved", "token.refreshed"]);
    assert_eq!(stand.state(), "ok");
}

#[test]
fn nothing_is_spent_that_could_not_be_written_down() {
    let stand = Stand::new();
    stand.refuse("1");
    let error = stand.client.token_refresh(&stand.company).unwrap_err();
    assert_eq!((error.status(), error.retryable()), (Status::Store, true));
    assert_eq!(error.resource_id(), Some(stand.company.as_str()));
    assert!(error.message().contains("full"), "{error}");
    assert!(stand.emulator.requests().is_empty(), "no refresh was sent");
    assert!(stand.client.access_token(&stand.company).is_ok(), "the old token goes on");
    stand.recover();
    stand.client.token_refresh(&stand.company).unwrap();
}
