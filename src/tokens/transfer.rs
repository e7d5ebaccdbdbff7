//! List, export and import of tokens, including tokens of other clients.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::Tokens;
use super::bulk::failure;
use super::cooldown::Cooldowns;
use super::installation::InstallationEvents;
use super::published::PublishedTokens;
use super::records::{Origin, Records, Replaced, Saved, same_token};
use super::reports::Reports;
use super::schedule::Schedule;
use super::writer::TokenWriter;
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::deferred_callbacks;
use crate::error::log_fields::about;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::json::{self, in_camel_case, take_integer, take_string};
use crate::secret::Secret;
use crate::store::{Page, Query, Record, SpentDigest, Standing, Unreadable};
use crate::token::{NEVER, NO_TOKEN_TEXT, Token, UserType, expiry, is_token_text, valid_id};

/// Imported tokens per save, and records per page.
const BATCH: usize = 100;

/// Key in an export: the location consented separately, so its installation does not end with its
/// company's.
const OWN_CONSENT: &str = "ownConsent";

/// Records per page that are read for a filtered list.
const FILTER_PAGE: usize = 500;

/// How long a list may be delayed by retries for unsaved copies.
const SAVE_RETRY_TIME: Duration = Duration::from_secs(3);

/// Selects the tokens to list or export.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[deny(missing_docs)]
pub struct ListParams {
    /// Only this company and its locations.
    pub company_id: Option<String>,
    /// Only companies, or only locations.
    pub user_type: Option<UserType>,
    /// Only tokens in this state.
    pub state: Option<ListedState>,
    /// Only tokens whose last renewal failed. Default: false.
    pub failing: bool,
    /// Only access tokens that expire before this time, in milliseconds since the epoch.
    pub expires_before: Option<i64>,
    /// Items per page, 1 to 1,000. Default: 100.
    pub page_size: Option<i64>,
    /// The last page's `nextPageToken`, to continue from there.
    pub page_token: Option<String>,
}

/// A state to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListedState {
    /// The token is valid or can be renewed.
    Ok,
    /// The location is paused.
    Inactive,
    /// The user must consent again.
    ReauthorizationRequired,
    /// The token could not be saved by this process.
    Unsaved,
}

impl ListedState {
    fn name(self) -> &'static str {
        match self {
            ListedState::Ok => "ok",
            ListedState::Inactive => "inactive",
            ListedState::ReauthorizationRequired => "reauthorizationRequired",
            ListedState::Unsaved => "unsaved",
        }
    }
}

/// The tokens to import.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[deny(missing_docs)]
pub struct ImportParams {
    /// One object per token, with keys in camel case or snake case.
    #[serde(deserialize_with = "json::unique_maps")]
    pub tokens: Vec<Map<String, Value>>,
    /// Whether an older token may replace a newer one, and a token of an uninstalled app may
    /// return. Default: false.
    #[serde(default)]
    pub replace: bool,
    /// Only report the outcome. Default: false.
    #[serde(default)]
    pub dry_run: bool,
    /// Ignored, so that a page of an export can be imported unchanged.
    #[serde(default)]
    pub next_page_token: Option<IgnoredAny>,
    /// Ignored as well.
    #[serde(default)]
    pub failed: Option<IgnoredAny>,
}

/// Lists, exports and imports tokens.
pub struct Transfer<'a> {
    tokens: &'a Tokens,
    records: &'a Records,
    published: &'a PublishedTokens,
    writer: &'a TokenWriter,
    schedule: &'a Schedule,
    cooldowns: &'a Cooldowns,
    reports: &'a Reports,
    clock: &'a dyn Clock,
}

impl<'a> Transfer<'a> {
    pub fn of(tokens: &'a Tokens) -> Transfer<'a> {
        Transfer {
            tokens,
            records: &tokens.records,
            published: &tokens.published,
            writer: &tokens.writer,
            schedule: &tokens.schedule,
            cooldowns: &tokens.cooldowns,
            reports: &tokens.reports,
            clock: tokens.clock.as_ref(),
        }
    }

    /// Returns a page of token metadata, without secrets.
    pub fn list(&self, params: &ListParams, deadline: &Deadline) -> Result<Value> {
        let page = self.page(params, deadline)?;
        let items: Vec<Value> =
            page.records.iter().map(|record| self.records.describe(record)).collect();
        Ok(with_failed(json!({"items": items, "nextPageToken": page.next}), &page.unreadable))
    }

    /// Returns a page of tokens with secrets, in the format of [`Transfer::import`].
    pub fn export(&self, params: &ListParams, deadline: &Deadline) -> Result<Value> {
        let page = self.page(params, deadline)?;
        let tokens: Vec<Value> = page.records.iter().map(exported).collect();
        Ok(with_failed(json!({"tokens": tokens, "nextPageToken": page.next}), &page.unreadable))
    }

    /// Imports tokens that were granted elsewhere, such as the sessions that the vendor's SDKs
    /// store.
    ///
    /// Tokens that cannot be imported are skipped and reported with the reason. Imported tokens are
    /// not cached until a caller asks for them. `step` limits each batch.
    pub fn import(&self, params: ImportParams, step: impl Fn() -> Deadline) -> Result<Value> {
        let mut report = Report::default();
        let mut entries = read_all(params.tokens, self.clock.wall_ms(), &mut report).into_iter();
        // A store that cannot list may still save: then read the tombstone of each resource.
        let mut deadline = step();
        let deleted = match self.records.deleted(&deadline) {
            Err(error) if error.status() == Status::Store => None,
            deleted => Some(deleted?),
        };
        if params.dry_run {
            return self.rehearse(entries, deleted.as_ref(), params.replace, report, &step);
        }
        for index in 0.. {
            let batch: Vec<_> = entries.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            if index > 0 {
                deadline = step();
            }
            deadline.check()?;
            self.import_batch(batch, deleted.as_ref(), params.replace, &mut report, &deadline)?;
        }
        // Do not delay an import of several companies: maintenance mints for their pending
        // INSTALLs.
        if let [company_id] = &report.companies[..] {
            InstallationEvents::of(self.tokens).mint_pending(company_id, &deadline);
        }
        Ok(report.into_json())
    }

    /// Reports what an import of these entries would do. Reads the store and changes nothing.
    fn rehearse(
        &self,
        entries: impl Iterator<Item = Entry>,
        deleted: Option<&HashSet<String>>,
        replace: bool,
        mut report: Report,
        step: &dyn Fn() -> Deadline,
    ) -> Result<Value> {
        // Later entries of the same resource compete with the accepted ones.
        let mut accepted: HashMap<String, Record> = HashMap::new();
        let mut list = Vec::new();
        let mut deadline = step();
        for (position, entry) in entries.enumerate() {
            if position > 0 && position % BATCH == 0 {
                deadline = step();
            }
            let deadline = &deadline;
            deadline.check()?;
            let resource_id = entry.token.resource_id().unwrap_or_default().to_owned();
            let held = match accepted.get(&resource_id) {
                Some(record) => Ok(Some(record.clone())),
                None => self.records.load(&resource_id, deadline),
            };
            let held = match held {
                Err(error) if error.is_unreadable() && replace => None,
                Err(error) if error.is_unreadable() => {
                    report.skip(entry.index, Some(&resource_id), error.message());
                    continue;
                }
                Err(error) => return Err(error.with_resource(&resource_id)),
                Ok(held) => held,
            };
            if (held.is_some() || self.is_contested(&resource_id, &entry, deleted, deadline)?)
                && let Some(refusal) =
                    self.refusal(&resource_id, held.as_ref(), &entry, replace, deadline)?
            {
                report.skip(entry.index, Some(&resource_id), &refusal);
                continue;
            }
            report.imported += 1;
            let replaces = held.is_some();
            list.push(json!({
                "index": entry.index, "resourceId": resource_id, "replaces": replaces
            }));
            let token = Arc::new(entry.token);
            let record = match held {
                Some(held) => Record { token, standing: Standing::Good, ..held },
                None => Record::new(resource_id.clone(), Token::clone(&token)),
            };
            accepted.insert(resource_id, record);
        }
        let mut document = report.into_json();
        document["accepted"] = list.into();
        Ok(document)
    }

    /// Whether an entry without a stored record must be checked like one that has a record.
    fn is_contested(
        &self,
        resource_id: &str,
        entry: &Entry,
        deleted: Option<&HashSet<String>>,
        deadline: &Deadline,
    ) -> Result<bool> {
        let was_deleted = |id: &str| match deleted {
            Some(deleted) => deleted.contains(id),
            None => self.records.last_deleted(id, deadline).is_ok_and(|version| version > 0),
        };
        Ok(was_deleted(resource_id)
            || entry.token.company_id.as_deref().is_some_and(was_deleted)
            // The store does not know the unsaved copy.
            || self.records.is_unsaved(resource_id)
            || self.records.other_owner_of(resource_id, &entry.token, deadline)?.is_some())
    }

    /// Saves a batch as new records in one step; imports that conflict with an existing record are
    /// then checked individually.
    fn import_batch(
        &self,
        batch: Vec<Entry>,
        deleted: Option<&HashSet<String>>,
        replace: bool,
        report: &mut Report,
        deadline: &Deadline,
    ) -> Result<()> {
        let (mut entries, mut records) = (Vec::new(), Vec::new());
        let mut held = Vec::new();
        let as_of = self.records.count();
        for entry in batch {
            let resource_id = entry.token.resource_id().unwrap_or_default().to_owned();
            if self.is_contested(&resource_id, &entry, deleted, deadline)? {
                held.push(entry);
                continue;
            }
            let own_consent = entry.own_consent;
            let new = Record::new(resource_id, entry.token.clone());
            let mut record = Record { as_of, own_consent, ..new };
            record.renew_at = self.schedule.renewal(&record);
            entries.push(entry);
            records.push(record);
        }
        let outcomes = self.records.store().save_all(&records, deadline);
        let mut failed = None;
        for ((entry, mut record), outcome) in entries.into_iter().zip(records).zip(outcomes) {
            let outcome = outcome.and_then(|version| {
                record.version = version;
                self.records.confirm_first(&mut record, &Origin::Consent(None), deadline)
            });
            match outcome {
                Ok(Saved::Deleted) => {
                    report.skip(entry.index, Some(&record.resource_id), "it was deleted meanwhile");
                }
                Ok(_) => {
                    self.published.publish_if_cached(&record);
                    self.imported(&record, report);
                    // A grant that could not be saved earlier competes with the import as usual.
                    let _ = self.writer.retry_save(&record.resource_id, deadline);
                }
                Err(error) if error.status() == Status::Conflict => {
                    // No tombstone existed before the save: a deletion since then overrides the
                    // import.
                    match self.records.last_deleted(&record.resource_id, deadline) {
                        Ok(0) => held.push(entry),
                        Ok(_) => report.skip(
                            entry.index,
                            Some(&record.resource_id),
                            "it was deleted meanwhile",
                        ),
                        Err(error) => {
                            failed = failed.or(Some(error.with_resource(&record.resource_id)))
                        }
                    }
                }
                Err(error) => failed = failed.or(Some(error.with_resource(&record.resource_id))),
            }
        }
        for entry in held {
            self.import_one(entry, replace, report, deadline)?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Imports a token for a resource that has, or had, a record. An unreadable record fails this
    /// entry only.
    fn import_one(
        &self,
        entry: Entry,
        replace: bool,
        report: &mut Report,
        deadline: &Deadline,
    ) -> Result<()> {
        let index = entry.index;
        let resource_id = entry.token.resource_id().unwrap_or_default().to_owned();
        let _deferred = deferred_callbacks::defer();
        match self.replace_held(&resource_id, entry, replace, deadline) {
            Ok(Ok(record)) => {
                self.imported(&record, report);
                if record.token.kind() == UserType::Company {
                    self.remove_shared_refresh_token(&record.token, deadline)?;
                }
            }
            Ok(Err(refusal)) => report.skip(index, Some(&resource_id), &refusal),
            Err(error) if matches!(error.status(), Status::Cancelled | Status::Timeout) => {
                return Err(error.with_resource(&resource_id));
            }
            Err(error) => report.skip(index, Some(&resource_id), error.message()),
        }
        Ok(())
    }

    /// Replaces the stored token, or returns why not.
    fn replace_held(
        &self,
        resource_id: &str,
        entry: Entry,
        replace: bool,
        deadline: &Deadline,
    ) -> Result<Result<Record, String>> {
        let refused = |why: &str| Ok(Err(why.to_owned()));
        let _lock = self.records.lock(resource_id, deadline)?;
        let held = match self.records.load(resource_id, deadline) {
            // With `replace`, an unreadable record is overwritten.
            Err(error) if error.is_unreadable() && replace => None,
            held => held?,
        };
        // An unsaved consent that could not read the stored record hides it.
        let hidden = match &held {
            Some(copy) if copy.version == 0 => {
                match self.records.load_stored(resource_id, deadline) {
                    Err(error) if error.is_unreadable() => None,
                    stored => stored?,
                }
            }
            _ => None,
        };
        let refusal_by = |known| self.refusal(resource_id, known, &entry, replace, deadline);
        let mut refusal = refusal_by(held.as_ref())?;
        if refusal.is_none() && hidden.is_some() {
            refusal = refusal_by(hidden.as_ref())?;
        }
        if let Some(refusal) = refusal {
            return Ok(Err(refusal));
        }
        let Entry { token, own_consent, .. } = entry;
        let mut record = match &held {
            Some(held) => Record {
                token: Arc::new(token.labelled(resource_id)),
                standing: Standing::Good,
                intent: None,
                last_failure: None,
                ..held.clone()
            },
            None => self.records.new_record(resource_id.to_owned(), token, deadline)?,
        };
        record.installed_at = None;
        record.own_consent |= own_consent;
        if let Some(hidden) = &hidden {
            record.version = hidden.version;
            record.spent = hidden.spent.merged(&record.spent);
        } else if record.version == 0 {
            // Take the version of an unreadable record, to overwrite it.
            record.version = self.records.store().version(resource_id, deadline)?.unwrap_or(0);
        }
        record.renew_at = self.schedule.renewal(&record);
        // An import can be repeated, so a failed save leaves no unsaved copy.
        let origin = Origin::Consent(held.as_ref().map(Replaced::from));
        match self.records.save(&mut record, &origin, deadline)? {
            Saved::Ours => {}
            Saved::Theirs => return refused("another process saved a token meanwhile"),
            Saved::Deleted => return refused("it was deleted meanwhile"),
        }
        self.records.forget_older(&record, &origin);
        self.cooldowns.clear(resource_id);
        self.published.publish_if_cached(&record);
        Ok(Ok(record))
    }

    /// Why an entry cannot become the token of a resource that has, or had, a record.
    fn refusal(
        &self,
        resource_id: &str,
        held: Option<&Record>,
        entry: &Entry,
        replace: bool,
        deadline: &Deadline,
    ) -> Result<Option<String>> {
        let refused = |why: &str| Ok(Some(why.to_owned()));
        let token = &entry.token;
        if let Some(held) = held
            && same_token(&held.token, token)
            && held.token.access_token.matches(token.access_token.expose())
            && !replace
        {
            return refused("this token is held already");
        }
        if let Some(refresh_token) = &token.refresh_token
            && (self.records.has_spent(resource_id, refresh_token, held, deadline)?
                || self.records.company_has_spent(resource_id, token, refresh_token, deadline)?)
        {
            return refused("its refresh token was already spent by a refresh through this store");
        }
        if !replace && self.records.was_held_at_uninstall(resource_id, token, deadline)? {
            return refused(
                "it was held when its app was uninstalled; \"replace\": true imports it anyway",
            );
        }
        if token.kind() == UserType::Location
            && let Some(other) = self.records.other_owner_of(resource_id, token, deadline)?
        {
            return Ok(Some(format!(
                "its refresh token is stored for {other}; two owners cannot share one"
            )));
        }
        if let Some(held) = held.filter(|_| !replace) {
            let lost = matches!(held.standing, Standing::ReauthorizationRequired { .. });
            if !entry.is_dated && !lost {
                return refused(
                    "a token is stored, and this one has no expiry (expiresAt), so it may be \
                     older; \"replace\": true imports this one anyway",
                );
            }
            if held.token.expires_at > token.expires_at && !lost {
                return refused(
                    "a newer token is stored; \"replace\": true imports this one anyway",
                );
            }
            if held.token.refresh_token.is_some() && token.refresh_token.is_none() && !lost {
                return refused(
                    "a token with a refresh token is stored, and this one has none; \"replace\": \
                     true imports this one anyway",
                );
            }
        }
        Ok(None)
    }

    /// Removes a company's refresh token from locations that hold it as their own. From then on
    /// they are minted.
    fn remove_shared_refresh_token(&self, token: &Token, deadline: &Deadline) -> Result<()> {
        let company_id = token.resource_id().unwrap_or_default();
        let (mut last, mut tries) = (None, 0);
        while let Some(location_id) = self.records.other_owner_of(company_id, token, deadline)? {
            deadline.check()?;
            // Give up if the same location is found repeatedly: the list is stale, or another
            // writer keeps changing the record.
            tries = if last.as_ref() == Some(&location_id) { tries + 1 } else { 0 };
            if tries == 3 {
                log::warn!(
                    "its record still holds the company's refresh token{}",
                    about(&location_id)
                );
                return Ok(());
            }
            let _lock = self.records.lock(&location_id, deadline)?;
            let record = self.records.load(&location_id, deadline)?;
            let record = record.filter(|record| same_token(&record.token, token));
            if let Some(mut record) = record {
                log::warn!(
                    "its refresh token belongs to the company and was removed; tokens are minted \
                     from now on{}",
                    about(&location_id)
                );
                Arc::make_mut(&mut record.token).refresh_token = None;
                record.renew_at = self.schedule.renewal(&record);
                match self.records.note_standing(&mut record, deadline) {
                    Ok(()) => self.records.forget_older(&record, &Origin::Consent(None)),
                    Err(error) if error.status() == Status::Conflict => {}
                    Err(error) => return Err(error),
                }
            }
            last = Some(location_id);
        }
        Ok(())
    }

    fn imported(&self, record: &Record, report: &mut Report) {
        let resource_id = &record.resource_id;
        self.cooldowns.clear(resource_id);
        self.reports.emit(&Event::Saved, resource_id, Some(record.token.expires_at));
        report.imported += 1;
        if record.token.kind() == UserType::Company {
            report.companies.push(resource_id.clone());
        }
    }

    fn page(&self, params: &ListParams, deadline: &Deadline) -> Result<Page> {
        let limit = params.page_size.unwrap_or(100);
        let limit = usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=1000).contains(limit))
            .ok_or_else(|| {
                Error::invalid_argument(
                    "pageSize",
                    format!("pageSize is {limit}, not from 1 to 1000"),
                )
            })?;
        for (parameter, id) in
            [("companyId", &params.company_id), ("pageToken", &params.page_token)]
        {
            if let Some(id) = id {
                valid_id(parameter, id)?;
            }
        }
        // Save unsaved copies first, so that the page contains them.
        let retry_deadline = deadline.renewed(SAVE_RETRY_TIME.min(deadline.remaining()));
        for resource_id in self.records.unsaved_ids() {
            // Failures are logged, and the token is listed as `unsaved`. Stop at the first one: the
            // store may be down.
            match retry_deadline
                .check()
                .and_then(|()| self.writer.retry_save(&resource_id, &retry_deadline))
            {
                Ok(()) => {}
                Err(error) if error.status() == Status::Cancelled => return Err(error),
                Err(_) => break,
            }
        }
        let mut query = Query {
            company_id: params.company_id.clone(),
            user_type: params.user_type,
            after: params.page_token.clone(),
            limit,
        };
        if params.state.is_none() && !params.failing && params.expires_before.is_none() {
            return self.records.list(&query, deadline);
        }
        query.limit = limit.max(FILTER_PAGE);
        // The store cannot see these fields of a sealed record: read on until the page is full.
        let mut page = Page::cut(Vec::new(), limit);
        loop {
            let Page { records, unreadable, next } = self.records.list(&query, deadline)?;
            for record in records.into_iter().filter(|record| self.is_listed(record, params)) {
                if page.records.len() == limit {
                    // The next page begins after the last item of this one.
                    page.next = page.records.last().map(|last| last.resource_id.clone());
                    let is_on_page = |row: &Unreadable| {
                        page.next.as_ref().is_some_and(|n| row.resource_id <= *n)
                    };
                    page.unreadable.extend(unreadable.into_iter().filter(is_on_page));
                    return Ok(page);
                }
                page.records.push(record);
            }
            page.unreadable.extend(unreadable);
            query.after = next;
            if query.after.is_none() {
                return Ok(page);
            }
        }
    }

    /// Whether a record passes the filters that only the whole record answers.
    fn is_listed(&self, record: &Record, params: &ListParams) -> bool {
        params.state.is_none_or(|state| state.name() == self.records.state(record))
            && (!params.failing || self.records.last_failure(record).is_some())
            && params.expires_before.is_none_or(|time| record.token.expires_at < time)
    }
}

/// The result of an import.
#[derive(Default)]
struct Report {
    imported: u64,
    skipped: Vec<Value>,
    companies: Vec<String>,
}

impl Report {
    fn into_json(mut self) -> Value {
        self.skipped.sort_by_key(|skipped| skipped["index"].as_u64());
        json!({"imported": self.imported, "skipped": self.skipped})
    }

    fn skip(&mut self, index: usize, resource_id: Option<&str>, reason: &str) {
        self.skipped.push(json!({"index": index, "resourceId": resource_id, "reason": reason}));
    }
}

/// An imported token.
struct Entry {
    index: usize,
    token: Token,
    /// Whether the entry names its expiry; otherwise its age is unknown.
    is_dated: bool,
    /// Whether the location consented separately, according to the export that the entry is from.
    own_consent: bool,
}

/// A token with its secrets, as [`Transfer::import`] reads it.
fn exported(record: &Record) -> Value {
    let mut token = record.token.to_json();
    if record.own_consent {
        token.insert(OWN_CONSENT.into(), true.into());
    }
    token.into()
}

/// Adds the unreadable records to a page as `failed`, if there are any.
fn with_failed(mut page: Value, unreadable: &[Unreadable]) -> Value {
    if !unreadable.is_empty() {
        let failed =
            unreadable.iter().map(|row| failure("resourceId", &row.resource_id, &row.error));
        page["failed"] = failed.collect();
    }
    page
}

/// Parses an import. Skips entries that are not tokens, and entries whose refresh token another
/// owner has as well. A company takes precedence over its locations, since a refresh returns the
/// company's token.
fn read_all(tokens: Vec<Map<String, Value>>, now_ms: i64, report: &mut Report) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (index, entry) in tokens.into_iter().enumerate() {
        match read(entry, now_ms) {
            Ok(entry) => entries.push(Entry { index, ..entry }),
            Err(refusal) => report.skip(index, None, &refusal),
        }
    }
    let mut owners: HashMap<SpentDigest, String> = HashMap::new();
    let owner = |entry: &Entry| entry.token.resource_id().unwrap_or_default().to_owned();
    let digest = |entry: &Entry| entry.token.refresh_token.as_ref().map(SpentDigest::of);
    for of_companies in [true, false] {
        for entry in
            entries.iter().filter(|entry| (entry.token.kind() == UserType::Company) == of_companies)
        {
            if let Some(digest) = digest(entry) {
                owners.entry(digest).or_insert_with(|| owner(entry));
            }
        }
    }
    entries.retain(|entry| {
        let first = digest(entry).and_then(|digest| owners.get(&digest));
        let other = first.filter(|first| **first != owner(entry));
        if let Some(other) = other {
            let reason = format!(
                "another entry has the same refresh token for {other}; two owners cannot share one"
            );
            report.skip(entry.index, Some(&owner(entry)), &reason);
        }
        other.is_none()
    });
    entries
}

/// Parses one entry. Errors name the field.
fn read(entry: Map<String, Value>, now_ms: i64) -> Result<Entry, String> {
    let mut fields = in_camel_case(entry);
    let refresh_token = take_string(&mut fields, "refreshToken").map(Secret::new);
    let access_token = take_string(&mut fields, "accessToken");
    if access_token.is_none() && refresh_token.is_none() {
        return Err("accessToken is missing".into());
    }
    if access_token.as_deref().is_some_and(|text| !is_token_text(text)) {
        return Err(format!("accessToken {NO_TOKEN_TEXT}"));
    }
    let mut number = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => {
            fields.remove(name);
            Ok(None)
        }
        Some(_) => take_integer(&mut fields, name)
            .map(Some)
            .ok_or_else(|| format!("{name} is not a number")),
    };
    // The vendor's SDKs use `expire_at`. The first field that is present decides; later ones are
    // ignored.
    let expires_at = match number("expiresAt")? {
        None => number("expireAt")?,
        known => known,
    };
    if expires_at.is_some_and(|expires_at| expires_at > NEVER) {
        return Err("expiresAt is after the year 9999".into());
    }
    let expires_in = if expires_at.is_none() { number("expiresIn")? } else { None };
    for name in ["expireAt", "expiresIn"] {
        fields.remove(name);
    }
    let is_dated = expires_at.is_some() && access_token.is_some();
    let (issued_at, expires_at) = match (expires_at, expires_in) {
        // No access token: due at once.
        _ if access_token.is_none() => (None, 0),
        (Some(expires_at), _) => (None, expires_at),
        (None, Some(seconds)) => (Some(now_ms), expiry(now_ms, Some(seconds))),
        // Unknown age: a token with a refresh token is due at first use. Without one it is a
        // private integration token, which never expires.
        (None, None) if refresh_token.is_some() => (None, now_ms),
        (None, None) => (None, NEVER),
    };
    let user_type = match take_string(&mut fields, "userType") {
        None => None,
        Some(name) => {
            Some(UserType::from_name(&name).ok_or("userType is neither Company nor Location")?)
        }
    };
    let own_consent = fields.remove(OWN_CONSENT).is_some_and(|value| value == true);
    let token = Token {
        access_token: Secret::new(access_token.unwrap_or_default()),
        refresh_token,
        issued_at,
        expires_at,
        user_type,
        company_id: take_string(&mut fields, "companyId"),
        location_id: take_string(&mut fields, "locationId"),
        scope: take_string(&mut fields, "scope"),
        fields,
    };
    let owner = match token.kind() {
        UserType::Company => "companyId",
        UserType::Location => "locationId",
    };
    let resource_id = token.resource_id().ok_or_else(|| format!("{owner} is missing"))?;
    valid_id(owner, resource_id).map_err(|error| error.message().to_owned())?;
    let own_consent = own_consent && token.kind() == UserType::Location;
    Ok(Entry { index: 0, token, is_dated, own_consent })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_json(entry: Value) -> Result<Token, String> {
        let Value::Object(entry) = entry else { panic!("an object") };
        read(entry, 1_000_000).map(|entry| entry.token)
    }

    #[test]
    fn sessions_of_the_vendor_sdk_are_imported() {
        let token = read_json(json!({
            "access_token": "old", "accessToken": "new", "refresh_token": "r",
            "expire_at": "1700000000000",
            "userType": "Company", "companyId": "c", "scope": "a b", "resourceId": "c"
        }))
        .unwrap();
        assert_eq!(token.access_token.expose(), "new");
        assert_eq!(token.expires_at, 1_700_000_000_000);
        assert_eq!(token.resource_id(), Some("c"));
        assert_eq!(token.fields.get("resourceId"), Some(&json!("c")));
    }

    #[test]
    fn token_of_unknown_age_is_due_at_once() {
        let token =
            read_json(json!({"accessToken": "a", "refreshToken": "r", "locationId": "l"})).unwrap();
        assert!(!token.is_alive(1_000_000));
        let only = read_json(
            json!({"refreshToken": "r", "companyId": "c", "expiresAt": 1_700_000_000_000_i64}),
        )
        .unwrap();
        assert!(!only.is_alive(1_000_000));
        let bare = read_json(json!({"accessToken": "a", "locationId": "l"})).unwrap();
        assert!(bare.is_alive(1_000_000));
    }

    #[test]
    fn only_the_effective_expiry_must_be_a_number() {
        let token = read_json(json!({
            "accessToken": "a", "companyId": "c", "expiresAt": 1_700_000_000_000_i64,
            "expireAt": "then",
            "expiresIn": "a day"
        }))
        .unwrap();
        assert_eq!(token.expires_at, 1_700_000_000_000);
        assert_eq!(token.fields, Map::new());
    }

    #[test]
    fn parse_error_names_the_field() {
        for (entry, field) in [
            (json!({"companyId": "c"}), "accessToken"),
            (json!({"accessToken": "a"}), "companyId"),
            (json!({"accessToken": "a\r\nX: y", "companyId": "c"}), "accessToken"),
            (json!({"accessToken": "a", "companyId": "c", "userType": "Location"}), "locationId"),
            (json!({"accessToken": "a", "companyId": "c", "expiresAt": "soon"}), "expiresAt"),
            (json!({"accessToken": "a", "companyId": "c", "expiresIn": "a day"}), "expiresIn"),
            (json!({"accessToken": "a", "companyId": "c", "expiresAt": 1e300}), "expiresAt"),
            (json!({"accessToken": "a", "companyId": "c", "expireAt": i64::MAX}), "expiresAt"),
            (json!({"accessToken": "a", "companyId": "c", "userType": "Robot"}), "userType"),
            (json!({"accessToken": "a", "companyId": "c\n"}), "companyId"),
        ] {
            let refusal = read_json(entry.clone()).unwrap_err();
            assert!(refusal.starts_with(field), "{entry}: {refusal}");
        }
    }
}
