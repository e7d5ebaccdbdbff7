//! The registry of open SQLite databases, which are closed before a fork, and a read-write lock
//! over all of them.
//!
//! SQLite tracks its file locks per process. A forked child inherits this state without the locks,
//! so even a new handle in the child would be wrong. Every handle is therefore closed before a fork
//! and reopened at its next use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static ACCESS: RwLock<()> = RwLock::new(());
static REGISTRY: Mutex<Vec<Arc<dyn Handles>>> = Mutex::new(Vec::new());

/// The handles of a database, which a forked child must not inherit.
pub trait Handles: Send + Sync {
    /// Closes the handles. Called while no thread uses them.
    fn close(&self);
}

/// Registers the handles of a database. The registry shares their ownership, so that a fork closes
/// them even while another thread is freeing the database. The caller must not hold [`shared`] or
/// [`exclusive`].
pub fn register(handles: Arc<dyn Handles>) {
    // Prevents a fork while the registry is locked: the child could not register its own databases.
    let _access = shared();
    registry().push(handles);
}

/// Closes the handles of a database that no thread uses any more, and removes them from the
/// registry. The caller must not hold [`shared`] or [`exclusive`].
pub fn unregister(handles: &Arc<dyn Handles>) {
    // Closing takes SQLite's locks, so a fork must wait.
    let _access = shared();
    handles.close();
    registry().retain(|other| !Arc::ptr_eq(other, handles));
}

/// Closes every database and returns exclusive access. Each is reopened at its next use.
pub fn close_all() -> RwLockWriteGuard<'static, ()> {
    let access = exclusive();
    registry().iter().for_each(|handles| handles.close());
    access
}

/// Held while a database is used.
pub fn shared() -> RwLockReadGuard<'static, ()> {
    ACCESS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held while no other thread may use any database.
pub fn exclusive() -> RwLockWriteGuard<'static, ()> {
    ACCESS.write().unwrap_or_else(PoisonError::into_inner)
}

fn registry() -> MutexGuard<'static, Vec<Arc<dyn Handles>>> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Barrier, mpsc};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::fork_safety;

    #[derive(Default)]
    struct Stub {
        closed: Arc<AtomicU32>,
    }

    impl Handles for Stub {
        fn close(&self) {
            self.closed.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn handles_of_a_database_that_is_being_freed_are_closed_before_a_fork() {
        let closed = Arc::<AtomicU32>::default();
        let handles: Arc<dyn Handles> = Arc::new(Stub { closed: Arc::clone(&closed) });
        let identity = Arc::downgrade(&handles);
        register(handles);
        // The owner's count is zero, and its thread has not called `unregister` yet.
        drop(close_all());
        assert_eq!(closed.load(Ordering::Relaxed), 1);
        unregister(&identity.upgrade().unwrap());
        assert!(identity.upgrade().is_none(), "the registry keeps what it no longer needs");
    }

    #[test]
    fn registration_of_a_database_waits_until_a_fork_is_done() {
        let handles: Arc<dyn Handles> = Arc::new(Stub::default());
        let (begins, (sender, registered)) = (Barrier::new(2), mpsc::channel());
        thread::scope(|scope| {
            let quiesced = fork_safety::prepare();
            scope.spawn(|| {
                begins.wait();
                register(Arc::clone(&handles));
                sender.send(()).unwrap();
            });
            begins.wait();
            let waits = registered.recv_timeout(Duration::from_millis(100)).is_err();
            assert!(waits, "a child would find the registry of databases locked");
            drop(quiesced);
            registered.recv().unwrap();
            unregister(&handles);
        });
    }
}
