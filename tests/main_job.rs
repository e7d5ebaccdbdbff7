//! The whole life of a connection, from consent to deletion.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use ghl_oauth::Status;
use ghl_oauth_emulator::{Decision, Emulator, Options};
use serde_json::{Value, json};

use support::{Abi, DAY, config, contains_none_of, emulator, header, query, sent, with_client};

#[test]
fn connection_works_from_consent_to_deletion_in_either_request_encoding() {
    for (encoding, content_type) in
        [("form", "application/x-www-form-urlencoded"), ("json", "application/json")]
    {
        let emulator = emulator(5);
        let changes = json!({"tokenRequestEncoding": encoding});
        let abi = Abi::with(&emulator, changes.clone());
        let (company, location) = (emulator.company_id(), emulator.location_ids()[2].clone());

        let link = abi.authorization_url(json!({})).ok();
        assert_eq!(sent(&emulator), [""; 0], "a link needs no request");
        let redirect_url = emulator
            .consent(link["url"].as_str().unwrap(), Decision::Company(company.clone()))
            .unwrap();
        let before = emulator.clock().now_ms();
        let stored = abi.authorization_complete(json!({"redirectUrl": redirect_url})).ok();
        let expires_at = stored["expiresAt"].as_i64().unwrap();
        assert!(
            (before..=emulator.clock().now_ms()).contains(&(expires_at - 86_399_000)),
            "{stored}"
        );
        assert_eq!(
            stored,
            json!({
                "resourceId": company, "userType": "Company", "companyId": company,
                "locationId": null,
                "scope": config(&emulator, json!({}))["scopes"].as_array().unwrap().iter()
                    .map(|scope| scope.as_str().unwrap()).collect::<Vec<_>>().join(" "),
                "expiresAt": expires_at, "refreshable": true, "state": "ok",
                "lastSuccessAt": stored["lastSuccessAt"], "lastFailure": null,
            })
        );
        assert_eq!(header(&emulator.requests()[0], "content-type"), Some(content_type));
        assert_eq!(sent(&emulator), ["code 200"]);

        let of_company = abi.live_token(&emulator, &company);
        assert_eq!(sent(&emulator), [""; 0]);

        let found = installed_locations(&abi, &company);
        assert_eq!(found, BTreeSet::from_iter(emulator.location_ids()));
        assert_eq!(sent(&emulator), ["list 200"; 3]);

        let minted = abi.live_token(&emulator, &location);
        assert_eq!(sent(&emulator), ["mint 200"]);
        assert_eq!(abi.live_token(&emulator, &location), minted);
        assert_eq!(sent(&emulator), [""; 0], "the second access is from memory");

        emulator.clock().advance(DAY);
        assert!(!emulator.access_token_is_live(&minted));
        let renewed = abi.live_token(&emulator, &location);
        assert_ne!(renewed, minted);
        assert_eq!(header(&emulator.requests()[0], "content-type"), Some(content_type));
        assert_eq!(sent(&emulator), ["refresh 200"]);
        assert_eq!(abi.live_token(&emulator, &location), renewed);

        let metadata = abi.token_refresh(&location).ok();
        assert_eq!(sent(&emulator), ["refresh 200"]);
        let forced = abi.live_token(&emulator, &location);
        assert_ne!(forced, renewed);
        assert_eq!(
            (
                &metadata["resourceId"],
                &metadata["userType"],
                &metadata["companyId"],
                &metadata["locationId"]
            ),
            (&json!(location), &json!("Location"), &json!(company), &json!(location))
        );

        let list = abi.tokens_list(json!({})).ok();
        let items = list["items"].as_array().unwrap();
        assert_eq!((items.len(), &list["nextPageToken"]), (2, &Value::Null));
        assert!(items.contains(&metadata), "{list}");
        let live = emulator.live_refresh_tokens();
        let mut secrets: Vec<&str> =
            live.iter().map(|token| token.refresh_token.as_str()).collect();
        secrets.extend([&*of_company, &*minted, &*renewed, &*forced, emulator.client_secret()]);
        contains_none_of(&list.to_string(), &secrets);

        let exported = abi.tokens_export(json!({})).ok();
        let successor = Abi::with(&emulator, changes);
        let imported = successor.tokens_import(json!({"tokens": exported["tokens"]})).ok();
        assert_eq!(imported, json!({"imported": 2, "skipped": []}));
        assert_eq!(successor.live_token(&emulator, &location), forced);
        assert_eq!(sent(&emulator), [""; 0]);
        emulator.clock().advance(DAY);
        successor.live_token(&emulator, &location);
        successor.live_token(&emulator, &company);
        assert_eq!(sent(&emulator), ["refresh 200"; 2], "the refresh tokens were imported as well");

        let deleted = successor.token_delete(&location).ok();
        assert_eq!(deleted["resourceId"], location.as_str());
        successor.live_token(&emulator, &location);
        assert_eq!(
            sent(&emulator),
            ["mint 200"],
            "a location can be minted as long as its company is held"
        );
        for resource in [&location, &company] {
            successor.token_delete(resource).ok();
        }
        for resource in [&location, &company] {
            successor.access_token(resource).fails(Status::NotFound);
            successor.token_delete(resource).fails(Status::NotFound);
        }
        assert_eq!(
            successor.tokens_list(json!({})).ok(),
            json!({"items": [], "nextPageToken": null})
        );
        assert_eq!(sent(&emulator), [""; 0]);
    }
}

/// The IDs of all locations from all pages.
fn installed_locations(abi: &Abi, company: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut params = json!({"companyId": company, "pageSize": 2});
    loop {
        let page = abi.oauth_installed_locations(params.clone()).ok();
        for item in page["items"].as_array().unwrap() {
            assert!(
                found.insert(item["_id"].as_str().unwrap().to_owned()),
                "a location is listed twice"
            );
        }
        match &page["pagination"]["nextPageToken"] {
            Value::Null => return found,
            next => params["pageToken"] = next.clone(),
        }
    }
}

#[test]
fn consent_link_contains_the_requested_parameters() {
    let emulator = emulator(1);
    let scopes = ["oauth.readonly", "conversations/message.write"];
    let base = json!({"scopes": scopes});
    let usual = [
        ("response_type", "code"),
        ("client_id", emulator.client_id()),
        ("redirect_uri", emulator.redirect_uri()),
        ("scope", "oauth.readonly conversations/message.write"),
    ];
    for (params, changed) in [
        (json!({}), vec![]),
        (json!({"state": "a state & more"}), vec![("state", "a state & more")]),
        (json!({"versionId": "v & 1"}), vec![("version_id", "v & 1")]),
        (json!({"loginInSameTab": true}), vec![("loginWindowOpenMode", "self")]),
        (json!({"loginInSameTab": false}), vec![]),
        (json!({"scopes": ["oauth.write"]}), vec![("scope", "oauth.write")]),
        (
            json!({"redirectUri": "https://app.example/other?a=b&c=d"}),
            vec![("redirect_uri", "https://app.example/other?a=b&c=d")],
        ),
    ] {
        let abi = Abi::with(&emulator, base.clone());
        let link = abi.authorization_url(params.clone()).ok();
        let url = link["url"].as_str().unwrap();
        assert_eq!(url.split_once('?').unwrap().0, emulator.authorize_url());
        let state = link["state"].as_str().unwrap();
        let mut expected = BTreeMap::from(usual);
        expected.insert("state", state);
        expected.extend(changed);
        let expected =
            expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(query(url), expected.collect(), "{params}");
    }
}

#[test]
fn each_consent_link_has_a_unique_state() {
    let (_emulator, abi) = with_client(1);
    let states: BTreeSet<String> = (0..100)
        .map(|_| abi.authorization_url(json!({})).ok()["state"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(states.len(), 100);
    // 256 bits are 43 characters of base64, or 64 of hexadecimal.
    assert!(states.iter().all(|state| state.len() >= 43), "{states:?}");
}

#[test]
fn consent_link_leads_to_the_configured_page() {
    let app = json!({
        "clientId": "app-1", "clientSecret": "s", "redirectUri": "https://app.example/",
        "scopes": ["a.b"],
    });
    for (authorize_url, beginning) in [
        (None, "https://marketplace.gohighlevel.com/v2/oauth/chooselocation?"),
        (
            Some("https://marketplace.leadconnectorhq.com/v2/oauth/chooselocation"),
            "https://marketplace.leadconnectorhq.com/v2/oauth/chooselocation?",
        ),
        (Some("https://agency.example/choose?brand=1"), "https://agency.example/choose?brand=1&"),
    ] {
        let mut config = app.clone();
        if let Some(authorize_url) = authorize_url {
            config["authorizeUrl"] = authorize_url.into();
        }
        let abi = Abi::open(&config).unwrap();
        let link = abi.authorization_url(json!({})).ok();
        let url = link["url"].as_str().unwrap();
        assert!(url.starts_with(beginning), "{url}");
        assert_eq!(query(url)["client_id"], "app-1");
    }
}

#[test]
fn private_app_is_installed_by_its_version_id_in_the_same_tab() {
    let emulator =
        Emulator::start(Options { require_version_id: true, ..Options::default() }).unwrap();
    let abi = Abi::new(&emulator);
    let decision = || Decision::Company(emulator.company_id());
    let without = abi.authorization_url(json!({})).ok();
    emulator
        .consent(without["url"].as_str().unwrap(), decision())
        .expect_err("the version is missing");

    let params = json!({"versionId": emulator.version_id(), "loginInSameTab": true});
    let link = abi.authorization_url(params).ok();
    let redirect_url = emulator.consent(link["url"].as_str().unwrap(), decision()).unwrap();
    abi.authorization_complete(json!({"redirectUrl": redirect_url})).ok();
    abi.live_token(&emulator, &emulator.company_id());
}

#[test]
fn statistics_count_the_work_that_was_done() {
    let (emulator, abi) = with_client(2);
    let figures = |abi: &Abi| {
        let stats = abi.stats();
        assert_eq!(stats["version"], env!("CARGO_PKG_VERSION"));
        (stats["requests"].clone(), stats["tokens"].clone())
    };
    let company = abi.connect_company(&emulator);
    abi.live_token(&emulator, &emulator.location_ids()[0]);
    abi.token_refresh(&company).ok();
    abi.access_token("nobody").fails(Status::Forbidden);
    assert_eq!(
        figures(&abi),
        (
            json!({"sent": 4, "repeated": 0, "unanswered": 0, "rateLimited": 0}),
            json!({"inMemory": 2, "unsaved": 0, "refreshed": 1, "minted": 1, "failed": 1,
                "failedByStatus": {"GHL_ERR_FORBIDDEN": 1}}),
        )
    );
    assert_eq!(sent(&emulator), ["code 200", "mint 200", "refresh 200", "mint 403"]);
}
