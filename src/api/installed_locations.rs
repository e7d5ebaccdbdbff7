//! `GET /oauth/installed-locations` (the vendor's `get-installed-location`), with pagination.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::{Api, EndpointRequest, Failure, Outcome, fault, required_id, too_long, uri};
use crate::deadline::Deadline;
use crate::error::{ApiFault, Error, Result, Status};
use crate::http::{Bucket, Idempotency};
use crate::json::in_camel_case;
use crate::secret::Secret;

/// The most pages that `all` follows: a million locations.
const MAX_PAGES: usize = 10_000;

/// The parameters of a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[deny(missing_docs)]
pub struct InstalledLocationsParams {
    /// The company; required.
    pub company_id: Option<String>,
    /// The app. Default: the part of the client ID before its first `-`.
    pub app_id: Option<String>,
    /// Items per page, 1 to 100. Default: the server's, 20; with `all`, 100.
    pub page_size: Option<i64>,
    /// The previous page's `nextPageToken`.
    pub page_token: Option<String>,
    /// Part of a location's name.
    pub query: Option<String>,
    /// Only locations with (`true`) or without (`false`) the app.
    pub is_installed: Option<bool>,
    /// Only locations that the current user may see.
    pub restrict_to_user_locations: Option<bool>,
    /// A version of the app.
    pub version_id: Option<String>,
    /// Only locations with a trial of the app.
    pub on_trial: Option<bool>,
    /// Only locations on that plan.
    pub plan_id: Option<String>,
    /// One location.
    pub location_id: Option<String>,
    /// Follow all pages and return every item.
    pub all: bool,
    /// The company's access token. Default: the one held for the company.
    pub access_token: Option<Secret>,
}

impl InstalledLocationsParams {
    /// Checks the parameters and returns the company.
    pub fn validate(&self) -> Result<&str> {
        if let Some(page_size) = self.page_size
            && !(1..=100).contains(&page_size)
        {
            return Err(Error::invalid_argument(
                "pageSize",
                format!("pageSize is {page_size}, not from 1 to 100"),
            ));
        }
        if let Some(app_id) = &self.app_id {
            required_id("appId", Some(app_id))?;
        }
        required_id("companyId", self.company_id.as_deref())
    }
}

impl Api {
    /// Lists the locations of a company: one page, or all.
    pub fn installed_locations(
        &self,
        params: &InstalledLocationsParams,
        bearer: &Secret,
        deadline: &Deadline,
    ) -> Result<Map<String, Value>, Failure> {
        params.validate()?;
        if !params.all {
            return self.page(params, bearer, deadline);
        }
        let mut pages = Pages::of(params.clone());
        let mut items = Vec::new();
        loop {
            let mut page = self.page(pages.params(), bearer, deadline)?;
            let more = pages.advance(&page).map_err(refused)?;
            if let Some(Value::Array(found)) = page.remove("items") {
                items.extend(found);
            }
            if !more {
                let total = items.len();
                page.insert("items".into(), items.into());
                page.insert(
                    "pagination".into(),
                    json!({
                        "totalRecords": total, "currentPageSize": total, "hasNextPage": false,
                        "hasPrevPage": false,
                    }),
                );
                return Ok(page);
            }
        }
    }

    fn page(
        &self,
        params: &InstalledLocationsParams,
        bearer: &Secret,
        deadline: &Deadline,
    ) -> Result<Map<String, Value>, Failure> {
        let company_id = params.validate()?;
        let page_size = params.page_size.map(|size| size.to_string());
        let flag = |flag: Option<bool>| flag.map(|flag| if flag { "true" } else { "false" });
        let fields = [
            ("companyId", Some(company_id)),
            ("appId", Some(params.app_id.as_deref().unwrap_or(&self.app_id))),
            ("pageSize", page_size.as_deref()),
            ("pageToken", params.page_token.as_deref()),
            ("query", params.query.as_deref()),
            ("isInstalled", flag(params.is_installed)),
            ("restrictToUserLocations", flag(params.restrict_to_user_locations)),
            ("versionId", params.version_id.as_deref()),
            ("onTrial", flag(params.on_trial)),
            ("planId", params.plan_id.as_deref()),
            ("locationId", params.location_id.as_deref()),
        ];
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(fields.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let query = query.finish();
        let target = uri(&self.base_url, "/oauth/installed-locations", Some(&query));
        let call = EndpointRequest {
            method: Method::GET,
            target: target.map_err(|_| too_long(&query))?,
            bearer: Some(bearer),
            body: None,
            secrets: [None; 2],
            idempotency: Idempotency::Idempotent,
            bucket: Some(Bucket::Resource(company_id)),
        };
        let reply = self.call(call, deadline)?;
        let mut page = reply.fields()?;
        // Older responses call the list `locations` and have no pagination.
        if let Some(locations) = page.remove("locations") {
            page.entry("items").or_insert(locations);
        }
        if let Some(Value::Object(pagination)) = page.remove("pagination") {
            page.insert("pagination".into(), in_camel_case(pagination).into());
        }
        // A truncated list must not pass for a complete one, nor a response without a list for an
        // empty one.
        let incomplete = |why| {
            let trace_id = fault::trace_id(&reply.response, &page, &reply.secrets);
            Err(reply.unexpected(why, ApiFault { trace_id, ..ApiFault::default() }))
        };
        if !page.get("items").is_some_and(Value::is_array) {
            return incomplete("has no list of locations");
        }
        if says_more(&page) && next_page_token(&page).is_none() {
            return incomplete("announces more locations without a page token");
        }
        Ok(page)
    }
}

/// Follows the pages of a list and detects cycles.
pub struct Pages {
    params: InstalledLocationsParams,
    seen: HashSet<String>,
}

impl Pages {
    /// Starts at the page that the parameters name. The default page size is 100.
    pub fn of(mut params: InstalledLocationsParams) -> Pages {
        params.all = false;
        params.page_size.get_or_insert(100);
        Pages { params, seen: HashSet::new() }
    }

    /// The parameters of the next page.
    pub fn params(&self) -> &InstalledLocationsParams {
        &self.params
    }

    /// Advances to the page after `page`; `false` after the last page.
    pub fn advance(&mut self, page: &Map<String, Value>) -> Result<bool> {
        match next_page_token(page) {
            None => Ok(false),
            Some(next) if self.seen.len() < MAX_PAGES && self.seen.insert(next.clone()) => {
                self.params.page_token = Some(next);
                Ok(true)
            }
            Some(_) if self.seen.len() >= MAX_PAGES => {
                Err(pagination_error("the list has too many pages"))
            }
            Some(_) => Err(pagination_error("the page tokens of the list form a cycle")),
        }
    }
}

/// The IDs of a page's locations. Skips items without an ID, like the typed bindings.
pub fn location_ids(page: &Map<String, Value>) -> impl Iterator<Item = &str> {
    location_ids_where(page, |_| true)
}

/// The IDs of a page's locations with the app installed. A page contains others as well if the
/// server ignores the filter.
pub fn installed_location_ids(page: &Map<String, Value>) -> impl Iterator<Item = &str> {
    location_ids_where(page, |item| {
        item.get("isInstalled")
            .is_none_or(|flag| !matches!(flag, Value::Bool(false)) && flag != "false")
    })
}

fn location_ids_where(
    page: &Map<String, Value>,
    counts: impl Fn(&Value) -> bool,
) -> impl Iterator<Item = &str> {
    let items = page.get("items").and_then(Value::as_array).into_iter().flatten();
    items
        .filter(move |item| counts(item))
        .filter_map(|item| item.get("_id")?.as_str())
        .filter(|id| !id.is_empty())
}

fn says_more(page: &Map<String, Value>) -> bool {
    let more = page.get("pagination").and_then(|pagination| pagination.get("hasNextPage"));
    more.is_some_and(|more| matches!(more, Value::Bool(true)) || more == "true")
}

fn next_page_token(page: &Map<String, Value>) -> Option<String> {
    let pagination = page.get("pagination")?;
    let token = pagination.get("nextPageToken")?.as_str().filter(|token| !token.is_empty())?;
    let more = pagination
        .get("hasNextPage")
        .is_none_or(|more| !matches!(more, Value::Bool(false)) && more != "false");
    more.then(|| token.to_owned())
}

fn pagination_error(why: &str) -> Error {
    Error::new(Status::Protocol, why)
        .with_help("request single pages with pageToken")
        .with_sent(true)
        .with_retryable(false)
}

fn refused(error: Error) -> Failure {
    Failure { error, outcome: Outcome::Refused }
}
