//! JSON distortions: the changes that faults make to a successful response.

use serde_json::{Map, Value, json};

/// Converts numbers and booleans to strings, as in some responses of the real API.
pub(crate) fn stringified(value: Value) -> Value {
    map_leaves(value, &|leaf| match leaf {
        Value::Number(number) => json!(number.to_string()),
        Value::Bool(flag) => json!(flag.to_string()),
        leaf => leaf,
    })
}

/// Replaces every value with one of the wrong type.
pub(crate) fn wrong_types(value: Value) -> Value {
    map_leaves(value, &|leaf| match leaf {
        Value::String(text) => json!(text.len()),
        Value::Number(number) => json!([number]),
        Value::Bool(_) => json!({}),
        leaf => leaf,
    })
}

fn map_leaves(value: Value, change: &impl Fn(Value) -> Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|item| map_leaves(item, change)).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, map_leaves(value, change)))
            .collect::<Map<_, _>>()
            .into(),
        leaf => change(leaf),
    }
}

/// Converts keys to snake_case, as before v3.
pub(crate) fn snake_case(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(snake_case).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (snake(&name), snake_case(value)))
            .collect::<Map<_, _>>()
            .into(),
        leaf => leaf,
    }
}

pub(crate) fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 2);
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

/// Wraps bytes in the gzip format (RFC 1952), stored without compression.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    // Magic number, "deflate", no flags, no time, no extra flags, unknown system.
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    for block in bytes.chunks(usize::from(u16::MAX)) {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        gzip.push(0);
        gzip.extend(length.to_le_bytes());
        gzip.extend((!length).to_le_bytes());
        gzip.extend(block);
    }
    // An empty block, marked as the last.
    gzip.extend([1, 0, 0, 255, 255]);
    gzip.extend(crc32(bytes).to_le_bytes());
    let length = u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or_default();
    gzip.extend(length.to_le_bytes());
    gzip
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_change_their_types() {
        let value = || json!({"expiresIn": 5, "all": true, "ids": ["abc"], "none": null});
        assert_eq!(
            stringified(value()),
            json!({"expiresIn": "5", "all": "true", "ids": ["abc"], "none": null})
        );
        assert_eq!(
            wrong_types(value()),
            json!({"expiresIn": [5], "all": {}, "ids": [3], "none": null})
        );
    }

    #[test]
    fn keys_are_converted_to_snake_case() {
        assert_eq!(
            snake_case(json!({"accessToken": {"userId": 1}, "_id": [{"planId": 2}]})),
            json!({"access_token": {"user_id": 1}, "_id": [{"plan_id": 2}]})
        );
    }

    #[test]
    fn checksum_matches_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
