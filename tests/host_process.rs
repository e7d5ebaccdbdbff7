//! Behaviour of a host's process around the library: C programs that end, cancel threads, handle
//! signals, unload the library, or are confined.
#![cfg(unix)] // POSIX threads, fork and signals.

mod built;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ghl_oauth_emulator::{Certificate, Emulator, Endpoint, GrantType, Options, Rule, Stage};
use serde_json::{Value, json};

use support::Abi;

/// Runs a program to its end, and returns its output. Fails unless it exits with status 0.
fn run(program: &Path, arguments: &[&str]) -> String {
    // The search path of Cargo may contain the library of an older build.
    run_with(&built::folder(), program, arguments)
}

/// The same with the library in this folder.
fn run_with(library: &Path, program: &Path, arguments: &[&str]) -> String {
    let mut run = Command::new(program);
    run.args(arguments).env("LD_LIBRARY_PATH", library);
    let output = run.output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {}\n{out}\n{err}", program.display(), output.status);
    out.into_owned()
}

/// The tokens of a company and all its locations, to be imported elsewhere.
fn tokens_of(emulator: &Emulator) -> String {
    let client = Abi::new(emulator);
    client.connect_company(emulator);
    for location_id in emulator.location_ids() {
        client.live_token(emulator, &location_id);
    }
    let tokens: Value = client.tokens_export(json!({})).ok();
    tokens.to_string()
}

#[test]
fn every_function_can_be_called_while_threads_and_the_process_end() {
    let folder = tempfile::tempdir().unwrap();
    let program = built::program("tests/abi/exit.c", folder.path());
    for callbacks in ["none", "callbacks"] {
        for store in [
            json!({"kind": "memory"}),
            json!({"kind": "sqlite", "path": folder.path().join(callbacks).join("tokens.db")}),
        ] {
            let emulator = Emulator::start(Options { locations: 3, ..Options::default() }).unwrap();
            fs::create_dir_all(folder.path().join(callbacks)).unwrap();
            let config = support::config(&emulator, json!({"store": store})).to_string();
            let (company, location) = (emulator.company_id(), emulator.location_ids()[0].clone());
            let tokens = tokens_of(&emulator);
            let without_store = support::config(&emulator, json!({})).to_string();
            let arguments = [&config, &without_store, &tokens, &company, &location, callbacks];
            let out = run(&program, &arguments);
            assert_eq!(out.lines().last(), Some("passed"), "{callbacks}: {out}");
        }
    }
}

#[test]
fn exit_test_covers_every_function() {
    let root = Path::new(built::ROOT);
    let program = fs::read_to_string(root.join("tests/abi/exit.c")).unwrap();
    let promised = fs::read_to_string(root.join("tests/abi/promised.txt")).unwrap();
    let functions: Vec<&str> = promised
        .lines()
        .filter(|line| !line.contains("typedef") && !line.starts_with('#'))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .collect();
    assert!(functions.len() > 25, "{functions:?}");
    for function in functions {
        assert!(program.contains(&format!("{function}(")), "{function} is not covered");
    }
}

/// An emulator with TLS. The configuration trusts its certificate.
fn secure(folder: &Path) -> Emulator {
    let (tls, ca_file) = (Some(Certificate::Good), Some(folder.join("ca.pem")));
    Emulator::start(Options { tls, ca_file, locations: 3, ..Options::default() }).unwrap()
}

fn with_database(emulator: &Emulator, path: &Path) -> String {
    let store = json!({"kind": "sqlite", "path": path});
    support::config(emulator, json!({"store": store})).to_string()
}

/// The frames of an unoptimised build are about three times as large. `GHL_RELEASE_LIBRARY` is the
/// folder of an optimised library.
#[test]
fn every_kind_of_call_works_on_a_stack_of_64_kib() {
    let folder = tempfile::tempdir().unwrap();
    let program = built::program("tests/abi/small_stack.c", folder.path());
    let release = std::env::var_os("GHL_RELEASE_LIBRARY").map(PathBuf::from);
    let kib = if release.is_some() || !cfg!(debug_assertions) { "64" } else { "192" };
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let path = folder.path().join("tokens.db");
    for store in [
        json!({"kind": "memory"}),
        json!({"kind": "sqlite", "path": path, "encryptionKeys": [key]}),
    ] {
        let emulator = secure(folder.path());
        let config = support::config(&emulator, json!({"store": store})).to_string();
        let (company, location) = (emulator.company_id(), emulator.location_ids()[0].clone());
        let tokens = tokens_of(&emulator);
        let library = release.clone().unwrap_or_else(built::folder);
        let out = run_with(&library, &program, &[&config, &tokens, &company, &location, kib]);
        println!("{out}");
        assert_eq!(out.lines().last(), Some("passed"), "{out}");
    }
}

#[test]
fn refresh_on_a_cancelled_thread_is_completed_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    let program = built::program("tests/abi/thread_cancel.c", folder.path());
    let emulator = support::emulator(1);
    let (tokens, company) = (tokens_of(&emulator), emulator.company_id());
    let refresh = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken);
    let hold = emulator.hold(refresh, Stage::BeforeProcessing);
    let mut program = Command::new(program)
        .args([&emulator.configuration(), &tokens, &company])
        .env("LD_LIBRARY_PATH", built::folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap);
    hold.wait_for(1);
    program.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(lines.next().as_deref(), Some("cancelled"));
    hold.release();
    let token = lines.next().unwrap();
    assert!(program.wait().unwrap().success());
    assert_eq!(emulator.refreshes(), 1);
    assert!(emulator.access_token_is_live(&token), "the new token is the one that was handed out");
}

#[test]
fn signals_and_started_programs_do_not_disturb_a_call() {
    let folder = tempfile::tempdir().unwrap();
    let program = built::program("tests/abi/interrupted.c", folder.path());
    let emulator = support::emulator(1);
    let config = with_database(&emulator, &folder.path().join("tokens.db"));
    let out = run(&program, &[&config, &tokens_of(&emulator), &emulator.company_id()]);
    assert_eq!(out, "passed\n");
}

#[test]
fn library_can_be_unloaded_while_threads_that_used_it_live() {
    let folder = tempfile::tempdir().unwrap();
    let program = built::program("tests/abi/unload.c", folder.path());
    let emulator = support::emulator(1);
    let config = with_database(&emulator, &folder.path().join("tokens.db"));
    let library = built::library();
    let arguments = [library.to_str().unwrap(), &config, &tokens_of(&emulator)];
    let out = run(&program, &[&arguments[..], &[&emulator.company_id()]].concat());
    assert_eq!(out, "passed\n");
}

/// The status of a call in [`confined`].
#[cfg(target_os = "linux")]
fn status<'a>(out: &'a str, call: &str) -> &'a str {
    out.lines().find_map(|line| line.strip_prefix(call)?.strip_prefix(' ')).unwrap()
}

/// Runs the program that takes something away from itself.
#[cfg(target_os = "linux")]
fn confined(what: &str, emulator: &Emulator, config: &str, folder: &Path) -> String {
    let program = built::program("tests/abi/confined.c", folder);
    let (tokens, company) = (tokens_of(emulator), emulator.company_id());
    run(&program, &[what, config, &tokens, &company, folder.to_str().unwrap()])
}

#[cfg(target_os = "linux")]
#[test]
fn process_that_may_not_start_threads_gets_errors_where_one_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = support::emulator(3);
    let config = with_database(&emulator, &folder.path().join("tokens.db"));
    let out = confined("threads", &emulator, &config, folder.path());
    for call in ["new", "import", "token", "refresh", "maintain"] {
        assert_eq!(status(&out, call), "GHL_OK", "{call}: {out}");
    }
    for call in ["concurrent", "mint"] {
        assert_eq!(status(&out, call), "GHL_ERR_NETWORK", "{call}: {out}");
    }
    assert!(out.contains("no worker thread could be started; nothing was sent"), "{out}");
}

#[cfg(target_os = "linux")]
#[test]
fn process_in_an_empty_root_folder_works() {
    let folder = tempfile::tempdir().unwrap();
    if Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout != b"0\n") {
        println!("skipped: a process in an empty root folder, which only root can make");
        return;
    }
    let emulator = support::emulator(3);
    let config = with_database(&emulator, Path::new("/tokens.db"));
    let out = confined("files", &emulator, &config, folder.path());
    for call in ["new", "import", "token", "refresh", "maintain", "concurrent", "mint"] {
        assert_eq!(status(&out, call), "GHL_OK", "{call}: {out}");
    }
    assert!(folder.path().join("tokens.db").exists());
}
