//! An HTTP proxy with its own threads, like a corporate proxy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// The response to a CONNECT.
#[derive(Clone, Copy)]
pub enum Manner {
    /// Connects clients that send this `user:password`.
    Asks(&'static str),
    /// Connects every client.
    Open,
    /// Sends this text and closes.
    Says(&'static str),
    /// Sends an endless header, one byte every ten milliseconds.
    Drips,
}

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Manner,
    heard: Mutex<Vec<String>>,
    /// Whether the bytes of the server are buffered until the server closes, and then sent at once
    /// without the close.
    withholds: AtomicBool,
    ended: AtomicUsize,
}

impl Proxy {
    pub fn start(manner: Manner) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manner,
            heard: Mutex::default(),
            withholds: AtomicBool::default(),
            ended: AtomicUsize::default(),
        });
        let proxy = Proxy { address, shared: Arc::clone(&shared) };
        // The threads end with the test process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let shared = Arc::clone(&shared);
                // A client that disconnects is no error of the proxy.
                thread::spawn(move || shared.serve(client.unwrap()).unwrap_or_default());
            }
        });
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The request heads so far.
    pub fn heard(&self) -> Vec<String> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// The number of server-side closes that were forwarded so far.
    pub fn ended(&self) -> usize {
        self.shared.ended.load(Ordering::SeqCst)
    }

    pub fn withhold(&self, withhold: bool) {
        self.shared.withholds.store(withhold, Ordering::SeqCst);
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(client.try_clone()?).lines();
        let mut head = Vec::new();
        while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
            head.push(line);
        }
        let Some(target) = head.first().and_then(|line| line.split(' ').nth(1)).map(str::to_owned)
        else {
            return Ok(());
        };
        let shows = |credentials| {
            let expected =
                format!("Proxy-Authorization: Basic {}", BASE64_STANDARD.encode(credentials));
            head.contains(&expected)
        };
        let refusal = match self.manner {
            Manner::Open => None,
            Manner::Asks(credentials) if shows(credentials) => None,
            Manner::Asks(_) => {
                Some("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            }
            Manner::Says(answer) => Some(answer),
            Manner::Drips => Some("HTTP/1.1 200 Connection established\r\nx: "),
        };
        self.heard.lock().unwrap().push(head.join("\n"));
        if let Some(refusal) = refusal {
            client.write_all(refusal.as_bytes())?;
            while let Manner::Drips = self.manner {
                client.write_all(b"x")?;
                thread::sleep(Duration::from_millis(10));
            }
            // Until the client disconnects.
            return client.read_to_end(&mut Vec::new()).map(drop);
        }
        let server = TcpStream::connect(target)?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        thread::scope(|scope| {
            scope.spawn(|| self.pass_on(&server, &client, true));
            self.pass_on(&client, &server, false)
        })
    }

    fn pass_on(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        is_answer: bool,
    ) -> std::io::Result<()> {
        let mut buffer = [0; 1 << 14];
        let mut kept = Vec::new();
        loop {
            match from.read(&mut buffer).unwrap_or(0) {
                0 if kept.is_empty() => {
                    let told = to.shutdown(Shutdown::Write);
                    self.ended.fetch_add(usize::from(is_answer), Ordering::SeqCst);
                    return told;
                }
                0 => return to.write_all(&kept),
                count if is_answer && self.withholds.load(Ordering::SeqCst) => {
                    kept.extend_from_slice(&buffer[..count]);
                }
                count => to.write_all(&buffer[..count])?,
            }
        }
    }
}
