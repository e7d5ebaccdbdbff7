//! A database file that is also used by other programs or by a second SQLite in the same process:
//! an acknowledged save is in the file that the next process opens.
#![cfg(unix)]

mod built;
mod support;
mod worker;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ghl_oauth_emulator::{Emulator, Endpoint, GrantType, Rule, Stage};
use serde_json::{Value, json};
use support::Abi;
use tempfile::TempDir;
use worker::Worker;

/// The moment at which the file is changed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    BeforeRefresh,
    /// Between the intent and the save.
    DuringRefresh,
}

const MOMENTS: [Moment; 2] = [Moment::BeforeRefresh, Moment::DuringRefresh];

struct Fixture {
    emulator: Emulator,
    config: Value,
    path: PathBuf,
    company: String,
    _folder: TempDir,
}

impl Fixture {
    /// A connected company, and a server that accepts each refresh token once.
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let emulator = support::emulator(1);
        emulator.set_reuse_window_seconds(0);
        let config = support::config(&emulator, json!({"store": {"kind": "sqlite", "path": path}}));
        let company = Abi::open(&config).unwrap().connect_company(&emulator);
        Fixture { emulator, config, path, company, _folder: folder }
    }

    /// A Python process with a client.
    fn worker(&self) -> Worker {
        let python = std::env::var("GHL_PYTHON").unwrap_or_else(|_| "python3".into());
        Worker::start(
            Command::new(python)
                .arg(format!("{}/tests/second_sqlite/worker.py", built::ROOT))
                .env("PYTHONPATH", format!("{}/bindings/python/src", built::ROOT))
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("GHL_OAUTH_LIBRARY", built::library())
                .env("GHL_TEST_CONFIG", self.config.to_string()),
        )
    }

    /// Refreshes in the worker, with the interference before or during the refresh. Returns the
    /// result.
    fn refresh(
        &self,
        worker: &mut Worker,
        moment: Moment,
        mut interfere: impl FnMut(&mut Worker),
    ) -> String {
        match moment {
            Moment::BeforeRefresh => {
                interfere(worker);
                worker.answer(&format!("refresh {}", self.company))
            }
            Moment::DuringRefresh => {
                let rule = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken);
                let hold = self.emulator.hold(rule, Stage::BeforeProcessing);
                worker.say(&format!("refresh-in-thread {}", self.company));
                hold.wait_for(1);
                interfere(worker);
                hold.release();
                worker.line()
            }
        }
    }

    /// Whether the file at the path contains the live refresh token, read by a new client.
    fn file_holds_the_live_token(&self) -> bool {
        let exported = Abi::open(&self.config).unwrap().tokens_export(json!({})).ok();
        let live = self.emulator.live_refresh_tokens();
        exported["tokens"].as_array().unwrap().iter().any(|token| {
            live.iter().any(|live| {
                live.resource_id == self.company && token["refreshToken"] == live.refresh_token
            })
        })
    }
}

/// A worker that has used its database does `act` with a second SQLite once or repeatedly; then
/// `elsewhere` runs in another process.
fn second_sqlite(act: &str, elsewhere: impl Fn(&Path)) {
    for moment in MOMENTS {
        let fixture = Fixture::new();
        let mut worker = fixture.worker();
        assert_eq!(worker.answer(&format!("refresh {}", fixture.company)), "refreshed 0");
        for round in 0..2 {
            let answer = fixture.refresh(&mut worker, moment, |worker| {
                assert_eq!(worker.answer(act), "done");
                elsewhere(&fixture.path);
            });
            assert_eq!(answer, "refreshed 0", "{act}, {moment:?}, round {round}");
        }
        // The process is killed: the next one finds every save that it reported.
        drop(worker);
        assert!(
            fixture.file_holds_the_live_token(),
            "{act}, {moment:?}: an acknowledged save is not in the file"
        );
    }
}

#[test]
fn save_survives_a_second_sqlite_that_opens_and_closes_the_file_in_the_process() {
    second_sqlite("look", |_| {});
}

#[test]
fn save_survives_a_backup_by_a_second_sqlite_in_the_process() {
    second_sqlite("back-up", |_| {});
}

#[test]
fn save_survives_a_second_copy_of_the_library_in_the_process() {
    second_sqlite("second-library", |_| {});
}

/// Closing a file releases all POSIX locks that the process holds on it, so another process takes
/// itself for the last user.
#[test]
fn save_survives_a_host_that_reads_the_files_while_another_process_closes_the_database() {
    second_sqlite("read-file", |path| {
        let other = rusqlite::Connection::open(path).unwrap();
        other.query_row("SELECT COUNT(*) FROM token", [], |_| Ok(())).unwrap();
        other.close().unwrap();
    });
}

/// In each of two processes a second SQLite repeatedly opens and closes the file, so that POSIX
/// locks vanish in the middle of transactions. One process saves a numbered token; the other, which
/// keeps saving its own tokens, must find that token in the file.
#[test]
fn save_racing_a_second_sqlite_in_two_processes_is_found_by_the_other() {
    const SAVES: u32 = 150;
    let fixture = Fixture::new();
    let (mut writer, mut reader) = (fixture.worker(), fixture.worker());
    for worker in [&mut writer, &mut reader] {
        assert_eq!(worker.answer("look-without-end"), "done");
    }
    assert_eq!(reader.answer("import-without-end busy"), "done");
    for number in 0..SAVES {
        assert_eq!(writer.answer(&format!("import numbered {number}")), "1", "save {number}");
        let found = reader.answer("stored numbered");
        assert_eq!(
            found,
            format!("numbered-{number}"),
            "a save was reported, and the file does not hold it"
        );
    }
    for worker in [&mut writer, &mut reader] {
        println!(
            "failures of the host's own reads and of the other saves: {}",
            worker.answer("failures")
        );
    }
    drop((writer, reader));
    let whole = rusqlite::Connection::open(&fixture.path).unwrap();
    let check: String = whole.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

const ENDINGS: [&str; 3] = ["", "-wal", "-shm"];

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Moves the database and its side files.
fn move_database(from: &Path, to: &Path) {
    for ending in ENDINGS {
        let (from, to) = (with_ending(from, ending), with_ending(to, ending));
        if from.exists() {
            fs::rename(from, to).unwrap();
        }
    }
}

/// A copy of the current database, as created by `sqlite3 tokens.db "VACUUM INTO 'copy'"`.
fn copy_database(path: &Path, copy: &Path) {
    let database = rusqlite::Connection::open(path).unwrap();
    database.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
}

#[test]
fn save_after_the_file_was_replaced_by_a_backup_is_in_the_new_file() {
    for moment in MOMENTS {
        let fixture = Fixture::new();
        let mut worker = fixture.worker();
        assert_eq!(worker.answer(&format!("refresh {}", fixture.company)), "refreshed 0");
        let backup = fixture.path.with_extension("backup");
        let answer = fixture.refresh(&mut worker, moment, |_| {
            copy_database(&fixture.path, &backup);
            for ending in ["-wal", "-shm"] {
                let _ = fs::remove_file(with_ending(&fixture.path, ending));
            }
            fs::rename(&backup, &fixture.path).unwrap();
        });
        assert!(answer.starts_with("refreshed "), "{moment:?}: {answer}");
        let token = worker.answer(&format!("ask {}", fixture.company));
        let (token, unsaved) = token.split_once(' ').unwrap();
        assert!(fixture.emulator.access_token_is_live(token), "{moment:?}: {token}");
        assert_eq!(unsaved, "0", "{moment:?}: the new file is writable");
        drop(worker);
        assert!(
            fixture.file_holds_the_live_token(),
            "{moment:?}: an acknowledged save is not in the file at the path"
        );
    }
}

#[test]
fn save_while_the_file_is_moved_away_fails_and_is_retried_when_it_is_back() {
    for moment in MOMENTS {
        let fixture = Fixture::new();
        let mut worker = fixture.worker();
        assert_eq!(worker.answer(&format!("refresh {}", fixture.company)), "refreshed 0");
        let away = fixture.path.with_extension("away");
        let before = fixture.emulator.refreshes();
        let answer = fixture.refresh(&mut worker, moment, |_| move_database(&fixture.path, &away));
        match moment {
            // A token that cannot be saved is not requested.
            Moment::BeforeRefresh => {
                assert_eq!(answer, "GHL_ERR_STORE 0");
                assert_eq!(fixture.emulator.refreshes(), before);
            }
            Moment::DuringRefresh => assert_eq!(answer, "refreshed 1"),
        }
        assert!(!fixture.path.exists(), "{moment:?}: a removed database was recreated");
        move_database(&away, &fixture.path);
        // Calls retry an unsaved token after a backoff, maintenance at once.
        assert_eq!(worker.answer("maintain"), "done");
        let token = worker.answer(&format!("ask {}", fixture.company));
        let (token, unsaved) = token.split_once(' ').unwrap();
        assert!(fixture.emulator.access_token_is_live(token), "{moment:?}: {token}");
        assert_eq!(unsaved, "0", "{moment:?}: the file is back");
        drop(worker);
        assert!(fixture.file_holds_the_live_token(), "{moment:?}");
    }
}

#[test]
fn save_after_the_file_was_removed_is_not_acknowledged() {
    for moment in MOMENTS {
        let fixture = Fixture::new();
        let mut worker = fixture.worker();
        assert_eq!(worker.answer(&format!("refresh {}", fixture.company)), "refreshed 0");
        let answer = fixture.refresh(&mut worker, moment, |_| {
            for ending in ENDINGS {
                let _ = fs::remove_file(with_ending(&fixture.path, ending));
            }
        });
        let expected = match moment {
            Moment::BeforeRefresh => "GHL_ERR_STORE 0",
            Moment::DuringRefresh => "refreshed 1",
        };
        assert_eq!(answer, expected, "{moment:?}");
        // The token in memory is still used.
        let token = worker.answer(&format!("ask {}", fixture.company));
        let (token, _) = token.split_once(' ').unwrap();
        assert!(fixture.emulator.access_token_is_live(token), "{moment:?}: {token}");
    }
}
