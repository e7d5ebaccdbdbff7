//! Webhooks: verification of deliveries, and the effect of INSTALL and UNINSTALL on stored tokens
//! in any order.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ghl_oauth::Status;
use ghl_oauth_emulator::{
    Decision, Emulator, Endpoint, FaultKind, Notice, Options, Rule, Signature, Stage,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use support::{
    Abi, config, emulator, notice_body as body, sent, signed, with_client, with_company,
};

/// Applies a correctly signed body.
#[track_caller]
fn apply(abi: &Abi, emulator: &Emulator, body: &str) -> Value {
    abi.webhook_apply(body.as_bytes(), &signed(emulator, body.as_bytes(), Signature::Ed25519)).ok()
}

/// Applies a notice with the current time.
#[track_caller]
fn tell(abi: &Abi, emulator: &Emulator, notice: &Notice) -> Value {
    apply(abi, emulator, &emulator.webhook(notice))
}

fn install(id: &str) -> Notice {
    Notice::Install(id.to_owned())
}

fn uninstall(id: &str) -> Notice {
    Notice::Uninstall(id.to_owned())
}

/// The IDs of the stored tokens.
fn held(abi: &Abi) -> Vec<String> {
    let (mut ids, mut page_token) = (Vec::new(), Value::Null);
    loop {
        let mut params = json!({"pageSize": 1000});
        if !page_token.is_null() {
            params["pageToken"] = page_token;
        }
        let page = abi.tokens_list(params).ok();
        let items = page["items"].as_array().unwrap();
        ids.extend(items.iter().map(|item| item["resourceId"].as_str().unwrap().to_owned()));
        page_token = page["nextPageToken"].clone();
        if page_token.is_null() {
            return ids;
        }
    }
}

fn pass(emulator: &Emulator, seconds: u64) {
    emulator.clock().advance(Duration::from_secs(seconds));
}

/// Waits until the condition holds. The limit of a minute is never nearly reached.
#[track_caller]
fn until(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "the condition never held");
        std::thread::yield_now();
    }
}

/// Asserts that both functions refuse a delivery and that nothing changes.
#[track_caller]
fn refused(abi: &Abi, body: &[u8], headers: &Value) -> Value {
    let before = held(abi);
    let error = abi.webhook_verify(body, headers).fails(Status::SignatureInvalid);
    let other = abi.webhook_apply(body, headers).fails(Status::SignatureInvalid);
    assert_eq!(error, other);
    assert_eq!(error["retryable"], false);
    assert_eq!(held(abi), before);
    error
}

// ---- Verification -------------------------------------------------------------------------------

#[test]
fn signed_delivery_of_any_type_is_verified_and_parsed() {
    let (emulator, abi) = with_client(1);
    let body = r#"{"type": "ContactCreate", "webhookId": "w-1", "id": "ü",
        "timestamp": "2025-06-25T06:57:06.225Z"}"#;
    let verified = abi
        .webhook_verify(body.as_bytes(), &signed(&emulator, body.as_bytes(), Signature::Both))
        .ok();
    let expected = json!({
        "type": "ContactCreate", "webhookId": "w-1", "timestampMs": 1_750_834_626_225_i64,
        "scheme": "ed25519",
        "keyIndex": 0, "payload": serde_json::from_str::<Value>(body).unwrap(),
    });
    assert_eq!(verified, expected);
    let verified = abi.webhook_verify(b"{}", &signed(&emulator, b"{}", Signature::Ed25519)).ok();
    for name in ["type", "webhookId", "timestampMs"] {
        assert_eq!(verified[name], Value::Null);
    }
}

#[test]
fn body_changed_by_one_bit_or_reformatted_is_refused() {
    let emulator = emulator(1);
    let abi = Abi::with(
        &emulator,
        json!({"webhook": {"rsaPublicKeys": [emulator.webhook_public_keys().rsa]}}),
    );
    let body = emulator.webhook(&install(&emulator.location_ids()[0]));
    let anew =
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(&body).unwrap()).unwrap();
    for signature in [Signature::Ed25519, Signature::Legacy, Signature::Both] {
        let headers = signed(&emulator, body.as_bytes(), signature);
        abi.webhook_verify(body.as_bytes(), &headers).ok();
        for index in [0, body.len() / 2, body.len() - 1] {
            let mut changed = body.clone().into_bytes();
            changed[index] ^= 1;
            refused(&abi, &changed, &headers);
        }
        refused(&abi, anew.as_bytes(), &headers);
        refused(&abi, &body.as_bytes()[..body.len() - 1], &headers);
        refused(&abi, format!("{body} ").as_bytes(), &headers);
        refused(&abi, b"", &headers);
    }
}

#[test]
fn delivery_without_a_valid_signature_is_refused() {
    let emulator = emulator(1);
    let rsa = emulator.webhook_public_keys().rsa;
    let abi = Abi::with(&emulator, json!({"webhook": {"rsaPublicKeys": [rsa]}}));
    let body = emulator.webhook(&uninstall(&emulator.company_id()));
    let body = body.as_bytes();
    let good = signed(&emulator, body, Signature::Both);
    let (ed25519, legacy) =
        (good["x-ghl-signature"].as_str().unwrap(), good["x-wh-signature"].as_str().unwrap());
    let bytes = STANDARD.decode(ed25519).unwrap();
    let cut = STANDARD.encode(&bytes[..63]);
    let longer = STANDARD.encode([&bytes[..], &[0]].concat());
    for (why, headers) in [
        ("no header", json!({})),
        ("another header", json!({"authorization": ed25519})),
        ("N/A twice", signed(&emulator, body, Signature::NotAvailable)),
        ("an empty header", json!({"x-ghl-signature": "", "x-wh-signature": " "})),
        ("a null", json!({"x-ghl-signature": null})),
        ("an empty list", json!({"x-ghl-signature": []})),
        ("another body's", signed(&emulator, body, Signature::Wrong)),
        ("no base64", json!({"x-ghl-signature": "?"})),
        ("n/a is no N/A", json!({"x-ghl-signature": "n/a", "x-wh-signature": legacy})),
        ("63 bytes", json!({"x-ghl-signature": cut})),
        ("65 bytes", json!({"x-ghl-signature": longer})),
        ("all zero", json!({"x-ghl-signature": STANDARD.encode([0; 64])})),
        ("the RSA signature in the other's place", json!({"x-ghl-signature": legacy})),
        ("the Ed25519 signature in the other's place", json!({"x-wh-signature": ed25519})),
        (
            "a wrong newer one beside a right older one",
            json!({"x-ghl-signature": cut, "x-wh-signature": legacy}),
        ),
        ("two of them", json!({"x-ghl-signature": [ed25519, ed25519]})),
        ("two in one", json!({"x-ghl-signature": format!("{ed25519}, {ed25519}")})),
        (
            "the same name in two cases",
            json!({"x-ghl-signature": ed25519, "X-GHL-Signature": ed25519}),
        ),
        ("one of them absent", json!({"x-ghl-signature": ed25519, "X-Ghl-Signature": "N/A"})),
        ("two older ones", json!({"x-wh-signature": legacy, "X-WH-Signature": legacy})),
    ] {
        let error = refused(&abi, body, &headers);
        assert!(error["message"].as_str().unwrap().len() > 20, "{why}: {error}");
    }
    // A map would keep an arbitrary one of the two.
    let twice = format!(r#"{{"x-ghl-signature": "{ed25519}", "x-ghl-signature": "{ed25519}"}}"#);
    let headers = std::ffi::CString::new(twice).unwrap();
    // SAFETY: a valid client and valid pointers.
    let code = unsafe {
        let out = std::ptr::null_mut();
        ghl_oauth::internals::ffi::ghl_webhook_verify(
            abi.handle(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            out,
        )
    };
    assert_eq!(code, Status::SignatureInvalid.code());
}

#[test]
fn header_names_in_any_case_and_signatures_in_either_base64_alphabet_are_accepted() {
    let (emulator, abi) = with_client(1);
    let body = b"{}";
    let good = signed(&emulator, body, Signature::Ed25519);
    let signature = good["x-ghl-signature"].as_str().unwrap();
    let url_safe = URL_SAFE_NO_PAD.encode(STANDARD.decode(signature).unwrap());
    for headers in [
        json!({"X-GHL-SIGNATURE": signature}),
        json!({"X-Ghl-Signature": format!(" {signature}\n")}),
        json!({"x-ghl-signature": [signature]}),
        json!({"x-ghl-signature": signature.trim_end_matches('=')}),
        json!({"x-ghl-signature": url_safe}),
        json!({
            "x-ghl-signature": signature, "x-wh-signature": "nonsense", "accept": ["a", 1, null],
            "n": 1,
        }),
    ] {
        abi.webhook_verify(body, &headers).ok();
    }
}

#[test]
fn legacy_signature_counts_only_if_configured_and_without_the_current_one() {
    let emulator = emulator(1);
    let rsa = emulator.webhook_public_keys().rsa;
    let without = Abi::new(&emulator);
    let with = Abi::with(&emulator, json!({"webhook": {"rsaPublicKeys": [rsa]}}));
    let only =
        Abi::with(&emulator, json!({"webhook": {"rsaPublicKeys": [rsa], "ed25519PublicKeys": []}}));
    let legacy = signed(&emulator, b"{}", Signature::Legacy);
    assert_eq!(legacy["x-ghl-signature"], "N/A");
    let error = refused(&without, b"{}", &legacy);
    assert!(error["help"].as_str().unwrap().contains("webhook.rsaPublicKeys"), "{error}");
    for abi in [&with, &only] {
        let verified = abi.webhook_verify(b"{}", &legacy).ok();
        assert_eq!((&verified["scheme"], &verified["keyIndex"]), (&json!("rsa-sha256"), &json!(0)));
    }
    let both = signed(&emulator, b"{}", Signature::Both);
    assert_eq!(with.webhook_verify(b"{}", &both).ok()["scheme"], "ed25519");
    let error = refused(&only, b"{}", &both);
    assert!(error["help"].as_str().unwrap().contains("webhook.ed25519PublicKeys"), "{error}");
}

#[test]
fn keys_are_rotated_by_configuring_two_for_a_while() {
    let old = emulator(1);
    let new = Emulator::start(Options { seed: 2, ..Options::default() }).unwrap();
    let key = |emulator: &Emulator| emulator.webhook_public_keys().ed25519;
    let keys = |keys: &[String]| json!({"webhook": {"ed25519PublicKeys": keys}});
    let by = |emulator: &Emulator| signed(emulator, b"{}", Signature::Ed25519);
    let before = Abi::with(&old, keys(&[key(&old)]));
    let during = Abi::with(&old, keys(&[key(&new), key(&old)]));
    let after = Abi::with(&old, keys(&[key(&new)]));
    assert_eq!(before.webhook_verify(b"{}", &by(&old)).ok()["keyIndex"], 0);
    refused(&before, b"{}", &by(&new));
    assert_eq!(during.webhook_verify(b"{}", &by(&old)).ok()["keyIndex"], 1);
    assert_eq!(during.webhook_verify(b"{}", &by(&new)).ok()["keyIndex"], 0);
    refused(&after, b"{}", &by(&old));
    after.webhook_verify(b"{}", &by(&new)).ok();
}

#[test]
fn vendor_key_is_the_default_and_an_empty_key_list_refuses_everything() {
    let emulator = emulator(1);
    let mut defaults = config(&emulator, json!({}));
    defaults.as_object_mut().unwrap().remove("webhook");
    let vendor = Abi::open(&defaults).unwrap();
    refused(&vendor, b"{}", &signed(&emulator, b"{}", Signature::Both));
    let none = Abi::with(&emulator, json!({"webhook": {"ed25519PublicKeys": []}}));
    refused(&none, b"{}", &signed(&emulator, b"{}", Signature::Both));
    // The RSA key of the vendor, as printed in docs/webhooks.md, can be configured.
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/webhooks.md")).unwrap();
    let keys: Vec<&str> = page
        .split("-----BEGIN PUBLIC KEY-----")
        .skip(1)
        .map(|rest| rest.split("-----END PUBLIC KEY-----").next().unwrap())
        .collect();
    assert_eq!(keys.len(), 2, "Ed25519, then RSA");
    assert!(ghl_oauth::config::VENDOR_ED25519_KEY.contains(keys[0].trim()));
    Abi::open(&config(&emulator, json!({"webhook": {"rsaPublicKeys": [keys[1]]}}))).unwrap();
}

#[test]
fn unusable_key_is_refused_when_the_client_is_created() {
    let emulator = emulator(1);
    let public = emulator.webhook_public_keys();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    for (webhook, parameter) in [
        (
            json!({"ed25519PublicKeys": [public.ed25519, "nonsense"]}),
            "webhook.ed25519PublicKeys[1]",
        ),
        (json!({"ed25519PublicKeys": [public.rsa]}), "webhook.ed25519PublicKeys[0]"),
        (json!({"ed25519PublicKeys": [""]}), "webhook.ed25519PublicKeys[0]"),
        // The neutral element, for which every signature of a certain form is valid.
        (
            json!({"ed25519PublicKeys": [format!("01{}", "00".repeat(31))]}),
            "webhook.ed25519PublicKeys[0]",
        ),
        (
            json!({"rsaPublicKeys": [public.rsa, public.rsa, public.ed25519]}),
            "webhook.rsaPublicKeys[2]",
        ),
        (json!({"maxAgeSeconds": 0}), "webhook.maxAgeSeconds"),
    ] {
        let config = config(
            &emulator,
            json!({"webhook": webhook, "store": {"kind": "sqlite", "path": path}}),
        );
        let Err(outcome) = Abi::open(&config) else { panic!("{webhook} was accepted") };
        assert_eq!(outcome.fails(Status::Config)["parameter"], parameter);
    }
    assert!(!path.exists(), "refused before a client is created");
}

#[test]
fn signed_body_that_is_not_an_object_has_its_own_error() {
    let (emulator, abi) = with_client(1);
    for body in ["", "[]", "null", "{", "<html>", "{} {}"] {
        let headers = signed(&emulator, body.as_bytes(), Signature::Ed25519);
        abi.webhook_verify(body.as_bytes(), &headers).refuses("body");
        abi.webhook_apply(body.as_bytes(), &headers).refuses("body");
    }
}

#[test]
fn delivery_older_than_the_configured_maximum_is_refused() {
    let emulator = emulator(1);
    let company = emulator.company_id();
    let any = Abi::new(&emulator);
    let young = Abi::with(&emulator, json!({"webhook": {"maxAgeSeconds": 3600}}));
    let check = |abi: &Abi, changes| {
        let body = body(&emulator, &install(&company), changes);
        let headers = signed(&emulator, body.as_bytes(), Signature::Ed25519);
        abi.webhook_verify(body.as_bytes(), &headers).0 == 0
    };
    let ago = |seconds: i64| json!({"timestamp": emulator.clock().now_ms() - seconds * 1000});
    assert!(check(&young, json!({})) && check(&young, ago(3500)) && check(&young, ago(-3500)));
    for changes in [ago(3700), ago(-3700), json!({"timestamp": null}), json!({"timestamp": "soon"})]
    {
        assert!(!check(&young, changes.clone()), "{changes}");
        assert!(check(&any, changes.clone()), "{changes}");
    }
}

// ---- Effect on tokens ---------------------------------------------------------------------------

#[test]
fn install_mints_at_once_if_the_company_token_is_stored() {
    let (emulator, abi, company) = with_company(3);
    sent(&emulator);
    let location = &emulator.location_ids()[0];
    let heard = abi.listen();
    let applied = tell(&abi, &emulator, &install(location));
    assert_eq!(applied, json!({"type": "INSTALL", "resourceId": location, "applied": true}));
    assert_eq!(sent(&emulator), ["mint 200"]);
    assert_eq!(heard.names(), [format!("token.minted {location}")]);
    assert_eq!(abi.listed(location)["companyId"], company);
    abi.live_token(&emulator, location);
    // Another delivery of the same event, and an event with a different body.
    tell(&abi, &emulator, &install(location));
    tell(&abi, &emulator, &Notice::AutomaticInstall(location.clone()));
    assert_eq!(sent(&emulator), [""; 0]);
    // An automatic installation names no company.
    let applied =
        tell(&abi, &emulator, &Notice::AutomaticInstall(emulator.location_ids()[1].clone()));
    assert_eq!(applied["applied"], true);
    assert_eq!(sent(&emulator), ["mint 200"]);
}

/// Applies a notice with the current time, without a mint.
#[track_caller]
fn tell_only(abi: &Abi, emulator: &Emulator, notice: &Notice) -> Value {
    let body = emulator.webhook(notice);
    let headers = signed(emulator, body.as_bytes(), Signature::Ed25519);
    abi.webhook_apply_with(body.as_bytes(), &headers, json!({"mint": false})).ok()
}

#[test]
fn installs_without_a_mint_send_nothing_and_are_minted_by_use_and_by_maintenance() {
    let (emulator, abi, company) = with_company(30);
    let locations = emulator.location_ids();
    sent(&emulator);
    for location in &locations {
        let applied = tell_only(&abi, &emulator, &install(location));
        assert_eq!(applied["applied"], true, "{applied}");
        let minted_later = "remembered; its first use or maintenance mints the token";
        assert_eq!(applied["reason"], minted_later, "{applied}");
    }
    assert_eq!(sent(&emulator), [""; 0]);
    assert_eq!(held(&abi), [company.as_str()]);
    abi.live_token(&emulator, &locations[7]);
    assert_eq!(sent(&emulator), ["mint 200"]);
    let report = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!(report["refreshed"], 29, "{report}");
    assert_eq!(held(&abi).len(), 31);
}

#[test]
fn uninstall_ends_an_install_that_was_applied_without_a_mint() {
    let (emulator, abi, company) = with_company(2);
    let location = &emulator.location_ids()[0];
    tell_only(&abi, &emulator, &install(location));
    pass(&emulator, 1);
    tell_only(&abi, &emulator, &uninstall(location));
    let report = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!(report["refreshed"], 0, "{report}");
    assert_eq!(held(&abi), [company]);
}

#[test]
fn reinstalled_location_keeps_its_token_until_maintenance_mints_a_new_one() {
    let (emulator, abi, _) = with_company(1);
    let location = &emulator.location_ids()[0];
    tell(&abi, &emulator, &install(location));
    let before = abi.access_token(location).ok();
    pass(&emulator, 60);
    sent(&emulator);
    let applied = tell_only(&abi, &emulator, &install(location));
    assert_eq!(applied["applied"], true, "{applied}");
    assert_eq!(applied["reason"], "remembered; maintenance replaces the stored token");
    assert_eq!(abi.access_token(location).ok(), before);
    assert_eq!(sent(&emulator), [""; 0]);
    abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!(sent(&emulator), ["mint 200"]);
    assert_ne!(abi.access_token(location).ok(), before);
}

#[test]
fn parameters_of_a_delivery_are_optional_and_checked() {
    let (emulator, abi, _) = with_company(3);
    let locations = emulator.location_ids();
    let deliver = |location: &str, params: Value| {
        let body = emulator.webhook(&install(location));
        let headers = signed(&emulator, body.as_bytes(), Signature::Ed25519);
        abi.webhook_apply_with(body.as_bytes(), &headers, params)
    };
    sent(&emulator);
    for (location, params) in locations.iter().zip([
        json!({}),
        json!({"mint": true, "callId": "x"}),
        json!({"mint": null}),
    ]) {
        deliver(location, params).ok();
        assert_eq!(sent(&emulator), ["mint 200"]);
    }
    deliver(&locations[0], json!({"mint": 1})).refuses("mint");
    deliver(&locations[0], json!({"mints": false})).refuses("mints");
    deliver(&locations[0], json!({"timeoutMs": 0})).refuses("timeoutMs");
    let headers = json!({"content-type": "application/json"});
    abi.webhook_apply_with(b"{}", &headers, json!({"mint": false})).fails(Status::SignatureInvalid);
}

#[test]
fn install_before_the_company_token_is_minted_when_that_arrives() {
    let emulator = emulator(15);
    let folder = tempfile::tempdir().unwrap();
    let store = json!({"store": {"kind": "sqlite", "path": folder.path().join("tokens.db")}});
    let locations = emulator.location_ids();
    for location in &locations {
        // Each with a new client, which the store sees as another process.
        let abi = Abi::with(&emulator, store.clone());
        let applied = tell(&abi, &emulator, &install(location));
        assert_eq!(applied["applied"], true);
        assert_eq!(applied["reason"], "remembered until its company's token is available");
    }
    let abi = Abi::with(&emulator, store);
    assert_eq!(abi.tokens_maintain(json!({}), |_| true).ok()["checked"], 0);
    abi.connect_company(&emulator);
    let mints = |sent: Vec<String>| sent.iter().filter(|sent| *sent == "mint 200").count();
    assert_eq!(mints(sent(&emulator)), 10, "a consent does not wait for thousands of mints");
    assert_eq!(held(&abi).len(), 11);
    let report = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!((&report["checked"], &report["refreshed"]), (&json!(5), &json!(5)));
    assert_eq!(mints(sent(&emulator)), 5);
    assert_eq!(held(&abi).len(), 16);
    assert_eq!(
        abi.tokens_maintain(json!({}), |_| true).ok()["checked"],
        0,
        "no install is waiting any more"
    );
}

#[test]
fn imported_company_mints_the_waiting_installs() {
    let emulator = emulator(1);
    let (giver, abi) = (Abi::new(&emulator), Abi::new(&emulator));
    giver.connect_company(&emulator);
    tell(&abi, &emulator, &install(&emulator.location_ids()[0]));
    abi.tokens_import(giver.tokens_export(json!({})).ok()).ok();
    assert_eq!(held(&abi).len(), 2);
}

#[test]
fn install_with_a_company_id_is_minted_from_that_company_among_several() {
    let emulator =
        Emulator::start(Options { companies: 2, locations: 2, ..Options::default() }).unwrap();
    let abi = Abi::new(&emulator);
    for company in emulator.company_ids() {
        abi.connect(&emulator, Decision::Company(company));
    }
    let location = emulator.location_ids()[3].clone();
    abi.access_token(&location).fails(Status::NotFound);
    emulator.inject(
        Rule::on(Endpoint::LocationToken).times(9),
        FaultKind::Reset { stage: Stage::BeforeProcessing },
    );
    let applied = tell(&abi, &emulator, &install(&location));
    assert_eq!(applied["reason"], "remembered, since no token could be minted yet");
    emulator.clear_faults();
    abi.live_token(&emulator, &location);
    assert_eq!(abi.listed(&location)["companyId"], emulator.company_ids()[1]);
}

#[test]
fn failed_mint_of_an_install_is_retried_by_maintenance_and_a_refused_mint_is_dropped() {
    let (emulator, abi, _) = with_company(2);
    let [failing, refused] = &emulator.location_ids()[..] else { panic!("two locations") };
    emulator.inject(
        Rule::on(Endpoint::LocationToken).times(9),
        FaultKind::Reset { stage: Stage::BeforeProcessing },
    );
    assert_eq!(tell(&abi, &emulator, &install(failing))["applied"], true);
    emulator.clear_faults();
    emulator.uninstall(refused);
    assert_eq!(tell(&abi, &emulator, &install(refused))["applied"], true);
    sent(&emulator);
    let report = abi.tokens_maintain(json!({}), |_| true).ok();
    assert_eq!((&report["refreshed"], &report["failed"]), (&json!(1), &json!([])));
    assert_eq!(sent(&emulator), ["mint 200"]);
    abi.live_token(&emulator, failing);
}

#[test]
fn location_that_lost_its_token_gets_a_new_token_when_reinstalled() {
    let (emulator, abi) = with_client(1);
    let location = emulator.location_ids()[0].clone();
    abi.connect_company(&emulator);
    abi.live_token(&emulator, &location);
    // No webhook reports this.
    emulator.uninstall(&location);
    abi.token_refresh(&location).fails(Status::ReauthorizationRequired);
    pass(&emulator, 60);
    emulator.install_location(&location);
    assert_eq!(tell(&abi, &emulator, &Notice::AutomaticInstall(location.clone()))["applied"], true);
    abi.live_token(&emulator, &location);
    assert_eq!(abi.listed(&location)["state"], "ok");
}

#[test]
fn uninstall_deletes_the_location_token() {
    let (emulator, abi, company) = with_company(2);
    let location = emulator.location_ids()[0].clone();
    abi.live_token(&emulator, &location);
    pass(&emulator, 1);
    let heard = abi.listen();
    let applied = tell(&abi, &emulator, &uninstall(&location));
    assert_eq!(applied, json!({"type": "UNINSTALL", "resourceId": location, "applied": true}));
    assert_eq!(heard.names(), [format!("token.deleted {location}")]);
    assert_eq!(held(&abi), [company]);
    // The token is not in memory either: the next call would have to mint.
    emulator.uninstall(&location);
    abi.access_token(&location).fails(Status::Forbidden);
    let applied = tell(&abi, &emulator, &uninstall(&emulator.location_ids()[1]));
    assert_eq!(
        (&applied["applied"], &applied["reason"]),
        (&json!(true), &json!("no token was held"))
    );
}

#[test]
fn private_integration_token_outlives_the_uninstall_of_the_app() {
    let (emulator, abi, company) = with_company(1);
    let location = emulator.location_ids()[0].clone();
    let private = emulator.private_token(&location);
    let entry = json!({"accessToken": private, "locationId": location, "companyId": company});
    assert_eq!(abi.tokens_import(json!({"tokens": [entry]})).ok()["imported"], 1);
    pass(&emulator, 1);
    let applied = tell(&abi, &emulator, &uninstall(&location));
    assert_eq!(
        (&applied["applied"], &applied["reason"]),
        (&json!(false), &json!("a private integration token does not end with the app"))
    );
    assert_eq!(abi.access_token(&location).text(), private);
    assert_eq!(tell(&abi, &emulator, &uninstall(&company))["applied"], true);
    assert_eq!(held(&abi), [location]);
}

#[test]
fn uninstall_older_than_the_token_deletes_nothing() {
    let (emulator, abi) = with_client(1);
    let (company, location) = (emulator.company_id(), emulator.location_ids()[0].clone());
    let of_before = [&location, &company].map(|id| emulator.webhook(&uninstall(id)));
    pass(&emulator, 1);
    abi.connect_company(&emulator);
    abi.live_token(&emulator, &location);
    for body in &of_before {
        let applied = apply(&abi, &emulator, body);
        assert_eq!(
            (&applied["applied"], &applied["reason"]),
            (&json!(false), &json!("the token is newer"))
        );
    }
    assert_eq!(held(&abi).len(), 2);
    // Without a timestamp the delivery is dated by its arrival.
    pass(&emulator, 1);
    let body =
        body(&emulator, &uninstall(&location), json!({"timestamp": null, "webhookId": null}));
    assert_eq!(apply(&abi, &emulator, &body)["applied"], true);
    assert_eq!(held(&abi), [company]);
    // Its repetition after a reinstallation is recognized by its body.
    pass(&emulator, 1);
    abi.live_token(&emulator, &location);
    pass(&emulator, 600);
    let again = apply(&abi, &emulator, &body);
    assert_eq!(
        (&again["applied"], &again["reason"]),
        (&json!(false), &json!("it was applied before"))
    );
    assert_eq!(held(&abi).len(), 2);
}

#[test]
fn uninstall_with_a_timestamp_in_another_form_deletes_no_newer_token() {
    let (emulator, abi) = with_client(1);
    let location = emulator.location_ids()[0].clone();
    abi.connect(&emulator, Decision::Location(location.clone()));
    let deliver = |timestamp: Value| {
        let changes = json!({"timestamp": timestamp, "webhookId": timestamp.to_string()});
        let body = body(&emulator, &uninstall(&location), changes);
        let headers = signed(&emulator, body.as_bytes(), Signature::Ed25519);
        abi.webhook_apply(body.as_bytes(), &headers)
    };
    for timestamp in [
        json!("2025-06-25T06:57:06.225+0000"),
        json!("2025-06-25T06:57:06.225999"),
        json!("2025-06-25T06:57Z"),
        json!("Wed, 25 Jun 2025 06:57:06 GMT"),
        json!(1_750_834_626.225),
        json!(1_750_834_626),
    ] {
        let applied = deliver(timestamp.clone()).ok();
        assert_eq!(applied["reason"], "the token is newer", "{timestamp}");
    }
    for timestamp in [json!("soon"), json!(""), json!(0), json!(true), json!({"$date": 1})] {
        deliver(timestamp).refuses("timestamp");
    }
    assert_eq!(held(&abi).len(), 1);
    abi.live_token(&emulator, &location);
}

#[test]
fn imported_token_of_unknown_age_is_dated_by_its_expiry() {
    let (emulator, abi) = with_client(1);
    let location = emulator.location_ids()[0].clone();
    let body = emulator.webhook(&uninstall(&location));
    let import = |expires_at: i64| {
        let token = json!({
            "accessToken": "a", "refreshToken": "r", "locationId": location,
            "expiresAt": expires_at,
        });
        abi.tokens_import(json!({"tokens": [token], "replace": true})).ok();
    };
    let now = emulator.clock().now_ms();
    import(now + 86_400_000 + 60_000);
    assert_eq!(apply(&abi, &emulator, &body)["applied"], false);
    import(now + 86_400_000 - 60_000);
    assert_eq!(tell(&abi, &emulator, &uninstall(&location))["applied"], true);
}

#[test]
fn company_uninstall_deletes_only_the_tokens_of_its_locations() {
    let emulator =
        Emulator::start(Options { companies: 2, locations: 250, ..Options::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for store in [
        json!({"kind": "memory"}),
        json!({"kind": "sqlite", "path": folder.path().join("tokens.db")}),
    ] {
        let abi = Abi::with(&emulator, json!({"store": store}));
        let companies = emulator.company_ids();
        let now = emulator.clock().now_ms();
        let token = |company: &str, location: Option<&String>, granted: i64| {
            let owner = location.map_or(company, String::as_str);
            json!({
                "accessToken": "a", "refreshToken": owner,
                "companyId": company, "locationId": location,
                   "expiresAt": granted + 86_400_000})
        };
        let mut tokens: Vec<Value> =
            companies.iter().map(|id| token(id, None, now - 1000)).collect();
        for (index, location) in emulator.location_ids().iter().enumerate() {
            // One token of each company is newer than the webhook.
            let granted = if index % 250 == 7 { now + 60_000 } else { now - 1000 };
            tokens.push(token(&companies[index / 250], Some(location), granted));
        }
        assert_eq!(abi.tokens_import(json!({"tokens": tokens})).ok()["imported"], 502);
        let heard = abi.listen();
        let applied = tell(&abi, &emulator, &uninstall(&companies[0]));
        assert_eq!(
            applied,
            json!({"type": "UNINSTALL", "resourceId": companies[0], "applied": true})
        );
        assert_eq!(heard.events().len(), 250);
        let left = held(&abi);
        assert_eq!(left.len(), 252);
        assert!(left.contains(&companies[1]) && !left.contains(&companies[0]));
        assert!(left.contains(&emulator.location_ids()[7]));
    }
}

#[test]
fn company_uninstall_discards_waiting_installs() {
    let (emulator, abi) = with_client(2);
    let [early, late] = &emulator.location_ids()[..] else { panic!("two locations") };
    let too_late = emulator.webhook(&install(late));
    tell(&abi, &emulator, &install(early));
    pass(&emulator, 1);
    tell(&abi, &emulator, &uninstall(&emulator.company_id()));
    let applied = apply(&abi, &emulator, &too_late);
    assert_eq!(applied["applied"], false);
    assert_eq!(applied["reason"], "a later UNINSTALL of its company was applied");
    pass(&emulator, 1);
    abi.connect_company(&emulator);
    assert_eq!(held(&abi), [emulator.company_id()], "earlier installs are not minted");
    tell(&abi, &emulator, &install(late));
    assert_eq!(held(&abi).len(), 2);
}

#[test]
fn older_webhook_never_undoes_a_newer_webhook() {
    let emulator = emulator(1);
    let location = emulator.location_ids()[0].clone();
    let abi = Abi::new(&emulator);
    let installed = emulator.webhook(&install(&location));
    pass(&emulator, 1);
    let gone = emulator.webhook(&uninstall(&location));
    apply(&abi, &emulator, &gone);
    let applied = apply(&abi, &emulator, &installed);
    assert_eq!(
        (&applied["applied"], &applied["reason"]),
        (&json!(false), &json!("a later UNINSTALL was applied"))
    );
    pass(&emulator, 1);
    abi.connect_company(&emulator);
    assert_eq!(held(&abi).len(), 1, "nothing was minted");

    // If the UNINSTALL is lost or late and the INSTALL of a new installation arrives first, the new
    // token is minted and the late UNINSTALL does not delete it.
    let abi = Abi::new(&emulator);
    pass(&emulator, 1);
    abi.connect_company(&emulator);
    let first = abi.live_token(&emulator, &location);
    pass(&emulator, 2);
    let gone = emulator.webhook(&uninstall(&location));
    pass(&emulator, 2);
    sent(&emulator);
    tell(&abi, &emulator, &install(&location));
    assert_eq!(sent(&emulator), ["mint 200"]);
    let second = abi.live_token(&emulator, &location);
    assert_ne!(second, first);
    assert_eq!(apply(&abi, &emulator, &gone)["reason"], "the token is newer");
    assert_eq!(abi.live_token(&emulator, &location), second);

    // If the mint fails, the late UNINSTALL deletes the old token and maintenance mints the new
    // one.
    pass(&emulator, 2);
    let gone = emulator.webhook(&uninstall(&location));
    pass(&emulator, 2);
    emulator.inject(
        Rule::on(Endpoint::LocationToken).times(99),
        FaultKind::Reset { stage: Stage::BeforeProcessing },
    );
    tell(&abi, &emulator, &install(&location));
    assert_eq!(abi.live_token(&emulator, &location), second);
    let applied = apply(&abi, &emulator, &gone);
    assert_eq!(applied["reason"], "remembered, since no token could be minted yet");
    emulator.clear_faults();
    assert_eq!(held(&abi).len(), 1);
    assert_eq!(abi.tokens_maintain(json!({}), |_| true).ok()["refreshed"], 1);
    assert_ne!(abi.live_token(&emulator, &location), second);
}

#[test]
fn token_deleted_by_another_process_is_not_mistaken_for_a_new_installation() {
    let emulator = emulator(1);
    let folder = tempfile::tempdir().unwrap();
    let store = json!({"store": {"kind": "sqlite", "path": folder.path().join("tokens.db")}});
    let (one, two) = (Abi::with(&emulator, store.clone()), Abi::with(&emulator, store));
    one.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    assert_eq!(one.live_token(&emulator, &location), two.live_token(&emulator, &location));
    pass(&emulator, 1);
    emulator.uninstall(&location);
    tell(&one, &emulator, &uninstall(&location));
    pass(&emulator, 1);
    emulator.install_location(&location);
    tell(&two, &emulator, &install(&location));
    two.live_token(&emulator, &location);
}

#[test]
fn webhook_about_other_apps_or_other_events_changes_nothing() {
    let (emulator, abi, company) = with_company(1);
    let location = emulator.location_ids()[0].clone();
    abi.live_token(&emulator, &location);
    pass(&emulator, 1);
    sent(&emulator);
    let gone = |changes| body(&emulator, &uninstall(&location), changes);
    for (body, resource_id, reason) in [
        (gone(json!({"appId": "other"})), json!(location), "it is about another app"),
        (gone(json!({"appId": null})), json!(location), "it is about another app"),
        (
            gone(json!({"type": "LocationUpdate"})),
            json!(location),
            "its type does not concern tokens",
        ),
        (gone(json!({"type": "uninstall"})), json!(location), "its type does not concern tokens"),
        (gone(json!({"type": null})), json!(location), "its type does not concern tokens"),
        (
            gone(json!({"locationId": null})),
            Value::Null,
            "it names neither a location nor a company",
        ),
        (
            gone(json!({"locationId": "a\nb"})),
            Value::Null,
            "it names neither a location nor a company",
        ),
        (gone(json!({"locationId": 7})), Value::Null, "it names neither a location nor a company"),
        (
            body(&emulator, &install(&company), json!({})),
            json!(company),
            "a company's token requires a consent",
        ),
    ] {
        let applied = apply(&abi, &emulator, &body);
        assert_eq!(
            (&applied["applied"], &applied["reason"]),
            (&json!(false), &json!(reason)),
            "{body}"
        );
        assert_eq!(applied["resourceId"], resource_id, "{body}");
    }
    assert_eq!(held(&abi).len(), 2);
    assert_eq!(sent(&emulator), [""; 0]);
}

#[test]
fn delivery_is_applied_once_by_all_clients_of_a_store() {
    let emulator = emulator(1);
    let folder = tempfile::tempdir().unwrap();
    let store = json!({"store": {"kind": "sqlite", "path": folder.path().join("tokens.db")}});
    let (one, two) = (Abi::with(&emulator, store.clone()), Abi::with(&emulator, store));
    one.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    one.live_token(&emulator, &location);
    pass(&emulator, 1);
    // Only the ID is the same, and only the ID counts.
    let gone = |timestamp| {
        body(&emulator, &uninstall(&location), json!({"webhookId": "w-1", "timestamp": timestamp}))
    };
    assert_eq!(apply(&one, &emulator, &gone(emulator.clock().now_ms()))["applied"], true);
    one.live_token(&emulator, &location);
    pass(&emulator, 600);
    let again = apply(&two, &emulator, &gone(emulator.clock().now_ms()));
    assert_eq!(
        (&again["applied"], &again["reason"]),
        (&json!(false), &json!("it was applied before"))
    );
    assert_eq!(held(&two).len(), 2);
    // Ids are forgotten after a week.
    pass(&emulator, 7 * 86_400);
    assert_eq!(apply(&two, &emulator, &gone(emulator.clock().now_ms()))["applied"], true);
    assert_eq!(held(&two).len(), 1);
}

#[test]
fn delivery_that_could_not_be_applied_is_applied_when_redelivered() {
    let emulator = emulator(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let abi = Abi::with(&emulator, json!({"store": {"kind": "sqlite", "path": path}}));
    abi.connect_company(&emulator);
    abi.live_token(&emulator, &emulator.location_ids()[0]);
    pass(&emulator, 1);
    let body = emulator.webhook(&uninstall(&emulator.company_id()));
    let headers = signed(&emulator, body.as_bytes(), Signature::Ed25519);
    let database = rusqlite::Connection::open(&path).unwrap();
    // Each trigger stops the work one step later: at the first note, half-way, and before the final
    // mark.
    for (stop, left) in [
        ("INSERT ON note WHEN NEW.key LIKE 'installation/%'", 2),
        ("DELETE ON token WHEN OLD.user_type = 'Location'", 1),
        ("INSERT ON note WHEN NEW.key LIKE 'delivery/%'", 0),
    ] {
        let trigger =
            format!("CREATE TRIGGER stop BEFORE {stop} BEGIN SELECT RAISE(ABORT, 'stopped'); END");
        database.execute_batch(&trigger).unwrap();
        let error = abi.webhook_apply(body.as_bytes(), &headers).fails(Status::Store);
        assert_eq!(error["retryable"], true, "{stop}");
        assert_eq!(held(&abi).len(), left, "{stop}");
        database.execute_batch("DROP TRIGGER stop").unwrap();
    }
    let applied = abi.webhook_apply(body.as_bytes(), &headers).ok();
    assert_eq!(
        (&applied["applied"], &applied["reason"]),
        (&json!(true), &json!("no token was held"))
    );
    let again = abi.webhook_apply(body.as_bytes(), &headers).ok();
    assert_eq!(again["reason"], "it was applied before");
}

#[test]
fn uninstall_waits_for_a_refresh_in_progress() {
    let emulator = emulator(1);
    let folder = tempfile::tempdir().unwrap();
    let store = json!({"store": {"kind": "sqlite", "path": folder.path().join("tokens.db")}});
    let (one, two) = (Abi::with(&emulator, store.clone()), Abi::with(&emulator, store));
    let company = one.connect_company(&emulator);
    let hold = emulator.hold(Rule::on(Endpoint::Token), Stage::AfterProcessing);
    std::thread::scope(|scope| {
        let refresh = scope.spawn(|| one.token_refresh(&company));
        hold.wait_for(1);
        pass(&emulator, 1);
        let (two, emulator) = (&two, &emulator);
        let body = emulator.webhook(&uninstall(&company));
        let ending = scope.spawn(move || apply(two, emulator, &body));
        hold.release();
        refresh.join().unwrap().ok();
        assert_eq!(ending.join().unwrap()["applied"], true);
    });
    assert_eq!(held(&two), [""; 0], "the refresh did not restore the token");
}

// ---- Any order and number -----------------------------------------------------------------------

/// Events at the vendor, a second apart. The host sees only their webhooks.
#[derive(Debug, Clone)]
enum Act {
    /// A person consents for the whole company, and the host completes the consent.
    Consent,
    /// A location gets the app automatically.
    Install(usize),
    /// The app is removed from a location.
    Uninstall(usize),
    /// The app is removed from the company.
    UninstallCompany,
    /// The host requests the token of a location, which may fail.
    Ask(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Consent),
        4 => (0..3_usize).prop_map(Act::Install),
        4 => (0..3_usize).prop_map(Act::Uninstall),
        1 => Just(Act::UninstallCompany),
        4 => (0..3_usize).prop_map(Act::Ask),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The second number of each act decides when its webhooks arrive: if it is odd, at once as
    /// well. In the end all of them are delivered again, sorted by these numbers.
    #[test]
    fn deliveries_in_any_order_and_number_end_in_the_actual_state(
        acts in prop::collection::vec((act(), any::<u32>()), 1..14),
        order in prop::collection::vec(any::<u32>(), 64),
        shared in any::<bool>(),
    ) {
        let emulator = emulator(3);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let store = if shared { json!({
            "kind": "sqlite", "path": path,
        }) } else { json!({"kind": "memory"}) };
        let first = Abi::with(&emulator, json!({"store": store}));
        let other = shared.then(|| Abi::with(&emulator, json!({"store": store})));
        let host = |turn: usize| other.as_ref().filter(|_| turn % 2 == 1).unwrap_or(&first);
        let (company, locations) = (emulator.company_id(), emulator.location_ids());

        // The model: the installations after each event, in the order of the events.
        let (mut consented, mut installed) = (false, [false; 3]);
        for (turn, (act, chance)) in acts.iter().enumerate() {
            pass(&emulator, 1);
            let before = emulator.webhooks().len();
            match act {
                Act::Consent => {
                    host(turn).connect(&emulator, Decision::Company(company.clone()));
                    (consented, installed) = (true, [true; 3]);
                }
                Act::Install(index) => {
                    emulator.install_location(&locations[*index]);
                    installed[*index] = true;
                }
                Act::Uninstall(index) => {
                    emulator.uninstall(&locations[*index]);
                    installed[*index] = false;
                }
                Act::UninstallCompany => {
                    emulator.uninstall(&company);
                    (consented, installed) = (false, [false; 3]);
                }
                Act::Ask(index) => drop(host(turn).access_token(&locations[*index]).1),
            }
            if chance % 2 == 1 {
                for body in &emulator.webhooks()[before..] {
                    apply(host(turn), &emulator, body);
                }
            }
        }
        pass(&emulator, 1);
        let mut late: Vec<(u32, String)> = Vec::new();
        for (index, body) in emulator.webhooks().into_iter().enumerate() {
            for copy in 0..2 {
                late.push((order[(2 * index + copy) % order.len()], body.clone()));
            }
        }
        late.sort();
        for (turn, (_, body)) in late.iter().enumerate() {
            apply(host(turn), &emulator, body);
        }
        let report = first.tokens_maintain(json!({}), |_| true).ok();
        prop_assert_eq!(&report["failed"], &json!([]));

        let mut expected: Vec<&String> =
            locations
                .iter()
                .zip(installed)
                .filter(|(_, here)| *here && consented)
                .map(|(id, _)| id)
                .collect();
        expected.extend(consented.then_some(&company));
        expected.sort();
        let tokens = first.tokens_export(json!({})).ok();
        let tokens = tokens["tokens"].as_array().unwrap();
        let id = |token: &Value| {
            token.get("locationId").unwrap_or(&token["companyId"]).as_str().unwrap().to_owned()
        };
        let mut found: Vec<String> = tokens.iter().map(id).collect();
        found.sort();
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        for token in tokens {
            let access_token = token["accessToken"].as_str().unwrap();
            prop_assert!(emulator.access_token_is_live(access_token), "{} is dead", id(token));
        }
    }
}

// ---- Webhooks sent by the emulator --------------------------------------------------------------

/// A receiver for `count` webhooks, which responds to each after `receive` has handled it.
fn receiver(
    count: usize,
    receive: impl Fn(&[u8], &Value) + Send + 'static,
) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/webhooks", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        for _ in 0..count {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let (head, length) = loop {
                let mut buffer = [0; 4096];
                let read = socket.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
                if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head = std::str::from_utf8(&request[..end]).unwrap().to_owned();
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: "))
                        .unwrap();
                    break (end + 4, length.parse::<usize>().unwrap());
                }
            };
            while request.len() < head + length {
                let mut buffer = [0; 4096];
                let read = socket.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
            }
            let lines = std::str::from_utf8(&request[..head]).unwrap().lines().skip(1);
            let headers = lines.filter_map(|line| line.split_once(": "));
            let headers =
                Value::from_iter(headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
            receive(&request[head..], &headers);
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    (url, thread)
}

#[test]
fn webhooks_of_the_emulator_keep_a_host_up_to_date() {
    let emulator = emulator(3);
    let abi = std::sync::Arc::new(Abi::new(&emulator));
    let applying = std::sync::Arc::clone(&abi);
    // The company and its three locations, one uninstalled location, and the uninstalled company.
    let (url, receiver) = receiver(6, move |body, headers| {
        applying.webhook_apply(body, headers).ok();
    });
    emulator.set_webhook_url(Some(url));
    let company = abi.connect_company(&emulator);
    let location = emulator.location_ids()[0].clone();
    // The first delivery may arrive before or after the token of the consent.
    until(|| {
        abi.tokens_maintain(json!({}), |_| true).ok();
        held(&abi).len() == 4
    });
    pass(&emulator, 1);
    emulator.uninstall(&location);
    until(|| held(&abi).len() == 3);
    pass(&emulator, 1);
    emulator.uninstall(&company);
    receiver.join().unwrap();
    assert_eq!(held(&abi), [""; 0]);
    assert_eq!(emulator.webhooks().len(), 6);
}
