//! The HTTP client: sends a request and reads its response, with a deadline, rate limits, retries
//! and size limits. It knows nothing about tokens.

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
pub use retry::{is_refusal_unprocessed, requested_delay};
pub use ureq_transport::UreqTransport;

/// Maximum size of a response's status line and headers, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Buffer sizes of a connection, in bytes. The headers must fit into each buffer. Larger buffers
/// would only cost allocation and wiping for each new connection.
const INPUT: usize = MAX_HEAD + 8 * 1024;
const OUTPUT: usize = 64 * 1024;

/// Whether a request may be sent again or abandoned (RFC 9110, section 9.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// May be repeated and may be abandoned at any time.
    Idempotent,
    /// Has side effects: repeated only if it certainly had no effect; may be abandoned at any time.
    NonIdempotent,
    /// Consumes a single-use credential: repeated only if it certainly had no effect; never
    /// abandoned.
    SingleUse,
    /// Like `SingleUse`, but the server replays its response for a limited time (the replay
    /// window). Each attempt therefore has a timeout short enough to leave time for a repetition.
    Replayable,
}

impl Idempotency {
    /// Whether the caller may stop waiting for the response.
    fn may_be_abandoned(self) -> bool {
        !matches!(self, Idempotency::SingleUse | Idempotency::Replayable)
    }

    /// Whether the caller may repeat its call although the server may have processed the request.
    /// The next call resolves the unknown outcome of a `Replayable` request.
    pub fn may_be_repeated_by_caller(self) -> bool {
        matches!(self, Idempotency::Idempotent | Idempotency::Replayable)
    }
}

#[derive(Clone)]
pub struct Request<'a> {
    pub method: Method,
    /// The URL.
    pub uri: Uri,
    /// Additional headers; every request also carries `Accept` and `User-Agent`.
    pub headers: Vec<(HeaderName, &'a str)>,
    pub bearer: Option<&'a Secret>,
    /// The body; its content type is one of the headers.
    pub body: Option<&'a [u8]>,
    /// Whether the request may be repeated.
    pub idempotency: Idempotency,
    /// Whether the caller forbids repetitions, even of a request that had no effect.
    pub is_single_attempt: bool,
    /// The rate limit bucket; `None` for an unlimited request.
    pub bucket: Option<Bucket<'a>>,
}

pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body, at most as long as the configured limit.
    pub body: Zeroizing<Vec<u8>>,
}

impl Drop for Response {
    /// Clears the body first: `Zeroizing` then wipes it as spare capacity, in one pass instead of
    /// byte by byte.
    fn drop(&mut self) {
        self.body.clear();
    }
}

/// A response, after all attempts.
pub struct Answer {
    /// The response to the last attempt.
    pub response: Response,
    /// Whether the server may have processed an earlier attempt.
    pub may_have_acted_before: bool,
    /// Whether only the caller's own timeout prevented another attempt.
    pub is_cut_short: bool,
}

/// The effects of the attempts before the last one.
#[derive(Default)]
struct Attempts {
    /// Whether the server may have processed one of them.
    may_have_acted: bool,
    /// Whether only the caller's own timeout prevented another attempt.
    is_cut_short: bool,
}

/// Why there is no response.
#[derive(Debug)]
pub struct TransportError {
    pub error: Error,
    /// Whether any byte of the request, in this or an earlier attempt, may have reached the server.
    pub sent: bool,
    /// Whether a repetition would fail as well: an untrusted certificate, or a proxy that refuses
    /// the connection.
    pub permanent: bool,
}

impl TransportError {
    /// An error that ended the call before anything was sent.
    fn before_sending(error: Error) -> TransportError {
        TransportError { error, sent: false, permanent: false }
    }

    /// The failure of the call after its last attempt. `sent` says whether the server may have
    /// processed an earlier one.
    fn of_call(self, idempotency: Idempotency, sent: bool) -> TransportError {
        let sent = sent || self.sent;
        let retryable = self.error.retryable()
            && !self.permanent
            && (!sent || idempotency.may_be_repeated_by_caller());
        TransportError { error: self.error.with_sent(sent).with_retryable(retryable), sent, ..self }
    }
}

/// Counts of events since the client was created.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests sent, including repetitions.
    pub sent: AtomicU64,
    /// Requests that were repetitions.
    pub repeated: AtomicU64,
    /// Requests without a response.
    pub unanswered: AtomicU64,
    /// Responses with status 429.
    pub rate_limited: AtomicU64,
}

/// Makes a single attempt at a request.
pub trait Transport: Send + Sync {
    fn send(&self, request: &Request, deadline: &Deadline) -> Result<Response, TransportError>;
}

/// The HTTP client of one `Client`: rate limits and retries on top of a transport.
pub struct Http {
    transport: Box<dyn Transport>,
    retry: Retry,
    rate_limiter: RateLimiter,
    counters: Counters,
}

impl Http {
    /// Sends requests over `transport`.
    pub fn new(
        retry: &Retry,
        rate_limit: &RateLimit,
        clock: &Arc<dyn Clock>,
        transport: Box<dyn Transport>,
    ) -> Http {
        let rate_limiter = RateLimiter::new(rate_limit, Arc::clone(clock));
        Http { transport, retry: retry.clone(), rate_limiter, counters: Counters::default() }
    }

    /// The counters since the client was created.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The state of the busiest buckets, as JSON.
    pub fn rate_limits(&self) -> serde_json::Value {
        self.rate_limiter.figures()
    }

    /// Waits for the rate limiter, sends the request, and retries it before the deadline if that is
    /// safe. The error says whether the server may have processed any of the attempts.
    pub fn exchange(
        &self,
        request: &Request,
        deadline: &Deadline,
    ) -> Result<Answer, TransportError> {
        let mut attempts = Attempts::default();
        let outcome = self.attempts(request, deadline, &mut attempts);
        let Attempts { may_have_acted, is_cut_short } = attempts;
        match outcome {
            Ok(response) => {
                Ok(Answer { response, may_have_acted_before: may_have_acted, is_cut_short })
            }
            Err(failure) => {
                let mut failure = failure.of_call(request.idempotency, may_have_acted);
                if is_cut_short {
                    failure.error = failure.error.into_cut_short();
                }
                Err(failure)
            }
        }
    }

    /// Returns the outcome of the last attempt, and notes in `attempts` how it came to that.
    fn attempts(
        &self,
        request: &Request,
        deadline: &Deadline,
        attempts: &mut Attempts,
    ) -> Result<Response, TransportError> {
        let max_attempts = if request.is_single_attempt { 1 } else { self.retry.max_attempts };
        let mut attempt = 1;
        loop {
            let permit = match request.bucket {
                Some(bucket) => Some(
                    self.rate_limiter
                        .acquire(bucket, deadline)
                        .map_err(TransportError::before_sending)?,
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
            if attempt >= max_attempts {
                return outcome;
            }
            if pause >= deadline.remaining() {
                attempts.is_cut_short = deadline.cuts_short(pause);
                return outcome;
            }
            log::debug!(
                "an attempt failed and is repeated method={} path={} attempt={attempt} pause_ms={}",
                request.method,
                request.uri.path(),
                pause.as_millis()
            );
            attempts.may_have_acted |= match &outcome {
                Ok(response) => !is_refusal_unprocessed(response),
                Err(failure) => failure.sent,
            };
            deadline.sleep(pause).map_err(TransportError::before_sending)?;
            self.counters.repeated.fetch_add(1, Ordering::Relaxed);
            attempt += 1;
        }
    }

    /// Makes one attempt.
    fn send(&self, request: &Request, deadline: &Deadline) -> Result<Response, TransportError> {
        deadline.check().map_err(TransportError::before_sending)?;
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        let outcome = self.transport.send(request, deadline);
        match &outcome {
            Ok(response) => {
                if response.status == 429 {
                    self.counters.rate_limited.fetch_add(1, Ordering::Relaxed);
                }
                log::debug!(
                    "a response arrived method={} path={} http_status={}",
                    request.method,
                    request.uri.path(),
                    response.status
                );
            }
            Err(failure) => {
                self.counters.unanswered.fetch_add(1, Ordering::Relaxed);
                log::warn!(
                    "a request failed method={} path={}{}",
                    request.method,
                    request.uri.path(),
                    failure.error.fields("")
                );
            }
        }
        outcome
    }
}
