//! The cost of storing tokens: `cargo bench --bench store`. Medians, each next to its baseline from
//! the same interleaved run.

mod measure;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use ghl_oauth::config::StoreKind;
use ghl_oauth::internals::deadline::Deadline;
use ghl_oauth::internals::store::{Query, Record, Seal, SqliteStore, Store};
use ghl_oauth::internals::token::{Token, UserType};
use ghl_oauth::internals::tokens::{ImportParams, ListParams};
use ghl_oauth::internals::{Client, Config};
use measure::{median, now_ms, resident};
use serde_json::json;

const TOKENS: usize = 100_000;

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    durable_save(folder.path());
    hundred_thousand(&folder.path().join("many.db"));
}

/// A save compared with its minimum: writing the same number of bytes to a file, and one fsync.
fn durable_save(folder: &Path) {
    let store = SqliteStore::open(&folder.join("save.db"), Seal::none("app-1")).unwrap();
    let mut record = record(0);
    record.version = store.save(&record, &patience()).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join("plain")).unwrap();
    let bytes = record.to_document().unwrap();
    // The pages that SQLite writes for it: one of the table and one of an index, each with its
    // header.
    let pages = vec![0x5a; 2 * (4096 + 24)];
    let (mut saves, mut syncs, mut page_syncs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..500 {
        for (bytes, times) in [(&bytes[..], &mut syncs), (&pages[..], &mut page_syncs)] {
            let began = Instant::now();
            file.write_all(bytes).unwrap();
            file.sync_all().unwrap();
            times.push(began.elapsed());
        }
        let began = Instant::now();
        record.version = store.save(&record, &patience()).unwrap();
        saves.push(began.elapsed());
    }
    let save = median(&mut saves);
    println!("a durable save: {save:?}");
    for (what, length, times) in
        [("its document", bytes.len(), syncs), ("its two pages", pages.len(), page_syncs)]
    {
        let sync = median(&mut times.clone());
        let ratio = save.as_secs_f64() / sync.as_secs_f64();
        println!("  {what}, {length} bytes written and synced: {sync:?}; ratio {ratio:.2}");
    }
}

/// The store, and a client, with the number of tokens of a large agency.
fn hundred_thousand(path: &Path) {
    let mut config = Config::new("app-1", "secret");
    config.store.kind = StoreKind::Sqlite;
    config.store.path = Some(path.to_owned());
    {
        // A single transaction, because only reads are measured.
        let store = SqliteStore::open(path, Seal::none("app-1")).unwrap();
        drop(store);
        let mut connection = rusqlite::Connection::open(path).unwrap();
        let transaction = connection.transaction().unwrap();
        for index in 0..TOKENS {
            let record = record(index);
            transaction
                .prepare_cached(
                    "INSERT INTO token VALUES ('app-1', ?1, 1, 'Location', 'company', ?2, ?3, '')",
                )
                .unwrap()
                .execute(rusqlite::params![
                    record.resource_id,
                    record.renew_at,
                    &record.to_document().unwrap()[..]
                ])
                .unwrap();
        }
        transaction.commit().unwrap();
    }
    println!("{TOKENS} tokens: the database has {} MB", fs::metadata(path).unwrap().len() >> 20);

    let mut opened = Vec::new();
    for _ in 0..21 {
        let began = Instant::now();
        let store = SqliteStore::open(path, Seal::none("app-1")).unwrap();
        opened.push(began.elapsed());
        drop(store);
    }
    println!("the store opens in {:?}", median(&mut opened));

    let store = SqliteStore::open(path, Seal::none("app-1")).unwrap();
    let mut pages = Vec::new();
    let mut query = Query { limit: 100, ..Query::default() };
    loop {
        let began = Instant::now();
        let page = store.list(&query, &patience()).unwrap();
        pages.push(began.elapsed());
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    let last = *pages.last().unwrap();
    println!(
        "a page of 100 is listed in {:?}, the last of {} in {last:?}",
        median(&mut pages.clone()),
        pages.len()
    );

    let before = resident();
    let client = Client::new(&config).unwrap();
    let opened = resident();
    for index in 0..TOKENS {
        client.access_token(&resource_id(index)).unwrap();
    }
    println!(
        "resident memory: {opened} KiB for an open client, {} KiB more with {TOKENS} live tokens",
        resident() - before
    );

    let memory = Client::new(&Config::new("app-1", "secret")).unwrap();
    let before = resident();
    for first in (0..TOKENS).step_by(100) {
        let tokens = (first..first + 100)
            .map(|index| json_token(index).as_object().unwrap().clone())
            .collect();
        memory.tokens_import(ImportParams { tokens, ..ImportParams::default() }).unwrap();
    }
    assert!(memory.tokens_list(&ListParams::default()).is_ok());
    println!("the memory store: {} KiB more with {TOKENS} tokens", resident() - before);
}

fn resource_id(index: usize) -> String {
    format!("location{index:012}")
}

fn json_token(index: usize) -> serde_json::Value {
    json!({
        "accessToken": format!("{index:0900}"), "refreshToken": format!("{index:0400}"),
        "expiresAt": now_ms() + 86_400_000,
        "userType": "Location", "companyId": "company", "locationId": resource_id(index),
        "scope": "contacts.readonly"
    })
}

/// A record with tokens as long as the vendor's.
fn record(index: usize) -> Record {
    let token = Token {
        access_token: format!("{index:0900}").into(),
        refresh_token: Some(format!("{index:0400}").into()),
        issued_at: Some(now_ms()),
        expires_at: now_ms() + 86_400_000,
        user_type: Some(UserType::Location),
        company_id: Some("company".into()),
        location_id: Some(resource_id(index)),
        scope: Some("contacts.readonly contacts.write".into()),
        fields: serde_json::Map::new(),
    };
    Record::new(resource_id(index), token)
}

/// A deadline that no operation reaches.
fn patience() -> Deadline {
    Deadline::after(Duration::from_secs(60), &Default::default())
}
