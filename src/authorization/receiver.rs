//! The loopback redirect server (RFC 8252, section 7.3): waits on a local port for the browser's
//! redirect. Knows sockets and HTTP, but not consents.
//!
//! Every program on this machine and every page in a browser can connect. A request that is not the
//! expected redirect gets an error page; it neither delays the others nor ends the wait.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use httparse::{EMPTY_HEADER, Request, Status};
use ureq::http::Uri;
use zeroize::Zeroizing;

use crate::deadline::Deadline;
use crate::error::Result;
use crate::fork_safety::descriptors::NotInherited;

use super::page::{MALFORMED, MISDIRECTED, NOT_ALLOWED, NOT_FOUND, Page, TOO_LARGE};
use super::redirect;

/// The polling interval of the sockets. The library starts no thread for this wait, which must also
/// end promptly when cancelled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The longest request header, in bytes. Browsers send the cookies of all local servers, as cookies
/// are not bound to a port.
const MAX_HEAD: usize = 16 * 1024;

/// The maximum number of header lines.
const MAX_HEADERS: usize = 100;

/// The maximum number of open connections. Beyond it the oldest is closed, so that idle ones, which
/// browsers open in advance, cannot block the redirect.
const MAX_CONNECTIONS: usize = 64;

/// A listening port.
pub struct Receiver {
    listener: NotInherited<TcpListener>,
    callback_target: CallbackTarget,
    connections: VecDeque<Connection>,
}

/// The path and hosts that the redirect must have.
struct CallbackTarget {
    path: String,
    /// Accepted `Host` values: the redirect URI's, and the local ones, which a tunnel may
    /// substitute. Others are refused against DNS rebinding.
    hosts: Vec<String>,
}

/// The connection of the browser that sent the redirect and waits for its page.
pub struct Browser(NotInherited<TcpStream>);

impl Receiver {
    /// Listens on the loopback interface only. Neither child programs nor forked children keep the
    /// port open.
    pub fn bind(port: u16, redirect_uri: &Uri) -> io::Result<Receiver> {
        let listener = NotInherited::open(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?;
        listener.get()?.set_nonblocking(true)?;
        Ok(Receiver {
            listener,
            callback_target: CallbackTarget::new(port, redirect_uri),
            connections: VecDeque::new(),
        })
    }

    /// Waits until `take` accepts the query of a request, then stops listening. The browser of any
    /// other query gets the page that `take` returns.
    pub fn receive<'p, T>(
        mut self,
        deadline: &Deadline,
        mut take: impl FnMut(&str) -> Result<T, Page<'p>>,
    ) -> Result<(T, Browser)> {
        loop {
            self.accept();
            for mut connection in std::mem::take(&mut self.connections) {
                match connection.poll(&self.callback_target, &mut take) {
                    ConnectionState::Closed => {}
                    ConnectionState::Open => self.connections.push_back(connection),
                    ConnectionState::Accepted(taken) => {
                        return Ok((taken, Browser(connection.stream)));
                    }
                }
            }
            deadline.sleep(POLL_INTERVAL)?;
        }
    }

    /// Accepts waiting connections, at most [`MAX_CONNECTIONS`], so that a flood cannot delay the
    /// deadline check.
    fn accept(&mut self) {
        for _ in 0..MAX_CONNECTIONS {
            let accepted = NotInherited::open(|| Ok(self.listener.get()?.accept()?.0));
            let Ok(stream) = accepted else { return };
            // Only some systems let an accepted socket inherit the listener's mode.
            if stream.get().and_then(|stream| stream.set_nonblocking(true)).is_err() {
                continue;
            }
            if self.connections.len() == MAX_CONNECTIONS {
                self.connections.pop_front();
            }
            self.connections.push_back(Connection::new(stream));
        }
    }
}

impl Browser {
    /// Sends the page. Ignores errors: the browser may have closed the connection.
    pub fn show(self, page: &Page) {
        let _ = self.0.get().and_then(|stream| send(stream, page));
    }
}

struct Connection {
    stream: NotInherited<TcpStream>,
    /// Allocated at full size: a buffer that grows would leave copies of the code behind.
    head: Zeroizing<Vec<u8>>,
    filled: usize,
    answered: bool,
}

enum ConnectionState<T> {
    Open,
    Closed,
    Accepted(T),
}

impl Connection {
    fn new(stream: NotInherited<TcpStream>) -> Connection {
        Connection { stream, head: Zeroizing::new(vec![0; MAX_HEAD]), filled: 0, answered: false }
    }

    /// Reads the available bytes, and answers the request if it is complete.
    fn poll<'p, T>(
        &mut self,
        callback_target: &CallbackTarget,
        take: &mut impl FnMut(&str) -> Result<T, Page<'p>>,
    ) -> ConnectionState<T> {
        // The buffer is never full here: a full one has been answered.
        let Ok(mut stream) = self.stream.get() else { return ConnectionState::Closed };
        match stream.read(&mut self.head[self.filled..]) {
            Ok(0) => return ConnectionState::Closed,
            // Drain the input after the response: closing a socket with unread data resets the
            // connection, and the browser would not show the page.
            Ok(_) if self.answered => return ConnectionState::Open,
            Ok(count) => self.filled += count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return ConnectionState::Open;
            }
            Err(_) => return ConnectionState::Closed,
        }
        let refusal = match callback_target.query(&self.head[..self.filled]) {
            Ok(None) => return ConnectionState::Open,
            Ok(Some(query)) => match take(query) {
                Ok(taken) => return ConnectionState::Accepted(taken),
                Err(page) => page,
            },
            Err(page) => page,
        };
        log::debug!("a request to the loopback port was refused: {}", refusal.status);
        self.answered = true;
        self.filled = 0;
        match send(stream, &refusal) {
            Ok(()) => ConnectionState::Open,
            Err(_) => ConnectionState::Closed,
        }
    }
}

/// Sends the page. It is the first output of the connection, so it fits into the socket's send
/// buffer.
fn send(mut stream: &TcpStream, page: &Page) -> io::Result<()> {
    stream.write_all(page.response().as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

impl CallbackTarget {
    fn new(port: u16, redirect_uri: &Uri) -> CallbackTarget {
        // The default port of a scheme may be omitted.
        let spellings = |host: &str, port: Option<u16>, usual: u16| {
            let bare = (port == Some(usual)).then(|| host.to_owned());
            port.map(|port| format!("{host}:{port}")).into_iter().chain(bare)
        };
        let usual = if redirect_uri.scheme_str() == Some("https") { 443 } else { 80 };
        let outside =
            spellings(redirect_uri.host().unwrap_or_default(), redirect::port(redirect_uri), usual);
        let here =
            ["127.0.0.1", "localhost"].into_iter().flat_map(|host| spellings(host, Some(port), 80));
        let hosts = outside.chain(here).collect();
        CallbackTarget { path: redirect_uri.path().to_owned(), hosts }
    }

    /// The query of the request in these bytes, without a fragment. `None` while its header is
    /// incomplete; the error page if it is not the redirect.
    fn query<'a>(&self, bytes: &'a [u8]) -> Result<Option<&'a str>, Page<'static>> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut request = Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(Status::Complete(_)) => {}
            Ok(Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
            Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
            Err(_) => return Err(MALFORMED),
        }
        let mut hosts =
            request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(MALFORMED);
        };
        if !self.hosts.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(host.value)) {
            return Err(MISDIRECTED);
        }
        if request.method != Some("GET") {
            return Err(NOT_ALLOWED);
        }
        let target = request.path.unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = query.split_once('#').map_or(query, |(query, _)| query);
        if path == self.path { Ok(Some(query)) } else { Err(NOT_FOUND) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callback_target() -> CallbackTarget {
        CallbackTarget::new(8080, &"https://App.example/oauth/callback?tenant=7".parse().unwrap())
    }

    fn status(head: &[u8]) -> &'static str {
        match callback_target().query(head) {
            Ok(None) => "",
            Ok(Some(_)) => "taken",
            Err(page) => page.status.split(' ').next().unwrap(),
        }
    }

    fn get(target: &str, headers: &str) -> Vec<u8> {
        format!("GET {target} HTTP/1.1\r\n{headers}\r\n").into_bytes()
    }

    #[test]
    fn request_head_is_accepted_or_refused_with_a_reason() {
        let ours = "Host: app.example\r\n";
        let callback = "/oauth/callback?code=1&state=2";
        for (target, query) in [
            (callback, "code=1&state=2"),
            ("/oauth/callback?code=1#?state=2", "code=1"),
            ("/oauth/callback", ""),
        ] {
            assert_eq!(callback_target().query(&get(target, ours)), Ok(Some(query)), "{target}");
        }
        for (expected, head) in [
            ("taken", get("/oauth/callback", ours)),
            ("taken", get(callback, "Accept: */*\r\nhOST:  APP.EXAMPLE:443 \r\nCookie: a=b\r\n")),
            ("taken", get(callback, "Host: 127.0.0.1:8080\r\n")),
            ("taken", get(callback, "Host: localhost:8080\r\n")),
            ("taken", b"GET /oauth/callback HTTP/1.0\r\nHost: app.example\r\n\r\n".to_vec()),
            ("taken", [&get(callback, ours)[..], b"GET / HTTP/1.1\r\n\r\n"].concat()),
            ("421", get(callback, "Host: evil.example\r\n")),
            ("421", get(callback, "Host: app.example.evil\r\n")),
            ("421", get(callback, "Host: app.example:8080\r\n")),
            ("421", get(callback, "Host: app.example:99999\r\n")),
            ("421", get(callback, "Host: user@app.example\r\n")),
            ("421", get(callback, "Host: localhost\r\n")),
            ("421", get(callback, "Host: localhost:8081\r\n")),
            ("421", get(callback, "Host: [::1]:8080\r\n")),
            ("421", get(callback, "Host: \r\n")),
            ("421", get("/favicon.ico", "Host: evil.example\r\n")),
            ("421", b"POST /oauth/callback HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec()),
            ("400", get(callback, "")),
            ("400", get(callback, "Host: app.example\r\nHost: app.example\r\n")),
            ("400", get(callback, "Host: app.example\r\nhost: evil.example\r\n")),
            ("400", get(callback, "Host : app.example\r\n")),
            ("400", get(callback, "Host: app.example\r\n continued\r\n")),
            ("400", get("/oauth/call back", ours)),
            ("400", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
            ("400", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
            ("400", b"GET /oauth/callback\r\n\r\n".to_vec()),
            ("405", b"POST /oauth/callback HTTP/1.1\r\nHost: app.example\r\n\r\n".to_vec()),
            ("405", b"HEAD /oauth/callback HTTP/1.1\r\nHost: app.example\r\n\r\n".to_vec()),
            ("405", b"OPTIONS * HTTP/1.1\r\nHost: app.example\r\n\r\n".to_vec()),
            ("404", get("/", ours)),
            ("404", get("/favicon.ico", ours)),
            ("404", get("/oauth/callback/", ours)),
            ("404", get("/OAuth/callback", ours)),
            ("404", get("//app.example/oauth/callback", ours)),
            ("404", get("/oauth/../oauth/callback", ours)),
            ("404", get("https://app.example/oauth/callback", ours)),
            ("404", get("/oauth/callback#?code=1", ours)),
            ("404", get("*", ours)),
            ("431", get(callback, &format!("{ours}Cookie: {}\r\n", "x".repeat(MAX_HEAD)))),
            ("431", get(&format!("/oauth/callback?{}", "x".repeat(MAX_HEAD)), ours)),
            ("431", get(callback, &"A: b\r\n".repeat(MAX_HEADERS + 1))),
        ] {
            let head = &head[..head.len().min(MAX_HEAD)];
            assert_eq!(
                status(head),
                expected,
                "{}",
                String::from_utf8_lossy(&head[..head.len().min(200)])
            );
        }
    }

    #[test]
    fn incomplete_request_head_is_not_judged() {
        let whole = get("/oauth/callback?code=1", "Host: app.example\r\n");
        for length in 0..whole.len() {
            assert_eq!(status(&whole[..length]), "", "{length}");
        }
        assert_eq!(status(&whole), "taken");
    }

    #[test]
    fn request_head_with_any_changed_byte_does_not_panic() {
        let whole = get("/oauth/callback?code=1", "Host: app.example\r\nAccept: */*\r\n");
        for position in 0..whole.len() {
            for byte in 0..=u8::MAX {
                let mut head = whole.clone();
                head[position] = byte;
                status(&head);
                head.truncate(position + 1);
                status(&head);
            }
        }
    }

    #[test]
    fn default_port_of_a_redirect_uri_is_optional() {
        for (uri, port, expected) in [
            ("https://a.example/", 81, "a.example:443 a.example 127.0.0.1:81 localhost:81"),
            ("https://a.example:8443", 81, "a.example:8443 127.0.0.1:81 localhost:81"),
            ("http://u@a.example/", 81, "a.example:80 a.example 127.0.0.1:81 localhost:81"),
            (
                "https://a.example:80/",
                80,
                "a.example:80 127.0.0.1:80 127.0.0.1 localhost:80 localhost",
            ),
        ] {
            let callback_target = CallbackTarget::new(port, &uri.parse().unwrap());
            assert_eq!(
                (callback_target.path.as_str(), callback_target.hosts.join(" ").as_str()),
                ("/", expected),
                "{uri}"
            );
        }
    }
}
