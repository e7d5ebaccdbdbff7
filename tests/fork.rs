//! A client that was created before `fork()` works in the child, and neither uses nor releases
//! resources of the parent.
#![cfg(unix)]

mod built;
mod connect;
#[cfg(feature = "postgres")]
mod postgres_server;
mod worker;

use std::process::Command;

use ghl_oauth::internals::{Client, Config};
use ghl_oauth_emulator::{Emulator, Endpoint, GrantType, Options, Rule, Stage};
use serde_json::{Value, json};
use tempfile::TempDir;
use worker::Worker;

struct Fixture {
    emulator: Emulator,
    config: Value,
    _folder: TempDir,
}

impl Fixture {
    /// A connected company whose token has expired.
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let store = json!({"kind": "sqlite", "path": folder.path().join("tokens.db")});
        Fixture::with(store, folder)
    }

    /// One for each persistent store.
    fn on_each_store() -> Vec<Fixture> {
        let mut fixtures = vec![Fixture::new()];
        #[cfg(feature = "postgres")]
        if let Some(server) = postgres_server::shared() {
            let store = json!({"kind": "postgres", "url": server.database().url()});
            fixtures.push(Fixture::with(store, tempfile::tempdir().unwrap()));
        }
        fixtures
    }

    fn with(store: Value, folder: TempDir) -> Fixture {
        let emulator = Emulator::start(Options { locations: 2, ..Options::default() }).unwrap();
        let config = connect::config(&emulator, &store);
        let fixture = Fixture { emulator, config, _folder: folder };
        let client = fixture.client();
        connect::connect(&fixture.emulator, &client);
        fixture.expire();
        fixture
    }

    fn client(&self) -> Client {
        Client::new(&Config::from_json(&self.config.to_string()).unwrap()).unwrap()
    }

    fn expire(&self) {
        let client = self.client();
        let mut page = client.tokens_export(&Default::default()).unwrap();
        for token in page["tokens"].as_array_mut().unwrap() {
            token["expiresAt"] = 1_700_000_000_000_i64.into();
        }
        page["replace"] = true.into();
        client.tokens_import(serde_json::from_value(page).unwrap()).unwrap();
    }

    /// A Python process with a client.
    fn worker(&self) -> Worker {
        let python = std::env::var("GHL_PYTHON").unwrap_or_else(|_| "python3".into());
        Worker::start(
            Command::new(python)
                .arg(format!("{}/tests/fork/worker.py", built::ROOT))
                .env("PYTHONPATH", format!("{}/bindings/python/src", built::ROOT))
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("GHL_OAUTH_LIBRARY", built::library())
                .env("GHL_TEST_CONFIG", self.config.to_string()),
        )
    }

    fn assert_live(&self, token: &str) {
        assert!(self.emulator.access_token_is_live(token), "{token}");
    }
}

fn refreshes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken)
}

#[test]
fn parent_child_and_grandchild_share_one_refresh() {
    Fixture::on_each_store().iter().for_each(parent_child_and_grandchild);
}

fn parent_child_and_grandchild(fixture: &Fixture) {
    let company = fixture.emulator.company_id();
    let mut worker = fixture.worker();
    let token = worker.answer(&format!("child-asks {company}"));
    fixture.assert_live(&token);
    assert_eq!(worker.answer(&format!("ask {company}")), token);
    assert_eq!(worker.answer(&format!("grandchild-asks {company}")), token);
    // The connections and the handle of the parent still work after its children have exited.
    fixture.expire();
    let mut fresh = fixture.worker();
    let next = fresh.answer(&format!("ask {company}"));
    assert_ne!(next, token);
    assert_eq!(fresh.answer(&format!("child-asks {company}")), next);
    assert_eq!(fixture.emulator.refreshes(), 2);
}

#[test]
fn forked_and_spawned_process_pools_share_one_refresh() {
    for method in ["fork", "spawn"] {
        let fixture = Fixture::new();
        let token =
            fixture.worker().answer(&format!("pool {method} {}", fixture.emulator.company_id()));
        fixture.assert_live(&token);
        assert_eq!(fixture.emulator.refreshes(), 1, "{method}");
    }
}

#[test]
fn idle_child_does_not_hold_the_lock_of_its_dead_parent() {
    Fixture::on_each_store().iter().for_each(an_idle_child);
}

fn an_idle_child(fixture: &Fixture) {
    let company = fixture.emulator.company_id();
    let (mut parent, mut third) = (fixture.worker(), fixture.worker());
    let hold = fixture.emulator.hold(refreshes().times(1), Stage::BeforeProcessing);
    parent.say(&format!("ask-in-thread {company}"));
    hold.wait_for(1);
    let child = parent.answer("idle-child");
    drop(parent);
    // If the lock were still held, the third process would wait for it until its deadline.
    fixture.assert_live(&third.answer(&format!("ask {company}")));
    hold.release();
    assert!(
        Command::new("kill").args(["-9", &child]).status().unwrap().success(),
        "the child was alive the whole time"
    );
}

#[test]
fn child_does_not_release_the_lock_of_its_parent() {
    Fixture::on_each_store().into_iter().for_each(a_child_closes);
}

fn a_child_closes(mut fixture: Fixture) {
    let company = fixture.emulator.company_id();
    let mut parent = fixture.worker();
    fixture.config["timeouts"] = json!({"totalMs": 800});
    let mut third = fixture.worker();
    let hold = fixture.emulator.hold(refreshes(), Stage::BeforeProcessing);
    parent.say(&format!("ask-in-thread {company}"));
    hold.wait_for(1);
    assert_eq!(parent.answer("child-closes"), "closed");
    assert_eq!(third.answer(&format!("ask {company}")), "GHL_ERR_TIMEOUT");
    assert_eq!(hold.arrived(), 1, "only the parent's refresh was sent");
    hold.release();
    let token = parent.line();
    fixture.assert_live(&token);
    assert_eq!(third.answer(&format!("ask {company}")), token);
    assert_eq!(fixture.emulator.refreshes(), 1);
}

#[test]
fn events_are_delivered_in_a_child() {
    let fixture = Fixture::new();
    let heard =
        fixture.worker().answer(&format!("events-in-child {}", fixture.emulator.company_id()));
    assert_eq!(heard, "token.refreshed");
}

/// A callback may block for any reason, and its replacement waits for it: a fork cannot wait for
/// both.
#[test]
fn child_forked_while_its_parent_replaces_a_callback_can_set_its_own() {
    let fixture = Fixture::new();
    for kind in ["events", "log"] {
        let heard = fixture.worker().answer(&format!("child-of-a-replacement {kind}"));
        assert_eq!(
            heard, "0 True True",
            "{kind}: status, events, and whether the parent still waited"
        );
    }
}

#[test]
fn callback_that_forks_returns_in_both_processes_and_can_be_replaced_in_both() {
    let fixture = Fixture::new();
    for kind in ["events", "log"] {
        let heard = fixture.worker().answer(&format!("fork-in-a-receiver {kind} thread"));
        assert_eq!(
            heard, "returned 0 True returned 0 True",
            "{kind}: end of the call, status and events, in the child and in the parent"
        );
    }
}

/// Python makes a call of its main thread on a second one, which does not exist in the child.
#[test]
fn call_of_the_main_thread_of_python_is_cancelled_in_a_child_that_its_callback_forked() {
    let fixture = Fixture::new();
    for kind in ["events", "log"] {
        let heard = fixture.worker().answer(&format!("fork-in-a-receiver {kind} main"));
        assert_eq!(
            heard, "GHL_ERR_CANCELLED 0 True returned 0 True",
            "{kind}: end of the call, status and events, in the child and in the parent"
        );
    }
}

#[test]
fn child_that_only_cancels_opens_no_database() {
    let fixture = Fixture::new();
    let mut worker = fixture.worker();
    let database = fixture.config["store"]["path"].as_str().unwrap();
    std::fs::remove_file(database).unwrap();
    assert_eq!(worker.answer("child-cancels"), "cancelled");
    assert!(!std::fs::exists(database).unwrap(), "the child has opened its store");
}

#[test]
fn child_cancels_only_its_own_calls() {
    let fixture = Fixture::new();
    let hold = fixture.emulator.hold(refreshes().times(1), Stage::BeforeProcessing);
    let company = fixture.emulator.company_id();
    let mut parent = fixture.worker();
    parent.say(&format!("ask-in-thread {company}"));
    hold.wait_for(1);
    // The call in the parent has the ID by which the child cancels its own call.
    for command in ["child-cancels-its-own", "child-cancels-by-id"] {
        assert_eq!(parent.answer(&format!("{command} {company}")), "GHL_ERR_CANCELLED");
    }
    hold.release();
    fixture.assert_live(&parent.line());
}

#[test]
fn child_keeps_neither_the_port_nor_the_browser_of_a_wait_for_a_redirect() {
    let answer = Fixture::new().worker().answer("port-after-a-fork");
    assert_eq!(answer, "GHL_ERR_CANCELLED closed closed");
}

#[test]
fn output_of_a_host_without_standard_streams_reaches_no_server_and_no_file() {
    for fixture in Fixture::on_each_store() {
        let company = fixture.emulator.company_id();
        let answer = fixture.worker().answer(&format!("child-without-streams {company}"));
        let (token, reached) = answer.split_once(' ').unwrap();
        fixture.assert_live(token);
        assert_eq!(reached, "None", "{}", fixture.config["store"]["kind"]);
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn fork_does_not_wait_for_a_thread_blocked_by_a_foreign_write_lock() {
    let mut fixture = Fixture::new();
    fixture.config["timeouts"] = json!({"totalMs": 3_000});
    let mut worker = fixture.worker();
    let other =
        rusqlite::Connection::open(fixture.config["store"]["path"].as_str().unwrap()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let longest =
        worker.answer(&format!("forks-beside-a-writer {}", fixture.emulator.company_id()));
    assert!(longest.parse::<u64>().unwrap() < 1_000, "a fork took {longest} ms");
}

#[cfg(feature = "sqlite")]
#[test]
fn child_does_not_recreate_a_removed_database() {
    let fixture = Fixture::new();
    let mut worker = fixture.worker();
    let database = fixture.config["store"]["path"].as_str().unwrap();
    let company = fixture.emulator.company_id();
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{database}{ending}"));
    }
    assert_eq!(worker.answer(&format!("child-asks {company}")), "GHL_ERR_STORE");
    assert_eq!(worker.answer(&format!("grandchild-asks {company}")), "GHL_ERR_STORE");
    assert!(!std::fs::exists(database).unwrap(), "the database was recreated");
}

#[test]
fn memory_store_is_empty_in_a_child() {
    let mut fixture = Fixture::new();
    fixture.config["store"] = json!({"kind": "memory"});
    let company = fixture.emulator.company_id();
    assert_eq!(fixture.worker().answer(&format!("child-asks {company}")), "GHL_ERR_NOT_FOUND");
}
