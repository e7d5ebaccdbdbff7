//! The PostgreSQL store, on real servers and through a real pooler.
#![cfg(all(unix, feature = "postgres"))]

mod postgres_server;
mod store_suite;

use ghl_oauth::config::Timeouts;
use ghl_oauth::secret::Secret;
use ghl_oauth::store::{PostgresStore, Seal};
use postgres_server::{Pooler, shared};
use store_suite::keeps_its_promises;

fn open(url: &str) -> PostgresStore {
    try_open(url).unwrap()
}

fn try_open(url: &str) -> ghl_oauth::Result<PostgresStore> {
    PostgresStore::open(&Secret::new(url.to_owned()), None, &Timeouts::default(), Seal::none("app-1"))
}

#[test]
fn it_keeps_its_promises() {
    let Some(server) = shared() else { return };
    keeps_its_promises(&open(&server.database().url()));
}

#[test]
fn it_keeps_its_promises_through_a_pooler() {
    let Some(server) = shared() else { return };
    let Some(pooler) = Pooler::start(server, 20) else { return };
    keeps_its_promises(&open(&server.database().url_at(&format!("127.0.0.1:{}", pooler.port))));
}
