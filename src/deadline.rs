//! Deadlines and cancellation of calls.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result, Status};
use crate::fork_safety;
use crate::signal::Signal;

/// Cancels the calls that are waiting when it is raised. Later calls are not affected.
#[derive(Debug, Default)]
pub struct Cancellation {
    raised: AtomicU64,
    /// Notified after each change that may end a call: waiting calls then check their deadlines.
    changed: Signal,
}

impl Cancellation {
    /// Cancels every running call.
    pub fn raise(&self) {
        self.raised.fetch_add(1, Ordering::SeqCst);
        self.changed.notify();
    }

    /// Wakes every sleeping call to check its deadline, without cancelling it.
    pub fn wake(&self) {
        self.changed.notify();
    }

    fn count(&self) -> u64 {
        self.raised.load(Ordering::SeqCst)
    }
}

/// The calls in progress that have an ID, so that they can be cancelled by it. Several calls may
/// share an ID.
#[derive(Debug, Default)]
pub struct NamedCalls(Mutex<Vec<Arc<NamedCall>>>);

#[derive(Debug)]
struct NamedCall {
    id: String,
    is_cancelled: AtomicBool,
}

/// A call with an ID; leaves the calls in progress when dropped.
#[derive(Debug)]
pub struct NamedCallGuard<'a> {
    calls: &'a NamedCalls,
    call: Arc<NamedCall>,
    generation: u32,
}

impl NamedCalls {
    /// Adds a call to those in progress.
    pub fn begin(&self, id: &str) -> NamedCallGuard<'_> {
        let call = Arc::new(NamedCall { id: id.to_owned(), is_cancelled: AtomicBool::new(false) });
        self.in_progress().push(Arc::clone(&call));
        NamedCallGuard { calls: self, call, generation: fork_safety::generation() }
    }

    /// Marks the calls of that ID as cancelled. Returns whether there are any; the caller then
    /// wakes all waiting calls.
    pub fn cancel(&self, id: &str) -> bool {
        let mut found = false;
        for call in self.in_progress().iter().filter(|call| call.id == id) {
            call.is_cancelled.store(true, Ordering::SeqCst);
            found = true;
        }
        found
    }

    fn in_progress(&self) -> MutexGuard<'_, Vec<Arc<NamedCall>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for NamedCallGuard<'_> {
    fn drop(&mut self) {
        if self.generation != fork_safety::generation() {
            // A callback has forked: another thread of the parent may have held the lock.
            return;
        }
        let mut in_progress = self.calls.in_progress();
        if let Some(place) = in_progress.iter().position(|call| Arc::ptr_eq(call, &self.call)) {
            in_progress.swap_remove(place);
        }
    }
}

/// When one call ends: at a point in time, or earlier by a cancellation.
#[derive(Clone)]
pub struct Deadline {
    clock: Arc<dyn Clock>,
    /// On the monotonic clock.
    ends: Duration,
    total: Duration,
    /// When a request that was sent and must not be abandoned ends; not earlier than `ends`.
    completes: Duration,
    /// The end of the whole call, if its caller has set one; `ends` is never later.
    call_ends: Option<CallEnd>,
    cancellation: Arc<Cancellation>,
    raised_before: u64,
    /// Ends this call only, by its ID.
    named: Option<Arc<NamedCall>>,
    /// A cancellation that ends the call even if it was raised before the call began.
    end: Option<Arc<Cancellation>>,
}

/// The end of a whole call.
#[derive(Clone, Copy)]
struct CallEnd {
    /// On the monotonic clock.
    at: Duration,
    /// Since the call began.
    timeout: Duration,
}

/// How often a wait checks `Deadline::end`.
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
        let ends = clock.monotonic() + total;
        Deadline {
            clock: Arc::clone(clock),
            ends,
            completes: ends,
            total,
            call_ends: None,
            cancellation: Arc::clone(cancellation),
            raised_before: cancellation.count(),
            named: None,
            end: None,
        }
    }

    /// The deadline of a call that its caller ends `timeout` from now, in all its phases. A request
    /// that was sent and must not be abandoned completes by this deadline, if that is later.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Deadline {
        let at = self.now() + timeout;
        Deadline {
            ends: at,
            completes: self.ends.max(at),
            total: timeout,
            call_ends: Some(CallEnd { at, timeout }),
            ..self
        }
    }

    /// Whether its caller has set a timeout.
    pub fn has_timeout(&self) -> bool {
        self.call_ends.is_some()
    }

    /// This deadline, which ends as well when the call is cancelled by its ID.
    #[must_use]
    pub fn cancelled_with(self, call: &NamedCallGuard) -> Deadline {
        Deadline { named: Some(Arc::clone(&call.call)), ..self }
    }

    /// This deadline, which ends as well once `end` has been raised: for one task of a group.
    #[must_use]
    pub fn ended_by(self, end: &Arc<Cancellation>) -> Deadline {
        Deadline { end: Some(Arc::clone(end)), ..self }
    }

    /// A deadline `total` from now for another phase of the same call, but not later than the end
    /// of the whole call. A cancellation since the call began still counts.
    #[must_use]
    pub fn renewed(&self, total: Duration) -> Deadline {
        let completes = self.now() + total;
        let ends = self.call_ends.map_or(completes, |call| completes.min(call.at));
        Deadline { ends, completes, total, ..self.clone() }
    }

    /// This deadline, but at most `most` from now.
    #[must_use]
    pub fn within(&self, most: Duration) -> Deadline {
        let latest = self.now() + most;
        let (ends, completes) = (self.ends.min(latest), self.completes.min(latest));
        Deadline { ends, completes, ..self.clone() }
    }

    /// A deadline at least `least` from now that ignores cancellations: for work that must be
    /// finished, such as saving a token whose predecessor is used up.
    #[must_use]
    pub fn at_least(&self, least: Duration) -> Deadline {
        static NEVER: OnceLock<Arc<Cancellation>> = OnceLock::new();
        let cancellation = Arc::clone(NEVER.get_or_init(Arc::default));
        let ends = self.ends.max(self.now() + least);
        Deadline {
            ends,
            completes: self.completes.max(ends),
            call_ends: None,
            cancellation,
            raised_before: 0,
            named: None,
            end: None,
            ..self.clone()
        }
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

    /// The time left for a request that must not be abandoned once it was sent.
    pub fn remaining_to_complete(&self) -> Duration {
        self.completes.saturating_sub(self.now())
    }

    /// Whether the caller's own timeout ends the call within `wait`, while the configured one would
    /// not.
    pub fn cuts_short(&self, wait: Duration) -> bool {
        (self.remaining()..self.remaining_to_complete()).contains(&wait)
    }

    /// Whether the call was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.count() != self.raised_before
            || self.named.as_ref().is_some_and(|call| call.is_cancelled.load(Ordering::SeqCst))
            || self.end.as_ref().is_some_and(|end| end.count() > 0)
    }

    /// `CANCELLED` or `TIMEOUT` if the whole call must end, not only this phase of it.
    pub fn check_call(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(cancelled());
        }
        match self.call_ends {
            Some(call) if call.at <= self.now() => Err(timed_out(call.timeout, "timeoutMs")),
            _ => Ok(()),
        }
    }

    /// `CANCELLED` or `TIMEOUT` if the call must end.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(cancelled());
        }
        if self.remaining().is_zero() {
            return Err(self.timed_out());
        }
        Ok(())
    }

    pub fn timed_out(&self) -> Error {
        match self.call_ends {
            Some(call) if call.at <= self.ends => timed_out(call.timeout, "timeoutMs"),
            _ => timed_out(self.total, "timeouts.totalMs"),
        }
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
            let seen = self.cancellation.changed.count();
            let left = wakes.saturating_sub(self.now());
            if self.is_cancelled() || left.is_zero() {
                break;
            }
            let slice = if self.end.is_some() { left.min(POLL_INTERVAL) } else { left };
            self.clock.wait(&self.cancellation.changed, seen, slice);
        }
        self.check()
    }
}

fn cancelled() -> Error {
    Error::new(Status::Cancelled, "the call was cancelled")
}

fn timed_out(after: Duration, setting: &str) -> Error {
    let message = format!("no result within the deadline of {} ms", after.as_millis());
    Error::new(Status::Timeout, message).with_help(format!("try again, or raise {setting}"))
}

impl std::fmt::Debug for Deadline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deadline")
            .field("ends", &self.ends)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_of_a_forked_child_ends_without_the_lock_that_its_parent_held() {
        let calls = NamedCalls::default();
        let mut guard = calls.begin("job");
        guard.generation += 1;
        let held_at_the_fork = calls.in_progress();
        drop(guard);
        drop(held_at_the_fork);
    }
}
