//! Transport: HTTPS with good and bad certificates, IPv6, delayed accepts, and closed connections.

mod support;

use ghl_oauth_emulator::{
    Certificate, Emulator, Ending, Endpoint, FaultKind, Options, Rule, Stage,
};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::*;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, RootCertStore, StreamOwned,
};

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn start(tls: Option<Certificate>) -> Emulator {
    Emulator::start(Options { tls, ..Options::default() }).unwrap()
}

/// A connection of a client that trusts the emulator's CA.
fn dial_tls(emulator: &Emulator) -> Tls {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(emulator.ca_pem().unwrap().as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
    StreamOwned::new(client, dial(emulator))
}

/// A token request over TLS.
fn ask(emulator: &Emulator) -> Tls {
    let mut socket = dial_tls(emulator);
    socket.write_all(request(emulator, &[("connection", "close")]).as_bytes()).unwrap();
    socket
}

fn request(emulator: &Emulator, headers: &[(&str, &str)]) -> String {
    let form = token_form(emulator, &[("grantType", "client_credentials")]);
    write(emulator, "POST", "/oauth/token", &[&[VERSION, FORM], headers].concat(), &form)
}

/// One response on a connection that stays open.
fn answer(socket: &mut impl Read) -> u16 {
    let mut received = vec![0; 1 << 16];
    let mut length = 0;
    loop {
        length += socket.read(&mut received[length..]).unwrap();
        let reply = parse(&received[..length]);
        if reply.body.len().to_string() == reply.header("content-length").unwrap() {
            return reply.status;
        }
    }
}

#[test]
fn https_is_served_with_a_certificate_of_the_published_ca() {
    let emulator = start(Some(Certificate::Good));
    assert!(emulator.base_url().starts_with("https://127.0.0.1:"));
    assert!(emulator.authorize_url().starts_with(&emulator.base_url()));
    let (received, ending) = drain(ask(&emulator));
    assert_eq!((parse(&received).status, ending.is_ok()), (200, true));
    assert_eq!(start(None).ca_pem(), None);
}

#[test]
fn ca_file_is_written_and_named_in_the_configuration() {
    let file =
        std::env::temp_dir().join(format!("ghl-oauth-emulator-ca-{}.pem", std::process::id()));
    let options = |tls| Options { tls, ca_file: Some(file.clone()), ..Options::default() };
    let emulator = Emulator::start(options(Some(Certificate::Good))).unwrap();
    assert_eq!(Some(std::fs::read_to_string(&file).unwrap().as_str()), emulator.ca_pem());
    std::fs::remove_file(&file).unwrap();
    let configuration: Value = serde_json::from_str(&emulator.configuration()).unwrap();
    assert_eq!(configuration["http"], json!({"caBundlePath": file}));
    assert_eq!(configuration["baseUrl"], emulator.base_url());

    assert_eq!(Emulator::start(options(None)).unwrap_err().kind(), ErrorKind::InvalidInput);
    let nowhere =
        Options { ca_file: Some("/nowhere/ca.pem".into()), ..options(Some(Certificate::Good)) };
    let error = Emulator::start(nowhere).unwrap_err().to_string();
    assert!(error.starts_with("cannot write /nowhere/ca.pem: "), "{error}");
}

#[test]
fn each_bad_certificate_has_exactly_one_defect() {
    for (certificate, is_right) in [
        (
            Certificate::WrongName,
            (|error| matches!(error, CertificateError::NotValidForNameContext { .. }))
                as fn(&CertificateError) -> bool,
        ),
        (Certificate::Expired, |error| matches!(error, CertificateError::ExpiredContext { .. })),
    ] {
        let emulator = start(Some(certificate));
        let error = dial_tls(&emulator).write_all(b"x").unwrap_err();
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(Error::InvalidCertificate(error)) if is_right(error) => {}
            other => panic!("{certificate:?}: {other:?}"),
        }
        assert_eq!(emulator.requests(), []);
    }
}

#[test]
fn faults_work_over_tls_as_over_tcp() {
    let emulator = start(Some(Certificate::Good));
    let struck = |kind| {
        emulator.inject(Rule::on(Endpoint::Token).times(1), kind);
        let (received, ending) = drain(ask(&emulator));
        (String::from_utf8(received).unwrap(), ending.map_err(|error| error.kind()))
    };
    assert_eq!(struck(FaultKind::ReplyLost), (String::new(), Ok(())));
    let reset = FaultKind::Reset { stage: Stage::AfterProcessing };
    assert_eq!(struck(reset), (String::new(), Err(ErrorKind::ConnectionReset)));
    for (ending, expected) in [
        (Ending::Close, Ok(())),
        (Ending::Cut, Err(ErrorKind::UnexpectedEof)),
        (Ending::Reset, Err(ErrorKind::ConnectionReset)),
    ] {
        let (received, ended) = struck(FaultKind::CutBody { body_bytes: 10, ending });
        // A reset occasionally overtakes the bytes sent before it.
        assert!(ending == Ending::Reset || parse(received.as_bytes()).body.len() == 10);
        assert_eq!(ended, expected, "{ending:?}");
        assert_eq!(
            struck(FaultKind::Raw { text: "mail".to_owned(), ending }).1,
            expected,
            "{ending:?}"
        );
    }
    let (received, _) = struck(FaultKind::Drip { every_ms: 0, body_only: false });
    assert_eq!(parse(received.as_bytes()).status, 200);
    let (received, _) = struck(FaultKind::HugeBody { bytes: 1 << 20, chunked: false });
    assert_eq!(parse(received.as_bytes()).body.len(), 1 << 20);
}

#[test]
fn dripped_response_over_tls_arrives_byte_by_byte() {
    let emulator = start(Some(Certificate::Good));
    emulator.inject(Rule::default(), FaultKind::Drip { every_ms: 1, body_only: false });
    let mut socket = ask(&emulator);
    let mut received = [0; 1 << 10];
    assert_eq!(socket.read(&mut received).unwrap(), 1);
}

#[test]
fn server_listens_on_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: IPv6 is disabled on the loopback interface");
        return;
    }
    let emulator = Emulator::start(Options { ipv6: true, ..Options::default() }).unwrap();
    assert!(emulator.base_url().starts_with("http://[::1]:"));
    token(&emulator, &[("grantType", "client_credentials")]).expect(200);
    assert_eq!(control(&emulator, "GET", "", "").status, 200);
}

#[test]
fn accept_and_handshake_can_be_delayed() {
    let delay = Duration::from_millis(30);
    let emulator = start(None);
    control(&emulator, "POST", "/settings", r#"{"acceptDelayMs": 30}"#).expect(200);
    let began = Instant::now();
    token(&emulator, &[("grantType", "client_credentials")]).expect(200);
    assert!(began.elapsed() >= delay);

    let emulator = start(Some(Certificate::Good));
    emulator.accept_delay(delay);
    let began = Instant::now();
    let mut socket = dial_tls(&emulator);
    socket.conn.complete_io(&mut socket.sock).unwrap();
    assert!(began.elapsed() >= delay);
}

#[test]
fn connections_are_counted_and_closed_on_request() {
    for (ending, plain, encrypted) in [
        (Ending::Close, Ok(0), Ok(0)),
        (Ending::Cut, Ok(0), Err(ErrorKind::UnexpectedEof)),
        (Ending::Reset, Err(ErrorKind::ConnectionReset), Err(ErrorKind::ConnectionReset)),
    ] {
        let emulator = start(None);
        let mut socket = dial(&emulator);
        ends(&emulator, &mut socket, ending, plain);
        let emulator = start(Some(Certificate::Good));
        let mut socket = dial_tls(&emulator);
        ends(&emulator, &mut socket, ending, encrypted);
    }

    let emulator = start(None);
    let mut socket = dial(&emulator);
    socket.write_all(request(&emulator, &[]).as_bytes()).unwrap();
    assert_eq!(answer(&mut socket), 200);
    emulator.end_connections(Ending::Silence);
    socket.write_all(request(&emulator, &[]).as_bytes()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let kind = socket.read(&mut [0; 9]).unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut));
    let overview = control(&emulator, "GET", "", "").expect(200);
    assert_eq!((&overview["connections"], emulator.connections()), (&json!(2), 2));
}

/// Sends two requests on one connection, which then ends this way.
fn ends(
    emulator: &Emulator,
    socket: &mut (impl Read + Write),
    ending: Ending,
    expected: Result<usize, ErrorKind>,
) {
    for _ in 0..2 {
        socket.write_all(request(emulator, &[]).as_bytes()).unwrap();
        assert_eq!(answer(socket), 200);
    }
    emulator.end_connections(ending);
    let end = socket.read(&mut [0; 9]).map_err(|error| error.kind());
    assert_eq!(end, expected, "{ending:?} of {}", emulator.base_url());
    assert_eq!(emulator.connections(), 1);
}
