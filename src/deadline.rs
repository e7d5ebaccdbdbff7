//! Deadlines and cancellation of calls.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result, Status};
use crate::signal::Signal;

/// Cancels the calls that are waiting when it is raised. Calls made afterwards work as ever.
#[derive(Debug, Default)]
pub struct Cancellation(Signal);

impl Cancellation {
    /// Cancels every call that is under way.
    pub fn raise(&self) {
        self.0.notify();
    }

    fn count(&self) -> u64 {
        self.0.count()
    }
}

/// The end of one call's patience: a moment, or a cancellation that comes first.
#[derive(Clone)]
pub struct Deadline {
    clock: Arc<dyn Clock>,
    /// By the monotonic clock.
    ends: Duration,
    total: Duration,
    cancellation: Arc<Cancellation>,
    raised_before: u64,
    /// What ends it as well, once it was ever raised.
    end: Option<Arc<Cancellation>>,
}

/// How long a wait goes on before it looks for what else may end it.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Deadline {
    /// A deadline `total` from now, by the system's clock, that `cancellation` can bring forward.
    pub fn after(total: Duration, cancellation: &Arc<Cancellation>) -> Deadline {
        static SYSTEM: OnceLock<Arc<dyn Clock>> = OnceLock::new();
        Deadline::by(SYSTEM.get_or_init(|| Arc::new(SystemClock::new())), total, cancellation)
    }

    /// The same, by another clock.
    pub fn by(clock: &Arc<dyn Clock>, total: Duration, cancellation: &Arc<Cancellation>) -> Deadline {
        Deadline {
            clock: Arc::clone(clock),
            ends: clock.monotonic() + total,
            total,
            cancellation: Arc::clone(cancellation),
            raised_before: cancellation.count(),
            end: None,
        }
    }

    /// The same, and over as soon as `end` is raised, or if it was already: for one part of a work of many.
    #[must_use]
    pub fn ended_by(self, end: &Arc<Cancellation>) -> Deadline {
        Deadline { end: Some(Arc::clone(end)), ..self }
    }

    /// Another part of the same call: `total` from now. A cancellation since the call began counts for it as well.
    #[must_use]
    pub fn renewed(&self, total: Duration) -> Deadline {
        Deadline { ends: self.now() + total, total, ..self.clone() }
    }

    /// The same, but `most` from now at the latest.
    #[must_use]
    pub fn within(&self, most: Duration) -> Deadline {
        Deadline { ends: self.ends.min(self.now() + most), ..self.clone() }
    }

    /// A deadline at least `least` from now that no cancellation brings forward: for work that must not be given up,
    /// such as saving a token whose predecessor is spent.
    #[must_use]
    pub fn at_least(&self, least: Duration) -> Deadline {
        static NEVER: OnceLock<Arc<Cancellation>> = OnceLock::new();
        let cancellation = Arc::clone(NEVER.get_or_init(Arc::default));
        let ends = self.ends.max(self.now() + least);
        Deadline { ends, cancellation, raised_before: 0, end: None, ..self.clone() }
    }

    /// How long it was from its beginning.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// Now, by the clock of the deadline.
    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The time left; zero once it is over.
    pub fn remaining(&self) -> Duration {
        self.ends.saturating_sub(self.now())
    }

    /// Whether the call was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.count() != self.raised_before || self.is_ended()
    }

    fn is_ended(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.count() > 0)
    }

    /// `CANCELLED` or `TIMEOUT` when the call should not go on.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::new(Status::Cancelled, "the call was cancelled"));
        }
        if self.remaining().is_zero() {
            return Err(self.timed_out());
        }
        Ok(())
    }

    /// The error for a deadline that passed.
    pub fn timed_out(&self) -> Error {
        let message = format!("no result within the deadline of {} ms", self.total.as_millis());
        Error::new(Status::Timeout, message).with_help("try again, or raise timeouts.totalMs")
    }

    /// Waits until `signal` was notified since its count was `seen`, at most until the deadline. May return early.
    pub fn wait(&self, signal: &Signal, seen: u64) {
        self.clock.wait(signal, seen, self.remaining());
    }

    /// Waits; returns early with an error when the call is cancelled or its deadline would pass first.
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
