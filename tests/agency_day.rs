//! A day of an agency: at its end the library holds every connection that the API accepts. Three
//! programs in C, C++ and Python, written from the README, must achieve the same against the
//! emulator's program.
//!
//! The client reads the emulator's clock, for deadlines and the rate limiter as well. A daily quota
//! that is used up renews when the clock steps past midnight.

mod built;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::internals::clock::Clock;
use ghl_oauth_emulator::{
    Decision, Emulator, Happened, InstallationState, Options, RateLimit, Scenario, ScenarioPhase,
    Signature, UserType,
};
use serde_json::{Value, json};

use support::{Abi, signed};

/// Noon. The daily quota is used up at 22:00 and renews at midnight.
const NOON_MS: i64 = 20_000 * 86_400_000 + 43_200_000;

/// The interval of the host's maintenance.
const MAINTENANCE_MS: i64 = 10 * 60_000;

/// The emulator's clock as the client's only clock, for deadlines and the rate limiter as well.
struct SteppedClock {
    clock: ghl_oauth_emulator::Clock,
    started_ms: i64,
}

impl SteppedClock {
    fn passed(&self) -> Duration {
        Duration::from_millis(self.clock.now_ms().saturating_sub(self.started_ms).unsigned_abs())
    }
}

impl Clock for SteppedClock {
    fn wall_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn uptime(&self) -> Duration {
        self.passed()
    }

    fn monotonic(&self) -> Duration {
        self.passed()
    }
}

/// A host program: its client and its event log.
struct Host {
    client: Abi,
    emulator: Emulator,
    maintained_ms: i64,
    /// The number of failed calls by error name.
    failures: BTreeMap<String, u32>,
    /// The events and results of each resource, for failure messages.
    diary: BTreeMap<String, Vec<String>>,
}

impl Host {
    fn new(folder: &Path, options: Options) -> Host {
        let emulator = Emulator::start(options).unwrap();
        emulator.clock().set_ms(NOON_MS);
        let clock = Arc::new(SteppedClock { clock: emulator.clock(), started_ms: NOON_MS });
        let store = json!({"kind": "sqlite", "path": folder.join("tokens.db")});
        // The client would wait in real time for the interval limit; this test is about the daily
        // limit.
        let changes = json!({"store": store, "rateLimit": {"requests": 1_000_000}});
        let client = Abi::by(&emulator, changes, clock);
        Host {
            client,
            emulator,
            maintained_ms: NOON_MS,
            failures: BTreeMap::new(),
            diary: BTreeMap::new(),
        }
    }

    fn connect(&self, company_id: &str) {
        self.client.connect(&self.emulator, Decision::Company(company_id.to_owned()));
        self.client.tokens_mint(json!({"companyId": company_id, "installed": true}), |_| true).ok();
    }

    /// The host's scheduler: runs maintenance once ten minutes have passed.
    fn maintain_if_due(&mut self) {
        let now_ms = self.emulator.clock().now_ms();
        if now_ms - self.maintained_ms >= MAINTENANCE_MS {
            self.maintained_ms = now_ms;
            self.maintain();
        }
    }

    fn maintain(&mut self) -> Value {
        let report = self.client.tokens_maintain(json!({}), |_| true).ok();
        for failed in report["failed"].as_array().unwrap() {
            let name = failed["error"]["status"].as_str().unwrap().to_owned();
            self.note(
                failed["resourceId"].as_str().unwrap_or_default(),
                &format!("maintenance: {}", failed["error"]),
            );
            if name == "GHL_ERR_REAUTHORIZATION_REQUIRED" {
                let installations = self.emulator.installations();
                let one = installations.iter().find(|one| failed["resourceId"] == one.resource_id);
                assert_ne!(one.map(|one| one.state), Some(InstallationState::Honoured), "{failed}");
            }
            *self.failures.entry(name).or_default() += 1;
        }
        report
    }

    /// The host's webhook endpoint: the vendor repeats a delivery until it succeeds.
    fn receive(&mut self, resource_id: &str, body: &str) {
        let headers = signed(&self.emulator, body.as_bytes(), Signature::Ed25519);
        for _ in 0..10 {
            let outcome = self.client.webhook_apply(body.as_bytes(), &headers);
            self.note(resource_id, &format!("webhook {body}: {}", outcome.1));
            if outcome.0 == 0 {
                return;
            }
            assert_eq!(outcome.1["error"]["retryable"], true, "{body}: {}", outcome.1);
        }
        panic!("the delivery fails repeatedly: {body}");
    }

    fn note(&mut self, resource_id: &str, what: &str) {
        let at = self.emulator.clock().now_ms() - NOON_MS;
        let entry = format!("{:>6} s: {what}", at / 1000);
        self.diary.entry(resource_id.to_owned()).or_default().push(entry);
    }

    /// The event log of a resource, one event per line.
    fn story(&self, resource_id: &str) -> String {
        self.diary.get(resource_id).map(|lines| lines.join("\n")).unwrap_or_default()
    }

    /// The state of every listed resource.
    fn held(&self) -> BTreeMap<String, String> {
        let mut held = BTreeMap::new();
        let mut page_token = Value::Null;
        loop {
            let page =
                self.client.tokens_list(json!({"pageSize": 1000, "pageToken": page_token})).ok();
            for item in page["items"].as_array().unwrap() {
                let text = |name: &str| item[name].as_str().unwrap().to_owned();
                held.insert(text("resourceId"), text("state"));
            }
            page_token = page["nextPageToken"].clone();
            if page_token.is_null() {
                return held;
            }
        }
    }
}

fn options(seed: u64) -> Options {
    Options {
        seed,
        rate_limit: Some(RateLimit { requests: 1_000_000, ..RateLimit::default() }),
        ..Scenario::AgencyDay.options()
    }
}

#[test]
fn every_connection_accepted_by_the_api_is_held_after_an_agencys_day() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::new(folder.path(), options(1));
    let companies = host.emulator.company_ids();
    for company_id in &companies {
        host.connect(company_id);
    }
    host.emulator.start_scenario(Scenario::AgencyDay, None).unwrap();
    let mut happened = BTreeSet::new();
    while let Some(happening) = host.emulator.step_scenario().unwrap() {
        happened.insert(happening.what);
        let resource_id = happening.resource_id.as_deref().unwrap_or_default();
        host.note(resource_id, &format!("{:?}", happening.what));
        if let Some(body) = &happening.webhook {
            host.receive(resource_id, body);
        }
        // A user of the location. Some of these calls fail while the API does.
        if !resource_id.is_empty() {
            let outcome = host.client.access_token(resource_id);
            if outcome.0 != 0 {
                host.note(resource_id, &format!("call: {}", outcome.1["error"]["message"]));
            }
        }
        host.maintain_if_due();
    }
    assert_eq!(host.emulator.scenario().unwrap().phase, ScenarioPhase::Finished);
    assert!(
        happened.contains(&Happened::QuotaSpent) && happened.contains(&Happened::DeliveredAgain)
    );
    let report = host.maintain();
    assert_eq!(
        report["failed"].as_array().unwrap().len(),
        0,
        "maintenance at the end of the day: {report}"
    );

    let held = host.held();
    let mut counts = BTreeMap::new();
    for one in host.emulator.installations() {
        let (id, state) = (&one.resource_id, held.get(&one.resource_id).map(String::as_str));
        *counts.entry(format!("{:?} {:?}", one.user_type, one.state)).or_insert(0) += 1;
        match one.state {
            InstallationState::Honoured => {
                assert_eq!(state, Some("ok"), "{id} is honoured by the API\n{}", host.story(id));
                host.client.live_token(&host.emulator, id);
            }
            InstallationState::Paused => assert!(
                matches!(state, Some("ok" | "inactive")),
                "{id} is paused, and its token is kept: {state:?}\n{}",
                host.story(id)
            ),
            InstallationState::NotInstalled => {
                assert_eq!(state, None, "{id} was uninstalled\n{}", host.story(id))
            }
        }
    }
    let of = |name: &str| counts.get(name).copied().unwrap_or(0);
    let location = UserType::Location;
    assert_eq!(of(&format!("{:?} Honoured", UserType::Company)), 2);
    assert_eq!(of(&format!("{location:?} NotInstalled")), 15);
    assert_eq!(of(&format!("{location:?} Paused")), 10);
    assert_eq!(of(&format!("{location:?} Honoured")), 500 + 500 + 30 - 15 - 10);
    assert!(
        host.failures.contains_key("GHL_ERR_RATE_LIMITED"),
        "no call was refused by the used-up quota: {:?}",
        host.failures
    );
}

// ---- Programs against the emulator's program ----------------------------------------------------

/// The duration of a program's day in real time.
const DAY_SECONDS: u64 = 20;

/// The limit for the whole day of a program.
const PATIENCE: Duration = Duration::from_secs(180);

/// A child process that is killed when the value is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the emulator's program. Returns its address and the configuration that it prints.
fn emulator_program(webhook_port: u16) -> (Process, String, Value) {
    let mut emulator = Command::new(built::emulator());
    emulator.args(["--port", "0", "--scenario", "agency-day", "--locations", "60"]);
    emulator.args(["--day-seconds", &DAY_SECONDS.to_string()]);
    emulator.args(["--webhook-url", &format!("http://127.0.0.1:{webhook_port}/webhooks")]);
    let mut child = Process(emulator.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let base_url = first.split_whitespace().last().unwrap().to_owned();
    lines.find(|line| line.starts_with("Configuration for ghl-oauth")).unwrap();
    let config: String = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let config = serde_json::from_str(&config).unwrap();
    // Drain later output, so that it cannot fill the pipe.
    thread::spawn(move || lines.for_each(drop));
    (child, base_url, config)
}

/// Sends a request to the emulator's control API.
fn control(base_url: &str, method: &str, path: &str, body: &str) -> Value {
    let host = base_url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(host).unwrap();
    let length = body.len();
    write!(
        connection,
        "{method} /_emulator{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
}

/// Returns the rest of the next output line that begins with `word`.
fn next(output: &mut BufReader<ChildStdout>, word: &str, log: &Path) -> String {
    loop {
        let mut line = String::new();
        let count = output.read_line(&mut line).unwrap();
        assert!(count > 0, "it ended: {}", fs::read_to_string(log).unwrap());
        if let Some(rest) = line.strip_prefix(word) {
            return rest.trim().to_owned();
        }
    }
}

/// Runs `program CONFIG-FILE PORT` through a day and consents for both companies. At the end the
/// locations that it could call must be the locations whose tokens the emulator accepts.
fn survives_the_day(mut program: Command) {
    let folder = tempfile::tempdir().unwrap();
    let port = support::free_port();
    let (_emulator, base_url, mut config) = emulator_program(port);
    config["store"] = json!({"kind": "sqlite", "path": folder.path().join("tokens.db")});
    let (config_path, log_path) = (folder.path().join("config.json"), folder.path().join("log"));
    fs::write(&config_path, config.to_string()).unwrap();
    program.arg(&config_path).arg(port.to_string()).env("LD_LIBRARY_PATH", built::folder());
    program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&log_path).unwrap());
    let mut server = Process(program.spawn().unwrap());
    let mut input = server.0.stdin.take().unwrap();
    let mut output = BufReader::new(server.0.stdout.take().unwrap());

    let ledger = || {
        control(&base_url, "GET", "/installations", "")["installations"].as_array().unwrap().clone()
    };
    let company = |one: &Value| one["userType"] == "Company";
    let mut companies: Vec<Value> =
        ledger().iter().filter(|one| company(one)).map(|one| one["resourceId"].clone()).collect();
    // The first company connects last, which starts the day.
    companies.reverse();
    assert_eq!(companies.len(), 2);
    for company_id in companies {
        let link = next(&mut output, "link ", &log_path);
        let decision = json!({"url": link, "companyId": company_id}).to_string();
        let answer = control(&base_url, "POST", "/consent", &decision);
        writeln!(input, "{}", answer["redirectUrl"].as_str().unwrap()).unwrap();
        assert_eq!(next(&mut output, "connected ", &log_path), company_id.as_str().unwrap());
    }
    let began = Instant::now();
    while control(&base_url, "GET", "/scenario", "")["phase"] != "finished" {
        assert!(began.elapsed() < PATIENCE, "the day does not end");
        thread::sleep(Duration::from_millis(200));
    }
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let log = fs::read_to_string(&log_path).unwrap();
    assert!(server.0.wait().unwrap().success(), "{log}");

    let visited: BTreeSet<&str> = rest
        .lines()
        .filter_map(|line| line.strip_prefix("visited ")?.strip_suffix(" 200"))
        .collect();
    let ledger = ledger();
    let honoured: BTreeSet<&str> = ledger
        .iter()
        .filter(|one| one["state"] == "honoured" && !company(one))
        .map(|one| one["resourceId"].as_str().unwrap())
        .collect();
    assert!(honoured.len() > 100, "{}", honoured.len());
    let differ: Vec<_> = honoured.symmetric_difference(&visited).collect();
    assert!(differ.is_empty(), "{differ:?}\n{log}");
}

#[test]
fn c_program_written_from_the_readme_holds_every_connection_after_an_agencys_day() {
    let folder = tempfile::tempdir().unwrap();
    survives_the_day(Command::new(built::program("tests/agency_day/agency.c", folder.path())));
}

#[test]
fn cpp_program_written_from_the_readme_holds_every_connection_after_an_agencys_day() {
    let folder = tempfile::tempdir().unwrap();
    survives_the_day(Command::new(built::program("tests/agency_day/agency.cpp", folder.path())));
}

#[test]
fn python_program_written_from_the_readme_holds_every_connection_after_an_agencys_day() {
    let mut python = Command::new("python3");
    python.arg(Path::new(built::ROOT).join("tests/agency_day/agency.py"));
    python.env("PYTHONPATH", Path::new(built::ROOT).join("bindings/python/src"));
    python.env("GHL_OAUTH_LIBRARY", built::library()).env("PYTHONDONTWRITEBYTECODE", "1");
    survives_the_day(python);
}
