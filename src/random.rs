//! Random bytes and numbers from the operating system.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::{Error, Result, Status};

/// 256 random bits in URL-safe base64.
pub fn token() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(bytes::<32>()?))
}

/// `LENGTH` random bytes.
pub fn bytes<const LENGTH: usize>() -> Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).map_err(|_| no_random_bytes())?;
    Ok(bytes)
}

/// A random HMAC-SHA-256 key.
pub fn key() -> Result<hmac::Key> {
    hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| no_random_bytes())
}

fn no_random_bytes() -> Error {
    Error::new(Status::Internal, "the operating system returned no random bytes")
}

/// A random number from 0 to `most`; `most` if the system returns no random bytes.
pub fn up_to(most: u64) -> u64 {
    #[cfg(test)]
    if let Some(random) = seeded::next() {
        return random % most.saturating_add(1).max(1);
    }
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        // Used for retry delays: the modulo bias is below 2⁻³².
        Ok(()) => u64::from_ne_bytes(bytes) % most.saturating_add(1).max(1),
        Err(_) => most,
    }
}

#[cfg(all(test, not(ghl_loom)))]
pub use seeded::set as seed;

/// Reproducible random numbers for a test, per thread.
#[cfg(test)]
mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    #[cfg(not(ghl_loom))]
    pub fn set(seed: Option<u64>) {
        STATE.set(seed);
    }

    /// Knuth's linear congruential generator (MMIX). Only the upper bits are used, as the lower
    /// ones have short periods.
    pub fn next() -> Option<u64> {
        let state = STATE
            .get()?
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        STATE.set(Some(state));
        Some(state >> 33)
    }
}
