//! Clock jumps, and tokens without a lifetime in the response.

mod connect;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ghl_oauth::config::StoreKind;
use ghl_oauth::internals::clock::Clock;
use ghl_oauth::internals::token::ASSUMED_LIFETIME;
use ghl_oauth::internals::{Client, Config, Status};
use ghl_oauth_emulator::{Emulator, ExpiresIn, Options};
use serde_json::json;

const DAY_MS: i64 = 86_400_000;

/// The wall clock and the uptime clock of a machine, moved independently.
struct Clocks {
    wall_ms: AtomicI64,
    uptime_ms: AtomicI64,
}

impl Clock for Clocks {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.uptime_ms.load(Ordering::SeqCst).unsigned_abs())
    }
}

struct Fixture {
    emulator: Emulator,
    client: Client,
    clocks: Arc<Clocks>,
    config: Config,
    company: String,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let emulator = Emulator::start(Options::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(emulator.client_id(), emulator.client_secret());
        config.base_url = emulator.base_url();
        config.authorize_url = emulator.authorize_url();
        config.redirect_uri = Some(emulator.redirect_uri().to_owned());
        config.scopes = vec!["oauth.readonly".into()];
        config.store.kind = StoreKind::Sqlite;
        config.store.path = Some(folder.path().join("tokens.db"));
        let now = emulator.clock().now_ms();
        let clocks =
            Arc::new(Clocks { wall_ms: AtomicI64::new(now), uptime_ms: AtomicI64::new(5_000) });
        let client = Client::with_clock(&config, Arc::clone(&clocks) as Arc<dyn Clock>).unwrap();
        let company = emulator.company_id();
        let fixture = Fixture { emulator, client, clocks, config, company, _folder: folder };
        connect::connect(&fixture.emulator, &fixture.client);
        fixture
    }

    /// The total number of refreshes after one request for the token.
    fn refreshes_after_asking(&self) -> u64 {
        let token = self.client.access_token(&self.company).unwrap();
        assert!(self.emulator.access_token_is_live(token.expose()));
        self.emulator.refreshes()
    }
}

#[test]
fn wall_clock_jump_does_not_affect_a_token_in_memory() {
    let fixture = Fixture::new();
    for jump in [10 * DAY_MS, 400 * DAY_MS, -800 * DAY_MS] {
        fixture.clocks.wall_ms.fetch_add(jump, Ordering::SeqCst);
        assert_eq!(fixture.refreshes_after_asking(), 0, "{jump}");
    }
    // The token still ages by the monotonic clock.
    fixture.clocks.uptime_ms.fetch_add(DAY_MS, Ordering::SeqCst);
    assert_eq!(fixture.refreshes_after_asking(), 1);
    assert_eq!(fixture.refreshes_after_asking(), 1);
}

#[test]
fn wall_clock_ahead_causes_one_refresh_in_a_new_process() {
    let fixture = Fixture::new();
    fixture.clocks.wall_ms.fetch_add(2 * DAY_MS, Ordering::SeqCst);
    let started =
        Client::with_clock(&fixture.config, Arc::clone(&fixture.clocks) as Arc<dyn Clock>).unwrap();
    for _ in 0..3 {
        started.access_token(&fixture.company).unwrap();
    }
    assert_eq!(fixture.emulator.refreshes(), 1);
}

#[test]
fn missing_token_lifetime_is_replaced_by_a_default() {
    for (expires_in, life_ms) in [
        (ExpiresIn::Absent, ASSUMED_LIFETIME.as_millis() as i64),
        (ExpiresIn::Value(json!(0)), ASSUMED_LIFETIME.as_millis() as i64),
        (ExpiresIn::Value(json!(-86_399)), ASSUMED_LIFETIME.as_millis() as i64),
        (ExpiresIn::Value(json!("soon")), ASSUMED_LIFETIME.as_millis() as i64),
        (ExpiresIn::Value(json!("86399")), 86_399_000),
        (ExpiresIn::Value(json!(60)), 60_000),
    ] {
        let fixture = Fixture::new();
        fixture.emulator.set_expires_in(expires_in.clone());
        connect::connect(&fixture.emulator, &fixture.client);
        let items = fixture.client.tokens_list(&Default::default()).unwrap();
        let expires_at = items["items"][0]["expiresAt"].as_i64().unwrap();
        assert_eq!(expires_at - fixture.clocks.wall_ms(), life_ms, "{expires_in:?}");
        // No response causes a refresh on every call.
        assert_eq!(fixture.refreshes_after_asking(), 0, "{expires_in:?}");
        fixture.clocks.uptime_ms.fetch_add(life_ms, Ordering::SeqCst);
        fixture.clocks.wall_ms.fetch_add(life_ms, Ordering::SeqCst);
        assert_eq!(fixture.refreshes_after_asking(), 1, "{expires_in:?}");
        assert_eq!(fixture.refreshes_after_asking(), 1, "{expires_in:?}");
    }
}

#[test]
fn token_in_memory_is_used_until_it_expires_while_the_store_cannot_be_read() {
    let fixture = Fixture::new();
    let old = fixture.client.access_token(&fixture.company).unwrap();
    let database = rusqlite::Connection::open(fixture.config.store.path.as_ref().unwrap()).unwrap();
    database.execute_batch("ALTER TABLE token RENAME TO hidden").unwrap();
    let pass = |ms: i64| {
        fixture.clocks.uptime_ms.fetch_add(ms, Ordering::SeqCst);
        fixture.clocks.wall_ms.fetch_add(ms, Ordering::SeqCst);
    };
    // Inside the margin the token is due, but no refresh is sent whose result could not be saved.
    pass(DAY_MS - 200_000);
    assert!(fixture.client.access_token(&fixture.company).unwrap().matches(old.expose()));
    assert_eq!(fixture.emulator.refreshes(), 0);
    pass(200_000);
    assert_eq!(fixture.client.access_token(&fixture.company).unwrap_err().status(), Status::Store);
    database.execute_batch("ALTER TABLE hidden RENAME TO token").unwrap();
    assert_eq!(fixture.refreshes_after_asking(), 1);
}
