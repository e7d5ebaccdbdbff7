//! A short run of the simulated year of a fleet (`benches/year.rs`): 100 locations of 4 companies
//! for 5 days, with faults, an outage and killed processes.
//!
//! The workers are this program, started again with a task in its environment.

#![cfg(all(unix, feature = "postgres"))]

#[path = "../benches/measure/mod.rs"]
mod measure;
mod postgres_server;
#[path = "../benches/year/simulation.rs"]
mod simulation;
#[path = "../benches/stage/mod.rs"]
mod stage;
mod worker;

use std::env;
use std::process::Command;

use serde_json::{Value, json};
use simulation::{Settings, Store, WORK};
use worker::Worker;

/// Not a test: with a task in the environment, this process is a worker.
#[test]
fn work() {
    if let Ok(task) = env::var(WORK) {
        simulation::work(&task);
    }
}

/// Runs the simulation; `None` without PostgreSQL.
fn run(store: Store, processes: usize) -> Option<Value> {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        store,
        processes,
        companies: 4,
        locations: 100,
        hours: 5 * 24,
        interval_hours: 2,
        // With this seed, one outage and three killed processes.
        outages: 100.0,
        outage_hours: 2,
        kills: 400.0,
        // Errors are rare, because the library pauses after each. With the real speed of all
        // clocks, a busy machine reaches no timeout.
        lost: 0.05,
        errors: 0.01,
        speed: 1,
        callers: 1,
        ..Settings::default()
    };
    let start = |task: &str| {
        let mut this = Command::new(env::current_exe().unwrap());
        Worker::start(this.args(["work", "--exact", "--nocapture"]).env(WORK, task))
    };
    simulation::run(&settings, folder.path(), &start, &|_| ())
}

fn assert_complete(figures: &Value) {
    assert_eq!(figures["lost"], 0, "{figures}");
    assert_eq!((&figures["stored"], &figures["tokens"]), (&104.into(), &104.into()), "{figures}");
    assert!(figures["killed"].as_u64().unwrap() > 0, "{figures}");
    assert!(figures["outages"].as_u64().unwrap() > 0, "{figures}");
    let faults = figures["faults"].as_object().unwrap().values().filter_map(Value::as_u64);
    assert!(faults.sum::<u64>() > 30, "{figures}");
    // In an outage, each process tries each token that is due.
    let count = |value: &Value| value.as_u64().unwrap() as f64;
    let in_outages = count(&figures["faults"]["firewall page in an outage"]);
    let passes = count(&figures["outages"]) * count(&figures["processes"]);
    assert!(in_outages < passes * 104.0, "{figures}");
    // Otherwise a token is renewed every 18 to 20 hours, and 6 % of the requests are repeated.
    let requests = &figures["requests"];
    let others = count(&requests["refresh"]) - in_outages;
    assert!((1.0..1.7).contains(&(others / count(&requests["refreshMinimum"]))), "{figures}");
}

#[test]
fn fleet_of_four_processes_loses_no_connection_in_five_days() {
    let figures = run(Store::Sqlite, 4).unwrap();
    assert_complete(&figures);
    // Callers had a valid token all the time, also in outages.
    assert_eq!(figures["callers"]["errors"], json!({}), "{figures}");
}

#[test]
fn fleet_of_eight_processes_with_postgres_loses_no_connection_in_five_days() {
    if let Some(figures) = run(Store::Postgres, 8) {
        assert_complete(&figures);
    }
}
