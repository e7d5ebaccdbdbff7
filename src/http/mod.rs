//! The HTTP client: deadlines, rate limits, retries and size limits of one request and its
//! response. Knows nothing of tokens.

mod exchange;
mod rate_limiter;
mod resolver;
mod retry;
mod tcp;
mod transport;
mod ureq_transport;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ureq::http::{HeaderMap, HeaderName, Method, Uri};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{RateLimit, Retry};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::secret::Secret;

pub use rate_limiter::Bucket;
use rate_limiter::RateLimiter;
pub use retry::{has_retry_after, requested_delay};
pub use ureq_transport::UreqTransport;

/// The longest head of an answer that is read.
const MAX_HEAD: usize = 64 * 1024;

/// The sizes of a connection's buffers. A head must fit into each; more would only have to be made, and wiped, for each new
/// connection.
const INPUT: usize = MAX_HEAD + 8 * 1024;
const OUTPUT: usize = 64 * 1024;

/// Whether sending a request twice does harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// May be repeated, and abandoned at any moment.
    Idempotent,
    /// Changes something: repeated only when it surely did nothing, but abandoned at any moment.
    NonIdempotent,
    /// Spends something that exists once: repeated only when it surely did nothing, never abandoned.
    SingleUse,
    /// The same, but for a while the server gives the answer again to whoever repeats it: so no answer is waited for so
    /// long that this while is over.
    Replayable,
}

impl Idempotency {
    /// Whether nobody needs to wait for its end.
    fn may_be_abandoned(self) -> bool {
        !matches!(self, Idempotency::SingleUse | Idempotency::Replayable)
    }
}

/// What is sent.
#[derive(Clone)]
pub struct Request<'a> {
    /// GET, POST, …
    pub method: Method,
    /// Where to.
    pub uri: Uri,
    /// Headers beside those that every request carries.
    pub headers: Vec<(HeaderName, &'a str)>,
    /// The bearer token.
    pub bearer: Option<&'a Secret>,
    /// The body, with its content type among the headers.
    pub body: Option<&'a [u8]>,
    /// Whether it may be repeated.
    pub idempotency: Idempotency,
    /// Whose rate limit it counts against.
    pub bucket: Option<Bucket<'a>>,
}

/// What came back.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, never longer than the configured cap.
    pub body: Zeroizing<Vec<u8>>,
}

impl Drop for Response {
    /// Emptied, the body is all spare room, which is overwritten at once, and not byte by byte.
    fn drop(&mut self) {
        self.body.clear();
    }
}

/// Why no answer came back.
#[derive(Debug)]
pub struct TransportError {
    /// What happened.
    pub error: Error,
    /// Whether any byte of the request may have reached the server.
    pub sent: bool,
    /// Whether a repetition would only meet the same: a certificate that is not trusted, a proxy that refuses.
    pub permanent: bool,
}

impl TransportError {
    /// What ended the call before anything was sent.
    fn before_sending(error: Error) -> TransportError {
        TransportError { error, sent: false, permanent: false }
    }
}

/// How often something happened since the client was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that left, repetitions included.
    pub sent: AtomicU64,
    /// Requests that were repetitions.
    pub repeated: AtomicU64,
    /// Requests without an answer.
    pub unanswered: AtomicU64,
}

/// Makes one attempt at a request. Tells whether any byte of it may have reached the server.
pub trait Transport: Send + Sync {
    /// Sends the request and reads its answer before the deadline.
    fn send(&self, request: &Request, deadline: &Deadline) -> Result<Response, TransportError>;
}

/// The requests of one client: rate limits, and retries of requests that may be repeated.
pub struct Http {
    transport: Box<dyn Transport>,
    retry: Retry,
    rate_limiter: RateLimiter,
    counters: Counters,
}

impl Http {
    /// Requests over `transport`.
    pub fn new(
        retry: &Retry,
        rate_limit: &RateLimit,
        clock: &Arc<dyn Clock>,
        transport: Box<dyn Transport>,
    ) -> Http {
        let rate_limiter = RateLimiter::new(rate_limit, Arc::clone(clock));
        Http { transport, retry: retry.clone(), rate_limiter, counters: Counters::default() }
    }

    /// What happened since the client was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The figures of the busiest resources.
    pub fn rate_limits(&self) -> serde_json::Value {
        self.rate_limiter.figures()
    }

    /// Sends, paced, and repeats what may be repeated until the deadline.
    pub fn exchange(&self, request: &Request, deadline: &Deadline) -> Result<Response, TransportError> {
        let mut attempt = 1;
        loop {
            let permit = match request.bucket {
                Some(bucket) => Some(
                    self.rate_limiter.acquire(bucket, deadline).map_err(TransportError::before_sending)?,
                ),
                None => None,
            };
            let outcome = self.send(request, deadline);
            let requested = match &outcome {
                Ok(response) => retry::after_response(response, request.idempotency),
                Err(failure) => retry::after_failure(failure, request.idempotency),
            };
            let pause = requested.map(|requested| retry::pause(&self.retry, attempt, requested));
            if let Some(permit) = permit {
                permit.release(outcome.as_ref().ok(), pause);
            }
            let Some(pause) = pause else { return outcome };
            if attempt >= self.retry.max_attempts || pause >= deadline.remaining() {
                return outcome;
            }
            log::debug!(
                "{} {}: attempt {attempt} failed, next in {pause:?}",
                request.method,
                request.uri.path()
            );
            deadline.sleep(pause).map_err(TransportError::before_sending)?;
            self.counters.repeated.fetch_add(1, Ordering::Relaxed);
            attempt += 1;
        }
    }

    /// Sends once.
    fn send(&self, request: &Request, deadline: &Deadline) -> Result<Response, TransportError> {
        deadline.check().map_err(TransportError::before_sending)?;
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        let outcome = self.transport.send(request, deadline);
        match &outcome {
            Ok(response) => log::debug!("{} {}: {}", request.method, request.uri.path(), response.status),
            Err(failure) => {
                self.counters.unanswered.fetch_add(1, Ordering::Relaxed);
                log::warn!("{} {}: {}", request.method, request.uri.path(), failure.error);
            }
        }
        outcome
    }
}
