//! The wall clock, the uptime, the monotonic clock of deadlines, and every wait, behind one trait: tests move it, and a
//! simulation replaces it.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::signal::Signal;

/// Every reading of the time and every wait of the library.
///
/// The readings of the wall clock and of the uptime serve two questions. `wall_ms` is what a stored expiry is compared with when a token
/// is loaded; `uptime` is what decides from then on, so that a wall clock that jumps neither kills a live
/// token nor revives a dead one.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64;
    /// Time since some fixed moment, the time that the machine sleeps included; never goes back.
    fn uptime(&self) -> Duration;

    /// The time by which deadlines are kept. Never goes back; may stand still while the machine sleeps.
    fn monotonic(&self) -> Duration {
        static STARTED: OnceLock<Instant> = OnceLock::new();
        STARTED.get_or_init(Instant::now).elapsed()
    }

    /// Blocks the calling thread until `signal` was notified since its count was `seen`, for at most `timeout`. May
    /// return early.
    fn wait(&self, signal: &Signal, seen: u64, timeout: Duration) {
        signal.block(seen, timeout);
    }
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
        self.monotonic()
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
