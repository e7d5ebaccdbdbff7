//! One PostgreSQL connection, driven by the thread that uses it until its deadline.

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

/// A connection of this process; a forked child neither uses nor closes it.
pub struct Connection(ProcessLocal<Parts>);

struct Parts {
    /// Taken at the end: the driver says goodbye when nobody can ask for anything any more.
    client: Option<Client>,
    driver: Box<tokio_postgres::Connection<AsyncSocket, PgTlsStream>>,
    socket: Arc<PollSocket>,
    /// Whether it must not be used again: its end is known, or an answer may still be on its way.
    is_broken: bool,
}

impl Connection {
    /// Connects to a server within `limit`, and makes sure that it takes writes: a statement that a pooler may queue, so it has
    /// the time of `until`.
    pub fn open(
        server: &Server,
        trust: &Trust,
        limit: Duration,
        until: &StepDeadline,
    ) -> Result<Connection, PgError> {
        let handshake = until.narrowed(limit);
        let mut last = PgError::ConnectionLost("its name has no address".into());
        if let Some(file) = server.addr.file() {
            return Connection::handshake(
                PollSocket::unix(file, &handshake)?,
                server,
                trust,
                &handshake,
                until,
            );
        }
        let addresses = server.addr.addresses(&handshake)?;
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            // One that does not answer leaves time for the others.
            let share = handshake.narrowed(handshake.left()? / left);
            left -= 1;
            match PollSocket::tcp(address, &share) {
                Ok(socket) => return Connection::handshake(socket, server, trust, &handshake, until),
                Err(over @ PgError::CallEnded(_)) => return Err(over),
                Err(failure) => last = failure,
            }
        }
        Err(last)
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
            _ => trust.tls(server.addr.host()),
        };
        let mut connecting = pin!(server.config.connect_raw(async_socket, tls));
        let (client, driver) =
            block_on(&socket, handshake, |context| connecting.as_mut().poll(context).map_err(PgError::from))?;
        let parts = Parts { client: Some(client), driver: Box::new(driver), socket, is_broken: false };
        let mut connection = Connection(ProcessLocal::new(parts));
        let rows =
            connection.run(until, async |client| client.simple_query("SHOW transaction_read_only").await)?;
        if first_column(&rows).is_none_or(|read_only| read_only == "on") {
            return Err(PgError::read_only());
        }
        Ok(connection)
    }

    /// Does something with it. After a failure to get an answer it is spent.
    pub fn run<T>(
        &mut self,
        until: &StepDeadline,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, PgError> {
        let Some(Parts { client: Some(client), driver, socket, is_broken }) = self.0.get_mut() else {
            return Err(PgError::ConnectionLost("the connection is another process's".into()));
        };
        if *is_broken {
            return Err(PgError::ConnectionLost("the connection was given up".into()));
        }
        let mut work = pin!(work(client));
        // Whatever ends this early leaves it spent.
        *is_broken = true;
        let mut over = false;
        let outcome = block_on(socket, until, |context| {
            let end = poll_messages(driver, context);
            over |= end.is_some();
            match (work.as_mut().poll(context), end) {
                (Poll::Ready(outcome), _) => Poll::Ready(outcome.map_err(PgError::from)),
                (Poll::Pending, Some(end)) => Poll::Ready(Err(end)),
                (Poll::Pending, None) => Poll::Pending,
            }
        });
        *is_broken = over || !matches!(outcome, Ok(_) | Err(PgError::Rejected { .. }));
        outcome
    }

    /// Sends statements of which nobody waits for the end; answers whether they went out.
    pub fn send_without_waiting(&mut self, statements: &str) -> bool {
        let Some(Parts { client: Some(client), driver, socket, is_broken }) = self.0.get_mut() else {
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

    /// Whether it can be used again, as far as this side has heard.
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

    /// Whether it belongs to this process.
    pub fn is_ours(&self) -> bool {
        self.0.get().is_some()
    }

    /// Keeps it from being used again.
    pub fn mark_broken(&mut self) {
        if let Some(parts) = self.0.get_mut() {
            parts.is_broken = true;
        }
    }
}

impl Drop for Parts {
    /// Says goodbye, as far as that needs no waiting.
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

/// Moves what came in and what goes out; answers with the end of the connection, after which it must not be asked again.
/// What the server tells besides its answers is of no use here.
fn poll_messages(
    driver: &mut tokio_postgres::Connection<AsyncSocket, PgTlsStream>,
    context: &mut Context<'_>,
) -> Option<PgError> {
    loop {
        match driver.poll_message(context) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Some(PgError::from(error)),
            Poll::Ready(None) => return Some(PgError::ConnectionLost("the connection was closed".into())),
            Poll::Pending => return None,
        }
    }
}

/// The first field of the first row, as a text.
pub fn first_column(messages: &[SimpleQueryMessage]) -> Option<&str> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
        _ => None,
    })
}
