//! The live tokens of this process: the way that nearly every call takes, and no further.

use std::collections::HashMap;
use std::time::Duration;

use super::held_id::HeldId;
use super::id_hash::IdHash;
use super::read_mostly::{ReadMostly, Reading, Writing};
use crate::secret::Secret;

/// So many parts that a reader rarely meets a writer, and that a part which grows is moved quickly.
const SHARDS: usize = 16;

pub struct LiveToken {
    access_token: Secret,
    /// The uptime in milliseconds until which it needs no second thought.
    fresh_until: u64,
    /// So many milliseconds later the API refuses it. More than fit are 49 days: it is given up rather too early.
    dying: u32,
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

impl LiveToken {
    /// A token of that company, fresh and alive until those uptimes.
    pub fn new(
        access_token: Secret,
        company_id: Option<&str>,
        fresh_until: Duration,
        dies_at: Duration,
    ) -> LiveToken {
        let (fresh_until, dies_at) = (milliseconds(fresh_until), milliseconds(dies_at));
        // One that dies before it is due is fresh no longer than it lives.
        let fresh_until = fresh_until.min(dies_at);
        let dying = u32::try_from(dies_at - fresh_until).unwrap_or(u32::MAX);
        LiveToken { access_token, fresh_until, dying, failures: 0, company: company_tag(company_id) }
    }

    fn dies_at(&self) -> u64 {
        self.fresh_until.saturating_add(self.dying.into())
    }
}

/// Why an old token that is due stays in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Its refresh failed: exponential backoff, up to 64 seconds.
    Failed,
    /// Another caller or process refreshes it, or the store is busy.
    Busy,
    /// This caller refreshes it: the others get the old one meanwhile.
    Due,
}

impl Hold {
    fn length(self, failures: u8) -> Duration {
        match self {
            Hold::Failed => Duration::from_secs(1 << failures.min(6)),
            Hold::Busy => Duration::from_secs(1),
            Hold::Due => Duration::ZERO,
        }
    }
}

/// Access tokens by resource. All times are uptimes.
///
/// A change is seen by every call that begins after it. Readers write nothing that another reader reads: two threads get
/// twice the tokens of one, of one resource as of several.
pub struct LiveTokens {
    /// Apart from what is written all the time beside it.
    shards: Box<[ReadMostly<Shard>; SHARDS]>,
}

struct Shard {
    tokens: HashMap<HeldId, LiveToken, IdHash>,
    /// How often a token came or went.
    changes: u64,
}

impl LiveTokens {
    pub fn new() -> LiveTokens {
        let hash = IdHash::new();
        let shard = |_| ReadMostly::new(Shard { tokens: HashMap::with_hasher(hash.clone()), changes: 0 });
        LiveTokens { shards: Box::new(std::array::from_fn(shard)) }
    }

    /// Gives a token that is fresh to `take`.
    pub fn with_fresh<T>(
        &self,
        resource_id: &str,
        uptime: Duration,
        take: impl FnOnce(&Secret) -> T,
    ) -> Option<T> {
        let shard = self.read(resource_id);
        let live = shard.get(resource_id).filter(|live| milliseconds(uptime) < live.fresh_until)?;
        Some(take(&live.access_token))
    }

    /// Whether any token of a resource is held.
    pub fn holds(&self, resource_id: &str) -> bool {
        self.read(resource_id).get(resource_id).is_some()
    }

    /// A token that the API still takes, be it due or not.
    pub fn alive(&self, resource_id: &str, uptime: Duration) -> Option<Secret> {
        let shard = self.read(resource_id);
        let live = shard.get(resource_id).filter(|live| milliseconds(uptime) < live.dies_at())?;
        Some(live.access_token.clone())
    }

    /// For how long the API still takes the token of a resource, be it due or not; `None` for a dead one.
    pub fn alive_for(&self, resource_id: &str, uptime: Duration) -> Option<Duration> {
        let dies_at = self.read(resource_id).get(resource_id)?.dies_at();
        let left = dies_at.checked_sub(milliseconds(uptime)).filter(|left| *left > 0)?;
        Some(Duration::from_millis(left))
    }

    /// The life that is left of this very token, if it is held; zero for a dead one.
    pub fn left(&self, resource_id: &str, access_token: &Secret, uptime: Duration) -> Option<Duration> {
        let shard = self.read(resource_id);
        let live = shard.get(resource_id).filter(|live| live.access_token.matches(access_token.expose()))?;
        Some(Duration::from_millis(live.dies_at().saturating_sub(milliseconds(uptime))))
    }

    /// A number that is another one as soon as a token of this resource comes or goes.
    pub fn changes(&self, resource_id: &str) -> u64 {
        self.read(resource_id).changes
    }

    /// Holds a token that was just granted, or loaded. One that was loaded without the resource's lock, when `changes`
    /// was the number, is held only if it is that still: else it may have been deleted or replaced meanwhile.
    pub fn publish(&self, resource_id: &str, live: LiveToken, changes: Option<u64>) -> bool {
        let mut shard = self.write(resource_id);
        let current = changes.is_none_or(|changes| changes == shard.changes);
        if current {
            shard.put(resource_id, live);
        }
        current
    }

    /// Holds a token in the place of another one. Where none is held, it is a change all the same.
    pub fn replace(&self, resource_id: &str, live: LiveToken) {
        let mut shard = self.write(resource_id);
        if shard.get(resource_id).is_some() {
            shard.put(resource_id, live);
        } else {
            shard.changes += 1;
        }
    }

    /// Keeps an old token in use for `hold`, which gets the number of failed refreshes in a row; `failed` counts one more.
    /// A token that was deleted or replaced since `changes` was the number stays what it is.
    pub fn hold_on(
        &self,
        changes: u64,
        resource_id: &str,
        (access_token, company_id): (Secret, Option<&str>),
        uptime: Duration,
        left: Duration,
        hold: Hold,
    ) {
        let mut shard = self.write(resource_id);
        if changes != shard.changes {
            return;
        }
        let failures = shard.get(resource_id).map_or(0, |live| live.failures);
        let failures = failures.saturating_add(u8::from(hold == Hold::Failed));
        let fresh_until = uptime + left.min(hold.length(failures));
        let live = LiveToken::new(access_token, company_id, fresh_until, uptime + left);
        shard.put(resource_id, LiveToken { failures, ..live });
    }

    /// Forgets a resource.
    pub fn forget(&self, resource_id: &str) {
        let mut shard = self.write(resource_id);
        shard.changes += 1;
        shard.tokens.remove(resource_id.as_bytes());
    }

    /// Forgets a company, its locations, and the resources whose company is not known.
    pub fn forget_company(&self, company_id: &str) {
        let company = company_tag(Some(company_id));
        for shard in self.shards.iter() {
            let mut shard = shard.write();
            shard.changes += 1;
            shard.tokens.retain(|_, live| live.company != company && live.company != UNKNOWN);
        }
    }

    /// How many tokens are held.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().tokens.len()).sum()
    }

    fn read(&self, resource_id: &str) -> Reading<'_, Shard> {
        self.shards[part(resource_id)].read()
    }

    fn write(&self, resource_id: &str) -> Writing<'_, Shard> {
        self.shards[part(resource_id)].write()
    }
}

impl Shard {
    fn get(&self, resource_id: &str) -> Option<&LiveToken> {
        self.tokens.get(resource_id.as_bytes())
    }

    fn put(&mut self, resource_id: &str, live: LiveToken) {
        self.changes += 1;
        self.tokens.insert(HeldId::new(resource_id), live);
    }
}

/// The part that an id is in. Its end is enough to spread ids evenly, and costs less than the map's hash of the whole.
fn part(resource_id: &str) -> usize {
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

    fn token(access_token: String) -> LiveToken {
        LiveToken::new(Secret::new(access_token), None, HOUR, HOUR)
    }

    fn held(live: &LiveTokens, resource_id: &str) -> Option<String> {
        live.with_fresh(resource_id, Duration::ZERO, |token| token.expose().to_owned())
    }

    #[test]
    fn the_parts_are_about_equal() {
        for prefix in ["location", "", "ve9EPM428h8v"] {
            let mut parts = [0; SHARDS];
            for index in 0..16_000 {
                parts[part(&format!("{prefix}{index:08}"))] += 1;
            }
            assert!(parts.iter().all(|ids| (800..1200).contains(ids)), "{prefix}: {parts:?}");
        }
    }

    #[test]
    fn short_and_odd_ids_are_ids() {
        let live = LiveTokens::new();
        let ids = ["", "a", "b", "sevenab", "eightabc", "ninéabcd", "ß"];
        for id in ids {
            live.publish(id, token(format!("of {id}")), None);
        }
        assert_eq!(live.len(), ids.len());
        for id in ids {
            assert_eq!(held(&live, id).unwrap(), format!("of {id}"));
            live.forget(id);
            assert_eq!(held(&live, id), None);
        }
    }

    #[test]
    fn forgetting_a_company_leaves_the_tokens_of_other_companies() {
        let live = LiveTokens::new();
        for (id, company) in [("a", Some("one")), ("b", Some("two")), ("c", None), ("one", Some("one"))] {
            live.publish(id, LiveToken::new(Secret::new(id.into()), company, HOUR, HOUR), None);
        }
        live.forget_company("one");
        let left = ["a", "b", "c", "one"].map(|id| held(&live, id).is_some());
        assert_eq!(left, [false, true, false, false]);
    }

    #[test]
    fn every_thread_sees_the_newest_token_and_none_that_is_forgotten() {
        let live = LiveTokens::new();
        live.publish("gone", token("0".into()), None);
        live.forget("gone");
        let newest = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut seen = 0;
                    while seen < 2000 {
                        let before = newest.load(Ordering::SeqCst);
                        seen = held(&live, "one").map_or(seen, |token| token.parse().unwrap());
                        assert!(seen >= before, "{seen} after {before}");
                        assert_eq!(held(&live, "gone"), None);
                    }
                });
            }
            for number in 1..=2000 {
                live.publish("one", token(number.to_string()), None);
                newest.store(number, Ordering::SeqCst);
            }
        });
    }

    #[test]
    fn what_was_loaded_before_a_token_was_deleted_or_replaced_is_not_held() {
        let live = LiveTokens::new();
        let [old, new] = ["old", "new"].map(|token| Secret::new(token.to_owned()));
        let publish = |token: &Secret, changes| {
            let live_token = LiveToken::new(token.clone(), None, Duration::MAX, Duration::MAX);
            live.publish("location", live_token, changes)
        };
        let held = || held(&live, "location");

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

        // A failed refresh of a token that was deleted meanwhile does not bring it back.
        let loaded = live.changes("location");
        live.forget("location");
        live.hold_on(loaded, "location", (old.clone(), None), Duration::ZERO, HOUR, Hold::Failed);
        assert_eq!(held(), None);
        // A token that came into the store alone is a change as well.
        let loaded = live.changes("location");
        live.replace("location", token("new".into()));
        assert_eq!(held(), None);
        assert!(!publish(&old, Some(loaded)));
        assert!(publish(&old, None));
        live.replace("location", token("new".into()));
        assert_eq!(held().as_deref(), Some("new"));
    }
}
