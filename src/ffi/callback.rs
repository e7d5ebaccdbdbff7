//! A replaceable callback slot: any number of threads can call the host's function during a
//! replacement.

use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::reentrancy::Owner;
use crate::error::{Error, Result};
use crate::fork_safety::{self, ProcessLocal};

/// A function pointer with the host's context.
#[derive(Clone, Copy)]
pub struct Callback<F: Copy> {
    pub function: F,
    pub context: Context,
}

/// The host's pointer, which the library never dereferences.
#[derive(Clone, Copy)]
pub struct Context(pub *mut c_void);

// SAFETY: the header requires that a callback and its context may be used from any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// Holds one callback. No lock is held while it runs.
pub struct Slot<F: Copy> {
    /// Locked only under the fork gate: a forked child keeps the callback and must find the lock
    /// free.
    state: Mutex<State<F>>,
}

struct State<F: Copy> {
    callback: Option<Callback<F>>,
    /// The number of replacements.
    version: u64,
    /// Created at the first use.
    calls: Option<ProcessLocal<Arc<Calls>>>,
}

/// The running calls of one process. A fork may happen while this lock is held, so a child creates
/// its own.
#[derive(Default)]
struct Calls {
    /// The version of each running callback.
    running_versions: Mutex<Vec<u64>>,
    ended: Condvar,
}

/// A running call; ends when dropped.
struct RunningCall {
    calls: Arc<Calls>,
    version: u64,
}

impl<F: Copy> Slot<F> {
    pub const fn new() -> Slot<F> {
        Slot { state: Mutex::new(State { callback: None, version: 0, calls: None }) }
    }

    /// Passes the host's function, if set, to `invoke`.
    pub fn run(&self, invoke: impl FnOnce(F, *mut c_void)) {
        let begun = self.with_state(|state| {
            let callback = state.callback?;
            // Process-local: a child that is forked inside the callback must not end the call.
            Some((callback, ProcessLocal::new(state.calls().begin(state.version))))
        });
        let Some((callback, call)) = begun else { return };

        Owner::of(self).run(|| invoke(callback.function, callback.context.0));
        drop(call);
    }

    /// Whether the callback is running on this thread.
    pub fn is_running_here(&self) -> bool {
        Owner::of(self).is_running()
    }

    /// Replaces the callback. Returns once no previous callback is running. `switched` runs in the
    /// same critical section, so that concurrent replacements cannot interleave; it must take no
    /// lock.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` inside the callback itself, which would wait for its own end.
    pub fn replace(&self, callback: Option<Callback<F>>, switched: impl FnOnce()) -> Result<()> {
        if self.is_running_here() {
            let message = "a callback cannot be replaced from inside itself";
            return Err(Error::invalid_argument("callback", message)
                .with_help("replace it after it has returned"));
        }
        let (calls, version) = self.with_state(|state| {
            state.callback = callback;
            state.version += 1;
            switched();
            (state.calls(), state.version)
        });
        calls.wait_for_those_before(version);
        Ok(())
    }

    /// Accesses the state while forks are delayed.
    fn with_state<T>(&self, work: impl FnOnce(&mut State<F>) -> T) -> T {
        let _gate = fork_safety::gate();
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Copy> State<F> {
    /// The running calls of this process.
    fn calls(&mut self) -> Arc<Calls> {
        if let Some(calls) = self.calls.as_ref().and_then(ProcessLocal::get) {
            return Arc::clone(calls);
        }
        let calls = Arc::default();
        self.calls = Some(ProcessLocal::new(Arc::clone(&calls)));
        calls
    }
}

impl Calls {
    fn begin(self: Arc<Calls>, version: u64) -> RunningCall {
        self.running_versions().push(version);
        RunningCall { calls: self, version }
    }

    fn wait_for_those_before(&self, version: u64) {
        let mut running_versions = self.running_versions();
        while running_versions.iter().any(|running| *running < version) {
            running_versions =
                self.ended.wait(running_versions).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn running_versions(&self) -> MutexGuard<'_, Vec<u64>> {
        self.running_versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        let mut running_versions = self.calls.running_versions();
        if let Some(place) = running_versions.iter().position(|version| *version == self.version) {
            running_versions.swap_remove(place);
        }
        drop(running_versions);
        self.calls.ended.notify_all();
    }
}
