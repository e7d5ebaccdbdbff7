//! The SQLite schema and its migrations from older versions of the library.

use rusqlite::{Connection, TransactionBehavior};

/// The migrations from version N to N + 1, in order. Existing entries never change.
const MIGRATIONS: [&str; 3] = [
    "
    CREATE TABLE token (
        client_id   TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        version     INTEGER NOT NULL,
        user_type   TEXT NOT NULL,
        company_id  TEXT,
        renew_at    INTEGER NOT NULL,
        document    BLOB NOT NULL,
        PRIMARY KEY (client_id, resource_id)
    ) STRICT;
    CREATE INDEX token_by_company ON token (client_id, company_id, resource_id);
    CREATE INDEX token_by_renewal ON token (client_id, renew_at);
",
    "
    CREATE TABLE note (
        client_id  TEXT NOT NULL,
        key        TEXT NOT NULL,
        version    INTEGER NOT NULL,
        list       TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        document   TEXT NOT NULL,
        PRIMARY KEY (client_id, key)
    ) STRICT;
    CREATE INDEX note_by_list ON note (client_id, list, key);
    CREATE INDEX note_by_expiry ON note (client_id, expires_at);
",
    "
    ALTER TABLE token ADD COLUMN sealed_with TEXT NOT NULL DEFAULT '';
    CREATE INDEX token_by_key ON token (client_id, sealed_with, resource_id);
    CREATE INDEX token_by_type ON token (client_id, user_type, resource_id);
    DROP INDEX token_by_renewal;
    CREATE INDEX token_by_renewal ON token (client_id, renew_at, resource_id);
",
];

/// How a database's schema compares with this version of the library.
pub enum Schema {
    /// Current.
    UpToDate,
    /// Written by a newer version of the library.
    Newer,
    /// Empty, but must not be created.
    Empty,
}

/// Migrates a database to the current schema. Creates the schema in an empty database only if
/// `may_create`.
pub fn migrate(connection: &mut Connection, may_create: bool) -> rusqlite::Result<Schema> {
    let current = |connection: &Connection| {
        connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
    };
    let newest = MIGRATIONS.len() as i64;
    if current(connection)? == newest {
        return Ok(Schema::UpToDate);
    }
    // Several processes may start at the same time: the first one migrates, and the others check
    // again.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = current(&transaction)?;
    if version == 0 && !may_create {
        return Ok(Schema::Empty);
    }
    let Some(missing) = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..))
    else {
        return Ok(Schema::Newer);
    };
    for step in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", newest)?;
    transaction.commit()?;
    Ok(Schema::UpToDate)
}
