//! A database has the same identity through every path that leads to it, and its side files are
//! always next to it.
#![cfg(all(unix, feature = "sqlite"))]

mod built;
mod store_suite;
mod support;
mod worker;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth::internals::deadline::Deadline;
use ghl_oauth::internals::store::{Record, Seal, SqliteStore, Store};
use ghl_oauth::internals::token::UserType;
use serde_json::json;
use store_suite::{patience, token};
use support::Abi;
use worker::Worker;

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, Seal::none("app-1")).unwrap()
}

fn record(id: &str) -> Record {
    Record::new(id.into(), token(UserType::Company, id, None))
}

fn at_once() -> Deadline {
    Deadline::after(Duration::from_millis(1), &Arc::default())
}

fn is_locked(store: &SqliteStore, id: &str) -> bool {
    store.lock(id, &at_once()).err().is_some_and(|error| error.status() == Status::Timeout)
}

const ENDINGS: [&str; 3] = ["", "-wal", "-shm"];

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn remove_database(path: &Path) {
    for ending in ENDINGS {
        let _ = fs::remove_file(with_ending(path, ending));
    }
}

#[test]
fn symbolic_links_to_a_file_and_its_folder_share_refresh_locks() {
    let folder = tempfile::tempdir().unwrap();
    let (real, linked) = (folder.path().join("real"), folder.path().join("linked"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &linked).unwrap();
    // The link exists before its target.
    let by_link = folder.path().join("by-link.db");
    symlink("real/tokens.db", &by_link).unwrap();
    let second = folder.path().join("second.db");
    symlink(&by_link, &second).unwrap();
    let stores = [&second, &by_link, &real.join("tokens.db"), &linked.join("../linked/tokens.db")]
        .map(|path| open(path));
    for (index, store) in stores.iter().enumerate() {
        let _held = store.lock("company", &patience()).unwrap();
        for (other, store) in stores.iter().enumerate() {
            assert!(is_locked(store, "company"), "{other} beside {index}");
        }
    }
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        ["by-link.db", "linked", "real", "second.db"],
        "the locks are next to the file"
    );
}

#[test]
fn client_keeps_its_database_when_the_working_directory_changes() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let emulator = support::emulator(1);
    let mut config = support::config(
        &emulator,
        json!({"store": {"kind": "sqlite", "path": folder.path().join("tokens.db")}}),
    );
    let company = Abi::open(&config).unwrap().connect_company(&emulator);
    config["store"]["path"] = "tokens.db".into();
    let python = std::env::var("GHL_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut worker = Worker::start(
        Command::new(python)
            .arg(format!("{}/tests/store_identity/worker.py", built::ROOT))
            .current_dir(folder.path())
            .env("PYTHONPATH", format!("{}/bindings/python/src", built::ROOT))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("GHL_OAUTH_LIBRARY", built::library())
            .env("GHL_TEST_CONFIG", config.to_string()),
    );
    assert_eq!(worker.answer(&format!("change-directory {}", elsewhere.path().display())), "done");
    for command in ["ask", "child-asks", "ask"] {
        let token = worker.answer(&format!("{command} {company}"));
        assert!(emulator.access_token_is_live(&token), "{command}: {token}");
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0, "another database was created");
}

#[test]
fn missing_database_is_an_error_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("tokens.db"), folder.path().join("away.db"));
    let store = open(&path);
    store.save(&record("company"), &patience()).unwrap();
    let rename = |from: &Path, to: &Path| {
        for ending in ENDINGS {
            let (from, to) = (with_ending(from, ending), with_ending(to, ending));
            if from.exists() {
                fs::rename(from, to).unwrap();
            }
        }
    };
    rename(&path, &away);
    let read = store.load("company", &patience()).unwrap_err();
    let saved = store.save(&record("other"), &patience()).unwrap_err();
    for error in [read, saved] {
        assert_eq!(error.status(), Status::Store, "{error}");
        assert!(error.message().contains("is gone"), "{error}");
    }
    assert!(!path.exists());
    rename(&away, &path);
    assert!(store.load("company", &patience()).unwrap().is_some());
    assert_eq!(store.save(&record("other"), &patience()).unwrap(), 1);
}

#[test]
fn empty_file_in_place_of_a_database_is_an_error_and_stays_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = open(&path);
    store.save(&record("company"), &patience()).unwrap();
    remove_database(&path);
    fs::write(&path, "").unwrap();
    for error in [
        store.load("company", &patience()).unwrap_err(),
        store.save(&record("other"), &patience()).unwrap_err(),
    ] {
        assert_eq!(error.status(), Status::Store, "{error}");
        assert!(error.message().contains("replaced by an empty file"), "{error}");
    }
    assert!(
        open(&path).load("company", &patience()).unwrap().is_none(),
        "a new client starts with an empty store"
    );
}

#[test]
fn reads_and_saves_after_a_restored_backup_use_the_backup() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backup) = (folder.path().join("tokens.db"), folder.path().join("backup.db"));
    let store = open(&path);
    let mut first = record("company");
    first.version = store.save(&first, &patience()).unwrap();
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute("VACUUM INTO ?1", [backup.to_str().unwrap()])
        .unwrap();
    let mut second = first.clone();
    Arc::make_mut(&mut second.token).access_token = "second".to_owned().into();
    second.version = store.save(&second, &patience()).unwrap();
    remove_database(&path);
    fs::rename(&backup, &path).unwrap();
    let read = store.load("company", &patience()).unwrap().unwrap();
    assert_eq!((read.version, read.token.access_token.expose().len()), (1, 900));
    // A save needs the current version.
    assert_eq!(store.save(&second, &patience()).unwrap_err().status(), Status::Conflict);
    assert_eq!(store.save(&first, &patience()).unwrap(), 2);
    assert_eq!(open(&path).load("company", &patience()).unwrap().unwrap().version, 2);
}

#[test]
fn lock_files_removed_by_a_cleanup_still_allow_only_one_holder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let locks = with_ending(&path, ".locks");
    let store = open(&path);
    drop(store.lock("company", &patience()).unwrap());
    // No lock is held: the folder is created again, accessible to this user only.
    fs::remove_dir_all(&locks).unwrap();
    let held = store.lock("company", &patience()).unwrap();
    assert_eq!(fs::metadata(&locks).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(is_locked(&store, "company"));
    let old = fs::read_dir(&locks).unwrap().next().unwrap().unwrap().path();
    let waited_for = fs::metadata(&old).unwrap().ino();
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let held = store.lock("company", &patience()).unwrap();
            // The waiter was blocked on the removed file, which must not count as the lock.
            assert!(
                is_locked(&open(&path), "company"),
                "a second holder in addition to the waiter"
            );
            drop(held);
        });
        while descriptors_of(waited_for) < 2 {
            thread::yield_now();
        }
        fs::remove_dir_all(&locks).unwrap();
        drop(held);
        waits.join().unwrap();
    });
}

/// The number of descriptors of this process for a file.
fn descriptors_of(inode: u64) -> usize {
    let folder = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    let descriptors = fs::read_dir(folder).unwrap().filter_map(Result::ok);
    descriptors
        .filter(|entry| fs::metadata(entry.path()).is_ok_and(|file| file.ino() == inode))
        .count()
}
