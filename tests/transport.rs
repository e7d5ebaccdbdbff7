//! Transport: TLS certificates, proxies, IPv6, connection reuse, and the connect timeout.

mod proxy;
mod support;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::Status;
use ghl_oauth_emulator::{
    Certificate, Emulator, Ending, Endpoint, FaultKind, Options, Rule, Stage,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use proxy::{Manner, Proxy};
use support::{Abi, Outcome, contains_none_of, emulator, fields, header, sent};

/// An emulator with HTTPS. Its configuration names the CA file.
fn secure(certificate: Certificate) -> (Emulator, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        tls: Some(certificate),
        ca_file: Some(folder.path().join("ca.pem")),
        locations: 2,
        ..Options::default()
    };
    (Emulator::start(options).unwrap(), folder)
}

/// One emulator with HTTP, and one with HTTPS.
fn plain_and_secure() -> [(Emulator, Option<TempDir>); 2] {
    let (secure, folder) = secure(Certificate::Good);
    [(emulator(2), None), (secure, Some(folder))]
}

/// Consent, a mint, a refresh, and a list.
#[track_caller]
fn does_everything(abi: &Abi, emulator: &Emulator) {
    let company = abi.connect_company(emulator);
    abi.live_token(emulator, &emulator.location_ids()[0]);
    abi.token_refresh(&company).ok();
    let list = abi.oauth_installed_locations(json!({"companyId": company})).ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(sent(emulator), ["code 200", "mint 200", "refresh 200", "list 200"]);
}

type Call = (&'static str, fn(&Abi, &Emulator) -> Outcome);

/// Calls of a client that has a company token. The last one leaves a spent token.
const CALLS: [Call; 4] = [
    ("refresh", |abi, emulator| abi.token_refresh(&emulator.company_id())),
    ("mint", |abi, emulator| {
        let (company, location) = (emulator.company_id(), &emulator.location_ids()[0]);
        abi.oauth_location_token(json!({"companyId": company, "locationId": location}))
    }),
    ("list", |abi, emulator| {
        abi.oauth_installed_locations(json!({"companyId": emulator.company_id()}))
    }),
    ("refresh", |abi, emulator| {
        let token = emulator.live_refresh_tokens()[0].refresh_token.clone();
        abi.oauth_token(json!({"grantType": "refresh_token", "refreshToken": token}))
    }),
];

/// Two calls without a stored token: a retryable one and one that must not be repeated.
const BARE_CALLS: [fn(&Abi) -> Outcome; 2] = [
    |abi| {
        abi.oauth_installed_locations(json!({"companyId": "c", "accessToken": "some access token"}))
    },
    |abi| {
        abi.oauth_token(json!({"grantType": "refresh_token", "refreshToken": "some refresh token"}))
    },
];

/// A client for an address without an emulator.
fn at(base_url: &str, changes: Value) -> Abi {
    let mut config =
        json!({"clientId": "app-1", "clientSecret": "some secret", "baseUrl": base_url});
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    Abi::open(&config).unwrap()
}

#[test]
fn whole_flow_works_over_https_with_a_private_ca() {
    let (emulator, _folder) = secure(Certificate::Good);
    does_everything(&Abi::new(&emulator), &emulator);
    // The host name on the certificate works as well as the address.
    let base_url = emulator.base_url().replace("127.0.0.1", "localhost");
    does_everything(&Abi::with(&emulator, json!({"baseUrl": base_url})), &emulator);
}

#[test]
fn untrusted_certificate_ends_the_call_before_any_request() {
    for (certificate, bundles) in [
        (Certificate::Good, &[false][..]),
        (Certificate::WrongName, &[false, true]),
        (Certificate::Expired, &[false, true]),
    ] {
        let (emulator, _folder) = secure(certificate);
        for &bundle in bundles {
            // Allowing plain HTTP does not weaken HTTPS.
            let mut changes = json!({"http": {"allowInsecureHttp": true}});
            if !bundle {
                changes["http"]["caBundlePath"] = Value::Null;
            }
            let abi = Abi::with(&emulator, changes);
            for call in BARE_CALLS {
                let before = emulator.connections();
                let error = call(&abi).fails(Status::Network);
                let message = error["message"].as_str().unwrap();
                assert!(
                    message.starts_with(
                        "the certificate of 127.0.0.1 is not trusted, nothing was sent: invalid \
                         peer certificate"
                    ),
                    "{certificate:?}: {message}"
                );
                let help = error["help"].as_str().unwrap();
                assert!(help.contains("http.caBundlePath") && help.contains("clock"), "{help}");
                assert_eq!(emulator.connections() - before, 1, "a retry fails the same way");
            }
        }
        assert_eq!(emulator.requests(), []);
    }
}

#[test]
fn refresh_over_an_untrusted_connection_spends_no_token() {
    let (emulator, _folder) = secure(Certificate::Good);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    let exported = abi.tokens_export(json!({})).ok();
    sent(&emulator);
    let stranger = Abi::with(&emulator, json!({"http": {"caBundlePath": null}}));
    stranger.tokens_import(exported).ok();
    let heard = stranger.listen();
    stranger.token_refresh(&company).fails(Status::Network);
    assert_eq!(heard.names(), [format!("token.refreshFailed {company}")]);
    assert_eq!(stranger.listed(&company)["state"], "ok");
    assert_eq!(sent(&emulator), [""; 0]);
    abi.token_refresh(&company).ok();
    assert_eq!(emulator.refreshes(), 1);
}

#[test]
fn server_without_tls_is_distinguished_from_a_bad_certificate() {
    let emulator = emulator(1);
    let abi = at(&emulator.base_url().replace("http:", "https:"), json!({}));
    for call in BARE_CALLS {
        let before = emulator.connections();
        let error = call(&abi).fails(Status::Network);
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with("the TLS handshake with 127.0.0.1 failed, nothing was sent"),
            "{message}"
        );
        assert_eq!(emulator.connections() - before, 1);
    }
}

#[test]
fn unusable_ca_bundle_is_refused_when_the_client_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let pem = |kind: &str, base64: &str| {
        format!("-----BEGIN {kind}-----\n{base64}\n-----END {kind}-----\n")
    };
    let (emulator, _ca) = secure(Certificate::Good);
    let ca = emulator.ca_pem().unwrap();
    for (name, text, complaint) in [
        ("empty", String::new(), "no certificate"),
        ("garbage", "this is no PEM \u{0}\u{1}".repeat(99), "no certificate"),
        ("key", pem("PRIVATE KEY", "MC4CAQAwBQYDK2VwBCIEIA=="), "no certificate"),
        ("other", pem("PUBLIC KEY", "MCowBQYDK2VwAyEA"), "no certificate"),
        ("no base64", pem("CERTIFICATE", "*"), ""),
        ("no certificate", pem("CERTIFICATE", "bm8gY2VydGlmaWNhdGU="), "invalid peer certificate"),
        ("one of two", format!("{ca}{}", pem("CERTIFICATE", "bm8gY2VydGlmaWNhdGU=")), "invalid"),
        ("cut", ca[..ca.len() / 2].to_owned(), ""),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        is_refused(&path, complaint);
    }
    // The text of the system's error depends on the system.
    is_refused(&folder.path().join("missing"), "os error 2");
    is_refused(folder.path(), "");

    // A private key and several certificates in the file are accepted.
    let path = folder.path().join("good");
    std::fs::write(&path, format!("{}# A comment\n{ca}{ca}", pem("PRIVATE KEY", "AAAA"))).unwrap();
    let abi = Abi::with(&emulator, json!({"http": {"caBundlePath": path}}));
    // The file is read only once, when the client is created.
    std::fs::remove_file(path).unwrap();
    does_everything(&abi, &emulator);
}

#[track_caller]
fn is_refused(path: &Path, complaint: &str) {
    let config = json!({"clientId": "app-1", "clientSecret": "s", "http": {"caBundlePath": path}});
    let error = Abi::open(&config).err().expect("a refusal").fails(Status::Config);
    assert_eq!(error["parameter"], "http.caBundlePath", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(path.to_str().unwrap()) && message.contains(complaint), "{message}");
}

#[test]
fn certificate_verification_cannot_be_disabled() {
    for key in [
        "verify",
        "insecure",
        "skipVerify",
        "disableVerification",
        "allowInsecureHttps",
        "rejectUnauthorized",
    ] {
        for value in [json!(true), json!(false)] {
            let config = json!({"clientId": "app-1", "clientSecret": "s", "http": {key: value}});
            Abi::open(&config).err().expect("a refusal").refuses(&format!("http.{key}"));
        }
    }
}

#[test]
fn proxy_credentials_are_sent_to_the_proxy_and_never_to_the_api() {
    for (emulator, _folder) in plain_and_secure() {
        let proxy = Proxy::start(Manner::Asks("the user:p@ss word:%"));
        let url = format!("http://the%20user:p%40ss%20word:%25@{}", proxy.address());
        let changes = json!({"http": {
            "proxy": url, "userAgentSuffix": "my-product/2.0", "allowInsecureHttp": true,
        }});
        let abi = Abi::with(&emulator, changes);
        abi.connect_company(&emulator);
        for (name, call) in CALLS {
            emulator.clear_requests();
            call(&abi, &emulator).ok();
            for request in emulator.requests() {
                assert_eq!(header(&request, "proxy-authorization"), None);
                contains_none_of(
                    &format!("{request:?}"),
                    &["p@ss word", "p%40ss%20word", "dGhlIHVzZXI6cEBz"],
                );
            }
            assert_eq!(sent(&emulator), [format!("{name} 200")]);
        }
        let [heard] = <[_; 1]>::try_from(proxy.heard()).expect("one connection for all");
        let authority = emulator.base_url().split_once("://").unwrap().1.to_owned();
        assert!(heard.starts_with(&format!("CONNECT {authority} HTTP/1.1\n")), "{heard}");
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            heard.contains(&format!("\nUser-Agent: ghl-oauth/{version} my-product/2.0\n")),
            "{heard}"
        );
        assert_eq!(emulator.connections(), 1);
    }
}

#[test]
fn refusing_proxy_is_named_and_retried_only_if_that_may_help() {
    const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    for (emulator, _folder) in plain_and_secure() {
        for (manner, status, times, help) in [
            (
                Manner::Asks("user:another password"),
                "407",
                1,
                "the user name and the password in http.proxy",
            ),
            (Manner::Says(REFUSED), "403", 1, "http.proxy"),
            (Manner::Says(BUSY), "503", 3, "http.proxy"),
        ] {
            let proxy = Proxy::start(manner);
            let url = format!("http://user:some%20password@{}", proxy.address());
            let changes = json!({"http": {"proxy": url, "allowInsecureHttp": true}});
            let abi = Abi::with(&emulator, changes);
            for call in BARE_CALLS {
                let before = proxy.heard().len();
                let error = call(&abi).fails(Status::Network);
                let address = proxy.address();
                let expected = format!(
                    "the proxy {address} refused to connect to 127.0.0.1 with {status}, nothing \
                     was sent"
                );
                assert_eq!(error["message"], expected);
                assert!(error["help"].as_str().unwrap().contains(help), "{error}");
                contains_none_of(
                    &error.to_string(),
                    &["some password", "some%20password", "dXNlcjpzb21l"],
                );
                assert_eq!(proxy.heard().len() - before, times);
            }
        }
        assert_eq!(emulator.connections(), 0);
    }
}

#[test]
fn unreachable_or_disconnecting_proxy_is_named() {
    let emulator = emulator(1);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = format!("http://user:some%20password@{closed}");
    let abi = Abi::with(&emulator, json!({"http": {"proxy": proxy, "allowInsecureHttp": true}}));
    for call in BARE_CALLS {
        let error = call(&abi).fails(Status::Network);
        let message = error["message"].as_str().unwrap();
        let expected = format!(
            "127.0.0.1 could not be reached through the proxy {closed}, nothing was sent: "
        );
        assert!(message.starts_with(&expected), "{message}");
        assert!(error["help"].as_str().unwrap().contains("http.proxy"), "{error}");
        contains_none_of(&error.to_string(), &["some password", "some%20password"]);
    }
    assert_eq!(emulator.connections(), 0);
}

/// Plain HTTP to this machine needs no permission because it does not leave the machine.
#[test]
fn plain_http_to_this_machine_bypasses_the_proxy() {
    let emulator = emulator(2);
    let proxy = Proxy::start(Manner::Open);
    let url = format!("http://{}", proxy.address());
    does_everything(&Abi::with(&emulator, json!({"http": {"proxy": url}})), &emulator);
    assert_eq!(proxy.heard(), [""; 0]);
}

#[test]
fn host_in_no_proxy_is_reached_without_the_proxy() {
    let (emulator, _folder) = secure(Certificate::Good);
    let through_proxy = |base_url: &str, no_proxy: Value| {
        let proxy = Proxy::start(Manner::Open);
        let url = format!("http://{}", proxy.address());
        let http = json!({"proxy": url, "noProxy": no_proxy});
        does_everything(
            &Abi::with(&emulator, json!({"baseUrl": base_url, "http": http})),
            &emulator,
        );
        !proxy.heard().is_empty()
    };
    let address = emulator.base_url().to_owned();
    let name = address.replace("127.0.0.1", "localhost");
    for (base_url, no_proxy, expected) in [
        (&address, json!([]), true),
        (&address, json!(["localhost", "127.0.0.2", "10.0.0.0/8"]), true),
        (&address, json!(["example.com", "127.0.0.0/8"]), false),
        (&address, json!(["*"]), false),
        (&name, json!([".localhost", "127.0.0.1"]), true),
        (&name, json!(["LocalHost"]), false),
    ] {
        assert_eq!(through_proxy(base_url, no_proxy.clone()), expected, "{base_url} {no_proxy}");
    }
    for (entry, status, parameter) in [
        (json!(["http://a.example"]), Status::Config, "http.noProxy[0]"),
        (json!(["a.example", "a.example:80"]), Status::Config, "http.noProxy[1]"),
        (json!(["10.0.0.0/33"]), Status::Config, "http.noProxy[0]"),
        (json!(["a.example, b.example"]), Status::Config, "http.noProxy[0]"),
        (json!("a.example"), Status::InvalidArgument, "http.noProxy"),
    ] {
        let http = json!({"noProxy": entry});
        let config = json!({"clientId": "app-1", "clientSecret": "s", "http": http});
        let error = Abi::open(&config).err().expect("a refusal").fails(status);
        assert_eq!(error["parameter"], parameter, "{error}");
    }
}

#[test]
fn unusable_proxy_url_is_refused_when_the_client_is_created() {
    let secret = "some password";
    for url in [
        "socks5://user:some%20password@h:1",
        "socks4://h:1",
        "https://h:1",
        "ftp://h:1",
        "",
        "http://",
        "http://user:some%20password@h:proxy",
        "http://h:0",
        "http://h:65536",
        "http://h:",
        "http://h:-1",
    ] {
        let config = json!({"clientId": "app-1", "clientSecret": "s", "http": {"proxy": url}});
        let error = Abi::open(&config).err().expect("a refusal").fails(Status::Config);
        assert_eq!(error["parameter"], "http.proxy");
        contains_none_of(&error.to_string(), &[secret, "some%20password"]);
    }
}

/// Runs some tests of this file again with proxy variables that lead to another host.
#[test]
fn proxy_variables_of_the_environment_are_ignored() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let url = format!("http://{}", elsewhere.local_addr().unwrap());
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.args([
        "--exact",
        "whole_flow_works_over_https_with_a_private_ca",
        "proxy_credentials_are_sent_to_the_proxy_and_never_to_the_api",
        "localhost_is_reached_over_ipv4_and_ipv6",
    ]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        tests.env(name, &url).env(name.to_ascii_lowercase(), &url);
    }
    // `NO_PROXY` would bypass a configured proxy.
    tests.env("NO_PROXY", "*").env("no_proxy", "*");
    let output = tests.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("3 passed"), "{printed}");
    assert!(elsewhere.accept().is_err(), "a proxy of the environment was used");
}

#[test]
fn ipv6_addresses_are_reached() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: IPv6 is disabled on the loopback interface");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for tls in [None, Some(Certificate::Good)] {
        let ca_file = tls.map(|_| folder.path().join("ca.pem"));
        let options = Options { ipv6: true, tls, ca_file, locations: 2, ..Options::default() };
        let emulator = Emulator::start(options).unwrap();
        assert!(emulator.base_url().contains("://[::1]:"));
        does_everything(&Abi::new(&emulator), &emulator);
        let proxy = Proxy::start(Manner::Open);
        let url = format!("http://{}", proxy.address());
        let changes = json!({"http": {"proxy": url, "allowInsecureHttp": true}});
        does_everything(&Abi::with(&emulator, changes), &emulator);
        assert_eq!(proxy.heard().len(), 1);
    }
}

/// The name may resolve to 127.0.0.1, ::1, or both. An address that refuses connections is skipped.
#[test]
fn localhost_is_reached_over_ipv4_and_ipv6() {
    let emulator = emulator(2);
    let base_url = emulator.base_url().replace("127.0.0.1", "localhost");
    does_everything(&Abi::with(&emulator, json!({"baseUrl": base_url})), &emulator);
}

#[test]
fn unknown_host_is_named_and_no_request_was_sent() {
    for call in BARE_CALLS {
        let error = call(&at("https://api.invalid", json!({}))).fails(Status::Network);
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with("api.invalid could not be reached, nothing was sent: "),
            "{message}"
        );
    }
}

#[test]
fn sequential_calls_reuse_one_connection() {
    for (emulator, _folder) in plain_and_secure() {
        let abi = Abi::new(&emulator);
        abi.connect_company(&emulator);
        for _ in 0..5 {
            for (_, call) in &CALLS[..3] {
                call(&abi, &emulator).ok();
            }
        }
        assert_eq!((emulator.requests().len(), emulator.connections()), (16, 1));
        // An error response does not close the connection.
        abi.oauth_token(json!({"grantType": "refresh_token", "refreshToken": "never issued"}))
            .fails(Status::ReauthorizationRequired);
        CALLS[0].1(&abi, &emulator).ok();
        assert_eq!(emulator.connections(), 1);
    }
}

#[test]
fn concurrent_calls_use_separate_connections_and_keep_them() {
    let (emulator, _folder) = secure(Certificate::Good);
    let abi = Abi::new(&emulator);
    abi.connect_company(&emulator);
    let list = || CALLS[2].1(&abi, &emulator).ok();
    for _ in 0..3 {
        let hold = emulator.hold(Rule::on(Endpoint::InstalledLocations), Stage::BeforeProcessing);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(list);
            }
            hold.wait_for(8);
            hold.release();
        });
    }
    assert_eq!(emulator.connections(), 8);
}

#[test]
fn connection_closed_by_the_server_while_idle_fails_no_call() {
    for (emulator, _folder) in plain_and_secure() {
        for ending in [Ending::Close, Ending::Cut, Ending::Reset] {
            let abi = Abi::new(&emulator);
            abi.connect_company(&emulator);
            for (name, call) in CALLS {
                emulator.end_connections(ending);
                sent(&emulator);
                let before = emulator.connections();
                call(&abi, &emulator).ok();
                let place = format!("{ending:?} before a {name} at {}", emulator.base_url());
                assert_eq!(sent(&emulator), [format!("{name} 200")], "{place}");
                assert_eq!(emulator.connections() - before, 1, "{place}");
            }
            emulator.uninstall(&emulator.company_id());
        }
    }
}

/// Behind a proxy the idle connection is checked inside the tunnel.
#[test]
fn idle_connection_closed_behind_a_proxy_fails_no_call() {
    let (emulator, _folder) = secure(Certificate::Good);
    let proxy = Proxy::start(Manner::Open);
    let abi =
        Abi::with(&emulator, json!({"http": {"proxy": format!("http://{}", proxy.address())}}));
    abi.connect_company(&emulator);
    for (name, call) in CALLS {
        let (before, began) = (proxy.ended(), Instant::now());
        emulator.end_connections(Ending::Cut);
        // The proxy forwards the close after a delay.
        while proxy.ended() == before {
            assert!(began.elapsed() < Duration::from_secs(30), "the proxy has not seen the close");
            thread::yield_now();
        }
        sent(&emulator);
        call(&abi, &emulator).ok();
        assert_eq!(sent(&emulator), [format!("{name} 200")]);
        assert_eq!(abi.stats()["requests"]["unanswered"], 0, "{name}");
    }
}

/// The TLS close_notify alert arrives inside the stream. If the stream stays open, only the alert
/// shows the end.
#[test]
fn close_notify_received_with_the_last_response_is_respected() {
    let (emulator, _folder) = secure(Certificate::Good);
    let proxy = Proxy::start(Manner::Open);
    let abi =
        Abi::with(&emulator, json!({"http": {"proxy": format!("http://{}", proxy.address())}}));
    abi.connect_company(&emulator);
    for (name, call) in CALLS {
        let body = r#"{"items": []}"#;
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let rule = Rule::on(Endpoint::InstalledLocations).times(1);
        let id = emulator.inject(rule, FaultKind::Raw { text, ending: Ending::Close });
        let before = emulator.connections();
        proxy.withhold(true);
        CALLS[2].1(&abi, &emulator).ok();
        proxy.withhold(false);
        assert_eq!(
            (emulator.strikes(id), emulator.connections()),
            (1, before),
            "the server sent close_notify"
        );
        sent(&emulator);
        call(&abi, &emulator).ok();
        assert_eq!(sent(&emulator), [format!("{name} 200")]);
        assert_eq!(emulator.connections() - before, 1, "{name}");
    }
}

/// The check of an idle connection can come a moment too early: the request was sent, and the
/// connection ends. The transport repeats only safe requests. A refresh is repeated by the token
/// manager, which knows about the replay window, and never by the transport.
#[test]
fn connection_closed_during_a_request_is_a_lost_response() {
    for (emulator, _folder) in plain_and_secure() {
        for kind in [FaultKind::Reset { stage: Stage::BeforeProcessing }, FaultKind::ReplyLost] {
            let abi = Abi::new(&emulator);
            abi.connect_company(&emulator);
            for (number, (name, call)) in CALLS.into_iter().enumerate() {
                CALLS[2].1(&abi, &emulator).ok();
                sent(&emulator);
                let before = emulator.connections();
                emulator.inject(Rule::default().times(1), kind.clone());
                let outcome = call(&abi, &emulator);
                // The first used the reused connection, the second a new one.
                let is_raw = number == 3;
                assert_eq!(emulator.connections() - before, u64::from(!is_raw), "{kind:?}");
                let requests = emulator.requests();
                let first = if kind == FaultKind::ReplyLost { 200 } else { 0 };
                if is_raw {
                    let error = outcome.fails(Status::Network);
                    let message = error["message"].as_str().unwrap();
                    assert!(message.contains("broke before the response"), "{message}");
                    assert_eq!(sent(&emulator), [format!("{name} {first}")], "{kind:?}");
                } else {
                    outcome.ok();
                    assert_eq!(
                        sent(&emulator),
                        [format!("{name} {first}"), format!("{name} 200")],
                        "{kind:?}"
                    );
                    assert_eq!(fields(&requests[0]), fields(&requests[1]), "{kind:?}");
                }
            }
            emulator.uninstall(&emulator.company_id());
        }
    }
}

#[test]
fn every_request_names_the_library_and_the_host_product() {
    let library = concat!("ghl-oauth/", env!("CARGO_PKG_VERSION"));
    let product = "my-product/2.0 (for agencies)";
    for (suffix, expected) in
        [(Value::Null, library.to_owned()), (json!(product), format!("{library} {product}"))]
    {
        let emulator = emulator(2);
        let abi = Abi::with(&emulator, json!({"http": {"userAgentSuffix": suffix}}));
        abi.connect_company(&emulator);
        for (_, call) in CALLS {
            call(&abi, &emulator).ok();
        }
        let requests = emulator.requests();
        assert_eq!(requests.len(), 5);
        for request in requests {
            assert_eq!(header(&request, "user-agent"), Some(expected.as_str()), "{}", request.path);
        }
    }
}

/// The tested limit in milliseconds. The other one is far longer.
const LIMIT: u64 = 300;

fn connecting() -> Value {
    json!({"connectMs": LIMIT, "totalMs": 60_000})
}

fn in_all() -> Value {
    json!({"connectMs": 60_000, "totalMs": LIMIT})
}

/// Asserts that both calls end with `TIMEOUT` at the limit and name it.
#[track_caller]
fn end_in_time(abi: &Abi, message: &str, key: &str) {
    let most = LIMIT + (LIMIT / 10).max(200);
    let in_time = Duration::from_millis(LIMIT - 5)..Duration::from_millis(most);
    for call in BARE_CALLS {
        let took = || {
            let began = Instant::now();
            let error = call(abi).fails(Status::Timeout);
            let took = began.elapsed();
            assert_eq!(error["message"], message);
            assert!(error["help"].as_str().unwrap().contains(key), "{error}");
            took
        };
        // A busy machine may wake a thread late, but not every time.
        let mut tries = (0..3).map(|_| took());
        assert!(tries.any(|took| in_time.contains(&took)), "{message}: never in time");
    }
}

fn no_connection() -> String {
    format!("no connection to 127.0.0.1 within {LIMIT} ms")
}

fn no_result() -> String {
    format!("no result within the deadline of {LIMIT} ms")
}

/// A server that never sends a byte: the kernel accepts the connections.
fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn silent_server_is_waited_for_until_the_deadline() {
    let (_listener, address) = silent();
    let abi = at(&format!("http://{address}"), json!({"timeouts": in_all()}));
    end_in_time(&abi, &no_result(), "timeouts.totalMs");
}

#[test]
fn stalled_handshake_ends_with_the_connect_timeout() {
    let (_listener, address) = silent();
    let url = format!("https://{address}");
    end_in_time(
        &at(&url, json!({"timeouts": connecting(), "retry": {"maxAttempts": 1}})),
        &no_connection(),
        "timeouts.connectMs",
    );
    end_in_time(&at(&url, json!({"timeouts": in_all()})), &no_result(), "timeouts.totalMs");

    let (emulator, _folder) = secure(Certificate::Good);
    emulator.accept_delay(Duration::from_secs(60));
    let abi = Abi::with(&emulator, json!({"timeouts": connecting(), "retry": {"maxAttempts": 1}}));
    end_in_time(&abi, &no_connection(), "timeouts.connectMs");
    emulator.accept_delay(Duration::ZERO);
    does_everything(&abi, &emulator);
}

#[test]
fn connect_timeout_is_retried_for_every_kind_of_call() {
    let (_listener, address) = silent();
    let abi = at(
        &format!("https://{address}"),
        json!({"timeouts": {"connectMs": 50, "totalMs": 60_000}}),
    );
    for (calls, call) in (1..).zip(BARE_CALLS) {
        call(&abi).fails(Status::Timeout);
        assert_eq!(abi.stats()["requests"]["sent"], 3 * calls);
    }
}

#[test]
fn slow_server_that_accepts_in_time_is_waited_for() {
    for (emulator, _folder) in plain_and_secure() {
        emulator.accept_delay(Duration::from_millis(100));
        let abi = Abi::new(&emulator);
        does_everything(&abi, &emulator);
        assert_eq!(emulator.connections(), 1);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn server_that_accepts_no_connection_ends_with_the_connect_timeout() {
    use std::net::TcpStream;
    use std::os::fd::AsRawFd;

    let (listener, address) = silent();
    // SAFETY: a listening socket, whose backlog is reduced.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let mut crowd = Vec::new();
    while let Ok(client) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        crowd.push(client);
        if crowd.len() > 64 {
            println!("skipped: the backlog of this system is unlimited");
            return;
        }
    }
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{address}");
        end_in_time(
            &at(&url, json!({"timeouts": connecting(), "retry": {"maxAttempts": 1}})),
            &no_connection(),
            "timeouts.connectMs",
        );
        end_in_time(&at(&url, json!({"timeouts": in_all()})), &no_result(), "timeouts.totalMs");
    }
}

#[test]
fn time_spent_at_the_proxy_counts_toward_the_connect_timeout() {
    for manner in [Manner::Says(""), Manner::Drips] {
        let proxy = Proxy::start(manner);
        let http = json!({"proxy": format!("http://user:password@{}", proxy.address())});
        let through = format!(
            "no connection to h.example through the proxy {} within {LIMIT} ms",
            proxy.address()
        );
        let abi = at(
            "https://h.example",
            json!({"timeouts": connecting(), "retry": {"maxAttempts": 1}, "http": http}),
        );
        end_in_time(&abi, &through, "timeouts.connectMs");
        let abi = at("https://h.example", json!({"timeouts": in_all(), "http": http}));
        end_in_time(&abi, &no_result(), "timeouts.totalMs");
    }
    // The handshake behind the proxy gets the remaining time.
    let (_listener, address) = silent();
    let proxy = Proxy::start(Manner::Open);
    let http = json!({"proxy": format!("http://{}", proxy.address())});
    let abi = at(
        &format!("https://{address}"),
        json!({"timeouts": connecting(), "retry": {"maxAttempts": 1}, "http": http}),
    );
    let through = format!(
        "no connection to 127.0.0.1 through the proxy {} within {LIMIT} ms",
        proxy.address()
    );
    end_in_time(&abi, &through, "timeouts.connectMs");
}

/// Before its request is sent, even a call that would spend a token can be cancelled.
#[test]
fn caller_that_waits_for_a_handshake_returns_at_once_when_cancelled() {
    let (emulator, _folder) = secure(Certificate::Good);
    let abi = Abi::with(&emulator, json!({"timeouts": {"connectMs": 30_000, "totalMs": 60_000}}));
    abi.connect_company(&emulator);
    emulator.accept_delay(Duration::from_secs(60));
    for (_, call) in CALLS {
        emulator.end_connections(Ending::Close);
        let before = emulator.connections();
        thread::scope(|scope| {
            let caller = scope.spawn(|| call(&abi, &emulator));
            while emulator.connections() == before {
                assert!(!caller.is_finished(), "the call must wait");
                thread::yield_now();
            }
            let began = Instant::now();
            abi.cancel();
            caller.join().unwrap().fails(Status::Cancelled);
            assert!(began.elapsed() < Duration::from_secs(10), "at once and not at the deadline");
        });
    }
    emulator.accept_delay(Duration::ZERO);
    sent(&emulator);
    for (name, call) in CALLS {
        call(&abi, &emulator).ok();
        assert_eq!(sent(&emulator), [format!("{name} 200")]);
    }
}
