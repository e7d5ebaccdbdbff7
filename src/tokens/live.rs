//! The live tokens of this process: the way that nearly every call takes, and no further.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::secret::Secret;

/// So many parts that threads rarely meet in one of them.
const SHARDS: usize = 64;

struct LiveToken {
    access_token: Secret,
    /// The uptime in milliseconds until which it needs no second thought.
    fresh_until: u64,
    /// So many milliseconds later the API refuses it. More than fit are 49 days: it is given up rather too early.
    dying: u32,
    /// Refreshes that failed since the last one that did not.
    failures: u32,
}

impl LiveToken {
    fn new(access_token: &Secret, fresh_until: Duration, dies_at: Duration, failures: u32) -> LiveToken {
        let (fresh_until, dies_at) = (milliseconds(fresh_until), milliseconds(dies_at));
        // One that dies before it is due is fresh no longer than it lives.
        let fresh_until = fresh_until.min(dies_at);
        let dying = u32::try_from(dies_at - fresh_until).unwrap_or(u32::MAX);
        LiveToken { access_token: access_token.to_hold(), fresh_until, dying, failures }
    }

    fn dies_at(&self) -> u64 {
        self.fresh_until.saturating_add(self.dying.into())
    }
}

/// Access tokens by resource. All times are uptimes.
pub struct LiveTokens {
    hasher: RandomState,
    shards: [RwLock<Shard>; SHARDS],
}

struct Shard {
    tokens: HashMap<Box<str>, LiveToken, RandomState>,
    /// How often a token came or went.
    changes: u64,
}

impl LiveTokens {
    pub fn new() -> LiveTokens {
        let hasher = RandomState::new();
        LiveTokens {
            shards: std::array::from_fn(|_| {
                RwLock::new(Shard { tokens: HashMap::with_hasher(hasher.clone()), changes: 0 })
            }),
            hasher,
        }
    }

    /// Gives a token that is fresh to `take`.
    pub fn with_fresh<T>(
        &self,
        resource_id: &str,
        uptime: Duration,
        take: impl FnOnce(&Secret) -> T,
    ) -> Option<T> {
        let shard = self.read(resource_id);
        let live = shard.tokens.get(resource_id).filter(|live| milliseconds(uptime) < live.fresh_until)?;
        Some(take(&live.access_token))
    }

    /// Whether any token of a resource is held.
    pub fn holds(&self, resource_id: &str) -> bool {
        self.read(resource_id).tokens.contains_key(resource_id)
    }

    /// A token that the API still takes, be it due or not.
    pub fn alive(&self, resource_id: &str, uptime: Duration) -> Option<Secret> {
        let shard = self.read(resource_id);
        let live = shard.tokens.get(resource_id).filter(|live| milliseconds(uptime) < live.dies_at())?;
        Some(live.access_token.clone())
    }

    /// Whether this very token is held, and is no longer fresh.
    pub fn is_due(&self, resource_id: &str, access_token: &Secret, uptime: Duration) -> bool {
        self.read(resource_id).tokens.get(resource_id).is_some_and(|live| {
            milliseconds(uptime) >= live.fresh_until && live.access_token.matches(access_token.expose())
        })
    }

    /// A number that is another one as soon as a token of this resource comes or goes.
    pub fn changes(&self, resource_id: &str) -> u64 {
        self.read(resource_id).changes
    }

    /// Holds a token that was just granted, or loaded. One that was loaded without the resource's lock, when `changes`
    /// was the number, is held only if it is that still: else it may have been deleted or replaced meanwhile.
    pub fn publish(
        &self,
        resource_id: &str,
        access_token: &Secret,
        fresh_until: Duration,
        dies_at: Duration,
        changes: Option<u64>,
    ) -> bool {
        let live = LiveToken::new(access_token, fresh_until, dies_at, 0);
        let mut shard = self.write(resource_id);
        let current = changes.is_none_or(|changes| changes == shard.changes);
        if current {
            shard.put(resource_id, live);
        }
        current
    }

    /// Holds on to an old token after a failed refresh, until the next attempt is due: `hold` says how long after so
    /// many failures in a row.
    pub fn hold_on(
        &self,
        resource_id: &str,
        access_token: &Secret,
        uptime: Duration,
        left: Duration,
        hold: impl FnOnce(u32) -> Duration,
    ) {
        let failures = self.read(resource_id).tokens.get(resource_id).map_or(0, |live| live.failures) + 1;
        let fresh_until = uptime + left.min(hold(failures));
        let live = LiveToken::new(access_token, fresh_until, uptime + left, failures);
        self.write(resource_id).put(resource_id, live);
    }

    /// Forgets a resource.
    pub fn forget(&self, resource_id: &str) {
        let mut shard = self.write(resource_id);
        shard.changes += 1;
        shard.tokens.remove(resource_id);
    }

    /// How many tokens are held.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).tokens.len())
            .sum()
    }

    fn read(&self, resource_id: &str) -> RwLockReadGuard<'_, Shard> {
        self.shard(resource_id).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, resource_id: &str) -> RwLockWriteGuard<'_, Shard> {
        self.shard(resource_id).write().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, resource_id: &str) -> &RwLock<Shard> {
        // The upper bits choose the shard: the map itself uses the lower ones.
        let hash = self.hasher.hash_one(resource_id);
        &self.shards[(hash >> 32) as usize % SHARDS]
    }
}

impl Shard {
    fn put(&mut self, resource_id: &str, live: LiveToken) {
        self.changes += 1;
        self.tokens.insert(resource_id.into(), live);
    }
}

/// Cut, not rounded: a token is due rather too early than too late.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_loaded_before_a_token_was_deleted_or_replaced_is_not_held() {
        let live = LiveTokens::new();
        let [old, new] = ["old", "new"].map(|token| Secret::new(token.to_owned()));
        let publish = |token, changes| live.publish("location", token, Duration::MAX, Duration::MAX, changes);
        let held = || live.with_fresh("location", Duration::ZERO, |token| token.expose().to_owned());

        let loaded = live.changes("location");
        assert!(publish(&old, Some(loaded)), "nothing came between");
        let loaded = live.changes("location");
        live.forget("location");
        assert!(!publish(&old, Some(loaded)));
        assert_eq!(held(), None);
        let loaded = live.changes("location");
        assert!(publish(&new, None));
        assert!(!publish(&old, Some(loaded)));
        assert_eq!(held().as_deref(), Some("new"));
    }
}
