//! Name resolution in a process that cannot start threads, and in one whose environment asks std
//! for impossible stacks.
//!
//! The worker is this program, started again. To prevent threads, it installs a seccomp filter that
//! refuses them.
#![cfg(target_os = "linux")]

mod support;

use std::fs::{self, DirEntry};
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{env, io, thread};

use ghl_oauth::Status;
use serde_json::{Value, json};
use support::{Abi, Outcome, config, emulator};

const WORKER: &str = "GHL_TEST_LOOKUP_WORKER";
const STALLED_WORKER: &str = "GHL_TEST_STALLED_LOOKUP_WORKER";

/// Not a test: with a configuration in the environment, this process is the worker.
#[test]
fn work() {
    let Ok(work) = env::var(WORKER) else { return };
    let work: Value = serde_json::from_str(&work).unwrap();
    if work["withoutThreads"] == true {
        refuse_threads();
    }
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

/// Makes the system refuse new threads and processes of this thread, as a limit would.
fn refuse_threads() {
    let instruction = |code: u32, jumps: (u8, u8), value: u32| libc::sock_filter {
        code: code as u16,
        jt: jumps.0,
        jf: jumps.1,
        k: value,
    };
    let (load, equal, result) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let mut program = [
        // The number of the system call.
        instruction(load, (0, 0), 0),
        instruction(equal, (1, 0), libc::SYS_clone3 as u32),
        instruction(equal, (0, 1), libc::SYS_clone as u32),
        instruction(result, (0, 0), libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32),
        instruction(result, (0, 0), libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: a valid filter, which the kernel copies. It applies to this thread.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter), 0);
    }
}

/// Not a test: with a configuration in the environment, this process is a worker whose resolver
/// never answers.
#[test]
fn stalled_work() {
    let Ok(config) = env::var(STALLED_WORKER) else { return };
    let mut config: Value = serde_json::from_str(&config).unwrap();
    let abi = Abi::open(&config).map_err(|error| error.1).unwrap();
    let began = Instant::now();
    let request = || abi.request(json!({"method": "GET", "path": "/x"}));
    for _ in 0..3 {
        thread::scope(|scope| {
            let caller = scope.spawn(request);
            while lookup_threads() == 0 {
                assert!(!caller.is_finished(), "the lookup must wait");
                thread::yield_now();
            }
            abi.cancel_until(|| caller.is_finished());
            caller.join().unwrap().fails(Status::Cancelled);
        });
    }
    config["timeouts"]["totalMs"] = 300.into();
    let abi = Abi::open(&config).map_err(|error| error.1).unwrap();
    abi.request(json!({"method": "GET", "path": "/x"})).fails(Status::Timeout);
    println!("\nthreads {} seconds {}", lookup_threads(), began.elapsed().as_secs());
}

/// The number of threads that the library has started and that have not ended.
fn lookup_threads() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let name = |thread: io::Result<DirEntry>| fs::read_to_string(thread?.path().join("comm"));
    threads.filter_map(|thread| name(thread).ok()).filter(|name| name.trim() == "ghl-oauth").count()
}

#[test]
fn call_whose_lookup_stalls_can_be_cancelled_and_leaves_one_thread_per_name() {
    // A name server that never answers. Its port and the worker's file system need root.
    let Ok(_server) = UdpSocket::bind("127.0.0.98:53") else {
        println!("skipped: a name server on port 53 (run as root)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let resolver = folder.path().join("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.98\noptions timeout:30 attempts:1\n").unwrap();
    let hide = "mount --bind \"$0\" /etc/resolv.conf || exit 77; exec \"$@\"";
    let config = json!({
        "clientId": "app-1", "clientSecret": "some secret",
        "baseUrl": "https://api.stalled.example",
        "timeouts": {"connectMs": 60_000, "totalMs": 60_000},
    });
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", hide])
        .arg(&resolver)
        .arg(env::current_exe().unwrap())
        .args(["stalled_work", "--exact", "--nocapture"])
        .env(STALLED_WORKER, config.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code() == Some(77) || !output.status.success() && text.is_empty() {
        println!("skipped: a worker with its own resolv.conf (run as root, with util-linux)");
        return;
    }
    let report = text.lines().find_map(|line| line.strip_prefix("threads "));
    let report = report.unwrap_or_else(|| panic!("{text}"));
    let (threads, seconds) = report.split_once(" seconds ").unwrap();
    assert_eq!(threads, "1", "one lookup for all calls");
    // The resolver alone takes 30 s.
    assert!(seconds.parse::<u64>().unwrap() < 20, "{report}");
}

/// The report of a worker with this stack size for the threads of std.
fn run(work: &Value, std_stack: &str) -> Value {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["work", "--exact", "--nocapture", "--test-threads=1"])
        .env(WORKER, work.to_string())
        .env("RUST_MIN_STACK", std_stack);
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

    let mut work = json!({
        "config": config, "company": company, "location": emulator.location_ids()[0],
        "withoutThreads": true,
    });
    let report = run(&work, "2000000");
    assert_eq!(report["hasThreads"], false, "the worker cannot start threads");
    assert!(report["token"] == json!([0, token]), "the valid token is returned");
    for call in ["refresh", "mint", "mintAll"] {
        let error = &report[call][1]["error"];
        assert_eq!(report[call][0], Status::Network.code(), "{call}: {error}");
        assert_eq!(error["retryable"], true, "{call}: {error}");
        assert!(error["message"].as_str().unwrap().contains("nothing was sent"), "{call}: {error}");
        assert!(error["help"].as_str().unwrap().contains("limit of threads"), "{call}: {error}");
        assert_ne!(error["sent"], true, "{call}: {error}");
    }
    assert_eq!(emulator.refreshes(), 0);

    // With threads the due token is refreshed and every call finds its server.
    // The library does not read the stack size of std, which exceeds the address space.
    work["withoutThreads"] = false.into();
    let report = run(&work, "1000000000000000");
    assert_eq!(report["hasThreads"], false, "std reads the variable");
    assert!(report["token"] != json!([0, token]), "a due token is refreshed");
    for call in ["token", "refresh", "mint", "mintAll"] {
        assert_eq!(report[call][0], 0, "{call}");
    }
}
