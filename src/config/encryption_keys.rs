//! The store's encryption keys, from the configuration or a key file.

use std::path::Path;

use super::{StoreConfig, read_file, refused};
use crate::error::Result;
use crate::secret::Secret;

impl StoreConfig {
    /// The encryption keys in base64, and the name of the setting that has them.
    pub fn keys(&self) -> Result<(Vec<Secret>, &'static str)> {
        let (keys, named) = match &self.encryption_keys_path {
            None => (self.encryption_keys.clone(), "store.encryptionKeys"),
            Some(path) => (read_keys(path)?, "store.encryptionKeysPath"),
        };
        if keys.is_empty() && self.encryption_keys_path.is_some() {
            return Err(refused(named, "the file contains no key"));
        }
        if keys.is_empty() && self.sealed_only {
            return Err(refused("store.sealedOnly", "no encryption key is configured"));
        }
        Ok((keys, named))
    }
}

/// Reads a file with one key per line.
fn read_keys(path: &Path) -> Result<Vec<Secret>> {
    let text = read_file("store.encryptionKeysPath", path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(|line| Secret::new(line.to_owned())).collect())
}
