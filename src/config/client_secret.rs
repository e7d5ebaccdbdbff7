//! The client secret, from the configuration or a file.

use serde_json::Value;

use super::validation::word_fault;
use super::{Config, read_file, refused};
use crate::error::{Error, Result};
use crate::secret::Secret;

const FILE: &str = "clientSecretFile";

impl Config {
    /// Refuses a JSON configuration that has neither of the two keys.
    pub(super) fn refuse_missing_secret(&self, text: &str) -> Result<()> {
        let is_given = self.client_secret_file.is_some()
            || !self.client_secret.expose().is_empty()
            || serde_json::from_str(text)
                .is_ok_and(|given: Value| !given["clientSecret"].is_null());
        if is_given {
            return Ok(());
        }
        let message = "config_json lacks the required key \"clientSecret\"";
        Err(Error::invalid_argument("clientSecret", message)
            .with_help("set clientSecret or clientSecretFile"))
    }

    /// Checks the secret, or that only the file is given.
    pub(super) fn validate_secret(&self) -> Result<()> {
        let secret = self.client_secret.expose();
        match (&self.client_secret_file, word_fault(secret)) {
            (None, Some(why)) => Err(refused("clientSecret", why)),
            (Some(_), _) if !secret.is_empty() => Err(refused(FILE, "clientSecret is set as well")),
            _ => Ok(()),
        }
    }

    /// Reads the secret from its file, if there is one.
    pub(crate) fn read_secret(&mut self) -> Result<()> {
        let Some(path) = self.client_secret_file.take() else { return Ok(()) };
        let text = read_file(FILE, &path)?;
        let secret = text.trim_matches(['\r', '\n']);
        if let Some(why) = word_fault(secret) {
            return Err(refused(FILE, &format!("the secret in {}: {why}", path.display())));
        }
        self.client_secret = Secret::new(secret.to_owned());
        Ok(())
    }
}
