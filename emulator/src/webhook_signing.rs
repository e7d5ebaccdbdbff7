//! Webhook signatures: Ed25519 and RSA PKCS#1 v1.5, and the keys of both.

use crate::random::Seeded;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use std::sync::LazyLock;

/// An RSA key for tests only: its private half is public in this repository. ring signs with RSA,
/// but cannot generate RSA keys.
const TEST_ONLY_RSA_KEY: &[u8] = include_bytes!("../keys/test-only-rsa-4096.pk8");

/// The SubjectPublicKeyInfo prefixes of an Ed25519 key and of a 4096-bit PKCS#1 key.
const ED25519_INFO: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const RSA_4096_INFO: [u8; 24] = [
    0x30, 0x82, 0x02, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01,
    0x01, 0x05, 0x00, 0x03, 0x82, 0x02, 0x0f, 0x00,
];

/// How a webhook is signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signature {
    /// `x-ghl-signature` (Ed25519) and `x-wh-signature` (RSA), as until September 2026.
    Both,
    /// `x-ghl-signature` only, the current default.
    #[default]
    Ed25519,
    /// `x-wh-signature`, and `N/A` in `x-ghl-signature`.
    Legacy,
    /// `N/A` in both headers.
    NotAvailable,
    /// Both headers, with the signatures of another body.
    Wrong,
}

/// The public keys of the webhook signatures, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookPublicKeys {
    /// For `x-ghl-signature`. Derived from the seed.
    pub ed25519: String,
    /// For `x-wh-signature`. Its private half is public in the emulator's repository.
    pub rsa: String,
}

/// The private keys.
pub(crate) struct Keys {
    ed25519: Ed25519KeyPair,
}

/// Parsed once: parsing takes longer than the rest of the start.
static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| {
    RsaKeyPair::from_pkcs8(TEST_ONLY_RSA_KEY).expect("the key in this repository is valid")
});

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Keys")
    }
}

impl Keys {
    pub(crate) fn new(seed: u64) -> Self {
        // A random sequence of its own, so that IDs do not change.
        let mut seeded = Seeded::new(seed ^ 0x0077_6562_686f_6f6b);
        let secret: Vec<u8> = (0..4).flat_map(|_| seeded.next_u64().to_le_bytes()).collect();
        Self {
            ed25519: Ed25519KeyPair::from_seed_unchecked(&secret)
                .expect("32 bytes are an Ed25519 key"),
        }
    }

    pub(crate) fn public(&self) -> WebhookPublicKeys {
        WebhookPublicKeys {
            ed25519: pem(&ED25519_INFO, self.ed25519.public_key().as_ref()),
            rsa: pem(&RSA_4096_INFO, RSA.public().as_ref()),
        }
    }

    /// The signature headers for a body.
    pub(crate) fn sign(&self, body: &[u8], signature: Signature) -> Vec<(String, String)> {
        let ed25519 = |body: &[u8]| STANDARD.encode(self.ed25519.sign(body));
        let rsa = |body: &[u8]| {
            let mut signature = vec![0; RSA.public().modulus_len()];
            RSA.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), body, &mut signature)
                .expect("the buffer has the modulus's length");
            STANDARD.encode(signature)
        };
        let absent = || "N/A".to_owned();
        let (newer, older) = match signature {
            Signature::Both => (ed25519(body), Some(rsa(body))),
            Signature::Ed25519 => (ed25519(body), None),
            Signature::Legacy => (absent(), Some(rsa(body))),
            Signature::NotAvailable => (absent(), Some(absent())),
            Signature::Wrong => (ed25519(b"another body"), Some(rsa(b"another body"))),
        };
        let older = older.map(|older| ("x-wh-signature".to_owned(), older));
        [("x-ghl-signature".to_owned(), newer)].into_iter().chain(older).collect()
    }
}

fn pem(info: &[u8], key: &[u8]) -> String {
    let text = STANDARD.encode([info, key].concat());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    fn of_pem(pem: &str) -> Vec<u8> {
        let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(lines).unwrap()
    }

    #[test]
    fn signatures_verify_with_the_published_keys() {
        let keys = Keys::new(1);
        let public = keys.public();
        let (ed25519, rsa) = (of_pem(&public.ed25519), of_pem(&public.rsa));
        assert_eq!((ed25519.len(), rsa.len()), (44, 550), "as long as the vendor's");
        let holds = |signature: Signature, body: &[u8]| -> Vec<bool> {
            let check = |(name, value): &(String, String)| {
                let Ok(value) = STANDARD.decode(value) else { return false };
                if name == "x-ghl-signature" {
                    assert_eq!(value.len(), 64);
                    UnparsedPublicKey::new(&ED25519, &ed25519[12..]).verify(body, &value).is_ok()
                } else {
                    assert_eq!(value.len(), 512);
                    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &rsa[24..]);
                    key.verify(body, &value).is_ok()
                }
            };
            keys.sign(b"body", signature).iter().map(check).collect()
        };
        assert_eq!(holds(Signature::Both, b"body"), [true, true]);
        assert_eq!(holds(Signature::Both, b"bodx"), [false, false]);
        assert_eq!(holds(Signature::Ed25519, b"body"), [true]);
        assert_eq!(holds(Signature::Legacy, b"body"), [false, true]);
        assert_eq!(holds(Signature::NotAvailable, b"body"), [false, false]);
        assert_eq!(holds(Signature::Wrong, b"body"), [false, false]);
        assert_eq!(Keys::new(1).public(), public, "a configuration stays good across restarts");
        assert_ne!(Keys::new(2).public().ed25519, public.ed25519);
    }
}
