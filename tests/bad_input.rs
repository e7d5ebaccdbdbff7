//! Invalid arguments of every function are refused by name, send no request and leave the client
//! usable.

mod support;

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::*;
use ghl_oauth_emulator::{Emulator, Notice, Signature};
use serde_json::{Value, json};

use support::{
    Abi, DAY, Outcome, PanickingClock, config, contains_none_of, emulator, free_port, sent, signed,
    take,
};

type Call = unsafe extern "C" fn(*mut ghl_client, *const c_char, *mut *mut c_char) -> i32;

unsafe extern "C" fn maintain(
    client: *mut ghl_client,
    params: *const c_char,
    out: *mut *mut c_char,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { ghl_tokens_maintain(client, params, None, ptr::null_mut(), out) }
}

unsafe extern "C" fn mint(
    client: *mut ghl_client,
    params: *const c_char,
    out: *mut *mut c_char,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { ghl_tokens_mint(client, params, None, ptr::null_mut(), out) }
}

/// `ghl_access_token`; the token is discarded.
unsafe extern "C" fn access(
    client: *mut ghl_client,
    resource: *const c_char,
    out: *mut *mut c_char,
) -> i32 {
    let mut token = ptr::dangling_mut();
    // SAFETY: guaranteed by the caller.
    unsafe {
        let code = ghl_access_token(client, resource, &mut token, out);
        assert_eq!(code == 0, !token.is_null(), "a token, or an error");
        ghl_string_free(token);
        code
    }
}

/// `ghl_access_token_into` with a sufficiently large buffer.
unsafe extern "C" fn access_into(
    client: *mut ghl_client,
    resource: *const c_char,
    out: *mut *mut c_char,
) -> i32 {
    let mut buffer = [b'x' as c_char; 4096];
    let mut length = buffer.len();
    // SAFETY: guaranteed by the caller.
    let code =
        unsafe { ghl_access_token_into(client, resource, buffer.as_mut_ptr(), &mut length, out) };
    assert_eq!(code == 0, buffer[0] != 0, "a token, or an empty text");
    assert_eq!(code == 0, length > 1, "the required size, or 0");
    code
}

/// `ghl_webhook_verify` of an empty object.
unsafe extern "C" fn verify(
    client: *mut ghl_client,
    headers: *const c_char,
    out: *mut *mut c_char,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { ghl_webhook_verify(client, b"{}".as_ptr(), 2, headers, out) }
}

/// `ghl_webhook_apply` of an empty object.
unsafe extern "C" fn apply(
    client: *mut ghl_client,
    headers: *const c_char,
    out: *mut *mut c_char,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { ghl_webhook_apply(client, b"{}".as_ptr(), 2, headers, out) }
}

/// `ghl_webhook_apply_with` of an empty object.
unsafe extern "C" fn apply_with(
    client: *mut ghl_client,
    headers: *const c_char,
    out: *mut *mut c_char,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { ghl_webhook_apply_with(client, b"{}".as_ptr(), 2, headers, c"{}".as_ptr(), out) }
}

/// Every function that takes a client and a string, with the name of the parameter.
const TAKING_TEXT: [(&str, Call, &str); 21] = [
    ("ghl_authorization_url", ghl_authorization_url, "params_json"),
    ("ghl_authorization_complete", ghl_authorization_complete, "params_json"),
    ("ghl_authorization_listen", ghl_authorization_listen, "params_json"),
    ("ghl_oauth_token", ghl_oauth_token, "params_json"),
    ("ghl_oauth_location_token", ghl_oauth_location_token, "params_json"),
    ("ghl_oauth_installed_locations", ghl_oauth_installed_locations, "params_json"),
    ("ghl_request", ghl_request, "request_json"),
    ("ghl_client_metrics", ghl_client_metrics, "params_json"),
    ("ghl_tokens_list", ghl_tokens_list, "params_json"),
    ("ghl_tokens_import", ghl_tokens_import, "tokens_json"),
    ("ghl_tokens_export", ghl_tokens_export, "params_json"),
    ("ghl_tokens_adopt", ghl_tokens_adopt, "params_json"),
    ("ghl_tokens_maintain", maintain, "params_json"),
    ("ghl_tokens_mint", mint, "params_json"),
    ("ghl_webhook_verify", verify, "headers_json"),
    ("ghl_webhook_apply", apply, "headers_json"),
    ("ghl_webhook_apply_with", apply_with, "headers_json"),
    ("ghl_access_token", access, "resource_id"),
    ("ghl_access_token_into", access_into, "resource_id"),
    ("ghl_token_refresh", ghl_token_refresh, "resource_id"),
    ("ghl_token_delete", ghl_token_delete, "resource_id"),
];

/// A document that each function accepts.
fn good(name: &str, emulator: &Emulator) -> String {
    match name {
        "ghl_authorization_complete" => json!({"redirectUrl": "https://app.example/"}).to_string(),
        "ghl_authorization_listen" => json!({"port": free_port(), "timeoutMs": 1}).to_string(),
        "ghl_oauth_token" => json!({"grantType": "client_credentials"}).to_string(),
        "ghl_oauth_location_token" => {
            json!({"companyId": "c", "locationId": "l", "accessToken": "wrong"}).to_string()
        }
        "ghl_oauth_installed_locations" => {
            json!({"companyId": "c", "accessToken": "wrong"}).to_string()
        }
        "ghl_request" => json!({"method": "GET", "path": "/"}).to_string(),
        "ghl_tokens_import" => json!({"tokens": []}).to_string(),
        "ghl_tokens_mint" => {
            json!({"companyId": emulator.company_id(), "locationIds": []}).to_string()
        }
        "ghl_webhook_verify" | "ghl_webhook_apply" | "ghl_webhook_apply_with" => {
            signed(emulator, b"{}", Signature::Ed25519).to_string()
        }
        "ghl_access_token" | "ghl_access_token_into" | "ghl_token_refresh" | "ghl_token_delete" => {
            emulator.company_id()
        }
        _ => "{}".to_owned(),
    }
}

/// One call with arbitrary pointers.
fn call(function: Call, client: *mut ghl_client, text: *const c_char) -> Outcome {
    let mut document = ptr::dangling_mut();
    // SAFETY: the pointers are valid, or NULL.
    let code = unsafe { function(client, text, &mut document) };
    if code == 0 && document.is_null() {
        Outcome(0, Value::Null)
    } else {
        Outcome::read(code, document)
    }
}

fn connected(emulator: &Emulator) -> Abi {
    let abi = Abi::new(emulator);
    abi.connect_company(emulator);
    sent(emulator);
    abi
}

/// Asserts that the preceding calls sent no request and that the client works.
#[track_caller]
fn works_on(abi: &Abi, emulator: &Emulator) {
    assert_eq!(sent(emulator), [""; 0], "a request was sent for invalid input");
    abi.token_refresh(&emulator.company_id()).ok();
    abi.token_delete(&abi.live_location(emulator)).ok();
    sent(emulator);
}

trait LiveLocation {
    fn live_location(&self, emulator: &Emulator) -> String;
}

impl LiveLocation for Abi {
    /// A location whose token has just been minted.
    fn live_location(&self, emulator: &Emulator) -> String {
        let location = emulator.location_ids()[0].clone();
        self.live_token(emulator, &location);
        location
    }
}

#[test]
fn null_or_invalid_utf8_argument_is_refused_by_name() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let broken = CString::new([b'{', 0xff, b'}']).unwrap();
    for (name, function, parameter) in TAKING_TEXT {
        let text = CString::new(good(name, &emulator)).unwrap();
        for (client, text, parameter) in [
            (ptr::null_mut(), text.as_ptr(), "client"),
            (ptr::null_mut(), ptr::null(), "client"),
            (abi.handle(), ptr::null(), parameter),
            (abi.handle(), broken.as_ptr(), parameter),
        ] {
            let error = call(function, client, text).refuses(parameter);
            assert!(error["message"].as_str().unwrap().contains(parameter), "{name}: {error}");
            // The caller may ignore the error document.
            // SAFETY: valid pointers, or NULL.
            let code = unsafe { function(client, text, ptr::null_mut()) };
            assert_eq!(code, Status::InvalidArgument.code(), "{name}");
        }
    }
    works_on(&abi, &emulator);
}

#[test]
fn null_result_pointer_is_accepted() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    for (name, function, _) in TAKING_TEXT {
        let text = CString::new(good(name, &emulator)).unwrap();
        let without = |client| {
            // SAFETY: valid pointers, or NULL.
            unsafe { function(client, text.as_ptr(), ptr::null_mut()) }
        };
        let expected = match name {
            "ghl_authorization_complete" => Status::StateMismatch.code(),
            "ghl_authorization_listen" => Status::Timeout.code(),
            "ghl_oauth_location_token" | "ghl_oauth_installed_locations" => {
                Status::Unauthorized.code()
            }
            _ => 0,
        };
        assert_eq!(without(abi.handle()), expected, "{name}");
    }
    let company = CString::new(abi.connect_company(&emulator)).unwrap();
    // SAFETY: valid pointers, or NULL.
    unsafe {
        let handle = abi.handle();
        assert_eq!(ghl_access_token(handle, company.as_ptr(), ptr::null_mut(), ptr::null_mut()), 0);
        assert_eq!(ghl_client_stats(handle, ptr::null_mut()), 0);
    }
}

#[test]
fn functions_without_text_arguments_accept_null() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let invalid = Status::InvalidArgument.code();
    // SAFETY: each of these accepts NULL.
    unsafe {
        ghl_client_free(ptr::null_mut());
        ghl_client_cancel(ptr::null_mut());
        ghl_string_free(ptr::null_mut());
        let mut document = ptr::dangling_mut();
        let code = ghl_client_stats(ptr::null(), &mut document);
        Outcome::read(code, document).refuses("client");
        assert_eq!(ghl_client_stats(ptr::null(), ptr::null_mut()), invalid);
        assert_eq!(ghl_client_on_event(ptr::null_mut(), None, ptr::null_mut()), invalid);
        for level in [-1, 6, i32::MIN, i32::MAX] {
            assert_eq!(ghl_set_log_callback(None, ptr::null_mut(), level), invalid, "{level}");
        }
        assert_eq!(ghl_client_on_event(abi.handle(), None, ptr::null_mut()), 0);
    }
    works_on(&abi, &emulator);
}

#[test]
fn document_that_is_not_a_json_object_is_refused_by_name() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let deep = format!("{{\"companyId\":{}", "[".repeat(100_000));
    for (name, function, parameter) in TAKING_TEXT {
        if parameter == "resource_id" {
            continue;
        }
        for text in [
            "",
            " ",
            "null",
            "true",
            "7",
            "\"text\"",
            "[]",
            "[{}]",
            "{",
            "}",
            "{\"companyId\"",
            "{\"companyId\":",
            "{'companyId': 'c'}",
            "{companyId: 1}",
            "{\"companyId\": NaN}",
            "// nothing",
            "{}{}",
            "{} x",
            "\u{feff}{}",
        ] {
            let error = abi.call(function, text).refuses(parameter);
            assert!(
                error["message"].as_str().unwrap().contains("JSON"),
                "{name} {text:?}: {error}"
            );
        }
        abi.call(function, &deep).refuses(parameter);
    }
    works_on(&abi, &emulator);
}

#[test]
fn unknown_key_is_refused_by_name_in_every_document() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    for (name, function, parameter) in TAKING_TEXT {
        // Headers may have any name.
        if matches!(parameter, "resource_id" | "headers_json") {
            continue;
        }
        for key in ["unknown", "company_id", "pagesize", "CompanyId", "é", ""] {
            let mut document: Value = serde_json::from_str(&good(name, &emulator)).unwrap();
            document[key] = "c".into();
            let error = abi.call(function, &document.to_string()).refuses(key);
            assert!(error["help"].as_str().unwrap().contains("camelCase"), "{name}: {error}");
        }
    }
    works_on(&abi, &emulator);
}

#[test]
fn invalid_value_is_refused_by_key_and_not_repeated() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let secret = "a-secret-in-the-wrong-place";
    for (function, document, key) in [
        (ghl_authorization_url as Call, json!({"scopes": secret}), "scopes"),
        (ghl_authorization_url, json!({"scopes": [7]}), "scopes[0]"),
        (ghl_authorization_url, json!({"scopes": []}), "scopes"),
        (ghl_authorization_url, json!({"scopes": [""]}), "scopes"),
        (ghl_authorization_url, json!({"scopes": ["a b"]}), "scopes"),
        (ghl_authorization_url, json!({"redirectUri": 7}), "redirectUri"),
        (ghl_authorization_url, json!({"redirectUri": "callback"}), "redirectUri"),
        (ghl_authorization_url, json!({"loginInSameTab": secret}), "loginInSameTab"),
        (ghl_authorization_url, json!({"versionId": [secret]}), "versionId"),
        (ghl_authorization_url, json!({"state": {"a": secret}}), "state"),
        (ghl_authorization_url, json!({"state": " "}), "state"),
        (ghl_authorization_complete, json!({}), "redirectUrl"),
        (ghl_authorization_complete, json!({"redirectUrl": [secret]}), "redirectUrl"),
        (ghl_authorization_complete, json!({"redirectUrl": secret}), "redirectUrl"),
        (ghl_authorization_complete, json!({"redirectUrl": null}), "redirectUrl"),
        (ghl_authorization_complete, json!({"redirectUrl": "https://a/", "state": ""}), "state"),
        (
            ghl_authorization_complete,
            json!({"redirectUrl": "https://a/", "allowMissingState": 1}),
            "allowMissingState",
        ),
        (
            ghl_authorization_complete,
            json!({"redirectUrl": "https://a/", "userType": secret}),
            "userType",
        ),
        (
            ghl_authorization_complete,
            json!({"redirectUrl": "https://a/", "redirectUri": 7}),
            "redirectUri",
        ),
        // The configured redirect URI names no port of this machine.
        (ghl_authorization_listen, json!({}), "port"),
        (ghl_authorization_listen, json!({"port": 0}), "port"),
        (ghl_authorization_listen, json!({"port": 65_536}), "port"),
        (ghl_authorization_listen, json!({"port": -1}), "port"),
        (ghl_authorization_listen, json!({"port": 80.5}), "port"),
        (ghl_authorization_listen, json!({"port": secret}), "port"),
        (ghl_authorization_listen, json!({"redirectUri": "https://localhost:8080/"}), "port"),
        (ghl_authorization_listen, json!({"redirectUri": "http://[::1]:8080/"}), "port"),
        (ghl_authorization_listen, json!({"redirectUri": "http://127.0.0.1.example/"}), "port"),
        (
            ghl_authorization_listen,
            json!({"port": 8080, "redirectUri": "/callback"}),
            "redirectUri",
        ),
        (ghl_authorization_listen, json!({"port": 8080, "redirectUri": [secret]}), "redirectUri"),
        (ghl_authorization_listen, json!({"port": 8080, "timeoutMs": 0}), "timeoutMs"),
        (ghl_authorization_listen, json!({"port": 8080, "timeoutMs": 3_600_001}), "timeoutMs"),
        (ghl_authorization_listen, json!({"port": 8080, "timeoutMs": secret}), "timeoutMs"),
        (ghl_authorization_listen, json!({"port": 8080, "state": ""}), "state"),
        (
            ghl_authorization_listen,
            json!({"port": 8080, "allowMissingState": 1}),
            "allowMissingState",
        ),
        (ghl_authorization_listen, json!({"port": 8080, "userType": secret}), "userType"),
        (ghl_oauth_token, json!({}), "grantType"),
        (ghl_oauth_token, json!({"grantType": secret}), "grantType"),
        (ghl_oauth_token, json!({"grantType": "authorization_code"}), "code"),
        (ghl_oauth_token, json!({"grantType": "authorization_code", "code": " "}), "code"),
        (
            ghl_oauth_token,
            json!({"grantType": "authorization_code", "refreshToken": secret}),
            "code",
        ),
        (ghl_oauth_token, json!({"grantType": "refresh_token"}), "refreshToken"),
        (
            ghl_oauth_token,
            json!({"grantType": "refresh_token", "refreshToken": ""}),
            "refreshToken",
        ),
        (
            ghl_oauth_token,
            json!({"grantType": "refresh_token", "refreshToken": [secret]}),
            "refreshToken",
        ),
        (
            ghl_oauth_token,
            json!({"grantType": "client_credentials", "userType": "company"}),
            "userType",
        ),
        (
            ghl_oauth_token,
            json!({"grantType": "client_credentials", "clientSecret": {"a": secret}}),
            "clientSecret",
        ),
        (ghl_oauth_location_token, json!({}), "companyId"),
        (ghl_oauth_location_token, json!({"companyId": "c"}), "locationId"),
        (ghl_oauth_location_token, json!({"companyId": "", "locationId": "l"}), "companyId"),
        (ghl_oauth_location_token, json!({"companyId": "c", "locationId": "\t"}), "locationId"),
        (
            ghl_oauth_location_token,
            json!({"companyId": "c", "locationId": "l\r\nX: y"}),
            "locationId",
        ),
        (
            ghl_oauth_location_token,
            json!({"companyId": "c", "locationId": "l", "accessToken": [secret]}),
            "accessToken",
        ),
        (ghl_oauth_installed_locations, json!({}), "companyId"),
        (ghl_oauth_installed_locations, json!({"companyId": ""}), "companyId"),
        (ghl_oauth_installed_locations, json!({"companyId": "x".repeat(256)}), "companyId"),
        (ghl_oauth_installed_locations, json!({"companyId": "c", "appId": ""}), "appId"),
        (
            ghl_oauth_installed_locations,
            json!({"companyId": "c", "query": "ä".repeat(20_000), "accessToken": "t"}),
            "query",
        ),
        (ghl_oauth_installed_locations, json!({"companyId": "c", "pageSize": 0}), "pageSize"),
        (ghl_oauth_installed_locations, json!({"companyId": "c", "pageSize": 101}), "pageSize"),
        (ghl_oauth_installed_locations, json!({"companyId": "c", "pageSize": -1}), "pageSize"),
        (ghl_oauth_installed_locations, json!({"companyId": "c", "pageSize": 1.5}), "pageSize"),
        (ghl_oauth_installed_locations, json!({"companyId": "c", "pageSize": secret}), "pageSize"),
        (ghl_oauth_installed_locations, json!({"companyId": "c", "pageSize": 1e300}), "pageSize"),
        (
            ghl_oauth_installed_locations,
            json!({"companyId": "c", "isInstalled": "true"}),
            "isInstalled",
        ),
        (ghl_oauth_installed_locations, json!({"companyId": "c", "onTrial": 0}), "onTrial"),
        (ghl_oauth_installed_locations, json!({"companyId": "c", "all": "yes"}), "all"),
        (ghl_tokens_list, json!({"pageSize": 0}), "pageSize"),
        (ghl_tokens_list, json!({"pageSize": 1001}), "pageSize"),
        (ghl_tokens_list, json!({"companyId": ""}), "companyId"),
        (ghl_tokens_list, json!({"pageToken": ""}), "pageToken"),
        (ghl_tokens_list, json!({"userType": "Agency"}), "userType"),
        (ghl_tokens_export, json!({"pageSize": -1}), "pageSize"),
        (ghl_tokens_export, json!({"companyId": 7}), "companyId"),
        (ghl_tokens_import, json!({}), "tokens"),
        (ghl_tokens_import, json!({"tokens": {}}), "tokens"),
        (ghl_tokens_import, json!({"tokens": [{}, secret]}), "tokens[1]"),
        (ghl_tokens_import, json!({"tokens": [], "replace": "yes"}), "replace"),
        (maintain, json!({"companyId": ""}), "companyId"),
        (maintain, json!({"companyId": false}), "companyId"),
        (ghl_request, json!({}), "method"),
        (ghl_request, json!({"method": "GET"}), "path"),
        (ghl_request, json!({"method": "get", "path": "/"}), "method"),
        (ghl_request, json!({"method": "CONNECT", "path": "/"}), "method"),
        (ghl_request, json!({"method": "GET", "path": "contacts"}), "path"),
        (ghl_request, json!({"method": "GET", "path": "https://evil.example/"}), "path"),
        (ghl_request, json!({"method": "GET", "path": "/a b"}), "path"),
        (ghl_request, json!({"method": "GET", "path": "/../x"}), "path"),
        (ghl_request, json!({"method": "GET", "path": "/a<b"}), "path"),
        (ghl_request, json!({"method": "GET", "path": "/?a=>"}), "path"),
        (
            ghl_request,
            json!({"method": "GET", "path": "/", "query": {"a": "ä".repeat(20_000)}}),
            "path",
        ),
        (ghl_request, json!({"method": "GET", "path": "/", "query": []}), "query"),
        (
            ghl_request,
            json!({"method": "GET", "path": "/", "query": {"a": {"b": secret}}}),
            "query.a",
        ),
        (
            ghl_request,
            json!({"method": "GET", "path": "/", "headers": {"a b": "c"}}),
            "headers.a b",
        ),
        (ghl_request, json!({"method": "GET", "path": "/", "headers": {"A": 7}}), "headers.A"),
        (
            ghl_request,
            json!({"method": "GET", "path": "/", "headers": {"A": "b\r\nC: d"}}),
            "headers.A",
        ),
        (
            ghl_request,
            json!({"method": "GET", "path": "/", "headers": {"Host": "evil.example"}}),
            "headers.Host",
        ),
        (
            ghl_request,
            json!({"method": "GET", "path": "/", "headers": {"A": "1", "a": "2"}}),
            "headers.a",
        ),
        (
            ghl_request,
            json!({
                "method": "GET", "path": "/", "resourceId": "x",
                "headers": {"authorization": secret},
            }),
            "headers.authorization",
        ),
        (ghl_request, json!({"method": "GET", "path": "/", "body": {}}), "body"),
        (ghl_request, json!({"method": "POST", "path": "/", "bodyBase64": "?"}), "bodyBase64"),
        (
            ghl_request,
            json!({"method": "POST", "path": "/", "body": 1, "bodyBase64": ""}),
            "bodyBase64",
        ),
        (
            ghl_request,
            json!({
                "method": "POST", "path": "/", "body": {"a": {}},
                "headers": {"Content-Type": "application/x-www-form-urlencoded"},
            }),
            "body.a",
        ),
        (ghl_request, json!({"method": "GET", "path": "/", "resourceId": ""}), "resource_id"),
        (mint, json!({}), "companyId"),
        (mint, json!({"companyId": "", "locationIds": []}), "companyId"),
        (mint, json!({"companyId": "c"}), "locationIds"),
        (mint, json!({"companyId": "c", "installed": false}), "locationIds"),
        (mint, json!({"companyId": "c", "locationIds": "l"}), "locationIds"),
        (mint, json!({"companyId": "c", "locationIds": ["l", ""]}), "locationIds[1]"),
        (mint, json!({"companyId": "c", "locationIds": ["l"], "installed": true}), "installed"),
        (mint, json!({"companyId": "c", "locationIds": ["l"], "appId": "a"}), "appId"),
        (mint, json!({"companyId": "c", "installed": true, "appId": " "}), "appId"),
        (mint, json!({"companyId": "c", "installed": true, "concurrency": 0}), "concurrency"),
        (mint, json!({"companyId": "c", "installed": true, "concurrency": 65}), "concurrency"),
        (maintain, json!({"concurrency": 0}), "concurrency"),
        (maintain, json!({"concurrency": 65}), "concurrency"),
        (mint, json!({"companyId": "c", "installed": true, "force": 1}), "force"),
        (verify, json!({"x-ghl-signature": 7}), "x-ghl-signature"),
        (verify, json!({"X-GHL-Signature": {"a": secret}}), "x-ghl-signature"),
        (apply, json!({"x-ghl-signature": [secret, 7]}), "x-ghl-signature"),
        (apply, json!({"x-wh-signature": true}), "x-wh-signature"),
    ] {
        let outcome = abi.call(function, &document.to_string());
        let error = outcome.fails(Status::InvalidArgument);
        assert_eq!(error["parameter"], key, "{document}: {error}");
        contains_none_of(&error.to_string(), &[secret]);
    }
    works_on(&abi, &emulator);
}

#[test]
fn enum_value_that_is_not_a_string_is_refused_by_key() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    for wrong in [json!(null), json!(7), json!(true), json!([]), json!({})] {
        abi.oauth_token(json!({"grantType": wrong})).refuses("grantType");
        if !wrong.is_null() {
            abi.oauth_token(json!({"grantType": "client_credentials", "userType": wrong}))
                .refuses("userType");
            abi.tokens_list(json!({"userType": wrong})).refuses("userType");
            let config = config(&emulator, json!({"tokenRequestEncoding": wrong}));
            let Err(outcome) = Abi::open(&config) else { panic!("{wrong} was accepted") };
            outcome.refuses("tokenRequestEncoding");
        }
    }
    works_on(&abi, &emulator);
}

#[test]
fn invalid_id_is_refused_before_any_request() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let long = "x".repeat(256);
    for (name, function, parameter) in TAKING_TEXT {
        if parameter != "resource_id" {
            continue;
        }
        for id in ["", " ", "\t\n", "a\nb", " a", "a ", "\u{7f}", "\u{85}", long.as_str()] {
            let text = CString::new(id).unwrap();
            let error = call(function, abi.handle(), text.as_ptr()).refuses("resource_id");
            assert!(
                error["message"].as_str().unwrap().starts_with("resource_id "),
                "{name} {id:?}: {error}"
            );
        }
    }
    works_on(&abi, &emulator);
    // The server decides about IDs of another form.
    for id in ["é", "../../etc/passwd", "a+b&c=d", &long[1..]] {
        abi.access_token(id).fails(Status::Forbidden);
    }
    assert_eq!(sent(&emulator), ["mint 403"; 4]);
}

#[test]
fn unusable_configuration_is_refused_by_key() {
    let emulator = emulator(1);
    let working = config(&emulator, json!({}));
    let secret = "a-secret-in-the-wrong-place";
    for (changes, status, key) in [
        (json!({"clientId": null}), Status::InvalidArgument, "clientId"),
        (json!({"clientId": " "}), Status::Config, "clientId"),
        (json!({"clientSecret": ""}), Status::Config, "clientSecret"),
        (json!({"clientSecret": [secret]}), Status::InvalidArgument, "clientSecret"),
        (json!({"colour": secret}), Status::InvalidArgument, "colour"),
        (json!({"client_id": "c"}), Status::InvalidArgument, "client_id"),
        (json!({"baseUrl": "http://services.example"}), Status::Config, "baseUrl"),
        (json!({"baseUrl": "http://127.0.0.1.example"}), Status::Config, "baseUrl"),
        (json!({"baseUrl": "http://127.0.0.1@services.example"}), Status::Config, "baseUrl"),
        (
            json!({"baseUrl": format!("https://user:{secret}@services.example")}),
            Status::Config,
            "baseUrl",
        ),
        (json!({"baseUrl": "services.example"}), Status::Config, "baseUrl"),
        (json!({"baseUrl": "file:///etc/passwd"}), Status::Config, "baseUrl"),
        (json!({"baseUrl": "https://services.example?a=b"}), Status::Config, "baseUrl"),
        (json!({"authorizeUrl": "http://services.example"}), Status::Config, "authorizeUrl"),
        (json!({"authorizeUrl": ""}), Status::Config, "authorizeUrl"),
        (json!({"redirectUri": "/callback"}), Status::Config, "redirectUri"),
        (json!({"scopes": ["a b"]}), Status::Config, "scopes"),
        (json!({"scopes": "a b"}), Status::InvalidArgument, "scopes"),
        (json!({"apiVersion": "v3\r\nX-Evil: 1"}), Status::Config, "apiVersion"),
        (json!({"apiVersion": ""}), Status::Config, "apiVersion"),
        (json!({"tokenRequestEncoding": "xml"}), Status::InvalidArgument, "tokenRequestEncoding"),
        (json!({"store": {"kind": "floppy"}}), Status::Config, "store.kind"),
        (json!({"store": {"kind": ""}}), Status::Config, "store.kind"),
        (json!({"store": {"kind": 7}}), Status::InvalidArgument, "store.kind"),
        (json!({"store": {"path": "tokens.db"}}), Status::InvalidArgument, "store.kind"),
        (json!({"store": {"kind": "memory", "path": "tokens.db"}}), Status::Config, "store.path"),
        (json!({"store": {"kind": "sqlite"}}), Status::Config, "store.path"),
        (json!({"store": {"kind": "memory", "size": 1}}), Status::InvalidArgument, "store.size"),
        (json!({"store": "memory"}), Status::InvalidArgument, "store"),
        (json!({"store": ["sqlite", "tokens.db"]}), Status::InvalidArgument, "store"),
        (json!({"timeouts": [1]}), Status::InvalidArgument, "timeouts"),
        (json!({"retry": [5]}), Status::InvalidArgument, "retry"),
        (json!({"rateLimit": []}), Status::InvalidArgument, "rateLimit"),
        (json!({"refresh": [1]}), Status::InvalidArgument, "refresh"),
        (json!({"limits": []}), Status::InvalidArgument, "limits"),
        (json!({"http": [secret]}), Status::InvalidArgument, "http"),
        (json!({"webhook": []}), Status::InvalidArgument, "webhook"),
        (json!({"consentPage": ["es"]}), Status::InvalidArgument, "consentPage"),
        (json!({"timeouts": {"totalMs": 0}}), Status::Config, "timeouts.totalMs"),
        (json!({"timeouts": {"totalMs": 600_001}}), Status::Config, "timeouts.totalMs"),
        (json!({"timeouts": {"totalMs": -1}}), Status::InvalidArgument, "timeouts.totalMs"),
        (json!({"timeouts": {"totalMs": "30000"}}), Status::InvalidArgument, "timeouts.totalMs"),
        (json!({"timeouts": {"totalMillis": 1}}), Status::InvalidArgument, "timeouts.totalMillis"),
        (json!({"timeouts": {"connectMs": 0}}), Status::Config, "timeouts.connectMs"),
        (json!({"timeouts": {"answerMs": 0}}), Status::Config, "timeouts.answerMs"),
        (json!({"retry": {"maxAttempts": 0}}), Status::Config, "retry.maxAttempts"),
        (json!({"retry": {"maxAttempts": 21}}), Status::Config, "retry.maxAttempts"),
        (json!({"rateLimit": {"requests": 0}}), Status::Config, "rateLimit.requests"),
        (json!({"rateLimit": {"perMs": 0}}), Status::Config, "rateLimit.perMs"),
        (json!({"refresh": {"marginSeconds": 86_401}}), Status::Config, "refresh.marginSeconds"),
        (json!({"refresh": {"runwayPercent": 91}}), Status::Config, "refresh.runwayPercent"),
        (
            json!({"refresh": {"runwayPercent": 256}}),
            Status::InvalidArgument,
            "refresh.runwayPercent",
        ),
        (json!({"limits": {"responseBytes": 1}}), Status::Config, "limits.responseBytes"),
        (json!({"webhook": {"maxAgeSeconds": 0}}), Status::Config, "webhook.maxAgeSeconds"),
        (
            json!({"webhook": {"maxAgeSeconds": "1"}}),
            Status::InvalidArgument,
            "webhook.maxAgeSeconds",
        ),
        (
            json!({"webhook": {"ed25519PublicKeys": secret}}),
            Status::InvalidArgument,
            "webhook.ed25519PublicKeys",
        ),
        (
            json!({"webhook": {"ed25519PublicKeys": [secret]}}),
            Status::Config,
            "webhook.ed25519PublicKeys[0]",
        ),
        (
            json!({"webhook": {"rsaPublicKeys": [secret]}}),
            Status::Config,
            "webhook.rsaPublicKeys[0]",
        ),
        (json!({"webhook": {"keys": []}}), Status::InvalidArgument, "webhook.keys"),
        (json!({"http": {"proxy": format!("ftp://{secret}:1")}}), Status::Config, "http.proxy"),
        (json!({"http": {"proxy": "http://127.0.0.1:+8080"}}), Status::Config, "http.proxy"),
        (json!({"http": {"proxy": "http://127.0.0.1:80/path"}}), Status::Config, "http.proxy"),
        (json!({"baseUrl": "http://127.0.0.1:+80"}), Status::Config, "baseUrl"),
        (
            json!({"http": {"noProxy": ["a.example", format!("http://u:{secret}@h")]}}),
            Status::Config,
            "http.noProxy[1]",
        ),
        (json!({"http": {"userAgentSuffix": "a\nb"}}), Status::Config, "http.userAgentSuffix"),
        (json!({"http": {"insecure": true}}), Status::InvalidArgument, "http.insecure"),
    ] {
        let config = config(&emulator, changes.clone());
        let Err(outcome) = Abi::open(&config) else { panic!("{changes} was accepted") };
        let error = outcome.fails(status);
        assert_eq!(error["parameter"], key, "{changes}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(!message.contains("struct") && !message.contains("u64"), "{message}");
        assert!(
            error["message"].as_str().unwrap().contains(key.rsplit('.').next().unwrap()),
            "{error}"
        );
        contains_none_of(&error.to_string(), &[secret, emulator.client_secret()]);
    }
    for missing in ["clientId", "clientSecret"] {
        let mut config = working.clone();
        config.as_object_mut().unwrap().remove(missing);
        let Err(outcome) = Abi::open(&config) else { panic!("{missing} is not required") };
        outcome.refuses(missing);
    }
    for fine in [
        json!({}),
        json!({"baseUrl": "http://[::1]:8080/v3"}),
        json!({"baseUrl": "http://localhost"}),
    ] {
        Abi::open(&config(&emulator, fine)).unwrap();
    }
}

#[test]
fn client_is_not_created_from_an_invalid_configuration_or_pointer() {
    let good = CString::new(json!({"clientId": "a-1", "clientSecret": "s"}).to_string()).unwrap();
    let broken = CString::new([b'{', 0xff, b'}']).unwrap();
    let lists: Vec<CString> = ["", "[]", "null", "{", "{} {}"]
        .into_iter()
        .map(|text| CString::new(text).unwrap())
        .collect();
    // SAFETY: valid pointers, or NULL.
    unsafe {
        let mut client = ptr::dangling_mut::<ghl_client>();
        let mut document = ptr::dangling_mut();
        for text in
            [ptr::null(), broken.as_ptr()].into_iter().chain(lists.iter().map(|text| text.as_ptr()))
        {
            let code = ghl_client_new(text, &mut client, &mut document);
            Outcome::read(code, document).refuses("config_json");
            assert!(client.is_null());
            client = ptr::dangling_mut();
            assert_eq!(
                ghl_client_new(text, &mut client, ptr::null_mut()),
                Status::InvalidArgument.code()
            );
            assert!(client.is_null());
        }
        let code = ghl_client_new(good.as_ptr(), ptr::null_mut(), &mut document);
        Outcome::read(code, document).refuses("out_client");
        let code = ghl_client_new(good.as_ptr(), ptr::null_mut(), ptr::null_mut());
        assert_eq!(code, Status::InvalidArgument.code());
        assert_eq!(ghl_client_new(good.as_ptr(), &mut client, ptr::null_mut()), 0);
        assert!(!client.is_null());
        ghl_client_free(client);
    }
}

#[test]
fn buffer_gets_the_whole_token_or_nothing() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let company = emulator.company_id();
    let token = abi.live_token(&emulator, &company);
    let needed = token.len() + 1;
    let resource = CString::new(company).unwrap();
    let into = |buffer: *mut c_char, length: *mut usize| {
        let mut error = ptr::dangling_mut();
        // SAFETY: the buffer has the given length.
        let code = unsafe {
            ghl_access_token_into(abi.handle(), resource.as_ptr(), buffer, length, &mut error)
        };
        if code == 0 {
            assert!(error.is_null());
            Outcome(0, Value::Null)
        } else {
            Outcome::read(code, error)
        }
    };
    for size in [needed, needed + 1, 8192] {
        let mut buffer = vec![b'x'; size];
        let mut length = size;
        into(buffer.as_mut_ptr().cast(), &mut length).ok();
        assert_eq!(
            (length, &buffer[..needed - 1], buffer[needed - 1]),
            (needed, token.as_bytes(), 0)
        );
        assert!(buffer[needed..].iter().all(|byte| *byte == b'x'), "no write beyond the buffer");
    }
    for size in [1, 2, needed - 1] {
        let mut buffer = vec![b'x'; size];
        let mut length = size;
        let error = into(buffer.as_mut_ptr().cast(), &mut length).fails(Status::BufferTooSmall);
        assert_eq!(
            (length, buffer[0], &error["parameter"]),
            (needed, 0, &json!("buffer")),
            "{error}"
        );
        assert!(
            buffer[1..].iter().all(|byte| *byte == b'x'),
            "the buffer contains no part of a token"
        );
    }
    let mut length = 0;
    into(ptr::null_mut(), &mut length).fails(Status::BufferTooSmall);
    assert_eq!(length, needed, "a query for the size");
    let mut length = 100;
    into(ptr::null_mut(), &mut length).refuses("buffer");
    assert_eq!(length, 0);
    let mut buffer = [b'x'; 8];
    into(buffer.as_mut_ptr().cast(), ptr::null_mut()).refuses("length");
    works_on(&abi, &emulator);
}

#[test]
fn body_is_read_by_length_and_an_empty_body_is_accepted() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let empty = CString::new(signed(&emulator, b"", Signature::Ed25519).to_string()).unwrap();
    for function in [ghl_webhook_verify, ghl_webhook_apply] {
        let pass = |body: *const u8, length| {
            let mut document = ptr::dangling_mut();
            // SAFETY: a valid client, and pointers that are valid or NULL; nothing is read if the
            // length is refused.
            let code =
                unsafe { function(abi.handle(), body, length, empty.as_ptr(), &mut document) };
            Outcome::read(code, document)
        };
        // An empty body is accepted and signed here, but is not a JSON object: the signature was
        // checked.
        for body in [ptr::null(), b"xyz".as_ptr()] {
            let error = pass(body, 0).refuses("body");
            assert!(error["message"].as_str().unwrap().contains("not a JSON object"), "{error}");
        }
        for length in [1, 2, usize::MAX] {
            let error = pass(ptr::null(), length).refuses("body");
            assert!(error["message"].as_str().unwrap().contains("NULL"), "{error}");
        }
        pass(b"xyz".as_ptr(), usize::MAX).refuses("body_len");
        pass(b"xyz".as_ptr(), 3).fails(Status::SignatureInvalid);
    }
    works_on(&abi, &emulator);
}

#[test]
fn returned_string_may_be_modified_before_it_is_freed() {
    let emulator = emulator(1);
    let abi = connected(&emulator);
    let company = CString::new(emulator.company_id()).unwrap();
    for change in [0, 1, 500] {
        let (mut token, mut error) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: valid pointers, and a token is longer than the written text.
        unsafe {
            assert_eq!(ghl_access_token(abi.handle(), company.as_ptr(), &mut token, &mut error), 0);
            token.add(change).write(0);
            assert_eq!(take(token).len(), change);
        }
    }
    works_on(&abi, &emulator);
}

#[test]
fn panic_is_an_internal_error_and_the_client_keeps_working() {
    let emulator = emulator(1);
    let panicking_clock = PanickingClock::new(&emulator);
    let abi = Abi::by(&emulator, json!({}), Arc::<PanickingClock>::clone(&panicking_clock));
    let company = abi.connect_company(&emulator);
    let redirect_url =
        abi.consent(&emulator, ghl_oauth_emulator::Decision::Company(company.clone()));
    let import = json!({"tokens": [{"accessToken": "a", "companyId": "other", "expiresIn": 10}]});
    let gone = emulator.webhook(&Notice::Uninstall(emulator.location_ids()[0].clone()));
    let headers = signed(&emulator, gone.as_bytes(), Signature::Ed25519);
    let calls: [(&str, &dyn Fn() -> Outcome); 13] = [
        ("ghl_access_token", &|| abi.access_token(&company)),
        ("ghl_access_token_into", &|| {
            let text = CString::new(company.as_str()).unwrap();
            call(access_into, abi.handle(), text.as_ptr())
        }),
        ("ghl_token_refresh", &|| abi.token_refresh(&company)),
        ("ghl_authorization_url", &|| abi.authorization_url(json!({}))),
        ("ghl_authorization_complete", &|| {
            abi.authorization_complete(json!({"redirectUrl": redirect_url}))
        }),
        ("ghl_oauth_token", &|| abi.oauth_token(json!({"grantType": "client_credentials"}))),
        ("ghl_oauth_location_token", &|| {
            let location = &emulator.location_ids()[0];
            abi.oauth_location_token(json!({"companyId": company, "locationId": location}))
        }),
        ("ghl_oauth_installed_locations", &|| {
            abi.oauth_installed_locations(json!({"companyId": company}))
        }),
        ("ghl_tokens_import", &|| abi.tokens_import(import.clone())),
        ("ghl_tokens_maintain", &|| abi.tokens_maintain(json!({}), |_| true)),
        ("ghl_tokens_mint", &|| {
            abi.tokens_mint(json!({"companyId": company, "installed": true, "force": true}), |_| {
                true
            })
        }),
        ("ghl_webhook_apply", &|| abi.webhook_apply(gone.as_bytes(), &headers)),
        ("ghl_token_delete", &|| abi.token_delete(&company)),
    ];
    for (name, call) in calls {
        panicking_clock.set(1);
        let error = call().fails(Status::Internal);
        assert!(panicking_clock.disarm(), "{name}");
        assert_eq!(error["retryable"], false);
        assert!(
            !error.to_string().contains("the trap"),
            "{name}: a panic message may contain a secret: {error}"
        );
        if name != "ghl_token_delete" {
            call().ok();
            abi.live_token(&emulator, &company);
        }
    }
    abi.connect_company(&emulator);
    abi.live_token(&emulator, &company);
}

#[test]
fn panic_at_any_step_of_a_refresh_loses_no_connection() {
    let emulator = emulator(1);
    let panicking_clock = PanickingClock::new(&emulator);
    let abi = Abi::by(&emulator, json!({}), Arc::<PanickingClock>::clone(&panicking_clock));
    let company = abi.connect_company(&emulator);
    let mut moments = 0;
    for moment in 1.. {
        emulator.clock().advance(DAY);
        panicking_clock.set(moment);
        let outcome = abi.access_token(&company);
        if !panicking_clock.disarm() {
            outcome.ok();
            break;
        }
        outcome.fails(Status::Internal);
        abi.live_token(&emulator, &company);
        assert_eq!(abi.listed(&company)["state"], "ok");
        moments = moment;
    }
    assert!(moments >= 4, "the clock panicked {moments} times");
    assert_eq!(emulator.live_refresh_tokens().len(), 1);
}
