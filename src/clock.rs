//! Wall clock, uptime, the monotonic clock for deadlines, and all waits, behind one trait that
//! tests and the simulation replace.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::signal::Signal;

/// All time readings and waits of the library.
///
/// When a token is loaded, its stored expiry is compared with `wall_ms`. From then on `uptime`
/// decides, so that a jump of the wall clock neither expires a valid token nor revives an expired
/// one.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64;
    /// Time since a fixed moment, including the time that the machine sleeps; never goes back.
    fn uptime(&self) -> Duration;

    /// The clock for deadlines. Never goes back; may stop while the machine sleeps.
    fn monotonic(&self) -> Duration {
        static STARTED: OnceLock<Instant> = OnceLock::new();
        STARTED.get_or_init(Instant::now).elapsed()
    }

    /// Blocks the thread until the count of `signal` differs from `seen`, for at most `timeout`.
    /// May return early.
    fn wait(&self, signal: &Signal, seen: u64, timeout: Duration) {
        signal.block(seen, timeout);
    }
}

#[derive(Debug, Default)]
pub struct SystemClock(());

impl SystemClock {
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
        // Linux counts the time asleep in CLOCK_BOOTTIME, other systems in CLOCK_MONOTONIC.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let clock = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let clock = ClockId::Monotonic;
        let now = clock_gettime(clock);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    #[cfg(windows)]
    fn uptime(&self) -> Duration {
        crate::windows::uptime()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_never_goes_backward() {
        let clock = SystemClock::new();
        let earlier = clock.uptime();
        let next = std::iter::repeat_with(|| clock.uptime()).find(|now| *now != earlier);
        assert!(next.unwrap() > earlier);
    }
}
