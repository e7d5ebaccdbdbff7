//! Log lines: who is paged by which level, and fields in one form.

mod fixture;
mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::time::Duration;

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::ghl_set_log_callback;
use ghl_oauth_emulator::{Endpoint, GrantType, Rule};
use serde_json::json;

use fixture::{Fixture, Kind, refresh_unsaved};
use support::{DAY, response};

thread_local! {
    /// The level and message of each line that this thread logged.
    static LOG: RefCell<Vec<(i32, String)>> = const { RefCell::new(Vec::new()) };
}

fn listen_to_the_log() {
    unsafe extern "C" fn hear(level: i32, message: *const c_char, _: *mut c_void) {
        // SAFETY: the library passes a NUL-terminated text.
        let message = unsafe { CStr::from_ptr(message) }.to_str().unwrap().to_owned();
        LOG.with_borrow_mut(|log| log.push((level, message)));
    }
    // SAFETY: a function of the required type, valid for the lifetime of the process.
    assert_eq!(unsafe { ghl_set_log_callback(Some(hear), ptr::null_mut(), 5) }, 0);
}

/// The lines since the last call that have this level.
fn lines(level: i32) -> Vec<String> {
    let of_level = |(at, line): (i32, String)| (at == level).then_some(line);
    LOG.take().into_iter().filter_map(of_level).collect()
}

/// The sentence of a line, and its fields.
fn parsed(line: &str) -> (String, BTreeMap<String, String>) {
    let mut fields = BTreeMap::new();
    let is_key = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let begin = line
        .match_indices(' ')
        .map(|(at, _)| at)
        .find(|at| line[at + 1..].split_once('=').is_some_and(|(key, _)| is_key(key)))
        .unwrap_or(line.len());
    let mut rest = &line[begin..];
    while let Some(field) = rest.strip_prefix(' ') {
        let (key, value) = field.split_once('=').expect("a field");
        let mut values = serde_json::Deserializer::from_str(value).into_iter::<String>();
        let (value, length) = match values.next() {
            Some(Ok(text)) if value.starts_with('"') => (text, values.byte_offset()),
            _ => {
                let length = value.find(' ').unwrap_or(value.len());
                (value[..length].to_owned(), length)
            }
        };
        assert!(fields.insert(key.to_owned(), value).is_none(), "{line}");
        rest = &field[key.len() + 1 + length..];
    }
    assert_eq!(rest, "", "{line}");
    (line[..begin].to_owned(), fields)
}

fn refreshes() -> Rule {
    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken)
}

#[test]
fn failed_refresh_is_a_warning_with_the_remaining_life_and_the_next_attempt() {
    listen_to_the_log();
    let fixture = Fixture::new(Kind::Sqlite);
    fixture.clock.make_waits_free();
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    fixture.pass(DAY - Duration::from_secs(200));
    let body = json!({"statusCode": 400, "message": "a \"quoted\" word", "traceId": "t-1"});
    fixture.emulator.inject(refreshes(), response(400, body, &[]));
    LOG.take();
    abi.access_token(&company).text();
    let warnings = lines(2);
    let of_event: Vec<_> = warnings
        .iter()
        .map(|line| parsed(line))
        .filter(|(_, fields)| fields.contains_key("event"))
        .collect();
    let [(_, fields)] = &of_event[..] else { panic!("{warnings:?}") };
    let field = |key: &str| fields[key].as_str();
    assert_eq!(field("event"), "token.refreshFailed");
    assert_eq!(field("resource_id"), company);
    assert_eq!(field("status"), "GHL_ERR_INVALID_REQUEST");
    assert_eq!((field("http_status"), field("trace_id"), field("attempts")), ("400", "t-1", "1"));
    assert!(field("reason").contains("a \"quoted\" word"), "{fields:?}");
    let left: i64 = field("old_token_seconds").parse().unwrap();
    assert!((100..=200).contains(&left), "{fields:?}");
    assert!(field("next_attempt_seconds").parse::<i64>().unwrap() > 0, "{fields:?}");
}

#[test]
fn lost_consent_is_an_error_in_each_process_although_the_old_token_is_served() {
    listen_to_the_log();
    let fixture = Fixture::new(Kind::Sqlite);
    fixture.clock.make_waits_free();
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    fixture.pass(DAY - Duration::from_secs(200));
    fixture.emulator.revoke_refresh_token(&company);
    let of = |lines: Vec<String>| -> Vec<BTreeMap<String, String>> {
        lines.iter().map(|line| parsed(line).1).collect()
    };
    for (client, has_event) in [(&abi, true), (&fixture.open(), false)] {
        LOG.take();
        client.access_token(&company).text();
        let errors = of(lines(1));
        assert_eq!(errors.len(), 1, "{errors:?}");
        let fields = &errors[0];
        assert_eq!(fields["status"], "GHL_ERR_REAUTHORIZATION_REQUIRED");
        assert_eq!(fields["resource_id"], company);
        assert!(fields["help"].contains("consent"), "{fields:?}");
        assert!(fields["old_token_seconds"].parse::<i64>().unwrap() > 0, "{fields:?}");
        assert_eq!(fields.contains_key("event"), has_event, "{fields:?}");
        for _ in 0..3 {
            fixture.pass(Duration::from_secs(5));
            client.access_token(&company).text();
        }
        assert_eq!(lines(1), [""; 0], "once per process");
    }
}

#[test]
fn every_line_has_its_fields_in_one_form() {
    listen_to_the_log();
    let fixture = Fixture::new(Kind::Sqlite);
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    refresh_unsaved(&fixture, &abi, &company);
    abi.token_refresh(&company).fails(Status::Store);
    fixture.accept_saves();
    abi.token_refresh(&company).ok();
    fixture.emulator.inject(refreshes(), ghl_oauth_emulator::FaultKind::ReplyLost);
    let _ = abi.token_refresh(&company);
    abi.token_delete(&company).ok();
    let log = LOG.take();
    assert!(log.len() > 10, "{log:?}");
    for (_, line) in log {
        let (sentence, fields) = parsed(&line);
        assert!(!sentence.is_empty() && !sentence.contains(['=', '\n']), "{line}");
        let is_request = fields.contains_key("path");
        assert!(is_request || fields.get("resource_id") == Some(&company), "{line}");
    }
}
