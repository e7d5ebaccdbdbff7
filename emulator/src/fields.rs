//! Form, query and JSON parsing: the named values of a request, read strictly.
//!
//! Existing crates accept input that a strict server must refuse: broken escapes, invalid UTF-8,
//! duplicate names.

use crate::answer::Answer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// Named values; each name occurs once.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

/// The reason why named values could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FieldError {
    /// The input as a whole is malformed.
    Malformed(&'static str),
    /// A duplicate name.
    Repeated(String),
    /// The value of this name is not a string.
    NotAString(String),
}

impl FieldError {
    /// The API's error response.
    pub(crate) fn answer(&self) -> Answer {
        match self {
            Self::Malformed(what) => Answer::refusal(400, what),
            Self::Repeated(name) => Answer::invalid_parameter(name),
            Self::NotAString(name) => Answer::unprocessable(&[format!("{name} must be a string")]),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => formatter.write_str(what),
            Self::Repeated(name) => write!(formatter, "{name} is given more than once"),
            Self::NotAString(name) => write!(formatter, "{name} must be a string"),
        }
    }
}

impl Fields {
    /// Parses `a=1&b=2`, the format of forms and queries.
    pub(crate) fn from_form(text: &[u8]) -> Result<Self, FieldError> {
        let mut fields = Self::default();
        for part in text.split(|&byte| byte == b'&') {
            if part.is_empty() {
                if text.is_empty() {
                    break;
                }
                return Err(FieldError::Malformed("Malformed form: an empty part"));
            }
            let equals = part
                .iter()
                .position(|&byte| byte == b'=')
                .ok_or(FieldError::Malformed("Malformed form: a part without '='"))?;
            fields.insert(decode(&part[..equals])?, decode(&part[equals + 1..])?)?;
        }
        Ok(fields)
    }

    /// Parses a JSON object of strings.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, FieldError> {
        let Object(members) = serde_json::from_slice(text)
            .map_err(|_| FieldError::Malformed("Malformed JSON: not one object"))?;
        let mut fields = Self::default();
        for (name, value) in members {
            match value {
                Value::String(value) => fields.insert(name, value)?,
                _ => return Err(FieldError::NotAString(name)),
            }
        }
        Ok(fields)
    }

    fn insert(&mut self, name: String, value: String) -> Result<(), FieldError> {
        if self.0.iter().any(|(known, _)| *known == name) {
            return Err(FieldError::Repeated(name));
        }
        self.0.push((name, value));
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The names that are not among `allowed`.
    pub(crate) fn strangers<'a>(&'a self, allowed: &'a [&str]) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|(name, _)| name.as_str()).filter(move |name| !allowed.contains(name))
    }

    /// Refuses names that are not among `allowed`, with one message for each.
    pub(crate) fn allow_only(&self, allowed: &[&str]) -> Result<(), Answer> {
        let messages: Vec<_> = self
            .strangers(allowed)
            .map(|name| format!("property {name} should not exist"))
            .collect();
        if messages.is_empty() { Ok(()) } else { Err(Answer::unprocessable(&messages)) }
    }
}

fn decode(text: &[u8]) -> Result<String, FieldError> {
    const BROKEN: FieldError = FieldError::Malformed("Malformed form: a broken escape");
    let hex =
        |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16)).ok_or(BROKEN);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let value = hex(rest.next())? * 16 + hex(rest.next())?;
                u8::try_from(value).map_err(|_| BROKEN)?
            }
            // A client that sends these characters raw does not escape values; the next value might
            // contain '&'.
            b' ' | b'"' | b'<' | b'>' | 0..=0x1f | 0x7f.. => {
                return Err(FieldError::Malformed("Malformed form: an unescaped character"));
            }
            _ => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| FieldError::Malformed("Malformed form: not UTF-8"))
}

/// A JSON object with its members in order, so that duplicate names are detected.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let fields = Fields::from_form(b"a=1+2&b=%C3%A9%26&c=").unwrap();
        assert_eq!(fields.get("a"), Some("1 2"));
        assert_eq!(fields.get("b"), Some("é&"));
        assert_eq!(fields.get("c"), Some(""));
        assert_eq!(fields.get("d"), None);
        assert!(Fields::from_form(b"").unwrap().0.is_empty());
    }

    #[test]
    fn malformed_forms_are_refused() {
        for form in [
            &b"a=%4"[..],
            b"a=%zz",
            b"a=%",
            b"a=%ff",
            b"a",
            b"a=1&",
            b"&a=1",
            b"a=1 2",
            b"a=\xc3\xa9",
            b"a=\"",
        ] {
            let error = Fields::from_form(form).unwrap_err();
            assert!(matches!(error, FieldError::Malformed(_)), "{form:?}: {error}");
        }
        let repeated = Err(FieldError::Repeated("a".to_owned()));
        assert_eq!(Fields::from_form(b"a=1&a=1").map(|_| ()), repeated);
        assert_eq!(Fields::from_json(br#"{"a":"1","a":"1"}"#).map(|_| ()), repeated);
        assert_eq!(
            Fields::from_json(br#"{"a":1}"#).map(|_| ()),
            Err(FieldError::NotAString("a".to_owned()))
        );
        for json in ["", "[]", "null", "{", "{} {}"] {
            assert!(Fields::from_json(json.as_bytes()).is_err(), "{json}");
        }
    }
}
