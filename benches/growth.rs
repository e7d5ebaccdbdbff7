//! Growth of costs in steps of ten or two, printed as table rows: `cargo bench --bench growth --
//! CURVE …` with `tokens`, `locations`, `processes`, `hosts`, or all of them by default; `--quick`
//! measures less. `benches/growth/plot.py` draws the curves.

mod measure;
mod population;
#[path = "../tests/postgres_server/mod.rs"]
mod postgres_server;
mod stage;
#[path = "../tests/worker/mod.rs"]
mod worker;

use std::env;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::internals::deadline::Deadline;
use ghl_oauth::internals::store::{self, Host, Query, Record, Store};
use ghl_oauth::internals::token::{Token, UserType};
use ghl_oauth::internals::tokens::ImportParams;
use ghl_oauth::internals::{Client, Config, Result};
use ghl_oauth_emulator::{Decision, Emulator, Options, RateLimit};
use measure::{median, now_ms, percentile, resident};
use postgres_server::{Database, Server};
use serde_json::{Map, Value, json};
use worker::Worker;
use zeroize::Zeroizing;

/// The environment variable with the configuration of a child process.
const WORK: &str = "GHL_BENCH_GROWTH";

fn main() {
    if let Ok(config) = env::var(WORK) {
        return work(&Config::from_json(&config).unwrap());
    }
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let is_quick = words.iter().any(|word| word == "--quick");
    let names: Vec<&str> =
        words.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let wanted = |curve: &str| names.is_empty() || names.contains(&curve);
    println!("curve,x,figure,value");
    if wanted("tokens") {
        tokens(if is_quick { 4 } else { 6 });
    }
    if wanted("locations") {
        let all = [100, 300, 1_000, 3_000, 10_000];
        all[..if is_quick { 3 } else { 5 }].iter().for_each(|locations| mint(*locations));
    }
    if wanted("processes") {
        processes(is_quick);
    }
    if wanted("hosts") {
        hosts(is_quick);
    }
}

fn row(curve: &str, x: usize, figure: &str, value: f64) {
    println!("{curve},{x},{figure},{value:.4}");
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

// ---- Per token ----------------------------------------------------------------------------------

/// The time of a client's calls with a thousand to ten to the given power of tokens.
fn tokens(most: u32) {
    let client =
        Client::with_host(&Config::new("app-1", "secret"), Arc::new(SyntheticStore)).unwrap();
    // The first token includes one-time costs.
    client.access_token(&population::location_id(0)).unwrap();
    let (before, mut held) = (resident(), 1);
    for count in (3..=most).map(|power| 10_usize.pow(power)) {
        (held..count)
            .for_each(|index| drop(client.access_token(&population::location_id(index)).unwrap()));
        held = count;
        let each = (resident() - before) as f64 * 1024.0 / (count - 1) as f64;
        row("tokens", count, "resident_bytes", each);
        row("tokens", count, "lookup_ns", lookup(&client, count));
    }
    drop(client);

    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = json!({"kind": "sqlite", "path": folder.path().join("tokens.db")});
    let config = json!({"clientId": "app-1", "clientSecret": "secret", "store": store});
    let sqlite = Config::from_json(&config.to_string()).unwrap();
    let (now, mut held) = (now_ms(), 0);
    for count in (3..=most).map(|power| 10_usize.pow(power)) {
        import(&Client::new(&sqlite).unwrap(), held..count, now);
        held = count;
        let open = || Client::new(&sqlite).unwrap();
        row("tokens", count, "open_ms", timed(|| drop(open())));
        let (backend, seal) = (sqlite.store.backend().unwrap(), store::seal(&sqlite).unwrap());
        let store = store::open(&backend, true, &sqlite.timeouts, None, &seal).unwrap();
        // In the middle: neither the first nor the last page.
        let after = Some(population::location_id(count / 2 + 1));
        let query = Query { after, limit: 100, ..Query::default() };
        row("tokens", count, "list_ms", timed(|| drop(store.list(&query, &patience()).unwrap())));
        row(
            "tokens",
            count,
            "due_ms",
            timed(|| drop(store.due(None, &(i64::MIN..=now), None, 100, &patience()).unwrap())),
        );
        let read = |index: usize| {
            store.load(&population::location_id(index), &patience()).unwrap().unwrap()
        };
        let mut index = 0;
        let next = || {
            index = (index + 7919) % count;
            drop(read(index));
        };
        row("tokens", count, "read_ms", timed(next));
        row("tokens", count, "save_ms", saves(store.as_ref(), count));
        row("tokens", count, "sync_ms", 1e3 / syncs(&folder.path().join("plain")));
    }
}

/// A store that returns a live token for every ID and keeps nothing, so that only the client's
/// memory grows.
struct SyntheticStore;

impl Host for SyntheticStore {
    fn load(&self, id: &str) -> Result<Option<Zeroizing<String>>> {
        let token = Token {
            access_token: "a".repeat(900).into(),
            refresh_token: Some("r".repeat(400).into()),
            issued_at: None,
            expires_at: now_ms() + 86_400_000,
            user_type: Some(UserType::Location),
            company_id: None,
            location_id: Some(id.to_owned()),
            scope: None,
            fields: Map::new(),
        };
        let document = Record::new(id.to_owned(), token).to_document()?;
        let record = json!({
            "kind": "token", "resourceId": id, "version": 1, "userType": "Location",
            "companyId": null,
            "renewAt": i64::MAX, "sealedWith": "", "document": str::from_utf8(&document).unwrap(),
        });
        Ok(Some(Zeroizing::new(record.to_string())))
    }

    fn save(&self, _: &str, _: &str, _: u64) -> Result<()> {
        unreachable!("nothing is due")
    }

    fn remove(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn list(&self, _: &str) -> Result<Zeroizing<String>> {
        Ok(Zeroizing::new(json!({"items": []}).to_string()))
    }

    fn has_lock(&self) -> bool {
        false
    }

    fn lock(&self, _: &str, _: Duration) -> Result<()> {
        Ok(())
    }

    fn unlock(&self, _: &str) {}
}

fn import(client: &Client, indexes: std::ops::Range<usize>, now: i64) {
    let mut first = indexes.start;
    while first < indexes.end {
        let batch = first..indexes.end.min(first + 10_000);
        first = batch.end;
        let tokens = batch.map(|index| population::token(index, now)).collect();
        client.tokens_import(ImportParams { tokens, ..ImportParams::default() }).unwrap();
    }
}

/// The nanoseconds for copying a token that is live in memory, using a thousand tokens in turn. The
/// runs are short, so other programs rarely interrupt one.
fn lookup(client: &Client, count: usize) -> f64 {
    const CALLS: usize = 2_000;
    let ids: Vec<String> =
        (0..1000).map(|place| population::location_id(place * count / 1000)).collect();
    let mut buffer = vec![0_u8; 900];
    let mut runs: Vec<Duration> = (0..501)
        .map(|_| {
            let began = Instant::now();
            for call in 0..CALLS {
                client.with_fresh_token(&ids[call % ids.len()], |token| {
                    buffer.copy_from_slice(token.expose().as_bytes());
                });
                black_box(&mut buffer);
            }
            began.elapsed()
        })
        .collect();
    median(&mut runs).as_nanos() as f64 / CALLS as f64
}

fn timed(mut work: impl FnMut()) -> f64 {
    let mut times = Vec::new();
    for _ in 0..51 {
        let began = Instant::now();
        work();
        times.push(began.elapsed());
    }
    milliseconds(median(&mut times))
}

/// Persistent saves of records from the whole table.
fn saves(store: &dyn Store, count: usize) -> f64 {
    let mut times = Vec::new();
    for index in (0..count).step_by((count / 200).max(1)) {
        let record = store.load(&population::location_id(index), &patience()).unwrap().unwrap();
        let began = Instant::now();
        store.save(&record, &patience()).unwrap();
        times.push(began.elapsed());
    }
    milliseconds(median(&mut times))
}

// ---- Per location -------------------------------------------------------------------------------

/// Mints the locations of a company under a limit of 100 requests per quarter of a second, a
/// fortieth of the API's window, so the overhead of the library per request weighs forty times as
/// much.
fn mint(locations: usize) {
    const REQUESTS: u32 = 100;
    const PER_MS: u64 = 250;
    let rate_limit = Some(RateLimit { requests: REQUESTS, per_ms: PER_MS, per_day: 1_000_000 });
    let emulator =
        Emulator::start(Options { locations, rate_limit, ..Options::default() }).unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = json!({"kind": "sqlite", "path": folder.path().join("tokens.db")});
    let mut config = stage::configuration(&emulator, store);
    config["rateLimit"] = json!({"requests": REQUESTS, "perMs": PER_MS});
    let client = Client::new(&Config::from_json(&config.to_string()).unwrap()).unwrap();
    stage::connect(&client, &emulator, Decision::Company(emulator.company_id()));
    emulator.clear_requests();
    let params = json!({"companyId": emulator.company_id(), "installed": true, "concurrency": 8});
    let began = Instant::now();
    let report = client.tokens_mint(serde_json::from_value(params).unwrap(), &|_| true).unwrap();
    let took = began.elapsed();
    assert_eq!(report["minted"], locations);
    let requests = emulator.requests();
    let refused = requests.iter().filter(|request| request.status == 429).count();
    // The first window is filled at once, and each further window waits for the previous one.
    let windows = (requests.len() - refused - 1) / REQUESTS as usize;
    let dictated = PER_MS as f64 * windows as f64;
    row("locations", locations, "mint_ms", milliseconds(took) / locations as f64);
    row("locations", locations, "dictated_ms", dictated / locations as f64);
    row("locations", locations, "refused", refused as f64);
}

// ---- Per process and per host -------------------------------------------------------------------

/// The number of locations that each process refreshes in sequence.
const LOCATIONS: usize = 4;

/// The number of callers in each process that wait for one token.
const CALLERS: usize = 8;

/// The time of the server for the refresh that all callers wait for.
const ROUND_TRIP: Duration = Duration::from_millis(50);

fn work(config: &Config) {
    let client = Client::new(config).unwrap();
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["refresh", milliseconds, ref ids @ ..] => {
                let time = Duration::from_millis(milliseconds.parse().unwrap());
                println!("{}", refresh(&client, time, ids));
            }
            ["ask", id] => println!("{}", ask(&client, id)),
            _ => panic!("{line}"),
        }
    }
}

/// Refreshes in sequence for a time: the number of refreshes and failures, and the slowest one in
/// microseconds.
fn refresh(client: &Client, time: Duration, ids: &[&str]) -> Value {
    let (mut done, mut failed, mut slowest) = (0, 0, Duration::ZERO);
    let began = Instant::now();
    for id in ids.iter().cycle() {
        let one = Instant::now();
        match client.token_refresh(id) {
            Ok(_) => done += 1,
            Err(_) => failed += 1,
        }
        slowest = slowest.max(one.elapsed());
        if began.elapsed() >= time {
            break;
        }
    }
    json!([done, failed, slowest.as_micros() as u64])
}

/// Lets several callers request an expired token at once. Returns the longest wait in microseconds.
fn ask(client: &Client, id: &str) -> u64 {
    let ask = || {
        let began = Instant::now();
        client.access_token(id).unwrap();
        began.elapsed().as_micros() as u64
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(ask)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).max().unwrap()
    })
}

/// Processes with one store and a server without a rate limit.
struct Fixture {
    emulator: Emulator,
    config: Value,
    client: Client,
    ids: Vec<String>,
}

impl Fixture {
    fn new(most: usize, store: &Value) -> Fixture {
        let options =
            Options { locations: most * LOCATIONS, rate_limit: None, ..Options::default() };
        let emulator = Emulator::start(options).unwrap();
        let mut config = stage::configuration(&emulator, store.clone());
        config["rateLimit"] = json!({"requests": 1_000_000, "perMs": 1});
        let client = Client::new(&Config::from_json(&config.to_string()).unwrap()).unwrap();
        stage::connect(&client, &emulator, Decision::Company(emulator.company_id()));
        let params = json!({"companyId": emulator.company_id(), "installed": true});
        client.tokens_mint(serde_json::from_value(params).unwrap(), &|_| true).unwrap();
        let ids = emulator.location_ids();
        Fixture { emulator, config, client, ids }
    }

    fn workers(&self, count: usize) -> Vec<Worker> {
        let mut this = Command::new(env::current_exe().unwrap());
        this.env(WORK, self.config.to_string());
        (0..count).map(|_| Worker::start(&mut this)).collect()
    }

    /// All processes refresh for a time. Returns the refreshes per second.
    fn refresh(&self, curve: &str, workers: &mut [Worker], time: Duration) {
        for (worker, ids) in workers.iter_mut().zip(self.ids.chunks(LOCATIONS)) {
            worker.say(&format!("refresh {} {}", time.as_millis(), ids.join(" ")));
        }
        let reports: Vec<[u64; 3]> = workers
            .iter_mut()
            .map(|worker| serde_json::from_str(&worker.line()).unwrap())
            .collect();
        let sum = |field: usize| reports.iter().map(|report| report[field]).sum::<u64>() as f64;
        let slowest = reports.iter().map(|report| report[2]).max().unwrap();
        row(curve, workers.len(), "refreshes_per_second", sum(0) / time.as_secs_f64());
        row(curve, workers.len(), "failed", sum(1));
        row(curve, workers.len(), "slowest_ms", slowest as f64 / 1e3);
    }

    /// All callers of all processes request an expired token.
    fn stampede(&self, curve: &str, count: usize) {
        self.emulator.respond_latency(ROUND_TRIP);
        let company = self.emulator.company_id();
        let mut longest: Vec<u64> = (0..3)
            .map(|_| {
                self.expire(&company);
                // New processes each time: a process that has loaded a token uses its own clock
                // instead of the stored expiry.
                let mut workers = self.workers(count);
                let before = self.emulator.refreshes();
                workers.iter_mut().for_each(|worker| worker.say(&format!("ask {company}")));
                let longest =
                    workers.iter_mut().map(|worker| worker.line().parse().unwrap()).max().unwrap();
                assert_eq!(self.emulator.refreshes() - before, 1);
                longest
            })
            .collect();
        self.emulator.respond_latency(Duration::ZERO);
        row(curve, count, "stampede_ms", median(&mut longest) as f64 / 1e3);
    }

    /// Ages a stored token by a day.
    fn expire(&self, id: &str) {
        let params =
            serde_json::from_value(json!({"companyId": id, "userType": "Company"})).unwrap();
        let mut page = self.client.tokens_export(&params).unwrap();
        page["tokens"][0]["expiresAt"] = 1_700_000_000_000_i64.into();
        page["replace"] = true.into();
        self.client.tokens_import(serde_json::from_value(page).unwrap()).unwrap();
    }
}

fn processes(is_quick: bool) {
    let (most, time) =
        if is_quick { (8, Duration::from_secs(1)) } else { (64, Duration::from_secs(4)) };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = json!({"kind": "sqlite", "path": folder.path().join("tokens.db")});
    let fixture = Fixture::new(most, &store);
    for count in doubled(most) {
        row("processes", count, "syncs_per_second", syncs(&folder.path().join("plain")));
        fixture.refresh("processes", &mut fixture.workers(count), time);
        fixture.stampede("processes", count);
    }
}

/// The number of times per second that the two pages of a SQLite save can be written and synced.
/// Other programs interfere, so the fastest tenth counts: the limit of the disk.
fn syncs(path: &std::path::Path) -> f64 {
    let (mut file, pages) = (File::create(path).unwrap(), vec![0x5a; 2 * (4096 + 24)]);
    let write = |_| {
        let began = Instant::now();
        file.write_all(&pages).unwrap();
        file.sync_all().unwrap();
        began.elapsed()
    };
    let mut times: Vec<Duration> = (0..200).map(write).collect();
    1.0 / percentile(&mut times, 10.0).as_secs_f64()
}

fn hosts(is_quick: bool) {
    let (most, time) =
        if is_quick { (8, Duration::from_secs(1)) } else { (32, Duration::from_secs(4)) };
    let Some(server) = Server::start(&[]) else { return };
    let database = server.database();
    let fixture = Fixture::new(most, &json!({"kind": "postgres", "url": database.url()}));
    for count in doubled(most) {
        row("hosts", count, "syncs_per_second", syncs(&server.data().join("plain")));
        let mut workers = fixture.workers(count);
        let (spent, refreshed) = (active_ms(&database), fixture.emulator.refreshes());
        fixture.refresh("hosts", &mut workers, time);
        let connections =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
        let connections: f64 = database.sql(connections).parse().unwrap();
        row("hosts", count, "connections", connections - 1.0);
        // A session reports its statistics when it ends or a moment later.
        drop(workers);
        thread::sleep(Duration::from_secs(1));
        let each =
            (active_ms(&database) - spent) / (fixture.emulator.refreshes() - refreshed) as f64;
        row("hosts", count, "database_ms", each);
    }
}

/// The total time that the server's sessions spent on statements.
fn active_ms(database: &Database) -> f64 {
    database
        .sql("SELECT active_time FROM pg_stat_database WHERE datname = current_database()")
        .parse()
        .unwrap()
}

fn doubled(most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), |count| Some(count * 2)).take_while(move |count| *count <= most)
}

/// A deadline that no operation reaches.
fn patience() -> Deadline {
    Deadline::after(Duration::from_secs(60), &Default::default())
}
