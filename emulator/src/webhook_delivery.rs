//! Webhook delivery: the HTTP request to the receiver, and the latest attempts.

use crate::clock::Clock;
use serde::Serialize;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How many delivery attempts are kept.
const DELIVERIES_KEPT: usize = 100;

/// The timeout for the receiver.
const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// A delivery attempt of a webhook.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    pub(crate) at_ms: i64,
    pub(crate) url: String,
    pub(crate) body: String,
    /// The receiver's status.
    pub(crate) status: Option<u16>,
    /// The error, if the receiver did not respond.
    pub(crate) error: Option<String>,
}

/// The latest attempts, oldest first.
#[derive(Debug, Clone)]
pub(crate) struct Deliveries {
    clock: Clock,
    kept: Arc<Mutex<VecDeque<Delivery>>>,
}

impl Deliveries {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, kept: Arc::default() }
    }

    /// Sends a webhook, records the attempt, and returns the receiver's status.
    pub(crate) fn post(
        &self,
        url: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> io::Result<u16> {
        let result = post(url, headers, body);
        let delivery = Delivery {
            at_ms: self.clock.now_ms(),
            url: url.to_owned(),
            body: String::from_utf8_lossy(body).into_owned(),
            status: result.as_ref().ok().copied(),
            error: result.as_ref().err().map(ToString::to_string),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == DELIVERIES_KEPT {
            kept.pop_front();
        }
        kept.push_back(delivery);
        result
    }

    pub(crate) fn latest(&self) -> Vec<Delivery> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Splits a receiver's URL into host with port and path with query. `None` if it is not valid.
pub(crate) fn parts_of(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port =
        authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let clean = url.bytes().all(|byte| byte.is_ascii_graphic());
    port.filter(|(host, _)| clean && !host.is_empty())?;
    Some((authority, if path.is_empty() { "/" } else { path }))
}

/// Sends a webhook and returns the receiver's status.
fn post(url: &str, headers: &[(String, String)], body: &[u8]) -> io::Result<u16> {
    let odd = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{url}: {why}"));
    let (authority, path) =
        parts_of(url).ok_or_else(|| odd("the URL must be http://HOST:PORT/PATH"))?;
    let address =
        authority.to_socket_addrs()?.next().ok_or_else(|| odd("the host has no address"))?;
    let mut socket = TcpStream::connect_timeout(&address, WAIT_LIMIT)?;
    socket.set_read_timeout(Some(WAIT_LIMIT))?;
    socket.set_write_timeout(Some(WAIT_LIMIT))?;
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    socket.write_all(&[head.as_bytes(), body].concat())?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    line.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| odd("the response is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receiver_url_requires_http_and_a_port() {
        assert_eq!(parts_of("http://127.0.0.1:80/a?b=c"), Some(("127.0.0.1:80", "/a?b=c")));
        assert_eq!(parts_of("http://localhost:8080"), Some(("localhost:8080", "/")));
        for wrong in
            ["https://a:1/", "http://a/", "http://:1/", "http://a:x/", "http://a:1/ b", "a:1", ""]
        {
            assert_eq!(parts_of(wrong), None, "{wrong}");
        }
    }
}
