//! `POST /oauth/location-token` (the vendor's `get-location-access-token`): mints a location's token from its
//! company's.

use serde::Deserialize;
use ureq::http::Method;

use super::grant::granted;
use super::{Api, Call, Failure, Outcome, form, required};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::http::{Effect, Lane};
use crate::secret::Secret;
use crate::token::{Token, UserType};

/// The parameters of a mint.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocationTokenParams {
    /// The location's company; required.
    pub company_id: String,
    /// The location; required.
    pub location_id: String,
    /// The company's access token. Default: the one held for the company.
    pub access_token: Option<Secret>,
}

impl Api {
    /// Mints. It spends nothing, so it is repeated like a read.
    ///
    /// The answer lacks `userType` and `companyId`; the token gets both.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an empty id; else what the API or the network says.
    pub fn location_token(
        &self,
        company_id: &str,
        location_id: &str,
        bearer: &Secret,
        now_ms: i64,
        deadline: &Deadline,
    ) -> Result<Token, Failure> {
        required("companyId", Some(company_id))?;
        required("locationId", Some(location_id))?;
        let call = Call {
            method: Method::POST,
            target: self.location_token_uri.clone(),
            bearer: Some(bearer),
            body: Some(form([("companyId", company_id), ("locationId", location_id)])),
            secrets: [None; 2],
            effect: Effect::Repeatable,
            lane: Some(Lane::Resource(company_id)),
        };
        let mut token = granted(&self.call(call, deadline)?, now_ms)?;
        token.user_type = Some(UserType::Location);
        token.company_id.get_or_insert_with(|| company_id.to_owned());
        if token.location_id.get_or_insert_with(|| location_id.to_owned()) != location_id {
            let error = Error::new(
                Status::Protocol,
                "the API granted a token for another location than was asked for",
            )
            .with_help("report this to the vendor; the token was not used");
            return Err(Failure { error, outcome: Outcome::Unknown });
        }
        Ok(token)
    }
}
