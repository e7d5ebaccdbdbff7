//! Bulk calls: concurrency, progress and error reports of calls over many tokens.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Result, Status};

/// Told how far the work is; answers whether to go on.
pub type Progress<'a> = &'a dyn Fn(&Value) -> bool;

/// How often the caller is told how far the work is, and how long a result is waited for at a time.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// How many requests may be under way at once: what is wanted, or the usual.
pub fn workers(wanted: Option<i64>, usual: i64) -> Result<usize> {
    let wanted = wanted.unwrap_or(usual);
    usize::try_from(wanted).ok().filter(|wanted| (1..=64).contains(wanted)).ok_or_else(|| {
        Error::invalid_argument("concurrency", format!("concurrency is {wanted}, not from 1 to 64"))
    })
}

/// A token that nothing came of, as reports list it: under `named`, the report's name for its id.
pub fn failure(named: &str, id: &str, error: &Error) -> Value {
    json!({named: id, "error": error.to_json()["error"]})
}

/// The end of the work before it was done.
pub fn stopped(why: &str) -> Error {
    Error::new(Status::Cancelled, why).with_help("what was renewed is saved; call again for the rest")
}
