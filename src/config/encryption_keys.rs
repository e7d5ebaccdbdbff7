//! Encryption keys of the store, from the configuration or from a key file.

use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

use super::{StoreConfig, refused};
use crate::error::Result;
use crate::secret::Secret;

impl StoreConfig {
    /// The keys that seal tokens at rest, as texts, and the configuration's key that they come from.
    ///
    /// # Errors
    /// `CONFIG` for a file that cannot be read, and where there must be a key and is none.
    pub fn keys(&self) -> Result<(Vec<Secret>, &'static str)> {
        let (keys, named) = match &self.encryption_keys_path {
            None => (self.encryption_keys.clone(), "store.encryptionKeys"),
            Some(path) => (read_keys(path)?, "store.encryptionKeysPath"),
        };
        if keys.is_empty() && self.encryption_keys_path.is_some() {
            return Err(refused(named, "there is no key in the file"));
        }
        if keys.is_empty() && self.sealed_only {
            return Err(refused("store.sealedOnly", "there is no key to seal with"));
        }
        Ok((keys, named))
    }
}

/// The keys of a file, one a line.
fn read_keys(path: &Path) -> Result<Vec<Secret>> {
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        refused("store.encryptionKeysPath", &format!("{} cannot be read: {error}", path.display()))
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(|line| Secret::new(line.to_owned())).collect())
}
