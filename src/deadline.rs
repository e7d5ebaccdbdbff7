//! How long a call may take, and how it is cancelled.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result, Status};

/// Cancels the calls that are waiting when it is raised. Calls made afterwards work as ever.
#[derive(Debug, Default)]
pub struct Cancellation {
    raised: Mutex<u64>,
    changed: Condvar,
}

impl Cancellation {
    /// Cancels every call that is under way.
    pub fn raise(&self) {
        *self.count() += 1;
        self.changed.notify_all();
    }

    fn count(&self) -> MutexGuard<'_, u64> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of one call's patience: a moment, or a cancellation that comes first.
#[derive(Debug, Clone)]
pub struct Deadline {
    ends: Instant,
    total: Duration,
    cancellation: Arc<Cancellation>,
    raised_before: u64,
    /// What ends it as well, once it was ever raised.
    end: Option<Arc<Cancellation>>,
}

/// How long a wait goes on before it looks for what else may end it.
const SLICE: Duration = Duration::from_millis(50);

impl Deadline {
    /// A deadline `total` from now that `cancellation` can bring forward.
    pub fn after(total: Duration, cancellation: &Arc<Cancellation>) -> Deadline {
        Deadline {
            ends: Instant::now() + total,
            total,
            cancellation: Arc::clone(cancellation),
            raised_before: *cancellation.count(),
            end: None,
        }
    }

    /// The same, and over as soon as `end` is raised, or if it was already: for one part of a work of many.
    #[must_use]
    pub fn ended_by(self, end: &Arc<Cancellation>) -> Deadline {
        Deadline { end: Some(Arc::clone(end)), ..self }
    }

    /// Another part of the same call: `total` from now. A cancellation since the call began counts for it, too.
    pub fn renewed(&self, total: Duration) -> Deadline {
        Deadline { ends: Instant::now() + total, total, ..self.clone() }
    }

    /// How long it was from its beginning.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The time left; zero once it is over.
    pub fn remaining(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// Whether the call was cancelled.
    pub fn is_cancelled(&self) -> bool {
        *self.cancellation.count() != self.raised_before || self.is_ended()
    }

    fn is_ended(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end.count() > 0)
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

    /// Waits; returns early with an error when the call is cancelled or its deadline would pass first.
    pub fn sleep(&self, wait: Duration) -> Result<()> {
        self.check()?;
        let wakes = Instant::now() + wait.min(self.remaining());
        let mut raised = self.cancellation.count();
        loop {
            let left = wakes.saturating_duration_since(Instant::now());
            if *raised != self.raised_before || left.is_zero() || self.is_ended() {
                break;
            }
            let slice = if self.end.is_some() { left.min(SLICE) } else { left };
            let woken = self.cancellation.changed.wait_timeout(raised, slice);
            raised = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(raised);
        self.check()
    }
}
