//! Deadlines and cancellation of calls.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result, Status};
use crate::signal::Signal;

/// Cancels the calls that are waiting when it is raised. Later calls are not affected.
#[derive(Debug, Default)]
pub struct Cancellation(Signal);

impl Cancellation {
    /// Cancels every running call.
    pub fn raise(&self) {
        self.0.notify();
    }

    fn count(&self) -> u64 {
        self.0.count()
    }
}

/// When one call ends: at a point in time, or earlier by a cancellation.
#[derive(Clone)]
pub struct Deadline {
    clock: Arc<dyn Clock>,
    /// On the monotonic clock.
    ends: Duration,
    total: Duration,
    cancellation: Arc<Cancellation>,
    raised_before: u64,
    /// A second cancellation that ends the call, even if it was raised before the call began.
    end: Option<Arc<Cancellation>>,
}

/// How often a wait checks the second cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Deadline {
    /// A deadline `total` from now on the system's clock, or earlier by `cancellation`.
    pub fn after(total: Duration, cancellation: &Arc<Cancellation>) -> Deadline {
        static SYSTEM: OnceLock<Arc<dyn Clock>> = OnceLock::new();
        Deadline::by(SYSTEM.get_or_init(|| Arc::new(SystemClock::new())), total, cancellation)
    }

    /// Like [`Deadline::after`], on another clock.
    pub fn by(
        clock: &Arc<dyn Clock>,
        total: Duration,
        cancellation: &Arc<Cancellation>,
    ) -> Deadline {
        Deadline {
            clock: Arc::clone(clock),
            ends: clock.monotonic() + total,
            total,
            cancellation: Arc::clone(cancellation),
            raised_before: cancellation.count(),
            end: None,
        }
    }

    /// This deadline, which ends as well once `end` has been raised: for one task of a group.
    #[must_use]
    pub fn ended_by(self, end: &Arc<Cancellation>) -> Deadline {
        Deadline { end: Some(Arc::clone(end)), ..self }
    }

    /// A deadline `total` from now for another phase of the same call. A cancellation since the
    /// call began still counts.
    #[must_use]
    pub fn renewed(&self, total: Duration) -> Deadline {
        Deadline { ends: self.now() + total, total, ..self.clone() }
    }

    /// This deadline, but at most `most` from now.
    #[must_use]
    pub fn within(&self, most: Duration) -> Deadline {
        Deadline { ends: self.ends.min(self.now() + most), ..self.clone() }
    }

    /// A deadline at least `least` from now that ignores cancellations: for work that must be
    /// finished, such as saving a token whose predecessor is used up.
    #[must_use]
    pub fn at_least(&self, least: Duration) -> Deadline {
        static NEVER: OnceLock<Arc<Cancellation>> = OnceLock::new();
        let cancellation = Arc::clone(NEVER.get_or_init(Arc::default));
        let ends = self.ends.max(self.now() + least);
        Deadline { ends, cancellation, raised_before: 0, end: None, ..self.clone() }
    }

    /// The duration from its start.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The current time on the deadline's clock.
    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The time left; zero once the deadline has passed.
    pub fn remaining(&self) -> Duration {
        self.ends.saturating_sub(self.now())
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancellation.count() != self.raised_before || self.is_ended()
    }

    fn is_ended(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.count() > 0)
    }

    /// `CANCELLED` or `TIMEOUT` if the call must end.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::new(Status::Cancelled, "the call was cancelled"));
        }
        if self.remaining().is_zero() {
            return Err(self.timed_out());
        }
        Ok(())
    }

    pub fn timed_out(&self) -> Error {
        let message = format!("no result within the deadline of {} ms", self.total.as_millis());
        Error::new(Status::Timeout, message).with_help("try again, or raise timeouts.totalMs")
    }

    /// Waits until the count of `signal` differs from `seen`, at most until the deadline. May
    /// return early.
    pub fn wait(&self, signal: &Signal, seen: u64) {
        self.clock.wait(signal, seen, self.remaining());
    }

    /// Sleeps for `wait`. Returns an error as soon as the call is cancelled or its deadline passes.
    pub fn sleep(&self, wait: Duration) -> Result<()> {
        self.check()?;
        let wakes = self.now() + wait.min(self.remaining());
        loop {
            let seen = self.cancellation.count();
            let left = wakes.saturating_sub(self.now());
            if seen != self.raised_before || left.is_zero() || self.is_ended() {
                break;
            }
            let slice = if self.end.is_some() { left.min(POLL_INTERVAL) } else { left };
            self.clock.wait(&self.cancellation.0, seen, slice);
        }
        self.check()
    }
}

impl std::fmt::Debug for Deadline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deadline")
            .field("ends", &self.ends)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}
