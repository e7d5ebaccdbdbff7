//! Access tokens that the API rejected although they were just granted: refreshing them again would
//! only use up refresh tokens.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ring::digest::{Digest, SHA256, digest};

use crate::secret::Secret;

/// The digest of the last rejected token of each resource.
#[derive(Default)]
pub struct RejectedTokens(Mutex<HashMap<String, Digest>>);

impl RejectedTokens {
    pub fn contains(&self, resource_id: &str, token: &Secret) -> bool {
        self.digests()
            .get(resource_id)
            .is_some_and(|rejected| rejected.as_ref() == digest_of(token).as_ref())
    }

    pub fn insert(&self, resource_id: &str, token: &Secret) {
        self.digests().insert(resource_id.to_owned(), digest_of(token));
    }

    pub fn forget(&self, resource_id: &str) {
        self.digests().remove(resource_id);
    }

    fn digests(&self) -> MutexGuard<'_, HashMap<String, Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest_of(token: &Secret) -> Digest {
    digest(&SHA256, token.expose().as_bytes())
}
