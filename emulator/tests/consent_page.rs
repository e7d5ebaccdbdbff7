//! The consent page, requested by a browser.

mod support;

use ghl_oauth_emulator::{Decision, Emulator, Options};
use support::*;

fn start() -> Emulator {
    Emulator::start(Options::default()).unwrap()
}

fn post(emulator: &Emulator, fields: &[(&str, &str)]) -> Reply {
    let target = format!("/v2/oauth/chooselocation?{}", consent_query(emulator, SCOPE));
    send(emulator, "POST", &target, &[FORM], &encode(fields))
}

#[test]
fn page_offers_every_location_and_escapes_its_name() {
    let emulator = start();
    for path in ["/v2/oauth/chooselocation", "/oauth/chooselocation"] {
        let target = format!("{path}?{}", consent_query(&emulator, SCOPE));
        let page = send(&emulator, "GET", &target, &[], "");
        assert_eq!(page.status, 200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
        let html = page.text();
        assert!(html.contains(&format!("value=\"company:{}\"", emulator.company_id())));
        for location_id in emulator.location_ids() {
            assert!(html.contains(&format!("value=\"location:{location_id}\"")));
        }
        assert!(html.contains("Smith &amp; Sons") && !html.contains("Smith & Sons"));
        assert!(html.contains("O&#39;Neil"));
        assert!(html.contains("prefers-color-scheme"));
        assert!(!html.contains("<script"));
    }
}

#[test]
fn allowed_consent_redirects_with_a_code() {
    let emulator = start();
    let location_id = &emulator.location_ids()[4];
    let place = format!("location:{location_id}");
    let redirect = post(&emulator, &[("place", &place), ("decision", "allow")]);
    assert_eq!(redirect.status, 302);
    let location = redirect.header("location").unwrap();
    let (uri, query) = location.split_once('?').unwrap();
    assert_eq!(uri, emulator.redirect_uri());
    let fields: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    assert_eq!(fields[1], ("state".into(), "some state".into()));
    let answer = token(&emulator, &[("grantType", "authorization_code"), ("code", &fields[0].1)])
        .expect(200);
    assert_eq!(text(&answer, "locationId"), location_id);
}

#[test]
fn form_from_another_page_installs_nothing() {
    let emulator = start();
    let target = format!("/v2/oauth/chooselocation?{}", consent_query(&emulator, SCOPE));
    let place = format!("company:{}", emulator.company_id());
    let form = encode(&[("place", &place), ("decision", "allow")]);
    let from =
        |origin: &str| send(&emulator, "POST", &target, &[FORM, ("origin", origin)], &form).status;
    assert_eq!(from("https://page.example"), 403);
    assert_eq!(from("null"), 403);
    assert_eq!(emulator.webhooks(), Vec::<String>::new());
    assert_eq!(from(&emulator.base_url()), 302);
}

#[test]
fn denied_consent_redirects_without_a_code() {
    let emulator = start();
    let redirect = post(&emulator, &[("place", "company:x"), ("decision", "deny")]);
    assert_eq!(redirect.status, 302);
    assert_eq!(
        redirect.header("location"),
        Some("https://app.example/oauth/callback?error=access_denied&state=some+state")
    );
    let url = format!("{}?{}", emulator.authorize_url(), consent_query(&emulator, SCOPE));
    let redirect = emulator.consent(&url, Decision::Deny).unwrap();
    assert!(redirect.ends_with("?error=access_denied&state=some+state"));
}

#[test]
fn invalid_link_gets_an_error_page_and_no_redirect() {
    let emulator = start();
    let query = consent_query(&emulator, SCOPE);
    for (query, complaint) in [
        (query.replace("response_type=code", "response_type=token"), "response_type"),
        (query.replace("callback", "elsewhere"), "redirect_uri"),
        (query.replace("oauth.write", "no.such"), "no.such"),
        (format!("{query}&prompt=login"), "prompt"),
        (format!("{query}&a=%3Cscript%3E"), "Unknown parameter: a"),
        (format!("{query}&%3Cscript%3E=1"), "&lt;script&gt;"),
        (String::new(), "response_type"),
    ] {
        let page = send(&emulator, "GET", &format!("/oauth/chooselocation?{query}"), &[], "");
        assert_eq!(page.status, 400, "{query}");
        assert_eq!(page.header("location"), None);
        assert!(page.text().contains(complaint), "{complaint}: {}", page.text());
        assert!(!page.text().contains("<script>"));
    }
    for fields in [
        &[][..],
        &[("decision", "allow")],
        &[("decision", "allow"), ("place", "company:x")],
        &[("decision", "perhaps"), ("place", "company:x")],
    ] {
        assert_eq!(post(&emulator, fields).status, 400, "{fields:?}");
    }
}

#[test]
fn only_its_own_consent_page_is_accepted() {
    let emulator = start();
    let query = consent_query(&emulator, SCOPE);
    for page in [
        "https://marketplace.gohighlevel.com/v2/oauth/chooselocation",
        "http://127.0.0.1:1/oauth/chooselocation",
        &format!("{}/oauth/token", emulator.base_url()),
    ] {
        let refused = emulator.consent(&format!("{page}?{query}"), Decision::Deny);
        assert!(refused.unwrap_err().contains("not this emulator's"), "{page}");
    }
}

#[test]
fn loopback_redirects_are_accepted_if_allowed() {
    let uri = "http://127.0.0.1:7777/callback";
    let consent = |options| {
        let emulator = Emulator::start(options).unwrap();
        let query = encode(&[
            ("response_type", "code"),
            ("client_id", emulator.client_id()),
            ("redirect_uri", uri),
            ("scope", SCOPE),
        ]);
        let url = format!("{}?{query}", emulator.authorize_url());
        emulator.consent(&url, Decision::Company(emulator.company_id()))
    };
    assert!(consent(Options::default()).is_err());
    let redirect = consent(Options { allow_loopback_redirects: true, ..Options::default() });
    let redirect = redirect.unwrap();
    assert!(redirect.starts_with(uri));
    assert!(!redirect.contains("state"), "no state was given, none is returned");
}

#[test]
fn app_without_a_redirect_uri_gets_the_landing_page_with_the_url() {
    let emulator =
        Emulator::start(Options { redirect_uris: Vec::new(), ..Options::default() }).unwrap();
    assert_eq!(emulator.redirect_uri(), format!("{}/landing", emulator.base_url()));
    let place = format!("company:{}", emulator.company_id());
    for (decision, title) in [("allow", "Consent given"), ("deny", "Consent denied")] {
        let redirect = post(&emulator, &[("place", &place), ("decision", decision)]);
        let location = redirect.header("location").unwrap();
        let target = location.strip_prefix(&emulator.base_url()).unwrap();
        let page = send(&emulator, "GET", target, &[], "");
        assert_eq!(page.status, 200);
        assert!(page.text().contains(title), "{}", page.text());
        let shown = location.replace('&', "&amp;");
        assert!(page.text().contains(&format!(">{shown}</textarea>")), "{}", page.text());
    }
    let requests = emulator.requests();
    assert!(requests.iter().all(|request| request.path != "/landing"), "the app's, not the API's");
    let empty = send(&emulator, "GET", "/landing", &[], "").text();
    assert!(empty.contains("Nothing to copy yet") && !empty.contains("textarea id"), "{empty}");
}
