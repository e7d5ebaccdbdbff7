//! A tool run as root on the store of another user does not lock out that user's app. Only root can
//! test this.
//!
//! The app is this program, started again as another user with a role in its environment.
#![cfg(all(unix, feature = "sqlite"))]

mod connect;
mod support;
mod worker;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ghl_oauth::internals::ffi::client_from;
use ghl_oauth::internals::{Client, Config};
use ghl_oauth_emulator::{Emulator, Options};
use serde_json::{Value, json};
use support::{Abi, Outcome};
use worker::Worker;

const CONFIG: &str = "GHL_TEST_APP";

/// The user ID of the app, and its group.
const APP: u32 = 65_534;

fn try_client(config: &str) -> ghl_oauth::Result<Client> {
    Client::new(&Config::from_json(config).unwrap())
}

/// Not a test: with a configuration in the environment, this process is the app.
#[test]
fn work() {
    let Ok(config) = std::env::var(CONFIG) else { return };
    let client = try_client(&config).map(|client| Abi::adopt(client_from(client)));
    println!("\nready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let client = match &client {
            Ok(client) => client,
            Err(error) => {
                println!("{}", error.to_json());
                continue;
            }
        };
        let Outcome(code, document) = match line.split_once(' ').unwrap() {
            ("refresh", resource_id) => client.token_refresh(resource_id),
            ("token", resource_id) => client.access_token(resource_id),
            _ => panic!("{line}"),
        };
        println!("{}", if code == 0 { "ok".to_owned() } else { document.to_string() });
    }
}

/// Whether this process is root; otherwise the test says so.
fn is_root() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let is_root = fs::metadata(folder.path()).unwrap().uid() == 0;
    if !is_root {
        eprintln!("not tested: only root can");
    }
    is_root
}

/// A folder that the app can reach, and its own folder in it.
fn folders() -> (tempfile::TempDir, std::path::PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let own = outer.path().join("app");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(APP), Some(APP)).unwrap();
    (outer, own)
}

/// Starts the app as its user. The program is copied, because its folder may be closed to others.
fn start_app(folder: &Path, config: &Value) -> Worker {
    let program = folder.join("program");
    if !program.exists() {
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    }
    let mut app = Command::new(&program);
    app.uid(APP).gid(APP).current_dir("/").args(["work", "--exact", "--nocapture"]);
    Worker::start(app.env(CONFIG, config.to_string()))
}

fn emulator() -> Emulator {
    Emulator::start(Options { rate_limit: None, ..Options::default() }).unwrap()
}

fn config(emulator: &Emulator, folder: &Path) -> Value {
    let store = json!({"kind": "sqlite", "path": folder.join("tokens.db")});
    connect::config(emulator, &store)
}

/// The owners of a folder's files and of those in its folders.
fn owners(folder: &Path) -> Vec<(String, u32, u32)> {
    let mut owners = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        owners.push((path.display().to_string(), metadata.uid(), metadata.gid()));
        if metadata.is_dir() {
            owners.extend(self::owners(&path));
        }
    }
    owners
}

/// Refreshes the company and mints its location, like a tool that root runs.
fn use_as_root(emulator: &Emulator, client: &Client) {
    client.token_refresh(&emulator.company_id()).unwrap();
    client.access_token(&emulator.location_ids()[0]).unwrap();
}

#[test]
fn app_refreshes_after_root_used_its_store() {
    if !is_root() {
        return;
    }
    let (outer, folder) = folders();
    let emulator = emulator();
    let config = config(&emulator, &folder);
    // The database is the app's, and the app has no token yet: every other file is root's.
    drop(start_app(outer.path(), &config));
    fs::remove_dir_all(folder.join("tokens.db.locks")).unwrap();
    let root = try_client(&config.to_string()).unwrap();
    connect::connect(&emulator, &root);
    use_as_root(&emulator, &root);
    let mut app = start_app(outer.path(), &config);
    // While root's client is open, and afterwards.
    assert_eq!(app.answer(&format!("refresh {}", emulator.company_id())), "ok");
    drop(root);
    assert_eq!(app.answer(&format!("refresh {}", emulator.location_ids()[0])), "ok");
    let others: Vec<_> = owners(&folder)
        .into_iter()
        .filter(|(_, user, group)| (*user, *group) != (APP, APP))
        .collect();
    assert_eq!(others, []);
}

#[test]
fn app_uses_the_store_that_root_created_in_its_folder() {
    if !is_root() {
        return;
    }
    let (outer, folder) = folders();
    let emulator = emulator();
    let config = config(&emulator, &folder);
    let root = try_client(&config.to_string()).unwrap();
    connect::connect(&emulator, &root);
    use_as_root(&emulator, &root);
    assert_eq!(owners(&folder).iter().find(|(_, user, _)| *user != APP), None);
    let mut app = start_app(outer.path(), &config);
    assert_eq!(app.answer(&format!("refresh {}", emulator.company_id())), "ok");
}

#[test]
fn store_of_root_in_its_own_folder_stays_with_root() {
    if !is_root() {
        return;
    }
    let (outer, _) = folders();
    let emulator = emulator();
    let config = config(&emulator, outer.path());
    let root = try_client(&config.to_string()).unwrap();
    connect::connect(&emulator, &root);
    use_as_root(&emulator, &root);
    fs::remove_dir(outer.path().join("app")).unwrap();
    assert_eq!(owners(outer.path()).iter().find(|(_, user, _)| *user != 0), None);
}

#[test]
fn lock_folder_that_links_elsewhere_gives_no_file_away() {
    if !is_root() {
        return;
    }
    let (outer, folder) = folders();
    let elsewhere = outer.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, folder.join("tokens.db.locks")).unwrap();
    let emulator = emulator();
    let config = config(&emulator, &folder);
    let root = try_client(&config.to_string()).unwrap();
    connect::connect(&emulator, &root);
    let owners = owners(&elsewhere);
    assert!(!owners.is_empty());
    assert_eq!(owners.iter().find(|(_, user, _)| *user != 0), None);
}

#[test]
fn error_for_the_lock_of_another_user_names_the_cure() {
    if !is_root() {
        return;
    }
    let (outer, folder) = folders();
    let emulator = emulator();
    let config = config(&emulator, &folder);
    let root = try_client(&config.to_string()).unwrap();
    connect::connect(&emulator, &root);
    for entry in fs::read_dir(folder.join("tokens.db.locks")).unwrap() {
        chown(entry.unwrap().path(), Some(0), Some(0)).unwrap();
    }
    let mut app = start_app(outer.path(), &config);
    let error = app.answer(&format!("refresh {}", emulator.company_id()));
    assert!(error.contains("Permission denied"), "{error}");
    assert!(error.contains("chown"), "{error}");
}
