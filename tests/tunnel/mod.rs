//! A minimal proxy for `CONNECT`.
#![allow(dead_code)] // Each test file uses only a part.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

/// The response that opens the tunnel.
pub const OPEN: &str = "HTTP/1.1 200 OK\r\n\r\n";

/// Starts a proxy that requires a password and sends this response. Returns its address.
pub fn tunnel(answer: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = answer.to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let answer = answer.clone();
            thread::spawn(move || serve(client.unwrap(), &answer));
        }
    });
    address
}

fn serve(mut client: TcpStream, answer: &str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read_exact(&mut byte).is_err() {
            return;
        }
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains("Proxy-Authorization: Basic "), "{head}");
    client.write_all(answer.as_bytes()).unwrap();
    if answer != OPEN {
        return;
    }
    let mut server = TcpStream::connect(head.split(' ').nth(1).unwrap()).unwrap();
    let (mut from_server, mut to_client) =
        (server.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || {
        // A broken connection counts as closed.
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let _ = io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
}
