//! The corpus: recorded responses and deliveries of the real API, each in a file of
//! `tests/recordings`, sent to every entry point that it can reach. CONTRIBUTING.md explains how to
//! add one.

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth_emulator::{
    Decision, Emulator, Endpoint, FaultKind, GrantType, Options, Rule, Signature, Stage,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::*;

/// The initial number of recordings, as a minimum.
const AT_LEAST: usize = 60;

/// The maximum time that a mint waits for a rate limit; all other outcomes take less.
const PATIENCE: Duration = Duration::from_secs(5);

/// One recording. Personal details are replaced by fictional ones; `{companyId}`, `{locationId}`,
/// `{otherLocationId}`, `{appId}` and `{timestamp}` in the body stand for the IDs of the test.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Recording {
    /// Its meaning, in one line.
    meaning: String,
    confidence: Confidence,
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    /// JSON, or a text that is sent unchanged.
    body: Value,
    /// The outcome at each entry point; `*` is the outcome at every unnamed entry point.
    #[serde(default)]
    outcome: BTreeMap<String, String>,
}

/// The evidence that the real API sends this.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Confidence {
    High,
    Medium,
    Low,
}

/// The kind of recording, which determines the entry points that it can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    /// A response of any endpoint.
    Any,
    /// A response of `POST /oauth/token`.
    Token,
    /// A response of `POST /oauth/location-token`.
    LocationToken,
    /// A response of `GET /oauth/installed-locations`.
    List,
    Webhook,
}

/// An entry point: the requests that get the recorded response, and the call.
struct Entry {
    name: &'static str,
    endpoint: Endpoint,
    grant_type: Option<GrantType>,
    call: fn(&Fixture) -> String,
}

fn entry(name: &'static str, endpoint: Endpoint, call: fn(&Fixture) -> String) -> Entry {
    Entry { name, endpoint, grant_type: None, call }
}

fn token_entry(name: &'static str, grant_type: GrantType, call: fn(&Fixture) -> String) -> Entry {
    Entry { grant_type: Some(grant_type), ..entry(name, Endpoint::Token, call) }
}

fn entries(kind: Kind) -> Vec<Entry> {
    let token = || {
        vec![
            token_entry("ghl_oauth_token, code", GrantType::AuthorizationCode, |fixture| {
                let params = json!({"grantType": "authorization_code", "code": fixture.code});
                said(fixture.abi.oauth_token(params))
            }),
            token_entry("ghl_authorization_complete", GrantType::AuthorizationCode, |fixture| {
                let redirect = fixture
                    .abi
                    .consent(&fixture.emulator, Decision::Company(fixture.company.clone()));
                said(fixture.abi.authorization_complete(json!({"redirectUrl": redirect})))
            }),
            token_entry("ghl_oauth_token, refresh", GrantType::RefreshToken, |fixture| {
                let params =
                    json!({"grantType": "refresh_token", "refreshToken": fixture.refresh_token});
                said(fixture.abi.oauth_token(params))
            }),
            token_entry("ghl_token_refresh", GrantType::RefreshToken, |fixture| {
                said(fixture.abi.token_refresh(&fixture.company))
            }),
        ]
    };
    let location_token = || {
        vec![
            entry("ghl_oauth_location_token", Endpoint::LocationToken, |fixture| {
                let params = json!({
                    "companyId": fixture.company, "locationId": fixture.location,
                    "accessToken": fixture.access_token,
                });
                said(fixture.abi.oauth_location_token(params))
            }),
            entry("ghl_access_token, mint", Endpoint::LocationToken, |fixture| {
                said(fixture.abi.access_token(&fixture.location))
            }),
            entry("ghl_tokens_mint", Endpoint::LocationToken, |fixture| {
                let params =
                    json!({"companyId": fixture.company, "locationIds": [fixture.location]});
                // The callback ends a long wait for a rate limit.
                let began = Instant::now();
                reported(fixture.abi.tokens_mint(params, |_| began.elapsed() < PATIENCE))
            }),
        ]
    };
    let list = || {
        vec![
            entry("ghl_oauth_installed_locations", Endpoint::InstalledLocations, |fixture| {
                counted(
                    fixture.abi.oauth_installed_locations(json!({"companyId": fixture.company})),
                )
            }),
            entry("ghl_oauth_installed_locations, all", Endpoint::InstalledLocations, |fixture| {
                counted(
                    fixture.abi.oauth_installed_locations(
                        json!({"companyId": fixture.company, "all": true}),
                    ),
                )
            }),
            entry("ghl_tokens_mint, installed", Endpoint::InstalledLocations, |fixture| {
                let params = json!({"companyId": fixture.company, "installed": true});
                reported(fixture.abi.tokens_mint(params, |_| true))
            }),
        ]
    };
    let request = || {
        vec![entry("ghl_request", Endpoint::Location, |fixture| {
            let path = format!("/locations/{}", fixture.location);
            let outcome = fixture
                .abi
                .request(json!({"resourceId": fixture.location, "method": "GET", "path": path}));
            match outcome {
                Outcome(0, answer) => format!("answer {}", answer["status"]),
                outcome => said(outcome),
            }
        })]
    };
    match kind {
        Kind::Any => [token(), location_token(), list(), request()].into_iter().flatten().collect(),
        Kind::Token => token(),
        Kind::LocationToken => location_token(),
        Kind::List => list(),
        Kind::Webhook => Vec::new(),
    }
}

/// The outcome of a call: "ok", or the status and whether the error is retryable.
fn said(Outcome(code, document): Outcome) -> String {
    if code == 0 {
        return "ok".to_owned();
    }
    let error = &document["error"];
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{error}");
    assert!(error["help"].as_str().is_some_and(|help| help.len() > 8), "no advice: {error}");
    let name = status_name(code).trim_start_matches("GHL_ERR_");
    if error["retryable"] == true { format!("{name}, retryable") } else { name.to_owned() }
}

/// The outcome with the number of locations in a list.
fn counted(outcome: Outcome) -> String {
    match outcome {
        Outcome(0, list) => format!("ok, {} locations", list["items"].as_array().unwrap().len()),
        outcome => said(outcome),
    }
}

/// The outcome with the counts of a report, or its first failure.
fn reported(outcome: Outcome) -> String {
    match outcome {
        Outcome(0, report) => match report["failed"].get(0) {
            None => format!("ok, {} minted", report["minted"]),
            Some(failure) => {
                let error = &failure["error"];
                let name = error["status"].as_str().unwrap().trim_start_matches("GHL_ERR_");
                let retryable = if error["retryable"] == true { ", retryable" } else { "" };
                format!("listed: {name}{retryable}")
            }
        },
        outcome => said(outcome),
    }
}

/// A client, and the IDs, code and tokens for its call.
struct Fixture {
    emulator: Emulator,
    abi: Abi,
    company: String,
    location: String,
    code: String,
    refresh_token: String,
    access_token: String,
}

impl Fixture {
    fn new(kind: Kind) -> Fixture {
        let emulator = Emulator::start(Options { locations: 2, ..Options::default() }).unwrap();
        let abi = Abi::with(&emulator, json!({"timeouts": {"totalMs": 4_000}}));
        let Granted { company, code, refresh_token, access_token } = Granted::new(&emulator, &abi);
        let location = emulator.location_ids()[0].clone();
        if kind == Kind::Any {
            // Stores a token of the location first, so that the recording answers the request
            // itself.
            let path = format!("/locations/{location}");
            abi.request(json!({"resourceId": location, "method": "GET", "path": path})).ok();
        }
        Fixture { emulator, abi, company, location, code, refresh_token, access_token }
    }

    /// The recorded body with the IDs of this test.
    fn body(&self, recording: &Recording) -> String {
        let text = match &recording.body {
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        let timestamp = "2026-01-15T09:30:00.000Z";
        text.replace("{companyId}", &self.company)
            .replace("{locationId}", &self.location)
            .replace("{otherLocationId}", &self.emulator.location_ids()[1])
            .replace("{appId}", self.emulator.app_id())
            .replace("{timestamp}", timestamp)
    }
}

/// The outcome of a recorded response at one entry point, and the state of the connection
/// afterwards.
fn outcome_of(recording: &Recording, entry: &Entry) -> String {
    let mut fixture = Fixture::new(recording.kind);
    if entry.name.contains("mint") {
        // Only a location without a token is minted.
        let _ = fixture.abi.token_delete(&fixture.location);
    }
    if entry.name == "ghl_oauth_token, code" {
        let redirect =
            fixture.abi.consent(&fixture.emulator, Decision::Company(fixture.company.clone()));
        fixture.code = query(&redirect)["code"].clone();
    }
    let mut rule = Rule::on(entry.endpoint);
    rule.grant_type = entry.grant_type;
    let headers =
        recording.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let fault = FaultKind::Status {
        status: recording.status.expect("a response has a status"),
        body: fixture.body(recording),
        content_type: recording.headers.get("content-type").cloned(),
        headers,
        stage: Stage::BeforeProcessing,
    };
    let id = fixture.emulator.inject(rule, fault);
    let mut shown = (entry.call)(&fixture);
    assert!(fixture.emulator.strikes(id) > 0, "{}: the recording was not used", entry.name);
    fixture.emulator.clear_faults();
    if recording.kind == Kind::Any {
        // The company stays connected unless the API called its refresh token invalid.
        fixture.emulator.clock().advance(DAY);
        let again = fixture.abi.access_token(&fixture.company);
        match again.0 {
            0 => {
                assert!(
                    fixture.emulator.access_token_is_live(&again.text()),
                    "{}: a dead token",
                    entry.name
                )
            }
            _ => shown = format!("{shown}; then {}", said(again)),
        }
    }
    shown
}

/// The outcome of a delivery.
fn outcome_of_delivery(recording: &Recording) -> BTreeMap<String, String> {
    let fixture = Fixture::new(Kind::Webhook);
    let body = fixture.body(recording);
    let headers = signed(&fixture.emulator, body.as_bytes(), Signature::Ed25519);
    let verified = said(fixture.abi.webhook_verify(body.as_bytes(), &headers));
    let applied = match fixture.abi.webhook_apply(body.as_bytes(), &headers) {
        Outcome(0, outcome) if outcome["applied"] == true => "applied".to_owned(),
        Outcome(0, outcome) => {
            let reason = outcome["reason"].as_str().expect("a reason");
            let names = [&fixture.company, &fixture.location].map(|id| (id.as_str(), "…"));
            let reason =
                names.iter().fold(reason.to_owned(), |text, (id, other)| text.replace(id, other));
            format!("left alone: {reason}")
        }
        outcome => said(outcome),
    };
    let held = fixture.abi.tokens_list(json!({})).ok();
    let mut held: Vec<&str> = held["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["userType"].as_str().unwrap())
        .collect();
    held.sort_unstable();
    BTreeMap::from([
        ("ghl_webhook_verify".to_owned(), verified),
        ("ghl_webhook_apply".to_owned(), applied),
        ("held afterwards".to_owned(), held.join(", ")),
    ])
}

/// Abbreviates the outcomes: the most frequent one becomes `*`.
fn in_short(outcomes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    outcomes.values().for_each(|outcome| *counts.entry(outcome).or_default() += 1);
    let Some((usual, count)) = counts.into_iter().max_by_key(|(_, count)| *count) else {
        return BTreeMap::new();
    };
    if count < 2 {
        return outcomes.clone();
    }
    let others = outcomes.iter().filter(|(_, outcome)| *outcome != usual);
    let others = others.map(|(name, outcome)| (name.clone(), outcome.clone()));
    others.chain([("*".to_owned(), usual.clone())]).collect()
}

fn outcomes(recording: &Recording) -> BTreeMap<String, String> {
    match recording.kind {
        Kind::Webhook => outcome_of_delivery(recording),
        kind => {
            let entries = entries(kind);
            entries
                .iter()
                .map(|entry| (entry.name.to_owned(), outcome_of(recording, entry)))
                .collect()
        }
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// With `GHL_UPDATE_RECORDINGS=1` the outcomes are written into the files; review them before the
/// commit.
#[test]
fn every_recorded_response_has_its_documented_outcome_at_every_entry_point() {
    let update = std::env::var_os("GHL_UPDATE_RECORDINGS").is_some();
    let files = files();
    assert!(files.len() >= AT_LEAST, "{} recordings", files.len());
    let left: Mutex<VecDeque<&PathBuf>> = Mutex::new(files.iter().collect());
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(file) = left.lock().unwrap().pop_front() else { break };
                    let name = file.file_name().unwrap().to_string_lossy();
                    let text = fs::read_to_string(file).unwrap();
                    let mut recording: Recording = serde_json::from_str(&text)
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert!(recording.meaning.len() > 10, "{name}: the meaning is missing");
                    let found = in_short(&outcomes(&recording));
                    if found == recording.outcome {
                        continue;
                    }
                    if update {
                        recording.outcome = found;
                        fs::write(
                            file,
                            format!("{}\n", serde_json::to_string_pretty(&recording).unwrap()),
                        )
                        .unwrap();
                    } else {
                        let found = serde_json::to_string_pretty(&found).unwrap();
                        wrong.lock().unwrap().push(format!("{name}: its outcome is {found}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "if that is what is wanted, run GHL_UPDATE_RECORDINGS=1 cargo test --test recordings\n{}",
        wrong.join("\n")
    );
}
