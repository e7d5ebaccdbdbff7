//! The TCP transport: write coalescing, and reads that end when the call is cancelled or its
//! deadline passes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

use super::exchange;

/// Interval at which a wait for input checks for cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Granularity of the write timeout. With the exact remaining time, each request would set the
/// socket's timeout again.
const TIMEOUT_STEP: Duration = Duration::from_millis(100);

const MAX_WAIT: Duration = Duration::from_secs(86_400);

/// Minimum free space in the output buffer for the next part of a request; a header must fit.
const MIN_FREE_SPACE: usize = 16 * 1024;

/// Buffer size below TLS, whose records have at most 16 KiB.
const TLS_BUFFER: usize = 2 * MIN_FREE_SPACE;

/// Opens a TCP connection, unless the chain already has one through a proxy.
#[derive(Debug)]
pub struct TcpConnector;

impl<In: Transport> Connector<In> for TcpConnector {
    type Out = Either<In, TcpTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(chained) = chained {
            return Ok(Some(Either::A(chained)));
        }
        let stream = connect_any(details)?;
        // Requests are small and complete, so delaying them to fill a packet (Nagle) gains nothing.
        stream.set_nodelay(true)?;
        let (input, output) = match details.needs_tls() {
            // TLS records pass through these buffers, so they need not hold complete headers.
            true => (TLS_BUFFER, TLS_BUFFER),
            false => (details.config.input_buffer_size(), details.config.output_buffer_size()),
        };
        let coalescer = WriteCoalescer { buffers: LazyBuffers::new(input, output), pending: 0 };
        Ok(Some(Either::B(TcpTransport { stream, coalescer, timeouts: SocketTimeouts::default() })))
    }
}

/// Connects to the first address that accepts. Each address gets half of the remaining time, the
/// last one all of it.
fn connect_any(details: &ConnectionDetails) -> Result<TcpStream, Error> {
    let by = Instant::now() + (*details.timeout.after).min(MAX_WAIT);
    let mut failure = Error::ConnectionFailed;
    for (number, address) in details.addrs.iter().enumerate() {
        let left = by.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(timeout_error(details.timeout));
        }
        let share = if number + 1 == details.addrs.len() { left } else { left / 2 };
        failure = match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return Ok(stream),
            Err(error) if is_timeout(&error) => timeout_error(details.timeout),
            Err(error) => error.into(),
        };
    }
    Err(failure)
}

/// Whether a socket call failed because its timeout passed.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A connection.
#[derive(Debug)]
pub struct TcpTransport {
    stream: TcpStream,
    coalescer: WriteCoalescer,
    timeouts: SocketTimeouts,
}

/// The timeouts that were last set on the socket.
#[derive(Debug, Default)]
struct SocketTimeouts {
    read: Duration,
    write: Duration,
}

/// Sets a socket timeout, unless it is already set.
fn set_timeout(
    current: &mut Duration,
    time: Duration,
    set: impl FnOnce(Option<Duration>) -> io::Result<()>,
) -> io::Result<()> {
    if *current != time {
        match set(Some(time)) {
            // macOS fails once the peer has closed the connection; data that arrived before can
            // still be read.
            Err(error) if cfg!(target_os = "macos") && error.kind() == ErrorKind::InvalidInput => {}
            outcome => {
                outcome?;
                *current = time;
            }
        }
    }
    Ok(())
}

/// Buffers that collect the parts of a request. ureq transmits headers and body separately, which
/// would cost two packets and wake up the server for the first one.
#[derive(Debug)]
struct WriteCoalescer {
    buffers: LazyBuffers,
    /// Number of bytes in the output buffer that wait to be sent.
    pending: usize,
}

impl WriteCoalescer {
    /// Wipes the pending output.
    fn wipe(&mut self) {
        match std::mem::take(&mut self.pending) {
            0 => {} // Accessing the buffer would allocate it.
            pending => self.buffers.output()[..pending].fill(0),
        }
    }
}

impl Drop for WriteCoalescer {
    /// Wipes a request that could not be sent.
    fn drop(&mut self) {
        self.wipe();
    }
}

impl Buffers for WriteCoalescer {
    fn output(&mut self) -> &mut [u8] {
        &mut self.buffers.output()[self.pending..]
    }

    fn input(&self) -> &[u8] {
        self.buffers.input()
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.buffers.input_append_buf()
    }

    fn input_appended(&mut self, amount: usize) {
        self.buffers.input_appended(amount);
    }

    fn input_consume(&mut self, amount: usize) {
        self.buffers.input_consume(amount);
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        let (tmp, output) = self.buffers.tmp_and_output();
        (tmp, &mut output[self.pending..])
    }

    fn can_use_input(&self) -> bool {
        self.buffers.can_use_input()
    }
}

impl TcpTransport {
    /// Sends and wipes the pending output.
    fn send(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        let pending = self.coalescer.pending;
        if pending == 0 {
            return Ok(());
        }
        let steps = timeout.after.as_millis() / TIMEOUT_STEP.as_millis() + 1;
        let time = TIMEOUT_STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
        set_timeout(&mut self.timeouts.write, time, |time| self.stream.set_write_timeout(time))?;
        let outcome = self.stream.write_all(&self.coalescer.buffers.output()[..pending]);
        self.coalescer.wipe();
        outcome
            .map_err(|error| if is_timeout(&error) { timeout_error(timeout) } else { error.into() })
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.coalescer
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.coalescer.pending += amount;
        // Pending output is sent by `await_input` at the latest.
        if self.coalescer.output().len() < MIN_FREE_SPACE { self.send(timeout) } else { Ok(()) }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if timeout.after.is_zero() {
            return Err(timeout_error(timeout));
        }
        let by = Instant::now() + (*timeout.after).min(MAX_WAIT);
        let by = exchange::connect_by().map_or(by, |connect_by| connect_by.min(by));
        self.send(timeout)?;
        let mut left = by.saturating_duration_since(Instant::now());
        loop {
            if left.is_zero() {
                return Err(timeout_error(timeout));
            }
            set_timeout(&mut self.timeouts.read, left.min(POLL_INTERVAL), |time| {
                self.stream.set_read_timeout(time)
            })?;
            match self.stream.read(self.coalescer.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.coalescer.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if exchange::is_abandoned() {
                return Err(timeout_error(timeout));
            }
            left = by.saturating_duration_since(Instant::now());
        }
    }

    fn is_open(&mut self) -> bool {
        // Open: no data to read, and no end of stream.
        peek(&self.stream).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

fn timeout_error(timeout: NextTimeout) -> Error {
    Error::Timeout(timeout.reason)
}

/// Peeks at the input without waiting.
#[cfg(unix)]
fn peek(stream: &TcpStream) -> io::Result<usize> {
    use rustix::net::RecvFlags;
    let (read, _) = rustix::net::recv(stream, &mut [0_u8], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(read)
}

/// Peeks at the input without waiting.
#[cfg(not(unix))]
fn peek(stream: &TcpStream) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    let outcome = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (TcpTransport, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let coalescer =
            WriteCoalescer { buffers: LazyBuffers::new(1024, 2 * MIN_FREE_SPACE), pending: 0 };
        (
            TcpTransport { stream, coalescer, timeouts: SocketTimeouts::default() },
            listener.accept().unwrap().0,
        )
    }

    fn within(milliseconds: u64) -> NextTimeout {
        NextTimeout { after: Duration::from_millis(milliseconds).into(), ..NextTimeout::default() }
    }

    fn transmit(socket: &mut TcpTransport, part: &[u8]) {
        socket.buffers().output()[..part.len()].copy_from_slice(part);
        socket.transmit_output(part.len(), within(1000)).unwrap();
    }

    #[test]
    fn parts_of_a_request_are_sent_together_and_wiped() {
        let (mut socket, mut server) = pair();
        transmit(&mut socket, b"head");
        transmit(&mut socket, b"body");
        server.set_nonblocking(true).unwrap();
        let mut received = [0; 16];
        assert_eq!(server.read(&mut received).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(matches!(socket.await_input(within(20)), Err(Error::Timeout(_))));
        server.set_nonblocking(false).unwrap();
        assert_eq!(server.read(&mut received).unwrap(), 8);
        assert_eq!(&received[..8], b"headbody");
        assert!(socket.buffers().output()[..8].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn request_longer_than_the_buffer_is_sent_in_parts() {
        let (mut socket, mut server) = pair();
        let part = [b'x'; MIN_FREE_SPACE / 2];
        for _ in 0..5 {
            transmit(&mut socket, &part);
            assert!(socket.buffers().output().len() >= MIN_FREE_SPACE);
        }
        assert!(matches!(socket.await_input(within(20)), Err(Error::Timeout(_))));
        let mut received = vec![0; 5 * part.len()];
        server.read_exact(&mut received).unwrap();
        assert!(received.iter().all(|byte| *byte == b'x'));
    }

    #[test]
    fn input_is_awaited_in_slices_until_the_deadline() {
        let (mut socket, mut server) = pair();
        let began = Instant::now();
        assert!(matches!(socket.await_input(within(120)), Err(Error::Timeout(_))));
        assert!(began.elapsed() >= Duration::from_millis(120));
        server.write_all(b"late").unwrap();
        assert!(socket.await_input(within(1000)).unwrap());
        assert_eq!(socket.buffers().input(), b"late");
        drop(server);
        assert!(!socket.await_input(within(1000)).unwrap());
    }

    #[test]
    fn only_a_silent_connection_counts_as_open() {
        let (mut socket, mut server) = pair();
        assert!(socket.is_open());
        server.write_all(b"x").unwrap();
        let limit = Instant::now() + Duration::from_secs(10);
        while socket.is_open() && Instant::now() < limit {}
        assert!(!socket.is_open());
        let (mut socket, server) = pair();
        drop(server);
        while socket.is_open() && Instant::now() < limit {}
        assert!(!socket.is_open());
        // Peeking consumes no data and leaves the socket in blocking mode.
        let (mut socket, mut server) = pair();
        assert!(socket.is_open());
        server.write_all(b"x").unwrap();
        assert!(socket.await_input(within(1000)).unwrap());
    }
}
