//! The PostgreSQL store on real servers and through a real pooler.
#![cfg(all(unix, feature = "postgres"))]

mod connect;
mod postgres_server;
mod store_suite;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::config::Timeouts;
use ghl_oauth::internals::clock::{Clock, SystemClock};
use ghl_oauth::internals::deadline::{Cancellation, Deadline};
use ghl_oauth::internals::secret::Secret;
use ghl_oauth::internals::store::{Note, PostgresStore, Query, Record, Seal, Store};
use ghl_oauth::internals::token::UserType;
use ghl_oauth::internals::{Client, Config, Error, Result, Status};
use ghl_oauth_emulator::{Emulator, Endpoint, GrantType, Options, Rule, Stage};
use postgres_server::{Database, PASSWORD, Pooler, ROLE, Relay, Server, shared, wait_until};
use serde_json::{Value, json};
use store_suite::{assert_apps_are_separate, assert_store_contract, patience, remove, token};

fn open(url: &str) -> PostgresStore {
    try_open(url, None).unwrap()
}

fn try_open(url: &str, ca_bundle: Option<&Path>) -> Result<PostgresStore> {
    listen();
    let url = Secret::new(url.to_owned());
    PostgresStore::open(&url, ca_bundle, &Timeouts::default(), Seal::none("app-1"))
}

fn company(id: &str) -> Record {
    Record::new(id.to_owned(), token(UserType::Company, id, None))
}

// ---- Log ----------------------------------------------------------------------------------------

/// The log of this program.
static LOGGED: Mutex<String> = Mutex::new(String::new());

struct Listener;

impl log::Log for Listener {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let line = format!("{} {} {}\n", record.level(), record.target(), record.args());
        // Messages of the emulator and its web server are not checked.
        if ["ghl_oauth::", "tokio_postgres"].iter().any(|ours| record.target().starts_with(ours)) {
            LOGGED.lock().unwrap().push_str(&line);
        }
    }

    fn flush(&self) {}
}

fn listen() {
    if log::set_logger(&Listener).is_ok() {
        log::set_max_level(log::LevelFilter::Trace);
    }
}

fn shows_no_password(text: &str) {
    for secret in [PASSWORD, postgres_server::ENCODED_PASSWORD, "d41d8cd9"] {
        assert!(!text.contains(secret), "{text}");
    }
}

// ---- Store suite --------------------------------------------------------------------------------

#[test]
fn postgres_store_passes_the_store_suite() {
    let Some(server) = shared() else { return };
    assert_store_contract(&open(&server.database().url()));
}

#[test]
fn postgres_store_passes_the_store_suite_over_a_unix_socket() {
    let Some(server) = shared() else { return };
    let folder = server.socket_folder().to_str().unwrap().replace('/', "%2F");
    assert_store_contract(&open(&server.database().url_at(&format!("{folder}:{}", server.port))));
}

#[test]
fn postgres_store_passes_the_store_suite_through_a_pooler() {
    let Some(server) = shared() else { return };
    let Some(pooler) = Pooler::start(server, 4) else { return };
    assert_store_contract(&open(&server.database().url_at(&format!("127.0.0.1:{}", pooler.port))));
}

#[test]
fn apps_sharing_a_database_see_only_their_own_records() {
    let Some(server) = shared() else { return };
    let url = Secret::new(server.database().url());
    let of =
        |app: &str| PostgresStore::open(&url, None, &Timeouts::default(), Seal::none(app)).unwrap();
    let (one, two) = (of("app-1"), of("app-2"));
    assert_apps_are_separate(&one, &two);
    let _held = one.lock("company", &patience()).unwrap();
    assert!(two.lock("company", &patience()).is_ok());
}

#[test]
fn tokens_of_another_client_id_in_the_same_database_are_adopted_and_work() {
    let Some(server) = shared() else { return };
    let url = server.database().url();
    let Fixture { emulator, client, company, .. } = Fixture::new(&url);
    let ids = [company, emulator.location_ids().remove(0)];
    client.access_token(&ids[1]).unwrap();

    let mut config = Fixture::config(&emulator, &url);
    config.client_id = "6600aabbccddeeff00112233-newkey".into();
    let other = Client::new(&config).unwrap();
    let adopt = |client: &Client, from: &str| {
        let params = json!({"clientId": from, "dryRun": false});
        client.tokens_adopt(&serde_json::from_value(params).unwrap()).unwrap()
    };
    assert!(
        other.access_token(&ids[0]).unwrap_err().help().unwrap().contains(emulator.client_id())
    );
    let report = adopt(&other, emulator.client_id());
    assert_eq!(report, json!({"adopted": 2, "skipped": [], "failed": [], "clients": []}));
    assert!(other.access_token(&ids[1]).is_ok());

    // And back, to the client ID that the emulator knows.
    let fresh = Fixture::client(&emulator, &url);
    assert_eq!(adopt(&fresh, &config.client_id)["adopted"], 2);
    for id in &ids {
        fresh.token_refresh(id).unwrap();
        assert!(emulator.access_token_is_live(fresh.access_token(id).unwrap().expose()));
    }
}

// ---- Tables -------------------------------------------------------------------------------------

#[test]
fn processes_that_start_simultaneously_create_the_tables_once() {
    let Some(server) = shared() else { return };
    let database = server.database();
    let url = database.url();
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| open(&url));
        }
    });
    assert_eq!(database.sql("SELECT version FROM ghl_oauth_schema"), "1");
}

#[test]
fn tables_of_a_newer_version_are_refused_and_left_unchanged() {
    let Some(server) = shared() else { return };
    let database = server.database();
    drop(open(&database.url()));
    database.sql("INSERT INTO ghl_oauth_schema VALUES (99)");
    let error = try_open(&database.url(), None).err().unwrap();
    assert_eq!((error.status(), error.parameter()), (Status::Store, Some("store.url")));
    assert!(error.message().contains("newer version"), "{error}");
}

#[test]
fn table_with_a_changed_schema_is_a_store_error() {
    let Some(server) = shared() else { return };
    let database = server.database();
    let store = open(&database.url());
    store.save(&company("c"), &patience()).unwrap();
    database.sql("ALTER TABLE ghl_oauth_token ALTER COLUMN version TYPE text");
    for error in [
        store.load("c", &patience()).unwrap_err(),
        store.list(&Query { limit: 9, ..Query::default() }, &patience()).unwrap_err(),
    ] {
        assert_eq!(error.status(), Status::Store, "{error}");
        shows_no_password(&error.to_string());
    }
    database
        .sql("ALTER TABLE ghl_oauth_token ALTER COLUMN version TYPE bigint USING version::bigint");
    assert!(store.load("c", &patience()).unwrap().is_some());
}

#[test]
fn role_without_create_permission_works_with_existing_tables() {
    let Some(server) = shared() else { return };
    let database = server.database();
    database.sql(&format!("ALTER DATABASE {} OWNER TO postgres", database.name));
    let error = try_open(&database.url(), None).err().unwrap();
    assert_eq!((error.status(), error.parameter()), (Status::Store, Some("store.url")));
    assert!(error.help().unwrap().contains("GRANT CREATE"), "{error}");

    database.sql(&format!("GRANT CREATE ON SCHEMA public TO {ROLE}"));
    drop(open(&database.url()));
    database.sql(&format!(
        "REVOKE CREATE ON SCHEMA public FROM {ROLE};
         ALTER TABLE ghl_oauth_schema OWNER TO postgres;
         ALTER TABLE ghl_oauth_token OWNER TO postgres;
         ALTER TABLE ghl_oauth_note OWNER TO postgres;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ghl_oauth_token, ghl_oauth_note TO {ROLE};
         GRANT SELECT ON ghl_oauth_schema TO {ROLE}"
    ));
    assert_store_contract(&open(&database.url()));
}

#[test]
fn ids_are_sorted_by_their_bytes_with_any_database_collation() {
    let Some(server) = shared() else { return };
    server.sql(
        "postgres",
        &format!(
            "CREATE DATABASE in_english OWNER {ROLE} TEMPLATE template0 LOCALE_PROVIDER icu \
             ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'"
        ),
    );
    let store = open(&Database { server, name: "in_english".into() }.url());
    for id in ["b", "B", "a", "ä", "Z"] {
        store.save(&company(id), &patience()).unwrap();
    }
    let page = store.list(&Query { limit: 9, ..Query::default() }, &patience()).unwrap();
    let ids: Vec<&str> = page.records.iter().map(|record| record.resource_id.as_str()).collect();
    assert_eq!(ids, ["B", "Z", "a", "b", "ä"]);
}

// ---- Durability and lost replies ----------------------------------------------------------------

#[test]
fn save_survives_a_server_crash_when_the_role_has_synchronous_commit_off() {
    // The background writer must not sync by chance instead of the save.
    let Some(mut server) = Server::start(&["wal_writer_delay=10s", "autovacuum=off"]) else {
        return;
    };
    server.sql("postgres", &format!("ALTER ROLE {ROLE} SET synchronous_commit = off"));
    let database = server.database();
    let (url, name) = (database.url(), database.name.clone());
    let store = open(&url);
    let mut record = company("company");
    record.version = store.save(&record, &patience()).unwrap();
    record.version = store.save(&record, &patience()).unwrap();
    let outcomes = store.save_all(&[company("many"), record.clone()], &patience());
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    server.crash();
    let versions = server.sql(
        &name,
        "SELECT string_agg(resource_id || version, ' ' ORDER BY resource_id) FROM ghl_oauth_token",
    );
    assert_eq!(versions, "company3 many1");
    assert_eq!(
        store.load("company", &patience()).unwrap().unwrap().version,
        3,
        "the store keeps working"
    );
}

#[test]
fn intent_lost_in_a_server_crash_lets_its_client_overwrite_no_later_consent() {
    // Nothing may sync the intent by chance.
    let Some(mut server) = Server::start(&["wal_writer_delay=10s", "autovacuum=off"]) else {
        return;
    };
    let url = server.database().url();
    let (store, other) = (open(&url), open(&url));
    let mut refreshing = company("company");
    refreshing.version = store.save(&refreshing, &patience()).unwrap();
    refreshing.version = store.save_intent(&refreshing, &patience()).unwrap();
    server.crash();
    let mut consented = other.load("company", &patience()).unwrap().unwrap();
    assert_eq!(consented.version, 1, "the intent is not synced, so it is lost");
    consented.version = other.save(&consented, &patience()).unwrap();
    let late = store.save(&refreshing, &patience()).map_err(|error| error.status());
    assert_eq!(late, Err(Status::Conflict));
}

#[test]
fn refresh_makes_four_statements_and_one_synced_commit() {
    let Some(server) = Server::start(&["log_statement=all"]) else { return };
    let fixture = Fixture::new(&server.database().url());
    // Connects.
    fixture.client.token_refresh(&fixture.company).unwrap();
    let before = server.log().len();
    fixture.client.token_refresh(&fixture.company).unwrap();
    let log = server.log()[before..].to_owned();
    let statements: Vec<&str> = log
        .lines()
        .filter_map(|line| {
            let (_, statement) =
                line.split_once("statement: ").or_else(|| line.split_once("<unnamed>: "))?;
            // Ends the lock's transaction; no caller waits for its response.
            statement.split(' ').next().filter(|word| *word != "ROLLBACK")
        })
        .collect();
    assert_eq!(statements, ["SELECT", "BEGIN", "UPDATE", "UPDATE"]);
    let unsynced = "set_config('synchronous_commit', 'off', true)";
    assert_eq!(log.matches(unsynced).count(), 1, "the intent is not synced");
}

#[test]
fn save_with_a_lost_reply_is_recognized_as_its_own() {
    let Some(server) = shared() else { return };
    let relay = Relay::to(server);
    let store = open(&server.database().url_at(&format!("127.0.0.1:{}", relay.port)));
    let lost = |what: &str, work: &dyn Fn()| {
        // Opens a connection, so that the next reply belongs to the statement.
        store.load("nothing", &patience()).unwrap();
        relay.swallow_answers(1);
        work();
        assert_eq!(relay.left(), 0, "{what}: a reply was dropped");
    };
    let record = Mutex::new(company("company"));
    for expected in 1..=3 {
        lost("save", &|| {
            let mut record = record.lock().unwrap();
            record.version = store.save(&record, &patience()).unwrap();
            assert_eq!(record.version, expected);
        });
        assert_eq!(store.load("company", &patience()).unwrap().unwrap().version, expected);
    }
    lost("save of many", &|| {
        let records = [company("one"), record.lock().unwrap().clone(), company("two")];
        let versions: Vec<u64> =
            store.save_all(&records, &patience()).into_iter().map(Result::unwrap).collect();
        assert_eq!(versions, [1, 4, 1]);
    });
    let mut note = Note {
        key: "n".into(),
        version: 0,
        list: "l".into(),
        document: json!({"a": 1}),
        expires_at: 9,
    };
    for version in 0..2 {
        note.version = version;
        lost("save of a note", &|| store.save_note(&note, &patience()).unwrap());
    }
    lost("save of many notes", &|| {
        let new = Note { key: "m".into(), version: 0, ..note.clone() };
        let old = Note { version: 2, ..note.clone() };
        let outcomes = store.save_notes(&[old, new], &patience());
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    });
    assert_eq!(store.note("n", &patience()).unwrap().unwrap().version, 3);
    lost("load", &|| assert!(store.load("company", &patience()).unwrap().is_some()));
    lost("removal of many", &|| {
        // The third record was changed in the meantime: it stays in every attempt.
        let listed = [("company".to_owned(), 4), ("one".to_owned(), 1), ("two".to_owned(), 7)];
        assert_eq!(store.remove_all(&listed, &patience()).unwrap(), [true, true, false]);
    });
    let left = store.list(&Query { limit: 9, ..Query::default() }, &patience()).unwrap();
    assert_eq!(left.records.iter().map(|record| &*record.resource_id).collect::<Vec<_>>(), ["two"]);
    lost("lock", &|| drop(store.lock("company", &patience()).unwrap()));
}

#[test]
fn save_that_lost_a_race_is_a_conflict_even_if_its_reply_was_lost() {
    let Some(server) = shared() else { return };
    let relay = Relay::to(server);
    let database = server.database();
    let (ours, theirs) =
        (open(&database.url_at(&format!("127.0.0.1:{}", relay.port))), open(&database.url()));
    let mut record = company("company");
    record.version = ours.save(&record, &patience()).unwrap();
    let mut other = record.clone();
    Arc::make_mut(&mut other.token).access_token = "theirs".to_owned().into();
    theirs.save(&other, &patience()).unwrap();
    relay.swallow_answers(1);
    assert_eq!(ours.save(&record, &patience()).unwrap_err().status(), Status::Conflict);
    assert_eq!(relay.left(), 0);
}

#[test]
fn many_notes_are_each_saved_by_their_own_version() {
    let Some(server) = shared() else { return };
    let store = open(&server.database().url());
    let note = |key: &str, version| Note {
        key: key.into(),
        version,
        list: "l".into(),
        document: json!({"at": version}),
        expires_at: 9,
    };
    // More than one statement can carry, and unsorted.
    let notes: Vec<Note> =
        (0..1100).rev().map(|index| note(&format!("key-{index:04}"), 0)).collect();
    assert!(store.save_notes(&notes, &patience()).iter().all(Result::is_ok));
    let mixed = [note("new", 0), note("key-0001", 0), note("key-0002", 1), note("key-0003", 5)];
    let outcomes: Vec<Option<Status>> = store
        .save_notes(&mixed, &patience())
        .into_iter()
        .map(|outcome| outcome.err().map(|error| error.status()))
        .collect();
    assert_eq!(outcomes, [None, Some(Status::Conflict), None, Some(Status::Conflict)]);
    assert_eq!(store.note("key-0002", &patience()).unwrap().unwrap().document, json!({"at": 1}));
    assert_eq!(store.note("key-0003", &patience()).unwrap().unwrap().version, 1);
    // The same key twice: saved in the given order.
    let twice = [note("twice", 0), note("twice", 1)];
    assert!(store.save_notes(&twice, &patience()).iter().all(Result::is_ok));
    assert_eq!(store.note("twice", &patience()).unwrap().unwrap().version, 2);
}

#[test]
fn row_with_unexpected_columns_is_one_unreadable_item_that_can_be_deleted_and_replaced() {
    let Some(server) = shared() else { return };
    let database = server.database();
    let store = open(&database.url());
    database.sql(
        "ALTER TABLE ghl_oauth_token ALTER COLUMN document DROP NOT NULL, ALTER COLUMN version \
         DROP NOT NULL",
    );
    for damage in
        ["document = NULL", "document = ''", "document = 'canary'", "document = '\\x01ff'"]
    {
        for version in ["version", "NULL", "0", "-1", "-9223372036854775808"] {
            for id in ["a", "b", "c"] {
                store.save(&company(id), &patience()).unwrap();
            }
            let damage = format!("{damage}, version = {version}");
            let damaged = format!("UPDATE ghl_oauth_token SET {damage} WHERE resource_id = 'b'");
            database.sql(&damaged);
            let page = store.list(&Query { limit: 9, ..Query::default() }, &patience()).unwrap();
            let read: Vec<&str> = page.records.iter().map(|record| &*record.resource_id).collect();
            assert_eq!(read, ["a", "c"], "{damage}");
            let [unreadable] = &page.unreadable[..] else {
                panic!("{damage}: {:?}", page.unreadable)
            };
            assert_eq!(unreadable.resource_id, "b", "{damage}");
            assert!(!unreadable.error.to_string().contains("canary"), "{damage}");
            assert!(store.load("b", &patience()).unwrap_err().is_unreadable(), "{damage}");
            // A new token replaces it by the version from the list, alone or with others.
            let replacement = Record { version: unreadable.version, ..company("b") };
            assert_eq!(
                store.version("b", &patience()).unwrap(),
                Some(unreadable.version),
                "{damage}"
            );
            let saved = store.save(&replacement, &patience()).unwrap();
            assert_eq!(store.load("b", &patience()).unwrap().unwrap().version, saved, "{damage}");
            database.sql(&damaged);
            let version = store.version("b", &patience()).unwrap().unwrap();
            let records =
                [Record { version, ..company("b") }, Record { version: 1, ..company("a") }];
            let outcomes = store.save_all(&records, &patience());
            assert!(outcomes.iter().all(Result::is_ok), "{damage}: {outcomes:?}");
            // It can also be deleted.
            database.sql(&damaged);
            for id in ["a", "b", "c"] {
                assert!(remove(&store, id), "{damage}");
            }
        }
    }
}

#[test]
fn consent_after_the_deletion_of_a_row_with_a_damaged_version_is_saved() {
    let Some(server) = shared() else { return };
    let database = server.database();
    let Fixture { emulator, client, company, .. } = Fixture::new(&database.url());
    database.sql("ALTER TABLE ghl_oauth_token ALTER COLUMN version DROP NOT NULL");
    for version in ["NULL", "0", "-1"] {
        database.sql(&format!("UPDATE ghl_oauth_token SET version = {version}"));
        client.token_delete(&company).unwrap();
        Fixture::connect(&emulator, &client);
        let other = Fixture::client(&emulator, &database.url());
        assert!(
            emulator.access_token_is_live(other.access_token(&company).unwrap().expose()),
            "{version}"
        );
    }
}

// ---- Deadlines ----------------------------------------------------------------------------------

type Call = fn(&PostgresStore, &Deadline) -> Result<()>;

/// Every store call that sends a request to the server.
const CALLS: [(&str, Call); 12] = [
    ("load", |store, deadline| store.load("c", deadline).map(drop)),
    ("version", |store, deadline| store.version("c", deadline).map(drop)),
    ("save", |store, deadline| store.save(&company("new"), deadline).map(drop)),
    ("save_all", |store, deadline| {
        store.save_all(&[company("one"), company("two")], deadline).pop().unwrap().map(drop)
    }),
    ("remove_all", |store, deadline| store.remove_all(&[("c".to_owned(), 1)], deadline).map(drop)),
    ("list", |store, deadline| {
        store.list(&Query { limit: 9, ..Query::default() }, deadline).map(drop)
    }),
    ("due", |store, deadline| store.due(None, &(0..=9), None, 9, deadline).map(drop)),
    ("next_renewal", |store, deadline| store.next_renewal(None, deadline).map(drop)),
    ("lock", |store, deadline| store.lock("c", deadline).map(drop)),
    ("note", |store, deadline| store.note("n", deadline).map(drop)),
    ("save_notes", |store, deadline| {
        let note = |key: &str| Note {
            key: key.into(),
            version: 0,
            list: String::new(),
            document: Value::Null,
            expires_at: 1,
        };
        store.save_notes(&[note("n"), note("m")], deadline).pop().unwrap()
    }),
    ("prune_notes", |store, deadline| store.prune_notes(1, deadline)),
];

#[test]
fn every_call_to_a_silent_server_ends_by_its_deadline_and_by_its_cancellation() {
    let Some(server) = shared() else { return };
    let relay = Relay::to(server);
    let store = open(&server.database().url_at(&format!("127.0.0.1:{}", relay.port)));
    for (name, call) in CALLS {
        for has_connection in [true, false] {
            if has_connection {
                // The connection stays in the pool for the next call.
                relay.speak_again();
                wait_until("the server responds again", || store.load("c", &patience()).is_ok());
            }
            relay.fall_silent();
            let deadline = Deadline::after(Duration::from_millis(200), &Arc::default());
            let began = Instant::now();
            let error = call(&store, &deadline).unwrap_err();
            assert_eq!(error.status(), Status::Timeout, "{name}: {error}");
            // A single attempt may take five seconds if the call has the time.
            assert!(began.elapsed() < Duration::from_secs(4), "{name}: {:?}", began.elapsed());
            shows_no_password(&error.to_string());
        }
        relay.speak_again();
        wait_until("the server responds again", || store.load("c", &patience()).is_ok());
        relay.fall_silent();
        let cancellation = Arc::new(Cancellation::default());
        let deadline = Deadline::after(Duration::from_secs(60), &cancellation);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| call(&store, &deadline).unwrap_err());
            relay.wait_until_asked();
            cancellation.raise();
            assert_eq!(waiter.join().unwrap().status(), Status::Cancelled, "{name}");
        });
    }
    relay.speak_again();
}

#[test]
fn wait_for_a_pooled_connection_ends_by_its_deadline_and_by_its_cancellation() {
    let Some(server) = shared() else { return };
    let relay = Relay::to(server);
    let store = open(&server.database().url_at(&format!("127.0.0.1:{}", relay.port)));
    relay.fall_silent();
    let (busy, waiting) = (Arc::new(Cancellation::default()), Arc::new(Cancellation::default()));
    thread::scope(|scope| {
        for _ in 0..4 {
            let deadline = Deadline::after(Duration::from_secs(60), &busy);
            let store = &store;
            scope.spawn(move || store.load("c", &deadline));
        }
        relay.wait_until_asked_times(4);
        let hasty = Deadline::after(Duration::from_millis(200), &waiting);
        assert_eq!(store.load("c", &hasty).unwrap_err().status(), Status::Timeout);
        let patient = Deadline::after(Duration::from_secs(60), &waiting);
        let waiting_store = &store;
        let waiter = scope.spawn(move || waiting_store.load("c", &patient).unwrap_err().status());
        while !waiter.is_finished() {
            waiting.raise();
            thread::yield_now();
        }
        assert_eq!(waiter.join().unwrap(), Status::Cancelled);
        busy.raise();
    });
}

#[test]
fn unavailable_server_is_a_store_error_and_not_a_timeout() {
    let Some(mut server) = Server::start(&[]) else { return };
    let store = open(&server.database().url());
    server.stop();
    for (name, call) in CALLS {
        let error = call(&store, &patience()).unwrap_err();
        assert_eq!((error.status(), error.retryable()), (Status::Store, true), "{name}: {error}");
    }
}

// ---- Roles with limits --------------------------------------------------------------------------

#[test]
fn wait_for_a_lock_outlasts_the_roles_statement_timeout() {
    let Some(server) = Server::start(&[]) else { return };
    let database = server.database();
    let url = database.url();
    drop(open(&url));
    for limit in ["statement_timeout = '50ms'", "lock_timeout = '50ms'"] {
        server.sql("postgres", &format!("ALTER ROLE {ROLE} SET {limit}"));
        // Two stores act like two hosts: threads of one store do not ask the server.
        let (one, two) = (open(&url), open(&url));
        let held = one.lock("company", &patience()).unwrap();
        let deadline = Deadline::after(Duration::from_millis(700), &Arc::default());
        let error = two.lock("company", &deadline).err().unwrap();
        assert_eq!(error.status(), Status::Timeout, "{limit}: {error}");
        thread::scope(|scope| {
            let waiter = scope.spawn(|| two.lock("company", &patience()).map(drop));
            wait_until("the server reports the waiter", || {
                database.sql(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted",
                ) == "1"
            });
            drop(held);
            waiter.join().unwrap().unwrap();
        });
        server.sql("postgres", &format!("ALTER ROLE {ROLE} RESET ALL"));
    }
}

#[test]
fn statement_ended_by_the_server_is_a_store_error_whose_help_names_the_setting() {
    let Some(server) = Server::start(&[]) else { return };
    let database = server.database();
    drop(open(&database.url()));
    for (limit, setting) in [("50ms", "statement_timeout"), ("50ms", "lock_timeout")] {
        server.sql("postgres", &format!("ALTER ROLE {ROLE} SET {setting} = '{limit}'"));
        let store = open(&database.url());
        let record = company("c");
        let busy = database.session("BEGIN; LOCK TABLE ghl_oauth_token IN ACCESS EXCLUSIVE MODE;");
        for error in [
            store.load("c", &patience()).unwrap_err(),
            store.save(&record, &patience()).unwrap_err(),
            store.list(&Query { limit: 9, ..Query::default() }, &patience()).unwrap_err(),
        ] {
            assert_eq!(
                (error.status(), error.retryable()),
                (Status::Store, true),
                "{setting}: {error}"
            );
            assert!(error.help().unwrap().contains(setting), "{setting}: {error}");
        }
        drop(busy);
        wait_until("the table is unlocked", || store.load("c", &patience()).is_ok());
        server.sql("postgres", &format!("ALTER ROLE {ROLE} RESET ALL"));
    }
}

#[test]
fn tables_are_created_by_a_role_with_a_short_statement_timeout() {
    let Some(server) = Server::start(&[]) else { return };
    let database = server.database();
    server.sql("postgres", &format!("ALTER ROLE {ROLE} SET statement_timeout = '200ms'"));
    // Another process creates the tables: waiting for it takes longer than a statement of this role
    // may.
    let busy = database
        .session(&format!("BEGIN; SELECT pg_advisory_xact_lock({});", 0x6768_6c5f_6f61_7574_i64));
    thread::scope(|scope| {
        let opening = scope.spawn(|| try_open(&database.url(), None).map(drop));
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'
                     AND clock_timestamp() - query_start > interval '400 ms'";
        wait_until("the wait is longer", || opening.is_finished() || database.sql(waits) == "1");
        drop(busy);
        opening.join().unwrap().unwrap();
    });
}

// ---- Server failures ----------------------------------------------------------------------------

struct Fixture {
    emulator: Emulator,
    client: Client,
    company: String,
    events: Arc<Mutex<Vec<String>>>,
}

impl Fixture {
    fn new(url: &str) -> Fixture {
        listen();
        let emulator = Emulator::start(Options::default()).unwrap();
        let client = Fixture::client(&emulator, url);
        Fixture::connect(&emulator, &client);
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        client.on_event(Some(Arc::new(move |event: &Value| {
            heard.lock().unwrap().push(event["type"].as_str().unwrap().to_owned());
        })));
        let company = emulator.company_id();
        Fixture { emulator, client, company, events }
    }

    fn connect(emulator: &Emulator, client: &Client) {
        connect::connect(emulator, client);
    }

    fn client(emulator: &Emulator, url: &str) -> Client {
        Client::new(&Fixture::config(emulator, url)).unwrap()
    }

    fn config(emulator: &Emulator, url: &str) -> Config {
        let config = connect::config(emulator, &json!({"kind": "postgres", "url": url}));
        Config::from_json(&config.to_string()).unwrap()
    }

    /// Ends the session that holds the refresh lock.
    fn end_lock(&self, server: &Server) {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks \
                   WHERE locktype = 'advisory' AND granted";
        assert_eq!(server.sql("postgres", end), "1");
    }

    /// Refreshes, and runs `happens` while the API is still processing the refresh.
    fn refresh_while(&self, happens: impl FnOnce()) -> Result<Value, Error> {
        let rule = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken).times(1);
        let hold = self.emulator.hold(rule, Stage::AfterProcessing);
        thread::scope(|scope| {
            let refresh = scope.spawn(|| self.client.token_refresh(&self.company));
            hold.wait_for(1);
            happens();
            hold.release();
            refresh.join().unwrap()
        })
    }

    fn state(&self) -> Value {
        self.client.tokens_list(&Default::default()).unwrap()["items"][0]["state"].clone()
    }

    fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// Asserts that a client with this URL finds a token that the API accepts and can refresh it.
    fn is_whole(&self, url: &str) {
        let other = Fixture::client(&self.emulator, url);
        let token = other.access_token(&self.company).unwrap();
        assert!(self.emulator.access_token_is_live(token.expose()));
        other.token_refresh(&self.company).unwrap();
    }
}

#[test]
fn server_shutdown_during_a_refresh_loses_no_token() {
    let Some(mut server) = Server::start(&[]) else { return };
    let url = server.database().url();
    let fixture = Fixture::new(&url);
    let outcome = fixture.refresh_while(|| server.stop());
    // Only this process has the new token.
    assert_eq!(outcome.unwrap()["state"], "unsaved");
    let token = fixture.client.access_token(&fixture.company).unwrap();
    assert!(fixture.emulator.access_token_is_live(token.expose()));
    assert_eq!(fixture.events(), ["token.unsaved"]);
    let error = fixture.client.token_refresh(&fixture.company).unwrap_err();
    assert_eq!((error.status(), error.retryable()), (Status::Store, true));
    shows_no_password(&format!("{error:?} {}", error.to_json()));

    server.begin();
    wait_until("the server is reachable again", || {
        fixture.client.tokens_list(&Default::default()).is_ok()
    });
    assert_eq!(fixture.state(), "ok");
    assert!(fixture.events().contains(&"token.saved".to_owned()));
    assert_eq!(fixture.emulator.refreshes(), 1);
    fixture.is_whole(&url);
}

#[test]
fn sessions_terminated_during_a_refresh_lose_no_token() {
    let Some(server) = Server::start(&[]) else { return };
    let url = server.database().url();
    let fixture = Fixture::new(&url);
    let metadata = fixture.refresh_while(|| server.end_sessions()).unwrap();
    assert_eq!(metadata["state"], "ok");
    assert_eq!(fixture.events(), ["token.refreshed"]);
    // Idle sessions as well.
    server.end_sessions();
    fixture.client.token_refresh(&fixture.company).unwrap();
    fixture.is_whole(&url);
}

/// The wall clock of a host that is ahead.
struct Ahead(SystemClock, i64);

impl Clock for Ahead {
    fn wall_ms(&self) -> i64 {
        self.0.wall_ms() + self.1
    }

    fn uptime(&self) -> Duration {
        self.0.uptime()
    }
}

/// The session of the lock ends while its holder refreshes, so another host refreshes as well.
#[test]
fn connection_survives_a_lost_lock_with_a_fast_clock_and_two_rotations() {
    let Some(server) = Server::start(&[]) else { return };
    for ahead_ms in [3_000, 86_400_000, -3_000] {
        let url = server.database().url();
        let mut fixture = Fixture::new(&url);
        let clock = Arc::new(Ahead(SystemClock::new(), ahead_ms));
        fixture.client =
            Client::with_clock(&Fixture::config(&fixture.emulator, &url), clock).unwrap();
        let other = Fixture::client(&fixture.emulator, &url);
        let outcome = fixture.refresh_while(|| {
            fixture.end_lock(&server);
            for _ in 0..2 {
                other.token_refresh(&fixture.company).unwrap();
            }
        });
        let metadata = outcome.unwrap();
        assert_eq!(metadata["state"], "ok", "{ahead_ms}");
        // The store holds the token of the last rotation, and this host returns it: its own token
        // came late.
        let live = fixture.emulator.live_refresh_tokens();
        let stored = other.tokens_export(&Default::default()).unwrap();
        let stored = stored["tokens"][0]["refreshToken"].as_str().unwrap();
        assert!(
            live.iter().any(|token| token.refresh_token == stored),
            "{ahead_ms}: the newest token is stored"
        );
        let token = fixture.client.access_token(&fixture.company).unwrap();
        assert!(fixture.emulator.access_token_is_live(token.expose()), "{ahead_ms}");
        fixture.client.token_refresh(&fixture.company).unwrap();
        other.token_refresh(&fixture.company).unwrap();
        fixture.is_whole(&url);
    }
}

#[test]
fn connection_survives_a_lost_lock_without_the_replay_window() {
    let Some(server) = Server::start(&[]) else { return };
    for ahead_ms in [3_000, -3_000] {
        let url = server.database().url();
        let mut fixture = Fixture::new(&url);
        fixture.emulator.set_reuse_window_seconds(0);
        let clock = Arc::new(Ahead(SystemClock::new(), ahead_ms));
        fixture.client =
            Client::with_clock(&Fixture::config(&fixture.emulator, &url), clock).unwrap();
        let other = Fixture::client(&fixture.emulator, &url);
        let outcome = fixture.refresh_while(|| {
            fixture.end_lock(&server);
            // The refresh token is spent, and only the first host is about to receive the new one.
            other.token_refresh(&fixture.company).unwrap_err();
        });
        assert_eq!(outcome.unwrap()["state"], "ok", "{ahead_ms}");
        fixture.is_whole(&url);
    }
}

#[test]
fn server_that_becomes_read_only_loses_no_token() {
    let Some(server) = Server::start(&[]) else { return };
    let url = server.database().url();
    let fixture = Fixture::new(&url);
    let set = |value: &str| {
        server
            .sql("postgres", &format!("ALTER SYSTEM SET default_transaction_read_only = {value}"));
        server.sql("postgres", "SELECT pg_reload_conf()");
        let is = || server.sql("postgres", "SHOW default_transaction_read_only") == value;
        wait_until("the server has read its configuration", is);
    };
    assert_eq!(fixture.refresh_while(|| set("on")).unwrap()["state"], "unsaved");
    assert_eq!(fixture.events(), ["token.unsaved"]);
    let error = fixture.client.token_refresh(&fixture.company).unwrap_err();
    assert!(
        error.message().contains("accepts no writes") || error.message().contains("read-only"),
        "{error}"
    );
    set("off");
    wait_until("the server is reachable again", || {
        fixture.client.tokens_list(&Default::default()).is_ok()
    });
    assert_eq!(fixture.state(), "ok");
    fixture.is_whole(&url);
}

#[test]
fn database_failover_to_its_standby_keeps_the_token() {
    let Some(mut primary) = Server::start(&[]) else { return };
    let database = primary.database();
    let name = database.name.clone();
    let standby = Server::standby_of(&primary);
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", standby.port, primary.port);
    let url = database.url_at(&hosts);
    // The standby is listed first and is skipped.
    let fixture = Fixture::new(&url);
    let row =
        format!("SELECT count(*) FROM ghl_oauth_token WHERE resource_id = '{}'", fixture.company);
    wait_until("the standby has caught up with the primary", || {
        let told = primary.sql("postgres", "SELECT pg_current_wal_lsn()");
        standby.sql("postgres", &format!("SELECT pg_last_wal_replay_lsn() >= '{told}'")) == "t"
    });
    assert_eq!(standby.sql(&name, &row), "1");
    let metadata = fixture.refresh_while(|| {
        primary.stop();
        standby.promote();
    });
    assert_eq!(metadata.unwrap()["state"], "ok", "the new token was saved on the new primary");
    assert_eq!(fixture.events(), ["token.refreshed"]);
    fixture.is_whole(&url);
}

#[test]
fn silent_server_is_skipped() {
    let Some(server) = shared() else { return };
    // A listening server that never responds.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hosts = format!("{},127.0.0.1:{}", silent.local_addr().unwrap(), server.port);
    let url = Secret::new(server.database().url_at(&hosts));
    let timeouts = Timeouts { connect_ms: 2000, ..Timeouts::default() };
    assert_store_contract(
        &PostgresStore::open(&url, None, &timeouts, Seal::none("app-1")).unwrap(),
    );
    let alone = server.database().url_at(&silent.local_addr().unwrap().to_string());
    let error = PostgresStore::open(&Secret::new(alone), None, &timeouts, Seal::none("app-1"))
        .err()
        .unwrap();
    assert!(error.message().contains("no answer in time"), "{error}");
}

#[test]
fn wait_for_a_silent_server_at_the_start_ends_by_the_total_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Secret::new(format!("postgres://u:p@{}/app", silent.local_addr().unwrap()));
    let timeouts = Timeouts { total_ms: 50, ..Timeouts::default() };
    let begun = Instant::now();
    let opened = PostgresStore::open(&url, None, &timeouts, Seal::none("app-1"));
    assert_eq!(opened.err().unwrap().status(), Status::Store);
    // The limit without it is 5 seconds.
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn wait_for_a_silent_server_ends_with_the_call() {
    let Some(server) = shared() else { return };
    let relay = Relay::to(server);
    let store = open(&server.database().url_at(&format!("127.0.0.1:{}", relay.port)));
    let cancellation = Arc::new(Cancellation::default());
    let deadline = Deadline::after(Duration::from_secs(60), &cancellation);
    relay.fall_silent();
    thread::scope(|scope| {
        let waiter =
            scope.spawn(|| store.lock("company", &deadline).err().map(|error| error.status()));
        relay.wait_until_asked();
        cancellation.raise();
        assert_eq!(waiter.join().unwrap(), Some(Status::Cancelled));
    });
}

#[test]
fn invalid_url_is_explained_without_its_password() {
    let Some(server) = shared() else { return };
    let database = server.database();
    let good = database.url();
    // The port of tcpmux, a service that no system runs.
    let nobody = 1;
    let wrong_password = good.replace("d41d8cd9", "d41d8cd9-wrong");
    for (url, says, retryable) in [
        (wrong_password.clone(), "password authentication failed", false),
        (good.replace(&format!("/{}", database.name), "/nowhere"), "does not exist", false),
        (database.url_at(&format!("127.0.0.1:{nobody}")), "refused", true),
        (database.url_at(&format!("127.0.0.1:{nobody},localhost:{nobody}")), "localhost", true),
        (database.url_at("no-such-host.invalid:5432"), "no-such-host.invalid", true),
        (format!("{good}?sslmode=require"), "TLS", false),
    ] {
        let error = try_open(&url, None).err().unwrap();
        assert_eq!(
            (error.status(), error.parameter()),
            (Status::Store, Some("store.url")),
            "{error}"
        );
        assert!(error.message().contains(says), "{says}: {error}");
        assert_eq!((error.retryable(), error.sent()), (retryable, None), "{error}");
        shows_no_password(&format!("{error:?} {}", error.to_json()));
    }
    shows_no_password(&format!("{:?}", try_open(&wrong_password, None).err()));
    let config =
        json!({"clientId": "a-1", "clientSecret": "s", "store": {"kind": "postgres", "url": good}});
    shows_no_password(&format!("{:?}", Config::from_json(&config.to_string()).unwrap()));
}

#[test]
fn log_contains_neither_tokens_nor_the_password() {
    let Some(server) = shared() else { return };
    let fixture = Fixture::new(&server.database().url());
    fixture.client.token_refresh(&fixture.company).unwrap();
    let export = fixture.client.tokens_export(&Default::default()).unwrap();
    let _ = try_open(&server.database().url().replace("d41d8cd9", "d41d8cd9-wrong"), None);
    let logged = LOGGED.lock().unwrap();
    assert!(logged.contains("tokio_postgres"), "the log listener works");
    shows_no_password(&logged);
    for secret in ["accessToken", "refreshToken"] {
        assert!(!logged.contains(export["tokens"][0][secret].as_str().unwrap()), "{secret}");
    }
}

// ---- A small pooler -----------------------------------------------------------------------------

#[test]
fn more_lock_holders_than_pooler_connections_all_finish() {
    let Some(server) = shared() else { return };
    for size in [2, 3] {
        let Some(pooler) = Pooler::start(server, size) else { return };
        let url = server.database().url_at(&format!("127.0.0.1:{}", pooler.port));
        // Each has a connection before they compete for the pooler's.
        let stores: Vec<PostgresStore> = (0..8).map(|_| open(&url)).collect();
        thread::scope(|scope| {
            for (worker, store) in stores.iter().enumerate() {
                scope.spawn(move || {
                    let id = format!("company-{worker}");
                    for _ in 0..3 {
                        let _held = store.lock(&id, &patience()).unwrap();
                        let record =
                            store.load(&id, &patience()).unwrap().unwrap_or_else(|| company(&id));
                        store.save(&record, &patience()).unwrap();
                    }
                });
            }
        });
        let page = open(&url).list(&Query { limit: 99, ..Query::default() }, &patience()).unwrap();
        let versions: Vec<u64> = page.records.iter().map(|record| record.version).collect();
        assert_eq!(versions, [3; 8]);
    }
}

#[test]
fn many_waiters_for_one_lock_leave_a_pooler_connection_to_its_holder() {
    let Some(server) = shared() else { return };
    let Some(pooler) = Pooler::start(server, 2) else { return };
    let url = server.database().url_at(&format!("127.0.0.1:{}", pooler.port));
    let stores: Vec<PostgresStore> = (0..20).map(|_| open(&url)).collect();
    thread::scope(|scope| {
        for store in &stores {
            scope.spawn(move || {
                let _held = store.lock("company", &patience()).unwrap();
                let record = store
                    .load("company", &patience())
                    .unwrap()
                    .unwrap_or_else(|| company("company"));
                store.save(&record, &patience()).unwrap();
            });
        }
    });
    assert_eq!(
        open(&url).load("company", &patience()).unwrap().unwrap().version,
        20,
        "no other waiter was served in between"
    );
}

#[test]
fn locations_that_fill_a_pooler_leave_a_connection_for_the_company_refresh() {
    let Some(server) = shared() else { return };
    let Some(pooler) = Pooler::start(server, 2) else { return };
    let url = server.database().url_at(&format!("127.0.0.1:{}", pooler.port));
    let fixture = Fixture::new(&url);
    // The token of the company has expired, so no location can be minted before its refresh.
    let mut tokens = fixture.client.tokens_export(&Default::default()).unwrap();
    tokens["tokens"][0]["expiresAt"] = 1.into();
    let import = json!({"tokens": tokens["tokens"], "replace": true});
    fixture.client.tokens_import(serde_json::from_value(import).unwrap()).unwrap();
    let mut config = Fixture::config(&fixture.emulator, &url);
    // Every caller succeeds eventually; the time depends on the machine.
    config.timeouts.total_ms = 120_000;
    let locations = fixture.emulator.location_ids();
    let clients: Vec<(&String, Client)> =
        locations[..6].iter().map(|location| (location, Client::new(&config).unwrap())).collect();
    thread::scope(|scope| {
        for (location, client) in &clients {
            let fixture = &fixture;
            scope.spawn(move || {
                let token = client.access_token(location).unwrap();
                assert!(fixture.emulator.access_token_is_live(token.expose()));
            });
        }
    });
    assert_eq!(fixture.emulator.refreshes(), 1);
}

// ---- TLS ----------------------------------------------------------------------------------------

#[test]
fn server_certificate_and_host_name_are_verified() {
    let Some(server) = Server::start(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let openssl = |arguments: &str| {
        let arguments = arguments.replace("{}", folder.path().to_str().unwrap());
        let output = Command::new("openssl").args(arguments.split_whitespace()).output();
        output.is_ok_and(|output| output.status.success())
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -x509";
    fs::write(path("empty.cnf"), "[req]\ndistinguished_name=dn\n[dn]\n").unwrap();
    let authority = |name: &str| {
        format!(
            "req {key} -config {{}}/empty.cnf -subj /CN={name} -keyout {{}}/{name}.key -out \
             {{}}/{name}.pem -addext basicConstraints=critical,CA:TRUE"
        )
    };
    if !openssl(&authority("ca")) || !openssl(&authority("other")) {
        println!("skipped: TLS to PostgreSQL (apt-get install openssl)");
        return;
    }
    assert!(openssl(&format!(
        "req {key} -config {{}}/empty.cnf -subj /CN=server -keyout {{}}/server.key -out \
         {{}}/server.pem -CA {{}}/ca.pem -CAkey {{}}/ca.key -addext basicConstraints=CA:FALSE \
         -addext subjectAltName=IP:127.0.0.1"
    )));
    for name in ["server.key", "server.pem"] {
        let place = server.data().join(name);
        fs::copy(path(name), &place).unwrap();
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let owner = fs::metadata(server.data()).unwrap();
        std::os::unix::fs::chown(&place, Some(owner.uid()), Some(owner.gid())).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
    }
    for (option, value) in
        [("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key"), ("ssl", "on")]
    {
        server.sql("postgres", &format!("ALTER SYSTEM SET {option} = '{value}'"));
    }
    server.sql("postgres", "SELECT pg_reload_conf()");
    wait_until("the server speaks TLS", || server.sql("postgres", "SHOW ssl") == "on");
    let database = server.database();
    let url = |host: &str, options: &str| {
        format!(
            "{}?sslmode=verify-full{options}",
            database.url_at(&format!("{host}:{}", server.port))
        )
    };

    // With channel binding the proof of the password is valid for this connection only.
    let bound = url("127.0.0.1", "&channel_binding=require");
    let store = try_open(&bound, Some(&path("ca.pem"))).unwrap();
    assert_store_contract(&store);
    let encrypted = database.sql(&format!(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE usename = '{ROLE}'"
    ));
    assert_eq!(encrypted, "t");

    for (host, bundle) in
        [("127.0.0.1", None), ("127.0.0.1", Some("other.pem")), ("localhost", Some("ca.pem"))]
    {
        let bundle = bundle.map(path);
        let error = try_open(&url(host, ""), bundle.as_deref()).err().unwrap();
        assert_eq!((error.status(), error.retryable()), (Status::Store, false), "{error}");
        assert!(error.message().contains("certificate"), "{host}, {bundle:?}: {error}");
    }
    fs::write(path("bad.pem"), "no certificate").unwrap();
    for bundle in ["bad.pem", "missing.pem"] {
        let error = try_open(&url("127.0.0.1", ""), Some(&path(bundle))).err().unwrap();
        assert_eq!(
            (error.status(), error.parameter()),
            (Status::Config, Some("store.caBundlePath"))
        );
    }
}
