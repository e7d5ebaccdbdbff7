//! Canned HTTP responses for the fuzz targets in `fuzz/`. Compiled by cargo-fuzz only. Compiled by
//! cargo-fuzz only.

use std::cell::RefCell;
use std::collections::VecDeque;

use ureq::http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::http::Response;

thread_local! {
    static ANSWERS: RefCell<VecDeque<CannedAnswer>> = const { RefCell::new(VecDeque::new()) };
}

/// An answer as bytes.
#[derive(Debug, Clone)]
pub struct CannedAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Names and values; what is none is left out.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// From now on the requests of this thread get these answers, one each, and the last one from there on. None at all
/// sends them out again.
pub fn answer_with(answers: Vec<CannedAnswer>) {
    ANSWERS.set(answers.into());
}

/// The answer to the next request, where one is canned.
pub(crate) fn next_response() -> Option<Response> {
    let canned = ANSWERS.with_borrow_mut(|answers| match answers.len() {
        0 | 1 => answers.front().cloned(),
        _ => answers.pop_front(),
    })?;
    let mut headers = HeaderMap::new();
    for (name, value) in &canned.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    Some(Response { status: canned.status, headers, body: Zeroizing::new(canned.body) })
}
