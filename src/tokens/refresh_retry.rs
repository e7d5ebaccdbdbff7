//! Retry policy of a refresh: backoff with jitter within the replay window, in which the server
//! repeats its response for a refresh token that it has already consumed.

use std::time::Duration;

use crate::api::{Failure, Outcome};
use crate::error::{Error, Status};
use crate::random;

/// Attempts per flight after unknown outcomes, if the caller still has a valid token.
const ATTEMPTS: u32 = 3;

/// The pause before a retry, also to confirm a refusal of a token that may have been spent; far
/// shorter than the replay window.
const PAUSE: Duration = Duration::from_millis(500);

/// Used instead of `PAUSE` to confirm a refusal after a timeout: the server may still be processing
/// the first request.
const LONG_PAUSE: Duration = Duration::from_secs(4);

/// How long a caller without a valid token retries after the first lost response: longer than most
/// interruptions, but a small part of the replay window.
const MUST_SUCCEED_FOR: Duration = Duration::from_secs(4);

/// Minimum time left for the response of an optional attempt: a response after the deadline would
/// be lost.
const RESERVE: Duration = Duration::from_secs(3);

/// Replay window: how long the server repeats its response for a consumed refresh token.
const REPLAY_WINDOW_MS: i64 = 30_000;

/// The state of the attempts to use one refresh token.
#[derive(Debug)]
pub struct RefreshRetry {
    attempts: u32,
    may_be_spent: bool,
    /// The uptime until which a caller that must succeed retries; `None` if no response was lost
    /// within the replay window.
    must_succeed_until: Option<Duration>,
    was_refused: bool,
    /// Whether the last unknown outcome was a timeout.
    timed_out: bool,
}

impl RefreshRetry {
    /// Starts the attempts. `first_sent_ago_ms` is the age of an earlier request without a
    /// response, if there was one.
    pub fn new(first_sent_ago_ms: Option<i64>, uptime: Duration) -> RefreshRetry {
        let is_replayable =
            first_sent_ago_ms.is_some_and(|ago| (0..REPLAY_WINDOW_MS).contains(&ago));
        RefreshRetry {
            attempts: 0,
            may_be_spent: first_sent_ago_ms.is_some(),
            must_succeed_until: is_replayable.then_some(uptime + MUST_SUCCEED_FOR),
            was_refused: false,
            timed_out: false,
        }
    }

    /// Whether an earlier request may have consumed the token.
    pub fn may_be_spent(&self) -> bool {
        self.may_be_spent
    }

    /// The pause before the next attempt after a failure at `uptime`, or `None` to give up.
    /// `must_succeed` means that the caller has no valid token; `left` is its remaining time.
    pub fn after(
        &mut self,
        failure: &Failure,
        uptime: Duration,
        must_succeed: bool,
        left: Duration,
    ) -> Option<Duration> {
        self.attempts += 1;
        let error = &failure.error;
        match failure.outcome {
            // The server may need a moment to recognize its newest token.
            Outcome::Refused if error.status() == Status::ReauthorizationRequired => {
                let is_verdict =
                    !self.may_be_spent || std::mem::replace(&mut self.was_refused, true);
                let pause = if self.timed_out { LONG_PAUSE } else { PAUSE };
                return (!is_verdict).then_some(pause);
            }
            Outcome::Refused => return None,
            Outcome::NothingHappened => {}
            Outcome::Unknown => {
                self.may_be_spent = true;
                self.must_succeed_until.get_or_insert(uptime + MUST_SUCCEED_FOR);
                self.timed_out = error.status() == Status::Timeout;
                if self.attempts < ATTEMPTS {
                    // Repeat at once after a lost response; pause after an error response.
                    let at_once = self.attempts == 1 && error.http_status().is_none();
                    return Some(if at_once { Duration::ZERO } else { PAUSE });
                }
            }
        }
        if must_succeed { self.further(error, uptime, left) } else { None }
    }

    /// Whether a caller that must succeed would go on after this failure, the last one given to
    /// [`RefreshRetry::after`], if it had `left`.
    pub fn would_go_on(&self, failure: &Failure, uptime: Duration, left: Duration) -> bool {
        failure.outcome != Outcome::Refused && self.further(&failure.error, uptime, left).is_some()
    }

    /// The pause before a further attempt of a caller that must succeed.
    fn further(&self, error: &Error, uptime: Duration, left: Duration) -> Option<Duration> {
        let until = self.must_succeed_until?;
        let backoff = PAUSE * (1 << (self.attempts - 1).min(2));
        // Jitter separates processes that started together.
        let half = backoff / 2;
        let jitter = random::up_to(u64::try_from(half.as_millis()).unwrap_or(0));
        let pause =
            (half + Duration::from_millis(jitter)).max(error.retry_after().unwrap_or_default());
        (uptime + pause <= until && pause + RESERVE < left).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMPLE: Duration = Duration::from_secs(600);
    const START: Duration = Duration::from_secs(7);

    fn failure(status: Status, outcome: Outcome) -> Failure {
        Failure { error: Error::new(status, "a failure"), outcome }
    }

    fn lost() -> Failure {
        failure(Status::Network, Outcome::Unknown)
    }

    fn refused() -> Failure {
        failure(Status::ReauthorizationRequired, Outcome::Refused)
    }

    fn unreachable() -> Failure {
        failure(Status::Network, Outcome::NothingHappened)
    }

    /// Whether a pause is between half of `most` and `most`.
    fn is_about(pause: Option<Duration>, most: Duration) -> bool {
        pause.is_some_and(|pause| (most / 2..=most).contains(&pause))
    }

    #[test]
    fn lost_response_is_retried_twice_and_longer_if_the_caller_must_succeed() {
        let mut patient = RefreshRetry::new(None, START);
        for pause in [Some(Duration::ZERO), Some(PAUSE), None] {
            assert_eq!(patient.after(&lost(), START, false, AMPLE), pause);
        }
        let mut must_succeed = RefreshRetry::new(None, START);
        for pause in [Duration::ZERO, PAUSE] {
            assert_eq!(must_succeed.after(&lost(), START, true, AMPLE), Some(pause));
        }
        for _ in 0..4 {
            assert!(is_about(
                must_succeed.after(&lost(), START, true, AMPLE),
                Duration::from_secs(2)
            ));
        }
        assert_eq!(
            must_succeed.after(&lost(), START, true, RESERVE),
            None,
            "no time is left for the answer"
        );
    }

    #[test]
    fn failure_with_a_known_outcome_is_not_retried() {
        for must_succeed in [false, true] {
            let mut retry = RefreshRetry::new(None, START);
            assert_eq!(retry.after(&unreachable(), START, must_succeed, AMPLE), None);
            assert_eq!(retry.after(&refused(), START, must_succeed, AMPLE), None);
            assert!(!retry.may_be_spent());
        }
    }

    #[test]
    fn refusal_after_an_earlier_unknown_outcome_is_confirmed_once() {
        for (ago, retries) in [(0, true), (29_999, true), (30_000, false), (-1, false)] {
            let mut retry = RefreshRetry::new(Some(ago), START);
            assert!(retry.may_be_spent());
            assert_eq!(
                retry.after(&unreachable(), START, true, AMPLE).is_some(),
                retries,
                "{ago} ms"
            );
            assert_eq!(retry.after(&refused(), START, true, AMPLE), Some(PAUSE));
            assert_eq!(retry.after(&unreachable(), START, true, AMPLE).is_some(), retries);
            assert_eq!(retry.after(&refused(), START, true, AMPLE), None, "refused twice");
        }
    }

    #[test]
    fn caller_that_must_succeed_stops_before_the_end_of_the_replay_window() {
        let mut retry = RefreshRetry::new(None, START);
        assert_eq!(retry.after(&lost(), START, true, AMPLE), Some(Duration::ZERO));
        let later = START + MUST_SUCCEED_FOR - Duration::from_secs(2);
        assert!(retry.after(&unreachable(), later, true, AMPLE).is_some());
        assert!(retry.after(&lost(), later, true, AMPLE).is_some());
        assert_eq!(retry.after(&lost(), START + MUST_SUCCEED_FOR, true, AMPLE), None);
    }

    #[test]
    fn slow_server_gets_more_time_before_a_refusal_is_confirmed() {
        let mut retry = RefreshRetry::new(None, START);
        assert_eq!(
            retry.after(&failure(Status::Timeout, Outcome::Unknown), START, false, AMPLE),
            Some(Duration::ZERO)
        );
        assert_eq!(retry.after(&refused(), START, false, AMPLE), Some(LONG_PAUSE));
        assert_eq!(retry.after(&refused(), START, false, AMPLE), None);
    }

    #[test]
    fn caller_that_must_succeed_waits_as_long_as_the_server_asks() {
        let mut retry = RefreshRetry::new(Some(0), START);
        let busy = |wait| {
            let error = Error::new(Status::Server, "busy").with_retry_after(Some(wait));
            Failure { error, outcome: Outcome::NothingHappened }
        };
        let wait = Duration::from_secs(3);
        assert_eq!(retry.after(&busy(wait), START, true, AMPLE), Some(wait));
        assert_eq!(retry.after(&busy(MUST_SUCCEED_FOR * 2), START, true, AMPLE), None);
    }
}
