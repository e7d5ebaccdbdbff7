//! The library's calls next to the least that the same work takes on the same system, as ratios:
//! `cargo bench --bench floor`. `benches/floor.py` runs it on Linux and under Wine in turns.
//!
//! Wall time, medians of alternating runs: the threads' CPU time has steps of some 16 ms on Windows.

mod handle;
mod stage;

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Seek, Write};
use std::net::TcpStream;
use std::sync::{Barrier, Mutex};
use std::time::Instant;

use ghl_oauth::internals::clock::{Clock, SystemClock};
use ghl_oauth::internals::ffi::client_from;
use ghl_oauth::internals::tokens::{ImportParams, ListParams};
use ghl_oauth::internals::{Client, Config};
use ghl_oauth_emulator::{Decision, Emulator, Options};
use handle::{Handle, free, into, refresh};
use serde_json::json;

const CALLS: u32 = 100_000;
const REFRESHES: u32 = 100;
const RUNS: usize = 15;
const TOKEN: [u8; 900] = [b't'; 900];

fn main() {
    cached_token();
    refreshes();
}

/// `ghl_access_token_into`, next to a mutex that is locked for the copy of a token.
fn cached_token() {
    let client = Client::new(&Config::new("app-1", "secret")).unwrap();
    let tokens = (0..1_000).map(|index| {
        let token = str::from_utf8(&TOKEN).unwrap();
        let token = json!({"accessToken": token, "locationId": id(index), "expiresIn": 86_399});
        token.as_object().unwrap().clone()
    });
    let params = ImportParams { tokens: tokens.collect(), ..ImportParams::default() };
    client.tokens_import(params).unwrap();
    let client = Handle(client_from(client));
    let locked = [Mutex::new(TOKEN), Mutex::new(TOKEN)];
    let (ids, clock) = ([c_id(3), c_id(500)], SystemClock::new());

    ratio(
        "cached token, one thread",
        || per_call(CALLS, &mut || into(client, &ids[0])),
        || per_call(CALLS, &mut || copy(&locked[0])),
    );
    ratio(
        "the library's clock alone",
        || per_call(CALLS, &mut || _ = black_box(clock.uptime())),
        || per_call(CALLS, &mut || copy(&locked[0])),
    );
    for (what, which) in [("one token each", [0, 1]), ("one token", [0, 0])] {
        ratio(
            &format!("cached token, two threads, {what}"),
            || together(which, &|index| into(client, &ids[index])),
            || together(which, &|index| copy(&locked[index])),
        );
    }
    free(client);
}

/// `ghl_token_refresh`, next to the same exchange by hand over one connection; and durably, by
/// SQLite, next to the exchange and one written and synced file.
fn refreshes() {
    let emulator =
        Emulator::start(Options { locations: 3, rate_limit: None, ..Options::default() }).unwrap();
    let ids = emulator.location_ids();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let database = json!({"kind": "sqlite", "path": folder.path().join("tokens.db")});
    let mut exchange = Exchange::new(&emulator, &ids[0]);
    let mut file =
        OpenOptions::new().create_new(true).write(true).open(folder.path().join("token")).unwrap();
    let stores = [(json!({"kind": "memory"}), "refresh"), (database, "durable refresh")];
    for (index, (store, what)) in stores.into_iter().enumerate() {
        let is_durable = index == 1;
        let id = &ids[index + 1];
        let client = Handle(client_from(connected(&emulator, store, id)));
        let id = CString::new(id.as_str()).unwrap();
        ratio(
            what,
            || per_call(REFRESHES, &mut || refresh(client, &id)),
            || {
                per_call(REFRESHES, &mut || {
                    let answer = exchange.refresh();
                    if is_durable {
                        save(&mut file, answer);
                    }
                })
            },
        );
        free(client);
    }
}

/// A client that holds a location's consent.
fn connected(emulator: &Emulator, store: serde_json::Value, location_id: &str) -> Client {
    let mut config = stage::configuration(emulator, store);
    config["rateLimit"] = json!({"requests": 1_000_000, "perMs": 10_000, "perDay": 1_000_000_000});
    let client = Client::new(&Config::from_json(&config.to_string()).unwrap()).unwrap();
    stage::connect(&client, emulator, Decision::Location(location_id.into()));
    client
}

fn save(file: &mut File, text: &str) {
    file.rewind().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.sync_all().unwrap();
}

/// A refresh by hand: a request in one packet over a connection that stays open, and a search for
/// the next refresh token.
struct Exchange {
    connection: TcpStream,
    form: String,
    refresh_token: String,
    received: Vec<u8>,
}

impl Exchange {
    fn new(emulator: &Emulator, location_id: &str) -> Self {
        let client = connected(emulator, json!({"kind": "memory"}), location_id);
        let exported = client.tokens_export(&ListParams::default()).unwrap();
        let address = emulator.base_url().replace("http://", "");
        let connection = TcpStream::connect(address).unwrap();
        connection.set_nodelay(true).unwrap();
        Self {
            connection,
            form: format!(
                "grantType=refresh_token&userType=Location&clientId={}&clientSecret={}",
                emulator.client_id(),
                emulator.client_secret()
            ),
            refresh_token: exported["tokens"][0]["refreshToken"].as_str().unwrap().to_owned(),
            received: vec![0; 16 * 1024],
        }
    }

    /// The body of the response.
    fn refresh(&mut self) -> &str {
        let length = self.form.len() + "&refreshToken=".len() + self.refresh_token.len();
        let request = format!(
            "POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nVersion: v3\r\nContent-Length: {length}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{}&refreshToken={}",
            self.form, self.refresh_token
        );
        self.connection.write_all(request.as_bytes()).unwrap();
        let mut filled = 0;
        let body = loop {
            let count = self.connection.read(&mut self.received[filled..]).unwrap();
            assert!(count > 0, "the server closed the connection");
            filled += count;
            let text = str::from_utf8(&self.received[..filled]).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let head = head.to_ascii_lowercase();
            let length = between(&head, "content-length: ", "\r").parse().unwrap();
            if body.len() == length {
                assert!(head.starts_with("http/1.1 200"), "{text}");
                break filled - length..filled;
            }
        };
        let body = str::from_utf8(&self.received[body]).unwrap();
        between(body, "\"refreshToken\":\"", "\"").clone_into(&mut self.refresh_token);
        body
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let rest = text.split_once(start).expect(start).1;
    rest.split(end).next().unwrap()
}

/// Prints the median ratio of two measures that run alternately.
fn ratio(what: &str, mut ours: impl FnMut() -> f64, mut floor: impl FnMut() -> f64) {
    let mut ratios: Vec<f64> = (0..RUNS)
        .map(|_| {
            let ours = ours();
            ours / floor()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("{what}: {:.2}", ratios[RUNS / 2]);
}

/// Seconds.
fn per_call(calls: u32, call: &mut dyn FnMut()) -> f64 {
    let began = Instant::now();
    for _ in 0..calls {
        call();
    }
    began.elapsed().as_secs_f64() / f64::from(calls)
}

/// Two threads that start at once; the slower one counts.
fn together(which: [usize; 2], call: &(dyn Fn(usize) + Sync)) -> f64 {
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        let threads = which.map(|index| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                per_call(CALLS, &mut || call(index))
            })
        });
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(0.0, f64::max)
    })
}

fn copy(token: &Mutex<[u8; TOKEN.len()]>) {
    let mut buffer = [0_u8; 1024];
    buffer[..TOKEN.len()].copy_from_slice(&*black_box(token).lock().unwrap());
    black_box(&mut buffer);
}

fn id(index: usize) -> String {
    format!("location{index:012}")
}

fn c_id(index: usize) -> CString {
    CString::new(id(index)).unwrap()
}
