//! Finds the company of a location, whose token is needed to mint the location's token.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Tokens, not_found};
use crate::api::{InstalledLocationsParams, installed_location_ids, location_ids};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::store::{Query, Record};
use crate::token::UserType;

const PAGE: usize = 100;

/// Backoff for a location that no company lists: each search costs one request per company.
const MIN_PAUSE: Duration = Duration::from_secs(30);
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// Maximum number of remembered locations that no company lists.
const MAX_UNLISTED: usize = 10_000;

/// A cache of the companies of locations, filled from location lists.
#[derive(Default)]
pub struct Companies {
    seen: Mutex<HashMap<String, String>>,
    unlisted: Mutex<HashMap<String, Unlisted>>,
}

/// A location that no company listed.
#[derive(Clone, Copy)]
struct Unlisted {
    times: u32,
    next_search_at: Duration,
}

impl Companies {
    pub fn remember(&self, company_id: &str, page: &Map<String, Value>) {
        let mut companies = self.seen();
        for location_id in location_ids(page) {
            companies.insert(location_id.to_owned(), company_id.to_owned());
        }
    }

    fn of(&self, location_id: &str) -> Option<String> {
        self.seen().get(location_id).cloned()
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unlisted(&self) -> MutexGuard<'_, HashMap<String, Unlisted>> {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a search for the location is allowed now. Extends its backoff.
    fn may_search(&self, location_id: &str, uptime: Duration) -> bool {
        let mut unlisted = self.unlisted();
        let times = match unlisted.get(location_id) {
            Some(last) if last.next_search_at > uptime => return false,
            last => last.map_or(0, |last| last.times),
        };
        if unlisted.len() >= MAX_UNLISTED {
            unlisted.retain(|_, last| last.next_search_at > uptime);
            if unlisted.len() >= MAX_UNLISTED {
                return false;
            }
        }
        let pause = MIN_PAUSE.saturating_mul(1 << times.min(10)).min(MAX_PAUSE);
        unlisted.insert(
            location_id.to_owned(),
            Unlisted { times: times + 1, next_search_at: uptime + pause },
        );
        true
    }
}

impl Tokens {
    /// The company that can mint for a location: from a newer INSTALL, the record or memory, or the
    /// only company in the store. If there are several and an INSTALL is
    /// pending, searches their location lists.
    pub(super) fn company_of(
        &self,
        location_id: &str,
        record: Option<&Record>,
        deadline: &Deadline,
    ) -> Result<String> {
        let installed =
            self.installations.last(location_id, deadline)?.filter(|state| state.installed);
        let moved_to = installed
            .as_ref()
            .filter(|state| record.is_none_or(|record| state.begins_after(record)));
        if let Some(company_id) = moved_to.and_then(|state| state.company_id.clone()) {
            return Ok(company_id);
        }
        match &self.candidates(location_id, record, deadline)?[..] {
            [only] => Ok(only.clone()),
            [] => Err(not_found(location_id)),
            _ => {
                if installed.is_some()
                    && let Some(company_id) = self.search_companies(location_id, deadline)?
                {
                    return Ok(company_id);
                }
                let message = format!(
                    "no token is held for {location_id}, and several companies could mint one"
                );
                Err(Error::new(Status::NotFound, message)
                    .with_help(
                        "list the company's installed locations first, or import the token with \
                         its companyId",
                    )
                    .with_resource(location_id))
            }
        }
    }

    /// The company of a location, from the record or memory; otherwise up to two of the stored
    /// companies.
    pub(super) fn candidates(
        &self,
        location_id: &str,
        record: Option<&Record>,
        deadline: &Deadline,
    ) -> Result<Vec<String>> {
        let recorded = record.and_then(|record| record.token.company_id.clone());
        if let Some(company_id) = recorded.or_else(|| self.companies.of(location_id)) {
            return Ok(vec![company_id]);
        }
        let query = Query { user_type: Some(UserType::Company), limit: 2, ..Query::default() };
        let companies = self.records.list(&query, deadline)?.records;
        Ok(companies.into_iter().map(|company| company.resource_id).collect())
    }

    /// The company that can mint for a location, if its token is stored.
    pub(super) fn minting_company(
        &self,
        location_id: &str,
        record: Option<&Record>,
        deadline: &Deadline,
    ) -> Result<Option<String>> {
        let company_id = match self.company_of(location_id, record, deadline) {
            Err(error) if error.status() == Status::NotFound => return Ok(None),
            company_id => company_id?,
        };
        Ok(self.records.has_company(&company_id, deadline)?.then_some(company_id))
    }

    /// Searches the location lists of all stored companies, with backoff.
    fn search_companies(&self, location_id: &str, deadline: &Deadline) -> Result<Option<String>> {
        if !self.companies.may_search(location_id, self.clock.uptime()) {
            return Ok(None);
        }
        let mut query =
            Query { user_type: Some(UserType::Company), limit: PAGE, ..Query::default() };
        loop {
            let page = self.records.list(&query, deadline)?;
            for company in page.records {
                let params = InstalledLocationsParams {
                    company_id: Some(company.resource_id.clone()),
                    location_id: Some(location_id.to_owned()),
                    is_installed: Some(true),
                    ..InstalledLocationsParams::default()
                };
                match self.list_locations(&params, deadline) {
                    Ok(list) if installed_location_ids(&list).any(|id| id == location_id) => {
                        self.companies.unlisted().remove(location_id);
                        self.companies
                            .seen()
                            .insert(location_id.to_owned(), company.resource_id.clone());
                        return Ok(Some(company.resource_id));
                    }
                    Ok(_) => {}
                    Err(error) if matches!(error.status(), Status::Cancelled | Status::Timeout) => {
                        self.companies.unlisted().remove(location_id);
                        return Err(error);
                    }
                    // The other companies can still be searched.
                    Err(error) => {
                        log::debug!(
                            "a company's location list could not be read{}",
                            error.fields(location_id)
                        )
                    }
                }
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(None),
            }
        }
    }
}
