//! The connections of one client: a few that statements share, and one for each lock that is held or waited for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::address::Address;
use super::connection::Connection;
use super::failure::Failure;
use super::line::Until;
use super::tls::Trust;
use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// How many statements run at a time.
const MOST_AT_WORK: usize = 4;

/// How many connections are kept while nobody uses them.
const MOST_IDLE: usize = 4;

/// How long the answer to a statement is waited for before its connection counts as dead. A statement is tried twice, the
/// second time on a new connection, and then for half of the time that the call has left if that is more: a connection that was
/// made just now is not dead, and a pooler may let the statement queue.
const STATEMENT: Duration = Duration::from_secs(5);

/// The least time for the first attempt, if half of the call's time is less.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);

/// How long a failure to connect is the answer to further calls that do not insist.
const DOWN: Duration = Duration::from_secs(1);

/// The interval in which a wait checks for its deadline and its cancellation.
const SLICE: Duration = Duration::from_millis(50);

/// The connections to one database.
pub struct Pool {
    address: Address,
    trust: Trust,
    connect_limit: Duration,
    state: Mutex<State>,
    freed: Condvar,
    /// The server that was good last.
    preferred: AtomicUsize,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    at_work: usize,
    /// When the last attempt to connect failed, and how.
    down: Option<(Instant, Error)>,
}

/// Whether a connection is attempted although the last attempt failed a moment ago.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// The call fails at once, with that failure.
    Usual,
    /// It is attempted: a new token may be at stake.
    Insists,
}

/// A connection on loan.
struct Loan<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Pool {
    /// Connections to that database, none of them made yet.
    pub fn new(address: Address, trust: Trust, connect_limit: Duration) -> Pool {
        let (state, freed, preferred) = (Mutex::default(), Condvar::new(), AtomicUsize::new(0));
        Pool { address, trust, connect_limit, state, freed, preferred }
    }

    /// Runs statements in `work`, which is told whether an earlier run of it may have been carried out, its answer lost. What
    /// it does must be safe to do twice.
    ///
    /// # Errors
    /// `TIMEOUT` or `CANCELLED` if the call's deadline ended it; `STORE` if the server failed.
    pub fn run<T>(
        &self,
        care: Care,
        deadline: &Deadline,
        work: impl AsyncFn(&Client, bool) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        // A connection that is dead without a sign of it must leave time for the second attempt.
        let first = STATEMENT.min((deadline.remaining() / 2).max(FIRST_ATTEMPT));
        let first =
            self.attempt(care, Source::Idle, first, deadline, async |client| work(client, false).await);
        let outcome = first.or_else(|failure| {
            let again = match failure {
                Failure::Lost(_) | Failure::Late => true,
                ref failure if failure.is_worth_repeating() => false,
                failure => return Err(failure),
            };
            log::debug!("a statement is tried again: {}", failure.text());
            let work = async |client: &Client| work(client, again).await;
            self.attempt(Care::Insists, Source::New, second_attempt(STATEMENT, deadline), deadline, work)
        });
        outcome.map_err(|failure| self.error(failure))
    }

    fn attempt<T>(
        &self,
        care: Care,
        source: Source,
        limit: Duration,
        deadline: &Deadline,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Failure> {
        // If no connection can be made, making one again would fail again.
        let over = |failure| Failure::Over(self.error(failure));
        let mut loan = self.turn(deadline)?;
        loan.fill(care, source, &Until::within(self.patience(), deadline)).map_err(over)?;
        loan.run(&Until::within(limit, deadline), work)
    }

    /// Runs statements of one transaction on a connection of their own, which is closed if they fail.
    pub fn alone<T>(
        &self,
        deadline: &Deadline,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Failure> {
        let until = Until::end_of(deadline);
        let mut loan = self.turn(deadline)?;
        loan.fill(Care::Insists, Source::Idle, &until)?;
        let outcome = loan.run(&until, work);
        if outcome.is_err() {
            loan.give_up();
        }
        outcome
    }

    /// Whether statements get through: within that time, one does.
    pub fn answers(&self, limit: Duration, deadline: &Deadline) -> Result<bool> {
        let answer = |source| {
            let mut loan = self.turn(deadline)?;
            // From here on it is not this process's own statements that are in the way.
            let until = Until::within(limit, deadline);
            let answer = loan
                .fill(Care::Insists, source, &until)
                .and_then(|()| loan.run(&until, async |client| client.simple_query("SELECT 1").await));
            match (answer, until.left()) {
                (Ok(_), _) => Ok(true),
                (Err(_), Err(Failure::Late)) => Ok(false),
                (Err(failure), _) => Err(failure),
            }
        };
        // A connection that stood idle may be dead, and only its use shows that.
        let outcome = answer(Source::Idle).or_else(|failure| match failure {
            Failure::Lost(_) => answer(Source::New),
            failure => Err(failure),
        });
        match outcome {
            Err(Failure::Late) => Ok(false),
            outcome => outcome.map_err(|failure| self.error(failure)),
        }
    }

    /// A connection for a lock; to be given back by [`Pool::put_back`].
    pub fn connection(&self, source: Source, deadline: &Deadline) -> Result<Connection, Failure> {
        let until = Until::within(self.patience(), deadline);
        match source {
            Source::Idle => self.idle().map_or_else(|| self.connect(Care::Usual, &until), Ok),
            Source::New => self.connect(Care::Insists, &until),
        }
    }

    /// Makes the connections that the holder of a lock will want, so that it need not make them while others wait for it. What
    /// fails here will fail, and be told, there.
    pub fn prepare(&self, deadline: &Deadline) {
        let until = Until::within(self.patience(), deadline);
        for _ in 0..2 {
            if self.state().idle.len() >= 2 {
                return;
            }
            match self.connect(Care::Usual, &until) {
                Ok(connection) => self.put_back(connection),
                Err(_) => return,
            }
        }
    }

    /// Takes a connection back, unless it is spent.
    pub fn put_back(&self, mut connection: Connection) {
        if connection.is_alive() {
            let mut state = self.state();
            if state.idle.len() < MOST_IDLE {
                state.idle.push(connection);
                return;
            }
        }
        // It is closed outside the pool's own lock.
        drop(connection);
    }

    /// What the database is called in messages.
    pub fn name(&self) -> &str {
        &self.address.name
    }

    /// The error that a user sees.
    pub fn error(&self, failure: Failure) -> Error {
        failure.into_error(&self.address.name)
    }

    /// How long it may take to have a connection: each server gets its time.
    fn patience(&self) -> Duration {
        self.connect_limit * u32::try_from(self.address.servers.len()).unwrap_or(1)
    }

    /// Waits for a turn: so many statements run at a time.
    fn turn(&self, deadline: &Deadline) -> Result<Loan<'_>, Failure> {
        let until = Until::end_of(deadline);
        until.left()?;
        let mut state = self.state();
        while state.at_work >= MOST_AT_WORK {
            let slice = until.left()?.min(SLICE);
            state = self.freed.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.at_work += 1;
        Ok(Loan { pool: self, connection: None })
    }

    fn idle(&self) -> Option<Connection> {
        loop {
            let mut connection = self.state().idle.pop()?;
            if connection.is_alive() {
                return Some(connection);
            }
        }
    }

    /// Connects to the first server, from the preferred one on, that takes writes.
    fn connect(&self, care: Care, until: &Until) -> Result<Connection, Failure> {
        if care == Care::Usual
            && let Some((_, error)) = self.state().down.as_ref().filter(|(at, _)| at.elapsed() < DOWN)
        {
            return Err(Failure::Over(error.clone()));
        }
        let servers = &self.address.servers;
        let preferred = self.preferred.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for index in (preferred..servers.len()).chain(0..preferred) {
            let server = &servers[index];
            match Connection::open(server, &self.trust, self.connect_limit, until) {
                Ok(connection) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    self.state().down = None;
                    return Ok(connection);
                }
                Err(over @ Failure::Over(_)) => return Err(over),
                Err(failure) => failures.push((server, failure)),
            }
        }
        let is_late = failures.iter().all(|(_, failure)| matches!(failure, Failure::Late));
        let failure = match failures.len() {
            _ if is_late => None,
            1 => failures.pop().map(|(_, failure)| failure),
            _ => {
                let texts =
                    failures.iter().map(|(server, failure)| format!("{}: {}", server.name, failure.text()));
                Some(Failure::Lost(texts.collect::<Vec<_>>().join("; ")))
            }
        };
        let failure = failure.unwrap_or(Failure::Late);
        // That one caller's time was over says nothing about the servers.
        if until.left().is_ok() {
            self.state().down = Some((Instant::now(), failure.clone().into_error(&self.address.name)));
        }
        Err(failure)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the second attempt at a statement may take, and `least` at the least.
pub fn second_attempt(least: Duration, deadline: &Deadline) -> Duration {
    least.max(deadline.remaining() / 2)
}

/// Where a connection comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// One that is there, if there is one.
    Idle,
    /// A new one: those that are there may have died with the last.
    New,
}

impl Loan<'_> {
    /// Gets its connection.
    fn fill(&mut self, care: Care, source: Source, until: &Until) -> Result<(), Failure> {
        let idle = if source == Source::Idle { self.pool.idle() } else { None };
        self.connection = Some(idle.map_or_else(|| self.pool.connect(care, until), Ok)?);
        Ok(())
    }

    fn run<T>(
        &mut self,
        until: &Until,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Failure> {
        let connection = self.connection.as_mut().ok_or(Failure::Late)?;
        let outcome = connection.run(until, work);
        if outcome.as_ref().is_err_and(Failure::is_read_only) {
            // This server was demoted; whatever else leads to it is useless as well.
            self.give_up();
            let useless = std::mem::take(&mut self.pool.state().idle);
            drop(useless);
        }
        outcome
    }

    fn give_up(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.give_up();
        }
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if self.connection.as_ref().is_some_and(|connection| !connection.is_ours()) {
            // A child that was forked inside a statement: nothing of the pool is its own.
            std::mem::forget(self.connection.take());
            return;
        }
        if let Some(connection) = self.connection.take() {
            self.pool.put_back(connection);
        }
        self.pool.state().at_work -= 1;
        self.pool.freed.notify_one();
    }
}
