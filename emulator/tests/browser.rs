//! The dashboard and the consent page in a real browser. `GHL_UPDATE_SCREENSHOTS=1` writes
//! `docs/images`.

mod support;
mod webdriver;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ghl_oauth_emulator::{
    Decision, Emulator, Endpoint, FaultKind, GrantType, Options, Refusal, Rule, Stage,
};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use support::*;
use webdriver::{Browser, ENTER, until};

/// The web server of an app, which receives the redirected browser. Returns its URL and the
/// received queries.
fn app() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/callback", listener.local_addr().unwrap());
    let (sender, queries) = channel();
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            if reader.read_line(&mut line).is_err() {
                continue;
            }
            let mut header = String::new();
            while reader.read_line(&mut header).is_ok_and(|length| length > 2) {
                header.clear();
            }
            let target = line.split(' ').nth(1).unwrap_or_default();
            let page =
                "<!DOCTYPE html><link rel=icon href=data:,><title>app</title><p>Welcome back";
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n",
                page.len()
            );
            let _ = socket.write_all(format!("{head}connection: close\r\n\r\n{page}").as_bytes());
            if let Some(query) = target.strip_prefix("/callback?") {
                let _ = sender.send(query.to_owned());
            }
        }
    });
    (url, queries)
}

fn dashboard(emulator: &Emulator) -> String {
    format!("{}/dashboard", emulator.base_url())
}

/// A parameter of the redirect's query.
fn member(query: &str, name: &str) -> String {
    let found = form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no {name} in {query}")).1.into_owned()
}

/// A script: whether a row of the tokens table contains all of these texts.
fn row_says(table: &str, words: &[&str]) -> String {
    format!(
        "return [...document.querySelectorAll('#live-{table} tbody tr')].some((row) => \
         {}.every((word) => row.innerText.includes(word)))",
        json!(words)
    )
}

fn status_says(words: &str) -> String {
    format!("return document.getElementById('status').textContent.includes({})", json!(words))
}

#[test]
fn consent_from_the_dashboard_reaches_the_app_and_its_token_expires() {
    let Some(browser) = Browser::start() else { return };
    let (redirect_uri, queries) = app();
    let emulator =
        Emulator::start(Options { redirect_uris: vec![redirect_uri], ..Options::default() })
            .unwrap();
    browser.go(&emulator.base_url());
    assert_eq!(browser.run("return location.href"), dashboard(&emulator));
    browser.click("//a[starts-with(., 'Start a consent')]");
    browser.fill("//select[@id = 'place']", "Maple Street Fitness 1");
    browser.click("//button[. = 'Allow']");
    let query = queries.recv().unwrap();
    assert_eq!(member(&query, "state"), "from-the-dashboard");
    assert_eq!(browser.run("return document.title"), "app");

    let code = member(&query, "code");
    let answer =
        token(&emulator, &[("grantType", "authorization_code"), ("code", &code)]).expect(200);
    assert_eq!(answer["locationId"], emulator.location_ids()[0]);
    browser.go(&dashboard(&emulator));
    let name = "Maple Street Fitness 1";
    browser.wait_for("a spent code", &row_says("tokens", &["code", name, "spent"]));
    browser.wait_for("a live token", &row_says("tokens", &["access token", name, "live"]));
    browser.click("//button[. = 'To next expiry']");
    browser.wait_for(
        "the expiry of the token",
        &row_says("tokens", &["access token", name, "expired"]),
    );
    browser.wait_for("the refresh token", &row_says("tokens", &["refresh token", name, "live"]));
    browser.wait_for("word of it", &status_says("At the next expiry"));
    assert!(!emulator.access_token_is_live(text(&answer, "accessToken")));
    for secret in ["accessToken", "refreshToken"] {
        let shown = browser.run("return document.documentElement.outerHTML");
        assert!(!shown.as_str().unwrap().contains(text(&answer, secret)), "{secret}");
    }
    browser.click("//button[. = 'System time']");
    browser.wait_for("the clock moved back", &row_says("tokens", &["access token", name, "live"]));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn enabled_fault_affects_the_next_request_and_is_shown_next_to_it() {
    let Some(browser) = Browser::start() else { return };
    let emulator = Emulator::start(Options::default()).unwrap();
    browser.go(&dashboard(&emulator));
    browser.fill("//select[@id = 'kind']", "status");
    browser.fill("//input[@id = 'status-status']", "503");
    browser.fill("//textarea[@id = 'status-headers']", "retry-after: 7");
    browser.fill("//select[@id = 'endpoint']", "token");
    browser.click("//button[. = 'Add fault']");
    browser.wait_for("the fault", &row_says("faults", &["status", "token", "0 of 1"]));
    browser.wait_for("word of it", &status_says("Fault 1 was added"));

    let credentials = [("grantType", "client_credentials")];
    let struck = token(&emulator, &credentials);
    assert_eq!((struck.status, struck.header("retry-after")), (503, Some("7")));
    assert_eq!(token(&emulator, &credentials).status, 200, "once");
    browser
        .wait_for("its mark", &row_says("requests", &["/oauth/token", "503", "fault 1: status"]));
    browser.wait_for("its count", &row_says("faults", &["status", "1 of 1"]));
    browser.click("//button[starts-with(., 'Clear all')]");
    browser.wait_for("its end", "return document.querySelector('#live-faults tbody') === null");

    // A value that the form accepts may still be refused by the server, with a reason.
    browser.fill("//input[@id = 'status-status']", "99");
    browser.click("//button[. = 'Add fault']");
    browser.wait_for("the refusal", &status_says("Not done: status: 99"));
    let marked = "return [...document.querySelectorAll('[aria-invalid]')].map((it) => it.id)";
    assert_eq!(browser.run(marked), json!(["status-status"]));
    let complaints = browser.complaints();
    assert!(complaints.len() == 1 && complaints[0].contains("400 (Bad Request)"), "{complaints:?}");
}

#[test]
fn dashboard_is_operable_by_keyboard() {
    let Some(browser) = Browser::start() else { return };
    let (redirect_uri, queries) = app();
    let emulator =
        Emulator::start(Options { redirect_uris: vec![redirect_uri], ..Options::default() })
            .unwrap();
    browser.go(&dashboard(&emulator));
    browser.tab_to("Skip to the tokens");
    let before = emulator.clock().now_ms();
    browser.tab_to("+ 1 day");
    assert_ne!(browser.run("return getComputedStyle(document.activeElement).outlineStyle"), "none");
    browser.press(ENTER);
    browser.wait_for("a day", &status_says("One day later"));
    assert!(emulator.clock().now_ms() >= before + 86_400_000);
    assert_eq!(
        browser.run("return document.activeElement.textContent"),
        "+ 1 day",
        "an update leaves the focus alone"
    );

    browser.tab_to("How often");
    browser.press(ENTER);
    browser.wait_for("the fault", &row_says("faults", &["replyLost", "any", "0 of 1"]));
    browser.tab_to("Off fault 1");
    browser.press(ENTER);
    browser.wait_for("its end", &status_says("Fault 1 was removed"));

    browser.go(&dashboard(&emulator));
    browser.tab_to("Start a consent");
    browser.press(ENTER);
    browser.wait_for("the consent page", "return document.title.startsWith('Connect an app')");
    browser.tab_to("Where to install it");
    browser.press("Ha");
    browser.tab_to("Allow");
    browser.press(ENTER);
    let code = member(&queries.recv().unwrap(), "code");
    let answer =
        token(&emulator, &[("grantType", "authorization_code"), ("code", &code)]).expect(200);
    assert_eq!(answer["locationId"], emulator.location_ids()[4], "Harbor Fitness 5");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn webhooks_are_sent_and_locations_changed() {
    let Some(browser) = Browser::start() else { return };
    let emulator = Emulator::start(Options::default()).unwrap();
    let (receiver, _queries) = app();
    let location = &emulator.location_ids()[0];
    browser.go(&dashboard(&emulator));
    browser.fill("//input[@id = 'webhookUrl']", &receiver);
    browser.click("//button[. = 'Set'][1]");
    browser.wait_for("the receiver", &status_says(&receiver));
    browser.fill("//input[@id = 'place']", location);
    browser.click("//button[. = 'Send UNINSTALL']");
    browser.wait_for("the answer", &status_says("The receiver responded with 200"));
    browser.wait_for(
        "the delivery",
        &row_says("webhooks", &["UNINSTALL", "Maple Street Fitness 1", "200"]),
    );
    assert_eq!(emulator.webhooks(), Vec::<String>::new(), "nothing happened");

    let row = format!("//tr[@id = 'place-{location}']");
    browser.click(&format!("{row}//button[starts-with(., 'Install')]"));
    browser
        .wait_for("the installation", &row_says("places", &[location, "installed", "Uninstall"]));
    browser.wait_for(
        "its webhook",
        &row_says("webhooks", &["1: INSTALL", "Maple Street Fitness 1", "200"]),
    );
    browser.click(&format!("{row}//button[starts-with(., 'Pause')]"));
    browser.wait_for("the pause", &row_says("places", &[location, "paused", "Resume"]));
    browser.fill("//input[@id = 'find']", "smith");
    browser.press(ENTER);
    browser.wait_for(
        "what was sought",
        "return document.querySelectorAll('#live-places tbody tr').length === 6",
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn page_of_another_origin_cannot_operate_the_dashboard() {
    let Some(browser) = Browser::start() else { return };
    let emulator = Emulator::start(Options::default()).unwrap();
    let (elsewhere, _queries) = app();
    browser.go(&elsewhere);
    let attempt = |path: &str, rest: &str| {
        let url = format!("{}{path}", emulator.base_url());
        browser.run_async(&format!(
            "const done = arguments[0]; fetch('{url}', {rest}).then((answer) => \
             done(answer.type), () => done('failed'))"
        ))
    };
    let body = r#"{method: "POST", mode: "no-cors", body: '{"advanceSeconds": 86400}'}"#;
    // Chromium may block the request itself; otherwise the emulator must.
    attempt("/_emulator/clock", body);
    assert_eq!(emulator.clock().offset_ms(), 0);
    assert_eq!(attempt("/_emulator", "{}"), "failed", "its secrets are not for reading");
    assert_eq!(attempt("/dashboard", r#"{mode: "no-cors"}"#), "failed");
    browser.run(&format!(
        "const frame = document.createElement('iframe'); frame.src = '{}'; \
         document.body.append(frame)",
        dashboard(&emulator)
    ));
    let refused = until("word of the frame", || {
        browser.complaints().into_iter().find(|complaint| complaint.contains("frame-ancestors"))
    });
    assert!(refused.contains(&emulator.base_url()), "{refused}");
}

#[test]
fn dashboard_is_readable_without_javascript() {
    let Some(browser) = Browser::start() else { return };
    let emulator = Emulator::start(Options::default()).unwrap();
    connect(&emulator);
    browser.devtools("Emulation.setScriptExecutionDisabled", json!({"value": true}));
    browser.go(&dashboard(&emulator));
    let shown = browser.run("return document.body.innerText").as_str().unwrap().to_owned();
    for expected in ["Agency 1", "refresh token", "live", "/oauth/token", emulator.client_id()] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    for control in ["Add fault", "+ 1 hour", "Clear all"] {
        assert!(!shown.contains(control), "{control} would do nothing");
    }
}

/// Texts with too little contrast (WCAG 2.2, 4.5 to 1), and controls without an accessible name.
const FLAWS: &str = r#"
    const channels = (color) => color.match(/[\d.]+/g).map(Number);
    const luminance = (rgb) => rgb.slice(0, 3).map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = channels(getComputedStyle(at).backgroundColor);
            if (color.length === 3 || color[3] === 1) return color;
        }
        return [255, 255, 255];
    };
    const flaws = [];
    for (const element of document.body.querySelectorAll("*")) {
        const written = [...element.childNodes].some(
            (node) => node.nodeType === 3 && node.data.trim());
        if (element.localName === "script" || !element.getClientRects().length) continue;
        if (written) {
            const one = luminance(channels(getComputedStyle(element).color));
            const two = luminance(ground(element));
            const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
            if (contrast < 4.5) flaws.push(`${element.textContent.trim()}: ${contrast.toFixed(2)}`);
        }
        if (element.matches("input:not([type=hidden]), select, textarea") && !element.labels.length)
            flaws.push(`no label: ${element.outerHTML}`);
        if (element.matches("button, a") && !element.textContent.trim())
            flaws.push(`no name: ${element.outerHTML}`);
    }
    const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
    for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) flaws.push(`twice: ${id}`);
    const width = document.documentElement.scrollWidth;
    if (width > innerWidth) flaws.push(`${width} wide, on a screen of ${innerWidth}`);
    return flaws;
"#;

/// The violations that axe-core finds, each with its elements.
const AXE: &str = "
    const done = arguments[0];
    axe.run(document, {resultTypes: ['violations']}).then(
        (found) => done(found.violations.map(
            (one) => `${one.id}: ${one.nodes.map((node) => node.html).join(' | ')}`)),
        (error) => done([String(error)]));
";

/// The source of axe-core: from `GHL_NODE_MODULES`, or from a `node_modules` of the repository.
fn axe() -> Option<String> {
    let folder = std::env::var_os("GHL_NODE_MODULES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../node_modules"),
        std::path::PathBuf::from,
    );
    let source = std::fs::read_to_string(folder.join("axe-core/axe.min.js")).ok();
    if source.is_none() {
        println!("skipped: the rules of axe-core (npm install axe-core@4.14.1)");
    }
    source
}

/// Text between two places where a name may wrap that is on several lines.
const BROKEN_WORDS: &str = r#"
    const broken = [];
    for (const element of document.querySelectorAll(".scopes code"))
        for (const part of element.childNodes) {
            const range = document.createRange();
            range.selectNodeContents(part);
            if (part.nodeType === 3 && range.getClientRects().length > 1) broken.push(part.data);
        }
    return broken;
"#;

#[test]
fn pages_are_accessible() {
    let Some(browser) = Browser::start() else { return };
    let axe = axe();
    let options = Options { companies: 2, redirect_uris: Vec::new(), ..Options::default() };
    let emulator = Emulator::start(options).unwrap();
    scene(&emulator);
    let query = consent_query(&emulator, &Options::default().scopes.join(" "));
    for page in [
        dashboard(&emulator),
        format!("{}?{query}", emulator.authorize_url()),
        format!("{}?{query}&prompt=login", emulator.authorize_url()),
        format!("{}?code=5f1c&state=some+state", emulator.redirect_uri()),
        format!("{}?error=access_denied", emulator.redirect_uri()),
        emulator.redirect_uri().to_owned(),
    ] {
        for (width, scheme) in
            [(360, "light"), (800, "dark"), (1280, "light"), (1280, "dark"), (360, "dark")]
        {
            browser.size(width, 800);
            browser.prefer(scheme);
            browser.go(&page);
            browser.run("for (const it of document.querySelectorAll('details')) it.open = true");
            assert_eq!(browser.run(FLAWS), json!([]), "{page}, {width} px, {scheme}");
            assert_eq!(browser.run(BROKEN_WORDS), json!([]), "{page}, {width} px");
            // The rules do not depend on the size.
            if let Some(axe) = axe.as_ref().filter(|_| width != 360) {
                browser.run(axe);
                assert_eq!(browser.run_async(AXE), json!([]), "{page}, {width} px, {scheme}");
            }
        }
    }
    let complaints = browser.complaints();
    assert!(
        complaints.iter().all(|complaint| complaint.contains("400 (Bad Request)")),
        "{complaints:?}"
    );
}

#[test]
fn url_for_the_app_and_its_configuration_are_copied_by_keyboard() {
    let Some(browser) = Browser::start() else { return };
    let emulator =
        Emulator::start(Options { redirect_uris: Vec::new(), ..Options::default() }).unwrap();
    browser.devtools(
        "Browser.grantPermissions",
        json!({
            "origin": emulator.base_url(),
            "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"],
        }),
    );
    let copied = || {
        let read = "navigator.clipboard.readText().then(arguments[0], arguments[0])";
        browser.run_async(read).as_str().unwrap_or_default().to_owned()
    };

    browser.go(&dashboard(&emulator));
    browser.tab_to("Python");
    browser.press(ENTER);
    browser.wait_for("the copy", &status_says("The configuration for Python was copied"));
    let configuration = copied();
    assert!(configuration.starts_with("client = ghl_oauth.Client("), "{configuration}");
    assert!(configuration.contains(emulator.client_secret()), "{configuration}");

    browser.tab_to("Start a consent");
    browser.press(ENTER);
    browser.wait_for("the consent page", "return document.title.startsWith('Connect an app')");
    browser.tab_to("Allow");
    browser.press(ENTER);
    browser.wait_for("the landing page", "return document.title.startsWith('Consent given')");
    browser.tab_to("Copy URL");
    browser.press(ENTER);
    browser.wait_for("the copy", &status_says("Copied"));
    let url = copied();
    assert_eq!(browser.run("return location.href"), url);
    let (page, query) = url.split_once('?').unwrap();
    assert_eq!(page, emulator.redirect_uri());
    assert_eq!(member(query, "state"), "from-the-dashboard");
    let code = member(query, "code");
    token(&emulator, &[("grantType", "authorization_code"), ("code", &code)]).expect(200);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// An emulator with some activity.
fn scene(emulator: &Emulator) {
    let company = connect(emulator);
    let access_token = text(&company, "accessToken");
    let locations = emulator.location_ids();
    for location in &locations[..3] {
        mint(emulator, access_token, location).expect(200);
    }
    emulator.revoke_refresh_token(&locations[2]);
    get(emulator, access_token, &format!("/locations/{}", locations[3])).expect(200);
    refresh(emulator, text(&company, "refreshToken")).expect(200);
    emulator.clock().advance(std::time::Duration::from_secs(86_400));
    get(emulator, access_token, &format!("/locations/{}", locations[3])).expect(401);
    let newest = emulator
        .live_refresh_tokens()
        .into_iter()
        .find(|token| token.resource_id == emulator.company_id());
    let newest = newest.unwrap().refresh_token;
    let limited = FaultKind::Status {
        status: 429,
        body: String::new(),
        content_type: None,
        headers: vec![("retry-after".to_owned(), "2".to_owned())],
        stage: Stage::BeforeProcessing,
    };
    emulator
        .inject(Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken).times(1), limited);
    emulator.inject(
        Rule::on(Endpoint::LocationToken).resource(&locations[1]),
        FaultKind::Refusal { refusal: Refusal::LocationInactive },
    );
    assert_eq!(refresh(emulator, &newest).status, 429);
    let company = refresh(emulator, &newest).expect(200);
    assert_eq!(mint(emulator, text(&company, "accessToken"), &locations[1]).status, 400);
    emulator.set_location_active(&locations[4], false);
    emulator.uninstall(&locations[5]);
}

#[test]
fn documentation_screenshots_are_created() {
    if std::env::var_os("GHL_UPDATE_SCREENSHOTS").is_none() {
        return;
    }
    let browser = Browser::start().expect("a browser");
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
    std::fs::create_dir_all(&images).unwrap();
    let options = Options { port: 8080, redirect_uris: Vec::new(), ..Options::default() };
    let emulator = Emulator::start(options).unwrap();
    scene(&emulator);
    let (receiver, _queries) = app();
    emulator.set_webhook_url(Some(receiver));
    let location = &emulator.location_ids()[6];
    emulator.install_location(location);
    let query = consent_query(&emulator, SCOPE);
    let consent = format!("{}?{query}", emulator.authorize_url());
    let landing =
        format!("{}?code=5f1c08d9e2b74a36&state=kq7Yb2sVtWmLw0Zr4nXc8A", emulator.redirect_uri());
    let dashboard = dashboard(&emulator);
    for (name, url, scheme, width, height) in [
        ("dashboard-light", &dashboard, "light", 1200, 1080),
        ("dashboard-dark", &dashboard, "dark", 1200, 1080),
        ("dashboard-narrow", &dashboard, "light", 360, 800),
        ("consent", &consent, "light", 720, 560),
        ("landing", &landing, "light", 720, 500),
    ] {
        browser.size(width, height);
        browser.prefer(scheme);
        browser.go(url);
        if name == "dashboard-light" {
            browser.wait_for("the delivery", &row_says("webhooks", &["INSTALL", "200"]));
        }
        let image = STANDARD.decode(browser.screenshot()).unwrap();
        std::fs::write(images.join(format!("{name}.png")), &image).unwrap();
        assert!(image.len() < 150_000, "{name}: {} bytes", image.len());
    }
}

#[test]
fn consent_by_code_needs_no_page() {
    // The setup of the screenshots, tested even without a browser.
    let emulator = Emulator::start(Options::default()).unwrap();
    scene(&emulator);
    assert!(code(&emulator, SCOPE, Decision::Company(emulator.company_id())).len() > 20);
}
