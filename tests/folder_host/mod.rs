//! A minimal host store: a file for each record, and a lock file next to it. It returns all records
//! for every list.
#![allow(dead_code)] // Each test file uses only a part.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::internals::store::Host;
use ghl_oauth::{Error, Result, Status};
use serde_json::{Value, json};
use zeroize::Zeroizing;

thread_local! {
    /// The locks that this thread holds.
    static HELD: RefCell<Vec<(String, File)>> = const { RefCell::new(Vec::new()) };
}

pub struct FolderHost(PathBuf);

impl FolderHost {
    /// Opens the store in a folder, which is created.
    pub fn new(folder: &Path) -> FolderHost {
        fs::create_dir_all(folder).unwrap();
        FolderHost(folder.to_owned())
    }

    fn path(&self, id: &str, ending: &str) -> PathBuf {
        let name: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.0.join(name + ending)
    }

    fn lock_file(&self, path: PathBuf) -> File {
        OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap()
    }

    /// Serializes the saves.
    fn saving(&self) -> File {
        let file = self.lock_file(self.0.join("saves"));
        file.lock().unwrap();
        file
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::new(Status::Store, error.to_string())),
    }
}

/// Renames a file and replaces `old`, which older Windows refuses while `old` is open.
fn replace(new: &Path, old: &Path) {
    loop {
        match fs::rename(new, old) {
            Err(error) if cfg!(windows) && error.kind() == ErrorKind::PermissionDenied => {
                thread::yield_now();
            }
            renamed => return renamed.unwrap(),
        }
    }
}

impl Host for FolderHost {
    fn load(&self, id: &str) -> Result<Option<Zeroizing<String>>> {
        read(&self.path(id, ".record"))
    }

    fn save(&self, id: &str, record: &str, expected_version: u64) -> Result<()> {
        let (path, beside) = (self.path(id, ".record"), self.0.join("new"));
        let _saving = self.saving();
        let stored = read(&path)?.map_or(0, |text| {
            serde_json::from_str::<Value>(&text).unwrap()["version"].as_u64().unwrap()
        });
        if stored != expected_version {
            return Err(Error::new(Status::Conflict, "another version"));
        }
        let mut file = File::create(&beside).unwrap();
        file.write_all(record.as_bytes()).unwrap();
        file.sync_all().unwrap();
        replace(&beside, &path);
        Ok(())
    }

    fn remove(&self, id: &str) -> Result<()> {
        let _saving = self.saving();
        match fs::remove_file(self.path(id, ".record")) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
            _ => Ok(()),
        }
    }

    fn list(&self, _query: &str) -> Result<Zeroizing<String>> {
        let records = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let records =
            records.filter(|path| path.extension().is_some_and(|ending| ending == "record"));
        let items: Vec<Value> = records
            .filter_map(|path| read(&path).unwrap())
            .map(|text| serde_json::from_str(&text).unwrap())
            .collect();
        Ok(Zeroizing::new(json!({"items": items, "nextPageToken": null}).to_string()))
    }

    fn has_lock(&self) -> bool {
        true
    }

    fn lock(&self, id: &str, timeout: Duration) -> Result<()> {
        let (file, began) = (self.lock_file(self.path(id, ".lock")), Instant::now());
        loop {
            match file.try_lock() {
                Ok(()) => {
                    HELD.with_borrow_mut(|held| held.push((id.to_owned(), file)));
                    return Ok(());
                }
                Err(TryLockError::WouldBlock) if began.elapsed() < timeout => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::new(Status::Timeout, "it is held"));
                }
                Err(TryLockError::Error(error)) => panic!("{error}"),
            }
        }
    }

    fn unlock(&self, id: &str) {
        let held = HELD.with_borrow_mut(|held| {
            let place = held.iter().position(|(locked, _)| locked == id);
            place.map(|place| held.swap_remove(place))
        });
        assert!(held.is_some(), "unlocked on another thread than it was locked on");
    }
}
