//! The registry of open SQLite databases, which are closed before a fork, and a read-write lock
//! over all of them.
//!
//! SQLite tracks its file locks per process. A forked child inherits this state without the locks,
//! so even a new handle in the child would be wrong. Every handle is therefore closed before a fork
//! and reopened at its next use.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

static ACCESS: RwLock<()> = RwLock::new(());
static REGISTRY: Mutex<Vec<Weak<dyn Database>>> = Mutex::new(Vec::new());

/// A database with handles that a forked child must not inherit.
pub trait Database: Send + Sync {
    /// Closes the handles. Called while no thread uses them.
    fn close(&self);
}

/// Registers a database. The caller must not hold [`shared`] or [`exclusive`].
pub fn register(database: Weak<dyn Database>) {
    // Prevents a fork while the registry is locked: the child could not register its own databases.
    let _access = shared();
    let mut registry = registry();
    registry.retain(|database| database.strong_count() > 0);
    registry.push(database);
}

/// Closes every database and returns exclusive access. Each is reopened at its next use.
pub fn close_all() -> RwLockWriteGuard<'static, ()> {
    let access = exclusive();
    for database in registry().iter().filter_map(Weak::upgrade) {
        database.close();
    }
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

fn registry() -> MutexGuard<'static, Vec<Weak<dyn Database>>> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier, mpsc};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::fork_safety;

    struct Stub;

    impl Database for Stub {
        fn close(&self) {}
    }

    #[test]
    fn registration_of_a_database_waits_until_a_fork_is_done() {
        let database: Arc<dyn Database> = Arc::new(Stub);
        let (begins, (sender, registered)) = (Barrier::new(2), mpsc::channel());
        thread::scope(|scope| {
            let quiesced = fork_safety::prepare();
            scope.spawn(|| {
                begins.wait();
                register(Arc::downgrade(&database));
                sender.send(()).unwrap();
            });
            begins.wait();
            let waits = registered.recv_timeout(Duration::from_millis(100)).is_err();
            assert!(waits, "a child would find the registry of databases locked");
            drop(quiesced);
            registered.recv().unwrap();
        });
    }
}
