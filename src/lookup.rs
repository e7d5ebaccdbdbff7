//! Name resolution (DNS) with a deadline and cancellation. Each lookup runs on its own short-lived
//! thread, because the system's `getaddrinfo` has no timeout and cannot be cancelled.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// How often a wait checks its deadline and cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

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
    let name = (host.to_owned(), port);
    let spawn = |lookup: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name("ghl-oauth".into()).spawn(lookup).map(drop)
    };
    run(move || name.to_socket_addrs().map(Iterator::collect), spawn, left)
}

/// Runs `lookup` on a thread from `spawn` and waits for its result.
fn run<E: From<io::Error>>(
    lookup: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    mut left: impl FnMut() -> Result<Duration, E>,
) -> Result<Vec<SocketAddr>, E> {
    left()?;
    let (sender, receiver) = sync_channel(1);
    let work = Box::new(move || {
        // The caller may have stopped waiting.
        let _ = sender.send(lookup());
    });
    spawn(work).map_err(|error| io::Error::new(error.kind(), ThreadSpawnError(error)))?;
    loop {
        match receiver.recv_timeout(left()?.min(POLL_INTERVAL)) {
            Ok(found) => return Ok(found?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the lookup failed").into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const HOUR: Duration = Duration::from_secs(3600);

    fn on_thread(work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        thread::Builder::new().spawn(work).map(drop)
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
        let no_thread = |_: Box<dyn FnOnce() + Send>| Err(io::ErrorKind::WouldBlock.into());
        let error = run::<io::Error>(|| Ok(Vec::new()), no_thread, || Ok(HOUR)).unwrap_err();
        assert!(ThreadSpawnError::is_cause_of(&error), "{error:?}");
        assert!(error.to_string().contains("no thread"), "{error}");
        let other =
            run::<io::Error>(|| Err(io::ErrorKind::NotFound.into()), on_thread, || Ok(HOUR));
        assert!(!ThreadSpawnError::is_cause_of(&other.unwrap_err()));
    }

    #[test]
    fn wait_for_a_stalled_lookup_ends_with_the_error_of_its_caller() {
        let (release, hang) = channel::<()>();
        let mut asked = 0;
        let left = || {
            asked += 1;
            if asked > 2 { Err(io::Error::other("cancelled")) } else { Ok(HOUR) }
        };
        let lookup = move || {
            let _ = hang.recv();
            Ok(Vec::new())
        };
        let error = run::<io::Error>(lookup, on_thread, left).unwrap_err();
        assert_eq!(error.to_string(), "cancelled");
        drop(release);
    }

    #[test]
    fn lookup_that_panics_is_an_error() {
        let error = run::<io::Error>(|| panic!("as intended"), on_thread, || Ok(HOUR)).unwrap_err();
        assert_eq!(error.to_string(), "the lookup failed");
    }
}
