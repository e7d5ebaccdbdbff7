//! The live tokens of this process: the way that nearly every call takes, and no further.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::secret::Secret;

/// So many parts that threads rarely meet in one of them.
const SHARDS: usize = 64;

struct LiveToken {
    access_token: Secret,
    fresh_until: Duration,
    /// Refreshes that failed since the last one that did not.
    failures: u32,
}

/// Access tokens by resource, each with the uptime until which it needs no second thought.
pub struct LiveTokens {
    hasher: RandomState,
    shards: [RwLock<HashMap<Box<str>, LiveToken, RandomState>>; SHARDS],
}

impl LiveTokens {
    pub fn new() -> LiveTokens {
        let hasher = RandomState::new();
        LiveTokens {
            shards: std::array::from_fn(|_| RwLock::new(HashMap::with_hasher(hasher.clone()))),
            hasher,
        }
    }

    /// Gives a token that is fresh at `uptime` to `take`.
    pub fn with_fresh<T>(
        &self,
        resource_id: &str,
        uptime: Duration,
        take: impl FnOnce(&Secret) -> T,
    ) -> Option<T> {
        let shard = self.shard(resource_id).read().unwrap_or_else(PoisonError::into_inner);
        let live = shard.get(resource_id).filter(|live| uptime < live.fresh_until)?;
        Some(take(&live.access_token))
    }

    /// Whether this very token is held, and is no longer fresh.
    pub fn is_due(&self, resource_id: &str, access_token: &Secret, uptime: Duration) -> bool {
        let shard = self.shard(resource_id).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(resource_id).is_some_and(|live| {
            uptime >= live.fresh_until && live.access_token.matches(access_token.expose())
        })
    }

    /// Holds a token that was just granted or loaded.
    pub fn publish(&self, resource_id: &str, access_token: &Secret, fresh_until: Duration) {
        self.put(resource_id, LiveToken { access_token: access_token.clone(), fresh_until, failures: 0 });
    }

    /// Holds on to an old token after a failed refresh; answers how often that has happened in a row.
    pub fn hold_on(&self, resource_id: &str, access_token: &Secret, until: impl FnOnce(u32) -> Duration) {
        let failures = {
            let shard = self.shard(resource_id).read().unwrap_or_else(PoisonError::into_inner);
            shard.get(resource_id).map_or(0, |live| live.failures) + 1
        };
        self.put(
            resource_id,
            LiveToken { access_token: access_token.clone(), fresh_until: until(failures), failures },
        );
    }

    /// Forgets a resource.
    pub fn forget(&self, resource_id: &str) {
        self.shard(resource_id).write().unwrap_or_else(PoisonError::into_inner).remove(resource_id);
    }

    /// How many tokens are held.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn put(&self, resource_id: &str, live: LiveToken) {
        self.shard(resource_id)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(resource_id.into(), live);
    }

    fn shard(&self, resource_id: &str) -> &RwLock<HashMap<Box<str>, LiveToken, RandomState>> {
        // The upper bits choose the shard: the map itself uses the lower ones.
        let hash = self.hasher.hash_one(resource_id);
        &self.shards[(hash >> 32) as usize % SHARDS]
    }
}
