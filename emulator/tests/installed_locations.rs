//! Paging and filtering of the installed locations, and the rate limit.

mod support;

use ghl_oauth_emulator::{Decision, Emulator, Options, RateLimit};
use serde_json::Value;
use support::*;

struct Agency {
    emulator: Emulator,
    access_token: String,
}

impl Agency {
    fn new(options: Options, decision: impl FnOnce(&Emulator) -> Decision) -> Self {
        let emulator = Emulator::start(options).unwrap();
        let decision = decision(&emulator);
        let token = connect_with(&emulator, SCOPE, decision);
        Self { access_token: text(&token, "accessToken").to_owned(), emulator }
    }

    fn with_all() -> Self {
        Self::new(Options::default(), |emulator| Decision::Company(emulator.company_id()))
    }

    fn query(&self, extra: &[(&str, &str)]) -> String {
        let company_id = self.emulator.company_id();
        let mut fields =
            vec![("companyId", company_id.as_str()), ("appId", self.emulator.app_id())];
        fields.extend_from_slice(extra);
        encode(&fields)
    }

    fn get(&self, query: &str) -> Reply {
        get(&self.emulator, &self.access_token, &format!("/oauth/installed-locations?{query}"))
    }

    #[track_caller]
    fn list(&self, extra: &[(&str, &str)]) -> Value {
        self.get(&self.query(extra)).expect(200)
    }

    #[track_caller]
    fn count(&self, extra: &[(&str, &str)]) -> u64 {
        self.list(extra)["pagination"]["totalRecords"].as_u64().unwrap()
    }
}

#[test]
fn pages_contain_every_location_once() {
    let agency = Agency::with_all();
    let first = agency.list(&[]);
    assert_eq!(first["pagination"]["currentPageSize"], 20, "the default page size");
    assert_eq!(first["pagination"]["hasPrevPage"], false);
    assert!(first["pagination"].get("prevPageToken").is_none());
    assert_eq!(first["metadata"]["filterApplied"]["companyId"], agency.emulator.company_id());
    assert_eq!(first["installToFutureLocations"], true);

    let mut seen = Vec::new();
    let mut token = None::<String>;
    loop {
        let mut extra = vec![("pageSize", "7")];
        if let Some(token) = &token {
            extra.push(("pageToken", token));
        }
        let page = agency.list(&extra);
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item["isInstalled"], true);
            assert_eq!(item["versionId"], agency.emulator.version_id());
            assert!(text(item, "installedAt").ends_with('Z'));
            assert!(!text(item, "name").is_empty() && !text(item, "address").is_empty());
            seen.push(text(item, "_id").to_owned());
        }
        let pagination = &page["pagination"];
        assert_eq!(pagination["totalRecords"], 25);
        assert_eq!(pagination["hasNextPage"], pagination.get("nextPageToken").is_some());
        token = pagination["nextPageToken"].as_str().map(str::to_owned);
        if token.is_none() {
            assert_eq!(pagination["currentPageSize"], 4);
            assert_eq!(pagination["hasPrevPage"], true);
            break;
        }
    }
    seen.sort();
    let mut all = agency.emulator.location_ids();
    all.sort();
    assert_eq!(seen, all);
}

#[test]
fn filters_narrow_the_list() {
    let agency = Agency::new(Options::default(), |emulator| Decision::CompanyWithLocations {
        company: emulator.company_id(),
        locations: emulator.location_ids()[..10].to_vec(),
    });
    let location_id = agency.emulator.location_ids()[3].clone();
    assert_eq!(agency.count(&[]), 25);
    assert_eq!(agency.count(&[("isInstalled", "true")]), 10);
    assert_eq!(agency.count(&[("isInstalled", "false")]), 15);
    assert_eq!(agency.count(&[("locationId", &location_id)]), 1);
    assert_eq!(agency.count(&[("locationId", "unknown")]), 0);
    assert_eq!(agency.count(&[("query", "SMITH & sons")]), 5);
    assert_eq!(agency.count(&[("onTrial", "true")]), 2);
    assert_eq!(agency.count(&[("onTrial", "false")]), 23);
    assert_eq!(agency.count(&[("versionId", agency.emulator.version_id())]), 10);
    assert_eq!(agency.count(&[("versionId", "0")]), 0);
    assert_eq!(agency.count(&[("planId", "0")]), 0);
    assert_eq!(agency.count(&[("restrictToUserLocations", "true")]), 25);
    let first = &agency.list(&[])["items"][0];
    assert_eq!(first["isInstalled"], true, "installed ones come first");
}

#[test]
fn queries_are_parsed_strictly() {
    let agency = Agency::with_all();
    let status = |extra: &[(&str, &str)]| agency.get(&agency.query(extra)).status;
    for (extra, expected) in [
        (("pageSize", "0"), 400),
        (("pageSize", "101"), 400),
        (("pageSize", "ten"), 400),
        (("pageToken", "MjA"), 400),
        (("pageToken", "eyJvZmZzZXQiOjk5OX0"), 400),
        (("isInstalled", "1"), 422),
        (("isInstalled", "True"), 422),
        (("onTrial", ""), 422),
        (("query", ""), 422),
        (("limit", "20"), 422),
        (("company_id", "x"), 422),
        (("appId", "x"), 400),
    ] {
        assert_eq!(status(&[extra]), expected, "{extra:?}");
    }
    let invalid = agency.get(&agency.query(&[("pageSize", "0")])).expect(400);
    assert_eq!(invalid["error"]["code"], "INVALID_ARGUMENT");

    let missing = agency.get(&encode(&[("appId", "x")])).expect(422);
    assert_eq!(missing["message"][0], "companyId should not be empty");

    let company_id = agency.emulator.company_id();
    let other_app =
        agency.get(&encode(&[("companyId", &company_id), ("appId", "abc")])).expect(404);
    assert_eq!(other_app["error"]["message"], "The requested App 'abc' was not found.");
    let elsewhere = agency.get(&encode(&[("companyId", "x"), ("appId", agency.emulator.app_id())]));
    assert_eq!(elsewhere.status, 403);
}

#[test]
fn rate_limit_is_counted_per_resource() {
    let agency = Agency::new(
        Options {
            // An interval longer than the test, so that no request leaves the window.
            rate_limit: Some(RateLimit { requests: 3, per_ms: 3_600_000, per_day: 200_000 }),
            ..Options::default()
        },
        |emulator| Decision::Company(emulator.company_id()),
    );
    let emulator = &agency.emulator;
    let location_id = emulator.location_ids()[0].clone();
    let minted = mint(emulator, &agency.access_token, &location_id);
    assert_eq!(minted.header("x-ratelimit-limit-daily"), Some("200000"));
    assert_eq!(minted.header("x-ratelimit-daily-remaining"), Some("199999"));
    assert_eq!(minted.header("x-ratelimit-interval-milliseconds"), Some("3600000"));
    assert_eq!(minted.header("x-ratelimit-max"), Some("3"));
    assert_eq!(minted.header("x-ratelimit-remaining"), Some("2"));
    let minted = minted.expect(200);

    // A refused request with a valid token counts as well.
    assert_eq!(agency.get("").header("x-ratelimit-remaining"), Some("1"));
    agency.list(&[]);
    let refused = agency.get(&agency.query(&[]));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(refused.status, 429);
    assert_eq!(refused.message(), "Too Many Requests");

    let path = format!("/locations/{location_id}");
    get(emulator, text(&minted, "accessToken"), &path).expect(200);
    let answer = token(emulator, &[("grantType", "client_credentials")]);
    assert_eq!(answer.status, 200, "the token endpoint is not limited");
    assert_eq!(answer.header("x-ratelimit-max"), None);

    emulator.set_rate_limit(None);
    let free = agency.get(&agency.query(&[]));
    assert_eq!((free.status, free.header("x-ratelimit-max")), (200, None));
}
