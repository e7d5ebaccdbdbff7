//! The PostgreSQL schema and its migrations.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::connection::first_column;
use super::pg_error::PgError;
use super::pool::{Pool, Priority};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};

/// The migrations from version N to N + 1, in order. Existing entries never change.
///
/// Strings use the collation "C", so that they are compared byte by byte as in the other stores,
/// independent of the database's locale. Documents are `bytea`, because `text` cannot contain NUL.
const MIGRATIONS: [&str; 1] = [r#"
    CREATE TABLE ghl_oauth_token (
        client_id   text COLLATE "C" NOT NULL,
        resource_id text COLLATE "C" NOT NULL,
        version     bigint NOT NULL,
        user_type   text COLLATE "C" NOT NULL,
        company_id  text COLLATE "C",
        renew_at    bigint NOT NULL,
        sealed_with text COLLATE "C" NOT NULL,
        document    bytea NOT NULL,
        PRIMARY KEY (client_id, resource_id)
    );
    CREATE INDEX ghl_oauth_token_by_company ON ghl_oauth_token (client_id, company_id, resource_id);
    CREATE INDEX ghl_oauth_token_by_type ON ghl_oauth_token (client_id, user_type, resource_id);
    CREATE INDEX ghl_oauth_token_by_renewal ON ghl_oauth_token (client_id, renew_at, resource_id);
    CREATE INDEX ghl_oauth_token_by_key ON ghl_oauth_token (client_id, sealed_with, resource_id);
    CREATE TABLE ghl_oauth_note (
        client_id  text COLLATE "C" NOT NULL,
        key        text COLLATE "C" NOT NULL,
        version    bigint NOT NULL,
        list       text COLLATE "C" NOT NULL,
        expires_at bigint NOT NULL,
        document   bytea NOT NULL,
        PRIMARY KEY (client_id, key)
    );
    CREATE INDEX ghl_oauth_note_by_list ON ghl_oauth_note (client_id, list, key);
    CREATE INDEX ghl_oauth_note_by_expiry ON ghl_oauth_note (client_id, expires_at);
"#];

/// The key of the advisory lock for migrations; arbitrary.
const MIGRATION_LOCK: i64 = 0x6768_6c5f_6f61_7574;

/// The deadline of a migration, including the wait for another process's migration.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Creates or migrates the tables.
pub fn bring_up_to_date(pool: &Pool) -> Result<()> {
    let newest = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    // Reads the version first: usually it is current, and a role without CREATE may read it.
    let deadline = Deadline::after(LIMIT, &Arc::default());
    let found =
        pool.run(Priority::Critical, &deadline, async |client, _| match version(client).await {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(0),
            version => version,
        })?;
    match found.cmp(&newest) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Greater => return Err(newer(pool)),
        std::cmp::Ordering::Less => {}
    }
    match pool.run_exclusive(&deadline, async |client| migrate(client, newest).await) {
        Ok(found) if found > newest => Err(newer(pool)),
        Ok(_) => Ok(()),
        Err(failure) => {
            let lacks_privilege = matches!(
                &failure,
                PgError::Rejected { code, .. } if ["42501", "3F000"].contains(&code.code())
            );
            let error = pool.error(failure);
            Err(if lacks_privilege {
                error.with_help(
                    "the tables are missing or old, and this role may not create them: GRANT \
                     CREATE ON SCHEMA … TO it, or open the store once with a role that may; after \
                     that SELECT, INSERT, UPDATE and DELETE on ghl_oauth_token and \
                     ghl_oauth_note, and SELECT on ghl_oauth_schema, are enough",
                )
            } else {
                error
            }
            .with_parameter("store.url"))
        }
    }
}

async fn version(client: &Client) -> Result<i32, tokio_postgres::Error> {
    let rows = client.query_typed("SELECT max(version) FROM ghl_oauth_schema", &[]).await?;
    let newest: Option<i32> = rows.first().map(|row| row.try_get(0)).transpose()?.flatten();
    Ok(newest.unwrap_or(0))
}

/// Migrates in one transaction, under an advisory lock, as several processes may start at the same
/// time. Returns the version that it found.
async fn migrate(client: &Client, newest: i32) -> Result<i32, tokio_postgres::Error> {
    let wait = LIMIT.as_millis() / 2;
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; \
         SET LOCAL lock_timeout = {wait}; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
    );
    client.batch_execute(&begin).await?;
    let table = client.simple_query("SELECT to_regclass('ghl_oauth_schema')").await?;
    if first_column(&table).is_none() {
        client.batch_execute("CREATE TABLE ghl_oauth_schema (version integer PRIMARY KEY)").await?;
    }
    let found = version(client).await?;
    let missing =
        usize::try_from(found).ok().and_then(|found| MIGRATIONS.get(found..)).unwrap_or_default();
    for step in missing {
        client.batch_execute(step).await?;
    }
    if !missing.is_empty() {
        client
            .query_typed(
                "INSERT INTO ghl_oauth_schema (version) VALUES ($1)",
                &[(&newest, Type::INT4)],
            )
            .await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(found)
}

fn newer(pool: &Pool) -> Error {
    Error::new(
        Status::Store,
        format!("the tables in {} were created by a newer version of this library", pool.name()),
    )
    .with_help("update the library")
    .with_parameter("store.url")
    .with_retryable(false)
}
