//! Public key formats: PEM, hex or base64 of the raw key, SubjectPublicKeyInfo, or PKCS#1.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::der::element;
use crate::error::{Error, Result, Status};

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
pub(super) const ED25519_INFO: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The AlgorithmIdentifier's content for an RSA key: rsaEncryption, NULL (RFC 3279).
const RSA_ALGORITHM: [u8; 13] =
    [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// Reads base64 with padding or without; what is left in the last character must be zero, so that one signature has
/// one spelling.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a list of keys; the first that cannot be used is named by its place.
pub fn read_all<K>(
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
        decode_base64(&packed)
    };
    bytes.filter(|bytes| !bytes.is_empty()).ok_or("it is neither PEM nor hex nor base64")
}

/// An Ed25519 key: its 32 bytes, or its SubjectPublicKeyInfo.
pub fn ed25519_key(bytes: &[u8]) -> Result<[u8; 32], &'static str> {
    bytes.strip_prefix(&ED25519_INFO).unwrap_or(bytes).try_into().map_err(|_| "it is no Ed25519 key")
}

/// An RSA key as RSAPublicKey (PKCS#1); it may stand in a SubjectPublicKeyInfo.
pub fn rsa_key(bytes: &[u8]) -> Result<&[u8], &'static str> {
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
    let (content, []) = element(0x30, info)? else { return None };
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

/// A DER integer above zero, in as few bytes as it needs: a zero stands before a first byte that would make it negative,
/// and nowhere else.
fn positive(number: &[u8]) -> Option<&[u8]> {
    match number {
        [0, 0x80..=0xff, ..] => number.get(1..),
        [1..=0x7f, ..] => Some(number),
        _ => None,
    }
}

/// Decodes base64 of either alphabet, with padding or without.
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
    fn base64_has_one_spelling_of_its_bits_and_any_of_its_padding() {
        assert_eq!(decode_base64("-_8="), Some(vec![0xfb, 0xff]));
        assert_eq!(decode_base64("+/8"), Some(vec![0xfb, 0xff]));
        for malformed in ["+/9", "+/8==", "a b", "é"] {
            assert_eq!(decode_base64(malformed), None, "{malformed}");
        }
    }
}
