//! Several real processes on one store: they share refreshes, survive each other's crashes, and
//! lose no recoverable token.
//!
//! The workers are this program, started again with a role in its environment.

mod connect;
mod folder_host;
#[cfg(all(unix, feature = "postgres"))]
mod postgres_server;
mod support;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use folder_host::FolderHost;

use ghl_oauth::internals::clock::{Clock, SystemClock};
use ghl_oauth::internals::ffi::client_from;
use ghl_oauth::internals::{Client, Config, Status};
use ghl_oauth_emulator::{
    Emulator, Endpoint, FaultKind, GrantType, Notice, Options, Rule, Signature, Stage,
};
use serde_json::{Value, json};
use support::{Abi, Outcome};
use worker::Worker;

const CONFIG: &str = "GHL_TEST_WORKER";

/// The error of a worker's wall clock in milliseconds.
const SKEW: &str = "GHL_TEST_SKEW_MS";

// ---- Worker -------------------------------------------------------------------------------------

/// Not a test: with a configuration in the environment, this process is a worker that executes its
/// input.
#[test]
fn work() {
    let Ok(config) = env::var(CONFIG) else { return };
    let skew_ms = env::var(SKEW).map_or(0, |skew| skew.parse().unwrap());
    let clock: Arc<dyn Clock> = Arc::new(Skewed { clock: SystemClock::new(), skew_ms });
    let config = serde_json::from_str(&config).unwrap();
    let open = || try_client_on(&config, Arc::clone(&clock));
    let first = open();
    println!("\nready");
    // Like a host whose store cannot be opened at the moment.
    let client = first.unwrap_or_else(|_| {
        loop {
            thread::sleep(Duration::from_millis(5));
            if let Ok(client) = open() {
                break client;
            }
        }
    });
    let client = Abi::adopt(client_from(client));
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let began = Instant::now();
        match line.strip_prefix("timed ") {
            Some(command) => {
                let answer = act(&client, command);
                println!("{answer} {}", began.elapsed().as_millis());
            }
            None => println!("{}", act(&client, &line)),
        }
    }
}

fn act(client: &Abi, command: &str) -> String {
    let words: Vec<&str> = command.splitn(3, ' ').collect();
    match words[..] {
        ["ask", resource_id] => in_short(client.access_token(resource_id)),
        [kind, resource_id, threads] if threads.parse::<usize>().is_ok() => {
            let one = || act(client, &format!("{kind} {resource_id}"));
            let answers: BTreeSet<String> = thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..threads.parse().unwrap()).map(|_| scope.spawn(one)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            answers.into_iter().collect::<Vec<_>>().join(" ")
        }
        ["refresh", resource_id] => in_short(client.token_refresh(resource_id)),
        ["delete", resource_id] => in_short(client.token_delete(resource_id)),
        ["work-forever", first, rest] => {
            for resource_id in [first].into_iter().chain(rest.split(' ')).cycle() {
                work_once(client, resource_id);
            }
            String::new()
        }
        ["maintain"] => in_short(client.tokens_maintain(json!({}), |_| true)),
        ["list"] => client.tokens_list(json!({})).ok().to_string(),
        _ => panic!("{command}"),
    }
}

/// Refreshes or requests a token, and prints the duration: "refreshed 12", "token ID TOKEN 0",
/// "GHL_ERR_STORE 3".
fn work_once(client: &Abi, resource_id: &str) {
    let began = Instant::now();
    let refreshed = in_short(client.token_refresh(resource_id));
    println!("{refreshed} {}", began.elapsed().as_millis());
    let began = Instant::now();
    match client.access_token(resource_id) {
        Outcome(0, token) => {
            println!(
                "token {resource_id} {} {}",
                token.as_str().unwrap(),
                began.elapsed().as_millis()
            );
        }
        failed => println!("{} {}", in_short(failed), began.elapsed().as_millis()),
    }
    if refreshed != "refreshed" {
        // Like a host that is told to retry.
        thread::sleep(Duration::from_millis(5));
    }
}

/// A token, "refreshed" or "deleted", or the name of the error.
fn in_short(outcome: Outcome) -> String {
    match outcome {
        Outcome(0, Value::String(token)) => token,
        Outcome(0, _) => "refreshed".to_owned(),
        Outcome(code, _) => support::status_name(code).to_owned(),
    }
}

/// The system clocks with a wrong wall clock.
struct Skewed {
    clock: SystemClock,
    skew_ms: i64,
}

impl Clock for Skewed {
    fn wall_ms(&self) -> i64 {
        self.clock.wall_ms() + self.skew_ms
    }

    fn uptime(&self) -> Duration {
        self.clock.uptime()
    }
}

fn start_worker(config: &Value) -> Worker {
    start_worker_at(config, 0)
}

/// A worker with a wrong wall clock.
fn start_worker_at(config: &Value, skew_ms: i64) -> Worker {
    let mut this = Command::new(env::current_exe().unwrap());
    let this = this.args(["work", "--exact", "--nocapture"]);
    Worker::start(this.env(CONFIG, config.to_string()).env(SKEW, skew_ms.to_string()))
}

// ---- Fixtures -----------------------------------------------------------------------------------

fn emulator() -> Emulator {
    Emulator::start(Options { locations: 4, rate_limit: None, ..Options::default() }).unwrap()
}

/// The stores that several processes can share, in a folder or on a server.
fn shared_stores(folder: &Path) -> Vec<Value> {
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let mut stores = vec![
        json!({"kind": "sqlite", "path": folder.join("tokens.db")}),
        json!({"kind": "sqlite", "path": folder.join("sealed.db"), "encryptionKeys": [key]}),
        json!({"kind": "callbacks", "encryptionKeys": [key], "path": folder.join("records")}),
    ];
    stores.extend(server_stores(key));
    stores
}

/// PostgreSQL, directly and through a pooler with few connections.
#[cfg(all(unix, feature = "postgres"))]
fn server_stores(key: &str) -> Vec<Value> {
    use postgres_server::{Pooler, shared};
    static POOLER: std::sync::OnceLock<Option<Pooler>> = std::sync::OnceLock::new();
    let Some(server) = shared() else { return Vec::new() };
    let mut stores = vec![json!({"kind": "postgres", "url": server.database().url()})];
    if let Some(pooler) = POOLER.get_or_init(|| Pooler::start(server, 4)) {
        let url = server.database().url_at(&format!("127.0.0.1:{}", pooler.port));
        stores.push(json!({"kind": "postgres", "url": url, "encryptionKeys": [key]}));
    }
    stores
}

#[cfg(not(all(unix, feature = "postgres")))]
fn server_stores(_: &str) -> Vec<Value> {
    Vec::new()
}

fn client(config: &Value) -> Client {
    try_client_on(config, Arc::new(SystemClock::new())).unwrap()
}

/// A client. A callbacks store keeps its tokens in the folder `store.path`.
fn try_client_on(config: &Value, clock: Arc<dyn Clock>) -> ghl_oauth::Result<Client> {
    let mut config = config.clone();
    let folder = match config["store"]["kind"].as_str() {
        Some("callbacks") => config["store"].as_object_mut().unwrap().remove("path"),
        _ => None,
    };
    let config = Config::from_json(&config.to_string()).unwrap();
    match folder {
        None => Client::with_clock(&config, clock),
        Some(folder) => Client::with_host(
            &config,
            Arc::new(FolderHost::new(Path::new(folder.as_str().unwrap()))),
        ),
    }
}

fn config(emulator: &Emulator, store: &Value) -> Value {
    let configuration: Value = serde_json::from_str(&emulator.configuration()).unwrap();
    json!({
        "clientId": emulator.client_id(), "clientSecret": emulator.client_secret(),
        "baseUrl": emulator.base_url(),
        "authorizeUrl": emulator.authorize_url(), "redirectUri": emulator.redirect_uri(),
        "scopes": ["oauth.readonly", "oauth.write", "locations.readonly"],
        "retry": {"baseDelayMs": 5},
        "store": store, "webhook": configuration["webhook"],
    })
}

/// Connects the company and mints its locations.
fn connect(emulator: &Emulator, config: &Value) -> Client {
    let client = client(config);
    connect::connect(emulator, &client);
    for location_id in emulator.location_ids() {
        client.access_token(&location_id).unwrap();
    }
    client
}

/// Ages every stored token by a day.
fn expire(client: &Client) {
    let mut page = client.tokens_export(&Default::default()).unwrap();
    for token in page["tokens"].as_array_mut().unwrap() {
        token["expiresAt"] = 1_700_000_000_000_i64.into();
    }
    page["replace"] = true.into();
    client.tokens_import(serde_json::from_value(page).unwrap()).unwrap();
}

/// Timeouts long enough that a response delayed by a test is never requested again, even on a slow
/// machine.
#[cfg(unix)]
fn patient() -> Value {
    json!({"totalMs": 120_000, "answerMs": 110_000})
}

fn refreshes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken)
}

// ---- Tests --------------------------------------------------------------------------------------

#[test]
fn sixty_four_callers_in_eight_processes_make_one_refresh() {
    let folder = tempfile::tempdir().unwrap();
    shared_stores(folder.path()).iter().for_each(sixty_four_callers);
}

fn sixty_four_callers(store: &Value) {
    let emulator = emulator();
    let config = config(&emulator, store);
    let client = connect(&emulator, &config);
    expire(&client);
    let mut workers: Vec<Worker> = (0..8).map(|_| start_worker(&config)).collect();
    emulator.respond_latency(Duration::from_millis(50));
    let began = Instant::now();
    for worker in &mut workers {
        worker.say(&format!("ask {} 8", emulator.company_id()));
    }
    let answers: BTreeSet<String> = workers.iter_mut().map(Worker::line).collect();
    println!(
        "{}: 64 callers in 8 processes: {:?} with a round trip of 50 ms",
        store["kind"],
        began.elapsed()
    );
    assert_eq!(answers.len(), 1, "all callers got the same token");
    assert!(emulator.access_token_is_live(answers.first().unwrap()));
    assert_eq!(emulator.refreshes(), 1);
}

#[test]
fn killed_refreshing_process_releases_its_lock_and_loses_no_token() {
    for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
        let folder = tempfile::tempdir().unwrap();
        shared_stores(folder.path()).iter().for_each(|store| the_holder_dies(store, stage));
    }
}

fn the_holder_dies(store: &Value, stage: Stage) {
    let emulator = emulator();
    let config = config(&emulator, store);
    let client = connect(&emulator, &config);
    expire(&client);
    let (mut first, mut second) = (start_worker(&config), start_worker(&config));
    let hold = emulator.hold(refreshes().times(1), stage);
    first.say(&format!("ask {}", emulator.company_id()));
    hold.wait_for(1);
    second.say(&format!("ask {}", emulator.company_id()));
    let died = Instant::now();
    drop(first);
    let token = second.line();
    println!(
        "{}, {stage:?}: the next process had its token {:?} after the lock holder was killed",
        store["kind"],
        died.elapsed()
    );
    assert!(emulator.access_token_is_live(&token), "{token}");
    hold.release();
}

#[test]
fn slow_refresh_blocks_no_other_resource() {
    let folder = tempfile::tempdir().unwrap();
    shared_stores(folder.path()).iter().for_each(a_slow_refresh);
}

fn a_slow_refresh(store: &Value) {
    let emulator = emulator();
    let config = config(&emulator, store);
    let client = connect(&emulator, &config);
    let locations = emulator.location_ids();
    let (mut first, mut second) = (start_worker(&config), start_worker(&config));
    let hold = emulator.hold(refreshes().resource(&locations[0]), Stage::BeforeProcessing);
    first.say(&format!("refresh {}", locations[0]));
    hold.wait_for(1);
    assert_eq!(second.answer(&format!("refresh {}", locations[1])), "refreshed");
    assert_eq!(second.answer(&format!("refresh {}", emulator.company_id())), "refreshed");
    hold.release();
    assert_eq!(first.line(), "refreshed");
    drop(client);
}

/// A seeded random number generator, so that a run can be repeated.
struct Rng(u64);

impl Rng {
    fn below(&mut self, sides: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// How long a call may exceed its deadline on a busy machine. SQLite's own busy handler took ten
/// seconds in total.
const SCHEDULING: Duration = Duration::from_secs(6);

/// The deadline of a worker's calls.
const TOTAL: Duration = Duration::from_secs(3);

/// The longest suspension of a worker.
const PAUSE: Duration = Duration::from_millis(400);

const YEAR_MS: i64 = 365 * 86_400_000;

/// Fails if a call took longer than its deadline and the suspension of its process.
#[track_caller]
fn assert_in_time(what: &str, milliseconds: &str) {
    let took = Duration::from_millis(milliseconds.parse().unwrap());
    assert!(took < TOTAL + PAUSE + SCHEDULING, "{what} took {took:?} with a deadline of {TOTAL:?}");
}

/// Workers refresh the company and its locations continuously, responses are lost, and workers are
/// killed at random moments. Each history adds its own faults. Finally every token is accounted
/// for.
struct History<'a> {
    store: &'a Value,
    /// The server's replay window.
    window_seconds: u64,
    /// The minimum number of refreshes.
    wanted: u64,
    /// Whether workers are also suspended for a while.
    pauses: bool,
    /// The error of the wall clock of each worker.
    skews_ms: [i64; 3],
    /// Whether a location is uninstalled, deleted and reinstalled through any of the processes.
    webhooks: bool,
    /// Called once per round with a random number and the number of refreshes.
    trouble: Box<dyn FnMut(u64, u64) + 'a>,
    /// Ends the faults before the final check.
    relief: Box<dyn FnOnce() + 'a>,
}

/// A worker with an endless task, and its output.
struct Busy {
    worker: Worker,
    said: Receiver<String>,
}

impl<'a> History<'a> {
    fn new(store: &'a Value, window_seconds: u64) -> History<'a> {
        History {
            store,
            window_seconds,
            wanted: wanted(),
            pauses: false,
            skews_ms: [0; 3],
            webhooks: false,
            trouble: Box::new(|_, _| {}),
            relief: Box::new(|| {}),
        }
    }

    fn run(mut self) {
        let seed = env::var("GHL_CRASH_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(20_261_123);
        let mut rng = Rng(seed);
        let emulator = emulator();
        emulator.set_reuse_window_seconds(self.window_seconds);
        let mut config = config(&emulator, self.store);
        drop(connect(&emulator, &config));
        let company = emulator.company_id();
        let mut resources = emulator.location_ids();
        resources.push(company.clone());
        // Installed and uninstalled repeatedly if there are webhooks.
        let uninstalled = resources[0].clone();
        emulator.inject(refreshes().probability(0.02), FaultKind::ReplyLost);
        emulator.inject(
            refreshes().probability(0.02),
            FaultKind::Reset { stage: Stage::BeforeProcessing },
        );

        let patient = config.clone();
        config["timeouts"] = json!({"totalMs": TOTAL.as_millis() as u64, "answerMs": 1_000});
        let start = |place: usize| {
            let mut worker = start_worker_at(&config, self.skews_ms[place]);
            worker.say(&format!("work-forever {}", resources.join(" ")));
            let said = worker.lines();
            Busy { worker, said }
        };
        let mut workers: Vec<Busy> = (0..3).map(start).collect();
        let (mut kills, mut pauses, mut consents, mut visits) = (0, 0, 0, 0);
        let mut answers: BTreeMap<String, u64> = BTreeMap::new();
        let mut hear = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["token", ref id, token, took] => {
                    assert_in_time("access_token", took);
                    // An uninstallation ends the token of that location.
                    let ends = self.webhooks && *id == uninstalled;
                    assert!(
                        ends || emulator.access_token_is_live(token),
                        "{id} got an expired token"
                    );
                    *answers.entry("token".to_owned()).or_default() += 1;
                }
                [answer, took] => {
                    assert_in_time("a call", took);
                    *answers.entry(answer.to_owned()).or_default() += 1;
                }
                _ => panic!("{line}"),
            }
        };
        while emulator.refreshes() < self.wanted {
            (self.trouble)(rng.below(1 << 20), emulator.refreshes());
            let victim = usize::try_from(rng.below(3)).unwrap();
            // The victim is killed after a random number of its results.
            workers.iter().for_each(|worker| worker.said.try_iter().for_each(|line| hear(&line)));
            for _ in 0..rng.below(30) {
                match workers[victim].said.recv_timeout(PAUSE) {
                    Ok(line) => hear(&line),
                    Err(_) => break,
                }
            }
            if self.webhooks && rng.below(2) == 0 {
                visits += 1;
                uninstall(&emulator, &patient, &uninstalled, rng.below(2) == 0);
                emulator.install_location(&uninstalled);
            }
            if self.pauses && rng.below(2) == 0 {
                // Until the others have their results, unless they wait for the victim.
                pauses += 1;
                workers[victim].worker.signal("STOP");
                let other = &workers[(victim + 1) % 3].said;
                let ends = Instant::now() + PAUSE;
                for _ in 0..rng.below(30) {
                    match other.recv_timeout(ends.saturating_duration_since(Instant::now())) {
                        Ok(line) => hear(&line),
                        Err(_) => break,
                    }
                }
                workers[victim].worker.signal("CONT");
            } else {
                workers[victim] = start(victim);
                kills += 1;
            }
            if self.window_seconds > 0 {
                continue;
            }
            // Without the window a company can be lost and reports it; a person then consents
            // again.
            let stored = client(&patient);
            let page = stored.tokens_list(&Default::default()).unwrap();
            let items = page["items"].as_array().unwrap();
            if items.iter().any(|item| {
                item["resourceId"] == *company && item["state"] == "reauthorizationRequired"
            }) {
                consents += 1;
                drop(connect(&emulator, &patient));
            }
        }
        drop(workers);
        drop(self.trouble);
        (self.relief)();
        emulator.clear_faults();

        // The final check: every stored refresh token is accepted by the server, once the next
        // process has finished the work of a killed one.
        let survivor = client(&patient);
        let mut lost = Vec::new();
        for resource_id in &resources {
            match survivor.token_refresh(resource_id) {
                Ok(_) => {
                    let token = survivor.access_token(resource_id).unwrap();
                    assert!(
                        emulator.access_token_is_live(token.expose()),
                        "{resource_id} got an expired token"
                    );
                }
                Err(error) => {
                    assert_eq!(error.status(), Status::ReauthorizationRequired, "{error}");
                    lost.push(resource_id.clone());
                }
            }
        }
        let live: BTreeSet<String> =
            emulator.live_refresh_tokens().into_iter().map(|token| token.refresh_token).collect();
        let export = survivor.tokens_export(&Default::default()).unwrap();
        for token in export["tokens"].as_array().unwrap() {
            let owner = token["locationId"].as_str().or(token["companyId"].as_str()).unwrap();
            let kept = live.contains(token["refreshToken"].as_str().unwrap());
            assert!(
                kept || lost.iter().any(|id| id == owner),
                "{owner}: the stored refresh token is dead, and no state reports it"
            );
        }
        println!(
            "{}: seed {seed}, window {} s: {} refreshes, {kills} kills, {pauses} pauses, {visits} \
             uninstallations",
            self.store["kind"],
            self.window_seconds,
            emulator.refreshes()
        );
        for (answer, times) in &answers {
            println!("  {times:>6} x {answer}");
        }
        println!(
            "  {consents:>6} x the company had to consent again; lost at the end: {}",
            lost.len()
        );
        if self.window_seconds > 0 {
            assert_eq!(
                (consents, lost.len()),
                (0, 0),
                "no token may be lost with the replay window"
            );
        } else {
            // A location is minted again from its company, so only the company can be missing.
            assert!(lost.iter().all(|id| *id == company) || lost.contains(&company), "{lost:?}");
        }
    }
}

/// The app is uninstalled from a location, or the host deletes its token; afterwards no process
/// restores it.
fn uninstall(emulator: &Emulator, config: &Value, location: &str, by_webhook: bool) {
    emulator.uninstall(location);
    let client = Abi::adopt(client_from(client(config)));
    if by_webhook {
        // Later than every granted token.
        emulator.clock().advance(Duration::from_secs(1));
        let body = emulator.webhook(&Notice::Uninstall(location.to_owned()));
        let headers = support::signed(emulator, body.as_bytes(), Signature::Ed25519);
        client.webhook_apply(body.as_bytes(), &headers).ok();
    } else {
        // Another process may have deleted it after the refusal of the server.
        let _ = client.token_delete(location);
    }
    // Calls in progress at that moment in other processes ended before the lock was free.
    drop(client);
    let found = Abi::adopt(client_from(crate::client(config))).tokens_list(json!({})).ok();
    let back = found["items"].as_array().unwrap().iter().any(|item| item["resourceId"] == location);
    assert!(!back, "{location} was deleted and is stored again");
}

fn wanted() -> u64 {
    env::var("GHL_CRASH_REFRESHES").ok().and_then(|wanted| wanted.parse().ok()).unwrap_or(200)
}

#[test]
fn crashes_lose_no_token_inside_the_replay_window() {
    let folder = tempfile::tempdir().unwrap();
    shared_stores(folder.path()).iter().for_each(|store| History::new(store, 30).run());
}

#[test]
fn crashes_without_the_replay_window_lose_only_reported_connections() {
    let folder = tempfile::tempdir().unwrap();
    shared_stores(folder.path()).iter().for_each(|store| History::new(store, 0).run());
}

#[cfg(unix)]
#[test]
fn pauses_and_crashes_lose_no_token_inside_the_replay_window() {
    let folder = tempfile::tempdir().unwrap();
    for store in shared_stores(folder.path()) {
        History { pauses: true, ..History::new(&store, 30) }.run();
    }
}

#[test]
fn uninstalls_between_crashes_persist_and_do_not_affect_other_resources() {
    let folder = tempfile::tempdir().unwrap();
    for store in shared_stores(folder.path()) {
        History { webhooks: true, ..History::new(&store, 30) }.run();
    }
}

/// Excludes host stores, because their worker uses the system clock.
fn stores_of_the_library(folder: &Path) -> Vec<Value> {
    let mut stores = shared_stores(folder);
    stores.retain(|store| store["kind"] != "callbacks");
    stores
}

#[test]
fn wall_clock_a_year_off_in_one_process_loses_no_token_in_the_others() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores_of_the_library(folder.path()) {
        History { skews_ms: [0, YEAR_MS, -YEAR_MS], ..History::new(&store, 30) }.run();
    }
}

/// One process stores a token, a day passes for the server, and another process starts. The clock
/// of each is correct, a year ahead, or a year behind.
#[test]
fn expired_token_is_never_returned_by_a_new_process_with_any_clock_error() {
    let skews = [("right", 0), ("a year ahead", YEAR_MS), ("a year behind", -YEAR_MS)];
    let mut wrong = Vec::new();
    for (writers, writer_ms) in skews {
        for (readers, reader_ms) in skews {
            let folder = tempfile::tempdir().unwrap();
            let emulator = emulator();
            let store = json!({"kind": "sqlite", "path": folder.path().join("tokens.db")});
            let config = config(&emulator, &store);
            drop(connect(&emulator, &config));
            let company = emulator.company_id();
            let mut writer = start_worker_at(&config, writer_ms);
            assert_eq!(writer.answer(&format!("refresh {company}")), "refreshed");
            drop(writer);
            // The token was valid for a day. The clock of the reader has advanced like the one of
            // the server.
            let passed = Duration::from_secs(90_000);
            emulator.clock().advance(passed);
            let passed_ms = i64::try_from(passed.as_millis()).unwrap();
            let mut reader = start_worker_at(&config, passed_ms + reader_ms);
            let token = reader.answer(&format!("ask {company}"));
            if !emulator.access_token_is_live(&token) {
                wrong.push(format!("stored with a clock {writers}, read with a clock {readers}"));
            }
        }
    }
    assert!(wrong.is_empty(), "expired tokens were returned: {wrong:#?}");
}

/// A process that is suspended during a refresh keeps its lock: calls of the others end in time,
/// and it saves the token when it continues.
#[cfg(unix)]
#[test]
fn process_stopped_during_its_refresh_delays_no_call_and_saves_when_it_continues() {
    for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
        let folder = tempfile::tempdir().unwrap();
        shared_stores(folder.path()).iter().for_each(|store| the_holder_stops(store, stage));
    }
}

#[cfg(unix)]
fn the_holder_stops(store: &Value, stage: Stage) {
    let emulator = emulator();
    emulator.set_reuse_window_seconds(0);
    let mut config = config(&emulator, store);
    let client = connect(&emulator, &config);
    expire(&client);
    let company = emulator.company_id();
    config["timeouts"] = patient();
    let mut first = start_worker(&config);
    config["timeouts"] = json!({"totalMs": 500});
    let mut second = start_worker(&config);
    let hold = emulator.hold(refreshes(), stage);
    first.say(&format!("ask {company}"));
    hold.wait_for(1);
    first.signal("STOP");
    let answer = second.answer(&format!("timed ask {company}"));
    let (answer, took) = answer.split_once(' ').unwrap();
    assert_eq!(answer, "GHL_ERR_TIMEOUT");
    assert_in_time("a call that waits for the lock", took);
    hold.release();
    first.signal("CONT");
    let token = first.line();
    assert!(emulator.access_token_is_live(&token), "{token}");
    drop(first);
    assert!(
        client.access_token(&company).unwrap().matches(&token),
        "{}: it was not saved",
        store["kind"]
    );
    assert_eq!(emulator.refreshes(), 1);
}

/// A process with a clock ten seconds ahead refreshes and loses its lock while the response is on
/// its way: another process refreshes twice, if it gets the lock. The first response arrives last
/// and contains the older token.
#[cfg(unix)]
fn the_lock_is_lost(store: &Value, lose: impl FnOnce()) {
    let emulator = emulator();
    let mut config = config(&emulator, store);
    let client = connect(&emulator, &config);
    let company = emulator.company_id();
    expire(&client);
    config["timeouts"] = patient();
    let mut first = start_worker_at(&config, 10_000);
    config["timeouts"] = json!({"totalMs": 2_000});
    let mut second = start_worker(&config);
    let hold = emulator.hold(refreshes().times(1), Stage::AfterProcessing);
    first.say(&format!("ask {company}"));
    hold.wait_for(1);
    lose();
    for _ in 0..2 {
        let answer = second.answer(&format!("refresh {company}"));
        assert!(
            ["refreshed", "GHL_ERR_TIMEOUT"].contains(&&*answer),
            "{}: {answer}",
            store["kind"]
        );
    }
    hold.release();
    let token = first.line();
    assert!(emulator.access_token_is_live(&token), "{}: {token} was returned", store["kind"]);
    let live = emulator.live_refresh_tokens();
    let export = client.tokens_export(&Default::default()).unwrap();
    let is_live = export["tokens"].as_array().unwrap().iter().any(|token| {
        live.iter()
            .any(|live| live.resource_id == company && token["refreshToken"] == live.refresh_token)
    });
    assert!(is_live, "{}: a spent refresh token has replaced the live one", store["kind"]);
}

#[cfg(unix)]
#[test]
fn lock_folder_removed_during_a_refresh_lets_no_older_token_replace_a_newer_token() {
    let folder = tempfile::tempdir().unwrap();
    let locks = folder.path().join("tokens.db.locks");
    the_lock_is_lost(&sqlite(folder.path()), || fs::remove_dir_all(locks).unwrap());
}

#[cfg(all(unix, feature = "postgres"))]
#[test]
fn lock_session_ended_during_a_refresh_lets_no_older_token_replace_a_newer_token() {
    let Some(server) = postgres_server::Server::start(&[]) else { return };
    let store = json!({"kind": "postgres", "url": server.database().url()});
    the_lock_is_lost(&store, || server.end_sessions());
}

// ---- A foreign program --------------------------------------------------------------------------

/// Runs the statements of each input line in one connection.
const FOREIGN: &str = "
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
print('ready', flush=True)
for line in sys.stdin:
    for statement in line.split(';'):
        database.execute(statement).fetchall()
    print('done', flush=True)
";

/// A program with its own SQLite on the database. Prints a note if Python is missing.
fn foreign(store: &Value) -> Option<Worker> {
    let python = env::var("GHL_PYTHON").unwrap_or_else(|_| "python3".into());
    if Command::new(&python)
        .args(["-c", "import sqlite3"])
        .status()
        .is_ok_and(|status| status.success())
    {
        return Some(Worker::start(
            Command::new(python).args(["-c", FOREIGN]).arg(store["path"].as_str().unwrap()),
        ));
    }
    println!("skipped: a foreign program on the database (apt-get install python3)");
    None
}

/// A company with an expired token, a server that accepts each refresh token once, and a worker.
struct Fixture {
    emulator: Emulator,
    config: Value,
    company: String,
    worker: Worker,
}

impl Fixture {
    fn new(store: &Value) -> Fixture {
        let emulator = emulator();
        emulator.set_reuse_window_seconds(0);
        let mut config = config(&emulator, store);
        let client = connect(&emulator, &config);
        let company = emulator.company_id();
        let mut page = client.tokens_export(&Default::default()).unwrap();
        page["tokens"].as_array_mut().unwrap().retain(|token| token["userType"] == "Company");
        page["tokens"][0]["expiresAt"] = 1_700_000_000_000_i64.into();
        page["replace"] = true.into();
        client.tokens_import(serde_json::from_value(page).unwrap()).unwrap();
        config["timeouts"] = json!({"totalMs": TOTAL.as_millis() as u64});
        let worker = start_worker(&config);
        Fixture { emulator, config, company, worker }
    }

    /// The worker's result, which must arrive in time.
    #[track_caller]
    fn answer(&mut self, command: &str) -> String {
        let answer = self.worker.answer(&format!("timed {command}"));
        let (answer, took) = answer.rsplit_once(' ').unwrap();
        assert_in_time(command, took);
        answer.to_owned()
    }

    /// Requests the token of the company, and causes the fault between the intent and the save.
    #[track_caller]
    fn ask_with_trouble_before_the_save(&mut self, trouble: impl FnOnce()) -> String {
        let hold = self.emulator.hold(refreshes(), Stage::BeforeProcessing);
        self.worker.say(&format!("timed ask {}", self.company));
        hold.wait_for(1);
        trouble();
        hold.release();
        let answer = self.worker.line();
        let (answer, took) = answer.rsplit_once(' ').unwrap();
        assert_in_time("a refresh", took);
        answer.to_owned()
    }

    /// After the fault the worker maintains its tokens and is killed: the next process finds the
    /// returned token.
    fn assert_saved_by_maintenance(mut self, handed_out: &str) {
        assert!(self.emulator.access_token_is_live(handed_out), "an expired token was returned");
        assert!(
            self.answer(&format!("ask {}", self.company)) == handed_out,
            "another token was returned"
        );
        // Calls retry an unsaved token after a backoff, maintenance at once.
        self.answer("maintain");
        drop(self.worker);
        let stored = client(&self.config).access_token(&self.company);
        let is_there = stored.is_ok_and(|stored| stored.matches(handed_out));
        assert!(is_there, "the returned token is lost");
    }
}

fn sqlite(folder: &Path) -> Value {
    json!({"kind": "sqlite", "path": folder.join("tokens.db")})
}

#[test]
fn foreign_write_lock_spends_no_token_and_delays_no_call() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let mut fixture = Fixture::new(&store);
    let Some(mut foreign) = foreign(&store) else { return };
    let (company, locations) = (fixture.company.clone(), fixture.emulator.location_ids());
    assert_eq!(foreign.answer("BEGIN IMMEDIATE"), "done");
    // The tokens of the others are valid: no caller waits.
    let token = fixture.answer(&format!("ask {}", locations[0]));
    assert!(fixture.emulator.access_token_is_live(&token), "{token}");
    for command in [format!("ask {company} 8"), format!("delete {}", locations[1])] {
        let answer = fixture.answer(&command);
        assert!(answer.starts_with("GHL_ERR_"), "{command}: {answer}");
    }
    assert_eq!(fixture.emulator.refreshes(), 0, "what could not be kept was not asked for");
    assert_eq!(foreign.answer("ROLLBACK"), "done");
    let token = fixture.answer(&format!("ask {company} 8"));
    assert!(fixture.emulator.access_token_is_live(&token), "{token}");
}

#[test]
fn foreign_write_lock_taken_during_a_refresh_loses_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let mut fixture = Fixture::new(&store);
    let Some(mut foreign) = foreign(&store) else { return };
    let token = fixture.ask_with_trouble_before_the_save(|| {
        assert_eq!(foreign.answer("BEGIN IMMEDIATE"), "done");
    });
    assert_eq!(foreign.answer("ROLLBACK"), "done");
    fixture.assert_saved_by_maintenance(&token);
}

#[test]
fn foreign_read_transaction_delays_no_deletion() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let mut fixture = Fixture::new(&store);
    let Some(mut foreign) = foreign(&store) else { return };
    assert_eq!(foreign.answer("BEGIN; SELECT COUNT(*) FROM token"), "done");
    let mut other = start_worker(&fixture.config);
    let (company, locations) = (fixture.company.clone(), fixture.emulator.location_ids());
    // Each deletion with a concurrent refresh in another process.
    for location in &locations[..2] {
        fixture.worker.say(&format!("timed delete {location}"));
        let refreshed = other.answer(&format!("timed refresh {company}"));
        let (refreshed, took) = refreshed.split_once(' ').unwrap();
        assert_eq!(refreshed, "refreshed");
        assert_in_time("a refresh concurrent with a deletion", took);
        let deleted = fixture.worker.line();
        let (deleted, took) = deleted.split_once(' ').unwrap();
        assert_eq!(deleted, "refreshed");
        assert_in_time("a deletion", took);
    }
}

/// In each round a foreign program acquires or releases the write lock, or begins or ends a read.
#[test]
fn foreign_locks_and_reads_between_crashes_delay_no_call_and_lose_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let history = History::new(&store, 30);
    // The history creates the database before the first round and ends the program after the last
    // one.
    let (mut program, mut is_inside, database) = (None, false, store.clone());
    let trouble = move |below: u64, _| {
        let Some(foreign) = program.get_or_insert_with(|| foreign(&database)) else { return };
        let begin = if below.is_multiple_of(2) {
            "BEGIN IMMEDIATE"
        } else {
            "BEGIN; SELECT COUNT(*) FROM token"
        };
        assert_eq!(foreign.answer(if is_inside { "ROLLBACK" } else { begin }), "done");
        is_inside = !is_inside;
    };
    History { trouble: Box::new(trouble), ..history }.run();
}

// ---- A full disk --------------------------------------------------------------------------------

/// A small file system that a test can fill. SQLite checkpoints the WAL when it has 4 MB.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Prints a note if it cannot be mounted.
    fn new(size: &str) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(folder));
        }
        println!("skipped: a full disk, which needs a mount (run the tests as root on Linux)");
        None
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    fn is_full(&self) -> bool {
        self.filler().exists()
    }

    /// Fills all free space.
    fn fill(&self) {
        let mut filler = fs::File::options().create(true).append(true).open(self.filler()).unwrap();
        for size in [4096, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Fills the space reserved by the WAL as well, so that no transaction fits.
    fn fill_up(&self, store: &Value) {
        self.fill();
        if let Ok(database) = rusqlite::Connection::open(store["path"].as_str().unwrap()) {
            let _ = database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        self.fill();
    }

    fn clear(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn full_disk_spends_no_token_and_refreshes_work_once_space_is_free() {
    let Some(disk) = SmallDisk::new("16m") else { return };
    let store = sqlite(disk.0.path());
    let mut fixture = Fixture::new(&store);
    let company = fixture.company.clone();
    disk.fill_up(&store);
    assert_eq!(fixture.answer(&format!("ask {company} 8")), "GHL_ERR_STORE");
    assert_eq!(fixture.emulator.refreshes(), 0, "what could not be kept was not asked for");
    disk.clear();
    let token = fixture.answer(&format!("ask {company} 8"));
    assert!(fixture.emulator.access_token_is_live(&token), "{token}");
}

#[test]
fn disk_full_before_the_save_loses_no_token() {
    let Some(disk) = SmallDisk::new("16m") else { return };
    let store = sqlite(disk.0.path());
    let mut fixture = Fixture::new(&store);
    let token = fixture.ask_with_trouble_before_the_save(|| disk.fill_up(&store));
    disk.clear();
    fixture.assert_saved_by_maintenance(&token);
}

#[test]
fn temporarily_full_disk_between_crashes_loses_no_token() {
    let Some(disk) = SmallDisk::new("16m") else { return };
    let store = sqlite(disk.0.path());
    let trouble = |_, _| if disk.is_full() { disk.clear() } else { disk.fill_up(&store) };
    let relief = || {
        if disk.is_full() {
            disk.clear()
        }
    };
    let history = History::new(&store, 30);
    History { trouble: Box::new(trouble), relief: Box::new(relief), ..history }.run();
}

/// Two processes in turn; a refresh writes some 20 kB.
fn refresh_in_turn(fixture: &mut Fixture, other: &mut Worker, times: u32) {
    let command = format!("refresh {}", fixture.company);
    for number in 0..times {
        assert_eq!(fixture.worker.answer(&command), "refreshed", "refresh {number}");
        assert_eq!(other.answer(&command), "refreshed", "refresh {number} of the other process");
    }
}

#[test]
fn disk_of_one_megabyte_serves_two_thousand_refreshes() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let mut fixture = Fixture::new(&sqlite(disk.0.path()));
    let mut other = start_worker(&fixture.config);
    refresh_in_turn(&mut fixture, &mut other, 1_000);
    assert_eq!(fixture.emulator.refreshes(), 2_000);
}

#[test]
fn disk_filled_by_another_program_still_serves_refreshes_from_the_wal_space() {
    let Some(disk) = SmallDisk::new("16m") else { return };
    let mut fixture = Fixture::new(&sqlite(disk.0.path()));
    let mut other = start_worker(&fixture.config);
    refresh_in_turn(&mut fixture, &mut other, 10);
    disk.fill();
    refresh_in_turn(&mut fixture, &mut other, 150);
}

// ---- A database server in trouble ---------------------------------------------------------------

/// After every few refreshes all sessions end, including refresh locks, or the server crashes and
/// restarts.
#[cfg(all(unix, feature = "postgres"))]
#[test]
fn database_server_that_restarts_between_crashes_loses_no_token() {
    let Some(mut server) = postgres_server::Server::start(&[]) else { return };
    let store = json!({"kind": "postgres", "url": server.database().url()});
    let mut next = 0;
    let trouble = |below: u64, refreshes| {
        if refreshes < next {
            return;
        }
        next = refreshes + 25;
        if below.is_multiple_of(4) { server.crash() } else { server.end_sessions() }
    };
    let history = History::new(&store, 30);
    History { trouble: Box::new(trouble), ..history }.run();
}
