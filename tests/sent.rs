//! The effect of a failed call as its error reports it: `sent`, and whether the call may be
//! repeated.

mod support;

use std::net::TcpListener;

use ghl_oauth::Status;
use ghl_oauth_emulator::{Emulator, Ending, Endpoint, FaultKind, GrantType, Refusal, Rule, Stage};
use serde_json::{Value, json};

use support::{Abi, DAY, Outcome, emulator, free_port};

const METHODS: [(&str, bool); 7] = [
    ("GET", true),
    ("HEAD", true),
    ("OPTIONS", true),
    ("POST", false),
    ("PUT", false),
    ("PATCH", false),
    ("DELETE", false),
];

/// A request to a location's record, with the location's token.
fn request(emulator: &Emulator, method: &str) -> Value {
    let location = &emulator.location_ids()[0];
    json!({"method": method, "path": format!("/locations/{location}"), "resourceId": location})
}

/// A client with a valid token of the first location.
fn connected(emulator: &Emulator) -> Abi {
    let abi = Abi::with(emulator, json!({"timeouts": {"totalMs": 3000}}));
    abi.connect_company(emulator);
    abi.live_token(emulator, &emulator.location_ids()[0]);
    abi
}

#[track_caller]
fn says(error: &Value, sent: Value, retryable: bool) {
    assert_eq!((&error["sent"], &error["retryable"]), (&sent, &json!(retryable)), "{error}");
}

fn status(status: u16, headers: &[(&str, &str)], stage: Stage) -> FaultKind {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    FaultKind::Status { status, body: String::new(), content_type: None, headers, stage }
}

#[test]
fn request_that_was_sent_and_not_answered_is_retryable_only_if_it_is_safe() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let lost = [
        (Status::Network, FaultKind::ReplyLost),
        (Status::Network, FaultKind::Reset { stage: Stage::AfterProcessing }),
        (Status::Network, FaultKind::CutBody { body_bytes: 9, ending: Ending::Reset }),
        (Status::Timeout, FaultKind::Stall { stage: Stage::AfterProcessing }),
    ];
    for (expected, fault) in lost {
        for (method, is_safe) in METHODS {
            // A response to HEAD has no body that could be cut.
            if method == "HEAD" && matches!(fault, FaultKind::CutBody { .. }) {
                continue;
            }
            let id = emulator.inject(Rule::default(), fault.clone());
            let error = abi.request(request(&emulator, method)).fails(expected);
            says(&error, json!(true), is_safe);
            let attempts = if is_safe && expected == Status::Network { 3 } else { 1 };
            assert_eq!(emulator.strikes(id), attempts, "{method} {fault:?}");
            emulator.clear_faults();
        }
    }
}

#[test]
fn caller_says_whether_a_request_may_be_processed_twice() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    for (method, idempotent, attempts) in [("POST", true, 3), ("GET", false, 1)] {
        let mut request = request(&emulator, method);
        request["idempotent"] = idempotent.into();
        let id = emulator.inject(Rule::default(), FaultKind::ReplyLost);
        let error = abi.request(request.clone()).fails(Status::Network);
        says(&error, json!(true), idempotent);
        assert_eq!(emulator.strikes(id), attempts, "{method}");
        // Sent once, it may still be repeated by the caller.
        request["retry"] = false.into();
        let error = abi.request(request).fails(Status::Network);
        says(&error, json!(true), idempotent);
        assert_eq!(emulator.strikes(id), attempts + 1, "{method}");
        emulator.clear_faults();
    }
}

#[test]
fn request_that_never_left_is_retryable_with_any_method() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let base_url = format!("http://127.0.0.1:{}", free_port());
    let lonely = Abi::with(&emulator, json!({"baseUrl": base_url}));
    lonely.tokens_import(abi.tokens_export(json!({})).ok()).ok();
    for (method, _) in METHODS {
        let error = lonely.request(request(&emulator, method)).fails(Status::Network);
        says(&error, json!(false), true);
    }
}

#[test]
fn message_is_not_sent_again_after_a_503_of_a_gateway_that_forwarded_it() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let after = Stage::AfterProcessing;
    for fault in [
        status(503, &[], after),
        // Not a delay (RFC 9110, section 10.2.3).
        status(503, &[("Retry-After", "soon")], after),
        FaultKind::UnavailablePage { stage: after },
    ] {
        let id = emulator.inject(Rule::default(), fault.clone());
        let response = abi.request(request(&emulator, "POST")).ok();
        assert_eq!((&response["status"], emulator.strikes(id)), (&json!(503), 1), "{fault:?}");
        emulator.clear_faults();
    }
    // The server refused to act: every method is repeated.
    let refusals = [
        status(503, &[("Retry-After", "0")], Stage::BeforeProcessing),
        status(429, &[("Retry-After", "0")], Stage::BeforeProcessing),
    ];
    for fault in refusals {
        let id = emulator.inject(Rule::default().times(2), fault);
        abi.request(request(&emulator, "POST")).ok();
        assert_eq!(emulator.strikes(id), 2);
        emulator.clear_faults();
    }
}

#[test]
fn earlier_attempt_counts_if_the_last_one_never_left() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let calls: [fn(&Abi, &Emulator) -> Outcome; 2] = [
        |abi, emulator| abi.oauth_installed_locations(json!({"companyId": emulator.company_id()})),
        |abi, emulator| abi.request(request(emulator, "GET")),
    ];
    for call in calls {
        let changes = json!({
            "timeouts": {"totalMs": 600_000},
            "retry": {"baseDelayMs": 60_000, "maxDelayMs": 60_000},
        });
        let patient = Abi::with(&emulator, changes);
        patient.tokens_import(abi.tokens_export(json!({})).ok()).ok();
        emulator.inject(Rule::default(), FaultKind::ReplyLost);
        let outcome = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| call(&patient, &emulator));
            // Cancelled in the pause before the second attempt.
            while patient.stats()["requests"]["unanswered"] == 0 {
                std::thread::yield_now();
            }
            patient.cancel_until(|| waiting.is_finished());
            waiting.join().unwrap()
        });
        says(&outcome.fails(Status::Cancelled), json!(true), true);
        emulator.clear_faults();
    }
}

#[test]
fn request_whose_token_could_not_be_renewed_was_not_sent() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let company = emulator.company_id();
    emulator.clock().advance(DAY);
    let refreshes = || Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken);
    let (location_token, listing) = (
        json!({"companyId": company, "locationId": emulator.location_ids()[0]}),
        json!({"companyId": company}),
    );
    emulator.inject(refreshes(), FaultKind::ReplyLost);
    let mut of_company = request(&emulator, "POST");
    of_company["resourceId"] = company.clone().into();
    for outcome in [
        abi.request(of_company),
        abi.oauth_location_token(location_token),
        abi.oauth_installed_locations(listing),
    ] {
        says(&outcome.fails(Status::Network), json!(false), true);
    }
    // The same failure of a call that asks for the token.
    says(&abi.access_token(&company).fails(Status::Network), json!(true), true);
    emulator.clear_faults();
    abi.access_token(&company).ok();

    // No token at all.
    let bare = Abi::new(&emulator);
    let error = bare.request(request(&emulator, "POST")).fails(Status::NotFound);
    says(&error, json!(false), false);
    says(&bare.access_token(&company).fails(Status::NotFound), Value::Null, false);
}

#[test]
fn attempt_that_may_have_acted_counts_if_the_next_one_was_rejected_and_no_token_follows() {
    let emulator = emulator(1);
    let location = emulator.location_ids()[0].clone();
    let abi = connected(&emulator);
    // The request itself is the first to match.
    let once = || Rule::default().times(1);
    let refreshes = || Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken);
    let mut post = request(&emulator, "POST");
    post["idempotent"] = true.into();
    // Without an earlier attempt, nothing was processed.
    for (acted, sent) in [(true, true), (false, false)] {
        let company = emulator.company_id();
        let calls: [&dyn Fn() -> Outcome; 2] = [&|| abi.request(post.clone()), &|| {
            abi.oauth_installed_locations(json!({"companyId": company}))
        }];
        for (call, resource) in calls.into_iter().zip([&location, &company]) {
            if acted {
                emulator.inject(once(), status(500, &[], Stage::AfterProcessing));
            }
            emulator.inject(once(), FaultKind::Refusal { refusal: Refusal::InvalidJwt });
            emulator.inject(refreshes(), FaultKind::ReplyLost);
            says(&call().fails(Status::Network), json!(sent), true);
            emulator.clear_faults();
            abi.token_refresh(resource).ok();
        }
    }
}

#[test]
fn attempt_that_may_have_acted_counts_if_the_repetition_with_a_new_token_is_not_sent() {
    let emulator = emulator(1);
    let location = emulator.location_ids()[0].clone();
    // Two attempts are allowed; the repetition has no place before the deadline.
    let limit = json!({"requests": 2, "perMs": 3_600_000});
    let changes = json!({"rateLimit": limit, "timeouts": {"totalMs": 60_000}});
    let abi = Abi::with(&emulator, changes);
    let filled = connected(&emulator);
    abi.tokens_import(filled.tokens_export(json!({})).ok()).ok();
    let once = || Rule::default().times(1);
    emulator.inject(once(), status(500, &[], Stage::AfterProcessing));
    emulator.inject(once(), FaultKind::Refusal { refusal: Refusal::InvalidJwt });
    let mut post = request(&emulator, "POST");
    post["idempotent"] = true.into();
    let error = abi.request(post).fails(Status::RateLimited);
    assert_eq!(error["resourceId"], location);
    says(&error, json!(true), true);
}

#[test]
fn error_without_a_request_says_neither() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    for outcome in [
        abi.request(json!({"method": "BREW", "path": "/"})),
        abi.request(json!({"method": "POST", "path": "/", "resourceId": " "})),
        abi.oauth_token(json!({"grantType": "refresh_token"})),
        abi.tokens_list(json!({"limit": 0})),
        abi.access_token(" "),
    ] {
        says(&outcome.fails(Status::InvalidArgument), Value::Null, false);
    }
    says(&abi.token_delete("unknown").fails(Status::NotFound), Value::Null, false);
    let redirect = abi.authorization_complete(
        json!({"redirectUrl": format!("{}?code=c&state=s", emulator.redirect_uri())}),
    );
    says(&redirect.fails(Status::StateMismatch), Value::Null, false);
}

#[test]
fn lost_response_to_a_code_is_not_retryable_and_to_a_refresh_is() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let company = emulator.company_id();
    let consent =
        || abi.consent(&emulator, ghl_oauth_emulator::Decision::Company(emulator.company_id()));
    let code = || Rule::on(Endpoint::Token).grant_type(GrantType::AuthorizationCode);
    let id = emulator.inject(code(), FaultKind::Reset { stage: Stage::AfterProcessing });
    let error = abi.authorization_complete(json!({"redirectUrl": consent()}));
    says(&error.fails(Status::Network), json!(true), false);
    assert_eq!(emulator.strikes(id), 2);
    emulator.clear_faults();

    emulator.inject(code(), status(429, &[], Stage::BeforeProcessing));
    let redirect = consent();
    let error = abi.authorization_complete(json!({"redirectUrl": redirect}));
    says(&error.fails(Status::RateLimited), json!(false), true);
    emulator.clear_faults();
    // As `retryable` says.
    abi.authorization_complete(json!({"redirectUrl": redirect})).ok();

    emulator.inject(
        Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken),
        FaultKind::ReplyLost,
    );
    says(&abi.token_refresh(&company).fails(Status::Network), json!(true), true);
    emulator.clear_faults();
    abi.token_refresh(&company).ok();
}

#[test]
fn port_of_another_service_is_not_retryable() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let exported = abi.tokens_export(json!({})).ok();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = std::io::Write::write_all(&mut stream.unwrap(), b"SSH-2.0-OpenSSH_9.9\r\n");
        }
    });
    for (base_url, expected) in [
        (format!("http://127.0.0.1:{port}"), Status::Protocol),
        (format!("https://127.0.0.1:{port}"), Status::Network),
        // Plain HTTP where the URL says HTTPS.
        (emulator.base_url().replace("http://", "https://"), Status::Network),
    ] {
        let lost = Abi::with(&emulator, json!({"baseUrl": base_url}));
        lost.tokens_import(exported.clone()).ok();
        let error = lost.token_refresh(&emulator.company_id()).fails(expected);
        assert_eq!(error["retryable"], false, "{base_url}: {error}");
    }
}
