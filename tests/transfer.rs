//! Lists, exports, imports and deletions of tokens.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ghl_oauth::Status;
use ghl_oauth_emulator::Decision;
use serde_json::{Map, Value, json};

use support::{Abi, DAY, config, contains_none_of, emulator, sent, with_client};

/// A client without a server: nothing in these tests may send a request.
fn offline() -> Abi {
    Abi::open(&json!({"clientId": "app-1", "clientSecret": "s", "baseUrl": "http://127.0.0.1:1"}))
        .unwrap()
}

/// Expired and valid tokens of companies and their locations.
fn tokens(companies: usize, locations: usize) -> Vec<Value> {
    let mut tokens = Vec::new();
    for company in 0..companies {
        let company = format!("company{company}");
        tokens.push(json!({
            "accessToken": format!("access of {company}"),
            "refreshToken": format!("refresh of {company}"),
            "expiresIn": 86399, "userType": "Company", "companyId": company,
        }));
        for location in 0..locations {
            let location = format!("{company}location{location}");
            tokens.push(json!({
                "accessToken": format!("access of {location}"),
                "refreshToken": format!("refresh of {location}"),
                "expiresIn": 86399, "userType": "Location", "companyId": company,
                "locationId": location,
            }));
        }
    }
    tokens
}

/// The resources of all pages.
fn paged(abi: &Abi, params: &Value, export: bool) -> Vec<String> {
    let mut params = params.clone();
    let mut found = Vec::new();
    loop {
        let page = if export {
            abi.tokens_export(params.clone())
        } else {
            abi.tokens_list(params.clone())
        }
        .ok();
        let items = page[if export { "tokens" } else { "items" }].as_array().unwrap();
        assert!(items.len() <= params["pageSize"].as_u64().unwrap_or(100) as usize);
        for item in items {
            let id = match item["userType"].as_str().unwrap() {
                "Company" => &item["companyId"],
                _ => &item["locationId"],
            };
            found.push(id.as_str().unwrap().to_owned());
        }
        match &page["nextPageToken"] {
            Value::Null => return found,
            next => params["pageToken"] = next.clone(),
        }
    }
}

#[test]
fn lists_and_exports_have_pages_and_filters_for_company_and_kind() {
    let abi = offline();
    let all = tokens(2, 60);
    assert_eq!(
        abi.tokens_import(json!({"tokens": all})).ok(),
        json!({"imported": 122, "skipped": []})
    );
    for export in [false, true] {
        for (params, count) in [
            (json!({}), 122),
            (json!({"pageSize": 1}), 122),
            (json!({"pageSize": 61}), 122),
            (json!({"pageSize": 122}), 122),
            (json!({"pageSize": 1000}), 122),
            (json!({"userType": "Company"}), 2),
            (json!({"userType": "Location", "pageSize": 50}), 120),
            (json!({"companyId": "company1"}), 61),
            (json!({"companyId": "company1", "userType": "Company"}), 1),
            (json!({"companyId": "company1", "userType": "Location", "pageSize": 7}), 60),
            (json!({"companyId": "company9"}), 0),
        ] {
            let found = paged(&abi, &params, export);
            assert_eq!(found.len(), count, "{params}");
            assert_eq!(
                BTreeSet::from_iter(&found).len(),
                count,
                "{params}: no item is listed twice"
            );
            if params["companyId"] == "company1" {
                assert!(found.iter().all(|id| id.starts_with("company1")), "{params}");
            }
        }
    }
}

#[test]
fn list_contains_no_secret_and_export_contains_all_of_them() {
    let abi = offline();
    abi.tokens_import(json!({"tokens": tokens(1, 1)})).ok();
    let secrets = ["company0", "company0location0"]
        .map(|of| [format!("access of {of}"), format!("refresh of {of}")]);
    let list = abi.tokens_list(json!({})).ok().to_string();
    let export = abi.tokens_export(json!({})).ok().to_string();
    for secret in secrets.as_flattened() {
        contains_none_of(&list, &[secret]);
        assert!(export.contains(&format!("\"{secret}\"")), "{export}");
    }
}

/// The listed tokens, without the time of the last grant: an export does not say it.
fn listed(abi: &Abi) -> Value {
    let mut items = abi.tokens_list(json!({})).ok()["items"].take();
    for item in items.as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("lastSuccessAt").expect("each item has the key");
    }
    items
}

#[test]
fn exported_tokens_are_imported_unchanged() {
    let emulator = emulator(3);
    let (old, new) = (Abi::new(&emulator), Abi::new(&emulator));
    old.connect_company(&emulator);
    for location in emulator.location_ids() {
        old.live_token(&emulator, &location);
    }
    // Page by page, each unchanged.
    let mut params = json!({"pageSize": 3});
    loop {
        let page = old.tokens_export(params.clone()).ok();
        let next = page["nextPageToken"].clone();
        new.tokens_import(page).ok();
        match next {
            Value::Null => break,
            next => params["pageToken"] = next,
        }
    }
    assert_eq!(listed(&new), listed(&old));
}

#[test]
fn export_followed_by_import_loses_no_field() {
    let emulator = emulator(1);
    let (old, new) = (Abi::new(&emulator), Abi::new(&emulator));
    let company = old.connect_company(&emulator);
    old.live_token(&emulator, &emulator.location_ids()[0]);
    let exported = old.tokens_export(json!({})).ok()["tokens"].clone();
    assert_eq!(exported.as_array().unwrap().len(), 2);
    new.tokens_import(json!({"tokens": exported})).ok();
    // `expiresIn` counts from a moment in the past.
    let lasting = |mut tokens: Value| {
        tokens
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(|token| token["expiresIn"] = Value::Null);
        tokens
    };
    assert!(
        lasting(new.tokens_export(json!({})).ok()["tokens"].clone()) == lasting(exported.clone())
    );
    assert_eq!(listed(&new), listed(&old));
    let of_company =
        exported.as_array().unwrap().iter().find(|token| token["userType"] == "Company").unwrap();
    for field in ["refreshTokenId", "userId", "traceId", "isBulkInstallation", "scope", "tokenType"]
    {
        assert!(!of_company[field].is_null(), "the API's own {field} goes along: {of_company}");
    }
    emulator.clock().advance(DAY);
    sent(&emulator);
    new.live_token(&emulator, &company);
    assert_eq!(sent(&emulator), ["refresh 200"]);
}

#[test]
fn sessions_of_the_vendor_sdks_are_imported_unchanged() {
    let emulator = emulator(1);
    let (donor, abi) = (Abi::new(&emulator), Abi::new(&emulator));
    let company = donor.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    donor.live_token(&emulator, &location);
    let exported = donor.tokens_export(json!({})).ok()["tokens"].clone();
    let sessions: Vec<Value> = exported
        .as_array()
        .unwrap()
        .iter()
        .map(|token| {
            let mut session = Map::new();
            for (newer, older) in [
                ("accessToken", "access_token"),
                ("refreshToken", "refresh_token"),
                ("tokenType", "token_type"),
                ("userType", "userType"),
                ("companyId", "companyId"),
                ("locationId", "locationId"),
                ("scope", "scope"),
            ] {
                if !token[newer].is_null() {
                    session.insert(older.to_owned(), token[newer].clone());
                }
            }
            session.insert("expire_at".to_owned(), token["expiresAt"].clone());
            session.insert("expires_in".to_owned(), json!(86399));
            session.into()
        })
        .collect();
    assert!(!json!(sessions).to_string().contains("accessToken"));
    let imported = abi.tokens_import(json!({"tokens": sessions})).ok();
    assert_eq!(imported, json!({"imported": 2, "skipped": []}));
    sent(&emulator);
    for resource in [&company, &location] {
        abi.live_token(&emulator, resource);
    }
    assert_eq!(sent(&emulator), [""; 0]);
    emulator.clock().advance(DAY);
    for resource in [&company, &location] {
        abi.live_token(&emulator, resource);
    }
    assert_eq!(sent(&emulator), ["refresh 200"; 2]);
}

fn wall_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

#[test]
fn older_token_replaces_a_newer_token_only_with_replace() {
    let abi = offline();
    let token = |access: &str, expires_in: i64| {
        let expires_at = wall_ms() + 1000 * expires_in;
        json!({
            "accessToken": access, "refreshToken": access, "companyId": "c",
            "expiresAt": expires_at,
        })
    };
    let held = |abi: &Abi| abi.access_token("c").text();
    let import = |abi: &Abi, token: Value, replace: Option<bool>| {
        let mut params = json!({"tokens": [token]});
        if let Some(replace) = replace {
            params["replace"] = replace.into();
        }
        abi.tokens_import(params).ok()
    };
    assert_eq!(import(&abi, token("first", 80_000), None)["imported"], 1);
    for replace in [None, Some(false)] {
        let outcome = import(&abi, token("older", 70_000), replace);
        assert_eq!(outcome["imported"], 0);
        assert_eq!(
            (&outcome["skipped"][0]["index"], &outcome["skipped"][0]["resourceId"]),
            (&json!(0), &json!("c"))
        );
        let reason = outcome["skipped"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("newer") && reason.contains("replace"), "{reason}");
        assert_eq!(held(&abi), "first");
    }
    let same = import(&abi, token("first", 90_000), None);
    assert!(same["skipped"][0]["reason"].as_str().unwrap().contains("held already"), "{same}");
    assert_eq!(import(&abi, token("newer", 85_000), None)["imported"], 1);
    assert_eq!(held(&abi), "newer");
    assert_eq!(import(&abi, token("older", 70_000), Some(true))["imported"], 1);
    assert_eq!(held(&abi), "older");
}

#[test]
fn long_import_has_a_time_limit_for_each_hundred_tokens() {
    let abi = Abi::open(&json!({
        "clientId": "app-1", "clientSecret": "s", "baseUrl": "http://127.0.0.1:1",
        "timeouts": {"totalMs": 500},
    }))
    .unwrap();
    let tokens = tokens(1, 30_000);
    let begun = Instant::now();
    for expected in [30_001, 0] {
        assert_eq!(
            abi.tokens_import(json!({"tokens": tokens})).ok()["imported"],
            expected,
            "after {:?}",
            begun.elapsed()
        );
    }
    assert!(begun.elapsed() > Duration::from_millis(500), "the import is too short for this test");
}

#[test]
fn invalid_token_in_an_import_is_named_and_the_others_are_imported() {
    let abi = offline();
    let entries = json!([
        {"accessToken": "a", "companyId": "good-1", "expiresIn": 100},
        {},
        {"accessToken": "a"},
        {"accessToken": "a", "companyId": "c", "userType": "Location"},
        {"accessToken": "a", "companyId": "c", "userType": "Robot"},
        {"accessToken": "a", "companyId": "c", "expiresAt": "soon"},
        {"accessToken": "a", "companyId": "c", "expiresIn": {}},
        {"accessToken": "a", "locationId": "l\n"},
        {"accessToken": "a", "locationId": "x".repeat(256)},
        {"accessToken": "", "refreshToken": "", "companyId": "c"},
        {"accessToken": "a", "locationId": "good-2", "companyId": "c", "expiresIn": "100"},
    ]);
    let outcome = abi.tokens_import(json!({"tokens": entries})).ok();
    assert_eq!(outcome["imported"], 2);
    let skipped: Vec<(u64, &str)> = outcome["skipped"]
        .as_array()
        .unwrap()
        .iter()
        .map(|skipped| (skipped["index"].as_u64().unwrap(), skipped["reason"].as_str().unwrap()))
        .collect();
    let named = [
        "accessToken",
        "companyId",
        "locationId",
        "userType",
        "expiresAt",
        "expiresIn",
        "locationId",
        "locationId",
        "accessToken",
    ];
    for ((index, reason), (expected, field)) in skipped.iter().zip((1..).zip(named)) {
        assert_eq!(*index, expected);
        assert!(reason.starts_with(field), "{index}: {reason}");
    }
    assert_eq!(skipped.len(), named.len());
    assert_eq!(paged(&abi, &json!({}), false), ["good-1", "good-2"]);
    assert_eq!(
        abi.tokens_import(json!({"tokens": []})).ok(),
        json!({"imported": 0, "skipped": []})
    );
}

#[test]
fn token_of_unknown_age_is_refreshed_at_its_first_use() {
    let emulator = emulator(1);
    let donor = Abi::new(&emulator);
    let company = donor.connect_company(&emulator);
    let exported = donor.tokens_export(json!({})).ok()["tokens"][0].clone();
    let (access, refresh) = (&exported["accessToken"], &exported["refreshToken"]);
    for (entry, requests) in [
        (json!({"refreshToken": refresh}), 1),
        (json!({"accessToken": "long dead", "refreshToken": refresh}), 1),
        (
            json!({
                "accessToken": "long dead", "refreshToken": refresh,
                "expiresAt": 1_700_000_000_000_i64,
            }),
            1,
        ),
        (json!({"accessToken": access}), 0),
        (json!({"accessToken": access, "expiresIn": 86_000}), 0),
    ] {
        let abi = Abi::new(&emulator);
        let mut named = entry.clone();
        named["companyId"] = company.as_str().into();
        abi.tokens_import(json!({"tokens": [named]})).ok();
        sent(&emulator);
        abi.live_token(&emulator, &company);
        // Inside the replay window the same refresh token works again.
        assert_eq!(sent(&emulator).len(), requests, "{entry}");
    }
}

#[test]
fn location_whose_company_is_not_connected_is_not_minted_from_another() {
    let emulator = emulator(2);
    let [first, second] = <[String; 2]>::try_from(emulator.location_ids()).unwrap();
    // Its company is not connected, is the location itself, or is another location.
    for company in ["notHeld", &first, &second] {
        let abi = Abi::with(&emulator, json!({"timeouts": {"totalMs": 1_000}}));
        abi.connect_company(&emulator);
        let dead = json!({
            "accessToken": "a", "locationId": first, "companyId": company, "userType": "Location",
            "expiresAt": 1_700_000_000_000_i64,
        });
        let other = json!({
            "accessToken": "b", "locationId": second, "companyId": first, "expiresIn": 80_000,
        });
        abi.tokens_import(json!({"tokens": [dead, other]})).ok();
        sent(&emulator);
        let error = abi.access_token(&first).fails(Status::NotFound);
        assert!(error["message"].as_str().unwrap().contains(company), "{error}");
        assert_eq!(sent(&emulator), [""; 0]);
    }
}

#[test]
fn deleted_token_is_gone_locally_and_the_installation_is_unchanged() {
    let (emulator, abi) = with_client(2);
    let heard = abi.listen();
    let [first, second] = <[String; 2]>::try_from(emulator.location_ids()).unwrap();
    for location in [&first, &second] {
        abi.connect(&emulator, Decision::Location(location.clone()));
    }
    let of_first = abi.live_token(&emulator, &first);
    let live = emulator.live_refresh_tokens();
    sent(&emulator);
    heard.events();

    let listed = abi.listed(&first);
    assert_eq!(abi.token_delete(&first).ok(), listed);
    assert_eq!(heard.names(), [format!("token.deleted {first}")]);
    abi.access_token(&first).fails(Status::NotFound);
    abi.token_refresh(&first).fails(Status::NotFound);
    abi.token_delete(&first).fails(Status::NotFound);
    assert_eq!(paged(&abi, &json!({}), true), std::slice::from_ref(&second));
    assert_eq!(abi.stats()["tokens"]["inMemory"], 1);
    abi.live_token(&emulator, &second);
    assert_eq!(heard.names(), [""; 0]);
    assert_eq!(sent(&emulator), [""; 0]);
    assert_eq!(emulator.live_refresh_tokens(), live);
    assert!(emulator.access_token_is_live(&of_first));

    abi.connect(&emulator, Decision::Location(first.clone()));
    abi.live_token(&emulator, &first);
}

#[test]
fn two_clients_with_memory_stores_share_no_tokens() {
    let emulator = emulator(1);
    let (one, two) = (Abi::new(&emulator), Abi::new(&emulator));
    let company = one.connect_company(&emulator);
    two.access_token(&company).fails(Status::NotFound);
    drop(one);
    let again = Abi::open(&config(&emulator, json!({}))).unwrap();
    again.access_token(&company).fails(Status::NotFound);
}
