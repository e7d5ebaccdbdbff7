//! A host's function that can be called by many threads and taken away at any time.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::process;

thread_local! {
    /// The slots whose callbacks are running on this thread, innermost last.
    static RUNNING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A function pointer and the host's own context for it.
#[derive(Clone, Copy)]
pub struct Callback<F: Copy> {
    pub function: F,
    pub context: Context,
}

/// The host's pointer; the library never looks behind it.
#[derive(Clone, Copy)]
pub struct Context(pub *mut c_void);

// SAFETY: the header requires that a callback and its context may be used from any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// The place of one callback. No lock is held while it runs.
pub struct Slot<F: Copy> {
    state: Mutex<State<F>>,
    ended: Condvar,
    /// Held by whoever replaces, so that replacements come one after the other.
    replacing: Mutex<()>,
}

struct State<F: Copy> {
    callback: Option<Callback<F>>,
    epoch: usize,
    /// The process that counted: in a forked child only the forking thread is left.
    generation: u32,
    /// How many calls are running, of this epoch and of the one before.
    running: [usize; 2],
}

impl<F: Copy> Slot<F> {
    pub const fn new() -> Slot<F> {
        Slot {
            state: Mutex::new(State { callback: None, epoch: 0, generation: 0, running: [0; 2] }),
            ended: Condvar::new(),
            replacing: Mutex::new(()),
        }
    }

    /// Calls the host's function, if there is one, by `invoke`.
    pub fn run(&self, invoke: impl FnOnce(F, *mut c_void)) {
        let entered = self.with_state(|state| {
            let callback = state.callback?;
            let epoch = state.epoch % 2;
            state.running[epoch] += 1;
            Some((callback, epoch))
        });
        let Some((callback, epoch)) = entered else { return };

        RUNNING.with_borrow_mut(|running| running.push(self.identity()));
        invoke(callback.function, callback.context.0);
        RUNNING.with_borrow_mut(Vec::pop);

        // Saturating: after a fork inside the callback, the child began to count anew.
        self.with_state(|state| state.running[epoch] = state.running[epoch].saturating_sub(1));
        self.ended.notify_all();
    }

    /// Whether the callback is running on this very thread.
    pub fn is_running_here(&self) -> bool {
        RUNNING.with_borrow(|running| running.contains(&self.identity()))
    }

    /// Puts another callback, or none, in its place. Returns once the old one no longer runs anywhere.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` from inside the callback itself, which would wait for its own end.
    pub fn replace(&self, callback: Option<Callback<F>>) -> Result<()> {
        if self.is_running_here() {
            let message = "a callback cannot be replaced from inside itself";
            return Err(
                Error::invalid_argument("callback", message).with_help("replace it after it has returned")
            );
        }
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.with_state(|state| {
            state.callback = callback;
            state.epoch += 1;
            (state.epoch - 1) % 2
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.running[old] > 0 {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    fn identity(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Looks at the state, or changes it, with forks kept out: a child goes on with the same callbacks, and must not
    /// find them locked.
    fn with_state<T>(&self, work: impl FnOnce(&mut State<F>) -> T) -> T {
        let _gate = process::gate();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation != process::generation() {
            (state.generation, state.running) = (process::generation(), [0; 2]);
        }
        work(&mut state)
    }
}
