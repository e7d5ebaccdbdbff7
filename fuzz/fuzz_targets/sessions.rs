//! An arbitrary document as the stored tokens of another program.

#![no_main]

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::{ghl_tokens_export, ghl_tokens_import, ghl_tokens_list};
use ghl_oauth_fuzz::{Abi, MARK};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let client = Abi::new();
    let report = client.call(ghl_tokens_import, text);
    if report.0 != 0 {
        assert!(report.is_one_of(&[Status::InvalidArgument, Status::Timeout]), "{}", report.1);
        return;
    }
    let before_nul = text.split('\0').next().unwrap();
    let given: Value = serde_json::from_str(before_nul).unwrap();
    let skipped = report.1["skipped"].as_array().unwrap().len();
    let imported = usize::try_from(report.1["imported"].as_u64().unwrap()).unwrap();
    assert_eq!(imported + skipped, given["tokens"].as_array().unwrap().len(), "{}", report.1);

    let listed = client.pages(ghl_tokens_list, "items");
    assert!(listed.len() <= imported && listed.is_empty() == (imported == 0), "{}", report.1);
    client.round_trips_through_export();

    // Neither a list nor a report contains a text that occurs only as a secret.
    for token in client.pages(ghl_tokens_export, "tokens") {
        for secret in
            ["accessToken", "refreshToken"].iter().filter_map(|name| token[*name].as_str())
        {
            if secret.contains(MARK) && text.matches(secret).count() == 1 {
                assert!(
                    !Value::from(listed.clone()).to_string().contains(secret),
                    "{secret} is listed"
                );
                assert!(!report.1.to_string().contains(secret), "{secret} is reported");
            }
        }
    }
});
