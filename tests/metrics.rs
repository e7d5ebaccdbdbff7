//! Metrics in Prometheus' text format: the same in every process as far as they are about stored
//! tokens, valid in every state of the store, and bounded by the call's deadline.

mod fixture;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::client_from;
use ghl_oauth::internals::store::Host;
use ghl_oauth::internals::{Client, Config, Result};
use ghl_oauth_emulator::{Endpoint, FaultKind, Rule};
use serde_json::json;
use zeroize::Zeroizing;

use fixture::{EVERY, Fixture, Kind, refresh_unsaved};
use support::{Abi, config, emulator, with_company};

/// Values by name and labels.
type Samples = BTreeMap<String, f64>;

/// The metrics of the client; checks the format.
#[track_caller]
fn metrics(abi: &Abi) -> Samples {
    samples(&abi.metrics(json!({})).text())
}

/// Parses the text format, in which a metric's help and type precede its samples, once.
#[track_caller]
fn samples(text: &str) -> Samples {
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{text:?}");
    let (mut samples, mut seen) = (Samples::new(), BTreeSet::new());
    let (mut name, mut kind) = ("", "");
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# HELP ") {
            let (of, help) = head.split_once(' ').unwrap();
            assert!(seen.insert(of) && help.ends_with('.'), "{line}");
            (name, kind) = (of, "");
        } else if let Some(head) = line.strip_prefix("# TYPE ") {
            let (of, type_) = head.split_once(' ').unwrap();
            assert!(of == name && kind.is_empty(), "{line}");
            assert_eq!(type_ == "counter", name.ends_with("_total"), "{line}");
            kind = type_;
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(sample.split('{').next().unwrap(), name, "{line}");
            assert!(!kind.is_empty(), "{line}");
            let value = value.parse().unwrap();
            assert_eq!(samples.insert(sample.to_owned(), value), None, "{line}");
        }
    }
    samples
}

/// The metrics that every process of a store reports alike.
fn of_the_store(mut samples: Samples) -> Samples {
    samples.retain(|sample, _| {
        let name = sample.split('{').next().unwrap();
        let is_of_process = name.ends_with("_total")
            || ["tokens_cached", "tokens_unsaved", "build_info"]
                .iter()
                .any(|own| name.ends_with(own));
        !is_of_process
    });
    samples
}

fn by_state(samples: &Samples) -> [f64; 4] {
    ["ok", "inactive", "reauthorizationRequired", "unreadable"]
        .map(|state| samples[&format!("ghl_oauth_tokens{{state=\"{state}\"}}")])
}

#[test]
fn tokens_are_counted_by_state_in_every_kind_of_store() {
    for kind in EVERY {
        let fixture = Fixture::new(kind);
        let abi = fixture.open();
        assert_eq!(by_state(&metrics(&abi)), [0.0; 4], "{kind:?}");
        let company = abi.connect_company(&fixture.emulator);
        for index in 0..2 {
            abi.live_token(&fixture.emulator, &fixture.location(index));
        }
        assert_eq!(by_state(&metrics(&abi)), [3.0, 0.0, 0.0, 0.0], "{kind:?}");
        fixture.emulator.set_location_active(&fixture.location(0), false);
        abi.token_refresh(&fixture.location(0)).fails(Status::LocationInactive);
        fixture.emulator.revoke_refresh_token(&company);
        abi.token_refresh(&company).fails(Status::ReauthorizationRequired);
        assert_eq!(by_state(&metrics(&abi)), [1.0, 1.0, 1.0, 0.0], "{kind:?}");
        if kind != Kind::Memory {
            fixture.damage(&fixture.location(1));
            assert_eq!(by_state(&metrics(&abi)), [0.0, 1.0, 1.0, 1.0], "{kind:?}");
        }
    }
}

#[test]
fn failing_tokens_are_counted_by_status_until_their_next_success() {
    let fixture = Fixture::new(Kind::Sqlite);
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    let failing = |status: &str| format!("ghl_oauth_tokens_failing{{status=\"{status}\"}}");
    let before = metrics(&abi);
    assert_eq!(before[&failing("GHL_ERR_SERVER")], 0.0);
    assert!(!before.contains_key("ghl_oauth_token_failing_expiry_seconds"), "{before:?}");
    let granted = before["ghl_oauth_last_success_timestamp_seconds"];
    assert!((granted - fixture.emulator.clock().now_ms() as f64 / 1000.0).abs() < 120.0);
    let fault = fixture.emulator.inject(
        Rule::on(Endpoint::Token),
        FaultKind::UnavailablePage { stage: Default::default() },
    );
    abi.token_refresh(&company).fails(Status::Server);
    let other = metrics(&fixture.open());
    assert_eq!(other[&failing("GHL_ERR_SERVER")], 1.0, "{other:?}");
    assert!(other["ghl_oauth_token_failing_expiry_seconds"] > 80_000.0, "{other:?}");
    assert_eq!(other["ghl_oauth_maintenance_lag_seconds"], 0.0);
    fixture.emulator.remove_fault(fault);
    abi.token_refresh(&company).ok();
    let other = metrics(&fixture.open());
    assert_eq!(other[&failing("GHL_ERR_SERVER")], 0.0, "{other:?}");
    fixture.emulator.revoke_refresh_token(&company);
    abi.token_refresh(&company).fails(Status::ReauthorizationRequired);
    let lost = metrics(&fixture.open());
    assert_eq!(lost[&failing("GHL_ERR_REAUTHORIZATION_REQUIRED")], 1.0, "{lost:?}");
}

#[test]
fn every_process_reports_the_same_about_stored_tokens() {
    for kind in [Kind::Sqlite, Kind::Host] {
        let fixture = Fixture::new(kind);
        let (one, other) = (fixture.open(), fixture.open());
        let company = one.connect_company(&fixture.emulator);
        one.live_token(&fixture.emulator, &fixture.location(0));
        let round = |samples: Samples| -> Samples {
            // A host's client uses the system clock.
            of_the_store(samples)
                .into_iter()
                .map(|(name, time)| (name, (time / 600.0).round()))
                .collect()
        };
        assert_eq!(round(metrics(&one)), round(metrics(&other)), "{kind:?}");
        let (one, other) = (metrics(&one), metrics(&other));
        assert!(one["ghl_oauth_requests_total"] >= 2.0, "{one:?}");
        assert_eq!(other["ghl_oauth_requests_total"], 0.0);
        assert_eq!((one["ghl_oauth_tokens_cached"], other["ghl_oauth_tokens_cached"]), (2.0, 0.0));
        assert!(!company.is_empty());
    }
}

#[test]
fn more_tokens_than_fit_on_a_page_are_all_counted() {
    let fixture = Fixture::new(Kind::Sqlite);
    let abi = fixture.open();
    let tokens: Vec<_> = (0..2_501)
        .map(|number| {
            json!({"accessToken": format!("a{number}"), "refreshToken": format!("r{number}"),
                "locationId": format!("location-{number}"), "companyId": "c",
                "expiresAt": fixture.emulator.clock().now_ms() + 3_600_000 + number})
        })
        .collect();
    abi.tokens_import(json!({"tokens": tokens})).ok();
    assert_eq!(by_state(&metrics(&abi)), [2_501.0, 0.0, 0.0, 0.0]);
}

#[test]
fn counters_tell_apart_successes_failures_repetitions_and_refusals() {
    let (emulator, abi, company) = with_company(1);
    let location = &emulator.location_ids()[0];
    abi.live_token(&emulator, location);
    abi.token_refresh(&company).ok();
    emulator.inject(
        Rule::on(Endpoint::Token).times(2),
        FaultKind::Status {
            status: 429,
            body: "{}".into(),
            content_type: None,
            headers: Default::default(),
            stage: Default::default(),
        },
    );
    abi.token_refresh(&company).ok();
    emulator.revoke_refresh_token(&company);
    abi.token_refresh(&company).fails(Status::ReauthorizationRequired);
    let samples = metrics(&abi);
    let count = |name: &str| samples[&format!("ghl_oauth_{name}")];
    assert_eq!(count("token_refreshes_total"), 2.0);
    assert_eq!(count("token_mints_total"), 1.0);
    assert_eq!(count("requests_rate_limited_total"), 2.0);
    assert_eq!(count("requests_repeated_total"), 2.0);
    assert_eq!(count("requests_unanswered_total"), 0.0);
    assert_eq!(count("token_failures_total{status=\"GHL_ERR_REAUTHORIZATION_REQUIRED\"}"), 1.0);
    assert_eq!(count("token_failures_total{status=\"GHL_ERR_NETWORK\"}"), 0.0);
    let stats = abi.stats();
    assert_eq!(stats["tokens"]["failedByStatus"], json!({"GHL_ERR_REAUTHORIZATION_REQUIRED": 1}));
    assert_eq!(
        (&stats["tokens"]["failed"], &stats["requests"]["rateLimited"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(stats["requests"]["sent"], count("requests_total"));
}

#[test]
fn expiry_and_overdue_maintenance_are_reported_in_seconds() {
    let fixture = Fixture::new(Kind::Sqlite);
    let abi = fixture.open();
    let absent = metrics(&abi);
    assert!(!absent.contains_key("ghl_oauth_token_next_expiry_seconds"), "{absent:?}");
    assert_eq!(absent["ghl_oauth_maintenance_lag_seconds"], 0.0);
    abi.connect_company(&fixture.emulator);
    let day = 86_399.0;
    let near = |value: f64, expected: f64| (value - expected).abs() < 120.0;
    let fresh = metrics(&abi);
    for name in ["next", "earliest"] {
        let left = fresh[&format!("ghl_oauth_token_{name}_expiry_seconds")];
        assert!(near(left, day), "{name}: {left}");
    }
    // A quarter of its life before it expires, the token is due.
    fixture.pass(Duration::from_secs(20 * 3600));
    let due = metrics(&abi);
    let lag = due["ghl_oauth_maintenance_lag_seconds"];
    assert!(near(lag, 2.0 * 3600.0), "{lag}");
    assert_eq!(due["ghl_oauth_tokens_expired"], 0.0);
    fixture.pass(Duration::from_secs(5 * 3600));
    let late = metrics(&abi);
    assert_eq!(late["ghl_oauth_tokens_expired"], 1.0);
    assert!(near(late["ghl_oauth_token_earliest_expiry_seconds"], -3600.0), "{late:?}");
    assert!(!late.contains_key("ghl_oauth_token_next_expiry_seconds"), "{late:?}");
    abi.tokens_maintain(json!({}), |_| true).ok();
    let renewed = metrics(&abi);
    assert_eq!(renewed["ghl_oauth_maintenance_lag_seconds"], 0.0);
    assert!(near(renewed["ghl_oauth_token_next_expiry_seconds"], day), "{renewed:?}");
}

#[test]
fn failing_store_is_reported_beside_the_counters() {
    let fixture = Fixture::new(Kind::Sqlite);
    let abi = fixture.open();
    abi.connect_company(&fixture.emulator);
    assert_eq!(metrics(&abi)["ghl_oauth_store_up"], 1.0);
    fixture.refuse_all(true);
    let down = metrics(&abi);
    assert_eq!(of_the_store(down.clone()), Samples::from([("ghl_oauth_store_up".into(), 0.0)]));
    assert!(down["ghl_oauth_requests_total"] >= 1.0, "{down:?}");
    fixture.refuse_all(false);
    assert_eq!(by_state(&metrics(&abi)), [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn unsaved_token_is_counted_by_its_process_and_saved_state_by_the_store() {
    let fixture = Fixture::new(Kind::Sqlite);
    fixture.emulator.set_reuse_window_seconds(0);
    let abi = fixture.open();
    let company = abi.connect_company(&fixture.emulator);
    refresh_unsaved(&fixture, &abi, &company);
    let (own, other) = (metrics(&abi), metrics(&fixture.open()));
    assert_eq!((own["ghl_oauth_tokens_unsaved"], other["ghl_oauth_tokens_unsaved"]), (1.0, 0.0));
    assert_eq!(by_state(&own), by_state(&other));
    fixture.accept_saves();
    abi.tokens_list(json!({})).ok();
    assert_eq!(metrics(&abi)["ghl_oauth_tokens_unsaved"], 0.0);
}

/// A store whose list never ends.
#[derive(Default)]
struct Endless {
    pages: AtomicU64,
}

impl Host for Endless {
    fn load(&self, _: &str) -> Result<Option<Zeroizing<String>>> {
        Ok(None)
    }

    fn save(&self, _: &str, _: &str, _: u64) -> Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn list(&self, _: &str) -> Result<Zeroizing<String>> {
        let page = format!("{:020}", self.pages.fetch_add(1, Ordering::SeqCst));
        thread::sleep(Duration::from_millis(1));
        Ok(json!({"items": [], "nextPageToken": page}).to_string().into())
    }

    fn has_lock(&self) -> bool {
        false
    }

    fn lock(&self, _: &str, _: Duration) -> Result<()> {
        Ok(())
    }

    fn unlock(&self, _: &str) {}
}

#[test]
fn scan_of_an_endless_store_ends_by_the_timeout_and_by_cancellation() {
    let emulator = emulator(1);
    let config = config(&emulator, json!({"timeouts": {"totalMs": 600_000}})).to_string();
    let host = Arc::new(Endless::default());
    let store: Arc<dyn Host> = host.clone();
    let client = Client::with_host(&Config::from_json(&config).unwrap(), store).unwrap();
    let abi = Abi::adopt(client_from(client));
    let began = Instant::now();
    let samples = samples(&abi.metrics(json!({"timeoutMs": 200})).text());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(samples["ghl_oauth_store_up"], 0.0);
    let scanned = host.pages.load(Ordering::SeqCst);
    thread::scope(|scope| {
        let call =
            scope.spawn(|| abi.metrics(json!({"callId": "scrape"})).fails(Status::Cancelled));
        while host.pages.load(Ordering::SeqCst) < scanned + 2 {
            thread::yield_now();
        }
        assert_eq!(abi.cancel_call("scrape"), 0);
        call.join().unwrap();
    });
}
