//! Every kind of fault: the response that the client gets, and the effect in the emulator.

mod support;

use ghl_oauth_emulator::{
    Emulator, Ending, Endpoint, FaultKind, GrantType, Options, Refusal, Rule, Stage,
};
use serde_json::{Value, json};
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::*;

/// An emulator with a company token, and requests that use it.
struct Connected {
    emulator: Emulator,
    refresh_token: String,
}

impl Connected {
    fn new() -> Self {
        let emulator = Emulator::start(Options::default()).unwrap();
        let token = connect(&emulator);
        Self { refresh_token: text(&token, "refreshToken").to_owned(), emulator }
    }

    fn struck_by(kind: FaultKind) -> Self {
        let connected = Self::new();
        connected.emulator.inject(Rule::on(Endpoint::Token).times(1), kind);
        connected
    }

    fn open_refresh(&self) -> TcpStream {
        let fields =
            [("grantType", "refresh_token"), ("refreshToken", self.refresh_token.as_str())];
        let form = token_form(&self.emulator, &fields);
        open(&self.emulator, "POST", "/oauth/token", &[VERSION, FORM], &form)
    }

    fn refresh(&self) -> Reply {
        refresh(&self.emulator, &self.refresh_token)
    }

    /// The raw bytes of a refresh response, and the end of the connection.
    fn raw_refresh(&self) -> (Vec<u8>, io::Result<()>) {
        drain(self.open_refresh())
    }

    fn processed(&self) -> bool {
        self.emulator.refreshes() == 1
    }
}

fn is_reset(ending: &io::Result<()>) -> bool {
    matches!(ending, Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
}

#[test]
fn lost_response_has_spent_the_token() {
    let connected = Connected::struck_by(FaultKind::ReplyLost);
    let (received, ending) = connected.raw_refresh();
    assert!(received.is_empty() && ending.is_ok());
    assert!(connected.processed());
    assert_eq!(connected.emulator.requests().last().unwrap().status, 200);
    connected.refresh().expect(200);
    assert_eq!(connected.emulator.refreshes(), 1, "the replay window returned the same pair");
}

#[test]
fn connection_reset_happens_before_or_after_processing() {
    for (stage, processed) in [(Stage::BeforeProcessing, false), (Stage::AfterProcessing, true)] {
        let connected = Connected::struck_by(FaultKind::Reset { stage });
        let (received, ending) = connected.raw_refresh();
        assert!(received.is_empty() && is_reset(&ending), "{ending:?}");
        assert_eq!(connected.processed(), processed);
        let status = connected.emulator.requests().last().unwrap().status;
        assert_eq!(status, if processed { 200 } else { 0 });
    }
}

#[test]
fn truncated_body_is_shorter_than_its_content_length() {
    for (body_bytes, ending) in [(0, Ending::Reset), (10, Ending::Reset), (10, Ending::Close)] {
        let connected = Connected::struck_by(FaultKind::CutBody { body_bytes, ending });
        let (received, ended) = connected.raw_refresh();
        let reply = parse(&received);
        assert_eq!((reply.status, reply.body.len()), (200, body_bytes));
        let announced: usize = reply.header("content-length").unwrap().parse().unwrap();
        assert!(announced > 1_000);
        assert_eq!(is_reset(&ended), ending == Ending::Reset, "{ended:?}");
        assert!(connected.processed());
    }
}

#[test]
fn stalled_body_lasts_until_the_client_disconnects() {
    let connected =
        Connected::struck_by(FaultKind::CutBody { body_bytes: 10, ending: Ending::Silence });
    let socket = connected.open_refresh();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (received, ended) = drain(socket);
    assert_eq!(parse(&received).body.len(), 10);
    let kind = ended.unwrap_err().kind();
    assert!(matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
}

#[test]
fn held_requests_continue_when_released() {
    let connected = Connected::new();
    let rule = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken);
    std::thread::scope(|scope| {
        let hold = connected.emulator.hold(rule.clone(), Stage::BeforeProcessing);
        let held = scope.spawn(|| connected.refresh());
        hold.wait_for(1);
        assert!(!connected.processed());
        assert_eq!(connected.emulator.requests().last().unwrap().status, 0);
        hold.release();
        held.join().unwrap().expect(200);
    });
    assert!(connected.processed());

    std::thread::scope(|scope| {
        let hold = connected.emulator.hold(rule, Stage::AfterProcessing);
        let held = scope.spawn(|| {
            token(&connected.emulator, &[("grantType", "refresh_token"), ("refreshToken", "x")])
        });
        hold.wait_for(1);
        assert_eq!(connected.emulator.requests().last().unwrap().status, 400);
        assert!(!held.is_finished());
        drop(hold);
        assert_eq!(held.join().unwrap().status, 400);
    });
}

#[test]
fn held_requests_can_be_released_one_by_one() {
    let connected = Connected::new();
    let hold = connected.emulator.hold(Rule::on(Endpoint::Token), Stage::BeforeProcessing);
    let first = connected.open_refresh();
    hold.wait_for(1);
    let second = connected.open_refresh();
    hold.wait_for(2);
    hold.release_one();
    assert_eq!(parse(&drain(first).0).status, 200);
    assert_eq!(hold.arrived(), 2);
    connected.emulator.set_reuse_window_seconds(0);
    hold.release();
    assert_eq!(parse(&drain(second).0).status, 400, "the first request has spent the token");
}

#[test]
fn held_request_of_a_disconnected_client_is_never_processed() {
    let connected = Connected::new();
    let hold = connected.emulator.hold(Rule::on(Endpoint::Token), Stage::BeforeProcessing);
    let socket = connected.open_refresh();
    hold.wait_for(1);
    drop(socket);
    hold.wait_until_empty();
    hold.release();
    assert!(!connected.processed());
    connected.refresh().expect(200);
}

#[test]
fn dropped_emulator_ends_held_requests() {
    let connected = Connected::new();
    let hold = connected.emulator.hold(Rule::default(), Stage::BeforeProcessing);
    let socket = connected.open_refresh();
    hold.wait_for(1);
    drop(connected);
    assert!(drain(socket).0.is_empty());
}

#[test]
fn dripped_response_is_complete() {
    for body_only in [false, true] {
        let connected = Connected::new();
        let started = Instant::now();
        connected
            .emulator
            .inject(Rule::on(Endpoint::Token).times(1), FaultKind::Drip { every_ms: 1, body_only });
        let reply = token(&connected.emulator, &[("grantType", "password")]);
        assert_eq!(reply.message(), "Invalid parameter: grantType");
        let dripped = Duration::from_millis(reply.body.len() as u64);
        assert!(started.elapsed() >= dripped, "one millisecond per byte");
    }
}

#[test]
fn any_response_can_replace_the_normal_one() {
    let connected = Connected::struck_by(FaultKind::Status {
        status: 429,
        body: "<html>slow down</html>".to_owned(),
        content_type: None,
        headers: vec![("retry-after".to_owned(), "7".to_owned())],
        stage: Stage::BeforeProcessing,
    });
    let reply = connected.refresh();
    assert_eq!(reply.status, 429);
    assert_eq!(reply.header("retry-after"), Some("7"));
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(reply.text(), "<html>slow down</html>");
    assert!(!connected.processed());
    assert_eq!(connected.emulator.requests().last().unwrap().status, 429);

    let connected = Connected::struck_by(FaultKind::Status {
        status: 503,
        body: String::new(),
        content_type: Some("application/problem+json".to_owned()),
        headers: Vec::new(),
        stage: Stage::AfterProcessing,
    });
    let reply = connected.refresh();
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert!(connected.processed());
}

#[test]
fn every_refusal_of_the_real_api_is_available() {
    for refusal in Refusal::ALL {
        let connected = Connected::struck_by(FaultKind::Refusal { refusal });
        let reply = connected.refresh();
        assert_eq!((reply.status, reply.text()), (refusal.status(), refusal.body()));
        assert!(
            refusal.words().split("; ").all(|words| refusal.body().contains(words)),
            "{refusal:?}"
        );
        assert!(!connected.processed(), "{refusal:?}");
    }
    let connected = Connected::new();
    let fault = json!({"kind": "refusal", "refusal": "locationInactive"}).to_string();
    control(&connected.emulator, "POST", "/faults", &fault).expect(200);
    assert_eq!(connected.refresh().status, 400);
}

#[test]
fn successful_response_can_have_another_status() {
    let connected = Connected::struck_by(FaultKind::ReplaceStatus { status: 201 });
    connected.refresh().expect(201);
}

#[test]
fn bodies_can_be_empty_truncated_or_invalid_json() {
    for kind in [FaultKind::EmptyBody, FaultKind::TruncatedJson, FaultKind::NotJson] {
        let connected = Connected::struck_by(kind.clone());
        let reply = connected.refresh();
        assert_eq!(reply.status, 200);
        assert!(reply.header("content-type").unwrap().starts_with("application/json"));
        assert_eq!(reply.header("content-length"), Some(&*reply.body.len().to_string()));
        assert!(serde_json::from_slice::<Value>(&reply.body).is_err());
        assert_eq!(reply.body.is_empty(), kind == FaultKind::EmptyBody);
        assert!(connected.processed());
    }
}

#[test]
fn json_can_have_other_types_and_spelling() {
    let refreshed = |kind| Connected::struck_by(kind).refresh().expect(200);
    let answer = refreshed(FaultKind::Stringified);
    assert_eq!(answer["expiresIn"], "86399");
    assert_eq!(answer["isBulkInstallation"], "true");
    assert!(answer["accessToken"].is_string());

    let answer = refreshed(FaultKind::WrongTypes);
    assert!(answer["accessToken"].is_number());
    assert_eq!(answer["expiresIn"], json!([86_399]));

    let answer = refreshed(FaultKind::SnakeCase);
    assert!(answer["access_token"].is_string());
    assert!(answer.get("accessToken").is_none());
}

#[test]
fn huge_body_is_valid_json_of_the_requested_size() {
    const BYTES: u64 = 1_000_000;
    for chunked in [false, true] {
        let connected = Connected::struck_by(FaultKind::HugeBody { bytes: BYTES, chunked });
        let reply = connected.refresh();
        if chunked {
            assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
            let body = unchunk(&reply.body);
            assert_eq!(body.len() as u64, BYTES);
            serde_json::from_slice::<Value>(&body).unwrap();
        } else {
            assert_eq!(reply.header("content-length"), Some("1000000"));
            assert_eq!(reply.body.len() as u64, BYTES);
            assert!(reply.json()["accessToken"].is_string());
        }
    }
    let connected =
        Connected::struck_by(FaultKind::HugeBody { bytes: 200_000_000, chunked: false });
    drop(connected.open_refresh());
    connected.refresh().expect(200);
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap(), 16).unwrap();
        let chunk = &body[line + 2..];
        assert_eq!(&chunk[size..size + 2], b"\r\n");
        if size == 0 {
            assert_eq!(chunk.len(), 2);
            return whole;
        }
        whole.extend_from_slice(&chunk[..size]);
        body = &chunk[size + 2..];
    }
}

#[test]
fn gzip_is_sent_with_or_without_its_header() {
    for marked in [false, true] {
        let connected = Connected::struck_by(FaultKind::Gzip { marked });
        let reply = connected.refresh();
        assert_eq!(reply.header("content-encoding").is_some(), marked);
        assert!(reply.body.starts_with(&[0x1f, 0x8b, 8]));
        // One stored block: a gzip header of ten bytes and a block header of five, then the plain
        // text.
        assert_eq!(reply.body[15], b'{');
    }
}

#[test]
fn huge_head_has_the_requested_size_and_number_of_lines() {
    for lines in [1, 1_024] {
        let connected = Connected::struck_by(FaultKind::HugeHead { bytes: 1 << 20, lines });
        let reply = connected.refresh();
        let padding = reply.headers.iter().filter(|(name, _)| name.starts_with("x-padding"));
        let (count, bytes) =
            padding.fold((0, 0), |(count, bytes), (_, value)| (count + 1, bytes + value.len()));
        assert_eq!((count, bytes), (lines, 1 << 20));
        reply.expect(200);
    }
}

#[test]
fn redirects_lead_to_the_same_or_another_host_and_process_nothing() {
    for status in [301, 302, 303, 307, 308] {
        let connected = Connected::struck_by(FaultKind::Redirect { status, location: None });
        let reply = connected.refresh();
        assert_eq!(reply.status, status);
        let back = format!("{}/oauth/token", connected.emulator.base_url());
        assert_eq!(reply.header("location"), Some(back.as_str()));
        assert!(!connected.processed());
    }
    let away = "https://evil.example/oauth/token";
    let connected =
        Connected::struck_by(FaultKind::Redirect { status: 307, location: Some(away.to_owned()) });
    assert_eq!(connected.refresh().header("location"), Some(away));
}

#[test]
fn raw_bytes_may_be_invalid_http() {
    let connected = Connected::struck_by(FaultKind::Raw {
        text: "220 mail.example ESMTP\r\n".to_owned(),
        ending: Ending::Close,
    });
    let (received, ended) = connected.raw_refresh();
    assert_eq!(received, b"220 mail.example ESMTP\r\n");
    assert!(ended.is_ok() && !connected.processed());
}

#[test]
fn rule_applies_only_to_matching_requests() {
    let connected = Connected::new();
    let emulator = &connected.emulator;
    let company = connected.refresh().expect(200);
    let access_token = text(&company, "accessToken");
    let locations = emulator.location_ids();
    let broken = FaultKind::ReplaceStatus { status: 500 };
    let id = emulator.inject(Rule::default().resource(&locations[1]), broken.clone());
    mint(emulator, access_token, &locations[0]).expect(200);
    let minted = mint(emulator, access_token, &locations[1]).expect(500);
    let path = format!("/locations/{}", locations[1]);
    assert_eq!(get(emulator, access_token, &path).status, 500);
    assert_eq!(refresh(emulator, text(&minted, "refreshToken")).status, 500);
    assert_eq!(emulator.strikes(id), 3);
    assert!(emulator.remove_fault(id));
    get(emulator, access_token, &path).expect(200);

    emulator.inject(Rule::default().resource(emulator.company_id()), broken);
    assert_eq!(refresh(emulator, text(&company, "refreshToken")).status, 500);
    get(emulator, access_token, &path).expect(200);
    emulator.clear_faults();
}

#[test]
fn unknown_paths_can_be_given_a_response() {
    let emulator = Emulator::start(Options::default()).unwrap();
    emulator.inject(
        Rule::default(),
        FaultKind::Status {
            status: 200,
            body: r#"{"contacts": []}"#.to_owned(),
            content_type: None,
            headers: Vec::new(),
            stage: Stage::BeforeProcessing,
        },
    );
    let answer = send(&emulator, "GET", "/contacts", &[], "").expect(200);
    assert_eq!(answer, json!({"contacts": []}));
    assert_eq!(
        control(&emulator, "GET", "", "").status,
        200,
        "faults never apply to the control API"
    );
}

#[test]
fn latency_delays_every_response() {
    let connected = Connected::new();
    connected.emulator.respond_latency(Duration::from_millis(30));
    let started = Instant::now();
    connected.refresh().expect(200);
    assert!(started.elapsed() >= Duration::from_millis(30));
}

#[test]
fn other_programs_inject_faults_over_http() {
    let connected = Connected::new();
    let emulator = &connected.emulator;
    let inject = |fault: Value| control(emulator, "POST", "/faults", &fault.to_string());
    let id = inject(json!({"endpoint": "token", "count": 1, "kind": "status", "status": 502}))
        .expect(200)["id"]
        .clone();
    assert_eq!(connected.refresh().status, 502);
    let listed = control(emulator, "GET", "/faults", "").expect(200);
    assert_eq!(listed["faults"][0]["id"], id);
    assert_eq!(listed["faults"][0]["struck"], 1);
    assert_eq!(listed["faults"][0]["usedUp"], true);
    assert_eq!(inject(json!({"kind": "unheard of"})).status, 400);

    let id = inject(json!({"kind": "stall", "stage": "afterProcessing"})).expect(200)["id"].clone();
    let held = connected.open_refresh();
    while control(emulator, "GET", "/faults", "").expect(200)["faults"][1]["waiting"] != 1 {
        std::thread::yield_now();
    }
    assert!(connected.processed());
    control(emulator, "DELETE", &format!("/faults/{id}"), "").expect(200);
    assert_eq!(parse(&drain(held).0).status, 200);
    assert_eq!(control(emulator, "DELETE", &format!("/faults/{id}"), "").status, 404);
    assert_eq!(control(emulator, "DELETE", "/faults", "").expect(200)["removed"], 1);
}

#[test]
#[should_panic(expected = "is not a valid header")]
fn unsendable_fault_is_refused_at_once() {
    let connected = Connected::new();
    connected.emulator.inject(
        Rule::default(),
        FaultKind::Status {
            status: 200,
            body: String::new(),
            content_type: None,
            headers: vec![("two words".to_owned(), String::new())],
            stage: Stage::BeforeProcessing,
        },
    );
}
