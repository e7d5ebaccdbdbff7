//! Runs the tests of the Python bindings with the library and the emulator of this build.

mod built;

use std::process::Command;

#[test]
fn python_tests_pass() {
    let folder = format!("{}/bindings/python", built::ROOT);
    let python = std::env::var("GHL_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(python)
        .args([
            "-W",
            "error::ResourceWarning",
            "-m",
            "unittest",
            "discover",
            "--start-directory",
            "tests",
            "--top-level-directory",
            ".",
        ])
        .current_dir(&folder)
        .env("PYTHONPATH", "src")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("GHL_OAUTH_LIBRARY", built::library())
        .env("GHL_OAUTH_EMULATOR", built::emulator())
        .output()
        .expect("python3 runs");
    let report = String::from_utf8_lossy(&output.stderr);
    println!("{}{report}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "a Python test failed");
    assert!(!report.contains("Ran 0 tests"), "no Python test was found");
}
