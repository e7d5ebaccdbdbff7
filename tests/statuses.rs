//! The bindings contain every status of the table in `src/error/statuses.rs`.
//! `GHL_UPDATE_STATUSES=1` updates them.

use std::fs;
use std::path::Path;

#[path = "../src/error/statuses.rs"]
mod statuses;
use statuses::statuses;

struct Row {
    doc: &'static str,
    code: i32,
    name: &'static str,
    class: &'static str,
}

macro_rules! rows {
    ($(
        $(#[doc = $doc:literal])+
        $status:ident = $code:literal, $name:ident, $class:ident, retryable: $retryable:literal;
    )+) => {
        [$(Row {
            doc: concat!($($doc),+),
            code: $code,
            name: stringify!($name),
            class: stringify!($class),
        }),+]
    };
}

fn rows() -> impl Iterator<Item = Row> {
    statuses!(rows).into_iter()
}

impl Row {
    /// The name of the C++ enumerator: the C constant without its prefix.
    fn enumerator(&self) -> String {
        self.name["GHL_ERR_".len()..].to_ascii_lowercase()
    }

    /// The name in Python's `Status`.
    fn python_member(&self) -> &str {
        self.name.trim_start_matches("GHL_ERR_")
    }

    /// The name of the C++ class: the Python class in snake case.
    fn cpp_class(&self) -> String {
        let mut name = String::new();
        for letter in self.class.chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

/// Replaces the text between two lines of a file; the lines themselves stay.
fn replaced(text: &str, first: &str, last: &str, between: &str) -> String {
    let (before, rest) = text.split_once(first).unwrap_or_else(|| panic!("no {first:?}"));
    let end = rest.find(last).unwrap_or_else(|| panic!("no {last:?} after {first:?}"));
    format!("{before}{first}{between}{}", &rest[end..])
}

/// Compares a file with its expected text, or writes it if the variable is set.
fn hold(name: &str, expected: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let found = fs::read_to_string(&path).unwrap();
    let expected = expected(&found);
    if std::env::var_os("GHL_UPDATE_STATUSES").is_some() {
        fs::write(&path, &expected).unwrap();
    } else if found != expected {
        let missing: Vec<&str> = expected.lines().filter(|line| !found.contains(line)).collect();
        panic!(
            "{name} does not have the statuses of src/error/statuses.rs, in their order; missing: \
             {missing:#?}\n\
             run GHL_UPDATE_STATUSES=1 cargo test --test statuses"
        );
    }
}

#[test]
fn python_has_a_class_for_each_status() {
    hold("bindings/python/src/ghl_oauth/errors.py", |file| {
        let class = |row: Row| {
            // Python has an exception of its own for this one.
            let also = if row.class == "Timeout" { ", TimeoutError" } else { "" };
            let head = format!("class {}(GhlError{also}):\n    \"\"\"", row.class);
            // An existing docstring stays: it may tell a Python programmer more than the table
            // does.
            let kept = file.split_once(&head).and_then(|(_, rest)| rest.split_once("\"\"\""));
            let doc =
                kept.map_or_else(|| row.doc.trim().replace('`', "``"), |(doc, _)| doc.to_owned());
            format!(
                "{head}{doc}\"\"\"\n\n    code = Status.{}\n    status = \"{}\"\n\n\n",
                row.python_member(),
                row.name
            )
        };
        let classes: String = rows().map(class).collect();
        let first = "        return f\"{type(self).__name__}({str(self)!r})\"\n\n\n";
        let members: String =
            rows().map(|row| format!("    {} = {}\n", row.python_member(), row.code)).collect();
        let enumeration = "each equals its number.\"\"\"\n\n";
        let file = replaced(file, enumeration, "\n    def __str__", &members);
        replaced(&file, first, "_BY_STATUS = ", &classes)
    });
}

#[test]
fn python_exports_the_class_of_each_status() {
    hold("bindings/python/src/ghl_oauth/__init__.py", |file| {
        let mut file = file.to_owned();
        let quoted = |name: &str| format!("    \"{name}\",\n");
        let bare = |name: &str| format!("        {name},\n");
        for (first, last, line) in [
            ("    from .errors import (\n", "    )\n", &bare as &dyn Fn(&str) -> String),
            ("__all__ = [\n", "]\n", &quoted),
        ] {
            let present = file.split_once(first).unwrap().1.split_once(last).unwrap().0;
            let mut lines: Vec<String> = present.lines().map(|line| format!("{line}\n")).collect();
            lines.extend(rows().map(|row| line(row.class)));
            // Ruff's order: constants first.
            lines.sort_by_key(|line| (line.chars().any(char::is_lowercase), line.clone()));
            lines.dedup();
            file = replaced(&file, first, last, &lines.concat());
        }
        file
    });
}

#[test]
fn cpp_has_an_enumerator_and_a_class_for_each_status() {
    hold("bindings/cpp/ghl_oauth.hpp", |file| {
        let enumerators: String =
            rows().map(|row| format!("    {} = {},\n", row.enumerator(), row.name)).collect();
        let classes: String = rows()
            .map(|row| {
                format!("using {} = error_of<status::{}>;\n", row.cpp_class(), row.enumerator())
            })
            .collect();
        let file = replaced(file, "    ok = GHL_OK,\n", "};\n", &enumerators);
        let before = "public:\n    using error::error;\n};\n\n";
        replaced(&file, before, "\nnamespace detail {", &classes)
    });
}
