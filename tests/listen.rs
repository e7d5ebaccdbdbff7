//! The receiver on a loopback port: which requests end the wait, which are refused, and the pages a
//! browser gets.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::Status;
use ghl_oauth_emulator::{Decision, Emulator, Endpoint, GrantType, Options, Rule, Stage};
use serde_json::{Value, json};

use support::{
    Abi, Outcome, PanickingClock, contains_none_of, emulator, fields, free_port, query, sent,
    with_client,
};

/// The limit for every wait of a test. No operation takes nearly that long.
const PATIENCE: Duration = Duration::from_secs(30);

fn codes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::AuthorizationCode)
}

/// A company's consent to a new link. Returns the redirect URL.
fn consented(abi: &Abi, emulator: &Emulator) -> String {
    abi.consent(emulator, Decision::Company(emulator.company_id()))
}

/// Waits for a browser while `visit` runs, and returns both results. A failed visit ends the wait.
fn listening<T>(abi: &Abi, mut params: Value, visit: impl FnOnce() -> T) -> (Outcome, T) {
    params["timeoutMs"] = json!(PATIENCE.as_millis() as u64);
    thread::scope(|scope| {
        let listening = scope.spawn(|| abi.authorization_listen(params));
        match panic::catch_unwind(AssertUnwindSafe(visit)) {
            Ok(visited) => (listening.join().unwrap(), visited),
            Err(failure) => {
                abi.cancel_until(|| listening.is_finished());
                panic::resume_unwind(failure)
            }
        }
    })
}

/// Connects as soon as the port accepts connections.
fn connect(port: u16) -> TcpStream {
    let began = Instant::now();
    loop {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            return stream;
        }
        assert!(began.elapsed() < PATIENCE, "port {port} accepts no connection");
        thread::yield_now();
    }
}

#[track_caller]
fn is_closed(port: u16) {
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "port {port} is still open");
}

/// The complete response to a request.
fn ask(port: u16, request: &str) -> String {
    let mut stream = connect(port);
    stream.write_all(request.as_bytes()).unwrap();
    answer(stream)
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

/// The request of a browser that follows a redirect through the tunnel.
fn request(url: &str) -> String {
    let (host, target) = url.split_once("://").unwrap().1.split_once('/').unwrap();
    format!("GET /{target} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nCookie: a=b\r\n\r\n")
}

fn follow(port: u16, url: &str) -> String {
    ask(port, &request(url))
}

#[test]
fn redirected_browser_gets_a_success_page_and_the_port_is_closed() {
    let (emulator, abi) = with_client(1);
    let (port, redirect_url) = (free_port(), consented(&abi, &emulator));
    let (outcome, page) = listening(&abi, json!({"port": port}), || follow(port, &redirect_url));
    let stored = outcome.ok();
    assert_eq!(stored, abi.listed(&emulator.company_id()));
    abi.live_token(&emulator, &emulator.company_id());
    is_closed(port);

    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
    let headers: Vec<_> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).unwrap().1;
    assert_eq!(header("Content-Type"), "text/html; charset=utf-8");
    assert_eq!(header("Content-Length"), body.len().to_string());
    assert_eq!(header("Connection"), "close");
    assert_eq!(header("Cache-Control"), "no-store");
    assert_eq!(header("Referrer-Policy"), "no-referrer");
    assert!(header("Content-Security-Policy").starts_with("default-src 'none';"));
    assert!(body.contains("You can close this window."), "{body}");
    for active in ["<script", "src=", "href=", "url(", "http"] {
        assert!(!body.contains(active), "{active} in {body}");
    }
    let tokens = abi.tokens_export(json!({})).ok();
    let token = &tokens["tokens"][0];
    let text = |secret: &Value| secret.as_str().unwrap().to_owned();
    let secrets = [text(&token["accessToken"]), text(&token["refreshToken"])];
    let redirect = query(&redirect_url);
    contains_none_of(&page, &[&redirect["code"], &redirect["state"], &secrets[0], &secrets[1]]);
    contains_none_of(&page, &[&emulator.company_id(), emulator.client_secret()]);
}

#[test]
fn unrelated_requests_are_refused_and_the_wait_continues() {
    let uris = ["https://app.example/oauth/callback", "https://app.example/other"];
    let options = Options { redirect_uris: uris.map(str::to_owned).to_vec(), ..Options::default() };
    let emulator = Emulator::start(options).unwrap();
    let abi = Abi::new(&emulator);
    let port = free_port();
    let used = consented(&abi, &emulator);
    abi.authorization_complete(json!({"redirectUrl": used})).ok();
    sent(&emulator);
    let other = abi.authorization_url(json!({"redirectUri": uris[1]})).ok();
    let other_state = other["state"].as_str().unwrap();
    let redirect_url = consented(&abi, &emulator);
    let (callback, rest) = redirect_url.split_once('?').unwrap();
    let (code, state) = (&query(&redirect_url)["code"], &query(&redirect_url)["state"]);
    let good = request(&redirect_url);
    let host = "Host: app.example\r\n";
    let requests = [
        ("400", "no state", request(&format!("{callback}?code={code}"))),
        ("400", "an empty state", request(&format!("{callback}?code={code}&state="))),
        ("400", "an unknown state", request(&format!("{callback}?code={code}&state=unknown"))),
        (
            "400",
            "a truncated state",
            request(&format!("{callback}?code={code}&state={}", &state[1..])),
        ),
        ("400", "a used state", request(&used)),
        ("400", "another path", request(&format!("{callback}?code={code}&state={other_state}"))),
        ("400", "two states", request(&format!("{redirect_url}&state={state}"))),
        ("400", "two codes", request(&format!("{redirect_url}&code={code}"))),
        ("400", "no code", request(&format!("{callback}?state={state}"))),
        ("400", "an empty code", request(&format!("{callback}?code=&state={state}"))),
        (
            "400",
            "a denial with an unknown state",
            request(&format!("{callback}?error=access_denied&state=unknown")),
        ),
        ("400", "nothing", request(callback)),
        ("404", "an icon", request("https://app.example/favicon.ico")),
        ("404", "the path of another link", request(&format!("{}?{rest}", uris[1]))),
        ("404", "a place below", request(&format!("{callback}/?{rest}"))),
        ("404", "a whole URL", good.replace("GET /", "GET https://app.example/")),
        ("405", "a form", good.replace("GET", "POST")),
        ("405", "a look", good.replace("GET", "HEAD")),
        ("421", "a foreign host", good.replace(host, "Host: evil.example\r\n")),
        (
            "421",
            "a foreign host name for this address",
            good.replace(host, &format!("Host: evil.example:{port}\r\n")),
        ),
        ("421", "another port", good.replace(host, "Host: localhost:1\r\n")),
        ("400", "no host", good.replace(host, "")),
        ("400", "two hosts", good.replace(host, &host.repeat(2))),
        ("400", "TLS", "\x16\x03\x01\x02\0\x01\0\x01".to_owned()),
        ("400", "words", "hello\r\n\r\n".to_owned()),
        ("431", "a long head", good.replace(host, &format!("{host}A: {}\r\n", "x".repeat(20_000)))),
        ("431", "many headers", good.replace(host, &format!("{host}{}", "A: b\r\n".repeat(200)))),
        ("405", "a long body", format!("{}{}", good.replace("GET", "POST"), "x".repeat(100_000))),
    ];
    let (outcome, ()) = listening(&abi, json!({"port": port}), || {
        for (expected, name, request) in &requests {
            let page = ask(port, request);
            assert_eq!(status(&page), *expected, "{name}: {page}");
            assert!(page.contains("\r\nCache-Control: no-store\r\n"), "{name}: {page}");
            contains_none_of(&page, &[code, state]);
        }
        assert_eq!(sent(&emulator), [""; 0], "no code was sent");
        // All of them concurrently as well.
        let streams: Vec<_> = requests
            .iter()
            .map(|(expected, name, request)| {
                let mut stream = connect(port);
                stream.write_all(request.as_bytes()).unwrap();
                (expected, name, stream)
            })
            .collect();
        for (expected, name, stream) in streams {
            assert_eq!(status(&answer(stream)), *expected, "{name}");
        }
        assert_eq!(status(&follow(port, &redirect_url)), "200");
    });
    outcome.ok();
    assert_eq!(sent(&emulator), ["code 200"]);
    is_closed(port);
}

#[test]
fn tunnel_may_replace_the_host_header_with_its_own_name_for_the_port() {
    let (emulator, abi) = with_client(1);
    let port = free_port();
    for host in [
        "app.example:443",
        "APP.example",
        &format!("127.0.0.1:{port}"),
        &format!("localhost:{port}"),
    ] {
        let redirect_url = consented(&abi, &emulator);
        let request = request(&redirect_url).replace("Host: app.example", &format!("Host: {host}"));
        let (outcome, page) = listening(&abi, json!({"port": port}), || ask(port, &request));
        outcome.ok();
        assert_eq!(status(&page), "200", "{host}");
    }
}

#[test]
fn idle_and_slow_connections_delay_no_other_connection() {
    let (emulator, abi) = with_client(1);
    let (port, redirect_url) = (free_port(), consented(&abi, &emulator));
    let (outcome, page) = listening(&abi, json!({"port": port}), || {
        let gone = connect(port);
        gone.shutdown(Shutdown::Both).unwrap();
        // More connections than are kept: some send nothing, some never finish, some do not read
        // their response.
        let crowd: Vec<TcpStream> = (0..120)
            .map(|number| {
                let mut stream = connect(port);
                let words: &[&str] =
                    &["", "G", "GET /oauth/callback HTTP/1.1\r\nHost: app.ex", "?\r\n\r\n"];
                // A connection that was dropped makes no difference.
                let _ = stream.write_all(words[number % 4].as_bytes());
                stream
            })
            .collect();
        let mut browser = connect(port);
        for byte in request(&redirect_url).as_bytes() {
            browser.write_all(&[*byte]).unwrap();
        }
        let page = answer(browser);
        drop(crowd);
        page
    });
    outcome.ok();
    assert_eq!(status(&page), "200");
}

#[test]
fn client_that_is_still_sending_gets_a_complete_response() {
    let (emulator, abi) = with_client(1);
    let (port, redirect_url) = (free_port(), consented(&abi, &emulator));
    let (outcome, ()) = listening(&abi, json!({"port": port}), || {
        let mut sending = connect(port);
        let head = request(&redirect_url).replace("GET", "POST");
        sending.write_all(head.as_bytes()).unwrap();
        let mut page = String::new();
        sending.read_to_string(&mut page).unwrap();
        assert_eq!(status(&page), "405");
        // The earlier connection has been handled by the time the next one gets its response.
        assert_eq!(status(&follow(port, "https://app.example/")), "404");
        for _ in 0..3 {
            sending.write_all(&[b'x'; 10_000]).unwrap();
        }
        follow(port, &redirect_url);
    });
    outcome.ok();
}

#[test]
fn browser_that_leaves_before_its_page_still_completes_the_consent() {
    let (emulator, abi) = with_client(1);
    let (port, redirect_url) = (free_port(), consented(&abi, &emulator));
    let (outcome, ()) = listening(&abi, json!({"port": port}), || {
        connect(port).write_all(request(&redirect_url).as_bytes()).unwrap();
    });
    outcome.ok();
    abi.live_token(&emulator, &emulator.company_id());
}

#[test]
fn second_browser_finds_the_port_closed() {
    let (emulator, abi) = with_client(1);
    let (port, redirect_url) = (free_port(), consented(&abi, &emulator));
    let hold = emulator.hold(codes(), Stage::BeforeProcessing);
    let (outcome, page) = listening(&abi, json!({"port": port}), || {
        let mut browser = connect(port);
        browser.write_all(request(&redirect_url).as_bytes()).unwrap();
        hold.wait_for(1);
        // While the code of the first redirect is still being exchanged.
        is_closed(port);
        hold.release();
        answer(browser)
    });
    outcome.ok();
    assert_eq!(status(&page), "200");
    assert_eq!(sent(&emulator), ["code 200"]);
    is_closed(port);
}

#[test]
fn denied_consent_ends_the_wait_with_its_own_error() {
    let (emulator, abi) = with_client(1);
    let port = free_port();
    let denied = abi.consent(&emulator, Decision::Deny);
    let described = format!("{denied}&error_description=The+app+was+not+wanted");
    let (outcome, page) = listening(&abi, json!({"port": port}), || follow(port, &described));
    let error = outcome.fails(Status::ConsentDenied);
    assert!(
        error["message"].as_str().unwrap().contains("access_denied The app was not wanted"),
        "{error}"
    );
    assert_eq!(status(&page), "403");
    assert!(page.contains("Access was not granted"), "{page}");
    contains_none_of(&page, &["access_denied", "not wanted", &query(&denied)["state"]]);
    assert_eq!(sent(&emulator), [""; 0]);
    is_closed(port);
}

#[test]
fn code_refused_by_the_server_is_reported_without_the_servers_text() {
    let (emulator, abi) = with_client(1);
    let port = free_port();
    let redirect_url = consented(&abi, &emulator);
    let wrong = redirect_url.replace(&query(&redirect_url)["code"], "a-wrong-code");
    let (outcome, page) = listening(&abi, json!({"port": port}), || follow(port, &wrong));
    let error = outcome.fails(Status::ReauthorizationRequired);
    assert_eq!(status(&page), "500");
    assert!(page.contains("Not connected"), "{page}");
    let words = error["api"]["message"].as_str().unwrap();
    contains_none_of(&page, &["a-wrong-code", words, error["message"].as_str().unwrap()]);
    assert_eq!(sent(&emulator), ["code 401"]);
}

#[test]
fn code_exchange_is_limited_to_the_call_timeout() {
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"timeouts": {"totalMs": 100}}));
    let (port, redirect_url) = (free_port(), consented(&abi, &emulator));
    let hold = emulator.hold(codes(), Stage::BeforeProcessing);
    let (outcome, page) = listening(&abi, json!({"port": port}), || follow(port, &redirect_url));
    let error = outcome.fails(Status::Timeout);
    assert!(error["message"].as_str().unwrap().contains("100 ms"), "{error}");
    assert_eq!(status(&page), "500");
    drop(hold);
}

#[test]
fn wait_without_a_browser_times_out_and_the_link_stays_valid() {
    let emulator = emulator(1);
    // The call timeout does not limit the wait for the person.
    let abi = Abi::with(&emulator, json!({"timeouts": {"totalMs": 1}}));
    let redirect_url = consented(&abi, &emulator);
    let port = free_port();
    let began = Instant::now();
    let error =
        abi.authorization_listen(json!({"port": port, "timeoutMs": 70})).fails(Status::Timeout);
    assert!(began.elapsed() >= Duration::from_millis(70), "{:?}", began.elapsed());
    assert_eq!(error["retryable"], true);
    assert!(error["message"].as_str().unwrap().contains("70 ms"), "{error}");
    assert!(error["help"].as_str().unwrap().contains("timeoutMs"), "{error}");
    is_closed(port);
    let patient = Abi::new(&emulator);
    let params = json!({"redirectUrl": redirect_url, "state": query(&redirect_url)["state"]});
    patient.authorization_complete(params).ok();
}

#[test]
fn cancellation_ends_the_wait() {
    let (emulator, abi) = with_client(1);
    let port = free_port();
    thread::scope(|scope| {
        let listening = scope.spawn(|| abi.authorization_listen(json!({"port": port})));
        let _idle = connect(port);
        abi.cancel_until(|| listening.is_finished());
        listening.join().unwrap().fails(Status::Cancelled);
    });
    is_closed(port);
    let redirect_url = consented(&abi, &emulator);
    let (outcome, _) = listening(&abi, json!({"port": port}), || follow(port, &redirect_url));
    outcome.ok();
}

#[test]
fn port_in_use_is_named_in_the_error() {
    let (emulator, abi) = with_client(1);
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let error = abi.authorization_listen(json!({"port": port})).refuses("port");
    assert!(error["message"].as_str().unwrap().contains(&port.to_string()), "{error}");
    assert_eq!(error["retryable"], false);
    drop(taken);
    let redirect_url = consented(&abi, &emulator);
    let (outcome, _) = listening(&abi, json!({"port": port}), || {
        let _idle = connect(port);
        abi.authorization_listen(json!({"port": port})).refuses("port");
        follow(port, &redirect_url)
    });
    outcome.ok();
}

#[test]
fn two_simultaneous_listeners_each_accept_only_their_own_redirect() {
    let uris = ["https://app.example/one", "https://other.example/two?tenant=7"];
    let redirect_uris = uris.map(str::to_owned).to_vec();
    let options = Options { redirect_uris, companies: 2, ..Options::default() };
    let emulator = Emulator::start(options).unwrap();
    let abi = Abi::with(&emulator, json!({"redirectUri": null}));
    let ports = [free_port(), free_port()];
    let redirects: Vec<String> = uris
        .iter()
        .zip(emulator.company_ids())
        .map(|(uri, company)| {
            let link = abi.authorization_url(json!({"redirectUri": uri})).ok();
            emulator.consent(link["url"].as_str().unwrap(), Decision::Company(company)).unwrap()
        })
        .collect();
    thread::scope(|scope| {
        let abi = &abi;
        let listening: Vec<_> = ports
            .iter()
            .zip(uris)
            .map(|(port, uri)| {
                let params = json!({
                    "port": port, "redirectUri": uri, "timeoutMs": PATIENCE.as_millis() as u64,
                });
                scope.spawn(move || abi.authorization_listen(params).ok())
            })
            .collect();
        for (port, foreign) in ports.iter().zip(redirects.iter().rev()) {
            assert_eq!(status(&follow(*port, foreign)), "421");
        }
        for (port, own) in ports.iter().zip(&redirects) {
            assert_eq!(status(&follow(*port, own)), "200");
        }
        for (thread, company) in listening.into_iter().zip(emulator.company_ids()) {
            assert_eq!(thread.join().unwrap()["resourceId"], company);
        }
    });
    let requests = emulator.requests();
    let sent_back: Vec<_> =
        requests.iter().map(|request| fields(request)["redirectUri"].clone()).collect();
    assert_eq!(sent_back, uris);
}

#[test]
fn loopback_redirect_uri_determines_the_port() {
    for host in ["localhost", "127.0.0.1"] {
        let emulator =
            Emulator::start(Options { allow_loopback_redirects: true, ..Options::default() })
                .unwrap();
        let port = free_port();
        let uri = format!("http://{host}:{port}/callback");
        let abi = Abi::with(&emulator, json!({"redirectUri": uri}));
        let redirect_url = consented(&abi, &emulator);
        assert!(redirect_url.starts_with(&uri), "{redirect_url}");
        let (outcome, page) = listening(&abi, json!({}), || follow(port, &redirect_url));
        outcome.ok();
        assert_eq!(status(&page), "200");
    }
}

#[test]
fn marketplace_installation_without_a_state_is_accepted_only_on_request() {
    let (emulator, abi) = with_client(1);
    let port = free_port();
    let redirect_url = consented(&abi, &emulator);
    let state = &query(&redirect_url)["state"];
    let stateless = redirect_url.replace(&format!("&state={state}"), "");
    assert!(!stateless.contains("state"), "{stateless}");
    let (outcome, page) = listening(&abi, json!({"port": port, "allowMissingState": true}), || {
        let unknown = format!("{stateless}&state=unknown");
        assert_eq!(status(&follow(port, &unknown)), "400");
        let nothing = format!("{}?x=y", emulator.redirect_uri());
        assert_eq!(status(&follow(port, &nothing)), "400");
        follow(port, &stateless)
    });
    outcome.ok();
    assert_eq!(status(&page), "200");
}

#[test]
fn listener_with_a_host_session_accepts_only_its_own_redirect() {
    let emulator = emulator(1);
    let (here, there) = (Abi::new(&emulator), Abi::new(&emulator));
    let port = free_port();
    let own = consented(&here, &emulator);
    let params = json!({
        "port": port, "state": query(&own)["state"], "allowMissingState": true,
        "userType": "Company",
    });
    // The link was made by another process.
    let foreign = consented(&there, &emulator);
    let stateless = foreign.replace(&format!("&state={}", query(&foreign)["state"]), "");
    let (outcome, page) = listening(&there, params, || {
        for other in [&foreign, &stateless] {
            assert_eq!(status(&follow(port, other)), "400");
        }
        follow(port, &own)
    });
    outcome.ok();
    assert_eq!(status(&page), "200");
    assert_eq!(fields(&emulator.requests().pop().unwrap())["userType"], "Company");
    // The refused redirect is still valid there.
    there.authorization_complete(json!({"redirectUrl": foreign})).ok();
}

#[test]
fn program_started_during_the_wait_does_not_inherit_the_port() {
    let (emulator, abi) = with_client(1);
    let (port, redirect_url) = (free_port(), consented(&abi, &emulator));
    let (outcome, child) = listening(&abi, json!({"port": port}), || {
        let _idle = connect(port);
        // The child process reads until its input ends.
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        follow(port, &redirect_url);
        child
    });
    outcome.ok();
    is_closed(port);
    match child {
        Ok(mut child) => {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        Err(error) => {
            println!("skipped: a program started during the wait, cat does not start ({error})")
        }
    }
}

#[test]
fn panic_ends_the_wait_and_frees_the_port() {
    let emulator = emulator(1);
    let panicking_clock = PanickingClock::new(&emulator);
    let abi = Abi::by(&emulator, json!({}), Arc::<PanickingClock>::clone(&panicking_clock));
    let (port, redirect_url) = (free_port(), consented(&abi, &emulator));
    panicking_clock.set(1);
    let (outcome, page) = listening(&abi, json!({"port": port}), || follow(port, &redirect_url));
    outcome.fails(Status::Internal);
    assert!(panicking_clock.disarm());
    assert_eq!(page, "");
    is_closed(port);
    let (outcome, page) = listening(&abi, json!({"port": port}), || follow(port, &redirect_url));
    outcome.ok();
    assert_eq!(status(&page), "200");
}
