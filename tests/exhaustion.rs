//! Exhausted resources: every call works or fails with a retryable error that says what is
//! exhausted, and no token is lost.
//!
//! The worker is this program, started again by a shell that lowers its limit of open files.
#![cfg(target_os = "linux")]

mod postgres_server;
mod support;

use std::env;
use std::fs::File;
use std::io::Write;
use std::process::Command;

use ghl_oauth::Status;
use ghl_oauth_emulator::Emulator;
use serde_json::{Value, json};

use support::{Abi, DAY, Outcome, config, emulator, free_port};

const WORKER: &str = "GHL_TEST_EXHAUSTION_WORKER";

/// The largest number of free descriptors in a round; with more, every call works.
const MOST_FREE: usize = 12;

/// The names of the calls and their outcomes.
type Outcomes = Vec<(&'static str, Outcome)>;

/// Opens files until no descriptor is free, then closes `free` of them.
fn exhaust(free: usize) -> Vec<File> {
    let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    files.truncate(files.len().checked_sub(free).unwrap());
    files
}

/// One round of calls. `abi` has been used before; other clients are created on the way.
fn calls(abi: &Abi, work: &Value) -> Outcomes {
    let id = |name: &str| work[name].as_str().unwrap().to_owned();
    let (company, location) = (id("company"), id("location"));
    let mut outcomes = vec![
        ("refresh", abi.token_refresh(&company)),
        ("token", abi.access_token(&company)),
        ("list", abi.tokens_list(json!({}))),
        ("locations", abi.oauth_installed_locations(json!({"companyId": company}))),
        (
            "request",
            abi.request(json!({
                "method": "POST", "path": format!("/locations/{location}"), "resourceId": location,
            })),
        ),
        ("delete", abi.token_delete(&location)),
        ("mint", abi.access_token(&location)),
        ("mint all", abi.tokens_mint(json!({"companyId": company, "installed": true}), |_| true)),
        ("maintain", abi.tokens_maintain(json!({}), |_| true)),
        (
            "listen",
            abi.authorization_listen(json!({
                "redirectUri": format!("http://127.0.0.1:{}/callback", work["port"]),
                "timeoutMs": 100,
            })),
        ),
    ];
    match Abi::open(&work["config"]) {
        Err(outcome) => outcomes.push(("open", outcome)),
        Ok(other) => outcomes.push(("token of a new client", other.access_token(&company))),
    }
    outcomes
}

/// Not a test: with a configuration in the environment, this process is the worker.
#[test]
fn work() {
    let Ok(work) = env::var(WORKER) else { return };
    let work: Value = serde_json::from_str(&work).unwrap();
    for free in 0..=MOST_FREE {
        let abi = Abi::open(&work["config"]).map_err(|error| error.1).unwrap();
        let files = exhaust(free);
        let outcomes = calls(&abi, &work);
        drop(files);
        for (name, Outcome(code, document)) in outcomes {
            let error = if code == 0 { Value::Null } else { document["error"].clone() };
            println!("\nreport {}", json!([free, name, code, error, document["failed"]]));
        }
        // With descriptors, the same client works.
        for (name, outcome) in calls(&abi, &work) {
            match name {
                "listen" => drop(outcome.fails(Status::Timeout)),
                _ => drop(outcome.ok()),
            }
        }
    }
    println!("\nreport \"done\"");
}

/// Runs the worker. Returns its reports.
fn run(emulator: &Emulator, store: Value) -> Vec<Value> {
    let config = config(
        emulator,
        json!({
            // A host name, which needs a lookup.
            "baseUrl": emulator.base_url().replace("127.0.0.1", "localhost"),
            "store": store,
            "retry": {"maxAttempts": 1},
            "timeouts": {"totalMs": 10_000},
        }),
    );
    let abi = Abi::open(&config).map_err(|error| error.1).unwrap();
    let company = abi.connect_company(emulator);
    drop(abi);
    emulator.clock().advance(DAY);
    let work = json!({
        "config": config, "company": company, "location": emulator.location_ids()[0],
        "port": free_port(),
    });
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["work", "--exact", "--nocapture", "--test-threads=1"])
        .env(WORKER, work.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let reports: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("report "))
        .map(|report| serde_json::from_str(report).unwrap())
        .collect();
    assert_eq!(
        reports.last(),
        Some(&json!("done")),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    reports
}

/// Asserts that the error of a call is retryable and names the limit.
#[track_caller]
fn names_the_limit(error: &Value, report: &Value) {
    assert_eq!(error["retryable"], true, "{report}");
    assert!(error["help"].as_str().unwrap().contains("limit of open files"), "{report}");
    let status = error["status"].as_str().unwrap();
    assert!(["GHL_ERR_NETWORK", "GHL_ERR_STORE"].contains(&status), "{report}");
    assert_ne!(error["sent"], true, "{report}");
}

/// Every call of the worker fails with the right advice or works.
fn every_call_works_or_names_the_limit(store: Value) {
    let emulator = emulator(1);
    // The worker asserts that every call works again as soon as there are descriptors.
    let reports = run(&emulator, store);
    let mut failed = Vec::new();
    for report in &reports[..reports.len() - 1] {
        let (name, error) = (report[1].as_str().unwrap(), &report[3]);
        let is_expected = name == "listen" && error["status"] == "GHL_ERR_TIMEOUT";
        if !error.is_null() && !is_expected {
            names_the_limit(error, report);
            failed.push((report[0].as_u64().unwrap(), name.to_owned()));
        }
        for item in report[4].as_array().into_iter().flatten() {
            names_the_limit(&item["error"], report);
        }
    }
    for name in ["refresh", "mint", "listen", "open"] {
        assert!(failed.contains(&(0, name.to_owned())), "{name} needs a descriptor: {failed:?}");
    }
}

#[test]
fn call_without_free_descriptors_works_or_names_the_limit_with_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    every_call_works_or_names_the_limit(
        json!({"kind": "sqlite", "path": folder.path().join("tokens.db")}),
    );
}

#[test]
fn call_without_free_descriptors_works_or_names_the_limit_with_postgres() {
    let Some(server) = postgres_server::shared() else { return };
    let database = server.database();
    every_call_works_or_names_the_limit(json!({"kind": "postgres", "url": database.url()}));
}

/// A small file system; unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Prints a note if it cannot be mounted.
    fn new() -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(folder.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(folder));
        }
        println!("skipped: a full disk, which needs a mount (run the tests as root on Linux)");
        None
    }

    /// Fills all free space.
    fn fill(&self) {
        let filler = self.0.path().join("filler");
        let mut filler = File::options().create(true).append(true).open(filler).unwrap();
        for size in [4096, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn refresh_does_not_start_unless_its_new_token_certainly_fits_on_the_disk() {
    let Some(disk) = SmallDisk::new() else { return };
    let emulator = emulator(1);
    let path = disk.0.path().join("tokens.db");
    let config = config(&emulator, json!({"store": {"kind": "sqlite", "path": path}}));
    let abi = Abi::open(&config).map_err(|error| error.1).unwrap();
    let company = abi.connect_company(&emulator);
    let filler = disk.0.path().join("filler");
    let reader = rusqlite::Connection::open(&path).unwrap();
    let (mut started, mut refused) = (0, 0);
    for pages in 0..40 {
        // The WAL is empty, and the reader keeps it from being reused: only the free pages count.
        let _ = reader.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        reader.execute_batch("BEGIN; SELECT COUNT(*) FROM token").unwrap();
        disk.fill();
        let file = File::options().write(true).open(&filler).unwrap();
        file.set_len(file.metadata().unwrap().len().saturating_sub(pages * 4096)).unwrap();
        drop(file);
        let sent = emulator.refreshes();
        let outcome = abi.token_refresh(&company);
        if outcome.0 == 0 {
            started += 1;
            assert_eq!(outcome.ok()["state"], "ok", "{pages} free pages");
        } else {
            refused += 1;
            let error = outcome.fails(Status::Store);
            assert_eq!(emulator.refreshes(), sent, "{pages} free pages: {error}");
            assert_eq!(error["retryable"], true, "{error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("is full"), "{error}");
            assert!(message.contains(path.to_str().unwrap()), "{error}");
            let help = error["help"].as_str().unwrap();
            assert!(help.contains("free disk space"), "{error}");
            assert!(help.contains(disk.0.path().to_str().unwrap()), "{error}");
        }
        reader.execute_batch("ROLLBACK").unwrap();
        let intents =
            "SELECT COUNT(*) FROM token WHERE instr(CAST(document AS TEXT), '\"sinceMs\"')";
        let intents: i64 = reader.query_row(intents, [], |row| row.get(0)).unwrap();
        assert_eq!(intents, 0, "{pages} free pages: an intent without a request");
        std::fs::remove_file(&filler).unwrap();
        abi.token_refresh(&company).ok();
    }
    assert!(started > 5 && refused > 5, "{started} started, {refused} refused");
}

#[test]
fn full_disk_is_a_retryable_store_error_with_advice() {
    let Some(disk) = SmallDisk::new() else { return };
    let emulator = emulator(1);
    let at = |name: &str| {
        config(&emulator, json!({"store": {"kind": "sqlite", "path": disk.0.path().join(name)}}))
    };
    let abi = Abi::open(&at("tokens.db")).map_err(|error| error.1).unwrap();
    let company = abi.connect_company(&emulator);
    disk.fill();
    let database = rusqlite::Connection::open(disk.0.path().join("tokens.db")).unwrap();
    let _ = database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    drop(database);
    disk.fill();
    for outcome in [
        abi.token_refresh(&company),
        abi.token_delete(&company),
        Abi::open(&at("other.db")).err().expect("no space for a new database"),
    ] {
        let error = outcome.fails(Status::Store);
        assert_eq!((&error["retryable"], &error["sent"]), (&json!(true), &Value::Null), "{error}");
        assert!(error["help"].as_str().unwrap().contains("free disk space"), "{error}");
    }
    std::fs::remove_file(disk.0.path().join("filler")).unwrap();
    abi.token_refresh(&company).ok();
    Abi::open(&at("other.db")).map_err(|error| error.1).unwrap();
}
