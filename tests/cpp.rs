//! The C++ header: compiled like user code by two compilers with all warnings as errors, and run
//! against an emulator under the address and undefined-behaviour sanitizers.
#![cfg(unix)] // Uses options of Unix compilers.

mod built;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ghl_oauth_emulator::{Emulator, Endpoint, Notice, Options, Rule, Signature};
use serde_json::{Value, json};

use support::{Abi, emulator, person, with_company};

const SOURCES: [&str; 11] = [
    "tests/abi/cpp_json.cpp",
    "tests/abi/cpp_client.cpp",
    "tests/abi/cpp_odd_locations.cpp",
    "tests/abi/cpp_unreadable.cpp",
    "tests/abi/cpp_store.cpp",
    "tests/abi/cpp_cyclic_pages.cpp",
    "tests/abi/cpp_exit.cpp",
    "examples/cpp/quickstart.cpp",
    "examples/cpp/desktop.cpp",
    "tests/abi/cpp_unthrown.cpp",
    "tests/abi/cpp_memory.cpp",
];

/// Both sanitizers. The first one also detects leaks.
const SANITIZERS: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"];

fn without_exceptions(source: &str) -> &'static [&'static str] {
    if source.ends_with("cpp_unthrown.cpp") { &["-fno-exceptions", "-fno-rtti"] } else { &[] }
}

/// Compiles a program, with sanitizers if their libraries are installed, and links it with the
/// library.
fn program(source: &str, folder: &Path) -> PathBuf {
    fs::write(folder.join("empty.cpp"), "int main() {}\n").unwrap();
    let mut attempt = Command::new("c++");
    attempt.args(SANITIZERS).arg(folder.join("empty.cpp")).arg("-o").arg(folder.join("empty"));
    let sanitizers: &[&str] =
        if attempt.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            &SANITIZERS
        } else {
            println!(
                "skipped: {source} with sanitizers, which are not installed (apt-get install g++)"
            );
            &[]
        };
    let program = folder.join(Path::new(source).file_stem().unwrap());
    let mut compile = built::compiler("-std=c++17");
    compile.args(sanitizers).args(without_exceptions(source)).arg("-Wsign-conversion").arg(source);
    compile
        .arg(format!("-L{}", built::folder().display()))
        .args(["-lghl_oauth", "-lpthread", "-o"])
        .arg(&program);
    built::library();
    assert!(compile.status().expect("a C++ compiler").success(), "{source} does not compile");
    program
}

/// Runs a program, which must succeed, and returns its output.
fn run(program: &Path, arguments: &[&str]) -> String {
    let mut run = Command::new(program);
    run.args(arguments).env("LD_LIBRARY_PATH", built::folder());
    passes(run)
}

fn passes(mut run: Command) -> String {
    let output = run.output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{}: {}\n{out}\n{err}",
        run.get_program().display(),
        output.status
    );
    // The programs may be for Windows (.ci/platforms).
    out.replace("\r\n", "\n")
}

/// The other tests link programs that g++ compiles as C++17.
#[test]
fn header_compiles_without_warnings_with_gcc_and_clang_as_cpp17_and_cpp20() {
    for (compiler, standard, sources) in [
        ("g++", "-std=c++20", &SOURCES[..]),
        ("clang++", "-std=c++17", &SOURCES[..]),
        ("clang++", "-std=c++20", &SOURCES[1..3]),
    ] {
        if Command::new(compiler).arg("--version").stdout(Stdio::null()).status().is_err() {
            println!(
                "skipped: the C++ header with {compiler}, which is not installed (apt-get install \
                 g++ clang)"
            );
            continue;
        }
        for source in sources {
            let mut check = Command::new(compiler);
            check.args([standard, "-fsyntax-only", "-Wsign-conversion"]).args(built::WARNINGS);
            check.args(without_exceptions(source)).args(["-Iinclude", "-Ibindings/cpp", source]);
            let status = check.current_dir(built::ROOT).status().unwrap();
            assert!(status.success(), "{source}, {compiler} {standard}");
        }
    }
}

#[test]
fn json_reader_and_writer_round_trip_every_value() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(&program("tests/abi/cpp_json.cpp", folder.path()), &[]), "passed\n");
}

#[test]
fn cpp_program_calls_every_function() {
    let emulator = Emulator::start(Options { locations: 5, ..Options::default() }).unwrap();
    emulator.set_rate_limit(None);
    let folder = tempfile::tempdir().unwrap();
    let program = program("tests/abi/cpp_client.cpp", folder.path());
    let person = format!("python3 {}", person(&emulator, folder.path()).display());
    let install = emulator.webhook(&Notice::Install(emulator.location_ids()[0].clone()));
    let headers = support::signed(&emulator, install.as_bytes(), Signature::Ed25519);
    let signature = headers["x-ghl-signature"].as_str().unwrap();
    run(&program, &[&emulator.configuration(), &person, signature, &install]);

    let requests = emulator.requests();
    let sent: Vec<_> = requests
        .iter()
        .filter(|request| request.method == "POST" && request.path == "/nowhere")
        .collect();
    let types: Vec<_> = sent
        .iter()
        .map(|request| support::header(request, "content-type").unwrap_or("none"))
        .collect();
    assert!(
        types[0].starts_with("application/json") && types[1].starts_with("text/plain"),
        "{types:?}"
    );
    assert_eq!((sent[0].body.as_str(), sent[1].body.as_str()), ("{\"a\": [1, \"b\"]}", "plain"));
    assert_eq!(sent[0].query, "a=1&a=2+%26&b=3");
    assert_eq!(support::header(sent[0], "x-own"), Some("a \"b\""));
    assert_eq!(sent[2].body.chars().next(), Some('\0'));
}

#[test]
fn locations_listed_without_an_id_are_skipped_in_cpp() {
    let emulator = Emulator::start(Options::default()).unwrap();
    support::list_odd_locations(&emulator);
    let folder = tempfile::tempdir().unwrap();
    run(&program("tests/abi/cpp_odd_locations.cpp", folder.path()), &[&emulator.configuration()]);
}

#[test]
fn range_over_pages_that_form_a_cycle_ends_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let program = program("tests/abi/cpp_cyclic_pages.cpp", folder.path());
    for length in 1..4 {
        let emulator = Emulator::start(Options::default()).unwrap();
        // Pages 0, 1, … of which the last one names page 1 again.
        for page in 0..=length {
            let next = if page == length { 1 } else { page + 1 };
            let rule = Rule::on(Endpoint::InstalledLocations).times(1);
            support::list_locations_by(
                &emulator,
                rule,
                &json!([{"_id": format!("l{page}")}]),
                &json!({"hasNextPage": true, "nextPageToken": format!("page-{next}")}),
            );
        }
        let out = run(&program, &[&emulator.configuration()]);
        assert_eq!(out.trim(), length.to_string(), "locations before the cycle of {length} pages");
    }
}

#[test]
fn unreadable_tokens_are_in_the_failed_lists_of_pages_and_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let program = program("tests/abi/cpp_unreadable.cpp", folder.path());
    let config = support::one_unreadable_token(folder.path());
    assert_eq!(run(&program, &[&config]), "passed\n");
}

#[test]
fn cpp_program_stores_tokens_in_its_own_class() {
    let emulator = emulator(3);
    let folder = tempfile::tempdir().unwrap();
    let program = program("tests/abi/cpp_store.cpp", folder.path());
    let person = format!("python3 {}", person(&emulator, folder.path()).display());
    let path = folder.path().join("tokens.db");
    let arguments = [&emulator.configuration(), &person, path.to_str().unwrap()];
    assert_eq!(run(&program, &arguments), "passed\n");
}

#[test]
fn client_can_be_used_by_destructors_of_static_and_thread_local_objects() {
    let emulator = emulator(1);
    let client = Abi::new(&emulator);
    let company = client.connect_company(&emulator);
    let tokens = client.tokens_export(json!({})).ok();
    let folder = tempfile::tempdir().unwrap();
    let program = program("tests/abi/cpp_exit.cpp", folder.path());
    let import = json!({"tokens": tokens["tokens"]}).to_string();
    assert_eq!(run(&program, &[&emulator.configuration(), &import, &company]), "passed\n");
}

#[test]
fn cpp_program_works_without_exceptions() {
    let (emulator, client, company) = with_company(3);
    let tokens = client.tokens_export(json!({})).ok();
    let folder = tempfile::tempdir().unwrap();
    let program = program("tests/abi/cpp_unthrown.cpp", folder.path());
    let import = json!({"tokens": tokens["tokens"]}).to_string();
    run(&program, &[&emulator.configuration(), &import, &company]);
}

#[test]
fn cpp_example_connects_and_visits_every_location() {
    let emulator = emulator(12);
    let folder = tempfile::tempdir().unwrap();
    let program = program("examples/cpp/quickstart.cpp", folder.path());
    let driver = support::driver(folder.path());
    let mut drive = Command::new("python3");
    drive
        .arg(driver)
        .arg(&program)
        .arg(emulator.configuration())
        .arg(person(&emulator, folder.path()));
    drive.env("LD_LIBRARY_PATH", built::folder());
    let out = passes(drive);
    for location_id in emulator.location_ids() {
        assert!(
            out.contains(&format!("{location_id}  200  ")),
            "{location_id} was not visited:\n{out}"
        );
    }
    assert!(out.contains(&format!("connected: Company {}", emulator.company_id())), "{out}");

    let mut wrong = Command::new(&program);
    support::reports_an_insecure_url(wrong.env("LD_LIBRARY_PATH", built::folder()));
}

/// Every key of docs/configuration.md has a field, and every field a key.
#[test]
fn cpp_configuration_struct_has_every_documented_key() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("keys.cpp");
    let text = r#"
        #include <cstdio>
        #include "ghl_oauth.hpp"
        int main() {
            ghl::config config("i", "s");
            config.client_secret_file = "t";
            config.redirect_uri = config.base_url = config.authorize_url = config.api_version = "t";
            config.token_request_encoding = "t";
            config.scopes = {"t"};
            config.store = ghl::sqlite_store("t");
            config.store->url = ghl::postgres_store("t").url;
            config.store->encryption_keys = {ghl::secret("t"), ghl::secret("u")};
            config.store->ca_bundle_path = config.store->encryption_keys_path = "t";
            config.store->sealed_only = true;
            config.timeouts.connect = std::chrono::seconds(2);
            config.timeouts.answer = config.timeouts.total = config.timeouts.connect;
            config.retry.max_attempts = 1;
            config.retry.base_delay = config.retry.max_delay = std::chrono::milliseconds(1);
            config.rate_limit.requests = config.rate_limit.per_day = 1;
            config.rate_limit.per = std::chrono::seconds(1);
            config.refresh.margin = std::chrono::minutes(1);
            config.refresh.runway_percent = 1;
            config.limits.response_bytes = 1;
            config.http.proxy = std::string_view("t");
            config.http.ca_bundle_path = config.http.user_agent_suffix = "t";
            config.http.allow_insecure_http = true;
            config.http.no_proxy = {"t"};
            config.webhook.ed25519_public_keys = config.webhook.rsa_public_keys = {"t"};
            config.webhook.max_age = std::chrono::hours(1);
            config.consent_page.language = config.consent_page.color = "t";
            config.consent_page.title = config.consent_page.message = "t";
            config.consent_page.failure_title = config.consent_page.failure_message = "t";
            const ghl::secret json = config.json();
            std::puts(json.c_str());
        }"#;
    fs::write(&source, text).unwrap();
    let written: Value =
        serde_json::from_str(&run(&program(source.to_str().unwrap(), folder.path()), &[])).unwrap();
    assert_eq!(written["timeouts"]["connectMs"], 2000);
    assert_eq!(written["refresh"]["marginSeconds"], 60);
    assert_eq!(written["store"]["encryptionKeys"], json!(["t", "u"]));
    let mut keys: Vec<String> = Vec::new();
    for (key, value) in written.as_object().unwrap() {
        match value {
            Value::Object(inner) => keys.extend(inner.keys().map(|name| format!("{key}.{name}"))),
            _ => keys.push(key.clone()),
        }
    }
    let page = fs::read_to_string(Path::new(built::ROOT).join("docs/configuration.md")).unwrap();
    let mut documented: Vec<String> = page
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    keys.sort();
    documented.sort();
    assert_eq!(keys, documented);
}
