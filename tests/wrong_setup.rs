//! Failures that no repetition cures: a wrong store, proxy or certificate setup. Their errors are
//! not retryable, and say what to change.

mod support;

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::process::Command;
use std::thread;

use ghl_oauth::Status;
use ghl_oauth_emulator::Emulator;
#[cfg(target_os = "linux")]
use ghl_oauth_emulator::{Certificate, Options};
use serde_json::{Value, json};

use support::{Abi, Outcome, config, emulator};

fn open_error(emulator: &Emulator, path: &Path) -> Value {
    let store = json!({"store": {"kind": "sqlite", "path": path}});
    match Abi::open(&config(emulator, store)) {
        Err(outcome) => outcome.fails(Status::Store),
        Ok(_) => panic!("{} was opened", path.display()),
    }
}

#[test]
fn unusable_database_is_not_retryable() {
    let emulator = emulator(1);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("text.db"), "no database ".repeat(400)).unwrap();
    fs::write(at("file"), "").unwrap();
    #[cfg(target_os = "linux")] // Where the crate nix is a dependency.
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Databases of other programs, one of them with the same number as the newest schema.
    for (name, statements) in [
        ("other.db", "CREATE TABLE token (x)"),
        ("same.db", "CREATE TABLE users (x); PRAGMA user_version = 3"),
    ] {
        rusqlite::Connection::open(at(name)).unwrap().execute_batch(statements).unwrap();
    }
    for (path, advice) in [
        (at("missing/tokens.db"), "store.path"),
        (at("file/tokens.db"), "store.path"),
        (folder.path().to_owned(), "store.path"),
        #[cfg(target_os = "linux")]
        (at("pipe"), "store.path"),
        (at("other.db"), "another program"),
        (at("same.db"), "another program"),
        (at("text.db"), "backup"),
    ] {
        let error = open_error(&emulator, &path);
        assert_eq!(error["retryable"], false, "{error}");
        assert!(error["help"].as_str().unwrap().contains(advice), "{error}");
        assert!(!error["message"].as_str().unwrap().contains('\n'), "{error}");
    }
}

#[test]
fn damaged_database_is_not_retryable() {
    let emulator = emulator(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let changes = json!({"store": {"kind": "sqlite", "path": path}});
    let abi = Abi::open(&config(&emulator, changes)).unwrap();
    abi.connect_company(&emulator);
    drop(abi);
    let mut bytes = fs::read(&path).unwrap();
    // All pages after the header.
    bytes[100..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let error = open_error(&emulator, &path);
    assert_eq!(error["retryable"], false, "{error}");
    assert!(error["help"].as_str().unwrap().contains("backup"), "{error}");
}

#[test]
fn proxy_that_refuses_the_connection_is_not_retryable_unless_it_is_busy() {
    for (answer, retryable) in
        [("407 No", false), ("403 No", false), ("429 Later", true), ("503 Later", true)]
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
            }
        });
        let abi = Abi::open(&json!({
            "clientId": "app-1", "clientSecret": "s", "baseUrl": "https://services.example",
            "http": {"proxy": proxy}, "retry": {"baseDelayMs": 1},
        }))
        .unwrap();
        let error = abi
            .oauth_token(json!({"grantType": "refresh_token", "refreshToken": "r"}))
            .fails(Status::Network);
        let found = (&error["sent"], &error["retryable"]);
        assert_eq!(found, (&json!(false), &json!(retryable)), "{answer}: {error}");
    }
}

const WORKER: &str = "GHL_TEST_TRUST_WORKER";

/// Not a test: with a configuration in the environment, this process is the worker.
#[test]
fn work() {
    let Ok(config) = env::var(WORKER) else { return };
    let abi = Abi::open(&serde_json::from_str(&config).unwrap()).unwrap();
    let Outcome(_, document) =
        abi.oauth_token(json!({"grantType": "refresh_token", "refreshToken": "r"}));
    println!("\nreport {document}");
}

/// The error of a call over HTTPS in a process with these variables.
#[cfg(target_os = "linux")]
fn error_with(base_url: &str, variables: &[(&str, &Path)]) -> Value {
    let config = json!({"clientId": "app-1", "clientSecret": "s", "baseUrl": base_url});
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["work", "--exact", "--nocapture", "--test-threads=1"])
        .env(WORKER, config.to_string())
        .env_remove("SSL_CERT_FILE")
        .env_remove("SSL_CERT_DIR")
        .envs(variables.iter().copied());
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let report = text.lines().find_map(|line| line.strip_prefix("report ")).expect(&text);
    let mut document: Value = serde_json::from_str(report).unwrap();
    document["error"].take()
}

#[cfg(target_os = "linux")]
#[test]
fn lack_of_trusted_certificates_is_named_with_its_place() {
    let tls = Some(Certificate::Good);
    let emulator = Emulator::start(Options { tls, ..Options::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (nowhere, empty) = (folder.path().join("nowhere.pem"), folder.path().join("empty.pem"));
    fs::write(&empty, "no certificate\n").unwrap();
    for (variable, path) in [
        ("SSL_CERT_FILE", nowhere.as_path()),
        ("SSL_CERT_FILE", empty.as_path()),
        ("SSL_CERT_DIR", folder.path()),
    ] {
        let error = error_with(&emulator.base_url(), &[(variable, path)]);
        let message = error["message"].as_str().unwrap();
        let expected = format!("no trusted certificates found at {} ({variable})", path.display());
        assert!(message.starts_with(&expected), "{message}");
        assert!(error["help"].as_str().unwrap().contains("ca-certificates"), "{error}");
        let found = (&error["status"], &error["sent"], &error["retryable"]);
        assert_eq!(found, (&json!("GHL_ERR_NETWORK"), &json!(false), &json!(false)), "{error}");
    }
    assert_eq!(emulator.requests(), []);
}

#[test]
fn repeated_key_is_named() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let opens = |more: &str| {
        let text = format!("{{\"clientId\": \"a-1\", \"clientSecret\": \"hunter2\"{more}}}");
        let text = std::ffi::CString::new(text).unwrap();
        let (mut client, mut document) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: valid pointers.
        let code = unsafe {
            ghl_oauth::internals::ffi::ghl_client_new(text.as_ptr(), &mut client, &mut document)
        };
        Outcome::read(code, document)
    };
    use ghl_oauth::internals::ffi::{ghl_request, ghl_tokens_import, ghl_tokens_list};
    for (outcome, parameter) in [
        (opens(", \"clientSecret\": \"hunter3\""), "clientSecret"),
        (opens(", \"retry\": {\"maxAttempts\": 1, \"maxAttempts\": 2}"), "retry.maxAttempts"),
        (opens(", \"retry\": {}, \"retry\": {}"), "retry"),
        (abi.call(ghl_tokens_list, "{\"pageSize\": 1, \"pageSize\": 2}"), "pageSize"),
        (abi.call(ghl_tokens_list, "{\"timeoutMs\": 1, \"timeoutMs\": 2}"), "timeoutMs"),
        (
            abi.call(
                ghl_request,
                "{\"method\": \"GET\", \"path\": \"/\", \"query\": {\"a\": 1, \"b\": 1, \"a\": 2}}",
            ),
            "query.a",
        ),
        (
            abi.call(
                ghl_request,
                "{\"method\": \"GET\", \"path\": \"/\", \"headers\": {\"x-a\": \"1\", \"x-a\": \"2\"}}",
            ),
            "headers.x-a",
        ),
        (
            abi.call(
                ghl_tokens_import,
                "{\"tokens\": [{\"accessToken\": \"hunter2\", \"accessToken\": \"hunter3\"}]}",
            ),
            "tokens[0].accessToken",
        ),
    ] {
        let error = outcome.refuses(parameter);
        assert!(error["message"].as_str().unwrap().contains("twice"), "{error}");
        assert!(!error.to_string().contains("hunter"), "{error}");
    }
}

#[test]
fn unknown_scheme_of_a_store_is_not_quoted() {
    let emulator = emulator(1);
    for url in [
        "mysql://user:hunter2@host/db",
        "my_driver://user:hunter2@host/db",
        "POSTGRES://user:hunter2@host/db",
        "my sql+x://user:hunter2@host/db",
        " postgres://user:hunter2@host/db",
        "é://user:hunter2@host/db",
    ] {
        for (store, key) in [
            (json!({"kind": "sqlite", "path": url}), "store.path"),
            (json!({"kind": "postgres", "url": url}), "store.url"),
            (json!({"kind": url}), "store.kind"),
        ] {
            let Err(refused) = Abi::open(&config(&emulator, json!({"store": store}))) else {
                panic!("{url} was accepted as {key}")
            };
            let error = refused.fails(Status::Config);
            assert_eq!(error["parameter"], key, "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for key in ["baseUrl", "authorizeUrl"] {
            let Err(Outcome(_, refused)) = Abi::open(&config(&emulator, json!({(key): url})))
            else {
                panic!("{url} was accepted as {key}")
            };
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
        }
    }
}
