//! Canned HTTP responses for the fuzz targets in `fuzz/`. Compiled only by cargo-fuzz.

use std::cell::RefCell;
use std::collections::VecDeque;

use ureq::http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::http::Response;

thread_local! {
    static ANSWERS: RefCell<VecDeque<CannedAnswer>> = const { RefCell::new(VecDeque::new()) };
}

/// A response with unchecked bytes.
#[derive(Debug, Clone)]
pub struct CannedAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Names and values; invalid ones are skipped.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Answers this thread's requests with these responses, one each, then repeats the last one. With
/// an empty list, requests are sent over the network again.
pub fn answer_with(answers: Vec<CannedAnswer>) {
    ANSWERS.set(answers.into());
}

/// The response to the next request, if one is canned.
pub(crate) fn next_response() -> Option<Response> {
    let canned = ANSWERS.with_borrow_mut(|answers| match answers.len() {
        0 | 1 => answers.front().cloned(),
        _ => answers.pop_front(),
    })?;
    let mut headers = HeaderMap::new();
    for (name, value) in &canned.headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    Some(Response { status: canned.status, headers, body: Zeroizing::new(canned.body) })
}
