//! The documentation matches the library.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use ghl_oauth::config::{
    ConsentPage, HttpConfig, Limits, RateLimit, Refresh, Retry, StoreConfig, Timeouts, Webhook,
};
use ghl_oauth::{Config, Status};
use serde::de::DeserializeOwned;

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn error_catalogue_lists_every_status_once() {
    let page = page("docs/errors.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.split('|').nth(2).is_some_and(|name| name.trim().starts_with("`GHL_")))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let lacks = |status: &Status| !rows.iter().any(|row| row[2] == format!("`{}`", status.name()));
    let missing: Vec<_> = Status::ALL.into_iter().filter(lacks).map(Status::name).collect();
    assert!(missing.is_empty(), "docs/errors.md has no row for {missing:?}");
    assert_eq!(rows.len(), Status::ALL.len());
    for (row, status) in rows.iter().zip(Status::ALL) {
        assert_eq!(row[1], status.code().to_string());
        assert_eq!(row[2], format!("`{}`", status.name()));
        assert_eq!(row[5], if status.retryable() { "yes" } else { "no" }, "{}", status.name());
    }
}

/// Every documented default is accepted as a value. This also checks the key, because unknown keys
/// are refused.
#[test]
fn documented_keys_and_defaults_are_accepted() {
    let page = page("docs/configuration.md");
    let mut documented = 0;
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let (key, default) = (cells[1], cells[2]);
        documented += 1;
        let mut config = serde_json::json!({"clientId": "app-1", "clientSecret": "s"});
        let mut place = &mut config;
        for part in key.split('.') {
            place = &mut place[part];
        }
        *place = match default {
            "required" => "given".into(),
            "none" => serde_json::Value::Null,
            "the vendor's" => serde_json::json!([ghl_oauth::config::VENDOR_ED25519_KEY]),
            number_or_flag => {
                serde_json::from_str(number_or_flag).unwrap_or_else(|_| number_or_flag.into())
            }
        };
        if key == "scopes" {
            config["scopes"] = serde_json::json!([]);
        }
        if key.starts_with("store.") && key != "store.kind" {
            config["store"]["kind"] = "memory".into();
        }
        if let Err(error) = Config::from_json(&config.to_string()) {
            panic!("{key}: {error}");
        }
    }
    assert!(documented >= 34, "{documented}");
}

/// The keys that a section of the configuration accepts, taken from the error for an unknown key.
fn accepted_keys<T: DeserializeOwned>() -> BTreeSet<String> {
    let refusal = serde_json::from_str::<T>("{\"?\": 0}").err().unwrap().to_string();
    let (_, keys) = refusal.split_once("expected ").unwrap();
    keys.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Converts `marginSeconds` to `margin_seconds`.
fn snake_case(key: &str) -> String {
    key.chars().fold(String::new(), |mut name, letter| {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
        name
    })
}

#[test]
fn every_key_of_the_configuration_is_documented_and_known_to_the_bindings() {
    let sections = [
        ("store", accepted_keys::<StoreConfig>()),
        ("timeouts", accepted_keys::<Timeouts>()),
        ("retry", accepted_keys::<Retry>()),
        ("rateLimit", accepted_keys::<RateLimit>()),
        ("refresh", accepted_keys::<Refresh>()),
        ("limits", accepted_keys::<Limits>()),
        ("http", accepted_keys::<HttpConfig>()),
        ("webhook", accepted_keys::<Webhook>()),
        ("consentPage", accepted_keys::<ConsentPage>()),
    ];
    let mut accepted = accepted_keys::<Config>();
    for (section, keys) in &sections {
        assert!(accepted.remove(*section), "{section} is no section of the configuration");
        accepted.extend(keys.iter().map(|key| format!("{section}.{key}")));
    }
    let page = page("docs/configuration.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.map(str::to_owned).collect::<BTreeSet<_>>(), accepted, "docs/configuration.md");
    let cpp = self::page("bindings/cpp/ghl_oauth.hpp");
    let python = self::page("bindings/python/src/ghl_oauth/client.py");
    for key in &accepted {
        let name = key.rsplit('.').next().unwrap();
        assert!(cpp.contains(&format!("\"{name}\"")), "{key} is missing in ghl_oauth.hpp");
        // Python passes the store's keys on unchanged, and takes durations in seconds.
        let is_passed_on = key.starts_with("store.");
        let name = snake_case(name);
        let name = name.strip_suffix("_ms").map(|name| format!("{name}_seconds")).unwrap_or(name);
        assert!(is_passed_on || python.contains(&name), "{key} is missing in client.py");
    }
}

#[test]
fn every_event_is_documented_for_c_python_and_rust() {
    let source = page("src/event.rs");
    let names: Vec<&str> =
        source.split('"').skip(1).step_by(2).filter(|text| text.starts_with("token.")).collect();
    assert!(names.len() >= 7, "{names:?}");
    for file in [
        "src/ffi/client.rs",
        "bindings/python/src/ghl_oauth/models/events.py",
        "src/typed/results.rs",
    ] {
        let text = page(file);
        for name in &names {
            assert!(text.contains(name), "{file} does not document the event {name}");
        }
    }
}

/// Functions of the C ABI without a Rust method of the same name: the name of the method, or the
/// reason.
const OTHERWISE_IN_RUST: [(&str, &str); 20] = [
    ("abi_version", "the ABI is not used"),
    ("version", "CARGO_PKG_VERSION of the dependency"),
    ("status_name", "pub const fn name("),
    ("string_free", "Drop"),
    ("client_new", "pub fn new("),
    ("client_new_with_store", "pub fn with_host("),
    ("client_free", "Drop"),
    ("client_cancel", "pub fn cancel("),
    ("client_on_event", "pub fn on_event("),
    ("client_stats", "pub fn stats("),
    ("client_metrics", "pub fn metrics("),
    ("set_log_callback", "the crate log"),
    ("access_token_into", "pub fn access_token("),
    ("access_token_try_into", "pub fn access_token_in_memory("),
    ("access_token_with", "pub fn access_token_valid_for("),
    ("call_cancel", "pub fn cancel_call("),
    ("library_info", "the program chooses the dependency's version and features"),
    ("token_refresh_with", "pub fn with_timeout("),
    ("oauth_token", "for programs that store tokens themselves"),
    ("oauth_location_token", "for programs that store tokens themselves"),
];

#[test]
fn every_function_of_the_abi_has_a_rust_method() {
    let header = page("include/ghl_oauth.h");
    let rust = page("src/typed/mod.rs") + &page("src/error.rs");
    let declarations = header.lines().filter(|line| !line.starts_with([' ', '/', '#', 't']));
    let functions = declarations.filter_map(|line| {
        let name = line.split('(').next()?.rsplit([' ', '*']).next()?;
        line.contains('(').then(|| name.strip_prefix("ghl_")).flatten()
    });
    let mut found = 0;
    for function in functions {
        found += 1;
        let has = |method: &str| rust.contains(method);
        match OTHERWISE_IN_RUST.iter().find(|(name, _)| *name == function) {
            Some((_, method)) => assert!(!method.starts_with("pub ") || has(method), "{method}"),
            None => assert!(
                has(&format!("pub fn {function}(")) || has(&format!("pub fn {function}<")),
                "src/typed/mod.rs has no method {function}"
            ),
        }
    }
    assert!(found >= 29, "{found}");
}

/// The source files of a folder and its subfolders by name; several files may share a name.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources.extend(self::sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            sources.push((name, fs::read_to_string(path).unwrap()));
        }
    }
    sources
}

#[test]
fn every_promise_names_an_existing_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = [sources(&root.join("tests")), sources(&root.join("src"))].concat();
    for (name, least) in
        [("docs/token-life.md", 20), ("docs/security.md", 20), ("docs/fleet.md", 10)]
    {
        let page = page(name);
        let mut promises = 0;
        for line in page.lines().filter(|line| line.contains(".rs`: `")) {
            // A promise may contain code names; the last file and the names after it are the tests.
            let names: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
            let at = names.iter().rposition(|name| name.ends_with(".rs")).unwrap();
            for test in names[at + 1..].iter().filter(|test| !test.starts_with('…')) {
                let holds = |(name, source): &(String, String)| {
                    name == names[at] && source.contains(&format!("fn {test}("))
                };
                assert!(sources.iter().any(holds), "{} has no test {test}", names[at]);
            }
            promises += 1;
        }
        assert!(promises > least, "{name}");
    }
}

/// The fenced code blocks of a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    page.split(&format!("```{language}\n"))
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// tests/code_blocks.rs compiles and runs the C and C++ code.
#[test]
fn python_code_in_the_readme_is_valid() {
    let page = page("README.md");
    let python = blocks(&page, "python");
    assert_eq!(python.len(), 1);
    let interpreter = std::env::var("GHL_PYTHON").unwrap_or_else(|_| "python3".into());
    let parsed = Command::new(&interpreter)
        .args(["-c", "import ast, sys; ast.parse(sys.argv[1])", &python[0]])
        .status();
    assert!(parsed.unwrap().success());
}

#[test]
fn line_of_101_columns_fails_the_check_of_line_lengths() {
    let folder = tempfile::tempdir().unwrap();
    let passes = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/width");
        let interpreter = std::env::var("GHL_PYTHON").unwrap_or_else(|_| "python3".into());
        let output = Command::new(interpreter).arg(script).arg(path).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        output.status.success()
    };
    let line = |columns: usize| format!("{}x\n", &"x ".repeat(columns)[..columns - 1]);
    for name in ["a.rs", "a.py", "a.hpp", "a.css"] {
        assert!(passes(name, line(100)), "{name}");
        assert!(!passes(name, line(101)), "{name}");
    }
    assert!(passes("a.md", line(101)));
    assert!(!passes("a.md", format!("```sh\n{}```\n", line(101))));
    assert!(passes("a.c", format!("    f(\"{}\");\n", "x".repeat(101))));
}

/// The files of this repository that a line links to.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// The language-independent content of a section: code without comments, and the number of list
/// items, table rows and links.
#[derive(Debug, Default, PartialEq)]
struct Section {
    code: Vec<String>,
    points: usize,
    rows: usize,
    links: Vec<String>,
}

/// The part before the first heading of level 2, followed by a section for each heading.
fn sections(page: &str) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    let mut comment = None;
    for line in page.lines() {
        let section = sections.last_mut().unwrap();
        if let Some(language) = line.strip_prefix("```") {
            section.code.push(line.to_owned());
            comment = match (comment, language) {
                (Some(_), _) => None,
                (None, "c" | "cpp" | "rust,no_run") => Some(" // "),
                (None, _) => Some(" # "),
            };
        } else if let Some(comment) = comment {
            let line = format!(" {line}");
            let words = line.find(comment).map_or(line.len(), |start| start + comment.len());
            section.code.push(line[..words].to_owned());
        } else if line.starts_with("## ") {
            sections.push(Section::default());
        } else {
            section.points += usize::from(line.starts_with("- "));
            section.rows += usize::from(line.starts_with('|'));
            // The readmes link to each other in different positions.
            let links = links(line).filter(|link| !["README.md", "README.es.md"].contains(link));
            section.links.extend(links.map(str::to_owned));
            section.links.sort();
        }
    }
    sections
}

#[test]
fn spanish_readme_has_the_structure_of_the_english_readme() {
    let (english, spanish) = (sections(&page("README.md")), sections(&page("README.es.md")));
    assert!(english.len() > 5);
    assert_eq!(english.len(), spanish.len(), "sections");
    for (number, (english, spanish)) in english.iter().zip(&spanish).enumerate() {
        assert_eq!(english, spanish, "section {number}");
    }
}

#[test]
fn readme_links_lead_to_existing_files() {
    for (name, other) in [("README.md", "README.es.md"), ("README.es.md", "README.md")] {
        let page = page(name);
        let links: Vec<&str> = page.lines().flat_map(links).collect();
        assert!(links.contains(&other), "{name} does not link to {other}");
        for link in links {
            let target = Path::new(env!("CARGO_MANIFEST_DIR")).join(link);
            assert!(target.exists(), "{name} links to {link}, which does not exist");
        }
    }
}

/// The anchor that GitHub and mdbook generate for a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// The lines of a page outside its code blocks.
fn lines_of_text(page: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    page.lines().filter(move |line| {
        inside ^= line.trim_start().starts_with("```");
        !inside
    })
}

#[test]
fn links_of_the_pages_in_docs_lead_to_files_and_headings_that_exist() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut links = 0;
    for entry in fs::read_dir(&docs).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let targets = lines_of_text(&text)
            .flat_map(|line| line.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()))
            .filter(|target| !target.contains("://"));
        for target in targets {
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { docs.join(file) };
            assert!(file.exists(), "{} links to {target}, which does not exist", path.display());
            if !heading.is_empty() {
                let page = fs::read_to_string(&file).unwrap();
                let mut anchors =
                    lines_of_text(&page).filter(|line| line.starts_with('#')).map(anchor);
                assert!(
                    anchors.any(|found| found == heading),
                    "{} links to {target}, a heading that does not exist",
                    path.display()
                );
            }
        }
    }
    assert!(links > 50, "{links}");
}

#[test]
fn table_of_contents_lists_every_page_of_docs_once() {
    let summary = page("docs/SUMMARY.md");
    let mut listed: Vec<&str> = summary.lines().flat_map(links).collect();
    listed.sort_unstable();
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
    let mut pages: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md") && name != "SUMMARY.md")
        .collect();
    pages.sort_unstable();
    assert_eq!(listed, pages);
}

/// All retry rules that the vendor has published include 429; one of them excludes 500 and 503.
#[test]
fn every_documented_webhook_receiver_answers_429_to_have_a_delivery_repeated() {
    let receivers = [
        ("examples/python/webhook_flask.py", "429 if error.retryable"),
        ("examples/python/webhook_fastapi.py", "429 if error.retryable"),
        ("examples/c/agency_server.c", "error.retryable ? 429"),
        ("src/ffi/webhook.rs", ": 429;"),
        ("tests/agency_day/agency.py", "429 if error.retryable"),
        ("tests/agency_day/agency.c", "error.retryable ? 429"),
        ("tests/agency_day/agency.cpp", "error.retryable() ? 429"),
        ("docs/webhooks.md", "**429**"),
        ("README.md", "**429**"),
    ];
    for (name, answer) in receivers {
        let text = page(name);
        assert!(text.contains(answer), "{name}");
        if !name.ends_with(".md") {
            // As the last alternative of a conditional expression.
            let gives_up = ["500", "502", "503"].iter().any(|status| {
                text.contains(&format!(" {status} ")) || text.contains(&format!(": {status};"))
            });
            assert!(!gives_up, "{name}");
        }
    }
}
