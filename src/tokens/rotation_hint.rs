//! The hint that the app's client ID was rotated: the database holds tokens of another client ID.

use std::sync::{Arc, OnceLock};

use super::records::Records;
use crate::deadline::Deadline;
use crate::error::{Error, Status};
use crate::store::OtherClient;

pub struct RotationHint {
    pub(super) records: Arc<Records>,
    /// Set after the first search: the advice to the user, if another client ID was found.
    pub(super) found: OnceLock<Option<String>>,
}

impl RotationHint {
    /// Adds a hint to a `NOT_FOUND` error if the database holds tokens of another client ID.
    pub fn explain_not_held(&self, error: Error, deadline: impl FnOnce() -> Deadline) -> Error {
        if error.status() != Status::NotFound || error.api().is_some() {
            return error;
        }
        match self.look_for_rotation(deadline) {
            Some(found) => {
                let help = error.help().map(|help| format!("{help}; ")).unwrap_or_default();
                error.with_help(format!("{help}{found}"))
            }
            None => error,
        }
    }

    /// Searches the database for tokens of another client ID, once; logs a warning and returns a
    /// hint if there are any.
    pub fn look_for_rotation(&self, deadline: impl FnOnce() -> Deadline) -> Option<&str> {
        if self.found.get().is_none() {
            let other = self.records.store().other_clients(&deadline()).ok()?.into_iter().next();
            let help = other.as_ref().map(|OtherClient { client_id, .. }| {
                format!(
                    "if the app's client id was {client_id} before, adopt its tokens \
                     (ghl_tokens_adopt)"
                )
            });
            // No lock is held here: the host's logger may call the library.
            if self.found.set(help).is_ok()
                && let Some(OtherClient { client_id, tokens }) = other
            {
                log::warn!(
                    "the store has no such token for this client id, but {tokens} for the client \
                     id {client_id}; if the app's client id changed, adopt them \
                     (ghl_tokens_adopt, or ghl-oauth adopt --from {client_id})"
                );
            }
        }
        self.found.get()?.as_deref()
    }
}
