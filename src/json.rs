//! JSON parsing: strict for callers, lenient for the API's responses.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, UnitDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::secret::Secret;

/// Parses a caller's JSON object. The error names an unknown or mistyped key.
///
/// `argument` is the name of the document in errors. Errors never repeat a value, because it may be
/// a secret.
pub fn read<T: DeserializeOwned>(argument: &str, text: &str) -> Result<T> {
    if !text.trim_start().starts_with('{') {
        return Err(Error::invalid_argument(argument, format!("{argument} is not a JSON object")));
    }
    let mut source = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut source).map_err(|error| {
        let path = error.path().to_string();
        // serde_json reports some type errors as syntax errors (a number instead of an identifier):
        // parse the text again to tell them apart.
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => refusal(argument, &path, error.inner()),
            Err(error) => malformed(argument, &error),
        }
    })?;
    source.end().map_err(|error| malformed(argument, &error))?;
    Ok(value)
}

/// Splits the members with these keys off a caller's JSON object. Returns their values, and the
/// text of the object without them; `None` if it has none of them. A repeated key is an error.
#[allow(clippy::type_complexity)]
pub fn split<'a>(
    argument: &str,
    text: &str,
    keys: &[&'a str],
) -> Result<Option<(Vec<(&'a str, Value)>, Zeroizing<String>)>> {
    // A key may be written with escapes.
    if !keys.iter().any(|key| text.contains(key)) && !text.contains("\\u") {
        return Ok(None);
    }
    let malformed = |error| malformed(argument, &error);
    if !text.trim_start().starts_with('{') {
        return Ok(None);
    }
    let Members(members) = serde_json::from_str(text).map_err(malformed)?;
    let (mut found, mut rest) = (Vec::new(), Zeroizing::new(String::with_capacity(text.len() + 2)));
    for (name, value) in members {
        if let Some(key) = keys.iter().find(|key| **key == name) {
            if found.iter().any(|(other, _)| other == key) {
                let message = format!("{argument} has the key {key:?} twice");
                return Err(Error::invalid_argument(*key, message));
            }
            found.push((*key, serde_json::from_str(value.get()).map_err(malformed)?));
        } else {
            let before = if rest.is_empty() { '{' } else { ',' };
            rest.push(before);
            rest.push_str(&Value::from(name).to_string());
            rest.push(':');
            rest.push_str(value.get());
        }
    }
    let end = if rest.is_empty() { "{}" } else { "}" };
    rest.push_str(end);
    Ok((!found.is_empty()).then_some((found, rest)))
}

/// The members of an object, in order, with their values unparsed.
pub struct Members<'a>(pub Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Members<'de>, D::Error> {
        struct Collector;

        impl<'de> Visitor<'de> for Collector {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        source.deserialize_map(Collector)
    }
}

/// Parses an object, for `#[serde(deserialize_with)]`. Derived structs also accept an array with
/// the values in order.
pub fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(source: D) -> Result<T, D::Error> {
    struct Object<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }

        /// With the error of the type itself, which may say more.
        fn visit_unit<E: serde::de::Error>(self) -> Result<T, E> {
            T::deserialize(UnitDeserializer::new())
        }
    }

    source.deserialize_any(Object(PhantomData))
}

/// The beginning of serde's message for a key that is repeated in an object.
const DUPLICATE: &str = "duplicate field";

/// Parses an object with arbitrary keys, for `#[serde(deserialize_with)]`. Unlike
/// `serde_json::Map`, refuses a repeated key, of which the first value would be lost.
pub fn unique_map<'de, D: Deserializer<'de>>(source: D) -> Result<Map<String, Value>, D::Error> {
    UniqueMap::deserialize(source).map(|map| map.0)
}

/// Like [`unique_map`], for a list of objects.
pub fn unique_maps<'de, D: Deserializer<'de>>(
    source: D,
) -> Result<Vec<Map<String, Value>>, D::Error> {
    let maps = Vec::<UniqueMap>::deserialize(source)?;
    Ok(maps.into_iter().map(|map| map.0).collect())
}

struct UniqueMap(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueMap {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<UniqueMap, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = UniqueMap;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<UniqueMap, M::Error> {
                let mut fields = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.contains_key(&name) {
                        return Err(M::Error::custom(format_args!("{DUPLICATE} `{name}`")));
                    }
                    fields.insert(name, value);
                }
                Ok(UniqueMap(fields))
            }
        }
        source.deserialize_map(Each)
    }
}

fn malformed(argument: &str, error: &serde_json::Error) -> Error {
    let place = format!("line {}, column {}", error.line(), error.column());
    Error::invalid_argument(argument, format!("{argument} is not valid JSON ({place})"))
}

fn refusal(argument: &str, path: &str, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    // serde's messages are "unknown field `x`, expected …", "missing field `x`" or
    // "invalid type: string \"<the value>\", expected u64 at line 1 column 5".
    let quoted = || text.split('`').nth(1).unwrap_or_default().to_owned();
    let quoted_key = || {
        let parent = if path == "." { "" } else { path };
        let name = quoted();
        match parent.strip_suffix(name.as_str()) {
            Some(_) => parent.to_owned(),
            None if parent.is_empty() => name,
            None => format!("{parent}.{name}"),
        }
    };
    if text.starts_with(DUPLICATE) {
        let key = quoted_key();
        return Error::invalid_argument(&key, format!("{argument} has the key {key:?} twice"))
            .with_help("remove one of the two");
    }
    if text.starts_with("unknown field") {
        let key = quoted_key();
        return Error::invalid_argument(&key, format!("{argument} has an unknown key {key:?}"))
            .with_help("check the spelling; keys are camelCase");
    }
    if text.starts_with("missing field") {
        let key = if path == "." { quoted() } else { format!("{path}.{}", quoted()) };
        return Error::invalid_argument(&key, format!("{argument} lacks the required key {key:?}"));
    }
    let expected = text
        .rsplit_once("expected ")
        .filter(|_| error.is_data())
        .map_or("a string", |(_, expected)| expected);
    let expected = expected.split(" at line ").next().unwrap_or(expected);
    // Some names are Rust's.
    let expected = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "an array",
        "a map" => "an object",
        "string" => "a string",
        "path string" => "a path",
        expected if expected.starts_with("struct ") => "an object",
        expected => expected,
    };
    let key = if path == "." { argument } else { path };
    Error::invalid_argument(
        key,
        format!("{key:?} in {argument} has the wrong type: expected {expected}"),
    )
}

/// Maximum nesting of a document that is passed on; parsers in other languages have such limits.
const MAX_DEPTH: usize = 128;

/// The text as JSON that can be embedded in another document. `None` if it is invalid, nested too
/// deeply, or has an escape sequence that is half of a surrogate pair: other parsers reject these.
pub fn raw(text: &str) -> Option<&RawValue> {
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    let bytes = raw.get().as_bytes();
    let (mut depth, mut in_string, mut at) = (0_usize, false, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => {
                at += match code_unit(&bytes[at..]) {
                    Some(0xD800..=0xDBFF) => match code_unit(&bytes[at + 6..]) {
                        Some(0xDC00..=0xDFFF) => 11,
                        _ => return None,
                    },
                    Some(0xDC00..=0xDFFF) => return None,
                    Some(_) => 5,
                    None => 1,
                }
            }
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return None;
        }
        at += 1;
    }
    Some(raw)
}

/// The UTF-16 code unit of an escape sequence such as `\u00e4` at the beginning.
fn code_unit(escaped: &[u8]) -> Option<u16> {
    let digits = escaped.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Renames the fields of a response to camelCase. If a field is present in both spellings,
/// camelCase wins unless it is null or empty: the API introduced it later, and the other may be a
/// leftover.
pub fn in_camel_case(answer: Map<String, Value>) -> Map<String, Value> {
    if answer.keys().all(|name| camel_case(name).is_none()) {
        return answer;
    }
    let mut fields = Map::new();
    let mut older = Vec::new();
    for (name, value) in answer {
        match camel_case(&name) {
            Some(newer) => older.push((newer, value)),
            None => {
                fields.insert(name, value);
            }
        }
    }
    for (name, value) in older {
        let newer = fields.entry(name).or_insert(Value::Null);
        if is_absent(newer) {
            *newer = value;
        }
    }
    fields
}

/// Whether a field says as little as a missing one: null or an empty string.
pub fn is_absent(value: &Value) -> bool {
    value.is_null() || value == ""
}

/// `access_token` as `accessToken`; `None` if nothing changes. Leading underscores stay, as in the
/// API's `_id`.
pub fn camel_case(name: &str) -> Option<String> {
    if !name.trim_start_matches('_').contains('_') {
        return None;
    }
    let mut camel = String::with_capacity(name.len());
    let mut raise = false;
    for character in name.chars() {
        // Only leading underscores stay, so that converting twice changes nothing.
        if character == '_' && camel.ends_with(|last| last != '_') {
            raise = true;
        } else if raise {
            camel.extend(character.to_uppercase());
            raise = false;
        } else {
            camel.push(character);
        }
    }
    Some(camel)
}

/// A string of a response. Numbers and booleans are converted; an empty string counts as absent.
pub fn string(value: Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A secret of a response. Unlike [`string`], converts nothing: any other type is an error.
pub fn secret(value: Option<Value>) -> Result<Option<Secret>, ()> {
    match value {
        Some(Value::String(text)) => {
            Ok(Some(Secret::new(text)).filter(|secret| !secret.expose().is_empty()))
        }
        None | Some(Value::Null) => Ok(None),
        Some(_) => Err(()),
    }
}

/// An integer of a response: a number, truncated if it has a fraction, or a string of one.
pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => {
            number.as_i64().or_else(|| number.as_f64().map(|fraction| fraction as i64))
        }
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.parse::<f64>().ok().map(|fraction| fraction as i64))
        }
        _ => None,
    }
}

/// Removes a [`string`] from the fields.
pub fn take_string(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    fields.remove(name).and_then(string)
}

/// Removes an [`integer`] from the fields.
pub fn take_integer(fields: &mut Map<String, Value>, name: &str) -> Option<i64> {
    fields.remove(name).as_ref().and_then(integer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    #[allow(dead_code)]
    struct Outer {
        client_id: String,
        #[serde(default)]
        inner: Inner,
        #[serde(default, deserialize_with = "unique_map")]
        any: Map<String, Value>,
        #[serde(default, deserialize_with = "unique_maps")]
        list: Vec<Map<String, Value>>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase", default)]
    #[allow(dead_code)]
    struct Inner {
        total_ms: u64,
    }

    #[test]
    fn refusals_name_the_key_and_not_the_value() {
        for (text, parameter) in [
            ("[1]", "config_json"),
            ("", "config_json"),
            ("null", "config_json"),
            ("{\"clientId\":", "config_json"),
            ("{} x", "config_json"),
            ("{\"clientId\":\"a\"} x", "config_json"),
            ("{}", "clientId"),
            ("{\"clientId\":\"a\",\"colour\":1}", "colour"),
            ("{\"clientId\":\"hunter2\",\"clientId\":\"b\"}", "clientId"),
            ("{\"clientId\":\"a\",\"inner\":{\"totalMs\":4711,\"totalMs\":2}}", "inner.totalMs"),
            ("{\"clientId\":\"a\",\"inner\":{},\"inner\":{}}", "inner"),
            ("{\"clientId\":\"a\",\"any\":{\"x\":\"hunter2\",\"x\":2}}", "any.x"),
            ("{\"clientId\":\"a\",\"list\":[{\"x\":1,\"y\":1,\"x\":2}]}", "list[0].x"),
            ("{\"clientId\":\"a\",\"inner\":{\"totalMillis\":1}}", "inner.totalMillis"),
            ("{\"clientId\":\"a\",\"inner\":{\"totalMs\":\"hunter2\"}}", "inner.totalMs"),
            ("{\"clientId\":\"a\",\"inner\":{\"totalMs\":-4711}}", "inner.totalMs"),
            ("{\"clientId\":\"a\",\"inner\":\"hunter2\"}", "inner"),
        ] {
            let error = read::<Outer>("config_json", text).unwrap_err();
            assert_eq!(error.parameter(), Some(parameter), "{text}: {error}");
            assert!(
                !error.message().contains("hunter2") && !error.message().contains("4711"),
                "{error}"
            );
        }
    }

    #[test]
    fn valid_document_is_raw_json_unless_other_parsers_reject_it() {
        for text in [
            "1e400",
            "12345678901234567890123",
            r#"{"b": 1.0, "a": 1, "a": "\ud83d\ude00 \u00e4 \\ud800 [[["}"#,
            &format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)),
        ] {
            assert_eq!(raw(&format!(" {text}\n")).unwrap().get(), text);
        }
        for text in [
            "",
            "{",
            "[1] 2",
            r#""\ud83d""#,
            r#""\ud83dx""#,
            r#""\ud83d\u0041""#,
            r#""\ude00""#,
            &"[".repeat(MAX_DEPTH + 1),
            &format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1)),
        ] {
            assert!(raw(text).is_none(), "{text}");
        }
    }

    #[test]
    fn newer_casing_wins() {
        let Value::Object(answer) = json!({
            "access_token": "old", "accessToken": "new", "_id": 1, "expires_in": "5", "scope": "a",
            "refresh_token": "only", "refreshToken": null, "company_id": "c", "companyId": "",
        }) else {
            unreachable!()
        };
        let mut fields = in_camel_case(answer);
        assert_eq!(take_string(&mut fields, "accessToken").as_deref(), Some("new"));
        assert_eq!(take_integer(&mut fields, "expiresIn"), Some(5));
        assert_eq!(take_string(&mut fields, "refreshToken").as_deref(), Some("only"));
        assert_eq!(take_string(&mut fields, "companyId").as_deref(), Some("c"));
        assert_eq!(Value::Object(fields), json!({"_id": 1, "scope": "a"}));
    }

    #[test]
    fn names_are_converted_to_camel_case() {
        for (name, camel) in [
            ("access_token", "accessToken"),
            ("access__token", "accessToken"),
            ("access_token_", "accessToken"),
            ("_id", "_id"),
            ("__user_id", "__userId"),
            ("_", "_"),
        ] {
            let read = camel_case(name).unwrap_or_else(|| name.to_owned());
            assert_eq!((read.as_str(), camel_case(&read)), (camel, None), "{name}");
        }
    }

    #[test]
    fn numbers_are_read_in_every_accepted_form() {
        for (value, expected) in [
            (json!(86399), Some(86399)),
            (json!(86399.9), Some(86399)),
            (json!("86399"), Some(86399)),
            (json!(" 86399.0 "), Some(86399)),
            (json!("soon"), None),
            (json!(null), None),
            (json!([1]), None),
        ] {
            let mut fields = Map::from_iter([("n".to_owned(), value.clone())]);
            assert_eq!(take_integer(&mut fields, "n"), expected, "{value}");
        }
    }
}
