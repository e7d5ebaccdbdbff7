//! A fast seeded hash function for IDs, with one multiplication per eight bytes.
//!
//! The seed is random per client; beyond that it does not resist collision attacks, unlike std's
//! SipHash. It need not: the keys are IDs of companies and locations whose tokens the API granted.

use std::hash::{BuildHasher, Hasher, RandomState};

/// The multiplier of Knuth's MMIX generator. About one in sixteen random multipliers mixes some
/// bits poorly.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;

/// A random seed.
#[derive(Clone)]
pub struct IdHash {
    seed: u64,
}

pub struct IdHasher {
    state: u64,
}

impl IdHash {
    pub fn new() -> IdHash {
        IdHash { seed: RandomState::new().hash_one("seed") }
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { state: self.seed }
    }
}

impl IdHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(MULTIPLIER);
        // Fold both halves: each bit of a product depends only on the lower bits of its factors.
        self.state = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.state ^= bytes.len() as u64;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if rest.is_empty() {
            return;
        }
        // The last eight bytes, overlapping the previous word; shorter input is padded with zeros.
        let last = bytes.last_chunk().copied().unwrap_or_else(|| {
            let mut filled = [0; 8];
            filled[..rest.len()].copy_from_slice(rest);
            filled
        });
        self.mix(u64::from_le_bytes(last));
    }

    /// Ignores std's length prefix of a slice: `write` hashes the length itself.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn similar_ids_have_different_hashes() {
        let hash = IdHash::new();
        let numbered = (0..100_000).map(|index| format!("location{index:012}"));
        let short =
            (0..20).flat_map(|length| ["t".repeat(length), format!("{}u", "t".repeat(length))]);
        let ids: HashSet<String> = numbered.chain(short).collect();
        let hashes: HashSet<u64> = ids.iter().map(|id| hash.hash_one(id.as_bytes())).collect();
        assert_eq!(hashes.len(), ids.len());
    }

    #[test]
    fn hash_uses_all_bits() {
        for _ in 0..100 {
            let hash = IdHash::new();
            let hashes: Vec<u64> = (0..4096)
                .map(|index| hash.hash_one(format!("location{index:012}").as_bytes()))
                .collect();
            for bit in 0..64 {
                let set = hashes.iter().filter(|hash| *hash >> bit & 1 == 1).count();
                // Ten standard deviations to each side.
                assert!((1728..=2368).contains(&set), "bit {bit}: {set} of 4096");
            }
        }
    }

    #[test]
    fn each_instance_has_its_own_seed() {
        assert_ne!(
            IdHash::new().hash_one(b"id".as_slice()),
            IdHash::new().hash_one(b"id".as_slice())
        );
    }
}
