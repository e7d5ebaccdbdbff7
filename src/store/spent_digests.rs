//! Digests of used refresh tokens and of deleted tokens: enough to recognize a token, not enough to
//! use it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::secret::Secret;

/// The length of an encoded digest: 48 bits in base64.
const LENGTH: usize = 8;

/// The digest of a token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpentDigest(String);

impl SpentDigest {
    /// 48 bits of the token's FNV-1a hash. A cryptographic hash would cost a tenth of a refresh and
    /// protect no better: 48 bits reveal nothing useful about hundreds of random bytes.
    pub fn of(token: &Secret) -> SpentDigest {
        let step =
            |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = token.expose().bytes().fold(0xcbf2_9ce4_8422_2325, step);
        SpentDigest(URL_SAFE_NO_PAD.encode(&(hash ^ (hash << 16)).to_be_bytes()[..6]))
    }
}

/// A list of digests, the newest at the end: a single shared string, because records are copied
/// often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpentDigests(Arc<str>);

impl Serialize for SpentDigests {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SpentDigests {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<SpentDigests, D::Error> {
        String::deserialize(from).map(|text| SpentDigests(text.into()))
    }
}

impl SpentDigests {
    pub fn len(&self) -> usize {
        self.0.len() / LENGTH
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, digest: &SpentDigest) -> bool {
        self.each().any(|one| one == digest.0.as_bytes())
    }

    pub fn add(&mut self, digest: &SpentDigest) {
        self.0 = [&self.0, digest.0.as_str()].concat().into();
    }

    pub fn last(&self) -> Option<SpentDigest> {
        let start = self.0.len().checked_sub(LENGTH)?;
        self.0.get(start..).map(|last| SpentDigest(last.to_owned()))
    }

    /// The oldest `number` digests.
    pub fn oldest(&self, number: usize) -> SpentDigests {
        SpentDigests(self.0.get(..number * LENGTH).unwrap_or(&self.0).into())
    }

    /// Removes the oldest `number` digests.
    pub fn forget_oldest(&mut self, number: usize) {
        self.0 = self.0.get(number * LENGTH..).unwrap_or_default().into();
    }

    /// This list followed by `newer`, without duplicates.
    pub fn merged(&self, newer: &SpentDigests) -> SpentDigests {
        let mut merged = String::with_capacity(self.0.len() + newer.0.len());
        for one in self.each().filter(|one| !newer.each().any(|other| other == *one)) {
            merged.push_str(std::str::from_utf8(one).unwrap_or_default());
        }
        merged.push_str(&newer.0);
        SpentDigests(merged.into())
    }

    fn each(&self) -> impl Iterator<Item = &[u8]> {
        self.0.as_bytes().chunks_exact(LENGTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(token: &str) -> SpentDigest {
        SpentDigest::of(&Secret::new(token.into()))
    }

    fn all_of(tokens: &[&str]) -> SpentDigests {
        let mut digests = SpentDigests::default();
        tokens.iter().for_each(|token| digests.add(&of(token)));
        digests
    }

    #[test]
    fn digests_are_found_merged_and_dropped_oldest_first() {
        let mut digests = all_of(&["a", "b", "c"]);
        assert!(digests.contains(&of("b")) && !digests.contains(&of("d")));
        assert_eq!((digests.len(), digests.last()), (3, Some(of("c"))));
        assert_eq!(digests.oldest(2), all_of(&["a", "b"]));
        assert_eq!(digests.merged(&all_of(&["b", "d"])), all_of(&["a", "c", "b", "d"]));
        digests.forget_oldest(2);
        assert_eq!(digests, all_of(&["c"]));
        digests.forget_oldest(5);
        assert!(digests.is_empty() && digests.last().is_none());
    }

    #[test]
    fn damaged_text_is_ignored_without_a_panic() {
        for text in ["x", "ünïcödé", "abcdefgü", "üüüüüüüüü"] {
            let mut digests = SpentDigests(text.into());
            let _ = (
                digests.contains(&of("a")),
                digests.last(),
                digests.oldest(1),
                digests.merged(&all_of(&["a"])),
            );
            digests.forget_oldest(1);
        }
    }
}
