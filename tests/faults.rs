//! Runs every fault on every endpoint through every entry point, and checks the error, the number
//! of requests, the time, and the state of the client and the connection afterwards. The expected
//! results are the tables of docs/errors.md.

mod support;

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::Status;
use ghl_oauth_emulator::{
    Certificate, Decision, Emulator, Ending, Endpoint, FaultKind, GrantType, Options, Refusal,
    Rule, Stage,
};
use serde_json::{Value, json};

use support::{Abi, DAY, Granted, Outcome, contains_none_of, free_port, response, status_name};

/// The deadline of a call if the server makes it wait.
const DEADLINE: Duration = Duration::from_millis(1_000);

/// The deadline of all other calls: ample, but too short for extended retries.
const AMPLE: Duration = Duration::from_secs(4);

/// The tolerance for machines with few processors. Every fault that makes a call wait lasts longer.
const LATE: Duration = Duration::from_secs(15);

/// A fault, named as in the documentation.
struct Fault {
    name: String,
    kind: FaultKind,
    /// The status in the error, if a response had one.
    http: Option<u16>,
    /// The part of the server's message that the error quotes.
    words: Option<&'static str>,
    /// The deadline of the call.
    total: Duration,
    /// The unreachable target that replaces the emulator, if any.
    wrong_place: Option<Place>,
}

/// A target that accepts no connection.
#[derive(Clone, Copy)]
enum Place {
    Nobody,
    Secure { certificate: Certificate, trusted: bool },
}

/// A fault without a server message.
fn silent(name: &'static str, kind: FaultKind) -> Fault {
    Fault { name: name.to_owned(), kind, http: None, words: None, total: AMPLE, wrong_place: None }
}

/// A fault that makes the caller wait for the deadline.
fn waiting(name: &'static str, kind: FaultKind) -> Fault {
    Fault { total: DEADLINE, ..silent(name, kind) }
}

/// A failed connection, whose cause the error names.
fn no_connection(name: &'static str, place: Place) -> Fault {
    Fault { wrong_place: Some(place), ..silent(name, FaultKind::ReplyLost) }
}

/// A response that replaces the normal one.
fn answer(name: &'static str, http: u16, body: &str, words: Option<&'static str>) -> Fault {
    let kind = response(http, body, &[("x-trace-id", "trace-of-the-head")]);
    Fault { http: Some(http), words, ..silent(name, kind) }
}

/// The same response with another header.
fn with_header(mut fault: Fault, name: &str, value: &str) -> Fault {
    if let FaultKind::Status { headers, .. } = &mut fault.kind {
        headers.push((name.to_owned(), value.to_owned()));
    }
    fault
}

/// A normal response, damaged.
fn spoiled(name: &'static str, http: u16, kind: FaultKind) -> Fault {
    Fault { http: Some(http), ..silent(name, kind) }
}

/// A refusal in the usual format of the vendor.
fn refusal(name: &'static str, http: u16, message: &'static str) -> Fault {
    let body =
        json!({"statusCode": http, "message": message, "traceId": "trace-of-the-body"}).to_string();
    answer(name, http, &body, Some(message))
}

fn timed_out(
    name: &'static str,
    stage: Stage,
    as_object: bool,
    words: Option<&'static str>,
) -> Fault {
    Fault { words, ..spoiled(name, 401, FaultKind::CommandTimedOut { stage, as_object }) }
}

fn redirect(name: &'static str, http: u16, location: Option<&str>) -> Fault {
    spoiled(name, http, FaultKind::Redirect { status: http, location: location.map(str::to_owned) })
}

fn faults() -> Vec<Fault> {
    let (before, after) = (Stage::BeforeProcessing, Stage::AfterProcessing);
    let cut = |ending| FaultKind::CutBody { body_bytes: 9, ending };
    let page = "<html><body>error code: 1010</body></html>";
    let raw = |text: &str| FaultKind::Raw { text: text.to_owned(), ending: Ending::Close };
    let secure = |certificate, trusted| Place::Secure { certificate, trusted };
    let ours = vec![
        no_connection("connection refused", Place::Nobody),
        no_connection("certificate for another host name", secure(Certificate::WrongName, true)),
        no_connection("expired certificate", secure(Certificate::Expired, true)),
        no_connection("certificate of an unknown authority", secure(Certificate::Good, false)),
        silent("reset before processing", FaultKind::Reset { stage: before }),
        silent("reset after processing", FaultKind::Reset { stage: after }),
        silent("lost response", FaultKind::ReplyLost),
        silent("connection closed within the body", cut(Ending::Close)),
        silent("reset within the body", cut(Ending::Reset)),
        waiting("no response before the deadline", FaultKind::Stall { stage: before }),
        waiting("no response after processing", FaultKind::Stall { stage: after }),
        waiting("response stalls within the body", cut(Ending::Silence)),
        waiting(
            "response dripped byte by byte",
            FaultKind::Drip { every_ms: 100, body_only: false },
        ),
        waiting("body dripped byte by byte", FaultKind::Drip { every_ms: 100, body_only: true }),
        silent("response is not HTTP", raw("SSH-2.0-OpenSSH_9.9\r\n")),
        silent("a header of 1 MB", FaultKind::HugeHead { bytes: 1 << 20, lines: 1 }),
        silent("1 MB of headers", FaultKind::HugeHead { bytes: 1 << 20, lines: 4_000 }),
        silent("a body of 200 MB", FaultKind::HugeBody { bytes: 200_000_000, chunked: false }),
        silent(
            "a chunked body of 200 MB",
            FaultKind::HugeBody { bytes: 200_000_000, chunked: true },
        ),
        spoiled("201 instead of 200", 201, FaultKind::ReplaceStatus { status: 201 }),
        spoiled("`snake_case` keys", 200, FaultKind::SnakeCase),
        spoiled("numbers and booleans as strings", 200, FaultKind::Stringified),
        spoiled("values of other types", 200, FaultKind::WrongTypes),
        spoiled("2xx, empty", 200, FaultKind::EmptyBody),
        spoiled("2xx, truncated JSON", 200, FaultKind::TruncatedJson),
        spoiled("2xx, not JSON", 200, FaultKind::NotJson),
        spoiled("2xx, compressed without being requested", 200, FaultKind::Gzip { marked: true }),
        spoiled("2xx, compressed without a header", 200, FaultKind::Gzip { marked: false }),
        spoiled(
            "2xx, the token of the location's company",
            200,
            FaultKind::OtherOwner { owner_id: None },
        ),
        answer("2xx, an HTML page", 200, page, None),
        answer("2xx, a JSON list", 200, "[]", None),
        redirect("301 to the same place", 301, None),
        redirect("302 to another host", 302, Some("https://elsewhere.example/")),
        redirect("303 to the same place", 303, None),
        redirect("307 to another host", 307, Some("https://elsewhere.example/")),
        redirect("308 to the same place", 308, None),
        answer("408", 408, "", None),
        answer("429", 429, "", None),
        with_header(
            refusal("429, `Retry-After` beyond the deadline", 429, "Too Many Requests"),
            "Retry-After",
            "3600",
        ),
        answer("500, an HTML page", 500, page, Some("error code: 1010")),
        refusal("502", 502, "Bad gateway"),
        answer("503", 503, "", None),
        with_header(
            answer("503, `Retry-After` beyond the deadline", 503, "", None),
            "Retry-After",
            "3600",
        ),
        timed_out("401 `Command timed out`", before, false, Some("Command timed out")),
        timed_out(
            "401 `Command timed out`, message as an object",
            before,
            true,
            Some("Command timed out"),
        ),
        timed_out("401 `Command timed out`, after processing", after, false, None),
        spoiled(
            "503, an HTML page, after processing",
            503,
            FaultKind::UnavailablePage { stage: after },
        ),
        refusal("401, unknown message", 401, "Something new"),
        answer("404", 404, "", None),
    ];
    let of_the_vendors = Refusal::ALL.into_iter().map(|refusal| Fault {
        name: format!("{} `{}`", refusal.status(), refusal.words()),
        http: Some(refusal.status()),
        words: Some(refusal.words()),
        ..silent("", FaultKind::Refusal { refusal })
    });
    ours.into_iter().chain(of_the_vendors).collect()
}

/// A client, the input of its call, and the resource of the call.
struct Fixture {
    emulator: Emulator,
    abi: Abi,
    company: String,
    location: String,
    code: String,
    refresh_token: String,
    access_token: String,
    /// Keeps alive for the call: the unreachable target, its files, and the client that uses the
    /// emulator.
    behind: Vec<Box<dyn std::any::Any>>,
}

impl Fixture {
    fn new(total: Duration) -> Fixture {
        let emulator =
            Emulator::start(Options { locations: 1, companies: 2, ..Options::default() }).unwrap();
        let abi = Abi::with(&emulator, json!({"timeouts": {"totalMs": total.as_millis() as u64}}));
        let Granted { company, code, refresh_token, access_token } = Granted::new(&emulator, &abi);
        let location = emulator.location_ids()[0].clone();
        let behind = Vec::new();
        Fixture { emulator, abi, company, location, code, refresh_token, access_token, behind }
    }

    /// The same with a client that has the same tokens and uses the unreachable target.
    fn misled(mut self, place: Place) -> Fixture {
        let changes = match place {
            Place::Nobody => json!({"baseUrl": format!("http://127.0.0.1:{}", free_port())}),
            Place::Secure { certificate, trusted } => {
                let folder = tempfile::tempdir().unwrap();
                let ca_file = folder.path().join("ca.pem");
                let tls = Some(certificate);
                let options = Options { tls, ca_file: Some(ca_file.clone()), ..Options::default() };
                let wrong = Emulator::start(options).unwrap();
                let ca = if trusted { json!(ca_file) } else { Value::Null };
                let changes = json!({"baseUrl": wrong.base_url(), "http": {"caBundlePath": ca}});
                self.behind = vec![Box::new(wrong), Box::new(folder)];
                changes
            }
        };
        let misled = Abi::with(&self.emulator, changes);
        misled.tokens_import(self.abi.tokens_export(json!({})).ok()).ok();
        self.behind.push(Box::new(std::mem::replace(&mut self.abi, misled)));
        self
    }

    /// Whether another company can be connected and gets a working token.
    fn is_in_order(&self) -> bool {
        let other = self.emulator.company_ids()[1].clone();
        self.abi.connect(&self.emulator, Decision::Company(other.clone()));
        self.emulator.access_token_is_live(&self.abi.access_token(&other).text())
    }
}

/// A call that uses an endpoint.
struct Way {
    function: &'static str,
    endpoint: Endpoint,
    grant_type: Option<GrantType>,
    /// The resource whose token the library renews for the call.
    renews: Option<fn(&Fixture) -> &str>,
    call: fn(&Fixture) -> Outcome,
}

fn token(function: &'static str, grant_type: GrantType, call: fn(&Fixture) -> Outcome) -> Way {
    Way { function, endpoint: Endpoint::Token, grant_type: Some(grant_type), renews: None, call }
}

fn other(function: &'static str, endpoint: Endpoint, call: fn(&Fixture) -> Outcome) -> Way {
    Way { function, endpoint, grant_type: None, renews: None, call }
}

fn refresh(function: &'static str, call: fn(&Fixture) -> Outcome) -> Way {
    Way {
        renews: Some(|fixture| &fixture.company),
        ..token(function, GrantType::RefreshToken, call)
    }
}

/// The columns of the table: calls with the same outcome.
fn columns() -> Vec<(&'static str, Vec<Way>)> {
    vec![
        (
            "A code",
            vec![
                token("ghl_oauth_token", GrantType::AuthorizationCode, |fixture| {
                    fixture.abi.oauth_token(
                        json!({"grantType": "authorization_code", "code": fixture.code}),
                    )
                }),
                token("ghl_authorization_complete", GrantType::AuthorizationCode, |fixture| {
                    let redirect = fixture
                        .abi
                        .consent(&fixture.emulator, Decision::Company(fixture.company.clone()));
                    fixture.abi.authorization_complete(json!({"redirectUrl": redirect}))
                }),
            ],
        ),
        (
            "A raw refresh",
            vec![token("ghl_oauth_token", GrantType::RefreshToken, |fixture| {
                fixture.abi.oauth_token(json!({
                    "grantType": "refresh_token", "refreshToken": fixture.refresh_token,
                    "userType": "Company",
                }))
            })],
        ),
        (
            "A raw mint",
            vec![other("ghl_oauth_location_token", Endpoint::LocationToken, |fixture| {
                fixture.abi.oauth_location_token(json!({
                    "companyId": fixture.company, "locationId": fixture.location,
                    "accessToken": fixture.access_token,
                }))
            })],
        ),
        (
            "A list",
            vec![other("ghl_oauth_installed_locations", Endpoint::InstalledLocations, |fixture| {
                fixture.abi.oauth_installed_locations(
                    json!({"companyId": fixture.company, "accessToken": fixture.access_token}),
                )
            })],
        ),
        (
            "A refresh",
            vec![
                refresh("ghl_access_token", |fixture| {
                    fixture.emulator.clock().advance(DAY);
                    fixture.abi.access_token(&fixture.company)
                }),
                refresh("ghl_token_refresh", |fixture| fixture.abi.token_refresh(&fixture.company)),
                refresh("ghl_tokens_maintain", |fixture| {
                    fixture.emulator.clock().advance(DAY);
                    let report = fixture
                        .abi
                        .tokens_maintain(json!({"companyId": fixture.company}), |_| true)
                        .ok();
                    match report["failed"].get(0) {
                        Some(failure) => failed(failure),
                        None => Outcome(0, report),
                    }
                }),
            ],
        ),
        (
            "A mint",
            vec![Way {
                renews: Some(|fixture| &fixture.location),
                ..other("ghl_access_token", Endpoint::LocationToken, |fixture| {
                    fixture.abi.access_token(&fixture.location)
                })
            }],
        ),
    ]
}

/// A failure in a report, as if a call had returned it.
fn failed(failure: &Value) -> Outcome {
    let name = failure["error"]["status"].as_str().unwrap();
    let status = Status::ALL.into_iter().find(|status| status.name() == name).unwrap();
    Outcome(status.code(), json!({"error": failure["error"]}))
}

/// The errors that the header documents for a function, including inherited ones.
fn documented_errors(function: &str) -> BTreeSet<&'static str> {
    const HEADER: &str = include_str!("../include/ghl_oauth.h");
    let declaration =
        HEADER.find(&format!("int32_t {function}(")).expect("the header declares the function");
    let comment = &HEADER[HEADER[..declaration]
        .rfind("/**")
        .expect("the header documents the function")..declaration];
    let words = comment.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut errors =
        BTreeSet::from_iter(words.iter().copied().filter(|word| word.starts_with("GHL_ERR_")));
    // "the errors of ghl_access_token", "an error of ghl_token_refresh"
    for phrase in words.windows(3) {
        if matches!(phrase[0], "error" | "errors" | "results")
            && phrase[1] == "of"
            && phrase[2].starts_with("ghl_")
        {
            errors.append(&mut documented_errors(phrase[2]));
        }
    }
    errors
}

/// The result of one call in short, such as "`NETWORK` 3": the status and the number of requests.
fn result(fault: &Fault, way: &Way) -> String {
    let mut fixture = Fixture::new(fault.total);
    let mut rule = Rule::on(way.endpoint);
    rule.grant_type = way.grant_type;
    let id = fixture.emulator.inject(rule, fault.kind.clone());
    if let Some(place) = fault.wrong_place {
        fixture = fixture.misled(place);
    }
    let began = Instant::now();
    let outcome = (way.call)(&fixture);
    let took = began.elapsed();
    let strikes = fixture.emulator.strikes(id);
    let shown = match outcome {
        Outcome(0, _) => "ok".to_owned(),
        Outcome(code, ref document) => {
            check(fault, way, &fixture, &document["error"]);
            check_effect(fault, way, strikes, &document["error"]);
            let status = status_name(code);
            let documented = documented_errors(way.function);
            assert!(documented.contains(status), "{}: the header names no {status}", way.function);
            format!("`{}`", status.trim_start_matches("GHL_ERR_"))
        }
    };
    assert!(fault.total != DEADLINE || took < DEADLINE + LATE, "{}: it took {took:?}", fault.name);

    fixture.emulator.clear_faults();
    if fault.wrong_place.is_some() {
        // The client that uses the emulator finds everything unchanged.
        assert_eq!(fixture.emulator.refreshes(), 0, "{}", fault.name);
        return format!("{shown} {strikes}");
    }
    if let Some(resource) = way.renews {
        is_not_lost(fault, &fixture, resource(&fixture), outcome.0);
    }
    assert!(fixture.is_in_order(), "{}: the client is unusable", fault.name);
    format!("{shown} {strikes}")
}

/// Checks the properties that every error has.
fn check(fault: &Fault, way: &Way, fixture: &Fixture, error: &Value) {
    let name = &fault.name;
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{name}: {error}");
    assert!(
        error["help"].as_str().is_some_and(|help| help.len() > 8),
        "{name} has no advice: {error}"
    );
    // The second use of a code whose first response was damaged is refused.
    let refused =
        way.grant_type == Some(GrantType::AuthorizationCode) && error["httpStatus"] == 401;
    assert!(refused || error["httpStatus"] == json!(fault.http), "{name}: {error}");
    if let Some(Place::Secure { .. }) = fault.wrong_place {
        assert!(error["message"].as_str().unwrap().contains("certificate"), "{name}: {error}");
    }
    let said = error["api"]["message"].as_str();
    if let Some(words) = fault.words {
        assert!(said.is_some_and(|said| said.contains(words)), "{name}: {error}");
    }
    match &fault.kind {
        FaultKind::Status { body, .. } => {
            let place = if body.contains("trace-of-the-body") { "body" } else { "head" };
            assert_eq!(error["traceId"], format!("trace-of-the-{place}"), "{name}: {error}");
        }
        FaultKind::Refusal { refusal } => {
            let sent: Value = serde_json::from_str(&refusal.body()).unwrap_or_default();
            assert_eq!(error["traceId"], sent["traceId"], "{name}: {error}");
        }
        _ => {}
    }
    match way.renews {
        Some(resource) => assert_eq!(error["resourceId"], resource(fixture), "{name}: {error}"),
        None if way.endpoint == Endpoint::LocationToken => {
            assert_eq!(error["resourceId"], fixture.location, "{name}")
        }
        None if way.endpoint == Endpoint::InstalledLocations => {
            assert_eq!(error["resourceId"], fixture.company, "{name}")
        }
        None => {}
    }
    let secrets = [
        &*fixture.code,
        &fixture.refresh_token,
        &fixture.access_token,
        fixture.emulator.client_secret(),
    ];
    contains_none_of(&error.to_string(), &secrets);
}

/// Checks what the error says about the effect of the call, and whether to repeat it.
fn check_effect(fault: &Fault, way: &Way, strikes: u32, error: &Value) {
    let name = &fault.name;
    let status = Status::ALL.into_iter().find(|status| error["status"] == status.name()).unwrap();
    let refused_before_acting =
        error["httpStatus"] == 429 || error["httpStatus"] == 503 && name.contains("Retry-After");
    let sent = strikes > 0 && !refused_before_acting;
    assert_eq!(error["sent"], sent, "{name}: {error}");

    // The configuration leads to another server than the API.
    let is_wrong_address = matches!(fault.wrong_place, Some(Place::Secure { .. }))
        || matches!(
            fault.kind,
            FaultKind::Redirect { .. } | FaultKind::Raw { .. } | FaultKind::HugeHead { .. }
        )
        || name == "2xx, an HTML page";
    let refused = error["httpStatus"].as_u64().is_some_and(|http| (400..500).contains(&http))
        && status != Status::Server;
    // A code is worth another try if the server said that it failed.
    let is_answered_code =
        way.grant_type == Some(GrantType::AuthorizationCode) && status == Status::Server;
    let is_single_use = way.grant_type.is_some() && way.renews.is_none() && !is_answered_code;
    let retryable = status.retryable() && !is_wrong_address && !(is_single_use && sent && !refused);
    assert_eq!(error["retryable"], retryable, "{}, {name}: {error}", way.function);
}

/// After the fault the connection works, unless the server refused its token.
fn is_not_lost(fault: &Fault, fixture: &Fixture, resource_id: &str, code: i32) {
    let again = fixture.abi.access_token(resource_id);
    let told = Status::from_code(code);
    match told {
        Some(Status::ReauthorizationRequired | Status::LocationInactive | Status::RateLimited)
            if again.0 != 0 =>
        {
            again.fails(told.unwrap());
        }
        _ => assert!(
            fixture.emulator.access_token_is_live(&again.text()),
            "{}: the connection is lost",
            fault.name
        ),
    }
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md")
}

#[test]
fn every_fault_has_its_documented_outcome_for_every_caller() {
    let columns = columns();
    let faults = faults();
    let rows: Vec<Mutex<String>> = faults.iter().map(|_| Mutex::default()).collect();
    // Waiting cases start first and run concurrently, because they only sleep.
    let mut order: Vec<usize> = (0..faults.len()).collect();
    order.sort_by_key(|index| faults[*index].total);
    let left: Mutex<VecDeque<usize>> = Mutex::new(order.into());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some(index) = left.lock().unwrap().pop_front() else { break };
                    let fault = &faults[index];
                    let cells = columns.iter().map(|(column, ways)| {
                        let results: Vec<String> =
                            ways.iter().map(|way| result(fault, way)).collect();
                        assert!(
                            results.iter().all(|result| *result == results[0]),
                            "{}, {column}: {results:?}",
                            fault.name
                        );
                        results[0].clone()
                    });
                    let cells: Vec<String> = cells.collect();
                    let row = format!("| {} | {} |\n", fault.name, cells.join(" | "));
                    *rows[index].lock().unwrap() = row;
                }
            });
        }
    });
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let mut table =
        format!("| Fault | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    table.extend(rows.into_iter().map(|row| row.into_inner().unwrap()));

    let documented = fs::read_to_string(page()).unwrap();
    let (head, rest) =
        documented.split_once("<!-- faults -->\n").expect("the table has a start marker");
    let (old, tail) = rest.split_once("<!-- /faults -->").expect("the table has an end marker");
    if std::env::var_os("GHL_UPDATE_ERRORS").is_some() {
        fs::write(page(), format!("{head}<!-- faults -->\n{table}<!-- /faults -->{tail}")).unwrap();
        return;
    }
    for (old, new) in old.lines().zip(table.lines()) {
        assert_eq!(
            old, new,
            "docs/errors.md differs; if the change is intended, run GHL_UPDATE_ERRORS=1 cargo \
             test --test faults"
        );
    }
    assert_eq!(old.lines().count(), table.lines().count());
}
