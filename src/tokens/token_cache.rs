//! The in-memory token cache, sharded by ID. Serves stale tokens while a refresh runs.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::id_hash::IdHash;
use super::striped_lock::{ReadGuard, StripedLock, WriteGuard};
use crate::secret::Secret;

/// Enough shards that readers rarely meet a writer, and that a growing map is rehashed quickly.
const SHARDS: usize = 16;

/// A token to be cached.
pub struct CachedToken {
    access_token: Secret,
    times: Times,
    /// Consecutive failed refreshes.
    failures: u8,
    company: CompanyTag,
}

/// Packed, so that an entry has no padding.
#[derive(Clone, Copy)]
#[repr(Rust, packed(4))]
struct Times {
    /// The uptime in milliseconds until which the token is served without a check.
    fresh_until: u64,
    /// How long after `fresh_until` the token is still valid. Limited to 49 days, which only
    /// shortens its use.
    valid_for_ms: u32,
}

impl Times {
    fn valid_until(self) -> u64 {
        self.fresh_until.saturating_add(self.valid_for_ms.into())
    }
}

/// A short hash of a token's company. On a collision, both companies are forgotten together.
type CompanyTag = [u8; 3];

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
    /// A token that is fresh and valid until these uptimes.
    pub fn new(
        access_token: Secret,
        company_id: Option<&str>,
        fresh_until: Duration,
        valid_until: Duration,
    ) -> CachedToken {
        let (fresh_until, valid_until) = (milliseconds(fresh_until), milliseconds(valid_until));
        // A token that expires before it is due is fresh only until it expires.
        let fresh_until = fresh_until.min(valid_until);
        let valid_for_ms = u32::try_from(valid_until - fresh_until).unwrap_or(u32::MAX);
        let times = Times { fresh_until, valid_for_ms };
        let company = company_tag(company_id);
        CachedToken { access_token, times, failures: 0, company }
    }
}

/// A cached token with its ID, which is the label of the access token. The first access to a block
/// of memory in a large cache waits for the memory, so the ID and the token are in one block, and
/// the entry is as small as possible.
struct Entry(CachedToken);

impl Entry {
    /// `None` if the ID is longer than 255 bytes, which no valid one is.
    fn new(resource_id: &str, cached: CachedToken) -> Option<Entry> {
        let access_token = cached.access_token.labelled(resource_id);
        let entry = Entry(CachedToken { access_token, ..cached });
        (entry.id() == resource_id.as_bytes()).then_some(entry)
    }

    fn id(&self) -> &[u8] {
        self.0.access_token.label().as_bytes()
    }
}

/// Allows lookups by the bytes of an ID.
impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.id()
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Entry {}

/// Why a token that is due is still served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleReason {
    /// Its refresh failed: exponential backoff up to 64 seconds.
    Failed,
    /// Another caller or process is refreshing it, or the store is busy.
    Busy,
    /// This caller is refreshing it; the others are served the old token.
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
/// A change is visible to every call that starts after it. Readers on different threads write to no
/// shared cache line, so reads scale even for a single resource. Allocate it by itself, so that it
/// shares no cache line with fields that are written often.
pub struct TokenCache {
    shards: [StripedLock<Shard>; SHARDS],
}

struct Shard {
    tokens: HashSet<Entry, IdHash>,
    /// The number of changes so far.
    changes: u64,
}

impl TokenCache {
    pub fn new() -> TokenCache {
        let hash = IdHash::new();
        let shard =
            |_| StripedLock::new(Shard { tokens: HashSet::with_hasher(hash.clone()), changes: 0 });
        TokenCache { shards: std::array::from_fn(shard) }
    }

    /// Passes a fresh token to `take`.
    pub fn with_fresh<T>(
        &self,
        resource_id: &str,
        uptime: Duration,
        take: impl FnOnce(&Secret) -> T,
    ) -> Option<T> {
        let shard = self.read(resource_id);
        let entry = shard
            .get(resource_id)
            .filter(|entry| milliseconds(uptime) < entry.times.fresh_until)?;
        Some(take(&entry.access_token))
    }

    pub fn contains(&self, resource_id: &str) -> bool {
        self.read(resource_id).get(resource_id).is_some()
    }

    /// A token that has not expired, due or not.
    pub fn unexpired(&self, resource_id: &str, uptime: Duration) -> Option<Secret> {
        let shard = self.read(resource_id);
        let entry = shard
            .get(resource_id)
            .filter(|entry| milliseconds(uptime) < entry.times.valid_until())?;
        Some(entry.access_token.clone())
    }

    /// The remaining lifetime of the resource's token, due or not; `None` if it has expired.
    pub fn unexpired_for(&self, resource_id: &str, uptime: Duration) -> Option<Duration> {
        let valid_until = self.read(resource_id).get(resource_id)?.times.valid_until();
        let left = valid_until.checked_sub(milliseconds(uptime)).filter(|left| *left > 0)?;
        Some(Duration::from_millis(left))
    }

    /// The remaining lifetime of this token if it is cached; zero if it has expired.
    pub fn left(
        &self,
        resource_id: &str,
        access_token: &Secret,
        uptime: Duration,
    ) -> Option<Duration> {
        let shard = self.read(resource_id);
        let entry = shard
            .get(resource_id)
            .filter(|entry| access_token.matches(entry.access_token.expose()))?;
        let valid_until = entry.times.valid_until();
        Some(Duration::from_millis(valid_until.saturating_sub(milliseconds(uptime))))
    }

    /// A counter that increases with every change of the resource's shard.
    pub fn changes(&self, resource_id: &str) -> u64 {
        self.read(resource_id).changes
    }

    /// Caches a token. With `changes`, the value of [`TokenCache::changes`] before the record was
    /// loaded without a lock, only if nothing has changed since: otherwise the token may have been
    /// deleted or replaced. Returns whether it was cached.
    pub fn publish(&self, resource_id: &str, cached: CachedToken, changes: Option<u64>) -> bool {
        let mut shard = self.write(resource_id);
        let current = changes.is_none_or(|changes| changes == shard.changes);
        if current {
            shard.put(resource_id, cached);
        }
        current
    }

    /// Caches a token if the resource is cached already. Counts as a change in either case.
    pub fn replace(&self, resource_id: &str, cached: CachedToken) {
        let mut shard = self.write(resource_id);
        if shard.get(resource_id).is_some() {
            shard.put(resource_id, cached);
        } else {
            shard.changes += 1;
        }
    }

    /// Serves an old token for the time that `reason` allows, unless the cache has changed since
    /// `changes`. `Failed` counts one more failed refresh.
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
        let failures = shard.get(resource_id).map_or(0, |entry| entry.failures);
        let failures = failures.saturating_add(u8::from(reason == StaleReason::Failed));
        let fresh_until = uptime + left.min(reason.duration(failures));
        let cached = CachedToken::new(access_token, company_id, fresh_until, uptime + left);
        shard.put(resource_id, CachedToken { failures, ..cached });
    }

    /// Whether no refresh of the cached token has failed yet.
    pub fn is_first_failure(&self, resource_id: &str) -> bool {
        self.read(resource_id).get(resource_id).is_none_or(|entry| entry.failures == 0)
    }

    /// How long a valid old token is served after one more failed refresh.
    pub fn backoff_after_failure(&self, resource_id: &str) -> Duration {
        let failures = self.read(resource_id).get(resource_id).map_or(0, |entry| entry.failures);
        StaleReason::Failed.duration(failures.saturating_add(1))
    }

    pub fn forget(&self, resource_id: &str) {
        let mut shard = self.write(resource_id);
        shard.changes += 1;
        shard.tokens.remove(resource_id.as_bytes());
    }

    /// Removes all tokens of a company or of an unknown company, except for these resources.
    pub fn forget_company(&self, company_id: &str, except: &HashSet<String>) {
        let except: HashSet<&[u8]> = except.iter().map(String::as_bytes).collect();
        let company = company_tag(Some(company_id));
        for shard in self.shards.iter() {
            let mut shard = shard.write();
            shard.changes += 1;
            shard.tokens.retain(|entry| {
                (entry.0.company != company && entry.0.company != UNKNOWN)
                    || except.contains(entry.id())
            });
        }
    }

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
        self.tokens.get(resource_id.as_bytes()).map(|entry| &entry.0)
    }

    fn put(&mut self, resource_id: &str, cached: CachedToken) {
        self.changes += 1;
        if let Some(entry) = Entry::new(resource_id, cached) {
            self.tokens.replace(entry);
        }
    }
}

/// The shard of an ID. The last eight bytes spread IDs evenly and are cheaper than a hash of the
/// whole ID.
fn shard_index(resource_id: &str) -> usize {
    let end = resource_id.as_bytes().last_chunk().copied().unwrap_or_default();
    // Fibonacci hashing: multiply by 2⁶⁴ divided by the golden ratio, and take the highest bits.
    (u64::from_le_bytes(end).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SHARDS.ilog2()))
        as usize
}

/// Rounded down: a token is due too early rather than too late.
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
    fn ids_of_any_length_and_script_are_accepted() {
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
    fn entry_has_the_times_and_the_token() {
        let cache = TokenCache::new();
        let secret = Secret::new("secret".to_owned());
        let short_life = Duration::from_millis(300);
        for id in ["", "location", &"i".repeat(255)] {
            cache.publish(
                id,
                CachedToken::new(secret.clone(), Some("one"), short_life, HOUR),
                None,
            );
            assert_eq!(held(&cache, id).as_deref(), Some("secret"));
            assert!(cache.with_fresh(id, short_life, |_| ()).is_none());
            assert!(cache.unexpired(id, short_life).unwrap().matches("secret"));
            assert_eq!(cache.left(id, &secret, short_life), Some(HOUR - short_life));
            assert_eq!(cache.left(id, &Secret::new("other".into()), short_life), None);
            assert_eq!(cache.unexpired_for(id, HOUR), None);
            assert!(cache.is_first_failure(id));
        }
        assert_eq!(cache.len(), 3);
        assert_eq!(size_of::<Entry>(), size_of::<Secret>() + 16);
        let too_long = "i".repeat(256);
        cache.publish(&too_long, token("secret".into()), None);
        assert!(!cache.contains(&too_long) && cache.len() == 3);
    }

    #[test]
    fn cached_token_shares_the_memory_of_a_labelled_one() {
        let cache = TokenCache::new();
        let secret = Secret::new("secret".to_owned()).labelled("location");
        cache.publish("location", CachedToken::new(secret.clone(), None, HOUR, HOUR), None);
        let cached = cache.unexpired("location", Duration::ZERO).unwrap();
        assert!(std::ptr::eq(cached.expose(), secret.expose()));
    }

    #[test]
    fn forgetting_a_company_leaves_the_tokens_of_other_companies() {
        let cache = TokenCache::new();
        for (id, company) in [
            ("a", Some("one")),
            ("b", Some("two")),
            ("c", None),
            ("d", Some("one")),
            ("one", Some("one")),
        ] {
            cache.publish(id, CachedToken::new(Secret::new(id.into()), company, HOUR, HOUR), None);
        }
        cache.forget_company("one", &HashSet::from(["d".to_owned()]));
        let left = ["a", "b", "c", "d", "one"].map(|id| held(&cache, id).is_some());
        assert_eq!(left, [false, true, false, true, false]);
    }

    #[test]
    fn threads_see_the_newest_token_and_no_removed_token() {
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

        // A failed refresh does not restore a token that was deleted meanwhile.
        let loaded = cache.changes("location");
        cache.forget("location");
        cache.serve_stale(
            loaded,
            "location",
            (old.clone(), None),
            Duration::ZERO,
            HOUR,
            StaleReason::Failed,
        );
        assert_eq!(held(), None);
        // A token that was saved without being cached is a change as well.
        let loaded = cache.changes("location");
        cache.replace("location", token("new".into()));
        assert_eq!(held(), None);
        assert!(!publish(&old, Some(loaded)));
        assert!(publish(&old, None));
        cache.replace("location", token("new".into()));
        assert_eq!(held().as_deref(), Some("new"));
    }
}
