//! Exponential backoff after failures: a resource whose refresh failed is not asked for again for a
//! growing time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Status};

/// The first pause after a failure that may pass by itself, and the longest one; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(8);

/// The same after a refusal that only a consent or a configuration cures; four times as long each time.
const FIRST_REFUSAL_PAUSE: Duration = Duration::from_secs(1);
const MAX_REFUSAL_PAUSE: Duration = Duration::from_secs(300);

/// A caller waits out a rest up to this length, and gets the last error at once during a longer one.
const MAX_INLINE_WAIT: Duration = Duration::from_secs(1);

/// Above this many resting resources, entries whose rest ended long ago are removed.
const PRUNE_ABOVE: usize = 4096;

/// The resources that rest. Times are read from the monotonic clock.
#[derive(Default)]
pub struct Cooldowns(Mutex<HashMap<String, Cooldown>>);

struct Cooldown {
    until: Duration,
    error: Error,
    passing: Failures,
    lasting: Failures,
}

/// The failures of one kind in a row.
#[derive(Default)]
struct Failures {
    count: u32,
    /// When the rest after the last one ended.
    rested: Duration,
}

impl Failures {
    /// Counts a failure; answers the end of the rest that it causes. After as long a time without a failure as the longest
    /// rest takes, the count starts again.
    fn add(&mut self, now: Duration, (first, factor, longest): (Duration, u32, Duration)) -> Duration {
        if now > self.rested + longest {
            self.count = 0;
        }
        let pause = longest.min(first.saturating_mul(factor.saturating_pow(self.count.min(16))));
        self.count += 1;
        self.rested = now + pause;
        self.rested
    }
}

/// The reaction of a caller to a resource that rests.
pub enum CooldownState {
    /// It does not rest.
    Over,
    /// Wait so long, then ask.
    Short(Duration),
    /// Give up with the last error.
    Long(Error),
}

impl Cooldowns {
    /// The reaction of a caller now.
    pub fn check(&self, resource_id: &str, now: Duration) -> CooldownState {
        let entries = self.entries();
        let Some(cooldown) = entries.get(resource_id) else { return CooldownState::Over };
        match cooldown.until.saturating_sub(now) {
            Duration::ZERO => CooldownState::Over,
            left if left <= MAX_INLINE_WAIT => CooldownState::Short(left),
            left => CooldownState::Long(cooldown.error.clone().with_retry_after(Some(left))),
        }
    }

    /// A renewal failed: the next one waits, longer each time.
    pub fn failed(&self, resource_id: &str, error: &Error, now: Duration) {
        if let Some(kind) = kind(error) {
            self.rests(resource_id, kind, error, now);
        }
    }

    /// No connection to the server was made in time. The error alone does not tell that from a wait for other callers.
    pub fn unreachable(&self, resource_id: &str, error: &Error, now: Duration) {
        self.rests(resource_id, Kind::Transient, error, now);
    }

    fn rests(&self, resource_id: &str, kind: Kind, error: &Error, now: Duration) {
        let mut entries = self.entries();
        if entries.len() >= PRUNE_ABOVE {
            entries.retain(|_, cooldown| cooldown.until + MAX_REFUSAL_PAUSE > now);
        }
        let cooldown = entries.entry(resource_id.to_owned()).or_insert_with(|| Cooldown {
            until: now,
            error: error.clone(),
            passing: Failures::default(),
            lasting: Failures::default(),
        });
        cooldown.error = error.clone();
        cooldown.until = match kind {
            Kind::Transient => cooldown.passing.add(now, (FIRST_PAUSE, 2, MAX_PAUSE)),
            Kind::Permanent => cooldown.lasting.add(now, (FIRST_REFUSAL_PAUSE, 4, MAX_REFUSAL_PAUSE)),
        };
    }

    /// Something changed: a renewal succeeded, or there is a new token or none.
    pub fn clear(&self, resource_id: &str) {
        self.entries().remove(resource_id);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Cooldown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Kind {
    /// It may pass by itself.
    Transient,
    /// A consent or a configuration cures it.
    Permanent,
}

/// Which pause a failure calls for; none for a failure that asked nothing of the server, or that the record remembers.
fn kind(error: &Error) -> Option<Kind> {
    match error.status() {
        Status::Network | Status::Server | Status::Protocol | Status::RateLimited => Some(Kind::Transient),
        Status::Timeout if error.http_status().is_some() => Some(Kind::Transient),
        Status::Unauthorized
        | Status::Forbidden
        | Status::InvalidRequest
        | Status::NotFound
        | Status::ReauthorizationRequired
            if error.http_status().is_some() =>
        {
            Some(if error.is_verdict() { Kind::Permanent } else { Kind::Transient })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiFault;

    fn refusal() -> Error {
        let fault = ApiFault { is_of_api: true, ..ApiFault::default() };
        Error::new(Status::Forbidden, "no").with_api(403, fault)
    }

    /// How many requests a caller who asks 20 times a second makes in that time.
    fn requests(error: &Error, seconds: u64) -> u32 {
        let (cooldowns, mut requests) = (Cooldowns::default(), 0);
        for tick in 0..seconds * 20 {
            let now = Duration::from_millis(50 * tick);
            if matches!(cooldowns.check("location", now), CooldownState::Over) {
                requests += 1;
                cooldowns.failed("location", error, now);
            }
        }
        requests
    }

    #[test]
    fn repeated_failure_is_retried_with_backoff() {
        assert!(requests(&Error::new(Status::Server, "503"), 60) <= 14);
        assert!(requests(&refusal(), 60) <= 4);
        assert!(requests(&refusal(), 3600) <= 17);
    }

    #[test]
    fn short_cooldown_is_waited_for_and_a_long_one_returns_the_last_error() {
        let cooldowns = Cooldowns::default();
        cooldowns.failed("location", &refusal(), Duration::ZERO);
        assert!(matches!(
            cooldowns.check("location", Duration::ZERO),
            CooldownState::Short(FIRST_REFUSAL_PAUSE)
        ));
        cooldowns.failed("location", &refusal(), FIRST_REFUSAL_PAUSE);
        let CooldownState::Long(error) = cooldowns.check("location", FIRST_REFUSAL_PAUSE) else {
            panic!("a long rest")
        };
        assert_eq!((error.status(), error.retry_after()), (Status::Forbidden, Some(FIRST_REFUSAL_PAUSE * 4)));
        assert!(matches!(cooldowns.check("another", FIRST_REFUSAL_PAUSE), CooldownState::Over));
        cooldowns.clear("location");
        assert!(matches!(cooldowns.check("location", FIRST_REFUSAL_PAUSE), CooldownState::Over));
    }

    /// How long a resource rests after a failure at that time.
    fn pause_after(cooldowns: &Cooldowns, error: &Error, now: Duration) -> Duration {
        cooldowns.failed("location", error, now);
        match cooldowns.check("location", now) {
            CooldownState::Over => Duration::ZERO,
            CooldownState::Short(left) => left,
            CooldownState::Long(error) => error.retry_after().unwrap_or_default(),
        }
    }

    #[test]
    fn failures_of_hours_ago_and_of_another_kind_make_no_rest_longer() {
        let (cooldowns, failed) = (Cooldowns::default(), Error::new(Status::Server, "503"));
        let mut now = Duration::ZERO;
        for _ in 0..10 {
            now += pause_after(&cooldowns, &failed, now);
        }
        assert_eq!(pause_after(&cooldowns, &failed, now), MAX_PAUSE);
        assert_eq!(pause_after(&cooldowns, &refusal(), now + MAX_PAUSE), FIRST_REFUSAL_PAUSE);
        assert_eq!(pause_after(&cooldowns, &failed, now + Duration::from_secs(7200)), FIRST_PAUSE);
    }

    #[test]
    fn server_that_cannot_be_reached_in_time_is_left_alone() {
        let cooldowns = Cooldowns::default();
        cooldowns.unreachable("location", &Error::new(Status::Timeout, "no connection"), Duration::ZERO);
        assert!(matches!(cooldowns.check("location", Duration::ZERO), CooldownState::Short(FIRST_PAUSE)));
    }

    #[test]
    fn failure_without_a_request_starts_no_cooldown() {
        let cooldowns = Cooldowns::default();
        for status in [Status::Store, Status::Cancelled, Status::NotFound, Status::LocationInactive] {
            cooldowns.failed("location", &Error::new(status, "x"), Duration::ZERO);
            assert!(matches!(cooldowns.check("location", Duration::ZERO), CooldownState::Over), "{status:?}");
        }
    }
}
