//! Public key formats: PEM, hex or base64 of the raw key, SubjectPublicKeyInfo, or PKCS#1.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::der::element;
use crate::error::{Error, Result, Status};

/// The DER prefix of an Ed25519 SubjectPublicKeyInfo (RFC 8410), before the 32 bytes of the key.
pub(super) const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The content of the AlgorithmIdentifier of an RSA key: rsaEncryption, NULL (RFC 3279).
const RSA_ALGORITHM: [u8; 13] =
    [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// The y coordinates of the points of Ed25519 whose order is at most 8, in all their encodings of
/// 255 bits. The last three are 0 and 1 beyond the field's prime, and -1.
const SMALL_ORDER: [[u8; 32]; 7] = [
    bytes_of(0, 0x00, 0x00),
    bytes_of(1, 0x00, 0x00),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    bytes_of(0xed, 0xff, 0x7f),
    bytes_of(0xee, 0xff, 0x7f),
    bytes_of(0xec, 0xff, 0x7f),
];

/// 32 bytes: the first one, the ones in between, the last one.
const fn bytes_of(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// Base64 with optional padding. Unused bits of the last character must be zero, so that a
/// signature has only one encoding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Parses a list of keys. The error names the index of the first invalid key.
pub fn read_all<K>(
    setting: &str,
    keys: &[String],
    read: impl Fn(&[u8]) -> Result<K, &'static str>,
) -> Result<Vec<K>> {
    let one = |(index, key): (usize, &String)| {
        decode_key(key).and_then(|bytes| read(&bytes)).map_err(|why| {
            let place = format!("{setting}[{index}]");
            Error::new(Status::Config, format!("{place} cannot be used: {why}"))
                .with_help("give the public key as PEM, hex or base64")
                .with_parameter(place)
        })
    };
    keys.iter().enumerate().map(one).collect()
}

/// Decodes a key from PEM, hex or base64.
fn decode_key(key: &str) -> Result<Vec<u8>, &'static str> {
    let mut text = key.trim();
    if let Some(rest) = text.strip_prefix("-----BEGIN ") {
        let (label, rest) = rest.split_once("-----").ok_or("its PEM is truncated")?;
        if !matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY") {
            return Err("its PEM is not a public key");
        }
        let (inside, end) = rest.split_once("-----").ok_or("its PEM is truncated")?;
        if end.strip_prefix("END ").and_then(|end| end.strip_suffix("-----")) != Some(label) {
            return Err("the END line of its PEM does not match the BEGIN line");
        }
        text = inside;
    }
    let packed: String = text.split_whitespace().collect();
    let in_hex =
        packed.len().is_multiple_of(2) && packed.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bytes = if in_hex {
        let pair = |index| u8::from_str_radix(packed.get(index..index + 2)?, 16).ok();
        (0..packed.len()).step_by(2).map(pair).collect()
    } else {
        decode_base64(&packed)
    };
    bytes.filter(|bytes| !bytes.is_empty()).ok_or("it is not PEM, hex or base64")
}

/// Parses an Ed25519 key: 32 bytes, or a SubjectPublicKeyInfo. Refuses a key of small order: it
/// accepts signatures that anyone can make.
pub fn ed25519_key(bytes: &[u8]) -> Result<[u8; 32], &'static str> {
    let key: [u8; 32] = bytes
        .strip_prefix(&ED25519_SPKI_PREFIX)
        .unwrap_or(bytes)
        .try_into()
        .map_err(|_| "it is not an Ed25519 key")?;
    let mut y = key;
    // The highest bit is the sign of x.
    y[31] &= 0x7f;
    match SMALL_ORDER.contains(&y) {
        true => Err("it is an Ed25519 key of small order, for which anyone can sign"),
        false => Ok(key),
    }
}

/// Parses an RSA key: an RSAPublicKey (PKCS#1), or a SubjectPublicKeyInfo with one. Returns the
/// RSAPublicKey.
pub fn rsa_key(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let pkcs1 = rsa_from_spki(bytes).unwrap_or(bytes);
    let (modulus, exponent) = rsa_numbers(pkcs1).ok_or("it is not an RSA key")?;
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    if !(2048..=8192).contains(&bits) {
        return Err("its modulus does not have 2048 to 8192 bits");
    }
    if !is_odd(modulus) || !is_odd(exponent) || exponent == [1] || exponent.len() > 4 {
        return Err("it is not an RSA key");
    }
    Ok(pkcs1)
}

/// The RSAPublicKey in a SubjectPublicKeyInfo.
fn rsa_from_spki(spki: &[u8]) -> Option<&[u8]> {
    let (content, []) = element(0x30, spki)? else { return None };
    let (algorithm, rest) = element(0x30, content)?;
    let (key, []) = element(0x03, rest)? else { return None };
    key.strip_prefix(&[0]).filter(|_| algorithm == RSA_ALGORITHM)
}

/// Modulus and exponent of an RSAPublicKey, without leading zeros.
fn rsa_numbers(pkcs1: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, []) = element(0x30, pkcs1)? else { return None };
    let (modulus, rest) = element(0x02, content)?;
    let (exponent, []) = element(0x02, rest)? else { return None };
    Some((positive(modulus)?, positive(exponent)?))
}

/// A positive, minimally encoded DER integer, without the leading zero that keeps it positive.
fn positive(number: &[u8]) -> Option<&[u8]> {
    match number {
        [0, 0x80..=0xff, ..] => number.get(1..),
        [1..=0x7f, ..] => Some(number),
        _ => None,
    }
}

/// Decodes base64 in the standard or URL-safe alphabet, with optional padding.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.replace('-', "+").replace('_', "/")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_rsa_key_is_refused() {
        let number = |length: usize, last: u8| {
            let mut number = vec![0, 0x80];
            number.resize(length, 1);
            number.push(last);
            [&[0x02, 0x82][..], &u16::try_from(number.len()).unwrap().to_be_bytes(), &number]
                .concat()
        };
        let sequence = |content: &[u8]| {
            [&[0x30, 0x82][..], &u16::try_from(content.len()).unwrap().to_be_bytes(), content]
                .concat()
        };
        let exponent = [0x02, 0x03, 1, 0, 1];
        let key = |length, last, exponent: &[u8]| {
            sequence(&[&number(length, last)[..], exponent].concat())
        };
        let good = key(256, 1, &exponent);
        assert_eq!(rsa_key(&good), Ok(&good[..]));
        let algorithm = [&[0x30, 13][..], &RSA_ALGORITHM].concat();
        let bits =
            [&[0x03, 0x82][..], &u16::try_from(good.len() + 1).unwrap().to_be_bytes(), &[0], &good]
                .concat();
        let info = sequence(&[&algorithm[..], &bits].concat());
        assert_eq!(rsa_key(&info), Ok(&good[..]));
        for (why, bad) in [
            ("too short", key(128, 1, &exponent)),
            ("too long", key(2048, 1, &exponent)),
            ("even", key(256, 2, &exponent)),
            ("an even exponent", key(256, 1, &[0x02, 0x01, 2])),
            ("no exponent", key(256, 1, &[])),
            ("an exponent of one", key(256, 1, &[0x02, 0x01, 1])),
            ("trailing bytes", [&good[..], &[0]].concat()),
            ("truncated", good[..good.len() - 1].to_vec()),
            ("another algorithm", {
                let mut other = info.clone();
                other[16] ^= 1;
                other
            }),
            ("an Ed25519 key", [&ED25519_SPKI_PREFIX[..], &[7; 32]].concat()),
            ("nothing", Vec::new()),
        ] {
            assert!(rsa_key(&bad).is_err(), "{why}");
        }
    }

    #[test]
    fn ed25519_key_of_small_order_is_refused_in_every_encoding() {
        for y in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut key = y;
                key[31] |= sign;
                assert!(ed25519_key(&key).is_err(), "{key:02x?}");
                assert!(ed25519_key(&[&ED25519_SPKI_PREFIX[..], &key].concat()).is_err());
                key[7] ^= 1;
                assert_eq!(ed25519_key(&key), Ok(key));
            }
        }
    }

    #[test]
    fn base64_allows_either_alphabet_and_optional_padding_but_no_stray_bits() {
        assert_eq!(decode_base64("-_8="), Some(vec![0xfb, 0xff]));
        assert_eq!(decode_base64("+/8"), Some(vec![0xfb, 0xff]));
        for malformed in ["+/9", "+/8==", "a b", "é"] {
            assert_eq!(decode_base64(malformed), None, "{malformed}");
        }
    }
}
