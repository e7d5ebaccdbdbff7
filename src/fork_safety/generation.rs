//! The fork generation, a counter of forks, and values that belong to one process:
//! [`ProcessLocal`].

use std::sync::atomic::{AtomicU32, Ordering};

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The number of forks from the first process to this one.
#[inline]
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Increments the generation, in a forked child.
pub(super) fn begin() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// A value that only the process that created it may use. A forked child neither uses nor drops it.
pub struct ProcessLocal<T> {
    value: Option<T>,
    generation: u32,
}

impl<T> ProcessLocal<T> {
    pub fn new(value: T) -> ProcessLocal<T> {
        ProcessLocal { value: Some(value), generation: generation() }
    }

    /// The value; `None` in a child of the process that created it.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.generation == generation())
    }

    /// The value, mutable; `None` in a child of the process that created it.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.as_mut().filter(|_| self.generation == generation())
    }
}

impl<T> Drop for ProcessLocal<T> {
    fn drop(&mut self) {
        if self.generation != generation() {
            std::mem::forget(self.value.take());
        }
    }
}
