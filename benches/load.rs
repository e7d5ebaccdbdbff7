//! A hundred thousand tokens that expire within an hour, renewed by maintenance and by callers with
//! a server that loses responses and fails: `cargo bench --bench load`. `GHL_BENCH_TOKENS` sets
//! another number, `GHL_BENCH_STORE=memory` selects the memory store, `GHL_BENCH_PROCESSES` the
//! numbers of processes (`1,2`).
//!
//! The hour is accelerated: all clocks, including the emulator's, run at the same higher speed; the
//! library gets its clock through `Client::with_clock`. The replay window of the server is longer
//! by the same factor, so that it lasts 30 s of real time like the pauses of the library. The rate
//! limit is the one of the API, 100 requests in 10 s of real time for each company and location; it
//! does not count refreshes, so only connections that are minted again are limited.

mod measure;
mod stage;
#[path = "../tests/worker/mod.rs"]
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::internals::clock::Clock;
use ghl_oauth::internals::tokens::ListParams;
use ghl_oauth::internals::{Client, Config};
use ghl_oauth_emulator::{
    Decision, Emulator, Endpoint, FaultId, FaultKind, GrantType, Options, RateLimit, Rule, Stage,
};
use measure::{now_ms, percentile, processor_time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use worker::Worker;

const COMPANIES: usize = 100;

/// The lifetime of a token.
const LIFE_SECONDS: i64 = 86_399;

/// The hour in which all tokens expire.
const HOUR_MS: i64 = 3_600_000;

/// The real duration of that hour per token.
const HOUR_FOR_EACH: Duration = Duration::from_micros(1_000);

/// The numbers of concurrent refreshes and callers, over all processes.
const WORKERS: usize = 64;
const CALLERS: usize = 16;

/// The time for which a caller uses a token before it requests another.
const THINKS: Duration = Duration::from_millis(10);

/// The replay window of the server in real seconds.
const WINDOW_SECONDS: f64 = 30.0;

/// The limit of a run, which only a stall exceeds.
const PATIENCE: Duration = Duration::from_secs(900);

/// The environment variable with the task of a child process.
const WORK: &str = "GHL_BENCH_LOAD";

fn main() {
    if let Ok(work) = env::var(WORK) {
        return other_process(&serde_json::from_str(&work).unwrap());
    }
    let tokens =
        env::var("GHL_BENCH_TOKENS").ok().and_then(|tokens| tokens.parse().ok()).unwrap_or(100_000);
    let processes = env::var("GHL_BENCH_PROCESSES").unwrap_or_else(|_| "1,2".into());
    let in_memory = env::var("GHL_BENCH_STORE").is_ok_and(|store| store == "memory");
    let fixture = Fixture::fill(tokens, in_memory);
    for expiry in [Expiry::WithinTheHour, Expiry::AllAtOnce] {
        for processes in processes.split(',').map(|number| number.parse().unwrap()) {
            if processes == 1 || !in_memory {
                fixture.run(processes, expiry);
            }
        }
    }
}

// ---- The clock ----------------------------------------------------------------------------------

/// A clock faster than the system clock, equal in all processes with the same setting.
struct FastClock(Mutex<Setting>);

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Setting {
    set_at_ms: i64,
    shows_ms: i64,
    factor: f64,
}

impl FastClock {
    /// A clock with the speed of the system clock.
    fn real() -> FastClock {
        let now = now_ms();
        FastClock(Mutex::new(Setting { set_at_ms: now, shows_ms: now, factor: 1.0 }))
    }

    fn now(&self) -> i64 {
        let setting = *self.0.lock().unwrap();
        setting.shows_ms + ((now_ms() - setting.set_at_ms) as f64 * setting.factor) as i64
    }

    fn set(&self, setting: Setting) {
        *self.0.lock().unwrap() = setting;
    }
}

impl Clock for FastClock {
    fn wall_ms(&self) -> i64 {
        self.now()
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.now().unsigned_abs())
    }
}

// ---- A process that renews and requests tokens --------------------------------------------------

/// The observations of one process.
#[derive(Default)]
struct Observations {
    /// The waiting times of callers whose token was not in memory, in microseconds.
    waits: Vec<u64>,
    /// The number of requests, and the errors returned instead of a token.
    asked: u64,
    errors: BTreeMap<String, u64>,
    passes: u64,
    checked: u64,
    /// Failures reported by maintenance.
    failed: BTreeMap<String, u64>,
}

fn other_process(work: &Value) {
    let clock = Arc::new(FastClock::real());
    let config = Config::from_json(&work["config"].to_string()).unwrap();
    let client = Client::with_clock(&config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let ids = ids_of(&client);
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    clock.set(serde_json::from_str(&line).unwrap());
    let number = |name: &str| work[name].as_u64().unwrap() as usize;
    let is_over = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&is_over);
    thread::spawn(move || {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        end.store(true, Ordering::SeqCst);
    });
    let met = run_workload(&client, &ids, number("callers"), number("hands"), &is_over);
    let stats = client.stats().unwrap();
    println!(
        "{}",
        json!({
            "waits": met.waits, "asked": met.asked, "errors": met.errors, "passes": met.passes,
            "checked": met.checked,
            "failed": met.failed, "minted": stats["tokens"]["minted"],
            "unsaved": stats["tokens"]["unsaved"],
            "processorUs": processor_time().as_micros() as u64,
        })
    );
}

fn ids_of(client: &Client) -> Vec<String> {
    let mut ids = Vec::new();
    let mut params = json!({"pageSize": 100});
    loop {
        let page = client.tokens_list(&serde_json::from_value(params.clone()).unwrap()).unwrap();
        let items = page["items"].as_array().unwrap();
        ids.extend(items.iter().map(|item| item["resourceId"].as_str().unwrap().to_owned()));
        if page["nextPageToken"].is_null() {
            return ids;
        }
        params["pageToken"] = page["nextPageToken"].clone();
    }
}

/// Runs maintenance and callers until the hour has passed and no token is due.
fn run_workload(
    client: &Client,
    ids: &[String],
    callers: usize,
    hands: usize,
    is_over: &AtomicBool,
) -> Observations {
    let met = Mutex::new(Observations::default());
    thread::scope(|scope| {
        for number in 0..callers {
            let met = &met;
            scope.spawn(move || {
                let seen = ask(client, ids, number as u64, is_over);
                let mut met = met.lock().unwrap();
                met.waits.extend(seen.waits);
                met.asked += seen.asked;
                seen.errors
                    .into_iter()
                    .for_each(|(name, count)| *met.errors.entry(name).or_default() += count);
            });
        }
        loop {
            let is_last = is_over.load(Ordering::SeqCst);
            let params = serde_json::from_value(json!({"concurrency": hands})).unwrap();
            let report = client.tokens_maintain(&params, &|_| true).unwrap();
            let mut met = met.lock().unwrap();
            met.passes += 1;
            let checked = report["checked"].as_u64().unwrap();
            met.checked += checked;
            for failure in report["failed"].as_array().unwrap() {
                let name = failure["error"]["status"].as_str().unwrap().to_owned();
                *met.failed.entry(name).or_default() += 1;
            }
            if checked == 0 {
                if is_last {
                    break;
                }
                drop(met);
                thread::sleep(Duration::from_millis(100));
            }
        }
    });
    met.into_inner().unwrap()
}

/// A caller that requests random tokens in sequence.
fn ask(client: &Client, ids: &[String], number: u64, is_over: &AtomicBool) -> Observations {
    let mut met = Observations::default();
    let mut chance = u64::from(std::process::id()) << 8 | number | 1;
    while !is_over.load(Ordering::SeqCst) {
        // xorshift64
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let id = &ids[(chance >> 16) as usize % ids.len()];
        met.asked += 1;
        if client.with_fresh_token(id, |_| ()).is_none() {
            let began = Instant::now();
            let outcome = client.access_token(id);
            met.waits.push(began.elapsed().as_micros() as u64);
            if let Err(error) = outcome {
                *met.errors.entry(error.status().name().to_owned()).or_default() += 1;
            }
        }
        thread::sleep(THINKS);
    }
    met
}

// ---- Server and final check ---------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq)]
enum Expiry {
    /// The first token expires at the beginning of the hour, the last at its end; no maintenance
    /// ran during the last quarter of their lives.
    WithinTheHour,
    /// No call was made before all tokens had expired.
    AllAtOnce,
}

/// An emulator, and a store with a token for each of its companies and locations.
struct Fixture {
    emulator: Emulator,
    clock: Arc<FastClock>,
    config: Value,
    tokens: usize,
    /// The client of a memory store, which is also the store.
    in_memory: Option<Client>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn fill(tokens: usize, in_memory: bool) -> Fixture {
        let companies = COMPANIES.min(tokens / 2);
        let options = Options {
            companies,
            locations: tokens / companies - 1,
            rate_limit: None,
            ..Options::default()
        };
        let emulator = Emulator::start(options).unwrap();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let store = match in_memory {
            true => json!({"kind": "memory"}),
            false => json!({"kind": "sqlite", "path": folder.path().join("tokens.db")}),
        };
        let config = stage::configuration(&emulator, store);
        let began = now_ms();
        let clock = Arc::new(FastClock::real());
        // The rate limit does not apply to the setup.
        let mut unpaced = config.clone();
        unpaced["rateLimit"] = json!({"requests": 1_000_000, "perMs": 1, "perDay": 1_000_000_000});
        let unpaced = Config::from_json(&unpaced.to_string()).unwrap();
        let client = Client::with_clock(&unpaced, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        // The tokens of the first company expire at the beginning of an hour a day from now, the
        // last company's at its end.
        let filled = Instant::now();
        for (index, company) in emulator.company_ids().iter().enumerate() {
            let dies_at = began + LIFE_SECONDS * 1000 + HOUR_MS * index as i64 / companies as i64;
            emulator.set_access_token_seconds((dies_at - now_ms()) / 1000);
            stage::connect(&client, &emulator, Decision::Company(company.to_owned()));
            let params = json!({"companyId": company, "installed": true, "concurrency": 16});
            let minted =
                client.tokens_mint(serde_json::from_value(params).unwrap(), &|_| true).unwrap();
            assert_eq!(minted["failed"], json!([]));
        }
        let tokens = companies * (tokens / companies);
        println!("{tokens} tokens minted in {:.0?}", filled.elapsed());
        emulator.set_access_token_seconds(LIFE_SECONDS);
        emulator.set_rate_limit(Some(RateLimit::default()));
        let in_memory = in_memory.then_some(client);
        Fixture { emulator, clock, config, tokens, in_memory, _folder: folder }
    }

    /// The first and the last expiry in the store.
    fn expiry(&self) -> (i64, i64) {
        let times = self.held().into_iter().map(|token| token["expiresAt"].as_i64().unwrap());
        let times: Vec<i64> = times.collect();
        (*times.iter().min().unwrap(), *times.iter().max().unwrap())
    }

    fn run(&self, processes: usize, expiry: Expiry) {
        let (first, last) = self.expiry();
        let (shows_ms, factor) = match expiry {
            Expiry::AllAtOnce => (last + 1000, 1.0),
            Expiry::WithinTheHour => {
                let hour_takes = HOUR_FOR_EACH * self.tokens as u32;
                (first, HOUR_MS as f64 / 1000.0 / hour_takes.as_secs_f64())
            }
        };
        let others = match self.in_memory {
            Some(_) => Vec::new(),
            None => start(processes, &self.config),
        };
        let setting = Setting { set_at_ms: now_ms(), shows_ms, factor };
        self.clock.set(setting);
        self.emulator.clock().set_ms(shows_ms);
        self.emulator.set_reuse_window_seconds((WINDOW_SECONDS * factor) as u64);
        let faults = self.inject();
        let (before, spent_before) = (self.emulator.refreshes(), processor_time());
        let began = Instant::now();
        let is_over = AtomicBool::new(false);
        let (reports, took) = thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    self.emulator.clock().set_ms(self.clock.now());
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let work = match &self.in_memory {
                Some(client) => Workload::here(scope, client),
                None => Workload::there(others, setting),
            };
            while self.emulator.refreshes() - before < self.tokens as u64
                && began.elapsed() < PATIENCE
            {
                thread::sleep(Duration::from_millis(20));
            }
            let took = began.elapsed();
            let reports = work.end();
            is_over.store(true, Ordering::SeqCst);
            (reports, took)
        });
        let spent = processor_time() - spent_before;
        let what = match expiry {
            Expiry::WithinTheHour => {
                format!("all expire within an hour, which takes {:.0} s", 3600.0 / factor)
            }
            Expiry::AllAtOnce => "all have expired".to_owned(),
        };
        let (store, count) = (self.config["store"]["kind"].as_str().unwrap(), reports.len());
        println!("{} tokens, {store}, {count} process(es); {what}", self.tokens);
        self.tell(&reports, took, self.emulator.refreshes() - before, spent);
        let [lost, failing, unavailable] = faults.map(|fault| self.emulator.strikes(fault));
        println!(
            "  the server lost {lost} answers, and answered {failing} times 500 and {unavailable} \
             times 503"
        );
        self.emulator.clear_faults();
        self.audit();
    }

    fn tell(&self, reports: &[Value], took: Duration, refreshes: u64, spent: Duration) {
        let sum =
            |name: &str| reports.iter().map(|report| report[name].as_u64().unwrap()).sum::<u64>();
        let counts = |name: &str| {
            let mut all = BTreeMap::new();
            for (status, count) in
                reports.iter().flat_map(|report| report[name].as_object().unwrap())
            {
                *all.entry(status.as_str()).or_insert(0) += count.as_u64().unwrap();
            }
            let all: Vec<String> =
                all.iter().map(|(status, count)| format!("{count} {status}")).collect();
            if all.is_empty() { "none".to_owned() } else { all.join(", ") }
        };
        let seconds = took.as_secs_f64();
        println!(
            "  {refreshes} refreshes, the last after {seconds:.1} s: {:.0} per second; {} passes, \
             {} looked at, failed: {}",
            self.tokens as f64 / seconds,
            sum("passes"),
            sum("checked"),
            counts("failed"),
        );
        if self.in_memory.is_none() {
            let each = |time: u64| time / refreshes.max(1);
            println!(
                "  processor time per refresh: library {} µs, emulator {} µs",
                each(sum("processorUs")),
                each(spent.as_micros() as u64),
            );
        }
        let mut waits: Vec<u64> = reports
            .iter()
            .flat_map(|report| report["waits"].as_array().unwrap())
            .map(|wait| wait.as_u64().unwrap())
            .collect();
        println!(
            "  {} asked, {} not from memory: median {:.2} ms, 99th {:.1} ms, longest {:.0} ms; \
             errors: {}",
            sum("asked"),
            waits.len(),
            percentile(&mut waits, 50.0) as f64 / 1e3,
            percentile(&mut waits, 99.0) as f64 / 1e3,
            percentile(&mut waits, 100.0) as f64 / 1e3,
            counts("errors"),
        );
        println!("  {} minted anew, {} unsaved", sum("minted"), sum("unsaved"));
    }

    /// One response in a hundred is lost after the token was rotated, one in twenty is a server
    /// error.
    fn inject(&self) -> [FaultId; 3] {
        let refreshes = |share| {
            Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken).probability(share)
        };
        let status = |status| FaultKind::Status {
            status,
            body: String::new(),
            content_type: None,
            headers: Vec::new(),
            stage: Stage::BeforeProcessing,
        };
        [
            self.emulator.inject(refreshes(0.01), FaultKind::ReplyLost),
            self.emulator.inject(refreshes(0.025), status(500)),
            self.emulator.inject(refreshes(0.025), status(503)),
        ]
    }

    /// The stored tokens, including secrets.
    fn held(&self) -> Vec<Value> {
        let opened;
        let client = match &self.in_memory {
            Some(client) => client,
            None => {
                opened =
                    Client::new(&Config::from_json(&self.config.to_string()).unwrap()).unwrap();
                &opened
            }
        };
        let mut held = Vec::new();
        let mut params = json!({"pageSize": 100});
        loop {
            let wanted: ListParams = serde_json::from_value(params.clone()).unwrap();
            let mut page = client.tokens_export(&wanted).unwrap();
            held.append(page["tokens"].as_array_mut().unwrap());
            if page["nextPageToken"].is_null() {
                return held;
            }
            params["pageToken"] = page["nextPageToken"].clone();
        }
    }

    /// Asserts that the store has a token for every resource and that the server accepts it.
    fn audit(&self) {
        let live = self.emulator.live_refresh_tokens();
        let live: HashMap<&str, &str> = live
            .iter()
            .map(|token| (token.refresh_token.as_str(), token.resource_id.as_str()))
            .collect();
        let held = self.held();
        let is_honoured = |token: &&Value| {
            let owner = token["locationId"].as_str().or(token["companyId"].as_str());
            let refresh_token = live.get(token["refreshToken"].as_str().unwrap_or_default());
            refresh_token.copied() == owner
                && self.emulator.access_token_is_live(token["accessToken"].as_str().unwrap())
        };
        let honoured = held.iter().filter(is_honoured).count();
        let lost = self.tokens - honoured;
        println!(
            "  audit: {} stored, {honoured} of them accepted by the server, lost: {lost}",
            held.len()
        );
        assert_eq!((held.len(), lost), (self.tokens, 0), "tokens were lost");
    }
}

/// Starts processes that know their resources and wait for the clock.
fn start(processes: usize, config: &Value) -> Vec<Worker> {
    let work =
        json!({"config": config, "callers": CALLERS / processes, "hands": WORKERS / processes});
    let start =
        |_| Worker::start(Command::new(env::current_exe().unwrap()).env(WORK, work.to_string()));
    (0..processes).map(start).collect()
}

/// The renewing and requesting side: other processes, or threads of this one.
enum Workload<'scope> {
    There(Vec<Worker>),
    Here(Arc<AtomicBool>, thread::ScopedJoinHandle<'scope, Value>),
}

impl<'scope> Workload<'scope> {
    fn here<'env>(
        scope: &'scope thread::Scope<'scope, 'env>,
        client: &'env Client,
    ) -> Workload<'scope> {
        let is_over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_over);
        let work = scope.spawn(move || {
            let minted =
                |client: &Client| client.stats().unwrap()["tokens"]["minted"].as_u64().unwrap();
            let before = minted(client);
            let met = run_workload(client, &ids_of(client), CALLERS, WORKERS, &end);
            json!({
                "waits": met.waits, "asked": met.asked, "errors": met.errors, "passes": met.passes,
                "checked": met.checked, "failed": met.failed, "minted": minted(client) - before,
                "unsaved": 0,
            })
        });
        Workload::Here(is_over, work)
    }

    fn there(mut workers: Vec<Worker>, setting: Setting) -> Workload<'scope> {
        workers.iter_mut().for_each(|worker| worker.say(&json!(setting).to_string()));
        Workload::There(workers)
    }

    fn end(self) -> Vec<Value> {
        match self {
            Workload::Here(is_over, work) => {
                is_over.store(true, Ordering::SeqCst);
                vec![work.join().unwrap()]
            }
            Workload::There(mut workers) => {
                workers.iter_mut().for_each(|worker| worker.say("over"));
                workers
                    .iter_mut()
                    .map(|worker| serde_json::from_str(&worker.line()).unwrap())
                    .collect()
            }
        }
    }
}
