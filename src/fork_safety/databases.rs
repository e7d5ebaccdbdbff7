//! The registry of open SQLite databases, each of which is closed before a fork, and the read-write lock over all of
//! them.
//!
//! SQLite accounts for its file locks per process. A child with a copy of that account believes that it holds locks
//! that it does not hold, and a new handle of its own would be wrong as well. So every handle is closed before a fork
//! and opened again when it is next used.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

static ACCESS: RwLock<()> = RwLock::new(());
static REGISTRY: Mutex<Vec<Weak<dyn Database>>> = Mutex::new(Vec::new());

/// A database whose handles a forked child must not inherit.
pub trait Database: Send + Sync {
    /// Closes the handles. No thread uses them meanwhile.
    fn close(&self);
}

/// Registers a database. Not while the caller holds [`shared`] or [`exclusive`].
pub fn register(database: Weak<dyn Database>) {
    // A forked child registers databases of its own, and must not find the registry locked.
    let _access = shared();
    let mut registry = registry();
    registry.retain(|database| database.strong_count() > 0);
    registry.push(database);
}

/// Closes every database and returns exclusive access. Each is opened again when it is next used.
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
    fn registration_of_a_database_waits_for_the_end_of_a_fork() {
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
