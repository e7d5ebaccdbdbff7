//! What the documentation says is what the library does.

use std::fs;
use std::path::Path;
use std::process::Command;

use ghl_oauth::{Config, Status};

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn the_catalogue_of_errors_lists_every_status_once() {
    let page = page("docs/errors.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.split('|').nth(2).is_some_and(|name| name.trim().starts_with("`GHL_")))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), Status::ALL.len());
    for (row, status) in rows.iter().zip(Status::ALL) {
        assert_eq!(row[1], status.code().to_string());
        assert_eq!(row[2], format!("`{}`", status.name()));
        assert_eq!(row[5], if status.retryable() { "yes" } else { "no" }, "{}", status.name());
    }
}

/// Each documented default, given as such, is accepted, and so is its key: a key that the library does not know is
/// refused.
#[test]
fn the_documented_keys_and_defaults_are_accepted() {
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
            number_or_flag => serde_json::from_str(number_or_flag).unwrap_or_else(|_| number_or_flag.into()),
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
    assert_eq!(documented, 33);
}

/// The sources of a folder and of those in it, by their names; several files may have the same.
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
fn every_promise_names_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = [sources(&root.join("tests")), sources(&root.join("src"))].concat();
    for name in ["docs/token-life.md", "docs/security.md"] {
        let page = page(name);
        let mut promises = 0;
        for line in page.lines().filter(|line| line.contains(".rs`: `")) {
            // A promise may hold names in code of its own; the last two are the test's.
            let names: Vec<&str> = line.split('`').collect();
            let (file, test) = (names[names.len() - 4], names[names.len() - 2]);
            let holds =
                |(name, source): &(String, String)| name == file && source.contains(&format!("fn {test}("));
            assert!(sources.iter().any(holds), "{file} has no test {test}");
            promises += 1;
        }
        assert!(promises > 20, "{name}");
    }
}

/// The blocks of a language between their fences.
fn blocks(page: &str, language: &str) -> Vec<String> {
    page.split(&format!("```{language}\n"))
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// C and C++ are compiled and run by tests/code_blocks.rs.
#[test]
fn the_python_code_in_the_readme_is_valid() {
    let page = page("README.md");
    let python = blocks(&page, "python");
    assert_eq!(python.len(), 1);
    let interpreter = std::env::var("GHL_PYTHON").unwrap_or_else(|_| "python3".into());
    let parsed = Command::new(&interpreter)
        .args(["-c", "import ast, sys; ast.parse(sys.argv[1])", &python[0]])
        .status();
    assert!(parsed.unwrap().success());
}
