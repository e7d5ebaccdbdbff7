//! Requests to any endpoint with a live token: bytes on the wire, responses, and retries after an
//! expired token.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ghl_oauth::Status;
use ghl_oauth_emulator::{Emulator, Endpoint, FaultKind, GrantType, Rule, Stage};
use serde_json::{Value, json};

use support::{Abi, DAY, Outcome, emulator, header, only_request, response, with_client};

/// A client with the tokens of the company and its first location.
fn connected(emulator: &Emulator) -> (Abi, String) {
    let abi = Abi::new(emulator);
    abi.connect_company(emulator);
    let location = emulator.location_ids()[0].clone();
    abi.live_token(emulator, &location);
    emulator.clear_requests();
    (abi, location)
}

fn answer(status: u16, content_type: &str, body: &str) -> FaultKind {
    FaultKind::Status {
        status,
        body: body.to_owned(),
        content_type: Some(content_type.to_owned()),
        headers: vec![],
        stage: Stage::BeforeProcessing,
    }
}

const JSON: &str = "application/json; charset=utf-8";

/// The paths and statuses since the last call.
fn paths(emulator: &Emulator) -> Vec<String> {
    let requests = emulator.requests();
    emulator.clear_requests();
    requests.iter().map(|request| format!("{} {}", request.path, request.status)).collect()
}

#[test]
fn location_is_read_with_its_own_token_and_the_whole_response_is_returned() {
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    let path = format!("/locations/{location}");
    let answer = abi.request(json!({"method": "GET", "path": path, "resourceId": location})).ok();
    assert_eq!((&answer["status"], &answer["bodyEncoding"]), (&json!(200), &json!("json")));
    assert_eq!(answer["body"]["location"]["_id"], location.as_str(), "{answer}");
    assert!(answer["headers"]["content-type"].as_str().unwrap().starts_with("application/json"));
    assert!(answer["headers"]["x-ratelimit-remaining"].is_string());
    let request = only_request(&emulator);
    assert_eq!(header(&request, "version"), Some("v3"));
    assert_eq!(header(&request, "accept"), Some("application/json"));
    let token = abi.access_token(&location).text();
    assert_eq!(header(&request, "authorization"), Some(&*format!("Bearer {token}")));

    let absolute = format!("{}{path}", emulator.base_url());
    abi.request(json!({"method": "GET", "path": absolute, "resourceId": location})).ok();
}

#[test]
fn method_path_headers_and_body_are_sent_unchanged() {
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    emulator.inject(Rule::default(), answer(200, JSON, "{}"));
    let form = json!({"Content-Type": "application/x-www-form-urlencoded"});
    for (more, content_type, body) in [
        (json!({"body": {"a": [1, null, "é"]}}), Some("application/json"), r#"{"a":[1,null,"é"]}"#),
        (json!({"body": [1, 2]}), Some("application/json"), "[1,2]"),
        (json!({"body": false}), Some("application/json"), "false"),
        (json!({"body": "a & b"}), Some("text/plain; charset=utf-8"), "a & b"),
        (
            json!({"body": "<a/>", "headers": {"content-type": "application/xml"}}),
            Some("application/xml"),
            "<a/>",
        ),
        (
            json!({"body": {"a b": "c&d", "e": [1, true], "f": null}, "headers": form}),
            Some("application/x-www-form-urlencoded"),
            "a+b=c%26d&e=1&e=true",
        ),
        (json!({"body": "a=b", "headers": form}), Some("application/x-www-form-urlencoded"), "a=b"),
        (
            json!({"bodyBase64": STANDARD.encode([0_u8, 255, 7])}),
            Some("application/octet-stream"),
            "\u{0}\u{fffd}\u{7}",
        ),
        (json!({}), None, ""),
        (json!({"body": null}), None, ""),
    ] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let mut request =
                json!({"method": method, "path": "/contacts/", "resourceId": location});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            abi.request(request).ok();
            let sent = only_request(&emulator);
            assert_eq!((sent.method.as_str(), sent.path.as_str()), (method, "/contacts/"));
            assert_eq!(
                (header(&sent, "content-type"), sent.body.as_str()),
                (content_type, body),
                "{more}"
            );
            // A server may refuse a body in chunks, or one of unknown length.
            assert_eq!(header(&sent, "transfer-encoding"), None, "{method} {more}");
            let length = body.replace('\u{fffd}', "?").len().to_string();
            let length = (method != "DELETE" || content_type.is_some()).then_some(&*length);
            assert_eq!(header(&sent, "content-length"), length, "{method} {more}");
        }
    }
    let request = json!({
        "method": "GET", "path": "/contacts/?fixed=1", "resourceId": location,
        "query": {"limit": 20, "tag": ["a b", "c&d"], "all": true, "none": null},
        "headers": {"Version": "2021-07-28", "Accept": "text/csv", "X-Own": "é"},
    });
    abi.request(request).ok();
    let sent = only_request(&emulator);
    assert_eq!(sent.query, "fixed=1&all=true&limit=20&tag=a+b&tag=c%26d");
    assert_eq!(
        (header(&sent, "version"), header(&sent, "accept")),
        (Some("2021-07-28"), Some("text/csv"))
    );
    assert_eq!(header(&sent, "x-own"), Some("é"));
}

/// Documents that change when they are parsed into numbers and maps and written again.
const FRAGILE: [&str; 6] = [
    "12345678901234567890123",
    "1e400",
    "-0.10",
    r#"{"z":1,"a":1.0,"z":2,"id":9007199254740993,"e":"\u00e9\/"}"#,
    r#"[1.0, 1E2,  {"b": [ ], "a": {"y": 0, "x": 1e-7}}]"#,
    r#""caf\u00e9""#,
];

#[test]
fn json_bodies_pass_byte_for_byte_in_both_directions() {
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    for document in FRAGILE {
        let fault = emulator.inject(Rule::default(), answer(200, JSON, document));
        let request = format!(
            r#"{{"method":"POST","path":"/x","resourceId":"{location}","body": {document} }}"#
        );
        let text = abi.request_text(&request);
        let expected = format!(r#""body":{document},"bodyEncoding":"json""#);
        assert!(text.contains(&expected), "{text}");
        let sent = only_request(&emulator).body;
        // A string is sent as text.
        assert_eq!(sent, if document.starts_with('"') { "café" } else { document });
        emulator.remove_fault(fault);
    }
    // A form keeps the order of the fields and the digits of its numbers.
    emulator.inject(Rule::default(), answer(200, JSON, "{}"));
    let form = r#"{"method":"POST","path":"/x","headers":{"Content-Type":"application/x-www-form-urlencoded"},
        "body":{"z":1.0,"a":12345678901234567890123,"z":["\u00e9",null,true]}}"#;
    abi.request_text(form);
    let sent = only_request(&emulator).body;
    assert_eq!(sent, "z=1.0&a=12345678901234567890123&z=%C3%A9&z=true");
}

#[test]
fn json_that_other_parsers_reject_is_returned_as_text() {
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    for body in [r#"{"a":"\ud800"}"#.to_owned(), "[".repeat(200) + &"]".repeat(200)] {
        let fault = emulator.inject(Rule::default(), answer(200, JSON, &body));
        let answer =
            abi.request(json!({"method": "GET", "path": "/x", "resourceId": location})).ok();
        assert_eq!((&answer["body"], &answer["bodyEncoding"]), (&json!(body), &json!("text")));
        emulator.remove_fault(fault);
    }
}

#[test]
fn cookies_of_a_response_stay_apart() {
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    let get = || abi.request(json!({"method": "GET", "path": "/x", "resourceId": location})).ok();
    let headers = |cookies: &[&str]| FaultKind::Status {
        status: 200,
        body: "{}".to_owned(),
        content_type: Some(JSON.to_owned()),
        headers: [("X-Many", "1"), ("X-Many", "2")]
            .into_iter()
            .chain(cookies.iter().map(|cookie| ("Set-Cookie", *cookie)))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        stage: Stage::BeforeProcessing,
    };
    let cookies = ["a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2"];
    let fault = emulator.inject(Rule::default(), headers(&cookies));
    let answer = get();
    assert_eq!(answer["setCookies"], json!(cookies));
    assert_eq!(answer["headers"]["set-cookie"], cookies.join(", "));
    assert_eq!(answer["headers"]["x-many"], "1, 2");
    emulator.remove_fault(fault);
    emulator.inject(Rule::default(), headers(&[]));
    assert_eq!(get().get("setCookies"), None);
}

#[test]
fn response_of_every_status_and_content_type_is_returned() {
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    let get = || abi.request(json!({"method": "GET", "path": "/x", "resourceId": location})).ok();
    for (status, content_type, body, shown, encoding) in [
        (200, JSON, r#"{"a":1}"#, json!({"a": 1}), "json"),
        (200, "application/problem+json", "[1]", json!([1]), "json"),
        (201, JSON, "null", Value::Null, "json"),
        (200, JSON, "not JSON", json!("not JSON"), "text"),
        (404, JSON, r#"{"error":{"code":"X"}}"#, json!({"error": {"code": "X"}}), "json"),
        (422, "text/html", "<p>é</p>", json!("<p>é</p>"), "text"),
        (403, "text/plain", "", json!(""), "text"),
        (302, "text/plain", "elsewhere", json!("elsewhere"), "text"),
        (500, "text/plain", "oops", json!("oops"), "text"),
        (429, JSON, "{}", json!({}), "json"),
    ] {
        let fault = emulator.inject(Rule::default(), answer(status, content_type, body));
        let shown_answer = get();
        assert_eq!(
            (&shown_answer["status"], &shown_answer["body"], &shown_answer["bodyEncoding"]),
            (&json!(status), &shown, &json!(encoding)),
        );
        let times = if [429, 500].contains(&status) { 3 } else { 1 };
        assert_eq!(emulator.strikes(fault), times, "{status}");
        emulator.clear_faults();
    }
    let bytes = FaultKind::Gzip { marked: false };
    emulator.inject(Rule::default(), answer(200, "text/plain", "x"));
    emulator.clear_faults();
    emulator.inject(Rule::default(), bytes);
    let path = format!("/locations/{location}");
    let binary = abi.request(json!({"method": "GET", "path": path, "resourceId": location})).ok();
    assert_eq!(binary["bodyEncoding"], "base64");
    let read = STANDARD.decode(binary["body"].as_str().unwrap()).unwrap();
    assert_eq!(read[..2], [0x1f, 0x8b]);
}

#[test]
fn request_without_a_resource_carries_no_token() {
    let emulator = emulator(1);
    let (abi, _) = connected(&emulator);
    emulator.inject(Rule::default(), answer(200, JSON, "{}"));
    abi.request(json!({"method": "GET", "path": "/x"})).ok();
    assert_eq!(header(&only_request(&emulator), "authorization"), None);
    abi.request(json!({"method": "GET", "path": "/x", "headers": {"Authorization": "Bearer own"}}))
        .ok();
    assert_eq!(header(&only_request(&emulator), "authorization"), Some("Bearer own"));
}

#[test]
fn expired_token_is_refreshed_once_and_the_request_repeated() {
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    let path = format!("/locations/{location}");
    // The library holds a token that the server no longer knows.
    for dead in ["Invalid JWT", "Invalid token: access token is invalid"] {
        let body = json!({"statusCode": 401, "message": dead}).to_string();
        emulator.inject(Rule::on(Endpoint::Location).times(1), answer(401, JSON, &body));
        let answer =
            abi.request(json!({"method": "GET", "path": path, "resourceId": location})).ok();
        assert_eq!(answer["status"], 200);
        assert_eq!(
            paths(&emulator),
            [format!("{path} 401"), "/oauth/token 200".into(), format!("{path} 200")]
        );
    }
    assert_eq!(emulator.refreshes(), 2);
}

#[test]
fn server_that_refuses_new_tokens_causes_one_refresh_and_not_one_per_call() {
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    let path = format!("/locations/{location}");
    let body = r#"{"statusCode": 401, "message": "Invalid JWT"}"#;
    emulator.inject(Rule::on(Endpoint::Location), answer(401, JSON, body));
    for _ in 0..5 {
        let answer =
            abi.request(json!({"method": "GET", "path": path, "resourceId": location})).ok();
        assert_eq!(
            (&answer["status"], &answer["body"]["message"]),
            (&json!(401), &json!("Invalid JWT"))
        );
    }
    assert_eq!(emulator.refreshes(), 1);
    // The next token of a regular refresh is tried, and refreshed again if necessary.
    emulator.clear_faults();
    emulator.clock().advance(DAY);
    abi.request(json!({"method": "GET", "path": path, "resourceId": location})).ok();
    assert_eq!(emulator.refreshes(), 2);
    emulator.inject(Rule::on(Endpoint::Location).times(1), answer(401, JSON, body));
    abi.request(json!({"method": "GET", "path": path, "resourceId": location})).ok();
    assert_eq!(emulator.refreshes(), 3);
}

#[test]
fn newer_token_of_another_process_is_used_after_a_renewed_one_was_refused() {
    let emulator = emulator(1);
    let folder = tempfile::tempdir().unwrap();
    let store = json!({"kind": "sqlite", "path": folder.path().join("tokens.db")});
    let config = support::config(&emulator, json!({"store": store}));
    let [abi, other] = [(), ()].map(|()| Abi::open(&config).unwrap());
    abi.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    abi.live_token(&emulator, &location);
    let request = json!({
        "method": "GET", "path": format!("/locations/{location}"), "resourceId": location,
    });
    let body = r#"{"statusCode": 401, "message": "Invalid JWT"}"#;
    emulator.inject(Rule::on(Endpoint::Location).times(3), answer(401, JSON, body));
    assert_eq!(abi.request(request.clone()).ok()["status"], 401);
    let refreshes = emulator.refreshes();
    // The renewed token is refused a second time.
    other.token_refresh(&location).ok();
    assert_eq!(abi.request(request.clone()).ok()["status"], 200);
    assert_eq!(emulator.refreshes(), refreshes + 1, "only the other process refreshed");
    assert_eq!(abi.access_token(&location).text(), other.access_token(&location).text());
}

#[test]
fn other_401_responses_cause_no_refresh() {
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    for message in [
        "The token is not authorized for this scope.",
        "version header is invalid",
        "Something new",
    ] {
        let body = json!({"statusCode": 401, "message": message}).to_string();
        emulator.inject(Rule::default(), answer(401, JSON, &body));
        let answer =
            abi.request(json!({"method": "GET", "path": "/x", "resourceId": location})).ok();
        assert_eq!(answer["body"]["message"], message);
        emulator.clear_faults();
    }
    assert_eq!(emulator.refreshes(), 0);
}

#[test]
fn write_request_is_repeated_only_if_it_had_no_effect() {
    /// A 503 with `Retry-After` means that nothing was done. Without it, a gateway may have sent it
    /// after forwarding the request.
    fn refused_for_now() -> FaultKind {
        response(503, "", &[("Retry-After", "0")])
    }
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    let html = |status| answer(status, "text/html", "<p>oops</p>");
    for (kind, get, post) in [
        (FaultKind::ReplyLost, 3, 1),
        (FaultKind::Reset { stage: Stage::BeforeProcessing }, 3, 1),
        (html(500), 3, 1),
        (html(502), 3, 1),
        (html(503), 3, 1),
        (refused_for_now(), 3, 3),
        (html(429), 3, 3),
        (html(400), 1, 1),
    ] {
        for (method, times) in
            [("GET", get), ("HEAD", get), ("POST", post), ("PUT", post), ("DELETE", post)]
        {
            let fault = emulator.inject(Rule::default(), kind.clone());
            let outcome =
                abi.request(json!({"method": method, "path": "/x", "resourceId": location}));
            assert_eq!(emulator.strikes(fault), times, "{method} {kind:?}");
            if matches!(kind, FaultKind::Status { .. }) {
                outcome.ok();
            } else {
                let error = outcome.fails(Status::Network);
                assert_eq!(error["resourceId"], location.as_str());
                // A request that may have had its effect is not simply tried again.
                let tries_again = error["help"].as_str().unwrap().contains("try again");
                assert_eq!(tries_again, error["retryable"] == true, "{method}: {error}");
            }
            emulator.clear_faults();
        }
    }
}

#[test]
fn caller_decides_whether_a_request_is_repeated() {
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    let html = |status| answer(status, "text/html", "<p>oops</p>");
    for (kind, method, more, times) in [
        (html(502), "POST", json!({"idempotent": true}), 3),
        (FaultKind::ReplyLost, "PUT", json!({"idempotent": true}), 3),
        (html(502), "GET", json!({"idempotent": false}), 1),
        (FaultKind::ReplyLost, "GET", json!({"idempotent": false}), 1),
        (html(429), "GET", json!({"idempotent": false}), 3),
        (html(502), "GET", json!({"retry": false}), 1),
        (html(429), "GET", json!({"retry": false}), 1),
        (html(429), "POST", json!({"retry": false, "idempotent": true}), 1),
        (FaultKind::ReplyLost, "GET", json!({"retry": false}), 1),
        (html(502), "GET", json!({"retry": true, "idempotent": null}), 3),
    ] {
        let fault = emulator.inject(Rule::default(), kind.clone());
        let mut request = json!({"method": method, "path": "/x", "resourceId": location});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let Outcome(code, _) = abi.request(request);
        let expected = if kind == FaultKind::ReplyLost { Status::Network.code() } else { 0 };
        assert_eq!(code, expected, "{method} {more} {kind:?}");
        assert_eq!(emulator.strikes(fault), times, "{method} {more} {kind:?}");
        emulator.clear_faults();
    }
    // A dead token is refused before anything is done: without `retry` as well, the token is
    // refreshed and the request repeated.
    emulator.clear_requests();
    let path = format!("/locations/{location}");
    emulator.expire_access_tokens();
    let request = json!({"method": "GET", "path": path, "resourceId": location, "retry": false});
    assert_eq!(abi.request(request).ok()["status"], 200);
    let request = json!({"method": "GET", "path": "/x", "retry": "no"});
    abi.request(request).refuses("retry");
    let request = json!({"method": "GET", "path": "/x", "idempotent": 1});
    abi.request(request).refuses("idempotent");
}

#[test]
fn cancellation_ends_a_waiting_request() {
    let emulator = emulator(1);
    let (abi, location) = connected(&emulator);
    let hold = emulator.hold(Rule::default(), Stage::BeforeProcessing);
    for method in ["GET", "POST"] {
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            let call = scope.spawn(|| {
                let outcome =
                    abi.request(json!({"method": method, "path": "/x", "resourceId": location}));
                done.store(1, Ordering::SeqCst);
                outcome
            });
            hold.wait_for(1);
            abi.cancel_until(|| done.load(Ordering::SeqCst) == 1);
            call.join().unwrap().fails(Status::Cancelled);
        });
        hold.wait_until_empty();
    }
}

#[test]
fn request_without_an_available_token_is_not_sent() {
    let (emulator, abi) = with_client(1);
    let request = json!({"method": "GET", "path": "/x", "resourceId": "nobody"});
    assert_eq!(abi.request(request).fails(Status::NotFound)["resourceId"], "nobody");
    let company = abi.connect_company(&emulator);
    emulator.clock().advance(DAY);
    let rule = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken);
    emulator.inject(rule, answer(400, JSON, r#"{"error": "invalid_grant"}"#));
    emulator.clear_requests();
    let request = json!({"method": "POST", "path": "/x", "body": {}, "resourceId": company});
    abi.request(request).fails(Status::ReauthorizationRequired);
    assert_eq!(paths(&emulator), ["/oauth/token 400"]);
}
