//! Rate limiter: an exact sliding window and a daily quota per company or location.
//!
//! The window runs on real time, not on the emulator's clock, because it limits the real request
//! rate.

use crate::behaviour::DailyReset;
use crate::clock::milliseconds;
use crate::options::RateLimit;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

const DAY_MS: i64 = 86_400_000;

#[derive(Debug, Default)]
pub(crate) struct RateLimiter {
    resources: HashMap<String, Usage>,
    answers: u64,
}

#[derive(Debug, Default)]
struct Usage {
    /// When the requests of the current window were admitted.
    recent: VecDeque<Instant>,
    day: i64,
    today: u64,
}

/// Whether a request is admitted, and the remaining quota.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    pub(crate) admitted: bool,
    limit: RateLimit,
    remaining: u64,
    daily_remaining: u64,
    /// Whether this response carries the daily reset header.
    tells_reset: bool,
}

impl RateLimiter {
    /// Admits and counts a request, or refuses it. Refused requests do not count.
    pub(crate) fn take(
        &mut self,
        limit: RateLimit,
        resource_id: &str,
        now: Instant,
        day: i64,
    ) -> Quota {
        self.answers += 1;
        let tells_reset = self.answers.is_multiple_of(2);
        let usage = self.resources.entry(resource_id.to_owned()).or_default();
        let window = Duration::from_millis(limit.per_ms);
        while usage
            .recent
            .front()
            .is_some_and(|&earlier| now.saturating_duration_since(earlier) >= window)
        {
            usage.recent.pop_front();
        }
        if usage.day != day {
            usage.day = day;
            usage.today = 0;
        }

        let requests = u64::from(limit.requests);
        let admitted = (usage.recent.len() as u64) < requests && usage.today < limit.per_day;
        if admitted {
            usage.recent.push_back(now);
            usage.today += 1;
        }
        Quota {
            admitted,
            limit,
            remaining: requests.saturating_sub(usage.recent.len() as u64),
            daily_remaining: limit.per_day.saturating_sub(usage.today),
            // Once the daily quota is used up, every 429 carries the header.
            tells_reset: tells_reset || (!admitted && usage.today >= limit.per_day),
        }
    }

    /// Uses up a resource's daily quota, as another program with the same app would.
    pub(crate) fn spend_day(&mut self, limit: RateLimit, resource_id: &str, day: i64) {
        let usage = self.resources.entry(resource_id.to_owned()).or_default();
        usage.day = day;
        usage.today = limit.per_day;
    }
}

impl Quota {
    pub(crate) fn headers(&self) -> [(&'static str, String); 5] {
        [
            ("x-ratelimit-limit-daily", self.limit.per_day.to_string()),
            ("x-ratelimit-daily-remaining", self.daily_remaining.to_string()),
            ("x-ratelimit-interval-milliseconds", self.limit.per_ms.to_string()),
            ("x-ratelimit-max", self.limit.requests.to_string()),
            ("x-ratelimit-remaining", self.remaining.to_string()),
        ]
    }

    /// The daily reset header, on the responses that carry it. `speed` is the ratio of the
    /// emulator's clock to real time.
    pub(crate) fn daily_reset(
        &self,
        unit: DailyReset,
        now_ms: i64,
        speed: f64,
    ) -> Option<(&'static str, String)> {
        let left_ms = milliseconds(DAY_MS - now_ms.rem_euclid(DAY_MS), 1.0 / speed);
        let value = match unit {
            DailyReset::Absent => return None,
            DailyReset::Milliseconds => left_ms,
            DailyReset::Seconds => (left_ms + 999) / 1_000,
        };
        self.tells_reset.then(|| ("x-ratelimit-daily-reset", value.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { requests: 2, per_ms: 1_000, per_day: 3 };

    #[test]
    fn window_slides() {
        let mut limiter = RateLimiter::default();
        let start = Instant::now();
        let mut at = |ms| limiter.take(LIMIT, "a", start + Duration::from_millis(ms), 0).admitted;
        assert!(at(0));
        assert!(at(900));
        assert!(!at(999), "two within a second are all there is");
        assert!(at(1_000), "the first has left the window");
        assert!(!at(1_001));
    }

    #[test]
    fn daily_quota_is_counted_separately() {
        let mut limiter = RateLimiter::default();
        let start = Instant::now();
        let mut at = |seconds, day| {
            limiter.take(LIMIT, "a", start + Duration::from_secs(seconds), day).admitted
        };
        assert!(at(0, 0) && at(2, 0) && at(4, 0));
        assert!(!at(6, 0));
        assert!(at(8, 1), "a new day");
    }

    #[test]
    fn resources_have_separate_limits() {
        let mut limiter = RateLimiter::default();
        let now = Instant::now();
        for resource in ["a", "b"] {
            assert!(limiter.take(LIMIT, resource, now, 0).admitted);
            assert_eq!(limiter.take(LIMIT, resource, now, 0).remaining, 0);
            assert!(!limiter.take(LIMIT, resource, now, 0).admitted);
        }
    }
}
