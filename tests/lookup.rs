//! Name resolution in a process that cannot start threads.
//!
//! The worker is this program, started again with a stack size for new threads that exceeds the
//! address space, or as another user with a limit of one thread. The system therefore refuses every
//! thread, and the test of the worker runs on its main thread.
#![cfg(target_os = "linux")]

mod support;

use std::env;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use ghl_oauth::Status;
use serde_json::{Value, json};
use support::{Abi, Outcome, config, emulator};

const WORKER: &str = "GHL_TEST_LOOKUP_WORKER";

/// Not a test: with a configuration in the environment, this process is the worker.
#[test]
fn work() {
    let Ok(work) = env::var(WORKER) else { return };
    let work: Value = serde_json::from_str(&work).unwrap();
    let has_threads = std::thread::Builder::new().spawn(|| {}).is_ok();
    let abi = Abi::open(&work["config"]).map_err(|error| error.1).unwrap();
    let (company, location) =
        (work["company"].as_str().unwrap(), work["location"].as_str().unwrap());
    let outcome = |Outcome(code, document)| json!([code, document]);
    let report = json!({
        "hasThreads": has_threads,
        "token": outcome(abi.access_token(company)),
        "refresh": outcome(abi.token_refresh(company)),
        "mint": outcome(abi.access_token(location)),
        "mintAll": outcome(abi.tokens_mint(json!({
            "companyId": company, "installed": true,
        }), |_| true)),
    });
    println!("\nreport {report}");
}

/// How the system refuses threads.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Threads {
    Allowed,
    /// Their stack exceeds the address space.
    TooLarge,
    /// The user has reached its limit.
    TooMany,
}

/// A user without processes, for the limit of threads, which does not apply to root.
const NOBODY: u32 = 65_534;

fn run(work: &Value, threads: Threads) -> Value {
    let program = env::current_exe().unwrap();
    let mut command = match threads {
        Threads::TooMany => Command::new("setpriv"),
        _ => Command::new(&program),
    };
    if threads == Threads::TooMany {
        let nobody = NOBODY.to_string();
        command
            .args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"])
            .args(["prlimit", "--nproc=1"])
            .arg(&program);
    }
    command
        .args(["work", "--exact", "--nocapture", "--test-threads=1"])
        .env(WORKER, work.to_string());
    if threads == Threads::TooLarge {
        command.env("RUST_MIN_STACK", (1_u64 << 47).to_string());
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report = text.lines().find_map(|line| line.strip_prefix("report "));
    let report =
        report.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(report).unwrap()
}

#[test]
fn process_that_cannot_start_threads_returns_the_valid_token_or_a_network_error() {
    let emulator = emulator(1);
    let folder = tempfile::tempdir().unwrap();
    // A host name, which needs a lookup.
    let changes = json!({
        "baseUrl": emulator.base_url().replace("127.0.0.1", "localhost"),
        "store": {"kind": "sqlite", "path": folder.path().join("tokens.db")},
        "timeouts": {"totalMs": 10_000},
    });
    let config = config(&emulator, changes);
    let abi = Abi::open(&config).map_err(|error| error.1).unwrap();
    let company = abi.connect_company(&emulator);
    // Due, but valid for another minute.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let mut page = abi.tokens_export(json!({})).ok();
    page["tokens"][0]["expiresAt"] = (now + 60_000).into();
    abi.tokens_import(json!({"tokens": page["tokens"], "replace": true})).ok();
    let token = page["tokens"][0]["accessToken"].as_str().unwrap();
    drop(abi);

    let work =
        json!({"config": config, "company": company, "location": emulator.location_ids()[0]});
    for threads in [Threads::TooLarge, Threads::TooMany] {
        if threads == Threads::TooMany && !give_to_nobody(folder.path()) {
            println!("skipped: a limit of threads, which needs root and setpriv");
            continue;
        }
        let report = run(&work, threads);
        assert_eq!(report["hasThreads"], false, "the worker cannot start threads");
        assert!(report["token"] == json!([0, token]), "the valid token is returned");
        for call in ["refresh", "mint", "mintAll"] {
            let error = &report[call][1]["error"];
            assert_eq!(report[call][0], Status::Network.code(), "{call}: {error}");
            assert_eq!(error["retryable"], true, "{call}: {error}");
            assert!(
                error["message"].as_str().unwrap().contains("nothing was sent"),
                "{call}: {error}"
            );
            assert!(
                error["help"].as_str().unwrap().contains("limit of threads"),
                "{call}: {error}"
            );
            assert_ne!(error["sent"], true, "{call}: {error}");
        }
    }
    assert_eq!(emulator.refreshes(), 0);

    // With threads the due token is refreshed and every call finds its server.
    let report = run(&work, Threads::Allowed);
    assert_eq!(report["hasThreads"], true);
    assert!(report["token"] != json!([0, token]), "a due token is refreshed");
    for call in ["token", "refresh", "mint", "mintAll"] {
        assert_eq!(report[call][0], 0, "{call}");
    }
}

/// Makes another user the owner of a store. Returns false if the system does not allow it.
fn give_to_nobody(folder: &Path) -> bool {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    for path in [folder.to_owned()].into_iter().chain(files) {
        if path.is_dir() && path != folder && !give_to_nobody(&path)
            || chown(&path, Some(NOBODY), Some(NOBODY)).is_err()
        {
            return false;
        }
    }
    Command::new("setpriv").arg("--version").output().is_ok()
}
