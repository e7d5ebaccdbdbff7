//! Non-blocking sockets: waiting for readiness with `poll` (on Windows `WSAPoll`), and connecting.
//!
//! No system call on a socket has a timeout of its own: a wait could then not be cancelled, and on
//! Windows a receive that times out may lose data.

pub mod connect;

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

#[cfg(unix)]
use std::os::fd::AsFd as AsSocket;
#[cfg(windows)]
use std::os::windows::io::AsSocket;

/// Maximum duration of one wait, after which the caller checks for cancellation.
pub const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Input, or the end of the stream.
    Read,
    /// Space to write, or the end of a connection attempt.
    Write,
    /// Either.
    #[cfg(feature = "postgres")]
    Both,
}

impl Interest {
    fn flags(self) -> PollFlags {
        match self {
            Interest::Read => PollFlags::IN,
            Interest::Write => PollFlags::OUT,
            #[cfg(feature = "postgres")]
            Interest::Both => PollFlags::IN | PollFlags::OUT,
        }
    }
}

/// Waits until the socket is ready or broken, for at most `timeout` or [`POLL_INTERVAL`]. May
/// return early.
pub fn wait(socket: &impl AsSocket, interest: Interest, timeout: Duration) -> io::Result<()> {
    wait_for(&mut [PollFd::new(socket, interest.flags())], timeout)
}

/// Like [`wait`], until at least one of the sockets is ready or broken.
fn wait_any<'a, S: AsSocket + 'a>(
    sockets: impl IntoIterator<Item = &'a S>,
    interest: Interest,
    timeout: Duration,
) -> io::Result<()> {
    let polled = sockets.into_iter().map(|socket| PollFd::new(socket, interest.flags()));
    wait_for(&mut polled.collect::<Vec<_>>(), timeout)
}

fn wait_for(polled: &mut [PollFd], timeout: Duration) -> io::Result<()> {
    // Rounded up, since a wait of 0 ms would spin where `poll` counts in milliseconds.
    let timeout = timeout.clamp(Duration::from_millis(1), POLL_INTERVAL);
    match poll(polled, Timespec::try_from(timeout).ok().as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
