//! Secrets in the memory of a process. The program wipes every secret that it receives, so each one
//! that is found is stored by the library or was left behind.
#![cfg(all(target_os = "linux", feature = "wiping-allocator", feature = "sqlite"))]

mod built;
mod tunnel;
mod worker;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ghl_oauth_emulator::{Decision, Emulator, Endpoint, FaultKind, Options, Rule, Stage};
use serde_json::{Value, json};
use worker::Worker;

/// Equal pieces of this length are no coincidence.
const PIECE: usize = 16;

/// The secrets to search for by name, cut into pieces, because half a token is a secret as well.
#[derive(Default)]
struct Canaries {
    pieces: Vec<(String, Vec<u8>)>,
    by_beginning: BTreeMap<[u8; 2], Vec<usize>>,
}

impl Canaries {
    fn add(&mut self, what: &str, secret: &str) {
        // Only the signature of a JWT is used: all tokens of a company share the rest.
        let part = secret.rsplit('.').next().unwrap();
        assert!(part.len() >= PIECE, "{what} is too short to look for");
        for piece in part.as_bytes().chunks_exact(PIECE) {
            self.by_beginning.entry([piece[0], piece[1]]).or_default().push(self.pieces.len());
            self.pieces.push((what.to_owned(), piece.to_vec()));
        }
    }

    fn add_token(&mut self, what: &str, token: &Value) {
        for (name, field) in [("access token", "accessToken"), ("refresh token", "refreshToken")] {
            self.add(&format!("{what} {name}"), token[field].as_str().unwrap());
        }
    }

    /// The number of occurrences of each secret in the writable memory of a process, counting its
    /// most frequent piece.
    fn search(&self, process: u32) -> BTreeMap<&str, usize> {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
        let memory = File::open(format!("/proc/{process}/mem")).unwrap();
        let mut times = vec![0; self.pieces.len()];
        for map in maps.lines().filter(|map| map.split(' ').nth(1).unwrap().starts_with("rw")) {
            let (from, to) = map.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            memory.read_exact_at(&mut bytes, from).unwrap();
            for (at, beginning) in
                bytes.windows(2).enumerate().filter(|(_, beginning)| beginning[0] != 0)
            {
                for piece in self.by_beginning.get(beginning).into_iter().flatten() {
                    times[*piece] += usize::from(bytes[at..].starts_with(&self.pieces[*piece].1));
                }
            }
        }
        let mut found = BTreeMap::new();
        for ((what, _), times) in self.pieces.iter().zip(times).filter(|(_, times)| *times > 0) {
            let most = found.entry(what.as_str()).or_default();
            *most = times.max(*most);
        }
        found
    }
}

/// The program, which uses every function that handles secrets.
struct Run {
    emulator: Emulator,
    worker: Worker,
    canaries: Canaries,
}

impl Run {
    /// Starts the C program with these configuration changes.
    fn start(changes: Value) -> Run {
        Run::of("tests/abi/memory.c", changes)
    }

    /// Starts the C or the C++ program.
    fn of(source: &str, changes: Value) -> Run {
        let emulator = Emulator::start(Options { locations: 2, ..Options::default() }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let program = built::program(source, folder.path());
        let worker = Worker::start(Command::new(program).env("LD_LIBRARY_PATH", built::folder()));
        let mut run = Run { emulator, worker, canaries: Canaries::default() };
        let mut config: Value = serde_json::from_str(&run.emulator.configuration()).unwrap();
        config["retry"] = json!({"baseDelayMs": 1, "maxDelayMs": 5});
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        run.canaries.add("client secret", run.emulator.client_secret());
        assert_eq!(run.call("new", config), json!({}));
        run
    }

    fn call(&mut self, name: &str, parameters: impl ToString) -> Value {
        serde_json::from_str(&self.worker.answer(&format!("{name} {}", parameters.to_string())))
            .unwrap()
    }

    fn succeeds(&mut self, name: &str, parameters: impl ToString) -> Value {
        let document = self.call(name, parameters);
        assert!(document["error"].is_null(), "{name}: {document}");
        document
    }

    /// Records the currently stored tokens under this name.
    fn note(&mut self, what: &str) -> Value {
        let export = self.succeeds("tokens_export", "{}");
        for token in export["tokens"].as_array().unwrap() {
            let resource = token["locationId"].as_str().map_or("company", |_| "location");
            self.canaries.add_token(&format!("{what} {resource}"), token);
        }
        export
    }

    /// Consent, refreshes, mints, lists, raw endpoints, import and export, and failures of each.
    fn everything(&mut self) {
        let company = self.emulator.company_id();
        let location = self.emulator.location_ids().remove(0);
        let link = self.succeeds("authorization_url", "{}");
        let decision = Decision::Company(company.clone());
        let redirect = self.emulator.consent(link["url"].as_str().unwrap(), decision).unwrap();
        let query = redirect.split_once('?').unwrap().1.to_owned();
        let code =
            form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "code").unwrap().1;
        self.canaries.add("code", &code);
        self.succeeds("authorization_complete", json!({"redirectUrl": redirect}));
        self.note("spent");
        self.succeeds("token_refresh", &company);
        self.succeeds("installed_locations", json!({"companyId": company}));
        let mut bearer =
            self.succeeds("location_token", json!({"companyId": company, "locationId": location}));
        self.canaries.add_token("minted", &bearer);
        self.succeeds("token_refresh", &location);
        self.note("spent");
        self.succeeds("token_refresh", &company);
        self.succeeds("token_refresh", &location);

        let spend =
            json!({"grantType": "refresh_token", "refreshToken": bearer["refreshToken"].take()});
        let raw = self.succeeds("oauth_token", spend);
        self.canaries.add_token("raw", &raw);
        self.canaries.add("given secret", "a-secret-of-another-client");
        let given = json!({"grantType": "refresh_token", "refreshToken": raw["refreshToken"],
                           "clientSecret": "a-secret-of-another-client"});
        let echo = format!("<p>{} {}</p>", self.emulator.client_secret(), raw["refreshToken"]);
        let answers = [400, 500].map(|status| FaultKind::Status {
            status,
            body: echo.clone(),
            content_type: None,
            headers: Vec::new(),
            stage: Stage::AfterProcessing,
        });
        let others = [
            FaultKind::ReplyLost,
            FaultKind::CutBody { body_bytes: 700, ending: Default::default() },
            FaultKind::TruncatedJson,
            FaultKind::Stringified,
            FaultKind::HugeHead { bytes: 1 << 20, lines: 1 },
        ];
        for kind in answers.into_iter().chain(others) {
            let fault = self.emulator.inject(Rule::on(Endpoint::Any).times(1), kind);
            self.call("oauth_token", &given);
            self.emulator.remove_fault(fault);
            let fault =
                self.emulator.inject(Rule::on(Endpoint::Token).times(1), FaultKind::ReplyLost);
            self.succeeds("token_refresh", &company);
            self.emulator.remove_fault(fault);
        }
        let export = self.note("held");
        self.succeeds("tokens_import", &export);
        self.succeeds("tokens_import", json!({"replace": true, "tokens": export["tokens"]}));
        let token = self.worker.answer(&format!("access_token {company}"));
        assert!(self.emulator.access_token_is_live(&token));
        self.call(
            "tokens_import",
            export.to_string().replace("tokens", "toke\\u006es").replace("expiresAt", "x"),
        );
        for name in ["tokens_list", "maintain", "stats"] {
            self.succeeds(name, "{}");
        }
    }

    fn search(&self) -> BTreeMap<&str, usize> {
        self.canaries.search(self.worker.id())
    }
}

impl Run {
    /// Asserts that the search finds a secret that the program itself keeps.
    fn assert_search_works(&mut self) {
        self.canaries.add("control", "a-secret-that-is-kept");
        assert_eq!(self.worker.answer("keep a-secret-that-is-kept"), "kept");
        assert_eq!(self.search().get("control"), Some(&1));
    }
}

#[test]
fn secrets_are_in_memory_once_and_wiped_when_the_client_is_freed() {
    nothing_is_left_by("tests/abi/memory.c");
}

#[test]
fn cpp_header_leaves_no_secrets_in_memory() {
    nothing_is_left_by("tests/abi/cpp_memory.cpp");
}

fn nothing_is_left_by(source: &str) {
    let mut run = Run::of(source, json!({}));
    run.everything();
    let held = [
        "client secret",
        "held company access token",
        "held company refresh token",
        "held location access token",
        "held location refresh token",
    ];
    assert_eq!(run.search(), held.map(|what| (what, 1)).into());
    run.succeeds("free", "");
    assert_eq!(run.search(), BTreeMap::new());
    run.assert_search_works();
}

#[test]
fn deleted_or_refreshed_token_is_wiped_at_once() {
    let mut run = Run::start(json!({}));
    run.everything();
    let (company, location) = (run.emulator.company_id(), run.emulator.location_ids().remove(0));
    run.succeeds("token_delete", location);
    run.succeeds("token_refresh", company);
    assert_eq!(run.search(), [("client secret", 1)].into());
}

/// The page cache of SQLite has its own allocator, which does not wipe freed memory.
#[test]
fn sqlite_leaves_only_stored_tokens_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let store = json!({"kind": "sqlite", "path": folder.path().join("tokens.db")});
    let mut run = Run::start(json!({"store": store}));
    run.everything();
    run.succeeds("free", "");
    let found = run.search();
    let stored = |what: &&str| what.starts_with("held") || what.starts_with("spent");
    assert!(found.keys().all(stored), "{found:?}");
    run.assert_search_works();
}

#[test]
fn proxy_password_is_wiped_with_the_client() {
    let password = "the-password-of-the-proxy";
    let proxy = tunnel::tunnel(tunnel::OPEN);
    let mut run = Run::start(json!({"http": {
        "proxy": format!("http://user:{password}@{proxy}"), "allowInsecureHttp": true,
    }}));
    run.canaries.add("password", password);
    run.canaries.add("authorization", &STANDARD.encode(format!("user:{password}")));
    run.everything();
    assert!(
        run.search().contains_key("password"),
        "the connection pool needs the password for its next connection"
    );
    run.succeeds("free", "");
    assert_eq!(run.search(), BTreeMap::new());
}
