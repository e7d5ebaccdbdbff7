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

/// The parameters of the list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InstalledLocationsParams {
    /// The company; required.
    pub company_id: Option<String>,
    /// The app. Default: the part of the client id before its first `-`.
    pub app_id: Option<String>,
    /// Items per page, 1 to 100. Default: the server's, 20; with `all`, 100.
    pub page_size: Option<i64>,
    /// Where to go on: the last page's `nextPageToken`.
    pub page_token: Option<String>,
    /// Part of a location's name.
    pub query: Option<String>,
    /// Only locations with, or without, the app.
    pub is_installed: Option<bool>,
    /// Only locations that the current user may see.
    pub restrict_to_user_locations: Option<bool>,
    /// A version of the app.
    pub version_id: Option<String>,
    /// Only locations that try the app.
    pub on_trial: Option<bool>,
    /// Only locations on that plan.
    pub plan_id: Option<String>,
    /// One location.
    pub location_id: Option<String>,
    /// Follow the pages to the end, and return every item.
    pub all: bool,
    /// The company's access token. Default: the one held for the company.
    pub access_token: Option<Secret>,
}

impl InstalledLocationsParams {
    /// Checks what can be checked before anything is sent, and returns the company.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, naming the parameter.
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
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a missing company or a page size out of range; `PROTOCOL` for pages that lead
    /// in a circle; else what the API or the network says.
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
                    json!({"totalRecords": total, "currentPageSize": total, "hasNextPage": false, "hasPrevPage": false}),
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
        // The older answers call the list `locations` and have no pagination.
        if let Some(locations) = page.remove("locations") {
            page.entry("items").or_insert(locations);
        }
        if let Some(Value::Object(pagination)) = page.remove("pagination") {
            page.insert("pagination".into(), in_camel_case(pagination).into());
        }
        // A list that was cut must not pass for a whole one, nor an answer without a list for an empty one.
        let incomplete = |why| {
            let trace_id = fault::trace_id(&reply.response, &page, &reply.secrets);
            Err(reply.unexpected(why, ApiFault { trace_id, ..ApiFault::default() }))
        };
        if !page.get("items").is_some_and(Value::is_array) {
            return incomplete("holds no list of locations");
        }
        if says_more(&page) && next_page_token(&page).is_none() {
            return incomplete("says that there are more locations, and not where");
        }
        Ok(page)
    }
}

/// Follows a list from page to page, and not in a circle.
pub struct Pages {
    params: InstalledLocationsParams,
    seen: HashSet<String>,
}

impl Pages {
    /// From the page that the parameters name; large pages, unless they say otherwise.
    pub fn of(mut params: InstalledLocationsParams) -> Pages {
        params.all = false;
        params.page_size.get_or_insert(100);
        Pages { params, seen: HashSet::new() }
    }

    /// What to ask for next.
    pub fn params(&self) -> &InstalledLocationsParams {
        &self.params
    }

    /// Goes on to the page after this one; false when there is none.
    ///
    /// # Errors
    /// `PROTOCOL` for pages that lead in a circle.
    pub fn advance(&mut self, page: &Map<String, Value>) -> Result<bool> {
        match next_page_token(page) {
            None => Ok(false),
            Some(next) if self.seen.len() < MAX_PAGES && self.seen.insert(next.clone()) => {
                self.params.page_token = Some(next);
                Ok(true)
            }
            Some(_) => Err(endless("the pages lead in a circle, or there are too many of them")),
        }
    }
}

/// The ids of a page's locations. What is no object, or has no id, is no location that a call could name, and is passed
/// over, as the typed bindings do: the page itself stays as the API sent it.
pub fn location_ids(page: &Map<String, Value>) -> impl Iterator<Item = &str> {
    location_ids_where(page, |_| true)
}

/// The ids of a page's locations where the app is installed: without the filter, or where the server ignores it, the page has
/// others as well.
pub fn installed_location_ids(page: &Map<String, Value>) -> impl Iterator<Item = &str> {
    location_ids_where(page, |item| {
        item.get("isInstalled").is_none_or(|flag| !matches!(flag, Value::Bool(false)) && flag != "false")
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

/// Whether a page says in plain words that a further page follows.
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

fn endless(why: &str) -> Error {
    Error::new(Status::Protocol, format!("the list of locations cannot be read to its end: {why}"))
        .with_help("ask for single pages with pageToken")
}

fn refused(error: Error) -> Failure {
    Failure { error, outcome: Outcome::Refused }
}
