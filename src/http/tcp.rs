//! The TCP transport: write coalescing, and non-blocking reads and writes that end when the call is
//! cancelled or its deadline passes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

use super::exchange;
use crate::fork_safety::descriptors::above_stdio;
use crate::socket::connect::connect;
use crate::socket::{self, Interest};

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
        Ok(Some(Either::B(TcpTransport { stream, coalescer })))
    }
}

/// Connects to the first address that accepts.
fn connect_any(details: &ConnectionDetails) -> Result<TcpStream, Error> {
    let by = Instant::now() + (*details.timeout.after).min(MAX_WAIT);
    let open =
        |address| above_stdio(Socket::new(Domain::for_address(address), Type::STREAM, None)?);
    let socket = connect(&details.addrs, open, || time_left(by, details.timeout))?;
    Ok(socket.into())
}

/// The time until `by`, unless the exchange is abandoned.
fn time_left(by: Instant, timeout: NextTimeout) -> Result<Duration, Error> {
    match by.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(timeout_error(timeout)),
        _ if exchange::is_abandoned() => Err(timeout_error(timeout)),
        left => Ok(left),
    }
}

/// The end of a wait: after `timeout`, or at the deadline of the connection attempt.
fn end_of(timeout: NextTimeout) -> Instant {
    let by = Instant::now() + (*timeout.after).min(MAX_WAIT);
    exchange::connect_by().map_or(by, |connect_by| connect_by.min(by))
}

/// A connection. Its socket is non-blocking.
#[derive(Debug)]
pub struct TcpTransport {
    stream: TcpStream,
    coalescer: WriteCoalescer,
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
        let outcome = write_all(
            &mut self.stream,
            &self.coalescer.buffers.output()[..pending],
            end_of(timeout),
            timeout,
        );
        self.coalescer.wipe();
        outcome
    }
}

/// Writes everything before `by`. Ends early if the exchange is abandoned.
fn write_all(
    stream: &mut TcpStream,
    mut rest: &[u8],
    by: Instant,
    timeout: NextTimeout,
) -> Result<(), Error> {
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                socket::wait(stream, Interest::Write, time_left(by, timeout)?)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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
        self.send(timeout)?;
        let by = end_of(timeout);
        loop {
            socket::wait(&self.stream, Interest::Read, time_left(by, timeout)?)?;
            match self.stream.read(self.coalescer.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.coalescer.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // Open: no data to read, and no end of stream.
        self.stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

fn timeout_error(timeout: NextTimeout) -> Error {
    Error::Timeout(timeout.reason)
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
        stream.set_nonblocking(true).unwrap();
        (TcpTransport { stream, coalescer }, listener.accept().unwrap().0)
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
        // Peeking consumes no data.
        let (mut socket, mut server) = pair();
        assert!(socket.is_open());
        server.write_all(b"x").unwrap();
        assert!(socket.await_input(within(1000)).unwrap());
    }
}
