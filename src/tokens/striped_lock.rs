//! A striped read-write lock: readers on different stripes share no cache line.
//!
//! Acquiring an ordinary read lock writes to it, so concurrent readers move its cache line between
//! cores. Here each thread uses one of several locks (stripes); a writer must acquire all of them.
//!
//! The value exists once. Each stripe holds an `Arc` of it, which readers do not clone. A writer
//! that holds all stripes drops all references but one, so that `Arc::get_mut` succeeds, and
//! restores them before it unlocks. So a reader sees the value either before or after a write, and
//! a reader that starts after a write has ended sees that write.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(ghl_loom)]
use loom::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(ghl_loom))]
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The number of stripes. More threads than this share stripes.
const STRIPES: usize = if cfg!(ghl_loom) { 2 } else { 8 };

pub struct StripedLock<T> {
    stripes: [Stripe<T>; STRIPES],
}

/// Aligned to two cache lines of 64 bytes, since processors prefetch them in pairs.
#[repr(align(128))]
struct Stripe<T>(RwLock<SharedValue<T>>);

/// `None` only while a writer holds all stripes.
type SharedValue<T> = Option<Arc<T>>;

/// Shared access to the value.
pub struct ReadGuard<'a, T> {
    stripe: RwLockReadGuard<'a, SharedValue<T>>,
}

/// Exclusive access to the value.
pub struct WriteGuard<'a, T> {
    value: SharedValue<T>,
    stripes: [RwLockWriteGuard<'a, SharedValue<T>>; STRIPES],
}

impl<T> StripedLock<T> {
    pub fn new(value: T) -> StripedLock<T> {
        let value = Arc::new(value);
        StripedLock {
            stripes: std::array::from_fn(|_| Stripe(RwLock::new(Some(Arc::clone(&value))))),
        }
    }

    /// Waits for a writer, but not for readers.
    pub fn read(&self) -> ReadGuard<'_, T> {
        self.read_as(thread_index())
    }

    fn read_as(&self, thread: usize) -> ReadGuard<'_, T> {
        let stripe = &self.stripes[thread % STRIPES].0;
        ReadGuard { stripe: stripe.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Waits for all readers and writers. All writers acquire the stripes in the same order, so
    /// they cannot deadlock.
    pub fn write(&self) -> WriteGuard<'_, T> {
        let mut stripes = self
            .stripes
            .each_ref()
            .map(|stripe| stripe.0.write().unwrap_or_else(PoisonError::into_inner));
        // Each step drops the previous reference: the last one is unique.
        let value = stripes.iter_mut().fold(None, |_, stripe| stripe.take());
        WriteGuard { value, stripes }
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.stripe
            .as_ref()
            .unwrap_or_else(|| unreachable!("a writer restores the value before it unlocks"))
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().unwrap_or_else(|| unreachable!("a writer holds the value"))
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        let only = self.value.as_mut().and_then(Arc::get_mut);
        only.unwrap_or_else(|| unreachable!("a reader holds its stripe while it reads"))
    }
}

/// Restores the value, also after a panic; the stripes unlock afterwards.
impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        for stripe in &mut self.stripes {
            **stripe = self.value.clone();
        }
    }
}

/// A sequential number for each thread, so that the first `STRIPES` threads do not share a stripe.
fn thread_index() -> usize {
    static NEXT_INDEX: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static INDEX: usize = NEXT_INDEX.fetch_add(1, Ordering::Relaxed);
    }
    INDEX.with(|number| *number)
}

#[cfg(all(test, not(ghl_loom)))]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    #[test]
    fn reader_never_sees_a_partial_write() {
        let pair = StripedLock::new((0, 0));
        thread::scope(|scope| {
            let readers: Vec<_> = (0..2 * STRIPES)
                .map(|_| {
                    scope.spawn(|| {
                        let mut before = 0;
                        while before < 60 {
                            let pair = pair.read();
                            assert!(pair.0 == pair.1 && pair.0 >= before, "{before}: {:?}", *pair);
                            before = pair.0;
                        }
                    })
                })
                .collect();
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..30 {
                        let mut pair = pair.write();
                        pair.0 += 1;
                        thread::yield_now();
                        pair.1 += 1;
                    }
                });
            }
            for reader in readers {
                reader.join().unwrap();
            }
        });
    }

    #[test]
    fn completed_write_is_visible_to_the_next_reader() {
        let value = StripedLock::new(0);
        for round in 1..100 {
            *value.write() = round;
            assert!((0..STRIPES).all(|thread| *value.read_as(thread) == round));
        }
    }

    #[test]
    fn readers_of_one_stripe_do_not_block_each_other() {
        let value = StripedLock::new(7);
        let first = value.read_as(3);
        assert_eq!(*value.read_as(3), *first);
    }

    #[test]
    fn panicking_writer_keeps_the_value() {
        let value = StripedLock::new(vec![1]);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut writing = value.write();
            writing.push(2);
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(*value.read(), [1, 2]);
        value.write().push(3);
        assert_eq!(*value.read(), [1, 2, 3]);
    }

    #[test]
    fn value_is_dropped_with_the_lock() {
        let inside = std::sync::Arc::new(());
        let lock = StripedLock::new(std::sync::Arc::clone(&inside));
        drop(lock.read());
        drop(lock.write());
        assert_eq!(std::sync::Arc::strong_count(&inside), 2);
        drop(lock);
        assert_eq!(std::sync::Arc::strong_count(&inside), 1);
    }
}

/// Loom models: all interleavings of a few threads.
#[cfg(all(test, ghl_loom))]
mod models {
    use super::*;
    use loom::thread;

    #[test]
    fn write_is_atomic_and_visible_on_every_stripe() {
        loom::model(|| {
            let pair = Arc::new(StripedLock::new((0, 0)));
            let readers: Vec<_> = (0..STRIPES)
                .map(|number| {
                    let pair = Arc::clone(&pair);
                    thread::spawn(move || {
                        let pair = pair.read_as(number);
                        assert_eq!(pair.0, pair.1);
                    })
                })
                .collect();
            {
                let mut pair = pair.write();
                pair.0 += 1;
                pair.1 += 1;
            }
            assert!((0..STRIPES).all(|number| *pair.read_as(number) == (1, 1)));
            for reader in readers {
                reader.join().unwrap();
            }
        });
    }

    #[test]
    fn two_writers_and_a_reader_terminate() {
        loom::model(|| {
            let count = Arc::new(StripedLock::new(0));
            let other = {
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    let before = *count.read_as(1);
                    *count.write() += 1;
                    assert!(*count.read_as(1) > before);
                })
            };
            *count.write() += 1;
            assert!(*count.read_as(0) >= 1);
            other.join().unwrap();
            assert_eq!(*count.read_as(0), 2);
        });
    }
}
