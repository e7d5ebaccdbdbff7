//! A non-blocking socket, polled with a deadline and closed in a forked child.
//!
//! There is no async runtime. tokio-postgres asks for the traits of tokio's streams, and these are what stands behind
//! them: what would block answers `Pending`, and whoever drives the connection then waits for the one socket.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pg_error::PgError;
use crate::deadline::Deadline;
use crate::fork_safety::{self, descriptors};

/// How long a wait goes on before it looks for a cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How soon this side finds out that the other one is gone: while nothing is said, after 10 + 3 × 5 seconds; while it owes
/// an acknowledgement, after 10.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5));
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket that a forked child closes, since it may carry a lock: the server lets go of it when the last copy is closed.
pub struct PollSocket {
    socket: Option<Socket>,
    slot: Option<usize>,
    /// Whether a write found the socket full since the connection was last driven.
    write_blocked: AtomicBool,
}

/// Until when a call waits: for one step at most so long, and never beyond the deadline of the call.
pub struct StepDeadline<'a> {
    ends: Option<Instant>,
    deadline: &'a Deadline,
}

impl<'a> StepDeadline<'a> {
    /// Until the deadline of the call.
    pub fn end_of(deadline: &'a Deadline) -> StepDeadline<'a> {
        StepDeadline { ends: None, deadline }
    }

    /// So long from now, and never beyond the deadline of the call.
    pub fn within(limit: Duration, deadline: &'a Deadline) -> StepDeadline<'a> {
        StepDeadline { ends: Some(Instant::now() + limit), deadline }
    }

    /// The time left. Without any, the reason: [`PgError::CallEnded`] if the call is over, [`PgError::Timeout`] if only
    /// this step is.
    pub fn left(&self) -> Result<Duration, PgError> {
        self.deadline.check().map_err(PgError::CallEnded)?;
        let left = self.deadline.remaining();
        let Some(ends) = self.ends else { return Ok(left) };
        match ends.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(PgError::Timeout),
            of_step => Ok(left.min(of_step)),
        }
    }

    /// The same call, and so long from now at most.
    pub fn narrowed(&self, limit: Duration) -> StepDeadline<'a> {
        let ends = Instant::now() + limit;
        StepDeadline {
            ends: Some(self.ends.map_or(ends, |earlier| earlier.min(ends))),
            deadline: self.deadline,
        }
    }
}

impl PollSocket {
    /// Connects over TCP.
    pub fn tcp(address: SocketAddr, until: &StepDeadline) -> Result<Arc<PollSocket>, PgError> {
        let stream = PollSocket::open(Domain::for_address(address))?;
        let socket = stream.socket()?;
        // What these want is an improvement, and no condition.
        let _ = socket.set_tcp_nodelay(true);
        #[cfg(any(unix, windows))]
        let _ = socket.set_tcp_keepalive(&keepalive());
        #[cfg(target_os = "linux")]
        let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
        stream.connect(&address.into(), until)?;
        Ok(stream)
    }

    /// Connects over a Unix socket.
    #[cfg(unix)]
    pub fn unix(path: &Path, until: &StepDeadline) -> Result<Arc<PollSocket>, PgError> {
        let stream = PollSocket::open(Domain::UNIX)?;
        stream.connect(&SockAddr::unix(path)?, until)?;
        Ok(stream)
    }

    #[cfg(not(unix))]
    pub fn unix(path: &Path, _: &StepDeadline) -> Result<Arc<PollSocket>, PgError> {
        Err(PgError::ConnectionLost(format!("there are no Unix sockets here, such as {}", path.display())))
    }

    fn open(domain: Domain) -> Result<Arc<PollSocket>, PgError> {
        // A child that is forked between the steps would inherit a descriptor that nobody closes there.
        let _gate = fork_safety::gate();
        let socket = Socket::new(domain, Type::STREAM, None)?;
        #[cfg(unix)]
        let slot = descriptors::register(std::os::fd::AsRawFd::as_raw_fd(&socket));
        #[cfg(not(unix))]
        let slot = None;
        let stream = PollSocket { socket: Some(socket), slot, write_blocked: AtomicBool::new(false) };
        Ok(Arc::new(stream))
    }

    fn connect(&self, address: &SockAddr, until: &StepDeadline) -> Result<(), PgError> {
        let socket = self.socket()?;
        socket.set_nonblocking(true)?;
        loop {
            match socket.connect(address) {
                Ok(()) => return Ok(()),
                Err(error) if is_in_progress(&error, address) => break,
                // A Unix socket whose server has more callers than it listens to tells nobody when that changes.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(until.left()?.min(Duration::from_millis(5)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        loop {
            self.wait(until.left()?.min(POLL_INTERVAL), true)?;
            if let Some(error) = socket.take_error()? {
                return Err(error.into());
            }
            if socket.peer_addr().is_ok() {
                return Ok(());
            }
        }
    }

    fn socket(&self) -> io::Result<&Socket> {
        self.socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Whether everything that was written went out.
    pub fn is_flushed(&self) -> bool {
        !self.write_blocked.load(Ordering::Relaxed)
    }

    /// Waits so long for input, or with `write_blocked` for room for output.
    #[cfg(unix)]
    fn wait(&self, wait: Duration, write_blocked: bool) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let wanted = if write_blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        // Rounded up: a wait of nothing would spin.
        let wait = Timespec::try_from(wait.max(Duration::from_millis(1))).ok();
        match poll(&mut [PollFd::new(self.socket()?, wanted)], wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(unix))]
    fn wait(&self, wait: Duration, _: bool) -> io::Result<()> {
        std::thread::sleep(wait.min(Duration::from_millis(2)));
        Ok(())
    }
}

impl Drop for PollSocket {
    fn drop(&mut self) {
        let _gate = fork_safety::gate();
        if let Some(slot) = self.slot {
            descriptors::unregister(slot);
        }
        self.socket = None;
    }
}

fn keepalive() -> TcpKeepalive {
    #[cfg(target_os = "linux")]
    return KEEPALIVE.with_retries(3);
    #[cfg(not(target_os = "linux"))]
    KEEPALIVE
}

fn is_in_progress(error: &io::Error, address: &SockAddr) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EINPROGRESS) {
        return true;
    }
    !address.is_unix() && error.kind() == io::ErrorKind::WouldBlock
}

/// Tells whether somebody wants to be asked again.
struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Asks `poll` again and again until it is ready, and waits for the socket in between.
pub fn block_on<T>(
    stream: &PollSocket,
    until: &StepDeadline,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T, PgError>>,
) -> Result<T, PgError> {
    loop {
        if let Poll::Ready(outcome) = poll_until_stalled(stream, &mut poll) {
            return outcome;
        }
        stream.wait(until.left()?.min(POLL_INTERVAL), !stream.is_flushed())?;
    }
}

/// Asks as long as there is something to do without waiting.
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

/// A line as a stream.
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
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Without the flag a connection that is gone would end the host's process by a signal.
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        let flags = libc::MSG_NOSIGNAL;
        #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
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
