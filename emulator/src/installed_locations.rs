//! `GET /oauth/installed-locations`: the locations where the app is installed, paginated.

use crate::answer::Answer;
use crate::bearer;
use crate::call::Call;
use crate::clock::iso8601;
use crate::directory::Location;
use crate::fields::Fields;
use crate::grant::Grant;
use crate::state::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;

const PARAMETERS: [&str; 11] = [
    "pageSize",
    "pageToken",
    "query",
    "isInstalled",
    "restrictToUserLocations",
    "companyId",
    "appId",
    "versionId",
    "onTrial",
    "planId",
    "locationId",
];
const DEFAULT_PAGE_SIZE: usize = 20;

pub(crate) fn answer(state: &State, call: &Call, caller: &Grant) -> Result<Answer, Answer> {
    bearer::require_company(caller, "oauth.readonly")?;
    call.without_body()?;
    let fields = call.query_fields().map_err(|error| error.answer())?;
    let mut parameters = Parameters::read(&fields)?;
    let behaviour = &state.settings.behaviour;
    if behaviour.ignore_installed_filter {
        parameters.is_installed = None;
    }
    if parameters.company_id != caller.company_id {
        return Err(Answer::refusal(403, "The token does not have access to this company."));
    }
    let app = &state.directory.app;
    if parameters.app_id != app.id {
        return Err(Answer::not_found("App", parameters.app_id));
    }

    // Eventual consistency: for a while, the list omits a new installation, and is empty after a
    // company's installation.
    let delay_ms =
        i64::try_from(behaviour.list_delay_seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let now_ms = state.clock.now_ms();
    let within_delay =
        |at_ms: Option<i64>| at_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < delay_ms);
    let company = state.directory.company(parameters.company_id);
    let all_late = within_delay(company.and_then(|company| company.installed_at_ms));
    let is_late = |location: &Location| all_late || within_delay(location.installed_at_ms);

    let mut found: Vec<_> = state
        .directory
        .locations_of(parameters.company_id)
        .filter(|location| parameters.matches(location, &app.version_id))
        .filter(|location| !is_late(location))
        .collect();
    // Newest first; locations without the app have no date and are last.
    found.sort_by_key(|location| Reverse(location.installed_at_ms));
    if parameters.offset > found.len() {
        return Err(page_token_invalid());
    }
    let end = found.len().min(parameters.offset + parameters.page_size);
    let page = &found[parameters.offset..end];
    let items: Vec<_> = page.iter().map(|location| item(location, &app.version_id)).collect();

    let mut pagination = json!({
        "totalRecords": found.len(),
        "hasNextPage": end < found.len(),
        "hasPrevPage": parameters.offset > 0,
        "currentPageSize": items.len(),
    });
    if end < found.len() {
        pagination["nextPageToken"] = json!(PageToken { offset: end }.encode());
    }
    if parameters.offset > 0 {
        let offset = parameters.offset.saturating_sub(parameters.page_size);
        pagination["prevPageToken"] = json!(PageToken { offset }.encode());
    }
    let future = company.is_some_and(|company| company.install_to_future_locations);
    Ok(Answer::json(
        200,
        &json!({
            "items": items,
            "pagination": pagination,
            "metadata": {
                "filterApplied": parameters.filters, "sortApplied": {"installedAt": "desc"},
            },
            "installToFutureLocations": future,
        }),
    ))
}

fn item(location: &Location, version_id: &str) -> Value {
    let mut item = json!({
        "_id": location.id,
        "name": location.name,
        "address": location.address,
        "isInstalled": location.installed_at_ms.is_some(),
    });
    if let Some(installed_at_ms) = location.installed_at_ms {
        item["versionId"] = json!(version_id);
        item["installedAt"] = json!(iso8601(installed_at_ms));
    }
    item
}

#[derive(Debug)]
struct Parameters<'a> {
    company_id: &'a str,
    app_id: &'a str,
    page_size: usize,
    offset: usize,
    query: Option<String>,
    is_installed: Option<bool>,
    version_id: Option<&'a str>,
    on_trial: Option<bool>,
    plan_id: Option<&'a str>,
    location_id: Option<&'a str>,
    /// The filters that the response reports as applied.
    filters: Map<String, Value>,
}

impl<'a> Parameters<'a> {
    fn read(fields: &'a Fields) -> Result<Self, Answer> {
        fields.allow_only(&PARAMETERS)?;
        let mut messages = Vec::new();
        let mut filters = Map::new();
        let mut text = |name: &str, required: bool| match fields.get(name) {
            None if required => {
                messages.push(format!("{name} should not be empty"));
                messages.push(format!("{name} must be a string"));
                None
            }
            Some("") => {
                messages.push(format!("{name} should not be empty"));
                None
            }
            value => {
                if let Some(value) = value {
                    filters.insert(name.to_owned(), json!(value));
                }
                value
            }
        };
        let company_id = text("companyId", true);
        let app_id = text("appId", true);
        let query = text("query", false);
        let version_id = text("versionId", false);
        let plan_id = text("planId", false);
        let location_id = text("locationId", false);
        let mut flag = |name: &str| {
            let value = fields.get(name)?;
            let parsed = value.parse().ok();
            match parsed {
                Some(value) => drop(filters.insert(name.to_owned(), json!(value))),
                None => messages.push(format!("{name} must be a boolean value")),
            }
            parsed
        };
        let is_installed = flag("isInstalled");
        let on_trial = flag("onTrial");
        // The user who installs the app in the emulator is an administrator and can see every
        // location.
        flag("restrictToUserLocations");
        let (Some(company_id), Some(app_id), true) = (company_id, app_id, messages.is_empty())
        else {
            return Err(Answer::unprocessable(&messages));
        };
        Ok(Self {
            company_id,
            app_id,
            page_size: page_size(fields.get("pageSize"))?,
            offset: match fields.get("pageToken") {
                None => 0,
                Some(token) => PageToken::decode(token).ok_or_else(page_token_invalid)?.offset,
            },
            query: query.map(str::to_lowercase),
            is_installed,
            version_id,
            on_trial,
            plan_id,
            location_id,
            filters,
        })
    }

    fn matches(&self, location: &Location, app_version_id: &str) -> bool {
        let installed = location.installed_at_ms.is_some();
        let version_id = installed.then_some(app_version_id);
        let plan_id = installed.then_some(location.plan_id.as_str());
        let on_trial = installed && location.on_trial;
        self.query.as_ref().is_none_or(|query| location.name.to_lowercase().contains(query))
            && self.is_installed.is_none_or(|wanted| wanted == installed)
            && self.version_id.is_none_or(|wanted| Some(wanted) == version_id)
            && self.plan_id.is_none_or(|wanted| Some(wanted) == plan_id)
            && self.on_trial.is_none_or(|wanted| wanted == on_trial)
            && self.location_id.is_none_or(|wanted| wanted == location.id)
    }
}

fn page_size(value: Option<&str>) -> Result<usize, Answer> {
    let Some(value) = value else {
        return Ok(DEFAULT_PAGE_SIZE);
    };
    // Digits only: `parse` would accept a sign.
    Some(value)
        .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|value| value.parse().ok())
        .filter(|size| (1..=100).contains(size))
        .ok_or_else(|| {
            Answer::invalid_argument(
                "pageSize",
                "pageSize must be an integer between 1 and 100.",
                "Provide a pageSize between 1 and 100.",
            )
        })
}

/// Page token: the start of a page. It is opaque to clients, so its format may change.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageToken {
    offset: usize,
}

impl PageToken {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }

    fn decode(token: &str) -> Option<Self> {
        let text = URL_SAFE_NO_PAD.decode(token).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

fn page_token_invalid() -> Answer {
    Answer::invalid_argument(
        "pageToken",
        "pageToken is invalid.",
        "Use the nextPageToken of a previous response, unchanged.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_follow_the_specification() {
        assert_eq!(PageToken { offset: 20 }.encode(), "eyJvZmZzZXQiOjIwfQ");
        assert_eq!(PageToken::decode("eyJvZmZzZXQiOjB9").unwrap().offset, 0);
        for token in ["", "20", "eyJvZmZzZXQiOjIwfQ==", "eyJvZmZzZXQiOi0xfQ"] {
            assert!(PageToken::decode(token).is_none(), "{token}");
        }
    }

    #[test]
    fn page_sizes_are_integers_from_1_to_100() {
        assert_eq!(page_size(None).unwrap(), 20);
        assert_eq!(page_size(Some("100")).unwrap(), 100);
        for size in ["0", "101", "-1", "+5", "1.5", "", "ten", "99999999999999999999"] {
            assert_eq!(page_size(Some(size)).unwrap_err().status, 400, "{size}");
        }
    }
}
