//! Runs the tests of the Python bindings with the library and the emulator of this build.

mod built;

use std::process::{Command, Output};
use std::sync::Mutex;
use std::{fs, thread};

/// How many modules run at the same time. They wait more than they compute.
const AT_ONCE: usize = 4;

#[test]
fn python_tests_pass() {
    let folder = format!("{}/bindings/python", built::ROOT);
    let files = fs::read_dir(format!("{folder}/tests")).unwrap().map(|entry| entry.unwrap());
    let mut modules: Vec<(u64, String)> = files
        .map(|file| (file.metadata().unwrap().len(), file.file_name().into_string().unwrap()))
        .filter(|(_, name)| name.starts_with("test_"))
        .collect();
    // The longest modules first: they are at the end of the list.
    modules.sort();
    assert!(!modules.is_empty(), "no Python test was found");
    let (waiting, failed) = (Mutex::new(modules), Mutex::new(Vec::new()));
    let (library, emulator) = (built::library(), built::emulator());
    let run = |module: &str| -> Output {
        let python = std::env::var("GHL_PYTHON").unwrap_or_else(|_| "python3".into());
        Command::new(python)
            .args(["-W", "error::ResourceWarning", "-m", "unittest", module])
            .current_dir(&folder)
            .env("PYTHONPATH", "src")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("GHL_OAUTH_LIBRARY", &library)
            .env("GHL_OAUTH_EMULATOR", &emulator)
            .output()
            .expect("python3 runs")
    };
    let work = || {
        loop {
            let next = waiting.lock().unwrap().pop();
            let Some((_, file)) = next else { return };
            let module = format!("tests.{}", file.trim_end_matches(".py"));
            let output = run(&module);
            let report = String::from_utf8_lossy(&output.stderr);
            println!("{module}\n{}{report}", String::from_utf8_lossy(&output.stdout));
            if !output.status.success() || report.contains("Ran 0 tests") {
                failed.lock().unwrap().push(module);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    assert_eq!(failed.into_inner().unwrap(), Vec::<String>::new(), "a Python test failed");
}
