//! The contract of every store, as one test suite.
#![allow(dead_code)] // Each test file uses only a part.

use std::sync::Arc;
use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth::internals::deadline::{Cancellation, Deadline};
use ghl_oauth::internals::store::{Intent, Note, Query, Record, Standing, Store};
use ghl_oauth::internals::token::{Token, UserType};
use serde_json::{Map, json};

/// Every promise of [`Store`], on a store that is empty.
pub fn assert_store_contract(store: &(impl Store + ?Sized)) {
    saved_record_is_loaded_unchanged(store);
    save_requires_the_stored_version(store);
    first_save_that_follows_another_tombstone_is_refused(store);
    lists_are_paged_filtered_and_sorted(store);
    due_records_are_found(store);
    batch_saves_match_single_saves(store);
    lock_is_exclusive_and_released(store);
    notes_are_separate_and_expire(store);
}

/// Two stores of different apps in one database do not see each other's records and notes.
pub fn assert_apps_are_separate(one: &impl Store, two: &impl Store) {
    let record = Record::new("company".into(), token(UserType::Company, "company", None));
    one.save(&record, &patience()).unwrap();
    assert!(two.load("company", &patience()).unwrap().is_none());
    two.save(&record, &patience()).unwrap();
    assert!(remove(two, "company"));
    assert!(one.load("company", &patience()).unwrap().is_some());
    let note = Note {
        key: "n".into(),
        version: 0,
        list: "due".into(),
        document: json!(null),
        expires_at: 1,
    };
    one.save_note(&note, &patience()).unwrap();
    two.prune_notes(2, &patience()).unwrap();
    assert!(two.note("n", &patience()).unwrap().is_none());
    assert!(two.notes("due", None, 9, &patience()).unwrap().notes.is_empty());
    assert!(one.note("n", &patience()).unwrap().is_some());
}

/// A deadline that no test reaches.
pub fn patience() -> Deadline {
    Deadline::after(Duration::from_secs(60), &Arc::default())
}

/// Removes a record of any version. Returns whether it existed.
pub fn remove(store: &(impl Store + ?Sized), resource_id: &str) -> bool {
    let Some(version) = store.version(resource_id, &patience()).unwrap() else { return false };
    let old = [(resource_id.to_owned(), version - 1)];
    assert_eq!(
        store.remove_all(&old, &patience()).unwrap(),
        [false],
        "another version is not removed"
    );
    store.remove_all(&[(resource_id.to_owned(), version)], &patience()).unwrap() == [true]
}

/// A token of the usual size.
pub fn token(user_type: UserType, company_id: &str, location_id: Option<&str>) -> Token {
    Token {
        access_token: "a".repeat(900).into(),
        refresh_token: Some("r".repeat(400).into()),
        issued_at: Some(1_700_000_000_000),
        expires_at: 1_700_086_400_000,
        user_type: Some(user_type),
        company_id: Some(company_id.to_owned()),
        location_id: location_id.map(str::to_owned),
        scope: Some("contacts.readonly".into()),
        fields: Map::from_iter([(
            "refreshTokenId".to_owned(),
            json!({"odd": ["\u{0}", "ü", 1.5, null]}),
        )]),
    }
}

fn saved_record_is_loaded_unchanged(store: &(impl Store + ?Sized)) {
    for (id, standing, intent) in [
        ("plain", Standing::Good, None),
        (
            "ünï'\"; DROP TABLE token; --",
            Standing::Inactive { since_ms: -5 },
            Some(Intent { since_ms: 7 }),
        ),
        (
            "x\u{1F600}",
            Standing::ReauthorizationRequired {
                since_ms: i64::MAX,
                reason: "because \"so\"".into(),
                lacks_company: true,
            },
            None,
        ),
    ] {
        let mut record = Record::new(id.to_owned(), token(UserType::Location, "company", Some(id)));
        (record.standing, record.intent, record.renew_at) = (standing, intent, 42);
        assert!(store.load(id, &patience()).unwrap().is_none());
        record.version = store.save(&record, &patience()).unwrap();
        let loaded = store.load(id, &patience()).unwrap().unwrap();
        assert_eq!(loaded.resource_id, id);
        assert_eq!(loaded.version, record.version);
        assert_eq!(*loaded.to_document().unwrap(), *record.to_document().unwrap());
        assert!(remove(store, id));
        assert!(!remove(store, id));
        assert!(store.load(id, &patience()).unwrap().is_none());
    }
}

fn save_requires_the_stored_version(store: &(impl Store + ?Sized)) {
    let mut record = Record::new("versioned".into(), token(UserType::Company, "versioned", None));
    let first = store.save(&record, &patience()).unwrap();
    assert_eq!(
        store.save(&record, &patience()).unwrap_err().status(),
        Status::Conflict,
        "version 0 means a record that does not exist"
    );
    record.version = first;
    // The owner of a token may change as well.
    Arc::make_mut(&mut record.token).company_id = Some("another".into());
    Arc::make_mut(&mut record.token).access_token = "second".to_owned().into();
    let second = store.save(&record, &patience()).unwrap();
    assert!(second > first);
    assert_eq!(
        store.save(&record, &patience()).unwrap_err().status(),
        Status::Conflict,
        "an old version overwrites nothing"
    );
    assert_eq!(
        store.load("versioned", &patience()).unwrap().unwrap().token.access_token.expose(),
        "second"
    );
    let query = Query { company_id: Some("another".into()), limit: 9, ..Query::default() };
    assert_eq!(store.list(&query, &patience()).unwrap().records.len(), 1);
    remove(store, "versioned");
    record.version = second;
    assert_eq!(
        store.save(&record, &patience()).unwrap_err().status(),
        Status::Conflict,
        "a removed record is not restored"
    );
}

/// A store that does not compare tombstones leaves that to its caller.
fn first_save_that_follows_another_tombstone_is_refused(store: &(impl Store + ?Sized)) {
    let first = |predecessor: u64| {
        let record = Record::new("buried".into(), token(UserType::Company, "buried", None));
        Record { predecessor, ..record }
    };
    let saved = |predecessor: u64| {
        let one = store.save(&first(predecessor), &patience());
        remove(store, "buried");
        let [many] = &store.save_all(&[first(predecessor)], &patience())[..] else {
            panic!("one result")
        };
        remove(store, "buried");
        assert_eq!(one.as_ref().ok(), many.as_ref().ok());
        one.map_err(|error| error.status())
    };
    assert_eq!(saved(0), Ok(1));
    let mut tombstone = Note {
        key: "deleted/buried".into(),
        version: 0,
        list: "deleted".into(),
        document: json!({"version": 7, "atMs": 1_700_000_000_000_i64, "spent": "abcdefgh"}),
        expires_at: i64::MAX,
    };
    store.save_note(&tombstone, &patience()).unwrap();
    assert_eq!(saved(7), Ok(8));
    if !store.compares_tombstones() {
        return;
    }
    assert_eq!(saved(0), Err(Status::Conflict));
    assert_eq!(saved(6), Err(Status::Conflict));
    (tombstone.version, tombstone.document) = (1, json!("it cannot be read"));
    store.save_note(&tombstone, &patience()).unwrap();
    assert_eq!(saved(0), Ok(1));
}

fn lists_are_paged_filtered_and_sorted(store: &(impl Store + ?Sized)) {
    for company in ["a", "b"] {
        store
            .save(
                &Record::new(company.into(), token(UserType::Company, company, None)),
                &patience(),
            )
            .unwrap();
        for index in 0..5 {
            let id = format!("{company}-location-{index}");
            let mut record = Record::new(id.clone(), token(UserType::Location, company, Some(&id)));
            record.renew_at = 100 * index;
            store.save(&record, &patience()).unwrap();
        }
    }
    let ids = |mut query: Query| {
        let mut ids = Vec::new();
        loop {
            let page = store.list(&query, &patience()).unwrap();
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
    let of =
        |company: &str| Query { company_id: Some(company.into()), limit: 2, ..Query::default() };
    assert_eq!(ids(of("a")).len(), 6);
    assert_eq!(ids(Query { user_type: Some(UserType::Company), ..of("b") }), ["b"]);
    assert!(ids(of("c")).is_empty());
    assert_eq!(store.next_renewal(Some("a"), &patience()).unwrap(), Some(0));
    assert_eq!(store.next_renewal(None, &patience()).unwrap(), Some(0));
    assert_eq!(store.next_renewal(Some("c"), &patience()).unwrap(), None);
}

fn due_records_are_found(store: &(impl Store + ?Sized)) {
    // The records of the lists: one per company, due when its token expires, and locations due at
    // 0, 100, … 400.
    let due = |company: Option<&str>, renew_by, limit| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store
                .due(company, &(i64::MIN..=renew_by), after.as_deref(), limit, &patience())
                .unwrap();
            assert!(page.resource_ids.len() <= limit);
            found.extend(page.resource_ids);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        // Not every store can sort by waiting time.
        found.sort();
        found
    };
    for limit in [1, 2, 3, 100] {
        assert_eq!(due(Some("b"), 200, limit), ["b-location-0", "b-location-1", "b-location-2"]);
        assert_eq!(
            due(None, 100, limit),
            ["a-location-0", "a-location-1", "b-location-0", "b-location-1"]
        );
    }
    assert!(due(None, -1, 9).is_empty() && due(Some("c"), i64::MAX, 9).is_empty());
    assert_eq!(due(None, i64::MAX, 5).len(), 12);
}

fn batch_saves_match_single_saves(store: &(impl Store + ?Sized)) {
    let record = |id: &str| Record::new(id.into(), token(UserType::Location, "many", Some(id)));
    store.save(&record("m1"), &patience()).unwrap();
    let outcomes =
        store.save_all(&[record("m0"), record("m1"), record("m2"), record("m2")], &patience());
    let outcomes: Vec<_> =
        outcomes.into_iter().map(|saved| saved.map_err(|error| error.status())).collect();
    assert_eq!(outcomes, [Ok(1), Err(Status::Conflict), Ok(1), Err(Status::Conflict)]);
    for id in ["m0", "m1", "m2"] {
        assert!(remove(store, id), "{id}");
    }
}

fn lock_is_exclusive_and_released(store: &(impl Store + ?Sized)) {
    let cancellation = Arc::new(Cancellation::default());
    let patience = |ms: u64| Deadline::after(Duration::from_millis(ms), &cancellation);
    let held = store.lock("one", &patience(30_000)).unwrap();
    let other = store.lock("two", &patience(30_000)).unwrap();
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
    assert!(store.lock("one", &patience(30_000)).is_ok());
}

fn notes_are_separate_and_expire(store: &(impl Store + ?Sized)) {
    let note = |key: &str, version, list: &str, expires_at| Note {
        key: key.into(),
        version,
        list: list.into(),
        document: json!({"odd": ["\u{0}", "ü", 1.5, null], "at": i64::MAX}),
        expires_at,
    };
    let tokens =
        store.list(&Query { limit: 1000, ..Query::default() }, &patience()).unwrap().records.len();
    assert!(store.note("n1", &patience()).unwrap().is_none());
    store.save_note(&note("n1", 0, "due", 100), &patience()).unwrap();
    assert_eq!(store.note("n1", &patience()).unwrap(), Some(note("n1", 1, "due", 100)));
    for version in [0, 2] {
        let error = store.save_note(&note("n1", version, "due", 7), &patience()).unwrap_err();
        assert_eq!(error.status(), Status::Conflict, "version {version}");
    }
    store.save_note(&note("n1", 1, "", 200), &patience()).unwrap();
    assert_eq!(store.note("n1", &patience()).unwrap(), Some(note("n1", 2, "", 200)));

    for index in 0..5 {
        store.save_note(&note(&format!("d{index}"), 0, "due", i64::MAX), &patience()).unwrap();
    }
    for limit in [1, 2, 4, 5, 6] {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = store.notes("due", after.as_deref(), limit, &patience()).unwrap();
            assert!(page.notes.len() <= limit);
            keys.extend(page.notes.into_iter().map(|note| note.key));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(keys, ["d0", "d1", "d2", "d3", "d4"], "limit {limit}");
    }
    store.prune_notes(199, &patience()).unwrap();
    assert!(store.note("n1", &patience()).unwrap().is_some());
    store.prune_notes(200, &patience()).unwrap();
    assert!(store.note("n1", &patience()).unwrap().is_none());
    assert_eq!(store.notes("due", None, 9, &patience()).unwrap().notes.len(), 5);
    store.save_note(&note("n1", 0, "due", 300), &patience()).unwrap();
    assert_eq!(
        store.list(&Query { limit: 1000, ..Query::default() }, &patience()).unwrap().records.len(),
        tokens
    );
}
