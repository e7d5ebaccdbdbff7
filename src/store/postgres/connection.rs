//! One connection, and how it is driven: on the thread of whoever uses it, until that one's time is over.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::address::Server;
use super::failure::Failure;
use super::line::{Line, Until, Wire, drive, settle};
use super::tls::{Safe, Tls, Trust};
use crate::fork_safety::ProcessLocal;

/// A connection of this process; a forked child neither uses nor closes it.
pub struct Connection(ProcessLocal<Parts>);

struct Parts {
    /// Taken at the end: the driver says goodbye when nobody can ask for anything any more.
    client: Option<Client>,
    driver: Box<tokio_postgres::Connection<Wire, Safe>>,
    line: Arc<Line>,
    /// Whether it must not be used again: its end is known, or an answer may still be on its way.
    spent: bool,
}

impl Connection {
    /// Connects to a server, and makes sure that it takes writes.
    pub fn open(
        server: &Server,
        trust: &Trust,
        limit: Duration,
        until: &Until,
    ) -> Result<Connection, Failure> {
        let until = until.narrowed(limit);
        let mut last = Failure::Lost("its name has no address".into());
        if let Some(file) = server.place.file() {
            return Connection::over(Line::unix(file, &until)?, server, trust, &until);
        }
        let addresses = server.place.addresses(&until)?;
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            // One that does not answer leaves time for the others.
            let share = until.narrowed(until.left()? / left);
            left -= 1;
            match Line::tcp(address, &share) {
                Ok(line) => return Connection::over(line, server, trust, &until),
                Err(over @ Failure::Over(_)) => return Err(over),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    fn over(line: Arc<Line>, server: &Server, trust: &Trust, until: &Until) -> Result<Connection, Failure> {
        let wire = Wire(Arc::clone(&line));
        let tls = match server.config.get_ssl_mode() {
            SslMode::Disable => Tls::none(),
            _ => trust.tls(server.place.host()),
        };
        let mut connecting = pin!(server.config.connect_raw(wire, tls));
        let (client, driver) =
            drive(&line, until, |context| connecting.as_mut().poll(context).map_err(Failure::from))?;
        let parts = Parts { client: Some(client), driver: Box::new(driver), line, spent: false };
        let mut connection = Connection(ProcessLocal::new(parts));
        let rows =
            connection.run(until, async |client| client.simple_query("SHOW transaction_read_only").await)?;
        if first_text(&rows).is_none_or(|read_only| read_only == "on") {
            return Err(Failure::read_only());
        }
        Ok(connection)
    }

    /// Does something with it. After a failure to get an answer it is spent.
    pub fn run<T>(
        &mut self,
        until: &Until,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Failure> {
        let Some(Parts { client: Some(client), driver, line, spent }) = self.0.get_mut() else {
            return Err(Failure::Lost("the connection is another process's".into()));
        };
        if *spent {
            return Err(Failure::Lost("the connection was given up".into()));
        }
        let mut work = pin!(work(client));
        // Whatever ends this early leaves it spent.
        *spent = true;
        let mut over = false;
        let outcome = drive(line, until, |context| {
            let end = advance(driver, context);
            over |= end.is_some();
            match (work.as_mut().poll(context), end) {
                (Poll::Ready(outcome), _) => Poll::Ready(outcome.map_err(Failure::from)),
                (Poll::Pending, Some(end)) => Poll::Ready(Err(end)),
                (Poll::Pending, None) => Poll::Pending,
            }
        });
        *spent = over || !matches!(outcome, Ok(_) | Err(Failure::Refused { .. }));
        outcome
    }

    /// Sends statements of which nobody waits for the end; answers whether they went out.
    pub fn post(&mut self, statements: &str) -> bool {
        let Some(Parts { client: Some(client), driver, line, spent }) = self.0.get_mut() else {
            return false;
        };
        let mut work = pin!(client.batch_execute(statements));
        let sent = !*spent
            && settle(line, |context| match advance(driver, context) {
                Some(_) => Poll::Ready(()),
                None => work.as_mut().poll(context).map(drop),
            })
            .is_pending()
            && line.is_flushed();
        *spent = !sent;
        sent
    }

    /// Whether it can be used again, as far as this side has heard.
    pub fn is_alive(&mut self) -> bool {
        let Some(Parts { driver, line, spent, .. }) = self.0.get_mut() else {
            return false;
        };
        *spent = *spent
            || settle(line, |context| advance(driver, context).map_or(Poll::Pending, Poll::Ready)).is_ready();
        !*spent
    }

    /// Whether it belongs to this process.
    pub fn is_ours(&self) -> bool {
        self.0.get().is_some()
    }

    /// Keeps it from being used again.
    pub fn give_up(&mut self) {
        if let Some(parts) = self.0.get_mut() {
            parts.spent = true;
        }
    }
}

impl Drop for Parts {
    /// Says goodbye, as far as that needs no waiting.
    fn drop(&mut self) {
        drop(self.client.take());
        if !self.spent {
            let driver = &mut self.driver;
            let _ = settle(&self.line, |context| advance(driver, context).map_or(Poll::Pending, Poll::Ready));
        }
    }
}

/// Moves what came in and what goes out; answers with the end of the connection, after which it must not be asked again.
/// What the server tells besides its answers is of no use here.
fn advance(
    driver: &mut tokio_postgres::Connection<Wire, Safe>,
    context: &mut Context<'_>,
) -> Option<Failure> {
    loop {
        match driver.poll_message(context) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Some(Failure::from(error)),
            Poll::Ready(None) => return Some(Failure::Lost("the connection was closed".into())),
            Poll::Pending => return None,
        }
    }
}

/// The first field of the first row, as a text.
pub fn first_text(messages: &[SimpleQueryMessage]) -> Option<&str> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
        _ => None,
    })
}
