//! A non-blocking socket, polled with a deadline and closed in a forked child.
//!
//! There is no async runtime. tokio-postgres requires tokio's stream traits, which this module
//! implements: an operation that would block returns `Pending`, and [`block_on`] then waits for the
//! socket.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pg_error::PgError;
use crate::deadline::Deadline;
use crate::fork_safety::descriptors::NotInherited;
use crate::socket::connect::{Unconnected, connect};
use crate::socket::{self, Interest};

/// Time until a dead peer is detected: 10 + 3 × 5 seconds on an idle connection, 10 seconds if sent
/// data is not acknowledged.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(10))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);
/// For `TCP_USER_TIMEOUT`, which macOS, the BSDs and Windows do not have.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket that a forked child closes. The server releases an advisory lock only when the last
/// copy of its connection's socket is closed.
pub struct PollSocket {
    socket: NotInherited<Socket>,
    /// Whether a write would have blocked since the connection was last polled.
    write_blocked: AtomicBool,
}

/// The end of one step of a call: the call's deadline or, if it is earlier, the step's own time
/// limit.
pub struct StepDeadline<'a> {
    ends: Option<Instant>,
    deadline: &'a Deadline,
}

impl<'a> StepDeadline<'a> {
    /// Ends at the call's deadline.
    pub fn end_of(deadline: &'a Deadline) -> StepDeadline<'a> {
        StepDeadline { ends: None, deadline }
    }

    /// Ends after `limit`, or at the call's deadline.
    pub fn within(limit: Duration, deadline: &'a Deadline) -> StepDeadline<'a> {
        StepDeadline { ends: Some(Instant::now() + limit), deadline }
    }

    /// The remaining time. Fails with [`PgError::CallEnded`] if the call has ended, or with
    /// [`PgError::Timeout`] if only this step has.
    pub fn left(&self) -> Result<Duration, PgError> {
        self.deadline.check().map_err(PgError::CallEnded)?;
        let left = self.deadline.remaining();
        let Some(ends) = self.ends else { return Ok(left) };
        match ends.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(PgError::Timeout),
            of_step => Ok(left.min(of_step)),
        }
    }

    /// Ends after `limit` at the latest.
    pub fn narrowed(&self, limit: Duration) -> StepDeadline<'a> {
        let ends = Instant::now() + limit;
        StepDeadline {
            ends: Some(self.ends.map_or(ends, |earlier| earlier.min(ends))),
            deadline: self.deadline,
        }
    }
}

impl PollSocket {
    /// Connects over TCP to the first of the addresses that accepts.
    pub fn tcp(addresses: &[SocketAddr], until: &StepDeadline) -> Result<Arc<PollSocket>, PgError> {
        let open = |address| {
            let stream = PollSocket::open(Domain::for_address(address))?;
            let socket = stream.socket()?;
            // Failures are ignored: these options are only improvements.
            let _ = socket.set_tcp_nodelay(true);
            let _ = socket.set_tcp_keepalive(&KEEPALIVE);
            // Elsewhere the deadline of the call detects data that is never acknowledged.
            #[cfg(target_os = "linux")]
            let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
            Ok(stream)
        };
        connect(addresses, open, || until.left())
    }

    /// Unix only: elsewhere, tokio-postgres accepts no Unix socket as host.
    #[cfg(unix)]
    pub fn unix(path: &Path, until: &StepDeadline) -> Result<Arc<PollSocket>, PgError> {
        let stream = PollSocket::open(Domain::UNIX)?;
        let socket = stream.socket()?;
        socket.set_nonblocking(true)?;
        loop {
            match socket.connect(&SockAddr::unix(path)?) {
                Ok(()) => return Ok(stream),
                // The backlog is full; there is no event for when that changes.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(until.left()?.min(Duration::from_millis(5)));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Never called: `store.url` is refused if it names a Unix socket.
    #[cfg(not(unix))]
    pub fn unix(path: &Path, _: &StepDeadline) -> Result<Arc<PollSocket>, PgError> {
        Err(PgError::ConnectionLost(format!(
            "this system does not support Unix sockets such as {}",
            path.display()
        )))
    }

    fn open(domain: Domain) -> io::Result<Arc<PollSocket>> {
        let socket = NotInherited::open(|| Socket::new(domain, Type::STREAM, None))?;
        Ok(Arc::new(PollSocket { socket, write_blocked: AtomicBool::new(false) }))
    }

    fn socket(&self) -> io::Result<&Socket> {
        self.socket.get()
    }

    /// The addresses of both ends, its own first; `None` for a Unix socket.
    pub fn ends(&self) -> Option<[SocketAddr; 2]> {
        let socket = self.socket().ok()?;
        Some([socket.local_addr().ok()?.as_socket()?, socket.peer_addr().ok()?.as_socket()?])
    }

    /// Whether all written bytes were accepted by the socket.
    pub fn is_flushed(&self) -> bool {
        !self.write_blocked.load(Ordering::Relaxed)
    }

    /// Waits up to `timeout` for input, or, with `write_blocked`, also for space to write.
    fn wait(&self, timeout: Duration, write_blocked: bool) -> io::Result<()> {
        let interest = if write_blocked { Interest::Both } else { Interest::Read };
        socket::wait(self.socket()?, interest, timeout)
    }
}

impl Unconnected for Arc<PollSocket> {
    fn socket(&self) -> io::Result<&Socket> {
        PollSocket::socket(self)
    }
}

/// Whether the waker was called since the last poll.
struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls until the result is ready, and waits for the socket in between.
pub fn block_on<T>(
    stream: &PollSocket,
    until: &StepDeadline,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T, PgError>>,
) -> Result<T, PgError> {
    loop {
        if let Poll::Ready(outcome) = poll_until_stalled(stream, &mut poll) {
            return outcome;
        }
        stream.wait(until.left()?, !stream.is_flushed())?;
    }
}

/// Polls until the result is ready or requires waiting.
pub fn poll_until_stalled<T>(
    stream: &PollSocket,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let flag = Arc::new(WakeFlag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    loop {
        stream.write_blocked.store(false, Ordering::Relaxed);
        let outcome = poll(&mut Context::from_waker(&waker));
        if outcome.is_ready() || !flag.0.swap(false, Ordering::SeqCst) {
            return outcome;
        }
    }
}

/// A [`PollSocket`] as an asynchronous stream.
pub struct AsyncSocket(pub Arc<PollSocket>);

impl AsyncRead for AsyncSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.0.socket()?.read(buffer.initialize_unfilled());
        ready_or_pending(context, read).map(|read| read.map(|count| buffer.advance(count)))
    }
}

impl AsyncWrite for AsyncSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Without the flag, writing to a closed connection would raise SIGPIPE in the host. On
        // Apple's systems socket2 sets an option of the socket instead; Windows has no signals.
        #[cfg(all(unix, not(target_vendor = "apple")))]
        let flags = libc::MSG_NOSIGNAL;
        #[cfg(not(all(unix, not(target_vendor = "apple"))))]
        let flags = 0;
        let written = ready_or_pending(context, self.0.socket()?.send_with_flags(bytes, flags));
        if written.is_pending() {
            self.0.write_blocked.store(true, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.socket()?.shutdown(std::net::Shutdown::Write))
    }
}

fn ready_or_pending(context: &Context<'_>, outcome: io::Result<usize>) -> Poll<io::Result<usize>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        outcome => Poll::Ready(outcome),
    }
}
