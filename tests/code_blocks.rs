//! The C and C++ code in the documentation: compiled like user code, and run if it is a complete
//! program. `tests/install.rs` covers the CMake code.
#![cfg(unix)] // Uses options of Unix compilers.

mod built;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ghl_oauth_emulator::{Certificate, Emulator, Options};

/// Every page of the repository that users read.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(built::ROOT);
    let mut folders = vec![root.to_owned()];
    let mut pages = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The code blocks of a language: their location and text.
fn blocks(language: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (number, part) in text.split(&format!("\n```{language}\n")).skip(1).enumerate() {
            let name = page.strip_prefix(built::ROOT).unwrap().display();
            found.push((
                format!("{name}, {language} block {}", number + 1),
                part.split("\n```").next().unwrap().to_owned(),
            ));
        }
    }
    found
}

/// Wraps a fragment into a function that has a client.
fn whole(block: &str, language: &str) -> String {
    match (block.contains("#include"), language) {
        (true, _) => block.to_owned(),
        (false, "c") => format!(
            "#include <stdio.h>\n#include <string.h>\n#include \"ghl_oauth_typed.h\"\n\
             void block(ghl_client *client);\nvoid block(ghl_client *client) {{\
             \n(void)client;\n{block}\n}}\n"
        ),
        (false, _) => format!(
            "#include <iostream>\n#include \"ghl_oauth.hpp\"\n\
             void block(const ghl::client &client);\nvoid block(const ghl::client &client) {{\
             \n{block}\n}}\n"
        ),
    }
}

fn the_blocks_compile(language: &str, standard: &str, at_least: usize) {
    let blocks = blocks(language);
    assert!(blocks.len() >= at_least, "only {} blocks of {language} were found", blocks.len());
    built::library();
    // Most of the time goes into the header of C++, which is therefore compiled only once.
    let precompiled = tempfile::tempdir().unwrap();
    if language == "cpp" {
        let mut compile = built::compiler(standard);
        compile.args(["-x", "c++-header", "bindings/cpp/ghl_oauth.hpp", "-o"]);
        let header = precompiled.path().join("ghl_oauth.hpp.gch");
        assert!(compile.arg(header).status().unwrap().success(), "the header does not compile");
    }
    for (place, block) in blocks {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join(format!("block.{language}"));
        fs::write(&source, whole(&block, language)).unwrap();
        let mut compile = built::compiler(standard);
        if language == "cpp" {
            compile.arg("-include").arg(precompiled.path().join("ghl_oauth.hpp"));
        }
        compile.arg("-Wno-unused-variable").arg(&source);
        let program = folder.path().join("block");
        let is_program = block.contains("int main(");
        if is_program {
            compile
                .arg(format!("-L{}", built::folder().display()))
                .args(["-lghl_oauth", "-o"])
                .arg(&program);
        } else {
            compile.arg("-fsyntax-only");
        }
        assert!(compile.status().unwrap().success(), "{place} does not compile");
        if is_program {
            // The program has no token, reports that, and sends no request.
            let mut run = Command::new(&program);
            let output = run
                .current_dir(folder.path())
                .env("LD_LIBRARY_PATH", built::folder())
                .output()
                .unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.code().is_some(), "{place} crashed: {}", output.status);
            assert!(String::from_utf8_lossy(&said).contains("GHL_ERR_NOT_FOUND"), "{place}");
        }
    }
}

/// The example of each function in the header that has one: its name, and the code.
fn examples() -> Vec<(String, String)> {
    let header = fs::read_to_string(Path::new(built::ROOT).join("include/ghl_oauth.h")).unwrap();
    let parts = header.split(" * ```c\n").skip(1);
    parts
        .map(|part| {
            let (example, rest) = part.split_once(" * ```\n").unwrap();
            let lines = example.lines().map(|line| line.strip_prefix(" * ").unwrap_or_default());
            let declaration = rest.split_once("*/\n").unwrap().1.split('(').next().unwrap();
            let name = declaration.rsplit([' ', '*']).next().unwrap();
            (name.to_owned(), lines.collect::<Vec<_>>().join("\n"))
        })
        .collect()
}

#[test]
fn examples_in_the_header_compile_and_call_their_function() {
    let examples = examples();
    assert!(examples.len() >= 10, "{} examples", examples.len());
    for (name, example) in examples {
        assert!(example.contains(&format!("{name}(")), "the example of {name} does not call it");
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("example.c");
        // `ghl_client_new` has its own client; functions of the library need none.
        let has_own = example.contains("ghl_client *client;") || !example.contains("client");
        let parameters = if has_own { "void" } else { "ghl_client *client" };
        let code = format!(
            "#include <stdio.h>\n#include <string.h>\n#include \"ghl_oauth.h\"\n\
             void example({parameters});\nvoid example({parameters}) {{\n{example}\n}}\n"
        );
        fs::write(&source, code).unwrap();
        let compiled = built::compiler(built::C99).arg("-fsyntax-only").arg(&source).status();
        assert!(compiled.unwrap().success(), "the example of {name} does not compile");
    }
}

#[test]
fn c_code_in_the_documentation_compiles_and_runs() {
    the_blocks_compile("c", built::C99, 1);
}

#[test]
fn cpp_code_in_the_documentation_compiles_and_runs() {
    the_blocks_compile("cpp", "-std=c++17", 9);
}

/// The configuration that the emulator's dashboard copies, in each language.
#[test]
fn configuration_copied_from_the_emulator_creates_a_client() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    for (tls, ca_file) in [(None, None), (Some(Certificate::Good), Some(ca_file.clone()))] {
        let emulator = Emulator::start(Options { tls, ca_file, ..Options::default() }).unwrap();
        let copied = |language| emulator.configuration_for(language).unwrap();
        let c = format!(
            "#include \"ghl_oauth.h\"\nint main(void) {{\n{}ghl_client *client;\n\
             int32_t status = ghl_client_new(config, &client, NULL);\n\
             ghl_client_free(client);\nreturn status;\n}}\n",
            copied("c")
        );
        let cpp = format!(
            "#include \"ghl_oauth.hpp\"\nint main() {{\n{}ghl::client client(config);\n}}\n",
            copied("cpp")
        );
        for (name, text) in [("copied.c", c), ("copied.cpp", cpp)] {
            let source = folder.path().join(name);
            fs::write(&source, text).unwrap();
            let program = built::program(source.to_str().unwrap(), folder.path());
            let status = Command::new(program).status().unwrap();
            assert!(status.success(), "{name}: {status}");
        }
        let python = std::env::var_os("GHL_PYTHON").unwrap_or_else(|| "python3".into());
        let mut run = Command::new(python);
        run.args(["-c", &format!("import ghl_oauth\n{}client.close()\n", copied("python"))])
            .env("PYTHONPATH", Path::new(built::ROOT).join("bindings/python/src"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("GHL_OAUTH_LIBRARY", built::library());
        assert!(run.status().unwrap().success(), "{}", copied("python"));

        let shell = format!(
            "{}echo \"$GHL_OAUTH_CLIENT_SECRET\"; cat \"$GHL_OAUTH_CONFIG\"",
            copied("environment")
        );
        let run =
            Command::new("sh").args(["-euc", &shell]).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8(run.stdout).unwrap();
        let (secret, file) = said.split_once('\n').unwrap();
        assert_eq!(secret, emulator.client_secret());
        let mut document: serde_json::Value = serde_json::from_str(file).unwrap();
        document["clientSecret"] = secret.into();
        assert_eq!(
            document.to_string(),
            emulator.configuration().parse::<serde_json::Value>().unwrap().to_string()
        );
    }
}

#[test]
fn every_shell_block_is_a_valid_script() {
    let blocks = blocks("sh");
    assert!(blocks.len() > 10, "{}", blocks.len());
    for (name, block) in blocks {
        let parsed = Command::new("bash").args(["-n", "-c", &block]).output().unwrap();
        assert!(parsed.status.success(), "{name}: {}", String::from_utf8_lossy(&parsed.stderr));
        // Referenced files of this repository exist.
        let folders = ["./bindings/", ".ci/", "benches/", "bindings/", "examples/"];
        let is_ours = |word: &&str| {
            !word.contains('$') && folders.iter().any(|folder| word.starts_with(folder))
        };
        for word in block.split_whitespace().filter(is_ours) {
            assert!(Path::new(built::ROOT).join(word).exists(), "{name}: {word} does not exist");
        }
    }
}

#[test]
fn every_json_block_is_valid_and_configurations_are_accepted() {
    let blocks = blocks("json");
    assert!(blocks.len() > 2, "{}", blocks.len());
    for (name, block) in blocks {
        let mut document: serde_json::Value =
            serde_json::from_str(&block).unwrap_or_else(|error| panic!("{name}: {error}"));
        if document.get("store").is_some() {
            document["clientId"] = "app-1".into();
            document["clientSecret"] = "s".into();
            // A key of the command line only.
            document.as_object_mut().unwrap().remove("clientSecretFile");
            let config = ghl_oauth::Config::from_json(&document.to_string());
            assert!(config.is_ok(), "{name}: {:?}", config.err());
        }
    }
}
