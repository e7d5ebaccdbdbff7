//! An arbitrary URL as the redirect of a browser. The first byte decides whether an installation
//! without `state` is accepted.

#![no_main]

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::{ghl_authorization_complete, ghl_authorization_url};
use ghl_oauth::internals::fuzzing::{CannedAnswer, answer_with};
use ghl_oauth_fuzz::Abi;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

const STATE: &str = "a-known-state";

/// The redirect URI of the client, without and with its port.
const TARGETS: [&str; 2] = ["app.example/oauth/callback", "app.example:443/oauth/callback"];

fuzz_target!(|data: &[u8]| {
    let Some((choice, url)) = data.split_first() else { return };
    let Ok(url) = std::str::from_utf8(url) else { return };
    let welcome = choice % 2 == 1;
    let client = Abi::new();
    assert_eq!(client.call(ghl_authorization_url, &json!({"state": STATE}).to_string()).0, 0);
    answer_with(vec![CannedAnswer {
        status: 200,
        headers: Vec::new(),
        body: br#"{"accessToken":"a","companyId":"c"}"#.to_vec(),
    }]);
    let params = json!({"redirectUrl": url, "allowMissingState": welcome}).to_string();
    let first = client.call(ghl_authorization_complete, &params);
    let states: Vec<String> = parameters(url, "state");
    if first.0 == 0 {
        let plain = url.trim().split(['?', '#']).next().unwrap().to_ascii_lowercase();
        assert!(plain.starts_with("https://"), "{url:?}");
        assert!(TARGETS.iter().any(|target| plain.ends_with(target)), "{url:?}");
        assert!(parameters(url, "code").iter().any(|code| !code.is_empty()), "{url:?}");
        assert!(parameters(url, "error").is_empty(), "{url:?}");
        assert!(states == [STATE] || (welcome && states.iter().all(String::is_empty)), "{url:?}");
        assert_eq!(first.1["resourceId"], "c");
    } else {
        let expected = [
            Status::InvalidArgument,
            Status::StateMismatch,
            Status::ConsentDenied,
            Status::Timeout,
        ];
        assert!(first.is_one_of(&expected), "{}", first.1);
    }
    // A state is consumed by any outcome.
    if states == [STATE] && (first.0 == 0 || first.is_one_of(&[Status::ConsentDenied])) {
        let again = client.call(ghl_authorization_complete, &params);
        assert!(again.is_one_of(&[Status::StateMismatch]), "{url:?}: {}", again.1);
    }
});

/// The values of a query parameter of a URL.
fn parameters(url: &str, name: &str) -> Vec<String> {
    let before_fragment = url.split('#').next().unwrap_or_default();
    let query = before_fragment.split_once('?').map_or("", |(_, query)| query).trim_end();
    let pairs = form_urlencoded::parse(query.as_bytes());
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}
