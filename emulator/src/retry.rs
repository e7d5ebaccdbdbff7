//! Webhook retry rules with a circuit breaker: the three generations that the vendor published.

use serde::{Deserialize, Serialize};

/// The interval between attempts, on the emulator's clock. The vendor adds jitter; the emulator
/// does not.
pub(crate) const RETRY_INTERVAL_MS: i64 = 10 * 60 * 1_000;

/// How many consecutive failures open the circuit breaker, and for how long it stays open. The
/// vendor has not published its figures; these are the emulator's.
const BREAKER_FAILURES: u32 = 5;
const BREAKER_PAUSE_MS: i64 = 30 * 60 * 1_000;

/// The retry rule for webhook deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RetryRule {
    /// No retries.
    #[default]
    None,
    /// Retries after 408, 429, 5xx or no response, up to 6 times.
    Generation1,
    /// Retries after 429 only, up to 6 times.
    Generation2,
    /// Retries after anything except 2xx, up to 12 times, with a circuit breaker per receiver.
    Generation3,
}

impl RetryRule {
    /// Whether to retry. `retries` is the number of retries so far; `status` is `None` without a
    /// response.
    pub(crate) fn repeats(self, status: Option<u16>, retries: u32) -> bool {
        match self {
            Self::None => false,
            Self::Generation1 => {
                retries < 6 && status.is_none_or(|status| matches!(status, 408 | 429 | 500..=599))
            }
            Self::Generation2 => retries < 6 && status == Some(429),
            Self::Generation3 => {
                retries < 12 && !status.is_some_and(|status| (200..300).contains(&status))
            }
        }
    }

    pub(crate) fn has_breaker(self) -> bool {
        self == Self::Generation3
    }
}

/// The circuit breaker of a receiver: it holds deliveries back after several consecutive failures.
#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker {
    failures: u32,
    open_until_ms: Option<i64>,
}

impl CircuitBreaker {
    /// The time until which nothing is sent.
    pub(crate) fn open_until(&self, now_ms: i64) -> Option<i64> {
        self.open_until_ms.filter(|until| now_ms < *until)
    }

    pub(crate) fn record(&mut self, succeeded: bool, now_ms: i64) {
        if succeeded {
            *self = Self::default();
            return;
        }
        self.failures += 1;
        // Half-open: after the pause, a single failure opens the breaker again.
        if self.failures >= BREAKER_FAILURES {
            self.open_until_ms = Some(now_ms + BREAKER_PAUSE_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of attempts for a receiver that always responds with this status.
    fn attempts(rule: RetryRule, status: Option<u16>) -> u32 {
        (0..).take_while(|retries| rule.repeats(status, *retries)).count() as u32 + 1
    }

    #[test]
    fn each_rule_set_repeats_at_its_published_times() {
        use RetryRule::{Generation1, Generation2, Generation3, None as Never};
        for (status, expected) in [
            (Some(200), [1, 1, 1, 1]),
            (Some(400), [1, 1, 1, 13]),
            (Some(408), [1, 7, 1, 13]),
            (Some(429), [1, 7, 7, 13]),
            (Some(500), [1, 7, 1, 13]),
            (Some(503), [1, 7, 1, 13]),
            (None, [1, 7, 1, 13]),
        ] {
            let found =
                [Never, Generation1, Generation2, Generation3].map(|rule| attempts(rule, status));
            assert_eq!(found, expected, "{status:?}");
        }
    }

    #[test]
    fn circuit_breaker_opens_after_consecutive_failures_and_closes_after_a_success() {
        let mut breaker = CircuitBreaker::default();
        for _ in 0..BREAKER_FAILURES - 1 {
            breaker.record(false, 0);
        }
        assert_eq!(breaker.open_until(0), None);
        breaker.record(true, 0);
        for _ in 0..BREAKER_FAILURES {
            assert_eq!(breaker.open_until(0), None);
            breaker.record(false, 0);
        }
        assert_eq!(breaker.open_until(0), Some(BREAKER_PAUSE_MS));
        assert_eq!(breaker.open_until(BREAKER_PAUSE_MS), None);
        breaker.record(false, BREAKER_PAUSE_MS);
        assert_eq!(breaker.open_until(BREAKER_PAUSE_MS), Some(2 * BREAKER_PAUSE_MS));
    }
}
