//! The company of a location, which must be known before its token can be minted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use super::{Tokens, not_found};
use crate::api::location_ids;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::store::{Query, Record};
use crate::token::UserType;

/// The companies of locations that were seen in lists.
#[derive(Default)]
pub struct Companies(Mutex<HashMap<String, String>>);

impl Companies {
    /// Remembers the locations of a company's list.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tokens {
    /// The company whose token can mint for a location. An INSTALL that is newer than the installation held names it;
    /// otherwise the record does, or a list, or the only company that is held.
    ///
    /// # Errors
    /// `NOT_FOUND` if no company is held, or if several are; `STORE`, `TIMEOUT`, `CANCELLED`.
    pub(super) fn company_of(
        &self,
        location_id: &str,
        record: Option<&Record>,
        deadline: &Deadline,
    ) -> Result<String> {
        let installed = self.last_installation_state(location_id, deadline)?.filter(|state| state.installed);
        let moved_to =
            installed.as_ref().filter(|state| record.is_none_or(|record| state.begins_after(record)));
        if let Some(company_id) = moved_to.and_then(|state| state.company_id.clone()) {
            return Ok(company_id);
        }
        let recorded = record.and_then(|record| record.token.company_id.clone());
        if let Some(company_id) = recorded.or_else(|| self.companies.of(location_id)) {
            return Ok(company_id);
        }
        let query = Query { user_type: Some(UserType::Company), limit: 2, ..Query::default() };
        let mut companies = self.records.list(&query, deadline)?.records;
        match (companies.pop(), companies.is_empty()) {
            (Some(only), true) => Ok(only.resource_id),
            (None, _) => Err(not_found(location_id)),
            (Some(_), false) => {
                let message =
                    format!("no token is held for {location_id}, and several companies could mint one");
                Err(Error::new(Status::NotFound, message)
                    .with_help("list the company's installed locations first, or import the token with its companyId")
                    .with_resource(location_id))
            }
        }
    }
}
