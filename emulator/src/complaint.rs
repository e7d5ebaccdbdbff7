//! Errors in requests to the control API: they name the wrong field.

use serde::de::{DeserializeOwned, Deserializer};
use std::fmt;

/// What is wrong with a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The name of the field, such as `rateLimit.perMs`; `None` if the request as a whole is wrong.
    pub(crate) field: Option<String>,
    what: String,
}

impl Complaint {
    pub(crate) fn field(name: &str, what: impl Into<String>) -> Self {
        Self { field: Some(name.to_owned()), what: what.into() }
    }

    pub(crate) fn whole(what: impl Into<String>) -> Self {
        Self { field: None, what: what.into() }
    }

    /// Removes the first part of the field's path.
    pub(crate) fn below(mut self, prefix: &str) -> Self {
        let below = |field: String| match field.split_once('.') {
            Some((first, rest)) if first == prefix => Some(rest.to_owned()),
            _ if field == prefix => None,
            _ => Some(field),
        };
        self.field = self.field.and_then(below);
        self
    }

    pub(crate) fn or_field(self, name: &str) -> Self {
        Self { field: self.field.or_else(|| Some(name.to_owned())), ..self }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(formatter, "{field}: {}", self.what),
            None => formatter.write_str(&self.what),
        }
    }
}

/// Deserializes JSON text or a JSON value. The error names the field, including an unknown, missing
/// or repeated one.
pub(crate) fn deserialize<'de, T, D>(source: D) -> Result<T, Complaint>
where
    T: DeserializeOwned,
    D: Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(source).map_err(|error| {
        let path = error.path().to_string();
        let what = error.inner().to_string();
        if !error.inner().is_data() {
            return Complaint::whole(format!("the body is not JSON: {what}"));
        }
        // The position in the text is of no use next to the name.
        let what = what.split(" at line ").next().unwrap_or_default().to_owned();
        let about_a_name = ["unknown field", "missing field", "duplicate field"];
        let name = about_a_name.iter().any(|start| what.starts_with(start));
        let field = match what.split('`').nth(1).filter(|_| name) {
            Some(name) if path == "." => name.to_owned(),
            // The path of an unknown field may contain its name already.
            Some(name) if what.starts_with("missing") || !path.ends_with(name) => {
                format!("{path}.{name}")
            }
            _ => path,
        };
        Complaint { field: Some(field).filter(|field| field != "."), what }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read")]
    struct Outer {
        number: u8,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read")]
    struct Inner {
        flag: bool,
    }

    #[test]
    fn wrong_field_is_named_with_its_path() {
        for (text, field) in [
            (r#"{"number": "1"}"#, "number"),
            (r#"{"number": 256}"#, "number"),
            (r#"{}"#, "number"),
            (r#"{"number": 1, "number": 2}"#, "number"),
            (r#"{"number": 1, "numbr": 2}"#, "numbr"),
            (r#"{"number": 1, "inner": {"flag": 1}}"#, "inner.flag"),
            (r#"{"number": 1, "inner": {}}"#, "inner.flag"),
            (r#"{"number": 1, "inner": {"flag": true, "flog": true}}"#, "inner.flog"),
            (r#"{"number": 1, "inner": []}"#, "inner"),
        ] {
            let source = &mut serde_json::Deserializer::from_str(text);
            let complaint = deserialize::<Outer, _>(source).unwrap_err();
            assert_eq!(complaint.field.as_deref(), Some(field), "{text}: {complaint}");
            assert!(complaint.to_string().starts_with(&format!("{field}: ")), "{complaint}");
            assert!(!complaint.to_string().contains(" column "), "{complaint}");
        }
        let source = &mut serde_json::Deserializer::from_str("{\"number\": ");
        let complaint = deserialize::<Outer, _>(source).unwrap_err();
        assert_eq!(complaint.field, None);
        assert!(complaint.to_string().starts_with("the body is not JSON: EOF"), "{complaint}");
    }
}
