//! Retry policy for HTTP requests: which requests may be sent again, and after which backoff with
//! jitter.

use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, header};

use super::{Idempotency, Response, TransportError};
use crate::config::Retry;
use crate::error::Status;
use crate::random;

/// The delay that the server asked for, if any.
type RequestedDelay = Option<Duration>;

/// Maximum delay; a longer one is taken for a mistake of the server.
const MAX_WAIT: Duration = Duration::from_secs(86_400);

/// Maximum size of an error body of the API, in bytes; a longer body comes from another server.
const MAX_REFUSAL: usize = 16 * 1024;

/// Whether a response calls for another attempt, and the delay that it asks for.
pub fn after_response(response: &Response, idempotency: Idempotency) -> Option<RequestedDelay> {
    match response.status {
        _ if is_refusal_unprocessed(response) => Some(requested_delay(response)),
        500.. if idempotency == Idempotency::Idempotent => Some(requested_delay(response)),
        400..=499 if idempotency == Idempotency::Idempotent && is_transient(response) => {
            Some(requested_delay(response))
        }
        _ => None,
    }
}

/// Whether the API timed out internally on a request that it may have processed. It reports this
/// with various statuses, mostly 401.
fn is_transient(response: &Response) -> bool {
    const MESSAGE: &[u8] = b"command timed out";
    let body = response.body.trim_ascii_start();
    body.starts_with(b"{")
        && body.len() <= MAX_REFUSAL
        && body.windows(MESSAGE.len()).any(|window| window.eq_ignore_ascii_case(MESSAGE))
}

/// Whether a failure calls for another attempt: the request certainly had no effect or may be
/// repeated, and the cause may be temporary.
pub fn after_failure(failure: &TransportError, idempotency: Idempotency) -> Option<RequestedDelay> {
    let is_safe = idempotency == Idempotency::Idempotent || !failure.sent;
    let is_temporary = match failure.error.status() {
        Status::Network => !failure.permanent,
        // The connect timeout, which may end long before the call's deadline.
        Status::Timeout => !failure.sent,
        _ => false,
    };
    (is_safe && is_temporary).then_some(None)
}

/// The delay before the next attempt: exponential backoff with full jitter, or the delay that the
/// server asked for, if that is longer.
pub fn pause(policy: &Retry, attempt: u32, requested: RequestedDelay) -> Duration {
    let doubled = policy.base_delay_ms.saturating_mul(1_u64 << (attempt - 1).min(32));
    let backoff = Duration::from_millis(random::up_to(doubled.min(policy.max_delay_ms)));
    requested.unwrap_or_default().max(backoff)
}

/// Whether the server refused the request before it acted. A 503 says so only with `Retry-After`:
/// without it, a gateway may have responded after forwarding the request.
pub fn is_refusal_unprocessed(response: &Response) -> bool {
    match response.status {
        429 => true,
        503 => retry_after(&response.headers).is_some(),
        _ => false,
    }
}

/// The delay that the server asks for: `Retry-After`, or, for a 429, the interval of the rate
/// limit. If the daily quota is exhausted, at least the time until it is renewed.
pub fn requested_delay(response: &Response) -> RequestedDelay {
    let interval = || {
        let interval = number(&response.headers, "x-ratelimit-interval-milliseconds")
            .map(Duration::from_millis);
        interval.filter(|_| response.status == 429)
    };
    let daily = daily_reset(&response.headers)
        .filter(|_| response.status == 429 && is_day_spent(&response.headers));
    let wait = retry_after(&response.headers).or_else(interval);
    wait.max(daily).map(|wait| wait.min(MAX_WAIT))
}

/// Whether the daily quota is exhausted.
pub fn is_day_spent(headers: &HeaderMap) -> bool {
    daily_remaining(headers) == Some(0)
}

pub fn daily_remaining(headers: &HeaderMap) -> Option<u64> {
    number(headers, "x-ratelimit-daily-remaining")
}

/// The time until the daily quota is renewed, in milliseconds. Some responses contained seconds
/// instead: too short a delay costs one refused request. More than a day is ignored.
pub fn daily_reset(headers: &HeaderMap) -> RequestedDelay {
    let reset = number(headers, "x-ratelimit-daily-reset").map(Duration::from_millis);
    reset.filter(|reset| *reset <= MAX_WAIT)
}

pub fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `Retry-After` (RFC 9110, section 10.2.3), as seconds or as a date. A date is compared with the
/// response's `Date`, since the clocks of server and client may differ.
fn retry_after(headers: &HeaderMap) -> RequestedDelay {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(header::RETRY_AFTER)?;
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too many digits for a number.
        return Some(value.parse().map_or(MAX_WAIT, Duration::from_secs));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let now = text(header::DATE).and_then(date).unwrap_or_else(SystemTime::now);
    Some(date(value)?.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderName;

    #[test]
    fn backoff_doubles_up_to_its_cap() {
        let policy = Retry { max_attempts: 9, base_delay_ms: 100, max_delay_ms: 1000 };
        for (attempt, most) in [(1, 100), (2, 200), (3, 400), (5, 1000), (60, 1000)] {
            for _ in 0..50 {
                assert!(
                    pause(&policy, attempt, None) <= Duration::from_millis(most),
                    "attempt {attempt}"
                );
            }
        }
        assert_eq!(pause(&policy, 1, Some(Duration::from_secs(7))), Duration::from_secs(7));
        let longest = (0..200).map(|_| pause(&policy, 4, Some(Duration::ZERO))).max();
        assert!(
            longest > Some(Duration::from_millis(100)),
            "Retry-After: 0 does not disable the backoff"
        );
    }

    fn wait(status: u16, headers: &[(&'static str, &str)]) -> RequestedDelay {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        requested_delay(&Response { status, headers: headers.collect(), body: Vec::new().into() })
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_a_date() {
        let read = |text: &str| wait(503, &[("retry-after", text)]);
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("0"), Some(Duration::ZERO));
        for mistake in ["86401", "18446744073709551615", "99999999999999999999999"] {
            assert_eq!(read(mistake), Some(MAX_WAIT), "{mistake}");
        }
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(read(&soon).unwrap() > Duration::from_secs(50));
        for invalid in ["soon", "-7", "1.5", ""] {
            assert_eq!(read(invalid), None, "{invalid}");
        }
        let dates = [
            ("date", "Wed, 21 Oct 2015 07:28:00 GMT"),
            ("retry-after", "Wed, 21 Oct 2015 07:28:09 GMT"),
        ];
        assert_eq!(wait(503, &dates), Some(Duration::from_secs(9)), "by the server's own clock");
    }

    #[test]
    fn exhausted_daily_quota_is_waited_for_within_plausible_bounds() {
        let [interval, remaining] =
            [("x-ratelimit-interval-milliseconds", "10000"), ("x-ratelimit-daily-remaining", "0")];
        let reset = |value| ("x-ratelimit-daily-reset", value);
        let hours = Some(Duration::from_millis(84_322_000));
        assert_eq!(wait(429, &[interval, remaining, reset("84322000")]), hours);
        assert_eq!(wait(429, &[remaining, reset("84322000"), ("retry-after", "3")]), hours);
        assert_eq!(
            wait(429, &[remaining, reset("1000"), ("retry-after", "3")]),
            Some(Duration::from_secs(3))
        );
        for implausible in ["86400001", "18446744073709551615", "-1", "soon", ""] {
            let headers = [interval, remaining, reset(implausible)];
            assert_eq!(wait(429, &headers), Some(Duration::from_secs(10)), "{implausible}");
        }
        assert_eq!(
            wait(429, &[interval, reset("84322000")]),
            Some(Duration::from_secs(10)),
            "the daily quota is not exhausted"
        );
        assert_eq!(wait(503, &[remaining, reset("84322000")]), None);
    }

    #[test]
    fn upstream_timeout_is_retried_only_if_a_repetition_is_safe() {
        let response = |status: u16, body: &str| Response {
            status,
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec().into(),
        };
        for body in [
            r#"{"statusCode":401,"message":"Command timed out"}"#,
            r#" {"message":{"text":"COMMAND timed out"}}"#,
        ] {
            assert_eq!(
                after_response(&response(401, body), Idempotency::Idempotent),
                Some(None),
                "{body}"
            );
            for idempotency in
                [Idempotency::NonIdempotent, Idempotency::SingleUse, Idempotency::Replayable]
            {
                assert_eq!(
                    after_response(&response(401, body), idempotency),
                    None,
                    "{idempotency:?}"
                );
            }
        }
        for other in ["", r#"{"message":"Invalid JWT"}"#, "<p>Command timed out</p>"] {
            assert_eq!(
                after_response(&response(401, other), Idempotency::Idempotent),
                None,
                "{other}"
            );
        }
    }

    #[test]
    fn refusal_without_retry_after_waits_for_the_limit_interval() {
        let interval = ("x-ratelimit-interval-milliseconds", "10000");
        assert_eq!(wait(429, &[interval]), Some(Duration::from_secs(10)));
        assert_eq!(wait(429, &[interval, ("retry-after", "3")]), Some(Duration::from_secs(3)));
        assert_eq!(wait(503, &[interval]), None);
        assert_eq!(wait(429, &[]), None);
    }
}
