//! One PostgreSQL connection, driven by the thread that uses it, with a deadline.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::address::Server;
use super::pg_error::PgError;
use super::socket::{AsyncSocket, PollSocket, StepDeadline, block_on, poll_until_stalled};
use super::tls::{PgTlsStream, Tls, Trust};
use crate::fork_safety::ProcessLocal;

/// A connection of this process. A forked child neither uses nor closes it.
pub struct Connection(ProcessLocal<Parts>);

struct Parts {
    /// Dropped first when the connection is closed: the driver then sends the Terminate message.
    client: Option<Client>,
    driver: Box<tokio_postgres::Connection<AsyncSocket, PgTlsStream>>,
    socket: Arc<PollSocket>,
    /// Whether the connection must not be used again: it has failed, or a response may be pending.
    is_broken: bool,
}

impl Connection {
    /// Connects to a server within `limit`, and checks that it accepts writes. A pooler may queue
    /// the check, which therefore may take until `until`.
    pub fn open(
        server: &Server,
        trust: &Trust,
        limit: Duration,
        until: &StepDeadline,
    ) -> Result<Connection, PgError> {
        let handshake = until.narrowed(limit);
        let socket = match server.addr.file() {
            Some(file) => PollSocket::unix(file, &handshake)?,
            None => PollSocket::tcp(&server.addr.addresses(&handshake)?, &handshake)?,
        };
        Connection::handshake(socket, server, trust, &handshake, until)
    }

    fn handshake(
        socket: Arc<PollSocket>,
        server: &Server,
        trust: &Trust,
        handshake: &StepDeadline,
        until: &StepDeadline,
    ) -> Result<Connection, PgError> {
        let async_socket = AsyncSocket(Arc::clone(&socket));
        let tls = match server.config.get_ssl_mode() {
            SslMode::Disable => Tls::none(),
            _ => trust.tls(server.addr.host())?,
        };
        let mut connecting = pin!(server.config.connect_raw(async_socket, tls));
        let (client, driver) = block_on(&socket, handshake, |context| {
            connecting.as_mut().poll(context).map_err(PgError::from)
        })?;
        let parts =
            Parts { client: Some(client), driver: Box::new(driver), socket, is_broken: false };
        let mut connection = Connection(ProcessLocal::new(parts));
        let rows = connection
            .run(until, async |client| client.simple_query("SHOW transaction_read_only").await)?;
        if first_column(&rows).is_none_or(|read_only| read_only == "on") {
            return Err(PgError::read_only());
        }
        Ok(connection)
    }

    /// Runs `work` on the connection. If its response is not read completely, the connection is
    /// broken.
    pub fn run<T>(
        &mut self,
        until: &StepDeadline,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, PgError> {
        let Some(Parts { client: Some(client), driver, socket, is_broken }) = self.0.get_mut()
        else {
            return Err(PgError::ConnectionLost(
                "the connection belongs to another process".into(),
            ));
        };
        if *is_broken {
            return Err(PgError::ConnectionLost("the connection is broken".into()));
        }
        let mut work = pin!(work(client));
        // Reset below, unless an early return or panic interrupts the exchange.
        *is_broken = true;
        let mut has_ended = false;
        let outcome = block_on(socket, until, |context| {
            let end = poll_messages(driver, context);
            has_ended |= end.is_some();
            match (work.as_mut().poll(context), end) {
                (Poll::Ready(outcome), _) => Poll::Ready(outcome.map_err(PgError::from)),
                (Poll::Pending, Some(end)) => Poll::Ready(Err(end)),
                (Poll::Pending, None) => Poll::Pending,
            }
        });
        *is_broken = has_ended || !matches!(outcome, Ok(_) | Err(PgError::Rejected { .. }));
        outcome
    }

    /// Sends statements without waiting for their result. Returns whether all bytes were written.
    pub fn send_without_waiting(&mut self, statements: &str) -> bool {
        let Some(Parts { client: Some(client), driver, socket, is_broken }) = self.0.get_mut()
        else {
            return false;
        };
        let mut work = pin!(client.batch_execute(statements));
        let sent = !*is_broken
            && poll_until_stalled(socket, |context| match poll_messages(driver, context) {
                Some(_) => Poll::Ready(()),
                None => work.as_mut().poll(context).map(drop),
            })
            .is_pending()
            && socket.is_flushed();
        *is_broken = !sent;
        sent
    }

    /// Whether the connection can be used again, as far as this side knows.
    pub fn is_alive(&mut self) -> bool {
        let Some(Parts { driver, socket, is_broken, .. }) = self.0.get_mut() else {
            return false;
        };
        *is_broken = *is_broken
            || poll_until_stalled(socket, |context| {
                poll_messages(driver, context).map_or(Poll::Pending, Poll::Ready)
            })
            .is_ready();
        !*is_broken
    }

    /// The IP address and port of both ends, its own first; `None` on a Unix socket.
    pub fn ends(&self) -> Option<String> {
        let ends = self.0.get()?.socket.ends()?;
        let [own, server] = ends.map(|end| format!("{} {}", end.ip().to_canonical(), end.port()));
        Some(format!("{own} {server}"))
    }

    /// Whether it belongs to this process.
    pub fn is_ours(&self) -> bool {
        self.0.get().is_some()
    }

    /// Prevents it from being used again.
    pub fn mark_broken(&mut self) {
        if let Some(parts) = self.0.get_mut() {
            parts.is_broken = true;
        }
    }
}

impl Drop for Parts {
    /// Sends the Terminate message, if that is possible without waiting.
    fn drop(&mut self) {
        drop(self.client.take());
        if !self.is_broken {
            let driver = &mut self.driver;
            let _ = poll_until_stalled(&self.socket, |context| {
                poll_messages(driver, context).map_or(Poll::Pending, Poll::Ready)
            });
        }
    }
}

/// Processes incoming and outgoing messages without waiting. Returns the reason if the connection
/// has ended; it must not be polled again then. Notices and notifications are ignored.
fn poll_messages(
    driver: &mut tokio_postgres::Connection<AsyncSocket, PgTlsStream>,
    context: &mut Context<'_>,
) -> Option<PgError> {
    loop {
        match driver.poll_message(context) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Some(PgError::from(error)),
            Poll::Ready(None) => {
                return Some(PgError::ConnectionLost("the connection was closed".into()));
            }
            Poll::Pending => return None,
        }
    }
}

pub fn first_column(messages: &[SimpleQueryMessage]) -> Option<&str> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
        _ => None,
    })
}
