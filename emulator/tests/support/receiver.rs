//! A webhook receiver with a configurable status that passes on the received requests.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver as Channel, channel};
use std::time::Duration;

pub struct Receiver {
    pub url: String,
    status: Arc<AtomicU16>,
    bodies: Channel<Value>,
}

impl Receiver {
    /// Starts a receiver that responds with this status.
    pub fn answering(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/webhooks", listener.local_addr().unwrap());
        let status = Arc::new(AtomicU16::new(status));
        let (sender, bodies) = channel();
        let answer = Arc::clone(&status);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(mut socket) = socket else { return };
                let mut request = Vec::new();
                let mut buffer = [0; 1 << 14];
                while !request.ends_with(b"}") {
                    match socket.read(&mut buffer) {
                        Ok(0) | Err(_) => break,
                        Ok(count) => request.extend_from_slice(&buffer[..count]),
                    }
                }
                let body =
                    request.windows(4).position(|window| window == b"\r\n\r\n").map(|end| end + 4);
                let body = body.and_then(|start| serde_json::from_slice(&request[start..]).ok());
                let Some(body) = body else { continue };
                let status = answer.load(Ordering::SeqCst);
                let _ = socket.write_all(format!("HTTP/1.1 {status} As told\r\n\r\n").as_bytes());
                if sender.send(body).is_err() {
                    return;
                }
            }
        });
        Self { url, status, bodies }
    }

    /// Changes the status of all further responses.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    #[track_caller]
    pub fn next(&self) -> Value {
        self.bodies.recv_timeout(Duration::from_secs(20)).expect("a webhook arrives")
    }
}
