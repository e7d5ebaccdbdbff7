//! Connects a company of the emulator to a client.
#![allow(dead_code)] // Each test file uses only a part.

use ghl_oauth::internals::Client;
use ghl_oauth::internals::authorization::CompleteParams;
use ghl_oauth_emulator::{Decision, Emulator};
use serde_json::{Value, json};

/// A configuration for the emulator with this store.
pub fn config(emulator: &Emulator, store: &Value) -> Value {
    json!({
        "clientId": emulator.client_id(), "clientSecret": emulator.client_secret(),
        "baseUrl": emulator.base_url(), "authorizeUrl": emulator.authorize_url(),
        "redirectUri": emulator.redirect_uri(), "scopes": ["oauth.readonly", "oauth.write"],
        "store": store,
    })
}

/// Connects the first company.
pub fn connect(emulator: &Emulator, client: &Client) {
    let link = client.authorization_url(Default::default()).unwrap();
    let decision = Decision::Company(emulator.company_id());
    let redirect_url = emulator.consent(link["url"].as_str().unwrap(), decision).unwrap();
    let params: CompleteParams =
        serde_json::from_value(json!({"redirectUrl": redirect_url})).unwrap();
    client.authorization_complete(&params).unwrap();
}
