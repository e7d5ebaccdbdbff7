//! The in-memory token cache, sharded by id. Stale tokens are served while a refresh runs.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::id_hash::IdHash;
use super::inline_id::InlineId;
use super::striped_lock::{ReadGuard, StripedLock, WriteGuard};
use crate::secret::Secret;

/// So many parts that a reader rarely meets a writer, and that a part which grows is moved quickly.
const SHARDS: usize = 16;

pub struct CachedToken {
    access_token: Secret,
    /// The uptime in milliseconds until which it needs no second thought.
    fresh_until: u64,
    /// So many milliseconds later the API refuses it. More than fit are 49 days: it is given up rather too early.
    valid_for_ms: u32,
    /// Refreshes that failed since the last one that did not.
    failures: u8,
    company: CompanyTag,
}

/// A short hash of the company that a token belongs to. Two companies may share one: then both are forgotten together.
type CompanyTag = [u8; 3];

/// The tag of a token whose company is not known.
const UNKNOWN: CompanyTag = [0; 3];

fn company_tag(company_id: Option<&str>) -> CompanyTag {
    // FNV-1a, with the low bit set so that no company has the tag `UNKNOWN`.
    let fold = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = company_id.map(|id| id.as_bytes().iter().fold(0x811c_9dc5, fold));
    hash.map_or(UNKNOWN, |hash| {
        let [high, a, b, c] = hash.to_be_bytes();
        [a ^ high, b, c | 1]
    })
}

impl CachedToken {
    /// A token of that company, fresh and alive until those uptimes.
    pub fn new(
        access_token: Secret,
        company_id: Option<&str>,
        fresh_until: Duration,
        valid_until: Duration,
    ) -> CachedToken {
        let (fresh_until, valid_until) = (milliseconds(fresh_until), milliseconds(valid_until));
        // One that dies before it is due is fresh no longer than it lives.
        let fresh_until = fresh_until.min(valid_until);
        let valid_for_ms = u32::try_from(valid_until - fresh_until).unwrap_or(u32::MAX);
        CachedToken { access_token, fresh_until, valid_for_ms, failures: 0, company: company_tag(company_id) }
    }

    fn valid_until(&self) -> u64 {
        self.fresh_until.saturating_add(self.valid_for_ms.into())
    }
}

/// Why an old token that is due stays in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleReason {
    /// Its refresh failed: exponential backoff, up to 64 seconds.
    Failed,
    /// Another caller or process refreshes it, or the store is busy.
    Busy,
    /// This caller refreshes it: the others get the old one meanwhile.
    Due,
}

impl StaleReason {
    fn duration(self, failures: u8) -> Duration {
        match self {
            StaleReason::Failed => Duration::from_secs(1 << failures.min(6)),
            StaleReason::Busy => Duration::from_secs(1),
            StaleReason::Due => Duration::ZERO,
        }
    }
}

/// Access tokens by resource. All times are uptimes.
///
/// A change is seen by every call that begins after it. Readers write nothing that another reader reads: two threads get
/// twice the tokens of one, of one resource as of several.
pub struct TokenCache {
    /// Apart from what is written all the time beside it.
    shards: Box<[StripedLock<Shard>; SHARDS]>,
}

struct Shard {
    tokens: HashMap<InlineId, CachedToken, IdHash>,
    /// How often a token came or went.
    changes: u64,
}

impl TokenCache {
    pub fn new() -> TokenCache {
        let hash = IdHash::new();
        let shard = |_| StripedLock::new(Shard { tokens: HashMap::with_hasher(hash.clone()), changes: 0 });
        TokenCache { shards: Box::new(std::array::from_fn(shard)) }
    }

    /// Gives a token that is fresh to `take`.
    pub fn with_fresh<T>(
        &self,
        resource_id: &str,
        uptime: Duration,
        take: impl FnOnce(&Secret) -> T,
    ) -> Option<T> {
        let shard = self.read(resource_id);
        let cached = shard.get(resource_id).filter(|cached| milliseconds(uptime) < cached.fresh_until)?;
        Some(take(&cached.access_token))
    }

    /// Whether any token of a resource is held.
    pub fn contains(&self, resource_id: &str) -> bool {
        self.read(resource_id).get(resource_id).is_some()
    }

    /// A token that the API still takes, be it due or not.
    pub fn unexpired(&self, resource_id: &str, uptime: Duration) -> Option<Secret> {
        let shard = self.read(resource_id);
        let cached = shard.get(resource_id).filter(|cached| milliseconds(uptime) < cached.valid_until())?;
        Some(cached.access_token.clone())
    }

    /// For how long the API still takes the token of a resource, be it due or not; `None` for a dead one.
    pub fn unexpired_for(&self, resource_id: &str, uptime: Duration) -> Option<Duration> {
        let valid_until = self.read(resource_id).get(resource_id)?.valid_until();
        let left = valid_until.checked_sub(milliseconds(uptime)).filter(|left| *left > 0)?;
        Some(Duration::from_millis(left))
    }

    /// The life that is left of this very token, if it is held; zero for a dead one.
    pub fn left(&self, resource_id: &str, access_token: &Secret, uptime: Duration) -> Option<Duration> {
        let shard = self.read(resource_id);
        let cached =
            shard.get(resource_id).filter(|cached| cached.access_token.matches(access_token.expose()))?;
        Some(Duration::from_millis(cached.valid_until().saturating_sub(milliseconds(uptime))))
    }

    /// A number that is another one as soon as a token of this resource comes or goes.
    pub fn changes(&self, resource_id: &str) -> u64 {
        self.read(resource_id).changes
    }

    /// Holds a token that was just granted, or loaded. One that was loaded without the resource's lock, when `changes`
    /// was the number, is held only if it is that still: else it may have been deleted or replaced meanwhile.
    pub fn publish(&self, resource_id: &str, cached: CachedToken, changes: Option<u64>) -> bool {
        let mut shard = self.write(resource_id);
        let current = changes.is_none_or(|changes| changes == shard.changes);
        if current {
            shard.put(resource_id, cached);
        }
        current
    }

    /// Holds a token in the place of another one. Where none is held, it is a change all the same.
    pub fn replace(&self, resource_id: &str, cached: CachedToken) {
        let mut shard = self.write(resource_id);
        if shard.get(resource_id).is_some() {
            shard.put(resource_id, cached);
        } else {
            shard.changes += 1;
        }
    }

    /// Keeps an old token in use for `reason`, which gets the number of failed refreshes in a row; `failed` counts one
    /// more. A token that was deleted or replaced since `changes` was the number stays what it is.
    pub fn serve_stale(
        &self,
        changes: u64,
        resource_id: &str,
        (access_token, company_id): (Secret, Option<&str>),
        uptime: Duration,
        left: Duration,
        reason: StaleReason,
    ) {
        let mut shard = self.write(resource_id);
        if changes != shard.changes {
            return;
        }
        let failures = shard.get(resource_id).map_or(0, |cached| cached.failures);
        let failures = failures.saturating_add(u8::from(reason == StaleReason::Failed));
        let fresh_until = uptime + left.min(reason.duration(failures));
        let cached = CachedToken::new(access_token, company_id, fresh_until, uptime + left);
        shard.put(resource_id, CachedToken { failures, ..cached });
    }

    /// Forgets a resource.
    pub fn forget(&self, resource_id: &str) {
        let mut shard = self.write(resource_id);
        shard.changes += 1;
        shard.tokens.remove(resource_id.as_bytes());
    }

    /// Forgets a company's tokens and those whose company is not known, except the tokens of these resources.
    pub fn forget_company(&self, company_id: &str, except: &HashSet<String>) {
        let except: HashSet<&[u8]> = except.iter().map(String::as_bytes).collect();
        let company = company_tag(Some(company_id));
        for shard in self.shards.iter() {
            let mut shard = shard.write();
            shard.changes += 1;
            shard.tokens.retain(|id, cached| {
                (cached.company != company && cached.company != UNKNOWN)
                    || except.contains(Borrow::<[u8]>::borrow(id))
            });
        }
    }

    /// How many tokens are held.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().tokens.len()).sum()
    }

    fn read(&self, resource_id: &str) -> ReadGuard<'_, Shard> {
        self.shards[shard_index(resource_id)].read()
    }

    fn write(&self, resource_id: &str) -> WriteGuard<'_, Shard> {
        self.shards[shard_index(resource_id)].write()
    }
}

impl Shard {
    fn get(&self, resource_id: &str) -> Option<&CachedToken> {
        self.tokens.get(resource_id.as_bytes())
    }

    fn put(&mut self, resource_id: &str, cached: CachedToken) {
        self.changes += 1;
        self.tokens.insert(InlineId::new(resource_id), cached);
    }
}

/// The part that an id is in. Its end is enough to spread ids evenly, and costs less than the map's hash of the whole.
fn shard_index(resource_id: &str) -> usize {
    let end = resource_id.as_bytes().last_chunk().copied().unwrap_or_default();
    // The uppermost bits of a product hang on all bits of its factors; this one is 2⁶⁴ divided by the golden ratio.
    (u64::from_le_bytes(end).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SHARDS.ilog2())) as usize
}

/// Cut, not rounded: a token is due rather too early than too late.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const HOUR: Duration = Duration::from_secs(3600);

    fn token(access_token: String) -> CachedToken {
        CachedToken::new(Secret::new(access_token), None, HOUR, HOUR)
    }

    fn held(cache: &TokenCache, resource_id: &str) -> Option<String> {
        cache.with_fresh(resource_id, Duration::ZERO, |token| token.expose().to_owned())
    }

    #[test]
    fn shards_have_about_equal_sizes() {
        for prefix in ["location", "", "ve9EPM428h8v"] {
            let mut parts = [0; SHARDS];
            for index in 0..16_000 {
                parts[shard_index(&format!("{prefix}{index:08}"))] += 1;
            }
            assert!(parts.iter().all(|ids| (800..1200).contains(ids)), "{prefix}: {parts:?}");
        }
    }

    #[test]
    fn short_and_unusual_ids_are_accepted() {
        let cache = TokenCache::new();
        let ids = ["", "a", "b", "sevenab", "eightabc", "ninéabcd", "ß"];
        for id in ids {
            cache.publish(id, token(format!("of {id}")), None);
        }
        assert_eq!(cache.len(), ids.len());
        for id in ids {
            assert_eq!(held(&cache, id).unwrap(), format!("of {id}"));
            cache.forget(id);
            assert_eq!(held(&cache, id), None);
        }
    }

    #[test]
    fn forgetting_a_company_leaves_the_tokens_of_other_companies() {
        let cache = TokenCache::new();
        for (id, company) in
            [("a", Some("one")), ("b", Some("two")), ("c", None), ("d", Some("one")), ("one", Some("one"))]
        {
            cache.publish(id, CachedToken::new(Secret::new(id.into()), company, HOUR, HOUR), None);
        }
        cache.forget_company("one", &HashSet::from(["d".to_owned()]));
        let left = ["a", "b", "c", "d", "one"].map(|id| held(&cache, id).is_some());
        assert_eq!(left, [false, true, false, true, false]);
    }

    #[test]
    fn every_thread_sees_the_newest_token_and_no_removed_one() {
        let cache = TokenCache::new();
        cache.publish("gone", token("0".into()), None);
        cache.forget("gone");
        let newest = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut seen = 0;
                    while seen < 2000 {
                        let before = newest.load(Ordering::SeqCst);
                        seen = held(&cache, "one").map_or(seen, |token| token.parse().unwrap());
                        assert!(seen >= before, "{seen} after {before}");
                        assert_eq!(held(&cache, "gone"), None);
                    }
                });
            }
            for number in 1..=2000 {
                cache.publish("one", token(number.to_string()), None);
                newest.store(number, Ordering::SeqCst);
            }
        });
    }

    #[test]
    fn record_loaded_before_a_deletion_or_replacement_is_not_cached() {
        let cache = TokenCache::new();
        let [old, new] = ["old", "new"].map(|token| Secret::new(token.to_owned()));
        let publish = |token: &Secret, changes| {
            let live_token = CachedToken::new(token.clone(), None, Duration::MAX, Duration::MAX);
            cache.publish("location", live_token, changes)
        };
        let held = || held(&cache, "location");

        let loaded = cache.changes("location");
        assert!(publish(&old, Some(loaded)), "nothing came between");
        let loaded = cache.changes("location");
        cache.forget("location");
        assert!(!publish(&old, Some(loaded)));
        assert_eq!(held(), None);
        let loaded = cache.changes("location");
        assert!(publish(&new, None));
        assert!(!publish(&old, Some(loaded)));
        assert_eq!(held().as_deref(), Some("new"));

        // A failed refresh of a token that was deleted meanwhile does not bring it back.
        let loaded = cache.changes("location");
        cache.forget("location");
        cache.serve_stale(loaded, "location", (old.clone(), None), Duration::ZERO, HOUR, StaleReason::Failed);
        assert_eq!(held(), None);
        // A token that came into the store alone is a change as well.
        let loaded = cache.changes("location");
        cache.replace("location", token("new".into()));
        assert_eq!(held(), None);
        assert!(!publish(&old, Some(loaded)));
        assert!(publish(&old, None));
        cache.replace("location", token("new".into()));
        assert_eq!(held().as_deref(), Some("new"));
    }
}
