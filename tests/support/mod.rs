//! Support for the integration tests: a safe wrapper of the C ABI, clocks that a test can move or
//! make panic, a summary of sent requests, and groups of threads whose waiting can be observed.
#![allow(dead_code)] // Each test file uses only a part.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::internals::clock::Clock;
use ghl_oauth::internals::ffi::*;
use ghl_oauth::internals::{Client, Config, Status};
use ghl_oauth_emulator::{
    Decision, Emulator, Endpoint, FaultKind, Notice, Options, RecordedRequest, Rule, Signature,
    Stage,
};
use serde_json::{Map, Value, json};

/// Longer than the lifetime of an access token: afterwards every stored token has expired.
pub const DAY: Duration = Duration::from_secs(86_400);

/// The limit for every wait of a test. No operation takes nearly that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The result of a call, and the document that it wrote.
#[derive(Debug)]
#[must_use]
pub struct Outcome(pub i32, pub Value);

impl Outcome {
    /// Takes ownership of the document. The status name of an error must match the code.
    pub fn read(code: i32, document: *mut c_char) -> Outcome {
        let document: Value = serde_json::from_str(&take(document)).expect("a JSON document");
        if code != 0 {
            assert_eq!(document["error"]["status"], status_name(code), "{document}");
        }
        Outcome(code, document)
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.0, 0, "{}", self.1);
        self.1
    }

    /// The text of a successful result.
    #[track_caller]
    pub fn text(self) -> String {
        self.ok().as_str().expect("a text").to_owned()
    }

    /// The error object of a failure with this status.
    #[track_caller]
    pub fn fails(mut self, status: Status) -> Value {
        assert_eq!(
            self.0,
            status.code(),
            "expected {}, not {}: {}",
            status.name(),
            status_name(self.0),
            self.1
        );
        self.1["error"].take()
    }

    /// The error object of a refusal that names this parameter.
    #[track_caller]
    pub fn refuses(self, parameter: &str) -> Value {
        let error = self.fails(Status::InvalidArgument);
        assert_eq!(error["parameter"], parameter, "{error}");
        error
    }
}

pub fn status_name(code: i32) -> &'static str {
    // SAFETY: the status names are static.
    unsafe { CStr::from_ptr(ghl_status_name(code)) }.to_str().unwrap()
}

/// Takes ownership of a text of the library.
pub fn take(text: *mut c_char) -> String {
    assert!(!text.is_null(), "no text was returned");
    // SAFETY: not NULL, so a text of the library, freed only here.
    unsafe {
        let copy = CStr::from_ptr(text).to_str().expect("UTF-8").to_owned();
        ghl_string_free(text);
        copy
    }
}

type Call = unsafe extern "C" fn(*mut ghl_client, *const c_char, *mut *mut c_char) -> i32;

type LongCall = unsafe extern "C" fn(
    *mut ghl_client,
    *const c_char,
    ghl_progress_callback,
    *mut c_void,
    *mut *mut c_char,
) -> i32;
type WebhookCall =
    unsafe extern "C" fn(*mut ghl_client, *const u8, usize, *const c_char, *mut *mut c_char) -> i32;

/// A client as a C program uses it.
pub struct Abi {
    client: *mut ghl_client,
    /// The event listeners, which must outlive the client.
    listeners: Mutex<Vec<Arc<EventRecorder>>>,
}

// SAFETY: the header allows any number of threads.
unsafe impl Send for Abi {}
// SAFETY: as above.
unsafe impl Sync for Abi {}

impl Abi {
    /// Calls `ghl_client_new`; uses the system clock.
    pub fn open(config: &Value) -> Result<Abi, Outcome> {
        let config = CString::new(config.to_string()).unwrap();
        // Set to non-NULL values that the call must replace.
        let mut client = ptr::dangling_mut::<ghl_client>();
        let mut document = ptr::dangling_mut::<c_char>();
        // SAFETY: valid pointers.
        let code = unsafe { ghl_client_new(config.as_ptr(), &mut client, &mut document) };
        let outcome = Outcome::read(code, document);
        assert_eq!(code != 0, client.is_null(), "either a client or an error");
        if code == 0 { Ok(Abi::adopt(client)) } else { Err(outcome) }
    }

    /// A client for the emulator, using the emulator's clock.
    pub fn new(emulator: &Emulator) -> Abi {
        Abi::with(emulator, json!({}))
    }

    /// The same with these changes of the configuration.
    pub fn with(emulator: &Emulator, changes: Value) -> Abi {
        Abi::by(emulator, changes, EmulatorClock::new(emulator))
    }

    /// The same with another clock.
    pub fn by(emulator: &Emulator, changes: Value, clock: Arc<dyn Clock>) -> Abi {
        let config = Config::from_json(&config(emulator, changes).to_string()).unwrap();
        Abi::adopt(client_from(Client::with_clock(&config, clock).unwrap()))
    }

    /// A client that was created elsewhere; freed on drop.
    pub fn adopt(client: *mut ghl_client) -> Abi {
        Abi { client, listeners: Mutex::default() }
    }

    pub fn handle(&self) -> *mut ghl_client {
        self.client
    }

    /// Calls any function that takes one string.
    pub fn call(&self, function: Call, text: &str) -> Outcome {
        let text = CString::new(text).unwrap();
        let mut document = ptr::dangling_mut();
        // SAFETY: a valid client and valid pointers.
        let code = unsafe { function(self.client, text.as_ptr(), &mut document) };
        Outcome::read(code, document)
    }

    /// `ghl_request` with this text, and the text of its successful result.
    #[track_caller]
    pub fn request_text(&self, request: &str) -> String {
        let request = CString::new(request).unwrap();
        let mut document = ptr::dangling_mut();
        // SAFETY: a valid client and valid pointers.
        let code = unsafe { ghl_request(self.client, request.as_ptr(), &mut document) };
        let text = take(document);
        assert_eq!(code, 0, "{text}");
        text
    }

    pub fn authorization_url(&self, params: Value) -> Outcome {
        self.call(ghl_authorization_url, &params.to_string())
    }

    pub fn authorization_complete(&self, params: Value) -> Outcome {
        self.call(ghl_authorization_complete, &params.to_string())
    }

    pub fn authorization_listen(&self, params: Value) -> Outcome {
        self.call(ghl_authorization_listen, &params.to_string())
    }

    pub fn oauth_token(&self, params: Value) -> Outcome {
        self.call(ghl_oauth_token, &params.to_string())
    }

    pub fn oauth_location_token(&self, params: Value) -> Outcome {
        self.call(ghl_oauth_location_token, &params.to_string())
    }

    pub fn oauth_installed_locations(&self, params: Value) -> Outcome {
        self.call(ghl_oauth_installed_locations, &params.to_string())
    }

    pub fn request(&self, request: Value) -> Outcome {
        self.call(ghl_request, &request.to_string())
    }

    pub fn token_refresh(&self, resource_id: &str) -> Outcome {
        self.call(ghl_token_refresh, resource_id)
    }

    pub fn token_delete(&self, resource_id: &str) -> Outcome {
        self.call(ghl_token_delete, resource_id)
    }

    pub fn tokens_list(&self, params: Value) -> Outcome {
        self.call(ghl_tokens_list, &params.to_string())
    }

    pub fn tokens_import(&self, params: Value) -> Outcome {
        self.call(ghl_tokens_import, &params.to_string())
    }

    pub fn tokens_adopt(&self, params: Value) -> Outcome {
        self.call(ghl_tokens_adopt, &params.to_string())
    }

    pub fn tokens_export(&self, params: Value) -> Outcome {
        self.call(ghl_tokens_export, &params.to_string())
    }

    /// The token as a JSON string, or the error. Exactly one of the two out-pointers is set.
    pub fn access_token(&self, resource_id: &str) -> Outcome {
        let resource_id = CString::new(resource_id).unwrap();
        let (mut token, mut error) = (ptr::dangling_mut(), ptr::dangling_mut());
        // SAFETY: a valid client and valid pointers.
        let code =
            unsafe { ghl_access_token(self.client, resource_id.as_ptr(), &mut token, &mut error) };
        if code == 0 {
            assert!(error.is_null(), "a token with an error");
            Outcome(0, take(token).into())
        } else {
            assert!(token.is_null(), "an error with a token");
            Outcome::read(code, error)
        }
    }

    /// The token as a JSON string, or the error. Exactly one of the two out-pointers is set.
    pub fn access_token_with(&self, params: Value) -> Outcome {
        let params = CString::new(params.to_string()).unwrap();
        let (mut token, mut error) = (ptr::dangling_mut(), ptr::dangling_mut());
        // SAFETY: a valid client and valid pointers.
        let code =
            unsafe { ghl_access_token_with(self.client, params.as_ptr(), &mut token, &mut error) };
        assert_eq!((code == 0, code != 0), (error.is_null(), token.is_null()));
        if code == 0 { Outcome(0, take(token).into()) } else { Outcome::read(code, error) }
    }

    pub fn token_refresh_with(&self, params: Value) -> Outcome {
        self.call(ghl_token_refresh_with, &params.to_string())
    }

    /// One pass of maintenance; `progress` returns whether to continue.
    pub fn tokens_maintain(&self, params: Value, progress: impl FnMut(Value) -> bool) -> Outcome {
        self.long(ghl_tokens_maintain, params, progress)
    }

    /// Mints tokens for many locations; `progress` returns whether to continue.
    pub fn tokens_mint(&self, params: Value, progress: impl FnMut(Value) -> bool) -> Outcome {
        self.long(ghl_tokens_mint, params, progress)
    }

    /// A long call that reports its progress.
    fn long(
        &self,
        function: LongCall,
        params: Value,
        mut progress: impl FnMut(Value) -> bool,
    ) -> Outcome {
        unsafe extern "C" fn told<F: FnMut(Value) -> bool>(
            so_far: *const c_char,
            context: *mut c_void,
        ) -> i32 {
            // SAFETY: the library passes a text and the context of the call.
            let (so_far, progress) = unsafe { (CStr::from_ptr(so_far), &mut *context.cast::<F>()) };
            i32::from(!progress(serde_json::from_str(so_far.to_str().unwrap()).unwrap()))
        }
        fn of<F: FnMut(Value) -> bool>(_: &F) -> ghl_progress_callback {
            Some(told::<F>)
        }
        let params = CString::new(params.to_string()).unwrap();
        let (callback, context) = (of(&progress), (&raw mut progress).cast());
        let mut document = ptr::dangling_mut();
        // SAFETY: a valid client, valid pointers, and a context of the type that the callback
        // expects.
        let code =
            unsafe { function(self.client, params.as_ptr(), callback, context, &mut document) };
        Outcome::read(code, document)
    }

    pub fn webhook_verify(&self, body: &[u8], headers: &Value) -> Outcome {
        self.webhook(ghl_webhook_verify, body, headers)
    }

    pub fn webhook_apply(&self, body: &[u8], headers: &Value) -> Outcome {
        self.webhook(ghl_webhook_apply, body, headers)
    }

    pub fn webhook_apply_with(&self, body: &[u8], headers: &Value, params: Value) -> Outcome {
        let headers = CString::new(headers.to_string()).unwrap();
        let params = CString::new(params.to_string()).unwrap();
        let mut document = ptr::dangling_mut();
        // SAFETY: a valid client, valid pointers, and a body of the given length.
        let code = unsafe {
            ghl_webhook_apply_with(
                self.client,
                body.as_ptr(),
                body.len(),
                headers.as_ptr(),
                params.as_ptr(),
                &mut document,
            )
        };
        Outcome::read(code, document)
    }

    fn webhook(&self, function: WebhookCall, body: &[u8], headers: &Value) -> Outcome {
        let headers = CString::new(headers.to_string()).unwrap();
        let mut document = ptr::dangling_mut();
        // SAFETY: a valid client, valid pointers, and a body of the given length.
        let code = unsafe {
            function(self.client, body.as_ptr(), body.len(), headers.as_ptr(), &mut document)
        };
        Outcome::read(code, document)
    }

    pub fn stats(&self) -> Value {
        let mut document = ptr::dangling_mut();
        // SAFETY: a valid client and a valid pointer.
        let code = unsafe { ghl_client_stats(self.client, &mut document) };
        Outcome::read(code, document).ok()
    }

    /// `ghl_client_metrics`: the text as a JSON string, or the error.
    pub fn metrics(&self, params: Value) -> Outcome {
        let params = CString::new(params.to_string()).unwrap();
        let mut text = ptr::dangling_mut();
        // SAFETY: a valid client and valid pointers.
        let code = unsafe { ghl_client_metrics(self.client, params.as_ptr(), &mut text) };
        if code == 0 { Outcome(0, take(text).into()) } else { Outcome::read(code, text) }
    }

    pub fn cancel(&self) {
        // SAFETY: a valid client.
        unsafe { ghl_client_cancel(self.client) };
    }

    /// Returns the status.
    pub fn cancel_call(&self, call_id: &str) -> i32 {
        let call_id = CString::new(call_id).unwrap();
        // SAFETY: a valid client and a valid string.
        unsafe { ghl_call_cancel(self.client, call_id.as_ptr()) }
    }

    /// Cancels repeatedly until `done`: a call that starts just after one cancellation ends with
    /// the next.
    pub fn cancel_until(&self, done: impl Fn() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < PATIENCE, "cancellation had no effect");
            self.cancel();
            thread::yield_now();
        }
    }

    /// Listens to the events of the client from now on.
    pub fn listen(&self) -> Arc<EventRecorder> {
        self.listen_with(|_| {})
    }

    /// The same, and calls `act` for each event on its thread.
    pub fn listen_with(&self, act: impl Fn(&Value) + Send + Sync + 'static) -> Arc<EventRecorder> {
        unsafe extern "C" fn hear(event: *const c_char, context: *mut c_void) {
            // SAFETY: the library passes a string and the given context, which outlives the client.
            let (event, heard) =
                unsafe { (CStr::from_ptr(event), &*context.cast::<EventRecorder>()) };
            let event = serde_json::from_str(event.to_str().unwrap()).unwrap();
            (heard.act)(&event);
            heard.events.lock().unwrap().push(event);
        }
        let heard = Arc::new(EventRecorder { events: Mutex::default(), act: Box::new(act) });
        self.listeners.lock().unwrap().push(Arc::clone(&heard));
        let context = Arc::as_ptr(&heard).cast_mut().cast();
        // SAFETY: a valid client, and a context that lives as long.
        assert_eq!(unsafe { ghl_client_on_event(self.client, Some(hear), context) }, 0);
        heard
    }

    /// Removes the listener.
    pub fn stop_listening(&self) {
        // SAFETY: a valid client.
        assert_eq!(unsafe { ghl_client_on_event(self.client, None, ptr::null_mut()) }, 0);
    }

    /// Completes a consent from the link to the stored token. Returns its metadata.
    #[track_caller]
    pub fn connect(&self, emulator: &Emulator, decision: Decision) -> Value {
        let redirect_url = self.consent(emulator, decision);
        self.authorization_complete(json!({"redirectUrl": redirect_url})).ok()
    }

    /// The same for the first company. Returns its ID.
    #[track_caller]
    pub fn connect_company(&self, emulator: &Emulator) -> String {
        let company = emulator.company_id();
        self.connect(emulator, Decision::Company(company.clone()));
        company
    }

    /// The redirect URL after a decision about a new link.
    #[track_caller]
    pub fn consent(&self, emulator: &Emulator, decision: Decision) -> String {
        let link = self.authorization_url(json!({})).ok();
        emulator.consent(link["url"].as_str().unwrap(), decision).unwrap()
    }

    /// A token that the server accepts.
    #[track_caller]
    pub fn live_token(&self, emulator: &Emulator, resource_id: &str) -> String {
        let token = self.access_token(resource_id).text();
        assert!(
            emulator.access_token_is_live(&token),
            "the server does not accept the token of {resource_id}"
        );
        token
    }

    /// The metadata of a resource in the list.
    #[track_caller]
    pub fn listed(&self, resource_id: &str) -> Value {
        let list = self.tokens_list(json!({})).ok();
        let mut items = list["items"].as_array().unwrap().iter();
        items
            .find(|item| item["resourceId"] == resource_id)
            .expect("the resource is listed")
            .clone()
    }
}

impl Drop for Abi {
    fn drop(&mut self) {
        // SAFETY: freed once, after the last call.
        unsafe { ghl_client_free(self.client) };
    }
}

pub struct EventRecorder {
    events: Mutex<Vec<Value>>,
    act: Box<dyn Fn(&Value) + Send + Sync>,
}

impl EventRecorder {
    /// The events since the last call.
    pub fn events(&self) -> Vec<Value> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// The events as "type resource".
    pub fn names(&self) -> Vec<String> {
        let name = |event: &Value| {
            format!("{} {}", event["type"].as_str().unwrap(), event["resourceId"].as_str().unwrap())
        };
        self.events().iter().map(name).collect()
    }
}

/// An emulator with one company and this number of locations.
pub fn emulator(locations: usize) -> Emulator {
    Emulator::start(Options { locations, ..Options::default() }).unwrap()
}

/// An emulator whose company has that many locations, and a client for it.
pub fn with_client(locations: usize) -> (Emulator, Abi) {
    let emulator = emulator(locations);
    let abi = Abi::new(&emulator);
    (emulator, abi)
}

/// The same with the company connected, and its ID.
pub fn with_company(locations: usize) -> (Emulator, Abi, String) {
    let (emulator, abi) = with_client(locations);
    let company = abi.connect_company(&emulator);
    (emulator, abi, company)
}

/// The emulator's configuration with minimal retry delays, and these changes.
pub fn config(emulator: &Emulator, changes: Value) -> Value {
    let mut config: Value = serde_json::from_str(&emulator.configuration()).unwrap();
    config["retry"] = json!({"baseDelayMs": 1, "maxDelayMs": 5});
    merge(&mut config, changes);
    config
}

/// A configuration for a SQLite store in this folder with the companies `c1` to `c3`; the row of
/// `c2` is unreadable.
pub fn one_unreadable_token(folder: &Path) -> String {
    let path = folder.join("one_unreadable.db");
    let config = json!({
        "clientId": "app-1", "clientSecret": "s", "store": {"kind": "sqlite", "path": path},
    });
    let tokens: Vec<Value> = ["c1", "c2", "c3"]
        .map(|id| {
            json!({"accessToken": format!("access-{id}"), "refreshToken": format!("refresh-{id}"),
                "userType": "Company", "companyId": id, "expiresAt": 4_000_000_000_000_i64})
        })
        .to_vec();
    let client = Abi::open(&config).unwrap();
    assert_eq!(client.tokens_import(json!({"tokens": tokens})).ok()["imported"], 3);
    drop(client);
    let database = rusqlite::Connection::open(&path).unwrap();
    let damage = "UPDATE token SET document = x'00' WHERE resource_id = 'c2'";
    assert_eq!(database.execute(damage, []).unwrap(), 1);
    config.to_string()
}

fn merge(config: &mut Value, changes: Value) {
    match changes {
        Value::Object(changes) if config.is_object() => {
            for (key, change) in changes {
                merge(&mut config[key], change);
            }
        }
        change => *config = change,
    }
}

/// The items of a list with the locations `l1` and `l2`, and entries without an ID or of other
/// types.
pub fn odd_locations() -> Value {
    json!([
        "l0",
        {"_id": "l1", "name": "One", "isInstalled": "true", "address": null},
        null,
        7,
        ["l3", {"_id": "l4"}],
        {},
        {"name": "nobody"},
        {"_id": ""},
        {"_id": 5},
        {"_id": {"_id": "l6"}},
        {"_id": "l2", "name": ["Two"], "isInstalled": false},
        true
    ])
}

/// Answers every list request with `odd_locations`.
pub fn list_odd_locations(emulator: &Emulator) {
    list_locations(
        emulator,
        &odd_locations(),
        &json!({"hasNextPage": false, "nextPageToken": "left over"}),
    );
}

/// Answers every list request with this single page.
pub fn list_locations(emulator: &Emulator, items: &Value, pagination: &Value) {
    list_locations_by(emulator, Rule::on(Endpoint::InstalledLocations), items, pagination);
}

/// Answers list requests by this rule with this page.
pub fn list_locations_by(emulator: &Emulator, rule: Rule, items: &Value, pagination: &Value) {
    emulator.inject(
        rule,
        FaultKind::Status {
            status: 200,
            body: json!({"items": items, "pagination": pagination}).to_string(),
            content_type: None,
            headers: Vec::new(),
            stage: Stage::BeforeProcessing,
        },
    );
}

/// A script that consents to the link in its argument through the emulator's control API.
pub fn person(emulator: &Emulator, folder: &Path) -> PathBuf {
    let script = folder.join("person.py");
    let text = format!(
        "import json, sys, urllib.request\n\
         body = json.dumps({{'url': sys.argv[1], 'companyId': '{}'}}).encode()\n\
         request = urllib.request.Request('{}/_emulator/consent', body, \
         {{'Content-Type': 'application/json'}})\n\
         print(json.load(urllib.request.urlopen(request))['redirectUrl'])\n",
        emulator.company_id(),
        emulator.base_url()
    );
    fs::write(&script, text).unwrap();
    script
}

/// A script that reads the link printed by a program, runs the consent script, and types the
/// redirect URL: `driver program configuration person`.
pub fn driver(folder: &Path) -> PathBuf {
    let script = folder.join("drive.py");
    let text = "import subprocess, sys\n\
                program = subprocess.Popen(sys.argv[1:3], stdin=subprocess.PIPE, \
                stdout=subprocess.PIPE, text=True)\n\
                link = program.stdout.readline().split(': ', 1)[1].strip()\n\
                redirect = subprocess.run([sys.executable, sys.argv[3], link], \
                stdout=subprocess.PIPE, text=True).stdout\n\
                print(program.communicate(redirect)[0])\n\
                sys.exit(program.returncode)\n";
    fs::write(&script, text).unwrap();
    script
}

/// Runs an example with plain HTTP to another host, which it reports as an error.
pub fn reports_an_insecure_url(example: &mut Command) {
    let config = json!({"clientId": "app-1", "clientSecret": "s", "baseUrl": "http://example.com"});
    let refused = example.arg(config.to_string()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("GHL_ERR_CONFIG: baseUrl"));
}

/// A free port of 127.0.0.1 below the range of outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Concurrent test programs start in different ranges.
    let place = std::process::id() % 200 * 50;
    loop {
        let port = 20_000 + place as u16 + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The requests since the last call as "refresh 200". The status is recorded even if the response
/// was lost; 0 means that the request got no response.
pub fn sent(emulator: &Emulator) -> Vec<String> {
    let requests = emulator.requests();
    emulator.clear_requests();
    requests.iter().map(in_short).collect()
}

/// The only request since the last call.
#[track_caller]
pub fn only_request(emulator: &Emulator) -> RecordedRequest {
    let requests = emulator.requests();
    emulator.clear_requests();
    let [request] = <[_; 1]>::try_from(requests).expect("one request");
    request
}

fn in_short(request: &RecordedRequest) -> String {
    let name = match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/oauth/token") => match fields(request).get("grantType").map(String::as_str) {
            Some("authorization_code") => "code",
            Some("refresh_token") => "refresh",
            Some("client_credentials") => "credentials",
            _ => "token",
        },
        ("POST", "/oauth/location-token") => "mint",
        ("GET", "/oauth/installed-locations") => "list",
        (method, path) => panic!("{method} {path}"),
    };
    format!("{name} {}", request.status)
}

/// The fields of the query and of the body, a form or JSON. Every name is unique.
pub fn fields(request: &RecordedRequest) -> BTreeMap<String, String> {
    let query = form_urlencoded::parse(request.query.as_bytes()).into_owned();
    let body: Vec<(String, String)> = if request.body.starts_with('{') {
        let body: BTreeMap<String, String> = serde_json::from_str(&request.body).unwrap();
        body.into_iter().collect()
    } else {
        form_urlencoded::parse(request.body.as_bytes()).into_owned().collect()
    };
    let mut fields = BTreeMap::new();
    for (name, value) in query.chain(body) {
        assert!(fields.insert(name.clone(), value).is_none(), "{name} was sent twice");
    }
    fields
}

/// The value of a header, which must be unique.
pub fn header<'a>(request: &'a RecordedRequest, name: &str) -> Option<&'a str> {
    let mut values =
        request.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let value = values.next();
    assert!(values.next().is_none(), "{name} was sent twice");
    value
}

/// The query parameters of a URL.
pub fn query(url: &str) -> BTreeMap<String, String> {
    let (_, query) = url.split_once('?').expect("a query");
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        assert!(parameters.insert(name.clone(), value).is_none(), "{name} comes twice");
    }
    parameters
}

/// A company that is connected twice: by the client, and by tokens and a further code of its own.
pub struct Granted {
    pub company: String,
    pub code: String,
    pub refresh_token: String,
    pub access_token: String,
}

impl Granted {
    pub fn new(emulator: &Emulator, abi: &Abi) -> Granted {
        let company = abi.connect_company(emulator);
        let code =
            || query(&abi.consent(emulator, Decision::Company(company.clone())))["code"].clone();
        let params = json!({"grantType": "authorization_code", "code": code()});
        let raw = abi.oauth_token(params).ok();
        let text = |name: &str| raw[name].as_str().unwrap().to_owned();
        let (refresh_token, access_token) = (text("refreshToken"), text("accessToken"));
        Granted { code: code(), refresh_token, access_token, company }
    }
}

/// A response of the server in place of the normal one, before the request is processed.
pub fn response(status: u16, body: impl ToString, headers: &[(&str, &str)]) -> FaultKind {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    FaultKind::Status {
        status,
        body: body.to_string(),
        content_type: None,
        headers: headers.iter().map(owned).collect(),
        stage: Stage::BeforeProcessing,
    }
}

/// The body of a notice with some keys changed, or removed by null.
pub fn notice_body(emulator: &Emulator, notice: &Notice, changes: Value) -> String {
    let mut body: Value = serde_json::from_str(&emulator.webhook(notice)).unwrap();
    for (name, change) in changes.as_object().unwrap() {
        match change {
            Value::Null => drop(body.as_object_mut().unwrap().remove(name)),
            change => body[name] = change.clone(),
        }
    }
    body.to_string()
}

/// The headers that sign a body, in the format of a web framework.
pub fn signed(emulator: &Emulator, body: &[u8], signature: Signature) -> Value {
    let headers = emulator.sign_webhook(body, signature);
    headers
        .into_iter()
        .map(|(name, value)| (name, Value::from(value)))
        .collect::<Map<_, _>>()
        .into()
}

/// Asserts that a text contains none of these secrets.
#[track_caller]
pub fn contains_none_of(text: &str, secrets: &[&str]) {
    for secret in secrets {
        assert!(secret.len() > 8, "too short to search for: {secret}");
        assert!(!text.contains(secret), "a secret shows in {text}");
    }
}

/// Provides the emulator's clock to the library, so that a day passes for both.
pub struct EmulatorClock {
    clock: ghl_oauth_emulator::Clock,
    started_ms: i64,
}

impl EmulatorClock {
    pub fn new(emulator: &Emulator) -> Arc<EmulatorClock> {
        let clock = emulator.clock();
        Arc::new(EmulatorClock { started_ms: clock.now_ms(), clock })
    }
}

impl Clock for EmulatorClock {
    fn wall_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.clock.now_ms().saturating_sub(self.started_ms).unsigned_abs())
    }
}

/// A clock that panics at a chosen read, to simulate a bug inside the library.
pub struct PanickingClock {
    clock: Arc<EmulatorClock>,
    /// The number of reads until the panic; 0 means disabled.
    left: AtomicU64,
}

impl PanickingClock {
    pub fn new(emulator: &Emulator) -> Arc<PanickingClock> {
        Arc::new(PanickingClock { clock: EmulatorClock::new(emulator), left: AtomicU64::new(0) })
    }

    /// Panics once, at this read from now on; the next read is 1.
    pub fn set(&self, reading: u64) {
        self.left.store(reading, Ordering::SeqCst);
    }

    /// Disables the panic. Returns whether it has happened.
    pub fn disarm(&self) -> bool {
        self.left.swap(0, Ordering::SeqCst) == 0
    }

    fn step(&self) {
        let before =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert_ne!(before, Ok(1), "the trap");
    }
}

impl Clock for PanickingClock {
    fn wall_ms(&self) -> i64 {
        self.step();
        self.clock.wall_ms()
    }

    fn uptime(&self) -> Duration {
        self.step();
        self.clock.uptime()
    }
}

/// Makes the same call on `size` threads, runs `meanwhile` once each of them blocks in its call or
/// has finished, and returns the results.
pub fn call_concurrently<T: Send>(
    size: usize,
    call: impl Fn() -> T + Sync,
    meanwhile: impl FnOnce(),
) -> Vec<T> {
    let threads: Vec<OnceLock<Option<String>>> = (0..size).map(|_| OnceLock::new()).collect();
    thread::scope(|scope| {
        let callers: Vec<_> = threads
            .iter()
            .map(|thread| {
                let call = &call;
                scope.spawn(move || {
                    thread.set(thread_folder()).unwrap();
                    call()
                })
            })
            .collect();
        let began = Instant::now();
        let waits =
            |(caller, thread): (&thread::ScopedJoinHandle<'_, T>, &OnceLock<Option<String>>)| {
                caller.is_finished() || thread.get().is_some_and(is_asleep)
            };
        // A thread may also sleep briefly at a contended lock, so the check is repeated.
        let mut looks = 0;
        while looks < 10 {
            assert!(began.elapsed() < PATIENCE, "the threads never all wait");
            looks = if callers.iter().zip(&threads).all(waits) { looks + 1 } else { 0 };
            match threads.first().and_then(OnceLock::get) {
                // Without /proc, a call is taken to wait after 200 ms.
                Some(None) => thread::sleep(Duration::from_millis(20)),
                _ => thread::yield_now(),
            }
        }
        meanwhile();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    })
}

/// The /proc folder of the current thread, on Linux.
fn thread_folder() -> Option<String> {
    let thread = fs::read_link("/proc/thread-self").ok()?;
    Some(format!("/proc/{}/stat", thread.display()))
}

/// Whether a thread is blocked. False for a thread that has ended; true on systems without /proc.
fn is_asleep(place: &Option<String>) -> bool {
    let Some(place) = place else { return true };
    let stat = fs::read_to_string(place).unwrap_or_default();
    // The state follows the name, which is in parentheses.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S'))
}
