//! Name resolution (DNS) with a deadline and cancellation. A lookup runs on its own short-lived
//! thread, because the system's `getaddrinfo` has no timeout and cannot be cancelled. Callers that
//! look up the same name share one lookup (single flight), so a resolver that does not answer holds
//! few threads per name, however many calls give up on it. If a lookup does not
//! end within some time, a second one is started: the resolver may have recovered.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::fork_safety;

/// How often a wait checks its deadline and cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long callers join a lookup that is in progress.
const JOINABLE_FOR: Duration = Duration::from_secs(10);

/// Maximum number of lookups of the same name in progress.
const MAX_PER_NAME: usize = 4;

/// Stack size of every thread that the library starts. Set explicitly, because std otherwise reads
/// the environment variable `RUST_MIN_STACK`.
const STACK_SIZE: usize = 2 << 20;

/// No thread could be started for a lookup: a thread limit was reached, or memory is low. Nothing
/// was sent.
#[derive(Debug)]
pub struct ThreadSpawnError(io::Error);

impl ThreadSpawnError {
    /// The help text of the error.
    pub const HELP: &str =
        "raise the limit of threads (ulimit -u, or pids.max of the container), then try again";

    /// Whether `error` was caused by this.
    pub fn is_cause_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|cause| cause.is::<ThreadSpawnError>())
    }
}

impl fmt::Display for ThreadSpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no thread could be started to resolve the host name: {}", self.0)
    }
}

impl StdError for ThreadSpawnError {}

/// The settings of a new thread of the library.
pub fn new_thread() -> thread::Builder {
    thread::Builder::new().name("ghl-oauth".into()).stack_size(STACK_SIZE)
}

/// The addresses of a host. `left` is polled for the time that the caller still waits, or for the
/// error that ends the wait.
///
/// # Errors
/// The error of `left`; an `io::Error` if the name has no address; one that wraps
/// [`ThreadSpawnError`] if no thread could be started.
pub fn addresses<E: From<io::Error>>(
    host: &str,
    port: u16,
    left: impl FnMut() -> Result<Duration, E>,
) -> Result<Vec<SocketAddr>, E> {
    static LOOKUPS: Lookups = Lookups::new(JOINABLE_FOR);
    let name = host.to_owned();
    let resolve = move || (name, 0).to_socket_addrs().map(Iterator::collect);
    let spawn = |work: Box<dyn FnOnce() + Send>| new_thread().spawn(work).map(drop);
    let mut found = LOOKUPS.run(host, resolve, spawn, left)?;
    found.iter_mut().for_each(|address| address.set_port(port));
    Ok(found)
}

/// The lookups in progress, by host name. `None` until the first one.
///
/// Accessed with the fork gate locked, so that the lock is free in a forked child. The thread of a
/// lookup does not exist there, so the key contains the fork generation.
struct Lookups {
    open: Mutex<Option<OpenLookups>>,
    joinable_for: Duration,
}

/// The lookups of each name, oldest first.
type OpenLookups = HashMap<Key, Vec<Arc<Lookup>>>;

type Key = (u32, String);

/// One lookup, which several callers may wait for.
struct Lookup {
    began: Instant,
    outcome: OnceLock<Result<Vec<SocketAddr>, Failure>>,
    lock: Mutex<()>,
    changed: Condvar,
}

/// The error of a lookup for each of its callers: its OS error number, or its kind and text.
struct Failure(Result<i32, (io::ErrorKind, String)>);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure(error.raw_os_error().ok_or_else(|| (error.kind(), error.to_string())))
    }
}

impl From<&Failure> for io::Error {
    fn from(failure: &Failure) -> io::Error {
        match &failure.0 {
            Ok(number) => io::Error::from_raw_os_error(*number),
            Err((kind, text)) => io::Error::new(*kind, text.clone()),
        }
    }
}

impl Lookups {
    const fn new(joinable_for: Duration) -> Lookups {
        Lookups { open: Mutex::new(None), joinable_for }
    }

    /// Joins the lookup of this host, or starts it on a thread from `spawn`, and waits for its
    /// result.
    fn run<E: From<io::Error>>(
        &'static self,
        host: &str,
        resolve: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
        mut left: impl FnMut() -> Result<Duration, E>,
    ) -> Result<Vec<SocketAddr>, E> {
        left()?;
        let lookup = self.join(host, resolve, spawn)?;
        loop {
            match lookup.wait(left()?) {
                Some(Ok(found)) => return Ok(found.clone()),
                Some(Err(failure)) => return Err(io::Error::from(failure).into()),
                None => {}
            }
        }
    }

    fn join(
        &'static self,
        host: &str,
        resolve: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> io::Result<Arc<Lookup>> {
        let key = (fork_safety::generation(), host.to_ascii_lowercase());
        let _gate = fork_safety::gate();
        let mut open = self.open();
        let open = open.get_or_insert_default();
        let of_host = open.get(&key).map(Vec::as_slice).unwrap_or_default();
        if let Some(newest) = of_host.last()
            && (of_host.len() >= MAX_PER_NAME || newest.began.elapsed() < self.joinable_for)
        {
            return Ok(Arc::clone(newest));
        }
        let lookup = Arc::new(Lookup {
            began: Instant::now(),
            outcome: OnceLock::new(),
            lock: Mutex::default(),
            changed: Condvar::new(),
        });
        let parts = (key.clone(), Arc::clone(&lookup));
        let work = move || {
            let end = End { lookups: self, key: parts.0, lookup: parts.1 };
            end.complete(resolve());
        };
        spawn(Box::new(work))
            .map_err(|error| io::Error::new(error.kind(), ThreadSpawnError(error)))?;
        open.entry(key).or_default().push(Arc::clone(&lookup));
        Ok(lookup)
    }

    fn open(&self) -> MutexGuard<'_, Option<OpenLookups>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookup {
    /// Waits up to `timeout`, or briefly, for the result.
    fn wait(&self, timeout: Duration) -> Option<&Result<Vec<SocketAddr>, Failure>> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.outcome.get().is_none() {
            drop(self.changed.wait_timeout(lock, timeout.min(POLL_INTERVAL)));
        }
        self.outcome.get()
    }
}

/// Ends a lookup: removes it, and hands its result to its callers. Dropped without a result, for
/// example by a panic, it hands out an error.
struct End {
    lookups: &'static Lookups,
    key: Key,
    lookup: Arc<Lookup>,
}

impl End {
    fn complete(self, outcome: io::Result<Vec<SocketAddr>>) {
        let _ = self.lookup.outcome.set(outcome.map_err(Failure::from));
    }
}

impl Drop for End {
    fn drop(&mut self) {
        {
            let _gate = fork_safety::gate();
            if let Some(open) = self.lookups.open().as_mut()
                && let Some(of_host) = open.get_mut(&self.key)
            {
                of_host.retain(|lookup| !Arc::ptr_eq(lookup, &self.lookup));
                if of_host.is_empty() {
                    open.remove(&self.key);
                }
            }
        }
        self.lookup.outcome.get_or_init(|| Err(io::Error::other("the lookup failed").into()));
        drop(self.lookup.lock.lock());
        self.lookup.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    const HOUR: Duration = Duration::from_secs(3600);

    fn on_thread(work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        new_thread().spawn(work).map(drop)
    }

    fn lookups() -> &'static Lookups {
        Box::leak(Box::new(Lookups::new(HOUR)))
    }

    #[test]
    fn lookup_of_localhost_finds_a_loopback_address_with_the_port() {
        let found = addresses::<io::Error>("localhost", 4711, || Ok(HOUR)).unwrap();
        assert!(
            found.iter().all(|address| address.ip().is_loopback() && address.port() == 4711),
            "{found:?}"
        );
        assert!(!found.is_empty());
    }

    #[test]
    fn lookup_without_a_thread_is_an_error_with_the_reason() {
        let lookups = lookups();
        let no_thread = |_: Box<dyn FnOnce() + Send>| Err(io::ErrorKind::WouldBlock.into());
        let empty = || Ok(Vec::new());
        let error = lookups.run::<io::Error>("a", empty, no_thread, || Ok(HOUR)).unwrap_err();
        assert!(ThreadSpawnError::is_cause_of(&error), "{error:?}");
        assert!(error.to_string().contains("no thread"), "{error}");
        // The next call tries again.
        let not_found = || Err(io::Error::new(io::ErrorKind::NotFound, "no such host"));
        let error = lookups.run::<io::Error>("a", not_found, on_thread, || Ok(HOUR)).unwrap_err();
        assert!(!ThreadSpawnError::is_cause_of(&error));
        assert_eq!((error.kind(), &*error.to_string()), (io::ErrorKind::NotFound, "no such host"));
    }

    #[test]
    fn stalled_lookup_is_abandoned_by_its_caller_and_joined_by_the_next_ones() {
        let lookups = lookups();
        let threads = AtomicUsize::new(0);
        let spawn = |work| {
            threads.fetch_add(1, Ordering::SeqCst);
            on_thread(work)
        };
        let (release, hang) = channel::<()>();
        let mut resolve = Some(move || {
            let _ = hang.recv();
            Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))])
        });
        for _ in 0..3 {
            let mut asked = 0;
            let left = || {
                asked += 1;
                if asked > 2 { Err(io::Error::other("cancelled")) } else { Ok(HOUR) }
            };
            let outcome = match resolve.take() {
                Some(resolve) => lookups.run("Host.example", resolve, spawn, left),
                None => lookups.run("host.example", || unreachable!(), spawn, left),
            };
            assert_eq!(outcome.unwrap_err().to_string(), "cancelled");
        }
        assert_eq!(threads.load(Ordering::SeqCst), 1);
        // Another name is not affected.
        let other = lookups.run::<io::Error>("other", || Ok(Vec::new()), spawn, || Ok(HOUR));
        assert!(other.unwrap().is_empty());
        assert_eq!(threads.load(Ordering::SeqCst), 2);
        drop(release);
        let found = lookups
            .run::<io::Error>("host.example", || Ok(Vec::new()), spawn, || Ok(HOUR))
            .unwrap();
        // Either the result of the shared lookup, or of a new one if it had just ended.
        assert!(threads.load(Ordering::SeqCst) == 3 || found.len() == 1);
    }

    #[test]
    fn old_stalled_lookup_is_not_joined_and_few_of_a_name_are_in_progress() {
        let lookups: &'static Lookups = Box::leak(Box::new(Lookups::new(Duration::ZERO)));
        let threads = AtomicUsize::new(0);
        let spawn = |work| {
            threads.fetch_add(1, Ordering::SeqCst);
            on_thread(work)
        };
        let stall = |released: std::sync::mpsc::Receiver<()>| {
            let mut asked = 0;
            let left = || {
                asked += 1;
                if asked > 2 { Err(io::Error::other("cancelled")) } else { Ok(HOUR) }
            };
            let hang = move || {
                let _ = released.recv();
                Ok(Vec::new())
            };
            lookups.run("a", hang, spawn, left).unwrap_err()
        };
        let (_release, hang) = channel();
        stall(hang);
        // The resolver has recovered.
        let found = || Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))]);
        assert_eq!(lookups.run::<io::Error>("a", found, spawn, || Ok(HOUR)).unwrap().len(), 1);
        assert_eq!(threads.load(Ordering::SeqCst), 2);
        let mut releases = Vec::new();
        for _ in 0..6 {
            let (release, hang) = channel();
            releases.push(release);
            stall(hang);
        }
        assert!(threads.load(Ordering::SeqCst) <= 2 + MAX_PER_NAME);
    }

    #[test]
    fn lookup_that_panics_is_an_error_for_all_its_callers() {
        let lookups = lookups();
        let panics = || panic!("as intended");
        let error = lookups.run::<io::Error>("a", panics, on_thread, || Ok(HOUR)).unwrap_err();
        assert_eq!(error.to_string(), "the lookup failed");
        let again = lookups.run::<io::Error>("a", || Ok(Vec::new()), on_thread, || Ok(HOUR));
        assert!(again.unwrap().is_empty(), "it is not remembered");
    }
}
