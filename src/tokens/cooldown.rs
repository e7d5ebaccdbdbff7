//! Cooldowns: exponential backoff per resource after failed refreshes and mints.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::schedule::INACTIVE_HOLD_MS;
use crate::error::{Error, Status};

/// Backoff after a transient failure: first and longest pause; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(8);

/// Backoff after a refusal that only a new consent or configuration resolves; multiplied by four
/// each time.
const FIRST_REFUSAL_PAUSE: Duration = Duration::from_secs(1);
const MAX_REFUSAL_PAUSE: Duration = Duration::from_secs(300);

/// The pause of an inactive location without a record.
const INACTIVE_PAUSE: Duration = Duration::from_millis(INACTIVE_HOLD_MS.unsigned_abs());

/// A caller waits out a cooldown up to this length; during a longer one it gets the last error at
/// once.
const MAX_INLINE_WAIT: Duration = Duration::from_secs(1);

/// Above this many entries, the long-expired ones are removed.
const PRUNE_ABOVE: usize = 4096;

/// Cooldowns by resource. Times are from the monotonic clock.
#[derive(Default)]
pub struct Cooldowns(Mutex<HashMap<String, Cooldown>>);

struct Cooldown {
    until: Duration,
    error: Error,
    transient: Failures,
    permanent: Failures,
    inactive: Failures,
}

impl Cooldown {
    fn failures(&mut self, kind: &Kind) -> (&mut Failures, Pauses) {
        let failures = match kind {
            Kind::Transient => &mut self.transient,
            Kind::Permanent => &mut self.permanent,
            Kind::Inactive => &mut self.inactive,
        };
        (failures, kind.pauses())
    }
}

/// The first pause, the factor of the next ones, and the longest pause.
type Pauses = (Duration, u32, Duration);

/// Consecutive failures of one kind.
#[derive(Clone, Copy, Default)]
struct Failures {
    count: u32,
    /// The end of the last pause.
    paused_until: Duration,
}

impl Failures {
    /// Counts a failure and returns the end of its pause. The count restarts if the longest pause
    /// passes without a failure.
    fn add(&mut self, now: Duration, (first, factor, longest): Pauses) -> Duration {
        if now > self.paused_until + longest {
            self.count = 0;
        }
        let pause = longest.min(first.saturating_mul(factor.saturating_pow(self.count.min(16))));
        self.count += 1;
        self.paused_until = now + pause;
        self.paused_until
    }
}

pub enum CooldownState {
    /// No cooldown.
    Over,
    /// Wait this long, then send.
    Short(Duration),
    /// Return the last error.
    Long(Error),
}

impl Cooldowns {
    /// The current state for a caller.
    pub fn check(&self, resource_id: &str, now: Duration) -> CooldownState {
        let entries = self.entries();
        let Some(cooldown) = entries.get(resource_id) else { return CooldownState::Over };
        match cooldown.until.saturating_sub(now) {
            Duration::ZERO => CooldownState::Over,
            left if left <= MAX_INLINE_WAIT => CooldownState::Short(left),
            left => CooldownState::Long(cooldown.error.clone().with_retry_after(Some(left))),
        }
    }

    /// Starts or extends the cooldown after a failed renewal, if its kind calls for one.
    pub fn failed(&self, resource_id: &str, error: &Error, now: Duration) {
        if let Some(kind) = kind(error) {
            self.start(resource_id, kind, error, now);
        }
    }

    /// Starts a cooldown after a connect timeout. The error alone does not distinguish it from a
    /// wait for another caller.
    pub fn unreachable(&self, resource_id: &str, error: &Error, now: Duration) {
        self.start(resource_id, Kind::Transient, error, now);
    }

    /// Starts a cooldown after the failed mint of an inactive location that has no record, which
    /// would remember that.
    pub fn inactive(&self, location_id: &str, error: &Error, now: Duration) {
        self.start(location_id, Kind::Inactive, error, now);
    }

    fn start(&self, resource_id: &str, kind: Kind, error: &Error, now: Duration) {
        let mut entries = self.entries();
        if entries.len() >= PRUNE_ABOVE {
            entries.retain(|_, cooldown| cooldown.until + MAX_REFUSAL_PAUSE > now);
        }
        let cooldown = entries.entry(resource_id.to_owned()).or_insert_with(|| Cooldown {
            until: now,
            error: error.clone(),
            transient: Failures::default(),
            permanent: Failures::default(),
            inactive: Failures::default(),
        });
        cooldown.error = error.clone();
        let (failures, pauses) = cooldown.failures(&kind);
        cooldown.until = failures.add(now, pauses);
    }

    /// The pause after a failed renewal that is not counted yet.
    pub fn pause_after(&self, resource_id: &str, error: &Error, now: Duration) -> Duration {
        let mut entries = self.entries();
        let cooldown = entries.get_mut(resource_id);
        let running = cooldown.as_ref().map_or(Duration::ZERO, |cooldown| cooldown.until);
        let until = kind(error).map_or(Duration::ZERO, |kind| {
            let (mut failures, pauses) = match cooldown {
                Some(cooldown) => {
                    let (failures, pauses) = cooldown.failures(&kind);
                    (*failures, pauses)
                }
                None => (Failures::default(), kind.pauses()),
            };
            failures.add(now, pauses)
        });
        until.max(running).saturating_sub(now)
    }

    /// Ends the cooldown, after a success, a new token or a deletion.
    pub fn clear(&self, resource_id: &str) {
        self.entries().remove(resource_id);
    }

    /// Ends every cooldown, after the consent of a company, which may cure its locations.
    pub fn clear_all(&self) {
        self.entries().clear();
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Cooldown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Kind {
    /// May resolve by itself.
    Transient,
    /// Needs a new consent or configuration.
    Permanent,
    /// The API calls the location inactive.
    Inactive,
}

impl Kind {
    fn pauses(&self) -> Pauses {
        match self {
            Kind::Transient => (FIRST_PAUSE, 2, MAX_PAUSE),
            Kind::Permanent => (FIRST_REFUSAL_PAUSE, 4, MAX_REFUSAL_PAUSE),
            Kind::Inactive => (INACTIVE_PAUSE, 1, INACTIVE_PAUSE),
        }
    }
}

/// The kind of a failure; `None` if no request was sent, or if the record remembers the failure.
fn kind(error: &Error) -> Option<Kind> {
    match error.status() {
        Status::Network | Status::Server | Status::Protocol | Status::RateLimited => {
            Some(Kind::Transient)
        }
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

    /// The number of requests within `seconds` by a caller that tries 20 times a second.
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
    fn short_cooldown_is_waited_out_and_a_long_one_returns_the_last_error() {
        let cooldowns = Cooldowns::default();
        cooldowns.failed("location", &refusal(), Duration::ZERO);
        assert!(matches!(
            cooldowns.check("location", Duration::ZERO),
            CooldownState::Short(FIRST_REFUSAL_PAUSE)
        ));
        cooldowns.failed("location", &refusal(), FIRST_REFUSAL_PAUSE);
        let CooldownState::Long(error) = cooldowns.check("location", FIRST_REFUSAL_PAUSE) else {
            panic!("a long cooldown")
        };
        assert_eq!(
            (error.status(), error.retry_after()),
            (Status::Forbidden, Some(FIRST_REFUSAL_PAUSE * 4))
        );
        assert!(matches!(cooldowns.check("another", FIRST_REFUSAL_PAUSE), CooldownState::Over));
        cooldowns.clear("location");
        assert!(matches!(cooldowns.check("location", FIRST_REFUSAL_PAUSE), CooldownState::Over));
    }

    /// The cooldown after a failure at `now`.
    fn pause_after(cooldowns: &Cooldowns, error: &Error, now: Duration) -> Duration {
        cooldowns.failed("location", error, now);
        match cooldowns.check("location", now) {
            CooldownState::Over => Duration::ZERO,
            CooldownState::Short(left) => left,
            CooldownState::Long(error) => error.retry_after().unwrap_or_default(),
        }
    }

    #[test]
    fn old_failures_and_failures_of_another_kind_do_not_extend_a_cooldown() {
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
    fn connect_timeout_starts_a_cooldown() {
        let cooldowns = Cooldowns::default();
        cooldowns.unreachable(
            "location",
            &Error::new(Status::Timeout, "no connection"),
            Duration::ZERO,
        );
        assert!(matches!(
            cooldowns.check("location", Duration::ZERO),
            CooldownState::Short(FIRST_PAUSE)
        ));
    }

    #[test]
    fn failure_without_a_request_starts_no_cooldown() {
        let cooldowns = Cooldowns::default();
        for status in [Status::Store, Status::Cancelled, Status::NotFound, Status::LocationInactive]
        {
            cooldowns.failed("location", &Error::new(status, "x"), Duration::ZERO);
            assert!(
                matches!(cooldowns.check("location", Duration::ZERO), CooldownState::Over),
                "{status:?}"
            );
        }
    }
}
