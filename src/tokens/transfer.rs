//! Tokens in and out: lists without secrets, export with them, and import of what other clients stored.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::Tokens;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::json::{in_camel_case, take_integer, take_text};
use crate::outbox;
use crate::secret::Secret;
use crate::store::{Page, Query, Record, Standing};
use crate::token::{NO_TOKEN_TEXT, Token, UserType, expiry, is_token_text, valid_id};

/// How many imported tokens are saved at once.
const BATCH: usize = 100;

/// How long a list is held up by tokens that the store did not take.
const OFFERING: Duration = Duration::from_secs(3);

/// Which tokens are listed or exported.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListParams {
    /// Only this company and its locations.
    pub company_id: Option<String>,
    /// Only companies, or only locations.
    pub user_type: Option<UserType>,
    /// Items per page, 1 to 1,000. Default: 100.
    pub page_size: Option<i64>,
    /// Where to go on: the last page's `nextPageToken`.
    pub page_token: Option<String>,
}

/// The tokens to import.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImportParams {
    /// One object per token, in either casing.
    pub tokens: Vec<Map<String, Value>>,
    /// Whether an older token may replace a newer one. Default: false.
    #[serde(default)]
    pub replace: bool,
    /// Accepted and left alone, so that a page of an export can be imported as it came.
    #[serde(default)]
    pub next_page_token: Option<IgnoredAny>,
}

impl Tokens {
    /// A page of metadata; never a secret.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a page size out of range; `STORE`; `CANCELLED`.
    pub fn list(&self, params: &ListParams, deadline: &Deadline) -> Result<Value> {
        let page = self.page(params, deadline)?;
        let items: Vec<Value> = page.records.iter().map(|record| self.describe(record)).collect();
        Ok(json!({"items": items, "nextPageToken": page.next}))
    }

    /// A page of whole tokens, secrets included, as [`Tokens::import`] reads them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a page size out of range; `STORE`; `CANCELLED`.
    pub fn export(&self, params: &ListParams, deadline: &Deadline) -> Result<Value> {
        let page = self.page(params, deadline)?;
        let tokens: Vec<Value> =
            page.records.into_iter().map(|record| record.token.to_json().into()).collect();
        Ok(json!({"tokens": tokens, "nextPageToken": page.next}))
    }

    /// Takes over tokens that were granted elsewhere, such as the sessions that the vendor's SDKs store.
    ///
    /// What cannot be imported is skipped and named with the reason; the rest is imported. Imported tokens are not held in
    /// memory until somebody asks for them.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`: then some of the tokens are imported, and the same import again brings the rest.
    pub fn import(&self, params: ImportParams, deadline: &Deadline) -> Result<Value> {
        let mut report = Report::default();
        let mut entries = params.tokens.into_iter().enumerate();
        loop {
            let batch: Vec<_> = entries.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            deadline.check()?;
            self.import_batch(batch, params.replace, &mut report, deadline)?;
        }
        // A move of many companies is not held up: there, maintenance mints for the locations that waited.
        if let [company_id] = &report.companies[..] {
            self.mint_the_waiting(company_id, deadline);
        }
        report.skipped.sort_by_key(|skipped| skipped["index"].as_u64());
        Ok(json!({"imported": report.imported, "skipped": report.skipped}))
    }

    /// Saves a batch all at once as if none of it was held: the store refuses what is, and that is looked at one by one.
    fn import_batch(
        &self,
        batch: Vec<(usize, Map<String, Value>)>,
        replace: bool,
        report: &mut Report,
        deadline: &Deadline,
    ) -> Result<()> {
        let (mut indexes, mut records) = (Vec::new(), Vec::new());
        for (index, entry) in batch {
            let token = match read(entry, self.clock.wall_ms()) {
                Ok(token) => token,
                Err(refusal) => {
                    report.skip(index, None, &refusal);
                    continue;
                }
            };
            let mut record = Record::new(token.resource_id().unwrap_or_default().to_owned(), token);
            record.renew_at = self.renewal(&record);
            // The store does not know of a token that it did not take yet.
            if self.unsaved().contains_key(&record.resource_id) {
                self.take_over(index, record, replace, report, deadline)?;
            } else {
                indexes.push(index);
                records.push(record);
            }
        }
        let outcomes = self.store.save_all(&records);
        let (mut held, mut failed) = (Vec::new(), None);
        for ((index, record), outcome) in indexes.into_iter().zip(records).zip(outcomes) {
            match outcome {
                Ok(_) => {
                    self.publish_where_held(&record);
                    self.imported(&record, report);
                    // Granted here while the store was busy, and not taken then: which one stays is decided as ever.
                    let _ = self.offer_again(&record.resource_id, deadline);
                }
                Err(error) if error.status() == Status::Conflict => held.push((index, record)),
                Err(error) => failed = failed.or(Some(error.with_resource(&record.resource_id))),
            }
        }
        for (index, record) in held {
            self.take_over(index, record, replace, report, deadline)?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Takes over a token of a resource that has one, unless that one is newer. What cannot be read of the one that is held
    /// concerns this resource only.
    fn take_over(
        &self,
        index: usize,
        mut record: Record,
        replace: bool,
        report: &mut Report,
        deadline: &Deadline,
    ) -> Result<()> {
        let resource_id = record.resource_id.clone();
        let _quiet = outbox::hold();
        match self.replace_held(&mut record, replace, deadline) {
            Ok(None) => self.imported(&record, report),
            Ok(Some(refusal)) => report.skip(index, Some(&resource_id), refusal),
            Err(error) if matches!(error.status(), Status::Cancelled | Status::Timeout) => {
                return Err(error.with_resource(&resource_id));
            }
            Err(error) => report.skip(index, Some(&resource_id), error.message()),
        }
        Ok(())
    }

    /// Puts a token in the place of the one that is held, or says why not.
    fn replace_held(
        &self,
        record: &mut Record,
        replace: bool,
        deadline: &Deadline,
    ) -> Result<Option<&'static str>> {
        let resource_id = &record.resource_id.clone();
        let _lock = self.store.lock(resource_id, deadline)?;
        let held = self.record(resource_id)?;
        record.version = self.store.load(resource_id)?.map_or(0, |stored| stored.version);
        if let Some(held) = held.filter(|_| !replace) {
            let lost = matches!(held.standing, Standing::ReauthorizationRequired { .. });
            if held.token.access_token.matches(record.token.access_token.expose()) {
                return Ok(Some("this very token is held already"));
            }
            if held.token.expires_at > record.token.expires_at && !lost {
                return Ok(Some("a newer token is held; \"replace\": true takes this one all the same"));
            }
        }
        // Unlike a fresh grant, an import can be given again: it is not kept when the store does not take it.
        self.save_newest(record)?;
        self.unsaved().remove(resource_id);
        self.publish_where_held(record);
        Ok(None)
    }

    /// What a stored import means for this process, and for the report.
    fn imported(&self, record: &Record, report: &mut Report) {
        let resource_id = &record.resource_id;
        self.emit(&Event::Saved, resource_id, Some(record.token.expires_at));
        report.imported += 1;
        if record.token.kind() == UserType::Company {
            report.companies.push(resource_id.clone());
        }
    }

    fn page(&self, params: &ListParams, deadline: &Deadline) -> Result<Page> {
        let limit = params.page_size.unwrap_or(100);
        let limit =
            usize::try_from(limit).ok().filter(|limit| (1..=1000).contains(limit)).ok_or_else(|| {
                Error::invalid_argument("pageSize", format!("pageSize is {limit}, not from 1 to 1000"))
            })?;
        for (parameter, id) in [("companyId", &params.company_id), ("pageToken", &params.page_token)] {
            if let Some(id) = id {
                valid_id(parameter, id)?;
            }
        }
        // Whatever the store did not take is offered again first, so that the list shows it.
        let offering = deadline.renewed(OFFERING.min(deadline.remaining()));
        for resource_id in self.unsaved_ids() {
            // What fails stays in the list as `unsaved`, and was logged. A store that is down is not asked for each.
            match offering.check().and_then(|()| self.offer_again(&resource_id, &offering)) {
                Ok(()) => {}
                Err(error) if error.status() == Status::Cancelled => return Err(error),
                Err(_) => break,
            }
        }
        self.records(&Query {
            company_id: params.company_id.clone(),
            user_type: params.user_type,
            after: params.page_token.clone(),
            limit,
        })
    }
}

/// What became of an import.
#[derive(Default)]
struct Report {
    imported: u64,
    skipped: Vec<Value>,
    /// The companies among the imported.
    companies: Vec<String>,
}

impl Report {
    fn skip(&mut self, index: usize, resource_id: Option<&str>, reason: &str) {
        self.skipped.push(json!({"index": index, "resourceId": resource_id, "reason": reason}));
    }
}

/// Reads an imported token; the refusal names the field.
fn read(entry: Map<String, Value>, now_ms: i64) -> Result<Token, String> {
    let mut fields = in_camel_case(entry);
    let refresh_token = take_text(&mut fields, "refreshToken").map(Secret::new);
    let access_token = take_text(&mut fields, "accessToken");
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
        Some(_) => take_integer(&mut fields, name).map(Some).ok_or_else(|| format!("{name} is not a number")),
    };
    // The vendor's SDKs call it `expire_at`. The first that is there decides; what the others say does not matter.
    let expires_at = match number("expiresAt")? {
        None => number("expireAt")?,
        known => known,
    };
    let expires_in = if expires_at.is_none() { number("expiresIn")? } else { None };
    for name in ["expireAt", "expiresIn"] {
        fields.remove(name);
    }
    let (issued_at, expires_at) = match (expires_at, expires_in) {
        // Nothing to hand out: due at once.
        _ if access_token.is_none() => (None, 0),
        (Some(expires_at), _) => (None, expires_at),
        (None, Some(seconds)) => (Some(now_ms), expiry(now_ms, Some(seconds))),
        // Of unknown age: with a refresh token it is renewed at its first use, without one it is tried.
        (None, None) if refresh_token.is_some() => (None, now_ms),
        (None, None) => (Some(now_ms), expiry(now_ms, None)),
    };
    let user_type = match take_text(&mut fields, "userType") {
        None => None,
        Some(name) => Some(UserType::from_name(&name).ok_or("userType is neither Company nor Location")?),
    };
    let token = Token {
        access_token: Secret::new(access_token.unwrap_or_default()),
        refresh_token,
        issued_at,
        expires_at,
        user_type,
        company_id: take_text(&mut fields, "companyId"),
        location_id: take_text(&mut fields, "locationId"),
        scope: take_text(&mut fields, "scope"),
        fields,
    };
    let owner = match token.kind() {
        UserType::Company => "companyId",
        UserType::Location => "locationId",
    };
    let resource_id = token.resource_id().ok_or_else(|| format!("{owner} is missing"))?;
    valid_id(owner, resource_id).map_err(|error| error.message().to_owned())?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_json(entry: Value) -> Result<Token, String> {
        let Value::Object(entry) = entry else { panic!("an object") };
        read(entry, 1_000_000)
    }

    #[test]
    fn the_vendors_sessions_come_over() {
        let token = read_json(json!({
            "access_token": "old", "accessToken": "new", "refresh_token": "r", "expire_at": "1700000000000",
            "userType": "Company", "companyId": "c", "scope": "a b", "resourceId": "c"
        }))
        .unwrap();
        assert_eq!(token.access_token.expose(), "new");
        assert_eq!(token.expires_at, 1_700_000_000_000);
        assert_eq!(token.resource_id(), Some("c"));
        assert_eq!(token.fields.get("resourceId"), Some(&json!("c")));
    }

    #[test]
    fn an_unknown_age_means_due_at_once() {
        let token = read_json(json!({"accessToken": "a", "refreshToken": "r", "locationId": "l"})).unwrap();
        assert!(!token.is_alive(1_000_000));
        let only =
            read_json(json!({"refreshToken": "r", "companyId": "c", "expiresAt": 1_700_000_000_000_i64}))
                .unwrap();
        assert!(!only.is_alive(1_000_000));
        let bare = read_json(json!({"accessToken": "a", "locationId": "l"})).unwrap();
        assert!(bare.is_alive(1_000_000));
    }

    #[test]
    fn only_the_expiry_that_decides_must_be_a_number() {
        let token = read_json(json!({
            "accessToken": "a", "companyId": "c", "expiresAt": 1_700_000_000_000_i64, "expireAt": "then",
            "expiresIn": "a day"
        }))
        .unwrap();
        assert_eq!(token.expires_at, 1_700_000_000_000);
        assert_eq!(token.fields, Map::new());
    }

    #[test]
    fn refusals_name_the_field() {
        for (entry, field) in [
            (json!({"companyId": "c"}), "accessToken"),
            (json!({"accessToken": "a"}), "companyId"),
            (json!({"accessToken": "a\r\nX: y", "companyId": "c"}), "accessToken"),
            (json!({"accessToken": "a", "companyId": "c", "userType": "Location"}), "locationId"),
            (json!({"accessToken": "a", "companyId": "c", "expiresAt": "soon"}), "expiresAt"),
            (json!({"accessToken": "a", "companyId": "c", "expiresIn": "a day"}), "expiresIn"),
            (json!({"accessToken": "a", "companyId": "c", "userType": "Robot"}), "userType"),
            (json!({"accessToken": "a", "companyId": "c\n"}), "companyId"),
        ] {
            let refusal = read_json(entry.clone()).unwrap_err();
            assert!(refusal.starts_with(field), "{entry}: {refusal}");
        }
    }
}
