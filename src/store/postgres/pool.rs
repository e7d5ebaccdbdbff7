//! The PostgreSQL connection pool: a few connections for statements, and one for each refresh lock
//! that is held or waited for.

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

/// Maximum number of concurrent statements.
const MAX_IN_USE: usize = 4;

/// Maximum number of idle connections.
const MAX_IDLE: usize = 4;

/// Time limit for the response to a statement, which is then repeated on a new connection with the
/// same limit. A lock's holder that waits longer in a pooler's queue would occupy a connection that
/// others need.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Minimum time limit of the first attempt, for calls with little time.
const MIN_FIRST_ATTEMPT: Duration = Duration::from_secs(1);

/// How long calls with [`Priority::Normal`] fail with the last connection error.
const FAILURE_LIFETIME: Duration = Duration::from_secs(1);

/// Interval at which a wait checks for its deadline and cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The connections to one database.
pub struct Pool {
    address: Address,
    trust: Trust,
    connect_limit: Duration,
    state: Mutex<State>,
    freed: Condvar,
    /// Index of the server of the last successful connection.
    preferred: AtomicUsize,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    in_use: usize,
    last_failure: Option<(Instant, Error)>,
}

/// Whether to connect although an attempt failed a moment ago.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// No: the call fails with that error at once.
    Normal,
    /// Yes, because a new token may be at stake.
    Critical,
}

struct PooledConnection<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Pool {
    pub fn new(address: Address, trust: Trust, connect_limit: Duration) -> Pool {
        let (state, freed, preferred) = (Mutex::default(), Condvar::new(), AtomicUsize::new(0));
        Pool { address, trust, connect_limit, state, freed, preferred }
    }

    /// Runs statements, and repeats them once after a lost response or a temporary rejection. The
    /// second argument of `work` is true if an earlier run may have been executed. `work` must be
    /// idempotent.
    pub fn run<T>(
        &self,
        priority: Priority,
        deadline: &Deadline,
        work: impl AsyncFn(&Client, bool) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        // A dead connection must leave time for the second attempt.
        let first = STATEMENT_TIMEOUT.min((deadline.remaining() / 2).max(MIN_FIRST_ATTEMPT));
        let first = self.attempt(priority, Source::Idle, first, deadline, async |client| {
            work(client, false).await
        });
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
        // Connecting has already tried every server, so a second attempt is useless.
        let final_error = |failure| PgError::CallEnded(self.error(failure));
        let mut pooled = self.acquire(deadline)?;
        pooled.fill(priority, source, &self.until_connected(deadline)).map_err(final_error)?;
        pooled.run(&StepDeadline::within(limit, deadline), work)
    }

    /// Runs the statements of one transaction. On failure, the connection is closed.
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

    /// Whether a statement completes within `limit`.
    pub fn is_responsive(&self, limit: Duration, deadline: &Deadline) -> Result<bool> {
        let probe = |source| {
            let mut pooled = self.acquire(deadline)?;
            // The time limit starts here, so that this process's own statements do not count.
            let until = StepDeadline::within(limit, deadline);
            let response = pooled.fill(Priority::Critical, source, &until).and_then(|()| {
                pooled.run(&until, async |client| client.simple_query("SELECT 1").await)
            });
            match (response, until.left()) {
                (Ok(_), _) => Ok(true),
                (Err(_), Err(PgError::Timeout)) => Ok(false),
                (Err(failure), _) => Err(failure),
            }
        };
        // Only use shows whether an idle connection is dead.
        let outcome = probe(Source::Idle).or_else(|failure| match failure {
            PgError::ConnectionLost(_) => probe(Source::New),
            failure => Err(failure),
        });
        match outcome {
            Err(PgError::Timeout) => Ok(false),
            outcome => outcome.map_err(|failure| self.error(failure)),
        }
    }

    /// A connection for a lock; to be returned with [`Pool::give_back`].
    pub fn connection(&self, source: Source, deadline: &Deadline) -> Result<Connection, PgError> {
        let until = self.until_connected(deadline);
        match source {
            Source::Idle => self.idle().map_or_else(|| self.connect(Priority::Normal, &until), Ok),
            Source::New => self.connect(Priority::Critical, &until),
        }
    }

    /// Opens the connections that the lock's holder will need, before others wait for the lock.
    /// Errors are ignored, since they will recur there.
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

    /// Returns a connection to the pool, unless it is broken.
    pub fn give_back(&self, mut connection: Connection) {
        if connection.is_alive() {
            let mut state = self.state();
            if state.idle.len() < MAX_IDLE {
                state.idle.push(connection);
                return;
            }
        }
        // Closed after the pool's mutex is released.
        drop(connection);
    }

    /// The database's name in messages.
    pub fn name(&self) -> &str {
        &self.address.name
    }

    pub fn error(&self, failure: PgError) -> Error {
        failure.into_error(&self.address.name)
    }

    /// Time limit for connecting: `connect_limit` for each server.
    fn connect_timeout(&self) -> Duration {
        self.connect_limit * u32::try_from(self.address.servers.len()).unwrap_or(1)
    }

    /// The time limit for getting a connection, including the statement that checks it, which a
    /// pooler may queue.
    fn until_connected<'a>(&self, deadline: &'a Deadline) -> StepDeadline<'a> {
        StepDeadline::within(self.connect_timeout() + STATEMENT_TIMEOUT, deadline)
    }

    /// Waits for permission to run a statement.
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

    /// Connects to the first server that accepts writes, starting with the preferred one.
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
                // Says nothing about the servers.
                Err(ended @ (PgError::CallEnded(_) | PgError::Exhausted(..))) => return Err(ended),
                Err(failure) => failures.push((server, failure)),
            }
        }
        let all_timed_out = failures.iter().all(|(_, failure)| matches!(failure, PgError::Timeout));
        let failure = match failures.len() {
            _ if all_timed_out => None,
            1 => failures.pop().map(|(_, failure)| failure),
            _ => {
                let texts = failures
                    .iter()
                    .map(|(server, failure)| format!("{}: {}", server.name, failure.message()));
                Some(PgError::ConnectionLost(texts.collect::<Vec<_>>().join("; ")))
            }
        };
        let failure = failure.unwrap_or(PgError::Timeout);
        // If this caller's time ran out, that says nothing about the servers.
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

/// Which connection to use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An idle one, if there is any, or a new one.
    Idle,
    /// A new one, since idle ones may be dead as well.
    New,
}

impl PooledConnection<'_> {
    /// Gets a connection.
    fn fill(
        &mut self,
        priority: Priority,
        source: Source,
        until: &StepDeadline,
    ) -> Result<(), PgError> {
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
            // The server was demoted, so the idle connections to it are useless as well.
            self.mark_broken();
            let stale = std::mem::take(&mut self.pool.state().idle);
            drop(stale);
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
            // In a child forked during a statement, nothing in the pool may be touched.
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
