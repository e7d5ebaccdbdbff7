//! Which process this is, as far as `fork` is concerned. The handlers that `fork` runs are in [`crate::ffi`]; this
//! is what they and the core tell each other.
//!
//! A forked child gets a copy of everything, and must use none of it: a lock that another thread held is never
//! given back there, a database handle must not even be closed, and a file lock belongs to parent and child alike.
//! So each process has a generation, and whatever belongs to an older one is left alone.

// Without a durable store there is nothing that a child must not share, and without `fork` there is no child.
#![cfg_attr(not(all(unix, feature = "sqlite", feature = "postgres")), allow(dead_code))]

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

/// How many refresh locks one process can hold at a time and still give them all back in a forked child.
const MOST_LOCKS: usize = 1024;

/// A free place in the table.
const FREE: i32 = -1;

static GENERATION: AtomicU32 = AtomicU32::new(0);
static LOCKS: [AtomicI32; MOST_LOCKS] = [const { AtomicI32::new(FREE) }; MOST_LOCKS];
static GATE: Mutex<()> = Mutex::new(());
static DATABASES: RwLock<()> = RwLock::new(());
static OPEN: Mutex<Vec<Weak<dyn Database>>> = Mutex::new(Vec::new());

/// A database handle that no forked child must inherit. SQLite keeps locks and an account of them per process; a child
/// with a copy of that account believes that it holds locks which it does not, and even a new handle of its own
/// would be wrong. So every handle is closed before a fork, and opened again where it is next used.
pub trait Database: Send + Sync {
    /// Closes the handle. No thread uses it meanwhile.
    fn close(&self);
}

/// Everything that a fork must find at rest, held for its duration.
pub struct AtRest {
    _gate: MutexGuard<'static, ()>,
    _databases: RwLockWriteGuard<'static, ()>,
}

/// Right before a fork: waits until no database and no brief lock is in use, and closes every database.
pub fn rest() -> AtRest {
    // The gate last: a thread that uses a database may pass the gate, and never the other way round.
    let databases = close_databases();
    AtRest { _gate: gate(), _databases: databases }
}

/// Closes every database, and answers the right to be alone with them. Each is opened again where it is next used.
pub fn close_databases() -> RwLockWriteGuard<'static, ()> {
    let alone = alone_with_databases();
    for database in opened().iter().filter_map(Weak::upgrade) {
        database.close();
    }
    alone
}

/// Held while a database is used.
pub fn using_database() -> RwLockReadGuard<'static, ()> {
    DATABASES.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held while no other thread may use any database.
pub fn alone_with_databases() -> RwLockWriteGuard<'static, ()> {
    DATABASES.write().unwrap_or_else(PoisonError::into_inner)
}

/// Enters a database, to be closed before a fork. Not while one is used.
pub fn enter_database(database: Weak<dyn Database>) {
    // A forked child enters databases of its own, and must not find the list locked.
    let _using = using_database();
    let mut opened = opened();
    opened.retain(|database| database.strong_count() > 0);
    opened.push(database);
}

fn opened() -> MutexGuard<'static, Vec<Weak<dyn Database>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of forks between the first process and this one.
#[inline]
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Keeps `fork` out while it is held: for the few steps in which a child's copy would be half done, and around locks
/// that a child must find free. Held briefly, and nothing is waited for under it.
pub fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In the forked child, before anything else: a new generation begins, and `close` is called with each descriptor
/// that holds a refresh lock of the parent's. Otherwise an idle child would keep a lock that its parent's death
/// should free.
pub fn forked(close: impl Fn(i32)) {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for place in &LOCKS {
        let descriptor = place.swap(FREE, Ordering::Relaxed);
        if descriptor != FREE {
            close(descriptor);
        }
    }
}

/// Enters a descriptor that is about to hold a lock. `None` when the table is full: then a forked child may keep that
/// lock for as long as it lives.
pub fn enter(descriptor: i32) -> Option<usize> {
    LOCKS.iter().position(|place| {
        place.compare_exchange(FREE, descriptor, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    })
}

/// Takes a descriptor out again, before it is closed.
pub fn leave(place: usize) {
    LOCKS[place].store(FREE, Ordering::Relaxed);
}

/// Something that only the process which made it may touch. In a forked child it is neither used nor dropped.
pub struct Own<T> {
    value: Option<T>,
    generation: u32,
}

impl<T> Own<T> {
    /// Made by this process.
    pub fn new(value: T) -> Own<T> {
        Own { value: Some(value), generation: generation() }
    }

    /// The value, unless this is a child of the process that made it.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.generation == generation())
    }

    /// The value, to be changed, unless this is a child of the process that made it.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.as_mut().filter(|_| self.generation == generation())
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if self.generation != generation() {
            std::mem::forget(self.value.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, mpsc};
    use std::thread;
    use std::time::Duration;

    struct Nothing;

    impl Database for Nothing {
        fn close(&self) {}
    }

    #[test]
    fn nobody_enters_a_database_during_a_fork() {
        let database: Arc<dyn Database> = Arc::new(Nothing);
        let (begins, (sender, entered)) = (Barrier::new(2), mpsc::channel());
        thread::scope(|scope| {
            let at_rest = rest();
            scope.spawn(|| {
                begins.wait();
                enter_database(Arc::downgrade(&database));
                sender.send(()).unwrap();
            });
            begins.wait();
            let waits = entered.recv_timeout(Duration::from_millis(100)).is_err();
            assert!(waits, "a child would find the list of databases locked");
            drop(at_rest);
            entered.recv().unwrap();
        });
    }
}
