//! The PostgreSQL connection pool: a few shared by statements, and one for each lock that is held
//! or waited for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::address::Address;
use super::connection::Connection;
use super::pg_error::PgError;
use super::socket::StepDeadline;
use super::tls::Trust;
use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// How many statements run at a time.
const MAX_IN_USE: usize = 4;

/// How many connections are kept while nobody uses them.
const MAX_IDLE: usize = 4;

/// How long the answer to a statement is waited for before its connection counts as dead. A statement is tried twice, the
/// second time on a new connection. Not for longer: a holder of a lock that waits in a pooler's queue keeps a connection from
/// those who could go on.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The least time for the first attempt, if half of the call's time is less.
const MIN_FIRST_ATTEMPT: Duration = Duration::from_secs(1);

/// How long a failure to connect is the answer to further calls that do not insist.
const FAILURE_LIFETIME: Duration = Duration::from_secs(1);

/// The interval in which a wait checks for its deadline and its cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

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
    in_use: usize,
    /// When the last attempt to connect failed, and how.
    last_failure: Option<(Instant, Error)>,
}

/// Whether a connection is attempted although the last attempt failed a moment ago.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// The call fails at once, with that failure.
    Normal,
    /// It is attempted: a new token may be at stake.
    Critical,
}

/// A connection on loan.
struct PooledConnection<'a> {
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
        priority: Priority,
        deadline: &Deadline,
        work: impl AsyncFn(&Client, bool) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        // A connection that is dead without a sign of it must leave time for the second attempt.
        let first = STATEMENT_TIMEOUT.min((deadline.remaining() / 2).max(MIN_FIRST_ATTEMPT));
        let first =
            self.attempt(priority, Source::Idle, first, deadline, async |client| work(client, false).await);
        let outcome = first.or_else(|failure| {
            let again = match failure {
                PgError::ConnectionLost(_) | PgError::Timeout => true,
                ref failure if failure.is_worth_repeating() => false,
                failure => return Err(failure),
            };
            log::debug!("a statement is tried again: {}", failure.message());
            let work = async |client: &Client| work(client, again).await;
            self.attempt(Priority::Critical, Source::New, STATEMENT_TIMEOUT, deadline, work)
        });
        outcome.map_err(|failure| self.error(failure))
    }

    fn attempt<T>(
        &self,
        priority: Priority,
        source: Source,
        limit: Duration,
        deadline: &Deadline,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, PgError> {
        // If no connection can be made, making one again would fail again.
        let over = |failure| PgError::CallEnded(self.error(failure));
        let mut pooled = self.acquire(deadline)?;
        pooled.fill(priority, source, &self.until_connected(deadline)).map_err(over)?;
        pooled.run(&StepDeadline::within(limit, deadline), work)
    }

    /// Runs statements of one transaction on a connection of their own, which is closed if they fail.
    pub fn run_exclusive<T>(
        &self,
        deadline: &Deadline,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, PgError> {
        let until = StepDeadline::end_of(deadline);
        let mut pooled = self.acquire(deadline)?;
        pooled.fill(Priority::Critical, Source::Idle, &until)?;
        let outcome = pooled.run(&until, work);
        if outcome.is_err() {
            pooled.mark_broken();
        }
        outcome
    }

    /// Whether statements get through: within that time, one does.
    pub fn is_responsive(&self, limit: Duration, deadline: &Deadline) -> Result<bool> {
        let answer = |source| {
            let mut pooled = self.acquire(deadline)?;
            // From here on it is not this process's own statements that are in the way.
            let until = StepDeadline::within(limit, deadline);
            let answer = pooled
                .fill(Priority::Critical, source, &until)
                .and_then(|()| pooled.run(&until, async |client| client.simple_query("SELECT 1").await));
            match (answer, until.left()) {
                (Ok(_), _) => Ok(true),
                (Err(_), Err(PgError::Timeout)) => Ok(false),
                (Err(failure), _) => Err(failure),
            }
        };
        // A connection that stood idle may be dead, and only its use shows that.
        let outcome = answer(Source::Idle).or_else(|failure| match failure {
            PgError::ConnectionLost(_) => answer(Source::New),
            failure => Err(failure),
        });
        match outcome {
            Err(PgError::Timeout) => Ok(false),
            outcome => outcome.map_err(|failure| self.error(failure)),
        }
    }

    /// A connection for a lock; to be given back by [`Pool::give_back`].
    pub fn connection(&self, source: Source, deadline: &Deadline) -> Result<Connection, PgError> {
        let until = self.until_connected(deadline);
        match source {
            Source::Idle => self.idle().map_or_else(|| self.connect(Priority::Normal, &until), Ok),
            Source::New => self.connect(Priority::Critical, &until),
        }
    }

    /// Makes the connections that the holder of a lock will want, so that it need not make them while others wait for it. What
    /// fails here will fail, and be told, there.
    pub fn warm_up(&self, deadline: &Deadline) {
        let until = StepDeadline::within(self.connect_timeout(), deadline);
        for _ in 0..2 {
            if self.state().idle.len() >= 2 {
                return;
            }
            match self.connect(Priority::Normal, &until) {
                Ok(connection) => self.give_back(connection),
                Err(_) => return,
            }
        }
    }

    /// Takes a connection back, unless it is spent.
    pub fn give_back(&self, mut connection: Connection) {
        if connection.is_alive() {
            let mut state = self.state();
            if state.idle.len() < MAX_IDLE {
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
    pub fn error(&self, failure: PgError) -> Error {
        failure.into_error(&self.address.name)
    }

    /// How long it may take to have a connection: each server gets its time.
    fn connect_timeout(&self) -> Duration {
        self.connect_limit * u32::try_from(self.address.servers.len()).unwrap_or(1)
    }

    /// Until when a call waits for a connection: a pooler may queue the statement that checks it.
    fn until_connected<'a>(&self, deadline: &'a Deadline) -> StepDeadline<'a> {
        StepDeadline::within(self.connect_timeout() + STATEMENT_TIMEOUT, deadline)
    }

    /// Waits for a turn: so many statements run at a time.
    fn acquire(&self, deadline: &Deadline) -> Result<PooledConnection<'_>, PgError> {
        let until = StepDeadline::end_of(deadline);
        until.left()?;
        let mut state = self.state();
        while state.in_use >= MAX_IN_USE {
            let slice = until.left()?.min(POLL_INTERVAL);
            state = self.freed.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.in_use += 1;
        Ok(PooledConnection { pool: self, connection: None })
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
    fn connect(&self, priority: Priority, until: &StepDeadline) -> Result<Connection, PgError> {
        if priority == Priority::Normal
            && let Some((_, error)) =
                self.state().last_failure.as_ref().filter(|(at, _)| at.elapsed() < FAILURE_LIFETIME)
        {
            return Err(PgError::CallEnded(error.clone()));
        }
        let servers = &self.address.servers;
        let preferred = self.preferred.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for index in (preferred..servers.len()).chain(0..preferred) {
            let server = &servers[index];
            match Connection::open(server, &self.trust, self.connect_limit, until) {
                Ok(connection) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    self.state().last_failure = None;
                    return Ok(connection);
                }
                Err(over @ PgError::CallEnded(_)) => return Err(over),
                Err(failure) => failures.push((server, failure)),
            }
        }
        let is_late = failures.iter().all(|(_, failure)| matches!(failure, PgError::Timeout));
        let failure = match failures.len() {
            _ if is_late => None,
            1 => failures.pop().map(|(_, failure)| failure),
            _ => {
                let texts = failures
                    .iter()
                    .map(|(server, failure)| format!("{}: {}", server.name, failure.message()));
                Some(PgError::ConnectionLost(texts.collect::<Vec<_>>().join("; ")))
            }
        };
        let failure = failure.unwrap_or(PgError::Timeout);
        // That one caller's time was over says nothing about the servers.
        if until.left().is_ok() {
            self.state().last_failure =
                Some((Instant::now(), failure.clone().into_error(&self.address.name)));
        }
        Err(failure)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// One that is there, if there is one.
    Idle,
    /// A new one: those that are there may have died with the last.
    New,
}

impl PooledConnection<'_> {
    /// Gets its connection.
    fn fill(&mut self, priority: Priority, source: Source, until: &StepDeadline) -> Result<(), PgError> {
        let idle = if source == Source::Idle { self.pool.idle() } else { None };
        self.connection = Some(idle.map_or_else(|| self.pool.connect(priority, until), Ok)?);
        Ok(())
    }

    fn run<T>(
        &mut self,
        until: &StepDeadline,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, PgError> {
        let connection = self.connection.as_mut().ok_or(PgError::Timeout)?;
        let outcome = connection.run(until, work);
        if outcome.as_ref().is_err_and(PgError::is_read_only) {
            // This server was demoted; whatever else leads to it is useless as well.
            self.mark_broken();
            let useless = std::mem::take(&mut self.pool.state().idle);
            drop(useless);
        }
        outcome
    }

    fn mark_broken(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.mark_broken();
        }
    }
}

impl Drop for PooledConnection<'_> {
    fn drop(&mut self) {
        if self.connection.as_ref().is_some_and(|connection| !connection.is_ours()) {
            // A child that was forked inside a statement: nothing of the pool is its own.
            std::mem::forget(self.connection.take());
            return;
        }
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(connection);
        }
        self.pool.state().in_use -= 1;
        self.pool.freed.notify_one();
    }
}
