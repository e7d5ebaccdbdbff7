//! Shared code of the benchmarks that use a server: a client for the emulator, and a consent.
#![allow(dead_code)] // Each bench uses only a part.

use ghl_oauth::internals::Client;
use ghl_oauth::internals::authorization::{CompleteParams, UrlParams};
use ghl_oauth::internals::secret::Secret;
use ghl_oauth_emulator::{Decision, Emulator};
use serde_json::Value;

/// A configuration for the emulator with this store.
pub fn configuration(emulator: &Emulator, store: Value) -> Value {
    let mut config: Value = serde_json::from_str(&emulator.configuration()).unwrap();
    config["store"] = store;
    config
}

/// Completes the consent of a company for all its locations, or of a single location.
pub fn connect(client: &Client, emulator: &Emulator, decision: Decision) {
    let link = client.authorization_url(UrlParams::default()).unwrap();
    let redirect_url = emulator.consent(link["url"].as_str().unwrap(), decision).unwrap();
    let params = CompleteParams {
        redirect_url: Secret::new(redirect_url),
        redirect_uri: None,
        state: None,
        allow_missing_state: false,
        user_type: None,
    };
    client.authorization_complete(&params).unwrap();
}
