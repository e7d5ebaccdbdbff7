//! Random values: a seeded generator, so that IDs are the same in every run, and the system's, so
//! that tokens are unique.

use ring::rand::{SecureRandom, SystemRandom};

/// A reproducible pseudo-random sequence (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Seeded {
    state: u64,
}

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in the range [0, 1).
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `length` random characters of `alphabet`.
    pub(crate) fn text(&mut self, alphabet: &str, length: usize) -> String {
        let alphabet = alphabet.as_bytes();
        (0..length)
            .map(|_| {
                let index = self.next_u64() % alphabet.len() as u64;
                char::from(alphabet[usize::try_from(index).unwrap_or(0)])
            })
            .collect()
    }

    /// An ID of a company, location or user: 20 alphanumerics.
    pub(crate) fn resource_id(&mut self) -> String {
        const ALPHANUMERIC: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        self.text(ALPHANUMERIC, 20)
    }

    /// An ID of an app, version or plan: 24 hexadecimal digits.
    pub(crate) fn object_id(&mut self) -> String {
        self.text(HEX, 24)
    }
}

pub(crate) const HEX: &str = "0123456789abcdef";

/// Cryptographically secure random bytes.
pub(crate) fn unpredictable<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system's randomness is available");
    bytes
}

/// The same in hexadecimal.
pub(crate) fn unpredictable_hex<const N: usize>() -> String {
    use std::fmt::Write;

    let mut text = String::with_capacity(2 * N);
    for byte in unpredictable::<N>() {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_the_same_ids() {
        let ids = |seed| {
            let mut seeded = Seeded::new(seed);
            (seeded.resource_id(), seeded.object_id())
        };
        assert_eq!(ids(7), ids(7));
        assert_ne!(ids(7), ids(8));
        assert_eq!(ids(7).0.len(), 20);
        assert!(ids(7).1.bytes().all(|byte| HEX.as_bytes().contains(&byte)));
    }

    #[test]
    fn fractions_stay_below_one() {
        let mut seeded = Seeded::new(0);
        for _ in 0..1_000 {
            assert!((0.0..1.0).contains(&seeded.fraction()));
        }
    }
}
