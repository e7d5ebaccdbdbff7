//! The desktop program in C++, as a person uses it: connected through the broker or directly on a
//! loopback port, in a real browser if one is installed.
#![cfg(target_os = "linux")] // Uses the options of Unix compilers.

mod built;
mod support;
#[allow(dead_code)] // A part of the driver is enough here.
#[path = "../emulator/tests/webdriver/mod.rs"]
mod webdriver;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use ghl_oauth_emulator::{Emulator, Options};
use serde_json::{Value, json};
use webdriver::{Browser, until};

use support::{contains_none_of, free_port};

/// The prefix of every token of the emulator.
const ANY_TOKEN: &str = "eyJhbGciOiJ";

/// The longest example allowed, in lines.
const LINES: usize = 100;

/// Opens a link like a browser without a person, and consents through the emulator's control API:
/// `person LINK EMULATOR LOCATION`.
const PERSON: &str = r#"
import http.cookiejar, json, sys, urllib.request
link, emulator, location_id = sys.argv[1:]
cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
browser = urllib.request.build_opener(cookies)
body = json.dumps({"url": browser.open(link).url, "locationId": location_id}).encode()
consent = urllib.request.Request(emulator + "/_emulator/consent", body)
redirect = json.load(urllib.request.urlopen(consent))["redirectUrl"]
print(browser.open(redirect).read().decode())
"#;

fn python() -> String {
    std::env::var("GHL_PYTHON").unwrap_or_else(|_| "python3".into())
}

fn example(name: &str) -> PathBuf {
    Path::new(built::ROOT).join("examples").join(name)
}

/// The program with its configuration in a folder of its own, which also has its tokens.
struct Desktop {
    program: PathBuf,
    folder: PathBuf,
}

impl Desktop {
    /// Compiles the program, which is to use this configuration.
    fn install(folder: &Path, configuration: &Value) -> Desktop {
        let program = built::program("examples/cpp/desktop.cpp", folder);
        fs::write(folder.join("desktop.json"), configuration.to_string()).unwrap();
        Desktop { program, folder: folder.to_owned() }
    }

    fn start(&self) -> Child {
        let mut command = Command::new(&self.program);
        command.arg("desktop.json").current_dir(&self.folder);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts the program and consents when it asks. Returns the page that the person saw at last,
    /// and what the program printed after the link.
    fn connects(&self, emulator: &Emulator, location: &str) -> (String, Vec<String>) {
        let mut child = self.start();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Some(link) = line.trim().strip_prefix("Open this link: ") else {
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("no link but {line:?}\n{errors}");
        };
        let page = consents(emulator, link, location);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (page, rest.lines().map(str::to_owned).collect())
    }

    /// Starts the program, which needs no consent. Returns what it printed.
    fn runs(&self) -> String {
        let output: Output = self.start().wait_with_output().unwrap();
        let [out, err] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        assert!(output.status.success(), "{out}\n{err}");
        out
    }
}

/// Opens the link in a browser, allows access to the location with this name, and returns the text
/// of the last page. Without a browser a script does it.
fn consents(emulator: &Emulator, link: &str, location: &str) -> String {
    let Some(browser) = Browser::start() else {
        let mut person = Command::new(python());
        person.args(["-c", PERSON, link]).arg(emulator.base_url()).arg(&emulator.location_ids()[0]);
        let output = person.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return String::from_utf8(output.stdout).unwrap();
    };
    browser.go(link);
    browser.fill("//select[@id = 'place']", location);
    browser.click("//button[. = 'Allow']");
    until("the last page", || {
        let seen = browser.run("return [location.href, document.body && document.body.innerText]");
        let ended = seen[0].as_str()?.contains("/callback?code=");
        seen[1].as_str().filter(|text| ended && !text.is_empty()).map(str::to_owned)
    })
}

/// A running broker, and its folder.
struct Broker {
    child: Child,
    url: String,
    folder: PathBuf,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broker {
    fn command(folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(python());
        command.args(["-m", "flask", "--app", "broker:from_environment()"]).args(arguments);
        command.current_dir(example("broker")).env("GHL_OAUTH_CONFIG", folder.join("config.json"));
        let source = Path::new(built::ROOT).join("bindings/python/src");
        command.env("PYTHONPATH", source).env("GHL_OAUTH_LIBRARY", built::library());
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Starts the broker on this port. `None` without Flask.
    fn start(folder: &Path, port: u16, emulator: &Emulator) -> Option<Broker> {
        let found =
            Command::new(python()).args(["-c", "import flask"]).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            println!("skipped: the desktop program with its broker (pip install flask)");
            return None;
        }
        let mut settings = emulator.configuration_json(port);
        settings["store"] = json!({"kind": "sqlite", "path": folder.join("tokens.db")});
        settings["clientSecretFile"] = "client-secret".into();
        fs::write(folder.join("config.json"), settings.to_string()).unwrap();
        fs::write(folder.join("client-secret"), emulator.client_secret()).unwrap();
        let mut command = Broker::command(folder, &["run", "--port", &port.to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let broker =
            Broker { child, url: format!("http://127.0.0.1:{port}"), folder: folder.to_owned() };
        until("the broker", || TcpStream::connect(("127.0.0.1", port)).ok());
        Some(broker)
    }

    /// Ends all installations of a location.
    fn revoke(&self, location_id: &str) {
        let mut command = Broker::command(&self.folder, &["revoke"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{location_id}").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1 installations revoked\n");
    }
}

trait Settings {
    /// The app as its own server has it, with a callback on this port.
    fn configuration_json(&self, port: u16) -> Value;
}

impl Settings for Emulator {
    fn configuration_json(&self, port: u16) -> Value {
        let mut settings: Value = serde_json::from_str(&self.configuration()).unwrap();
        settings.as_object_mut().unwrap().remove("clientSecret");
        settings["redirectUri"] = format!("http://127.0.0.1:{port}/callback").into();
        settings
    }
}

#[test]
fn desktop_program_connects_through_the_broker_and_keeps_no_secret_of_the_app() {
    let (port, own_port) = (free_port(), free_port());
    let registered = format!("http://127.0.0.1:{port}/callback");
    let emulator =
        Emulator::start(Options { redirect_uris: vec![registered], ..Options::default() }).unwrap();
    let (server, machine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(broker) = Broker::start(server.path(), port, &emulator) else { return };

    let text = fs::read_to_string(example("broker/desktop.json")).unwrap();
    let text = text.replace("https://broker.acme.example", &broker.url);
    let text = text.replace(":53682/", &format!(":{own_port}/"));
    let desktop = Desktop::install(machine.path(), &serde_json::from_str(&text).unwrap());
    let location_id = emulator.location_ids()[0].clone();

    let (page, said) = desktop.connects(&emulator, "Maple Street Fitness 1");
    assert!(page.contains("Acme Desktop is connected"), "{page}");
    assert_eq!(said[0], format!("connected: {location_id}"));
    assert!(said[1].starts_with("HTTP 200: ") && said[1].contains(&location_id), "{said:?}");

    // The next start needs no consent.
    let said = desktop.runs();
    assert!(said.starts_with("HTTP 200: ") && said.contains(&location_id), "{said}");

    for entry in fs::read_dir(machine.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path != desktop.program {
            let held = fs::read(&path).unwrap();
            let held = String::from_utf8_lossy(&held);
            contains_none_of(&held, &[emulator.client_secret(), ANY_TOKEN]);
        }
    }

    broker.revoke(&location_id);
    let (_, said) = desktop.connects(&emulator, "Maple Street Fitness 1");
    assert_eq!(said[0], format!("connected: {location_id}"));
}

#[test]
fn desktop_program_connects_by_loopback_with_the_configuration_of_the_app() {
    let emulator =
        Emulator::start(Options { allow_loopback_redirects: true, ..Options::default() }).unwrap();
    let machine = tempfile::tempdir().unwrap();
    let mut settings = emulator.configuration_json(free_port());
    settings["clientSecret"] = emulator.client_secret().into();
    settings["store"] = json!({"kind": "sqlite", "path": "tokens.db"});
    let desktop = Desktop::install(machine.path(), &settings);
    let location_id = emulator.location_ids()[0].clone();
    let (page, said) = desktop.connects(&emulator, "Maple Street Fitness 1");
    assert!(page.contains("The app is connected."), "{page}");
    assert_eq!(said[0], format!("connected: {location_id}"));
    let said = desktop.runs();
    assert!(said.starts_with("HTTP 200: ") && said.contains(&location_id), "{said}");
    contains_none_of(&said, &[emulator.client_secret(), ANY_TOKEN]);
}

#[test]
fn desktop_program_explains_a_denied_consent_and_a_wrong_configuration() {
    let machine = tempfile::tempdir().unwrap();
    let settings = json!({"clientId": "a-1", "clientSecret": "s", "baseUrl": "http://example.com"});
    let desktop = Desktop::install(machine.path(), &settings);
    let output = desktop.start().wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("baseUrl cannot be used"), "{errors}");

    let emulator =
        Emulator::start(Options { allow_loopback_redirects: true, ..Options::default() }).unwrap();
    let port = free_port();
    let mut settings = emulator.configuration_json(port);
    settings["clientSecret"] = emulator.client_secret().into();
    fs::write(machine.path().join("desktop.json"), settings.to_string()).unwrap();
    let mut child = desktop.start();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let link = line.trim().strip_prefix("Open this link: ").unwrap();
    let denied = emulator.consent(link, ghl_oauth_emulator::Decision::Deny).unwrap();
    let mut browser = until("the port", || TcpStream::connect(("127.0.0.1", port)).ok());
    let target = denied.split_once(&format!(":{port}")).unwrap().1;
    write!(browser, "GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(errors, "You did not allow access. Start again to try once more.\n");
}

#[test]
fn desktop_program_is_short() {
    let lines = fs::read_to_string(example("cpp/desktop.cpp")).unwrap().lines().count();
    assert!(lines <= LINES, "{lines}");
}
