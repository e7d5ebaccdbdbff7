//! The store's encryption keys, from the configuration or a key file.

use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

use super::{StoreConfig, refused};
use crate::error::{Error, Result, Status};
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
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        let key = "store.encryptionKeysPath";
        let message = format!("{key} cannot be used: {} cannot be read: {error}", path.display());
        let help = "check the path and the permissions of the file";
        Error::of_file(Status::Config, message, &error, help).with_parameter(key)
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(|line| Secret::new(line.to_owned())).collect())
}
