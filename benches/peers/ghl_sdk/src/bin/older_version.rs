//! A proxy that lets clients of the previous API version use the emulator, which implements version
//! v3. Fields of the previous version are snake_case in requests and responses. A request with
//! `Version: v3` is passed on unchanged.
//!
//! `older_version PORT`: the port of the emulator; prints its own port.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// The field names of both versions.
const NAMES: [(&str, &str); 8] = [
    ("client_id", "clientId"),
    ("client_secret", "clientSecret"),
    ("grant_type", "grantType"),
    ("refresh_token", "refreshToken"),
    ("user_type", "userType"),
    ("access_token", "accessToken"),
    ("token_type", "tokenType"),
    ("expires_in", "expiresIn"),
];

fn main() -> io::Result<()> {
    let port: u16 =
        env::args().nth(1).and_then(|port| port.parse().ok()).expect("the emulator's port");
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    for client in listener.incoming() {
        let client = client?;
        thread::spawn(move || relay(client, port));
    }
    Ok(())
}

/// Relays one connection until either side closes it.
fn relay(client: TcpStream, port: u16) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut from_server) = (BufReader::new(&client), BufReader::new(&server));
    while let Some(mut request) = Message::read(&mut from_client)? {
        let is_older = request.header("version") != Some("v3");
        if is_older {
            request.set_header("Version", "v3");
            request.start = request.start.replace("/oauth/locationToken", "/oauth/location-token");
            if request.start.starts_with("POST /oauth/token ") {
                request.body = rename(
                    &request.body,
                    |(older, _)| format!("{older}="),
                    |(_, v3)| format!("{v3}="),
                );
            }
        }
        (&server).write_all(&request.written())?;
        let Some(mut answer) = Message::read(&mut from_server)? else { break };
        if is_older && request.start.starts_with("POST /oauth/") {
            answer.body = rename(
                &answer.body,
                |(_, v3)| format!("\"{v3}\":"),
                |(older, _)| format!("\"{older}\":"),
            );
        }
        (&client).write_all(&answer.written())?;
    }
    Ok(())
}

/// A request or response with a known body length.
struct Message {
    start: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut start = String::new();
        if from.read_line(&mut start)? == 0 {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut message = Self { start, headers, body: Vec::new() };
        let length =
            message.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        message.body.resize(length, 0);
        from.read_exact(&mut message.body)?;
        Ok(Some(message))
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.as_str())
    }

    fn set_header(&mut self, name: &str, value: &str) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    fn written(&self) -> Vec<u8> {
        let mut text = self.start.clone();
        for (name, value) in &self.headers {
            if !name.eq_ignore_ascii_case("content-length") {
                text += &format!("{name}: {value}\r\n");
            }
        }
        if !self.body.is_empty() {
            text += &format!("Content-Length: {}\r\n", self.body.len());
        }
        text += "\r\n";
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

type Pair = (&'static str, &'static str);

fn rename(body: &[u8], from: impl Fn(Pair) -> String, to: impl Fn(Pair) -> String) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(body).into_owned();
    for pair in NAMES {
        text = text.replacen(&from(pair), &to(pair), 1);
    }
    text.into_bytes()
}
