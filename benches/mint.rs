//! Mints ten thousand locations under the rate limit, by one process and by two that share a store
//! and the limit: the time compared with the minimum that the limit allows, and the number of
//! refused requests.
//!
//! The window is a twentieth of the API's, 100 requests in half a second, so that the run takes one
//! minute instead of twenty; the overhead of the library per request weighs twenty times as much
//! here.

mod stage;

use std::env;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ghl_oauth::internals::{Client, Config};
use ghl_oauth_emulator::{Decision, Emulator, Options, RateLimit};
use serde_json::{Value, json};

const LOCATIONS: usize = 10_000;
const REQUESTS: u32 = 100;
const PER_MS: u64 = 500;

/// The environment variable with the configuration and the company of a child process.
const WORK: &str = "GHL_BENCH_MINT";

fn main() {
    if let Ok(work) = env::var(WORK) {
        let work: Value = serde_json::from_str(&work).unwrap();
        let client = Client::new(&Config::from_json(&work["config"].to_string()).unwrap()).unwrap();
        println!("{}", mint(&client, work["company"].as_str().unwrap()));
        return;
    }
    for processes in [1, 2] {
        run(processes);
    }
}

fn run(processes: usize) {
    let rate_limit = Some(RateLimit { requests: REQUESTS, per_ms: PER_MS, per_day: 1_000_000 });
    let emulator =
        Emulator::start(Options { locations: LOCATIONS, rate_limit, ..Options::default() })
            .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = json!({"kind": "sqlite", "path": folder.path().join("tokens.db")});
    let mut config = stage::configuration(&emulator, store);
    config["rateLimit"] = json!({"requests": REQUESTS, "perMs": PER_MS});
    let client = Client::new(&Config::from_json(&config.to_string()).unwrap()).unwrap();
    let company = emulator.company_id();
    stage::connect(&client, &emulator, Decision::Company(company.clone()));
    emulator.clear_requests();

    let began = Instant::now();
    let children: Vec<Child> = (0..processes)
        .map(|_| {
            Command::new(env::current_exe().unwrap())
                .env(WORK, json!({"config": config, "company": company}).to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let reports: Vec<Value> = children
        .into_iter()
        .map(|child| serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    let took = began.elapsed();

    let requests = emulator.requests();
    let refused = requests.iter().filter(|request| request.status == 429).count();
    let admitted = requests.len() - refused;
    // The first window is filled at once, and each further window waits for the previous one.
    let dictated =
        Duration::from_millis(PER_MS) * u32::try_from((admitted - 1) / REQUESTS as usize).unwrap();
    let over = took.as_secs_f64() / dictated.as_secs_f64() * 100.0 - 100.0;
    println!(
        "{LOCATIONS} locations, {processes} process(es): {took:.2?} for {admitted} requests, \
         {over:.2} % more than the limit dictates; {refused} refused"
    );
    for report in reports {
        println!(
            "  {} minted, {} fresh, {} failed",
            report["minted"],
            report["fresh"],
            report["failed"].as_array().unwrap().len()
        );
    }
}

fn mint(client: &Client, company: &str) -> Value {
    let params = json!({"companyId": company, "installed": true, "concurrency": 4});
    client.tokens_mint(serde_json::from_value(params).unwrap(), &|_| true).unwrap()
}
