//! The time of day and the time passed, as a trait that tests can move.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the library reads the time.
///
/// The two readings serve two questions. `wall_ms` is what a stored expiry is compared with when a token
/// is loaded; `uptime` is what decides from then on, so that a wall clock that jumps neither kills a live
/// token nor revives a dead one.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64;
    /// Time since some fixed moment; never goes back.
    fn uptime(&self) -> Duration;
}

/// The clocks of the system.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose uptime begins now.
    pub fn new() -> SystemClock {
        SystemClock { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
