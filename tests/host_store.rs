//! Host-provided stores through the C ABI: the requests of the library, its handling of results,
//! and recovery from failures.

mod folder_host;
mod store_suite;
mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CStr, CString, c_char, c_void};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use folder_host::FolderHost;
use ghl_oauth::Status;
use ghl_oauth::internals::deadline::{Cancellation, Deadline};
use ghl_oauth::internals::ffi::*;
use ghl_oauth::internals::store::{Host, HostStore, Query, Record, Seal, Store};
use ghl_oauth::internals::token::UserType;
use ghl_oauth_emulator::{Decision, Emulator, Endpoint, Notice, Rule, Signature, Stage};
use serde_json::{Value, json};
use store_suite::patience;
use support::{Abi, Outcome, emulator, signed, take};

// ---- A host -------------------------------------------------------------------------------------

/// A callback's forced result: a number, and a text for `load` and `list`.
type Refusal = (i32, Option<&'static str>);

type Act = Box<dyn Fn(&str) + Send + Sync>;

/// A host that honours every list condition, and can be told to misbehave.
#[derive(Default)]
struct TestHost {
    records: Mutex<BTreeMap<String, Value>>,
    locks: Mutex<HashMap<String, ThreadId>>,
    freed: Condvar,
    /// Forced results by callback name.
    refusals: Mutex<HashMap<&'static str, Refusal>>,
    /// Called with the name of each callback.
    act: Mutex<Option<Arc<Act>>>,
    /// The last record that was to be loaded.
    asked_for: Mutex<String>,
    /// Texts that were returned and not freed yet.
    handed_out: AtomicUsize,
    destroyed: AtomicUsize,
}

impl TestHost {
    fn refuse(&self, callback: &'static str, refusal: Refusal) {
        self.refusals.lock().unwrap().insert(callback, refusal);
    }

    fn stop_refusing(&self) {
        self.refusals.lock().unwrap().clear();
    }

    fn when_asked(&self, act: impl Fn(&str) + Send + Sync + 'static) {
        *self.act.lock().unwrap() = Some(Arc::new(Box::new(act)));
    }

    fn begin(&self, callback: &'static str) -> Option<Refusal> {
        let act = self.act.lock().unwrap().clone();
        if let Some(act) = act {
            act(callback);
        }
        self.refusals.lock().unwrap().get(callback).copied()
    }

    fn hand_out(&self, text: &str, out: *mut *mut c_char) {
        self.handed_out.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the library passes a valid pointer for the text.
        unsafe { out.write(CString::new(text).unwrap().into_raw()) };
    }

    fn page(&self, query: &Value) -> Value {
        let fulfils = |record: &&Value| {
            let is = |name: &str| query.get(name).is_none_or(|wanted| record[name] == *wanted);
            let by = |name: &str, field: &str| {
                query[name]
                    .as_i64()
                    .is_none_or(|by| record[field].as_i64().is_some_and(|at| at <= by))
            };
            ["kind", "companyId", "userType", "list"].into_iter().all(is)
                && by("renewBy", "renewAt")
                && by("expiredBy", "expiresAt")
                && query["notSealedWith"].as_str().is_none_or(|key| record["sealedWith"] != key)
                && query["pageToken"]
                    .as_str()
                    .is_none_or(|after| record["resourceId"].as_str().unwrap() > after)
        };
        let records = self.records.lock().unwrap();
        let mut found: Vec<Value> = records.values().filter(fulfils).cloned().collect();
        let size = usize::try_from(query["pageSize"].as_u64().unwrap()).unwrap();
        let more = found.len() > size;
        found.truncate(size);
        if query["withoutDocuments"] == true {
            for record in &mut found {
                record.as_object_mut().unwrap().remove("document");
            }
        }
        let next = if more { found.last().map(|last| last["resourceId"].clone()) } else { None };
        json!({"items": found, "nextPageToken": next})
    }
}

/// The arguments that the library passes.
///
/// # Safety
/// As documented in the header.
unsafe fn read<'a>(context: *mut c_void, text: *const c_char) -> (&'a TestHost, &'a str) {
    // SAFETY: the context is a host that outlives its client, and the text is valid until the
    // callback returns.
    unsafe { (&*context.cast::<TestHost>(), CStr::from_ptr(text).to_str().unwrap()) }
}

unsafe extern "C" fn load(context: *mut c_void, id: *const c_char, out: *mut *mut c_char) -> i32 {
    // SAFETY: as documented in the header.
    let (host, id) = unsafe { read(context, id) };
    *host.asked_for.lock().unwrap() = id.to_owned();
    if let Some((code, words)) = host.begin("load") {
        words.iter().for_each(|words| host.hand_out(words, out));
        return code;
    }
    if let Some(record) = host.records.lock().unwrap().get(id) {
        host.hand_out(&record.to_string(), out);
    }
    0
}

unsafe extern "C" fn save(
    context: *mut c_void,
    id: *const c_char,
    record: *const c_char,
    version: u64,
) -> i32 {
    // SAFETY: as documented in the header.
    let ((host, id), (_, record)) = unsafe { (read(context, id), read(context, record)) };
    if let Some((code, _)) = host.begin("save") {
        return code;
    }
    let record: Value = serde_json::from_str(record).unwrap();
    assert_eq!(record["resourceId"].as_str(), Some(id));
    let saved = record["version"].as_u64().unwrap();
    // The first record after a deletion continues the versions of the deleted record.
    assert!(saved == version + 1 || (version == 0 && saved > 1), "{saved} after {version}");
    let mut records = host.records.lock().unwrap();
    let stored = records.get(id).map_or(0, |record| record["version"].as_u64().unwrap());
    if stored != version {
        return Status::Conflict.code();
    }
    records.insert(id.to_owned(), record);
    0
}

unsafe extern "C" fn remove(context: *mut c_void, id: *const c_char) -> i32 {
    // SAFETY: as documented in the header.
    let (host, id) = unsafe { read(context, id) };
    if let Some((code, _)) = host.begin("remove") {
        return code;
    }
    host.records.lock().unwrap().remove(id);
    0
}

unsafe extern "C" fn list(
    context: *mut c_void,
    query: *const c_char,
    out: *mut *mut c_char,
) -> i32 {
    // SAFETY: as documented in the header.
    let (host, query) = unsafe { read(context, query) };
    if let Some((code, words)) = host.begin("list") {
        words.iter().for_each(|words| host.hand_out(words, out));
        return code;
    }
    host.hand_out(&host.page(&serde_json::from_str(query).unwrap()).to_string(), out);
    0
}

unsafe extern "C" fn lock(context: *mut c_void, id: *const c_char, timeout_ms: u64) -> i32 {
    // SAFETY: as documented in the header.
    let (host, id) = unsafe { read(context, id) };
    if let Some((code, _)) = host.begin("lock") {
        return code;
    }
    let locks = host.locks.lock().unwrap();
    let timeout = Duration::from_millis(timeout_ms);
    let (mut locks, _) =
        host.freed.wait_timeout_while(locks, timeout, |locks| locks.contains_key(id)).unwrap();
    if locks.contains_key(id) {
        return Status::Timeout.code();
    }
    locks.insert(id.to_owned(), thread::current().id());
    0
}

unsafe extern "C" fn unlock(context: *mut c_void, id: *const c_char) {
    // SAFETY: as documented in the header.
    let (host, id) = unsafe { read(context, id) };
    host.begin("unlock");
    assert_eq!(
        host.locks.lock().unwrap().remove(id),
        Some(thread::current().id()),
        "whose lock is it?"
    );
    host.freed.notify_all();
}

unsafe extern "C" fn free_string(context: *mut c_void, text: *mut c_char) {
    // SAFETY: the context is a host, and the text was returned by it.
    unsafe {
        (*context.cast::<TestHost>()).handed_out.fetch_sub(1, Ordering::Relaxed);
        drop(CString::from_raw(text));
    }
}

unsafe extern "C" fn destroy(context: *mut c_void) {
    // SAFETY: the context is a host.
    unsafe { (*context.cast::<TestHost>()).destroyed.fetch_add(1, Ordering::Relaxed) };
}

fn callbacks(host: &TestHost) -> ghl_store_callbacks {
    ghl_store_callbacks {
        size: size_of::<ghl_store_callbacks>(),
        context: ptr::from_ref(host).cast_mut().cast(),
        load: Some(load),
        save: Some(save),
        remove: Some(remove),
        list: Some(list),
        lock: Some(lock),
        unlock: Some(unlock),
        free_string: Some(free_string),
        destroy: Some(destroy),
    }
}

/// Calls `ghl_client_new_with_store`: a client and the description of its lock, or the error.
fn open(config: &Value, store: *const ghl_store_callbacks) -> Result<(Abi, Value), Outcome> {
    let config = CString::new(config.to_string()).unwrap();
    let (mut client, mut document) = (ptr::dangling_mut(), ptr::dangling_mut());
    // SAFETY: valid pointers, and callbacks that follow the header.
    let code =
        unsafe { ghl_client_new_with_store(config.as_ptr(), store, &mut client, &mut document) };
    let outcome = Outcome::read(code, document);
    assert_eq!(code != 0, client.is_null(), "a client, or an error");
    if code == 0 { Ok((Abi::adopt(client), outcome.ok())) } else { Err(outcome) }
}

fn hosted(emulator: &Emulator, changes: Value) -> (Abi, &'static TestHost) {
    // Leaked, so that it outlives its client even if a test fails.
    let host: &TestHost = Box::leak(Box::default());
    let config = support::config(emulator, changes);
    (open(&config, &callbacks(host)).map_err(|error| error.1).unwrap().0, host)
}

/// A client that holds a minted token without a refresh token, and its location.
fn with_minted(emulator: &Emulator) -> (Abi, &'static TestHost, String) {
    emulator.set_location_refresh_tokens(false);
    let (abi, host) = hosted(emulator, json!({}));
    abi.connect_company(emulator);
    let location = emulator.location_ids()[0].clone();
    abi.live_token(emulator, &location);
    (abi, host, location)
}

// ---- The store suite ----------------------------------------------------------------------------

/// Refreshes a token while the store starts to refuse saves.
fn refresh_unsaved(abi: &Abi, emulator: &Emulator, host: &TestHost, resource_id: &str) {
    let hold = emulator.hold(Rule::on(Endpoint::Token), Stage::BeforeProcessing);
    thread::scope(|scope| {
        let refresh = scope.spawn(|| abi.token_refresh(resource_id).ok());
        hold.wait_for(1);
        host.refuse("save", (9, None));
        hold.release();
        assert_eq!(refresh.join().unwrap()["state"], "unsaved");
    });
}

#[test]
fn host_that_ignores_every_list_condition_passes_the_store_suite() {
    for seal in [Seal::none("app-1"), sealed()] {
        let folder = tempfile::tempdir().unwrap();
        let host = Arc::new(FolderHost::new(folder.path()));
        store_suite::assert_store_contract(&HostStore::new(host, seal));
    }
}

#[test]
fn host_that_honours_every_list_condition_passes_the_store_suite() {
    for seal in [Seal::none("app-1"), sealed()] {
        store_suite::assert_store_contract(&HostStore::new(
            Arc::new(Honouring(TestHost::default())),
            seal,
        ));
    }
}

#[test]
fn record_without_a_usable_field_is_one_unreadable_item_that_can_be_deleted_and_replaced() {
    let host = Arc::new(Honouring(TestHost::default()));
    let store = HostStore::new(Arc::clone(&host) as Arc<dyn Host>, Seal::none("app-1"));
    let ids = ["a", "b", "c"];
    let record = |id: &str| {
        Record::new(id.to_owned(), store_suite::token(UserType::Location, "company", Some(id)))
    };
    for (field, value) in [
        ("version", json!(null)),
        ("version", json!("canary")),
        ("version", json!(0)),
        ("version", json!(u64::MAX)),
        ("document", json!(null)),
        ("document", json!(["canary"])),
        ("document", json!("canary")),
    ] {
        for id in ids {
            store.save(&record(id), &patience()).unwrap();
        }
        host.0.records.lock().unwrap().get_mut("b").unwrap()[field] = value.clone();
        let page = store.list(&Query { limit: 9, ..Query::default() }, &patience()).unwrap();
        let read: Vec<&str> =
            page.records.iter().map(|record| record.resource_id.as_str()).collect();
        assert_eq!(read, ["a", "c"], "{field}: {value}");
        assert_eq!(page.unreadable.len(), 1);
        let unreadable = &page.unreadable[0];
        assert_eq!(unreadable.resource_id, "b");
        assert!(
            unreadable.error.is_unreadable() && !unreadable.error.to_string().contains("canary")
        );
        assert!(store.load("b", &patience()).unwrap_err().is_unreadable(), "{field}: {value}");
        // A new token replaces it by the version from the list.
        let replaced = Record { version: unreadable.version, ..record("b") };
        assert_eq!(store.version("b", &patience()).unwrap(), Some(unreadable.version));
        let version = store.save(&replaced, &patience()).unwrap();
        assert_eq!(
            store.load("b", &patience()).unwrap().unwrap().version,
            version,
            "{field}: {value}"
        );
        // It can also be deleted.
        host.0.records.lock().unwrap().get_mut("b").unwrap()[field] = value;
        for id in ids {
            assert!(store_suite::remove(&store, id), "{field}");
        }
    }
    // Even a value that is not a record can be deleted.
    for text in ["canary", "{}", "[]"] {
        let value = serde_json::from_str(text).unwrap_or(json!(text));
        host.0.records.lock().unwrap().insert("b".to_owned(), value);
        assert!(store.load("b", &patience()).unwrap_err().is_unreadable(), "{text}");
        assert!(store_suite::remove(&store, "b"), "{text}");
        assert!(store.load("b", &patience()).unwrap().is_none());
    }
}

#[test]
fn expired_call_sends_the_host_no_further_request() {
    /// A host whose first result takes until its caller gives up.
    struct Slow {
        inner: Honouring,
        cancellation: Arc<Cancellation>,
        asked: AtomicUsize,
    }

    impl Slow {
        fn ask(&self) {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.cancellation.raise();
        }
    }

    impl Host for Slow {
        fn load(&self, id: &str) -> ghl_oauth::Result<Option<zeroize::Zeroizing<String>>> {
            self.ask();
            self.inner.load(id)
        }

        fn save(&self, id: &str, record: &str, expected_version: u64) -> ghl_oauth::Result<()> {
            self.ask();
            self.inner.save(id, record, expected_version)
        }

        fn remove(&self, id: &str) -> ghl_oauth::Result<()> {
            self.ask();
            self.inner.remove(id)
        }

        fn list(&self, query: &str) -> ghl_oauth::Result<zeroize::Zeroizing<String>> {
            self.ask();
            self.inner.list(query)
        }

        fn has_lock(&self) -> bool {
            false
        }

        fn lock(&self, _id: &str, _timeout: Duration) -> ghl_oauth::Result<()> {
            unreachable!("there is no lock")
        }

        fn unlock(&self, _id: &str) {
            unreachable!("there is no lock")
        }
    }

    let inner = Honouring(TestHost::default());
    let host = Arc::new(Slow { inner, cancellation: Arc::default(), asked: AtomicUsize::new(0) });
    let store = HostStore::new(Arc::clone(&host) as Arc<dyn Host>, Seal::none("app-1"));
    let token = |id: &str| store_suite::token(UserType::Location, "company", Some(id));
    let records: Vec<Record> =
        (0..250).map(|index| Record::new(format!("location-{index:03}"), token("l"))).collect();
    for record in &records {
        store.save(record, &patience()).unwrap();
    }
    let versions: Vec<(String, u64)> =
        records.iter().map(|record| (record.resource_id.clone(), 1)).collect();
    type Call<'a> = &'a dyn Fn(&Deadline) -> Option<Status>;
    let calls: [(&str, Call); 3] = [
        ("remove_all", &|deadline| {
            store.remove_all(&versions, deadline).err().map(|error| error.status())
        }),
        ("next_renewal", &|deadline| {
            store.next_renewal(None, deadline).err().map(|error| error.status())
        }),
        ("save_all", &|deadline| {
            let results = store.save_all(&records, deadline);
            results.last().unwrap().as_ref().err().map(ghl_oauth::Error::status)
        }),
    ];
    for (name, call) in calls {
        host.asked.store(0, Ordering::Relaxed);
        let deadline = Deadline::after(Duration::from_secs(60), &host.cancellation);
        assert_eq!(call(&deadline), Some(Status::Cancelled), "{name}");
        assert!(host.asked.load(Ordering::Relaxed) <= 1, "{name} went on");
    }
}

fn sealed() -> Seal {
    Seal::new(
        "app-1",
        &["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned().into()],
        true,
        "k",
    )
    .unwrap()
}

/// The test host as a Rust program would write it.
struct Honouring(TestHost);

impl ghl_oauth::internals::store::Host for Honouring {
    fn load(&self, id: &str) -> ghl_oauth::Result<Option<zeroize::Zeroizing<String>>> {
        Ok(self.0.records.lock().unwrap().get(id).map(|record| record.to_string().into()))
    }

    fn save(&self, id: &str, record: &str, expected_version: u64) -> ghl_oauth::Result<()> {
        let mut records = self.0.records.lock().unwrap();
        if records.get(id).map_or(0, |record| record["version"].as_u64().unwrap())
            != expected_version
        {
            return Err(ghl_oauth::Error::new(Status::Conflict, "another version"));
        }
        records.insert(id.to_owned(), serde_json::from_str(record).unwrap());
        Ok(())
    }

    fn remove(&self, id: &str) -> ghl_oauth::Result<()> {
        self.0.records.lock().unwrap().remove(id);
        Ok(())
    }

    fn list(&self, query: &str) -> ghl_oauth::Result<zeroize::Zeroizing<String>> {
        Ok(self.0.page(&serde_json::from_str(query).unwrap()).to_string().into())
    }

    fn has_lock(&self) -> bool {
        false
    }

    fn lock(&self, _id: &str, _timeout: Duration) -> ghl_oauth::Result<()> {
        unreachable!("there is no lock")
    }

    fn unlock(&self, _id: &str) {
        unreachable!("there is no lock")
    }
}

// ---- Token lifecycle ----------------------------------------------------------------------------

#[test]
fn host_store_supports_the_whole_flow() {
    let emulator = emulator(5);
    let (abi, host) = hosted(&emulator, json!({}));
    let company = abi.connect_company(&emulator);
    let mut locations = emulator.location_ids();
    locations.sort();
    let minted = abi.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
    assert_eq!(minted["minted"], 5);
    for location in &locations {
        abi.live_token(&emulator, location);
    }
    let refreshed = abi.token_refresh(&company).ok();
    assert_eq!(refreshed["state"], "ok");
    let stored = host.records.lock().unwrap()[&company].clone();
    assert_eq!(stored["userType"], "Company");
    assert_eq!(stored["companyId"], company.as_str());
    assert!(stored["document"].as_str().unwrap().contains("refreshToken"));

    // Pages are sorted by ID.
    let (mut ids, mut params) = (Vec::new(), json!({"userType": "Location", "pageSize": 2}));
    loop {
        let page = abi.tokens_list(params.clone()).ok();
        ids.extend(page["items"].as_array().unwrap().iter().map(|item| item["resourceId"].clone()));
        match &page["nextPageToken"] {
            Value::Null => break,
            next => params["pageToken"] = next.clone(),
        }
    }
    assert_eq!(ids, locations);

    // A webhook adds a note and removes the token.
    emulator.uninstall(&locations[0]);
    let body = emulator.webhook(&Notice::Uninstall(locations[0].clone()));
    let headers = signed(&emulator, body.as_bytes(), Signature::Ed25519);
    assert_eq!(abi.webhook_apply(body.as_bytes(), &headers).ok()["applied"], true);
    assert_eq!(abi.webhook_apply(body.as_bytes(), &headers).ok()["applied"], false);
    assert!(!host.records.lock().unwrap().contains_key(&locations[0]));
    assert!(host.records.lock().unwrap().keys().any(|id| id.starts_with("~note/")));
    abi.token_delete(&locations[1]).ok();
    assert!(!host.records.lock().unwrap().contains_key(&locations[1]));

    // Another client, as after a restart, finds the records of the first one.
    let another: &TestHost = Box::leak(Box::default());
    *another.records.lock().unwrap() = mem::take(&mut *host.records.lock().unwrap());
    let config = support::config(&emulator, json!({"store": {"kind": "callbacks"}}));
    let (next, said) = open(&config, &callbacks(another)).map_err(|error| error.1).unwrap();
    assert_eq!(said, json!({"lock": "host"}));
    let sent = emulator.requests().len();
    next.live_token(&emulator, &locations[2]);
    assert_eq!(emulator.requests().len(), sent, "no request was necessary");
    assert_eq!(next.tokens_maintain(json!({}), |_| true).ok()["checked"], 0);
    for (client, host) in [(abi, host), (next, another)] {
        assert_eq!(host.destroyed.load(Ordering::Relaxed), 0);
        drop(client);
        assert_eq!(host.destroyed.load(Ordering::Relaxed), 1);
        assert_eq!(host.handed_out.load(Ordering::Relaxed), 0, "every text was freed");
        assert!(host.locks.lock().unwrap().is_empty());
    }
}

#[test]
fn failing_host_loses_no_token() {
    let emulator = emulator(2);
    let (abi, host) = hosted(&emulator, json!({}));
    let company = abi.connect_company(&emulator);

    // No token is spent that could not be saved.
    for callback in ["lock", "load", "save"] {
        host.refuse(callback, (4711, None));
        let refreshes = emulator.refreshes();
        let error = abi.token_refresh(&company).fails(Status::Store);
        assert!(error["message"].as_str().unwrap().contains("4711"), "{callback}: {error}");
        assert_eq!(error["resourceId"], company.as_str(), "{callback}");
        assert_eq!(emulator.refreshes(), refreshes, "{callback}");
        host.stop_refusing();
        abi.live_token(&emulator, &company);
    }

    // The store fails once the request has started: the new token is kept in memory and saved
    // later.
    refresh_unsaved(&abi, &emulator, host, &company);
    abi.live_token(&emulator, &company);
    assert_eq!(abi.listed(&company)["state"], "unsaved");
    host.stop_refusing();
    assert_eq!(abi.listed(&company)["state"], "ok");
    let document: Value =
        serde_json::from_str(host.records.lock().unwrap()[&company]["document"].as_str().unwrap())
            .unwrap();
    assert!(emulator.access_token_is_live(document["accessToken"].as_str().unwrap()));
}

#[test]
fn unsaved_token_is_listed_exported_and_used() {
    let emulator = emulator(3);
    let (abi, host) = hosted(&emulator, json!({}));
    let mut locations = emulator.location_ids();
    locations.sort();
    host.refuse("save", (9, None));
    let company = abi.connect_company(&emulator);
    // Minted from the only company, which is not in the store.
    abi.live_token(&emulator, &locations[1]);
    host.stop_refusing();
    abi.live_token(&emulator, &locations[0]);
    abi.live_token(&emulator, &locations[2]);
    host.refuse("save", (9, None));

    let pages = |page: &dyn Fn(Value) -> Value, items: &str| {
        let (mut found, mut next) = (Vec::new(), Value::Null);
        loop {
            let page = page(json!({"pageSize": 1, "pageToken": next}));
            assert!(page[items].as_array().unwrap().len() <= 1);
            found.extend(page[items].as_array().unwrap().clone());
            next = page["nextPageToken"].clone();
            if next.is_null() {
                return found;
            }
        }
    };
    let mut all = [vec![company.clone()], locations.clone()].concat();
    all.sort();
    let listed = pages(&|query| abi.tokens_list(query).ok(), "items");
    let ids: Vec<_> = listed.iter().map(|item| item["resourceId"].as_str().unwrap()).collect();
    assert_eq!(ids, all);
    for item in &listed {
        let saved = [&locations[0], &locations[2]]
            .contains(&&item["resourceId"].as_str().unwrap().to_owned());
        assert_eq!(item["state"], if saved { "ok" } else { "unsaved" }, "{item}");
    }
    let exported = pages(&|query| abi.tokens_export(query).ok(), "tokens");
    assert_eq!(exported.len(), all.len());
    for token in &exported {
        assert!(emulator.access_token_is_live(token["accessToken"].as_str().unwrap()));
    }
    let companies = abi.tokens_list(json!({"userType": "Company"})).ok();
    assert_eq!(companies["items"].as_array().unwrap().len(), 1);

    // A stored token that was refreshed in the meantime is not exported, because its refresh token
    // is spent.
    host.stop_refusing();
    abi.tokens_list(json!({})).ok();
    refresh_unsaved(&abi, &emulator, host, &company);
    let exported = abi.tokens_export(json!({"userType": "Company"})).ok();
    let live = emulator.live_refresh_tokens();
    let refresh_token = exported["tokens"][0]["refreshToken"].as_str().unwrap();
    assert!(live.iter().any(|token| token.refresh_token == refresh_token));
}

/// The store fails after the tombstone was written, so that the deletion fails.
#[test]
fn location_whose_deletion_failed_is_minted_again() {
    let emulator = emulator(1);
    let (abi, host, location) = with_minted(&emulator);
    let location = &location;
    host.refuse("remove", (9, None));
    abi.token_delete(location).fails(Status::Store);
    host.stop_refusing();
    assert_eq!(abi.token_refresh(location).ok()["state"], "ok");
    abi.live_token(&emulator, location);
    assert_eq!(abi.listed(location)["state"], "ok");
    abi.token_delete(location).ok();
    assert_eq!(abi.tokens_list(json!({})).ok()["items"].as_array().unwrap().len(), 1);
}

/// The mint found no record, and the consent is unsaved when the mint is saved.
#[test]
fn consent_that_comes_during_a_mint_is_kept() {
    let emulator = emulator(1);
    emulator.set_location_refresh_tokens(false);
    let (abi, host) = hosted(&emulator, json!({}));
    let company = abi.connect_company(&emulator);
    let location = &emulator.location_ids()[0];
    // The first load of the location, which is the mint's, ends after the consent.
    let gate = Arc::new((Mutex::new((false, false)), Condvar::new()));
    let (first, gates, id) = (Mutex::new(true), Arc::clone(&gate), location.clone());
    host.when_asked(move |callback| {
        let is_of_location = callback == "load" && *host.asked_for.lock().unwrap() == id;
        if is_of_location && mem::take(&mut *first.lock().unwrap()) {
            let (state, changed) = &*gates;
            let mut state = state.lock().unwrap();
            state.0 = true;
            changed.notify_all();
            let _open = changed.wait_while(state, |state| !state.1).unwrap();
        }
    });
    thread::scope(|scope| {
        let params = json!({"companyId": company, "locationIds": [location]});
        let mint = scope.spawn(|| abi.tokens_mint(params, |_| true).ok());
        let (state, changed) = &*gate;
        drop(changed.wait_while(state.lock().unwrap(), |state| !state.0).unwrap());
        host.refuse("save", (9, None));
        let link = abi.authorization_url(json!({})).ok();
        let decision = Decision::Location(location.clone());
        let redirect = emulator.consent(link["url"].as_str().unwrap(), decision).unwrap();
        let consent = abi.authorization_complete(json!({"redirectUrl": redirect})).ok();
        assert_eq!(consent["state"], "unsaved");
        host.stop_refusing();
        state.lock().unwrap().1 = true;
        changed.notify_all();
        assert_eq!(mint.join().unwrap()["minted"], 1);
    });
    abi.tokens_maintain(json!({}), |_| true).ok();
    let exported = abi.tokens_export(json!({"userType": "Location"})).ok();
    assert!(exported["tokens"][0]["refreshToken"].is_string(), "the consent's token is stored");
    abi.token_refresh(location).ok();
    abi.live_token(&emulator, location);
}

/// A late save must not restore the record after its deletion.
#[test]
fn token_with_a_late_save_stays_deleted() {
    let emulator = emulator(1);
    let (abi, host) = hosted(&emulator, json!({}));
    let company = abi.connect_company(&emulator);
    refresh_unsaved(&abi, &emulator, host, &company);
    host.stop_refusing();

    // The save blocks until the deletion has removed the record, or times out.
    let removed = Arc::new((Mutex::new(false), Condvar::new()));
    let saving = Arc::new((Mutex::new(false), Condvar::new()));
    let (gone, begun) = (Arc::clone(&removed), Arc::clone(&saving));
    host.when_asked(move |callback| {
        let ((gone, went), (begun, began)) = (&*gone, &*begun);
        match callback {
            "save" => {
                *begun.lock().unwrap() = true;
                began.notify_all();
                let in_vain = Duration::from_millis(300);
                drop(
                    went.wait_timeout_while(gone.lock().unwrap(), in_vain, |gone| !*gone).unwrap(),
                );
            }
            "remove" => {
                *gone.lock().unwrap() = true;
                went.notify_all();
            }
            _ => {}
        }
    });
    thread::scope(|scope| {
        scope.spawn(|| abi.tokens_list(json!({})).ok());
        let (begun, began) = &*saving;
        drop(began.wait_while(begun.lock().unwrap(), |begun| !*begun).unwrap());
        abi.token_delete(&company).ok();
    });
    assert!(!host.records.lock().unwrap().contains_key(&company));
    abi.access_token(&company).fails(Status::NotFound);
}

#[test]
fn host_error_text_reaches_the_caller_unless_it_contains_part_of_a_record() {
    let emulator = emulator(1);
    let (abi, host) = hosted(&emulator, json!({}));
    let company = abi.connect_company(&emulator);
    host.refuse("load", (7, Some("the cupboard is locked")));
    let error = abi.token_refresh(&company).fails(Status::Store);
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("the cupboard is locked") && message.contains("GHL_ERR_FORBIDDEN"),
        "{message}"
    );
    assert_eq!(error["retryable"], true);
    host.refuse("list", (7, Some("{\"items\":[{\"document\":\"hunter2")));
    let error = abi.tokens_list(json!({})).fails(Status::Store);
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert_eq!(host.handed_out.load(Ordering::Relaxed), 0);
}

#[test]
fn write_without_the_lock_is_detected() {
    let emulator = emulator(1);
    let (abi, host) = hosted(&emulator, json!({}));
    let company = abi.connect_company(&emulator);
    let hold = emulator.hold(Rule::on(Endpoint::Token), Stage::BeforeProcessing);
    thread::scope(|scope| {
        let refresh = scope.spawn(|| abi.token_refresh(&company).ok());
        hold.wait_for(1);
        let mut records = host.records.lock().unwrap();
        let record = records.get_mut(&company).unwrap();
        record["version"] = (record["version"].as_u64().unwrap() + 5).into();
        drop(records);
        hold.release();
        assert_eq!(refresh.join().unwrap()["state"], "ok", "the newer token is stored finally");
    });
    abi.live_token(&emulator, &company);
}

/// Another host changes the record without the lock, so the save of the minted token conflicts.
#[test]
fn caller_gets_the_minted_token_although_the_store_keeps_the_old_one() {
    let emulator = emulator(1);
    let (abi, host, location) = with_minted(&emulator);
    let location = &location;
    let mut old = abi.tokens_export(json!({"userType": "Location"})).ok()["tokens"][0].clone();
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    let expires_at = in_an_hour.duration_since(UNIX_EPOCH).unwrap().as_millis();
    old["expiresAt"] = json!(expires_at as u64);
    abi.tokens_import(json!({"tokens": [old], "replace": true})).ok();
    let hold = emulator.hold(Rule::on(Endpoint::LocationToken), Stage::AfterProcessing);
    thread::scope(|scope| {
        let params = json!({"resourceId": location, "minValidSeconds": 7200});
        let call = scope.spawn(|| abi.access_token_with(params).text());
        hold.wait_for(1);
        let mut records = host.records.lock().unwrap();
        let record = records.get_mut(location).unwrap();
        record["version"] = (record["version"].as_u64().unwrap() + 5).into();
        drop(records);
        hold.release();
        let minted = call.join().unwrap();
        assert!(json!(minted) != old["accessToken"] && emulator.access_token_is_live(&minted));
    });
}

static LOG: Mutex<String> = Mutex::new(String::new());

unsafe extern "C" fn hear(_level: i32, message: *const c_char, _context: *mut c_void) {
    // SAFETY: the library passes a NUL-terminated text.
    LOG.lock().unwrap().push_str(unsafe { CStr::from_ptr(message) }.to_str().unwrap());
}

#[test]
fn many_threads_share_one_refresh_with_and_without_a_lock() {
    for has_lock in [true, false] {
        let emulator = emulator(1);
        let host: &TestHost = Box::leak(Box::default());
        let mut table = callbacks(host);
        if !has_lock {
            (table.lock, table.unlock) = (None, None);
        }
        LOG.lock().unwrap().clear();
        // SAFETY: a function of the required type.
        assert_eq!(unsafe { ghl_set_log_callback(Some(hear), ptr::null_mut(), 2) }, 0);
        let (abi, said) =
            open(&support::config(&emulator, json!({})), &table).map_err(|error| error.1).unwrap();
        assert_eq!(said, json!({"lock": if has_lock { "host" } else { "process" }}));
        if !has_lock {
            assert!(LOG.lock().unwrap().contains("the host's store has no lock"));
        }
        let company = abi.connect_company(&emulator);
        let mut tokens = abi.tokens_export(json!({})).ok();
        tokens["tokens"][0]["expiresAt"] = 1.into();
        tokens["replace"] = true.into();
        abi.tokens_import(tokens).ok();
        let refreshes = emulator.refreshes();
        let answers: HashSet<String> = thread::scope(|scope| {
            let asking: Vec<_> =
                (0..16).map(|_| scope.spawn(|| abi.access_token(&company).text())).collect();
            asking.into_iter().map(|asking| asking.join().unwrap()).collect()
        });
        assert_eq!((answers.len(), emulator.refreshes() - refreshes), (1, 1));
    }
}

#[test]
fn sealed_records_reveal_nothing_to_the_host_and_are_resealed_by_maintenance() {
    let (old, new) = (
        "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    );
    let emulator = emulator(3);
    let (plain, host) = hosted(&emulator, json!({}));
    let company = plain.connect_company(&emulator);
    plain.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
    let keys = [json!([old]), json!([new, old]), json!([new])];
    for (keys, resealed) in keys.into_iter().zip([4, 4, 0]) {
        let config = support::config(
            &emulator,
            json!({"store": {"kind": "callbacks", "encryptionKeys": keys}}),
        );
        let mut table = callbacks(host);
        table.destroy = None;
        let (abi, _) = open(&config, &table).map_err(|error| error.1).unwrap();
        abi.live_token(&emulator, &company);
        let report = abi.tokens_maintain(json!({}), |_| true).ok();
        assert_eq!((&report["resealed"], &report["failed"]), (&json!(resealed), &json!([])));
        for record in host.records.lock().unwrap().values() {
            let document = record["document"].as_str().unwrap();
            assert!(!document.contains("Token"), "in clear: {}", record["resourceId"]);
        }
    }
}

/// A database that sorts and pages by a language collation would leave out tokens.
#[test]
fn pages_not_sorted_by_bytes_are_refused() {
    let emulator = emulator(1);
    let (abi, host) = hosted(&emulator, json!({}));
    let company = abi.connect_company(&emulator);
    let item = |id: &str| {
        let mut item = host.records.lock().unwrap()[&company].clone();
        item["resourceId"] = id.into();
        item
    };
    for (ids, next, accepted) in [
        (["A1", "a2"], json!("a2"), true),
        (["a2", "A1"], json!("a2"), true),
        (["a2", "B3"], json!("B3"), false),
        (["A1", "b4"], json!("a2"), false),
        (["a2", "B3"], Value::Null, true),
    ] {
        let page = json!({"items": ids.map(item), "nextPageToken": next}).to_string();
        host.refuse("list", (0, Some(page.leak())));
        let outcome = abi.tokens_list(json!({"pageSize": 1}));
        match accepted {
            true => drop(outcome.ok()),
            false => {
                let error = outcome.fails(Status::Store);
                assert!(
                    error["message"].as_str().unwrap().contains("order of the bytes"),
                    "{error}"
                );
            }
        }
    }
}

// ---- Misuse -------------------------------------------------------------------------------------

#[test]
fn callbacks_are_validated_and_destroy_is_called_once() {
    let emulator = emulator(1);
    let config = support::config(&emulator, json!({}));
    let refused = |change: fn(&mut ghl_store_callbacks), destroyed: usize| {
        let host = TestHost::default();
        let mut table = callbacks(&host);
        change(&mut table);
        let error = open(&config, &table).err().expect("it is refused");
        assert_eq!(host.destroyed.load(Ordering::Relaxed), destroyed);
        error
    };
    refused(|table| table.load = None, 1).refuses("store.load");
    refused(|table| table.save = None, 1).refuses("store.save");
    refused(|table| table.remove = None, 1).refuses("store.remove");
    refused(|table| table.list = None, 1).refuses("store.list");
    refused(|table| table.lock = None, 1).refuses("store.lock");
    refused(|table| table.unlock = None, 1).refuses("store.unlock");
    refused(|table| table.size = 0, 0).refuses("store.size");
    refused(|table| table.size -= 1, 0).refuses("store.size");
    open(&config, ptr::null()).err().unwrap().refuses("store");

    // A newer struct whose additional fields are zero or not.
    #[repr(C)]
    struct Newer(ghl_store_callbacks, usize);
    for (field, accepted) in [(0, true), (1, false)] {
        let host = TestHost::default();
        let mut newer = Newer(callbacks(&host), field);
        newer.0.size = size_of::<Newer>();
        match open(&config, (&raw const newer).cast()) {
            Ok(_) => assert!(accepted),
            Err(error) => {
                error.refuses("store.size");
                assert!(!accepted);
            }
        }
        assert_eq!(host.destroyed.load(Ordering::Relaxed), 1);
    }

    // A configuration for another store kind is refused by either function.
    let host = TestHost::default();
    let sqlite = json!({"store": {"kind": "sqlite", "path": "nowhere.db"}});
    let error = open(&support::config(&emulator, sqlite), &callbacks(&host)).err().unwrap();
    assert_eq!(error.fails(Status::Config)["parameter"], "store.kind");
    let error = open(&json!({"clientId": 7}), &callbacks(&host)).err().unwrap();
    error.refuses("clientId");
    assert_eq!(host.destroyed.load(Ordering::Relaxed), 2);
    let alone = Abi::open(&support::config(&emulator, json!({"store": {"kind": "callbacks"}})))
        .err()
        .unwrap();
    assert_eq!(alone.fails(Status::Config)["parameter"], "store.kind");

    // Without a pointer for the client.
    let text = CString::new(config.to_string()).unwrap();
    let mut document = ptr::null_mut();
    // SAFETY: valid pointers, or NULL.
    let code = unsafe {
        ghl_client_new_with_store(text.as_ptr(), &callbacks(&host), ptr::null_mut(), &mut document)
    };
    assert_eq!(code, Status::InvalidArgument.code());
    assert!(take(document).contains("out_client"));
    assert_eq!(host.destroyed.load(Ordering::Relaxed), 3);
}

#[test]
fn callback_may_not_call_its_own_client_but_may_cancel_it_and_use_another() {
    let emulator = emulator(2);
    let (abi, host) = hosted(&emulator, json!({}));
    let (another, _) = hosted(&emulator, json!({}));
    let (abi, another): (&Abi, &Abi) = (Box::leak(Box::new(abi)), Box::leak(Box::new(another)));
    let company = another.connect_company(&emulator);
    let id = company.clone();
    host.when_asked(move |_| {
        abi.access_token(&id).refuses("client");
        abi.tokens_list(json!({})).refuses("client");
        abi.tokens_maintain(json!({}), |_| true).refuses("client");
        abi.cancel();
        another.access_token(&id).text();
    });
    let link = abi.authorization_url(json!({})).ok();
    let redirect = emulator
        .consent(link["url"].as_str().unwrap(), Decision::Company(company.clone()))
        .unwrap();
    // The call was cancelled by its own callbacks after its code was spent: the token is kept.
    let _ = abi.authorization_complete(json!({"redirectUrl": redirect}));
    *host.act.lock().unwrap() = None;
    abi.live_token(&emulator, &company);
    assert_eq!(abi.listed(&company)["state"], "ok");
}

#[test]
fn slow_callback_delays_no_other_call() {
    let emulator = emulator(3);
    let (abi, host) = hosted(&emulator, json!({}));
    let company = abi.connect_company(&emulator);
    let locations = emulator.location_ids();
    for location in &locations {
        abi.live_token(&emulator, location);
    }
    for slow in ["load", "save", "lock", "unlock"] {
        // The first thread that enters the callback waits until the others have finished.
        let gate = Arc::new((Mutex::new((false, false)), Condvar::new()));
        let (at, gates) = (Mutex::new(None::<ThreadId>), Arc::clone(&gate));
        host.when_asked(move |callback| {
            let here = thread::current().id();
            if callback != slow || *at.lock().unwrap().get_or_insert(here) != here {
                return;
            }
            let (state, changed) = &*gates;
            let mut state = state.lock().unwrap();
            state.0 = true;
            changed.notify_all();
            let _open = changed.wait_while(state, |state| !state.1).unwrap();
        });
        thread::scope(|scope| {
            let stuck = scope.spawn(|| abi.token_refresh(&locations[0]).ok());
            let (state, changed) = &*gate;
            drop(changed.wait_while(state.lock().unwrap(), |state| !state.0).unwrap());
            abi.live_token(&emulator, &locations[0]);
            abi.token_refresh(&locations[1]).ok();
            abi.token_refresh(&company).ok();
            abi.tokens_list(json!({})).ok();
            abi.token_delete(&locations[2]).ok();
            abi.live_token(&emulator, &locations[2]);
            abi.stats();
            state.lock().unwrap().1 = true;
            changed.notify_all();
            assert_eq!(stuck.join().unwrap()["state"], "ok", "{slow}");
        });
    }
}

#[test]
fn wait_for_the_host_lock_ends_by_its_deadline_and_by_cancellation() {
    let emulator = emulator(1);
    let (abi, host) = hosted(&emulator, json!({"timeouts": {"totalMs": 600_000}}));
    let company = abi.connect_company(&emulator);
    // Another host holds the lock, although this one may claim at once to have it.
    host.locks.lock().unwrap().insert(company.clone(), thread::current().id());
    let config = support::config(&emulator, json!({"timeouts": {"totalMs": 300}}));
    let mut table = callbacks(host);
    table.destroy = None;
    let (hasty, _) = open(&config, &table).map_err(|error| error.1).unwrap();
    hasty.token_refresh(&company).fails(Status::Timeout);
    host.refuse("lock", (Status::Timeout.code(), None));
    hasty.token_refresh(&company).fails(Status::Timeout);
    host.stop_refusing();
    thread::scope(|scope| {
        let waits = scope.spawn(|| abi.token_refresh(&company));
        abi.cancel_until(|| waits.is_finished());
        waits.join().unwrap().fails(Status::Cancelled);
    });
    host.locks.lock().unwrap().remove(&company);
    host.freed.notify_all();
    abi.token_refresh(&company).ok();
}

/// A caller with a valid token waits only briefly for the refresh of another host.
#[test]
fn caller_whose_token_expires_while_another_host_refreshes_gets_the_new_token() {
    let emulator = emulator(1);
    let (abi, host) = hosted(&emulator, json!({}));
    let company = abi.connect_company(&emulator);
    let mut token = abi.tokens_export(json!({})).ok()["tokens"][0].clone();
    let expires = SystemTime::now() + Duration::from_millis(80);
    let expires_at = expires.duration_since(UNIX_EPOCH).unwrap().as_millis();
    token["expiresAt"] = json!(expires_at as u64);
    abi.tokens_import(json!({"tokens": [token], "replace": true})).ok();
    // Another host holds the lock until the token has expired, and longer than the brief wait.
    host.refuse("lock", (Status::Timeout.code(), None));
    let began = Instant::now();
    host.when_asked(move |callback| {
        if callback == "lock" && began.elapsed() > Duration::from_millis(300) {
            host.stop_refusing();
        }
    });
    let new = abi.live_token(&emulator, &company);
    assert_ne!(json!(new), token["accessToken"]);
}

#[test]
fn invalid_callback_result_is_an_error_without_quotes() {
    let emulator = emulator(1);
    let (abi, host) = hosted(&emulator, json!({}));
    let company = abi.connect_company(&emulator);
    let good = host.records.lock().unwrap()[&company].clone();
    let with = |key: &str, value: Value| {
        let mut record = good.clone();
        record[key] = value;
        record
    };
    for record in [
        json!("hunter2"),
        json!({"hunter2": 1}),
        with("kind", "hunter2".into()),
        with("version", u64::MAX.into()),
        with("resourceId", "another".into()),
        with("kind", "note".into()),
        with("version", "hunter2".into()),
        with("document", Value::Null),
        with("document", "hunter2".into()),
        with("document", "{\"accessToken\": \"hunter2\"}".into()),
        with("document", "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=".into()),
    ] {
        host.records.lock().unwrap().insert(company.clone(), record.clone());
        let error = abi.token_refresh(&company).fails(Status::Store);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(error["resourceId"], company.as_str(), "{record}: {error}");
        assert_eq!(host.records.lock().unwrap()[&company], record, "the record was overwritten");
    }
    host.records.lock().unwrap().insert(company.clone(), good);
    for page in [
        "hunter2",
        "{}",
        "{\"items\": 7}",
        "{\"items\": [{\"hunter2\": 1}], \"nextPageToken\": null}",
        "{\"items\": [], \"nextPageToken\": \"\"}",
    ] {
        host.refuse("list", (0, Some(page)));
        let error = abi.tokens_list(json!({})).fails(Status::Store);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    host.stop_refusing();
    abi.token_refresh(&company).ok();
}
