//! A simulated year of a fleet with real processes: `cargo bench --bench year -- --help`.
//! Prints its figures as JSON; `benches/year/plot.py` draws them.

mod measure;
#[path = "../tests/postgres_server/mod.rs"]
mod postgres_server;
#[path = "year/simulation.rs"]
mod simulation;
mod stage;
#[path = "../tests/worker/mod.rs"]
mod worker;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;
use simulation::{Settings, Store, WORK, work};
use worker::Worker;

const HELP: &str = "\
Usage: cargo bench --bench year -- [OPTIONS]

  --store NAME        sqlite or postgres [default: sqlite]
  --processes N       Processes that share the store [default: 4]
  --companies N       Companies [default: 100]
  --locations N       Locations of all companies [default: 2000]
  --days N            Simulated days [default: 365]
  --hours N           Simulated hours, instead of days
  --interval-hours N  Time between two maintenance passes [default: 1]
  --concurrency N     Concurrent renewals of each process [default: 16]
  --callers N         Callers of each process [default: 2]
  --lost X            Share of responses that are lost [default: 0.01]
  --errors X          Share of responses that are errors [default: 0.05]
  --kills N           Killed processes per year [default: 200]
  --outages N         Outages of the API per year [default: 2]
  --outage-hours N    The length of an outage [default: 3]
  --speed N           Speed of the clocks within an interval [default: 5]
  --seed N            Seed [default: 1]
  --minutes N         Real time after which the simulation ends early [default: no limit]
  --folder PATH       Folder for the SQLite store [default: a temporary one]
  --out FILE          Write the figures to this file as well, after each simulated day";

fn main() {
    if let Ok(task) = env::var(WORK) {
        return work(&task);
    }
    let mut settings = Settings::default();
    let (mut folder, mut out) = (None, None);
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(name) = arguments.next() {
        if name == "--help" {
            return println!("{HELP}");
        }
        let value = arguments.next().unwrap_or_else(|| panic!("{name} needs a value\n{HELP}"));
        match name.as_str() {
            "--store" => {
                settings.store = match value.as_str() {
                    "sqlite" => Store::Sqlite,
                    "postgres" => Store::Postgres,
                    _ => panic!("unknown store {value}\n{HELP}"),
                }
            }
            "--processes" => settings.processes = number(&value),
            "--companies" => settings.companies = number(&value),
            "--locations" => settings.locations = number(&value),
            "--days" => settings.hours = 24 * number::<i64>(&value),
            "--hours" => settings.hours = number(&value),
            "--interval-hours" => settings.interval_hours = number(&value),
            "--concurrency" => settings.concurrency = number(&value),
            "--callers" => settings.callers = number(&value),
            "--lost" => settings.lost = number(&value),
            "--errors" => settings.errors = number(&value),
            "--kills" => settings.kills = number(&value),
            "--outages" => settings.outages = number(&value),
            "--outage-hours" => settings.outage_hours = number(&value),
            "--speed" => settings.speed = number(&value),
            "--minutes" => settings.limit = Duration::from_secs(60 * number::<u64>(&value)),
            "--seed" => settings.seed = number(&value),
            "--folder" => folder = Some(PathBuf::from(value)),
            "--out" => out = Some(PathBuf::from(value)),
            _ => panic!("unknown option {name}\n{HELP}"),
        }
    }
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = folder.unwrap_or_else(|| temporary.path().to_owned());
    let start =
        |task: &str| Worker::start(Command::new(env::current_exe().unwrap()).env(WORK, task));
    let see = |figures: &Value| save(out.as_deref(), figures);
    let figures = simulation::run(&settings, &folder, &start, &see).expect("PostgreSQL is needed");
    save(out.as_deref(), &figures);
    println!("{figures}");
    assert_eq!(figures["lost"], 0, "connections were lost");
}

fn number<T: FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a valid number\n{HELP}"))
}

/// Reports progress on standard error, and writes the figures so far.
fn save(out: Option<&Path>, figures: &Value) {
    eprintln!(
        "day {:.0} after {} s: {} refreshes, longest wait {} ms",
        figures["days"].as_f64().unwrap_or_default(),
        figures["realSeconds"],
        figures["requests"]["refresh"],
        figures["callers"]["longestMs"],
    );
    if let Some(out) = out {
        fs::write(out, figures.to_string() + "\n").unwrap();
    }
}
