//! The binary: its output, and its handling of invalid arguments.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ghl-oauth-emulator"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

#[test]
fn program_prints_its_address_and_serves_there() {
    let mut child =
        program(&["--port", "0", "--locations", "2"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let (_, base_url) = first.split_once(" on ").unwrap();
    let rest: Vec<_> =
        lines.map(Result::unwrap).take_while(|line| !line.starts_with("Stop")).collect();
    let rest = rest.join("\n");
    for expected in [
        "\"clientId\"",
        &format!("Dashboard:        {base_url}/dashboard"),
        &format!(
            "Start a consent:  {base_url}/v2/oauth/chooselocation?response_type=code&client_id="
        ),
        "\"baseUrl\"",
        "\"authorizeUrl\"",
        base_url,
        "POST /_emulator/clock",
        "POST /_emulator/faults",
    ] {
        assert!(rest.contains(expected), "{expected}: {rest}");
    }

    let authority = base_url.strip_prefix("http://").unwrap();
    let mut socket = std::net::TcpStream::connect(authority).unwrap();
    let request =
        format!("GET /_emulator HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    std::io::Write::write_all(&mut socket, request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// The response to a request, including its head.
fn exchange(authority: &str, request: &str, headers: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(authority).unwrap();
    let length = body.len();
    write!(
        socket,
        "{request} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n{headers}content-length: \
         {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn json_of(answer: &str) -> serde_json::Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

#[test]
fn scenario_runs_after_the_first_connection_and_its_end_is_reported() {
    let arguments =
        ["--port=0", "--scenario", "agency-day", "--day-seconds=1", "--locations", "20"];
    let mut child = program(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let (_, authority) = first.split_once("http://").unwrap();
    let waits = lines.find(|line| line.starts_with("Scenario")).unwrap();
    assert!(waits.contains("agency-day starts when company"), "{waits}");

    let overview = json_of(&exchange(authority, "GET /_emulator", "", ""));
    let text = |name: &str| overview[name].as_str().unwrap();
    let company = overview["companies"][0]["id"].as_str().unwrap();
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("response_type", "code")
        .append_pair("client_id", text("clientId"))
        .append_pair("redirect_uri", overview["redirectUris"][0].as_str().unwrap())
        .append_pair("scope", "oauth.readonly oauth.write")
        .finish();
    let consent = serde_json::json!({
        "url": format!("{}?{query}", text("authorizeUrl")), "companyId": company,
    });
    let redirect =
        json_of(&exchange(authority, "POST /_emulator/consent", "", &consent.to_string()));
    let (_, code) = redirect["redirectUrl"].as_str().unwrap().split_once("code=").unwrap();
    let form = format!(
        "clientId={}&clientSecret={}&grantType=authorization_code&code={code}",
        text("clientId"),
        text("clientSecret")
    );
    let headers = "version: v3\r\ncontent-type: application/x-www-form-urlencoded\r\n";
    let token = exchange(authority, "POST /oauth/token", headers, &form);
    assert!(token.starts_with("HTTP/1.1 200"), "{token}");

    assert_eq!(lines.next().unwrap(), "Scenario agency-day is running.");
    let end = lines.next().unwrap();
    let scenario = json_of(&exchange(authority, "GET /_emulator/scenario", "", ""));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(end.starts_with("Scenario agency-day has finished. "), "{end}");
    let ledger = scenario["ledger"].as_array().unwrap();
    let honoured = ledger.iter().filter(|one| one["state"] == "honoured").count();
    assert!(end.contains(&format!("finished. {honoured} connections are valid")), "{end}");
}

#[test]
fn printed_commands_and_configuration_use_https_with_tls() {
    let file =
        std::env::temp_dir().join(format!("ghl-oauth-emulator-program-{}.pem", std::process::id()));
    let file = file.to_str().unwrap();
    let mut child = program(&["--port=0", "--tls", "good", "--ca-file", file])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let printed: Vec<_> = lines.take_while(|line| !line.starts_with("Stop")).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let (_, base_url) = printed[0].split_once(" on ").unwrap();
    assert!(base_url.starts_with("https://127.0.0.1:"), "{base_url}");
    let printed = printed.join("\n");
    let escaped = serde_json::to_string(file).unwrap();
    assert!(printed.contains(&format!("\"caBundlePath\": {escaped}")), "{printed}");
    assert!(printed.contains(&format!("curl --cacert {file} {base_url}/_emulator")), "{printed}");
    assert!(std::fs::read_to_string(file).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn help_succeeds_and_a_usage_mistake_fails() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8(help.stdout).unwrap().contains("--access-token-seconds"));

    for arguments in
        [&["--prot", "1"][..], &["--port", "x"], &["--companies", "0"], &["--rate-limit"]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: "));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn port_in_use_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let output = run(&["--port", &port]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot listen"));
}
