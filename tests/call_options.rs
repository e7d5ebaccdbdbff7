//! The options of a call: its timeout, its ID, and the minimum life of an access token.

mod support;

use std::ffi::{CString, c_char};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::ptr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::*;
use ghl_oauth_emulator::{Endpoint, FaultKind, GrantType, Rule, Stage};
use serde_json::{Value, json};

use support::{Abi, DAY, Outcome, call_concurrently, emulator, free_port, sent, take};

/// Far longer than a call with a short timeout takes, and far shorter than the default timeout.
const PROMPT: Duration = Duration::from_secs(10);

const HOUR: Duration = Duration::from_secs(3600);

fn refreshes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken)
}

type Function = fn(&Abi, Value) -> Outcome;
type Call = (&'static str, Function);

/// Every function with parameters that accepts both options.
const CALLS: [Call; 16] = [
    ("authorization_url", |abi, params| abi.authorization_url(params)),
    ("authorization_complete", |abi, params| abi.authorization_complete(params)),
    ("oauth_token", |abi, params| abi.oauth_token(params)),
    ("oauth_location_token", |abi, params| abi.oauth_location_token(params)),
    ("oauth_installed_locations", |abi, params| abi.oauth_installed_locations(params)),
    ("request", |abi, params| abi.request(params)),
    ("access_token_with", |abi, params| abi.access_token_with(params)),
    ("token_refresh_with", |abi, params| abi.token_refresh_with(params)),
    ("client_metrics", |abi, params| abi.metrics(params)),
    ("tokens_list", |abi, params| abi.tokens_list(params)),
    ("tokens_import", |abi, params| abi.tokens_import(params)),
    ("tokens_adopt", |abi, params| abi.tokens_adopt(params)),
    ("tokens_export", |abi, params| abi.tokens_export(params)),
    ("tokens_maintain", |abi, params| abi.tokens_maintain(params, |_| true)),
    ("tokens_mint", |abi, params| abi.tokens_mint(params, |_| true)),
    ("webhook_apply_with", |abi, params| abi.webhook_apply_with(b"{}", &json!({}), params)),
];

/// Calls without waits that succeed with these parameters.
fn succeeding() -> [(Function, Value); 6] {
    [
        (|abi, params| abi.metrics(params), json!({})),
        (|abi, params| abi.authorization_url(params), json!({"scopes": ["oauth.readonly"]})),
        (|abi, params| abi.tokens_list(params), json!({"pageSize": 5})),
        (|abi, params| abi.tokens_export(params), json!({})),
        (|abi, params| abi.tokens_import(params), json!({"tokens": []})),
        (|abi, params| abi.tokens_maintain(params, |_| true), json!({"concurrency": 2})),
    ]
}

#[test]
fn option_that_cannot_be_used_is_refused_by_every_function_with_its_name() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let timeouts =
        [json!(0), json!(-1), json!(86_400_001), json!(1.5), json!("100"), json!([1]), json!(true)];
    let ids = [json!(""), json!(7), json!("x".repeat(257)), json!({}), json!("a\0b")];
    for (name, call) in CALLS {
        for timeout in &timeouts {
            let error = call(&abi, json!({"timeoutMs": timeout})).refuses("timeoutMs");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("1 to 86400000"), "{name}: {message}");
        }
        for id in &ids {
            call(&abi, json!({"callId": id})).refuses("callId");
        }
        call(&abi, json!({"timeoutMs": 1000, "callId": "x", "timeout": 5})).refuses("timeout");
    }
    abi.authorization_listen(json!({"port": 1, "callId": 5})).refuses("callId");
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn options_are_accepted_in_any_order_and_spelling() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    abi.connect_company(&emulator);
    for (call, params) in succeeding() {
        for options in [
            json!({"timeoutMs": 86_400_000}),
            json!({"timeoutMs": 60_000, "callId": "x".repeat(256)}),
            json!({"timeoutMs": null, "callId": null}),
            json!({"callId": "größer \"quoted\""}),
        ] {
            let mut params = params.clone();
            params.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
            call(&abi, params).ok();
        }
    }
    for text in [
        r#" { "callId" : "a" , "pageSize":5 } "#,
        r#"{"pageSize":5,"callId":"a"}"#,
        r#"{"call\u0049d": "a", "page\u0053ize": 5}"#,
    ] {
        abi.call(ghl_tokens_list, text).ok();
    }
    for (text, parameter) in [
        (r#"{"callId": "a", "callId": "b"}"#, "callId"),
        (r#"{"timeoutMs": 5, "pageSize": 0}"#, "pageSize"),
        (r#"{"timeoutMs": 5, "pageSize": "x"}"#, "pageSize"),
        (r#"{"timeoutMs": 5} x"#, "params_json"),
        (r#"["timeoutMs"]"#, "params_json"),
        (r#"{"timeoutMs": 5"#, "params_json"),
    ] {
        abi.call(ghl_tokens_list, text).refuses(parameter);
    }
}

#[test]
fn parameters_reach_the_api_unchanged_beside_the_options() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let text = r#"{"method": "POST", "path": "/oauth/token", "timeoutMs": 60000,
        "headers": {"content-type": "text/plain"}, "body": "grün \"callId\" \u00e4"}"#;
    abi.call(ghl_request, text).ok();
    let requests = emulator.requests();
    assert_eq!(requests[0].body, "grün \"callId\" ä");
}

#[test]
fn timeout_of_a_call_is_shorter_or_longer_than_the_configured_one() {
    let emulator = emulator(1);
    // Half a second: enough for the consent on a loaded machine.
    let abi = Abi::with(&emulator, json!({"timeouts": {"totalMs": 500, "connectMs": 400}}));
    let patient = Abi::new(&emulator);
    let company = patient.connect_company(&emulator);
    let token = patient.live_token(&emulator, &company);
    let list = |abi: &Abi, options: Value| {
        let mut params = json!({"companyId": company, "accessToken": token});
        params.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        abi.oauth_installed_locations(params)
    };
    let hold = emulator.hold(Rule::on(Endpoint::InstalledLocations), Stage::BeforeProcessing);
    thread::scope(|scope| {
        let longer = scope.spawn(|| list(&abi, json!({"timeoutMs": 60_000})));
        hold.wait_for(1);
        // Begins later, so its timeout, which is the configured one, also ends later.
        let error = list(&abi, json!({})).fails(Status::Timeout);
        assert!(error["help"].as_str().unwrap().contains("timeouts.totalMs"), "{error}");
        assert!(!longer.is_finished(), "its own timeout is longer");

        let began = Instant::now();
        let error = list(&patient, json!({"timeoutMs": 50})).fails(Status::Timeout);
        assert!(error["message"].as_str().unwrap().contains("50 ms"), "{error}");
        assert!(error["help"].as_str().unwrap().contains("timeoutMs"), "{error}");
        assert!(began.elapsed() < PROMPT);

        hold.release();
        longer.join().unwrap().ok();
    });
}

#[test]
fn timeout_of_a_call_ends_a_wait_for_another_caller_but_not_the_refresh_that_was_sent() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
        emulator.clock().advance(DAY);
        sent(&emulator);
        let hold = emulator.hold(refreshes(), stage);
        thread::scope(|scope| {
            let params = json!({"resourceId": company, "timeoutMs": 500});
            let leader = scope.spawn(|| abi.access_token_with(params));
            hold.wait_for(1);
            // These begin after the leader, so its timeout has passed when theirs has.
            for timeout in [500, 1] {
                let params = json!({"resourceId": company, "timeoutMs": timeout});
                abi.access_token_with(params).fails(Status::Timeout);
            }
            assert!(!leader.is_finished(), "the refresh continues");
            hold.release();
            let token = leader.join().unwrap().text();
            assert!(emulator.access_token_is_live(&token));
        });
        assert_eq!(sent(&emulator), ["refresh 200"]);
        abi.live_token(&emulator, &company);
        assert_eq!(sent(&emulator), [""; 0], "the new token was saved");
    }
}

#[test]
fn timeout_of_a_call_ends_its_retries_and_its_wait_for_the_rate_limiter() {
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"rateLimit": {"requests": 1, "perMs": 25_000}}));
    let company = abi.connect_company(&emulator);
    let list = |timeout: u64| {
        abi.oauth_installed_locations(json!({"companyId": company, "timeoutMs": timeout}))
    };
    list(25_000).ok();
    let began = Instant::now();
    list(100).fails(Status::RateLimited);
    assert!(began.elapsed() < PROMPT);

    // By the configured timeout, the call would wait and send again.
    let limited = FaultKind::Status {
        status: 429,
        body: String::new(),
        content_type: None,
        headers: vec![("Retry-After".into(), "8".into())],
        stage: Stage::BeforeProcessing,
    };
    let fault = emulator.inject(refreshes(), limited);
    let params = json!({"resourceId": company, "timeoutMs": 1_000});
    abi.token_refresh_with(params).fails(Status::RateLimited);
    assert_eq!(emulator.strikes(fault), 1);
    assert!(began.elapsed() < PROMPT);
}

/// Reads one request, and writes an answer that ends the connection.
fn serve(listener: &TcpListener, before_answer: impl FnOnce(), answer: &str) {
    let (mut stream, _) = listener.accept().unwrap();
    let (mut request, mut part) = (String::new(), [0; 4096]);
    let is_complete = |request: &str| {
        request.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let head = head.to_ascii_lowercase();
            let length = head.split_once("content-length: ").unwrap().1.lines().next().unwrap();
            body.len() == length.parse::<usize>().unwrap()
        })
    };
    while !is_complete(&request) {
        let read = stream.read(&mut part).unwrap();
        request.push_str(str::from_utf8(&part[..read]).unwrap());
    }
    before_answer();
    stream.write_all(answer.as_bytes()).unwrap();
}

#[test]
fn refusal_that_leaves_no_time_for_another_attempt_ends_only_the_call_of_the_short_timeout() {
    for (status, line) in
        [(Status::RateLimited, "429 Too Many"), (Status::Server, "503 Unavailable")]
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let config = json!({"clientId": "app-1", "clientSecret": "s", "baseUrl": base_url});
        let abi = Abi::open(&config).unwrap();
        let token = json!({"accessToken": "a", "refreshToken": "r", "userType": "Company",
            "companyId": "c", "expiresAt": 1});
        abi.tokens_import(json!({"tokens": [token]})).ok();
        let events = abi.listen();
        let (arrive, arrived) = channel();
        let (release, released) = channel();
        thread::scope(|scope| {
            // Not awaited: if the test fails, no second request comes.
            thread::spawn(move || {
                let refusal = format!(
                    "HTTP/1.1 {line}\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: \
                     close\r\n\r\n"
                );
                let hold = || {
                    arrive.send(()).unwrap();
                    released.recv().unwrap();
                };
                serve(&listener, hold, &refusal);
                let body = json!({"access_token": "b", "refresh_token": "s", "expires_in": 86_399,
                    "userType": "Company", "companyId": "c"})
                .to_string();
                let length = body.len();
                let granted = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: \
                     {length}\r\nConnection: close\r\n\r\n{body}"
                );
                serve(&listener, || (), &granted);
            });
            let params = json!({"resourceId": "c", "timeoutMs": 1_900});
            let leader = scope.spawn(|| abi.access_token_with(params));
            arrived.recv().unwrap();
            let tokens =
                call_concurrently(3, || abi.access_token("c").text(), || release.send(()).unwrap());
            assert_eq!(tokens, ["b"; 3]);
            let error = leader.join().unwrap().fails(status);
            assert_eq!((&error["retryAfterMs"], &error["sent"]), (&json!(2_000), &json!(false)));
        });
        assert_eq!(events.names(), ["token.refreshed c"]);
        abi.stop_listening();
    }
}

#[test]
fn refresh_that_was_not_sent_ends_by_the_timeout_or_the_id_of_its_call() {
    // Accepts connections, but never answers the TLS handshake.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    silent.set_nonblocking(true).unwrap();
    let base_url = format!("https://{}", silent.local_addr().unwrap());
    let timeouts = json!({"totalMs": 600_000, "connectMs": 600_000});
    let abi = Abi::open(&json!({"clientId": "app-1", "clientSecret": "s", "baseUrl": base_url,
        "timeouts": timeouts}))
    .unwrap();
    let token = json!({"accessToken": "a", "refreshToken": "r", "userType": "Company",
        "companyId": "c", "expiresAt": 1});
    abi.tokens_import(json!({"tokens": [token]})).ok();
    let events = abi.listen();
    let began = Instant::now();
    for _ in 0..6 {
        let timed = json!({"resourceId": "c", "timeoutMs": 300});
        let error = abi.access_token_with(timed).fails(Status::Timeout);
        assert_eq!(error["sent"], false, "{error}");
        assert!(error["message"].as_str().unwrap().contains("300 ms"), "{error}");
        // Every call tries: the impatience of its predecessors says nothing about the server.
        silent.accept().unwrap();
    }
    assert_eq!(events.names(), [""; 0]);
    abi.stop_listening();
    thread::scope(|scope| {
        let named = json!({"resourceId": "c", "callId": "mine"});
        let waiting = scope.spawn(|| abi.access_token_with(named));
        while !waiting.is_finished() {
            assert_eq!(abi.cancel_call("mine"), 0);
            thread::yield_now();
        }
        waiting.join().unwrap().fails(Status::Cancelled);
    });
    assert!(began.elapsed() < PROMPT);
}

#[test]
fn timeout_of_a_bulk_call_ends_the_whole_call_and_the_next_one_does_the_rest() {
    let emulator = emulator(6);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    for concurrency in [1, 4] {
        let mint = |timeout: u64| {
            let params = json!({"companyId": company, "installed": true, "force": true,
                "concurrency": concurrency, "timeoutMs": timeout});
            abi.tokens_mint(params, |_| true)
        };
        let hold = emulator.hold(Rule::on(Endpoint::LocationToken), Stage::BeforeProcessing);
        let began = Instant::now();
        let error = mint(300).fails(Status::Timeout);
        assert!(error["help"].as_str().unwrap().contains("call again"), "{error}");
        assert!(began.elapsed() < PROMPT);
        hold.release();
        assert_eq!(mint(60_000).ok()["minted"], 6);
    }
}

#[test]
fn timeout_of_maintenance_ends_the_pass_after_the_refreshes_that_were_sent() {
    let emulator = emulator(6);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    abi.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
    for concurrency in [1, 4] {
        emulator.clock().advance(DAY);
        sent(&emulator);
        let hold = emulator.hold(refreshes(), Stage::AfterProcessing);
        thread::scope(|scope| {
            let params = json!({"timeoutMs": 1_000, "concurrency": concurrency});
            let maintaining = scope.spawn(|| abi.tokens_maintain(params, |_| true));
            hold.wait_for(concurrency);
            // Begins after the pass, so the timeout of the pass has passed when this one has.
            let held = Rule::on(Endpoint::InstalledLocations);
            let stalled = emulator.hold(held, Stage::BeforeProcessing);
            let list = json!({"companyId": company, "accessToken": "any", "timeoutMs": 1_000});
            abi.oauth_installed_locations(list).fails(Status::Timeout);
            stalled.release();
            assert!(!maintaining.is_finished(), "the refreshes continue");
            hold.release();
            let error = maintaining.join().unwrap().fails(Status::Timeout);
            assert!(error["help"].as_str().unwrap().contains("call again"), "{error}");
        });
        let refreshed = sent(&emulator).iter().filter(|sent| *sent == "refresh 200").count();
        assert_eq!(refreshed, concurrency);
        let rest = abi.tokens_maintain(json!({}), |_| true).ok();
        assert_eq!((&rest["failed"], &rest["refreshed"]), (&json!([]), &json!(7 - concurrency)));
        assert_eq!(sent(&emulator), vec!["refresh 200"; 7 - concurrency], "nothing was lost");
    }
}

#[test]
fn time_limit_of_listening_is_for_the_browser() {
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"timeouts": {"totalMs": 60_000}}));
    let params = json!({"port": free_port(), "timeoutMs": 50, "callId": "listening"});
    abi.authorization_listen(params).fails(Status::Timeout);
}

#[test]
fn token_with_less_than_the_minimum_life_is_renewed_once() {
    for of_location in [false, true] {
        let emulator = emulator(1);
        let abi = Abi::new(&emulator);
        let company = abi.connect_company(&emulator);
        let location = emulator.location_ids()[0].clone();
        let resource = if of_location { &location } else { &company };
        let with = |seconds: u64| json!({"resourceId": resource, "minValidSeconds": seconds});
        let first = abi.live_token(&emulator, resource);
        sent(&emulator);
        // Just granted: another token would not live longer.
        assert_eq!(abi.access_token_with(with(10_000_000)).text(), first);
        emulator.clock().advance(2 * HOUR);
        for seconds in [0, 60, 7_200] {
            assert_eq!(abi.access_token_with(with(seconds)).text(), first);
        }
        assert_eq!(abi.access_token_with(json!({"resourceId": resource})).text(), first);
        assert_eq!(sent(&emulator), [""; 0]);

        let second = abi.access_token_with(with(23 * 3600)).text();
        assert_ne!(second, first);
        assert!(emulator.access_token_is_live(&second));
        assert_eq!(sent(&emulator), ["refresh 200"]);
        // Longer than the whole life of a token: one renewal, and no other for a minute.
        emulator.clock().advance(HOUR);
        let third = abi.access_token_with(with(u64::MAX)).text();
        assert_ne!(third, second);
        assert_eq!(abi.access_token_with(with(u64::MAX)).text(), third);
        assert_eq!(sent(&emulator), ["refresh 200"]);
        assert_eq!(abi.live_token(&emulator, resource), third);
    }
}

#[test]
fn minimum_life_is_a_demand_that_a_valid_old_token_does_not_hide() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    let old = abi.live_token(&emulator, &company);
    emulator.clock().advance(2 * HOUR);
    let unavailable = FaultKind::Status {
        status: 500,
        body: String::new(),
        content_type: None,
        headers: Vec::new(),
        stage: Stage::BeforeProcessing,
    };
    emulator.inject(refreshes(), unavailable);
    let with = |seconds: u64| json!({"resourceId": company, "minValidSeconds": seconds});
    abi.access_token_with(with(23 * 3600)).fails(Status::Server);
    assert_eq!(abi.access_token_with(with(3600)).text(), old);
    assert_eq!(abi.access_token(&company).text(), old);

    // Due, but valid for long enough: the failed renewal is hidden, as without a demand.
    emulator.clock().advance(22 * HOUR - Duration::from_secs(200));
    assert_eq!(abi.access_token_with(with(60)).text(), old);
    abi.access_token_with(with(1_000)).fails(Status::Server);
    emulator.clear_faults();
}

#[test]
fn concurrent_demands_share_one_renewal() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    emulator.clock().advance(2 * HOUR);
    sent(&emulator);
    let params = || json!({"resourceId": company, "minValidSeconds": 23 * 3600});
    thread::scope(|scope| {
        let callers: Vec<_> =
            (0..16).map(|_| scope.spawn(|| abi.access_token_with(params()).text())).collect();
        let tokens: Vec<String> =
            callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        assert!(tokens.iter().all(|token| *token == tokens[0]));
    });
    assert_eq!(sent(&emulator), ["refresh 200"]);
}

#[test]
fn access_token_params_are_checked() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    abi.access_token_with(json!({})).refuses("resourceId");
    abi.access_token_with(json!({"resourceId": ""})).refuses("resourceId");
    abi.access_token_with(json!({"resourceId": "c", "minValidSeconds": -1}))
        .refuses("minValidSeconds");
    abi.access_token_with(json!({"resourceId": "c", "minValidSeconds": 60}))
        .fails(Status::NotFound);
    abi.token_refresh_with(json!({})).refuses("resourceId");
    abi.token_refresh_with(json!({"resourceId": ""})).refuses("resourceId");
    // SAFETY: a valid client; NULL is allowed.
    unsafe {
        let params = CString::new(r#"{"resourceId": "c"}"#).unwrap();
        let code =
            ghl_access_token_with(abi.handle(), params.as_ptr(), ptr::null_mut(), ptr::null_mut());
        assert_eq!(code, Status::NotFound.code());
        let code =
            ghl_access_token_with(abi.handle(), ptr::null(), ptr::null_mut(), ptr::null_mut());
        assert_eq!(code, Status::InvalidArgument.code());
    }
}

#[test]
fn refresh_with_options_refreshes_now() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    sent(&emulator);
    let metadata = abi.token_refresh_with(json!({"resourceId": company, "timeoutMs": 60_000})).ok();
    assert_eq!(metadata["resourceId"], company);
    assert_eq!(sent(&emulator), ["refresh 200"]);
}

/// Calls `ghl_access_token_try_into` with a buffer of this size: the status, the token, `*length`.
fn try_into(abi: &Abi, resource_id: &str, size: usize) -> (i32, String, usize) {
    let resource_id = CString::new(resource_id).unwrap();
    let (mut buffer, mut length) = (vec![b'x'; size], size);
    // SAFETY: a valid client and valid pointers; the buffer is as long as `length` says.
    let code = unsafe {
        ghl_access_token_try_into(
            abi.handle(),
            resource_id.as_ptr(),
            buffer.as_mut_ptr().cast::<c_char>(),
            &mut length,
        )
    };
    let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(0);
    (code, String::from_utf8(buffer[..end].to_vec()).unwrap(), length)
}

#[test]
fn token_is_tried_in_memory_only() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    let token = abi.live_token(&emulator, &company);
    sent(&emulator);
    assert_eq!(try_into(&abi, &company, 4096), (0, token.clone(), token.len() + 1));
    let too_small = Status::BufferTooSmall.code();
    assert_eq!(try_into(&abi, &company, 8), (too_small, String::new(), token.len() + 1));
    assert_eq!(try_into(&abi, &company, token.len()).0, too_small);
    assert_eq!(try_into(&abi, &company, token.len() + 1).0, 0);
    let missing = (Status::Timeout.code(), String::new(), 0);
    assert_eq!(try_into(&abi, "unknown", 4096), missing);
    emulator.clock().advance(DAY);
    assert_eq!(try_into(&abi, &company, 4096), missing);
    assert_eq!(sent(&emulator), [""; 0]);

    let refused = Status::InvalidArgument.code();
    let id = CString::new("c").unwrap();
    let mut length = 8;
    // SAFETY: NULL is allowed.
    unsafe {
        let (client, null) = (abi.handle(), ptr::null_mut());
        assert_eq!(ghl_access_token_try_into(client, id.as_ptr(), null, &mut length), refused);
        assert_eq!(length, 0);
        assert_eq!(ghl_access_token_try_into(client, id.as_ptr(), null, ptr::null_mut()), refused);
        assert_eq!(ghl_access_token_try_into(client, ptr::null(), null, &mut length), refused);
        let none = ptr::null_mut();
        assert_eq!(ghl_access_token_try_into(none, id.as_ptr(), null, &mut length), refused);
    }
}

#[test]
fn library_describes_itself() {
    let mut info = ptr::dangling_mut();
    // SAFETY: a valid pointer, and NULL.
    let code = unsafe { (ghl_library_info(&mut info), ghl_library_info(ptr::null_mut())) };
    assert_eq!(code, (0, 0));
    let info: Value = serde_json::from_str(&take(info)).unwrap();
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["abiVersion"], ghl_abi_version());
    assert_eq!(info["tls"], "rustls");
    let stores = info["stores"].as_array().unwrap();
    assert_eq!(stores[..2], [json!("memory"), json!("callbacks")]);
    assert_eq!(stores.contains(&json!("sqlite")), cfg!(feature = "sqlite"));
    assert_eq!(stores.contains(&json!("postgres")), cfg!(feature = "postgres"));
    let features = info["features"].as_array().unwrap();
    assert_eq!(features.contains(&json!("bundled-sqlite")), cfg!(feature = "bundled-sqlite"));
}
