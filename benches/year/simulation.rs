//! A simulated year of a fleet: real processes with a shared store renew the tokens of many
//! companies and their locations, while the API's emulator injects faults and processes are killed.
//!
//! All clocks are moved together, an interval at a time. Within an interval, real time passes: for
//! the replay window, pauses, retries and waits. The years are simulated, but the work is real.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::internals::clock::{Clock, SystemClock};
use ghl_oauth::internals::signal::Signal;
use ghl_oauth::internals::tokens::ListParams;
use ghl_oauth::internals::{Client, Config};
use ghl_oauth_emulator::{
    Decision, Emulator, Ending, Endpoint, FaultId, FaultKind, GrantType, Options, RateLimit,
    Refusal, Rule, Stage,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::measure::{now_ms, processor_time, resident};
use crate::postgres_server::{Database, Server};
use crate::stage;
use crate::worker::Worker;

/// The environment variable with the task of a worker process.
pub const WORK: &str = "GHL_BENCH_YEAR";

const HOUR_MS: i64 = 3_600_000;

const YEAR_HOURS: f64 = 365.0 * 24.0;

/// The server's replay window.
const WINDOW_SECONDS: u64 = 30;

/// The lifetime of an access token.
const LIFE_SECONDS: i64 = 86_399;

/// The time for which a caller uses a token before it requests another.
const THINKS: Duration = Duration::from_millis(10);

/// The fewest calls of each caller in an interval.
const CALLS: u64 = 3;

/// How many error messages of callers are kept.
const MESSAGES: usize = 10;

/// The share of refreshes and mints that return another owner's token.
const WRONG_OWNER: f64 = 0.001;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Store {
    Sqlite,
    Postgres,
}

impl Store {
    pub fn name(self) -> &'static str {
        match self {
            Store::Sqlite => "sqlite",
            Store::Postgres => "postgres",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub store: Store,
    pub processes: usize,
    pub companies: usize,
    /// The locations of all companies.
    pub locations: usize,
    pub hours: i64,
    /// The hours between two maintenance passes of each process.
    pub interval_hours: i64,
    /// Concurrent renewals of each process.
    pub concurrency: usize,
    /// Callers of each process.
    pub callers: usize,
    /// The shares of refreshes and mints whose response is lost, or is an error.
    pub lost: f64,
    pub errors: f64,
    /// Killed processes per simulated year.
    pub kills: f64,
    /// Outages of the API per simulated year, and their length.
    pub outages: f64,
    pub outage_hours: i64,
    /// The speed of the clocks within an interval.
    pub speed: u32,
    pub seed: u64,
    /// The real time after which no further interval begins.
    pub limit: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            store: Store::Sqlite,
            processes: 4,
            companies: 100,
            locations: 2_000,
            hours: 365 * 24,
            interval_hours: 1,
            concurrency: 16,
            callers: 2,
            lost: 0.01,
            errors: 0.05,
            kills: 200.0,
            outages: 2.0,
            outage_hours: 3,
            speed: 5,
            seed: 1,
            limit: Duration::MAX,
        }
    }
}

// ---- Clock --------------------------------------------------------------------------------------

/// A clock that is moved to the beginning of each interval, and runs faster than the system clock
/// from there. All waits of the library are shorter by that factor.
struct MovedClock {
    system: SystemClock,
    speed: u32,
    /// The time on the clock, and the uptime at which it was set. Equal in all processes.
    set: Mutex<Setting>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Setting {
    shows_ms: i64,
    at: Duration,
}

impl MovedClock {
    fn new(speed: u32, setting: Setting) -> Arc<MovedClock> {
        Arc::new(MovedClock { system: SystemClock::new(), speed, set: setting.into() })
    }

    fn set(&self, setting: Setting) {
        *self.set.lock().unwrap() = setting;
    }

    fn setting(&self) -> Setting {
        *self.set.lock().unwrap()
    }

    fn now(&self) -> Duration {
        let Setting { shows_ms, at } = self.setting();
        Duration::from_millis(shows_ms.unsigned_abs())
            + self.system.uptime().saturating_sub(at) * self.speed
    }
}

impl Clock for MovedClock {
    fn wall_ms(&self) -> i64 {
        self.now().as_millis() as i64
    }

    fn uptime(&self) -> Duration {
        self.now()
    }

    /// Without the moves between intervals.
    fn monotonic(&self) -> Duration {
        self.system.uptime() * self.speed
    }

    fn wait(&self, signal: &Signal, seen: u64, timeout: Duration) {
        self.system.wait(signal, seen, timeout / self.speed);
    }
}

// ---- Worker process -----------------------------------------------------------------------------

/// The task of a worker process.
#[derive(Serialize, Deserialize)]
struct Task {
    config: Value,
    /// A file with the IDs of all locations, one per line, grouped by company.
    locations: String,
    speed: u32,
    setting: Setting,
    concurrency: usize,
    callers: usize,
    seed: u64,
}

/// The work of one interval.
#[derive(Serialize, Deserialize)]
struct Interval {
    setting: Setting,
    /// Companies to mint for.
    mint: Vec<String>,
    /// The number of locations, from the first, that callers use.
    used: usize,
}

/// The observations of a process in one interval.
#[derive(Default, Serialize, Deserialize)]
struct Observed {
    checked: u64,
    /// Companies with locations that could not be minted yet.
    unminted: Vec<String>,
    /// Renewals that failed, by status.
    failed: BTreeMap<String, u64>,
    calls: u64,
    /// Calls that returned an error, by status.
    errors: BTreeMap<String, u64>,
    /// The messages of the first of them.
    messages: Vec<String>,
    longest_us: u64,
    /// Calls that took longer than 0.1 s, and longer than a second.
    slow: u64,
    very_slow: u64,
    resident_kib: u64,
    processor_us: u64,
}

impl Observed {
    fn add(&mut self, other: &Observed) {
        self.checked += other.checked;
        self.calls += other.calls;
        self.slow += other.slow;
        self.very_slow += other.very_slow;
        self.processor_us += other.processor_us;
        self.longest_us = self.longest_us.max(other.longest_us);
        self.resident_kib = self.resident_kib.max(other.resident_kib);
        self.messages.extend_from_slice(&other.messages);
        self.messages.truncate(MESSAGES);
        for (all, some) in [(&mut self.failed, &other.failed), (&mut self.errors, &other.errors)] {
            some.iter().for_each(|(name, count)| *all.entry(name.clone()).or_default() += count);
        }
    }
}

/// Executes the intervals that arrive on stdin, one per line, and prints what it has observed.
pub fn work(task: &str) {
    let task: Task = serde_json::from_str(task).unwrap();
    let clock = MovedClock::new(task.speed, task.setting);
    let config = Config::from_json(&task.config.to_string()).unwrap();
    let client = Client::with_clock(&config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let text = fs::read_to_string(&task.locations).unwrap();
    let locations: Vec<&str> = text.lines().collect();
    let mut chance = Chance::new(task.seed);
    std::panic::set_hook(Box::new(|panic| println!("{}", panic.to_string().replace('\n', " "))));
    println!("\nready");
    for line in std::io::stdin().lines() {
        let interval: Interval = serde_json::from_str(&line.unwrap()).unwrap();
        clock.set(interval.setting);
        let observed = pass(&client, &clock, &task, &interval, &locations, &mut chance);
        println!("{}", json!(observed));
    }
}

/// One pass of maintenance, with callers at the same time.
fn pass(
    client: &Client,
    clock: &MovedClock,
    task: &Task,
    interval: &Interval,
    locations: &[&str],
    chance: &mut Chance,
) -> Observed {
    let spent = processor_time();
    let is_over = AtomicBool::new(false);
    let callers: Vec<Chance> = (0..task.callers).map(|_| Chance::new(chance.next())).collect();
    let mut observed = thread::scope(|scope| {
        let callers: Vec<_> = callers
            .into_iter()
            .map(|chance| {
                let used = &locations[..interval.used];
                let is_over = &is_over;
                scope.spawn(move || call(client, clock, used, chance, is_over))
            })
            .collect();
        let mut observed = Observed::default();
        let parameters = json!({"concurrency": task.concurrency});
        match client.tokens_maintain(&serde_json::from_value(parameters).unwrap(), &|_| true) {
            Ok(report) => {
                observed.checked = report["checked"].as_u64().unwrap();
                for failure in report["failed"].as_array().unwrap() {
                    let name = failure["error"]["status"].as_str().unwrap().to_owned();
                    *observed.failed.entry(name).or_default() += 1;
                }
            }
            Err(error) => {
                let name = format!("whole pass: {}", error.status().name());
                *observed.failed.entry(name).or_default() += 1;
            }
        }
        let failed = |company: &&String| !mint(client, company, task.concurrency);
        observed.unminted = interval.mint.iter().filter(failed).cloned().collect();
        is_over.store(true, Ordering::SeqCst);
        callers.into_iter().for_each(|caller| observed.add(&caller.join().unwrap()));
        observed
    });
    observed.resident_kib = resident();
    observed.processor_us = (processor_time() - spent).as_micros() as u64;
    observed
}

/// Mints for all locations of a company. Returns whether all have a token.
fn mint(client: &Client, company: &str, concurrency: usize) -> bool {
    let parameters = json!({"companyId": company, "installed": true, "concurrency": concurrency});
    let report = client.tokens_mint(serde_json::from_value(parameters).unwrap(), &|_| true);
    report.is_ok_and(|report| report["failed"] == json!([]))
}

/// A caller that requests the tokens of random locations, one after another.
fn call(
    client: &Client,
    clock: &MovedClock,
    locations: &[&str],
    mut chance: Chance,
    is_over: &AtomicBool,
) -> Observed {
    let mut observed = Observed::default();
    while !locations.is_empty() && (observed.calls < CALLS || !is_over.load(Ordering::SeqCst)) {
        let location = locations[chance.below(locations.len())];
        let began = clock.monotonic();
        let outcome = client.access_token(location);
        let took = clock.monotonic().saturating_sub(began);
        observed.calls += 1;
        observed.longest_us = observed.longest_us.max(took.as_micros() as u64);
        observed.slow += u64::from(took > Duration::from_millis(100));
        observed.very_slow += u64::from(took > Duration::from_secs(1));
        if let Err(error) = outcome {
            *observed.errors.entry(error.status().name().to_owned()).or_default() += 1;
            observed.messages.push(format!("{}: {error}", error.status().name()));
        }
        thread::sleep(THINKS);
    }
    observed
}

/// Random numbers from a seed.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, count: usize) -> usize {
        ((self.next() >> 16) % count as u64) as usize
    }

    fn is_so(&mut self, probability: f64) -> bool {
        ((self.next() >> 11) as f64 / (1_u64 << 53) as f64) < probability
    }
}

// ---- Simulation ---------------------------------------------------------------------------------

/// The store on disk.
enum Files<'a> {
    Folder(&'a Path),
    Database(&'a Database<'a>),
}

impl Files<'_> {
    /// The number of lock files.
    fn lock_files(&self) -> usize {
        match self {
            Files::Folder(folder) => {
                fs::read_dir(folder.join("tokens.db.locks")).map_or(0, Iterator::count)
            }
            Files::Database(_) => 0,
        }
    }

    /// The size of the tokens' files and of the write-ahead log.
    fn bytes(&self) -> (u64, u64) {
        let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        match self {
            Files::Folder(folder) => {
                (size(&folder.join("tokens.db")), size(&folder.join("tokens.db-wal")))
            }
            Files::Database(database) => {
                let of = |sql: &str| database.sql(sql).trim().parse().unwrap();
                let tables = "SELECT pg_total_relation_size('ghl_oauth_token') + \
                              pg_total_relation_size('ghl_oauth_note')";
                (of(tables), of("SELECT sum(size) FROM pg_ls_waldir()"))
            }
        }
    }
}

/// The injected faults, and rules that only count requests.
struct Faults {
    lost: f64,
    errors: f64,
    refreshes: FaultId,
    mints: FaultId,
    lists: FaultId,
    active: Vec<(&'static str, FaultId)>,
    /// How often each fault was applied, without the active ones.
    applied: BTreeMap<&'static str, u64>,
}

impl Faults {
    fn new(emulator: &Emulator, settings: &Settings) -> Faults {
        // Before all faults: a request to which a fault is applied is not seen by later rules.
        let count = |rule: Rule| emulator.inject(rule.probability(0.0), FaultKind::ReplyLost);
        let mut faults = Faults {
            lost: settings.lost,
            errors: settings.errors,
            refreshes: count(refreshes()),
            mints: count(mints()),
            lists: count(Rule::on(Endpoint::InstalledLocations)),
            active: Vec::new(),
            applied: BTreeMap::new(),
        };
        faults.restore(emulator);
        faults
    }

    /// Injects the usual faults.
    fn restore(&mut self, emulator: &Emulator) {
        let status = |status, headers: &[(&str, &str)]| FaultKind::Status {
            status,
            body: String::new(),
            content_type: None,
            headers: headers.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            stage: Stage::BeforeProcessing,
        };
        let timed_out = |stage| FaultKind::CommandTimedOut { stage, as_object: false };
        let cut = FaultKind::CutBody { body_bytes: 100, ending: Ending::Close };
        let page = FaultKind::UnavailablePage { stage: Stage::AfterProcessing };
        let kinds = [
            ("response lost", self.lost / 2.0, FaultKind::ReplyLost),
            ("response cut off", self.lost / 4.0, cut),
            (
                "reset, processed",
                self.lost / 4.0,
                FaultKind::Reset { stage: Stage::AfterProcessing },
            ),
            ("Command timed out", self.errors / 5.0, timed_out(Stage::BeforeProcessing)),
            ("Command timed out, processed", self.errors / 5.0, timed_out(Stage::AfterProcessing)),
            ("503, processed", self.errors / 5.0, page),
            ("500", self.errors / 5.0, status(500, &[])),
            ("429", self.errors / 10.0, status(429, &[("Retry-After", "1")])),
            (
                "firewall page",
                self.errors / 10.0,
                FaultKind::Refusal { refusal: Refusal::FirewallPage },
            ),
            ("token of another owner", WRONG_OWNER, FaultKind::OtherOwner { owner_id: None }),
        ];
        for (name, share, kind) in kinds {
            for rule in [refreshes(), mints()] {
                let id = emulator.inject(rule.probability(share), kind.clone());
                self.active.push((name, id));
            }
        }
    }

    /// Replaces the usual faults by an outage: a firewall rejects every token request.
    fn begin_outage(&mut self, emulator: &Emulator) {
        self.remove_all(emulator);
        for rule in [refreshes(), mints()] {
            let kind = FaultKind::Refusal { refusal: Refusal::FirewallPage };
            self.active.push(("firewall page in an outage", emulator.inject(rule, kind)));
        }
    }

    fn end_outage(&mut self, emulator: &Emulator) {
        self.remove_all(emulator);
        self.restore(emulator);
    }

    fn remove_all(&mut self, emulator: &Emulator) {
        self.applied = self.applied(emulator);
        for (_, id) in self.active.drain(..) {
            emulator.remove_fault(id);
        }
    }

    fn applied(&self, emulator: &Emulator) -> BTreeMap<&'static str, u64> {
        let mut applied = self.applied.clone();
        for (name, id) in &self.active {
            *applied.entry(name).or_default() += u64::from(emulator.strikes(*id));
        }
        applied
    }
}

fn refreshes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken)
}

fn mints() -> Rule {
    Rule::on(Endpoint::LocationToken)
}

/// Runs a simulation and returns its figures; `None` if PostgreSQL is not installed. `start` makes
/// a worker process from its task, and `see` gets the figures so far once per simulated day.
pub fn run(
    settings: &Settings,
    folder: &Path,
    start: &dyn Fn(&str) -> Worker,
    see: &dyn Fn(&Value),
) -> Option<Value> {
    match settings.store {
        Store::Sqlite => {
            let store = json!({"kind": "sqlite", "path": folder.join("tokens.db")});
            Some(Simulation::new(settings, folder, &store, Files::Folder(folder)).run(start, see))
        }
        Store::Postgres => {
            // Each renewal may hold two locks, and each lock a connection.
            let server = Server::start(&["max_connections=500"])?;
            let database = server.database();
            let store = json!({"kind": "postgres", "url": database.url()});
            let files = Files::Database(&database);
            Some(Simulation::new(settings, folder, &store, files).run(start, see))
        }
    }
}

struct Simulation<'a> {
    settings: &'a Settings,
    emulator: Emulator,
    faults: Faults,
    clock: Arc<MovedClock>,
    config: Value,
    files: Files<'a>,
    /// A file with the IDs of all locations.
    locations: String,
    /// The number of companies that have connected, and the hours at which they did.
    connected: usize,
    connected_at: Vec<i64>,
    chance: Chance,
    total: Observed,
    /// Since the last entry of `days`.
    recent: Observed,
    killed: u64,
    outages: u64,
    days: Vec<Value>,
    began_ms: i64,
    began: Instant,
}

impl<'a> Simulation<'a> {
    fn new(
        settings: &'a Settings,
        folder: &Path,
        store: &Value,
        files: Files<'a>,
    ) -> Simulation<'a> {
        // Hours of requests are sent in seconds of real time, so only the daily limit applies.
        let rate_limit = RateLimit { requests: 1_000_000, ..RateLimit::default() };
        let emulator = Emulator::start(Options {
            companies: settings.companies,
            locations: settings.locations / settings.companies,
            access_token_seconds: LIFE_SECONDS,
            rate_limit: Some(rate_limit),
            seed: settings.seed,
            ..Options::default()
        })
        .unwrap();
        let mut config = stage::configuration(&emulator, store.clone());
        config["rateLimit"] = json!({"requests": 1_000_000});
        // The clocks run faster than real work, so the limits grow with them.
        let speed = u64::from(settings.speed);
        config["timeouts"] = json!({"totalMs": 30_000 * speed, "answerMs": 12_000 * speed});
        let locations = folder.join("locations");
        fs::write(&locations, emulator.location_ids().join("\n")).unwrap();
        // The emulator's clock runs at the real speed within an interval.
        emulator.set_reuse_window_seconds(WINDOW_SECONDS / u64::from(settings.speed));
        let began_ms = now_ms();
        let setting = Setting { shows_ms: began_ms, at: SystemClock::new().uptime() };
        Simulation {
            settings,
            faults: Faults::new(&emulator, settings),
            emulator,
            clock: MovedClock::new(settings.speed, setting),
            config,
            files,
            locations: locations.to_str().unwrap().to_owned(),
            connected: 0,
            connected_at: Vec::new(),
            chance: Chance::new(settings.seed),
            total: Observed::default(),
            recent: Observed::default(),
            killed: 0,
            outages: 0,
            days: Vec::new(),
            began_ms,
            began: Instant::now(),
        }
    }

    fn client(&self) -> Client {
        let config = Config::from_json(&self.config.to_string()).unwrap();
        Client::with_clock(&config, Arc::clone(&self.clock) as Arc<dyn Clock>).unwrap()
    }

    fn run(mut self, start: &dyn Fn(&str) -> Worker, see: &dyn Fn(&Value)) -> Value {
        let settings = self.settings;
        let companies = self.emulator.company_ids();
        // Creates the store before the workers open it.
        let client = self.client();
        let mut workers: Vec<Worker> =
            (0..settings.processes).map(|_| start(&self.task())).collect();
        let share = |per_year: f64| per_year * settings.interval_hours as f64 / YEAR_HOURS;
        let (mut outage_ends, mut simulated, mut mint) = (None, 0, Vec::new());
        for hour in (0..settings.hours).step_by(settings.interval_hours as usize) {
            let end = hour + settings.interval_hours;
            self.advance_to(hour);
            // A location without a token is unknown to callers: all that were minted.
            let complete = companies.iter().position(|company| mint.contains(company));
            let used =
                complete.unwrap_or(self.connected) * (settings.locations / settings.companies);
            let new = self.connect(&client, &companies, hour);
            mint.extend_from_slice(new);
            if outage_ends.is_some_and(|end| hour >= end) {
                self.faults.end_outage(&self.emulator);
                outage_ends = None;
            }
            let is_quiet = outage_ends.is_none() && hour >= 48 && hour + 24 < settings.hours;
            if is_quiet && self.chance.is_so(share(settings.outages)) {
                self.faults.begin_outage(&self.emulator);
                outage_ends = Some(hour + settings.outage_hours);
                self.outages += 1;
            }
            let victim = (hour >= 24 && self.chance.is_so(share(settings.kills)))
                .then(|| self.chance.below(workers.len()));
            mint = self.interval(&mut workers, &mint, used, victim, start);
            simulated = end;
            let every = if settings.hours <= 96 { 1 } else { 24 * (settings.hours / 1440).max(1) };
            if end % every < settings.interval_hours {
                self.end_day(end);
                see(&self.figures(end));
            }
            if self.began.elapsed() > settings.limit {
                break;
            }
        }
        drop(workers);
        drop(client);
        let mut figures = self.figures(simulated);
        for (name, value) in self.audit() {
            figures[name] = value;
        }
        figures["lockFiles"] = self.files.lock_files().into();
        figures
    }

    /// Moves all clocks to the beginning of this hour.
    fn advance_to(&self, hour: i64) {
        let shows_ms = self.began_ms + hour * HOUR_MS;
        self.clock.set(Setting { shows_ms, at: self.clock.system.uptime() });
        self.emulator.clock().set_ms(shows_ms);
    }

    /// Connects the companies of this interval; all have connected after a day.
    fn connect<'c>(&mut self, client: &Client, companies: &'c [String], hour: i64) -> &'c [String] {
        let hours = (hour + self.settings.interval_hours).min(24) as usize;
        let new = &companies[self.connected..companies.len() * hours / 24];
        for company in new {
            stage::connect(client, &self.emulator, Decision::Company(company.clone()));
            self.connected_at.push(hour);
        }
        self.connected += new.len();
        new
    }

    /// Lets all processes work. `victim` is the process to be killed and started again. Returns the
    /// companies for which some mints have failed.
    fn interval(
        &mut self,
        workers: &mut [Worker],
        mint: &[String],
        used: usize,
        victim: Option<usize>,
        start: &dyn Fn(&str) -> Worker,
    ) -> Vec<String> {
        let setting = self.clock.setting();
        let processes = workers.len();
        let of = |number: usize| {
            let mint = mint.iter().skip(number).step_by(processes).cloned().collect();
            json!(Interval { setting, mint, used }).to_string()
        };
        for (number, worker) in workers.iter_mut().enumerate() {
            worker.say(&of(number));
        }
        if let Some(number) = victim {
            thread::sleep(Duration::from_millis(self.chance.below(100) as u64));
            // Like a service manager: the process starts again at once, and begins with a pass.
            workers[number] = start(&self.task());
            workers[number].say(&of(number));
            self.killed += 1;
        }
        let mut unminted = Vec::new();
        for worker in workers {
            let line = loop {
                let line = worker.line();
                assert!(!line.contains("panicked"), "a worker failed: {line}");
                // The test harness prints lines of its own.
                if line.starts_with('{') {
                    break line;
                }
            };
            let mut observed: Observed = serde_json::from_str(&line).unwrap();
            unminted.append(&mut observed.unminted);
            self.total.add(&observed);
            self.recent.add(&observed);
        }
        unminted
    }

    fn task(&mut self) -> String {
        let task = Task {
            config: self.config.clone(),
            locations: self.locations.clone(),
            speed: self.settings.speed,
            setting: self.clock.setting(),
            concurrency: self.settings.concurrency,
            callers: self.settings.callers,
            seed: self.chance.next(),
        };
        json!(task).to_string()
    }

    fn end_day(&mut self, hour: i64) {
        let recent = std::mem::take(&mut self.recent);
        let (tokens, log) = self.files.bytes();
        self.days.push(json!({
            "day": hour as f64 / 24.0,
            "refreshes": self.emulator.selected(self.faults.refreshes),
            "mints": self.emulator.selected(self.faults.mints),
            "longestMs": recent.longest_us / 1000,
            "residentKib": recent.resident_kib,
            "storeBytes": tokens,
            "logBytes": log,
        }));
    }

    /// The figures after this number of hours.
    fn figures(&self, hour: i64) -> Value {
        let settings = self.settings;
        let each = settings.locations / settings.companies;
        let tokens = self.connected * (each + 1);
        let refreshes = u64::from(self.emulator.selected(self.faults.refreshes));
        // A perfect client renews a token once in each life, just before its end.
        let (mut minimum, mut hours) = (0, 0);
        for connected_at in &self.connected_at {
            minimum += (hour - connected_at) * 3600 / LIFE_SECONDS * (each as i64 + 1);
            hours += (hour - connected_at) * (each as i64 + 1);
        }
        let per_year = |count: f64| rounded(count * YEAR_HOURS / hours as f64);
        let total = &self.total;
        json!({
            "store": settings.store.name(),
            "processes": settings.processes,
            "companies": self.connected,
            "locations": self.connected * each,
            "tokens": tokens,
            "days": hour as f64 / 24.0,
            "seed": settings.seed,
            "killed": self.killed,
            "outages": self.outages,
            "faults": self.faults.applied(&self.emulator),
            "requests": {
                "refresh": refreshes,
                "refreshMinimum": minimum,
                "refreshRatio": rounded(refreshes as f64 / minimum as f64),
                "refreshPerTokenAndYear": per_year(refreshes as f64),
                "refreshMinimumPerTokenAndYear": per_year(minimum as f64),
                "mint": self.emulator.selected(self.faults.mints),
                "mintMinimum": self.connected * each,
                "list": self.emulator.selected(self.faults.lists),
            },
            "callers": {
                "calls": total.calls,
                "longestMs": total.longest_us as f64 / 1000.0,
                "over100Ms": total.slow,
                "over1S": total.very_slow,
                "errors": total.errors,
                "messages": total.messages,
            },
            "maintenance": {"checked": total.checked, "failed": total.failed},
            "memory": {"largestProcessKib": total.resident_kib},
            "processorSeconds": {
                "workers": total.processor_us as f64 / 1e6,
                "emulator": processor_time().as_secs_f64(),
            },
            "realSeconds": self.began.elapsed().as_secs(),
            "series": self.days,
        })
    }

    /// Compares the store with the tokens that the server accepts.
    fn audit(&self) -> Map<String, Value> {
        let live = self.emulator.live_refresh_tokens();
        let live: HashMap<&str, &str> = live
            .iter()
            .map(|token| (token.refresh_token.as_str(), token.resource_id.as_str()))
            .collect();
        let client = self.client();
        let (mut stored, mut accepted) = (0, HashSet::new());
        let mut params = json!({"pageSize": 1000});
        loop {
            let wanted: ListParams = serde_json::from_value(params.clone()).unwrap();
            let page = client.tokens_export(&wanted).unwrap();
            for token in page["tokens"].as_array().unwrap() {
                stored += 1;
                let owner = token["locationId"].as_str().or(token["companyId"].as_str());
                let refresh_token = token["refreshToken"].as_str().unwrap_or_default();
                let access_token = token["accessToken"].as_str().unwrap();
                if live.get(refresh_token).copied() == owner
                    && self.emulator.access_token_is_live(access_token)
                {
                    accepted.insert(owner.unwrap().to_owned());
                }
            }
            if page["nextPageToken"].is_null() {
                break;
            }
            params["pageToken"] = page["nextPageToken"].clone();
        }
        let companies = self.emulator.company_ids().into_iter().take(self.connected);
        let each = self.settings.locations / self.settings.companies;
        let locations = self.emulator.location_ids().into_iter().take(self.connected * each);
        let lost: Vec<String> =
            companies.chain(locations).filter(|id| !accepted.contains(id)).collect();
        let Value::Object(audit) = json!({
            "stored": stored, "accepted": accepted.len(), "lost": lost.len(),
            "examples": lost.iter().take(5).collect::<Vec<_>>(),
        }) else {
            unreachable!("a JSON object")
        };
        audit
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
