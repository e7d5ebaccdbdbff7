//! The time of day and the time passed, as a trait that tests can move.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the library reads the time.
///
/// The two readings serve two questions. `wall_ms` is what a stored expiry is compared with when a token
/// is loaded; `uptime` is what decides from then on, so that a wall clock that jumps neither kills a live
/// token nor revives a dead one.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64;
    /// Time since some fixed moment, the time that the machine sleeps included; never goes back.
    fn uptime(&self) -> Duration;
}

/// The clocks of the system.
#[derive(Debug, Default)]
pub struct SystemClock(());

impl SystemClock {
    /// The system's clocks need nothing.
    pub fn new() -> SystemClock {
        SystemClock(())
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }

    #[cfg(unix)]
    fn uptime(&self) -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        // Elsewhere than on Linux, the monotonic clock is the one that counts the time asleep.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let clock = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let clock = ClockId::Monotonic;
        let now = clock_gettime(clock);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    #[cfg(not(unix))]
    fn uptime(&self) -> Duration {
        static STARTED: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        STARTED.get_or_init(std::time::Instant::now).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_goes_forward() {
        let clock = SystemClock::new();
        let earlier = clock.uptime();
        let next = std::iter::repeat_with(|| clock.uptime()).find(|now| *now != earlier);
        assert!(next.unwrap() > earlier);
    }
}
