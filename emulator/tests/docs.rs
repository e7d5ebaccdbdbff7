//! `docs/emulator.md` matches the program. `GHL_UPDATE_EMULATOR_DOCS=1` rewrites its tables.

use ghl_oauth_emulator::{BEHAVIOURS, CONTROL_ENDPOINTS, FAULT_KINDS, Refusal};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn help() -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_ghl-oauth-emulator")).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn faults() -> String {
    let mut table = "| `kind` | parameters | effect |\n|---|---|---|\n".to_owned();
    for info in FAULT_KINDS {
        let parameters: Vec<_> = info
            .parameters
            .iter()
            .map(|parameter| match (parameter.required, parameter.value) {
                (true, _) => format!("**`{}`**", parameter.name),
                (false, "") => format!("`{}`", parameter.name),
                (false, value) => format!("`{}` ({value})", parameter.name),
            })
            .collect();
        table.push_str(&format!(
            "| `{}` | {} | {} |\n",
            info.kind,
            parameters.join(", "),
            info.what
        ));
    }
    table
}

fn refusals() -> String {
    let mut table = "| `refusal` | status | message |\n|---|---|---|\n".to_owned();
    for refusal in Refusal::ALL {
        let name = json!(refusal);
        table.push_str(&format!(
            "| `{}` | {} | {} |\n",
            name.as_str().unwrap(),
            refusal.status(),
            refusal.words()
        ));
    }
    table
}

fn behaviours() -> String {
    let mut table =
        "| setting | option | values (first is the default) | effect |\n|---|---|---|---|\n"
            .to_owned();
    for info in BEHAVIOURS {
        let values = match (info.values, info.default) {
            ([], "false") => "`false`, `true`".to_owned(),
            ([], default) => format!("`{default}`, a number"),
            (values, _) => {
                values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
            }
        };
        table.push_str(&format!(
            "| `{}` | `{}` | {values} | {} |\n",
            info.name, info.option, info.what
        ));
    }
    table
}

fn control() -> String {
    let mut table = "| | |\n|---|---|\n".to_owned();
    for (endpoint, what) in CONTROL_ENDPOINTS {
        table.push_str(&format!("| `{endpoint}` | {} |\n", what.replace('|', "\\|")));
    }
    table
}

#[test]
fn tables_of_the_manual_match_the_program() {
    let file = in_repository("docs/emulator.md");
    let written = fs::read_to_string(&file).unwrap();
    let mut manual = written.clone();
    for (name, content) in [
        ("options", format!("```text\n{}```\n", help())),
        ("faults", faults()),
        ("refusals", refusals()),
        ("behaviours", behaviours()),
        ("control", control()),
    ] {
        let (before, rest) = manual.split_once(&format!("<!-- {name} -->\n")).expect(name);
        let (_, after) = rest.split_once(&format!("<!-- /{name} -->\n")).expect(name);
        manual = format!("{before}<!-- {name} -->\n{content}<!-- /{name} -->\n{after}");
    }
    if std::env::var_os("GHL_UPDATE_EMULATOR_DOCS").is_some() {
        fs::write(file, manual).unwrap();
    } else {
        assert!(
            written == manual,
            "GHL_UPDATE_EMULATOR_DOCS=1 cargo test -p ghl-oauth-emulator --test docs"
        );
    }
}

#[test]
fn images_of_the_manual_exist_and_are_small() {
    let manual = fs::read_to_string(in_repository("docs/emulator.md")).unwrap();
    let images: Vec<_> =
        manual.split("](images/").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(images.len() >= 3, "{images:?}");
    for image in images {
        let bytes = fs::read(in_repository("docs/images").join(image)).unwrap();
        assert!(
            bytes.starts_with(b"\x89PNG") && bytes.len() < 150_000,
            "{image}: {} bytes",
            bytes.len()
        );
    }
}

/// The options that a text explains, with their defaults.
fn explained(lines: impl Iterator<Item = String>) -> Vec<String> {
    let options = lines.filter_map(|line| {
        let start = line
            .find("--")
            .filter(|start| line[..*start].chars().all(|it| !it.is_lowercase() || it == 'h'))?;
        let end = line[start..].find([' ', '"']).map_or(line.len(), |length| start + length);
        Some(line[start..end].to_owned())
    });
    options.collect()
}

#[test]
fn man_page_documents_the_same_options_and_defaults() {
    let man = fs::read_to_string(in_repository("docs/man/ghl-oauth-emulator.1"))
        .unwrap()
        .replace("\\-", "-");
    let (_, options) = man.split_once(".SH OPTIONS\n").unwrap();
    let (options, _) = options.split_once(".SH").unwrap();
    let heads = options.lines().filter(|line| line.starts_with(".B"));
    let in_man =
        explained(heads.map(|line| {
            line.trim_start_matches(|it: char| it == '.' || it.is_uppercase()).to_owned()
        }));
    let help = help();
    let in_help = explained(help.lines().filter(|line| line.starts_with("  ")).map(str::to_owned));
    assert_eq!(in_man, in_help);
    assert!(in_help.len() > 15, "{in_help:?}");
    for default in help.split("[default: ").skip(1).filter_map(|rest| rest.split([']', ',']).next())
    {
        assert!(options.contains(&format!("Default: {default}")), "{default}");
    }
    assert!(man.starts_with(&format!(
        ".TH GHL-OAUTH-EMULATOR 1 \"\" \"ghl-oauth {}\"",
        env!("CARGO_PKG_VERSION")
    )));
}
