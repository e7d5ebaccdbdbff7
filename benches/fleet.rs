//! A million tokens in a persistent store, and the cost of a refresh: `cargo bench --bench fleet`.
//! `GHL_BENCH_TOKENS` sets another number, `GHL_BENCH_STORE` selects one store. The benchmark
//! starts its own PostgreSQL server if Debian's `postgresql` is installed.

mod measure;
mod population;
#[path = "../tests/postgres_server/mod.rs"]
mod postgres_server;
mod stage;

use std::env;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ghl_oauth::internals::deadline::Deadline;
use ghl_oauth::internals::store::{self, Query};
use ghl_oauth::internals::tokens::ImportParams;
use ghl_oauth::internals::{Client, Config};
use ghl_oauth_emulator::{Decision, Emulator, Options};
use measure::{median, now_ms, resident};
use population::{company_id, location_id, token};
use postgres_server::Server;
use serde_json::{Value, json};

/// The number of tokens per import.
const IMPORT: usize = 10_000;

const DAY_MS: i64 = 86_400_000;

fn main() {
    let tokens = env::var("GHL_BENCH_TOKENS")
        .ok()
        .and_then(|tokens| tokens.parse().ok())
        .unwrap_or(1_000_000);
    let only = env::var("GHL_BENCH_STORE").ok();
    let wanted = |store: &str| only.as_deref().is_none_or(|only| only == store);
    if wanted("sqlite") {
        sqlite(tokens);
    }
    if wanted("postgres") {
        postgres(tokens);
    }
}

fn sqlite(tokens: usize) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("tokens.db");
    for keys in [json!([]), json!(["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="])] {
        println!("SQLite{}", if keys == json!([]) { "" } else { ", sealed" });
        measure(tokens, &json!({"kind": "sqlite", "path": path, "encryptionKeys": keys}));
        println!("  the database has {} MB", size(folder.path()) >> 20);
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

fn postgres(tokens: usize) {
    let Some(server) = Server::start(&["max_connections=500"]) else { return };
    println!("PostgreSQL, over loopback");
    let database = server.database();
    measure(tokens, &json!({"kind": "postgres", "url": database.url()}));
    let told = |sql: &str| println!("{}", database.sql(sql).trim_end());
    told(
        "SELECT '  the table has ' || pg_table_size('ghl_oauth_token') / 1048576 ||
            ' MB, its indexes '
         || pg_indexes_size('ghl_oauth_token') / 1048576 || ' MB'",
    );
    told(
        "EXPLAIN SELECT renew_at, resource_id FROM ghl_oauth_token
            WHERE client_id = 'app-1' AND renew_at <= 0
         AND (renew_at, resource_id) > (0, '') ORDER BY renew_at, resource_id LIMIT 101",
    );
    refreshes(&server, &json!({"kind": "postgres", "url": database.url()}));
    workers(&server);
}

/// The cost of refreshes for the server, and the additional time of a refresh compared with a
/// memory store.
fn refreshes(server: &Server, store: &Value) {
    const REFRESHES: u32 = 500;
    let emulator = Emulator::start(Options { rate_limit: None, ..Options::default() }).unwrap();
    for store in [&json!({"kind": "memory"}), store] {
        let config = stage::configuration(&emulator, store.clone());
        let client = Client::new(&Config::from_json(&config.to_string()).unwrap()).unwrap();
        stage::connect(&client, &emulator, Decision::Company(emulator.company_id()));
        let account = "SELECT pg_current_wal_insert_lsn() - '0/0'";
        let before: f64 = server.sql("postgres", account).trim().parse().unwrap();
        let mut times = Vec::new();
        for _ in 0..REFRESHES {
            let began = Instant::now();
            client.token_refresh(&emulator.company_id()).unwrap();
            times.push(began.elapsed());
        }
        drop(client);
        let after: f64 = server.sql("postgres", account).trim().parse().unwrap();
        let wal = (after - before) / f64::from(REFRESHES) / 1024.0;
        println!(
            "  a refresh with {}: {:.2?}, {wal:.1} KiB of WAL",
            store["kind"],
            median(&mut times)
        );
    }
}

/// The costs for the server if workers refresh at the same time, each its own location.
fn workers(server: &Server) {
    const REFRESHES: usize = 20;
    for workers in [1, 10, 100] {
        let database = server.database();
        let store = json!({"kind": "postgres", "url": database.url()});
        let options = Options { rate_limit: None, locations: workers, ..Options::default() };
        let emulator = Emulator::start(options).unwrap();
        let config = stage::configuration(&emulator, store).to_string();
        let ids = emulator.location_ids();
        let clients: Vec<Client> = ids
            .iter()
            .map(|_| Client::new(&Config::from_json(&config).unwrap()).unwrap())
            .collect();
        for (client, id) in clients.iter().zip(&ids) {
            stage::connect(client, &emulator, Decision::Location(id.clone()));
            // Connects.
            client.token_refresh(id).unwrap();
        }
        let account = || -> Vec<f64> {
            let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0') || ' ' || wal_sync || ' ' ||
                (SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database) || ' ' ||
                (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
                FROM pg_stat_wal";
            // An idle session reports its statistics after ten seconds.
            std::thread::sleep(Duration::from_secs(12));
            database.sql(sql).split_whitespace().map(|one| one.parse().unwrap()).collect()
        };
        let before = account();
        let began = Instant::now();
        std::thread::scope(|scope| {
            for (client, id) in clients.iter().zip(&ids) {
                scope.spawn(move || {
                    (0..REFRESHES).for_each(|_| drop(client.token_refresh(id).unwrap()))
                });
            }
        });
        let took = began.elapsed().as_secs_f64();
        let after = account();
        let refreshes = (workers * REFRESHES) as f64;
        let each = |index: usize| (after[index] - before[index]) / refreshes;
        println!(
            "  {workers} workers: {:.0} refreshes per second; each {:.1} KiB of WAL, {:.2} syncs, \
             {:.1} transactions; {} connections",
            refreshes / took,
            each(0) / 1024.0,
            each(1),
            each(2),
            after[3] - 1.0
        );
    }
}

/// Fills a store, and measures the operations of a worker.
fn measure(tokens: usize, store: &Value) {
    let config = json!({
        "clientId": "app-1", "clientSecret": "secret", "store": store,
        "timeouts": {"totalMs": 600_000},
    });
    let config = Config::from_json(&config.to_string()).unwrap();
    let client = Client::new(&config).unwrap();
    let now = now_ms();
    let began = Instant::now();
    for first in (0..tokens).step_by(IMPORT) {
        let batch = (first..tokens.min(first + IMPORT)).map(|index| token(index, now)).collect();
        let params = ImportParams { tokens: batch, ..ImportParams::default() };
        let report = client.tokens_import(params).unwrap();
        assert_eq!(report["skipped"], json!([]));
    }
    let took = began.elapsed();
    println!(
        "  {tokens} tokens imported in {took:.0?}: {:.0} per second",
        tokens as f64 / took.as_secs_f64()
    );
    println!("  resident memory of the importing process: {} MiB", resident() >> 10);
    drop(client);

    let mut opened = Vec::new();
    for _ in 0..11 {
        let began = Instant::now();
        let client = Client::new(&config).unwrap();
        opened.push(began.elapsed());
        drop(client);
    }
    println!("  a client opens in {:.2?}", median(&mut opened));

    let (backend, seal) = (config.store.backend().unwrap(), store::seal(&config).unwrap());
    let store = store::open(&backend, true, &config.timeouts, None, &seal).unwrap();
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
    let mut last = pages[pages.len() - 100..].to_vec();
    println!(
        "  a page of 100 in {:.2?}, of the last hundred pages in {:.2?}",
        median(&mut pages),
        median(&mut last)
    );

    let company = Query { company_id: Some(company_id(tokens / 2)), ..query.clone() };
    timed("a page of a company's locations", || {
        drop(store.list(&Query { after: None, ..company.clone() }, &patience()))
    });
    let companies = Query {
        user_type: Some(ghl_oauth::internals::token::UserType::Company),
        ..Query::default()
    };
    timed("a page of all companies", || {
        drop(store.list(&Query { limit: 100, ..companies.clone() }, &patience()))
    });
    let (mut due, mut after, mut times) = (0, None, Vec::new());
    loop {
        let began = Instant::now();
        let page = store.due(None, &(i64::MIN..=now), after.as_deref(), 100, &patience()).unwrap();
        times.push(began.elapsed());
        due += page.resource_ids.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    println!("  {due} due tokens found in pages of 100, each in {:.2?}", median(&mut times));
    timed("nothing due", || {
        assert!(
            store
                .due(None, &(i64::MIN..=0), None, 100, &patience())
                .unwrap()
                .resource_ids
                .is_empty()
        )
    });
    timed("next due time", || drop(store.next_renewal(None, &patience())));
    timed("next due time of one company", || {
        drop(store.next_renewal(Some(&company_id(tokens / 2)), &patience()))
    });

    let (mut loads, mut saves) = (Vec::new(), Vec::new());
    for index in (0..tokens).step_by((tokens / 500).max(1)) {
        let began = Instant::now();
        let mut record = store.load(&location_id(index), &patience()).unwrap().unwrap();
        loads.push(began.elapsed());
        record.renew_at += DAY_MS;
        let began = Instant::now();
        store.save(&record, &patience()).unwrap();
        saves.push(began.elapsed());
    }
    println!(
        "  a load in {:.2?}, a durable save in {:.2?}",
        median(&mut loads),
        median(&mut saves)
    );
}

fn timed(what: &str, work: impl Fn()) {
    let mut times = Vec::new();
    for _ in 0..21 {
        let began = Instant::now();
        work();
        times.push(began.elapsed());
    }
    println!("  {what}: {:.2?}", median(&mut times));
}

fn size(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// A deadline that no operation reaches.
fn patience() -> Deadline {
    Deadline::after(Duration::from_secs(60), &Default::default())
}
