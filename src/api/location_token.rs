//! `POST /oauth/location-token` (the vendor's `get-location-access-token`): mints a location's
//! token with its company's token.

use serde::Deserialize;
use ureq::http::Method;

use super::field_names::Name;
use super::token_response::parse_token_response;
use super::{Api, EndpointRequest, Failure, fault, form, required_id};
use crate::deadline::Deadline;
use crate::error::Result;
use crate::http::{Bucket, Idempotency};
use crate::secret::Secret;
use crate::token::{Token, UserType};

const COMPANY_ID: Name = ["companyId", "company_id"];
const LOCATION_ID: Name = ["locationId", "location_id"];

/// The parameters of a mint.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[deny(missing_docs)]
pub struct LocationTokenParams {
    /// The location's company; required.
    pub company_id: String,
    /// The location; required.
    pub location_id: String,
    /// The company's access token. Default: the one held for the company.
    pub access_token: Option<Secret>,
}

impl Api {
    /// Mints a location's token. A mint uses nothing up, so it is idempotent and may be retried.
    ///
    /// The response lacks `userType` and `companyId`; both are added to the token.
    pub fn location_token(
        &self,
        company_id: &str,
        location_id: &str,
        bearer: &Secret,
        now_ms: i64,
        deadline: &Deadline,
    ) -> Result<Token, Failure> {
        required_id("companyId", Some(company_id))?;
        required_id("locationId", Some(location_id))?;
        let reply = self.location_token_fields.send(&[COMPANY_ID, LOCATION_ID], |casing| {
            let fields =
                [(casing.of(COMPANY_ID), company_id), (casing.of(LOCATION_ID), location_id)];
            let call = EndpointRequest {
                method: Method::POST,
                target: self.location_token_uri.clone(),
                bearer: Some(bearer),
                body: Some(form(fields)),
                secrets: [None; 2],
                idempotency: Idempotency::Idempotent,
                bucket: Some(Bucket::Resource(company_id)),
            };
            self.call(call, deadline)
        })?;
        let mut token = parse_token_response(&reply, now_ms)?;
        if token.is_of_another(location_id, UserType::Location) {
            let fault = fault::unreadable(&reply.response, &reply.secrets);
            let mut failure = reply.unexpected("contains the token of another owner", fault);
            failure.error =
                failure.error.with_help("report this to the vendor; the token was not used");
            return Err(failure);
        }
        token.user_type = Some(UserType::Location);
        token.company_id.get_or_insert_with(|| company_id.to_owned());
        token.location_id.get_or_insert_with(|| location_id.to_owned());
        Ok(token)
    }
}
