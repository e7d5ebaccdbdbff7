//! A short run of the simulated year of a fleet (`benches/year.rs`): 200 locations of 4 companies
//! for 20 days, with faults, an outage and killed processes.
//!
//! The workers are this program, started again with a task in its environment.

#[path = "../benches/measure/mod.rs"]
mod measure;
#[cfg(all(unix, feature = "postgres"))]
mod postgres_server;
#[path = "../benches/year/simulation.rs"]
mod simulation;
#[path = "../benches/stage/mod.rs"]
mod stage;
mod worker;

use std::env;
use std::process::Command;

use serde_json::Value;
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
        locations: 200,
        hours: 20 * 24,
        interval_hours: 3,
        // About two outages and ten killed processes in twenty days.
        outages: 40.0,
        kills: 200.0,
        speed: 10,
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
    assert_eq!((&figures["stored"], &figures["tokens"]), (&204.into(), &204.into()), "{figures}");
    // Callers had a valid token all the time, also in outages.
    assert_eq!(figures["callers"]["errors"], serde_json::json!({}), "{figures}");
    assert!(figures["killed"].as_u64().unwrap() > 0, "{figures}");
    assert!(figures["outages"].as_u64().unwrap() > 0, "{figures}");
    for (fault, count) in figures["faults"].as_object().unwrap() {
        assert!(count.as_u64().unwrap() > 0 || fault == "token of another owner", "no {fault}");
    }
    // 1.33 for the runway, 7 % faults, and the passes of several processes.
    let ratio = figures["requests"]["refreshRatio"].as_f64().unwrap();
    assert!((1.0..2.0).contains(&ratio), "{figures}");
}

#[test]
fn fleet_of_four_processes_loses_no_connection_in_twenty_days() {
    assert_complete(&run(Store::Sqlite, 4).unwrap());
}

#[cfg(all(unix, feature = "postgres"))]
#[test]
fn fleet_of_eight_processes_with_postgres_loses_no_connection_in_twenty_days() {
    if let Some(figures) = run(Store::Postgres, 8) {
        assert_complete(&figures);
    }
}
