//! C programs: compiled like user code with all warnings as errors, and run against an emulator,
//! also under valgrind if installed.
#![cfg(unix)] // Uses options of Unix compilers.

mod built;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use built::{C99, compiler, program};
use ghl_oauth_emulator::{Emulator, Endpoint, FaultKind, Notice, Options, Rule, Signature, Stage};
use serde_json::{Value, json};

use support::{Abi, person};

fn passes(mut program: Command, what: &str) -> String {
    // The search path of Cargo may contain the library of an older build.
    program.env("LD_LIBRARY_PATH", built::folder());
    let output = program.output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

fn plainly(program: &Path, arguments: &[&str]) {
    let mut run = Command::new(program);
    run.args(arguments);
    passes(run, &program.display().to_string());
}

/// Neither an invalid access nor a possible leak.
fn under_valgrind(program: &Path, arguments: &[&str]) {
    if let Some(mut run) = valgrind(program) {
        run.args(arguments);
        passes(run, &format!("{} under valgrind", program.display()));
    }
}

/// The program under valgrind, if installed.
fn valgrind(program: &Path) -> Option<Command> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: {} under valgrind, which is not installed", program.display());
        return None;
    }
    let mut run = Command::new("valgrind");
    run.args([
        "--quiet",
        "--error-exitcode=9",
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect,possible",
        "--errors-for-leak-kinds=definite,indirect,possible",
        "--suppressions=tests/abi/valgrind.supp",
    ]);
    run.arg(program).current_dir(built::ROOT);
    Some(run)
}

/// Input of misuse.c and threads.c: a configuration, due tokens, and their resources with the
/// company first.
fn due_tokens(emulator: &Emulator) -> Vec<String> {
    let client = Abi::new(emulator);
    let mut resources = vec![client.connect_company(emulator)];
    for location_id in emulator.location_ids() {
        client.live_token(emulator, &location_id);
        resources.push(location_id);
    }
    let mut tokens: Value = client.tokens_export(json!({})).ok();
    for token in tokens["tokens"].as_array_mut().unwrap() {
        token["expiresAt"] = 1.into();
    }
    [emulator.configuration(), tokens.to_string()].into_iter().chain(resources).collect()
}

/// Runs a program twice, each time with its own tokens, because a refresh token is valid once.
fn run_with_and_without_valgrind(source: &str) {
    let folder = tempfile::tempdir().unwrap();
    let program = program(source, folder.path());
    for run in [plainly, under_valgrind] {
        let emulator = Emulator::start(Options { locations: 3, ..Options::default() }).unwrap();
        let arguments = due_tokens(&emulator);
        run(&program, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn misuse_is_refused_without_damage() {
    run_with_and_without_valgrind("tests/abi/misuse.c");
}

#[test]
fn misuse_test_covers_every_function() {
    let header = fs::read_to_string(Path::new(built::ROOT).join("include/ghl_oauth.h")).unwrap();
    let misuse = fs::read_to_string(Path::new(built::ROOT).join("tests/abi/misuse.c")).unwrap();
    let declared = header.lines().filter(|line| !line.starts_with([' ', '*', '/', '#']));
    let names: Vec<&str> = declared
        .filter_map(|line| line.split_once("(")?.0.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("ghl_"))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(misuse.contains(name), "{name} is not covered");
    }
}

#[test]
fn eight_threads_share_a_client() {
    run_with_and_without_valgrind("tests/abi/threads.c");
}

#[test]
fn header_compiles_as_c99_and_cpp11() {
    for (standard, language) in
        [(C99, "c"), ("-std=c11", "c"), ("-std=c++11", "c++"), ("-std=c++17", "c++")]
    {
        let mut compile = compiler(if language == "c" { C99 } else { standard });
        compile.args([standard, "-x", language, "-fsyntax-only", "include/ghl_oauth.h"]);
        if language == "c++" {
            // Included twice, as by two headers of a host.
            compile.args([
                "-include",
                "include/ghl_oauth.h",
                "-include",
                "bindings/c/ghl_oauth_typed.h",
            ]);
        }
        match compile.arg("-Wno-pragma-once-outside-header").stderr(Stdio::inherit()).status() {
            Ok(status) => assert!(status.success(), "{standard}"),
            Err(error) => {
                println!("skipped: {standard}, C++ compiler does not start ({error}); install g++")
            }
        }
    }
}

#[test]
fn c_program_goes_through_the_whole_flow() {
    let emulator = Emulator::start(Options { locations: 5, ..Options::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = program("tests/abi/typed.c", folder.path());
    let person = format!("python3 {}", person(&emulator, folder.path()).display());
    let install = emulator.webhook(&Notice::Install(emulator.location_ids()[0].clone()));
    let headers = support::signed(&emulator, install.as_bytes(), Signature::Ed25519);
    let signature = headers["x-ghl-signature"].as_str().unwrap();
    for run in [plainly, under_valgrind] {
        let database = folder.path().join("tokens.db");
        let database = database.to_str().unwrap();
        run(&program, &[&emulator.configuration(), &person, signature, &install, database]);
    }
}

#[test]
fn every_parameter_of_the_typed_calls_reaches_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let program = program("tests/abi/typed_parameters.c", folder.path());
    for mut run in [Some(Command::new(&program)), valgrind(&program)].into_iter().flatten() {
        let elsewhere = "https://app.example/elsewhere";
        let redirect_uris =
            ["https://app.example/oauth/callback", elsewhere].map(str::to_owned).to_vec();
        let options = Options {
            redirect_uris,
            allow_loopback_redirects: true,
            require_version_id: true,
            ..Options::default()
        };
        let emulator = Emulator::start(options).unwrap();
        let refusal = FaultKind::Status {
            status: 429,
            body: r#"[1e400,{"b":1.0,"a":2}]"#.to_owned(),
            content_type: Some("application/json".to_owned()),
            headers: ["a=1, 2", "b=\"3\""].map(|one| ("Set-Cookie".into(), one.into())).to_vec(),
            stage: Stage::BeforeProcessing,
        };
        let refusal = emulator.inject(Rule::on(Endpoint::Location), refusal);
        let person = format!("python3 {}", person(&emulator, folder.path()).display());
        let port = support::free_port();
        let here = format!("http://127.0.0.1:{port}/back");
        run.args([&emulator.configuration(), &person, elsewhere, &here, emulator.version_id()]);
        let mut run =
            run.env("LD_LIBRARY_PATH", built::folder()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map(Result::unwrap);

        let link = support::query(&lines.next().unwrap());
        for (name, value) in [
            ("redirect_uri", elsewhere),
            ("version_id", emulator.version_id()),
            ("state", "kept by the host"),
            ("loginWindowOpenMode", "self"),
        ] {
            assert_eq!(link[name], value, "{name}");
        }
        let link = support::query(&lines.next().unwrap());
        assert_eq!(link["redirect_uri"], here);
        assert!(!link.contains_key("loginWindowOpenMode"), "{link:?}");
        let redirect_url = lines.next().unwrap();
        let (host, target) = redirect_url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut browser = loop {
            match TcpStream::connect(host) {
                Ok(browser) => break browser,
                Err(_) => assert!(
                    run.try_wait().unwrap().is_none(),
                    "the program exited before it listened"
                ),
            }
            thread::yield_now();
        };
        write!(browser, "GET /{target} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        assert_eq!(lines.next().unwrap(), "passed");
        assert!(run.wait().unwrap().success());
        assert_eq!(emulator.strikes(refusal), 1);

        let requests = emulator.requests();
        let to = |path: &str| -> Vec<_> {
            requests.iter().filter(|request| request.path == path).map(support::fields).collect()
        };
        let [elsewhere_code, here_code, credentials] = &to("/oauth/token")[..] else {
            panic!("{requests:?}")
        };
        for (code, redirect_uri) in [(elsewhere_code, elsewhere), (here_code, here.as_str())] {
            assert_eq!(
                (code["redirectUri"].as_str(), code["userType"].as_str()),
                (redirect_uri, "Company")
            );
        }
        assert_eq!(
            (credentials["clientId"].as_str(), credentials["clientSecret"].as_str()),
            ("an id", "a secret")
        );
        let [filtered, other] = &to("/oauth/installed-locations")[..] else {
            panic!("{requests:?}")
        };
        for (name, value) in [
            ("appId", "an app"),
            ("query", "a name"),
            ("locationId", "a location"),
            ("versionId", "a version"),
            ("planId", "a plan"),
            ("isInstalled", "true"),
            ("onTrial", "false"),
            ("restrictToUserLocations", "true"),
        ] {
            assert_eq!(filtered[name], value, "{name}");
        }
        assert_eq!((other["isInstalled"].as_str(), other["onTrial"].as_str()), ("false", "true"));
        assert!(!other.contains_key("restrictToUserLocations"), "{other:?}");
        let given = ["/oauth/installed-locations", "/oauth/location-token"].map(|path| {
            let request = requests.iter().find(|request| request.path == path).unwrap();
            support::header(request, "authorization") == Some("Bearer given")
        });
        assert_eq!(given, [true, true]);

        let whole = b"\0???>>>\xC3\xA9";
        let posts: Vec<_> = requests.iter().filter(|request| request.path == "/nowhere").collect();
        assert_eq!(posts.len(), whole.len() + 1);
        for (count, post) in posts.iter().enumerate() {
            assert_eq!(post.query, "first=0&a+b=1&a+b=%222%22&c=%26&c=");
            assert_eq!(post.body, String::from_utf8_lossy(&whole[whole.len() - count..]));
            assert_eq!(support::header(post, "content-type"), Some("application/octet-stream"));
        }
    }
}

#[test]
fn locations_listed_without_an_id_are_skipped_in_c() {
    let emulator = Emulator::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = program("tests/abi/odd_locations.c", folder.path());
    for last in
        [json!({"hasNextPage": false, "nextPageToken": "left over"}), json!({"nextPageToken": ""})]
    {
        emulator.clear_faults();
        support::list_locations(&emulator, &support::odd_locations(), &last);
        for run in [plainly, under_valgrind] {
            run(&program, &[&emulator.configuration()]);
        }
    }
}

#[test]
fn typed_response_tells_a_string_from_another_value() {
    let emulator = Emulator::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = program("tests/abi/typed_body.c", folder.path());
    let config = emulator.configuration();
    for run in [plainly, under_valgrind] {
        let mut arguments = vec![config.as_str()];
        for (body, expected, kind) in [
            ("\"42\"", "42", "string"),
            ("42", "42", "value"),
            ("\"\"", "", "string"),
            ("null", "null", "value"),
            ("\"null\"", "null", "string"),
            ("[1]", "[1]", "value"),
        ] {
            emulator.inject(
                Rule::on(Endpoint::Any).times(1),
                FaultKind::Status {
                    status: 200,
                    body: body.to_owned(),
                    content_type: Some("application/json".to_owned()),
                    headers: Vec::new(),
                    stage: Stage::BeforeProcessing,
                },
            );
            arguments.extend([expected, kind]);
        }
        run(&program, &arguments);
    }
}

#[test]
fn unreadable_tokens_are_in_the_failed_lists_of_typed_pages() {
    let folder = tempfile::tempdir().unwrap();
    let program = program("tests/abi/unreadable.c", folder.path());
    for run in [plainly, under_valgrind] {
        let folder = tempfile::tempdir().unwrap();
        run(&program, &[&support::one_unreadable_token(folder.path())]);
    }
}

#[test]
fn example_connects_and_visits_every_location() {
    let emulator = Emulator::start(Options { locations: 12, ..Options::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = program("examples/c/quickstart.c", folder.path());
    let script = support::driver(folder.path());
    let mut run = Command::new("python3");
    run.arg(&script)
        .arg(&program)
        .arg(emulator.configuration())
        .arg(person(&emulator, folder.path()));
    let out = passes(run, "quickstart.c");
    for location_id in emulator.location_ids() {
        assert!(out.contains(&location_id), "{location_id} was not visited:\n{out}");
    }
    assert!(out.contains(&format!("connected: Company {}", emulator.company_id())), "{out}");

    let mut wrong = Command::new(&program);
    support::reports_an_insecure_url(wrong.env("LD_LIBRARY_PATH", built::folder()));
}

/// Several processes share a folder of files that the C program manages, sealed and in plain text.
#[test]
fn folder_store_shared_by_processes_loses_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let program = program("examples/c/folder_store.c", folder.path());
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    for store in
        [json!({"kind": "callbacks"}), json!({"kind": "callbacks", "encryptionKeys": [key]})]
    {
        // Each token is due at once, so every call refreshes or uses the token of another process.
        let emulator = Emulator::start(Options {
            locations: 2,
            access_token_seconds: 1,
            ..Options::default()
        })
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let is_sealed = store.get("encryptionKeys").is_some();
        let config = support::config(&emulator, json!({"store": store})).to_string();
        let command = |run: &mut Command, words: &[&str]| {
            run.arg(&config).arg(folder.path()).args(words).env("LD_LIBRARY_PATH", built::folder());
            run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        };
        let run = |words: &[&str]| {
            let output = command(&mut Command::new(&program), words).wait_with_output().unwrap();
            (
                output.status.success(),
                String::from_utf8(output.stdout).unwrap().trim_end().to_owned(),
            )
        };
        let mut connecting = command(&mut Command::new(&program), &["connect"]);
        let mut lines = BufReader::new(connecting.stdout.take().unwrap()).lines();
        let link = lines.next().unwrap().unwrap();
        let link = link.strip_prefix("Open this link: ").unwrap();
        let company = emulator.company_id();
        let redirect =
            emulator.consent(link, ghl_oauth_emulator::Decision::Company(company.clone())).unwrap();
        writeln!(connecting.stdin.take().unwrap(), "{redirect}").unwrap();
        assert!(lines.next().unwrap().unwrap().contains(&company));
        assert!(connecting.wait().unwrap().success());

        let asking: Vec<Child> =
            (0..4).map(|_| command(&mut Command::new(&program), &["token", &company])).collect();
        for child in asking {
            assert!(child.wait_with_output().unwrap().status.success());
        }
        if let Some(mut run) = valgrind(&program) {
            assert!(command(&mut run, &["maintain"]).wait_with_output().unwrap().status.success());
            let mut run = valgrind(&program).unwrap();
            assert!(command(&mut run, &["list"]).wait_with_output().unwrap().status.success());
        }
        let (done, list) = run(&["list"]);
        assert!(done && list.contains("\"state\":\"ok\""), "{list}");
        for file in fs::read_dir(folder.path()).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(!is_sealed || !text.contains("refreshToken"), "in clear: {text}");
        }
        assert!(run(&["token", &emulator.location_ids()[0]]).0);
        assert!(run(&["delete", &company]).0);
        assert!(!run(&["delete", &company]).0, "the record is deleted");
    }
}

/// The agency server with its input and its output.
struct Server {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts it for a connected company and waits until its locations are minted.
    fn start(mut run: Command, emulator: &Emulator, folder: &Path) -> Server {
        let config = stored(emulator, folder);
        Abi::open(&config).unwrap().connect_company(emulator);
        let file = folder.join("config.json");
        fs::write(&file, config.to_string()).unwrap();
        run.arg(file).env("LD_LIBRARY_PATH", built::folder());
        run.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("log")).unwrap());
        let mut child = run.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut server = Server { input: child.stdin.take().unwrap(), output, child };
        let minted = server.answer();
        assert!(minted.starts_with(&format!("minted for {}: ", emulator.company_id())), "{minted}");
        server
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// The next line of its output.
    fn answer(&mut self) -> String {
        self.output.next().expect("the program has exited").unwrap()
    }

    /// Passes a webhook to the server and returns its response.
    fn webhook(&mut self, emulator: &Emulator, notice: &Notice, signature: Signature) -> String {
        let body = emulator.webhook(notice);
        let headers = support::signed(emulator, body.as_bytes(), signature);
        self.tell(&format!(
            "webhook {} {}",
            body.len(),
            headers["x-ghl-signature"].as_str().unwrap()
        ));
        self.tell(&body);
        self.answer()
    }
}

fn ended_well(mut child: Child, folder: &Path) {
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {}", fs::read_to_string(folder.join("log")).unwrap());
}

/// A configuration with a store in the folder and a deadline longer than the patience of a test.
fn stored(emulator: &Emulator, folder: &Path) -> Value {
    let store = json!({"kind": "sqlite", "path": folder.join("tokens.db")});
    support::config(emulator, json!({"store": store, "timeouts": {"totalMs": 120_000}}))
}

/// Runs the agency server twice, each time with another company that has this number of locations.
fn run_agency_server(locations: usize, check: impl Fn(Server, &Emulator, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    let program = program("examples/c/agency_server.c", folder.path());
    for run in [Some(Command::new(&program)), valgrind(&program)].into_iter().flatten() {
        let emulator = Emulator::start(Options { locations, ..Options::default() }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        check(Server::start(run, &emulator, folder.path()), &emulator, folder.path());
    }
}

#[test]
fn agency_server_applies_webhooks_and_visits_every_location() {
    run_agency_server(24, |mut server, emulator, folder| {
        let locations = emulator.location_ids();
        let (gone, back) = (&locations[0], &locations[1]);
        let uninstall = Notice::Uninstall(gone.clone());
        let forged = server.webhook(emulator, &uninstall, Signature::Wrong);
        assert_eq!(forged, "401 GHL_ERR_SIGNATURE_INVALID");
        server.tell(&format!("visit {gone}"));
        assert_eq!(server.answer(), format!("visited {gone}: 200"));
        for id in [gone, back] {
            emulator.uninstall(id);
            let uninstall = Notice::Uninstall(id.clone());
            assert_eq!(
                server.webhook(emulator, &uninstall, Signature::Ed25519),
                "200 UNINSTALL applied"
            );
        }
        // Later by the clock of the emulator, independent of the real time.
        emulator.clock().advance(Duration::from_secs(1));
        emulator.install_location(back);
        let install = Notice::Install(back.clone());
        assert_eq!(server.webhook(emulator, &install, Signature::Both), "200 INSTALL applied");

        emulator.clear_requests();
        server.tell("visit all");
        let mut expected: Vec<String> =
            locations[1..].iter().map(|id| format!("visited {id}: 200")).collect();
        let mut visits: Vec<String> = expected.iter().map(|_| server.answer()).collect();
        visits.sort();
        expected.sort();
        assert_eq!(visits, expected);
        assert_eq!(emulator.requests().len(), 23, "every token was stored");

        // The end of the input follows at once: queued work is still finished.
        server.tell("visit all");
        let Server { child, input, output } = server;
        drop(input);
        let mut rest: Vec<String> = output.map(Result::unwrap).collect();
        let summary = rest.pop().unwrap();
        rest.sort();
        assert_eq!(rest, expected);
        assert!(summary.starts_with("visited 47, failed 1, cancelled 0; "), "{summary}");
        assert!(summary.ends_with("consents needed 0"), "{summary}");
        ended_well(child, folder);

        let held = Abi::open(&stored(emulator, folder))
            .unwrap()
            .tokens_list(json!({"pageSize": 1000}))
            .ok();
        let holds = |id: &str| {
            held["items"].as_array().unwrap().iter().any(|item| item["resourceId"] == id)
        };
        assert!(holds(back) && !holds(gone), "{held}");
    });
}

#[test]
fn signal_ends_the_agency_server_during_its_calls() {
    run_agency_server(24, |mut server, emulator, folder| {
        let hold = emulator.hold(Rule::on(Endpoint::Location), Stage::BeforeProcessing);
        server.tell("visit all");
        hold.wait_for(16);
        let kill = Command::new("kill").args(["-TERM", &server.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        // Its input stays open and its requests get no response.
        let Server { child, input, output } = server;
        let (ended, rest) = mpsc::channel();
        thread::spawn(move || ended.send(output.map(Result::unwrap).collect::<Vec<_>>()));
        let rest = rest.recv_timeout(Duration::from_secs(60)).expect("it ends");
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert!(rest[0].starts_with("visited 0, failed 0, cancelled 16; "), "{rest:?}");
        ended_well(child, folder);
        drop(input);
        hold.release();

        let abi = Abi::open(&stored(emulator, folder)).unwrap();
        for location in emulator.location_ids() {
            abi.live_token(emulator, &location);
        }
    });
}

/// The gateway with its address.
struct Gateway {
    child: Child,
    address: String,
}

impl Gateway {
    /// Starts it. A shutdown cancels the requests in progress after `grace`.
    fn start(mut run: Command, config: &Path, grace: &str) -> Gateway {
        run.arg(config).args(["0", grace]).env("LD_LIBRARY_PATH", built::folder());
        let log = fs::File::create(config.with_file_name("log")).unwrap();
        let mut child = run.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect(&line).to_owned();
        Gateway { child, address }
    }

    /// The response to a request.
    fn ask(&self, request: &str, headers: &str, body: &str) -> String {
        ask(&self.address, request, headers, body)
    }

    fn token(&self, tenant: &str) -> String {
        self.ask("GET /token", &format!("x-tenant: {tenant}\r\n"), "")
    }
}

fn ask(address: &str, request: &str, headers: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!("{request} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n");
    // In two parts, which the gateway puts together.
    let (first, second) = head.split_at(head.len() / 2);
    socket.write_all(first.as_bytes()).unwrap();
    socket.write_all(format!("{second}{body}").as_bytes()).unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).unwrap();
    response
}

fn bearer(response: &str) -> &str {
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    response.split_once("Authorization: Bearer ").unwrap().1.lines().next().unwrap()
}

#[test]
fn gateway_serves_tenants_while_others_wait_and_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let program = program("examples/c/gateway.c", folder.path());
    let runs = [
        Some((Command::new(&program), "600")),
        Some((Command::new(&program), "0")),
        valgrind(&program).map(|run| (run, "600")),
    ];
    for (run, grace) in runs.into_iter().flatten() {
        let emulator = Emulator::start(Options { locations: 6, ..Options::default() }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = stored(&emulator, folder.path());
        let company = Abi::open(&config).unwrap().connect_company(&emulator);
        let file = folder.path().join("config.json");
        fs::write(&file, config.to_string()).unwrap();
        let gateway = Gateway::start(run, &file, grace);
        let locations = emulator.location_ids();

        for tenant in [&company, &locations[0], &company, &locations[0]] {
            assert!(emulator.access_token_is_live(bearer(&gateway.token(tenant))), "{tenant}");
        }
        let unknown = gateway.token("nobody");
        assert!(unknown.starts_with("HTTP/1.1 403 "), "{unknown}");
        assert!(unknown.contains("X-Error: GHL_ERR_FORBIDDEN\r\n"), "{unknown}");
        assert!(gateway.ask("GET /elsewhere", "", "").starts_with("HTTP/1.1 404 "));
        assert!(gateway.ask("GET /token", "", "").starts_with("HTTP/1.1 400 "));

        let deliver = |notice: &Notice, signature| {
            let body = emulator.webhook(notice);
            let headers = support::signed(&emulator, body.as_bytes(), signature);
            let signature = headers["x-ghl-signature"].as_str().unwrap();
            let headers = format!("Host: gateway\r\nX-GHL-Signature: {signature}\r\n");
            gateway.ask("POST /webhooks", &headers, &body)
        };
        emulator.uninstall(&locations[0]);
        let uninstall = Notice::Uninstall(locations[0].clone());
        let forged = deliver(&uninstall, Signature::Wrong);
        assert!(forged.starts_with("HTTP/1.1 401 "), "{forged}");
        let applied = deliver(&uninstall, Signature::Ed25519);
        assert!(applied.contains("\r\nX-Applied: yes\r\n"), "{applied}");
        let gone = gateway.token(&locations[0]);
        assert!(!gone.starts_with("HTTP/1.1 200 "), "{gone}");

        // While a mint waits for the API, tokens in memory are handed out, and other mints start.
        let hold = emulator.hold(Rule::on(Endpoint::LocationToken), Stage::BeforeProcessing);
        let waiting: Vec<_> = locations[1..3]
            .iter()
            .map(|tenant| {
                let (address, tenant) = (gateway.address.clone(), tenant.clone());
                let headers = format!("X-Tenant: {tenant}\r\n");
                thread::spawn(move || ask(&address, "GET /token", &headers, ""))
            })
            .collect();
        hold.wait_for(2);
        bearer(&gateway.token(&company));

        let pid = gateway.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        while TcpStream::connect(&gateway.address).is_ok() {}
        if grace == "0" {
            for answer in waiting {
                let answer = answer.join().unwrap();
                assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
                assert!(answer.contains("X-Error: GHL_ERR_CANCELLED\r\n"), "{answer}");
            }
            hold.release();
        } else {
            hold.release();
            for answer in waiting {
                assert!(emulator.access_token_is_live(bearer(&answer.join().unwrap())));
            }
        }
        ended_well(gateway.child, folder.path());
    }
}

/// Blocking functions of the Rust standard library, by the end of their symbol names.
const WAITING: [(&str, &str); 6] = [
    ("MUTEX_LOCK", "5Mutex14lock_contended"),
    ("RWLOCK_READ", "6RwLock14read_contended"),
    ("RWLOCK_WRITE", "6RwLock15write_contended"),
    ("CONDVAR_WAIT", "3sys4sync7condvar5futexNtB2_7Condvar4wait"),
    ("CONDVAR_WAIT_TIMEOUT", "3sys4sync7condvar5futexNtB2_7Condvar12wait_timeout"),
    ("ONCE_CALL", "3sys4sync4once5futexNtB5_4Once4call"),
];

/// A program and the static library, both compiled for ThreadSanitizer.
fn sanitized(source: &str, definition: &str, library: &Path, folder: &Path) -> PathBuf {
    let output = |mut command: Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let mut list = Command::new("nm");
    list.arg("--undefined-only").arg(library);
    let symbols = output(list);
    let mut wrapped = vec!["__tsan_atomic64_fetch_sub".to_owned()];
    let mut shim = compiler(C99);
    for (name, ending) in WAITING {
        let symbol = symbols.lines().find_map(|line| {
            line.split_whitespace().last().filter(|symbol| symbol.ends_with(ending))
        });
        let symbol = symbol
            .unwrap_or_else(|| panic!("the standard library of this compiler has no {ending}"));
        shim.args([
            format!("-DREAL_{name}=__real_{symbol}"),
            format!("-DWRAP_{name}=__wrap_{symbol}"),
        ]);
        wrapped.push(symbol.to_owned());
    }
    let (shim_object, object) = (folder.join("shim.o"), folder.join("program.o"));
    shim.args(["-c", "tests/abi/thread_sanitizer.c", "-o"]).arg(&shim_object);
    output(shim);
    let mut compile = compiler(C99);
    compile.args([
        "-D_POSIX_C_SOURCE=200809L",
        "-O1",
        "-fsanitize=thread",
        definition,
        "-c",
        source,
        "-o",
    ]);
    compile.arg(&object);
    output(compile);

    let mut runtime = Command::new("rustc");
    runtime.args(["--print", "target-libdir"]);
    let runtime = Path::new(output(runtime).trim()).join("librustc-stable_rt.tsan.a");
    let program = folder.join("program");
    let mut link = Command::new("cc");
    link.arg(&object)
        .arg(shim_object)
        .args(wrapped.iter().map(|symbol| format!("-Wl,--wrap={symbol}")));
    link.arg(library).arg("-Wl,--whole-archive").arg(runtime).arg("-Wl,--no-whole-archive");
    link.args(["-lpthread", "-ldl", "-lm", "-o"]).arg(&program);
    output(link);
    program
}

#[test]
fn thread_sanitizer_reports_only_its_known_false_positive() {
    let Some(library) = std::env::var_os("GHL_THREAD_SANITIZED").map(PathBuf::from) else {
        println!("skipped: ThreadSanitizer; .ci/run shows how to build the library for it");
        return;
    };
    for (source, definition, store) in [
        ("tests/abi/threads.c", "-UGHL_TEST_RACE", "memory"),
        ("tests/abi/threads.c", "-UGHL_TEST_RACE", "sqlite"),
        ("tests/abi/misuse.c", "-UGHL_TEST_RACE", "memory"),
        ("tests/abi/threads.c", "-DGHL_TEST_RACE", "memory"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let program = sanitized(source, definition, &library, folder.path());
        let emulator = Emulator::start(Options { locations: 3, ..Options::default() }).unwrap();
        let mut arguments = due_tokens(&emulator);
        if store == "sqlite" {
            let path = folder.path().join("tokens.db");
            arguments[0] =
                support::config(&emulator, json!({"store": {"kind": store, "path": path}}))
                    .to_string();
        }
        let run = Command::new(program).args(arguments).output().unwrap();
        let report = String::from_utf8_lossy(&run.stderr);
        assert_eq!(String::from_utf8_lossy(&run.stdout), "passed\n", "{report}");
        if definition == "-DGHL_TEST_RACE" {
            assert!(report.contains("data race"), "the sanitizer is not active: {report}");
            assert!(report.contains("tests/abi/threads.c"), "{report}");
        } else {
            assert!(run.status.success() && report.is_empty(), "{source}, {store}: {report}");
        }
    }
}
