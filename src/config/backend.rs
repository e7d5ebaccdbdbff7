//! The configured storage backend: the validated settings of one kind of store.

use std::path::{Path, PathBuf};

use super::urls::{is_postgres, is_url};
use super::{StoreConfig, StoreKind, refused};
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
    /// The kind of this backend.
    pub const fn kind(&self) -> StoreKind {
        match self {
            Backend::Memory => StoreKind::Memory,
            Backend::Sqlite { .. } => StoreKind::Sqlite,
            Backend::Postgres { .. } => StoreKind::Postgres,
            Backend::Callbacks => StoreKind::Callbacks,
        }
    }
}

impl StoreConfig {
    /// The configured backend.
    pub fn backend(&self) -> Result<Backend> {
        let kind = self.kind.name();
        if self.kind == StoreKind::Unknown {
            return Err(refused(
                "store.kind",
                "it must be \"memory\", \"sqlite\", \"postgres\" or \"callbacks\"",
            ));
        }
        if self.kind != StoreKind::Sqlite && self.path.is_some() {
            return Err(refused("store.path", &format!("a {kind} store has no path")));
        }
        if self.kind != StoreKind::Postgres && self.url.is_some() {
            return Err(refused("store.url", &format!("a {kind} store has no URL")));
        }
        if self.kind != StoreKind::Postgres && self.ca_bundle_path.is_some() {
            return Err(refused("store.caBundlePath", &format!("a {kind} store has no server")));
        }
        if self.kind == StoreKind::Memory && !self.encryption_keys.is_empty() {
            return Err(refused("store.encryptionKeys", "a memory store is not encrypted"));
        }
        if self.kind == StoreKind::Memory && self.encryption_keys_path.is_some() {
            return Err(refused("store.encryptionKeysPath", "a memory store is not encrypted"));
        }
        let backend = match self.kind {
            StoreKind::Sqlite => self.sqlite()?,
            StoreKind::Postgres => self.postgres()?,
            StoreKind::Callbacks => Backend::Callbacks,
            StoreKind::Memory | StoreKind::Unknown => Backend::Memory,
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
