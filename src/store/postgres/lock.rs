//! The refresh lock across machines: a PostgreSQL advisory lock at transaction level, so that it
//! works through a pooler in transaction mode (PgBouncer).
//!
//! The transaction runs on its own connection and does nothing else. The lock is released
//! - at once when its holder releases it or the holder's process dies, since its socket is closed
//!   then;
//! - about 9 seconds after the holder's machine loses its connection, by the keepalives that the
//!   transaction sets on the server's side. Through a pooler these cover only the connection
//!   between pooler and server, and the pooler's own settings apply to the other one (PgBouncer:
//!   `tcp_keepidle`, `tcp_keepintvl`, `tcp_keepcnt`);
//! - in any case after `timeouts.totalMs` plus 30 seconds (`idle_in_transaction_session_timeout`).
//!
//! A pooler with few connections can deadlock: each holder occupies one connection and each waiter
//! needs one, so that no holder can save. A client that gets a lock through a pooler therefore
//! first checks that a statement completes, and otherwise releases the lock. From then on it tries
//! the lock without waiting, and only together with one slot of a semaphore that all clients share.
//! The semaphore's size is halved after each failure, down to one slot. The holder then needs two
//! connections, or three if a location's refresh also refreshes its company's token. If client and
//! server see the same addresses and ports, there is no pooler in between.
//!
//! A holder that loses its connection may believe that it still holds the lock. This is safe: its
//! save is a compare-and-swap.

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

/// How long the server waits for the lock. Meanwhile the waiter occupies a pooler's connection and
/// does not notice a cancellation.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// The same under contention for a pooler's connections: practically no wait.
const NO_WAIT: Duration = Duration::from_millis(1);

/// A response that takes this much longer than the lock timeout shows that a pooler queues
/// statements.
const QUEUE_THRESHOLD: Duration = Duration::from_millis(50);

/// How long the check statement may take once the lock is held, in milliseconds. Otherwise the lock
/// is released. Doubled each time, up to sixteenfold, in case the server is merely slow.
const CHECK_TIMEOUT_MS: u64 = 150;

/// Size of the semaphore, before it is halved for the first time.
const SEMAPHORE_SIZE: u64 = 8;

/// Time limit for the server's response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    /// Number of semaphore slots that this thread holds. With one, it needs no other for a nested
    /// lock.
    static SEMAPHORE_HELD: Cell<u32> = const { Cell::new(0) };
}

struct ServerLock {
    /// Neither used nor dropped in a forked child: ending the transaction would release the
    /// parent's lock.
    _own: ProcessLocal<LockSession>,
}

struct LockSession {
    connection: Option<Connection>,
    pool: Arc<Pool>,
    has_semaphore: bool,
    _process_lock: ProcessLock,
}

impl Lock for ServerLock {}

impl Drop for LockSession {
    fn drop(&mut self) {
        if self.has_semaphore {
            SEMAPHORE_HELD.set(SEMAPHORE_HELD.get().saturating_sub(1));
        }
        if let Some(mut connection) = self.connection.take() {
            // If this fails, the connection is closed, which releases the lock as well.
            connection.send_without_waiting("ROLLBACK");
            self.pool.give_back(connection);
        }
    }
}

/// Waits for the lock of a resource whose process lock the caller already holds (`process_lock`).
pub fn lock(
    pool: &Arc<Pool>,
    lock_key: i64,
    idle_limit: Duration,
    process_lock: ProcessLock,
    deadline: &Deadline,
) -> Result<Box<dyn Lock>> {
    let failed = |failure: PgError| match failure {
        PgError::Timeout => deadline.check().err().unwrap_or_else(|| pool.error(PgError::Timeout)),
        failure => pool.error(failure),
    };
    let mut session = LockSession {
        connection: None,
        pool: Arc::clone(pool),
        has_semaphore: false,
        _process_lock: process_lock,
    };
    pool.warm_up(deadline);
    let (mut contention, mut failures) = (0, 0);
    loop {
        deadline.check()?;
        let began = Instant::now();
        let lock_timeout = if contention == 0 { LOCK_TIMEOUT } else { NO_WAIT };
        let semaphore = (contention > 0 && SEMAPHORE_HELD.get() == 0).then(|| {
            key(
                "semaphore slot",
                &random::up_to((SEMAPHORE_SIZE >> contention.min(8)).max(1) - 1).to_string(),
            )
        });
        let keys = [semaphore, Some(lock_key)];
        let source = if failures == 0 { Source::Idle } else { Source::New };
        let limit = lock_timeout + RESPONSE_TIMEOUT;
        let outcome = match session.connection.take() {
            Some(connection) => Ok(connection),
            None => pool.connection(source, deadline),
        }
        .and_then(|connection| {
            let until = StepDeadline::within(limit, deadline);
            take(session.connection.insert(connection), &keys, lock_timeout, idle_limit, &until)
        });
        match outcome {
            Ok(is_direct) => {
                failures = 0;
                let check_timeout = CHECK_TIMEOUT_MS << contention.min(4);
                let check_timeout = check_timeout + random::up_to(check_timeout / 2);
                if is_direct
                    || pool.is_responsive(Duration::from_millis(check_timeout), deadline)?
                {
                    session.has_semaphore = semaphore.is_some();
                    SEMAPHORE_HELD.set(SEMAPHORE_HELD.get() + u32::from(session.has_semaphore));
                    return Ok(Box::new(ServerLock { _own: ProcessLocal::new(session) }));
                }
                contention += 1;
                log::debug!("a lock is released: no statement completes while it is held");
            }
            Err(failure) if failure.is_lock_timeout() => {
                // Once the semaphore is in use, waiting for it is no sign of more contention.
                if contention == 0 && began.elapsed() > lock_timeout + QUEUE_THRESHOLD {
                    contention = 1;
                }
            }
            // An idle connection may be dead, or lead to a server that was demoted.
            Err(
                failure
                @ (PgError::ConnectionLost(_) | PgError::Timeout | PgError::Rejected { .. }),
            ) if failures == 0 => {
                log::debug!("a lock is requested again: {}", failure.message());
                failures += 1;
                drop(session.connection.take());
                continue;
            }
            Err(failure) => return Err(failed(failure)),
        }
        if session
            .connection
            .as_mut()
            .is_some_and(|connection| !connection.send_without_waiting("ROLLBACK"))
        {
            session.connection = None;
        }
        // The connection is idle during the pause, so that a pooler can lend it to another client.
        let pause = if contention == 0 { 10 } else { 100 };
        deadline.sleep(Duration::from_millis(pause / 2 + random::up_to(pause / 2)))?;
    }
}

/// Begins the transaction and waits in it for the locks. The `statement_timeout` of the role or
/// database does not apply, since the wait has its own limit. Returns whether no pooler is between
/// client and server.
fn take(
    connection: &mut Connection,
    keys: &[Option<i64>],
    lock_timeout: Duration,
    idle_limit: Duration,
    until: &StepDeadline,
) -> Result<bool, PgError> {
    let locks: String =
        keys.iter().flatten().map(|key| format!("SELECT pg_advisory_xact_lock({key}); ")).collect();
    let batch = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; \
         SELECT set_config('statement_timeout', '0', true), \
                set_config('lock_timeout', '{}', true), \
                set_config('idle_in_transaction_session_timeout', '{}', true), \
                CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL \
                THEN set_config('transaction_timeout', '0', true) END, \
                set_config('tcp_keepalives_idle', '3', true), \
                set_config('tcp_keepalives_interval', '2', true), \
                set_config('tcp_keepalives_count', '3', true), \
                set_config('tcp_user_timeout', '9000', true); \
         {locks}SELECT current_setting('transaction_read_only') || ' ' || \
         coalesce(host(inet_client_addr()) || ' ' || inet_client_port() || ' ' || \
         host(inet_server_addr()) || ' ' || inet_server_port(), '')",
        lock_timeout.as_millis(),
        idle_limit.as_millis(),
    );
    let rows = connection.run(until, async |client| client.simple_query(&batch).await)?;
    // The last row.
    let answer = rows.iter().rev().find_map(|row| first_column(std::slice::from_ref(row)));
    let (read_only, ends) = answer.and_then(|answer| answer.split_once(' ')).unwrap_or_default();
    // A standby grants advisory locks as well, but independently of the primary.
    if read_only != "off" {
        connection.mark_broken();
        return Err(PgError::read_only());
    }
    // A pooler's own connection to the server has other ends.
    Ok(connection.ends().is_some_and(|own| own == ends))
}

/// The advisory lock key of a resource: 64 bits of a digest, so that two resources collide with a
/// probability of 2⁻⁶⁴.
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
