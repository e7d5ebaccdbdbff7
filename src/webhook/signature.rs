//! Whether a delivery is the vendor's: its signature over the raw bytes of the body. Closed unless everything fits.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::config::Webhook;
use crate::error::{Error, Result, Status};

/// Ed25519 over the body; where it is there, it alone counts.
const HEADER: &str = "x-ghl-signature";

/// RSA PKCS#1 v1.5 with SHA-256 over the body, from before Ed25519.
const LEGACY_HEADER: &str = "x-wh-signature";

/// What the vendor sends in a header's place when there is no signature.
const ABSENT: &str = "N/A";

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const ED25519_INFO: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The AlgorithmIdentifier's content for an RSA key: rsaEncryption, NULL (RFC 3279).
const RSA_ALGORITHM: [u8; 13] =
    [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// Reads base64 with padding or without; what is left in the last character must be zero, so that one signature has
/// one spelling.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The keys that a delivery may be signed with.
pub struct Verifier {
    ed25519: Vec<UnparsedPublicKey<[u8; 32]>>,
    rsa: Vec<UnparsedPublicKey<Vec<u8>>>,
}

/// How a delivery was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// `ed25519` or `rsa-sha256`.
    pub scheme: &'static str,
    /// The place of the key that fits among the configured ones of its scheme.
    pub key_index: usize,
}

/// The headers of a delivery, as the host's framework gives them.
pub struct Headers(Vec<(String, Value)>);

impl Verifier {
    /// Reads the configured keys.
    ///
    /// # Errors
    /// `CONFIG`, naming the key that cannot be used.
    pub fn new(config: &Webhook) -> Result<Verifier> {
        let ed25519 = read_all("webhook.ed25519PublicKeys", &config.ed25519_public_keys, |bytes| {
            Ok(UnparsedPublicKey::new(&ED25519, ed25519_key(bytes)?))
        })?;
        let rsa = read_all("webhook.rsaPublicKeys", &config.rsa_public_keys, |bytes| {
            Ok(UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, rsa_key(bytes)?.to_vec()))
        })?;
        Ok(Verifier { ed25519, rsa })
    }

    /// Checks a delivery.
    ///
    /// # Errors
    /// `SIGNATURE_INVALID` unless a configured key made the one signature that counts; `INVALID_ARGUMENT` for a
    /// signature header that is no text.
    pub fn verify(&self, body: &[u8], headers: &Headers) -> Result<Signed> {
        if let Some(signature) = headers.signature(HEADER)? {
            if self.ed25519.is_empty() {
                return Err(no_key(HEADER, "webhook.ed25519PublicKeys"));
            }
            let signature = decode(HEADER, signature)?;
            let fits = |key: &UnparsedPublicKey<_>| key.verify(body, &signature).is_ok();
            return match self.ed25519.iter().position(fits) {
                Some(key_index) => Ok(Signed { scheme: "ed25519", key_index }),
                None => Err(unfitting(HEADER)),
            };
        }
        if let Some(signature) = headers.signature(LEGACY_HEADER)? {
            if self.rsa.is_empty() {
                return Err(no_key(LEGACY_HEADER, "webhook.rsaPublicKeys"));
            }
            let signature = decode(LEGACY_HEADER, signature)?;
            let fits = |key: &UnparsedPublicKey<_>| key.verify(body, &signature).is_ok();
            return match self.rsa.iter().position(fits) {
                Some(key_index) => Ok(Signed { scheme: "rsa-sha256", key_index }),
                None => Err(unfitting(LEGACY_HEADER)),
            };
        }
        Err(refused("the delivery is not signed")
            .with_help("pass the request's own headers; without a signature it is not the vendor's"))
    }
}

impl Headers {
    /// The one value of a signature header, if there is one.
    fn signature(&self, name: &str) -> Result<Option<&str>> {
        let wrong = || {
            Error::invalid_argument(name, format!("the header {name} in headers_json has the wrong type"))
                .with_help("a header's value is a text, or a list of texts")
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
            // Which of them another program on the way looked at, nobody knows.
            _ => Err(refused(&format!("the header {name} comes more than once"))),
        }
    }
}

/// Keeps what a map would not: a name that comes twice.
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
    refused(&format!("the delivery is signed in {header}, and no key for that is configured"))
        .with_help(format!("add the vendor's key to {setting}"))
}

fn unfitting(header: &str) -> Error {
    refused(&format!("no configured key made the signature in {header} over this body")).with_help(
        "pass the body byte for byte as it came; if the vendor has changed its key, add the new one",
    )
}

fn decode(header: &str, signature: &str) -> Result<Vec<u8>> {
    from_base64(signature).ok_or_else(|| refused(&format!("the signature in {header} is not base64")))
}

/// Either alphabet, with padding or without.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.replace('-', "+").replace('_', "/")).ok()
}

/// Reads a list of keys; the first that cannot be used is named by its place.
fn read_all<K>(
    setting: &str,
    keys: &[String],
    read: impl Fn(&[u8]) -> Result<K, &'static str>,
) -> Result<Vec<K>> {
    let one = |(index, key): (usize, &String)| {
        bytes_of(key).and_then(|bytes| read(&bytes)).map_err(|why| {
            let place = format!("{setting}[{index}]");
            Error::new(Status::Config, format!("{place} cannot be used: {why}"))
                .with_help("a public key is given as PEM, or in hex or base64")
                .with_parameter(place)
        })
    };
    keys.iter().enumerate().map(one).collect()
}

/// The bytes of a key that is given as PEM, in hex or in base64.
fn bytes_of(key: &str) -> Result<Vec<u8>, &'static str> {
    let mut text = key.trim();
    if let Some(rest) = text.strip_prefix("-----BEGIN ") {
        let (label, rest) = rest.split_once("-----").ok_or("its PEM is cut off")?;
        if !matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY") {
            return Err("its PEM is not that of a public key");
        }
        let (inside, end) = rest.split_once("-----").ok_or("its PEM is cut off")?;
        if end.strip_prefix("END ").and_then(|end| end.strip_suffix("-----")) != Some(label) {
            return Err("its PEM does not end as it begins");
        }
        text = inside;
    }
    let packed: String = text.split_whitespace().collect();
    let in_hex = packed.len().is_multiple_of(2) && packed.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bytes = if in_hex {
        let pair = |index| u8::from_str_radix(packed.get(index..index + 2)?, 16).ok();
        (0..packed.len()).step_by(2).map(pair).collect()
    } else {
        from_base64(&packed)
    };
    bytes.filter(|bytes| !bytes.is_empty()).ok_or("it is neither PEM nor hex nor base64")
}

/// An Ed25519 key: its 32 bytes, or its SubjectPublicKeyInfo.
fn ed25519_key(bytes: &[u8]) -> Result<[u8; 32], &'static str> {
    bytes.strip_prefix(&ED25519_INFO).unwrap_or(bytes).try_into().map_err(|_| "it is no Ed25519 key")
}

/// An RSA key as RSAPublicKey (PKCS#1); it may stand in a SubjectPublicKeyInfo.
fn rsa_key(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let pkcs1 = rsa_of_info(bytes).unwrap_or(bytes);
    let (modulus, exponent) = rsa_numbers(pkcs1).ok_or("it is no RSA key")?;
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    if !(2048..=8192).contains(&bits) {
        return Err("its modulus is not of 2,048 to 8,192 bits");
    }
    if !is_odd(modulus) || !is_odd(exponent) || exponent == [1] || exponent.len() > 4 {
        return Err("it is no RSA key");
    }
    Ok(pkcs1)
}

/// The RSAPublicKey in a SubjectPublicKeyInfo.
fn rsa_of_info(info: &[u8]) -> Option<&[u8]> {
    let (content, []) = der(0x30, info)? else { return None };
    let (algorithm, rest) = der(0x30, content)?;
    let (key, []) = der(0x03, rest)? else { return None };
    key.strip_prefix(&[0]).filter(|_| algorithm == RSA_ALGORITHM)
}

/// Modulus and exponent of an RSAPublicKey, without leading zeros.
fn rsa_numbers(pkcs1: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, []) = der(0x30, pkcs1)? else { return None };
    let (modulus, rest) = der(0x02, content)?;
    let (exponent, []) = der(0x02, rest)? else { return None };
    Some((positive(modulus)?, positive(exponent)?))
}

/// A DER integer above zero, in as few bytes as it needs: a zero stands before a first byte that would make it negative,
/// and nowhere else.
fn positive(number: &[u8]) -> Option<&[u8]> {
    match number {
        [0, 0x80..=0xff, ..] => number.get(1..),
        [1..=0x7f, ..] => Some(number),
        _ => None,
    }
}

/// One DER value with that tag: its content, and what comes after it.
fn der(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = input.strip_prefix(&[tag])?.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn an_ed25519_key_may_be_written_in_any_way() {
        let pair = pair();
        let raw = pair.public_key().as_ref();
        let info = [&ED25519_INFO[..], raw].concat();
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
            let verifier =
                verifier(&[hex(&[7; 32]), key.clone()]).unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_eq!(
                verifier.verify(b"body", &headers).unwrap(),
                Signed { scheme: "ed25519", key_index: 1 },
                "{key}"
            );
            assert_eq!(verifier.verify(b"bodx", &headers).unwrap_err().status(), Status::SignatureInvalid);
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_is_refused_by_its_place() {
        let raw = [7; 32];
        let info = [&ED25519_INFO[..], &raw].concat();
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
            let Err(error) = verifier(&[hex(&raw), key.clone()]) else { panic!("{key} was accepted") };
            assert_eq!(error.status(), Status::Config);
            assert_eq!(error.parameter(), Some("webhook.ed25519PublicKeys[1]"), "{key}: {error}");
        }
    }

    #[test]
    fn an_rsa_key_is_one_in_every_part() {
        let number = |length: usize, last: u8| {
            let mut number = vec![0, 0x80];
            number.resize(length, 1);
            number.push(last);
            [&[0x02, 0x82][..], &u16::try_from(number.len()).unwrap().to_be_bytes(), &number].concat()
        };
        let sequence = |content: &[u8]| {
            [&[0x30, 0x82][..], &u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
        };
        let exponent = [0x02, 0x03, 1, 0, 1];
        let key = |length, last, exponent: &[u8]| sequence(&[&number(length, last)[..], exponent].concat());
        let good = key(256, 1, &exponent);
        assert_eq!(rsa_key(&good), Ok(&good[..]));
        let algorithm = [&[0x30, 13][..], &RSA_ALGORITHM].concat();
        let bits =
            [&[0x03, 0x82][..], &u16::try_from(good.len() + 1).unwrap().to_be_bytes(), &[0], &good].concat();
        let info = sequence(&[&algorithm[..], &bits].concat());
        assert_eq!(rsa_key(&info), Ok(&good[..]));
        for (why, bad) in [
            ("too short", key(128, 1, &exponent)),
            ("too long", key(2048, 1, &exponent)),
            ("even", key(256, 2, &exponent)),
            ("an even exponent", key(256, 1, &[0x02, 0x01, 2])),
            ("no exponent", key(256, 1, &[])),
            ("an exponent of one", key(256, 1, &[0x02, 0x01, 1])),
            ("more behind it", [&good[..], &[0]].concat()),
            ("cut off", good[..good.len() - 1].to_vec()),
            ("another algorithm", {
                let mut other = info.clone();
                other[16] ^= 1;
                other
            }),
            ("an Ed25519 key", [&ED25519_INFO[..], &[7; 32]].concat()),
            ("nothing", Vec::new()),
        ] {
            assert!(rsa_key(&bad).is_err(), "{why}");
        }
    }

    #[test]
    fn a_signature_has_one_spelling_of_its_bits_and_any_of_its_padding() {
        assert_eq!(from_base64("-_8="), Some(vec![0xfb, 0xff]));
        assert_eq!(from_base64("+/8"), Some(vec![0xfb, 0xff]));
        for malformed in ["+/9", "+/8==", "a b", "é"] {
            assert_eq!(from_base64(malformed), None, "{malformed}");
        }
    }
}
