//! Arbitrary results of a host store: refused as `STORE` without quoting them, or usable records.
//! The first byte decides whether the store is sealed. A line break separates the record from the
//! page.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use ghl_oauth::internals::deadline::Deadline;
use ghl_oauth::internals::store::{Host, HostStore, Query, Seal, Store};
use ghl_oauth::{Error, Result, Status};
use ghl_oauth_fuzz::MARK;
use libfuzzer_sys::fuzz_target;
use zeroize::Zeroizing;

struct Answers {
    record: String,
    page: String,
}

impl Host for Answers {
    fn load(&self, _id: &str) -> Result<Option<Zeroizing<String>>> {
        Ok(Some(self.record.clone().into()))
    }

    fn save(&self, id: &str, record: &str, expected_version: u64) -> Result<()> {
        let record: serde_json::Value = serde_json::from_str(record).unwrap();
        assert_eq!(record["resourceId"], id);
        assert_eq!(record["version"], expected_version + 1);
        Ok(())
    }

    fn remove(&self, _id: &str) -> Result<()> {
        Ok(())
    }

    fn list(&self, query: &str) -> Result<Zeroizing<String>> {
        let query: serde_json::Value = serde_json::from_str(query).unwrap();
        assert!(query["pageSize"].as_u64().is_some_and(|size| size > 0));
        Ok(self.page.clone().into())
    }

    fn has_lock(&self) -> bool {
        false
    }

    fn lock(&self, _id: &str, _timeout: Duration) -> Result<()> {
        unreachable!("there is no lock")
    }

    fn unlock(&self, _id: &str) {}
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    let rest = String::from_utf8_lossy(rest);
    let (record, page) = rest.split_once('\n').unwrap_or((&rest, &rest));
    let host = Answers { record: record.to_owned(), page: page.to_owned() };
    let seal = match first % 2 {
        0 => Seal::none("app-1"),
        _ => Seal::new(
            "app-1",
            &["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned().into()],
            false,
            "k",
        )
        .unwrap(),
    };
    let store = HostStore::new(Arc::new(host), seal);
    let deadline = Deadline::after(Duration::from_secs(5), &Arc::default());
    let told = |error: Error| {
        assert_eq!(error.status(), Status::Store);
        assert!(!error.to_json().to_string().contains(MARK), "{error}");
    };
    match store.load("resource-1", &deadline) {
        Ok(record) => {
            let record = record.unwrap();
            assert_eq!(record.resource_id, "resource-1");
            if record.version < u64::MAX {
                assert_eq!(store.save(&record, &deadline).unwrap(), record.version + 1);
            }
        }
        Err(error) => told(error),
    }
    for limit in [1, 7] {
        match store.list(&Query { limit, ..Query::default() }, &deadline) {
            Ok(page) => {
                assert!(page.records.len() <= limit);
                assert!(page.records.is_sorted_by_key(|record| &record.resource_id));
                for item in page.unreadable {
                    assert!(item.error.is_unreadable());
                    told(item.error);
                }
            }
            Err(error) => told(error),
        }
        let _ = store.due(Some("c"), &(i64::MIN..=7), Some("a"), limit, &deadline).map_err(told);
        let _ = store.notes("due", None, limit, &deadline).map_err(told);
    }
    let _ = store.next_renewal(None, &deadline).map_err(told);
    let _ = store.reseal(&deadline, &|_| true).map_err(told);
    let _ = store.note("n", &deadline).map_err(told);
    let _ = store.prune_notes(7, &deadline).map_err(told);
    let _ = store.remove_all(&[("resource-1".into(), 1)], &deadline).map_err(told);
    let _ = store.lock("resource-1", &deadline.within(Duration::from_millis(1))).map_err(told);
});
