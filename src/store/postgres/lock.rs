//! The refresh lock across machines: an advisory lock of the server's that belongs to a transaction, so that it works through
//! a pooler that lends a server's connection for a transaction (PgBouncer's transaction mode).
//!
//! The transaction does nothing else, on a connection of its own. The lock is free again
//! - at once when its holder gives it back or its process dies, since its socket is closed then;
//! - about 9 seconds after the holder's machine is cut off, by the keepalives that the transaction sets on the server's side.
//!   Through a pooler these watch the way between pooler and server only: there the pooler's own settings count
//!   (PgBouncer: `tcp_keepidle`, `tcp_keepintvl`, `tcp_keepcnt`);
//! - in any case after a call's whole time and 30 seconds more (`idle_in_transaction_session_timeout`).
//!
//! A pooler with few connections is a trap of its own: each holder keeps one, each waiter would like one, and the holders cannot
//! save. So whoever gets a lock looks first whether a statement gets through, and gives the lock back if none does. From then on
//! it asks without waiting, and only together with one of a few places in the crowd that all clients share, half as many after
//! each failure: in the end one of the crowd holds a lock at a time, and the pooler's other connections serve it. Two are enough
//! for that, and three where a location's refresh has to refresh its company's token as well.
//!
//! A holder that is cut off may go on for that long and think that it holds the lock. That loses nothing: its save finds
//! another version than it was made from.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};

use super::connection::{Connection, first_column};
use super::pg_error::PgError;
use super::pool::{Pool, Source};
use super::socket::StepDeadline;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::fork_safety::ProcessLocal;
use crate::random;
use crate::store::Lock;
use crate::store::process_lock::ProcessLock;

/// How long a wait goes on at the server. A waiter keeps a connection of a pooler's busy meanwhile, and learns of no
/// cancellation.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// The same where a pooler has no connections to spare: no wait, in effect.
const NO_WAIT: Duration = Duration::from_millis(1);

/// How much longer an answer may take until it is clear that a pooler lets us queue.
const PROMPT: Duration = Duration::from_millis(50);

/// How long a statement may take at a moment when the lock is ours, until it is given back, in milliseconds: who holds a lock
/// and cannot save keeps a pooler's connection from those who could. Doubled each time, up to sixteenfold, for a server that
/// is just slow.
const PASSABLE_MS: u64 = 150;

/// How many of a crowd hold a lock at a time at first.
const SEMAPHORE_SIZE: u64 = 8;

/// How long the server may take to answer at all.
const ANSWER: Duration = Duration::from_secs(5);

thread_local! {
    /// How many places in the crowd this thread has. With one it needs no other for a lock within the lock.
    static SEMAPHORE_HELD: Cell<u32> = const { Cell::new(0) };
}

/// A held lock.
struct ServerLock {
    /// Neither used nor dropped in a forked child: an end of the transaction there would free the parent's lock.
    _own: ProcessLocal<LockSession>,
}

struct LockSession {
    connection: Option<Connection>,
    pool: Arc<Pool>,
    has_semaphore: bool,
    _here: ProcessLock,
}

impl Lock for ServerLock {}

impl Drop for LockSession {
    fn drop(&mut self) {
        if self.has_semaphore {
            SEMAPHORE_HELD.set(SEMAPHORE_HELD.get().saturating_sub(1));
        }
        if let Some(mut connection) = self.connection.take() {
            // Whatever happens to it: a connection that ends gives the lock back, too.
            connection.send_without_waiting("ROLLBACK");
            self.pool.give_back(connection);
        }
    }
}

/// Waits for a resource's lock, which this process already holds among its own threads (`here`).
pub fn lock(
    pool: &Arc<Pool>,
    key_of_lock: i64,
    idle_limit: Duration,
    here: ProcessLock,
    deadline: &Deadline,
) -> Result<Box<dyn Lock>> {
    let failed = |failure: PgError| match failure {
        PgError::Timeout => deadline.check().err().unwrap_or_else(|| pool.error(PgError::Timeout)),
        failure => pool.error(failure),
    };
    let mut session =
        LockSession { connection: None, pool: Arc::clone(pool), has_semaphore: false, _here: here };
    pool.warm_up(deadline);
    let (mut contention, mut failures) = (0, 0);
    loop {
        deadline.check()?;
        let began = Instant::now();
        let lock_timeout = if contention == 0 { LOCK_TIMEOUT } else { NO_WAIT };
        let semaphore = (contention > 0 && SEMAPHORE_HELD.get() == 0).then(|| {
            key(
                "place in the crowd",
                &random::up_to((SEMAPHORE_SIZE >> contention.min(8)).max(1) - 1).to_string(),
            )
        });
        let keys = [semaphore, Some(key_of_lock)];
        let source = if failures == 0 { Source::Idle } else { Source::New };
        let limit = lock_timeout + ANSWER;
        let outcome = match session.connection.take() {
            Some(connection) => Ok(connection),
            None => pool.connection(source, deadline),
        }
        .and_then(|connection| {
            let until = StepDeadline::within(limit, deadline);
            take(session.connection.insert(connection), &keys, lock_timeout, idle_limit, &until)
        });
        match outcome {
            Ok(()) => {
                failures = 0;
                let passable = PASSABLE_MS << contention.min(4);
                let passable = passable + random::up_to(passable / 2);
                if pool.is_responsive(Duration::from_millis(passable), deadline)? {
                    session.has_semaphore = semaphore.is_some();
                    SEMAPHORE_HELD.set(SEMAPHORE_HELD.get() + u32::from(session.has_semaphore));
                    return Ok(Box::new(ServerLock { _own: ProcessLocal::new(session) }));
                }
                contention += 1;
                log::debug!("a lock is given back: no statement gets through while it is held");
            }
            Err(failure) if failure.is_lock_timeout() => {
                // Whoever waits in a crowd already does not make it larger.
                if contention == 0 && began.elapsed() > lock_timeout + PROMPT {
                    contention = 1;
                }
            }
            // A connection that stood idle may be dead, and its server another one by now.
            Err(failure @ (PgError::ConnectionLost(_) | PgError::Timeout | PgError::Rejected { .. }))
                if failures == 0 =>
            {
                log::debug!("a lock is asked for again: {}", failure.message());
                failures += 1;
                drop(session.connection.take());
                continue;
            }
            Err(failure) => return Err(failed(failure)),
        }
        if session.connection.as_mut().is_some_and(|connection| !connection.send_without_waiting("ROLLBACK"))
        {
            session.connection = None;
        }
        // Out of the way, so that a pooler lends the connection to somebody else.
        let pause = if contention == 0 { 10 } else { 100 };
        deadline.sleep(Duration::from_millis(pause / 2 + random::up_to(pause / 2)))?;
    }
}

/// Opens the transaction, and waits in it for the locks. A `statement_timeout` of the role or the database is not meant for
/// this wait, which has a limit of its own.
fn take(
    connection: &mut Connection,
    keys: &[Option<i64>],
    lock_timeout: Duration,
    idle_limit: Duration,
    until: &StepDeadline,
) -> Result<(), PgError> {
    let locks: String =
        keys.iter().flatten().map(|key| format!("SELECT pg_advisory_xact_lock({key}); ")).collect();
    let batch = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {}; \
         SET LOCAL idle_in_transaction_session_timeout = {}; \
         SELECT CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL \
                THEN set_config('transaction_timeout', '0', true) END; \
         SET LOCAL tcp_keepalives_idle = 3; SET LOCAL tcp_keepalives_interval = 2; \
         SET LOCAL tcp_keepalives_count = 3; SET LOCAL tcp_user_timeout = 9000; \
         {locks}SHOW transaction_read_only",
        lock_timeout.as_millis(),
        idle_limit.as_millis(),
    );
    let rows = connection.run(until, async |client| client.simple_query(&batch).await)?;
    // A standby grants locks, too, and nobody else asks there.
    let read_only = rows.iter().any(|row| first_column(std::slice::from_ref(row)) == Some("on"));
    if read_only {
        connection.mark_broken();
        return Err(PgError::read_only());
    }
    Ok(())
}

/// The number of a resource's lock: 64 bits of a digest, so that apps and resources do not meet but by a chance of 2⁻⁶⁴.
pub fn key(client_id: &str, resource_id: &str) -> i64 {
    let mut digest = Context::new(&SHA256);
    digest.update(b"ghl-oauth refresh lock 1");
    for text in [client_id, resource_id] {
        digest.update(&(text.len() as u64).to_le_bytes());
        digest.update(text.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&digest.finish().as_ref()[..8]);
    i64::from_le_bytes(first)
}
