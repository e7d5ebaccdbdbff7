//! Arbitrary text as a configuration: refused with the name of the key, or usable for a client.

#![no_main]

use std::ptr;

use ghl_oauth::internals::ffi::{client_from, ghl_authorization_url, ghl_client_free};
use ghl_oauth::internals::{Client, Config, Status};
use ghl_oauth_fuzz::{Outcome, given_secrets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let secrets = given_secrets(text, &["clientSecret"]);
    let made = Config::from_json(text).and_then(|config| {
        let debug = format!("{config:?}");
        assert!(secrets.iter().all(|secret| !debug.contains(secret)), "{debug}");
        Client::new(&config)
    });
    match made {
        Ok(client) => {
            let client = client_from(client);
            let params =
                c"{\"scopes\":[\"oauth.readonly\"],\"redirectUri\":\"https://app.example/callback\"}";
            // SAFETY: a valid client and valid pointers; freed once, after the last call.
            unsafe {
                assert_eq!(
                    ghl_authorization_url(client, params.as_ptr(), ptr::null_mut()),
                    0,
                    "no link"
                );
                ghl_client_free(client);
            }
        }
        Err(error) => {
            let document = error.to_json().to_string();
            assert!(secrets.iter().all(|secret| !document.contains(secret)), "{document}");
            let outcome = Outcome::read(error.status().code(), document);
            assert!(outcome.is_one_of(&[Status::InvalidArgument, Status::Config]), "{}", outcome.1);
        }
    }
});
