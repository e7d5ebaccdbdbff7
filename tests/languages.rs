//! The example in each language that loads the shared library: the main job over TLS, an error, an
//! event and a cancel; and readable errors for a wrong configuration and a missing library.
#![cfg(target_os = "linux")] // Uses Debian's packages and the loader's search path.

mod built;
mod support;

use std::env;
use std::ffi::{CStr, c_char, c_void};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::ptr;
use std::sync::Mutex;
use std::thread::{self, ThreadId};

use ghl_oauth::internals::ffi::ghl_set_log_callback;
use ghl_oauth_emulator::{Certificate, Decision, Emulator, Options};
use serde_json::{Value, json};
use support::{Abi, contains_none_of, free_port};

/// The prefix of every token of the emulator.
const ANY_TOKEN: &str = "eyJhbGciOiJ";

const PROMPT: &str = "Paste the URL to which the browser was redirected: ";

/// The longest example allowed, in lines.
const LINES: usize = 119;

/// A program that is ready to run.
struct Example {
    program: Command,
    /// The loader finds the library by this environment variable.
    library: &'static str,
    /// Part of the loader's error if the library is missing.
    missing: &'static str,
}

/// Whether a command is installed; says what to install otherwise.
fn is_installed(command: &[&str], language: &str, packages: &str) -> bool {
    let mut version = Command::new(command[0]);
    version.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let installed = version.status().is_ok_and(|status| status.success());
    if !installed {
        println!("skipped: the {language} example, which needs {packages}");
    }
    installed
}

/// The source of an example.
fn source(name: &str) -> PathBuf {
    Path::new(built::ROOT).join("examples").join(name)
}

/// An interpreter that gets the program and finds the library by `GHL_OAUTH_LIBRARY`.
fn script(interpreter: &str, program: &Path) -> Example {
    let mut command = Command::new(interpreter);
    command.arg(program).env("GHL_OAUTH_LIBRARY", built::library());
    Example { program: command, library: "GHL_OAUTH_LIBRARY", missing: "/nowhere" }
}

/// A compiled program that finds the library by the loader's search path.
fn compiled(mut program: Command, missing: &'static str) -> Example {
    program.env("LD_LIBRARY_PATH", built::folder());
    Example { program, library: "LD_LIBRARY_PATH", missing }
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs the program like a person: opens the link, consents, and pastes the URL.
fn consents(mut program: Command, emulator: &Emulator) -> Output {
    program.arg(emulator.configuration()).env("PORT", free_port().to_string());
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut read = String::new();
    stdout.read_line(&mut read).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    if let Some(link) = read.trim().strip_prefix("Open this link: ") {
        let company = Decision::Company(emulator.company_id());
        writeln!(stdin, "{}", emulator.consent(link, company).unwrap()).unwrap();
    }
    drop(stdin);
    stdout.read_to_string(&mut read).unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stdout = read.into_bytes();
    output
}

/// The output, and that it contains no secret.
fn said(output: &Output, secret: &str) -> (String, String) {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    contains_none_of(&out, &[secret, ANY_TOKEN]);
    contains_none_of(&err, &[secret, ANY_TOKEN]);
    (out.into_owned(), err.into_owned())
}

/// Runs the example in every way.
fn passes(example: impl Fn() -> Example) {
    does_the_main_job(example().program);
    let wrong = "{\"clientId\": \"app-1\", \"clientSecret\": \"a-secret-of-the-app\", \
                 \"baseUrl\": \"http://api.example\"}";
    let output = example().program.arg(wrong).output().unwrap();
    let (_, err) = said(&output, "a-secret-of-the-app");
    assert!(!output.status.success());
    for part in ["GHL_ERR_CONFIG", "baseUrl cannot be used", "http.allowInsecureHttp"] {
        assert!(err.contains(part), "the error of the configuration lacks {part}:\n{err}");
    }

    let Example { mut program, library, missing } = example();
    let output = program.arg(wrong).env(library, "/nowhere").output().unwrap();
    let (_, err) = said(&output, "a-secret-of-the-app");
    assert!(!output.status.success());
    assert!(err.contains(missing), "the loader's error does not name {missing}:\n{err}");
}

fn does_the_main_job(program: Command) {
    let folder = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(Options {
        tls: Some(Certificate::Good),
        ca_file: Some(folder.path().join("ca.pem")),
        locations: 3,
        ..Options::default()
    });
    let emulator = emulator.unwrap();
    let output = consents(program, &emulator);
    let (out, err) = said(&output, emulator.client_secret());
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert_eq!(err, "", "{out}");

    let text = out.replace(PROMPT, "");
    let (events, lines): (Vec<&str>, Vec<&str>) =
        text.lines().skip(1).partition(|line| line.starts_with("event: "));
    let [company, location] = [emulator.company_id(), emulator.location_ids()[0].clone()];
    assert_eq!(lines.len(), 5, "{out}");
    assert_eq!(lines[0], format!("connected: Company {company}"));
    let length = lines[1].strip_prefix("token of ").and_then(|rest| rest.split(' ').next());
    assert!(length.unwrap().parse::<usize>().unwrap() > 100, "{out}");
    assert_eq!(lines[2], format!("{location}: HTTP 200"));
    // C# writes True and False.
    let error = "error: GHL_ERR_FORBIDDEN, retryable: false, sent: true";
    assert!(lines[3].eq_ignore_ascii_case(error), "{out}");
    assert_eq!(lines[4], "cancelled: GHL_ERR_CANCELLED");

    let heard: Vec<Value> =
        events.iter().map(|line| serde_json::from_str(&line["event: ".len()..]).unwrap()).collect();
    let has = |kind: &str, id: &str| {
        heard.iter().any(|event| event["type"] == kind && event["resourceId"] == id)
    };
    assert!(has("token.saved", &company) && has("token.minted", &location), "{out}");
}

/// LuaJIT, PHP and Ruby crash when a thread that they do not know calls back.
#[test]
fn callbacks_run_on_the_calling_thread_during_lookups_mints_and_refreshes() {
    static LOGGED: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());
    unsafe extern "C" fn log(_level: i32, message: *const c_char, _context: *mut c_void) {
        // SAFETY: the library passes a string.
        let message = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
        LOGGED.lock().unwrap().push((thread::current().id(), message));
    }
    let emulator = support::emulator(20);
    // A name, so that it is looked up.
    let base_url = emulator.base_url().replace("127.0.0.1", "localhost");
    let abi = Abi::with(&emulator, json!({"baseUrl": base_url}));
    let here = thread::current().id();
    let heard = abi.listen_with(move |_| assert_eq!(thread::current().id(), here));
    // SAFETY: a function of this type.
    assert_eq!(unsafe { ghl_set_log_callback(Some(log), ptr::null_mut(), 5) }, 0);

    let company = abi.connect_company(&emulator);
    let params = json!({"companyId": company, "installed": true, "concurrency": 8});
    assert_eq!(abi.tokens_mint(params, |_| true).ok()["minted"], 20);
    abi.token_refresh(&company).ok();
    let maintained = abi.tokens_maintain(json!({"concurrency": 8}), |_| true).ok();
    assert_eq!(maintained["failed"], json!([]));
    assert!(heard.events().len() >= 22);

    // SAFETY: NULL removes the callback.
    unsafe { ghl_set_log_callback(None, ptr::null_mut(), 0) };
    let logged = LOGGED.lock().unwrap();
    assert!(logged.len() > 40, "{logged:?}");
    let elsewhere: Vec<_> = logged.iter().filter(|(thread, _)| *thread != here).collect();
    assert!(elsewhere.is_empty(), "logged on another thread: {elsewhere:?}");
}

#[test]
fn node_example_passes() {
    let installed =
        env::var_os("GHL_NODE_MODULES").map_or_else(|| source("node/node_modules"), PathBuf::from);
    if !is_installed(&["node", "--version"], "Node.js", "node (apt-get install nodejs)") {
        return;
    }
    if !installed.join("koffi").exists() {
        println!("skipped: the Node.js example, which needs koffi (cd examples/node; npm install)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["quickstart.js", "package.json"] {
        fs::copy(source("node").join(name), folder.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink(installed, folder.path().join("node_modules")).unwrap();
    passes(|| script("node", &folder.path().join("quickstart.js")));
}

#[test]
fn go_example_passes() {
    if !is_installed(&["go", "version"], "Go", "go (apt-get install golang-go)") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("quickstart");
    built::library();
    let mut build = Command::new("go");
    build.arg("build").arg("-o").arg(&program).current_dir(source("go"));
    // Kept between runs, because the first build also compiles Go's standard library.
    build.env("GOCACHE", built::folder().join("go-cache"));
    build.env("GOPROXY", "off").env("CGO_CFLAGS", format!("-I{}/include", built::ROOT));
    build.env("CGO_LDFLAGS", format!("-L{}", built::folder().display()));
    succeeds(&mut build);
    passes(|| compiled(Command::new(&program), "libghl_oauth"));
}

#[test]
fn java_example_passes() {
    let needed = "Java 17 (apt-get install openjdk-17-jdk-headless libjna-java \
                  libgoogle-gson-java)";
    let jars = ["/usr/share/java/jna.jar", "/usr/share/java/gson.jar"];
    let has_jars = jars.iter().all(|jar| Path::new(jar).exists());
    let java = if has_jars { "javac" } else { "no-javac-without-jars" };
    if !is_installed(&[java, "--version"], "Java", needed) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut compile = Command::new("javac");
    compile
        .args(["-Xlint:all,-serial", "-Werror", "-cp", &jars.join(":"), "-d"])
        .arg(folder.path());
    succeeds(compile.arg(source("java/Quickstart.java")));
    let classes = format!("{}:{}", folder.path().display(), jars.join(":"));
    passes(|| {
        let mut example = script("java", Path::new("Quickstart"));
        example.program.env("CLASSPATH", &classes);
        example
    });
}

#[test]
fn csharp_example_passes() {
    let needed = "Mono (apt-get install mono-mcs mono-runtime libmono-system-json4.0-cil)";
    if !is_installed(&["mcs", "--version"], "C#", needed) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("quickstart.exe");
    let mut compile = Command::new("mcs");
    compile.args(["-langversion:latest", "-warnaserror", "-r:System.Json"]);
    compile.arg(format!("-out:{}", program.display())).arg(source("csharp/Quickstart.cs"));
    succeeds(&mut compile);
    passes(|| {
        let mut mono = Command::new("mono");
        // Frees every delegate that nothing refers to.
        mono.env("MONO_GC_DEBUG", "collect-before-allocs").arg(&program);
        compiled(mono, "ghl_oauth")
    });
}

#[test]
fn ruby_example_passes() {
    if !is_installed(&["ruby", "--version"], "Ruby", "ruby (apt-get install ruby)") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let compaction = folder.path().join("compaction.rb");
    // Moves every object that is not pinned, all the time.
    fs::write(&compaction, "Thread.new { loop { GC.compact; sleep 0.002 } }\n").unwrap();
    passes(|| {
        let mut example = script("ruby", &source("ruby/quickstart.rb"));
        example.program.env("RUBYOPT", format!("-w -r{}", compaction.display()));
        example
    });
}

#[test]
fn php_example_passes() {
    let needed = "PHP 8.1 or newer with FFI (apt-get install php-cli)";
    if is_installed(&["php", "-r", "FFI::cdef('');"], "PHP", needed) {
        passes(|| script("php", &source("php/quickstart.php")));
    }
}

#[test]
fn lua_example_passes() {
    let needed = "LuaJIT (apt-get install luajit lua-cjson)";
    if is_installed(&["luajit", "-e", "require 'cjson'"], "Lua", needed) {
        passes(|| script("luajit", &source("lua/quickstart.lua")));
    }
}

#[test]
fn example_of_each_language_is_short_and_documented() {
    let page = fs::read_to_string(Path::new(built::ROOT).join("docs/languages.md")).unwrap();
    let readme = fs::read_to_string(source("README.md")).unwrap();
    for name in [
        "node/quickstart.js",
        "go/quickstart.go",
        "java/Quickstart.java",
        "csharp/Quickstart.cs",
        "ruby/quickstart.rb",
        "php/quickstart.php",
        "lua/quickstart.lua",
    ] {
        let lines = fs::read_to_string(source(name)).unwrap().lines().count();
        assert!(lines <= LINES, "{name} has {lines} lines");
        assert!(page.contains(name), "docs/languages.md does not link {name}");
        assert!(readme.contains(name), "examples/README.md does not link {name}");
    }
}
