//! What the host's process may do around the library: C programs that call it while they end.
#![cfg(unix)] // POSIX threads, fork and signals.

mod built;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use ghl_oauth_emulator::{Emulator, Options};
use serde_json::{Value, json};

use support::Abi;

/// Runs a program to its end, and returns its output. Fails unless it exits with status 0.
fn run(program: &Path, arguments: &[&str]) -> String {
    let mut run = Command::new(program);
    // The search path of Cargo may contain the library of an older build.
    run.args(arguments).env("LD_LIBRARY_PATH", built::folder());
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
