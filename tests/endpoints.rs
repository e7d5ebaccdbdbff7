//! The three endpoints: parameters on the wire, responses, and the error for each refusal.

mod support;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::Status;
use ghl_oauth_emulator::{
    Decision, Emulator, Ending, Endpoint, ExpiresIn, FaultKind, GrantType, RecordedRequest, Rule,
    Stage,
};
use serde_json::{Value, json};

use support::{
    Abi, Outcome, contains_none_of, emulator, fields, header, only_request, response, sent,
    with_client, with_company,
};

const ENCODINGS: [(&str, &str); 2] =
    [("form", "application/x-www-form-urlencoded"), ("json", "application/json")];

/// Characters that need escaping in a form, in a query and in JSON.
const AWKWARD: &str = "a & b=c+d%20é\"\\/?#";

/// The same without blanks, which no ID contains.
const AWKWARD_ID: &str = "a&b=c+d%20é\"\\/?#";

fn answer(status: u16, body: impl ToString) -> FaultKind {
    response(status, body, &[])
}

fn owned<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Every call of an endpoint: name, matching rule, call.
type Way = (&'static str, Endpoint, fn(&Abi, &Emulator) -> Outcome);

const WAYS: [Way; 5] = [
    ("code", Endpoint::Token, |abi, _| {
        abi.oauth_token(json!({"grantType": "authorization_code", "code": "some code"}))
    }),
    ("refresh", Endpoint::Token, |abi, _| {
        abi.oauth_token(json!({"grantType": "refresh_token", "refreshToken": "some refresh token"}))
    }),
    ("credentials", Endpoint::Token, |abi, _| {
        abi.oauth_token(json!({"grantType": "client_credentials"}))
    }),
    ("mint", Endpoint::LocationToken, |abi, emulator| {
        abi.oauth_location_token(json!({
            "companyId": emulator.company_id(),
            "locationId": emulator.location_ids()[0],
            "accessToken": "some access token",
        }))
    }),
    ("list", Endpoint::InstalledLocations, |abi, emulator| {
        abi.oauth_installed_locations(
            json!({"companyId": emulator.company_id(), "accessToken": "some access token"}),
        )
    }),
];

/// An authorization code from the consent page.
fn code(abi: &Abi, emulator: &Emulator, decision: Decision) -> String {
    support::query(&abi.consent(emulator, decision))["code"].clone()
}

/// A company token from the raw call, which stores nothing.
fn raw_company(abi: &Abi, emulator: &Emulator) -> Value {
    let code = code(abi, emulator, Decision::Company(emulator.company_id()));
    abi.oauth_token(json!({"grantType": "authorization_code", "code": code})).ok()
}

#[test]
fn token_request_sends_every_parameter_in_either_encoding() {
    let emulator = emulator(1);
    emulator.inject(Rule::default(), answer(200, r#"{"accessToken":"a"}"#));
    for (encoding, content_type) in ENCODINGS {
        let abi = Abi::with(&emulator, json!({"tokenRequestEncoding": encoding}));
        for (params, expected) in [
            (
                json!({"grantType": "authorization_code", "code": AWKWARD}),
                vec![("grantType", "authorization_code"), ("code", AWKWARD)],
            ),
            (
                json!({
                    "grantType": "authorization_code", "code": "c", "redirectUri": AWKWARD,
                    "userType": "Location",
                }),
                vec![
                    ("grantType", "authorization_code"),
                    ("code", "c"),
                    ("redirectUri", AWKWARD),
                    ("userType", "Location"),
                ],
            ),
            (
                json!({
                    "grantType": "refresh_token", "refreshToken": AWKWARD, "userType": "Company",
                }),
                vec![
                    ("grantType", "refresh_token"),
                    ("refreshToken", AWKWARD),
                    ("userType", "Company"),
                ],
            ),
            (
                json!({"grantType": "refresh_token", "refreshToken": "r"}),
                vec![("grantType", "refresh_token"), ("refreshToken", "r")],
            ),
            (json!({"grantType": "client_credentials"}), vec![("grantType", "client_credentials")]),
            (
                json!({
                    "grantType": "client_credentials", "clientId": AWKWARD_ID,
                    "clientSecret": "other&secret",
                }),
                vec![
                    ("grantType", "client_credentials"),
                    ("clientId", AWKWARD_ID),
                    ("clientSecret", "other&secret"),
                ],
            ),
        ] {
            abi.oauth_token(params.clone()).ok();
            let request = only_request(&emulator);
            let mut all = owned([
                ("clientId", emulator.client_id()),
                ("clientSecret", emulator.client_secret()),
            ]);
            all.extend(owned(expected));
            assert_eq!(fields(&request), all, "{params}");
            assert_eq!(
                (request.method.as_str(), request.path.as_str(), request.query.as_str()),
                ("POST", "/oauth/token", "")
            );
            assert_eq!(header(&request, "content-type"), Some(content_type));
            assert_eq!(header(&request, "authorization"), None);
            assert_common_headers(&request);
        }
    }
}

#[track_caller]
fn assert_common_headers(request: &RecordedRequest) {
    assert_eq!(header(request, "version"), Some("v3"));
    assert_eq!(header(request, "accept"), Some("application/json"));
    assert_eq!(
        header(request, "user-agent"),
        Some(concat!("ghl-oauth/", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn mint_is_a_form_with_the_company_bearer_in_either_token_request_encoding() {
    let emulator = emulator(1);
    emulator.inject(Rule::default(), answer(200, r#"{"accessToken":"a"}"#));
    for (encoding, _) in ENCODINGS {
        let abi = Abi::with(&emulator, json!({"tokenRequestEncoding": encoding}));
        let params =
            json!({"companyId": AWKWARD_ID, "locationId": "l&l", "accessToken": "the.bearer"});
        abi.oauth_location_token(params).ok();
        let request = only_request(&emulator);
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.query.as_str()),
            ("POST", "/oauth/location-token", "")
        );
        assert_eq!(fields(&request), owned([("companyId", AWKWARD_ID), ("locationId", "l&l")]));
        assert_eq!(header(&request, "content-type"), Some("application/x-www-form-urlencoded"));
        assert_eq!(header(&request, "authorization"), Some("Bearer the.bearer"));
        assert_common_headers(&request);
    }
}

#[test]
fn list_sends_every_parameter_and_the_app_id_by_default() {
    let emulator = emulator(1);
    emulator.inject(Rule::default(), answer(200, r#"{"items":[]}"#));
    let abi = Abi::new(&emulator);
    let default = ("appId", emulator.app_id());
    assert!(emulator.client_id().starts_with(&format!("{}-", emulator.app_id())));
    for (params, expected) in [
        (json!({}), vec![default]),
        (json!({"appId": "another"}), vec![("appId", "another")]),
        (json!({"pageSize": 1}), vec![default, ("pageSize", "1")]),
        (json!({"pageSize": 100}), vec![default, ("pageSize", "100")]),
        (
            json!({"isInstalled": false, "onTrial": true}),
            vec![default, ("isInstalled", "false"), ("onTrial", "true")],
        ),
        (
            json!({
                "appId": "a", "pageSize": 7, "pageToken": "next==", "query": AWKWARD,
                "isInstalled": true,
                "restrictToUserLocations": false, "versionId": "v", "onTrial": false, "planId": "p",
                "locationId": "l",
            }),
            vec![
                ("appId", "a"),
                ("pageSize", "7"),
                ("pageToken", "next=="),
                ("query", AWKWARD),
                ("isInstalled", "true"),
                ("restrictToUserLocations", "false"),
                ("versionId", "v"),
                ("onTrial", "false"),
                ("planId", "p"),
                ("locationId", "l"),
            ],
        ),
        (json!({"all": true}), vec![default, ("pageSize", "100")]),
        (
            json!({"all": true, "pageSize": 3, "query": "q"}),
            vec![default, ("pageSize", "3"), ("query", "q")],
        ),
    ] {
        let mut given = params.clone();
        given["companyId"] = "the+company".into();
        given["accessToken"] = "the.bearer".into();
        abi.oauth_installed_locations(given).ok();
        let request = only_request(&emulator);
        let mut all = owned([("companyId", "the+company")]);
        all.extend(owned(expected));
        assert_eq!(fields(&request), all, "{params}");
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.body.as_str()),
            ("GET", "/oauth/installed-locations", "")
        );
        assert_eq!(header(&request, "content-type"), None);
        assert_eq!(header(&request, "authorization"), Some("Bearer the.bearer"));
        assert_common_headers(&request);
    }
}

#[test]
fn configuration_sets_base_path_version_and_user_agent() {
    let emulator = emulator(1);
    emulator.inject(Rule::default(), answer(200, r#"{"accessToken":"a","items":[]}"#));
    for prefix in ["/v3", "/gateway/ghl/"] {
        let abi = Abi::with(
            &emulator,
            json!({
                "baseUrl": format!("{}{prefix}", emulator.base_url()),
                "apiVersion": "v4-beta",
                "http": {"userAgentSuffix": "my-product/2.0"},
            }),
        );
        for (_, _, call) in WAYS {
            call(&abi, &emulator).ok();
            let request = only_request(&emulator);
            let expected = format!("{}/oauth/", prefix.trim_end_matches('/'));
            assert!(request.path.starts_with(&expected), "{}", request.path);
            assert_eq!(header(&request, "version"), Some("v4-beta"));
            let user_agent = concat!("ghl-oauth/", env!("CARGO_PKG_VERSION"), " my-product/2.0");
            assert_eq!(header(&request, "user-agent"), Some(user_agent));
        }
    }
}

#[test]
fn responses_of_every_shape_are_returned_in_camel_case() {
    let (emulator, abi) = with_client(3);
    let (company, location) = (emulator.company_id(), emulator.location_ids()[0].clone());
    let shapes = [
        None,
        Some(FaultKind::SnakeCase),
        Some(FaultKind::ReplaceStatus { status: 201 }),
        Some(FaultKind::ReplaceStatus { status: 299 }),
        Some(FaultKind::Stringified),
        Some(FaultKind::HugeBody { bytes: 100_000, chunked: true }),
    ];
    for shape in shapes {
        let name = format!("{shape:?}");
        if let Some(kind) = shape {
            emulator.inject(Rule::default(), kind);
        }
        let before = emulator.clock().now_ms();
        let token = raw_company(&abi, &emulator);
        let bearer = token["accessToken"].as_str().unwrap();
        let minted = abi
            .oauth_location_token(
                json!({"companyId": company, "locationId": location, "accessToken": bearer}),
            )
            .ok();
        let list = abi
            .oauth_installed_locations(json!({"companyId": company, "accessToken": bearer}))
            .ok();
        let after = emulator.clock().now_ms();
        emulator.clear_faults();

        keys_are(
            &token,
            "accessToken approveAllLocations companyId expiresAt expiresIn \
             installToFutureLocations isBulkInstallation refreshToken refreshTokenId scope \
             tokenType traceId userId userType",
        );
        keys_are(
            &minted,
            "accessToken appId companyId expiresAt expiresIn locationId planId refreshToken \
             refreshTokenId scope tokenType traceId userId userType versionId",
        );
        assert_eq!(
            (&token["userType"], &token["companyId"]),
            (&json!("Company"), &json!(company)),
            "{name}"
        );
        // The response to a mint contains neither field.
        assert_eq!(
            (&minted["userType"], &minted["companyId"]),
            (&json!("Location"), &json!(company))
        );
        assert_eq!(minted["locationId"], location.as_str());
        for answer in [&token, &minted] {
            assert!(
                emulator.access_token_is_live(answer["accessToken"].as_str().unwrap()),
                "{name}"
            );
            let seconds = answer["expiresIn"].as_i64().expect("a number");
            assert!([86_398, 86_399].contains(&seconds), "{name}: {seconds}");
            let expires_at = answer["expiresAt"].as_i64().unwrap();
            assert!((before..=after).contains(&(expires_at - seconds * 1000)), "{name}: {answer}");
        }
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 3, "{name}");
        assert!(
            items.iter().all(|item| emulator.location_ids().contains(&text(item, "_id"))),
            "{name}"
        );
        let total = &list["pagination"]["totalRecords"];
        assert!(total == 3 || total == "3", "{name}: {list}");
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

#[track_caller]
fn keys_are(object: &Value, expected: &str) {
    let keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected: Vec<&str> = expected.split_whitespace().collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

#[test]
fn unknown_response_fields_are_passed_through() {
    let (emulator, abi) = with_client(1);
    let news = json!({"deep": [1, 2.5, null, {"_id": "x", "snake_inside": true}]});
    for (name, endpoint, call) in WAYS {
        let body = json!({"accessToken": "a", "items": [{"_id": "1", "news": news}], "news": news});
        emulator.inject(Rule::on(endpoint), answer(200, body));
        let result = call(&abi, &emulator).ok();
        assert_eq!((&result["news"], &result["items"][0]["news"]), (&news, &news), "{name}");
        emulator.clear_faults();
    }
}

#[test]
fn newer_spelling_wins_if_a_response_has_both() {
    let (emulator, abi) = with_client(1);
    emulator.inject(
        Rule::default(),
        answer(
            200,
            r#"{"access_token":"old","accessToken":"new","refreshToken":"new r","refresh_token":"old r",
                "expires_in":1,"expiresIn":100,"company_id":"c","userType":"Company"}"#,
        ),
    );
    let before = emulator.clock().now_ms();
    let token = abi.oauth_token(json!({"grantType": "client_credentials"})).ok();
    assert_eq!((&token["accessToken"], &token["refreshToken"]), (&json!("new"), &json!("new r")));
    assert_eq!((&token["expiresIn"], &token["companyId"]), (&json!(100), &json!("c")));
    assert!(token["expiresAt"].as_i64().unwrap() >= before + 100_000);
    assert!(!token.to_string().contains("old"), "{token}");
}

#[test]
fn older_list_format_of_locations_is_read() {
    let (emulator, abi) = with_client(1);
    let params = json!({"companyId": "c", "accessToken": "some access token"});
    let items = json!([{"_id": "1", "name": "One"}, {"_id": "2", "name": "Two"}]);
    emulator.inject(Rule::default(), answer(200, json!({"locations": items, "count": 2})));
    for all in [false, true] {
        let mut params = params.clone();
        params["all"] = all.into();
        let list = abi.oauth_installed_locations(params).ok();
        assert_eq!((&list["items"], &list["count"]), (&items, &json!(2)));
    }
}

#[test]
fn expiry_is_computed_from_any_expires_in_format() {
    let (emulator, abi) = with_client(1);
    const HOUR: i64 = 3_600;
    for (expires_in, seconds) in [
        (ExpiresIn::Truth, 86_399),
        (ExpiresIn::Absent, HOUR),
        (ExpiresIn::Value(json!("86399")), 86_399),
        (ExpiresIn::Value(json!("600")), 600),
        (ExpiresIn::Value(json!(600.9)), 600),
        (ExpiresIn::Value(json!(0)), HOUR),
        (ExpiresIn::Value(json!("0")), HOUR),
        (ExpiresIn::Value(json!(-5)), HOUR),
        (ExpiresIn::Value(json!(i64::MIN)), HOUR),
        (ExpiresIn::Value(json!(null)), HOUR),
        (ExpiresIn::Value(json!("soon")), HOUR),
        (ExpiresIn::Value(json!([])), HOUR),
    ] {
        let name = format!("{expires_in:?}");
        emulator.set_expires_in(expires_in);
        let before = emulator.clock().now_ms();
        let token = raw_company(&abi, &emulator);
        let after = emulator.clock().now_ms();
        let began = token["expiresAt"].as_i64().unwrap() - seconds * 1000;
        assert!((before..=after).contains(&began), "{name}: {token}");
    }
    emulator.set_expires_in(ExpiresIn::Value(json!(i64::MAX)));
    let token = raw_company(&abi, &emulator);
    let years = (token["expiresAt"].as_i64().unwrap() - emulator.clock().now_ms()) / 31_536_000_000;
    assert!((9..=10).contains(&years), "a lifetime is capped at ten years: {token}");
}

#[test]
fn success_without_a_token_is_a_protocol_error_that_shows_no_content() {
    let (emulator, abi) = with_client(1);
    for (name, endpoint, call) in WAYS {
        for body in [
            "",
            "OK",
            "[]",
            "null",
            "\"accessToken\"",
            "{\"accessToken\": \"half-a-new-token",
            "<html>",
        ] {
            emulator.inject(Rule::on(endpoint), answer(200, body));
            let error = call(&abi, &emulator).fails(Status::Protocol);
            let is_repeatable = !["code", "refresh"].contains(&name) && body != "<html>";
            assert_eq!(
                (&error["httpStatus"], &error["retryable"]),
                (&json!(200), &json!(is_repeatable)),
                "{name}: {body}"
            );
            contains_none_of(&error.to_string(), &["half-a-new-token"]);
            emulator.clear_faults();
        }
        if endpoint == Endpoint::InstalledLocations {
            continue;
        }
        for body in
            ["{}", r#"{"accessToken":""}"#, r#"{"accessToken":null}"#, r#"{"accessToken":{"a":1}}"#]
        {
            emulator.inject(Rule::on(endpoint), answer(200, body));
            let error = call(&abi, &emulator).fails(Status::Protocol);
            assert!(error["message"].as_str().unwrap().contains("accessToken"), "{name}: {error}");
            emulator.clear_faults();
        }
    }
}

#[test]
fn token_that_is_not_a_string_is_a_protocol_error() {
    let (emulator, abi) = with_client(1);
    for wrong in ["937", "true", "[\"a\"]"] {
        let body = format!(r#"{{"accessToken":{wrong},"refreshToken":"r"}}"#);
        emulator.inject(Rule::on(Endpoint::Token), answer(200, body));
        abi.oauth_token(json!({"grantType": "client_credentials"})).fails(Status::Protocol);
        emulator.clear_faults();
    }
}

#[test]
fn unrequested_compressed_response_is_a_protocol_error() {
    let (emulator, abi) = with_client(1);
    for marked in [true, false] {
        emulator.inject(Rule::default(), FaultKind::Gzip { marked });
        abi.oauth_token(json!({"grantType": "client_credentials"})).fails(Status::Protocol);
        emulator.clear_faults();
    }
}

#[test]
fn raw_calls_store_nothing() {
    let (emulator, abi) = with_client(2);
    let heard = abi.listen();
    let (company, location) = (emulator.company_id(), emulator.location_ids()[0].clone());
    let first = raw_company(&abi, &emulator);
    let refreshed = abi
        .oauth_token(json!({"grantType": "refresh_token", "refreshToken": first["refreshToken"]}))
        .ok();
    let bearer = refreshed["accessToken"].clone();
    let minting = json!({"companyId": company, "locationId": location, "accessToken": bearer});
    abi.oauth_location_token(minting).ok();
    abi.oauth_installed_locations(json!({"companyId": company, "accessToken": bearer})).ok();
    abi.oauth_token(json!({"grantType": "client_credentials"})).ok();
    sent(&emulator);

    assert_eq!(abi.tokens_list(json!({})).ok()["items"], json!([]));
    for resource in [&company, &location] {
        abi.access_token(resource).fails(Status::NotFound);
    }
    assert_eq!(sent(&emulator), [""; 0]);
    assert_eq!(heard.names(), [""; 0]);
}

#[test]
fn bearer_is_the_stored_company_token_unless_the_call_provides_a_token() {
    let (emulator, abi) = with_client(2);
    let (company, location) = (emulator.company_id(), emulator.location_ids()[0].clone());
    let mint = json!({"companyId": company, "locationId": location});
    let list = json!({"companyId": company});
    for outcome in
        [abi.oauth_location_token(mint.clone()), abi.oauth_installed_locations(list.clone())]
    {
        outcome.fails(Status::NotFound);
    }
    assert_eq!(sent(&emulator), [""; 0]);

    abi.connect_company(&emulator);
    let bearer = format!("Bearer {}", abi.live_token(&emulator, &company));
    sent(&emulator);
    abi.oauth_location_token(mint).ok();
    assert_eq!(header(&only_request(&emulator), "authorization"), Some(bearer.as_str()));
    abi.oauth_installed_locations(list).ok();
    assert_eq!(header(&only_request(&emulator), "authorization"), Some(bearer.as_str()));
    let held = abi.tokens_list(json!({})).ok();
    assert_eq!(held["items"].as_array().unwrap().len(), 1, "a raw mint is not stored: {held}");
}

#[test]
fn unknown_company_is_not_found_and_not_treated_as_a_location() {
    let (emulator, abi, _) = with_company(1);
    let location = emulator.location_ids()[0].clone();
    sent(&emulator);
    for company in ["anotherCompany", &location] {
        let list = abi.oauth_installed_locations(json!({"companyId": company}));
        let mint = abi.oauth_location_token(json!({"companyId": company, "locationId": location}));
        assert_eq!(sent(&emulator), [""; 0], "no request is possible without its token");
        for outcome in [list, mint] {
            let error = outcome.fails(Status::NotFound);
            assert!(error["message"].as_str().unwrap().contains(company), "{error}");
        }
    }
    assert_eq!(abi.tokens_list(json!({})).ok()["items"].as_array().unwrap().len(), 1);
}

/// Every call that needs the stored company token.
type Bearing = (&'static str, Endpoint, fn(&Abi, &Emulator) -> Outcome);

const BEARING: [Bearing; 3] = [
    ("list", Endpoint::InstalledLocations, |abi, emulator| {
        abi.oauth_installed_locations(json!({"companyId": emulator.company_id()}))
    }),
    ("mint", Endpoint::LocationToken, |abi, emulator| {
        let location = &emulator.location_ids()[0];
        abi.oauth_location_token(
            json!({"companyId": emulator.company_id(), "locationId": location}),
        )
    }),
    ("mint", Endpoint::LocationToken, |abi, emulator| {
        abi.access_token(&emulator.location_ids()[0])
    }),
];

#[test]
fn expired_bearer_is_refreshed_once_and_the_call_repeated() {
    for (name, _, call) in BEARING {
        let (emulator, abi, _) = with_company(1);
        sent(&emulator);
        emulator.expire_access_tokens();
        call(&abi, &emulator).ok();
        assert_eq!(
            sent(&emulator),
            [format!("{name} 401"), "refresh 200".into(), format!("{name} 200")]
        );
        let company = emulator.company_id();
        let token = abi.live_token(&emulator, &company);
        call(&abi, &emulator).ok();
        assert_eq!(abi.live_token(&emulator, &company), token, "the new token is stored");
        assert_eq!(emulator.refreshes(), 1);
    }
}

#[test]
fn expired_bearer_provided_by_the_caller_is_not_refreshed() {
    let (emulator, abi, _) = with_company(1);
    sent(&emulator);
    for (name, endpoint, call) in WAYS {
        if endpoint == Endpoint::Token {
            continue;
        }
        let error = call(&abi, &emulator).fails(Status::Unauthorized);
        assert_eq!(error["api"]["message"], "Invalid JWT");
        assert_eq!(sent(&emulator), [format!("{name} 401")]);
    }
    assert_eq!(emulator.refreshes(), 0);
}

#[test]
fn persistent_401_causes_one_refresh_and_no_loop() {
    for words in ["Invalid JWT", "Invalid token: access token is invalid"] {
        for (name, endpoint, call) in BEARING {
            let (emulator, abi, _) = with_company(1);
            sent(&emulator);
            let body = json!({"statusCode": 401, "message": words});
            let fault = emulator.inject(Rule::on(endpoint), answer(401, body));
            let error = call(&abi, &emulator).fails(Status::Unauthorized);
            assert_eq!(
                (&error["httpStatus"], &error["api"]["message"]),
                (&json!(401), &json!(words))
            );
            assert_eq!((emulator.strikes(fault), emulator.refreshes()), (2, 1), "{name}: {words}");
        }
    }
}

#[test]
fn other_401_responses_never_cause_a_refresh() {
    for (words, status) in [
        ("The token is not authorized for this scope.", Status::Forbidden),
        ("This authClass type is not allowed to access this scope. Please use…", Status::Forbidden),
        ("Token's user type mismatch!", Status::Forbidden),
        ("This token's user type is not yet supported!", Status::Forbidden),
        ("version header was not found.", Status::InvalidRequest),
        ("version header is invalid", Status::InvalidRequest),
        ("This needs the access token of a company", Status::Unauthorized),
        ("Something that nobody has met before", Status::Unauthorized),
    ] {
        for (name, endpoint, call) in BEARING {
            let (emulator, abi, _) = with_company(1);
            sent(&emulator);
            let body = json!({"statusCode": 401, "message": words});
            let fault = emulator.inject(Rule::on(endpoint), answer(401, body));
            let error = call(&abi, &emulator).fails(status);
            assert_eq!(error["retryable"], false, "{name}: {words}");
            assert_eq!((emulator.strikes(fault), emulator.refreshes()), (1, 0), "{name}: {words}");
        }
    }
}

#[test]
fn refusals_of_the_emulator_map_to_distinct_errors() {
    let emulator = emulator(2);
    let location = emulator.location_ids()[0].clone();
    let company = emulator.company_id();
    let abi = Abi::with(&emulator, json!({"scopes": ["locations.readonly"]}));
    abi.connect_company(&emulator);
    let list = json!({"companyId": company});
    abi.oauth_installed_locations(list.clone()).fails(Status::Forbidden);

    let abi = Abi::new(&emulator);
    abi.connect_company(&emulator);
    let of_location = abi.live_token(&emulator, &location);
    let mut wrong_class = list.clone();
    wrong_class["accessToken"] = of_location.into();
    abi.oauth_installed_locations(wrong_class).fails(Status::Forbidden);
    let elsewhere = json!({"companyId": company, "locationId": "notOneOfTheirs"});
    let error = abi.oauth_location_token(elsewhere).fails(Status::Forbidden);
    assert_eq!(error["resourceId"], "notOneOfTheirs");
    assert_eq!(error["api"]["message"], "The token does not have access to this location.");

    let error = abi.oauth_token(json!({"grantType": "authorization_code", "code": "unknown"}));
    error.fails(Status::ReauthorizationRequired);
    let error = abi.oauth_token(json!({"grantType": "refresh_token", "refreshToken": "unknown"}));
    error.fails(Status::ReauthorizationRequired);
    for grant in [
        json!({"grantType": "client_credentials", "clientSecret": "wrong"}),
        json!({"grantType": "refresh_token", "refreshToken": "r", "clientSecret": "wrong"}),
    ] {
        let error = abi.oauth_token(grant).fails(Status::Unauthorized);
        assert!(error["help"].as_str().unwrap().contains("clientSecret"), "{error}");
    }
    let older = Abi::with(&emulator, json!({"apiVersion": "2021-07-28"}));
    older.oauth_token(json!({"grantType": "client_credentials"})).fails(Status::InvalidRequest);
}

#[test]
fn every_shape_of_refusal_is_parsed() {
    let (emulator, abi) = with_client(1);
    let page = format!("<!DOCTYPE html><title>Access denied | 1010</title>{}", "x".repeat(5_000));
    for (status, body, expected, api, trace_id) in [
        (
            400,
            json!({"statusCode": 400, "message": "Invalid parameter: grantType"}).to_string(),
            Status::InvalidRequest,
            json!({
                "code": null, "message": "Invalid parameter: grantType", "details": null,
                "resolution": null,
            }),
            Value::Null,
        ),
        (
            400,
            json!({"error": "invalid_grant", "error_description": "It is gone."}).to_string(),
            Status::ReauthorizationRequired,
            json!({
                "code": "invalid_grant", "message": "It is gone.", "details": null,
                "resolution": null,
            }),
            Value::Null,
        ),
        (
            400,
            json!({
                "statusCode": 400, "message": "Location is not active", "traceId": "t 1",
            })
            .to_string(),
            Status::LocationInactive,
            json!({
                "code": null, "message": "Location is not active", "details": null,
                "resolution": null,
            }),
            json!("t 1"),
        ),
        (
            404,
            json!({"error": {
                "code": "RESOURCE_NOT_FOUND", "message": "There is none.",
                "details": {"resource": ["App"]},
                "resolution": "Look again.",
            }})
            .to_string(),
            Status::NotFound,
            json!({
                "code": "RESOURCE_NOT_FOUND", "message": "There is none.",
                "details": {"resource": ["App"]},
                "resolution": "Look again.",
            }),
            Value::Null,
        ),
        (
            422,
            json!({
                "message": ["grant_type must be a valid enum value", "code should not be empty"],
                "error": "Unprocessable Entity", "statusCode": 422, "traceId": "t 2",
            })
            .to_string(),
            Status::InvalidRequest,
            json!({
                "code": "Unprocessable Entity",
                "message": "grant_type must be a valid enum value; code should not be empty",
                "details": null, "resolution": null,
            }),
            json!("t 2"),
        ),
        (
            403,
            page.clone(),
            Status::Forbidden,
            json!({"code": null, "message": &page[..500], "details": null, "resolution": null}),
            Value::Null,
        ),
        (
            404,
            String::new(),
            Status::NotFound,
            json!({"code": null, "message": null, "details": null, "resolution": null}),
            Value::Null,
        ),
    ] {
        for (name, endpoint, call) in WAYS {
            emulator.inject(Rule::on(endpoint), answer(status, &body));
            let error = call(&abi, &emulator).fails(expected);
            assert_eq!(
                (&error["httpStatus"], &error["api"], &error["traceId"], &error["parameter"]),
                (&json!(status), &api, &trace_id, &Value::Null),
                "{name}"
            );
            let retryable = expected == Status::LocationInactive;
            assert_eq!(error["retryable"], retryable, "{name}");
            assert!(error["help"].is_string() && error["message"].is_string(), "{name}: {error}");
            assert_eq!(sent(&emulator).len(), 1, "{name}: a refusal is final");
            emulator.clear_faults();
        }
    }
}

#[test]
fn all_pages_are_returned_as_one_list() {
    let (emulator, abi, company) = with_company(95);
    for (page_size, requests) in [(Some(10), 10), (Some(95), 1), (None, 1)] {
        sent(&emulator);
        let mut params = json!({"companyId": company, "all": true});
        if let Some(page_size) = page_size {
            params["pageSize"] = page_size.into();
        }
        let list = abi.oauth_installed_locations(params).ok();
        let mut ids: Vec<String> =
            list["items"].as_array().unwrap().iter().map(|item| text(item, "_id")).collect();
        ids.sort();
        let mut expected = emulator.location_ids();
        expected.sort();
        assert_eq!(ids, expected);
        assert_eq!(
            list["pagination"],
            json!({
                "totalRecords": 95, "currentPageSize": 95, "hasNextPage": false,
                "hasPrevPage": false,
            })
        );
        assert_eq!(list["installToFutureLocations"], true);
        assert_eq!(sent(&emulator).len(), requests);
    }
}

#[test]
fn cyclic_page_tokens_end_in_an_error() {
    let (emulator, abi) = with_client(1);
    let params = json!({"companyId": "c", "accessToken": "some access token", "all": true});
    for body in [
        json!({
            "items": [{"_id": "1"}], "pagination": {"nextPageToken": "again", "hasNextPage": true},
        }),
        json!({"pagination": {"nextPageToken": "on"}}),
    ] {
        emulator.inject(Rule::default(), answer(200, body));
        abi.oauth_installed_locations(params.clone()).fails(Status::Protocol);
        assert!(sent(&emulator).len() <= 2);
        emulator.clear_faults();
    }
    // A token on the last page is not followed.
    let last = json!({"items": [], "pagination": {"nextPageToken": "x", "hasNextPage": false}});
    emulator.inject(Rule::default(), answer(200, last));
    abi.oauth_installed_locations(params).ok();
}

#[test]
fn refused_page_fails_the_whole_list() {
    let (emulator, abi, company) = with_company(5);
    emulator.inject(Rule::on(Endpoint::InstalledLocations).skip(1), answer(403, "no"));
    let params = json!({"companyId": company, "all": true, "pageSize": 2});
    abi.oauth_installed_locations(params).fails(Status::Forbidden);
}

#[test]
fn no_redirect_is_ever_followed() {
    let (emulator, elsewhere) = (emulator(1), emulator(1));
    let abi = Abi::new(&emulator);
    for status in [301, 302, 303, 307, 308] {
        for (name, endpoint, call) in WAYS {
            for location in [None, Some(elsewhere.base_url()), Some("/oauth/token".into())] {
                emulator.inject(Rule::on(endpoint), FaultKind::Redirect { status, location });
                let error = call(&abi, &emulator).fails(Status::Protocol);
                assert_eq!(error["httpStatus"], status, "{name}");
                let requests = emulator.requests();
                assert!(
                    requests.iter().all(|request| request.path != "/oauth/token" || name != "list")
                );
                // Only a code is sent a second time, because its outcome is unknown.
                assert_eq!(requests.len(), if name == "code" { 2 } else { 1 }, "{name} {status}");
                emulator.clear_requests();
                emulator.clear_faults();
            }
        }
    }
    assert_eq!(sent(&elsewhere), [""; 0]);
}

#[test]
fn body_over_the_size_limit_is_refused_and_a_smaller_body_is_read() {
    let (emulator, abi) = with_client(1);
    let generous = Abi::with(&emulator, json!({"limits": {"responseBytes": 4_000_000}}));
    let params = json!({"grantType": "client_credentials"});
    for chunked in [false, true] {
        for bytes in [2_000_000, 20_000_000] {
            emulator.inject(Rule::default(), FaultKind::HugeBody { bytes, chunked });
            let error = abi.oauth_token(params.clone()).fails(Status::Protocol);
            assert!(error["help"].as_str().unwrap().contains("limits.responseBytes"), "{error}");
            let company = code(&abi, &emulator, Decision::Company(emulator.company_id()));
            let exchange = json!({"grantType": "authorization_code", "code": company});
            assert_ne!(abi.oauth_token(exchange).0, 0);
            if bytes < 4_000_000 {
                generous.oauth_token(params.clone()).ok();
            }
            emulator.clear_faults();
        }
    }
    // An endless body is not read to its end.
    let hasty = Abi::with(&emulator, json!({"timeouts": {"totalMs": 5_000}}));
    for chunked in [false, true] {
        emulator.inject(Rule::default(), FaultKind::HugeBody { bytes: 1 << 50, chunked });
        hasty.oauth_token(params.clone()).fails(Status::Protocol);
        emulator.clear_faults();
    }
    emulator.inject(Rule::default(), FaultKind::HugeHead { bytes: 1 << 20, lines: 4 });
    abi.oauth_token(params.clone()).fails(Status::Protocol);
    emulator.clear_faults();
    abi.oauth_token(params).ok();
}

#[test]
fn rate_limit_delay_within_the_deadline_is_waited_for() {
    thread::scope(|scope| {
        for (name, endpoint, call) in WAYS {
            scope.spawn(move || {
                let (emulator, abi) = with_client(1);
                let kind = response(429, "{}", &[("Retry-After", "1")]);
                emulator.inject(Rule::on(endpoint).times(1), kind);
                emulator
                    .inject(Rule::on(endpoint), answer(200, r#"{"accessToken":"a","items":[]}"#));
                call(&abi, &emulator).ok();
                let at: Vec<i64> =
                    emulator.requests().iter().map(|request| request.at_ms).collect();
                assert_eq!(at.len(), 2, "{name}");
                assert!(at[1] - at[0] >= 1_000, "{name}: it waited {} ms", at[1] - at[0]);
            });
        }
    });
}

#[test]
fn rate_limit_delay_beyond_the_deadline_is_reported_at_once() {
    for (status, expected) in [(429, Status::RateLimited), (503, Status::Server)] {
        for (name, endpoint, call) in WAYS {
            let (emulator, abi) = with_client(1);
            emulator.inject(Rule::on(endpoint), response(status, "", &[("Retry-After", "3600")]));
            let error = call(&abi, &emulator).fails(expected);
            assert_eq!(
                (&error["retryAfterMs"], &error["retryable"], &error["httpStatus"]),
                (&json!(3_600_000), &json!(true), &json!(status)),
                "{name}"
            );
            assert_eq!(sent(&emulator).len(), 1, "{name}");
        }
    }
}

#[test]
fn rate_limit_of_one_company_pauses_only_calls_for_that_company() {
    for (name, endpoint, call) in
        WAYS.into_iter().filter(|(_, endpoint, _)| *endpoint != Endpoint::Token)
    {
        let (emulator, abi) = with_client(1);
        emulator.inject(Rule::on(endpoint).times(1), response(429, "", &[("Retry-After", "3600")]));
        call(&abi, &emulator).fails(Status::RateLimited);
        assert_eq!(sent(&emulator).len(), 1, "{name}");
        for (other, _, call) in
            WAYS.into_iter().filter(|(_, endpoint, _)| *endpoint != Endpoint::Token)
        {
            let held = call(&abi, &emulator).fails(Status::RateLimited);
            let left = held["retryAfterMs"].as_u64().unwrap();
            assert!((3_000_000..=3_600_000).contains(&left), "{name}, {other}: {held}");
        }
        assert_eq!(sent(&emulator), [""; 0], "{name}");
        let elsewhere = json!({"companyId": "other", "accessToken": "some access token"});
        abi.oauth_installed_locations(elsewhere).fails(Status::Unauthorized);
    }
}

#[test]
fn attempts_stop_at_the_configured_number() {
    // The number of attempts by status. Refreshes and codes count as spent after an unreadable
    // response.
    for (status, times) in [
        (429, [3, 3, 3, 3, 3]),
        (503, [2, 1, 3, 3, 3]),
        (500, [2, 1, 3, 3, 3]),
        (502, [2, 1, 3, 3, 3]),
        (400, [1, 1, 1, 1, 1]),
    ] {
        for ((name, endpoint, call), times) in WAYS.into_iter().zip(times) {
            let (emulator, abi) = with_client(1);
            let fault = emulator.inject(Rule::on(endpoint), answer(status, "<html>oops</html>"));
            let expected = match status {
                429 => Status::RateLimited,
                400 => Status::InvalidRequest,
                _ => Status::Server,
            };
            let error = call(&abi, &emulator).fails(expected);
            assert_eq!(error["httpStatus"], status);
            assert_eq!(emulator.strikes(fault), times, "{name} {status}");
            assert_eq!(abi.stats()["requests"]["sent"], times);
        }
    }
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"retry": {"maxAttempts": 5}}));
    let fault = emulator.inject(Rule::default(), answer(429, ""));
    abi.oauth_token(json!({"grantType": "client_credentials"})).fails(Status::RateLimited);
    assert_eq!(emulator.strikes(fault), 5);
    assert_eq!(
        abi.stats()["requests"],
        json!({"sent": 5, "repeated": 4, "unanswered": 0, "rateLimited": 5})
    );
}

#[test]
fn broken_connection_is_retried_only_if_a_repetition_is_safe() {
    let broken = [
        FaultKind::ReplyLost,
        FaultKind::Reset { stage: Stage::BeforeProcessing },
        FaultKind::CutBody { body_bytes: 5, ending: Ending::Close },
    ];
    for kind in broken {
        for ((name, endpoint, call), times) in WAYS.into_iter().zip([2, 1, 3, 3, 3]) {
            let (emulator, abi) = with_client(1);
            let fault = emulator.inject(Rule::on(endpoint), kind.clone());
            let error = call(&abi, &emulator).fails(Status::Network);
            assert_eq!((&error["sent"], &error["httpStatus"]), (&json!(true), &Value::Null));
            assert_eq!(error["retryable"], times == 3, "{name} {kind:?}");
            assert_eq!(emulator.strikes(fault), times, "{name} {kind:?}");
        }
    }
}

#[test]
fn non_http_response_is_a_protocol_error() {
    let (emulator, abi) = with_client(1);
    for (name, endpoint, call) in WAYS {
        let kind =
            FaultKind::Raw { text: "SSH-2.0-OpenSSH_9.6\r\n\r\n".into(), ending: Ending::Close };
        emulator.inject(Rule::on(endpoint), kind);
        let error = call(&abi, &emulator).fails(Status::Protocol);
        assert!(error["message"].as_str().unwrap().contains("HTTP"), "{name}: {error}");
        emulator.clear_faults();
    }
}

#[test]
fn unreachable_server_is_a_network_error_that_says_no_request_was_sent() {
    let gone = emulator(1);
    let abi = Abi::new(&gone);
    let (company, location) = (gone.company_id(), gone.location_ids()[0].clone());
    drop(gone);
    let bearer = "some access token";
    for outcome in [
        abi.oauth_token(json!({"grantType": "refresh_token", "refreshToken": "r"})),
        abi.oauth_location_token(
            json!({"companyId": company, "locationId": location, "accessToken": bearer}),
        ),
        abi.oauth_installed_locations(json!({"companyId": company, "accessToken": bearer})),
    ] {
        let error = outcome.fails(Status::Network);
        assert_eq!(error["retryable"], true);
        assert!(error["message"].as_str().unwrap().contains("nothing was sent"), "{error}");
    }
}

const OURS: &str = "the-secret-of-this-call";

/// Every call with its own secret, or two for tokens.
fn calls_with_secrets(abi: &Abi, company: &str, client_secret: Option<&str>) -> [Outcome; 4] {
    let with_secret = |mut params: Value| {
        if let Some(client_secret) = client_secret {
            params["clientSecret"] = client_secret.into();
        }
        abi.oauth_token(params)
    };
    [
        with_secret(json!({"grantType": "authorization_code", "code": OURS})),
        with_secret(json!({"grantType": "refresh_token", "refreshToken": OURS})),
        abi.oauth_location_token(
            json!({"companyId": company, "locationId": "l", "accessToken": OURS}),
        ),
        abi.oauth_installed_locations(json!({"companyId": company, "accessToken": OURS})),
    ]
}

#[test]
fn secrets_echoed_by_the_server_are_not_in_the_error() {
    let emulator = emulator(1);
    let abi = Abi::with(&emulator, json!({"rateLimit": {"requests": 10_000}}));
    let secrets = [emulator.client_secret(), OURS];
    let echo = format!("you sent {} and {OURS}, that is {OURS}", emulator.client_secret());
    for body in [
        json!({"statusCode": 400, "message": echo}).to_string(),
        json!({"statusCode": 422, "message": [echo, echo], "error": echo}).to_string(),
        json!({"error": echo, "error_description": echo}).to_string(),
        json!({
            "error": {"code": echo, "message": echo, "details": {"a": [echo]}, "resolution": echo},
        })
        .to_string(),
        json!({"message": {"nested": echo}}).to_string(),
        json!([echo]).to_string(),
        format!("<html>{}{echo}</html>", "x".repeat(450)),
    ] {
        for status in [200, 302, 400, 401, 403, 422, 500] {
            emulator.inject(Rule::default(), answer(status, &body));
            for Outcome(code, document) in calls_with_secrets(&abi, &emulator.company_id(), None) {
                // A response without a list is not necessarily an error.
                if code != 0 {
                    contains_none_of(&document.to_string(), &secrets);
                }
            }
            emulator.clear_faults();
        }
    }
}

#[test]
fn secrets_echoed_by_the_server_in_unusual_places_are_not_in_the_error() {
    let (emulator, abi) = with_client(1);
    let echo = format!("{OURS} {}", emulator.client_secret());
    let trace_id = response(400, "{}", &[("x-trace-id", echo.as_str())]);
    for kind in [
        answer(400, json!({"message": "m", "traceId": echo})),
        answer(400, json!({"error": {"code": "C", "message": "m", "details": {echo.as_str(): 1}}})),
        trace_id,
    ] {
        emulator.inject(Rule::default(), kind);
        for Outcome(_, document) in calls_with_secrets(&abi, &emulator.company_id(), None) {
            contains_none_of(&document.to_string(), &[emulator.client_secret(), OURS]);
        }
        emulator.clear_faults();
    }
}

#[test]
fn client_secret_passed_with_the_call_is_not_in_the_error() {
    let (emulator, abi) = with_client(1);
    let given = "another-clients-secret";
    emulator.inject(Rule::default(), answer(401, json!({"message": format!("{given} is wrong")})));
    for Outcome(code, document) in calls_with_secrets(&abi, &emulator.company_id(), Some(given)) {
        assert_ne!(code, 0);
        if document["error"]["resourceId"].is_null() {
            contains_none_of(&document.to_string(), &[given]);
        }
    }
}

#[test]
fn call_ends_at_its_deadline_if_the_server_stalls_or_drips() {
    // Longer than any of these calls: a call without a deadline would end then, with another
    // result.
    const PATIENCE: Duration = Duration::from_secs(20);
    // Long enough to send the request on a slow or emulated machine.
    const DEADLINE: u64 = 2_000;
    thread::scope(|scope| {
        for (name, endpoint, call) in WAYS {
            for stalls in [true, false] {
                scope.spawn(move || {
                    let emulator = emulator(1);
                    let abi = Abi::with(&emulator, json!({"timeouts": {"totalMs": DEADLINE}}));
                    let rule = Rule::on(endpoint);
                    let hold = stalls.then(|| emulator.hold(rule.clone(), Stage::BeforeProcessing));
                    emulator.inject(rule, FaultKind::Drip { every_ms: 100, body_only: false });
                    let (done, ended) = mpsc::channel();
                    let release = scope.spawn(move || {
                        let _ = ended.recv_timeout(PATIENCE);
                        drop(hold);
                    });
                    let began = Instant::now();
                    let outcome = call(&abi, &emulator);
                    assert!(
                        began.elapsed() >= Duration::from_millis(DEADLINE),
                        "{name}: it did not wait"
                    );
                    done.send(()).unwrap();
                    release.join().unwrap();
                    let error = outcome.fails(Status::Timeout);
                    assert!(
                        error["message"].as_str().unwrap().contains(&format!("{DEADLINE} ms")),
                        "{name}: {error}"
                    );
                    assert_eq!(error["sent"], true);
                    // A code or a raw refresh token may be used up.
                    let is_single_use = ["code", "refresh"].contains(&name);
                    assert_eq!(error["retryable"], !is_single_use, "{name}");
                });
            }
        }
    });
}

#[test]
fn configured_rate_limit_is_respected() {
    let emulator = emulator(1);
    // Two requests per window, and a window longer than the deadline.
    let abi = Abi::with(
        &emulator,
        json!({"rateLimit": {"requests": 2, "perMs": 600_000}, "timeouts": {"totalMs": 2_000}}),
    );
    let company = abi.connect_company(&emulator);
    let list = json!({"companyId": company});
    sent(&emulator);
    for _ in 0..2 {
        abi.oauth_installed_locations(list.clone()).ok();
    }
    let error = abi.oauth_installed_locations(list).fails(Status::RateLimited);
    assert!(error["retryAfterMs"].as_u64().unwrap() > 590_000, "{error}");
    assert_eq!((&error["resourceId"], &error["httpStatus"]), (&json!(company), &Value::Null));
    assert_eq!(sent(&emulator), ["list 200"; 2]);
    let other = json!({"companyId": "other", "accessToken": "some access token"});
    abi.oauth_installed_locations(other).fails(Status::Unauthorized);
}

#[test]
fn spent_code_is_refused_and_a_new_code_works() {
    let emulator = emulator(1);
    emulator.set_reuse_window_seconds(0);
    let abi = Abi::new(&emulator);
    let first = raw_company(&abi, &emulator);
    let refresh = |token: &Value| {
        abi.oauth_token(
            json!({"grantType": "refresh_token", "refreshToken": token["refreshToken"]}),
        )
    };
    let second = refresh(&first).ok();
    refresh(&first).fails(Status::ReauthorizationRequired);
    let third = refresh(&second).ok();
    assert!(emulator.access_token_is_live(third["accessToken"].as_str().unwrap()));
    // A raw refresh with a lost response is not retried, because its outcome is unknown.
    let rule = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken);
    let fault = emulator.inject(rule, FaultKind::ReplyLost);
    refresh(&third).fails(Status::Network);
    assert_eq!(emulator.strikes(fault), 1);
}
