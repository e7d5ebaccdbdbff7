//! Arbitrary parameters to any function, on a client whose server is unreachable. The first byte
//! selects the function.

#![no_main]

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::*;
use ghl_oauth_fuzz::{Abi, Call, SECRETS, given_secrets, watch_for};
use libfuzzer_sys::fuzz_target;

/// The possible errors of a call without a response.
const POSSIBLE: [Status; 10] = [
    Status::InvalidArgument,
    Status::NotFound,
    Status::ReauthorizationRequired,
    Status::LocationInactive,
    Status::RateLimited,
    Status::Network,
    Status::Timeout,
    Status::StateMismatch,
    Status::ConsentDenied,
    Status::Config,
];

/// The secret parameters.
const SECRET_NAMES: [&str; 5] =
    ["clientSecret", "code", "refreshToken", "accessToken", "redirectUrl"];

const CALLS: [Call; 11] = [
    ghl_oauth_token,
    ghl_oauth_location_token,
    ghl_oauth_installed_locations,
    ghl_authorization_url,
    ghl_authorization_complete,
    ghl_tokens_list,
    ghl_tokens_export,
    ghl_tokens_import,
    ghl_token_refresh,
    ghl_token_delete,
    ghl_request,
];

fuzz_target!(|data: &[u8]| {
    let Some((choice, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    watch_for(SECRETS.into_iter().filter(|secret| !text.contains(secret)));
    let client = Abi::with_company();
    let outcome = match CALLS.get(usize::from(choice.wrapping_sub(b'a'))) {
        Some(function) => client.call(*function, text),
        None if choice % 3 == 0 => client.maintain(text),
        None if choice % 3 == 1 => client.mint(text),
        None => client.access_token(text),
    };
    assert!(outcome.0 == 0 || outcome.is_one_of(&POSSIBLE), "{}", outcome.1);
    // An ID is not secret: errors name it.
    let takes_an_id = matches!(choice, b'i' | b'j')
        || (usize::from(choice.wrapping_sub(b'a')) >= CALLS.len() && choice % 3 == 2);
    if outcome.0 != 0 && !takes_an_id {
        let document = outcome.1.to_string();
        for secret in given_secrets(text, &SECRET_NAMES) {
            assert!(!document.contains(secret), "{document}");
        }
    }
    if *choice == b'h' {
        client.round_trips_through_export();
    }
});
