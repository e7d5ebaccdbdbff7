//! What may be sent again, and after which pause.

use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, header};

use super::{Answer, Effect, NoAnswer};
use crate::config::Retry;
use crate::error::Status;
use crate::random;

/// The pause that the server asked for, if it did.
type Asked = Option<Duration>;

/// What is beyond this is taken for a mistake.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// Whether an answer calls for another attempt, and the pause it asks for.
pub fn after_answer(answer: &Answer, effect: Effect) -> Option<Asked> {
    match answer.status {
        429 | 503 => Some(wait_asked(answer)),
        500.. if effect == Effect::Repeatable => Some(wait_asked(answer)),
        _ => None,
    }
}

/// Whether a failure calls for another attempt: one that did no harm, and that the next may not meet.
pub fn after_failure(failure: &NoAnswer, effect: Effect) -> Option<Asked> {
    let harmless = effect == Effect::Repeatable || !failure.sent;
    let passes = match failure.error.status() {
        Status::Network => !failure.lasting,
        // No connection in its own time, which need not be all the time there is.
        Status::Timeout => !failure.sent,
        _ => false,
    };
    (harmless && passes).then_some(None)
}

/// The pause before the attempt after this one: exponential with full jitter, or what the server asked for if that is
/// longer.
pub fn pause(policy: &Retry, attempt: u32, asked: Asked) -> Duration {
    let doubled = policy.base_delay_ms.saturating_mul(1_u64 << (attempt - 1).min(32));
    let backoff = Duration::from_millis(random::up_to(doubled.min(policy.max_delay_ms)));
    asked.unwrap_or_default().max(backoff)
}

/// How long the server asks to wait: `Retry-After`, else, on a 429, the interval of its limit.
pub fn wait_asked(answer: &Answer) -> Asked {
    let interval = || {
        let interval = answer.headers.get("x-ratelimit-interval-milliseconds")?.to_str().ok()?.trim().parse();
        interval.ok().map(Duration::from_millis).filter(|_| answer.status == 429)
    };
    retry_after(&answer.headers).or_else(interval).map(|wait| wait.min(LONGEST_WAIT))
}

/// `Retry-After`, as seconds or as a date (RFC 9110, 10.2.3). A date counts from the answer's own, since the server's
/// clock need not agree with ours.
fn retry_after(headers: &HeaderMap) -> Asked {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(header::RETRY_AFTER)?;
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has: the longest wait there is.
        return Some(value.parse().map_or(LONGEST_WAIT, Duration::from_secs));
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
    fn the_pause_doubles_up_to_its_cap() {
        let policy = Retry { max_attempts: 9, base_delay_ms: 100, max_delay_ms: 1000 };
        for (attempt, most) in [(1, 100), (2, 200), (3, 400), (5, 1000), (60, 1000)] {
            for _ in 0..50 {
                assert!(pause(&policy, attempt, None) <= Duration::from_millis(most), "attempt {attempt}");
            }
        }
        assert_eq!(pause(&policy, 1, Some(Duration::from_secs(7))), Duration::from_secs(7));
        let longest = (0..200).map(|_| pause(&policy, 4, Some(Duration::ZERO))).max();
        assert!(
            longest > Some(Duration::from_millis(100)),
            "being asked for no pause is no reason to hammer"
        );
    }

    fn wait(status: u16, headers: &[(&'static str, &str)]) -> Asked {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        wait_asked(&Answer { status, headers: headers.collect(), body: Vec::new().into() })
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |text: &str| wait(503, &[("retry-after", text)]);
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("0"), Some(Duration::ZERO));
        for mistake in ["86401", "18446744073709551615", "99999999999999999999999"] {
            assert_eq!(read(mistake), Some(LONGEST_WAIT), "{mistake}");
        }
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(read(&soon).unwrap() > Duration::from_secs(50));
        for nothing in ["soon", "-7", "1.5", ""] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
        let dates =
            [("date", "Wed, 21 Oct 2015 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2015 07:28:09 GMT")];
        assert_eq!(wait(503, &dates), Some(Duration::from_secs(9)), "by the server's own clock");
    }

    #[test]
    fn a_refusal_without_retry_after_asks_for_the_interval_of_its_limit() {
        let interval = ("x-ratelimit-interval-milliseconds", "10000");
        assert_eq!(wait(429, &[interval]), Some(Duration::from_secs(10)));
        assert_eq!(wait(429, &[interval, ("retry-after", "3")]), Some(Duration::from_secs(3)));
        assert_eq!(wait(503, &[interval]), None);
        assert_eq!(wait(429, &[]), None);
    }
}
