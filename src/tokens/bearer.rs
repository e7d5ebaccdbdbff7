//! Calls of the API with a stored token as bearer token. A token that the API rejects is renewed,
//! and the call is repeated once.

use std::cell::Cell;

use serde_json::{Map, Value};

use super::{LOCK_WAIT, Tokens, Want};
use crate::api::{Failure, InstalledLocationsParams, LocationTokenParams, says_invalid_token};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::secret::Secret;
use crate::token::{Token, valid_id};

impl Tokens {
    /// Mints a location token without saving it. Uses the company's stored token unless
    /// `params.access_token` is set.
    pub fn location_token(
        &self,
        params: &LocationTokenParams,
        deadline: &Deadline,
    ) -> Result<Token> {
        valid_id("companyId", &params.company_id)?;
        valid_id("locationId", &params.location_id)?;
        self.with_bearer(&params.company_id, params.access_token.as_ref(), deadline, |bearer| {
            self.api.location_token(
                &params.company_id,
                &params.location_id,
                bearer,
                self.clock.wall_ms(),
                deadline,
            )
        })
        .map_err(|error| error.with_resource(&params.location_id))
    }

    /// Lists a company's locations. Uses the company's stored token unless `params.access_token` is
    /// set.
    pub fn installed_locations(
        &self,
        params: &InstalledLocationsParams,
        deadline: &Deadline,
    ) -> Result<Map<String, Value>> {
        let page = self.list_locations(params, deadline)?;
        if let Some(company_id) = &params.company_id {
            self.companies.remember(company_id, &page);
        }
        Ok(page)
    }

    /// Like [`Tokens::installed_locations`], but does not remember the locations.
    pub(super) fn list_locations(
        &self,
        params: &InstalledLocationsParams,
        deadline: &Deadline,
    ) -> Result<Map<String, Value>> {
        let company_id = params.validate()?;
        valid_id("companyId", company_id)?;
        self.with_bearer(company_id, params.access_token.as_ref(), deadline, |bearer| {
            self.api.installed_locations(params, bearer, deadline)
        })
        .map_err(|error| error.with_resource(company_id))
    }

    /// Calls the API with a company's token; if the API rejects a stored token, refreshes it and
    /// repeats the call once.
    fn with_bearer<T>(
        &self,
        company_id: &str,
        given: Option<&Secret>,
        deadline: &Deadline,
        call: impl Fn(&Secret) -> Result<T, Failure>,
    ) -> Result<T> {
        match given {
            Some(bearer) => Ok(call(bearer)?),
            None => {
                // Whether the server may have processed an attempt before it rejected the token.
                let may_have_acted = Cell::new(false);
                let call = |bearer: &Secret| {
                    call(bearer).inspect_err(|failure| {
                        if failure.error.may_have_acted_before() {
                            may_have_acted.set(true);
                        }
                    })
                };
                self.with_company_bearer(company_id, deadline, deadline, call)
                    .map_err(Error::before_request)
                    .and_then(|outcome| Ok(outcome?))
                    .map_err(|error| error.after_attempts(may_have_acted.get()))
            }
        }
    }

    /// Calls the API with the company's stored token and returns its outcome. Waits for the store,
    /// locks and other callers no longer than `waits`.
    ///
    /// # Errors
    /// There is no valid token to make the call with.
    pub(super) fn with_company_bearer<T>(
        &self,
        company_id: &str,
        deadline: &Deadline,
        waits: &Deadline,
        call: impl Fn(&Secret) -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>> {
        // A company's token comes from a consent or an import; only location tokens can be minted.
        if !self.records.has_company(company_id, waits)? {
            return Err(Error::new(
                Status::NotFound,
                format!("no token is held for the company {company_id}"),
            )
            .with_help(
                "let an administrator of the company consent (authorization_url), or import its \
                 token",
            )
            .with_resource(company_id));
        }
        let is_dead = |outcome: &Result<T, Failure>| {
            outcome.as_ref().is_err_and(|failure| says_invalid_token(&failure.error))
        };
        self.with_live_token_and_waits(company_id, deadline, waits, &call, is_dead)
            .map_err(|error| error.with_resource(company_id))
    }

    /// Makes a call with a resource's token. If `is_dead` says that the token was rejected,
    /// refreshes it and repeats the call once. A new token is not refreshed again: otherwise every
    /// call would use up a refresh token. Only a newer one of another process replaces it.
    pub(crate) fn with_live_token<T>(
        &self,
        resource_id: &str,
        deadline: &Deadline,
        call: impl Fn(&Secret) -> T,
        is_dead: impl Fn(&T) -> bool,
    ) -> Result<T> {
        valid_id("resource_id", resource_id)?;
        self.with_live_token_and_waits(resource_id, deadline, deadline, call, is_dead)
    }

    fn with_live_token_and_waits<T>(
        &self,
        resource_id: &str,
        deadline: &Deadline,
        waits: &Deadline,
        call: impl Fn(&Secret) -> T,
        is_dead: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let bearer = match self.with_fresh(resource_id, Secret::clone) {
            Some(bearer) => bearer,
            None => {
                let deadlines = (deadline, waits);
                self.renewed_with_waits(resource_id, Want::Fresh, None, None, deadlines)
                    .map_err(|error| error.with_resource(resource_id))?
                    .0
            }
        };
        let outcome = call(&bearer);
        if !is_dead(&outcome) {
            return Ok(outcome);
        }
        let renewed = if self.rejected.contains(resource_id, &bearer) {
            match self.published.newer_than(&bearer, resource_id, &waits.within(LOCK_WAIT)) {
                Some(newer) => newer,
                None => return Ok(outcome),
            }
        } else {
            self.renewed(resource_id, Want::Another, Some(&bearer), deadline)?
        };
        let outcome = call(&renewed);
        if is_dead(&outcome) {
            self.rejected.insert(resource_id, &renewed);
        }
        Ok(outcome)
    }
}
