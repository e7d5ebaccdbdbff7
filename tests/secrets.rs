//! Puts known secrets in every possible place, runs every failure, and searches all output: errors,
//! events, the log at its most verbose level, statistics, metadata, `Debug` output, the output of
//! the process, and its files. tests/memory.rs searches the memory.

mod support;
mod tunnel;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::ffi::{CStr, c_char, c_void};
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::sync::Arc;
use std::thread;

use ghl_oauth::internals::api::{InstalledLocationsParams, LocationTokenParams, TokenParams};
use ghl_oauth::internals::authorization::{CompleteParams, UrlParams};
use ghl_oauth::internals::ffi::ghl_set_log_callback;
use ghl_oauth::internals::secret::Secret;
use ghl_oauth::internals::store::Record;
use ghl_oauth::internals::token::{Token, UserType};
use ghl_oauth::internals::{Client, Config, Status};
use ghl_oauth_emulator::{Decision, Emulator, Ending, FaultKind, Notice, Rule, Signature, Stage};
use serde_json::{Value, json};
use support::{Abi, DAY, Outcome, PanickingClock, config, emulator, free_port, signed};

const GIVEN_SECRET: &str = "the-secret-of-another/client+";
const GIVEN_TOKEN: &str = "an-access-token-that-was-given";
const IMPORTED: [&str; 2] = ["an-imported-access-token", "an-imported-refresh-token"];
const HOSTS_STATE: &str = "a-state-of-the-hosts-own";
const PASSWORD: &str = "the-password-of-the-proxy";

/// The prefix of every token of the emulator, including tokens that no test has seen.
const ANY_TOKEN: &str = "eyJhbGciOiJ";

/// Set for the child process that runs the table; its parent checks the output.
const PLAYING: &str = "GHL_TEST_SECRETS";

/// Known secrets.
#[derive(Default)]
struct Canaries(BTreeSet<String>);

impl Canaries {
    fn of(emulator: &Emulator) -> Canaries {
        let mut canaries = Canaries::default();
        for secret in
            [GIVEN_SECRET, GIVEN_TOKEN, HOSTS_STATE, PASSWORD, ANY_TOKEN, emulator.client_secret()]
        {
            canaries.add(secret);
        }
        IMPORTED.iter().for_each(|secret| canaries.add(secret));
        canaries
    }

    /// Adds a secret as a whole and in every encoding that a server or a log may use.
    fn add(&mut self, secret: &str) {
        // The header and claims of a JWT are no secret; half of its signature is.
        for piece in
            secret.rsplit('.').next().unwrap().as_bytes().chunks(48).filter(|piece| piece.len() > 8)
        {
            let piece = std::str::from_utf8(piece).unwrap();
            self.0.insert(piece.to_owned());
            for spelling in SPELLINGS {
                self.0.insert(spelling(piece));
            }
        }
    }

    fn add_tokens(&mut self, export: &Value) {
        for token in export["tokens"].as_array().unwrap() {
            for name in ["accessToken", "refreshToken"] {
                self.add(token[name].as_str().unwrap());
            }
        }
    }

    fn show_in(&self, text: &str) -> bool {
        self.0.iter().any(|secret| text.contains(secret))
    }

    #[track_caller]
    fn are_not_in(&self, place: &str, text: &str) {
        for secret in &self.0 {
            if let Some(at) = text.find(secret) {
                let line = text[..at].lines().count().saturating_sub(1);
                let line: String = text.lines().nth(line).unwrap().chars().take(400).collect();
                panic!("{place:.200}: {secret} shows in {line}");
            }
        }
    }
}

const SPELLINGS: [fn(&str) -> String; 5] = [
    str::to_owned,
    |secret| form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
    |secret| secret.bytes().map(|byte| format!("%{byte:02x}")).collect(),
    |secret| secret.bytes().map(|byte| format!("\\u{byte:04X}")).collect(),
    |secret| secret.bytes().map(|byte| format!("&#{byte};")).collect(),
];

thread_local! {
    /// The log messages of this thread.
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn listen_to_the_log() {
    unsafe extern "C" fn hear(level: i32, message: *const c_char, _: *mut c_void) {
        // SAFETY: the library passes a NUL-terminated text.
        let message = unsafe { CStr::from_ptr(message) }.to_str().unwrap();
        LOG.with_borrow_mut(|log| log.push(format!("{level} {message}")));
    }
    // SAFETY: a function of the required type, valid for the lifetime of the process.
    assert_eq!(unsafe { ghl_set_log_callback(Some(hear), ptr::null_mut(), 5) }, 0);
}

fn log() -> Vec<String> {
    LOG.take()
}

/// Faults of a server that add a text wherever possible: `echo`, a part of the request, in every
/// encoding; and `tokens` unchanged.
fn faults(echo: &str, tokens: &str) -> Vec<FaultKind> {
    let mut faults = vec![
        FaultKind::ReplyLost,
        FaultKind::Reset { stage: Stage::BeforeProcessing },
        FaultKind::Reset { stage: Stage::AfterProcessing },
        FaultKind::CutBody { body_bytes: 600, ending: Ending::Close },
        FaultKind::CutBody { body_bytes: 600, ending: Ending::Reset },
        FaultKind::EmptyBody,
        FaultKind::TruncatedJson,
        FaultKind::NotJson,
        FaultKind::Stringified,
        FaultKind::WrongTypes,
        FaultKind::SnakeCase,
        FaultKind::Gzip { marked: true },
        FaultKind::Gzip { marked: false },
        FaultKind::HugeBody { bytes: 2_000_000, chunked: false },
        FaultKind::HugeHead { bytes: 1 << 20, lines: 1 },
        FaultKind::HugeHead { bytes: 1 << 20, lines: 1000 },
    ];
    // The new token, in a response with an error status.
    faults.extend(
        [201, 302, 400, 401, 403, 404, 422, 500, 502]
            .map(|status| FaultKind::ReplaceStatus { status }),
    );
    for spelling in SPELLINGS {
        let echo = format!("{} {tokens}", spelling(echo));
        let quoted = json!(echo);
        let raw = |text: String| FaultKind::Raw { text, ending: Ending::Close };
        faults.extend([
            FaultKind::Redirect {
                status: 307,
                location: Some(format!("https://evil.example/?{}", echo.replace(' ', "&"))),
            },
            raw(format!("{echo}\r\n\r\n")),
            raw(format!("HTTP/1.1 {echo}\r\n\r\n")),
            raw(format!("HTTP/1.1 200 {echo}\r\n{echo}\r\n\r\n")),
            raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {echo}\r\n\r\n{echo}")),
            raw(format!(
                "HTTP/1.1 500 {echo}\r\nx-trace-id: {echo}\r\nretry-after: {echo}\r\n\r\n{echo}"
            )),
        ]);
        let bodies = [
            format!("<html><p>{echo}</p></html>"),
            format!("{}{echo}", "x".repeat(450)),
            format!(r#"{{"statusCode":400,"message":{quoted},"traceId":{quoted}}}"#),
            format!(r#"{{"message":[{quoted},{quoted}],"error":{quoted}}}"#),
            format!(r#"{{"error":{quoted},"error_description":{quoted}}}"#),
            format!(
                r#"{{"error":{{"code":{quoted},"message":{{"a":{quoted}}},"details":{{{quoted}:[{quoted}]}},"resolution":{quoted}}}}}"#
            ),
            format!(r#"{{"message":"{echo}","error":"invalid_grant"}}"#),
        ];
        for (body, status) in
            bodies.into_iter().zip([400, 401, 403, 422, 500, 404, 200].into_iter().cycle())
        {
            let headers = vec![
                ("x-trace-id".to_owned(), echo.clone()),
                ("location".to_owned(), echo.clone()),
            ];
            faults.push(FaultKind::Status {
                status,
                body,
                content_type: None,
                headers,
                stage: Stage::BeforeProcessing,
            });
        }
    }
    faults
}

/// One client, its calls, and its output.
struct Play {
    emulator: Emulator,
    abi: Abi,
    /// Another client, with long timeouts; the first client imports the tokens that it obtains.
    patient: Abi,
    panicking_clock: Arc<PanickingClock>,
    heard: Arc<support::EventRecorder>,
    canaries: Canaries,
}

impl Play {
    fn new(changes: Value) -> Play {
        let emulator = emulator(1);
        emulator.set_rate_limit(None);
        let panicking_clock = PanickingClock::new(&emulator);
        let mut config = json!({"rateLimit": {"requests": 100_000}});
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let abi = Abi::by(&emulator, config, Arc::<PanickingClock>::clone(&panicking_clock));
        let patient = Abi::with(&emulator, json!({"rateLimit": {"requests": 100_000}}));
        let heard = abi.listen();
        let canaries = Canaries::of(&emulator);
        Play { emulator, abi, patient, panicking_clock, heard, canaries }
    }

    /// Reconnects with all tokens due. Returns the tokens and the redirect URLs of two browsers.
    fn ready(&mut self) -> (String, [String; 2]) {
        self.canaries = Canaries::of(&self.emulator);
        // A deletion that times out would leave a token that the calls for other resources do not
        // expect.
        until_it_succeeds(|| match self.abi.token_delete("imported") {
            Outcome(code, document) if code == Status::NotFound.code() => Outcome(0, document),
            outcome => outcome,
        });
        let consent =
            || self.abi.consent(&self.emulator, Decision::Company(self.emulator.company_id()));
        self.patient.connect_company(&self.emulator);
        self.patient.token_refresh(&self.emulator.location_ids()[0]).ok();
        let export = self.patient.tokens_export(json!({})).ok();
        let import = json!({"tokens": export["tokens"], "replace": true});
        until_it_succeeds(|| self.abi.tokens_import(import.clone()));
        self.canaries.add_tokens(&export);
        let tokens = export["tokens"].as_array().unwrap().iter();
        let tokens = tokens.flat_map(|token| {
            ["accessToken", "refreshToken"].map(|name| token[name].as_str().unwrap())
        });
        let tokens = tokens.collect::<Vec<_>>().join(" ");
        self.emulator.clock().advance(DAY);
        let redirects = [consent(), consent()];
        for redirect in &redirects {
            ["code", "state"]
                .iter()
                .for_each(|name| self.canaries.add(&support::query(redirect)[*name]));
        }
        (tokens, redirects)
    }

    /// Calls every entry point, each after `before`, which gets the secrets of the call. Returns
    /// the output that must not contain secrets: errors, and results that never hold one.
    fn everything(&self, [redirect, other]: &[String; 2], before: impl Fn(&str)) -> Vec<String> {
        let (abi, company, location) =
            (&self.abi, self.emulator.company_id(), self.emulator.location_ids().remove(0));
        let code = support::query(redirect)["code"].clone();
        let ids = || json!({"companyId": company, "locationId": location});
        let with_token = |mut params: Value| {
            params["accessToken"] = GIVEN_TOKEN.into();
            params
        };
        let exchange = || {
            let params = json!({
                "grantType": "authorization_code", "code": code, "clientSecret": GIVEN_SECRET,
            });
            abi.oauth_token(params)
        };
        let repeated = support::query(other);
        let refused = format!(
            "{other}&error=no&error_description={}+{}",
            repeated["code"], repeated["state"]
        );
        let session = json!({
            "access_token": IMPORTED[0], "refreshToken": IMPORTED[1], "companyId": "imported",
        });
        let sessions = json!({
            "tokens": [session, {"accessToken": [IMPORTED[0]]}, {"refreshToken": IMPORTED[1]}],
        });
        // These results come from the server: only their errors are checked.
        let granting: [(&str, &dyn Fn() -> Outcome); 11] = [
            ("", &|| abi.access_token(&location)),
            ("", &|| abi.access_token(&company)),
            ("", &|| abi.oauth_token(json!({"grantType": "client_credentials"}))),
            (&format!("{code} {GIVEN_SECRET}"), &exchange),
            (GIVEN_TOKEN, &|| {
                abi.oauth_token(json!({"grantType": "refresh_token", "refreshToken": GIVEN_TOKEN}))
            }),
            ("", &|| abi.oauth_location_token(ids())),
            (GIVEN_TOKEN, &|| abi.oauth_location_token(with_token(ids()))),
            ("", &|| abi.oauth_installed_locations(json!({"companyId": company, "all": true}))),
            (GIVEN_TOKEN, &|| {
                abi.oauth_installed_locations(with_token(json!({"companyId": company})))
            }),
            ("", &|| {
                let path = format!("/locations/{location}");
                abi.request(json!({"method": "GET", "path": path, "resourceId": location}))
            }),
            (GIVEN_TOKEN, &|| {
                let bearer = format!("Bearer {GIVEN_TOKEN}");
                abi.request(json!({
                    "method": "POST", "path": "/x", "headers": {"Authorization": bearer},
                    "body": GIVEN_TOKEN,
                }))
            }),
        ];
        let install = self.emulator.webhook(&Notice::Install(location.clone()));
        let signature = signed(&self.emulator, install.as_bytes(), Signature::Ed25519);
        let others: [(&str, &dyn Fn() -> Outcome); 17] = [
            ("", &|| {
                abi.authorization_complete(json!({"redirectUrl": redirect, "state": HOSTS_STATE}))
            }),
            ("", &|| {
                abi.authorization_complete(json!({"redirectUrl": format!("{redirect}&code=twice")}))
            }),
            (&code, &|| abi.authorization_complete(json!({"redirectUrl": redirect}))),
            ("", &|| abi.authorization_complete(json!({"redirectUrl": redirect}))),
            ("", &|| abi.authorization_complete(json!({"redirectUrl": refused}))),
            ("", &|| abi.token_refresh(&company)),
            ("", &|| abi.token_refresh(&location)),
            ("", &|| {
                let outcome = abi.tokens_import(sessions.clone());
                // The import must succeed: without its token, the refresh below would be a mint.
                until_it_succeeds(|| abi.tokens_import(sessions.clone()));
                outcome
            }),
            ("", &|| abi.tokens_import(json!({"tokens": [IMPORTED[0]]}))),
            (IMPORTED[1], &|| abi.token_refresh("imported")),
            ("", &|| abi.tokens_maintain(json!({}), |_| true)),
            ("", &|| abi.tokens_list(json!({}))),
            ("", &|| {
                abi.tokens_mint(
                    json!({"companyId": company, "installed": true, "force": true}),
                    |_| true,
                )
            }),
            ("", &|| abi.webhook_verify(install.as_bytes(), &signature)),
            ("", &|| abi.webhook_apply(install.as_bytes(), &signature)),
            ("", &|| {
                abi.authorization_listen(
                    json!({"port": free_port(), "timeoutMs": 1, "state": HOSTS_STATE}),
                )
            }),
            ("", &|| abi.token_delete("imported")),
        ];
        let mut shown = vec![abi.stats().to_string(), abi.metrics(json!({})).1.to_string()];
        for (own, call) in granting {
            before(own);
            let Outcome(code, document) = call();
            shown.extend((code != 0).then(|| document.to_string()));
        }
        for (own, call) in others {
            before(own);
            shown.push(call().1.to_string());
        }
        shown
    }

    /// Asserts that these texts, the log, the events and the requested URLs contain no secret.
    fn is_silent(&self, when: &str, mut said: Vec<String>) -> usize {
        said.extend(self.heard.events().iter().map(Value::to_string));
        said.extend(
            self.emulator
                .requests()
                .iter()
                .map(|request| format!("{}?{}", request.path, request.query)),
        );
        self.emulator.clear_requests();
        let log = log();
        self.canaries.are_not_in(&format!("{when}, the log"), &log.join("\n"));
        self.canaries.are_not_in(when, &said.join("\n"));
        log.len() + said.len()
    }

    /// Runs the whole table.
    fn play(&mut self, part: usize, of: usize) {
        let mut said = 0;
        let kinds = faults("", "").len();
        for kind in (part..kinds).step_by(of) {
            let (tokens, redirects) = self.ready();
            let outcomes = self.everything(&redirects, |own| {
                self.emulator.clear_faults();
                let echo = format!("{} {own}", self.emulator.client_secret());
                self.emulator.inject(Rule::default(), faults(&echo, &tokens).swap_remove(kind));
            });
            self.emulator.clear_faults();
            said += self.is_silent(&format!("{:?}", faults("", "").swap_remove(kind)), outcomes);
        }
        for reading in 1..6 {
            let (_, redirects) = self.ready();
            let outcomes = self.everything(&redirects, |_| self.panicking_clock.set(reading));
            self.panicking_clock.disarm();
            said += self.is_silent("a defect", outcomes);
        }
        let export = self.abi.tokens_export(json!({})).ok();
        self.canaries.add_tokens(&export);
        assert!(
            self.canaries.show_in(&export.to_string()),
            "the search finds the secrets of an export"
        );
        assert!(said > 20 * kinds / of, "{said} strings were searched");
    }
}

/// The table's deadline is short, so that each unsuccessful wait ends soon. On a busy machine a
/// call that needs no server may need several attempts.
fn until_it_succeeds(call: impl Fn() -> Outcome) {
    let tried = (0..1000).find(|_| call().0 == 0);
    tried.expect("a call without faults succeeds");
}

/// Not a test on its own: `failures_of_every_kind_reveal_no_secret` runs it in a child process.
#[test]
fn play() {
    if env::var_os(PLAYING).is_none() {
        return;
    }
    listen_to_the_log();
    const PARTS: usize = 24;
    thread::scope(|scope| {
        let parts: Vec<_> = (0..PARTS)
            .map(|part| {
                scope.spawn(move || {
                    let encoding = ["form", "json"][part % 2];
                    let config =
                        json!({"tokenRequestEncoding": encoding, "timeouts": {"totalMs": 300}});
                    Play::new(config).play(part, PARTS);
                })
            })
            .collect();
        parts.into_iter().for_each(|part| part.join().unwrap());
    });
}

#[test]
fn failures_of_every_kind_reveal_no_secret() {
    let mut player = Command::new(env::current_exe().unwrap());
    let player = player
        .args(["--exact", "play", "--nocapture"])
        .env(PLAYING, "1")
        .env("RUST_BACKTRACE", "0");
    let output = player.output().unwrap();
    let printed =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    Canaries::of(&emulator(1)).are_not_in("the output", &printed);
}

#[test]
fn proxy_failures_do_not_reveal_the_proxy_password() {
    listen_to_the_log();
    let open = tunnel::tunnel(tunnel::OPEN);
    let answers = ["407 Proxy Authentication Required\r\n\r\n", "502 \r\n\r\n", "200", ""];
    let echoing = answers
        .map(|answer| tunnel::tunnel(&format!("HTTP/1.1 {PASSWORD} {answer}{PASSWORD}\r\n\r\n")));
    for proxy in echoing.into_iter().chain(["127.0.0.1:1".to_owned(), open.clone()]) {
        let url = format!("http://user:{PASSWORD}@{proxy}");
        let mut play = Play::new(json!({"http": {"proxy": url, "allowInsecureHttp": true}}));
        let session = json!({"refreshToken": IMPORTED[1], "companyId": "c", "expiresAt": 0});
        let said = [
            play.abi.tokens_import(json!({"tokens": [session]})),
            play.abi.access_token("c"),
            play.abi.token_refresh("c"),
            play.abi.tokens_maintain(json!({}), |_| true),
            play.abi.oauth_token(json!({"grantType": "client_credentials"})),
        ];
        assert_eq!(said[4].0 == 0, proxy == open, "{proxy}");
        let said = said
            .into_iter()
            .filter(|Outcome(code, document)| *code != 0 || document["accessToken"].is_null());
        let said = said.map(|Outcome(_, document)| document.to_string()).collect();
        play.canaries.add(&base64(&format!("user:{PASSWORD}")));
        assert!(play.is_silent(&proxy, said) > 4);
    }
    for proxy in [
        format!("gopher://user:{PASSWORD}@host"),
        format!("http://user:{PASSWORD}@[host"),
        PASSWORD.into(),
    ] {
        let emulator = emulator(1);
        let Err(refused) = Abi::open(&config(
            &emulator,
            json!({"http": {"proxy": proxy, "userAgentSuffix": "\n"}}),
        )) else {
            panic!("{proxy} is accepted");
        };
        Canaries::of(&emulator).are_not_in(&proxy, &refused.1.to_string());
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// ureq and rustls log request heads; the host only receives messages of this crate.
#[test]
fn log_contains_only_messages_of_the_library() {
    listen_to_the_log();
    for target in [
        "ureq::run",
        "ureq_proto",
        "rustls::client",
        "rusqlite",
        "ghl_oauth_emulator",
        "ghl_oauthy",
        "",
    ] {
        log::error!(target: target, "from elsewhere");
        assert!(!log::log_enabled!(target: target, log::Level::Error), "{target}");
    }
    for target in ["ghl_oauth", "ghl_oauth::http"] {
        log::trace!(target: target, "from {target}");
    }
    assert_eq!(log(), ["5 from ghl_oauth", "5 from ghl_oauth::http"]);
}

#[test]
fn debug_output_of_every_type_shows_no_secret() {
    let emulator = emulator(1);
    let proxy = json!({"http": {"proxy": format!("http://user:{PASSWORD}@localhost")}});
    let config = Config::from_json(&config(&emulator, proxy).to_string()).unwrap();
    let secret = || Some(Secret::new(GIVEN_SECRET.into()));
    let mut exchange =
        TokenParams::code(Secret::new(GIVEN_TOKEN.into()), "https://app.example".into(), None);
    exchange.client_secret = secret();
    let token = Token {
        access_token: Secret::new(GIVEN_TOKEN.into()),
        refresh_token: secret(),
        issued_at: None,
        expires_at: 1,
        user_type: None,
        company_id: Some("company".into()),
        location_id: None,
        scope: None,
        fields: serde_json::Map::from_iter([("idToken".to_owned(), GIVEN_SECRET.into())]),
    };
    let refused =
        Client::new(&config).unwrap().oauth_token(&TokenParams { redirect_uri: None, ..exchange });
    let shown: [&dyn Debug; 11] = [
        &config,
        &secret(),
        &TokenParams::refresh(Secret::new(GIVEN_TOKEN.into()), Some(UserType::Company)),
        &TokenParams {
            client_secret: secret(),
            ..TokenParams::code(Secret::new(GIVEN_TOKEN.into()), "u".into(), None)
        },
        &LocationTokenParams {
            company_id: "c".into(),
            location_id: "l".into(),
            access_token: secret(),
        },
        &InstalledLocationsParams { access_token: secret(), ..Default::default() },
        &UrlParams { state: secret(), ..Default::default() },
        &CompleteParams {
            redirect_url: Secret::new(GIVEN_SECRET.into()),
            state: secret(),
            allow_missing_state: false,
            user_type: None,
            redirect_uri: None,
        },
        &token,
        &Record::new("company".into(), token.clone()),
        &refused,
    ];
    for shown in shown {
        let shown = format!("{shown:?} {shown:#?}");
        assert!(shown.len() > 8);
        Canaries::of(&emulator).are_not_in("Debug", &shown);
    }
}

/// The files of a folder and its subfolders.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            files.push((
                name,
                fs::read(path).unwrap().iter().map(|byte| char::from(*byte)).collect(),
            ));
        }
    }
    files
}

#[cfg(feature = "sqlite")]
#[test]
fn tokens_are_only_in_the_database_and_its_wal_and_only_while_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = json!({"kind": "sqlite", "path": folder.path().join("tokens.db")});
    let mut play = Play::new(json!({"store": store}));
    let holding = |canaries: &Canaries| -> Vec<String> {
        // Lock files are empty.
        let files = files(folder.path())
            .into_iter()
            .filter(|(_, text)| !text.is_empty() && canaries.show_in(text));
        let mut names: Vec<String> = files.map(|(name, _)| name).collect();
        names.sort();
        names
    };
    for _ in 0..3 {
        let (_, redirects) = play.ready();
        play.everything(&redirects, |_| ());
    }
    let ids = [play.emulator.company_id(), play.emulator.location_ids().remove(0)];
    ids.iter().for_each(|id| drop(play.abi.token_refresh(id).ok()));
    let tokens = || {
        let mut tokens = Canaries::default();
        tokens.add_tokens(&play.abi.tokens_export(json!({})).ok());
        tokens
    };
    let replaced = tokens();
    ids.iter().for_each(|id| drop(play.abi.token_refresh(id).ok()));
    assert_eq!(
        holding(&Canaries([String::new()].into())),
        ["tokens.db", "tokens.db-shm", "tokens.db-wal"]
    );
    assert_eq!(holding(&tokens()), ["tokens.db-wal"]);
    assert_eq!(holding(&replaced), ["tokens.db-wal"]);
    // Secrets other than tokens are in no file.
    let mut others = Canaries::default();
    others.add(GIVEN_SECRET);
    others.add(play.emulator.client_secret());
    assert_eq!(holding(&others), [""; 0]);

    // A deletion wipes the token and its predecessors at once.
    play.abi.token_delete(&ids[1]).ok();
    assert_eq!(holding(&tokens()), ["tokens.db"]);
    assert_eq!(holding(&replaced), [""; 0]);
    let last = tokens();
    play.abi.token_delete(&ids[0]).ok();
    assert_eq!(holding(&last), [""; 0]);
    assert_eq!(holding(&Canaries([ANY_TOKEN.to_owned()].into())), [""; 0]);
}
