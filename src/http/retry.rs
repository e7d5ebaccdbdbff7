//! What may be sent again, and after which pause.

use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, header};

use super::{Answer, Effect, NoAnswer};
use crate::config::Retry;
use crate::error::Status;
use crate::random;

/// The pause that the server asked for, if it did.
type Asked = Option<Duration>;

/// Whether an answer calls for another attempt, and the pause it asks for.
pub fn after_answer(answer: &Answer, effect: Effect) -> Option<Asked> {
    match answer.status {
        429 | 503 => Some(retry_after(&answer.headers)),
        500.. if effect == Effect::Repeatable => Some(retry_after(&answer.headers)),
        _ => None,
    }
}

/// Whether a failure calls for another attempt.
pub fn after_failure(failure: &NoAnswer, effect: Effect) -> Option<Asked> {
    let harmless = effect == Effect::Repeatable || !failure.sent;
    (harmless && failure.error.status() == Status::Network).then_some(None)
}

/// The pause before the attempt after this one: what the server asked for, else exponential with full jitter.
pub fn pause(policy: &Retry, attempt: u32, asked: Asked) -> Duration {
    asked.unwrap_or_else(|| {
        let doubled = policy.base_delay_ms.saturating_mul(1_u64 << (attempt - 1).min(32));
        Duration::from_millis(random::up_to(doubled.min(policy.max_delay_ms)))
    })
}

/// `Retry-After`, as seconds or as a date (RFC 9110, 10.2.3).
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_cap() {
        let policy = Retry { max_attempts: 9, base_delay_ms: 100, max_delay_ms: 1000 };
        for (attempt, most) in [(1, 100), (2, 200), (3, 400), (5, 1000), (60, 1000)] {
            for _ in 0..50 {
                assert!(pause(&policy, attempt, None) <= Duration::from_millis(most), "attempt {attempt}");
            }
        }
        assert_eq!(pause(&policy, 1, Some(Duration::from_secs(7))), Duration::from_secs(7));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(read(&soon).unwrap() > Duration::from_secs(50));
        assert_eq!(read("soon"), None);
    }
}
