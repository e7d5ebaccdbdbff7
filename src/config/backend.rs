//! The configured storage backend: the validated settings of one kind of store.

use std::path::{Path, PathBuf};

use super::urls::{is_postgres, is_url};
use super::{StoreConfig, refused};
use crate::error::Result;
use crate::secret::Secret;

/// A kind of store with its settings.
#[derive(Debug, Clone)]
pub enum Backend {
    /// In memory.
    Memory,
    /// An SQLite database.
    Sqlite {
        /// The database file.
        path: PathBuf,
    },
    /// A PostgreSQL database.
    Postgres {
        /// `postgres://user:password@host:port/database`.
        url: Secret,
        /// A PEM file of root certificates to trust in addition to the platform's.
        ca_bundle_path: Option<PathBuf>,
    },
    /// A custom store, implemented by the host.
    Callbacks,
}

impl Backend {
    /// The `store.kind` of this backend.
    pub const fn kind(&self) -> &'static str {
        match self {
            Backend::Memory => "memory",
            Backend::Sqlite { .. } => "sqlite",
            Backend::Postgres { .. } => "postgres",
            Backend::Callbacks => "callbacks",
        }
    }
}

impl StoreConfig {
    /// The configured backend.
    ///
    /// # Errors
    /// `CONFIG`, naming the key, for a value that is invalid or belongs to another kind of store.
    pub fn backend(&self) -> Result<Backend> {
        let kind = self.kind.as_str();
        if !["memory", "sqlite", "postgres", "callbacks"].contains(&kind) {
            return Err(refused(
                "store.kind",
                "it must be \"memory\", \"sqlite\", \"postgres\" or \"callbacks\"",
            ));
        }
        if kind != "sqlite" && self.path.is_some() {
            return Err(refused("store.path", &format!("a {kind} store has no path")));
        }
        if kind != "postgres" && self.url.is_some() {
            return Err(refused("store.url", &format!("a {kind} store has no URL")));
        }
        if kind != "postgres" && self.ca_bundle_path.is_some() {
            return Err(refused("store.caBundlePath", &format!("a {kind} store has no server")));
        }
        if kind == "memory" && !self.encryption_keys.is_empty() {
            return Err(refused("store.encryptionKeys", "a memory store is not encrypted"));
        }
        if kind == "memory" && self.encryption_keys_path.is_some() {
            return Err(refused("store.encryptionKeysPath", "a memory store is not encrypted"));
        }
        let backend = match kind {
            "sqlite" => self.sqlite()?,
            "postgres" => self.postgres()?,
            "callbacks" => Backend::Callbacks,
            _ => Backend::Memory,
        };
        if !self.encryption_keys.is_empty() && self.encryption_keys_path.is_some() {
            return Err(refused("store.encryptionKeysPath", "store.encryptionKeys is set as well"));
        }
        Ok(backend)
    }

    fn sqlite(&self) -> Result<Backend> {
        if cfg!(not(feature = "sqlite")) {
            return Err(refused("store.kind", "this build does not include SQLite"));
        }
        let Some(path) = self.path.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            return Err(refused("store.path", "an SQLite store requires the path of its file"));
        };
        if is_url(path) {
            // Never quote it: it may contain a password.
            return Err(refused("store.path", "it must be the path of a file, not a URL")
                .with_help(
                    "for PostgreSQL, set store.kind to \"postgres\" and store.url to a URL that \
                     begins with postgres:// or postgresql://",
                ));
        }
        if names_no_file(path) {
            return Err(refused(
                "store.path",
                "it must be the path of a file, not a special name of SQLite",
            )
            .with_help("set the path of a file, or set store.kind to \"memory\""));
        }
        Ok(Backend::Sqlite { path: path.clone() })
    }

    fn postgres(&self) -> Result<Backend> {
        if cfg!(not(feature = "postgres")) {
            return Err(refused("store.kind", "this build does not include PostgreSQL"));
        }
        let Some(url) = self.url.as_ref().filter(|url| !url.expose().is_empty()) else {
            return Err(refused(
                "store.url",
                "a PostgreSQL store requires the URL of its database",
            ));
        };
        if !is_postgres(url.expose()) {
            // Never quote it: it may contain a password.
            return Err(refused("store.url", "it must begin with postgres:// or postgresql://")
                .with_help("remove the name of a driver, as in postgresql+psycopg2://"));
        }
        Ok(Backend::Postgres { url: url.clone(), ca_bundle_path: self.ca_bundle_path.clone() })
    }
}

/// Whether SQLite would interpret the path as a memory database or a URI.
fn names_no_file(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.starts_with(':')
        || text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
}
