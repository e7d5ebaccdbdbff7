//! Arbitrary webhooks. If the first byte is even, a correctly signed body; otherwise headers (up to
//! a NUL) and a body.

#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ghl_oauth::Status;
use ghl_oauth::internals::ffi::{ghl_tokens_list, ghl_webhook_apply, ghl_webhook_verify};
use ghl_oauth_fuzz::{Abi, signing_key};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// The possible errors of a signed delivery: an invalid body, or a mint without a response.
const POSSIBLE: [Status; 3] = [Status::InvalidArgument, Status::SignatureInvalid, Status::Timeout];

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let client = Abi::with_company();
    if choice % 2 == 1 {
        let split = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        let Ok(headers) = std::str::from_utf8(&rest[..split]) else { return };
        for function in [ghl_webhook_verify, ghl_webhook_apply] {
            let outcome =
                client.deliver(function, rest.get(split + 1..).unwrap_or_default(), headers);
            assert!(
                outcome.is_one_of(&[Status::InvalidArgument, Status::SignatureInvalid]),
                "an unsigned delivery was accepted"
            );
        }
        assert_eq!(client.pages(ghl_tokens_list, "items").len(), 1);
        return;
    }
    let headers = json!({"X-GHL-Signature": STANDARD.encode(signing_key().sign(rest))}).to_string();
    let verified = client.deliver(ghl_webhook_verify, rest, &headers);
    assert!(verified.0 == 0 || verified.is_one_of(&[Status::InvalidArgument]), "{}", verified.1);
    let applied = client.deliver(ghl_webhook_apply, rest, &headers);
    assert!(applied.0 == 0 || applied.is_one_of(&POSSIBLE), "{}", applied.1);
    // Only a change of tokens needs the time of the delivery.
    let is_undated = applied.1["error"]["parameter"] == "timestamp";
    assert_eq!(
        verified.is_one_of(&[Status::InvalidArgument]),
        applied.is_one_of(&[Status::InvalidArgument]) && !is_undated
    );

    // A repetition changes nothing, and a single flipped bit makes another body.
    let listed = client.pages(ghl_tokens_list, "items");
    let again = client.deliver(ghl_webhook_apply, rest, &headers);
    // A delivery that ran into the short deadline is completed by its repetition.
    if !applied.is_one_of(&[Status::Timeout]) && !again.is_one_of(&[Status::Timeout]) {
        assert_eq!(again.0 == 0, applied.0 == 0, "{} and then {}", applied.1, again.1);
        assert!(
            again.0 != 0
                || again.1["applied"] != Value::Bool(true)
                || applied.1["applied"] != Value::Bool(true)
        );
        assert_eq!(client.pages(ghl_tokens_list, "items"), listed);
    }
    if let Some(first) = rest.first() {
        let mut other = rest.to_vec();
        other[0] = first ^ 1;
        let forged = client.deliver(ghl_webhook_apply, &other, &headers);
        assert!(forged.is_one_of(&[Status::SignatureInvalid]), "{}", forged.1);
    }
});
