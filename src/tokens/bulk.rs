//! Bulk calls: concurrency, progress and error reports of calls over many tokens.

use std::time::Duration;

use serde_json::{Value, json};

use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};

/// A progress callback; returns whether to continue.
pub type Progress<'a> = &'a dyn Fn(&Value) -> bool;

/// The interval of progress reports, and the longest single wait for a result.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// The number of workers: `wanted`, or `usual` by default.
pub fn workers(wanted: Option<i64>, usual: i64) -> Result<usize> {
    let wanted = wanted.unwrap_or(usual);
    usize::try_from(wanted).ok().filter(|wanted| (1..=64).contains(wanted)).ok_or_else(|| {
        Error::invalid_argument("concurrency", format!("concurrency is {wanted}, not from 1 to 64"))
    })
}

/// A failure in a report; `named` is the key for the ID.
pub fn failure(named: &str, id: &str, error: &Error) -> Value {
    json!({named: id, "error": error.to_json()["error"]})
}

pub fn stopped() -> Error {
    resumable(Error::new(Status::Cancelled, "the progress callback stopped the call"))
}

/// `CANCELLED` or `TIMEOUT` if the whole call must end.
pub fn check(whole: &Deadline) -> Result<()> {
    whole.check_call().map_err(resumable)
}

fn resumable(error: Error) -> Error {
    error.with_help(
        "call again for the rest; the tokens renewed so far are saved, or in memory if the store \
         failed",
    )
}
