//! Several hosts that share one PostgreSQL database, simulated by network namespaces joined by a
//! bridge. One of them is disconnected during a refresh.
//!
//! The workers are this program, started again inside a namespace with a role in its environment.
#![cfg(all(target_os = "linux", feature = "postgres"))]

mod connect;
mod postgres_server;
mod worker;

use std::env;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::internals::{Client, Config};
use ghl_oauth_emulator::{Emulator, Endpoint, GrantType, Options, Rule, Stage};
use postgres_server::{Relay, Server};
use serde_json::{Value, json};
use worker::Worker;

const CONFIG: &str = "GHL_TEST_HOST_WORKER";

/// Not a test: with a configuration in the environment, this process is a worker that executes its
/// input.
#[test]
fn work() {
    let Ok(config) = env::var(CONFIG) else { return };
    let client = Client::new(&Config::from_json(&config).unwrap()).unwrap();
    println!("\nready");
    for line in std::io::stdin().lines() {
        match line.unwrap().split(' ').collect::<Vec<_>>()[..] {
            ["ask", resource_id] => match client.access_token(resource_id) {
                Ok(token) => println!("{}", token.expose()),
                Err(error) => println!("{}", error.status().name()),
            },
            ["refresh", resource_id] => match client.token_refresh(resource_id) {
                Ok(_) => println!("refreshed"),
                Err(error) => println!("{}", error.status().name()),
            },
            ref words => panic!("{words:?}"),
        }
    }
}

/// Hosts on a virtual network, which is removed on drop.
struct Network {
    /// The prefix of the names.
    name: String,
    made: Vec<String>,
}

const SERVER: &str = "10.77.0.1";

impl Network {
    /// Creates the hosts `a`, `b` and `c` and the host of the server. Prints a note if that is
    /// impossible.
    fn new() -> Option<Network> {
        let mut network = Network { name: format!("ghl{}", std::process::id()), made: Vec::new() };
        let hub = network.host("hub");
        if !run(&["ip", "netns", "add", &hub]) {
            println!(
                "skipped: hosts in network namespaces (run as root, apt-get install iproute2 \
                 iptables)"
            );
            return None;
        }
        network.made.push(hub.clone());
        must(&["ip", "-n", &hub, "link", "add", "bridge", "type", "bridge"]);
        must(&["ip", "-n", &hub, "address", "add", &format!("{SERVER}/24"), "dev", "bridge"]);
        must(&["ip", "-n", &hub, "link", "set", "bridge", "up"]);
        must(&["ip", "-n", &hub, "link", "set", "lo", "up"]);
        for (index, host) in ["a", "b", "c"].into_iter().enumerate() {
            let namespace = network.host(host);
            must(&["ip", "netns", "add", &namespace]);
            network.made.push(namespace.clone());
            // A name that `ip` does not mistake for an abbreviated keyword.
            let port = format!("to-{host}");
            let peer = ["type", "veth", "peer", "name", "net", "netns", &namespace];
            must(&[&["ip", "-n", &hub, "link", "add", &port][..], &peer].concat());
            must(&["ip", "-n", &hub, "link", "set", &port, "master", "bridge", "up"]);
            must(&[
                "ip",
                "-n",
                &namespace,
                "address",
                "add",
                &format!("10.77.0.{}/24", index + 2),
                "dev",
                "net",
            ]);
            must(&["ip", "-n", &namespace, "link", "set", "net", "up"]);
        }
        if !network.drops("a", false) {
            println!("skipped: a disconnected host (apt-get install iptables)");
            return None;
        }
        Some(network)
    }

    fn host(&self, host: &str) -> String {
        format!("{}{host}", self.name)
    }

    /// Sets whether all packets of a host in both directions are dropped silently.
    fn drops(&self, host: &str, drops: bool) -> bool {
        let policy = if drops { "DROP" } else { "ACCEPT" };
        ["INPUT", "OUTPUT"].iter().all(|chain| {
            run(&["ip", "netns", "exec", &self.host(host), "iptables", "-w", "-P", chain, policy])
        })
    }

    /// A port at the address of the server that leads to a port of this test.
    fn forward(&self, port: u16) -> u16 {
        let namespace = File::open(format!("/run/netns/{}", self.host("hub"))).unwrap();
        // A socket and the thread that creates it stay in one network namespace, so the thread ends
        // at once.
        let listen = move || {
            // SAFETY: an open descriptor of a namespace; only this thread moves.
            assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            TcpListener::bind((SERVER, 0)).unwrap()
        };
        let listener = thread::spawn(listen).join().unwrap();
        let forwarded = listener.local_addr().unwrap().port();
        Relay::serve(listener, port);
        forwarded
    }

    fn worker(&self, host: &str, config: &Value) -> Worker {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(host)]).arg(env::current_exe().unwrap());
        Worker::start(
            command.args(["work", "--exact", "--nocapture"]).env(CONFIG, config.to_string()),
        )
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.made {
            run(&["ip", "netns", "del", namespace]);
        }
    }
}

fn run(words: &[&str]) -> bool {
    Command::new(words[0]).args(&words[1..]).output().is_ok_and(|output| output.status.success())
}

fn must(words: &[&str]) {
    assert!(run(words), "{words:?}");
}

#[test]
fn host_disconnected_during_a_refresh_delays_others_only_briefly_and_loses_no_token() {
    if postgres_server::programs().is_none() {
        return;
    }
    let Some(network) = Network::new() else { return };
    let hub = network.host("hub");
    let server = Server::start_inside(&["ip", "netns", "exec", &hub], SERVER, &[]).unwrap();
    let url = format!("{}?sslmode=disable", server.database().url());
    let emulator = Emulator::start(Options { rate_limit: None, ..Options::default() }).unwrap();
    let api = network.forward(emulator.base_url().rsplit(':').next().unwrap().parse().unwrap());
    let config = |url: &str, api: &str| {
        let mut config = connect::config(&emulator, &json!({"kind": "postgres", "url": url}));
        config["baseUrl"] = api.into();
        config["http"] = json!({"allowInsecureHttp": true});
        config
    };
    // The company is connected from here: a Unix socket works across network namespaces.
    let socket = server.socket_folder().to_str().unwrap().replace('/', "%2F");
    let here = url.replace(SERVER, &socket);
    let client =
        Client::new(&Config::from_json(&config(&here, &emulator.base_url()).to_string()).unwrap())
            .unwrap();
    connect::connect(&emulator, &client);
    let mut page = client.tokens_export(&Default::default()).unwrap();
    page["tokens"][0]["expiresAt"] = 1_700_000_000_000_i64.into();
    page["replace"] = true.into();
    client.tokens_import(serde_json::from_value(page).unwrap()).unwrap();
    drop(client);

    let there = config(&url, &format!("http://{SERVER}:{api}"));
    let (mut a, mut b, mut c) =
        (network.worker("a", &there), network.worker("b", &there), network.worker("c", &there));
    let company = emulator.company_id();
    let rule = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken).times(1);
    let hold = emulator.hold(rule, Stage::AfterProcessing);
    a.say(&format!("ask {company}"));
    hold.wait_for(1);
    // The API has consumed the old token, and only its response to `a` contains the new one.
    assert!(network.drops("a", true));
    let cut = Instant::now();
    hold.release();
    b.say(&format!("ask {company}"));
    c.say(&format!("ask {company}"));
    let (of_b, of_c) = (b.line(), c.line());
    let waited = cut.elapsed();
    println!("the other hosts had the token {waited:?} after the lock holder was disconnected");
    assert!(emulator.access_token_is_live(&of_b), "{of_b}");
    assert_eq!(of_b, of_c);
    assert!(waited < Duration::from_secs(25), "within the replay window of 30 seconds: {waited:?}");

    // No token is lost when the first host returns with its outdated state.
    assert!(network.drops("a", false));
    let _ = a.line();
    for worker in [&mut a, &mut b, &mut c] {
        assert_eq!(worker.answer(&format!("refresh {company}")), "refreshed");
        let token = worker.answer(&format!("ask {company}"));
        assert!(emulator.access_token_is_live(&token), "{token}");
    }
}
