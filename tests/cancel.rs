//! Cancellation: waiting callers return at once, and requests that spend a token continue.

mod support;

use std::ffi::CString;
use std::net::TcpListener;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::ghl_call_cancel;
use ghl_oauth_emulator::{Emulator, Endpoint, FaultKind, GrantType, Rule, Stage};
use serde_json::{Value, json};

use support::{
    Abi, DAY, Outcome, call_concurrently, emulator, fields, free_port, response, sent, with_client,
    with_company,
};

fn refreshes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken)
}

/// A client whose company token has expired.
fn with_a_dead_token(emulator: &Emulator) -> (Abi, String) {
    let abi = Abi::new(emulator);
    let company = abi.connect_company(emulator);
    emulator.clock().advance(DAY);
    sent(emulator);
    (abi, company)
}

#[test]
fn cancelled_waiter_returns_at_once_and_the_refresh_continues_and_is_saved() {
    let emulator = emulator(1);
    let (abi, company) = with_a_dead_token(&emulator);
    for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
        let hold = emulator.hold(refreshes(), stage);
        thread::scope(|scope| {
            let leader = scope.spawn(|| abi.access_token(&company));
            hold.wait_for(1);
            let left = AtomicUsize::new(0);
            let wait = || {
                let outcome = abi.access_token(&company);
                left.fetch_add(1, Ordering::SeqCst);
                outcome
            };
            let outcomes = call_concurrently(16, wait, || {
                abi.cancel_until(|| left.load(Ordering::SeqCst) == 16)
            });
            for outcome in outcomes {
                let error = outcome.fails(Status::Cancelled);
                assert_eq!(
                    (&error["retryable"], &error["resourceId"]),
                    (&json!(true), &json!(company))
                );
            }
            assert!(!leader.is_finished(), "the refresh is still in progress");
            assert_eq!(hold.arrived(), 1);
            hold.release();
            // The leader still returns the new token to its own caller.
            let token = leader.join().unwrap().text();
            assert!(emulator.access_token_is_live(&token));
            assert_eq!(abi.live_token(&emulator, &company), token);
        });
        assert_eq!(sent(&emulator), ["refresh 200"]);
        // The saved refresh token is the newest one of the server.
        emulator.clock().advance(DAY);
    }
    abi.live_token(&emulator, &company);
    assert_eq!(emulator.refreshes(), 3);
}

#[test]
fn cancelled_code_exchange_continues_until_its_token_is_stored() {
    let (emulator, abi) = with_client(1);
    let company = emulator.company_id();
    let hold = emulator.hold(Rule::on(Endpoint::Token), Stage::AfterProcessing);
    thread::scope(|scope| {
        let completing = scope.spawn(|| abi.connect_company(&emulator));
        hold.wait_for(1);
        for _ in 0..100 {
            abi.cancel();
        }
        assert!(!completing.is_finished());
        hold.release();
        completing.join().unwrap();
    });
    abi.live_token(&emulator, &company);
    assert_eq!(sent(&emulator), ["code 200"]);
}

/// A call that may be aborted, and the endpoint of its requests.
type Abandoned = (&'static str, Endpoint, fn(&Abi, &Emulator) -> Outcome);

const ABANDONED: [Abandoned; 4] = [
    ("list", Endpoint::InstalledLocations, |abi, emulator| {
        abi.oauth_installed_locations(json!({"companyId": emulator.company_id()}))
    }),
    ("raw mint", Endpoint::LocationToken, |abi, emulator| {
        let location = &emulator.location_ids()[0];
        abi.oauth_location_token(
            json!({"companyId": emulator.company_id(), "locationId": location}),
        )
    }),
    ("mint", Endpoint::LocationToken, |abi, emulator| {
        abi.access_token(&emulator.location_ids()[0])
    }),
    ("credentials", Endpoint::Token, |abi, _| {
        abi.oauth_token(json!({"grantType": "client_credentials"}))
    }),
];

#[test]
fn cancelled_request_that_spends_nothing_is_aborted_and_the_client_keeps_working() {
    for stage in [Stage::BeforeProcessing, Stage::AfterProcessing] {
        for (name, endpoint, call) in ABANDONED {
            let (emulator, abi, _) = with_company(1);
            sent(&emulator);
            let hold = emulator.hold(Rule::on(endpoint), stage);
            thread::scope(|scope| {
                let caller = scope.spawn(|| call(&abi, &emulator));
                hold.wait_for(1);
                abi.cancel_until(|| caller.is_finished());
                caller.join().unwrap().fails(Status::Cancelled);
            });
            // The server sees the disconnect, and nothing was sent again.
            hold.wait_until_empty();
            assert_eq!(hold.arrived(), 1, "{name}");
            hold.release();
            call(&abi, &emulator).ok();
        }
    }
}

#[test]
fn cancelled_request_with_a_stalled_body_is_aborted() {
    let (emulator, abi, company) = with_company(1);
    let silence =
        FaultKind::CutBody { body_bytes: 10, ending: ghl_oauth_emulator::Ending::Silence };
    let fault = emulator.inject(Rule::on(Endpoint::InstalledLocations), silence);
    thread::scope(|scope| {
        let caller = scope.spawn(|| abi.oauth_installed_locations(json!({"companyId": company})));
        while emulator.strikes(fault) == 0 {
            thread::yield_now();
        }
        abi.cancel_until(|| caller.is_finished());
        caller.join().unwrap().fails(Status::Cancelled);
    });
    assert_eq!(emulator.strikes(fault), 1);
}

#[test]
fn cancellation_ends_a_pause_between_two_attempts() {
    let (emulator, abi, company) = with_company(1);
    // Shorter than the deadline, so that the library waits instead of returning an error.
    let limited = response(429, "", &[("Retry-After", "25")]);
    let fault = emulator.inject(Rule::default(), limited);
    let calls: [&(dyn Fn() -> Outcome + Sync); 3] = [
        &|| abi.oauth_installed_locations(json!({"companyId": company})),
        &|| abi.token_refresh(&company),
        &|| abi.oauth_token(json!({"grantType": "authorization_code", "code": "some code"})),
    ];
    for (count, call) in (1..).zip(calls) {
        thread::scope(|scope| {
            let caller = scope.spawn(call);
            while emulator.strikes(fault) < count {
                thread::yield_now();
            }
            abi.cancel_until(|| caller.is_finished());
            caller.join().unwrap().fails(Status::Cancelled);
        });
        assert_eq!(emulator.strikes(fault), count);
    }
    // The refresh that was cancelled between its attempts has spent no token.
    assert_eq!((emulator.refreshes(), abi.listed(&company)["state"].as_str()), (0, Some("ok")));
}

#[test]
fn cancellation_ends_the_retries_of_a_forced_refresh() {
    let (emulator, abi, company) = with_company(1);
    emulator.clock().advance(DAY);
    let fault = emulator.inject(Rule::default(), FaultKind::ReplyLost);
    thread::scope(|scope| {
        let caller = scope.spawn(|| abi.access_token(&company));
        while emulator.strikes(fault) < 3 {
            assert!(!caller.is_finished(), "the call gave up");
            thread::yield_now();
        }
        abi.cancel_until(|| caller.is_finished());
        caller.join().unwrap().fails(Status::Cancelled);
    });
    // The next call continues the refresh of unknown outcome.
    emulator.clear_faults();
    abi.live_token(&emulator, &company);
    assert_eq!(emulator.refreshes(), 1);
}

#[test]
fn cancellation_ends_a_wait_for_the_rate_limiter() {
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"rateLimit": {"requests": 1, "perMs": 25_000}}));
    let company = abi.connect_company(&emulator);
    let list = || abi.oauth_installed_locations(json!({"companyId": company}));
    list().ok();
    sent(&emulator);
    let done = AtomicUsize::new(0);
    let outcomes = call_concurrently(
        1,
        || {
            let outcome = list();
            done.fetch_add(1, Ordering::SeqCst);
            outcome
        },
        || abi.cancel_until(|| done.load(Ordering::SeqCst) == 1),
    );
    for outcome in outcomes {
        outcome.fails(Status::Cancelled);
    }
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn cancellation_ends_a_wait_for_a_resource_that_is_being_refreshed() {
    let emulator = emulator(1);
    let (abi, company) = with_a_dead_token(&emulator);
    let tokens = abi.tokens_export(json!({})).ok()["tokens"].clone();
    let calls: [&(dyn Fn() -> Outcome + Sync); 4] = [
        &|| abi.token_delete(&company),
        &|| abi.token_refresh(&company),
        &|| abi.tokens_import(json!({"tokens": tokens, "replace": true})),
        &|| abi.tokens_maintain(json!({}), |_| true),
    ];
    for call in calls {
        let hold = emulator.hold(refreshes(), Stage::BeforeProcessing);
        thread::scope(|scope| {
            let refreshing = scope.spawn(|| abi.access_token(&company).text());
            hold.wait_for(1);
            let done = AtomicUsize::new(0);
            let waiting = || {
                let outcome = call();
                done.fetch_add(1, Ordering::SeqCst);
                outcome
            };
            let outcomes = call_concurrently(1, waiting, || {
                abi.cancel_until(|| done.load(Ordering::SeqCst) == 1)
            });
            for Outcome(code, document) in outcomes {
                // Maintenance that is cancelled at its last token has nothing left to stop.
                let listed = &document["failed"][0]["error"]["status"];
                assert!(
                    code == Status::Cancelled.code()
                        || (code == 0 && listed == Status::Cancelled.name()),
                    "{document}"
                );
            }
            hold.release();
            assert!(emulator.access_token_is_live(&refreshing.join().unwrap()));
        });
        emulator.clock().advance(DAY);
    }
    abi.live_token(&emulator, &company);
}

#[test]
fn cancelled_maintenance_ends_between_two_tokens() {
    for by_progress in [true, false] {
        let (emulator, abi, _) = with_company(3);
        for location in emulator.location_ids() {
            abi.live_token(&emulator, &location);
        }
        emulator.clock().advance(DAY);
        sent(&emulator);
        let mut told = 0;
        let outcome = abi.tokens_maintain(json!({}), |so_far| {
            told += 1;
            assert_eq!(so_far["checked"], told);
            if !by_progress && told == 2 {
                abi.cancel();
            }
            !(by_progress && told == 2)
        });
        let error = outcome.fails(Status::Cancelled);
        assert!(error["help"].as_str().unwrap().contains("call again"), "{error}");
        assert_eq!((told, sent(&emulator)), (2, vec!["refresh 200".to_owned(); 2]));
        let rest = abi.tokens_maintain(json!({}), |_| true).ok();
        assert_eq!(
            rest["refreshed"], 2,
            "the renewed tokens were saved, and the others are renewed now"
        );
    }
}

/// A server that accepts connections and never reads: the kernel's buffers fill up.
fn deaf() -> (TcpListener, Value) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let config = json!({
        "clientId": "app-1", "clientSecret": "some secret", "baseUrl": base_url,
        "timeouts": {"connectMs": 60_000, "totalMs": 60_000},
    });
    (listener, config)
}

/// More than the buffers of both sides hold.
fn large_upload() -> Value {
    let body = "x".repeat(16 << 20);
    json!({"method": "POST", "path": "/upload", "body": body})
}

/// Far below the stall of 60 s, and generous for a busy machine.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn cancellation_and_deadline_end_the_writing_of_a_body_that_the_server_does_not_read() {
    let (_listener, mut config) = deaf();
    let abi = Abi::open(&config).unwrap();
    let began = Instant::now();
    thread::scope(|scope| {
        let caller = scope.spawn(|| abi.request(large_upload()));
        abi.cancel_until(|| caller.is_finished());
        caller.join().unwrap().fails(Status::Cancelled);
    });
    config["timeouts"]["totalMs"] = 300.into();
    Abi::open(&config).unwrap().request(large_upload()).fails(Status::Timeout);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[cfg(target_os = "linux")]
#[test]
fn cancellation_ends_a_connection_attempt_without_an_answer() {
    use std::net::TcpStream;
    use std::os::fd::AsRawFd;

    let (listener, config) = deaf();
    // SAFETY: a listening socket, whose backlog is reduced.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    let mut crowd = Vec::new();
    while let Ok(client) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        crowd.push(client);
        if crowd.len() > 64 {
            println!("skipped: the backlog of this system is unlimited");
            return;
        }
    }
    let abi = Abi::open(&config).unwrap();
    let began = Instant::now();
    // Nothing was sent, so that even a call that spends a code can be cancelled.
    let calls: [&(dyn Fn() -> Outcome + Sync); 2] =
        [&|| abi.request(json!({"method": "GET", "path": "/x"})), &|| {
            abi.oauth_token(json!({"grantType": "authorization_code", "code": "some code"}))
        }];
    for call in calls {
        thread::scope(|scope| {
            let caller = scope.spawn(call);
            abi.cancel_until(|| caller.is_finished());
            caller.join().unwrap().fails(Status::Cancelled);
        });
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn cancellation_does_not_affect_later_calls() {
    let (emulator, abi) = with_client(1);
    abi.cancel();
    let company = abi.connect_company(&emulator);
    abi.cancel();
    abi.live_token(&emulator, &company);
    abi.token_refresh(&company).ok();
    abi.cancel();
    abi.live_token(&emulator, &emulator.location_ids()[0]);
    abi.oauth_installed_locations(json!({"companyId": company})).ok();
    let requests = emulator.requests();
    assert_eq!(fields(&requests[0])["grantType"], "authorization_code");
    assert_eq!(sent(&emulator), ["code 200", "refresh 200", "mint 200", "list 200"]);
}

/// Makes a call with the ID "mine", and cancels it by this ID once it waits.
fn cancelled_by_id(abi: &Abi, call: &(dyn Fn() -> Outcome + Sync)) -> Outcome {
    let done = AtomicUsize::new(0);
    let waiting = || {
        let outcome = call();
        done.fetch_add(1, Ordering::SeqCst);
        outcome
    };
    let mut outcomes = call_concurrently(1, waiting, || {
        assert_eq!(done.load(Ordering::SeqCst), 0, "the call waits");
        assert_eq!(abi.cancel_call("mine"), 0);
    });
    outcomes.remove(0)
}

#[test]
fn call_cancelled_by_its_id_ends_and_the_others_continue() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    let list = |params: Value| {
        let mut all = json!({"companyId": company});
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        abi.oauth_installed_locations(all)
    };
    let hold = emulator.hold(Rule::on(Endpoint::InstalledLocations), Stage::BeforeProcessing);
    thread::scope(|scope| {
        let sharing: Vec<_> =
            (0..3).map(|_| scope.spawn(|| list(json!({"callId": "shared"})))).collect();
        let other = scope.spawn(|| list(json!({"callId": "other"})));
        let unnamed = scope.spawn(|| list(json!({})));
        hold.wait_for(5);
        for unknown in ["share", "shared ", "nothing"] {
            assert_eq!(abi.cancel_call(unknown), 0);
        }
        // Twice: the second one finds calls that are ending.
        assert_eq!((abi.cancel_call("shared"), abi.cancel_call("shared")), (0, 0));
        for caller in sharing {
            caller.join().unwrap().fails(Status::Cancelled);
        }
        assert!(!other.is_finished() && !unnamed.is_finished());
        hold.release();
        other.join().unwrap().ok();
        unnamed.join().unwrap().ok();
    });
    // A later call with the same ID.
    list(json!({"callId": "shared"})).ok();
}

#[test]
fn call_is_cancelled_by_its_id_in_every_wait() {
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"rateLimit": {"requests": 2, "perMs": 25_000}}));
    let company = abi.connect_company(&emulator);
    abi.live_token(&emulator, &emulator.location_ids()[0]);
    let list = || abi.oauth_installed_locations(json!({"companyId": company, "callId": "mine"}));
    // The token endpoint has its own limit; the mint and this request use up the company's.
    list().ok();
    cancelled_by_id(&abi, &list).fails(Status::Cancelled);
    cancelled_by_id(&abi, &|| {
        let request = json!({"method": "GET", "path": "/oauth/installed-locations",
            "resourceId": company, "callId": "mine"});
        abi.request(request)
    })
    .fails(Status::Cancelled);
    cancelled_by_id(&abi, &|| {
        abi.authorization_listen(json!({"port": free_port(), "callId": "mine"}))
    })
    .fails(Status::Cancelled);

    // A pause before a repetition.
    let limited = FaultKind::Status {
        status: 429,
        body: String::new(),
        content_type: None,
        headers: vec![("Retry-After".into(), "25".into())],
        stage: Stage::BeforeProcessing,
    };
    let fault = emulator.inject(refreshes(), limited);
    cancelled_by_id(&abi, &|| {
        let outcome = abi.token_refresh_with(json!({"resourceId": company, "callId": "mine"}));
        assert_eq!(emulator.strikes(fault), 1);
        outcome
    })
    .fails(Status::Cancelled);
    emulator.clear_faults();
}

#[test]
fn call_that_waits_for_a_refresh_is_cancelled_by_its_id() {
    let emulator = emulator(1);
    let (abi, company) = with_a_dead_token(&emulator);
    let tokens = abi.tokens_export(json!({})).ok()["tokens"].clone();
    let resource = || json!({"resourceId": company, "callId": "mine"});
    let hold = emulator.hold(refreshes(), Stage::BeforeProcessing);
    thread::scope(|scope| {
        let leader = scope.spawn(|| abi.access_token(&company));
        hold.wait_for(1);
        let calls: [&(dyn Fn() -> Outcome + Sync); 3] = [
            &|| abi.access_token_with(resource()),
            &|| abi.token_refresh_with(resource()),
            &|| abi.tokens_import(json!({"tokens": tokens, "replace": true, "callId": "mine"})),
        ];
        for call in calls {
            cancelled_by_id(&abi, call).fails(Status::Cancelled);
        }
        assert!(!leader.is_finished());
        hold.release();
        let token = leader.join().unwrap().text();
        assert!(emulator.access_token_is_live(&token));
    });
    assert_eq!(sent(&emulator), ["refresh 200"]);
}

#[test]
fn refresh_that_was_sent_is_completed_although_its_call_is_cancelled_by_its_id() {
    let emulator = emulator(1);
    let (abi, company) = with_a_dead_token(&emulator);
    let hold = emulator.hold(refreshes(), Stage::AfterProcessing);
    thread::scope(|scope| {
        let params = json!({"resourceId": company, "callId": "mine"});
        let leader = scope.spawn(|| abi.access_token_with(params));
        hold.wait_for(1);
        for _ in 0..100 {
            abi.cancel_call("mine");
        }
        assert!(!leader.is_finished());
        hold.release();
        let token = leader.join().unwrap().text();
        assert!(emulator.access_token_is_live(&token));
    });
    abi.live_token(&emulator, &company);
    assert_eq!(sent(&emulator), ["refresh 200"]);
}

#[test]
fn follower_of_a_leader_that_is_cancelled_by_its_id_takes_over() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    abi.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    sent(&emulator);
    let hold = emulator.hold(Rule::on(Endpoint::LocationToken), Stage::BeforeProcessing);
    thread::scope(|scope| {
        let params = json!({"resourceId": location, "callId": "leader"});
        let leader = scope.spawn(|| abi.access_token_with(params));
        hold.wait_for(1);
        let followers = call_concurrently(
            8,
            || abi.access_token(&location),
            || {
                assert_eq!(abi.cancel_call("leader"), 0);
                leader.join().unwrap().fails(Status::Cancelled);
                // One of the followers mints now.
                hold.wait_for(2);
                hold.release();
            },
        );
        for follower in followers {
            assert!(emulator.access_token_is_live(&follower.text()));
        }
    });
    let minted = sent(&emulator).iter().filter(|sent| *sent == "mint 200").count();
    assert_eq!(minted, 1);
}

#[test]
fn bulk_call_is_cancelled_by_its_id_with_its_workers() {
    for concurrency in [1, 4] {
        let emulator = emulator(6);
        let abi = Abi::new(&emulator);
        let company = abi.connect_company(&emulator);
        let hold = emulator.hold(Rule::on(Endpoint::LocationToken), Stage::BeforeProcessing);
        let mint = json!({"companyId": company, "installed": true, "concurrency": concurrency,
            "callId": "mine"});
        thread::scope(|scope| {
            let minting = scope.spawn(|| abi.tokens_mint(mint.clone(), |_| true));
            hold.wait_for(concurrency);
            assert_eq!(abi.cancel_call("mine"), 0);
            minting.join().unwrap().fails(Status::Cancelled);
        });
        hold.release();
        assert_eq!(abi.tokens_mint(mint, |_| true).ok()["total"], 6);

        emulator.clock().advance(DAY);
        sent(&emulator);
        let hold = emulator.hold(refreshes(), Stage::AfterProcessing);
        thread::scope(|scope| {
            let pass = json!({"callId": "mine", "concurrency": concurrency});
            let maintaining = scope.spawn(|| abi.tokens_maintain(pass, |_| true));
            hold.wait_for(concurrency);
            assert_eq!(abi.cancel_call("mine"), 0);
            hold.release();
            maintaining.join().unwrap().fails(Status::Cancelled);
        });
        // The refreshes that were sent are completed, and no other was sent.
        assert_eq!(sent(&emulator), vec!["refresh 200"; concurrency]);
        let rest = abi.tokens_maintain(json!({}), |_| true).ok();
        assert_eq!((&rest["failed"], &rest["refreshed"]), (&json!([]), &json!(7 - concurrency)));
    }
}

#[test]
fn call_is_cancelled_by_its_id_from_its_own_callbacks() {
    let emulator = emulator(3);
    let (abi, _) = with_a_dead_token(&emulator);
    let company = emulator.company_id();
    for location in emulator.location_ids() {
        abi.live_token(&emulator, &location);
    }
    // From the progress callback.
    emulator.clock().advance(DAY);
    abi.tokens_maintain(json!({"callId": "mine"}), |_| {
        assert_eq!(abi.cancel_call("mine"), 0);
        true
    })
    .fails(Status::Cancelled);

    // From the event callback.
    emulator.clock().advance(DAY);
    let client = abi.handle().expose_provenance();
    let cancelled = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&cancelled);
    abi.listen_with(move |_| {
        let id = CString::new("mine").unwrap();
        // SAFETY: the client lives as long as its listener.
        let code =
            unsafe { ghl_call_cancel(ptr::with_exposed_provenance_mut(client), id.as_ptr()) };
        assert_eq!(code, 0);
        seen.fetch_add(1, Ordering::SeqCst);
    });
    // The event comes after the token was saved: the call returns it.
    abi.access_token_with(json!({"resourceId": company, "callId": "mine"})).ok();
    assert_eq!(cancelled.load(Ordering::SeqCst), 1);
    abi.stop_listening();
}

#[test]
fn cancellation_by_id_that_races_with_the_end_of_calls_does_no_harm() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let company = abi.connect_company(&emulator);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                assert_eq!(abi.cancel_call("mine"), 0);
            }
        });
        let callers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let Outcome(code, document) = abi.tokens_list(json!({"callId": "mine"}));
                        assert!([0, Status::Cancelled.code()].contains(&code), "{document}");
                        abi.tokens_list(json!({"callId": "other"})).ok();
                        abi.tokens_list(json!({})).ok();
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.join().unwrap();
        }
        over.store(true, Ordering::SeqCst);
    });
    abi.access_token_with(json!({"resourceId": company, "callId": "mine"})).ok();
}

#[test]
fn id_that_no_call_can_have_is_refused() {
    let emulator = emulator(1);
    let abi = Abi::new(&emulator);
    let refused = Status::InvalidArgument.code();
    assert_eq!(abi.cancel_call(""), refused);
    assert_eq!(abi.cancel_call(&"x".repeat(257)), refused);
    assert_eq!(abi.cancel_call(&"x".repeat(256)), 0);
    let invalid = CString::new(vec![0xff]).unwrap();
    // SAFETY: valid pointers, or NULL.
    unsafe {
        assert_eq!(ghl_call_cancel(abi.handle(), ptr::null()), refused);
        assert_eq!(ghl_call_cancel(abi.handle(), invalid.as_ptr()), refused);
        assert_eq!(ghl_call_cancel(ptr::null_mut(), c"mine".as_ptr()), refused);
    }
}
