//! Errors of PostgreSQL statements and connections, and which of them are worth a retry.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::{Severity, SqlState};

use crate::ca_bundle;
use crate::error::{Error, Status, exhaustion};
use crate::lookup::ThreadSpawnError;

/// The help text for a certificate that is not trusted.
const UNTRUSTED: &str =
    "check the host name and this machine's clock; for a private CA, set store.caBundlePath";

/// The help text for a server without TLS.
const NO_TLS: &str =
    "enable TLS on the server; in a trusted network, set sslmode=disable in store.url";

/// Why a statement or connection failed.
#[derive(Debug, Clone)]
pub enum PgError {
    /// The server rejected the statement, which had no effect.
    Rejected {
        code: SqlState,
        /// The server's message. Its details are omitted, because they may quote a row.
        text: String,
    },
    /// The connection was lost. A sent statement may have been executed.
    ConnectionLost(String),
    /// The server has no TLS, or no trusted certificate: the message and the help text. Nothing was
    /// sent.
    Untrusted(String, &'static str),
    /// A resource of this machine is exhausted: the message and the help text. Nothing was sent.
    Exhausted(String, &'static str),
    /// No response in time. A sent statement may have been executed, or may still be.
    Timeout,
    /// The call was cancelled, or reached its deadline.
    CallEnded(Error),
}

impl PgError {
    /// The error of a server that accepts no writes.
    pub fn read_only() -> PgError {
        let text = "the server accepts no writes".into();
        PgError::Rejected { code: SqlState::READ_ONLY_SQL_TRANSACTION, text }
    }

    /// Whether the server accepts no writes: it is a standby, or read-only.
    pub fn is_read_only(&self) -> bool {
        matches!(
            self,
            PgError::Rejected { code, .. } if *code == SqlState::READ_ONLY_SQL_TRANSACTION
        )
    }

    /// Whether the statement had no effect, and repeating it may succeed.
    pub fn is_worth_repeating(&self) -> bool {
        self.is_read_only()
            || self.is_lock_timeout()
            || matches!(self, PgError::Rejected { code, .. }
                if *code == SqlState::T_R_SERIALIZATION_FAILURE
                    || *code == SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// Whether the statement reached `lock_timeout`.
    pub fn is_lock_timeout(&self) -> bool {
        matches!(self, PgError::Rejected { code, .. } if *code == SqlState::LOCK_NOT_AVAILABLE)
    }

    /// A short description.
    pub fn message(&self) -> String {
        match self {
            PgError::Rejected { code, text } => format!("{text} ({})", code.code()),
            PgError::ConnectionLost(text)
            | PgError::Untrusted(text, _)
            | PgError::Exhausted(text, _) => text.clone(),
            PgError::Timeout => "no answer in time".into(),
            PgError::CallEnded(error) => error.message().to_owned(),
        }
    }

    /// The error for the caller. `database` is the database's name in the message.
    pub fn into_error(self, database: &str) -> Error {
        if let PgError::CallEnded(error) = self {
            return match error.status() {
                Status::Timeout => Error::new(
                    Status::Timeout,
                    format!("the database {database}: {}", error.message()),
                )
                .with_help(
                    "check the server and the network, try again, or raise timeouts.totalMs",
                ),
                _ => error,
            };
        }
        let help = match &self {
            PgError::Rejected { code, .. } => help(code),
            PgError::Exhausted(_, help) | PgError::Untrusted(_, help) => help,
            _ => {
                "check the server and the network; new tokens are kept in memory until the \
                 database works again"
            }
        };
        let message = format!("the database {database} failed: {}", self.message());
        Error::new(Status::Store, message).with_help(help).with_retryable(!self.is_permanent())
    }

    /// Whether the same call fails again until the server or the configuration changes.
    fn is_permanent(&self) -> bool {
        match self {
            PgError::Untrusted(..) => true,
            PgError::Rejected { code, .. } => {
                // Class 42: an error in the statement or a lack of privileges; the tables are not
                // as the library created them.
                code.code().starts_with("42")
                    || [
                        SqlState::INVALID_PASSWORD,
                        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                        SqlState::INVALID_CATALOG_NAME,
                    ]
                    .contains(code)
            }
            _ => false,
        }
    }
}

fn help(code: &SqlState) -> &'static str {
    match *code {
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "check the user and the password in store.url, and the server's pg_hba.conf"
        }
        SqlState::INVALID_CATALOG_NAME => "create the database, or check its name in store.url",
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "the role needs SELECT, INSERT, UPDATE and DELETE on ghl_oauth_token and \
             ghl_oauth_note, and SELECT on ghl_oauth_schema"
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => {
            "list all servers in store.url, so that the one that accepts writes is used: \
             postgres://…@one,two/database"
        }
        SqlState::QUERY_CANCELED => {
            "raise statement_timeout for this role or database, to 5s or more \
             (ALTER ROLE … SET statement_timeout = '5s'), or find out which session cancelled it"
        }
        SqlState::LOCK_NOT_AVAILABLE => {
            "end the session that holds a lock on the row or the table for longer than \
             lock_timeout, or raise lock_timeout for this role or database"
        }
        SqlState::DISK_FULL => {
            "free space on the server's disk; new tokens are kept in memory until then"
        }
        SqlState::TOO_MANY_CONNECTIONS => {
            "raise the server's max_connections, or use a pooler such as PgBouncer"
        }
        _ => "check the server, then try again",
    }
}

impl From<tokio_postgres::Error> for PgError {
    fn from(error: tokio_postgres::Error) -> PgError {
        let Some(refusal) = error.as_db_error() else {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            let text = format!("{error}{cause}");
            if error.source().is_some_and(ca_bundle::is_untrusted) {
                return PgError::Untrusted(text, UNTRUSTED);
            }
            // A message of tokio-postgres, whose error has no code.
            if text.contains("server does not support TLS") {
                return PgError::Untrusted(text, NO_TLS);
            }
            return PgError::ConnectionLost(text);
        };
        let text = refusal.message().to_owned();
        // The error that ends a session (57P01, or class 08 from a pooler that lost its server)
        // does not tell whether the statement was executed.
        let ends_session =
            matches!(refusal.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
        let code = refusal.code().code();
        if code.starts_with("08")
            || (ends_session && code.starts_with("57P"))
            || matches!(code, "25P03" | "25P04")
        {
            return PgError::ConnectionLost(format!("{text} ({code})"));
        }
        PgError::Rejected { code: refusal.code().clone(), text }
    }
}

impl From<io::Error> for PgError {
    fn from(error: io::Error) -> PgError {
        let no_thread = || ThreadSpawnError::is_cause_of(&error).then_some(ThreadSpawnError::HELP);
        match exhaustion::help(&error).or_else(no_thread) {
            Some(help) => PgError::Exhausted(error.to_string(), help),
            None => PgError::ConnectionLost(error.to_string()),
        }
    }
}
