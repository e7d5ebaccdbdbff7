//! The ABI promise of docs/abi.md: tests/abi/promised.txt records the declarations of the header,
//! and released ones never change or disappear. libabigail also compares the layouts.
#![cfg(unix)] // Uses options of Unix compilers.

mod built;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use ghl_oauth::internals::ffi::ghl_abi_version;

const PROMISED: &str = "tests/abi/promised.txt";
const BASELINE: &str = "tests/abi/baseline.abi";

/// Every failure refers to the procedure.
const HOW: &str = "docs/abi.md, \"Changing the ABI\", says what to do";

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(built::ROOT).join(name)).unwrap()
}

/// The statements of the header itself after the C preprocessor.
fn statements() -> Vec<String> {
    let mut preprocess = Command::new("cc");
    preprocess
        .args(["-E", "-P", "-std=c99", "-Iinclude", "include/ghl_oauth.h"])
        .current_dir(built::ROOT);
    let output = preprocess.output().expect("a C compiler");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (mut statements, mut statement, mut depth) = (Vec::new(), String::new(), 0);
    for character in text.chars() {
        match character {
            ';' if depth == 0 => {
                statements.push(statement.split_whitespace().collect::<Vec<_>>().join(" "));
                statement.clear();
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        statement.push(character);
    }
    statements.retain(|statement| statement.contains("ghl_"));
    statements
}

/// A declaration without its parameter names, which may change.
fn unnamed(declaration: &str) -> String {
    let Some((before, parameters)) = declaration.rsplit_once('(') else {
        return declaration.to_owned();
    };
    let parameters = parameters.trim_end_matches(')').split(',').map(|parameter| {
        let parameter = parameter.trim();
        let name = parameter.rfind([' ', '*']).map_or(0, |at| at + 1);
        if name == 0 { parameter } else { parameter[..name].trim_end() }
    });
    format!("{before}({})", parameters.collect::<Vec<_>>().join(", "))
}

/// One line for each function, type, constant and field.
fn declared() -> Vec<String> {
    let mut lines = Vec::new();
    for statement in statements() {
        let body = statement
            .split_once(" {")
            .and_then(|(name, body)| Some((name, body.rsplit_once('}')?.0)));
        match body {
            Some((name, body)) if name.starts_with("enum ") => {
                let constants =
                    body.split(',').map(str::trim).filter(|constant| !constant.is_empty());
                lines.extend(constants.map(|constant| format!("{name}: {constant}")));
            }
            Some((name, body)) => {
                let fields =
                    body.split(';').map(str::trim).filter(|field| !field.is_empty()).enumerate();
                let fields: Vec<_> =
                    fields.map(|(at, field)| format!("{name}, field {at}: {field}")).collect();
                lines.extend(fields);
            }
            None => lines.push(unnamed(&statement)),
        }
    }
    lines
}

/// The number of the newest released ABI, and the recorded lines with the number of the ABI that
/// introduced them.
fn promised() -> (u32, Vec<(u32, String)>) {
    let text = file(PROMISED);
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let released = lines.next().unwrap().strip_prefix("released ").unwrap().parse().unwrap();
    let lines = lines.map(|line| {
        let (number, declaration) = line.split_once(' ').unwrap();
        (number.parse().unwrap(), declaration.to_owned())
    });
    (released, lines.collect())
}

#[test]
fn declared_functions_match_the_promised_abi() {
    let declared = declared();
    assert!(declared.len() > 50, "the header could not be parsed: {declared:?}");
    let (released, mut promised) = promised();
    if std::env::var_os("GHL_UPDATE_ABI").is_some() {
        let version = ghl_abi_version();
        // Released lines stay, so that the test fails if the header lacks one.
        promised.retain(|(number, line)| *number <= released || declared.contains(line));
        let known: BTreeSet<String> = promised.iter().map(|(_, line)| line.clone()).collect();
        let new: Vec<_> = declared.iter().filter(|line| !known.contains(*line)).collect();
        assert!(
            new.is_empty() || version > released,
            "raise ghl_abi_version first, to {}: {new:#?}",
            released + 1
        );
        promised.extend(new.into_iter().map(|line| (version, line.clone())));
        promised.sort();
        let head: String = file(PROMISED)
            .lines()
            .filter(|line| line.starts_with('#'))
            .fold(String::new(), |text, line| text + line + "\n");
        let lines: String =
            promised.iter().map(|(number, line)| format!("{number} {line}\n")).collect();
        fs::write(
            Path::new(built::ROOT).join(PROMISED),
            format!("{head}released {released}\n{lines}"),
        )
        .unwrap();
    }
    let lines: BTreeSet<&String> = promised.iter().map(|(_, line)| line).collect();
    let gone: Vec<_> = promised.iter().filter(|(_, line)| !declared.contains(line)).collect();
    assert!(gone.is_empty(), "promised declarations were removed or changed: {gone:#?}\n{HOW}");
    let new: Vec<_> = declared.iter().filter(|line| !lines.contains(line)).collect();
    assert!(new.is_empty(), "new declarations are not recorded: {new:#?}\n{HOW}");
    let newest = promised.iter().map(|(number, _)| *number).max();
    assert_eq!(
        newest,
        Some(ghl_abi_version()),
        "ghl_abi_version() is the number of the newest promise"
    );
    assert!(
        promised.iter().all(|(number, _)| *number <= released + 1),
        "one new ABI for each release"
    );
}

#[test]
fn shared_library_version_matches_the_abi() {
    let source = file("xtask/src/platform.rs");
    let version = source.split_once("const ABI: &str = \"").unwrap().1.split('"').next().unwrap();
    assert_eq!(
        version,
        format!("1.{}.0", ghl_abi_version()),
        "the minor number is ghl_abi_version()"
    );
    let page = file("docs/abi.md");
    let newest =
        page.lines().rfind(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit());
    let row = format!("| {} | `{version}` |", ghl_abi_version());
    assert!(newest.unwrap().starts_with(&row), "the history in docs/abi.md ends with {row}");
}

/// A library of empty functions with the types of the header. The debug information of the real
/// library describes Rust internals; other tests compare its exported names and generate the header
/// from its code.
fn skeleton(folder: &Path) -> std::path::PathBuf {
    let mut source = String::from("#include \"ghl_oauth.h\"\n");
    // Includes the enum in the debug information, because no function uses it.
    source += "enum ghl_status ghl_status_in_use;\n";
    for statement in statements() {
        let is_function = statement.contains('(')
            && !statement.starts_with("typedef")
            && !statement.contains('{');
        if is_function {
            let body = if statement.starts_with("void ") { "" } else { "return 0;" };
            source += &format!("{statement} {{ {body} }}\n");
        }
    }
    let (file, library) = (folder.join("skeleton.c"), folder.join("skeleton.so"));
    fs::write(&file, source).unwrap();
    let mut compile = Command::new("cc");
    compile
        .args(["-std=c99", "-g", "-gdwarf-4", "-shared", "-fPIC", "-w", "-Iinclude"])
        // The baseline must not contain the build folder.
        .arg(format!("-ffile-prefix-map={}=.", folder.display()))
        .arg("-o")
        .arg(&library)
        .arg(&file);
    assert!(compile.current_dir(built::ROOT).status().unwrap().success());
    library
}

#[test]
fn libabigail_finds_no_abi_break() {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        println!("skipped: abidiff, whose baseline is for Linux on x86_64");
        return;
    }
    if Command::new("abidiff").arg("--version").output().is_err() {
        println!("skipped: abidiff is not installed (apt-get install abigail-tools)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let library = skeleton(folder.path());
    if std::env::var_os("GHL_UPDATE_ABI").is_some() {
        let mut write = Command::new("abidw");
        write.args([
            "--no-corpus-path",
            "--no-comp-dir-path",
            "--no-show-locs",
            "--no-parameter-names",
        ]);
        write
            .args(["--type-id-style", "hash", "--out-file", BASELINE])
            .arg(&library)
            .current_dir(built::ROOT);
        assert!(write.status().unwrap().success());
    }
    let compare = |library: &Path| {
        let output = Command::new("abidiff")
            .arg(BASELINE)
            .arg(library)
            .current_dir(built::ROOT)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, report) = compare(&library);
    assert_eq!(code, Some(0), "{report}\n{HOW}");

    // The check can fail: a missing function, and a changed parameter type.
    for (from, to) in
        [("ghl_token_delete", "ghl_token_forget"), ("size_t *length", "uint32_t *length")]
    {
        let source = folder.path().join("skeleton.c");
        let header = file("include/ghl_oauth.h").replace(from, to);
        fs::write(folder.path().join("ghl_oauth.h"), header).unwrap();
        let changed = fs::read_to_string(&source).unwrap().replace(from, to);
        fs::write(folder.path().join("changed.c"), changed).unwrap();
        let broken = folder.path().join("broken.so");
        let mut compile = Command::new("cc");
        compile.args(["-std=c99", "-g", "-gdwarf-4", "-shared", "-fPIC", "-w", "-o"]).arg(&broken);
        compile.arg(folder.path().join("changed.c")).arg("-I").arg(folder.path());
        assert!(compile.status().unwrap().success());
        assert_ne!(compare(&broken).0, Some(0), "a change of {from} went unseen");
    }
}
