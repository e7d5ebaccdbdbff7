//! Shared code of the fuzz targets: a wrapper of the C ABI, and invariants of every outcome.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ghl_oauth::internals::clock::Clock;
use ghl_oauth::internals::ffi::*;
use ghl_oauth::internals::{Client, Config, Status, fuzzing};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

/// Part of every secret of the targets and seeds; the library itself never prints it.
pub const MARK: &str = "hunter2";

pub const CLIENT_SECRET: &str = "hunter2-client-secret";
pub const ACCESS_TOKEN: &str = "hunter2-access-token";
pub const REFRESH_TOKEN: &str = "hunter2-refresh-token";
pub const CODE: &str = "hunter2-code";

/// Every secret that the targets themselves use.
pub const SECRETS: [&str; 4] = [CLIENT_SECRET, ACCESS_TOKEN, REFRESH_TOKEN, CODE];

thread_local! {
    static WATCHED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// From now on no error and no log line may contain any of these. Other secrets may appear because
/// an input contained them where the library could not recognize them.
pub fn watch_for(secrets: impl IntoIterator<Item = &'static str>) {
    WATCHED.set(secrets.into_iter().collect());
}

/// The company whose token is always stored, expired and refreshable.
pub const COMPANY: &str = "company-1";

/// The fixed time of all calls, in milliseconds since the epoch.
pub const NOW_MS: i64 = 1_700_000_000_000;

/// A clock that stands still, so that inputs are reproducible.
pub struct FixedClock;

impl Clock for FixedClock {
    fn wall_ms(&self) -> i64 {
        NOW_MS
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(1000)
    }
}

/// A client as a C program uses it, with an unreachable server and a very short deadline.
pub struct Abi(*mut ghl_client);

pub type Call = unsafe extern "C" fn(*mut ghl_client, *const c_char, *mut *mut c_char) -> i32;

/// A function that takes a body.
pub type WebhookCall =
    unsafe extern "C" fn(*mut ghl_client, *const u8, usize, *const c_char, *mut *mut c_char) -> i32;

/// The key that signs deliveries; every client trusts it.
pub fn signing_key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

/// A function that reports its progress.
type LongCall = unsafe extern "C" fn(
    *mut ghl_client,
    *const c_char,
    ghl_progress_callback,
    *mut c_void,
    *mut *mut c_char,
) -> i32;

impl Abi {
    pub fn new() -> Abi {
        watch_the_log();
        let config = json!({
            "clientId": "app-1", "clientSecret": CLIENT_SECRET, "baseUrl": "http://127.0.0.1:1",
            "redirectUri": "https://app.example/oauth/callback", "scopes": ["oauth.readonly"],
            "timeouts": {"connectMs": 3, "totalMs": 3},
            "retry": {"maxAttempts": 2, "baseDelayMs": 0},
            "webhook": {"ed25519PublicKeys": [STANDARD.encode(signing_key().public_key())]},
        });
        let config = Config::from_json(&config.to_string()).unwrap();
        Abi(client_from(Client::with_clock(&config, Arc::new(FixedClock)).unwrap()))
    }

    /// A client that has the token of the company.
    pub fn with_company() -> Abi {
        let client = Abi::new();
        let token = json!({
            "accessToken": ACCESS_TOKEN, "refreshToken": REFRESH_TOKEN, "expiresAt": NOW_MS - 1,
            "userType": "Company", "companyId": COMPANY,
        });
        assert_eq!(
            client.import(&json!([token])),
            Outcome(0, json!({"imported": 1, "skipped": []}))
        );
        client
    }

    /// Imports tokens. A busy machine may need more than the three milliseconds of a call.
    fn import(&self, tokens: &Value) -> Outcome {
        let document = json!({"tokens": tokens, "nextPageToken": null}).to_string();
        loop {
            let outcome = self.call(ghl_tokens_import, &document);
            if !outcome.is_one_of(&[Status::Timeout]) {
                return outcome;
            }
        }
    }

    /// Calls any function that takes one text. A NUL ends the text, as in C.
    pub fn call(&self, function: Call, text: &str) -> Outcome {
        let text = c_text(text);
        let mut document = ptr::dangling_mut();
        // SAFETY: a valid client and valid pointers.
        let code = unsafe { function(self.0, text.as_ptr(), &mut document) };
        Outcome::read(code, take(document))
    }

    pub fn stats(&self) -> Value {
        let mut document = ptr::dangling_mut();
        // SAFETY: a valid client and a valid pointer.
        let code = unsafe { ghl_client_stats(self.0, &mut document) };
        Outcome::read(code, take(document)).1
    }

    /// Passes a delivery to one of the functions that take one.
    pub fn deliver(&self, function: WebhookCall, body: &[u8], headers: &str) -> Outcome {
        let headers = c_text(headers);
        let mut document = ptr::dangling_mut();
        // SAFETY: a valid client, valid pointers, and a body of the given length.
        let code =
            unsafe { function(self.0, body.as_ptr(), body.len(), headers.as_ptr(), &mut document) };
        Outcome::read(code, take(document))
    }

    pub fn maintain(&self, params: &str) -> Outcome {
        self.long(ghl_tokens_maintain, params)
    }

    pub fn mint(&self, params: &str) -> Outcome {
        self.long(ghl_tokens_mint, params)
    }

    /// A long call without a progress callback.
    fn long(&self, function: LongCall, params: &str) -> Outcome {
        let params = c_text(params);
        let mut document = ptr::dangling_mut();
        // SAFETY: a valid client and valid pointers; a callback may be NULL.
        let code =
            unsafe { function(self.0, params.as_ptr(), None, ptr::null_mut(), &mut document) };
        Outcome::read(code, take(document))
    }

    /// The token, or the error. Both functions for a token must agree.
    pub fn access_token(&self, resource_id: &str) -> Outcome {
        let resource_id = c_text(resource_id);
        let (mut token, mut error) = (ptr::dangling_mut(), ptr::dangling_mut());
        // SAFETY: a valid client and valid pointers.
        let code =
            unsafe { ghl_access_token(self.0, resource_id.as_ptr(), &mut token, &mut error) };
        if code != 0 {
            assert!(token.is_null(), "an error with a token");
            return Outcome::read(code, take(error));
        }
        assert!(error.is_null(), "a token with an error");
        let token = take(token);
        assert!(!token.is_empty(), "an empty token");
        let (mut buffer, mut length) = (vec![0x55_u8; token.len() + 1], token.len() + 1);
        // SAFETY: a valid client, and a buffer of the given length.
        let again = unsafe {
            ghl_access_token_into(
                self.0,
                resource_id.as_ptr(),
                buffer.as_mut_ptr().cast(),
                &mut length,
                ptr::null_mut(),
            )
        };
        if again == 0 {
            assert_eq!(
                CStr::from_bytes_with_nul(&buffer[..length]).unwrap().to_bytes(),
                token.as_bytes()
            );
        }
        Outcome(0, token.into())
    }

    /// The items of all pages of a list or an export.
    pub fn pages(&self, function: Call, items: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut params = json!({});
        loop {
            let Outcome(code, mut page) = self.call(function, &params.to_string());
            assert_eq!(code, 0, "{page}");
            let Value::Array(more) = page[items].take() else { panic!("{page}") };
            all.extend(more);
            match page["nextPageToken"].take() {
                Value::Null => return all,
                next => params["pageToken"] = next,
            }
        }
    }

    /// Asserts that all stored tokens can be listed, exported, and imported by another client,
    /// which then has the same tokens.
    pub fn round_trips_through_export(&self) {
        let listed = self.pages(ghl_tokens_list, "items");
        let tokens = self.pages(ghl_tokens_export, "tokens");
        assert_eq!(listed.len(), tokens.len());
        for (metadata, token) in listed.iter().zip(&tokens) {
            let owner = if metadata["userType"] == "Company" { "companyId" } else { "locationId" };
            assert_eq!(metadata["resourceId"], token[owner], "{metadata} is the token of another");
        }
        // If a server granted one refresh token to two owners, an import assigns it to only one of
        // them.
        let refresh_tokens: Vec<&str> =
            tokens.iter().filter_map(|token| token["refreshToken"].as_str()).collect();
        if refresh_tokens.iter().collect::<std::collections::HashSet<_>>().len()
            < refresh_tokens.len()
        {
            return;
        }
        let other = Abi::new();
        for page in tokens.chunks(100) {
            let imported = other.import(&Value::from(page));
            let all = Outcome(0, json!({"imported": page.len(), "skipped": []}));
            assert_eq!(imported, all, "{}", Value::from(page));
        }
        let same = |a: &Value, b: &Value| {
            [
                "accessToken",
                "refreshToken",
                "expiresAt",
                "userType",
                "companyId",
                "locationId",
                "scope",
            ]
            .iter()
            .all(|name| a.get(name) == b.get(name))
        };
        let moved = other.pages(ghl_tokens_export, "tokens");
        assert_eq!(tokens.len(), moved.len());
        for (before, after) in tokens.iter().zip(&moved) {
            assert!(same(before, after), "{before} became {after}");
        }
    }
}

impl Default for Abi {
    fn default() -> Abi {
        Abi::new()
    }
}

impl Drop for Abi {
    fn drop(&mut self) {
        // SAFETY: freed once, after the last call.
        unsafe { ghl_client_free(self.0) };
        fuzzing::answer_with(Vec::new());
    }
}

/// The result of a call, and the document that it wrote.
#[derive(Debug, PartialEq)]
pub struct Outcome(pub i32, pub Value);

impl Outcome {
    /// Reads a document, and asserts the invariants of every error.
    pub fn read(code: i32, document: String) -> Outcome {
        let value: Value = serde_json::from_str(&document).expect("a JSON document");
        if code == 0 {
            return Outcome(code, value);
        }
        let status = Status::from_code(code).expect("a known code");
        assert_ne!(status, Status::Internal, "{document}: {}", LAST_PANIC.lock().unwrap());
        holds_no_secret(&document);
        let error = &value["error"];
        assert_eq!(error["status"], status.name(), "{document}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{document}");
        // Some causes of a retryable status are permanent.
        assert!(error["retryable"] == false || status.retryable(), "{document}");
        assert!(error["sent"].is_null() || error["sent"].is_boolean(), "{document}");
        assert!(error["retryAfterMs"].is_null() || error["retryAfterMs"].is_u64(), "{document}");
        if status == Status::InvalidArgument || status == Status::Config {
            assert!(error["parameter"].is_string(), "{document}");
        }
        Outcome(code, value)
    }

    /// Whether the outcome is one of these failures.
    pub fn is_one_of(&self, failures: &[Status]) -> bool {
        failures.iter().any(|status| status.code() == self.0)
    }
}

/// Asserts that a text contains none of the watched secrets.
pub fn holds_no_secret(text: &str) {
    WATCHED.with_borrow(|secrets| {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} shows in {text}");
        }
    });
}

/// The secrets that a document contains under these names and nowhere else: errors about the
/// document must not repeat them.
pub fn given_secrets<'a>(document: &'a str, names: &[&str]) -> Vec<&'a str> {
    let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(document) else {
        return Vec::new();
    };
    let secrets = names.iter().filter_map(|name| fields.get(*name)?.as_str());
    secrets
        .filter(|secret| secret.contains(MARK))
        .filter_map(|secret| {
            let mut places = document.match_indices(secret);
            let (start, found) = places.next()?;
            places.next().is_none().then(|| &document[start..start + found.len()])
        })
        .collect()
}

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Checks every log line for secrets.
fn watch_the_log() {
    unsafe extern "C" fn line(_: i32, message: *const c_char, _: *mut c_void) {
        // SAFETY: the library passes a NUL-terminated text.
        let message = unsafe { CStr::from_ptr(message) }.to_str().expect("UTF-8");
        holds_no_secret(message);
        if message.starts_with("panic at") {
            message.clone_into(&mut LAST_PANIC.lock().unwrap());
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a function that is valid for the lifetime of the process.
        assert_eq!(unsafe { ghl_set_log_callback(Some(line), ptr::null_mut(), 5) }, 0);
    });
}

fn c_text(text: &str) -> CString {
    let before = text.split('\0').next().unwrap_or_default();
    CString::new(before).expect("no NUL is left")
}

fn take(text: *mut c_char) -> String {
    assert!(!text.is_null(), "no document");
    // SAFETY: not NULL, so a text of the library, freed only here.
    unsafe {
        let copy = CStr::from_ptr(text).to_str().expect("UTF-8").to_owned();
        ghl_string_free(text);
        copy
    }
}
