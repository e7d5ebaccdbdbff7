//! Several real processes on one store: they refresh once, survive each other's deaths, and lose nothing that could be
//! kept.
//!
//! The workers are this very program, started again with a role in its environment.

mod folder_host;
#[cfg(all(unix, feature = "postgres"))]
mod postgres_server;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, c_char};
use std::path::Path;
use std::process::Command;
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, thread};

use folder_host::FolderHost;

use ghl_oauth::authorization::CompleteParams;
use ghl_oauth::ffi::{
    client_from, ghl_access_token, ghl_client, ghl_string_free, ghl_token_refresh, ghl_tokens_list,
};
use ghl_oauth::{Client, Config, Status};
use ghl_oauth_emulator::{Decision, Emulator, Endpoint, FaultKind, GrantType, Options, Rule, Stage};
use serde_json::{Value, json};
use worker::Worker;

const CONFIG: &str = "GHL_TEST_WORKER";

// ---- The worker -----------------------------------------------------------------------------------------------------

/// Not a test: with a configuration in the environment, this process is a worker that does what its input says.
#[test]
fn work() {
    let Ok(config) = env::var(CONFIG) else { return };
    let client = Handle(client_from(client(&serde_json::from_str(&config).unwrap())));
    println!("\nready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["ask", resource_id] => println!("{}", ask(client, resource_id)),
            ["ask", resource_id, threads] => {
                let threads: Vec<_> = (0..threads.parse().unwrap())
                    .map(|_| {
                        let resource_id = resource_id.to_owned();
                        thread::spawn(move || ask(client, &resource_id))
                    })
                    .collect();
                let answers: BTreeSet<String> =
                    threads.into_iter().map(|thread| thread.join().unwrap()).collect();
                println!("{}", answers.into_iter().collect::<Vec<_>>().join(" "));
            }
            ["refresh", resource_id] => println!("{}", refresh(client, resource_id)),
            ["refresh-forever", ref resource_ids @ ..] => {
                for resource_id in resource_ids.iter().cycle() {
                    println!("{}", refresh(client, resource_id));
                }
            }
            ["list"] => println!("{}", list(client)),
            _ => panic!("{line}"),
        }
    }
}

#[derive(Clone, Copy)]
struct Handle(*mut ghl_client);

// SAFETY: a client may be used from any thread.
unsafe impl Send for Handle {}

/// A token, or the name of the error.
fn ask(client: Handle, resource_id: &str) -> String {
    let (mut token, id): (*mut c_char, _) = (null_mut(), CString::new(resource_id).unwrap());
    // SAFETY: a living client, a terminated id, and a place for the token.
    let status = unsafe { ghl_access_token(client.0, id.as_ptr(), &mut token, null_mut()) };
    if status == 0 { take(token) } else { Status::from_code(status).unwrap().name().to_owned() }
}

fn refresh(client: Handle, resource_id: &str) -> String {
    let id = CString::new(resource_id).unwrap();
    // SAFETY: a living client and a terminated id.
    let status = unsafe { ghl_token_refresh(client.0, id.as_ptr(), null_mut()) };
    Status::from_code(status).map_or("refreshed", Status::name).to_owned()
}

fn list(client: Handle) -> String {
    let mut page = null_mut();
    // SAFETY: a living client, a terminated text, and a place for the page.
    assert_eq!(unsafe { ghl_tokens_list(client.0, c"{}".as_ptr(), &mut page) }, 0);
    take(page)
}

/// Copies a text of the library's, and gives it back.
fn take(text: *mut c_char) -> String {
    // SAFETY: the library handed out a terminated text, which is freed once.
    unsafe {
        let copy = std::ffi::CStr::from_ptr(text).to_str().unwrap().to_owned();
        ghl_string_free(text);
        copy
    }
}

fn start_worker(config: &Value) -> Worker {
    let mut this = Command::new(env::current_exe().unwrap());
    Worker::start(this.args(["work", "--exact", "--nocapture"]).env(CONFIG, config.to_string()))
}

// ---- The stage ------------------------------------------------------------------------------------------------------

fn emulator() -> Emulator {
    Emulator::start(Options { locations: 4, rate_limit: None, ..Options::default() }).unwrap()
}

/// The stores that several processes can share, in a folder or on a server.
fn shared_stores(folder: &Path) -> Vec<Value> {
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let mut stores = vec![
        json!({"kind": "sqlite", "path": folder.join("tokens.db")}),
        json!({"kind": "sqlite", "path": folder.join("sealed.db"), "encryptionKeys": [key]}),
        json!({"kind": "callbacks", "encryptionKeys": [key], "path": folder.join("records")}),
    ];
    stores.extend(server_stores(key));
    stores
}

/// PostgreSQL, directly and through a pooler that has few connections to lend.
#[cfg(all(unix, feature = "postgres"))]
fn server_stores(key: &str) -> Vec<Value> {
    use postgres_server::{Pooler, shared};
    static POOLER: std::sync::OnceLock<Option<Pooler>> = std::sync::OnceLock::new();
    let Some(server) = shared() else { return Vec::new() };
    let mut stores = vec![json!({"kind": "postgres", "url": server.database().url()})];
    if let Some(pooler) = POOLER.get_or_init(|| Pooler::start(server, 4)) {
        let url = server.database().url_at(&format!("127.0.0.1:{}", pooler.port));
        stores.push(json!({"kind": "postgres", "url": url, "encryptionKeys": [key]}));
    }
    stores
}

#[cfg(not(all(unix, feature = "postgres")))]
fn server_stores(_: &str) -> Vec<Value> {
    Vec::new()
}

/// A client; with callbacks, that of a host which keeps tokens in the folder `store.path`.
fn client(config: &Value) -> Client {
    let mut config = config.clone();
    let folder = match config["store"]["kind"].as_str() {
        Some("callbacks") => config["store"].as_object_mut().unwrap().remove("path"),
        _ => None,
    };
    let config = Config::from_json(&config.to_string()).unwrap();
    match folder {
        None => Client::new(&config),
        Some(folder) => {
            Client::with_host(&config, Arc::new(FolderHost::new(Path::new(folder.as_str().unwrap()))))
        }
    }
    .unwrap()
}

fn config(emulator: &Emulator, store: &Value) -> Value {
    json!({
        "clientId": emulator.client_id(), "clientSecret": emulator.client_secret(), "baseUrl": emulator.base_url(),
        "authorizeUrl": emulator.authorize_url(), "redirectUri": emulator.redirect_uri(),
        "scopes": ["oauth.readonly", "oauth.write", "locations.readonly"], "retry": {"baseDelayMs": 5},
        "store": store,
    })
}

/// Connects the company and mints its locations' tokens.
fn connect(emulator: &Emulator, config: &Value) -> Client {
    let client = client(config);
    let link = client.authorization_url(Default::default()).unwrap();
    let decision = Decision::Company(emulator.company_id());
    let redirect_url = emulator.consent(link["url"].as_str().unwrap(), decision).unwrap();
    let params: CompleteParams = serde_json::from_value(json!({"redirectUrl": redirect_url})).unwrap();
    client.authorization_complete(&params).unwrap();
    for location_id in emulator.location_ids() {
        client.access_token(&location_id).unwrap();
    }
    client
}

/// Makes every stored token as old as if a day had passed.
fn expire(client: &Client) {
    let mut page = client.tokens_export(&Default::default()).unwrap();
    for token in page["tokens"].as_array_mut().unwrap() {
        token["expiresAt"] = 1_700_000_000_000_i64.into();
    }
    page["replace"] = true.into();
    client.tokens_import(serde_json::from_value(page).unwrap()).unwrap();
}

fn refreshes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken)
}

// ---- The tests ------------------------------------------------------------------------------------------------------

#[test]
fn sixty_four_callers_in_eight_processes_make_one_refresh() {
    let folder = tempfile::tempdir().unwrap();
    shared_stores(folder.path()).iter().for_each(sixty_four_callers);
}

fn sixty_four_callers(store: &Value) {
    let emulator = emulator();
    let config = config(&emulator, store);
    let client = connect(&emulator, &config);
    expire(&client);
    let mut workers: Vec<Worker> = (0..8).map(|_| start_worker(&config)).collect();
    emulator.respond_latency(Duration::from_millis(50));
    let began = Instant::now();
    for worker in &mut workers {
        worker.say(&format!("ask {} 8", emulator.company_id()));
    }
    let answers: BTreeSet<String> = workers.iter_mut().map(Worker::line).collect();
    println!(
        "{}: 64 callers in 8 processes: {:?} with a round trip of 50 ms",
        store["kind"],
        began.elapsed()
    );
    assert_eq!(answers.len(), 1, "everybody got the same token");
    assert!(emulator.access_token_is_live(answers.first().unwrap()));
    assert_eq!(emulator.refreshes(), 1);
}

#[test]
fn the_death_of_a_refreshing_process_frees_its_lock_and_loses_nothing() {
    for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
        let folder = tempfile::tempdir().unwrap();
        shared_stores(folder.path()).iter().for_each(|store| the_holder_dies(store, stage));
    }
}

fn the_holder_dies(store: &Value, stage: Stage) {
    let emulator = emulator();
    let config = config(&emulator, store);
    let client = connect(&emulator, &config);
    expire(&client);
    let (mut first, mut second) = (start_worker(&config), start_worker(&config));
    let hold = emulator.hold(refreshes().times(1), stage);
    first.say(&format!("ask {}", emulator.company_id()));
    hold.wait_for(1);
    second.say(&format!("ask {}", emulator.company_id()));
    let died = Instant::now();
    drop(first);
    let token = second.line();
    println!(
        "{}, {stage:?}: the next process had its token {:?} after the holder's death",
        store["kind"],
        died.elapsed()
    );
    assert!(emulator.access_token_is_live(&token), "{token}");
    hold.release();
}

#[test]
fn a_slow_refresh_blocks_no_other_resource() {
    let folder = tempfile::tempdir().unwrap();
    shared_stores(folder.path()).iter().for_each(a_slow_refresh);
}

fn a_slow_refresh(store: &Value) {
    let emulator = emulator();
    let config = config(&emulator, store);
    let client = connect(&emulator, &config);
    let locations = emulator.location_ids();
    let (mut first, mut second) = (start_worker(&config), start_worker(&config));
    let hold = emulator.hold(refreshes().resource(&locations[0]), Stage::BeforeProcessing);
    first.say(&format!("refresh {}", locations[0]));
    hold.wait_for(1);
    assert_eq!(second.answer(&format!("refresh {}", locations[1])), "refreshed");
    assert_eq!(second.answer(&format!("refresh {}", emulator.company_id())), "refreshed");
    hold.release();
    assert_eq!(first.line(), "refreshed");
    drop(client);
}

/// A generator of our own, so that a run can be repeated from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// Workers refresh the company and its locations without end, answers get lost, and workers are killed at random
/// moments. Afterwards every token is accounted for.
fn crash(store: &Value, window_seconds: u64, wanted: u64) {
    let seed = env::var("GHL_CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    let mut dice = Dice(seed);
    let emulator = emulator();
    emulator.set_reuse_window_seconds(window_seconds);
    let config = config(&emulator, store);
    drop(connect(&emulator, &config));
    let company = emulator.company_id();
    let mut resources = emulator.location_ids();
    resources.push(company.clone());
    emulator.inject(refreshes().probability(0.02), FaultKind::ReplyLost);
    emulator.inject(refreshes().probability(0.02), FaultKind::Reset { stage: Stage::BeforeProcessing });

    let start = || {
        let mut worker = start_worker(&config);
        worker.say(&format!("refresh-forever {}", resources.join(" ")));
        worker
    };
    let mut workers: Vec<Worker> = (0..3).map(|_| start()).collect();
    let (mut kills, mut consents) = (0, 0);
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    while emulator.refreshes() < wanted {
        // The moment of a death is where the victim happens to be after so many of its answers.
        let victim = usize::try_from(dice.roll(3)).unwrap();
        for _ in 0..dice.roll(30) {
            *answers.entry(workers[victim].line()).or_default() += 1;
        }
        workers[victim] = start();
        kills += 1;
        // Without the window a company can be lost, and says so; a person then consents again.
        let stored = client(&config);
        let page = stored.tokens_list(&Default::default()).unwrap();
        let items = page["items"].as_array().unwrap();
        if items
            .iter()
            .any(|item| item["resourceId"] == *company && item["state"] == "reauthorizationRequired")
        {
            consents += 1;
            drop(connect(&emulator, &config));
        }
    }
    drop(workers);
    emulator.clear_faults();

    // The account: each refresh token that is stored is one that the server honours, once whoever comes next has
    // finished what a dead process began.
    let survivor = client(&config);
    let mut lost = Vec::new();
    for resource_id in &resources {
        match survivor.token_refresh(resource_id) {
            Ok(_) => {
                let token = survivor.access_token(resource_id).unwrap();
                assert!(emulator.access_token_is_live(token.expose()), "{resource_id} got a dead token");
            }
            Err(error) => {
                assert_eq!(error.status(), Status::ReauthorizationRequired, "{error}");
                lost.push(resource_id.clone());
            }
        }
    }
    let live: BTreeSet<String> =
        emulator.live_refresh_tokens().into_iter().map(|token| token.refresh_token).collect();
    let export = survivor.tokens_export(&Default::default()).unwrap();
    for token in export["tokens"].as_array().unwrap() {
        let owner = token["locationId"].as_str().or(token["companyId"].as_str()).unwrap();
        let kept = live.contains(token["refreshToken"].as_str().unwrap());
        assert!(
            kept || lost.iter().any(|id| id == owner),
            "{owner}: the stored refresh token is dead, and nobody said so"
        );
    }
    println!(
        "{}: seed {seed}, window {window_seconds} s: {} refreshes, {kills} kills",
        store["kind"],
        emulator.refreshes()
    );
    for (answer, times) in &answers {
        println!("  {times:>6} x {answer}");
    }
    println!("  {consents:>6} x the company had to consent again; lost at the end: {}", lost.len());
    if window_seconds > 0 {
        assert_eq!((consents, lost.len()), (0, 0), "with the window nothing may be lost");
    } else {
        // A location is minted anew from its company, so only the company itself can be missing.
        assert!(lost.iter().all(|id| *id == company) || lost.contains(&company), "{lost:?}");
    }
}

fn wanted() -> u64 {
    env::var("GHL_CRASH_REFRESHES").ok().and_then(|wanted| wanted.parse().ok()).unwrap_or(200)
}

#[test]
fn crashes_lose_nothing_inside_the_window() {
    let folder = tempfile::tempdir().unwrap();
    shared_stores(folder.path()).iter().for_each(|store| crash(store, 30, wanted()));
}

#[test]
fn crashes_without_the_window_lose_only_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    shared_stores(folder.path()).iter().for_each(|store| crash(store, 0, wanted()));
}
