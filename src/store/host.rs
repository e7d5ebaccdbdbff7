//! A custom token store, implemented by the host's callbacks. The callbacks exchange JSON. Sealing,
//! validation of the callbacks' results, and the locks between this process's threads are
//! implemented here, so that the callbacks can stay small.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::process_lock::{ProcessLock, ProcessLocks};
use super::row::{Row, StoredRow};
use super::{
    DuePage, Lock, Note, NotePage, Page, Query, Record, Resealed, Seal, Store, Unreadable,
};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::fork_safety;
use crate::secret::Secret;
use crate::token::UserType;

/// Prefix of a note's ID in the host's store. It sorts after every ID of the API.
const NOTE: &str = "~note/";

/// Page size for a scan of all items.
const PAGE: usize = 100;

/// Maximum time that one call waits for the host's lock, so that a cancellation is noticed.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The pause between two attempts if the host's lock function does not wait.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The deadline of each step of resealing. A record whose lock is held for longer is being
/// refreshed, which reseals it.
const RESEAL_STEP: Duration = Duration::from_secs(5);

/// The version of a record that cannot be read, higher than any real version. Such a record can be
/// deleted and replaced like any other.
const UNKNOWN_VERSION: u64 = 1 << 62;

/// The host's callbacks. They may be called by any thread, and concurrently. During a callback, the
/// library holds no lock that another call may wait for, except the resource's refresh lock.
///
/// `CONFLICT` from [`Host::save`] and `TIMEOUT` from [`Host::lock`] are regular results. Every
/// other error means that the store failed.
pub trait Host: Send + Sync {
    /// The record with this ID, as it was saved; `None` if it does not exist.
    fn load(&self, id: &str) -> Result<Option<Zeroizing<String>>>;

    /// Saves a record durably by compare-and-swap: the `version` field of the stored record must
    /// equal `expected_version` (0: no record exists).
    fn save(&self, id: &str, record: &str, expected_version: u64) -> Result<()>;

    /// Removes a record.
    fn remove(&self, id: &str) -> Result<()>;

    /// A page of records. `query` contains the conditions.
    fn list(&self, query: &str) -> Result<Zeroizing<String>>;

    /// Whether the host has a lock that excludes other processes and machines.
    fn has_lock(&self) -> bool;

    /// Waits up to `timeout` for the lock of an ID. The lock must be released when its holder dies.
    fn lock(&self, id: &str, timeout: Duration) -> Result<()>;

    /// Releases a lock, on the thread that took it.
    fn unlock(&self, id: &str);
}

/// A token store on top of [`Host`].
pub struct HostStore {
    host: Arc<dyn Host>,
    locks: Arc<ProcessLocks>,
    seal: Seal,
}

/// A resource's refresh lock: this process's lock, and the host's lock inside it.
struct HostLock {
    host: Arc<dyn Host>,
    id: String,
    generation: u32,
    _process: ProcessLock,
}

/// A token's record, as passed to the host.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenItem<'a> {
    kind: &'static str,
    resource_id: &'a str,
    version: u64,
    user_type: &'static str,
    company_id: Option<&'a str>,
    renew_at: i64,
    sealed_with: &'a str,
    document: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NoteItem<'a> {
    kind: &'static str,
    resource_id: String,
    version: u64,
    list: &'a str,
    expires_at: i64,
    document: String,
}

/// An item that the host returned. A field of the wrong type counts as missing, so that one bad
/// item does not make its whole page unreadable. Only the ID is required.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredItem {
    resource_id: String,
    #[serde(default)]
    kind: Lenient<String>,
    #[serde(default)]
    version: Lenient<u64>,
    #[serde(default)]
    user_type: Lenient<UserType>,
    #[serde(default)]
    company_id: Lenient<String>,
    #[serde(default)]
    renew_at: Lenient<i64>,
    #[serde(default)]
    sealed_with: Lenient<String>,
    #[serde(default)]
    list: Lenient<String>,
    #[serde(default)]
    expires_at: Lenient<i64>,
    #[serde(default, deserialize_with = "document")]
    document: Option<Secret>,
}

/// A value of the expected type, or anything.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    As(T),
    Other(IgnoredAny),
}

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Lenient::Other(IgnoredAny)
    }
}

impl<T> Lenient<T> {
    fn get(&self) -> Option<&T> {
        match self {
            Lenient::As(value) => Some(value),
            Lenient::Other(_) => None,
        }
    }
}

impl Lenient<String> {
    fn as_str(&self) -> Option<&str> {
        self.get().map(String::as_str)
    }
}

/// Deserializes a document; `None` unless it is a string. Unlike [`Lenient`], it does not copy the
/// secret to a buffer.
fn document<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    struct Text;

    impl<'de> Visitor<'de> for Text {
        type Value = Option<Secret>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a document")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.to_owned().into()))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(None)
        }
    }

    from.deserialize_any(Text)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredPage {
    items: Vec<StoredItem>,
    next_page_token: Option<String>,
}

impl HostStore {
    /// Wraps the host's callbacks.
    pub fn new(host: Arc<dyn Host>, seal: Seal) -> HostStore {
        if !host.has_lock() {
            log::warn!(
                "the host's store has no lock: two processes that refresh the same token can lose \
                 it; use the store in one process only"
            );
        }
        HostStore { host, locks: Arc::default(), seal }
    }

    /// Loads an item and checks its ID and kind.
    fn item(&self, id: &str, kind: &str, deadline: &Deadline) -> Result<Option<StoredItem>> {
        deadline.check()?;
        let failed = |error| refused(&error, "load").with_resource(id);
        let Some(text) = self.host.load(id).map_err(failed)? else {
            return Ok(None);
        };
        let item: StoredItem = serde_json::from_str(&text)
            .map_err(|error| unreadable("load", &error).into_unreadable().with_resource(id))?;
        if item.resource_id != id || item.kind.as_str().is_some_and(|found| found != kind) {
            let message =
                format!("the host's store returned another record than the requested {kind}");
            return Err(broken(message).with_resource(id));
        }
        Ok(Some(item))
    }

    fn open(&self, item: StoredItem) -> Result<Record> {
        let help = "delete the record and let the user consent again; make the store's callbacks \
                    return what they were given, see ghl_store_callbacks";
        self.seal.record(item.into_row().map_err(|error| error.with_help(help).into_unreadable())?)
    }

    fn put(
        &self,
        id: &str,
        record: &str,
        expected_version: u64,
        deadline: &Deadline,
    ) -> Result<()> {
        deadline.check()?;
        self.host.save(id, record, expected_version).map_err(|error| match error.status() {
            Status::Conflict => super::changed_meanwhile(id),
            _ => refused(&error, "save").with_resource(id),
        })
    }

    fn remove(&self, id: &str, deadline: &Deadline) -> Result<()> {
        deadline.check()?;
        self.host.remove(id).map_err(|error| refused(&error, "remove").with_resource(id))
    }

    /// One page of the host's list after the ID `after`, and the ID to continue after. Sorts and
    /// filters the items, since the host may ignore conditions. If there is a next page, the items
    /// must be in order: missing items could not be detected otherwise.
    fn page(
        &self,
        query: &Value,
        matches: &dyn Fn(&StoredItem) -> bool,
        after: Option<&str>,
        size: usize,
        deadline: &Deadline,
    ) -> Result<(Vec<StoredItem>, Option<String>)> {
        deadline.check()?;
        let mut query = query.clone();
        query["pageSize"] = size.into();
        query["pageToken"] = json!(after);
        if let Some(conditions) = query.as_object_mut() {
            conditions.retain(|_, condition| !condition.is_null());
        }
        let text = self.host.list(&query.to_string()).map_err(|error| refused(&error, "list"))?;
        let page: StoredPage =
            serde_json::from_str(&text).map_err(|error| unreadable("list", &error))?;
        let mut items = page.items;
        if let Some(next) = &page.next_page_token {
            let is_in_order =
                |id: &str| after.is_none_or(|after| id > after) && id <= next.as_str();
            if !items.iter().all(|item| is_in_order(&item.resource_id)) || !is_in_order(next) {
                return Err(broken("the host's list is not in the order of the bytes of its IDs"));
            }
        }
        items.retain(|item| {
            after.is_none_or(|after| item.resource_id.as_str() > after) && matches(item)
        });
        items.sort_unstable_by(|one, other| one.resource_id.cmp(&other.resource_id));
        Ok((items, page.next_page_token))
    }

    /// The first `limit` matching items after `after`, and whether there are more.
    fn items(
        &self,
        query: &Value,
        matches: &dyn Fn(&StoredItem) -> bool,
        after: Option<&str>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<(Vec<StoredItem>, bool)> {
        let mut found = Vec::new();
        let mut after = after.map(str::to_owned);
        loop {
            // One item more than `limit` tells whether there is a next page. A page without any
            // match need not be the last one.
            let size = limit + 1 - found.len();
            let (items, next) = self.page(query, matches, after.as_deref(), size, deadline)?;
            found.extend(items);
            if found.len() > limit || next.is_none() {
                let more = found.len() > limit;
                found.truncate(limit);
                return Ok((found, more));
            }
            after = next;
        }
    }

    /// Passes all matching tokens, without documents, to `visit`, until it returns false.
    fn each_token(
        &self,
        mut query: Value,
        matches: impl Fn(&StoredItem) -> bool,
        deadline_of_page: impl Fn() -> Deadline,
        mut visit: impl FnMut(StoredItem) -> Result<bool>,
    ) -> Result<()> {
        query["kind"] = "token".into();
        query["withoutDocuments"] = true.into();
        let is_match = |item: &StoredItem| item.is_token() && matches(item);
        let mut after = None;
        loop {
            let deadline = deadline_of_page();
            let (items, next) = self.page(&query, &is_match, after.as_deref(), PAGE, &deadline)?;
            for item in items {
                if !visit(item)? {
                    return Ok(());
                }
            }
            if next.is_none() {
                return Ok(());
            }
            after = next;
        }
    }

    /// Reseals a record with the first key, under its refresh lock. Returns whether it still
    /// exists.
    fn reseal_one(&self, id: &str, overall: &Deadline) -> Result<bool> {
        let _lock = self.lock(id, &overall.renewed(RESEAL_STEP))?;
        let deadline = overall.renewed(RESEAL_STEP);
        match self.load(id, &deadline)? {
            Some(record) => self.save(&record, &deadline).map(|_| true),
            None => Ok(false),
        }
    }
}

impl StoredItem {
    fn is_token(&self) -> bool {
        self.kind.as_str().map_or(!self.resource_id.starts_with(NOTE), |kind| kind == "token")
    }

    fn is_note(&self) -> bool {
        self.kind.as_str() == Some("note")
    }

    fn is_of(&self, company_id: &str) -> bool {
        self.company_id.as_str() == Some(company_id)
    }

    /// The version, unless it is 0, or too large to have been reached by increments of one.
    fn known_version(&self) -> Option<u64> {
        self.version
            .get()
            .copied()
            .filter(|version| (1..=i64::MAX.unsigned_abs()).contains(version))
    }

    fn into_row(self) -> Result<StoredRow> {
        let Some(version) = self.known_version() else {
            let message = "the host's store returned a record with an invalid version";
            return Err(broken(message).with_resource(&self.resource_id));
        };
        let missing = || broken("the host's store returned a record without its document");
        let document = self.document.ok_or_else(|| missing().with_resource(&self.resource_id))?;
        let document = match document.expose().starts_with('{') {
            true => document.expose().as_bytes().to_vec(),
            false => BASE64_STANDARD.decode(document.expose()).map_err(|_| {
                broken("the host's store returned an invalid document")
                    .with_resource(&self.resource_id)
            })?,
        };
        Ok(StoredRow { resource_id: self.resource_id, version, document: Zeroizing::new(document) })
    }

    /// Converts the item to a note. An unreadable document counts as empty.
    fn into_note(self) -> Note {
        let document = self.document.and_then(|text| serde_json::from_str(text.expose()).ok());
        Note {
            key: self.resource_id.strip_prefix(NOTE).unwrap_or_default().to_owned(),
            version: self.version.get().copied().unwrap_or_default(),
            list: self.list.as_str().unwrap_or_default().to_owned(),
            document: document.unwrap_or_default(),
            expires_at: self.expires_at.get().copied().unwrap_or_default(),
        }
    }
}

impl Store for HostStore {
    fn load(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<Record>> {
        let item = self.item(resource_id, "token", deadline)?;
        item.map(|item| self.open(item)).transpose()
    }

    fn version(&self, resource_id: &str, deadline: &Deadline) -> Result<Option<u64>> {
        match self.item(resource_id, "token", deadline) {
            Ok(item) => Ok(item.map(|item| item.known_version().unwrap_or(UNKNOWN_VERSION))),
            Err(error) if error.is_unreadable() => Ok(Some(UNKNOWN_VERSION)),
            Err(error) => Err(error),
        }
    }

    fn save(&self, record: &Record, deadline: &Deadline) -> Result<u64> {
        if record.resource_id.starts_with(NOTE) {
            return Err(broken(format!("IDs that start with {NOTE} are reserved for the library"))
                .with_resource(&record.resource_id));
        }
        let row = self.seal.row(record)?;
        let item = token_item(&row)?;
        let mut expected = record.version;
        if expected == UNKNOWN_VERSION
            && self.version(&row.resource_id, deadline)? == Some(UNKNOWN_VERSION)
        {
            // The host cannot compare an unreadable version, so the record is removed first.
            self.remove(&row.resource_id, deadline)?;
            expected = 0;
        }
        self.put(&row.resource_id, &item, expected, deadline)?;
        Ok(row.version)
    }

    fn remove_all(&self, records: &[(String, u64)], deadline: &Deadline) -> Result<Vec<bool>> {
        let mut removed = Vec::with_capacity(records.len());
        for (resource_id, version) in records {
            // The host cannot remove by version. The refresh lock excludes other writers between
            // the two calls.
            let is_the_same = self.version(resource_id, deadline)? == Some(*version);
            if is_the_same {
                self.remove(resource_id, deadline)?;
            }
            removed.push(is_the_same);
        }
        Ok(removed)
    }

    fn list(&self, query: &Query, deadline: &Deadline) -> Result<Page> {
        let conditions = json!({
            "kind": "token",
            "companyId": query.company_id,
            "userType": query.user_type.map(UserType::name),
        });
        let matches = |item: &StoredItem| {
            item.is_token()
                && query.company_id.as_ref().is_none_or(|id| item.is_of(id))
                && query.user_type.is_none_or(|kind| item.user_type.get() == Some(&kind))
        };
        let (items, more) =
            self.items(&conditions, &matches, query.after.as_deref(), query.limit, deadline)?;
        let next = items.last().filter(|_| more).map(|last| last.resource_id.clone());
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        for item in items {
            let version = item.known_version().unwrap_or(UNKNOWN_VERSION);
            let resource_id = item.resource_id.clone();
            match self.open(item) {
                Ok(record) => records.push(record),
                Err(error) => unreadable.push(Unreadable { resource_id, version, error }),
            }
        }
        Ok(Page { records, unreadable, next })
    }

    fn due(
        &self,
        company_id: Option<&str>,
        renewals: &RangeInclusive<i64>,
        after: Option<&str>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<DuePage> {
        let conditions = json!({
            "kind": "token", "companyId": company_id, "renewBy": renewals.end(),
            "withoutDocuments": true,
        });
        let matches = |item: &StoredItem| {
            item.is_token()
                && company_id.is_none_or(|id| item.is_of(id))
                // A record with an unknown renewal time is included.
                && item.renew_at.get().is_none_or(|renew_at| renewals.contains(renew_at))
        };
        let (items, more) = self.items(&conditions, &matches, after, limit, deadline)?;
        let next = items.last().filter(|_| more).map(|last| last.resource_id.clone());
        Ok(DuePage { resource_ids: items.into_iter().map(|item| item.resource_id).collect(), next })
    }

    fn next_renewal(&self, company_id: Option<&str>, deadline: &Deadline) -> Result<Option<i64>> {
        let of_company = |item: &StoredItem| company_id.is_none_or(|id| item.is_of(id));
        let mut next: Option<i64> = None;
        self.each_token(
            json!({"companyId": company_id}),
            of_company,
            || deadline.clone(),
            |item| {
                next = next.into_iter().chain(item.renew_at.get().copied()).min();
                Ok(true)
            },
        )?;
        Ok(next)
    }

    fn reseal(
        &self,
        overall: &Deadline,
        should_continue: &dyn Fn(u64) -> bool,
    ) -> Result<Resealed> {
        let mut resealed = Resealed::default();
        let key_id = self.seal.key_id();
        if key_id.is_empty() {
            return Ok(resealed);
        }
        let by_another = |item: &StoredItem| item.sealed_with.as_str() != Some(&key_id);
        let step = || overall.renewed(RESEAL_STEP);
        self.each_token(json!({"notSealedWith": key_id}), by_another, step, |item| {
            if !should_continue(resealed.sealed) {
                return Ok(false);
            }
            match self.reseal_one(&item.resource_id, overall) {
                Ok(true) => resealed.sealed += 1,
                Ok(false) => {}
                Err(error) if error.status() == Status::Cancelled => return Err(error),
                Err(error) => {
                    resealed.left += 1;
                    // The record is being refreshed, which reseals it.
                    if !matches!(error.status(), Status::Timeout | Status::Conflict) {
                        resealed.fail(error.with_resource(&item.resource_id));
                    }
                }
            }
            Ok(true)
        })?;
        Ok(resealed)
    }

    fn lock(&self, resource_id: &str, deadline: &Deadline) -> Result<Box<dyn Lock>> {
        let process = self.locks.lock(resource_id, deadline)?;
        if !self.host.has_lock() {
            return Ok(Box::new(process));
        }
        loop {
            let (slice, began) = (deadline.remaining().min(POLL_INTERVAL), Instant::now());
            match self.host.lock(resource_id, slice) {
                Ok(()) => break,
                // Pauses if the host did not wait.
                Err(error) if error.status() == Status::Timeout => {
                    deadline.sleep(RETRY_PAUSE.min(slice.saturating_sub(began.elapsed())))?;
                }
                Err(error) => return Err(refused(&error, "lock").with_resource(resource_id)),
            }
        }
        Ok(Box::new(HostLock {
            host: Arc::clone(&self.host),
            id: resource_id.to_owned(),
            generation: fork_safety::generation(),
            _process: process,
        }))
    }

    fn note(&self, key: &str, deadline: &Deadline) -> Result<Option<Note>> {
        Ok(self.item(&format!("{NOTE}{key}"), "note", deadline)?.map(StoredItem::into_note))
    }

    fn save_note(&self, note: &Note, deadline: &Deadline) -> Result<()> {
        let id = format!("{NOTE}{}", note.key);
        let item = NoteItem {
            kind: "note",
            resource_id: id.clone(),
            version: note.version + 1,
            list: &note.list,
            expires_at: note.expires_at,
            document: note.document.to_string(),
        };
        self.put(
            &id,
            &serde_json::to_string(&item).map_err(|_| unwritable())?,
            note.version,
            deadline,
        )
    }

    fn notes(
        &self,
        list: &str,
        after: Option<&str>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<NotePage> {
        let after = after.map(|after| format!("{NOTE}{after}"));
        let matches = |item: &StoredItem| item.is_note() && item.list.as_str() == Some(list);
        let conditions = json!({"kind": "note", "list": list});
        let (items, more) = self.items(&conditions, &matches, after.as_deref(), limit, deadline)?;
        let notes: Vec<Note> = items.into_iter().map(StoredItem::into_note).collect();
        let next = notes.last().filter(|_| more).map(|last| last.key.clone());
        Ok(NotePage { notes, next })
    }

    fn prune_notes(&self, now_ms: i64, deadline: &Deadline) -> Result<()> {
        let is_expired = |item: &StoredItem| {
            item.is_note() && item.expires_at.get().is_some_and(|expires_at| *expires_at <= now_ms)
        };
        let query = json!({"kind": "note", "expiredBy": now_ms});
        let mut after = None;
        loop {
            let (items, more) =
                self.items(&query, &is_expired, after.as_deref(), PAGE, deadline)?;
            for item in &items {
                // The note may have been saved again since it was listed.
                let id = &item.resource_id;
                if self.item(id, "note", deadline)?.is_some_and(|item| is_expired(&item)) {
                    self.remove(id, deadline)?;
                }
            }
            after = items.last().filter(|_| more).map(|last| last.resource_id.clone());
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

impl Lock for HostLock {}

impl Drop for HostLock {
    fn drop(&mut self) {
        // A child forked during a refresh must not release its parent's lock.
        if self.generation == fork_safety::generation() {
            self.host.unlock(&self.id);
        }
    }
}

fn token_item(row: &Row) -> Result<Zeroizing<String>> {
    let sealed;
    let document = match row.sealed_with.is_empty() {
        true => std::str::from_utf8(&row.document).map_err(|_| unwritable())?,
        false => {
            sealed = BASE64_STANDARD.encode(&row.document);
            &sealed
        }
    };
    let item = TokenItem {
        kind: "token",
        resource_id: &row.resource_id,
        version: row.version,
        user_type: row.user_type.name(),
        company_id: row.company_id.as_deref(),
        renew_at: row.renew_at,
        sealed_with: &row.sealed_with,
        document,
    };
    // Pre-allocated for a document with every quote escaped: a buffer that grows leaves copies of
    // secrets in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * document.len() + 2048));
    serde_json::to_writer(&mut *bytes, &item).map_err(|_| unwritable())?;
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|_| unwritable())
}

fn unwritable() -> Error {
    Error::new(Status::Internal, "a record could not be written as JSON")
}

fn refused(error: &Error, what: &str) -> Error {
    Error::new(Status::Store, format!("the host's store could not {what}: {}", error.message()))
        .with_help(
            "check the host's own log; new tokens are kept in memory until its store works again",
        )
}

/// The error for invalid JSON: its position, without its text, which may contain a secret.
fn unreadable(what: &str, error: &serde_json::Error) -> Error {
    let position = format!("line {}, column {}", error.line(), error.column());
    broken(format!("the host's store returned invalid JSON from {what} ({position})"))
}

fn broken(message: impl Into<String>) -> Error {
    Error::new(Status::Store, message).with_help(
        "make the store's callbacks return what they were given; see ghl_store_callbacks",
    )
}
