//! The storage backend that a configuration chooses: the settings of one kind of store, validated.

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
        /// A PEM file of certificates to trust in addition to the platform's own.
        ca_bundle_path: Option<PathBuf>,
    },
    /// A store of the host's own.
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
    /// The backend that is configured.
    ///
    /// # Errors
    /// `CONFIG`, naming the key: a value that cannot be used, or that belongs to another kind of store.
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
            return Err(refused("store.encryptionKeys", "a memory store has nothing to seal"));
        }
        if kind == "memory" && self.encryption_keys_path.is_some() {
            return Err(refused("store.encryptionKeysPath", "a memory store has nothing to seal"));
        }
        let backend = match kind {
            "sqlite" => self.sqlite()?,
            "postgres" => self.postgres()?,
            "callbacks" => Backend::Callbacks,
            _ => Backend::Memory,
        };
        if !self.encryption_keys.is_empty() && self.encryption_keys_path.is_some() {
            return Err(refused("store.encryptionKeysPath", "store.encryptionKeys is given as well"));
        }
        Ok(backend)
    }

    fn sqlite(&self) -> Result<Backend> {
        if cfg!(not(feature = "sqlite")) {
            return Err(refused("store.kind", "this build of the library has no SQLite"));
        }
        let Some(path) = self.path.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            return Err(refused("store.path", "an SQLite store needs the path of its file"));
        };
        if is_url(path) {
            // It is never quoted: it may hold a password.
            return Err(refused("store.path", "it is a URL, and must be the path of a file").with_help(
                "for PostgreSQL, let store.kind be \"postgres\", and store.url begin with postgres:// or postgresql://",
            ));
        }
        if names_no_file(path) {
            return Err(refused("store.path", "it must be the path of a file, no name of SQLite's own")
                .with_help("give the plain path of a file; a \"memory\" store keeps tokens in memory"));
        }
        Ok(Backend::Sqlite { path: path.clone() })
    }

    fn postgres(&self) -> Result<Backend> {
        if cfg!(not(feature = "postgres")) {
            return Err(refused("store.kind", "this build of the library has no PostgreSQL"));
        }
        let Some(url) = self.url.as_ref().filter(|url| !url.expose().is_empty()) else {
            return Err(refused("store.url", "a PostgreSQL store needs the URL of its database"));
        };
        if !is_postgres(url.expose()) {
            // It is never quoted: it may hold a password.
            return Err(refused("store.url", "it must begin with postgres:// or postgresql://")
                .with_help("leave the name of a driver out, as in postgresql+psycopg2://"));
        }
        Ok(Backend::Postgres { url: url.clone(), ca_bundle_path: self.ca_bundle_path.clone() })
    }
}

/// Whether SQLite would take a path for memory, a temporary file, or a URI with options.
fn names_no_file(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.starts_with(':') || text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
}
