//! Webhook signature verification: Ed25519, or the older RSA PKCS#1 v1.5, over the raw bytes of the
//! body.

use std::fmt;

use ring::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::public_key::{decode_base64, ed25519_key, read_all, rsa_key};
use crate::config::Webhook;
use crate::error::{Error, Result, Status};

/// Ed25519 over the body. If present, the older header is ignored.
const HEADER: &str = "x-ghl-signature";

/// The older signature: RSA PKCS#1 v1.5 with SHA-256 over the body.
const LEGACY_HEADER: &str = "x-wh-signature";

/// The value that the vendor sends if there is no signature.
const ABSENT: &str = "N/A";

/// The public keys that may have signed a delivery.
pub struct Verifier {
    ed25519: Vec<UnparsedPublicKey<[u8; 32]>>,
    rsa: Vec<UnparsedPublicKey<Vec<u8>>>,
}

/// How a delivery was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// `ed25519` or `rsa-sha256`.
    pub scheme: &'static str,
    /// The index of the matching key among the configured keys of its scheme.
    pub key_index: usize,
}

/// The headers of a delivery, as passed by the host.
pub struct Headers(Vec<(String, Value)>);

impl Verifier {
    /// Parses the configured keys.
    pub fn new(config: &Webhook) -> Result<Verifier> {
        let ed25519 =
            read_all("webhook.ed25519PublicKeys", &config.ed25519_public_keys, |bytes| {
                Ok(UnparsedPublicKey::new(&ED25519, ed25519_key(bytes)?))
            })?;
        let rsa = read_all("webhook.rsaPublicKeys", &config.rsa_public_keys, |bytes| {
            Ok(UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, rsa_key(bytes)?.to_vec()))
        })?;
        Ok(Verifier { ed25519, rsa })
    }

    pub fn verify(&self, body: &[u8], headers: &Headers) -> Result<Signed> {
        if let Some(signature) = headers.signature(HEADER)? {
            if self.ed25519.is_empty() {
                return Err(no_key(HEADER, "webhook.ed25519PublicKeys"));
            }
            let signature = decode(HEADER, signature)?;
            let verifies = |key: &UnparsedPublicKey<_>| key.verify(body, &signature).is_ok();
            return match self.ed25519.iter().position(verifies) {
                Some(key_index) => Ok(Signed { scheme: "ed25519", key_index }),
                None => Err(no_match(HEADER)),
            };
        }
        if let Some(signature) = headers.signature(LEGACY_HEADER)? {
            if self.rsa.is_empty() {
                return Err(no_key(LEGACY_HEADER, "webhook.rsaPublicKeys"));
            }
            let signature = decode(LEGACY_HEADER, signature)?;
            let verifies = |key: &UnparsedPublicKey<_>| key.verify(body, &signature).is_ok();
            return match self.rsa.iter().position(verifies) {
                Some(key_index) => Ok(Signed { scheme: "rsa-sha256", key_index }),
                None => Err(no_match(LEGACY_HEADER)),
            };
        }
        Err(refused("the delivery is not signed")
            .with_help("pass the headers of the request; without a signature, reject it"))
    }
}

impl Headers {
    /// The value of a signature header, if present.
    fn signature(&self, name: &str) -> Result<Option<&str>> {
        let wrong = || {
            Error::invalid_argument(
                name,
                format!("the header {name} in headers_json has the wrong type"),
            )
            .with_help("pass each header value as a string or a list of strings")
        };
        let mut values = Vec::new();
        for (_, value) in self.0.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)) {
            match value {
                Value::String(text) => values.push(text.trim()),
                Value::Null => {}
                Value::Array(texts) => {
                    for text in texts {
                        values.push(text.as_str().ok_or_else(wrong)?.trim());
                    }
                }
                _ => return Err(wrong()),
            }
        }
        match values[..] {
            [] | ["" | ABSENT] => Ok(None),
            [value] => Ok(Some(value)),
            // Ambiguous: a proxy may have checked a different value.
            _ => Err(refused(&format!("the header {name} is present more than once"))),
        }
    }
}

/// Keeps repeated names, unlike a map.
impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Headers, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Headers;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of header names to values")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Headers, M::Error> {
                let mut headers = Vec::with_capacity(map.size_hint().unwrap_or(16));
                while let Some(header) = map.next_entry()? {
                    headers.push(header);
                }
                Ok(Headers(headers))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

fn refused(why: &str) -> Error {
    Error::new(Status::SignatureInvalid, why)
}

fn no_key(header: &str, setting: &str) -> Error {
    refused(&format!("the delivery is signed in {header}, but no key for it is configured"))
        .with_help(format!("add the vendor's key to {setting}"))
}

fn no_match(header: &str) -> Error {
    refused(&format!("the signature in {header} matches no configured key")).with_help(
        "pass the unmodified bytes of the body; if the vendor has changed its key, add the new one",
    )
}

fn decode(header: &str, signature: &str) -> Result<Vec<u8>> {
    decode_base64(signature)
        .ok_or_else(|| refused(&format!("the signature in {header} is not base64")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::public_key::ED25519_SPKI_PREFIX;
    use base64::Engine;
    use base64::engine::general_purpose;
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    fn pair() -> Ed25519KeyPair {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02X}")).collect()
    }

    fn verifier(ed25519: &[String]) -> Result<Verifier> {
        Verifier::new(&Webhook { ed25519_public_keys: ed25519.to_vec(), ..Webhook::default() })
    }

    fn pem(label: &str, bytes: &[u8]) -> String {
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            general_purpose::STANDARD.encode(bytes)
        )
    }

    #[test]
    fn ed25519_key_is_accepted_in_every_format() {
        let pair = pair();
        let raw = pair.public_key().as_ref();
        let info = [&ED25519_SPKI_PREFIX[..], raw].concat();
        let signature = general_purpose::STANDARD.encode(pair.sign(b"body"));
        let headers = Headers(vec![("X-GHL-Signature".into(), signature.into())]);
        for key in [
            pem("PUBLIC KEY", &info),
            pem("PUBLIC KEY", &info).replace('\n', "\r\n"),
            hex(raw),
            hex(raw).to_lowercase(),
            hex(&info),
            general_purpose::STANDARD.encode(raw),
            general_purpose::URL_SAFE_NO_PAD.encode(raw),
            format!("  {}\n", general_purpose::STANDARD.encode(&info)),
        ] {
            let verifier = verifier(&[hex(&[7; 32]), key.clone()])
                .unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_eq!(
                verifier.verify(b"body", &headers).unwrap(),
                Signed { scheme: "ed25519", key_index: 1 },
                "{key}"
            );
            assert_eq!(
                verifier.verify(b"bodx", &headers).unwrap_err().status(),
                Status::SignatureInvalid
            );
        }
    }

    #[test]
    fn error_for_an_invalid_key_names_its_index() {
        let raw = [7; 32];
        let info = [&ED25519_SPKI_PREFIX[..], &raw].concat();
        for key in [
            String::new(),
            "not a key".into(),
            hex(&raw[..31]),
            hex(&[&raw[..], &[0]].concat()),
            pem("PRIVATE KEY", &info),
            pem("RSA PUBLIC KEY", b"x"),
            pem("PUBLIC KEY", &info).replace("-----END PUBLIC", "-----END RSA PUBLIC"),
            pem("PUBLIC KEY", &info)[..60].to_owned(),
            "-----BEGIN PUBLIC KEY".into(),
            hex(&info[..43]),
        ] {
            let Err(error) = verifier(&[hex(&raw), key.clone()]) else {
                panic!("{key} was accepted")
            };
            assert_eq!(error.status(), Status::Config);
            assert_eq!(error.parameter(), Some("webhook.ed25519PublicKeys[1]"), "{key}: {error}");
        }
    }
}
