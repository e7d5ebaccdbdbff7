//! Pending consents, keyed by their `state` parameter (CSRF protection, RFC 6749, section 10.12). A
//! state is single use and valid for an hour.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::hmac;

use crate::error::{Error, Result, Status};
use crate::random;

/// How long a user may take to consent.
const LINK_LIFETIME: Duration = Duration::from_secs(3600);

/// The maximum number of pending consents. Beyond it the oldest is dropped.
const MAX_PENDING: usize = 10_000;

/// The HMAC of a state under a random key. An attacker can neither choose nor learn the digest, so
/// the duration of a lookup reveals nothing about valid states.
type Digest = [u8; 32];

/// The pending consents of one client.
pub struct Pending {
    key: hmac::Key,
    consents: Mutex<HashMap<Digest, Consent>>,
    uses: AtomicU64,
}

#[derive(Clone)]
struct Consent {
    began: Duration,
    link: LinkState,
}

#[derive(Clone)]
enum LinkState {
    /// The URL was built, with this redirect URI.
    Open(String),
    /// The state was used; each use has a unique number.
    Used(u64),
}

/// A used state that can be restored.
pub struct ConsumedState {
    digest: Digest,
    number: u64,
    /// The consent before the use; `None` if this client did not build the URL.
    before: Option<Consent>,
}

impl Pending {
    /// An empty map of consents, with a new random key.
    pub fn new() -> Result<Pending> {
        Ok(Pending { key: random::key()?, consents: Mutex::default(), uses: AtomicU64::new(0) })
    }

    pub fn begin(&self, state: &str, redirect_uri: String, now: Duration) {
        let consent = Consent { began: now, link: LinkState::Open(redirect_uri) };
        insert(&mut self.consents(), self.digest(state), consent);
    }

    /// Uses up a state, unless `check` fails. `check` gets the redirect URI of the consent, or
    /// `None` if this client did not build its URL.
    pub fn consume<T>(
        &self,
        state: &str,
        now: Duration,
        check: impl FnOnce(Option<&str>) -> Result<T>,
    ) -> Result<(T, ConsumedState)> {
        let digest = self.digest(state);
        // Lookup and update are one critical section, so that of two concurrent uses only one
        // succeeds.
        let mut consents = self.consents();
        let before = match consents.get(&digest) {
            None => None,
            Some(Consent { link: LinkState::Used(_), .. }) => {
                return Err(mismatch("its state was already used"));
            }
            Some(consent) if now.saturating_sub(consent.began) > LINK_LIFETIME => {
                return Err(mismatch("its state has expired"));
            }
            Some(consent) => Some(consent.clone()),
        };
        let checked = check(match before.as_ref().map(|consent| &consent.link) {
            Some(LinkState::Open(redirect_uri)) => Some(redirect_uri),
            _ => None,
        })?;
        let number = self.uses.fetch_add(1, Ordering::Relaxed);
        insert(&mut consents, digest, Consent { began: now, link: LinkState::Used(number) });
        Ok((checked, ConsumedState { digest, number, before }))
    }

    /// Restores a used state, because its exchange may still succeed. Does nothing if the state has
    /// been used or issued again since.
    pub fn restore(&self, used: ConsumedState) {
        let mut consents = self.consents();
        let is_that_use = |consent: &Consent| match consent.link {
            LinkState::Used(number) => number == used.number,
            _ => false,
        };
        if !consents.get(&used.digest).is_some_and(is_that_use) {
            return;
        }
        match used.before {
            Some(consent) => insert(&mut consents, used.digest, consent),
            None => drop(consents.remove(&used.digest)),
        }
    }

    fn digest(&self, state: &str) -> Digest {
        let mut digest = Digest::default();
        digest.copy_from_slice(hmac::sign(&self.key, state.as_bytes()).as_ref());
        digest
    }

    fn consents(&self) -> MutexGuard<'_, HashMap<Digest, Consent>> {
        self.consents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inserts a consent. A full map first evicts the expired consents, or the oldest one if none has
/// expired.
fn insert(consents: &mut HashMap<Digest, Consent>, digest: Digest, consent: Consent) {
    let full = |consents: &HashMap<Digest, Consent>| {
        consents.len() >= MAX_PENDING && !consents.contains_key(&digest)
    };
    if full(consents) {
        consents.retain(|_, old| consent.began.saturating_sub(old.began) <= LINK_LIFETIME);
    }
    if full(consents)
        && let Some(oldest) =
            consents.iter().min_by_key(|(_, consent)| consent.began).map(|(key, _)| *key)
    {
        consents.remove(&oldest);
    }
    consents.insert(digest, consent);
}

/// The error for a redirect that belongs to no consent of this client.
pub fn mismatch(why: &str) -> Error {
    Error::new(
        Status::StateMismatch,
        format!("the redirect does not belong to a consent of this client: {why}"),
    )
    .with_help(
        "start again with a new link; if no user started a consent, this may be a CSRF attack",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "https://app.example/callback";

    fn link(redirect_uri: Option<&str>) -> Result<String> {
        redirect_uri.map(str::to_owned).ok_or_else(|| mismatch("its state is unknown"))
    }

    #[test]
    fn refused_redirect_does_not_consume_the_state() {
        let pending = Pending::new().unwrap();
        pending.begin("state", URI.to_owned(), Duration::ZERO);
        let refuse = |_: Option<&str>| Err::<(), _>(mismatch("something else is wrong"));
        assert!(pending.consume("state", Duration::ZERO, refuse).is_err());
        assert_eq!(pending.consume("state", Duration::ZERO, link).unwrap().0, URI);
        assert!(pending.consume("state", Duration::ZERO, link).is_err());
        // A state of another process is single use as well.
        assert!(pending.consume("foreign", Duration::ZERO, link).is_err());
        assert!(pending.consume("foreign", Duration::ZERO, |_| Ok(())).is_ok());
        assert!(pending.consume("foreign", Duration::ZERO, |_| Ok(())).is_err());
    }

    #[test]
    fn restored_state_keeps_its_original_expiry() {
        let pending = Pending::new().unwrap();
        pending.begin("state", URI.to_owned(), Duration::ZERO);
        for _ in 0..2 {
            let (redirect_uri, used) = pending.consume("state", LINK_LIFETIME, link).unwrap();
            assert_eq!(redirect_uri, URI);
            pending.restore(used);
            let (_, used) = pending.consume("foreign", LINK_LIFETIME, |_| Ok(())).unwrap();
            pending.restore(used);
        }
        assert!(
            pending.consume("foreign", LINK_LIFETIME, link).is_err(),
            "still no URL of this client"
        );
        // A new URL with the same state, chosen by the host: only its own use can restore it.
        let (_, first) = pending.consume("state", LINK_LIFETIME, link).unwrap();
        pending.begin("state", URI.to_owned(), LINK_LIFETIME);
        let (_, second) = pending.consume("state", LINK_LIFETIME, link).unwrap();
        pending.restore(first);
        assert!(pending.consume("state", LINK_LIFETIME, link).is_err());
        pending.restore(second);
        assert!(pending.consume("state", LINK_LIFETIME, link).is_ok());

        pending.begin("old", URI.to_owned(), Duration::ZERO);
        let (_, used) = pending.consume("old", LINK_LIFETIME, link).unwrap();
        pending.restore(used);
        let too_late = LINK_LIFETIME + Duration::from_millis(1);
        assert!(pending.consume("old", too_late, link).is_err(), "its hour does not start again");
    }

    #[test]
    fn oldest_state_is_dropped_at_the_limit() {
        let pending = Pending::new().unwrap();
        for number in 0..=MAX_PENDING {
            pending.begin(
                &number.to_string(),
                URI.to_owned(),
                Duration::from_millis(number as u64),
            );
        }
        assert_eq!(pending.consents().len(), MAX_PENDING);
        let now = Duration::from_secs(60);
        assert!(pending.consume("0", now, link).is_err());
        for number in [1, MAX_PENDING] {
            assert!(pending.consume(&number.to_string(), now, link).is_ok(), "{number}");
        }
    }
}
