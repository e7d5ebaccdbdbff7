//! A minimal client that writes bytes to a socket and reads the raw response.
#![allow(dead_code, reason = "every test file compiles its own copy and uses only a part")]

pub mod receiver;

use ghl_oauth_emulator::{Decision, Emulator};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A complete response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// The message of a refusal of any shape.
    pub fn message(&self) -> String {
        let body = self.json();
        [
            &body["message"],
            &body["message"][0],
            &body["error"]["message"],
            &body["error_description"],
            &body["error"],
        ]
        .iter()
        .find_map(|value| value.as_str())
        .unwrap_or_default()
        .to_owned()
    }
}

/// Connects to the emulator for any protocol.
pub fn dial(emulator: &Emulator) -> TcpStream {
    let socket = TcpStream::connect(authority(emulator)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

fn authority(emulator: &Emulator) -> String {
    emulator.base_url().split_once("://").unwrap().1.to_owned()
}

/// Sends a request and leaves the connection open.
pub fn open(
    emulator: &Emulator,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> TcpStream {
    let mut socket = dial(emulator);
    let request =
        write(emulator, method, target, &[&[("connection", "close")], headers].concat(), body);
    socket.write_all(request.as_bytes()).unwrap();
    socket
}

/// The bytes of a request.
pub fn write(
    emulator: &Emulator,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> String {
    let mut request = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str(&format!("host: {}\r\n", authority(emulator)));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(body);
    request
}

/// Everything that arrives until the connection ends, and how it ended.
pub fn drain(mut socket: impl Read) -> (Vec<u8>, io::Result<()>) {
    let mut received = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return (received, Ok(())),
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) => return (received, Err(error)),
        }
    }
}

pub fn parse(received: &[u8]) -> Reply {
    let end = received
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(received)));
    let head = std::str::from_utf8(&received[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<_> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        })
        .collect();
    Reply { status, headers, body: received[end + 4..].to_vec() }
}

pub fn send(
    emulator: &Emulator,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let (received, ending) = drain(open(emulator, method, target, headers, body));
    ending.unwrap();
    parse(&received)
}

pub const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
pub const VERSION: (&str, &str) = ("version", "v3");

pub fn encode(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// The form of a token request with the app's credentials and these fields.
pub fn token_form(emulator: &Emulator, fields: &[(&str, &str)]) -> String {
    let mut all =
        vec![("clientId", emulator.client_id()), ("clientSecret", emulator.client_secret())];
    all.extend_from_slice(fields);
    encode(&all)
}

pub fn token(emulator: &Emulator, fields: &[(&str, &str)]) -> Reply {
    let form = token_form(emulator, fields);
    send(emulator, "POST", "/oauth/token", &[VERSION, FORM], &form)
}

pub fn refresh(emulator: &Emulator, refresh_token: &str) -> Reply {
    token(emulator, &[("grantType", "refresh_token"), ("refreshToken", refresh_token)])
}

pub fn mint(emulator: &Emulator, access_token: &str, location_id: &str) -> Reply {
    let bearer = format!("Bearer {access_token}");
    let form = encode(&[("companyId", &emulator.company_id()), ("locationId", location_id)]);
    let headers = [VERSION, FORM, ("authorization", &bearer)];
    send(emulator, "POST", "/oauth/location-token", &headers, &form)
}

pub fn get(emulator: &Emulator, access_token: &str, target: &str) -> Reply {
    let bearer = format!("Bearer {access_token}");
    send(emulator, "GET", target, &[VERSION, ("authorization", &bearer)], "")
}

pub fn control(emulator: &Emulator, method: &str, path: &str, body: &str) -> Reply {
    send(emulator, method, &format!("/_emulator{path}"), &[], body)
}

pub const SCOPE: &str = "oauth.readonly oauth.write locations.readonly contacts.readonly";

pub fn consent_query(emulator: &Emulator, scope: &str) -> String {
    encode(&[
        ("response_type", "code"),
        ("client_id", emulator.client_id()),
        ("redirect_uri", emulator.redirect_uri()),
        ("scope", scope),
        ("state", "some state"),
    ])
}

/// A code from the consent page.
pub fn code(emulator: &Emulator, scope: &str, decision: Decision) -> String {
    let url = format!("{}?{}", emulator.authorize_url(), consent_query(emulator, scope));
    let redirect = emulator.consent(&url, decision).unwrap();
    let (_, query) = redirect.split_once('?').unwrap();
    let fields: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    assert_eq!(fields[1], ("state".into(), "some state".into()));
    assert_eq!(fields[0].0, "code");
    fields[0].1.clone().into_owned()
}

/// The token response after a consent.
pub fn connect_with(emulator: &Emulator, scope: &str, decision: Decision) -> Value {
    let code = code(emulator, scope, decision);
    token(emulator, &[("grantType", "authorization_code"), ("code", &code)]).expect(200)
}

/// The token response of the company after its consent.
pub fn connect(emulator: &Emulator) -> Value {
    connect_with(emulator, SCOPE, Decision::Company(emulator.company_id()))
}

pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}
