//! The options that every call with parameters accepts: its timeout and its ID.

use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::json;

/// The keys of the options in the parameters of a call.
pub const OPTION_KEYS: [&str; 2] = ["timeoutMs", "callId"];

const MAX_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// The maximum length of a call's ID, in bytes.
const MAX_CALL_ID: usize = 256;

/// The options of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// Ends the call after this time, instead of `timeouts.totalMs`.
    pub timeout: Option<Duration>,
    /// The ID by which the call can be cancelled.
    pub call_id: Option<String>,
}

impl CallOptions {
    /// Splits the options off the parameters of a call. `keys` are the options that the call
    /// accepts; the other one, if any, is a parameter of its own. Returns the text without the
    /// options; `None` if it contains none of them.
    pub fn split(
        argument: &str,
        text: &str,
        keys: &[&str],
    ) -> Result<(CallOptions, Option<Zeroizing<String>>)> {
        let mut options = CallOptions::default();
        let Some((found, rest)) = json::split(argument, text, keys)? else {
            return Ok((options, None));
        };
        for (key, value) in found {
            match key {
                _ if value.is_null() => {}
                "timeoutMs" => options.timeout = Some(timeout(&value)?),
                _ => options.call_id = Some(call_id(value)?),
            }
        }
        Ok((options, Some(rest)))
    }
}

fn timeout(value: &Value) -> Result<Duration> {
    let timeout = value.as_u64().filter(|timeout| (1..=MAX_TIMEOUT_MS).contains(timeout));
    timeout.map(Duration::from_millis).ok_or_else(|| {
        let message = format!("timeoutMs must be an integer from 1 to {MAX_TIMEOUT_MS}");
        Error::invalid_argument("timeoutMs", message)
    })
}

fn call_id(value: Value) -> Result<String> {
    let refused = || Error::invalid_argument("callId", "callId must be a string");
    let Value::String(call_id) = value else { return Err(refused()) };
    valid_call_id("callId", &call_id)?;
    Ok(call_id)
}

/// Checks that a string can be the ID of a call; the error names the parameter.
pub fn valid_call_id(parameter: &str, call_id: &str) -> Result<()> {
    if (1..=MAX_CALL_ID).contains(&call_id.len()) && !call_id.contains('\0') {
        return Ok(());
    }
    let message = format!("{parameter} must have 1 to {MAX_CALL_ID} bytes, none of them zero");
    Err(Error::invalid_argument(parameter, message))
}
