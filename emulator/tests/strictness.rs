//! Refused requests and their messages.

mod support;

use ghl_oauth_emulator::{Decision, Emulator, Options};
use serde_json::json;
use support::*;

fn start() -> Emulator {
    Emulator::start(Options::default()).unwrap()
}

#[test]
fn version_header_is_required() {
    let emulator = start();
    let form = token_form(&emulator, &[("grantType", "client_credentials")]);
    let status = |headers: &[(&str, &str)]| {
        let refused = send(&emulator, "POST", "/oauth/token", headers, &form);
        (refused.status, refused.message())
    };
    let missing = (401, "version header was not found.".to_owned());
    let invalid = (401, "version header is invalid".to_owned());
    assert_eq!(status(&[FORM]), missing);
    assert_eq!(status(&[FORM, ("version", "v4")]), invalid);
    assert_eq!(status(&[FORM, ("version", "V3")]), invalid);
    assert_eq!(status(&[FORM, ("version", "2021-07-28")]), invalid);
    let old =
        send(&emulator, "GET", "/oauth/installed-locations", &[("version", "2021-07-28")], "");
    assert_eq!(old.status, 404, "v2 has no kebab-case paths");
}

#[test]
fn only_json_responses_are_offered() {
    let emulator = start();
    let form = token_form(&emulator, &[("grantType", "client_credentials")]);
    let status = |accept: &str| {
        send(&emulator, "POST", "/oauth/token", &[VERSION, FORM, ("accept", accept)], &form).status
    };
    assert_eq!(status("application/json"), 200);
    assert_eq!(status("text/html, */*;q=0.1"), 200);
    assert_eq!(status("text/html"), 406);
}

#[test]
fn unknown_paths_are_refused() {
    let emulator = start();
    for (method, path) in [
        ("POST", "/v3/oauth/token"),
        ("GET", "/v3/oauth/installed-locations"),
        ("GET", "/oauth/token"),
        ("POST", "/oauth/reconnect"),
        ("POST", "/oauth/token/"),
        ("GET", "/"),
        ("GET", "/locations/"),
    ] {
        let refused = send(&emulator, method, path, &[VERSION], "");
        assert_eq!(refused.status, 404, "{method} {path}");
        assert_eq!(refused.message(), format!("Cannot {method} {path}"));
    }
    let renamed = send(&emulator, "POST", "/oauth/locationToken", &[VERSION], "").expect(400);
    assert!(text(&renamed, "message").contains("was removed in version v3"));
    assert_eq!(renamed["error"], "Bad Request");
}

#[test]
fn token_requests_are_parsed_strictly() {
    let emulator = start();
    let post = |content_type: &str, body: &str| {
        let headers = [VERSION, ("content-type", content_type)];
        let refused = send(&emulator, "POST", "/oauth/token", &headers, body);
        (refused.status, refused.message())
    };
    let form = |fields: &[(&str, &str)]| post(FORM.1, &encode(fields));
    let (id, secret) = (emulator.client_id(), emulator.client_secret());
    let credentials = [("clientId", id), ("clientSecret", secret)];
    let with = |fields: &[(&str, &str)]| form(&[&credentials[..], fields].concat());

    let refused = |status, message: &str| (status, message.to_owned());
    assert_eq!(form(&[]), refused(400, "Missing parameter: clientId"));
    assert_eq!(form(&[("clientId", "")]), refused(400, "Missing parameter: clientId"));
    assert_eq!(form(&[("clientId", id)]), refused(400, "Missing parameter: clientSecret"));
    assert_eq!(with(&[]), refused(400, "Missing parameter: grantType"));
    assert_eq!(with(&[("grantType", "password")]), refused(400, "Invalid parameter: grantType"));
    assert_eq!(
        with(&[("grantType", "authorization_code")]),
        refused(400, "Missing parameter: code")
    );
    assert_eq!(
        with(&[("grantType", "refresh_token")]),
        refused(400, "Missing parameter: refreshToken")
    );
    assert_eq!(
        with(&[("grantType", "client_credentials"), ("userType", "company")]),
        refused(400, "Invalid parameter: userType")
    );
    assert_eq!(
        with(&[("grantType", "refresh_token"), ("grantType", "refresh_token")]),
        refused(400, "Invalid parameter: grantType")
    );
    assert_eq!(
        with(&[("grant_type", "refresh_token")]),
        refused(422, "property grant_type should not exist")
    );
    assert_eq!(
        with(&[("grantType", "refresh_token"), ("refreshToken", "unknown")]),
        refused(400, "Invalid grant: refresh token is invalid")
    );
    assert_eq!(
        form(&[("clientId", id), ("clientSecret", "wrong"), ("grantType", "client_credentials")]),
        refused(401, "Authorization code not found")
    );
    assert_eq!(post(FORM.1, "clientId=%zz"), refused(400, "Malformed form: a broken escape"));
    assert_eq!(
        post("application/json", r#"{"clientId": 1}"#),
        refused(422, "clientId must be a string")
    );
    assert_eq!(
        post("application/json", r#"{"clientId": "a", "clientId": "a"}"#),
        refused(400, "Invalid parameter: clientId")
    );
    assert_eq!(post("application/json", "clientId=a").0, 400, "a form that calls itself JSON");
    assert_eq!(post("text/plain", "clientId=a").0, 415);
    let in_the_url = send(
        &emulator,
        "POST",
        "/oauth/token?clientId=a",
        &[VERSION, FORM],
        "grantType=refresh_token",
    );
    assert_eq!(in_the_url.status, 422);
}

#[test]
fn unprocessable_requests_get_a_list_of_messages() {
    let emulator = start();
    let body = token(&emulator, &[("a", ""), ("b", "")]).expect(422);
    assert_eq!(
        body["message"],
        json!(["property a should not exist", "property b should not exist"])
    );
    assert_eq!(body["error"], "Unprocessable Entity");
    assert_eq!(body["statusCode"], 422);
    assert!(!text(&body, "traceId").is_empty());
}

#[test]
fn token_requests_may_be_json() {
    let emulator = start();
    let body = json!({
        "clientId": emulator.client_id(),
        "clientSecret": emulator.client_secret(),
        "grantType": "authorization_code",
        "code": code(&emulator, SCOPE, Decision::Company(emulator.company_id())),
        "redirectUri": emulator.redirect_uri(),
        "userType": "Company",
    });
    let headers = [VERSION, ("content-type", "application/json; charset=utf-8")];
    send(&emulator, "POST", "/oauth/token", &headers, &body.to_string()).expect(200);
}

#[test]
fn refresh_for_the_wrong_class_spends_nothing() {
    let emulator = start();
    let company = connect(&emulator);
    let refresh_as = |user_type: &str| {
        token(
            &emulator,
            &[
                ("grantType", "refresh_token"),
                ("refreshToken", text(&company, "refreshToken")),
                ("userType", user_type),
            ],
        )
    };
    let refused = refresh_as("Location");
    assert_eq!((refused.status, refused.message().as_str()), (401, "Token's user type mismatch!"));
    assert_eq!(emulator.refreshes(), 0);
    refresh_as("Company").expect(200);
}

#[test]
fn location_token_requests_are_parsed_strictly() {
    let emulator = Emulator::start(Options { companies: 2, ..Options::default() }).unwrap();
    let company = connect(&emulator);
    let bearer = format!("Bearer {}", text(&company, "accessToken"));
    let authorization = ("authorization", bearer.as_str());
    let [company_id, other_company] = [0, 1].map(|index| emulator.company_ids()[index].clone());
    let location_id = emulator.location_ids()[0].clone();
    let others_location = emulator.location_ids()[25].clone();
    let status = |headers: &[(&str, &str)], fields: &[(&str, &str)]| {
        send(&emulator, "POST", "/oauth/location-token", headers, &encode(fields)).status
    };
    let good = [VERSION, FORM, authorization];
    let fields = [("companyId", company_id.as_str()), ("locationId", location_id.as_str())];
    assert_eq!(status(&good, &fields), 200);
    assert_eq!(status(&good, &fields[..1]), 422);
    assert_eq!(status(&good, &[fields[0], ("locationId", "")]), 422);
    assert_eq!(
        status(&good, &[fields[0], ("location_id", location_id.as_str()), ("locationId", "x")]),
        422
    );
    assert_eq!(status(&good, &[fields[0], fields[0], fields[1]]), 400);
    assert_eq!(status(&good, &[fields[0], ("locationId", &others_location)]), 403);
    assert_eq!(status(&good, &[("companyId", &other_company), fields[1]]), 403);
    assert_eq!(status(&good, &[fields[0], ("locationId", "unknown")]), 403);
    assert_eq!(status(&[VERSION, FORM], &fields), 401);
    assert_eq!(status(&[VERSION, FORM, authorization, authorization], &fields), 401);
    assert_eq!(status(&[VERSION, FORM, ("authorization", "Bearer x")], &fields), 401);
    assert_eq!(
        status(&[VERSION, FORM, ("authorization", text(&company, "accessToken"))], &fields),
        401
    );
    let json = [VERSION, authorization, ("content-type", "application/json")];
    assert_eq!(status(&json, &fields), 415);
}

#[test]
fn unknown_location_is_not_found() {
    let emulator = start();
    let company = connect(&emulator);
    let refused = get(&emulator, text(&company, "accessToken"), "/locations/00000000000000000000");
    let body = refused.expect(404);
    assert_eq!(body["error"]["code"], "RESOURCE_NOT_FOUND");
    assert_eq!(body["error"]["details"]["resource"], "Location");
    assert!(body["error"]["resolution"].is_string());
}

#[test]
fn no_company_is_refused_as_an_option() {
    let error = Emulator::start(Options { companies: 0, ..Options::default() }).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn without_redirect_uris_the_redirect_leads_to_the_landing_page() {
    let emulator = Emulator::start(Options { redirect_uris: Vec::new(), ..Options::default() });
    assert!(emulator.unwrap().redirect_uri().ends_with("/landing"));
}
