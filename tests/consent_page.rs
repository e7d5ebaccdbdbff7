//! The configured page after a consent: its texts, language and colour in a browser, and what it
//! does with hostile text.

mod support;
#[allow(dead_code)] // A part of the driver is enough here.
#[path = "../emulator/tests/webdriver/mod.rs"]
mod webdriver;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Decision, Emulator, Options};
use serde_json::{Value, json};
use webdriver::{Browser, until};

use support::{Abi, config, emulator, free_port, query};

const HOSTILE: &str = "</title><script>document.title='owned'</script> & \"'<img src=x \
                       onerror=alert(1)>&lt;b&gt;{color}\u{202e}é";

/// A client with this page, whose redirect URI is a free port.
fn client(page: Value) -> (Emulator, Abi, u16) {
    let emulator =
        Emulator::start(Options { allow_loopback_redirects: true, ..Options::default() }).unwrap();
    let port = free_port();
    let uri = format!("http://127.0.0.1:{port}/callback");
    let abi = Abi::with(&emulator, json!({"redirectUri": uri, "consentPage": page}));
    (emulator, abi, port)
}

/// Waits for a browser while `visit` runs.
fn listening<T>(abi: &Abi, port: u16, visit: impl FnOnce() -> T) -> (support::Outcome, T) {
    thread::scope(|scope| {
        let waiting = scope.spawn(|| abi.authorization_listen(json!({"timeoutMs": 60_000})));
        until("the port", || TcpStream::connect(("127.0.0.1", port)).ok());
        let visited = visit();
        (waiting.join().unwrap(), visited)
    })
}

/// The body of the page at a URL.
fn fetched(port: u16, url: &str) -> String {
    let (host, target) = url.split_once("://").unwrap().1.split_once('/').unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET /{target} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The language of the page, its title, its text, its colour, and whether its style applies.
fn seen(browser: &Browser) -> Value {
    browser.run(
        "return [document.documentElement.lang, document.title, document.body.innerText, \
         getComputedStyle(document.querySelector('hr')).borderTopColor, \
         getComputedStyle(document.body).maxWidth !== 'none']",
    )
}

#[test]
fn page_shows_the_configured_words_and_colour_in_a_browser() {
    let page = json!({
        "language": "es", "color": "#0A7Cff", "title": "Acme está conectado",
        "message": "Vuelva a Acme.",
    });
    let (emulator, abi, port) = client(page);
    let Some(browser) = Browser::start() else { return };
    let redirect_url = abi.consent(&emulator, Decision::Company(emulator.company_id()));
    let (outcome, ()) = listening(&abi, port, || browser.go(&redirect_url));
    outcome.ok();
    let shown = "Acme está conectado\n\nVuelva a Acme.";
    assert_eq!(
        seen(&browser),
        json!(["es", "Acme está conectado", shown, "rgb(10, 124, 255)", true])
    );
    assert_eq!(browser.complaints().iter().filter(|text| !text.contains("favicon")).count(), 0);
}

#[test]
fn hostile_words_are_text_in_a_browser() {
    let (emulator, abi, port) = client(json!({"title": &HOSTILE[..90], "message": HOSTILE}));
    let Some(browser) = Browser::start() else { return };
    let redirect_url = abi.consent(&emulator, Decision::Company(emulator.company_id()));
    let (outcome, ()) = listening(&abi, port, || browser.go(&redirect_url));
    outcome.ok();
    assert_eq!(browser.run("return document.title"), HOSTILE[..90]);
    assert_eq!(browser.run("return document.querySelector('p').textContent"), HOSTILE);
    let elements = "return [...document.querySelectorAll('*')].map((it) => it.localName).join(' ')";
    assert_eq!(browser.run(elements), "html head meta meta title style body hr h1 p");
}

#[test]
fn hostile_words_are_escaped() {
    let (emulator, abi, port) = client(json!({"title": &HOSTILE[..90], "message": HOSTILE}));
    let redirect_url = abi.consent(&emulator, Decision::Company(emulator.company_id()));
    let (outcome, body) = listening(&abi, port, || fetched(port, &redirect_url));
    outcome.ok();
    assert!(!body.contains("<script") && !body.contains("<img"), "{body}");
    assert_eq!(body.matches("</title>").count(), 1, "{body}");
    assert!(body.contains("&lt;script&gt;") && body.contains("&amp;lt;b&amp;gt;"), "{body}");
}

#[test]
fn failure_has_its_own_words_and_the_words_of_success_are_not_shown() {
    let page = json!({
        "title": "Fine", "message": "It works.", "failureTitle": "Acme failed",
        "failureMessage": "Write to help@acme.example.",
    });
    let (emulator, abi, port) = client(page);
    let denied = abi.consent(&emulator, Decision::Deny);
    let (outcome, body) = listening(&abi, port, || fetched(port, &denied));
    outcome.fails(Status::ConsentDenied);
    assert!(body.contains("<h1>Acme failed</h1>\n<p>Write to help@acme.example.</p>"), "{body}");

    let consented = abi.consent(&emulator, Decision::Company(emulator.company_id()));
    let wrong = consented.replace(&query(&consented)["code"], "a-wrong-code");
    let (outcome, body) = listening(&abi, port, || fetched(port, &wrong));
    outcome.fails(Status::ReauthorizationRequired);
    assert!(body.contains("<h1>Acme failed</h1>"), "{body}");
    assert!(!body.contains("Fine") && !body.contains("It works"), "{body}");
}

/// The built-in texts of all outcomes.
#[test]
fn built_in_texts_are_in_the_configured_language() {
    let words = [
        (json!({}), ["Not accepted", "Access was not granted", "but the app could", "Connected"]),
        (
            json!({"language": "es"}),
            ["No aceptado", "No se concedió el acceso", "pero no se ha podido", "Conectado"],
        ),
    ];
    for (page, [not_expected, denied, failed, connected]) in words {
        let language = page["language"].as_str().unwrap_or("en").to_owned();
        let (emulator, abi, port) = client(page);
        let check = |body: &str, words: &str| {
            assert!(body.contains(&format!("<html lang=\"{language}\">")), "{body}");
            assert!(body.contains(words), "{body}");
        };
        let company = || Decision::Company(emulator.company_id());
        let refused = abi.consent(&emulator, Decision::Deny);
        let (_, body) = listening(&abi, port, || {
            let foreign = format!("{}?code=1&state=2", refused.split_once('?').unwrap().0);
            check(&fetched(port, &foreign), not_expected);
            fetched(port, &refused)
        });
        check(&body, denied);
        let consented = abi.consent(&emulator, company());
        let wrong = consented.replace(&query(&consented)["code"], "a-wrong-code");
        let (_, body) = listening(&abi, port, || fetched(port, &wrong));
        check(&body, failed);
        let consented = abi.consent(&emulator, company());
        let (outcome, body) = listening(&abi, port, || fetched(port, &consented));
        outcome.ok();
        check(&body, connected);
    }
}

#[test]
fn invalid_page_is_refused_by_key() {
    let emulator = emulator(1);
    let long = |count: usize| "é".repeat(count);
    for (page, status, key) in [
        (json!({"title": long(101)}), Status::Config, "consentPage.title"),
        (json!({"message": long(501)}), Status::Config, "consentPage.message"),
        (json!({"failureTitle": long(101)}), Status::Config, "consentPage.failureTitle"),
        (json!({"failureMessage": long(501)}), Status::Config, "consentPage.failureMessage"),
        (json!({"message": "a\nb"}), Status::Config, "consentPage.message"),
        (json!({"title": "  "}), Status::Config, "consentPage.title"),
        (json!({"color": "blue"}), Status::Config, "consentPage.color"),
        (json!({"color": "#0a7cff;x"}), Status::Config, "consentPage.color"),
        (json!({"language": "fr"}), Status::InvalidArgument, "consentPage.language"),
        (json!({"colour": "#0a7cff"}), Status::InvalidArgument, "consentPage.colour"),
        (json!({"title": 7}), Status::InvalidArgument, "consentPage.title"),
    ] {
        let error = Abi::open(&config(&emulator, json!({"consentPage": page})))
            .err()
            .unwrap_or_else(|| panic!("{page} was accepted"))
            .fails(status);
        assert_eq!(error["parameter"], key, "{error}");
    }
    let most = json!({
        "title": long(100), "message": long(500), "failureTitle": long(100),
        "failureMessage": long(500), "color": "#0a7cff", "language": "es",
    });
    assert!(Abi::open(&config(&emulator, json!({"consentPage": most}))).is_ok());
}
