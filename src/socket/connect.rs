//! TCP connect with "Happy Eyeballs" (RFC 8305): the address families alternate, a new attempt
//! starts every 250 ms while the earlier ones continue, and the first success wins.
//!
//! All attempts run on the caller's thread, with non-blocking sockets.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::{Interest, wait_any};

/// Connection attempt delay (RFC 8305, section 5): how long one attempt is alone before the next
/// one starts as well. The next one starts at once if the earlier ones have failed.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A socket that is not yet connected.
pub trait Unconnected {
    /// The socket.
    ///
    /// # Errors
    /// If it was closed.
    fn socket(&self) -> io::Result<&Socket>;
}

impl Unconnected for Socket {
    fn socket(&self) -> io::Result<&Socket> {
        Ok(self)
    }
}

/// Connects to the first of the addresses that accepts. `open` creates a socket for an address;
/// the result is non-blocking. `left` is polled for the time that the caller still waits, or for
/// the error that ends the wait.
///
/// # Errors
/// The error of `left`; if all attempts fail, the error of the last one to fail.
pub fn connect<S: Unconnected, E: From<io::Error>>(
    addresses: &[SocketAddr],
    mut open: impl FnMut(SocketAddr) -> io::Result<S>,
    mut left: impl FnMut() -> Result<Duration, E>,
) -> Result<S, E> {
    let mut waiting = alternating(addresses).into_iter();
    let mut attempts: Vec<Attempt<S>> = Vec::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let mut next_start = Instant::now();
    loop {
        let mut remaining = left()?;
        if waiting.len() > 0 {
            let now = Instant::now();
            if attempts.is_empty() || next_start <= now {
                let started = waiting.next().map(|address| Attempt::start(address, &mut open));
                match started {
                    Some(Ok(attempt)) => attempts.push(attempt),
                    Some(Err(error)) => failure = error,
                    None => {}
                }
                next_start = now + ATTEMPT_DELAY;
            }
            remaining = remaining.min(next_start.saturating_duration_since(now));
        }
        if !attempts.is_empty() {
            let mut sockets = Vec::with_capacity(attempts.len());
            for attempt in &attempts {
                sockets.push(attempt.0.socket()?);
            }
            wait_any(sockets, Interest::Write, remaining)?;
        }
        let mut at = 0;
        while let Some(attempt) = attempts.get(at) {
            match attempt.is_connected() {
                Ok(true) => return Ok(attempts.swap_remove(at).0),
                Ok(false) => at += 1,
                Err(error) => {
                    failure = error;
                    attempts.remove(at);
                }
            }
        }
        if attempts.is_empty() && waiting.len() == 0 {
            return Err(failure.into());
        }
    }
}

/// A connection attempt in progress.
struct Attempt<S>(S);

impl<S: Unconnected> Attempt<S> {
    fn start(
        address: SocketAddr,
        open: impl FnOnce(SocketAddr) -> io::Result<S>,
    ) -> io::Result<Attempt<S>> {
        let attempt = Attempt(open(address)?);
        let socket = attempt.0.socket()?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if !is_in_progress(&error) => Err(error),
            _ => Ok(attempt),
        }
    }

    fn is_connected(&self) -> io::Result<bool> {
        let socket = self.0.socket()?;
        match socket.take_error()? {
            Some(error) => Err(error),
            None => Ok(socket.peer_addr().is_ok()),
        }
    }
}

/// Whether a connection attempt has only begun.
fn is_in_progress(error: &io::Error) -> bool {
    // No `ErrorKind` on Unix; on Windows it is `WouldBlock`.
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) {
        return true;
    }
    // An interrupted attempt continues (POSIX, connect).
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The addresses with alternating families, beginning with the family of the first one (RFC 8305,
/// section 4). The resolver has sorted them (RFC 6724).
fn alternating(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (preferred, other): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv4() == first_is_v4);
    let mut ordered = Vec::with_capacity(addresses.len());
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    while ordered.len() < addresses.len() {
        ordered.extend(preferred.next());
        ordered.extend(other.next());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

    /// An address at which connections are never established: its backlog is full, so the system
    /// ignores further attempts.
    struct BlackHole {
        _listener: Socket,
        _queued: Vec<Socket>,
        address: SocketAddr,
    }

    impl BlackHole {
        fn new(ip: IpAddr) -> BlackHole {
            let listener = tcp(SocketAddr::new(ip, 0)).unwrap();
            listener.bind(&SocketAddr::new(ip, 0).into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            let mut queued = Vec::new();
            for _ in 0..4 {
                let socket = tcp(address).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address.into());
                queued.push(socket);
            }
            BlackHole { _listener: listener, _queued: queued, address }
        }
    }

    fn tcp(address: SocketAddr) -> io::Result<Socket> {
        Socket::new(Domain::for_address(address), Type::STREAM, None)
    }

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const HOUR: Duration = Duration::from_secs(3600);

    /// A port without a listener.
    fn closed_port() -> SocketAddr {
        TcpListener::bind((V4, 0)).unwrap().local_addr().unwrap()
    }

    #[test]
    fn families_alternate_from_the_first_address() {
        let v4 = |last| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 443);
        let v6 =
            |last| SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, last)), 443);
        for (given, expected) in [
            (vec![v6(1), v6(2), v4(1), v4(2)], vec![v6(1), v4(1), v6(2), v4(2)]),
            (vec![v4(1), v6(1), v6(2), v6(3)], vec![v4(1), v6(1), v6(2), v6(3)]),
            (vec![v4(1), v4(2)], vec![v4(1), v4(2)]),
            (vec![], vec![]),
        ] {
            assert_eq!(alternating(&given), expected);
        }
    }

    #[test]
    fn address_behind_two_dead_ones_is_reached_after_two_attempt_delays() {
        let (first, second) = (BlackHole::new(V4), BlackHole::new(V4));
        let listener = TcpListener::bind((V4, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let began = Instant::now();
        let addresses = [first.address, second.address, address];
        let socket = connect::<_, io::Error>(&addresses, tcp, || Ok(HOUR)).unwrap();
        assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(address));
        // A system that gives up on an address needs more than a minute.
        let took = began.elapsed();
        assert!(took >= 2 * ATTEMPT_DELAY && took < Duration::from_secs(20), "{took:?}");
    }

    #[test]
    fn refused_attempt_is_followed_by_the_next_one_at_once() {
        let listener = TcpListener::bind((V4, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut addresses = vec![closed_port(); 40];
        addresses.push(address);
        let began = Instant::now();
        let socket = connect::<_, io::Error>(&addresses, tcp, || Ok(HOUR)).unwrap();
        assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(address));
        assert!(began.elapsed() < 40 * ATTEMPT_DELAY, "{:?}", began.elapsed());
    }

    #[test]
    fn attempt_that_fails_among_others_in_progress_is_dropped() {
        let listener = TcpListener::bind((V4, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let dead = BlackHole::new(V4);
        let addresses = [dead.address, closed_port(), address];
        let socket = connect::<_, io::Error>(&addresses, tcp, || Ok(HOUR)).unwrap();
        assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(address));
    }

    #[test]
    fn all_refused_is_the_error_of_the_last_one() {
        let addresses = [closed_port(), closed_port()];
        let error = connect::<_, io::Error>(&addresses, tcp, || Ok(HOUR)).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = connect::<_, io::Error>(&[], tcp, || Ok(HOUR)).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let no_socket = |_| Err::<Socket, _>(io::Error::other("no descriptor"));
        let error = connect::<_, io::Error>(&addresses, no_socket, || Ok(HOUR)).err().unwrap();
        assert_eq!(error.to_string(), "no descriptor");
    }

    #[test]
    fn wait_for_a_dead_address_ends_with_the_error_of_its_caller() {
        let dead = BlackHole::new(V4);
        let began = Instant::now();
        let left = || match began.elapsed() {
            elapsed if elapsed > Duration::from_millis(120) => Err(io::Error::other("cancelled")),
            _ => Ok(HOUR),
        };
        let error = connect(&[dead.address], tcp, left).err().unwrap();
        assert_eq!(error.to_string(), "cancelled");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}
