//! Arbitrary bytes as a stored record: refused, or usable by every part of the token manager.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth::config::Config;
use ghl_oauth::internals::api::Api;
use ghl_oauth::internals::clock::Clock;
use ghl_oauth::internals::deadline::Deadline;
use ghl_oauth::internals::event::Events;
use ghl_oauth::internals::fuzzing::{CannedAnswer, answer_with};
use ghl_oauth::internals::store::{MemoryStore, Record, Store};
use ghl_oauth::internals::tokens::{ListParams, MaintainParams, Maintenance, Tokens, Transfer};
use ghl_oauth_fuzz::{CLIENT_SECRET, FixedClock, MARK, holds_no_secret, watch_for};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    let record = match Record::from_document("resource-1".into(), 0, document) {
        Ok(record) => record,
        Err(error) => {
            assert_eq!(error.status(), Status::Store);
            assert!(!error.to_json().to_string().contains(MARK), "{error}");
            return;
        }
    };
    let written = record.to_document().unwrap();
    let read_again = Record::from_document("resource-1".into(), 0, &written).unwrap();
    assert_eq!(*read_again.to_document().unwrap(), *written, "a record changes when it is saved");

    watch_for([CLIENT_SECRET]);
    let config = Config::new("app-1", CLIENT_SECRET);
    let patience = || Deadline::after(Duration::from_secs(60), &Arc::default());
    let store = Arc::new(MemoryStore::default());
    assert_eq!(store.save(&record, &patience()).unwrap(), 1);
    let clock: Arc<dyn Clock> = Arc::new(FixedClock);
    let tokens = Tokens::new(
        Arc::new(Api::new(&config, &clock).unwrap()),
        Arc::clone(&store) as Arc<dyn Store>,
        clock,
        Arc::new(Events::default()),
        config.refresh.clone(),
    );
    // A refresh of unknown outcome is retried until its deadline; the other calls have time.
    let deadline = || Deadline::after(Duration::from_millis(3), &Arc::default());
    let spent = br#"{"statusCode":400,"message":"Invalid grant: refresh token is invalid"}"#;
    answer_with(vec![CannedAnswer { status: 400, headers: Vec::new(), body: spent.to_vec() }]);

    let listed = Transfer::of(&tokens).list(&ListParams::default(), &patience()).unwrap();
    assert_eq!(listed["items"][0]["resourceId"], "resource-1");
    Transfer::of(&tokens).export(&ListParams::default(), &patience()).unwrap();
    if let Err(error) = tokens.access_token("resource-1", deadline) {
        holds_no_secret(&error.to_json().to_string());
    }
    match Maintenance::of(&tokens).run(&MaintainParams::default(), &|_| true, deadline) {
        Ok(pass) => holds_no_secret(&pass.to_string()),
        Err(error) => assert_eq!(error.status(), Status::Timeout),
    }
    if let Err(error) = tokens.refresh("resource-1", &deadline()) {
        holds_no_secret(&error.to_json().to_string());
    }
    tokens.delete("resource-1", &patience()).unwrap();
});
