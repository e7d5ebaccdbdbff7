//! The control API, used by programs in any language.

mod support;

use ghl_oauth_emulator::{Emulator, Options};
use serde_json::{Value, json};
use support::*;

fn start() -> Emulator {
    Emulator::start(Options::default()).unwrap()
}

fn post(emulator: &Emulator, path: &str, body: Value) -> Reply {
    control(emulator, "POST", path, &body.to_string())
}

#[test]
fn overview_contains_everything_needed_to_start() {
    let emulator = start();
    let overview = control(&emulator, "GET", "", "").expect(200);
    assert_eq!(overview["baseUrl"], emulator.base_url());
    assert_eq!(overview["authorizeUrl"], emulator.authorize_url());
    assert_eq!(overview["clientId"], emulator.client_id());
    assert_eq!(overview["clientSecret"], emulator.client_secret());
    assert_eq!(overview["companies"][0]["id"], emulator.company_id());
    assert_eq!(overview["companies"][0]["locationIds"], json!(emulator.location_ids()));
    assert_eq!(
        overview["configuration"],
        serde_json::from_str::<Value>(&emulator.configuration()).unwrap()
    );
    assert!(overview["clock"]["nowMs"].is_i64());
}

#[test]
fn program_can_complete_the_whole_flow() {
    let emulator = start();
    let url = format!("{}?{}", emulator.authorize_url(), consent_query(&emulator, SCOPE));
    let consent = |decision: Value| {
        let mut body = decision;
        body["url"] = json!(url);
        post(&emulator, "/consent", body)
    };
    let denied = consent(json!({"deny": true})).expect(200);
    assert!(text(&denied, "redirectUrl").contains("error=access_denied"));
    let some = consent(json!({
        "companyId": emulator.company_id(),
        "locationIds": [emulator.location_ids()[0]],
    }));
    some.expect(200);
    assert_eq!(consent(json!({})).status, 400);
    assert_eq!(consent(json!({"companyId": "x", "locationId": "y"})).status, 400);
    assert_eq!(consent(json!({"companyId": "x"})).status, 400);

    let consented = consent(json!({"companyId": emulator.company_id()})).expect(200);
    let (_, query) = text(&consented, "redirectUrl").split_once("?code=").unwrap();
    let (code, _) = query.split_once('&').unwrap();
    let answer =
        token(&emulator, &[("grantType", "authorization_code"), ("code", code)]).expect(200);

    let tokens = control(&emulator, "GET", "/tokens", "").expect(200);
    assert_eq!(
        tokens["refreshTokens"],
        json!([{
            "resourceId": emulator.company_id(),
            "userType": "Company",
            "refreshToken": answer["refreshToken"],
        }])
    );
    assert_eq!(tokens["refreshes"], 0);

    post(&emulator, "/tokens/expire", json!({})).expect(200);
    assert!(!emulator.access_token_is_live(text(&answer, "accessToken")));
    let revoked = post(&emulator, "/tokens/revoke", json!({"resourceId": emulator.company_id()}));
    assert_eq!(revoked.expect(200)["revoked"], 1);
    assert_eq!(emulator.live_refresh_tokens(), []);
}

#[test]
fn requests_are_recorded_completely_and_cleared_on_request() {
    let emulator = start();
    token(&emulator, &[("grantType", "client_credentials")]).expect(200);
    send(&emulator, "GET", "/nowhere?a=b", &[("x-probe", "1")], "");
    let recorded = control(&emulator, "GET", "/requests", "").expect(200);
    let requests = recorded["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 2, "requests to the control API are not recorded");
    assert_eq!(requests[0]["method"], "POST");
    assert_eq!(requests[0]["path"], "/oauth/token");
    assert_eq!(requests[0]["status"], 200);
    assert!(text(&requests[0], "body").contains("grantType=client_credentials"));
    assert_eq!(requests[1]["query"], "a=b");
    assert_eq!(requests[1]["status"], 404);
    let headers = requests[1]["headers"].as_array().unwrap();
    assert!(headers.contains(&json!(["x-probe", "1"])));
    assert_eq!(emulator.requests().len(), 2);

    assert_eq!(control(&emulator, "DELETE", "/requests", "").expect(200)["cleared"], 2);
    assert_eq!(emulator.requests(), []);
}

#[test]
fn clock_moves_forward_and_backward() {
    let emulator = start();
    let before = emulator.clock().now_ms();
    let moved = post(&emulator, "/clock", json!({"advanceSeconds": 86_400})).expect(200);
    assert!(moved["nowMs"].as_i64().unwrap() >= before + 86_400_000);
    let set = post(&emulator, "/clock", json!({"setMs": 1_705_314_600_000_i64})).expect(200);
    assert!(text(&set, "now").starts_with("2024-01-15T10:30:0"));
    assert!(emulator.clock().now_ms() < before);
    for wrong in [
        json!({}),
        json!({"setMs": 1, "advanceSeconds": 1}),
        json!({"advanceSeconds": -1}),
        json!({"seconds": 1}),
    ] {
        assert_eq!(post(&emulator, "/clock", wrong).status, 400);
    }
}

#[test]
fn settings_are_changed_individually() {
    let emulator = start();
    let changed = post(
        &emulator,
        "/settings",
        json!({"accessTokenSeconds": 5, "expiresIn": {"value": "5"}, "rateLimit": null}),
    );
    let changed = changed.expect(200);
    assert_eq!(changed["accessTokenSeconds"], 5);
    assert_eq!(changed["reuseWindowSeconds"], 30);
    assert_eq!(changed["rateLimit"], Value::Null);
    assert_eq!(connect(&emulator)["expiresIn"], "5");
    assert_eq!(control(&emulator, "GET", "/settings", "").expect(200), changed);
    for wrong in [json!({"latency": 1}), json!({"rateLimit": {"perMs": 0}}), json!([])] {
        assert_eq!(post(&emulator, "/settings", wrong).status, 400);
    }
}

#[test]
fn locations_are_paused_and_uninstalled() {
    let emulator = start();
    let company = connect(&emulator);
    let location_id = &emulator.location_ids()[0];
    let path = format!("/locations/{location_id}");
    let state = post(&emulator, &path, json!({"active": false})).expect(200);
    let company_id = emulator.company_id();
    let expected =
        json!({"id": location_id, "companyId": company_id, "active": false, "installed": true});
    assert_eq!(state, expected);
    let refused = mint(&emulator, text(&company, "accessToken"), location_id);
    assert_eq!(refused.message(), "Location is not active");
    let state = post(&emulator, &path, json!({"active": true, "installed": false})).expect(200);
    assert_eq!(state["installed"], false);
    assert_eq!(post(&emulator, "/locations/unknown", json!({})).status, 404);
    assert_eq!(post(&emulator, &path, json!({"paused": true})).status, 400);

    let path = format!("/companies/{}", emulator.company_id());
    assert_eq!(post(&emulator, &path, json!({"installed": true})).status, 400);
    post(&emulator, &path, json!({"installed": false})).expect(200);
    assert!(!emulator.access_token_is_live(text(&company, "accessToken")));
}

#[test]
fn server_accepts_only_local_host_names() {
    let emulator = start();
    let status = |host: &str| send(&emulator, "GET", "/_emulator", &[("host", host)], "").status;
    assert_eq!(status("127.0.0.1:1"), 200);
    assert_eq!(status("localhost"), 200);
    assert_eq!(status("rebound.example:80"), 403);
    assert_eq!(control(&emulator, "GET", "/nothing", "").status, 404);
    assert_eq!(control(&emulator, "PUT", "/clock", "").status, 405);
}

#[test]
fn page_of_another_origin_changes_nothing() {
    let emulator = start();
    let authority = emulator.base_url().replace("http://", "");
    let advance = |origin: &str| {
        let headers = [("content-type", "text/plain"), ("origin", origin)];
        send(&emulator, "POST", "/_emulator/clock", &headers, r#"{"advanceSeconds": 86400}"#).status
    };
    let before = emulator.clock().now_ms();
    for page in [
        "https://page.example",
        "http://127.0.0.1:1",
        "null",
        &format!("http://{authority}.example"),
    ] {
        assert_eq!(advance(page), 403, "{page}");
    }
    assert!(emulator.clock().now_ms() < before + 86_400_000);
    assert_eq!(advance(&emulator.base_url()), 200, "a page of the emulator");
    assert!(emulator.clock().now_ms() >= before + 86_400_000);
    let answer = control(&emulator, "GET", "", "");
    assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[test]
fn webhooks_are_built_signed_and_repeated_on_request() {
    let emulator = start();
    let (company, location) = (emulator.company_id(), &emulator.location_ids()[0]);
    let built =
        post(&emulator, "/webhooks", json!({"install": location, "signature": "both"})).expect(200);
    let body: Value = serde_json::from_str(text(&built, "body")).unwrap();
    assert_eq!(
        (&body["type"], &body["locationId"], &body["companyId"]),
        (&json!("INSTALL"), &json!(location), &json!(company))
    );
    let lengths = |built: &Value, name: &str| built["headers"][name].as_str().map(str::len);
    assert_eq!(
        (lengths(&built, "x-ghl-signature"), lengths(&built, "x-wh-signature")),
        (Some(88), Some(684))
    );
    assert_eq!(
        control(&emulator, "GET", "/webhooks", "").expect(200)["webhooks"],
        json!([]),
        "nothing happened"
    );

    post(&emulator, &format!("/locations/{location}"), json!({"installed": true})).expect(200);
    post(&emulator, &format!("/companies/{company}"), json!({"installed": false})).expect(200);
    let caused = control(&emulator, "GET", "/webhooks", "").expect(200);
    assert!(text(&caused["publicKeys"], "rsa").starts_with("-----BEGIN PUBLIC KEY-----"));
    let kinds: Vec<Value> = caused["webhooks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|caused| serde_json::from_str::<Value>(text(caused, "body")).unwrap()["type"].clone())
        .collect();
    assert_eq!(kinds, ["INSTALL", "UNINSTALL"]);
    let repeated = post(&emulator, "/webhooks", json!({"id": 1})).expect(200);
    assert_eq!(repeated["body"], caused["webhooks"][0]["body"]);
    assert_eq!(lengths(&repeated, "x-wh-signature"), None);
    let absent =
        post(&emulator, "/webhooks", json!({"body": "x", "signature": "notAvailable"})).expect(200);
    assert_eq!(absent["headers"], json!({"x-ghl-signature": "N/A", "x-wh-signature": "N/A"}));

    for (status, wrong) in [
        (400, json!({})),
        (400, json!({"install": location, "uninstall": location})),
        (400, json!({"install": location, "signature": "none"})),
        (400, json!({"install": location, "when": 1})),
        (404, json!({"uninstall": "nowhere"})),
        (404, json!({"id": 3})),
        (400, json!({"id": 1, "url": "https://127.0.0.1:1/"})),
        (502, json!({"id": 1, "url": "http://127.0.0.1:1/"})),
    ] {
        assert_eq!(post(&emulator, "/webhooks", wrong.clone()).status, status, "{wrong}");
    }
    assert_eq!(
        post(&emulator, "/settings", json!({"webhookUrl": "https://127.0.0.1:1/"})).status,
        400
    );
}

#[test]
fn webhooks_reach_a_receiver_that_calls_back_before_it_responds() {
    let emulator = start();
    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?a=b", receiver.local_addr().unwrap());
    post(&emulator, "/settings", json!({"webhookUrl": url})).expect(200);
    let location = emulator.location_ids()[0].clone();
    let path = format!("/locations/{location}");
    post(&emulator, &path, json!({"installed": true})).expect(200);
    let serve = |status: &str| {
        let (mut socket, _) = receiver.accept().unwrap();
        let mut request = vec![0; 1 << 16];
        let mut length = 0;
        while !request[..length].ends_with(b"}") {
            length += std::io::Read::read(&mut socket, &mut request[length..]).unwrap();
        }
        control(&emulator, "GET", "/clock", "");
        std::io::Write::write_all(&mut socket, format!("HTTP/1.1 {status}\r\n\r\n").as_bytes())
            .unwrap();
        String::from_utf8(request[..length].to_vec()).unwrap()
    };
    let request = serve("204 No Content");
    assert!(request.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nx-ghl-signature: ") && request.contains(&location), "{request}");
    let again = json!({"id": 1, "url": url, "signature": "legacy"});
    std::thread::scope(|scope| {
        let repeated = scope.spawn(|| post(&emulator, "/webhooks", again));
        assert!(serve("500 Oops").contains("x-ghl-signature: N/A"));
        assert_eq!(repeated.join().unwrap().expect(200)["status"], 500);
    });
    // The status is recorded by another thread after the receiver's response.
    let status =
        || control(&emulator, "GET", "/webhooks", "").expect(200)["webhooks"][0]["status"].clone();
    while status().is_null() {}
    assert_eq!(status(), 204);
}

#[test]
fn clock_jumps_to_the_next_expiry_and_back() {
    let emulator = start();
    assert_eq!(
        post(&emulator, "/clock", json!({"toNextExpiry": true})).status,
        409,
        "no token could expire"
    );
    let answer = connect(&emulator);
    let access_token = text(&answer, "accessToken");
    assert!(emulator.access_token_is_live(access_token));
    let moved = post(&emulator, "/clock", json!({"toNextExpiry": true})).expect(200);
    assert!(!emulator.access_token_is_live(access_token));
    let offset_ms = moved["offsetMs"].as_i64().unwrap();
    assert!((86_390_000..=86_399_000).contains(&offset_ms), "{offset_ms}");
    assert_eq!(post(&emulator, "/clock", json!({"reset": true})).expect(200)["offsetMs"], 0);
    assert!(emulator.access_token_is_live(access_token));
    assert_eq!(post(&emulator, "/clock", json!({"reset": true, "toNextExpiry": true})).status, 400);
}

#[test]
fn ledger_reports_the_state_of_every_token_without_revealing_one() {
    let emulator = start();
    let answer = connect(&emulator);
    refresh(&emulator, text(&answer, "refreshToken")).expect(200);
    emulator.uninstall(&emulator.company_id());
    let ledger = control(&emulator, "GET", "/tokens/ledger", "");
    assert!(!ledger.text().contains(text(&answer, "refreshToken")));
    let ledger = ledger.expect(200);
    let told: Vec<_> = ledger["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| (text(token, "kind"), text(token, "state"), token["spentAtMs"].is_i64()))
        .collect();
    assert_eq!(
        told,
        [
            ("refresh", "revoked", false),
            ("access", "revoked", false),
            ("refresh", "spent", true),
            ("access", "revoked", false),
            ("code", "spent", true),
        ]
    );
    let digest =
        ring::digest::digest(&ring::digest::SHA256, text(&answer, "refreshToken").as_bytes());
    let start: String = digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ledger["tokens"][2]["fingerprint"], start);
    assert_eq!(ledger["tokens"][2]["resourceId"], emulator.company_id());
}

#[test]
fn recorded_request_includes_its_resource_and_its_fault() {
    let emulator = start();
    let answer = connect(&emulator);
    let fault =
        json!({"kind": "replaceStatus", "status": 201, "endpoint": "location-token", "count": 1});
    post(&emulator, "/faults", fault).expect(200);
    let location = &emulator.location_ids()[0];
    mint(&emulator, text(&answer, "accessToken"), location).expect(201);
    let recorded = control(&emulator, "GET", "/requests", "").expect(200);
    assert_eq!(recorded["requests"][0]["resourceId"], emulator.company_id(), "by the code");
    assert_eq!(recorded["requests"][0]["fault"], Value::Null);
    assert_eq!(recorded["requests"][1]["resourceId"], json!(location));
    assert_eq!(recorded["requests"][1]["fault"], json!({"id": 1, "kind": "replaceStatus"}));
    let kinds = control(&emulator, "GET", "/faults/kinds", "").expect(200);
    let kinds = kinds["kinds"].as_array().unwrap();
    let parameters = |name: &str| {
        kinds.iter().find(|kind| kind["kind"] == name).map(|kind| kind["parameters"].clone())
    };
    assert_eq!(parameters("replyLost"), Some(json!([])));
    assert_eq!(parameters("drip").unwrap()[0]["name"], "everyMs");
}

#[test]
fn deliveries_are_recorded_with_their_results() {
    let emulator = start();
    let uninstall = json!({"uninstall": emulator.company_id(), "deliver": true});
    assert_eq!(post(&emulator, "/webhooks", uninstall.clone()).status, 409, "no receiver is set");
    // A port that was bound and closed again.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}/");
    post(&emulator, "/settings", json!({ "webhookUrl": url })).expect(200);
    assert_eq!(post(&emulator, "/webhooks", uninstall).status, 502);
    let deliveries = control(&emulator, "GET", "/webhooks", "").expect(200)["deliveries"].clone();
    assert_eq!(deliveries.as_array().unwrap().len(), 1);
    assert_eq!((&deliveries[0]["url"], &deliveries[0]["status"]), (&json!(url), &Value::Null));
    assert!(
        text(&deliveries[0], "body").contains("UNINSTALL") && deliveries[0]["error"].is_string()
    );
}

#[test]
fn browser_is_redirected_to_the_dashboard_and_an_api_client_is_not() {
    let emulator = start();
    let browser =
        send(&emulator, "GET", "/", &[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], "");
    assert_eq!((browser.status, browser.header("location")), (303, Some("/dashboard")));
    assert_eq!(send(&emulator, "GET", "/", &[VERSION], "").message(), "Cannot GET /");
    assert_eq!(send(&emulator, "POST", "/", &[VERSION], "").message(), "Cannot POST /");
    let rebound = send(&emulator, "GET", "/dashboard", &[("host", "rebound.example")], "");
    assert_eq!(rebound.status, 403);
    let page = send(&emulator, "GET", "/dashboard", &[], "");
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(!page.text().contains(emulator.client_secret()));
}

#[test]
fn error_names_the_field_that_is_wrong() {
    let emulator = start();
    let url = format!("{}?{}", emulator.authorize_url(), consent_query(&emulator, SCOPE));
    let (company, location) = (emulator.company_id(), emulator.location_ids()[0].clone());
    let of_company = format!("/companies/{company}");
    let of_location = format!("/locations/{location}");
    for (path, body, field) in [
        ("/clock", json!({"advanceSeconds": "1"}), "advanceSeconds"),
        ("/clock", json!({"advanceSeconds": -1}), "advanceSeconds"),
        ("/clock", json!({"seconds": 1}), "seconds"),
        ("/tokens/expire", json!({"all": true}), "all"),
        ("/tokens/revoke", json!({}), "resourceId"),
        ("/tokens/private", json!({"resourceId": "x"}), "resourceId"),
        ("/consent", json!({"companyId": company}), "url"),
        ("/consent", json!({"url": "x", "companyId": company}), "url"),
        ("/consent", json!({"url": url, "companyId": "x"}), "companyId"),
        ("/consent", json!({"url": url, "locationId": "x"}), "locationId"),
        ("/consent", json!({"url": url, "companyId": company, "locationIds": []}), "locationIds"),
        ("/settings", json!({"latency": 1}), "latency"),
        ("/settings", json!({"latencyMs": -1}), "latencyMs"),
        ("/settings", json!({"rateLimit": {"perMs": 0}}), "rateLimit.perMs"),
        ("/settings", json!({"rateLimit": {"requests": "1"}}), "rateLimit.requests"),
        ("/settings", json!({"webhookUrl": "x"}), "webhookUrl"),
        ("/settings", json!({"inactiveStatus": 403}), "inactiveStatus"),
        ("/settings", json!({"fieldNames": "kebab-case"}), "fieldNames"),
        (&of_location, json!({"active": "no"}), "active"),
        (&of_location, json!({"companyId": "x"}), "companyId"),
        (&of_company, json!({"installed": true}), "installed"),
        ("/quota/spend", json!({"resourceId": 1}), "resourceId"),
        ("/webhooks", json!({"install": "x"}), "install"),
        ("/webhooks", json!({"id": 7}), "id"),
        ("/webhooks", json!({"body": "{}", "url": "x"}), "url"),
        ("/webhooks", json!({"body": "{}", "signature": "none"}), "signature"),
        ("/webhooks", json!({"uninstall": company, "locationIds": []}), "locationIds"),
        ("/scenario", json!({"name": "night"}), "name"),
        ("/scenario", json!({"name": "agency-day", "daySeconds": 0}), "daySeconds"),
        ("/scenario/step", json!({"count": -1}), "count"),
        ("/faults", json!({"kind": "drip"}), "everyMs"),
        ("/faults", json!({"kind": "replyLost", "endpoint": "tokens"}), "endpoint"),
    ] {
        let refused = post(&emulator, path, body.clone());
        assert!([400, 404].contains(&refused.status), "{path} {body}: {}", refused.status);
        let told: Value = serde_json::from_str(&refused.text()).unwrap();
        assert_eq!(told["field"], field, "{path} {body}: {told}");
        assert!(text(&told, "error").starts_with(&format!("{field}: ")), "{path} {body}: {told}");
    }
    for body in ["[]", "{", "{} {}", "\"x\""] {
        let refused = control(&emulator, "POST", "/clock", body);
        assert_eq!(refused.status, 400, "{body}");
        let told: Value = serde_json::from_str(&refused.text()).unwrap();
        assert_eq!(told["field"], Value::Null, "{told}");
    }
}

#[test]
fn configuration_is_available_in_each_language() {
    let emulator = start();
    let of = |language: &str| control(&emulator, "GET", &format!("/configuration/{language}"), "");
    let json: Value = serde_json::from_str(&of("json").text()).unwrap();
    assert_eq!(json, serde_json::from_str::<Value>(&emulator.configuration()).unwrap());
    for language in ["c", "cpp", "python", "environment"] {
        let text = of(language);
        assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
        for value in [emulator.client_secret(), emulator.redirect_uri(), &emulator.base_url()] {
            assert!(text.text().contains(value), "{language} lacks {value}: {}", text.text());
        }
    }
    let unknown = of("cobol");
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().contains("json, c, cpp, python, environment"), "{}", unknown.text());
    let foreign = [("host", "rebound.example")];
    let refused = send(&emulator, "GET", "/_emulator/configuration/json", &foreign, "");
    assert_eq!(refused.status, 403);
}
