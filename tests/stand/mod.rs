//! A test stand for the life of a token: the emulator, a store of each kind that can refuse to save, and clocks that a
//! test moves one by one.
#![allow(dead_code)] // Each test file uses a part of its own.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ghl_oauth::internals::clock::Clock;
use ghl_oauth::internals::ffi::client_from;
use ghl_oauth::internals::signal::Signal;
use ghl_oauth::internals::store::Host;
use ghl_oauth::internals::{Client, Config, Error, Result, Status};
use ghl_oauth_emulator::{Emulator, Endpoint, Options, Rule, Stage};
use rusqlite::{Connection, OptionalExtension};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::support::{self, Abi};

/// The store behind a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Sqlite,
    /// Callbacks of a host. Their client runs on the system's clock.
    Host,
}

/// The stores that outlive a client, and that can refuse a save.
pub const DURABLE: [Kind; 2] = [Kind::Sqlite, Kind::Host];

/// Every store.
pub const EVERY: [Kind; 3] = [Kind::Memory, Kind::Sqlite, Kind::Host];

/// An emulator with a store.
pub struct Stand {
    pub emulator: Emulator,
    pub kind: Kind,
    pub host: Arc<MemoryHost>,
    pub clock: Arc<TestClock>,
    folder: tempfile::TempDir,
}

impl Stand {
    /// A company with two locations.
    pub fn new(kind: Kind) -> Stand {
        Stand::of(kind, Options { locations: 2, rate_limit: None, ..Options::default() })
    }

    pub fn of(kind: Kind, options: Options) -> Stand {
        Stand {
            emulator: Emulator::start(options).unwrap(),
            kind,
            host: Arc::default(),
            clock: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A client on this stand's store; each call makes one more.
    pub fn open(&self) -> Abi {
        self.open_with(json!({}))
    }

    /// The same with these keys of the configuration changed.
    pub fn open_with(&self, mut changes: Value) -> Abi {
        match self.kind {
            Kind::Memory => {}
            Kind::Sqlite => {
                changes["store"]["kind"] = "sqlite".into();
                changes["store"]["path"] = json!(self.path());
            }
            Kind::Host => {
                let config = support::config(&self.emulator, changes).to_string();
                let host: Arc<dyn Host> = self.host.clone();
                let client = Client::with_host(&Config::from_json(&config).unwrap(), host).unwrap();
                return Abi::adopt(client_from(client));
            }
        }
        Abi::by(&self.emulator, changes, self.clock.clone())
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("tokens.db")
    }

    /// A second connection to the database.
    pub fn database(&self) -> Connection {
        assert_eq!(self.kind, Kind::Sqlite);
        Connection::open(self.path()).unwrap()
    }

    pub fn company(&self) -> String {
        self.emulator.company_id()
    }

    pub fn location(&self, index: usize) -> String {
        self.emulator.location_ids()[index].clone()
    }

    /// From now on the store refuses every save, and still reads and deletes.
    pub fn refuse_saves(&self) {
        if self.kind == Kind::Host {
            self.host.refusing.store(true, Ordering::SeqCst);
            return;
        }
        let mut triggers = String::new();
        for (table, event) in
            [("token", "INSERT"), ("token", "UPDATE"), ("note", "INSERT"), ("note", "UPDATE")]
        {
            triggers += &format!(
                "CREATE TRIGGER refuse_{table}_{event} BEFORE {event} ON {table}
                 BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END;"
            );
        }
        self.database().execute_batch(&triggers).unwrap();
    }

    /// The store works again.
    pub fn accept_saves(&self) {
        if self.kind == Kind::Host {
            self.host.refusing.store(false, Ordering::SeqCst);
            return;
        }
        let database = self.database();
        for (table, event) in
            [("token", "INSERT"), ("token", "UPDATE"), ("note", "INSERT"), ("note", "UPDATE")]
        {
            database.execute_batch(&format!("DROP TRIGGER IF EXISTS refuse_{table}_{event}")).unwrap();
        }
    }

    /// From now on the store refuses every call, or works again.
    pub fn refuse_all(&self, refused: bool) {
        if self.kind == Kind::Host {
            self.host.refusing_loads.store(refused, Ordering::SeqCst);
            self.host.refusing.store(refused, Ordering::SeqCst);
            return;
        }
        let (from, to) = if refused { ("", "_away") } else { ("_away", "") };
        for table in ["token", "note"] {
            let rename = format!("ALTER TABLE {table}{from} RENAME TO {table}{to}");
            self.database().execute_batch(&rename).unwrap();
        }
    }

    /// The version of a stored token, and its document.
    pub fn stored(&self, resource_id: &str) -> Option<(u64, String)> {
        match self.kind {
            Kind::Memory => panic!("it cannot be looked into"),
            Kind::Host => {
                let records = self.host.records.lock().unwrap();
                let record: Value = serde_json::from_str(records.get(resource_id)?).unwrap();
                Some((record["version"].as_u64().unwrap(), record["document"].as_str().unwrap().to_owned()))
            }
            Kind::Sqlite => self
                .database()
                .query_row(
                    "SELECT version, document FROM token WHERE resource_id = ?1",
                    [resource_id],
                    |row| {
                        let document: Vec<u8> = row.get(1)?;
                        let version: i64 = row.get(0)?;
                        Ok((version.unsigned_abs(), String::from_utf8_lossy(&document).into_owned()))
                    },
                )
                .optional()
                .unwrap(),
        }
    }

    /// Whether this access token stands in the store.
    pub fn is_stored(&self, resource_id: &str, access_token: &str) -> bool {
        self.stored(resource_id).is_some_and(|(_, document)| document.contains(access_token))
    }

    /// Damages the stored token of a resource.
    pub fn damage(&self, resource_id: &str) {
        if self.kind == Kind::Host {
            let mut records = self.host.records.lock().unwrap();
            let record = records.get_mut(resource_id).unwrap();
            let mut item: Value = serde_json::from_str(record).unwrap();
            item["document"] = "\u{1}".into();
            *record = item.to_string();
            return;
        }
        let changed = self
            .database()
            .execute("UPDATE token SET document = x'00' WHERE resource_id = ?1", [resource_id])
            .unwrap();
        assert_eq!(changed, 1);
    }

    /// Time passes for the library and for the emulator.
    pub fn pass(&self, time: Duration) {
        assert_ne!(self.kind, Kind::Host, "its clock is the system's");
        self.emulator.clock().advance(time);
        self.clock.pass(time);
    }
}

/// A person's token that another program got: the API's answer as it came.
pub fn saved_answer(abi: &Abi, emulator: &Emulator, decision: ghl_oauth_emulator::Decision) -> Value {
    let redirect_url = abi.consent(emulator, decision);
    let code = support::query(&redirect_url)["code"].clone();
    let mut answer = abi
        .oauth_token(json!({
            "grantType": "authorization_code", "code": code, "redirectUri": emulator.redirect_uri(),
        }))
        .ok();
    answer.as_object_mut().unwrap().remove("expiresAt");
    assert!(answer["expiresIn"].is_number() && answer["refreshToken"].is_string());
    answer
}

/// Looks again and again until it holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never came to hold: {what}");
        std::thread::yield_now();
    }
}

// ---- Clocks ---------------------------------------------------------------------------------------------------------

/// The three clocks of a machine: the system's, each with an offset of its own.
#[derive(Default)]
pub struct TestClock {
    wall_ms: AtomicI64,
    uptime_ms: AtomicI64,
    monotonic_ms: AtomicI64,
    /// Whether a wait passes at once, on these clocks only.
    waits_are_free: AtomicBool,
}

impl TestClock {
    /// Time passes on all of them.
    pub fn pass(&self, time: Duration) {
        self.sleep(time);
        self.monotonic_ms.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// The machine sleeps: the monotonic clock stands still.
    pub fn sleep(&self, time: Duration) {
        let ms = i64::try_from(time.as_millis()).unwrap();
        self.set_wall_forward(ms);
        self.uptime_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// The wall clock alone is set, by so much.
    pub fn set_wall_forward(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// The wall clock is right again.
    pub fn correct_wall(&self) {
        self.wall_ms.store(self.uptime_ms.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// From now on a wait lasts no time but moves these clocks. For a test with one thread.
    pub fn make_waits_free(&self) {
        self.waits_are_free.store(true, Ordering::SeqCst);
    }
}

/// The time since the first look, with room to go back.
fn since_start() -> Duration {
    static STARTED: Mutex<Option<Instant>> = Mutex::new(None);
    STARTED.lock().unwrap().get_or_insert_with(Instant::now).elapsed()
}

fn with(time: Duration, offset: &AtomicI64) -> Duration {
    time + Duration::from_millis(offset.load(Ordering::SeqCst).unsigned_abs())
}

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap() + self.wall_ms.load(Ordering::SeqCst)
    }

    fn uptime(&self) -> Duration {
        with(since_start(), &self.uptime_ms)
    }

    fn monotonic(&self) -> Duration {
        with(since_start(), &self.monotonic_ms)
    }

    fn wait(&self, signal: &Signal, seen: u64, timeout: Duration) {
        if self.waits_are_free.load(Ordering::SeqCst) {
            self.pass(timeout);
        } else {
            signal.block(seen, timeout);
        }
    }
}

// ---- A host's store -------------------------------------------------------------------------------------------------

/// Records in memory, behind a host's callbacks.
#[derive(Default)]
pub struct MemoryHost {
    pub records: Mutex<BTreeMap<String, String>>,
    pub saves: AtomicUsize,
    refusing: AtomicBool,
    refusing_loads: AtomicBool,
    /// Whether every load waits.
    loads_held: Mutex<bool>,
    loads_released: Condvar,
    locks: Mutex<HashSet<String>>,
    unlocked: Condvar,
}

impl fmt::Debug for MemoryHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MemoryHost")
    }
}

impl MemoryHost {
    /// From now on every load waits, or no longer.
    pub fn hold_loads(&self, held: bool) {
        *self.loads_held.lock().unwrap() = held;
        self.loads_released.notify_all();
    }
}

fn version_of(record: &str) -> u64 {
    serde_json::from_str::<Value>(record).unwrap()["version"].as_u64().unwrap()
}

impl Host for MemoryHost {
    fn load(&self, id: &str) -> Result<Option<Zeroizing<String>>> {
        if self.refusing_loads.load(Ordering::SeqCst) {
            return Err(Error::new(Status::Store, "the disk fails"));
        }
        let held = self.loads_held.lock().unwrap();
        drop(self.loads_released.wait_while(held, |held| *held).unwrap());
        Ok(self.records.lock().unwrap().get(id).cloned().map(Zeroizing::new))
    }

    fn save(&self, id: &str, record: &str, expected_version: u64) -> Result<()> {
        self.saves.fetch_add(1, Ordering::SeqCst);
        if self.refusing.load(Ordering::SeqCst) {
            return Err(Error::new(Status::Store, "the disk is full"));
        }
        let mut records = self.records.lock().unwrap();
        if records.get(id).map_or(0, |record| version_of(record)) != expected_version {
            return Err(Error::new(Status::Conflict, "another version"));
        }
        records.insert(id.to_owned(), record.to_owned());
        Ok(())
    }

    fn remove(&self, id: &str) -> Result<()> {
        self.records.lock().unwrap().remove(id);
        Ok(())
    }

    fn list(&self, _query: &str) -> Result<Zeroizing<String>> {
        let records = self.records.lock().unwrap();
        let items: Vec<Value> =
            records.values().map(|record| serde_json::from_str(record).unwrap()).collect();
        Ok(Zeroizing::new(json!({"items": items, "nextPageToken": null}).to_string()))
    }

    fn has_lock(&self) -> bool {
        true
    }

    fn lock(&self, id: &str, timeout: Duration) -> Result<()> {
        let locks = self.locks.lock().unwrap();
        let (mut locks, _) =
            self.unlocked.wait_timeout_while(locks, timeout, |locks| locks.contains(id)).unwrap();
        if locks.insert(id.to_owned()) { Ok(()) } else { Err(Error::new(Status::Timeout, "it is held")) }
    }

    fn unlock(&self, id: &str) {
        self.locks.lock().unwrap().remove(id);
        self.unlocked.notify_all();
    }
}

/// Refreshes a token while the store comes to refuse every save: the new one stays in memory.
pub fn refresh_unsaved(stand: &Stand, abi: &Abi, resource_id: &str) {
    let hold = stand.emulator.hold(Rule::on(Endpoint::Token), Stage::BeforeProcessing);
    std::thread::scope(|scope| {
        let refresh = scope.spawn(|| abi.token_refresh(resource_id).ok());
        hold.wait_for(1);
        stand.refuse_saves();
        hold.release();
        assert_eq!(refresh.join().unwrap()["state"], "unsaved");
    });
}
