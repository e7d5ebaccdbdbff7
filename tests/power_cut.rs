//! Power cuts: a real process uses an SQLite store while a recorder logs its writes and syncs. The
//! library opens each state in which a power cut may leave the disk, and must find everything that
//! the process had acknowledged.
//!
//! The workers are this program, started again with a role in its environment.
#![cfg(target_os = "linux")] // The recorder is loaded by LD_PRELOAD.

#[path = "power_cut/disk.rs"]
mod disk;
mod support;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, thread};

use disk::{Depth, Disk, State, Step};
use ghl_oauth_emulator::{Decision, Emulator, Notice, Signature};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use support::Abi;
use tempfile::TempDir;
use worker::Worker;

const CONFIG: &str = "GHL_TEST_WORKER";
const MARKS: &str = "RECORDER_MARKS";

/// The recorded folder inside the folder of a fixture.
const ROOT: &str = "disk";
const DATABASE: &str = "tokens.db";

// ---- Worker -------------------------------------------------------------------------------------

/// Not a test: with a configuration in the environment, this process is a worker that executes its
/// input, and marks in the recorder's log the start and the result of each command.
#[test]
fn work() {
    let Ok(config) = env::var(CONFIG) else { return };
    let config: Value = serde_json::from_str(&config).unwrap();
    let mut marks = File::create(env::var(MARKS).unwrap()).unwrap();
    let mut mark = |text: String| marks.write_all(text.as_bytes()).unwrap();
    let mut clients: HashMap<String, Abi> = HashMap::new();
    println!("\nready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (name, command) = line.split_once(' ').unwrap();
        let (command, argument) = command.split_once(' ').unwrap_or((command, ""));
        mark("begin".to_owned());
        if command == "open" {
            clients.insert(name.to_owned(), Abi::open(&config).unwrap());
        }
        let client = &clients[name];
        let answer = match command {
            "open" | "close" => String::new(),
            "link" => client.authorization_url(json!({})).ok()["url"].as_str().unwrap().to_owned(),
            "complete" => {
                client.authorization_complete(json!({"redirectUrl": argument})).ok();
                String::new()
            }
            "ask" => client.access_token(argument).text(),
            "refresh" => {
                client.token_refresh(argument).ok();
                String::new()
            }
            "delete" => {
                client.token_delete(argument).ok();
                String::new()
            }
            "import" => {
                client.tokens_import(serde_json::from_str(argument).unwrap()).ok().to_string()
            }
            "export" => client.tokens_export(json!({})).ok().to_string(),
            "webhook" => {
                let delivery: Value = serde_json::from_str(argument).unwrap();
                let body = delivery["body"].as_str().unwrap();
                client.webhook_apply(body.as_bytes(), &delivery["headers"]).ok().to_string()
            }
            "checkpoint" => {
                let database = Connection::open(config["store"]["path"].as_str().unwrap()).unwrap();
                let statement = format!("PRAGMA wal_checkpoint({argument})");
                database.query_row(&statement, [], |_| Ok(())).unwrap();
                String::new()
            }
            _ => panic!("{line}"),
        };
        let held = Held::by(client, &config);
        if command == "close" {
            clients.remove(name);
        }
        mark(held.mark());
        println!("{answer}");
    }
}

/// The tokens of each resource, and the keys of the notes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Held(BTreeMap<String, String>, BTreeSet<String>);

/// The acknowledged state, and the state after the command in progress, if any.
type Promise = (Held, Option<Held>);

impl Held {
    /// Read through a client, or from the database if no function provides it.
    fn by(client: &Abi, config: &Value) -> Held {
        let exported = client.tokens_export(json!({})).ok();
        let token = |token: &Value| {
            let owner = token["locationId"].as_str().or(token["companyId"].as_str()).unwrap();
            (owner.to_owned(), format!("{} {}", token["accessToken"], token["refreshToken"]))
        };
        let tokens = exported["tokens"].as_array().unwrap().iter().map(token).collect();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database =
            Connection::open_with_flags(config["store"]["path"].as_str().unwrap(), flags).unwrap();
        let mut select = database.prepare("SELECT key FROM note").unwrap();
        let notes =
            select.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
        Held(tokens, notes)
    }

    fn mark(&self) -> String {
        json!({"tokens": self.0, "notes": self.1}).to_string()
    }

    fn of_mark(mark: &str) -> Held {
        let mark: Value = serde_json::from_str(mark).unwrap();
        Held(
            serde_json::from_value(mark["tokens"].clone()).unwrap(),
            serde_json::from_value(mark["notes"].clone()).unwrap(),
        )
    }

    /// Whether each resource is stored as acknowledged, or as the command in progress leaves it.
    /// The message contains no token, because it is printed.
    fn keeps(&self, (acknowledged, under_way): &Promise) -> Result<(), String> {
        let allowed: Vec<&Held> = [acknowledged].into_iter().chain(under_way).collect();
        let all = [self].into_iter().chain(allowed.iter().copied());
        let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for held in all {
            ids.extend(held.0.keys());
            keys.extend(&held.1);
        }
        for id in ids {
            let found = self.0.get(id);
            if !allowed.iter().any(|held| held.0.get(id) == found) {
                let was = |held: Option<&String>| held.map_or("absent", |_| "there");
                return Err(format!(
                    "{id} is {} instead of the acknowledged state ({})",
                    found.map_or("absent", |_| "stored with another token"),
                    was(acknowledged.0.get(id))
                ));
            }
        }
        for key in keys {
            if !allowed.iter().any(|held| held.1.contains(key) == self.1.contains(key)) {
                return Err(format!("the note {key} is lost, or back"));
            }
        }
        Ok(())
    }
}

// ---- Fixtures -----------------------------------------------------------------------------------

/// The recorder, compiled once. Prints a note if there is no compiler.
fn recorder() -> Option<&'static Path> {
    static RECORDER: OnceLock<Option<(TempDir, PathBuf)>> = OnceLock::new();
    let compile = || {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("recorder.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared"]);
        compiler
            .args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/power_cut/recorder.c"), "-o"])
            .arg(&library);
        match compiler.args(["-ldl", "-lpthread"]).status() {
            Ok(status) => assert!(status.success(), "the recorder does not compile"),
            Err(_) => {
                println!("skipped: power cuts, no C compiler is installed (apt-get install gcc)");
                return None;
            }
        }
        Some((folder, library))
    };
    RECORDER.get_or_init(compile).as_ref().map(|(_, library)| library.as_path())
}

/// A folder in memory, where syncs are free.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

struct Fixture {
    emulator: Emulator,
    config: Value,
    folder: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = folder();
        fs::create_dir(folder.path().join(ROOT)).unwrap();
        let emulator = support::emulator(4);
        let path = folder.path().join(ROOT).join(DATABASE);
        let config = support::config(&emulator, json!({"store": {"kind": "sqlite", "path": path}}));
        Fixture { emulator, config, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(ROOT)
    }

    /// A process whose steps are recorded. Only one is active at a time, so that the log has one
    /// order.
    fn worker(&self) -> Worker {
        let mut this = Command::new(env::current_exe().unwrap());
        Worker::start(
            this.args(["work", "--exact", "--nocapture"])
                .env(CONFIG, self.config.to_string())
                .env("LD_PRELOAD", recorder().unwrap())
                .env("RECORDER_ROOT", self.path())
                .env("RECORDER_LOG", self.folder.path().join("log"))
                .env(MARKS, self.folder.path().join("marks")),
        )
    }

    /// Completes the consent of a person to the link of a worker's client.
    fn consent(&self, worker: &mut Worker, client: &str) {
        let link = worker.answer(&format!("{client} link"));
        let decision = Decision::Company(self.emulator.company_id());
        let redirect_url = self.emulator.consent(&link, decision).unwrap();
        worker.answer(&format!("{client} complete {redirect_url}"));
    }

    fn webhook(&self, worker: &mut Worker, client: &str, notice: &Notice) {
        // Later than all earlier events.
        self.emulator.clock().advance(Duration::from_secs(1));
        let body = self.emulator.webhook(notice);
        let headers = support::signed(&self.emulator, body.as_bytes(), Signature::Ed25519);
        let delivery = json!({"body": body, "headers": headers});
        let answer = worker.answer(&format!("{client} webhook {delivery}"));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["applied"], true, "{answer}");
    }
}

struct History {
    name: &'static str,
    config: Value,
    /// The initial disk, and the tokens on it.
    disk: Disk,
    held: Held,
    steps: Vec<Step>,
}

impl History {
    /// Records the effects of `act` on a disk that starts with the content of the fixture's folder.
    fn record(
        name: &'static str,
        fixture: &Fixture,
        held: Held,
        act: impl FnOnce(&Fixture),
    ) -> History {
        let disk = Disk::of(&fixture.path());
        act(fixture);
        let steps = disk::read_log(&fs::read(fixture.folder.path().join("log")).unwrap());
        let history = History { name, config: fixture.config.clone(), disk, held, steps };
        history.assert_complete(fixture);
        history
    }

    /// Asserts that the recorder missed nothing.
    fn assert_complete(&self, fixture: &Fixture) {
        let mut disk = self.disk.clone();
        self.steps.iter().for_each(|step| disk.take(step));
        let seen = disk.seen();
        for (path, content) in &seen {
            let real = fixture.path().join(path);
            match content {
                None => assert!(real.is_dir(), "{path} is a folder"),
                Some(content) => {
                    assert!(
                        fs::read(&real).unwrap() == *content,
                        "the recorder missed a change of {path}"
                    );
                }
            }
        }
        for entry in fs::read_dir(fixture.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                disk::is_remade(&name) || seen.contains_key(&name),
                "the recorder missed {name}"
            );
        }
    }

    /// The promise after each number of steps.
    fn promised(&self) -> Vec<(usize, Promise)> {
        let held = |step: &Step| match step {
            Step::Mark(mark) if mark != "begin" => Some(Held::of_mark(mark)),
            _ => None,
        };
        let (mut promised, mut number) = (Vec::new(), 0);
        let (mut acknowledged, mut under_way) = (self.held.clone(), None);
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Mark(mark) if mark == "begin" => {
                    under_way = self.steps[index..].iter().find_map(held)
                }
                _ => {
                    if let Some(held) = held(step) {
                        (acknowledged, under_way) = (held, None);
                    }
                }
            }
            if matches!(step, Step::Mark(_)) {
                number += 1;
            }
            promised.push((number, (acknowledged.clone(), under_way.clone())));
        }
        promised
    }

    /// Opens the states after possible cuts. Returns the number of states and some failures.
    fn cut(&self, depth: Depth, ignores_syncs: bool) -> Outcome {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let promised = self.promised();
        let part = |first: usize| {
            let folder = folder();
            let mut disk = self.disk.clone();
            disk.ignores_syncs = ignores_syncs;
            let (mut outcome, mut known, mut turn) = (Outcome::default(), HashSet::new(), 0);
            for (index, step) in self.steps.iter().enumerate() {
                disk.take(step);
                // A cut after a later write covers this one within the depth.
                let is_covered =
                    matches!(step, Step::Write { .. }) && !index.is_multiple_of(depth.every_write);
                if is_covered {
                    continue;
                }
                turn += 1;
                if turn % threads != first {
                    continue;
                }
                outcome.cuts += 1;
                let (number, promise) = &promised[index];
                for state in disk.after_a_cut(depth) {
                    // Reopen an identical disk only if the promise differs.
                    if !known.insert((number, disk::digest(&state))) {
                        continue;
                    }
                    outcome.states += 1;
                    if outcome.states.is_multiple_of(SAMPLED_EVERY) {
                        outcome.sampled.push(state.clone());
                    }
                    if let Err(wrong) = self.open(&state, promise, folder.path()) {
                        outcome.wrong.push(format!(
                            "{}, cut after step {index} ({step}): {wrong}",
                            self.name
                        ));
                    }
                }
            }
            outcome
        };
        let mut whole = Outcome::default();
        thread::scope(|scope| {
            let part = &part;
            let parts: Vec<_> =
                (0..threads).map(|first| scope.spawn(move || part(first))).collect();
            for part in parts {
                let part = part.join().unwrap();
                whole.cuts += part.cuts;
                whole.states += part.states;
                whole.wrong.extend(part.wrong);
                whole.sampled.extend(part.sampled);
            }
        });
        whole
    }

    /// Opens a state with the library, like the first process after the cut.
    fn open(&self, state: &State, promise: &Promise, folder: &Path) -> Result<(), String> {
        let root = folder.join("state");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir(&root).unwrap();
        disk::write_state(state, &root);
        let mut config = self.config.clone();
        config["store"]["path"] = root.join(DATABASE).to_str().into();
        let client =
            Abi::open(&config).map_err(|error| format!("the library cannot open it: {error:?}"))?;
        let database = Connection::open(root.join(DATABASE)).unwrap();
        let integrity: String =
            database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        if integrity != "ok" {
            return Err(format!("the database is damaged: {integrity}"));
        }
        let held = Held::by(&client, &config);
        held.keeps(promise)?;
        // The store works, including its locks: a deletion succeeds.
        let Some(id) = held.0.keys().next() else { return Ok(()) };
        let deleted = client.token_delete(id);
        if deleted.0 != 0 {
            return Err(format!("{id} cannot be deleted: {}", deleted.1));
        }
        let select = "SELECT COUNT(*) FROM token WHERE resource_id = ?1";
        let left: i64 = database.query_row(select, [id], |row| row.get(0)).unwrap();
        if left == 0 { Ok(()) } else { Err(format!("{id} was deleted and is still stored")) }
    }
}

#[derive(Default)]
struct Outcome {
    cuts: usize,
    states: usize,
    wrong: Vec<String>,
    /// A sample of the states.
    sampled: Vec<State>,
}

impl Outcome {
    #[track_caller]
    fn assert_right(&self) {
        let some = &self.wrong[..self.wrong.len().min(5)];
        assert!(
            some.is_empty(),
            "{} of {} states are wrong, such as: {some:#?}",
            self.wrong.len(),
            self.states
        );
    }
}

/// One in this many states per thread is sampled.
const SAMPLED_EVERY: usize = 601;

/// The first process after a cut works on the remaining state.
fn recovery(state: &State) -> History {
    let fixture = Fixture::new();
    disk::write_state(state, &fixture.path());
    // The content that a process finds without a second cut.
    let copy = folder();
    disk::write_state(state, copy.path());
    let mut config = fixture.config.clone();
    config["store"]["path"] = copy.path().join(DATABASE).to_str().into();
    let held = Held::by(&Abi::open(&config).unwrap(), &config);
    History::record("the recovery from a cut", &fixture, held, |fixture| {
        let mut worker = fixture.worker();
        worker.answer("a open");
        worker.answer("a close");
    })
}

// ---- Histories ----------------------------------------------------------------------------------

/// All operations of a store, starting with its creation.
fn new_database() -> History {
    let fixture = Fixture::new();
    History::record("a new database", &fixture, Held::default(), |fixture| {
        let locations = fixture.emulator.location_ids();
        let company = fixture.emulator.company_id();
        let mut first = fixture.worker();
        first.answer("a open");
        fixture.consent(&mut first, "a");
        for location in &locations[..3] {
            first.answer(&format!("a ask {location}"));
        }
        for resource in [&company, &locations[0], &locations[0], &company] {
            first.answer(&format!("a refresh {resource}"));
        }
        let mut exported: Value = serde_json::from_str(&first.answer("a export")).unwrap();
        exported["replace"] = true.into();
        first.answer(&format!("a import {exported}"));
        first.answer(&format!("a delete {}", locations[1]));
        first.answer(&format!("a refresh {company}"));
        fixture.webhook(&mut first, "a", &Notice::Uninstall(locations[2].clone()));
        fixture.webhook(&mut first, "a", &Notice::Install(locations[2].clone()));
        first.answer("a checkpoint TRUNCATE");
        first.answer(&format!("a refresh {company}"));
        // Two handles in the process, one of which is closed.
        first.answer("b open");
        first.answer(&format!("b refresh {}", locations[0]));
        first.answer(&format!("a ask {}", locations[1]));
        first.answer("a close");
        first.answer(&format!("b refresh {company}"));
        // The last handle is closed, and the file opened again.
        first.answer("b close");
        first.answer("a open");
        first.answer(&format!("a refresh {company}"));
        // Another process, and the death of the first.
        let mut second = fixture.worker();
        second.answer("a open");
        second.answer(&format!("a refresh {company}"));
        drop(first);
        second.answer(&format!("a delete {}", locations[0]));
        second.answer(&format!("a refresh {company}"));
        second.answer("a checkpoint PASSIVE");
        second.answer(&format!("a refresh {company}"));
        second.answer("a close");
    })
}

/// The schema of the first version of the library.
const FIRST_SCHEMA: &str = "
    CREATE TABLE token (
        client_id   TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        version     INTEGER NOT NULL,
        user_type   TEXT NOT NULL,
        company_id  TEXT,
        renew_at    INTEGER NOT NULL,
        document    BLOB NOT NULL,
        PRIMARY KEY (client_id, resource_id)
    ) STRICT;
    CREATE INDEX token_by_company ON token (client_id, company_id, resource_id);
    CREATE INDEX token_by_renewal ON token (client_id, renew_at);
    PRAGMA user_version = 1;
";

/// A database of the first version is migrated and used. With a WAL: left behind by a killed
/// process.
fn old_database(name: &'static str, with_wal: bool) -> History {
    let fixture = Fixture::new();
    // Rows of the current version in the schema of the first version.
    let now = fixture.folder.path().join("now.db");
    let mut config = fixture.config.clone();
    config["store"]["path"] = now.to_str().into();
    let (locations, company) = (fixture.emulator.location_ids(), fixture.emulator.company_id());
    let client = Abi::open(&config).unwrap();
    client.connect_company(&fixture.emulator);
    for location in &locations[..2] {
        client.access_token(location).ok();
    }
    let held = Held::by(&client, &config);
    drop(client);
    let old = fixture.folder.path().join("old.db");
    let database = Connection::open(&old).unwrap();
    let mode = if with_wal { "PRAGMA journal_mode = WAL" } else { "PRAGMA journal_mode = DELETE" };
    database.query_row(mode, [], |_| Ok(())).unwrap();
    database.execute_batch(FIRST_SCHEMA).unwrap();
    database.execute("ATTACH ?1 AS now", [now.to_str().unwrap()]).unwrap();
    let copy = "INSERT INTO main.token SELECT client_id, resource_id, version, user_type,
                company_id, renew_at, document
                FROM now.token";
    assert_eq!(database.execute(copy, []).unwrap(), 3);
    for ending in ["", "-wal"] {
        let from = fixture.folder.path().join(format!("old.db{ending}"));
        if from.exists() {
            fs::copy(from, fixture.path().join(format!("{DATABASE}{ending}"))).unwrap();
        }
    }
    drop(database);
    History::record(name, &fixture, held, |fixture| {
        let mut worker = fixture.worker();
        worker.answer("a open");
        worker.answer(&format!("a refresh {company}"));
        worker.answer(&format!("a delete {}", locations[0]));
        worker.answer(&format!("a refresh {}", locations[1]));
        worker.answer("a close");
        worker.answer("a open");
        worker.answer(&format!("a refresh {company}"));
    })
}

fn histories() -> Vec<History> {
    vec![
        new_database(),
        old_database("a database of the first version", false),
        old_database("a database of the first version with a WAL", true),
    ]
}

// ---- Tests --------------------------------------------------------------------------------------

fn depth() -> Depth {
    match env::var_os("GHL_POWER_CUT_LONG") {
        None => Depth { changes: 2, namings: 1, every_write: 4 },
        Some(_) => Depth { changes: 12, namings: 6, every_write: 1 },
    }
}

#[test]
fn power_cut_at_any_point_loses_no_acknowledged_write() {
    if recorder().is_none() {
        return;
    }
    let began = Instant::now();
    let (mut cuts, mut states, mut recoveries) = (0, 0, 0);
    for history in histories() {
        let outcome = history.cut(depth(), false);
        outcome.assert_right();
        cuts += outcome.cuts;
        states += outcome.states;
        // A second cut while the first process opens the database after the first cut.
        for state in &outcome.sampled {
            let outcome = recovery(state).cut(depth(), false);
            outcome.assert_right();
            cuts += outcome.cuts;
            states += outcome.states;
            recoveries += 1;
        }
    }
    println!(
        "power cuts: {cuts}, including {recoveries} interrupted recoveries; {states} states of \
         the disk, all correct, in {:?}",
        began.elapsed()
    );
}

#[test]
fn power_cut_on_a_disk_that_ignores_syncs_is_detected_as_token_loss() {
    if recorder().is_none() {
        return;
    }
    let Outcome { states, wrong, .. } =
        new_database().cut(Depth { changes: 0, namings: 0, every_write: 4 }, true);
    println!("{} of {states} states are wrong on a disk that ignores syncs", wrong.len());
    assert!(wrong.len() > 10, "the check detects the loss");
}

#[test]
fn refresh_syncs_the_new_token_and_not_its_intent() {
    if recorder().is_none() {
        return;
    }
    let fixture = Fixture::new();
    let history = History::record("one refresh", &fixture, Held::default(), |fixture| {
        let mut worker = fixture.worker();
        worker.answer("a open");
        fixture.consent(&mut worker, "a");
        worker.answer(&format!("a refresh {}", fixture.emulator.company_id()));
    });
    let is_begin = |step: &Step| matches!(step, Step::Mark(mark) if mark == "begin");
    let refresh = &history.steps[history.steps.iter().rposition(is_begin).unwrap()..];
    let count = |is: fn(&Step) -> bool| refresh.iter().filter(|step| is(step)).count();
    assert_eq!(count(|step| matches!(step, Step::Sync { .. })), 1, "syncs of one refresh");
    assert!(count(|step| matches!(step, Step::Write { .. })) > 1, "the intent is written as well");
}
