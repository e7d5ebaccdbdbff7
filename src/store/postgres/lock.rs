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
//! A holder that is cut off may go on for that long and think that it holds the lock. That loses nothing: its save finds
//! another version than it was made from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};

use super::connection::{Connection, first_text};
use super::failure::Failure;
use super::line::Until;
use super::pool::{Pool, Source};
use crate::deadline::Deadline;
use crate::error::Result;
use crate::process::Own;
use crate::random;
use crate::store::Lock;
use crate::store::process_lock::ProcessLock;

/// How long a wait goes on at the server. A waiter keeps a connection of a pooler's busy meanwhile, and learns of no
/// cancellation.
const SLICE: Duration = Duration::from_millis(100);

/// The same where a pooler has no connections to spare: no wait, in effect.
const NO_SLICE: Duration = Duration::from_millis(1);

/// How much longer an answer may take until it is clear that a pooler lets us queue.
const PROMPT: Duration = Duration::from_millis(50);

/// How long a statement may take, at a moment when the lock is ours, before it is given back: who holds a lock and cannot
/// save keeps a pooler's connection from those who could.
const PASSABLE_MS: u64 = 500;

/// The longest pause of a waiter that was in others' way, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 3_000;

/// How long the server may take to answer at all.
const ANSWER: Duration = Duration::from_secs(5);

/// A held lock.
struct ServerLock {
    /// Neither used nor dropped in a forked child: an end of the transaction there would free the parent's lock.
    _own: Own<Held>,
}

struct Held {
    connection: Option<Connection>,
    pool: Arc<Pool>,
    _here: ProcessLock,
}

impl Lock for ServerLock {}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            // Whatever happens to it: a connection that ends gives the lock back, too.
            connection.post("ROLLBACK");
            self.pool.put_back(connection);
        }
    }
}

/// Waits for a resource's lock, which this process already holds among its own threads (`here`).
pub fn lock(
    pool: &Arc<Pool>,
    key: i64,
    idle_limit: Duration,
    here: ProcessLock,
    deadline: &Deadline,
) -> Result<Box<dyn Lock>> {
    let failed = |failure: Failure| match failure {
        Failure::Late => deadline.check().err().unwrap_or_else(|| pool.error(Failure::Late)),
        failure => pool.error(failure),
    };
    let mut held = Held { connection: None, pool: Arc::clone(pool), _here: here };
    let (mut slice, mut crowds, mut failures) = (SLICE, 0, 0);
    loop {
        deadline.check()?;
        let began = Instant::now();
        let source = if failures == 0 { Source::Idle } else { Source::New };
        let outcome = match held.connection.take() {
            Some(connection) => Ok(connection),
            None => pool.connection(source, deadline),
        }
        .and_then(|connection| take(held.connection.insert(connection), key, slice, idle_limit, deadline));
        match outcome {
            Ok(()) => {
                failures = 0;
                let passable = PASSABLE_MS + random::up_to(PASSABLE_MS / 2);
                if pool.answers(Duration::from_millis(passable), deadline)? {
                    return Ok(Box::new(ServerLock { _own: Own::new(held) }));
                }
                crowds += 1;
                log::debug!("a lock is given back: no statement gets through while it is held");
            }
            Err(failure) if failure.is_lock_timeout() => {
                if began.elapsed() > slice + PROMPT {
                    crowds += 1;
                }
            }
            // A connection that stood idle may be dead, and its server another one by now.
            Err(failure @ (Failure::Lost(_) | Failure::Refused { .. })) if failures == 0 => {
                log::debug!("a lock is asked for again: {}", failure.text());
                failures += 1;
                drop(held.connection.take());
                continue;
            }
            Err(failure) => return Err(failed(failure)),
        }
        if held.connection.as_mut().is_some_and(|connection| !connection.post("ROLLBACK")) {
            held.connection = None;
        }
        slice = if crowds == 0 { SLICE } else { NO_SLICE };
        deadline.sleep(pause(crowds))?;
    }
}

/// How long to stay out of the way, which also lets a pooler lend the connection to somebody else.
fn pause(crowds: u32) -> Duration {
    let most = match crowds {
        0 => 10,
        _ => (50 << crowds.min(6)).min(LONGEST_PAUSE_MS),
    };
    Duration::from_millis(most / 2 + random::up_to(most / 2))
}

/// Opens the transaction, and waits in it for the lock.
fn take(
    connection: &mut Connection,
    key: i64,
    slice: Duration,
    idle_limit: Duration,
    deadline: &Deadline,
) -> Result<(), Failure> {
    let batch = format!(
        "BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}; \
         SET LOCAL tcp_keepalives_idle = 3; SET LOCAL tcp_keepalives_interval = 2; \
         SET LOCAL tcp_keepalives_count = 3; SET LOCAL tcp_user_timeout = 9000; \
         SELECT pg_advisory_xact_lock({key}); SHOW transaction_read_only",
        slice.as_millis(),
        idle_limit.as_millis(),
    );
    let until = Until::within(slice + ANSWER, Some(deadline));
    let rows = connection.run(&until, async |client| client.simple_query(&batch).await)?;
    // A standby grants locks, too, and nobody else asks there.
    let read_only = rows.iter().any(|row| first_text(std::slice::from_ref(row)) == Some("on"));
    if read_only {
        connection.give_up();
        return Err(Failure::read_only());
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
