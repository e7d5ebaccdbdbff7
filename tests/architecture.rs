//! Checks the module dependencies of the sources against the layers of docs/architecture.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, highest first. A module may only use modules of lower layers.
const LAYERS: [&[&str]; 10] = [
    &["ffi", "typed"],
    &["client"],
    &["authorization", "request", "webhook"],
    &["tokens"],
    &["api", "store"],
    &["http"],
    &["config", "worker_pool", "event"],
    &["ca_bundle", "deadline", "json", "lookup", "random", "token"],
    &["clock", "error", "fork_safety", "panic_scope", "deferred_callbacks", "secret"],
    &["der", "signal", "socket", "windows"],
];

/// Forbidden uses of lower modules: a store uses neither HTTP nor time, the transport no tokens.
const BLIND: [(&str, &str); 3] = [("store", "http"), ("store", "clock"), ("http", "token")];

/// The hook of cargo-fuzz, absent in builds of the library: the transport reads responses from it.
const DOOR: (&str, &str) = ("http", "fuzzing");

/// The simulation uses every layer and exists only in tests.
const SIMULATION: &str = "simulation";

/// Crates and types that only these modules may use. Any module may use `ureq::http`, the types for
/// URLs and headers.
const OWNERS: [(&str, &[&str]); 13] = [
    ("ureq", &["http/"]),
    ("rustls", &["ca_bundle.rs", "http/", "store/postgres/tls.rs"]),
    ("rusqlite", &["store/sqlite/"]),
    ("tokio_postgres", &["store/postgres/"]),
    ("tokio", &["store/postgres/"]),
    ("libc", &["ffi/", "store/postgres/socket.rs", "store/sqlite/region_lock.rs"]),
    (
        "rustix",
        &[
            "clock.rs",
            "error/exhaustion.rs",
            "fork_safety/descriptors.rs",
            "socket/",
            "store/sqlite/database.rs",
            "store/user_only.rs",
        ],
    ),
    ("nix", &["store/sqlite/region_lock.rs"]),
    ("windows_sys", &["windows.rs"]),
    (
        "std::os",
        &[
            "store/user_only.rs",
            "fork_safety/descriptors.rs",
            "socket/mod.rs",
            "store/file_lock.rs",
            "store/sqlite/identity.rs",
            "store/sqlite/region_lock.rs",
            "windows.rs",
        ],
    ),
    ("TcpListener", &["authorization/receiver.rs", "http/tcp.rs", "socket/connect.rs"]),
    ("ToSocketAddrs", &["lookup.rs"]),
    ("thread::Builder", &["lookup.rs"]),
];

#[test]
fn modules_use_only_lower_layers() {
    let rank = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        let module = module_of(&path);
        if [DOOR.1, SIMULATION, "lib"].contains(&module.as_str()) {
            continue;
        }
        let own = rank(&module).unwrap_or_else(|| panic!("{module} is in no layer"));
        assert!(
            !code.contains("super::super"),
            "{path} leaves its folder with `super`: use a path from `crate`"
        );
        for used in used_modules(&code) {
            let arrow = (module.as_str(), used.as_str());
            let below = rank(&used).is_some_and(|used| used > own);
            if used != module && arrow != DOOR && (!below || BLIND.contains(&arrow)) {
                wrong.push(format!("src/{path} uses crate::{used}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "uses of a module that is not in a lower layer:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_module_belongs_to_one_layer() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared: BTreeSet<&str> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .filter_map(|line| line.strip_suffix(';'))
        .collect();
    let in_layers: Vec<&str> =
        LAYERS.iter().flat_map(|layer| layer.iter().copied()).chain([DOOR.1, SIMULATION]).collect();
    assert_eq!(declared, BTreeSet::from_iter(in_layers.iter().copied()));
    assert_eq!(declared.len(), in_layers.len(), "no module is in two layers");
}

#[test]
fn architecture_page_lists_the_modules_in_layer_order() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let listed: Vec<&str> = rows
        .flat_map(|row| {
            let first = row.split('|').nth(1).unwrap();
            first.split(", ").map(|name| name.trim().trim_matches('`'))
        })
        .collect();
    assert_eq!(listed, LAYERS.concat());
}

#[test]
fn restricted_items_are_used_only_in_their_modules() {
    let mut seen = BTreeMap::new();
    for (path, code) in sources() {
        let code = code.replace("ureq::http::", "");
        for (name, places) in OWNERS {
            if !uses(&code, name) || path == "fuzzing.rs" {
                continue;
            }
            let at_home = places.iter().any(|place| path.starts_with(place));
            assert!(at_home, "src/{path} uses {name}, which belongs to {places:?}");
            *seen.entry(name).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.len(), OWNERS.len(), "some are unused: {seen:?}");
}

#[test]
fn transport_gets_sections_of_the_configuration_but_not_the_client_secret() {
    let mut sections = BTreeSet::new();
    for (path, code) in sources().into_iter().filter(|(path, _)| path.starts_with("http/")) {
        for (at, used) in code.match_indices("crate::config::") {
            let names = code[at + used.len()..].split(';').next().unwrap();
            sections
                .extend(names.split(|letter: char| !letter.is_alphanumeric()).map(str::to_owned));
        }
        assert!(!code.contains("client_secret"), "src/{path} knows the client secret");
    }
    assert!(sections.contains("Retry") && !sections.contains("Config"), "{sections:?}");
}

/// Modules of a folder must not depend on each other in a cycle.
#[test]
fn modules_of_a_folder_form_no_cycle() {
    let mut folders: BTreeMap<String, Arrows> = BTreeMap::new();
    for (path, code) in sources().into_iter().filter(|(path, _)| !path.starts_with(SIMULATION)) {
        for (at, _) in path.match_indices('/') {
            let folder = &path[..at];
            let prefix = format!("crate::{}::", folder.replace('/', "::"));
            add_arrows(
                folders.entry(format!("src/{folder}")).or_default(),
                &path[at + 1..],
                &code,
                &prefix,
            );
        }
    }
    for (path, code) in code_below(&root().join("emulator/src"), "rs", "//") {
        add_arrows(folders.entry("emulator/src".to_owned()).or_default(), &path, &code, "crate::");
    }
    let python = "bindings/python/src/ghl_oauth";
    for (path, code) in code_below(&root().join(python), "py", "#") {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", &path));
        for (used, levels) in python_imports(&code) {
            match (folder, levels) {
                (_, 1) => {
                    add_arrow(folders.entry(format!("{python}/{folder}")).or_default(), file, &used)
                }
                (_, _) => {
                    add_arrow(folders.entry(format!("{python}/")).or_default(), folder, &used)
                }
            }
        }
    }
    for known in ["src/ffi", "src/tokens", "emulator/src", "bindings/python/src/ghl_oauth/cli"] {
        assert!(folders[known].len() > 3, "{known}: {:?}", folders[known]);
    }
    for (folder, arrows) in folders {
        let circle = circle(arrows);
        assert!(circle.is_empty(), "modules of {folder} form a cycle: {circle:?}");
    }
}

#[test]
fn module_cycles_are_found() {
    let arrows = |pairs: &[(&str, &str)]| {
        let mut arrows = Arrows::new();
        pairs.iter().for_each(|(from, to)| add_arrow(&mut arrows, from, to));
        arrows
    };
    assert!(circle(arrows(&[("a", "b"), ("b", "c"), ("a", "c"), ("d", "a")])).is_empty());
    let found = circle(arrows(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"), ("d", "e")]));
    assert_eq!(Vec::from_iter(found.into_keys()), ["b", "c", "d"]);
    let mut of_file = Arrows::new();
    let code = "use super::{b::B, c};\nfn f() { crate::ffi::d::g() }\n#[cfg(test)]\n\
                mod tests { use super::e; }";
    add_arrows(&mut of_file, "a.rs", code, "crate::ffi::");
    assert_eq!(of_file, arrows(&[("a", "b"), ("a", "c"), ("a", "d")]));
    let imports =
        python_imports("from .a import B\n    from . import c, d\nfrom ..e import F\nimport json");
    let imports: Vec<(&str, usize)> =
        imports.iter().map(|(name, levels)| (name.as_str(), *levels)).collect();
    assert_eq!(imports, [("a", 1), ("c", 1), ("d", 1), ("e", 2)]);
}

/// The compiler denies unsafe code in the crate; only `ffi` and `windows` may lift the denial.
#[test]
fn only_ffi_and_calls_of_windows_contain_unsafe_code() {
    let (ffi, rest): (Vec<_>, Vec<_>) = sources().into_iter().partition(|(path, _)| {
        path.starts_with("ffi/") || ["lib.rs", "windows.rs"].contains(&path.as_str())
    });
    assert!(ffi.len() > 5 && rest.len() > 20, "{} and {} files", ffi.len(), rest.len());
    for (path, code) in rest {
        assert!(!code.contains("unsafe"), "src/{path} has unsafe code");
    }
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(lib.contains("#![deny(unsafe_code)]"));
    let lines: Vec<&str> = lib.lines().filter(|line| line.contains("unsafe_code")).collect();
    let allowed = "#[allow(unsafe_code)]";
    assert_eq!(lines, ["#![deny(unsafe_code)]", allowed, allowed]);
    for module in ["ffi", "windows"] {
        assert!(lib.contains(&format!("{allowed}\nmod {module};")));
    }
    let emulator = fs::read_to_string(root().join("emulator/src/lib.rs")).unwrap();
    assert!(emulator.contains("#![forbid(unsafe_code)]"));
}

/// Destructors of the host may call the library after the destructors of its thread-local values,
/// which would then be unusable.
#[test]
fn thread_local_values_have_no_destructor() {
    let mut checked = 0;
    for (path, code) in sources() {
        if module_of(&path) == SIMULATION || path.ends_with("fuzzing.rs") {
            continue;
        }
        // Values of tests alone end with their tests.
        let code = code.replace("#[cfg(test)]\nthread_local!", "");
        for block in code.split("thread_local!").skip(1) {
            let declaration = block.split_once("static").unwrap().1;
            let kind = declaration.split_once(':').unwrap().1.trim_start();
            let is_plain = ["Cell<u", "Cell<Option<u", "usize", "ManuallyDrop<"]
                .iter()
                .any(|plain| kind.starts_with(plain));
            assert!(is_plain, "{path}: {}", kind.lines().next().unwrap());
            checked += 1;
        }
    }
    assert!(checked > 5, "{checked}");
}

#[test]
fn module_references_are_found_in_every_notation() {
    let code = "use crate::http::{Bucket, Response};\nuse crate::{\n    panic_scope,\n    \
                json::{read, write}, token::Token,\n};\n\
                fn f() -> crate::error::Result<()> { crate::random::bytes() }";
    let found = used_modules(code);
    assert_eq!(Vec::from_iter(found), ["error", "http", "json", "panic_scope", "random", "token"]);
    assert!(
        uses("libc::close(1)", "libc") && !uses("glibc::close(1)", "libc") && !uses("libc", "libc")
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of `src` by relative path, without comments.
fn sources() -> Vec<(String, String)> {
    let sources = code_below(&root().join("src"), "rs", "//");
    assert!(sources.len() > 40, "{} files", sources.len());
    sources
}

/// The files below a folder with this extension, by relative path, without comments.
fn code_below(folder: &Path, extension: &str, comment: &str) -> Vec<(String, String)> {
    fn collect(folder: &Path, wanted: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, wanted, found);
            } else if path.extension().is_some_and(|extension| extension == wanted) {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    collect(folder, extension, &mut paths);
    let read = |path: PathBuf| {
        let code = fs::read_to_string(&path).unwrap();
        let code: Vec<&str> =
            code.lines().map(|line| line.split(comment).next().unwrap()).collect();
        let name = path.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/");
        (name, code.join("\n"))
    };
    paths.into_iter().map(read).collect()
}

/// The modules that each module of a folder uses.
type Arrows = BTreeMap<String, BTreeSet<String>>;

fn add_arrow(arrows: &mut Arrows, file: &str, used: &str) {
    let module = file.split(['/', '.']).next().unwrap();
    if module != used {
        arrows.entry(module.to_owned()).or_default().insert(used.to_owned());
    }
}

/// Adds the modules of a folder that a file uses: through `super` if the file is directly in it,
/// and through the path of the folder. Tests are at the end of a file and may use everything.
fn add_arrows(arrows: &mut Arrows, file: &str, code: &str, prefix: &str) {
    if ["mod.rs", "lib.rs", "main.rs"].contains(&file) {
        return;
    }
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap();
    let mut used = modules_after(code, prefix);
    if file.trim_end_matches("/mod.rs").split('/').count() == 1 {
        used.extend(modules_after(code, "super::"));
    }
    used.iter().for_each(|used| add_arrow(arrows, file, used));
}

/// The modules of its package that a Python module imports, with the number of dots of each import.
fn python_imports(code: &str) -> Vec<(String, usize)> {
    let mut imports = Vec::new();
    for line in code.lines().filter_map(|line| line.trim().strip_prefix("from ")) {
        let name = line.trim_start_matches('.');
        let levels = line.len() - name.len();
        let Some((module, names)) = name.split_once(" import ").filter(|_| levels > 0) else {
            continue;
        };
        // `from . import a, b` names modules; `from .a import b` names an item of one.
        let modules = if module.is_empty() { names } else { module.split('.').next().unwrap() };
        imports.extend(modules.split(',').map(|name| (name.trim().to_owned(), levels)));
    }
    imports
}

/// The modules on a cycle, or on a path between two cycles.
fn circle(mut arrows: Arrows) -> Arrows {
    loop {
        let users = arrows.clone();
        let used: BTreeSet<&String> = users.values().flatten().collect();
        arrows.retain(|module, _| used.contains(module));
        for uses in arrows.values_mut() {
            uses.retain(|used| users.contains_key(used));
        }
        arrows.retain(|_, uses| !uses.is_empty());
        if arrows == users {
            return arrows;
        }
    }
}

/// The top-level module that a file belongs to.
fn module_of(path: &str) -> String {
    path.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
}

/// The top-level modules named in a piece of code: `crate::name`, and each name of `crate::{…}`.
fn used_modules(code: &str) -> BTreeSet<String> {
    modules_after(code, "crate::")
}

/// The modules named after a prefix: `prefix::name`, and each name of `prefix::{…}`.
fn modules_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, found) in code.match_indices(prefix) {
        let rest = &code[at + found.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            modules.extend(first_word(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                _ if begins && letter.is_ascii_lowercase() => {
                    modules.extend(first_word(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    modules
}

/// The name of a module, or nothing for a type such as `crate::Client`.
fn first_word(code: &str) -> Option<String> {
    let word: String =
        code.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '_').collect();
    (!word.is_empty()).then_some(word)
}

/// Whether code contains a path with this prefix.
fn uses(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        let whole =
            name.rsplit("::").next().is_some_and(|last| last.starts_with(char::is_uppercase));
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
            && (whole || after.starts_with("::"))
    })
}
